"""`skicyclerun albums`."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import click

from skicyclerun.actors.config import options_of
from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import place_options, settings_of, source_options
from skicyclerun.models import Album
from skicyclerun.run.plan import source_for
from skicyclerun.settings.models import Settings
from skicyclerun.wording import counted, printable


@click.command(epilog=exit_codes.HELP)
@source_options
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def albums(
    *, source: str | None, library: Path | None, lib_root: Path | None, config_file: Path | None, json_wanted: bool
) -> int:
    """List the albums the source offers: photos, path, id."""
    settings = settings_of(config_file, lib_root, source, library, needs_lib_root=False)
    location, listed = anyio.run(_listed, settings)
    if json_wanted:
        rows = [
            {"id": album.id, "title": album.title, "path": album.path, "photos": album.photo_count} for album in listed
        ]
        click.echo(json.dumps({"source": location, "albums": rows}, indent=2, ensure_ascii=False))
        return exit_codes.OK
    for album in listed:
        click.echo(f"{album.photo_count:>7}  {printable(album.path)}  [{printable(album.id)}]")
    click.echo(f"{counted(len(listed), 'album')} in {printable(location)}", err=True)
    return exit_codes.OK


async def _listed(settings: Settings) -> tuple[str, list[Album]]:
    source = source_for(settings.export.source, settings.export.library, settings, options_of(settings))
    try:
        await source.open()
        return source.location, await source.albums()
    finally:
        with anyio.CancelScope(shield=True):
            await source.close()
