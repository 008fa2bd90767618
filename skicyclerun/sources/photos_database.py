"""Opens the database of a Photos library, in a worker thread, and says in sentences why it cannot be read.

This is the one boundary at which osxphotos' and SQLite's exceptions over a whole library are translated into ours.
"""

from __future__ import annotations

import logging
import plistlib
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Generic, TypeVar

from skicyclerun.errors import LibraryError, SkicyclerunError
from skicyclerun.sources.photos_asset import PhotosDatabase
from skicyclerun.sources.photos_bundle import CopyFolder, check_is_library, damaged
from skicyclerun.sources.photos_snapshot import Snapshot, copied_snapshot, is_no_text, take_snapshot
from skicyclerun.sources.photos_tables import LibraryTables
from skicyclerun.sources.photosdb import WholeLibrary

log = logging.getLogger(__name__)
T = TypeVar("T")


class Abandoned(Exception):
    """Nobody waits for this library any more; raised inside the loading thread only."""


@dataclass(slots=True)
class LibraryLoader(Generic[T]):
    """Loads one library in a worker thread, and cleans up after itself when nobody waits any more.

    `first_look` is called with the loaded database in the same thread; its exceptions count as those of loading.
    """

    library: Path
    first_look: Callable[[PhotosDatabase], T]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _abandoned: bool = False
    _loaded: PhotosDatabase | None = None

    def run(self) -> T:
        """Copy, load, translate errors. Blocking. Raises LibraryError, or Abandoned if `abandon` was called."""
        try:
            folder = CopyFolder()
        except OSError as error:
            raise LibraryError(
                self.library,
                f"there is no temporary folder for a copy of its database ({error.strerror or error})",
                next_step="Set TMPDIR to a folder that can be written.",
            ) from error
        database: PhotosDatabase | None = None
        try:
            database = _load(self.library, folder, self._check)
            seen = self.first_look(database)
            with self._lock:
                self._check()
                self._loaded = database
            return seen
        except BaseException:
            if database is not None:
                database.close()
            folder.remove()
            raise

    def abandon(self) -> None:
        """Nobody waits any more: stop as soon as possible and leave nothing behind. From any thread."""
        with self._lock:
            self._abandoned = True
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()

    def _check(self, *_message: object) -> None:
        if self._abandoned:
            raise Abandoned


def _load(library: Path, folder: CopyFolder, check: Callable[..., None]) -> PhotosDatabase:
    source = check_is_library(library)
    if source.name == "Photos.sqlite":
        snapshot = take_snapshot(library, source, folder.path, check)
    else:
        snapshot = copied_snapshot(library, source, folder.path, check)
    _check_sqlite(library, snapshot)
    while source.name == "Photos.sqlite":
        check()
        try:
            return LibraryTables(snapshot, folder, check)
        except (Abandoned, MemoryError, SkicyclerunError):
            raise
        except Exception as error:
            if isinstance(error, sqlite3.Error) and is_no_text(error) and not snapshot.decodes:
                snapshot = replace(snapshot, decodes=True)
                continue
            if snapshot.holds():
                # Whatever it is, it shall be said as if it had never been tried.
                log.debug("%s is read through osxphotos alone: %s: %s", library, type(error).__name__, error)
                break
        snapshot = copied_snapshot(library, source, folder.path, check)
    if snapshot.in_place:
        snapshot = copied_snapshot(library, source, folder.path, check)
        _check_sqlite(library, snapshot)
    return _whole(library, snapshot.database, folder, check)


def _whole(library: Path, copied: Path, folder: CopyFolder, check: Callable[..., None]) -> PhotosDatabase:
    try:
        return WholeLibrary(library, copied, folder, check)
    except BaseException as error:
        if isinstance(error, SkicyclerunError | Abandoned | MemoryError) or not isinstance(error, Exception):
            raise
        if isinstance(error, ImportError):
            raise LibraryError(
                library,
                f"osxphotos, which reads it, cannot be loaded ({error})",
                next_step="Install skicyclerun anew, or its dependency alone: `pip install --upgrade osxphotos`.",
            ) from error
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            raise damaged(library, error) from error
        version = ""
        with suppress(Exception):  # whatever is wrong with it, the version is only told, never needed
            version = f"model version {model_version(copied)}; "
        # Whatever osxphotos trips over (it has no common base for what it raises) is a schema it does not know.
        raise LibraryError(
            library,
            f"its database cannot be understood ({version}{type(error).__name__}: {error})",
            next_step="A newer osxphotos may know it: `pip install --upgrade osxphotos`.",
        ) from error


#: Tables by which a database of Photos is known: of Photos 5 and later, of Photos 4 and earlier.
_TABLES: Final = {"Photos.sqlite": {"Z_METADATA", "ZGENERICALBUM"}, "photos.db": {"LiGlobals", "RKVersion", "RKAlbum"}}

#: LiGlobals.libraryVersion is 2622 in Photos 2 (macOS 10.12), 3301 in Photos 3 (10.13), 4016 and 4025 in Photos 4
#: (10.14), by osxphotos' table of versions.
_EARLIEST_LIBRARY_VERSION: Final = 3000


def _check_sqlite(library: Path, snapshot: Snapshot) -> None:
    """Raise LibraryError if it is no database, none of Photos', or one of Photos 2 or earlier."""
    copied = snapshot.database
    try:
        # A copy is not opened read-only: that merges the WAL into it, once for all that read it.
        with closing(snapshot.connect() if snapshot.in_place else sqlite3.connect(copied)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise damaged(library, error) from error
    if not _TABLES[copied.name] <= names:
        raise LibraryError(
            library,
            f"its database/{copied.name} is not a database of Photos",
            next_step="Name the library as it is in your Pictures folder, or another one.",
        )
    if copied.name == "photos.db":
        check_library_version(library, copied)


def check_library_version(library: Path, database: Path, flags: str = "mode=ro") -> int:
    """LiGlobals.libraryVersion of a `photos.db`. Raises LibraryError for that of Photos 2 or earlier, or for none."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?{flags}", uri=True)) as connection:
            row = connection.execute("SELECT value FROM LiGlobals WHERE keyPath = 'libraryVersion'").fetchone()
    except sqlite3.Error as error:
        raise damaged(library, error) from error
    version = str(row[0]) if row is not None else "unknown"
    if not version.isdecimal() or int(version) < _EARLIEST_LIBRARY_VERSION:
        raise LibraryError(
            library,
            f"a library of Photos 2 (macOS 10.12) or earlier (version {version}), which is not read",
            next_step="Open it once in a later Photos, which upgrades it, then run this again.",
        )
    return int(version)


def model_version(database: Path, flags: str = "mode=ro") -> int:
    """Of the library; Photos raises it with its schema. Raises ValueError and its like, KeyError, sqlite3.Error."""
    with closing(sqlite3.connect(f"{database.as_uri()}?{flags}", uri=True)) as connection:
        row = connection.execute("SELECT Z_PLIST FROM Z_METADATA").fetchone()
    if row is None:
        raise ValueError("it has no version")
    return int(plistlib.loads(row[0])["PLModelVersion"])
