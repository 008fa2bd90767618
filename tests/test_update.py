"""`run --update`: only what is new or changed is exported, what left is archived, nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skicyclerun.cli import run_command_line


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    for album, count in (("Alps", 4), ("Lake", 2)):
        (root / album).mkdir(parents=True)
        for number in range(count):
            picture(root / album / f"IMG_{number}.jpg", number * 20)
    return root


@pytest.fixture
def lib_root(tmp_path: Path, library: Path) -> Path:
    root = tmp_path / "root"
    assert run(root, library) == 0
    return root


def picture(path: Path, shade: int) -> None:
    exif = Image.Exif()
    exif[0x9003] = "2024:06:01 10:00:00"
    Image.new("RGB", (64, 48), (shade, 90, 200)).save(path, exif=exif)


def run(lib_root: Path, library: Path, *arguments: str) -> int:
    return run_command_line(["run", "--library", str(library), "--lib-root", str(lib_root), "--yes", *arguments])


def update(lib_root: Path, library: Path, *arguments: str) -> int:
    return run(lib_root, library, "--update", *arguments)


def traces(lib_root: Path) -> dict[str, tuple[int, int, int]]:
    """Everything in the output folders, with what changes when it is written, replaced or renamed."""
    found = {}
    for folder in ("pipeline", "metadata"):
        for path in sorted((lib_root / folder).rglob("*")):
            status = path.lstat()
            found[str(path.relative_to(lib_root))] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found


def names(lib_root: Path) -> list[str]:
    albums = lib_root / "pipeline" / "albums"
    return sorted(str(path.relative_to(albums)) for path in albums.rglob("*") if path.is_file())


def catalogued(lib_root: Path) -> dict[str, Any]:
    entries = json.loads((lib_root / "metadata" / "master.json").read_text())
    prefix = str(lib_root / "pipeline" / "albums") + "/"
    return {path.removeprefix(prefix): entry for path, entry in entries.items()}


def test_a_second_update_with_nothing_changed_writes_no_file(lib_root: Path, library: Path) -> None:
    before = traces(lib_root)
    assert update(lib_root, library) == 0
    assert traces(lib_root) == before
    assert not list((lib_root / "archive").glob("*"))


def test_a_new_photo_is_exported_and_nothing_else_is_touched(lib_root: Path, library: Path) -> None:
    before = traces(lib_root)
    picture(library / "Alps" / "IMG_9.jpg", 250)
    assert update(lib_root, library) == 0
    after = traces(lib_root)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name for name in changed if name.endswith(".jpg")} == {"pipeline/albums/Alps/IMG_9.jpg"}
    assert "Alps/IMG_9.jpg" in catalogued(lib_root)


def test_a_changed_photo_replaces_its_file_under_the_same_name(lib_root: Path, library: Path) -> None:
    before = catalogued(lib_root)
    picture(library / "Alps" / "IMG_2.jpg", 251)
    assert update(lib_root, library) == 0
    after = catalogued(lib_root)
    assert names(lib_root) == sorted(before)
    assert [name for name in after if after[name]["sha256"] != before[name]["sha256"]] == ["Alps/IMG_2.jpg"]


def test_photos_that_left_are_in_a_proved_archive_and_out_of_folder_and_catalog(lib_root: Path, library: Path) -> None:
    left = (lib_root / "pipeline" / "albums" / "Alps" / "IMG_1.jpg").read_bytes()
    (library / "Alps" / "IMG_1.jpg").unlink()
    assert update(lib_root, library) == 0
    assert "Alps/IMG_1.jpg" not in names(lib_root)
    assert "Alps/IMG_1.jpg" not in catalogued(lib_root)
    (archive,) = (lib_root / "archive").glob("*.zip")
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        (member,) = [name for name in opened.namelist() if name.endswith(".jpg")]
        assert opened.read(member) == left
    before = traces(lib_root)
    assert update(lib_root, library) == 0
    assert traces(lib_root) == before


def test_an_album_that_left_goes_as_a_whole(lib_root: Path, library: Path) -> None:
    shutil.rmtree(library / "Lake")
    assert update(lib_root, library) == 0
    assert not (lib_root / "pipeline" / "albums" / "Lake").exists()
    assert {name.split("/")[0] for name in catalogued(lib_root)} == {"Alps"}


def test_an_update_that_is_told_of_no_source_goes_on_with_that_of_the_run_before(
    lib_root: Path, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(library / "Lake" / "IMG_9.jpg", 200)
    assert run_command_line(["run", "--update", "--lib-root", str(lib_root), "--yes"]) == 0
    assert f"Source: folder, {library}\n" in capsys.readouterr().out
    assert "Lake/IMG_9.jpg" in names(lib_root)
    elsewhere = library.with_name("other")
    shutil.copytree(library, elsewhere)
    assert run_command_line(["run", "--update", "--library", str(elsewhere), "--lib-root", str(lib_root), "--yes"]) == 0
    assert f"Source: folder, {elsewhere}\n" in capsys.readouterr().out


def test_an_update_of_one_album_leaves_the_others_alone(lib_root: Path, library: Path) -> None:
    (library / "Lake" / "IMG_0.jpg").unlink()
    (library / "Alps" / "IMG_0.jpg").unlink()
    assert update(lib_root, library, "--album", "Alps") == 0
    assert "Alps/IMG_0.jpg" not in names(lib_root)
    assert "Lake/IMG_0.jpg" in names(lib_root)


def test_a_file_that_is_gone_is_exported_again(lib_root: Path, library: Path) -> None:
    target = lib_root / "pipeline" / "albums" / "Alps" / "IMG_3.jpg"
    bytes_before = target.read_bytes()
    target.unlink()
    assert update(lib_root, library) == 0
    assert target.read_bytes() == bytes_before


def test_a_strangers_file_and_a_departed_file_that_was_edited_stay(lib_root: Path, library: Path) -> None:
    albums = lib_root / "pipeline" / "albums"
    (albums / "Alps" / "notes.txt").write_text("mine")
    picture(library / "Alps" / "notes.jpg", 7)
    (library / "Alps" / "IMG_1.jpg").unlink()
    assert update(lib_root, library) == 0
    assert (albums / "Alps" / "notes.txt").read_text() == "mine"
    assert "Alps/IMG_1.jpg" not in names(lib_root)


@pytest.mark.parametrize("setting", ['"jpeg_quality": 60', '"person_keywords": true'])
def test_new_export_settings_make_everything_anew(lib_root: Path, library: Path, setting: str) -> None:
    (lib_root / "config").mkdir()
    (lib_root / "config" / "pipeline_config.json").write_text(f'{{"export": {{{setting}}}}}')
    before = traces(lib_root)
    assert update(lib_root, library) == 0
    after = traces(lib_root)
    assert all(after[name] != before[name] for name in after if name.endswith(".jpg"))


def test_an_update_over_nothing_is_a_first_export(tmp_path: Path, library: Path) -> None:
    assert update(tmp_path / "fresh", library) == 0
    assert len(names(tmp_path / "fresh")) == 6


def test_a_photo_that_fails_in_an_update_keeps_its_earlier_file(lib_root: Path, library: Path) -> None:
    target = lib_root / "pipeline" / "albums" / "Lake" / "IMG_0.jpg"
    before = target.read_bytes()
    (library / "Lake" / "IMG_0.jpg").write_bytes(b"\xff\xd8\xff torn")
    assert update(lib_root, library) == 3
    assert target.read_bytes() == before
    assert "Lake/IMG_0.jpg" in catalogued(lib_root)


def test_the_mode_in_the_configuration_does_the_same(lib_root: Path, library: Path) -> None:
    (lib_root / "config").mkdir()
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps({"export": {"mode": "update"}}))
    before = traces(lib_root)
    assert run(lib_root, library) == 0
    assert traces(lib_root) == before


def test_a_modification_time_alone_makes_a_photo_be_looked_at_again(lib_root: Path, library: Path) -> None:
    os.utime(library / "Alps" / "IMG_0.jpg", ns=(1, 1))
    before = names(lib_root)
    assert update(lib_root, library) == 0
    assert names(lib_root) == before


def test_a_file_edited_since_the_export_is_never_overwritten(lib_root: Path, library: Path) -> None:
    edited = lib_root / "pipeline" / "albums" / "Alps" / "IMG_2.jpg"
    edited.write_bytes(edited.read_bytes() + b"an edit by another program")
    by_hand = edited.read_bytes()
    assert update(lib_root, library) == 0
    assert edited.read_bytes() == by_hand
    assert run(lib_root, library, "--no-cleanup") == 0
    assert edited.read_bytes() == by_hand
    assert (edited.parent / "IMG_2 (2).jpg").is_file()


def test_an_edited_file_whose_photo_changed_too_fails_that_photo_and_stays(
    lib_root: Path, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = lib_root / "pipeline" / "albums" / "Alps" / "IMG_2.jpg"
    edited.write_bytes(b"an edit by another program")
    picture(library / "Alps" / "IMG_2.jpg", 99)
    assert update(lib_root, library) == 3
    assert edited.read_bytes() == b"an edit by another program"
    assert "was left alone" in capsys.readouterr().out


def rows(lib_root: Path, run_id: int) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(lib_root / "state" / "skicyclerun.sqlite3")) as connection:
        return connection.execute(
            "SELECT folder, photos.position, file_name, photos.attempts, photos.status, present"
            " FROM photos JOIN albums ON albums.id = album WHERE run_id = ? ORDER BY folder, photos.position",
            (run_id,),
        ).fetchall()


def test_what_is_carried_over_leaves_behind_what_it_was(lib_root: Path, library: Path) -> None:
    first = rows(lib_root, 1)
    assert first[0] == ("Alps", 1, "IMG_0.jpg", 1, "exported", 1)
    picture(library / "Alps" / "A first one.jpg", 200)
    picture(library / "Alps" / "IMG_2.jpg", 210)
    assert update(lib_root, library) == 0
    replaced = "IMG_2.jpg"
    assert rows(lib_root, 1) == [(*row[:5], 0) for row in first], "what the first run did is told as before"
    assert rows(lib_root, 2) == [
        ("Alps", 1, "A first one.jpg", 1, "exported", 1),
        *(
            (folder, position + (folder == "Alps"), name, int(name == replaced and folder == "Alps"), "exported", 1)
            for folder, position, name, *_ in first
        ),
    ]


def test_rows_of_several_runs_go_on_together(lib_root: Path, library: Path) -> None:
    """An album of which some rows are still those of the run before, as after a stop in the middle of one."""
    picture(library / "Alps" / "IMG_3.jpg", 220)
    torn = library / "Alps" / "IMG_1.jpg"
    torn.write_bytes(b"\xff\xd8\xff\xe0 torn")
    assert update(lib_root, library) == 3
    assert ("Alps", 2, "IMG_1.jpg", 1, "exported", 1) in rows(lib_root, 1), "the earlier file speaks for itself still"
    picture(torn, 20)
    assert update(lib_root, library) == 0
    assert [row[5] for row in rows(lib_root, 3)] == [1] * 6
    assert not any(row[5] for run_id in (1, 2) for row in rows(lib_root, run_id))
    before = traces(lib_root)
    assert update(lib_root, library) == 0
    assert traces(lib_root) == before
    assert [row[3] for row in rows(lib_root, 4)] == [0] * 6
