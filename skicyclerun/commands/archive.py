"""`skicyclerun archive`: list, verify, restore and prune the archives of old outputs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from skicyclerun.archive.archive_bytes import RangedBytes
from skicyclerun.archive.interruptible import interruptibly
from skicyclerun.archive.listing import ListedArchive, archive_named
from skicyclerun.commands import exit_codes
from skicyclerun.commands.growing_line import growing_line
from skicyclerun.commands.options import NAMED_PATH, place_options, settings_of
from skicyclerun.errors import (
    ArchiveUnknown,
    Cancelled,
    LockHeld,
    NoState,
    RemoteError,
    StateError,
    StorageError,
    UsageError,
)
from skicyclerun.run.lock import RunLock
from skicyclerun.run.shutdown import Shutdown, listen
from skicyclerun.settings.models import Settings
from skicyclerun.wording import bytes_in_words, counted, printable

if TYPE_CHECKING:
    from skicyclerun.actors.archive_places import PlacedArchive, Places
    from skicyclerun.actors.archive_push import Pushed
    from skicyclerun.archive.remote import Remote
    from skicyclerun.archive.retention import PrunePlan
    from skicyclerun.state.archive_copies import CopyRow

#: So many archives that our database does not know are looked into for the folders that they were made of.
_LOOKED_INTO = 10

_json_option = click.option("--json", "json_wanted", is_flag=True, help="For other programs.")


@click.group(epilog=exit_codes.HELP)
def archive() -> None:
    """Old outputs, put away by a fresh run: list, verify, restore, prune, and copies of them elsewhere: push.

    NAME is an archive's file name, with or without `pipeline_` and `.zip`; `latest`; or a path.
    """


@archive.command("list", epilog=exit_codes.HELP)
@place_options
@_json_option
def list_command(*, lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """List the archives: date, size, files, when each was proved, and where each lies."""
    settings = settings_of(config_file, lib_root, only=())
    directory = settings.paths.archive
    places = _look_around(settings)
    archives = places.archives
    remote = places.remote
    if json_wanted:
        document: dict[str, Any] = {"directory": str(directory), "remote": remote.url if remote else None}
        document["remote_problem"] = str(places.problem) if places.problem is not None else None
        rows = [_as_json(one, remote.url if remote else "") for one in archives]
        _print_json(document | {"archives": rows})
        return exit_codes.OK
    if not archives:
        click.echo(f"There are no archives in {printable(places.in_words)}.", err=True)
        return exit_codes.OK
    placed_too = remote is not None or any(one.elsewhere for one in archives)
    width = max(len(one.name) for one in archives)
    head = f"{'archive':<{width}}  {'date':<16}  {'size':>10}  {'files':>8}  "
    click.echo(head + (f"{'proved':<16}  where" if placed_too else "proved"))
    for placed in archives:
        one = placed.listed
        files = "?" if one.files is None else f"{one.files:,}"
        unproved = "no" if placed.is_ours else "not known here"
        proved = _local(one.proved) if one.proved else printable(f"no: {one.problem}" if one.problem else unproved)
        size = bytes_in_words(one.size)
        where = f"{proved:<16}  {printable(placed.in_words(looked=places.looked))}" if placed_too else proved
        click.echo(f"{one.name:<{width}}  {_local(one.created):<16}  {size:>10}  {files:>8}  {where}")
    within = sum(one.out_of_reach is None for one in archives)
    click.echo(f"{counted(within, 'archive')} in {printable(places.in_words)}", err=True)
    _say_out_of_reach(places.out_of_reach)
    return exit_codes.OK


def _as_json(placed: PlacedArchive, remote: str) -> dict[str, Any]:
    one = placed.listed
    known = {"name": one.name, **asdict(one), "path": str(one.path)}
    known |= {"here": placed.here, "of_this_database": placed.is_ours, "copy": placed.as_json(remote)}
    places = [
        {"remote": row.remote, "name": row.name, "status": row.status.value, "copied_at": row.copied_at}
        for row in placed.elsewhere
    ]
    return known | {"copies_in_other_places": places}


@archive.command("verify", epilog=exit_codes.HELP)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="Every archive of this database, and every one in its folder.")
@click.option("--quick", is_flag=True, help="Only the directory and the manifest; not the photos' bytes.")
@click.option("--full", is_flag=True, help="Every byte also of the copies elsewhere, which are read from there.")
@place_options
@_json_option
def verify_command(
    *,
    names: tuple[str, ...],
    every: bool,
    quick: bool,
    full: bool,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Read archives back and compare every byte with what was written; exit code 3 if something is wrong.

    Of a copy elsewhere: that it is the one that was read back from there, its size, directory and manifest.
    """
    from skicyclerun.archive.prove import verify_archive

    settings = settings_of(config_file, lib_root, only=())
    if every == bool(names):
        raise UsageError("Name the archives to verify, or give --all.", next_step="`skicyclerun archive list`")
    if quick and full:
        raise UsageError("--quick and --full contradict each other.")
    places = _look_around(settings)
    chosen = (
        [one for one in places.archives if one.is_ours] if every else [_named(settings, places, name) for name in names]
    )
    results: list[_Verified] = []
    for placed in chosen:
        path = placed.listed.path
        if every and placed.copy is not None and placed.copy.prune_begun:
            continue  # no archive any more
        if placed.here:
            with growing_line(partial(_bytes_read, f"Verifying {path.name}")) as advance:
                found = verify_archive(path, quick=quick, progress=advance)
            depth = "its directory and manifest are whole" if quick else "every byte is as it was archived"
            results.append(_Verified(path.name, str(path), depth, found.problems))
        elif (row := placed.out_of_reach) is not None:
            said = f"it lies only in {row.remote}, which is not `cleanup.remote` now; {_set_back(row.remote)}"
            results.append(_Verified(path.name, f"{row.remote}/{row.name}", "", (said,)))
            continue
        elif not placed.name_there:
            results.append(_Verified(path.name, str(path), "", (placed.in_words(looked=places.looked),)))
        if placed.name_there and places.remote is not None:
            results.append(_copy_verified(places, places.remote, placed, full=full))
    _remember(settings, places, results)
    if json_wanted:
        rows = [
            {"name": one.name, "path": one.place, "ok": not one.problems, "problems": one.problems} for one in results
        ]
        strangers = [one.name for one in places.strangers] if every else []
        _print_json({"quick": quick, "archives": rows, "not_of_this_database": strangers})
    else:
        for one in results:
            if not one.problems:
                click.echo(f"{one.name}: OK, {one.depth}")
            for problem in one.problems:
                click.echo(f"{one.name}: {printable(problem)}")
        if every and places.strangers:
            click.echo(f"Not verified: {_strangers_in_words(places)} Name them to verify them.", err=True)
        elif not results:
            click.echo(f"There are no archives in {printable(places.in_words)}.", err=True)
    return exit_codes.WITH_FAILURES if any(one.problems for one in results) else exit_codes.OK


