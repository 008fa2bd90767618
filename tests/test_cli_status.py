"""`status`: what it says of runs in every state, to people and to programs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.command_line import YES, Terminal, album_of, exported, make_library, picture, skicyclerun, status_of

ALBUMS = {"Alps": ["IMG_1.jpg", "IMG_2.jpg", "IMG_3.png"], "Coast": ["IMG_4.jpg"], "Empty": []}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", ALBUMS)


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


def test_before_anything_was_exported_status_ends_with_code_10_and_makes_nothing(lib_root: Path) -> None:
    for options in ([], ["--json"], ["--photos"], ["--run", "1"]):
        nothing = skicyclerun("status", "--lib-root", lib_root, *options)
        assert nothing.code == 10
        assert nothing.stdout == ""
        assert "Nothing has been exported yet" in nothing.stderr
        assert "skicyclerun run" in nothing.stderr
    assert not lib_root.exists()


def test_status_gives_what_the_run_ended_with(library: Path, lib_root: Path) -> None:
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    looked = skicyclerun("status", "--lib-root", lib_root)
    assert looked.code == 0
    assert looked.stdout == done.stdout
    assert looked.stderr == ""


def test_the_text_names_what_was_not_exported_and_why(library: Path, lib_root: Path) -> None:
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"")
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    text = skicyclerun("status", "--lib-root", lib_root).stdout
    (line,) = [line for line in text.splitlines() if "IMG_2.jpg" in line]
    assert line.split()[0] == "failed"
    assert len(line.split()) > 3
    assert line.count("IMG_2.jpg") == 1
    assert "IMG_1.jpg" not in text
    assert "1 of 3 photos could not be exported" in text
    assert "2 of 3 albums done, 1 failed." in text
    assert "skicyclerun retry-failed" in text
    assert "finished, with failures" in text


def test_the_text_is_a_table_whose_columns_stand_below_each_other(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"東京": ["a.jpg"], "Zürich": ["b.jpg"], "x" * 60: []})
    text = skicyclerun("run", "--library", library, "--lib-root", lib_root).stdout
    header, *rows = [line for line in text.splitlines() if " done " in line or line.startswith("Album ")]
    column = header.index("Status")
    for row in rows:
        wide = 2 if "東京" in row else 0  # each of these two takes two columns
        assert row[column - wide :].startswith("done")


def test_photos_names_every_photo_and_the_file_it_became(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    text = skicyclerun("status", "--photos", "--lib-root", lib_root).stdout
    assert "exported  IMG_3.png → IMG_3.jpg" in text
    assert text.count("exported  IMG_") == 4


def test_json_accounts_for_every_photo(library: Path, lib_root: Path) -> None:
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"")
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    report = status_of(lib_root)
    assert report["totals"]["expected"] == 4
    for counts in (*report["albums"], report["totals"]):
        kinds = ("exported", "failed", "missing", "left_out", "pending")
        assert counts["expected"] == sum(counts[kind] for kind in kinds)
    alps = album_of(report, "Alps")
    assert [photo["original_filename"] for photo in alps["not_exported"]] == ["IMG_2.jpg"]
    assert alps["bytes"] == sum(len(data) for name, data in exported(lib_root).items() if name.startswith("Alps/"))
    assert report["export_folder"] == str(lib_root / "pipeline" / "albums")


def test_json_with_photos_has_the_size_and_the_hash_of_each_file(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    report = status_of(lib_root, "--photos")
    files = exported(lib_root)
    for album in report["albums"]:
        for photo in album["photos"]:
            data = files[f"{album['folder']}/{photo['file_name']}"]
            assert photo["size"] == len(data)
            assert photo["sha256"] == hashlib.sha256(data).hexdigest()
            assert photo["status"] == "exported"


def test_an_earlier_run_can_be_asked_for_and_an_unknown_one_is_answered_with_the_known(
    library: Path, lib_root: Path
) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root, "--album", "Coast")
    skicyclerun("run", *YES, "--library", library, "--lib-root", lib_root)
    assert [album["title"] for album in status_of(lib_root, "--run", "1")["albums"]] == ["Coast"]
    assert len(status_of(lib_root)["albums"]) == 3
    for unknown in ("3", "0", "-1"):
        refused = skicyclerun("status", "--lib-root", lib_root, "--run", unknown)
        assert refused.code == 2
        assert "1, 2" in refused.stderr
    assert skicyclerun("status", "--lib-root", lib_root, "--run", "one").code == 2


def test_an_album_with_many_failures_names_the_first_and_counts_the_rest(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": []})
    for number in range(30):
        (library / "Alps" / f"IMG_{number:02}.jpg").write_bytes(b"")
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert done.code == 3
    assert done.stdout.count("    failed  ") == 20
    assert "… and 10 more (`skicyclerun status --photos` names all)" in done.stdout
    assert skicyclerun("status", "--photos", "--lib-root", lib_root).stdout.count("    failed  ") == 30
    assert len(status_of(lib_root)["albums"][0]["not_exported"]) == 30


def test_on_a_narrow_terminal_no_line_of_the_table_is_broken(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"]})
    (library / "Alps" / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    shown = {}
    for columns in (0, 40, 120):
        with Terminal("status", "--lib-root", lib_root, columns=columns) as terminal:
            shown[columns] = terminal.read_to_the_end().stdout
    assert shown[0] == shown[120] == skicyclerun("status", "--lib-root", lib_root).stdout
    assert "Album  Status  Expected" in shown[120]
    assert "Expected" not in shown[40]
    assert "Alps\n    failed, 2 of 3 exported, 1 failed, " in shown[40]
    assert "torn.jpg" in shown[40]


# ── what earlier runs could not export ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def failed_in_run_1(library: Path, lib_root: Path) -> Path:
    """The lib_root of a run in which two photos of Alps failed."""
    for name in ("IMG_1.jpg", "IMG_2.jpg"):
        (library / "Alps" / name).write_bytes(b"")
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root).code == 3
    return lib_root


def test_failures_of_a_run_before_the_last_are_pointed_at(library: Path, failed_in_run_1: Path) -> None:
    assert status_of(failed_in_run_1)["earlier_failures"] == []
    update = ("run", "--update", "--library", library, "--lib-root", failed_in_run_1)
    done = skicyclerun(*update, "--album", "Coast")
    assert done.code == 0
    sentence = "1 album of run 1 still has photos that were not exported (`skicyclerun status --run 1`)."
    assert sentence in done.stdout.splitlines()
    assert status_of(failed_in_run_1)["earlier_failures"] == [{"run": 1, "albums": 1}]
    assert status_of(failed_in_run_1, "--run", "1")["earlier_failures"] == []
    # `retry-failed` would ask for nothing of it.
    of_run_1 = skicyclerun("status", "--run", "1", "--lib-root", failed_in_run_1).stdout
    assert f"`skicyclerun run --update --lib-root {failed_in_run_1}` asks again" in of_run_1
    assert "retry-failed" not in of_run_1

    (library / "Coast" / "new.jpg").write_bytes(b"")
    assert skicyclerun(*update, "--album", "Coast").code == 3
    assert skicyclerun(*update, "--album", "Empty").code == 0
    assert (
        "2 albums of runs 1 and 3 still have photos that were not exported (`skicyclerun status --run 3`)."
        in skicyclerun("status", "--lib-root", failed_in_run_1).stdout.splitlines()
    )


def test_an_album_that_a_later_run_took_anew_is_that_runs_to_report(library: Path, failed_in_run_1: Path) -> None:
    update = ("run", "--update", "--library", library, "--lib-root", failed_in_run_1)
    assert skicyclerun(*update).code == 3
    report = status_of(failed_in_run_1)
    assert (report["totals"]["failed"], report["earlier_failures"]) == (2, [])
    (library / "Alps" / "IMG_1.jpg").write_bytes(picture("IMG_1.jpg"))
    (library / "Alps" / "IMG_2.jpg").unlink()  # what has left its album is not missed in it
    assert skicyclerun(*update, "--album", "Alps").code == 0
    assert skicyclerun(*update, "--album", "Coast").code == 0
    assert status_of(failed_in_run_1)["earlier_failures"] == []


@pytest.mark.parametrize(
    ("repaired", "left"), [(["IMG_1.jpg"], [{"run": 1, "albums": 1}]), (["IMG_1.jpg", "IMG_2.jpg"], [])]
)
def test_a_repair_speaks_only_for_the_photos_it_asked_for(
    failed_in_run_1: Path, repaired: list[str], left: list[object]
) -> None:
    database = sqlite3.connect(failed_in_run_1 / "state" / "skicyclerun.sqlite3")
    with contextlib.closing(database), database:
        database.execute(
            "INSERT INTO runs (status, mode, stages, source_kind, source_location, selection, options, planned, "
            "started_at) SELECT 'finished', mode, stages, source_kind, source_location, selection, "
            "json_set(options, '$.repairs_run', 1), 1, started_at FROM runs"
        )
        database.execute(
            "INSERT INTO albums (run_id, position, source_id, title, folder_path, folder, listed, expected, status) "
            "SELECT 2, 1, source_id, title, folder_path, folder, ?, ?, 'done' FROM albums WHERE title = 'Alps'",
            (len(repaired), len(repaired)),
        )
        database.executemany(
            "INSERT INTO photos (album, position, source_id, component, original_filename, fingerprint, file_name, "
            "status, size, sha256, path_key) SELECT (SELECT MAX(id) FROM albums), position, source_id, component, "
            "original_filename, fingerprint, file_name, 'exported', 1, '', path_key FROM photos "
            "WHERE original_filename = ?",
            [(name,) for name in repaired],
        )
    assert status_of(failed_in_run_1)["earlier_failures"] == left


@pytest.mark.parametrize("emptied", ["by a fresh run", "alone"])
def test_failures_from_before_the_folders_were_emptied_are_past(
    library: Path, failed_in_run_1: Path, emptied: str
) -> None:
    place = ("--lib-root", failed_in_run_1)
    if emptied == "alone":
        assert skicyclerun("run", "--stages", "cleanup", "--force-clean", *YES, *place).code == 0
        assert skicyclerun("run", "--update", "--album", "Coast", "--library", library, *place).code == 0
    else:
        assert skicyclerun("run", *YES, "--album", "Coast", "--library", library, *place).code == 0
    assert status_of(failed_in_run_1)["earlier_failures"] == []


def test_a_cleanup_of_stages_alone_settles_no_failure_of_the_export(failed_in_run_1: Path) -> None:
    place = ("--lib-root", failed_in_run_1)
    for stages in ("preprocessing", "cleanup,preprocessing"):
        assert skicyclerun("run", "--stages", stages, *YES, *place).code == 3  # two photos are waited for
    assert list((failed_in_run_1 / "archive").glob("*.zip"))
    assert "IMG_3.jpg" in "".join(exported(failed_in_run_1))
    assert status_of(failed_in_run_1)["earlier_failures"] == [{"run": 1, "albums": 1}]


@pytest.mark.parametrize("mended", [False, True])
def test_an_album_that_could_not_even_begin_is_not_forgotten(
    library: Path, lib_root: Path, tmp_path: Path, mended: bool
) -> None:
    link = lib_root / "pipeline" / "albums" / "Alps"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path)
    assert skicyclerun("run", "--no-cleanup", "--library", library, "--lib-root", lib_root).code == 3
    if mended:
        link.unlink()
        assert skicyclerun("verify", "--repair", "--lib-root", lib_root).code == 0
        assert status_of(lib_root)["run"]["repairs_run"] == 1
    skicyclerun("run", "--update", "--album", "Coast", "--library", library, "--lib-root", lib_root)
    assert status_of(lib_root)["earlier_failures"] == ([] if mended else [{"run": 1, "albums": 1}])


# ── places and names ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_disk_that_is_not_there_is_not_taken_for_a_first_time(tmp_path: Path) -> None:
    gone = skicyclerun("status", "--lib-root", tmp_path / "disk" / "site")
    assert gone.code == 1
    assert "Connect the disk" in gone.stderr


def test_names_from_a_library_cannot_act_on_the_terminal(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"\x1b]0;owned\x07": []})
    (library / "\x1b]0;owned\x07" / "a\x1b[2J\u202egpj.jpg").write_bytes(b"")
    for ended in (
        skicyclerun("run", "--library", library, "--lib-root", lib_root),
        skicyclerun("status", "--photos", "--lib-root", lib_root),
        skicyclerun("albums", "--library", library, "--lib-root", lib_root),
        skicyclerun("run", "--dry-run", "--library", library, "--lib-root", lib_root),
        skicyclerun("run", "--album", "\x1b[2J", "--library", library, "--lib-root", lib_root),
    ):
        for text in (ended.stdout, ended.stderr):
            assert not {"\x1b", "\x07", "\u202e"} & set(text)
    as_json = skicyclerun("status", "--json", "--lib-root", lib_root)
    assert "\x1b" not in as_json.stdout
    assert json.loads(as_json.stdout)["albums"][0]["title"] == "\x1b]0;owned\x07"
