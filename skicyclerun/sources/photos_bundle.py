"""The files of a `.photoslibrary`: whether they are one that can be read, and a copy of the database among them.

Photos 5 (macOS 10.15) and later keep it in `database/Photos.sqlite`, Photos 3 and 4 (10.13, 10.14) in
`database/photos.db`; newer libraries have a `photos.db` too, which only names their version.

Opening it where it lies would write: it is a WAL database, and SQLite makes or changes its `-shm` even
for a read-only connection (https://sqlite.org/wal.html#read_only_databases). So the database and its WAL are copied;
the `-shm` is left behind, SQLite builds a new one. Photos may be open meanwhile: a copy that a checkpoint ran into is
taken again. Where the file system can, the copy is a clone. When no copy is needed: `photos_snapshot`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

from skicyclerun.errors import LibraryError
from skicyclerun.files.clone import clone_file
from skicyclerun.wording import bytes_in_words

_FULL_DISK_ACCESS: Final = (
    "Allow your terminal under System Settings → Privacy & Security → Full Disk Access, then open a new one."
)
_CHECK_PERMISSIONS: Final = "Check the permissions of the library and of the folders above it."

_COPY_PREFIX: Final = "skicyclerun-photos-"
_COPY_LOCK: Final = "in-use"
_COPY_ATTEMPTS: Final = 6
_BLOCK: Final = 8 << 20
_WAL_HEADER: Final = 32
DATABASE_NAMES: Final = ("Photos.sqlite", "photos.db")
"""Of the database; where there are both, the first is the one in use."""


class CopyFolder:
    """A new temporary folder for the copy of a database; `remove` takes it away.

    A process that is killed cannot do that, and the copy of a large library takes gigabytes. So each folder holds a
    file that is locked as long as its process lives, and whoever makes the next one removes those that nobody holds.
    """

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        for left in parent.glob(f"{_COPY_PREFIX}*"):
            _remove_if_abandoned(left)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_COPY_PREFIX))
            lock = os.open(self.path / _COPY_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held = False
            else:
                # Another process may have taken it for abandoned before it was locked.
                held = os.path.lexists(self.path / _COPY_LOCK)
            if held:
                break
            os.close(lock)
        self._finalizer = weakref.finalize(self, _remove_locked, self.path, lock)

    def remove(self) -> None:
        """Safe to call twice; happens by itself when the process ends."""
        self._finalizer()


def _remove_locked(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _remove_if_abandoned(folder: Path) -> None:
    try:
        status = folder.lstat()
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
            return
        lock = os.open(folder / _COPY_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # gone, just being made, or none of ours
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # held: its process lives
    finally:
        os.close(lock)


def check_is_library(library: Path) -> Path:
    """The database of a library, or what is wrong with a path that is none that can be read.

    Raises LibraryError.
    """
    try:
        status = library.stat()
    except FileNotFoundError:
        raise LibraryError(
            library, "there is no such library", next_step="Check --library, or `export.library`."
        ) from None
    except OSError as error:
        raise unreadable(library, error) from error
    if library.name in DATABASE_NAMES and library.parent.name == "database":
        bundle = library.parent.parent
        raise LibraryError(
            library, "that is the database inside a library", next_step=f"Name the library itself: --library {bundle}"
        )
    if not stat.S_ISDIR(status.st_mode):
        raise LibraryError(library, "that is a file; a Photos library is a folder whose name ends in .photoslibrary")
    try:
        names = {entry.name for entry in os.scandir(library)}
        inside = {entry.name for entry in os.scandir(library / "database")} if "database" in names else set()
        # iPhoto and Aperture libraries have their own database, in some cases beside a photos.db of an early Photos.
        foreign = "Library.apdb" in inside or library.suffix == ".aplibrary" or "AlbumData.xml" in names
        name = next((name for name in DATABASE_NAMES if name in inside), None)
        if name == "Photos.sqlite" or (name is not None and not foreign):
            with open(library / "database" / name, "rb"):
                pass
            if originals := {"originals", "Masters"} & names:
                with os.scandir(library / min(originals)):
                    pass
            return library / "database" / name
    except OSError as error:
        raise unreadable(library, error) from error
    if foreign:
        raise LibraryError(
            library,
            "an iPhoto or Aperture library, which cannot be read here",
            next_step="Open it once in Photos, which makes a Photos library of it, then name that one.",
        )
    raise LibraryError(
        library,
        "that is no Photos library: it has no database/Photos.sqlite",
        next_step="Name a folder that ends in .photoslibrary, or use --source folder for a plain tree of photos.",
    )


def unreadable(library: Path, error: OSError) -> LibraryError:
    """The LibraryError for a library that the system does not let us read."""
    if error.errno in (errno.EACCES, errno.EPERM):
        next_step = _FULL_DISK_ACCESS if sys.platform == "darwin" else _CHECK_PERMISSIONS
        return LibraryError(library, f"it cannot be read ({error.strerror})", next_step=next_step)
    return LibraryError(library, f"it cannot be read ({error.strerror or error})")


def damaged(library: Path, error: sqlite3.Error) -> LibraryError:
    """The LibraryError for a database that SQLite cannot read."""
    return LibraryError(
        library,
        f"its database is damaged ({error})",
        next_step="Photos can repair it: hold Option and Command while opening Photos.",
    )


def copy_database(library: Path, source: Path, directory: Path, check: Callable[..., None]) -> Path:
    """Copy a library's database (`check_is_library`) and its WAL as of one moment. Raises LibraryError."""
    wal = source.with_name(f"{source.name}-wal")
    target = directory / source.name
    try:
        for attempt in range(_COPY_ATTEMPTS):
            if attempt:
                time.sleep(0.1 * 2**attempt)
            before = _moment(source, wal)
            _copy(source, target, check)
            target_wal = directory / wal.name
            target_wal.unlink(missing_ok=True)
            if wal.exists():
                _copy(wal, target_wal, check)
            # The database file changes only when a checkpoint moves pages into it out of the WAL, and a WAL that
            # starts over gets a new header. With both unchanged the copies belong together: pages appended to the
            # WAL meanwhile are whole transactions, or a torn one that SQLite ignores by its checksum.
            if _moment(source, wal) == before:
                return target
    except OSError as error:
        if error.errno == errno.ENOSPC:
            size = bytes_in_words(os.path.getsize(source))
            raise LibraryError(
                library,
                f"its database ({size}) does not fit into {directory.parent}, where it is copied",
                next_step="Free some space, or set TMPDIR to a folder on a larger disk.",
            ) from error
        raise unreadable(library, error) from error
    raise LibraryError(
        library,
        "Photos is writing to it without a pause",
        next_step="Quit Photos, or wait a little, and run this again.",
    )


def _moment(source: Path, wal: Path) -> tuple[int, int, bytes]:
    status = source.stat()
    try:
        with open(wal, "rb") as stream:
            header = stream.read(_WAL_HEADER)
    except FileNotFoundError:
        header = b""
    return status.st_size, status.st_mtime_ns, header


def _copy(source: Path, target: Path, check: Callable[..., None]) -> None:
    target.unlink(missing_ok=True)
    if clone_file(source, target):
        return
    with open(source, "rb", buffering=0) as reader, open(target, "wb") as writer:
        while block := reader.read(_BLOCK):
            check()
            writer.write(block)
