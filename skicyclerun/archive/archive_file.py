"""An archive opened for reading: its seal, its directory, its manifest, and the contents of its members.

Everything that reads archives (proving, verifying, listing, restoring) goes through here, so that all of them are
equally strict: a file that is not exactly what `create.py` writes raises ArchiveError before a member is touched.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, cast

from zlib_ng import zlib_ng

from skicyclerun.archive.manifest import MANIFEST_NAME, Manifest, load_manifest, zip_name
from skicyclerun.archive.seal import Seal, parse_seal
from skicyclerun.archive.zip_records import DEFLATED, EndRecord, ZipEntry, local_header, read_directory, read_end
from skicyclerun.errors import ArchiveError

if TYPE_CHECKING:
    from hashlib import _Hash

BLOCK: Final = 1 << 20
# A manifest has some 300 bytes per member; more than this is no manifest but a bomb.
_MANIFEST_BYTES_PER_MEMBER: Final = 70_000
# zlib_ng's stubs call the class an instance.
_DEFLATE_ERROR: Final = cast("type[Exception]", zlib_ng.error)


def drop_from_cache(descriptor: int) -> None:
    """Ask that reading this file reads the disk: what is proved should be what the disk holds, not what memory does.

    Linux drops the clean pages of a synced file (posix_fadvise), macOS reads around its cache (F_NOCACHE). It is a
    request: a drive's own cache, and a file system that ignores it, stay out of reach.
    """
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_NOCACHE, 1)
    elif hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def read_ahead(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to have these bytes ready: threads that read in turns defeat its own guess."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)


class ArchiveFile:
    """Raises ArchiveError for a file that is no archive written here, OSError when it cannot be read."""

    def __init__(self, path: Path, *, from_disk: bool = False) -> None:
        self.path = path
        self._stream = open(path, "rb", buffering=0)
        try:
            if from_disk:
                drop_from_cache(self.descriptor)
            self.size = os.fstat(self.descriptor).st_size
            self.end: EndRecord = read_end(self.descriptor, self.size)
            self.seal: Seal = parse_seal(self.end.comment)
        except BaseException:
            self._stream.close()
            raise

    @property
    def descriptor(self) -> int:
        return self._stream.fileno()

    def __enter__(self) -> ArchiveFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def directory(self) -> Iterator[tuple[ZipEntry, bytes]]:
        """Members with their records, in the order of the file; the manifest is the last."""
        return read_directory(self.descriptor, self.end)

    def contents(self) -> tuple[Manifest, list[ZipEntry]]:
        """The manifest, and for each of its members the entry in the ZIP; then the entry of the manifest itself.

        Raises ArchiveError unless manifest and directory name the same members, with the same sizes and times.
        """
        entries = [entry for entry, _ in self.directory()]
        if not entries:
            raise ArchiveError("It has no members.")
        manifest = self._load_manifest(entries[-1], len(entries))
        if entries[-1].name != f"{manifest.root}/{MANIFEST_NAME}".encode():
            raise ArchiveError("Its last member is not the manifest.")
        if len(entries) != len(manifest.members) + 1:
            raise ArchiveError(f"It has {len(entries) - 1} members and its manifest names {len(manifest.members)}.")
        for member, entry in zip(manifest.members, entries, strict=False):
            name = zip_name(manifest.root, member)
            if entry.name != name.encode("utf-8"):
                raise ArchiveError(f"It holds {entry.name!r} where its manifest has {name!r}.")
            seconds = member.mtime_ns // 1_000_000_000
            if (entry.size, entry.mode) != (member.size, member.mode & 0xFFFF) or entry.mtime not in (seconds, None):
                raise ArchiveError(f"Its directory and its manifest differ on {member.path!r}.")
        seal = self.seal
        if (seal.id, seal.created, seal.files, seal.content_bytes) != (
            manifest.id, manifest.created, manifest.files, manifest.content_bytes,
        ):  # fmt: skip
            raise ArchiveError("Its seal and its manifest differ.")
        return manifest, entries

    def _load_manifest(self, entry: ZipEntry, members: int) -> Manifest:
        if entry.method != DEFLATED or entry.size > members * _MANIFEST_BYTES_PER_MEMBER:
            raise ArchiveError("Its last member is not a manifest.")
        data = bytearray()
        for block in MemberReader(self.descriptor, entry, memoryview(bytearray(BLOCK))):
            data += block
        return load_manifest(bytes(data))


class MemberReader:
    """The content of one member, block by block: iterate to the end, then it has been checked.

    Raises ArchiveError when the local header is not the directory's, the content is longer or shorter than the
    directory says, or its CRC-32 is another. Blocks are views of the buffer given, or bytes; never beyond the size
    the directory names, whatever the compressed bytes pretend.
    """

    def __init__(self, descriptor: int, entry: ZipEntry, buffer: memoryview) -> None:
        self._descriptor = descriptor
        self._entry = entry
        self._buffer = buffer
        self.compressed_sha256 = b""
        """SHA-256 of the bytes in the ZIP, for a deflated member."""

    def __iter__(self) -> Iterator[bytes | memoryview]:
        entry = self._entry
        header = local_header(entry)
        count = self._fill(entry.offset, min(len(header) + entry.compressed, len(self._buffer)))
        if count < len(header) or self._buffer[: len(header)] != header:
            raise ArchiveError("its header differs from the directory")
        crc = size = 0
        inflated = _Inflater(entry.size) if entry.method == DEFLATED else None
        for raw in self._raw_blocks(len(header), count):
            for block in (raw,) if inflated is None else inflated.blocks(raw):
                crc = int(zlib_ng.crc32(block, crc))
                size += len(block)
                yield block
        if inflated is not None:
            inflated.finish()
            self.compressed_sha256 = inflated.compressed.digest()
        if size != entry.size:
            raise ArchiveError(f"it has {size} bytes instead of {entry.size}")
        if crc != entry.crc:
            raise ArchiveError("its CRC-32 is wrong")

    def _raw_blocks(self, header_size: int, count: int) -> Iterator[memoryview]:
        """The bytes behind the header, of which `count` bytes with the header are in the buffer already."""
        end = self._entry.end
        at = self._entry.offset + count
        if count > header_size:
            yield self._buffer[header_size:count]
        while at < end:
            count = self._fill(at, min(end - at, len(self._buffer)))
            if not count:
                raise ArchiveError("the ZIP ends in the middle of it")
            yield self._buffer[:count]
            at += count

    def _fill(self, offset: int, wanted: int) -> int:
        """pread into the buffer until it holds `wanted` bytes or the file ends."""
        filled = 0
        while filled < wanted:
            count = os.preadv(self._descriptor, [self._buffer[filled:wanted]], offset + filled)
            if not count:
                break
            filled += count
        return filled


class _Inflater:
    def __init__(self, size: int) -> None:
        self._left = size
        self._object = zlib_ng.decompressobj(-15)
        self.compressed: _Hash = hashlib.sha256()

    def blocks(self, raw: memoryview) -> Iterator[bytes]:
        self.compressed.update(raw)
        data: bytes | memoryview = raw
        while data:
            if self._object.eof:
                raise ArchiveError("there are bytes behind its end")
            try:
                block: bytes = self._object.decompress(data, min(BLOCK, self._left + 1))
            except _DEFLATE_ERROR as error:
                raise ArchiveError("its compressed bytes are damaged") from error
            if len(block) > self._left:
                raise ArchiveError("it is longer than the directory says")
            self._left -= len(block)
            if block:
                yield block
            data = self._object.unconsumed_tail
            if self._object.unused_data:
                raise ArchiveError("there are bytes behind its end")

    def finish(self) -> None:
        if not self._object.eof or self._left:
            raise ArchiveError("its compressed bytes end too early")
