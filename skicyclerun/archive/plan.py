"""What goes into an archive: a walk over the old outputs, and whether the disk has room for it.

Symbolic links become members that are links; they are never walked. Folders of work in progress (`.skicyclerun-…`)
are left out: nothing in them was ever an output.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skicyclerun.archive.manifest import MANIFEST_NAME, MemberKind, portable_path
from skicyclerun.errors import ArchiveError, DiskFull
from skicyclerun.files.beneath import Beneath
from skicyclerun.wording import bytes_in_words, counted, printable

#: What skicyclerun names its own work in progress; never archived, never restored.
WORK_PREFIX: Final = ".skicyclerun-"
#: Left behind by macOS' Finder in every folder it shows: archived, but no reason to make an archive, nor to keep it.
FINDER_FILE: Final = ".DS_Store"

_SPARE_BYTES: Final = 16 * 1024 * 1024
_ROOM_FOR_ARCHIVE: Final = (
    "Free some space (`skicyclerun archive prune --dry-run` shows what could go), or set `paths.archive` to another "
    "disk. Then type the command again, or `skicyclerun run --resume` where the run had begun."
)
_BYTES_PER_MEMBER: Final = 700
_KINDS: Final = {stat.S_IFDIR: MemberKind.FOLDER, stat.S_IFREG: MemberKind.FILE, stat.S_IFLNK: MemberKind.LINK}


@dataclass(frozen=True, slots=True)
class ArchivedFolder:
    """A folder of old outputs and the name it has inside the archive (`albums`, `metadata` …)."""

    name_in_zip: str
    """One component, printable, by which a restore finds the folder again."""
    path: Path
    kept: tuple[str, ...] = ()
    """Names of files directly in it that are archived, but stay where they are when it is emptied."""
    stays: bool = False
    """It is archived, and not emptied."""

    def __post_init__(self) -> None:
        """Raises ArchiveError for a name that no archive could hold."""
        name = self.name_in_zip
        if name in ("", ".", "..", MANIFEST_NAME) or "/" in name or portable_path(name) != (name, None):
            raise ArchiveError(f"A folder cannot be called {name!r} in an archive. Nothing was archived.")


@dataclass(frozen=True, slots=True)
class PlannedMember:
    """Something found in a folder; `parts` are below the folder."""

    folder: int
    """Index into ArchivePlan.folders."""
    parts: tuple[str, ...]
    kind: MemberKind
    size: int


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    folders: tuple[ArchivedFolder, ...]
    """Those that are there."""
    members: tuple[PlannedMember, ...]
    """Folder by folder, each sub-folder before what is in it."""

    @property
    def files(self) -> int:
        """Files and links."""
        return sum(1 for member in self.members if member.kind is not MemberKind.FOLDER)

    @property
    def content_bytes(self) -> int:
        return sum(member.size for member in self.members)

    def folders_in_words(self) -> list[str]:
        """A line for each folder that is emptied: its path, how many files, what size."""
        lines = []
        for number, folder in enumerate(self.folders):
            if folder.stays:
                continue
            files = [each for each in self.members if each.folder == number and each.kind is not MemberKind.FOLDER]
            size = bytes_in_words(sum(each.size for each in files))
            lines.append(f"{printable(str(folder.path))}: {counted(len(files), 'file')}, {size}")
        return lines

    @property
    def emptied_bytes(self) -> int:
        """Of the folders that do not stay."""
        return sum(member.size for member in self.members if not self.folders[member.folder].stays)

    @property
    def is_empty(self) -> bool:
        """Nothing but empty folders and files that stay: no archive is made."""
        return all(
            member.kind is MemberKind.FOLDER
            or member.parts[-1] == FINDER_FILE
            or (len(member.parts) == 1 and member.parts[0] in self.folders[member.folder].kept)
            for member in self.members
        )


def plan_archive(folders: Sequence[ArchivedFolder]) -> ArchivePlan:
    """Walk the folders; those that are not there are left out.

    Raises ArchiveError, by name, for a pipe, socket or device (they cannot be archived and must not be deleted), for
    folders that cannot be read, and for folders of which one lies in another.
    """
    check_apart(folders)
    present: list[ArchivedFolder] = []
    members: list[PlannedMember] = []
    for folder in folders:
        if not os.path.lexists(folder.path):
            continue
        if not folder.path.is_dir():
            raise ArchiveError(f"{folder.path} should be a folder and is none. Nothing was archived.")
        present.append(folder)
        try:
            with Beneath(folder.path) as beneath:
                _walk(beneath, len(present) - 1, members)
        except OSError as error:
            where = folder.path if error.filename is None else folder.path / os.fsdecode(error.filename)
            raise ArchiveError(f"{where} cannot be read ({error.strerror}). Nothing was archived.") from error
    return ArchivePlan(tuple(present), tuple(members))


def _walk(beneath: Beneath, folder: int, members: list[PlannedMember]) -> None:
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        subfolders: list[tuple[str, ...]] = []
        with os.scandir(beneath.folder(parts)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                if entry.name.startswith(WORK_PREFIX):
                    continue
                status = entry.stat(follow_symlinks=False)
                path = (*parts, entry.name)
                kind = _KINDS.get(stat.S_IFMT(status.st_mode))
                if kind is None:
                    raise ArchiveError(
                        f"{beneath.path.joinpath(*path)} is a pipe, a socket or a device; it cannot be archived. "
                        "Nothing was archived.",
                        next_step="Move it elsewhere.",
                    )
                is_folder = kind is MemberKind.FOLDER
                members.append(PlannedMember(folder, path, kind, 0 if is_folder else status.st_size))
                subfolders += [path] if is_folder else []
        waiting.extend(reversed(subfolders))


def check_apart(folders: Sequence[ArchivedFolder], archive_directory: Path | None = None) -> None:
    """Raises ArchiveError when one folder lies in another, or the archives lie in what would be emptied."""
    real = [(folder.name_in_zip, Path(os.path.realpath(folder.path))) for folder in folders]
    for index, (name, path) in enumerate(real):
        for other_name, other in real[index + 1 :]:
            if name == other_name or path == other or path in other.parents or other in path.parents:
                raise ArchiveError(
                    f"{name} ({path}) and {other_name} ({other}) lie in one another. Nothing was archived.",
                    next_step="Give each its own folder under `paths`.",
                )
        if archive_directory is not None:
            archives = Path(os.path.realpath(archive_directory))
            if path == archives or path in archives.parents:
                raise ArchiveError(
                    f"The archives ({archives}) lie inside {name} ({path}), which is to be emptied. "
                    "Nothing was archived.",
                    next_step="Set `paths.archive` to a folder outside it.",
                )


def estimate_archive_bytes(plan: ArchivePlan) -> int:
    """An upper bound for the ZIP: all content as if stored, headers, directory and manifest."""
    if plan.is_empty:
        return 0
    # A name is twice in the ZIP and up to twice in the manifest.
    names = sum(len(os.fsencode("/".join(member.parts))) for member in plan.members)
    names += sum(len(os.fsencode(folder.name_in_zip)) + 30 for folder in plan.folders)
    content = plan.content_bytes
    return content + content // 1000 + 4 * names + _BYTES_PER_MEMBER * (len(plan.members) + 1)


def check_space(
    plan: ArchivePlan,
    archive_directory: Path,
    export_directory: Path,
    export_estimate: int = 0,
    *,
    freed_bytes: int = 0,
) -> int:
    """Whether the archive, and the export after it, will fit; returns the archive's estimate in bytes.

    Each disk is asked only for what will lie on it. `freed_bytes` is what emptying the folders gives back to the
    export. Raises DiskFull, saying how much is missing.
    """
    archive_bytes = estimate_archive_bytes(plan)
    export_bytes = max(0, export_estimate - freed_bytes)
    archive_at, export_at = nearest_folder(archive_directory), nearest_folder(export_directory)
    if os.stat(archive_at).st_dev == os.stat(export_at).st_dev:
        require_space(archive_at, {"archive": archive_bytes, "export": export_bytes})
    else:
        require_space(archive_at, {"archive": archive_bytes})
        require_space(export_at, {"export": export_bytes})
    return archive_bytes


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    path = Path(os.path.abspath(path))
    while not path.exists():
        path = path.parent
    return path


def require_space(path: Path, needs: Mapping[str, int], *, remedy: str = _ROOM_FOR_ARCHIVE) -> None:
    """Raises DiskFull, saying how much is missing, when the disk of `path` has not so many bytes for each need.

    `remedy` is what to do then.
    """
    needed = sum(needs.values())
    if not needed:
        return
    free = shutil.disk_usage(path).free
    missing = needed + _SPARE_BYTES - free
    if missing > 0:
        parts = " and ".join(f"{bytes_in_words(size)} for the {name}" for name, size in needs.items() if size)
        raise DiskFull(
            f"The disk of {path} has {bytes_in_words(free)} free and {parts} are needed, with "
            f"{bytes_in_words(_SPARE_BYTES)} to spare: {bytes_in_words(missing)} are missing. Nothing was touched.",
            next_step=remedy,
        )
