"""One run: makes the streams, starts the actors, supervises them in one task group, and settles the run's row.

    config ──▶ archiver ──▶ exporter ──▶ stage ──▶ stage ──▶ … ──▶ departures
                                └──────────┴─────────┴─────────────────┴──▶ cataloger

All of them report progress, whose events may be dropped when the renderer lags. A run without export has the lister in
the exporter's place, which names the albums that are there.

The end of the streams is the end of the run: the first sender closes when its one command is said, and each actor
closes its own when its inbox has ended. An error that an actor does not expect cancels its siblings and comes out of
`run_pipeline` alone, not in a group.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.actors.archive_job import ArchiveJobs
from skicyclerun.actors.archive_push import NEXT, ArchivePush
from skicyclerun.actors.archiver import ArchiverParts, archiver
from skicyclerun.actors.cataloger import CatalogerParts, cataloger
from skicyclerun.actors.config import ConfigParts, configurator
from skicyclerun.actors.departures import stage_departures
from skicyclerun.actors.exporter import ExporterParts, exporter
from skicyclerun.actors.lister import lister
from skicyclerun.actors.messages import (
    AlbumReady,
    CatalogerMessage,
    ConfigureRun,
    Ending,
    OutputsPutAway,
    RunConfigured,
)
from skicyclerun.actors.render_processes import RenderFunction
from skicyclerun.actors.stage import StageParts, stage_actor
from skicyclerun.actors.stage_runs import PlannedStage
from skicyclerun.archive.open_remote import open_remote
from skicyclerun.catalog.records import catalog_places
from skicyclerun.errors import SkicyclerunError
from skicyclerun.progress.events import Notice, ProgressEvent, Renderer, RunFinished, StageDone, StageFinished
from skicyclerun.run.shutdown import Shutdown
from skicyclerun.settings.models import Settings
from skicyclerun.sources.base import Source
from skicyclerun.state import albums, runs, stage_albums
from skicyclerun.state.archives import ArchiveRow
from skicyclerun.state.machine import AlbumStatus, RunStatus, RunTrigger
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PROGRESS_BUFFER = 1000
_SHOWN_AT_ONCE = 64
_ALBUMS_AHEAD = 1000
#: After a signal: for an upload in hand to be given up in good order.
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class PipelineParts:
    """What a run works with. `source` None: no export, only the cleanup, or stages over what is exported already."""

    store: Store
    source: Source | None
    render: RenderFunction
    renderer: Renderer
    shutdown: Shutdown
    stages: Sequence[PlannedStage] = ()
    """The stages after the export, in order."""
    export_estimate: int = 0
    """Bytes the export is expected to write; 0 if nobody knows."""


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """`run` is None for a cleanup without export, `archive` where no cleanup was asked for or it was stopped."""

    run: RunRow | None
    archive: ArchiveRow | None


async def run_pipeline(command: ConfigureRun, parts: PipelineParts) -> PipelineResult:
    """Carry out one command to its end; returns the run's row as it then is, and what became of the old outputs.

    Raises the SkicyclerunError that ended the run early; the run is then interrupted and can be resumed.
    """
    began = anyio.current_time()
    supervisor = _Supervisor(parts)
    failure = ""
    try:
        await supervisor.supervise(command)
    except BaseExceptionGroup as group:
        error = unwrapped(group)
        failure = str(error) if isinstance(error, SkicyclerunError) else type(error).__name__
        raise error from group
    except anyio.get_cancelled_exc_class():
        failure = "stopped at once"
        raise
    finally:
        with anyio.CancelScope(shield=True):
            settled = await _settle(parts.store, supervisor, failure)
    if settled is not None:
        parts.renderer.handle(await _finished(parts.store, settled, supervisor, anyio.current_time() - began))
    return PipelineResult(settled, supervisor.archive)


class _Supervisor:
    """The task group of one run, and what came out of it."""

    def __init__(self, parts: PipelineParts) -> None:
        self._parts = parts
        self.run_id: int | None = None
        self.endings: dict[str, Ending] = {}
        self.paused: dict[str, str] = {}
        """Stages that were paused, and why."""
        self.exported = 0
        self.archive: ArchiveRow | None = None
        self._push: ArchivePush | None = None

    def _archived(self, archive: ArchiveRow) -> None:
        self.archive = archive
        if self._push is not None:
            self._push.wake()

    async def supervise(self, command: ConfigureRun) -> None:
        parts = self._parts
        to_config, config_inbox = anyio.create_memory_object_stream[ConfigureRun](1)
        to_archiver, archiver_inbox = anyio.create_memory_object_stream[RunConfigured](0)
        to_exporter, exporter_inbox = anyio.create_memory_object_stream[OutputsPutAway](0)
        to_cataloger, cataloger_inbox = anyio.create_memory_object_stream[CatalogerMessage](8)
        # An album is a few texts: the export may be far ahead of a slow stage, and is held back only then.
        albums_ready, stage_inbox = anyio.create_memory_object_stream[AlbumReady](_ALBUMS_AHEAD)
        events, shown = anyio.create_memory_object_stream[ProgressEvent](_PROGRESS_BUFFER)

        def progress(event: ProgressEvent) -> None:
            try:
                events.send_nowait(event)
            except (anyio.WouldBlock, anyio.BrokenResourceError):
                return  # Facts for display only.

        paths = command.settings.paths
        async with (
            to_config,
            config_inbox,
            to_archiver,
            archiver_inbox,
            to_exporter,
            exporter_inbox,
            to_cataloger,
            cataloger_inbox,
            albums_ready,
            stage_inbox,
            shown,
            anyio.create_task_group() as outer,
        ):
            outer.start_soon(_show, shown, parts.renderer)
            async with (
                events,
                _archives_copied(parts, command.settings, progress) as self._push,
                anyio.create_task_group() as actors,
            ):
                actors.start_soon(configurator, config_inbox, to_archiver, ConfigParts(parts.store, parts.source))
                actors.start_soon(
                    archiver,
                    archiver_inbox,
                    to_exporter,
                    ArchiverParts(
                        store=parts.store,
                        export_estimate=parts.export_estimate,
                        progress=progress,
                        shutdown=parts.shutdown,
                        on_run=self._run_known,
                        on_archive=self._archived,
                    ),
                )
                if parts.source is not None:
                    exporting = ExporterParts(parts.store, parts.source, parts.render, progress, parts.shutdown)
                    actors.start_soon(exporter, exporter_inbox, to_cataloger, albums_ready, exporting)
                else:
                    actors.start_soon(lister, exporter_inbox, to_cataloger, albums_ready, parts.store)
                actors.start_soon(self._stages, actors, stage_inbox, to_cataloger.clone(), progress, command.settings)
                cataloging = CatalogerParts(
                    store=parts.store,
                    places=catalog_places(command.settings),
                    master_catalog=paths.master_catalog,
                    progress=progress,
                    on_committed=self._count,
                    on_end=partial(self._ended, progress),
                    stages=bool(parts.stages),
                )
                actors.start_soon(cataloger, cataloger_inbox, cataloging)
                await to_config.send(command)
                await to_config.aclose()

    def _run_known(self, run: RunRow | None) -> None:
        if run is not None:
            log.info("run %d, begun %s", run.id, run.started_at)
        self.run_id = run.id if run else None

    def _count(self, photos: int) -> None:
        self.exported += photos

    def _ended(self, progress: Callable[[ProgressEvent], None], stage: str, ending: Ending, because: str) -> None:
        self.endings[stage] = ending
        if ending is Ending.PAUSED:
            self.paused[stage] = because
        if stage in self._expected:
            progress(StageFinished(stage, ending is Ending.COMPLETE))

    @property
    def stages(self) -> list[str]:
        """The stages after the export, in order."""
        return [planned.run.stage.name for planned in self._parts.stages]

    @property
    def _expected(self) -> set[str]:
        return {*self.stages, "export"} if self._parts.source is not None else set(self.stages)

    @property
    def ending(self) -> Ending | None:
        """How all of it came to its end: complete only where every stage is."""
        if self._expected - self.endings.keys():
            return None
        return next((ending for ending in self.endings.values() if ending is not Ending.COMPLETE), Ending.COMPLETE)

    async def _stages(
        self,
        actors: anyio.abc.TaskGroup,
        inbox: MemoryObjectReceiveStream[AlbumReady],
        catalog: MemoryObjectSendStream[CatalogerMessage],
        progress: Callable[[ProgressEvent], None],
        settings: Settings,
    ) -> None:
        """Start the chain of stages once the run is known, that is with the first album."""
        parts = self._parts
        async with inbox, catalog:
            if not parts.stages:
                return
            first: AlbumReady | None = None
            with suppress(anyio.EndOfStream):
                first = await inbox.receive()
            if self.run_id is None:
                return  # stopped before there was one
            endings: dict[str, Ending] = {}
            head, following = anyio.create_memory_object_stream[AlbumReady](0)
            receive: MemoryObjectReceiveStream[AlbumReady] = following
            for planned in parts.stages:
                send, next_receive = anyio.create_memory_object_stream[AlbumReady](_ALBUMS_AHEAD)
                working = StageParts(
                    parts.store, self.run_id, planned.run, planned.run_seconds, progress, parts.shutdown, endings
                )
                actors.start_soon(stage_actor, receive, send, catalog.clone(), working)
                receive = next_receive
            jobs = ArchiveJobs(
                parts.store,
                settings.paths.archive,
                settings.paths.apple_photos_export,
                progress,
                parts.shutdown,
                copy_to=settings.cleanup.remote or "",
            )
            runs_of_stages = [planned.run for planned in parts.stages]
            actors.start_soon(stage_departures, receive, catalog.clone(), jobs, self.run_id, runs_of_stages, endings)
            async with head:
                if first is not None:
                    await head.send(first)
                async for ready in inbox:
                    await head.send(ready)


@asynccontextmanager
async def _archives_copied(
    parts: PipelineParts, settings: Settings, progress: Callable[[ProgressEvent], None]
) -> AsyncIterator[ArchivePush | None]:
    """Copies archives to the second place beside the actors, and for `cleanup.remote_wait` seconds after them.

    A signal, or the failure of an actor, ends it at once; what is not copied by then is pending.
    """
    cleanup = settings.cleanup
    remote = open_remote(cleanup)
    if remote is None:
        yield None
        return
    push = ArchivePush(
        parts.store,
        remote,
        settings.paths.archive,
        keep_local=cleanup.keep_local,
        stopping=lambda: parts.shutdown.draining,
        say=progress,
    )
    async with anyio.create_task_group() as beside:

        async def pushing() -> None:
            with limit:
                await push.beside_a_run()
            listening.cancel()
            push.give_up()
            if limit.cancelled_caught and not parts.shutdown.draining:
                text = f"Copying to {remote.url} takes longer than this run waits for it; it is pending. {NEXT}"
                progress(Notice(text, "warning"))

        async def hear_the_signal() -> None:
            with listening:
                await parts.shutdown.wait()
                limit.deadline = min(limit.deadline, anyio.current_time() + _STOP_SECONDS)

        limit, listening = anyio.CancelScope(), anyio.CancelScope()
        beside.start_soon(pushing)
        beside.start_soon(hear_the_signal)
        try:
            yield push
        except BaseException:
            push.give_up()
            limit.cancel()
            raise
        push.finish()
        limit.deadline = min(limit.deadline, anyio.current_time() + cleanup.remote_wait)


async def _show(inbox: MemoryObjectReceiveStream[ProgressEvent], renderer: Renderer) -> None:
    """Events as they come. Those of a group of photos come together, and take one round of the event loop."""
    async for event in inbox:
        _show_one(event, renderer)
        with suppress(anyio.WouldBlock, anyio.EndOfStream):
            for _ in range(_SHOWN_AT_ONCE):
                _show_one(inbox.receive_nowait(), renderer)


def _show_one(event: ProgressEvent, renderer: Renderer) -> None:
    if isinstance(event, Notice):
        log.log(_LEVELS[event.level], "%s", event.text)
    renderer.handle(event)


async def _settle(store: Store, supervisor: _Supervisor, failure: str) -> RunRow | None:
    """Finish the run if every album is done or failed and the catalog is written, else mark it interrupted."""
    if supervisor.run_id is None:
        return None
    run = await runs.get(store, supervisor.run_id)
    if run.status is not RunStatus.ACTIVE:
        return run
    complete = not failure and supervisor.ending is Ending.COMPLETE
    if complete and not await runs.remaining_albums(store, run):
        return await runs.step(store, run, RunTrigger.FINISH)
    reasons = {
        Ending.DRAINED: "stopped by a signal",
        Ending.OUT_OF_TIME: "the run's time was up",
        Ending.PAUSED: "; ".join(supervisor.paused.values()),
    }
    reason = failure or (reasons.get(supervisor.ending, "albums are pending") if supervisor.ending else "stopped")
    return await runs.step(store, run, RunTrigger.INTERRUPT, reason)


async def _finished(store: Store, run: RunRow, supervisor: _Supervisor, seconds: float) -> RunFinished:
    rows = await albums.listing(store, run.id)
    by_status = {status: sum(album.status is status for album in rows) for status in AlbumStatus}
    return RunFinished(
        done=by_status[AlbumStatus.DONE],
        failed=by_status[AlbumStatus.FAILED],
        pending=by_status[AlbumStatus.PENDING] + by_status[AlbumStatus.EXPORTING],
        exported=supervisor.exported,
        seconds=seconds,
        stages=await _stages_done(store, run, supervisor),
        counts_in=run.counts_in,
    )


async def _stages_done(store: Store, run: RunRow, supervisor: _Supervisor) -> tuple[StageDone, ...]:
    """The stages of this process that have come to an album, in order; what they made, in the whole run."""
    rows = await stage_albums.of_run(store, run.id)
    stages = []
    for name in supervisor.stages:
        of_stage = [row for row in rows if row.stage == name]
        if not of_stage:
            continue
        made = sum(row.made for row in of_stage)
        stages.append(
            StageDone(
                name=name,
                made=made,
                # A picture made twice in a run (its photo changed between two starts) is there once.
                up_to_date=max(0, sum(row.at_end.done for row in of_stage) - made),
                failed=sum(row.at_end.failed for row in of_stage),
                waiting=sum(row.at_end.waiting for row in of_stage),
                left_out=sum(row.at_end.left_out for row in of_stage),
                complete=supervisor.endings.get(name) is Ending.COMPLETE,
            )
        )
    return tuple(stages)


def unwrapped(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error a person should hear of: the first of ours in the group, else the first of all."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, SkicyclerunError)), leaves[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
