"""Where archives lie when places change, are shared, unsafe or lost; and what lies there, compared with the copy."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from skicyclerun.archive.remote_folder import IDENTITY_FILE, FolderRemote
from skicyclerun.errors import RemoteUnreachable
from tests.archive_trees import read_tree
from tests.command_line import Ended, make_library, status_of, write_config
from tests.fork_server import ForkServer, fork_server
from tests.remote_places import Bucket, credentials, s3_service
from tests.test_archive_push import STAMPS, Library, name_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def service() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patch:
        credentials(patch)
        with s3_service() as bucket:
            yield bucket


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server"), imports=("skicyclerun.commands.archive",)) as running:
        yield running


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Bucket | None:
    return request.getfixturevalue("service") if request.param == "bucket" else None


def configured(library: Library, **cleanup: object) -> Library:
    """The same library by another configuration."""
    if library.bucket is not None:
        cleanup["remote_service"] = {"endpoint_url": library.bucket.endpoint}
    write_config(library.config.parent, cleanup=cleanup)
    return library


def run(library: Library, photos: Path, *arguments: str) -> Ended:
    return library.command("run", "--yes", "--source", "folder", "--library", photos, *arguments)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_library(tmp_path / "photos", {"Alps": ["a.jpg", "b.jpg"], "Coast": ["c.jpg"]})


# ── a place that is no longer the configured one ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("now", ["none", "another"])
def test_archives_that_lie_only_in_a_former_place_are_known_with_that_place(
    place: Bucket | None, tmp_path: Path, now: str
) -> None:
    library = Library(tmp_path, place, keep_local=False).with_archives(*STAMPS[:2])
    assert library.command("archive", "push").code == 0
    there = library.there()
    (tmp_path / "other").mkdir()
    configured(library, remote=None if now == "none" else str(tmp_path / "other"))

    listed = library.command("archive", "list")
    assert listed.stdout.count(f"in {library.remote}, which is not `cleanup.remote` now") == 2
    assert "There are no archives" not in listed.stderr
    assert "0 archives in" in listed.stderr
    rows = library.command("archive", "list", "--json").json["archives"]
    assert [row["copies_in_other_places"][0]["remote"] for row in rows] == [library.remote] * 2

    verified = library.command("archive", "verify", "--all")
    assert verified.code == 3
    assert verified.stdout.count(f"set `cleanup.remote` to {library.remote} again") == 2
    for name in ("latest", STAMPS[1]):
        restored = library.command("archive", "restore", name, "--to", tmp_path / "to")
        assert restored.code == 2
        assert f"{name_of(STAMPS[1])} lies only in {library.remote}" in restored.stderr
        assert f"Set `cleanup.remote` to {library.remote} again" in restored.stderr
    pruned = library.command("archive", "prune", "--keep-last", "1", "--yes", "--json")
    assert (pruned.json["removed"], pruned.json["kept"]) == ([], [])
    assert library.remote in pruned.stderr
    if now == "another":
        pushed = library.command("archive", "push")
        assert pushed.code == 0
        assert "Every archive is in" not in pushed.stderr
        assert f"2 archives lie only in {library.remote}" in pushed.stderr
        told = library.command("archive", "push", "--json").json["only_in_other_places"]
        assert told == [{"file": name_of(stamp), "remote": library.remote} for stamp in STAMPS[:2]]

    configured(library, remote=library.remote)
    assert library.command("archive", "verify", "--all", "--full").code == 0
    assert library.command("archive", "restore", "latest", "--to", tmp_path / "to").code == 0
    assert library.there() == there


def test_what_lies_here_too_says_so_and_counts_as_here(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    configured(library, remote=None)
    listed = library.command("archive", "list").stdout
    assert listed.count(f"here, and in {library.remote}, which is not `cleanup.remote` now") == 2
    assert library.command("archive", "verify", "--all").code == 0
    assert library.command("archive", "restore", "latest", "--to", tmp_path / "to").code == 0
    assert library.command("archive", "prune", "--keep-last", "1", "--yes").code == 0
    assert library.here() == {name_of(STAMPS[1])}
    (first, second) = library.command("archive", "list", "--json").json["archives"]
    assert (first["here"], second["here"]) == (False, True)


def test_status_names_the_former_place_of_archives_that_lie_there_alone(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None, keep_local=False)
    run(library, photos)
    assert run(library, photos).code == 0
    ((name, *_),) = library.rows()
    (tmp_path / "other").mkdir()
    for remote in (None, str(tmp_path / "other")):
        configured(library, remote=remote, keep_local=False)
        said = library.command("status").stdout
        assert f"in {library.remote}, which is not `cleanup.remote` now, and no longer here: read back" in said
        assert f"1 archive lies only in {library.remote}, which is not `cleanup.remote` now: {name}" in said
        (copy,) = status_of(library.root, "--config", str(library.config))["archive_copies"]
        assert (copy["file"], copy["status"], copy["remote"]) == (name, "only_there", library.remote)


# ── places in which nothing may be written ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "command",
    [("archive", "push"), ("archive", "push", "--new-place"), ("run", "--update"), ("verify", "--repair")],
)
def test_a_place_in_the_source_of_the_newest_run_is_refused(
    tmp_path: Path, photos: Path, command: tuple[str, ...]
) -> None:
    library = Library(tmp_path, None)
    run(library, photos)
    run(library, photos)
    before = read_tree(photos)
    configured(library, remote=str(photos / "Alps"))
    refused = library.command(*command)
    assert refused.code == 2
    assert "lies in the source" in refused.stderr
    assert read_tree(photos) == before


def test_stages_without_a_source_write_no_archive_into_the_source_either(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None)
    run(library, photos)
    configured(library, remote=str(photos / "Alps"))
    for words in (("run", "--stages", "metadata_extraction"), ("run", "--stages", "cleanup")):
        refused = library.command(*words, "--yes")
        assert refused.code == 2, refused
        assert "lies in the source" in refused.stderr


def test_a_place_in_a_source_that_is_only_configured_is_refused(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    write_config(tmp_path, cleanup={"remote": str(photos)}, export={"source": "folder", "library": str(photos)})
    refused = library.command("archive", "push")
    assert refused.code == 2
    assert "lies in the source" in refused.stderr
    assert IDENTITY_FILE not in os.listdir(photos)


@pytest.mark.parametrize(
    "remote",
    ["{lib_root}/archive", "{lib_root}/archive/old", "{lib_root}/pipeline/albums", "{lib_root}", "/", "~"],
)
def test_what_a_run_refuses_as_a_place_push_and_prune_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    library = Library(tmp_path, None).with_archives(*STAMPS[:2])
    (library.root / "pipeline/albums").mkdir(parents=True)
    configured(library, remote=remote)
    before = read_tree(library.root)
    for words in (("archive", "push"), ("archive", "prune", "--keep-last", "1", "--yes")):
        refused = library.command(*words)
        assert refused.code == 2, refused
        assert "cleanup.remote" in refused.stderr
    assert read_tree(library.root) == before
    assert os.listdir(home) == []
    assert library.command("archive", "list").code == 0  # to look is no danger


# ── a place that machines share, and a database that was lost ─────────────────────────────────────────────────────


def two_machines(tmp_path: Path, place: Bucket | None) -> tuple[Library, Library]:
    """The second one's archive is newer."""
    mine, other = Library(tmp_path / "mine", place), Library(tmp_path / "other", place)
    other.remote, other.disk = mine.remote, mine.disk
    configured(other, remote=mine.remote)
    mine.with_archives(STAMPS[0]).command("archive", "push")
    other.with_archives(STAMPS[1]).command("archive", "push")
    return mine, other


