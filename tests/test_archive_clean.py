"""Emptying folders after an archive was proved, and what a crash at any named point leaves."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from skicyclerun.actors.archive_job import archived_folders
from skicyclerun.actors.archiver import left_in_words
from skicyclerun.archive import create
from skicyclerun.archive.clean import CleanReport, clean_folders, move_aside, put_back, remove_moved
from skicyclerun.archive.create import write_archive
from skicyclerun.archive.departures import plan_departures, remove_departures
from skicyclerun.archive.manifest import MemberKind
from skicyclerun.archive.plan import ArchivedFolder, plan_archive
from skicyclerun.archive.prove import prove_archive, verify_archive
from skicyclerun.archive.publish import archive_paths
from skicyclerun.archive.restore import restore_archive
from skicyclerun.errors import ArchiveError
from skicyclerun.files.beneath import Beneath
from skicyclerun.files.fault_points import FAULT_POINTS
from skicyclerun.settings.load import load_settings
from tests.archive_trees import ID, STAMP, archive_outputs, folders_of, make_outputs, put_away, read_tree

PLACE_NAMES = "geocode_cache.json"
POINTS = (
    "archive.first_member_written",
    "archive.first_member_written:4",
    "archive.written",
    "archive.proved",
    "archive.renamed",
    "clean.first_moved",
    "clean.first_moved:2",
    "clean.moved",
    "clean.recreated",
    "clean.removed",
)


def leftovers(folders: Sequence[ArchivedFolder]) -> list[Path]:
    """Folders that were moved aside and are still there."""
    places = [place for folder in folders for place in (folder.path.parent, folder.path)]
    return [path for place in places for path in place.glob(".skicyclerun-cleaning-*")]


@pytest.fixture(params=["recent", "settled"], autouse=True)
def age(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Files changed within seconds of archiving are hashed again by cleaning; of older ones inode and times do."""
    if request.param == "settled":
        monkeypatch.setattr(create, "_RACY_NS", -(10**18))
    return str(request.param)


