"""`skicyclerun status`. Imports neither a source nor the image stack."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import place_options, settings_of
from skicyclerun.errors import NoState, UsageError
from skicyclerun.progress.terminal_text import columns
from skicyclerun.run.report import RunReport, as_json, as_text, build_report, stage_as_text
from skicyclerun.settings.default_places import ReportPlaces, default_places
from skicyclerun.state import runs
from skicyclerun.state.reading import Queries, StateFile, result_of

if TYPE_CHECKING:
    from skicyclerun.settings.models import Settings


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
    report = _quick_report(config_file, lib_root, run_id, with_photos) if stage is None else None
    if report is None:
        settings = settings_of(config_file, lib_root, only=())
        report = _report(settings, stage, run_id, with_photos)
    if json_wanted:
        click.echo(json.dumps(as_json(report), indent=2, ensure_ascii=False))
    elif stage is not None and stage != "export":
        try:
            click.echo(stage_as_text(report, stage, width=columns(sys.stdout)), nl=False)
        except LookupError:
            from skicyclerun.stages.registry import parse_stages

            parse_stages(stage, settings.own_stages())  # says so of one that is not provided
            raise UsageError(
                f"{stage} has not run here.", next_step=f"`skicyclerun run --stages {stage}` runs it."
            ) from None
    else:
        click.echo(as_text(report, width=columns(sys.stdout)), nl=False)
    return exit_codes.OK


def _quick_report(
    config_file: Path | None, lib_root: Path | None, run_id: int | None, with_photos: bool
) -> RunReport | None:
    """The report where neither the configuration nor the database needs more than to be read; else None."""
    places = default_places(config_file, lib_root)
    state = StateFile.opened(places.state_db) if places is not None else None
    if places is None or state is None:
        return None
    with state:
        return result_of(_report_from(state, places, run_id, with_photos))


def _report(settings: Settings, stage: str | None, run_id: int | None, with_photos: bool) -> RunReport:
    from skicyclerun.settings.later_stages import output_folders
    from skicyclerun.settings.missing_folders import check_folders
    from skicyclerun.stages.registry import check_stage_name

    if stage is not None:
        check_stage_name(stage, settings.command_stages)
    paths = settings.paths
    places = ReportPlaces(paths.state_db, paths.apple_photos_export, output_folders(settings), settings.cleanup.remote)
    check_folders(settings, ())  # a disk that is not connected is not a folder where nothing was exported yet
    if (state := StateFile.opened(places.state_db)) is not None:
        with state:
            return result_of(_report_from(state, places, run_id, with_photos))

    import anyio

    from skicyclerun.state.store import Store

    async def read() -> RunReport:
        async with await Store.open_to_read(places.state_db) as store:
            return await _report_from(store, places, run_id, with_photos)

    return anyio.run(read)


async def _report_from(store: Queries, places: ReportPlaces, run_id: int | None, with_photos: bool) -> RunReport:
    latest = await runs.latest(store)
    if run_id is None:
        run = latest
    else:
        try:
            run = await runs.get(store, run_id)
        except LookupError:
            known = ", ".join(str(each.id) for each in (await runs.listing(store))[-10:]) or "none"
            raise UsageError(f"There is no run {run_id}. The last ones are: {known}.") from None
    if run is None:
        raise NoState(places.state_db)
    running = ""
    if latest is not None and latest.id == run.id:
        from skicyclerun.run.lock import current_holder

        running = current_holder(places.state_db.parent / "run.lock") or ""
    return await build_report(
        store,
        run,
        places.export_folder,
        stage_folders=places.stage_folders,
        remote=places.remote,
        with_photos=with_photos,
        running=running,
    )
