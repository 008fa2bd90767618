"""One photo of a library, as osxphotos and the tables tell of it, and what follows from that. Pure: no I/O."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import struct
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, TypeAlias

from skicyclerun.models import AlbumKind, Face, LibraryMetadata, Location, PhotoFacts, Place

log = logging.getLogger(__name__)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNKNOWN_PERSON: Final = "_UNKNOWN_"
"""osxphotos' name for a face that nobody has named."""
Position: TypeAlias = tuple[float, float, float | None, float | None]
"""Latitude, longitude, altitude, heading."""
_AS_TEXT: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


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


@dataclass(frozen=True, slots=True)
class Item:
    """A photo of the library, and what osxphotos does not read."""

    asset: Asset
    altitude: float | None = None
    """Metres above sea level."""
    heading: float | None = None
    """Degrees clockwise from true north."""
    inferred_offset: int | None = None
    """Seconds east of UTC that Photos inferred, for a photo without a time zone of its own."""


class Listed(NamedTuple):
    """What a listing tells of a photo."""

    uuid: str
    original_filename: str
    fingerprint: str
    """Empty where the library's row cannot be understood: `fetch` says so, for this photo alone."""
    is_movie: bool
    is_live: bool
    is_edited: bool
    is_missing: bool
    """Its original is not in the library."""


@dataclass(frozen=True, slots=True)
class AlbumRecord:
    """An album with the photos that Photos shows in it, in its order."""

    id: str
    title: str
    folders: tuple[str, ...]
    uuids: tuple[str, ...]
    size: int
    """Bytes of their originals."""
    kind: AlbumKind = AlbumKind.ALBUM


class AlbumUnreadable(Exception):
    """What the library says about an album cannot be understood; `title` is its title, the cause says why."""

    def __init__(self, title: str, cause: BaseException) -> None:
        super().__init__(title)
        self.title = title
        self.cause = cause


class PhotosDatabase(Protocol):
    """What a library's database says, as of one moment. Reading from several threads at once is safe."""

    def albums(self) -> list[AlbumRecord]:
        """Those not in the trash: the person's own in the sidebar's order, then shared ones, then projects."""
        ...

    def items(self, uuids: Sequence[str]) -> list[Item]:
        """The photos of these ids, in this order, without those that the library does not have."""
        ...

    def listing(self, uuids: Sequence[str]) -> list[Listed]:
        """The same of what a listing tells of them."""
        ...

    def facts(self, albums: Mapping[str, Sequence[str]], wanted: Callable[[PhotoFacts], bool]) -> list[PhotoFacts]:
        """As `KnowsPhotos.facts`; `albums` are ids by photo."""
        ...

    def places(self, uuids: Iterable[str]) -> dict[str, Place]: ...

    def faces(self, uuid: str) -> tuple[Face, ...]: ...

    def labels(self, uuid: str) -> tuple[str, ...]: ...

    def close(self) -> None:
        """Release everything. Safe to call twice."""
        ...


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def is_shown(asset: Asset) -> bool:
    """Whether Photos shows it in an album: not trashed, not hidden, of a burst the key and the picked ones."""
    if asset.intrash or asset.hidden:
        return False
    return is_on_top(asset)


def is_on_top(asset: Asset) -> bool:
    """Not one of a burst that is kept behind its key photo."""
    return not asset.burst or asset.burst_selected or asset.burst_key or asset.visible


def altitude_and_heading(
    blob: object, latitude: float | None, longitude: float | None
) -> tuple[float | None, float | None]:
    """Altitude (metres) and heading (degrees) from ZASSET.ZLOCATIONDATA, as far as they are known.

    The column holds eight little-endian doubles: latitude, longitude, altitude, horizontal and vertical accuracy,
    course, speed, and seconds since 2001. Compared on iPhone pictures with their EXIF: altitude is GPSAltitude, course
    is GPSImgDirection. A negative accuracy or course means unknown, as in CLLocation, and an unknown altitude or
    course of an imported file is stored as 0.
    """
    if not isinstance(blob, bytes) or len(blob) < 64:
        return None, None
    if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
        return None, None
    at_latitude, at_longitude, altitude, _, vertical_accuracy, course, _, _ = struct.unpack_from("<8d", blob)
    if not (abs(at_latitude - latitude) < 1e-6 and abs(at_longitude - longitude) < 1e-6):
        return None, None  # a blob that is out of step with the position is not believed
    known_altitude = altitude if vertical_accuracy >= 0 and altitude != 0 and -12_000 < altitude < 100_000 else None
    return known_altitude, course if 0 < course < 360 else None


