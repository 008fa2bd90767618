"""Archives that go to a second place: beside a run, by `archive push`, stopped anywhere, and all that knows of them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
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
from skicyclerun.run.lock import RunLock
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

pytestmark = pytest.mark.long

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
OF_A_REMOVAL = ("copy.prune_begun", "copy.deleted_there", "copy.gone_there", "copy.gone_here", "copy.pruned")
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
    # What lies at its name may be anybody's, and stays.
    assert library.there()[name_of(STAMPS[0])] == b"torn"
    assert len(library.there()[name_of(STAMPS[0]).replace(".zip", "-2.zip")]) > 300_000
    assert "Another file lies at" in pushed.stderr


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
    others = {*OF_A_REMOVAL, "copy.cleared_there"}
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


def test_a_run_that_a_push_keeps_waiting_is_told_who_that_is_and_how_to_stop_it(
    service: Bucket, tmp_path: Path, photos: Path
) -> None:
    library = Library(tmp_path, service).with_archives()
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "silent" if "partNumber" in path else None
        through(library, proxy.endpoint)
        pushing = start("archive", "push", *library.where)
        assert proxy.waiting.wait(30)
        refused = run(library, photos)
        pushing.kill()
        pushing.communicate()
    assert refused.code == 11
    assert "archive push" in refused.stderr
    assert "stop it with Ctrl-C: what is not copied then goes on with the next run" in refused.stderr


# ── places that do not answer ─────────────────────────────────────────────────────────────────────────────────────


def test_a_place_that_is_silent_from_the_first_question_is_asked_once_a_run_and_not_waited_for(
    service: Bucket, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the time-outs that are the default: two minutes for a request, five for a copy in hand."""
    monkeypatch.setattr("skicyclerun.actors.archive_push._PATIENCE_SECONDS", 0.5)
    library = Library(tmp_path, service)
    run(library, photos)
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "silent"
        library.config = write_config(
            tmp_path, cleanup={"remote": library.remote, "remote_service": {"endpoint_url": proxy.endpoint}}
        )
        began = time.monotonic()
        second = run(library, photos)
        assert time.monotonic() - began < 20
        assert len(proxy.seen) == 1
    assert second.code == 0
    assert "has not answered within" in second.stdout + second.stderr
    assert [row[1] for row in library.rows()] == ["pending"]
    assert "has not answered within" in library.command("status").stdout


def test_a_place_that_falls_silent_during_a_copy_is_not_asked_again_by_the_same_run(
    service: Bucket, tmp_path: Path, photos: Path
) -> None:
    library = Library(tmp_path, service)
    run(library, photos)
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "silent" if "partNumber" in path else None
        through(library, proxy.endpoint, remote_timeout=0.5)
        assert run(library, photos).code == 0
        after = [
            path for _, path in proxy.seen[[i for i, seen in enumerate(proxy.seen) if "partNumber" in seen[1]][-1] :]
        ]
    assert not [path for path in after if "list-type" in path]
    assert [row[1] for row in library.rows()] == ["pending"]


@pytest.mark.parametrize(
    ("words", "silent"),
    [
        (("list",), "list-type"),
        (("list",), ".json"),
        (("verify", "--all", "--full"), ".zip"),
        (("restore", "latest", "--to", "{to}"), ".zip"),
        (("prune", "--keep-last", "1", "--yes"), ".zip"),
    ],
)
def test_the_first_ctrl_c_ends_a_command_that_waits_for_a_silent_bucket(
    service: Bucket, tmp_path: Path, words: tuple[str, ...], silent: str
) -> None:
    library = Library(tmp_path, service, keep_local=False).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    before = library.outcome()
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: (
            "silent" if method == "GET" and silent in path.replace(".zip.j", ".j") else None
        )
        through(library, proxy.endpoint, remote_timeout=60.0, keep_local=False)
        process = start("archive", *(word.format(to=tmp_path / "to") for word in words), *library.where)
        assert proxy.waiting.wait(30)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert ended(process).code == 130
        assert time.monotonic() - began < 5
    assert library.outcome() == before


