"""The connection to the state database: opening, migrating, reading, and writing in whole transactions.

The only module that imports aiosqlite. Every write happens inside `Store.transaction()`: one lock, `BEGIN IMMEDIATE`
to COMMIT or ROLLBACK, shielded from cancellation, because cancelling an awaited statement neither cancels it nor
closes its transaction (measured; see docs/architecture.md). Keep only SQL inside.

Durability: WAL with `synchronous = FULL` syncs the log at every commit, and `fullfsync` makes that a real flush on
macOS (https://sqlite.org/pragma.html#pragma_fullfsync). Group commits are what makes it cheap.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import aiosqlite
import anyio
import anyio.to_thread

from skicyclerun.errors import (
    NoState,
    StateDamaged,
    StateForeign,
    StateTooNew,
)
from skicyclerun.files.atomic_files import sync_directory
from skicyclerun.state.reading import (
    BUSY_SECONDS,
    IMMUTABLE,
    MIGRATION_NAME,
    MIGRATIONS,
    QUERIES,
    READ_ONLY,
    FileState,
    Parameters,
    Row,
    is_of_the_disk,
    latest_version,
    quoted,
    translated,
    unwritten_state,
)

__all__ = ["QUERIES", "Parameters", "Reader", "Row", "Store", "Transaction", "check_integrity", "statements", "utc_now"]


def _migrations() -> list[tuple[int, str]]:
    entries = MIGRATIONS.iterdir()
    named = ((entry, MIGRATION_NAME.fullmatch(entry.name)) for entry in entries)
    return sorted((int(match[1]), entry.read_text(encoding="utf-8")) for entry, match in named if match)


def statements(script: str) -> list[str]:
    """Split a script into statements as SQLite does, so that a trigger's inner semicolons do not cut it."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    if any(line.strip() and not line.strip().startswith("--") for line in pending.splitlines()):
        raise ValueError(f"unfinished statement: {pending.strip()[:60]!r}")
    return found


def utc_now() -> str:
    """Now, as the database writes it: ISO 8601 UTC, milliseconds, `Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Transaction:
    """Statements of one write transaction. Only handed out by `Store.transaction()`.

    Each costs one hop to the database's thread: a cursor that has written is left to be collected rather than closed,
    which would be a second one.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self.now = utc_now()

    async def execute(self, query: str, parameters: Parameters = ()) -> int:
        """Run the named query; returns the number of rows it changed."""
        return (await self._connection.execute(QUERIES[query], parameters)).rowcount

    async def insert(self, query: str, parameters: Parameters = ()) -> int:
        """Run the named INSERT; returns the id of the row."""
        row_id = (await self._connection.execute(QUERIES[query], parameters)).lastrowid
        assert row_id is not None
        return row_id

    async def execute_many(self, query: str, rows: Sequence[Parameters]) -> int:
        """Run the named query for each row, in one hop to the database's thread; returns the rows changed in all."""
        if not rows:
            return 0
        return max((await self._connection.executemany(QUERIES[query], rows)).rowcount, 0)

    async def one(self, query: str, parameters: Parameters = ()) -> Row | None:
        rows = await self.all(query, parameters)
        return rows[0] if rows else None

    async def all(self, query: str, parameters: Parameters = ()) -> list[Row]:
        return list(await self._connection.execute_fetchall(QUERIES[query], parameters))


