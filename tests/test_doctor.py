"""`skicyclerun doctor`: what it finds, what it says to do, and that it changes nothing."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import plistlib
import shutil
import sqlite3
import stat
from collections import namedtuple
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from skicyclerun.commands.doctor import doctor
from skicyclerun.health import checks, disk, macos
from skicyclerun.health.findings import Verdict
from skicyclerun.models import SourceKind
from skicyclerun.run.lock import RunLock
from skicyclerun.stages.registry import STAGES
from skicyclerun.state.store import Store
from tests.shared_libraries import (
    PHOTOS_4_LIBRARY,
    TEST_LIBRARY,
    copy_library,
    folder_for_everyone,
    tree_state,
    without_root_powers,
)
from tests.standin_osascript.scenario import Scenario, error

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    folder = tmp_path / "lib root"
    folder.mkdir()
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def run(*words: str | Path, env: dict[str, str] | None = None) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code and the findings by check; of several the worst."""
    result = CliRunner().invoke(doctor, [*map(str, words), "--json"], env=env or {}, standalone_mode=False)
    if result.exception:
        raise result.exception
    found: dict[str, dict[str, str]] = {}
    order = ["ok", "warning", "failed"]
    answer: dict[str, Any] = json.loads(result.stdout)
    for each in answer["checks"]:
        known = found.get(each["check"])
        if known is None or order.index(each["status"]) > order.index(known["status"]):
            found[each["check"]] = each
    assert answer["ok"] is (result.return_value == 0)
    return int(result.return_value), found


def test_a_healthy_place_is_said_to_be_one(lib_root: Path, photos: Path) -> None:
    code, found = run("--lib-root", lib_root, "--library", photos)
    assert code == 0
    assert list(found) == [
        "configuration", "python", "packages", "heic", "source", "osascript", "AppleScript", "automation",
        "Full Disk Access",
        "library", "disk space (lib_root)", "file system (lib_root)", "lock", "state",
        *(f"stage {stage.name}" for stage in STAGES),
    ]  # fmt: skip
    assert {check for check, line in found.items() if line["status"] == "failed"} == set()


def test_lines_for_people_say_the_same_and_cannot_move_the_cursor(lib_root: Path, photos: Path) -> None:
    strange = photos / "red\x1b[31m"
    result = CliRunner().invoke(doctor, ["--lib-root", str(lib_root), "--library", str(strange)], standalone_mode=False)
    assert result.return_value == 1
    lines = result.stdout.splitlines()
    assert all(line.split()[0] in ("ok", "warning", "failed", "->") for line in lines)
    at = next(number for number, line in enumerate(lines) if line.startswith("failed   library"))
    assert "red\\x1b[31m" in lines[at]
    assert "--library" in lines[at + 1]
    assert "\x1b" not in result.stdout


def test_looking_leaves_nothing_behind(lib_root: Path, photos: Path) -> None:
    (lib_root / "pipeline" / "albums").mkdir(parents=True)
    run("--lib-root", lib_root, "--library", photos)
    assert sorted(path.relative_to(lib_root).as_posix() for path in lib_root.rglob("*")) == [
        "pipeline",
        "pipeline/albums",
    ]


def test_a_lib_root_that_is_not_there_is_not_made(tmp_path: Path, photos: Path) -> None:
    code, found = run("--lib-root", tmp_path / "none", "--library", photos)
    assert code == 0
    assert "the first run makes it" in found["file system (lib_root)"]["detail"]
    assert sorted(os.listdir(tmp_path)) == ["photos"]


def test_a_configuration_that_is_wrong_does_not_end_the_examination(lib_root: Path) -> None:
    config = lib_root / "config.json"
    config.write_text('{"export": {"jpeg_quality": 101}}')
    code, found = run("--lib-root", lib_root, "--config", config)
    assert code == 1
    assert "export.jpeg_quality" in found["configuration"]["detail"]
    assert found["python"]["status"] == "ok"


