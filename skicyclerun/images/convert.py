"""Pictures that are no JPEGs, decoded and made into one: first frame, upright, alpha on white, right colours.

Pillow decodes everything but HEIF, which is pillow-heif's; plain HEICs are FFmpeg's where it is there (`heif_ffmpeg`).
The plug-in for what the bytes are is called directly: no
other one sees the file, nothing is registered globally, and the limit on pixels is ours alone.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageFile

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.colour import fitting, for_jpeg
from skicyclerun.images.heif_ffmpeg import plain_jpeg, why_not_used
from skicyclerun.images.sniff import Content
from skicyclerun.images.staging import Original
from skicyclerun.wording import bytes_in_words, pixels_in_words

LARGEST_JPEG_SIDE: Final = 65_500
"""Pixels; libjpeg's own limit (JPEG_MAX_DIMENSION), just below that of the format."""

_PLUGINS: Final = {
    Content.JPEG: ("JpegImagePlugin", "JpegImageFile"),
    Content.AVIF: ("AvifImagePlugin", "AvifImageFile"),
    Content.PNG: ("PngImagePlugin", "PngImageFile"),
    Content.TIFF: ("TiffImagePlugin", "TiffImageFile"),
    Content.GIF: ("GifImagePlugin", "GifImageFile"),
    Content.WEBP: ("WebPImagePlugin", "WebPImageFile"),
    Content.BMP: ("BmpImagePlugin", "BmpImageFile"),
    Content.JPEG2000: ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    Content.PSD: ("PsdImagePlugin", "PsdImageFile"),
}
# Their decoders take the file in one piece.
_READ_WHOLE: Final = frozenset((Content.HEIF, Content.AVIF, Content.WEBP))
_MOST_BYTES_READ_WHOLE: Final = 1 << 30

# By the orientation tag: what brings the stored pixels upright (Exif 3.0, 4.6.5.1.6).
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_heif_lock: Final = threading.Lock()
_heifs_in_hand = 0


@dataclass(slots=True)
class Loaded:
    """A decoded picture as its file stores it: not turned, in any of Pillow's modes, its transparency untouched."""

    image: Image.Image
    orientation: int
    """What is still to be applied, 1 to 8."""
    width: int
    """Pixels as stored. `image` has fewer where a JPEG was decoded at a fraction of its size."""
    height: int
    icc: bytes | None
    exif: bytes | None
    """As its container keeps it apart from the pixels; None where the file has to be asked."""
    xmp: bytes | None
    subsampled: bool
    """Whether a HEIF's colours were stored at half resolution (4:2:0)."""
    fraction: int = 1
    """1, 2, 4 or 8: what its sides were divided by when it was decoded."""


@dataclass(slots=True)
class Picture:
    """A decoded picture, upright, in a mode a JPEG can hold (RGB or L)."""

    image: Image.Image
    icc: bytes | None
    """The profile its colours are to be read with; fits the mode."""
    exif: bytes | None
    """As its container keeps it apart from the pixels; None where the file has to be asked."""
    xmp: bytes | None
    subsampled: bool
    """Whether the original's colours were stored at half resolution (4:2:0) already."""


@dataclass(slots=True)
class Converted:
    """A picture as a JPEG that is upright and has its profile, and no tags yet."""

    jpeg: bytes
    exif: bytes | None
    """As its container keeps it apart from the pixels; None where the file has to be asked."""
    xmp: bytes | None


def check_pixels(width: int, height: int, limit: int) -> None:
    """Raises PhotoUnreadable for more pixels than `limit`, before any of them is decoded."""
    if width <= 0 or height <= 0:
        raise PhotoUnreadable(f"it says that it is {pixels_in_words(width, height)}")
    if width * height > limit:
        raise PhotoUnreadable(f"{pixels_in_words(width, height)} is more than the limit of {limit / 1e6:g} million")


