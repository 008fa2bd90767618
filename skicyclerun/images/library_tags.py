"""What the library knows, written into a photo's tags. Which fact goes where: docs/metadata.md.

A value that the file has already is not written again, so that an unchanged photo stays byte for byte what it was.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, Final

from skicyclerun.images.face_regions import write_face_regions
from skicyclerun.images.metadata import (
    DATE_KEYS,
    GPS_POINTER,
    PhotoTags,
    description_of,
    exif_date_of,
    keywords_of,
    location_of,
)
from skicyclerun.images.tag_dates import (
    MINUTE,
    SAME_MOMENT,
    exif_date,
    exif_offset,
    in_whole_minutes,
    iso_date,
    parse_date,
    parse_iso_date,
)
from skicyclerun.images.tag_index import UTF8_DECLARED
from skicyclerun.images.tag_positions import (
    SAME_HEADING,
    SAME_METRES,
    same_place,
    to_fraction,
    to_sexagesimal,
    valid,
)
from skicyclerun.images.texts import clean, clean_line, clean_list, cut, from_tag
from skicyclerun.images.windows_tags import (
    write_windows_description,
    write_windows_keywords,
    write_windows_title,
)
from skicyclerun.models import LibraryMetadata, Location

# Bytes of UTF-8. A segment holds 64 kB, and other tags want to live in it too.
_MOST_EXIF_DESCRIPTION: Final = 16_000
_MOST_XMP_DESCRIPTION: Final = 30_000
_MOST_TITLE: Final = 2_000
_MOST_LIST_ITEM: Final = 1_000
_MOST_LIST: Final = 10_000
# IPTC-IIM 4.2, data sets 2:05, 2:25, 2:120.
_MOST_IPTC_TITLE: Final = 64
_MOST_IPTC_KEYWORD: Final = 64
_MOST_IPTC_CAPTION: Final = 2_000

_IPTC_DATE: Final = "Iptc.Application2.DateCreated"
_IPTC_TIME: Final = "Iptc.Application2.TimeCreated"
_IPTC_DIGITIZED: Final = ("Iptc.Application2.DigitizationDate", "Iptc.Application2.DigitizationTime")

_RATING_PERCENT: Final = (0, 1, 25, 50, 75, 99)  # Windows' scale for one to five stars

# Kept when a position changes: when the satellites were heard has nothing to do with where.
_GPS_TIMES: Final = frozenset(f"Exif.GPSInfo.{name}" for name in ("GPSTimeStamp", "GPSDateStamp", "GPSVersionID"))


def write_library_metadata(
    exiv2: Any,
    tags: PhotoTags,
    known: LibraryMetadata,
    stored: tuple[int, int] | None = None,
    *,
    person_keywords: bool = False,
) -> None:
    """Bring the tags to what the library says, by the rules of LibraryMetadata. Within an `exiv2_session`.

    `stored` is the size of the picture they go into, pixels before its orientation is applied; without it no face
    regions are written. With `person_keywords`
    the names of persons are keywords too, behind those of the library or else of the file.
    """
    if known.date is not None:
        _write_date(exiv2, tags, known.date)
    if known.location is not None and valid(known.location):
        _write_location(exiv2, tags, known.location)
    elif known.location is None and known.location_known:
        _remove_location(tags)
    if known.title is not None and (title := cut(clean_line(known.title), _MOST_TITLE)):
        _note_if_cut(tags, "title", clean_line(known.title), title)
        _write_title(exiv2, tags, title)
    if known.description is not None and (description := clean(known.description)):
        _note_if_cut(tags, "description", description, cut(description, _MOST_XMP_DESCRIPTION))
        _write_description(exiv2, tags, description)
    wanted = known.keywords
    if person_keywords and known.persons:
        wanted = (*(wanted or keywords_of(tags)), *known.persons)
    if wanted and (keywords := _within_limits(tags, "keywords", clean_list(wanted))):
        _write_keywords(exiv2, tags, keywords)
    if known.persons and (persons := _within_limits(tags, "persons", clean_list(known.persons))):
        if tags.xmp.items_of("Xmp.iptcExt.PersonInImage") != persons:
            tags.xmp.put_list(exiv2, "Xmp.iptcExt.PersonInImage", persons)
    if stored is not None:
        write_face_regions(exiv2, tags, known.faces, stored)
    if known.rating is not None:
        _write_rating(exiv2, tags, max(0, min(known.rating, 5)))


def _note_if_cut(tags: PhotoTags, what: str, whole: str, kept: str) -> None:
    if kept != whole:
        tags.notes.append(f"the {what} was cut to {len(kept.encode()) // 1000} kB")


def _within_limits(tags: PhotoTags, what: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    kept: list[str] = []
    room = _MOST_LIST
    for text in texts:
        item = cut(text, _MOST_LIST_ITEM)
        room -= len(item.encode())
        if room < 0:
            tags.notes.append(f"{len(kept)} of {len(texts)} {what} fitted into the file")
            break
        kept.append(item)
    return tuple(dict.fromkeys(kept))


# ── date ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_date(exiv2: Any, tags: PhotoTags, date: datetime) -> None:
    date = in_whole_minutes(date)
    offset = exif_offset(date)
    there = exif_date_of(tags.exif, "Original")
    if there is not None and _same_wall_time(there, date):
        if offset is not None and exif_offset(there) != offset:
            _put_exif_texts(exiv2, tags, ("Exif.Photo.OffsetTimeOriginal",), (offset,))
    else:
        fraction = f"{date.microsecond // 1000:03}" if date.microsecond >= 1000 else None
        texts = (exif_date(date), offset, fraction)
        _put_exif_texts(exiv2, tags, DATE_KEYS["Original"], texts)
        if exif_date_of(tags.exif, "Digitized") is None:
            _put_exif_texts(exiv2, tags, DATE_KEYS["Digitized"], texts)
    if offset is not None and "Exif.Image.DateTime" in tags.exif:
        _write_offset_of_change(exiv2, tags, date, offset)
    # Copies of the date that other programs wrote must not contradict it.
    for key in ("Xmp.exif.DateTimeOriginal", "Xmp.photoshop.DateCreated"):
        if key in tags.xmp and not _says(tags.xmp.text(key), date):
            tags.put(key, iso_date(date))
    _write_iptc_date(exiv2, tags, date, offset)


def _write_offset_of_change(exiv2: Any, tags: PhotoTags, date: datetime, offset: str) -> None:
    """OffsetTime, which belongs to ModifyDate: the photo's own where there is none, or a wrong one."""
    there = tags.exif.text("Exif.Photo.OffsetTime")
    changed = parse_date(tags.exif.text("Exif.Image.DateTime"), there)
    if changed is None:
        return
    at_once = _same_wall_time(changed, date)
    if changed.tzinfo is None or (at_once and exif_offset(changed) != offset):
        _put_exif_texts(exiv2, tags, ("Exif.Photo.OffsetTime",), (offset,))


