"""Thumbnails, made once for each content and kept beside the state: `thumbnails/ab/abc….webp`, WebP of 320 pixels.

They may be removed at any time: what is wanted is made again. None is synced; an empty file, which a power cut may
leave, counts as none.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from skicyclerun.errors import OutsideFolder, PhotoError
from skicyclerun.files.beneath import NOT_A_FOLDER, Beneath
from skicyclerun.files.fault_points import fault_point
from skicyclerun.report.facts import PageFile

#: Pixels of the longest side: of a thumbnail, and of the larger one that shows what a stage did.
SMALL: Final = 320
LARGE: Final = 960
_QUALITY: Final = 76
_MAX_PIXELS: Final = 300_000_000
_NAME: Final = re.compile(r"([0-9a-f]{64})(-\d+)?\.webp")
_LEFT_OVER: Final = re.compile(r"\.[0-9a-f]{64}.*\.tmp")

#: Hears how many thumbnails are made, and of how many.
Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A thumbnail of a file. `size`: pixels of its longest side."""

    file: PageFile
    size: int = SMALL

    @property
    def name(self) -> str:
        return f"{self.file.key}.webp" if self.size == SMALL else f"{self.file.key}-{self.size}.webp"


class Thumbnails:
    """The folder of the thumbnails. Raises OutsideFolder where a link stands in its place."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._there: set[str] = set()

    def place(self, name: str) -> Path | None:
        """Where the thumbnail of this name is, None where it could not be made."""
        return self.path / name[:2] / name if name in self._there else None

    async def make(self, wanted: Iterable[Wanted], advance: Advance | None = None) -> int:
        """Make those that are not there, on all cores; returns how many. A file of which none can be made has none."""
        self._there = await anyio.to_thread.run_sync(self._listing)
        missing = {each.name: each for each in wanted if each.name not in self._there and each.file.kind != "movie"}
        if not missing:
            return 0
        folders = {name[:2] for name in missing}
        await anyio.to_thread.run_sync(self._make_folders, folders)
        todo, done, made = list(missing.values())[::-1], 0, 0

        async def worker() -> None:
            nonlocal done, made
            while todo:
                each = todo.pop()
                # A picture a call: whoever presses Ctrl-C waits for the ones at hand alone.
                if await anyio.to_thread.run_sync(self._make_one, each, limiter=limiter):
                    self._there.add(each.name)
                    made += 1
                done += 1
                if advance is not None:
                    advance(done, len(missing))

        cores = os.cpu_count() or 1
        limiter = anyio.CapacityLimiter(cores)
        async with anyio.create_task_group() as working:
            for _ in range(cores):
                working.start_soon(worker)
        return made

    def prune(self, contents: Collection[str]) -> int:
        """Remove the thumbnails of all other contents, and what a stop left half made; returns how many. Blocks."""
        removed = 0
        for folder, name in self._files():
            match = _NAME.fullmatch(name)
            if (match is not None and match[1] not in contents) or _LEFT_OVER.fullmatch(name):
                with suppress(OSError):
                    os.unlink(self.path / folder / name)
                    removed += 1
        for folder in {each for each, _ in self._files()} ^ set(self._folders()):
            with suppress(OSError):  # not empty after all
                os.rmdir(self.path / folder)
        return removed

    def _listing(self) -> set[str]:
        """The names of those that are there and not empty; blocks."""
        self._refuse_link()
        found = set()
        for folder in self._folders():
            with os.scandir(self.path / folder) as entries:
                found |= {
                    entry.name
                    for entry in entries
                    if _NAME.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_size
                }
        return found

    def _refuse_link(self) -> None:
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(self.path.lstat().st_mode):
                raise OutsideFolder(self.path, self.path.parent)

    def _folders(self) -> list[str]:
        """Its folders of two digits; a link in the place of one is none."""
        try:
            with os.scandir(self.path) as entries:
                return [
                    entry.name
                    for entry in entries
                    if re.fullmatch("[0-9a-f]{2}", entry.name) and entry.is_dir(follow_symlinks=False)
                ]
        except FileNotFoundError:
            return []

    def _files(self) -> list[tuple[str, str]]:
        return [(folder, name) for folder in self._folders() for name in os.listdir(self.path / folder)]

    def _make_folders(self, names: Iterable[str]) -> None:
        with Beneath(self.path, may_be_missing=True) as beneath:
            for name in names:
                try:
                    beneath.folder((name,), create=True)
                except OSError as error:
                    if error.errno in NOT_A_FOLDER:
                        raise OutsideFolder(self.path / name, self.path) from error
                    raise

    def _make_one(self, wanted: Wanted) -> bool:
        """Whether it could be made; blocks. Raises OSError where it cannot be written."""
        data = thumbnail_of(wanted)
        if data is None:
            return False
        target = self.path / wanted.name[:2] / wanted.name
        temporary = target.with_name(f".{wanted.name}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as stream:
                stream.write(data)
            fault_point("report.thumbnail_made")
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return True


def thumbnail_of(wanted: Wanted) -> bytes | None:
    """The thumbnail's bytes, None where the file is no picture that can be read. Blocks."""
    from skicyclerun.images.scale import ScaleOptions, scaled_pixels

    small = ScaleOptions(
        max_dimension=wanted.size,
        multiple_of=1,
        format="webp",
        quality=_QUALITY,
        metadata="strip",
        max_pixels=_MAX_PIXELS,
    )
    try:
        return scaled_pixels(wanted.file.path, small).encoded()
    except (PhotoError, OSError):
        return None
