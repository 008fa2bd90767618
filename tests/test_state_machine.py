"""The tables of the state machines, and that SQLite holds only states reached by legal steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from enum import StrEnum
from itertools import product
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.errors import IllegalTransition
from skicyclerun.models import Album, ExportedFacts, Photo, SourceKind
from skicyclerun.state import albums, archives, photos, runs
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.machine import (
    ALBUM_TRANSITIONS,
    ARCHIVE_TRANSITIONS,
    RUN_TRANSITIONS,
    AlbumStatus,
    AlbumTrigger,
    ArchiveStatus,
    ArchiveTrigger,
    RunStatus,
    RunTrigger,
    album_target,
    archive_target,
    run_target,
)
from skicyclerun.state.photos import Exported, NotExported, PhotoPlan, PhotoStatus
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store


def test_the_album_machine_is_the_one_of_the_design() -> None:
    steps = {(trigger.value, source.value, target.value) for trigger, source, target in ALBUM_TRANSITIONS}
    assert steps == {
        ("start", "pending", "exporting"),
        ("complete", "exporting", "done"),
        ("fail", "exporting", "failed"),
        ("retry", "failed", "pending"),
        ("interrupt", "exporting", "pending"),
    }


@pytest.mark.parametrize(
    ("target_of", "statuses", "triggers", "table"),
    [
        (album_target, AlbumStatus, AlbumTrigger, ALBUM_TRANSITIONS),
        (run_target, RunStatus, RunTrigger, RUN_TRANSITIONS),
        (archive_target, ArchiveStatus, ArchiveTrigger, ARCHIVE_TRANSITIONS),
    ],
)
def test_every_step_that_is_not_in_the_table_is_refused(
    target_of: Callable[[StrEnum, StrEnum], StrEnum],
    statuses: type[StrEnum],
    triggers: type[StrEnum],
    table: tuple[tuple[StrEnum, StrEnum, StrEnum], ...],
) -> None:
    legal = {(source, trigger): target for trigger, source, target in table}
    assert len(legal) == len(table), "a trigger leads from a status to two others"
    for status, trigger in product(statuses, triggers):
        if (status, trigger) in legal:
            assert target_of(status, trigger) is legal[status, trigger]
        else:
            with pytest.raises(IllegalTransition):
                target_of(status, trigger)


def test_every_album_status_can_still_reach_done() -> None:
    reach = {AlbumStatus.DONE}
    while grown := {source for _, source, target in ALBUM_TRANSITIONS if target in reach} - reach:
        reach |= grown
    assert reach == set(AlbumStatus)


# ── against SQLite ────────────────────────────────────────────────────────────────────────────────────────────────


async def new_run(store: Store) -> RunRow:
    return await runs.create(
        store,
        mode="fresh",
        stages=("export",),
        source_kind=SourceKind.FOLDER,
        source_location="/photos",
        selection=(),
        options={},
    )


async def planned_album(store: Store, run: RunRow, title: str = "Alps", count: int = 2) -> AlbumRow:
    await albums.plan(store, run, {title: title}, [Album(title, title, (), count)], [])
    (row,) = await albums.listing(store, run.id)
    return row


def plans(count: int) -> list[PhotoPlan]:
    return [PhotoPlan(Photo(f"id{n}", f"IMG_{n}.JPG"), f"IMG_{n}.jpg") for n in range(count)]


def exported(row_id: int, name: str = "") -> Exported:
    return Exported(row_id, name or f"alps/{row_id}", ExportedFacts(size=3, sha256="ab" * 32), attempts=1)


async def transitions_of(store: Store, album_id: int) -> list[sqlite3.Row]:
    recorded = "SELECT * FROM transitions WHERE subject = 'album' AND subject_id = ? ORDER BY id"
    return list(await store._connection.execute_fetchall(recorded, (album_id,)))


def raw(path: Path, statement: str) -> None:
    """What another program could do to the file."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(statement)
    finally:
        connection.close()


