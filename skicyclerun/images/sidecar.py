"""The text file beside a picture that says what is known of it: XMP as photo programs read it, or JSON as exiftool's.

It says what the exported file's own tags say, whatever the file is: of a movie, or of an original that is passed on
byte for byte, it is the only file that can. XMP: ISO 16684-1, the properties of EXIF in it by Exif 2.3 for XMP
(CIPA DC-010); JSON: the tag names of `exiftool -json -G`, which `exiftool -json=FILE` reads back.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal

import orjson

from skicyclerun.images.exiv2_session import exiv2_session
from skicyclerun.images.face_regions import WITH_REGIONS
from skicyclerun.images.jpeg_segments import read_header
from skicyclerun.images.library_tags import write_library_metadata
from skicyclerun.images.metadata import (
    PhotoTags,
    TagFacts,
    facts_of,
    no_tags,
    tags_of_file,
    tags_of_segments,
)
from skicyclerun.images.movies import check_movie
from skicyclerun.images.published_tags import remove_whereabouts
from skicyclerun.images.sniff import Content
from skicyclerun.images.staging import Original
from skicyclerun.images.tag_dates import exif_date, exif_offset, in_whole_minutes, iso_date
from skicyclerun.images.tag_index import TagIndex
from skicyclerun.images.tag_positions import to_fraction
from skicyclerun.models import LibraryMetadata, Location

SidecarFormat = Literal["xmp", "json"]

_PACKET: Final = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n{}<?xpacket end="w"?>\n'
# What says how another file stores its pixels, and texts that are stored elsewhere in it. Regions count in the pixels
# of the original, which need not lie as those of the exported picture, and name faces as the file did, not the library.
_OF_ONE_FILE: Final = (
    "Xmp.tiff.Orientation",
    "Xmp.tiff.ImageWidth",
    "Xmp.tiff.ImageLength",
    "Xmp.exif.PixelXDimension",
    "Xmp.exif.PixelYDimension",
    "Xmp.xmp.Thumbnails",
    "Xmp.xmpNote.HasExtendedXMP",
    *WITH_REGIONS,
)


def sidecar_of(
    original: Original,
    content: Content,
    known: LibraryMetadata | None,
    format: SidecarFormat,
    *,
    located: bool = True,
    person_keywords: bool = False,
) -> tuple[bytes, TagFacts]:
    """The sidecar of an original, with the library's words over its own, and what it says.

    Not `located`: without positions and the fields for names of places. Raises PhotoUnreadable where the file's
    structure is damaged; tags that cannot be read are left out. Within no `exiv2_session`.
    """
    taken = check_movie(original) if content is Content.MOVIE else None
    segments = read_header(original).segments if content is Content.JPEG else ()
    with exiv2_session() as exiv2:
        if content is Content.MOVIE:
            tags = no_tags(exiv2)
        elif content is Content.JPEG:
            tags = tags_of_segments(exiv2, segments)
        else:
            tags = tags_of_file(exiv2, original.path)
        try:
            facts = _facts(exiv2, tags, known, taken, located, person_keywords)
            return (_json(facts) if format == "json" else _xmp(exiv2, tags, facts)), facts
        except (exiv2.Exiv2Error, ValueError, TypeError, RuntimeError):
            tags = no_tags(exiv2)
            facts = _facts(exiv2, tags, known, taken, located, person_keywords)
            return (_json(facts) if format == "json" else _xmp(exiv2, tags, facts)), facts


def _facts(
    exiv2: Any,
    tags: PhotoTags,
    known: LibraryMetadata | None,
    taken: datetime | None,
    located: bool,
    person_keywords: bool,
) -> TagFacts:
    """What is known, the library's words written into the tags."""
    if known is not None:
        write_library_metadata(exiv2, tags, known, person_keywords=person_keywords)
    if not located:
        remove_whereabouts(tags)
    facts = facts_of(tags)
    return replace(facts, date=taken) if facts.date is None and taken is not None else facts


