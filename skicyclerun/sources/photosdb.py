"""A whole library through `osxphotos.PhotosDB`: Photos 3 and 4, and what `photos_tables` does not understand.

osxphotos is pointed at a copy (`PhotosDB(dbfile=copy, library_path=library)`), which it may open as it likes. It reads
all of every photo at once.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, cast

from skicyclerun.models import AlbumKind, Face, MediaKind, PhotoFacts, Place
from skicyclerun.sources.photos_asset import (
    AlbumRecord,
    AlbumUnreadable,
    Asset,
    Item,
    Listed,
    altitude_and_heading,
    is_on_top,
    is_shown,
    listed,
    nfc,
    persons_of,
)
from skicyclerun.sources.photos_bundle import CopyFolder
from skicyclerun.sources.photos_facts import date_of, face_of, faces_in_order, facts_in_order, whole_number
from skicyclerun.sources.photos_labels import PhotoLabels
from skicyclerun.sources.photos_places import place_of

log = logging.getLogger(__name__)

#: What is never asked for. osxphotos reads it for every photo of the library; leaving it out makes loading several
#: times faster and smaller. Methods of PhotosDB in osxphotos 0.75 to 0.77; one that is renamed is merely read.
_NOT_NEEDED: Final = (
    "_process_comments _process_exifinfo _process_moments _process_scoreinfo _process_searchinfo"
    " _process_shared_library_info"
).split()

#: Behind every place that Photos 4 gives (its `orderNumber`s are spaced by 1,024).
_LAST_PLACE: Final = 1 << 62


class _Forward(logging.Handler):
    """osxphotos' own messages go to our log at debug level: they are about its support matrix, not about photos."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("osxphotos: %s", record.getMessage())


def quiet_osxphotos() -> Any:
    """The osxphotos package, which writes to our log and not to stderr."""
    import osxphotos  # here, because it costs a third of a second that `status` and `--help` need not pay

    logger = logging.getLogger("osxphotos")
    if not any(isinstance(handler, _Forward) for handler in logger.handlers):
        logger.handlers = [_Forward()]
        logger.propagate = False
    return osxphotos


