"""The pictures of one album, whatever is done with them: several at once, one committer, groups, retries, time-outs.

    feed ──▶ workers (one attempt after the other at a picture) ──▶ settle (a group made durable, then its rows)

The export and every stage after it go through this. The workers share what is to come, and nothing else. Where several
first attempts can be made at a time (`InBatches`), a worker takes several; each comes out as if it had come alone. A
picture that is cut off by a time-out or a stop leaves its row planned, and is done again, the same, at the next start.

A picture that is slow (`PhotoSlow`) is put off: its next attempt comes when the others of the album are done. What it
is called and what is in it was decided before, so the order in which pictures come changes neither.
"""

from __future__ import annotations

import errno
import logging
import math
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar, runtime_checkable

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.errors import (
    DiskFull,
    NotWritable,
    PhotoError,
    PhotoInterrupted,
    PhotoSlow,
    PhotoTransient,
    SkicyclerunError,
    SourceStopped,
)

log = logging.getLogger(__name__)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

#: A batch is worth asking for if it takes so long, and no idle worker minds if it takes no longer.
_LEAST_SECONDS: Final = 0.01
_MOST_PATIENCE: Final = 64
#: Attempts that are not held against a picture, where others were under way over the same line.
_FORGIVEN: Final = 4

_Item = TypeVar("_Item")
_Given = TypeVar("_Given", contravariant=True)
_Outcome = TypeVar("_Outcome")
_Made = TypeVar("_Made", covariant=True)


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
    """Without progress: no picture settled, and none put off for the first time."""
    album_total_seconds: float
    """From the beginning, however well it goes; where `album_seconds` is more, that."""
    attempts: int
    backoff_seconds: float
    pause_after: int


class TransientStreak:
    """Counts failures in a row that may pass; when there are too many `restart` is tried once, then it is over.

    `stopped` makes the error that ends the work, from the count and the last failure. It knows too whether anything has
    worked at all: until then a failure that may be one picture's own may as well be everything's.
    """

    has_worked = False
    """Some picture came through, in this process or before."""

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
        self._refused = 0
        self._restarted = False

    def broken(self) -> None:
        """A picture came through."""
        self.has_worked = True
        self._count = self._refused = 0
        self._restarted = False

    def refused(self, if_every: SourceStopped) -> None:
        """One more that may be the picture's own, while nothing has worked. Raises `if_every` if there are too many."""
        self._refused += 1
        if self._refused >= self._limit:
            raise if_every

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


@dataclass(frozen=True, slots=True)
class Turn:
    """When an attempt began, and how many could be under way then."""

    began: float
    at_once: int = 1


