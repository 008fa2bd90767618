"""`skicyclerun runs`. Imports neither a source nor the image stack."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import place_options, settings_of
from skicyclerun.errors import Cancelled, UsageError
from skicyclerun.run.lock import RunLock, current_holder
from skicyclerun.run.report import RUN_WORDS, run_as_json
from skicyclerun.settings.missing_folders import check_folders
from skicyclerun.settings.models import Settings
from skicyclerun.state import runs as run_rows
from skicyclerun.state.machine import RunStatus
from skicyclerun.state.pruning import Forgettable, forget, forgettable
from skicyclerun.state.runs import RunSummary
from skicyclerun.state.store import Store
from skicyclerun.wording import aligned, column_widths, counted, printable, seconds_in_words

#: A fortnight of nightly updates.
KEPT_RUNS: Final = 14
_HEADER = ("Run", "Albums", "Photos", "Failed", "Begun (UTC)", "Took", "What", "End")
_NUMBERS = 4


@click.group(invoke_without_command=True, epilog=exit_codes.HELP)
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
@click.pass_context
def runs(context: click.Context, *, lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """List the runs there were, the newest last: what each did, and how it ended.

    Albums are those that are done, of all of the run; photos those that it exported, also where they have been archived
    since; failed those that failed or are missing. `skicyclerun status --run N` reports on one.
    """
    if context.invoked_subcommand is not None:
        if lib_root is not None or config_file is not None or json_wanted:
            raise UsageError(f"The options of `runs {context.invoked_subcommand}` are typed behind it.")
        return exit_codes.OK
    settings = settings_of(config_file, lib_root, only=())
    found, running = anyio.run(_read, settings)
    if json_wanted:
        click.echo(
            json.dumps(
                [_as_json(each, _is_running(each, found, running)) for each in found], indent=2, ensure_ascii=False
            )
        )
    else:
        for line in _lines(found, running):
            click.echo(line)
    return exit_codes.OK


def _days(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """`90d` → 90."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})d", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a number of days like `90d`.")
    return int(match[1])


@runs.command("prune", epilog=exit_codes.HELP)
@place_options
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    default=KEPT_RUNS,
    show_default=True,
    help="Leave the newest N runs alone.",
)
@click.option(
    "--older-than", "days", callback=_days, metavar="90d", help="And all that ended in the last so many days."
)
@click.option("--dry-run", is_flag=True, help="Say what would be forgotten; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def prune(
    *,
    keep: int,
    days: int | None,
    dry_run: bool,
    yes: bool,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Forget which photos old runs exported, where nothing depends on it any more.

    Never forgotten: what speaks for a file on disk, what failed, is missing or was left out, and the figures of each
    run. No file is touched. The database gets no smaller; its room is used for what comes.
    """
    settings = settings_of(config_file, lib_root, only=())
    before = None
    if days is not None:
        before = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def looked() -> list[Forgettable]:
        async with await Store.open_to_read(settings.paths.state_db) as store:
            return await forgettable(store, keep=keep, ended_before=before)

    async def done() -> list[Forgettable]:
        async with await Store.open(settings.paths.state_db) as store:
            return await forget(store, keep=keep, ended_before=before)

    check_folders(settings, ())
    found = anyio.run(looked)
    if found and not dry_run:
        if not yes:
            _confirm(found)
        with RunLock(settings.lib_root, settings.paths.state_db.parent / "run.lock"):
            found = anyio.run(done)
    if json_wanted:
        per_run = [{"run": each.run_id, "photos": each.photos} for each in found]
        click.echo(json.dumps({"dry_run": dry_run, "forgotten": per_run}, indent=2))
    elif not found:
        click.echo("There is nothing to forget.")
    else:
        click.echo(f"{'Would forget' if dry_run else 'Forgotten:'} {_in_words(found)}.")
    return exit_codes.OK


def _in_words(found: list[Forgettable]) -> str:
    rows = sum(each.photos for each in found)
    return f"{counted(rows, 'photo row')} of {counted(len(found), 'run')}, {found[0].run_id} to {found[-1].run_id}"


def _confirm(found: list[Forgettable]) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "Nobody is there to say yes. Nothing was forgotten.", next_step="--yes forgets without asking."
        )
    if not click.confirm(f"Forget {_in_words(found)}?", err=True):
        raise Cancelled("Nothing was forgotten.")


async def _read(settings: Settings) -> tuple[list[RunSummary], bool]:
    """The runs, oldest first, and whether somebody works on the last one."""
    state_db = settings.paths.state_db
    check_folders(settings, ())
    async with await Store.open_to_read(state_db) as store:
        return await run_rows.summaries(store), current_holder(state_db.parent / "run.lock") is not None


def _is_running(summary: RunSummary, found: list[RunSummary], running: bool) -> bool:
    return running and summary is found[-1] and summary.run.status is RunStatus.ACTIVE


def _lines(found: list[RunSummary], running: bool) -> Iterator[str]:
    if not found:
        yield "There was no run yet."
        return
    rows = [_cells(each, _is_running(each, found, running)) for each in found]
    widths = column_widths(_HEADER, rows)
    for cells in (_HEADER, *rows):
        numbers, words = cells[:_NUMBERS], cells[_NUMBERS:]
        yield f"{aligned(numbers, widths[:_NUMBERS], left=0)}  {aligned(words, widths[_NUMBERS:], left=len(words))}"


def _cells(summary: RunSummary, is_running: bool) -> tuple[str, ...]:
    run = summary.run
    return (
        str(run.id),
        f"{summary.albums_done}/{summary.albums}",
        str(summary.exported),
        str(summary.failed + summary.missing),
        run.started_at[:16].replace("T", " "),
        seconds_in_words(_seconds(summary)) if run.ended_at else "",
        printable(_what(summary)),
        printable(_end(summary, is_running)),
    )


def _seconds(summary: RunSummary) -> float:
    """From its beginning to its last end; a run that was resumed has stood still in between."""
    begun, ended = (datetime.fromisoformat(each) for each in (summary.run.started_at, summary.run.ended_at or ""))
    return max(0.0, (ended - begun).total_seconds())


def _what(summary: RunSummary) -> str:
    run = summary.run
    if of := run.options.get("repairs_run"):
        return f"repairs run {of}"
    named = [stage for stage in run.stages if stage not in ("cleanup", "export")]
    if "export" in run.stages:
        named.insert(0, "update" if run.mode == "update" else "export")
    return ", ".join(named or run.stages)


def _end(summary: RunSummary, is_running: bool) -> str:
    run = summary.run
    if is_running:
        return "running"
    words = RUN_WORDS[run.status]
    if run.status is RunStatus.FINISHED and summary.has_failures:
        words += ", with failures"
    return f"{words} ({run.reason})" if run.reason else words


def _as_json(summary: RunSummary, is_running: bool) -> dict[str, Any]:
    return {
        "run": summary.run.id,
        **run_as_json(summary.run, running=is_running),
        "albums": summary.albums,
        "albums_done": summary.albums_done,
        "exported": summary.exported,
        "failed": summary.failed,
        "missing": summary.missing,
        "with_failures": summary.has_failures,
    }
