"""What a file is, by its bytes; its name is only used to tell the person what was expected.

Signatures: the formats' own specifications (JFIF, PNG, TIFF 6, ISO/IEC 14496-12 for `ftyp` brands) and, for RAW,
what LibRaw and exiv2 look for.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from pathlib import PurePath
from typing import BinaryIO, Final

HEAD_BYTES: Final = 4096
"""How much of a file is looked at."""
JPEG_START: Final = b"\xff\xd8\xff"


class Content(StrEnum):
    """What a file holds; the values are the words used for it in sentences."""

    JPEG = "JPEG"
    HEIF = "HEIF"
    AVIF = "AVIF"
    PNG = "PNG"
    TIFF = "TIFF"
    GIF = "GIF"
    WEBP = "WebP"
    BMP = "BMP"
    JPEG2000 = "JPEG 2000"
    PSD = "Photoshop"
    RAW = "RAW"
    MOVIE = "movie"


_HEIF_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_IMAGE_BRANDS: Final = frozenset((b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"MiHE", b"heif"))

_STARTS: Final[tuple[tuple[bytes, Content], ...]] = (
    (JPEG_START, Content.JPEG),
    (b"\x89PNG\r\n\x1a\n", Content.PNG),
    (b"GIF87a", Content.GIF),
    (b"GIF89a", Content.GIF),
    (b"8BPS", Content.PSD),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Content.JPEG2000),
    (b"\xff\x4f\xff\x51", Content.JPEG2000),
    (b"FUJIFILMCCD-RAW", Content.RAW),
    (b"IIRO", Content.RAW),
    (b"IIRS", Content.RAW),
    (b"MMOR", Content.RAW),
    (b"IIU\x00", Content.RAW),
    (b"FOVb", Content.RAW),
    (b"\x00MRM", Content.RAW),
    (b"\x1aE\xdf\xa3", Content.MOVIE),  # Matroska, WebM
    (b"\x00\x00\x01\xba", Content.MOVIE),  # MPEG programme stream
    (b"\x00\x00\x01\xb3", Content.MOVIE),  # MPEG-1 and -2 video
    (b"0&\xb2u\x8ef\xcf\x11", Content.MOVIE),  # ASF, WMV
)

# First boxes of QuickTime files older than `ftyp`.
_QUICKTIME_BOXES: Final = frozenset((b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot"))

_OTHER_KINDS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture, which cannot be read yet"),
    (b"\xff\x0a", "a JPEG XL picture, which cannot be read yet"),
    (b"bplist00", "a property list"),
    (b"SQLite format 3", "a database"),
)


# TIFF tags by which a RAW file is told from a picture (TIFF 6.0, DNG 1.6, TIFF/EP).
_NEW_SUBFILE_TYPE: Final = 0x00FE
_COMPRESSION: Final = 0x0103
_PHOTOMETRIC: Final = 0x0106
_SUB_IFDS: Final = 0x014A
_DNG_VERSION: Final = 0xC612
_RAW_COMPRESSIONS: Final = frozenset((32767, 32769, 32770, 34713, 65535))
_CFA: Final = 32803
_LINEAR_RAW: Final = 34892


def sniff(stream: BinaryIO) -> Content | None:
    """What the stream holds, None if nothing known. Reads from its beginning; the position is left anywhere."""
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    if head[:4] in (b"II*\x00", b"MM\x00*"):
        return Content.RAW if _is_raw_tiff(stream, head) else Content.TIFF
    if head[:4] in (b"II+\x00", b"MM\x00+"):
        return Content.TIFF
    return sniff_head(head)


def sniff_head(head: bytes) -> Content | None:
    """As `sniff`, from the first bytes alone: TIFF and the RAW formats built on it are not looked into."""
    for start, content in _STARTS:
        if head.startswith(start):
            return content
    if head[4:8] == b"ftyp":
        return _by_brands(head)
    if head[4:8] in _QUICKTIME_BOXES:
        return Content.MOVIE
    if head[:4] == b"RIFF":
        return {b"WEBP": Content.WEBP, b"AVI ": Content.MOVIE}.get(head[8:12])
    if head[:2] == b"BM" and len(head) >= 26 and 12 <= int.from_bytes(head[14:18], "little") <= 124:
        return Content.BMP
    if head[6:14] == b"HEAPCCDR":
        return Content.RAW
    if _is_transport_stream(head):
        return Content.MOVIE
    return None


def _by_brands(head: bytes) -> Content:
    size = int.from_bytes(head[:4], "big")
    major, compatible = head[8:12], {head[at : at + 4] for at in range(16, min(size, len(head)) - 3, 4)}
    if major == b"crx ":
        return Content.RAW
    if major in _AVIF_BRANDS:
        return Content.AVIF
    if major in _HEIF_BRANDS:
        return Content.HEIF
    if major in _IMAGE_BRANDS:
        return Content.AVIF if compatible & _AVIF_BRANDS and not compatible & _HEIF_BRANDS else Content.HEIF
    return Content.MOVIE


def _is_transport_stream(head: bytes) -> bool:
    """MPEG transport streams have 0x47 every 188 bytes; AVCHD cameras put four bytes before each packet."""
    for first, step in ((0, 188), (4, 192)):
        if len(head) > first + 4 * step and all(head[first + n * step] == 0x47 for n in range(5)):
            return True
    return False


def _is_raw_tiff(stream: BinaryIO, head: bytes) -> bool:
    """Whether the first directory says that this TIFF holds sensor data (DNG, CR2, NEF, ARW, PEF, SRW…)."""
    if head[8:10] == b"CR":
        return True
    order = "<" if head[:2] == b"II" else ">"
    stream.seek(int(struct.unpack(order + "I", head[4:8])[0]) if len(head) >= 8 else 0)
    directory = stream.read(2 + 12 * 512)
    count = struct.unpack(order + "H", directory[:2])[0] if len(directory) >= 2 else 0
    values: dict[int, int] = {}
    for at in range(2, min(2 + 12 * count, len(directory) - 11), 12):
        tag, kind = struct.unpack(order + "HH", directory[at : at + 4])
        short = kind == 3
        values[tag] = struct.unpack(order + ("H" if short else "I"), directory[at + 8 : at + (10 if short else 12)])[0]
    if _DNG_VERSION in values or values.get(_COMPRESSION) in _RAW_COMPRESSIONS:
        return True
    if values.get(_PHOTOMETRIC) in (_CFA, _LINEAR_RAW):
        return True
    # Nikon and Sony put a thumbnail first and the sensor data into a sub-directory.
    return bool(values.get(_NEW_SUBFILE_TYPE, 0) & 1) and _SUB_IFDS in values


def describe_unknown(head: bytes, name: str) -> str:
    """A sentence for a file that is no picture: what it is instead, as far as that can be told."""
    suffix = PurePath(name).suffix
    named = f" named {suffix}" if suffix else ""
    if not head:
        return "the file is empty"
    for start, kind in _OTHER_KINDS:
        if head.startswith(start):
            return f"it is {kind}"
    if not head.strip(b"\x00"):
        return "it holds only zeros"
    if _is_text(head):
        return f"it is a text file{named}"
    return f"its content is not a picture or a movie that is known here{' (' + suffix + ')' if suffix else ''}"


def _is_text(head: bytes) -> bool:
    sample = head[:1024]
    if any(byte < 32 and byte not in (9, 10, 12, 13, 27) for byte in sample):
        return False
    try:
        # A character cut at the end of the sample is no reason to call it binary.
        sample[: len(sample) - 3 if len(sample) == 1024 else None].decode("utf-8")
    except UnicodeDecodeError as error:
        return len(sample) == 1024 and error.start >= len(sample) - 7
    return True
