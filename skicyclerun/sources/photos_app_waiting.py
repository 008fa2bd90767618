"""How long Photos.app is waited for, and what is said meanwhile: listeners to the calls of the AppleScript.

The script logs how far it is (its beginning lists the lines). Who listens passes that on, and decides how much time a
call has left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import anyio

from skicyclerun.models import Photo, Waiting
from skicyclerun.sources.base import TimeLimits

SHARE: Final = 0.9
"""Of the time for a photo, what its export has; the rest is for the file that may come after it."""
_NEWS: Final = re.compile(r"skicyclerun: (listed|counted|size|at) (\S+)\Z")
"""What the script logs for us; see its beginning."""

_TERMINALS: Final = {
    "Apple_Terminal": "Terminal",
    "iTerm.app": "iTerm",
    "vscode": "Visual Studio Code",
    "WezTerm": "WezTerm",
    "ghostty": "Ghostty",
    "WarpTerminal": "Warp",
}
"""What macOS calls the program that the terminal calls TERM_PROGRAM."""
_FROM_ICLOUD: Final = "Photos fetches from iCloud what is not on this Mac."


class Patience:
    """Hears one call that has nothing to say until it ends; tells how long it has been at work."""

    def __init__(self, waiting: Waiting, tell: Callable[[Waiting], None]) -> None:
        self._waiting = waiting
        self._tell = tell

    def heard(self, line: str) -> float | None:
        return None

    def waited(self, seconds: float) -> None:
        self._tell(replace(self._waiting, seconds=seconds))


class ListingProgress:
    """Hears a listing of several calls. Each step that the script reports gives it its whole time anew."""

    def __init__(self, waiting: Waiting, tell: Callable[[Waiting], None], seconds: float, interval: float) -> None:
        self._waiting = waiting
        self._tell = tell
        self._seconds = seconds
        self._interval = interval
        self._began = anyio.current_time()
        self._next = self._began + interval
        self._before = 0

    def begin(self, done: int, of: int) -> None:
        """The next call begins, with so many done by those before it."""
        self._before = done
        self._waiting = replace(self._waiting, done=done, of=of)

    def heard(self, line: str) -> float | None:
        if (news := _NEWS.match(line)) is None:
            return None
        if news[1] in ("listed", "counted") and (number := _whole(news[2])) is not None:
            self._waiting = replace(self._waiting, done=self._before + number)
            self.waited(0.0)
        return self._seconds

    def waited(self, seconds: float) -> None:
        now = anyio.current_time()
        if now >= self._next:
            self._next = now + self._interval
            self._tell(replace(self._waiting, seconds=now - self._began))


class ExportPatience:
    """Hears the export of one item, and knows how long it may take: longer once its size is known."""

    def __init__(self, photo: Photo, limits: TimeLimits, tell: Callable[[Waiting], None]) -> None:
        self._photo = photo
        self._limits = limits
        self._tell = tell
        self._began = anyio.current_time()
        self._told = False
        self._limit = limits.seconds(photo.component)
        self._say(0.0)

    @property
    def share(self) -> float:
        """Seconds for the export itself."""
        return SHARE * self._limit

    @property
    def left(self) -> float:
        """Seconds until the item has had its time."""
        return max(0.0, self._began + self._limit - anyio.current_time())

    def heard(self, line: str) -> float | None:
        if (news := _NEWS.match(line)) is None:
            return None
        if news[1] == "size" and (megabytes := _whole(news[2])) is not None:
            self._limit = self._limits.seconds(self._photo.component, megabytes * 1_000_000)
            self._say(0.0)
        return max(0.0, self._began + self.share - anyio.current_time())

    def waited(self, seconds: float) -> None:
        self._told = True
        self._say(seconds)

    def over(self) -> None:
        if self._told:
            self._say(anyio.current_time() - self._began, over=True)

    def _say(self, seconds: float, *, over: bool = False) -> None:
        name = self._photo.original_filename
        self._tell(Waiting("photo", name, seconds, self._limit, note=_FROM_ICLOUD, over=over))


def _whole(text: str) -> int | None:
    """A whole number as AppleScript writes it; a large one is written as `1.5E+9`, or `1,5E+9`. None for none."""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return int(number) if 0 <= number < 1e7 else None


def terminal_name() -> str:
    """What macOS calls the program that asks, as far as it can be known."""
    return _TERMINALS.get(os.environ.get("TERM_PROGRAM", ""), "your terminal")


def about_to_ask() -> str:
    """What to expect of the first event that Photos is sent."""
    return (
        f"The first time, macOS asks whether {terminal_name()} may control Photos: choose Allow, or OK. "
        "Photos is opened if it is not open."
    )
