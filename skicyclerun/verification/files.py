"""Checks of files for `verify`: one file against its row and its catalog entry; a folder tree for strangers.

Everything blocks and may be called from several worker threads at once. Nothing is written, and no symbolic link is
followed. For quick checks neither Pillow nor exiv2 is imported.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from skicyclerun.errors import PhotoError
from skicyclerun.files.album_folder import STAGING_NAME
from skicyclerun.files.naming import collision_key
from skicyclerun.models import Component, ExportedFacts
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.state.photos import facts_from_row
from skicyclerun.state.store import Row
from skicyclerun.verification.report import Finding, Problem

#: File systems keep times in steps of up to two seconds (FAT); copies between them lose the rest.
_TIME_STEP_NS: Final = 2_000_000_000
#: A degree and a second in which the tags of a file may differ from what was told of it: rounding, not another place.
_SAME_PLACE: Final = 1e-4
_SAME_TIME: Final = timedelta(seconds=1)

#: What operating systems leave in every folder they show.
_SYSTEM_FILES: Final = frozenset(
    (".ds_store", ".localized", "thumbs.db", "desktop.ini", "icon\r", ".directory", "@eadir", ".appledouble")
)
_OUR_WORK: Final = ".skicyclerun-"
assert STAGING_NAME.startswith(_OUR_WORK)


@dataclass(slots=True)
class Checked:
    """The outcome of a batch."""

    problems: defaultdict[str, list[Problem]] = field(default_factory=lambda: defaultdict(list))
    """By album folder."""
    files: Counter[str] = field(default_factory=Counter)
    in_full: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0

    def add(self, other: Checked) -> None:
        """Take in the outcome of a further batch."""
        for folder, problems in other.problems.items():
            self.problems[folder] += problems
        self.files += other.files
        self.in_full += other.in_full
        self.bytes_read += other.bytes_read


@dataclass(slots=True)
class FileChecks:
    """Checks rows of the query `present_photos_page`, or `stage_names_page`, against the files in a folder."""

    outputs: Path
    """The folder of the album folders."""
    entries: Mapping[str, Any] | None
    """The catalog by absolute path, None where there is no usable one."""
    max_pixels: int
    """To be decoded."""
    stage: str = ""
    """That made the files; empty for exported ones."""
    _folders: dict[str, str] = field(default_factory=dict)

    def check(self, batch: Sequence[tuple[Row, bool]]) -> Checked:
        """Check the rows; the bool says whether in full."""
        outcome = Checked()
        for row, in_full in batch:
            folder = row["folder"]
            problems = self._entry_problems(row)
            outcome.files[folder] += 1
            try:
                problems += self._file_problems(row, in_full, outcome)
            except OSError as error:
                reason = error.strerror or str(error)
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    problems.append(self._problem(row, Finding.MISSING, "the file is not there"))
                elif error.errno == errno.ELOOP:
                    problems.append(self._problem(row, Finding.NOT_A_FILE, "a symbolic link stands in its place"))
                else:
                    problems.append(self._problem(row, Finding.UNREADABLE, f"it cannot be read: {reason}"))
            if problems:
                outcome.problems[folder] += problems
        return outcome

    # ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _file_problems(self, row: Row, in_full: bool, outcome: Checked) -> list[Problem]:
        folder: str = row["folder"]
        path = self.outputs / folder / row["file_name"]
        was = "made" if self.stage else "exported"
        if said := self._folder_problem(folder, row["file_name"]):
            return [self._problem(row, Finding.NOT_A_FILE, said)]
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return [self._problem(row, Finding.NOT_A_FILE, f"{_kind(found.st_mode)} stands in its place")]
        if found.st_size != row["size"]:
            detail = f"{found.st_size:,} bytes; it was {was} with {row['size']:,}"
            return [self._problem(row, Finding.SIZE_DIFFERS, detail)]
        moved = row["mtime_ns"] is not None and abs(found.st_mtime_ns - row["mtime_ns"]) > _TIME_STEP_NS
        if not in_full and not moved:
            return []
        outcome.bytes_read += found.st_size
        outcome.in_full[folder] += 1
        if (digest := _sha256(path)) != row["sha256"]:
            detail = f"its bytes are not those that were {was} (SHA-256 {digest[:12]}…, {row['sha256'][:12]}…)"
            return [self._problem(row, Finding.CONTENT_DIFFERS, detail)]
        problems = []
        if moved:
            detail = f"its modification time is not the photo's date any more; its bytes are as {was}"
            problems.append(self._problem(row, Finding.TIME_DIFFERS, detail))
        if in_full:
            problems += self._picture_problems(row, path)
        return problems

    def _picture_problems(self, row: Row, path: Path) -> list[Problem]:
        """Of a file whose bytes are as exported: whether it decodes, and says what it was exported with."""
        from skicyclerun.images.decode_check import decode_fully
        from skicyclerun.images.exiv2_session import TagsUnreadable
        from skicyclerun.images.render import read_facts

        if self.stage:
            return self._decoding_problems(row, path)
        if Component(row["component"]).is_companion:
            return []  # A text of ours, or an original kept whatever it holds: its bytes are all there is to it.
        options = _options(row["options"])
        try:
            decode_fully(path, max_pixels=max(self.max_pixels, options.max_pixels))
            # Files that are passed on unchanged keep what the library knows in the catalog alone.
            if row["component"] != Component.STILL or options.format != "jpeg":
                return []
            found = read_facts(path)
        except (PhotoError, TagsUnreadable) as error:
            return [self._problem(row, Finding.DAMAGED, f"its bytes are as exported, and cannot be used: {error}")]
        return [self._problem(row, finding, detail) for finding, detail in _lost(facts_from_row(row), found)]

    def _decoding_problems(self, row: Row, path: Path) -> list[Problem]:
        """Of what a stage made; only pictures say how wide they are, and a command may make anything."""
        from skicyclerun.images.decode_check import decode_fully

        if row["width"] is None or row["height"] is None:
            return []
        try:
            decode_fully(path, max_pixels=max(self.max_pixels, row["width"] * row["height"]))
        except PhotoError as error:
            return [self._problem(row, Finding.DAMAGED, f"its bytes are as made, and cannot be used: {error}")]
        return []

    def _folder_problem(self, folder: str, file_name: str) -> str:
        """Why the files of an album folder are not looked at: a link in its place would lead elsewhere."""
        said = self._said_of_folder(folder, "the album's folder")
        if not said and "/" in file_name:
            above = file_name.rpartition("/")[0]
            said = self._said_of_folder(f"{folder}/{above}", f"the folder {above!r}")
        return said

    def _said_of_folder(self, folder: str, what: str) -> str:
        if folder not in self._folders:
            try:
                mode = (self.outputs / folder).lstat().st_mode
            except FileNotFoundError:
                mode = stat.S_IFDIR  # The files are then missing, each by itself.
            directory = stat.S_ISDIR(mode)
            self._folders[folder] = "" if directory else f"{_kind(mode)} stands in the place of {what}"
        return self._folders[folder]

    # ── the catalog ───────────────────────────────────────────────────────────────────────────────────────────────

    def _entry_problems(self, row: Row) -> list[Problem]:
        if self.entries is None or (self.stage and row["status"] != "done"):
            return []
        path = str(self.outputs / row["folder"] / row["file_name"])
        if path not in self.entries:
            return [self._problem(row, Finding.NO_ENTRY, "the catalog has no entry of it")]
        entry = self.entries[path]
        if not isinstance(entry, dict):
            return [self._problem(row, Finding.ENTRY_DIFFERS, "its catalog entry is not a JSON object")]
        # Other programs strip keys they do not know; the next write restores them. Only what contradicts is wrong.
        differing = [key for key in ("sha256", "size") if key in entry and entry[key] != row[key]]
        if differing:
            return [
                self._problem(row, Finding.ENTRY_DIFFERS, f"its catalog entry has another {' and '.join(differing)}")
            ]
        return []

    def _problem(self, row: Row, finding: Finding, detail: str) -> Problem:
        return Problem(finding, row["folder"], row["file_name"], detail, row["id"], self.stage)


@lru_cache(maxsize=64)
def _options(text: str) -> ExportOptions:
    return ExportOptions.from_row(json.loads(text))


def _sha256(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _lost(told: ExportedFacts, found: ExportedFacts) -> Iterator[tuple[Finding, str]]:
    """What the file should say by its row and does not."""
    if (place := told.location) is not None:
        there = found.location
        if there is None:
            yield Finding.POSITION_LOST, "it was exported with a GPS position, and the file has none"
        elif max(abs(there.latitude - place.latitude), abs(there.longitude - place.longitude)) > _SAME_PLACE:
            yield Finding.POSITION_LOST, "its GPS position is not the one it was exported with"
    if told.date_taken is not None:
        if found.date_taken is None:
            yield Finding.DATE_LOST, "it was exported with a date, and the file has none"
        elif not _same_time(told.date_taken, found.date_taken):
            yield Finding.DATE_LOST, f"its date is {found.date_taken}; it was exported with {told.date_taken}"


def _same_time(one: str, other: str) -> bool:
    """By the wall clock where one of them has no offset."""
    try:
        first, second = datetime.fromisoformat(one), datetime.fromisoformat(other)
    except ValueError:
        return one == other
    if first.utcoffset() is None or second.utcoffset() is None:
        first, second = first.replace(tzinfo=None), second.replace(tzinfo=None)
    return abs(first - second) <= _SAME_TIME


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a file" if stat.S_ISREG(mode) else "a pipe or a device"


# ── what nobody knows ─────────────────────────────────────────────────────────────────────────────────────────────


class KnownFiles:
    """Folder and file names that rows speak for, as every disk may spell them."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}

    def add(self, folder: str, name: str) -> None:
        self._folders.setdefault(folder, {})[collision_key(name)] = name

    def holds(self, folder: str, name: str) -> bool:
        """Whether a row speaks for just this name."""
        return self._folders.get(folder, {}).get(collision_key(name)) == name

    def strangers(self, outputs: Path) -> list[Problem]:
        """Everything in `outputs` that is no folder and that no row knows; system files and our work left out.

        A disk may give a name back in another spelling (case, normalisation); it is the known one, unless that is
        there as well. A folder that cannot be listed is a stranger itself.
        """
        found: list[Problem] = []
        for entry in _listed(outputs, outputs, found):
            if entry.name.startswith(_OUR_WORK):
                continue
            if not entry.is_dir(follow_symlinks=False):
                # A link or file in the place of an album folder is told of with each of the album's files.
                if entry.name not in self._folders:
                    found.append(_stranger(outputs, outputs, entry))
                continue
            self._look_into(Path(entry.path), self._known_in(entry.name, outputs), "", outputs, found)
        return found

    def _look_into(
        self, directory: Path, known: Mapping[str, str], above: str, outputs: Path, found: list[Problem]
    ) -> None:
        """What is in an album's folder, or in that of its originals (`above` its name and a slash)."""
        listed = _listed(directory, outputs, found)
        names = {above + inner.name for inner in listed}
        for inner in listed:
            known_name = known.get(collision_key(above + inner.name))
            if known_name is not None and (above + inner.name == known_name or known_name not in names):
                continue
            if not inner.is_dir(follow_symlinks=False):
                found.append(_stranger(directory, outputs, inner))
            elif not above and any(name.startswith(f"{inner.name}/") for name in known.values()):
                self._look_into(Path(inner.path), known, f"{inner.name}/", outputs, found)
            else:
                _all_below(Path(inner.path), outputs, found)

    def _known_in(self, folder: str, outputs: Path) -> Mapping[str, str]:
        if folder in self._folders:
            return self._folders[folder]
        key = collision_key(folder)
        for known, names in self._folders.items():
            if collision_key(known) == key and known not in os.listdir(outputs):
                return names
        return {}


