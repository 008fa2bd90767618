"""An album's folder in the export folder: what lies in it, and how a group of finished files gets there.

The order of writes for a group, which the crash campaign stops at every step of:

1. the bytes of every staged file are synced,
2. each is renamed to its final name,
3. the folder is synced, so that the names are durable,
4. (by the caller) the rows are committed.

A stop before 4 leaves files under final names that no row vouches for; the next run makes the same bytes again and
renames them over those. A symbolic link in the place of an album folder is refused, never followed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skicyclerun.errors import OutsideFolder
from skicyclerun.files.atomic_files import make_directories, sync_directory, sync_files
from skicyclerun.files.fault_points import fault_point
from skicyclerun.files.naming import ORIGINALS_FOLDER

#: Staging lies inside the export folder, so that a rename never crosses file systems. Hidden, and gone after a run.
STAGING_NAME = ".skicyclerun-staging"

#: FAT and some network volumes keep times to two seconds only.
MTIME_TOLERANCE_NS: Final = 2_000_000_000


class StagingFolder:
    """Where files are made before they get their names: inside the folder of the outputs, and gone after a run."""

    def __init__(self, outputs: Path, stage: str = "") -> None:
        """`stage`: where several stages write into one folder, so that none sweeps the other's."""
        self.path = outputs / (f"{STAGING_NAME}-{stage}" if stage else STAGING_NAME)

    def sweep(self) -> None:
        """Remove it with what a stopped run left in it. Raises OutsideFolder where a link stands in its place."""
        if self.path.is_symlink():
            raise OutsideFolder(self.path, self.path.parent)
        shutil.rmtree(self.path, ignore_errors=True)

    def make(self) -> None:
        """Make it; only when there is something to stage, for an update with nothing new touches nothing."""
        self.path.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A finished file that waits for its name."""

    path: Path
    file_name: str
    sha256: str


def _is_original(file_name: str) -> bool:
    return file_name.startswith(f"{ORIGINALS_FOLDER}/")


class AlbumFolder:
    """`export_folder/name`. All methods block.

    `records`: file name → (size, mtime in ns) of files that rows speak for, None where this run has planned the name.
    They may come later, but before it is asked what is ours, or anything is published.
    """

    def __init__(
        self, export_folder: Path, name: str, *, records: Mapping[str, tuple[int, int] | None] | None = None
    ) -> None:
        self.path = export_folder / name
        self.records = records
        if self.path.parent != export_folder or name in ("", ".", ".."):
            raise OutsideFolder(name, export_folder)

    def occupied_names(self) -> set[str]:
        """Names of everything in the folder and, with `originals/` before them, in that of its originals.

        Empty if it does not exist. Raises OutsideFolder, OSError.
        """
        try:
            self._refuse_link()
            names = set(os.listdir(self.path))
            if self._has_originals():
                names |= {f"{ORIGINALS_FOLDER}/{name}" for name in os.listdir(self.path / ORIGINALS_FOLDER)}
        except FileNotFoundError:
            return set()
        return names

    def is_ours(self, file_name: str) -> bool:
        """Whether rows speak for what lies there now. A file that was changed since it was exported is not ours."""
        records = self.records or {}
        if file_name not in records:
            return False
        record = records[file_name]
        if _is_original(file_name) and not self._has_originals():
            return not os.path.lexists(self.path / ORIGINALS_FOLDER)
        if record is None:
            return True
        try:
            found = (self.path / file_name).lstat()
        except FileNotFoundError:
            return True
        size, mtime_ns = record
        return (
            stat.S_ISREG(found.st_mode)
            and found.st_size == size
            and abs(found.st_mtime_ns - mtime_ns) <= MTIME_TOLERANCE_NS
        )

    def strangers(self, occupied: Collection[str]) -> set[str]:
        """Of all names in the folder those that are not ours. Raises OSError."""
        return {name for name in occupied if not self.is_ours(name)}

    def create(self) -> None:
        """Make the folder, durably. Raises OutsideFolder if a symbolic link or a file stands in its place."""
        try:
            self._refuse_link()
        except FileNotFoundError:
            make_directories(self.path)
        else:
            # Made by a run that was killed before it could sync the name, perhaps.
            sync_directory(self.path.parent)

    def publish(self, group: Sequence[StagedFile]) -> list[StagedFile]:
        """Make a group of staged files durable under their final names (steps 1 to 3).

        A file that is already there under one of the names is replaced if it is ours or if it holds the very same
        bytes; otherwise it is somebody else's, it stays, and the staged file is returned as refused.
        Raises OSError and OutsideFolder; then some of the group may have their names, which does no harm.
        """
        self._refuse_link()
        with_originals = any(_is_original(staged.file_name) for staged in group) and self._make_originals()
        refused = [staged for staged in group if not self._may_replace(staged)]
        accepted = [staged for staged in group if staged not in refused]
        sync_files(staged.path for staged in accepted)
        fault_point("group.synced")
        for number, staged in enumerate(accepted):
            os.replace(staged.path, self.path / staged.file_name)
            if number == 0:
                fault_point("group.first_renamed")
        fault_point("group.renamed")
        if with_originals:
            sync_directory(self.path / ORIGINALS_FOLDER)
            fault_point("originals.synced")
        sync_directory(self.path)
        fault_point("group.directory_synced")
        return refused

    def _may_replace(self, staged: StagedFile) -> bool:
        if _is_original(staged.file_name) and not self._has_originals():
            return False
        if self.is_ours(staged.file_name):
            return True
        target = self.path / staged.file_name
        try:
            found = target.lstat()
        except FileNotFoundError:
            return True
        if not stat.S_ISREG(found.st_mode):
            return False
        with target.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == staged.sha256

    def _has_originals(self) -> bool:
        """Whether there is a folder for originals; a link or a file in its place is none."""
        try:
            return stat.S_ISDIR((self.path / ORIGINALS_FOLDER).lstat().st_mode)
        except FileNotFoundError:
            return False

    def _make_originals(self) -> bool:
        """Make that folder, durably; False where something else stands in its place."""
        if not os.path.lexists(self.path / ORIGINALS_FOLDER):
            make_directories(self.path / ORIGINALS_FOLDER)
            fault_point("originals.made")
        return self._has_originals()

    def _refuse_link(self) -> None:
        if not stat.S_ISDIR(self.path.lstat().st_mode):
            raise OutsideFolder(self.path, self.path.parent)