def test_latest_is_never_another_machines_archive(place: Bucket | None, tmp_path: Path) -> None:
    mine, other = two_machines(tmp_path, place)
    for words in (("restore", "latest", "--to", tmp_path / "to"), ("verify", "latest")):
        told = mine.command("archive", *words)
        assert told.code == 0
        assert f"The latest of this database is {name_of(STAMPS[0])}" in told.stderr
        assert f"Newer, but not of it: {name_of(STAMPS[1])}" in told.stderr
    assert read_tree(tmp_path / "to")["albums/Alps/IMG_1.jpg"] == read_tree(mine.root)["outputs/albums/Alps/IMG_1.jpg"]
    assert other.command("archive", "verify", "latest").stdout.startswith(name_of(STAMPS[1]))


def test_another_machines_archive_is_restored_and_verified_by_name_alone_and_that_is_said(tmp_path: Path) -> None:
    mine, other = two_machines(tmp_path, None)
    restored = mine.command("archive", "restore", STAMPS[1], "--to", tmp_path / "to")
    assert restored.code == 0
    assert f"{name_of(STAMPS[1])} is not of this database" in restored.stderr
    theirs = read_tree(other.root)["outputs/albums/Alps/IMG_1.jpg"]
    assert read_tree(tmp_path / "to")["albums/Alps/IMG_1.jpg"] == theirs
    assert "not by this database" in mine.command("archive", "verify", STAMPS[1], "--full").stdout
    every = mine.command("archive", "verify", "--all")
    assert every.code == 0
    assert name_of(STAMPS[1]) not in every.stdout
    assert f"Not verified: 1 archive in {mine.archive} and {mine.remote} ({name_of(STAMPS[1])})" in every.stderr
    assert mine.command("archive", "verify", "--all", "--json").json["not_of_this_database"] == [name_of(STAMPS[1])]


