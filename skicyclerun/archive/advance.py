"""What long work on archives tells while it goes on, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable

from skicyclerun.errors import ArchiveStopped

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""
Stop = Callable[[], bool]
"""Asked between blocks; True ends the work with ArchiveStopped."""


class Advance:
    """Call it with the bytes just done. Raises ArchiveStopped, saying `stopped`."""

    def __init__(self, total: int, progress: Progress | None, stop: Stop | None, stopped: str) -> None:
        self.done = 0
        self._total = total
        self._progress = progress
        self._stop = stop
        self._stopped = stopped

    def __call__(self, count: int) -> None:
        self.done += count
        if self._progress is not None:
            self._progress(min(self.done, self._total), self._total)
        if self._stop is not None and self._stop():
            raise ArchiveStopped(self._stopped)
