"""Restoring: what was archived comes back byte for byte, and nothing else is ever touched."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from skicyclerun.archive.clean import clean_folders
from skicyclerun.archive.create import write_archive
from skicyclerun.archive.plan import ArchivedFolder, plan_archive
from skicyclerun.archive.prove import prove_archive, verify_archive
from skicyclerun.archive.restore import restore_archive
from skicyclerun.errors import (
    ArchiveError,
    ArchiveStopped,
    DiskFull,
    NoAlbumMatches,
    OutsideFolder,
    RestoreRefused,
)
from tests.archive_trees import (
    STAMP,
    archive_outputs,
    file_member,
    folders_of,
    forge_archive,
    link_member,
    make_outputs,
    read_tree,
)


def test_one_album_comes_back_byte_identical(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    clean_folders(folders_of(tmp_path), proved.manifest)
    homes = {folder.name_in_zip: folder.path for folder in folders_of(tmp_path)}
    report = restore_archive(proved.path, homes, albums=["Zürich ☀"])

    wanted = {path: data for path, data in files.items() if "Zürich" in path}
    after = {path: data for path, data in read_tree(tmp_path).items() if not path.startswith("archive/")}
    assert after == wanted
    assert len(report.restored) == len(wanted)
    assert report.content_bytes == sum(map(len, wanted.values()))
    assert report.restored[0].stat().st_mtime_ns == 1_600_000_000_123_456_789


def test_an_archive_of_an_earlier_version_verifies_and_comes_back(tmp_path: Path) -> None:
    # Written before archives were `zipfile`'s business, by records of our own.
    earlier = Path(__file__).with_name("earlier_archive.zip")
    assert verify_archive(earlier).problems == ()
    restore_archive(earlier, tmp_path / "out")
    files = read_tree(tmp_path / "out")
    assert len(files) == 9
    assert files["albums/Alps/IMG_1.jpg"] == bytes(range(256)) * 4
    assert files["albums/Alps/link"] == b"IMG_1.jpg"
    assert files["albums/back\\slash\x07.jpg"] == b"odd name"
    assert (tmp_path / "out/albums/Zürich ☀/zero.jpg").stat().st_mtime_ns == 1_600_000_000_123_456_789
    damaged = bytearray(earlier.read_bytes())
    for at in range(0, len(damaged), 97):
        damaged[at] ^= 0x10
        (tmp_path / "damaged.zip").write_bytes(damaged)
        assert not verify_archive(tmp_path / "damaged.zip").ok, at
        damaged[at] ^= 0x10


def test_folders_of_any_name_go_back_to_where_they_are_configured(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    folders = [ArchivedFolder(name, lib / name) for name in ("scaled", "watermarked_final", "Größe 2")]
    for folder in folders:
        (folder.path / "Alps").mkdir(parents=True)
        (folder.path / "Alps/a.jpg").write_text(folder.name_in_zip)
    written = write_archive(plan_archive(folders), lib / "archive", timestamp=STAMP, archive_id="job-1")
    proved = prove_archive(written.partial, written)
    homes = {folder.name_in_zip: tmp_path / "new" / str(number) for number, folder in enumerate(folders)}
    restore_archive(proved.path, homes, albums=["Alps"])
    assert read_tree(tmp_path / "new") == {
        "0/Alps/a.jpg": b"scaled",
        "1/Alps/a.jpg": b"watermarked_final",
        "2/Alps/a.jpg": "Größe 2".encode(),
    }


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\x1bb", "MANIFEST.json"])
def test_a_folder_cannot_have_a_name_that_no_archive_could_hold(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match="cannot be called"):
        ArchivedFolder(name, tmp_path)


def test_an_album_is_found_under_its_decomposed_name(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    report = restore_archive(proved.path, tmp_path / "out", albums=["Zu\N{COMBINING DIAERESIS}rich ☀"])
    assert len(report.restored) == 2


def test_an_album_that_is_not_in_it_is_said_with_what_comes_close(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    with pytest.raises(NoAlbumMatches, match="Alps"):
        restore_archive(proved.path, tmp_path / "out", albums=["Alp"])
    assert not (tmp_path / "out").exists()


def test_everything_comes_back_with_empty_folders_links_and_modes(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    os.symlink("Alps/IMG_1.jpg", tmp_path / "albums/best")
    os.chmod(tmp_path / "albums/Alps/IMG_2.jpg", 0o4640)
    os.chmod(tmp_path / "albums/Empty album", 0o700)
    proved = archive_outputs(tmp_path)
    report = restore_archive(proved.path, tmp_path / "out")
    assert read_tree(tmp_path / "out") == {**files, "albums/best": b"Alps/IMG_1.jpg"}
    assert (report.refused, report.damaged, report.identical) == ([], [], [])
    mode = (tmp_path / "out/albums/Alps/IMG_2.jpg").stat().st_mode
    assert stat.S_IMODE(mode) == 0o640  # never set-uid
    assert stat.S_IMODE((tmp_path / "out/albums/Empty album").stat().st_mode) == 0o700


def test_identical_files_are_left_and_different_ones_stop_everything(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    out = tmp_path / "out"
    restore_archive(proved.path, out)
    again = restore_archive(proved.path, out)
    assert (len(again.identical), again.restored) == (len(files), [])

    (out / "albums/Alps/IMG_2.jpg").write_bytes(b"edited")
    (out / "metadata/master.json").unlink()
    with pytest.raises(RestoreRefused, match=r"IMG_2\.jpg is there already"):
        restore_archive(proved.path, out)
    assert not (out / "metadata/master.json").exists()
    assert (out / "albums/Alps/IMG_2.jpg").read_bytes() == b"edited"

    report = restore_archive(proved.path, out, overwrite=True)
    assert report.overwritten == [out / "albums/Alps/IMG_2.jpg"]
    assert len(report.restored) == 2
    assert read_tree(out) == files


def test_folders_that_are_there_keep_their_mode(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    (tmp_path / "out/albums/Alps").mkdir(parents=True)
    os.chmod(tmp_path / "out/albums/Alps", 0o711)
    restore_archive(proved.path, tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out/albums/Alps").stat().st_mode) == 0o711


def test_a_folder_is_never_replaced_by_a_file_nor_a_file_by_a_folder(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    (tmp_path / "a/albums/Alps/IMG_2.jpg").mkdir(parents=True)
    (tmp_path / "b/albums").mkdir(parents=True)
    (tmp_path / "b/albums/Empty album").touch()
    for place in ("a", "b"):
        with pytest.raises(RestoreRefused):
            restore_archive(proved.path, tmp_path / place, overwrite=True)
    assert not (tmp_path / "a/metadata").exists()


def test_a_dry_run_says_what_would_happen_and_writes_nothing(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    report = restore_archive(proved.path, tmp_path / "out", dry_run=True)
    assert len(report.restored) == len(files)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_home_asks_for_a_target(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    with pytest.raises(RestoreRefused, match="metadata"):
        restore_archive(proved.path, {"albums": tmp_path / "x", "lora_processed": tmp_path / "y"})


def test_a_damaged_member_is_not_restored_and_the_others_are(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    path = archive_outputs(tmp_path).path
    data = bytearray(path.read_bytes())
    data[data.index(files["albums/Alps/IMG_1.jpg"]) + 200_000] ^= 1
    path.write_bytes(data)
    report = restore_archive(path, tmp_path / "out")
    assert [damaged.name for damaged, _ in report.damaged] == ["IMG_1.jpg"]
    del files["albums/Alps/IMG_1.jpg"]
    assert read_tree(tmp_path / "out") == files


def test_a_file_of_another_hash_than_the_manifests_is_not_restored(tmp_path: Path) -> None:
    members = [(file_member("albums/a.jpg"), b"one"), (file_member("albums/b.jpg"), b"two")]
    report = restore_archive(forge_archive(tmp_path / "a.zip", members, lies=(0,)), tmp_path / "out")
    assert [path.name for path, _ in report.damaged] == ["a.jpg"]
    assert read_tree(tmp_path / "out") == {"albums/b.jpg": b"two"}


# ── hostile archives ──────────────────────────────────────────────────────────────────────────────────────────────


def _everything(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.mark.parametrize(
    ("path", "path_bytes"),
    [
        ("../evil", None),
        ("albums/../../evil", None),
        ("albums/../evil", None),
        ("/tmp/evil", None),
        ("C:/evil", None),
        ("albums\\..\\..\\evil", None),
        ("albums/evil\0.jpg", None),
        ("albums/./evil", None),
        ("albums//evil", None),
        ("elsewhere/evil", None),
        ("albums/fine", b"albums/../../evil"),
        ("albums/fine", b"/tmp/evil"),
        ("albums/fine", b"metadata/evil"),
    ],
)
def test_members_that_point_outside_are_refused_and_nothing_is_written(
    tmp_path: Path, path: str, path_bytes: bytes | None
) -> None:
    members = [(file_member("albums/good.jpg"), b"good"), (file_member(path, path_bytes=path_bytes), b"evil")]
    forged = forge_archive(tmp_path / "zips/a.zip", members)
    before = _everything(tmp_path)
    with pytest.raises(RestoreRefused):
        restore_archive(forged, tmp_path / "deep/out", overwrite=True)
    assert _everything(tmp_path) == before


def test_the_same_member_twice_is_refused(tmp_path: Path) -> None:
    forged = forge_archive(tmp_path / "a.zip", [(file_member("albums/a"), b"1"), (file_member("albums/a"), b"2")])
    with pytest.raises(RestoreRefused, match="twice"):
        restore_archive(forged, tmp_path / "out")


@pytest.mark.parametrize("target", [b"/etc", b"../../outside", b"../x", b"a/../../x", b"..", b"", b"x\0y", b"x" * 5000])
def test_links_that_point_outside_are_left_out_and_named(tmp_path: Path, target: bytes) -> None:
    members = [(link_member("albums/link"), target), (file_member("albums/good.jpg"), b"good")]
    forged = forge_archive(tmp_path / "a.zip", members)
    report = restore_archive(forged, tmp_path / "out")
    assert report.refused == [tmp_path / "out/albums/link"]
    assert read_tree(tmp_path / "out") == {"albums/good.jpg": b"good"}


def test_a_member_behind_a_link_of_the_archive_itself_does_not_follow_it(tmp_path: Path) -> None:
    members = [(link_member("albums/a"), b"b"), (file_member("albums/a/evil.jpg"), b"evil")]
    forged = forge_archive(tmp_path / "a.zip", members)
    (tmp_path / "out/albums/b").mkdir(parents=True)
    report = restore_archive(forged, tmp_path / "out")
    assert [path.name for path, _ in report.damaged] == ["a"]
    assert read_tree(tmp_path / "out") == {"albums/a/evil.jpg": b"evil"}
    assert os.listdir(tmp_path / "out/albums/b") == []


@pytest.mark.parametrize("link", ["albums", "albums/Alps", "albums/Empty album"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_on_the_disk_is_not_followed(tmp_path: Path, link: str, overwrite: bool) -> None:
    make_outputs(tmp_path / "lib")
    proved = archive_outputs(tmp_path / "lib")
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "out"
    (out / link).parent.mkdir(parents=True)
    os.symlink(outside, out / link)
    with pytest.raises(OutsideFolder):
        restore_archive(proved.path, out, overwrite=overwrite)
    assert os.listdir(outside) == []
    assert not (out / "metadata").exists()


def test_a_folder_that_was_configured_may_be_a_link(tmp_path: Path) -> None:
    files = make_outputs(tmp_path / "lib")
    proved = archive_outputs(tmp_path / "lib")
    (tmp_path / "big disk").mkdir()
    os.symlink(tmp_path / "big disk", tmp_path / "albums")
    restore_archive(proved.path, {name: tmp_path / name for name in proved.manifest.folders}, albums=["Alps"])
    assert (tmp_path / "big disk/Alps/IMG_1.jpg").read_bytes() == files["albums/Alps/IMG_1.jpg"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    files = make_outputs(tmp_path / "lib")
    proved = archive_outputs(tmp_path / "lib")
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"mine")
    place = tmp_path / "out/albums/Alps/IMG_1.jpg"
    place.parent.mkdir(parents=True)
    os.symlink(outside, place)
    with pytest.raises(RestoreRefused):
        restore_archive(proved.path, tmp_path / "out")
    restore_archive(proved.path, tmp_path / "out", overwrite=True)
    assert not place.is_symlink()
    assert place.read_bytes() == files["albums/Alps/IMG_1.jpg"]
    assert outside.read_bytes() == b"mine"


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    forged = forge_archive(
        tmp_path / "a.zip", [(file_member("albums/a.txt"), b"small")], inflated={0: b"\0" * 50_000_000}
    )
    assert forged.stat().st_size < 100_000
    report = restore_archive(forged, tmp_path / "out")
    assert len(report.damaged) == 1
    assert read_tree(tmp_path / "out") == {}


def test_an_archive_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"pipeline_{STAMP}.zip"
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("../evil", b"x")
    with pytest.raises(ArchiveError, match="Nothing was written"):
        restore_archive(path, tmp_path / "out")
    assert _everything(tmp_path) == [path.name]


# ── disks and interruptions ───────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_appears_meanwhile_is_left(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    late = tmp_path / "out/albums/Alps/IMG_1.jpg"

    def appear(done: int, total: int) -> None:
        if not late.exists():
            late.write_bytes(b"late")

    report = restore_archive(proved.path, tmp_path / "out", albums=["Alps"], progress=appear)
    assert late.read_bytes() == b"late"
    assert [path for path, _ in report.damaged] == [late]


def test_a_disk_without_room_is_said_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1, used=1, free=0))
    with pytest.raises(DiskFull, match="for the restored files are needed") as caught:
        restore_archive(proved.path, tmp_path / "out")
    assert "--to" in caught.value.next_step
    assert "--resume" not in caught.value.next_step
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_leaves_whole_files_and_no_temporary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    real, calls = os.fsync, [0]

    def failing(descriptor: int) -> None:
        calls[0] += 1
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and calls[0] > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DiskFull):
        restore_archive(proved.path, tmp_path / "out")
    restored = read_tree(tmp_path / "out")
    assert restored.items() <= files.items()


def test_stopping_leaves_whole_files_and_no_temporary_ones(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    answers = iter([False, True])
    with pytest.raises(ArchiveStopped):
        restore_archive(proved.path, tmp_path / "out", stop=lambda: next(answers))
    restored = read_tree(tmp_path / "out")
    assert restored
    assert restored.items() <= files.items()
