"""`skicyclerun archive`: list, verify and restore the archives of old outputs; prune and push are modules beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from skicyclerun.archive.archive_bytes import RangedBytes
from skicyclerun.archive.listing import ListedArchive, archive_named
from skicyclerun.archive.unwaited_thread import interruptibly
from skicyclerun.commands import exit_codes
from skicyclerun.commands.archive_places import (
    alone,
    both_places,
    bytes_read,
    json_option,
    local,
    print_json,
    say_out_of_reach,
    set_back,
)
from skicyclerun.commands.archive_prune import prune_command
from skicyclerun.commands.archive_push import push_command
from skicyclerun.commands.growing_line import growing_line
from skicyclerun.commands.options import NAMED_PATH, place_options, settings_of
from skicyclerun.errors import ArchiveUnknown, LockHeld, RemoteError, StateError, StorageError, UsageError
from skicyclerun.settings.models import Settings
from skicyclerun.wording import bytes_in_words, counted, printable

if TYPE_CHECKING:
    from skicyclerun.actors.archive_places import PlacedArchive, Places
    from skicyclerun.archive.remote import Remote
    from skicyclerun.state.archive_copies import CopyRow

#: So many archives that our database does not know are looked into for the folders that they were made of.
_LOOKED_INTO = 10


@click.group(epilog=exit_codes.HELP)
def archive() -> None:
    """Old outputs, put away by a fresh run: list, verify, restore, prune, and copies of them elsewhere: push.

    NAME is an archive's file name, with or without `pipeline_` and `.zip`; `latest`; or a path.
    """


@archive.command("list", epilog=exit_codes.HELP)
@place_options
@json_option
def list_command(*, lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """List the archives: date, size, files, when each was proved, and where each lies."""
    settings = settings_of(config_file, lib_root, only=())
    directory = settings.paths.archive
    places = both_places(settings)
    archives = places.archives
    remote = places.remote
    if json_wanted:
        document: dict[str, Any] = {"directory": str(directory), "remote": remote.url if remote else None}
        document["remote_problem"] = str(places.problem) if places.problem is not None else None
        rows = [_as_json(one, remote.url if remote else "") for one in archives]
        print_json(document | {"archives": rows})
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
        proved = local(one.proved) if one.proved else printable(f"no: {one.problem}" if one.problem else unproved)
        size = bytes_in_words(one.size)
        where = f"{proved:<16}  {printable(placed.in_words(looked=places.looked))}" if placed_too else proved
        click.echo(f"{one.name:<{width}}  {local(one.created):<16}  {size:>10}  {files:>8}  {where}")
    within = sum(one.out_of_reach is None for one in archives)
    click.echo(f"{counted(within, 'archive')} in {printable(places.in_words)}", err=True)
    say_out_of_reach(places.out_of_reach)
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
@json_option
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
    places = both_places(settings)
    chosen = (
        [one for one in places.archives if one.is_ours] if every else [_named(settings, places, name) for name in names]
    )
    results: list[_Verified] = []
    for placed in chosen:
        path = placed.listed.path
        if every and placed.copy is not None and placed.copy.prune_begun:
            continue  # no archive any more
        if placed.here:
            with growing_line(partial(bytes_read, f"Verifying {path.name}")) as advance:
                found = verify_archive(path, quick=quick, progress=advance)
            depth = "its directory and manifest are whole" if quick else "every byte is as it was archived"
            results.append(_Verified(path.name, str(path), depth, found.problems))
        elif (row := placed.out_of_reach) is not None:
            said = f"it lies only in {row.remote}, which is not `cleanup.remote` now; {set_back(row.remote)}"
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
        print_json({"quick": quick, "archives": rows, "not_of_this_database": strangers})
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
        with alone(settings, wanted=True):
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
@json_option
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
    line = growing_line(partial(bytes_read, f"Restoring {os.path.basename(title)}"))
    with alone(settings, wanted=to is None and not dry_run), line as advance:
        report = restore_archive(
            place,
            folder_homes(settings) if to is None else Path(os.path.abspath(to)),
            albums=albums,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=advance,
        )
    if json_wanted:
        print_json({"archive": title, **asdict(report)})
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
    places = both_places(settings)
    placed = _named(settings, places, name)
    if placed.here and not from_copy:
        return placed.listed.path
    row = placed.out_of_reach
    if row is not None:
        raise ArchiveUnknown(
            f"{placed.name} lies only in {row.remote}, which is not `cleanup.remote` now.",
            next_step=f"{set_back(row.remote, capital=True)}, and type this again.",
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


def _strangers_in_words(places: Places) -> str:
    names = [printable(one.name) for one in places.strangers]
    shown = f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
    of = "It is" if len(names) == 1 else "They are"
    return f"{counted(len(names), 'archive')} in {printable(places.in_words)} ({shown}). {of} not of this database."


archive.add_command(push_command)
archive.add_command(prune_command)
