"""One run at a time in a lib_root: a lock that the kernel holds and releases, also when the process is killed.

Who holds it is written beside the lock, in `run.holder.json`, for people to read; nothing is ever decided by that file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from skicyclerun.errors import DiskFull, LockHeld, NotWritable, StorageError

if TYPE_CHECKING:
    from filelock import UnixFileLock

# `current_holder` takes a shared lock for some microseconds; a run that starts just then must not be turned away.
_PATIENCE_SECONDS: Final = 0.25
_MAX_HOLDER_BYTES: Final = 4096
_UNKNOWN: Final = "a process that has not said which one it is"


class RunLock:
    """The lock of a lib_root, a context manager. Not reentrant; may be entered and left in different threads."""

    def __init__(self, lib_root: Path, lock_file: Path) -> None:
        """`lock_file` lies in `lib_root` and stays there when the lock is released; its folder is made if need be."""
        self._lib_root = lib_root
        self._lock_file = lock_file
        self._lock: UnixFileLock | None = None

    def acquire(self) -> None:
        """Take the lock. Raises LockHeld at once where another has it, NotWritable, or StorageError.

        A file system without kernel locks is refused: a lock that outlives a killed process would be worse than none.
        """
        from filelock import Timeout, UnixFileLock  # not for those who only look who holds it

        if self._lock is not None:
            raise LockHeld(self._lib_root, "this very process")
        self._make_folder()
        lock = UnixFileLock(self._lock_file, timeout=_PATIENCE_SECONDS, thread_local=False, poll_interval=0.02)
        try:
            lock.acquire()
        except Timeout:
            raise LockHeld(self._lib_root, holder_in_words(self._lock_file)) from None
        except OSError as error:
            raise self._refusal(error, f"{self._lock_file} cannot be locked") from error
        if type(lock) is not UnixFileLock:  # filelock changes the class where the file system has no flock
            lock.release()
            raise StorageError(
                f"The file system of {self._lib_root} has no locks, so two runs could not be kept apart. "
                "Nothing was touched.",
                next_step="Name a folder on another disk with --lib-root.",
            )
        self._lock = lock
        _write_holder(_holder_file(self._lock_file))

    def _make_folder(self) -> None:
        folder = self._lock_file.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # The folder that mkdir stumbled over, which may be any of those above.
            raise self._refusal(error, f"The folder {error.filename or folder} cannot be made") from error

    def _refusal(self, error: OSError, what: str) -> StorageError:
        reason = error.strerror or str(error)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return NotWritable(
                f"{self._lib_root} cannot be written: {reason} ({error.filename or self._lock_file}). "
                "Nothing was touched.",
                next_step="Name a folder you may write with --lib-root or SKICYCLERUN_LIB_ROOT.",
            )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(f"The disk of {self._lib_root} is full: {what}. Nothing was touched.")
        return StorageError(f"{what}: {reason}. Nothing was touched.")

    def release(self) -> None:
        """Give the lock back. Safe to call twice."""
        if self._lock is None:
            return
        try:
            _holder_file(self._lock_file).unlink(missing_ok=True)
        except OSError:
            pass  # a stale one does no harm
        self._lock.release()
        self._lock = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def current_holder(lock_file: Path) -> str | None:
    """Who works in the lib_root now, in words; None where nobody does. Makes and changes nothing on the disk.

    Where the lock file may not be read nobody can be seen, and the answer is None too.
    """
    try:
        descriptor = os.open(lock_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
            return holder_in_words(lock_file)
        return None
    finally:
        os.close(descriptor)  # releases the shared lock too
    return None


def holder_in_words(lock_file: Path) -> str:
    """What the holder wrote about itself, made safe for a terminal; believed only as far as it can be true."""
    try:
        descriptor = os.open(_holder_file(lock_file), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            holder = json.loads(stream.read(_MAX_HOLDER_BYTES))
        pid, host = int(holder["pid"]), str(holder["host"])
        since, command = str(holder["since"]), str(holder["command"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return _UNKNOWN
    if host == platform.node() and not _is_alive(pid):
        return _UNKNOWN
    if since.endswith("Z"):
        since = f"{since[:19].replace('T', ' ')} UTC"
    words = f"process {pid} on {host}, since {since} ({command})"
    return "".join(character if character.isprintable() else "?" for character in words)


def _holder_file(lock_file: Path) -> Path:
    return lock_file.with_name(f"{lock_file.stem}.holder.json")


def _write_holder(path: Path) -> None:
    """For people only, so it need not be durable, and a disk that is full does not stop the run here."""
    holder = {
        "pid": os.getpid(),
        "host": platform.node(),
        "command": shlex.join(sys.argv)[:500],
        "since": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8", errors="replace") as stream:
            json.dump(holder, stream)
        os.replace(temporary, path)
    except OSError:
        return


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
