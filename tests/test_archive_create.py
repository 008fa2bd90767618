"""Writing, proving and publishing an archive."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skicyclerun.archive.create import partial_path, write_archive
from skicyclerun.archive.manifest import Manifest, MemberKind
from skicyclerun.archive.plan import ArchivedFolder, check_space, estimate_archive_bytes, plan_archive
from skicyclerun.archive.prove import prove_archive, verify_archive
from skicyclerun.archive.publish import find_archive, open_proved, publish_archive, remove_partials
from skicyclerun.archive.restore import restore_archive
from skicyclerun.errors import ArchiveError, ArchiveNotProved, ArchiveStopped, DiskFull, StorageError
from tests.archive_trees import ID, STAMP, archive_outputs, folders_of, make_outputs, read_tree


def test_an_independent_reader_finds_every_file_with_its_bytes(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)

    assert proved.path == tmp_path / f"archive/pipeline_{STAMP}.zip"
    with zipfile.ZipFile(proved.path) as reader:
        assert reader.testzip() is None
        for path, data in files.items():
            assert reader.read(f"pipeline_{STAMP}/{path}") == data
        assert f"pipeline_{STAMP}/albums/Empty album/" in reader.namelist()
        assert reader.namelist()[-1] == f"pipeline_{STAMP}/MANIFEST.json"
        stored = reader.getinfo(f"pipeline_{STAMP}/albums/Alps/IMG_1.jpg")
        deflated = reader.getinfo(f"pipeline_{STAMP}/albums/Alps/notes.txt")
    assert stored.compress_type == zipfile.ZIP_STORED
    assert deflated.compress_type == zipfile.ZIP_DEFLATED
    assert deflated.compress_size < deflated.file_size / 10


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
def test_unzip_accepts_the_archive_and_restores_times_modes_and_links(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    os.symlink("IMG_1.jpg", tmp_path / "albums/Alps/favourite")
    os.chmod(tmp_path / "albums/Alps/IMG_1.jpg", 0o640)
    proved = archive_outputs(tmp_path)

    subprocess.run(["unzip", "-tq", proved.path], check=True, stdout=subprocess.DEVNULL)
    target = tmp_path / "unzipped"
    subprocess.run(["unzip", "-q", proved.path, "-d", target], check=True, stdout=subprocess.DEVNULL)
    root = target / f"pipeline_{STAMP}"
    (root / "MANIFEST.json").unlink()
    expected = {path: data for path, data in read_tree(tmp_path).items() if path.startswith(("al", "lo", "me"))}
    expected = {path: data for path, data in expected.items() if not path.startswith("archive/")}
    assert read_tree(root) == expected
    assert (root / "albums/Alps/favourite").is_symlink()
    status = (root / "albums/Alps/IMG_1.jpg").stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert int(status.st_mtime) == 1_600_000_000


def test_the_manifest_says_what_each_member_is(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    plan = plan_archive(folders_of(tmp_path))
    known = {"albums/Alps/IMG_1.jpg": "0" * 64}
    written = write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID, catalog=known)
    proved = prove_archive(written.partial, written)

    assert proved.manifest == written.manifest
    members = {member.path: member for member in proved.manifest.members}
    assert {path for path, member in members.items() if member.kind is MemberKind.FILE} == set(files)
    first = members["albums/Alps/IMG_1.jpg"]
    assert (first.size, first.mtime_ns) == (len(files[first.path]), 1_600_000_000_123_456_789)
    assert first.catalog_sha256 == "0" * 64
    assert proved.manifest.folders["albums"] == str(tmp_path / "albums")


def test_empty_folders_are_nothing_to_archive(tmp_path: Path) -> None:
    (tmp_path / "albums/Empty").mkdir(parents=True)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "albums/.DS_Store").write_bytes(b"finder")
    plan = plan_archive(folders_of(tmp_path))

    assert plan.is_empty
    assert estimate_archive_bytes(plan) == 0
    with pytest.raises(ArchiveError, match="nothing to archive"):
        write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID)
    assert not (tmp_path / "archive").exists()


def test_work_in_progress_is_left_out(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    (tmp_path / "albums/.skicyclerun-staging").mkdir()
    (tmp_path / "albums/.skicyclerun-staging/half.jpg").write_bytes(b"x")
    manifest = archive_outputs(tmp_path).manifest
    assert not [member.path for member in manifest.members if "skicyclerun-" in member.path]


def test_a_link_is_kept_as_a_link_and_never_walked(tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "private.txt").write_text("not yours")
    make_outputs(tmp_path)
    os.symlink(secret, tmp_path / "albums/shortcut")
    manifest = archive_outputs(tmp_path).manifest

    assert {member.kind for member in manifest.members if "shortcut" in member.path} == {MemberKind.LINK}
    assert not [member for member in manifest.members if "private" in member.path]


@pytest.mark.parametrize("special", ["pipe", "socket"])
def test_what_cannot_be_archived_is_refused_by_name(tmp_path: Path, special: str) -> None:
    make_outputs(tmp_path)
    if special == "pipe":
        os.mkfifo(tmp_path / "albums/Alps/pipe")
    else:
        here = os.getcwd()
        os.chdir(tmp_path / "albums/Alps")  # socket names are short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket")
        os.chdir(here)
    with pytest.raises(ArchiveError, match=special):
        plan_archive(folders_of(tmp_path))


def test_folders_inside_one_another_are_refused(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    inside = [*folders_of(tmp_path), ArchivedFolder("inner", tmp_path / "albums/Alps")]
    with pytest.raises(ArchiveError, match="lie in one another"):
        plan_archive(inside)
    with pytest.raises(ArchiveError, match="lie inside albums"):
        write_archive(plan_archive(folders_of(tmp_path)), tmp_path / "albums/archive", timestamp=STAMP, archive_id=ID)


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_names = st.binary(min_size=1, max_size=60).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..") and not name.startswith(b".skicyclerun-")
)
_readable = st.text(min_size=1, max_size=20).map(lambda name: name.encode("utf-8", "surrogatepass"))


@settings(max_examples=60)
@given(st.lists(st.one_of(_names, _readable).filter(lambda name: b"/" not in name and b"\0" not in name), max_size=6))
def test_names_of_all_kinds_come_back_as_they_were(names: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        lib = Path(scratch)
        album = os.fsencode(lib / "albums/Album")
        os.makedirs(album)
        (lib / "albums/one.jpg").write_bytes(b"1")
        made: dict[bytes, bytes] = {}
        for number, name in enumerate(names):
            assume(name not in (b".", b"..") and not name.startswith(b".skicyclerun-"))
            try:
                with open(album + b"/" + name, "wb") as stream:
                    made[name] = str(number).encode()
                    stream.write(made[name])
            except OSError:  # a file system that takes UTF-8 only
                assume(False)
        proved = archive_outputs(lib)
        with zipfile.ZipFile(proved.path) as reader:
            assert len(set(reader.namelist())) == len(reader.namelist())
            assert reader.testzip() is None
        restore_archive(proved.path, lib / "out")
        restored = {}
        for name in os.listdir(os.fsencode(lib / "out/albums/Album")):
            with open(os.fsencode(lib / "out/albums/Album") + b"/" + name, "rb") as stream:
                restored[name] = stream.read()
        assert restored == made


def test_names_that_look_alike_once_made_portable_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "albums").mkdir()
    for name in ("a\\b.jpg", "a_x5Cb.jpg", "a_x5Cb.jpg (2)"):
        (tmp_path / "albums" / name).write_text(name)
    proved = archive_outputs(tmp_path)
    restore_archive(proved.path, tmp_path / "out")
    assert {name: data.decode() for name, data in read_tree(tmp_path / "out/albums").items()} == {
        name: name for name in ("a\\b.jpg", "a_x5Cb.jpg", "a_x5Cb.jpg (2)")
    }


@pytest.mark.parametrize("seconds", [-1, 0, 315_532_799, 2**31 - 1, 2**31, 4_354_819_198, 2**33])
def test_times_that_zip_cannot_hold_are_kept_in_the_manifest(tmp_path: Path, seconds: int) -> None:
    make_outputs(tmp_path)
    path = tmp_path / "albums/Alps/IMG_2.jpg"
    os.utime(path, ns=(0, seconds * 1_000_000_000 + 5))
    kept = path.stat().st_mtime_ns
    proved = archive_outputs(tmp_path)
    with zipfile.ZipFile(proved.path) as reader:
        assert reader.testzip() is None
    restore_archive(proved.path, tmp_path / "out")
    assert (tmp_path / "out/albums/Alps/IMG_2.jpg").stat().st_mtime_ns == kept


# ── large archives ────────────────────────────────────────────────────────────────────────────────────────────────


def test_large_members_and_far_offsets_are_written_as_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limits are lowered; the records are those of a real large archive, and readers must follow them.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 50_000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    with zipfile.ZipFile(proved.path) as reader:
        assert reader.testzip() is None
        assert {path: reader.read(f"pipeline_{STAMP}/{path}") for path in files} == files
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", proved.path], check=True, stdout=subprocess.DEVNULL)
    restore_archive(proved.path, tmp_path / "out")
    assert read_tree(tmp_path / "out") == files


def test_more_members_than_sixteen_bits_count(tmp_path: Path) -> None:
    album = tmp_path / "albums"
    album.mkdir()
    for number in range(66_000):
        os.symlink("x", album / f"{number:05d}")
    proved = archive_outputs(tmp_path)
    with zipfile.ZipFile(proved.path) as reader:
        assert len(reader.infolist()) == 66_001
    assert verify_archive(proved.path, quick=True).ok


# ── files that change ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_changes_once_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    path = tmp_path / "albums/Alps/IMG_1.jpg"
    changed: list[int] = []

    def change(done: int, total: int) -> None:
        if not changed:
            path.write_bytes(b"new content, shorter")
            changed.append(done)

    plan = plan_archive(folders_of(tmp_path))
    written = write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID, progress=change)
    proved = prove_archive(written.partial, written)
    assert changed
    with zipfile.ZipFile(proved.path) as reader:
        assert reader.read(f"pipeline_{STAMP}/albums/Alps/IMG_1.jpg") == b"new content, shorter"


def _keep_writing(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [(_keep_writing, "kept changing"), (_replace, "kept changing"), (Path.unlink, "vanished")],
)
def test_a_file_that_does_not_hold_still_ends_the_archive(
    tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    make_outputs(tmp_path)
    path = tmp_path / "albums/Alps/IMG_1.jpg"
    plan = plan_archive(folders_of(tmp_path))
    with pytest.raises(ArchiveError, match=rf"IMG_1\.jpg {sentence}"):
        write_archive(
            plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID, progress=lambda done, total: spoil(path)
        )
    assert os.listdir(tmp_path / "archive") == []


def test_a_folder_exchanged_for_a_link_is_not_followed(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    plan = plan_archive(folders_of(tmp_path))
    os.rename(tmp_path / "albums/Alps", tmp_path / "moved")
    os.symlink(tmp_path / "moved", tmp_path / "albums/Alps")
    with pytest.raises(ArchiveError, match="Alps"):
        write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID)
    assert os.listdir(tmp_path / "archive") == []


# ── disks that fill ───────────────────────────────────────────────────────────────────────────────────────────────


def test_space_is_checked_before_the_first_byte(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    plan = plan_archive(folders_of(tmp_path))
    estimate = check_space(plan, tmp_path / "archive", tmp_path / "albums", 1000)
    assert archive_outputs(tmp_path).path.stat().st_size <= estimate
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(DiskFull, match=r"TB are missing|GB are missing|MB are missing"):
        check_space(plan, tmp_path / "archive2", tmp_path / "albums", free + 5_000_000_000)
    check_space(plan, tmp_path / "archive2", tmp_path / "albums", free + 1, freed_bytes=free + 1)
    assert not (tmp_path / "archive2").exists()


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The kernel refuses any byte of a file beyond this, after a short write: a real failure at any place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_at_any_place_leaves_no_partial_and_the_folders_untouched(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    before = read_tree(tmp_path)
    plan = plan_archive(folders_of(tmp_path))
    size = write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID).size
    assert remove_partials(tmp_path / "archive") == [partial_path(tmp_path / "archive", STAMP)]
    for allowed in {*range(0, size, 9_973), *range(size - 3_000, size, 211), size - 1}:
        with _largest_file(allowed), pytest.raises(StorageError, match="untouched"):
            write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID)
        assert os.listdir(tmp_path / "archive") == []
    shutil.rmtree(tmp_path / "archive")
    assert read_tree(tmp_path) == before


def test_a_place_where_no_folder_can_be_made_is_said(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    (tmp_path / "file").touch()
    plan = plan_archive(folders_of(tmp_path))
    with pytest.raises(StorageError, match="cannot be written"):
        write_archive(plan, tmp_path / "file/archive", timestamp=STAMP, archive_id=ID)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let the tests mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(tmp_path: Path, small_disk: Path) -> None:
    lib = tmp_path / "lib"
    make_outputs(lib)
    (lib / "albums/Alps/big.jpg").write_bytes(os.urandom(3_000_000))
    before = read_tree(lib)
    plan = plan_archive(folders_of(lib))
    with pytest.raises(DiskFull, match="MB are missing"):
        check_space(plan, small_disk, lib / "albums")
    with pytest.raises(DiskFull, match="untouched"):
        write_archive(plan, small_disk, timestamp=STAMP, archive_id=ID)
    assert os.listdir(small_disk) == []
    assert read_tree(lib) == before


def test_stopping_removes_the_unfinished_archive(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    plan = plan_archive(folders_of(tmp_path))
    with pytest.raises(ArchiveStopped):
        write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID, stop=lambda: True)
    assert os.listdir(tmp_path / "archive") == []
    written = write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID)
    with pytest.raises(ArchiveStopped):
        prove_archive(written.partial, written, stop=lambda: True)


# ── proving and publishing ────────────────────────────────────────────────────────────────────────────────────────


def test_progress_reaches_the_whole(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    plan = plan_archive(folders_of(tmp_path))
    writing: list[tuple[int, int]] = []
    proving: list[tuple[int, int]] = []
    written = write_archive(
        plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID, progress=lambda *step: writing.append(step)
    )
    prove_archive(written.partial, written, progress=lambda *step: proving.append(step))
    assert writing == sorted(writing)
    assert proving == sorted(proving)
    assert writing[-1] == proving[-1] == (plan.content_bytes, plan.content_bytes)


def test_an_archive_of_other_hashes_than_were_written_is_not_proved(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    plan = plan_archive(folders_of(tmp_path))
    written = write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID)
    manifest: Manifest = written.manifest
    members = (replace(manifest.members[0], mtime_ns=7), *manifest.members[1:])
    with pytest.raises(ArchiveNotProved, match="not the one that was written"):
        prove_archive(written.partial, replace(written, manifest=replace(manifest, members=members)))


def test_only_a_proved_archive_is_published(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    plan = plan_archive(folders_of(tmp_path))
    written = write_archive(plan, tmp_path / "archive", timestamp=STAMP, archive_id=ID)
    shutil.copy(written.partial, tmp_path / "archive/unproved")
    proved = prove_archive(written.partial, written)
    with pytest.raises(ArchiveNotProved, match="has not been proved"):
        publish_archive(replace(proved, path=tmp_path / "archive/unproved"))
    with pytest.raises(ArchiveNotProved):
        open_proved(tmp_path / "archive/unproved")
    assert find_archive(tmp_path / "archive", ID) is None


def test_proving_twice_changes_nothing(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    before = proved.path.read_bytes()
    assert prove_archive(proved.path).proved == proved.proved
    assert proved.path.read_bytes() == before


def test_archives_of_the_same_second_get_names_of_their_own(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    first, second, third = (archive_outputs(tmp_path, archive_id=f"job-{number}").path for number in (1, 2, 3))
    assert [path.name for path in (first, second, third)] == [
        f"pipeline_{STAMP}.zip",
        f"pipeline_{STAMP}-2.zip",
        f"pipeline_{STAMP}-3.zip",
    ]
    assert find_archive(tmp_path / "archive", "job-2") == second
    assert find_archive(tmp_path / "archive", "job-9") is None


def test_a_disk_without_hard_links_publishes_by_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    make_outputs(tmp_path)
    names = [archive_outputs(tmp_path, archive_id=f"job-{number}").path.name for number in (1, 2)]
    assert names == [f"pipeline_{STAMP}.zip", f"pipeline_{STAMP}-2.zip"]
    assert sorted(os.listdir(tmp_path / "archive")) == sorted(names)


def test_only_partial_archives_are_removed(tmp_path: Path) -> None:
    archives = tmp_path / "archive"
    assert remove_partials(archives) == []
    archives.mkdir()
    for name in (f"pipeline_{STAMP}.zip.partial", "mine.zip.partial", f"pipeline_{STAMP}.zip", "notes.partial"):
        (archives / name).write_bytes(b"x")
    assert remove_partials(archives) == [archives / f"pipeline_{STAMP}.zip.partial"]
    assert len(os.listdir(archives)) == 3