@dataclass(frozen=True, slots=True)
class _Verified:
    name: str
    place: str
    depth: str
    problems: Sequence[str]
    read_there: PlacedArchive | None = None
    """Every byte of its copy was read."""


def _remember(settings: Settings, places: Places, results: Sequence[_Verified]) -> None:
    """Enter what reading copies again showed, where that is news: damage, or that one written anew has the same bytes.

    Pruning goes by it. Where a run works meanwhile nothing is entered, and that is said.
    """
    from skicyclerun.state import archive_copies
    from skicyclerun.state.store import Store

    news: list[tuple[CopyRow, str, str | None]] = []
    for one in results:
        placed = one.read_there
        if placed is None or placed.copy is None or placed.there is None or not placed.confirmed:
            continue
        damage = "; ".join(one.problems[:3])
        version = None if damage or places.remote is None else placed.there.file.version
        if (damage, version or placed.copy.version) != (placed.copy.damage, placed.copy.version):
            news.append((placed.copy, damage, version))
    if not news:
        return

    async def enter() -> None:
        async with await Store.open(settings.paths.state_db) as store:
            for copy, damage, version in news:
                await archive_copies.read_again(store, copy, damage=damage, version=version)

    try:
        with _alone(settings, wanted=True):
            anyio.run(enter)
    except (LockHeld, StorageError, StateError) as error:
        click.echo(f"{printable(str(error))} What was found is not remembered for `archive prune`.", err=True)


