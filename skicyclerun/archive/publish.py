"""Giving a proved archive its name, and finding out after a crash how far an archive came.

Only a proved archive bears a name of the form `pipeline_YYYYMMDD_HHMMSS[-N].zip`.
"""

from __future__ import annotations

import itertools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from skicyclerun.archive.archive_file import ArchiveFile
from skicyclerun.archive.create import PARTIAL_SUFFIX, storage_error
from skicyclerun.archive.prove import ProvedArchive
from skicyclerun.archive.seal import seal_of
from skicyclerun.errors import ArchiveError, ArchiveNotProved
from skicyclerun.files.atomic_files import rename_to_new_name, sync_directory
from skicyclerun.files.fault_points import fault_point

ARCHIVE_NAME: Final = re.compile(r"pipeline_([0-9]{8}_[0-9]{6})(?:-([0-9]+))?\.zip")
_PARTIAL_NAME: Final = re.compile(r"pipeline_[0-9]{8}_[0-9]{6}\.zip" + re.escape(PARTIAL_SUFFIX))


def publish_archive(proved: ProvedArchive) -> Path:
    """Rename the partial file to its final name, never over another one, and make that durable.

    A second archive of the same second is called `pipeline_…-2.zip`. Safe to repeat after a crash together with
    `find_archive` and `remove_partials`. Raises ArchiveNotProved, StorageError.
    """
    partial = proved.path
    try:
        if seal_of(partial).proved is None:
            raise ArchiveNotProved(f"{partial} has not been proved. Nothing was deleted.")
        for number in itertools.count(1):
            target = partial.with_name(f"{proved.manifest.root}{f'-{number}' if number > 1 else ''}.zip")
            with suppress(FileExistsError):
                rename_to_new_name(partial, target)
                break
        fault_point("archive.renamed")
        sync_directory(target.parent)
    except OSError as error:
        raise storage_error(error, partial) from error
    return target


def find_archive(archive_directory: Path, archive_id: str) -> Path | None:
    """The published, proved archive with this id; None where there is none. What cannot be read is passed over."""
    for path in archive_paths(archive_directory):
        try:
            seal = seal_of(path)
        except (ArchiveError, OSError):
            continue
        if seal.id == archive_id and seal.proved is not None:
            return path
    return None


def open_proved(path: Path) -> ProvedArchive:
    """A published archive as `clean_folders` needs it after a restart; its members are not read again.

    Raises ArchiveNotProved when it is torn, was never proved, or its directory and manifest differ.
    """
    try:
        with ArchiveFile(path) as archive:
            manifest, _ = archive.contents()
            if archive.seal.proved is None:
                raise ArchiveError("It was never proved.")
            return ProvedArchive(path, manifest, archive.size, archive.seal.proved)
    except (ArchiveError, OSError) as error:
        raise ArchiveNotProved(f"{path} is not a proved archive: {error} Nothing was deleted.") from error


def archive_paths(archive_directory: Path) -> list[Path]:
    """Files that bear an archive's name, oldest first."""
    found: list[tuple[str, int, Path]] = []
    try:
        with os.scandir(archive_directory) as entries:
            for entry in entries:
                match = ARCHIVE_NAME.fullmatch(entry.name)
                if match is not None and entry.is_file(follow_symlinks=False):
                    found.append((match[1], int(match[2] or 1), archive_directory / entry.name))
    except FileNotFoundError:
        return []
    return [path for _, _, path in sorted(found)]


def has_partials(archive_directory: Path) -> bool:
    """Whether interrupted archiving left something behind."""
    return bool(_partials(archive_directory))


def remove_partials(archive_directory: Path) -> list[Path]:
    """Remove what interrupted archiving left behind; returns what was removed. Raises OSError."""
    partials = _partials(archive_directory)
    for path in partials:
        path.unlink(missing_ok=True)
    if partials:
        sync_directory(archive_directory)
    return partials


def _partials(archive_directory: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(archive_directory))
    except FileNotFoundError:
        return []
    return [archive_directory / name for name in names if _PARTIAL_NAME.fullmatch(name)]
