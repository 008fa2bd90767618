"""How often a server is asked, and when it is left alone.

One request at a time, no sooner than it wants, none while it is down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

FAILURES_UNTIL_DOWN: Final = 3
"""Consecutive failures after which a server counts as down."""
FIRST_REST_SECONDS: Final = 60.0
LONGEST_REST_SECONDS: Final = 900.0


class Stopped(Exception):
    """The run ends; nobody is asked any more."""


class Pace:
    """One request at a time, and from the end of one to the beginning of the next at least `delay_seconds`.

    From the end, because nobody here knows when the server got it: a connection that had to be made first takes longer
    than the next request on it, and the server sees the two nearer together than they were sent.
    """

    def __init__(self, delay_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._delay = delay_seconds
        self._clock = clock
        self._turn = threading.Lock()
        self._next = clock()
        self._stopped = threading.Event()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn; the request belongs inside, with `asked` after it. Raises Stopped."""
        with self._turn:
            while (wait := self._next - self._clock()) > 0:
                if self._stopped.wait(wait):
                    break
            if self._stopped.is_set():
                raise Stopped
            yield

    def asked(self) -> None:
        """A request was made and has ended, well or badly."""
        self._next = max(self._next, self._clock() + self._delay)

    def hold_off(self, seconds: float) -> None:
        """The server wants to be left alone for so long, from now on."""
        self._next = max(self._next, self._clock() + seconds)

    def stop(self) -> None:
        """Wake everybody who waits."""
        self._stopped.set()


class Breaker:
    """Keeps why a server is not asked for a while, so that an album does not wait for it photo by photo.

    After FAILURES_UNTIL_DOWN failures in a row it rests for a minute, then one request may try; each further failure
    doubles the rest, up to a quarter of an hour. An answer ends it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self._rest = FIRST_REST_SECONDS
        self._reason = ""

    def reason(self) -> str:
        """Why it is not to be asked now; empty if it may be."""
        with self._lock:
            return self._reason if self._clock() < self._until else ""

    def answered(self) -> None:
        with self._lock:
            self._failures, self._until, self._rest, self._reason = 0, 0.0, FIRST_REST_SECONDS, ""

    def failed(self, reason: str, *, at_once: bool = False, rest_seconds: float | None = None) -> None:
        """`at_once`: it is no use to ask two more times; `rest_seconds`: how long it wants to be left alone."""
        with self._lock:
            self._failures += 1
            if not at_once and rest_seconds is None and self._failures < FAILURES_UNTIL_DOWN:
                return
            self._reason = reason
            self._until = self._clock() + (self._rest if rest_seconds is None else rest_seconds)
            if rest_seconds is None:
                self._rest = min(self._rest * 2, LONGEST_REST_SECONDS)
