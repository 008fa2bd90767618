from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skicyclerun.errors import LockHeld, NotWritable, StorageError
from skicyclerun.run.lock import RunLock, current_holder

CHECKOUT = Path(__file__).resolve().parents[1]

_HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from skicyclerun.run.lock import RunLock
with RunLock(Path(sys.argv[2]), Path(sys.argv[3])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "run.lock"


def holder_file(lock_file: Path) -> Path:
    return lock_file.with_name("run.holder.json")


@contextmanager
def held_by_another_process(lock_file: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(CHECKOUT), str(lock_file.parent.parent), str(lock_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_run_is_turned_away_and_told_who_holds_the_lock(lock_file: Path) -> None:
    with held_by_another_process(lock_file) as process:
        with pytest.raises(LockHeld) as caught:
            RunLock(lock_file.parent.parent, lock_file).acquire()

        assert f"process {process.pid} on " in str(caught.value)
        assert str(lock_file.parent.parent) in str(caught.value)
        assert current_holder(lock_file) == caught.value.holder


def test_a_killed_run_holds_nothing_and_its_trace_does_no_harm(lock_file: Path) -> None:
    with held_by_another_process(lock_file) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert holder_file(lock_file).exists(), "a killed process cannot tidy up"

    assert current_holder(lock_file) is None
    with RunLock(lock_file.parent.parent, lock_file):
        assert json.loads(holder_file(lock_file).read_text())["pid"] == os.getpid()
    assert not holder_file(lock_file).exists()


def test_the_lock_can_be_taken_again_and_excludes_within_one_process(tmp_path: Path, lock_file: Path) -> None:
    first, second = RunLock(tmp_path, lock_file), RunLock(tmp_path, lock_file)
    for _ in range(2):
        with first:
            for other in (first, second):
                with pytest.raises(LockHeld):
                    other.acquire()
        with second:
            pass
    second.release()


def test_the_lock_may_be_given_back_in_another_thread(tmp_path: Path, lock_file: Path) -> None:
    lock = RunLock(tmp_path, lock_file)
    for step in (lock.acquire, lock.release):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()

    with RunLock(tmp_path, lock_file):
        pass


def test_a_failing_run_gives_the_lock_back(tmp_path: Path, lock_file: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path, lock_file):
        raise ZeroDivisionError

    assert current_holder(lock_file) is None


def test_asking_who_holds_the_lock_makes_nothing(tmp_path: Path, lock_file: Path) -> None:
    assert current_holder(lock_file) is None
    assert os.listdir(tmp_path) == []

    lock_file.parent.mkdir()
    lock_file.write_text("not ours to truncate")
    before = lock_file.stat()
    assert current_holder(lock_file) is None
    assert (lock_file.stat().st_mtime_ns, lock_file.read_text()) == (before.st_mtime_ns, "not ours to truncate")
    assert os.listdir(lock_file.parent) == ["run.lock"]


def test_asking_does_not_take_the_lock_away_from_a_run_that_starts(tmp_path: Path, lock_file: Path) -> None:
    with RunLock(tmp_path, lock_file):
        pass
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            current_holder(lock_file)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(50):
            with RunLock(tmp_path, lock_file):
                pass
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "trace",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"pid": "x"}',
        b'{"pid": 1e999, "host": "", "since": "", "command": ""}',
        b'{"pid": 99999999999999999999, "host": "%b", "since": "", "command": ""}' % os.uname().nodename.encode(),
        b"[" * 4000,
    ],
)
def test_a_trace_that_says_nothing_sensible_is_only_less_telling(tmp_path: Path, lock_file: Path, trace: bytes) -> None:
    with RunLock(tmp_path, lock_file):
        holder_file(lock_file).write_bytes(trace)

        assert current_holder(lock_file) == "a process that has not said which one it is"


def test_what_the_holder_says_cannot_act_on_the_terminal(tmp_path: Path, lock_file: Path) -> None:
    with RunLock(tmp_path, lock_file):
        trace = {"pid": os.getpid(), "host": "h\x1b[2J", "since": "\n", "command": "\u202erun"}
        holder_file(lock_file).write_text(json.dumps(trace))

        assert current_holder(lock_file) == f"process {os.getpid()} on h?[2J, since ? (?run)"


def test_a_holder_that_cannot_leave_its_trace_still_holds_the_lock(tmp_path: Path, lock_file: Path) -> None:
    holder_file(lock_file).mkdir(parents=True)

    with RunLock(tmp_path, lock_file), pytest.raises(LockHeld):
        RunLock(tmp_path, lock_file).acquire()


def test_the_lock_file_is_not_truncated_and_not_removed(tmp_path: Path, lock_file: Path) -> None:
    lock_file.parent.mkdir()
    lock_file.write_text("kept")

    with RunLock(tmp_path, lock_file):
        pass

    assert lock_file.read_text() == "kept"


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path, lock_file: Path) -> None:
    lock_file.parent.mkdir()
    lock_file.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StorageError, match=r"run\.lock"):
        RunLock(tmp_path, lock_file).acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path, lock_file: Path) -> None:
    lock_file.parent.write_text("")

    with pytest.raises(StorageError, match="state"):
        RunLock(tmp_path, lock_file).acquire()


def test_a_lib_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("/nowhere/at-all")
    for lib_root, named in ((Path("/proc/skicyclerun"), "/proc/skicyclerun"), (tmp_path / "gone" / "x", "gone")):
        if not Path("/proc/self").exists() and lib_root.parts[1] == "proc":
            continue
        with pytest.raises(StorageError, match=rf"^The folder .*{named}.* cannot be made"):
            RunLock(lib_root, lib_root / "state" / "run.lock").acquire()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_lib_root_that_may_not_be_written_is_named(tmp_path: Path, lock_file: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotWritable, match=str(tmp_path)):
        RunLock(tmp_path, lock_file).acquire()
