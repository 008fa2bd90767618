"""Rendering in processes of its own, so that the interpreter's lock of one process is no bound for the export.

A process (`render_worker`) is sent photos, two dozen at a time, and answers each as soon as it is rendered. It can be
killed, which a thread cannot: one that is stuck on a photo is, and so is every other when the export ends. One that
dies by itself (the system takes away its memory, a decoder crashes) fails the photo it was at, for another attempt.

What is sent: (a function, its last argument, a tuple of its other arguments for each photo, seconds). After so many
seconds no further photo is begun. What comes back, pickled one after the other: "ready", once; then for each photo
what the function returned or raised; then None.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from skicyclerun.errors import PhotoTransient
from skicyclerun.models import Component, ExportedFacts, Fetched
from skicyclerun.settings.export_options import ExportOptions

log = logging.getLogger(__name__)

#: Renders fetched bytes into a staged file; blocking. A function of a module, where processes are to call it.
RenderFunction = Callable[[Fetched, Component, Path, ExportOptions], ExportedFacts]
#: What it is called with, but for the options.
RenderJob = tuple[Fetched, Component, Path]

_START_SECONDS: Final = 60.0
_VARIABLE: Final = "SKICYCLERUN_RENDER_PROCESSES"


def render(fetched: Fetched, component: Component, staged: Path, options: ExportOptions) -> ExportedFacts:
    """Render one photo (`skicyclerun.images.render`). The image stack is imported by the first photo that needs it."""
    from skicyclerun.images.render import RenderOptions, render_photo

    wanted = RenderOptions(
        format=options.format,
        quality=options.jpeg_quality,
        max_pixels=options.max_pixels,
        sidecar="json" if options.sidecar == "json" else "xmp",
        strip_location=options.strip_location,
        max_size=options.max_size,
        person_keywords=options.person_keywords,
    )
    return render_photo(fetched, component, staged, wanted)


class NoProcess(Exception):
    """No process can be had here; threads render as well."""


class _Died(Exception):
    """The process is no more."""


class RenderProcess:
    """One process. For one thread at a time, but for `kill`."""

    def __init__(self) -> None:
        """Start it, and wait until it can work. Raises NoProcess."""
        if getattr(sys, "frozen", False) or not sys.executable:
            raise NoProcess("there is no Python to start")  # a program that was packed into one file starts itself
        # What this program imports from, and nothing else: -P keeps the working directory out.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        command = [sys.executable, "-P", "-m", "skicyclerun.actors.render_worker"]
        try:
            # A process group of its own: Ctrl-C is for the parent, which decides what is finished.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                process_group=0,
            )
        except (OSError, ValueError, TypeError) as error:
            raise NoProcess(f"none can be started: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout
        self._answering = False
        patience = threading.Timer(_START_SECONDS, self._process.kill)
        patience.start()
        try:
            self._next()  # that it is ready
        except _Died as error:
            self.end()
            raise NoProcess(f"one was started and could not work ({self._ending()})") from error
        finally:
            patience.cancel()

    @property
    def pid(self) -> int:
        return self._process.pid

    def render(
        self, function: RenderFunction, options: ExportOptions, jobs: Sequence[RenderJob], seconds: float
    ) -> Iterator[ExportedFacts | Exception]:
        """What came of each, in order, as soon as it is there; of fewer than all where the seconds are up.

        If the process dies, its photo's answer is PhotoTransient and the last one.
        """
        self._answering = True
        try:
            try:
                pickle.dump((function, options, list(jobs), seconds), self._questions, pickle.HIGHEST_PROTOCOL)
                self._questions.flush()
            except OSError as error:
                raise _Died from error
            while (answer := self._next()) is not None:
                assert isinstance(answer, ExportedFacts | Exception)
                yield answer
            self._answering = False
        except _Died:
            self.end()
            yield PhotoTransient(f"the process that was rendering it ended unexpectedly ({self._ending()})")

    def _next(self) -> object:
        try:
            return pickle.load(self._answers)
        except (EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
            raise _Died from error

    def _ending(self) -> str:
        code = self._process.returncode or 0
        if code == -signal.SIGKILL:
            return "killed, as a system does that runs out of memory"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    @property
    def ready(self) -> bool:
        """Whether it can be asked again; one that was left in the middle of its answers would give them then."""
        return not self._answering and self._process.poll() is None

    def kill(self) -> None:
        """End it at once, from any thread; whoever waits for its answers hears that it died."""
        self._process.kill()

    def end(self) -> None:
        """Wait for its end, which has come or is about to; where it is not, kill it."""
        with suppress(OSError):  # what it was not told any more
            self._questions.close()
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


class RenderProcesses:
    """As many processes as are wanted at once, each started when it is; they end with `close`, or with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[RenderProcess] = set()
        self._idle: list[RenderProcess] = []
        self._closed = False
        self._unavailable = False

    @property
    def available(self) -> bool:
        """False once one could not be had; then it is not tried again."""
        return not self._unavailable

    @contextmanager
    def one(self) -> Iterator[RenderProcess]:
        """One for this thread. Raises NoProcess."""
        process = self._take()
        try:
            yield process
        finally:
            self._put_back(process)

    def _take(self) -> RenderProcess:
        with self._lock:
            if self._closed or self._unavailable:
                raise NoProcess
            if self._idle:
                return self._idle.pop()
        try:
            process = RenderProcess()
        except NoProcess as error:
            self._unavailable = True
            log.warning("photos are rendered in threads, not in processes: %s", error)
            raise
        if self._enter(process):
            return process
        process.kill()
        process.end()
        raise NoProcess

    def _enter(self, process: RenderProcess) -> bool:
        with self._lock:
            if not self._closed:
                self._all.add(process)
            return not self._closed

    def _put_back(self, process: RenderProcess) -> None:
        with self._lock:
            if process.ready and not self._closed:
                self._idle.append(process)
                return
            self._all.discard(process)
        process.kill()
        process.end()

    def close(self) -> None:
        """End them all, also those that are at work. Safe to call twice."""
        with self._lock:
            self._closed = True
            ending, self._all, self._idle = self._all, set(), []
        for process in ending:
            process.kill()
        for process in ending:
            process.end()


def wanted(photos: int, workers: int, *, enough: int) -> bool:
    """Whether so many photos are worth the start of processes; a third of a second of CPU for each.

    `SKICYCLERUN_RENDER_PROCESSES` is `always` or `never` for tests and measurements.
    """
    said = os.environ.get(_VARIABLE, "")
    if said in ("always", "never"):
        return said == "always"
    return workers > 1 and (os.cpu_count() or 1) > 1 and photos >= enough
