"""Taking files out of an archive again, each proved before it gets its name.

Everything is decided before the first byte is written: which members are wanted, whether one of their names could lead
out of the target, what lies there already. Then each file is written beside its place, hashed, synced, and renamed,
through descriptors that follow no symbolic link below the target.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from zipfile import ZipInfo

from skicyclerun.archive.advance import Advance, Progress, Stop
from skicyclerun.archive.archive_bytes import RangedBytes
from skicyclerun.archive.archive_file import ArchiveFile
from skicyclerun.archive.manifest import Manifest, Member, MemberKind
from skicyclerun.archive.plan import WORK_PREFIX, nearest_folder, require_space
from skicyclerun.errors import (
    ArchiveError,
    ArchiveStopped,
    DiskFull,
    NoAlbumMatches,
    OutsideFolder,
    RemoteError,
    RestoreRefused,
    StorageError,
)
from skicyclerun.files.atomic_files import sync_directory
from skicyclerun.files.beneath import NOT_A_FOLDER, Beneath
from skicyclerun.wording import bytes_in_words, counted

_SHOWN: Final = 5


@dataclass(slots=True)
class RestoreReport:
    """What was restored (or, of a dry run, would be)."""

    dry_run: bool = False
    restored: list[Path] = field(default_factory=list)
    overwritten: list[Path] = field(default_factory=list)
    """Those among `restored` that replaced another file."""
    identical: list[Path] = field(default_factory=list)
    """There already, byte for byte; not touched."""
    refused: list[Path] = field(default_factory=list)
    """Symbolic links that would point out of the target."""
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    """Not restored, because the archive no longer holds what was put into it; with what is wrong."""
    content_bytes: int = 0
    """Of the restored files."""


def restore_archive(
    archive_path: Path | RangedBytes,
    to: Path | Mapping[str, Path],
    *,
    albums: Sequence[str] = (),
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> RestoreReport:
    """Restore an archive, or some albums of it. Of one elsewhere only what these need is fetched.

    `to` is a folder that receives `albums/…`, `metadata/…` as they are in the archive, or names a folder for each of
    them. `albums` are names of sub-folders, looked for in every folder of the archive. Files that are there already
    with the same bytes are left; others are replaced only with `overwrite`. A damaged member is not restored and
    reported; the others are.

    Raises, before anything was written: RestoreRefused (a hostile name; files in the way), ArchiveError (no archive of
    ours, or its manifest is damaged), NoAlbumMatches, OutsideFolder (a symbolic link in the way), DiskFull. While
    writing: DiskFull, StorageError, ArchiveStopped, RemoteError; what was restored by then is whole.
    """
    report = RestoreReport(dry_run=dry_run)
    title = archive_path.title if isinstance(archive_path, RangedBytes) else str(archive_path)
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(ArchiveFile(archive_path))
            manifest, infos = archive.contents()
            places = _places(manifest, to)
            homes: dict[str, Beneath] = {}
            chosen: list[_Wanted] = []
            for member, info in _choose(manifest, infos, albums):
                name = member.parts[0]
                if name not in homes:
                    homes[name] = stack.enter_context(Beneath(places[name], may_be_missing=True))
                chosen.append(_Wanted(member, info, homes[name]))
            files = _to_be_written(archive, chosen, report, overwrite=overwrite)
            total = _check_room(files)
            if dry_run:
                report.restored.extend(item.path for item in files)
                report.overwritten.extend(item.path for item in files if item.replaces)
                report.content_bytes = total
            else:
                stopped = "Restoring was stopped. What was restored by then is whole."
                archive.expect(item.info for item in files)
                folders = [item for item in chosen if item.member.kind is MemberKind.FOLDER]
                _Restoring(archive, report, Advance(total, progress, stop, stopped)).run(folders, files)
    except ArchiveError as error:
        if type(error) is ArchiveError:
            raise ArchiveError(f"{title} cannot be restored. {error} Nothing was written.") from error
        raise
    except OSError as error:
        raise _storage_error(error, title) from error
    return report


def summary(report: RestoreReport) -> str:
    """One sentence about a report."""
    verb = "would be restored" if report.dry_run else "restored and proved"
    text = f"{counted(len(report.restored), 'file')} {verb} ({bytes_in_words(report.content_bytes)})"
    if report.overwritten:
        text += f", {len(report.overwritten)} of them over other files"
    if report.identical:
        text += f"; {len(report.identical)} were there already"
    return text + "."


# ── deciding ──────────────────────────────────────────────────────────────────────────────────────────────────────


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


@dataclass(slots=True)
class _Wanted:
    """A member and where it goes."""

    member: Member
    info: ZipInfo
    beneath: Beneath
    replaces: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Below the folder."""
        return self.member.parts[1:]

    @property
    def path(self) -> Path:
        return self.beneath.path.joinpath(*self.parts)

    def look(self) -> os.stat_result | None:
        """What lies there; None for nothing. Raises OutsideFolder, RestoreRefused."""
        try:
            found = self.beneath.stat(self.parts) if self.parts else None
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in NOT_A_FOLDER:
                raise OutsideFolder(self.path, self.beneath.path) from error
            raise
        if self.member.kind is MemberKind.FOLDER and found is not None and not stat.S_ISDIR(found.st_mode):
            if stat.S_ISLNK(found.st_mode):
                raise OutsideFolder(self.path, self.beneath.path)
            raise RestoreRefused(f"{self.path} should be a folder and is a file. Nothing was written.")
        return found


