"""One picture made smaller for publishing: upright, in sRGB, as WebP, JPEG or AVIF, with the tags it may keep.

Everything blocks, so that it can be called from worker threads; several at once are fine, and each takes one core.

The order is chosen for speed: what costs by the pixel (turning, colours) comes after the scaling.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image, features

from skicyclerun.errors import PhotoUnreadable, StageError
from skicyclerun.files.naming import RAW_SUFFIXES
from skicyclerun.images import raw
from skicyclerun.images.colour import in_eight_bits, on_white, to_srgb
from skicyclerun.images.convert import (
    LARGEST_JPEG_SIDE,
    Loaded,
    Picture,
    encode_jpeg,
    load,
    reasons_for_people,
    upright,
)
from skicyclerun.images.exiv2_session import TagsUnreadable, exiv2_session
from skicyclerun.images.jpeg_segments import XMP, read_header, replace_metadata
from skicyclerun.images.metadata import PhotoTags, orientation_of, tags_of_blobs, tags_of_file, tags_of_segments
from skicyclerun.images.metadata_segments import NewSegments, encode
from skicyclerun.images.published_tags import fit_to_new_pixels, remove_whereabouts
from skicyclerun.images.sniff import HEAD_BYTES, Content, describe_unknown, sniff
from skicyclerun.images.staging import Original, open_original

LARGEST_SIDES: Final = {"webp": 16_383, "jpeg": LARGEST_JPEG_SIDE, "avif": 32_768}
"""Pixels; of WebP the format's limit, of JPEG libjpeg's, of AVIF what libavif's readers take."""

