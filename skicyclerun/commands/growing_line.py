"""A line on stderr that says how far something is, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def growing_line(
    words: Callable[[int, int], str], *, stays: bool = False
) -> Iterator[Callable[[int, int], None] | None]:
    """What is to hear how much is done, and of how much. The line is wiped at the end, unless it `stays` when all is.

    None: there is no terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    last, width = 0.0, 0

    def advance(done: int, total: int) -> None:
        nonlocal last, width
        now, ends = time.monotonic(), stays and done == total
        if now - last >= 0.1 or ends:
            last, line = now, words(done, total)
            width = max(width, len(line))
            sys.stderr.write(f"\r{line}" + "\n" * ends)
            sys.stderr.flush()

    try:
        yield advance
    finally:
        if width and not stays:
            sys.stderr.write(f"\r{' ' * width}\r")
            sys.stderr.flush()


def files_read(doing: str, done: int, total: int) -> str:
    """`Verifying: 40 of 1300 files`"""
    return f"{doing}: {done} of {total} files"
