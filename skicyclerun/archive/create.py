"""Writing an archive: one pass over the old outputs, straight into a ZIP beside its final name.

Nothing is copied first and nothing is deleted here. The ZIP is `pipeline_{timestamp}.zip.partial` until `prove.py` has
read every member back; only `publish.py` gives it its name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from skicyclerun.archive.advance import Advance, Progress, Stop
from skicyclerun.archive.archive_bytes import FileBytes
from skicyclerun.archive.manifest import (
    Manifest,
    Member,
    MemberKind,
    dump_manifest,
    manifest_name,
    portable_path,
    root_name,
)
from skicyclerun.archive.plan import ArchivedFolder, ArchivePlan, PlannedMember, check_apart
from skicyclerun.archive.seal import Seal, Skeleton, write_seal
from skicyclerun.errors import ArchiveError, DiskFull, StorageError
from skicyclerun.files.atomic_files import make_directories, sync_directory, sync_files
from skicyclerun.files.beneath import NOT_A_FOLDER, Beneath
from skicyclerun.files.fault_points import fault_point

PARTIAL_SUFFIX: Final = ".partial"
#: Worth deflating; everything else (JPEG, HEIC, movies …) is compressed already: 1.4 % smaller at 20 times the time.
TEXT_SUFFIXES: Final = frozenset(
    ".csv .geojson .htm .html .ini .json .jsonl .log .md .ndjson .sql .svg .toml .tsv .txt .xml .xmp .yaml .yml".split()
)

_BLOCK: Final = 1 << 20
_ATTEMPTS: Final = 3
# A file changed this recently could change again without its times showing it (coarse clocks, FAT's two seconds);
# cleaning then compares its bytes instead.
_RACY_NS: Final = 3_000_000_000
_LONGEST_NAME: Final = 0xFFFF - 100
_LARGE_MANIFEST: Final = 1_000_000  # members; 2 GiB of text are some millions
_EARLIEST: Final = int(datetime(1980, 1, 2, tzinfo=UTC).timestamp())
_LATEST: Final = int(datetime(2107, 12, 30, tzinfo=UTC).timestamp())


class _Changed(Exception):
    """The file is not what it was when its reading began; it is read again."""


@dataclass(frozen=True, slots=True)
class WrittenArchive:
    """A ZIP that is complete and durable, and not yet proved."""

    partial: Path
    manifest: Manifest
    size: int
    """Bytes of the ZIP."""


def partial_path(archive_directory: Path, timestamp: str) -> Path:
    """Where the archive of this timestamp is written until it is proved."""
    return archive_directory / f"{root_name(timestamp)}.zip{PARTIAL_SUFFIX}"


def storage_error(error: OSError, path: Path) -> StorageError:
    """The sentence for a disk that could not take the archive."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"The disk became full while {path} was written. Nothing was deleted; the folders are untouched.",
            next_step="Free some space, or set `paths.archive` to another disk.",
        )
    return StorageError(f"{path} cannot be written ({error.strerror or error}). The folders are untouched.")


