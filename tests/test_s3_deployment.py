"""The stage s3_deployment against a real S3 on the loopback: what is in the bucket, in the rows and in the catalog."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import UnknownServiceError
from botocore.loaders import create_loader
from PIL import Image

from skicyclerun.actors.stage_plan import AlbumPlan, StageRun, plan_album
from skicyclerun.bucket import service as service_of_buckets
from skicyclerun.bucket.service import Service as BucketService
from skicyclerun.state.store import Store
from tests.bucket_proxy import Asked, Bad
from tests.bucket_server import BucketThere, Service, new_distribution
from tests.command_line import Ended
from tests.staged_sample import Staged

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("bucket_credentials")]

UPLOAD = ("export", "s3_deployment")


@pytest.fixture
def sample(tmp_path: Path, bucket: BucketThere) -> Staged:
    """Two albums; one picture has a position and a title."""
    staged = Staged(tmp_path)
    staged.picture("Alps/IMG_1.jpg", 10, date="2024:06:01 10:00:00", position=True)
    staged.picture("Alps/IMG_2.jpg", 20)
    staged.picture("Sea/IMG_1.jpg", 30)
    staged.configure(s3_deployment=bucket.section)
    return staged


def upload(sample: Staged) -> Ended:
    ended = sample.export(*UPLOAD[1:])
    assert ended.code == 0, ended
    return ended


def sent(service: Service) -> list[str]:
    """Keys of the objects that came whole, in order."""
    return [each.key for each in service.proxy.asked if each.sends_object]


def objects(sample: Staged) -> dict[str, tuple[str, int]]:
    """Key → (status, whether it has left), by the rows."""
    return {
        key: (status, left) for key, status, left in sample.sql("SELECT key, status, left_album FROM bucket_objects")
    }


def configure(sample: Staged, bucket: BucketThere, **keys: Any) -> None:
    sample.configure(s3_deployment={**bucket.section, **keys})


# ── what is uploaded ──────────────────────────────────────────────────────────────────────────────────────────────


def test_every_picture_is_in_the_bucket_with_its_sha_256_confirmed_and_an_index_of_each_album(
    sample: Staged, bucket: BucketThere
) -> None:
    configure(sample, bucket, cache_control="max-age=60", storage_class="STANDARD_IA")
    ended = upload(sample)
    assert bucket.keys() == [
        "site/Alps/IMG_1.jpg",
        "site/Alps/IMG_2.jpg",
        "site/Alps/index.json",
        "site/Sea/IMG_1.jpg",
        "site/Sea/index.json",
        "site/index.json",
    ]
    for name in sample.names("albums"):
        data = (sample.outputs("albums") / name).read_bytes()
        assert bucket.objects()[f"site/{name}"] == data
        head = bucket.head(f"site/{name}")
        assert head["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(data).digest()).decode()
        assert (head["ContentType"], head["CacheControl"], head["StorageClass"]) == (
            "image/jpeg",
            "max-age=60",
            "STANDARD_IA",
        )
    assert bucket.head("site/index.json")["ContentType"] == "application/json"
    assert "s3_deployment: 2 of 2 albums done, 3 of 3 pictures" in ended.stdout
    entry = sample.entries["albums/Alps/IMG_1.jpg"]["s3_deployment"]
    assert entry["key"] == "site/Alps/IMG_1.jpg"
    assert entry["bucket"] == bucket.name
    assert entry["uploaded"].endswith("Z")
    assert "done 2" in sample.run("status", "--stage", "s3_deployment").stdout or "Alps" in ended.stdout


def test_the_next_album_is_on_its_way_before_the_one_before_has_its_index(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    on_its_way, seen = threading.Event(), []

    def behave(asked: Asked) -> None:
        if asked.key == "site/Sea/IMG_1.jpg":
            on_its_way.set()
        if asked.key == "site/Alps/index.json":
            seen.append(on_its_way.wait(30))

    service.proxy.behave = behave
    ended = upload(sample)
    assert seen == [True]
    order = sent(service)
    for album in ("Alps", "Sea"):
        pictures = [order.index(key) for key in order if key.startswith(f"site/{album}/IMG_")]
        assert max(pictures) < order.index(f"site/{album}/index.json") < order.index("site/index.json")
    told = [line for line in ended.stderr.splitlines() if line.startswith("STAGE: s3_deployment | album_")]
    assert [line.partition("album_")[2][:6] for line in told] == ["1_of_2", "2_of_2"]


def test_an_album_that_waits_for_the_one_before_is_not_begun_after_rights_were_taken_away(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    refused = Bad(status=403, code="AccessDenied", message="Access Denied")
    service.proxy.behave = lambda asked: refused if asked.sends_object and asked.key.startswith("site/Alps/") else None
    ended = sample.export(*UPLOAD[1:])
    assert ended.code == 3
    assert sample.sql("SELECT folder, status FROM stage_albums WHERE stage = 's3_deployment'") == [("Alps", "pending")]
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert "site/Sea/index.json" in bucket.keys()


def test_bytes_that_are_on_their_way_already_are_copied_in_the_next_album(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    shutil.copy(sample.library / "Alps" / "IMG_2.jpg", sample.library / "Sea" / "IMG_2.jpg")
    upload(sample)
    assert bucket.objects()["site/Sea/IMG_2.jpg"] == bucket.objects()["site/Alps/IMG_2.jpg"]
    copied = [each.key for each in service.proxy.asked if "x-amz-copy-source" in each.headers]
    assert copied == ["site/Sea/IMG_2.jpg"]


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9", "https://127.0.0.1:9"])
def test_a_request_is_signed_as_the_sdk_signs_it_without_its_bytes_being_hashed_again(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"a picture"
    digest = hashlib.sha256(data).digest()
    now = datetime.datetime(2026, 1, 1)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)

    class Sent(BaseException):
        """Instead of a request."""

    def request(client: Any) -> dict[str, bytes]:
        found: dict[str, bytes] = {}

        def look(request: Any, **_: object) -> None:
            found.update(request.headers)
            raise Sent

        client.meta.events.register("before-send.s3.PutObject", look)
        checksum = base64.b64encode(digest).decode()
        with pytest.raises(Sent):
            client.put_object(Bucket="b", Key="k", Body=data, ChecksumAlgorithm="SHA256", ChecksumSHA256=checksum)
        return {name: value for name, value in found.items() if name != "amz-sdk-invocation-id"}

    def hashed_again(*_: object) -> None:
        raise AssertionError

    where = BucketService("b", endpoint)
    by_the_sdk = where.client("s3", at_once=1, read_seconds=1)
    by_the_sdk.meta.events.unregister("choose-signer.s3.PutObject", service_of_buckets._signer_of_known_bytes)
    expected = request(by_the_sdk)
    with monkeypatch.context() as patch:
        patch.setattr("botocore.auth.S3SigV4Auth.payload", hashed_again)
        assert request(where.client("s3", at_once=1, read_seconds=1)) == expected
    assert expected["X-Amz-Content-SHA256"].decode() == digest.hex()


def test_the_sdk_knows_of_the_services_what_its_own_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "ours" / "2020-01-01"
    own.mkdir(parents=True)
    (own / "service-2.json").write_bytes(b'{"a": NaN, "b": [1, 2.50]}')  # which only the SDK's reader takes
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    service_of_buckets._descriptions.cache_clear()
    try:
        ours, theirs = service_of_buckets._descriptions(), create_loader(str(tmp_path))
        for name, kind in [("s3", "service-2"), ("s3", "endpoint-rule-set-1"), ("cloudfront", "service-2")]:
            assert ours.load_service_model(name, kind) == theirs.load_service_model(name, kind)
        assert ours.load_data("endpoints") == theirs.load_data("endpoints")
        assert ours.load_service_model("ours", "service-2")["b"] == [1, 2.5]
        # Credentials may come by a role or by a single sign-on.
        known = theirs.list_available_services("service-2")
        assert {"sts", "sso", "sso-oidc", "ours"} <= set(known) <= set(ours.list_available_services("service-2"))
        with pytest.raises(UnknownServiceError):
            ours.load_service_model("nobodys", "service-2")
    finally:
        service_of_buckets._descriptions.cache_clear()


def test_what_is_up_to_date_asks_no_service(sample: Staged, service: Service) -> None:
    upload(sample)
    service.proxy.clear()
    again = sample.run("--stages", "s3_deployment")
    assert again.code == 0
    assert "0 made, 2 up to date" in again.stderr
    assert service.proxy.asked == []


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Folders of the albums whose pictures are compared one by one from now on."""
    found: set[str] = set()

    async def noted(store: Store, run: StageRun, folder: str) -> AlbumPlan:
        found.add(folder)
        return await plan_album(store, run, folder)

    for module in ("skicyclerun.actors.stage", "skicyclerun.run.plan"):
        monkeypatch.setattr(f"{module}.plan_album", noted)
    return found


