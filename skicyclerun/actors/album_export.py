"""How photos are exported: fetched one by one or found two dozen at once, rendered into staging, a group published."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from skicyclerun.actors.album_work import not_writable, raise_for_disk, raise_if_written
from skicyclerun.actors.duplicates import Duplicates
from skicyclerun.actors.photo_batch import BATCH_PHOTOS, PhotoBatch, size_of, time_setting
from skicyclerun.actors.render_processes import RenderFunction, RenderProcesses
from skicyclerun.errors import OriginalMissing, PhotoSlow
from skicyclerun.files.album_folder import AlbumFolder, StagedFile
from skicyclerun.files.fault_points import fault_point
from skicyclerun.models import Component, ExportedFacts, Fetched
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import InPlace, KeepsTime, Source, TimeLimits
from skicyclerun.state import photos
from skicyclerun.state.photos import Exported, NotExported, PhotoStatus, PhotoToDo
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)


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
    time_limits: TimeLimits
    expect: Callable[[float], None]
    """Told how long an attempt is given, for the album's own time."""
    by_row: dict[int, PhotoToDo]
    on_outcome: Callable[[PhotoToDo, Exported | NotExported], None]
    on_commit: Callable[[int], Awaitable[None]]
    in_turn: Callable[[], Awaitable[None]]
    """Returns when groups may be published: not while the album before this one has some."""
    duplicates: Duplicates | None = None
    processes: RenderProcesses | None = None
    """Where photos of a source that has them in place are rendered; None: in threads."""
    in_place: InPlace | None = field(init=False)
    """The source, where it has its photos in place. Asked once: a protocol is slow to ask for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_place", self.source if isinstance(self.source, InPlace) else None)

    @property
    def batch_photos(self) -> int:
        """How many photos `attempt_several` may be given; 1 where the source brings each from elsewhere."""
        return BATCH_PHOTOS if self.in_place is not None else 1

    def name_of(self, item: PhotoToDo) -> str:
        return item.photo.original_filename

    async def attempt_several(self, items: Sequence[PhotoToDo]) -> Sequence[StagedOrNot | Exception | None]:
        return await self._in_a_batch(items, 1)

    async def _in_a_batch(self, items: Sequence[PhotoToDo], number: int) -> list[StagedOrNot | Exception | None]:
        assert self.in_place is not None
        photos = [(item, self._staged(item, number)) for item in items]
        shared: dict[int, ExportedFacts | None] = {}
        if self.duplicates is not None:
            shared = {item.row_id: await self._shared(item, staged) for item, staged in photos}
        photos_to_render = [(item, staged) for item, staged in photos if shared.get(item.row_id) is None]
        rendered: Iterator[ExportedFacts | Exception | None] = iter(())
        if photos_to_render:
            batch = PhotoBatch(
                photos_to_render, self.in_place, self.render, self.options, self.time_limits, self.processes
            )
            rendered = iter(await batch.carry_out(self.expect))
        outcomes: list[StagedOrNot | Exception | None] = []
        for item, staged in photos:
            came = shared.get(item.row_id) or next(rendered)
            if isinstance(came, ExportedFacts):
                fault_point("photo.staged")
                outcomes.append(_Rendered(item, staged, came, number))
            else:
                outcomes.append(came)
        return outcomes

    async def _shared(self, item: PhotoToDo, staged: Path) -> ExportedFacts | None:
        """The photo's file as another album has it, under a second name (`export.duplicates`); None: it is rendered."""
        if self.duplicates is None:
            return None
        return await self.duplicates.shared(item, self.folder.path.name, staged)

    def _staged(self, item: PhotoToDo, number: int) -> Path:
        return self.staging / f"{item.row_id}-{number}.part"

    async def attempt(self, item: PhotoToDo, number: int) -> StagedOrNot:
        if self.in_place is not None:
            (came,) = await self._in_a_batch([item], number)
            assert came is not None, "the first photo of a batch is begun"
            if isinstance(came, Exception):
                raise came
            return came
        staged = self._staged(item, number)
        directory = staged.with_suffix(".fetch")
        if (shared := await self._shared(item, staged)) is not None:
            fault_point("photo.staged")
            return _Rendered(item, staged, shared, number)
        component, size = item.photo.component, 0
        limit = self.time_limits.seconds(component)
        fetched: Fetched | None = None
        try:
            with anyio.fail_after(None if isinstance(self.source, KeepsTime) else limit):
                fetched = await self.source.fetch(item.photo, directory)
                size = await anyio.to_thread.run_sync(size_of, fetched.path, abandon_on_cancel=True)
            limit = self.time_limits.seconds(component, size)
            self.expect(limit)
            with anyio.fail_after(limit):
                # A thread cannot be stopped; one that is given up writes to a name nobody uses again.
                facts = await anyio.to_thread.run_sync(
                    self.render, fetched, component, staged, self.options, abandon_on_cancel=True
                )
        except TimeoutError:
            raise PhotoSlow(f"it took longer than {limit:g} s ({time_setting(component)})") from None
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
        """Publish the group's files, then commit its rows, when it is this album's turn."""
        await self.in_turn()
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
            where = None
            if self.options.strip_location:
                folder_name = self.folder.path.name
                where = {each.photo.row_id: (folder_name, each.photo.file_name) for each in rendered}
            await photos.commit_group(self.store, settled, whereabouts_of=where)
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
