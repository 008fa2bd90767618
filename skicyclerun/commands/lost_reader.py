"""When the reader of our output has left (`skicyclerun status | head`). That is no error of a command."""

from __future__ import annotations

import os
import sys


def stdout_to_nowhere() -> None:
    """Send standard output, and what is still buffered for it, to nowhere: flushing it at the exit would fail again."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.__stdout__.fileno() if sys.__stdout__ else 1)