class WholeLibrary:
    """A `PhotosDatabase` that has all of the library in memory."""

    def __init__(self, library: Path, copied: Path, folder: CopyFolder, check: Callable[..., None]) -> None:
        """Read the copy of the library's database. `close` removes the folder it lies in.

        Raises whatever osxphotos trips over; it has no common base for that.
        """
        self._folder = folder
        self._place: dict[str, tuple[float | None, float | None]] = {}
        self._inferred_offset: dict[str, int] = {}
        self._place_in_sidebar: dict[str, tuple[int, ...]] = {}
        """By album of Photos 4, where osxphotos does not say it."""
        self._photosdb = _new_photosdb()
        self._connections = _kept_connections(self._photosdb)
        try:
            self._photosdb.__init__(dbfile=str(copied), library_path=str(library), verbose=check, _skip_searchinfo=True)
            self._labels = PhotoLabels(library, folder, self._photosdb._photos_ver, check)
            self._read_places()
            if copied.name == "photos.db":
                self._read_albums_of_photos_4()
        except BaseException:
            _release(self._photosdb, self._connections)
            raise

    def albums(self) -> list[AlbumRecord]:
        photosdb, records = self._photosdb, []
        for kind, albums in (
            (AlbumKind.ALBUM, photosdb.album_info),
            (AlbumKind.SHARED, photosdb.album_info_shared),
            (AlbumKind.PROJECT, photosdb.project_info),
        ):
            for album in sorted(albums, key=self._place_of_album):
                try:
                    records.append(_record(album, kind))
                except Exception as error:
                    # osxphotos has no common base for what it raises over rows it does not expect.
                    raise AlbumUnreadable(nfc(album.title or ""), error) from error
        return records

    def _place_of_album(self, album: Any) -> tuple[tuple[int, ...], str, str]:
        return self._place_in_sidebar.get(album.uuid) or album.library_list_order, album.title or "", album.uuid

    def items(self, uuids: Sequence[str]) -> list[Item]:
        assets = (cast("Asset | None", self._photosdb.get_photo(uuid)) for uuid in uuids)
        return [self._item(asset) for asset in assets if asset is not None]

    def listing(self, uuids: Sequence[str]) -> list[Listed]:
        return [listed(item) for item in self.items(uuids)]

    def _item(self, asset: Asset) -> Item:
        altitude, heading = self._place.get(asset.uuid, (None, None))
        return Item(asset, altitude, heading, self._inferred_offset.get(asset.uuid))

    def facts(self, albums: Mapping[str, Sequence[str]], wanted: Callable[[PhotoFacts], bool]) -> list[PhotoFacts]:
        all_of_them = (self._facts(item, albums) for item in self.items(list(self._photosdb._dbphotos)))
        return facts_in_order(filter(wanted, all_of_them))

    def _facts(self, item: Item, albums: Mapping[str, Sequence[str]]) -> PhotoFacts:
        asset: Any = item.asset
        offset = item.inferred_offset if asset.tzoffset is None else asset.tzoffset
        date, offset_known = date_of(asset._info["imageDate_timestamp"], offset)
        return PhotoFacts(
            id=asset.uuid,
            original_filename=asset.original_filename or "",
            media=MediaKind.VIDEO if asset.ismovie else MediaKind.PHOTO,
            date=date,
            offset_known=offset_known,
            favorite=bool(asset.favorite),
            hidden=bool(asset.hidden),
            in_trash=bool(asset.intrash),
            shown=is_on_top(asset),
            screenshot=bool(asset.screenshot or asset.screen_recording),
            width=max(whole_number(asset.width), 0),
            height=max(whole_number(asset.height), 0),
            keywords=tuple(sorted({each for each in asset._info["keywords"] if isinstance(each, str)})),
            persons=persons_of(asset),
            albums=tuple(albums.get(asset.uuid, ())),
            shared=bool(asset.shared),
        )

    def places(self, uuids: Iterable[str]) -> dict[str, Place]:
        found: dict[str, Place] = {}
        for uuid in uuids:
            facts = self._photosdb._dbphotos.get(uuid)
            if facts is None:
                continue
            if (blob := facts.get("reverse_geolocation")) is not None:
                place = place_of(blob)
            else:
                place = _place_of_photos_4(self._photosdb.get_photo(uuid).place)
            if place is not None:
                found[uuid] = place
        return found

    def faces(self, uuid: str) -> tuple[Face, ...]:
        asset = self._photosdb.get_photo(uuid)
        if asset is None:
            return ()
        return faces_in_order(
            face_of(face.name, face.center_x, face.center_y, face.size, asset.width, asset.height)
            for face in asset.face_info
            if not face.intrash and not face._info["hidden"]
        )

    def labels(self, uuid: str) -> tuple[str, ...]:
        return self._labels.of(uuid)

    def close(self) -> None:
        self._labels.close()
        _release(self._photosdb, self._connections)
        self._folder.remove()

    def _read_places(self) -> None:
        """Fill `_place` and `_inferred_offset`; columns that this Photos version does not have are left out."""
        with closing(_open_copy(Path(self._photosdb._tmp_db))) as connection:
            asset = "ZASSET" if _columns(connection, "ZASSET") else "ZGENERICASSET"
            if "ZLOCATIONDATA" in _columns(connection, asset):
                for uuid, latitude, longitude, blob in connection.execute(
                    f"SELECT ZUUID, ZLATITUDE, ZLONGITUDE, ZLOCATIONDATA FROM {asset} WHERE ZLOCATIONDATA IS NOT NULL"
                ):
                    altitude, heading = altitude_and_heading(blob, latitude, longitude)
                    if altitude is not None or heading is not None:
                        self._place[uuid] = (altitude, heading)
            if {"ZTIMEZONEOFFSET", "ZINFERREDTIMEZONEOFFSET"} <= _columns(connection, "ZADDITIONALASSETATTRIBUTES"):
                self._inferred_offset.update(
                    connection.execute(
                        f"SELECT asset.ZUUID, extra.ZINFERREDTIMEZONEOFFSET FROM {asset} AS asset"
                        " JOIN ZADDITIONALASSETATTRIBUTES AS extra ON extra.ZASSET = asset.Z_PK"
                        " WHERE extra.ZTIMEZONEOFFSET IS NULL AND extra.ZINFERREDTIMEZONEOFFSET IS NOT NULL"
                    )
                )

    def _read_albums_of_photos_4(self) -> None:
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


def _record(album: Any, kind: AlbumKind) -> AlbumRecord:
    shown = [asset for asset in album.photos if is_shown(asset)]
    return AlbumRecord(
        id=album.uuid,
        title=nfc(album.title or ""),
        folders=tuple(nfc(name or "") for name in album.folder_names),
        uuids=tuple(asset.uuid for asset in shown),
        size=sum(whole_number(asset.original_filesize) for asset in shown),
        kind=kind,
    )


def _place_of_photos_4(info: Any) -> Place | None:
    """Of osxphotos' PlaceInfo4, which has the names in its own table and no archive."""
    if info is None:
        return None

    def first(names: Sequence[str]) -> str:
        return nfc(names[0]) if names and names[0] else ""

    names = info.names
    return Place(
        country=first(names.country),
        country_code=(info.country_code or "").upper(),
        state=first(names.state_province),
        city=first(names.city),
        name=nfc(info.name or ""),
    )


def _new_photosdb() -> Any:
    """A new, uninitialised PhotosDB that leaves out what is not needed."""
    osxphotos = quiet_osxphotos()

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


def _kept_connections(photosdb: Any) -> list[sqlite3.Connection]:
    """Every connection that a PhotosDB hands out from now on: it lets go of some without closing them (0.77)."""
    kept: list[sqlite3.Connection] = []
    connect = photosdb.get_db_connection

    def get_db_connection() -> tuple[sqlite3.Connection, sqlite3.Cursor]:
        connection, cursor = connect()
        kept.append(connection)
        return connection, cursor

    photosdb.get_db_connection = get_db_connection
    return kept


def _release(photosdb: Any, connections: list[sqlite3.Connection]) -> None:
    """Close what a PhotosDB holds, however far its constructor came."""
    held = getattr(photosdb, "__dict__", {})
    for connection in connections:
        connection.close()
    held["_db_connection"] = None
    if (temporary := held.get("_tempdir")) is not None:
        temporary.cleanup()
