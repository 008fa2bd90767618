"""Kill a run of all stages at every durable step, and at random; resume it, and find what an undisturbed run leaves.

As tests/test_crash_campaign.py does for the export. Every case starts from the results of an earlier run of the same
stages over a slightly different library, so that folders of stages are archived and emptied as well. Compared are the
three trees (names, bytes, modification times), the catalog, the rows of the stages, the places that were looked up,
and the archives; nothing is left over, and nothing that was committed is made twice.
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
from PIL import Image

from skicyclerun.files.fault_points import FAULT_POINTS
from tests.fork_server import ForkServer, fork_server
from tests.test_crash_campaign import OF_STAGES, archive, newest_run, tree

pytestmark = pytest.mark.crash

CRASHES = int(os.environ.get("SKICYCLERUN_CRASHES", "3"))
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261125"))
#: How many processes at most a case may need until the run is finished.
PATIENCE = 12
EARLIER_RUN = 1
STAGES = "cleanup,export,metadata_extraction,geocode_sweep,preprocessing,watermarking"
FOLDERS = ("albums", "scaled", "watermarked_final")
#: Keys of the catalog and the cache that hold clock times.
TIMES = frozenset({"export_timestamp", "created_at", "timestamps", "last_updated", "cached_at", "at", "asked_at"})


@dataclass(frozen=True)
class Campaign:
    """The results of an earlier run, and what an undisturbed one makes of them."""

    server: ForkServer
    earlier: Path
    arguments: tuple[str, ...]
    """What is typed to begin the run that is killed."""
    expected: dict[str, Any]
    seconds: float
    """How long the undisturbed run took."""


# ── what it is done with ──────────────────────────────────────────────────────────────────────────────────────────


def make_picture(path: Path, shade: int, *, date: str = "", position: bool = False, size: int = 160) -> None:
    exif = Image.Exif()
    if date:
        exif[0x9003] = date
    if position:
        gps = {1: "N", 2: (46.0, 1.0, 12.0), 3: "E", 4: (7.0, 44.0, 57.0), 16: "T", 17: 45.0}  # Zermatt
        exif.get_ifd(0x8825).update(gps)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size * 3 // 4), (shade, 255 - shade, 90)).save(path, exif=exif)


def make_library(root: Path) -> None:
    """Two albums of one title, one more; a picture without any facts, one with a position, one that is torn."""
    for number in range(3):
        make_picture(root / "Alps" / f"IMG_{number}.jpg", 20 * number, date=f"2024:06:0{number + 1} 10:00:00")
    make_picture(root / "Alps" / "Zermatt.jpg", 70, date="2024:07:01 12:00:00", position=True)
    Image.new("RGB", (80, 64), (9, 9, 200)).save(root / "Alps" / "plain.png")
    (root / "Alps" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    for number in range(2):
        make_picture(root / "2024" / "Alps" / f"IMG_{number}.jpg", 120 + 20 * number, date="2023:01:01 10:00:00")
    make_picture(root / "Lake: north" / "IMG_0.jpg", 200)


def change_library(root: Path) -> None:
    """A photo is edited, one left, one is new, one was moved to another album, and an album is gone."""
    make_picture(root / "Alps" / "IMG_1.jpg", 33, date="2024:06:02 10:00:00", size=180)
    (root / "Alps" / "IMG_0.jpg").unlink()
    make_picture(root / "Alps" / "new.jpg", 44, date="2024:08:01 10:00:00")
    (root / "Alps" / "IMG_2.jpg").rename(root / "2024" / "Alps" / "moved.jpg")
    shutil.rmtree(root / "Lake: north")


def configure(lib_root: Path) -> None:
    (lib_root / "config").mkdir(parents=True)
    settings = {
        "export": {"group_photos": 2, "group_seconds": 30, "workers": 2},
        "metadata_extraction": {"workers": 2},
        "preprocessing": {"max_dimension": 96, "workers": 2},
        "watermark": {"symbol": "SKI", "workers": 2},
    }
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server"), imports=["tests.places_ahead"]) as running:
        yield running


@dataclass(frozen=True)
class Beginning:
    library: Path
    earlier: Path


@pytest.fixture(scope="module")
def beginning(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Beginning:
    """A library that has changed since its pictures went through all stages."""
    base = tmp_path_factory.mktemp("stages")
    library, earlier = base / "library", base / "earlier" / "root"
    make_library(library)
    configure(earlier)
    code, shown = server.run("run", "--library", library, "--stages", STAGES, "--lib-root", earlier, "--yes")
    assert code == 3, shown
    change_library(library)
    return Beginning(library, earlier)


def keep(lib_root: Path, *names: str) -> None:
    """Have these folders archived and kept."""
    file = lib_root / "config" / "pipeline_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cleanup": {"keep": names}}))


def undisturbed(
    server: ForkServer, base: Path, beginning: Beginning, *options: str, kept: tuple[str, ...] = ()
) -> Campaign:
    place = base / "root"
    shutil.copytree(beginning.earlier, place, symlinks=True)
    keep(place, *kept)
    arguments = ("run", "--library", str(beginning.library), *options)
    began = os.times().elapsed
    code, shown = server.run(*arguments, "--lib-root", place, "--yes")
    seconds = os.times().elapsed - began
    assert code == 3, shown
    return Campaign(server, beginning.earlier, arguments, outcome(place), seconds)


@pytest.fixture(scope="module")
def campaign(server: ForkServer, beginning: Beginning, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A fresh run, which archives and empties the folders of all its stages before."""
    return undisturbed(server, tmp_path_factory.mktemp("fresh"), beginning, "--stages", STAGES)


