"""Movies are copied as they are; what is looked at is whether they are whole, and when they were taken.

Boxes: ISO/IEC 14496-12; QuickTime File Format.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.staging import Original
from skicyclerun.wording import bytes_in_words

_EPOCH: Final = datetime(1904, 1, 1, tzinfo=UTC)
_MOST_BOXES: Final = 100_000
_BOX_FAMILY: Final = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot"))


def check_movie(original: Original) -> datetime | None:
    """When it was taken by its own header (UTC), None if it does not say.

    Raises PhotoUnreadable if the boxes of a QuickTime or MP4 file do not add up to the file, or if the one that says
    how to play it is not there. Other kinds of movie are taken as they are.
    """
    if original.read(4, 4) not in _BOX_FAMILY:
        return None
    taken: datetime | None = None
    playable = False
    for kind, at, size in boxes(original):
        if size < 8 or at + size > original.size:
            if playable and kind not in (b"mdat", b"moof"):
                break  # something hangs behind a movie that is whole
            raise PhotoUnreadable(f"truncated after {bytes_in_words(original.size)}: the movie goes on")
        if kind in (b"moov", b"moof"):
            playable = True
            taken = taken or _creation_time(original.read(at + 8, min(size - 8, 4096)))
    if not playable:
        raise PhotoUnreadable("the movie has no index, so it cannot be played; it may be truncated")
    return taken


def boxes(original: Original) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and size of the boxes at the top, one after the other; the last may claim to be larger than it is."""
    at, size = 0, 8
    for _ in range(_MOST_BOXES):
        if at >= original.size or size < 8:
            return
        head = original.read(at, 16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 0 or (len(head) < 8 and not any(head)):
            size = original.size - at  # the last one, or zeros as padding
        elif size == 1:
            size = int.from_bytes(head[8:16], "big")
        yield kind, at, size
        at += size


def _creation_time(moov: bytes) -> datetime | None:
    """From `mvhd`, which comes first in `moov`; zero means that nobody set it."""
    at = moov.find(b"mvhd")
    if at < 0 or len(moov) < at + 16:
        return None
    width = 8 if moov[at + 4] == 1 else 4
    seconds = int.from_bytes(moov[at + 8 : at + 8 + width], "big")
    try:
        return _EPOCH + timedelta(seconds=seconds) if seconds else None
    except OverflowError:
        return None
