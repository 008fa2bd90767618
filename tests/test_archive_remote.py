"""A second place for archives, a folder or a bucket: names, copies, proofs, ranges, and places that make trouble."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import obstore
import pytest

from skicyclerun.archive.archive_bytes import RangedBytes
from skicyclerun.archive.manifest import Member
from skicyclerun.archive.prove import verify_archive
from skicyclerun.archive.remote import (
    CopyRecord,
    Remote,
    copies_there,
    copy_archive,
    describe,
    load_record,
    open_there,
    problems_there,
    record_of,
    remove_copy,
    reserve,
)
from skicyclerun.archive.remote_bucket import BucketRemote
from skicyclerun.archive.remote_folder import IDENTITY_FILE, FolderRemote
from skicyclerun.archive.restore import restore_archive
from skicyclerun.errors import (
    ArchiveError,
    ArchiveNotProved,
    ArchiveStopped,
    RemoteError,
    RemoteUnreachable,
    RestoreRefused,
)
from skicyclerun.settings.archive_url import ArchiveUrl
from tests.archive_trees import archive_outputs, file_member, forge_archive, make_outputs, read_tree
from tests.remote_places import BUCKET, Bucket, Proxy, Trouble, credentials, s3_service

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def service() -> Iterator[Bucket]:
    with s3_service() as bucket:
        yield bucket


@pytest.fixture
def bucket(service: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    credentials(monkeypatch)
    service.empty()
    return service


def of_bucket(endpoint: str, prefix: str = "of/mine", seconds: float = 20) -> BucketRemote:
    place = ArchiveUrl(bucket=BUCKET, prefix=prefix)
    return BucketRemote(place, endpoint_url=endpoint, aws_profile=None, region=None, seconds=seconds)


@pytest.fixture(params=["folder", "bucket"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "bucket":
        return of_bucket(request.getfixturevalue("bucket").endpoint)
    (tmp_path / "disk").mkdir()
    return FolderRemote(tmp_path / "disk")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    make_outputs(tmp_path)
    return archive_outputs(tmp_path).path


def copied(remote: Remote, archive: Path) -> tuple[str, CopyRecord, str]:
    record = describe(archive, secrets.token_hex(16))
    name = reserve(remote, record)
    return name, record, copy_archive(remote, name, archive, record)


# ── copying ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_copy_has_the_bytes_of_the_archive_and_a_record_that_says_so(remote: Remote, archive: Path) -> None:
    name, record, version = copied(remote, archive)
    assert name == archive.name
    (there,) = copies_there(remote)
    assert (there.name, there.record, there.whole) == (name, record, True)
    assert there.file.version == version
    data = b"".join(remote.blocks(there.file))
    assert data == archive.read_bytes()
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert problems_there(remote, name, record, version, full=True) == []


def test_copying_again_reads_back_and_writes_nothing(remote: Remote, archive: Path) -> None:
    name, record, version = copied(remote, archive)
    assert reserve(remote, record) == name
    assert copy_archive(remote, name, archive, record) == version


def test_an_archive_of_another_machine_keeps_its_name(remote: Remote, archive: Path, tmp_path: Path) -> None:
    first, record, _ = copied(remote, archive)
    other = tmp_path / "other"
    make_outputs(other)
    second, other_record, _ = copied(remote, archive_outputs(other).path)
    assert (first, second) == (archive.name, archive.name.replace(".zip", "-2.zip"))
    assert {one.name: one.record for one in copies_there(remote)} == {first: record, second: other_record}
    remove_copy(remote, first, other_record.token)  # not ours: nothing happens
    assert len(copies_there(remote)) == 2
    remove_copy(remote, second, other_record.token)
    assert [one.name for one in copies_there(remote)] == [first]


def test_a_file_of_another_program_keeps_its_name_and_bytes(remote: Remote, archive: Path) -> None:
    assert remote.create(archive.name, b"somebody's")
    name, _, _ = copied(remote, archive)
    assert name != archive.name
    theirs = remote.look(archive.name)
    assert theirs is not None
    assert b"".join(remote.blocks(theirs)) == b"somebody's"


def test_a_record_is_never_replaced(remote: Remote) -> None:
    assert remote.create("a.json", b"first")
    assert not remote.create("a.json", b"second")
    there = remote.look("a.json")
    assert there is not None
    assert remote.read(there, 0, there.size) == b"first"


def test_machines_that_reserve_a_name_at_once_get_one_each(remote: Remote, archive: Path) -> None:
    record = describe(archive, "0" * 32)
    with ThreadPoolExecutor(6) as machines:
        tokens = [secrets.token_hex(16) for _ in range(6)]
        names = list(machines.map(lambda token: reserve(remote, replace(record, token=token)), tokens))
    assert len(set(names)) == 6
    for name, token in zip(names, tokens, strict=True):
        found = record_of(remote, name)
        assert found is not None
        assert found.token == token


def test_an_archive_that_is_damaged_here_is_not_copied(remote: Remote, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[5000] ^= 1
    archive.write_bytes(data)
    with pytest.raises(ArchiveNotProved, match="not copied"):
        describe(archive, secrets.token_hex(16))


def test_an_archive_that_changes_while_it_is_copied_leaves_nothing_there(remote: Remote, archive: Path) -> None:
    record = describe(archive, secrets.token_hex(16))
    name = reserve(remote, record)
    data = bytearray(archive.read_bytes())
    data[5000] ^= 1
    archive.write_bytes(data)
    with pytest.raises(ArchiveNotProved, match="changed while it was copied"):
        copy_archive(remote, name, archive, record)
    assert remote.look(name) is None
    assert [file.name for file in remote.files()] == [name + ".json"]


def test_a_copy_that_was_damaged_there_is_found_and_written_anew(remote: Remote, archive: Path) -> None:
    name, record, version = copied(remote, archive)
    remote.delete(name)
    damaged = bytearray(archive.read_bytes())
    damaged[5000] ^= 1
    assert remote.create(name, bytes(damaged))
    assert problems_there(remote, name, record, version, full=False)
    assert problems_there(remote, name, record, version, full=True)
    copy_archive(remote, name, archive, record)
    assert problems_there(remote, name, record, "", full=True) == []


@pytest.mark.parametrize("blocks", [0, 1], ids=["writing", "reading_back"])
def test_a_stop_in_the_middle_is_no_copy_and_is_taken_up(remote: Remote, archive: Path, blocks: int) -> None:
    record = describe(archive, secrets.token_hex(16))
    name = reserve(remote, record)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > blocks

    with pytest.raises(ArchiveStopped):
        copy_archive(remote, name, archive, record, stop=stop)
    if blocks == 0:
        assert [file.name for file in remote.files()] == [name + ".json"]
    copy_archive(remote, name, archive, record)
    assert sorted(file.name for file in remote.files()) == [name, name + ".json"]


def test_what_a_verification_there_misses_is_said(remote: Remote, archive: Path) -> None:
    name, record, version = copied(remote, archive)
    assert problems_there(remote, "pipeline_20200101_000000.zip", record, "", full=False) == ["it is not there"]
    remote.delete(name + ".json")
    assert "record" in problems_there(remote, name, record, version, full=False)[0]
    assert remote.create(name + ".json", replace(record, token="0" * 32).dump())
    assert problems_there(remote, name, record, version, full=False) == ["its record is another one's"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 10_000, b'{"token": "../../x"}', b"\xff" * 20, b"x" * 20_000])
def test_a_hostile_record_is_none(tmp_path: Path, archive: Path, data: bytes) -> None:
    (tmp_path / "disk").mkdir()
    remote = FolderRemote(tmp_path / "disk")
    (tmp_path / "disk" / f"{archive.name}.json").write_bytes(data)
    (tmp_path / "disk" / archive.name).write_bytes(b"")
    assert load_record(data) is None
    assert record_of(remote, archive.name) is None
    name, _, _ = copied(remote, archive)
    assert name.endswith("-2.zip")


# ── a folder ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_that_is_not_there_is_unreachable_and_never_made(tmp_path: Path, archive: Path) -> None:
    remote = FolderRemote(tmp_path / "disk" / "archives")
    with pytest.raises(RemoteUnreachable, match="not there"):
        remote.identify("", make=True)
    with pytest.raises(RemoteUnreachable):
        reserve(remote, describe(archive, secrets.token_hex(16)))
    assert not (tmp_path / "disk").exists()


def test_an_empty_mount_point_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    remote = FolderRemote(disk)
    known = remote.identify("", make=True)
    assert known
    assert remote.identify(known, make=True) == known
    disk.rename(tmp_path / "away")
    disk.mkdir()
    with pytest.raises(RemoteUnreachable, match="not the folder"):
        remote.identify(known, make=True)
    assert os.listdir(disk) == []
    assert FolderRemote(disk).identify("", make=False) == ""
    assert os.listdir(disk) == []


def test_a_folder_of_mounts_without_its_disk_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skicyclerun.archive.remote_folder._MOUNT_FOLDERS", (str(tmp_path),))
    (tmp_path / "backup").mkdir()
    with pytest.raises(RemoteUnreachable, match="no disk is mounted"):
        FolderRemote(tmp_path / "backup").identify("", make=True)


def test_no_link_is_followed_out_of_the_folder(tmp_path: Path, archive: Path) -> None:
    disk, outside = tmp_path / "disk", tmp_path / "outside"
    disk.mkdir()
    outside.write_bytes(b"theirs")
    remote = FolderRemote(disk)
    os.symlink(outside, disk / archive.name)
    with pytest.raises(RemoteError):
        copied(remote, archive)
    assert outside.read_bytes() == b"theirs"
    assert copies_there(remote) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MB; only root may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0
    mounted = (
        mounted
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_there_keeps_what_was_there_and_leaves_nothing_new(small_disk: Path, archive: Path) -> None:
    remote = FolderRemote(small_disk)
    record = describe(archive, secrets.token_hex(16))
    name = reserve(remote, record)
    (small_disk / "ballast").write_bytes(bytes(19 << 20))
    with pytest.raises(RemoteError, match="are needed"):
        copy_archive(remote, name, archive, record)
    (small_disk / "ballast").unlink()
    copy_archive(remote, name, archive, record)
    assert (small_disk / name).read_bytes() == archive.read_bytes()


def test_a_disk_that_fills_up_while_it_is_written_is_said(small_disk: Path, archive: Path) -> None:
    remote = FolderRemote(small_disk)

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 20)

    with pytest.raises(RemoteError, match="is full"):
        remote.write(archive.name, "0" * 32, endless(), 1)
    assert remote.files() == []


def test_a_disk_that_is_unmounted_in_the_middle_is_unreachable(small_disk: Path, archive: Path) -> None:
    remote = FolderRemote(small_disk)
    known = remote.identify("", make=True)
    copied(remote, archive)
    subprocess.run(["umount", "-l", str(small_disk)], check=True)
    try:
        with pytest.raises(RemoteUnreachable):
            remote.identify(known, make=True)
        assert os.listdir(small_disk) == []
    finally:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small_disk)], check=True)


def test_the_folders_own_mark_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    remote = FolderRemote(tmp_path / "disk")
    remote.identify("", make=True)
    assert (tmp_path / "disk" / IDENTITY_FILE).is_file()
    assert copies_there(remote) == []


def test_records_that_a_killed_process_had_not_named_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    remote = FolderRemote(disk)
    known = remote.identify("", make=True)
    ours = ["pipeline_20260101_000000.zip.json.new-0123456789ab", f"{IDENTITY_FILE}.new-0123456789ab"]
    recent = "pipeline_20260101_000000-2.zip.json.new-0123456789ab"
    theirs = [
        "holiday.json.new-0123456789ab",
        "pipeline_20260101_000000.zip.json.new-x",
        "pipeline_20260101_000000.zip",
    ]
    for name in (*ours, recent, *theirs):
        (disk / name).write_bytes(b"x")
        if name != recent:
            os.utime(disk / name, (1_700_000_000, 1_700_000_000))
    remote.identify(known, make=False)
    assert set(os.listdir(disk)) == {IDENTITY_FILE, *ours, recent, *theirs}
    remote.identify(known, make=True)
    assert set(os.listdir(disk)) == {IDENTITY_FILE, recent, *theirs}


# ── a bucket ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_lies_outside_the_prefix_and_nothing_is_made_public(
    proxy: Proxy, bucket: Bucket, archive: Path
) -> None:
    name, record, _ = copied(of_bucket(proxy.endpoint), archive)
    assert set(bucket.objects()) == {f"of/mine/{name}", f"of/mine/{name}.json"}
    remove_copy(of_bucket(proxy.endpoint), name, record.token)
    assert bucket.objects() == {}
    assert "x-amz-checksum-sha256" in proxy.headers
    assert not {header for header in proxy.headers if "acl" in header or "grant" in header}
    outside = {path for _, path in proxy.seen if not path.startswith((f"/{BUCKET}/of/mine/", f"/{BUCKET}?"))}
    assert outside == set()


def test_parts_carry_their_sha256(bucket: Bucket, archive: Path) -> None:
    copied(of_bucket(bucket.endpoint), archive)
    head = bucket.client.head_object(Bucket=BUCKET, Key=f"of/mine/{archive.name}", ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"]


def test_what_a_killed_upload_left_is_aborted(bucket: Bucket, archive: Path) -> None:
    for key in (f"of/mine/{archive.name}", f"of/mine/{archive.name}.other", "of/another"):
        bucket.client.create_multipart_upload(Bucket=BUCKET, Key=key)
    copied(of_bucket(bucket.endpoint), archive)
    assert sorted(bucket.unfinished_uploads()) == ["of/another", f"of/mine/{archive.name}.other"]


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket) -> None:
    place = ArchiveUrl(bucket="another-one")
    remote = BucketRemote(place, endpoint_url=bucket.endpoint, aws_profile=None, region=None, seconds=5)
    with pytest.raises(RemoteError, match="no bucket another-one"):
        remote.identify("", make=True)


def test_no_credentials_are_said_and_none_are_shown(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(RemoteError, match="no credentials"):
        of_bucket(bucket.endpoint).identify("", make=True)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    place = ArchiveUrl(bucket=BUCKET)
    with pytest.raises(RemoteError, match="profile"):
        BucketRemote(place, endpoint_url=None, aws_profile="nobody", region=None, seconds=5).identify("", make=True)


@pytest.mark.parametrize(
    ("endpoint", "region", "settings", "asked"),
    [
        (None, "eu-central-1", {}, "https://s3.eu-central-1.amazonaws.com"),
        (None, "cn-north-1", {}, "https://s3.cn-north-1.amazonaws.com.cn"),
        (None, "us-gov-west-1", {}, "https://s3.us-gov-west-1.amazonaws.com"),
        (None, "us-east-1", {"AWS_USE_FIPS_ENDPOINT": "true"}, "https://s3-fips.us-east-1.amazonaws.com"),
        (None, "eu-west-1", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://s3.dualstack.eu-west-1.amazonaws.com"),
        (None, "us-east-1", {"AWS_ENDPOINT_URL_S3": "https://s3.example.org"}, "https://s3.example.org"),
        *(
            (host, "us-east-1", {}, host)
            for host in (
                "https://bucket.vpce-0a1b-2c3d.s3.us-east-1.vpce.amazonaws.com",
                "https://s3-fips.us-east-1.amazonaws.com",
                "http://minio.amazonaws.com.example.org:9000",
                "https://minio.example.org",
            )
        ),
    ],
)
def test_a_service_is_asked_at_the_address_that_is_meant(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, region: str, settings: dict[str, str], asked: str
) -> None:
    credentials(monkeypatch)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    place = ArchiveUrl(bucket=BUCKET, prefix="of/mine")
    store = BucketRemote(place, endpoint_url=endpoint, aws_profile=None, region=region, seconds=5)._store()
    signed = obstore.sign(store, "GET", "x.zip", timedelta(minutes=1))
    assert signed.startswith(f"{asked}/{BUCKET}/of/mine/x.zip?")


@pytest.mark.parametrize("missing", ["obstore", "boto3"])
def test_a_bucket_without_the_extra_is_said(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    asks: list[Callable[[Remote], object]] = [
        lambda remote: remote.identify("", make=True),
        lambda remote: remote.look("a"),
        lambda remote: remote.create("a", b""),
    ]
    for ask in asks:
        with pytest.raises(RemoteError, match=f"needs {missing}") as caught:
            ask(of_bucket("http://127.0.0.1:9"))
        assert "skicyclerun[remote]" in caught.value.next_step


def test_nobody_at_the_address_is_unreachable(bucket: Bucket) -> None:
    with pytest.raises(RemoteUnreachable) as caught:
        of_bucket("http://127.0.0.1:9", seconds=2).identify("", make=True)
    assert "\n" not in str(caught.value)


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    with bucket.troubled() as proxy:
        yield proxy


@pytest.mark.parametrize("trouble", ["503", "reset", "half", "slow"])
def test_trouble_that_passes_is_outlasted(proxy: Proxy, bucket: Bucket, archive: Path, trouble: Trouble) -> None:
    met: set[tuple[str, str]] = set()

    def judge(method: str, path: str) -> Trouble | None:
        # A half answer to HEAD or PUT is none; boto3's own requests (uploads) are not what is tried.
        key = (method, path.partition("?")[0])
        if key in met or "uploads" in path or (trouble == "half" and method != "GET"):
            return None
        met.add(key)
        return trouble

    proxy.judge = judge
    remote = of_bucket(proxy.endpoint)
    name, record, version = copied(remote, archive)
    assert met
    assert bucket.objects()[f"of/mine/{name}"] == archive.read_bytes()
    assert problems_there(remote, name, record, version, full=True) == []


def test_a_service_that_goes_away_in_the_middle_is_unreachable_and_resumable(
    proxy: Proxy, bucket: Bucket, archive: Path
) -> None:
    proxy.judge = lambda method, path: "reset" if "partNumber" in path else None
    record = describe(archive, secrets.token_hex(16))
    remote = of_bucket(proxy.endpoint, seconds=2)
    name = reserve(remote, record)
    with pytest.raises(RemoteUnreachable):
        copy_archive(remote, name, archive, record)
    assert set(bucket.objects()) == {f"of/mine/{name}.json"}
    proxy.judge = lambda method, path: None
    copy_archive(remote, name, archive, record)
    assert bucket.objects()[f"of/mine/{name}"] == archive.read_bytes()
    assert bucket.unfinished_uploads() == []


def test_a_service_that_does_not_answer_is_given_up_after_the_time_allowed(proxy: Proxy, archive: Path) -> None:
    proxy.judge = lambda method, path: "silent"
    with pytest.raises(RemoteUnreachable):
        of_bucket(proxy.endpoint, seconds=0.3).identify("", make=True)
    assert proxy.waiting.is_set()


def test_bytes_that_come_back_otherwise_are_no_copy_and_go(proxy: Proxy, bucket: Bucket, archive: Path) -> None:
    proxy.judge = lambda method, path: "other_bytes" if method == "GET" and path.endswith(".zip") else None
    record = describe(archive, secrets.token_hex(16))
    remote = of_bucket(proxy.endpoint)
    name = reserve(remote, record)
    with pytest.raises(ArchiveNotProved, match="SHA-256 differs"):
        copy_archive(remote, name, archive, record)
    assert set(bucket.objects()) == {f"of/mine/{name}.json"}


def test_bytes_that_arrive_otherwise_are_no_copy(proxy: Proxy, bucket: Bucket, archive: Path) -> None:
    proxy.judge = lambda method, path: "other_bytes" if method == "PUT" and "partNumber" in path else None
    record = describe(archive, secrets.token_hex(16))
    remote = of_bucket(proxy.endpoint)
    name = reserve(remote, record)
    with pytest.raises(ArchiveError):
        copy_archive(remote, name, archive, record)
    with suppress(ArchiveError):
        assert remote.look(name) is None


def test_an_answer_that_was_lost_does_not_lose_the_name(proxy: Proxy, archive: Path) -> None:
    """The service made the record, its answer was lost, and obstore asked again."""
    lost: list[str] = []

    def judge(method: str, path: str) -> Trouble | None:
        if method == "PUT" and path.endswith(".json") and not lost:
            lost.append(path)
            return "half"
        return None

    proxy.judge = judge
    record = describe(archive, secrets.token_hex(16))
    remote = of_bucket(proxy.endpoint)
    assert reserve(remote, record) == archive.name


# ── ranges ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight albums of 3 MB, archived."""
    lib = tmp_path_factory.mktemp("large")
    for album in range(8):
        for photo in range(10):
            path = lib / f"albums/Album {album}/IMG_{photo}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(300_000))
    return archive_outputs(lib).path


