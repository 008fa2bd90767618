"""Rows of `Photos.sqlite` as the records that `osxphotos.PhotosDB` makes of them, for some photos at a time.

osxphotos resolves paths from such a record (`PhotoInfo._info`); only what that takes and what is asked of a photo here
is read. Keys, joins and what they mean are those of `PhotosDB._process_database5` in osxphotos 0.75 to 0.77.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from skicyclerun.sources.photos_facts import moment_by_osxphotos, moment_of_core_data
from skicyclerun.sources.photos_schema import Schema

KIND_OF_MOVIES: Final = 1
KIND_OF_LIVE_PHOTOS: Final = 2
"""ZKINDSUBTYPE."""
_KINDS: Final = (0, KIND_OF_MOVIES)
"""A photo, a movie: ZKIND, and osxphotos' `type`."""
_EXTRA: Final = "ZADDITIONALASSETATTRIBUTES"
_TYPES: Final = "JOIN ZUNIFORMTYPEIDENTIFIER ON ZUNIFORMTYPEIDENTIFIER.Z_PK = ZINTERNALRESOURCE.ZUNIFORMTYPEIDENTIFIER"
_TEXTS: Final = ("name", "originalFilename", "filename", "extendedDescription")


class Record(dict[str, Any]):
    """A `PhotoInfo._info`; what is not read is None, as it is where osxphotos finds nothing."""

    def __missing__(self, key: str) -> None:
        return None


def record_columns(schema: Schema) -> dict[str, str]:
    """By the keys of a record."""
    asset = schema.asset
    known_history = schema.photos_version >= 7
    return {
        "_uuid": f"{asset}.ZUUID",
        "pk": f"{asset}.Z_PK",
        "extra_pk": f"{_EXTRA}.Z_PK",
        "masterFingerprint": schema.fingerprint,
        "name": f"{_EXTRA}.ZTITLE",
        "originalFilename": f"{_EXTRA}.ZORIGINALFILENAME",
        "extendedDescription": "ZASSETDESCRIPTION.ZLONGDESCRIPTION",
        "filename": f"{asset}.ZFILENAME",
        "directory": f"{asset}.ZDIRECTORY",
        "lastmodifieddate_timestamp": f"{asset}.ZADJUSTMENTTIMESTAMP",
        "imageDate_timestamp": f"{asset}.ZDATECREATED",
        "imageTimeZoneOffsetSeconds": f"{_EXTRA}.ZTIMEZONEOFFSET",
        "imageTimeZoneName": f"{_EXTRA}.ZTIMEZONENAME",
        "hidden": f"{asset}.ZHIDDEN",
        "favorite": f"{asset}.ZFAVORITE",
        "latitude": f"{asset}.ZLATITUDE",
        "longitude": f"{asset}.ZLONGITUDE",
        "hasAdjustments": schema.adjustments,
        "cloudbatchpublishdate": f"{asset}.ZCLOUDBATCHPUBLISHDATE",
        "type": f"{asset}.ZKIND",
        "UTI": f"{asset}.ZUNIFORMTYPEIDENTIFIER",
        "burstUUID": f"{asset}.ZAVALANCHEUUID",
        "burstPickType": f"{asset}.ZAVALANCHEPICKTYPE",
        "subtype": f"{asset}.ZKINDSUBTYPE",
        "trashed": f"{asset}.ZTRASHEDSTATE",
        "height": f"{asset}.ZHEIGHT",
        "width": f"{asset}.ZWIDTH",
        "orientation": f"{asset}.ZORIENTATION",
        "original_height": f"{_EXTRA}.ZORIGINALHEIGHT",
        "original_width": f"{_EXTRA}.ZORIGINALWIDTH",
        "original_orientation": f"{_EXTRA}.ZORIGINALORIENTATION",
        "original_filesize": f"{_EXTRA}.ZORIGINALFILESIZE",
        "original_resource_choice": f"{_EXTRA}.ZORIGINALRESOURCECHOICE",
        "visibility_state": f"{asset}.ZVISIBILITYSTATE",
        "saved_asset_type": f"{asset}.ZSAVEDASSETTYPE",
        "moment_share": f"{asset}.ZMOMENTSHARE",
        "inferred_offset": schema.column(_EXTRA, "ZINFERREDTIMEZONEOFFSET"),
        "location_data": schema.column(asset, "ZLOCATIONDATA"),
        "syndication_identifier": schema.column(_EXTRA, "ZSYNDICATIONIDENTIFIER") if known_history else "NULL",
        "syndication_history": schema.column(_EXTRA, "ZSYNDICATIONHISTORY") if known_history else "NULL",
    }


@dataclass(frozen=True, slots=True)
class Names:
    """Those that records refer to, by key."""

    keywords: dict[int, Any]
    persons: dict[int, dict[str, Any]]
    """`PhotosDB._dbpersons_pk`, as far as names go."""