def test_an_album_of_which_nothing_changed_is_not_planned(sample: Staged, planned: set[str]) -> None:
    upload(sample)
    before = objects(sample)
    planned.clear()
    for again in (sample.run("--stages", "s3_deployment"), sample.update("s3_deployment")):
        assert again.code == 0
        assert "3 of 3 pictures" in again.stdout
    assert planned == set()
    assert objects(sample) == before
    sample.picture("Alps/IMG_2.jpg", 77)
    assert sample.update("s3_deployment").code == 0
    assert planned == {"Alps"}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE stage_pictures SET depends = 'other' WHERE stage = 's3_deployment' AND input = 'IMG_2.jpg'",
        "UPDATE stage_pictures SET input_sha256 = '00' WHERE stage = 's3_deployment' AND input = 'IMG_2.jpg'",
        "UPDATE stage_pictures SET status = 'failed' WHERE stage = 's3_deployment' AND input = 'IMG_2.jpg'",
        "DELETE FROM stage_pictures WHERE stage = 's3_deployment' AND input = 'IMG_2.jpg'",
        "UPDATE bucket_objects SET status = 'claimed' WHERE key = 'site/Alps/IMG_2.jpg'",
        "UPDATE bucket_objects SET left_album = 1 WHERE key = 'site/Alps/IMG_2.jpg'",
        "UPDATE bucket_objects SET sha256 = '00' WHERE key = 'site/Alps/IMG_2.jpg'",
        "DELETE FROM bucket_objects WHERE key = 'site/Alps/IMG_2.jpg'",
        "UPDATE bucket_objects SET status = 'claimed' WHERE key = 'site/Alps/index.json'",
    ],
)
def test_whatever_changed_of_an_album_is_put_right_by_the_next_run(
    sample: Staged, bucket: BucketThere, planned: set[str], change: str
) -> None:
    rows = (
        "SELECT key, status, sha256, left_album FROM bucket_objects ORDER BY key",
        "SELECT input, status, input_sha256, depends FROM stage_pictures ORDER BY folder, input",
    )
    upload(sample)
    before = [sample.sql(each) for each in rows]
    sample.sql(change)
    planned.clear()
    assert sample.run("--stages", "s3_deployment").code == 0
    assert planned == {"Alps"}
    assert [sample.sql(each) for each in rows] == before
    planned.clear()
    assert sample.run("--stages", "s3_deployment").code == 0
    assert planned == set()


