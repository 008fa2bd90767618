"""A copy of a file that takes neither time nor space: on a file system that has them, two files share their blocks.

APFS has clones (`clonefile`, macOS 10.12), Btrfs, XFS and others have them on Linux (`FICLONE`, ioctl_ficlone(2)).
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409
"""`_IOW(0x94, 9, int)`; the same on all of Linux' architectures but alpha, mips, parisc, powerpc and sparc."""
_ODD_IOCTLS: Final = ("alpha", "mips", "parisc", "ppc", "sparc")


def clone_file(source: Path, target: Path) -> bool:
    """Make `target` a clone of `source`, as of this moment; False, and no target, where that cannot be.

    The target must not exist. It has its own permissions and times. Raises nothing: whoever clones can copy instead,
    and hears there what is wrong.
    """
    try:
        if sys.platform == "darwin":
            return _clonefile(source, target)
        if sys.platform == "linux" and not os.uname().machine.startswith(_ODD_IOCTLS):
            return _ficlone(source, target)
    except OSError:
        pass
    return False


def _clonefile(source: Path, target: Path) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    clonefile = getattr(library, "clonefile", None)
    return clonefile is not None and clonefile(os.fsencode(source), os.fsencode(target), ctypes.c_uint32(0)) == 0


def _ficlone(source: Path, target: Path) -> bool:
    import fcntl

    with open(source, "rb", buffering=0) as reader:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(descriptor, _FICLONE, reader.fileno())
            return True
        except OSError:
            os.unlink(target)
            return False
        finally:
            os.close(descriptor)
