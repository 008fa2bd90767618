"""Putting the old outputs away before a fresh export, and `demo`, which shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.command_line import YES, exported, make_library, skicyclerun, status_of, write_config
from tests.shared_libraries import tree_state


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Empty": []})


@pytest.fixture
def lib_root(tmp_path: Path, library: Path) -> Path:
    """One that holds the outputs of a run already, and those of another program."""
    root = tmp_path / "lib_root"
    assert skicyclerun("run", "--library", library, "--lib-root", root).code == 0
    restyled = root / "pipeline" / "lora_processed" / "Alps"
    restyled.mkdir(parents=True)
    (restyled / "IMG_1_style.jpg").write_bytes(b"restyled")
    return root


def archives(lib_root: Path) -> list[Path]:
    return sorted((lib_root / "archive").glob("*.zip"))


def members(archive: Path) -> dict[str, bytes]:
    """What a ZIP holds below its one top folder, read by Python's zipfile."""
    with zipfile.ZipFile(archive) as stream:
        assert stream.testzip() is None
        names = [name for name in stream.namelist() if not name.endswith("/")]
        return {name.partition("/")[2]: stream.read(name) for name in names if name.count("/")}


def test_a_disk_without_room_for_the_archive_is_found_before_a_run_begins(
    library: Path, lib_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = exported(lib_root)
    for stages in ("cleanup,export", "cleanup"):
        command = ("run", *YES, "--stages", stages, "--library", library, "--lib-root", lib_root)
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1, used=1, free=0))
            for options in ((), ("--dry-run",)):
                refused = skicyclerun(*command, *options)
                assert (refused.code, "are missing" in refused.stderr) == (1, True)
        assert status_of(lib_root)["run"]["id"] == 1
        assert exported(lib_root) == before
    assert skicyclerun("run", *YES, "--library", library, "--lib-root", lib_root).code == 0


def test_a_fresh_run_archives_the_old_outputs_proves_them_and_replaces_them(library: Path, lib_root: Path) -> None:
    old, master = exported(lib_root), (lib_root / "metadata" / "master.json").read_bytes()
    (library / "Alps" / "IMG_2.jpg").unlink()
    done = skicyclerun("run", *YES, "--library", library, "--lib-root", lib_root)
    assert done.code == 0
    (archive,) = archives(lib_root)
    held = members(archive)
    assert {name: data for name, data in held.items() if name.startswith("albums/")} == {
        f"albums/{name}": data for name, data in old.items()
    }
    assert held["metadata/master.json"] == master
    assert held["lora_processed/Alps/IMG_1_style.jpg"] == b"restyled"
    assert list(exported(lib_root)) == ["Alps/IMG_1.jpg"]
    assert list((lib_root / "pipeline" / "lora_processed").iterdir()) == []
    assert b"IMG_2" not in (lib_root / "metadata" / "master.json").read_bytes()
    assert archive.name in done.stdout
    assert "proved" in done.stdout
    told = status_of(lib_root)["archive"]
    assert (told["file"], told["size"], told["status"]) == (archive.name, archive.stat().st_size, "done")
    assert told["proved_at"]
    assert subprocess.run(["unzip", "-tq", str(archive)], capture_output=True, check=False).returncode == 0


def test_the_cleanup_stage_alone_archives_and_deletes_nothing(lib_root: Path) -> None:
    before = tree_state(lib_root / "pipeline"), tree_state(lib_root / "metadata")
    done = skicyclerun("run", "--stages", "cleanup", "--lib-root", lib_root, "--yes")
    assert done.code == 0
    assert "left as they are" in done.stderr
    assert (tree_state(lib_root / "pipeline"), tree_state(lib_root / "metadata")) == before
    assert len(archives(lib_root)) == 1


def test_force_clean_empties_the_folders_once_they_are_archived(lib_root: Path) -> None:
    old = exported(lib_root)
    done = skicyclerun("run", "--stages", "cleanup", "--force-clean", "--lib-root", lib_root, "--yes")
    assert done.code == 0
    assert "empty now" in done.stderr
    assert exported(lib_root) == {}
    assert (lib_root / "pipeline" / "albums").is_dir()
    (archive,) = archives(lib_root)
    assert {f"albums/{name}": data for name, data in old.items()}.items() <= members(archive).items()
    assert str(archive) in done.stderr


