"""The records of a ZIP file, as APPNOTE.TXT 6.3.10 (PKWARE) has them, written and read in one canonical form.

Why not `zipfile`: it takes its CRC-32 from zlib, which bounds the stored way, and it accepts what we must not (bytes
between members, a directory that says something other than the local headers). Here every record has exactly one
spelling: reading one back means building it again and comparing bytes.

Layout: members without gaps from offset 0, the central directory, ZIP64 records where needed, the end record with a
comment. No data descriptors, no encryption, methods 0 (stored) and 8 (deflate), names in UTF-8 (bit 11), Unix modes,
modification time in seconds in Info-ZIP's extended timestamp (0x5455) besides the DOS one.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from skicyclerun.errors import ArchiveError

STORED: Final = 0
DEFLATED: Final = 8

# From these on, fields are written as ZIP64. Sizes well below 4 GiB, because a deflated member's compressed size is
# not known when its header's length must be; tests lower them.
ZIP64_SIZE = 0xF000_0000
ZIP64_OFFSET = 0xFFFF_FFFF
ZIP64_COUNT = 0xFFFF

_LOCAL: Final = struct.Struct("<4s5H3L2H")  # 4.3.7
_CENTRAL: Final = struct.Struct("<4s4B4H3L5H2L")  # 4.3.12
_END64: Final = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR64: Final = struct.Struct("<4sLQL")  # 4.3.15
_END: Final = struct.Struct("<4s4H2LH")  # 4.3.16
_UTF8_NAME: Final = 0x0800
_UNIX: Final = 3
_SPECIFICATION: Final = 63
_MAX32: Final = 0xFFFF_FFFF
_MAX16: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One member as the central directory has it."""

    name: bytes
    offset: int
    method: int
    crc: int
    compressed: int
    size: int
    mode: int
    """st_mode of Unix."""
    mtime: int | None
    """Seconds since the epoch; None where 31 bits do not hold it."""
    dos_time: int
    dos_date: int

    @property
    def header_size(self) -> int:
        return (
            _LOCAL.size + len(self.name) + (20 if self.size >= ZIP64_SIZE else 0) + (9 if self.mtime is not None else 0)
        )

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.offset + self.header_size + self.compressed


def make_entry(
    name: bytes, offset: int, *, method: int, crc: int, compressed: int, size: int, mode: int, mtime_ns: int
) -> ZipEntry:
    """An entry with its times in ZIP's forms."""
    seconds = mtime_ns // 1_000_000_000
    dos_date, dos_time = _dos_time(seconds)
    mtime = seconds if 0 <= seconds < 2**31 else None
    return ZipEntry(name, offset, method, crc, compressed, size, mode & 0xFFFF, mtime, dos_time, dos_date)


def _dos_time(seconds: int) -> tuple[int, int]:
    """Date and time in local time, two-second steps, 1980 to 2107, clamped (4.4.6)."""
    try:
        local = time.localtime(seconds)
    except (OverflowError, OSError, ValueError):
        local = time.localtime(0) if seconds < 0 else time.struct_time((2108, 1, 1, 0, 0, 0, 0, 1, 0))
    if local.tm_year < 1980:
        return (1 << 5) | 1, 0
    if local.tm_year > 2107:
        return (127 << 9) | (12 << 5) | 31, (23 << 11) | (59 << 5) | 29
    date = ((local.tm_year - 1980) << 9) | (local.tm_mon << 5) | local.tm_mday
    return date, (local.tm_hour << 11) | (local.tm_min << 5) | min(local.tm_sec // 2, 29)


def _timestamp_extra(entry: ZipEntry) -> bytes:
    return b"" if entry.mtime is None else struct.pack("<2HBl", 0x5455, 5, 1, entry.mtime)


def local_header(entry: ZipEntry) -> bytes:
    """The bytes in front of the member's data."""
    large = entry.size >= ZIP64_SIZE
    extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.compressed) if large else b""
    extra += _timestamp_extra(entry)
    fixed = _LOCAL.pack(
        b"PK\x03\x04",
        45 if large else 20,
        _UTF8_NAME,
        entry.method,
        entry.dos_time,
        entry.dos_date,
        entry.crc,
        _MAX32 if large else entry.compressed,
        _MAX32 if large else entry.size,
        len(entry.name),
        len(extra),
    )
    return fixed + entry.name + extra


def central_record(entry: ZipEntry) -> bytes:
    """The member's record in the central directory."""
    large, far = entry.size >= ZIP64_SIZE, entry.offset >= ZIP64_OFFSET
    sizes = struct.pack("<2Q", entry.size, entry.compressed) if large else b""
    offset = struct.pack("<Q", entry.offset) if far else b""
    extra = struct.pack("<2H", 1, len(sizes + offset)) + sizes + offset if large or far else b""
    extra += _timestamp_extra(entry)
    directory = 0x10 if stat.S_ISDIR(entry.mode) else 0
    fixed = _CENTRAL.pack(
        b"PK\x01\x02",
        _SPECIFICATION,
        _UNIX,
        45 if large or far else 20,
        0,
        _UTF8_NAME,
        entry.method,
        entry.dos_time,
        entry.dos_date,
        entry.crc,
        _MAX32 if large else entry.compressed,
        _MAX32 if large else entry.size,
        len(entry.name),
        len(extra),
        0,
        0,
        0,
        (entry.mode << 16) | directory,
        _MAX32 if far else entry.offset,
    )
    return fixed + entry.name + extra


