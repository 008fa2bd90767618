"""The one place where an OSError of writing an archive becomes a sentence."""

from __future__ import annotations

import errno
from pathlib import Path

from skicyclerun.errors import DiskFull, StorageError


def storage_error(error: OSError, path: Path) -> StorageError:
    """The sentence for a disk that could not take the archive."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"The disk became full while {path} was written. Nothing was deleted; the folders are untouched.",
            next_step="Free some space, or set `paths.archive` to another disk.",
        )
    return StorageError(f"{path} cannot be written ({error.strerror or error}). The folders are untouched.")
