"""The cataloger: brings `master.json` up to what SQLite says, now and then during a run and once at its end.

Only at the end, and if the export has come to its own, do entries leave, or go to where their photo is now: a photo
that is gone from one album may be about to come into another.

It remembers nothing but whether there is news: what is written is read from the committed rows each time. A write of a
catalog of 100,000 entries takes seconds, so the pause between two grows with what the last one took.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from skicyclerun.actors.messages import (
    AlbumEnded,
    CatalogerMessage,
    Ending,
    ExportEnded,
    PhotosCommitted,
    PicturesCommitted,
    StageAlbumEnded,
    StageEnded,
)
from skicyclerun.catalog.master_json import CatalogWrite
from skicyclerun.catalog.records import CatalogPlaces
from skicyclerun.catalog.update import bring_up_to_date
from skicyclerun.progress.events import Notice, ProgressEvent
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)

#: At least so long between two writes during a run, and at least this many times what the last one took; seconds.
PAUSE_SECONDS: Final = 5.0
PAUSE_TIMES_LAST: Final = 20.0


@dataclass(frozen=True, slots=True)
class CatalogerParts:
    """What the cataloger works with. `on_committed` hears of each group, `on_end` how each stage ended."""

    store: Store
    places: CatalogPlaces
    master_catalog: Path
    progress: Callable[[ProgressEvent], None]
    on_committed: Callable[[int], None]
    on_end: Callable[[str, Ending, str], None]
    stages: bool = False
    """Whether stages come after the export, which may take days: the catalog is then also written at its end."""


async def cataloger(inbox: MemoryObjectReceiveStream[CatalogerMessage], parts: CatalogerParts) -> None:
    """The actor. A catalog that cannot be written is an error that ends the run; the rows are safe by then.

    What comes while it writes is heard, so that nobody waits for a write but the end of the run.
    """
    async with inbox, anyio.create_task_group() as writing:
        keeping = _Keeping(parts, writing)
        async for message in inbox:
            match message:
                case PhotosCommitted() | PicturesCommitted():
                    if isinstance(message, PhotosCommitted):
                        parts.on_committed(message.photos)
                    keeping.news = True
                    keeping.write_if_due()
                case AlbumEnded() | StageAlbumEnded():
                    keeping.news = True
                case ExportEnded(ending=ending):
                    if parts.stages:
                        await keeping.write()
                    keeping.news, keeping.exporting = True, True
                    keeping.settled = ending is Ending.COMPLETE
                    parts.on_end("export", ending, "")
                case StageEnded(stage=stage, ending=ending, because=because):
                    keeping.news = True
                    if not keeping.exporting:
                        keeping.settled = keeping.settled is not False and ending is Ending.COMPLETE
                    parts.on_end(stage, ending, because)
                case _:
                    assert_never(message)
        if keeping.news:
            await keeping.write(settled=keeping.settled is True)


class _Keeping:
    """What is to be written, and when."""

    def __init__(self, parts: CatalogerParts, writing: TaskGroup) -> None:
        self.news = False
        self.exporting = False
        self.settled: bool | None = None
        """None: nothing has ended yet."""
        self._parts = parts
        self._writing = writing
        self._one_at_a_time = anyio.Lock()
        self._not_before = anyio.current_time() + PAUSE_SECONDS

    def write_if_due(self) -> None:
        """Begin to write unless the last time is too short ago, or not over."""
        if anyio.current_time() >= self._not_before:
            self._not_before = math.inf
            self._writing.start_soon(self._write_and_pause)

    async def _write_and_pause(self) -> None:
        began = anyio.current_time()
        await self.write()
        took = anyio.current_time() - began
        self._not_before = anyio.current_time() + max(PAUSE_SECONDS, PAUSE_TIMES_LAST * took)

    async def write(self, *, settled: bool = False) -> None:
        """Write what is committed by now."""
        async with self._one_at_a_time:
            self.news = False
            await write_catalog(self._parts, settled=settled)


async def write_catalog(parts: CatalogerParts, *, settled: bool = False) -> CatalogWrite:
    """Bring the file up to date with the committed rows. Raises StorageError."""
    written = await bring_up_to_date(
        parts.store, parts.places, parts.master_catalog, settled=settled, unless_known=True
    )
    if written.problem:
        log.warning("%s", written.problem)
        parts.progress(Notice(written.problem, "warning"))
    return written
