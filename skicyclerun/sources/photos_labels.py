"""What Photos found to be in a picture by itself (`Tree`, `Snow`): the labels in its search index, `psi.sqlite`.

The index belongs to a library of Photos 5 or later and is not always there; without it there are no labels, and nothing
else is missing. Categories are osxphotos' (SearchCategory), and so is it that ids are the two halves of a UUID.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import struct
import threading
import unicodedata
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from skicyclerun.errors import SkicyclerunError
from skicyclerun.sources.photos_bundle import CopyFolder
from skicyclerun.sources.photos_snapshot import Snapshot, copied_snapshot, take_snapshot

log = logging.getLogger(__name__)

_INDEX: Final = Path("database", "search", "psi.sqlite")
_LABEL: Final = 1500
_LABEL_BEFORE_PHOTOS_8: Final = 2024
_MOST: Final = 200
"""Of one photo; Photos finds a few dozen at most."""
_SELECT: Final = """SELECT DISTINCT groups.content_string FROM assets JOIN ga ON ga.assetid = assets.rowid
    JOIN groups ON groups.rowid = ga.groupid
    WHERE assets.uuid_0 = ? AND assets.uuid_1 = ? AND groups.category = ? LIMIT ?"""


class PhotoLabels:
    """The labels of one library; the index is opened when it is first asked. From several threads at once is fine."""

    def __init__(self, library: Path, folder: CopyFolder, photos_version: float, check: Callable[..., None]) -> None:
        """`folder` takes a copy of the index, where it has to be copied; it is removed by whoever made it."""
        self._library = library
        self._folder = folder
        self._category = _LABEL if photos_version >= 8 else _LABEL_BEFORE_PHOTOS_8
        self._check = check
        self._lock = threading.Lock()
        self._opened = False
        self._snapshot: Snapshot | None = None
        self._connection: sqlite3.Connection | None = None

    def of(self, photo: str) -> tuple[str, ...]:
        """In the order of the alphabet; none where the index says nothing, cannot be read, or is not there."""
        with self._lock:
            try:
                if not self._opened:
                    self._opened = True
                    self._open(take_snapshot)
                while self._connection is not None and self._snapshot is not None:
                    halves = struct.unpack("<qq", uuid.UUID(photo).bytes)
                    rows = self._connection.execute(_SELECT, (*halves, self._category, _MOST)).fetchall()
                    if self._snapshot.holds():
                        return tuple(sorted({label for (text,) in rows if (label := _clean(text))}))
                    self._open(copied_snapshot)  # Photos has written to what was read in place
            except (sqlite3.Error, OSError, SkicyclerunError, ValueError) as error:
                log.debug("%s: no labels: %s: %s", self._library, type(error).__name__, error)
                if not isinstance(error, ValueError):  # of one photo's id
                    self._close()
            return ()

    def close(self) -> None:
        """Safe to call twice, and without `of`."""
        with self._lock:
            self._opened = True
            self._close()

    def _open(self, take: Callable[[Path, Path, Path, Callable[..., None]], Snapshot]) -> None:
        self._close()
        index = self._library / _INDEX
        real = Path(os.path.realpath(self._library)) / _INDEX
        if not index.exists() or os.path.realpath(index) != str(real) or not stat.S_ISREG(os.stat(real).st_mode):
            return
        self._snapshot = take(self._library, index, self._folder.path, self._check)
        self._connection = self._snapshot.connect()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._snapshot = None


def _clean(text: object) -> str:
    """Photos ends each with NUL."""
    return unicodedata.normalize("NFC", text.replace("\x00", "")).strip() if isinstance(text, str) else ""