def _says(text: str, date: datetime) -> bool:
    """Whether an XMP date is this one as far as it goes: the same wall clock, and no other offset."""
    there = parse_iso_date(text)
    if there is None or not text.startswith(iso_date(date)[:19]):
        return False
    return there.tzinfo is None or date.tzinfo is None or there.utcoffset() == date.utcoffset()


def _write_iptc_date(exiv2: Any, tags: PhotoTags, date: datetime, offset: str | None) -> None:
    """DateCreated and TimeCreated, whose time has an offset (IPTC-IIM 4.2, 2:55 and 2:60).

    A date without an offset is not entered where the file has none, and takes away a time that is another.
    """
    zone = date.utcoffset()
    if zone is None and _IPTC_DATE not in tags.iptc:
        return
    day = date.date().isoformat()
    if tags.iptc.text(_IPTC_DATE) != day:
        tags.iptc.put_date(exiv2, _IPTC_DATE, date.date())
        if zone is None:
            tags.iptc.remove(_IPTC_TIME)
    if zone is None or offset is None:
        return
    minutes = round(zone / MINUTE)
    clock = exif_date(date)[11:]
    if tags.iptc.text(_IPTC_TIME) != clock + offset:
        tags.iptc.put_time(exiv2, _IPTC_TIME, date.time(), minutes)
    # A time without an offset gets one of zero from exiv2 when the block is written.
    if (
        tags.iptc.text(_IPTC_DIGITIZED[0]) == day
        and tags.iptc.text(_IPTC_DIGITIZED[1]) == f"{clock}+00:00"
        and offset != "+00:00"
    ):
        tags.iptc.put_time(exiv2, _IPTC_DIGITIZED[1], date.time(), minutes)


