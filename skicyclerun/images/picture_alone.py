"""A JPEG with nothing in it but the picture and the tags handed over: for what must not tell where it was taken.

A position may hide where nobody looks for it: in a motion photo's movie and in second pictures, which hang behind the
picture and have EXIF of their own; in extended XMP, in content credentials, in segments of a maker. Nobody can read
them all, so none of them is kept: what is not known to be harmless goes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from skicyclerun.images.jpeg_segments import (
    APP0,
    APP2,
    APP14,
    JpegHeader,
    ScanWalker,
    Segment,
    check_end,
    replace_metadata,
)
from skicyclerun.images.metadata_segments import NewSegments
from skicyclerun.images.staging import Original, StagedFile

_COMMENT: Final = 0xFE
_ICC: Final = b"ICC_PROFILE\x00"
_JFIF: Final = b"JFIF\x00"
_ADOBE: Final = b"Adobe"


def write_picture_alone(original: Original, header: JpegHeader, segments: NewSegments, staged: StagedFile) -> None:
    """Write the JPEG `original`, whose header this is, with these metadata segments and no other ones.

    From the first scan on to the end of the picture it stays byte for byte; what follows is left out. Raises
    PhotoUnreadable unless the picture is whole, PhotoTransient if the file changes meanwhile; OSError passes through.
    """
    bare = replace(header, segments=tuple(each for each in header.segments if _belongs_to_picture(each)))
    staged.write(replace_metadata(bare, exif=segments.exif or (), xmp=segments.xmp or (), iptc=segments.iptc or ()))
    walker, at = ScanWalker(header.size), header.size
    for block in original.blocks(header.size):
        walker.feed(block)
        if walker.end is None:
            staged.write(block)
        elif at < walker.end:
            staged.write(block[: walker.end - at])
        at += len(block)
    check_end(walker, header, original.size)


def _belongs_to_picture(segment: Segment) -> bool:
    """Tables and frames, and of the segments for applications those without which its colours would be wrong."""
    if segment.marker not in range(0xE0, 0xF0):
        return segment.marker != _COMMENT
    return segment.holds(APP0, _JFIF) or segment.holds(APP2, _ICC) or segment.holds(APP14, _ADOBE)
