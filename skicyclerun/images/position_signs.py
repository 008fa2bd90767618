"""Whether a file may hold a GPS position, seen from a few bytes: for those whose tags are worth reading for that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from skicyclerun.images.jpeg_segments import APP1, SOS

#: The tag that leads to a position in EXIF (0x8825, either way round), and the name of one in XMP. Few pixels look like
#: them.
_SIGNS: Final = (b"\x88\x25\x00\x04", b"\x25\x88\x04\x00", b"GPSLatitude")
_FILL: Final = 0xFF  # of which any number may stand before a marker
_WITHOUT_LENGTH: Final = frozenset({0x01, _FILL, *range(0xD0, 0xD9)})
_BEGINNING: Final = 2 << 16


def may_hold_position(path: Path) -> bool:
    """False: it holds none. Of a JPEG only its tags are read, wherever they stand; any other file as a whole."""
    with path.open("rb") as stream:
        # WebP has its tags behind the pixels.
        tags = tags_of_jpeg(stream) if path.suffix.lower() in (".jpg", ".jpeg") else iter([stream.read()])
        return any(sign in data for data in tags for sign in _SIGNS)


def tags_of_jpeg(stream: IO[bytes]) -> Iterator[bytes]:
    """EXIF and XMP: the APP1 segments before the first scan, whatever stands between them, one by one.

    Where the file is built otherwise, its beginning after them.
    """
    stream.read(2)
    while (marker := stream.read(4))[:1] == b"\xff" and len(marker) == 4:
        kind, length = marker[1], int.from_bytes(marker[2:], "big") - 2
        if kind == SOS:
            return
        if kind in _WITHOUT_LENGTH:
            stream.seek(-3 if kind == _FILL else -2, os.SEEK_CUR)
        elif kind == APP1:
            yield stream.read(max(length, 0))
        else:
            stream.seek(max(length, 0), os.SEEK_CUR)
    stream.seek(0)
    yield stream.read(_BEGINNING)
