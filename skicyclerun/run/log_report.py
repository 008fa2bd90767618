"""What a log file says as a report: at its beginning what was asked and from where, at its end how it came out.

Between them stand the records of the actors, an album and a photo that failed a line each. docs/log-file.md.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from skicyclerun import __version__
from skicyclerun.errors import ConfigErrors, SkicyclerunError
from skicyclerun.run.log_file import open_run_log
from skicyclerun.settings.models import Settings
from skicyclerun.wording import seconds_in_words

log = logging.getLogger(__name__)


def timestamp_now() -> str:
    """For the name of a log file: `YYYYMMDD_HHMMSS`, UTC."""
    return datetime.now(UTC).strftime("%Y%m%d_%H%M%S")


def say_beginning(typed: str) -> None:
    """What was asked and by which version. `typed` is the command line, empty where a program asked."""
    log.info("asked: %s", typed or "by a program (PhotoExporter)")
    log.info("version: skicyclerun %s, Python %s, %s", __version__, platform.python_version(), platform.platform())


def say_from_where(settings: Settings, what: str, stages: Sequence[str], source: str) -> None:
    """What is done, and from where. `source`: kind and place, empty where none is read."""
    log.info("what: %s", what)
    if stages:
        log.info("stages: %s", ", ".join(stages))
    log.info("source: %s", source or "none is read")
    log.info("configuration: %s", settings.file)
    log.info("lib_root: %s", settings.lib_root)
    for warning in settings.warnings:
        log.warning("configuration: %s", warning)


def say_report(text: str) -> None:
    """The report as it is printed: every album with its counts and sizes, the archive, what failed and why."""
    for line in filter(None, text.splitlines()):
        log.info("report: %s", line)


def say_early_end(error: BaseException) -> None:
    """Why a run came to no end, as the person is told; where it is none of ours, with its traceback."""
    expected = isinstance(error, SkicyclerunError)
    sentence = str(error) if expected else f"{type(error).__name__}: {error}"
    step = f" {error.next_step}" if isinstance(error, SkicyclerunError) and error.next_step else ""
    log.error("it ended early: %s%s", sentence, step, exc_info=None if expected else error)
    if expected and error.__cause__ is not None:
        log.debug("what lies behind it", exc_info=error)


def say_ending(words: str, seconds: float, level: int = logging.INFO) -> None:
    """The last line: how it ended, and how long it took."""
    log.log(level, "ended: %s, after %s", words, seconds_in_words(seconds))


def leave_refusal(file: Path, level: str | int, error: SkicyclerunError, typed: str, words: str) -> None:
    """A log file that says why a run was refused; only where its folder is there already. Never raises for the disk."""
    if error.in_log or not file.is_absolute() or not file.parent.is_dir():
        return
    with open_run_log(file, level):
        say_beginning(typed)
        every = error.errors if isinstance(error, ConfigErrors) else (error,)
        for line in (line for each in every for line in str(each).splitlines()):
            log.error("refused: %s", line)
        for step in dict.fromkeys(each.next_step for each in every if each.next_step):
            log.error("refused: %s", step)
        say_ending(words, 0.0, logging.ERROR)
    error.in_log = True
