"""Runs that were cut short, and what carries on with them: time-outs, retries, --resume, --fresh, retry-failed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from skicyclerun.actors.messages import Intent
from skicyclerun.errors import PhotoTransient, SourceStopped
from skicyclerun.models import Photo
from tests.command_line import (
    YES,
    ToldSource,
    album_of,
    exported,
    inodes,
    make_library,
    run_with,
    skicyclerun,
    status_of,
    write_config,
)

ALBUMS = {"Alps": ["IMG_1.jpg", "IMG_2.jpg", "IMG_3.jpg"], "Coast": ["IMG_4.jpg", "IMG_5.jpg"]}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", ALBUMS)


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


async def at_once(photo: Photo) -> None:
    """Hand the photo over without any delay."""


def cut_short_at(name: str, library: Path, lib_root: Path, overrides: Mapping[str, object] | None = None) -> None:
    """A run that the source ends when it is asked for the photo of that name."""

    async def before(photo: Photo) -> None:
        if photo.original_filename == name:
            raise SourceStopped("The source was unplugged.")

    with pytest.raises(SourceStopped):
        run_with(ToldSource(library, before), lib_root, overrides=overrides)


# ── an unfinished run ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_was_cut_short_is_shown_as_such(library: Path, lib_root: Path) -> None:
    cut_short_at("IMG_2.jpg", library, lib_root)
    report = status_of(lib_root)
    assert report["run"]["status"] == "interrupted"
    assert "unplugged" in report["run"]["reason"]
    assert [(album["status"], album["exported"], album["pending"]) for album in report["albums"]] == [
        ("pending", 1, 2),
        ("pending", 0, 2),
    ]
    assert "skicyclerun run --resume" in skicyclerun("status", "--lib-root", lib_root).stdout


def test_resume_continues_at_the_first_photo_not_yet_durable(library: Path, lib_root: Path) -> None:
    cut_short_at("IMG_2.jpg", library, lib_root)
    before = inodes(lib_root)
    source = ToldSource(library, at_once)
    outcome = run_with(source, lib_root, Intent.RESUME)
    assert source.fetched == ["IMG_2.jpg", "IMG_3.jpg", "IMG_4.jpg", "IMG_5.jpg"]
    assert outcome.report is not None
    assert outcome.report.run.id == 1
    assert sorted(exported(lib_root)) == [f"{album}/{name}" for album, names in ALBUMS.items() for name in names]
    assert inodes(lib_root).items() >= before.items()


def test_a_resumed_run_leaves_what_a_run_never_interrupted_leaves(library: Path, tmp_path: Path) -> None:
    cut_short_at("IMG_3.jpg", library, tmp_path / "cut")
    assert skicyclerun("run", "--resume", "--lib-root", tmp_path / "cut").code == 0
    assert skicyclerun("run", "--library", library, "--lib-root", tmp_path / "whole").code == 0
    assert exported(tmp_path / "cut") == exported(tmp_path / "whole")


def test_away_from_a_terminal_a_fresh_run_over_an_unfinished_one_is_refused(library: Path, lib_root: Path) -> None:
    cut_short_at("IMG_2.jpg", library, lib_root)
    before = exported(lib_root)
    for extra in ([], ["--yes"], ["--dry-run"]):
        refused = skicyclerun("run", "--library", library, "--lib-root", lib_root, *extra)
        assert refused.code == 2
        assert "--resume" in refused.stderr
        assert "--fresh" in refused.stderr
        assert "2 albums still to do" in refused.stderr
    assert exported(lib_root) == before
    assert status_of(lib_root)["run"]["id"] == 1


def test_fresh_gives_up_the_unfinished_run(library: Path, lib_root: Path) -> None:
    cut_short_at("IMG_2.jpg", library, lib_root)
    assert skicyclerun("run", "--fresh", *YES, "--library", library, "--lib-root", lib_root).code == 0
    assert status_of(lib_root)["run"]["id"] == 2
    assert status_of(lib_root, "--run", "1")["run"]["status"] == "abandoned"
    assert "given up" in skicyclerun("status", "--run", "1", "--lib-root", lib_root).stdout


def test_nothing_to_resume_is_said_and_no_error(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    before = inodes(lib_root)
    nothing = skicyclerun("run", "--resume", "--lib-root", lib_root)
    assert nothing.code == 0
    assert "Nothing to resume" in nothing.stderr
    assert inodes(lib_root) == before


@pytest.mark.parametrize("command", [["run", "--resume"], ["retry-failed"]])
def test_carrying_on_where_nothing_was_ever_begun_ends_with_code_10(lib_root: Path, command: list[str]) -> None:
    nothing = skicyclerun(*command, "--lib-root", lib_root)
    assert nothing.code == 10
    assert "Nothing has been exported yet" in nothing.stderr
    assert not lib_root.exists()


@pytest.mark.parametrize("choice", [["--fresh"], ["--update"], ["--stages", "export"], ["--album", "Alps"]])
def test_resume_takes_no_other_choice(library: Path, lib_root: Path, choice: list[str]) -> None:
    cut_short_at("IMG_2.jpg", library, lib_root)
    refused = skicyclerun("run", "--resume", *choice, "--lib-root", lib_root)
    assert refused.code == 2
    assert "--resume" in refused.stderr


def test_a_run_cannot_be_resumed_from_another_source(library: Path, lib_root: Path, tmp_path: Path) -> None:
    cut_short_at("IMG_2.jpg", library, lib_root)
    other = make_library(tmp_path / "other", {"Lakes": ["IMG_9.jpg"]})
    refused = skicyclerun("run", "--resume", "--library", other, "--lib-root", lib_root)
    assert refused.code == 2
    assert str(library) in refused.stderr
    assert skicyclerun("run", "--resume", "--library", library, "--lib-root", lib_root).code == 0


def test_a_resumed_run_keeps_the_settings_it_was_begun_with(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.png", "IMG_2.png"]})
    cut_short_at("IMG_2.png", library, lib_root, {"export.jpeg_quality": 10})
    config = write_config(tmp_path, export={"format": "original", "jpeg_quality": 100})
    resumed = skicyclerun("run", "--resume", "--config", config, "--lib-root", lib_root)
    assert resumed.code == 0
    assert "keeps the export settings" in resumed.stderr
    run_with(ToldSource(library, at_once), tmp_path / "whole", overrides={"export.jpeg_quality": 10})
    assert sorted(exported(lib_root)) == ["Alps/IMG_1.jpg", "Alps/IMG_2.jpg"]
    assert exported(lib_root) == exported(tmp_path / "whole")
    run_with(ToldSource(library, at_once), tmp_path / "finer")
    assert exported(lib_root) != exported(tmp_path / "finer")


def test_an_album_deleted_from_the_library_meanwhile_fails_with_a_sentence(library: Path, lib_root: Path) -> None:
    cut_short_at("IMG_2.jpg", library, lib_root)
    for file in (library / "Coast").iterdir():
        file.unlink()
    (library / "Coast").rmdir()
    resumed = skicyclerun("run", "--resume", "--lib-root", lib_root)
    report = status_of(lib_root)
    assert resumed.code == 3
    assert album_of(report, "Alps")["status"] == "done"
    assert album_of(report, "Coast")["status"] == "failed"
    assert "no longer there" in album_of(report, "Coast")["reason"]


def test_a_photo_deleted_from_the_library_meanwhile_fails_alone(library: Path, lib_root: Path) -> None:
    cut_short_at("IMG_2.jpg", library, lib_root)
    (library / "Alps" / "IMG_2.jpg").unlink()
    assert skicyclerun("run", "--resume", "--lib-root", lib_root).code == 3
    alps = album_of(status_of(lib_root), "Alps")
    assert (alps["status"], alps["exported"], alps["failed"]) == ("failed", 2, 1)
    assert "no longer" in alps["not_exported"][0]["reason"]


def test_a_retry_after_the_cause_is_gone_completes_the_album(library: Path, lib_root: Path) -> None:
    whole = (library / "Alps" / "IMG_2.jpg").read_bytes()
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"")
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root).code == 3
    before = inodes(lib_root)
    (library / "Alps" / "IMG_2.jpg").write_bytes(whole)
    again = skicyclerun("retry-failed", "--lib-root", lib_root)
    assert again.code == 0
    after = inodes(lib_root)
    assert set(after) - set(before) == {"Alps/IMG_2.jpg"}
    assert after.items() >= before.items()
    assert album_of(status_of(lib_root), "Alps")["attempts"] == 2


def test_a_retry_of_a_run_given_up_for_a_cleanup_says_that_there_is_nothing(library: Path, lib_root: Path) -> None:
    (library / "Alps" / "IMG_1.jpg").write_bytes(b"")
    cut_short_at("IMG_4.jpg", library, lib_root)
    assert album_of(status_of(lib_root), "Alps")["status"] == "failed"
    cleaned = skicyclerun("run", "--stages", "cleanup", "--force-clean", "--fresh", *YES, "--lib-root", lib_root)
    assert cleaned.code == 0
    again = skicyclerun("retry-failed", "--lib-root", lib_root)
    assert again.code == 0
    assert "Nothing to retry" in again.stderr


def test_every_step_of_an_interrupted_run_is_on_record(library: Path, lib_root: Path) -> None:
    cut_short_at("IMG_4.jpg", library, lib_root)
    skicyclerun("run", "--resume", "--lib-root", lib_root)
    with closing(sqlite3.connect(lib_root / "state" / "skicyclerun.sqlite3")) as connection:
        steps = connection.execute(
            "SELECT from_status, trigger, to_status FROM transitions WHERE subject = 'album' AND subject_id = 2 "
            "ORDER BY id"
        ).fetchall()
    assert steps == [
        ("pending", "start", "exporting"),
        ("exporting", "interrupt", "pending"),
        ("pending", "start", "exporting"),
        ("exporting", "complete", "done"),
    ]


# ── time-outs and failures that may pass ──────────────────────────────────────────────────────────────────────────


def test_a_photo_that_takes_too_long_fails_alone(library: Path, lib_root: Path) -> None:
    async def before(photo: Photo) -> None:
        if photo.original_filename == "IMG_2.jpg":
            await anyio.sleep_forever()

    run_with(ToldSource(library, before), lib_root, overrides={"export.timeouts.photo": 0.2})
    report = status_of(lib_root)
    alps = album_of(report, "Alps")
    assert (alps["status"], alps["exported"], alps["failed"]) == ("failed", 2, 1)
    assert "longer than 0.2 s" in alps["not_exported"][0]["reason"]
    assert album_of(report, "Coast")["status"] == "done"


def test_an_album_that_times_out_is_failed_with_what_it_has_kept_and_the_next_goes_on(
    library: Path, lib_root: Path
) -> None:
    async def before(photo: Photo) -> None:
        if photo.original_filename == "IMG_2.jpg":
            await anyio.sleep_forever()

    run_with(ToldSource(library, before), lib_root, overrides={"export.timeouts.album": 0.5})
    report = status_of(lib_root)
    alps = album_of(report, "Alps")
    assert (alps["status"], alps["exported"], alps["pending"]) == ("failed", 1, 2)
    assert "time-out after 0.5 s" in alps["reason"]
    assert "1 of 3 photos exported and kept" in alps["reason"]
    assert album_of(report, "Coast")["status"] == "done"
    assert "Alps/IMG_1.jpg" in exported(lib_root)

    source = ToldSource(library, at_once)
    run_with(source, lib_root, Intent.RETRY_FAILED)
    assert source.fetched == ["IMG_2.jpg", "IMG_3.jpg"]
    assert album_of(status_of(lib_root), "Alps")["status"] == "done"


def test_when_the_runs_time_is_up_the_rest_stays_pending(library: Path, lib_root: Path) -> None:
    async def before(photo: Photo) -> None:
        if photo.original_filename == "IMG_2.jpg":
            await anyio.sleep(0.6)

    outcome = run_with(ToldSource(library, before), lib_root, overrides={"export.timeouts.run": 0.5})
    report = status_of(lib_root)
    assert outcome.report is not None
    assert report["run"]["status"] == "interrupted"
    assert "time was up" in report["run"]["reason"]
    assert [(album["status"], album["exported"]) for album in report["albums"]] == [("pending", 2), ("pending", 0)]
    assert skicyclerun("run", "--resume", "--lib-root", lib_root).code == 0
    assert len(exported(lib_root)) == 5


def test_a_run_whose_time_is_up_ends_with_code_3(library: Path, lib_root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, export={"timeouts": {"run": 1e-6}})
    ended = skicyclerun("run", "--library", library, "--config", config, "--lib-root", lib_root)
    assert ended.code == 3
    assert "2 pending" in ended.stdout
    assert "skicyclerun run --resume" in ended.stdout


def test_a_failure_that_may_pass_is_tried_again(library: Path, lib_root: Path) -> None:
    left = {"IMG_2.jpg": 2}

    async def before(photo: Photo) -> None:
        if left.get(photo.original_filename, 0):
            left[photo.original_filename] -= 1
            raise PhotoTransient("the reply timed out.")

    source = ToldSource(library, before)
    run_with(source, lib_root, overrides={"export.retries.backoff_seconds": 0.01})
    assert source.fetched.count("IMG_2.jpg") == 3
    report = status_of(lib_root, "--photos")
    assert {album["status"] for album in report["albums"]} == {"done"}
    assert [photo["attempts"] for photo in album_of(report, "Alps")["photos"]] == [1, 3, 1]


def test_a_failure_that_does_not_pass_fails_the_photo_after_its_tries(library: Path, lib_root: Path) -> None:
    async def before(photo: Photo) -> None:
        if photo.original_filename == "IMG_2.jpg":
            raise PhotoTransient("the reply timed out.")

    run_with(ToldSource(library, before), lib_root, overrides={"export.retries.backoff_seconds": 0})
    alps = album_of(status_of(lib_root), "Alps")
    assert (alps["status"], alps["exported"], alps["failed"]) == ("failed", 2, 1)
    assert alps["not_exported"][0]["attempts"] == 3
    assert "the reply timed out." in alps["not_exported"][0]["reason"]


def test_a_source_that_fails_again_and_again_is_paused_with_the_rest_pending(library: Path, lib_root: Path) -> None:
    async def before(photo: Photo) -> None:
        if photo.original_filename != "IMG_1.jpg":
            raise PhotoTransient("the reply timed out.")

    with pytest.raises(SourceStopped, match="4 times in a row"):
        run_with(
            ToldSource(library, before),
            lib_root,
            overrides={"export.retries.backoff_seconds": 0, "export.retries.pause_after": 4},
        )
    report = status_of(lib_root)
    assert report["run"]["status"] == "interrupted"
    assert [album["status"] for album in report["albums"]] == ["pending", "pending"]
    assert list(exported(lib_root)) == ["Alps/IMG_1.jpg"]
    assert skicyclerun("run", "--resume", "--lib-root", lib_root).code == 0


def test_failures_that_pass_in_between_do_not_pause_the_source(library: Path, lib_root: Path) -> None:
    tried: set[str] = set()

    async def before(photo: Photo) -> None:
        if photo.id not in tried:
            tried.add(photo.id)
            raise PhotoTransient("the reply timed out.")

    overrides = {"export.retries.backoff_seconds": 0, "export.retries.pause_after": 2}
    run_with(ToldSource(library, before), lib_root, overrides=overrides)
    assert status_of(lib_root)["run"]["status"] == "finished"
    assert len(exported(lib_root)) == 5


def test_the_pause_before_each_further_try_doubles(
    library: Path, lib_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)

    async def before(photo: Photo) -> None:
        if photo.original_filename == "IMG_2.jpg":
            raise PhotoTransient("the reply timed out.")

    overrides = {"export.retries.backoff_seconds": 3, "export.retries.attempts": 4}
    run_with(ToldSource(library, before), lib_root, overrides=overrides)
    assert pauses == [3, 6, 12]


def test_the_catalog_is_right_after_a_run_cut_short_and_resumed(library: Path, lib_root: Path) -> None:
    cut_short_at("IMG_5.jpg", library, lib_root)
    master = lib_root / "metadata" / "master.json"
    albums = lib_root / "pipeline" / "albums"
    skicyclerun("run", "--resume", "--lib-root", lib_root)
    assert sorted(json.loads(master.read_bytes())) == sorted(str(albums / name) for name in exported(lib_root))
