"""The pictures of one album, whatever is done with them: several at once, one committer, groups, retries, time-outs.

    feed ──▶ workers (one attempt after the other at a picture) ──▶ settle (a group made durable, then its rows)

The export and every stage after it go through this. Nothing is shared but the two streams. A picture that is cut off by
a time-out or a stop leaves its row planned, and is done again, the same, at the next start.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.errors import DiskFull, NotWritable, PhotoError, PhotoTransient, SkicyclerunError

log = logging.getLogger(__name__)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_Item = TypeVar("_Item")
_Given = TypeVar("_Given", contravariant=True)
_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """How fast and how long; of this process, not of the run. Times in seconds."""

    section: str
    """Of the configuration they come from, for what is said of a time-out (`export`)."""
    workers: int
    group_photos: int
    group_seconds: float
    photo_seconds: float
    album_seconds: float
    attempts: int
    backoff_seconds: float
    pause_after: int


class TransientStreak:
    """Counts failures in a row that may pass; when there are too many `restart` is tried once, then it is over.

    `stopped` makes the error that ends the work, from the count and the last failure.
    """

    def __init__(
        self,
        limit: int,
        stopped: Callable[[int, PhotoTransient], SkicyclerunError],
        restart: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._limit = limit
        self._stopped = stopped
        self._restart = restart
        self._count = 0
        self._restarted = False

    def broken(self) -> None:
        """A picture came through."""
        self._count = 0
        self._restarted = False

    async def longer(self, last: PhotoTransient) -> None:
        """One more. Raises what `stopped` makes when the limit is reached and a restart is not to be had or no help."""
        self._count += 1
        if self._count < self._limit:
            return
        if not self._restarted and self._restart is not None:
            self._restarted = True
            if await self._restart():
                self._count = 0
                return
        raise self._stopped(self._count, last)


class Work(Protocol[_Given, _Outcome]):
    """What is done with the pictures, and how its outcomes are entered."""

    def name_of(self, item: _Given) -> str:
        """For the log."""
        ...

    async def attempt(self, item: _Given, number: int) -> _Outcome:
        """One attempt, the `number`-th. Raises PhotoTransient, another PhotoError, or OSError."""
        ...

    def failed(self, item: _Given, error: Exception, reason: str, attempts: int) -> _Outcome:
        """How it is entered that a picture was given up, after so many attempts."""
        ...

    def raise_if_ours(self, error: OSError) -> None:
        """Raise DiskFull or NotWritable where the error is at what we write; return where it is the picture's own."""
        ...

    async def settle(self, group: Sequence[_Outcome]) -> None:
        """Make a group durable, then commit its rows. Must be shielded: once begun it is finished."""
        ...


