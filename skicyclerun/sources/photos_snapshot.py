"""A library's database as of one moment: a clone or a copy of it, or the database itself where that is safe.

The database lies still where it is when nobody has written since its last checkpoint, and that was not just now: it
has no write-ahead log, or an empty one, and no journal. Then SQLite may read it in place as *immutable*
(https://sqlite.org/c3ref/open.html): it takes no lock, writes nothing beside it, and looks at no log. Photos may start
meanwhile; what it commits goes to a log that is not looked at, and at its next checkpoint the database changes, which
shows in its time and size. So whoever reads asks afterwards whether the snapshot still `holds`, and believes nothing
that was read where it does not.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skicyclerun.files.clone import clone_file
from skicyclerun.sources.photos_bundle import copy_database, unreadable

_State = tuple[int, int, int, int]
_LONG_AGO: Final = 3.0
"""Seconds; the times of some file systems have steps of two, in which a further change would not show."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`database` is the file to read; `connect` opens it."""

    library: Path
    source: Path
    """The database inside the library."""
    database: Path
    state: _State | None = None
    """Of the database in place; None for a clone or a copy, which is ours alone."""
    decodes: bool = False
    """Each text is looked at, which is slow: one of them is no UTF-8."""

    @property
    def in_place(self) -> bool:
        return self.state is not None

    @property
    def flags(self) -> str:
        """Of SQLite's URI."""
        return "mode=ro&immutable=1" if self.in_place else "mode=ro"

    def connect(self) -> sqlite3.Connection:
        """A connection that only reads, for one thread at a time. Raises sqlite3.Error."""
        address = f"{self.database.as_uri()}?{self.flags}"
        connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        connection.execute("PRAGMA temp_store = MEMORY")
        if self.decodes:
            connection.text_factory = decoded
        return connection

    def holds(self) -> bool:
        """Whether what was read so far is of one moment."""
        if self.state is None:
            return True
        try:
            return _state(self.source) == self.state
        except OSError:
            return False


def is_no_text(error: sqlite3.Error) -> bool:
    """Whether it is that a text is no UTF-8 (the sentence is that of Python's sqlite3)."""
    return "decode to UTF-8" in str(error)


def decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def take_snapshot(library: Path, source: Path, directory: Path, check: Callable[..., None]) -> Snapshot:
    """Of the database of a library (`check_is_library`); what has to be copied goes to `directory`.

    Raises LibraryError.
    """
    try:
        state = _state(source)
        still = _lies_still(source)
    except OSError as error:
        raise unreadable(library, error) from error
    if still:
        target = directory / source.name
        if clone_file(source, target):
            if _lies_still(source) and _state(source) == state:
                return Snapshot(library, source, target)
            target.unlink()
        elif _lies_still(source) and _state(source) == state:
            return Snapshot(library, source, source, state)
    return copied_snapshot(library, source, directory, check)


def copied_snapshot(library: Path, source: Path, directory: Path, check: Callable[..., None]) -> Snapshot:
    """One that stays as it is whatever happens to the library. Raises LibraryError."""
    return Snapshot(library, source, copy_database(library, source, directory, check))


def _lies_still(source: Path) -> bool:
    if time.time() - os.stat(source).st_mtime < _LONG_AGO:
        return False
    for suffix in ("-wal", "-journal"):
        try:
            if os.stat(f"{source}{suffix}").st_size:
                return False
        except FileNotFoundError:
            pass
    return True


def _state(source: Path) -> _State:
    status = os.stat(source)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
