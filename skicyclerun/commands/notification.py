"""A desktop notification, by the command that the system has for it."""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from skicyclerun.wording import printable

_SECONDS: Final = 10
_MOST_CHARACTERS: Final = 300
# The texts are arguments, never part of the script.
_SCRIPT: Final = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")


def notify(
    title: str,
    text: str,
    *,
    platform: str = sys.platform,
    which: Callable[[str], str | None] = shutil.which,
) -> str:
    """Show it; returns a sentence where that was not possible, else nothing. Raises nothing."""
    title, text = (printable(" ".join(each.split()))[:_MOST_CHARACTERS] for each in (title, text))
    name = "osascript" if platform == "darwin" else "notify-send"
    program = which(name)
    if program is None:
        return f"No notification is shown: this system has no `{name}`."
    if platform == "darwin":
        command = [program, *(word for line in _SCRIPT for word in ("-e", line)), title, text]
    else:  # which takes some HTML in the body
        command = [program, "--app-name=skicyclerun", "--", title, html.escape(text, quote=False)]
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return f"No notification is shown: `{name}` does not answer."
    except (OSError, ValueError, subprocess.CalledProcessError):
        return f"No notification is shown: `{name}` could not show it here."
    return ""
