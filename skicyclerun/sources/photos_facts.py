"""What to choose photos by, for all photos of a library, straight from the tables of `Photos.sqlite`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from skicyclerun.models import Face, MediaKind, PhotoFacts, Place
from skicyclerun.sources.photos_asset import EPOCH, nfc
from skicyclerun.sources.photos_places import place_of
from skicyclerun.sources.photos_schema import Schema

_FROM_1970_TO_2001: Final = 978_307_200
"""Seconds; Core Data counts from 2001-01-01 UTC."""
_SCREENSHOTS: Final = (10, 103)
"""ZKINDSUBTYPE of a screenshot and of a recording of the screen, by osxphotos' table."""
PICKED: Final = 8 | 16
"""ZAVALANCHEPICKTYPE: picked by the person, or the key photo of its burst (osxphotos' BURST_SELECTED, BURST_KEY)."""
_AT_ONCE: Final = 500
"""Ids in one statement."""


def read_facts(
    connection: sqlite3.Connection,
    schema: Schema,
    albums: Mapping[str, Sequence[str]],
    wanted: Callable[[PhotoFacts], bool],
) -> list[PhotoFacts]:
    """Of all photos that are wanted, oldest first, those of one moment by id. `albums` are ids by photo."""
    keywords = names_by_photo(connection, _keywords(schema))
    persons = names_by_photo(connection, _persons(schema))
    rows = connection.execute(_facts(schema))
    found: list[PhotoFacts] = []
    for (
        uuid, name, file_name, kind, created, offset, favorite, hidden, trashed, visibility, burst, picked, subtype,
        width, height, published,
    ) in rows:  # fmt: skip
        date, offset_known = date_of(created, offset)
        facts = PhotoFacts(
            id=uuid,
            original_filename=nfc(str(name or file_name or "")),
            media=MediaKind.VIDEO if kind == 1 else MediaKind.PHOTO,
            date=date,
            offset_known=offset_known,
            favorite=favorite == 1,
            hidden=hidden == 1,
            in_trash=trashed == 1,
            shown=burst is None or bool(whole_number(picked) & PICKED) or visibility == 0,
            screenshot=subtype in _SCREENSHOTS,
            width=max(whole_number(width), 0),
            height=max(whole_number(height), 0),
            keywords=keywords.get(uuid, ()),
            persons=persons.get(uuid, ()),
            albums=tuple(albums.get(uuid, ())),
            shared=published is not None,
        )
        if wanted(facts):
            found.append(facts)
    return facts_in_order(found)


def facts_in_order(found: Iterable[PhotoFacts]) -> list[PhotoFacts]:
    """Oldest first, those of one moment by id; those without a date before all others."""
    beginning = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda facts: (facts.date or beginning, facts.id))


def whole_number(value: object) -> int:
    """SQLite keeps anything in any column; what is no number is 0."""
    return value if isinstance(value, int) else 0


def date_of(created: object, offset: object) -> tuple[datetime | None, bool]:
    """Of ZDATECREATED, the moment in an offset of so many seconds, otherwise in UTC; whether the offset is known."""
    moment = moment_of_core_data(created)
    if moment is None or moment == EPOCH:
        return None, False
    if not isinstance(offset, int) or abs(offset) >= 86_400:
        return moment, False
    return moment.astimezone(_zone(offset)), True


def moment_of_core_data(seconds: object) -> datetime | None:
    """In UTC; None for what is no moment that a calendar has."""
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds + _FROM_1970_TO_2001, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def moment_by_osxphotos(created: object, offset: object, zone: object) -> datetime:
    """The same moment as osxphotos' `PhotoInfo.date`, in whatever zone; of what is no moment, the epoch."""
    if offset is not None and not (isinstance(offset, int | float) and abs(offset) < 86_400):
        from osxphotos.photos_datetime import photos_datetime

        with suppress(OverflowError):
            moment: datetime = photos_datetime(created, offset, zone, default=True)
            return moment
        return EPOCH
    return moment_of_core_data(created) or EPOCH


@lru_cache(maxsize=256)
def _zone(offset: int) -> timezone:
    return timezone(timedelta(seconds=offset))


def read_places(connection: sqlite3.Connection, schema: Schema, ids: Iterable[str]) -> dict[str, Place]:
    """The places of these photos, by id, where Photos has found one."""
    asset = schema.asset
    found: dict[str, Place] = {}
    alike: dict[bytes, Place | None] = {}
    for some in in_parts(ids):
        for uuid, blob in connection.execute(
            f"""SELECT {asset}.ZUUID, extra.ZREVERSELOCATIONDATA FROM {asset}
            JOIN ZADDITIONALASSETATTRIBUTES AS extra ON extra.ZASSET = {asset}.Z_PK
            WHERE {asset}.ZUUID IN ({",".join("?" * len(some))}) AND extra.ZREVERSELOCATIONDATA IS NOT NULL""",
            some,
        ):
            if blob not in alike:
                if len(alike) >= _AT_ONCE:
                    alike.clear()
                alike[blob] = place_of(blob)
            if (place := alike[blob]) is not None:
                found[uuid] = place
    return found


