"""`skicyclerun archive …` as a person or another program types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from skicyclerun.archive.clean import clean_folders
from skicyclerun.archive.create import write_archive
from skicyclerun.archive.plan import ArchivedFolder, plan_archive
from skicyclerun.archive.prove import prove_archive
from skicyclerun.archive.publish import archive_paths, open_proved, publish_archive
from skicyclerun.commands.archive import archive
from skicyclerun.errors import ArchiveUnknown, Cancelled, LockHeld, NoAlbumMatches, RestoreRefused, UsageError
from skicyclerun.run.lock import RunLock
from tests.archive_trees import STAMP, archive_outputs, make_outputs, read_tree

NAME = f"pipeline_{STAMP}.zip"


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lib_root with one archive, the folders still full."""
    monkeypatch.delenv("SKICYCLERUN_LIB_ROOT", raising=False)
    lib = tmp_path / "lib"
    make_outputs(lib / "pipeline")
    shutil.move(lib / "pipeline/metadata", lib / "metadata")
    for folder in _folders(lib):
        folder.path.mkdir(exist_ok=True)
    plan = plan_archive(_folders(lib))
    written = write_archive(plan, lib / "archive", timestamp=STAMP, archive_id="job-1")
    publish_archive(prove_archive(written.partial, written))
    return lib


def _folders(lib: Path) -> list[ArchivedFolder]:
    places = {"albums": "pipeline/albums", "lora_processed": "pipeline/lora_processed", "metadata": "metadata"}
    return [ArchivedFolder(name, lib / place) for name, place in places.items()]


def _run(lib: Path, *arguments: str, fails: type[Exception] | None = None) -> Result:
    result = CliRunner().invoke(archive, [*arguments, "--lib-root", str(lib)], standalone_mode=False)
    if fails is None:
        assert result.exception is None, result.exception
    else:
        assert isinstance(result.exception, fails), result
    return result


def test_list_shows_a_table_and_json(lib: Path) -> None:
    table = _run(lib, "list")
    assert NAME in table.stdout
    assert table.return_value == 0
    document = json.loads(_run(lib, "list", "--json").stdout)
    assert document["directory"] == str(lib / "archive")
    (row,) = document["archives"]
    assert (row["name"], row["files"]) == (NAME, 7)
    assert row["proved"].endswith("Z")


def test_list_of_no_archives_says_so_on_stderr(tmp_path: Path) -> None:
    result = _run(tmp_path, "list")
    assert result.stdout == ""
    assert "no archives" in result.stderr
    assert json.loads(_run(tmp_path, "list", "--json").stdout)["archives"] == []


def test_verify_ends_with_three_when_something_is_wrong(lib: Path) -> None:
    assert _run(lib, "verify", "--all").return_value == 0
    assert _run(lib, "verify", STAMP, "--quick").return_value == 0
    path = lib / "archive" / NAME
    data = bytearray(path.read_bytes())
    data[200_000] ^= 1
    path.write_bytes(data)
    assert _run(lib, "verify", "latest", "--quick").return_value == 0
    result = _run(lib, "verify", NAME)
    assert result.return_value == 3
    assert "IMG_1.jpg" in result.stdout
    document = json.loads(_run(lib, "verify", "--all", "--json").stdout)
    assert [row["ok"] for row in document["archives"]] == [False]


def test_verify_wants_a_name_or_all(lib: Path) -> None:
    _run(lib, "verify", fails=UsageError)
    _run(lib, "verify", NAME, "--all", fails=UsageError)
    _run(lib, "verify", "nope", fails=ArchiveUnknown)


def test_restore_puts_an_album_back_where_it_was(lib: Path) -> None:
    before = read_tree(lib)
    clean_folders(_folders(lib), open_proved(lib / "archive" / NAME).manifest)
    result = _run(lib, "restore", "latest", "--album", "Alps", "--album", "Zürich ☀")
    assert result.return_value == 0
    assert "not part of the current" in result.stderr
    assert "unknown_file" in result.stderr
    after = read_tree(lib)
    assert {path for path in before if path.startswith("pipeline/")} == {
        path for path in after if path.startswith("pipeline/")
    }
    assert all(before[path] == data for path, data in after.items() if path.startswith("pipeline/"))


