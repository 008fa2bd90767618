"""A power cut at any moment, on a disk that kept no more than it had to: restarted, all ends as if it never happened.

Each case records what a command asks of the disk, cuts it off somewhere, and makes the folder what a file system may
have kept of it (tests/disk_calls.py). Then the promises of docs/architecture.md are looked at: the database opens, no
row says exported without its bytes, the catalog can be read, old outputs are in their folders or in a proved archive;
and what a person types next brings what an undisturbed run brought, to the byte.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import test_crash_campaign, test_stage_campaign
from tests.disk_calls import KEPT, Call, DiskState, compiled, moments, recording
from tests.exported_sample import flip_a_byte
from tests.fork_server import ForkServer, fork_server
from tests.test_crash_campaign import EARLIER_RUN, archive, catalog, configure, make_library, newest_run, tree

pytestmark = pytest.mark.crash

CUTS = int(os.environ.get("SKICYCLERUN_CUTS", "5"))
"""Power cuts for each kind of command; `make crash` tries some thousands in all."""
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261125"))
PATIENCE = 4


@dataclass(frozen=True)
class Recorded:
    """A command over the results of an earlier run, what it asked of the disk, and what became of it undisturbed."""

    root: Path
    """Where it ran, and where what a cut left of it is made: the catalog has absolute paths."""
    before: DiskState
    """The tree before the first call."""
    calls: list[Call]
    arguments: tuple[str, ...]
    code: int
    outcome: Callable[[Path], dict[str, Any]]
    """All that must not depend on whether it was cut off."""
    expected: dict[str, Any]
    must_stay: frozenset[str]
    """SHA-256 of the outputs that were there before and that nothing replaces."""
    runs: bool
    """It is a run, with a row of its own, and not a command that is simply typed again."""


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("preload"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, preload: Path) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server"), preload, ["tests.places_ahead"]) as running:
        yield running


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, server: ForkServer) -> Path:
    """A library, and the results of a first run over it."""
    base = tmp_path_factory.mktemp("cuts")
    make_library(base / "library")
    configure(base / "first" / "root")
    code, shown = server.run("run", "--yes", "--library", base / "library", "--lib-root", base / "first" / "root")
    assert code == 3, shown
    return base


def record(
    server: ForkServer,
    base: Path,
    earlier: Path,
    *arguments: str,
    code: int = 3,
    outcome: Callable[[Path], dict[str, Any]] | None = None,
    runs: bool = True,
) -> Recorded:
    """Run the command to its end with every call written down, over a copy of `earlier`."""
    base = Path(tempfile.mkdtemp(dir=base))
    place, log = base / "root", base / "calls"
    shutil.copytree(earlier, place, symlinks=True)
    before, old = DiskState(place), digests(place / "pipeline")
    arguments = (*arguments, "--lib-root", str(place), *(("--yes",) if runs else ()))
    ended, shown = server.run(*arguments, disk={"root": str(place), "record": str(log)})
    assert ended == code, shown
    if outcome is None:

        def outcome(lib_root: Path) -> dict[str, Any]:
            return test_crash_campaign.outcome(lib_root, server)

    stays = frozenset(old & safe(place))
    return Recorded(place, before, recording(log), arguments, code, outcome, outcome(place), stays, runs)


def safe(lib_root: Path) -> set[str]:
    """SHA-256 of all that lies in the folders or in an archive that bears its final name."""
    archived = {digest for path in (lib_root / "archive").glob("*.zip") for digest in archive(path).values()}
    return archived | digests(lib_root / "pipeline")


def digests(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def fresh(server: ForkServer, base: Path) -> Recorded:
    """Archive, prove, clean, export, catalog."""
    library = str(base / "library")
    return record(server, base, base / "first" / "root", "run", "--library", library)


@pytest.fixture(scope="module")
def update(server: ForkServer, base: Path) -> Recorded:
    """A new photo, one that changed, one and an album that left."""
    library, earlier = base / "changed", base / "before the update" / "root"
    shutil.copytree(base / "library", library)
    configure(earlier)
    code, shown = server.run("run", "--yes", "--library", library, "--lib-root", earlier)
    assert code == 3, shown
    (library / "Alps" / "IMG_0.jpg").unlink()
    shutil.rmtree(library / "2024")
    for name in ("IMG_2.jpg", "new.jpg"):
        Image.new("RGB", (50, 30), (1, 2, 3)).save(library / "Alps" / name)
    return record(server, base, earlier, "run", "--update", "--library", str(library))


@pytest.fixture(scope="module")
def stages(server: ForkServer, base: Path) -> Recorded:
    """The stages after the export, over a library that has changed since."""
    library, earlier = base / "of stages", base / "before the stages" / "root"
    test_stage_campaign.make_library(library)
    test_stage_campaign.configure(earlier)
    words = ("run", "--library", str(library), "--stages", test_stage_campaign.STAGES)
    code, shown = server.run(*words, "--lib-root", earlier, "--yes")
    assert code == 3, shown
    test_stage_campaign.change_library(library)
    return record(server, base, earlier, *words, outcome=test_stage_campaign.outcome)


@pytest.fixture(scope="module")
def restore(server: ForkServer, base: Path) -> Recorded:
    """An archive, taken out again into the folders that it came from."""
    earlier = base / "archived" / "root"
    shutil.copytree(base / "first" / "root", earlier, symlinks=True)
    code, shown = server.run("run", "--library", base / "library", "--lib-root", earlier, "--yes")
    assert code == 3, shown
    (archived,) = (earlier / "archive").glob("*.zip")
    shutil.rmtree(earlier / "pipeline" / "albums")
    (earlier / "metadata" / "master.json").unlink()
    words = ("archive", "restore", archived.name)
    return record(server, base, earlier, *words, code=0, outcome=albums_of, runs=False)


def albums_of(lib_root: Path) -> dict[str, Any]:
    return {"tree": tree(lib_root / "pipeline" / "albums")}


@pytest.fixture(scope="module")
def repair(server: ForkServer, base: Path) -> Recorded:
    """`verify --repair` over a damaged photo and one that is gone."""
    earlier = base / "damaged" / "root"
    shutil.copytree(base / "first" / "root", earlier, symlinks=True)
    flip_a_byte(earlier / "pipeline" / "albums" / "Alps (2)" / "IMG_2.jpg")
    (earlier / "pipeline" / "albums" / "Lake_ north" / "IMG_0.jpg").unlink()

    def outcome(lib_root: Path) -> dict[str, Any]:
        return {"tree": tree(lib_root / "pipeline" / "albums"), "catalog": catalog(lib_root)}

    return record(server, base, earlier, "verify", "--full", "--repair", outcome=outcome, runs=False)


@pytest.fixture(scope="module")
def migration(server: ForkServer, base: Path) -> Recorded:
    """A run over a state of the first version, which it brings up to this one."""
    earlier = base / "of version 1" / "root"
    shutil.copytree(base / "first" / "root", earlier, symlinks=True)
    make_version_1(earlier / "state" / "skicyclerun.sqlite3")
    return record(server, base, earlier, "run", "--library", str(base / "library"))


def make_version_1(database: Path) -> None:
    """The same rows in the tables that the first version had."""
    old = database.with_name("old")
    with closing(sqlite3.connect(old)) as connection:
        script = files("skicyclerun.state").joinpath("migrations", "0001_initial.sql").read_text()
        connection.executescript(script + "; PRAGMA user_version = 1;")
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("ATTACH ? AS new", (str(database),))
        for (table,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
        connection.commit()
        connection.execute("DETACH new")
        for _, statement in triggers:
            connection.execute(statement)
        connection.commit()
    old.replace(database)


COMMANDS = ("fresh", "update", "stages", "restore", "repair", "migration")


@pytest.mark.parametrize("number", range(CUTS))
@pytest.mark.parametrize("command", COMMANDS)
def test_after_a_power_cut_a_restart_ends_like_a_run_never_cut(
    request: pytest.FixtureRequest, server: ForkServer, command: str, number: int
) -> None:
    recorded: Recorded = request.getfixturevalue(command)
    chance = random.Random(f"{SEED} {command} {number}")
    (moment,) = moments(recorded.calls, 1, chance) if number else (len(recorded.calls),)
    kept = KEPT[number % len(KEPT)]
    cut_off(recorded, moment, kept, chance)
    what_was_promised(recorded)
    carry_on(server, recorded)
    for work in recorded.root.rglob(".skicyclerun-*"):
        # That it was removed need not have lasted; the next cleaning, or run, sweeps it.
        if work.is_dir():
            shutil.rmtree(work)
        else:
            work.unlink()
    found = recorded.outcome(recorded.root)
    for what, expected in recorded.expected.items():
        assert found[what] == expected, (what, moment, kept)


def cut_off(recorded: Recorded, moment: int, kept: Any, chance: random.Random) -> None:
    """Make the folder what the disk may hold after a cut before the call of this number."""
    state = copy.deepcopy(recorded.before)
    for call in recorded.calls[:moment]:
        state.replay(call)
    state.after_a_cut(recorded.root, kept, chance)


def what_was_promised(recorded: Recorded) -> None:
    """The promises of docs/architecture.md, before anybody has put anything right."""
    root = recorded.root
    assert recorded.must_stay <= safe(root), "an old output is neither in a folder nor in an archive"
    catalog = root / "metadata" / "master.json"
    if catalog.exists():
        json.loads(catalog.read_text())
    with copied_database(root) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute(
            "SELECT albums.folder, photos.file_name, photos.size, photos.sha256 FROM photos"
            " JOIN albums ON albums.id = photos.album WHERE photos.present = 1 AND albums.run_id ="
            " (SELECT MAX(id) FROM runs WHERE status != 'abandoned')"
        ).fetchall()
        cleaning = connection.execute("SELECT count(*) FROM archives WHERE status = 'cleaning'").fetchone()[0]
    if cleaning or not recorded.runs:
        return  # what is damaged is what a repair is there for; and
        # the files are in the archive, and rows say so with the job's last step
    for folder, name, size, digest in rows:
        data = (root / "pipeline" / "albums" / folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, digest), f"{folder}/{name}"


@contextmanager
def copied_database(root: Path) -> Iterator[sqlite3.Connection]:
    """A look into the state that changes nothing of it."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (root / "state").glob("skicyclerun.sqlite3*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / "skicyclerun.sqlite3")) as connection:
            yield connection


def carry_on(server: ForkServer, recorded: Recorded) -> None:
    """Type what a person would: the command as it was if it had not begun, otherwise `run --resume`."""
    place = ("--lib-root", str(recorded.root), "--yes")
    for _ in range(PATIENCE):
        newest, how = newest_run(recorded.root)
        arguments = recorded.arguments
        if how != "finished":
            arguments = ("run", "--resume", *place)
        elif recorded.runs and newest > EARLIER_RUN:
            return
        code, shown = server.run(*arguments)
        assert code == (recorded.code if arguments is recorded.arguments else 3), shown
        assert "Traceback" not in shown
        if not recorded.runs and arguments is recorded.arguments:
            return
    raise AssertionError("it did not come to its end")
