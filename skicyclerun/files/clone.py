"""A copy of a file that takes neither time nor space: on a file system that has them, two files share their blocks
until one of them is changed.

APFS has clones (`fclonefileat`, macOS 10.12), Btrfs, XFS, bcachefs, ZFS 2.2 and others have them on Linux (`FICLONE`,
ioctl_ficlone(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409
"""`_IOW(0x94, 9, int)`; the same on all of Linux' architectures but alpha, mips, parisc, powerpc and sparc."""
_ODD_IOCTLS: Final = ("alpha", "mips", "parisc", "ppc", "sparc")
_WORKING_DIRECTORY: Final = -2
"""AT_FDCWD of macOS."""


def clone_file(source: Path, target: Path) -> bool:
    """Make `target` a clone of `source`, as of this moment; False, and no target, where that cannot be.

    The target must not exist. It has its own permissions and times. Raises nothing: whoever clones can copy instead,
    and hears there what is wrong.
    """
    try:
        with open(source, "rb", buffering=0) as reader:
            clone_open_file(reader.fileno(), target, mode=0o600)
    except OSError:
        return False
    return True


def clone_open_file(source: int, target: Path, *, mode: int) -> None:
    """The same of an open file. Raises OSError, with the reason why there is no target then."""
    if sys.platform == "darwin":
        system = ctypes.CDLL(None, use_errno=True)
        if system.fclonefileat(source, _WORKING_DIRECTORY, os.fsencode(target), 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(target))
        return
    if sys.platform != "linux" or os.uname().machine.startswith(_ODD_IOCTLS):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), str(target))
    import fcntl

    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        fcntl.ioctl(descriptor, _FICLONE, source)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
