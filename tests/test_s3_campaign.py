"""Kill an upload at every durable step, and at random; resume it, and find what an undisturbed one leaves.

Compared are the bucket (keys, bytes, headers, checksums), the rows, the catalog, and what the CDN was told. Nothing is
ever written or removed outside the prefix, nothing is made public, and somebody else's objects are as they were.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from skicyclerun.files.fault_points import FAULT_POINTS
from tests.bucket_proxy import Asked
from tests.bucket_server import (
    CREDENTIALS,
    BucketThere,
    Service,
    assert_nothing_public,
    new_distribution,
)
from tests.fork_server import ForkServer, fork_server
from tests.test_stage_campaign import make_picture, query, without_times

pytestmark = pytest.mark.crash

CRASHES = int(os.environ.get("SKICYCLERUN_CRASHES", "2"))
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261125"))
PATIENCE = 10
STAGES = "export,s3_deployment"
#: What a kill may do twice.
TIMES = frozenset({"uploaded"})

Whole = dict[str, tuple[bytes, str, str, str, str]]


def make_library(root: Path) -> None:
    for number in range(8):  # enough for two to go to a thread at a time
        make_picture(root / "Alps" / f"IMG_{number}.jpg", 20 * number, date=f"2024:06:0{number + 1} 10:00:00", size=80)
    make_picture(root / "Sea" / "IMG_0.jpg", 120, size=80)
    make_picture(root / "Lake" / "IMG_0.jpg", 200, size=80)


def change_library(root: Path) -> None:
    """A photo is edited, one left, one is new, one moved to another album, an album has another name."""
    make_picture(root / "Alps" / "IMG_1.jpg", 33, size=90)
    (root / "Alps" / "IMG_0.jpg").unlink()
    make_picture(root / "Sea" / "new.jpg", 44, size=80)
    (root / "Alps" / "IMG_2.jpg").rename(root / "Sea" / "moved.jpg")
    (root / "Lake").rename(root / "Pond")


def dissolve_album(root: Path) -> None:
    """One of an album's two photos moves to another album, the other goes, and so does the album."""
    (root / "Bay" / "IMG_0.jpg").rename(root / "Sea" / "from-bay.jpg")
    shutil.rmtree(root / "Bay")


@dataclass(frozen=True)
class Campaign:
    """What a run starts from, and what an undisturbed one makes of it."""

    server: ForkServer
    service: Service
    bucket: BucketThere
    arguments: tuple[str, ...]
    earlier: Path
    in_bucket: Whole
    earlier_run: int
    expected: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def server(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL_CLOUDFRONT": service.proxy.address}.items():
            patch.setenv(name, value)
        late = ("tests.aws_descriptions_ahead", "botocore.config", "botocore.endpoint", "botocore.httpsession")
        with fork_server(tmp_path_factory.mktemp("server"), imports=late) as running:
            yield running


def configure(lib_root: Path, bucket: BucketThere, distribution: str, *, delete_removed: bool = True) -> None:
    (lib_root / "config").mkdir(parents=True, exist_ok=True)
    cdn = {"enabled": True, "distribution_id": distribution}
    settings = {
        "export": {"group_photos": 2, "group_seconds": 30, "workers": 2},
        "s3_deployment": {**bucket.section, "delete_removed": delete_removed, "cloudfront": cdn},
    }
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps(settings))


def undisturbed(
    server: ForkServer, service: Service, base: Path, library: Path, bucket: BucketThere, earlier: Path, *options: str
) -> Campaign:
    """`options`: of an upload of the library; `--resume` is one by itself."""
    in_bucket = bucket.whole()
    place = base / "root"
    shutil.copytree(earlier, place, symlinks=True)
    before = last_run(place)[0]
    resumes = options == ("--resume",)
    arguments = ("run", *(() if resumes else ("--library", str(library), "--stages", STAGES)), *options)
    service.proxy.clear()
    began = os.times().elapsed
    code, shown = server.run(*arguments, "--lib-root", place, "--yes")
    seconds = os.times().elapsed - began
    assert code == 0, shown
    expected = outcome(place, bucket, service)
    return Campaign(server, service, bucket, arguments, earlier, in_bucket, before, expected, seconds)


