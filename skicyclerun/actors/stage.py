"""A stage after the export, as an actor: takes each album when the stage before is done with it, and passes it on.

    exporter ── AlbumReady ──▶ stage ── AlbumReady ──▶ stage ── … ──▶ departures
        └────────┴── committed, ended ──────┴──▶ cataloger

An album is planned, begun, worked on and ended as in the export: the same machine, the same groups and retries
(`album_work`), the same order of writes (`AlbumFolder.publish`, then the rows). On a restart nothing is remembered but
rows: what is up to date is left, everything else is done.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.actors.album_work import (
    AlbumWork,
    AtOnce,
    InTurn,
    Reached,
    TransientStreak,
    not_writable,
    raise_for_disk,
)
from skicyclerun.actors.messages import (
    AlbumReady,
    CatalogerMessage,
    Ending,
    PicturesCommitted,
    StageAlbumEnded,
    StageEnded,
)
from skicyclerun.actors.stage_plan import AlbumPlan, StageRun, plan_album
from skicyclerun.actors.stage_work import StageWork, ToDo, by_variant, name_of
from skicyclerun.errors import OutsideFolder, PhotoError, PhotoTransient, SkicyclerunError, StagePaused
from skicyclerun.files.album_folder import AlbumFolder, StagingFolder
from skicyclerun.progress.events import AlbumFinished, AlbumStarted, Notice, PhotoFinished, ProgressEvent
from skicyclerun.run.shutdown import Shutdown
from skicyclerun.state import stage_albums, stage_pictures
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.stage_albums import StageAlbumKey, StageAlbumRow
from skicyclerun.state.stage_pictures import (
    PictureFailed,
    PictureMade,
)
from skicyclerun.state.store import Store
from skicyclerun.wording import bytes_in_words, seconds_in_words

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StageParts:
    """What a stage works with; handed over by the pipeline, owned by the stage while it runs."""

    store: Store
    run_id: int
    stage: StageRun
    run_seconds: float
    progress: Callable[[ProgressEvent], None]
    shutdown: Shutdown
    endings: dict[str, Ending]
    """How each stage ended, for the actor behind the last one."""


async def stage_actor(
    inbox: MemoryObjectReceiveStream[AlbumReady],
    outbox: MemoryObjectSendStream[AlbumReady],
    catalog: MemoryObjectSendStream[CatalogerMessage],
    parts: StageParts,
) -> None:
    """The actor. An album is passed on whatever became of it: the next stage takes what is there."""
    async with inbox, outbox, catalog:
        working = _StageWorking(parts, catalog)
        try:
            async with anyio.create_task_group() as watching:
                watching.start_soon(working.stop_when_draining)
                await working.go_through(inbox, outbox)
                await working.finish()
                watching.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(working.close)
        ending = parts.endings[parts.stage.stage.name] = working.ending()
        await catalog.send(StageEnded(parts.stage.stage.name, ending, working.paused_because))


class _StageWorking:
    """One stage in one run."""

    def __init__(self, parts: StageParts, catalog: MemoryObjectSendStream[CatalogerMessage]) -> None:
        self._parts = parts
        self._stage = parts.stage
        self._name = parts.stage.stage.name
        self._catalog = catalog
        self._deadline = anyio.current_time() + parts.run_seconds
        self._streak = TransientStreak(self._stage.limits.pause_after, partial(_paused, self._name))
        self._at_once = AtOnce(self._stage.limits.workers) if self._stage.recipe.over_a_line else None
        outputs = self._stage.output_folder
        self._staging = StagingFolder(outputs, self._name) if outputs is not None else None
        self._opened = False
        self._paused = False
        self.paused_because = ""
        self._left = False
        """Whether an album stays pending."""

    def ending(self) -> Ending:
        """How it ended, once no album comes any more."""
        if self._parts.shutdown.draining:
            return Ending.DRAINED
        if self._paused:
            return Ending.PAUSED
        return Ending.OUT_OF_TIME if self._left else Ending.COMPLETE

    def close(self) -> None:
        """Let go of what the recipe holds and of the staging folder. Blocks."""
        if self._opened or self._stage.publication is not None:
            self._stage.recipe.close()
        if self._staging is not None:
            self._staging.sweep()

    async def stop_when_draining(self) -> None:
        """Tell the recipe of the first signal."""
        await self._parts.shutdown.wait()
        self._stage.recipe.stop()

    def _out_of_time(self) -> bool:
        return anyio.current_time() >= self._deadline

    def _stop(self) -> bool:
        return self._parts.shutdown.draining or self._paused or self._out_of_time()

    async def go_through(
        self, inbox: MemoryObjectReceiveStream[AlbumReady], outbox: MemoryObjectSendStream[AlbumReady]
    ) -> None:
        """One album after the other; with `Recipe.one_ahead` the next is planned meanwhile, begun when nothing of the
        one before waits any more, and entered and told of when that has ended.
        """
        before = Reached()
        before.end()
        async with anyio.create_task_group() as albums:
            async for ready in inbox:
                reached = Reached()
                albums.start_soon(self._pass_through, ready, outbox, before, reached)
                await (before if self._stage.recipe.one_ahead else reached).ended.wait()
                before = reached

    async def _pass_through(
        self, ready: AlbumReady, outbox: MemoryObjectSendStream[AlbumReady], before: Reached, reached: Reached
    ) -> None:
        await self.take(ready, before, reached)
        await before.ended.wait()
        await outbox.send(ready)
        reached.end()

    async def take(self, ready: AlbumReady, before: Reached, reached: Reached) -> None:
        """Do this stage's part of an album, unless this run has done it before, or nothing more may be begun.

        It gets as far as the album `before` lets it.
        """
        key = StageAlbumKey(self._parts.run_id, self._name, ready.folder, ready.number, ready.title)
        row = await stage_albums.find(self._parts.store, key)
        try:
            ended = row is not None and row.status in (AlbumStatus.DONE, AlbumStatus.FAILED)
            if row is not None and ended and not await self._once_more(row):
                await before.ended.wait()
                await self._published(row)
                return
            if self._stop():
                self._left = True
                return
            await self._album(key, ready.of, before, reached)
        except StagePaused as paused:
            self._pause(paused)
        except BaseExceptionGroup as group:
            paused_ones, rest = group.split(StagePaused)
            if paused_ones is None or rest is not None:
                raise
            self._pause(_first(paused_ones))

    def _pause(self, why: BaseException) -> None:
        self._paused = self._left = True
        self.paused_because = self.paused_because or (why.because if isinstance(why, StagePaused) else str(why))
        log.warning("%s is paused", self._name, exc_info=why)
        self._parts.progress(Notice(str(why), "warning"))

    async def _published(self, row: StageAlbumRow) -> None:
        """What goes with an album as a whole, where its results lie elsewhere. It is asked for at each start."""
        publication = self._stage.publication
        if publication is None or self._stop():
            self._left = self._left or publication is not None
            return
        try:
            complete = row.status is AlbumStatus.DONE
            await publication.album_done(self._parts.store, row.folder, row.title, complete=complete)
        except StagePaused as paused:
            self._pause(paused)

    async def finish(self) -> None:
        """After the last album, where none is left."""
        publication = self._stage.publication
        if publication is None or self._stop() or self._left:
            return
        try:
            await publication.finish(self._parts.store, self._stop)
        except StagePaused as paused:
            self._pause(paused)

    async def _once_more(self, row: StageAlbumRow) -> bool:
        """Whether an album that this run has ended is gone through again: a stage before it has made more since.

        That is so when the stage before was paused, or its failures were retried, while this one went on without.
        """
        publication = self._stage.publication
        if publication is not None and await publication.is_unchanged(self._parts.store, row.folder, row.title):
            return False
        try:
            plan = await plan_album(self._parts.store, self._stage, row.folder)
        except (PhotoError, OutsideFolder, OSError):
            return False
        if not any(each.input_is_news for each in plan.plans):
            return False
        await stage_albums.pass_again(self._parts.store, row)
        return True

    async def _album(self, key: StageAlbumKey, of: int, before: Reached, reached: Reached) -> None:
        store, began = self._parts.store, anyio.current_time()
        publication = self._stage.publication
        problem, plan = "", AlbumPlan((), {}, (), 0)
        unchanged = publication is not None and await publication.is_unchanged(store, key.folder, key.title)
        try:
            if not unchanged:
                plan = await plan_album(store, self._stage, key.folder)
        except (PhotoError, OutsideFolder) as error:
            problem = str(error)
        except OSError as error:
            problem = f"{error.filename or key.folder} cannot be read: {error.strerror or error}"
        if plan.to_do:
            await self._open()
        if not before.ended.is_set():
            waits = publication is not None and publication.waits_for_before(plan.plans)
            await (before.ended if waits else before.all_begun).wait()
            if self._stop():
                self._left = True
                return
            began = anyio.current_time()
        if publication is not None:
            await publication.claim(store, key.folder, plan.plans)
        if unchanged:
            row = await stage_albums.keep(store, key)
        else:
            row = await stage_albums.start(store, key, plan.plans, plan.departed, plan.waiting, problem)
        made_before = row.made
        if row.status is AlbumStatus.EXPORTING:
            row = await self._worked_through(row, plan, of, began, before, reached)
        await before.ended.wait()
        self._left = self._left or row.status is AlbumStatus.PENDING
        counts = row.at_end
        log.info(
            "%s, album %s: %s, %d of %d pictures (%s), %d made, %d failed, %d waiting, %d left out, in %s%s",
            self._name,
            key.title,
            row.status.value,
            counts.done,
            counts.expected,
            bytes_in_words(counts.bytes),
            row.made - made_before,
            counts.failed,
            counts.waiting,
            counts.left_out,
            seconds_in_words(anyio.current_time() - began),
            f" ({row.reason})" if row.reason else "",
        )
        self._parts.progress(
            AlbumFinished(
                number=row.position,
                of=of,
                title=row.title,
                status=row.status.value,
                exported=counts.done,
                failed=counts.failed,
                missing=counts.waiting,
                reason=row.reason,
                seconds=anyio.current_time() - began,
                stage=self._name,
                up_to_date=max(0, counts.done - (row.made - made_before)),
            )
        )
        await self._catalog.send(StageAlbumEnded(row))
        if row.status in (AlbumStatus.DONE, AlbumStatus.FAILED):
            await self._published(row)

    async def _open(self) -> None:
        """The recipe and the staging folder, before the first picture."""
        if self._opened:
            return
        await anyio.to_thread.run_sync(self._stage.recipe.open)
        self._opened = True
        if self._staging is not None:
            await anyio.to_thread.run_sync(self._staging.sweep)

    async def _worked_through(
        self, row: StageAlbumRow, plan: AlbumPlan, of: int, began: float, before: Reached, reached: Reached
    ) -> StageAlbumRow:
        store = self._parts.store
        begun = AlbumStarted(row.position, of, row.title, row.expected or 0, stage=self._name)
        in_turn = InTurn(before, lambda: self._parts.progress(begun))

        try:
            work = await self._work(row, plan, of, in_turn)
            await before.all_made.wait()
            if before.ended.is_set():
                await in_turn()
            await work.prepare()
            albums_work = AlbumWork(work, self._stage.limits, self._streak, self._stop, reached, self._at_once)
            await albums_work.run(work.to_do)
            await in_turn()
        except BaseException:
            # What is durable is committed; the album goes back to pending, so that a resume carries on with it.
            with anyio.CancelScope(shield=True):
                await stage_albums.interrupt(store, row, anyio.current_time() - began)
            raise
        seconds = anyio.current_time() - began
        counts = await stage_albums.accounting(store, row)
        if counts.planned and not albums_work.timed_out:
            if self._out_of_time() and not self._parts.shutdown.draining:
                text = f"The time of {self._name} is up ({self._stage.limits.section}.timeouts.run)."
                self._parts.progress(Notice(text, "warning"))
            return await stage_albums.interrupt(store, row, seconds)
        reason = ""
        if albums_work.timed_out and counts.planned:
            reason = f"{albums_work.time_out_in_words}: {counts.done} of {counts.expected} pictures made and kept"
        return await stage_albums.finish(store, row, reason, seconds)

    async def _work(
        self, row: StageAlbumRow, plan: AlbumPlan, of: int, in_turn: Callable[[], Awaitable[None]]
    ) -> StageWork:
        store = self._parts.store
        rows = {
            (each.input, each.variant): each for each in await stage_pictures.of_folder(store, self._name, row.folder)
        }
        to_do = [
            ToDo(
                rows[each.input.file_name, each.input.variant].id,
                each,
                plan.pictures[each.input.file_name, each.input.variant],
            )
            for each in by_variant(plan.to_do)
        ]
        folder = None
        if self._stage.output_folder is not None and self._staging is not None:
            records = await stage_pictures.files_in(store, self._name, row.folder)
            folder = AlbumFolder(self._stage.output_folder, row.folder, records=records)
            try:
                await anyio.to_thread.run_sync(folder.create)
                await anyio.to_thread.run_sync(self._staging.make)
            except OSError as error:
                raise_for_disk(error, folder.path)
                raise not_writable(error, folder.path) from error
        expected = row.expected or 0
        settled = expected - row.waiting - len(to_do)

        def on_outcome(item: ToDo, outcome: PictureMade | PictureFailed) -> None:
            nonlocal settled
            settled += 1
            reason = outcome.reason if isinstance(outcome, PictureFailed) else ""
            self._parts.progress(
                PhotoFinished(
                    album_number=row.position,
                    albums=of,
                    number=settled,
                    of=expected,
                    name=name_of(item),
                    outcome="failed" if reason else "exported",
                    size=0 if isinstance(outcome, PictureFailed) else outcome.size or 0,
                    reason=reason,
                    stage=self._name,
                )
            )
            if reason:
                name = name_of(item)
                log.warning("%s, album %s, picture %s: failed: %s", self._name, row.title, name, reason)

        async def on_commit(count: int) -> None:
            await self._catalog.send(PicturesCommitted(self._name, count))

        staging = self._staging.path if self._staging is not None else None
        return StageWork(store, self._stage, row.folder, folder, staging, to_do, on_outcome, on_commit, in_turn)


def _paused(stage: str, failures: int, last: PhotoTransient) -> SkicyclerunError:
    return StagePaused(
        f"{stage} failed {failures} times in a row, last with: {last} It goes no further in this run; what was made is "
        "kept, and the other stages go on. `skicyclerun run --resume` carries on with it.",
        because=f"{stage} failed {failures} times in a row, last with: {last}",
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