# Half as fast again as Lanczos. On photographs of 12 to 24 megapixels the two differ by 50 dB PSNR, where what WebP
# does at quality 90 is 41 dB.
_FILTER: Final = Image.Resampling.BICUBIC
# Fewer pixels are decoded, or averaged in whole blocks, only as far as the filter still has a factor of two to do:
# blocks alone would show in fine lines. libvips keeps to the same.
_GAP: Final = 2.0
# Of libwebp's 0 to 6; 4 is its default. Against it 2 costs 0.35 dB and files that are 1 to 2 % larger, which is less
# than the filter gives, and takes 150 ms of CPU less for a picture of 12 megapixels (docs/measurements.md).
_WEBP_METHOD: Final = 2
_AVIF_SPEED: Final = 6


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """What the configuration says about scaled pictures."""

    max_dimension: int = 2048
    """Pixels of the longest side, at most."""
    multiple_of: int = 8
    """Both sides are multiples of this, pixels."""
    format: Literal["webp", "jpeg", "avif"] = "webp"
    quality: int = 90
    """1 to 100, as the format's encoder understands it."""
    metadata: Literal["keep", "strip_location", "strip"] = "keep"
    colour: Literal["srgb", "keep"] = "srgb"
    max_pixels: int = 300_000_000
    """A picture with more is not decoded."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """What was written. Pixels; upright."""

    width: int
    height: int
    notes: tuple[str, ...] = ()
    """What the report should say: metadata that could not be read or did not fit."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A size, and the part of the source that is shown in it."""

    width: int
    height: int
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the source; centred."""

    @property
    def unscaled(self) -> bool:
        """Whether a pixel of the source is a pixel of the result."""
        left, top, right, bottom = self.box
        return (right - left, bottom - top) == (self.width, self.height)


def fit(width: int, height: int, max_dimension: int, multiple_of: int) -> Fit:
    """The size that a picture of `width` by `height` gets.

    Its longest side is `max_dimension` rounded down to a multiple, or less: nothing is enlarged. Proportions are
    exact: what makes the other side a multiple is cut off, half at each end, less than `multiple_of` pixels of the
    result, from whichever of the two sides loses fewer. A picture that is small enough is cut and not scaled.

    The rule is the same for panoramas. A side that has fewer pixels than `multiple_of` (or would have, of a picture
    longer than that many times its width) is no multiple and keeps what it has, for there is nothing to cut from.
    """
    longest, shortest = max(width, height), min(width, height)
    if longest <= max_dimension:
        wide, high = _down(width, multiple_of), _down(height, multiple_of)
        left, top = (width - wide) // 2, (height - high) // 2
        return Fit(wide, high, (left, top, left + wide, top + high))
    long = _down(max_dimension, multiple_of)
    exact = shortest * long / longest
    if exact < multiple_of:
        wide, high = (long, max(1, round(exact))) if width >= height else (max(1, round(exact)), long)
        return Fit(wide, high, (0, 0, width, height))
    lower = int(exact / multiple_of + 1e-9) * multiple_of
    upper = lower + multiple_of
    lost_below, lost_above = exact - lower, long * (upper / exact - 1)
    short = upper if lost_above < lost_below and upper <= min(long, shortest) else lower
    scale = max(long / longest, short / shortest)
    wide, high = (long, short) if width >= height else (short, long)
    across, down = min(wide / scale, width), min(high / scale, height)
    left_edge, top_edge = (width - across) / 2, (height - down) / 2
    return Fit(wide, high, (left_edge, top_edge, left_edge + across, top_edge + down))


def _down(side: int, multiple_of: int) -> int:
    return side // multiple_of * multiple_of or side


def check_encoder(format: str) -> None:
    """Raises StageError if this Pillow cannot write the format, with what to do about it."""
    if format in ("webp", "avif") and not features.check(format):
        name = {"webp": "WebP", "avif": "AVIF"}[format]
        raise StageError(
            f"preprocessing.format is {format!r}, and the Pillow that is installed here cannot write {name}.",
            next_step="Install a Pillow that can: `pip install --upgrade --force-reinstall 'pillow>=11.3'`, "
            "or set preprocessing.format to 'jpeg'.",
        )


def scaled_jpeg(source: Path, max_dimension: int, *, quality: int = 85) -> bytes:
    """The picture in `source` as a JPEG for somebody who looks at it: upright, in sRGB, without metadata.

    Its longest side has at most `max_dimension` pixels. Raises as `scale_picture`.
    """
    small = ScaleOptions(max_dimension=max_dimension, multiple_of=1, format="jpeg", quality=quality, metadata="strip")
    return scaled_pixels(source, small).encoded()


def no_larger(picture: Picture, longest_side: int) -> Picture:
    """A decoded picture with at most so many pixels on its longer side; itself where it has no more."""
    if max(picture.image.size) <= longest_side:
        return picture
    fitted = fit(*picture.image.size, longest_side, 1)
    image = picture.image.resize((fitted.width, fitted.height), _FILTER, box=fitted.box, reducing_gap=_GAP)
    return replace(picture, image=image, subsampled=False)


def smaller_jpeg(original: Original, max_pixels: int, longest_side: int, *, turned: bool = True) -> Picture:
    """A JPEG decoded at so many pixels on its longer side, upright (unless not `turned`), with its colour profile.

    Raises PhotoUnreadable as `decode`.
    """
    loaded = load(original, Content.JPEG, max_pixels, longest_side=round(longest_side * _GAP))
    if not turned:
        loaded.orientation = 1
    with reasons_for_people(Content.JPEG):
        image, profile = _scaled(loaded, fit(loaded.width, loaded.height, longest_side, 1))
    return Picture(on_white(image), profile, None, None, subsampled=False)


def scale_picture(source: Path, staged: Path, options: ScaleOptions) -> Scaled:
    """Write `staged`, which does not exist yet, from the picture in `source`.

    The same bytes and options give the same bytes, with the same Pillow. Nothing is synced. Raises PhotoUnreadable
    with the reason (a movie, damaged, too large), OriginalMissing if `source` is gone; OSError (a full disk) passes
    through. After an error there is no `staged`.
    """
    scaled = scaled_pixels(source, options)
    _write(staged, scaled.encoded())
    return Scaled(scaled.image.width, scaled.image.height, scaled.notes)


@dataclass(frozen=True, slots=True)
class ScaledPixels:
    """A scaled picture in memory, with what its file is to hold besides the pixels."""

    image: Image.Image
    """RGB, RGBA, L or LA; upright."""
    notes: tuple[str, ...]
    profile: bytes | None
    subsampled: bool
    segments: NewSegments
    options: ScaleOptions

    def encoded(self) -> bytes:
        """The file's bytes. Raises PhotoUnreadable where there is too little memory."""
        return _encoded(self.image, self.profile, self.subsampled, self.segments, self.options)

    def as_rgb(self) -> Image.Image:
        """For a model that takes three colours: what is transparent is white."""
        return on_white(self.image).convert("RGB")

    def with_pixels(self, image: Image.Image) -> ScaledPixels:
        """Another picture of the same size and colour space with the same tags."""
        return replace(self, image=image, subsampled=False)


def scaled_pixels(source: Path, options: ScaleOptions) -> ScaledPixels:
    """What `scale_picture` writes, before it is encoded. Raises as it does."""
    with open_original(source) as original:
        content = sniff(original.stream)
        if content is None:
            raise PhotoUnreadable(describe_unknown(original.read(0, HEAD_BYTES), source.name))
        if content is Content.MOVIE:
            raise PhotoUnreadable("it is a movie, not a picture")
        limit = min(options.max_dimension, LARGEST_SIDES[options.format])
        loaded = _load(original, content, options.max_pixels, round(limit * _GAP))
        fitted = fit(loaded.width, loaded.height, limit, options.multiple_of)
        with reasons_for_people(content):
            image, profile = _scaled(loaded, fitted)
        now_srgb = profile is not None and options.colour == "srgb"
        if now_srgb:
            image, profile = to_srgb(image, profile), None
        elif profile is not None and image.mode in ("L", "LA") and options.format == "webp":
            # WebP has no grey, and a profile for grey does not fit what it makes of it.
            image, profile = to_srgb(image, profile), None
        segments, notes = NewSegments(), list[str]()
        if options.metadata != "strip":
            segments, notes = _tags(original, content, loaded, image.size, options, now_srgb)
    subsampled = loaded.subsampled and fitted.unscaled
    return ScaledPixels(image, tuple(notes), profile, subsampled, segments, options)