# ── what a service answers ────────────────────────────────────────────────────────────────────────────────────────


def in_plain_words(*texts: str) -> None:
    for text in texts:
        for word in ("Generic", "<Error", "Debug", "RetryError", "max_retries", "status code", "http://127.0.0.1", "{"):
            assert word not in text, text


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("503", "busy or out of order"),
        ("reset", "broke off"),
        ("403", "refuses these credentials. Do they allow to list, read and write there?"),
        ("no_bucket", "There is no bucket nobucket. Make nobucket, or name another."),
        ("nobody", "nobody answers at 127.0.0.1:9"),
        ("no_library", "needs obstore, which is not installed. `pip install 'skicyclerun[remote]'`"),
    ],
)
def test_what_a_bucket_refuses_is_one_plain_sentence_for_all_archives_with_what_to_do(
    service: Bucket, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, said: str
) -> None:
    library = Library(tmp_path, service).with_archives(*STAMPS)
    run(library, photos)
    library.command("archive", "push")
    with closing(sqlite3.connect(library.root / "state/skicyclerun.sqlite3")) as connection, connection:
        connection.execute("UPDATE archive_copies SET status = 'pending'")
    with service.troubled() as proxy:
        troubles: dict[str, Trouble] = {"503": "503", "reset": "reset", "403": "403"}
        proxy.judge = lambda method, path: troubles.get(trouble)
        if trouble == "no_library":
            monkeypatch.setitem(sys.modules, "obstore", None)
        place = "s3://nobucket" if trouble == "no_bucket" else library.remote
        endpoint = "http://127.0.0.1:9" if trouble == "nobody" else proxy.endpoint
        through(library, endpoint, remote=place, remote_timeout=1.0)
        if trouble == "no_bucket":
            with closing(sqlite3.connect(library.root / "state/skicyclerun.sqlite3")) as connection, connection:
                connection.execute("UPDATE archive_copies SET remote = ?", (place,))
        second = run(library, photos)
        shown = second.stdout + second.stderr
        listed = library.command("archive", "list", "--json").json
    assert second.code == 0
    assert second.stderr.count("not copied to") == 1
    assert said in shown
    status = library.command("status").stdout
    assert said in status
    reasons = {copy["reason"] for copy in status_of(library.root, "--config", str(library.config))["archive_copies"]}
    assert len(reasons) == 1
    in_plain_words(*reasons, listed["remote_problem"])
    in_plain_words(*(line for line in (shown + status).splitlines() if "not copied" in line))


@pytest.mark.parametrize("words", [("list",), ("verify", "--all", "--full"), ("restore", "latest", "--to", "{to}")])
def test_an_archive_that_another_machine_prunes_meanwhile_is_a_sentence(
    service: Bucket, tmp_path: Path, words: tuple[str, ...]
) -> None:
    library = Library(tmp_path, service, keep_local=False).with_archives()
    library.command("archive", "push")
    name = name_of(STAMPS[0])
    with service.troubled() as proxy:

        def judge(method: str, path: str) -> Trouble | None:
            # Between the look and the reading.
            if method == "GET" and path.endswith((".json", ".zip")) and (words[0] == "list" or path.endswith(".zip")):
                for key in (name, f"{name}.json"):
                    service.client.delete_object(Bucket=BUCKET, Key=f"mine/{key}")
            return None

        proxy.judge = judge
        through(library, proxy.endpoint, keep_local=False)
        done = library.command("archive", *(word.format(to=tmp_path / "to") for word in words))
    assert done.code in (0, 1, 3)
    assert "no longer in" in done.stdout + done.stderr
    in_plain_words(done.stdout, done.stderr)


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def test_no_name_there_stops_a_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    library = Library(tmp_path, None, keep_local=False).with_archives()
    library.command("archive", "push")
    record = json.loads(library.there()[f"{name_of(STAMPS[0])}.json"])
    stamps = ["00010101_000000", "99991231_235959", "00000000_000000", "20261399_999999", "19700101_000000"]
    for stamp in stamps:
        (library.disk / name_of(stamp)).write_bytes(b"x")
    for created in ("1980-01-01T00:00:00Z", "2999-12-31T23:59:59Z", "2026-99-99T99:99:99Z"):
        stamps.append(f"{created[:4]}0101_010101")
        (library.disk / name_of(stamps[-1])).write_bytes(b"x")
        (library.disk / f"{name_of(stamps[-1])}.json").write_text(json.dumps(record | {"created": created}))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        listed = library.command("archive", "list")
        assert listed.code == 0
        assert all(name_of(stamp) in listed.stdout for stamp in stamps)
        assert len(library.command("archive", "list", "--json").json["archives"]) == len(stamps) + 1
        assert prune(library).code == 0
        assert library.command("archive", "verify", *stamps).code == 3
        assert library.command("archive", "restore", STAMPS[0], "--to", tmp_path / "to").code == 0
    finally:
        monkeypatch.undo()
        time.tzset()


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
    assert listed.count("not known here") == 3
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


