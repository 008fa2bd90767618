"""`master.json`: merged with what other programs wrote, replaced atomically, set aside and rebuilt where damaged."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import orjson

from skicyclerun.catalog.entries import CatalogRecord, Record, entry_of, is_ours, merged_entry, record_from_entry
from skicyclerun.catalog.moved import (
    TakenOver,
    is_of_another_photo,
    member_pointing_to,
    pointing_to,
    with_former,
)
from skicyclerun.catalog.object_text import ObjectText, parse_exactly, parse_member
from skicyclerun.errors import DiskFull, NotWritable, StorageError
from skicyclerun.files.atomic_files import make_directories, sync_directory, sync_files
from skicyclerun.files.fault_points import fault_point

_SPOOL_BYTES: Final = 16 << 20
_ATTEMPTS: Final = 3
_SEPARATOR: Final = b",\n  "

#: Told which entries leave the catalog, before they do, and says which files take over what. Called again when another
#: program has replaced the file meanwhile.
Relocate = Callable[[ObjectText, Collection[str]], Collection[TakenOver]]


@dataclass(frozen=True, slots=True)
class CatalogWrite:
    """What an update did."""

    written: bool
    """False: the file already said all of it, and was not touched."""
    set_aside: Path | None
    """Where a damaged file was kept, None where it was sound or there was none."""
    entries: int
    """In the file now, those of other programs included."""
    problem: str = ""
    """A sentence for the person, where something was found that was not as it should be."""
    taken_over: tuple[int, ...] = ()
    """The former entries that have their new place in the file now."""


@dataclass(frozen=True, slots=True)
class CatalogReading:
    """The catalog as it stands."""

    entries: Mapping[str, Any]
    """By absolute path; each is parsed when it is looked at. Empty where there is none or it is damaged."""
    problem: str | None
    """Why it cannot be used, None where it can."""
    exists: bool

    def records(self) -> Iterator[CatalogRecord]:
        """The records of all entries of ours that say enough to be trusted."""
        for path in self.entries:
            if (record := record_from_entry(path, self.entries[path])) is not None:
                yield record


def read_catalog(path: Path) -> CatalogReading:
    """Read `master.json`; it is not touched. Raises StorageError where it is there and may not be read."""
    with _storage_errors(path, "read"):
        found = _read(path)
    return CatalogReading(found.entries, found.problem or None, found.identity is not None or bool(found.problem))


def update_catalog(
    path: Path,
    ours: Callable[[], Iterable[Record]] | Collection[Record],
    gone: Collection[str] = (),
    *,
    now: datetime,
    relocate: Relocate | None = None,
) -> CatalogWrite:
    """Bring `master.json` up to date with the records given and durable; a reader sees the old file or the new.

    Entries of ours that are neither in `ours` nor in `gone` stay as they are, so an update may be given what is new
    only; an update with every record also restores what other programs have stripped. `gone` are paths of files that
    were moved or removed: their entries go, if they are ours. Each path is expected once in `ours`; a callable may be
    called again, when another program replaced the file meanwhile. `now` dates the file that is set aside.

    `relocate`: what other programs said of a file that is elsewhere now goes along with it, and what points to its old
    path follows; written in one piece with the rest. An entry in a record's place that speaks of another photo leaves
    it then; without `relocate` it stays as it is, for whoever settles that.

    A file that is not a JSON object in UTF-8 is kept as `master.json.corrupt-<YYYYMMDD_HHMMSS>`, and one is made from
    `ours` alone. A symbolic link is read through and then replaced; what it points to is not written.
    Raises StorageError (DiskFull, NotWritable); the old file then stands, or a damaged one where it was set aside.
    """
    records = ours if callable(ours) else lambda: ours
    with _storage_errors(path, "written"):
        make_directories(path.parent)
        _remove_leftovers(path)
        for attempt in range(_ATTEMPTS):
            result = _update(path, records, gone, now, relocate, unconditionally=attempt == _ATTEMPTS - 1)
            if result is not None:
                break
        assert result is not None
        return result


@dataclass(frozen=True, slots=True)
class _Found:
    entries: ObjectText
    identity: tuple[int, ...] | None
    mode: int = 0o644
    problem: str = ""


def _read(path: Path) -> _Found:
    """What is there. Raises OSError where it may not be read."""
    try:
        # Not blocking: opening a pipe that lies there would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return _Found(ObjectText(), None)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return _Found(ObjectText(), None, problem="it is not a regular file")
        raise
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        return _Found(ObjectText(), None, problem="it is not a regular file")
    with open(descriptor, "rb") as stream:
        text = stream.read()
    identity = _identity(facts)
    try:
        return _Found(ObjectText(text), identity, stat.S_IMODE(facts.st_mode) & 0o666)
    except UnicodeDecodeError as error:
        return _Found(ObjectText(), identity, problem=f"byte {error.start} is not UTF-8")
    except ValueError as error:
        return _Found(ObjectText(), identity, problem=f"it is not a JSON object: {error}" if text else "it is empty")


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def _update(
    path: Path,
    records: Callable[[], Iterable[Record]],
    gone: Collection[str],
    now: datetime,
    relocate: Relocate | None,
    *,
    unconditionally: bool,
) -> CatalogWrite | None:
    """One attempt; None where another program replaced the file between our reading and our writing."""
    found = _read(path)
    entries, problem, set_aside = found.entries, "", None
    if found.problem:
        set_aside = _set_aside(path, now)
        problem = f"{path} could not be used ({found.problem}); it was kept as {set_aside.name} and made anew."
    elif path.is_symlink():
        problem = f"{path} was a symbolic link; it is a file of its own now, and what it pointed to was left as it was."
    leaving = {each for each in gone if each in entries and is_ours(entries[each])}
    displaced: frozenset[str] = frozenset()
    while True:
        taken_over = relocate(entries, leaving | displaced) if relocate is not None else ()
        # In the catalog's folder, which has to have the room anyway; it has no name there, so a crash leaves nothing.
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=str(path.parent)) as added:
            collected = _Collecting(entries, added, leaving, displaced, taken_over)
            collected.collect(records())
            if relocate is not None and collected.displaced:
                displaced |= collected.displaced
                continue
            changed, new_entries, taken = collected.changed, len(collected.new_paths), tuple(collected.taken)
            total = len(entries) + new_entries - sum(1 for text in changed.values() if text is None)
            if found.identity is not None and not set_aside and not changed and not new_entries:
                return CatalogWrite(False, None, total, taken_over=taken)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            try:
                _write_members(temporary, found.mode, _members(entries, changed, added))
                fault_point("catalog.written")
                if not unconditionally and not set_aside and identity_of(path) != found.identity:
                    temporary.unlink()
                    return None
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            break
    fault_point("catalog.renamed")
    sync_directory(path.parent)
    return CatalogWrite(True, set_aside, total, problem, taken)


class _Collecting:
    """What becomes of the entries: new text by path (None: removed), and what is new, whose members go into `added`."""

    def __init__(
        self,
        entries: ObjectText,
        added: IO[bytes],
        leaving: Collection[str],
        displaced: Collection[str],
        taken_over: Collection[TakenOver],
    ) -> None:
        self._entries = entries
        self._added = added
        self._leaving = set(leaving)
        self._given_up = displaced
        """Paths whose entries speak of another photo, which is known to have left."""
        self._former = {each.new_path: each for each in taken_over}
        self._spoken_for: set[str] = set()
        """Old paths that are another file's now."""
        self.changed: dict[str, bytes | None] = {}
        self.new_paths: set[str] = set()
        self.displaced: set[str] = set()
        """Paths whose entries speak of another photo; not known before."""
        self.taken: list[int] = []

    def collect(self, records: Iterable[Record]) -> None:
        old_paths = {each.old_path for each in self._former.values()}
        heirs: list[Record] = []
        for record in records:
            path = record.file_path
            self._leaving.discard(path)
            if path in old_paths:
                self._spoken_for.add(path)
            if path in self._former:
                heirs.append(record)  # when it is known where all the others are
            else:
                self._enter(record)
        moves = {
            each.old_path: each.new_path
            for each in self._former.values()
            if each.old_path != each.new_path
            and (each.old_path not in self._spoken_for or each.old_path in self._given_up)
        }
        for record in heirs:
            self._take_over(record, moves)
        self.changed.update(dict.fromkeys(self._leaving))
        if moves:
            self._point(moves)

    def _enter(self, record: Record) -> None:
        path, entries = record.file_path, self._entries
        if path not in entries:
            if path not in self.new_paths:
                self._add(path, _encoded(path, entry_of(record)))
            return
        before, made = entries.member(path), entry_of(record)
        if before == _encoded(path, made):
            return
        existing = entries[path]
        if is_of_another_photo(existing, record):
            if path in self._given_up:
                self.changed[path] = _encoded(path, made)
            else:
                self.displaced.add(path)
        elif (merged := merged_entry(existing, record, made)) != existing:
            self.changed[path] = _rewritten(path, before, existing, merged, record)

    def _take_over(self, record: Record, moves: Mapping[str, str]) -> None:
        path, entries = record.file_path, self._entries
        former = self._former[path]
        before: Any = None
        if path in entries and path not in self._given_up:
            if is_of_another_photo(entries[path], record):
                self.displaced.add(path)
                return
            before = _exactly(b"{%b}" % entries.member(path), path)
        said = _exactly(f'{{"":{former.entry or "{}"}}}'.encode(), "")
        merged = pointing_to(with_former(before, said if isinstance(said, dict) else {}, record), moves)
        self.taken.append(former.row_id)
        if path not in entries:
            self._add(path, _encoded_exactly(path, merged, former.entry))
        elif merged != before:
            self.changed[path] = _encoded_exactly(path, merged, former.entry, entries.member(path))

    def _add(self, path: str, member: bytes) -> None:
        self.new_paths.add(path)
        self._added.write(_SEPARATOR + member)

    def _point(self, moves: Mapping[str, str]) -> None:
        """Let every entry that names an old path name the new one."""
        for path in self._entries:
            member = self.changed[path] if path in self.changed else self._entries.member(path)
            if member is None:
                continue
            try:
                entry = parse_member(member)[path]
                wanted = pointing_to(entry, moves)
                if wanted != entry:
                    text = member_pointing_to(member, path, wanted, moves)
                    exact = pointing_to(parse_exactly(b"{%b}" % member)[path], moves)
                    self.changed[path] = text or _encoded_exactly(path, exact, member)
            except RecursionError:
                continue  # nested too deep to be looked at


