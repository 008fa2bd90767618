"""Rendering in processes: what a stop, a kill, a time-out and a death leave, and that the bytes are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from skicyclerun.actors.photo_batch import BATCH_PHOTOS, PhotoBatch
from skicyclerun.actors.render_processes import RenderFunction, RenderProcesses, wanted
from skicyclerun.errors import PhotoGone, PhotoSlow, PhotoTransient, PhotoUnreadable, SourceStopped
from skicyclerun.models import Component, ExportedFacts, Fetched, Photo
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import TimeLimits
from skicyclerun.state.photos import PhotoToDo
from tests.command_line import (
    ended,
    exported,
    make_library,
    make_slow_library,
    skicyclerun_process,
    start,
    status_of,
    wait_for,
)
from tests.rendering_functions import FACTS, as_told

OPTIONS = ExportOptions()
PATIENT = TimeLimits(60.0, 60.0)
ALWAYS = {"SKICYCLERUN_RENDER_PROCESSES": "always"}
NEVER = {"SKICYCLERUN_RENDER_PROCESSES": "never"}

Came = list[ExportedFacts | Exception | None]


class Folder:
    """A source of the photos that a test names; each is a file in `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused: dict[str, Exception] = {}

    def read_ahead(self, photos: Sequence[Photo]) -> None:
        """Nothing is needed."""

    def locate(self, photo: Photo) -> Fetched:
        if photo.id in self.refused:
            raise self.refused[photo.id]
        return Fetched(self.path / photo.id)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "originals").mkdir()
    (tmp_path / "staging").mkdir()
    return Folder(tmp_path / "originals")


@pytest.fixture
def processes() -> Iterator[RenderProcesses]:
    made = RenderProcesses()
    yield made
    made.close()


def batch_of(
    folder: Folder,
    names: str,
    processes: RenderProcesses | None,
    *,
    limits: TimeLimits = PATIENT,
    render: RenderFunction = as_told,
) -> PhotoBatch:
    photos = []
    for number, name in enumerate(names.split()):
        (folder.path / name).write_bytes(b"x")
        photo = PhotoToDo(number, Photo(name, name), name, 0)
        photos.append((photo, folder.path.parent / "staging" / f"{number}.part"))
    return PhotoBatch(photos, folder, render, OPTIONS, limits, processes)


async def come_of(batch: PhotoBatch) -> Came:
    return await batch.carry_out(lambda seconds: None)


def rendered_by(folder: Folder, number: int) -> int:
    return int((folder.path.parent / "staging" / f"{number}.part").read_text())


@pytest.fixture
def held(folder: Folder) -> Path:
    """A pipe that a stuck process holds open."""
    os.mkfifo(folder.path / "held")
    return folder.path / "held"


# ── what a process does ───────────────────────────────────────────────────────────────────────────────────────────


async def test_photos_are_rendered_in_another_process_which_serves_batch_after_batch(
    folder: Folder, processes: RenderProcesses
) -> None:
    assert await come_of(batch_of(folder, "a b c", processes)) == [FACTS] * 3
    first = rendered_by(folder, 0)
    assert first != os.getpid()
    assert await come_of(batch_of(folder, "d", processes)) == [FACTS]
    assert rendered_by(folder, 0) == first


async def test_an_error_comes_as_what_it_was_and_fails_its_photo_alone(
    folder: Folder, processes: RenderProcesses
) -> None:
    unreadable, facts, full, faulty, strange, last = await come_of(
        batch_of(folder, "unreadable a full faulty strange b", processes)
    )
    assert isinstance(unreadable, PhotoUnreadable)
    assert str(unreadable) == "it is torn"
    assert (facts, last) == (FACTS, FACTS)
    assert isinstance(full, OSError)
    assert (full.errno, full.filename) == (28, str(folder.path.parent / "staging" / "2.part"))
    assert isinstance(faulty, ZeroDivisionError)
    assert any("rendering_functions.py" in note for note in faulty.__notes__)
    assert isinstance(strange, RuntimeError)
    assert "Unsendable" in str(strange)


async def test_what_a_library_prints_does_not_disturb_the_answers(folder: Folder, processes: RenderProcesses) -> None:
    assert await come_of(batch_of(folder, "chatty a", processes)) == [FACTS, FACTS]


@pytest.mark.parametrize(
    ("name", "how"), [("killed", "runs out of memory"), ("aborted", "SIGABRT")], ids=["killed", "crashed"]
)
async def test_a_process_that_dies_fails_the_photo_it_was_at_for_another_attempt(
    folder: Folder, processes: RenderProcesses, name: str, how: str
) -> None:
    facts, died, after = await come_of(batch_of(folder, f"a {name} b", processes))
    assert facts == FACTS
    assert isinstance(died, PhotoTransient)
    assert "ended unexpectedly" in str(died)
    assert how in str(died)
    assert after is None
    assert await come_of(batch_of(folder, "b", processes)) == [FACTS]


async def test_a_photo_that_takes_too_long_is_put_off_and_its_process_killed(
    folder: Folder, processes: RenderProcesses, held: Path
) -> None:
    await come_of(batch_of(folder, "a", processes))  # started, so that the half second is the photo's
    gone = threading.Thread(target=held.read_bytes)  # until nobody holds it any more
    gone.start()
    facts, slow, after = await come_of(batch_of(folder, "a stuck b", processes, limits=TimeLimits(0.5, 0.5)))
    assert facts == FACTS
    assert isinstance(slow, PhotoSlow)
    assert str(slow) == "it took longer than 0.5 s (export.timeouts.photo)"
    assert after is None
    await anyio.to_thread.run_sync(gone.join, 60)
    assert not gone.is_alive()
    assert await come_of(batch_of(folder, "b", processes)) == [FACTS]


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_a_process_at_work_ends_with_a_cancellation_and_with_the_export(
    folder: Folder, processes: RenderProcesses, held: Path, how: str
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(come_of, batch_of(folder, "stuck", processes))
        with await anyio.to_thread.run_sync(held.open, "rb") as pipe:  # opened by both: it is stuck by now
            if how == "cancelled":
                tasks.cancel_scope.cancel()
            else:
                processes.close()
            with anyio.CancelScope(shield=True):
                assert await anyio.to_thread.run_sync(pipe.read) == b""


async def test_a_process_leaves_signals_to_the_run(folder: Folder, processes: RenderProcesses) -> None:
    await come_of(batch_of(folder, "a", processes))
    pid = rendered_by(folder, 0)
    assert os.getpgid(pid) != os.getpgid(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert await come_of(batch_of(folder, "b", processes)) == [FACTS]
    assert rendered_by(folder, 0) == pid


def test_no_process_outlives_a_parent_that_is_killed(folder: Folder, held: Path) -> None:
    (folder.path / "stuck").write_bytes(b"x")
    program = f"""
from pathlib import Path
from skicyclerun.actors.render_processes import RenderProcess
from skicyclerun.models import Component, Fetched
from skicyclerun.settings.export_options import ExportOptions
from tests.rendering_functions import as_told
jobs = [(Fetched(Path({str(folder.path / "stuck")!r})), Component.STILL, Path("nowhere"))]
list(RenderProcess().render(as_told, ExportOptions(), jobs, 1.0))
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[1])
    with held.open("rb") as pipe:  # opened by both: it is in the middle of a photo
        parent.kill()
        parent.wait(60)
        assert pipe.read() == b""  # the end, which comes when nobody holds the pipe


async def test_where_no_process_can_be_had_threads_render(
    folder: Folder, processes: RenderProcesses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(folder.path / "no python here"))
    assert await come_of(batch_of(folder, "a b", processes)) == [FACTS, FACTS]
    assert rendered_by(folder, 0) == os.getpid()
    assert await come_of(batch_of(folder, "c", processes)) == [FACTS]
    assert caplog.text.count("rendered in threads") == 1


async def test_a_process_that_ends_before_it_can_work_is_no_process(
    folder: Folder, processes: RenderProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder.path / "python"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert await come_of(batch_of(folder, "a", processes)) == [FACTS]
    assert rendered_by(folder, 0) == os.getpid()


def test_processes_are_started_where_there_is_work_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert wanted(400, 3, enough=400)
    assert not wanted(399, 3, enough=400)
    assert not wanted(10_000, 1, enough=400)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert not wanted(10_000, 2, enough=400)
    monkeypatch.setenv("SKICYCLERUN_RENDER_PROCESSES", "always")
    assert wanted(1, 1, enough=400)


# ── batches, wherever they are rendered ───────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["threads", "processes"])
def where(request: pytest.FixtureRequest, processes: RenderProcesses) -> RenderProcesses | None:
    return processes if request.param == "processes" else None


async def test_a_photo_that_cannot_be_located_fails_alone(folder: Folder, where: RenderProcesses | None) -> None:
    folder.refused["b"] = PhotoGone("b is gone")
    assert await come_of(batch_of(folder, "a b c", where)) == [FACTS, folder.refused["b"], FACTS]


async def test_a_source_that_stops_is_asked_for_nothing_more(folder: Folder, where: RenderProcesses | None) -> None:
    folder.refused["b"] = SourceStopped("The library is gone.")
    assert await come_of(batch_of(folder, "a b c", where)) == [FACTS, folder.refused["b"], None]


async def test_a_batch_begins_no_photo_after_its_time(
    folder: Folder, where: RenderProcesses | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skicyclerun.actors.photo_batch.BATCH_SECONDS", 0.0)
    assert await come_of(batch_of(folder, "a b c", where)) == [FACTS, None, None]


async def test_a_photo_in_a_thread_that_takes_too_long_is_put_off_and_the_thread_left_alone(folder: Folder) -> None:
    go, woke = threading.Event(), threading.Event()
    seen: list[str] = []

    def render(fetched: Fetched, component: Component, staged: Path, options: ExportOptions) -> ExportedFacts:
        seen.append(fetched.path.name)
        if fetched.path.name == "b":
            go.wait(60)
            woke.set()
        return FACTS

    batch = batch_of(folder, "a b c", None, limits=TimeLimits(0.2, 0.2), render=render)
    facts, slow, after = await come_of(batch)
    go.set()
    assert facts == FACTS
    assert isinstance(slow, PhotoSlow)
    assert after is None
    await anyio.to_thread.run_sync(woke.wait, 60)
    assert seen == ["a", "b"]


async def test_the_time_that_a_large_file_is_given_is_told_to_the_album(folder: Folder) -> None:
    told: list[float] = []
    let_go = threading.Event()

    def expect(seconds: float) -> None:
        told.append(seconds)
        if seconds > 100:
            let_go.set()

    def render(*given: object) -> ExportedFacts:
        assert let_go.wait(60)  # the event loop looks once a second
        return FACTS

    batch = batch_of(folder, "a", None, limits=TimeLimits(60.0, 60.0, 1e8), render=render)
    assert await batch.carry_out(expect) == [FACTS]
    assert told == [60.0, pytest.approx(160.0)]


# ── whole runs ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [f"IMG_{number}.jpg" for number in range(3 * BATCH_PHOTOS)]
    return make_library(tmp_path_factory.mktemp("processes") / "library", {"Alps": names, "Coast": ["IMG_1.jpg"]})


@pytest.fixture(scope="module")
def undisturbed(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run with threads makes of it."""
    lib_root = tmp_path_factory.mktemp("undisturbed") / "lib"
    ran = skicyclerun_process("run", "--library", library, "--lib-root", lib_root, "--yes", extra=NEVER)
    assert ran.code == 0, ran.stderr
    return exported(lib_root)


def in_order(tree: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return sorted(tree.items())


def test_processes_and_threads_export_the_same_bytes(
    library: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    ran = skicyclerun_process("run", "--library", library, "--lib-root", tmp_path / "lib", "--yes", extra=ALWAYS)
    assert ran.code == 0, ran.stderr
    assert in_order(exported(tmp_path / "lib")) == in_order(undisturbed)
    assert not list((tmp_path / "lib").rglob(".skicyclerun-staging"))


@pytest.mark.parametrize("fault", ["photo.staged:3", "group.renamed"])
def test_a_run_in_processes_that_was_killed_ends_like_one_never_killed(
    library: Path, undisturbed: dict[str, bytes], tmp_path: Path, fault: str
) -> None:
    lib_root = tmp_path / "lib"
    arguments = ("run", "--library", library, "--lib-root", lib_root, "--yes")
    killed = skicyclerun_process(*arguments, extra=ALWAYS | {"SKICYCLERUN_FAULT": fault})
    assert killed.code == -signal.SIGKILL
    resumed = skicyclerun_process("run", "--resume", "--lib-root", lib_root, extra=ALWAYS)
    assert resumed.code == 0, resumed.stderr
    assert in_order(exported(lib_root)) == in_order(undisturbed)
    assert not list(lib_root.rglob(".skicyclerun-staging"))


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_stop_a_run_in_processes_as_any_other(tmp_path: Path, signals: int) -> None:
    library, lib_root = make_slow_library(tmp_path / "library"), tmp_path / "lib"
    process = start("run", "--library", library, "--lib-root", lib_root, "--yes", extra=ALWAYS)
    read = wait_for(process, "PROGRESS: album_1")
    process.send_signal(signal.SIGINT)
    if signals == 2:
        process.send_signal(signal.SIGTERM)
    stopped = ended(process, read)
    assert stopped.code in ((130,) if signals == 1 else (130, 143))
    assert ("Stopping now" in stopped.stderr) == (signals == 2)
    report = status_of(lib_root)
    assert report["run"]["status"] == "interrupted"
    assert 0 < report["totals"]["exported"] < 200
    assert len(exported(lib_root)) == report["totals"]["exported"]
    assert not list(lib_root.rglob(".skicyclerun-staging"))
