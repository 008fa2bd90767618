"""MANIFEST.json: what an archive holds, with the hash that every member is proved against.

It is the last member of the ZIP, `pipeline_{timestamp}/MANIFEST.json`, one line per member:

    {"format": "skicyclerun-archive", "version": 1, "id": "…", "created": "2026-11-22T16:15:00Z",
     "timestamp": "20261122_161500", "folders": {"albums": "/photos/pipeline/albums"},
     "members": [
      {"path": "albums/Alps/IMG_1.jpg", "kind": "file", "size": 3, "mtime_ns": 1, "mode": 33188, "sha256": "…"}
    ]}

`catalog_sha256` is there where master.json knows the file. `path_bytes` (hexadecimal) is there where the name on disk
cannot be a portable UTF-8 name in a ZIP: bytes that are no UTF-8, control characters, backslashes. `inode` and
`ctime_ns` say which file it was, so that cleaning needs to hash only what may have changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Final

import orjson
from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, ValidationError

from skicyclerun.errors import ArchiveError, RestoreRefused
from skicyclerun.files.beneath import Beneath

FORMAT: Final = "skicyclerun-archive"
VERSION: Final = 1
MANIFEST_NAME: Final = "MANIFEST.json"

_TIMESTAMP: Final = re.compile(r"[0-9]{8}_[0-9]{6}")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""In hexadecimal."""
_HexBytes = Annotated[
    bytes,
    BeforeValidator(lambda value: bytes.fromhex(value) if isinstance(value, str) else value),
    PlainSerializer(bytes.hex),
]
# C0, DEL, C1, backslash, and the surrogates by which Python stands for bytes that are no UTF-8.
_UNPORTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\\\\\ud800-\udfff]")


