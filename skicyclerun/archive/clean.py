"""Emptying the folders that a proved archive holds: moved aside by rename, made anew, what was moved removed.

Nothing is removed because of where it lies, only because it is in the archive: size, times and inode as archived, or,
where those differ, the same SHA-256. Whatever else is found in a folder that was moved aside (added or changed since
the archive was written) goes back to where it was and is named in the report.

A folder's `kept` files are renamed back from the folder that was moved aside into the new one before anything is
removed; never over one that appeared there meanwhile.

Every step may be cut off anywhere and repeated: `clean_folders` begins with what an earlier attempt left behind, and
`put_back` undoes it where the archive is gone.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from skicyclerun.archive.manifest import Manifest, Member
from skicyclerun.archive.plan import FINDER_FILE, WORK_PREFIX, ArchivedFolder
from skicyclerun.errors import ArchiveError
from skicyclerun.files.atomic_files import make_directories, rename_to_new_name, sync_directory
from skicyclerun.files.beneath import Beneath
from skicyclerun.files.fault_points import fault_point

_ASIDE: Final = f"{WORK_PREFIX}cleaning-"
# What rename(2) says of a mount point, of a parent that may not be written, and of another disk.
_CANNOT_MOVE_WHOLE: Final = frozenset({errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL})
_GO_ON: Final = "Look at the disk, then type the command again: it carries on with the cleaning."
# By these the disk, or the system, says that it takes nothing at the moment, whatever the file.
_DISK_FAILS: Final = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True, slots=True)
class MovedFolder:
    """A folder of old outputs and where its content waits to be removed."""

    folder: ArchivedFolder
    aside: Path


@dataclass(slots=True)
class CleanReport:
    """What cleaning did."""

    removed_files: int = 0
    """Files and links."""
    kept: list[Path] = field(default_factory=list)
    """Added or changed since the archive was written: back in their folder."""
    stuck: list[Path] = field(default_factory=list)
    """Could neither be removed nor moved back; they stay in the folder that was moved aside."""


def clean_folders(folders: Sequence[ArchivedFolder], manifest: Manifest) -> CleanReport:
    """Empty the folders of everything the archive holds. The archive must be proved and published.

    Carries on with, and repeats safely after, an attempt that was cut off. Folders that are not there stay so.
    Raises ArchiveError when a folder cannot be moved; what was not moved is then untouched.
    """
    return remove_moved(move_aside(folders, manifest.timestamp), manifest)


def move_aside(folders: Sequence[ArchivedFolder], timestamp: str) -> list[MovedFolder]:
    """Move the content of the folders aside and leave them empty but for `kept` files; both are durable on return.

    A folder goes by one rename within its parent. One that cannot (a mount point, a link to elsewhere, a parent that
    may not be written) keeps its place and its children go, into a work folder inside it. Includes what an earlier,
    interrupted attempt moved. Raises ArchiveError.
    """
    moved: list[MovedFolder] = []
    try:
        for folder in folders:
            moved.extend(MovedFolder(folder, aside) for aside in _asides(folder))
        for folder in folders:
            if os.path.lexists(folder.path) and _has_outputs(folder):
                moved.append(_move(folder, timestamp))
                fault_point("clean.first_moved")
        fault_point("clean.moved")
        for item in moved:
            if not os.path.lexists(item.folder.path):
                make_directories(item.folder.path)
                _copy_owner_and_mode(item.aside, item.folder.path)
        fault_point("clean.recreated")
        for item in moved:
            _return_kept(item)
    except OSError as error:
        raise ArchiveError(
            f"{error.filename or 'A folder'} cannot be emptied ({error.strerror or error}). "
            "The archive is complete; nothing was deleted."
        ) from error
    return moved


def remove_moved(moved: Sequence[MovedFolder], manifest: Manifest) -> CleanReport:
    """Remove what was moved aside and is in the archive; put the rest back. Safe to repeat. Raises ArchiveError."""
    report = CleanReport()
    archived = {member.parts: member for member in manifest.members}
    for item in moved:
        try:
            _empty(item, archived, report)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ArchiveError(
                f"{error.filename or item.aside} cannot be removed ({error.strerror or error}). "
                "The archive is complete; nothing that is not in it was deleted.",
                next_step=f"Look into {item.aside}." if error.errno not in _DISK_FAILS else _GO_ON,
            ) from error
    fault_point("clean.removed")
    return report


def put_back(folders: Sequence[ArchivedFolder]) -> list[Path]:
    """Undo `move_aside`: everything that waits to be removed goes back. For when the archive is no longer there.

    Returns what could not go back (none, unless names were taken that cannot be told apart). Raises ArchiveError.
    """
    report = CleanReport()
    for folder in folders:
        for aside in _asides(folder):
            try:
                if aside.parent == folder.path.parent and not folder.path.is_symlink():
                    with suppress(OSError):  # only an empty one goes
                        os.rmdir(folder.path)
                if not os.path.lexists(folder.path):
                    os.rename(aside, folder.path)
                    sync_directory(folder.path.parent)
                    continue
                _return_kept(MovedFolder(folder, aside))
                _empty(MovedFolder(folder, aside), {}, report, keep_all=True)
            except OSError as error:
                raise ArchiveError(
                    f"{aside} cannot be moved back to {folder.path} ({error.strerror or error}). Nothing was deleted.",
                    next_step=f"Move the files in {aside} back by hand.",
                ) from error
    return report.stuck


# ── moving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _asides(folder: ArchivedFolder) -> list[Path]:
    """What earlier attempts moved, beside the folder or inside it. Links are not taken for it."""
    found: list[Path] = []
    name = re.compile(rf"{re.escape(_ASIDE)}[0-9_]+(?:[.-][0-9]+)?-{re.escape(folder.name_in_zip)}")
    for place in (folder.path.parent, folder.path):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
            found.extend(
                place / entry.name
                for entry in entries
                if name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            )
    return sorted(found)


def _has_outputs(folder: ArchivedFolder) -> bool:
    with os.scandir(folder.path) as entries:
        return any(not entry.name.startswith(_ASIDE) and entry.name not in folder.kept for entry in entries)


def _free_aside(place: Path, folder: ArchivedFolder, timestamp: str) -> Path:
    extras = itertools.chain([""], (f".{number}" for number in itertools.count(2)))
    asides = (place / f"{_ASIDE}{timestamp}{extra}-{folder.name_in_zip}" for extra in extras)
    return next(aside for aside in asides if not os.path.lexists(aside))


def _move(folder: ArchivedFolder, timestamp: str) -> MovedFolder:
    if not folder.path.is_symlink() and not os.path.ismount(folder.path):
        aside = _free_aside(folder.path.parent, folder, timestamp)
        try:
            os.rename(folder.path, aside)
        except OSError as error:
            if error.errno not in _CANNOT_MOVE_WHOLE:
                raise
        else:
            sync_directory(folder.path.parent)
            return MovedFolder(folder, aside)
    aside = _free_aside(folder.path, folder, timestamp)
    os.mkdir(aside)
    with Beneath(folder.path) as home, os.scandir(home.folder()) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(_ASIDE)]
        for name in set(names) - set(folder.kept):
            os.rename(name, f"{aside.name}/{name}", src_dir_fd=home.folder(), dst_dir_fd=home.folder())
    sync_directory(aside)
    sync_directory(folder.path)
    return MovedFolder(folder, aside)


def _return_kept(item: MovedFolder) -> None:
    """Give the `kept` files their place again, unless something has taken it: that is newer. Safe to repeat."""
    returned = False
    for name in item.folder.kept:
        old, new = item.aside / name, item.folder.path / name
        if not os.path.lexists(old):
            continue
        try:
            rename_to_new_name(old, new)
        except FileExistsError:
            continue
        returned = True
    if returned:
        sync_directory(item.folder.path)
        sync_directory(item.aside)


def _copy_owner_and_mode(source: Path, target: Path) -> None:
    status = os.stat(source)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    with suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid)


# ── removing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _empty(
    moved: MovedFolder, archived: Mapping[tuple[str, ...], Member], report: CleanReport, *, keep_all: bool = False
) -> None:
    with Beneath(moved.aside) as aside, Beneath(moved.folder.path) as home:
        _Removal(aside, home, moved.folder, archived, report, keep_all).run()
    with suppress(OSError):  # what is left in it, if anything, has been reported as stuck
        os.rmdir(moved.aside)
    sync_directory(moved.aside.parent)


@dataclass(slots=True)
class _Removal:
    """Empties one folder that was moved aside, deepest sub-folders first."""

    aside: Beneath
    home: Beneath
    folder: ArchivedFolder
    archived: Mapping[tuple[str, ...], Member]
    report: CleanReport
    keep_all: bool
    made: set[tuple[str, ...]] = field(default_factory=set)

    def run(self) -> None:
        for parts in self._folders_deepest_first():
            descriptor = self.aside.folder(parts)
            self._make_writable(descriptor)
            with os.scandir(descriptor) as entries:
                names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            for name, is_folder in names:
                if is_folder:
                    self._remove_folder((*parts, name))
                else:
                    self._remove_or_keep((*parts, name))
        for parts in sorted(self.made):
            sync_directory(self.home.path.joinpath(*parts))

    def _folders_deepest_first(self) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = [()]
        for parts in found:  # grows while it is walked
            with os.scandir(self.aside.folder(parts)) as entries:
                found.extend((*parts, entry.name) for entry in entries if entry.is_dir(follow_symlinks=False))
        return sorted(found, key=len, reverse=True)

    @staticmethod
    def _make_writable(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        if mode & 0o700 != 0o700:
            with suppress(PermissionError):
                os.fchmod(descriptor, stat.S_IMODE(mode) | 0o700)

    def _remove_folder(self, parts: tuple[str, ...]) -> None:
        with suppress(OSError):
            if self.keep_all:
                self.home.folder(parts, create=True)
            os.rmdir(parts[-1], dir_fd=self.aside.folder(parts[:-1]))

    def _remove_or_keep(self, parts: tuple[str, ...]) -> None:
        member = self.archived.get((self.folder.name_in_zip, *parts))
        try:
            if self._is_disposable(parts) or (member is not None and self._is_archived(parts, member)):
                os.unlink(parts[-1], dir_fd=self.aside.folder(parts[:-1]))
                self.report.removed_files += 1
                return
        except OSError as error:
            if error.errno in _DISK_FAILS:
                raise
            # Kept, like everything that cannot be removed.
        self._keep(parts)

    def _is_disposable(self, parts: tuple[str, ...]) -> bool:
        """Our own unfinished work, and what Finder writes into every folder it shows."""
        return not self.keep_all and (parts[-1] == FINDER_FILE or any(part.startswith(WORK_PREFIX) for part in parts))

    def _is_archived(self, parts: tuple[str, ...], member: Member) -> bool:
        status = self.aside.stat(parts)
        known = (member.size, member.mtime_ns, member.inode, member.ctime_ns)
        there = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
        return (member.inode != 0 and there == known) or member.lies_at(self.aside, parts)

    def _keep(self, parts: tuple[str, ...]) -> None:
        """Move it back to where it was, beside what may have taken its name meanwhile."""
        try:
            source = self.aside.folder(parts[:-1])
            target = self.home.folder(parts[:-1], create=True)
            name = _free_name(parts[-1], target)
            os.rename(parts[-1], name, src_dir_fd=source, dst_dir_fd=target)
        except OSError:
            self.report.stuck.append(self.aside.path.joinpath(*parts))
            return
        self.made.add(parts[:-1])
        self.report.kept.append(self.home.path.joinpath(*parts[:-1], name))


def _free_name(name: str, directory: int) -> str:
    wanted, number = name, 1
    stem, suffix = os.path.splitext(name)
    while True:
        try:
            os.stat(wanted, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return wanted
        wanted = f"{stem} (kept{f' {number}' if number > 1 else ''}){suffix}"
        number += 1
