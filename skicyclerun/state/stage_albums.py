"""Rows of the table `stage_albums`: an album of a stage after the export, moved by the album state machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skicyclerun.errors import IllegalTransition
from skicyclerun.files.fault_points import fault_point
from skicyclerun.state.machine import AlbumStatus, AlbumTrigger, album_target
from skicyclerun.state.runs import record
from skicyclerun.state.stage_pictures import PicturePlan, enter_plans

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries, Row
    from skicyclerun.state.store import Store, Transaction


@dataclass(frozen=True, slots=True)
class StageCounts:
    """An album's pictures in a stage, counted from rows."""

    planned: int
    done: int
    failed: int
    left_out: int
    waiting: int
    """That the stage before has not made, so that there is nothing to work on."""
    bytes: int

    @property
    def expected(self) -> int:
        return self.planned + self.done + self.failed + self.left_out + self.waiting


@dataclass(frozen=True, slots=True)
class StageAlbumRow:
    """One album of one stage of one run."""

    id: int
    run_id: int
    stage: str
    position: int
    folder: str
    title: str
    expected: int | None
    """Pictures, those included that have not come from the stage before; None until it was planned."""
    waiting: int
    status: AlbumStatus
    attempts: int
    reason: str
    started_at: str | None
    ended_at: str | None
    seconds: float
    made: int
    """Pictures that this run made; the others were up to date."""
    at_end: StageCounts

    @classmethod
    def of(cls, row: Row) -> StageAlbumRow:
        counted = row["done"] + row["failed"] + row["left_out"] + row["waiting"]
        planned = max((row["expected"] or 0) - counted, 0)
        return cls(
            id=row["id"],
            run_id=row["run_id"],
            stage=row["stage"],
            position=row["position"],
            folder=row["folder"],
            title=row["title"],
            expected=row["expected"],
            waiting=row["waiting"],
            status=AlbumStatus(row["status"]),
            attempts=row["attempts"],
            reason=row["reason"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            seconds=row["seconds"],
            made=row["made"],
            at_end=StageCounts(planned, row["done"], row["failed"], row["left_out"], row["waiting"], row["bytes"]),
        )


@dataclass(frozen=True, slots=True)
class StageAlbumKey:
    """Which album of which stage of which run, and how it is shown."""

    run_id: int
    stage: str
    folder: str
    position: int
    title: str


async def find(store: Queries, key: StageAlbumKey) -> StageAlbumRow | None:
    """The row of this album, None where the run has not come to it."""
    row = await store.one("stage_album_by_key", {"run_id": key.run_id, "stage": key.stage, "folder": key.folder})
    return StageAlbumRow.of(row) if row else None


async def get(store: Store, album_id: int) -> StageAlbumRow:
    """The row of that id. Raises LookupError."""
    row = await store.one("stage_album_by_id", {"id": album_id})
    if row is None:
        raise LookupError(f"There is no stage album row {album_id}.")
    return StageAlbumRow.of(row)


async def of_run(store: Queries, run_id: int) -> list[StageAlbumRow]:
    """All rows of a run, in album order."""
    return [StageAlbumRow.of(row) for row in await store.all("stage_albums_of_run", {"run_id": run_id})]


async def latest(store: Queries, run_id: int) -> list[StageAlbumRow]:
    """For each stage and album the newest row up to that run: how the pictures stand after it."""
    return [StageAlbumRow.of(row) for row in await store.all("latest_stage_albums", {"run_id": run_id})]


async def emptied(store: Queries) -> set[tuple[str, str]]:
    """(stage, folder) of albums whose files a cleanup has put away, and of which none was made since."""
    return {(row["stage"], row["folder"]) for row in await store.all("emptied_stage_albums")}


async def accounting(store: Queries, album: StageAlbumRow) -> StageCounts:
    """The album's pictures by status, counted now."""
    row = await store.one("stage_album_accounting", {"album": album.id})
    assert row is not None
    return _counts(row, album.waiting)


def _counts(row: Row, waiting: int) -> StageCounts:
    return StageCounts(row["planned"], row["done"], row["failed"], row["left_out"], waiting, row["bytes"])


async def start(
    store: Store,
    key: StageAlbumKey,
    plans: Sequence[PicturePlan],
    departed: Sequence[int],
    waiting: int,
    problem: str = "",
) -> StageAlbumRow:
    """(entered →) pending → exporting, with the album's pictures as planned now. `problem`: why it cannot begin.

    `departed`: rows whose input has left. Where nothing is to be done the album also comes to its end in the same
    transaction: an album that is up to date costs one.
    """

    async def enter(transaction: Transaction, album: StageAlbumRow) -> int:
        await enter_plans(transaction, album.id, album.stage, album.folder, plans, departed)
        return len(plans)

    return await _started(store, key, enter, waiting, problem, to_do=any(plan.to_do for plan in plans))


async def keep(store: Store, key: StageAlbumKey) -> StageAlbumRow:
    """`start` for an album of which nothing changed: all its rows are up to date, and stay as they are."""

    async def enter(transaction: Transaction, album: StageAlbumRow) -> int:
        where = {"album": album.id, "stage": album.stage, "folder": album.folder}
        return await transaction.execute("keep_stage_pictures_of_folder", where)

    return await _started(store, key, enter, 0, "", to_do=False)


async def _started(
    store: Store,
    key: StageAlbumKey,
    enter: Callable[[Transaction, StageAlbumRow], Awaitable[int]],
    waiting: int,
    problem: str,
    *,
    to_do: bool,
) -> StageAlbumRow:
    """`enter` enters the pictures and says how many they are."""
    where = {"run_id": key.run_id, "stage": key.stage, "folder": key.folder}
    async with store.transaction() as transaction:
        await transaction.execute("enter_stage_album", {**where, "position": key.position, "title": key.title})
        album = await _current(transaction, where)
        if album.status is AlbumStatus.EXPORTING:  # a crash
            await _end(transaction, album, AlbumTrigger.INTERRUPT, await _counted(transaction, album), "", 0.0)
            album = await _current(transaction, where)
        expected = waiting + await enter(transaction, album)
        await _step(
            transaction,
            "start_stage_album",
            album,
            AlbumTrigger.START,
            now=transaction.now,
            expected=expected,
            waiting=waiting,
        )
        if not to_do:
            await _finish(transaction, await _current(transaction, where), problem, 0.0)
    fault_point("stage.album_started")
    found = await find(store, key)
    assert found is not None
    return found


async def _current(transaction: Transaction, where: dict[str, object]) -> StageAlbumRow:
    row = await transaction.one("stage_album_by_key", where)
    assert row is not None
    return StageAlbumRow.of(row)


async def _counted(transaction: Transaction, album: StageAlbumRow) -> StageCounts:
    row = await transaction.one("stage_album_accounting", {"album": album.id})
    assert row is not None
    return _counts(row, album.waiting)


async def finish(store: Store, album: StageAlbumRow, reason: str, seconds: float) -> StageAlbumRow:
    """exporting → done if every expected picture is made or left out (counted here, from rows), else → failed.

    `reason` is what to say if it failed for more than its pictures (a time-out); empty otherwise.
    """
    async with store.transaction() as transaction:
        await _finish(transaction, album, reason, seconds)
    fault_point("stage.album_finished")
    return await get(store, album.id)


async def interrupt(store: Store, album: StageAlbumRow, seconds: float = 0.0) -> StageAlbumRow:
    """exporting → pending, at a clean stop or at the restart after a crash."""
    async with store.transaction() as transaction:
        counts = await _counted(transaction, album)
        await _end(transaction, album, AlbumTrigger.INTERRUPT, counts, "", seconds)
    return await get(store, album.id)


async def retry_failed(store: Store, run_id: int, stages: Sequence[str] | None = None) -> list[StageAlbumRow]:
    """failed → pending for all failed albums of the run, or those of some stages. Returns them as they were."""
    failed = [
        album
        for album in await of_run(store, run_id)
        if album.status is AlbumStatus.FAILED and (stages is None or album.stage in stages)
    ]
    async with store.transaction() as transaction:
        for album in failed:
            await _step(transaction, "retry_stage_album", album, AlbumTrigger.RETRY)
    return failed


async def pass_again(store: Store, album: StageAlbumRow) -> None:
    """A pending row for an album that has ended: a stage before it has made more since, in the same run.

    What has ended stays ended (docs/architecture.md, "State machines"); the album is gone through once more.
    """
    async with store.transaction() as transaction:
        await transaction.insert("next_pass_of_stage_album", {"id": album.id})


async def _finish(transaction: Transaction, album: StageAlbumRow, reason: str, seconds: float) -> None:
    counts = await _counted(transaction, album)
    done = not reason and album.expected == counts.done + counts.left_out
    trigger = AlbumTrigger.COMPLETE if done else AlbumTrigger.FAIL
    sentence = "" if done else reason or shortfall(counts)
    await _end(transaction, album, trigger, counts, sentence, seconds)


async def _end(
    transaction: Transaction,
    album: StageAlbumRow,
    trigger: AlbumTrigger,
    counts: StageCounts,
    reason: str,
    seconds: float,
) -> None:
    await _step(
        transaction,
        "end_stage_album",
        album,
        trigger,
        reason=reason,
        now=transaction.now,
        seconds=seconds,
        done=counts.done,
        failed=counts.failed,
        left_out=counts.left_out,
        bytes=counts.bytes,
    )


async def _step(
    transaction: Transaction, query: str, album: StageAlbumRow, trigger: AlbumTrigger, **columns: object
) -> None:
    target = album_target(album.status, trigger)
    parameters = {"id": album.id, "from_status": album.status, "to_status": target, **columns}
    if await transaction.execute(query, parameters) != 1:
        raise IllegalTransition(f"Album {album.title!r} of {album.stage} is no longer {album.status}.")
    reason = str(columns.get("reason", ""))
    await record(transaction, "stage_album", album.id, album.status, trigger, target, reason)


def shortfall(counts: StageCounts) -> str:
    """Why an album is not done, from its counts: `2 of 4 pictures could not be made`."""
    parts = []
    for number, what in (
        (counts.failed, "could not be made"),
        (counts.waiting, "have not come from the stage before"),
        (counts.planned, "not reached"),
    ):
        if number:
            what = what.replace("have not", "has not") if number == 1 else what
            parts.append(f"{number} of {counts.expected} pictures {what}")
    return "; ".join(parts)
