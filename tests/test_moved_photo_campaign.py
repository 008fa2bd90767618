"""Kill an update in which photos move, at every durable step; resume it, and find what an undisturbed one leaves.

Another program has written into the catalog before. After each kill, all that it said is in the catalog or kept in the
state database; in the end it is where its photo is, byte for byte as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skicyclerun.files.fault_points import FAULT_POINTS
from tests.fork_server import ForkServer, fork_server
from tests.test_crash_campaign import newest_run, tree
from tests.test_stage_campaign import TIMES, make_picture

pytestmark = pytest.mark.crash

CRASHES = int(os.environ.get("SKICYCLERUN_CRASHES", "3"))
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261125"))
PATIENCE = 12
STAGES = "export,metadata_extraction,preprocessing"
#: What another program has said, by photo: it must never be lost.
SAID = ("IMG_0", "IMG_1", "IMG_2", "IMG_3", "away", "gone")


@dataclass(frozen=True)
class Campaign:
    server: ForkServer
    library: Path
    saved: Path
    """What every case begins with; copied to `lib_root`, for the catalog's keys are absolute."""
    lib_root: Path
    earlier_runs: int
    expected: dict[str, Any]
    seconds: float

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("run", "--update", "--stages", STAGES, "--library", str(self.library))

    def begin(self) -> None:
        shutil.rmtree(self.lib_root, ignore_errors=True)
        shutil.copytree(self.saved, self.lib_root, symlinks=True)


def make_library(root: Path) -> None:
    for number, album in enumerate(("Alps", "Alps", "Alps", "Lake")):
        make_picture(root / album / f"IMG_{number}.jpg", 40 * number, date=f"2024:06:0{number + 1} 10:00:00")
    make_picture(root / "Alps" / "away.jpg", 190, date="2024:06:08 10:00:00", position=True)
    make_picture(root / "Alps" / "gone.jpg", 210)
    make_picture(root / "Coast" / "IMG_9.jpg", 230)
    shutil.copy2(root / "Alps" / "IMG_0.jpg", root / "Coast" / "twin.jpg")


def move_photos(root: Path) -> None:
    """Moved to another album, renamed, with its album, come back after a while, and gone; one that is new."""
    (root / "Alps" / "IMG_1.jpg").rename(root / "Coast" / "IMG_1.jpg")
    (root / "Alps" / "IMG_2.jpg").rename(root / "Alps" / "renamed.jpg")
    (root / "Lake").rename(root / "See")
    (root.parent / "away.jpg").rename(root / "Coast" / "back.jpg")
    (root / "Alps" / "gone.jpg").unlink()
    make_picture(root / "Alps" / "new.jpg", 90)


def say(lib_root: Path) -> None:
    """What the other program does: keys of its own, and entries that point to ours."""
    catalog = lib_root / "metadata" / "master.json"
    entries = json.loads(catalog.read_text())
    for path, entry in list(entries.items()):
        name = Path(path).stem
        if name in SAID:
            entry["theirs"] = f"of {name}"
        if name in SAID and entry["type"] == "exported":
            entry["location"] = {"formatted": f"place of {name}"}
            entry["pipeline"]["stages"].append("lora_processing")
            entry["pipeline"]["timestamps"]["lora_processing"] = "theirs"
            entry["derivatives"]["lora_processing"] = f"/lora/{name}.webp"
            entries[f"/lora/{name}.webp"] = {"type": "lora_processed", "source_path": path, "of": f"place of {name}"}
    catalog.write_text(json.dumps(entries, indent=2))


def all_is_kept(lib_root: Path) -> None:
    """In the catalog or in the rows, exported or made by a stage."""
    text = (lib_root / "metadata" / "master.json").read_text() + repr(former(lib_root))
    for name in SAID:
        assert f'"of {name}"' in text, name
        assert f'"place of {name}"' in text, name


def former(lib_root: Path) -> list[Any]:
    with closing(sqlite3.connect(lib_root / "state" / "skicyclerun.sqlite3")) as connection:
        rows = connection.execute("SELECT path, stage, variant, photo_id, sha256, entry FROM former_entries").fetchall()
    return sorted((*row[:5], json.dumps(without_times(json.loads(row[5])))) for row in rows)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def outcome(lib_root: Path) -> dict[str, Any]:
    return {
        "albums": tree(lib_root / "pipeline" / "albums"),
        "scaled": tree(lib_root / "pipeline" / "scaled"),
        "catalog": without_times(json.loads((lib_root / "metadata" / "master.json").read_text())),
        "former": former(lib_root),
        "work": sorted(path.name for path in lib_root.rglob(".skicyclerun-*")),
        "metadata": sorted(path.name for path in (lib_root / "metadata").iterdir()),
    }


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    base = tmp_path_factory.mktemp("moved")
    library, lib_root, saved = base / "library", base / "root", base / "saved"
    make_library(library)
    (lib_root / "config").mkdir(parents=True)
    settings = {
        "export": {"group_photos": 2, "group_seconds": 30, "workers": 2},
        "metadata_extraction": {"workers": 2},
        "preprocessing": {"max_dimension": 96, "workers": 2},
    }
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps(settings))
    with fork_server(base, imports=["tests.places_ahead"]) as server:
        campaign = Campaign(server, library, saved, lib_root, 2, {}, 0.0)
        ended(campaign, "run", "--stages", STAGES, "--library", str(library))
        say(lib_root)
        (library / "Alps" / "away.jpg").rename(base / "away.jpg")
        ended(campaign, *campaign.arguments)
        all_is_kept(lib_root)
        move_photos(library)
        lib_root.rename(saved)
        campaign.begin()
        began = os.times().elapsed
        ended(campaign, *campaign.arguments)
        seconds = os.times().elapsed - began
        yield Campaign(server, library, saved, lib_root, 2, outcome(lib_root), seconds)


