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
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.disk_calls import KEPT, Call, DiskState, compiled, moments, recording
from tests.fork_server import ForkServer, fork_server
from tests.test_crash_campaign import EARLIER_RUN, archive, configure, make_library, newest_run, outcome

pytestmark = pytest.mark.crash

CUTS = int(os.environ.get("SKICYCLERUN_CUTS", "12"))
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
    expected: dict[str, Any]
    must_stay: frozenset[str]
    """SHA-256 of the outputs that were there before and that nothing replaces."""


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("preload"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, preload: Path) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server"), preload) as running:
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


def record(server: ForkServer, base: Path, name: str, earlier: Path, *arguments: str, code: int = 3) -> Recorded:
    """Run the command to its end with every call written down, over a copy of `earlier`."""
    place, log = base / name / "root", base / name / "calls"
    shutil.copytree(earlier, place, symlinks=True)
    before, old = DiskState(place), digests(place / "pipeline")
    ended, shown = server.run(*arguments, "--lib-root", place, "--yes", disk={"root": str(place), "record": str(log)})
    assert ended == code, shown
    expected = outcome(place, reading(server))
    return Recorded(place, before, recording(log), arguments, expected, frozenset(old & safe(place)))


def reading(server: ForkServer) -> Callable[..., str]:
    def read(lib_root: Path, *arguments: str) -> str:
        code, shown = server.run(*arguments, "--lib-root", lib_root)
        assert code == 0, shown
        return shown

    return read


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
    return record(server, base, "fresh", base / "first" / "root", "run", "--library", library)


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
    return record(server, base, "update", earlier, "run", "--update", "--library", str(library))


COMMANDS = ("fresh", "update")


@pytest.mark.parametrize("number", range(CUTS))
@pytest.mark.parametrize("command", COMMANDS)
def test_after_a_power_cut_a_restart_ends_like_a_run_never_cut(
    request: pytest.FixtureRequest, server: ForkServer, command: str, number: int
) -> None:
    recorded: Recorded = request.getfixturevalue(command)
    chance = random.Random(f"{SEED} {command} {number}")
    (moment,) = moments(recorded.calls, 1, chance) if number else (len(recorded.calls),)
    kept = KEPT[number % len(KEPT)]
    root = recorded.root
    cut_off(recorded, moment, kept, chance)
    what_was_promised(recorded, root)
    carry_on(server, recorded, root)
    for work in root.rglob(".skicyclerun-*"):
        # That it was removed need not have lasted; the next run sweeps it.
        shutil.rmtree(work)
    found = outcome(root, reading(server))
    for what, expected in recorded.expected.items():
        assert found[what] == expected, (what, moment, kept)


def cut_off(recorded: Recorded, moment: int, kept: Any, chance: random.Random) -> None:
    """Make the folder what the disk may hold after a cut before the call of this number."""
    state = copy.deepcopy(recorded.before)
    for call in recorded.calls[:moment]:
        state.replay(call)
    state.after_a_cut(recorded.root, kept, chance)


def what_was_promised(recorded: Recorded, root: Path) -> None:
    """The promises of docs/architecture.md, before anybody has put anything right."""
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
    if cleaning:
        return  # the files are in the archive, and rows say so with the job's last step
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


def carry_on(server: ForkServer, recorded: Recorded, root: Path) -> None:
    """Type what a person would: the command as it was if it had not begun, otherwise `run --resume`."""
    for _ in range(PATIENCE):
        newest, how = newest_run(root)
        if newest > EARLIER_RUN and how == "finished":
            return
        arguments = ("run", "--resume") if newest > EARLIER_RUN else recorded.arguments
        code, shown = server.run(*arguments, "--lib-root", root, "--yes")
        assert code == 3, shown
        assert "Traceback" not in shown
    raise AssertionError("the run did not come to its end")