def test_the_pictures_of_every_stage_that_writes_into_the_folder_are_taken(sample: Staged, bucket: BucketThere) -> None:
    sample.command("lora_processing", 'cp "$1" "$2"', reads="preprocessing", extension=".webp")
    configure(sample, bucket, source_folder="{watermarked_final}")
    stages = ("preprocessing", "watermarking", "lora_processing", "post_lora_watermarking", "s3_deployment")
    ended = sample.export(*stages)
    assert ended.code == 0, ended
    assert [key for key in bucket.keys() if "Alps" in key] == [
        "site/Alps/IMG_1 (2).webp",
        "site/Alps/IMG_1.webp",
        "site/Alps/IMG_2 (2).webp",
        "site/Alps/IMG_2.webp",
        "site/Alps/index.json",
    ]
    entry = sample.entries["watermarked_final/Alps/IMG_1.webp"]
    assert entry["s3_deployment"]["key"] == "site/Alps/IMG_1.webp"
    assert entry["pipeline"]["stages"] == ["watermarking", "s3_deployment"]
    assert "s3_deployment" not in sample.entries["albums/Alps/IMG_1.jpg"]
    assert sample.run("verify").code == 0


def test_a_folder_that_no_stage_makes_is_refused_before_anything_is_touched(
    sample: Staged, bucket: BucketThere
) -> None:
    configure(sample, bucket, source_folder="/somewhere/else")
    refused = sample.export("s3_deployment")
    assert refused.code == 2
    assert "no stage makes any there" in refused.stderr
    assert not (sample.lib_root / "pipeline").exists()