def quiet_pillow() -> None:
    """Keep what Pillow, its plug-ins and libtiff remark on odd files off the user's terminal.

    Called for each picture: a filter is replaced by itself, and the test runner resets the filters for each test.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif|skicyclerun\.images\.")
    _quiet_libraries()


@cache
def _quiet_libraries() -> None:
    """libtiff writes to the process's stderr unless told otherwise, and Pillow silences its warnings only."""
    # Without a handler anywhere, logging's last resort is stderr; with this one records still reach the root's.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    package = Path(Image.__file__).parent
    bundled = (*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*"))
    for library in map(str, bundled or ("libtiff.so.6", "libtiff.6.dylib")):
        try:
            libtiff = ctypes.CDLL(library)
            libtiff.TIFFSetErrorHandler(None)
            libtiff.TIFFSetErrorHandlerExt(None)
        except (OSError, AttributeError):
            continue  # not this build of Pillow; remarks on stderr are a blemish, not an error


def open_with_pillow(stream: Any, content: Content) -> ImageFile.ImageFile:
    """Read the header with the one plug-in for this content. Raises whatever the plug-in raises."""
    module, name = _PLUGINS[content]
    plugin: Callable[[Any], ImageFile.ImageFile] = getattr(importlib.import_module(f"PIL.{module}"), name)
    return plugin(stream)


def convert_plain_heic(original: Original, content: Content, max_pixels: int, quality: int) -> Converted | None:
    """A plain HEIC as a JPEG, by FFmpeg; None for all others, which `decode` and `encode_jpeg` are for.

    Raises PhotoUnreadable as `decode` does.
    """
    if content is not Content.HEIF or why_not_used() is not None:
        return None
    with reasons_for_people(content):
        _check_bytes(original, content)
        return _convert_plain_heif(original, max_pixels, quality)


def decode(original: Original, content: Content, max_pixels: int) -> Picture:
    """Decode all of it. Raises PhotoUnreadable with the reason (truncated, damaged, too large, no memory)."""
    loaded = load(original, content, max_pixels)
    with reasons_for_people(content):
        converted, icc = for_jpeg(upright(loaded.image, loaded.orientation), loaded.icc)
        return Picture(converted, icc, loaded.exif, loaded.xmp, loaded.subsampled)


def load(original: Original, content: Content, max_pixels: int, *, longest_side: int | None = None) -> Loaded:
    """Decode all of it and leave it as it is. Raises PhotoUnreadable as `decode` does.

    With `longest_side`, pixels, a JPEG is decoded at the smallest half, quarter or eighth that has as many.
    """
    with reasons_for_people(content):
        _check_bytes(original, content)
        if content is Content.HEIF:
            return _load_heif(original, max_pixels)
        return _load_with_pillow(original, content, max_pixels, longest_side)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as a viewer shows it; itself for orientation 1."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def displayed_size(original: Original, content: Content) -> tuple[int, int]:
    """Width and height as a viewer shows it, from the header alone. Raises PhotoUnreadable."""
    with reasons_for_people(content):
        _check_bytes(original, content)
        if content is Content.HEIF:
            with _share_of_cores() as pillow_heif:
                width, height = pillow_heif.HeifFile(original.read(0, original.size)).size
            return int(width), int(height)
        original.stream.seek(0)
        with open_with_pillow(original.stream, content) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else image.size


def _check_bytes(original: Original, content: Content) -> None:
    if content in _READ_WHOLE and original.size > _MOST_BYTES_READ_WHOLE:
        raise PhotoUnreadable(f"{bytes_in_words(original.size)} is more than a {content} picture can be")


@contextmanager
def reasons_for_people(content: Content) -> Iterator[None]:
    """Whatever a decoder raises comes out as PhotoUnreadable."""
    quiet_pillow()
    try:
        yield
    except PhotoUnreadable:
        raise
    except MemoryError as error:
        raise PhotoUnreadable("decoding it needs more memory than there is") from error
    except Exception as error:
        # Decoders raise nearly everything on damaged files; nothing but the original is touched in here.
        raise PhotoUnreadable(f"the {content} is damaged or truncated ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return text or type(error).__name__


def _load_with_pillow(original: Original, content: Content, max_pixels: int, longest_side: int | None) -> Loaded:
    original.stream.seek(0)
    with open_with_pillow(original.stream, content) as image:
        width, height = image.size
        check_pixels(width, height, max_pixels)
        exif, xmp = (image.info.get("exif"), image.info.get("xmp")) if content is Content.AVIF else (None, None)
        fraction = _decode_fewer(image, longest_side) if content is Content.JPEG and longest_side else 1
        image.load()
        if fraction == 1:
            width, height = image.size
        # TIFF is turned upright by its plug-in while loading, and its tag is gone by now.
        orientation = image.getexif().get(0x0112, 1)
        icc = image.info.get("icc_profile")
        return Loaded(image, orientation, width, height, icc, exif, xmp, subsampled=False, fraction=fraction)


def _decode_fewer(image: ImageFile.ImageFile, longest_side: int) -> int:
    """Have libjpeg compute a half, a quarter or an eighth of the pixels; returns 1, 2, 4 or 8."""
    width, height = image.size
    fraction = next((each for each in (8, 4, 2) if max(width, height) >= longest_side * each), 1)
    drafted = image.draft(None, (max(1, width // fraction), max(1, height // fraction)))
    # The answer's box is what the fewer pixels show of the picture: the last of them may lie partly outside.
    return round(width / drafted[1][2]) if drafted is not None else 1


def _load_heif(original: Original, max_pixels: int) -> Loaded:
    """libheif applies the container's rotation and mirroring itself; EXIF's orientation does not count in HEIF."""
    data = original.read(0, original.size)
    with _share_of_cores() as pillow_heif:
        heif = pillow_heif.HeifFile(data, convert_hdr_to_8bit=True)
        width, height = heif.size
        check_pixels(width, height, max_pixels)
        image = heif.to_pillow()
    info = image.info
    return Loaded(
        image,
        orientation=1,
        width=image.width,
        height=image.height,
        icc=info.get("icc_profile"),
        exif=info.get("exif"),
        xmp=info.get("xmp"),
        subsampled=info.get("chroma") == 420,
    )


def _convert_plain_heif(original: Original, max_pixels: int, quality: int) -> Converted | None:
    """By FFmpeg, unless something about the picture takes libheif; which reads all but the pixels in any case."""
    data = original.read(0, original.size)
    with _share_of_cores() as pillow_heif:
        heif = pillow_heif.HeifFile(data, convert_hdr_to_8bit=True)
        width, height = heif.size
        check_pixels(width, height, max_pixels)
        info = heif.info
        plain = heif.mode == "RGB" and info.get("bit_depth") == 8 and info.get("chroma") == 420
        if not plain or max(width, height) > LARGEST_JPEG_SIDE:
            return None
        jpeg = plain_jpeg(data, (width, height), quality, fitting(info.get("icc_profile"), "RGB"))
        pillow_heif.set_orientation(info)  # as its `to_pillow` does: what EXIF says of turning does not count
    return None if jpeg is None else Converted(jpeg, info.get("exif"), info.get("xmp"))


@contextmanager
def _share_of_cores() -> Iterator[Any]:
    """pillow-heif, with the decoder's threads set so that all pictures in hand together use all cores.

    A single picture decodes on all of them; with as many pictures as cores, more threads would only be in the way.
    """
    global _heifs_in_hand
    import pillow_heif

    with _heif_lock:
        _heifs_in_hand += 1
        options = pillow_heif.options
        options.DECODE_THREADS = max(1, (os.cpu_count() or 1) // _heifs_in_hand)
        options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    try:
        yield pillow_heif
    finally:
        with _heif_lock:
            _heifs_in_hand -= 1


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """As baseline JPEG. Colours keep their full resolution from quality 90 on, unless the original's had lost it.

    Raises PhotoUnreadable if it is wider or higher than a JPEG can be.
    """
    image = picture.image
    if max(image.size) > LARGEST_JPEG_SIDE:
        raise PhotoUnreadable(
            f"{pixels_in_words(*image.size)}: a JPEG holds at most {LARGEST_JPEG_SIDE} in each direction"
        )
    image.info = {}  # or Pillow would carry comments and resolutions of other formats over
    written = io.BytesIO()
    full_colour = quality >= 90 and not picture.subsampled
    try:
        image.save(
            written,
            "JPEG",
            quality=quality,
            subsampling="4:4:4" if full_colour else "4:2:0",
            icc_profile=picture.icc,
        )
    except MemoryError as error:
        raise PhotoUnreadable("encoding it needs more memory than there is") from error
    return written.getvalue()
