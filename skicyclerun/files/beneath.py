"""Reaching files below a folder without ever following a symbolic link out of it.

Every component is opened from the descriptor of the one before it with O_NOFOLLOW (openat(2)), so that a link put in
the way, before or while we work, ends in an error and not in another folder. The folder itself may be reached through
links: it is what the person configured.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from skicyclerun.files.atomic_files import make_directories

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: What openat says of a component that is a link, or no directory.
NOT_A_FOLDER: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})


class Beneath:
    """An open folder. Descriptors it hands out are its own and stay open until the next one is asked for.

    The last sub-folder is kept open, because files come folder by folder.
    """

    def __init__(self, folder: Path, *, may_be_missing: bool = False) -> None:
        """Raises OSError. A folder that may be missing is made by the first `folder(…, create=True)`."""
        self.path = folder
        self._root = -1
        self._held: tuple[tuple[str, ...], int] | None = None
        try:
            self._root = os.open(folder, _DIRECTORY)
        except FileNotFoundError:
            if not may_be_missing:
                raise

    def __enter__(self) -> Beneath:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        if self._root >= 0:
            os.close(self._root)

    def forget(self) -> None:
        """Close the sub-folder kept open; needed before one that was opened is removed and made anew."""
        if self._held is not None:
            os.close(self._held[1])
            self._held = None

    def folder(self, parts: Sequence[str] = (), *, create: bool = False) -> int:
        """The descriptor of a sub-folder. Raises OSError; its `errno` is ELOOP where a link is in the way.

        `create` makes what is missing on the way.
        """
        wanted = tuple(parts)
        if self._root < 0:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
            make_directories(self.path)
            self._root = os.open(self.path, _DIRECTORY)
        if not wanted:
            return self._root
        if self._held is not None and self._held[0] == wanted:
            return self._held[1]
        current = self._root
        try:
            for part in wanted:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=current)
                try:
                    deeper = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
                except NotADirectoryError:
                    # Linux says so for a link opened with O_DIRECTORY | O_NOFOLLOW, macOS says ELOOP.
                    if stat.S_ISLNK(os.stat(part, dir_fd=current, follow_symlinks=False).st_mode):
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from None
                    raise
                if current != self._root:
                    os.close(current)
                current = deeper
        except BaseException:
            if current != self._root:
                os.close(current)
            raise
        self.forget()
        self._held = (wanted, current)
        return current

    def stat(self, parts: Sequence[str]) -> os.stat_result:
        """lstat of what lies there. Raises OSError."""
        return os.stat(parts[-1], dir_fd=self.folder(parts[:-1]), follow_symlinks=False)

    def open_file(self, parts: Sequence[str]) -> int:
        """Open for reading; the caller closes it. Raises OSError. Never waits for a pipe's other end."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(parts[-1], flags, dir_fd=self.folder(parts[:-1]))

    def read_link(self, parts: Sequence[str]) -> bytes:
        """The target of a symbolic link, as bytes. Raises OSError."""
        return os.fsencode(os.readlink(parts[-1], dir_fd=self.folder(parts[:-1])))
