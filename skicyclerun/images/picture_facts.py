"""What an exported file's header says of the picture: when, with which camera, how exposed, where and which way.

Tags and their meaning: Exif 3.0, 4.6.5 (shooting situation), 4.6.7 (GPS). Absent facts are absent keys; a number that
is none, that is not finite or that no camera could mean is absent too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from skicyclerun.errors import PhotoError, PhotoUnreadable
from skicyclerun.images.convert import displayed_size
from skicyclerun.images.exiv2_session import TagsUnreadable, exiv2_session
from skicyclerun.images.jpeg_segments import read_header
from skicyclerun.images.metadata import (
    PhotoTags,
    date_of,
    location_of,
    orientation_of,
    tags_of_file,
    tags_of_segments,
)
from skicyclerun.images.movies import check_movie
from skicyclerun.images.sniff import HEAD_BYTES, Content, describe_unknown, sniff
from skicyclerun.images.staging import open_original
from skicyclerun.images.tag_dates import iso_date, iso_date_utc
from skicyclerun.images.tag_index import TagIndex

_POINTS: Final = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")

_HIGHEST_M: Final = 100_000.0
"""Above or below the sea; what is beyond was never measured."""
_NO_NAME: Final = frozenset("-_.0 /mf")
"""A lens name of nothing but these (`----`, `0.0 mm f/0.0`) is a camera's word for none."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What the header says, with the keys that the catalog uses."""

    date_taken: str | None = None
    """ISO 8601 local time, with the offset where it is known."""
    date_taken_utc: str | None = None
    width: int | None = None
    """Pixels, as displayed; None for movies and RAW files."""
    height: int | None = None
    gps: Mapping[str, Any] = field(default_factory=dict)
    """`lat`, `lon` (degrees, WGS 84), `altitude` (metres), `heading` (degrees), `cardinal`, and `heading_reference`
    `magnetic` where the heading is from magnetic north. Empty without a position."""
    exif: Mapping[str, Any] = field(default_factory=dict)
    """`camera`, `lens`, `focal_length_mm`, `focal_length_35mm`, `aperture`, `exposure_s`, `exposure`,
    `exposure_bias_ev`, `iso`, `flash`."""


def cardinal(heading: float) -> str:
    """The nearest of the compass' sixteen points: `N`, `NNE`, `NE`, …; degrees clockwise from north."""
    return _POINTS[math.floor(heading / 22.5 + 0.5) % 16]


def read_picture_facts(path: Path) -> PictureFacts:
    """From the header alone; no pixel is decoded.

    Tags that cannot be read leave their facts out. Raises PhotoUnreadable for what is no picture or movie,
    OriginalMissing if it is gone.
    """
    with open_original(path) as original:
        content = sniff(original.stream)
        if content is None:
            raise PhotoUnreadable(describe_unknown(original.read(0, HEAD_BYTES), path.name))
        if content is Content.MOVIE:
            return _dated(check_movie(original))
        if content is Content.JPEG:
            header = read_header(original)
            size: tuple[int, int] | None = (header.frame.width, header.frame.height)
            try:
                with exiv2_session() as exiv2:
                    return _facts_of(tags_of_segments(exiv2, header.segments), size, turned=False)
            except TagsUnreadable:
                return PictureFacts(width=header.frame.width, height=header.frame.height)
        try:
            size = None if content is Content.RAW else displayed_size(original, content)
        except (PhotoError, OSError):
            size = None
        try:
            with exiv2_session() as exiv2:
                return _facts_of(tags_of_file(exiv2, path), size, turned=True)
        except TagsUnreadable:
            return PictureFacts(width=size[0] if size else None, height=size[1] if size else None)


def _dated(date: datetime | None) -> PictureFacts:
    if date is None:
        return PictureFacts()
    return PictureFacts(date_taken=iso_date(date), date_taken_utc=iso_date_utc(date))


def _facts_of(tags: PhotoTags, size: tuple[int, int] | None, *, turned: bool) -> PictureFacts:
    """`turned`: the size is as displayed already."""
    date = date_of(tags)
    width, height = size or (None, None)
    if not turned and orientation_of(tags.exif) >= 5:
        width, height = height, width
    return PictureFacts(
        date_taken=iso_date(date) if date else None,
        date_taken_utc=iso_date_utc(date) if date else None,
        width=width,
        height=height,
        gps=gps_of(tags.exif),
        exif=exif_of(tags),
    )


# ── where ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def gps_of(exif: TagIndex) -> dict[str, Any]:
    """Position, altitude and heading; empty where there is no position, or none on earth, or the camera had no fix."""
    found = location_of(exif)
    if found is None or not _has_fix(exif):
        return {}
    said: dict[str, Any] = {"lat": round(found.latitude, 7), "lon": round(found.longitude, 7)}
    if found.altitude is not None and abs(found.altitude) <= _HIGHEST_M:
        said["altitude"] = round(found.altitude, 2)
    if found.heading is not None and 0 <= found.heading <= 360:
        said["heading"] = round(found.heading, 2) % 360
        said["cardinal"] = cardinal(said["heading"])
        if exif.text("Exif.GPSInfo.GPSImgDirectionRef") == "M":
            said["heading_reference"] = "magnetic"
    return said