def _exactly(text: bytes, key: str) -> Any:
    """The value of a key, numbers kept exactly; None where it is nested too deep."""
    try:
        return parse_exactly(text)[key]
    except RecursionError:
        return None


def _encoded_exactly(path: str, entry: dict[str, Any], *given: str | bytes) -> bytes:
    """The member of an entry that was made of these texts: leniently where one holds NaN or the like, which the fast
    writer would turn into null."""
    for text in given:
        try:
            if text:
                orjson.loads(text if isinstance(text, str) else b"{%b}" % text)
        except ValueError:
            return _encoded_leniently(path, entry)
    return _encoded(path, entry)


def _rewritten(path: str, before: bytes, existing: Any, merged: dict[str, Any], record: Record) -> bytes:
    """The member of an entry that changes. `before` is its text, and what `existing` was parsed of by the fast parser,
    which does not keep other programs' numbers exactly, as this does."""
    text = b"{%b}" % before
    try:
        if _encoded(path, existing) == before:  # parsed and written it is the same to the last byte: nothing gets lost
            return _encoded(path, merged)
        merged = merged_entry(parse_exactly(text)[path], record)
        try:
            orjson.loads(text)
        except ValueError:  # it holds NaN or the like, which the fast writer would turn into null
            return _encoded_leniently(path, merged)
        return _encoded(path, merged)
    except RecursionError:
        return _encoded(path, entry_of(record))


