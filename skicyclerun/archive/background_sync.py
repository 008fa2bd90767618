"""Handing what was written to the disk while more is being written.

Left to the kernel, gigabytes of dirty pages pile up and the final fsync waits for all of them. Syncing every few dozen
megabytes on a thread of its own overlaps the disk with hashing (a fifth of the time of 500 MB here), keeps the page
cache small, and shows a full or failing disk early.
"""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import Final

_EVERY: Final = 64 * 1024 * 1024


class BackgroundSync:
    """Tell it what was written with `wrote`. An error of the disk is raised by the next `wrote`, or on leaving.

    It must not be lost: Linux reports a failed write-back to one fsync only.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._since = 0
        self._due = threading.Event()
        self._done = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="archive-sync", daemon=True)
        self._thread.start()

    def __enter__(self) -> BackgroundSync:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done = True
        self._due.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def wrote(self, count: int) -> None:
        """Raises OSError when an earlier sync failed."""
        if self._error is not None:
            raise self._error
        self._since += count
        if self._since >= _EVERY:
            self._since = 0
            self._due.set()

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._done:
                return
            try:
                # macOS has no fdatasync; its fsync does not flush the drive's cache, which is for the end.
                if sys.platform == "darwin":
                    os.fsync(self._descriptor)
                else:
                    os.fdatasync(self._descriptor)
            except OSError as error:
                self._error = error
                return