class Reader:
    """Reads the database from a worker thread, over a connection of its own: what is committed, row by row."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def rows(self, query: str, parameters: Parameters = ()) -> Generator[Row, None, None]:
        """The rows of the named query, one at a time; closed by whoever stops before the last. Raises StateDamaged."""
        try:
            yield from self._connection.execute(QUERIES[query], parameters)
        except sqlite3.Error as error:
            raise translated(error, self._path) from error


class Store:
    """An open state database. `async with Store.open(path) as store:`"""

    def __init__(self, path: Path, connection: aiosqlite.Connection) -> None:
        self.path = path
        self._connection = connection
        self._writing = anyio.Lock()
        self._unwritten: FileState | None = None
        """Opened as a file that nobody writes: what it looked like then."""
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        """Holds what is read in the place of a database of an earlier version."""

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open for writing, creating and migrating as needed. The caller holds the run lock.

        Raises StateTooNew, StateDamaged or StorageError; the file is left as it was.
        """
        try:
            await anyio.Path(path.parent).mkdir(parents=True, exist_ok=True)
            is_new = not await anyio.Path(path).exists()
            connection = await _connect(f"file:{quoted(path)}")
        except (OSError, sqlite3.Error) as error:
            raise translated(error, path) from error
        store = cls(path, connection)
        try:
            await store._prepare()
            if is_new:
                await anyio.to_thread.run_sync(_sync_names_above, path)
        except (OSError, sqlite3.Error) as error:
            await store.close()
            raise translated(error, path) from error
        except BaseException:
            with anyio.CancelScope(shield=True):
                await store.close()
            raise
        return store

    @classmethod
    async def open_to_read(cls, path: Path) -> Self:
        """Open for reading only, also while a run writes; nothing is made or changed on the disk unless one does.

        One of an earlier version is read as it was at that moment, through a copy that is brought up to this one: only
        a run may change the file. Raises NoState, StateTooNew, StateDamaged, StorageError.
        """
        if not await anyio.Path(path).is_file():
            raise NoState(path)
        error: sqlite3.Error | OSError | None = None
        # A reader of a WAL database makes -wal and -shm files beside it and leaves them there. Where there is no WAL
        # nobody writes, and `immutable` does without; on a read-only disk it is the only way at all.
        unwritten = unwritten_state(path)
        ways = (IMMUTABLE, READ_ONLY) if unwritten else (READ_ONLY, IMMUTABLE)
        for flags in ways:
            try:
                connection = await _connect(f"file:{quoted(path)}?{flags}")
            except (sqlite3.Error, OSError) as failed:
                error = failed
                continue
            store = cls(path, connection)
            try:
                version = await store._check_version()
                if version == 0:
                    raise NoState(path)  # A stop came between making the file and its tables.
                if version < latest_version():
                    await store._read_through_copy(flags)
                else:
                    store._unwritten = unwritten if flags == IMMUTABLE else None
                return store
            except sqlite3.OperationalError as failed:
                await store.close()
                error = failed
            except sqlite3.Error as failed:
                await store.close()
                raise translated(failed, path) from failed
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await store.close()
                raise
        assert error is not None
        raise translated(error, path) from error

    async def _prepare(self) -> None:
        connection = self._connection
        version = await self._check_version()
        if version:
            problem = await check_integrity(connection)
            if problem:
                raise StateDamaged(self.path, problem)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON"):
            await connection.execute_fetchall(f"PRAGMA {pragma}")
        await self._migrate(version)

    async def _migrate(self, version: int) -> None:
        connection = self._connection
        for number, script in _migrations():
            if number <= version:
                continue
            with anyio.CancelScope(shield=True):
                await connection.execute("BEGIN IMMEDIATE")
                try:
                    for statement in statements(script):
                        await connection.execute(statement)
                    await connection.execute(f"PRAGMA user_version = {number}")
                    await connection.execute("COMMIT")
                except BaseException:
                    await connection.execute("ROLLBACK")
                    raise

    async def _read_through_copy(self, flags: str) -> None:
        """Go on with a migrated copy, which is gone when the store is closed."""
        self._copy = await anyio.to_thread.run_sync(partial(_copied, self.path, flags))
        fresh = await _connect(f"file:{quoted(self._file)}")
        former, self._connection = self._connection, fresh
        await former.close()
        await fresh.execute_fetchall("PRAGMA synchronous = OFF")
        await self._migrate(await self._check_version())
        await fresh.execute_fetchall("PRAGMA query_only = ON")

    @property
    def _file(self) -> Path:
        """Of the connections: the database, or its copy."""
        return self.path if self._copy is None else Path(self._copy.name, self.path.name)

    async def _check_version(self) -> int:
        known = latest_version()
        rows = list(await self._connection.execute_fetchall("PRAGMA user_version"))
        version = int(rows[0][0])
        if version > known:
            raise StateTooNew(self.path, version, known)
        if version == 0:
            tables = list(await self._connection.execute_fetchall("SELECT name FROM sqlite_master LIMIT 1"))
            if tables:
                raise StateForeign(self.path)
        return version

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """For one worker thread; blocks. Raises StateDamaged, NotWritable."""
        flags = IMMUTABLE if self._unwritten is not None else READ_ONLY
        try:
            connection = sqlite3.connect(f"file:{quoted(self._file)}?{flags}", uri=True, timeout=BUSY_SECONDS)
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        connection.row_factory = sqlite3.Row
        try:
            yield Reader(connection, self.path)
        finally:
            connection.close()

    async def _reopen(self) -> None:
        fresh = await _connect(f"file:{quoted(self.path)}?{READ_ONLY}")
        former, self._connection, self._unwritten = self._connection, fresh, None
        await former.close()

    async def close(self) -> None:
        await self._connection.close()
        if self._copy is not None:
            await anyio.to_thread.run_sync(self._copy.cleanup)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """All or nothing, and never half cancelled. Raises StorageError or StateDamaged."""
        async with self._writing:
            with anyio.CancelScope(shield=True):
                try:
                    await self._connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield Transaction(self._connection)
                    except BaseException:
                        if self._connection.in_transaction:
                            await self._connection.execute("ROLLBACK")
                        raise
                    await self._connection.execute("COMMIT")
                except sqlite3.IntegrityError:
                    raise
                except sqlite3.Error as error:
                    if self._connection.in_transaction:
                        await self._connection.execute("ROLLBACK")
                    raise translated(error, self.path) from error

    async def one(self, query: str, parameters: Parameters = ()) -> Row | None:
        """The first row of the named query, or None."""
        rows = await self.all(query, parameters)
        return rows[0] if rows else None

    async def all(self, query: str, parameters: Parameters = ()) -> list[Row]:
        """All rows of the named query. Raises StateDamaged."""
        try:
            if self._unwritten is not None and unwritten_state(self.path) != self._unwritten:
                await self._reopen()  # A run has begun meanwhile.
            return list(await self._connection.execute_fetchall(QUERIES[query], parameters))
        except sqlite3.Error as error:
            raise translated(error, self.path) from error