def read_faces(connection: sqlite3.Connection, schema: Schema, uuid: str) -> tuple[Face, ...]:
    """The faces of one photo, from left to right."""
    asset = schema.asset
    rows = connection.execute(
        f"""SELECT ZPERSON.ZFULLNAME, ZDETECTEDFACE.ZCENTERX, ZDETECTEDFACE.ZCENTERY, ZDETECTEDFACE.ZSIZE,
            {asset}.ZWIDTH, {asset}.ZHEIGHT,
            {schema.column("ZDETECTEDFACE", "ZHIDDEN")}, {schema.column("ZDETECTEDFACE", "ZISINTRASH")}
        FROM {asset} JOIN ZDETECTEDFACE ON {schema.face_asset} = {asset}.Z_PK
        JOIN ZPERSON ON ZPERSON.Z_PK = {schema.face_person}
        WHERE {asset}.ZUUID = ?""",
        (uuid,),
    )
    return faces_in_order(
        face_of(name, x, y, size, width, height)
        for name, x, y, size, width, height, hidden, trashed in rows
        if not hidden and not trashed
    )


def faces_in_order(faces: Iterable[Face | None]) -> tuple[Face, ...]:
    """From left to right."""
    return tuple(sorted(filter(None, faces), key=lambda face: (face.x, face.y, face.name)))


def face_of(name: object, x: object, y: object, size: object, width: object, height: object) -> Face | None:
    """A face as Photos keeps it; None for one without a place or an extent (a body without a face has such).

    Photos counts from the picture's lower left corner as displayed, and the size in shares of its longer side; that is
    how osxphotos' FaceInfo draws it too, which then turns it into the coordinates of the picture as stored.
    """
    if not (isinstance(x, int | float) and isinstance(y, int | float) and isinstance(size, int | float) and size > 0):
        return None
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        return None
    extent = size * max(width, height)
    return Face(nfc(name) if isinstance(name, str) else "", x, 1 - y, extent / width, extent / height)


def facts_statements(schema: Schema) -> tuple[str, ...]:
    """What `read_facts` asks."""
    return _facts(schema), _keywords(schema), _persons(schema)


def _facts(schema: Schema) -> str:
    asset = schema.asset
    inferred = schema.column("ZADDITIONALASSETATTRIBUTES", "ZINFERREDTIMEZONEOFFSET")
    return f"""SELECT {asset}.ZUUID, ZADDITIONALASSETATTRIBUTES.ZORIGINALFILENAME, {asset}.ZFILENAME, {asset}.ZKIND,
            {asset}.ZDATECREATED, ifnull(ZADDITIONALASSETATTRIBUTES.ZTIMEZONEOFFSET, {inferred}), {asset}.ZFAVORITE,
            {asset}.ZHIDDEN, {asset}.ZTRASHEDSTATE, {asset}.ZVISIBILITYSTATE, {asset}.ZAVALANCHEUUID,
            {asset}.ZAVALANCHEPICKTYPE, {asset}.ZKINDSUBTYPE, {asset}.ZWIDTH, {asset}.ZHEIGHT,
            {asset}.ZCLOUDBATCHPUBLISHDATE
        FROM {asset} JOIN ZADDITIONALASSETATTRIBUTES ON ZADDITIONALASSETATTRIBUTES.ZASSET = {asset}.Z_PK"""


def _keywords(schema: Schema) -> str:
    return f"""SELECT {schema.asset}.ZUUID, ZKEYWORD.ZTITLE FROM {schema.asset}
        JOIN ZADDITIONALASSETATTRIBUTES ON ZADDITIONALASSETATTRIBUTES.ZASSET = {schema.asset}.Z_PK
        JOIN Z_1KEYWORDS ON Z_1KEYWORDS.Z_1ASSETATTRIBUTES = ZADDITIONALASSETATTRIBUTES.Z_PK
        JOIN ZKEYWORD ON ZKEYWORD.Z_PK = {schema.keyword} WHERE ZKEYWORD.ZTITLE IS NOT NULL"""


def _persons(schema: Schema) -> str:
    return f"""SELECT {schema.asset}.ZUUID, ZPERSON.ZFULLNAME FROM ZDETECTEDFACE
        JOIN ZPERSON ON ZPERSON.Z_PK = {schema.face_person}
        JOIN {schema.asset} ON {schema.asset}.Z_PK = {schema.face_asset}
        WHERE ZPERSON.ZFULLNAME IS NOT NULL AND ZPERSON.ZFULLNAME <> ''"""


def names_by_photo(connection: sqlite3.Connection, select: str) -> dict[str, tuple[str, ...]]:
    """Names by photo, sorted, each once. Photos with the same names share one tuple."""
    names: dict[str, str] = {}
    gathered: dict[str, tuple[str, ...]] = {}
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    for uuid, name in connection.execute(select):
        if not isinstance(name, str):
            continue
        composed = names.setdefault(name, nfc(name))
        before = gathered.get(uuid, ())
        if composed not in before:
            together = tuple(sorted((*before, composed)))
            gathered[uuid] = same.setdefault(together, together)
    return gathered


def in_parts(ids: Iterable[str]) -> Iterator[list[str]]:
    """Few enough at once for one statement."""
    part: list[str] = []
    for each in ids:
        part.append(each)
        if len(part) == _AT_ONCE:
            yield part
            part = []
    if part:
        yield part
