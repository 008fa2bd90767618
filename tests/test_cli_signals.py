"""Stopping a run by signals, and two runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from skicyclerun.actors.messages import Intent
from skicyclerun.models import Photo
from tests.command_line import (
    Ended,
    ToldSource,
    Watching,
    ended,
    exported,
    make_library,
    make_slow_library,
    run_with,
    skicyclerun,
    start,
    status_of,
    wait_for,
)

ALBUMS = {"Alps": ["IMG_1.jpg", "IMG_2.jpg", "IMG_3.jpg"], "Coast": ["IMG_4.jpg"]}
STAGING = ".skicyclerun-staging"


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


@pytest.fixture(scope="module")
def slow_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_slow_library(tmp_path_factory.mktemp("slow") / "library")


@pytest.fixture
def slow_run(slow_library: Path, lib_root: Path) -> Iterator[subprocess.Popen[str]]:
    """The program in a process of its own, in the middle of an album."""
    process = start("run", "--library", slow_library, "--lib-root", lib_root, "--yes")
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


# ── a process of its own ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_finishes_the_photos_in_hand_and_says_how_to_resume(
    slow_run: subprocess.Popen[str], lib_root: Path, number: signal.Signals, code: int
) -> None:
    read = wait_for(slow_run, "PROGRESS: album_1")
    slow_run.send_signal(number)
    stopped = ended(slow_run, read)
    assert stopped.code == code
    assert "Stopping after the photos in hand" in stopped.stderr
    assert "skicyclerun run --resume" in stopped.stdout
    report = status_of(lib_root)
    assert report["run"]["status"] == "interrupted"
    assert [album["status"] for album in report["albums"]] == ["pending", "pending"]
    kept = report["totals"]["exported"]
    assert 0 < kept < 100
    assert len(exported(lib_root)) == kept
    assert not (lib_root / "pipeline" / "albums" / STAGING).exists()


def test_the_lock_is_held_while_a_run_is_at_work_and_gone_when_it_is_killed(
    slow_run: subprocess.Popen[str], slow_library: Path, lib_root: Path
) -> None:
    wait_for(slow_run, "PROGRESS: album_1")
    for command in (
        ["run", "--library", slow_library, "--yes"],
        ["run", "--resume"],
        ["run", "--fresh", "--library", slow_library],
        ["run", "--stages", "cleanup", "--force-clean"],
        ["retry-failed"],
    ):
        second = skicyclerun(*command, "--lib-root", lib_root)
        assert second.code == 11
        assert f"process {slow_run.pid} " in second.stderr
        assert "skicyclerun status" in second.stderr
    running = skicyclerun("status", "--lib-root", lib_root)
    assert running.code == 0
    assert f"process {slow_run.pid} " in running.stdout
    assert "running" in running.stdout
    slow_run.kill()
    slow_run.communicate()
    report = status_of(lib_root)
    assert (report["run"]["running"], report["run"]["status"]) == (False, "active")
    assert "unfinished" in skicyclerun("status", "--lib-root", lib_root).stdout
    assert skicyclerun("run", "--library", slow_library, "--lib-root", lib_root).code == 2


# ── in this process, held at a known point ────────────────────────────────────────────────────────────────────────


def test_the_photo_in_hand_is_kept_when_a_signal_comes_and_a_resume_completes_the_run(
    tmp_path: Path, lib_root: Path
) -> None:
    library = make_library(tmp_path / "library", ALBUMS)

    async def before(photo: Photo) -> None:
        if photo.original_filename == "IMG_2.jpg":
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.lowlevel.checkpoint()  # lets the loop hear of it; the photo is in hand all the same

    source, watching = ToldSource(library, before), Watching()
    outcome = run_with(source, lib_root, renderer=watching)
    assert outcome.signal_code == 130
    assert sorted(exported(lib_root)) == ["Alps/IMG_1.jpg", "Alps/IMG_2.jpg"]
    assert "IMG_4.jpg" not in source.fetched
    assert outcome.report is not None
    assert outcome.report.run.unfinished
    assert skicyclerun("run", "--resume", "--lib-root", lib_root).code == 0
    assert len(exported(lib_root)) == 4


def test_a_second_signal_stops_at_once_and_the_run_can_be_resumed(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", ALBUMS)

    async def before(photo: Photo) -> None:
        if photo.original_filename == "IMG_2.jpg":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep_forever()  # a photo that would never be finished

    outcome = run_with(ToldSource(library, before), lib_root, renderer=Watching())
    assert outcome.signal_code in (130, 143)
    assert "skicyclerun run --resume" in outcome.said
    report = status_of(lib_root)
    assert (report["run"]["status"], report["run"]["reason"]) == ("interrupted", "stopped at once")
    assert [album["status"] for album in report["albums"]] == ["pending", "pending"]
    assert list(exported(lib_root)) == ["Alps/IMG_1.jpg"]
    assert not (lib_root / "pipeline" / "albums" / STAGING).exists()
    source = ToldSource(library, _at_once)
    run_with(source, lib_root, Intent.RESUME)
    assert source.fetched == ["IMG_2.jpg", "IMG_3.jpg", "IMG_4.jpg"]


async def _at_once(photo: Photo) -> None:
    """Hand the photo over without any delay."""


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {f"Album {number}": ["IMG_1.jpg"] for number in range(40)})
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    process = start("status", "--photos", "--lib-root", lib_root)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    stderr = process.stderr.read()
    process.stderr.close()
    assert Ended(process.wait(), "", stderr) == Ended(0, "", "")


def test_the_exit_code_of_a_run_does_not_depend_on_who_reads_its_report(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", ALBUMS)
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"")
    for style in ([], ["--json"]):
        process = start("run", "--library", library, "--lib-root", lib_root, "--yes", *style)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        stderr = process.stderr.read()
        process.stderr.close()
        assert Ended(process.wait(), "", stderr).code == 3
        assert "BrokenPipe" not in stderr
        assert status_of(lib_root)["run"]["status"] == "finished"
