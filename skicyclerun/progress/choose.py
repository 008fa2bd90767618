"""Which renderer suits a stream, and when it appears."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO

from skicyclerun.progress.events import ProgressEvent, Renderer


def choose_renderer(stream: TextIO, *, json: bool = False, quiet: bool = False) -> Renderer:
    """JSON lines where asked for; a live display on a terminal that can move its cursor; else plain lines.

    `rich` is imported for the live display only.
    """
    if json:
        from skicyclerun.progress.json_lines import JsonLines

        return JsonLines(stream)
    if not quiet and _is_capable_terminal(stream):
        from skicyclerun.progress.rich_display import RichDisplay

        return RichDisplay(stream)
    from skicyclerun.progress.plain_text import PlainText

    return PlainText(stream, quiet=quiet)


def _is_capable_terminal(stream: TextIO) -> bool:
    try:
        terminal = stream.isatty()
    except (OSError, ValueError):
        return False
    return terminal and os.environ.get("TERM", "dumb").lower() not in ("dumb", "unknown", "")


class LateRenderer(Renderer):
    """Appears with the first event: a live display that is there earlier wipes the questions off the terminal."""

    def __init__(self, make: Callable[[], Renderer]) -> None:
        self._make = make
        self._made: Renderer | None = None

    def handle(self, event: ProgressEvent) -> None:
        if self._made is None:
            self._made = self._make()
        self._made.handle(event)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
