"""The files that rows speak for, checked on all cores: pages of rows handed out in batches to workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.state.store import Row, Store
from skicyclerun.verification.files import Checked, FileChecks, KnownFiles

_PAGE: Final = 2000
_QUICK_BATCH: Final = 200
_FULL_BATCH: Final = 4

#: Hears how many files are checked, and of how many.
Advance = Callable[[int, int], None]
_Batch = list[tuple[Row, bool]]


@dataclass(slots=True)
class Progress:
    """How many files are checked, over the export and all stages."""

    total: int
    advance: Advance | None
    done: int = 0

    def add(self, files: int) -> None:
        self.done += files
        if self.advance is not None:
            self.advance(self.done, self.total)


@dataclass(slots=True)
class FileWork:
    """The files of the export or of a stage: a feeder, workers, and what they found."""

    store: Store
    checks: FileChecks
    query: str
    """Gives the rows page by page: `present_photos_page` or `stage_names_page`."""
    parameters: Mapping[str, object]
    known: KnownFiles
    """Learns the name of every row."""
    in_full: Callable[[int], bool]
    """Whether the file of the row with this id is read to the end."""
    progress: Progress
    found: Checked = field(default_factory=Checked)

    async def carry_out(self) -> None:
        outbox, inbox = anyio.create_memory_object_stream[_Batch](0)
        limiter = anyio.CapacityLimiter(os.cpu_count() or 1)
        async with inbox, anyio.create_task_group() as working:
            working.start_soon(self._feed, outbox)
            for _ in range(int(limiter.total_tokens)):
                working.start_soon(self._check, inbox, limiter)

    async def _feed(self, outbox: MemoryObjectSendStream[_Batch]) -> None:
        async with outbox:
            after = 0
            while rows := await self.store.all(self.query, {**self.parameters, "after": after, "limit": _PAGE}):
                after = rows[-1]["id"]
                for row in rows:
                    self.known.add(row["folder"], row["file_name"])
                for batch in self._batches([row for row in rows if row["checked"]]):
                    await outbox.send(batch)

    def _batches(self, rows: Sequence[Row]) -> Iterator[_Batch]:
        """Few files a batch where they are read, so that no core waits for the last one; many where they are not."""
        quick: _Batch = []
        full: _Batch = []
        for row in rows:
            batch, limit = (full, _FULL_BATCH) if self.in_full(row["id"]) else (quick, _QUICK_BATCH)
            batch.append((row, batch is full))
            if len(batch) >= limit:
                yield list(batch)
                batch.clear()
        yield from (batch for batch in (quick, full) if batch)

    async def _check(self, inbox: MemoryObjectReceiveStream[_Batch], limiter: anyio.CapacityLimiter) -> None:
        async for batch in inbox:
            # One that is given up only reads on to the end of its batch.
            checked = await anyio.to_thread.run_sync(self.checks.check, batch, limiter=limiter, abandon_on_cancel=True)
            self.found.add(checked)
            self.progress.add(len(batch))
