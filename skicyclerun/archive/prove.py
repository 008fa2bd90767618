"""Proving: every byte of an archive read back and compared with what the manifest and the seal say.

A proved archive says so in its own comment, sealed, so that it can be told from any other file for as long as it lives.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from skicyclerun.archive.archive_file import BLOCK, ArchiveFile, MemberReader, drop_from_cache, read_ahead
from skicyclerun.archive.callbacks import Progress, Stop
from skicyclerun.archive.create import WrittenArchive
from skicyclerun.archive.disk_errors import storage_error
from skicyclerun.archive.manifest import Manifest, Member
from skicyclerun.archive.seal import Seal, envelope, parse_seal
from skicyclerun.archive.zip_records import ZipEntry, read_end
from skicyclerun.errors import ArchiveError, ArchiveNotProved, ArchiveStopped
from skicyclerun.files.atomic_files import sync_files
from skicyclerun.files.fault_points import fault_point

if TYPE_CHECKING:
    from hashlib import _Hash

_WORKERS: Final = min(4, os.cpu_count() or 1)
_SHOWN: Final = 20
_AHEAD: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProvedArchive:
    """Every member was read back and is what was read from the folders."""

    path: Path
    manifest: Manifest
    size: int
    proved: str
    """ISO 8601, UTC, `Z`."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What reading an archive showed; nothing in `problems` means that it is whole."""

    path: Path
    problems: tuple[str, ...]
    """One sentence each."""
    quick: bool
    """True: only the directory and the manifest were read."""
    seal: Seal | None = None
    manifest: Manifest | None = None

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_archive(
    path: Path, *, quick: bool = False, progress: Progress | None = None, stop: Stop | None = None
) -> Examination:
    """Read an archive back and report what is wrong with it; nothing is written.

    `quick` reads the directory and the manifest alone: it finds a torn or exchanged archive, not a flipped byte in a
    photo. Raises ArchiveStopped, and nothing else: a file that cannot be read is a problem like any other.
    """
    return _examine(path, None, quick, progress, stop)[0]


def prove_archive(
    path: Path,
    written: WrittenArchive | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    now: datetime | None = None,
) -> ProvedArchive:
    """Read every member back from the disk, then write into the archive's comment that it is proved.

    The contents are compared with the hashes in the manifest, the manifest with the hashes taken while writing (where
    `written` is given), everything else with the seal. Safe to repeat. Raises ArchiveNotProved, ArchiveStopped,
    DiskFull, StorageError; the archive is left as it is.
    """
    examination, skeleton = _examine(path, written, False, progress, stop)
    if examination.problems or examination.seal is None or examination.manifest is None or skeleton is None:
        shown = "; ".join(examination.problems[:3])
        more = f" (and {len(examination.problems) - 3} more)" if len(examination.problems) > 3 else ""
        raise ArchiveNotProved(
            f"{path} is not what was written: {shown}{more}. Nothing was deleted; the folders are untouched.",
            next_step="Check the disk, then start again.",
        )
    seal = examination.seal
    if seal.proved is None:
        stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        seal = replace(seal, proved=stamp).sealed(skeleton)
        try:
            _stamp(path, seal)
        except OSError as error:
            raise storage_error(error, path) from error
    fault_point("archive.proved")
    assert seal.proved is not None
    return ProvedArchive(path, examination.manifest, path.stat().st_size, seal.proved)


def _stamp(path: Path, seal: Seal) -> None:
    """Exchange the comment for one of the same length, and read it back from the disk."""
    comment = seal.comment()
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        written = os.pwrite(descriptor, comment, size - len(comment))
        if written != len(comment):
            raise ArchiveNotProved(f"The proof could not be written into {path}. Nothing was deleted.")
        sync_files([path])
        drop_from_cache(descriptor)
        if parse_seal(read_end(descriptor, size).comment) != seal:
            raise ArchiveNotProved(f"The proof could not be read back from {path}. Nothing was deleted.")
    finally:
        os.close(descriptor)


