"""Several pictures for one thread: what comes of each when one fails, is stuck, or ends everything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import anyio.to_thread
import pytest

from skicyclerun.actors import picture_batch
from skicyclerun.actors.picture_batch import PictureBatch
from skicyclerun.errors import PhotoError, PhotoTransient, StagePaused

TOO_LONG = PhotoTransient("it took too long")


class Given:
    """Pictures by name: what is to come of them, and who was asked for what."""

    def __init__(self, **outcomes: Exception | Callable[[], None]) -> None:
        self.outcomes = outcomes
        self.begun: list[str] = []
        self.threads: set[int] = set()
        self.abandoned: list[str] = []

    def make(self, name: str) -> str:
        self.begun.append(name)
        self.threads.add(threading.get_ident())
        outcome = self.outcomes.get(name)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            outcome()
        return name.upper()

    async def carried_out(self, *names: str, seconds: float = 60) -> list[str | Exception | None]:
        return await PictureBatch(names, self.make).carry_out(seconds, TOO_LONG, self.abandoned.append)


@contextmanager
def stuck() -> Iterator[Callable[[], None]]:
    """Work that does not end before the block does."""
    released = threading.Event()

    def wait() -> None:
        released.wait(60)

    try:
        yield wait
    finally:
        released.set()


async def test_one_thread_does_them_one_after_the_other() -> None:
    given = Given()
    assert await given.carried_out("a", "b", "c") == ["A", "B", "C"]
    assert given.begun == ["a", "b", "c"]
    assert len(given.threads) == 1


async def test_a_picture_that_fails_costs_the_others_nothing() -> None:
    damaged, gone = PhotoError("damaged"), FileNotFoundError()
    assert await Given(a=damaged, b=gone).carried_out("a", "b", "c") == [damaged, gone, "C"]


@pytest.mark.parametrize("error", [StagePaused("no rights any more"), ZeroDivisionError()])
async def test_what_is_no_picture_s_own_failure_begins_no_further_one(error: Exception) -> None:
    given = Given(b=error)
    assert await given.carried_out("a", "b", "c") == ["A", error, None]
    assert given.begun == ["a", "b"]


async def test_slow_pictures_go_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_batch, "BATCH_SECONDS", 0.0)
    assert await Given().carried_out("a", "b") == ["A", None]


async def test_one_that_is_stuck_is_given_up_and_what_came_before_it_counts() -> None:
    with stuck() as forever:
        given = Given(b=forever)
        assert await given.carried_out("a", "b", "c", seconds=0.5) == ["A", TOO_LONG, None]
    assert given.abandoned == ["b"]


async def test_what_comes_after_it_was_given_up_counts_no_more_and_nothing_further_is_begun() -> None:
    ended = threading.Event()

    def make(name: str) -> str:
        try:
            return given.make(name)
        finally:
            ended.set()

    with stuck() as forever:
        given = Given(a=forever)
        came = await PictureBatch(("a", "b"), make).carry_out(0.0, TOO_LONG, given.abandoned.append)
    await anyio.to_thread.run_sync(ended.wait, 60)
    assert came == [TOO_LONG, None]
    assert given.begun == ["a"]


async def test_a_run_that_is_cancelled_abandons_the_picture_in_hand() -> None:
    begun = threading.Event()
    with stuck() as forever:

        def wait() -> None:
            begun.set()
            forever()

        given = Given(a=wait)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(given.carried_out, "a", "b")
            await anyio.to_thread.run_sync(begun.wait, 60)
            tasks.cancel_scope.cancel()
    assert given.abandoned == ["a"]
