"""SHA-256 on a thread of its own, beside reading and writing.

hashlib releases the lock for large blocks, so that on two cores a block is hashed while the next one is read, CRC'ed
and written. A fixed ring of buffers keeps memory flat: who wants a buffer waits until one has been hashed.
"""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

BLOCK: Final = 1 << 20
_BUFFERS: Final = 4
#: Below this, handing a block over costs more than hashing it.
_INLINE: Final = 32 * 1024


class HashingThread:
    """`take` a buffer, fill it, then `hash_and_release` (or `release`) it. Blocks are hashed in the order given."""

    def __init__(self) -> None:
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._work: queue.Queue[tuple[_Hash, memoryview, int] | None] = queue.Queue()
        for _ in range(_BUFFERS):
            self._free.put(memoryview(bytearray(BLOCK)))
        self._thread = threading.Thread(target=self._run, name="archive-hashing", daemon=True)
        self._thread.start()

    def __enter__(self) -> HashingThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._work.put(None)
        self._thread.join()

    def take(self) -> memoryview:
        """A buffer of BLOCK bytes."""
        return self._free.get()

    def release(self, buffer: memoryview) -> None:
        self._free.put(buffer)

    def hash_and_release(self, hasher: _Hash, buffer: memoryview, length: int, *, whole: bool = False) -> None:
        """Hash the first `length` bytes. `whole`: the only block of its member, which may be hashed at once."""
        if whole and length < _INLINE:
            hasher.update(buffer[:length])
            self._free.put(buffer)
        else:
            self._work.put((hasher, buffer, length))

    def drain(self) -> None:
        """Return when everything given has been hashed."""
        self._work.join()

    def _run(self) -> None:
        while True:
            job = self._work.get()
            if job is None:
                return
            hasher, buffer, length = job
            hasher.update(buffer[:length])
            self._free.put(buffer)
            self._work.task_done()
