"""What bad input gets: a clear sentence on stderr, the right exit code, no traceback, and nothing lost.

`Ended` refuses tracebacks in every one of these.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.command_line import (
    YES,
    album_of,
    exported,
    make_library,
    picture,
    skicyclerun,
    skicyclerun_process,
    status_of,
    write_config,
)
from tests.shared_libraries import (
    TEST_LIBRARY,
    copy_library,
    edit_database,
    folder_for_everyone,
    tree_state,
    without_root_powers,
)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg", "IMG_2.png"], "Coast": ["IMG_3.jpg"]})


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


# ── configuration ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_configuration_that_is_missing(lib_root: Path, tmp_path: Path) -> None:
    refused = skicyclerun("run", "--config", tmp_path / "nowhere.json", "--lib-root", lib_root)
    assert refused.code == 2
    assert "nowhere.json: there is no such configuration file" in refused.stderr
    assert "config init" in refused.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ('{"export": ', "the file ends in the middle"),
        ('{"export": {},}', "comma"),
        ("[1, 2]", "object"),
        ("\x00\x01", "line 1"),
        ('{"export": {"jpeg_quality": "high"}}', "export.jpeg_quality"),
        ('{"export": {"jpeg_quality": 200}}', "export.jpeg_quality"),
        ('{"export": {"jpg_quality": 90}}', "jpeg_quality"),
        ('{"export": {"timeouts": {"albums": 3}}}', "export.timeouts.album"),
        ('{"paths": {"archive": "{metadata_dri}/x"}}', "metadata_dir"),
        ('{"paths": {"archive": "{pipeline_base}/x", "pipeline_base": "{archive}/y"}}', "refers to itself"),
        ('{"paths": {"archive": "${NOT_SET_ANYWHERE}/x"}}', "NOT_SET_ANYWHERE"),
        ('{"pipeline": {"stages": ["exprot"]}}', "export"),
    ],
)
def test_a_configuration_that_is_wrong(library: Path, lib_root: Path, tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(text, encoding="utf-8")
    for extra in ([], ["--dry-run"], ["--check-config"]):
        done = skicyclerun("run", "--library", library, "--config", config, "--lib-root", lib_root, *extra)
        assert done.code == 2
        assert not lib_root.exists()
        assert said in done.stderr


def test_a_section_that_is_misspelt_is_carried_along_and_said(lib_root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, exprot={"jpeg_quality": 90})
    checked = skicyclerun("config", "check", "--config", config, "--lib-root", lib_root)
    assert checked.code == 0
    assert "Did you mean 'export'?" in checked.stderr


def test_a_section_that_is_misspelt_is_said_before_what_is_wrong(lib_root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, exprot={"jpeg_quality": 90}, cleanup={"enabled": "yes"}, logging={"level": 3})
    for command in (["config", "check"], ["run"], ["verify", "--repair"]):
        refused = skicyclerun(*command, "--config", config, "--lib-root", lib_root)
        assert refused.code == 2
        first, *others = refused.stderr.splitlines()
        assert first.startswith("Warning: ")
        assert "Did you mean 'export'?" in first
        assert any("cleanup.enabled" in line for line in others)


def test_several_wrong_values_are_told_at_once(lib_root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, export={"jpeg_quality": "high", "format": "gif"}, cleanup={"enabled": "yes"})
    refused = skicyclerun("config", "check", "--config", config, "--lib-root", lib_root)
    assert refused.code == 2
    for key in ("export.jpeg_quality", "export.format", "cleanup.enabled"):
        assert key in refused.stderr


def test_a_lib_root_that_is_not_named(library: Path) -> None:
    for command in (["run", "--library", library], ["status"], ["retry-failed"], ["config", "show"]):
        refused = skicyclerun(*command)
        assert refused.code == 2
        assert "SKICYCLERUN_LIB_ROOT" in refused.stderr
        assert "--lib-root" in refused.stderr


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_path_is_no_folder_and_least_of_all_the_one_one_is_in(
    library: Path, lib_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for options in (
        ["run", "--library", library, "--lib-root", empty],
        ["run", "--library", empty, "--lib-root", lib_root],
        ["run", "--library", library, "--lib-root", lib_root, "--config", empty],
        ["status", "--lib-root", empty],
        ["demo", "--to", empty],
        ["config", "init", empty],
    ):
        refused = skicyclerun(*options)
        assert refused.code == 2
        assert "empty" in refused.stderr
    monkeypatch.setenv("SKICYCLERUN_LIB_ROOT", empty)
    assert skicyclerun("run", "--library", library).code == 2
    assert list((tmp_path / "here").iterdir()) == []
    assert not lib_root.exists()


def test_options_that_contradict_each_other(library: Path, lib_root: Path) -> None:
    for options in (
        ["--no-cleanup", "--stages", "cleanup,export"],
        ["--force-clean"],
        ["--resume", "--fresh"],
        ["--source", "apple_photos", "--library", str(library)],
        ["--no-such-option"],
    ):
        refused = skicyclerun("run", *options, "--lib-root", lib_root)
        assert refused.code == 2, options
        assert refused.stderr.strip()
        assert not lib_root.exists()


# ── the library ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_library_that_is_missing(lib_root: Path, tmp_path: Path) -> None:
    for name in ("Nowhere.photoslibrary", "nowhere"):
        for command in (["run", "--yes"], ["run", "--dry-run"], ["albums"]):
            refused = skicyclerun(*command, "--library", tmp_path / name, "--lib-root", lib_root)
            assert refused.code == 1
            assert str(tmp_path / name) in refused.stderr
            assert not lib_root.exists()


def test_a_library_that_is_none(lib_root: Path, tmp_path: Path) -> None:
    hollow = tmp_path / "Hollow.photoslibrary"
    hollow.mkdir()
    file = tmp_path / "File.photoslibrary"
    file.write_text("not a library", encoding="utf-8")
    (tmp_path / "plain.txt").write_text("not a folder", encoding="utf-8")
    garbage = tmp_path / "Garbage.photoslibrary"
    (garbage / "database").mkdir(parents=True)
    (garbage / "database" / "Photos.sqlite").write_bytes(os.urandom(8192))
    for path in (hollow, file, tmp_path / "plain.txt", garbage):
        refused = skicyclerun("run", "--library", path, "--lib-root", lib_root)
        assert refused.code == 1, path
        assert str(path) in refused.stderr
        assert not lib_root.exists()


def test_a_library_of_an_unknown_schema(lib_root: Path, tmp_path: Path) -> None:
    library = copy_library(TEST_LIBRARY, tmp_path)
    edit_database(library, "DROP TABLE ZGENERICALBUM")
    refused = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert refused.code == 1
    assert str(library) in refused.stderr
    assert not lib_root.exists()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_library_that_is_unreadable() -> None:
    with folder_for_everyone() as folder:
        library = make_library(folder / "library", {"Alps": ["IMG_1.jpg"]})
        (folder / "home").mkdir()
        os.chmod(folder / "home", 0o777)
        # Everything that is imported late is imported now, while it can be reached.
        skicyclerun("run", "--library", library, "--lib-root", folder / "first")
        os.chmod(library, 0o000)
        with without_root_powers():
            refused = skicyclerun("run", "--library", library, "--lib-root", folder / "home" / "lib_root")
        assert refused.code == 1
        assert "cannot be read" in refused.stderr
        assert "permission" in refused.stderr.lower()
        assert not (folder / "home" / "lib_root").exists()


# ── photos ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_photos_that_cannot_be_read_fail_alone_with_the_reason(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["good.jpg", "good.png", "good.heic"]})
    alps = library / "Alps"
    (alps / "truncated.jpg").write_bytes(picture("t.jpg", (64, 64))[:-200])
    (alps / "truncated.png").write_bytes(picture("t.png", (64, 64))[:60])
    (alps / "truncated.heic").write_bytes(picture("t.heic", (64, 64))[:200])
    (alps / "zero.jpg").write_bytes(b"")
    (alps / "text.jpg").write_bytes(b"this is no picture" * 20)
    (alps / "link.jpg").symlink_to("/etc/passwd")
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert done.code == 3
    album = album_of(status_of(lib_root), "Alps")
    why = {photo["original_filename"]: photo["reason"] for photo in album["not_exported"]}
    assert sorted(why) == ["text.jpg", "truncated.heic", "truncated.jpg", "truncated.png", "zero.jpg"]
    assert all(why.values())
    assert album["exported"] == 3
    assert len(exported(lib_root)) == 3
    assert album["reason"] == "5 of 8 photos could not be exported"


def test_a_photo_whose_extension_lies_is_exported_as_what_it_is(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": []})
    (library / "Alps" / "really_a_png.jpg").write_bytes(picture("x.png"))
    (library / "Alps" / "really_a_jpeg.heic").write_bytes(picture("x.jpg"))
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root).code == 0
    assert all(data.startswith(b"\xff\xd8\xff") for data in exported(lib_root).values())
    assert sorted(exported(lib_root)) == ["Alps/really_a_jpeg.jpg", "Alps/really_a_png.jpg"]


def test_a_photo_of_fifty_thousand_pixels_wide(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["good.jpg"]})
    (library / "Alps" / "wide.png").write_bytes(picture("wide.png", (50_000, 8)))
    (library / "Alps" / "huge.png").write_bytes(huge_png(50_000, 50_000))
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert done.code == 3
    album = album_of(status_of(lib_root), "Alps")
    assert [photo["original_filename"] for photo in album["not_exported"]] == ["huge.png"]
    assert "pixels" in album["not_exported"][0]["reason"]
    assert sorted(exported(lib_root)) == ["Alps/good.jpg", "Alps/wide.jpg"]


def huge_png(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that claims to be that large."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


# ── the disk ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    point = tmp_path / "small"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(point)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


def test_a_disk_that_fills_up_keeps_what_is_there_and_the_run_can_be_resumed(tmp_path: Path, small_disk: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": []})
    for number in range(1, 9):
        data = picture(f"{number}.jpg")
        # A comment segment for each 64 kB makes it large.
        (library / "Alps" / f"IMG_{number}.jpg").write_bytes(
            data[:2] + (b"\xff\xfe\xff\xff" + bytes([number]) * 65533) * 6 + data[2:]
        )
    full = skicyclerun("run", "--library", library, "--lib-root", small_disk)
    assert full.code == 1
    assert "disk is full" in full.stderr
    assert "skicyclerun run --resume" in full.stderr
    report = skicyclerun("status", "--lib-root", small_disk)
    assert report.code == 0
    before = exported(small_disk)
    assert len(before) < 8
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert skicyclerun("run", "--resume", "--lib-root", small_disk).code == 0
    assert exported(small_disk).items() >= before.items()
    assert len(exported(small_disk)) == 8


@pytest.mark.parametrize("point", ["photo.staged", "group.synced", "group.renamed", "catalog.written"])
def test_no_space_at_any_write_is_a_sentence_and_the_run_can_be_resumed(
    library: Path, lib_root: Path, point: str
) -> None:
    full = skicyclerun_process(
        "run", "--library", library, "--lib-root", lib_root, extra={"SKICYCLERUN_FAULT_ENOSPC": point}
    )
    assert full.code == 1
    assert "disk is full" in full.stderr.lower()
    assert skicyclerun("status", "--lib-root", lib_root).code == 0
    assert skicyclerun("run", "--resume", "--lib-root", lib_root).code == 0
    assert sorted(exported(lib_root)) == ["Alps/IMG_1.jpg", "Alps/IMG_2.jpg", "Coast/IMG_3.jpg"]


def test_a_disk_that_is_read_only(library: Path, small_disk: Path) -> None:
    first = skicyclerun("run", "--library", library, "--lib-root", small_disk / "old")
    assert first.code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = tree_state(small_disk)
    for lib_root in (small_disk / "new", small_disk / "old"):
        refused = skicyclerun("run", *YES, "--library", library, "--lib-root", lib_root)
        assert refused.code == 1
        assert "read-only" in refused.stderr.lower()
        assert str(lib_root) in refused.stderr
    shown = skicyclerun("status", "--lib-root", small_disk / "old")
    assert shown.code == 0
    assert "2 of 2 albums done" in shown.stdout
    assert tree_state(small_disk) == before


def test_a_file_in_the_place_of_a_folder(library: Path, lib_root: Path, tmp_path: Path) -> None:
    (lib_root / "pipeline").mkdir(parents=True)
    (lib_root / "pipeline" / "albums").write_text("in the way", encoding="utf-8")
    refused = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert refused.code == 2
    assert str(lib_root / "pipeline" / "albums") in refused.stderr
    file = tmp_path / "file"
    file.write_text("in the way", encoding="utf-8")
    refused = skicyclerun("run", "--library", library, "--lib-root", file)
    assert refused.code in (1, 2)
    assert str(file) in refused.stderr


def test_an_export_into_its_own_source_is_refused(library: Path) -> None:
    before = tree_state(library)
    refused = skicyclerun("run", "--library", library, "--lib-root", library)
    assert refused.code == 2
    assert tree_state(library) == before


# ── the state ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_database_of_a_newer_version_is_left_as_it_is(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    database = lib_root / "state" / "skicyclerun.sqlite3"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("PRAGMA journal_mode = DELETE")
    before, files = database.read_bytes(), exported(lib_root)
    for command in (["status"], ["run", "--library", library, "--yes"], ["run", "--resume"], ["retry-failed"]):
        refused = skicyclerun(*command, "--lib-root", lib_root)
        assert refused.code == 1
        assert "newer skicyclerun" in refused.stderr
        assert "Upgrade" in refused.stderr
    assert database.read_bytes() == before
    assert exported(lib_root) == files


@pytest.mark.parametrize("damage", ["garbage", "truncated", "foreign"])
def test_a_damaged_state_database_is_said_and_nothing_is_lost(library: Path, lib_root: Path, damage: str) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    database = lib_root / "state" / "skicyclerun.sqlite3"
    whole, files = database.read_bytes(), exported(lib_root)
    if damage == "garbage":
        database.write_bytes(b"garbage" * 1000)
    elif damage == "truncated":
        database.write_bytes(whole[: len(whole) // 2])
    else:
        database.unlink()
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE songs (title)")
    broken = database.read_bytes()
    looked = skicyclerun("status", "--lib-root", lib_root)
    assert looked.code == 1
    assert str(database) in looked.stderr
    assert database.read_bytes() == broken
    refused = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--yes")
    assert refused.code == 1
    assert str(database) in refused.stderr
    kept = [path.read_bytes() for path in database.parent.iterdir() if path.name.startswith(database.name)]
    assert broken in kept
    assert exported(lib_root) == files


def test_a_catalog_that_does_not_parse_is_set_aside_and_said(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    master = lib_root / "metadata" / "master.json"
    master.write_bytes(b'{"half": ')
    again = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--no-cleanup")
    assert again.code == 0
    assert "master.json" in again.stderr
    (aside,) = master.parent.glob("master.json.corrupt-*")
    assert aside.read_bytes() == b'{"half": '
    assert b"IMG_3.jpg" in master.read_bytes()


def test_a_misspelt_command_is_told_the_nearest_one() -> None:
    refused = skicyclerun("staus")
    assert (refused.code, "Did you mean 'status'?" in refused.stderr) == (2, True)
    assert "Did you mean" not in skicyclerun("xyzzy").stderr


def test_an_archive_that_is_not_there_is_a_wrong_name_like_any_other(tmp_path: Path) -> None:
    for command in ("restore", "verify"):
        refused = skicyclerun("archive", command, "nope", "--lib-root", tmp_path)
        assert (refused.code, "'nope'" in refused.stderr) == (2, True)


def test_each_remedy_is_told_once(tmp_path: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"]})
    refused = skicyclerun("run", "--library", library, "--lib-root", library / "site")
    assert refused.code == 2
    assert refused.stderr.count("lies in the source") == 1
    assert refused.stderr.count("Name another --lib-root.") == 1
    file = write_config(tmp_path, paths={"archive": "{albums}", "pipeline_base": "${NOWHERE_NAMED}/x"})
    refused = skicyclerun("run", "--config", file, "--library", library, "--lib-root", tmp_path / "site")
    steps = [line for line in refused.stderr.splitlines() if not line.startswith("Error")]
    assert len(refused.stderr.splitlines()) > len(steps) >= 1
    assert len(set(steps)) == len(steps)
    assert all(line.startswith("       ") for line in steps)


def test_listing_albums_needs_no_lib_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKICYCLERUN_LIB_ROOT", raising=False)
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"]})
    listed = skicyclerun("albums", "--library", library)
    assert (listed.code, "Alps" in listed.stdout) == (0, True)
    refused = skicyclerun("run", "--library", library)
    assert (refused.code, "SKICYCLERUN_LIB_ROOT" in refused.stderr) == (2, True)
