"""The records and contents of an archive, written member by member while they are hashed."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from zlib_ng import zlib_ng

from skicyclerun.archive.background_sync import BackgroundSync
from skicyclerun.archive.beneath import NOT_A_FOLDER, Beneath
from skicyclerun.archive.callbacks import Progress, Stop
from skicyclerun.archive.disk_errors import storage_error
from skicyclerun.archive.hashing import HashingThreads, MemberHash
from skicyclerun.archive.manifest import (
    MANIFEST_NAME,
    Manifest,
    Member,
    MemberKind,
    dump_manifest,
    portable_path,
    root_name,
)
from skicyclerun.archive.plan import ArchivePlan, PlannedMember
from skicyclerun.archive.seal import Seal, envelope
from skicyclerun.archive.zip_records import (
    DEFLATED,
    STORED,
    ZipEntry,
    central_record,
    end_records,
    local_header,
    make_entry,
)
from skicyclerun.errors import ArchiveError, ArchiveStopped
from skicyclerun.files.fault_points import fault_point

if TYPE_CHECKING:
    from hashlib import _Hash

#: Worth deflating; everything else (JPEG, HEIC, movies …) is compressed already: 1.4 % smaller at 20 times the time.
TEXT_SUFFIXES: Final = frozenset(
    ".csv .geojson .htm .html .ini .json .jsonl .log .md .ndjson .sql .svg .toml .tsv .txt .xml .xmp .yaml .yml".split()
)

_ATTEMPTS: Final = 3
# A file changed this recently could change again without its times showing it (coarse clocks, FAT's two seconds);
# cleaning then compares its bytes instead.
_RACY_NS: Final = 3_000_000_000


class _Changed(Exception):
    """The file is not what it was when its reading began; it is read again."""


class ArchiveWriter:
    """Writes one archive to an open, empty file. Raises what `write_archive` does."""

    def __init__(
        self,
        plan: ArchivePlan,
        descriptor: int,
        partial: Path,
        hashing: HashingThreads,
        sync: BackgroundSync,
        progress: Progress | None,
        stop: Stop | None,
    ) -> None:
        self._plan = plan
        self._descriptor = descriptor
        self._partial = partial
        self._hashing = hashing
        self._sync = sync
        self._progress = progress
        self._stop = stop
        self._done = 0
        self._offset = 0
        self._entries: list[ZipEntry] = []
        self._skeleton = hashlib.sha256()
        self._names: set[str] = set()

    def write(
        self, timestamp: str, archive_id: str, catalog: Mapping[str, str], created: datetime
    ) -> tuple[Manifest, int]:
        root = root_name(timestamp)
        read: list[tuple[Member, MemberHash | str]] = []
        folder, beneath = -1, None
        try:
            for planned in self._plan.members:
                if planned.folder != folder or beneath is None:
                    if beneath is not None:
                        beneath.close()
                    folder = planned.folder
                    beneath = self._open(self._plan.folders[folder].path)
                read.append(self._add(beneath, planned, root, catalog))
                fault_point("archive.first_member_written")
        finally:
            if beneath is not None:
                beneath.close()
        self._hashing.drain()
        members = tuple(
            replace(member, sha256=found if isinstance(found, str) else found.hexdigest()) for member, found in read
        )
        created_text = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        folders = {folder.name_in_zip: str(folder.path) for folder in self._plan.folders}
        folders = {name: path.encode("utf-8", "replace").decode() for name, path in folders.items()}
        manifest = Manifest(archive_id, created_text, timestamp, folders, members)
        self._add_manifest(manifest, created)
        return manifest, self._finish(manifest)

    @staticmethod
    def _open(path: Path) -> Beneath:
        try:
            return Beneath(path)
        except OSError as error:
            raise ArchiveError(f"{path} vanished or cannot be read ({error.strerror}). Nothing was deleted.") from error

    # ── one member ────────────────────────────────────────────────────────────────────────────────────────────────

    def _add(
        self, beneath: Beneath, planned: PlannedMember, root: str, catalog: Mapping[str, str]
    ) -> tuple[Member, MemberHash | str]:
        folder = self._plan.folders[planned.folder]
        disk_path = "/".join((folder.name_in_zip, *planned.parts))
        path, path_bytes = portable_path(disk_path)
        plain, number = path, 2
        while path in self._names:
            path, path_bytes = f"{plain} ({number})", os.fsencode(disk_path)
            number += 1
        self._names.add(path)
        shown = folder.path.joinpath(*planned.parts)
        done = self._done
        for _ in range(_ATTEMPTS):
            self._done = done
            try:
                status, size, hasher = self._add_content(beneath, planned, f"{root}/{path}")
            except _Changed:
                beneath.forget()
                continue
            except OSError as error:
                raise _unreadable(shown, error) from error
            known = (path, path_bytes, catalog.get(disk_path))
            return _member(planned.kind, known, status, size), hasher
        raise ArchiveError(
            f"{shown} kept changing while it was archived. The archive was given up and nothing was deleted.",
            next_step="Stop the program that writes it, then start again.",
        )

    def _add_content(
        self, beneath: Beneath, planned: PlannedMember, name: str
    ) -> tuple[os.stat_result, int, MemberHash | str]:
        if planned.kind is MemberKind.FILE:
            return self._add_file(beneath, planned.parts, name)
        status = beneath.stat(planned.parts)
        if planned.kind is MemberKind.FOLDER:
            if not stat.S_ISDIR(status.st_mode):
                raise _Changed
            self._add_bytes(f"{name}/", status, b"")
            return status, 0, ""
        if not stat.S_ISLNK(status.st_mode):
            raise _Changed
        target = beneath.read_link(planned.parts)
        self._add_bytes(name, status, target)
        return status, len(target), hashlib.sha256(target).hexdigest()

    def _add_bytes(self, name: str, status: os.stat_result, data: bytes) -> None:
        entry = make_entry(
            self._zip_name(name), self._offset, method=STORED, crc=int(zlib_ng.crc32(data)), compressed=len(data),
            size=len(data), mode=status.st_mode, mtime_ns=status.st_mtime_ns,
        )  # fmt: skip
        self._write(local_header(entry) + data, self._offset)
        self._finish_member(entry, b"")

    def _add_file(self, beneath: Beneath, parts: tuple[str, ...], name: str) -> tuple[os.stat_result, int, MemberHash]:
        with open(beneath.open_file(parts), "rb", buffering=0) as stream:
            before = os.fstat(stream.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise _Changed
            size = before.st_size
            deflate = PurePosixPath(parts[-1]).suffix.lower() in TEXT_SUFFIXES
            draft = make_entry(
                self._zip_name(name), self._offset, method=DEFLATED if deflate else STORED, crc=0, compressed=size,
                size=size, mode=before.st_mode, mtime_ns=before.st_mtime_ns,
            )  # fmt: skip
            data_at = self._offset + draft.header_size
            compressor = zlib_ng.compressobj(6, DEFLATED, -15) if deflate else None
            compressed_hash, at = hashlib.sha256(), data_at
            hasher, crc, left = self._hashing.new_hash(), 0, size
            while left:
                buffer = self._hashing.take()
                try:
                    count = stream.readinto(buffer[: min(left, len(buffer))])
                    if not count:
                        raise _Changed
                    block = buffer[:count]
                    crc = int(zlib_ng.crc32(block, crc))
                    if compressor is None:
                        self._write(block, at)
                        at += count
                    else:
                        at = self._write_compressed(compressor.compress(block), at, compressed_hash)
                except BaseException:
                    self._hashing.release(buffer)
                    raise
                self._hashing.hash_and_release(hasher, buffer, count, last=left == count)
                left -= count
                self._advance(count)
            if compressor is not None:
                at = self._write_compressed(compressor.flush(), at, compressed_hash)
            after, named = os.fstat(stream.fileno()), beneath.stat(parts)
        if _identity(after) != _identity(before) or _identity(named) != _identity(before):
            raise _Changed
        entry = make_entry(
            draft.name, self._offset, method=draft.method, crc=crc, compressed=at - data_at, size=size,
            mode=before.st_mode, mtime_ns=before.st_mtime_ns,
        )  # fmt: skip
        self._write(local_header(entry), self._offset)
        self._finish_member(entry, compressed_hash.digest())
        return before, size, hasher

    def _write_compressed(self, data: bytes, at: int, hasher: _Hash) -> int:
        if data:
            hasher.update(data)
            self._write(data, at)
        return at + len(data)

    @staticmethod
    def _zip_name(name: str) -> bytes:
        encoded = name.encode("utf-8")
        if len(encoded) > 0xFFFF:
            raise ArchiveError(f"The path {name[:200]}… is too long for a ZIP. Nothing was deleted.")
        return encoded

    def _finish_member(self, entry: ZipEntry, compressed_sha256: bytes) -> None:
        self._entries.append(entry)
        self._skeleton.update(envelope(entry, compressed_sha256))
        self._offset = entry.end

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _add_manifest(self, manifest: Manifest, created: datetime) -> None:
        name = self._zip_name(f"{manifest.root}/{MANIFEST_NAME}")
        facts = {"method": DEFLATED, "mode": stat.S_IFREG | 0o644, "mtime_ns": int(created.timestamp()) * 1_000_000_000}
        draft = make_entry(name, self._offset, crc=0, compressed=0, size=0, **facts)
        data_at = at = self._offset + draft.header_size
        compressor, compressed_hash, crc, size = zlib_ng.compressobj(6, DEFLATED, -15), hashlib.sha256(), 0, 0
        for piece in dump_manifest(manifest):
            crc = int(zlib_ng.crc32(piece, crc))
            size += len(piece)
            at = self._write_compressed(compressor.compress(piece), at, compressed_hash)
        at = self._write_compressed(compressor.flush(), at, compressed_hash)
        entry = make_entry(name, self._offset, crc=crc, compressed=at - data_at, size=size, **facts)
        if entry.header_size != draft.header_size:
            raise ArchiveError("There are too many files for one archive. Nothing was deleted.")
        self._write(local_header(entry), self._offset)
        self._finish_member(entry, compressed_hash.digest())

    def _finish(self, manifest: Manifest) -> int:
        directory_at = at = self._offset
        pending = bytearray()
        for entry in self._entries:
            pending += central_record(entry)
            if len(pending) >= 1 << 20:
                at = self._write_compressed(bytes(pending), at, self._skeleton)
                pending.clear()
        at = self._write_compressed(bytes(pending), at, self._skeleton)
        seal = Seal(manifest.id, manifest.created, manifest.files, manifest.content_bytes)
        end = end_records(len(self._entries), at - directory_at, directory_at, len(seal.comment()))
        self._skeleton.update(end)
        tail = end + seal.sealed(self._skeleton).comment()
        self._write(tail, at)
        # A member that was read twice may have left bytes behind the end.
        os.ftruncate(self._descriptor, at + len(tail))
        return at + len(tail)

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written
                self._sync.wrote(written)
        except OSError as error:
            raise storage_error(error, self._partial) from error

    def _advance(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(min(self._done, self._plan.content_bytes), self._plan.content_bytes)
        if self._stop is not None and self._stop():
            raise ArchiveStopped("Archiving was stopped. The unfinished archive was removed; nothing was deleted.")


def _member(kind: MemberKind, known: tuple[str, bytes | None, str | None], status: os.stat_result, size: int) -> Member:
    path, path_bytes, catalog_sha256 = known
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _RACY_NS
    trusted = settled and kind is MemberKind.FILE
    return Member(
        path, kind, size, status.st_mtime_ns, status.st_mode,
        catalog_sha256=catalog_sha256, path_bytes=path_bytes,
        inode=status.st_ino if trusted else 0, ctime_ns=status.st_ctime_ns if trusted else 0,
    )  # fmt: skip


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _unreadable(path: Path, error: OSError) -> ArchiveError:
    if isinstance(error, FileNotFoundError):
        what = "vanished while it was archived"
    elif error.errno in NOT_A_FOLDER:
        what = "was replaced by something else while it was archived"
    else:
        what = f"cannot be read ({error.strerror or error})"
    return ArchiveError(f"{path} {what}. The archive was given up and nothing was deleted.")
