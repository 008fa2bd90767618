"""`skicyclerun leave-out` and `skicyclerun take-in`. Imports neither a source nor the image stack."""

from __future__ import annotations

import fnmatch
import json
import os
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import place_options, settings_of
from skicyclerun.errors import UsageError
from skicyclerun.files.naming import collision_key
from skicyclerun.models import Album
from skicyclerun.run.lock import RunLock
from skicyclerun.settings.missing_folders import check_folders
from skicyclerun.settings.models import Settings
from skicyclerun.state import left_out
from skicyclerun.state.left_out import LeftOutPhoto, NamedPhoto
from skicyclerun.state.store import Row, Store
from skicyclerun.wording import counted, nearest, printable

_GLOB: Final = frozenset("*?[")
_WHERE_NAMED: Final = "Name it by its exported file: ALBUM/FILE, as `skicyclerun status --photos` has them."


@click.command("leave-out", epilog=exit_codes.HELP)
@click.argument("photos", nargs=-1, metavar="[ALBUM/FILE]...")
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def leave_out(*, photos: tuple[str, ...], lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """Leave photos out of every run from now on, in whichever album they are.

    Each is named by its exported file: ALBUM/FILE, where ALBUM is the folder or the title, and FILE may be a pattern
    ('Alps/IMG_1*'); or by its path. The next update puts the files into an archive, then away. Without any, says which
    are left out.
    """
    settings = settings_of(config_file, lib_root, only=())
    if not photos:
        return _say_listing(anyio.run(_listed, settings), json_wanted=json_wanted)
    new, known = anyio.run(_left_out, settings, photos)
    if json_wanted:
        click.echo(json.dumps({"left_out": [_as_json(each) for each in (*new, *known)]}, indent=2, ensure_ascii=False))
        return exit_codes.OK
    for each in known:
        click.echo(f"{printable(each.name)} was left out already.")
    for each in new:
        click.echo(f"{printable(each.name)} is left out from now on.")
    if new:
        click.echo("`skicyclerun run --update` puts what is exported of it into an archive, then away.", err=True)
    return exit_codes.OK


@click.command("take-in", epilog=exit_codes.HELP)
@click.argument("photos", nargs=-1, required=True, metavar="ALBUM/FILE...")
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def take_in(*, photos: tuple[str, ...], lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """Take photos in again that `leave-out` has left out; the next run or update exports them."""
    settings = settings_of(config_file, lib_root, only=())
    taken = anyio.run(_taken_in, settings, photos)
    if json_wanted:
        click.echo(json.dumps({"taken_in": [_as_json(each) for each in taken]}, indent=2, ensure_ascii=False))
        return exit_codes.OK
    for each in taken:
        click.echo(f"{printable(each.name)} is taken in again.")
    click.echo("`skicyclerun run --update` exports what belongs to its albums.", err=True)
    return exit_codes.OK


def _say_listing(photos: Sequence[LeftOutPhoto], *, json_wanted: bool) -> int:
    if json_wanted:
        click.echo(json.dumps({"left_out": [_as_json(each) for each in photos]}, indent=2, ensure_ascii=False))
        return exit_codes.OK
    for each in photos:
        click.echo(printable(each.name))
    click.echo(f"{counted(len(photos), 'photo')} left out by hand.", err=True)
    return exit_codes.OK


def _as_json(photo: LeftOutPhoto) -> dict[str, str]:
    return {
        "name": photo.name,
        "source": photo.source_location,
        "photo_id": photo.photo_id,
        "component": photo.component,
    }


async def _listed(settings: Settings) -> list[LeftOutPhoto]:
    check_folders(settings, ())
    async with await Store.open_to_read(settings.paths.state_db) as store:
        return await left_out.listing(store)


async def _left_out(settings: Settings, names: Sequence[str]) -> tuple[list[LeftOutPhoto], list[LeftOutPhoto]]:
    """Leave them out, all or none. Returns those that were not before, and those that were."""
    async with _state(settings) as store:
        found = {_identity(each.photo): each.photo for name in names for each in await _found(store, settings, name)}
        known = {_identity(photo): photo for photo in await left_out.listing(store)}
        new = [photo for key, photo in found.items() if key not in known]
        await left_out.leave_out(store, new, settings.paths.apple_photos_export)
        return new, [known[key] for key in found if key in known]


async def _taken_in(settings: Settings, names: Sequence[str]) -> list[LeftOutPhoto]:
    """Take them in again, all or none."""
    async with _state(settings) as store:
        known = {_identity(photo): photo for photo in await left_out.listing(store)}
        taken: dict[tuple[str, ...], LeftOutPhoto] = {}
        for name in names:
            folder, file_name = _parts(settings, name)
            photos = [each for each in known.values() if _is_called(each, folder, file_name)]
            if not photos:
                found = await _found(store, settings, name)
                photos = [known[key] for each in found if (key := _identity(each.photo)) in known]
                if not photos:
                    raise _not_left_out(name, found)
            taken.update((_identity(photo), photo) for photo in photos)
        await left_out.take_in(store, list(taken.values()))
        return list(taken.values())


@asynccontextmanager
async def _state(settings: Settings) -> AsyncIterator[Store]:
    """The state, to be written while no run is at work. Raises NoState, LockHeld, StateError."""
    check_folders(settings, ())
    state_db = settings.paths.state_db
    async with await Store.open_to_read(state_db):
        pass  # Nothing is made, not even the lock file, where there is no state.
    with RunLock(settings.lib_root, state_db.parent / "run.lock"):
        async with await Store.open(state_db) as store:
            yield store


def _identity(photo: LeftOutPhoto) -> tuple[str, ...]:
    return photo.source_kind, photo.source_location, photo.photo_id, photo.component


def _parts(settings: Settings, name: str) -> tuple[str, str]:
    """Album and file of a photo as it was typed: by both, or by the path of its file. Raises UsageError."""
    outputs = settings.paths.apple_photos_export
    path = Path(os.path.abspath(name))
    if path.is_relative_to(outputs) and path.parent.parent == outputs:
        return path.parent.name, path.name
    album, separator, file_name = name.rpartition("/")
    if not separator or not album or not file_name:
        raise UsageError(
            f"{name!r} names no photo. Nothing was touched.",
            next_step=_WHERE_NAMED,
        )
    return album, file_name


def _is_called(photo: LeftOutPhoto, folder: str, file_name: str) -> bool:
    """Whether that is what the photo was left out by."""
    same_folder = collision_key(photo.folder) == collision_key(folder)
    return same_folder and _matches(photo.file_name, file_name)


def _matches(file_name: str, wanted: str) -> bool:
    key, pattern = collision_key(file_name), collision_key(wanted)
    return key == pattern or fnmatch.fnmatchcase(key, pattern)


async def _found(store: Store, settings: Settings, name: str) -> list[NamedPhoto]:
    """The photos that a name means, of those that any run has planned. Raises UsageError."""
    folder, file_name = _parts(settings, name)
    albums = await left_out.albums_known(store)
    by_folder = [album for album in albums if collision_key(album["folder"]) == collision_key(folder)]
    meant = by_folder or [album for album in albums if folder in (album["album_id"], *_titles(album))]
    if not meant:
        near = nearest(folder, {text for album in albums for text in (album["folder"], *_titles(album))})
        raise UsageError(f"No run knows an album {folder!r}.{near} Nothing was touched.", next_step=_WHERE_NAMED)
    found: dict[tuple[str, ...], NamedPhoto] = {}
    for album in meant:
        one = await left_out.named(store, album, file_name)
        of_album = [one] if one is not None else []
        if one is None and _GLOB.intersection(file_name):
            every = await left_out.names_in(store, album)
            of_album = [each for each in every if _matches(each.photo.file_name, file_name)]
        for each in of_album:
            found.setdefault(_identity(each.photo), each)
    if not found:
        names = {each.photo.file_name for each in await left_out.names_in(store, meant[0])}
        raise UsageError(
            f"No file of album {folder!r} is called {file_name!r}.{nearest(file_name, names)} Nothing was touched.",
            next_step=_WHERE_NAMED,
        )
    folders = {each.photo.folder for each in found.values()}
    if len(folders) > 1:
        those = ", ".join(f"{printable(each)}/{printable(file_name)}" for each in sorted(folders))
        raise UsageError(f"{name!r} may be {those}. Name it by the folder. Nothing was touched.")
    return list(found.values())


def _titles(album: Row) -> tuple[str, str]:
    """Title and path with the library's folders, composed."""
    known = Album(album["album_id"], album["title"], tuple(json.loads(album["folder_path"])))
    return unicodedata.normalize("NFC", known.title), unicodedata.normalize("NFC", known.path)


def _not_left_out(name: str, found: Sequence[NamedPhoto]) -> UsageError:
    if any(each.removed for each in found):
        return UsageError(
            f"{printable(name)} is not left out by name: its file was removed by hand (export.removed_files).",
            next_step="`skicyclerun run --update --include-removed` exports such photos again.",
        )
    return UsageError(
        f"{printable(name)} is not left out.", next_step="`skicyclerun leave-out` without a name says what is."
    )
