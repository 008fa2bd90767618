"""Archives that go to a second place: beside a run, by `archive push`, stopped anywhere, and all that knows of them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from skicyclerun.archive.remote_folder import IDENTITY_FILE
from skicyclerun.files.fault_points import FAULT_POINTS
from skicyclerun.state import archive_copies
from skicyclerun.state.machine import COPY_TRANSITIONS, CopyStatus
from skicyclerun.state.store import Store
from tests.archive_trees import archive_outputs, make_outputs, read_tree
from tests.command_line import (
    Ended,
    ended,
    make_library,
    skicyclerun,
    start,
    status_of,
    write_config,
)
from tests.fork_server import ForkServer, fork_server
from tests.remote_places import BUCKET, Bucket, Trouble, credentials, s3_service

OF_A_COPY = (
    "copy.reserved",
    "copy.named",
    "copy.written",
    "copy.proved",
    "copy.published",
    "copy.committed",
    "copy.removed_here",
    "copy.only_there",
)
STAMPS = ("20260101_000000", "20260201_000000", "20260301_000000")


@pytest.fixture(scope="module")
def service() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patch:
        credentials(patch)
        with s3_service() as bucket:
            yield bucket


@pytest.fixture(scope="module")
def server(service: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    needed = ("tests.aws_descriptions_ahead", "botocore.config", "obstore.auth.boto3", "skicyclerun.commands.archive")
    with fork_server(tmp_path_factory.mktemp("server"), imports=needed) as running:
        yield running


@dataclass(frozen=True)
class Undisturbed:
    root: Path
    outcomes: dict[str, dict[str, Any]]


class Library:
    """A lib_root with archives, or with an export to come, and its second place."""

    def __init__(self, root: Path, bucket: Bucket | None, *, keep_local: bool = True, **cleanup: object) -> None:
        self.root = root / "lib"
        self.archive = self.root / "archive"
        self.disk = root / "disk"
        self.disk.mkdir(parents=True)
        self.bucket = bucket
        self.remote = f"s3://{BUCKET}/mine" if bucket is not None else str(self.disk)
        settings: dict[str, Any] = {"remote": self.remote, "keep_local": keep_local, "remote_timeout": 5.0, **cleanup}
        if bucket is not None:
            bucket.empty()
            settings["remote_service"] = {"endpoint_url": bucket.endpoint}
        self.config = write_config(root, cleanup=settings)
        self.where = ("--lib-root", str(self.root), "--config", str(self.config))
        if bucket is None and not keep_local:
            self.confirm()

    def confirm(self) -> None:
        """As `archive push --new-place` does: the folder is the one that is meant, empty and on this disk as it is."""
        mark = self.disk / IDENTITY_FILE
        mark.write_text("c0ffee\n")

        async def remember() -> None:
            async with await Store.open(self.root / "state/skicyclerun.sqlite3") as store:
                await archive_copies.remember_identity(store, self.remote, "c0ffee", confirmed=True)

        anyio.run(remember)

    def with_archives(self, *stamps: str) -> Library:
        outputs = self.root / "outputs"
        if not outputs.exists():
            make_outputs(outputs)
        for stamp in stamps or STAMPS[:1]:
            created = datetime.strptime(stamp, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
            made = archive_outputs(outputs, stamp=stamp, archive_id=f"{stamp}-1", created=created).path
            self.archive.mkdir(parents=True, exist_ok=True)
            made.rename(self.archive / made.name)
        return self

    def command(self, *arguments: str | Path) -> Ended:
        return skicyclerun(*arguments, *self.where)

    def there(self) -> dict[str, bytes]:
        """What lies in the second place, by name."""
        if self.bucket is not None:
            return {key.removeprefix("mine/"): data for key, data in self.bucket.objects().items()}
        return {name: data for name, data in read_tree(self.disk).items() if name != IDENTITY_FILE}

    def here(self) -> set[str]:
        return {path.name for path in self.archive.iterdir()}

    def rows(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.root / "state/skicyclerun.sqlite3")) as connection:
            statement = "SELECT file, status, name, size, sha256 FROM archive_copies ORDER BY id"
            return connection.execute(statement).fetchall()

    def outcome(self) -> dict[str, Any]:
        """All that must not depend on where it was stopped; tokens and times are of each attempt."""
        there = {
            name: {key: value for key, value in json.loads(data).items() if key != "token"}
            if name.endswith(".json")
            else hashlib.sha256(data).hexdigest()
            for name, data in self.there().items()
        }
        return {"there": there, "here": self.here(), "rows": self.rows()}


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Bucket | None:
    return request.getfixturevalue("service") if request.param == "bucket" else None


def name_of(stamp: str) -> str:
    return f"pipeline_{stamp}.zip"


# ── pushing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_push_copies_every_proved_archive_and_the_next_one_nothing(place: Bucket | None, tmp_path: Path) -> None:
    library = Library(tmp_path, place).with_archives(*STAMPS)
    pushed = library.command("archive", "push")
    assert pushed.code == 0
    assert pushed.stdout.count("read back from there") == 3
    there = library.there()
    for stamp in STAMPS:
        assert there[name_of(stamp)] == (library.archive / name_of(stamp)).read_bytes()
    again = library.command("archive", "push")
    assert (again.code, again.stdout) == (0, "")
    assert library.there() == there


def test_what_is_to_be_there_alone_is_removed_here_only_when_it_is_there(place: Bucket | None, tmp_path: Path) -> None:
    library = Library(tmp_path, place, keep_local=False).with_archives(*STAMPS)
    before = {path.name: path.read_bytes() for path in library.archive.iterdir()}
    pushed = library.command("archive", "push", "--json")
    assert pushed.json["removed_here"] == [name_of(stamp) for stamp in STAMPS]
    assert library.here() == set()
    assert {name: data for name, data in library.there().items() if name.endswith(".zip")} == before
    listed = library.command("archive", "list", "--json").json["archives"]
    assert [(one["name"], one["here"], one["copy"]["found"]) for one in listed] == [
        (name_of(stamp), False, True) for stamp in STAMPS
    ]
    assert library.command("archive", "verify", "--all", "--full").code == 0


def test_an_archive_that_is_not_as_it_was_copied_there_stays_here(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    library.confirm()
    library.command("archive", "push")
    (library.disk / name_of(STAMPS[0])).write_bytes(b"torn")
    lone = write_config(tmp_path, cleanup={"remote": library.remote, "keep_local": False})
    pushed = skicyclerun("archive", "push", "--lib-root", library.root, "--config", lone)
    # It was copied anew, from here, before anything was removed.
    assert pushed.code == 0
    assert library.here() == set()
    assert len(library.there()[name_of(STAMPS[0])]) > 300_000


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, server: ForkServer, service: Bucket) -> Undisturbed:
    """Two archives, and what a push that nobody stops makes of them in a folder and in a bucket."""
    base = tmp_path_factory.mktemp("undisturbed")
    made = Library(base, None).with_archives(*STAMPS[:2])
    outcomes = {}
    for kind, bucket in (("folder", None), ("bucket", service)):
        shutil.copytree(made.root, base / kind / "lib")
        library = Library(base / kind, bucket, keep_local=False)
        assert server.run("archive", "push", *library.where)[0] == 0
        outcomes[kind] = library.outcome()
    return Undisturbed(made.root, outcomes)


def test_every_fault_point_of_a_copy_is_gone_through() -> None:
    others = {"copy.deleted_there", "copy.cleared_there"}
    assert {name for name in FAULT_POINTS if name.startswith("copy.")} == {*OF_A_COPY, *others}


@pytest.mark.crash
@pytest.mark.parametrize("fault", OF_A_COPY)
def test_a_push_killed_at_a_fault_point_ends_like_one_never_stopped(
    undisturbed: Undisturbed, server: ForkServer, place: Bucket | None, tmp_path: Path, fault: str
) -> None:
    shutil.copytree(undisturbed.root, tmp_path / "lib")
    library = Library(tmp_path, place, keep_local=False)
    code, shown = server.run("archive", "push", *library.where, fault=fault)
    assert code == -signal.SIGKILL, shown
    code, shown = server.run("archive", "push", *library.where)
    assert code == 0, shown
    assert library.outcome() == undisturbed.outcomes["folder" if place is None else "bucket"]
    if place is not None:
        assert place.unfinished_uploads() == []


def test_a_push_killed_in_the_middle_of_an_upload_leaves_no_parts_in_the_end(service: Bucket, tmp_path: Path) -> None:
    library = Library(tmp_path, service).with_archives()
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "silent" if "partNumber" in path else None
        config = write_config(
            tmp_path,
            cleanup={"remote": library.remote, "remote_service": {"endpoint_url": proxy.endpoint}},
        )
        process = start("archive", "push", "--lib-root", library.root, "--config", config)
        assert proxy.waiting.wait(30)
        process.kill()
        process.communicate()
    assert service.unfinished_uploads() == [f"mine/{name_of(STAMPS[0])}"]
    assert library.command("status").code == 10  # no run yet; the state is not damaged
    write_config(tmp_path, cleanup={"remote": library.remote, "remote_service": {"endpoint_url": service.endpoint}})
    assert library.command("archive", "push").code == 0
    assert service.unfinished_uploads() == []
    assert library.there()[name_of(STAMPS[0])] == (library.archive / name_of(STAMPS[0])).read_bytes()


def test_a_signal_ends_a_push_that_waits_for_an_answer_and_nothing_is_lost(service: Bucket, tmp_path: Path) -> None:
    library = Library(tmp_path, service).with_archives()
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "silent" if "partNumber" in path else None
        config = write_config(
            tmp_path, cleanup={"remote": library.remote, "remote_service": {"endpoint_url": proxy.endpoint}}
        )
        process = start("archive", "push", "--lib-root", library.root, "--config", config)
        assert proxy.waiting.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "stays pending" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert ended(process).code == 130
    assert [row[1] for row in library.rows()] == ["pending"]
    assert library.here() == {name_of(STAMPS[0])}


# ── beside a run ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_library(tmp_path / "photos", {"Alps": ["a.jpg", "b.jpg"], "Coast": ["c.jpg"]})


def run(library: Library, photos: Path, *arguments: str) -> Ended:
    return library.command("run", "--yes", "--source", "folder", "--library", photos, *arguments)


def test_a_run_copies_its_archive_and_says_so(place: Bucket | None, tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, place)
    assert run(library, photos).code == 0
    assert library.there() == {}
    second = run(library, photos)
    assert second.code == 0
    (name,) = library.here()
    assert library.there()[name] == (library.archive / name).read_bytes()
    assert "read back from there" in second.stderr + second.stdout
    status = library.command("status")
    assert f"in {library.remote}: read back from there" in status.stdout
    (copy,) = status_of(library.root, "--config", str(library.config))["archive_copies"]
    assert (copy["file"], copy["status"], copy["remote"]) == (name, "copied", library.remote)


def test_with_nothing_to_be_kept_here_a_run_leaves_its_archive_there_alone(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None, keep_local=False)
    run(library, photos)
    assert run(library, photos).code == 0
    assert library.here() == set()
    assert [row[1] for row in library.rows()] == ["only_there"]
    assert "and no longer here" in library.command("status").stdout


def test_what_leaves_its_album_goes_there_too(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None)
    run(library, photos)
    next(photos.rglob("c.jpg")).unlink()
    assert run(library, photos, "--update").code in (0, 3)
    (name,) = library.here()
    assert library.there()[name] == (library.archive / name).read_bytes()


def test_a_place_that_is_not_there_holds_up_no_export(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None, keep_local=False)
    run(library, photos)
    library.disk.rename(tmp_path / "away")
    second = run(library, photos)
    assert second.code == 0
    assert not library.disk.exists()
    assert "archive push" in second.stdout + second.stderr
    assert [row[1] for row in library.rows()] == ["pending"]
    (name,) = library.here()
    said = library.command("status").stdout
    assert f"1 archive is not copied to {library.remote} yet" in said
    assert "the folder is not there" in said
    refused = library.command("archive", "push")
    assert refused.code == 1
    assert "cannot be reached" in refused.stderr
    (tmp_path / "away").rename(library.disk)
    assert library.command("archive", "push").code == 0
    assert library.here() == set()
    assert name in library.there()


def test_another_disk_in_its_place_is_taken_only_when_that_is_meant(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    library.command("archive", "push")
    shutil.rmtree(library.disk)
    library.disk.mkdir()
    refused = library.command("archive", "push")
    assert refused.code == 1
    assert "--new-place" in refused.stderr
    assert library.there() == {}
    assert library.command("archive", "push", "--new-place").code == 0
    assert library.there()[name_of(STAMPS[0])] == (library.archive / name_of(STAMPS[0])).read_bytes()
    assert library.command("archive", "push").code == 0


def test_a_later_run_takes_along_what_is_pending(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None)
    run(library, photos)
    library.disk.rename(tmp_path / "away")
    run(library, photos)
    (tmp_path / "away").rename(library.disk)
    assert run(library, photos).code == 0
    assert {name for name in library.there() if name.endswith(".zip")} == library.here()
    assert [row[1] for row in library.rows()] == ["copied", "copied"]


def test_a_run_waits_no_longer_than_it_may_for_a_service_that_is_silent(
    service: Bucket, tmp_path: Path, photos: Path
) -> None:
    library = Library(tmp_path, service)
    run(library, photos)
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "silent"
        library.config = write_config(
            tmp_path,
            cleanup={
                "remote": library.remote,
                "remote_service": {"endpoint_url": proxy.endpoint},
                "remote_timeout": 60.0,
                "remote_wait": 0.2,
            },
        )
        second = run(library, photos)
    assert second.code == 0
    assert "takes longer than this run waits" in second.stdout + second.stderr
    assert [row[1] for row in library.rows()] == ["pending"]


def test_a_signal_ends_a_run_that_only_copies_still(service: Bucket, tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, service)
    run(library, photos)
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "silent" if "partNumber" in path else None
        config = write_config(
            tmp_path, cleanup={"remote": library.remote, "remote_service": {"endpoint_url": proxy.endpoint}}
        )
        words = ("run", "--yes", "--source", "folder", "--library", photos, "--lib-root", library.root)
        process = start(*words, "--config", config)
        assert proxy.waiting.wait(30)
        process.send_signal(signal.SIGTERM)
        assert ended(process).code == 143
    write_config(tmp_path, cleanup={"remote": library.remote, "remote_service": {"endpoint_url": service.endpoint}})
    library.command("run", "--resume", "--yes")
    assert library.command("archive", "push").code == 0
    assert [row[1] for row in library.rows()] == ["copied"]
    assert service.unfinished_uploads() == []
    assert library.command("verify").code == 0


@pytest.mark.crash
@pytest.mark.parametrize("fault", ["copy.written", "copy.committed", "copy.removed_here"])
def test_a_run_killed_while_it_copies_is_resumed_to_the_same_end(
    server: ForkServer, tmp_path: Path, photos: Path, fault: str
) -> None:
    library = Library(tmp_path, None, keep_local=False)
    words = ("run", "--source", "folder", "--library", str(photos), "--yes", *library.where)
    assert server.run(*words)[0] == 0
    code, shown = server.run(*words, fault=fault)
    assert code == -signal.SIGKILL, shown
    code, shown = server.run("run", "--resume", "--yes", *library.where)
    assert code == 0, shown
    server.run("archive", "push", *library.where)
    assert [row[1] for row in library.rows()] == ["only_there"]
    assert library.here() == set()
    ((name, _), *_) = [each for each in library.there().items() if each[0].endswith(".zip")]
    assert [row[0] for row in library.rows()] == [name]
    assert library.command("archive", "verify", "--all", "--full").code == 0
    assert library.command("verify").code == 0


# ── what knows of both places ─────────────────────────────────────────────────────────────────────────────────────


def test_a_listing_says_where_each_archive_lies(place: Bucket | None, tmp_path: Path) -> None:
    library = Library(tmp_path, place).with_archives(*STAMPS[:1])
    library.command("archive", "push")
    library.with_archives(STAMPS[1])
    lines = library.command("archive", "list").stdout.splitlines()
    assert lines[1].endswith("here and there")
    assert lines[2].endswith("  here")
    (library.archive / name_of(STAMPS[0])).unlink()
    assert library.command("archive", "list").stdout.splitlines()[1].endswith("  there")


def test_what_lies_where_is_told_without_a_database(tmp_path: Path) -> None:
    library = Library(tmp_path, None, keep_local=False).with_archives()
    library.command("archive", "push")
    (library.root / "state/skicyclerun.sqlite3").write_bytes(b"torn" * 2000)
    listed = library.command("archive", "list")
    assert listed.code == 0
    assert "there, not by this database" in listed.stdout
    latest = library.command("archive", "restore", "latest", "--to", tmp_path / "to")
    assert latest.code == 2
    assert name_of(STAMPS[0]) in latest.stderr
    restored = library.command("archive", "restore", STAMPS[0], "--to", tmp_path / "to")
    assert restored.code == 0
    assert "is not of this database" in restored.stderr
    assert library.command("archive", "prune", "--days", "1", "--dry-run", "--json").json["removed"] == []


def test_copies_are_found_again_when_the_database_was_lost(place: Bucket | None, tmp_path: Path) -> None:
    library = Library(tmp_path, place).with_archives(*STAMPS)
    library.command("archive", "push")
    before, rows = library.there(), library.rows()
    shutil.rmtree(library.root / "state")
    assert library.command("archive", "push").code == 0
    assert library.there() == before
    assert library.rows() == rows
    assert library.command("archive", "prune", "--keep-last", "1", "--yes").code == 0
    assert set(library.there()) == {name_of(STAMPS[2]), name_of(STAMPS[2]) + ".json"}


def test_another_machines_archives_are_listed_and_never_pruned(tmp_path: Path) -> None:
    one = Library(tmp_path / "one", None).with_archives(*STAMPS)
    one.command("archive", "push")
    two = Library(tmp_path / "two", None)
    two.config = write_config(tmp_path / "two", cleanup={"remote": str(one.disk)})
    two.with_archives(*STAMPS[:2])
    assert two.command("archive", "push").code == 0
    listed = two.command("archive", "list").stdout
    assert listed.count("there, not by this database") == 3
    assert two.command("archive", "prune", "--keep-last", "1", "--yes").code == 0
    names = {name for name in one.there() if name.endswith(".zip")}
    assert names == {*map(name_of, STAMPS), name_of(STAMPS[1]).replace(".zip", "-2.zip")}


def test_pruning_counts_and_removes_in_both_places(place: Bucket | None, tmp_path: Path) -> None:
    library = Library(tmp_path, place).with_archives(*STAMPS)
    library.command("archive", "push")
    (library.archive / name_of(STAMPS[1])).unlink()
    assert library.command("archive", "prune", "--keep-last", "1", "--dry-run").stdout.count("pipeline_") == 2
    assert library.command("archive", "prune", "--keep-last", "1", "--yes").code == 0
    assert library.here() == {name_of(STAMPS[2])}
    assert set(library.there()) == {name_of(STAMPS[2]), name_of(STAMPS[2]) + ".json"}
    assert [row[1] for row in library.rows()] == ["pruned", "pruned", "copied"]


def test_what_is_not_confirmed_there_is_never_pruned_here(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives(*STAMPS)
    pruned = library.command("archive", "prune", "--keep-last", "1", "--yes")
    assert pruned.code == 0
    assert library.here() == set(map(name_of, STAMPS))
    assert "Left alone" in pruned.stderr


def test_the_last_whole_copy_stays_wherever_it_is(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    for stamp in STAMPS[:2]:
        (library.archive / name_of(stamp)).unlink()
    (library.disk / name_of(STAMPS[1])).write_bytes(b"torn")
    library.command("archive", "prune", "--days", "0", "--yes")
    assert name_of(STAMPS[0]) in library.there()


def test_nothing_is_pruned_while_the_second_place_does_not_answer(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives(*STAMPS)
    library.command("archive", "push")
    library.disk.rename(tmp_path / "away")
    pruned = library.command("archive", "prune", "--keep-last", "1", "--yes")
    assert pruned.code == 1
    assert library.here() == set(map(name_of, STAMPS))


@pytest.mark.crash
def test_a_prune_killed_between_an_archive_and_its_record_is_finished_by_the_next(
    server: ForkServer, place: Bucket | None, tmp_path: Path
) -> None:
    library = Library(tmp_path, place).with_archives(*STAMPS)
    library.command("archive", "push")
    words = ("archive", "prune", "--keep-last", "1", "--yes", *library.where)
    assert server.run(*words, fault="copy.deleted_there")[0] == -signal.SIGKILL
    assert server.run(*words)[0] == 0
    assert library.here() == {name_of(STAMPS[2])}
    assert {name for name in library.there() if name.endswith(".zip")} == {name_of(STAMPS[2])}


def test_a_damaged_copy_is_named_and_the_archive_here_is_not_blamed(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    library.command("archive", "push")
    copy = library.disk / name_of(STAMPS[0])
    data = bytearray(copy.read_bytes())
    data[9_000] ^= 1
    before = copy.stat()
    copy.write_bytes(data)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert library.command("archive", "verify", "latest").code == 0  # by size, version and directory
    found = library.command("archive", "verify", "latest", "--full")
    assert found.code == 3
    ours, theirs, *_ = found.stdout.splitlines()
    assert ours.startswith(f"{name_of(STAMPS[0])}: OK")
    assert theirs.startswith(f"{library.disk}/")


@pytest.mark.parametrize("name", ["latest", STAMPS[0], f"pipeline_{STAMPS[0]}"])
def test_an_album_comes_back_from_there(place: Bucket | None, tmp_path: Path, name: str) -> None:
    library = Library(tmp_path, place, keep_local=False).with_archives()
    library.command("archive", "push")
    restored = library.command("archive", "restore", name, "--album", "Alps", "--to", tmp_path / "to")
    assert restored.code == 0, restored.stderr
    wanted = read_tree(library.root / "outputs/albums/Alps")
    assert read_tree(tmp_path / "to/albums/Alps") == wanted


def test_the_copy_can_be_read_though_the_archive_lies_here(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    library.command("archive", "push")
    (library.archive / name_of(STAMPS[0])).write_bytes(b"torn")
    assert library.command("archive", "restore", STAMPS[0], "--to", tmp_path / "to").code == 1
    assert library.command("archive", "restore", STAMPS[0], "--from-copy", "--to", tmp_path / "to").code == 0


@pytest.mark.parametrize("trouble", ["503", "reset"])
def test_a_push_outlasts_trouble_that_passes(service: Bucket, tmp_path: Path, trouble: Trouble) -> None:
    library = Library(tmp_path, service).with_archives()
    with service.troubled() as proxy:
        met: list[str] = []

        def judge(method: str, path: str) -> Trouble | None:
            met.append(path)
            return trouble if len(met) % 3 == 0 else None

        proxy.judge = judge
        library.config = write_config(
            tmp_path, cleanup={"remote": library.remote, "remote_service": {"endpoint_url": proxy.endpoint}}
        )
        assert library.command("archive", "push").code == 0
    assert library.there()[name_of(STAMPS[0])] == (library.archive / name_of(STAMPS[0])).read_bytes()


# ── what is configured ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_database_refuses_the_steps_that_the_machine_does_not_have(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    library.command("archive", "push")
    with closing(sqlite3.connect(library.root / "state/skicyclerun.sqlite3")) as connection:
        for before, after in itertools.permutations(CopyStatus, 2):
            legal = any((source, target) == (before, after) for _, source, target in COPY_TRANSITIONS)
            connection.execute("DELETE FROM archive_copies")
            connection.execute(
                "INSERT INTO archive_copies (file, remote, status, token, name, size, sha256, entered_at, copied_at) "
                "VALUES ('a', 'b', ?, 't', 'a', 1, 'x', 'now', 'now')",
                (before.value,),
            )
            try:
                connection.execute("UPDATE archive_copies SET status = ?", (after.value,))
            except sqlite3.IntegrityError:
                assert not legal, (before, after)
            else:
                assert legal, (before, after)


def test_a_second_place_in_the_source_is_refused(tmp_path: Path, photos: Path) -> None:
    config = write_config(tmp_path, cleanup={"remote": str(photos / "Alps")})
    words = ("run", "--yes", "--source", "folder", "--library", photos, "--config", config)
    refused = skicyclerun(*words, "--lib-root", tmp_path / "lib")
    assert refused.code == 2
    assert "cleanup.remote" in refused.stderr


def test_no_second_place_is_said(tmp_path: Path) -> None:
    pushed = skicyclerun("archive", "push", "--lib-root", tmp_path, "--config", write_config(tmp_path))
    assert pushed.code == 2
    assert "cleanup.remote" in pushed.stderr


@pytest.mark.parametrize("command", [("config", "check"), ("doctor",)])
def test_whether_it_answers_is_said(tmp_path: Path, command: tuple[str, ...]) -> None:
    library = Library(tmp_path, None)
    told = library.command(*command)
    assert f"{library.disk} answers" in told.stdout + told.stderr
    assert os.listdir(library.disk) == []
    library.disk.rmdir()
    missing = library.command(*command)
    assert "cannot be reached" in missing.stdout + missing.stderr
    assert not library.disk.exists()


@pytest.mark.parametrize(
    "remote",
    [
        "s3://AKIAEXAMPLE:hushhush@bucket/prefix",
        "s3://bucket/prefix?secret=hushhush",
        "s3://user@bucket",
        "file://hushhush@host/folder",
        "https://key:hushhush@example.org/",
    ],
)
def test_a_secret_in_the_address_is_refused_and_not_shown(tmp_path: Path, remote: str) -> None:
    config = write_config(tmp_path, cleanup={"remote": remote})
    refused = skicyclerun("config", "check", "--lib-root", tmp_path / "lib", "--config", config)
    assert refused.code == 2
    assert "cleanup.remote" in refused.stderr
    assert "hushhush" not in refused.stderr + refused.stdout
    assert "AKIAEXAMPLE" not in refused.stderr + refused.stdout


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        ("file:///disk/old%20archives", "/disk/old archives"),
        ("/disk/archives/", "/disk/archives"),
        ("${REMOTE_DISK}/{{x}}", "/disk/{x}"),
        ("s3://bucket/${NOBODY_SET:there}", "s3://bucket/there"),
    ],
)
def test_a_place_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str, shown: str) -> None:
    monkeypatch.setenv("REMOTE_DISK", "/disk")
    config = write_config(tmp_path, cleanup={"remote": remote})
    told = skicyclerun("config", "show", "--lib-root", tmp_path / "lib", "--config", config)
    assert told.json["cleanup"]["remote"] == shown


@pytest.mark.parametrize(
    ("remote", "problem"),
    [
        ("archives", "absolute path"),
        ("ftp://host/x", "s3://"),
        ("s3://", "names no bucket"),
        ("s3://UPPER/x", "names no bucket"),
        ("s3://bucket/a//b", "empty part"),
        ("s3://bucket/../b", "`..`"),
        ("file://host/x", "three slashes"),
        ("{lib_root}/pipeline/albums/old", "which a cleanup empties"),
        ("{lib_root}/archive/old", "one place or lie in one another"),
        ("/", "root of the disk"),
    ],
)
def test_a_place_that_cannot_be_one_is_refused(tmp_path: Path, remote: str, problem: str) -> None:
    config = write_config(tmp_path, cleanup={"remote": remote})
    refused = skicyclerun("config", "check", "--lib-root", tmp_path / "lib", "--config", config)
    assert refused.code == 2
    assert problem in refused.stderr
