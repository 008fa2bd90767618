"""A JPEG taken apart without decoding it: the header's segments, where the picture ends, and what hangs behind it.

Structure: ITU-T T.81 annex B; EXIF, XMP and IPTC segments: Exif 3.0, XMP part 3, Photoshop file formats; the
multi-picture index (MPF): CIPA DC-007.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Final, NamedTuple

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.staging import Original
from skicyclerun.wording import bytes_in_words, pixels_in_words

SOI: Final = 0xD8
EOI: Final = 0xD9
SOS: Final = 0xDA
DQT: Final = 0xDB
APP0: Final = 0xE0
APP1: Final = 0xE1
APP2: Final = 0xE2
APP13: Final = 0xED
APP14: Final = 0xEE

EXIF: Final = b"Exif\x00"
XMP: Final = b"http://ns.adobe.com/xap/1.0/\x00"
IPTC: Final = b"Photoshop 3.0\x00"
MPF: Final = b"MPF\x00"
_KINDS: Final = {APP1: (EXIF, XMP), APP2: (MPF,), APP13: (IPTC,)}

_MAX_HEADER_BYTES: Final = 64 << 20
# The longest header of full segments has a thousand of them. Each one more costs memory, each byte of filling time.
_MOST_SEGMENTS: Final = 20_000
_MOST_FILLING: Final = 1 << 16
_FIRST_READ: Final = 16 << 10

APPLICATION: Final = frozenset((*range(0xE0, 0xF0), 0xFE))
"""What programs write for each other, comments too; no decoder needs them."""
_STANDALONE: Final = frozenset((0x01, *range(0xD0, 0xD9)))
_FRAMES: Final = frozenset((*range(0xC0, 0xD0),)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_SEQUENTIAL: Final = frozenset((0xC0, 0xC1))
_HUFFMAN_PROGRESSIVE: Final = frozenset((0xC2,))
# Segments that may stand between the scans of one picture.
_BETWEEN_SCANS: Final = frozenset((0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)))

# In entropy-coded data 0xFF is followed by zero, or by a restart marker; anything else is a marker.
_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class Segment(NamedTuple):
    """One marker segment. `data` holds it whole, with its marker and its length."""

    marker: int
    data: bytes
    kind: bytes | None
    """EXIF, XMP, IPTC, MPF; None for all others."""

    @classmethod
    def of(cls, data: bytes) -> Segment:
        """The segment that is these bytes, from its marker to its end."""
        marker = data[1]
        for kind in _KINDS.get(marker, ()):
            if data.startswith(kind, 4):
                return cls(marker, data, kind)
        return cls(marker, data, None)

    def holds(self, marker: int, identifier: bytes) -> bool:
        """Whether it is an application segment of this kind."""
        return self.marker == marker and self.data.startswith(identifier, 4)


@dataclass(frozen=True, slots=True)
class Frame:
    """What the frame header says: pixels as stored, and sampling factors by component."""

    marker: int
    precision: int
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]

    @property
    def least_scan_bytes(self) -> int:
        """A bound no complete picture of this size can be below; 0 where the coding gives none.

        A Huffman code has at least one bit; a sequential block needs two of them (DC, end of block), a progressive
        one needs its DC. So a header that claims more pixels than its data can hold is found without decoding.
        """
        if not self.sampling or not all(across and down for across, down in self.sampling):
            return 0
        widest, tallest = map(max, zip(*self.sampling, strict=True))
        blocks = 0
        for across, down in self.sampling:
            blocks += ceil(ceil(self.width * across / widest) / 8) * ceil(ceil(self.height * down / tallest) / 8)
        if self.marker in _HUFFMAN_SEQUENTIAL:
            return 2 * blocks // 8
        return blocks // len(self.sampling) // 8 if self.marker in _HUFFMAN_PROGRESSIVE else 0


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Everything before the first scan."""

    segments: tuple[Segment, ...]
    frame: Frame
    size: int
    """Bytes from the start of the file to the first SOS marker."""

    def with_height(self, rows: int) -> bytes:
        """What a decoder needs of it, for a picture that is only so many rows high."""
        pieces = [b"\xff\xd8"]
        for segment in self.segments:
            if segment.marker in _FRAMES:
                height = min(rows, self.frame.height).to_bytes(2, "big")
                pieces.append(b"".join((segment.data[:5], height, segment.data[7:])))
            elif segment.marker not in APPLICATION or segment.marker == APP14:
                pieces.append(segment.data)
        return b"".join(pieces)