def test_each_of_two_archives_of_one_name_can_be_named(tmp_path: Path) -> None:
    mine, other = two_machines(tmp_path, None)
    mine.with_archives(STAMPS[1]).command("archive", "push")  # called …-2 there
    ours, theirs = (read_tree(each.root)["outputs/albums/Alps/IMG_1.jpg"] for each in (mine, other))
    names = {STAMPS[1]: ours, f"{STAMPS[1]}-2": ours, f"{mine.remote}/{name_of(STAMPS[1])}": theirs}
    for number, (name, wanted) in enumerate(names.items()):
        to = tmp_path / f"to-{number}"
        assert mine.command("archive", "restore", name, "--from-copy", "--to", to).code == 0
        assert read_tree(to)["albums/Alps/IMG_1.jpg"] == wanted, name


@pytest.mark.parametrize("name", ["pipeline_20991231_000000.zip", "pipeline_20270101_000000-2.zip"])
def test_a_file_that_only_bears_an_archives_name_is_not_the_latest(tmp_path: Path, name: str) -> None:
    library = Library(tmp_path, None).with_archives()
    library.command("archive", "push")
    (library.disk / name).write_bytes(b"none of ours")
    (library.archive / name).write_bytes(b"none of ours either")
    for words in (("restore", "latest", "--to", tmp_path / "to"), ("verify", "latest")):
        assert library.command("archive", *words).code == 0
    configured(library, remote=None)
    assert library.command("archive", "restore", "latest", "--to", tmp_path / "to").code == 0


