"""SHA-256 on threads of its own, beside reading and writing.

hashlib releases the lock for large blocks, so that a block is hashed while the next one is read, CRC'ed and written.
A fixed ring of buffers keeps memory flat: who wants a buffer waits until one has been hashed. Blocks of 256 KiB stay in
a core's cache between reading, writing and hashing; 1 MiB measured a fifth slower.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import queue
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

BLOCK: Final = 256 * 1024
_BUFFERS: Final = 12
_THREADS: Final = min(2, os.cpu_count() or 1)
#: Below this, handing a block over costs more than hashing it.
_INLINE: Final = 32 * 1024


class MemberHash:
    """The hash of one member; its blocks are hashed in order, because all of them go to the same thread."""

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self._hasher: _Hash | None = hashlib.sha256()
        self._hexdigest = ""
        self.is_new = True
        """No block was given yet."""

    def update(self, block: memoryview, *, last: bool) -> None:
        """After the last block the hashing state is let go: an archive may have a hundred thousand members."""
        assert self._hasher is not None
        self._hasher.update(block)
        if last:
            self._hexdigest = self._hasher.hexdigest()
            self._hasher = None

    def hexdigest(self) -> str:
        """Right only after `HashingThreads.drain`."""
        return self._hexdigest if self._hasher is None else self._hasher.hexdigest()


_Job = tuple[MemberHash, memoryview, int, bool]


class HashingThreads:
    """`take` a buffer, fill it, then `hash_and_release` or `release` it."""

    def __init__(self) -> None:
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(memoryview(bytearray(BLOCK)))
        self._lanes: list[queue.SimpleQueue[_Job | threading.Event | None]] = [
            queue.SimpleQueue() for _ in range(_THREADS)
        ]
        self._next_lane = itertools.cycle(range(_THREADS))
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name="archive-hashing", daemon=True)
            for lane in self._lanes
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> HashingThreads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.put(None)
        for thread in self._threads:
            thread.join()

    def new_hash(self) -> MemberHash:
        """For one member; members take turns on the threads."""
        return MemberHash(next(self._next_lane))

    def take(self) -> memoryview:
        """A buffer of BLOCK bytes."""
        return self._free.get()

    def release(self, buffer: memoryview) -> None:
        self._free.put(buffer)

    def hash_and_release(self, member: MemberHash, buffer: memoryview, length: int, *, last: bool) -> None:
        """Hash the first `length` bytes, the last ones of the member or not."""
        if last and length < _INLINE and member.is_new:
            member.update(buffer[:length], last=True)
            self._free.put(buffer)
        else:
            member.is_new = False
            self._lanes[member.lane].put((member, buffer, length, last))

    def drain(self) -> None:
        """Return when everything given has been hashed."""
        for lane in self._lanes:
            done = threading.Event()
            lane.put(done)
            done.wait()

    def _run(self, lane: queue.SimpleQueue[_Job | threading.Event | None]) -> None:
        while True:
            job = lane.get()
            if job is None:
                return
            if isinstance(job, threading.Event):
                job.set()
                continue
            member, buffer, length, last = job
            member.update(buffer[:length], last=last)
            self._free.put(buffer)