def read_header(original: Original) -> JpegHeader:
    """Take the header apart. Raises PhotoUnreadable if it is cut off, damaged or holds no picture."""
    data = original.read(0, _FIRST_READ)
    if not data.startswith(b"\xff\xd8"):
        raise PhotoUnreadable("it is not a JPEG")
    segments: list[Segment] = []
    frame: Frame | None = None
    at, filling = 2, 0
    while True:
        if at + 4 > len(data):
            data = _with_at_least(original, data, at + 4)
        if data[at] != 0xFF:
            raise PhotoUnreadable(f"the JPEG's header is damaged at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at, filling = at + 1, filling + 1
            _check_filling(filling)
            continue
        if marker == EOI or marker == SOI:
            raise PhotoUnreadable("the JPEG holds no picture, only a header")
        if marker == SOS:
            break
        if marker in _STANDALONE:
            at, filling = at + 2, filling + 2
            _check_filling(filling)
            continue
        if marker == 0x00:
            raise PhotoUnreadable(f"the JPEG's header is damaged at byte {at}")
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            raise PhotoUnreadable(f"the JPEG's header is damaged at byte {at}")
        end = at + 2 + length
        if end > len(data):
            data = _with_at_least(original, data, end)
        segment = Segment.of(data[at:end]) if marker in _KINDS else Segment(marker, data[at:end], None)
        if marker in _FRAMES:
            frame = _frame(segment)
        segments.append(segment)
        if len(segments) > _MOST_SEGMENTS:
            raise PhotoUnreadable(f"the JPEG's header has more than {_MOST_SEGMENTS:,} segments")
        at = end
    if frame is None:
        raise PhotoUnreadable("the JPEG's header does not say how large the picture is")
    return JpegHeader(tuple(segments), frame, at)


def _check_filling(count: int) -> None:
    if count > _MOST_FILLING:
        raise PhotoUnreadable(f"the JPEG's header holds more than {bytes_in_words(_MOST_FILLING)} of nothing")


def _with_at_least(original: Original, data: bytes, wanted: int) -> bytes:
    if wanted > original.size:
        raise PhotoUnreadable(f"truncated after {bytes_in_words(original.size)}, within the JPEG's header")
    if wanted > _MAX_HEADER_BYTES:
        raise PhotoUnreadable(f"the JPEG's header is longer than {bytes_in_words(_MAX_HEADER_BYTES)}")
    more = original.read(len(data), max(wanted - len(data), len(data)))
    data += more
    if wanted > len(data):
        raise PhotoUnreadable(f"truncated after {bytes_in_words(len(data))}, within the JPEG's header")
    return data


def _frame(segment: Segment) -> Frame:
    body = segment.data[4:]
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise PhotoUnreadable("the JPEG's frame header is damaged")
    precision, height, width, components = struct.unpack(">BHHB", body[:6])
    sampling = tuple((body[at] >> 4, body[at] & 15) for at in range(7, 6 + 3 * components, 3))
    if not width or not height or not components:
        raise PhotoUnreadable(f"the JPEG says that it is {pixels_in_words(width, height)}")
    return Frame(segment.marker, precision, width, height, sampling)


class ScanWalker:
    """Follows the scans through the blocks of a file, from the first SOS marker to the end of the picture.

    Restart markers and stuffed bytes are passed over; segments between scans are skipped by their length, so that an
    end marker inside one does not count. What follows the picture is not looked at.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.end: int | None = None
        """Where the picture ends, in bytes from the start of the file; None until it was seen."""
        self._base = start
        self._carry = b""
        self._skip = 0

    def feed(self, block: memoryview) -> None:
        """Take the next block. Raises PhotoUnreadable where another picture begins inside this one."""
        if self.end is not None:
            return
        data: bytes | memoryview = block
        if self._carry:
            data = b"".join((self._carry, block))
            self._carry = b""
        at, self._skip = self._skip, 0
        while at < len(data):
            found = _MARKER.search(data, at)
            if found is None:
                if data[len(data) - 1] == 0xFF:
                    self._carry = b"\xff"
                at = len(data)
                break
            where = found.start()
            marker = data[where + 1]
            if marker == EOI:
                self.end = self._base + where + 2
                return
            if marker == SOI:
                raise PhotoUnreadable(
                    f"the picture breaks off after {bytes_in_words(self._base + where)}, where another one begins"
                )
            if marker not in _BETWEEN_SCANS:
                at = where + 2
                continue
            if where + 4 > len(data):
                self._carry = bytes(data[where:])
                at = len(data)
                break
            at = where + 2 + max(int.from_bytes(data[where + 2 : where + 4], "big"), 2)
        self._skip = at - len(data)
        self._base += len(data) - len(self._carry)


def check_end(walker: ScanWalker, header: JpegHeader, size: int) -> None:
    """Raises PhotoUnreadable unless the whole picture was there. `size` is that of the file, bytes."""
    if walker.end is None:
        raise PhotoUnreadable(f"truncated after {bytes_in_words(size)}: the JPEG has no end")
    least = header.frame.least_scan_bytes
    if walker.end - header.size < least:
        raise PhotoUnreadable(
            f"{pixels_in_words(header.frame.width, header.frame.height)} need at least "
            f"{bytes_in_words(least)} of image data, and the file holds {bytes_in_words(walker.end - header.size)}"
        )


def replace_metadata(
    header: JpegHeader, *, exif: Iterable[bytes] | None, xmp: Iterable[bytes] | None, iptc: Iterable[bytes] | None
) -> bytes:
    """The header's bytes, SOI included and SOS not, with these segments in the place of the old ones.

    None leaves a kind as it is, an empty iterable removes it. Everything else (JFIF, ICC, quantisation, comments,
    extended XMP, content credentials) stays byte for byte and in order; in the index of a multi-picture file the
    positions are corrected, since they are counted from inside the header.
    """
    replaced = {kind: b"".join(new) for kind, new in ((EXIF, exif), (XMP, xmp), (IPTC, iptc)) if new is not None}
    kept: list[Segment] = []
    place: int | None = None
    for segment in header.segments:
        if segment.kind in replaced:
            place = len(kept) if place is None else place
        else:
            kept.append(segment)
    if place is None:
        # Exif comes first by its own rule, JFIF by its own; readers take either, so JFIF keeps its place.
        place = next((n for n, segment in enumerate(kept) if segment.marker != APP0), len(kept))
    pieces = [b"\xff\xd8", *(segment.data for segment in kept)]
    pieces[1 + place : 1 + place] = replaced.values()
    size = sum(map(len, pieces))
    if size != header.size:
        _correct_mpf(pieces, header, size)
    return b"".join(pieces)


def _correct_mpf(pieces: list[bytes], header: JpegHeader, size: int) -> None:
    """Shift the multi-picture index by what the header grew (CIPA DC-007, 5.2.3)."""
    old_at = 2
    for segment in header.segments:
        if segment.kind == MPF:
            break
        old_at += len(segment.data)
    else:
        return
    number = next(n for n, piece in enumerate(pieces) if piece is segment.data)
    new_at = sum(len(piece) for piece in pieces[:number])
    moved = (size - new_at) - (header.size - old_at)
    pieces[number] = _shifted_mpf(segment.data, growth=size - header.size, moved=moved)


def _shifted_mpf(data: bytes, *, growth: int, moved: int) -> bytes:
    start = 8  # marker, length, "MPF\0"; positions inside are counted from here
    changed = bytearray(data)
    try:
        order = {b"II": "<", b"MM": ">"}[data[start : start + 2]]
        directory = start + struct.unpack_from(order + "I", data, start + 4)[0]
        (count,) = struct.unpack_from(order + "H", data, directory)
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, length, offset = struct.unpack_from(order + "HHII", data, at)
            if tag != 0xB002:
                continue
            for entry in range(start + offset, start + offset + length // 16 * 16, 16):
                size, position = struct.unpack_from(order + "II", data, entry + 4)
                if position == 0:
                    struct.pack_into(order + "I", changed, entry + 4, size + growth)
                else:
                    struct.pack_into(order + "I", changed, entry + 8, position + moved)
            break  # there is one list; shifting what several claim to be would shift it several times
    except (KeyError, struct.error):
        return data  # an index nobody can follow is kept as it was
    return bytes(changed)