async def test_an_album_is_done_only_when_every_expected_photo_is_exported(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        album = await planned_album(store, await new_run(store))
        album = await albums.start(store, album, plans(2))
        first, second = await photos.to_do(store, album.id)
        await photos.commit_group(store, [exported(first.row_id)])
        ended = await albums.finish(store, album, "", 1.0)
        assert (ended.status, ended.reason) == (AlbumStatus.FAILED, "1 of 2 photos not reached")
        await albums.retry_failed(store, album.run_id)
        (album,) = await albums.listing(store, album.run_id)
        album = await albums.start(store, album, None)
        assert [photo.row_id for photo in await photos.to_do(store, album.id)] == [second.row_id]
        await photos.commit_group(store, [exported(second.row_id)])
        assert (await albums.finish(store, album, "", 1.0)).status is AlbumStatus.DONE


async def test_a_photo_left_out_by_a_setting_counts_as_accounted_for(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        album = await planned_album(store, await new_run(store))
        left_out = PhotoPlan(Photo("video", "V.MOV"), "V.mov", left_out="videos are left out")
        album = await albums.start(store, album, [*plans(1), left_out])
        (only,) = await photos.to_do(store, album.id)
        await photos.commit_group(store, [exported(only.row_id)])
        assert (await albums.finish(store, album, "", 1.0)).status is AlbumStatus.DONE


async def test_a_reason_of_its_own_fails_an_album_whatever_its_photos_say(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        album = await albums.start(store, await planned_album(store, await new_run(store)), [])
        assert (await albums.finish(store, album, "the folder vanished", 1.0)).status is AlbumStatus.FAILED


async def test_the_database_itself_refuses_an_illegal_step_and_an_unearned_done(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    async with await Store.open(path) as store:
        album = await planned_album(store, await new_run(store))
        with pytest.raises(sqlite3.IntegrityError, match="not a step of the album state machine"):
            raw(path, "UPDATE albums SET status = 'failed'")
        await albums.start(store, album, plans(2))
        with pytest.raises(sqlite3.IntegrityError, match="every expected photo"):
            raw(path, "UPDATE albums SET status = 'done'")
        for statement in ("UPDATE transitions SET reason = 'x'", "DELETE FROM transitions"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                raw(path, statement)


async def test_a_step_from_a_status_that_the_database_no_longer_holds_changes_nothing(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        run = await new_run(store)
        stale = await planned_album(store, run)
        await albums.start(store, stale, plans(1))
        with pytest.raises(IllegalTransition):
            await albums.start(store, stale, None)
        (row,) = await albums.listing(store, run.id)
        assert (row.status, row.attempts) == (AlbumStatus.EXPORTING, 1)
        recorded = await transitions_of(store, row.id)
        assert [each["trigger"] for each in recorded] == ["start"]


async def test_a_photo_is_committed_once_and_a_group_is_all_or_nothing(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        album = await albums.start(store, await planned_album(store, await new_run(store)), plans(3))
        first, second, _ = await photos.to_do(store, album.id)
        await photos.commit_group(store, [exported(first.row_id)])
        with pytest.raises(IllegalTransition):
            await photos.commit_group(store, [exported(second.row_id), exported(first.row_id)])
        counts = await albums.accounting(store, album.id)
        assert (counts.exported, counts.planned) == (1, 2)


async def test_a_new_export_of_a_path_takes_over_from_the_row_that_spoke_for_it(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        for _ in range(2):
            run = await new_run(store)
            album = await albums.start(store, await planned_album(store, run), plans(1))
            (only,) = await photos.to_do(store, album.id)
            await photos.commit_group(store, [exported(only.row_id, "alps/img_0.jpg")])
            await albums.finish(store, album, "", 1.0)
        (present,) = await store.all("present_ids")
        assert present["id"] == only.row_id


async def test_cancelling_in_the_middle_of_a_transaction_leaves_it_whole(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        run = await new_run(store)
        with anyio.CancelScope() as scope:
            async with store.transaction() as transaction:
                await transaction.execute("mark_run_planned", {"id": run.id})
                scope.cancel()
                await transaction.execute("step_run", {
                    "id": run.id, "from_status": "active", "to_status": "interrupted", "ended_at": "x", "reason": "",
                })  # fmt: skip
        after = await runs.get(store, run.id)
        assert (after.planned, after.status) == (True, RunStatus.INTERRUPTED)


async def test_an_error_in_a_transaction_undoes_all_of_it(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        run = await new_run(store)
        with pytest.raises(sqlite3.IntegrityError):
            await _mark_planned_and_break(store, run)
        assert not (await runs.get(store, run.id)).planned


async def _mark_planned_and_break(store: Store, run: RunRow) -> None:
    async with store.transaction() as transaction:
        await transaction.execute("mark_run_planned", {"id": run.id})
        await transaction.execute("set_album_expected", {"id": "x", "expected": "y"})
        await transaction.insert(
            "insert_archive", {"run_id": 77, "clean": 0, "timestamp": "t", "created_at": "t", "purpose": "outputs"}
        )


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["start", "finish", "interrupt", "retry", "export", "fail_one", "reopen"]), max_size=25)
)
def test_any_sequence_of_requests_leaves_a_legal_state_reached_by_recorded_steps(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str]
) -> None:
    path = tmp_path_factory.mktemp("any") / "s.sqlite3"
    anyio.run(_drive, path, actions)


async def _drive(path: Path, actions: list[str]) -> None:
    """Do what is asked, legal or not, reopening now and then; afterwards the record must explain the status."""
    store = await Store.open(path)
    try:
        run = await new_run(store)
        await planned_album(store, run)
        for action in actions:
            (album,) = await albums.listing(store, run.id)
            try:
                await _act(store, album, action)
            except IllegalTransition:
                pass
            if action == "reopen":
                await store.close()
                store = await Store.open(path)
        (album,) = await albums.listing(store, run.id)
        status = AlbumStatus.PENDING
        for row in await transitions_of(store, album.id):
            assert row["from_status"] == status
            status = album_target(status, AlbumTrigger(row["trigger"]))
            assert row["to_status"] == status
        assert album.status is status
        counts = await albums.accounting(store, album.id)
        if album.status is AlbumStatus.DONE:
            assert counts.exported == album.expected == 2
        if album.expected is not None:
            assert counts.expected == album.expected
    finally:
        await store.close()


async def _act(store: Store, album: AlbumRow, action: str) -> None:
    if action == "start":
        await albums.start(store, album, plans(2) if album.expected is None else None)
    elif action == "finish":
        await albums.finish(store, album, "", 0.1)
    elif action == "interrupt":
        await albums.interrupt(store, album)
    elif action == "retry":
        await albums.retry_failed(store, album.run_id)
    elif action in ("export", "fail_one") and (waiting := await photos.to_do(store, album.id)):
        row_id = waiting[0].row_id
        failure = NotExported(row_id, PhotoStatus.FAILED, "torn", 1)
        await photos.commit_group(store, [exported(row_id) if action == "export" else failure])


async def test_an_archive_job_goes_its_way_and_cleaning_ends_with_nothing_present(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3") as store:
        album = await albums.start(store, await planned_album(store, await new_run(store)), plans(1))
        (only,) = await photos.to_do(store, album.id)
        await photos.commit_group(store, [exported(only.row_id)])
        job = await archives.create(store, run_id=None, clean=True, timestamp="20260101_000000")
        for trigger in (ArchiveTrigger.START, ArchiveTrigger.WRITTEN):
            job = await archives.step(store, job, trigger)
        job = await archives.step(store, job, ArchiveTrigger.PROVED, file="a.zip", size=1, files=1, proved=True)
        job = await archives.step(store, job, ArchiveTrigger.CLEAN)
        assert len(await store.all("present_ids")) == 1
        job = await archives.step(store, job, ArchiveTrigger.CLEANED, emptied=["export"])
        assert (job.status, job.file, job.proved_at is not None) == (ArchiveStatus.DONE, "a.zip", True)
        assert await store.all("present_ids") == []
