"""The terminal, or the stream in its place: how wide it is, and writing to one that may go away."""

from __future__ import annotations

import io
import os
from typing import TextIO


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
