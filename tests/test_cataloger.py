"""When the catalog is written during a run, by a clock of its own, and that nobody waits for it."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import anyio
import pytest

from skicyclerun.actors import cataloger as module
from skicyclerun.actors.cataloger import CatalogerParts, cataloger
from skicyclerun.actors.messages import CatalogerMessage, Ending, ExportEnded, PhotosCommitted
from skicyclerun.state.runs import RunRow
from tests.virtual_time import run_in_virtual_time

GROUPS = 600


def test_groups_are_heard_of_while_the_catalog_is_written_and_it_is_written_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A group each second for ten minutes; a write takes four seconds."""
    writes: list[tuple[float, bool]] = []
    writing = False
    photos = 0

    async def write(_parts: CatalogerParts, *, settled: bool = False) -> None:
        nonlocal writing
        assert not writing, "two writes at once"
        writing = True
        writes.append((anyio.current_time(), settled))
        await anyio.sleep(4.0)
        writing = False

    def count(more: int) -> None:
        nonlocal photos
        photos += more

    monkeypatch.setattr(module, "write_catalog", write)
    parts = cast(CatalogerParts, _Parts(count))

    async def main() -> float:
        outbox, inbox = anyio.create_memory_object_stream[CatalogerMessage](0)
        waited = 0.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cataloger, inbox, parts)
            async with outbox:
                for _ in range(GROUPS):
                    await anyio.sleep(1.0)
                    before = anyio.current_time()
                    await outbox.send(PhotosCommitted(1, 3))
                    waited += anyio.current_time() - before
                await outbox.send(ExportEnded(cast(RunRow, None), Ending.COMPLETE))
        return waited

    assert run_in_virtual_time(main) == 0.0
    assert photos == 3 * GROUPS
    *during, last = writes
    starts = [at for at, _ in during]
    assert starts[0] >= module.PAUSE_SECONDS
    pauses = [following - at - 4.0 for at, following in pairwise(starts)]
    assert min(pauses) >= module.PAUSE_TIMES_LAST * 4.0
    assert [settled for _, settled in during] == [False] * len(during)
    assert len(during) == 8
    assert last == (600.0, True)


class _Parts:
    stages = False

    def __init__(self, on_committed: object) -> None:
        self.on_committed = on_committed

    def on_end(self, stage: str, ending: Ending, because: str) -> None:
        """Not looked at."""
