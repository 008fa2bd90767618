"""`leave-out` and `take-in`: single photos that no run exports, whichever album they are in, until they may again."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from skicyclerun.models import Component, Photo
from skicyclerun.run.lock import RunLock
from skicyclerun.state import left_out
from skicyclerun.state.left_out import LeftOutPhoto, read_copy
from tests.command_line import Ended, album_of, skicyclerun, skicyclerun_process, status_of
from tests.shared_libraries import TEST_LIBRARY
from tests.staged_sample import Staged
from tests.test_source_contract import live_movie_bytes


@pytest.fixture
def sample(tmp_path: Path) -> Staged:
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg", 10, date="2024:07:21 10:00:00")
    sample.picture("Alps/b.jpg", 60)
    sample.picture("Coast/a.jpg", 110)
    assert sample.export().code == 0
    return sample


def leave_out_(sample: Staged, *names: str | Path) -> Ended:
    return skicyclerun("leave-out", *names, "--lib-root", sample.lib_root)


def take_in(sample: Staged, *names: str | Path) -> Ended:
    return skicyclerun("take-in", *names, "--lib-root", sample.lib_root)


def ids(sample: Staged) -> list[str]:
    return [row[0] for row in sample.sql("SELECT photo_id FROM left_out_photos ORDER BY photo_id")]


def entries(sample: Staged) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((sample.lib_root / "metadata" / "master.json").read_text())
    return loaded


# ── through update, status, verify ────────────────────────────────────────────────────────────────────────────────


def test_a_photo_that_is_left_out_departs_at_the_next_update_and_stays_out(sample: Staged) -> None:
    done = leave_out_(sample, "Alps/a.jpg")
    assert (done.code, done.stdout) == (0, "Alps/a.jpg is left out from now on.\n")
    assert sample.names("albums") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/a.jpg"]
    assert sample.run("verify").code == 0
    for _ in range(2):
        assert sample.update().code == 0
        assert sample.names("albums") == ["Alps/b.jpg", "Coast/a.jpg"]
        alps = album_of(status_of(sample.lib_root, "--photos"), "Alps")
        assert (alps["status"], alps["expected"], alps["exported"], alps["left_out"]) == ("done", 2, 1, 1)
        assert [photo["reason"] for photo in alps["photos"] if photo["status"] == "left_out"] == [left_out.REASON]
    assert not any("Alps/a.jpg" in path for path in entries(sample))
    assert sample.run("verify").code == 0
    assert len(list((sample.lib_root / "archive").glob("*.zip"))) == 1
    assert sample.run("--yes", "--stages", "cleanup,export").code == 0
    assert sample.names("albums") == ["Alps/b.jpg", "Coast/a.jpg"]


def test_status_names_what_is_left_out(sample: Staged) -> None:
    assert leave_out_(sample, "Alps/*").code == 0
    told = sample.run("status")
    assert "Left out by hand, in every run: 2 photos (Alps/a.jpg, Alps/b.jpg)." in told.stdout
    assert [photo["name"] for photo in status_of(sample.lib_root)["left_out"]] == ["Alps/a.jpg", "Alps/b.jpg"]
    listed = leave_out_(sample)
    assert (listed.code, listed.stdout, listed.stderr) == (
        0,
        "Alps/a.jpg\nAlps/b.jpg\n",
        "2 photos left out by hand.\n",
    )
    as_json = skicyclerun("leave-out", "--json", "--lib-root", sample.lib_root).json
    assert [each["photo_id"] for each in as_json["left_out"]] == ["Alps/a.jpg", "Alps/b.jpg"]


def test_a_photo_that_is_taken_in_again_comes_back_with_what_others_said(sample: Staged) -> None:
    written, key = entries(sample), str(sample.outputs("albums") / "Alps" / "a.jpg")
    written[key]["geo"] = {"formatted": "Zermatt"}
    (sample.lib_root / "metadata" / "master.json").write_text(json.dumps(written))
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    assert sample.update().code == 0
    done = take_in(sample, "Alps/a.jpg")
    assert (done.code, done.stdout) == (0, "Alps/a.jpg is taken in again.\n")
    assert sample.update().code == 0
    assert sample.names("albums") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/a.jpg"]
    assert entries(sample)[key]["geo"] == {"formatted": "Zermatt"}
    assert "Left out by hand" not in sample.run("status").stdout
    assert sample.run("verify").code == 0


def test_left_out_and_taken_in_before_any_update_nothing_is_touched(sample: Staged) -> None:
    before = sample.touched("albums")
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    assert "was left out already" in leave_out_(sample, "Alps/a.jpg").stdout
    assert take_in(sample, "Alps/a*").code == 0
    assert sample.update().code == 0
    assert sample.touched("albums") == before


def test_a_photo_goes_by_what_it_is_and_so_out_of_every_album_and_group(tmp_path: Path) -> None:
    root = tmp_path / "root"
    arguments = ("run", "--library", TEST_LIBRARY, "--lib-root", root, "--stages", "export", "--no-cleanup")
    choice = ("--everything", "--group-by", "year", "--exclude", "Raw", "--media", "photo", "--until", "2018-09")
    assert skicyclerun(*arguments, *choice).code == 0

    def pumpkins() -> list[str]:
        return sorted(str(path.relative_to(root / "pipeline" / "albums")) for path in root.rglob("Pumkins1.jpg"))

    assert pumpkins() == ["2018/Pumkins1.jpg", "Pumpkin Farm/Pumkins1.jpg", "Test Album/Pumkins1.jpg"]
    assert skicyclerun("leave-out", "2018/Pumkins1.jpg", "--lib-root", root).code == 0
    assert skicyclerun(*arguments[:-1], "--update", *choice).code == 0
    assert pumpkins() == []
    assert skicyclerun("verify", "--lib-root", root).code == 0


def test_stages_put_away_what_they_made_of_it(sample: Staged) -> None:
    assert sample.export("preprocessing").code == 0
    assert [name for name in sample.names("scaled") if name.startswith("Alps/a")]
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    assert sample.update("preprocessing").code == 0
    assert [name.partition(".")[0] for name in sample.names("scaled")] == ["Alps/b", "Coast/a"]
    assert sample.run("verify").code == 0


def test_a_repair_does_not_bring_it_back(sample: Staged) -> None:
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    (sample.outputs("albums") / "Alps" / "a.jpg").unlink()
    (sample.outputs("albums") / "Alps" / "b.jpg").unlink()
    repaired = sample.run("verify", "--repair")
    assert "1 photo is left out by hand and stays as it is" in repaired.stdout
    assert sample.names("albums") == ["Alps/b.jpg", "Coast/a.jpg"]
    assert sample.update().code == 0
    assert sample.run("verify").code == 0


def test_one_that_was_also_removed_by_hand_comes_back_when_it_is_taken_in(sample: Staged) -> None:
    export = {"source": "folder", "library": str(sample.library), "removed_files": "leave_out"}
    sample.configure(export=export)
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    (sample.outputs("albums") / "Alps" / "a.jpg").unlink()
    assert sample.update().code == 0
    assert take_in(sample, "Alps/a.jpg").code == 0
    assert sample.update().code == 0
    assert "Alps/a.jpg" in sample.names("albums")


def test_what_was_removed_by_hand_alone_is_told_from_what_is_left_out(sample: Staged) -> None:
    sample.configure(export={"source": "folder", "library": str(sample.library), "removed_files": "leave_out"})
    (sample.outputs("albums") / "Alps" / "a.jpg").unlink()
    assert sample.update().code == 0
    done = take_in(sample, "Alps/a.jpg")
    assert (done.code, "its file was removed by hand" in done.stderr, "--include-removed" in done.stderr) == (
        2,
        True,
        True,
    )


# ── a run that is not done ────────────────────────────────────────────────────────────────────────────────────────


def test_what_failed_and_is_left_out_is_not_asked_for_again(sample: Staged) -> None:
    (sample.library / "Alps" / "broken.jpg").write_bytes(b"\xff\xd8\xff torn")
    assert sample.update().code == 3
    assert leave_out_(sample, "Alps/broken.jpg").code == 0
    assert sample.run("retry-failed").code == 0
    alps = album_of(status_of(sample.lib_root), "Alps")
    assert (alps["status"], alps["failed"], alps["left_out"]) == ("done", 0, 1)


def test_a_resumed_run_does_without_what_was_left_out_meanwhile(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.configure(export={"source": "folder", "library": str(sample.library), "group_photos": 1})
    for number in range(8):
        sample.picture(f"Alps/{number}.jpg", 10 + 20 * number)
    options = sample.arguments("--stages", "export", "--no-cleanup")
    killed = skicyclerun_process(*options, extra={"SKICYCLERUN_FAULT": "group.committed:1"})
    assert killed.code == -signal.SIGKILL
    there = sample.names("albums")
    left = next(f"Alps/{number}.jpg" for number in range(8) if f"Alps/{number}.jpg" not in there)
    assert leave_out_(sample, left, there[-1]).code == 0
    assert sample.run("--resume").code == 0
    # What the stop left under its name is taken on, or nobody would ever put it away.
    assert left not in sample.names("albums")
    assert there[-1] in sample.names("albums")
    assert sample.run("verify").code == 0
    assert sample.update().code == 0
    assert len(sample.names("albums")) == 6
    assert there[-1] not in sample.names("albums")


# ── Live Photos ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_movie_of_a_live_photo_goes_with_its_still(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.configure(export={"source": "folder", "library": str(sample.library), "live_photos": True})
    sample.picture("Alps/live.jpg", 10)
    sample.picture("Alps/other.jpg", 50)
    (sample.library / "Alps" / "live.mov").write_bytes(live_movie_bytes())
    assert sample.export().code == 0
    assert sample.names("albums") == ["Alps/live.jpg", "Alps/live.mov", "Alps/other.jpg"]
    assert leave_out_(sample, "Alps/live.mov").code == 0
    assert sample.update().code == 0
    assert sample.names("albums") == ["Alps/live.jpg", "Alps/other.jpg"]
    assert take_in(sample, "Alps/live.mov").code == 0
    assert leave_out_(sample, "Alps/live.jpg").code == 0
    assert sample.update().code == 0
    assert sample.names("albums") == ["Alps/other.jpg"]


def test_in_a_library_too_where_both_have_one_id() -> None:
    still, movie = Photo("1", "a.heic"), Photo("1", "a.mov", Component.LIVE_MOVIE)
    other, clip = Photo("2", "b.heic"), Photo("3", "c.mov", Component.VIDEO)
    listed = [still, movie, other, clip]
    assert left_out.among(listed, {("1", "still")}) == {("1", "still"), ("1", "live_movie")}
    assert left_out.among(listed, {("1", "live_movie"), ("3", "video")}) == {("1", "live_movie"), ("3", "video")}
    assert left_out.among(listed, set()) == set()


# ── naming a photo ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_photo_is_named_by_folder_by_title_by_path_or_by_its_file(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    for name in ("2024/Alps/a.jpg", "2025/Alps/b.jpg", "Coast:Harbour/É.jpg"):
        sample.picture(name, len(name))
    assert sample.export().code == 0
    file = sample.outputs("albums") / "Alps (2)" / "b.jpg"
    for name, photo_id in (
        ("Alps/a.jpg", "2024/Alps/a.jpg"),
        ("alps/A.JPG", "2024/Alps/a.jpg"),
        ("2025/Alps/b.jpg", "2025/Alps/b.jpg"),
        ("Alps (2)/b.jpg", "2025/Alps/b.jpg"),
        (str(file), "2025/Alps/b.jpg"),
        ("Coast/Harbour/e\u0301.jpg", "Coast:Harbour/É.jpg"),
        ("Coast:Harbour/*", "Coast:Harbour/É.jpg"),
    ):
        assert leave_out_(sample, name).code == 0, name
        assert ids(sample) == [photo_id]
        assert take_in(sample, name).code == 0, name
        assert ids(sample) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.jpg", "'a.jpg' names no photo"),
        ("Alps/", "names no photo"),
        ("Alp/a.jpg", "No run knows an album 'Alp'. Did you mean 'Alps'?"),
        ("Alp/a.jpg", "as `skicyclerun status --photos` has them"),
        ("Alps/aa.jpg", "as `skicyclerun status --photos` has them"),
        ("Alps/aa.jpg", "No file of album 'Alps' is called 'aa.jpg'. Did you mean 'a.jpg'?"),
        ("Alps/\x1b[31m.jpg", "is called '\\x1b[31m.jpg'"),
        ("../../../etc/passwd", "No run knows an album"),
    ],
)
def test_a_name_that_means_nothing_is_said_and_nothing_is_done(sample: Staged, name: str, said: str) -> None:
    for command in (leave_out_, take_in):
        done = command(sample, "Alps/b.jpg", name) if command is leave_out_ else command(sample, name)
        assert (done.code, said in done.stderr) == (2, True), done.stderr
    assert ids(sample) == []


def test_what_is_not_left_out_cannot_be_taken_in(sample: Staged) -> None:
    done = take_in(sample, "Alps/a.jpg")
    assert (done.code, "Alps/a.jpg is not left out." in done.stderr) == (2, True)


def test_without_a_state_there_is_nothing_to_leave_out(tmp_path: Path) -> None:
    done = skicyclerun("leave-out", "Alps/a.jpg", "--lib-root", tmp_path)
    assert done.code == 10
    assert list(tmp_path.iterdir()) == []


def test_while_a_run_is_at_work_nothing_is_left_out(sample: Staged) -> None:
    with RunLock(sample.lib_root, sample.lib_root / "state" / "run.lock"):
        assert leave_out_(sample, "Alps/a.jpg").code == 11
    assert ids(sample) == []


# ── a lost database ───────────────────────────────────────────────────────────────────────────────────────────────


def database(sample: Staged) -> Path:
    return sample.lib_root / "state" / "skicyclerun.sqlite3"


@pytest.mark.parametrize("how", ["sound", "gone", "torn", "torn, without its copy"])
def test_a_state_that_is_rebuilt_knows_what_was_left_out(sample: Staged, how: str) -> None:
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    if how == "gone":
        database(sample).unlink()
    elif how.startswith("torn"):
        damaged = bytearray(database(sample).read_bytes())
        damaged[:100] = b"\0" * 100
        database(sample).write_bytes(damaged)
    copy = sample.lib_root / "state" / left_out.COPY_NAME
    if how in ("sound", "torn, without its copy"):
        copy.unlink()
    rebuilt = skicyclerun("rebuild-state", "--force", "--library", sample.library, "--lib-root", sample.lib_root)
    assert rebuilt.code == 0, rebuilt.stderr
    assert ids(sample) == ([] if how == "torn, without its copy" else ["Alps/a.jpg"])
    if how != "torn, without its copy":
        assert sample.update().code == 0
        assert sample.names("albums") == ["Alps/b.jpg", "Coast/a.jpg"]


def test_a_library_that_has_moved_is_known_when_the_state_is_rebuilt(sample: Staged, tmp_path: Path) -> None:
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    moved = tmp_path / "moved"
    shutil.move(sample.library, moved)
    rebuilt = skicyclerun("rebuild-state", "--force", "--library", moved, "--lib-root", sample.lib_root)
    assert rebuilt.code == 0
    assert sample.sql("SELECT source_location FROM left_out_photos") == [(str(moved),)]


def test_a_fresh_run_after_the_database_was_lost_does_not_export_it(sample: Staged) -> None:
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    shutil.rmtree(sample.lib_root / "pipeline")
    database(sample).unlink()
    assert sample.export().code == 0
    assert sample.names("albums") == ["Alps/b.jpg", "Coast/a.jpg"]
    assert ids(sample) == ["Alps/a.jpg"]


def test_a_stop_before_the_copy_is_written_loses_nothing(sample: Staged) -> None:
    arguments = ("leave-out", "Alps/a.jpg", "--lib-root", sample.lib_root)
    killed = skicyclerun_process(*arguments, extra={"SKICYCLERUN_FAULT": "left_out.committed"})
    assert killed.code == -signal.SIGKILL
    assert ids(sample) == ["Alps/a.jpg"]
    copy = sample.lib_root / "state" / left_out.COPY_NAME
    assert not copy.exists()
    assert leave_out_(sample, "Alps/a.jpg").code == 0
    assert [photo.photo_id for photo in read_copy(copy)] == ["Alps/a.jpg"]
    assert sample.update().code == 0
    assert sample.names("albums") == ["Alps/b.jpg", "Coast/a.jpg"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"left_out": 7}', '{"left_out": [7, {"photo_id": 1}, {}]}', "[" * 100_000, "\xff",
     json.dumps({"left_out": [dict.fromkeys(LeftOutPhoto.__dataclass_fields__, "x")]})],
)  # fmt: skip
def test_a_copy_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / left_out.COPY_NAME
    path.write_text(text, encoding="latin-1")
    assert read_copy(path) == []
