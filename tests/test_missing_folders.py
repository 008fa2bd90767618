"""Folders that are not there: what is simply made, what is an error, and what is asked at a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from skicyclerun.errors import FolderMissing
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.missing_folders import check_folders, missing_folders
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import parse_stages
from tests.command_line import Terminal, exported, make_library, skicyclerun, write_config
from tests.standin_osascript.scenario import Scenario

STAGES = parse_stages("cleanup,export")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", {"Alps": ["1.jpg"]})


def settings_with(tmp_path: Path, lib_root: Path, **paths: str) -> Settings:
    config = write_config(tmp_path, paths=paths)
    return load_settings(config, lib_root=lib_root, environ={"HOME": str(tmp_path / "home")})


def found(settings: Settings, allowed: frozenset[Path] = frozenset()) -> list[tuple[str, Path, Path]]:
    return [(each.key, each.folder, each.missing) for each in missing_folders(settings, STAGES, allowed)]


# ── which ones ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_below_a_folder_that_is_there_is_simply_made(tmp_path: Path) -> None:
    assert found(settings_with(tmp_path, tmp_path / "lib_root")) == []
    (tmp_path / "lib_root").mkdir()
    assert found(settings_with(tmp_path, tmp_path / "lib_root", pipeline_base="{lib_root}/deep/er")) == []


def test_a_lib_root_whose_parent_is_missing_is_one_missing_folder(tmp_path: Path) -> None:
    lib_root = tmp_path / "disk" / "deep" / "lib_root"
    assert found(settings_with(tmp_path, lib_root)) == [("lib_root", lib_root, tmp_path / "disk")]
    assert found(settings_with(tmp_path, lib_root), frozenset({lib_root})) == []


@pytest.mark.parametrize("disk", ["/Volumes/No Such Disk", "/media/nosuchdisk", "/run/media/nobody/nosuchdisk"])
def test_a_missing_disk_is_never_taken_for_a_folder_to_be_made(tmp_path: Path, disk: str) -> None:
    for lib_root in (Path(disk), Path(disk, "photos")):
        with pytest.raises(FolderMissing, match=r"is not there.*Nothing was touched") as caught:
            check_folders(settings_with(tmp_path, lib_root), STAGES)
        assert "Connect the disk" in caught.value.next_step
        assert "mkdir" not in caught.value.next_step
        assert caught.value.folder == lib_root


def test_a_folder_elsewhere_is_judged_by_itself(tmp_path: Path) -> None:
    away = tmp_path / "away"
    settings = settings_with(
        tmp_path, tmp_path / "root", apple_photos_export=str(away / "albums"), archive=str(away / "old")
    )
    assert sorted(found(settings)) == [
        ("paths.apple_photos_export", away / "albums", away),
        ("paths.archive", away / "old", away),
    ]
    away.mkdir()
    assert found(settings) == []


def test_folders_in_one_folder_of_ours_are_one_place(tmp_path: Path) -> None:
    base = tmp_path / "away" / "base"
    settings = settings_with(tmp_path, tmp_path / "root", pipeline_base=str(base), archive=str(base / "archive"))
    assert found(settings) == [("paths.pipeline_base", base, tmp_path / "away")]


def test_the_folder_of_a_file_counts_too(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, tmp_path / "root", state_db=str(tmp_path / "away" / "state" / "s.sqlite3"))
    assert found(settings) == [("paths.state_db", tmp_path / "away" / "state", tmp_path / "away")]


def test_only_what_the_stages_write_is_asked_for(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, tmp_path / "root", watermarked_final=str(tmp_path / "away" / "final"))
    assert found(settings) == []


# ── with nobody at a terminal ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", [["run"], ["run", "--resume"], ["run", "--dry-run"], ["retry-failed"]])
def test_elsewhere_a_missing_place_is_an_error_with_its_path(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lib_root = tmp_path / "disk" / "lib_root"
    source = ["--library", str(library)] if command[0] == "run" else []
    done = skicyclerun(*command, *source, "--lib-root", lib_root)
    assert done.code == 1
    assert f"{lib_root} (lib_root) is not there: {tmp_path / 'disk'} does not exist" in done.stderr
    assert f"mkdir -p {lib_root}" in done.stderr
    assert not (tmp_path / "disk").exists()


def test_a_missing_export_folder_elsewhere_is_named_with_its_key(library: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, paths={"apple_photos_export": str(tmp_path / "disk" / "albums")})
    done = skicyclerun("run", "--library", library, "--lib-root", tmp_path / "root", "--config", config)
    assert (done.code, "paths.apple_photos_export" in done.stderr) == (1, True)
    assert not (tmp_path / "disk").exists()
    assert not (tmp_path / "root").exists()


def test_the_doctor_says_so_too(library: Path, tmp_path: Path) -> None:
    done = skicyclerun("doctor", "--json", "--library", library, "--lib-root", tmp_path / "disk" / "lib_root")
    (finding,) = [each for each in done.json["checks"] if each["check"] == "folders"]
    assert (done.code, finding["status"]) == (1, "failed")
    assert f"{tmp_path / 'disk'} does not exist" in finding["detail"]


# ── at a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────


def run_at_terminal(library: Path, lib_root: Path, *more: str | Path) -> Terminal:
    terminal = Terminal("run", "--library", library, "--lib-root", lib_root, *more)
    terminal.read_until("What now?")
    assert "is not there" in terminal.shown
    return terminal


def test_it_is_made_when_the_person_says_so_and_not_before_they_have_confirmed(library: Path, tmp_path: Path) -> None:
    lib_root = tmp_path / "disk" / "lib_root"
    with run_at_terminal(library, lib_root) as terminal:
        terminal.type("make\n")
        terminal.read_until("Start? [Y/n]")
        assert not (tmp_path / "disk").exists()
        terminal.type("y\n")
        assert terminal.read_to_the_end().code == 0
    assert list(exported(lib_root)) == ["Alps/1.jpg"]


def test_another_lib_root_may_be_named(library: Path, tmp_path: Path) -> None:
    with run_at_terminal(library, tmp_path / "disk" / "lib_root") as terminal:
        terminal.type("other\n")
        terminal.read_until("Folder:")
        terminal.type(f"{tmp_path / 'another'}\n")
        terminal.read_until("Start? [Y/n]")
        assert f"export SKICYCLERUN_LIB_ROOT={tmp_path / 'another'}" in terminal.shown
        terminal.type("y\n")
        assert terminal.read_to_the_end().code == 0
    assert list(exported(tmp_path / "another")) == ["Alps/1.jpg"]
    assert not (tmp_path / "disk").exists()


def test_another_export_folder_may_be_named(library: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, paths={"apple_photos_export": str(tmp_path / "disk" / "albums")})
    with run_at_terminal(library, tmp_path / "root", "--config", config) as terminal:
        terminal.type("other\n")
        terminal.read_until("Folder:")
        terminal.type(f"{tmp_path / 'also' / 'missing'}\n")
        terminal.read_until(f"{tmp_path / 'also' / 'missing'} (paths.apple_photos_export) is not there")
        terminal.type("other\n")
        terminal.read_until(f"{tmp_path / 'also'} does not exist")
        terminal.type(f"{tmp_path / 'there'}\n")
        terminal.read_until("Start? [Y/n]")
        terminal.type("y\n")
        assert terminal.read_to_the_end().code == 0
    assert (tmp_path / "there" / "Alps" / "1.jpg").is_file()
    assert not (tmp_path / "also").exists()


def test_a_disk_that_was_connected_meanwhile_is_found(library: Path, tmp_path: Path) -> None:
    with run_at_terminal(library, tmp_path / "disk" / "lib_root") as terminal:
        (tmp_path / "disk").mkdir()
        terminal.type("again\n")
        terminal.read_until("Start? [Y/n]")
        terminal.type("n\n")
        assert terminal.read_to_the_end().code == 0


@pytest.mark.parametrize("typed", ["\n", "cancel\n"])
def test_stopping_there_touches_nothing(library: Path, tmp_path: Path, typed: str) -> None:
    with run_at_terminal(library, tmp_path / "disk" / "lib_root") as terminal:
        terminal.type(typed)
        done = terminal.read_to_the_end()
    assert (done.code, "Nothing was touched." in done.stdout) == (0, True)
    assert not (tmp_path / "disk").exists()


# ── with the dialogs of macOS ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    scenario = Scenario(tmp_path / "standin")
    album = scenario.add_album("Lake", [scenario.add_item("A.JPG")])
    scenario.dialogs = {"choose-albums": [album], "choose-folder": str(tmp_path / "chosen")}
    for name in ("PATH", "SKICYCLERUN_STANDIN"):
        monkeypatch.setenv(name, scenario.environment()[name])
    return scenario


def test_with_dialogs_another_folder_is_chosen_in_one(scenario: Scenario, tmp_path: Path) -> None:
    (tmp_path / "chosen").mkdir()
    lib_root = tmp_path / "disk" / "lib_root"
    done = skicyclerun("run", "--source", "apple_photos", "--dialogs", "--yes", "--lib-root", lib_root)
    assert done.code == 0
    assert list(exported(tmp_path / "chosen")) == ["Lake/A.jpg"]
    assert scenario.calls("choose-folder")[0]["words"][1] == str(tmp_path)


def test_a_folder_dialog_that_is_cancelled_touches_nothing(scenario: Scenario, tmp_path: Path) -> None:
    scenario.dialogs = {}
    scenario.write()
    lib_root = tmp_path / "disk" / "lib_root"
    done = skicyclerun("run", "--source", "apple_photos", "--dialogs", "--yes", "--lib-root", lib_root)
    assert (done.code, "Nothing was touched." in done.stderr) == (0, True)
    assert not (tmp_path / "disk").exists()