def _sync_names_above(path: Path) -> None:
    """Make a new database's name durable, and those of the folders made for it (`lib_root/state`, by the lock first).

    SQLite syncs what is in the file and its log, not the folders above.
    """
    for folder in list(path.parents)[:3]:
        with suppress(PermissionError):  # somebody else's folder, which was there before
            sync_directory(folder)


def _copied(path: Path, flags: str) -> tempfile.TemporaryDirectory[str]:
    """The database, with what its log holds, under its name in a folder of its own."""
    folder = tempfile.TemporaryDirectory(prefix="skicyclerun-")
    try:
        with (
            closing(sqlite3.connect(f"file:{quoted(path)}?{flags}", uri=True, timeout=BUSY_SECONDS)) as there,
            closing(sqlite3.connect(Path(folder.name, path.name))) as here,
        ):
            there.backup(here)
    except BaseException:
        folder.cleanup()
        raise
    return folder


def _probe(database: str) -> None:
    sqlite3.connect(database, uri=True).close()


async def _connect(database: str) -> aiosqlite.Connection:
    # aiosqlite does not wait for its thread when a connection cannot be opened, and the thread then reports to an event
    # loop that may be closed (0.22.1); so the opening is tried without it first.
    await anyio.to_thread.run_sync(_probe, database)
    # Shielded: cancelled in the middle, aiosqlite lets go of a connection that its thread has opened, unclosed.
    with anyio.CancelScope(shield=True):
        connection = await aiosqlite.connect(database, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        connection.row_factory = sqlite3.Row
        await connection.execute_fetchall("PRAGMA foreign_keys = ON")
        return connection
    except BaseException:
        with anyio.CancelScope(shield=True):
            await connection.close()
        raise


async def check_integrity(connection: aiosqlite.Connection) -> str:
    """What `PRAGMA quick_check` finds wrong, empty if nothing. Reads the whole file; not the indexes' contents.

    Raises sqlite3.Error where the file could not be read, which says nothing of it.
    """
    try:
        rows = list(await connection.execute_fetchall("PRAGMA quick_check(1)"))
    except sqlite3.DatabaseError as error:
        if is_of_the_disk(error):
            raise
        return str(error)
    found = str(rows[0][0])
    return "" if found == "ok" else found.splitlines()[-1]  # the first line only names the schema
