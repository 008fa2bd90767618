"""A log file for each run: everything `logging` is told, tracebacks included, and nothing of it on the terminal."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path
from typing import Final, Self, TextIO

_OWN: Final = "skicyclerun"
# What would end a line or act on the terminal of the person who reads the log.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTINUATION: Final = "    | "
# What a log must not give away, wherever it comes from: who logs in at an address, and values that are called secret.
_CALLED_SECRET: Final = r"[\w-]*(?:secret|token|password|passwd|api[_-]?key|access[_-]?key|signature)[\w-]*"
_SECRETS: Final = (
    (re.compile(r"(?<=://)[^/\s@]+(?=@)"), "…"),
    (re.compile(rf"(?i)(\b{_CALLED_SECRET}=)[^\s&'\"]+"), r"\1…"),
    (re.compile(rf"(?i)(--{_CALLED_SECRET} )(?:'[^']*'|\S+)"), r"\1…"),
)
# Packages that give their logger a handler to stderr when they are imported, which is after the log was opened.
_TALKATIVE: Final = ("osxphotos",)


class RunLog:
    """The log of one run; a context manager. While it is open, `logging` and warnings go to it alone."""

    def __init__(self, path: Path | None, problem: str, handler: logging.Handler, level: int) -> None:
        self.path = path
        """The file, None where it could not be opened."""
        self.problem = problem
        """Why there is no file: a sentence for the person; empty where there is one."""
        self._handler = handler
        self._open = True
        root, own = logging.getLogger(), logging.getLogger(_OWN)
        self._before = (root.handlers[:], root.level, own.level)
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)
        own.setLevel(level)
        logging.captureWarnings(True)
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(_take_its_handlers)

    @property
    def lost(self) -> int:
        """Records that could not be written (a disk that filled up)."""
        return self._handler.lost if isinstance(self._handler, _LogHandler) else 0

    def close(self) -> None:
        """Close the file and leave `logging` as it was. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        root, own = logging.getLogger(), logging.getLogger(_OWN)
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(_take_its_handlers)
        logging.captureWarnings(False)
        root.handlers[:], root_level, own_level = self._before
        root.setLevel(root_level)
        own.setLevel(own_level)
        self._handler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run_log(path: Path, level: str | int = logging.INFO) -> RunLog:
    """Log to `path` (appended to, readable by its owner only; its folder is made) from now until the log is closed.

    Our own records from `level` on, those of other packages from WARNING on. Never raises for the disk's sake: a run
    must not die for its log, so `problem` then says why there is none and the records go nowhere. Raises ValueError
    for a level that `logging` does not know.
    """
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if number is None:
        raise ValueError(f"{level!r} is no level of logging")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"No log is kept of this run: {path} cannot be written ({reason})."
        return RunLog(None, problem, logging.NullHandler(), number)
    stream = open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    return RunLog(path, "", _LogHandler(stream), number)


class _LogHandler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.lost = 0
        self.setFormatter(_OneRecordALine())
        self.addFilter(_others_only_when_it_matters)

    def handleError(self, record: logging.LogRecord) -> None:
        """The default prints a traceback to stderr for each record that a full disk refuses."""
        self.lost += 1

    def close(self) -> None:
        try:
            self.stream.close()
        except OSError:
            self.lost += 1
        super().close()


class _OneRecordALine(logging.Formatter):
    """`2026-01-31T12:00:00.123Z WARNING skicyclerun.x: message`; the lines of a traceback follow, each marked."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = f"{seconds}.{int(record.msecs):03}Z {record.levelname} {record.name}: {_escaped(record.getMessage())}"
        lines = [head]
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        for further in (record.exc_text, record.stack_info):
            if further:
                lines += [_CONTINUATION + _escaped(line) for line in further.split("\n")]
        return "\n".join(lines)


def _others_only_when_it_matters(record: logging.LogRecord) -> bool:
    """Some packages set their loggers to DEBUG on their own account."""
    return record.name.split(".", 1)[0] == _OWN or record.levelno >= logging.WARNING


def _take_its_handlers(record: logging.LogRecord) -> bool:
    """A filter of a logger runs before its handlers, whenever those were added."""
    logging.getLogger(record.name).handlers.clear()
    return True


def _escaped(text: str) -> str:
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
