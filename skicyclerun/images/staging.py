"""The two files of a rendering: the original, opened with care, and the staging file, hashed while it is written."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from skicyclerun.errors import OriginalMissing, PhotoTransient, PhotoUnreadable
from skicyclerun.files.atomic_files import begin_writing

BLOCK_BYTES: Final = 1 << 20
"""How much is read, hashed and written at a time."""
_HEAD_BYTES: Final = 256 << 10
"""How much of the beginning is kept, once it was read: what headers are in, and the whole of a small picture."""

_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


@dataclass(slots=True)
class Original:
    """An original, open for reading. `stream` is positioned by whoever uses it."""

    path: Path
    stream: BinaryIO
    size: int
    """Bytes, when it was opened."""
    mtime_ns: int

    _head: bytearray | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of_bytes(cls, data: bytes, path: Path = Path()) -> Original:
        """Bytes in memory (a picture that was encoded or embedded), to be read like a file."""
        return cls(path, io.BytesIO(data), len(data), 0)

    def blocks(self, start: int = 0) -> Iterator[memoryview]:
        """The bytes from `start` on, in writable blocks that are valid until the next one is asked for.

        Raises PhotoUnreadable if the disk does not give them, PhotoTransient if the file changes its size meanwhile.
        """
        head = self._beginning()
        position = start
        if start < len(head):
            yield memoryview(head)[start:]
            position = len(head)
        if position < self.size or len(head) >= _HEAD_BYTES:
            buffer = bytearray(min(BLOCK_BYTES, max(self.size - position, 1)))
            view = memoryview(buffer)
            try:
                self.stream.seek(position)
                while count := self.stream.readinto(buffer):  # type: ignore[attr-defined]  # BinaryIO lacks readinto
                    position += count
                    yield view[:count]
            except OSError as error:
                raise PhotoUnreadable(
                    f"the original cannot be read at byte {position}: {os.strerror(error.errno or errno.EIO)}"
                ) from error
        if position != self.size:
            raise PhotoTransient("the original changed while it was being read")

    def read(self, start: int, count: int) -> bytes:
        """Up to `count` bytes from `start`. Raises PhotoUnreadable if the disk does not give them."""
        head = self._beginning()
        end = start + count
        if end <= len(head) or len(head) < _HEAD_BYTES:
            return bytes(memoryview(head)[start:end])
        try:
            self.stream.seek(start)
            return self.stream.read(count)
        except OSError as error:
            raise _unreadable(error) from error

    def _beginning(self) -> bytearray:
        """The first bytes, read once; if they are fewer than `_HEAD_BYTES`, the file ended there."""
        head = self._head
        if head is None:
            head = bytearray(min(_HEAD_BYTES, self.size + 1))
            try:
                self.stream.seek(0)
                count: int = self.stream.readinto(head)  # type: ignore[attr-defined]  # BinaryIO lacks readinto
            except OSError as error:
                raise _unreadable(error) from error
            del head[count:]
            self._head = head
        return head


def _unreadable(error: OSError) -> PhotoUnreadable:
    return PhotoUnreadable(f"the original cannot be read: {os.strerror(error.errno or errno.EIO)}")


@contextmanager
def open_original(path: Path) -> Iterator[Original]:
    """Open an original for reading, never waiting on a pipe or a device that took its place.

    Raises OriginalMissing if it is not there, PhotoUnreadable if it is no regular file or may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _GONE:
            raise OriginalMissing("its original is no longer where the library had it") from error
        raise PhotoUnreadable(f"the original cannot be opened: {os.strerror(error.errno or errno.EIO)}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise PhotoUnreadable("it is not a file but a folder, a pipe or a device")
    with open(descriptor, "rb") as stream:
        yield Original(path, stream, found.st_size, found.st_mtime_ns)


class StagedFile:
    """A new file that counts and hashes what is written to it; removed again if its block is left by an error.

    The name is created, never opened: a stale file or a link of that name is unlinked first. OSError (ENOSPC and the
    like) passes through. Nothing is synced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._descriptor = -1

    def __enter__(self) -> StagedFile:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self.path, flags, 0o644)
        except FileExistsError:
            os.unlink(self.path)
            self._descriptor = os.open(self.path, flags, 0o644)
        return self

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Append, all of it in one call where the system takes it; the hash covers what was handed in, in order."""
        total = 0
        for piece in pieces:
            self._hash.update(piece)
            total += len(piece)
        self.size += total
        try:
            written = os.writev(self._descriptor, pieces)
            if written < total:
                view = memoryview(b"".join(pieces))[written:]
                while len(view):
                    view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            # `write` does not know names, and whoever catches it must tell our disk from the original's.
            error.filename = str(self.path)
            raise

    def finish(self, mtime_ns: int) -> int:
        """Set the modification time and close. Returns the time as the file system kept it, nanoseconds."""
        try:
            os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
        except (OverflowError, OSError):
            # A date before the epoch or far ahead that this file system cannot hold; the file is none the worse.
            pass
        kept = os.fstat(self._descriptor).st_mtime_ns
        begin_writing(self._descriptor)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        return kept

    @property
    def sha256(self) -> str:
        """Of everything written so far, lower-case hexadecimal."""
        return self._hash.hexdigest()

    def __exit__(self, kind: object, *_: object) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.close(descriptor)
            finally:
                self.path.unlink(missing_ok=True)
        elif kind is not None:
            self.path.unlink(missing_ok=True)
