"""A second name for bytes that are on the disk already: a hard link, or a clone that shares them until one is changed.

A clone is a file of its own, whatever is done to either; it needs a file system that copies on write (Btrfs, XFS,
APFS, bcachefs, ZFS 2.2). A hard link is the same file under another name: who changes it in place changes both.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import Final, Literal

from skicyclerun.files.beneath import Beneath

#: ioctl_ficlone(2); the number is the same on every architecture but MIPS, PowerPC, SPARC and Alpha.
_FICLONE: Final = 0x40049409
#: What a file system says that cannot do it at all.
_CANNOT: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EBADF}
)


class CannotShare(Exception):
    """This file system knows no hard links, or no clones."""


def share_bytes(
    outputs: Path, parts: tuple[str, ...], destination: Path, how: Literal["hardlink", "clone"], *, sha256: str
) -> os.stat_result | None:
    """Make `destination`, which is not there, of the file `parts` below `outputs`; no link is followed on the way.

    Returns what it is then; None, and no `destination`, where there is no such file or its bytes are not these (any
    more). Raises CannotShare where the file system has no such thing, OSError (a full disk) otherwise.
    """
    try:
        with Beneath(outputs) as beneath:
            if how == "hardlink":
                above = beneath.folder(parts[:-1])
                os.link(parts[-1], destination, src_dir_fd=above, follow_symlinks=False)
            else:
                source = beneath.open_file(parts)
                try:
                    _clone(source, destination)
                finally:
                    os.close(source)
    except OSError as error:
        if error.errno in _CANNOT:
            raise CannotShare(os.strerror(error.errno or errno.EOPNOTSUPP)) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK, errno.EACCES):
            return None
        raise
    found = _checked(destination, sha256)
    if found is None:
        destination.unlink(missing_ok=True)
    return found


def _checked(path: Path, sha256: str) -> os.stat_result | None:
    """What the file is, if it is a file with these bytes."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return os.fstat(stream.fileno()) if digest == sha256 else None


def _clone(source: int, destination: Path) -> None:
    """Raises OSError; then there is no `destination`."""
    if sys.platform == "darwin":
        _clone_on_apfs(source, destination)
        return
    import fcntl

    target = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise
    finally:
        os.close(target)


def _clone_on_apfs(source: int, destination: Path) -> None:
    """fclonefileat(2)."""
    system = ctypes.CDLL(None, use_errno=True)
    here = -2  # AT_FDCWD of macOS
    if system.fclonefileat(source, here, os.fsencode(destination), 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(destination))
