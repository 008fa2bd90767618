"""The database of a Photos library, read through osxphotos, from a copy, quietly.

osxphotos is pointed at the copy (`PhotosDB(dbfile=copy, library_path=library)`), which it may open as it likes.
This is also the one boundary at which osxphotos' and SQLite's exceptions are translated into ours.
"""

from __future__ import annotations

import logging
import plistlib
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from skicyclerun.errors import LibraryError, SkicyclerunError
from skicyclerun.sources.photos_bundle import CopyFolder, check_is_library, copy_database

log = logging.getLogger(__name__)
T = TypeVar("T")

#: What an export never asks for. osxphotos reads it for every photo of the library; leaving it out makes loading
#: several times faster and smaller. Methods of PhotosDB in osxphotos 0.75 to 0.77; one that is renamed is merely read.
#: Without the entity of collection shares, the shared albums of Photos 11 are not read either.
_NOT_NEEDED: Final = (
    "_get_collection_share_entity _process_comments _process_exifinfo _process_faceinfo _process_moments "
    "_process_scoreinfo _process_searchinfo _process_shared_library_info"
).split()

#: Indexes of PhotosDB over all photos that nothing here looks into.
_LARGE: Final = ("_db_signatures", "_dbalbums_album", "_dbalbums_uuid", "_dbfaces_pk", "_dbkeywords_keyword")


#: Behind every place that Photos 4 gives (its `orderNumber`s are spaced by 1,024).
_LAST_PLACE: Final = 1 << 62


class Asset(Protocol):
    """The part of `osxphotos.PhotoInfo` that is used here; every name is in its documented interface."""

    uuid: str
    original_filename: str
    date: datetime | None
    date_modified: datetime | None
    tzoffset: int | None
    path: str | None
    path_edited: str | None
    path_live_photo: str | None
    path_edited_live_photo: str | None
    path_derivatives: list[str]
    location: tuple[float | None, float | None]
    title: str | None
    description: str | None
    keywords: list[str]
    persons: list[str | None]
    favorite: bool
    hidden: bool
    intrash: bool
    ismovie: bool
    ismissing: bool
    isreference: bool
    live_photo: bool
    slow_mo: bool
    hasadjustments: bool
    adjustment_type: int | None
    burst: bool
    burst_selected: bool
    burst_key: bool
    visible: bool
    original_filesize: int | None
    fingerprint: str | None


class AlbumRecord(Protocol):
    """The part of `osxphotos.AlbumInfo` that is used here."""

    uuid: str
    title: str | None
    photos: list[Asset]
    folder_names: list[str]
    library_list_order: tuple[int, ...]


class Abandoned(Exception):
    """Nobody waits for this library any more; raised inside the loading thread only."""


