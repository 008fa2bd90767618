"""Runs the program in processes of its own without importing it each time: a server that forks for every run.

A crash campaign starts a hundred processes, and each would spend most of its time on imports. The server has no
threads, and a forked child is a process like any other: SIGKILL ends it, its files and locks are its own.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class ForkServer:
    """The side of the tests."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def run(
        self,
        *arguments: str | Path,
        fault: str = "",
        kill_after: float = 0.0,
        disk: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """(return code, negative for a signal; all that it printed), killed at a fault point or after seconds.

        `environ` is set in its environment. `disk` is for a server that was started with `preload`: {"root", "record"}
        writes down what is asked of the disk below `root`; {"root", "fail", "errno", "on"} fails a call
        (`disk_calls.c`). Afterwards `calls` has their number and the one that failed.
        """
        self.begin(*arguments, fault=fault, kill_after=kill_after, disk=disk, environ=environ)
        return self.ended()

    def begin(
        self,
        *arguments: str | Path,
        fault: str = "",
        kill_after: float = 0.0,
        disk: Mapping[str, object] | None = None,
        hold: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start what `run` runs, and do not wait; `ended` does.

        `hold` is where it waits until `let_go`: a fault point, `lock` (it has just taken the lock of its lib_root), or
        `open` (it has opened the database to read it). `wait_until_held` says when it is there.
        """
        if hold:
            for name in ("held", "go"):
                (self._folder / name).unlink(missing_ok=True)
                os.mkfifo(self._folder / name)
        shown = self._folder / "shown.txt"
        question = {
            "arguments": [str(argument) for argument in arguments],
            "fault": fault,
            "kill_after": kill_after,
            "shown": str(shown),
            "disk": dict(disk or {}),
            "calls": str(self._folder / "calls.json"),
            "hold": hold,
            "environ": dict(environ or {}),
            "folder": str(self._folder),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def wait_until_held(self) -> None:
        """Fails where the program ends without coming to the place where it should wait."""
        assert self._process.stdout is not None
        held = os.open(self._folder / "held", os.O_RDONLY | os.O_NONBLOCK)
        try:
            ready, _, _ = select.select([held, self._process.stdout.fileno()], [], [], 60)
            assert ready == [held], "it came to its end, or nowhere: " + self._shown()
        finally:
            os.close(held)

    def let_go(self) -> None:
        """Let what is held go on; nothing happens where it has ended, or never came to that place."""
        try:
            go = os.open(self._folder / "go", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads there
            return
        os.write(go, b"go")
        os.close(go)

    def ended(self) -> tuple[int, str]:
        """Wait for what was begun; as `run`."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline()), self._shown()

    def _shown(self) -> str:
        return (self._folder / "shown.txt").read_text(encoding="utf-8", errors="replace")

    def calls(self) -> tuple[int, str]:
        """How many calls the last run with `disk` asked of the disk, and which one failed ("fsync /path")."""
        count, failed = json.loads((self._folder / "calls.json").read_text())
        return count, failed


@contextmanager
def fork_server(
    folder: Path, preload: Path | None = None, imports: Sequence[str] = (), *, warnings: str = "error"
) -> Iterator[ForkServer]:
    """One that works in `folder`, with these modules imported besides; it ends with its standard input.

    `warnings` is its PYTHONWARNINGS: those of foreign libraries are their own.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SKICYCLERUN_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", *imports],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=kept
        | {"PYTHONWARNINGS": warnings, "PYTHONHASHSEED": "0"}
        | ({"LD_PRELOAD": str(preload)} if preload else {}),
        cwd=Path(__file__).resolve().parents[1],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        yield ForkServer(process, folder)
        process.stdin.close()
        process.wait(30)


def serve() -> None:
    """The other side: a line is a run, its answer the return code."""
    import_what_runs_import()
    gc.freeze()  # what was imported is no garbage; looking at it would copy its pages in each child
    for line in sys.stdin:
        question = json.loads(line)
        pid = os.fork()
        if pid == 0:
            be_the_program(question)
        sys.stdout.write(f"{ended(pid, question['kill_after'])}\n")
        sys.stdout.flush()


def import_what_runs_import() -> None:
    """All that is imported late otherwise, by a process that runs one."""
    import importlib

    for name in (
        "skicyclerun.cli",
        "skicyclerun.commands.run",
        "skicyclerun.commands.status",
        "skicyclerun.commands.offer_folders",
        "skicyclerun.run.session",
        "skicyclerun.progress.choose",
        "skicyclerun.progress.plain_text",
        "filelock",
        "transitions",
        "skicyclerun.images.render",
        "skicyclerun.images.scale",
        "skicyclerun.images.watermark",
        "skicyclerun.images.fonts",
        "skicyclerun.images.text_runs",
        "skicyclerun.images.picture_facts",
        "skicyclerun.places.locator",
        "skicyclerun.places.offline",
        "ollama",
        "skicyclerun.catalog.master_json",
        "skicyclerun.sources.folder_tree",
        "anyio._backends._asyncio",
        "anyio._core._fileio",
        "anyio._core._signals",
        "exiv2",
        "PIL.BmpImagePlugin",
        "PIL.GifImagePlugin",
        "PIL.JpegImagePlugin",
        "PIL.PngImagePlugin",
        "PIL.PpmImagePlugin",
        "PIL.WebPImagePlugin",
        "zipfile",
        *sys.argv[1:],
    ):
        importlib.import_module(name)


def be_the_program(question: dict[str, Any]) -> None:
    """In the child; does not return."""
    from skicyclerun.cli import run_command_line
    from skicyclerun.files import fault_points

    shown = os.open(question["shown"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, where in ((0, nothing), (1, shown), (2, shown)):
        os.dup2(where, descriptor)
    os.environ.update(question["environ"])
    fault_points._KILL = question["fault"]
    if question["hold"]:
        hold_at(question["hold"], Path(question["folder"]))
    code = 70
    calls = watch_the_disk(question["disk"])
    try:
        code = run_command_line(question["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
        if calls is not None:
            Path(question["calls"]).write_text(json.dumps(calls()))
    finally:
        os._exit(code)


def hold_at(place: str, folder: Path) -> None:
    """Wait there, once, until somebody writes into the pipe `go`."""
    from skicyclerun.files import fault_points
    from skicyclerun.run.lock import RunLock
    from skicyclerun.state.reading import StateFile
    from skicyclerun.state.store import Store

    waited: list[bool] = []

    def wait() -> None:
        if waited:
            return
        waited.append(True)
        go = os.open(folder / "go", os.O_RDONLY | os.O_NONBLOCK)  # before anybody can write there
        (folder / "held").write_bytes(b"held")
        select.select([go], [], [])
        os.close(go)

    def acquire(lock: RunLock) -> None:
        take_lock(lock)
        wait()

    async def open_to_read(path: Path) -> Store:
        store = await open_as_ever(path)
        wait()
        return store

    def opened(path: Path) -> StateFile | None:
        state = opened_as_ever(path)
        if state is not None:
            wait()
        return state

    take_lock, open_as_ever, opened_as_ever = RunLock.acquire, Store.open_to_read, StateFile.opened
    if place == "lock":
        RunLock.acquire = acquire  # type: ignore[method-assign, assignment]
    elif place == "open":
        Store.open_to_read = staticmethod(open_to_read)  # type: ignore[method-assign]
        StateFile.opened = staticmethod(opened)  # type: ignore[method-assign]
    else:
        # The armed fault point waits in the place of dying.
        fault_points._KILL = place
        vars(fault_points)["os"] = SimpleNamespace(kill=lambda *_: wait(), getpid=os.getpid)


def watch_the_disk(how: dict[str, Any]) -> Callable[[], tuple[int, str]] | None:
    """Switch on what was preloaded; what tells the number of calls and the one that failed."""
    if not how:
        return None
    preloaded = ctypes.CDLL(None)
    preloaded.disk_calls_failed.restype = ctypes.c_char_p
    preloaded.disk_calls_count.restype = ctypes.c_long
    root = os.fsencode(how["root"])
    if "record" in how:
        preloaded.disk_calls_record(root, os.fsencode(how["record"]))
    else:
        preloaded.disk_calls_fail(root, ctypes.c_long(how["fail"]), how["errno"], how["on"])
    return lambda: (preloaded.disk_calls_count(), os.fsdecode(preloaded.disk_calls_failed()))


def ended(pid: int, kill_after: float) -> int:
    """The child's return code; it is killed after so many seconds, if they are not 0."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, kill_after)
    # Not reaped yet, so that its number is nobody else's when the time is up.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    serve()