def read_names(connection: sqlite3.Connection) -> Names:
    from osxphotos._constants import _UNKNOWN_PERSON

    return Names(
        {key: normalized(title) for key, title in connection.execute("SELECT Z_PK, ZTITLE FROM ZKEYWORD")},
        {
            key: {"pk": key, "fullname": normalized(name) if name else _UNKNOWN_PERSON}
            for key, name in connection.execute("SELECT Z_PK, ZFULLNAME FROM ZPERSON")
        },
    )


def read_records(
    connection: sqlite3.Connection, schema: Schema, names: Names, uuids: Sequence[str]
) -> dict[str, Record]:
    """By uuid; for no more photos than one statement takes. `isMissing` is left to `read_missing`.

    Besides osxphotos' keys there are `inferred_offset`, `location_data`, `syndication_identifier` and `…_history`.
    """
    columns = record_columns(schema)
    records: dict[str, Record] = {}
    by_asset: dict[int, Record] = {}
    by_extra: dict[int, str] = {}
    for row in connection.execute(
        f"""SELECT {", ".join(columns.values())} FROM {record_tables(schema)}
        WHERE {schema.asset}.ZUUID IN ({",".join("?" * len(uuids))})""",
        uuids,
    ):
        record = Record(zip(columns, row, strict=True))
        for key in _TEXTS:
            if (text := record[key]) is not None:
                record[key] = normalized(text)
        _derive(record)
        uuid = record["_uuid"]
        records[uuid] = record
        by_asset[record["pk"]] = record
        by_extra[record.pop("extra_pk")] = uuid
    for extra, keyword in connection.execute(keywords_statement(schema, by_extra)):
        if keyword in names.keywords:
            records[by_extra[extra]]["keywords"].append(names.keywords[keyword])
    for key, person in connection.execute(persons_statement(schema, by_asset)):
        if person in names.persons:
            by_asset[key]["persons"].append(person)
    return records


def record_tables(schema: Schema) -> str:
    """Where the columns of a record are."""
    asset = schema.asset
    return f"""{asset} JOIN {_EXTRA} ON {_EXTRA}.ZASSET = {asset}.Z_PK
        LEFT JOIN ZASSETDESCRIPTION ON ZASSETDESCRIPTION.Z_PK = {_EXTRA}.ZASSETDESCRIPTION"""


def keywords_statement(schema: Schema, extras: Iterable[int]) -> str:
    """Of these photos' additional attributes: their key, and the key of a keyword."""
    return (
        f"SELECT Z_1KEYWORDS.Z_1ASSETATTRIBUTES, {schema.keyword} FROM Z_1KEYWORDS"
        f" WHERE Z_1KEYWORDS.Z_1ASSETATTRIBUTES IN ({_keys(extras)})"
    )


def persons_statement(schema: Schema, photos: Iterable[int]) -> str:
    """Of these photos: their key, and the key of a person in them."""
    return (
        f"SELECT {schema.face_asset}, {schema.face_person} FROM ZDETECTEDFACE"
        f" WHERE {schema.face_asset} IN ({_keys(photos)})"
    )


def _keys(keys: Iterable[int]) -> str:
    """For an IN; primary keys are whole numbers."""
    return ",".join(map(str, map(int, keys)))


def read_raw(connection: sqlite3.Connection, schema: Schema) -> dict[str, tuple[str | None, str | None]]:
    """The photos that have a RAW file beside them, with its volume and path where the library only refers to it."""
    return {uuid: (volume, path) for uuid, volume, path in connection.execute(raw_statement(schema))}


def raw_statement(schema: Schema) -> str:
    """What `read_raw` asks."""
    return f"""SELECT {schema.asset}.ZUUID, ZFILESYSTEMVOLUME.ZNAME, ZFILESYSTEMBOOKMARK.ZPATHRELATIVETOVOLUME
        FROM ZINTERNALRESOURCE JOIN {schema.asset} ON {schema.asset}.Z_PK = ZINTERNALRESOURCE.ZASSET
        LEFT JOIN ZFILESYSTEMBOOKMARK ON ZFILESYSTEMBOOKMARK.ZRESOURCE = ZINTERNALRESOURCE.Z_PK
        LEFT JOIN ZFILESYSTEMVOLUME ON ZFILESYSTEMVOLUME.Z_PK = ZINTERNALRESOURCE.ZFILESYSTEMVOLUME
        WHERE ZINTERNALRESOURCE.ZDATASTORESUBTYPE = 17"""


def normalized(text: Any) -> Any:
    """As osxphotos does it, which leaves None alone; what is ASCII is normalized in every form."""
    if isinstance(text, bytes):  # a column of texts takes them too
        text = text.decode(errors="replace")
    if text is None or (isinstance(text, str) and text.isascii()):
        return text
    from osxphotos.unicode import normalize_unicode

    return normalize_unicode(text)


