"""Running the program as a person would, in this process or in one of its own, and making small libraries for it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
from PIL import Image

from skicyclerun.actors.messages import Intent
from skicyclerun.cli import run_command_line
from skicyclerun.models import Album, Fetched, Photo
from skicyclerun.progress.events import ProgressEvent, Renderer
from skicyclerun.progress.plain_text import PlainText
from skicyclerun.run.plan import RunRequest
from skicyclerun.run.session import RunOutcome, RunSession
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import Settings
from skicyclerun.sources.folder_tree import FolderTree

#: How long a subprocess may take at the very most; seconds.
PATIENCE: Final = 60
#: Typed where a test means that old outputs are archived and their folders emptied.
YES: Final = ("--yes",)


# ── as a command ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Ended:
    """How a command ended. What went wrong is a sentence, whatever it was: a traceback fails every test."""

    code: int
    stdout: str
    stderr: str

    def __post_init__(self) -> None:
        for text in (self.stdout, self.stderr):
            assert "Traceback" not in text, text
            assert "fault in skicyclerun itself" not in text, text

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON, line by line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def skicyclerun(*arguments: str | Path) -> Ended:
    """Run a command in this process, with nobody at a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command_line([str(argument) for argument in arguments])
    return Ended(code, out.getvalue(), err.getvalue())


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a subprocess: nothing of ours but `extra`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SKICYCLERUN_")}
    return kept | {"PYTHONWARNINGS": "error", "TERM": "xterm-256color", "COLUMNS": "200"} | dict(extra or {})


def start(*arguments: str | Path, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the program in a process of its own, away from any terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "skicyclerun", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(extra),
        cwd=Path(__file__).resolve().parents[1],
    )


