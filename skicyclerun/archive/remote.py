"""A second place for archives, off this disk: what any such place can do, and how an archive comes to lie there.

Beside each archive lies its record, `NAME.json`. It is made first, never over another, and thereby reserves the name:
two machines that share a place never write over each other's archives, and an archive's bytes can be checked without
our database. The copy is proved by reading all of it back from there and comparing its SHA-256.

    record made, name reserved ── bytes written, durable ── read back, SHA-256 compared ── named

Every step may be cut off anywhere and repeated: the record's token says that the name is this copy's.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from skicyclerun.archive.advance import Advance, Progress, Stop
from skicyclerun.archive.archive_bytes import FileBytes, RangedBytes
from skicyclerun.archive.archive_file import drop_from_cache
from skicyclerun.archive.manifest import Sha256
from skicyclerun.archive.prove import verify_archive
from skicyclerun.archive.publish import ARCHIVE_NAME
from skicyclerun.archive.seal import read_seal
from skicyclerun.archive.unwaited_thread import interruptibly
from skicyclerun.errors import ArchiveError, ArchiveNotProved, RemoteError, RemoteNameTaken
from skicyclerun.files.fault_points import fault_point

RECORD_SUFFIX: Final = ".json"
_FORMAT: Final = "skicyclerun-archive-copy"
#: A record has some 400 bytes.
LONGEST_RECORD: Final = 16_384
#: What a job's archive carries inside: its timestamp, which is in the archive's name too, and its number.
_JOB_ID: Final = re.compile(r"([0-9]{8}_[0-9]{6})-[0-9]+")
_BLOCK: Final = 1 << 20
_NAMES_TRIED: Final = 1000


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Something that lies there."""

    name: str
    size: int
    version: str
    """Changes when its bytes are written anew: the service's tag of the object, or a file's time."""


