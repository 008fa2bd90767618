"""Old outputs, archives of them, and hostile ones, for the tests of the archive."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from skicyclerun.archive.archive_bytes import FileBytes
from skicyclerun.archive.clean import clean_folders, put_back
from skicyclerun.archive.create import write_archive
from skicyclerun.archive.manifest import Manifest, Member, MemberKind, dump_manifest, manifest_name, zip_name
from skicyclerun.archive.plan import ArchivedFolder, plan_archive
from skicyclerun.archive.prove import ProvedArchive, prove_archive
from skicyclerun.archive.publish import find_archive, open_proved, publish_archive, remove_partials
from skicyclerun.archive.seal import Seal, Skeleton, write_seal
from skicyclerun.errors import ArchiveError

STAMP = "20261122_161500"
ID = "job-1"
NAMES = ("albums", "lora_processed", "metadata")


def folders_of(lib: Path, *, kept: tuple[str, ...] = ()) -> list[ArchivedFolder]:
    """`kept` are files of the metadata folder that stay in it."""
    return [ArchivedFolder(name, lib / name, kept if name == "metadata" else ()) for name in NAMES]


def make_outputs(lib: Path) -> dict[str, bytes]:
    """Two albums, an empty one, a derived picture and a catalog; relative path → content."""
    noise = os.urandom(300_000)
    files = {
        "albums/Alps/IMG_1.jpg": b"\xff\xd8" + noise,
        "albums/Alps/IMG_2.jpg": b"\xff\xd8" + noise[:7],
        "albums/Alps/notes.txt": "Grüße aus den Bergen\n".encode() * 500,
        "albums/Zürich ☀/été.JPG": noise[:70_000],
        "albums/Zürich ☀/zero.jpg": b"",
        "lora_processed/Alps/IMG_1_lora.jpg": noise[5:999],
        "metadata/master.json": b'{"a": 1}\n' * 100,
    }
    for path, data in files.items():
        target = lib / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        # Long ago: what was changed just now is hashed again by cleaning.
        os.utime(target, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    (lib / "albums/Empty album").mkdir()
    return files


def read_tree(root: Path) -> dict[str, bytes]:
    """Relative path → content of all files, links as their targets."""
    found: dict[str, bytes] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            data = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
            found[path.relative_to(root).as_posix()] = data
    return found


def archive_outputs(
    lib: Path,
    *,
    stamp: str = STAMP,
    archive_id: str = ID,
    folders: list[ArchivedFolder] | None = None,
    created: datetime | None = None,
) -> ProvedArchive:
    """Write, prove, publish; the folders stay. `created` None: now."""
    plan = plan_archive(folders or folders_of(lib))
    written = write_archive(plan, lib / "archive", timestamp=stamp, archive_id=archive_id, created=created)
    proved = prove_archive(written.partial, written)
    return replace(proved, path=publish_archive(proved))


def put_away(lib: Path, folders: list[ArchivedFolder] | None = None) -> Path | None:
    """Archive and clean, taking up whatever an earlier attempt left: what the archiver's state machine does."""
    archives, folders = lib / "archive", folders or folders_of(lib)
    remove_partials(archives)
    found = find_archive(archives, ID)
    if found is None:
        put_back(folders)
        plan = plan_archive(folders)
        if plan.is_empty:
            return None
        written = write_archive(plan, archives, timestamp=STAMP, archive_id=ID)
        found = publish_archive(prove_archive(written.partial, written))
    clean_folders(folders, open_proved(found).manifest)
    return found


def forge_archive(
    path: Path,
    members: Iterable[tuple[Member, bytes]],
    *,
    folders: tuple[str, ...] = ("albums",),
    zip_names: dict[int, str] | None = None,
    inflated: dict[int, bytes] | None = None,
    lies: tuple[int, ...] = (),
    gap: bytes = b"",
    seal_id: str = ID,
) -> Path:
    """An archive whose records, hashes and seal are right, with members that `create.py` would never write.

    `zip_names` overrides the name in the ZIP by index, `inflated` what the (deflated) data really holds; of the members
    in `lies` the manifest has another hash; `gap` lies behind the first member and belongs to none.
    """
    chosen = [(_hashed(member, data), data) for member, data in members]
    chosen = [
        (replace(member, sha256="0" * 64) if index in lies else member, data)
        for index, (member, data) in enumerate(chosen)
    ]
    manifest = Manifest(
        ID, "2026-11-22T16:15:00Z", STAMP, {name: f"/{name}" for name in folders}, tuple(one for one, _ in chosen)
    )
    contents = [(zip_name(manifest.root, member), member.mode, data) for member, data in chosen]
    contents.append((manifest_name(manifest.root), stat.S_IFREG | 0o644, b"".join(dump_manifest(manifest))))
    seal = Seal(seal_id, manifest.created, manifest.files, manifest.content_bytes, "2026-11-22T16:15:01Z")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w+b") as stream:
        skeleton = Skeleton(FileBytes(stream.fileno()))
        with warnings.catch_warnings(), ZipFile(stream, "w") as writer:
            warnings.simplefilter("ignore")  # of a name that is there twice
            for index, (name, mode, data) in enumerate(contents):
                info = ZipInfo("placeholder")
                info.filename = (zip_names or {}).get(index, name)  # ZipInfo itself would cut it at a NUL
                info.external_attr = mode << 16
                real = (inflated or {}).get(index)
                if real is not None or index == len(contents) - 1:
                    info.compress_type = ZIP_DEFLATED
                writer.writestr(info, data if real is None else real)
                if real is not None:  # the directory lies about it
                    info.file_size, info.CRC = len(data), zlib.crc32(data)
                if index == 0 and gap:
                    stream.write(gap)
                    writer.start_dir = stream.tell()
                stream.flush()
                with contextlib.suppress(ArchiveError):  # the gap
                    skeleton.add(info)
            writer.comment = seal.comment()
        stream.flush()
        skeleton.finish(seal)
        write_seal(stream.fileno(), skeleton.sealed(seal))
    return path


def file_member(path: str, *, path_bytes: bytes | None = None) -> Member:
    return Member(path, MemberKind.FILE, 0, 1_600_000_000_000_000_000, stat.S_IFREG | 0o644, path_bytes=path_bytes)


def link_member(path: str) -> Member:
    return Member(path, MemberKind.LINK, 0, 1_600_000_000_000_000_000, stat.S_IFLNK | 0o777)


def _hashed(member: Member, data: bytes) -> Member:
    return replace(member, size=len(data), sha256=hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    put_away(Path(sys.argv[1]), folders_of(Path(sys.argv[1]), kept=tuple(sys.argv[2:])))
