"""What an export will do, decided once and entered before it begins: its albums, their folders, their file names."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from contextlib import closing

import anyio.to_thread

from skicyclerun.actors.update_plan import files_gone, key_of, names_given, plan_update
from skicyclerun.errors import AlbumFilesGone
from skicyclerun.files.album_folder import AlbumFolder
from skicyclerun.files.naming import assign_folders
from skicyclerun.models import Album, Photo
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import Source
from skicyclerun.sources.photo_choice import PhotoChoice, albums_to_export, not_emptied
from skicyclerun.sources.photo_groups import is_gone
from skicyclerun.state import albums, left_out, photos
from skicyclerun.state.photos import PhotoPlan
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)


async def plan_albums(store: Store, source: Source, run: RunRow) -> None:
    """List the source's albums, choose, give each a folder, and enter them all at once."""
    choice = PhotoChoice.from_row(run.options)
    listed = await source.albums()
    own, foreign = await albums.folders_of_source(store, run)
    chosen = not_emptied(albums_to_export(listed, run.selection, choice), own if run.mode == "update" else ())
    there = {album.id for album in listed}
    groups = choice.takes_groups(run.selection, (album.id for album in chosen))
    gone = [album_id for album_id in own if is_gone(album_id, there, groups=groups)]
    # Folders that hold another source's files are taken, under ids that no album has; an album of ours that had
    # one of them before gets a new one.
    taken = {f"\0{folder}": folder for folder in foreign}
    kept = own.keys() - gone
    taken |= {album_id: folder for album_id, folder in own.items() if album_id in kept and folder not in foreign}
    folders = assign_folders([(album.id, album.title) for album in chosen], taken)
    await albums.plan(store, run, folders, chosen, gone)


async def plan_photos(
    store: Store, found: Sequence[Photo], run: RunRow, album: Album, folder: AlbumFolder, options: ExportOptions
) -> list[PhotoPlan]:
    """The album's photos, which the source has `found`, with the file name each will have; in an update, which are
    carried over as they are. `folder` learns which files in it are ours, where that is asked."""
    # A photo that an album holds twice is one photo.
    once = {key_of(photo): photo for photo in found if options.wants(photo)}.values()
    listed = [each for photo in once for each in (photo, *options.companions_of(photo))]
    occupied = await anyio.to_thread.run_sync(folder.occupied_names)
    place = (run.source_kind.value, run.source_location)
    earlier = await photos.present_of_album(store, album.id, place) if run.mode == "update" else {}
    removed: set[tuple[str, str]] = set()
    if options.removed_files == "leave_out":
        gone = files_gone(earlier, occupied)
        if len(gone) == len(earlier) and not gone.isdisjoint(map(key_of, listed)):
            await _check_disk_is_there(store, folder, len(gone))
        # Left out by an earlier run; unless its file has been there again since.
        removed = gone | (await photos.removed_of_album(store, album.id, place) - earlier.keys())
    out = left_out.among(listed, await left_out.keys_of_source(store, place))
    removed -= out  # taken in again, they come back
    strangers: Collection[str] = ()
    names_before = names_given(listed, earlier, options)
    if not names_before.are_all:
        folder.records = await photos.files_of_ours_in(store, folder.path.name, run.id)
        strangers = await anyio.to_thread.run_sync(folder.strangers, occupied)
    if run.mode == "update":
        return plan_update(listed, earlier, options, occupied, strangers, removed, out, names_before=names_before)
    if strangers:
        log.info("album %s: %d files in %s are not ours and stay", album.path, len(strangers), folder.path)
    return plan_update(listed, {}, options, (), strangers, removed, out)


async def _check_disk_is_there(store: Store, folder: AlbumFolder, files: int) -> None:
    """Of what was exported into this folder nothing is there. Raises AlbumFilesGone where that need not be anybody's
    wish: the folder itself is gone, or nothing that was exported is to be found anywhere."""
    export_folder, name = folder.path.parent, folder.path.name

    def anything_exported() -> bool:
        if not folder.path.is_dir():
            return False
        with store.reader() as reader, closing(reader.rows("present_elsewhere", {"folder": name})) as rows:
            return any(os.path.lexists(export_folder / row["folder"] / row["file_name"]) for row in rows)

    if not await anyio.to_thread.run_sync(anything_exported):
        raise AlbumFilesGone(folder.path, files)
