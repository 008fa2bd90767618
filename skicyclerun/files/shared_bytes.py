"""A second name for bytes that are on the disk already: a hard link, or a clone that shares them until one is changed.

A clone (`clone.py`) is a file of its own, whatever is done to either; it needs a file system that copies on write. A
hard link is the same file under another name: who changes it in place changes both.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Final, Literal

from skicyclerun.files.beneath import Beneath
from skicyclerun.files.clone import clone_open_file

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
                    clone_open_file(source, destination, mode=0o644)
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
