"""One photo, from the source's file to the file that is exported: the entry point of this package.

Everything blocks, so that it can be called from worker threads; several at once are fine.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.files.naming import RAW_SUFFIXES
from skicyclerun.images import raw
from skicyclerun.images.companions import copy_original, write_sidecar
from skicyclerun.images.convert import Converted, Picture, convert_plain_heic, decode, displayed_size, encode_jpeg
from skicyclerun.images.decode_check import check_first_rows
from skicyclerun.images.exiv2_session import TagsUnreadable, exiv2_session
from skicyclerun.images.face_regions import named_faces
from skicyclerun.images.jpeg_scan_watch import ScanWatch
from skicyclerun.images.jpeg_segments import (
    XMP,
    Frame,
    JpegHeader,
    read_header,
    replace_metadata,
)
from skicyclerun.images.library_tags import write_library_metadata
from skicyclerun.images.metadata import (
    PhotoTags,
    TagFacts,
    facts_of,
    fit_to_pixels,
    no_tags,
    orientation_of,
    tags_of_blobs,
    tags_of_file,
    tags_of_segments,
)
from skicyclerun.images.metadata_segments import NewSegments, encode
from skicyclerun.images.movies import check_movie
from skicyclerun.images.picture_alone import write_picture_alone
from skicyclerun.images.published_tags import fit_to_new_pixels, remove_whereabouts
from skicyclerun.images.scale import no_larger, smaller_jpeg
from skicyclerun.images.sidecar import SidecarFormat
from skicyclerun.images.sniff import HEAD_BYTES, JPEG_START, Content, describe_unknown, sniff
from skicyclerun.images.staging import Original, StagedFile, open_original
from skicyclerun.images.tag_dates import in_whole_minutes, iso_date, iso_date_utc, since_epoch_ns
from skicyclerun.images.tag_positions import valid
from skicyclerun.images.texts import clean, clean_line, clean_list, cut
from skicyclerun.models import Component, ExportedFacts, Fetched, LibraryMetadata, Place

DEFAULT_MAX_PIXELS = 300_000_000
_MOST_PLACE_NAME: Final = 1_000
"""Bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """What the configuration says about pictures."""

    format: Literal["jpeg", "original"] = "jpeg"
    """`original` copies every file unchanged, whatever it is."""
    quality: int = 95
    """Of JPEGs that are encoded here, 1 to 100; a JPEG original is never encoded again."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """A picture with more is not decoded."""
    sidecar: SidecarFormat = "xmp"
    """Of what is rendered as a sidecar."""
    strip_location: bool = False
    """Without positions, the fields for names of places, and all that may hold one unseen."""
    max_size: int = 0
    """Pixels of the longer side, at most; 0: as large as it is."""
    person_keywords: bool = False
    """The names of persons are written as keywords too."""


@dataclass(frozen=True, slots=True)
class _Written:
    """What was written, before its time is set."""

    facts: TagFacts
    width: int | None
    height: int | None
    notes: tuple[str, ...] = ()
    converted_from: str = ""


def render_photo(fetched: Fetched, component: Component, destination: Path, options: RenderOptions) -> ExportedFacts:
    """Write `destination`, a staging file whose folder exists, and say what it is.

    The same input gives the same bytes. The file's time is the photo's date, by the library, else by the file, else
    that of the original. Nothing is synced. Raises PhotoUnreadable with the reason, OriginalMissing if the original
    is gone, PhotoTransient if it changes while it is read; OSError (a full disk) passes through. After an error there
    is no `destination`.
    """
    if component is Component.SIDECAR:
        located = not options.strip_location
        return write_sidecar(
            fetched, destination, options.sidecar, located=located, person_keywords=options.person_keywords
        )
    if component is Component.ORIGINAL:
        return copy_original(fetched, destination)
    with open_original(fetched.path) as original, StagedFile(destination) as staged:
        content = Content.JPEG if original.read(0, len(JPEG_START)) == JPEG_START else sniff(original.stream)
        if content is None:
            raise PhotoUnreadable(describe_unknown(original.read(0, HEAD_BYTES), fetched.path.name))
        if component is not Component.STILL:
            written = _copy_movie(original, content, staged)
        elif content is Content.MOVIE:
            raise PhotoUnreadable("it is a movie, not a picture")
        elif options.format == "original":
            written = _copy_original(original, content, staged)
        elif content is Content.JPEG:
            written = _render_jpeg(original, fetched.metadata, staged, options)
        elif content is Content.RAW or (content is Content.TIFF and fetched.path.suffix.lower() in RAW_SUFFIXES):
            written = _render_raw(original, content, fetched.metadata, staged, options)
        else:
            picture: Picture | Converted | None = None
            if not options.max_size:
                picture = convert_plain_heic(original, content, options.max_pixels, options.quality)
            if picture is None:
                picture = decode(original, content, options.max_pixels)
            jpeg = _encoded(picture, options)
            written = _write_with_tags(original, jpeg, picture, fetched.metadata, staged, content, options)
        facts = written.facts
        if component is not Component.STILL or options.format == "original":
            facts = _with_library(facts, fetched.metadata, options)
        date = fetched.metadata.date if fetched.metadata and fetched.metadata.date else facts.date
        mtime_ns = since_epoch_ns(date) if date is not None else None
        kept_ns = staged.finish(original.mtime_ns if mtime_ns is None else mtime_ns)
    return _exported_facts(
        facts,
        size=staged.size,
        sha256=staged.sha256,
        width=written.width,
        height=written.height,
        rendering=fetched.rendering,
        note="; ".join(note for note in (fetched.note, *written.notes) if note),
        mtime_ns=kept_ns,
        **_in_the_library_only(fetched.metadata, component, located=not options.strip_location),
        extra={"converted_from": written.converted_from} if written.converted_from else {},
    )


def read_facts(path: Path) -> ExportedFacts:
    """What an exported file says of itself, from its header alone; `sha256` is empty, size and time are the file's.

    For JPEGs; of other files only size, time and a movie's date are known. Raises PhotoUnreadable, OriginalMissing.
    """
    with open_original(path) as original:
        content = sniff(original.stream)
        facts, width, height = TagFacts(), None, None
        if content is Content.JPEG:
            header = read_header(original)
            with exiv2_session() as exiv2:
                facts = facts_of(tags_of_segments(exiv2, header.segments))
            width, height = _as_displayed(header.frame.width, header.frame.height, facts.orientation)
        elif content is Content.MOVIE:
            facts = TagFacts(date=check_movie(original))
        elif content is None:
            raise PhotoUnreadable(describe_unknown(original.read(0, HEAD_BYTES), path.name))
        size, mtime_ns = original.size, original.mtime_ns
        return _exported_facts(facts, size=size, sha256="", width=width, height=height, mtime_ns=mtime_ns)


def _exported_facts(facts: TagFacts, **of_the_file: Any) -> ExportedFacts:
    return ExportedFacts(
        date_taken=iso_date(facts.date) if facts.date else None,
        date_taken_utc=iso_date_utc(facts.date) if facts.date else None,
        location=facts.location,
        title=facts.title,
        description=facts.description,
        keywords=facts.keywords,
        persons=facts.persons,
        **of_the_file,
    )


def _in_the_library_only(known: LibraryMetadata | None, component: Component, *, located: bool) -> dict[str, Any]:
    """What no file is read for again: the catalog has it from the library."""
    if known is None:
        return {}
    return {
        "faces": named_faces(known.faces) if component is Component.STILL else (),
        "place": _clean_place(known.place) if located else None,
        "favorite": known.favorite,
        "labels": clean_list(known.labels),
    }


@lru_cache(maxsize=256)  # most photos of an album were taken at few places
def _clean_place(place: Place | None) -> Place | None:
    """With texts as the catalog can hold them."""
    if place is None:
        return None
    texts = {field.name: cut(clean_line(getattr(place, field.name)), _MOST_PLACE_NAME) for field in fields(place)}
    return Place(**texts) if any(texts.values()) else None


# ── JPEG originals ────────────────────────────────────────────────────────────────────────────────────────────────


def _render_jpeg(
    original: Original, known: LibraryMetadata | None, staged: StagedFile, options: RenderOptions
) -> _Written:
    header = read_header(original)
    if options.max_size and max(header.frame.width, header.frame.height) > options.max_size:
        check_first_rows(original, header)
        picture = smaller_jpeg(original, options.max_pixels, options.max_size)
        jpeg = Original.of_bytes(encode_jpeg(picture, options.quality))
        return _write_with_tags(original, jpeg, picture, known, staged, Content.JPEG, options)
    return _pass_jpeg_through(original, header, known, staged, options)


def _pass_jpeg_through(
    original: Original,
    header: JpegHeader,
    known: LibraryMetadata | None,
    staged: StagedFile,
    options: RenderOptions,
) -> _Written:
    """A new header before the untouched scans, in one pass over the file."""
    check_first_rows(original, header)
    segments, facts, notes = _tagged(header, known, options)
    if options.strip_location:
        write_picture_alone(original, header, segments or NewSegments(), staged)
        return _Written(facts, *_as_displayed(header.frame.width, header.frame.height, facts.orientation), notes)
    if segments is None:
        new = original.read(0, header.size)
    else:
        new = replace_metadata(header, exif=segments.exif, xmp=segments.xmp, iptc=segments.iptc)
    watch = ScanWatch(original, header)
    for block in original.blocks(header.size):
        watch.feed(block)
        staged.write(new, block)
        new = b""
    watch.check()
    return _Written(facts, *_as_displayed(header.frame.width, header.frame.height, facts.orientation), notes)


def _tagged(
    header: JpegHeader, known: LibraryMetadata | None, options: RenderOptions
) -> tuple[NewSegments | None, TagFacts, tuple[str, ...]]:
    """The new metadata of a header, None if nothing changes; what it says then; what is to be noted."""
    reads_xmp = XMP in [segment.kind for segment in header.segments]
    with exiv2_session(reads_xmp=reads_xmp) as exiv2:
        tags = tags_of_segments(exiv2, header.segments)
        try:
            return _apply_and_encode(exiv2, tags, known, header.frame, options)
        except (exiv2.Exiv2Error, ValueError, TypeError, RuntimeError):
            fresh = no_tags(exiv2)
            fresh.notes = [*tags.notes, "the original's metadata could not be changed and was replaced"]
            return _apply_and_encode(exiv2, fresh, known, header.frame, options)


def _apply_and_encode(
    exiv2: Any, tags: PhotoTags, known: LibraryMetadata | None, frame: Frame, options: RenderOptions
) -> tuple[NewSegments | None, TagFacts, tuple[str, ...]]:
    if known is not None:
        stored = (frame.width, frame.height)
        write_library_metadata(exiv2, tags, known, stored, person_keywords=options.person_keywords)
    if options.strip_location:
        remove_whereabouts(tags)
        tags.count_all_as_changed()  # everything is written anew, and what is not written is not there
    segments = encode(exiv2, tags) if tags.changed else None
    return segments, facts_of(tags), tuple(tags.notes)


def _as_displayed(width: int, height: int, orientation: int) -> tuple[int, int]:
    return (height, width) if orientation >= 5 else (width, height)


# ── everything else that becomes a JPEG ───────────────────────────────────────────────────────────────────────────


def _encoded(picture: Picture | Converted, options: RenderOptions) -> Original:
    if isinstance(picture, Converted):
        return Original.of_bytes(picture.jpeg)
    if options.max_size:
        picture = no_larger(picture, options.max_size)
    return Original.of_bytes(encode_jpeg(picture, options.quality))


def _write_with_tags(
    original: Original,
    jpeg: Original,
    picture: Picture | Converted | None,
    known: LibraryMetadata | None,
    staged: StagedFile,
    content: Content,
    options: RenderOptions,
    notes: tuple[str, ...] = (),
) -> _Written:
    """`jpeg` with the tags of `original`. Without `picture` it is a preview, to be turned as the original says."""
    header = read_header(jpeg)
    frame = header.frame
    with exiv2_session() as exiv2:
        if content is Content.JPEG:
            tags = tags_of_segments(exiv2, read_header(original).segments)
            tags.count_all_as_changed()
        elif picture is not None and (picture.exif or picture.xmp or content in (Content.HEIF, Content.AVIF)):
            tags = tags_of_blobs(exiv2, picture.exif, picture.xmp)
        else:
            tags = tags_of_file(exiv2, original.path)
        try:
            orientation = orientation_of(tags.exif) if picture is None else 1
            if content is Content.JPEG:
                fit_to_new_pixels(exiv2, tags, frame.width, frame.height, now_srgb=False, with_orientation=True)
            else:
                fit_to_pixels(exiv2, tags, frame.width, frame.height, orientation)
            segments, facts, said = _apply_and_encode(exiv2, tags, known, frame, options)
        except (exiv2.Exiv2Error, ValueError, TypeError, RuntimeError):
            fresh = no_tags(exiv2)
            fresh.notes = [*tags.notes, "the original's metadata could not be carried over"]
            segments, facts, said = _apply_and_encode(exiv2, fresh, known, frame, options)
    segments = segments or NewSegments()
    width, height = _as_displayed(frame.width, frame.height, facts.orientation)
    written = _Written(facts, width, height, (*notes, *said), converted_from=str(content))
    if options.strip_location:
        write_picture_alone(jpeg, header, segments, staged)
        return written
    staged.write(
        replace_metadata(header, exif=segments.exif, xmp=segments.xmp, iptc=segments.iptc)
        if segments != NewSegments()
        else jpeg.read(0, header.size)
    )
    for block in jpeg.blocks(header.size):
        staged.write(block)
    return written


def _render_raw(
    original: Original,
    content: Content,
    known: LibraryMetadata | None,
    staged: StagedFile,
    options: RenderOptions,
) -> _Written:
    preview = raw.full_size_jpeg(original)
    if preview is not None:
        jpeg = Original.of_bytes(preview.data)
        notes: tuple[str, ...] = ("the RAW file's own JPEG",)
        if options.max_size and max(preview.width, preview.height) > options.max_size:
            # Not turned: the RAW file says how the camera was held, and the tag goes along.
            smaller = smaller_jpeg(jpeg, options.max_pixels, options.max_size, turned=False)
            jpeg = Original.of_bytes(encode_jpeg(smaller, options.quality))
        return _write_with_tags(original, jpeg, None, known, staged, Content.RAW, options, notes)
    notes = ()
    if content is Content.TIFF:
        picture = decode(original, content, options.max_pixels)
    else:
        picture, notes = raw.develop(original.path, options.max_pixels), ("RAW developed",)
    return _write_with_tags(original, _encoded(picture, options), picture, known, staged, content, options, notes)


# ── unchanged copies ──────────────────────────────────────────────────────────────────────────────────────────────


def _copy_movie(original: Original, content: Content, staged: StagedFile) -> _Written:
    if content is not Content.MOVIE:
        raise PhotoUnreadable(f"it should be a movie, and is a {content} picture")
    taken = check_movie(original)
    for block in original.blocks():
        staged.write(block)
    return _Written(TagFacts(date=taken), None, None)


def _copy_original(original: Original, content: Content, staged: StagedFile) -> _Written:
    """Byte for byte. A JPEG is checked on the way like one that is passed through, of others the header is read."""
    if content is Content.JPEG:
        return _pass_jpeg_through(original, read_header(original), None, staged, RenderOptions())
    width, height = (None, None) if content is Content.RAW else displayed_size(original, content)
    for block in original.blocks():
        staged.write(block)
    try:
        with exiv2_session() as exiv2:
            facts = facts_of(tags_of_file(exiv2, original.path))
    except TagsUnreadable:
        facts = TagFacts()
    return _Written(facts, width, height)


def _with_library(facts: TagFacts, known: LibraryMetadata | None, options: RenderOptions) -> TagFacts:
    """For files whose bytes are left alone the catalog is the only place that can keep what the library knows."""
    if known is None:
        return facts
    placed = known.location is not None and valid(known.location)
    removed = known.location is None and known.location_known
    return TagFacts(
        date=in_whole_minutes(known.date) if known.date is not None else facts.date,
        location=known.location if placed or removed else facts.location,
        title=clean_line(known.title or "") or facts.title,
        description=clean(known.description or "") or facts.description,
        keywords=clean_list((*(known.keywords or facts.keywords), *(known.persons if options.person_keywords else ()))),
        persons=clean_list(known.persons) or facts.persons,
        orientation=facts.orientation,
        rating=facts.rating if known.rating is None else known.rating,
    )