def ended(process: subprocess.Popen[str], read_before: str = "") -> Ended:
    """Wait for a started program; `read_before` is what was taken from its stderr already."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Ended(process.returncode, out, read_before + err)


def skicyclerun_process(*arguments: str | Path, extra: Mapping[str, str] | None = None) -> Ended:
    """Run a command in a process of its own."""
    return ended(start(*arguments, extra=extra))


class Terminal:
    """The program with a terminal of its own as stdin, stdout and stderr; by default one that does not say its size."""

    def __init__(self, *arguments: str | Path, extra: Mapping[str, str] | None = None, columns: int = 0) -> None:
        self._master, slave = pty.openpty()
        if columns:
            termios.tcsetwinsize(slave, (24, columns))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "skicyclerun", *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(extra),
            cwd=Path(__file__).resolve().parents[1],
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def read_until(self, wanted: str) -> None:
        """Read until `wanted` was shown; fails when the program ends before."""
        while wanted not in self.shown:
            assert self._read_more(), f"ended without showing {wanted!r}: {self.shown}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press_ctrl_c(self) -> Ended:
        """Interrupt the program until it hears of it; how it ended.

        A signal in the instant before Python waits for a key is heard of only with the next one.
        """
        while True:
            self.process.send_signal(signal.SIGINT)
            ready, _, _ = select.select([self._master], [], [], 5)
            if ready:
                return self.read_to_the_end()

    def read_to_the_end(self) -> Ended:
        """Everything shown, as `stdout`, once the program has ended."""
        while self._read_more():
            pass
        return Ended(self.process.wait(PATIENCE), self.shown.replace("\r\n", "\n"), "")

    def _read_more(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        assert ready, f"hangs, having shown: {self.shown}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.shown += data.decode("utf-8", "replace")
        return bool(data)


# ── libraries ─────────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def picture(name: str, size: tuple[int, int] = (16, 12)) -> bytes:
    """A picture whose format is its name's extension; another name is another picture."""
    shade = zlib.crc32(name.encode("utf-8", "surrogateescape"))
    image = Image.new("RGB", size, (shade & 0xFF, shade >> 8 & 0xFF, shade >> 16 & 0xFF))
    suffix = name.rpartition(".")[2].lower()
    stream = io.BytesIO()
    if suffix == "heic":
        import pillow_heif

        pillow_heif.from_pillow(image).save(stream, format="HEIF")
    else:
        image.save(stream, format={"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[suffix])
    return stream.getvalue()


def make_library(root: Path, albums: Mapping[str, Sequence[str]]) -> Path:
    """A folder of albums, each with pictures of these names; returns it."""
    root.mkdir()
    for album, names in albums.items():
        (root / album).mkdir(parents=True)
        for name in names:
            (root / album / name).write_bytes(picture(name))
    return root


@functools.cache
def slow_picture() -> bytes:
    """A PNG that takes some tenths of a second to convert, so that a run can be met in its middle."""
    image = Image.effect_noise((1600, 1200), 60.0).convert("RGB")
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def make_slow_library(root: Path, albums: int = 2, photos: int = 100) -> Path:
    """A folder of albums whose export takes many seconds."""
    for album in range(1, albums + 1):
        folder = root / f"Slow {album}"
        folder.mkdir(parents=True)
        first = folder / "IMG_0001.png"
        first.write_bytes(slow_picture())
        for number in range(2, photos + 1):
            os.link(first, folder / f"IMG_{number:04}.png")
    return root


# ── what lies on the disk ─────────────────────────────────────────────────────────────────────────────────────────


def exported(lib_root: Path) -> dict[str, bytes]:
    """Every file in the export folder, by its path in there."""
    folder = lib_root / "pipeline" / "albums"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def inodes(lib_root: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every exported file: a file written anew has another inode."""
    folder = lib_root / "pipeline" / "albums"
    found = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def status_of(lib_root: Path, *options: str) -> Any:
    """`status --json`."""
    return skicyclerun("status", "--json", "--lib-root", lib_root, *options).json


def album_of(report: Any, title: str) -> Any:
    """The album of that title in a report."""
    (album,) = [album for album in report["albums"] if album["title"] == title]
    return album


def write_config(folder: Path, **sections: object) -> Path:
    """A configuration file with these sections; returns it."""
    path = folder / "config.json"
    path.write_text(json.dumps(sections), encoding="utf-8")
    return path


# ── in this process, with a source that does as it is told ────────────────────────────────────────────────────────


class ToldSource(FolderTree):
    """A folder of albums whose every fetch goes by `before` first, which may wait, or raise a PhotoError."""

    def __init__(self, root: Path, before: Callable[[Photo], Any], *, parallel: bool = False) -> None:
        super().__init__(root)
        self._before = before
        self.parallel = parallel
        self.fetched: list[str] = []

    locate = None  # type: ignore[assignment]  # each is waited for, one by one

    async def albums(self) -> list[Album]:
        return await super().albums()

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        self.fetched.append(photo.original_filename)
        await self._before(photo)
        return await super().fetch(photo, attempt_directory)


class Watching:
    """A renderer that keeps the events."""

    def __init__(self) -> None:
        self.events: list[ProgressEvent] = []

    def handle(self, event: ProgressEvent) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def settings_for(lib_root: Path, library: Path, overrides: Mapping[str, object] | None = None) -> Settings:
    """The shipped configuration with these changes; every photo is a group of its own, settled at once."""
    given: dict[str, object] = {"export.library": str(library), "export.source": "folder", "export.group_photos": 1}
    return load_settings(None, lib_root=lib_root, overrides=given | dict(overrides or {}))


def run_with(
    source: ToldSource,
    lib_root: Path,
    intent: Intent = Intent.FRESH,
    *,
    overrides: Mapping[str, object] | None = None,
    renderer: Renderer | None = None,
) -> RunOutcome:
    """A run, in this process, from that source; somebody has said yes to what it empties."""
    settings = settings_for(lib_root, Path(source.location), overrides)

    def make(kind: str, library: Path | None, settings: Settings, options: ExportOptions) -> ToldSource:
        return source

    session = RunSession(
        RunRequest(intent, settings, may_empty=True),
        renderer=renderer or PlainText(io.StringIO(), quiet=True),
        make=make,
    )
    return anyio.run(session.carry_out)


def wait_for(process: subprocess.Popen[str], beginning: str) -> str:
    """Read a program's stderr up to the first line with that beginning; what was read."""
    assert process.stderr is not None
    read = ""
    deadline = time.monotonic() + PATIENCE
    for line in process.stderr:
        read += line
        if line.startswith(beginning):
            return read
        assert time.monotonic() < deadline, read
    raise AssertionError(f"ended without {beginning!r}: {read}")
