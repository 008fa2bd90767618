"""A bucket that does not answer, refuses, or holds by now what is not ours: what becomes of each kind of request."""

from __future__ import annotations

import hashlib
import io
import os
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skicyclerun.bucket.objects import Bucket, Headers
from skicyclerun.bucket.service import Service as BucketService
from skicyclerun.images.position_signs import tags_of_jpeg
from tests.bucket_proxy import Asked, Bad
from tests.bucket_server import BucketThere, Service
from tests.staged_sample import Staged

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("bucket_credentials")]

RESET, SILENT = Bad(reset=True), Bad(silent=True)


@pytest.fixture
def sample(tmp_path: Path, bucket: BucketThere) -> Staged:
    staged = Staged(tmp_path)
    for number, name in enumerate(("Alps/IMG_1.jpg", "Alps/IMG_2.jpg", "Sea/IMG_1.jpg")):
        staged.picture(name, 10 * number)
    configure(staged, bucket)
    return staged


def configure(sample: Staged, bucket: BucketThere, **keys: Any) -> None:
    """A service that is silent costs a second for each try."""
    sample.configure(s3_deployment={**bucket.section, "timeouts": {"photo": 2}, **keys})


def upload(sample: Staged) -> None:
    ended = sample.export("s3_deployment")
    assert ended.code == 0, ended