def _encoded(path: str, entry: dict[str, Any]) -> bytes:
    try:
        # A string in JSON holds no line break, so this indents lines and nothing else.
        return (orjson.dumps(path) + b": " + orjson.dumps(entry, option=orjson.OPT_INDENT_2)).replace(b"\n", b"\n  ")
    except TypeError:  # integers over 64 bits, names that are not UTF-8, nesting over 254
        return _encoded_leniently(path, entry)


def _encoded_leniently(path: str, entry: dict[str, Any]) -> bytes:
    return f"{json.dumps(path)}: {json.dumps(entry)}".encode()


def _members(entries: ObjectText, changed: Mapping[str, bytes | None], added: IO[bytes]) -> Iterator[bytes]:
    """The text of the new file in pieces: what was there in its order, then what is new."""
    separator = b"{\n  "
    for path in entries:
        member = changed[path] if path in changed else entries.member(path)
        if member is not None:
            yield separator
            yield member
            separator = _SEPARATOR
    if separator != _SEPARATOR:
        yield b"{"
    added.seek(0 if separator == _SEPARATOR else 1)
    while block := added.read(1 << 20):
        yield block
    yield b"\n}\n"


def _write_members(temporary: Path, mode: int, pieces: Iterable[bytes]) -> None:
    """A new file of these pieces, durable. Raises OSError."""
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb", buffering=1 << 20) as stream:
        os.fchmod(descriptor, mode)
        stream.writelines(pieces)
    sync_files([temporary])


def identity_of(path: Path) -> tuple[int, ...] | None:
    """Device, inode, size and modification time (ns) of the file; None where there is none."""
    try:
        return _identity(path.stat())
    except FileNotFoundError:
        return None


def _set_aside(path: Path, now: datetime) -> Path:
    """Rename a file out of the way, never over one that was set aside before."""
    name = f"{path.name}.corrupt-{now:%Y%m%d_%H%M%S}"
    kept, number = path.with_name(name), 1
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{name}-{number}")
    path.rename(kept)
    sync_directory(path.parent)
    return kept


def _remove_leftovers(path: Path) -> None:
    """Remove what an update that was killed left behind; only names that we make, only files and links."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp\Z")
    for entry in os.scandir(path.parent):
        if pattern.match(entry.name) and not entry.is_dir(follow_symlinks=False):
            Path(entry.path).unlink(missing_ok=True)


@contextmanager
def _storage_errors(path: Path, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"The disk is full: {path} could not be {done}. What it held before is kept.",
                next_step="Make room; the next run or `skicyclerun run --resume` brings the catalog up to date.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NotWritable(f"{path} could not be {done}: {reason}. It was left as it is.") from error
        raise StorageError(f"{path} could not be {done}: {reason}. It was left as it is.") from error
