"""An archive opened for reading: its seal, its directory, its manifest, and the contents of its members.

The ZIP is `zipfile`'s business; what is checked here is that it holds what its manifest says and nothing else. All
that reads members (proving, verifying, restoring) goes through here, so that all of them are equally strict.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from skicyclerun.archive.archive_bytes import ArchiveBytes, FileBytes, RangedBytes
from skicyclerun.archive.manifest import Manifest, Member, load_manifest, manifest_name, zip_name
from skicyclerun.archive.seal import read_seal
from skicyclerun.errors import ArchiveError

_BLOCK: Final = 1 << 20
# A manifest has some 300 bytes per member besides its name, which is there as JSON and may be there in hexadecimal; and
# the names of the folders. More than this is no manifest but a bomb.
_MANIFEST_BYTES_PER_MEMBER: Final = 1_000
_MANIFEST_BYTES_PER_LETTER: Final = 16
_MANIFEST_BYTES: Final = 1 << 20
#: What `zipfile` says of bytes that are no ZIP, or one of a kind that is not written here.
_DAMAGE: Final = (BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, MemoryError)


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


class ArchiveFile:
    """Raises ArchiveError for a file that is no archive written here, OSError when it cannot be read."""

    def __init__(self, place: Path | RangedBytes, *, from_disk: bool = False) -> None:
        """`from_disk`: a file here is read from the disk, not from memory. One elsewhere is closed here too."""
        self._ranged = place if isinstance(place, RangedBytes) else None
        self._stream: BinaryIO | RangedBytes = place if isinstance(place, RangedBytes) else open(place, "rb")
        self.bytes: ArchiveBytes = self._ranged if self._ranged is not None else FileBytes(self._stream.fileno())
        try:
            if from_disk and self._ranged is None:
                drop_from_cache(self._stream.fileno())
            self.size = self.bytes.size
            self.seal = read_seal(self.bytes)
            with _translated("The directory of the ZIP is damaged"):
                self._zip = ZipFile(self._stream)
        except BaseException:
            self._stream.close()
            raise

    def expect(self, wanted: Iterable[ZipInfo]) -> None:
        """Which members will be read: of an archive elsewhere little more is then fetched."""
        if self._ranged is None:
            return
        # A member ends where the next begins: `contents` compared the directory with the manifest, not the offsets.
        starts = sorted({info.header_offset for info in self._zip.infolist()} | {self._zip.start_dir})
        ends = dict(itertools.pairwise(starts))
        self._ranged.expect((info.header_offset, ends.get(info.header_offset, self.size)) for info in wanted)

    def __enter__(self) -> ArchiveFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._stream.close()

    def contents(self) -> tuple[Manifest, list[ZipInfo]]:
        """The manifest, and for each of its members the entry in the ZIP; then the entry of the manifest itself.

        Raises ArchiveError unless directory, manifest and seal name the same members, with the same sizes and modes.
        """
        infos = self._zip.infolist()
        if not infos or infos[-1].file_size > _most_manifest_bytes(infos):
            raise ArchiveError("Its last member is not a manifest.")
        if any(info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for info in infos):
            raise ArchiveError("It holds a member that is compressed in a way skicyclerun does not write.")
        manifest = load_manifest(b"".join(self.blocks(infos[-1])))
        if infos[-1].orig_filename != manifest_name(manifest.root) or len(infos) != len(manifest.members) + 1:
            raise ArchiveError("Its directory and its manifest name different members.")
        for member, info in zip(manifest.members, infos, strict=False):
            there = (info.orig_filename, info.file_size, info.external_attr >> 16)
            if there != (zip_name(manifest.root, member), member.size, member.mode & 0xFFFF):
                raise ArchiveError(f"Its directory and its manifest differ on {member.path!r}.")
        seal = self.seal
        if (seal.id, seal.created, seal.files, seal.content_bytes) != (
            manifest.id, manifest.created, manifest.files, manifest.content_bytes,
        ):  # fmt: skip
            raise ArchiveError("Its seal and its manifest differ.")
        return manifest, infos

    def content(self, member: Member, info: ZipInfo) -> Iterator[bytes]:
        """The member's bytes, block by block, never more than the manifest says; to be read to the end.

        Raises ArchiveError, at the latest behind the last block, unless they have the member's SHA-256.
        """
        hasher = hashlib.sha256()
        for block in self.blocks(info):
            hasher.update(block)
            yield block
        if member.sha256 and hasher.hexdigest() != member.sha256:
            raise ArchiveError("its content is not what was archived (SHA-256 differs)")

    def blocks(self, info: ZipInfo) -> Iterator[bytes]:
        """What `zipfile` reads, its CRC-32 checked; no more than the directory says. Raises ArchiveError, OSError."""
        with _translated("it is damaged"), self._zip.open(info) as stream:
            while block := stream.read(_BLOCK):
                yield block


def _most_manifest_bytes(infos: list[ZipInfo]) -> int:
    letters = sum(len(info.orig_filename) for info in infos)
    return _MANIFEST_BYTES + len(infos) * _MANIFEST_BYTES_PER_MEMBER + letters * _MANIFEST_BYTES_PER_LETTER


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ArchiveError(f"{what} ({error})") from error
