"""The exporter: plans the albums of a run once, then takes one after the other through the album state machine.

On a restart nothing is remembered but what SQLite holds: albums that were exporting become pending again, pending ones
start, and an album whose photos are planned continues with those that are not exported yet.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.actors.album_export import AlbumExport, StagedOrNot
from skicyclerun.actors.album_work import AlbumWork, InTurn, Reached, TransientStreak, WorkLimits, raise_for_disk
from skicyclerun.actors.archive_job import ArchiveJobs
from skicyclerun.actors.departures import put_away_photos
from skicyclerun.actors.duplicates import Duplicates
from skicyclerun.actors.export_plan import plan_albums, plan_photos
from skicyclerun.actors.messages import (
    AlbumEnded,
    AlbumReady,
    CatalogerMessage,
    Ending,
    ExportEnded,
    OutputsPutAway,
    PhotosCommitted,
)
from skicyclerun.actors.render_processes import RenderFunction, RenderProcesses, wanted
from skicyclerun.errors import AlbumFilesGone, NotWritable, OutsideFolder, PhotoTransient, SourceError, SourceStopped
from skicyclerun.files.album_folder import AlbumFolder, StagingFolder
from skicyclerun.models import Waiting
from skicyclerun.progress.events import (
    AlbumFinished,
    AlbumStarted,
    Notice,
    Outcome,
    PhotoFinished,
    ProgressEvent,
    RunStarted,
)
from skicyclerun.run.shutdown import Shutdown
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import InPlace, KeepsTime, Restartable, Source, TimeLimits
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.sources.photo_groups import is_gone
from skicyclerun.state import albums, photos
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.photos import Exported, NotExported, PhotoPlan, PhotoStatus, PhotoToDo
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store
from skicyclerun.wording import bytes_in_words, counted, seconds_in_words

log = logging.getLogger(__name__)

#: Photos from which on rendering in processes is worth their start.
ENOUGH_FOR_PROCESSES = 400

_OUTCOMES: dict[PhotoStatus, Outcome] = {
    PhotoStatus.FAILED: "failed",
    PhotoStatus.MISSING: "missing",
    PhotoStatus.LEFT_OUT: "skipped",
}


@dataclass(frozen=True, slots=True)
class ExporterParts:
    """What the exporter works with; handed over by the pipeline, owned by the exporter while it runs."""

    store: Store
    source: Source
    render: RenderFunction
    progress: Callable[[ProgressEvent], None]
    shutdown: Shutdown


async def exporter(
    inbox: MemoryObjectReceiveStream[OutputsPutAway],
    outbox: MemoryObjectSendStream[CatalogerMessage],
    albums_ready: MemoryObjectSendStream[AlbumReady],
    parts: ExporterParts,
) -> None:
    """The actor: one export per message, facts to the cataloger, albums to the stages after it.

    Errors that end the run escape.
    """
    async with inbox, outbox, albums_ready:
        async for message in inbox:
            run = message.configured.run
            if run is None or "export" not in run.stages:
                continue
            await _RunExport(message, run, outbox, albums_ready, parts).carry_out()


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is to be done with an album."""

    folder: AlbumFolder
    plans: list[PhotoPlan] | None
    """Of its photos, on its first start."""
    to_come: bool
    """Photos are to be exported."""
    problem: str = ""
    """Why it cannot begin."""


