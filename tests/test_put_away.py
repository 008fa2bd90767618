"""What the program says and refuses once a run's files have been archived."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import YES, make_library, skicyclerun, status_of


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    """One photo exported, one failed, then everything archived and the folders emptied."""
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"]})
    (library / "Alps" / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    root = tmp_path / "lib_root"
    assert skicyclerun("run", "--library", library, "--lib-root", root).code == 3
    assert status_of(root)["files_present"] == 1
    assert skicyclerun("run", "--stages", "cleanup", "--force-clean", *YES, "--lib-root", root).code == 0
    return root


def test_status_says_that_the_files_are_no_longer_there(lib_root: Path) -> None:
    said = skicyclerun("status", "--lib-root", lib_root).stdout
    assert "no longer in the folders" in said
    assert "Results:" not in said
    assert status_of(lib_root)["files_present"] == 0


def test_retrying_into_emptied_folders_is_refused_with_what_to_type(lib_root: Path) -> None:
    ended = skicyclerun("retry-failed", "--lib-root", lib_root)
    assert ended.code == 2
    assert "has been archived since" in ended.stderr
    assert "`skicyclerun run` exports everything anew" in ended.stderr
    assert not any((lib_root / "pipeline" / "albums").iterdir())
