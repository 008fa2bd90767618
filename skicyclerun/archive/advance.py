"""What long work on archives tells while it goes on, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skicyclerun.errors import ArchiveStopped

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""
Stop = Callable[[], bool]
"""Asked between blocks; True ends the work with ArchiveStopped."""


@dataclass(slots=True)
class Advance:
    """Call it with the bytes just done. Raises ArchiveStopped, saying `stopped`."""

    total: int
    progress: Progress | None
    stop: Stop | None
    stopped: str
    done: int = 0

    def __call__(self, count: int) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
        if self.stop is not None and self.stop():
            raise ArchiveStopped(self.stopped)
