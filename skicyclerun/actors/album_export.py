"""The export of one photo, and of a group of them: fetched from the source, rendered into staging, published."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from skicyclerun.actors.album_work import WorkLimits, not_writable, raise_for_disk, raise_if_written
from skicyclerun.errors import OriginalMissing, PhotoTimedOut
from skicyclerun.files.album_folder import AlbumFolder, StagedFile
from skicyclerun.files.fault_points import fault_point
from skicyclerun.models import ExportedFacts, Fetched
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import Source
from skicyclerun.state import photos
from skicyclerun.state.photos import Exported, NotExported, PhotoStatus, PhotoToDo
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)

#: Renders fetched bytes into a staged file; blocking. Bound to skicyclerun.images.render by the pipeline.
RenderFunction = Callable[..., ExportedFacts]


@dataclass(frozen=True, slots=True)
class _Rendered:
    photo: PhotoToDo
    staged: Path
    facts: ExportedFacts
    attempts: int


_Outcome = _Rendered | NotExported


@dataclass(frozen=True, slots=True)
class AlbumExport:
    """What `AlbumWork` does with the photos of one album."""

    store: Store
    source: Source
    render: RenderFunction
    folder: AlbumFolder
    staging: Path
    options: ExportOptions
    limits: WorkLimits
    by_row: dict[int, PhotoToDo]
    on_outcome: Callable[[PhotoToDo, Exported | NotExported], None]
    on_commit: Callable[[int], Awaitable[None]]

    def name_of(self, item: PhotoToDo) -> str:
        return item.photo.original_filename

    async def attempt(self, item: PhotoToDo, number: int) -> _Outcome:
        staged = self.staging / f"{item.row_id}-{number}.part"
        directory = staged.with_suffix(".fetch")
        fetched: Fetched | None = None
        try:
            with anyio.fail_after(self.limits.photo_seconds):
                fetched = await self.source.fetch(item.photo, directory)
                # A thread cannot be stopped; one that is given up writes to a name nobody uses again.
                facts = await anyio.to_thread.run_sync(
                    self.render, fetched, item.photo.component, staged, self.options, abandon_on_cancel=True
                )
        except TimeoutError:
            raise PhotoTimedOut(
                f"it took longer than {self.limits.photo_seconds:g} s (export.timeouts.photo)"
            ) from None
        finally:
            # A source that hands over its own files has made no directory; looking would cost a stat a photo.
            if (fetched is None or fetched.path.is_relative_to(directory)) and directory.exists():
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
        fault_point("photo.staged")
        return _Rendered(item, staged, facts, number)

    def failed(self, item: PhotoToDo, error: Exception, reason: str, attempts: int) -> _Outcome:
        status = PhotoStatus.FAILED
        if isinstance(error, OriginalMissing):
            status = PhotoStatus.LEFT_OUT if self.options.missing == "skip" else PhotoStatus.MISSING
        return NotExported(item.row_id, status, reason, attempts)

    def raise_if_ours(self, error: OSError) -> None:
        raise_if_written(error, self.folder.path, self.staging)

    async def settle(self, group: Sequence[_Outcome]) -> None:
        """Publish the group's files, then commit its rows."""
        rendered = [outcome for outcome in group if isinstance(outcome, _Rendered)]
        staged = [StagedFile(each.staged, each.photo.file_name, each.facts.sha256) for each in rendered]
        with anyio.CancelScope(shield=True):
            try:
                refused = await anyio.to_thread.run_sync(self.folder.publish, staged) if staged else []
            except OSError as error:
                raise_for_disk(error, self.folder.path)
                raise not_writable(error, self.folder.path) from error
            refused_names = {each.file_name for each in refused}
            settled = [self._settled(outcome, refused_names) for outcome in group]
            await photos.commit_group(self.store, settled)
        for outcome in settled:
            self.on_outcome(self.by_row[outcome.row_id], outcome)
        await self.on_commit(sum(isinstance(outcome, Exported) for outcome in settled))

    def _settled(self, outcome: _Outcome, refused: set[str]) -> Exported | NotExported:
        if isinstance(outcome, NotExported):
            return outcome
        photo = outcome.photo
        if photo.file_name in refused:
            return NotExported(
                photo.row_id,
                PhotoStatus.FAILED,
                f"the folder holds another file named {photo.file_name!r}, or it was changed since its export; "
                "it was left alone. Move it away, then `skicyclerun retry-failed`.",
                outcome.attempts,
            )
        key = photos.path_key(self.folder.path.name, photo.file_name)
        return Exported(photo.row_id, key, outcome.facts, outcome.attempts)