def test_one_album_is_restored_from_a_bucket_without_fetching_the_rest(
    proxy: Proxy, large: Path, tmp_path: Path
) -> None:
    remote = of_bucket(proxy.endpoint)
    name, _, _ = copied(remote, large)
    file = remote.look(name)
    assert file is not None
    proxy.sent, asked = 0, len(proxy.seen)
    report = restore_archive(open_there(remote, file), tmp_path / "to", albums=["Album 3"])
    wanted = read_tree(large.parent.parent / "albums/Album 3")
    assert read_tree(tmp_path / "to/albums/Album 3") == wanted
    assert len(report.restored) == 10
    assert proxy.sent < 3_000_000 + 300_000 < file.size / 7
    assert len(proxy.seen) - asked < 6


def test_what_was_restored_when_the_service_goes_away_is_whole(proxy: Proxy, large: Path, tmp_path: Path) -> None:
    remote = of_bucket(proxy.endpoint, seconds=1)
    name, _, _ = copied(remote, large)
    file = remote.look(name)
    assert file is not None
    pieces = 0

    def judge(method: str, path: str) -> Trouble | None:
        nonlocal pieces
        pieces += method == "GET"
        return "reset" if pieces > 3 else None

    proxy.judge = judge
    with pytest.raises(RemoteUnreachable):
        restore_archive(open_there(remote, file), tmp_path / "to")
    restored, archived = read_tree(tmp_path / "to/albums"), read_tree(large.parent.parent / "albums")
    assert 0 < len(restored) < len(archived)
    assert restored.items() <= archived.items()


