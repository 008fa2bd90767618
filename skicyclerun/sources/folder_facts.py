"""What a file of a folder tree says of itself in its header: what photos are chosen and grouped by.

No pixel is decoded. What cannot be read is not known; whoever exports the file says what is wrong with it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from skicyclerun.errors import PhotoError
from skicyclerun.images.exiv2_session import TagsUnreadable, exiv2_session
from skicyclerun.images.jpeg_segments import read_header
from skicyclerun.images.metadata import PhotoTags, facts_of, tags_of_file, tags_of_segments
from skicyclerun.images.movies import check_movie
from skicyclerun.images.sniff import Content, sniff
from skicyclerun.images.staging import Original, open_original
from skicyclerun.models import MediaKind, PhotoFacts, Place


def read_facts(path: Path, known: PhotoFacts) -> tuple[PhotoFacts, Place | None]:
    """What is known of a file already with what its header adds: date, keywords, persons and pixels; and its place.

    A place is what a program has written into the file. A movie's date is that of its own header, which is UTC; its
    pixels are not looked for. Raises nothing.
    """
    try:
        with open_original(path) as original:
            content = sniff(original.stream)
            if content is None:
                return known, None
            if content is Content.MOVIE or known.media is MediaKind.VIDEO:
                return replace(known, date=_date_of_movie(original)), None
            return _read_tags(original, content, known)
    except (PhotoError, TagsUnreadable, OSError):
        return known, None


def _date_of_movie(original: Original) -> datetime | None:
    try:
        return check_movie(original)
    except PhotoError:
        return None


def _read_tags(original: Original, content: Content, known: PhotoFacts) -> tuple[PhotoFacts, Place | None]:
    if content is Content.JPEG:
        header = read_header(original)
        width, height = header.frame.width, header.frame.height
        with exiv2_session() as exiv2:
            return _with_tags(tags_of_segments(exiv2, header.segments), known, width, height)
    with exiv2_session() as exiv2:
        try:
            image = exiv2.ImageFactory.open(str(original.path))
            image.readMetadata()
            width, height = image.pixelWidth(), image.pixelHeight()
        except (exiv2.Exiv2Error, ValueError):
            width, height = 0, 0
        return _with_tags(tags_of_file(exiv2, original.path), known, width, height)


def _with_tags(tags: PhotoTags, known: PhotoFacts, width: int, height: int) -> tuple[PhotoFacts, Place | None]:
    said = facts_of(tags)
    facts = replace(
        known,
        date=said.date,
        offset_known=said.date is not None and said.date.tzinfo is not None,
        width=height if said.orientation >= 5 else width,
        height=width if said.orientation >= 5 else height,
        keywords=said.keywords,
        persons=said.persons,
    )
    city = tags.xmp.text("Xmp.photoshop.City") or tags.iptc.text("Iptc.Application2.City")
    country = tags.xmp.text("Xmp.photoshop.Country") or tags.iptc.text("Iptc.Application2.CountryName")
    return facts, Place(country=country, city=city) if country or city else None
