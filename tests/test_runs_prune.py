"""`runs prune`: rows of old runs go, and nothing that is done or said afterwards is other than it would have been."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from skicyclerun.run.lock import RunLock
from tests.command_line import YES, Ended, Terminal, exported, make_library, picture, skicyclerun, skicyclerun_process

ALBUMS = {"Alps": ["IMG_1.jpg", "IMG_2.jpg", "IMG_3.png"], "Coast": ["IMG_4.jpg", "IMG_5.jpg"], "Woods": ["IMG_6.jpg"]}
BROKEN = b"\xff\xd8\xff broken"
#: Differs from one time to the next.
_MOMENTS = {
    "started_at", "ended_at", "seconds", "proved_at", "file", "size", "export_timestamp", "last_updated", "timestamps",
    "log", "checked_at", "catalog",
}  # fmt: skip


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", ALBUMS)


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


def command(name: str, lib_root: Path, *more: str | Path) -> Ended:
    return skicyclerun(*name.split(), *more, "--lib-root", lib_root)


def run(library: Path, lib_root: Path, *more: str) -> Ended:
    return skicyclerun("run", *YES, *more, "--library", library, "--lib-root", lib_root)


def without_moments(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_moments(each) for key, each in value.items() if key not in _MOMENTS}
    return [without_moments(each) for each in value] if isinstance(value, list) else value


def rows(lib_root: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(lib_root / "state" / "skicyclerun.sqlite3")) as connection:
        return connection.execute(query).fetchall()


def change(library: Path, chance: random.Random, number: int) -> None:
    """Something happens to a photo of the library."""
    album = library / chance.choice(sorted(ALBUMS))
    present = sorted(path for path in album.iterdir() if path.is_file())
    match chance.choice(["add", "change", "break", "mend", "remove", "add", "nothing"]):
        case "add":
            (album / f"IMG_1{number}.jpg").write_bytes(picture(f"new {number}.jpg"))
        case "change" if present:
            chance.choice(present).write_bytes(picture(f"changed {number}.jpg"))
        case "break" if present:
            chance.choice(present).write_bytes(BROKEN)
        case "mend":
            for path in present:
                if path.read_bytes() == BROKEN:
                    path.write_bytes(picture(f"mended {number} {path.stem}.jpg"))
        case "remove" if len(present) > 1:
            chance.choice(present).unlink()


def what_follows(library: Path, lib_root: Path) -> list[Any]:
    """What is said and done after: every command that looks at rows, and the files and the catalog in the end."""
    found: list[Any] = []
    for name in ("status --json --photos", "verify --json"):
        ended = command(name, lib_root)
        found.append((name, ended.code, without_moments(ended.json)))
    found.append(sorted(exported(lib_root).items()))
    found.append(command("retry-failed", lib_root, "--yes").code)
    found.append(without_moments(command("status --json --photos", lib_root).json))
    for path in sorted(library.rglob("*.jpg")):
        if path.read_bytes() == BROKEN:
            path.write_bytes(picture(f"in the end {path.stem}.jpg"))
            os.utime(path, (1_700_000_000, 1_700_000_000))
    found.append(run(library, lib_root, "--update").code)
    found.append(without_moments(command("status --json --photos", lib_root).json))
    found.append(sorted(exported(lib_root).items()))
    (lib_root / "metadata" / "master.json").unlink(missing_ok=True)
    found.append(command("rebuild-catalog", lib_root).code)
    found.append(without_moments(json.loads((lib_root / "metadata" / "master.json").read_text())))
    found.append(without_moments(command("verify --json --full", lib_root).json))
    return found


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("seed", range(int(os.environ.get("SKICYCLERUN_PRUNES", "2"))))
def test_nothing_is_said_or_done_differently_after_pruning(
    seed: int, keep: int, library: Path, lib_root: Path, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    (lib_root / "config").mkdir(parents=True)
    settings = {"export": {"removed_files": chance.choice(["leave_out", "export_again"])}}
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps(settings))
    run(library, lib_root)
    for number in range(7):
        for _ in range(chance.randint(0, 2)):
            change(library, chance, number)
        files = sorted((lib_root / "pipeline" / "albums").rglob("*.jpg"))
        if files and chance.random() < 0.3:
            chance.choice(files).unlink()  # removed by hand
        match chance.choice(["update", "update", "update", "fresh", "one album", "retry"]):
            case "fresh":
                run(library, lib_root)
            case "one album":
                run(library, lib_root, "--update", "--album", chance.choice(sorted(ALBUMS)))
            case "retry":
                command("retry-failed", lib_root, "--yes")
            case _:
                run(library, lib_root, "--update")
    shutil.copytree(lib_root, tmp_path / "kept", symlinks=True)
    shutil.copytree(library, tmp_path / "photos")
    expected = what_follows(library, lib_root)
    for place, kept in ((lib_root, "kept"), (library, "photos")):
        shutil.rmtree(place)
        shutil.copytree(tmp_path / kept, place, symlinks=True)
    listed = without_moments(command("runs --json", lib_root).json)
    present = rows(lib_root, "SELECT * FROM photos WHERE present = 1 OR status <> 'exported' ORDER BY id")
    said = command("runs prune", lib_root, "--yes", "--keep", str(keep), "--json")
    assert said.code == 0
    assert rows(lib_root, "SELECT * FROM photos WHERE present = 1 OR status <> 'exported' ORDER BY id") == present
    assert without_moments(command("runs --json", lib_root).json) == listed, "the figures stay"
    for found, wanted in zip(what_follows(library, lib_root), expected, strict=True):
        assert found == wanted


def updates(library: Path, lib_root: Path, count: int) -> None:
    """Runs, each of which exports a photo anew."""
    run(library, lib_root)
    for number in range(count):
        (library / "Alps" / "IMG_1.jpg").write_bytes(picture(f"changed {number}.jpg"))
        run(library, lib_root, "--update")


def test_old_rows_go_and_their_figures_stay(library: Path, lib_root: Path) -> None:
    updates(library, lib_root, 4)
    before = [command(f"status --run {number} --json", lib_root).json["totals"] for number in range(1, 6)]
    assert rows(lib_root, "SELECT COUNT(*) FROM photos") == [(30,)]
    dry = command("runs prune", lib_root, "--keep", "1", "--dry-run")
    assert dry.stdout == "Would forget 18 photo rows of 3 runs, 1 to 3.\n"
    assert rows(lib_root, "SELECT COUNT(*) FROM photos") == [(30,)]
    assert command("runs prune", lib_root, "--keep", "1", "--yes").stdout == (
        "Forgotten: 18 photo rows of 3 runs, 1 to 3.\n"
    )
    assert rows(lib_root, "SELECT COUNT(*) FROM photos") == [(12,)]
    for number, totals in enumerate(before, 1):
        told = command(f"status --run {number} --json", lib_root).json["totals"]
        counted = {"albums", "expected", "exported", "failed", "missing", "left_out", "bytes", "pending"}
        assert {key: told[key] for key in counted} == {key: totals[key] for key in counted}
    assert "has forgotten all but the figures" in command("status --run 2", lib_root).stdout
    assert "forgotten" not in command("status", lib_root).stdout
    assert command("runs prune", lib_root, "--keep", "1", "--yes").stdout == "There is nothing to forget.\n"


def test_runs_that_are_young_enough_or_among_the_newest_are_left_alone(library: Path, lib_root: Path) -> None:
    updates(library, lib_root, 4)
    assert command("runs prune", lib_root, "--yes").stdout == "There is nothing to forget.\n", "a fortnight's are kept"
    assert "nothing to forget" in command("runs prune", lib_root, "--keep", "1", "--older-than", "90d", "--yes").stdout
    long_ago = (datetime.now(UTC) - timedelta(days=100)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with closing(sqlite3.connect(lib_root / "state" / "skicyclerun.sqlite3")) as connection, connection:
        connection.execute("UPDATE runs SET ended_at = ? WHERE id <= 2", (long_ago,))
    said = command("runs prune", lib_root, "--keep", "1", "--older-than", "90d", "--yes", "--json").json
    assert said == {"dry_run": False, "forgotten": [{"run": 1, "photos": 6}]}, "run 3 is compared with run 2"
    for wrong in ("90", "d", "-1d", "9999999d"):
        assert command("runs prune", lib_root, "--older-than", wrong).code == 2
    assert command("runs prune", lib_root, "--keep", "0").code == 2


def test_an_unfinished_run_and_those_that_failed_keep_their_rows(library: Path, lib_root: Path) -> None:
    (library / "Coast" / "IMG_5.jpg").write_bytes(BROKEN)
    updates(library, lib_root, 3)
    said = command("runs prune", lib_root, "--keep", "1", "--yes", "--json").json
    assert [each["photos"] for each in said["forgotten"]] == [5, 5]
    assert rows(lib_root, "SELECT COUNT(*) FROM photos WHERE status = 'failed'") == [(4,)]


def test_it_asks_and_takes_no_silence_for_a_yes(library: Path, lib_root: Path) -> None:
    updates(library, lib_root, 2)
    refused = command("runs prune", lib_root, "--keep", "1")
    assert refused.code == 2
    assert "Nobody is there to say yes" in refused.stderr
    with Terminal("runs", "prune", "--keep", "1", "--lib-root", lib_root) as terminal:
        terminal.read_until("Forget 6 photo rows of 1 run, 1 to 1? [y/N]")
        terminal.type("\n")
        assert "Nothing was forgotten." in terminal.read_to_the_end().stdout
    assert rows(lib_root, "SELECT COUNT(*) FROM photos") == [(18,)]
    with RunLock(lib_root, lib_root / "state" / "run.lock"):
        assert command("runs prune", lib_root, "--keep", "1", "--yes").code == 11
    assert rows(lib_root, "SELECT COUNT(*) FROM photos") == [(18,)]
    mistaken = skicyclerun("runs", "--lib-root", lib_root, "prune")
    assert mistaken.code == 2
    assert "typed behind it" in mistaken.stderr


@pytest.mark.parametrize("fault", ["prune.figures_kept", "prune.forgotten"])
def test_a_prune_that_was_killed_ends_like_one_never_killed(fault: str, library: Path, lib_root: Path) -> None:
    updates(library, lib_root, 3)
    everything = "SELECT * FROM photos ORDER BY id", "SELECT * FROM albums ORDER BY id", "SELECT * FROM transitions"
    state = lib_root / "state" / "skicyclerun.sqlite3"
    before = [rows(lib_root, query) for query in everything]
    untouched = state.with_name("untouched")
    shutil.copy(state, untouched)
    assert command("runs prune", lib_root, "--keep", "1", "--yes").code == 0
    wanted = [rows(lib_root, query) for query in everything]
    assert wanted != before
    for leftover in state.parent.glob(f"{state.name}-*"):
        leftover.unlink()
    shutil.copy(untouched, state)
    arguments = ("runs", "prune", "--keep", "1", "--yes", "--lib-root", lib_root)
    assert skicyclerun_process(*arguments, extra={"SKICYCLERUN_FAULT": fault}).code == -9
    assert [rows(lib_root, query) for query in everything] == (before if fault == "prune.figures_kept" else wanted)
    assert command("runs prune", lib_root, "--keep", "1", "--yes").code == 0
    assert [rows(lib_root, query) for query in everything] == wanted
