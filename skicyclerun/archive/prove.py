"""Proving: every byte of an archive read back and compared with what the manifest and the seal say.

A proved archive says so in its own comment, sealed, so that it can be told from any other file for as long as it lives.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zipfile import ZipInfo

from skicyclerun.archive.advance import Advance, Progress, Stop
from skicyclerun.archive.archive_bytes import FileBytes, RangedBytes
from skicyclerun.archive.archive_file import ArchiveFile, drop_from_cache
from skicyclerun.archive.create import WrittenArchive, storage_error
from skicyclerun.archive.manifest import Manifest
from skicyclerun.archive.seal import Seal, Skeleton, read_seal, write_seal
from skicyclerun.errors import ArchiveError, ArchiveNotProved, ArchiveStopped, RemoteError
from skicyclerun.files.atomic_files import sync_files
from skicyclerun.files.fault_points import fault_point

_SHOWN: Final = 20


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
    """Of an archive elsewhere its name."""
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
    path: Path | RangedBytes, *, quick: bool = False, progress: Progress | None = None, stop: Stop | None = None
) -> Examination:
    """Read an archive back and report what is wrong with it; nothing is written.

    `quick` reads the directory and the manifest alone: it finds a torn or exchanged archive, not a flipped byte in a
    photo. Raises ArchiveStopped, and RemoteError for one elsewhere; a file that cannot be read is a problem like any
    other.
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
        seal = skeleton.sealed(replace(seal, proved=stamp))
        try:
            _stamp(path, seal)
        except OSError as error:
            raise storage_error(error, path) from error
    fault_point("archive.proved")
    assert seal.proved is not None
    return ProvedArchive(path, examination.manifest, path.stat().st_size, seal.proved)


def _stamp(path: Path, seal: Seal) -> None:
    """Exchange the comment for one of the same length, and read it back from the disk."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        write_seal(descriptor, seal)
        sync_files([path])
        drop_from_cache(descriptor)
        if read_seal(FileBytes(descriptor)) != seal:
            raise ArchiveNotProved(f"The proof could not be read back from {path}. Nothing was deleted.")
    finally:
        os.close(descriptor)


def _examine(
    place: Path | RangedBytes, written: WrittenArchive | None, quick: bool, progress: Progress | None, stop: Stop | None
) -> tuple[Examination, Skeleton | None]:
    seal: Seal | None = None
    skeleton: Skeleton | None = None
    problems: list[str] = []
    path = Path(place.title) if isinstance(place, RangedBytes) else place
    try:
        with ArchiveFile(place, from_disk=not quick) as archive:
            seal = archive.seal
            manifest, infos = archive.contents()
            if written is not None and manifest != written.manifest:
                problems.append("its manifest is not the one that was written")
            elif not quick:
                advance = Advance(manifest.content_bytes, progress, stop, "Reading the archive back was stopped.")
                archive.expect(infos)
                skeleton = Skeleton(archive.bytes)
                problems.extend(_read_back(archive, manifest, infos, skeleton, advance))
                skeleton.finish(seal)
                if not problems and skeleton.sealed(seal) != seal:
                    problems.append("its seal does not fit: something besides the members was changed")
    except (ArchiveStopped, RemoteError):
        raise
    except (ArchiveError, OSError) as error:
        return Examination(path, (_in_words(error),), quick, seal), None
    return Examination(path, tuple(problems), quick, seal, manifest), skeleton


def _read_back(
    archive: ArchiveFile, manifest: Manifest, infos: list[ZipInfo], skeleton: Skeleton, advance: Advance
) -> list[str]:
    """What is wrong with the members, one sentence each."""
    problems: list[str] = []
    # The last one is the manifest, which has been read and compared.
    for member, info in zip((*manifest.members, None), infos, strict=True):
        try:
            skeleton.add(info)
            for block in archive.content(member, info) if member is not None else ():
                advance(len(block))
        except (ArchiveStopped, RemoteError):
            raise
        except (ArchiveError, OSError) as error:
            problems.append(f"{info.filename}: {_in_words(error)}")
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [f"… and {len(problems) - _SHOWN} members more"]
    return problems


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror or error})"
    sentence = str(error)
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")