@pytest.fixture
def _one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each request: how often the SDK asks a service that never answers is not what is looked at."""
    monkeypatch.setattr("skicyclerun.bucket.service.SDK_ATTEMPTS", 1)


def of_the_bucket(asked: Asked) -> bool:
    return asked.method == "HEAD" and not asked.key


def of_the_listing(asked: Asked) -> bool:
    return "list-type" in asked.query


def of_a_copy(asked: Asked) -> bool:
    return "x-amz-copy-source" in asked.headers


def tries(service: Service, which: Callable[[Asked], bool]) -> list[Asked]:
    return [each for each in service.proxy.asked if which(each)]


# ── a line that is bad ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_that_does_not_answer_before_the_run_holds_up_nothing_else(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    service.proxy.behave = lambda asked: RESET if of_the_bucket(asked) else None
    ended = sample.export("s3_deployment")
    assert ended.code == 3
    assert "s3_deployment cannot upload now. The bucket" in ended.stderr
    assert "What else was asked for goes on" in ended.stderr
    assert len(sample.names("albums")) == 3
    assert sample.newest_run() == "interrupted"
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert len(bucket.keys()) == 6


def test_a_bucket_that_answers_again_when_its_turn_comes_gets_its_pictures(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    service.proxy.fails(3, SILENT, of_the_bucket)
    ended = sample.export("s3_deployment")
    assert ended.code == 0
    assert "cannot upload now" in ended.stderr
    assert len(bucket.keys()) == 6


@pytest.mark.usefixtures("_one_try")
@pytest.mark.parametrize("bad", [RESET, SILENT], ids=["reset", "silent"])
def test_where_nothing_else_was_asked_for_a_bucket_that_does_not_answer_ends_the_run_with_a_sentence(
    sample: Staged, service: Service, bad: Bad
) -> None:
    assert sample.export().code == 0
    service.proxy.behave = lambda asked: bad if of_the_bucket(asked) else None
    ended = sample.run("--stages", "s3_deployment")
    assert ended.code == 1
    assert "s3_deployment cannot upload now. The bucket" in ended.stderr
    assert "Try again later" in ended.stderr
    assert sample.newest_run() == "finished"


@pytest.mark.usefixtures("_one_try")
@pytest.mark.parametrize("bad", [RESET, SILENT], ids=["reset", "silent"])
@pytest.mark.parametrize("which", [of_the_bucket, of_the_listing], ids=["HEAD", "LIST"])
def test_a_bucket_that_does_not_answer_as_the_upload_begins_pauses_it_and_other_stages_go_on(
    sample: Staged, bucket: BucketThere, service: Service, which: Callable[[Asked], bool], bad: Bad
) -> None:
    passed = 0

    def behave(asked: Asked) -> Bad | None:
        nonlocal passed
        passed += which(asked)
        return bad if which(asked) and passed > (which is of_the_bucket) else None

    service.proxy.behave = behave
    ended = sample.export("preprocessing", "s3_deployment")
    assert ended.code == 3
    assert "s3_deployment goes no further" in ended.stderr
    assert sample.newest_run() == "interrupted"
    assert set(sample.pictures("preprocessing").values()) == {"done"}
    assert len(sample.pictures("preprocessing")) == 3
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert len(bucket.keys()) == 6


@pytest.mark.parametrize(("bad", "times"), [(RESET, 3), (SILENT, 1)], ids=["reset", "silent"])
def test_an_object_that_cannot_be_looked_at_is_looked_at_again(
    sample: Staged, service: Service, bad: Bad, times: int
) -> None:
    upload(sample)
    sample.sql("DELETE FROM bucket_objects WHERE key = 'site/Alps/IMG_2.jpg'")
    service.proxy.clear()
    service.proxy.fails(times, bad, lambda asked: asked.method == "HEAD" and asked.key == "site/Alps/IMG_2.jpg")
    assert sample.run("--stages", "s3_deployment").code == 0
    heads = tries(service, lambda asked: asked.method == "HEAD" and asked.key == "site/Alps/IMG_2.jpg")
    assert len(heads) == times + 1
    assert tries(service, lambda asked: asked.sends_object and "IMG" in asked.key) == []


def test_a_copy_whose_line_is_torn_is_asked_for_again(sample: Staged, bucket: BucketThere, service: Service) -> None:
    upload(sample)
    (sample.library / "Sea").rename(sample.library / "Ocean")
    service.proxy.clear()
    service.proxy.fails(3, RESET, of_a_copy)
    assert sample.update("s3_deployment").code == 0
    assert len(tries(service, of_a_copy)) == 4
    assert [key for key in bucket.keys() if "Alps" not in key] == [
        "site/Ocean/IMG_1.jpg",
        "site/Ocean/index.json",
        "site/index.json",
    ]


@pytest.mark.usefixtures("_one_try")
@pytest.mark.parametrize("bad", [RESET, SILENT], ids=["reset", "silent"])
@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
def test_a_removal_whose_line_is_bad_pauses_the_stage_and_is_done_by_a_resumed_run(
    sample: Staged, bucket: BucketThere, service: Service, method: str, bad: Bad
) -> None:
    configure(sample, bucket, delete_removed=True)
    upload(sample)
    (sample.library / "Alps" / "IMG_2.jpg").unlink()
    gone = "site/Alps/IMG_2.jpg"
    service.proxy.behave = lambda asked: bad if (asked.method, asked.key) == (method, gone) else None
    ended = sample.update("s3_deployment")
    assert ended.code == 3
    assert "s3_deployment goes no further" in ended.stderr
    assert sample.newest_run() == "interrupted"
    assert gone in bucket.keys()
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert gone not in bucket.keys()


def test_a_line_that_is_torn_under_verify_is_said_in_a_sentence(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    upload(sample)
    bucket.put("site/Alps/IMG_1.jpg", bytes((sample.outputs("albums") / "Alps" / "IMG_1.jpg").stat().st_size))
    service.proxy.behave = lambda asked: RESET if asked.method == "HEAD" else None
    ended = sample.run("verify", "--remote")
    assert ended.code != 0
    assert "The bucket could not be looked through. site/Alps/IMG_1.jpg cannot be looked at" in ended.stderr


# ── a service that refuses ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "InvalidAccessKeyId", "Look which access key is taken"),
        (403, "SignatureDoesNotMatch", "The secret is not that of the access key"),
        (403, "RequestTimeTooSkewed", "Set the clock"),
        (403, "AccessDenied", "docs/publishing.md has the least that must be allowed"),
        (400, "ExpiredToken", "Log in anew"),
        (400, "AuthorizationHeaderMalformed", "Look at s3_deployment.bucket_name, region and endpoint_url"),
        (400, "SomethingElse", "Look at s3_deployment.bucket_name, region and endpoint_url"),
    ],
)
def test_a_bucket_that_refuses_says_why_and_what_to_look_at(
    sample: Staged, service: Service, status: int, code: str, advice: str
) -> None:
    def behave(asked: Asked) -> Bad:
        assert asked.method == "HEAD" or of_the_listing(asked)
        return Bad(status=status, code=code, message="As the service says it.")

    service.proxy.behave = behave
    refused = sample.export("s3_deployment")
    assert refused.code == 2
    assert f"As the service says it ({code})" in refused.stderr
    assert advice in refused.stderr
    assert not (sample.lib_root / "pipeline").exists()
    (listing,) = tries(service, of_the_listing)
    assert (listing.query["prefix"], listing.query["max-keys"]) == (["site/"], ["1"])


def test_rights_that_reach_no_further_than_the_prefix_are_enough(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    refused = Bad(status=403, code="AccessDenied")
    service.proxy.behave = lambda asked: (
        refused if of_the_bucket(asked) or (of_the_listing(asked) and asked.query["prefix"] != ["site/"]) else None
    )
    upload(sample)
    assert len(bucket.keys()) == 6


@pytest.mark.parametrize("everything", [False, True], ids=["HEAD", "all"])
def test_a_bucket_elsewhere_of_which_nobody_says_where_is_a_sentence(
    sample: Staged, service: Service, everything: bool
) -> None:
    elsewhere = Bad(status=301, code="PermanentRedirect", message="It must be addressed at another endpoint.")
    service.proxy.behave = lambda asked: elsewhere if everything or asked.method in ("HEAD", "GET") else None
    refused = sample.export("s3_deployment")
    assert refused.code == 2
    assert "It must be addressed at another endpoint (PermanentRedirect)" in refused.stderr
    assert "Look at s3_deployment.bucket_name, region and endpoint_url" in refused.stderr
    assert len(service.proxy.asked) < 6


def test_a_redirection_in_the_middle_pauses_the_stage(sample: Staged, bucket: BucketThere, service: Service) -> None:
    elsewhere = Bad(status=301, code="PermanentRedirect", message="Elsewhere.")
    service.proxy.behave = lambda asked: elsewhere if asked.sends_object else None
    ended = sample.export("s3_deployment")
    assert ended.code == 3
    assert "s3_deployment goes no further" in ended.stderr
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert len(bucket.keys()) == 6


def test_https_where_none_is_spoken_leads_to_the_endpoint(sample: Staged, bucket: BucketThere) -> None:
    class Plain(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            self.request.recv(1 << 16)

    assert sample.export().code == 0
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Plain) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        configure(sample, bucket, endpoint_url=f"https://127.0.0.1:{server.server_address[1]}")
        ended = sample.run("--stages", "s3_deployment")
        server.shutdown()
        thread.join(10)
    assert ended.code == 1
    assert "SSL" in ended.stderr
    assert "Look at s3_deployment.endpoint_url" in ended.stderr
    assert "Try again later" not in ended.stderr


def test_a_distribution_that_is_not_there_is_what_one_is_told_to_look_at(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    configure(sample, bucket, cloudfront={"enabled": True, "distribution_id": "E2NOSUCHONE"})
    upload(sample)
    sample.picture("Alps/IMG_2.jpg", 77)
    ended = sample.update("s3_deployment")
    assert ended.code == 3
    assert "NoSuchDistribution" in ended.stderr
    assert "Look at s3_deployment.cloudfront.distribution_id." in ended.stderr
    assert "credentials" not in ended.stderr


# ── keys that are taken after the bucket was listed ───────────────────────────────────────────────────────────────


def comes_before(service: Service, which: Callable[[Asked], bool], come: Callable[[], None]) -> None:
    """Something happens in the bucket just before the first request of this kind."""
    once = threading.Lock()
    came = threading.Event()

    def behave(asked: Asked) -> None:
        if which(asked) and once.acquire(blocking=False):
            come()
            came.set()
        elif which(asked):
            came.wait(30)  # of two at once the other one comes after it too

    service.proxy.behave = behave


def test_a_new_object_costs_one_request_that_replaces_nothing(sample: Staged, service: Service) -> None:
    upload(sample)
    with_key = tries(service, lambda asked: bool(asked.key) and "uploads" not in asked.query)
    assert [each.method for each in with_key if "uploadId" not in each.query] == ["PUT"] * 6
    assert {each.headers.get("if-none-match") for each in with_key if each.sends_object} == {"*"}
    service.proxy.clear()
    sample.picture("Alps/IMG_2.jpg", 77)
    assert sample.update("s3_deployment").code == 0
    replaced = tries(service, lambda asked: asked.sends_object)
    assert [each.headers.get("if-none-match") for each in replaced] == [None] * 2  # the index of all albums is the same


def test_another_ones_object_that_comes_after_the_listing_stays(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    comes_before(service, lambda asked: asked.sends_object, lambda: bucket.put("site/Sea/IMG_1.jpg"))
    ended = sample.export("s3_deployment")
    assert ended.code == 3
    assert bucket.objects()["site/Sea/IMG_1.jpg"] == b"somebody else's"
    assert "is an object that skicyclerun did not upload; it was left alone" in sample.reason(
        "s3_deployment", "Sea/IMG_1.jpg"
    )
    assert "site/Sea/index.json" not in bucket.keys()
    bucket.remove("site/Sea/IMG_1.jpg")
    assert sample.run("retry-failed").code == 0
    assert len(bucket.keys()) == 6


def test_one_with_the_marks_of_another_picture_stays_too(sample: Staged, bucket: BucketThere, service: Service) -> None:
    mark = {"skicyclerun-sha256": hashlib.sha256(b"another library's").hexdigest()}
    theirs = b"another library's"
    comes_before(
        service, lambda asked: asked.sends_object, lambda: bucket.put("site/Sea/IMG_1.jpg", theirs, Metadata=mark)
    )
    assert sample.export("s3_deployment").code == 3
    assert bucket.objects()["site/Sea/IMG_1.jpg"] == theirs


def test_one_with_the_very_same_bytes_is_taken_for_ours(sample: Staged, bucket: BucketThere, service: Service) -> None:
    assert sample.export().code == 0
    same = (sample.outputs("albums") / "Sea" / "IMG_1.jpg").read_bytes()
    comes_before(service, lambda asked: asked.sends_object, lambda: bucket.put("site/Sea/IMG_1.jpg", same))
    assert sample.run("--stages", "s3_deployment").code == 0
    assert bucket.head("site/Sea/IMG_1.jpg")["Metadata"] == {"skicyclerun-sha256": hashlib.sha256(same).hexdigest()}


def test_what_a_killed_run_has_sent_and_comes_only_after_the_listing_is_not_sent_again(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    key = "site/Sea/IMG_1.jpg"
    assert sample.export().code == 0
    data = (sample.outputs("albums") / "Sea" / "IMG_1.jpg").read_bytes()
    mark = {"skicyclerun-sha256": hashlib.sha256(data).hexdigest()}
    comes_before(
        service,
        lambda asked: asked.sends_object,
        lambda: bucket.put(key, data, Metadata=mark, ContentType="image/jpeg", ChecksumAlgorithm="SHA256"),
    )
    assert sample.run("--stages", "s3_deployment").code == 0
    assert [each.method for each in tries(service, lambda asked: asked.key == key)] == ["PUT", "HEAD"]
    assert sample.sql("SELECT status FROM bucket_objects WHERE key = ?", key) == [("there",)]
    assert len(bucket.keys()) == 6


def test_an_index_of_somebody_else_that_comes_after_the_listing_stays(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    comes_before(service, lambda asked: asked.sends_object, lambda: bucket.put("site/Sea/index.json"))
    assert sample.export("s3_deployment").code == 3
    assert bucket.objects()["site/Sea/index.json"] == b"somebody else's"
    bucket.remove("site/Sea/index.json")
    assert sample.run("--resume").code == 0
    assert len(bucket.keys()) == 6


def test_an_object_that_moves_does_not_replace_what_came_meanwhile(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    upload(sample)
    (sample.library / "Sea").rename(sample.library / "Ocean")
    service.proxy.clear()
    comes_before(service, of_a_copy, lambda: bucket.put("site/Ocean/IMG_1.jpg"))
    assert sample.update("s3_deployment").code == 3
    assert bucket.objects()["site/Ocean/IMG_1.jpg"] == b"somebody else's"
    assert tries(service, of_a_copy)[0].headers["if-none-match"] == "*"
    assert "site/Sea/IMG_1.jpg" in bucket.keys()


def test_an_sdk_that_knows_no_condition_for_copies_copies_without(bucket: BucketThere, service: Service) -> None:
    """Those before the end of 2025."""
    there = BucketService(bucket.name, service.proxy.address)
    client = there.client("s3", at_once=1, read_seconds=10)
    del client.meta.service_model.operation_model("CopyObject").input_shape.members["IfNoneMatch"]
    objects, data = Bucket(there, client, part_bytes=0), b"a picture"
    stored = objects.put_bytes("site/a.jpg", data, Headers("image/jpeg"), only_new=True)
    digest = hashlib.sha256(data).hexdigest()
    copied = objects.copy(
        "site/a.jpg", stored.etag, "site/b.jpg", digest, len(data), Headers("image/jpeg"), only_new=True
    )
    client.close()
    assert copied is not None
    assert bucket.objects() == {"site/a.jpg": data, "site/b.jpg": data}
    assert ["if-none-match" in each.headers for each in service.proxy.asked] == [True, False]


@pytest.fixture
def large(sample: Staged, bucket: BucketThere) -> Path:
    """A picture that goes in parts."""
    path = sample.library / "Sea" / "large.png"
    Image.effect_noise((1500, 1500), 200).convert("RGB").save(path, compress_level=0)
    sample.configure(export={"source": "folder", "library": str(sample.library), "format": "original"})
    configure(sample, bucket, multipart_mb=5, timeouts={"photo": 60})
    return path


def of_the_end(asked: Asked) -> bool:
    return asked.method == "POST" and "uploadId" in asked.query


def test_an_upload_in_parts_replaces_nothing_that_came_meanwhile(
    sample: Staged, bucket: BucketThere, service: Service, large: Path
) -> None:
    comes_before(service, of_the_end, lambda: bucket.put("site/Sea/large.png"))
    assert sample.export("s3_deployment").code == 3
    assert bucket.objects()["site/Sea/large.png"] == b"somebody else's"
    assert "did not upload" in sample.reason("s3_deployment", "Sea/large.png")
    assert bucket.unfinished() == []


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaced"])
def test_an_upload_in_parts_whose_last_answer_is_lost_is_found_whole(
    sample: Staged, bucket: BucketThere, service: Service, large: Path, replaced: bool
) -> None:
    if replaced:
        upload(sample)
        Image.effect_noise((1500, 1500), 100).convert("RGB").save(large, compress_level=0)
        service.proxy.clear()
    service.proxy.fails(1, Bad(reset_after=True), of_the_end)
    assert sample.update("s3_deployment").code == 0
    assert len(tries(service, of_the_end)) == 2
    assert bucket.objects()["site/Sea/large.png"] == large.read_bytes()
    assert bucket.unfinished() == []
    assert sample.run("verify", "--remote", "--full").code == 0


@pytest.mark.parametrize("key", ["site/Alps/IMG_1.jpg", "site/Alps/index.json"])
def test_an_object_whose_answer_was_lost_is_known_for_ours(
    sample: Staged, bucket: BucketThere, service: Service, key: str
) -> None:
    service.proxy.fails(1, Bad(reset_after=True), lambda asked: asked.key == key and asked.sends_object)
    upload(sample)
    assert bucket.head(key)["Metadata"]["skicyclerun-sha256"] == hashlib.sha256(bucket.objects()[key]).hexdigest()
    assert sample.sql("SELECT status FROM bucket_objects WHERE key = ?", key) == [("there",)]
    assert sample.run("verify", "--remote").code == 0


@pytest.mark.parametrize("key", ["site/Alps/IMG_1.jpg", "site/Alps/index.json"])
def test_an_object_in_whose_way_another_request_is_comes_after_it(
    sample: Staged, bucket: BucketThere, service: Service, key: str
) -> None:
    conflict = Bad(status=409, code="ConditionalRequestConflict", message="A conflicting operation occurred.")
    service.proxy.fails(1, conflict, lambda asked: asked.key == key)
    upload(sample)
    assert len(bucket.keys()) == 6


@pytest.mark.parametrize(
    "refusal",
    [
        Bad(status=501, code="NotImplemented", message="A header you provided is not implemented"),
        Bad(status=400, code="InvalidArgument", message="Unsupported header 'If-None-Match' received"),
        Bad(without_conditions=True),
    ],
    ids=["not implemented", "invalid argument", "ignored"],
)
def test_a_service_that_knows_no_conditions_is_sent_everything_without(
    sample: Staged, bucket: BucketThere, service: Service, refusal: Bad
) -> None:
    for number in range(8):
        sample.picture(f"Alps/IMG_{number + 10}.jpg", 100 + number)
    service.proxy.behave = lambda asked: refusal if "if-none-match" in asked.headers else None
    upload(sample)
    (sample.library / "Sea").rename(sample.library / "Ocean")
    assert sample.update("s3_deployment").code == 0
    assert len(bucket.keys()) == 14
    assert sorted(checksum[:6] for (checksum,) in sample.sql("SELECT checksum FROM bucket_objects")) == ["SHA256"] * 14
    conditional = tries(service, lambda asked: "if-none-match" in asked.headers)
    if refusal.status:  # remembered for the run; two pictures go at a time, and the second run asks a copy and an index
        assert len(conditional) <= 2 + 2


# ── positions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def with_segments(data: bytes, segments: bytes) -> bytes:
    """A JPEG with these before all it has."""
    return data[:2] + segments + data[2:]


@pytest.mark.parametrize(
    "segments",
    [
        b"",
        b"".join(b"\xff\xe2\xff\xff" + os.urandom(65533) for _ in range(40)),
        b"\xff\xff\xff\xe2\x00\x04ab",
    ],
    ids=["first", "behind 2.6 MB", "behind fill bytes"],
)
def test_a_position_is_found_wherever_it_stands_before_the_pixels_and_the_pixels_are_not_read(
    sample: Staged, tmp_path: Path, segments: bytes
) -> None:
    path = sample.picture("Alps/IMG_3.jpg", 3, position=True)
    data = with_segments(path.read_bytes(), segments)
    stream = io.BytesIO(data + bytes(3 << 20))
    (exif,) = [each for each in tags_of_jpeg(stream) if each.startswith(b"Exif")]
    assert exif in path.read_bytes()
    assert stream.tell() <= len(data)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1", b"GPSLatitude", b"\xff\xd8\xff\xff"])
def test_what_is_no_jpeg_is_looked_at_as_it_is(data: bytes) -> None:
    found = b"".join(tags_of_jpeg(io.BytesIO(data)))
    assert found.endswith(data)


def test_a_picture_whose_position_stands_far_behind_is_warned_of(sample: Staged, bucket: BucketThere) -> None:
    path = sample.picture("Alps/IMG_3.jpg", 3, position=True)
    icc = b"".join(b"\xff\xe2\xff\xff" + b"other data\0" + bytes(65522) for _ in range(3))
    path.write_bytes(with_segments(path.read_bytes(), icc))
    ahead = sample.folder / "ahead.jpg"
    path.rename(ahead)
    # A stage of one's own leaves the segments in that order; the export writes EXIF first.
    sample.command("preprocessing", f'cp "{ahead}" "$2"', reads="export", extension=".jpg")
    configure(sample, bucket, source_folder="preprocessed")
    ended = sample.export("preprocessing", "s3_deployment")
    assert ended.code == 0, ended
    assert "holds its GPS position" in ended.stderr