@pytest.fixture(scope="module")
def update_campaign(server: ForkServer, beginning: Beginning, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """An update, at whose end what is gone is put away: of the albums, and of what the stages made of them."""
    stages = STAGES.removeprefix("cleanup,")
    return undisturbed(server, tmp_path_factory.mktemp("update"), beginning, "--update", "--stages", stages)


@pytest.fixture(scope="module")
def kept_campaign(server: ForkServer, beginning: Beginning, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A fresh run that archives the watermarked pictures with the rest, and keeps them."""
    base = tmp_path_factory.mktemp("kept")
    return undisturbed(server, base, beginning, "--stages", STAGES, kept=("watermarked_final",))


# ── what must come out ────────────────────────────────────────────────────────────────────────────────────────────


def outcome(lib_root: Path) -> dict[str, Any]:
    """All that must not depend on whether the run was interrupted."""
    pipeline = lib_root / "pipeline"
    return {
        **{name: tree(pipeline / name) for name in FOLDERS},
        "catalog": without_times(json.loads((lib_root / "metadata" / "master.json").read_text()), str(lib_root)),
        "places": places(lib_root),
        "rows": rows(lib_root),
        "archives": sorted((archive(path) for path in (lib_root / "archive").glob("*")), key=sorted),
        "work": sorted(path.name for path in lib_root.rglob(".skicyclerun-*")),
        "metadata": sorted(path.name for path in (lib_root / "metadata").iterdir()),
        "beside": sorted(path.name for path in lib_root.iterdir()),
        "pipeline": sorted(path.name for path in pipeline.iterdir()),
    }


def without_times(value: Any, lib_root: str) -> Any:
    if isinstance(value, dict):
        return {
            key.replace(lib_root, "ROOT"): without_times(inner, lib_root)
            for key, inner in value.items()
            if key not in TIMES
        }
    if isinstance(value, list):
        return [without_times(inner, lib_root) for inner in value]
    return value.replace(lib_root, "ROOT") if isinstance(value, str) else value


def places(lib_root: Path) -> Any:
    cache = lib_root / "metadata" / "geocode_cache.json"
    return without_times(json.loads(cache.read_text()), str(lib_root)) if cache.exists() else None


def query(lib_root: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(lib_root / "state" / "skicyclerun.sqlite3")) as connection:
        return sorted(connection.execute(statement).fetchall(), key=repr)


def rows(lib_root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What the state says, without ids and clock times, and without what a kill makes of attempts."""
    return {
        "runs": query(lib_root, "SELECT id, status, mode, stages FROM runs"),
        "albums": query(lib_root, "SELECT run_id, position, folder, title, expected, status, reason FROM albums"),
        "photos": query(
            lib_root,
            "SELECT albums.run_id, albums.folder, photos.position, photos.file_name, photos.status, photos.reason,"
            " photos.sha256, photos.present FROM photos JOIN albums ON albums.id = photos.album",
        ),
        "stage_albums": query(
            lib_root,
            "SELECT run_id, stage, position, folder, title, expected, waiting, status, reason, done, failed,"
            " left_out, bytes FROM stage_albums",
        ),
        "stage_pictures": query(
            lib_root,
            "SELECT stage, position, folder, photo, input, variant, input_sha256, depends, status, reason, note,"
            " file_name, size, sha256, mtime_ns, width, height, facts, present, departed FROM stage_pictures",
        ),
        "archives": query(lib_root, "SELECT run_id, status, purpose, files FROM archives"),
    }


def committed(lib_root: Path) -> dict[str, int]:
    """Files that the newest run has made and committed → inode."""
    exported = query(
        lib_root,
        "SELECT 'albums', albums.folder, photos.file_name FROM photos JOIN albums ON albums.id = photos.album"
        " WHERE photos.present = 1 AND albums.run_id = (SELECT MAX(id) FROM runs)",
    )
    made = query(
        lib_root,
        "SELECT CASE stage WHEN 'preprocessing' THEN 'scaled' ELSE 'watermarked_final' END, folder, file_name"
        " FROM stage_pictures WHERE present = 1 AND departed = 0 AND status = 'done' AND file_name <> ''"
        " AND album IN (SELECT id FROM stage_albums WHERE run_id = (SELECT MAX(id) FROM runs))",
    )
    pipeline = lib_root / "pipeline"
    return {"/".join(parts): pipeline.joinpath(*parts).stat().st_ino for parts in exported + made}


def carry_to_the_end(campaign: Campaign, lib_root: Path, kills: Iterator[str | float]) -> int:
    """Run and resume, killed as `kills` says (a fault point, or after so many seconds), until it is finished."""
    killed = 0
    begun = False
    safe: dict[str, int] = {}
    for _ in range(PATIENCE):
        kill = next(kills, "")
        arguments = ("run", "--resume") if begun else campaign.arguments
        how = {"fault": kill} if isinstance(kill, str) else {"kill_after": kill}
        code, shown = campaign.server.run(*arguments, "--lib-root", lib_root, "--yes", **how)
        assert "Traceback" not in shown, shown
        if code == -signal.SIGKILL:
            killed += 1
            newest, status = newest_run(lib_root)
            begun = newest > EARLIER_RUN
            if begun and status == "finished":
                return killed
        else:
            assert code == 3, shown
        now = committed(lib_root) if begun or code == 3 else {}
        assert all(now.get(name) == inode for name, inode in safe.items()), "what was committed was made again"
        if code == 3:
            return killed
        safe = now
    raise AssertionError("the run did not come to its end")


def compare(campaign: Campaign, lib_root: Path) -> None:
    found = outcome(lib_root)
    for what, expected in campaign.expected.items():
        assert found[what] == expected, what


@pytest.fixture
def lib_root(beginning: Beginning, tmp_path: Path) -> Path:
    place = tmp_path / "root"
    shutil.copytree(beginning.earlier, place, symlinks=True)
    return place


# ── the campaigns ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_undisturbed_runs_do_what_is_to_be_compared(campaign: Campaign, update_campaign: Campaign) -> None:
    """So that equal does not mean equally empty."""
    fresh, update = campaign.expected, update_campaign.expected
    for name in FOLDERS:
        assert len([path for path, what in fresh[name].items() if what != "folder"]) == 7, name
        assert fresh[name].keys() == update[name].keys(), name
    (archived,) = fresh["archives"]
    assert {name.split("/")[0] for name in archived} == set(FOLDERS)
    photos, pictures = update["archives"]
    assert {name.split("/")[0] for name in photos} == {"albums"}
    assert {name.split("/")[0] for name in pictures} == {"scaled", "watermarked_final"}
    located = [entry for entry in fresh["catalog"].values() if "location" in entry]
    assert [entry["file_name"] for entry in located if entry["type"] == "exported"] == ["Zermatt.jpg"]


#: Points that an export passes as well are stopped at visits that fall into a stage.
IN_A_STAGE = (
    *(f"{name}:{visit}" for name in OF_STAGES if name.startswith("stage.") for visit in (1, 2)),
    "stage.picture_made:17",
    "stage.album_finished:5",
    "album.finished:2",
    "group.synced:6",
    "group.first_renamed:7",
    "group.renamed:8",
    "group.directory_synced:9",
    "catalog.written:2",
    "catalog.renamed:2",
    "archive.first_member_written",
    "archive.proved",
    "clean.first_moved",
    "clean.moved",
    "clean.recreated",
    "clean.removed",
    "clean.committed",
    "run.finished",
)
AT_THE_END_OF_AN_UPDATE = (
    "stage.album_started:3",
    "stage.group_committed:4",
    "departures.forgotten",
    "archive.job_created:2",
    "archive.written:2",
    "archive.proved:2",
    "archive.renamed:2",
    "archive.committed:2",
    "stages.departed_removed",
    "stages.departed_forgotten",
    "run.finished",
)


@pytest.mark.parametrize("fault", IN_A_STAGE)
def test_a_run_of_all_stages_killed_at_a_fault_point_and_resumed_equals_one_never_interrupted(
    campaign: Campaign, lib_root: Path, fault: str
) -> None:
    assert carry_to_the_end(campaign, lib_root, iter([fault])) == 1, f"{fault} was not reached"
    compare(campaign, lib_root)


@pytest.mark.parametrize("number", range(CRASHES))
def test_a_run_of_all_stages_killed_at_random_and_resumed_equals_one_never_interrupted(
    campaign: Campaign, lib_root: Path, number: int
) -> None:
    chance = random.Random(SEED + number)
    moments = [chance.uniform(0.1, 1.0) * campaign.seconds for _ in range(chance.randint(1, 4))]
    carry_to_the_end(campaign, lib_root, iter(moments))
    compare(campaign, lib_root)


def test_a_run_that_is_killed_at_each_restart_in_another_stage_still_gets_there(
    campaign: Campaign, lib_root: Path
) -> None:
    faults = [
        "clean.moved",
        "stage.picture_made:2",
        "stage.group_committed:3",
        "group.renamed:3",
        "stage.album_finished",
    ]
    assert carry_to_the_end(campaign, lib_root, iter(faults)) >= 4
    compare(campaign, lib_root)


@pytest.mark.parametrize("fault", AT_THE_END_OF_AN_UPDATE)
def test_an_update_of_all_stages_killed_at_a_fault_point_and_resumed_equals_one_never_interrupted(
    update_campaign: Campaign, lib_root: Path, fault: str
) -> None:
    assert carry_to_the_end(update_campaign, lib_root, iter([fault])) == 1, f"{fault} was not reached"
    compare(update_campaign, lib_root)


@pytest.mark.parametrize("number", range(CRASHES // 2))
def test_an_update_of_all_stages_killed_at_random_and_resumed_equals_one_never_interrupted(
    update_campaign: Campaign, lib_root: Path, number: int
) -> None:
    chance = random.Random(SEED - number)
    moments = [chance.uniform(0.1, 1.0) * update_campaign.seconds for _ in range(chance.randint(1, 4))]
    carry_to_the_end(update_campaign, lib_root, iter(moments))
    compare(update_campaign, lib_root)


def test_an_update_killed_between_a_file_and_its_folder_leaves_no_empty_folder(
    update_campaign: Campaign, lib_root: Path
) -> None:
    server, arguments = update_campaign.server, update_campaign.arguments
    code, _ = server.run(*arguments, "--lib-root", lib_root, "--yes", fault="archive.committed")
    assert code == -signal.SIGKILL
    (lib_root / "pipeline" / "albums" / "Lake_ north" / "IMG_0.jpg").unlink()
    assert server.run("run", "--resume", "--lib-root", lib_root, "--yes")[0] == 3
    compare(update_campaign, lib_root)


def test_what_is_kept_is_archived_stays_as_it_is_and_is_not_made_again(
    kept_campaign: Campaign, campaign: Campaign
) -> None:
    kept, emptied = kept_campaign.expected, campaign.expected
    (whole,) = emptied["archives"]
    assert whole in kept["archives"]
    # What was kept of photos that are gone leaves at the end of the run, as it does after any run of its stage.
    (gone,) = [each for each in kept["archives"] if each != whole]
    assert {name.split("/")[0] for name in gone} == {"watermarked_final"}
    for name in ("albums", "scaled"):
        assert kept[name] == emptied[name]
    assert kept["catalog"] == emptied["catalog"]
    files = {name: what for name, what in kept["watermarked_final"].items() if what != "folder"}
    assert files == {name: what for name, what in emptied["watermarked_final"].items() if what != "folder"}


@pytest.mark.parametrize(
    "fault", ["archive.committed", "clean.first_moved", "clean.removed", "clean.committed", "stage.album_started:6"]
)
def test_a_run_that_keeps_a_folder_killed_and_resumed_equals_one_never_interrupted(
    kept_campaign: Campaign, lib_root: Path, fault: str
) -> None:
    keep(lib_root, "watermarked_final")
    folder = lib_root / "pipeline" / "watermarked_final"
    before, inodes = tree(folder), inodes_of(folder)
    assert carry_to_the_end(kept_campaign, lib_root, iter([fault])) == 1, f"{fault} was not reached"
    compare(kept_campaign, lib_root)
    same = [name for name in inodes if before[name] == tree(folder).get(name)]
    assert len(same) >= 3
    assert {name: inodes_of(folder)[name] for name in same} == {name: inodes[name] for name in same}


@pytest.mark.parametrize("fault", ["archive.written", "clean.first_moved"])
def test_a_resumed_run_empties_what_it_was_begun_to_empty_whatever_the_configuration_says_by_then(
    kept_campaign: Campaign, campaign: Campaign, lib_root: Path, fault: str
) -> None:
    keep(lib_root, "watermarked_final")
    server = kept_campaign.server
    assert server.run(*kept_campaign.arguments, "--lib-root", lib_root, "--yes", fault=fault)[0] == -signal.SIGKILL
    keep(lib_root, "albums")
    assert server.run("run", "--resume", "--lib-root", lib_root, "--yes")[0] == 3
    compare(kept_campaign, lib_root)


def test_a_run_that_was_begun_to_keep_nothing_keeps_nothing_when_it_is_resumed(
    campaign: Campaign, lib_root: Path
) -> None:
    code, _ = campaign.server.run(*campaign.arguments, "--lib-root", lib_root, "--yes", fault="archive.committed")
    assert code == -signal.SIGKILL
    keep(lib_root, "watermarked_final")
    assert campaign.server.run("run", "--resume", "--lib-root", lib_root, "--yes")[0] == 3
    compare(campaign, lib_root)


def inodes_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_every_fault_point_of_the_stages_is_visited_here() -> None:
    visited = {name.partition(":")[0] for name in (*IN_A_STAGE, *AT_THE_END_OF_AN_UPDATE)}
    assert set(OF_STAGES) <= visited <= set(FAULT_POINTS)
