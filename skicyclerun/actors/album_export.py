"""The photos of one album: workers fetch and render them side by side, one committer makes them durable in groups.

    feed ──▶ workers (fetch from the source, render into staging) ──▶ commit (publish the group, then its rows)

Nothing is shared but the two streams. A worker's photo that is cut off by a time-out or a stop leaves its row planned;
the staged bytes are swept with the staging folder and made again, the same, at the next start.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.errors import (
    DiskFull,
    NotWritable,
    OriginalMissing,
    PhotoError,
    PhotoTimedOut,
    PhotoTransient,
    SkicyclerunError,
    SourceStopped,
)
from skicyclerun.files.album_folder import AlbumFolder, StagedFile
from skicyclerun.files.fault_points import fault_point
from skicyclerun.models import ExportedFacts, Fetched
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import Restartable, Source
from skicyclerun.state import photos
from skicyclerun.state.photos import Exported, NotExported, PhotoStatus, PhotoToDo
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """How fast and how long; of this process, not of the run. Times in seconds."""

    workers: int
    group_photos: int
    group_seconds: float
    photo_seconds: float
    album_seconds: float
    attempts: int
    backoff_seconds: float
    pause_after: int


class TransientStreak:
    """Counts failures in a row that may pass; when there are too many the source is restarted once, then paused."""

    def __init__(self, limit: int, source: Source) -> None:
        self._limit = limit
        self._source = source
        self._count = 0
        self._restarted = False

    def broken(self) -> None:
        """A photo came through."""
        self._count = 0
        self._restarted = False

    async def longer(self, last: PhotoTransient) -> None:
        """One more. Raises SourceStopped when the limit is reached and a restart is not allowed or has not helped."""
        self._count += 1
        if self._count < self._limit:
            return
        if not self._restarted and isinstance(self._source, Restartable):
            self._restarted = True
            if await self._source.restart():
                self._count = 0
                return
        raise SourceStopped(
            f"The source failed {self._count} times in a row, last with: {last} "
            "What was exported is kept; what is left stays pending.",
            next_step="When the source answers again: `skicyclerun run --resume`.",
        )


#: Renders fetched bytes into a staged file; blocking. Bound to skicyclerun.images.render by the pipeline.
RenderFunction = Callable[..., ExportedFacts]


@dataclass(frozen=True, slots=True)
class _Rendered:
    photo: PhotoToDo
    staged: Path
    facts: ExportedFacts
    attempts: int


_Outcome = _Rendered | NotExported


class AlbumExport:
    """One album's export. `await run(photos)` returns when all are accounted for, or nothing more may be begun."""

    def __init__(
        self,
        *,
        store: Store,
        source: Source,
        render: RenderFunction,
        folder: AlbumFolder,
        staging: Path,
        options: ExportOptions,
        limits: ExportLimits,
        streak: TransientStreak,
        stop: Callable[[], bool],
        on_outcome: Callable[[PhotoToDo, Exported | NotExported], None],
        on_commit: Callable[[int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._source = source
        self._render = render
        self._folder = folder
        self._staging = staging
        self._options = options
        self._limits = limits
        self._streak = streak
        self._stop = stop
        self._on_outcome = on_outcome
        self._on_commit = on_commit
        self._by_row: dict[int, PhotoToDo] = {}
        self.timed_out = False

    async def run(self, to_do: Sequence[PhotoToDo]) -> None:
        """Export what can be exported within `album_seconds`; `timed_out` says whether that was too little.

        Raises SourceStopped, DiskFull, NotWritable (within an ExceptionGroup): the run cannot go on. What is durable
        by then is committed.
        """
        self._by_row = {photo.row_id: photo for photo in to_do}
        send_work, receive_work = anyio.create_memory_object_stream[PhotoToDo](0)
        send_outcome, receive_outcome = anyio.create_memory_object_stream[_Outcome](self._limits.group_photos)
        workers = self._limits.workers if self._source.parallel else 1
        async with anyio.create_task_group() as committing:
            committing.start_soon(self._commit, receive_outcome)
            # The workers share the streams, and they are closed here: a clone given to a task that is cancelled before
            # its first step would never be closed.
            async with send_outcome, receive_work:
                with anyio.move_on_after(self._limits.album_seconds) as limit:
                    async with anyio.create_task_group() as working:
                        working.start_soon(self._feed, send_work, to_do)
                        for _ in range(min(workers, max(len(to_do), 1))):
                            working.start_soon(self._work, receive_work, send_outcome)
            self.timed_out = limit.cancelled_caught

    async def _feed(self, outbox: MemoryObjectSendStream[PhotoToDo], to_do: Sequence[PhotoToDo]) -> None:
        async with outbox:
            for photo in to_do:
                if self._stop():
                    return
                await outbox.send(photo)

    async def _work(
        self, inbox: MemoryObjectReceiveStream[PhotoToDo], outbox: MemoryObjectSendStream[_Outcome]
    ) -> None:
        async for photo in inbox:
            if self._stop():
                continue  # Handed over while the signal came; its row stays planned.
            outcome = await self._export(photo)
            if outcome is not None:
                await outbox.send(outcome)

    async def _export(self, photo: PhotoToDo) -> _Outcome | None:
        """Fetch and render one photo, several times if its failure may pass. None: stopped before it was settled."""
        for attempt in range(1, self._limits.attempts + 1):
            staged = self._staging / f"{photo.row_id}-{attempt}.part"
            try:
                rendered = await self._attempt(photo, staged, attempt)
            except PhotoTransient as error:
                log.warning("%s, attempt %d: %s", photo.photo.original_filename, attempt, error)
                await self._streak.longer(error)
                if attempt == self._limits.attempts:
                    tried = f" Tried {attempt} times." if attempt > 1 else ""
                    return NotExported(photo.row_id, PhotoStatus.FAILED, f"{error}{tried}", attempt)
                if self._stop():
                    return None
                await anyio.sleep(self._limits.backoff_seconds * 2 ** (attempt - 1))
            except OriginalMissing as error:
                left_out = self._options.missing == "skip"
                status = PhotoStatus.LEFT_OUT if left_out else PhotoStatus.MISSING
                return NotExported(photo.row_id, status, str(error), attempt)
            except PhotoError as error:
                log.warning("%s: %s", photo.photo.original_filename, error, exc_info=error)
                return NotExported(photo.row_id, PhotoStatus.FAILED, str(error), attempt)
            except OSError as error:
                return self._disk_or_photo(photo, error, attempt)
            except SkicyclerunError:
                raise
            except Exception as error:
                # A fault of ours, or of a decoder over a strange file: this photo fails, ten thousand others go on.
                log.critical("%s: unexpected", photo.photo.original_filename, exc_info=error)
                reason = f"an unexpected error ({type(error).__name__}: {error}); the log file has the details"
                return NotExported(photo.row_id, PhotoStatus.FAILED, reason, attempt)
            else:
                self._streak.broken()
                return rendered
        raise AssertionError("unreachable: the last attempt returns")

    async def _attempt(self, photo: PhotoToDo, staged: Path, attempt: int) -> _Rendered:
        directory = staged.with_suffix(".fetch")
        fetched: Fetched | None = None
        try:
            with anyio.fail_after(self._limits.photo_seconds):
                fetched = await self._source.fetch(photo.photo, directory)
                # A thread cannot be stopped; one that is given up writes to a name nobody uses again.
                facts = await anyio.to_thread.run_sync(
                    self._render, fetched, photo.photo.component, staged, self._options, abandon_on_cancel=True
                )
        except TimeoutError:
            raise PhotoTimedOut(
                f"it took longer than {self._limits.photo_seconds:g} s (export.timeouts.photo)"
            ) from None
        finally:
            # A source that hands over its own files has made no directory; looking would cost a stat a photo.
            if (fetched is None or fetched.path.is_relative_to(directory)) and directory.exists():
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
        fault_point("photo.staged")
        return _Rendered(photo, staged, facts, attempt)

    def _disk_or_photo(self, photo: PhotoToDo, error: OSError, attempt: int) -> NotExported:
        """An OSError at the photo's own file fails the photo; one at what we write stops the run."""
        raise_for_disk(error, self._folder.path)
        where = str(error.filename or "")
        if where.startswith(str(self._staging)):
            raise NotWritable(
                f"{where} cannot be written: {error.strerror}. What was exported before is kept.",
                next_step="Check the disk, then `skicyclerun run --resume`.",
            ) from error
        log.warning("%s: %s", photo.photo.original_filename, error, exc_info=error)
        return NotExported(photo.row_id, PhotoStatus.FAILED, f"it cannot be read: {error.strerror or error}", attempt)

    async def _commit(self, inbox: MemoryObjectReceiveStream[_Outcome]) -> None:
        """Collect outcomes into groups of `group_photos`, or of `group_seconds`, and settle each group."""
        async with inbox:
            group: list[_Outcome] = []
            due = 0.0
            while True:
                timeout = max(due - anyio.current_time(), 0.0) if group else None
                try:
                    with anyio.fail_after(timeout):
                        outcome = await inbox.receive()
                except TimeoutError:
                    pass
                except anyio.EndOfStream:
                    break
                else:
                    if not group:
                        due = anyio.current_time() + self._limits.group_seconds
                    group.append(outcome)
                    if len(group) < self._limits.group_photos:
                        continue
                await self._settle(group)
                group = []
            if group:
                await self._settle(group)

    async def _settle(self, group: Sequence[_Outcome]) -> None:
        """Publish the group's files, then commit its rows. Shielded: once begun it is finished."""
        rendered = [outcome for outcome in group if isinstance(outcome, _Rendered)]
        staged = [StagedFile(each.staged, each.photo.file_name, each.facts.sha256) for each in rendered]
        with anyio.CancelScope(shield=True):
            try:
                refused = await anyio.to_thread.run_sync(self._folder.publish, staged) if staged else []
            except OSError as error:
                raise_for_disk(error, self._folder.path)
                raise NotWritable(
                    f"{self._folder.path} cannot be written: {error.strerror or error}. "
                    "What was exported before is kept.",
                    next_step="Check the disk, then `skicyclerun run --resume`.",
                ) from error
            refused_names = {each.file_name for each in refused}
            settled = [self._settled(outcome, refused_names) for outcome in group]
            await photos.commit_group(self._store, settled)
        for outcome in settled:
            self._on_outcome(self._by_row[outcome.row_id], outcome)
        await self._on_commit(sum(isinstance(outcome, Exported) for outcome in settled))

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
        key = photos.path_key(self._folder.path.name, photo.file_name)
        return Exported(photo.row_id, key, outcome.facts, outcome.attempts)


def raise_for_disk(error: OSError, path: Path) -> None:
    """Raise DiskFull or NotWritable if `error` says that the disk takes no more; otherwise return."""
    cause: SkicyclerunError
    if error.errno in _FULL:
        cause = DiskFull(
            f"The disk is full: {path} could not be written. What was exported before is kept.",
            next_step="Free some space, then `skicyclerun run --resume`.",
        )
    elif error.errno == errno.EROFS:
        cause = NotWritable(
            f"The disk is read-only: {path} could not be written. What was exported before is kept.",
            next_step="Make it writable, then `skicyclerun run --resume`.",
        )
    else:
        return
    raise cause from error
