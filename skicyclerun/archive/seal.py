"""The comment at the end of an archive: when it was written, when it was proved, and a seal over its skeleton.

    skicyclerun archive 1
    id 5b0c…
    created 2026-11-22T16:15:00Z
    files 500 bytes 1470000000
    proved 2026-11-22T16:15:04Z
    seal 9f86d081…

The manifest holds the hashes of the members' contents; the seal holds everything else, so that no byte of the file can
change unnoticed: SHA-256 over every local header (with the hash of the compressed bytes where a member is deflated),
then over everything from the end of the last member to the seal: central directory, end records, this comment. The
comment has the same length before and after the proof (`proved` is dashes until then): proving rewrites it in place.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, ZipInfo

from skicyclerun.archive.archive_bytes import ArchiveBytes, FileBytes
from skicyclerun.errors import ArchiveError

_NOT_YET: Final = "-" * 20
# Behind the record that ends every ZIP (22 bytes and the comment), and nothing behind it.
_COMMENT: Final = re.compile(
    rb"PK\x05\x06[\0-\xff]{18}(skicyclerun archive 1\nid ([0-9A-Za-z_-]{1,64})\n"
    rb"created (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\nfiles (0|[1-9]\d{0,11}) bytes (0|[1-9]\d{0,17})\n"
    rb"proved (-{20}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\nseal ([0-9a-f]{64})\n)\Z"
)
_HEADER_SIZE: Final = 30  # of a local header, without name and extra field; their lengths are its last four bytes
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Seal:
    id: str
    created: str
    """ISO 8601, UTC, `Z`."""
    files: int
    content_bytes: int
    proved: str | None = None
    """When every member had been read back; None until then."""
    digest: str = "0" * 64

    def unsealed(self) -> bytes:
        """The comment up to the digest."""
        return (
            f"skicyclerun archive 1\nid {self.id}\ncreated {self.created}\n"
            f"files {self.files} bytes {self.content_bytes}\nproved {self.proved or _NOT_YET}\nseal "
        ).encode("ascii")

    def comment(self) -> bytes:
        return self.unsealed() + self.digest.encode("ascii") + b"\n"


def read_seal(archive: ArchiveBytes) -> Seal:
    """The seal at the very end of an open archive. Raises ArchiveError where there is none, OSError."""
    found = _COMMENT.search(archive.pread(1024, max(0, archive.size - 1024)))
    if found is None:
        raise ArchiveError("It is no archive of skicyclerun's (or its end is damaged): it carries no seal.")
    id_, created, files, content, proved, digest = (group.decode("ascii") for group in found.groups()[1:])
    return Seal(id_, created, int(files), int(content), None if proved == _NOT_YET else proved, digest)


def seal_of(path: Path) -> Seal:
    """The seal of an archive, of which nothing else is read. Raises ArchiveError where there is none, OSError."""
    with open(path, "rb") as stream:
        return read_seal(FileBytes(stream.fileno()))


def write_seal(descriptor: int, seal: Seal) -> None:
    """Exchange the comment at the end of an archive for this one, which is as long. Raises OSError."""
    comment = seal.comment()
    at = os.fstat(descriptor).st_size - len(comment)
    while comment:
        written = os.pwrite(descriptor, comment, at)
        comment, at = comment[written:], at + written


class Skeleton:
    """Everything in a ZIP but its members' contents: `add` them in the order of the file, `finish`, then `sealed`."""

    def __init__(self, archive: ArchiveBytes) -> None:
        self._archive = archive
        self._hash = hashlib.sha256()
        self._end: int | None = 0

    def add(self, info: ZipInfo) -> None:
        """Raises ArchiveError where bytes that belong to no member lie before it, OSError."""
        expected, self._end = self._end, None
        header = self._archive.pread(_HEADER_SIZE, info.header_offset)
        if len(header) < _HEADER_SIZE:
            raise ArchiveError("its header is missing")
        size = _HEADER_SIZE + sum(struct.unpack_from("<2H", header, 26))
        at = info.header_offset + size
        self._end = at + info.compress_size
        if expected not in (None, info.header_offset):
            raise ArchiveError("there are bytes before it that belong to no member")
        envelope = hashlib.sha256(self._archive.pread(size, info.header_offset))
        if info.compress_type == ZIP_DEFLATED:
            compressed = hashlib.sha256()
            for block in self._bytes(at, self._end):
                compressed.update(block)
            envelope.update(compressed.digest())
        self._hash.update(envelope.digest())

    def finish(self, seal: Seal) -> None:
        """Add what lies between the last member and the comment; the file is not needed any more then."""
        size = self._archive.size
        for block in self._bytes(self._end or 0, size - len(seal.comment())):
            self._hash.update(block)

    def sealed(self, seal: Seal) -> Seal:
        """This seal with the digest that belongs to the skeleton."""
        hasher = self._hash.copy()
        hasher.update(seal.unsealed())
        return replace(seal, digest=hasher.hexdigest())

    def _bytes(self, at: int, end: int) -> Iterator[bytes]:
        while at < end and (block := self._archive.pread(min(_BLOCK, end - at), at)):
            yield block
            at += len(block)
