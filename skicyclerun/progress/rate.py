"""How fast something goes, and how long the rest will take: recent minutes count more than the beginning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Rate:
    """Units a second, with exponentially fading memory.

    Amounts arrive in bursts (photos are committed in groups) and differ in size, so both the amounts and the time they
    took fade at the same pace: the estimate moves little from one burst to the next and follows a lasting change
    within about `memory` seconds.
    """

    def __init__(self, *, memory: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory = memory
        self._clock = clock
        self._last = clock()
        self._amount = 0.0
        self._seconds = 0.0

    def add(self, amount: float) -> None:
        """`amount` units were finished just now."""
        now = self._clock()
        elapsed = max(0.0, now - self._last)
        fade = math.exp(-elapsed / self._memory)
        self._amount = self._amount * fade + amount
        self._seconds = self._seconds * fade + elapsed
        self._last = now

    def resume(self) -> None:
        """There was nothing to do since the last amount: that time does not count."""
        self._last = max(self._last, self._clock())

    def per_second(self) -> float:
        """Units a second; sinks while nothing arrives, 0 before the first."""
        seconds = self._seconds + max(0.0, self._clock() - self._last)
        return self._amount / seconds if seconds > 0 else 0.0

    def seconds_left(self, remaining: float) -> float | None:
        """Seconds for `remaining` further units; None while too little is known to say."""
        rate = self.per_second()
        if remaining <= 0:
            return 0.0
        return remaining / rate if self._seconds >= 1.0 and rate > 0 else None
