"""Which archives may go: `archive prune`.

An archive is kept when any rule keeps it: it is younger than the retention, it is one of the newest N, or it is the
newest whole one. Files that are not ours, were never proved, or are damaged are left alone and named: a person decides.
Before anything goes, every byte of the newest one that is kept is read back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from skicyclerun.archive.advance import Progress
from skicyclerun.archive.listing import ListedArchive, list_archives
from skicyclerun.archive.prove import verify_archive
from skicyclerun.errors import StorageError, UsageError
from skicyclerun.files.atomic_files import sync_directory
from skicyclerun.files.fault_points import fault_point


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What pruning removes and what it keeps."""

    directory: Path
    remove: tuple[ListedArchive, ...]
    """Oldest first."""
    keep: tuple[ListedArchive, ...]
    left_alone: tuple[ListedArchive, ...]
    """Not ours, never proved, or damaged: never removed, and none of those that are kept."""
    why: Mapping[Path, str] = field(default_factory=dict)
    """Why each of these is left alone."""

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
    why_not: Callable[[ListedArchive], str] | None = None,
    unproved: Callable[[ListedArchive], str] | None = None,
    progress: Callable[[str], Progress | None] = lambda _: None,
) -> PrunePlan:
    """Decide, without touching anything.

    `retention_days` 0 or None: age alone keeps nothing. `keep_last` None: counted as 1. With neither of them set
    nothing is removed. `now` is aware. `archives` are those of the directory unless others are given, oldest first.
    `why_not` says of one why it neither counts nor goes, and `unproved`, asked of the newest that is kept as soon as
    any would go, why it is not whole; empty: it does, it is. `progress` is asked for the name of what is read back.
    Raises UsageError for numbers below what they can be.
    """
    if (retention_days is not None and retention_days < 0) or (keep_last is not None and keep_last < 1):
        raise UsageError("--days must be 0 or more, --keep-last 1 or more: the newest archive is always kept.")
    why_not = why_not or _why_not_here
    unproved = unproved or (lambda archive: _unproved_here(archive, progress(archive.name)))
    newest_first: list[ListedArchive] = []
    left_alone: dict[Path, str] = {}
    known = list_archives(archive_directory) if archives is None else archives
    for archive in reversed(known):
        problem = why_not(archive)
        if problem:
            left_alone[archive.path] = problem
        else:
            newest_first.append(archive)
    ruled = bool(retention_days) or keep_last is not None

    def kept(number: int, archive: ListedArchive) -> bool:
        young = bool(retention_days) and now - archive.created_at < timedelta(days=retention_days or 0)
        return not ruled or young or number < (keep_last or 1)

    while not all(kept(number, archive) for number, archive in enumerate(newest_first)):
        problem = unproved(newest_first[0])
        if not problem:
            break
        left_alone[newest_first.pop(0).path] = problem
    keep = [archive for number, archive in enumerate(newest_first) if kept(number, archive)]
    return PrunePlan(
        archive_directory,
        tuple(archive for archive in reversed(newest_first) if archive not in keep),
        tuple(reversed(keep)),
        tuple(archive for archive in known if archive.path in left_alone),
        left_alone,
    )


def _why_not_here(archive: ListedArchive) -> str:
    if archive.proved is None:
        return archive.problem or "it was never proved"
    return _first(verify_archive(archive.path, quick=True).problems)


def _unproved_here(archive: ListedArchive, progress: Progress | None) -> str:
    problem = _first(verify_archive(archive.path, progress=progress).problems)
    return f"it is damaged: {problem}" if problem else ""


def _first(problems: Sequence[str]) -> str:
    return problems[0] if problems else ""


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
        fault_point("retention.removed")
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