def _same_wall_time(one: datetime, other: datetime) -> bool:
    one, other = one.replace(tzinfo=None), other.replace(tzinfo=None)
    if other.microsecond == 0 and one.replace(microsecond=0) == other:
        return True  # the library keeps whole seconds, the file's fraction stays
    return abs(one - other) <= SAME_MOMENT or (
        one.microsecond == 0 and timedelta(0) <= other - one < timedelta(seconds=1)
    )


def _put_exif_texts(exiv2: Any, tags: PhotoTags, keys: tuple[str, ...], texts: tuple[str | None, ...]) -> None:
    """Set, or with None remove. A file without an Exif version gets the one that has these tags."""
    for key, text in zip(keys, texts, strict=True):
        if text is None:
            tags.exif.remove(key)
        else:
            tags.exif.put_text(key, exiv2.AsciiValue(text), text)
    if "Exif.Photo.ExifVersion" not in tags.exif:
        tags.put("Exif.Photo.ExifVersion", "48 50 51 50")  # "0232"


# ── position ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_location(exiv2: Any, tags: PhotoTags, location: Location) -> None:
    there = location_of(tags.exif)
    if there is None or not same_place(there, location):
        # What belonged to the other place (altitude, direction, precision, destination) goes with it.
        tags.exif.erase({key for key in tags.exif.keys() if key.startswith("Exif.GPSInfo.")} - _GPS_TIMES)
        _remove_xmp_position(tags)
        _put_position(exiv2, tags, "Latitude", location.latitude, "N", "S")
        _put_position(exiv2, tags, "Longitude", location.longitude, "E", "W")
        there = Location(location.latitude, location.longitude)
    altitude = location.altitude
    if altitude is not None and math.isfinite(altitude) and not _near(there.altitude, altitude, SAME_METRES):
        tags.put("Exif.GPSInfo.GPSAltitudeRef", "1" if altitude < 0 else "0")
        _put_rationals(exiv2, tags, "Exif.GPSInfo.GPSAltitude", [to_fraction(altitude, 1000)])
    heading = location.heading
    if (
        heading is not None
        and math.isfinite(heading)
        and heading >= 0
        and not _near(there.heading, heading, SAME_HEADING)
    ):
        tags.put("Exif.GPSInfo.GPSImgDirectionRef", exiv2.AsciiValue("T"))
        _put_rationals(exiv2, tags, "Exif.GPSInfo.GPSImgDirection", [to_fraction(heading % 360, 1000)])


def _near(one: float | None, other: float, tolerance: float) -> bool:
    return one is not None and abs(one - other) <= tolerance


def _put_position(exiv2: Any, tags: PhotoTags, axis: str, degrees: float, positive: str, negative: str) -> None:
    if "Exif.GPSInfo.GPSVersionID" not in tags.exif:
        tags.put("Exif.GPSInfo.GPSVersionID", "2 3 0 0")
    side = negative if degrees < 0 else positive
    tags.exif.put_text(f"Exif.GPSInfo.GPS{axis}Ref", exiv2.AsciiValue(side), side)
    _put_rationals(exiv2, tags, f"Exif.GPSInfo.GPS{axis}", to_sexagesimal(degrees))


def _put_rationals(exiv2: Any, tags: PhotoTags, key: str, fractions: list[tuple[int, int]]) -> None:
    tags.exif.put_rationals(key, exiv2.URationalValue(fractions), fractions)


