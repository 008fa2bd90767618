"""`skicyclerun archive`: list, verify, restore and prune the archives of old outputs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from skicyclerun.archive.listing import ListedArchive, archive_named, list_archives
from skicyclerun.commands import exit_codes
from skicyclerun.commands.growing_line import growing_line
from skicyclerun.commands.options import NAMED_PATH, place_options, settings_of
from skicyclerun.errors import Cancelled, UsageError
from skicyclerun.run.lock import RunLock
from skicyclerun.settings.models import Settings
from skicyclerun.wording import bytes_in_words, counted, printable

_json_option = click.option("--json", "json_wanted", is_flag=True, help="For other programs.")


@click.group(epilog=exit_codes.HELP)
def archive() -> None:
    """Old outputs, put away by a fresh run: list, verify, restore, prune.

    NAME is an archive's file name, with or without `pipeline_` and `.zip`; `latest`; or a path.
    """


@archive.command("list", epilog=exit_codes.HELP)
@place_options
@_json_option
def list_command(*, lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """List the archives: date, size, files, when each was proved."""
    directory = settings_of(config_file, lib_root, only=()).paths.archive
    archives = list_archives(directory)
    if json_wanted:
        _print_json({"directory": str(directory), "archives": [_as_json(one) for one in archives]})
        return exit_codes.OK
    if not archives:
        click.echo(f"There are no archives in {printable(str(directory))}.", err=True)
        return exit_codes.OK
    width = max(len(one.name) for one in archives)
    click.echo(f"{'archive':<{width}}  {'date':<16}  {'size':>10}  {'files':>8}  proved")
    for one in archives:
        files = "?" if one.files is None else f"{one.files:,}"
        proved = _local(one.proved) if one.proved else printable(f"no: {one.problem}" if one.problem else "no")
        size = bytes_in_words(one.size)
        click.echo(f"{one.name:<{width}}  {_local(one.created):<16}  {size:>10}  {files:>8}  {proved}")
    click.echo(f"{counted(len(archives), 'archive')} in {printable(str(directory))}", err=True)
    return exit_codes.OK


def _as_json(one: ListedArchive) -> dict[str, Any]:
    return {"name": one.name, **asdict(one), "path": str(one.path)}


@archive.command("verify", epilog=exit_codes.HELP)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="Every archive there is.")
@click.option("--quick", is_flag=True, help="Only the directory and the manifest; not the photos' bytes.")
@place_options
@_json_option
def verify_command(
    *,
    names: tuple[str, ...],
    every: bool,
    quick: bool,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Read archives back and compare every byte with what was written; exit code 3 if something is wrong."""
    from skicyclerun.archive.prove import verify_archive

    directory = settings_of(config_file, lib_root, only=()).paths.archive
    if every == bool(names):
        raise UsageError("Name the archives to verify, or give --all.", next_step="`skicyclerun archive list`")
    paths = [one.path for one in list_archives(directory)] if every else [archive_named(directory, n) for n in names]
    results = []
    for path in paths:
        with growing_line(partial(_bytes_read, f"Verifying {path.name}")) as advance:
            results.append(verify_archive(path, quick=quick, progress=advance))
    if json_wanted:
        rows = [
            {"name": one.path.name, "path": str(one.path), "ok": one.ok, "problems": one.problems} for one in results
        ]
        _print_json({"quick": quick, "archives": rows})
    else:
        for one in results:
            if one.ok:
                depth = "its directory and manifest are whole" if quick else "every byte is as it was archived"
                click.echo(f"{one.path.name}: OK, {depth}")
            for problem in one.problems:
                click.echo(f"{one.path.name}: {printable(problem)}")
        if not results:
            click.echo(f"There are no archives in {printable(str(directory))}.", err=True)
    return exit_codes.OK if all(one.ok for one in results) else exit_codes.WITH_FAILURES


@archive.command("restore", epilog=exit_codes.HELP)
@click.argument("name")
@click.option("--album", "albums", multiple=True, metavar="FOLDER", help="Only this album's folder; may be repeated.")
@click.option(
    "--to",
    type=NAMED_PATH,
    metavar="DIR",
    help="Restore to DIR/albums, DIR/metadata …; otherwise to the folders the files came from.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there already and differ.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@place_options
@_json_option
def restore_command(
    *,
    name: str,
    albums: tuple[str, ...],
    to: Path | None,
    overwrite: bool,
    dry_run: bool,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Take files out of an archive again, each proved as it is written; never over a different file by itself."""
    from skicyclerun.actors.archive_job import folder_homes
    from skicyclerun.archive.restore import restore_archive, summary

    settings = settings_of(config_file, lib_root, only=())
    path = archive_named(settings.paths.archive, name)
    line = growing_line(partial(_bytes_read, f"Restoring {path.name}"))
    with _alone(settings, wanted=to is None and not dry_run), line as advance:
        report = restore_archive(
            path,
            folder_homes(settings) if to is None else Path(os.path.abspath(to)),
            albums=albums,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=advance,
        )
    if json_wanted:
        _print_json({"archive": str(path), **asdict(report)})
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


@archive.command("prune", epilog=exit_codes.HELP)
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the newest N, whatever their age.")
@click.option("--days", type=click.IntRange(min=0), metavar="N", help="Keep what is younger than N days.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
@_json_option
def prune_command(
    *,
    keep_last: int | None,
    days: int | None,
    dry_run: bool,
    yes: bool,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Remove old archives: those neither young enough nor among the newest N. The newest whole one always stays.

    Without --days, `cleanup.archive_retention_days` counts (0: no archive is too old); without --keep-last,
    `cleanup.keep_last`. What is damaged or was not made by skicyclerun is left alone.
    """
    from skicyclerun.archive.retention import plan_prune, prune_archives

    settings = settings_of(config_file, lib_root, only=("cleanup",))
    retention = settings.cleanup.archive_retention_days if days is None else days
    # A retention of 0 days in the settings must not mean that `prune` without options removes all but one.
    keep = keep_last if keep_last is not None else (settings.cleanup.keep_last if retention or days == 0 else None)
    with _alone(settings, wanted=not dry_run):
        plan = plan_prune(settings.paths.archive, retention_days=retention, keep_last=keep, now=datetime.now(UTC))
        for left in plan.left_alone:
            click.echo(f"Left alone: {left.name} ({printable(left.problem or 'not whole, or never proved')})", err=True)
        removed: list[str] = [str(one.path) for one in plan.remove]
        if not json_wanted:
            _say_plan(plan.remove, plan.freed_bytes, len(plan.keep), dry_run=dry_run, ruled=keep is not None)
        if plan.remove and not dry_run:
            if not yes:
                _confirm(len(plan.remove))
            removed = [str(path) for path in prune_archives(plan)]
    if json_wanted:
        _print_json({"dry_run": dry_run, "removed": removed, "kept": [one.name for one in plan.keep]})
    return exit_codes.OK


def _say_plan(remove: tuple[ListedArchive, ...], freed: int, kept: int, *, dry_run: bool, ruled: bool) -> None:
    for one in remove:
        click.echo(f"{one.name}  {_local(one.created)}  {bytes_in_words(one.size)}")
    verb = "would be removed" if dry_run else "to be removed"
    click.echo(f"{counted(len(remove), 'archive')} {verb} ({bytes_in_words(freed)}), {kept} kept.", err=True)
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
