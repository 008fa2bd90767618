"""Single files that leave the export folder: archived like old outputs, and removed one by one once that is proved.

`export.mode: update` empties no folder; a photo that left its album goes into the run's archive and nothing else does.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from skicyclerun.archive.beneath import NOT_A_FOLDER, Beneath
from skicyclerun.archive.clean import CleanReport
from skicyclerun.archive.manifest import Manifest, Member, MemberKind
from skicyclerun.archive.plan import ArchivedFolder, ArchivePlan, PlannedMember
from skicyclerun.files.atomic_files import sync_open_directory

_BLOCK: Final = 1 << 20

#: A file below the folder, as its components: (album folder, file name).
Parts = tuple[str, ...]


def plan_departures(folder: ArchivedFolder, files: Sequence[Parts]) -> ArchivePlan:
    """The plan of an archive that holds these files of the folder; those that are not there (any more) are left out."""
    members: list[PlannedMember] = []
    parents: set[Parts] = set()
    try:
        beneath = Beneath(folder.path)
    except FileNotFoundError:
        return ArchivePlan((), (), 0, 0, 0)
    with beneath:
        for parts in sorted(files):
            status = _status(beneath, parts)
            if status is None or not stat.S_ISREG(status.st_mode):
                continue
            if parts[:-1] not in parents:
                parents.add(parts[:-1])
                members.append(PlannedMember(0, parts[:-1], MemberKind.FOLDER, 0))
            members.append(PlannedMember(0, parts, MemberKind.FILE, status.st_size))
    found = [member for member in members if member.kind is MemberKind.FILE]
    return ArchivePlan(
        folders=(folder,),
        members=tuple(members),
        files=len(found),
        content_bytes=sum(member.size for member in found),
        path_bytes=sum(len(os.fsencode("/".join(member.parts))) for member in members),
    )


def remove_departures(folder: ArchivedFolder, files: Sequence[Parts], manifest: Manifest) -> CleanReport:
    """Remove those of the files that the archive holds as they are now, and the album folders that are empty then.

    A file that changed since, or that the archive does not hold, stays and is `kept` in the report; one that cannot be
    read or removed stays too, and is `stuck`. Safe to repeat. Raises OSError where the folder cannot be opened.
    """
    report = CleanReport()
    archived = {member.parts: member for member in manifest.members}
    touched: set[Parts] = set()
    with Beneath(folder.path) as beneath:
        for parts in files:
            member = archived.get((folder.name_in_zip, *parts))
            try:
                status = _status(beneath, parts)
                if status is None:
                    continue
                if member is None or not _holds(beneath, parts, status, member):
                    report.kept.append(folder.path.joinpath(*parts))
                    continue
                os.unlink(parts[-1], dir_fd=beneath.folder(parts[:-1]))
            except OSError:
                report.stuck.append(folder.path.joinpath(*parts))
                continue
            report.removed_files += 1
            report.removed_bytes += member.size
            touched.add(parts[:-1])
        for parent in sorted(touched):
            sync_open_directory(beneath.folder(parent))
        beneath.forget()
        for parent in touched:
            with suppress(OSError):  # not empty: other photos, or somebody's files
                os.rmdir(parent[-1], dir_fd=beneath.folder(parent[:-1]))
        sync_open_directory(beneath.folder())
    return report


def _status(beneath: Beneath, parts: Parts) -> os.stat_result | None:
    try:
        return beneath.stat(parts)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NOT_A_FOLDER:
            return None
        raise


def _holds(beneath: Beneath, parts: Parts, status: os.stat_result, member: Member) -> bool:
    if member.kind is not MemberKind.FILE or not stat.S_ISREG(status.st_mode) or status.st_size != member.size:
        return False
    hasher = hashlib.sha256()
    with open(beneath.open_file(parts), "rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest() == member.sha256
