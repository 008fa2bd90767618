"""Rows of the table `albums`: planned once a run, then moved by the album state machine and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skicyclerun.errors import IllegalTransition
from skicyclerun.files.fault_points import fault_point
from skicyclerun.models import Album
from skicyclerun.state.machine import AlbumStatus, AlbumTrigger, album_target
from skicyclerun.state.photos import PhotoPlan, insert_plans
from skicyclerun.state.runs import RunRow, record
from skicyclerun.wording import counted

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries, Row
    from skicyclerun.state.store import Store, Transaction


@dataclass(frozen=True, slots=True)
class AlbumRow:
    """One album of one run."""

    id: int
    run_id: int
    position: int
    album: Album
    folder: str
    """Name of its folder in the export folder."""
    expected: int | None
    """Photo rows; None until its photos are planned."""
    status: AlbumStatus
    attempts: int
    reason: str
    started_at: str | None
    ended_at: str | None
    seconds: float
    forgotten: int = 0
    """Exported photos whose rows were forgotten; they count as exported."""

    @classmethod
    def of(cls, row: Row) -> AlbumRow:
        return cls(
            id=row["id"],
            run_id=row["run_id"],
            position=row["position"],
            album=Album(
                id=row["source_id"],
                title=row["title"],
                folder_path=tuple(json.loads(row["folder_path"])),
                photo_count=row["listed"],
            ),
            folder=row["folder"],
            expected=row["expected"],
            status=AlbumStatus(row["status"]),
            attempts=row["attempts"],
            reason=row["reason"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            seconds=row["seconds"],
            forgotten=row["forgotten"],
        )


@dataclass(frozen=True, slots=True)
class Accounting:
    """An album's photos, counted from rows."""

    planned: int
    exported: int
    failed: int
    missing: int
    left_out: int
    bytes: int

    @classmethod
    def of(cls, row: Row) -> Accounting:
        return cls(row["planned"], row["exported"], row["failed"], row["missing"], row["left_out"], row["bytes"])

    @property
    def expected(self) -> int:
        return self.planned + self.exported + self.failed + self.missing + self.left_out


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update did with an album's photos, counted from rows."""

    found: int
    """All that the album has, those that failed or are left out among them."""
    new: int
    replaced: int
    unchanged: int


async def changes_of_run(store: Queries, run_id: int, counts: Mapping[int, Accounting]) -> dict[int, Changes]:
    """Album row id → what an update did with it; `counts` are those of `accounting_of_run`."""
    return {
        row["id"]: Changes(
            found=row["found"],
            new=counts[row["id"]].exported - row["replaced"] - row["unchanged"],
            replaced=row["replaced"],
            unchanged=row["unchanged"],
        )
        for row in await store.all("album_changes_of_run", {"run_id": run_id})
    }


async def folders_of_source(store: Store, run: RunRow) -> tuple[dict[str, str], set[str]]:
    """(album id → folder of this run's source, folders in use by albums of other sources)."""
    own = await folders_known(store, run.source_kind.value, run.source_location)
    in_use = await store.all("folders_in_use")
    foreign = {
        row["folder"]
        for row in in_use
        if (row["source_kind"], row["source_location"]) != (run.source_kind.value, run.source_location)
    }
    return own, foreign


async def with_files_of(store: Store, source_kind: str, source_location: str) -> set[str]:
    """Ids of the albums of a source whose folders hold exported files."""
    in_use = await store.all("folders_in_use")
    place = (source_kind, source_location)
    return {row["album_id"] for row in in_use if (row["source_kind"], row["source_location"]) == place}


async def folders_known(store: Store, source_kind: str, source_location: str) -> dict[str, str]:
    """Album id → folder, of the albums of a source that any run has exported or meant to."""
    where = {"source_kind": source_kind, "source_location": source_location}
    return {row["album_id"]: row["folder"] for row in await store.all("album_folders_of_source", where)}


async def plan(
    store: Store, run: RunRow, folders: Mapping[str, str], albums: Sequence[Album], gone: Sequence[str]
) -> None:
    """Enter the run's albums, all or none, each with its folder. `gone`: ids of albums the source no longer has."""
    where = {"source_kind": run.source_kind.value, "source_location": run.source_location}
    async with store.transaction() as transaction:
        await transaction.execute_many(
            "insert_album",
            [
                {
                    "run_id": run.id,
                    "position": position,
                    "source_id": album.id,
                    "title": album.title,
                    "folder_path": json.dumps(album.folder_path, ensure_ascii=False),
                    "folder": folders[album.id],
                    "listed": album.photo_count,
                }
                for position, album in enumerate(albums, start=1)
            ],
        )
        await transaction.execute_many("forget_album_folder", [{**where, "album_id": album_id} for album_id in gone])
        await transaction.execute_many(
            "put_album_folder",
            [{**where, "album_id": album_id, "folder": folder} for album_id, folder in folders.items()],
        )
        if await transaction.execute("mark_run_planned", {"id": run.id}) != 1:
            raise IllegalTransition(f"The albums of run {run.id} are planned already.")
    fault_point("albums.planned")


async def listing(store: Queries, run_id: int, status: AlbumStatus | None = None) -> list[AlbumRow]:
    """The run's albums in order, all or those of one status."""
    if status is None:
        rows = await store.all("albums_of_run", {"run_id": run_id})
    else:
        rows = await store.all("albums_of_run_with_status", {"run_id": run_id, "status": status})
    return [AlbumRow.of(row) for row in rows]


