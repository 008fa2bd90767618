"""verify: what it finds, what it leaves alone, and what --repair puts right, on real files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skicyclerun import PhotoExporter
from skicyclerun.actors.messages import Intent
from skicyclerun.commands.verify import depth_of
from skicyclerun.errors import LibraryError, LockHeld, NoState, StateDamaged, UsageError
from skicyclerun.models import Photo
from skicyclerun.progress.plain_text import PlainText
from skicyclerun.run.lock import RunLock
from skicyclerun.run.plan import RunRequest
from skicyclerun.run.session import RunSession
from skicyclerun.sources.folder_tree import FolderTree
from skicyclerun.verification.report import Depth, Finding, VerificationReport, as_text
from skicyclerun.verification.session import verify_and_repair, verify_only
from tests.exported_sample import SAMPLE_FILES, Exported, all_files, exported_once, flip_a_byte
from tests.shared_libraries import (
    TEST_LIBRARY,
    copy_library,
    edit_database,
    folder_for_everyone,
    without_root_powers,
)


@pytest.fixture(scope="module")
def library(sample_library: Path) -> Path:
    return sample_library


@pytest.fixture(scope="module")
def put_back(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Callable[[], Exported]:
    return exported_once(tmp_path_factory.mktemp("exported"), library)


@pytest.fixture
def exported(put_back: Callable[[], Exported]) -> Exported:
    return put_back()


def found_in(report: VerificationReport) -> set[tuple[str, str, str]]:
    return {(problem.finding.value, problem.folder, problem.name) for problem in report.problems}


# ── nothing is wrong ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fresh_export_is_sound_at_every_depth(exported: Exported) -> None:
    assert sorted(exported.files()) == sorted(f"{folder}/{name}" for folder, name in all_files())
    before = exported.files()
    for report in (
        exported.exporter.verify_exports(),
        exported.exporter.verify_exports(full=True),
        exported.exporter.verify_exports(sample=0.5),
    ):
        assert report.sound
        assert report.files == 13
        assert [(album.expected, album.exported, album.files) for album in report.albums] == [
            (len(names), len(names), len(names)) for names in SAMPLE_FILES.values()
        ]
    assert exported.files() == before
    assert exported.command("verify") == 0


def test_quick_reads_no_photo_and_full_reads_every_byte(exported: Exported) -> None:
    assert exported.exporter.verify_exports().bytes_read == 0
    full = exported.exporter.verify_exports(full=True)
    assert full.in_full == 13
    assert full.bytes_read == sum(path.stat().st_size for path in exported.albums.rglob("*.jpg"))


def test_a_real_library_is_sound_but_for_what_it_lacks(tmp_path: Path) -> None:
    exported = Exported(tmp_path / "out", TEST_LIBRARY).export()
    report = exported.exporter.verify_exports(full=True)
    assert report.counts == {Finding.NOT_EXPORTED: 2}
    raw = next(album for album in report.albums if album.folder == "Raw")
    assert (raw.status, raw.expected, raw.exported, raw.files, raw.in_full) == ("failed", 4, 2, 2, 2)
    assert {problem.name for problem in raw.problems} == {"DSC03584.dng", "IMG_2000.JPG"}
    assert exported.command("verify") == 3


def test_without_any_run_nothing_is_made(tmp_path: Path, library: Path) -> None:
    exported = Exported(tmp_path / "out", library)
    assert exported.command("verify") == 10
    assert exported.command("verify", "--repair") == 10
    with pytest.raises(NoState):
        exported.exporter.verify_exports()
    assert not exported.lib_root.exists()


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def change_and_touch(path: Path) -> None:
    flip_a_byte(path)
    os.utime(path)


def replace_by_link(path: Path) -> None:
    elsewhere = path.parents[3] / f"elsewhere-{path.name}"
    shutil.copy2(path, elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "precious.txt").write_text("mine")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def touch(path: Path) -> None:
    os.utime(path)


Damage = Callable[[Path], None]
DAMAGES: dict[Damage, Finding] = {
    Path.unlink: Finding.MISSING,
    truncate: Finding.SIZE_DIFFERS,
    append: Finding.SIZE_DIFFERS,
    change_and_touch: Finding.CONTENT_DIFFERS,
    replace_by_link: Finding.NOT_A_FILE,
    replace_by_folder: Finding.NOT_A_FILE,
    replace_by_pipe: Finding.NOT_A_FILE,
    touch: Finding.TIME_DIFFERS,
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_found_and_repaired_under_its_name(exported: Exported, damage: Damage) -> None:
    before = exported.files()
    # The second of two photos of one name in its album: its name was decided by the first.
    path = exported.albums / "Alps (2)" / "IMG_0001 (2).jpg"
    time = path.stat().st_mtime_ns
    damage(path)
    report = exported.exporter.verify_exports()
    assert found_in(report) == {(DAMAGES[damage].value, "Alps (2)", "IMG_0001 (2).jpg")}
    assert exported.command("verify") == 3

    after = exported.exporter.verify_exports(repair=True)
    assert after.sound
    assert exported.files() == before
    assert path.stat().st_mtime_ns == time
    assert exported.exporter.verify_exports(full=True).sound
    # All of its photos still belong to the album, and the album to the run.
    assert [(album.expected, album.exported, album.files) for album in after.albums] == [
        (len(names), len(names), len(names)) for names in SAMPLE_FILES.values()
    ]


def test_a_changed_byte_with_its_time_put_back_is_found_in_full_only(exported: Exported) -> None:
    path = exported.albums / "Coast_Harbour" / "IMG_0102.jpg"
    flip_a_byte(path)
    assert exported.exporter.verify_exports().sound
    report = exported.exporter.verify_exports(full=True)
    assert found_in(report) == {("content_differs", "Coast_Harbour", "IMG_0102.jpg")}
    assert exported.exporter.verify_exports(full=True, repair=True).sound
    assert exported.exporter.verify_exports(full=True).sound


def test_what_a_repair_replaces_is_kept(exported: Exported) -> None:
    edited = exported.albums / "Alps" / "IMG_0002.jpg"
    edited.write_bytes(b"somebody's own work")
    folder = exported.albums / "Alps" / "IMG_0003.jpg"
    replace_by_folder(folder)
    link = exported.albums / "Alps" / "IMG_0004.jpg"
    replace_by_link(link)
    target = os.readlink(link)
    linked_to = Path(target).read_bytes()

    report = exported.exporter.verify_exports(repair=True)
    assert report.sound
    assert report.repair is not None
    assert report.repair.repaired == report.repair.fetched_again == 3
    kept = report.repair.kept_in
    assert kept is not None
    assert f"in the place of the replaced files is kept in {kept}." in as_text(report)
    assert kept.parent == exported.archive
    assert (kept / "Alps" / "IMG_0002.jpg").read_bytes() == b"somebody's own work"
    assert (kept / "Alps" / "IMG_0003.jpg" / "precious.txt").read_text() == "mine"
    assert os.readlink(kept / "Alps" / "IMG_0004.jpg") == target
    assert Path(target).read_bytes() == linked_to


def test_a_whole_album_that_is_gone_comes_back_as_it_was(exported: Exported) -> None:
    before = exported.files()
    shutil.rmtree(exported.albums / "Alps (2)")
    report = exported.exporter.verify_exports()
    assert found_in(report) == {("missing", "Alps (2)", name) for name in SAMPLE_FILES["Alps (2)"]}
    assert exported.exporter.verify_exports(repair=True).sound
    assert exported.files() == before


def test_a_link_in_the_place_of_an_album_folder_is_not_followed(exported: Exported, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (exported.albums / "Alps").rename(outside)
    (exported.albums / "Alps").symlink_to(outside)
    (outside / "IMG_0001.jpg").unlink()
    there = {path.name: path.read_bytes() for path in outside.iterdir()}
    report = exported.exporter.verify_exports(full=True)
    assert found_in(report) == {("not_a_file", "Alps", name) for name in SAMPLE_FILES["Alps"]}
    after = exported.exporter.verify_exports(repair=True)
    assert {problem.finding for problem in after.problems} >= {Finding.NOT_A_FILE}
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == there


def test_files_that_may_not_be_read_are_told_of(library: Path) -> None:
    with folder_for_everyone() as folder:
        exported = Exported(folder / "out", library).export()
        assert exported.exporter.verify_exports(full=True).sound
        (exported.albums / "Alps" / "IMG_0001.jpg").chmod(0)
        with without_root_powers():
            report = exported.exporter.verify_exports(full=True)
        assert found_in(report) == {("unreadable", "Alps", "IMG_0001.jpg")}


def claim(exported: Exported, folder: str, name: str, data: bytes) -> None:
    """Write a file and have database and catalog speak for it, as if it had been exported so."""
    path = exported.albums / folder / name
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    changed = "UPDATE photos SET sha256 = ?, size = ?, mtime_ns = ? WHERE path_key = lower(?) AND present = 1"
    exported.sql(changed, digest, len(data), path.stat().st_mtime_ns, f"{folder}/{name}")
    entries = exported.entries()
    entries[str(path)] |= {"sha256": digest, "size": len(data)}
    exported.write_entries(entries)


def test_position_and_date_that_the_file_lacks_are_found(exported: Exported) -> None:
    path = exported.albums / "Alps" / "IMG_0001.jpg"
    bare = io.BytesIO()
    with Image.open(path) as image:
        image.save(bare, "JPEG")
    claim(exported, "Alps", "IMG_0001.jpg", bare.getvalue())
    assert exported.exporter.verify_exports().sound
    report = exported.exporter.verify_exports(full=True)
    assert found_in(report) == {
        ("position_lost", "Alps", "IMG_0001.jpg"),
        ("date_lost", "Alps", "IMG_0001.jpg"),
    }
    assert exported.exporter.verify_exports(full=True, repair=True).sound


def test_a_picture_that_does_not_decode_to_its_end_is_found(exported: Exported) -> None:
    data = (exported.albums / "Alps" / "IMG_0002.jpg").read_bytes()
    claim(exported, "Alps", "IMG_0002.jpg", data[: len(data) * 2 // 3])
    assert exported.exporter.verify_exports().sound
    report = exported.exporter.verify_exports(full=True)
    assert found_in(report) == {("damaged", "Alps", "IMG_0002.jpg")}
    assert exported.exporter.verify_exports(full=True, repair=True).sound


def test_a_file_that_cannot_be_fetched_again_stays_and_is_still_told_of(tmp_path: Path, library: Path) -> None:
    own = tmp_path / "library"
    shutil.copytree(library, own)
    exported = Exported(tmp_path / "out", own).export()
    path = exported.albums / "Alps" / "IMG_0002.jpg"
    flip_a_byte(path)
    damaged = path.read_bytes()
    (own / "2024" / "Alps" / "IMG_0002.JPG").unlink()
    report = exported.exporter.verify_exports(full=True, repair=True)
    assert ("content_differs", "Alps", "IMG_0002.jpg") in found_in(report)
    assert report.repair is not None
    assert (report.repair.fetched_again, report.repair.repaired) == (1, 0)
    assert path.read_bytes() == damaged
    text = as_text(report)
    assert "0 of 1 photo exported again" in text
    assert "in the place of the replaced files" not in text
    assert f"No file was replaced; what was kept aside beforehand is in {report.repair.kept_in}." in text


def test_a_repair_that_gets_nothing_back_and_kept_nothing_speaks_of_nothing_kept(tmp_path: Path, library: Path) -> None:
    own = tmp_path / "library"
    shutil.copytree(library, own)
    exported = Exported(tmp_path / "out", own).export()
    (exported.albums / "Alps" / "IMG_0002.jpg").unlink()
    (own / "2024" / "Alps" / "IMG_0002.JPG").unlink()
    report = exported.exporter.verify_exports(repair=True)
    assert report.repair is not None
    assert (report.repair.fetched_again, report.repair.repaired, report.repair.kept_in) == (1, 0, None)
    assert " kept " not in as_text(report)


def test_without_its_library_a_repair_touches_nothing_and_says_so(tmp_path: Path, library: Path) -> None:
    own = tmp_path / "library"
    shutil.copytree(library, own)
    exported = Exported(tmp_path / "out", own).export()
    truncate(exported.albums / "Alps" / "IMG_0001.jpg")
    before = exported.files()
    shutil.rmtree(own)
    report = exported.exporter.verify_exports(repair=True)
    assert found_in(report) == {("size_differs", "Alps", "IMG_0001.jpg")}
    assert report.repair is not None
    assert report.repair.runs == ()
    assert any(str(own) in note for note in report.repair.notes)
    assert exported.files() == before
    assert exported.command("verify", "--repair") == 3


def test_a_repair_takes_the_photo_as_the_library_has_it_now(tmp_path: Path) -> None:
    own = copy_library(TEST_LIBRARY, tmp_path)
    exported = Exported(tmp_path / "out", own).export()
    edit_database(own, "UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = 'Changed since'")
    path = exported.albums / "Pumpkin Farm" / "Pumkins2.jpg"
    path.unlink()
    report = exported.exporter.verify_exports(full=True, repair=True)
    assert report.counts == {Finding.NOT_EXPORTED: 2}
    assert exported.entries()[str(path)]["title"] == "Changed since"


# ── strangers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_strangers_are_named_and_left_alone(exported: Exported) -> None:
    strangers = ["loose.txt", "Alps/holiday.jpg", "Alps/img_0001.JPG", "Other/deep/er/a.jpg", "Alps/.hidden"]
    for stranger in strangers:
        path = exported.albums / stranger
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not ours")
    (exported.albums / "Alps" / "link").symlink_to("/etc/passwd")
    (exported.albums / "linked").symlink_to("/etc")
    before = exported.files()
    expected = {*strangers, "Alps/link", "linked"}
    for repair in (False, True, False):
        report = exported.exporter.verify_exports(repair=repair)
        assert {os.path.join(problem.folder, problem.name) for problem in report.other} == expected
        assert all(album.sound for album in report.albums)
        assert exported.files() == before
    assert exported.command("verify") == 3


def test_what_systems_leave_behind_and_our_own_work_is_no_stranger(exported: Exported) -> None:
    for name in (".DS_Store", "Alps/.DS_Store", "Alps/._IMG_0001.jpg", "Alps/Thumbs.db", "@eaDir/x"):
        path = exported.albums / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    staging = exported.albums / ".skicyclerun-staging"
    staging.mkdir()
    (staging / "1-1.part").write_text("")
    assert exported.exporter.verify_exports().sound


# ── the catalog ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_wrong_in_the_catalog_is_found_and_put_right(exported: Exported) -> None:
    entries = exported.entries()
    paths = sorted(entries)
    ghost = str(exported.albums / "Alps" / "ghost.jpg")
    entries["/elsewhere/scaled.jpg"] = {"type": "scaled", "by": "another program"}
    original = dict(entries)
    entries[paths[0]] = entries[paths[0]] | {"sha256": "0" * 64, "caption": "kept"}
    entries[paths[1]] = entries[paths[1]] | {"size": 1}
    entries[paths[2]] = "no object"
    del entries[paths[3]]
    entries[ghost] = entries[paths[4]]
    # Keys that another program stripped come back by themselves; they contradict nothing.
    entries[paths[5]] = {key: value for key, value in entries[paths[5]].items() if key not in ("sha256", "size")}
    exported.write_entries(entries)
    report = exported.exporter.verify_exports()
    assert {(problem.finding.value, Path(problem.name).name) for problem in report.problems} == {
        ("entry_differs", Path(paths[0]).name),
        ("entry_differs", Path(paths[1]).name),
        ("entry_differs", Path(paths[2]).name),
        ("no_entry", Path(paths[3]).name),
        ("entry_without_file", "ghost.jpg"),
        ("points_nowhere", "scaled.jpg"),
    }
    files = exported.files()
    after = exported.exporter.verify_exports(repair=True)
    # What is another program's is named, and left to it.
    assert [problem.finding for problem in after.problems] == [Finding.POINTS_NOWHERE]
    assert after.repair is not None
    assert after.repair.fetched_again == 0
    assert exported.files() == files
    repaired = exported.entries()
    assert repaired[paths[0]].pop("caption") == "kept"
    assert repaired == original


@pytest.mark.parametrize("text", ["{", "", "[]", '{"a": 1', "\x00"])
def test_a_damaged_catalog_is_found_set_aside_and_made_anew(exported: Exported, text: str) -> None:
    original = exported.entries()
    exported.catalog.write_text(text)
    assert [problem.finding for problem in exported.exporter.verify_exports().problems] == [Finding.CATALOG_DAMAGED]
    assert exported.catalog.read_text() == text
    assert exported.exporter.verify_exports(repair=True).sound
    assert exported.entries() == original
    assert [path.read_text() for path in exported.catalog.parent.glob("master.json.corrupt-*")] == [text]


def test_an_absent_catalog_is_found_and_made_anew(exported: Exported) -> None:
    original = exported.entries()
    exported.catalog.unlink()
    assert [problem.finding for problem in exported.exporter.verify_exports().problems] == [Finding.CATALOG_ABSENT]
    assert exported.exporter.verify_exports(repair=True).sound
    assert exported.entries() == original


def test_entries_of_a_folder_that_is_not_there_are_never_removed(exported: Exported) -> None:
    entries = exported.entries()
    entries["/Volumes/Not Mounted/albums/Alps/x.jpg"] = next(iter(entries.values()))
    exported.write_entries(entries)
    report = exported.exporter.verify_exports(repair=True)
    assert [problem.finding for problem in report.problems] == [Finding.ENTRY_WITHOUT_FILE]
    assert "/Volumes/Not Mounted/albums/Alps/x.jpg" in exported.entries()


def test_where_the_export_folder_is_not_there_no_entry_is_dropped(exported: Exported) -> None:
    before = exported.files()
    entries = exported.entries()
    ghost = str(exported.albums / "Alps" / "ghost.jpg")
    entries[ghost] = next(iter(entries.values())) | {"caption": "somebody's work"}
    exported.write_entries(entries)
    exported.albums.rename(exported.lib_root / "moved away")
    report = exported.exporter.verify_exports(repair=True)
    assert exported.files() == before
    assert found_in(report) == {("entry_without_file", "Alps", ghost)}
    assert exported.entries()[ghost]["caption"] == "somebody's work"


# ── samples ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sample_reads_so_many_files_and_the_same_for_the_same_seed(exported: Exported) -> None:
    def read(**sample: float) -> list[int]:
        report = exported.exporter.verify_exports(sample=sample.get("sample"), seed=int(sample.get("seed", 0)))
        assert report.in_full == sum(album.in_full for album in report.albums)
        return [album.in_full for album in report.albums]

    assert sum(read(sample=0.05)) == 1  # Rounded up: a sample of something is never of nothing.
    assert sum(read(sample=0.5)) == 7
    assert sum(read(sample=4)) == 4
    assert sum(read(sample=1000)) == 13
    assert read(sample=4, seed=7) == read(sample=4, seed=7)
    assert len({tuple(read(sample=4, seed=seed)) for seed in range(8)}) > 1


def test_every_damaged_file_is_found_by_some_sample(exported: Exported) -> None:
    flip_a_byte(exported.albums / "Alps" / "IMG_0004.jpg")
    found = [not exported.exporter.verify_exports(sample=4, seed=seed).sound for seed in range(20)]
    assert any(found)
    assert not all(found)


@pytest.mark.parametrize(
    ("sample", "share", "count"), [("5%", 0.05, None), ("0.5 %", 0.005, None), ("100%", 1.0, None), ("200", None, 200)]
)
def test_a_sample_is_a_share_or_a_number(sample: str, share: float | None, count: int | None) -> None:
    depth = depth_of(full=False, sample=sample, seed=3)
    assert (depth.kind, depth.share, depth.count, depth.seed) == ("sample", share, count, 3)


@pytest.mark.parametrize("sample", ["0%", "101%", "-1", "0", "1.5", "a", "", "5%%", "nan", "1e3"])
def test_a_sample_that_is_neither_is_refused(sample: str) -> None:
    with pytest.raises(UsageError, match="sample"):
        depth_of(full=False, sample=sample, seed=None)


def test_depths_that_contradict_are_refused(exported: Exported) -> None:
    assert exported.command("verify", "--full", "--sample", "5%") == 2
    assert exported.command("verify", "--seed", "1") == 2


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_was_stopped_is_no_damage_and_is_not_repaired(tmp_path: Path, library: Path) -> None:
    exported = Exported(tmp_path / "out", library)
    arguments = ("run", "--yes", "--library", str(library))
    assert exported.process(*arguments, SKICYCLERUN_FAULT="album.finished:2").returncode == -9
    report = exported.exporter.verify_exports(full=True)
    assert report.unfinished
    # The catalog is written now and then; a run that was killed may not have come to it. The third album may be begun.
    found = {problem.finding for problem in report.problems}
    assert found - {Finding.NOT_EXPORTED} == {Finding.ALBUM_UNFINISHED, Finding.CATALOG_ABSENT}
    with pytest.raises(UsageError, match="unfinished"):
        exported.exporter.verify_exports(repair=True)
    assert "run --resume" in as_text(report)
    with RunLock(exported.lib_root, exported.state_db.parent / "run.lock"):
        # Somebody carries on with it already.
        *_, last = as_text(exported.exporter.verify_exports()).splitlines()
        assert last.startswith(f"In progress: process {os.getpid()} ")
    assert exported.command("run", "--resume", "--yes") == 0
    assert exported.command("verify", "--full") == 0


@pytest.mark.parametrize("fault", ["albums.planned", "group.renamed", "group.committed", "run.finished"])
def test_a_repair_that_was_killed_is_carried_on_by_resume(exported: Exported, fault: str) -> None:
    before = exported.files()
    shutil.rmtree(exported.albums / "Alps")
    (exported.albums / "Coast_Harbour" / "IMG_0101.jpg").write_bytes(b"short")
    assert exported.process("verify", "--repair", SKICYCLERUN_FAULT=fault).returncode == -9
    assert exported.command("run", "--resume", "--yes") == 0
    assert exported.command("verify", "--full") == 0
    assert exported.files() == before


def test_a_repair_keeps_what_retry_failed_needs(tmp_path: Path, library: Path) -> None:
    own = tmp_path / "library"
    shutil.copytree(library, own)
    wanting = own / "2024" / "Alps" / "IMG_0002.JPG"
    data = wanting.read_bytes()
    wanting.write_bytes(b"no picture")
    exported = Exported(tmp_path / "out", own).export()
    (exported.albums / "Coast_Harbour" / "IMG_0101.jpg").unlink()
    report = exported.exporter.verify_exports(repair=True)
    assert found_in(report) == {("not_exported", "Alps", "IMG_0002.JPG")}
    wanting.write_bytes(data)
    assert exported.command("retry-failed", "--yes") == 0
    after = exported.exporter.verify_exports(full=True)
    assert after.sound
    alps = after.albums[0]
    assert (alps.status, alps.expected, alps.exported) == ("done", 4, 4)


async def test_an_album_that_could_not_be_listed_is_exported_whole_by_a_repair(tmp_path: Path, library: Path) -> None:
    class Forgetful(FolderTree):
        async def photos(self, album_id: str) -> list[Photo]:
            if album_id == "2025/Alps":
                raise LibraryError(library, "the album cannot be read today")
            return await super().photos(album_id)

    exported = Exported(tmp_path / "out", library)
    configuration = exported.exporter.settings
    request = RunRequest(Intent.FRESH, configuration)
    with PlainText(io.StringIO()) as renderer:
        await RunSession(request, renderer=renderer, make=lambda *_: Forgetful(library)).carry_out()
        report = (await verify_only(configuration, Depth())).report
        assert [(problem.finding, problem.folder) for problem in report.problems] == [
            (Finding.ALBUM_UNFINISHED, "Alps (2)")
        ]
        after = (await verify_and_repair(configuration, Depth("full"), renderer)).report
    assert after.sound
    assert [(album.expected, album.exported, album.files) for album in after.albums] == [
        (len(names), len(names), len(names)) for names in SAMPLE_FILES.values()
    ]


def test_a_fresh_run_after_a_repair_gives_the_same_names(exported: Exported) -> None:
    before = exported.files()
    shutil.rmtree(exported.albums / "Alps (2)")
    assert exported.exporter.verify_exports(repair=True).sound
    exported.export()
    assert exported.files() == before
    assert exported.exporter.verify_exports(full=True).sound


def test_albums_exported_by_earlier_runs_are_verified_too(exported: Exported) -> None:
    exported.exporter.export_albums("Coast*", cleanup=False)
    report = exported.exporter.verify_exports(full=True)
    assert report.sound
    assert {album.folder: album.files for album in report.albums} == {
        folder: len(names) for folder, names in SAMPLE_FILES.items()
    }
    (exported.albums / "Alps" / "IMG_0001.jpg").unlink()
    assert found_in(exported.exporter.verify_exports()) == {("missing", "Alps", "IMG_0001.jpg")}
    assert exported.exporter.verify_exports(repair=True).sound


def test_outputs_that_were_archived_and_emptied_are_not_missing(exported: Exported) -> None:
    assert exported.command("run", "--stages", "cleanup", "--force-clean", "--yes") == 0
    assert exported.files() == {}
    report = exported.exporter.verify_exports(full=True)
    assert report.sound
    assert report.files == 0


def test_a_repair_takes_the_lock_and_looking_does_not(exported: Exported) -> None:
    with RunLock(exported.lib_root, exported.state_db.parent / "run.lock"):
        assert exported.exporter.verify_exports().running
        with pytest.raises(LockHeld):
            exported.exporter.verify_exports(repair=True)


def test_a_damaged_database_is_told_of_and_left_alone(exported: Exported) -> None:
    data = bytearray(exported.state_db.read_bytes())
    data[4096:8192] = b"\xaa" * 4096
    exported.state_db.write_bytes(data)
    for repair in (False, True):
        with pytest.raises(StateDamaged, match="damaged"):
            exported.exporter.verify_exports(repair=repair)
    assert exported.state_db.read_bytes() == data
    assert exported.command("verify") == 1


# ── what is printed ───────────────────────────────────────────────────────────────────────────────────────────────


def test_json_names_everything(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(exported.albums / "Alps")
    (exported.albums / "stranger").write_text("")
    assert exported.command("verify", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["mode"] == "quick"
    assert document["totals"]["problems"] == {"missing": 4, "unknown_file": 1}
    assert document["totals"]["files"] == 13
    assert [problem["name"] for problem in document["albums"][0]["problems"]] == SAMPLE_FILES["Alps"]
    assert document["other"] == [{"finding": "unknown_file", "folder": "", "name": "stranger", "detail": "a file"}]
    assert exported.command("verify", "--repair", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["repair"]["repaired"] == 4
    assert document["totals"]["problems"] == {"unknown_file": 1}


def test_a_few_names_are_printed_and_all_on_request(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(25):
        (exported.albums / f"stranger-{number:02}\x1b[31m").write_text("")
    assert exported.command("verify") == 3
    out = capsys.readouterr().out
    assert out.count("unknown_file ") == 10
    assert "and 15 more" in out
    assert "\x1b" not in out
    assert exported.command("verify", "--all") == 3
    assert capsys.readouterr().out.count("unknown_file ") == 25


# ── any damage at all ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory, library: Path) -> tuple[Exported, dict[str, str]]:
    exported = Exported(tmp_path_factory.mktemp("worn") / "out", library).export()
    return exported, exported.files()


@settings(max_examples=12)
@given(damages=st.dictionaries(st.sampled_from(list(all_files())), st.sampled_from(list(DAMAGES)), max_size=6))
def test_just_what_is_damaged_is_found_and_a_repair_gives_the_same_files(
    worn: tuple[Exported, dict[str, str]], damages: dict[tuple[str, str], Damage]
) -> None:
    exported, before = worn
    for (folder, name), damage in damages.items():
        damage(exported.albums / folder / name)
    exporter: PhotoExporter = exported.exporter
    expected = {(DAMAGES[damage].value, folder, name) for (folder, name), damage in damages.items()}
    assert found_in(exporter.verify_exports()) == expected
    assert exporter.verify_exports(repair=True).sound
    assert exported.files() == before
