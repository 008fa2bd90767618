"""Runs the AppleScript through `osascript` and says what came of it; the only module that starts that program.

osascript prints what `run` returned on stdout when it ends, `log` lines on stderr as they happen, and an error as the
last line of stderr. Messages are in the user's language and come with several prefixes; only the number in parentheses
at the very end can be relied on. Killing osascript stops neither Photos nor what it is doing.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final, Protocol

import anyio
from anyio.abc import ByteReceiveStream, Process

from skicyclerun.errors import SourceStopped

VERBS: Final = (
    "preflight",
    "list-albums",
    "album-counts",
    "item-ids",
    "item-facts",
    "export-item",
    "choose-albums",
    "choose-folder",
)
"""What our script is called with, in the order in which it looks for them."""

_MOST_OUTPUT: Final = 256 * 1024 * 1024
"""Bytes of stdout kept; a million items with their names are about 60 MB."""
_LONGEST_LINE: Final = 64 * 1024
"""Bytes of one line of stderr kept."""
_DRAIN_SECONDS: Final = 1.0
"""After osascript has ended: how long a process that inherited its pipes may keep them open."""

_FIRST_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 60.0
"""Seconds between two times that the listener hears of waiting."""

_ERROR_NUMBER: Final = re.compile(r"\((-?[0-9]{1,6})\)\s*\Z")
_ERROR_PREFIX: Final = re.compile(r"\A.{0,4096}?(?:execution|syntax) error: ", re.DOTALL)


class Trouble(Enum):
    """What an error number means for the run. The numbers are Apple's (MacErrors.h, AppleScript Language Guide)."""

    DENIED = auto()
    """Photos may not be controlled from here; nothing will work until the person allows it."""
    GONE = auto()
    """There is no such object (any more)."""
    CANCELLED = auto()
    """A dialog was cancelled."""
    BROKEN_SCRIPT = auto()
    """The script does not compile or coerces wrongly: our bug, or a Photos whose dictionary has changed."""
    NO_REPLY = auto()
    """The reply did not come in time. What was asked for is not cancelled and may still happen."""
    NOT_RUNNING = auto()
    """No connection to Photos, or no desktop session to run it in."""
    UNSETTLED = auto()
    """Something that may go better the next time."""


_MEANINGS: Final = {
    -1743: Trouble.DENIED,  # errAEEventNotPermitted
    -1744: Trouble.DENIED,  # errAEEventWouldRequireUserConsent
    -1728: Trouble.GONE,  # errAENoSuchObject
    -128: Trouble.CANCELLED,  # userCanceledErr
    -1712: Trouble.NO_REPLY,  # errAETimeout
    -600: Trouble.NOT_RUNNING,  # procNotFound
    -609: Trouble.NOT_RUNNING,  # connectionInvalid
    -10810: Trouble.NOT_RUNNING,  # kLSUnknownErr: launching failed, as it does without a desktop session
    -1700: Trouble.BROKEN_SCRIPT,  # errAECoercionFail
    -1703: Trouble.BROKEN_SCRIPT,  # errAEWrongDataType
    -1708: Trouble.BROKEN_SCRIPT,  # errAEEventNotHandled
    9001: Trouble.BROKEN_SCRIPT,  # our script: called in a way it does not know
}
# -2701 to -2763: division by zero, syntax errors (-2740, -2741), undefined names (-2753) and their like.
# -2700 is also what `error "…"` without a number gives, so it says nothing.
_SCRIPT_ERRORS: Final = range(-2763, -2700)


def trouble_of(number: int | None) -> Trouble:
    """What an error number means; UNSETTLED for one that nobody here knows, and for none."""
    if number is None:
        return Trouble.UNSETTLED
    if number in _SCRIPT_ERRORS:
        return Trouble.BROKEN_SCRIPT
    return _MEANINGS.get(number, Trouble.UNSETTLED)


class Listener(Protocol):
    """Hears what goes on while a call is at work; called in the event loop."""

    def heard(self, line: str) -> float | None:
        """A line that the script logged. A number: it was for us and is not logged, and so many seconds are left from
        now on; None: it is logged like any other, and the time stays as it is."""
        ...

    def waited(self, seconds: float) -> None:
        """The call has been at work for so long; after 5 seconds, 10, 20, 40, 80, then every minute."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of osascript ended."""

    returncode: int
    """0, 1, or the negative number of the signal that ended it."""
    output: str
    """What the script returned, without the newline that osascript adds; bytes that are no UTF-8 became U+FFFD."""
    timed_out: bool = False
    """It was killed because it took longer than it was given."""
    error_number: int | None = None
    """From the last line of stderr; None where it ended well, or without a number."""
    error_text: str = ""
    """The message without its prefix and number, in the user's language; for people only."""

    @property
    def ok(self) -> bool:
        return self.returncode == 0 and not self.timed_out

    @property
    def trouble(self) -> Trouble:
        """Meaningful where `ok` is false."""
        return Trouble.NO_REPLY if self.timed_out else trouble_of(self.error_number)

    @property
    def explanation(self) -> str:
        """What osascript said, in one line, for the end of a sentence."""
        if self.error_number is not None:
            return f"{self.error_text or 'no message'} ({self.error_number})"
        if self.returncode < 0:
            return f"osascript was ended by signal {-self.returncode}"
        return self.error_text or f"osascript ended with exit code {self.returncode} and no message"


