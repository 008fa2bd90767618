"""`skicyclerun archive prune`: what goes, and what stays."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click

from skicyclerun.archive.listing import ListedArchive
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
)
from skicyclerun.commands.growing_line import growing_line
from skicyclerun.commands.options import place_options, settings_of
from skicyclerun.errors import Cancelled, UsageError
from skicyclerun.settings.models import Settings
from skicyclerun.wording import bytes_in_words, counted, printable

if TYPE_CHECKING:
    from skicyclerun.actors.archive_places import Places
    from skicyclerun.archive.retention import PrunePlan


@click.command("prune", epilog=exit_codes.HELP)
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the newest N, whatever their age.")
@click.option("--days", type=click.IntRange(min=0), metavar="N", help="Keep what is younger than N days.")
@click.option("--full", is_flag=True, help="Read every byte of the newest one kept, though it must be downloaded.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
@json_option
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
    with alone(settings, wanted=not dry_run):
        finished = [] if dry_run else _finished(settings)
        for file in finished:
            click.echo(f"{file}: its removal, which was stopped, is finished.", err=True)
        places = both_places(settings)
        say_out_of_reach(places.out_of_reach)
        with growing_line(partial(bytes_read, "Reading the newest one that stays")) as advance:
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
        print_json(document | {"left_alone": left_alone, "finished": finished})
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
        click.echo(f"{one.name}  {local(one.created)}  {bytes_in_words(one.size)}")
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