def test_what_a_wrong_configuration_is_warned_of_is_said_as_well(lib_root: Path) -> None:
    config = lib_root / "config.json"
    config.write_text('{"export": {"jpeg_quality": 101}, "clenup": {}}')
    arguments = ["--lib-root", str(lib_root), "--config", str(config)]
    lines = CliRunner().invoke(doctor, arguments, standalone_mode=False).stdout.splitlines()
    assert lines[0].startswith("warning  configuration")
    assert "Did you mean 'cleanup'?" in lines[0]
    assert lines[1].startswith("failed   configuration")


def test_without_a_lib_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKICYCLERUN_LIB_ROOT", raising=False)
    code, found = run()
    assert code == 1
    assert "SKICYCLERUN_LIB_ROOT" in found["configuration"]["detail"]


# ── the program ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_old_python_fails() -> None:
    assert checks.check_python((3, 10, 4)).verdict is Verdict.FAILED


def test_packages_that_are_absent_broken_or_old_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = checks.check_packages(["click", "no-such-package"])
    assert finding.verdict is Verdict.FAILED
    assert finding.detail == "no-such-package is not installed"
    monkeypatch.setattr(checks, "_requirements", lambda: {"click": "999.0"})
    assert "999.0 is needed" in checks.check_packages().detail
    monkeypatch.setitem(checks._MODULES, "click", "tests.no_such_module")
    assert "cannot be loaded" in checks.check_packages(["click"]).detail


def test_raw_support_is_only_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = importlib.import_module

    def refuse(name: str, package: str | None = None) -> Any:
        if name == "rawpy":
            raise ModuleNotFoundError("No module named 'rawpy'", name="rawpy")
        return imported(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)
    finding = checks.check_packages(["click"])
    assert finding.verdict is Verdict.WARNING
    assert "[raw]" in finding.next_step


def test_the_decoder_of_heics_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = checks.check_heic()
    assert (finding.verdict, finding.detail) == (Verdict.OK, "plain HEICs are decoded by FFmpeg, all others by libheif")
    monkeypatch.setattr(checks, "why_not_used", lambda: "av is not installed")
    finding = checks.check_heic()
    assert finding.verdict is Verdict.OK
    assert "decoded by libheif; FFmpeg would be faster, but av is not installed" in finding.detail


def test_requirements_come_from_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["anyio>=4.4", "pillow-heif>=0.18", 'rawpy>=0.21; extra == "raw"', "click[extra] >= 8.1.7"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert checks._requirements() == {"anyio": "4.4", "pillow-heif": "0.18", "click": "8.1.7"}


# ── macOS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_osascript_is_only_missed_where_it_is_needed(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "osascript")
    assert macos.check_osascript(nowhere, wanted=False, platform="linux").verdict is Verdict.OK
    assert macos.check_osascript(nowhere, wanted=False, platform="darwin").verdict is Verdict.FAILED
    assert macos.check_osascript(nowhere, wanted=True, platform="linux").verdict is Verdict.FAILED


def test_photos_is_asked_with_a_real_event(lib_root: Path, tmp_path: Path) -> None:
    scenario = Scenario(tmp_path / "standin")
    code, found = run("--lib-root", lib_root, "--source", "apple_photos", env=scenario.environment())
    assert code == 0
    assert found["automation"]["detail"] == "Photos 10.0 answers."
    assert len(scenario.calls("preflight")) == 1


def test_photos_is_left_alone_where_another_source_is_read(lib_root: Path, photos: Path, tmp_path: Path) -> None:
    scenario = Scenario(tmp_path / "standin")
    run("--lib-root", lib_root, "--library", photos, env=scenario.environment())
    assert scenario.notes() == []


def test_a_permission_that_was_denied_is_said_with_the_way_to_grant_it(lib_root: Path, tmp_path: Path) -> None:
    scenario = Scenario(tmp_path / "standin")
    scenario.add_fault("*", error=error(-1743, "Not authorised to send Apple events to Photos."), times=-1)
    code, found = run("--lib-root", lib_root, "--source", "apple_photos", env=scenario.environment())
    assert code == 1
    assert "-1743" in found["automation"]["detail"]
    assert "Automation" in found["automation"]["next_step"]


async def test_what_macos_will_ask_is_said_before_and_the_advice_names_this_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Scenario(tmp_path / "standin")
    scenario.add_fault("*", error=error(-1743, "Not authorised to send Apple events to Photos."), times=-1)
    for name, value in scenario.environment().items():
        monkeypatch.setenv(name, value)
    asked_by_then: list[tuple[str, int]] = []
    finding = await macos.check_permission(
        "osascript",
        wanted=True,
        seconds=30,
        on_wait=lambda waiting: asked_by_then.append((waiting.note, len(scenario.notes()))),
        typed="skicyclerun doctor --source apple_photos",
    )
    assert "macOS asks whether" in asked_by_then[0][0]
    assert asked_by_then[0][1] == 0
    assert finding.next_step.endswith("Then `skicyclerun doctor --source apple_photos`.")


def fake_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    program = tmp_path / "bin" / "osacompile"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_the_script_is_compiled_where_there_is_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path, monkeypatch, 'test "$1" = -o && test -f "$3" && touch "$2"')
    finding = macos.check_script_compiles()
    assert (finding.verdict, finding.detail.endswith("compiles")) == (Verdict.OK, True)


