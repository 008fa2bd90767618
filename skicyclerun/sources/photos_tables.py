"""A library of Photos 5 or later, read from the tables of its `Photos.sqlite` when and as far as it is asked.

osxphotos still resolves where the files of a photo are: it gets a record in its own shape (`photos_records`), for the
photos that are asked for. A database that these statements do not fit raises when it is opened, before anything was
said of it; it is then read as a whole (`photosdb`).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from skicyclerun.errors import LibraryError
from skicyclerun.models import Face, PhotoFacts, Place
from skicyclerun.sources.photos_albums import read_albums
from skicyclerun.sources.photos_asset import AlbumRecord, Item, Listed, altitude_and_heading, listed
from skicyclerun.sources.photos_bundle import CopyFolder, damaged
from skicyclerun.sources.photos_facts import facts_statements, in_parts, read_faces, read_facts, read_places
from skicyclerun.sources.photos_labels import PhotoLabels
from skicyclerun.sources.photos_listing import read_listing
from skicyclerun.sources.photos_records import (
    Record,
    missing_statements,
    raw_statement,
    read_missing,
    read_names,
    read_raw,
    read_records,
)
from skicyclerun.sources.photos_schema import Schema, read_schema
from skicyclerun.sources.photos_snapshot import Snapshot, copied_snapshot, decoded, is_no_text
from skicyclerun.sources.photosdb import quiet_osxphotos

log = logging.getLogger(__name__)
T = TypeVar("T")

_KEPT: Final = 8_192
"""Photos of which records are kept in memory, 4 kB each: those of the album in hand, so that `fetch` asks no more."""
_LISTED: Final = 64
"""Statements' worth of photos that were listed last, of which it is known that they were listed together."""


