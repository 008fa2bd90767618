"""A plugin for pytest (`-p tests.folders_in_memory`): the folders that tests make lie in memory where there is room.

Tests write and sync tens of thousands of small files, and on a disk wait for it a good part of their time. What they
prove does not depend on the disk: a killed process leaves the same in memory, and of power cuts the disk's part is
recorded and played (tests/disk_calls.py). Where there is no such room, or TMPDIR names a place, nothing is changed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final, TextIO

import pytest

MEMORY: Final = Path("/dev/shm")
#: Gigabytes that have to be free. The suite has less than one at a time: what has passed is removed at once.
ROOM: Final = 2
#: Gigabytes of the machine's memory that have to be free, those for the folders among them.
FREE_MEMORY: Final = 6
_PREFIX: Final = "skicyclerun-tests-"
_LOCK: Final = "in use"
"""A file that the session holds a lock on; the kernel takes that back whatever ends the session."""
_HELD = pytest.StashKey[tuple[Path, TextIO]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ or "TMPDIR" in os.environ or not there_is_room():
        return
    remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=MEMORY))
    folder.chmod(0o1777)  # as temporary folders are: some tests work as nobody
    lock = open(folder / "lock", "w", encoding="ascii")
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.rename(lock.name, folder / _LOCK)  # there from the moment that it is held
    config.stash[_HELD] = folder, lock
    # For pytest's own folders, for tests that ask for others, and for the processes of both.
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if _HELD in config.stash:
        folder, lock = config.stash[_HELD]
        del os.environ["TMPDIR"]
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def there_is_room() -> bool:
    """So much that a machine, or the container that this is, does not come near its end."""
    if sys.platform != "linux" or not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(MEMORY)
    return found.f_bavail * found.f_frsize >= ROOM << 30 and free_memory() >= FREE_MEMORY << 30


def free_memory() -> int:
    """Bytes, by the machine and by the control group (https://docs.kernel.org/admin-guide/cgroup-v2.html, and v1)."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        (available,) = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = Path(limit).read_text(), Path(used).read_text()
        except OSError:
            continue
        if most.strip() != "max":
            available = min(available, int(most) - int(now))
    return available


def remove_leftovers() -> None:
    """Of sessions that were killed: memory is not cleared like a disk's temporary folder."""
    for file in MEMORY.glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            if file.parent.lstat().st_uid != os.getuid():
                continue
            with open(file, encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(file.parent, ignore_errors=True)
        except OSError:  # held
            continue
