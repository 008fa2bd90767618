"""The export of one photo, and of a group of them: fetched from the source, rendered into staging, published."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from skicyclerun.actors.album_work import not_writable, raise_for_disk, raise_if_written
from skicyclerun.actors.duplicates import Duplicates
from skicyclerun.errors import OriginalMissing, PhotoSlow
from skicyclerun.files.album_folder import AlbumFolder, StagedFile
from skicyclerun.files.fault_points import fault_point
from skicyclerun.models import Component, ExportedFacts, Fetched
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import KeepsTime, Source, TimeLimits
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


#: What comes of one photo before it is published.
StagedOrNot = _Rendered | NotExported


@dataclass(frozen=True, slots=True)
class AlbumExport:
    """What `AlbumWork` does with the photos of one album."""

    store: Store
    source: Source
    render: RenderFunction
    folder: AlbumFolder
    staging: Path
    options: ExportOptions
    duplicates: Duplicates
    time_limits: TimeLimits
    expect: Callable[[float], None]
    """Told how long an attempt is given, for the album's own time."""
    by_row: dict[int, PhotoToDo]
    on_outcome: Callable[[PhotoToDo, Exported | NotExported], None]
    on_commit: Callable[[int], Awaitable[None]]

    def name_of(self, item: PhotoToDo) -> str:
        return item.photo.original_filename

    async def attempt(self, item: PhotoToDo, number: int) -> StagedOrNot:
        staged = self.staging / f"{item.row_id}-{number}.part"
        directory = staged.with_suffix(".fetch")
        if (shared := await self.duplicates.shared(item, self.folder.path.name, staged)) is not None:
            fault_point("photo.staged")
            return _Rendered(item, staged, shared, number)
        component, size = item.photo.component, 0
        limit = self.time_limits.seconds(component)
        fetched: Fetched | None = None
        try:
            with anyio.fail_after(None if isinstance(self.source, KeepsTime) else limit):
                fetched = await self.source.fetch(item.photo, directory)
                size = await anyio.to_thread.run_sync(_size_of, fetched.path, abandon_on_cancel=True)
            limit = self.time_limits.seconds(component, size)
            self.expect(limit)
            with anyio.fail_after(limit):
                # A thread cannot be stopped; one that is given up writes to a name nobody uses again.
                facts = await anyio.to_thread.run_sync(
                    self.render, fetched, component, staged, self.options, abandon_on_cancel=True
                )
        except TimeoutError:
            raise PhotoSlow(f"it took longer than {limit:g} s ({_setting(component)})") from None
        finally:
            # A source that hands over its own files has made no directory; looking would cost a stat a photo.
            if (fetched is None or fetched.path.is_relative_to(directory)) and directory.exists():
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
        fault_point("photo.staged")
        return _Rendered(item, staged, facts, number)

    def failed(self, item: PhotoToDo, error: Exception, reason: str, attempts: int) -> StagedOrNot:
        status = PhotoStatus.FAILED
        if isinstance(error, OriginalMissing):
            # Who takes a preview has no original to keep.
            skips = self.options.missing == "skip"
            skips |= self.options.missing == "preview" and item.photo.component is Component.ORIGINAL
            status = PhotoStatus.LEFT_OUT if skips else PhotoStatus.MISSING
        return NotExported(item.row_id, status, reason, attempts)

    def raise_if_ours(self, error: OSError) -> None:
        raise_if_written(error, self.folder.path, self.staging)

    async def settle(self, group: Sequence[StagedOrNot]) -> None:
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

    def _settled(self, outcome: StagedOrNot, refused: set[str]) -> Exported | NotExported:
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


def _size_of(path: Path) -> int:
    """Bytes; 0 where it cannot be told, which whoever reads the file will say better."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _setting(component: Component) -> str:
    return "export.timeouts.photo" if component is Component.STILL else "export.timeouts.movie"