def end_records(count: int, directory_size: int, directory_offset: int, comment_size: int) -> bytes:
    """Everything behind the central directory but the comment itself."""
    records = b""
    if count >= ZIP64_COUNT or directory_size >= ZIP64_OFFSET or directory_offset >= ZIP64_OFFSET:
        end64 = directory_offset + directory_size
        records = _END64.pack(
            b"PK\x06\x06", _END64.size - 12, (_UNIX << 8) | _SPECIFICATION, 45, 0, 0, count, count,
            directory_size, directory_offset,
        )  # fmt: skip
        records += _LOCATOR64.pack(b"PK\x06\x07", 0, end64, 1)
    count16 = _MAX16 if count >= ZIP64_COUNT else count
    return records + _END.pack(
        b"PK\x05\x06", 0, 0, count16, count16,
        _MAX32 if directory_size >= ZIP64_OFFSET else directory_size,
        _MAX32 if directory_offset >= ZIP64_OFFSET else directory_offset,
        comment_size,
    )  # fmt: skip


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class EndRecord:
    """Where the central directory lies, and the comment."""

    count: int
    directory_size: int
    directory_offset: int
    records: bytes
    """The bytes between the central directory and the comment."""
    comment: bytes


def read_end(descriptor: int, file_size: int) -> EndRecord:
    """Read the end of a ZIP written here. Raises ArchiveError for any other file, OSError."""
    tail_size = min(file_size, 1024)
    tail = os.pread(descriptor, tail_size, file_size - tail_size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise ArchiveError("It is no ZIP that skicyclerun wrote, or its end is missing.")
    _, _, _, _, count, size, offset, comment_size = _END.unpack_from(tail, at)
    comment = tail[at + _END.size :]
    if len(comment) != comment_size:
        raise ArchiveError("It is no ZIP that skicyclerun wrote, or its end is missing.")
    records = tail[at : at + _END.size]
    if at >= _LOCATOR64.size + _END64.size and tail[at - _LOCATOR64.size : at - _LOCATOR64.size + 4] == b"PK\x06\x07":
        at -= _LOCATOR64.size + _END64.size
        fields = _END64.unpack_from(tail, at)
        count, size, offset = fields[7], fields[8], fields[9]
        records = tail[at : at + _END64.size + _LOCATOR64.size] + records
    behind = file_size - tail_size + at
    if offset + size != behind or records != end_records(count, size, offset, comment_size):
        raise ArchiveError("The end of the ZIP does not fit the rest of it.")
    return EndRecord(count, size, offset, records, comment)


def read_directory(descriptor: int, end: EndRecord) -> Iterator[tuple[ZipEntry, bytes]]:
    """The members with their records. Raises ArchiveError unless members and records are gapless and canonical."""
    data, at, position, expected_offset = b"", 0, end.directory_offset, 0
    remaining = end.directory_size
    for number in range(end.count):
        while (parsed := _parse_record(data, at)) is None:
            if not remaining:
                raise ArchiveError(f"The directory of the ZIP ends after {number} of {end.count} members.")
            block = os.pread(descriptor, min(remaining, 1 << 20), position)
            if not block:
                raise ArchiveError("The ZIP is shorter than its directory says.")
            data, at = data[at:] + block, 0
            position, remaining = position + len(block), remaining - len(block)
        entry, length = parsed
        record = data[at : at + length]
        if record != central_record(entry) or entry.offset != expected_offset:
            raise ArchiveError(f"The directory of the ZIP is damaged at member {number + 1}.")
        yield entry, record
        expected_offset = entry.end
        at += length
    if at < len(data) or remaining or expected_offset != end.directory_offset:
        raise ArchiveError("The ZIP holds bytes that belong to no member.")


def _parse_record(data: bytes, start: int) -> tuple[ZipEntry, int] | None:
    """The record at `start` and its length; None if `data` ends before it does."""
    if len(data) - start < _CENTRAL.size:
        return None
    fields = _CENTRAL.unpack_from(data, start)
    method, dos_time, dos_date, crc, compressed, size, name_size, extra_size, comment_size = fields[6:15]
    attributes, offset = fields[17:19]
    length = _CENTRAL.size + name_size + extra_size + comment_size
    if len(data) - start < length:
        return None
    behind = start + _CENTRAL.size
    name = data[behind : behind + name_size]
    mtime: int | None = None
    extra, at = data[behind + name_size : behind + name_size + extra_size], 0
    while at + 4 <= len(extra):
        kind, extent = struct.unpack_from("<2H", extra, at)
        value = extra[at + 4 : at + 4 + extent]
        if kind == 0x5455 and len(value) == 5:
            (mtime,) = struct.unpack_from("<l", value, 1)
        elif kind == 1 and len(value) % 8 == 0:
            numbers = list(struct.unpack(f"<{len(value) // 8}Q", value))
            if size == _MAX32 and len(numbers) >= 2:
                size, compressed = numbers.pop(0), numbers.pop(0)
            if offset == _MAX32 and numbers:
                offset = numbers.pop(0)
        at += 4 + extent
    if method not in (STORED, DEFLATED):
        raise ArchiveError(f"The ZIP holds a member of a method that skicyclerun does not write ({method}).")
    entry = ZipEntry(name, offset, method, crc, compressed, size, attributes >> 16, mtime, dos_time, dos_date)
    return entry, length