@pytest.fixture(scope="module")
def fresh(server: ForkServer, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """The first upload, into a bucket that holds something of somebody else."""
    base = tmp_path_factory.mktemp("fresh")
    library, earlier, bucket = base / "library", base / "earlier", service.bucket()
    make_library(library)
    configure(earlier, bucket, new_distribution(service))
    bucket.put("site/theirs.txt")
    bucket.put("elsewhere/Alps/IMG_0.jpg")
    return undisturbed(server, service, base, library, bucket, earlier)


@pytest.fixture(scope="module")
def update(server: ForkServer, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """An update after which objects were replaced, moved and removed, and the CDN told so."""
    base = tmp_path_factory.mktemp("update")
    library, earlier, bucket = base / "library", base / "earlier", service.bucket()
    make_library(library)
    configure(earlier, bucket, new_distribution(service))
    bucket.put("site/theirs.txt")
    first = ("run", "--library", library, "--stages", STAGES, "--lib-root", earlier, "--yes")
    code, shown = server.run(*first)
    assert code == 0, shown
    change_library(library)
    return undisturbed(server, service, base, library, bucket, earlier, "--update")


@pytest.fixture(scope="module")
def lost(server: ForkServer, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """An update over a bucket of which no row speaks any more: the CDN is told of what is replaced, nothing else."""
    base = tmp_path_factory.mktemp("lost")
    library, earlier, bucket = base / "library", base / "earlier", service.bucket()
    make_library(library)
    configure(earlier, bucket, new_distribution(service))
    bucket.put("site/theirs.txt")
    code, shown = server.run("run", "--library", library, "--stages", STAGES, "--lib-root", earlier, "--yes")
    assert code == 0, shown
    for path in (earlier / "state").glob("skicyclerun.sqlite3*"):
        path.unlink()
    code, shown = server.run("rebuild-state", "--library", library, "--lib-root", earlier)
    assert code == 0, shown
    make_picture(library / "Alps" / "IMG_1.jpg", 33, size=90)
    make_picture(library / "Sea" / "new.jpg", 44, size=80)
    return undisturbed(server, service, base, library, bucket, earlier, "--update")


@pytest.fixture(scope="module")
def corrected(server: ForkServer, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """An update that stopped at a distribution which is not there, and goes on when the right one is configured."""
    base = tmp_path_factory.mktemp("corrected")
    library, earlier, bucket = base / "library", base / "earlier", service.bucket()
    make_picture(library / "Sea" / "IMG_0.jpg", 120, size=80)
    configure(earlier, bucket, "EWRONG")
    first = ("run", "--library", library, "--stages", STAGES, "--lib-root", earlier, "--yes")
    code, shown = server.run(*first)
    assert code == 0, shown
    make_picture(library / "Sea" / "IMG_0.jpg", 130, size=80)
    code, shown = server.run(*first, "--update")
    assert code == 3, shown
    configure(earlier, bucket, new_distribution(service))
    return undisturbed(server, service, base, library, bucket, earlier, "--resume")


@pytest.fixture(scope="module")
def dissolved(server: ForkServer, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """An update that leaves a picture of an album which is gone, and has another of it move."""
    base = tmp_path_factory.mktemp("dissolved")
    library, earlier, bucket = base / "library", base / "earlier", service.bucket()
    for number, name in enumerate(("Bay/IMG_0.jpg", "Bay/IMG_1.jpg", "Sea/IMG_0.jpg")):
        make_picture(library / name, 20 * number, size=80)
    configure(earlier, bucket, new_distribution(service), delete_removed=False)
    bucket.put("site/theirs.txt")
    code, shown = server.run("run", "--library", library, "--stages", STAGES, "--lib-root", earlier, "--yes")
    assert code == 0, shown
    dissolve_album(library)
    return undisturbed(server, service, base, library, bucket, earlier, "--update")


def outcome(lib_root: Path, bucket: BucketThere, service: Service) -> dict[str, Any]:
    """All that must not depend on whether the run was interrupted."""
    catalog = json.loads((lib_root / "metadata" / "master.json").read_text())
    return {
        "bucket": bucket.whole(),
        "unfinished": bucket.unfinished(),
        "objects": query(
            lib_root,
            "SELECT place, key, folded, wanted, kind, folder, input, status, size, sha256, etag, checksum, moved_from,"
            " left_album, made_of <> '' FROM bucket_objects",
        ),
        "pictures": query(
            lib_root,
            "SELECT stage, folder, photo, input, input_sha256, depends, status, size, facts, present, departed"
            " FROM stage_pictures",
        ),
        "cdn": query(lib_root, "SELECT distribution, paths, status FROM cdn_invalidations"),
        "changes": query(lib_root, "SELECT * FROM cdn_changes"),
        "told": told(service.proxy.asked),
        "albums": query(lib_root, "SELECT run_id, stage, folder, status, done, failed, bytes FROM stage_albums"),
        "runs": query(lib_root, "SELECT id, status FROM runs"),
        "catalog": without_uploads(without_times(catalog, str(lib_root))),
    }


def told(asked: list[Asked]) -> list[list[str]]:
    """The paths of the invalidations that the CDN was asked for; one under the same reference is the same one."""
    found: dict[str, list[str]] = {}
    for each in asked:
        if each.path.endswith("/invalidation"):
            tree = ElementTree.fromstring(re.sub(rb' xmlns="[^"]+"', b"", each.body))
            found[tree.findtext("CallerReference") or ""] = sorted(path.text or "" for path in tree.iter("Path"))
    return sorted(found.values())


def without_uploads(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_uploads(inner) for key, inner in value.items() if key not in TIMES}
    return value


def carried_to_the_end(campaign: Campaign, lib_root: Path, kills: Iterator[str | float]) -> int:
    """Run and resume, killed as `kills` says, until it is finished. Returns how often it was killed."""
    campaign.bucket.put_back(campaign.in_bucket)
    campaign.service.proxy.clear()
    shutil.copytree(campaign.earlier, lib_root, symlinks=True)
    killed = 0
    begun = False
    for _ in range(PATIENCE):
        kill = next(kills, "")
        how = {"fault": kill} if isinstance(kill, str) else {"kill_after": kill}
        arguments = ("run", "--resume") if begun else campaign.arguments
        code, shown = campaign.server.run(*arguments, "--lib-root", lib_root, "--yes", **how)
        assert "Traceback" not in shown, shown
        if code == 0:
            return killed
        assert code == -signal.SIGKILL, shown
        killed += 1
        newest, status = last_run(lib_root)
        begun = newest > campaign.earlier_run
        if begun and status == "finished":
            return killed
    raise AssertionError("the run did not come to its end")


def last_run(lib_root: Path) -> tuple[int, str]:
    """The newest run and its status; (0, "") where a kill came before there was one."""
    if not (lib_root / "state" / "skicyclerun.sqlite3").exists():
        return 0, ""
    if not query(lib_root, "SELECT 1 FROM sqlite_master WHERE name = 'runs'"):
        return 0, ""
    found = query(lib_root, "SELECT id, status FROM runs")
    return found[-1] if found else (0, "")


def compare(campaign: Campaign, lib_root: Path) -> None:
    found = outcome(lib_root, campaign.bucket, campaign.service)
    for what, expected in campaign.expected.items():
        assert found[what] == expected, what
    asked = campaign.service.proxy.asked
    assert_nothing_public(asked)
    for each in asked:
        if each.method in ("PUT", "POST", "DELETE") and "/distribution/" not in each.path:
            assert each.key.startswith("site/"), each
            assert each.key != "site/theirs.txt"


def test_the_undisturbed_runs_do_what_is_to_be_compared(fresh: Campaign, update: Campaign, lost: Campaign) -> None:
    assert sorted(fresh.expected["bucket"]) == [
        "elsewhere/Alps/IMG_0.jpg",
        *(f"site/Alps/IMG_{number}.jpg" for number in range(8)),
        "site/Alps/index.json",
        "site/Lake/IMG_0.jpg",
        "site/Lake/index.json",
        "site/Sea/IMG_0.jpg",
        "site/Sea/index.json",
        "site/index.json",
        "site/theirs.txt",
    ]
    assert sorted(update.expected["bucket"]) == [
        *(f"site/Alps/IMG_{number}.jpg" for number in (1, 3, 4, 5, 6, 7)),
        "site/Alps/index.json",
        "site/Pond/IMG_0.jpg",
        "site/Pond/index.json",
        "site/Sea/IMG_0.jpg",
        "site/Sea/index.json",
        "site/Sea/moved.jpg",
        "site/Sea/new.jpg",
        "site/index.json",
        "site/theirs.txt",
    ]
    assert len(update.expected["told"]) == 1
    assert lost.expected["told"] == [
        ["/site/Alps/IMG_1.jpg", "/site/Alps/index.json", "/site/Sea/index.json", "/site/index.json"]
    ]


IN_A_FRESH_UPLOAD = (
    "s3.claimed",
    "s3.object_sent:2",
    "stage.album_started",
    "stage.picture_made:2",
    "stage.group_committed",
    "stage.album_finished",
    "s3.index_claimed",
    "s3.index_sent",
    "s3.index_entered:2",
    "run.finished",
)
IN_AN_UPDATE = (
    "s3.claimed:2",
    "s3.object_sent",
    "stage.group_committed",
    "s3.index_sent",
    "s3.index_entered",
    "s3.removal_entered",
    "s3.first_removed:2",
    "s3.removed",
    "s3.removal_forgotten",
    "s3.invalidation_entered",
    "s3.invalidation_sent",
)
IN_AN_UPDATE_AFTER_LOST_ROWS = (
    "s3.change_entered",
    "s3.object_sent:9",
    "s3.index_claimed",
    "s3.change_entered:2",
    "s3.index_sent:2",
    "s3.change_entered:4",
    "s3.invalidation_entered",
)


IN_A_CORRECTED_RUN = ("s3.changes_taken_over", "s3.invalidation_entered", "s3.invalidation_sent")


@pytest.mark.parametrize("fault", IN_A_FRESH_UPLOAD)
def test_a_first_upload_killed_at_a_fault_point_and_resumed_equals_one_never_interrupted(
    fresh: Campaign, tmp_path: Path, fault: str
) -> None:
    assert carried_to_the_end(fresh, tmp_path / "root", iter([fault])) == 1, f"{fault} was not reached"
    compare(fresh, tmp_path / "root")


@pytest.mark.parametrize("fault", IN_AN_UPDATE)
def test_an_update_killed_at_a_fault_point_and_resumed_equals_one_never_interrupted(
    update: Campaign, tmp_path: Path, fault: str
) -> None:
    assert carried_to_the_end(update, tmp_path / "root", iter([fault])) == 1, f"{fault} was not reached"
    compare(update, tmp_path / "root")


@pytest.mark.parametrize("fault", IN_AN_UPDATE_AFTER_LOST_ROWS)
def test_an_update_after_lost_rows_killed_at_a_fault_point_and_resumed_equals_one_never_interrupted(
    lost: Campaign, tmp_path: Path, fault: str
) -> None:
    assert carried_to_the_end(lost, tmp_path / "root", iter([fault])) == 1, f"{fault} was not reached"
    compare(lost, tmp_path / "root")


@pytest.mark.parametrize("fault", IN_A_CORRECTED_RUN)
def test_a_corrected_run_killed_at_a_fault_point_and_resumed_equals_one_never_interrupted(
    corrected: Campaign, tmp_path: Path, fault: str
) -> None:
    assert len(corrected.expected["told"]) == 1
    assert carried_to_the_end(corrected, tmp_path / "root", iter([fault])) == 1, f"{fault} was not reached"
    compare(corrected, tmp_path / "root")


def test_the_index_of_an_album_that_is_gone_names_what_stays_of_it(dissolved: Campaign) -> None:
    there = dissolved.expected["bucket"]
    assert sorted(there) == [
        "site/Bay/IMG_1.jpg",
        "site/Bay/index.json",
        "site/Sea/IMG_0.jpg",
        "site/Sea/from-bay.jpg",
        "site/Sea/index.json",
        "site/index.json",
        "site/theirs.txt",
    ]
    assert [each["key"] for each in json.loads(there["site/Bay/index.json"][0])["pictures"]] == ["site/Bay/IMG_1.jpg"]


@pytest.mark.parametrize(
    "fault",
    [
        "s3.index_claimed:2",
        "s3.index_sent:2",
        "s3.index_entered:2",
        "s3.index_sent:3",
        "s3.removal_entered",
        "s3.removed",
    ],
)
def test_an_update_killed_while_an_album_is_dissolved_and_resumed_equals_one_never_interrupted(
    dissolved: Campaign, tmp_path: Path, fault: str
) -> None:
    assert carried_to_the_end(dissolved, tmp_path / "root", iter([fault])) == 1, f"{fault} was not reached"
    compare(dissolved, tmp_path / "root")


@pytest.mark.parametrize("number", range(CRASHES))
def test_an_upload_killed_at_random_and_resumed_equals_one_never_interrupted(
    fresh: Campaign, update: Campaign, lost: Campaign, tmp_path: Path, number: int
) -> None:
    campaign = (fresh, update, lost)[number % 3]
    chance = random.Random(SEED + number)
    moments = [chance.uniform(0.2, 1.0) * campaign.seconds for _ in range(chance.randint(1, 3))]
    carried_to_the_end(campaign, tmp_path / "root", iter(moments))
    compare(campaign, tmp_path / "root")


def test_a_run_killed_at_each_start_at_another_step_still_gets_there(update: Campaign, tmp_path: Path) -> None:
    faults = ["s3.object_sent", "s3.index_sent", "s3.first_removed", "s3.invalidation_sent"]
    assert carried_to_the_end(update, tmp_path / "root", iter(faults)) == 4
    compare(update, tmp_path / "root")


def test_every_fault_point_of_a_bucket_is_visited_here() -> None:
    updates = (*IN_AN_UPDATE, *IN_AN_UPDATE_AFTER_LOST_ROWS, *IN_A_CORRECTED_RUN)
    visited = {name.partition(":")[0] for name in (*IN_A_FRESH_UPLOAD, *updates)}
    assert {name for name in FAULT_POINTS if name.startswith("s3.")} <= visited <= set(FAULT_POINTS)
