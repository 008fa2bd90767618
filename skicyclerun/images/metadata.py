"""EXIF, IPTC and XMP of one photo: read from a header or a file, and read out as facts.

What the library knows is written into them by `library_tags`; `metadata_segments` encodes them for a JPEG's header.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from skicyclerun.images import jpeg_segments
from skicyclerun.images.new_iptc import NewIptc
from skicyclerun.images.new_xmp import NewXmp
from skicyclerun.images.tag_dates import parse_date, parse_iso_date
from skicyclerun.images.tag_index import TagIndex
from skicyclerun.images.tag_positions import from_sexagesimal, valid
from skicyclerun.images.windows_tags import windows_keywords_of, windows_title_of
from skicyclerun.models import Location

# The smallest thing exiv2 takes for a JPEG: one grey pixel. Its metadata segments are taken, the rest is thrown away.
_MINIMAL_FRAME: Final = bytes.fromhex("ffc0000b080001000101011100ffda0008010100003f00d2cf20ffd9")

# Of a header's metadata no more than this is given to exiv2; real files stay far below (EXIF has 64 kB).
_MOST_METADATA_BYTES: Final = 16 << 20

# What describes a picture rather than how a TIFF or RAW file stores it (TIFF 6.0, Exif 3.0 table 4, DNG 1.6).
_KEPT_OF_IFD0: Final = frozenset(
    "ImageDescription Make Model Orientation XResolution YResolution ResolutionUnit Software DateTime Artist "
    "HostComputer Copyright Rating RatingPercent XPTitle XPComment XPAuthor XPKeywords XPSubject ImageUniqueID "
    "UniqueCameraModel CameraSerialNumber DateTimeOriginal ExposureTime FNumber ExposureProgram ISOSpeedRatings "
    "FocalLength".split()
)
_STORAGE_GROUPS: Final = ("SubImage", "SubThumb", "Image2", "Image3", "Thumbnail", "PanasonicRaw", "MpfInfo", "Iop")

_NAMES: Final[dict[bytes | None, str]] = {
    jpeg_segments.EXIF: "EXIF",
    jpeg_segments.XMP: "XMP",
    jpeg_segments.IPTC: "IPTC",
}

GPS_POINTER: Final = "Exif.Image.GPSTag"


@dataclass(frozen=True, slots=True)
class TagFacts:
    """What the tags say. Texts are clean, lists without repetitions."""

    date: datetime | None = None
    location: Location | None = None
    title: str | None = None
    description: str | None = None
    keywords: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    orientation: int = 1
    rating: int | None = None


@dataclass(slots=True)
class PhotoTags:
    """The tags of one photo, in exiv2's hands; to be touched within an `exiv2_session` only."""

    image: Any
    exif: TagIndex
    iptc: TagIndex
    xmp: TagIndex
    notes: list[str] = field(default_factory=list)
    """What the report should say about them: what could not be read, what was shortened."""

    @property
    def changed(self) -> bool:
        return self.exif.changed or self.iptc.changed or self.xmp.changed

    def count_all_as_changed(self) -> None:
        """All there are, that is: a kind without tags is not written."""
        for kind in (self.exif, self.iptc, self.xmp):
            kind.changed = not kind.empty

    def put(self, key: str, value: Any) -> None:
        """Set a tag; what its key begins with (`Exif.`, `Iptc.`, `Xmp.`) says where."""
        (self.exif if key.startswith("Exif.") else self.xmp if key.startswith("Xmp.") else self.iptc).put(key, value)


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def minimal_jpeg(segments: Iterable[bytes]) -> bytes:
    return b"".join((b"\xff\xd8", *segments, _MINIMAL_FRAME))


def _open(exiv2: Any, data: bytes | str) -> PhotoTags:
    image = exiv2.ImageFactory.open(data)
    image.readMetadata()
    return _tags_in(exiv2, image)


def _tags_in(exiv2: Any, image: Any) -> PhotoTags:
    iptc, xmp = image.iptcData(), image.xmpData()
    return PhotoTags(
        image,
        TagIndex(image.exifData(), stays=True),
        NewIptc(exiv2, iptc) if iptc.empty() else TagIndex(iptc),
        NewXmp(exiv2, xmp) if xmp.empty() else TagIndex(xmp),
    )