class MemberKind(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive, below its `pipeline_{timestamp}/`."""

    path: str
    """Portable name in the ZIP, `/` between components, no `/` at the end; the first one is the archived folder's."""
    kind: MemberKind
    size: Annotated[int, Field(ge=0)]
    """Bytes of content; for a link, of its target; 0 for a folder."""
    mtime_ns: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    mode: int
    """st_mode."""
    sha256: Sha256 = ""
    """Of the content, of a link's target; empty for a folder."""
    catalog_sha256: str | None = None
    path_bytes: _HexBytes | None = None
    inode: int = 0
    ctime_ns: int = 0

    @property
    def disk_path(self) -> str:
        """The name as it is on disk (surrogateescape where it is no UTF-8), `/` between components."""
        return self.path if self.path_bytes is None else os.fsdecode(self.path_bytes)

    @property
    def parts(self) -> tuple[str, ...]:
        """Components of the name on disk, the archived folder's name first."""
        return tuple(self.disk_path.split("/"))

    def lies_at(self, folder: Beneath, parts: Sequence[str]) -> bool:
        """Whether a file or link lies there that is, byte for byte, this member. Raises OSError."""
        status = folder.stat(parts)
        if stat.S_ISLNK(status.st_mode):
            target = folder.read_link(parts)
            return self.kind is MemberKind.LINK and hashlib.sha256(target).hexdigest() == self.sha256
        if self.kind is not MemberKind.FILE or not stat.S_ISREG(status.st_mode) or status.st_size != self.size:
            return False
        with open(folder.open_file(parts), "rb", buffering=0) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == self.sha256


@dataclass(frozen=True, slots=True)
class Manifest:
    id: str
    created: str
    """ISO 8601, UTC, `Z`."""
    timestamp: str
    """`YYYYMMDD_HHMMSS` as the run gave it; the archive's name and the root of its members."""
    folders: Mapping[str, str]
    """Name in the ZIP → where the folder was."""
    members: tuple[Member, ...]

    @property
    def root(self) -> str:
        return root_name(self.timestamp)

    @property
    def files(self) -> int:
        """Members that are no folders."""
        return sum(1 for member in self.members if member.kind is not MemberKind.FOLDER)

    @property
    def content_bytes(self) -> int:
        return sum(member.size for member in self.members)


def root_name(timestamp: str) -> str:
    """The folder inside the ZIP under which everything lies. Raises ValueError for what is no timestamp."""
    if not _TIMESTAMP.fullmatch(timestamp):
        raise ValueError(f"{timestamp!r} is not YYYYMMDD_HHMMSS")
    return f"pipeline_{timestamp}"


def zip_name(root: str, member: Member) -> str:
    """The member's full name in the ZIP."""
    return f"{root}/{member.path}{'/' if member.kind is MemberKind.FOLDER else ''}"


def manifest_name(root: str) -> str:
    """The manifest's full name in the ZIP."""
    return f"{root}/{MANIFEST_NAME}"


def portable_path(disk_path: str) -> tuple[str, bytes | None]:
    """A name that every reader of ZIPs understands, and the bytes on disk where the two differ.

    What is no UTF-8, control characters and backslashes (which some readers take for `/`) become `_xNN`. Two names
    may come out alike; the caller tells them apart.
    """
    if not _UNPORTABLE.search(disk_path):
        return disk_path, None
    safe = _UNPORTABLE.sub(
        lambda found: "".join(f"_x{byte:02X}" for byte in found.group().encode("utf-8", "surrogateescape")), disk_path
    )
    return safe, os.fsencode(disk_path)


def check_member_path(path: str) -> None:
    """Raises RestoreRefused for a name that could lead out of the folder it is restored to."""
    problem = ""
    if not path or path.startswith("/"):
        problem = "is absolute"
    elif "\0" in path:
        problem = "holds a NUL"
    elif _DRIVE.match(path):
        problem = "names a drive"
    elif any(part in ("", ".", "..") for part in path.split("/")):
        problem = "would leave the folder it belongs to"
    if problem:
        raise RestoreRefused(f"The archive holds a member {path!r} that {problem}. Nothing was written.")


def dump_manifest(manifest: Manifest) -> Iterator[bytes]:
    """The JSON text, in pieces, so that a hundred thousand members need no second copy in memory."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "id": manifest.id,
        "created": manifest.created,
        "timestamp": manifest.timestamp,
        "folders": dict(manifest.folders),
    }
    yield orjson.dumps(head)[:-1] + b',\n"members": [\n'
    separator, form = b"", _member_form()
    for member in manifest.members:
        yield separator + form.dump_json(member, exclude_defaults=True)
        separator = b",\n"
    yield b"\n]}\n"


def load_manifest(data: bytes) -> Manifest:
    """Read MANIFEST.json. Raises ArchiveError, RestoreRefused for names that point outside."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ArchiveError(f"Its MANIFEST.json is not JSON ({error}).") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ArchiveError("Its MANIFEST.json is not one of skicyclerun's.")
    if document.get("version") != VERSION:
        raise ArchiveError(
            f"Its MANIFEST.json has version {document.get('version')}; this skicyclerun knows {VERSION}.",
            next_step="Upgrade skicyclerun, or read it with `unzip`.",
        )
    try:
        manifest = _manifest_form().validate_python(document)
        root_name(manifest.timestamp)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArchiveError(f"Its MANIFEST.json is damaged ({where}: {first['msg']}).") from error
    except ValueError as error:
        raise ArchiveError(f"Its MANIFEST.json is damaged ({error}).") from error
    _check_members(manifest)
    return manifest


def _check_members(manifest: Manifest) -> None:
    seen: set[str] = set()
    for member in manifest.members:
        check_member_path(member.path)
        check_member_path(member.disk_path)
        if _UNPORTABLE.search(member.path):
            raise RestoreRefused(f"The archive holds a member {member.path!r} with a backslash or control characters.")
        if member.parts[0] not in manifest.folders or member.path.partition("/")[0] != member.parts[0]:
            raise RestoreRefused(f"The archive holds a member {member.path!r} that lies in none of its folders.")
        if len(member.parts) == 1 and member.kind is not MemberKind.FOLDER:
            raise RestoreRefused(f"The archive holds a file or link {member.path!r} where its folder should be.")
        if member.path in seen:
            raise RestoreRefused(f"The archive holds {member.path!r} twice.")
        seen.add(member.path)
        if (member.kind is MemberKind.FOLDER) != (not member.sha256):
            raise ArchiveError(f"Its MANIFEST.json is damaged (the hash of {member.path!r} is missing).")


# Made when they are needed, which in a run without an archive they are not.
@cache
def _member_form() -> TypeAdapter[Member]:
    return TypeAdapter(Member)


@cache
def _manifest_form() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
