"""Which renderer suits a stream."""

from __future__ import annotations

import os
from typing import TextIO

from skicyclerun.progress.events import Renderer


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