@dataclass(frozen=True, kw_only=True, slots=True)
class Osascript:
    """Calls one script. `log` gets every line of stderr as it arrives; it is called in the event loop."""

    program: str = "osascript"
    """A name on PATH, or a path."""
    script: Path
    log: Callable[[str], None]
    grace: float = 3.0
    """Seconds between SIGTERM and SIGKILL."""
    first_wait: float = _FIRST_WAIT
    """Seconds after which the listener first hears of waiting."""

    async def run(self, *words: str, seconds: float | None, listener: Listener | None = None) -> Outcome:
        """Run the script with these words; at most `seconds`, None for as long as it takes (a dialog).

        The process leads a session of its own. When this is cancelled or the time is up, its whole group gets SIGTERM,
        then SIGKILL, and is waited for: whatever happens, no process is left when this returns or raises.
        Raises SourceStopped where osascript cannot be started, or pours out more than any library could hold.
        """
        process = await self._start(words)
        timed_out = True
        limit, waiting = anyio.CancelScope(), anyio.CancelScope()

        def take_line(line: str) -> None:
            left = listener.heard(line) if listener is not None else None
            if left is None:
                self.log(line)
            else:
                limit.deadline = anyio.current_time() + left

        collected = _Collected(take_line)
        if seconds is not None:
            limit.deadline = anyio.current_time() + seconds
        try:
            with limit:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_drain, process.stdout, collected.take_output, tasks.cancel_scope)
                    tasks.start_soon(_drain, process.stderr, collected.take_errors, tasks.cancel_scope)
                    if listener is not None:
                        tasks.start_soon(self._tell_of_waiting, listener, waiting)
                    await process.wait()
                    waiting.cancel()
                    tasks.cancel_scope.deadline = anyio.current_time() + _DRAIN_SECONDS
                timed_out = False
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(process)
        collected.finish()
        if collected.too_much:
            raise SourceStopped(f"osascript returned more than {_MOST_OUTPUT >> 20} MiB; it was stopped.")
        return _outcome(await process.wait(), collected, timed_out)

    async def _tell_of_waiting(self, listener: Listener, scope: anyio.CancelScope) -> None:
        began, seconds = anyio.current_time(), self.first_wait
        with scope:
            while True:
                await anyio.sleep_until(began + seconds)
                listener.waited(seconds)
                seconds = min(seconds * 2, seconds + _LONGEST_WAIT)

    async def _start(self, words: tuple[str, ...]) -> Process:
        command = [self.program, os.fspath(self.script), *words]
        process: Process | None = None
        try:
            # Shielded: a cancellation half-way through would leave a process that nobody knows of.
            with anyio.CancelScope(shield=True):
                process = await anyio.open_process(
                    command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
                )
        except FileNotFoundError as error:
            raise SourceStopped(
                f"{self.program} was not found; Photos.app can only be read on macOS.",
                next_step="Elsewhere name a library: `skicyclerun run --library PATH.photoslibrary`.",
            ) from error
        except (OSError, ValueError) as error:
            raise SourceStopped(f"{self.program} could not be started: {error}") from error
        assert process is not None
        return process

    async def _end(self, process: Process) -> None:
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGTERM)
            with anyio.move_on_after(self.grace):
                await process.wait()
            # Also when osascript itself is gone: what it started may have ignored the first signal.
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()
        await process.aclose()


class _Collected:
    """What came over the two pipes, and the lines of stderr handed on as they were completed."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._chunks: list[bytes] = []
        self._size = 0
        self._pending = bytearray()
        self.last_line = ""
        self.too_much = False

    @property
    def output(self) -> str:
        return b"".join(self._chunks).decode("utf-8", "replace").removesuffix("\n")

    def take_output(self, data: bytes) -> bool:
        self._size += len(data)
        if self._size > _MOST_OUTPUT:
            self.too_much = True
            self._chunks.clear()
            return False
        self._chunks.append(data)
        return True

    def take_errors(self, data: bytes) -> bool:
        # `return` inside a script is a carriage return, and osascript passes it on as it is.
        *lines, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._keep(line)
            self._line_ended()
        self._keep(rest)
        return True

    def finish(self) -> None:
        if self._pending:
            self._line_ended()

    def _keep(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > _LONGEST_LINE:
            # The number stands at the end, so it is the end of a line that must be kept.
            del self._pending[: len(self._pending) - _LONGEST_LINE]

    def _line_ended(self) -> None:
        line = self._pending.decode("utf-8", "replace").strip()
        self._pending.clear()
        if line.startswith("(*") and line.endswith("*)"):
            line = line[2:-2].strip()
        if line:
            self.last_line = line
            self._log(line)


async def _drain(stream: ByteReceiveStream | None, take: Callable[[bytes], bool], reading: anyio.CancelScope) -> None:
    assert stream is not None
    async for data in stream:
        if not take(data):
            reading.cancel()


def _outcome(returncode: int, collected: _Collected, timed_out: bool) -> Outcome:
    line = collected.last_line
    if returncode <= 0 or timed_out:
        return Outcome(returncode, collected.output, timed_out)
    if (match := _ERROR_NUMBER.search(line)) is None:
        return Outcome(returncode, collected.output, error_text=line)
    text = _ERROR_PREFIX.sub("", line[: match.start()], count=1).strip()
    return Outcome(returncode, collected.output, False, int(match.group(1)), text)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # Nobody left in it; macOS says "not permitted" of a group that holds only zombies.
        pass
