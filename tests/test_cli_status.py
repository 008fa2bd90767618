"""`status`: what it says of runs in every state, to people and to programs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.command_line import Terminal, album_of, exported, make_library, skicyclerun, status_of

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
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
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
