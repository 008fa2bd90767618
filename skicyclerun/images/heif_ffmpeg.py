"""Plain HEICs to JPEG without a detour: FFmpeg decodes the tiles, and the JPEG takes their planes as they are.

Cameras store full-range YCbCr with colours at half resolution, and so does a JPEG; libheif would make RGB of it, and
libjpeg YCbCr again. FFmpeg also needs half the time of libde265. Needs the extra `heic` (PyAV, simplejpeg); without
it, and for whatever is not plain, `convert` goes by pillow-heif, which knows all of HEIF.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Final

from skicyclerun.images.heif_boxes import BT601_MATRICES, NotPlain, TiledPicture, read_plain_picture

_log = logging.getLogger(__name__)

_LARGEST_CODING_BLOCK: Final = 64
"""Pixels; what the sides of a coded HEVC picture may be rounded up to (ITU-T H.265, 7.4.3.2.1)."""
_FULL_RANGE: Final = 2
"""AVCOL_RANGE_JPEG"""
_HALVED: Final = (1, 2, 2)
"""What the sides of Y, Cb and Cr are divided by."""
_ICC_MARK: Final = b"ICC_PROFILE\0"
_MOST_ICC_BYTES: Final = 65_533 - len(_ICC_MARK) - 2
"""In one segment, of which a JPEG has up to 255 for its profile (ICC.1:2010, B.4)."""


@cache
def why_not_used() -> str | None:
    """What keeps this way from being taken, a clause; None if nothing does."""
    try:
        import av
        import simplejpeg

        av.CodecContext.create("hevc", "r")
        simplejpeg.encode_jpeg_yuv_planes  # noqa: B018  # added in 1.8
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except Exception as error:  # a package that is damaged or built for another system raises what it likes
        return f"its packages cannot be used ({error})"
    return None


def plain_jpeg(data: bytes, displayed: tuple[int, int], quality: int, icc: bytes | None) -> bytes | None:
    """The picture of a HEIC as a JPEG, upright, with this profile; None if it is not plain, whatever is the matter.

    `displayed` is its width and height as libheif says them, which must be what its boxes say. Raises MemoryError
    only. The same bytes give the same JPEG: HEVC is decoded to the bit, on any number of cores.
    """
    if why_not_used() is not None:
        return None
    try:
        picture = read_plain_picture(data)
        if picture.displayed_size != displayed:
            raise NotPlain("libheif says another size")
        import simplejpeg

        encoded = simplejpeg.encode_jpeg_yuv_planes(*_planes(data, picture), quality=quality)
        return _with_profile(encoded, icc) if icc else encoded
    except Exception as error:
        # FFmpeg's errors are many, and none of them is the last word: libheif looks at the file next. A picture
        # that claims more pixels than allowed is among those that it calls a lack of memory.
        if isinstance(error, MemoryError) and type(error).__module__ != "av.error":
            raise
        _log.debug("a HEIC is left to libheif: %s", error)
        return None


def _planes(data: bytes, picture: TiledPicture) -> list[Any]:
    """Y, Cb and Cr, upright, as arrays of bytes. Raises NotPlain, FFmpeg's errors, MemoryError."""
    import av
    import numpy

    decoder: Any = av.CodecContext.create("hevc", "r")
    decoder.extradata = picture.configuration
    # The pictures in hand share the cores; and a single thread says what is wrong with a tile at that tile.
    decoder.thread_count = 1
    block = _LARGEST_CODING_BLOCK
    coded = -(-picture.tile_width // block) * block * (-(-picture.tile_height // block) * block)
    decoder.options = {
        "err_detect": "crccheck+bitstream+buffer+explode",
        # What the tiles themselves say of their size must not cost more than what the container says.
        "max_pixels": str(coded),
        # Film grain would be laid over the picture, which libde265 does not do.
        "export_side_data": "film_grain",
    }
    width, height = picture.displayed_size
    planes = [numpy.empty((-(-height // half), -(-width // half)), numpy.uint8) for half in _HALVED]
    stored = [numpy.rot90(plane, -picture.quarter_turns) for plane in planes]  # the same bytes, not yet turned
    done = 0
    for number in [*range(len(picture.tiles)), None]:
        packet = None
        if number is not None:
            start, size = picture.tiles[number]
            packet = av.Packet(data[start : start + size])
            packet.pts = number
        for frame in decoder.decode(packet):
            if frame.pts != done:
                raise NotPlain("not every tile is one picture")
            _check_frame(frame, picture)
            left, top = picture.place(done)
            for whole, plane, half in zip(stored, frame.planes, _HALVED, strict=True):
                tile = numpy.frombuffer(plane, numpy.uint8).reshape(-1, plane.line_size)
                part = whole[top // half :, left // half :][: plane.height, : plane.width]
                part[:] = tile[: part.shape[0], : part.shape[1]]
            done += 1
    if done != len(picture.tiles):
        raise NotPlain("not every tile is a picture")
    return planes


def _check_frame(frame: Any, picture: TiledPicture) -> None:
    if (frame.width, frame.height) != (picture.tile_width, picture.tile_height):
        raise NotPlain(f"a tile has {frame.width} by {frame.height} pixels")
    if frame.format.name not in ("yuvj420p", "yuv420p"):
        raise NotPlain(f"its pixels are {frame.format.name}")
    if frame.color_range != _FULL_RANGE or frame.colorspace not in BT601_MATRICES:
        raise NotPlain("its colours are not those of a JPEG")
    if frame.is_corrupt or not frame.key_frame:
        raise NotPlain("a tile is damaged, or no picture of its own")


def _with_profile(jpeg: bytes, icc: bytes) -> bytes:
    """The profile goes behind JFIF's segment, which libjpeg writes first."""
    pieces = [icc[at : at + _MOST_ICC_BYTES] for at in range(0, len(icc), _MOST_ICC_BYTES)]
    if len(pieces) > 255 or jpeg[:4] != b"\xff\xd8\xff\xe0":
        raise NotPlain("its profile has no place in a JPEG")
    at = 4 + int.from_bytes(jpeg[4:6], "big")
    segments = [jpeg[:at]]
    for number, piece in enumerate(pieces, 1):
        size = 2 + len(_ICC_MARK) + 2 + len(piece)
        segments += [b"\xff\xe2", size.to_bytes(2, "big"), _ICC_MARK, bytes((number, len(pieces))), piece]
    return b"".join((*segments, jpeg[at:]))
