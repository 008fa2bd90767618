"""Single files that leave their folders: archived like old outputs, and removed one by one once that is proved.

`export.mode: update` empties no folder; a photo that left its album goes into the run's archive, with what was made of
it in other folders, and nothing else does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from skicyclerun.archive.clean import CleanReport
from skicyclerun.archive.manifest import Manifest, Member, MemberKind
from skicyclerun.archive.plan import ArchivedFolder, ArchivePlan, PlannedMember
from skicyclerun.files.atomic_files import sync_open_directory
from skicyclerun.files.beneath import NOT_A_FOLDER, Beneath

#: A file below a folder, as its components: (album folder, file name).
Parts = tuple[str, ...]
#: A folder and the files that leave it.
Departing = tuple[ArchivedFolder, Sequence[Parts]]


def plan_departures(departing: Sequence[Departing]) -> ArchivePlan:
    """The plan of one archive that holds these files; those that are not there (any more) are left out."""
    folders: list[ArchivedFolder] = []
    members: list[PlannedMember] = []
    for folder, files in departing:
        with suppress(FileNotFoundError), Beneath(folder.path) as beneath:
            found = _present(beneath, files, len(folders))
            if found:
                folders.append(folder)
                members.extend(found)
    return ArchivePlan(tuple(folders), tuple(members))


def _present(beneath: Beneath, files: Sequence[Parts], folder: int) -> list[PlannedMember]:
    """The files that are there, each album folder before them."""
    members: list[PlannedMember] = []
    parents: set[Parts] = set()
    for parts in sorted(files):
        status = _status(beneath, parts)
        if status is None or not stat.S_ISREG(status.st_mode):
            continue
        for parent in (parts[:depth] for depth in range(1, len(parts))):
            if parent not in parents:
                parents.add(parent)
                members.append(PlannedMember(folder, parent, MemberKind.FOLDER, 0))
        members.append(PlannedMember(folder, parts, MemberKind.FILE, status.st_size))
    return members


def remove_departures(departing: Sequence[Departing], manifest: Manifest) -> CleanReport:
    """Remove those of the files that the archive holds as they are now, and the album folders that are empty then.

    A file that changed since, or that the archive does not hold, stays and is `kept` in the report; one that cannot be
    read or removed stays too, and is `stuck`. Safe to repeat. Raises OSError where a folder of which the archive holds
    something cannot be opened.
    """
    report = CleanReport()
    archived = {member.parts: member for member in manifest.members}
    for folder, files in departing:
        try:
            beneath = Beneath(folder.path)
        except FileNotFoundError:
            if folder.name_in_zip in manifest.folders:
                raise
            continue
        with beneath:
            _remove(beneath, folder, files, archived, report)
    return report


def _remove(
    beneath: Beneath,
    folder: ArchivedFolder,
    files: Sequence[Parts],
    archived: dict[Parts, Member],
    report: CleanReport,
) -> None:
    touched: set[Parts] = set()
    left: set[Parts] = set()
    for parts in files:
        member = archived.get((folder.name_in_zip, *parts))
        try:
            if _status(beneath, parts) is None:
                left.add(parts[:-1])  # a stop came behind it, and perhaps before its folder was removed
                continue
            if member is None or not member.lies_at(beneath, parts):
                report.kept.append(folder.path.joinpath(*parts))
                continue
            os.unlink(parts[-1], dir_fd=beneath.folder(parts[:-1]))
        except OSError:
            report.stuck.append(folder.path.joinpath(*parts))
            continue
        report.removed_files += 1
        touched.add(parts[:-1])
    for parent in sorted(touched):
        sync_open_directory(beneath.folder(parent))
    beneath.forget()
    emptied = {parts[:depth] for parts in touched | left for depth in range(1, len(parts) + 1)}
    for parent in sorted(emptied, key=len, reverse=True):
        with suppress(OSError):  # not empty: other photos, or somebody's files
            os.rmdir(parent[-1], dir_fd=beneath.folder(parent[:-1]))
    sync_open_directory(beneath.folder())


def _status(beneath: Beneath, parts: Parts) -> os.stat_result | None:
    try:
        return beneath.stat(parts)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NOT_A_FOLDER:
            return None
        raise
