"""`python -m skicyclerun`, and the console script."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line and exit with its code."""
    codes: list[int] = []
    # What is registered first is called last: after the threads have ended and everybody else has tidied up.
    atexit.register(_end_at_once, codes)
    from skicyclerun.cli import run_command_line

    codes.append(run_command_line(sys.argv[1:]))
    sys.exit(codes[0])


def _end_at_once(codes: list[int]) -> None:
    """End without taking every module and object apart first: a tenth of a second, more after a large export."""
    if codes:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    main()
