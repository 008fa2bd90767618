"""Paths as they are written in a configuration, made absolute."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from skicyclerun.settings.file import show


def home(environ: Mapping[str, str]) -> Path:
    """The home directory, by $HOME where that is set."""
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def absolute(text: str, environ: Mapping[str, str], base: Path, *, written: Callable[[str], str] = str) -> Path:
    """`text` with a leading `~` expanded, relative to `base`, without `.` and `..`.

    `written` is how other paths are written in `text`: as they are, or escaped where `text` is a template. Raises
    ValueError with what is wrong.
    """
    if "\0" in text:
        raise ValueError("holds a NUL character")
    if not text.strip():
        raise ValueError("is empty")
    if text == "~" or text.startswith("~/"):
        text = written(str(home(environ))) + text[1:]
    elif text.startswith("~"):
        expanded = os.path.expanduser(text)
        if expanded == text:
            raise ValueError(f"names no user's home directory: {show(text)}")
        text = expanded
    # POSIX leaves the meaning of exactly two leading slashes to the system, and abspath keeps them; here they are one.
    return Path("/" + os.path.abspath(os.path.join(written(str(base)), text)).lstrip("/"))
