"""What a listing tells of a library's photos, straight from the tables: name, kind, and whether anything changed.

It is asked of every photo at every update, so it makes do without osxphotos' records; `photos_asset.listed` tells the
same of a record.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final

from skicyclerun.sources.photos_asset import (
    Listed,
    altitude_and_heading,
    date_at,
    fingerprint,
    named,
    position_at,
)
from skicyclerun.sources.photos_facts import moment_by_osxphotos, moment_of_core_data
from skicyclerun.sources.photos_records import (
    KIND_OF_LIVE_PHOTOS,
    KIND_OF_MOVIES,
    Names,
    keywords_statement,
    normalized,
    persons_statement,
    record_columns,
    record_tables,
)
from skicyclerun.sources.photos_schema import Schema

log = logging.getLogger(__name__)

_ASKED: Final = (
    "pk extra_pk _uuid type subtype originalFilename filename original_filesize masterFingerprint hasAdjustments"
    " lastmodifieddate_timestamp imageDate_timestamp imageTimeZoneOffsetSeconds imageTimeZoneName inferred_offset"
    " latitude longitude location_data name extendedDescription favorite"
).split()
"""Of the columns of a record, in the order in which `_listed` takes them."""


def read_listing(
    connection: sqlite3.Connection, schema: Schema, names: Names, missing: Collection[str], uuids: Sequence[str]
) -> dict[str, Listed]:
    """By uuid; for no more photos than one statement takes. `missing`: those whose original is not here.

    Left out is what is out of the ordinary, and has to be told from a record.
    """
    columns = record_columns(schema)
    rows = connection.execute(
        f"""SELECT {", ".join(columns[key] for key in _ASKED)} FROM {record_tables(schema)}
        WHERE {schema.asset}.ZUUID IN ({",".join("?" * len(uuids))})""",
        uuids,
    ).fetchall()
    keywords: dict[int, list[str]] = {}
    for extra, keyword in connection.execute(keywords_statement(schema, [row[1] for row in rows])):
        if keyword in names.keywords:
            keywords.setdefault(extra, []).append(names.keywords[keyword])
    persons: dict[int, list[str | None]] = {}
    for key, person in connection.execute(persons_statement(schema, [row[0] for row in rows])):
        if person in names.persons:
            persons.setdefault(key, []).append(names.persons[person]["fullname"])
    found: dict[str, Listed] = {}
    odd: set[str] = set()
    for row in rows:
        pk, extra, uuid = row[:3]
        if uuid in found:  # a photo has one row of each table
            odd.add(uuid)
            continue
        try:
            found[uuid] = _listed(row, uuid in missing, keywords.get(extra, ()), persons.get(pk, ()))
        except Exception as error:
            log.debug("%s is told from its record: %s: %s", uuid, type(error).__name__, error)
    return {uuid: each for uuid, each in found.items() if uuid not in odd} if odd else found


def _listed(row: Sequence[Any], is_missing: bool, keywords: Sequence[str], persons: Sequence[str | None]) -> Listed:
    """As `photos_asset.listed` of what osxphotos makes of this row. Raises whatever a row that is none makes it."""
    (
        _,
        _,
        uuid,
        kind,
        subtype,
        original_filename,
        filename,
        size,
        original,
        adjustments,
        modified,
        created,
        offset,
        zone,
        inferred,
        latitude,
        longitude,
        blob,
        title,
        description,
        favorite,
    ) = row
    name = normalized(original_filename) or normalized(filename) or ""
    altitude, heading = (None, None) if blob is None else altitude_and_heading(blob, latitude, longitude)
    made = fingerprint(
        name,
        size,
        original,
        is_missing=is_missing,
        adjustments=adjustments,
        modified=None if modified is None else moment_of_core_data(modified),
        date=date_at(moment_by_osxphotos(created, offset, zone), inferred if offset is None else offset),
        position=position_at(latitude, longitude, altitude, heading),
        title=title and normalized(title),
        description=description and normalized(description),
        keywords=sorted(keywords) if keywords else (),
        persons=named(sorted(persons, key=_name)) if persons else (),
        is_favorite=favorite == 1,
    )
    is_movie, is_live = kind == KIND_OF_MOVIES, subtype == KIND_OF_LIVE_PHOTOS
    return Listed(uuid, name, made, is_movie, is_live, bool(adjustments), is_missing)


def _name(person: str | None) -> str:
    return person or ""
