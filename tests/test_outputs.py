"""Sidecars, kept originals, pictures without positions and smaller ones, from the run to the archive and back."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pillow_heif
import pytest
from PIL import Image

from skicyclerun.errors import OriginalMissing
from skicyclerun.images.render import read_facts
from skicyclerun.models import Photo, SourceKind
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.photos_library import PhotosLibrary
from tests.command_line import album_of, exported, inodes, skicyclerun, status_of
from tests.images_samples import exiftool, needs_exiftool
from tests.shared_libraries import TEST_LIBRARY, copy_library
from tests.test_images_originals import movie
from tests.test_images_outputs import DEGREES


def picture(path: Path, size: tuple[int, int] = (120, 90), shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x9003] = "2024:06:01 10:00:00"
    exif[0x010E] = "a photo"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "N", (52.0, 31.0, 12.34567), "E", (13.0, 20.0, 1.0)
    image = Image.new("RGB", size, (shade, 90, 200))
    if path.suffix.lower() == ".heic":
        pillow_heif.from_pillow(image).save(path, exif=exif.tobytes())
    else:
        image.save(path, exif=exif)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    picture(root / "Alps" / "IMG_1.HEIC")
    picture(root / "Alps" / "IMG_1.JPG", (300, 200))
    picture(root / "Lake" / "IMG_2.png", shade=10)
    (root / "Lake" / "IMG_3.mov").write_bytes(movie())
    return root


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def configure(lib_root: Path, **export: Any) -> None:
    (lib_root / "config").mkdir(parents=True, exist_ok=True)
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps({"export": export}))


def run(lib_root: Path, library: Path, *arguments: str, code: int = 0) -> str:
    ended = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--yes", *arguments)
    assert ended.code == code, ended.stderr
    return ended.stdout + ended.stderr


def verified(lib_root: Path, *arguments: str, code: int = 0) -> str:
    ended = skicyclerun("verify", "--lib-root", lib_root, *arguments)
    assert ended.code == code, ended.stdout + ended.stderr
    return ended.stdout


def catalogued(lib_root: Path) -> dict[str, Any]:
    entries = json.loads((lib_root / "metadata" / "master.json").read_text())
    prefix = str(lib_root / "pipeline" / "albums") + "/"
    return {path.removeprefix(prefix): entry for path, entry in entries.items()}


EVERYTHING = [
    "Alps/IMG_1 (2).jpg",
    "Alps/IMG_1 (2).jpg.xmp",
    "Alps/IMG_1.jpg",
    "Alps/IMG_1.jpg.xmp",
    "Alps/originals/IMG_1.heic",
    "Lake/IMG_2.jpg",
    "Lake/IMG_2.jpg.xmp",
    "Lake/IMG_3.mov",
    "Lake/IMG_3.mov.xmp",
    "Lake/originals/IMG_2.png",
]


@pytest.fixture
def whole(lib_root: Path, library: Path) -> Path:
    """After a run with sidecars and originals."""
    configure(lib_root, sidecar="xmp", keep_original=True)
    run(lib_root, library)
    return lib_root


def test_a_run_brings_sidecars_and_originals_and_accounts_for_them(whole: Path, library: Path) -> None:
    files = exported(whole)
    assert sorted(files) == EVERYTHING
    assert files["Alps/originals/IMG_1.heic"] == (library / "Alps" / "IMG_1.HEIC").read_bytes()
    assert files["Lake/originals/IMG_2.png"] == (library / "Lake" / "IMG_2.png").read_bytes()
    lake = album_of(status_of(whole), "Lake")
    of_lake = [data for name, data in files.items() if name.startswith("Lake/")]
    assert (lake["expected"], lake["exported"], lake["bytes"]) == (5, 5, sum(map(len, of_lake)))
    assert "10 files checked, 10 in full" in verified(whole, "--full")


def test_what_lies_beside_photos_is_counted_as_files_and_not_as_photos(lib_root: Path, library: Path) -> None:
    (library / "Lake" / "IMG_4.jpg").write_text("no picture")
    configure(lib_root, sidecar="xmp", keep_original=True)
    said = run(lib_root, library, code=3)
    assert "10 of 12 files exported" in said
    assert "2 of 7 files could not be exported" in said
    assert "photos exported" not in said
    assert skicyclerun("report", "--lib-root", lib_root).code == 0
    assert "2 of 12 files were not exported." in (lib_root / "report.html").read_text()
    (library / "Lake" / "IMG_4.jpg").unlink()
    configure(lib_root, sidecar="none", keep_original=False)
    said = run(lib_root, library, "--update")
    assert "6 files are no longer asked for by any album; they are in pipeline_" in said
    assert "4 of 4 photos exported" in said


@needs_exiftool
def test_the_sidecar_says_what_the_picture_says(whole: Path) -> None:
    for name in ("IMG_1.jpg", "IMG_1 (2).jpg"):
        told = exiftool(whole / "pipeline" / "albums" / "Alps" / f"{name}.xmp")
        facts = read_facts(whole / "pipeline" / "albums" / "Alps" / name)
        assert facts.location is not None
        assert told["XMP-exif:GPSLatitude"] == pytest.approx(facts.location.latitude, abs=1e-7)
        assert told["XMP-dc:Description"] == facts.description == "a photo"


def test_the_catalog_names_what_lies_beside_a_photo_and_calls_it_no_picture(whole: Path) -> None:
    entries = catalogued(whole)
    assert sorted(entries) == EVERYTHING
    folder = str(whole / "pipeline" / "albums" / "Alps")
    assert entries["Alps/IMG_1.jpg"]["files_beside"] == {
        "sidecar": f"{folder}/IMG_1.jpg.xmp",
        "original": f"{folder}/originals/IMG_1.heic",
    }
    assert {entry["type"] for name, entry in entries.items() if name.endswith(".xmp")} == {"sidecar"}
    assert {entry["type"] for name, entry in entries.items() if "/originals/" in name} == {"original"}
    assert [name for name, entry in entries.items() if entry["type"] == "exported"] == [
        "Alps/IMG_1.jpg",
        "Alps/IMG_1 (2).jpg",
        "Lake/IMG_2.jpg",
        "Lake/IMG_3.mov",
    ]


def test_an_update_with_nothing_changed_writes_nothing(whole: Path, library: Path) -> None:
    before = inodes(whole)
    run(whole, library, "--update")
    assert inodes(whole) == before
    assert not list((whole / "archive").glob("*"))


def test_a_changed_photo_gets_its_sidecar_and_its_original_anew(whole: Path, library: Path) -> None:
    before = exported(whole)
    picture(library / "Alps" / "IMG_1.HEIC", (60, 44), 250)
    run(whole, library, "--update")
    now = exported(whole)
    assert now["Alps/originals/IMG_1.heic"] == (library / "Alps" / "IMG_1.HEIC").read_bytes()
    changed = {name for name in now if now[name] != before[name]}
    assert changed == {"Alps/IMG_1.jpg", "Alps/originals/IMG_1.heic"}
    verified(whole, "--full")


def test_what_left_its_album_goes_into_the_archive_with_all_that_lay_beside_it(whole: Path, library: Path) -> None:
    (library / "Lake" / "IMG_2.png").unlink()
    run(whole, library, "--update")
    assert sorted(exported(whole)) == [name for name in EVERYTHING if "IMG_2" not in name]
    assert not (whole / "pipeline" / "albums" / "Lake" / "originals").exists()
    (archive,) = (whole / "archive").glob("*.zip")
    with zipfile.ZipFile(archive) as members:
        archived = [name.partition("/albums/")[2] for name in members.namelist() if "IMG_2" in name]
    assert sorted(archived) == [name for name in EVERYTHING if "IMG_2" in name]
    assert "IMG_2" not in " ".join(catalogued(whole))
    verified(whole, "--full")


def test_settings_that_are_turned_off_put_away_what_they_brought_and_touch_nothing_else(
    whole: Path, library: Path
) -> None:
    before = inodes(whole)
    configure(whole)
    run(whole, library, "--update")
    now = inodes(whole)
    assert sorted(now) == [name for name in EVERYTHING if "/originals/" not in name and not name.endswith(".xmp")]
    assert all(now[name] == before[name] for name in now)
    assert all("files_beside" not in entry for entry in catalogued(whole).values())
    with zipfile.ZipFile(next((whole / "archive").glob("*.zip"))) as members:
        assert sum(name.endswith((".xmp", ".heic", ".png")) for name in members.namelist()) == 6
    configure(whole, sidecar="xmp", keep_original=True)
    run(whole, library, "--update")
    assert sorted(exported(whole)) == EVERYTHING
    verified(whole, "--full")


def test_an_archive_holds_all_of_it_and_gives_it_back(whole: Path, library: Path, tmp_path: Path) -> None:
    before = exported(whole)
    shutil.rmtree(library / "Alps")
    run(whole, library)
    assert [name for name in exported(whole) if name.startswith("Alps")] == []
    out = tmp_path / "restored"
    ended = skicyclerun("archive", "restore", "latest", "--to", out, "--lib-root", whole)
    assert ended.code == 0, ended.stderr
    restored = {
        str(path.relative_to(out)).partition("albums/")[2]: path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and "/albums/" in str(path)
    }
    assert restored == before
    ended = skicyclerun("archive", "restore", "latest", "--album", "Alps", "--lib-root", whole)
    assert ended.code == 0, ended.stderr
    assert {name: data for name, data in exported(whole).items() if name.startswith("Alps")} == {
        name: data for name, data in before.items() if name.startswith("Alps")
    }


@pytest.mark.parametrize("name", ["Alps/IMG_1.jpg.xmp", "Alps/originals/IMG_1.heic"])
@pytest.mark.parametrize("damage", ["gone", "shorter", "changed"])
def test_verify_misses_a_file_beside_a_photo_and_repairs_it(whole: Path, name: str, damage: str) -> None:
    path = whole / "pipeline" / "albums" / name
    before, times = path.read_bytes(), path.stat()
    if damage == "gone":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(before[:-1])
    else:
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    depth = ("--full",) if damage == "changed" else ()
    assert path.name in verified(whole, *depth, code=3)
    verified(whole, "--full", "--repair")
    assert path.read_bytes() == before
    verified(whole, "--full")


def test_a_file_of_a_stranger_among_the_originals_is_named_and_left_alone(whole: Path, library: Path) -> None:
    theirs = whole / "pipeline" / "albums" / "Alps" / "originals" / "IMG_9.heic"
    theirs.write_bytes(b"theirs")
    assert "IMG_9.heic" in verified(whole, code=3)
    picture(library / "Alps" / "IMG_9.HEIC")
    run(whole, library, "--update")
    assert theirs.read_bytes() == b"theirs"
    ours = whole / "pipeline" / "albums" / "Alps" / "originals" / "IMG_9 (2).heic"
    assert ours.read_bytes() == (library / "Alps" / "IMG_9.HEIC").read_bytes()


@pytest.mark.parametrize("what", ["link", "file"])
def test_something_in_the_place_of_the_folder_of_originals_is_neither_followed_nor_replaced(
    lib_root: Path, library: Path, tmp_path: Path, what: str
) -> None:
    configure(lib_root, keep_original=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    place = lib_root / "pipeline" / "albums" / "Alps" / "originals"
    place.parent.mkdir(parents=True)
    if what == "link":
        place.symlink_to(outside)
    else:
        place.write_text("somebody's")
    said = run(lib_root, library, "--update", code=3)
    assert "originals/IMG_1.heic" in said
    assert list(outside.iterdir()) == []
    assert place.is_symlink() if what == "link" else place.read_text() == "somebody's"
    assert "Alps/IMG_1.jpg" in exported(lib_root)
    place.unlink()
    ended = skicyclerun("retry-failed", "--lib-root", lib_root)
    assert ended.code == 0, ended.stderr
    assert (place / "IMG_1.heic").read_bytes() == (library / "Alps" / "IMG_1.HEIC").read_bytes()


def test_a_link_in_the_place_of_the_originals_is_not_followed_by_verify_repair_and_rebuild(
    whole: Path, tmp_path: Path
) -> None:
    originals = whole / "pipeline" / "albums" / "Alps" / "originals"
    outside = tmp_path / "outside"
    originals.rename(outside)
    originals.symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in outside.iterdir()}
    assert "a symbolic link stands in the place of" in verified(whole, "--full", code=3)
    verified(whole, "--full", "--repair", code=3)
    skicyclerun("rebuild-state", "--force", "--lib-root", whole)
    assert "IMG_1.heic" in verified(whole, code=3)
    assert {path: path.stat().st_mtime_ns for path in outside.iterdir()} == before


def test_an_album_may_be_called_as_the_folder_of_originals_is(lib_root: Path, library: Path) -> None:
    (library / "Alps").rename(library / "originals")
    configure(lib_root, sidecar="json", keep_original=True)
    run(lib_root, library)
    run(lib_root, library, "--update")
    skicyclerun("rebuild-state", "--force", "--lib-root", lib_root)
    assert "Nothing is wrong" in verified(lib_root, "--full")
    assert "originals/originals/IMG_1.heic" in exported(lib_root)


def test_a_lost_state_or_catalog_is_made_anew_with_all_of_it(whole: Path, library: Path) -> None:
    entries = catalogued(whole)
    (whole / "metadata" / "master.json").unlink()
    assert skicyclerun("rebuild-catalog", "--lib-root", whole).code == 0
    assert catalogued(whole) == entries
    for path in (whole / "state").glob("skicyclerun.sqlite3*"):
        path.unlink()
    ended = skicyclerun("rebuild-state", "--library", library, "--lib-root", whole)
    assert ended.code == 0, ended.stderr
    verified(whole, "--full")
    assert sorted(exported(whole)) == EVERYTHING


def test_stages_take_neither_sidecars_nor_originals_for_pictures(whole: Path, library: Path) -> None:
    run(whole, library, "--update", "--stages", "export,metadata_extraction,preprocessing")
    scaled = [
        str(path.relative_to(whole / "pipeline" / "scaled")) for path in (whole / "pipeline" / "scaled").rglob("*")
    ]
    assert sorted(name for name in scaled if name.endswith(".webp")) == [
        "Alps/IMG_1 (2).webp",
        "Alps/IMG_1.webp",
        "Lake/IMG_2.webp",
    ]
    ended = skicyclerun("status", "--stage", "preprocessing", "--json", "--lib-root", whole)
    assert ended.code == 0
    assert "xmp" not in ended.stdout
    assert "originals" not in ended.stdout


def test_the_page_shows_photos_and_of_what_lies_beside_them_what_is_wrong(whole: Path, tmp_path: Path) -> None:
    assert skicyclerun("report", "--html", tmp_path / "page.html", "--lib-root", whole).code == 0
    pages = "".join(path.read_text() for path in tmp_path.rglob("*.html"))
    assert "IMG_1.jpg" in pages
    assert ".jpg.xmp" not in pages
    assert "originals/" not in pages
    (whole / "pipeline" / "albums" / "Alps" / "originals" / "IMG_1.heic").unlink()
    assert skicyclerun("report", "--html", tmp_path / "page.html", "--lib-root", whole).code == 0
    assert "originals/IMG_1.heic" in "".join(path.read_text() for path in tmp_path.rglob("*.html"))


def test_a_file_removed_by_hand_takes_its_sidecar_and_its_original_with_it(whole: Path, library: Path) -> None:
    configure(whole, sidecar="xmp", keep_original=True, removed_files="leave_out")
    (whole / "pipeline" / "albums" / "Alps" / "IMG_1.jpg").unlink()
    run(whole, library, "--update")
    left = [name for name in EVERYTHING if name.startswith("Alps/") and "(2)" in name]
    assert [name for name in sorted(exported(whole)) if name.startswith("Alps/")] == left
    run(whole, library, "--update", "--include-removed")
    assert sorted(exported(whole)) == EVERYTHING


def test_a_photo_left_out_by_hand_takes_its_sidecar_and_its_original_with_it(whole: Path, library: Path) -> None:
    def command(name: str, *photos: str) -> int:
        return skicyclerun(name, *photos, "--lib-root", whole).code

    assert command("leave-out", "Lake/IMG_2.jpg.xmp") == 2, "a sidecar is no photo"
    assert command("leave-out", "Lake/IMG_2.jpg") == 0
    run(whole, library, "--update")
    left = ["Lake/IMG_3.mov", "Lake/IMG_3.mov.xmp"]
    assert [name for name in sorted(exported(whole)) if name.startswith("Lake/")] == left
    verified(whole)
    assert command("take-in", "Lake/IMG_2.jpg") == 0
    run(whole, library, "--update")
    assert sorted(exported(whole)) == EVERYTHING


# ── without positions ─────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_that_a_run_without_positions_leaves_says_where_a_photo_was_taken(
    lib_root: Path, library: Path
) -> None:
    original = (library / "Alps" / "IMG_1.JPG").read_bytes()
    assert any(degrees in original for degrees in DEGREES)
    configure(lib_root, sidecar="xmp", strip_location=True)
    run(lib_root, library, "--stages", "export,metadata_extraction")
    files = exported(lib_root)
    assert sorted(files) == [
        "Alps/IMG_1 (2).jpg",
        "Alps/IMG_1 (2).jpg.xmp",
        "Alps/IMG_1.jpg",
        "Alps/IMG_1.jpg.xmp",
        "Lake/IMG_2.jpg",
        "Lake/IMG_2.jpg.xmp",
    ]
    for data in files.values():
        assert not any(degrees in data for degrees in DEGREES)
        assert b"GPS" not in data
    for entry in catalogued(lib_root).values():
        assert {"gps", "location"}.isdisjoint(entry)
    # Nor does the state, which is where stages would have it from.
    for path in (lib_root / "state").glob("skicyclerun.sqlite3*"):
        assert b'"location":[' not in path.read_bytes()
    lake = album_of(status_of(lib_root, "--photos"), "Lake")
    (movie_row,) = [photo for photo in lake["photos"] if photo["file_name"] == "IMG_3.mov"]
    assert movie_row["status"] == "left_out"
    assert "export.strip_location" in movie_row["reason"]
    verified(lib_root, "--full")


def test_taking_positions_out_later_replaces_what_had_them_and_forgets_places(whole: Path, library: Path) -> None:
    run(whole, library, "--update", "--stages", "export,metadata_extraction")
    assert all("gps" in entry for name, entry in catalogued(whole).items() if name.endswith(".jpg"))
    configure(whole, strip_location=True)
    run(whole, library, "--update", "--stages", "export,metadata_extraction")
    for name, data in exported(whole).items():
        assert name.endswith(".jpg")
        assert not any(degrees in data for degrees in DEGREES)
    for entry in catalogued(whole).values():
        assert {"gps", "location"}.isdisjoint(entry)


def test_places_that_stages_found_before_are_forgotten_with_the_positions_though_no_stage_runs(
    whole: Path, library: Path
) -> None:
    run(whole, library, "--update", "--stages", "export,metadata_extraction")
    assert all("location" in entry for name, entry in catalogued(whole).items() if name.endswith(".jpg"))
    configure(whole, strip_location=True)
    run(whole, library, "--update", "--stages", "export")
    for entry in catalogued(whole).values():
        assert {"gps", "location"}.isdisjoint(entry)
    with closing(sqlite3.connect(whole / "state" / "skicyclerun.sqlite3")) as state:
        told = [facts for (facts,) in state.execute("SELECT facts FROM stage_pictures WHERE facts IS NOT NULL")]
    assert told
    assert not any('"gps"' in facts or '"location"' in facts for facts in told)
    run(whole, library, "--update", "--stages", "export,metadata_extraction")
    verified(whole, "--full")


def test_after_a_lost_state_positions_that_are_to_go_do_go(lib_root: Path, library: Path) -> None:
    """Nothing but the catalog knows then how the files were made."""
    run(lib_root, library)
    configure(lib_root, strip_location=True, library=str(library))
    shutil.rmtree(lib_root / "state")
    assert skicyclerun("rebuild-state", "--lib-root", lib_root).code == 0
    run(lib_root, library, "--update")
    for data in exported(lib_root).values():
        assert not any(degrees in data for degrees in DEGREES)
    assert all("gps" not in entry for entry in catalogued(lib_root).values())
    shutil.rmtree(lib_root / "state")
    assert skicyclerun("rebuild-state", "--lib-root", lib_root).code == 0
    assert "0 new, 0 replaced, 3 unchanged" in run(lib_root, library, "--update")


def test_a_repair_brings_each_file_back_under_the_settings_it_was_made_with(lib_root: Path, library: Path) -> None:
    configure(lib_root, strip_location=True)
    run(lib_root, library)
    configure(lib_root)
    run(lib_root, library, "--update", "--album", "Lake")
    before = exported(lib_root)
    albums = lib_root / "pipeline" / "albums"
    (albums / "Alps" / "IMG_1.jpg").unlink()
    (albums / "Lake" / "IMG_2.jpg").unlink()
    verified(lib_root, "--repair")
    assert exported(lib_root) == before
    verified(lib_root, "--full")


def test_a_repair_keeps_nothing_aside_from_behind_a_link_in_the_place_of_an_album(
    whole: Path, library: Path, tmp_path: Path
) -> None:
    album = whole / "pipeline" / "albums" / "Alps"
    shutil.rmtree(album)
    foreign = tmp_path / "foreign" / "originals" / "IMG_1.heic"
    foreign.mkdir(parents=True)
    (foreign / "note.txt").write_text("somebody else's")
    album.symlink_to(tmp_path / "foreign")
    verified(whole, "--repair", code=3)
    assert (foreign / "note.txt").read_text() == "somebody else's"


# ── smaller ones ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_largest_size_is_kept_to_and_changing_it_exports_again(lib_root: Path, library: Path) -> None:
    configure(lib_root, max_size=100, keep_original=True)
    run(lib_root, library)
    for name in ("Alps/IMG_1.jpg", "Alps/IMG_1 (2).jpg", "Lake/IMG_2.jpg"):
        entry = catalogued(lib_root)[name]
        assert max(entry["width"], entry["height"]) == 100
        assert entry["gps"]["lat"] == pytest.approx(52.52, abs=0.01)
    original = exported(lib_root)["Alps/originals/IMG_1 (2).jpg"]
    assert original == (library / "Alps" / "IMG_1.JPG").read_bytes()
    verified(lib_root, "--full")
    configure(lib_root, max_size=1000)
    run(lib_root, library, "--update")
    assert catalogued(lib_root)["Alps/IMG_1 (2).jpg"]["width"] == 300
    assert exported(lib_root)["Alps/IMG_1 (2).jpg"] == (library / "Alps" / "IMG_1.JPG").read_bytes()


# ── a real library ────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_a_real_library_the_unmodified_originals_of_edits_and_raw_files_are_kept(tmp_path: Path) -> None:
    library = copy_library(TEST_LIBRARY, tmp_path)
    lib_root = tmp_path / "root"
    configure(lib_root, sidecar="xmp", keep_original=True, missing="skip", duplicates="hardlink")
    run(lib_root, library)
    entries = catalogued(lib_root)
    originals = {name: entry for name, entry in entries.items() if entry["type"] == "original"}
    assert originals
    pictures = {name: entry for name, entry in entries.items() if entry["type"] == "exported"}
    beside = [entry for entry in pictures.values() if "original" in entry.get("files_beside", {})]
    assert len(beside) == len(originals)
    assert any(entry.get("rendering") == "edited" for entry in beside)
    held = {path.read_bytes() for path in (library / "originals").rglob("*") if path.is_file()}
    for name in originals:
        assert (lib_root / "pipeline" / "albums" / name).read_bytes() in held
    assert all("sidecar" in entry["files_beside"] for entry in pictures.values())
    by_photo: dict[str, set[int]] = {}
    for name, entry in pictures.items():
        inode = (lib_root / "pipeline" / "albums" / name).stat().st_ino
        by_photo.setdefault(entry["source"]["photo_id"], set()).add(inode)
    assert len(pictures) > len(by_photo), "some photo is in several albums"
    assert all(len(each) == 1 for each in by_photo.values())
    verified(lib_root, "--full")


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "export",
    [
        {"keep_original": True, "strip_location": True},
        {"format": "original", "strip_location": True},
        {"format": "original", "max_size": 2000},
        {"everything": True, "group_by": "place", "strip_location": True},
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(lib_root: Path, export: dict[str, Any]) -> None:
    configure(lib_root, **export)
    ended = skicyclerun("config", "check", "--lib-root", lib_root)
    assert ended.code == 2
    assert "export." in ended.stderr + ended.stdout


def test_groups_by_place_typed_for_a_run_without_positions_are_refused(lib_root: Path, library: Path) -> None:
    configure(lib_root, strip_location=True)
    said = run(lib_root, library, "--everything", "--group-by", "place", code=2)
    assert "export.strip_location" in said
    assert not exported(lib_root)


def test_photos_app_has_no_originals_to_keep_and_says_what_to_do(lib_root: Path) -> None:
    configure(lib_root, keep_original=True, source=SourceKind.APPLE_PHOTOS.value)
    ended = skicyclerun("run", "--lib-root", lib_root, "--yes")
    assert ended.code == 2
    assert "export.keep_original" in ended.stderr
    assert "--source photos_library" in ended.stderr


def test_a_picture_and_what_lies_beside_it_are_found_at_the_same_time(tmp_path: Path) -> None:
    """osxphotos says for a moment that there is none: the photo would count as missing."""
    library = copy_library(TEST_LIBRARY, tmp_path)
    options = ExportOptions(sidecar="xmp", keep_original=True)

    async def absent() -> set[str]:
        source = PhotosLibrary(library)
        await source.open()
        listed = [photo for album in await source.albums() for photo in await source.photos(album.id)]
        wanted = [each for photo in listed for each in (photo, *options.companions_of(photo))]
        found: set[str] = set()

        async def fetch(photo: Photo) -> None:
            try:
                await source.fetch(photo, tmp_path / "not made")
            except OriginalMissing:
                found.add(photo.id)

        async with anyio.create_task_group() as fetching:
            for photo in wanted:
                fetching.start_soon(fetch, photo)
        await source.close()
        return found

    first = anyio.run(absent)
    assert len(first) == 2, "the library lacks two originals"
    assert all(anyio.run(absent) == first for _ in range(8))