def _to_be_written(
    archive: ArchiveFile, chosen: Sequence[_Wanted], report: RestoreReport, *, overwrite: bool
) -> list[_Wanted]:
    """The files and links that are not there yet. Raises RestoreRefused where something else is in the way."""
    wanted: list[_Wanted] = []
    in_the_way: list[Path] = []
    for item in chosen:
        if item.member.kind is MemberKind.LINK and not _stays_inside(archive, item):
            report.refused.append(item.path)
            continue
        found = item.look()
        if item.member.kind is MemberKind.FOLDER:
            continue
        if found is None:
            wanted.append(item)
        elif item.member.lies_at(item.beneath, item.parts):
            report.identical.append(item.path)
        elif overwrite and not stat.S_ISDIR(found.st_mode):
            item.replaces = True
            wanted.append(item)
        else:
            in_the_way.append(item.path)
    if in_the_way:
        shown = ", ".join(str(path) for path in in_the_way[:_SHOWN])
        more = f" and {len(in_the_way) - _SHOWN} more" if len(in_the_way) > _SHOWN else ""
        raise RestoreRefused(
            f"{shown}{more} {'is' if len(in_the_way) == 1 else 'are'} there already and different from the archive. "
            "Nothing was written.",
            next_step="--overwrite replaces files; --to DIR restores elsewhere.",
        )
    return wanted


def _stays_inside(archive: ArchiveFile, item: _Wanted) -> bool:
    """Whether a link's target, taken literally, lies in the folder that the archive restores it to."""
    if item.member.size > 4096:
        return False
    try:
        target = os.fsdecode(b"".join(archive.content(item.member, item.info)))
    except ArchiveError:
        return True  # damaged; said when it is to be written
    if not target or target.startswith("/") or "\0" in target:
        return False
    return os.path.normpath(os.path.join(*item.parts[:-1], target)).split("/")[0] != ".."


def _check_room(wanted: Sequence[_Wanted]) -> int:
    """The bytes to be written. Raises DiskFull."""
    needs: dict[int, tuple[Path, int]] = {}
    for item in wanted:
        place = nearest_folder(item.beneath.path)
        device = os.stat(place).st_dev
        needs[device] = (place, needs.get(device, (place, 0))[1] + item.member.size)
    for place, size in needs.values():
        require_space(
            place, {"restored files": size}, remedy="Free some space, or name a folder on another disk with --to."
        )
    return sum(size for _, size in needs.values())


def _storage_error(error: OSError, title: str) -> StorageError:
    what = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else title
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk became full while restoring. What was restored by then is whole.")
    return StorageError(f"{what}: {error.strerror or error}. What was restored by then is whole.")


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Restoring:
    archive: ArchiveFile
    report: RestoreReport
    advance: Advance
    written: set[tuple[int, int]] = field(default_factory=set)
    changed: dict[Path, None] = field(default_factory=dict)

    def run(self, folders: Sequence[_Wanted], wanted: Sequence[_Wanted]) -> None:
        made: list[_Wanted] = []
        for item in folders:
            if item.look() is None:
                self._folder(item.beneath, item.parts)
                made.append(item)
        # Links last: no file is ever written while a link of ours could lie in its way.
        for item in sorted(wanted, key=lambda one: one.member.kind is MemberKind.LINK):
            try:
                self._put(item)
            except (ArchiveStopped, RemoteError):
                raise
            except ArchiveError as error:
                self.report.damaged.append((item.path, str(error)))
                continue
            self.report.restored.append(item.path)
            self.report.content_bytes += item.member.size
            if item.replaces:
                self.report.overwritten.append(item.path)
        for directory in self.changed:
            sync_directory(directory)
        for item in reversed(made):
            descriptor = self._folder(item.beneath, item.parts)
            os.fchmod(descriptor, stat.S_IMODE(item.member.mode) & 0o777 | 0o700)
            os.utime(descriptor, ns=(item.member.mtime_ns, item.member.mtime_ns))

    def _folder(self, beneath: Beneath, parts: Sequence[str]) -> int:
        try:
            descriptor = beneath.folder(parts)
        except FileNotFoundError:
            descriptor = beneath.folder(parts, create=True)
            for depth in range(len(parts)):
                self.changed[beneath.path.joinpath(*parts[:depth])] = None
        except OSError as error:
            if error.errno in NOT_A_FOLDER:
                raise OutsideFolder(beneath.path.joinpath(*parts), beneath.path) from error
            raise
        return descriptor

    def _put(self, item: _Wanted) -> None:
        directory = self._folder(item.beneath, item.parts[:-1])
        temporary = f"{WORK_PREFIX}restore-{secrets.token_hex(6)}"
        try:
            if item.member.kind is MemberKind.LINK:
                target = b"".join(self.archive.content(item.member, item.info))
                os.symlink(target, temporary.encode(), dir_fd=directory)
            else:
                self._write_file(item, temporary, directory)
            self._give_name(item, temporary, directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
        self.changed[item.path.parent] = None

    def _write_file(self, item: _Wanted, temporary: str, directory: int) -> None:
        member = item.member
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as stream:
            for block in self.archive.content(member, item.info):
                stream.write(block)
                self.advance(len(block))
            stream.flush()
            # Permissions as archived, but never set-uid and the like out of a file that may come from anywhere.
            os.fchmod(stream.fileno(), stat.S_IMODE(member.mode) & 0o777)
            os.utime(stream.fileno(), ns=(member.mtime_ns, member.mtime_ns))
            os.fsync(stream.fileno())
            status = os.fstat(stream.fileno())
        self.written.add((status.st_dev, status.st_ino))

    def _give_name(self, item: _Wanted, temporary: str, directory: int) -> None:
        name = item.parts[-1]
        try:
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        if there is not None:
            if not item.replaces or stat.S_ISDIR(there.st_mode):
                raise RestoreRefused(f"{item.path} appeared while restoring; it was left as it is.")
            if (there.st_dev, there.st_ino) in self.written:
                raise ArchiveError("this disk takes its name for that of another restored file")
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
