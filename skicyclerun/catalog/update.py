"""`master.json` brought up to what the rows say, and remembered, so that a run that changes nothing costs nothing.

That the file says all that the rows say is itself a row, with what the file looked like; the first row that says
otherwise removes it (triggers of the database), and so does a program that writes the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import orjson

from skicyclerun import __version__
from skicyclerun.catalog.master_json import CatalogWrite, identity_of, update_catalog
from skicyclerun.catalog.records import CatalogPlaces, gone_paths, records_of
from skicyclerun.state.store import Store


async def bring_up_to_date(
    store: Store, places: CatalogPlaces, path: Path, *, also_gone: Sequence[str] = (), unless_known: bool = False
) -> CatalogWrite:
    """Write what is not said yet, every record looked at. Raises StorageError.

    `also_gone`: further paths whose entries go. `unless_known`: where the file is known to say all of it, it is not
    even read; `entries` is then 0.
    """
    about = orjson.dumps(
        [
            __version__,
            str(path),
            str(places.export_folder),
            {name: str(each.folder) for name, each in places.stages.items()},
        ]
    ).decode()
    if unless_known and not also_gone:
        known = await store.one("catalog_written")
        if known is not None and known["path"] == about:
            there = await anyio.to_thread.run_sync(identity_of, path)
            if there is not None and known["identity"] == orjson.dumps(there).decode():
                return CatalogWrite(False, None, 0)
    gone = [*await gone_paths(store, places), *also_gone]

    def write() -> tuple[CatalogWrite, tuple[int, ...] | None]:
        with store.reader() as reader:
            written = update_catalog(path, lambda: records_of(reader, places), gone, now=datetime.now(UTC))
        return written, identity_of(path)

    with anyio.CancelScope(shield=True):
        # Entered before the rows are read: a row that changes meanwhile removes it, and then nothing is marked below.
        async with store.transaction() as transaction:
            await transaction.execute("begin_catalog_write", {"path": about})
        written, identity = await anyio.to_thread.run_sync(write)
        if identity is not None:
            async with store.transaction() as transaction:
                await transaction.execute("mark_catalog_written", {"identity": orjson.dumps(identity).decode()})
    return written
