"""`skicyclerun status`. Imports neither a source nor the image stack."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import place_options, settings_of
from skicyclerun.errors import NoState, UsageError
from skicyclerun.progress.terminal_text import columns
from skicyclerun.run.lock import current_holder
from skicyclerun.run.report import RunReport, as_json, as_text, build_report, stage_as_text
from skicyclerun.settings.later_stages import output_folders
from skicyclerun.settings.missing_folders import check_folders
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import check_stage_name, parse_stages
from skicyclerun.state import runs
from skicyclerun.state.store import Store


@click.command(epilog=exit_codes.HELP)
@place_options
@click.option("--photos", "with_photos", is_flag=True, help="Name every photo, not only those not exported.")
@click.option("--stage", "stage", metavar="NAME", help="The details of one stage after the export.")
@click.option("--run", "run_id", type=int, metavar="N", help="Another run than the last.")
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def status(
    *,
    lib_root: Path | None,
    config_file: Path | None,
    with_photos: bool,
    stage: str | None,
    run_id: int | None,
    json_wanted: bool,
) -> int:
    """Report on the last run, album by album: what is done, what failed and why, what is left."""
    settings = settings_of(config_file, lib_root, only=())
    if stage is not None:
        check_stage_name(stage, settings.command_stages)
    report = anyio.run(_report, settings, run_id, with_photos)
    if json_wanted:
        click.echo(json.dumps(as_json(report), indent=2, ensure_ascii=False))
    elif stage is not None and stage != "export":
        try:
            click.echo(stage_as_text(report, stage, width=columns(sys.stdout)), nl=False)
        except LookupError:
            parse_stages(stage, settings.own_stages())  # says so of one that is not provided
            raise UsageError(
                f"{stage} has not run here.", next_step=f"`skicyclerun run --stages {stage}` runs it."
            ) from None
    else:
        click.echo(as_text(report, width=columns(sys.stdout)), nl=False)
    return exit_codes.OK


async def _report(settings: Settings, run_id: int | None, with_photos: bool) -> RunReport:
    state_db = settings.paths.state_db
    check_folders(settings, ())  # a disk that is not connected is not a folder where nothing was exported yet
    async with await Store.open_to_read(state_db) as store:
        if run_id is None:
            run = await runs.latest(store)
        else:
            try:
                run = await runs.get(store, run_id)
            except LookupError:
                known = ", ".join(str(each.id) for each in (await runs.listing(store))[-10:]) or "none"
                raise UsageError(f"There is no run {run_id}. The last ones are: {known}.") from None
        if run is None:
            raise NoState(state_db)
        holder = current_holder(state_db.parent / "run.lock") or ""
        latest = await runs.latest(store)
        running = holder if latest is not None and latest.id == run.id else ""
        return await build_report(
            store,
            run,
            settings.paths.apple_photos_export,
            stage_folders=output_folders(settings),
            remote=settings.cleanup.remote,
            with_photos=with_photos,
            running=running,
        )
