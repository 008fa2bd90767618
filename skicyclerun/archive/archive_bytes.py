"""Where the bytes of an archive are read from: a file here, or ranges of one elsewhere, no more of them than needed.

An archive elsewhere is read as `zipfile` asks for it, end first. Its last piece is fetched once and kept; from then on
what lies in the spans that a caller `expect`s is read ahead, and outside them little more than is asked for.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from skicyclerun.errors import ArchiveError

#: Kept of the end: seal, directory and manifest of an archive of some hundred photos.
TAIL: Final = 256 * 1024
_READ_AHEAD: Final = 4 << 20
_LITTLE: Final = 64 * 1024
#: A directory or manifest of more than this is no archive's: some 500 bytes a member.
_LONGEST_READ: Final = 1 << 29

Span = tuple[int, int]
"""First byte, and the one behind the last."""


class ArchiveBytes(Protocol):
    """Random access to an archive. Raises OSError, and ArchiveError where it is elsewhere."""

    @property
    def size(self) -> int: ...

    def pread(self, count: int, offset: int) -> bytes:
        """The bytes there; fewer where the archive ends."""
        ...


class FileBytes:
    """An open file, which its opener closes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self.descriptor, count, offset)


class RangedBytes(io.RawIOBase):
    """A seekable file over `fetch(offset, count)`, which returns just so many bytes of it or raises.

    Holds the end and one piece more in memory: `TAIL` and the read-ahead, or what is asked for at once.
    """

    def __init__(self, name: str, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self.title = name
        """For people."""
        self.size = size
        self._fetch = fetch
        self._at = 0
        self._spans: list[Span] = []
        self._tail = (size, b"")
        self._piece = (0, b"")

    def expect(self, spans: Iterable[Span]) -> None:
        """What will be read, in order: neighbours are fetched together, and nothing behind them."""
        merged: list[Span] = []
        for start, end in sorted(spans):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self._spans = merged

    def pread(self, count: int, offset: int) -> bytes:
        count = max(0, min(count, self.size - offset))
        if count > _LONGEST_READ:
            raise ArchiveError(f"It asks for {count} bytes at once; no archive of skicyclerun's does.")
        parts: list[bytes] = []
        while count:
            start, held = next(
                (piece for piece in (self._tail, self._piece) if piece[0] <= offset < piece[0] + len(piece[1])),
                None,
            ) or self._load(offset, count)
            part = held[offset - start : offset - start + count]
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _load(self, offset: int, count: int) -> tuple[int, bytes]:
        tail = max(0, self.size - TAIL)
        if offset >= tail and not self._tail[1]:
            self._tail = (tail, self._exactly(tail, self.size - tail))
            return self._tail
        end = next((end for start, end in self._spans if start <= offset < end), None)
        length = max(count, _LITTLE) if end is None else max(count, min(_READ_AHEAD, end - offset))
        length = min(length, self._tail[0] - offset)
        self._piece = (0, b"")
        self._piece = (offset, self._exactly(offset, length))
        return self._piece

    def _exactly(self, offset: int, count: int) -> bytes:
        found = self._fetch(offset, count)
        if len(found) != count:
            raise ArchiveError(f"{len(found)} bytes came where {count} were asked for.")
        return found

    # ── as a file ─────────────────────────────────────────────────────────────────────────────────────────────────

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError(f"there is nothing at {at}")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        found = self.pread(self.size - self._at if size is None or size < 0 else size, self._at)
        self._at += len(found)
        return found
