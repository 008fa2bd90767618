"""`skicyclerun status`. Imports neither a source nor the image stack."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import place_options, places_as_typed, settings_of
from skicyclerun.errors import NoState, StageError, UsageError
from skicyclerun.progress.terminal_text import columns
from skicyclerun.run.report import RunReport, as_json, as_text, build_report, stage_as_text
from skicyclerun.settings.default_places import ReportPlaces, default_places
from skicyclerun.state import runs
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.reading import Queries, StateFile, result_of
from skicyclerun.wording import counted

if TYPE_CHECKING:
    from rich.live import Live

    from skicyclerun.settings.models import Settings

_WATCH_SECONDS: Final = 2.0
_WATCH_SHARE: Final = 10
"""It rests so many times as long as it looked."""


@click.command(epilog=exit_codes.HELP)
@place_options
@click.option("--photos", "with_photos", is_flag=True, help="Name every photo, not only those not exported.")
@click.option("--stage", "stage", metavar="NAME", help="The details of one stage after the export.")
@click.option("--watch", is_flag=True, help="Again and again until the run ends. Ctrl-C leaves the run alone.")
@click.option("--run", "run_id", type=int, metavar="N", help="Another run than the last.")
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def status(
    *,
    lib_root: Path | None,
    config_file: Path | None,
    with_photos: bool,
    stage: str | None,
    watch: bool,
    run_id: int | None,
    json_wanted: bool,
) -> int:
    """Report on the last run, album by album: what is done, what failed and why, what is left."""
    if watch and json_wanted:
        raise UsageError("--watch is for people; `skicyclerun run --json` tells other programs how far it is.")

    def look() -> RunReport:
        report = _quick_report(config_file, lib_root, run_id, with_photos) if stage is None else None
        return report or _report(settings_of(config_file, lib_root, only=()), stage, run_id, with_photos)

    def text_of(report: RunReport) -> str:
        if stage is None or stage == "export":
            return as_text(report, width=columns(sys.stdout), places=places_as_typed())
        try:
            return stage_as_text(report, stage, width=columns(sys.stdout))
        except LookupError:
            from skicyclerun.stages.registry import parse_stages

            settings = settings_of(config_file, lib_root, only=())
            parse_stages(stage, settings.own_stages())  # says so of one that is unknown
            raise UsageError(
                f"{stage} has not run here.", next_step=f"`skicyclerun run --stages {stage}` runs it."
            ) from None

    try:
        report = _watch(look, text_of) if watch else look()
    except KeyboardInterrupt:
        if not watch:
            raise
        return exit_codes.OK
    if json_wanted:
        click.echo(json.dumps(as_json(report), indent=2, ensure_ascii=False))
    else:
        click.echo(text_of(report), nl=False)
    return exit_codes.OK


def _watch(look: Callable[[], RunReport], text_of: Callable[[RunReport], str]) -> RunReport:
    """Show how far the run is until nobody works on it any more; returns its last report. It is only read from."""
    was_at_work = False
    with _Watch(text_of) as shown:
        while True:
            begun = time.monotonic()
            report = look()
            if not report.running:
                if not was_at_work:
                    click.echo("No run is at work. This is how the last one stands:", err=True)
                return report
            was_at_work = True
            shown.update(report)
            # A large library takes longer to be counted; the run shall not notice.
            time.sleep(max(_WATCH_SECONDS, _WATCH_SHARE * (time.monotonic() - begun)))


class _Watch:
    """At a terminal the report, always in the same place; elsewhere a line whenever something has changed."""

    def __init__(self, text_of: Callable[[RunReport], str]) -> None:
        self._text_of = text_of
        self._live: Live | None = None
        self._last = ""

    def __enter__(self) -> _Watch:
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=sys.stdout), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def update(self, report: RunReport) -> None:
        if self._live is None:
            line = _how_far(report)
            if line != self._last:
                click.echo(line)
            self._last = line
            return
        from rich.text import Text

        lines = self._text_of(report).splitlines()
        height = self._live.console.height
        if len(lines) >= height:  # the first says which run, the last ones what is left
            lines = [lines[0], *lines[len(lines) - max(height - 2, 0) :]]
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _how_far(report: RunReport) -> str:
    totals, albums = report.totals, report.albums
    parts = []
    if albums:
        expected = sum(album.expected for album in albums)
        parts.append(f"{report.albums_with(AlbumStatus.DONE)} of {counted(len(albums), 'album')} done")
        parts.append(f"{totals.exported} of {counted(expected, report.run.counts_in)} exported")
        parts += [
            f"{number} {word}" for number, word in ((totals.failed, "failed"), (totals.missing, "missing")) if number
        ]
    parts += [f"{each.name}: {each.totals.done} of {each.totals.expected}" for each in report.stages if each.in_run]
    return f"Run {report.run.id}: {', '.join(parts) or 'running'}"


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
        try:
            check_stage_name(stage, settings.command_stages)
        except StageError as error:
            raise StageError(str(error), next_step="`skicyclerun status` shows those that have run here.") from None
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