class AlbumWork(Generic[_Item, _Outcome]):
    """One album's pictures. `await run(…)` returns when all are settled, or nothing more may be begun."""

    def __init__(
        self, work: Work[_Item, _Outcome], limits: WorkLimits, streak: TransientStreak, stop: Callable[[], bool]
    ) -> None:
        self._work = work
        self._limits = limits
        self._streak = streak
        self._stop = stop
        self.timed_out = False

    async def run(self, items: Sequence[_Item]) -> None:
        """Do what can be done within `album_seconds`; `timed_out` says whether that was too little.

        Errors that end more than this album come within an ExceptionGroup; what is durable by then is committed.
        """
        send_work, receive_work = anyio.create_memory_object_stream[_Item](0)
        send_outcome, receive_outcome = anyio.create_memory_object_stream[_Outcome](self._limits.group_photos)
        async with anyio.create_task_group() as settling:
            settling.start_soon(self._settle_in_groups, receive_outcome)
            # The workers share the streams, and they are closed here: a clone given to a task that is cancelled before
            # its first step would never be closed.
            async with send_outcome, receive_work:
                with anyio.move_on_after(self._limits.album_seconds) as limit:
                    async with anyio.create_task_group() as working:
                        working.start_soon(self._feed, send_work, items)
                        for _ in range(min(self._limits.workers, max(len(items), 1))):
                            working.start_soon(self._work_through, receive_work, send_outcome)
            self.timed_out = limit.cancelled_caught

    async def _feed(self, outbox: MemoryObjectSendStream[_Item], items: Sequence[_Item]) -> None:
        async with outbox:
            for item in items:
                if self._stop():
                    return
                await outbox.send(item)

    async def _work_through(
        self, inbox: MemoryObjectReceiveStream[_Item], outbox: MemoryObjectSendStream[_Outcome]
    ) -> None:
        async for item in inbox:
            if self._stop():
                continue  # Handed over while the signal came; its row stays planned.
            outcome = await self._with_retries(item)
            if outcome is not None:
                await outbox.send(outcome)

    async def _with_retries(self, item: _Item) -> _Outcome | None:
        """Several attempts, if its failure may pass. None: stopped before it was settled."""
        name, limits = self._work.name_of(item), self._limits
        for number in range(1, limits.attempts + 1):
            try:
                outcome = await self._work.attempt(item, number)
            except PhotoTransient as error:
                log.info("%s, attempt %d: %s", name, number, error)
                await self._streak.longer(error)
                if number == limits.attempts:
                    reason = str(error)
                    if number > 1:
                        reason = f"{reason.removesuffix('.')}. Tried {number} times."
                    return self._work.failed(item, error, reason, number)
                if self._stop():
                    return None
                await anyio.sleep(limits.backoff_seconds * 2 ** (number - 1))
            except PhotoError as error:
                # Its album says it in the log too, in a line; this is what lies behind it.
                log.debug("%s: %s", name, error, exc_info=error)
                return self._work.failed(item, error, str(error), number)
            except OSError as error:
                self._work.raise_if_ours(error)
                log.debug("%s: %s", name, error, exc_info=error)
                return self._work.failed(item, error, f"it cannot be read: {error.strerror or error}", number)
            except SkicyclerunError:
                raise
            except Exception as error:
                # A fault of ours, or of a decoder over a strange file: this photo fails, ten thousand others go on.
                log.critical("%s: unexpected", name, exc_info=error)
                reason = f"an unexpected error ({type(error).__name__}: {error}); the log file has the details"
                return self._work.failed(item, error, reason, number)
            else:
                self._streak.broken()
                return outcome
        raise AssertionError("unreachable: the last attempt returns")

    async def _settle_in_groups(self, inbox: MemoryObjectReceiveStream[_Outcome]) -> None:
        """Collect outcomes into groups of `group_photos`, or of `group_seconds`, and settle each group."""
        async with inbox:
            group: list[_Outcome] = []
            due = 0.0
            while True:
                timeout = max(due - anyio.current_time(), 0.0) if group else None
                try:
                    with anyio.fail_after(timeout):
                        outcome = await inbox.receive()
                except TimeoutError:
                    pass
                except anyio.EndOfStream:
                    break
                else:
                    if not group:
                        due = anyio.current_time() + self._limits.group_seconds
                    group.append(outcome)
                    if len(group) < self._limits.group_photos:
                        continue
                await self._work.settle(group)
                group = []
            if group:
                await self._work.settle(group)


def raise_for_disk(error: OSError, path: Path) -> None:
    """Raise DiskFull or NotWritable if `error` says that the disk takes no more; otherwise return."""
    cause: SkicyclerunError
    if error.errno in _FULL:
        cause = DiskFull(
            f"The disk is full: {path} could not be written. What was exported before is kept.",
            next_step="Free some space, then `skicyclerun run --resume`.",
        )
    elif error.errno == errno.EROFS:
        cause = NotWritable(
            f"The disk is read-only: {path} could not be written. What was exported before is kept.",
            next_step="Make it writable, then `skicyclerun run --resume`.",
        )
    else:
        return
    raise cause from error


def raise_if_written(error: OSError, folder: Path, staging: Path) -> None:
    """`Work.raise_if_ours` for what is staged below `staging` and published into `folder`."""
    raise_for_disk(error, folder)
    where = str(error.filename or "")
    if where.startswith(str(staging)):
        raise not_writable(error, where) from error


def not_writable(error: OSError, where: Path | str) -> NotWritable:
    """That something of ours cannot be written, as a sentence with the next step."""
    return NotWritable(
        f"{where} cannot be written: {error.strerror or error}. What was exported before is kept.",
        next_step="Check the disk, then `skicyclerun run --resume`.",
    )
