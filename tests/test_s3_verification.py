"""`verify --remote` and its `--repair` against a real S3 on the loopback; what the CDN hears of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bucket_proxy import Asked, Bad
from tests.bucket_server import BucketThere, Service, new_distribution
from tests.command_line import Ended, skicyclerun
from tests.staged_sample import Staged
from tests.test_s3_deployment import configure, invalidated, objects, sent, upload

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("bucket_credentials")]


@pytest.fixture
def sample(tmp_path: Path, bucket: BucketThere) -> Staged:
    """Two albums; one picture has a date."""
    staged = Staged(tmp_path)
    staged.picture("Alps/IMG_1.jpg", 10, date="2024:06:01 10:00:00")
    staged.picture("Alps/IMG_2.jpg", 20)
    staged.picture("Sea/IMG_1.jpg", 30)
    staged.configure(s3_deployment=bucket.section)
    return staged


def verified(sample: Staged) -> dict[str, Any]:
    """What `verify --remote` says of the bucket; without an all-clear there, the command gives none."""
    ended = sample.run("verify", "--remote", "--json")
    remote: dict[str, Any] = ended.json["remote"]
    assert ended.code == (0 if ended.json["ok"] else 3), ended
    assert remote["ok"] or not ended.json["ok"]
    return remote


def findings(sample: Staged) -> dict[str, str]:
    return {each["key"]: each["finding"] for each in verified(sample)["problems"]}


def run_stage(sample: Staged) -> Ended:
    return sample.run("--stages", "s3_deployment")


def with_cdn(sample: Staged, bucket: BucketThere, service: Service, **keys: Any) -> None:
    cdn = {"enabled": True, "distribution_id": new_distribution(service)}
    configure(sample, bucket, cloudfront=cdn, **keys)


def lose_the_rows(sample: Staged) -> None:
    for path in (sample.lib_root / "state").glob("skicyclerun.sqlite3*"):
        path.unlink()
    assert skicyclerun("rebuild-state", "--lib-root", str(sample.lib_root)).code == 0
    assert objects(sample) == {}


# ── no all-clear while something is amiss ─────────────────────────────────────────────────────────────────────────


def test_what_a_repair_has_entered_is_no_all_clear_until_a_run_has_sent_it(sample: Staged, bucket: BucketThere) -> None:
    upload(sample)
    bucket.remove("site/Alps/IMG_1.jpg")
    bucket.remove("site/Sea/index.json")
    repaired = sample.run("verify", "--remote", "--repair")
    assert repaired.code == 3
    found = verified(sample)
    assert (found["ok"], found["to_be_sent_again"], found["problems"], found["objects"]) == (False, 2, [], 4)
    shown = sample.run("verify", "--remote")
    assert shown.code == 3
    assert "2 objects to be sent again: a repair has entered that, and no run has sent since." in shown.stdout
    assert "Next: `skicyclerun run --stages s3_deployment` sends what is amiss again." in shown.stdout
    assert "Nothing is wrong in the bucket" not in shown.stdout
    assert run_stage(sample).code == 0
    assert verified(sample)["ok"]
    assert sample.run("verify", "--remote").code == 0
    assert {"site/Alps/IMG_1.jpg", "site/Sea/index.json"} <= set(bucket.keys())


def test_the_local_part_of_a_repair_speaks_for_the_local_files_alone(sample: Staged, bucket: BucketThere) -> None:
    upload(sample)
    bucket.remove("site/Alps/IMG_1.jpg")
    shown = sample.run("verify", "--remote", "--repair").stdout.splitlines()
    assert "Repaired here: nothing needed to be." in shown
    assert "Nothing is wrong with the files here." in shown
    assert not [line for line in shown if line.startswith(("Nothing is wrong.", "Nothing is wrong in the bucket"))]
    local = sample.run("verify", "--repair").stdout.splitlines()
    assert local[-2:] == ["Repaired: nothing needed to be.", "Nothing is wrong."]


def test_what_an_unfinished_run_has_claimed_is_told_of_with_the_run_and_no_all_clear(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    upload(sample)
    sample.picture("Alps/IMG_2.jpg", 77)
    denied = Bad(status=403, code="AccessDenied", message="no")
    service.proxy.behave = lambda asked: denied if asked.sends_object else None
    sample.update("s3_deployment")
    service.proxy.clear()
    assert sample.newest_run() == "interrupted"
    found = verified(sample)
    (run,) = sample.sql("SELECT MAX(id) FROM runs")[0]
    assert (found["ok"], found["unconfirmed"], found["to_be_sent_again"]) == (False, 1, 0)
    assert found["unfinished_run"] == run
    shown = sample.run("verify", "--remote").stdout
    assert f"1 object claimed by run {run}, which has not ended: the service has not confirmed" in shown
    assert shown.endswith(f"Next: `skicyclerun run --resume` carries on with run {run}.\n")
    assert sample.run("--resume").code == 0
    assert verified(sample)["ok"]


def test_a_picture_that_never_arrived_is_told_of_when_the_run_has_ended(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    refused = Bad(status=400, code="InvalidRequest", message="no")
    service.proxy.behave = lambda asked: refused if asked.sends_object and "Sea" in asked.key else None
    assert sample.export("s3_deployment").code == 3
    service.proxy.clear()
    found = verified(sample)
    assert (found["ok"], found["unconfirmed"], found["unfinished_run"]) == (False, 1, None)
    assert run_stage(sample).code == 0
    assert verified(sample)["ok"]


@pytest.mark.parametrize("key", ["site/Alps/index.json", "site/index.json"])
def test_an_index_that_no_row_speaks_for_is_missed_and_the_next_run_brings_it(
    sample: Staged, bucket: BucketThere, key: str
) -> None:
    upload(sample)
    text = bucket.objects()[key]
    bucket.remove(key)
    sample.sql("DELETE FROM bucket_objects WHERE key = ?", key)
    assert findings(sample) == {key: "index_missing"}
    shown = sample.run("verify", "--remote").stdout
    assert shown.endswith("Next: `skicyclerun run --stages s3_deployment` sends what is amiss again.\n")
    assert run_stage(sample).code == 0
    assert bucket.objects()[key] == text
    assert findings(sample) == {}


def test_an_index_that_is_not_that_of_its_pictures_is_found_and_sent_again(sample: Staged, bucket: BucketThere) -> None:
    upload(sample)
    earlier = {key: data for key, data in bucket.objects().items() if key.endswith("index.json")}
    sample.picture("Sea/IMG_2.jpg", 40)
    sample.picture("Lake/IMG_1.jpg", 50)
    (sample.library / "Alps" / "IMG_2.jpg").unlink()
    configure(sample, bucket, delete_removed=True)
    assert sample.update("s3_deployment").code == 0
    assert verified(sample)["ok"]
    now = bucket.objects()
    for key, data in earlier.items():  # as if each had been confirmed, and never sent again
        sha256 = hashlib.sha256(data).hexdigest()
        bucket.put(key, data, Metadata={"skicyclerun-sha256": sha256}, ContentType="application/json")
        etag = bucket.head(key)["ETag"]
        row = "UPDATE bucket_objects SET size = ?, sha256 = ?, etag = ?, made_of = 'of earlier rows' WHERE key = ?"
        sample.sql(row, len(data), sha256, etag, key)
    problems = {each["key"]: each for each in verified(sample)["problems"]}
    assert {key: each["finding"] for key, each in problems.items()} == dict.fromkeys(earlier, "index_outdated")
    assert problems["site/Alps/index.json"]["detail"] == "it names pictures that are not in the bucket (1)"
    assert problems["site/Sea/index.json"]["detail"] == "it does not name all pictures that are (1 missing)"
    assert problems["site/index.json"]["detail"] == "it does not name all albums that are (1 missing)"
    assert sample.run("verify", "--remote", "--repair").code == 3
    assert run_stage(sample).code == 0
    assert bucket.objects() == now
    assert verified(sample)["ok"]


def test_an_index_that_is_there_and_that_no_row_speaks_for_is_not_said_to_be_gone(
    sample: Staged, bucket: BucketThere
) -> None:
    upload(sample)
    sample.sql("DELETE FROM bucket_objects WHERE key = 'site/index.json'")
    (problem,) = verified(sample)["problems"]
    assert (problem["key"], problem["finding"]) == ("site/index.json", "index_missing")
    assert problem["detail"] == "an object is there that no row speaks for; the next run looks whether it is the index"
    assert run_stage(sample).code == 0
    assert verified(sample)["ok"]


def moved(sample: Staged, bucket: BucketThere) -> None:
    (sample.library / "Sea" / "IMG_1.jpg").rename(sample.library / "Alps" / "IMG_3.jpg")


def gone(sample: Staged, bucket: BucketThere) -> None:
    (sample.library / "Sea" / "IMG_1.jpg").unlink()
    (sample.library / "Sea").rmdir()


def renamed(sample: Staged, bucket: BucketThere) -> None:
    (sample.library / "Sea").rename(sample.library / "Ocean")


def left(sample: Staged, bucket: BucketThere) -> None:
    (sample.library / "Alps" / "IMG_2.jpg").unlink()


def flat(sample: Staged, bucket: BucketThere) -> None:
    configure(sample, bucket, preserve_album_structure=False)


def elsewhere(sample: Staged, bucket: BucketThere) -> None:
    configure(sample, bucket, bucket_prefix="other")


def above(sample: Staged, bucket: BucketThere) -> None:
    configure(sample, bucket, bucket_prefix="")


def other_case(sample: Staged, bucket: BucketThere) -> None:
    configure(sample, bucket, bucket_prefix="Site")
    (sample.library / "Alps").rename(sample.library / "alps")


def positions(sample: Staged, bucket: BucketThere) -> None:
    configure(sample, bucket, publish_location=True)


def strange_names(sample: Staged, bucket: BucketThere) -> None:
    sample.picture("a: b/#1 100% ü.jpg", 60)


FOLLOWED = [
    *((change, removed) for change in (moved, gone, renamed, left) for removed in (False, True)),
    *((change, False) for change in (flat, elsewhere, above, other_case, positions, strange_names)),
]


@pytest.mark.parametrize(("change", "delete_removed"), FOLLOWED)
def test_a_bucket_that_followed_its_library_is_sound_whatever_changed(
    sample: Staged, bucket: BucketThere, change: Callable[[Staged, BucketThere], None], delete_removed: bool
) -> None:
    configure(sample, bucket, delete_removed=delete_removed)
    upload(sample)
    change(sample, bucket)
    assert sample.update("s3_deployment").code == 0
    sample.sql("UPDATE bucket_objects SET made_of = '' WHERE kind = 'album index'")  # so that each index is looked into
    assert verified(sample)["ok"]


def test_pictures_of_which_nobody_knows_where_they_are_are_no_all_clear(sample: Staged, bucket: BucketThere) -> None:
    upload(sample)
    configure(sample, bucket, bucket_prefix="other")
    found = verified(sample)
    assert (found["ok"], found["objects"], found["without_object"], found["elsewhere"]) == (False, 0, 3, 6)
    configure(sample, bucket, bucket_prefix="")  # above it
    found = verified(sample)
    assert (found["ok"], found["objects"], found["without_object"], found["problems"]) == (False, 6, 3, [])
    configure(sample, bucket)
    assert verified(sample)["ok"]
    lose_the_rows(sample)
    shown = sample.run("verify", "--remote")
    assert shown.code == 3
    assert "3 pictures uploaded, by the rows of s3_deployment, and none says where" in shown.stdout
    assert shown.stdout.endswith("Next: `skicyclerun run --stages s3_deployment` sends what is amiss again.\n")
    assert run_stage(sample).code == 0
    assert verified(sample)["ok"]


def test_what_left_its_album_and_is_gone_or_overwritten_is_named_and_let_go_of_by_a_repair(
    sample: Staged, bucket: BucketThere
) -> None:
    upload(sample)
    gone(sample, bucket)
    left(sample, bucket)
    assert sample.update("s3_deployment").code == 0
    bucket.put("site/Alps/IMG_2.jpg", b"theirs")
    bucket.remove("site/Sea/index.json")
    assert findings(sample) == {"site/Alps/IMG_2.jpg": "size_differs", "site/Sea/index.json": "missing"}
    repaired = sample.run("verify", "--remote", "--repair")
    assert repaired.code == 3
    assert "cannot be sent again" in repaired.stdout
    assert repaired.stdout.endswith("These objects count as ours no more.\n")
    assert objects(sample).keys() & {"site/Alps/IMG_2.jpg", "site/Sea/index.json"} == set()
    configure(sample, bucket, delete_removed=True)
    assert run_stage(sample).code == 0
    assert bucket.objects()["site/Alps/IMG_2.jpg"] == b"theirs"
    assert "site/Sea/IMG_1.jpg" not in bucket.keys()
    assert verified(sample)["ok"]


# ── what others have overwritten ──────────────────────────────────────────────────────────────────────────────────


def test_what_was_overwritten_by_others_is_put_right_by_a_repair_and_the_next_run(
    sample: Staged, bucket: BucketThere
) -> None:
    upload(sample)
    whole = bucket.whole()
    for key in ("site/Alps/IMG_1.jpg", "site/Alps/index.json", "site/Sea/IMG_1.jpg", "site/index.json"):
        bucket.put(key, b"{}")
    bucket.put("site/theirs.txt")
    assert sample.run("verify", "--remote", "--repair").code == 3
    service_rows = sample.sql("SELECT status, sha256, etag FROM bucket_objects WHERE key = 'site/Alps/IMG_1.jpg'")
    assert service_rows == [("claimed", None, bucket.head("site/Alps/IMG_1.jpg")["ETag"])]
    assert run_stage(sample).code == 0
    after = bucket.whole()
    assert after.pop("site/theirs.txt")[0] == b"somebody else's"
    assert after == whole
    assert verified(sample)["ok"]


def test_what_was_replaced_once_more_since_the_repair_is_left_alone_until_a_repair_has_seen_it(
    sample: Staged, bucket: BucketThere
) -> None:
    upload(sample)
    whole = bucket.whole()
    bucket.put("site/Alps/IMG_1.jpg", b"seen")
    bucket.remove("site/Sea/IMG_1.jpg")
    assert sample.run("verify", "--remote", "--repair").code == 3
    bucket.put("site/Alps/IMG_1.jpg", b"not seen")
    bucket.put("site/Sea/IMG_1.jpg", b"not seen")
    assert run_stage(sample).code == 3
    for key in ("Alps/IMG_1.jpg", "Sea/IMG_1.jpg"):
        assert bucket.objects()[f"site/{key}"] == b"not seen"
        reason = sample.reason("s3_deployment", key)
        assert "was replaced by somebody else since `verify` saw it; it was left alone" in reason
        assert "`skicyclerun verify --remote --repair`" in reason
    assert findings(sample) == dict.fromkeys(("site/Alps/IMG_1.jpg", "site/Sea/IMG_1.jpg"), "content_differs")
    assert sample.run("verify", "--remote", "--repair").code == 3
    assert run_stage(sample).code == 0
    assert bucket.whole() == whole
    assert verified(sample)["ok"]


def test_a_picture_that_changed_and_whose_object_others_have_overwritten_is_replaced_only_after_a_repair(
    sample: Staged, bucket: BucketThere
) -> None:
    upload(sample)
    bucket.put("site/Alps/IMG_2.jpg", b"theirs")
    sample.picture("Alps/IMG_2.jpg", 77)
    assert sample.update("s3_deployment").code == 3
    assert "somebody else since it was uploaded" in sample.reason("s3_deployment", "Alps/IMG_2.jpg")
    assert bucket.objects()["site/Alps/IMG_2.jpg"] == b"theirs"
    assert sample.run("verify", "--remote", "--repair").code == 3
    assert run_stage(sample).code == 0
    assert bucket.objects()["site/Alps/IMG_2.jpg"] == (sample.outputs("albums") / "Alps" / "IMG_2.jpg").read_bytes()
    assert verified(sample)["ok"]


def test_a_repair_never_has_others_bytes_removed(sample: Staged, bucket: BucketThere) -> None:
    configure(sample, bucket, delete_removed=True)
    upload(sample)
    bucket.put("site/Alps/IMG_2.jpg", b"theirs")
    assert sample.run("verify", "--remote", "--repair").code == 3
    (sample.library / "Alps" / "IMG_2.jpg").unlink()
    assert sample.update("s3_deployment").code == 0
    assert bucket.objects()["site/Alps/IMG_2.jpg"] == b"theirs"
    assert "was replaced by somebody else" in sample.log


def test_a_repair_is_kept_out_while_a_run_is_at_work(sample: Staged, bucket: BucketThere) -> None:
    from skicyclerun.run.lock import RunLock

    upload(sample)
    bucket.remove("site/Alps/IMG_1.jpg")
    with RunLock(sample.lib_root, sample.lib_root / "state" / "run.lock"):
        shown = sample.run("verify", "--remote")
        assert shown.code == 3
        assert "Next:" not in shown.stdout  # whoever is at work may be mending just this
        assert sample.run("verify", "--remote", "--repair").code not in (0, 3)
    assert sample.sql("SELECT COUNT(*) FROM bucket_objects WHERE status <> 'there'") == [(0,)]


# ── the CDN, and rows that were lost ──────────────────────────────────────────────────────────────────────────────


def test_the_cdn_is_told_of_what_a_repair_had_sent_again(sample: Staged, bucket: BucketThere, service: Service) -> None:
    with_cdn(sample, bucket, service)
    upload(sample)
    bucket.put("site/Alps/IMG_1.jpg", b"theirs")
    bucket.put("site/Sea/index.json", b"{}")
    bucket.remove("site/Alps/IMG_2.jpg")  # an edge may show that there was nothing
    assert sample.run("verify", "--remote", "--repair").code == 3
    assert run_stage(sample).code == 0
    assert invalidated(service) == [["/site/Alps/IMG_1.jpg", "/site/Alps/IMG_2.jpg", "/site/Sea/index.json"]]


def test_after_lost_rows_nothing_that_is_as_it_should_be_is_sent_or_forgotten_by_the_cdn(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    with_cdn(sample, bucket, service)
    upload(sample)
    before, whole = objects(sample), bucket.whole()
    lose_the_rows(sample)
    service.proxy.clear()
    shown = run_stage(sample)
    assert shown.code == 0
    assert "3 files" in shown.stderr
    assert "what the bucket has already is not sent again" in shown.stderr
    assert sent(service) == []
    assert invalidated(service) == []
    assert objects(sample) == before
    assert bucket.whole() == whole
    assert verified(sample)["ok"]
    assert sample.sql("SELECT * FROM cdn_changes") == []


def test_after_lost_rows_the_cdn_is_told_of_pictures_and_indexes_that_are_replaced_and_of_no_others(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    with_cdn(sample, bucket, service)
    upload(sample)
    lose_the_rows(sample)
    service.proxy.clear()
    sample.picture("Alps/IMG_2.jpg", 77)
    sample.picture("Sea/new.jpg", 78)
    entered: dict[str, bool] = {}

    def look(asked: Asked) -> None:
        """Whether the change is in the database while the object is still the old one."""
        if asked.sends_object:
            entered[asked.key] = bool(sample.sql("SELECT 1 FROM cdn_changes WHERE key = ?", asked.key))

    service.proxy.behave = look
    assert sample.update("s3_deployment").code == 0
    assert entered == {key: key != "site/Sea/new.jpg" for key in sent(service)}
    assert sorted(sent(service)) == [
        "site/Alps/IMG_2.jpg",
        "site/Alps/index.json",
        "site/Sea/index.json",
        "site/Sea/new.jpg",
        "site/index.json",
    ]
    assert invalidated(service) == [
        ["/site/Alps/IMG_2.jpg", "/site/Alps/index.json", "/site/Sea/index.json", "/site/index.json"]
    ]
    assert json.loads(bucket.objects()["site/index.json"])["albums"][1]["pictures"] == 2


def test_an_index_with_other_headers_than_it_should_have_is_sent_after_lost_rows(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    with_cdn(sample, bucket, service)
    upload(sample)
    lose_the_rows(sample)
    service.proxy.clear()
    with_cdn(sample, bucket, service, cache_control="max-age=9")
    assert run_stage(sample).code == 0
    assert bucket.head("site/Alps/index.json")["CacheControl"] == "max-age=9"
    assert invalidated(service) == [[f"/{key}" for key in bucket.keys()]]
