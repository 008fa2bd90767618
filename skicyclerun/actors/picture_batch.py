"""Several pictures of a stage given to one thread, which does one after the other: one hop for all of them.

No further picture is begun after a quarter of a second, so that slow ones go one at a time and a stop never waits for
many. Where the time of one is up, what came before it counts, and what was not begun is for another thread; the one
that is stuck is left alone. As `photo_batch` in the export, without its processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import anyio
import anyio.to_thread

from skicyclerun.errors import PhotoError

#: No picture is begun so long after the first.
BATCH_SECONDS: Final = 0.25

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


class PictureBatch(Generic[_Item, _Outcome]):
    """First attempts at some pictures. `await carry_out(…)` once."""

    def __init__(self, items: Sequence[_Item], make: Callable[[_Item], _Outcome]) -> None:
        self._items = items
        self._make = make
        self._lock = threading.Lock()
        self._came: list[_Outcome | Exception | None] = [None] * len(items)
        self._in_hand = 0
        self._given_up = False

    async def carry_out(
        self, seconds: float, too_long: Exception, abandon: Callable[[_Item], None]
    ) -> list[_Outcome | Exception | None]:
        """What came of each picture, None where it was not begun; the first was.

        A picture has `seconds` at least, and a quarter of one more if it is the first; then `too_long` came of it.
        `abandon` is told which one was given up, also where all of it was cancelled.
        """
        finished = False
        try:
            with anyio.move_on_after(seconds + BATCH_SECONDS):
                await anyio.to_thread.run_sync(self._work, abandon_on_cancel=True)
                finished = True
        finally:
            if not finished:
                given_up = self._give_up(too_long)
                if given_up is not None:
                    abandon(given_up)
        return self._came

    def _give_up(self, why: Exception) -> _Item | None:
        """The picture in hand, which is none any more; None where the last one had just come."""
        with self._lock:
            self._given_up = True
            if self._came[self._in_hand] is not None:
                return None
            self._came[self._in_hand] = why
            return self._items[self._in_hand]

    # ── in a worker thread ────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        until = time.monotonic() + BATCH_SECONDS
        for index, item in enumerate(self._items):
            if (index and time.monotonic() >= until) or not self._begin(index):
                return
            came: _Outcome | Exception
            try:
                came = self._make(item)
            except Exception as error:
                came = error
            self._enter(index, came)
            if isinstance(came, Exception) and not isinstance(came, PhotoError | OSError):
                return  # it is not this picture: nothing can go on, or a fault of ours

    def _begin(self, index: int) -> bool:
        with self._lock:
            if not self._given_up:
                self._in_hand = index
            return not self._given_up

    def _enter(self, index: int, came: _Outcome | Exception) -> None:
        with self._lock:
            if not self._given_up:
                self._came[index] = came
