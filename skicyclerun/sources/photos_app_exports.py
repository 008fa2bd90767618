"""What Photos left in the directory of one export: waits until it is whole, and picks the file that was meant.

Photos returns nothing from an export, names files as it likes (`.JPG` becomes `.jpeg`, ` (1)`, `FullSizeRender`), may
write a movie beside a still, and may go on writing after its reply has timed out. One item is exported into one empty
directory, so whatever lies there is that item; names are not looked at to decide.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread

from skicyclerun.errors import PhotoError, PhotoTransient, PhotoUnreadable
from skicyclerun.images.jpeg_segments import ScanWalker, read_header
from skicyclerun.images.movies import check_movie
from skicyclerun.images.sniff import Content, sniff
from skicyclerun.images.staging import Original
from skicyclerun.images.tag_dates import parse_date
from skicyclerun.models import Component, Photo


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A regular file in the directory of an attempt, as it was at one moment."""

    path: Path
    size: int
    mtime_ns: int
    content: Content | None
    """By its first bytes; None for what is neither a picture nor a movie."""


async def exported_file(photo: Photo, directory: Path, *, interval: float, patience: float) -> ExportedFile:
    """The file of this photo, once it is whole and nothing in the directory has changed for `interval` seconds.

    Looks for at most `patience` seconds more. Raises PhotoTransient where nothing usable has come by then,
    PhotoUnreadable where Photos made something else (a movie for a picture).
    """
    deadline = anyio.current_time() + patience
    before: Sequence[ExportedFile] | None = None
    while True:
        files = await anyio.to_thread.run_sync(look_into, directory)
        chosen = _choice(photo, files) if files == before else None
        if chosen is not None and await anyio.to_thread.run_sync(is_whole, chosen):
            return chosen
        if before is not None and anyio.current_time() >= deadline:
            raise _what_is_wrong(photo, files, changing=files != before)
        before = files
        await anyio.sleep(interval)


def look_into(directory: Path) -> list[ExportedFile]:
    """The files in a directory, by name; hidden ones (`.DS_Store`, `._x`), links and folders are none of them."""
    files: list[ExportedFile] = []
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for name in names:
        path = directory / name
        try:
            with _opened(path) as stream:
                status = os.fstat(stream.fileno())
                if stat.S_ISREG(status.st_mode):
                    files.append(ExportedFile(path, status.st_size, status.st_mtime_ns, sniff(stream)))
        except OSError:
            continue  # a link, or gone again: Photos renames while it writes
    return files


def is_whole(file: ExportedFile) -> bool:
    """Whether the end of a JPEG, or the last box of a movie, is there. Other pictures are left to who decodes them."""
    try:
        with _opened(file.path) as stream:
            original = Original(file.path, stream, file.size, file.mtime_ns)
            if file.content is Content.JPEG:
                walker = ScanWalker(read_header(original).size)
                for block in original.blocks(walker.start):
                    walker.feed(block)
                return walker.end is not None
            if file.content is Content.MOVIE:
                check_movie(original)
    except (OSError, PhotoError):
        return False
    return file.content is not None


def date_taken(path: Path) -> datetime | None:
    """EXIF DateTimeOriginal of a JPEG, naive as it stands there; None where there is none, or none that is a date."""
    from PIL.ExifTags import IFD, Base  # the image stack is only wanted once something was exported

    from skicyclerun.images.convert import open_with_pillow, quiet_pillow

    quiet_pillow()
    with _opened(path) as stream:
        try:
            with open_with_pillow(stream, Content.JPEG) as image:
                return parse_date(str(image.getexif().get_ifd(IFD.Exif)[Base.DateTimeOriginal]))
        except Exception:
            # Pillow has no common base for what a damaged block makes it raise (SyntaxError, struct.error, …).
            return None


def _opened(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _choice(photo: Photo, files: Sequence[ExportedFile]) -> ExportedFile | None:
    """The best file of the wanted kind: a JPEG before other pictures, the larger before the smaller."""
    movie = photo.component is Component.VIDEO
    usable = [file for file in files if file.content is not None and (file.content is Content.MOVIE) is movie]
    return min(usable, key=lambda file: (file.content is not Content.JPEG, -file.size, file.path.name), default=None)


def _what_is_wrong(photo: Photo, files: Sequence[ExportedFile], *, changing: bool) -> PhotoError:
    name = photo.original_filename
    if not files:
        return PhotoTransient(f"{name}: Photos exported nothing.")
    if changing:
        return PhotoTransient(f"{name}: Photos is still writing the file.")
    if not any(file.size for file in files):
        return PhotoTransient(f"{name}: Photos exported an empty file.")
    if _choice(photo, files) is None:
        others = [file for file in files if file.content is not None]
        if others and all(map(is_whole, others)):
            wanted = "no movie but a picture" if photo.component is Component.VIDEO else "no picture but a movie"
            return PhotoUnreadable(f"{name}: Photos exported {wanted}")
        return PhotoTransient(f"{name}: what Photos exported is neither a picture nor a movie.")
    return PhotoTransient(f"{name}: what Photos exported is cut short.")
