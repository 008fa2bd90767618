"""Old outputs, archives of them, and hostile ones, for the tests of the archive."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from zlib_ng import zlib_ng

from skicyclerun.archive.clean import clean_folders, put_back
from skicyclerun.archive.create import write_archive
from skicyclerun.archive.manifest import MANIFEST_NAME, Manifest, Member, MemberKind, dump_manifest, zip_name
from skicyclerun.archive.plan import ArchivedFolder, plan_archive
from skicyclerun.archive.prove import ProvedArchive, prove_archive
from skicyclerun.archive.publish import find_archive, open_proved, publish_archive, remove_partials
from skicyclerun.archive.seal import Seal, envelope
from skicyclerun.archive.zip_records import DEFLATED, STORED, central_record, end_records, local_header, make_entry

STAMP = "20261122_161500"
ID = "job-1"
NAMES = ("albums", "lora_processed", "metadata")


def folders_of(lib: Path) -> list[ArchivedFolder]:
    return [ArchivedFolder(name, lib / name) for name in NAMES]


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


def archive_outputs(lib: Path, *, stamp: str = STAMP, archive_id: str = ID) -> ProvedArchive:
    """Write, prove, publish; the folders stay."""
    written = write_archive(plan_archive(folders_of(lib)), lib / "archive", timestamp=stamp, archive_id=archive_id)
    proved = prove_archive(written.partial, written)
    return replace(proved, path=publish_archive(proved))


def put_away(lib: Path) -> Path | None:
    """Archive and clean, taking up whatever an earlier attempt left: what the archiver's state machine does."""
    archives, folders = lib / "archive", folders_of(lib)
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
    parts, entries, skeleton, offset = [], [], hashlib.sha256(), 0
    contents = [(zip_name(manifest.root, member), member.mode, member.mtime_ns, data) for member, data in chosen]
    text = b"".join(dump_manifest(manifest))
    contents.append((f"{manifest.root}/{MANIFEST_NAME}", stat.S_IFREG | 0o644, 0, text))
    for index, (name, mode, mtime_ns, data) in enumerate(contents):
        real = (inflated or {}).get(index)
        deflate = real is not None or index == len(contents) - 1
        compressor = zlib_ng.compressobj(6, DEFLATED, -15)
        stored = compressor.compress(real or data) + compressor.flush() if deflate else data
        entry = make_entry(
            (zip_names or {}).get(index, name).encode(),
            offset,
            method=DEFLATED if deflate else STORED,
            crc=zlib_ng.crc32(data),
            compressed=len(stored),
            size=len(data),
            mode=mode,
            mtime_ns=mtime_ns,
        )
        parts += [local_header(entry), stored]
        skeleton.update(envelope(entry, hashlib.sha256(stored).digest()))
        entries.append(entry)
        offset = entry.end
        if index == 0:
            parts.append(gap)
            offset += len(gap)
    directory = b"".join(central_record(entry) for entry in entries)
    skeleton.update(directory)
    seal = Seal(seal_id, manifest.created, manifest.files, manifest.content_bytes, "2026-11-22T16:15:01Z")
    end = end_records(len(entries), len(directory), offset, len(seal.comment()))
    skeleton.update(end)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts) + directory + end + seal.sealed(skeleton).comment())
    return path


def file_member(path: str, *, path_bytes: bytes | None = None) -> Member:
    return Member(path, MemberKind.FILE, 0, 1_600_000_000_000_000_000, stat.S_IFREG | 0o644, path_bytes=path_bytes)


def link_member(path: str) -> Member:
    return Member(path, MemberKind.LINK, 0, 1_600_000_000_000_000_000, stat.S_IFLNK | 0o777)


def _hashed(member: Member, data: bytes) -> Member:
    return replace(member, size=len(data), sha256=hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    put_away(Path(sys.argv[1]))