class _RunExport:
    def __init__(
        self,
        message: OutputsPutAway,
        run: RunRow,
        outbox: MemoryObjectSendStream[CatalogerMessage],
        albums_ready: MemoryObjectSendStream[AlbumReady],
        parts: ExporterParts,
    ) -> None:
        settings = message.configured.command.settings
        self._run = run
        self._retry_albums = frozenset(message.configured.retry_albums)
        self._outbox = outbox
        self._albums_ready = albums_ready
        self._parts = parts
        self._options = ExportOptions.from_row(run.options)
        self._limits = WorkLimits(
            section="export",
            # One more than there are cores: some always wait for the disk.
            workers=(settings.export.workers or (os.cpu_count() or 1) + 1) if parts.source.parallel else 1,
            group_photos=settings.export.group_photos,
            group_seconds=settings.export.group_seconds,
            photo_seconds=settings.export.timeouts.photo,
            album_seconds=settings.export.timeouts.album,
            album_total_seconds=settings.export.timeouts.album_total,
            attempts=settings.export.retries.attempts,
            backoff_seconds=settings.export.retries.backoff_seconds,
            pause_after=settings.export.retries.pause_after,
        )
        timeouts = settings.export.timeouts
        self._in_place: InPlace | None = parts.source if isinstance(parts.source, InPlace) else None
        self._processes: RenderProcesses | None = None
        self._photos_begun = 0
        self._time_limits = TimeLimits(timeouts.photo, timeouts.movie, timeouts.per_mb)
        self._work: AlbumWork[PhotoToDo, StagedOrNot] | None = None
        self._export_folder = settings.paths.apple_photos_export
        self._staging = StagingFolder(self._export_folder)
        self._deadline = anyio.current_time() + settings.export.timeouts.run
        self._archive_jobs = ArchiveJobs(
            parts.store,
            settings.paths.archive,
            self._export_folder,
            parts.progress,
            parts.shutdown,
            copy_to=settings.cleanup.remote or "",
        )
        self._duplicates = Duplicates(
            parts.store, run, self._options, self._export_folder, lambda text: parts.progress(Notice(text, "warning"))
        )
        source = parts.source
        self._streak = TransientStreak(
            self._limits.pause_after, _source_stopped, source.restart if isinstance(source, Restartable) else None
        )
        if isinstance(source, KeepsTime):
            source.on_wait = self._on_wait

    def _on_wait(self, waiting: Waiting) -> None:
        """The source waits. It is shown where it takes a while, and the album's time allows for what it was given."""
        if waiting.kind == "photo" and self._work is not None and waiting.at_most is not None:
            self._work.expect(waiting.at_most)
        if waiting.seconds or waiting.kind != "photo":
            self._parts.progress(waiting)

    def _use_processes(self, photos: int) -> None:
        """Render in processes from now on if so many photos are worth it, and the source has them in place."""
        enough = wanted(photos, self._limits.workers, enough=ENOUGH_FOR_PROCESSES)
        if self._processes is None and enough and self._in_place is not None:
            self._processes = RenderProcesses()

    def _out_of_time(self) -> bool:
        return anyio.current_time() >= self._deadline

    def _stop(self) -> bool:
        return self._parts.shutdown.draining or self._out_of_time()

    async def carry_out(self) -> None:
        store, run = self._parts.store, self._run
        for crashed in await albums.listing(store, run.id, AlbumStatus.EXPORTING):
            log.info("album %s was being exported when the last run ended", crashed.album.path)
            await albums.interrupt(store, crashed)
        if not run.planned:
            await plan_albums(store, self._parts.source, run)
        everything = await albums.listing(store, run.id)
        waiting = [
            album
            for album in everything
            if album.status is AlbumStatus.PENDING and (not self._retry_albums or album.id in self._retry_albums)
        ]
        coming = await self._photos_coming(waiting)
        self._use_processes(coming or 0)
        self._parts.progress(RunStarted(run.id, len(everything), coming, self._parts.source.location))
        await anyio.to_thread.run_sync(self._staging.sweep)
        ids = {album.id for album in waiting}
        try:
            # What an earlier start of this run exported goes to the stages first; they know what they have done.
            for album in everything:
                if album.id not in ids and album.status in (AlbumStatus.DONE, AlbumStatus.FAILED):
                    await self._pass_on(album, len(everything))
            async with anyio.create_task_group() as tasks:
                await self._in_order(waiting, len(everything), tasks)
        finally:
            with anyio.CancelScope(shield=True):
                if self._processes is not None:
                    await anyio.to_thread.run_sync(self._processes.close)  # so that none writes into staging any more
                await anyio.to_thread.run_sync(self._staging.sweep)
        left = [album for album in await albums.listing(store, run.id, AlbumStatus.PENDING) if album.id in ids]
        complete = not left and await self._departures_put_away()
        if complete:
            ending = Ending.COMPLETE
        else:
            ending = Ending.OUT_OF_TIME if not self._parts.shutdown.draining else Ending.DRAINED
        await self._outbox.send(ExportEnded(run, ending))

    async def _in_order(self, waiting: Sequence[AlbumRow], of: int, tasks: TaskGroup) -> None:
        """One album after the other, in tasks of their own: where photos are at hand, each is planned during the one
        before it, begun when nothing of that waits any more, and published when that has ended.

        Otherwise the processes would stand still while the last group of an album is synced and the next is planned.
        """
        # A file that albums share has to be there before the next of them comes to it.
        one_ahead = self._in_place is not None and self._options.duplicates == "copy"
        one_before, before = Reached(), Reached()
        one_before.end()
        before.end()
        for album in waiting:
            await (one_before if one_ahead else before).ended.wait()
            if self._stop():
                break
            reached = Reached()
            tasks.start_soon(self._export_album, album, of, before, reached)
            one_before, before = before, reached
        await before.ended.wait()

    async def _departures_put_away(self) -> bool:
        """The end of an update; False where a signal or the run's time left it for the next start."""
        if self._run.mode != "update":
            return True
        if self._stop():
            return False
        run = self._run
        there = frozenset(album.id for album in await self._parts.source.albums())
        own = [row.album.id for row in await albums.listing(self._parts.store, run.id)]
        groups = PhotoChoice.from_row(run.options).takes_groups(run.selection, own)
        return await put_away_photos(self._archive_jobs, run, partial(is_gone, listed=there, groups=groups))

    async def _photos_coming(self, waiting: Sequence[AlbumRow]) -> int | None:
        """Photos this process will settle, for the time left; None where only the planning of an update will tell."""
        if self._run.mode == "update":
            return None
        counts = await albums.accounting_of_run(self._parts.store, self._run.id)
        return sum(album.album.photo_count if album.expected is None else counts[album.id].planned for album in waiting)

    async def _make_staging(self) -> None:
        """Only when there is something to stage: an update with nothing new touches nothing."""
        try:
            await anyio.to_thread.run_sync(self._staging.make)
        except OSError as error:
            raise_for_disk(error, self._export_folder)
            raise NotWritable(
                f"{self._export_folder} cannot be written: {error.strerror or error}. Nothing was exported.",
                next_step="Check the disk and the folder's permissions.",
            ) from error

    async def _export_album(self, album: AlbumRow, of: int, before: Reached, reached: Reached) -> None:
        """From its plan to its end, as far as the album `before` lets it come."""
        store = self._parts.store
        began = anyio.current_time()
        try:
            planned = await self._planned(album)
            if not before.ended.is_set():
                await before.all_begun.wait()
                if self._stop():
                    reached.end()
                    return
                began = anyio.current_time()
            if planned.to_come:
                planned = await self._with_folder(planned)
            if planned.to_come:
                started = await albums.start(store, album, planned.plans)
                ended = await self._export_photos(started, planned.folder, of, began, before, reached)
            else:
                await before.ended.wait()
                ended = await self._pass_over(album, planned, of, began)
        except BaseException:
            # What is durable is committed; the album goes back to pending, so that a resume carries on with it.
            with anyio.CancelScope(shield=True):
                current = await albums.get(store, album.id)
                if current.status is AlbumStatus.EXPORTING:
                    await albums.interrupt(store, current, anyio.current_time() - began)
            raise
        counts = await albums.accounting(store, ended.id)
        self._streak.has_worked |= counts.exported > 0
        log.info(
            "album %d of %d, %s: %s, %d of %d %ss exported (%s), %d failed, %d missing, %d left out, in %s%s",
            ended.position,
            of,
            ended.album.path,
            ended.status.value,
            counts.exported,
            ended.album.photo_count if ended.expected is None else ended.expected,
            self._run.counts_in,
            bytes_in_words(counts.bytes),
            counts.failed,
            counts.missing,
            counts.left_out,
            seconds_in_words(anyio.current_time() - began),
            f" ({ended.reason})" if ended.reason else "",
        )
        self._parts.progress(
            AlbumFinished(
                number=ended.position,
                of=of,
                title=ended.album.path,
                status=ended.status.value,
                exported=counts.exported,
                failed=counts.failed,
                missing=counts.missing,
                reason=ended.reason,
                seconds=anyio.current_time() - began,
            )
        )
        await self._outbox.send(AlbumEnded(ended))
        if ended.status is not AlbumStatus.PENDING:
            await self._pass_on(ended, of)
        reached.end()

    async def _pass_on(self, album: AlbumRow, of: int) -> None:
        with suppress(anyio.BrokenResourceError):  # no stage comes after the export
            await self._albums_ready.send(AlbumReady(album.folder, album.album.path, album.position, of))

    async def _planned(self, album: AlbumRow) -> _Planned:
        """What is to be done with an album, its photos planned on the first start. Nothing is written."""
        store, source = self._parts.store, self._parts.source
        folder = AlbumFolder(self._export_folder, album.folder)
        plans: list[PhotoPlan] | None = None
        try:
            if album.expected is None:
                listed = await source.photos(album.album.id)
                plans = await plan_photos(store, listed, self._run, album.album, folder, self._options)
                to_come = any(plan.carried is None and not plan.left_out for plan in plans)
            else:
                to_come = (await albums.accounting(store, album.id)).planned > 0
            if to_come and folder.records is None:
                folder.records = await photos.files_of_ours_in(store, album.folder, self._run.id)
            if plans is not None and self._in_place is not None and self._run.mode != "update":
                coming = [plan.photo for plan in plans if not plan.left_out]
                await anyio.to_thread.run_sync(self._in_place.read_ahead, coming)
        except Exception as error:
            return _Planned(folder, plans, to_come=False, problem=_problem(error, folder))
        return _Planned(folder, plans, to_come)

    async def _with_folder(self, planned: _Planned) -> _Planned:
        """Where something is to come, with the folder made."""
        try:
            await anyio.to_thread.run_sync(planned.folder.create)
        except Exception as error:
            return replace(planned, to_come=False, problem=_problem(error, planned.folder))
        return planned

    async def _pass_over(self, album: AlbumRow, planned: _Planned, of: int, began: float) -> AlbumRow:
        """Of this album nothing is to be exported: it begins and ends in one transaction."""
        expected = album.expected if planned.plans is None else len(planned.plans)
        if not planned.problem:
            self._parts.progress(AlbumStarted(album.position, of, album.album.path, expected or 0))
        seconds = anyio.current_time() - began
        return await albums.start_and_finish(
            self._parts.store, album, planned.plans, planned.problem, seconds, counts_in=self._run.counts_in
        )

    async def _export_photos(
        self, album: AlbumRow, folder: AlbumFolder, of: int, began: float, before: Reached, reached: Reached
    ) -> AlbumRow:
        """All that is left of an album. It is rendered when all of the album `before` is, and told of after its end."""
        store = self._parts.store
        to_do = await photos.to_do(store, album.id)
        if to_do:
            self._photos_begun += len(to_do)
            self._use_processes(self._photos_begun)
            await self._make_staging()
        expected = album.expected or 0
        settled = expected - len(to_do)
        begun = AlbumStarted(album.position, of, album.album.path, expected)
        in_turn = InTurn(before, lambda: self._parts.progress(begun))

        def on_outcome(photo: PhotoToDo, outcome: Exported | NotExported) -> None:
            nonlocal settled
            settled += 1
            self._parts.progress(
                PhotoFinished(
                    album_number=album.position,
                    albums=of,
                    number=settled,
                    of=expected,
                    name=photo.file_name,
                    outcome="exported" if isinstance(outcome, Exported) else _OUTCOMES[outcome.status],
                    size=outcome.facts.size if isinstance(outcome, Exported) else 0,
                    reason="" if isinstance(outcome, Exported) else outcome.reason,
                )
            )
            if not isinstance(outcome, Exported):
                log.log(
                    logging.INFO if outcome.status is PhotoStatus.LEFT_OUT else logging.WARNING,
                    "album %s, photo %s: %s: %s",
                    album.album.path,
                    photo.photo.original_filename,
                    outcome.status.value.replace("_", " "),
                    outcome.reason,
                )

        async def on_commit(count: int) -> None:
            await self._outbox.send(PhotosCommitted(album.run_id, count))

        def expect(seconds: float) -> None:
            work.expect(seconds)

        if (await albums.accounting(store, album.id)).exported:
            self._streak.has_worked = True
        export = AlbumExport(
            store=store,
            source=self._parts.source,
            render=self._parts.render,
            folder=folder,
            staging=self._staging.path,
            options=self._options,
            duplicates=self._duplicates if self._options.duplicates != "copy" else None,
            time_limits=self._time_limits,
            expect=expect,
            by_row={photo.row_id: photo for photo in to_do},
            on_outcome=on_outcome,
            on_commit=on_commit,
            in_turn=in_turn,
            processes=self._processes,
        )
        await before.all_made.wait()
        if before.ended.is_set():
            await in_turn()
        work = self._work = AlbumWork(export, self._limits, self._streak, self._stop, reached)
        try:
            await work.run(to_do)
        finally:
            self._work = None
        await in_turn()
        if (same := work.every_one_refused) is not None:
            text = f"Every photo of {album.album.path!r} failed alike, while others did not. {same} {same.next_step}"
            self._parts.progress(Notice(text, "warning"))
        seconds = anyio.current_time() - began
        counts = await albums.accounting(store, album.id)
        if counts.planned and not work.timed_out:
            await albums.interrupt(store, album, seconds)
            if self._out_of_time() and not self._parts.shutdown.draining:
                self._parts.progress(Notice("The run's time is up (export.timeouts.run).", "warning"))
            return await albums.get(store, album.id)
        reason = ""
        if work.timed_out and counts.planned:
            every = counted(counts.expected, self._run.counts_in)
            reason = f"{work.time_out_in_words}: {counts.exported} of {every} exported and kept"
        return await albums.finish(store, album, reason, seconds, counts_in=self._run.counts_in)


def _problem(error: Exception, folder: AlbumFolder) -> str:
    """Why an album cannot begin, alone: it was deleted meanwhile, a link stands in its folder's place, or the folder is
    gone. Raises what is not one album's matter."""
    if isinstance(error, SourceError | OutsideFolder | AlbumFilesGone) and not isinstance(error, SourceStopped):
        return " ".join(filter(None, (str(error), error.next_step)))
    if isinstance(error, OSError):
        raise NotWritable(
            f"{folder.path} cannot be made: {error.strerror or error}.",
            next_step="Check the disk, then `skicyclerun run --resume`.",
        ) from error
    raise error


def _source_stopped(failures: int, last: PhotoTransient) -> SourceStopped:
    return SourceStopped(
        f"The source failed {failures} times in a row, last with: {last} "
        "What was exported is kept; what is left stays pending.",
        next_step="When the source answers again: `skicyclerun run --resume`.",
    )
