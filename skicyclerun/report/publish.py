"""Where the page is written: FILE, and beside it a folder `NAME_files` with the pages of the albums.

Each page is written aside and renamed over the one before, the page that a person opens last: whenever that is cut off,
every page is whole. Only what we have made is replaced or removed: a page of ours has MARK in its first lines, and so
it is with all that lies in the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from skicyclerun.errors import OutsideFolder, UsageError
from skicyclerun.files.atomic_files import make_directories, write_atomically
from skicyclerun.files.fault_points import fault_point

#: In every page, within its first bytes.
MARK: Final = '<meta name="generator" content="skicyclerun report">'
_MARK_WITHIN: Final = 512


class PageFiles:
    """The files of one page. All methods block; they raise OSError."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.folder = file.with_name(f"{file.stem}_files")

    def check(self) -> None:
        """Raises UsageError where something stands in the way that is not ours, OutsideFolder where a link does."""
        if self.file.suffix.lower() not in (".html", ".htm"):
            raise UsageError(
                f"{self.file} is no name for a page.", next_step="Name a FILE that ends in .html, in `--html FILE`."
            )
        if _is_link(self.file):
            raise OutsideFolder(self.file, self.file.parent)
        if os.path.lexists(self.file) and not _is_ours(self.file):
            raise UsageError(
                f"{self.file} is there, and it is no page that `skicyclerun report` has made. It was left as it is.",
                next_step="Name another FILE with --html, or move it away.",
            )
        if _is_link(self.folder):
            raise OutsideFolder(self.folder, self.folder.parent)
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise UsageError(
                f"{self.folder} is there and is no folder; the pages of the albums go there.",
                next_step="Name another FILE with --html, or move it away.",
            )

    def write_album(self, name: str, text: str) -> None:
        """A page in the folder; nothing is written where it says the same already.

        Raises UsageError where another file has its name.
        """
        if not self.folder.is_dir():
            make_directories(self.folder)
        self._write(self.folder / name, text)
        fault_point("report.album_written")

    def write(self, text: str) -> None:
        """The page that is opened, after all others."""
        fault_point("report.albums_written")
        make_directories(self.file.parent)
        self._write(self.file, text)
        fault_point("report.written")

    def remove_others(self, names: Collection[str]) -> None:
        """Remove the pages of albums that are no longer there; what is not ours stays."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in sorted(set(os.listdir(self.folder)) - set(names)):
                other = self.folder / name
                if (name.endswith(".html") and _is_ours(other)) or _is_left_over(name):
                    other.unlink(missing_ok=True)
            if not names:
                with suppress(OSError):
                    self.folder.rmdir()

    def _write(self, path: Path, text: str) -> None:
        data = text.encode()
        if os.path.lexists(path):
            if not _is_ours(path):
                raise UsageError(
                    f"{path} is there, and it is no page that `skicyclerun report` has made. It was left as it is.",
                    next_step="Move it away, or name another FILE with --html.",
                )
            if path.read_bytes() == data:
                return
        write_atomically(path, data)


def _is_link(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISLNK(path.lstat().st_mode)
    return False


def _is_ours(path: Path) -> bool:
    """Whether it is a file of its own with our mark. A link is not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with open(descriptor, "rb") as stream:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and MARK.encode() in stream.read(_MARK_WITHIN)


def _is_left_over(name: str) -> bool:
    """Written aside by a report that was cut off."""
    return name.startswith(".album-") and ".html." in name and name.endswith(".tmp")
