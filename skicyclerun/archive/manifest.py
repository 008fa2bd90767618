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

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from skicyclerun.errors import ArchiveError, RestoreRefused

FORMAT: Final = "skicyclerun-archive"
VERSION: Final = 1
MANIFEST_NAME: Final = "MANIFEST.json"

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP: Final = re.compile(r"[0-9]{8}_[0-9]{6}")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
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
    size: int
    """Bytes of content; for a link, of its target; 0 for a folder."""
    mtime_ns: int
    mode: int
    """st_mode."""
    sha256: str = ""
    """Of the content, of a link's target; empty for a folder."""
    catalog_sha256: str | None = None
    path_bytes: bytes | None = None
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
    separator = b""
    for member in manifest.members:
        yield separator + orjson.dumps(_to_json(member))
        separator = b",\n"
    yield b"\n]}\n"


def _to_json(member: Member) -> dict[str, str | int]:
    entry: dict[str, str | int] = {
        "path": member.path,
        "kind": member.kind.value,
        "size": member.size,
        "mtime_ns": member.mtime_ns,
        "mode": member.mode,
    }
    if member.sha256:
        entry["sha256"] = member.sha256
    if member.catalog_sha256 is not None:
        entry["catalog_sha256"] = member.catalog_sha256
    if member.path_bytes is not None:
        entry["path_bytes"] = member.path_bytes.hex()
    if member.inode:
        entry["inode"] = member.inode
    if member.ctime_ns:
        entry["ctime_ns"] = member.ctime_ns
    return entry


def load_manifest(data: bytes) -> Manifest:
    """Read MANIFEST.json strictly. Raises ArchiveError, RestoreRefused for names that point outside."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ArchiveError(f"Its MANIFEST.json is not JSON ({error}).") from error
    try:
        if document["format"] != FORMAT:
            raise ArchiveError("Its MANIFEST.json is not one of skicyclerun's.")
        if document["version"] != VERSION:
            raise ArchiveError(
                f"Its MANIFEST.json has version {document['version']}; this skicyclerun knows {VERSION}.",
                next_step="Upgrade skicyclerun, or read it with `unzip`.",
            )
        timestamp = _text(document, "timestamp")
        root_name(timestamp)
        folders = {str(name): str(path) for name, path in document["folders"].items()}
        members = tuple(_members(document["members"], folders))
        return Manifest(_text(document, "id"), _text(document, "created"), timestamp, folders, members)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveError(f"Its MANIFEST.json is damaged ({error}).") from error


def _members(entries: Iterable[Any], folders: Mapping[str, str]) -> Iterator[Member]:
    seen: set[str] = set()
    for entry in entries:
        raw = entry.get("path_bytes")
        kind = MemberKind(entry["kind"])
        member = Member(
            path=_text(entry, "path"),
            kind=kind,
            size=_number(entry, "size"),
            mtime_ns=_number(entry, "mtime_ns"),
            mode=_number(entry, "mode"),
            sha256=_text(entry, "sha256") if "sha256" in entry else "",
            catalog_sha256=_text(entry, "catalog_sha256") if "catalog_sha256" in entry else None,
            path_bytes=None if raw is None else bytes.fromhex(raw),
            inode=_number(entry, "inode") if "inode" in entry else 0,
            ctime_ns=_number(entry, "ctime_ns") if "ctime_ns" in entry else 0,
        )
        check_member_path(member.path)
        check_member_path(member.disk_path)
        if _UNPORTABLE.search(member.path):
            raise RestoreRefused(f"The archive holds a member {member.path!r} with a backslash or control characters.")
        if member.parts[0] not in folders or member.path.partition("/")[0] != member.parts[0]:
            raise RestoreRefused(f"The archive holds a member {member.path!r} that lies in none of its folders.")
        if member.path in seen:
            raise RestoreRefused(f"The archive holds {member.path!r} twice.")
        seen.add(member.path)
        if member.size < 0 or (kind is MemberKind.FOLDER) != (not member.sha256):
            raise ValueError(f"wrong size or hash of {member.path!r}")
        if member.sha256 and not _SHA256.fullmatch(member.sha256):
            raise ValueError(f"wrong hash of {member.path!r}")
        yield member


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a text")
    return value


def _number(entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if type(value) is not int:
        raise ValueError(f"{key} is not a whole number")
    return value
