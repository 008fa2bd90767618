"""`skicyclerun albums`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import anyio
import click

from skicyclerun.actors.config import options_of
from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import as_typed, place_options, say_waiting, settings_of, source_options
from skicyclerun.errors import SourceStopped
from skicyclerun.models import Album, SourceKind
from skicyclerun.run.plan import source_for
from skicyclerun.settings.models import Settings
from skicyclerun.sources.base import KeepsTime
from skicyclerun.wording import counted, printable

_NOT_LISTED: Final = {
    SourceKind.APPLE_PHOTOS: (
        "Photos gives scripts its ordinary albums only: no smart albums, shared albums, Memories or projects. Put what "
        "you want of them into an ordinary album."
    ),
    SourceKind.PHOTOS_LIBRARY: (
        "Smart albums, shared albums, Memories and projects are not offered. Put what you want of them into an "
        "ordinary album."
    ),
    SourceKind.FOLDER: "",
}
"""What a person may miss in the list, and what to do about it; docs/sources.md has the reasons."""


@click.command(epilog=exit_codes.HELP)
@source_options
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def albums(
    *, source: str | None, library: Path | None, lib_root: Path | None, config_file: Path | None, json_wanted: bool
) -> int:
    """List the albums the source offers: photos, path, id."""
    settings = settings_of(config_file, lib_root, source, library, needs_lib_root=False)
    kind, location, listed = anyio.run(_listed, settings)
    if json_wanted:
        rows = [
            {"id": album.id, "title": album.title, "path": album.path, "photos": album.photo_count} for album in listed
        ]
        found = {"source": location, "albums": rows}
        if _NOT_LISTED[kind]:
            found["not_listed"] = _NOT_LISTED[kind]
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return exit_codes.OK
    for album in listed:
        click.echo(f"{album.photo_count:>7}  {printable(album.path)}  [{printable(album.id)}]")
    click.echo(f"{counted(len(listed), 'album')} in {printable(location)}", err=True)
    if _NOT_LISTED[kind]:
        click.echo(_NOT_LISTED[kind], err=True)
    return exit_codes.OK


async def _listed(settings: Settings) -> tuple[SourceKind, str, list[Album]]:
    source = source_for(settings.export.source, settings.export.library, settings, options_of(settings))
    if isinstance(source, KeepsTime):
        source.on_wait = say_waiting
    try:
        await source.open()
        return source.kind, source.location, await source.albums()
    except SourceStopped as error:
        error.before_anything_began(as_typed())
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await source.close()
