"""Which archives may go, here and in the second place together, and their removal: `archive prune`.

The order of writes, archive by archive, oldest first:

    entered      the row says that its removal has begun
    gone there   the archive, then its record: a place that refuses has then taken nothing from here
    gone here    folder synced
    pruned       the row

What was begun and stopped anywhere is finished by the next prune, or the next push. What was not begun is as it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from skicyclerun.actors.archive_places import PlacedArchive, Places
from skicyclerun.archive.advance import Progress
from skicyclerun.archive.listing import ListedArchive
from skicyclerun.archive.prove import verify_archive
from skicyclerun.archive.remote import Remote, problems_there, record_of, remove_copy
from skicyclerun.archive.retention import PrunePlan, plan_prune, prune_archives
from skicyclerun.archive.unwaited_thread import in_unwaited_thread
from skicyclerun.errors import RemoteError, RemoteUnreachable, StorageError
from skicyclerun.files.atomic_files import sync_directory
from skicyclerun.files.fault_points import fault_point
from skicyclerun.state import archive_copies
from skicyclerun.state.archive_copies import CopyRow
from skicyclerun.state.machine import CopyTrigger
from skicyclerun.state.store import Store
from skicyclerun.wording import counted

log = logging.getLogger(__name__)

_AGAIN = "`skicyclerun archive prune` goes on with it."


def plan_both(
    places: Places,
    *,
    retention_days: int | None,
    keep_last: int | None,
    now: datetime,
    full: bool = False,
    progress: Callable[[str], Progress | None] = lambda _: None,
) -> PrunePlan:
    """`plan_prune` over both places. Raises UsageError, and RemoteError where the second place does not answer.

    With a second place an archive may go only once its copy there is confirmed; until then it is left alone, and does
    not count among the newest. What lies there and is not in our database is another machine's, and none of it.

    Before any other goes, every byte of the newest one that is kept is read: here, or from there where it lies there
    alone. What would have to be downloaded is read only where that is asked for (`full`); otherwise it must be the
    very version that was read back when it was copied, with its record, directory and manifest. `progress` is asked
    for the name of what is read.
    """
    if places.problem is not None:
        raise places.problem
    remote = places.remote
    if remote is None:
        return plan_prune(places.folder, retention_days=retention_days, keep_last=keep_last, now=now, progress=progress)
    ours = [
        one
        for one in places.archives
        if (one.copy is not None or one.here) and not (one.copy is not None and one.copy.prune_begun)
    ]
    by_path = {one.listed.path: one for one in ours}
    return plan_prune(
        places.folder,
        retention_days=retention_days,
        keep_last=keep_last,
        now=now,
        archives=[one.listed for one in ours],
        why_not=lambda listed: _why_not(remote, by_path[listed.path], looked=places.looked),
        unproved=lambda listed: _unproved(remote, by_path[listed.path], full=full, progress=progress(listed.name)),
    )


def _why_not(remote: Remote, one: PlacedArchive, *, looked: bool) -> str:
    """Why an archive neither counts among the newest nor goes; empty where it does."""
    copy = one.copy
    if copy is None or not one.confirmed:
        if not one.here:
            return one.in_words(looked=looked)
        return one.listed.problem or "it is not copied yet; `skicyclerun archive push` does that"
    if one.there is None:
        return one.in_words(looked=looked) + ("; `skicyclerun archive push` copies it again" if one.here else "")
    if copy.damage:
        return f"its copy is damaged: {copy.damage}"
    if one.here and one.listed.size != copy.size:
        return "what lies here is not what was copied"
    problems = problems_of_copy(remote, one, full=False)
    return f"its copy: {problems[0]}" if problems else ""


def _unproved(remote: Remote, one: PlacedArchive, *, full: bool, progress: Progress | None) -> str:
    """Why an archive that is to be kept is not proved to be whole, in either place; empty where it is."""
    damaged = ""
    if one.here:
        problems = verify_archive(one.listed.path, progress=progress).problems
        if not problems:
            return ""
        damaged = f"it is damaged here: {problems[0]}"
    if remote.is_near or full:
        problems = tuple(problems_of_copy(remote, one, full=True, progress=progress))
        return f"its copy is damaged: {problems[0]}" if problems else ""
    return f"{damaged}; of its copy --full reads every byte" if damaged else ""


def problems_of_copy(
    remote: Remote, one: PlacedArchive, *, full: bool, progress: Progress | None = None
) -> Sequence[str]:
    """What is wrong with the copy elsewhere, one sentence each. Raises RemoteError."""
    record = one.there.record if one.there is not None else None
    version = one.copy.version if one.copy is not None else ""
    problems = list(problems_there(remote, one.name_there, record, version, full=full, progress=progress))
    if one.copy is not None and record is not None and record.sha256 != one.copy.sha256:
        problems.append("its record there names another SHA-256 than the database")
    if not full and one.copy is not None and one.copy.damage:
        problems.append(f"when it was read again: {one.copy.damage}")
    return problems


# ── removing ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def prune_both(store: Store, places: Places, plan: PrunePlan) -> Sequence[ListedArchive]:
    """Remove what the plan says, in both places; returns what was removed. Raises StorageError, RemoteError, which
    say how far it came."""
    remote = places.remote
    if remote is None:
        prune_archives(plan)
        return plan.remove
    going = {one.path for one in plan.remove}
    rows = [one.copy for one in places.archives if one.listed.path in going and one.copy is not None]
    await _remove_all(store, remote, places.folder, rows)
    return plan.remove


async def finish_prunes(store: Store, remote: Remote, folder: Path) -> list[str]:
    """Finish what was begun and stopped; the names of those archives. Raises RemoteError, StorageError.

    Nothing is asked of the place where nothing was begun.
    """
    begun = [row for row in await archive_copies.of_remote(store, remote.url) if row.prune_begun]
    if begun:
        known = await archive_copies.identity(store, remote.url)
        await in_unwaited_thread(partial(remote.identify, known, make=False))
        await _remove_all(store, remote, folder, begun)
    return [row.file for row in begun]


async def _remove_all(store: Store, remote: Remote, folder: Path, rows: Sequence[CopyRow]) -> None:
    for number, row in enumerate(rows):
        before = f" {counted(number, 'archive')} {'was' if number == 1 else 'were'} removed before it."
        try:
            await _remove(store, remote, folder, row)
        except RemoteUnreachable as error:
            kept = f"{row.file} is still in {folder}." if (folder / row.file).exists() else ""
            raise RemoteError(
                f"{row.file} could not be removed: {error} {kept}{before}".replace("  ", " "), next_step=_AGAIN
            ) from error
        except RemoteError as error:
            raise RemoteError(
                f"{row.file} could not be removed from {remote.url}: {error}{before}",
                next_step=f"{error.next_step} {_AGAIN}".strip(),
            ) from error
        except OSError as error:
            raise StorageError(
                f"{folder / row.file} cannot be removed ({error.strerror or error}); its copy in {remote.url} was."
                f"{before}",
                next_step=_AGAIN,
            ) from error


async def _remove(store: Store, remote: Remote, folder: Path, row: CopyRow) -> None:
    """One archive, from both places and from the rows that count; safe to repeat after a stop anywhere.

    Raises RemoteError, OSError.
    """
    row = await archive_copies.begin_prune(store, row)
    fault_point("copy.prune_begun")
    try:
        await in_unwaited_thread(partial(remove_copy, remote, row.name, row.token, size=row.size, version=row.version))
    except RemoteUnreachable:
        raise  # whether it was removed is not known
    except RemoteError:
        if await in_unwaited_thread(partial(_as_it_was, remote, row)):
            await archive_copies.withdraw_prune(store, row)
        raise
    fault_point("copy.gone_there")
    await in_unwaited_thread(partial(_remove_here, folder, row))
    fault_point("copy.gone_here")
    await archive_copies.step(store, row, CopyTrigger.PRUNE)
    fault_point("copy.pruned")
    log.info("pruned %s, also in %s", row.file, remote.url)


def _as_it_was(remote: Remote, row: CopyRow) -> bool:
    """Whether a refused removal has removed nothing there."""
    try:
        file, record = remote.look(row.name), record_of(remote, row.name)
    except RemoteError:
        return False
    same = file is not None and (file.size, file.version) == (row.size, row.version)
    return same and record is not None and record.token == row.token


def _remove_here(folder: Path, row: CopyRow) -> None:
    """The archive that was copied; another one of its name stays."""
    path = folder / row.file
    try:
        if os.lstat(path).st_size != row.size:
            log.warning("%s is not the archive that was copied, and stays", path)
            return
    except FileNotFoundError:
        return
    path.unlink(missing_ok=True)
    sync_directory(folder)
