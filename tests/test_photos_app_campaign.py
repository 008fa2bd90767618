"""Kill an export from Photos.app at random, again and again, and find what a run never interrupted leaves.

Only skicyclerun is killed: its osascript lives on, as it does on a Mac, and goes on writing into a directory that the
next start sweeps. SKICYCLERUN_CRASHES says how often (50 for three albums of 40 photos; few kills take smaller albums),
SKICYCLERUN_SEED which random moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.standin_osascript.scenario import Scenario
from tests.test_crash_campaign import catalog, committed, tree

pytestmark = pytest.mark.crash

CRASHES = int(os.environ.get("SKICYCLERUN_CRASHES", "5"))
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261122"))
KILLS_PER_RUN = 50
ALBUMS = 3
PHOTOS = 40 if CRASHES >= KILLS_PER_RUN else 7
#: Photos exported between two kills, on the average; so few that a run is not finished before the last kill.
PACE = 0.6 * ALBUMS * PHOTOS / min(CRASHES, KILLS_PER_RUN)
STARTING_SECONDS = 1.2
EXPORT_SECONDS = 0.25
PATIENCE = 300


@dataclass(frozen=True)
class Campaign:
    """A library in Photos, and what an undisturbed run makes of it."""

    scenario: Scenario
    expected: dict[str, Any]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    base = tmp_path_factory.mktemp("photos_app_campaign")
    scenario = make_library(base / "standin")
    undisturbed = base / "undisturbed"
    configure(undisturbed)
    process = start(scenario, undisturbed, "run", "--source", "apple_photos")
    assert process.wait(PATIENCE) == 0, errors(undisturbed)
    found = outcome(undisturbed)
    assert len(found["catalog"]) == ALBUMS * PHOTOS
    return Campaign(scenario, found)


def make_library(folder: Path) -> Scenario:
    """Albums whose photos all differ, some of one name, with what only the library knows of them."""
    scenario = Scenario(folder)
    for album in range(ALBUMS):
        items = []
        for number in range(PHOTOS):
            picture = folder / f"{album}-{number}.jpg"
            Image.new("RGB", (48, 32), (album * 80, number * 6, 255 - number)).save(picture)
            # Every fifth photo bears the name of the one before it.
            name = f"IMG_{number - (number % 5 == 4):04}"
            items.append(
                scenario.add_item(
                    f"{name}.HEIC",
                    files=[{"name": f"{name}.jpeg", "from": str(picture)}],
                    date=f"2024-07-{number % 28 + 1:02}T10:00:00",
                    location=[46.5 + number / 100, 11.3],
                    title=f'Photo {number}, of "Album {album}"',
                    keywords=["ski, alpine", f"number {number}"],
                )
            )
        # Two albums of one title.
        scenario.add_album(f"Album {min(album, 1)}", items, folders=[f"Trip {album}"])
    scenario.write()
    return scenario


def configure(lib_root: Path) -> None:
    (lib_root / "config").mkdir(parents=True)
    settings = {"export": {"group_photos": 2, "group_seconds": 30, "timeouts": {"album": 3000.0}}}
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps(settings))


def start(scenario: Scenario, lib_root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SKICYCLERUN_")}
    with open(lib_root / "stderr.txt", "wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "skicyclerun", *arguments, "--lib-root", str(lib_root), "--yes"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=scenario.environment(kept) | {"PYTHONWARNINGS": "error"},
        )


def errors(lib_root: Path) -> str:
    return (lib_root / "stderr.txt").read_text()


def outcome(lib_root: Path) -> dict[str, Any]:
    """All that must not depend on whether the run was interrupted."""
    return {
        "tree": tree(lib_root / "pipeline" / "albums"),
        "catalog": catalog(lib_root),
        "status": status(lib_root),
        "work": sorted(path.name for path in lib_root.rglob(".skicyclerun-*")),
    }


def status(lib_root: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "skicyclerun", "status", "--photos", "--json", "--lib-root", str(lib_root)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report: dict[str, Any] = json.loads(answer.replace(str(lib_root), "ROOT"))
    for key in ("id", "started_at", "ended_at"):
        del report["run"][key]
    for album in report["albums"]:
        for key in ("started_at", "ended_at", "seconds", "attempts"):
            del album[key]
    return report


def newest_status(lib_root: Path) -> str:
    """How the newest run stands; empty before there is one."""
    database = lib_root / "state" / "skicyclerun.sqlite3"
    if not database.exists():
        return ""
    connection = sqlite3.connect(database)
    try:
        row = connection.execute("SELECT status FROM runs ORDER BY id DESC LIMIT 1").fetchone()
    except sqlite3.OperationalError:  # killed before its tables were made
        return ""
    finally:
        connection.close()
    return str(row[0]) if row else ""


class Calls:
    """How many exports the stand-in was asked for since this was made."""

    def __init__(self, scenario: Scenario) -> None:
        self._file = scenario.folder / "calls.jsonl"
        self._read = self._file.stat().st_size
        self.exports = 0

    def look(self) -> int:
        with open(self._file, "rb") as stream:
            stream.seek(self._read)
            data = stream.read()
        self._read += len(data)
        self.exports += data.count(b'"verb": "export-item"')
        return self.exports


def live_until(process: subprocess.Popen[bytes], calls: Calls, exports: int, seconds: float) -> int:
    """Kill the program `seconds` after so many exports have begun; how it ended."""
    deadline = time.monotonic() + PATIENCE
    due = time.monotonic() + seconds if exports == 0 else None
    while process.poll() is None:
        assert time.monotonic() < deadline, "it hangs"
        if due is None and calls.look() >= exports:
            due = time.monotonic() + seconds
        if due is not None and time.monotonic() >= due:
            process.kill()
            break
        time.sleep(0.002)
    return process.wait()


def kill_and_resume(campaign: Campaign, lib_root: Path, kills: int, chance: random.Random) -> int:
    """Run and resume, killed so often, then left alone to the end; how many kills met it at work."""
    killed = 0
    safe: dict[str, int] = {}
    while True:
        state = newest_status(lib_root)
        arguments = ["run", "--resume"] if state else ["run", "--source", "apple_photos"]
        calls = Calls(campaign.scenario)
        process = start(campaign.scenario, lib_root, *arguments)
        if killed >= kills:
            returncode = process.wait(PATIENCE)
        else:
            # Two photos are left for each further kill, so that it does not come too late.
            left = ALBUMS * PHOTOS - len(safe) - 2 * (kills - killed)
            exports = chance.randint(0, max(0, min(round(2 * PACE), left)))
            seconds = chance.uniform(0, EXPORT_SECONDS if exports else STARTING_SECONDS)
            returncode = live_until(process, calls, exports, seconds)
        assert "Traceback" not in errors(lib_root), errors(lib_root)
        if newest_status(lib_root):
            now = committed(lib_root)
            assert all(now.get(name) == inode for name, inode in safe.items()), "a committed photo was exported again"
            safe = now
        if returncode != -signal.SIGKILL:
            assert returncode == 0, errors(lib_root)
            return killed
        killed += 1


@pytest.mark.parametrize("number", range(max(1, -(-CRASHES // KILLS_PER_RUN))))
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_and_resumed_equals_a_run_never_interrupted(
    campaign: Campaign, tmp_path: Path, number: int
) -> None:
    lib_root = tmp_path / "root"
    configure(lib_root)
    kills = min(CRASHES - number * KILLS_PER_RUN, KILLS_PER_RUN)
    assert kill_and_resume(campaign, lib_root, kills, random.Random(SEED + number)) == kills
    found = outcome(lib_root)
    for what, expected in campaign.expected.items():
        assert found[what] == expected, what
