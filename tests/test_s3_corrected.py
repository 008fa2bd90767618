"""A run of s3_deployment that stopped for a wrong setting, and goes on when the configuration was corrected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.bucket_proxy import Asked, Bad
from tests.bucket_server import BucketThere, Service, new_distribution
from tests.staged_sample import Staged
from tests.test_s3_deployment import configure, invalidated, upload

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("bucket_credentials")]

ALL = [
    "site/Alps/IMG_1.jpg",
    "site/Alps/IMG_2.jpg",
    "site/Alps/index.json",
    "site/Sea/IMG_1.jpg",
    "site/Sea/index.json",
    "site/index.json",
]
#: Of an update in which Alps/IMG_2.jpg has changed.
CHANGED = ["/site/Alps/IMG_2.jpg", "/site/Alps/index.json"]
NO_RIGHTS = Bad(status=403, code="AccessDenied", message="Access Denied")
WRONG = "EWRONG"


@pytest.fixture
def sample(tmp_path: Path, bucket: BucketThere) -> Staged:
    staged = Staged(tmp_path)
    staged.picture("Alps/IMG_1.jpg", 10)
    staged.picture("Alps/IMG_2.jpg", 20)
    staged.picture("Sea/IMG_1.jpg", 30)
    staged.configure(s3_deployment=bucket.section)
    return staged


def told(service: Service) -> list[tuple[str, list[str]]]:
    """Distribution and paths of each invalidation that was asked for and taken."""
    asked = [each for each in service.proxy.asked if each.path.endswith("/invalidation") and each.method == "POST"]
    found = []
    for each, paths in zip(asked, invalidated(service), strict=True):
        found.append((each.path.split("/distribution/")[1].split("/")[0], paths))
    return found


def reason(sample: Staged) -> str:
    found = json.loads(sample.run("status", "--json").stdout)["run"]["reason"]
    assert f"interrupted ({found})" in sample.run("status").stdout
    return str(found)


def update_with(sample: Staged, bucket: BucketThere, **cdn: Any) -> None:
    """Upload, change a picture, and update with this CDN, which pauses."""
    configure(sample, bucket, cloudfront={"enabled": True, **cdn})
    upload(sample)
    sample.picture("Alps/IMG_2.jpg", 77)
    assert sample.update("s3_deployment").code == 3
    assert sample.newest_run() == "interrupted"


def resume_with(sample: Staged, bucket: BucketThere, service: Service, **section: Any) -> None:
    configure(sample, bucket, **section)
    service.proxy.clear()
    ended = sample.run("--resume")
    assert ended.code == 0, ended
    assert "keeps the stage settings" not in ended.stderr
    assert sample.newest_run() == "finished"


# ── the CDN ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_distribution_is_named_and_the_corrected_one_is_told_exactly_once(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    right = new_distribution(service)
    update_with(sample, bucket, distribution_id=WRONG)
    assert reason(sample).startswith("s3_deployment: ")
    assert WRONG in reason(sample)
    assert "too often" not in reason(sample)
    resume_with(sample, bucket, service, cloudfront={"enabled": True, "distribution_id": right})
    assert told(service) == [(right, CHANGED)]
    assert sample.sql("SELECT COUNT(*) FROM cdn_changes") == [(0,)]
    assert sample.sql("SELECT distribution FROM cdn_invalidations WHERE status <> 'pending'") == [(right,)]
    service.proxy.clear()
    assert sample.update("s3_deployment").code == 0
    assert told(service) == []


def test_a_corrected_distribution_is_told_by_a_new_run_as_well(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    right = new_distribution(service)
    update_with(sample, bucket, distribution_id=WRONG)
    service.proxy.clear()
    configure(sample, bucket, cloudfront={"enabled": True, "distribution_id": right})
    assert sample.run("--fresh", "--update", "--stages", "export,s3_deployment").code == 0
    assert told(service) == [(right, CHANGED)]


def test_paths_that_the_cdn_refused_are_asked_for_as_they_were_corrected(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    right = new_distribution(service)
    refusal = Bad(status=400, code="InvalidArgument", message="Your request contains one or more invalid paths.")
    service.proxy.behave = lambda asked: refusal if asked.path.endswith("/invalidation") else None
    update_with(sample, bucket, distribution_id=right, paths=["/site/Alps/*"])
    assert "invalid paths" in reason(sample)
    cdn = {"enabled": True, "distribution_id": right, "paths": ["/site/*"]}
    resume_with(sample, bucket, service, cloudfront=cdn)
    assert told(service) == [(right, ["/site/*"])]


def test_what_an_earlier_version_has_entered_for_another_distribution_is_handed_on(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    right = new_distribution(service)
    update_with(sample, bucket, distribution_id=WRONG)
    sample.sql("UPDATE cdn_invalidations SET place = '', keys = '[]'")
    sample.sql("INSERT INTO cdn_changes (distribution, key) VALUES (?, 'site/Sea/IMG_1.jpg')", WRONG)
    resume_with(sample, bucket, service, cloudfront={"enabled": True, "distribution_id": right})
    assert sorted(told(service)) == [(right, CHANGED), (right, ["/site/Sea/IMG_1.jpg"])]


def test_what_was_sent_and_what_is_of_another_bucket_stays_what_it_is(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    first, second = new_distribution(service), new_distribution(service)
    configure(sample, bucket, cloudfront={"enabled": True, "distribution_id": first})
    upload(sample)
    sample.picture("Alps/IMG_2.jpg", 77)
    assert sample.update("s3_deployment").code == 0
    sample.sql("UPDATE cdn_invalidations SET status = 'sent'")  # as where a stop ended the wait for it
    before = sample.sql("SELECT distribution, reference, status FROM cdn_invalidations")
    assert [(row[0], row[2]) for row in before] == [(first, "sent")]
    sample.sql("INSERT INTO cdn_changes (distribution, key, place) VALUES ('EOTHER', 'site/x.jpg', 's3://other')")
    configure(sample, bucket, cloudfront={"enabled": True, "distribution_id": second})
    service.proxy.clear()
    assert sample.update("s3_deployment").code == 0
    assert told(service) == []
    assert sample.sql("SELECT distribution, reference, status FROM cdn_invalidations") == before
    assert sample.sql("SELECT distribution, key FROM cdn_changes") == [("EOTHER", "site/x.jpg")]


# ── the bucket ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_bucket_is_left_and_the_whole_run_goes_to_the_corrected_one(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    wrong = service.bucket()
    configure(sample, wrong)
    service.proxy.behave = lambda asked: NO_RIGHTS if asked.key == "site/Sea/IMG_1.jpg" else None
    assert sample.export("s3_deployment").code == 3
    assert reason(sample).startswith("s3_deployment: ")
    assert "Access Denied" in reason(sample)
    assert "site/Alps/IMG_1.jpg" in wrong.keys()
    before = wrong.whole()
    resume_with(sample, bucket, service)
    assert bucket.keys() == ALL
    assert wrong.whole() == before
    assert not [each for each in service.proxy.asked if each.path.startswith(f"/{wrong.name}")]
    assert [entry["s3_deployment"]["bucket"] for entry in sample.entries.values()] == [bucket.name] * 3


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ({"bucket_prefix": "other"}, [key.replace("site/", "other/") for key in ALL]),
        ({"cache_control": "max-age=7", "workers": 1, "region": "us-east-1"}, ALL),
    ],
    ids=["prefix", "header"],
)
def test_every_key_of_the_section_counts_as_it_is_when_the_run_is_resumed(
    sample: Staged, bucket: BucketThere, service: Service, section: dict[str, Any], keys: list[str]
) -> None:
    service.proxy.behave = lambda asked: NO_RIGHTS if asked.key == "site/Sea/IMG_1.jpg" else None
    assert sample.export("s3_deployment").code == 3
    resume_with(sample, bucket, service, **section)
    assert set(keys) <= set(bucket.keys())
    for key in keys:
        if key.endswith(".jpg"):
            assert bucket.head(key).get("CacheControl", "") == section.get("cache_control", "")


def test_retry_failed_goes_to_the_corrected_bucket(sample: Staged, bucket: BucketThere, service: Service) -> None:
    wrong = service.bucket()
    configure(sample, wrong)

    def refuse(asked: Asked) -> Bad | None:
        bad = Bad(status=400, code="InvalidRequest", message="no")
        return bad if asked.sends_object and unquote(asked.key) == "site/Sea/IMG_1.jpg" else None

    service.proxy.behave = refuse
    assert sample.export("s3_deployment").code == 3
    assert sample.newest_run() == "finished"
    service.proxy.clear()
    configure(sample, bucket)
    assert sample.run("retry-failed").code == 0
    assert "site/Sea/IMG_1.jpg" in bucket.keys()
    assert sample.update("s3_deployment").code == 0
    assert bucket.keys() == ALL


@pytest.mark.parametrize("again", ["run", "retry-failed"])
def test_a_section_that_is_wrong_by_then_is_refused_and_nothing_is_touched(
    sample: Staged, bucket: BucketThere, service: Service, again: str
) -> None:
    bad = NO_RIGHTS if again == "run" else Bad(status=400, code="InvalidRequest", message="no")
    service.proxy.behave = lambda asked: bad if asked.key == "site/Sea/IMG_1.jpg" and asked.method == "PUT" else None
    assert sample.export("s3_deployment").code == 3
    service.proxy.clear()
    wrong: list[dict[str, Any]] = [{"bucket_name": "no bucket"}, {"cache_control": 7}, {"_token": "SESAME99"}]
    for section in wrong:
        configure(sample, bucket, **section)
        ended = sample.run(again, *(["--resume"] if again == "run" else []))
        assert ended.code == 2
        assert f"s3_deployment.{next(iter(section))}: " in ended.stderr
        assert "No stage that runs needs it" not in ended.stderr
        assert "SESAME99" not in ended.stderr
        assert service.proxy.asked == []
    configure(sample, bucket)
    assert sample.run(again, *(["--resume"] if again == "run" else [])).code == 0
    assert bucket.keys() == ALL


# ── why it stopped ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_status_says_which_failures_came_too_often(sample: Staged, bucket: BucketThere, service: Service) -> None:
    configure(sample, bucket, retries={"attempts": 1, "backoff_seconds": 0, "pause_after": 2})
    service.proxy.behave = lambda asked: Bad(status=503) if asked.sends_object else None
    assert sample.export("s3_deployment").code == 3
    assert reason(sample).startswith("s3_deployment failed 2 times in a row, last with: ")
    assert "--resume" not in reason(sample)
    runs = sample.sql("SELECT reason FROM runs")
    assert runs == [(reason(sample),)]