def prune(library: Library, *arguments: str) -> Ended:
    return library.command("archive", "prune", "--keep-last", "1", "--yes", *arguments)


@dataclass(frozen=True)
class Pruned:
    """Two archives that were copied, and what a prune of the older one that nobody stops makes of them."""

    roots: dict[str, Path]
    outcomes: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory, server: ForkServer, undisturbed: Undisturbed) -> Pruned:
    """In a folder; the libraries before it, with the archives here too and without them."""
    base = tmp_path_factory.mktemp("pruned")
    roots, outcomes = {}, {}
    for kind, keep_local in (("both", True), ("alone", False)):
        shutil.copytree(undisturbed.root, base / kind / "lib")
        library = Library(base / kind, None, keep_local=keep_local)
        assert server.run("archive", "push", *library.where)[0] == 0
        roots[kind] = base / f"{kind}_before"
        shutil.copytree(base / kind, roots[kind])
        assert server.run("archive", "prune", "--keep-last", "1", "--yes", *library.where)[0] == 0
        outcomes[kind] = library.outcome()
    return Pruned(roots, outcomes)


@pytest.mark.crash
@pytest.mark.parametrize("finished_by", ["prune", "push"])
@pytest.mark.parametrize("kind", ["both", "alone"])
@pytest.mark.parametrize("fault", OF_A_REMOVAL)
def test_a_prune_killed_at_a_fault_point_ends_like_one_never_stopped(
    pruned: Pruned, server: ForkServer, tmp_path: Path, fault: str, kind: str, finished_by: str
) -> None:
    library = moved(pruned.roots[kind], tmp_path, keep_local=kind == "both")
    words = ("archive", "prune", "--keep-last", "1", "--yes", *library.where)
    code, shown = server.run(*words, fault=fault)
    assert code == -signal.SIGKILL, shown
    again = words if finished_by == "prune" else ("archive", "push", *library.where)
    code, shown = server.run(*again)
    assert code == 0, shown
    assert library.outcome() == pruned.outcomes[kind]
    assert library.command("archive", "verify", "--all", "--full").code == 0


def moved(before: Path, root: Path, *, keep_local: bool) -> Library:
    """A library with its disk, whose database knows the place by another path."""
    shutil.copytree(before / "lib", root / "lib")
    library = Library(root, None, keep_local=keep_local)
    shutil.rmtree(library.disk)
    shutil.copytree(before / "disk", library.disk)
    with closing(sqlite3.connect(library.root / "state/skicyclerun.sqlite3")) as connection, connection:
        for table in ("archive_copies", "archive_remotes"):
            connection.execute(f"UPDATE OR REPLACE {table} SET remote = ?", (library.remote,))
    return library