def _all_below(directory: Path, outputs: Path, found: list[Problem]) -> None:
    waiting = [directory]
    while waiting:
        current = waiting.pop()
        for entry in _listed(current, outputs, found):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                found.append(_stranger(current, outputs, entry))


def _listed(directory: Path, outputs: Path, found: list[Problem]) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, without system files; one that cannot be listed is noted in `found`."""
    try:
        with os.scandir(directory) as entries:
            listed = [entry for entry in entries if not _is_system_file(entry.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        detail = f"the folder cannot be listed: {error.strerror or error}"
        where = _below(directory, outputs)
        found.append(Problem(Finding.UNKNOWN_FILE, *os.path.split(where), detail))
        return []
    return sorted(listed, key=lambda entry: entry.name)


def _is_system_file(name: str) -> bool:
    return name.casefold() in _SYSTEM_FILES or name.startswith("._")


def _stranger(directory: Path, outputs: Path, entry: os.DirEntry[str]) -> Problem:
    # By what the listing said: the file may be gone by now.
    regular = entry.is_file(follow_symlinks=False)
    kind = "a file" if regular else "a symbolic link" if entry.is_symlink() else "a pipe or a device"
    return Problem(Finding.UNKNOWN_FILE, _below(directory, outputs), entry.name, kind)


def _below(directory: Path, outputs: Path) -> str:
    relative = os.path.relpath(directory, outputs)
    return "" if relative == "." else relative
