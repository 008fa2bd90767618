"""Files as the catalog tells of them: whether each is there, and whether its bytes are those. Blocks; only reads."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ToldFile:
    """What the catalog tells of a file."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FoundFile:
    """What is there. `mtime_ns` None and `differs` empty: nothing is."""

    mtime_ns: int | None
    """Its modification time, where it is the file the catalog tells of."""
    differs: str = ""
    """Why it is not the file the catalog tells of."""


def look_at(folder: Path, told: Sequence[ToldFile]) -> list[FoundFile]:
    """One answer for each file, in their order. Symbolic links are not followed; nothing is raised for a file."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return [FoundFile(None, "its folder is no folder but a link or a file") for _ in told]
    except FileNotFoundError:
        return [FoundFile(None) for _ in told]
    except OSError as error:
        return [FoundFile(None, f"its folder cannot be looked at: {error.strerror or error}") for _ in told]
    return [_look_at_one(folder / each.name, each) for each in told]


def _look_at_one(path: Path, told: ToldFile) -> FoundFile:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return FoundFile(None)
        if error.errno == errno.ELOOP:
            return FoundFile(None, "a symbolic link stands in its place")
        return FoundFile(None, f"it cannot be read: {error.strerror or error}")
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return FoundFile(None, "something that is no file stands in its place")
        if found.st_size != told.size:
            return FoundFile(None, f"{found.st_size:,} bytes; the catalog says {told.size:,}")
        try:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            return FoundFile(None, f"it cannot be read: {error.strerror or error}")
    if digest != told.sha256:
        return FoundFile(None, "its bytes are not those that the catalog names")
    return FoundFile(found.st_mtime_ns)