@pytest.mark.crash
@pytest.mark.parametrize("fault", OF_A_REMOVAL)
def test_a_prune_of_a_bucket_killed_at_a_fault_point_is_finished_by_the_next(
    undisturbed: Undisturbed, server: ForkServer, service: Bucket, tmp_path: Path, fault: str
) -> None:
    shutil.copytree(undisturbed.root, tmp_path / "lib")
    library = Library(tmp_path, service)
    assert server.run("archive", "push", *library.where)[0] == 0
    words = ("archive", "prune", "--keep-last", "1", "--yes", *library.where)
    assert server.run(*words, fault=fault)[0] == -signal.SIGKILL
    code, shown = server.run(*words)
    assert code == 0, shown
    assert library.here() == {name_of(STAMPS[1])}
    assert set(library.there()) == {name_of(STAMPS[1]), name_of(STAMPS[1]) + ".json"}
    assert [row[1] for row in library.rows()] == ["pruned", "copied"]
    assert library.command("archive", "verify", "--all").code == 0


@pytest.mark.crash
def test_a_prune_without_a_second_place_that_is_killed_is_finished_by_the_next(
    server: ForkServer, tmp_path: Path
) -> None:
    library = Library(tmp_path, None, remote=None).with_archives(*STAMPS)
    words = ("archive", "prune", "--keep-last", "1", "--yes", *library.where)
    assert server.run(*words, fault="retention.removed")[0] == -signal.SIGKILL
    assert library.here() == set(map(name_of, STAMPS[1:]))
    assert server.run(*words)[0] == 0
    assert library.here() == {name_of(STAMPS[2])}


def test_a_removal_that_was_stopped_is_said_to_be_one_and_a_dry_run_leaves_it(
    server: ForkServer, pruned: Pruned, tmp_path: Path
) -> None:
    library = moved(pruned.roots["both"], tmp_path, keep_local=True)
    words = ("archive", "prune", "--keep-last", "1", "--yes", *library.where)
    assert server.run(*words, fault="copy.deleted_there")[0] == -signal.SIGKILL
    before = library.outcome()
    assert "being removed" in library.command("archive", "list").stdout
    assert prune(library, "--dry-run").code == 0
    assert library.outcome() == before
    assert library.command("archive", "verify", "--all").code == 0
    finishing = prune(library)
    assert f"{name_of(STAMPS[0])}: its removal, which was stopped, is finished." in finishing.stderr


@pytest.mark.crash
def test_a_removal_that_cannot_be_finished_does_not_keep_a_push_from_copying(
    server: ForkServer, service: Bucket, tmp_path: Path
) -> None:
    library = Library(tmp_path, service).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    words = ("archive", "prune", "--keep-last", "1", "--yes", *library.where)
    assert server.run(*words, fault="copy.deleted_there")[0] == -signal.SIGKILL
    library.with_archives(STAMPS[2])
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "403" if method == "POST" and "delete" in path else None
        through(library, proxy.endpoint)
        pushed = library.command("archive", "push")
    assert pushed.code == 3
    assert f"{name_of(STAMPS[0])} could not be removed from {library.remote}" in pushed.stderr
    assert f"{name_of(STAMPS[2])}: copied" in pushed.stdout
    through(library, service.endpoint)
    assert library.command("archive", "push").code == 0
    assert set(library.there()) == {each + end for each in map(name_of, STAMPS[1:]) for end in ("", ".json")}


def test_a_prune_that_is_refused_there_has_removed_nothing_and_says_what_to_type(
    service: Bucket, tmp_path: Path
) -> None:
    library = Library(tmp_path, service).with_archives(*STAMPS)
    library.command("archive", "push")
    before = library.outcome()
    with service.troubled() as proxy:
        proxy.judge = lambda method, path: "403" if method == "POST" and "delete" in path else None
        through(library, proxy.endpoint)
        refused = prune(library)
        assert refused.code == 1
        assert "0 archives were removed before it" in refused.stderr
        assert "archive prune` goes on with it" in refused.stderr
        assert library.outcome() == before
        assert "being removed" not in library.command("archive", "list").stdout