# ── pixels ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _load(original: Original, content: Content, max_pixels: int, longest_side: int) -> Loaded:
    named_raw = content is Content.TIFF and original.path.suffix.lower() in RAW_SUFFIXES
    preview = raw.full_size_jpeg(original) if content is Content.RAW or named_raw else None
    if preview is not None:
        loaded = load(Original.of_bytes(preview.data), Content.JPEG, max_pixels, longest_side=longest_side)
        with suppress(TagsUnreadable), exiv2_session() as exiv2:
            # The RAW file knows how the camera was held; what the JPEG inside says of it is often nothing.
            loaded.orientation = orientation_of(tags_of_file(exiv2, original.path).exif)
        return loaded
    if content is Content.RAW:
        image = raw.develop(original.path, max_pixels).image
        return Loaded(image, 1, image.width, image.height, None, None, None, subsampled=False)
    return load(original, content, max_pixels, longest_side=longest_side)


def _scaled(loaded: Loaded, fitted: Fit) -> tuple[Image.Image, bytes | None]:
    """RGB, RGBA, L or LA, upright, in its new size; the profile if it fits."""
    image, profile = in_eight_bits(loaded.image, loaded.icc)
    image.info = {}  # or encoders would carry comments, profiles and resolutions of other formats over
    size = (fitted.width, fitted.height)
    if fitted.unscaled and loaded.fraction == 1:
        if size != image.size:
            image = image.resize(size, Image.Resampling.NEAREST, box=fitted.box)
    else:
        left, top, right, bottom = (edge / loaded.fraction for edge in fitted.box)
        # The last column of a picture decoded at a fraction may lie partly outside, never inside.
        box = (left, top, min(right, image.width), min(bottom, image.height))
        image = image.resize(size, _FILTER, box=box, reducing_gap=_GAP)
    return upright(image, loaded.orientation), profile


# ── tags ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tags(
    original: Original, content: Content, loaded: Loaded, size: tuple[int, int], options: ScaleOptions, now_srgb: bool
) -> tuple[NewSegments, list[str]]:
    """The source's tags as JPEG segments, and what is to be noted. What cannot be carried over fails no picture."""
    try:
        with exiv2_session() as exiv2:
            tags = _read_tags(exiv2, original, content, loaded)
            with_orientation = options.format != "avif"  # whose container says it, and Pillow takes it from there
            fit_to_new_pixels(exiv2, tags, *size, now_srgb=now_srgb, with_orientation=with_orientation)
            if options.metadata == "strip_location":
                remove_whereabouts(tags)
            tags.count_all_as_changed()
            return encode(exiv2, tags), tags.notes
    except TagsUnreadable:
        return NewSegments(), ["the metadata could not be carried over"]


def _read_tags(exiv2: Any, original: Original, content: Content, loaded: Loaded) -> PhotoTags:
    if content is Content.JPEG:
        return tags_of_segments(exiv2, read_header(original).segments)
    if content in (Content.HEIF, Content.AVIF):
        return tags_of_blobs(exiv2, loaded.exif, loaded.xmp)
    return tags_of_file(exiv2, original.path)


def _exif_block(segments: NewSegments) -> bytes:
    """Without the segment's marker and length and `Exif` with two zeros, which are JPEG's alone."""
    return segments.exif[0][10:] if segments.exif else b""


def _xmp_packet(segments: NewSegments) -> bytes:
    return segments.xmp[0][4 + len(XMP) :] if segments.xmp else b""


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _encoded(
    image: Image.Image, profile: bytes | None, subsampled: bool, segments: NewSegments, options: ScaleOptions
) -> bytes:
    if options.format == "jpeg":
        return _jpeg(Picture(on_white(image), profile, None, None, subsampled), segments, options.quality)
    written = io.BytesIO()
    carried = {"exif": _exif_block(segments), "xmp": _xmp_packet(segments), "icc_profile": profile or b""}
    try:
        if options.format == "webp":
            image.save(written, "WEBP", quality=options.quality, method=_WEBP_METHOD, **carried)
        else:
            # Threads would make tiles of it, and other bytes on machines with other numbers of cores.
            image.save(
                written,
                "AVIF",
                quality=options.quality,
                speed=_AVIF_SPEED,
                max_threads=1,
                autotiling=False,
                **carried,
            )
    except MemoryError as error:
        raise PhotoUnreadable("encoding it needs more memory than there is") from error
    return written.getvalue()


def _jpeg(picture: Picture, segments: NewSegments, quality: int) -> bytes:
    data = encode_jpeg(picture, quality)
    if segments == NewSegments():
        return data
    header = read_header(Original.of_bytes(data))
    head = replace_metadata(header, exif=segments.exif, xmp=segments.xmp, iptc=segments.iptc)
    return head + data[header.size :]


def _write(path: Path, data: bytes) -> None:
    try:
        with open(path, "xb") as stream:
            stream.write(data)
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise
