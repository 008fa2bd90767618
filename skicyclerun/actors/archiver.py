"""The archiver: puts the old outputs away before a fresh export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.actors.messages import OutputsPutAway, RunConfigured
from skicyclerun.progress.events import ProgressEvent
from skicyclerun.shutdown import Shutdown
from skicyclerun.sources.base import Source
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store


@dataclass(frozen=True, slots=True)
class ArchiverParts:
    """What the archiver works with. `on_run` hears which run it is about to prepare."""

    store: Store
    source: Source | None
    progress: Callable[[ProgressEvent], None]
    shutdown: Shutdown
    on_run: Callable[[RunRow | None], None]


async def archiver(
    inbox: MemoryObjectReceiveStream[RunConfigured],
    outbox: MemoryObjectSendStream[OutputsPutAway],
    parts: ArchiverParts,
) -> None:
    """The actor."""
    async with inbox, outbox:
        async for configured in inbox:
            parts.on_run(configured.run)
            await outbox.send(OutputsPutAway(configured))