def test_an_archive_elsewhere_is_verified_by_stream(remote: Remote, large: Path) -> None:
    name, record, version = copied(remote, large)
    done: list[int] = []
    assert problems_there(remote, name, record, version, full=True, progress=lambda now, _: done.append(now)) == []
    assert done[-1] == record.size


def test_memory_does_not_grow_with_the_archive(proxy: Proxy, large: Path) -> None:
    remote = of_bucket(proxy.endpoint)
    name, _, _ = copied(remote, large)
    file = remote.look(name)
    assert file is not None
    longest = 0

    source = open_there(remote, file)
    fetch = source._fetch

    def watched(offset: int, count: int) -> bytes:
        nonlocal longest
        longest = max(longest, count)
        return fetch(offset, count)

    source._fetch = watched
    assert verify_archive(source).ok
    assert longest <= 4 << 20


def test_an_archive_that_is_exchanged_while_it_is_read_is_found(remote: Remote, archive: Path, tmp_path: Path) -> None:
    name, _, _ = copied(remote, archive)
    file = remote.look(name)
    assert file is not None
    source = open_there(remote, file)
    remote.delete(name)
    assert remote.create(name, archive.read_bytes()[::-1])
    with pytest.raises(ArchiveError):
        restore_archive(source, tmp_path / "to")
    assert not (tmp_path / "to").exists()


HOSTILE = [
    [(file_member("albums/../../x"), b"1")],
    [(file_member("/albums/x"), b"1")],
    [(file_member("albums/a"), b"1"), (file_member("albums/a"), b"2")],
    [(file_member("elsewhere/a"), b"1")],
]


@pytest.mark.parametrize("members", HOSTILE)
def test_a_hostile_archive_elsewhere_is_refused_like_one_here(
    remote: Remote, tmp_path: Path, members: list[tuple[Member, bytes]]
) -> None:
    forged = forge_archive(tmp_path / "pipeline_20260101_000000.zip", members)
    assert remote.create(forged.name, forged.read_bytes())
    file = remote.look(forged.name)
    assert file is not None
    with pytest.raises((RestoreRefused, ArchiveError)):
        restore_archive(open_there(remote, file), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_what_claims_to_be_endless_is_not_read_into_memory() -> None:
    source = RangedBytes("a.zip", 1 << 50, lambda offset, count: bytes(count))
    with pytest.raises(ArchiveError, match="at once"):
        source.pread(1 << 40, 0)
