"""Some two dozen photos of a source that has them on this disk: one hop to a thread for all, one after the other there.

A batch begins no further photo after a quarter of a second, so that large pictures go one at a time and a stop never
waits for them all. The event loop looks on: a photo that takes longer than it may ends the batch, and what was not
begun is for another one. Where the photos are rendered in processes, the thread waits for one of them, and the process
that is stuck is killed; a thread that is stuck is left alone, and writes to a name nobody uses again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from skicyclerun.actors.render_processes import NoProcess, RenderFunction, RenderJob, RenderProcess, RenderProcesses
from skicyclerun.errors import PhotoError, PhotoSlow
from skicyclerun.models import Component, ExportedFacts
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import InPlace, TimeLimits
from skicyclerun.state.photos import PhotoToDo

#: At most so many photos, and none begun after so long. At 1 ms a photo two dozen cost the hop once for 24 ms of work.
BATCH_PHOTOS: Final = 24
BATCH_SECONDS: Final = 0.25
#: How often the event loop looks whether the time of the photo in hand has changed.
_LOOK_SECONDS: Final = 1.0


class PhotoBatch:
    """Photos and the staging files they go to. `await carry_out()` once."""

    def __init__(
        self,
        photos: Sequence[tuple[PhotoToDo, Path]],
        source: InPlace,
        render: RenderFunction,
        options: ExportOptions,
        limits: TimeLimits,
        processes: RenderProcesses | None,
    ) -> None:
        self._photos = photos
        self._source = source
        self._render = render
        self._options = options
        self._limits = limits
        self._processes = processes
        self._lock = threading.Lock()
        self._came: list[ExportedFacts | Exception | None] = [None] * len(photos)
        self._given_up = False
        self._killable: RenderProcess | None = None
        self._at: tuple[int, float, float] | None = (0, time.monotonic(), limits.seconds(self._component(0)))
        """Which photo is in hand, since when, and how long it may take; None while a process is being started."""

    async def carry_out(self, expect: Callable[[float], None]) -> list[ExportedFacts | Exception | None]:
        """What came of each photo, None where it was not begun; the first was.

        `expect` is told how long the photo in hand is given. A cancellation gives the batch up.
        """
        finished = anyio.Event()

        async def in_a_thread() -> None:
            await anyio.to_thread.run_sync(self._work, abandon_on_cancel=True)
            finished.set()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(in_a_thread)
                while not finished.is_set():
                    if (at := self._at) is not None:
                        expect(at[2])
                    with anyio.move_on_after(min(self._seconds_left(), _LOOK_SECONDS)):
                        await finished.wait()
                    if not finished.is_set() and self._give_up_slow():
                        tasks.cancel_scope.cancel()
                        break
        finally:
            self._give_up()
        return self._came

    def _component(self, index: int) -> Component:
        return self._photos[index][0].photo.component

    def _seconds_left(self) -> float:
        at = self._at
        return _LOOK_SECONDS if at is None else max(0.0, at[1] + at[2] - time.monotonic())

    def _give_up_slow(self) -> bool:
        """Give up the photo in hand if its time is up, and with it the batch."""
        with self._lock:
            if self._at is None or self._seconds_left() > 0:
                return False
            index, _, limit = self._at
            self._came[index] = PhotoSlow(f"it took longer than {limit:g} s ({time_setting(self._component(index))})")
        self._give_up()
        return True

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            process, self._killable = self._killable, None
        if process is not None:
            process.kill()

    # ── in a worker thread ────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        jobs: list[tuple[int, int, RenderJob]] = []
        for index, (photo, staged) in enumerate(self._photos):
            component = self._component(index)
            if not self._begin(index, self._limits.seconds(component)):
                return
            try:
                fetched = self._source.locate(photo.photo)
            except Exception as error:
                self._enter(index, error)
                if not isinstance(error, PhotoError | OSError):
                    break  # it is not this photo: the whole source, or a fault of ours
            else:
                jobs.append((index, size_of(fetched.path), (fetched, component, staged)))
        if not jobs:
            return
        if self._processes is not None and self._processes.available:
            self._at = None
            try:
                with self._processes.one() as process:
                    if self._may_kill(process):
                        sent = [job for _, _, job in jobs]
                        self._take(jobs, process.render(self._render, self._options, sent, BATCH_SECONDS))
                        self._may_kill(None)
                return
            except NoProcess:
                pass
        self._take(jobs, self._in_this_thread(jobs))

    def _take(self, jobs: Sequence[tuple[int, int, RenderJob]], answers: Iterable[ExportedFacts | Exception]) -> None:
        """Enter the answers as they come, and the time of each photo."""
        coming = iter(answers)
        for index, size, _ in jobs:
            if not self._begin(index, self._limits.seconds(self._component(index), size)):
                return
            answer = next(coming, None)
            if answer is None:
                return
            self._enter(index, answer)
        for _ in coming:
            """Until it says that this was all, or that it died meanwhile; all have their answers."""

    def _in_this_thread(self, jobs: Sequence[tuple[int, int, RenderJob]]) -> Iterator[ExportedFacts | Exception]:
        began = time.monotonic()
        for number, (_, _, job) in enumerate(jobs):
            if number and time.monotonic() - began >= BATCH_SECONDS:
                return
            answer: ExportedFacts | Exception
            try:
                answer = self._render(*job, self._options)
            except Exception as error:
                answer = error
            yield answer

    def _begin(self, index: int, limit: float) -> bool:
        """Note which photo is in hand; False if the batch was given up."""
        with self._lock:
            self._at = (index, time.monotonic(), limit)
            return not self._given_up

    def _enter(self, index: int, answer: ExportedFacts | Exception) -> None:
        with self._lock:
            if not self._given_up:
                self._came[index] = answer

    def _may_kill(self, process: RenderProcess | None) -> bool:
        """Whoever gives up kills this process, or none; False if the batch is given up already."""
        with self._lock:
            self._killable = process
            return not self._given_up


def size_of(path: Path) -> int:
    """Bytes; 0 where it cannot be told, which whoever reads the file will say better."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def time_setting(component: Component) -> str:
    """The setting that says how long such a photo may take."""
    return "export.timeouts.photo" if component is Component.STILL else "export.timeouts.movie"
