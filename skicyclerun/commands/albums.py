"""`skicyclerun albums`."""

from __future__ import annotations

import json
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import click

from skicyclerun.actors.config import options_of
from skicyclerun.commands import exit_codes
from skicyclerun.commands.choose_albums import kind_in_words
from skicyclerun.commands.options import (
    as_typed,
    choice_options,
    given_choice,
    place_options,
    say_waiting,
    settings_of,
    source_options,
    with_excluded,
)
from skicyclerun.errors import SourceStopped
from skicyclerun.models import Album, SourceKind
from skicyclerun.run.plan import source_for
from skicyclerun.settings.models import Settings
from skicyclerun.sources.base import KeepsTime
from skicyclerun.sources.chosen_photos import ChosenPhotos, choosing
from skicyclerun.sources.photo_choice import PhotoChoice, albums_to_export
from skicyclerun.sources.photo_groups import is_group
from skicyclerun.wording import counted, printable

_NOT_LISTED: Final = {
    SourceKind.APPLE_PHOTOS: (
        "Photos gives scripts its ordinary albums only: no smart albums, shared albums, Memories or projects. Put what "
        "you want of them into an ordinary album."
    ),
    SourceKind.PHOTOS_LIBRARY: (
        "Smart albums and Memories are searches, which cannot be read: filters (--keyword, --since, …) choose alike. "
        "Shared albums and projects are exported where --album names them."
    ),
    SourceKind.FOLDER: "",
}
"""What a person may miss in the list, and what to do about it; docs/sources.md has the reasons."""


@click.command(epilog=exit_codes.HELP)
@source_options
@place_options
@partial(choice_options, until=True)
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def albums(
    *,
    source: str | None,
    library: Path | None,
    lib_root: Path | None,
    config_file: Path | None,
    until: str | None,
    json_wanted: bool,
    **choice: object,
) -> int:
    """List the albums the source offers: photos, path, id.

    With --everything the groups too; with filters only what they let through is counted.
    """
    typed = given_choice(choice, until)
    settings = settings_of(config_file, lib_root, source, library, typed, needs_lib_root=False)
    settings = with_excluded(settings, choice)
    kind, location, listed, said = anyio.run(_listed, settings, bool(typed or choice["exclude"]))
    if json_wanted:
        rows = [_as_json(album) for album in listed]
        found: dict[str, object] = {"source": location, "albums": rows}
        if said:
            found["filters"] = said
        if _NOT_LISTED[kind]:
            found["not_listed"] = _NOT_LISTED[kind]
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return exit_codes.OK
    for album in listed:
        click.echo(f"{album.photo_count:>7}  {printable(album.path)}{kind_in_words(album)}  [{printable(album.id)}]")
    groups = sum(is_group(album.id) for album in listed)
    counts = counted(len(listed) - groups, "album") + (f" and {counted(groups, 'group')}" if groups else "")
    click.echo(f"{counts} in {printable(location)}", err=True)
    for sentence in said:
        click.echo(sentence, err=True)
    if not listed and kind is not SourceKind.APPLE_PHOTOS and not choice["everything"]:
        click.echo("`--everything` takes the photos that are in no album, in groups by month.", err=True)
    if _NOT_LISTED[kind]:
        click.echo(_NOT_LISTED[kind], err=True)
    return exit_codes.OK


def _as_json(album: Album) -> dict[str, object]:
    told: dict[str, object] = {
        "id": album.id,
        "title": album.title,
        "path": album.path,
        "photos": album.photo_count,
        "kind": "group" if is_group(album.id) else album.kind.value,
    }
    return told | ({"filtered": album.filtered} if album.filtered else {})


async def _listed(settings: Settings, choosing_typed: bool) -> tuple[SourceKind, str, list[Album], list[str]]:
    """The albums; with what the filters do to them, in sentences, where something about photos was typed."""
    source = source_for(settings.export.source, settings.export.library, settings, options_of(settings))
    if isinstance(source, KeepsTime):
        source.on_wait = say_waiting
    try:
        choice = PhotoChoice.of(settings.export, date.today()) if choosing_typed else PhotoChoice()
        source = choosing(source, choice)
        await source.open()
        listed = await source.albums()
        if not isinstance(source, ChosenPhotos):
            return source.kind, source.location, listed, []
        await source.check_names()
        shown = albums_to_export(listed, (), choice) if choice.exclude else listed
        said = (await source.tally(shown)).in_words() if choice.filters.set else []
        return source.kind, source.location, shown, said
    except SourceStopped as error:
        error.before_anything_began(as_typed())
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await source.close()
