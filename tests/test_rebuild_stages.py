"""A lost state database comes back with what stages made, so that none of it is made again and none is a stranger."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skicyclerun.catalog.entries import derived_from_entry, record_from_entry
from tests.exported_sample import flip_a_byte
from tests.staged_export import STAGES, WHAT_STAGES_MADE, Staged, entry_keys, found_in, staged_once


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, sample_library: Path) -> Callable[[], Staged]:
    return staged_once(tmp_path_factory.mktemp("staged"), sample_library)


@pytest.fixture
def staged(once: Callable[[], Staged]) -> Staged:
    return once()


def lose_state(staged: Staged) -> None:
    shutil.rmtree(staged.state_db.parent)


def nothing_is_made(staged: Staged) -> bool:
    """Whether a run of all stages over what is there makes nothing."""
    before, made = staged.everything(), staged.made_by_run()
    assert staged.run_stages() == 0
    return staged.made_by_run() == made and staged.everything() == before


def test_what_stages_made_comes_back_and_nothing_is_made_again(staged: Staged) -> None:
    known, catalog = staged.sql(WHAT_STAGES_MADE), staged.catalog.read_bytes()
    lose_state(staged)
    report = staged.exporter.rebuild_state()
    assert report.whole
    assert (report.claimed, report.stage_files, report.stages) == (13, 26, STAGES)
    assert staged.sql(WHAT_STAGES_MADE) == known
    assert [json.loads(stages) for (stages,) in staged.sql("SELECT stages FROM runs")] == [["export", *STAGES]]
    assert staged.sql("SELECT status, COUNT(*) FROM stage_albums GROUP BY status") == [("done", 12)]
    assert staged.exporter.verify_exports(full=True).sound
    assert not staged.exporter.catalog_exports().written
    assert nothing_is_made(staged)
    assert staged.catalog.read_bytes() == catalog


def test_every_step_of_a_rebuilt_album_of_a_stage_is_a_legal_one(staged: Staged) -> None:
    lose_state(staged)
    staged.exporter.rebuild_state()
    steps = staged.sql("SELECT subject, subject_id, from_status, to_status FROM transitions ORDER BY id")
    assert steps[-1] == ("run", 1, "active", "finished")
    for album in range(1, 13):
        own = [step[2:] for step in steps if step[:2] == ("stage_album", album)]
        assert own == [("pending", "exporting"), ("exporting", "done")]


def test_facts_that_stages_found_do_not_become_those_of_the_export(staged: Staged) -> None:
    """Photos that have their position and date from the file alone, as far as the export knows."""
    rows = "UPDATE photos SET facts = json_remove(facts, '$.location', '$.date_taken', '$.date_taken_utc')"
    staged.sql(rows)
    staged.catalog.unlink()
    staged.sql("DELETE FROM catalog_written")
    assert staged.run_stages() == 0
    entry = staged.entries()[str(staged.albums / "Alps" / "IMG_0001.jpg")]
    assert {"gps", "date_taken"} <= entry.keys()
    assert "gps" not in entry["stage_results"]["export"]
    exported, known = staged.sql("SELECT file_name, facts FROM photos ORDER BY id"), staged.sql(WHAT_STAGES_MADE)
    lose_state(staged)
    assert staged.exporter.rebuild_state().whole
    assert staged.sql("SELECT file_name, facts FROM photos ORDER BY id") == exported
    assert staged.sql(WHAT_STAGES_MADE) == known
    assert nothing_is_made(staged)


def test_a_file_that_is_gone_is_made_again_under_its_name(staged: Staged) -> None:
    before = staged.everything()
    path = staged.scaled / "Alps" / "IMG_0002.webp"
    path.unlink()
    lose_state(staged)
    report = staged.exporter.rebuild_state()
    assert report.gone == (str(path),)
    assert found_in(staged.exporter.verify_exports()) >= {("preprocessing", "album_unfinished", "Alps", "")}
    assert staged.command("retry-failed", "--yes") == 0
    assert staged.everything() == before
    assert staged.exporter.verify_exports(full=True).sound


def test_a_file_that_differs_is_named_and_never_written_over(staged: Staged) -> None:
    path = staged.scaled / "Alps" / "IMG_0002.webp"
    flip_a_byte(path)
    data = path.read_bytes()
    lose_state(staged)
    report = staged.exporter.rebuild_state()
    assert [name for name, _ in report.differing] == [str(path)]
    assert report.stage_files == 25
    assert staged.run_stages() == 0
    assert path.read_bytes() == data
    assert (staged.scaled / "Alps" / "IMG_0002 (2).webp").is_file()


def test_a_file_of_a_stage_that_the_catalog_does_not_name_is_a_stranger(staged: Staged) -> None:
    stranger = staged.marked / "Alps" / "holiday.webp"
    stranger.write_text("mine")
    lose_state(staged)
    assert staged.exporter.rebuild_state().unknown == (str(stranger),)


def test_a_moved_lib_root_is_rebuilt_where_it_is_now(staged: Staged, tmp_path: Path) -> None:
    moved = Staged(tmp_path / "moved", staged.library)
    shutil.copytree(staged.lib_root, moved.lib_root)
    lose_state(moved)
    report = moved.exporter.rebuild_state()
    assert report.whole
    assert report.stage_files == 26
    assert nothing_is_made(moved)


Change = Callable[[dict[str, Any]], object]

#: What somebody may have made of an entry of a stage's file, so that it cannot be taken.
SPOILT: dict[str, Change] = {
    "digest": lambda entry: entry["made_by"].update(depends="short"),
    "input": lambda entry: entry["made_by"].pop("input_sha256"),
    "source": lambda entry: entry.pop("source_path"),
    "size": lambda entry: entry.update(size=-1),
    "time": lambda entry: entry.update(created_at=17),
    "stage": lambda entry: entry["made_by"].update(stage="posters"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_an_entry_that_says_too_little_is_named_and_not_taken(staged: Staged, spoil: Change) -> None:
    entries = staged.entries()
    path = entry_keys(entries, "watermarking")[0]
    spoil(entries[path])
    staged.write_entries(entries)
    lose_state(staged)
    report = staged.exporter.rebuild_state()
    assert [name for name, _ in report.unclaimed] == [path]
    assert report.stage_files == 25


def test_two_entries_of_one_picture_are_one_row(staged: Staged) -> None:
    entries = staged.entries()
    first, second, *_ = entry_keys(entries, "watermarking")
    entries[second]["source_path"] = entries[first]["source_path"]
    staged.write_entries(entries)
    lose_state(staged)
    report = staged.exporter.rebuild_state()
    assert report.unclaimed == ((second, "another entry names the same picture or file"),)
    assert report.stage_files == 25


@pytest.mark.parametrize("spoilt", [None, 7, [], {"metadata_extraction": 1}, {"metadata_extraction": {"keys": [1]}}])
def test_results_of_stages_that_are_spoilt_are_found_anew(staged: Staged, spoilt: object) -> None:
    entries = staged.entries()
    for entry in entries.values():
        if entry["type"] == "exported":
            entry["stage_results"] = spoilt
    staged.write_entries(entries)
    lose_state(staged)
    report = staged.exporter.rebuild_state()
    assert report.stages == ("preprocessing", "watermarking")
    before = staged.everything()
    assert staged.run_stages() == 0
    assert staged.everything() == before


def test_an_entry_gives_the_record_it_was_made_from(staged: Staged) -> None:
    entries = staged.entries()
    exported = str(staged.albums / "Alps" / "IMG_0001.jpg")
    record = record_from_entry(exported, entries[exported])
    assert record is not None
    (found,) = record.stages
    assert found.stage == "metadata_extraction"
    assert found.facts["exif"] == entries[exported]["exif"]
    (path,) = [key for key in entry_keys(entries, "watermarking") if key.endswith("/Alps/IMG_0001.webp")]
    derived = derived_from_entry(path, entries[path])
    assert derived is not None
    assert (derived.stage, derived.facts) == ("watermarking", {"watermark": entries[path]["watermark"]})
    assert derived_from_entry(exported, entries[exported]) is None
    assert record_from_entry(path, entries[path]) is None