def test_a_script_that_does_not_compile_fails_with_what_the_compiler_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_compiler(tmp_path, monkeypatch, "echo '39:41: syntax error: Expected end of line. (-2741)' >&2; exit 1")
    finding = macos.check_script_compiles()
    assert finding.verdict is Verdict.FAILED
    assert "(-2741)" in finding.detail


def test_full_disk_access_is_about_the_library_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_for_everyone() as folder:
        library = folder / "L.photoslibrary"
        (library / "database").mkdir(parents=True)
        database = library / "database" / "Photos.sqlite"
        database.write_bytes(b"x")
        os.chmod(library, 0o755)
        os.chmod(library / "database", 0o755)
        monkeypatch.setenv("HOME", str(folder))
        check = macos.check_full_disk_access
        assert check(library, platform="linux").verdict is Verdict.OK
        assert check(library, platform="darwin").verdict is Verdict.OK
        assert "cannot be told" in check(None, platform="darwin").detail
        database.chmod(0)
        probe = folder / "Library" / "Application Support" / "com.apple.TCC" / "TCC.db"
        probe.parent.mkdir(parents=True)
        probe.write_bytes(b"x")
        probe.chmod(0)
        for made in (folder / "Library", probe.parent.parent, probe.parent):
            made.chmod(0o755)
        with without_root_powers():
            denied, warned = check(library, platform="darwin"), check(None, platform="darwin")
    assert (denied.verdict, warned.verdict) == (Verdict.FAILED, Verdict.WARNING)
    assert "Full Disk Access" in denied.next_step


# ── the library ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_library_is_found_with_its_version_and_not_written(tmp_path: Path, lib_root: Path) -> None:
    library = copy_library(TEST_LIBRARY, tmp_path)
    before = tree_state(library)
    code, found = run("--lib-root", lib_root, "--library", library)
    assert code == 0
    assert "Photos 8, model version 16320" in found["library"]["detail"]
    assert tree_state(library) == before


def library_of_model(folder: Path, version: int) -> Path:
    library = folder / "Fake.photoslibrary"
    (library / "database").mkdir(parents=True)
    with closing(sqlite3.connect(library / "database" / "Photos.sqlite")) as connection:
        connection.execute("CREATE TABLE Z_METADATA (Z_VERSION INTEGER, Z_UUID TEXT, Z_PLIST BLOB)")
        connection.execute("INSERT INTO Z_METADATA VALUES (1, '', ?)", (plistlib.dumps({"PLModelVersion": version}),))
        connection.commit()
    return library


def test_a_library_of_the_future_is_a_warning(tmp_path: Path) -> None:
    finding = checks.check_library(SourceKind.PHOTOS_LIBRARY, library_of_model(tmp_path, 999_999_999))
    assert finding.verdict is Verdict.WARNING
    assert "--upgrade osxphotos" in finding.next_step


def test_a_library_whose_version_has_a_name_of_two_parts_is_known(tmp_path: Path) -> None:
    finding = checks.check_library(SourceKind.PHOTOS_LIBRARY, library_of_model(tmp_path, 17_700))
    assert "Photos 9, model version 17700" in finding.detail


