"""A state database that SQLite cannot read is set aside under another name, with its log, and never written over."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from skicyclerun.errors import NotWritable, StateDamaged, StateForeign
from skicyclerun.files.atomic_files import sync_directory
from skicyclerun.state import left_out
from skicyclerun.state.store import Store

#: What SQLite keeps beside a database; the log holds committed rows that the database may not hold yet.
_COMPANIONS: Final = ("-wal", "-shm")


def set_aside(database: Path, label: str) -> Path:
    """Rename a database to `NAME.LABEL-YYYYMMDD_HHMMSS`, its -wal and -shm with it; returns its new path.

    Under the new names SQLite still finds what belongs together. A log that is empty, as readers leave it behind, is
    removed; an earlier database of the new name is never replaced. The caller holds the run lock, and nobody has the
    database open. Raises NotWritable; everything then has its old name.
    """
    name = f"{database.name}.{label}-{datetime.now(UTC):%Y%m%d_%H%M%S}"
    kept, number = database.with_name(name), 1
    while any(os.path.lexists(f"{kept}{companion}") for companion in ("", *_COMPANIONS)):
        number += 1
        kept = database.with_name(f"{name}-{number}")
    moved: list[str] = []
    try:
        if _is_empty(f"{database}-wal"):
            for companion in _COMPANIONS:
                Path(f"{database}{companion}").unlink(missing_ok=True)
        # The log goes first: a stop in between must not leave it beside a new database of the old name.
        for companion in (*_COMPANIONS, ""):
            if os.path.lexists(f"{database}{companion}"):
                os.rename(f"{database}{companion}", f"{kept}{companion}")
                moved.append(companion)
        sync_directory(database.parent)
    except OSError as error:
        for companion in moved:
            os.rename(f"{kept}{companion}", f"{database}{companion}")
        raise NotWritable(
            f"{database} could not be set aside ({error.strerror or error}). It was left as it is.",
            next_step="Check the disk and the folder's permissions.",
        ) from error
    return kept


def _is_empty(log: str) -> bool:
    try:
        return os.lstat(log).st_size == 0
    except FileNotFoundError:
        return True  # What is left of it is an index of nothing.


async def open_or_set_aside(path: Path) -> Store:
    """Open for writing, as `Store.open`; a damaged database is set aside first and the error says where.

    A new one knows which photos were left out by hand, where that is to be had. The caller holds the run lock. Raises
    StateDamaged with `kept_as`, and whatever `Store.open` raises.
    """
    try:
        store = await Store.open(path)
        try:
            await left_out.restore(store)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await store.close()
            raise
        return store
    except StateForeign:
        raise
    except StateDamaged as damaged:
        kept = await anyio.to_thread.run_sync(set_aside, path, "corrupt")
        raise StateDamaged(path, damaged.problem, kept_as=kept) from damaged