def _has_fix(exif: TagIndex) -> bool:
    """Cameras that had no position write degrees of 0/0, which is not the equator."""
    for key in ("Exif.GPSInfo.GPSLatitude", "Exif.GPSInfo.GPSLongitude"):
        degrees = exif.rationals(key)[:1]
        if not degrees or degrees[0][1] == 0:
            return False
    return True


# ── with what ─────────────────────────────────────────────────────────────────────────────────────────────────────


def exif_of(tags: PhotoTags) -> dict[str, Any]:
    """The camera and its settings."""
    exif = tags.exif
    exposure = _number(exif, "Exif.Photo.ExposureTime", 1e-7, 1e6)
    if exposure is None:
        speed = _number(exif, "Exif.Photo.ShutterSpeedValue", -19, 23)
        exposure = None if speed is None else 2.0**-speed
    aperture = _number(exif, "Exif.Photo.FNumber", 0.1, 1000)
    if aperture is None:
        apex = _number(exif, "Exif.Photo.ApertureValue", 0, 20)
        aperture = None if apex is None else 2.0 ** (apex / 2)
    focal, focal_35 = (
        _number(exif, key, 0.01, 100_000) for key in ("Exif.Photo.FocalLength", "Exif.Photo.FocalLengthIn35mmFilm")
    )
    bias = _number(exif, "Exif.Photo.ExposureBiasValue", -30, 30)
    said: dict[str, Any] = {
        "camera": _with_make(exif.text("Exif.Image.Make"), exif.text("Exif.Image.Model")),
        "lens": _lens(tags),
        "focal_length_mm": None if focal is None else _plain(round(focal, 2)),
        "focal_length_35mm": None if focal_35 is None else _plain(round(focal_35, 2)),
        "aperture": None if aperture is None else _plain(round(aperture, 2)),
        "exposure_s": None if exposure is None else _plain(float(f"{exposure:.6g}")),
        "exposure": None if exposure is None else exposure_in_words(exposure),
        "exposure_bias_ev": None if bias is None else _plain(round(bias, 2)),
        "iso": _iso(exif),
        "flash": _flash(exif),
    }
    return {key: value for key, value in said.items() if value is not None and value != ""}


def exposure_in_words(seconds: float) -> str:
    """As a camera shows it: `1/250`, `0.5`, `30`."""
    if seconds < 0.3:
        return f"1/{round(1 / seconds)}"
    return f"{seconds:.1f}".removesuffix(".0")


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _number(exif: TagIndex, key: str, least: float, most: float) -> float | None:
    """The first number of a tag, if it lies between these."""
    if key not in exif:
        return None
    fractions = exif.rationals(key)
    if fractions:
        numerator, denominator = fractions[0]
        value = numerator / denominator if denominator else math.nan
    else:
        try:
            value = float(exif.text(key).split(" ")[0])
        except ValueError:
            return None
    return value if least <= value <= most else None


def _iso(exif: TagIndex) -> int | None:
    """Exif.Photo.ISOSpeedRatings has two bytes; 65535 there says that the number is in one of the others."""
    for key in (
        "Exif.Photo.ISOSpeedRatings",
        "Exif.Photo.RecommendedExposureIndex",
        "Exif.Photo.ISOSpeed",
        "Exif.Photo.StandardOutputSensitivity",
        "Exif.Image.ISOSpeedRatings",
    ):
        value = _number(exif, key, 1, 50_000_000)
        if value is not None and not (key.endswith("ISOSpeedRatings") and value == 65535):
            return round(value)
    return None


def _flash(exif: TagIndex) -> bool | None:
    """Whether it fired (bit 0)."""
    value = _number(exif, "Exif.Photo.Flash", 0, 0xFFFF)
    return None if value is None else bool(int(value) & 1)


def _with_make(make: str, model: str) -> str:
    """`Canon EOS R6`, `NIKON D750`: the model with its maker before it, unless it says who made it."""
    if not make or not model:
        return model or make
    first = make.split()[0]
    says_so = model.casefold().startswith(make.casefold()) or model.split()[0].casefold() == first.casefold()
    return model if says_so else f"{make} {model}"


def _lens(tags: PhotoTags) -> str:
    """As the lens calls itself; the maker's name is not put before it, as it is not on the lens."""
    model = tags.exif.text("Exif.Photo.LensModel") or tags.xmp.text("Xmp.aux.Lens")
    return "" if set(model.casefold()) <= _NO_NAME else model
