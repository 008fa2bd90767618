"""A folder on another disk as the place for archives.

The folder is never made here: where its disk is not connected, the path would be made on this one, and nobody would
look for the archives there. A small file in it says which folder it is, so that an empty mount point is not taken for
it. Bytes are synced, read back from the disk, renamed to their name (never over another), and the folder is synced.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from skicyclerun.archive.archive_file import drop_from_cache
from skicyclerun.archive.plan import nearest_folder
from skicyclerun.archive.publish import ARCHIVE_NAME
from skicyclerun.archive.remote import LONGEST_RECORD, RemoteFile
from skicyclerun.errors import RemoteError, RemoteUnreachable
from skicyclerun.files.atomic_files import rename_to_new_name, sync_directory, sync_files
from skicyclerun.wording import bytes_in_words

IDENTITY_FILE: Final = ".skicyclerun-archives"
#: What `create` leaves when it is killed. Another machine may be writing one now, by a clock that differs.
_LEFT_OVER: Final = re.compile(rf"(?:{ARCHIVE_NAME.pattern}\.json|{re.escape(IDENTITY_FILE)})\.new-[0-9a-f]{{12}}")
_LEFT_OVER_SECONDS: Final = 86_400
#: Where systems mount disks: a folder below one of these lies on another disk, or the disk is not connected.
_MOUNT_FOLDERS: Final = ("/Volumes", "/media", "/mnt", "/run/media")
_SPARE_BYTES: Final = 16 << 20
_BLOCK: Final = 1 << 20
#: What a disk or a server that went away answers.
_GONE: Final = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN,
        errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ECONNRESET,
    }
)  # fmt: skip


class FolderRemote:
    """See `Remote`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = str(folder)
        self.is_near = True

    def identify(self, known: str, *, make: bool) -> str:
        with self._translated():
            if not stat.S_ISDIR(os.stat(self._folder).st_mode):
                raise RemoteUnreachable(self.url, "it is no folder")
            self._check_mounted()
            found = self._identity()
            if found == "" and known == "" and make:
                self.create(IDENTITY_FILE, secrets.token_hex(16).encode() + b"\n")
                found = self._identity()
            if make and (not known or found == known):
                self._clear_left_over()
        if known and found != known:
            raise RemoteUnreachable(
                self.url,
                "it is not the folder that archives were copied to before; where another disk is meant, "
                "`skicyclerun archive push --new-place` takes it",
            )
        return found

    def _check_mounted(self) -> None:
        """Also where a symbolic link leads to a folder of mounts, or a disk is mounted at that very folder."""
        places = {self._folder, Path(os.path.realpath(self._folder))}
        for mounts in _MOUNT_FOLDERS:
            real = os.path.realpath(mounts)
            below = any(place.is_relative_to(spelt) for place in places for spelt in (mounts, real))
            if below and not os.path.ismount(real) and os.stat(self._folder).st_dev == os.stat(real).st_dev:
                raise RemoteUnreachable(self.url, f"no disk is mounted there: it is a folder on the disk of {mounts}")

    def doubt(self, archives: Path) -> str:
        with self._translated():
            if os.stat(self._folder).st_dev == os.stat(nearest_folder(archives)).st_dev:
                return "it lies on the disk of the archives themselves"
        return "" if any(file.name != IDENTITY_FILE for file in self.files()) else "it is empty"

    def _clear_left_over(self) -> None:
        """Records that a killed process wrote and had not named yet."""
        for file in self.files():
            written = int(file.version) / 1e9
            if (
                _LEFT_OVER.fullmatch(file.name)
                and file.size <= LONGEST_RECORD
                and time.time() - written > _LEFT_OVER_SECONDS
            ):
                (self._folder / file.name).unlink(missing_ok=True)

    def _identity(self) -> str:
        with suppress(FileNotFoundError), open(self._open(IDENTITY_FILE), "rb") as stream:
            return stream.read(64).decode("ascii", "replace").strip()
        return ""

    def files(self) -> list[RemoteFile]:
        with self._translated(), os.scandir(self._folder) as entries:
            return [
                _described(entry.name, entry.stat(follow_symlinks=False))
                for entry in entries
                if entry.is_file(follow_symlinks=False)
            ]

    def look(self, name: str) -> RemoteFile | None:
        with self._translated():
            try:
                found = os.lstat(self._folder / name)
            except FileNotFoundError:
                os.stat(self._folder)  # the folder itself may be what is gone
                return None
        if not stat.S_ISREG(found.st_mode):
            raise RemoteError(f"{self._folder / name} is no file; it was left as it is.")
        return _described(name, found)

    def create(self, name: str, data: bytes) -> bool:
        temporary = self._folder / f"{name}.new-{secrets.token_hex(6)}"
        with self._translated():
            try:
                _write(temporary, iter([data]))
                try:
                    rename_to_new_name(temporary, self._folder / name)
                except FileExistsError:
                    return False
                sync_directory(self._folder)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def write(self, name: str, token: str, blocks: Iterator[bytes], size: int) -> str:
        partial = self.unpublished(name, token)
        path = self._folder / partial
        with self._translated():
            path.unlink(missing_ok=True)
            free = shutil.disk_usage(self._folder).free
            if free < size + _SPARE_BYTES:
                raise RemoteError(
                    f"{self.url} has {bytes_in_words(free)} free, and {bytes_in_words(size)} are needed, with "
                    f"{bytes_in_words(_SPARE_BYTES)} to spare."
                )
        try:
            _write(path, self._into(path, blocks))
        except BaseException as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._error(error) from error
            raise
        with self._translated():
            # Its time is its version, and FAT keeps no more than every second one of them.
            even = int(time.time()) // 2 * 2
            os.utime(path, (even, even))
            sync_files([path])
            sync_directory(self._folder)
        return partial

    def unpublished(self, name: str, token: str) -> str:
        return f"{name}.partial-{token}"

    def discard(self, name: str, token: str) -> None:
        with self._translated():
            (self._folder / self.unpublished(name, token)).unlink(missing_ok=True)
            sync_directory(self._folder)

    def _into(self, path: Path, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks; what goes wrong with reading them is not taken for a fault of this disk."""
        while True:
            try:
                block = next(blocks)
            except StopIteration:
                return
            except OSError as error:
                raise RemoteError(f"The archive cannot be read while it is copied ({error.strerror}).") from error
            yield block

    def publish(self, written: str, name: str) -> None:
        if written == name:
            return
        with self._translated():
            sync_files([self._folder / written])
            try:
                rename_to_new_name(self._folder / written, self._folder / name)
            except FileExistsError:
                raise RemoteError(f"{self._folder / name} appeared meanwhile; it was left as it is.") from None
            sync_directory(self._folder)

    def read(self, file: RemoteFile, offset: int, count: int) -> bytes:
        with self._translated(), open(self._opened(file), "rb", buffering=0) as stream:
            parts: list[bytes] = []
            while count and (part := os.pread(stream.fileno(), min(count, _BLOCK), offset)):
                parts.append(part)
                offset, count = offset + len(part), count - len(part)
            return b"".join(parts)

    def blocks(self, file: RemoteFile) -> Iterator[bytes]:
        with self._translated(), open(self._opened(file), "rb", buffering=0) as stream:
            drop_from_cache(stream.fileno())
            while block := stream.read(_BLOCK):
                yield block

    def delete(self, name: str) -> None:
        with self._translated():
            (self._folder / name).unlink(missing_ok=True)
            sync_directory(self._folder)

    def _open(self, name: str) -> int:
        return os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def _opened(self, file: RemoteFile) -> int:
        descriptor = self._open(file.name)
        if _described(file.name, os.fstat(descriptor)) != file:
            os.close(descriptor)
            raise RemoteError(f"{self._folder / file.name} was changed while it was read.")
        return descriptor

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> RemoteError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return RemoteError(f"The disk of {self.url} is full.")
        words = error.strerror or str(error)
        if error.errno in _GONE:
            return RemoteUnreachable(self.url, "the folder is not there" if error.errno == errno.ENOENT else words)
        return RemoteError(f"{self.url} cannot be used ({words}).")


def _write(path: Path, blocks: Iterator[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as stream:
        for block in blocks:
            stream.write(block)
    sync_files([path])


def _described(name: str, found: os.stat_result) -> RemoteFile:
    return RemoteFile(name, found.st_size, str(found.st_mtime_ns))
