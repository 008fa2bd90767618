"""What the AppleScript's verbs return, read back: records, albums, items, facts. Pure.

The format is described at the top of scripts/osxPhotoExporter.scpt. What arrives passed through Photos, AppleScript
and a pipe, so every field is checked, and a fact that makes no sense is an unknown fact.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from skicyclerun.models import Album, Location

FORMAT_VERSION: Final = "2"

_RECORD: Final = "\x1e"
_FIELD: Final = "\x1f"
_MEMBER: Final = "\x1d"

# Photos' own look like `UUID/L0/040`. Anything printable without spaces is taken as Photos gives it; a leading dash
# would be an option to some program.
_ID: Final = re.compile(r"[0-9A-Za-z][!-~]{0,199}\Z")
_COUNT: Final = re.compile(r"[0-9]{1,12}\Z")
_MISSING: Final = "missing value"
"""What AppleScript makes of an absent value when it joins a list into a text."""


class AnswerIncomplete(Exception):
    """The answer breaks off, or is none at all."""


class AnswerUnknown(Exception):
    """Whoever answered is not our script, or another version of it."""


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What Photos told about one media item."""

    id: str
    filename: str
    """As imported; empty where Photos has none."""
    date: datetime | None
    """Naive: the wall clock of the Mac's time zone, not of the place where the photo was taken."""
    location: Location | None
    location_known: bool
    """False where Photos would not say, or said something that is no position."""
    favorite: bool
    title: str
    description: str
    keywords: tuple[str, ...]


def is_id(text: str) -> bool:
    """Whether a text can be an id of Photos. Ids are given to the script as words of their own, never as source."""
    return _ID.match(text) is not None


def records_of(output: str, verb: str) -> list[list[str]]:
    """The records of an answer to `verb`, each as its fields. Raises AnswerIncomplete or AnswerUnknown."""
    if not output.strip():
        raise AnswerIncomplete
    header, *records = output.split(_RECORD)
    if header.split(_FIELD) != ["skicyclerun", FORMAT_VERSION, verb]:
        if f"skicyclerun{_FIELD}{FORMAT_VERSION}{_FIELD}{verb}".startswith(header):
            raise AnswerIncomplete
        raise AnswerUnknown
    if records[-2:] != ["end", ""]:
        raise AnswerIncomplete
    return [record.split(_FIELD) for record in records[:-2]]


def albums_of(records: list[list[str]]) -> list[Album]:
    """The albums, in Photos' order, each once, not counted. Raises AnswerUnknown for a record of another shape.

    Old versions of Photos list nested albums at the top level too; the entry that knows its folders counts.
    """
    albums: dict[str, Album] = {}
    for record in records:
        if len(record) != 3 or not is_id(record[0]):
            raise AnswerUnknown
        album_id, folders, title = record
        path = tuple(_nfc(name) for name in folders.split(_MEMBER)) if folders else ()
        album = Album(album_id, _nfc(title), path)
        known = albums.get(album_id)
        if known is None or len(known.folder_path) < len(album.folder_path):
            albums[album_id] = album
    return list(albums.values())


def counts_of(records: list[list[str]]) -> dict[str, int]:
    """Album id → number of items; 0 for a number that is none. Raises AnswerUnknown for a record of another shape."""
    if any(len(record) != 2 or not is_id(record[0]) for record in records):
        raise AnswerUnknown
    return {album_id: _count(count) or 0 for album_id, count in records}


def items_of(records: list[list[str]]) -> list[tuple[str, str | None]]:
    """(id, file name) of an album's items, in order, each once. Raises AnswerUnknown where the ids make no sense.

    A name is empty where Photos has none, and None where the names cannot be told apart: one of them then holds a
    separator, and has to be asked for by itself.
    """
    count = _count(records[0][0]) if len(records) == 3 and len(records[0]) == 1 else None
    if count is None:
        raise AnswerUnknown
    ids = records[1] if count else []
    if len(ids) != count or not all(map(is_id, ids)):
        raise AnswerUnknown
    names: list[str | None] = [*records[2]] if count else []
    if len(names) != count:
        names = [None] * count
    items: dict[str, str | None] = {}
    for item_id, name in zip(ids, names, strict=True):
        items.setdefault(item_id, None if name is None else _text(name))
    return list(items.items())


def facts_of(record: list[str]) -> ItemFacts:
    """The facts of one item. Raises AnswerUnknown for a record of another shape."""
    if len(record) != 11:
        raise AnswerUnknown
    item_id, filename, date, latitude, longitude, altitude, favorite, title, description, keywords, refused = record
    location, known = _location(latitude, longitude, altitude)
    return ItemFacts(
        id=item_id,
        filename=_text(filename),
        date=_date(date),
        location=location,
        location_known=known and "location" not in refused.split(_MEMBER),
        favorite=favorite == "1",
        title=_nfc(title),
        description=_nfc(description),
        keywords=tuple(dict.fromkeys(_nfc(word) for word in keywords.split(_MEMBER) if word.strip())),
    )


def _location(latitude: str, longitude: str, altitude: str) -> tuple[Location | None, bool]:
    """A position and whether it can be believed; none at all is a position that is known to be absent."""
    if not latitude and not longitude:
        return None, True
    north, east = _number(latitude), _number(longitude)
    if north is None or east is None or abs(north) > 90 or abs(east) > 180:
        return None, False
    return Location(north, east, _number(altitude)), True


def _count(text: str) -> int | None:
    """A whole number from 0; None for what is none, or what no library has (Python converts 4,300 digits at most)."""
    return int(text) if _COUNT.match(text) else None


def _number(text: str) -> float | None:
    """A number with a decimal point, or with the comma that many languages write."""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date.replace(tzinfo=None)


def _text(text: str) -> str:
    return "" if text == _MISSING else _nfc(text)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
