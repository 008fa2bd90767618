"""Durable files: written beside their target, made durable, renamed into place, the directory made durable too.

POSIX promises that `rename` is atomic, not that it survives a power cut; for that the directory needs an fsync of its
own. On macOS `fsync` hands the data to the drive but not through its cache; `F_FULLFSYNC` does (Apple, fsync(2)), and
one such call flushes the whole drive cache, so a group of files needs it only once.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# Errors by which a file system says that it has no fsync for directories (some network and FUSE mounts).
_FSYNC_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES})


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
    """Make the bytes of these files durable. Raises OSError (ENOSPC and EIO surface here on some file systems)."""
    descriptor = -1
    try:
        for path in paths:
            if descriptor >= 0:
                os.close(descriptor)
                descriptor = -1
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(descriptor)
        if descriptor >= 0 and sys.platform == "darwin":
            _flush_drive_cache(descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


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
