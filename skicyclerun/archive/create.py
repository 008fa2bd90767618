"""Writing an archive: one pass over the old outputs, straight into a ZIP beside its final name.

Nothing is copied first and nothing is deleted here. The ZIP is `pipeline_{timestamp}.zip.partial` until `prove.py` has
read every member back; only `publish.py` gives it its name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from skicyclerun.archive.background_sync import BackgroundSync
from skicyclerun.archive.callbacks import Progress, Stop
from skicyclerun.archive.disk_errors import storage_error
from skicyclerun.archive.hashing import HashingThreads
from skicyclerun.archive.manifest import Manifest, root_name
from skicyclerun.archive.member_writer import ArchiveWriter
from skicyclerun.archive.plan import ArchivePlan, check_apart
from skicyclerun.errors import ArchiveError
from skicyclerun.files.atomic_files import make_directories, sync_directory, sync_files
from skicyclerun.files.fault_points import fault_point

PARTIAL_SUFFIX: Final = ".partial"


@dataclass(frozen=True, slots=True)
class WrittenArchive:
    """A ZIP that is complete and durable, and not yet proved."""

    partial: Path
    manifest: Manifest
    size: int
    """Bytes of the ZIP."""
    differing_from_catalog: tuple[str, ...]
    """Members whose bytes are not those the catalog knows (edited after the export); archived as they are."""


def partial_path(archive_directory: Path, timestamp: str) -> Path:
    """Where the archive of this timestamp is written until it is proved."""
    return archive_directory / f"{root_name(timestamp)}.zip{PARTIAL_SUFFIX}"


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
    try:
        make_directories(archive_directory)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage_error(error, partial) from error
    try:
        try:
            with HashingThreads() as hashing, BackgroundSync(descriptor) as sync:
                writer = ArchiveWriter(plan, descriptor, partial, hashing, sync, progress, stop)
                manifest, size = writer.write(timestamp, archive_id, catalog or {}, created or datetime.now(UTC))
        finally:
            os.close(descriptor)
        sync_files([partial])
        sync_directory(archive_directory)
        fault_point("archive.written")
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise storage_error(error, partial) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    differing = tuple(
        member.path
        for member in manifest.members
        if member.catalog_sha256 is not None and member.catalog_sha256 != member.sha256
    )
    return WrittenArchive(partial, manifest, size, differing)
