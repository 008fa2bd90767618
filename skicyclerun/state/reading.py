"""Reading the state database without an event loop: for `status`, which has nothing to wait for and answers sooner so.

What reads rows for a report takes a `Queries`: an open `Store`, or a `StateFile`, whose coroutines never wait. Also
what both have in common: the statements by name, and what SQLite's errors mean.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

from skicyclerun.errors import DiskFailed, DiskFull, NotWritable, StateDamaged, StateError, StorageError

Parameters = Sequence[Any] | Mapping[str, Any]
Row = sqlite3.Row

_T = TypeVar("_T")

MIGRATIONS: Final = Path(__file__).with_name("migrations")
MIGRATION_NAME: Final = re.compile(r"(\d{4})_\w+\.sql")
BUSY_SECONDS: Final = 30
READ_ONLY: Final = "mode=ro"
IMMUTABLE: Final = "mode=ro&immutable=1"

#: Inode, size, modification time.
FileState = tuple[int, int, int]


def _named_queries() -> dict[str, str]:
    """The statements of queries.sql, by the name in the `-- name:` line above each."""
    text = Path(__file__).with_name("queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


QUERIES: Final = _named_queries()


class Queries(Protocol):
    """What answers the named queries."""

    async def one(self, query: str, parameters: Parameters = ()) -> Row | None:
        """The first row of the named query, or None."""
        ...

    async def all(self, query: str, parameters: Parameters = ()) -> list[Row]:
        """All rows of the named query. Raises StateDamaged."""
        ...


class StateFile:
    """A state database that this very thread reads. A context manager."""

    def __init__(self, path: Path, connection: sqlite3.Connection, unwritten: FileState | None) -> None:
        self.path = path
        self._connection = connection
        self._unwritten = unwritten

    @classmethod
    def opened(cls, path: Path) -> Self | None:
        """Of this version and readable as it is; None for any other, of which `Store.open_to_read` knows more."""
        unwritten = unwritten_state(path)
        connection: sqlite3.Connection | None = None
        try:
            if not path.is_file():
                return None
            connection = _connected(path, IMMUTABLE if unwritten else READ_ONLY)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except (OSError, sqlite3.Error):
            version = None
        if connection is not None and version == latest_version():
            return cls(path, connection, unwritten)
        if connection is not None:
            connection.close()
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    async def one(self, query: str, parameters: Parameters = ()) -> Row | None:
        rows = await self.all(query, parameters)
        return rows[0] if rows else None

    async def all(self, query: str, parameters: Parameters = ()) -> list[Row]:
        try:
            if self._unwritten is not None and unwritten_state(self.path) != self._unwritten:
                former, self._connection = self._connection, _connected(self.path, READ_ONLY)
                self._unwritten = None  # A run has begun meanwhile.
                former.close()
            return self._connection.execute(QUERIES[query], parameters).fetchall()
        except sqlite3.Error as error:
            raise translated(error, self.path) from error


def result_of(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns that waits for nothing but a `StateFile`. Raises what it raises."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    coroutine.close()
    raise RuntimeError("it waits for something, and there is no event loop")


def _connected(path: Path, flags: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quoted(path)}?{flags}", uri=True, timeout=BUSY_SECONDS)
    connection.row_factory = sqlite3.Row
    return connection


def latest_version() -> int:
    """The version of the tables that this program makes: that of its last migration."""
    return max(int(found[1]) for name in os.listdir(MIGRATIONS) if (found := MIGRATION_NAME.fullmatch(name)))


def unwritten_state(path: Path) -> FileState | None:
    """What the database looks like while nobody writes it; None where there is a WAL, or no file."""
    try:
        if os.path.lexists(f"{path}-wal"):
            return None
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def quoted(path: Path) -> str:
    """A path in an SQLite URI."""
    # Characters that end or change the meaning of an SQLite URI: https://sqlite.org/uri.html#the_uri_path
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def is_of_the_disk(error: Exception) -> bool:
    """Whether SQLite was refused by the system. Only its low byte is the kind (https://sqlite.org/rescode.html)."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def translated(error: Exception, path: Path) -> StateError | StorageError:
    """SQLite's and the system's errors, as sentences of ours. The one boundary to both."""
    text = str(error)
    if "disk is full" in text or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"The disk is full: {path} could not be written. What was committed before is kept.",
            next_step="Free some space, then `skicyclerun run --resume`.",
        )
    unwritable = ("readonly", "read-only", "unable to open", "permission denied")
    if isinstance(error, OSError) or any(phrase in text.lower() for phrase in unwritable):
        return NotWritable(
            f"{path} cannot be opened or written ({text}).", next_step="Check the disk and the folder's permissions."
        )
    if is_of_the_disk(error):
        # Never taken for damage: a database that could not be read for a moment must not be set aside.
        return DiskFailed(
            f"The disk did not answer as it should: {path} could not be read or written ({text}). "
            "What was committed before is kept.",
            next_step="Look whether the disk is connected and well, then type the command again.",
        )
    if "locked" in text or "busy" in text:
        return StateError(
            f"{path} is in use by another program ({text}). Nothing was lost.",
            next_step="Close the other program and type the command again.",
        )
    return StateDamaged(path, text)
