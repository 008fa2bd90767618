"""Which archives may go: `archive prune`.

An archive is kept when any rule keeps it: it is younger than the retention, it is one of the newest N, or it is the
newest whole one. Files that are not ours, were never proved, or are damaged are left alone and named: a person decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from skicyclerun.archive.listing import ListedArchive, list_archives
from skicyclerun.archive.prove import verify_archive
from skicyclerun.errors import StorageError, UsageError
from skicyclerun.files.atomic_files import sync_directory


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What pruning removes and what it keeps."""

    directory: Path
    remove: tuple[ListedArchive, ...]
    """Oldest first."""
    keep: tuple[ListedArchive, ...]
    left_alone: tuple[ListedArchive, ...]
    """Not ours, never proved, or damaged: never removed."""

    @property
    def freed_bytes(self) -> int:
        return sum(archive.size for archive in self.remove)


def plan_prune(
    archive_directory: Path,
    *,
    retention_days: int | None,
    keep_last: int | None,
    now: datetime,
    archives: Sequence[ListedArchive] | None = None,
    whole: Callable[[ListedArchive], bool] | None = None,
) -> PrunePlan:
    """Decide, without touching anything.

    `retention_days` 0 or None: age alone keeps nothing. `keep_last` None: counted as 1. With neither of them set
    nothing is removed. `now` is aware. `archives` are those of the directory unless others are given, oldest first, and
    `whole` says of one that it may count, and go.  Raises UsageError for numbers below what they can be.
    """
    if (retention_days is not None and retention_days < 0) or (keep_last is not None and keep_last < 1):
        raise UsageError("--days must be 0 or more, --keep-last 1 or more: the newest archive is always kept.")
    newest_first: list[ListedArchive] = []
    left_alone: list[ListedArchive] = []
    counts = whole or _whole_here
    for archive in reversed(list_archives(archive_directory) if archives is None else archives):
        (newest_first if counts(archive) else left_alone).append(archive)
    keep: list[ListedArchive] = []
    remove: list[ListedArchive] = []
    ruled = bool(retention_days) or keep_last is not None
    for number, archive in enumerate(newest_first):
        young = bool(retention_days) and now - archive.created_at < timedelta(days=retention_days or 0)
        (keep if not ruled or young or number < (keep_last or 1) else remove).append(archive)
    return PrunePlan(archive_directory, tuple(reversed(remove)), tuple(reversed(keep)), tuple(reversed(left_alone)))


def _whole_here(archive: ListedArchive) -> bool:
    return archive.proved is not None and verify_archive(archive.path, quick=True).ok


def prune_archives(plan: PrunePlan) -> Sequence[Path]:
    """Remove what the plan says, oldest first; returns what was removed.

    Raises StorageError at the first failure, or where the disk does not confirm that what was removed is gone.
    """
    removed: list[Path] = []
    for archive in plan.remove:
        try:
            archive.path.unlink(missing_ok=True)
        except OSError as error:
            with suppress(OSError):  # the first failure is the one to be told
                _sync(plan.directory, removed)
            raise StorageError(
                f"{archive.path} cannot be removed ({error.strerror or error}). "
                f"{_archives(len(removed))} removed before it."
            ) from error
        removed.append(archive.path)
    try:
        _sync(plan.directory, removed)
    except OSError as error:
        raise StorageError(
            f"{_archives(len(removed))} removed from {plan.directory}, but the disk did not confirm it "
            f"({error.strerror or error}). After a power cut they may be there again.",
            next_step="`skicyclerun archive list` shows what is there.",
        ) from error
    return removed


def _sync(directory: Path, removed: Sequence[Path]) -> None:
    if removed:
        sync_directory(directory)


def _archives(count: int) -> str:
    return f"{count} archive was" if count == 1 else f"{count} archives were"
