"""`master.json` brought up to what the rows say, and remembered, so that a run that changes nothing costs nothing.

That the file says all that the rows say is itself a row, with what the file looked like; the first row that says
otherwise removes it (triggers of the database), and so does a program that writes the file.

Entries leave, and go to where their photos are now, only when things are *settled*, that is at the end of a run: in its
middle nobody knows yet whether a photo that is gone is about to come back somewhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import orjson

from skicyclerun import __version__
from skicyclerun.catalog.master_json import CatalogWrite, identity_of, update_catalog
from skicyclerun.catalog.moved import TakenOver, photo_of, stage_of
from skicyclerun.catalog.object_text import ObjectText
from skicyclerun.catalog.records import CatalogPlaces, gone_paths, path_of, place_of, records_of
from skicyclerun.state import former_entries
from skicyclerun.state.former_entries import LeavingEntry
from skicyclerun.state.store import Reader, Store


async def bring_up_to_date(
    store: Store,
    places: CatalogPlaces,
    path: Path,
    *,
    settled: bool,
    also_gone: Sequence[str] = (),
    pointed_to: Collection[str] = (),
    unless_known: bool = False,
) -> CatalogWrite:
    """Write what is not said yet, every record looked at. Raises StorageError.

    `settled`: entries of files that are gone leave, and what other programs said in them goes to where their photos are
    now. `also_gone`: further paths whose entries go. `pointed_to`: paths without an entry that others point to; where
    the photo that was there is elsewhere now, they follow. `unless_known`: where the file is known to say all of it, it
    is not even read; `entries` is then 0.
    """
    about = orjson.dumps(
        [
            __version__,
            str(path),
            str(places.export_folder),
            {name: str(each.folder) for name, each in places.stages.items()},
        ]
    ).decode()
    if unless_known and not also_gone and not pointed_to:
        known = await store.one("catalog_written")
        if known is not None and known["path"] == about:
            there = await anyio.to_thread.run_sync(identity_of, path)
            if there is not None and known["identity"] == orjson.dumps(there).decode():
                return CatalogWrite(False, None, 0)
    gone = [*await gone_paths(store, places), *also_gone] if settled else []
    if pointed_to:
        await _know_pointed_to(store, places, pointed_to)

    def write() -> tuple[CatalogWrite, tuple[int, ...] | None]:
        with store.reader() as reader:
            relocate = partial(_relocated, store, reader, places, frozenset(gone)) if settled else None
            written = update_catalog(
                path,
                lambda: records_of(reader, places),
                gone,
                now=datetime.now(UTC),
                relocate=relocate,
            )
        return written, identity_of(path)

    with anyio.CancelScope(shield=True):
        # Entered before the rows are read: a row that changes meanwhile removes it, and then nothing is marked below.
        async with store.transaction() as transaction:
            await transaction.execute("begin_catalog_write", {"path": about})
        written, identity = await anyio.to_thread.run_sync(write)
        await former_entries.forget(store, written.taken_over)
        if settled and identity is not None:
            async with store.transaction() as transaction:
                await transaction.execute("mark_catalog_written", {"identity": orjson.dumps(identity).decode()})
    return written


def _relocated(
    store: Store,
    reader: Reader,
    places: CatalogPlaces,
    gone: Collection[str],
    entries: ObjectText,
    leaving: Collection[str],
) -> list[TakenOver]:
    """What leaves is kept in rows first; then what is kept there and whose photo is somewhere. In a worker thread."""
    kept = []
    for path in sorted(leaving):
        entry = entries[path]
        place = place_of(places, path, stage_of(entry))
        if place is None:
            continue  # in none of our folders: nobody knows what it was of
        photo_id, component = photo_of(entry)
        # The photo's own bytes, not those of a file that was made of it: those follow their photo.
        sha256 = entry.get("sha256") if photo_id else ""
        # Another photo has its place: whatever was exported since is newer than it.
        since = None if path in gone else entry.get("export_timestamp")
        kept.append(
            LeavingEntry(
                path,
                place,
                photo_id,
                component,
                sha256 if isinstance(sha256, str) else "",
                entries.value_text(path),
                since if isinstance(since, str) else None,
            )
        )
    if kept:
        rows = former_entries.rows_of(reader, kept)
        anyio.from_thread.run(former_entries.keep, store, rows)
    found = []
    for heir in former_entries.heirs(reader):
        new_path = path_of(places, heir.place)
        if new_path is not None:
            found.append(TakenOver(heir.row_id, heir.path, new_path, heir.entry))
    return found


async def _know_pointed_to(store: Store, places: CatalogPlaces, paths: Collection[str]) -> None:
    """Paths of ours that entries point to and that have none: entries that left before anybody kept them."""
    known = [(path, place) for path in sorted(paths) if (place := place_of(places, path)) is not None]
    leaving = [LeavingEntry(path, place, "", "", "", "", since="") for path, place in known]

    def rows() -> list[dict[str, object]]:
        with store.reader() as reader:
            return [row for row in former_entries.rows_of(reader, leaving) if row["photo_id"] or row["sha256"]]

    found = await anyio.to_thread.run_sync(rows)
    if found:
        await former_entries.keep(store, found)
