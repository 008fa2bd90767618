"""What the tables and columns of a library's `Photos.sqlite` are called: Core Data numbers them anew with every Photos.

osxphotos knows the names by Photos' version (`_constants._DB_TABLE_NAMES`); whether the database has them is asked of
the database. Whoever finds that it has not reads the library through osxphotos (`photosdb.py`) and not from its tables.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast


class SchemaUnknown(Exception):
    """This database has not the tables and columns that are asked for here."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Names in one database. Columns come with their table: `ZASSET.ZADJUSTMENTSSTATE`."""

    photos_version: float
    """As osxphotos counts: 5 (macOS 10.15) to 12, with 9.6, 9.9 and 11.1 between."""
    asset: str
    """The table of photos."""
    membership: str
    """The table of which photo is in which album."""
    member_album: str
    member_asset: str
    member_order: str
    keyword: str
    face_asset: str
    face_person: str
    original_type: str
    """Of a resource."""
    fingerprint: str
    """Of the original; in ZADDITIONALASSETATTRIBUTES."""
    adjustments: str
    columns: dict[str, frozenset[str]]
    """By table."""

    def has(self, table: str, *columns: str) -> bool:
        return self.columns.get(table, frozenset()).issuperset(columns)

    def column(self, table: str, column: str) -> str:
        """The column where the table has it, otherwise NULL."""
        return f"{table}.{column}" if self.has(table, column) else "NULL"


def read_schema(connection: sqlite3.Connection, scratch: Path) -> Schema:
    """The schema of an opened `Photos.sqlite`. `scratch` is a file that may be made for it.

    Raises SchemaUnknown and sqlite3.Error.
    """
    version = photos_version(connection, scratch)
    try:
        from osxphotos._constants import _DB_TABLE_NAMES as known

        names: dict[str, Any] = known[version]
        schema = Schema(
            photos_version=version,
            asset=names["ASSET"],
            membership=names["ASSET_ALBUM_TABLE"],
            member_album=names["ASSET_ALBUM_JOIN"],
            member_asset=names["ALBUM_JOIN"],
            member_order=names["ALBUM_SORT_ORDER"],
            keyword=names["KEYWORD_JOIN"],
            face_asset=names["DETECTED_FACE_ASSET_FK"],
            face_person=names["DETECTED_FACE_PERSON_FK"],
            original_type=names["UTI_ORIGINAL"],
            fingerprint=names["MASTER_FINGERPRINT"],
            adjustments=names["HAS_ADJUSTMENTS"],
            columns=_columns(connection),
        )
    except (ImportError, KeyError, TypeError) as error:
        raise SchemaUnknown(f"Photos {version}: {type(error).__name__}: {error}") from error
    for each in (schema.member_order, schema.keyword, schema.face_asset, schema.face_person):
        table, _, column = each.partition(".")
        if not schema.has(table, column):
            raise SchemaUnknown(f"Photos {version}: there is no {each}")
    return schema


def photos_version(connection: sqlite3.Connection, scratch: Path) -> float:
    """The version of Photos that the library's model belongs to, as osxphotos tells it. Raises SchemaUnknown.

    osxphotos reads it from a database that it opens by its name, so it gets one of its own with that table in it.
    """
    row = connection.execute("SELECT MAX(Z_VERSION), Z_PLIST FROM Z_METADATA").fetchone()
    try:
        from osxphotos.photosdb.photosdb_utils import get_photos_version_from_model

        scratch.unlink(missing_ok=True)
        alone = sqlite3.connect(scratch)
        try:
            with alone:
                alone.execute("CREATE TABLE Z_METADATA (Z_VERSION INTEGER, Z_PLIST BLOB)")
                alone.execute("INSERT INTO Z_METADATA VALUES (?, ?)", row)
        finally:
            alone.close()
        return cast("float", get_photos_version_from_model(str(scratch)))
    except (ImportError, ValueError, TypeError, KeyError) as error:
        raise SchemaUnknown(f"its version: {type(error).__name__}: {error}") from error
    finally:
        scratch.unlink(missing_ok=True)


def _columns(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        table: frozenset(row[1] for row in connection.execute("SELECT * FROM pragma_table_info(?)", (table,)))
        for table in tables
    }
