"""Two commands on one lib_root at the same time: one works, the other says who does; whoever only reads is answered.

The first is held at a step of its work, in a process of its own, until all the others have been typed in another one.
Nothing that is turned away leaves a trace, nothing is lost, and at the end the state verifies clean.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.fork_server import ForkServer, fork_server

pytestmark = pytest.mark.long

OK, USAGE, WITH_FAILURES, LOCKED = 0, 2, 3, 11

#: What works on a lib_root and has to be alone in it. `{library}` and `{archive}` are put in.
WORKING = {
    "run": "run --yes --library {library}",
    "run --fresh": "run --fresh --yes --library {library}",
    "run --update": "run --update --yes --library {library}",
    "run --resume": "run --resume --yes",
    "run --stages": "run --stages metadata_extraction --yes",
    "retry-failed": "retry-failed --yes",
    "verify --repair": "verify --repair",
    "rebuild-state": "rebuild-state --force --library {library}",
    "rebuild-catalog": "rebuild-catalog",
    "archive restore": "archive restore {archive} --overwrite",
    "archive prune": "archive prune --keep-last 1 --yes",
}
#: What only looks, and what it may say while another works: nothing is wrong with that, or something is on its way.
READING = {
    "status": ("status", {OK}),
    "status --json": ("status --photos --json", {OK}),
    "report": ("report --html {elsewhere}.html", {OK}),
    "verify": ("verify", {OK, WITH_FAILURES}),
    "verify --full": ("verify --full --json", {OK, WITH_FAILURES}),
    "archive list": ("archive list", {OK}),
    "archive verify": ("archive verify --all", {OK}),
    "archive prune --dry-run": ("archive prune --keep-last 1 --dry-run", {OK}),
    "archive restore --dry-run": ("archive restore {archive} --overwrite --dry-run", {OK}),
    "archive restore --to": ("archive restore {archive} --to {elsewhere}", {OK}),
    "config check": ("config check", {OK}),
    "albums": ("albums --library {library}", {OK}),
}
#: The first, and where it is held: as soon as it has the lock, and in the middle of what it does.
HELD = [
    ("run", "archive.first_member_written"),
    ("run", "clean.moved"),
    ("run", "group.renamed"),
    ("run", "catalog.written"),
    ("run --fresh", "group.committed"),
    ("run --update", "departures.removed"),
    ("run --resume", "album.started"),
    ("run --stages", "stage.group_committed"),
    ("retry-failed", "lock"),
    ("verify --repair", "group.first_renamed"),
    ("rebuild-state", "lock"),
    ("rebuild-catalog", "lock"),
    ("archive restore", "lock"),
    ("archive prune", "lock"),
]


@dataclass(frozen=True)
class Place:
    """A lib_root with two archives, exported photos, a failed one, and a library that changed since."""

    base: Path
    first: ForkServer
    second: ForkServer

    @property
    def library(self) -> Path:
        return self.base / "library"

    @property
    def root(self) -> Path:
        return self.base / "work" / "root"

    def words(self, typed: str) -> list[str]:
        archive = min((path.name for path in (self.base / "prepared").glob("archive/*")), default="")
        put_in = {"library": self.library, "archive": archive, "elsewhere": self.base / "elsewhere"}
        return [*(word.format(**put_in) for word in typed.split()), "--lib-root", str(self.root)]

    def begin(self, unfinished: bool) -> None:
        shutil.rmtree(self.root.parent, ignore_errors=True)
        shutil.copytree(self.base / ("unfinished" if unfinished else "prepared"), self.root, symlinks=True)

    @contextmanager
    def held(self, typed: str, at: str) -> Iterator[None]:
        """A command that waits there until the end of the block; whatever happens in it, it goes on then."""
        self.first.begin(*self.words(typed), hold=at)
        try:
            self.first.wait_until_held()
            yield
        except BaseException:
            self.first.let_go()
            self.first.ended()
            raise
        self.first.let_go()

    def other(self, typed: str) -> tuple[int, str]:
        shutil.rmtree(self.base / "elsewhere", ignore_errors=True)
        return self.second.run(*self.words(typed))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("two")
    library, root = base / "library", base / "work" / "root"
    for name in ("first", "second"):
        (base / name).mkdir()
    late = [
        f"skicyclerun.{name}" for name in ("commands.verify", "verification.session", "report.make", "report.pages")
    ]
    with fork_server(base / "first") as first, fork_server(base / "second", imports=late) as second:
        made = Place(base, first, second)
        make_library(library)
        (root / "config").mkdir(parents=True)
        (root / "config" / "pipeline_config.json").write_text(
            json.dumps({"export": {"library": str(library), "source": "folder", "group_photos": 2}})
        )
        for _ in range(3):  # two of them archive what the one before has exported
            code, shown = first.run(*made.words("run --yes"))
            assert code == WITH_FAILURES, shown
        shutil.copytree(root, base / "prepared", symlinks=True)
        code, shown = first.run(*made.words("run --yes"), fault="group.committed:2")
        assert code < 0, shown
        shutil.copytree(root, base / "unfinished", symlinks=True)
        (library / "Alps" / "IMG_0.jpg").unlink()
        picture(library / "Lake" / "new.jpg", 250)
        yield made


def make_library(root: Path) -> None:
    """Two albums, and a photo that cannot be read."""
    for number in range(3):
        picture(root / "Alps" / f"IMG_{number}.jpg", 40 * number)
        picture(root / "Lake" / f"IMG_{number}.jpg", 40 * number + 20)
    (root / "Alps" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 32), (shade, 255 - shade, 90)).save(path)


def unfinished(name: str) -> bool:
    """Whether this is for a run that was stopped."""
    return name in ("run --resume", "run --fresh")


def on_the_disk(root: Path) -> dict[str, tuple[int, int, int]]:
    """Everything there: inode, size, time.

    But for logs, where a refusal is noted, SQLite's files of readers, thumbnails, which `report` makes anew, and what
    the one at work renders of its next album while it is held.
    """
    return {
        str(path.relative_to(root)): (found.st_ino, found.st_size, found.st_mtime_ns)
        for path in root.rglob("*")
        if not path.is_dir() and not path.name.endswith(("-shm", "-wal")) and path.parent.name != "logs"
        if not {"thumbnails", ".skicyclerun-staging"} & set(path.parts)
        for found in [path.lstat()]
    }


def contents(root: Path) -> set[str]:
    """SHA-256 of every picture in the folders and in archives."""
    found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "pipeline").rglob("*.jpg")}
    for path in (root / "archive").glob("*.zip"):
        with zipfile.ZipFile(path) as opened:
            found |= {
                hashlib.sha256(opened.read(name)).hexdigest() for name in opened.namelist() if name.endswith(".jpg")
            }
    return found


def is_sound(place: Place) -> None:
    """What is to be done is done, `verify` knows of the torn photo alone, and the database is whole."""
    place.other("run --resume --yes")
    code, shown = place.other("verify --repair")
    assert code in (OK, WITH_FAILURES), shown
    _, shown = place.other("verify --full --json")
    assert set(json.loads(shown)["totals"]["problems"]) <= {"not_exported", "album_unfinished"}, shown
    with closing(sqlite3.connect(place.root / "state" / "skicyclerun.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    json.loads((place.root / "metadata" / "master.json").read_text())
    assert not list(place.root.rglob("*.partial"))
    assert not list(place.root.rglob(".skicyclerun-staging*/*"))


@pytest.mark.parametrize(("name", "held"), HELD, ids=[f"{name} at {held}" for name, held in HELD])
def test_while_one_works_the_others_are_told_who_does_and_readers_are_answered(
    place: Place, name: str, held: str
) -> None:
    place.begin(unfinished(name))
    if name == "verify --repair":
        (place.root / "pipeline" / "albums" / "Lake" / "IMG_1.jpg").unlink()
    safe = contents(place.root)
    with place.held(WORKING[name], held):
        before = on_the_disk(place.root)
        for other, typed in WORKING.items():
            code, shown = place.other(typed)
            assert (code, "Another skicyclerun works in" in shown) == (LOCKED, True), f"{other}: {code}: {shown}"
            assert "process " in shown, f"{other} does not say which one: {shown}"
        for other, (typed, codes) in READING.items():
            code, shown = place.other(typed)
            assert code in codes, f"{other}: {code}: {shown}"
            assert "Traceback" not in shown
        assert on_the_disk(place.root) == before
    code, shown = place.first.ended()
    assert code in (OK, WITH_FAILURES), shown
    is_sound(place)
    assert safe <= contents(place.root) or name == "archive prune"


@pytest.mark.parametrize("name", WORKING)
def test_who_reads_is_answered_whatever_begins_and_ends_meanwhile(place: Place, name: str) -> None:
    place.begin(unfinished(name))
    safe = contents(place.root)
    typed, codes = READING["status --json" if name in ("run", "archive prune") else "verify"]
    with place.held(typed, "open"):
        code, shown = place.other(WORKING[name])
        assert code in (OK, WITH_FAILURES), shown
    code, shown = place.first.ended()
    assert code in codes, shown
    assert "fault in skicyclerun" not in shown
    is_sound(place)
    assert safe <= contents(place.root) or name == "archive prune"


@pytest.mark.parametrize(
    ("one", "other"), [("run", "run"), ("run", "rebuild-state"), ("run --update", "verify --repair")]
)
def test_two_that_begin_at_the_same_moment_do_not_both_work(place: Place, one: str, other: str) -> None:
    place.begin(False)
    safe = contents(place.root)
    place.first.begin(*place.words(WORKING[one]))
    place.second.begin(*place.words(WORKING[other]))
    ended = [place.first.ended(), place.second.ended()]
    # Both have worked where one had ended before the other came; and who made a plan before it takes it no further.
    late = [code for code, shown in ended if code == USAGE and "Another run began or ended here" in shown]
    codes = [code for code, _ in ended]
    assert set(codes) <= {OK, WITH_FAILURES, LOCKED, *late}, ended
    assert {OK, WITH_FAILURES} & set(codes), ended
    is_sound(place)
    assert safe <= contents(place.root)
