"""Text for a terminal: what a library or a file name holds can move no cursor, set no colour and forge no line."""

from __future__ import annotations

import io
import os
import re
from typing import Final, TextIO

# Control characters (ESC among them), line separators, surrogates, and every invisible formatting character but the
# joiners that emoji and Persian need: a bidirectional override reverses the rest of the line.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_UNITS: Final = ("kB", "MB", "GB", "TB")
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """`text` on one line, each character that a terminal acts upon replaced by U+FFFD."""
    return _UNSAFE.sub(_REPLACEMENT, text)


def counted(count: int, noun: str) -> str:
    """`1 album`, `2 albums`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def bytes_in_words(size: float) -> str:
    """Decimal units, as disks are sold: `999 bytes`, `1.5 kB`, `2.9 GB`."""
    if size < 1000:
        return counted(round(size), "byte")
    power = 1
    while size >= 999.95 * 1000**power and power < len(_UNITS):
        power += 1
    return f"{size / 1000**power:.1f} {_UNITS[power - 1]}"


def seconds_in_words(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def columns(stream: TextIO) -> int | None:
    """How wide the terminal is that the stream writes to; None where it is no terminal, or one that does not say."""
    try:
        return (os.get_terminal_size(stream.fileno()).columns or None) if stream.isatty() else None
    except (OSError, ValueError):
        return None


class LastingStream(io.TextIOBase):
    """Writes to another stream until that one goes away, then to nowhere: a run outlives its terminal.

    Characters that the stream's encoding lacks are written as escapes. Closing it leaves the other stream open.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a plain attribute there
        return getattr(self._stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError):  # EPIPE, EIO, or a stream that was closed
                self._stream = None
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None