def metadata_of(item: Item) -> LibraryMetadata:
    """What Photos knows about a photo; its word is final on where it was taken, also that it is not known."""
    asset = item.asset
    return LibraryMetadata(
        date=_date(item),
        location=_location(item),
        location_known=True,
        title=asset.title or None,
        description=asset.description or None,
        keywords=tuple(dict.fromkeys(asset.keywords)),
        persons=persons_of(asset),
        rating=5 if asset.favorite else None,
        favorite=bool(asset.favorite),
    )


def listed(item: Item) -> Listed:
    """What a listing tells of a photo."""
    asset = item.asset
    try:
        made = fingerprint_of(item)
    except Exception as error:  # a row that osxphotos cannot read
        log.debug("%s: no fingerprint: %s: %s", asset.uuid, type(error).__name__, error)
        made = ""
    return Listed(
        asset.uuid,
        asset.original_filename,
        made,
        asset.ismovie,
        asset.live_photo,
        asset.hasadjustments,
        asset.ismissing,
    )


def persons_of(asset: Asset) -> tuple[str, ...]:
    """Names, each once; a face that nobody has named is no person."""
    return named(asset.persons)


def named(persons: Iterable[str | None]) -> tuple[str, ...]:
    """Of osxphotos' names of persons those that somebody has given, each once."""
    return tuple(dict.fromkeys(name for name in persons if name and name != _UNKNOWN_PERSON))


def _date(item: Item) -> datetime | None:
    offset = item.asset.tzoffset
    return date_at(item.asset.date, item.inferred_offset if offset is None else offset)


def date_at(date: datetime | None, offset: object) -> datetime | None:
    """With the photo's own offset. None where the library has no date, or not the offset of its wall clock."""
    if date is None or date == EPOCH:  # osxphotos gives the epoch for "no date"
        return None
    if not isinstance(offset, int) or abs(offset) >= 86_400:
        return None
    try:
        return date.astimezone(_zone(offset))
    except (OverflowError, ValueError):
        return None


@lru_cache(maxsize=256)
def _zone(offset: int) -> timezone:
    return timezone(timedelta(seconds=offset))


def _location(item: Item) -> Location | None:
    position = _position(item)
    return None if position is None else Location(*position)


def _position(item: Item) -> Position | None:
    latitude, longitude = item.asset.location
    return position_at(latitude, longitude, item.altitude, item.heading)


def position_at(
    latitude: float | None, longitude: float | None, altitude: float | None, heading: float | None
) -> Position | None:
    """None for what is no place on earth."""
    if latitude is None or longitude is None or not (math.isfinite(latitude) and math.isfinite(longitude)):
        return None
    if abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return latitude, longitude, altitude, heading


def fingerprint_of(item: Item) -> str:
    """A hash over everything that changes what `fetch` gives; the same in every process and every version of this."""
    asset = item.asset
    return fingerprint(
        asset.original_filename,
        asset.original_filesize,
        asset.fingerprint,
        is_missing=asset.ismissing,
        adjustments=asset.adjustment_type,
        modified=asset.date_modified,
        date=_date(item),
        position=_position(item),
        title=asset.title,
        description=asset.description,
        keywords=asset.keywords,
        persons=persons_of(asset),
        is_favorite=asset.favorite,
    )


def fingerprint(
    original_filename: str,
    original_filesize: int | None,
    original: str | None,
    *,
    is_missing: bool,
    adjustments: int | None,
    modified: datetime | None,
    date: datetime | None,
    position: Position | None,
    title: str | None,
    description: str | None,
    keywords: Iterable[str],
    persons: Sequence[str],
    is_favorite: bool,
) -> str:
    """`fingerprint_of`, without the objects, since it is asked of every photo listed. `original`: Photos' own of it.

    What it is made of are the facts of `metadata_of`. Raises TypeError for what is neither text nor number.
    """
    facts: Sequence[object] = (
        original_filename,
        original_filesize,
        original,
        is_missing,
        adjustments,
        modified.timestamp() if modified else None,
        date.isoformat() if date else None,
        position,
        title or None,
        description or None,
        tuple(dict.fromkeys(keywords)),
        persons,
        5 if is_favorite else None,
    )
    text = _AS_TEXT.encode(facts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
