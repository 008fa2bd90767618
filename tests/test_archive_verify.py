"""Damage of every kind is found."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.archive.archive_file import ArchiveFile
from skicyclerun.archive.manifest import Member, load_manifest
from skicyclerun.archive.prove import prove_archive, verify_archive
from skicyclerun.errors import ArchiveError, ArchiveNotProved, ArchiveStopped, RestoreRefused
from tests.archive_trees import STAMP, archive_outputs, file_member, forge_archive, make_outputs


@pytest.fixture(scope="module")
def whole() -> bytes:
    """The bytes of a small archive with every kind of member."""
    with tempfile.TemporaryDirectory() as scratch:
        lib = Path(scratch)
        make_outputs(lib)
        (lib / "albums/Alps/IMG_1.jpg").write_bytes(os.urandom(900))
        (lib / "albums/Zürich ☀/été.JPG").write_bytes(os.urandom(300))
        os.symlink("IMG_1.jpg", lib / "albums/Alps/link")
        return archive_outputs(lib).path.read_bytes()


def _verified(data: bytes, *, quick: bool = False) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"pipeline_{STAMP}.zip"
        path.write_bytes(data)
        return verify_archive(path, quick=quick).problems


def test_a_whole_archive_has_no_problems(whole: bytes) -> None:
    assert _verified(whole) == ()
    assert _verified(whole, quick=True) == ()


@settings(max_examples=250)
@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_flipped_byte_anywhere_is_found(whole: bytes, position: int, flip: int) -> None:
    damaged = bytearray(whole)
    damaged[position % len(whole)] ^= flip
    assert _verified(bytes(damaged)) != ()


@settings(max_examples=60)
@given(cut=st.integers(0, 10**6))
def test_a_torn_archive_is_found_by_a_quick_look(whole: bytes, cut: int) -> None:
    assert _verified(whole[: cut % len(whole)], quick=True) != ()


@pytest.mark.parametrize("extra", [b"x", b"\0" * 4096, b"PK\x05\x06" + b"\0" * 18])
def test_bytes_that_belong_to_nothing_are_found(whole: bytes, extra: bytes) -> None:
    assert _verified(whole + extra) != ()
    assert _verified(extra + whole) != ()


def test_a_changed_photo_is_named(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    path = archive_outputs(tmp_path).path
    data = bytearray(path.read_bytes())
    at = data.index(files["albums/Alps/IMG_1.jpg"]) + 250_000
    data[at] ^= 1
    path.write_bytes(data)
    found = verify_archive(path)
    assert not found.ok
    assert len(found.problems) == 1
    assert "albums/Alps/IMG_1.jpg" in found.problems[0]
    assert verify_archive(path, quick=True).ok
    with pytest.raises(ArchiveNotProved, match=r"IMG_1\.jpg"):
        prove_archive(path)


def test_a_photo_exchanged_for_another_of_right_crc_is_found(tmp_path: Path) -> None:
    # The ZIP alone is consistent; only the manifest's SHA-256 tells.
    forged = forge_archive(
        tmp_path / "a.zip", [(file_member("albums/a.jpg"), b"one"), (file_member("albums/b.jpg"), b"two")]
    )
    assert verify_archive(forged).ok
    data = forged.read_bytes()
    forged.write_bytes(data.replace(b"onePK", b"unePK"))
    problems = verify_archive(forged).problems
    assert any("a.jpg" in problem for problem in problems)


def test_a_member_of_another_hash_than_the_manifests_is_found(tmp_path: Path) -> None:
    members = [(file_member("albums/a.jpg"), b"one"), (file_member("albums/b.jpg"), b"two")]
    (problem,) = verify_archive(forge_archive(tmp_path / "a.zip", members, lies=(1,))).problems
    assert "albums/b.jpg" in problem
    assert "SHA-256" in problem


def test_bytes_between_members_and_a_foreign_seal_are_found(tmp_path: Path) -> None:
    members = [(file_member("albums/a.jpg"), b"one"), (file_member("albums/b.jpg"), b"two")]
    assert verify_archive(forge_archive(tmp_path / "a.zip", members)).ok
    assert not verify_archive(forge_archive(tmp_path / "b.zip", members, gap=b"hidden")).ok
    assert not verify_archive(forge_archive(tmp_path / "c.zip", members, seal_id="other"), quick=True).ok


def test_a_member_under_another_name_than_the_manifests_is_found(tmp_path: Path) -> None:
    members = [(file_member("albums/a.jpg"), b"one"), (file_member("albums/b.jpg"), b"two")]
    forged = forge_archive(tmp_path / "a.zip", members, zip_names={1: f"pipeline_{STAMP}/albums/c.jpg"})
    assert not verify_archive(forged, quick=True).ok


@pytest.mark.parametrize("real", [b"longer than it says " * 100, b"sh"])
def test_a_deflated_member_of_another_length_is_found(tmp_path: Path, real: bytes) -> None:
    forged = forge_archive(tmp_path / "a.zip", [(file_member("albums/a.txt"), b"short")], inflated={0: real})
    assert any("a.txt" in problem for problem in verify_archive(forged).problems)


@pytest.mark.parametrize("spoilt", [{"mtime_ns": 10**30}, {"size": -1}, {"sha256": "no hash"}, {"mode": None}])
def test_a_manifest_of_impossible_values_is_an_archive_error(spoilt: dict[str, object]) -> None:
    member = {"path": "albums/a", "kind": "file", "size": 1, "mtime_ns": 1, "mode": 33188, "sha256": "0" * 64}
    head = {"format": "skicyclerun-archive", "version": 1, "id": "x", "created": "x", "timestamp": STAMP}
    document = {**head, "folders": {"albums": "/a"}}
    assert load_manifest(json.dumps({**document, "members": [member]}).encode()).files == 1
    with pytest.raises(ArchiveError, match=r"damaged|not JSON"):
        load_manifest(json.dumps({**document, "members": [member | spoilt]}).encode())
    with pytest.raises(ArchiveError, match="version 2"):
        load_manifest(json.dumps({**document, "version": 2, "members": []}).encode())


def test_what_another_program_made_is_not_called_whole(tmp_path: Path) -> None:
    path = tmp_path / f"pipeline_{STAMP}.zip"
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("albums/a.jpg", b"x")
    assert "no" in verify_archive(path).problems[0]
    with pytest.raises(ArchiveError):
        ArchiveFile(path)
    assert not verify_archive(tmp_path / "missing.zip").ok


def test_a_disk_that_cannot_be_read_is_a_problem_of_its_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_outputs(tmp_path)
    path = archive_outputs(tmp_path).path
    real = os.pread

    def failing(descriptor: int, count: int, offset: int) -> bytes:
        if offset == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", failing)
    assert len(verify_archive(path).problems) == 1
    assert os.strerror(errno.EIO) in verify_archive(path).problems[0]


def test_verifying_can_be_stopped(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    path = archive_outputs(tmp_path).path
    with pytest.raises(ArchiveStopped):
        verify_archive(path, stop=lambda: True)


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda deeper: (
            st.lists(deeper, max_size=3)
            | st.dictionaries(
                st.sampled_from(["path", "kind", "size", "mode", "mtime_ns", "sha256", "path_bytes"]),
                deeper,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_a_manifest_of_any_shape_is_an_archive_error(value: object) -> None:
    import orjson

    head = {"format": "skicyclerun-archive", "version": 1, "id": "x", "created": "x", "timestamp": STAMP}
    for document in (value, head | {"folders": {"albums": "/a"}, "members": [value]}, head | {"members": value}):
        try:
            text = orjson.dumps(document)
        except (TypeError, orjson.JSONEncodeError):
            continue
        with pytest.raises(ArchiveError):
            load_manifest(text)


@pytest.mark.parametrize(
    "path",
    ["../evil", "albums/../../evil", "/etc/passwd", "albums//x", "albums/./x", "C:/x", "", "albums/x\0", "other/x",
     "albums\\..\\x", "albums/x/"],
)  # fmt: skip
def test_hostile_names_are_refused_as_such(tmp_path: Path, path: str) -> None:
    member: Member = file_member(path)
    forged = forge_archive(tmp_path / "a.zip", [(file_member("albums/good.jpg"), b"good"), (member, b"evil")])
    with ArchiveFile(forged) as archive, pytest.raises(RestoreRefused):
        archive.contents()
    assert not verify_archive(forged, quick=True).ok