def _remove_location(tags: PhotoTags) -> None:
    tags.exif.erase({key for key in tags.exif.keys() if key.startswith("Exif.GPSInfo.") or key == GPS_POINTER})
    _remove_xmp_position(tags)


def _remove_xmp_position(tags: PhotoTags) -> None:
    """`exif:GPS…` at the top and inside structures such as `Iptc4xmpExt:LocationCreated`."""
    tags.xmp.erase_where(lambda key: "exif.GPS" in key or "exif:GPS" in key)


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_title(exiv2: Any, tags: PhotoTags, title: str) -> None:
    _put_text_by_language(exiv2, tags, "Xmp.dc.title", title)
    _put_iptc(exiv2, tags, "Iptc.Application2.ObjectName", (cut(title, _MOST_IPTC_TITLE),))
    write_windows_title(exiv2, tags, title)


def _write_description(exiv2: Any, tags: PhotoTags, description: str) -> None:
    before = description_of(tags)
    _put_text_by_language(exiv2, tags, "Xmp.dc.description", cut(description, _MOST_XMP_DESCRIPTION))
    _put_iptc(exiv2, tags, "Iptc.Application2.Caption", (cut(description, _MOST_IPTC_CAPTION),))
    short = cut(description, _MOST_EXIF_DESCRIPTION)
    if tags.exif.text("Exif.Image.ImageDescription") != short:
        tags.put("Exif.Image.ImageDescription", exiv2.AsciiValue(short))
    write_windows_description(exiv2, tags, description, before)


def _write_keywords(exiv2: Any, tags: PhotoTags, keywords: tuple[str, ...]) -> None:
    if tags.xmp.items_of("Xmp.dc.subject") != keywords:
        tags.xmp.put_list(exiv2, "Xmp.dc.subject", keywords)
    _put_iptc(
        exiv2,
        tags,
        "Iptc.Application2.Keywords",
        tuple(dict.fromkeys(cut(keyword, _MOST_IPTC_KEYWORD) for keyword in keywords)),
    )
    write_windows_keywords(exiv2, tags, keywords)


def _put_text_by_language(exiv2: Any, tags: PhotoTags, key: str, text: str) -> None:
    if tags.xmp.text_by_language(key) != text:
        tags.xmp.put_text_by_language(exiv2, key, text)


def _put_iptc(exiv2: Any, tags: PhotoTags, key: str, texts: tuple[str, ...]) -> None:
    if tags.iptc.texts(key) != texts:
        _make_iptc_utf8(exiv2, tags)
        tags.iptc.put_all(exiv2, key, texts)


def _make_iptc_utf8(exiv2: Any, tags: PhotoTags) -> None:
    """Declare UTF-8, and bring the texts that are there to it: a declaration holds for all of them."""
    if tags.iptc.declares_utf8:
        return

    def rewrite(tag: Any) -> None:
        if tag.typeId() == exiv2.TypeId.string and not (text := tag.toString()).isascii():
            tag.setValue(exiv2.StringValue(from_tag(text)))

    tags.iptc.rewrite_all(rewrite)
    tags.put("Iptc.Envelope.CharacterSet", exiv2.StringValue(UTF8_DECLARED))


# ── rating ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_rating(exiv2: Any, tags: PhotoTags, rating: int) -> None:
    in_xmp, in_exif = tags.xmp.text("Xmp.xmp.Rating"), tags.exif.text("Exif.Image.Rating")
    if rating == 0 and not in_xmp and not in_exif:
        return  # not rated, here as there
    if in_xmp != str(rating):
        tags.put("Xmp.xmp.Rating", str(rating))
    if in_exif != str(rating):
        tags.put("Exif.Image.Rating", exiv2.UShortValue(rating))
    if "Exif.Image.RatingPercent" in tags.exif and tags.exif.text("Exif.Image.RatingPercent") != str(
        _RATING_PERCENT[rating]
    ):
        tags.put("Exif.Image.RatingPercent", exiv2.UShortValue(_RATING_PERCENT[rating]))
