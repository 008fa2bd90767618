"""The exit codes, and which error ends with which. Listed in `--help`."""

from __future__ import annotations

import os
import sys
from typing import Final

from skicyclerun.errors import ArchiveUnknown, Cancelled, LockHeld, NoState, SkicyclerunError, UsageError

OK: Final = 0
FATAL: Final = 1
USAGE: Final = 2
WITH_FAILURES: Final = 3
NO_STATE: Final = 10
LOCKED: Final = 11
INTERRUPTED: Final = 130
TERMINATED: Final = 143

_MEANINGS: Final = {
    OK: "everything is accounted for",
    FATAL: "a fatal error; what was exported before it is kept",
    USAGE: "wrong usage or configuration; nothing was touched",
    WITH_FAILURES: "finished, with failures",
    NO_STATE: "nothing has been exported yet",
    LOCKED: "another run holds the lock",
    INTERRUPTED: "stopped by Ctrl-C (143 by SIGTERM); `run --resume` carries on",
}

HELP: Final = "\b\nExit codes:\n" + "".join(f"  {code:<4} {meaning}\n" for code, meaning in _MEANINGS.items())

_BY_ERROR: Final[tuple[tuple[type[SkicyclerunError], int], ...]] = (
    (UsageError, USAGE),
    (ArchiveUnknown, USAGE),  # a name that was typed, like that of an album or a run that is not there
    (NoState, NO_STATE),
    (LockHeld, LOCKED),
    (Cancelled, OK),
    (SkicyclerunError, FATAL),
)


def code_of(error: SkicyclerunError) -> int:
    """The exit code an error ends with."""
    return next(code for kind, code in _BY_ERROR if isinstance(error, kind))


def in_words(code: int) -> str:
    """What a code means, for the last line of a log file: `finished, with failures (exit code 3)`."""
    stopped = {INTERRUPTED: "stopped by Ctrl-C", TERMINATED: "stopped by SIGTERM"}
    meaning = stopped.get(code) or _MEANINGS[code].partition(";")[0]
    return f"{meaning} (exit code {code})"


def stdout_to_nowhere() -> None:
    """When the reader of our output has left (`status | head`), which is no error of a command.

    Send standard output, and what is still buffered for it, to nowhere: flushing it at the exit would fail again.
    """
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.__stdout__.fileno() if sys.__stdout__ else 1)