async def with_files(store: Queries) -> list[AlbumRow]:
    """The newest row of each album folder that holds exported files."""
    return [AlbumRow.of(row) for row in await store.all("album_folders_with_files")]


async def get(store: Store, album_id: int) -> AlbumRow:
    """The album of that row id. Raises LookupError."""
    row = await store.one("album_by_id", {"id": album_id})
    if row is None:
        raise LookupError(f"There is no album row {album_id}.")
    return AlbumRow.of(row)


async def accounting(store: Store, album_id: int) -> Accounting:
    """The album's photos by status, counted now."""
    row = await store.one("album_accounting", {"album": album_id})
    assert row is not None
    return Accounting.of(row)


async def accounting_of_run(store: Queries, run_id: int) -> dict[int, Accounting]:
    """Album row id → its photos by status, in one query."""
    return {row["id"]: Accounting.of(row) for row in await store.all("album_counts_of_run", {"run_id": run_id})}


async def _step(
    transaction: Transaction,
    query: str,
    album: AlbumRow,
    trigger: AlbumTrigger,
    reason: str = "",
    *,
    seconds: float | None = None,
) -> None:
    target = album_target(album.status, trigger)
    parameters: dict[str, object] = {"id": album.id, "from_status": album.status, "to_status": target}
    if query != "retry_album":
        parameters["now"] = transaction.now
    if query == "end_album":
        parameters |= {"reason": reason, "seconds": seconds or 0.0}
    if await transaction.execute(query, parameters) != 1:
        raise IllegalTransition(f"Album {album.album.title!r} is no longer {album.status}.")
    await record(transaction, "album", album.id, album.status, trigger, target, reason)


async def start(store: Store, album: AlbumRow, plans: Sequence[PhotoPlan] | None) -> AlbumRow:
    """pending → exporting. `plans`: the album's photos with their final names, on its first start; afterwards None."""
    async with store.transaction() as transaction:
        await _start(transaction, album, plans)
    fault_point("album.started")
    return await get(store, album.id)


async def finish(store: Store, album: AlbumRow, reason: str, seconds: float, *, counts_in: str = "photo") -> AlbumRow:
    """exporting → done if every expected photo is exported or left out (counted here, from rows), else → failed.

    `reason` is what to say if it failed for more than its photos (a time-out); empty otherwise. `counts_in`: what its
    rows stand for (`RunRow.counts_in`).
    """
    async with store.transaction() as transaction:
        await _finish(transaction, album, reason, seconds, counts_in)
    fault_point("album.finished")
    return await get(store, album.id)


async def start_and_finish(
    store: Store,
    album: AlbumRow,
    plans: Sequence[PhotoPlan] | None,
    reason: str,
    seconds: float,
    *,
    counts_in: str = "photo",
) -> AlbumRow:
    """`start` and `finish` in one, for an album of which nothing is to be exported."""
    async with store.transaction() as transaction:
        await _start(transaction, album, plans)
        begun = replace(album, status=AlbumStatus.EXPORTING, expected=album.expected if plans is None else len(plans))
        await _finish(transaction, begun, reason, seconds, counts_in)
    fault_point("album.started")
    fault_point("album.finished")
    return await get(store, album.id)


async def _start(transaction: Transaction, album: AlbumRow, plans: Sequence[PhotoPlan] | None) -> None:
    if plans is not None:
        await insert_plans(transaction, album.id, album.folder, plans)
        await transaction.execute("set_album_expected", {"id": album.id, "expected": len(plans)})
    await _step(transaction, "start_album", album, AlbumTrigger.START)


async def _finish(transaction: Transaction, album: AlbumRow, reason: str, seconds: float, counts_in: str) -> None:
    row = await transaction.one("album_accounting", {"album": album.id})
    assert row is not None
    counts = Accounting.of(row)
    done = album.expected is not None and not reason and album.expected == counts.exported + counts.left_out
    if done:
        await _step(transaction, "end_album", album, AlbumTrigger.COMPLETE, seconds=seconds)
    else:
        sentence = reason or shortfall(counts, counts_in)
        await _step(transaction, "end_album", album, AlbumTrigger.FAIL, sentence, seconds=seconds)


def shortfall(counts: Accounting, counts_in: str = "photo") -> str:
    """Why an album is not done, from its counts: `2 of 4 photos have no original here`."""
    parts = []
    of = counted(counts.expected, counts_in)
    if counts.missing:
        have = "has" if counts.missing == 1 else "have"
        parts.append(f"{counts.missing} of {of} {have} no original here")
    if counts.failed:
        parts.append(f"{counts.failed} of {of} could not be exported")
    if counts.planned:
        parts.append(f"{counts.planned} of {of} not reached")
    return "; ".join(parts)


async def interrupt(store: Store, album: AlbumRow, seconds: float = 0.0) -> None:
    """exporting → pending, at a clean stop or at the restart after a crash."""
    async with store.transaction() as transaction:
        await _step(transaction, "end_album", album, AlbumTrigger.INTERRUPT, seconds=seconds)


async def retry_failed(store: Store, run_id: int) -> int:
    """failed → pending for all failed albums of the run, and their failed and missing photos to be fetched again.

    Returns the number of albums. All or nothing.
    """
    failed = await listing(store, run_id, AlbumStatus.FAILED)
    async with store.transaction() as transaction:
        for album in failed:
            await _step(transaction, "retry_album", album, AlbumTrigger.RETRY)
        await transaction.execute_many("retry_photos", [{"album": album.id} for album in failed])
    return len(failed)
