"""`run` and the commands around it, on libraries that are as they should be."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from skicyclerun import __version__
from tests.command_line import (
    YES,
    album_of,
    exported,
    inodes,
    make_library,
    picture,
    skicyclerun,
    status_of,
    write_config,
)
from tests.shared_libraries import MEDIA_TYPES_LIBRARY, TEST_LIBRARY, tree_state

ALPS = ["IMG_0001.jpg", "IMG_0002.png", "IMG_0003.heic"]
COAST = ["IMG_0001.jpg", "IMG_0004.tif"]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", {"Alps": ALPS, "Coast": COAST})


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


# ── a fresh export ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fresh_export_makes_its_folders_and_accounts_for_every_photo(library: Path, lib_root: Path) -> None:
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--yes")
    assert done.code == 0
    files = exported(lib_root)
    assert sorted(files) == [
        "Alps/IMG_0001.jpg",
        "Alps/IMG_0002.jpg",
        "Alps/IMG_0003.jpg",
        "Coast/IMG_0001.jpg",
        "Coast/IMG_0004.jpg",
    ]
    for data in files.values():
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG"
            assert image.size == (16, 12)
    assert "2 of 2 albums done." in done.stdout
    assert "5 of 5 photos exported" in done.stdout


def test_albums_of_one_title_are_told_apart_in_the_progress(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "years", {"2023/Alps": ["a.jpg"], "2024/Alps": ["b.jpg"]})
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    for number, path in enumerate(("2023/Alps", "2024/Alps"), start=1):
        assert f"ALBUM: album_{number}_of_2 | done | {path} | 1 exported" in done.stderr
    told = skicyclerun("run", *YES, "--library", library, "--lib-root", lib_root, "--json").lines
    assert [event["title"] for event in told if event.get("event") == "album_finished"] == ["2023/Alps", "2024/Alps"]


def test_the_catalog_names_every_exported_file(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root, "--yes")
    catalog = json.loads((lib_root / "metadata" / "master.json").read_bytes())
    albums = lib_root / "pipeline" / "albums"
    assert sorted(catalog) == sorted(str(albums / name) for name in exported(lib_root))
    entry = catalog[str(albums / "Alps" / "IMG_0003.jpg")]
    assert (entry["type"], entry["album_name"], entry["source"]["original_filename"]) == (
        "exported",
        "Alps",
        "IMG_0003.heic",
    )


def test_nothing_but_what_is_promised_is_left_in_the_lib_root(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root, "--yes")
    assert sorted(path.name for path in lib_root.iterdir()) == ["archive", "logs", "metadata", "pipeline", "state"]
    assert sorted(path.name for path in (lib_root / "state").iterdir()) == ["run.lock", "skicyclerun.sqlite3"]
    assert sorted(path.name for path in (lib_root / "pipeline" / "albums").iterdir()) == ["Alps", "Coast"]


def test_the_library_is_never_written(library: Path, lib_root: Path) -> None:
    before = tree_state(library)
    skicyclerun("run", "--library", library, "--lib-root", lib_root, "--yes")
    assert tree_state(library) == before


def test_the_lib_root_may_come_from_the_environment(
    library: Path, lib_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKICYCLERUN_LIB_ROOT", str(lib_root))
    assert skicyclerun("run", "--library", library).code == 0
    assert len(exported(lib_root)) == 5


def test_a_configured_export_folder_that_is_missing_is_made(library: Path, lib_root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "not there yet"
    config = write_config(tmp_path, paths={"apple_photos_export": str(elsewhere)})
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root, "--config", config).code == 0
    assert (elsewhere / "Alps" / "IMG_0001.jpg").is_file()


# ── over existing files ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_export_over_existing_files_replaces_ours_and_gives_way_to_a_strangers(
    library: Path, lib_root: Path
) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root, "--album", "Alps")
    albums = lib_root / "pipeline" / "albums"
    before = inodes(lib_root)
    (albums / "Coast").mkdir()
    (albums / "Coast" / "IMG_0001.jpg").write_bytes(b"a stranger's")
    (library / "Alps" / "IMG_0001.jpg").write_bytes(picture("another.jpg"))
    again = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--no-cleanup")
    assert again.code == 0
    files = exported(lib_root)
    assert files["Coast/IMG_0001.jpg"] == b"a stranger's"
    assert sorted(files) == [
        "Alps/IMG_0001.jpg",
        "Alps/IMG_0002.jpg",
        "Alps/IMG_0003.jpg",
        "Coast/IMG_0001 (2).jpg",
        "Coast/IMG_0001.jpg",
        "Coast/IMG_0004.jpg",
    ]
    assert inodes(lib_root)["Alps/IMG_0001.jpg"] != before["Alps/IMG_0001.jpg"]
    with Image.open(io.BytesIO(files["Alps/IMG_0001.jpg"])) as image:
        assert image.getpixel((0, 0)) == Image.open(io.BytesIO(picture("another.jpg"))).getpixel((0, 0))


def test_a_symbolic_link_in_the_place_of_an_album_folder_is_never_followed(
    library: Path, lib_root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    albums = lib_root / "pipeline" / "albums"
    albums.mkdir(parents=True)
    (albums / "Alps").symlink_to(outside)
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--no-cleanup")
    assert list(outside.iterdir()) == []
    assert done.code == 3
    assert album_of(status_of(lib_root), "Coast")["status"] == "done"
    assert "Alps" in album_of(status_of(lib_root), "Alps")["reason"]


# ── albums of every kind ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("on_disk", "title", "folder"),
    [
        ("Coast:Harbour", "Coast/Harbour", "Coast_Harbour"),
        ("He said “no” \"yes\" 'maybe'", "He said “no” \"yes\" 'maybe'", "He said “no” _yes_ 'maybe'"),
        ("🏔️ Ski 🎿", "🏔️ Ski 🎿", "🏔️ Ski 🎿"),
        ("two\nlines", "two\nlines", "two_lines"),
        ("bell\x07 \x1b[31mred", "bell\x07 \x1b[31mred", "bell_ _[31mred"),
        ("u\u0308ber", "über", "über"),
        ("[red]markup[:red]", "[red]markup[/red]", "[red]markup[_red]"),
        ("100% *?<>|", "100% *?<>|", "100% _____"),
    ],
)
def test_an_album_with_special_characters_is_exported_and_reported(
    tmp_path: Path, lib_root: Path, on_disk: str, title: str, folder: str
) -> None:
    library = make_library(tmp_path / "library", {on_disk: ["IMG_1.jpg"]})
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert done.code == 0
    assert list(exported(lib_root)) == [f"{folder}/IMG_1.jpg"]
    assert album_of(status_of(lib_root), title)["folder"] == folder
    for text in (done.stdout, done.stderr):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "two\nlines" not in text


def test_two_albums_of_one_title_are_two_albums(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"2024/Alps": ["IMG_1.jpg"], "2025/Alps": ["IMG_2.jpg"]})
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root).code == 0
    assert sorted(exported(lib_root)) == ["Alps (2)/IMG_2.jpg", "Alps/IMG_1.jpg"]
    assert [album["path"] for album in status_of(lib_root)["albums"]] == ["2024/Alps", "2025/Alps"]


def test_an_empty_album_is_done_and_an_empty_library_is_said(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"Empty": [], "Full": ["IMG_1.jpg"]})
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root).code == 0
    empty = album_of(status_of(lib_root), "Empty")
    assert (empty["status"], empty["expected"]) == ("done", 0)


def test_an_empty_library_is_said_and_nothing_is_touched(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {})
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--yes")
    assert done.code == 0
    assert "no albums" in done.stderr
    assert str(library) in done.stderr
    assert not lib_root.exists()


# ── which albums, which stages ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("patterns", "titles"),
    [
        (["Alps"], ["Alps", "Alps"]),
        (["alps"], ["Alps", "Alps"]),
        (["2024/Alps"], ["Alps"]),
        (["*oas*"], ["Coast"]),
        (["Coast", "2025/*"], ["Alps", "Coast"]),
    ],
)
def test_albums_are_chosen_by_title_path_and_glob(
    tmp_path: Path, lib_root: Path, patterns: list[str], titles: list[str]
) -> None:
    albums = {"2024/Alps": ["a.jpg"], "2025/Alps": ["b.jpg"], "Coast": ["c.jpg"]}
    library = make_library(tmp_path / "library", albums)
    chosen = [argument for pattern in patterns for argument in ("--album", pattern)]
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root, *chosen).code == 0
    assert [album["title"] for album in status_of(lib_root)["albums"]] == titles


def test_an_album_is_chosen_by_its_id(library: Path, lib_root: Path) -> None:
    listed = skicyclerun("albums", "--json", "--library", library, "--lib-root", lib_root).json["albums"]
    coast = next(album for album in listed if album["title"] == "Coast")
    skicyclerun("run", "--library", library, "--lib-root", lib_root, "--album", coast["id"])
    assert sorted(exported(lib_root)) == ["Coast/IMG_0001.jpg", "Coast/IMG_0004.jpg"]


def test_an_album_that_is_not_there_is_answered_with_the_nearest(library: Path, lib_root: Path) -> None:
    refused = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--album", "Alsp")
    assert refused.code == 2
    assert "'Alsp'" in refused.stderr
    assert "'Alps'" in refused.stderr
    assert "skicyclerun albums" in refused.stderr
    assert not lib_root.exists()


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("exprot", "Did you mean 'export'"),
        (",", "No stage is named"),
    ],
)
def test_a_stage_that_cannot_be_run_is_refused_by_name(library: Path, lib_root: Path, stages: str, said: str) -> None:
    refused = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--stages", stages)
    assert refused.code == 2
    assert said in refused.stderr
    assert not lib_root.exists()


def archives(lib_root: Path) -> list[Path]:
    return sorted((lib_root / "archive").iterdir())


@pytest.mark.parametrize(
    "stages",
    [
        ["--stages", "export"],
        ["--stages", "export", "cleanup"],
        ["--stages=cleanup", "export"],
        ["--stages", "export,cleanup"],
        ["--stages", "cleanup", "--stages", "export"],
        ["--stages", "export", "--until", "export"],
        ["--stages", "export", "--from", "cleanup"],
    ],
)
def test_an_export_that_is_typed_does_the_cleanup_first(library: Path, lib_root: Path, stages: list[str]) -> None:
    for _ in range(2):
        assert skicyclerun("run", *YES, "--library", library, *stages, "--lib-root", lib_root).code == 0
    assert status_of(lib_root)["run"]["stages"] == ["cleanup", "export"]
    assert len(archives(lib_root)) == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--stages", "export", "--no-cleanup"],
        ["--stages", "export", "--update"],
        ["--stages", "export", "--from", "export"],
        ["--stages", "export", "--config", "disabled"],
        ["--stages", "export", "--config", "update"],
        ["--config", "alone"],
        ["--from", "export"],
    ],
)
def test_an_export_without_the_cleanup_leaves_the_old_outputs(
    library: Path, lib_root: Path, tmp_path: Path, options: list[str]
) -> None:
    sections: dict[str, dict[str, object]] = {
        "disabled": {"cleanup": {"enabled": False}},
        "update": {"export": {"mode": "update"}},
        "alone": {"pipeline": {"stages": ["export"]}},
    }
    given = [str(write_config(tmp_path, **sections[each])) if each in sections else each for each in options]
    for _ in range(2):
        assert skicyclerun("run", "--library", library, "--lib-root", lib_root, *given).code == 0
    assert status_of(lib_root)["run"]["stages"] == ["export"]
    assert archives(lib_root) == []


@pytest.mark.parametrize("left_out", [["--no-cleanup"], ["--update"]])
def test_a_cleanup_that_is_typed_and_left_out_is_refused(library: Path, lib_root: Path, left_out: list[str]) -> None:
    given = ("--library", library, "--lib-root", lib_root, *left_out)
    refused = skicyclerun("run", "--stages", "export", "cleanup", *map(str, given))
    assert refused.code == 2
    assert "contradicts" in refused.stderr
    assert not lib_root.exists()


def test_a_dry_run_of_an_export_that_is_typed_says_what_the_cleanup_would_do(library: Path, lib_root: Path) -> None:
    given = ("--library", library, "--lib-root", lib_root, "--stages", "export")
    assert skicyclerun("run", *given).code == 0
    looked = skicyclerun("run", *given, "--dry-run")
    assert looked.code == 0
    assert "then empty these folders" in looked.stderr
    assert f"{lib_root / 'pipeline' / 'albums'}: 5 files" in looked.stderr


def test_a_retry_takes_its_stages_as_words_and_does_no_cleanup(library: Path, lib_root: Path) -> None:
    whole = (library / "Alps" / "IMG_0001.jpg").read_bytes()
    (library / "Alps" / "IMG_0001.jpg").write_bytes(b"")
    given = ("--library", library, "--lib-root", lib_root, "--stages", "export", "preprocessing")
    assert skicyclerun("run", *given).code == 3
    before = inodes(lib_root)
    (library / "Alps" / "IMG_0001.jpg").write_bytes(whole)
    again = skicyclerun("retry-failed", "--stages", "preprocessing", "export", "--lib-root", lib_root)
    assert again.code == 0
    assert archives(lib_root) == []
    assert before.items() <= inodes(lib_root).items()


def test_a_word_that_belongs_to_no_option_is_refused(library: Path, lib_root: Path) -> None:
    for words in (["export"], ["--stages", "export", "--no-cleanup", "cleanup"]):
        refused = skicyclerun("run", *words, "--library", library, "--lib-root", lib_root)
        assert refused.code == 2
        assert "unexpected extra argument" in refused.stderr
        assert not lib_root.exists()


# ── looking without touching ──────────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_makes_nothing(library: Path, lib_root: Path, tmp_path: Path) -> None:
    before = tree_state(tmp_path)
    looked = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--dry-run")
    assert looked.code == 0
    assert "Alps" in looked.stderr
    assert "2 albums with 5 photos" in looked.stderr
    assert "nothing was touched" in looked.stderr
    assert tree_state(tmp_path) == before


def test_a_dry_run_over_earlier_results_says_what_would_be_deleted_and_touches_nothing(
    library: Path, lib_root: Path, tmp_path: Path
) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    before = tree_state(tmp_path)
    looked = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--dry-run")
    assert looked.code == 0
    assert "then empty these folders" in looked.stderr
    assert "6 files" in looked.stderr  # five photos and master.json
    assert tree_state(tmp_path) == before


def test_reading_commands_touch_nothing(library: Path, lib_root: Path, tmp_path: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    before = tree_state(tmp_path)
    for command in (["status"], ["status", "--json", "--photos"], ["albums", "--library", library], ["config", "show"]):
        assert skicyclerun(*command, "--lib-root", lib_root).code == 0
    assert tree_state(tmp_path) == before


def test_check_config_validates_and_touches_nothing(library: Path, lib_root: Path, tmp_path: Path) -> None:
    before = tree_state(tmp_path)
    checked = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--check-config")
    assert checked.code == 0
    assert "valid" in checked.stdout
    assert tree_state(tmp_path) == before


def test_check_config_refuses_what_is_wrong(lib_root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, export={"jpeg_quality": "high"})
    checked = skicyclerun("run", "--lib-root", lib_root, "--config", config, "--check-config")
    assert checked.code == 2
    assert "export.jpeg_quality" in checked.stderr


def test_config_init_show_and_check_go_together(lib_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    first = skicyclerun("config", "init", file)
    assert first.code == 0
    assert f"--config {file}" in first.stdout
    found = skicyclerun("config", "init", lib_root / "config" / "pipeline_config.json")
    assert f"It is found by itself where lib_root is {lib_root}." in found.stdout
    assert skicyclerun("config", "check", "--config", file, "--lib-root", lib_root).code == 0
    shown = skicyclerun("config", "show", "--config", file, "--lib-root", lib_root).json
    assert shown["paths"]["apple_photos_export"] == str(lib_root / "pipeline" / "albums")
    written = file.read_bytes()
    again = skicyclerun("config", "init", file)
    assert again.code == 2
    assert str(file) in again.stderr
    assert file.read_bytes() == written


# ── for other programs ────────────────────────────────────────────────────────────────────────────────────────────


def test_json_lines_tell_the_run_and_end_with_the_report(library: Path, lib_root: Path) -> None:
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--json")
    assert done.code == 0
    *events, report = done.lines
    assert {"run_started", "album_started", "photo_finished", "album_finished", "run_finished"} <= {
        event["event"] for event in events
    }
    assert report["event"] == "report"
    assert (report["run"]["status"], report["totals"]["exported"]) == ("finished", 5)
    assert {key: value for key, value in report.items() if key not in ("event", "said", "next")} == status_of(lib_root)


def test_json_of_a_run_that_had_nothing_to_do_is_one_report(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {})
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root, "--json")
    assert done.code == 0
    assert [line["event"] for line in done.lines] == ["report"]
    assert "no albums" in done.lines[0]["said"]


def test_albums_lists_photos_path_and_id(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"2024/Alps": ["a.jpg", "b.jpg"], "Coast": []})
    listed = skicyclerun("albums", "--library", library, "--lib-root", lib_root)
    assert listed.code == 0
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["2", "2024/Alps", "[2024/Alps]"],
        ["0", "Coast", "[Coast]"],
    ]
    as_json = skicyclerun("albums", "--json", "--library", library, "--lib-root", lib_root).json
    assert as_json["albums"][0] == {
        "id": "2024/Alps",
        "title": "Alps",
        "path": "2024/Alps",
        "photos": 2,
        "kind": "album",
    }


def test_version_and_help_name_the_program_and_its_exit_codes() -> None:
    assert skicyclerun("--version").stdout == f"skicyclerun, version {__version__}\n"
    helped = skicyclerun("--help")
    assert helped.code == 0
    for code in ("0", "1", "2", "3", "10", "11", "130"):
        assert f"\n    {code.ljust(4)} " in helped.stdout


def test_a_command_that_does_not_exist_is_usage(lib_root: Path) -> None:
    refused = skicyclerun("exprot", "--lib-root", lib_root)
    assert refused.code == 2
    assert "exprot" in refused.stderr


# ── the real libraries ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_real_library_ends_with_code_3_and_status_names_which_photos_and_why(lib_root: Path) -> None:
    done = skicyclerun("run", "--library", TEST_LIBRARY, "--lib-root", lib_root, "--yes")
    assert done.code == 3
    report = status_of(lib_root)
    failed = [album for album in report["albums"] if album["status"] == "failed"]
    assert [album["path"] for album in failed] == ["Folder2/Raw"]
    (raw,) = failed
    assert raw["reason"] == "2 of 4 photos have no original here"
    assert (raw["expected"], raw["exported"], raw["missing"], raw["failed"]) == (4, 2, 2, 0)
    assert sorted(photo["original_filename"] for photo in raw["not_exported"]) == ["DSC03584.dng", "IMG_2000.JPG"]
    assert all("no original" in photo["reason"] for photo in raw["not_exported"])
    text = skicyclerun("status", "--lib-root", lib_root).stdout
    assert "2 of 4 photos have no original here" in text
    assert "missing   DSC03584.dng has no original here" in text
    assert "missing   IMG_2000.JPG has no original here" in text
    assert {album["status"] for album in report["albums"]} == {"done", "failed"}
    assert len(exported(lib_root)) == 12
    assert '`"missing": "preview"` in `export` of the configuration, then `skicyclerun run --update`' in text


def test_what_has_no_original_comes_as_a_preview_once_the_configuration_says_so(lib_root: Path) -> None:
    assert skicyclerun("run", "--library", TEST_LIBRARY, "--lib-root", lib_root, "--yes").code == 3
    (lib_root / "config").mkdir()
    (lib_root / "config" / "pipeline_config.json").write_text('{"export": {"missing": "preview"}}')
    done = skicyclerun("run", "--update", "--library", TEST_LIBRARY, "--lib-root", lib_root)
    assert done.code == 0, done.stderr
    assert "Found 14 photos: 2 new, 0 replaced, 12 unchanged." in done.stdout
    assert "no original here" not in done.stdout


def test_retry_failed_asks_only_for_what_failed(lib_root: Path) -> None:
    skicyclerun("run", "--library", TEST_LIBRARY, "--lib-root", lib_root, "--yes")
    before, files = status_of(lib_root, "--photos"), inodes(lib_root)
    again = skicyclerun("retry-failed", "--lib-root", lib_root)
    assert again.code == 3
    after = status_of(lib_root, "--photos")
    assert inodes(lib_root) == files
    assert after["run"]["id"] == before["run"]["id"]
    for old, new in zip(before["albums"], after["albums"], strict=True):
        again_tried = 1 if old["path"] == "Folder2/Raw" else 0
        assert new["attempts"] == old["attempts"] + again_tried
        for old_photo, new_photo in zip(old["photos"], new["photos"], strict=True):
            asked = 1 if old_photo["status"] == "missing" else 0
            assert new_photo["attempts"] == old_photo["attempts"] + asked


def test_the_media_types_library_is_exported_whole(lib_root: Path) -> None:
    done = skicyclerun("run", "--library", MEDIA_TYPES_LIBRARY, "--lib-root", lib_root, "--yes")
    assert done.code == 0
    report = status_of(lib_root)
    assert report["totals"]["expected"] == report["totals"]["exported"] == len(exported(lib_root)) == 2
    nothing = skicyclerun("retry-failed", "--lib-root", lib_root)
    assert nothing.code == 0
    assert "Nothing to retry" in nothing.stderr