def test_restore_elsewhere_and_not_over_other_files(lib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dry = _run(lib, "restore", NAME, "--to", str(out), "--dry-run")
    assert str(out / "albums/Alps/IMG_1.jpg") in dry.stdout
    assert not out.exists()
    elsewhere = _run(lib, "restore", NAME, "--to", str(out))
    assert "restored and proved" in elsewhere.stdout
    assert "not part of the current" not in elsewhere.stderr + dry.stderr
    (out / "metadata/master.json").write_text("{}")
    _run(lib, "restore", NAME, "--to", str(out), fails=RestoreRefused)
    assert (out / "metadata/master.json").read_text() == "{}"
    document = json.loads(_run(lib, "restore", NAME, "--to", str(out), "--overwrite", "--json").stdout)
    assert document["overwritten"] == [str(out / "metadata/master.json")]
    _run(lib, "restore", NAME, "--album", "Alp", fails=NoAlbumMatches)


def test_restore_ends_with_three_when_a_member_is_damaged(lib: Path, tmp_path: Path) -> None:
    path = lib / "archive" / NAME
    data = bytearray(path.read_bytes())
    data[200_000] ^= 1
    path.write_bytes(data)
    result = _run(lib, "restore", NAME, "--to", str(tmp_path / "out"))
    assert result.return_value == 3
    assert "IMG_1.jpg" in result.stdout


def test_prune_asks_before_it_removes(lib: Path) -> None:
    shutil.copy(lib / "archive" / NAME, lib / "archive" / f"pipeline_{STAMP}-2.zip")
    assert json.loads(_run(lib, "prune", "--json").stdout)["removed"] == []
    assert "No rule" in _run(lib, "prune").stderr
    dry = json.loads(_run(lib, "prune", "--keep-last", "1", "--dry-run", "--json").stdout)
    assert len(dry["removed"]) == 1
    _run(lib, "prune", "--keep-last", "1", fails=UsageError)  # nobody is there to say yes
    assert len(archive_paths(lib / "archive")) == 2
    assert _run(lib, "prune", "--keep-last", "1", "--yes").return_value == 0
    assert len(archive_paths(lib / "archive")) == 1
    assert json.loads(_run(lib, "prune", "--keep-last", "1", "--yes", "--json").stdout)["removed"] == []


def test_prune_can_be_declined(lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(lib / "archive" / NAME, lib / "archive" / f"pipeline_{STAMP}-2.zip")
    monkeypatch.setattr("skicyclerun.commands.archive_prune._somebody_is_there", lambda: True)
    result = CliRunner().invoke(
        archive, ["prune", "--days", "0", "--lib-root", str(lib)], input="n\n", standalone_mode=False
    )
    assert isinstance(result.exception, Cancelled)
    assert len(archive_paths(lib / "archive")) == 2


def test_what_changes_files_waits_for_no_run(lib: Path, tmp_path: Path) -> None:
    with RunLock(lib, lib / "state/run.lock"):
        _run(lib, "prune", "--keep-last", "1", "--yes", fails=LockHeld)
        _run(lib, "restore", NAME, fails=LockHeld)
        assert _run(lib, "restore", NAME, "--to", str(tmp_path / "out")).return_value == 0
        assert _run(lib, "verify", NAME).return_value == 0


def test_a_hostile_name_in_an_archive_moves_no_cursor(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    album = lib / "albums/A\x1b[2J"
    album.mkdir(parents=True)
    (album / "x.jpg").write_bytes(b"x")
    archive_outputs(lib)
    result = _run(lib, "restore", NAME, "--to", str(tmp_path / "out"), "--dry-run")
    assert "\x1b" not in result.output