class LibraryTables:
    """A `PhotosDatabase` that keeps next to nothing in memory."""

    def __init__(self, snapshot: Snapshot, folder: CopyFolder, check: Callable[..., None]) -> None:
        """Open the snapshot and try all statements on it; `close` removes `folder`.

        Raises SchemaUnknown, sqlite3.Error, ImportError, or what osxphotos raises.
        """
        self._snapshot = snapshot
        self._folder = folder
        self._check = check
        self._lock = threading.RLock()
        self._kept: OrderedDict[str, Item] = OrderedDict()
        self._listed: deque[frozenset[str]] = deque(maxlen=_LISTED)
        """Photos that were listed together."""
        self._missing: frozenset[str] | None = None
        self._raw: dict[str, tuple[str | None, str | None]] = {}
        self._photosdb: Any = _photosdb(self, snapshot.library)
        self._connection = snapshot.connect()
        try:
            self._schema = self._begin()
            self._labels = PhotoLabels(snapshot.library, folder, self._schema.photos_version, check)
            self._albums = read_albums(self._connection, self._schema)
        except BaseException:
            self._connection.close()
            raise

    def _begin(self) -> Schema:
        schema = read_schema(self._connection, self._folder.path / "version.sqlite")
        self._photosdb._photos_ver = schema.photos_version
        self._names = read_names(self._connection)
        self._photosdb._dbpersons_pk = self._names.persons
        nobody = ("",)
        read_records(self._connection, schema, self._names, nobody)
        read_listing(self._connection, schema, self._names, (), nobody)
        self._item(Record())
        read_places(self._connection, schema, nobody)
        read_faces(self._connection, schema, "")
        for statement in (*missing_statements(schema), raw_statement(schema), *facts_statements(schema)):
            self._connection.execute(f"EXPLAIN {statement}")
        self._kept.clear()
        self._missing = None
        return schema

    def albums(self) -> list[AlbumRecord]:
        return self._albums

    def items(self, uuids: Sequence[str]) -> list[Item]:
        with self._lock:
            found: dict[str, Item] = {}
            for part in in_parts(uuids):
                for absent in self._absent(part):
                    self._read(partial(self._load, uuids=absent))
                found.update((uuid, self._kept[uuid]) for uuid in part if uuid in self._kept)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return [found[uuid] for uuid in uuids if uuid in found]

    def listing(self, uuids: Sequence[str]) -> list[Listed]:
        found: dict[str, Listed] = {}
        with self._lock:
            for part in in_parts(uuids):
                found |= self._read(partial(self._listing, uuids=part))
                self._listed.append(frozenset(part))
            if odd := [uuid for uuid in uuids if uuid not in found]:
                found |= {item.asset.uuid: listed(item) for item in self.items(odd)}
        return [found[uuid] for uuid in uuids if uuid in found]

    def facts(self, albums: Mapping[str, Sequence[str]], wanted: Callable[[PhotoFacts], bool]) -> list[PhotoFacts]:
        return self._read(lambda connection, schema: read_facts(connection, schema, albums, wanted))

    def places(self, uuids: Iterable[str]) -> dict[str, Place]:
        wanted = list(uuids)
        return self._read(lambda connection, schema: read_places(connection, schema, wanted))

    def faces(self, uuid: str) -> tuple[Face, ...]:
        return self._read(lambda connection, schema: read_faces(connection, schema, uuid))

    def labels(self, uuid: str) -> tuple[str, ...]:
        return self._labels.of(uuid)

    def execute(self, sql: str, parameters: Any = None) -> _Rows:
        """For osxphotos, which asks for the movie of a Live Photo that the library only refers to."""
        return _Rows(self._read(lambda connection, _schema: connection.execute(sql, parameters or ()).fetchall()))

    def close(self) -> None:
        with self._lock:
            self._labels.close()
            self._connection.close()
            self._kept.clear()
        self._folder.remove()

    def _absent(self, part: Sequence[str]) -> Iterator[list[str]]:
        """What is to be read for these photos, a statement each: with them what was listed with them, as `fetch` asks
        for one after the other."""
        absent = {uuid for uuid in part if uuid not in self._kept}
        for together in self._listed:
            if not absent.isdisjoint(together):
                absent -= together
                yield [uuid for uuid in together if uuid not in self._kept]
        if absent:
            yield list(absent)

    def _listing(self, connection: sqlite3.Connection, schema: Schema, uuids: Sequence[str]) -> dict[str, Listed]:
        return read_listing(connection, schema, self._names, self._missing_in(connection, schema), uuids)

    def _missing_in(self, connection: sqlite3.Connection, schema: Schema) -> frozenset[str]:
        if self._missing is None:
            self._raw = read_raw(connection, schema)
            self._missing = read_missing(connection, schema)
        return self._missing

    def _load(self, connection: sqlite3.Connection, schema: Schema, uuids: Sequence[str]) -> None:
        missing = self._missing_in(connection, schema)
        for uuid, record in read_records(connection, schema, self._names, uuids).items():
            record["isMissing"] = 1 if uuid in missing else 0
            if uuid in self._raw:
                record["has_raw"] = True
                volume, path = self._raw[uuid]
                if volume is not None and path is not None:
                    record.update(raw_volume=volume, raw_relative_path=path)
            self._kept[uuid] = self._item(record)

    def _item(self, record: Record) -> Item:
        """What osxphotos makes of a record, and what it does not."""
        from osxphotos import PhotoInfo

        uuid = record["_uuid"]
        if record["syndication_identifier"] is not None:
            self._photosdb._db_syndication_uuid[uuid] = {
                key: record[key] for key in ("syndication_identifier", "syndication_history")
            }
        altitude, heading = altitude_and_heading(
            record.pop("location_data", None), record["latitude"], record["longitude"]
        )
        asset = PhotoInfo(db=self._photosdb, uuid=uuid, info=record)
        return Item(asset, altitude, heading, record["inferred_offset"])

    def _ask(self, ask: Callable[[], T]) -> T:
        """The answer, also where a text is no UTF-8; looking at each text is slow, so only where there is one."""
        try:
            return ask()
        except sqlite3.OperationalError as error:
            if not is_no_text(error) or self._connection.text_factory is not str:
                raise
            self._connection.text_factory = decoded
            return ask()

    def _read(self, ask: Callable[[sqlite3.Connection, Schema], T]) -> T:
        """The answer of one moment: where the database changed meanwhile, a copy is asked again.

        Raises LibraryError where it cannot be read any more.
        """
        with self._lock:
            while True:
                trouble: sqlite3.Error | None = None
                try:
                    answer = self._ask(partial(ask, self._connection, self._schema))
                except sqlite3.Error as error:
                    trouble = error
                if self._snapshot.holds():
                    if trouble is None:
                        return answer
                    raise damaged(self._snapshot.library, trouble) from trouble
                self._take_again()

    def _take_again(self) -> None:
        """Photos has written to the database that was read in place: from now on a copy."""
        log.debug("%s changed while it was read; it is copied", self._snapshot.database)
        self._connection.close()
        self._snapshot = copied_snapshot(self._snapshot.library, self._snapshot.source, self._folder.path, self._check)
        try:
            self._connection = self._snapshot.connect()
            self._schema = self._ask(self._begin)
        except Exception as error:
            raise LibraryError(
                self._snapshot.library, f"it was changed by another program and cannot be read any more ({error})"
            ) from error


class _Rows:
    """What is left of a cursor when its rows were fetched."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows


def _photosdb(tables: LibraryTables, library: Path) -> Any:
    """A PhotosDB that has read nothing, as far as PhotoInfo needs one."""
    osxphotos = quiet_osxphotos()

    def execute(_self: object, sql: str, parameters: Any = None) -> _Rows:
        return tables.execute(sql, parameters)

    stand_in: Any = type("TablesPhotosDB", (osxphotos.PhotosDB,), {"execute": execute})
    photosdb = stand_in.__new__(stand_in)
    photosdb._verbose = lambda *_: None
    photosdb._db_version = "5001"  # as osxphotos tells it from a Photos.sqlite alone
    photosdb._library_path = str(library)
    photosdb._masters_path = str(library / "originals")
    photosdb._exiftool_path = None
    photosdb._dbphotos = {}
    photosdb._db_syndication_uuid = {}
    photosdb._dbpersons_pk = {}
    return photosdb