def _copy_verified(places: Places, remote: Remote, placed: PlacedArchive, *, full: bool) -> _Verified:
    from skicyclerun.actors.archive_places import NOT_OURS
    from skicyclerun.actors.archive_prune import problems_of_copy

    place = f"{remote.url}/{placed.name_there}"
    try:
        if places.problem is not None:
            raise places.problem
        problems = interruptibly(partial(problems_of_copy, remote, placed, full=full))
        answered = True
    except RemoteError as error:
        problems, answered = [str(error)], False
    depth = "every byte is as it was archived" if full else "it is the one that was read back; its directory is whole"
    if not full and placed.copy is None:
        depth = "its size, directory and manifest are whole"
    if not placed.is_ours:
        depth += f"; it is {NOT_OURS}"
    return _Verified(printable(place), place, depth, problems, placed if answered and full else None)


@archive.command("restore", epilog=exit_codes.HELP)
@click.argument("name")
@click.option("--album", "albums", multiple=True, metavar="FOLDER", help="Only this album's folder; may be repeated.")
@click.option(
    "--to",
    type=NAMED_PATH,
    metavar="DIR",
    help="Restore to DIR/albums, DIR/metadata …; otherwise to the folders the files came from.",
)
@click.option("--from-copy", is_flag=True, help="Read the copy elsewhere, though the archive lies here too.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already and differ.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@place_options
@_json_option
def restore_command(
    *,
    name: str,
    albums: tuple[str, ...],
    to: Path | None,
    from_copy: bool,
    overwrite: bool,
    dry_run: bool,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Take files out of an archive again, each proved as it is written; never over a different file by itself.

    Of one that lies elsewhere only what is needed is fetched.
    """
    from skicyclerun.actors.archive_job import folder_homes
    from skicyclerun.archive.restore import restore_archive, summary

    settings = settings_of(config_file, lib_root, only=())
    place = _place_to_read(settings, name, from_copy=from_copy)
    title = place.title if isinstance(place, RangedBytes) else str(place)
    line = growing_line(partial(_bytes_read, f"Restoring {os.path.basename(title)}"))
    with _alone(settings, wanted=to is None and not dry_run), line as advance:
        report = restore_archive(
            place,
            folder_homes(settings) if to is None else Path(os.path.abspath(to)),
            albums=albums,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=advance,
        )
    if json_wanted:
        _print_json({"archive": title, **asdict(report)})
    else:
        if dry_run:
            for restored in report.restored:
                click.echo(printable(str(restored)))
        for refused in report.refused:
            click.echo(f"Not restored, a link that points elsewhere: {printable(str(refused))}")
        for damaged, problem in report.damaged:
            click.echo(f"Not restored, {printable(problem)}: {printable(str(damaged))}")
        click.echo(summary(report))
        if report.restored and not dry_run:
            click.echo(f"Into: {printable(os.path.commonpath([path.parent for path in report.restored]))}")
            if any(path.is_relative_to(settings.paths.apple_photos_export) for path in report.restored):
                click.echo(
                    "Restored files of an earlier export are not part of the current one: the database does not know "
                    "them, and `skicyclerun verify` names them as unknown_file.",
                    err=True,
                )
    return exit_codes.WITH_FAILURES if report.refused or report.damaged else exit_codes.OK


def _place_to_read(settings: Settings, name: str, *, from_copy: bool) -> Path | RangedBytes:
    """The archive here, else its copy elsewhere once it is known to be that. Raises ArchiveError, UsageError."""
    from skicyclerun.archive.remote import open_copy

    is_address = settings.cleanup.remote is not None and name.startswith(f"{settings.cleanup.remote}/")
    if not from_copy and not is_address and name != "latest":
        try:
            return archive_named(settings.paths.archive, name)
        except ArchiveUnknown:
            if os.sep in name:
                raise
    if from_copy and settings.cleanup.remote is None:
        raise UsageError("--from-copy reads the copy in `cleanup.remote`, which is not set.")
    places = _look_around(settings)
    placed = _named(settings, places, name)
    if placed.here and not from_copy:
        return placed.listed.path
    row = placed.out_of_reach
    if row is not None:
        raise ArchiveUnknown(
            f"{placed.name} lies only in {row.remote}, which is not `cleanup.remote` now.",
            next_step=f"{_set_back(row.remote, capital=True)}, and type this again.",
        )
    if places.problem is not None:
        raise places.problem
    if places.remote is None or placed.there is None:
        raise ArchiveUnknown(f"{placed.name} is not in {places.in_words}.", next_step="`skicyclerun archive list`")
    if not placed.is_ours:
        click.echo(
            f"{printable(placed.name)} is not of this database: another machine copied it to "
            f"{printable(places.remote.url)}, or this one did before its database was lost.",
            err=True,
        )
    copy = placed.copy
    size, sha256 = (copy.size, copy.sha256) if copy is not None else (None, None)
    return open_copy(places.remote, placed.there, size=size, sha256=sha256)


@archive.command("push", epilog=exit_codes.HELP)
@click.option("--new-place", is_flag=True, help="The folder is another one than before, and that is meant: a new disk.")
@place_options
@_json_option
def push_command(*, new_place: bool, lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """Copy every proved archive to `cleanup.remote` that is not there yet; exit code 3 if some are still pending.

    Each is read back from there and compared. With `cleanup.keep_local: false` it is removed here after that.
    No run can begin meanwhile (it ends with exit code 11). Ctrl-C stops it: what is not copied goes on with the next
    run or push.
    """
    from skicyclerun.actors.archive_push import stays_here
    from skicyclerun.archive.open_remote import open_remote

    settings = settings_of(config_file, lib_root, only=("cleanup",), writes=True)
    remote = open_remote(settings.cleanup)
    if remote is None:
        raise UsageError("No second place for archives is named.", next_step="Set `cleanup.remote`.")
    anyio.run(_check_place, settings)
    line = growing_line(partial(_bytes_read, f"Copying to {printable(remote.url)}"))
    with _alone(settings, wanted=True), line as advance:
        pushed, elsewhere, stopped = anyio.run(_push, settings, remote, advance, new_place)
    if json_wanted:
        rows = [{"file": row.file, "name": row.name, "size": row.size, "sha256": row.sha256} for row in pushed.copied]
        waiting = [{"file": file, "reason": reason} for file, reason in pushed.waiting]
        ended = [{"file": file, "reason": reason} for file, reason in pushed.ended]
        not_there = [{"file": file, "reason": reason} for file, reason in pushed.not_there]
        told = {"remote": remote.url, "copied": rows, "removed_here": pushed.removed_here, "pending": waiting}
        told |= {"ended": ended, "kept_here_until_confirmed": pushed.kept_here}
        told |= {"not_there": not_there, "remarks": pushed.remarks, "unfinished_removal": pushed.unfinished_removal}
        _print_json(told | {"only_in_other_places": [{"file": row.file, "remote": row.remote} for row in elsewhere]})
    else:
        for row in pushed.copied:
            called = "" if row.name == row.file else f" as {row.name}"
            size = bytes_in_words(row.size or 0)
            click.echo(f"{row.file}: copied to {printable(remote.url)}{called} ({size}), read back from there")
        for file in pushed.removed_here:
            click.echo(f"{file}: removed here")
        for remark in (*pushed.remarks, *filter(None, [pushed.unfinished_removal])):
            click.echo(printable(remark), err=True)
        for reason, files in _by_reason(pushed.waiting):
            click.echo(f"{', '.join(files)}: pending. {printable(reason)}")
        for file, reason in pushed.ended:
            click.echo(f"{file}: {printable(reason)}")
        for file, reason in pushed.not_there:
            click.echo(f"{file}: not there. {printable(reason)}")
        if pushed.kept_here:
            click.echo(printable(stays_here(remote.url, len(pushed.kept_here))), err=True)
        _say_out_of_reach(elsewhere)
        if not (pushed.copied or pushed.waiting or pushed.not_there or elsewhere or stopped):
            click.echo(f"Every archive is in {printable(remote.url)}.", err=True)
    undone = pushed.waiting or pushed.not_there or pushed.unfinished_removal
    return stopped or (exit_codes.WITH_FAILURES if undone else exit_codes.OK)


def _by_reason(waiting: Sequence[tuple[str, str]]) -> Sequence[tuple[str, list[str]]]:
    """Each reason once, with the files that it holds back."""
    reasons: dict[str, list[str]] = {}
    for file, reason in waiting:
        reasons.setdefault(reason, []).append(file)
    return list(reasons.items())


async def _push(
    settings: Settings, remote: Remote, advance: Callable[[int, int], None] | None, new_place: bool
) -> tuple[Pushed, list[CopyRow], int | None]:
    """What came of it, what lies in places that are no longer configured alone, and the exit code of a signal that
    ended it early."""
    from skicyclerun.actors.archive_places import out_of_reach
    from skicyclerun.actors.archive_prune import finish_prunes
    from skicyclerun.actors.archive_push import ArchivePush, Pushed
    from skicyclerun.state.store import Store

    def said(event: object) -> None:
        return  # The command says it at its end.

    shown = None if advance is None else lambda _file, done, total: advance(done, total)
    shutdown = Shutdown()
    pushed = Pushed()
    elsewhere: list[CopyRow] = []
    async with await Store.open(settings.paths.state_db) as store, anyio.create_task_group() as listening:
        push = ArchivePush(
            store,
            remote,
            settings.paths.archive,
            keep_local=settings.cleanup.keep_local,
            new_place=new_place,
            stopping=lambda: shutdown.draining,
            say=said,
            advance=shown,
        )
        words = "Stopping. What is not copied stays pending; once more to stop at once."
        say = partial(click.echo, words, err=True)
        await listening.start(partial(listen, shutdown, listening.cancel_scope.cancel, lambda _: say()))
        not_there = await push.enter_all()
        finished, unfinished = [], ""
        try:
            finished = await finish_prunes(store, remote, settings.paths.archive)
        except (RemoteError, StorageError) as error:  # what is to be copied is copied all the same
            unfinished = f"{error} {error.next_step}".rstrip()
        pushed = await push.push()
        pushed.not_there, pushed.unfinished_removal = not_there, unfinished
        pushed.remarks[:0] = [f"{file}: its removal, which was stopped, is finished." for file in finished]
        elsewhere = await out_of_reach(store, settings.paths.archive, remote.url)
        listening.cancel_scope.cancel()
    return pushed, elsewhere, shutdown.exit_code


async def _check_place(settings: Settings) -> None:
    """Refuse what a run over the source of the newest one would refuse. Raises ConfigError."""
    from skicyclerun.settings.load import check_archive_place
    from skicyclerun.state import runs
    from skicyclerun.state.store import Store

    try:
        async with await Store.open_to_read(settings.paths.state_db) as store:
            latest = await runs.latest(store)
            check_archive_place(settings, latest.source_folder if latest is not None else None)
    except NoState:
        check_archive_place(settings, None)


@archive.command("prune", epilog=exit_codes.HELP)
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the newest N, whatever their age.")
@click.option("--days", type=click.IntRange(min=0), metavar="N", help="Keep what is younger than N days.")
@click.option("--full", is_flag=True, help="Read every byte of the newest one kept, though it must be downloaded.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
@_json_option
def prune_command(
    *,
    keep_last: int | None,
    days: int | None,
    full: bool,
    dry_run: bool,
    yes: bool,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Remove old archives, here and elsewhere: those neither young enough nor among the newest N. The newest whole
    one always stays, and with `cleanup.remote` each whose copy there is not confirmed. Before any goes, every byte of
    the newest one that stays is read back; one that lies in a bucket alone is downloaded for that only with --full.

    Without --days, `cleanup.archive_retention_days` counts (0: no archive is too old); without --keep-last,
    `cleanup.keep_last`. What is damaged or was not made by skicyclerun is left alone.
    """
    settings = settings_of(config_file, lib_root, only=("cleanup",), writes=True)
    retention = settings.cleanup.archive_retention_days if days is None else days
    # A retention of 0 days in the settings must not mean that `prune` without options removes all but one.
    keep = keep_last if keep_last is not None else (settings.cleanup.keep_last if retention or days == 0 else None)
    with _alone(settings, wanted=not dry_run):
        finished = [] if dry_run else _finished(settings)
        for file in finished:
            click.echo(f"{file}: its removal, which was stopped, is finished.", err=True)
        places = _look_around(settings)
        _say_out_of_reach(places.out_of_reach)
        with growing_line(partial(_bytes_read, "Reading the newest one that stays")) as advance:
            plan = interruptibly(partial(_prune_plan, places, retention, keep, full, advance))
        for left in plan.left_alone:
            click.echo(f"Left alone: {left.name} ({printable(plan.why[left.path])})", err=True)
        if not json_wanted:
            _say_plan(plan, dry_run=dry_run, ruled=keep is not None)
        if plan.remove and not dry_run:
            if not yes:
                _confirm(len(plan.remove))
            _pruned(settings, places, plan)
    if json_wanted:
        removed = [_where(places, one) for one in plan.remove]
        left_alone = [{"name": one.name, "reason": plan.why[one.path]} for one in plan.left_alone]
        document = {"dry_run": dry_run, "removed": removed, "kept": [one.name for one in plan.keep]}
        _print_json(document | {"left_alone": left_alone, "finished": finished})
    return exit_codes.OK


def _where(places: Places, listed: ListedArchive) -> str:
    """Its path, or where it lay alone."""
    placed = next((one for one in places.archives if one.listed is listed), None)
    if placed is None or placed.here or places.remote is None:
        return str(listed.path)
    return f"{places.remote.url}/{placed.name_there}"


def _prune_plan(
    places: Places, retention: int | None, keep: int | None, full: bool, advance: Callable[[int, int], None] | None
) -> PrunePlan:
    from skicyclerun.actors.archive_prune import plan_both

    return plan_both(
        places,
        retention_days=retention,
        keep_last=keep,
        now=datetime.now(UTC),
        full=full,
        progress=lambda _: advance,
    )


def _finished(settings: Settings) -> list[str]:
    """Removals that were begun and stopped, which are finished first; the names of the archives."""
    from skicyclerun.actors.archive_prune import finish_prunes
    from skicyclerun.archive.open_remote import open_remote
    from skicyclerun.state.store import Store

    remote = open_remote(settings.cleanup)
    if remote is None or not settings.paths.state_db.exists():
        return []

    async def finish() -> list[str]:
        async with await Store.open(settings.paths.state_db) as store:
            return await finish_prunes(store, remote, settings.paths.archive)

    return anyio.run(finish)


def _pruned(settings: Settings, places: Places, plan: PrunePlan) -> None:
    from skicyclerun.actors.archive_prune import prune_both
    from skicyclerun.archive.retention import prune_archives
    from skicyclerun.state.store import Store

    if places.remote is None:
        prune_archives(plan)
        return

    async def prune() -> None:
        async with await Store.open(settings.paths.state_db) as store:
            await prune_both(store, places, plan)

    anyio.run(prune)


def _say_plan(plan: PrunePlan, *, dry_run: bool, ruled: bool) -> None:
    for one in plan.remove:
        click.echo(f"{one.name}  {_local(one.created)}  {bytes_in_words(one.size)}")
    verb = "would be removed" if dry_run else "to be removed"
    left = f", {len(plan.left_alone)} left alone" if plan.left_alone else ""
    freed = bytes_in_words(plan.freed_bytes)
    click.echo(f"{counted(len(plan.remove), 'archive')} {verb} ({freed}), {len(plan.keep)} kept{left}.", err=True)
    if not ruled:
        click.echo(
            "No rule says that an archive is too old: give --days or --keep-last, "
            "or set `cleanup.archive_retention_days`.",
            err=True,
        )


def _confirm(count: int) -> None:
    if not _somebody_is_there():
        raise UsageError("Nobody is there to say yes. Nothing was removed.", next_step="--yes removes without asking.")
    if not click.confirm(f"Remove {counted(count, 'archive')} for good?", err=True):
        raise Cancelled("Nothing was removed.")


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


# ── shared ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look_around(settings: Settings) -> Places:
    """Both places, and what our database knows of them and of others, where there is a database."""
    from skicyclerun.actors.archive_places import look_around
    from skicyclerun.archive.open_remote import open_remote
    from skicyclerun.state.store import Store

    async def look() -> Places:
        remote = open_remote(settings.cleanup)
        try:
            async with await Store.open_to_read(settings.paths.state_db) as store:
                return await look_around(settings, store, remote)
        except NoState:
            pass
        except StateError as error:  # what lies where can be told without it, and then all the more
            click.echo(f"{printable(str(error))} Which copies are ours is not known.", err=True)
        return await look_around(settings, None, remote)

    places = anyio.run(look)
    if places.problem is not None:
        click.echo(f"{printable(str(places.problem))} What is said of it is what the database knows.", err=True)
    return places


def _named(settings: Settings, places: Places, name: str) -> PlacedArchive:
    """The archive that a person means; says so where `latest` is not the newest of all that lie there."""
    from skicyclerun.actors.archive_job import folder_homes
    from skicyclerun.actors.archive_places import PlacedArchive, made_of

    if os.sep in name and (places.remote is None or not name.startswith(f"{places.remote.url}/")):
        return PlacedArchive(ListedArchive(archive_named(places.folder, name), 0, ""), here=True)
    try:
        placed = places.named(name)
    except ArchiveUnknown as error:
        if name == "latest" and places.remote is not None and places.looked:
            homes = folder_homes(settings).values()
            own = made_of(places.remote, places.strangers[-_LOOKED_INTO:], homes)
            if own:
                error.next_step = f"Of the folders of this lib_root: {', '.join(own)}. Name the one that is meant."
        raise
    if name == "latest" and places.newer_strangers(placed):
        shown = ", ".join(printable(one.name) for one in places.newer_strangers(placed)[-3:])
        click.echo(f"The latest of this database is {placed.name}. Newer, but not of it: {shown}.", err=True)
    return placed


def _set_back(remote: str, *, capital: bool = False) -> str:
    return f"{'S' if capital else 's'}et `cleanup.remote` to {printable(remote)} again"


def _say_out_of_reach(rows: Iterable[CopyRow]) -> None:
    """One line for each place that is no longer the configured one and holds archives that lie nowhere else."""
    by_place: dict[str, list[str]] = {}
    for row in rows:
        by_place.setdefault(row.remote, []).append(row.file)
    for remote, names in by_place.items():
        lie = "lies" if len(names) == 1 else "lie"
        click.echo(
            f"{counted(len(names), 'archive')} {lie} only in {printable(remote)}, which is not `cleanup.remote` now "
            f"({', '.join(names[:3])}{' …' if len(names) > 3 else ''}). To reach them, {_set_back(remote)}.",
            err=True,
        )


def _strangers_in_words(places: Places) -> str:
    names = [printable(one.name) for one in places.strangers]
    shown = f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
    of = "It is" if len(names) == 1 else "They are"
    return f"{counted(len(names), 'archive')} in {printable(places.in_words)} ({shown}). {of} not of this database."


@contextmanager
def _alone(settings: Settings, *, wanted: bool) -> Iterator[None]:
    """Hold the run lock, so that no run archives or cleans meanwhile."""
    if not wanted:
        yield
        return
    with RunLock(settings.lib_root, settings.paths.state_db.parent / "run.lock"):
        yield


def _bytes_read(doing: str, done: int, total: int) -> str:
    return f"{doing}: {100 * done // total if total else 100:3d} % of {bytes_in_words(total)} "


def _local(moment: str) -> str:
    """ISO 8601 → local date and minute, for people."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def _print_json(document: object) -> None:
    # Names on disk may be no UTF-8; ASCII escapes carry them, `surrogateescape` and all.
    click.echo(json.dumps(document, indent=2, default=str))
