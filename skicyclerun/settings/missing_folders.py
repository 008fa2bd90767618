"""Folders that a run would write to and that are not there, and whether making them is safe to do unasked.

A folder below one that exists is simply made. Where that one is missing too, the likeliest reason is a disk that is
not connected: making the whole path would then put the photos on another disk, where nobody looks for them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skicyclerun.errors import ConfigError, FolderMissing
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import FILE_KEYS, key_in_words
from skicyclerun.stages.stage import Stage

LIB_ROOT: Final = "lib_root"

#: Where systems mount disks, by name: what is missing directly in one of these is a disk, not a folder to be made.
_MOUNT_FOLDERS: Final = ("/Volumes", "/media", "/mnt", "/run/media")


@dataclass(frozen=True, slots=True)
class MissingFolder:
    """One of our folders that would need more than a `mkdir` of its own."""

    key: str
    """`lib_root`, or the key of `paths` it stands under (`paths.archive`); `logging.file` for the log files."""
    folder: Path
    missing: Path
    """The outermost folder on the way to it that is not there, or the disk; may be `folder` itself."""

    @property
    def is_disk(self) -> bool:
        """Whether what is missing is named like a disk, which nobody should make a folder for."""
        return _is_disk(self.missing)

    @property
    def what(self) -> str:
        """Why it is not simply made, for the end of a sentence."""
        return "it does not exist" if self.missing == self.folder else f"{self.missing} does not exist"

    def error(self) -> FolderMissing:
        """What to say where nobody can be asked."""
        if self.is_disk:
            step = "Connect the disk, or name another folder with --lib-root."
        else:
            step = f"Connect the disk it is on, or `mkdir -p {shlex.quote(str(self.folder))}`."
            if self.key == LIB_ROOT:
                step += " Another folder is named with --lib-root."
        if self.key != LIB_ROOT:
            step += f" Another place is named with {self.key} in the configuration."
        return FolderMissing(self.key, self.folder, self.what, next_step=step)


def missing_folders(
    settings: Settings, stages: Sequence[Stage], allowed: Collection[Path] = frozenset()
) -> list[MissingFolder]:
    """The folders that these stages and the log write to and that are not simply made, each place once.

    `allowed` are folders that the person has agreed to have made with everything above them. Nothing is changed.
    """
    found: dict[Path, MissingFolder] = {}
    for key, folder in _places(settings, stages):
        if folder in allowed or not _is_absent(folder):
            continue
        if _is_absent(folder.parent) or _is_disk(folder):
            found.setdefault(folder, MissingFolder(key, folder, _what_is_missing(folder)))
    return list(found.values())


def check_folders(settings: Settings, stages: Sequence[Stage], allowed: Collection[Path] = frozenset()) -> None:
    """Raises FolderMissing for the first of `missing_folders`."""
    for each in missing_folders(settings, stages, allowed):
        raise each.error()


def _places(settings: Settings, stages: Sequence[Stage]) -> Iterator[tuple[str, Path]]:
    """Key and path of the outermost folder of ours around everything that is written."""
    paths = {f"paths.{key}": path for key, path in settings.paths.resolved().items() if key not in FILE_KEYS}
    ours = {LIB_ROOT: settings.lib_root, **paths}
    made = {"logging.file": settings.log_folder}
    for key in dict.fromkeys(key for stage in stages for key in stage.makes_paths):
        try:
            path = settings.path_of(key)
        except ConfigError:
            continue  # for `check_stage_needs` to say
        made[key_in_words(key)] = path.parent if key in FILE_KEYS else path
    for key, folder in made.items():
        around = [(name, place) for name, place in ours.items() if place == folder or place in folder.parents]
        yield min(around, key=lambda each: len(each[1].parts), default=(key, folder))


def _is_absent(path: Path) -> bool:
    """True only where nothing is there; what cannot be looked at is for the one who writes to say."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _is_disk(path: Path) -> bool:
    parent = str(path.parent)
    return parent in _MOUNT_FOLDERS or os.path.dirname(parent) in ("/run/media",)


def _what_is_missing(folder: Path) -> Path:
    """The disk it would lie on, or the outermost folder that is not there."""
    absent = [path for path in (folder, *folder.parents) if _is_absent(path)]
    return next((path for path in absent if _is_disk(path)), absent[-1])
