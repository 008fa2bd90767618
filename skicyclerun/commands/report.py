"""`skicyclerun report`: a page for a browser that shows what a run did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.growing_line import growing_line
from skicyclerun.commands.options import place_options, places_as_typed, settings_of
from skicyclerun.errors import StateError, StorageError, UsageError
from skicyclerun.settings.missing_folders import check_folders
from skicyclerun.settings.models import Settings

if TYPE_CHECKING:
    from skicyclerun.report.make import PageMade


@click.command(epilog=exit_codes.HELP)
@place_options
@click.option(
    "--html",
    "file",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Where the page goes; the albums' pages go into FILE's name with `_files`. Default: `report.file`.",
)
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@click.option("--no-map", is_flag=True, help="Nothing on the page that says where a photo was taken.")
@click.option("--run", "run_id", type=int, metavar="N", help="Another run than the last.")
def report(
    *,
    lib_root: Path | None,
    config_file: Path | None,
    file: str | None,
    open_it: bool,
    no_map: bool,
    run_id: int | None,
) -> int:
    """Make a page for the browser: what a run did, what failed and how to mend it, every album with its pictures.

    Also while a run is at work. Nothing on the page comes from a network or goes there.
    """
    settings = settings_of(config_file, lib_root, only=("report",))
    check_folders(settings, ())  # a disk that is not connected is not a folder where nothing was exported yet
    target = Path.cwd() / file if file else None
    page = make_with_line(settings, run_id=run_id, file=target, with_map=False if no_map else None)
    click.echo(f"The page of run {page.run_id}: {page.file}")
    if open_it and click.launch(page.file.as_uri()) != 0:
        click.echo(f"It could not be opened from here. Open it in a browser: {page.file.as_uri()}", err=True)
    return exit_codes.OK


def make_with_line(settings: Settings, **wanted: Any) -> PageMade:
    """Make the page, with a line on stderr that says how far it is. `wanted` as for `make_page`."""
    from skicyclerun.report.make import make_page

    def words(done: int, total: int) -> str:
        return f"Thumbnails: {done:,} of {total:,}"

    with growing_line(words) as advance:
        return anyio.run(lambda: make_page(settings, options=places_as_typed(), advance=advance, **wanted))


def make_after_run(settings: Settings) -> tuple[Path | None, str]:
    """The page at the end of a run: where it is, or a sentence that says why it is not there.

    Whatever becomes of it changes nothing about the run.
    """
    try:
        return make_with_line(settings).file, ""
    except (StorageError, StateError, UsageError) as error:
        step = f" {error.next_step}" if error.next_step else ""
        return None, f"The page could not be made: {error}{step}"
    except KeyboardInterrupt:
        return None, "The page was not made: stopped. `skicyclerun report` makes it."
