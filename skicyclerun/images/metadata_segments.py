"""Tags encoded as the segments of a JPEG's header, each within the 64 kB that a segment can hold."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from skicyclerun.images import jpeg_segments
from skicyclerun.images.face_regions import WITH_REGIONS
from skicyclerun.images.metadata import PhotoTags, group_of, minimal_jpeg
from skicyclerun.images.texts import cut


@dataclass(frozen=True, slots=True)
class NewSegments:
    """What replaces the metadata of a header; None leaves that kind as it is."""

    exif: tuple[bytes, ...] | None = None
    xmp: tuple[bytes, ...] | None = None
    iptc: tuple[bytes, ...] | None = None


def encode(exiv2: Any, tags: PhotoTags) -> NewSegments:
    """The changed kinds as JPEG segments. What does not fit into one (64 kB) is shortened step by step, and noted."""
    try:
        return _all_at_once(exiv2, tags)
    except exiv2.Exiv2Error:  # it does not say which of them was too large
        return NewSegments(
            exif=_encode_exif(exiv2, tags) if tags.exif.changed else None,
            xmp=_encode_xmp(exiv2, tags) if tags.xmp.changed else None,
            iptc=_encode_iptc(exiv2, tags) if tags.iptc.changed else None,
        )


def _all_at_once(exiv2: Any, tags: PhotoTags) -> NewSegments:
    kinds = (tags.exif, tags.xmp, tags.iptc)
    made = [kind.segments() if kind.changed else None for kind in kinds]
    wanted = [kind.changed and segments is None for kind, segments in zip(kinds, made, strict=True)]
    if True in wanted:

        def put(image: Any) -> None:
            if wanted[0]:
                image.setExifData(tags.exif.data)
            if wanted[1]:
                image.setXmpData(tags.xmp.data)
            if wanted[2]:
                image.setIptcData(tags.iptc.data)

        written = _written(exiv2, put, tags.image.byteOrder() if wanted[0] else None)
        for place, identifier in enumerate((jpeg_segments.EXIF, jpeg_segments.XMP, jpeg_segments.IPTC)):
            if wanted[place]:
                made[place] = tuple(data for data in written if data.startswith(identifier, 4))
    exif, xmp, iptc = made
    return NewSegments(exif, xmp, iptc)


def _written(exiv2: Any, put: Callable[[Any], None], byte_order: Any = None) -> tuple[bytes, ...]:
    """The metadata segments exiv2 makes of what `put` sets."""
    image = exiv2.ImageFactory.open(minimal_jpeg(()))
    if byte_order is not None:
        image.setByteOrder(byte_order)
    put(image)
    image.writeMetadata()
    stream = image.io()
    stream.open()
    data = bytes(stream.data())
    segments = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] in (jpeg_segments.APP0, jpeg_segments.APP1, 0xED):
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if data[at + 1] != jpeg_segments.APP0:
            segments.append(data[at:end])
        at = end
    return tuple(segments)


def _first_that_fits(
    exiv2: Any, tags: PhotoTags, kind: str, write: Callable[[], tuple[bytes, ...]], steps: list[Callable[[], object]]
) -> tuple[bytes, ...] | None:
    """Write; while exiv2 says it is too large, do the next step and write again. None: nothing helps, keep the old."""
    for step in (None, *steps):
        if step is not None:
            step()
        try:
            segments = write()
        except exiv2.Exiv2Error:
            continue
        if step is not None:
            tags.notes.append(f"{kind} was shortened to fit into the file")
        return segments
    tags.notes.append(f"{kind} did not fit into the file and was left as it was")
    return None


def _encode_exif(exiv2: Any, tags: PhotoTags) -> tuple[bytes, ...] | None:
    exif = tags.exif

    def shorten_description() -> None:
        if "Exif.Image.ImageDescription" in exif:
            text = cut(exif.text("Exif.Image.ImageDescription"), 2000)
            exif.put("Exif.Image.ImageDescription", exiv2.AsciiValue(text))

    steps: list[Callable[[], object]] = [
        shorten_description,
        lambda: exif.erase_where(lambda key: group_of(key) == "Thumbnail"),
        lambda: exif.erase_larger_than(16_000),
        lambda: exif.erase_larger_than(256),
    ]
    write = partial(_written, exiv2, lambda image: image.setExifData(exif.data), tags.image.byteOrder())
    return _first_that_fits(exiv2, tags, "EXIF", write, steps)


def _encode_xmp(exiv2: Any, tags: PhotoTags) -> tuple[bytes, ...] | None:
    xmp = tags.xmp

    def shorten_description() -> None:
        if "Xmp.dc.description" in xmp:
            text = cut(xmp.text_by_language("Xmp.dc.description"), 2000)
            xmp.put_text_by_language(exiv2, "Xmp.dc.description", text)

    steps: list[Callable[[], object]] = [
        shorten_description,
        lambda: xmp.erase_where(lambda key: key.startswith("Xmp.xmp.Thumbnails")),
        lambda: xmp.erase_where(lambda key: key.startswith(WITH_REGIONS)),
        lambda: xmp.erase_larger_than(16_000),
        lambda: xmp.erase_larger_than(1_000),
    ]
    return _first_that_fits(
        exiv2, tags, "XMP", partial(_written, exiv2, lambda image: image.setXmpData(xmp.data)), steps
    )


def _encode_iptc(exiv2: Any, tags: PhotoTags) -> tuple[bytes, ...] | None:
    return _first_that_fits(
        exiv2, tags, "IPTC", partial(_written, exiv2, lambda image: image.setIptcData(tags.iptc.data)), []
    )