class Remote(Protocol):
    """A flat place for archives and their records. Names are ours: no `/`, printable.

    All of it blocks. Raises RemoteUnreachable where there is no answer, RemoteError where it refuses.
    """

    @property
    def url(self) -> str:
        """What people call it."""
        ...

    @property
    def is_near(self) -> bool:
        """Whether reading all of an archive there is a matter of seconds and costs nothing: no download."""
        ...

    def identify(self, known: str, *, make: bool) -> str:
        """Which place it is, empty where its address says that. `known` is what it was the last time.

        Raises RemoteUnreachable where another answers in its stead: a mount point without its disk. `make`: a place
        that has no identity yet is given one.
        """
        ...

    def doubt(self, archives: Path) -> str:
        """Why it may not be the disk that is meant, as long as nobody has said that it is; empty where nothing speaks
        against it. `archives`: where they lie here."""
        ...

    def files(self) -> list[RemoteFile]: ...

    def look(self, name: str) -> RemoteFile | None: ...

    def create(self, name: str, data: bytes) -> bool:
        """Durable on return; False, and nothing changed, where the name is taken."""
        ...

    def write(self, name: str, token: str, blocks: Iterator[bytes], size: int) -> str:
        """All the blocks, durable on return; returns the name they have until `publish`. What an attempt with this
        token left is removed first. What the blocks raise comes out, and nothing is left then."""
        ...

    def unpublished(self, name: str, token: str) -> str:
        """The name that `write` gives its bytes until `publish`."""
        ...

    def discard(self, name: str, token: str) -> None:
        """Remove what unfinished attempts with this token left; `name` itself stays."""
        ...

    def publish(self, written: str, name: str) -> None:
        """Give it its name, never over another's, durable on return."""
        ...

    def read(self, file: RemoteFile, offset: int, count: int) -> bytes:
        """Just these bytes. Raises RemoteError where the file is no longer the one that was looked at."""
        ...

    def blocks(self, file: RemoteFile) -> Iterator[bytes]:
        """All of it, from there and not from a memory here."""
        ...

    def delete(self, name: str) -> None:
        """Durable on return; nothing where it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """What lies beside an archive elsewhere and says what it is."""

    token: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Made once for each copy: whose the name is."""
    file: str
    """The archive's name in its own archive folder."""
    size: Annotated[int, Field(ge=1, lt=2**63)]
    sha256: Sha256
    """Of the whole ZIP."""
    created: Annotated[str, Field(pattern=r"^(19[89]\d|2\d{3})-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    """ISO 8601, UTC, `Z`."""
    files: Annotated[int, Field(ge=0)]
    content_bytes: Annotated[int, Field(ge=0)]
    format: Annotated[str, Field(pattern=f"^{_FORMAT}$")] = _FORMAT

    def dump(self) -> bytes:
        return _form().dump_json(self, indent=1) + b"\n"


@cache
def _form() -> TypeAdapter[CopyRecord]:
    return TypeAdapter(CopyRecord)


def load_record(data: bytes) -> CopyRecord | None:
    """None where it is none of ours."""
    try:
        return _form().validate_json(data)
    except ValidationError:
        return None


def describe(path: Path, token: str, *, progress: Progress | None = None, stop: Stop | None = None) -> CopyRecord:
    """The record of an archive here, which is read twice: against its manifest and seal, and for its SHA-256.

    Raises ArchiveNotProved where it is not, or no longer, what was proved, ArchiveStopped, OSError.
    """
    found = verify_archive(path, progress=progress, stop=stop)
    if not found.ok or found.seal is None or found.seal.proved is None:
        problem = found.problems[0] if found.problems else "it was never proved"
        raise ArchiveNotProved(f"{path} is not copied: {problem}.", next_step="`skicyclerun archive verify` has more.")
    seal = found.seal
    with open(path, "rb") as stream:
        drop_from_cache(stream.fileno())
        if read_seal(FileBytes(stream.fileno())) != seal:
            raise ArchiveNotProved(f"{path} is not copied: it was replaced while it was read.")
        size = FileBytes(stream.fileno()).size
        hasher = hashlib.sha256()
        stopping = Advance(size, None, stop, f"{path.name} is not copied yet.")
        while block := stream.read(_BLOCK):
            hasher.update(block)
            stopping(len(block))
    return CopyRecord(token, path.name, size, hasher.hexdigest(), seal.created, seal.files, seal.content_bytes)


# ── copying ───────────────────────────────────────────────────────────────────────────────────────────────────────


def reserve(remote: Remote, record: CopyRecord) -> str:
    """Make the record, and with it reserve the archive's name there, which is returned; `…-2.zip` and so on where
    others have that. Safe to repeat: a record with this token is found again."""
    for name in itertools.islice(_names(record.file), _NAMES_TRIED):
        there = remote.look(name + RECORD_SUFFIX)
        if there is None and remote.look(name) is None and remote.create(name + RECORD_SUFFIX, record.dump()):
            if remote.look(name) is None:
                return name
            remote.delete(name + RECORD_SUFFIX)  # a file of another program, which came just now
            continue
        found = record_of(remote, name)
        if found is not None and found.token == record.token:
            return name
    raise RemoteError(f"{remote.url} has no name left for {record.file}.")


def found_again(remote: Remote, record: CopyRecord) -> tuple[str, CopyRecord] | None:
    """The very same archive, complete there under another token: copied before the database was lost. Name, record."""
    for name in itertools.islice(_names(record.file), _NAMES_TRIED):
        there, file = record_of(remote, name), remote.look(name)
        if file is None and there is None:
            return None
        same = there is not None and (there.file, there.size, there.sha256) == (record.file, record.size, record.sha256)
        if same and there is not None and file is not None and file.size == record.size:
            return name, there
    return None


def _names(file: str) -> Iterator[str]:
    match = ARCHIVE_NAME.fullmatch(file)
    if match is None:
        raise RemoteError(f"{file} bears no archive's name and is not copied.")
    yield file
    for number in itertools.count(2):
        name = f"pipeline_{match[1]}-{number}.zip"
        if name != file:
            yield name


def record_of(remote: Remote, name: str) -> CopyRecord | None:
    """The record beside an archive; None where there is none, or none of ours."""
    there = remote.look(name + RECORD_SUFFIX)
    if there is None or not 0 < there.size <= LONGEST_RECORD:
        return None
    return load_record(remote.read(there, 0, there.size))


def copy_archive(
    remote: Remote,
    name: str,
    path: Path,
    record: CopyRecord,
    *,
    version: str = "",
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> str:
    """Write, read back, name; returns the version of what lies there then. `name` is reserved for this record.

    A copy that an earlier attempt brought to its name is read back and taken; `version` is what it had then, where it
    was read back before. Raises RemoteNameTaken, and leaves it, where another file lies at the name; ArchiveNotProved
    where what came back is not what lies here (it is removed there); ArchiveStopped, RemoteError, OSError of the file
    here.
    """
    advance = Advance(2 * record.size, progress, stop, f"{path.name} is not copied yet.")
    written = name
    if not _came_back(remote, name, record, advance):
        there = remote.look(name)
        if there is not None:
            if not _is_this_archive(remote, there, path, record, version):
                raise RemoteNameTaken(name, remote.url)
            remote.delete(name)  # damaged, and whole here
        written = remote.write(name, record.token, _local_blocks(path, record, advance), record.size)
        fault_point("copy.written")
        if not _came_back(remote, written, record, advance):
            remote.delete(written)
            raise ArchiveNotProved(
                f"What came back from {remote.url} is not {path.name} (SHA-256 differs); it was removed there.",
                next_step="`skicyclerun archive push` tries again.",
            )
    fault_point("copy.proved")
    remote.publish(written, name)
    fault_point("copy.published")
    named = remote.look(name)
    if named is None or named.size != record.size:
        raise RemoteError(f"{name} is no longer in {remote.url}.")
    return named.version


def _is_this_archive(remote: Remote, there: RemoteFile, path: Path, record: CopyRecord, version: str) -> bool:
    """Whether what lies there, though its bytes are not, is the archive here and nobody else's file: it is the very
    one that was read back, or bears the same seal at its end. One that was cut off cannot be told from others."""
    if there.size != record.size:
        return False
    if version and there.version == version:
        return True
    try:
        with open(path, "rb") as stream:
            return read_seal(open_there(remote, there)) == read_seal(FileBytes(stream.fileno()))
    except RemoteError:
        raise
    except ArchiveError:
        return False


def release(remote: Remote, name: str, token: str) -> None:
    """Give a reserved name back: our record is removed, and nothing else."""
    found = record_of(remote, name)
    if found is not None and found.token == token:
        remote.delete(name + RECORD_SUFFIX)


def _came_back(remote: Remote, name: str, record: CopyRecord, advance: Advance) -> bool:
    """Whether all that lies there is the archive, read from there."""
    file = remote.look(name)
    return file is not None and file.size == record.size and _sha256_there(remote, file, advance) == record.sha256


def _local_blocks(path: Path, record: CopyRecord, advance: Advance) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
            advance(len(block))
            # The last block is held back until all is known to be what was described.
            if stream.tell() >= record.size and (stream.read(1) or hasher.hexdigest() != record.sha256):
                raise ArchiveNotProved(f"{path} changed while it was copied; it was not copied.")
            yield block


def finished_or_cleared(
    remote: Remote, file: str, name: str, token: str, *, stop: Stop | None = None
) -> tuple[str, CopyRecord, str] | None:
    """What is there of a copy whose archive here is gone. `name` is empty where none was entered as reserved.

    Where all its bytes are there they are given their name: name, record and version. Otherwise None, and what was
    reserved and written for it there is removed; a file at its name that is not the archive is somebody's, and stays.
    Safe to repeat. Raises ArchiveStopped, RemoteError.
    """
    for reserved in [name] if name else _reserved_names(remote, file):
        record = record_of(remote, reserved)
        if record is None or record.token != token:
            continue
        advance = Advance(2 * record.size, None, stop, f"{file} is not looked for any more.")
        for written in dict.fromkeys((reserved, remote.unpublished(reserved, token))):
            if _came_back(remote, written, record, advance):
                remote.publish(written, reserved)
                named = remote.look(reserved)
                if named is not None and named.size == record.size:
                    return reserved, record, named.version
        remote.discard(reserved, token)
        remote.delete(reserved + RECORD_SUFFIX)
        fault_point("copy.cleared_there")
    return None


def _reserved_names(remote: Remote, file: str) -> list[str]:
    """Those there that an archive of this name may have been given."""
    match = ARCHIVE_NAME.fullmatch(file)
    stems = (one.name.removesuffix(RECORD_SUFFIX) for one in remote.files() if one.name.endswith(RECORD_SUFFIX))
    found = ((name, ARCHIVE_NAME.fullmatch(name)) for name in stems)
    return [name for name, other in found if match is not None and other is not None and other[1] == match[1]]


def remove_copy(remote: Remote, name: str, token: str, *, size: int | None = None, version: str = "") -> bool:
    """Remove an archive of ours there, then its record. Nothing of another's: the record says whose the name is, and
    its size, or `size` and `version` where they are known, whose the bytes. False: another's file was left.

    Safe to repeat. Raises RemoteError.
    """
    found = record_of(remote, name)
    if found is None or found.token != token:
        return remote.look(name) is None
    file = remote.look(name)
    ours = file is not None and file.size == (size or found.size) and (not version or file.version == version)
    if ours:
        remote.delete(name)
    fault_point("copy.deleted_there")
    remote.delete(name + RECORD_SUFFIX)
    return ours or file is None


def reads_as(remote: Remote, file: RemoteFile, size: int, sha256: str, *, stop: Stop | None = None) -> bool:
    """Whether all that lies there has this SHA-256, read from there. Raises ArchiveStopped, RemoteError."""
    advance = Advance(size, None, stop, f"{file.name} is not read again.")
    return file.size == size and _sha256_there(remote, file, advance) == sha256


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CopyThere:
    """An archive elsewhere, by its record; its members were not read."""

    name: str
    file: RemoteFile
    record: CopyRecord | None
    """None: it has none, or none that can be read."""

    @property
    def whole(self) -> bool:
        """As far as its size says."""
        return self.record is not None and self.record.size == self.file.size


def copies_there(remote: Remote) -> list[CopyThere]:
    """What bears an archive's name there, with the records; by name."""
    files = {file.name: file for file in remote.files()}
    found: list[CopyThere] = []
    for name, file in sorted(files.items()):
        if ARCHIVE_NAME.fullmatch(name):
            record = record_of(remote, name) if name + RECORD_SUFFIX in files else None
            found.append(CopyThere(name, file, record))
    return found


def open_there(remote: Remote, file: RemoteFile) -> RangedBytes:
    """An archive elsewhere for `verify_archive` and `restore_archive`: ranges of it are fetched as they are needed."""
    title = f"{remote.url}/{file.name}"
    return RangedBytes(title, file.size, lambda offset, count: interruptibly(lambda: remote.read(file, offset, count)))


def open_copy(remote: Remote, there: CopyThere, *, size: int | None = None, sha256: str | None = None) -> RangedBytes:
    """An archive elsewhere to be restored, if it is, by its size and its end, the one that its record is of. `size` and
    `sha256`: what our database says of it.

    Raises ArchiveNotProved where another lies there, ArchiveError, RemoteError.
    """
    opened = open_there(remote, there.file)
    record = there.record
    problem = _unlike(record, there.name, opened) if record is not None else ""
    if sha256 is not None and record is not None and record.sha256 != sha256:
        problem = "its record there names another SHA-256 than the database"
    if size is not None and there.file.size != size:
        problem = f"it has {there.file.size} bytes and should have {size}"
    if problem:
        raise ArchiveNotProved(
            f"{opened.title} is not the archive that was copied: {problem}. Nothing was written.",
            next_step="`skicyclerun archive verify` says more of each.",
        )
    return opened


def _unlike(record: CopyRecord, name: str, archive: RangedBytes) -> str:
    """How what lies there differs from its record; empty where it does not. Only its end is read."""
    stamps = [match[1] for match in map(ARCHIVE_NAME.fullmatch, (record.file, name)) if match is not None]
    if len(stamps) != 2 or stamps[0] != stamps[1]:
        return f"its record is that of {record.file}"
    if archive.size != record.size:
        return f"it has {archive.size} bytes and should have {record.size}"
    try:
        seal = read_seal(archive)
    except RemoteError:
        raise
    except ArchiveError as error:
        return str(error).rstrip(".")
    job = _JOB_ID.fullmatch(seal.id)
    if job is not None and job[1] != stamps[0]:
        return f"another archive lies there, that of {job[1]}"
    if (seal.created, seal.files, seal.content_bytes) != (record.created, record.files, record.content_bytes):
        made = f"made {seal.created}, {seal.files} files"
        return f"another archive lies there ({made}) than its record says (made {record.created}, {record.files} files)"
    return ""


def problems_there(
    remote: Remote,
    name: str,
    record: CopyRecord | None,
    version: str,
    *,
    full: bool,
    progress: Progress | None = None,
) -> Sequence[str]:
    """What is wrong with a copy, one sentence each; nothing is written.

    Always: it is there, with its record, its size, and the very version that was read back when it was copied
    (`version` empty: not known here); its end is that of the archive its record is of; its directory and manifest fit.
    `full` reads every byte and compares their SHA-256. Raises RemoteError.
    """
    file = remote.look(name)
    if file is None:
        return ["it is not there"]
    problems: list[str] = []
    there = record_of(remote, name)
    opened = open_there(remote, file)
    if there is None:
        problems.append("its record is not there, or cannot be read")
    elif record is not None and there != record:
        problems.append("its record is another one's")
    elif unlike := _unlike(there, name, opened):
        problems.append(unlike)
    elif version and file.version != version and not full:
        problems.append("it was written anew since it was read back; --full reads it again")
    # What has the SHA-256 that was taken when every byte was proved needs no other look into its members.
    reading = Advance(file.size, progress, None, "")
    whole = full and there is not None and _sha256_there(remote, file, reading) == there.sha256
    if full and there is not None and not whole:
        problems.append("its SHA-256 is not that of the archive that was copied")
    problems += verify_archive(opened, quick=not full or whole, progress=progress).problems
    return problems


def _sha256_there(remote: Remote, file: RemoteFile, advance: Advance | None = None) -> str:
    hasher = hashlib.sha256()
    for block in remote.blocks(file):
        hasher.update(block)
        if advance is not None:
            advance(len(block))
    return hasher.hexdigest()
