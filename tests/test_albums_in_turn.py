"""The next album is planned and begun during the last photos of one; what is told and committed stays in order."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from skicyclerun.actors.messages import Intent
from skicyclerun.models import Fetched, Photo
from skicyclerun.progress.events import AlbumFinished, AlbumStarted, PhotoFinished
from skicyclerun.run.plan import RunRequest
from skicyclerun.run.session import RunSession
from skicyclerun.sources.folder_tree import FolderTree
from skicyclerun.state import albums
from tests.command_line import Watching, settings_for, skicyclerun

WAIT_SECONDS = 60.0
NAMES = ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg", "Coast/d.jpg", "Lake/e.jpg"]


def make_library(library: Path) -> None:
    for number, name in enumerate(NAMES):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (40 * number, 90, 10)).save(library / name)


class Held(FolderTree):
    """Hands over the last photo of the first album when the second has been begun, and not before."""

    second_begun = threading.Event()

    def locate(self, photo: Photo) -> Fetched:
        if photo.original_filename == "b.jpg":
            assert self.second_begun.wait(WAIT_SECONDS), "the second album was not begun meanwhile"
        return super().locate(photo)


def export(library: Path, lib_root: Path, renderer: Watching) -> None:
    request = RunRequest(Intent.FRESH, settings_for(lib_root, library), stages=("export",))
    session = RunSession(request, renderer=renderer, make=lambda *_: Held(library))
    report = anyio.run(session.carry_out).report
    assert report is not None
    assert report.accounted_for


def statuses(lib_root: Path) -> list[str]:
    with closing(sqlite3.connect(lib_root / "state" / "skicyclerun.sqlite3")) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM albums ORDER BY position")]


def on_start(monkeypatch: pytest.MonkeyPatch, then: Any) -> None:
    """`then` is called each time an album has been begun."""
    start = albums.start

    async def started(*arguments: Any) -> Any:
        row = await start(*arguments)
        then(row)
        return row

    monkeypatch.setattr(albums, "start", started)


def test_the_second_album_is_begun_before_the_first_has_ended_and_told_of_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_library(tmp_path / "library")
    lib_root = tmp_path / "root"
    seen: list[list[str]] = []

    def then(row: albums.AlbumRow) -> None:
        seen.append(statuses(lib_root))
        if row.position == 2:
            Held.second_begun.set()

    on_start(monkeypatch, then)
    Held.second_begun.clear()
    renderer = Watching()
    export(tmp_path / "library", lib_root, renderer)
    assert seen[1] == ["exporting", "exporting", "pending"]
    assert statuses(lib_root) == ["done", "done", "done"]
    told = []
    for event in renderer.events:
        match event:
            case AlbumStarted(number=number) | AlbumFinished(number=number):
                told.append((type(event).__name__, number))
            case PhotoFinished(album_number=number):
                told.append(("photo", number))
            case _:
                pass
    assert told == [
        *(("AlbumStarted", 1), ("photo", 1), ("photo", 1), ("AlbumFinished", 1)),
        *(("AlbumStarted", 2), ("photo", 2), ("photo", 2), ("AlbumFinished", 2)),
        *(("AlbumStarted", 3), ("photo", 3), ("AlbumFinished", 3)),
    ]


def killed(library: Path, lib_root: Path) -> None:
    """In a process of its own: be killed when two albums have been begun and neither has ended."""

    def then(row: albums.AlbumRow) -> None:
        if row.position == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patching:
        on_start(patching, then)
        export(library, lib_root, Watching())


def test_a_run_killed_while_two_albums_are_begun_and_resumed_ends_like_one_never_killed(tmp_path: Path) -> None:
    library, lib_root = tmp_path / "library", tmp_path / "killed"
    make_library(library)
    script = "import sys; from pathlib import Path; from tests import test_albums_in_turn as here"
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"{script}; here.killed(*map(Path, sys.argv[1:]))",
            str(library),
            str(lib_root),
        ],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_SECONDS,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert statuses(lib_root) == ["exporting", "exporting", "pending"]
    assert skicyclerun("run", "--resume", "--lib-root", str(lib_root)).code == 0
    undisturbed = tmp_path / "undisturbed"
    arguments = ("run", "--library", str(library), "--stages", "export", "--lib-root", str(undisturbed))
    assert skicyclerun(*arguments).code == 0
    assert statuses(lib_root) == statuses(undisturbed) == ["done", "done", "done"]
    assert tree(lib_root / "pipeline" / "albums") == tree(undisturbed / "pipeline" / "albums")
    assert sorted(name for name in tree(lib_root / "pipeline" / "albums") if name.endswith(".jpg")) == NAMES


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