def test_a_prune_that_fails_there_in_the_middle_says_how_far_it_came_and_the_next_goes_on(
    service: Bucket, tmp_path: Path
) -> None:
    library = Library(tmp_path, service).with_archives(*STAMPS)
    library.command("archive", "push")
    with service.troubled() as proxy:
        deletions: list[str] = []

        def judge(method: str, path: str) -> Trouble | None:
            if method == "POST" and "delete" in path:
                deletions.append(path)
            return "503" if len(deletions) > 2 and "delete" in path else None

        proxy.judge = judge
        through(library, proxy.endpoint)
        failed = prune(library)
    assert failed.code == 1
    assert f"{name_of(STAMPS[1])} could not be removed" in failed.stderr
    assert f"{name_of(STAMPS[1])} is still in {library.archive}" in failed.stderr
    assert "1 archive was removed before it" in failed.stderr
    assert "archive prune` goes on with it" in failed.stderr
    assert library.here() == set(map(name_of, STAMPS[1:]))
    through(library, service.endpoint)
    assert prune(library).code == 0
    assert library.here() == {name_of(STAMPS[2])}
    assert set(library.there()) == {name_of(STAMPS[2]), name_of(STAMPS[2]) + ".json"}
    assert [row[1] for row in library.rows()] == ["pruned", "pruned", "copied"]


def through(library: Library, endpoint: str, **cleanup: object) -> None:
    """The same place by way of this address."""
    library.config = write_config(
        library.root.parent,
        cleanup={
            "remote": library.remote,
            "remote_timeout": 5.0,
            "remote_service": {"endpoint_url": endpoint},
            **cleanup,
        },
    )
    library.where = ("--lib-root", str(library.root), "--config", str(library.config))


# ── what is kept was proved ───────────────────────────────────────────────────────────────────────────────────────