# ── XMP ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _xmp(exiv2: Any, tags: PhotoTags, facts: TagFacts) -> bytes:
    """All of the file's XMP, with what EXIF and IPTC say besides."""
    xmp = tags.xmp
    xmp.erase_where(lambda key: key.startswith(_OF_ONE_FILE))
    if facts.date is not None:
        date = iso_date(in_whole_minutes(facts.date))
        for key in ("Xmp.exif.DateTimeOriginal", "Xmp.photoshop.DateCreated", "Xmp.xmp.CreateDate"):
            xmp.put(key, date)
    if facts.location is not None:
        _put_position(xmp, facts.location)
    if facts.title:
        xmp.put("Xmp.dc.title", exiv2.LangAltValue({"x-default": facts.title}))
    if facts.description:
        xmp.put("Xmp.dc.description", exiv2.LangAltValue({"x-default": facts.description}))
    if facts.keywords:
        xmp.put("Xmp.dc.subject", exiv2.XmpArrayValue(list(facts.keywords), exiv2.TypeId.xmpBag))
        # The only list of keywords that some programs read from a sidecar (Immich).
        xmp.put("Xmp.digiKam.TagsList", exiv2.XmpArrayValue(list(facts.keywords), exiv2.TypeId.xmpSeq))
    if facts.persons:
        xmp.put("Xmp.iptcExt.PersonInImage", exiv2.XmpArrayValue(list(facts.persons), exiv2.TypeId.xmpBag))
    if facts.rating is not None:
        xmp.put("Xmp.xmp.Rating", str(facts.rating))
    flags = exiv2.XmpParser.XmpFormatFlags
    failed, text = exiv2.XmpParser.encode(xmp.data, flags.omitPacketWrapper | flags.useCompactFormat)
    if failed:
        raise ValueError("this XMP cannot be written")
    return _PACKET.format(text or _EMPTY).encode("utf-8", "replace")


_EMPTY: Final = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>\n'
    "</x:xmpmeta>\n"
)


def _put_position(xmp: TagIndex, place: Location) -> None:
    xmp.put("Xmp.exif.GPSVersionID", "2.3.0.0")
    xmp.put("Xmp.exif.GPSLatitude", _coordinate(place.latitude, "N", "S"))
    xmp.put("Xmp.exif.GPSLongitude", _coordinate(place.longitude, "E", "W"))
    if place.altitude is not None and math.isfinite(place.altitude):
        xmp.put("Xmp.exif.GPSAltitudeRef", "1" if place.altitude < 0 else "0")
        xmp.put("Xmp.exif.GPSAltitude", _fraction(place.altitude))
    if place.heading is not None and math.isfinite(place.heading):
        xmp.put("Xmp.exif.GPSImgDirectionRef", "T")
        xmp.put("Xmp.exif.GPSImgDirection", _fraction(place.heading % 360))


def _coordinate(degrees: float, positive: str, negative: str) -> str:
    """`52,30.123400N`: degrees, and minutes to a millionth (2 mm)."""
    millionths = round(abs(degrees) * 60 * 1_000_000)
    whole, minutes = divmod(millionths, 60 * 1_000_000)
    return f"{whole},{minutes / 1_000_000:.6f}{negative if degrees < 0 else positive}"


def _fraction(value: float) -> str:
    numerator, denominator = to_fraction(value, 1000)
    return f"{numerator}/{denominator}"


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _json(facts: TagFacts) -> bytes:
    """One object in a list. `*` for the file: it holds for whichever it is applied to."""
    said: dict[str, Any] = {"SourceFile": "*"}
    if facts.date is not None:
        date = in_whole_minutes(facts.date)
        said["EXIF:DateTimeOriginal"] = said["EXIF:CreateDate"] = exif_date(date)
        if (offset := exif_offset(date)) is not None:
            said["EXIF:OffsetTimeOriginal"] = said["EXIF:OffsetTimeDigitized"] = offset
        if date.microsecond >= 1000:
            said["EXIF:SubSecTimeOriginal"] = said["EXIF:SubSecTimeDigitized"] = f"{date.microsecond // 1000:03}"
    if (place := facts.location) is not None:
        said["EXIF:GPSLatitude"], said["EXIF:GPSLatitudeRef"] = _side(place.latitude, "North", "South")
        said["EXIF:GPSLongitude"], said["EXIF:GPSLongitudeRef"] = _side(place.longitude, "East", "West")
        if place.altitude is not None and math.isfinite(place.altitude):
            height = _side(place.altitude, "Above Sea Level", "Below Sea Level")
            said["EXIF:GPSAltitude"], said["EXIF:GPSAltitudeRef"] = height
        if place.heading is not None and math.isfinite(place.heading):
            said["EXIF:GPSImgDirection"], said["EXIF:GPSImgDirectionRef"] = round(place.heading % 360, 3), "True North"
    texts = {
        "EXIF:ImageDescription": facts.description,
        "XMP:Description": facts.description,
        "XMP:Title": facts.title,
        "XMP:Subject": list(facts.keywords),
        "IPTC:Keywords": list(facts.keywords),
        "XMP:PersonInImage": list(facts.persons),
        "XMP:Rating": facts.rating,
    }
    said |= {key: value for key, value in texts.items() if value not in (None, "", [])}
    return orjson.dumps([said], option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _side(value: float, positive: str, negative: str) -> tuple[float, str]:
    return round(abs(value), 8), negative if value < 0 else positive