class AtOnce:
    """How many attempts are made at once where all go over one line: as many as it bears.

    Half as many after a failure that may pass (a time-out, a service that asks to slow down), once for all that were
    under way; one more after some successes, and after ever more of them where that was too many. An attempt does not
    begin, and its time does not run, before its turn.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limiter = anyio.CapacityLimiter(most)
        self._successes = 0
        self._patience = 1
        self._changed_at = -math.inf

    @property
    def number(self) -> int:
        """Attempts at once, now."""
        return int(self._limiter.total_tokens)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """One attempt, or one thread's several."""
        async with self._limiter:
            yield Turn(anyio.current_time(), self.number)

    def borne(self) -> None:
        """One came through."""
        self._successes += 1
        if self._successes >= self.number * self._patience and self.number < self._most:
            self._limiter.total_tokens += 1
            self._successes = 0
            if self.number == self._most:
                self._patience = 1

    def too_many(self, turn: Turn) -> None:
        """One has failed in a way that may pass."""
        if turn.began < self._changed_at:
            return  # with more beside it than there are now
        self._limiter.total_tokens = max(1, self.number // 2)
        self._successes = 0
        self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self._changed_at = anyio.current_time()
        log.info("the line bears less: %d at once from now on", self.number)


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


@runtime_checkable
class InBatches(Protocol[_Given, _Made]):
    """Work whose first attempts may be made several at a time, where one alone costs less than to ask for it."""

    @property
    def batch_photos(self) -> int:
        """At most so many at a time; 1: each alone, by `attempt`."""
        ...

    async def attempt_several(self, items: Sequence[_Given]) -> Sequence[_Made | Exception | None]:
        """The first attempt at each: its outcome, what `attempt` would have raised, or None where it was not begun.

        The first item is begun; of the others as many as take a moment. What was not begun is given again.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Refused(Generic[_Item]):
    """A picture that failed while nothing had worked: whether that was its own fault is told by the others."""

    item: _Item
    error: PhotoError
    attempts: int


class Reached:
    """How far the work on an album has come, for the album after it. Nothing more is reached where an error ends it."""

    def __init__(self) -> None:
        self.all_begun = anyio.Event()
        """No picture waits for its first attempt, nor, as far as is known, for another one."""
        self.all_made = anyio.Event()
        """No attempt is made any more; the last of what came is settled, or is about to be."""
        self.ended = anyio.Event()
        """The album's end is committed and told."""

    def end(self) -> None:
        """All of it."""
        for event in (self.all_begun, self.all_made, self.ended):
            event.set()


class InTurn:
    """Await it before an album is told of: the album `before` has ended then, and `begin` was called, once."""

    def __init__(self, before: Reached, begin: Callable[[], None]) -> None:
        self._before = before
        self._begin = begin
        self._begun = False

    async def __call__(self) -> None:
        await self._before.ended.wait()
        if not self._begun:
            self._begun = True
            self._begin()


class AlbumWork(Generic[_Item, _Outcome]):
    """One album's pictures. `await run(…)` returns when all are settled, or nothing more may be begun."""

    def __init__(
        self,
        work: Work[_Item, _Outcome],
        limits: WorkLimits,
        streak: TransientStreak,
        stop: Callable[[], bool],
        reached: Reached | None = None,
        at_once: AtOnce | None = None,
    ) -> None:
        """`at_once`: shared by all albums whose pictures go over one line."""
        self._work = work
        self._at_once = at_once
        # Asked once: whether a protocol is kept to takes longer than much of what is done for a picture.
        self._in_batches: InBatches[_Item, _Outcome] | None = work if isinstance(work, InBatches) else None
        self._limits = limits
        self._streak = streak
        self._stop = stop
        self._time = anyio.CancelScope()
        self._ends_at = self._progressed_at = anyio.current_time()
        self._put_off: list[tuple[_Item, int]] = []
        self._first_round = True
        self._refused: list[_Refused[_Item]] = []
        self._refusals: list[SourceStopped] = []
        self._settled = 0
        self._seconds_each = math.inf
        """What a picture of the last batch took; not known before the first."""
        self._fitting = sys.maxsize
        """How many were begun where a batch was cut short, and then more again: what is not begun was found in vain."""
        self.timed_out = False
        self._reached = reached or Reached()

    async def run(self, items: Sequence[_Item]) -> None:
        """Do what can be done before `album_seconds` pass without progress, or `album_total_seconds` in all.

        `timed_out` says whether that was too little.

        Errors that end more than this album come within an ExceptionGroup; what is durable by then is committed.
        """
        send_outcome, receive_outcome = anyio.create_memory_object_stream[list[_Outcome]](self._limits.group_photos)
        self._ends_at = anyio.current_time() + self._total_seconds
        self._progressed()
        async with anyio.create_task_group() as settling:
            settling.start_soon(self._settle_in_groups, receive_outcome)
            async with send_outcome:
                with self._time:
                    await self._in_rounds(items, send_outcome)
                self._reached.all_begun.set()
                self._reached.all_made.set()
            self.timed_out = self._time.cancelled_caught

    def expect(self, seconds: float) -> None:
        """An attempt is given so long. Where that is more than `photo_seconds`, the album's time waits for it."""
        longer = max(0.0, seconds - self._limits.photo_seconds)
        self._wait_until(self._progressed_at + self._limits.album_seconds + longer)

    @property
    def time_out_in_words(self) -> str:
        """Which of the two times was up."""
        section = self._limits.section
        if self._time.deadline >= self._ends_at:
            return f"time-out after {self._total_seconds:g} s ({section}.timeouts.album_total)"
        return f"time-out after {self._limits.album_seconds:g} s without progress ({section}.timeouts.album)"

    @property
    def _total_seconds(self) -> float:
        return max(self._limits.album_total_seconds, self._limits.album_seconds)

    @property
    def every_one_refused(self) -> SourceStopped | None:
        """What it would mean if it were everywhere as in this album: several pictures, and each was refused."""
        return self._refusals[-1] if len(self._refusals) == self._settled > 1 else None

    def _progressed(self) -> None:
        self._progressed_at = anyio.current_time()
        self._wait_until(self._progressed_at + self._limits.album_seconds)

    def _wait_until(self, time: float) -> None:
        now_at = self._time.deadline if self._time.deadline != math.inf else 0.0
        self._time.deadline = min(self._ends_at, max(now_at, time))

    async def _in_rounds(self, items: Sequence[_Item], outbox: MemoryObjectSendStream[list[_Outcome]]) -> None:
        """All pictures once, then those that were put off, until none is left or nothing more may be begun."""
        coming = [(item, 1) for item in items]
        while coming and not self._stop():
            self._put_off = []
            feed = deque(coming)  # the workers share it: each takes what comes next as soon as it is free
            async with anyio.create_task_group() as working:
                for _ in range(min(self._limits.workers, len(coming))):
                    working.start_soon(self._work_through, feed, outbox)
            coming, self._first_round = self._put_off, False
        if not self._stop():
            await self._judge_refused(outbox)

    async def _judge_refused(self, outbox: MemoryObjectSendStream[list[_Outcome]]) -> None:
        """Every picture of several, and nothing has ever worked: it is not the pictures. Otherwise each fails alone."""
        if len(self._refused) > 1 and not self._settled and not self._streak.has_worked:
            raise self._refusals[-1]
        for each in self._refused:
            await self._send([self._work.failed(each.item, each.error, str(each.error), each.attempts)], outbox)

    async def _work_through(
        self, feed: deque[tuple[_Item, int]], outbox: MemoryObjectSendStream[list[_Outcome]]
    ) -> None:
        while feed and not self._stop():
            batch = self._next_batch(feed)
            if len(batch) > 1:
                await self._several(batch, feed, outbox)
                continue
            outcome = await self._with_retries(*feed.popleft())
            if outcome is not None:
                await self._send([outcome], outbox)
        if not feed and not self._put_off:
            self._reached.all_begun.set()

    def _next_batch(self, feed: deque[tuple[_Item, int]]) -> list[_Item]:
        """What comes next, as many as one worker may have at a time; the last ones are shared out evenly, unless they
        are so quick that asking for them would take longer."""
        most = min(self._in_batches.batch_photos, self._fitting) if self._in_batches is not None else 1
        most = min(most, max(len(feed) // (2 * self._limits.workers), int(_LEAST_SECONDS / self._seconds_each)))
        return [item for item, _ in takewhile(lambda one: one[1] == 1, islice(feed, most))]

    async def _several(
        self,
        batch: Sequence[_Item],
        feed: deque[tuple[_Item, int]],
        outbox: MemoryObjectSendStream[list[_Outcome]],
    ) -> None:
        """First attempts at the `batch`, which is what comes next in `feed`; those that failed are then seen to."""
        assert self._in_batches is not None
        for _ in batch:
            feed.popleft()
        async with self._turn() as turn:
            came = [None] * len(batch) if self._stop() else await self._in_batches.attempt_several(batch)
        for one in came:
            if one is not None:
                self._learn(turn, one)
        made = sum(one is not None for one in came)
        self._seconds_each = max((anyio.current_time() - turn.began) / max(made, 1), 0.001)
        self._fitting = max(made, 2) if made < len(batch) else max(2 * made, self._fitting)
        feed.extendleft((item, 1) for item, one in zip(reversed(batch), reversed(came), strict=True) if one is None)
        outcomes = [one for one in came if one is not None and not isinstance(one, Exception)]
        if outcomes:
            self._streak.broken()
            await self._send(outcomes, outbox)
        for item, one in zip(batch, came, strict=True):
            if isinstance(one, Exception):
                outcome = await self._with_retries(item, 1, one)
                if outcome is not None:
                    await self._send([outcome], outbox)

    async def _send(self, outcomes: list[_Outcome], outbox: MemoryObjectSendStream[list[_Outcome]]) -> None:
        self._settled += len(outcomes)
        self._progressed()
        await outbox.send(outcomes)

    async def _with_retries(self, item: _Item, first: int, raised: Exception | None = None) -> _Outcome | None:
        """Attempts from the `first`-th on, if its failure may pass. None: stopped before it was settled, or put off.

        `raised` is what came of the first one where that was made already.
        """
        name, limits = self._work.name_of(item), self._limits
        if first > 1:
            await anyio.sleep(limits.backoff_seconds)
        forgiven = 0
        for number in count(first):
            try:
                if raised is not None:
                    error_of_first, raised = raised, None
                    raise error_of_first
                outcome = await self._attempted(item, number)
            except PhotoInterrupted:
                return None  # Its row stays planned, for the resume.
            except PhotoTransient as error:
                log.info("%s, attempt %d: %s", name, number, error)
                await self._streak.longer(error)
                if error.had_company and forgiven < _FORGIVEN:
                    forgiven += 1  # It may have been those beside it.
                elif number >= limits.attempts + forgiven:
                    reason = str(error)
                    if number > 1:
                        reason = f"{reason.removesuffix('.')}. Tried {number} times."
                    return self._work.failed(item, error, reason, number)
                if self._stop():
                    return None
                if isinstance(error, PhotoSlow):
                    self._put_off.append((item, number + 1))
                    if self._first_round:
                        self._progressed()
                    return None
                await anyio.sleep(limits.backoff_seconds * 2 ** (number - 1 - forgiven))
            except PhotoError as error:
                # Its album says it in the log too, in a line; this is what lies behind it.
                log.debug("%s: %s", name, error, exc_info=error)
                if error.if_every is not None:
                    self._refusals.append(error.if_every)
                    if not self._streak.has_worked:
                        self._streak.refused(error.if_every)
                        self._refused.append(_Refused(item, error, number))
                        return None
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

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Turn]:
        if self._at_once is None:
            yield Turn(anyio.current_time())
        else:
            async with self._at_once.turn() as turn:
                yield turn

    async def _attempted(self, item: _Item, number: int) -> _Outcome:
        async with self._turn() as turn:
            if self._at_once is not None and self._stop():
                raise PhotoInterrupted("the run is to stop")
            try:
                outcome = await self._work.attempt(item, number)
            except PhotoTransient as error:
                self._learn(turn, error)
                error.had_company = turn.at_once > 1
                raise
        self._learn(turn, outcome)
        return outcome

    def _learn(self, turn: Turn, came: _Outcome | Exception) -> None:
        if self._at_once is None:
            return
        if isinstance(came, PhotoTransient):
            self._at_once.too_many(turn)
        elif not isinstance(came, Exception):
            self._at_once.borne()

    async def _settle_in_groups(self, inbox: MemoryObjectReceiveStream[list[_Outcome]]) -> None:
        """Collect outcomes into groups of `group_photos`, or of `group_seconds`, and settle each group."""
        async with inbox:
            group: list[_Outcome] = []
            due = 0.0
            while True:
                timeout = max(due - anyio.current_time(), 0.0) if group else None
                try:
                    with anyio.fail_after(timeout):
                        outcomes = await inbox.receive()
                except TimeoutError:
                    outcomes = []
                except anyio.EndOfStream:
                    break
                if outcomes and not group:
                    due = anyio.current_time() + self._limits.group_seconds
                group += outcomes
                while len(group) >= self._limits.group_photos:
                    full, group = group[: self._limits.group_photos], group[self._limits.group_photos :]
                    await self._work.settle(full)
                    due = anyio.current_time() + self._limits.group_seconds
                if group and anyio.current_time() >= due:
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