def flip(path: Path) -> None:
    """One bit of a photo, by a disk that does not tell: size and time stay."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[9_000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_damaged_archive_is_not_what_a_prune_keeps(tmp_path: Path) -> None:
    library = Library(tmp_path, None, remote=None).with_archives(*STAMPS)
    flip(library.archive / name_of(STAMPS[2]))
    done = prune(library)
    assert done.code == 0
    assert f"Left alone: {name_of(STAMPS[2])} (it is damaged" in done.stderr
    assert library.here() == set(map(name_of, STAMPS[1:]))
    assert library.command("archive", "verify", STAMPS[1]).code == 0


def test_a_damaged_copy_that_lies_there_alone_is_not_what_a_prune_keeps(tmp_path: Path) -> None:
    library = Library(tmp_path, None, keep_local=False).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    flip(library.disk / name_of(STAMPS[1]))
    done = prune(library)
    assert done.code == 0
    assert f"Left alone: {name_of(STAMPS[1])} (its copy is damaged" in done.stderr
    assert name_of(STAMPS[0]) in library.there()
    assert library.command("archive", "restore", STAMPS[0], "--to", tmp_path / "to").code == 0


def test_an_archive_that_is_damaged_here_is_kept_for_its_whole_copy(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    flip(library.archive / name_of(STAMPS[1]))
    assert prune(library, "--json").json["kept"] == [name_of(STAMPS[1])]


def test_what_verify_found_damaged_in_a_bucket_is_remembered_and_no_archive_is_removed_for_it(
    service: Bucket, tmp_path: Path
) -> None:
    library = Library(tmp_path, service, keep_local=False).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    name = name_of(STAMPS[1])
    damaged = bytearray(library.there()[name])
    damaged[9_000] ^= 1
    service.put(f"mine/{name}", bytes(damaged))
    with closing(sqlite3.connect(library.root / "state/skicyclerun.sqlite3")) as connection, connection:
        # As where the service itself spoilt it: its version is the one that was read back.
        tag = service.client.head_object(Bucket=BUCKET, Key=f"mine/{name}")["ETag"]
        connection.execute("UPDATE archive_copies SET version = ? WHERE name = ?", (tag, name))
    assert library.command("archive", "verify", "--all").code == 0
    assert prune(library, "--dry-run", "--full", "--json").json["removed"] == []
    assert library.command("archive", "verify", "--all", "--full").code == 3
    assert library.command("archive", "verify", "--all").code == 3
    done = prune(library)
    assert f"Left alone: {name} (its copy is damaged" in done.stderr
    assert set(library.there()) == {each + end for each in map(name_of, STAMPS[:2]) for end in ("", ".json")}
    pushed = library.command("archive", "push")
    assert pushed.code == 3
    assert f"{name}: not there. Its copy" in pushed.stdout


def test_what_verify_finds_is_not_entered_while_a_run_works_and_that_is_said(tmp_path: Path) -> None:
    library = Library(tmp_path, None, keep_local=False).with_archives()
    library.command("archive", "push")
    flip(library.disk / name_of(STAMPS[0]))
    with RunLock(library.root, library.root / "state/run.lock"):
        found = library.command("archive", "verify", "--all", "--full")
    assert found.code == 3
    assert "not remembered" in found.stderr


# ── what was written anew there ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("confirmed_by", [("push",), ("verify", "--all", "--full")])
def test_copies_of_another_time_and_the_same_bytes_are_confirmed_again_and_can_be_pruned(
    tmp_path: Path, confirmed_by: tuple[str, ...]
) -> None:
    library = Library(tmp_path, None, keep_local=False).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    for stamp in STAMPS[:2]:
        os.utime(library.disk / name_of(stamp), (1_700_000_000, 1_700_000_000))
    left = prune(library)
    assert "written anew" in left.stderr
    assert "--full" in left.stderr
    assert "0 kept, 2 left alone" in left.stderr
    assert library.command("archive", *confirmed_by).code == 0
    assert prune(library, "--json").json["removed"] == [f"{library.disk}/{name_of(STAMPS[0])}"]
    assert set(library.there()) == {name_of(STAMPS[1]), name_of(STAMPS[1]) + ".json"}


@pytest.mark.parametrize("fate", ["gone", "other_bytes", "torn_here"])
def test_a_push_does_not_say_that_every_archive_is_there_when_one_is_not(tmp_path: Path, fate: str) -> None:
    library = Library(tmp_path, None, keep_local=fate == "torn_here").with_archives(*STAMPS[:2])
    library.command("archive", "push")
    there = library.disk / name_of(STAMPS[0])
    if fate == "gone":
        there.unlink()
    elif fate == "other_bytes":
        data = bytearray(there.read_bytes())
        data[9_000] ^= 1
        there.write_bytes(data)
    else:
        (library.archive / "pipeline_20260401_000000.zip").write_bytes(b"torn")
    pushed = library.command("archive", "push")
    assert pushed.code == 3
    assert "Every archive" not in pushed.stderr
    assert "not there. " in pushed.stdout


# ── other people's files ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.crash
def test_a_file_that_was_put_at_a_reserved_name_is_kept_and_the_archive_gets_another(
    server: ForkServer, place: Bucket | None, tmp_path: Path
) -> None:
    library = Library(tmp_path, place).with_archives()
    assert server.run("archive", "push", *library.where, fault="copy.named")[0] == -signal.SIGKILL
    name, other = name_of(STAMPS[0]), name_of(STAMPS[0]).replace(".zip", "-2.zip")
    if place is not None:
        place.put(f"mine/{name}", b"somebody's")
    else:
        (library.disk / name).write_bytes(b"somebody's")
    pushed = library.command("archive", "push")
    assert pushed.code == 0
    assert f"Another file lies at {name}" in pushed.stderr
    assert f"as {other}" in pushed.stdout
    there = library.there()
    assert set(there) == {name, other, other + ".json"}
    assert there[name] == b"somebody's"
    assert there[other] == (library.archive / name).read_bytes()
    assert library.command("archive", "verify", "--all").stdout.count("OK") >= 2
    assert f"here and there as {other}" in library.command("archive", "list").stdout


def test_a_file_that_took_the_place_of_a_copy_is_not_pruned(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    (library.disk / name_of(STAMPS[0])).write_bytes(b"somebody's")
    done = prune(library)
    assert done.code == 0
    assert "Left alone" in done.stderr
    assert library.there()[name_of(STAMPS[0])] == b"somebody's"
    assert name_of(STAMPS[0]) in library.here()


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