def test_without_a_database_the_newest_archive_in_its_folder_is_the_latest(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    shutil.rmtree(library.root / "state")
    verified = library.command("archive", "verify", "latest")
    assert verified.code == 0
    assert verified.stdout.startswith(name_of(STAMPS[1]))


def test_archives_that_a_lost_database_knew_are_named_and_come_back_by_name(
    place: Bucket | None, tmp_path: Path
) -> None:
    library = Library(tmp_path, place, keep_local=False).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    shutil.rmtree(library.root / "state")
    for words in (("restore", "latest", "--overwrite"), ("verify", "latest")):
        asked = library.command("archive", *words)
        assert asked.code == 2
        assert f"{library.remote} holds 2 archives that this database does not know" in asked.stderr
        assert name_of(STAMPS[1]) in asked.stderr
        assert "Name the one that is meant." in asked.stderr
        assert "Of the folders of this lib_root" not in asked.stderr  # they were made of lib/outputs
    assert library.command("archive", "restore", STAMPS[1], "--to", tmp_path / "to").code == 0


def test_those_made_of_the_folders_of_this_lib_root_are_told_from_another_machines(
    tmp_path: Path, photos: Path
) -> None:
    library = Library(tmp_path / "mine", None, keep_local=False)
    run(library, photos)
    run(library, photos)
    ((name, *_),) = library.rows()
    other = Library(tmp_path / "other", None)
    configured(other, remote=library.remote)
    other.with_archives().command("archive", "push")
    shutil.rmtree(library.root / "state")
    asked = library.command("archive", "restore", "latest")
    assert asked.code == 2
    assert f"Of the folders of this lib_root: {name}. Name" in asked.stderr


# ── the mark of a folder ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_place_that_is_not_there_leaves_the_old_one_known(tmp_path: Path) -> None:
    library = Library(tmp_path, None, keep_local=False).with_archives()
    library.command("archive", "push")
    library.with_archives(STAMPS[1])
    library.disk.rename(tmp_path / "away")
    assert library.command("archive", "push", "--new-place").code == 1
    library.disk.mkdir()  # the mount point
    refused = library.command("archive", "push")
    assert refused.code == 1
    assert "not the folder that archives were copied to before" in refused.stderr
    assert os.listdir(library.disk) == []
    assert library.here() == {name_of(STAMPS[1])}


def test_after_the_database_was_lost_nothing_is_removed_here_until_the_place_is_confirmed(tmp_path: Path) -> None:
    library = Library(tmp_path, None, keep_local=False).with_archives()
    library.command("archive", "push")
    library.with_archives(STAMPS[1])
    shutil.rmtree(library.root / "state")
    library.disk.rename(tmp_path / "away")
    library.disk.mkdir()  # the mount point without its disk
    for _ in range(2):
        pushed = library.command("archive", "push")
        assert pushed.code == 0
        assert "1 archive copied to" in pushed.stderr
        assert "stays here too" in pushed.stderr
        assert "push --new-place" in pushed.stderr
        assert library.here() == {name_of(STAMPS[1])}
    told = library.command("doctor")
    assert "archives stay here too" in told.stdout + told.stderr
    shutil.rmtree(library.disk)
    (tmp_path / "away").rename(library.disk)
    confirmed = library.command("archive", "push", "--new-place", "--json")
    assert confirmed.code == 0
    assert confirmed.json["removed_here"] == [name_of(STAMPS[1])]
    assert library.here() == set()
    assert name_of(STAMPS[1]) in library.there()
    library.with_archives(STAMPS[2])
    assert library.command("archive", "push", "--json").json["kept_here_until_confirmed"] == []
    assert library.here() == set()


def test_a_run_keeps_archives_here_while_the_place_is_not_confirmed(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None)
    configured(library, remote=library.remote, keep_local=False)
    run(library, photos)
    second = run(library, photos)
    assert second.code == 0
    assert "push --new-place" in second.stdout + second.stderr
    (name,) = library.here()
    assert [row[:2] for row in library.rows()] == [(name, "copied")]
    assert library.command("archive", "push", "--new-place").code == 0
    assert library.here() == set()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Another disk; only root may mount one."""
    disk = tmp_path / "mnt"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)]
    can = sys.platform == "linux" and os.geteuid() == 0
    if not can or subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_folder_with_archives_on_another_disk_needs_no_word(mounted: Path, tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    (mounted / "archives").mkdir()
    configured(library, remote=str(mounted / "archives"))
    library.command("archive", "push")
    shutil.rmtree(library.root / "state")
    configured(library, remote=str(mounted / "archives"), keep_local=False)
    assert library.command("archive", "push").code == 0
    assert library.here() == set()


def test_an_empty_folder_on_another_disk_waits_for_a_word(mounted: Path, tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    configured(library, remote=str(mounted), keep_local=False)
    assert "--new-place" in library.command("archive", "push").stderr
    assert library.here() == {name_of(STAMPS[0])}
    assert library.command("archive", "push", "--new-place").code == 0
    assert library.here() == set()


def test_a_disk_mounted_at_a_folder_of_mounts_itself_is_taken(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skicyclerun.archive.remote_folder._MOUNT_FOLDERS", (str(mounted),))
    (mounted / "backup").mkdir()
    assert FolderRemote(mounted).identify("", make=True)
    assert FolderRemote(mounted / "backup").identify("", make=True)
    assert FolderRemote(mounted.parent / "nothing").url  # no place is asked before it is used


def test_a_link_to_a_mount_point_without_its_disk_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mnt"
    (mounts / "backup/archives").mkdir(parents=True)
    (tmp_path / "link").symlink_to(mounts / "backup")
    monkeypatch.setattr("skicyclerun.archive.remote_folder._MOUNT_FOLDERS", (str(mounts),))
    for folder in (tmp_path / "link", tmp_path / "link/archives", mounts / "backup"):
        with pytest.raises(RemoteUnreachable, match="no disk is mounted"):
            FolderRemote(folder).identify("", make=True)
    assert os.listdir(mounts / "backup/archives") == []


# ── entries whose archive is gone ─────────────────────────────────────────────────────────────────────────────────


def is_clean(library: Library) -> None:
    again = library.command("archive", "push")
    assert (again.code, again.stdout) == (0, "")
    assert library.command("archive", "verify", "--all").code == 0


def test_an_entry_whose_archive_is_gone_ends_and_is_told_of_once(place: Bucket | None, tmp_path: Path) -> None:
    library = Library(tmp_path, place).with_archives(*STAMPS[:2])
    remote, endpoint = library.remote, {"endpoint_url": "http://127.0.0.1:9"}
    if place is None:
        library.disk.rename(tmp_path / "away")
    else:
        write_config(tmp_path, cleanup={"remote": remote, "remote_service": endpoint, "remote_timeout": 1.0})
    assert library.command("archive", "push").code in (1, 3)
    (library.archive / name_of(STAMPS[0])).unlink()
    if place is None:
        (tmp_path / "away").rename(library.disk)
    configured(library, remote=remote)
    pushed = library.command("archive", "push")
    assert pushed.code == 0
    assert f"{name_of(STAMPS[0])}: it is no longer in {library.archive} and was not copied" in pushed.stdout
    assert set(library.there()) == {name_of(STAMPS[1]), f"{name_of(STAMPS[1])}.json"}
    assert [row[1] for row in library.rows()] == ["copied"]
    is_clean(library)


def test_a_run_ends_it_too_and_status_says_nothing_of_it_any_more(tmp_path: Path, photos: Path) -> None:
    library = Library(tmp_path, None)
    run(library, photos)
    library.disk.rename(tmp_path / "away")
    run(library, photos)
    (name,) = library.here()
    configured(library, remote=None)
    (library.archive / name).unlink()
    (tmp_path / "away").rename(library.disk)
    configured(library, remote=library.remote)
    assert f"not copied to {library.remote} yet" in library.command("status").stdout
    told = run(library, photos, "--update")
    assert f"{name}: it is no longer in {library.archive}" in told.stdout + told.stderr
    assert "not copied to" not in library.command("status").stdout
    assert f"{name}: it is no longer" not in run(library, photos, "--update").stderr
    is_clean(library)


@pytest.mark.crash
@pytest.mark.parametrize("fault", ["copy.reserved", "copy.named"])
def test_what_was_reserved_there_for_an_archive_that_is_gone_is_cleared(
    server: ForkServer, place: Bucket | None, tmp_path: Path, fault: str
) -> None:
    library = Library(tmp_path, place).with_archives()
    assert server.run("archive", "push", *library.where, fault=fault)[0] == -signal.SIGKILL
    assert list(library.there()) == [f"{name_of(STAMPS[0])}.json"]
    (library.archive / name_of(STAMPS[0])).unlink()
    code, shown = server.run("archive", "push", *library.where, fault="copy.cleared_there")
    assert code == -signal.SIGKILL, shown
    assert library.there() == {}
    assert library.command("archive", "push").code == 0
    assert library.rows() == []
    is_clean(library)


@pytest.mark.crash
@pytest.mark.parametrize("fault", ["copy.written", "copy.proved", "copy.published"])
def test_a_copy_that_is_whole_there_is_the_archive_when_it_is_gone_here(
    server: ForkServer, place: Bucket | None, tmp_path: Path, fault: str
) -> None:
    library = Library(tmp_path, place).with_archives()
    data = (library.archive / name_of(STAMPS[0])).read_bytes()
    assert server.run("archive", "push", *library.where, fault=fault)[0] == -signal.SIGKILL
    (library.archive / name_of(STAMPS[0])).unlink()
    assert library.command("archive", "push").code == 0
    assert library.there()[name_of(STAMPS[0])] == data
    assert len(library.there()) == 2
    assert [row[1] for row in library.rows()] == ["copied"]
    assert library.command("archive", "restore", "latest", "--to", tmp_path / "to").code == 0
    is_clean(library)


@pytest.mark.crash
def test_half_a_copy_is_cleared_and_somebodys_file_at_its_name_stays(server: ForkServer, tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    assert server.run("archive", "push", *library.where, fault="copy.written")[0] == -signal.SIGKILL
    (partial,) = library.disk.glob("*.partial-*")
    partial.write_bytes(partial.read_bytes()[:1000])
    (library.disk / name_of(STAMPS[0])).write_bytes(b"somebody's")
    (library.archive / name_of(STAMPS[0])).unlink()
    assert library.command("archive", "push").code == 0
    assert library.there() == {name_of(STAMPS[0]): b"somebody's"}


def test_an_archive_folder_that_is_not_there_ends_nothing(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    library.disk.rename(tmp_path / "away")
    library.command("archive", "push")
    (tmp_path / "away").rename(library.disk)
    library.archive.rename(tmp_path / "unmounted")
    assert library.command("archive", "push").code == 3
    assert [row[1] for row in library.rows()] == ["pending"]
    (tmp_path / "unmounted").rename(library.archive)
    assert library.command("archive", "push").code == 0
    assert [row[1] for row in library.rows()] == ["copied"]


# ── what lies there, compared with what was copied ────────────────────────────────────────────────────────────────


def swapped(library: Library, stamps: tuple[str, ...]) -> None:
    """Exchange the bytes of two copies; their times stay."""
    one, other = (library.disk / name_of(stamp) for stamp in stamps)
    times = [(each.stat().st_atime_ns, each.stat().st_mtime_ns) for each in (one, other)]
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    for each, both in zip((one, other), times, strict=True):
        os.utime(each, ns=both)


@pytest.mark.parametrize("of_one_size", [True, False])
def test_an_archive_in_the_place_of_another_is_not_restored_and_is_named(tmp_path: Path, of_one_size: bool) -> None:
    stamps = [f"20260101_00000{number}" for number in range(9)]
    library = Library(tmp_path, None, keep_local=False).with_archives(*stamps[:8])
    (library.root / "outputs/albums/Alps/IMG_3.jpg").write_bytes(b"one more")
    library.with_archives(stamps[8])
    library.command("archive", "push")
    size_of = {stamp: (library.disk / name_of(stamp)).stat().st_size for stamp in stamps}
    pairs = itertools.combinations(stamps, 2)  # sizes differ by a few bytes at most
    pair = next(pair for pair in pairs if (size_of[pair[0]] == size_of[pair[1]]) is of_one_size)
    swapped(library, pair)
    before = read_tree(library.root)
    for stamp in pair:
        refused = library.command("archive", "restore", stamp, "--overwrite")
        assert refused.code == 1
        assert f"{library.disk}/{name_of(stamp)} is not the archive that was copied" in refused.stderr
        assert library.command("archive", "verify", stamp).code == 3
    assert read_tree(library.root) == before
    for stamp in pair:
        assert library.command("archive", "verify", stamp, "--full").code == 3
    listed = library.command("archive", "list").stdout
    assert listed.count("there: not its size") == (0 if of_one_size else 2)


def test_full_verification_finds_an_exchanged_archive_by_its_sha256(place: Bucket | None, tmp_path: Path) -> None:
    library = Library(tmp_path, place).with_archives(*STAMPS[:2])
    library.command("archive", "push")
    with closing(sqlite3.connect(library.root / "state/skicyclerun.sqlite3")) as connection, connection:
        connection.execute("UPDATE archive_copies SET sha256 = ? WHERE file = ?", ("0" * 64, name_of(STAMPS[0])))
    refused = library.command("archive", "restore", STAMPS[0], "--from-copy", "--to", tmp_path / "to")
    assert refused.code == 1
    assert "another SHA-256" in refused.stderr
    assert not (tmp_path / "to").exists()
    assert library.command("archive", "verify", "--all", "--full").code == 3


def test_a_flipped_byte_is_found_by_the_sha256_of_the_whole_file(tmp_path: Path) -> None:
    library = Library(tmp_path, None).with_archives()
    library.command("archive", "push")
    copy = library.disk / name_of(STAMPS[0])
    data, before = bytearray(copy.read_bytes()), copy.stat()
    data[9_000] ^= 1
    copy.write_bytes(data)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = library.command("archive", "verify", "--all", "--full")
    assert found.code == 3
    assert "its SHA-256 is not that of the archive that was copied" in found.stdout
    assert "IMG_1.jpg" in found.stdout


def test_a_copy_that_has_lost_its_record_is_still_ours_and_comes_back(tmp_path: Path) -> None:
    library = Library(tmp_path, None, keep_local=False).with_archives()
    library.command("archive", "push")
    (library.disk / f"{name_of(STAMPS[0])}.json").unlink()
    verified = library.command("archive", "verify", "--all")
    assert verified.code == 3
    assert "its record is not there" in verified.stdout
    assert library.command("archive", "restore", "latest", "--to", tmp_path / "to").code == 0
