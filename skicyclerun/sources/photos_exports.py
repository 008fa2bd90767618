"""What Photos left in the directory of one export: waits until it is whole, and picks the file that was meant.

Photos returns nothing from an export, names files as it likes (`.JPG` becomes `.jpeg`, ` (1)`, `FullSizeRender`), may
write a movie beside a still, and may go on writing after its reply has timed out. One item is exported into one empty
directory, so whatever lies there is that item; names are not looked at to decide.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, Final

import anyio
import anyio.to_thread

from skicyclerun.errors import PhotoError, PhotoTransient, PhotoUnreadable
from skicyclerun.models import Component, Photo

_BLOCK: Final = 1 << 20
_HEIF_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif"})
_PICTURE_MAGIC: Final = (b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*")
_MOVIE_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})

_START_OF_SCAN: Final = 0xDA
_APP1: Final = 0xE1
_EXIF_IFD: Final = 0x8769
_DATE_TIME_ORIGINAL: Final = 0x9003


class Form(Enum):
    """What a file is by its first bytes."""

    JPEG = auto()
    PICTURE = auto()
    MOVIE = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A regular file in the directory of an attempt, as it was at one moment."""

    path: Path
    size: int
    mtime_ns: int
    form: Form


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
                    files.append(ExportedFile(path, status.st_size, status.st_mtime_ns, form_of(stream.read(16))))
        except OSError:
            continue  # a link, or gone again: Photos renames while it writes
    return files


def form_of(head: bytes) -> Form:
    """The form of a file from its first 16 bytes."""
    if head.startswith(b"\xff\xd8\xff"):
        return Form.JPEG
    if head.startswith(_PICTURE_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return Form.PICTURE
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return Form.PICTURE
    return Form.MOVIE if head[4:8] in _MOVIE_BOXES else Form.UNKNOWN


def is_whole(file: ExportedFile) -> bool:
    """Whether the end of a JPEG, or the last box of a movie, is there. Other forms are left to who decodes them."""
    try:
        with _opened(file.path) as stream:
            if file.form is Form.JPEG:
                return _has_end_of_image(stream)
            if file.form is Form.MOVIE:
                return _boxes_fill(stream, file.size)
    except OSError:
        return False
    return file.form is Form.PICTURE and file.size > 0


def date_taken(path: Path) -> datetime | None:
    """EXIF DateTimeOriginal of a JPEG, naive as it stands there; None where there is none, or none that is a date."""
    from PIL import Image  # the image stack is only wanted once something was exported

    with _opened(path) as stream:
        if stream.read(2) != b"\xff\xd8":
            return None
        for marker, length in _segments(stream):
            if marker == _APP1 and (data := stream.read(length)).startswith(b"Exif\x00\x00"):
                exif = Image.Exif()
                try:
                    exif.load(data)
                    return datetime.strptime(
                        str(exif.get_ifd(_EXIF_IFD)[_DATE_TIME_ORIGINAL])[:19], "%Y:%m:%d %H:%M:%S"
                    )
                except Exception:
                    # Pillow has no common base for what a damaged block makes it raise (SyntaxError, struct.error, …).
                    return None
    return None


def _opened(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _choice(photo: Photo, files: Sequence[ExportedFile]) -> ExportedFile | None:
    """The best file of the wanted kind: a JPEG before other pictures, the larger before the smaller."""
    wanted = (Form.MOVIE,) if photo.component is Component.VIDEO else (Form.JPEG, Form.PICTURE)
    usable = [file for file in files if file.form in wanted]
    return min(usable, key=lambda file: (wanted.index(file.form), -file.size, file.path.name), default=None)


def _what_is_wrong(photo: Photo, files: Sequence[ExportedFile], *, changing: bool) -> PhotoError:
    name = photo.original_filename
    if not files:
        return PhotoTransient(f"{name}: Photos exported nothing.")
    if changing:
        return PhotoTransient(f"{name}: Photos is still writing the file.")
    if not any(file.size for file in files):
        return PhotoTransient(f"{name}: Photos exported an empty file.")
    if _choice(photo, files) is None:
        others = [file for file in files if file.form is not Form.UNKNOWN]
        if others and all(map(is_whole, others)):
            wanted = "no movie but a picture" if photo.component is Component.VIDEO else "no picture but a movie"
            return PhotoUnreadable(f"{name}: Photos exported {wanted}")
        return PhotoTransient(f"{name}: what Photos exported is neither a picture nor a movie.")
    return PhotoTransient(f"{name}: what Photos exported is cut short.")


def _segments(stream: BinaryIO) -> Iterator[tuple[int, int]]:
    """(marker, length of its data) of a JPEG's segments up to its first scan, with the stream at the data.

    Begins behind the SOI marker. Ends early where the file is no JPEG any more (ITU T.81, annex B).
    """
    position = stream.tell()
    while True:
        stream.seek(position)
        marker = stream.read(2)
        if len(marker) < 2 or marker[0] != 0xFF:
            return
        if marker[1] == 0xFF:  # a fill byte
            position += 1
            continue
        if marker[1] == 0x01 or 0xD0 <= marker[1] <= 0xD8:  # stand alone
            position += 2
            continue
        length = int.from_bytes(stream.read(2), "big")
        if marker[1] == 0xD9 or length < 2:
            return
        yield marker[1], length - 2
        if marker[1] == _START_OF_SCAN:
            return
        position += 2 + length


def _has_end_of_image(stream: BinaryIO) -> bool:
    """Whether an EOI marker follows the scan; the one of a thumbnail stands before it.

    In entropy-coded data every FF is followed by 00 or a restart marker, so FF D9 cannot occur there by chance.
    """
    if stream.read(2) != b"\xff\xd8":
        return False
    if not any(marker == _START_OF_SCAN for marker, _ in _segments(stream)):
        return False
    last = b""
    while block := stream.read(_BLOCK):
        if b"\xff\xd9" in last + block:
            return True
        last = block[-1:]
    return False


def _boxes_fill(stream: BinaryIO, size: int) -> bool:
    """Whether the top-level boxes (ISO 14496-12, QuickTime) end where the file ends, and `moov` is one of them."""
    position, has_moov = 0, False
    while position < size:
        stream.seek(position)
        header = stream.read(16)
        if len(header) < 8:
            return False
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:  # to the end of the file
            length = size - position
        if length < 8:
            return has_moov and kind == b"\x00\x00\x00\x00"  # QuickTime may end in four zero bytes
        has_moov = has_moov or kind == b"moov"
        position += length
    return has_moov and position == size
