"""What a rendering process is told to do in tests: functions of a module, for it imports them by their name."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.models import Component, ExportedFacts, Fetched
from skicyclerun.settings.export_options import ExportOptions

FACTS = ExportedFacts(size=1, sha256="00")


def as_told(fetched: Fetched, component: Component, staged: Path, options: ExportOptions) -> ExportedFacts:
    """Do what the photo's name says. `stuck` holds the file `held` beside the photo open, and waits for ever."""
    match fetched.path.stem.split("_")[0]:
        case "stuck":
            with (fetched.path.parent / "held").open("wb"):
                signal.pause()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "aborted":
            os.abort()
        case "unreadable":
            raise PhotoUnreadable("it is torn")
        case "full":
            raise OSError(28, "No space left on device", str(staged))
        case "strange":
            raise Unsendable(lambda: None)
        case "faulty":
            raise ZeroDivisionError("a fault of ours")
        case "chatty":
            os.write(1, b"a library that prints")
            sys.stdout.write("and one in Python")
    staged.write_text(str(os.getpid()))
    return FACTS


class Unsendable(Exception):
    """Holds something that cannot be pickled."""
