"""Whether a file decodes to its end: a quick look before a JPEG is passed through, and the whole of it for `verify`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from PIL import Image

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.convert import check_pixels, decode, open_with_pillow, quiet_pillow
from skicyclerun.images.jpeg_segments import (
    APP14,
    APPLICATION,
    DQT,
    Frame,
    JpegHeader,
    ScanWalker,
    check_end,
    read_header,
)
from skicyclerun.images.movies import check_movie
from skicyclerun.images.sniff import HEAD_BYTES, Content, describe_unknown, sniff
from skicyclerun.images.staging import Original, open_original

_FIRST_SCAN_BYTES: Final = 16 << 10
_FIRST_ROWS: Final = 32
_DECODABLE: Final = frozenset((0xC0, 0xC1, 0xC2))
_SEQUENTIAL: Final = frozenset((0xC0, 0xC1))
_REDUCTION: Final = 8
_READ_BY_LIBJPEG: Final = frozenset((0xC4, 0xDD))
"""Segments that Pillow passes over: Huffman tables, the restart interval."""
_MODES: Final = {1: ("L", "L"), 3: ("RGB", "RGB"), 4: ("CMYK", "CMYK;I")}
"""By the number of components: Pillow's mode, and its name for how libjpeg gives it."""


def check_first_rows(original: Original, header: JpegHeader) -> None:
    """Decode the beginning of a JPEG as if it ended there: its tables are there and libjpeg can read them.

    A fraction of a millisecond, and memory for some rows only, whatever size the header claims. Raises PhotoUnreadable.
    """
    frame = header.frame
    if frame.marker not in _DECODABLE or frame.precision != 8:
        return
    # With an end marker libjpeg takes what is missing for grey, so that what it still objects to is real damage.
    scan = original.read(header.size, _FIRST_SCAN_BYTES).rstrip(b"\xff")
    data = b"".join((header.with_height(_FIRST_ROWS), scan, b"\xff\xd9"))
    if not (_is_plain(header, scan) and _decodes_at_once(data, frame)):
        _decode_reduced(io.BytesIO(data))


def _is_plain(header: JpegHeader, scan: bytes) -> bool:
    """Whether Pillow would find nothing to object to in what `with_height` keeps of this header."""
    frames = 0
    for segment in header.segments:
        marker, data = segment.marker, segment.data
        if marker in _DECODABLE:
            frames += 1
            if data[9] not in _MODES or len(data) != 10 + 3 * data[9]:
                return False
        elif marker == DQT:
            if not _has_whole_tables(data):
                return False
        elif marker == APP14:
            if len(data) < 16:
                return False
        elif marker not in _READ_BY_LIBJPEG and marker not in APPLICATION:
            return False
    return frames == 1 and len(scan) >= 4 and int.from_bytes(scan[2:4], "big") + 2 <= len(scan)


def _has_whole_tables(data: bytes) -> bool:
    at = 4
    while at < len(data):
        at += 65 if data[at] < 16 else 129
    return at == len(data)


def _decodes_at_once(data: bytes, frame: Frame) -> bool:
    """Whether Pillow's decoder takes it for whole.

    Its front door, which takes the header apart in Python first, costs several times what the decoder does. Where this
    says no, for whatever reason, Pillow as a whole has the final word, and the words for it.
    """
    mode, rawmode = _MODES[len(frame.sampling)]
    width, height = frame.width, min(frame.height, _FIRST_ROWS)
    scale = next(scale for scale in (8, 4, 2, 1) if min(width, height) >= scale)
    try:
        decoder = Image._getdecoder(mode, "jpeg", (rawmode, ""), (scale, 0))
        try:
            size = ((width + scale - 1) // scale, (height + scale - 1) // scale)
            decoder.setimage(Image.new(mode, size, None).im, (0, 0, *size))
            count, error = decoder.decode(data)
        finally:
            decoder.cleanup()
    except Exception:
        return False
    return bool(count < 0 <= error)


def decode_fully(path: Path, *, max_pixels: int) -> None:
    """Decode a picture to its last row; walk a movie's boxes. Raises PhotoUnreadable, OriginalMissing.

    A JPEG's image data is decoded to the end and its pixels computed at an eighth of the size, which finds the same
    damage in a quarter of the time. One with more than `max_pixels` is walked through, not decoded, if it is
    progressive. RAW files are only recognised.
    """
    with open_original(path) as original:
        content = sniff(original.stream)
        match content:
            case Content.JPEG:
                _decode_jpeg(original, max_pixels)
            case Content.MOVIE:
                check_movie(original)
            case Content.RAW:
                pass
            case None:
                raise PhotoUnreadable(describe_unknown(original.read(0, HEAD_BYTES), path.name))
            case _:
                decode(original, content, max_pixels)


def _decode_jpeg(original: Original, max_pixels: int) -> None:
    header = read_header(original)
    walker = ScanWalker(header.size)
    for block in original.blocks(header.size):
        walker.feed(block)
        if walker.end is not None:
            break
    check_end(walker, header, original.size)
    frame = header.frame
    pixels = frame.width * frame.height
    if frame.marker in _SEQUENTIAL:
        check_pixels(frame.width, frame.height, max_pixels * _REDUCTION * _REDUCTION)
    elif pixels > max_pixels:
        return
    if frame.precision != 8:
        return
    original.stream.seek(0)
    _decode_reduced(original.stream)


def _decode_reduced(stream: object) -> None:
    quiet_pillow()
    try:
        with open_with_pillow(stream, Content.JPEG) as image:
            image.draft(None, (1, 1))
            image.load()
    except MemoryError as error:
        raise PhotoUnreadable("decoding it needs more memory than there is") from error
    except Exception as error:
        # Pillow raises nearly everything on damaged files; nothing but the original is touched in here.
        raise PhotoUnreadable(f"the JPEG is damaged ({' '.join(str(error).split())[:160]})") from error
