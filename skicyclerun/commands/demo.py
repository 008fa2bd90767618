"""`skicyclerun demo`: a sample library and a real run over it, through the same code as `run`."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

import anyio
import click

from skicyclerun.actors.messages import Intent
from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import NAMED_PATH, settings_of
from skicyclerun.commands.run import carry_out
from skicyclerun.errors import NoState, StateError
from skicyclerun.run.plan import RunRequest
from skicyclerun.settings.models import Settings
from skicyclerun.sources.sample_library import make_sample_library
from skicyclerun.state import runs
from skicyclerun.state.store import Store

_STAGES: Final = ("cleanup", "export", "metadata_extraction", "preprocessing", "watermarking")


@click.command(epilog=exit_codes.HELP)
@click.option(
    "--to",
    "folder",
    type=NAMED_PATH,
    default="skicyclerun-demo",
    show_default=True,
    metavar="DIR",
    help="Where the sample library and the results go.",
)
def demo(*, folder: Path) -> int:
    """Make a small sample library, export it, and go on to places, scaled and watermarked pictures.

    Run it twice: the second time the first one's results are put into a proved archive before they are replaced.
    """
    library, lib_root = folder / "library", folder / "results"
    if library.is_dir():
        click.echo(f"The sample library is there already: {library}", err=True)
    else:
        make_sample_library(library)
        click.echo(f"A sample library of generated photos: {library}", err=True)
    settings = settings_of(None, lib_root, "folder", library)
    ours = anyio.run(_are_of_a_demo, settings)
    request = RunRequest(
        Intent.FRESH,
        settings,
        stages=_STAGES,
        fresh_over_unfinished=ours,
        how_to_agree=f"{lib_root} holds what no demo has made. Name another folder with --to.",
    )
    code = carry_out(request, yes=ours, verbose=False, as_json_lines=False)
    click.echo("")
    click.echo(f"The albums are in {settings.paths.apple_photos_export}")
    click.echo(f"Scaled and watermarked pictures are in {settings.paths.watermarked_final}")
    click.echo(f"What is known of each file is in {settings.paths.master_catalog}")
    command, place = _as_typed(), shlex.quote(str(lib_root))
    click.echo(f"Look at the pictures: {command} report --open --lib-root {place}")
    click.echo(f"See this report again: {command} status --lib-root {place}")
    return code


def _as_typed() -> str:
    """`skicyclerun`, or the path of the program where a shell would not find it: `make demo` activates nothing."""
    program = Path(sys.executable).with_name("skicyclerun")
    if shutil.which("skicyclerun") or not program.exists():
        return "skicyclerun"
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))


async def _are_of_a_demo(settings: Settings) -> bool:
    """Whether the results are what a demo made, or nothing: only then may it put them away without a question."""
    try:
        async with await Store.open_to_read(settings.paths.state_db) as store:
            latest = await runs.latest(store)
    except NoState:
        return not await anyio.Path(settings.paths.apple_photos_export).exists()
    except StateError:
        return False
    return latest is None or latest.source_location == str(settings.export.library)