def tags_of_segments(exiv2: Any, segments: Iterable[jpeg_segments.Segment]) -> PhotoTags:
    """From a JPEG's header. What cannot be read is left out and noted; the result can always be written to."""
    found: dict[str, list[bytes]] = {"EXIF": [], "XMP": [], "IPTC": []}
    for segment in segments:
        if segment.kind in _NAMES:
            found[_NAMES[segment.kind]].append(segment.data)
    everything = [data for datas in found.values() for data in datas]
    unreadable: list[str] = []
    if sum(map(len, everything)) > _MOST_METADATA_BYTES:
        tags, unreadable = _open(exiv2, minimal_jpeg(())), [name for name, datas in found.items() if datas]
    else:
        try:
            tags = _open(exiv2, minimal_jpeg(everything))
        except exiv2.Exiv2Error:
            readable = []
            for name, datas in found.items():
                try:
                    _open(exiv2, minimal_jpeg(datas))
                    readable += datas
                except exiv2.Exiv2Error:
                    unreadable.append(name)
            tags = _open(exiv2, minimal_jpeg(readable))
    if found["EXIF"] and tags.exif.empty and len(found["EXIF"][0]) > 24 and "EXIF" not in unreadable:
        unreadable.append("EXIF")
    if found["XMP"] and tags.xmp.empty and b"rdf:Description" in found["XMP"][0] and "XMP" not in unreadable:
        unreadable.append("XMP")
    _note_unreadable(tags, unreadable)
    return tags


def tags_of_blobs(exiv2: Any, exif: bytes | None, xmp: bytes | None) -> PhotoTags:
    """From the blocks a container (HEIF, AVIF) keeps apart from its pixels; ready to be written to a JPEG."""
    tags = _open(exiv2, minimal_jpeg(()))
    unreadable = [name for name, data in (("EXIF", exif), ("XMP", xmp)) if data and len(data) > _MOST_METADATA_BYTES]
    if exif and "EXIF" not in unreadable:
        try:
            block = _open(exiv2, exif[6:] if exif.startswith(b"Exif\x00\x00") else exif)
            tags.image.setExifData(block.exif.data)
        except (exiv2.Exiv2Error, ValueError):
            unreadable.append("EXIF")
    if xmp and "XMP" not in unreadable and xmp.strip(b"\x00 \r\n"):
        try:
            start = max(xmp.find(b"<"), 0)
            block = _open(exiv2, xmp[start:].rstrip(b"\x00"))
            tags.image.setXmpData(block.xmp.data)
        except (exiv2.Exiv2Error, ValueError):
            unreadable.append("XMP")
    _note_unreadable(tags, unreadable)
    return _all_new(exiv2, tags)


def tags_of_file(exiv2: Any, path: Path) -> PhotoTags:
    """From a PNG, TIFF, WebP or RAW file; ready to be written to a JPEG. Nothing readable gives empty tags."""
    tags = _open(exiv2, minimal_jpeg(()))
    try:
        source = _open(exiv2, str(path))
    except (exiv2.Exiv2Error, ValueError):
        return _all_new(exiv2, tags)
    tags.image.setExifData(source.exif.data)
    tags.image.setIptcData(source.iptc.data)
    tags.image.setXmpData(source.xmp.data)
    return _all_new(exiv2, tags)


def no_tags(exiv2: Any) -> PhotoTags:
    """Empty ones, ready to be written to a JPEG."""
    return _all_new(exiv2, _open(exiv2, minimal_jpeg(())))


def _all_new(exiv2: Any, tags: PhotoTags) -> PhotoTags:
    fresh = _tags_in(exiv2, tags.image)
    fresh.notes = tags.notes
    fresh.count_all_as_changed()
    return fresh


def _note_unreadable(tags: PhotoTags, kinds: list[str]) -> None:
    if kinds:
        tags.notes.append(f"the original's {' and '.join(kinds)} could not be read")


# ── changing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def group_of(key: str) -> str:
    """`GPSInfo` of `Exif.GPSInfo.GPSLatitude`."""
    return key.split(".", 2)[1]


def _describes_storage(key: str) -> bool:
    _, group, name = key.split(".", 2)
    if group == "Image":
        return name not in _KEPT_OF_IFD0 and name not in ("ExifTag", "GPSTag")
    return group.startswith(_STORAGE_GROUPS)


def fit_to_pixels(exiv2: Any, tags: PhotoTags, width: int, height: int, orientation: int = 1) -> None:
    """Make tags that came from another file true of the JPEG they go into: size, orientation, no old thumbnail."""
    tags.exif.erase_where(_describes_storage)
    if not tags.exif.empty:
        if orientation != 1 or "Exif.Image.Orientation" in tags.exif:
            tags.put("Exif.Image.Orientation", exiv2.UShortValue(orientation))
        tags.put("Exif.Photo.PixelXDimension", exiv2.ULongValue(width))
        tags.put("Exif.Photo.PixelYDimension", exiv2.ULongValue(height))
    stale = ("Xmp.tiff.ImageWidth", "Xmp.tiff.ImageLength", "Xmp.exif.PixelXDimension", "Xmp.exif.PixelYDimension")
    tags.xmp.erase_where(
        lambda key: key in stale or key.startswith(("Xmp.tiff.Orientation", "Xmp.xmp.Thumbnails")),
    )