def test_several_cleanups_make_several_archives_and_none_where_there_is_nothing(lib_root: Path) -> None:
    for _ in range(2):
        assert skicyclerun("run", "--stages", "cleanup", "--lib-root", lib_root).code == 0
    assert len(archives(lib_root)) == 2
    assert skicyclerun("run", "--stages", "cleanup", "--force-clean", *YES, "--lib-root", lib_root).code == 0
    assert len(archives(lib_root)) == 3
    nothing = skicyclerun("run", "--stages", "cleanup", "--lib-root", lib_root)
    assert nothing.code == 0
    assert "Nothing to archive" in nothing.stderr
    assert len(archives(lib_root)) == 3


@pytest.mark.parametrize("how", ["option", "enabled", "archive_old_outputs"])
def test_a_cleanup_that_is_switched_off_leaves_everything(
    library: Path, lib_root: Path, tmp_path: Path, how: str
) -> None:
    (lib_root / "pipeline" / "albums" / "Alps" / "notes.txt").write_bytes(b"mine")
    options: list[str | Path] = ["--no-cleanup"]
    if how != "option":
        options = ["--config", write_config(tmp_path, cleanup={how: False})]
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root, *options).code == 0
    assert archives(lib_root) == []
    assert exported(lib_root)["Alps/notes.txt"] == b"mine"
    assert (lib_root / "pipeline" / "lora_processed" / "Alps" / "IMG_1_style.jpg").is_file()


def test_what_will_be_deleted_is_said_before(lib_root: Path, library: Path) -> None:
    kept = skicyclerun("run", "--stages", "cleanup", "--lib-root", lib_root, "--dry-run").stderr
    assert "nothing is deleted" in kept
    emptied = skicyclerun("run", "--stages", "cleanup", "--force-clean", "--lib-root", lib_root, "--dry-run").stderr
    assert "then empty these folders" in emptied
    for name in ("albums", "lora_processed", "metadata"):
        assert name in emptied
    assert archives(lib_root) == []


def test_an_export_whose_library_cannot_be_opened_archives_and_deletes_nothing(lib_root: Path, tmp_path: Path) -> None:
    outputs = [path for path in lib_root.iterdir() if path.name != "logs"]  # where the reason is left
    before = [tree_state(path) for path in outputs]
    assert skicyclerun("run", "--library", tmp_path / "gone", "--lib-root", lib_root, "--yes").code == 1
    assert skicyclerun("run", "--library", tmp_path / "library", "--album", "Nope", "--lib-root", lib_root).code == 2
    assert [tree_state(path) for path in outputs] == before


def test_a_link_out_of_the_folders_is_never_followed(library: Path, lib_root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_bytes(b"precious")
    os.symlink(outside, lib_root / "pipeline" / "albums" / "link")
    skicyclerun("run", *YES, "--library", library, "--lib-root", lib_root)
    assert (outside / "precious.txt").read_bytes() == b"precious"
    for archive in archives(lib_root):
        assert b"precious" not in members(archive).values()


def test_no_space_for_the_archive_leaves_the_old_outputs_and_can_be_resumed(
    library: Path, lib_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = exported(lib_root)
    monkeypatch.setattr("skicyclerun.files.fault_points._ENOSPC", "archive.first_member_written")
    monkeypatch.setattr("skicyclerun.files.fault_points._visits", {})
    full = skicyclerun("run", *YES, "--library", library, "--lib-root", lib_root)
    assert full.code == 1
    assert "full" in full.stderr
    assert exported(lib_root) == old
    assert list((lib_root / "archive").iterdir()) == []
    monkeypatch.setattr("skicyclerun.files.fault_points._ENOSPC", "")
    assert skicyclerun("run", "--resume", "--lib-root", lib_root).code == 0
    (archive,) = archives(lib_root)
    assert {f"albums/{name}": data for name, data in old.items()}.items() <= members(archive).items()


def test_the_demo_run_twice_archives_the_first_ones_outputs(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    first = skicyclerun("demo", "--to", folder)
    assert first.code == 0
    results = folder / "results"
    old = exported(results)
    titles = [album["title"] for album in status_of(results)["albums"]]
    assert "Coast/Harbour" in titles
    assert titles.count("Alps") == 2
    assert len(old) == status_of(results)["totals"]["expected"] >= 10
    assert str(results / "pipeline" / "albums") in first.stdout
    assert archives(results) == []
    second = skicyclerun("demo", "--to", folder)
    assert second.code == 0
    (archive,) = archives(results)
    assert {f"albums/{name}": data for name, data in old.items()}.items() <= members(archive).items()
    assert exported(results) == old
    assert archive.name in second.stdout