def _derive(record: Record) -> None:
    """What osxphotos makes of a row."""
    if record["latitude"] == -180.0 and record["longitude"] == -180.0:
        record["latitude"] = record["longitude"] = None
    if record["type"] not in _KINDS:
        record["type"] = None
    record["filename"] = record["filename"] or ""
    record["directory"] = record["directory"] or ""
    record["imageDate"] = moment_by_osxphotos(  # in another zone than osxphotos': it is asked for the moment only
        record["imageDate_timestamp"], record["imageTimeZoneOffsetSeconds"], record["imageTimeZoneName"]
    )
    record["lastmodifieddate"] = moment_of_core_data(record["lastmodifieddate_timestamp"])
    record["shared"] = record["cloudbatchpublishdate"] is not None
    subtype = record["subtype"]
    record["burst"] = record["burstUUID"] is not None
    record["live_photo"] = subtype == KIND_OF_LIVE_PHOTOS
    record["screenshot"] = subtype == 10
    record["slow_mo"] = subtype == 101
    record["time_lapse"] = subtype == 102
    record["screen_recording"] = subtype == 103
    record["intrash"] = record["trashed"] == 1
    record["visible"] = record["visibility_state"] == 0
    record["isreference"] = record["saved_asset_type"] == 10
    record["raw_is_original"] = record["original_resource_choice"] == 1
    record["has_raw"] = False
    record["keywords"] = []
    record["persons"] = []


def read_missing(connection: sqlite3.Connection, schema: Schema) -> frozenset[str]:
    """The photos whose original is not in the library.

    osxphotos asks two questions of the resources and lets the last row of the last answer count. Where a photo has
    several, their order depends on how SQLite goes about it; so these are its statements word for word, over the whole
    library, which costs a second for 100,000 photos that are not all here.
    """
    missing: set[str] = set()
    by_photo, by_fingerprint, *shared_videos = missing_statements(schema)
    [[any_away]] = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM ZINTERNALRESOURCE WHERE ZLOCALAVAILABILITY IS NOT 1"
        " AND (ZDATASTORESUBTYPE IN (1, 3) OR ZFINGERPRINT NOT NULL))"
    )
    if any_away:  # otherwise neither can find one
        _learn(missing, connection.execute(by_photo))
        _learn(missing, connection.execute(by_fingerprint))
    for statement in shared_videos:
        _learn(missing, connection.execute(statement))
    return frozenset(missing)


def _learn(missing: set[str], rows: Iterable[Sequence[Any]]) -> None:
    for uuid, available, *_ in rows:
        if available == 1:
            missing.discard(uuid)
        else:
            missing.add(uuid)


def missing_statements(schema: Schema) -> tuple[str, ...]:
    """What `read_missing` asks: a photo's uuid and whether a file of it is there (1), in the first two columns."""
    asset = schema.asset
    before_7 = schema.photos_version < 7
    by_photo = f""" SELECT
            {asset}.ZUUID,
            ZINTERNALRESOURCE.ZLOCALAVAILABILITY,
            ZINTERNALRESOURCE.ZREMOTEAVAILABILITY,
            ZINTERNALRESOURCE.ZDATASTORESUBTYPE,
            {schema.original_type},
            {"ZUNIFORMTYPEIDENTIFIER.ZIDENTIFIER" if before_7 else "null"}
            FROM {asset}
            JOIN {_EXTRA} ON {_EXTRA}.ZASSET = {asset}.Z_PK
            JOIN ZINTERNALRESOURCE ON ZINTERNALRESOURCE.ZASSET = {_EXTRA}.ZASSET
            {_TYPES if before_7 else ""}
            WHERE  ZDATASTORESUBTYPE = 1 OR ZDATASTORESUBTYPE = 3 """
    by_fingerprint = f""" SELECT {asset}.ZUUID,
            ZINTERNALRESOURCE.ZLOCALAVAILABILITY,
            ZINTERNALRESOURCE.ZREMOTEAVAILABILITY
            FROM {asset}
            JOIN {_EXTRA} ON {_EXTRA}.ZASSET = {asset}.Z_PK
            JOIN ZINTERNALRESOURCE ON ZINTERNALRESOURCE.ZFINGERPRINT = {schema.fingerprint} """
    if not (schema.has(asset, "ZCOLLECTIONSHARE") and schema.has("ZSHARE", "Z_ENT")):
        return by_photo, by_fingerprint
    # A video of a shared album of Photos 11 is a resource apart from its poster (osxphotos,
    # `_process_shared_album_missing_videos`).
    shared_videos = f"""SELECT {asset}.ZUUID, ZINTERNALRESOURCE.ZLOCALAVAILABILITY FROM {asset}
            JOIN ZSHARE ON ZSHARE.Z_PK = {asset}.ZCOLLECTIONSHARE
            JOIN ZINTERNALRESOURCE ON ZINTERNALRESOURCE.ZASSET = {asset}.Z_PK
            WHERE ZSHARE.Z_ENT IN (SELECT Z_ENT FROM Z_PRIMARYKEY WHERE Z_NAME = 'CollectionShare')
            AND {asset}.ZKIND = 1 AND ZINTERNALRESOURCE.ZDATASTORESUBTYPE = 8"""
    return by_photo, by_fingerprint, shared_videos