# ── facts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def date_of(tags: PhotoTags) -> datetime | None:
    """When it was taken: DateTimeOriginal, else DateTimeDigitized, else what TIFF/EP or XMP says."""
    for kind in ("Original", "Digitized"):
        found = exif_date_of(tags.exif, kind)
        if found is not None:
            return found
    found = parse_date(tags.exif.text("Exif.Image.DateTimeOriginal"))
    if found is not None:
        return found
    for key in ("Xmp.exif.DateTimeOriginal", "Xmp.photoshop.DateCreated", "Xmp.xmp.CreateDate"):
        found = parse_iso_date(tags.xmp.text(key))
        if found is not None:
            return found
    return None


DATE_KEYS: Final = {
    "Original": ("Exif.Photo.DateTimeOriginal", "Exif.Photo.OffsetTimeOriginal", "Exif.Photo.SubSecTimeOriginal"),
    "Digitized": ("Exif.Photo.DateTimeDigitized", "Exif.Photo.OffsetTimeDigitized", "Exif.Photo.SubSecTimeDigitized"),
}


def exif_date_of(exif: TagIndex, kind: str) -> datetime | None:
    """`kind` is `Original` or `Digitized`."""
    date, offset, fraction = DATE_KEYS[kind]
    return parse_date(exif.text(date), exif.text(offset), exif.text(fraction))


def location_of(exif: TagIndex) -> Location | None:
    """The position EXIF gives; None if there is none or it is not on this planet."""
    if "Exif.GPSInfo.GPSLatitude" not in exif or "Exif.GPSInfo.GPSLongitude" not in exif:
        return None
    latitude = from_sexagesimal(exif.rationals("Exif.GPSInfo.GPSLatitude"), exif.text("Exif.GPSInfo.GPSLatitudeRef"))
    longitude = from_sexagesimal(exif.rationals("Exif.GPSInfo.GPSLongitude"), exif.text("Exif.GPSInfo.GPSLongitudeRef"))
    if latitude is None or longitude is None:
        return None
    altitude = _ratio(exif, "Exif.GPSInfo.GPSAltitude")
    if altitude is not None and exif.text("Exif.GPSInfo.GPSAltitudeRef") in ("1", "3"):
        altitude = -altitude
    location = Location(latitude, longitude, altitude, _ratio(exif, "Exif.GPSInfo.GPSImgDirection"))
    return location if valid(location) else None


def _ratio(exif: TagIndex, key: str) -> float | None:
    fractions = exif.rationals(key)
    return fractions[0][0] / fractions[0][1] if fractions and fractions[0][1] else None


def rating_of(tags: PhotoTags) -> int | None:
    """XMP's word, else EXIF's; None if there is none or it is no number from -1 to 5."""
    for text in (tags.xmp.text("Xmp.xmp.Rating"), tags.exif.text("Exif.Image.Rating")):
        if not text:
            continue
        try:
            rating = round(float(text))
        except (ValueError, OverflowError):
            continue
        if -1 <= rating <= 5:
            return rating
    return None


def orientation_of(exif: TagIndex) -> int:
    """1 to 8; 1 where nothing sensible is said."""
    text = exif.text("Exif.Image.Orientation")
    return int(text) if text in ("1", "2", "3", "4", "5", "6", "7", "8") else 1


def description_of(tags: PhotoTags) -> str:
    """Empty if there is none."""
    return (
        tags.xmp.text_by_language("Xmp.dc.description")
        or tags.iptc.text("Iptc.Application2.Caption")
        or tags.exif.text("Exif.Image.ImageDescription")
    )


def keywords_of(tags: PhotoTags) -> tuple[str, ...]:
    return (
        tags.xmp.items_of("Xmp.dc.subject")
        or tags.iptc.texts("Iptc.Application2.Keywords")
        or windows_keywords_of(tags.exif)
    )


def facts_of(tags: PhotoTags) -> TagFacts:
    """What the tags say now. XMP goes before IPTC, IPTC before EXIF, Microsoft's tags last."""
    return TagFacts(
        date=date_of(tags),
        location=location_of(tags.exif),
        title=tags.xmp.text_by_language("Xmp.dc.title")
        or tags.iptc.text("Iptc.Application2.ObjectName")
        or windows_title_of(tags.exif)
        or None,
        description=description_of(tags) or None,
        keywords=keywords_of(tags),
        persons=tags.xmp.items_of("Xmp.iptcExt.PersonInImage"),
        orientation=orientation_of(tags.exif),
        rating=rating_of(tags),
    )
