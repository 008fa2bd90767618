"""verify over what stages made: what it finds, what it leaves alone, and what --repair has made again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from skicyclerun.errors import UsageError
from skicyclerun.verification.report import Finding, as_text
from tests.exported_sample import SAMPLE_FILES, flip_a_byte
from tests.staged_export import STAGES, Staged, found_in, staged_once

pytestmark = pytest.mark.long

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, sample_library: Path) -> Callable[[], Staged]:
    return staged_once(tmp_path_factory.mktemp("staged"), sample_library)


@pytest.fixture
def staged(once: Callable[[], Staged]) -> Staged:
    return once()


# ── nothing is wrong ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_stages_made_is_sound_at_every_depth(staged: Staged) -> None:
    before = staged.everything()
    for report in (
        staged.exporter.verify_exports(),
        staged.exporter.verify_exports(full=True),
        staged.exporter.verify_exports(sample=0.5),
    ):
        assert report.sound, as_text(report)
        assert report.files == 13
        assert [(each.stage, each.files, each.facts) for each in report.stages] == [
            ("metadata_extraction", 0, 13),
            ("preprocessing", 13, 0),
            ("watermarking", 13, 0),
        ]
        assert (report.entries, report.stage_entries) == (13, 26)
    assert staged.everything() == before
    assert staged.command("verify") == 0


def test_the_albums_of_the_newest_export_are_expected_although_stages_ran_since(staged: Staged) -> None:
    report = staged.exporter.verify_exports()
    assert report.run_id == 1
    assert [(album.path, album.expected, album.exported) for album in report.albums] == [
        ("2024/Alps", 4, 4),
        ("2025/Alps", 3, 3),
        ("Coast/Harbour", 3, 3),
        ("Frühling am Fluss", 3, 3),
    ]


def test_full_reads_every_byte_and_a_sample_its_share_of_all_files(staged: Staged) -> None:
    full = staged.exporter.verify_exports(full=True)
    assert full.bytes_read == sum(path.stat().st_size for path in (staged.lib_root / "pipeline").rglob("*.*"))
    for seed in range(3):
        report = staged.exporter.verify_exports(sample=6, seed=seed)
        assert report.in_full + sum(stage.in_full for stage in report.stages) == 6


# ── what is found, and made again ─────────────────────────────────────────────────────────────────────────────────


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "precious.txt").write_text("mine")


def write_something_else(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(b"x" * size)


DAMAGES: dict[Damage, Finding] = {
    Path.unlink: Finding.MISSING,
    replace_by_link: Finding.NOT_A_FILE,
    replace_by_folder: Finding.NOT_A_FILE,
    lambda path: os.truncate(path, 100): Finding.SIZE_DIFFERS,
    write_something_else: Finding.CONTENT_DIFFERS,
}


@pytest.mark.parametrize("damage", DAMAGES, ids=["gone", "link", "folder", "size", "same-size"])
def test_a_damaged_output_is_found_kept_aside_and_made_again_as_it_was(staged: Staged, damage: Damage) -> None:
    before = staged.everything()
    path = staged.scaled / "Alps" / "IMG_0002.webp"
    damage(path)
    finding = DAMAGES[damage]
    report = staged.exporter.verify_exports()
    assert found_in(report) == {("preprocessing", finding.value, "Alps", "IMG_0002.webp")}
    assert "verify --repair" in as_text(report)
    assert staged.command("verify") == 3
    after = staged.exporter.verify_exports(repair=True)
    assert after.sound, as_text(after)
    assert staged.everything() == before
    assert after.repair is not None
    # What it makes is as before, so what was made of that is up to date.
    assert (after.repair.made_again, after.repair.stages, after.repair.fetched_again) == (1, ("preprocessing",), 0)
    assert bool(after.repair.kept_in) is (finding is not Finding.MISSING)
    kept = set(staged.kept())
    assert kept <= {"preprocessing/Alps/IMG_0002.webp", "preprocessing/Alps/IMG_0002.webp/precious.txt"}
    assert staged.exporter.verify_exports(full=True).sound


def test_damage_that_only_a_full_look_sees_is_made_again(staged: Staged) -> None:
    before = staged.everything()
    flip_a_byte(staged.marked / "Coast_Harbour" / "IMG_0101.webp")
    assert staged.exporter.verify_exports().sound
    report = staged.exporter.verify_exports(full=True, repair=True)
    assert report.sound, as_text(report)
    assert report.repair is not None
    assert report.repair.stages == ("watermarking",)
    assert staged.everything() == before


def test_a_time_that_changed_is_put_back_and_nothing_is_made(staged: Staged) -> None:
    path = staged.marked / "Alps" / "IMG_0001.webp"
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(0, 0))
    assert found_in(staged.exporter.verify_exports()) == {("watermarking", "time_differs", "Alps", "IMG_0001.webp")}
    report = staged.exporter.verify_exports(repair=True)
    assert report.sound
    assert report.repair is not None
    assert (report.repair.times_set, report.repair.runs) == (1, ())
    assert path.stat().st_mtime_ns == before


def test_a_picture_that_does_not_decode_is_found(staged: Staged) -> None:
    path = staged.scaled / "Alps" / "IMG_0001.webp"
    row = "stage = 'preprocessing' AND folder = 'Alps' AND file_name = 'IMG_0001.webp'"
    before = staged.everything()
    data = path.read_bytes()[:-2000] + b"\0" * 1000
    path.write_bytes(data)
    staged.sql(f"UPDATE stage_pictures SET size = ?, mtime_ns = ? WHERE {row}", len(data), path.stat().st_mtime_ns)
    digest = staged.everything()["scaled/Alps/IMG_0001.webp"]
    staged.sql(f"UPDATE stage_pictures SET sha256 = ? WHERE {row}", digest)
    entries = staged.entries()
    entries[str(path)] |= {"sha256": digest, "size": len(data)}
    staged.write_entries(entries)
    assert staged.exporter.verify_exports().sound
    report = staged.exporter.verify_exports(full=True)
    assert found_in(report) == {("preprocessing", "damaged", "Alps", "IMG_0001.webp")}
    # The watermarked one was made of the sound one, and is as it was.
    assert staged.exporter.verify_exports(full=True, repair=True).sound
    assert staged.everything() == before


def test_whole_folders_come_back_as_they_were(staged: Staged) -> None:
    before = staged.everything()
    shutil.rmtree(staged.scaled)
    shutil.rmtree(staged.marked / "Alps")
    report = staged.exporter.verify_exports(repair=True)
    assert report.sound, as_text(report)
    assert report.repair is not None
    assert report.repair.made_again == 13 + 4
    assert staged.everything() == before


def test_a_link_in_the_place_of_an_album_folder_is_left_to_the_person(staged: Staged, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (staged.scaled / "Alps").rename(outside)
    (staged.scaled / "Alps").symlink_to(outside)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    expected = {("preprocessing", "not_a_file", "Alps", f"IMG_000{number}.webp") for number in (1, 2, 3, 4)}
    assert found_in(staged.exporter.verify_exports()) == expected
    assert found_in(staged.exporter.verify_exports(repair=True)) == expected
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before
    assert staged.made_by_run().keys() == {(2, stage) for stage in STAGES}


def test_a_repair_makes_as_the_stages_were_set_when_they_ran(staged: Staged) -> None:
    before = staged.everything()
    (staged.scaled / "Alps" / "IMG_0002.webp").unlink()
    config = staged.lib_root / "config.json"
    config.write_text(json.dumps({"preprocessing": {"max_dimension": 64}}))
    assert staged.command("verify", "--repair", "--config", str(config)) == 0
    assert staged.everything() == before


def test_what_a_run_left_alone_because_somebody_changed_it_is_put_right_by_a_repair(staged: Staged) -> None:
    before = staged.everything()
    path = staged.scaled / "Alps" / "IMG_0002.webp"
    path.write_bytes(b"somebody's own work")
    assert staged.run_stages() == 3
    assert path.read_bytes() == b"somebody's own work"
    found = found_in(staged.exporter.verify_exports())
    assert found >= {
        ("preprocessing", "album_unfinished", "Alps", ""),
        ("preprocessing", "size_differs", "Alps", path.name),
    }
    report = staged.exporter.verify_exports(repair=True)
    assert report.sound, as_text(report)
    assert staged.everything() == before
    assert staged.kept()["preprocessing/Alps/IMG_0002.webp"].read_bytes() == b"somebody's own work"


# ── what is not ours, and the catalog ─────────────────────────────────────────────────────────────────────────────


def test_strangers_in_the_folders_of_stages_are_named_and_left_alone(staged: Staged) -> None:
    strangers = {
        "preprocessing": [staged.scaled / "Alps" / "holiday.webp", staged.scaled / "loose.txt"],
        "watermarking": [staged.marked / "Other" / "deep" / "a.webp"],
    }
    never_ran = staged.lib_root / "pipeline" / "lora_processed" / "x.webp"
    staging = staged.scaled / ".skicyclerun-staging-preprocessing" / "1-1.webp"
    for path in (*strangers["preprocessing"], *strangers["watermarking"], never_ran, staging):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not ours")
    expected = {
        ("preprocessing", "unknown_file", "Alps", "holiday.webp"),
        ("preprocessing", "unknown_file", "", "loose.txt"),
        ("watermarking", "unknown_file", "Other/deep", "a.webp"),
    }
    before = staged.everything()
    for repair in (False, True):
        report = staged.exporter.verify_exports(repair=repair)
        assert found_in(report) == expected
        assert staged.everything() == before
    assert "Alps/holiday.webp: a file" in as_text(report)
    assert staged.command("verify") == 3


def test_entries_that_point_nowhere_are_found_and_go(staged: Staged) -> None:
    original = staged.entries()
    entries = dict(original)
    known = str(staged.scaled / "Alps" / "IMG_0001.webp")
    ghost, other = str(staged.scaled / "Alps" / "ghost.webp"), str(staged.marked / "Alps" / "ghost.webp")
    entries[ghost] = original[known]
    entries[other] = {"type": "lora_processed", "by": "another program"}
    entries[known] = entries[known] | {"sha256": "0" * 64}
    lacking = str(staged.marked / "Alps" / "IMG_0001.webp")
    del entries[lacking]
    staged.write_entries(entries)
    assert {
        (each.stage, each.finding.value, Path(each.name).name) for each in staged.exporter.verify_exports().problems
    } == {
        ("preprocessing", "entry_differs", "IMG_0001.webp"),
        ("watermarking", "no_entry", "IMG_0001.webp"),
        ("", "entry_without_file", "ghost.webp"),
        ("", "points_nowhere", "ghost.webp"),
    }
    report = staged.exporter.verify_exports(repair=True)
    # What is another program's is left to it.
    assert [(each.finding, each.name) for each in report.problems] == [(Finding.POINTS_NOWHERE, other)], as_text(report)
    assert staged.entries() == original | {other: entries[other]}


def test_a_lost_catalog_comes_back_with_files_and_facts_of_stages(staged: Staged) -> None:
    original = staged.catalog.read_text()
    staged.catalog.unlink()
    assert staged.command("rebuild-catalog") == 0
    assert staged.entries() == json.loads(original)
    assert staged.exporter.verify_exports(full=True).sound


def test_entries_of_a_disk_that_is_not_there_are_never_removed(staged: Staged) -> None:
    entries = staged.entries()
    away = "/Volumes/Not Mounted/scaled/Alps/x.webp"
    entries[away] = entries[str(staged.scaled / "Alps" / "IMG_0001.webp")]
    staged.write_entries(entries)
    report = staged.exporter.verify_exports(repair=True)
    assert [problem.finding for problem in report.problems] == [Finding.ENTRY_WITHOUT_FILE]
    assert away in staged.entries()


# ── exported files and what was made of them ──────────────────────────────────────────────────────────────────────


def test_an_exported_file_that_comes_back_as_it_was_has_nothing_made_again(staged: Staged) -> None:
    before = staged.everything()
    (staged.albums / "Alps" / "IMG_0002.jpg").write_bytes(b"damaged")
    report = staged.exporter.verify_exports(repair=True)
    assert report.sound, as_text(report)
    assert report.repair is not None
    assert (report.repair.repaired, report.repair.made_again, len(report.repair.runs)) == (1, 0, 1)
    assert staged.everything() == before


def other_picture(path: Path) -> None:
    """Another picture under the same name, as after an edit in the library."""
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, "JPEG", exif=image.getexif())


@pytest.fixture
def changed_photo(staged: Staged) -> Iterator[Path]:
    """A photo that changed in the library since it was exported, and whose exported file is gone."""
    photo = staged.library / "2024" / "Alps" / "IMG_0002.JPG"
    saved = photo.read_bytes(), photo.stat()
    other_picture(photo)
    (staged.albums / "Alps" / "IMG_0002.jpg").unlink()
    yield photo
    photo.write_bytes(saved[0])
    os.utime(photo, ns=(saved[1].st_atime_ns, saved[1].st_mtime_ns))


def test_what_was_made_of_an_export_that_changed_is_made_again(staged: Staged, changed_photo: Path) -> None:
    before = staged.everything()
    flip_a_byte(staged.marked / "Coast_Harbour" / "IMG_0101.webp")
    report = staged.exporter.verify_exports(full=True, repair=True)
    assert report.sound, as_text(report)
    assert report.repair is not None
    assert staged.made_by_run() == {
        **{(2, stage): 13 for stage in STAGES},
        **{(3, stage): 1 for stage in STAGES},
        (4, "watermarking"): 1,
    }
    after = staged.everything()
    new = {path for path in after if after[path] != before.get(path)}
    assert new == {
        "albums/Alps/IMG_0002.jpg",
        "scaled/Alps/IMG_0002.webp",
        "watermarked_final/Alps/IMG_0002.webp",
    }
    assert staged.run_stages() == 0
    assert (5, "preprocessing") not in staged.made_by_run()


def test_only_stages_that_have_run_follow_an_export(tmp_path: Path, once: Callable[[], Staged]) -> None:
    staged = Staged(tmp_path / "out", once().library)
    staged.export()
    assert staged.run_stages("preprocessing") == 0
    shutil.rmtree(staged.albums / "Alps")
    report = staged.exporter.verify_exports(repair=True)
    assert report.sound, as_text(report)
    assert {stage for _, stage in staged.made_by_run()} == {"preprocessing"}
    assert not staged.marked.exists()


def test_a_photo_that_cannot_be_fetched_again_keeps_what_was_made_of_it(
    tmp_path: Path, once: Callable[[], Staged]
) -> None:
    library = tmp_path / "library"
    shutil.copytree(once().library, library)
    staged = Staged(tmp_path / "out", library)
    staged.export()
    assert staged.run_stages() == 0
    made = {path: digest for path, digest in staged.everything().items() if not path.startswith("albums/")}
    (staged.albums / "Alps" / "IMG_0002.jpg").unlink()
    (library / "2024" / "Alps" / "IMG_0002.JPG").unlink()
    report = staged.exporter.verify_exports(repair=True)
    assert {problem.stage for problem in report.problems} == {""}
    assert {path: digest for path, digest in staged.everything().items() if not path.startswith("albums/")} == made


# ── stops ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "fault", ["run.created", "stage.album_started", "stage.picture_made", "group.renamed", "stage.group_committed"]
)
def test_a_repair_that_was_killed_is_carried_on_by_resume(staged: Staged, fault: str) -> None:
    before = staged.everything()
    shutil.rmtree(staged.scaled / "Alps")
    write_something_else(staged.marked / "Coast_Harbour" / "IMG_0101.webp")
    assert staged.process("verify", "--repair", SKICYCLERUN_FAULT=fault).returncode == -9
    with pytest.raises(UsageError, match="unfinished"):
        staged.exporter.verify_exports(repair=True)
    assert staged.command("run", "--resume", "--yes") == 0
    # One that was killed before it had marked what is broken had not begun to.
    assert staged.command("verify", "--repair") == 0
    assert staged.command("verify", "--full") == 0
    assert staged.everything() == before


@pytest.mark.parametrize("fault", ["albums.planned", "group.renamed", "stage.picture_made", "stage.group_committed"])
def test_a_killed_repair_of_an_export_makes_again_what_depends_on_it(
    staged: Staged, changed_photo: Path, fault: str
) -> None:
    before = staged.everything()
    assert staged.process("verify", "--repair", SKICYCLERUN_FAULT=fault).returncode == -9
    assert staged.command("run", "--resume", "--yes") == 0
    assert staged.command("verify", "--full") == 0
    after = staged.everything()
    assert {path for path in after if after[path] != before.get(path)} == {
        "albums/Alps/IMG_0002.jpg",
        "scaled/Alps/IMG_0002.webp",
        "watermarked_final/Alps/IMG_0002.webp",
    }
    made = staged.made_by_run()
    assert staged.run_stages() == 0
    assert staged.made_by_run() == made


# ── albums of stages, and runs ────────────────────────────────────────────────────────────────────────────────────


def test_an_album_of_a_stage_that_failed_is_told_of_and_asked_for_again(
    staged: Staged, capsys: pytest.CaptureFixture[str]
) -> None:
    before = staged.everything()
    exported = staged.albums / "Alps" / "IMG_0002.jpg"
    saved, times = exported.read_bytes(), exported.stat()
    (staged.scaled / "Alps" / "IMG_0002.webp").unlink()
    exported.unlink()
    assert staged.run_stages("preprocessing") == 3
    report = staged.exporter.verify_exports()
    assert ("preprocessing", "album_unfinished", "Alps", "") in found_in(report)
    exported.write_bytes(saved)
    os.utime(exported, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = staged.exporter.verify_exports()
    assert found_in(report) == {("preprocessing", "album_unfinished", "Alps", "")}
    assert "retry-failed" in as_text(report)
    after = staged.exporter.verify_exports(repair=True)
    assert after.sound, as_text(after)
    assert staged.everything() == before


def test_a_stage_that_the_configuration_no_longer_names_is_not_looked_at(staged: Staged) -> None:
    for table in ("stage_pictures", "stage_albums"):
        staged.sql(f"UPDATE {table} SET stage = 'posters' WHERE stage = 'watermarking'")
    report = staged.exporter.verify_exports()
    posters = report.stages[-1]
    assert (posters.stage, posters.configured, posters.files) == ("posters", False, 13)
    assert "posters: 13 files not looked at" in as_text(report)


# ── what is printed ───────────────────────────────────────────────────────────────────────────────────────────────


def test_json_names_every_stage(staged: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(staged.scaled / "Alps")
    (staged.marked / "stranger").write_text("")
    assert staged.command("verify", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["totals"]["problems"] == {"missing": 4, "unknown_file": 1}
    assert (document["totals"]["files"], document["totals"]["stage_files"]) == (13, 26)
    facts, scaled, marked = document["stages"]
    assert facts == {
        "stage": "metadata_extraction",
        "output_folder": None,
        "configured": True,
        "files": 0,
        "in_full": 0,
        "facts": 13,
        "problems": [],
    }
    assert [problem["name"] for problem in scaled["problems"]] == [
        name.replace(".jpg", ".webp") for name in SAMPLE_FILES["Alps"]
    ]
    assert marked["problems"] == [{"finding": "unknown_file", "folder": "", "name": "stranger", "detail": "a file"}]
    assert staged.command("verify", "--repair", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["repair"]["made_again"], document["repair"]["stages"]) == (4, ["preprocessing"])
