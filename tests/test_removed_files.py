"""`export.removed_files`: what becomes of a photo whose file somebody has removed from its album's folder."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import skicyclerun_process
from tests.staged_sample import Staged


def leaving_out(folder: Path) -> Staged:
    sample = Staged(folder)
    export = {"source": "folder", "library": str(sample.library), "removed_files": "leave_out"}
    sample.configure(export=export)
    sample.picture("Alps/a.jpg", 10)
    sample.picture("Alps/b.jpg", 60)
    sample.picture("Coast/c.jpg", 110)
    return sample


@pytest.fixture
def sample(tmp_path: Path) -> Staged:
    sample = leaving_out(tmp_path)
    assert sample.export().code == 0
    return sample


def remove(sample: Staged, name: str) -> None:
    (sample.outputs("albums") / name).unlink()


def album(sample: Staged, title: str) -> Any:
    (found,) = [each for each in sample.run("status", "--json", "--photos").json["albums"] if each["title"] == title]
    return found


def test_a_removed_file_is_exported_again_by_default(sample: Staged) -> None:
    sample.configure(export={"source": "folder", "library": str(sample.library)})
    remove(sample, "Alps/a.jpg")
    assert sample.update().code == 0
    assert sample.names("albums") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]


def test_a_removed_file_is_left_out_counted_and_stays_out(sample: Staged) -> None:
    remove(sample, "Alps/a.jpg")
    before = sample.touched("albums")
    for _ in range(3):
        assert sample.update().code == 0
        assert sample.touched("albums") == before
        alps = album(sample, "Alps")
        assert (alps["status"], alps["expected"], alps["exported"], alps["left_out"]) == ("done", 2, 1, 1)
        (left_out,) = [photo for photo in alps["photos"] if photo["status"] == "left_out"]
        assert left_out["reason"] == "its file was removed by hand (export.removed_files is leave_out)"
        assert "1 left out" in sample.run("status").stdout
        assert f"{sample.library}/Alps/a.jpg" not in sample.entries
    assert sample.sql("SELECT COUNT(*) FROM archives") == [(1,)]  # of the first update, and empty


def test_verify_does_not_complain_of_it_and_a_repair_does_not_bring_it_back(sample: Staged) -> None:
    remove(sample, "Alps/a.jpg")
    assert sample.update().code == 0
    assert sample.run("verify").code == 0
    assert sample.run("verify", "--repair").code == 0
    assert sample.names("albums") == ["Alps/b.jpg", "Coast/c.jpg"]


def test_a_repair_before_the_next_update_does_not_bring_it_back_either(sample: Staged) -> None:
    remove(sample, "Alps/a.jpg")
    remove(sample, "Coast/c.jpg")
    (sample.outputs("albums") / "Coast").rmdir()
    repaired = sample.run("verify", "--repair")
    assert repaired.code == 3
    assert "1 photo whose file is gone is left alone (export.removed_files is leave_out)" in repaired.stdout
    # Nobody removes an album's folder by hand to have one photo less.
    assert sample.names("albums") == ["Alps/b.jpg", "Coast/c.jpg"]


def test_include_removed_brings_it_back_with_all_that_was_said_of_it(sample: Staged) -> None:
    import json

    master = sample.lib_root / "metadata" / "master.json"
    entries = json.loads(master.read_text())
    key = str(sample.outputs("albums") / "Alps" / "a.jpg")
    entries[key]["theirs"] = "kept"
    master.write_text(json.dumps(entries, indent=2))
    remove(sample, "Alps/a.jpg")
    assert sample.update().code == 0
    assert key not in json.loads(master.read_text())
    assert sample.run("--update", "--stages", "export", "--include-removed").code == 0
    assert sample.names("albums") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]
    assert json.loads(master.read_text())[key]["theirs"] == "kept"
    assert sample.update().code == 0
    assert album(sample, "Alps")["left_out"] == 0


def test_what_stages_made_of_it_departs(sample: Staged) -> None:
    assert sample.run("--stages", "metadata_extraction,preprocessing").code == 0
    remove(sample, "Alps/a.jpg")
    assert sample.update("metadata_extraction", "preprocessing").code == 0
    assert sample.names("scaled") == ["Alps/b.webp", "Coast/c.webp"]
    assert "Alps/a.jpg" not in sample.pictures("metadata_extraction")
    assert sample.run("verify").code == 0


def test_a_fresh_run_leaves_out_what_an_update_has_left_out(sample: Staged) -> None:
    remove(sample, "Alps/a.jpg")
    assert sample.update().code == 0
    assert sample.run("--yes").code == 0
    assert sample.names("albums") == ["Alps/b.jpg", "Coast/c.jpg"]
    assert album(sample, "Alps")["left_out"] == 1
    assert sample.run("--yes", "--include-removed").code == 0
    assert sample.names("albums") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]


def test_a_file_that_was_put_back_before_the_update_is_no_removed_one(sample: Staged) -> None:
    path = sample.outputs("albums") / "Alps" / "a.jpg"
    path.rename(sample.folder / "aside.jpg")
    (sample.folder / "aside.jpg").rename(path)
    assert sample.update().code == 0
    assert album(sample, "Alps")["left_out"] == 0


@pytest.mark.parametrize("how", ["gone", "empty everywhere"])
def test_an_album_folder_that_is_not_there_is_not_read_as_everything_removed(sample: Staged, how: str) -> None:
    """A disk that is not connected leaves no folder, or an empty one."""
    away = sample.folder / "disk"
    (sample.outputs("albums") / "Alps").rename(away)
    if how == "empty everywhere":
        (sample.outputs("albums") / "Alps").mkdir()
        remove(sample, "Coast/c.jpg")
    failed = sample.update()
    assert failed.code == 3
    alps = album(sample, "Alps")
    assert alps["status"] == "failed"
    assert "none of the 2 files exported into" in alps["reason"]
    assert "a disk that is not connected" in alps["reason"]
    assert "--include-removed" in alps["reason"]
    assert sample.sql("SELECT COUNT(*) FROM photos WHERE removed = 1") == [(0,)]
    if how == "empty everywhere":
        (sample.outputs("albums") / "Alps").rmdir()
    away.rename(sample.outputs("albums") / "Alps")
    if how == "gone":
        assert sample.run("retry-failed").code == 0
        assert album(sample, "Alps")["status"] == "done"
        assert album(sample, "Alps")["exported"] == 2


def test_the_last_file_of_an_album_may_be_removed_where_others_are_there(sample: Staged) -> None:
    remove(sample, "Coast/c.jpg")
    assert sample.update().code == 0
    assert album(sample, "Coast")["left_out"] == 1
    assert sample.names("albums") == ["Alps/a.jpg", "Alps/b.jpg"]


def test_a_photo_that_was_left_out_stays_out_when_what_failed_is_retried(sample: Staged) -> None:
    remove(sample, "Alps/a.jpg")
    torn = sample.library / "Alps" / "torn.jpg"
    torn.write_bytes(b"\xff\xd8\xff\xe0 torn")
    assert sample.update().code == 3
    sample.picture("Alps/torn.jpg", 150)
    assert sample.run("retry-failed").code == 0
    assert sample.names("albums") == ["Alps/b.jpg", "Alps/torn.jpg", "Coast/c.jpg"]
    assert album(sample, "Alps")["left_out"] == 1


@pytest.mark.parametrize("fault", ["albums.planned", "album.started", "album.finished", "departures.forgotten"])
def test_an_update_that_was_killed_leaves_out_the_same(sample: Staged, fault: str) -> None:
    """Whatever the configuration says by then: a run keeps what it was begun with."""
    remove(sample, "Alps/a.jpg")
    (sample.library / "Coast" / "c.jpg").unlink()
    sample.picture("Coast/d.jpg", 170)
    killed = skicyclerun_process(*sample.arguments("run", "--update"), extra={"SKICYCLERUN_FAULT": fault})
    assert killed.code == -signal.SIGKILL
    sample.configure(export={"source": "folder", "library": str(sample.library)})
    assert sample.run("run", "--resume").code == 0
    assert sample.names("albums") == ["Alps/b.jpg", "Coast/d.jpg"]
    assert album(sample, "Alps")["left_out"] == 1