def test_a_large_file_goes_in_parts_that_are_confirmed_one_by_one_and_as_a_whole(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    noise = Image.effect_noise((2600, 2600), 200).convert("RGB")
    noise.save(sample.library / "Sea" / "large.png", compress_level=0)
    sample.configure(export={"source": "folder", "library": str(sample.library), "format": "original"})
    configure(sample, bucket, multipart_mb=5)
    upload(sample)
    data = (sample.library / "Sea" / "large.png").read_bytes()
    assert bucket.objects()["site/Sea/large.png"] == data
    parts = [each for each in service.proxy.asked if "partNumber" in each.query]
    assert len(parts) == -(-len(data) // (5 << 20)) > 2
    digests = [hashlib.sha256(each.body).digest() for each in parts]
    assert [each.headers["x-amz-checksum-sha256"] for each in parts] == [base64.b64encode(d).decode() for d in digests]
    assert bucket.unfinished() == []
    assert sample.run("verify", "--remote", "--full").code == 0


def test_parts_that_a_killed_run_has_left_are_given_up_and_those_of_others_are_not(
    sample: Staged, bucket: BucketThere
) -> None:
    upload(sample)
    sample.picture("Alps/IMG_2.jpg", 99)
    for key in ("site/Alps/IMG_2.jpg", "site/somebody.jpg", "elsewhere/IMG_2.jpg"):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    assert sample.update("s3_deployment").code == 0
    assert sorted(bucket.unfinished()) == ["elsewhere/IMG_2.jpg", "site/somebody.jpg"]


def test_the_question_before_says_where_and_how_much_and_yes_is_not_needed_off_a_terminal(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    assert sample.export().code == 0
    size = sum((sample.outputs("albums") / name).stat().st_size for name in sample.names("albums"))
    ahead = sample.run("--stages", "s3_deployment", "--dry-run")
    assert ahead.code == 0
    assert f"{bucket.name}/site/ is there. 3 files ({size / 1000:.1f} kB) to go up" in ahead.stderr
    assert "3 to do (3 new)" in ahead.stderr
    assert {each.method for each in service.proxy.asked} == {"HEAD", "GET"}
    ended = sample.run("--stages", "s3_deployment")
    assert "is there and can be written to. 3 files" in ended.stderr
    assert len(bucket.keys()) == 6


def test_dry_run_says_what_would_go_and_asks_no_service(sample: Staged, bucket: BucketThere, service: Service) -> None:
    configure(sample, bucket, dry_run=True)
    ended = sample.export("s3_deployment")
    assert ended.code == 0
    assert "dry_run is on. 3 files" in ended.stderr
    assert service.proxy.asked == []
    assert objects(sample) == {}
    configure(sample, bucket)
    assert sample.run("--stages", "s3_deployment").code == 0
    assert len(bucket.keys()) == 6


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_that_is_not_there_is_said_before_anything_is_exported(sample: Staged, bucket: BucketThere) -> None:
    configure(sample, bucket, bucket_name="no-such-bucket")
    refused = sample.export("s3_deployment")
    assert refused.code == 2
    assert "there is no such bucket" in refused.stderr
    assert not (sample.lib_root / "pipeline").exists()


def test_a_bucket_that_may_not_be_written_to_is_said_before_anything_is_exported(
    sample: Staged, service: Service
) -> None:
    service.proxy.behave = lambda asked: (
        Bad(status=403, code="AccessDenied", message="no") if asked.method == "POST" else None
    )
    refused = sample.export("s3_deployment")
    assert refused.code == 2
    assert "Nothing can be written below" in refused.stderr
    assert "publishing.md" in refused.stderr
    assert not (sample.lib_root / "pipeline").exists()


def test_without_credentials_the_sentence_says_where_they_belong(
    sample: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused = sample.export("s3_deployment")
    assert refused.code == 2
    assert "There are no credentials" in refused.stderr
    assert "aws configure" in refused.stderr


def test_a_profile_is_taken_from_the_files_of_aws(
    sample: Staged, bucket: BucketThere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "credentials").write_text("[photos]\naws_access_key_id = FROMPROFILE\naws_secret_access_key = y\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    configure(sample, bucket, aws_profile="photos")
    upload(sample)
    assert "Credential=FROMPROFILE/" in service.proxy.asked[-1].headers["authorization"]
    configure(sample, bucket, aws_profile="nobody")
    sample.picture("Alps/IMG_9.jpg", 9)
    assert "nobody" in sample.update("s3_deployment").stderr


@pytest.mark.parametrize(
    "section",
    [
        {"aws_secret_access_key": "TOPSECRET"},
        {"accessKeyId": "TOPSECRET"},
        {"cloudfront": {"session_token": "TOPSECRET"}},
        {"credentials": {"key": "TOPSECRET"}},
        {"endpoint_url": "https://user:TOPSECRET@s3.example.org"},
        {"aws_profile": "AKIAABCDEFGHIJKLMNOP TOPSECRET"},
    ],
)
def test_a_secret_in_the_configuration_is_refused_and_never_shown(
    sample: Staged, bucket: BucketThere, section: dict[str, Any]
) -> None:
    configure(sample, bucket, **section)
    refused = sample.export("s3_deployment")
    assert refused.code == 2
    assert "s3_deployment" in refused.stderr
    others = sample.export()
    assert others.code == 0  # what needs no bucket is not held up
    shown = "".join((refused.stdout, refused.stderr, others.stdout, others.stderr, sample.log))
    assert "TOPSECRET" not in shown


def test_no_secret_stands_in_log_catalog_or_state(
    sample: Staged, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "DONTTELL")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "NORTHIS")
    service.proxy.fails(2, Bad(status=503), lambda asked: asked.sends_object)
    assert sample.run("--stages", "export,s3_deployment", "--verbose").code == 0
    written = b"".join(path.read_bytes() for path in sample.lib_root.rglob("*") if path.is_file())
    assert b"DONTTELL" not in written
    assert b"NORTHIS" not in written


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_of_strange_names_are_safe_and_addresses_lead_to_them(sample: Staged, bucket: BucketThere) -> None:
    names = ("Été #1 100%.jpg", "e\u0301te\u0301 #1 100%.jpg", "ÉTÉ #1 100%.jpg", "a+b & c;d=e.jpg", "🏔 Zermatt~1.jpg")
    for number, name in enumerate(names):
        sample.picture(f"Straße & #Meer/{name}", 100 + number)
    upload(sample)
    keys = [key for key in bucket.keys() if "Meer" in key]
    assert len({key.casefold() for key in keys}) == len(names) + 1
    from urllib.parse import unquote

    index = bucket.index("site/Straße & #Meer/index.json")
    assert sorted(each["key"] for each in index["pictures"]) == [key for key in keys if "index" not in key]
    for each in index["pictures"]:
        assert not set(each["href"]) & set(' #?%"<>') - {"%"}
        assert f"site/Straße & #Meer/{unquote(each['href'])}" == each["key"]
    top = bucket.index("site/index.json")
    assert [unquote(each["href"]) for each in top["albums"]] == [
        "Alps/index.json",
        "Sea/index.json",
        "Straße & #Meer/index.json",
    ]


def test_without_the_structure_of_albums_two_files_of_one_name_never_share_a_key(
    sample: Staged, bucket: BucketThere
) -> None:
    configure(sample, bucket, preserve_album_structure=False)
    upload(sample)
    assert bucket.keys() == [
        "site/Alps/index.json",
        "site/IMG_1 (2).jpg",
        "site/IMG_1.jpg",
        "site/IMG_2.jpg",
        "site/Sea/index.json",
        "site/index.json",
    ]
    assert bucket.index("site/Sea/index.json")["pictures"][0]["href"] == "../IMG_1%20%282%29.jpg".replace(
        "%28", "("
    ).replace("%29", ")")
    before = bucket.whole()
    shutil.rmtree(sample.library / "Alps")
    configure(sample, bucket, preserve_album_structure=False, delete_removed=True)
    assert sample.update("s3_deployment").code == 0
    assert bucket.keys() == ["site/IMG_1 (2).jpg", "site/Sea/index.json", "site/index.json"]
    assert bucket.whole()["site/IMG_1 (2).jpg"] == before["site/IMG_1 (2).jpg"]


def test_another_ones_object_under_a_key_of_ours_is_left_alone_and_the_same_bytes_are_taken(
    sample: Staged, bucket: BucketThere
) -> None:
    bucket.put("site/Alps/IMG_1.jpg")
    bucket.put("site/index.json")
    ended = sample.export("s3_deployment")
    assert ended.code == 3
    assert bucket.objects()["site/Alps/IMG_1.jpg"] == b"somebody else's"
    assert "did not upload" in sample.reason("s3_deployment", "Alps/IMG_1.jpg")
    assert "site/Alps/index.json" not in bucket.keys()  # half an album is never shown
    bucket.put("site/Alps/IMG_1.jpg", (sample.outputs("albums") / "Alps" / "IMG_1.jpg").read_bytes())
    bucket.remove("site/index.json")
    assert sample.run("retry-failed").code == 0
    assert "site/Alps/index.json" in bucket.keys()


# ── what changes ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_what_changed_goes_again_and_the_index_of_its_album_last(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    upload(sample)
    service.proxy.clear()
    sample.picture("Alps/IMG_2.jpg", 77)
    sample.picture("Alps/IMG_3.jpg", 78)
    assert sample.update("s3_deployment").code == 0
    assert sorted(sent(service)[:2]) == ["site/Alps/IMG_2.jpg", "site/Alps/IMG_3.jpg"]
    assert sent(service)[2:] == ["site/Alps/index.json", "site/index.json"]
    assert [each["href"] for each in bucket.index("site/Alps/index.json")["pictures"]] == [
        "IMG_1.jpg",
        "IMG_2.jpg",
        "IMG_3.jpg",
    ]


def test_another_header_sends_the_pictures_again(sample: Staged, bucket: BucketThere) -> None:
    upload(sample)
    configure(sample, bucket, cache_control="max-age=5", content_type="image/x-mine")
    assert sample.run("--stages", "s3_deployment").code == 0
    head = bucket.head("site/Alps/IMG_1.jpg")
    assert (head["CacheControl"], head["ContentType"]) == ("max-age=5", "image/x-mine")
    assert bucket.head("site/Alps/index.json")["ContentType"] == "application/json"


@pytest.mark.parametrize("delete_removed", [False, True])
def test_what_left_its_album_leaves_the_bucket_only_if_asked_for(
    sample: Staged, bucket: BucketThere, delete_removed: bool
) -> None:
    upload(sample)
    bucket.put("site/Alps/not-ours.jpg")
    bucket.put("elsewhere/x.jpg")
    (sample.library / "Alps" / "IMG_2.jpg").unlink()
    configure(sample, bucket, delete_removed=delete_removed)
    assert sample.update("s3_deployment").code == 0
    assert ("site/Alps/IMG_2.jpg" in bucket.keys()) is not delete_removed
    assert {"site/Alps/not-ours.jpg", "elsewhere/x.jpg"} <= set(bucket.keys())
    assert [each["href"] for each in bucket.index("site/Alps/index.json")["pictures"]] == ["IMG_1.jpg"]
    found = sample.run("verify", "--remote")
    assert found.code == 0
    assert "1 object that skicyclerun did not upload" in found.stdout
    assert ("left their albums" in found.stdout) is not delete_removed
    if not delete_removed:  # later it is asked for
        configure(sample, bucket, delete_removed=True)
        assert sample.run("--stages", "s3_deployment").code == 0
        assert "site/Alps/IMG_2.jpg" not in bucket.keys()


def test_an_object_that_somebody_replaced_since_is_not_removed(sample: Staged, bucket: BucketThere) -> None:
    configure(sample, bucket, delete_removed=True)
    upload(sample)
    bucket.put("site/Alps/IMG_2.jpg")
    (sample.library / "Alps" / "IMG_2.jpg").unlink()
    assert sample.update("s3_deployment").code == 0
    assert bucket.objects()["site/Alps/IMG_2.jpg"] == b"somebody else's"
    assert "was replaced by somebody else" in sample.log


def test_an_album_that_is_renamed_moves_its_objects_without_sending_them_again(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    upload(sample)
    service.proxy.clear()
    (sample.library / "Sea").rename(sample.library / "Ocean")
    assert sample.update("s3_deployment").code == 0
    assert [key for key in bucket.keys() if "Alps" not in key] == [
        "site/Ocean/IMG_1.jpg",
        "site/Ocean/index.json",
        "site/index.json",
    ]
    assert sent(service) == ["site/Ocean/index.json", "site/index.json"]
    assert bucket.head("site/Ocean/IMG_1.jpg")["ContentType"] == "image/jpeg"
    removed = [each.key for each in service.proxy.asked if each.method == "DELETE" and not each.query]
    assert removed == ["site/Sea/index.json", "site/Sea/IMG_1.jpg"]
    assert [each["album"] for each in bucket.index("site/index.json")["albums"]] == ["Alps", "Ocean"]


def test_a_photo_that_is_in_two_albums_and_leaves_one_is_no_move(sample: Staged, bucket: BucketThere) -> None:
    shutil.copy2(sample.library / "Alps" / "IMG_2.jpg", sample.library / "Sea" / "both.jpg")
    upload(sample)
    (sample.library / "Alps" / "IMG_2.jpg").unlink()
    assert sample.update("s3_deployment").code == 0
    assert {"site/Alps/IMG_2.jpg", "site/Sea/both.jpg"} <= set(bucket.keys())


def test_another_prefix_leaves_what_is_outside_of_it(sample: Staged, bucket: BucketThere, service: Service) -> None:
    upload(sample)
    before = bucket.whole()
    service.proxy.clear()
    configure(sample, bucket, bucket_prefix="new", delete_removed=True)
    assert sample.run("--stages", "s3_deployment").code == 0
    assert {key: bucket.whole()[key] for key in before} == before
    assert len(bucket.keys()) == 2 * len(before)
    assert all(each.key.startswith("new/") for each in service.proxy.asked if each.method != "GET" and each.key)
    assert "6 objects of ours below another prefix" in sample.run("verify", "--remote").stdout


def test_a_run_of_one_album_removes_nothing_of_the_others(sample: Staged, bucket: BucketThere) -> None:
    """Also where it puts away the exported files of all of them, as a fresh run does."""
    configure(sample, bucket, delete_removed=True)
    upload(sample)
    before = bucket.keys()
    assert sample.run("--yes", "--stages", "cleanup,export,s3_deployment", "--album", "Alps").code == 0
    assert sample.names("albums") == ["Alps/IMG_1.jpg", "Alps/IMG_2.jpg"]
    assert bucket.keys() == before
    assert sample.run("--stages", "s3_deployment").code == 0
    assert bucket.keys() == before
    assert sample.run("--yes", "--stages", "cleanup,export,s3_deployment").code == 0
    assert bucket.keys() == before
    shutil.rmtree(sample.library / "Sea")
    assert sample.run("--yes", "--stages", "cleanup,export,s3_deployment").code == 0
    assert [key for key in bucket.keys() if "Sea" in key] == []


# ── the index ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("publish", [False, True])
def test_positions_are_published_only_if_asked_for(sample: Staged, bucket: BucketThere, publish: bool) -> None:
    configure(sample, bucket, publish_location=publish)
    ended = sample.export("metadata_extraction", "s3_deployment")
    assert ended.code == 0
    first = bucket.index("site/Alps/index.json")["pictures"][0]
    assert (first["date_taken"], first["width"], first["height"]) == ("2024-06-01T10:00:00", 96, 72)
    assert first["place"]["country"] == "Switzerland"
    assert ("position" in first) is publish
    assert ("46.0" in json.dumps(first)) is publish
    assert ("holds its GPS position" in ended.stderr) is not publish


def test_an_index_follows_facts_that_change_without_its_pictures(sample: Staged, bucket: BucketThere) -> None:
    upload(sample)
    assert "place" not in bucket.index("site/Alps/index.json")["pictures"][0]
    assert sample.run("--stages", "metadata_extraction,s3_deployment").code == 0
    assert bucket.index("site/Alps/index.json")["pictures"][0]["place"]["city"] == "Zermatt"


# ── a bad line ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "bad",
    [
        Bad(status=503),
        Bad(status=500, code="InternalError"),
        Bad(reset=True),
        Bad(reset_after=True),
        Bad(spoil=True),
        Bad(other_checksum=True),
    ],
    ids=["slow down", "internal error", "reset", "reset after", "spoilt", "other checksum"],
)
def test_a_bad_line_is_met_by_trying_again_and_the_end_is_the_same(
    sample: Staged, bucket: BucketThere, service: Service, bad: Bad
) -> None:
    service.proxy.fails(3, bad, lambda asked: asked.sends_object)
    upload(sample)
    for name in sample.names("albums"):
        assert bucket.objects()[f"site/{name}"] == (sample.outputs("albums") / name).read_bytes()
    assert len(bucket.keys()) == 6


def test_what_never_arrives_as_it_was_sent_is_never_called_done(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    service.proxy.behave = lambda asked: Bad(other_checksum=True) if asked.key == "site/Alps/IMG_2.jpg" else None
    ended = sample.export("s3_deployment")
    assert ended.code == 3
    assert "other bytes than were sent" in sample.reason("s3_deployment", "Alps/IMG_2.jpg")
    assert objects(sample)["site/Alps/IMG_2.jpg"] == ("claimed", 0)
    assert "site/Alps/index.json" not in bucket.keys()
    service.proxy.clear()
    assert sample.run("retry-failed").code == 0
    assert sample.run("verify", "--remote", "--full").code == 0


def test_a_service_that_does_not_answer_costs_a_time_out_and_not_hours(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    configure(sample, bucket, timeouts={"photo": 2}, retries={"attempts": 1, "pause_after": 1})
    assert sample.export().code == 0
    service.proxy.behave = lambda asked: Bad(silent=True) if asked.sends_object else None
    ended = sample.run("--stages", "s3_deployment")
    service.proxy.let_go.set()
    assert ended.code in (0, 3)
    assert sample.newest_run() in ("interrupted", "finished")
    assert objects(sample)["site/Alps/IMG_1.jpg"][0] == "claimed"
    service.proxy.clear()
    again = "--resume" if sample.newest_run() == "interrupted" else "retry-failed"
    assert sample.run(*([again] if again == "retry-failed" else ["run", again])).code == 0
    assert len(bucket.keys()) == 6


def test_an_upload_that_takes_too_long_is_tried_again_with_fewer_beside_it(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    configure(sample, bucket, timeouts={"photo": 0.6})
    late = iter([Bad(silent=True)])

    def behave(asked: Asked) -> Bad | None:
        return next(late, None) if asked.sends_object and asked.key == "site/Alps/IMG_2.jpg" else None

    service.proxy.behave = behave
    assert upload(sample).code == 0
    assert "site/Alps/IMG_2.jpg" in bucket.keys()
    assert "the line bears less: 1 at once from now on" in sample.log


def test_a_line_that_stays_down_pauses_the_stage_and_a_resumed_run_goes_on(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    configure(sample, bucket, retries={"attempts": 2, "backoff_seconds": 0, "pause_after": 3})
    assert sample.export().code == 0
    service.proxy.behave = lambda asked: Bad(status=503) if asked.sends_object else None
    ended = sample.run("--stages", "s3_deployment")
    assert "failed 3 times in a row" in ended.stderr
    assert sample.newest_run() == "interrupted"
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert len(bucket.keys()) == 6


def test_rights_that_are_taken_away_in_the_middle_pause_the_stage(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    service.proxy.behave = lambda asked: (
        Bad(status=403, code="AccessDenied", message="not any more") if asked.key == "site/Sea/IMG_1.jpg" else None
    )
    ended = sample.export("s3_deployment")
    assert "s3_deployment goes no further" in ended.stderr
    assert sample.newest_run() == "interrupted"
    assert "site/Alps/index.json" in bucket.keys()
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert len(bucket.keys()) == 6


def test_an_index_that_cannot_be_sent_is_owed_until_it_is(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    service.proxy.behave = lambda asked: Bad(status=503) if asked.key == "site/Alps/index.json" else None
    sample.export("s3_deployment")
    assert sample.newest_run() == "interrupted"
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert "site/Alps/index.json" in bucket.keys()


@pytest.mark.parametrize("refuses", [False, True], ids=["ignores", "refuses"])
@pytest.mark.parametrize("etag", [False, True], ids=["MD5", "no MD5"])
def test_a_service_without_sha_256_confirms_by_md5_or_is_read_back(
    sample: Staged, bucket: BucketThere, service: Service, refuses: bool, etag: bool
) -> None:
    refusal = Bad(
        status=400, code="InvalidArgument", message="Unsupported header 'x-amz-sdk-checksum-algorithm' received"
    )
    plain = Bad(without_checksums=True, other_etag=etag)

    def behave(asked: Asked) -> Bad:
        return refusal if refuses and "x-amz-sdk-checksum-algorithm" in asked.headers else plain

    service.proxy.behave = behave
    upload(sample)
    read = {each.key for each in service.proxy.asked if each.method == "GET" and each.key}
    assert ("site/Alps/IMG_1.jpg" in read) is etag
    confirmed = {checksum for (checksum,) in sample.sql("SELECT checksum FROM bucket_objects")}
    assert confirmed == {"read back" if etag else "MD5"}
    if refuses:
        md5 = [
            each.headers["content-md5"]
            for each in service.proxy.asked
            if each.key == "site/Sea/IMG_1.jpg" and each.sends_object and "content-md5" in each.headers
        ]
        data = (sample.outputs("albums") / "Sea" / "IMG_1.jpg").read_bytes()
        assert md5 == [base64.b64encode(hashlib.md5(data).digest()).decode()]


# ── verify and lost rows ──────────────────────────────────────────────────────────────────────────────────────────


def test_verify_asks_no_network_unless_it_is_told_to(sample: Staged, service: Service) -> None:
    upload(sample)
    service.proxy.clear()
    assert sample.run("verify", "--full").code == 0
    assert service.proxy.asked == []


def test_verify_remote_finds_what_is_amiss_and_the_next_run_sends_it_again(sample: Staged, bucket: BucketThere) -> None:
    upload(sample)
    whole = bucket.objects()
    bucket.remove("site/Alps/IMG_1.jpg")
    bucket.put(
        "site/Alps/IMG_2.jpg",
        whole["site/Alps/IMG_2.jpg"][:-1],
        Metadata=bucket.head("site/Alps/IMG_2.jpg")["Metadata"],
    )
    changed = b"\0" * len(whole["site/Sea/IMG_1.jpg"])
    bucket.put("site/Sea/IMG_1.jpg", changed, Metadata=bucket.head("site/Sea/IMG_1.jpg")["Metadata"])
    bucket.put("site/foreign.txt")
    found = sample.run("verify", "--remote", "--json")
    assert found.code == 3
    remote = found.json["remote"]
    assert {each["key"]: each["finding"] for each in remote["problems"]} == {
        "site/Alps/IMG_1.jpg": "missing",
        "site/Alps/IMG_2.jpg": "size_differs",
        "site/Sea/IMG_1.jpg": "content_differs",
    }
    assert (remote["objects"], remote["foreign"]) == (6, 1)
    assert not found.json["ok"]
    assert sample.run("verify", "--remote", "--repair").code == 3
    assert sample.run("--stages", "s3_deployment").code == 0
    assert {key: bucket.objects()[key] for key in whole} == whole
    assert "site/foreign.txt" in bucket.keys()
    sound = sample.run("verify", "--remote", "--full")
    assert sound.code == 0
    assert "6 read back" in sound.stdout


def test_lost_rows_come_back_from_the_bucket_without_sending_anything_again(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    upload(sample)
    before = objects(sample)
    for path in (sample.lib_root / "state").glob("skicyclerun.sqlite3*"):
        path.unlink()

    from tests.command_line import skicyclerun

    assert skicyclerun("rebuild-state", "--lib-root", str(sample.lib_root)).code == 0
    assert objects(sample) == {}
    service.proxy.clear()
    assert sample.run("--stages", "s3_deployment").code == 0
    assert [key for key in sent(service) if not key.endswith("index.json")] == []
    assert objects(sample) == before
    assert sample.run("verify", "--remote", "--full").code == 0


# ── the CDN ───────────────────────────────────────────────────────────────────────────────────────────────────────


def invalidated(service: Service) -> list[list[str]]:
    """The paths of each invalidation that was asked for, by different references."""
    import re
    from xml.etree import ElementTree

    found: dict[str, list[str]] = {}
    for each in service.proxy.asked:
        if each.method == "POST" and each.path.endswith("/invalidation"):
            tree = ElementTree.fromstring(re.sub(rb' xmlns="[^"]+"', b"", each.body))
            found[tree.findtext("CallerReference") or ""] = sorted(path.text or "" for path in tree.iter("Path"))
    return list(found.values())


def test_only_what_was_replaced_or_removed_is_forgotten_by_the_cdn(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    distribution = new_distribution(service)
    cdn = {"enabled": True, "distribution_id": distribution, "wait_for_completion": True}
    configure(sample, bucket, cloudfront=cdn, delete_removed=True)
    upload(sample)
    assert invalidated(service) == []  # nobody can have seen what was not there
    sample.picture("Alps/IMG_2.jpg", 77)
    sample.picture("Sea/new #1.jpg", 78)
    (sample.library / "Alps" / "IMG_1.jpg").unlink()
    ended = sample.update("s3_deployment")
    assert ended.code == 0
    assert invalidated(service) == [
        [
            "/site/Alps/IMG_1.jpg",
            "/site/Alps/IMG_2.jpg",
            "/site/Alps/index.json",
            "/site/Sea/index.json",
            "/site/index.json",
        ]
    ]
    assert sample.sql("SELECT COUNT(*) FROM cdn_changes") == [(0,)]
    assert sample.sql("SELECT status FROM cdn_invalidations") == [("completed",)]


def test_a_cdn_that_refuses_is_asked_again_by_a_resumed_run(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    distribution = new_distribution(service)
    configure(sample, bucket, cloudfront={"enabled": True, "distribution_id": distribution, "paths": ["/site/Alps/*"]})
    upload(sample)
    sample.picture("Alps/IMG_2.jpg", 77)
    refusal = Bad(status=400, code="TooManyInvalidationsInProgress", message="wait")
    service.proxy.behave = lambda asked: refusal if asked.path.endswith("/invalidation") else None
    sample.update("s3_deployment")
    assert sample.newest_run() == "interrupted"
    service.proxy.clear()
    assert sample.run("--resume").code == 0
    assert invalidated(service) == [["/site/Alps/*", "/site/index.json"]] or invalidated(service) == [["/site/Alps/*"]]


def test_the_stage_is_refused_with_what_to_type_where_boto3_is_missing(
    sample: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "boto3" else real(name))
    refused = sample.export("s3_deployment")
    assert refused.code == 2
    assert 'pip install "skicyclerun[s3]"' in refused.stderr


def test_help_and_status_import_no_boto3() -> None:
    import subprocess
    import sys

    script = (
        "import sys\nfrom skicyclerun.cli import run_command_line\nrun_command_line(['--help'])\n"
        "import skicyclerun.commands.run, skicyclerun.run.session, skicyclerun.stages.registry\n"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment).returncode == 0