def _examine(
    path: Path, written: WrittenArchive | None, quick: bool, progress: Progress | None, stop: Stop | None
) -> tuple[Examination, _Hash | None]:
    seal: Seal | None = None
    try:
        with ArchiveFile(path, from_disk=not quick) as archive:
            seal = archive.seal
            manifest, entries = archive.contents()
            if written is not None and manifest != written.manifest:
                problem = "its manifest is not the one that was written"
                return Examination(path, (problem,), quick, seal, manifest), None
            if quick:
                return Examination(path, (), quick, seal, manifest), None
            reading = _Reading(archive, manifest, entries, progress, stop)
            problems = reading.run()
            skeleton = _skeleton(archive, reading.envelopes)
    except ArchiveStopped:
        raise
    except (ArchiveError, OSError) as error:
        what = f"it cannot be read ({error.strerror or error})" if isinstance(error, OSError) else _lower(str(error))
        return Examination(path, (what,), quick, seal), None
    if not problems and seal.sealed(skeleton) != seal:
        problems = ("its seal does not fit: something besides the members was changed",)
    return Examination(path, problems, quick, seal, manifest), skeleton


def _lower(sentence: str) -> str:
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")


def _skeleton(archive: ArchiveFile, envelopes: list[bytes]) -> _Hash:
    hasher = hashlib.sha256()
    for digest in envelopes:
        hasher.update(digest)
    for _, record in archive.directory():
        hasher.update(record)
    hasher.update(archive.end.records)
    return hasher


class _Reading:
    """Members are read on a few threads (hashing and reading release the lock), each with one buffer."""

    def __init__(
        self,
        archive: ArchiveFile,
        manifest: Manifest,
        entries: list[ZipEntry],
        progress: Progress | None,
        stop: Stop | None,
    ) -> None:
        self._archive = archive
        self._entries = entries
        self._progress = progress
        self._stop = stop
        self._total = manifest.content_bytes
        self._lock = threading.Lock()
        self._done = 0
        self._problems: dict[int, str] = {}
        self._stopped = False
        self._asked_to = 0
        self._next: Iterator[tuple[int, Member | None]] = enumerate((*manifest.members, None))
        self.envelopes = [b""] * len(entries)

    def run(self) -> tuple[str, ...]:
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="archive-proving") as pool:
            try:
                for future in [pool.submit(self._work) for _ in range(_WORKERS)]:
                    future.result()
            except BaseException:
                # Ctrl-C while waiting: leaving the pool waits for the threads, so they must hear of it.
                self._stopped = True
                raise
        if self._stopped:
            raise ArchiveStopped("Reading the archive back was stopped.")
        problems = [self._problems[index] for index in sorted(self._problems)]
        if len(problems) > _SHOWN:
            problems[_SHOWN:] = [f"… and {len(problems) - _SHOWN} members more"]
        return tuple(problems)

    def _work(self) -> None:
        buffer = memoryview(bytearray(BLOCK))
        while not self._stopped:
            with self._lock:
                index, member = next(self._next, (-1, None))
                if index < 0:
                    return
                self._read_ahead(self._entries[index].offset)
            try:
                self._read(index, member, buffer)
            except ArchiveStopped:
                return
            except (ArchiveError, OSError) as error:
                name = self._entries[index].name.decode("utf-8", "replace")
                self._problems[index] = f"{name}: {error.strerror if isinstance(error, OSError) else error}"
            except BaseException:
                self._stopped = True
                raise

    def _read(self, index: int, member: Member | None, buffer: memoryview) -> None:
        hasher = hashlib.sha256()
        reader = MemberReader(self._archive.descriptor, self._entries[index], buffer)
        for block in reader:
            hasher.update(block)
            if member is not None:
                self._advance(len(block))
        self.envelopes[index] = envelope(self._entries[index], reader.compressed_sha256)
        if member is not None and member.sha256 and hasher.hexdigest() != member.sha256:
            raise ArchiveError("its content is not what was archived (SHA-256 differs)")

    def _read_ahead(self, offset: int) -> None:
        if offset + _AHEAD > self._asked_to:
            start = max(offset, self._asked_to)
            self._asked_to = offset + 2 * _AHEAD
            read_ahead(self._archive.descriptor, start, self._asked_to - start)

    def _advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)
            if self._stopped or (self._stop is not None and self._stop()):
                self._stopped = True
                raise ArchiveStopped("Reading the archive back was stopped.")