class _Forward(logging.Handler):
    """osxphotos' own messages go to our log at debug level: they are about its support matrix, not about photos."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("osxphotos: %s", record.getMessage())


class PhotosDatabase:
    """An opened library: osxphotos' view of a private copy of its database, and what osxphotos does not read.

    Made by `LibraryLoader`; `close` removes the copy. Reading from several threads at once is safe.
    """

    def __init__(self, photosdb: Any, folder: CopyFolder) -> None:
        self._photosdb = photosdb
        self._folder = folder
        self.place: dict[str, tuple[float | None, float | None]] = {}
        """Altitude in metres and heading in degrees by photo, where Photos knows one of them."""
        self.inferred_offset: dict[str, int] = {}
        """Seconds east of UTC that Photos inferred, for photos without a time zone of their own."""
        self._place_in_sidebar: dict[str, tuple[int, ...]] = {}
        """By album of Photos 4, where osxphotos does not say it."""

    @property
    def albums(self) -> list[AlbumRecord]:
        """The user's own albums in the sidebar's order, not in the trash; neither smart, shared nor project albums."""
        albums = cast("list[AlbumRecord]", self._photosdb.album_info)

        def place(album: AlbumRecord) -> tuple[tuple[int, ...], str, str]:
            return self._place_in_sidebar.get(album.uuid) or album.library_list_order, album.title or "", album.uuid

        return sorted(albums, key=place)

    def asset(self, uuid: str) -> Asset | None:
        """The photo of that id, None if the library has none."""
        return cast("Asset | None", self._photosdb.get_photo(uuid))

    def keep_only(self, uuids: Iterable[str]) -> None:
        """Forget all other photos, and what is large and never asked for: most of a library is in no album."""
        photos: dict[str, dict[str, object]] = self._photosdb._dbphotos
        kept = {uuid: photos[uuid] for uuid in uuids if uuid in photos}
        for facts in kept.values():
            facts["reverse_geolocation"] = None
        self._photosdb._dbphotos = kept
        vars(self._photosdb).pop("_album_info", None)  # its albums remember their photos
        for name in _LARGE:
            getattr(self._photosdb, name, {}).clear()

    def read_places(self) -> None:
        """Fill `place` and `inferred_offset`; columns that this Photos version does not have are left out."""
        with closing(_open_copy(Path(self._photosdb._tmp_db))) as connection:
            asset = "ZASSET" if _columns(connection, "ZASSET") else "ZGENERICASSET"
            if "ZLOCATIONDATA" in _columns(connection, asset):
                for uuid, latitude, longitude, blob in connection.execute(
                    f"SELECT ZUUID, ZLATITUDE, ZLONGITUDE, ZLOCATIONDATA FROM {asset} WHERE ZLOCATIONDATA IS NOT NULL"
                ):
                    altitude, heading = altitude_and_heading(blob, latitude, longitude)
                    if altitude is not None or heading is not None:
                        self.place[uuid] = (altitude, heading)
            if {"ZTIMEZONEOFFSET", "ZINFERREDTIMEZONEOFFSET"} <= _columns(connection, "ZADDITIONALASSETATTRIBUTES"):
                self.inferred_offset.update(
                    connection.execute(
                        f"SELECT asset.ZUUID, extra.ZINFERREDTIMEZONEOFFSET FROM {asset} AS asset"
                        " JOIN ZADDITIONALASSETATTRIBUTES AS extra ON extra.ZASSET = asset.Z_PK"
                        " WHERE extra.ZTIMEZONEOFFSET IS NULL AND extra.ZINFERREDTIMEZONEOFFSET IS NOT NULL"
                    )
                )

    def read_albums_of_photos_4(self) -> None:
        """What osxphotos leaves out for Photos 4 and earlier: the sidebar's order, and photos without a place by hand.

        It takes an album's photos from RKCustomSortOrder, where those stand that have such a place; RKAlbumVersion is
        the table of which photo is in which album (both are filled in Test-10.14.5 of osxphotos' test data).
        """
        members: dict[str, list[tuple[str, int]]] = self._photosdb._dbalbums_album
        with closing(_open_copy(Path(self._photosdb._tmp_db))) as connection:
            places = dict(connection.execute("SELECT objectUuid, orderNumber FROM RKCustomSortOrder"))
            above = dict(connection.execute("SELECT uuid, parentFolderUuid FROM RKFolder"))
            for album, folder in connection.execute("SELECT uuid, folderUuid FROM RKAlbum").fetchall():
                way, seen = [places.get(album, _LAST_PLACE)], {None, "LibraryFolder", "TopLevelAlbums"}
                while folder not in seen:
                    seen.add(folder)
                    way.insert(0, places.get(folder, _LAST_PLACE))
                    folder = above.get(folder)
                self._place_in_sidebar[album] = tuple(way)
            listed = {(album, photo) for album, photos in members.items() for photo, _ in photos}
            for album, photo in connection.execute(
                "SELECT RKAlbum.uuid, RKVersion.uuid FROM RKAlbumVersion"
                " JOIN RKAlbum ON RKAlbum.modelId = RKAlbumVersion.albumId"
                " JOIN RKVersion ON RKVersion.modelId = RKAlbumVersion.versionId ORDER BY RKAlbumVersion.modelId"
            ):
                if (album, photo) not in listed:
                    members.setdefault(album, []).append((photo, _LAST_PLACE))

    def close(self) -> None:
        """Close osxphotos' connections and remove the copy. Safe to call twice."""
        _release(self._photosdb)
        self._folder.remove()


def altitude_and_heading(
    blob: object, latitude: float | None, longitude: float | None
) -> tuple[float | None, float | None]:
    """Altitude (metres) and heading (degrees) from ZASSET.ZLOCATIONDATA, as far as they are known.

    The column holds eight little-endian doubles: latitude, longitude, altitude, horizontal and vertical accuracy,
    course, speed, and seconds since 2001. Compared on iPhone pictures with their EXIF: altitude is GPSAltitude, course
    is GPSImgDirection. A negative accuracy or course means unknown, as in CLLocation, and an unknown altitude or
    course of an imported file is stored as 0.
    """
    if not isinstance(blob, bytes) or len(blob) < 64 or latitude is None or longitude is None:
        return None, None
    at_latitude, at_longitude, altitude, _, vertical_accuracy, course, _, _ = struct.unpack_from("<8d", blob)
    if not (abs(at_latitude - latitude) < 1e-6 and abs(at_longitude - longitude) < 1e-6):
        return None, None  # a blob that is out of step with the position is not believed
    known_altitude = altitude if vertical_accuracy >= 0 and altitude != 0 and -12_000 < altitude < 100_000 else None
    return known_altitude, course if 0 < course < 360 else None


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
    copied = copy_database(library, check_is_library(library), folder.path, check)
    _check_sqlite(library, copied)
    photosdb: Any = None
    try:
        photosdb = _photosdb_class()
        photosdb.__init__(dbfile=str(copied), library_path=str(library), verbose=check, _skip_searchinfo=True)
        database = PhotosDatabase(photosdb, folder)
        database.read_places()
        if copied.name == "photos.db":
            database.read_albums_of_photos_4()
    except BaseException as error:
        _release(photosdb)
        if isinstance(error, SkicyclerunError | Abandoned | MemoryError) or not isinstance(error, Exception):
            raise
        if isinstance(error, ImportError):
            raise LibraryError(
                library,
                f"osxphotos, which reads it, cannot be loaded ({error})",
                next_step="Install skicyclerun anew, or its dependency alone: `pip install --upgrade osxphotos`.",
            ) from error
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            raise _damaged(library, error) from error
        version = ""
        with suppress(Exception):  # whatever is wrong with it, the version is only told, never needed
            version = f"model version {model_version(copied)}; "
        # Whatever osxphotos trips over (it has no common base for what it raises) is a schema it does not know.
        raise LibraryError(
            library,
            f"its database cannot be understood ({version}{type(error).__name__}: {error})",
            next_step="A newer osxphotos may know it: `pip install --upgrade osxphotos`.",
        ) from error
    return database


def _photosdb_class() -> Any:
    """A new, uninitialised PhotosDB that leaves out what an export does not need, and does not write to stderr."""
    import osxphotos  # here, because it costs a third of a second that `status` and `--help` need not pay

    logger = logging.getLogger("osxphotos")
    if not any(isinstance(handler, _Forward) for handler in logger.handlers):
        logger.handlers = [_Forward()]
        logger.propagate = False

    def nothing(_self: object) -> None:
        return None

    members = {name: nothing for name in _NOT_NEEDED if hasattr(osxphotos.PhotosDB, name)}
    reader: Any = type(
        "ExportPhotosDB", (osxphotos.PhotosDB,), {**members, "_process_syndicationinfo": _read_syndication}
    )
    return reader.__new__(reader)


def _read_syndication(photosdb: Any) -> None:
    """What PhotosDB's method of this name reads, for the few photos that others shared in Messages and the like.

    A beta of macOS 12 has the identifier and not yet the history.
    """
    photosdb._db_syndication_uuid = {}
    with closing(_open_copy(Path(photosdb._tmp_db))) as connection:
        columns = _columns(connection, "ZADDITIONALASSETATTRIBUTES")
        if "ZSYNDICATIONIDENTIFIER" not in columns:
            return
        history_column = "extra.ZSYNDICATIONHISTORY" if "ZSYNDICATIONHISTORY" in columns else "NULL"
        for uuid, history, identifier in connection.execute(
            f"SELECT asset.ZUUID, {history_column}, extra.ZSYNDICATIONIDENTIFIER FROM ZASSET AS asset"
            " JOIN ZADDITIONALASSETATTRIBUTES AS extra ON extra.ZASSET = asset.Z_PK"
            " WHERE extra.ZSYNDICATIONIDENTIFIER IS NOT NULL"
        ):
            photosdb._db_syndication_uuid[uuid] = {
                "syndication_identifier": identifier,
                "syndication_history": history,
                "syndication_state": None,
            }


def _open_copy(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _release(photosdb: Any) -> None:
    """Close what a PhotosDB holds, however far its constructor came."""
    held = getattr(photosdb, "__dict__", {})
    connection = held.get("_db_connection")
    if connection is not None:
        connection.close()
        held["_db_connection"] = None
    if (temporary := held.get("_tempdir")) is not None:
        temporary.cleanup()


#: Tables by which a database of Photos is known: of Photos 5 and later, of Photos 4 and earlier.
_TABLES: Final = {"Photos.sqlite": {"Z_METADATA", "ZGENERICALBUM"}, "photos.db": {"LiGlobals", "RKVersion", "RKAlbum"}}

#: LiGlobals.libraryVersion is 2622 in Photos 2 (macOS 10.12), 3301 in Photos 3 (10.13), 4016 and 4025 in Photos 4
#: (10.14), by osxphotos' table of versions.
_EARLIEST_LIBRARY_VERSION: Final = 3000


def _check_sqlite(library: Path, copied: Path) -> None:
    """Raise LibraryError if the copy is no database, none of Photos', or one of Photos 2 or earlier."""
    try:
        # Not read-only: it merges the WAL into the copy, once for all that read it.
        with closing(sqlite3.connect(copied)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise _damaged(library, error) from error
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
        raise _damaged(library, error) from error
    version = str(row[0]) if row is not None else "unknown"
    if not version.isdecimal() or int(version) < _EARLIEST_LIBRARY_VERSION:
        raise LibraryError(
            library,
            f"a library of Photos 2 (macOS 10.12) or earlier (version {version}), which is not read",
            next_step="Open it once in a later Photos, which upgrades it, then run this again.",
        )
    return int(version)


def _damaged(library: Path, error: sqlite3.Error) -> LibraryError:
    return LibraryError(
        library,
        f"its database is damaged ({error})",
        next_step="Photos can repair it: hold Option and Command while opening Photos.",
    )


def model_version(database: Path, flags: str = "mode=ro") -> int:
    """Of the library; Photos raises it with its schema. Raises ValueError and its like, KeyError, sqlite3.Error."""
    with closing(sqlite3.connect(f"{database.as_uri()}?{flags}", uri=True)) as connection:
        row = connection.execute("SELECT Z_PLIST FROM Z_METADATA").fetchone()
    if row is None:
        raise ValueError("it has no version")
    return int(plistlib.loads(row[0])["PLModelVersion"])
