"""How often a server is asked, and when it is left alone.

One request at a time, no sooner than it wants, none while it is down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

FAILURES_UNTIL_DOWN: Final = 3
"""Consecutive failures after which a server counts as down."""
FIRST_REST_SECONDS: Final = 60.0
LONGEST_REST_SECONDS: Final = 900.0


class Stopped(Exception):
    """The run ends; nobody is asked any more."""


class Pace:
    """One request at a time, and from the end of one to the beginning of the next at least the delay.

    From the end, because nobody here knows when the server got it: a connection that had to be made first takes longer
    than the next request on it, and the server sees the two nearer together than they were sent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._ended = float("-inf")
        self._not_before = float("-inf")

    @contextmanager
    def turn(self, delay_seconds: float, stopped: threading.Event) -> Iterator[None]:
        """Wait for one's turn; the request belongs inside, with `asked` after it. Raises Stopped."""
        with self._turn:
            while (wait := max(self._ended + delay_seconds, self._not_before) - self._clock()) > 0:
                if stopped.wait(wait):
                    break
            if stopped.is_set():
                raise Stopped
            yield

    def asked(self) -> None:
        """A request was made and has ended, well or badly."""
        self._ended = self._clock()

    def hold_off(self, seconds: float) -> None:
        """The server wants to be left alone for so long, from now on."""
        self._not_before = max(self._not_before, self._clock() + seconds)


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


@dataclass(frozen=True, slots=True)
class Server:
    """What all who ask a server share."""

    pace: Pace = field(default_factory=Pace)
    breaker: Breaker = field(default_factory=Breaker)


_servers: Final[dict[str, Server]] = {}
_servers_lock: Final = threading.Lock()


def server_of(host: str) -> Server:
    """The one of this process: two stages, or two runs, that ask a server keep its pace together."""
    with _servers_lock:
        return _servers.setdefault(host, Server())


def forget_servers() -> None:
    """As in a new process; for tests, whose servers take one another's ports."""
    with _servers_lock:
        _servers.clear()
