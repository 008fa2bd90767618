"""The lister: takes the exporter's place in a run that exports nothing, and names the albums that are there.

A run whose export is complete already names its own albums; a run of stages alone every album folder that holds
exported files, or those that were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.actors.messages import AlbumReady, CatalogerMessage, Ending, ExportEnded, OutputsPutAway
from skicyclerun.errors import AllExcluded
from skicyclerun.files.album_folder import StagingFolder
from skicyclerun.sources.album_selection import excluded_albums, select_albums
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.state import albums, stage_albums
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store


async def lister(
    inbox: MemoryObjectReceiveStream[OutputsPutAway],
    outbox: MemoryObjectSendStream[CatalogerMessage],
    albums_ready: MemoryObjectSendStream[AlbumReady],
    store: Store,
) -> None:
    """The actor. Where the export of the run is complete it has the exporter's last word, so that the catalog is
    written by a run that was killed before it could be."""
    async with inbox, outbox, albums_ready:
        async for message in inbox:
            run = message.configured.run
            if run is None:
                continue
            if "export" in run.stages:
                # An export that was killed behind its last album had no time to.
                outputs = message.configured.command.settings.paths.apple_photos_export
                await anyio.to_thread.run_sync(StagingFolder(outputs).sweep)
            named = {row.folder: row.album.path for row in await exported_albums(store, run)}
            for left in await stage_albums.of_run(store, run.id):
                if left.status in (AlbumStatus.PENDING, AlbumStatus.EXPORTING):
                    # Put away since the stage began with it, it comes to its end all the same: with nothing to be made.
                    named.setdefault(left.folder, left.title)
            for number, (folder, title) in enumerate(named.items(), start=1):
                with suppress(anyio.BrokenResourceError):  # no stage comes after the export
                    await albums_ready.send(AlbumReady(folder, title, number, len(named)))
            if "export" in run.stages:
                await outbox.send(ExportEnded(run, Ending.COMPLETE))


async def exported_albums(store: Store, run: RunRow) -> list[AlbumRow]:
    """The albums that the stages of a run go through."""
    if "export" in run.stages:
        rows = await albums.listing(store, run.id)
        return [row for row in rows if row.status in (AlbumStatus.DONE, AlbumStatus.FAILED)]
    return await chosen_albums(store, run.selection, PhotoChoice.from_row(run.options).exclude)


async def chosen_albums(store: Store, selection: Sequence[str], exclude: Sequence[str] = ()) -> list[AlbumRow]:
    """Album folders that hold exported files; only those of `selection` (names, globs, ids) that `exclude` does not
    name. Raises NoAlbumMatches, AllExcluded."""
    rows = await albums.with_files(store)
    exported = [row.album for row in rows]
    chosen = {album.id for album in select_albums(exported, selection)}
    left = chosen - excluded_albums(exported, exclude, strict=False)
    if chosen and not left:
        raise AllExcluded(selection, exclude)
    return [row for row in rows if row.album.id in left]
