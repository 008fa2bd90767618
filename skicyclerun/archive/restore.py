"""Taking files out of an archive again, each proved before it gets its name.

Everything is decided before the first byte is written: which members are wanted, whether one of their names could lead
out of the target, what lies there already. Then each file is written beside its place, hashed, synced, and renamed,
through descriptors that follow no symbolic link below the target.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Final
from zipfile import ZipInfo

from skicyclerun.archive.advance import Advance, Progress, Stop
from skicyclerun.archive.archive_file import ArchiveFile
from skicyclerun.archive.beneath import Beneath
from skicyclerun.archive.manifest import Manifest, Member, MemberKind
from skicyclerun.archive.plan import require_space
from skicyclerun.archive.restore_files import RestoreReport, Restoring, WantedMember, look
from skicyclerun.errors import (
    ArchiveError,
    DiskFull,
    NoAlbumMatches,
    OutsideFolder,
    RestoreRefused,
    StorageError,
)
from skicyclerun.wording import bytes_in_words

_SHOWN: Final = 5


def restore_archive(
    archive_path: Path,
    to: Path | Mapping[str, Path],
    *,
    albums: Sequence[str] = (),
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> RestoreReport:
    """Restore an archive, or some albums of it.

    `to` is a folder that receives `albums/…`, `metadata/…` as they are in the archive, or names a folder for each of
    them. `albums` are names of sub-folders, looked for in every folder of the archive. Files that are there already
    with the same bytes are left; others are replaced only with `overwrite`. A damaged member is not restored and
    reported; the others are.

    Raises, before anything was written: RestoreRefused (a hostile name; files in the way), ArchiveError (no archive of
    ours, or its manifest is damaged), NoAlbumMatches, OutsideFolder (a symbolic link in the way), DiskFull. While
    writing: DiskFull, StorageError, ArchiveStopped; what was restored by then is whole.
    """
    report = RestoreReport(dry_run=dry_run)
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(ArchiveFile(archive_path))
            manifest, infos = archive.contents()
            chosen = _choose(manifest, infos, albums)
            wanted, folders = _sort_out(archive, chosen, _places(manifest, to), stack, report, overwrite)
            _check_room(wanted)
            if dry_run:
                report.restored.extend(item.path for item in wanted)
                report.overwritten.extend(item.path for item in wanted if item.replaces)
                report.content_bytes = sum(item.member.size for item in wanted)
            else:
                total = sum(item.member.size for item in wanted)
                stopped = "Restoring was stopped. What was restored by then is whole."
                Restoring(archive, report, Advance(total, progress, stop, stopped)).run(folders, wanted)
    except ArchiveError as error:
        if type(error) is ArchiveError:
            raise ArchiveError(f"{archive_path} cannot be restored. {error} Nothing was written.") from error
        raise
    except OSError as error:
        raise _storage_error(error, archive_path) from error
    return report


def _choose(manifest: Manifest, infos: list[ZipInfo], albums: Sequence[str]) -> list[tuple[Member, ZipInfo]]:
    pairs = list(zip(manifest.members, infos, strict=False))
    if not albums:
        return pairs
    by_album: dict[str, list[tuple[Member, ZipInfo]]] = {}
    for member, info in pairs:
        if len(member.parts) > 2 or (len(member.parts) == 2 and member.kind is MemberKind.FOLDER):
            by_album.setdefault(_folded(member.parts[1]), []).append((member, info))
    chosen: list[tuple[Member, ZipInfo]] = []
    for album in dict.fromkeys(_folded(album) for album in albums):
        if album not in by_album:
            wanted = next(name for name in albums if _folded(name) == album)
            error = NoAlbumMatches(wanted, get_close_matches(album, by_album, n=3, cutoff=0.4))
            error.next_step = f"The archive holds: {', '.join(sorted(by_album)[:20]) or 'no albums'}."
            raise error
        chosen.extend(by_album[album])
    return chosen


def _folded(album: str) -> str:
    return unicodedata.normalize("NFC", album)


def _places(manifest: Manifest, to: Path | Mapping[str, Path]) -> dict[str, Path]:
    """For each folder of the archive, where it goes."""
    if isinstance(to, Path):
        places = {name: to / name for name in manifest.folders}
        for place in places.values():
            if place.is_symlink():
                raise OutsideFolder(place, to)
        return places
    missing = [name for name in manifest.folders if name not in to]
    if missing:
        raise RestoreRefused(
            f"It is not known where {', '.join(missing)} of this archive belongs. Nothing was written.",
            next_step="Name a folder with --to.",
        )
    return {name: to[name] for name in manifest.folders}


def _sort_out(
    archive: ArchiveFile,
    chosen: list[tuple[Member, ZipInfo]],
    places: Mapping[str, Path],
    stack: ExitStack,
    report: RestoreReport,
    overwrite: bool,
) -> tuple[list[WantedMember], list[WantedMember]]:
    """The files and links to be written, and the folders. Raises RestoreRefused where something is in the way."""
    opened: dict[str, Beneath] = {}
    wanted: list[WantedMember] = []
    folders: list[WantedMember] = []
    in_the_way: list[Path] = []
    for member, info in chosen:
        name, parts = member.parts[0], member.parts[1:]
        if name not in opened:
            opened[name] = stack.enter_context(Beneath(places[name], may_be_missing=True))
        item = WantedMember(member, info, opened[name], parts)
        if member.kind is MemberKind.FOLDER:
            folders.append(item)
            look(item)
        elif member.kind is MemberKind.LINK and not _stays_inside(archive, item):
            report.refused.append(item.path)
        else:
            found = look(item)
            if found is None:
                wanted.append(item)
            elif _is_same(item, found):
                report.identical.append(item.path)
            elif stat.S_ISDIR(found.st_mode) or not overwrite:
                in_the_way.append(item.path)
            else:
                wanted.append(WantedMember(member, info, opened[name], parts, replaces=True))
    if in_the_way:
        shown = ", ".join(str(path) for path in in_the_way[:_SHOWN])
        more = f" and {len(in_the_way) - _SHOWN} more" if len(in_the_way) > _SHOWN else ""
        raise RestoreRefused(
            f"{shown}{more} {'is' if len(in_the_way) == 1 else 'are'} there already and different from the archive. "
            "Nothing was written.",
            next_step="--overwrite replaces files; --to DIR restores elsewhere.",
        )
    return wanted, folders


def _is_same(item: WantedMember, found: os.stat_result) -> bool:
    if item.member.kind is MemberKind.LINK:
        if not stat.S_ISLNK(found.st_mode):
            return False
        return hashlib.sha256(item.beneath.read_link(item.parts)).hexdigest() == item.member.sha256
    if not stat.S_ISREG(found.st_mode) or found.st_size != item.member.size:
        return False
    return item.beneath.sha256(item.parts) == item.member.sha256


def _stays_inside(archive: ArchiveFile, item: WantedMember) -> bool:
    """Whether a link's target, taken literally, lies in the folder that the archive restores it to."""
    if item.member.size > 4096:
        return False
    try:
        target = os.fsdecode(b"".join(archive.content(item.member, item.info)))
    except ArchiveError:
        return True  # damaged; said when it is to be written
    if not target or target.startswith("/") or "\0" in target:
        return False
    depth = len(item.parts) - 1
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True


def _check_room(wanted: Sequence[WantedMember]) -> None:
    needs: dict[int, tuple[Path, int]] = {}
    for item in wanted:
        place = item.beneath.path
        while not place.exists():
            place = place.parent
        device = os.stat(place).st_dev
        needs[device] = (place, needs.get(device, (place, 0))[1] + item.member.size)
    for place, size in needs.values():
        require_space(
            place, {"restored files": size}, remedy="Free some space, or name a folder on another disk with --to."
        )


def _storage_error(error: OSError, archive_path: Path) -> StorageError:
    what = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(archive_path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk became full while restoring. What was restored by then is whole.")
    return StorageError(f"{what}: {error.strerror or error}. What was restored by then is whole.")


def summary(report: RestoreReport) -> str:
    """One sentence about a report."""
    verb = "would be restored" if report.dry_run else "restored and proved"
    text = f"{len(report.restored)} files {verb} ({bytes_in_words(report.content_bytes)})"
    if report.overwritten:
        text += f", {len(report.overwritten)} of them over other files"
    if report.identical:
        text += f"; {len(report.identical)} were there already"
    return text + "."