def test_a_library_of_photos_4_is_told_by_its_version_and_not_written(tmp_path: Path) -> None:
    library = copy_library(PHOTOS_4_LIBRARY, tmp_path)
    before = tree_state(library)
    finding = checks.check_library(SourceKind.PHOTOS_LIBRARY, library)
    assert finding.verdict is Verdict.OK
    assert "Photos 4, library version 4016" in finding.detail
    assert tree_state(library) == before


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 200])
def test_what_is_no_photos_database_fails(tmp_path: Path, content: bytes) -> None:
    library = tmp_path / "L.photoslibrary"
    (library / "database").mkdir(parents=True)
    (library / "database" / "Photos.sqlite").write_bytes(content)
    finding = checks.check_library(SourceKind.PHOTOS_LIBRARY, library)
    assert finding.verdict is Verdict.FAILED
    assert "is no Photos database" in finding.detail


def test_a_library_that_is_absent_or_without_a_database_fails(tmp_path: Path) -> None:
    (tmp_path / "Empty.photoslibrary").mkdir()
    for name in ("None.photoslibrary", "Empty.photoslibrary"):
        assert checks.check_library(SourceKind.PHOTOS_LIBRARY, tmp_path / name).verdict is Verdict.FAILED


# ── the disk ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("free", "verdict"), [(10**11, Verdict.OK), (10**9, Verdict.WARNING), (10**6, Verdict.FAILED)])
def test_little_space_is_a_warning_and_next_to_none_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - free, free))
    assert disk.check_space("x", tmp_path / "not" / "yet").verdict is verdict


def test_the_file_system_is_tried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = disk.check_file_system("x", tmp_path)
    assert finding.verdict is Verdict.OK
    assert ("tells case apart" in finding.detail) is not (tmp_path / "a").with_name("A").exists()
    monkeypatch.setattr(disk, "_syncs_folders", lambda folder: False)
    assert disk.check_file_system("x", tmp_path).verdict is Verdict.WARNING
    monkeypatch.setattr(disk, "_locks", lambda path: False)
    assert disk.check_file_system("x", tmp_path).verdict is Verdict.FAILED
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_fails() -> None:
    with folder_for_everyone() as folder:
        with without_root_powers():
            finding = disk.check_file_system("x", folder)
    assert finding.verdict is Verdict.FAILED
    assert "cannot be written" in finding.detail


def test_each_disk_is_looked_at_once(tmp_path: Path) -> None:
    places = {"one": tmp_path, "two": tmp_path / "deeper", "three": tmp_path / "not" / "there"}
    assert disk.on_different_disks(places) == {"one": tmp_path}


def test_a_lock_that_is_held_is_said(lib_root: Path, photos: Path) -> None:
    with RunLock(lib_root, lib_root / "state" / "run.lock"):
        code, found = run("--lib-root", lib_root, "--library", photos)
    assert code == 0
    assert found["lock"]["status"] == "warning"
    assert str(os.getpid()) in found["lock"]["detail"]


# ── the state ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_state_that_is_whole_damaged_or_too_new(tmp_path: Path) -> None:
    database = tmp_path / "a #1?" / "state.sqlite3"
    assert "none yet" in (await checks.check_state(database)).detail
    await (await Store.open(database)).close()
    assert (await checks.check_state(database)).detail.endswith("whole")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 9999")
    assert (await checks.check_state(database)).verdict is Verdict.FAILED


async def test_pages_that_were_overwritten_are_found(tmp_path: Path) -> None:
    database = tmp_path / "state.sqlite3"
    await (await Store.open(database)).close()
    whole = await anyio.Path(database).read_bytes()
    await anyio.Path(database).write_bytes(whole[:4096] + b"\xa5" * 16_384 + whole[20_480:])
    finding = await checks.check_state(database)
    assert finding.verdict is Verdict.FAILED
    assert "rebuild-state" in finding.next_step


async def test_another_file_in_its_place_fails(tmp_path: Path) -> None:
    database = tmp_path / "state.sqlite3"
    shutil.copyfile(__file__, database)
    assert (await checks.check_state(database)).verdict is Verdict.FAILED