def ended(campaign: Campaign, *arguments: str) -> None:
    code, shown = campaign.server.run(*arguments, "--lib-root", campaign.lib_root, "--yes")
    assert code == 0, shown


def carry_to_the_end(campaign: Campaign, kills: Iterator[str | float]) -> int:
    """Update and resume, killed as `kills` says (a fault point, or after so many seconds), until it is finished."""
    campaign.begin()
    killed, begun = 0, False
    for _ in range(PATIENCE):
        kill = next(kills, "")
        arguments = ("run", "--resume") if begun else campaign.arguments
        how: dict[str, Any] = {"fault": kill} if isinstance(kill, str) else {"kill_after": kill}
        code, shown = campaign.server.run(*arguments, "--lib-root", campaign.lib_root, "--yes", **how)
        assert "Traceback" not in shown, shown
        all_is_kept(campaign.lib_root)
        if code != -signal.SIGKILL:
            assert code == 0, shown
            return killed
        killed += 1
        newest, status = newest_run(campaign.lib_root)
        begun = newest > campaign.earlier_runs
        if begun and status == "finished":
            return killed
    raise AssertionError("the run did not come to its end")


def compare(campaign: Campaign) -> None:
    found = outcome(campaign.lib_root)
    for what, expected in campaign.expected.items():
        assert found[what] == expected, what


#: The steps between which something said could be lost; all others in the long campaign (`make crash`).
FAULTS = (
    "group.committed",
    "departures.forgotten",
    "catalog.renamed",
    "stage.group_committed",
    "stages.departed_forgotten",
    "former_entries.kept",
    "catalog.written:2",
    "catalog.renamed:2",
    "former_entries.forgotten",
)


def test_the_undisturbed_update_does_what_is_to_be_compared(campaign: Campaign) -> None:
    """So that equal does not mean equally empty."""
    entries = {
        Path(path).relative_to(campaign.lib_root / "pipeline").as_posix(): entry
        for path, entry in campaign.expected["catalog"].items()
        if path.startswith(str(campaign.lib_root))
    }
    now = {"IMG_0": "Alps/IMG_0", "IMG_1": "Coast/IMG_1", "IMG_2": "Alps/renamed", "IMG_3": "See/IMG_3"}
    for name, place in {**now, "away": "Coast/back"}.items():
        exported = entries[f"albums/{place}.jpg"]
        assert exported["theirs"] == entries[f"scaled/{place}.webp"]["theirs"] == f"of {name}"
        assert exported["derivatives"]["lora_processing"] == f"/lora/{name}.webp"
        assert exported["derivatives"]["preprocessing"].endswith(f"scaled/{place}.webp")
        assert campaign.expected["catalog"][f"/lora/{name}.webp"]["source_path"].endswith(f"albums/{place}.jpg")
    assert "theirs" not in entries["albums/Coast/twin.jpg"]
    assert [(Path(row[0]).name, row[1]) for row in campaign.expected["former"]] == [
        ("gone.jpg", ""),
        ("gone.webp", "preprocessing"),
    ]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_update_that_moves_photos_killed_at_a_fault_point_keeps_all_that_was_said(
    campaign: Campaign, fault: str
) -> None:
    assert carry_to_the_end(campaign, iter([fault])) == 1, f"{fault} was not reached"
    compare(campaign)


@pytest.mark.skipif(CRASHES < 10, reason="every visit of every fault point: in the long campaign")
@pytest.mark.parametrize("name", FAULT_POINTS)
def test_an_update_that_moves_photos_killed_at_any_visit_keeps_all_that_was_said(campaign: Campaign, name: str) -> None:
    for visit in range(1, 40):
        if not carry_to_the_end(campaign, iter([f"{name}:{visit}"])):
            break
        compare(campaign)


@pytest.mark.parametrize("number", range(CRASHES // 3))
def test_an_update_that_moves_photos_killed_at_random_keeps_all_that_was_said(campaign: Campaign, number: int) -> None:
    chance = random.Random(SEED + number)
    moments = [chance.uniform(0.1, 1.0) * campaign.seconds for _ in range(chance.randint(1, 4))]
    carry_to_the_end(campaign, iter(moments))
    compare(campaign)