def write_archive(
    plan: ArchivePlan,
    archive_directory: Path,
    *,
    timestamp: str,
    archive_id: str,
    catalog: Mapping[str, str] | None = None,
    created: datetime | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> WrittenArchive:
    """Write the planned members to `partial_path(…)` and make them durable.

    `timestamp` is `YYYYMMDD_HHMMSS`; `archive_id` (letters, digits, `-`, `_`, at most 64) goes into the ZIP, so that
    after a crash `find_archive` can tell whether this very archive was published. `catalog` maps member paths
    (`albums/Alps/IMG_1.jpg`) to the SHA-256 that master.json has. A file that changes while it is read is read again.

    Raises ArchiveError naming a file that keeps changing, vanishes or cannot be read, DiskFull, StorageError,
    ArchiveStopped. The partial file is then gone, and the folders are as they were.
    """
    if plan.is_empty:
        raise ArchiveError("There is nothing to archive.")
    check_apart(plan.folders, archive_directory)
    partial = partial_path(archive_directory, timestamp)
    stopped = "Archiving was stopped. The unfinished archive was removed; nothing was deleted."
    try:
        make_directories(archive_directory)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w+b") as stream:
            writer = _Writer(plan, stream, root_name(timestamp), Advance(plan.content_bytes, progress, stop, stopped))
            manifest = writer.write(archive_id, created or datetime.now(UTC), catalog or {})
            size = stream.seek(0, os.SEEK_END)
        sync_files([partial])
        sync_directory(archive_directory)
        fault_point("archive.written")
    except BaseException as error:
        with suppress(OSError):  # the first failure is the one to be told
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error(error, partial) from error
        raise
    return WrittenArchive(partial, manifest, size)


class _Writer:
    """Writes one archive to an open, empty file. OSErrors that come out of it are the archive's disk's."""

    def __init__(self, plan: ArchivePlan, stream: BinaryIO, root: str, advance: Advance) -> None:
        self._plan = plan
        self._stream = stream
        self._root = root
        self._advance = advance
        self._zip = ZipFile(stream, "w")
        self._skeleton = Skeleton(FileBytes(stream.fileno()))
        self._names: set[str] = set()

    def write(self, archive_id: str, created: datetime, catalog: Mapping[str, str]) -> Manifest:
        created_text = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._zip:
            members = tuple(self._members(catalog))
            folders = {
                folder.name_in_zip: str(folder.path).encode("utf-8", "replace").decode()
                for folder in self._plan.folders
            }
            timestamp = self._root.removeprefix("pipeline_")
            manifest = Manifest(archive_id, created_text, timestamp, folders, members)
            self._add_manifest(manifest, created)
            seal = Seal(manifest.id, manifest.created, manifest.files, manifest.content_bytes)
            self._zip.comment = seal.comment()
        # A member that was read twice may have left bytes behind the end.
        self._stream.truncate()
        self._stream.flush()
        self._skeleton.finish(seal)
        write_seal(self._stream.fileno(), self._skeleton.sealed(seal))
        return manifest

    def _members(self, catalog: Mapping[str, str]) -> Iterator[Member]:
        for index, folder in enumerate(self._plan.folders):
            with _reading(folder.path):
                beneath = Beneath(folder.path)
            with beneath:
                for planned in self._plan.members:
                    if planned.folder == index:
                        yield self._member(folder, beneath, planned, catalog)
                        fault_point("archive.first_member_written")

    def _member(
        self, folder: ArchivedFolder, beneath: Beneath, planned: PlannedMember, catalog: Mapping[str, str]
    ) -> Member:
        disk_path = "/".join((folder.name_in_zip, *planned.parts))
        path, path_bytes = self._free_name(disk_path)
        shown = folder.path.joinpath(*planned.parts)
        for _ in range(_ATTEMPTS):
            done, end, before = self._advance.done, self._zip.start_dir, len(self._zip.filelist)
            try:
                status, size, sha256 = self._add(beneath, planned, f"{self._root}/{path}", shown)
            except _Changed:
                # Taken out of the directory; what is written next is written over it.
                for info in self._zip.filelist[before:]:
                    del self._zip.NameToInfo[info.filename]
                del self._zip.filelist[before:]
                self._zip.start_dir, self._advance.done = end, done
                beneath.forget()
                continue
            self._close_member()
            settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _RACY_NS
            known = settled and planned.kind is MemberKind.FILE
            return Member(
                path, planned.kind, size, status.st_mtime_ns, status.st_mode, sha256,
                catalog_sha256=catalog.get(disk_path), path_bytes=path_bytes,
                inode=status.st_ino if known else 0, ctime_ns=status.st_ctime_ns if known else 0,
            )  # fmt: skip
        raise ArchiveError(
            f"{shown} kept changing while it was archived. The archive was given up and nothing was deleted.",
            next_step="Stop the program that writes it, then start again.",
        )

    def _free_name(self, disk_path: str) -> tuple[str, bytes | None]:
        path, path_bytes = portable_path(disk_path)
        plain, number = path, 2
        while path in self._names:
            path, path_bytes = f"{plain} ({number})", os.fsencode(disk_path)
            number += 1
        if len(path.encode("utf-8")) > _LONGEST_NAME:
            raise ArchiveError(f"The path {path[:200]}… is too long for a ZIP. Nothing was deleted.")
        self._names.add(path)
        return path, path_bytes

    def _add(self, beneath: Beneath, planned: PlannedMember, name: str, shown: Path) -> tuple[os.stat_result, int, str]:
        """What it was, the bytes of its content, and their SHA-256."""
        if planned.kind is MemberKind.FILE:
            return self._add_file(beneath, planned.parts, name, shown)
        with _reading(shown):
            status = beneath.stat(planned.parts)
            is_folder = planned.kind is MemberKind.FOLDER
            if not (stat.S_ISDIR if is_folder else stat.S_ISLNK)(status.st_mode):
                raise _Changed
            target = b"" if is_folder else beneath.read_link(planned.parts)
        self._zip.writestr(_info(f"{name}/" if is_folder else name, status.st_mode, status.st_mtime_ns), target)
        return status, len(target), "" if is_folder else hashlib.sha256(target).hexdigest()

    def _add_file(
        self, beneath: Beneath, parts: tuple[str, ...], name: str, shown: Path
    ) -> tuple[os.stat_result, int, str]:
        with _reading(shown):
            source = open(beneath.open_file(parts), "rb", buffering=0)
        with source:
            before = os.fstat(source.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise _Changed
            info = _info(name, before.st_mode, before.st_mtime_ns)
            info.file_size = left = before.st_size
            if PurePosixPath(parts[-1]).suffix.lower() in TEXT_SUFFIXES:
                info.compress_type = ZIP_DEFLATED
            hasher = hashlib.sha256()
            with self._zip.open(info, "w") as target:
                while left:
                    with _reading(shown):
                        block = source.read(min(left, _BLOCK))
                    if not block:
                        raise _Changed
                    target.write(block)
                    hasher.update(block)
                    left -= len(block)
                    self._advance(len(block))
            with _reading(shown):
                after, named = os.fstat(source.fileno()), beneath.stat(parts)
        if _identity(after) != _identity(before) or _identity(named) != _identity(before):
            raise _Changed
        return before, before.st_size, hasher.hexdigest()

    def _add_manifest(self, manifest: Manifest, created: datetime) -> None:
        name = manifest_name(self._root)
        info = _info(name, stat.S_IFREG | 0o644, int(created.timestamp()) * 1_000_000_000)
        info.compress_type = ZIP_DEFLATED
        with self._zip.open(info, "w", force_zip64=len(manifest.members) > _LARGE_MANIFEST) as target:
            for piece in dump_manifest(manifest):
                target.write(piece)
        self._close_member()

    def _close_member(self) -> None:
        self._stream.flush()
        self._skeleton.add(self._zip.filelist[-1])


def _info(name: str, mode: int, mtime_ns: int) -> ZipInfo:
    """Permissions as in Unix; the time in ZIP's own form (local, 1980 to 2107) and in Info-ZIP's (seconds, UTC)."""
    seconds = mtime_ns // 1_000_000_000
    year, month, day, hour, minute, second, *_ = time.localtime(min(max(seconds, _EARLIEST), _LATEST))
    info = ZipInfo(name, (year, month, day, hour, minute, second))
    info.external_attr = (mode & 0xFFFF) << 16 | (0x10 if stat.S_ISDIR(mode) else 0)
    if 0 <= seconds < 2**31:
        info.extra = struct.pack("<2HBl", 0x5455, 5, 1, seconds)
    return info


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What goes wrong with the old outputs, in words; so that it is not taken for a fault of the archive's disk."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            what = "vanished while it was archived"
        elif error.errno in NOT_A_FOLDER:
            what = "was replaced by something else while it was archived"
        else:
            what = f"cannot be read ({error.strerror or error})"
        raise ArchiveError(f"{path} {what}. The archive was given up and nothing was deleted.") from error