def test_of_files_that_are_plainly_the_same_no_byte_is_read_again(
    tmp_path: Path, age: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    opened: list[tuple[str, ...]] = []
    real = Beneath.open_file

    def counting(beneath: Beneath, parts: tuple[str, ...]) -> int:
        opened.append(parts)
        return real(beneath, parts)

    monkeypatch.setattr(Beneath, "open_file", counting)
    assert clean_folders(folders_of(tmp_path), proved.manifest).removed_files == len(files)
    assert len(opened) == (0 if age == "settled" else len(files))


def test_folders_are_emptied_and_made_anew_as_they_were(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    os.chmod(tmp_path / "albums", 0o750)
    proved = archive_outputs(tmp_path)
    report = clean_folders(folders_of(tmp_path), proved.manifest)

    assert report.removed_files == len(files)
    assert (report.kept, report.stuck) == ([], [])
    for folder in folders_of(tmp_path):
        assert os.listdir(folder.path) == []
    assert stat.S_IMODE((tmp_path / "albums").stat().st_mode) == 0o750
    assert sorted(os.listdir(tmp_path)) == ["albums", "archive", "lora_processed", "metadata"]
    assert clean_folders(folders_of(tmp_path), proved.manifest).removed_files == 0


def test_a_file_added_since_the_archive_stays_in_place(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    added = tmp_path / "albums/Alps/new.jpg"
    added.write_bytes(b"new")
    other = tmp_path / "albums/New album/new.jpg"
    other.parent.mkdir()
    other.write_bytes(b"new too")
    os.symlink("nowhere", tmp_path / "metadata/link")
    report = clean_folders(folders_of(tmp_path), proved.manifest)
    assert sorted(report.kept) == [added, other, tmp_path / "metadata/link"]
    assert added.read_bytes() == b"new"
    assert os.listdir(tmp_path / "albums/Alps") == ["new.jpg"]


def test_a_file_changed_since_the_archive_stays_even_if_size_and_time_are_the_same(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    changed = tmp_path / "albums/Alps/IMG_2.jpg"
    new = bytes(reversed(files["albums/Alps/IMG_2.jpg"]))
    changed.write_bytes(new)
    os.utime(changed, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    report = clean_folders(folders_of(tmp_path), proved.manifest)
    assert report.kept == [changed]
    assert changed.read_bytes() == new


def test_a_file_of_the_same_bytes_goes_whatever_its_time(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    os.utime(tmp_path / "albums/Alps/IMG_1.jpg")
    copy = tmp_path / "copy"
    shutil.copy(tmp_path / "albums/Alps/IMG_2.jpg", copy)
    os.replace(copy, tmp_path / "albums/Alps/IMG_2.jpg")
    assert clean_folders(folders_of(tmp_path), proved.manifest).kept == []
    assert os.listdir(tmp_path / "albums") == []


def test_a_file_exchanged_for_a_link_is_kept_and_the_link_not_followed(tmp_path: Path) -> None:
    files = make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    photo = tmp_path / "albums/Alps/IMG_1.jpg"
    elsewhere = tmp_path / "elsewhere.jpg"
    os.rename(photo, elsewhere)
    os.symlink(elsewhere, photo)
    assert clean_folders(folders_of(tmp_path), proved.manifest).kept == [photo]
    assert elsewhere.read_bytes() == files["albums/Alps/IMG_1.jpg"]


def test_a_linked_album_is_unlinked_and_what_it_points_to_stays(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.jpg").write_bytes(b"mine")
    os.symlink(elsewhere, tmp_path / "albums/linked")
    proved = archive_outputs(tmp_path)
    assert clean_folders(folders_of(tmp_path), proved.manifest).kept == []
    assert (elsewhere / "mine.jpg").read_bytes() == b"mine"
    assert os.listdir(tmp_path / "albums") == []


def test_unfinished_work_and_finders_files_do_not_stay(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    (tmp_path / "albums/.DS_Store").write_bytes(b"finder")
    (tmp_path / "albums/.skicyclerun-staging/deep").mkdir(parents=True)
    (tmp_path / "albums/.skicyclerun-staging/deep/half.jpg").write_bytes(b"half")
    assert clean_folders(folders_of(tmp_path), proved.manifest).kept == []
    assert os.listdir(tmp_path / "albums") == []


def test_a_folder_reached_through_a_link_is_emptied_where_it_is(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    make_outputs(lib)
    os.rename(lib / "albums", tmp_path / "big disk")
    os.symlink(tmp_path / "big disk", lib / "albums")
    proved = archive_outputs(lib)
    (lib / "albums/new.jpg").write_bytes(b"new")
    report = clean_folders(folders_of(lib), proved.manifest)
    assert (lib / "albums").is_symlink()
    assert os.listdir(tmp_path / "big disk") == ["new.jpg"]
    assert report.kept == [lib / "albums/new.jpg"]


@pytest.fixture
def mounted_albums(tmp_path: Path) -> Iterator[Path]:
    albums = tmp_path / "albums"
    albums.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(albums)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let the tests mount a tmpfs")
    yield tmp_path
    subprocess.run(["umount", str(albums)], check=True)


def test_a_mounted_folder_is_emptied_where_it_is(mounted_albums: Path) -> None:
    make_outputs(mounted_albums)
    proved = archive_outputs(mounted_albums)
    clean_folders(folders_of(mounted_albums), proved.manifest)
    assert os.listdir(mounted_albums / "albums") == []


def test_a_folder_that_may_not_be_written_into_does_not_stop_cleaning(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    os.chmod(tmp_path / "albums/Alps", 0o555)
    proved = archive_outputs(tmp_path)
    assert clean_folders(folders_of(tmp_path), proved.manifest).stuck == []
    assert os.listdir(tmp_path / "albums") == []


def test_what_was_moved_aside_goes_back_when_the_archive_is_gone(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    before = read_tree(tmp_path)
    folders = folders_of(tmp_path)
    move_aside(folders, STAMP)
    assert leftovers(folders)
    (tmp_path / "albums/Alps").mkdir()
    (tmp_path / "albums/Alps/IMG_1.jpg").write_bytes(b"written meanwhile")
    shutil.rmtree(tmp_path / "metadata")
    assert put_back(folders) == []
    assert leftovers(folders) == []
    after = read_tree(tmp_path)
    assert after.pop("albums/Alps/IMG_1 (kept).jpg") == before["albums/Alps/IMG_1.jpg"]
    assert after.pop("albums/Alps/IMG_1.jpg") == b"written meanwhile"
    del before["albums/Alps/IMG_1.jpg"]
    assert after == before
    assert (tmp_path / "albums/Empty album").is_dir()


def test_a_folder_goes_back_as_it_was(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    os.chmod(tmp_path / "albums/Alps", 0o711)
    before = os.stat(tmp_path / "albums/Alps")
    move_aside(folders_of(tmp_path), STAMP)
    assert put_back(folders_of(tmp_path)) == []
    after = os.stat(tmp_path / "albums/Alps")
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)


def test_a_photo_that_left_its_album_and_cannot_be_removed_is_named_and_the_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    albums = folders_of(tmp_path)[0]
    files = sorted(path.relative_to(albums.path).parts for path in albums.path.glob("Alps/*.jpg"))
    assert len(files) > 1
    real = os.unlink

    def locked(path: str | Path, *, dir_fd: int | None = None) -> None:
        if path == files[0][-1]:
            raise PermissionError(1, "locked")
        real(path, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", locked)
        report = remove_departures([(albums, files)], proved.manifest)
    assert report.stuck == [albums.path.joinpath(*files[0])]
    assert report.removed_files == len(files) - 1
    assert remove_departures([(albums, files)], proved.manifest).removed_files == 1


def test_files_that_left_several_folders_are_in_one_archive_and_go(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    (tmp_path / "lora_processed/Alps/stays.jpg").write_bytes(b"stays")
    albums, derived, gone = *folders_of(tmp_path)[:2], ArchivedFolder("scaled", tmp_path / "scaled")
    departing = [
        (albums, [("Alps", "IMG_1.jpg"), ("Zürich ☀", "été.JPG"), ("Zürich ☀", "zero.jpg"), ("Nowhere", "x.jpg")]),
        (gone, [("Alps", "IMG_1.jpg")]),
        (derived, [("Alps", "IMG_1_lora.jpg")]),
    ]
    before = read_tree(tmp_path)
    written = write_archive(plan_departures(departing), tmp_path / "archive", timestamp=STAMP, archive_id=ID)
    manifest = prove_archive(written.partial, written).manifest
    left = {"albums/Alps/IMG_1.jpg", "albums/Zürich ☀/été.JPG", "albums/Zürich ☀/zero.jpg",
            "lora_processed/Alps/IMG_1_lora.jpg"}  # fmt: skip
    assert {member.path for member in manifest.members if member.kind is MemberKind.FILE} == left

    (tmp_path / "albums/Zürich ☀/été.JPG").write_bytes(b"edited since")
    report = remove_departures(departing, manifest)
    assert report.removed_files == 3
    assert report.kept == [tmp_path / "albums/Zürich ☀/été.JPG"]
    after = {path: data for path, data in read_tree(tmp_path).items() if not path.startswith("archive/")}
    assert after == {path: data for path, data in before.items() if path not in left} | {
        "albums/Zürich ☀/été.JPG": b"edited since"
    }
    assert remove_departures(departing, manifest).removed_files == 0


def test_an_album_folder_that_a_departure_leaves_empty_goes(tmp_path: Path) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    remove_departures([(folders_of(tmp_path)[1], [("Alps", "IMG_1_lora.jpg")])], proved.manifest)
    assert os.listdir(tmp_path / "lora_processed") == []


# ── files that stay ───────────────────────────────────────────────────────────────────────────────────────────────


def _with_place_names(lib: Path) -> tuple[dict[str, bytes], list[ArchivedFolder]]:
    files = make_outputs(lib)
    (lib / "metadata" / PLACE_NAMES).write_bytes(b"places")
    return {**files, f"metadata/{PLACE_NAMES}": b"places"}, folders_of(lib, kept=(PLACE_NAMES,))


def test_a_kept_file_is_archived_and_stays(tmp_path: Path) -> None:
    files, folders = _with_place_names(tmp_path)
    inode = (tmp_path / "metadata" / PLACE_NAMES).stat().st_ino
    proved = archive_outputs(tmp_path, folders=folders)
    report = clean_folders(folders, proved.manifest)
    assert (report.removed_files, report.kept, report.stuck) == (len(files) - 1, [], [])
    assert os.listdir(tmp_path / "metadata") == [PLACE_NAMES]
    assert (tmp_path / "metadata" / PLACE_NAMES).stat().st_ino == inode
    assert leftovers(folders) == []
    restore_archive(proved.path, tmp_path / "out")
    assert read_tree(tmp_path / "out") == files
    # It alone is no reason for another archive, nor to touch the folder.
    assert plan_archive(folders).is_empty
    assert move_aside(folders, STAMP) == []


def test_a_kept_file_never_replaces_a_newer_one(tmp_path: Path) -> None:
    _, folders = _with_place_names(tmp_path)
    proved = archive_outputs(tmp_path, folders=folders)
    os.rename(tmp_path / "metadata", tmp_path / f".skicyclerun-cleaning-{STAMP}-metadata")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / PLACE_NAMES).write_bytes(b"newer")
    assert clean_folders(folders, proved.manifest).kept == []
    assert read_tree(tmp_path / "metadata") == {PLACE_NAMES: b"newer"}
    assert leftovers(folders) == []


def test_a_kept_file_under_both_names_after_a_cut_ends_in_its_place_alone(tmp_path: Path) -> None:
    _, folders = _with_place_names(tmp_path)
    proved = archive_outputs(tmp_path, folders=folders)
    aside = tmp_path / f".skicyclerun-cleaning-{STAMP}-metadata"
    os.rename(tmp_path / "metadata", aside)
    (tmp_path / "metadata").mkdir()
    os.link(aside / PLACE_NAMES, tmp_path / "metadata" / PLACE_NAMES)
    assert clean_folders(folders, proved.manifest).kept == []
    assert read_tree(tmp_path / "metadata") == {PLACE_NAMES: b"places"}
    assert leftovers(folders) == []


def test_a_kept_file_stays_in_a_folder_reached_through_a_link(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    _, folders = _with_place_names(lib)
    os.rename(lib / "metadata", tmp_path / "big disk")
    os.symlink(tmp_path / "big disk", lib / "metadata")
    proved = archive_outputs(lib, folders=folders)
    clean_folders(folders, proved.manifest)
    assert read_tree(tmp_path / "big disk") == {PLACE_NAMES: b"places"}


def test_everything_goes_back_around_a_kept_file_when_the_archive_is_gone(tmp_path: Path) -> None:
    files, folders = _with_place_names(tmp_path)
    move_aside(folders, STAMP)
    assert read_tree(tmp_path / "metadata") == {PLACE_NAMES: b"places"}
    assert put_back(folders) == []
    assert read_tree(tmp_path) == files


def test_folders_whose_names_end_alike_are_told_apart(tmp_path: Path) -> None:
    folders = [ArchivedFolder(name, tmp_path / name) for name in ("final", "a-final")]
    for folder in folders:
        folder.path.mkdir()
        (folder.path / "x.jpg").write_text(folder.name_in_zip)
    move_aside(folders, STAMP)
    assert put_back(folders) == []
    assert {path: data.decode() for path, data in read_tree(tmp_path).items()} == {
        "final/x.jpg": "final",
        "a-final/x.jpg": "a-final",
    }


def test_the_place_names_are_kept_where_they_lie_in_the_metadata_folder(tmp_path: Path) -> None:
    def kept(**paths: str) -> dict[str, tuple[str, ...]]:
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"paths": paths}))
        settings = load_settings(config, lib_root=tmp_path)
        return {folder.name_in_zip: folder.kept for folder in archived_folders(settings, ("cleanup", "export"))}

    assert kept() == {"albums": (), "lora_processed": (), "metadata": (PLACE_NAMES,)}
    assert kept(geocode_cache="{lib_root}/elsewhere/places.json")["metadata"] == ()
    assert kept(geocode_cache="{metadata_dir}/deeper/places.json")["metadata"] == ()


def test_the_person_is_told_what_was_not_removed() -> None:
    assert left_in_words(CleanReport()) == []
    kept, stuck = left_in_words(
        CleanReport(kept=[Path("/a/1.jpg")], stuck=[Path(f"/aside/{number}.jpg") for number in range(1, 6)])
    )
    assert kept == "1 file changed after being archived and was left where it is: 1.jpg."
    assert stuck.startswith("5 files could neither be removed nor moved back: 1.jpg, 2.jpg, 3.jpg and 2 more")
    assert stuck.endswith("Look into /aside.")


def test_what_cannot_go_anywhere_is_named_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_outputs(tmp_path)
    proved = archive_outputs(tmp_path)
    moved = move_aside(folders_of(tmp_path), STAMP)
    real = os.unlink

    def locked(path: str | Path, *, dir_fd: int | None = None) -> None:
        if path == "IMG_1.jpg":
            raise PermissionError(1, "locked")
        real(path, dir_fd=dir_fd)

    def unmovable(*_: object, **__: object) -> None:
        raise PermissionError(1, "locked")

    monkeypatch.setattr(os, "unlink", locked)
    monkeypatch.setattr(os, "rename", unmovable)
    report = remove_moved(moved, proved.manifest)
    assert [path.name for path in report.stuck] == ["IMG_1.jpg"]
    assert report.stuck[0].exists()
    monkeypatch.undo()
    assert clean_folders(folders_of(tmp_path), proved.manifest).stuck == []
    assert leftovers(folders_of(tmp_path)) == []


def test_a_folder_that_cannot_be_moved_is_an_error_and_keeps_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_outputs(tmp_path)
    before = read_tree(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(ArchiveError, match="nothing was deleted"):
        move_aside(folders_of(tmp_path), STAMP)
    assert read_tree(tmp_path) == before


def test_no_component_below_a_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").touch()
    os.symlink("real", tmp_path / "link")
    with Beneath(tmp_path) as beneath:
        assert beneath.stat(("real", "file")).st_size == 0
        with pytest.raises(OSError, match="link"):
            beneath.stat(("link", "file"))


# ── crashes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _put_away(lib: Path, variable: str, point: str, *kept: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, variable: point, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.archive_trees", str(lib), *kept]
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)


def _outputs(lib: Path) -> dict[str, bytes]:
    """What is in the folders, those moved aside counting as the folders they will be put back to."""
    found: dict[str, bytes] = {}
    for folder in folders_of(lib):
        for place in (folder.path, *leftovers([folder])):
            found |= {f"{folder.name_in_zip}/{path}": data for path, data in read_tree(place).items()}
    return found


def _archived(lib: Path, scratch: Path) -> dict[str, bytes]:
    """What is in archives that bear a proved archive's name; each of them must be whole."""
    found: dict[str, bytes] = {}
    for path in archive_paths(lib / "archive"):
        examined = verify_archive(path)
        assert examined.problems == ()
        assert examined.seal is not None
        assert examined.seal.proved is not None
        shutil.rmtree(scratch, ignore_errors=True)
        restore_archive(path, scratch)
        found |= read_tree(scratch)
    return found


def _nothing_is_lost(lib: Path, files: dict[str, bytes], scratch: Path) -> None:
    outputs, archived = _outputs(lib), _archived(lib, scratch)
    for path, data in files.items():
        assert outputs.get(path) == data or archived.get(path) == data, path


def _everything_is_put_away(lib: Path, files: dict[str, bytes], scratch: Path) -> None:
    assert put_away(lib) is not None
    assert os.listdir(lib / "archive") == [f"pipeline_{STAMP}.zip"]
    assert _archived(lib, scratch) == files
    assert sorted(os.listdir(lib)) == ["albums", "archive", "lora_processed", "metadata"]
    for folder in folders_of(lib):
        assert os.listdir(folder.path) == []


def test_every_fault_point_of_the_archive_is_visited() -> None:
    mine = {point for point in FAULT_POINTS if point.startswith(("archive.", "clean."))}
    # Those of the journal belong to the archiver's own tests.
    journal = {point for point in mine if point.endswith(("committed", "job_created"))}
    assert mine - journal == {point.partition(":")[0] for point in POINTS}


@pytest.mark.crash
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_nothing_is_lost_and_a_restart_finishes(tmp_path: Path, point: str) -> None:
    lib, scratch = tmp_path / "lib", tmp_path / "scratch"
    files = make_outputs(lib)
    assert _put_away(lib, "SKICYCLERUN_FAULT", point).returncode == -9
    _nothing_is_lost(lib, files, scratch)
    _everything_is_put_away(lib, files, scratch)


@pytest.mark.crash
@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("clean.")])
def test_killed_at_any_point_of_cleaning_a_kept_file_ends_in_its_place(tmp_path: Path, point: str) -> None:
    files, folders = _with_place_names(tmp_path)
    assert _put_away(tmp_path, "SKICYCLERUN_FAULT", point, PLACE_NAMES).returncode == -9
    assert put_away(tmp_path, folders) is not None
    assert read_tree(tmp_path / "metadata") == {PLACE_NAMES: b"places"}
    assert leftovers(folders) == []
    assert _archived(tmp_path, tmp_path / "scratch") == files


@pytest.mark.crash
@pytest.mark.parametrize("point", POINTS)
def test_a_disk_that_fills_at_any_point_loses_nothing(tmp_path: Path, point: str) -> None:
    lib, scratch = tmp_path / "lib", tmp_path / "scratch"
    files = make_outputs(lib)
    failed = _put_away(lib, "SKICYCLERUN_FAULT_ENOSPC", point)
    assert failed.returncode == 1
    if point in ("archive.first_member_written", "archive.written"):
        assert "DiskFull" in failed.stderr
        assert os.listdir(lib / "archive") == []
        assert _outputs(lib) == files
    _nothing_is_lost(lib, files, scratch)
    _everything_is_put_away(lib, files, scratch)


@pytest.mark.crash
@pytest.mark.parametrize("point", ["clean.first_moved", "clean.moved", "clean.recreated"])
def test_killed_while_cleaning_and_the_archive_lost_everything_comes_back(tmp_path: Path, point: str) -> None:
    files = make_outputs(tmp_path)
    assert _put_away(tmp_path, "SKICYCLERUN_FAULT", point).returncode == -9
    shutil.rmtree(tmp_path / "archive")
    assert put_back(folders_of(tmp_path)) == []
    assert read_tree(tmp_path) == files


def test_both_names_of_an_archive_cut_off_between_link_and_unlink(tmp_path: Path) -> None:
    files = make_outputs(tmp_path / "lib")
    path = archive_outputs(tmp_path / "lib").path
    os.link(path, path.with_name(path.name + ".partial"))
    _everything_is_put_away(tmp_path / "lib", files, tmp_path / "scratch")


def test_nothing_is_done_about_folders_that_are_not_there(tmp_path: Path) -> None:
    folders = [ArchivedFolder("albums", tmp_path / "nowhere/albums")]
    assert move_aside(folders, STAMP) == []
    assert put_back(folders) == []
    assert put_away(tmp_path) is None
    assert os.listdir(tmp_path) == []
