"""Which archives a listing shows, and which may go."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.archive import retention
from skicyclerun.archive.create import write_archive
from skicyclerun.archive.listing import ListedArchive, archive_named, list_archives
from skicyclerun.archive.plan import plan_archive
from skicyclerun.archive.prove import Examination, prove_archive
from skicyclerun.archive.publish import publish_archive
from skicyclerun.archive.retention import PrunePlan, plan_prune, prune_archives
from skicyclerun.errors import ArchiveUnknown, StorageError, UsageError
from tests.archive_trees import folders_of, make_outputs

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def _archive(lib: Path, days_old: float) -> Path:
    created = NOW - timedelta(days=days_old)
    plan = plan_archive(folders_of(lib))
    written = write_archive(
        plan,
        lib / "archive",
        timestamp=created.strftime("%Y%m%d_%H%M%S"),
        archive_id=f"job-{days_old}".replace(".", "-"),
        created=created,
    )
    return publish_archive(prove_archive(written.partial, written, now=created + timedelta(minutes=1)))


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """Archives 100, 40, 20 and 1 days old."""
    make_outputs(tmp_path)
    for days in (100, 40, 20, 1):
        _archive(tmp_path, days)
    return tmp_path


def _names(archives: tuple[ListedArchive, ...]) -> list[int]:
    return [round((NOW - archive.created_at) / timedelta(days=1)) for archive in archives]


def _plan(lib: Path, *, days: int | None = None, keep: int | None = None) -> PrunePlan:
    return plan_prune(lib / "archive", retention_days=days, keep_last=keep, now=NOW)


def test_a_listing_shows_date_size_files_and_proof(lib: Path) -> None:
    listed = list_archives(lib / "archive")
    assert _names(tuple(listed)) == [100, 40, 20, 1]
    newest = listed[-1]
    assert (newest.files, newest.created, newest.proved) == (7, "2026-11-21T12:00:00Z", "2026-11-21T12:01:00Z")
    assert newest.size == newest.path.stat().st_size
    assert newest.problem == ""


def test_what_is_no_archive_of_ours_is_listed_with_its_problem_or_not_at_all(tmp_path: Path) -> None:
    archives = tmp_path / "archive"
    assert list_archives(archives) == []
    archives.mkdir()
    with zipfile.ZipFile(archives / "pipeline_20250101_101010.zip", "w") as writer:
        writer.writestr("a", b"b")
    (archives / "pipeline_20259999_101010.zip").write_bytes(b"")
    (archives / "holiday.zip").write_bytes(b"mine")
    (archives / "pipeline_20250101_101011.zip").mkdir()
    os.symlink("holiday.zip", archives / "pipeline_20250101_101012.zip")
    listed = list_archives(archives)
    assert {one.name for one in listed} == {"pipeline_20250101_101010.zip", "pipeline_20259999_101010.zip"}
    assert all(one.problem and one.proved is None for one in listed)
    assert listed[-1].created == "2025-01-01T10:10:10"


@pytest.mark.parametrize(
    "name", ["pipeline_20261121_120000.zip", "pipeline_20261121_120000", "20261121_120000", "latest"]
)
def test_an_archive_is_found_by_its_name(lib: Path, name: str) -> None:
    path = lib / "archive/pipeline_20261121_120000.zip"
    assert archive_named(lib / "archive", name) == path
    assert archive_named(lib / "elsewhere", str(path)) == path


@pytest.mark.parametrize("name", ["nope", "latest", "../archive", "/nowhere/x.zip", "pipeline_20261121_120001.zip"])
def test_an_unknown_archive_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveUnknown):
        archive_named(tmp_path, name)


@pytest.mark.parametrize(
    ("days", "keep", "removed"),
    [
        (None, None, []),
        (0, None, []),
        (30, None, [100, 40]),
        (30, 3, [100]),
        (30, 4, []),
        (None, 1, [100, 40, 20]),
        (0, 2, [100, 40]),
        (1000, 1, []),
        (1, 1, [100, 40, 20]),
    ],
)
def test_an_archive_goes_only_when_no_rule_keeps_it(
    lib: Path, days: int | None, keep: int | None, removed: list[int]
) -> None:
    plan = _plan(lib, days=days, keep=keep)
    assert _names(plan.remove) == removed
    assert len(plan.remove) + len(plan.keep) == 4
    assert len(prune_archives(plan)) == len(removed)
    assert _names(tuple(list_archives(lib / "archive"))) == [days for days in (100, 40, 20, 1) if days not in removed]


@pytest.mark.parametrize(("days", "keep"), [(-1, None), (None, 0), (3, -2)])
def test_numbers_that_would_keep_nothing_are_refused(lib: Path, days: int | None, keep: int | None) -> None:
    with pytest.raises(UsageError):
        _plan(lib, days=days, keep=keep)


def test_the_newest_whole_archive_stays_when_newer_ones_are_damaged(lib: Path) -> None:
    newest, second = (list_archives(lib / "archive")[index].path for index in (-1, -2))
    newest.write_bytes(newest.read_bytes()[:-300])
    plan = _plan(lib, days=1, keep=1)
    assert [archive.path for archive in plan.keep] == [second]
    assert [archive.path for archive in plan.left_alone] == [newest]
    prune_archives(plan)
    assert newest.exists()
    assert second.exists()


def test_an_archive_that_was_never_proved_neither_counts_nor_goes(lib: Path) -> None:
    plan = plan_archive(folders_of(lib))
    written = write_archive(plan, lib / "archive", timestamp="20261122_000000", archive_id="x", created=NOW)
    shutil.move(written.partial, lib / "archive/pipeline_20261122_000000.zip")
    pruned = _plan(lib, keep=1)
    assert _names(pruned.keep) == [1]
    assert [archive.name for archive in pruned.left_alone] == ["pipeline_20261122_000000.zip"]


def test_a_disk_that_does_not_confirm_the_removal_is_told_of_in_words(
    lib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(directory: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(retention, "sync_directory", fails)
    with pytest.raises(StorageError, match=r"3 archives were removed .*Input/output error"):
        prune_archives(_plan(lib, keep=1))
    assert _names(tuple(list_archives(lib / "archive"))) == [1]


def test_an_archive_that_cannot_be_removed_is_the_failure_that_is_told(
    lib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _plan(lib, keep=1)
    plan.remove[1].path.unlink()
    plan.remove[1].path.mkdir()
    synced: list[Path] = []

    def fails(directory: Path) -> None:
        synced.append(directory)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(retention, "sync_directory", fails)
    with pytest.raises(StorageError, match=r"cannot be removed .* 1 archive was removed before it"):
        prune_archives(plan)
    assert synced == [lib / "archive"]


def test_files_that_are_not_ours_are_never_touched(lib: Path) -> None:
    archives = lib / "archive"
    mine = ["holiday.zip", "pipeline_20200101_000000.zip.bak", "pipeline_20200101_000000.zip", "pipeline_2020.zip"]
    for name in mine:
        (archives / name).write_bytes(b"mine")
    prune_archives(_plan(lib, days=1, keep=1))
    assert sorted(os.listdir(archives)) == sorted([*mine, "pipeline_20261121_120000.zip"])


@given(
    ages=st.lists(st.integers(0, 400), min_size=1, max_size=12),
    whole=st.lists(st.booleans(), min_size=12, max_size=12),
    days=st.none() | st.integers(0, 400),
    keep=st.none() | st.integers(1, 12),
)
def test_the_newest_whole_archive_is_never_pruned(
    ages: list[int], whole: list[bool], days: int | None, keep: int | None
) -> None:
    listed = [
        ListedArchive(
            Path(f"{number}"), 1, (NOW - timedelta(days=age)).isoformat(), 1, 1, "2026-01-01" if whole[number] else None
        )
        for number, age in enumerate(ages)
    ]
    listed.sort(key=lambda one: one.created_at)

    def all_fine(path: Path, *, quick: bool = False, progress: object = None) -> Examination:
        return Examination(path, (), quick)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "list_archives", lambda directory: listed)
        patch.setattr(retention, "verify_archive", all_fine)
        plan = plan_prune(Path(), retention_days=days, keep_last=keep, now=NOW)
    proved = [one for one in listed if one.proved]
    assert set(plan.left_alone) == {one for one in listed if not one.proved}
    assert {*plan.remove, *plan.keep} == set(proved)
    if proved:
        assert proved[-1] in plan.keep
        assert set(proved[-(keep or 1) :]) <= set(plan.keep)
