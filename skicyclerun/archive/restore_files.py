"""Writing restored files: beside their place, hashed, synced, renamed, without following a link below the target."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipInfo

from skicyclerun.archive.advance import Advance
from skicyclerun.archive.archive_file import ArchiveFile
from skicyclerun.archive.beneath import NOT_A_FOLDER, Beneath
from skicyclerun.archive.manifest import Member, MemberKind
from skicyclerun.archive.plan import WORK_PREFIX
from skicyclerun.errors import ArchiveError, ArchiveStopped, OutsideFolder, RestoreRefused
from skicyclerun.files.atomic_files import sync_directory


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


@dataclass(frozen=True, slots=True)
class WantedMember:
    member: Member
    info: ZipInfo
    beneath: Beneath
    parts: tuple[str, ...]
    """Below the target folder."""
    replaces: bool = False

    @property
    def path(self) -> Path:
        return self.beneath.path.joinpath(*self.parts)


def look(item: WantedMember) -> os.stat_result | None:
    """What lies where the member goes; None for nothing. Raises OutsideFolder, RestoreRefused."""
    try:
        found = item.beneath.stat(item.parts) if item.parts else None
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NOT_A_FOLDER:
            raise OutsideFolder(item.path, item.beneath.path) from error
        raise
    if item.member.kind is MemberKind.FOLDER and found is not None and not stat.S_ISDIR(found.st_mode):
        if stat.S_ISLNK(found.st_mode):
            raise OutsideFolder(item.path, item.beneath.path)
        raise RestoreRefused(f"{item.path} should be a folder and is a file. Nothing was written.")
    return found


class Restoring:
    def __init__(self, archive: ArchiveFile, report: RestoreReport, advance: Advance) -> None:
        self._archive = archive
        self._report = report
        self._advance = advance
        self._written: set[tuple[int, int]] = set()
        self._changed: dict[Path, None] = {}

    def run(self, folders: Sequence[WantedMember], wanted: Sequence[WantedMember]) -> None:
        made: list[WantedMember] = []
        for item in folders:
            if look(item) is None:
                self._folder(item.beneath, item.parts)
                made.append(item)
        # Links last: no file is ever written while a link of ours could lie in its way.
        for item in sorted(wanted, key=lambda one: one.member.kind is MemberKind.LINK):
            try:
                self._put(item)
            except ArchiveStopped:
                raise
            except ArchiveError as error:
                self._report.damaged.append((item.path, str(error)))
                continue
            self._report.restored.append(item.path)
            self._report.content_bytes += item.member.size
            if item.replaces:
                self._report.overwritten.append(item.path)
        for directory in self._changed:
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
                self._changed[beneath.path.joinpath(*parts[:depth])] = None
        except OSError as error:
            if error.errno in NOT_A_FOLDER:
                raise OutsideFolder(beneath.path.joinpath(*parts), beneath.path) from error
            raise
        return descriptor

    def _put(self, item: WantedMember) -> None:
        directory = self._folder(item.beneath, item.parts[:-1])
        temporary = f"{WORK_PREFIX}restore-{secrets.token_hex(6)}"
        try:
            if item.member.kind is MemberKind.LINK:
                target = b"".join(self._archive.content(item.member, item.info))
                os.symlink(target, temporary.encode(), dir_fd=directory)
            else:
                self._write_file(item, temporary, directory)
            self._give_name(item, temporary, directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
        self._changed[item.path.parent] = None

    def _write_file(self, item: WantedMember, temporary: str, directory: int) -> None:
        member = item.member
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as stream:
            for block in self._archive.content(member, item.info):
                stream.write(block)
                self._advance(len(block))
            stream.flush()
            # Permissions as archived, but never set-uid and the like out of a file that may come from anywhere.
            os.fchmod(stream.fileno(), stat.S_IMODE(member.mode) & 0o777)
            os.utime(stream.fileno(), ns=(member.mtime_ns, member.mtime_ns))
            os.fsync(stream.fileno())
            status = os.fstat(stream.fileno())
        self._written.add((status.st_dev, status.st_ino))

    def _give_name(self, item: WantedMember, temporary: str, directory: int) -> None:
        name = item.parts[-1]
        try:
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        if there is not None:
            if not item.replaces or stat.S_ISDIR(there.st_mode):
                raise RestoreRefused(f"{item.path} appeared while restoring; it was left as it is.")
            if (there.st_dev, there.st_ino) in self._written:
                raise ArchiveError("this disk takes its name for that of another restored file")
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
