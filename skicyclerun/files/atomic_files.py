"""Durable files: written beside their target, made durable, renamed into place, the directory made durable too.

POSIX promises that `rename` is atomic, not that it survives a power cut; for that the directory needs an fsync of its
own. On macOS `fsync` hands the data to the drive but not through its cache; `F_FULLFSYNC` does (Apple, fsync(2)), and
one such call flushes the whole drive cache, so a group of files needs it only once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

# Errors by which a file system says that it has no fsync for directories (some network and FUSE mounts).
_FSYNC_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES})

_SYNCED_AT_ONCE: Final = 8
_syncing: Final = ThreadPoolExecutor(_SYNCED_AT_ONCE, "sync")
"""Kept for all groups: to start threads for each costs as much as what they do. It has none before the first sync."""
_SYNC_FILE_RANGE_WRITE: Final = 2


def _flush_drive_cache(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            # Network and some FUSE volumes have no F_FULLFSYNC; fsync is then all there is.
            if error.errno not in _FSYNC_UNSUPPORTED:
                raise
    os.fsync(descriptor)


def sync_files(paths: Iterable[Path]) -> None:
    """Make the bytes of these files durable. Raises OSError (ENOSPC and EIO surface here on some file systems).

    Several at once: a disk takes what is asked of it together, and a journal is written once for all who wait for it.
    One after the other, 25 new files take three to six times as long (docs/measurements.md). All have been tried when
    an error is raised.
    """
    waiting = list(paths)
    parts = [waiting[number:-1:_SYNCED_AT_ONCE] for number in range(_SYNCED_AT_ONCE)]
    errors = [
        error for done in [_syncing.submit(_sync_each, part) for part in parts if part] for error in done.result()
    ]
    if errors:
        raise errors[0]
    for path in waiting[-1:]:
        _sync_file(path, last=True)


def _sync_each(paths: Sequence[Path]) -> list[OSError]:
    """Sync one after the other, whatever becomes of any."""
    errors: list[OSError] = []
    for path in paths:
        try:
            _sync_file(path)
        except OSError as error:
            errors.append(error)
    return errors


def _sync_file(path: Path, *, last: bool = False) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if last:
            _flush_drive_cache(descriptor)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _find_sync_file_range() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        found = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    found.restype = ctypes.c_int
    begin: Callable[..., int] = found
    return begin


_sync_file_range: Final = _find_sync_file_range()


def begin_writing(descriptor: int) -> None:
    """Let the system begin to write out a file that will be synced before long; nothing is durable by that.

    The disk then works while the next file is made, and the sync has less to wait for. Linux waits for a sync, or half
    a minute, before it begins by itself (sync_file_range(2)); where there is no such call, nothing is done.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)  # a hint: the sync says what goes wrong


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory (names made, renamed or removed in it) durable.

    A file system that cannot sync directories is taken as it is: there is nothing more to be asked of it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_open_directory(descriptor)
    finally:
        os.close(descriptor)


def sync_open_directory(descriptor: int) -> None:
    """`sync_directory` for one that is open already."""
    try:
        _flush_drive_cache(descriptor)
    except OSError as error:
        if error.errno not in _FSYNC_UNSUPPORTED:
            raise


def make_directories(directory: Path) -> None:
    """`mkdir -p`, with every directory made on the way durable in its parent."""
    missing: list[Path] = []
    current = directory
    while not current.is_dir():
        missing.append(current)
        if current.parent == current:
            break
        current = current.parent
    directory.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_directory(made.parent)


def rename_to_new_name(path: Path, new: Path) -> None:
    """Rename a file, never over another one; a cut in between leaves it under both names, and this finishes that.

    Raises FileExistsError where the name is taken, OSError. Makes nothing durable.
    """
    try:
        os.link(path, new, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(os.lstat(path), os.lstat(new)):
            raise
    except OSError:
        # No hard links here (exFAT, some network mounts). Our lock keeps other writers of ours away.
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from None
        os.rename(path, new)
        return
    os.unlink(path)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `data`: a reader, and a restart after a crash, sees the old bytes or the new, never a mix.

    Raises OSError; the old file is then untouched and the temporary one removed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb", closefd=True) as stream:
            stream.write(data)
            stream.flush()
            _flush_drive_cache(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
