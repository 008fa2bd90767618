"""What moves in a bucket, what leaves it and when; and the indexes meanwhile: they never name what is gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

import pytest

from skicyclerun.files.naming import collision_key
from tests.bucket_proxy import Asked, Bad
from tests.bucket_server import BucketThere, Service, new_distribution
from tests.command_line import skicyclerun
from tests.staged_sample import Staged

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("bucket_credentials")]

REFUSED = Bad(status=400, code="InvalidRequest", message="Not this one")


@pytest.fixture
def sample(tmp_path: Path, bucket: BucketThere) -> Staged:
    """Two albums of two pictures, uploaded."""
    staged = Staged(tmp_path)
    for number, name in enumerate(("Alps/IMG_1", "Alps/IMG_2", "Sea/IMG_3", "Sea/IMG_4")):
        staged.picture(f"{name}.jpg", 10 + 20 * number)
    staged.configure(s3_deployment=bucket.section)
    assert staged.export("s3_deployment").code == 0
    return staged


def configure(sample: Staged, bucket: BucketThere, **keys: Any) -> None:
    sample.configure(s3_deployment={**bucket.section, **keys})


def albums(bucket: BucketThere, prefix: str = "site/") -> dict[str, list[str]]:
    """What a page finds: album → keys of its pictures, each of which is there, as many as the index of all says."""
    there = bucket.objects()
    root = f"{prefix}index.json"
    found: dict[str, list[str]] = {}
    for album in json.loads(there[root])["albums"]:
        key = leads_to(root, album["href"])
        pictures = [leads_to(key, each["href"]) for each in json.loads(there[key])["pictures"]]
        assert set(pictures) <= there.keys(), f"{key} names what is gone"
        assert len(pictures) == album["pictures"], album
        found[album["album"]] = pictures
    return found


def leads_to(key: str, href: str) -> str:
    return unquote(urljoin(f"https://example.org/{key}", href).removeprefix("https://example.org/"))


def refuse(service: Service, *keys: str) -> None:
    """Let the service take no object under these keys."""

    def behave(asked: Asked) -> Bad | None:
        return REFUSED if asked.method == "PUT" and not asked.query and asked.key in keys else None

    service.proxy.behave = behave


UPLOADED = {"Alps": ["site/Alps/IMG_1.jpg", "site/Alps/IMG_2.jpg"], "Sea": ["site/Sea/IMG_3.jpg", "site/Sea/IMG_4.jpg"]}


@pytest.mark.parametrize("removed", [False, True])
def test_an_album_that_is_renamed_stays_as_it_was_until_all_of_it_is_under_its_new_name(
    sample: Staged, bucket: BucketThere, service: Service, removed: bool
) -> None:
    configure(sample, bucket, delete_removed=removed)
    (sample.library / "Sea").rename(sample.library / "Ocean")
    refuse(service, "site/Ocean/IMG_4.jpg")
    assert sample.update("s3_deployment").code == 3
    assert albums(bucket) == UPLOADED
    service.proxy.clear()
    assert sample.run("retry-failed").code == 0
    assert albums(bucket) == {
        "Alps": UPLOADED["Alps"],
        "Ocean": ["site/Ocean/IMG_3.jpg", "site/Ocean/IMG_4.jpg"],
    }
    assert not [key for key in bucket.keys() if key.startswith("site/Sea/")]


def test_an_album_that_is_renamed_and_has_a_photo_that_cannot_be_read_stays_on_the_site(
    sample: Staged, bucket: BucketThere
) -> None:
    (sample.library / "Sea").rename(sample.library / "Ocean")
    (sample.library / "Ocean" / "X.heic").write_text("nonsense")
    for _ in range(2):
        assert sample.update("s3_deployment").code == 3
        assert albums(bucket) == UPLOADED
    (sample.library / "Ocean" / "X.heic").unlink()
    assert sample.update("s3_deployment").code == 0
    assert albums(bucket).keys() == {"Alps", "Ocean"}
    assert not [key for key in bucket.keys() if key.startswith("site/Sea/")]


@pytest.mark.parametrize("removed", [False, True])
def test_a_photo_that_moves_to_another_album_leaves_the_old_key_when_the_new_index_names_it(
    sample: Staged, bucket: BucketThere, service: Service, removed: bool
) -> None:
    configure(sample, bucket, delete_removed=removed)
    (sample.library / "Sea" / "IMG_3.jpg").rename(sample.library / "Alps" / "IMG_3.jpg")
    sample.picture("Alps/IMG_9.jpg", 200)
    refuse(service, "site/Alps/IMG_9.jpg")
    assert sample.update("s3_deployment").code == 3
    assert albums(bucket) == {"Alps": UPLOADED["Alps"], "Sea": ["site/Sea/IMG_4.jpg"]}
    assert "site/Sea/IMG_3.jpg" in bucket.keys()
    service.proxy.clear()
    assert sample.run("retry-failed").code == 0
    assert "site/Alps/IMG_3.jpg" in albums(bucket)["Alps"]
    assert "site/Sea/IMG_3.jpg" not in bucket.keys()


def test_a_move_is_one_also_where_its_two_albums_are_gone_through_in_two_runs(
    sample: Staged, bucket: BucketThere
) -> None:
    (sample.library / "Sea" / "IMG_3.jpg").rename(sample.library / "Alps" / "IMG_3.jpg")
    assert sample.run("--update", "--stages", "export,s3_deployment", "--album", "Alps").code == 0
    assert {"site/Alps/IMG_3.jpg", "site/Sea/IMG_3.jpg"} <= set(bucket.keys())
    assert sample.update("s3_deployment").code == 0
    assert albums(bucket)["Sea"] == ["site/Sea/IMG_4.jpg"]
    assert "site/Sea/IMG_3.jpg" not in bucket.keys()


def test_an_album_that_is_gone_and_keeps_a_picture_no_longer_names_those_that_moved(
    sample: Staged, bucket: BucketThere
) -> None:
    (sample.library / "Sea" / "IMG_3.jpg").rename(sample.library / "Alps" / "IMG_3.jpg")
    shutil.rmtree(sample.library / "Sea")
    assert sample.update("s3_deployment").code == 0
    assert albums(bucket) == {
        "Alps": [*UPLOADED["Alps"], "site/Alps/IMG_3.jpg"],
        "Sea": ["site/Sea/IMG_4.jpg"],
    }
    assert "site/Sea/IMG_3.jpg" not in bucket.keys()
    sample.picture("Alps/IMG_5.jpg", 220)
    assert sample.update("s3_deployment").code == 0
    assert albums(bucket)["Sea"] == ["site/Sea/IMG_4.jpg"]
    configure(sample, bucket, delete_removed=True)
    assert sample.run("--stages", "s3_deployment").code == 0
    assert albums(bucket).keys() == {"Alps"}
    assert not [key for key in bucket.keys() if key.startswith("site/Sea/")]


def test_nothing_of_an_album_that_is_gone_leaves_where_its_index_is_another_ones_by_now(
    sample: Staged, bucket: BucketThere
) -> None:
    (sample.library / "Sea" / "IMG_3.jpg").rename(sample.library / "Alps" / "IMG_3.jpg")
    shutil.rmtree(sample.library / "Sea")
    bucket.put("site/Sea/index.json", b'{"pictures": []}')
    assert sample.update("s3_deployment").code == 0
    assert {"site/Sea/IMG_3.jpg", "site/Sea/IMG_4.jpg"} <= set(bucket.keys())
    assert bucket.objects()["site/Sea/index.json"] == b'{"pictures": []}'


def test_a_picture_that_could_not_be_sent_to_its_new_key_leaves_the_old_one_when_it_has_been(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    configure(sample, bucket, preserve_album_structure=False)
    refuse(service, "site/IMG_1.jpg")
    assert sample.run("--stages", "s3_deployment").code == 3
    assert albums(bucket)["Alps"] == UPLOADED["Alps"]
    service.proxy.clear()
    assert sample.run("retry-failed").code == 0
    assert albums(bucket)["Alps"] == ["site/IMG_1.jpg", "site/IMG_2.jpg"]
    assert not [key for key in bucket.keys() if key.count("/") > 1 and key.endswith(".jpg")]


# ── prefixes and names ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["", "Site", "site/new", "other"])
def test_another_prefix_sends_everything_there_and_leaves_the_old_one_alone(
    sample: Staged, bucket: BucketThere, prefix: str
) -> None:
    configure(sample, bucket, bucket_prefix=prefix, delete_removed=True)
    before = {key: data for key, data in bucket.objects().items() if key.startswith("site/")}
    root = f"{prefix}/" if prefix else ""

    def as_expected() -> None:
        there = bucket.objects()
        assert {key: there[key] for key in before} == before
        assert albums(bucket, root) == {
            album: [key.replace("site/", root, 1) for key in keys] for album, keys in UPLOADED.items()
        }

    assert sample.run("--stages", "s3_deployment").code == 0
    as_expected()
    sample.picture("Alps/IMG_1.jpg", 250)
    assert sample.update("s3_deployment").code == 0
    as_expected()
    shutil.rmtree(sample.library / "Sea")
    assert sample.update("s3_deployment").code == 0
    assert albums(bucket, root).keys() == {"Alps"}
    assert {key: bucket.objects()[key] for key in before} == before
    configure(sample, bucket)
    assert sample.run("--stages", "s3_deployment").code == 0
    assert albums(bucket)["Alps"] == UPLOADED["Alps"]


def test_an_album_of_which_only_the_case_changed_is_on_the_site_and_no_two_keys_differ_by_case(
    sample: Staged, bucket: BucketThere
) -> None:
    (sample.library / "Alps").rename(sample.library / "alps")
    for _ in range(2):
        assert sample.update("s3_deployment").code == 0
        assert albums(bucket) == {
            "Sea": UPLOADED["Sea"],
            "alps": ["site/alps (2)/IMG_1.jpg", "site/alps (2)/IMG_2.jpg"],
        }
        assert len({collision_key(key) for key in bucket.keys()}) == len(bucket.keys())


@pytest.mark.parametrize("structure", [True, False])
def test_no_key_is_a_file_where_another_has_a_folder(tmp_path: Path, bucket: BucketThere, structure: bool) -> None:
    staged = Staged(tmp_path)
    for number, name in enumerate(("index.json/a", "IMG_1.jpg/IMG_1", "Alps/IMG_1")):
        staged.picture(f"{name}.jpg", 10 + 20 * number)
    staged.configure(s3_deployment={**bucket.section, "preserve_album_structure": structure})
    assert staged.export("s3_deployment").code == 0
    keys = {collision_key(key) for key in bucket.keys()}
    assert keys.isdisjoint(key.rpartition("/")[0] for key in keys)
    assert {name: len(pictures) for name, pictures in albums(bucket).items()} == {
        "Alps": 1,
        "IMG_1.jpg": 1,
        "index.json": 1,
    }


# ── indexes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_ones_object_under_the_key_of_an_index_holds_up_nothing_else(
    tmp_path: Path, bucket: BucketThere
) -> None:
    staged = Staged(tmp_path)
    staged.picture("Alps/IMG_1.jpg", 10)
    staged.picture("Sea/IMG_3.jpg", 30)
    staged.configure(s3_deployment=bucket.section)
    bucket.put("site/Alps/index.json")
    ended = staged.export("s3_deployment")
    assert ended.code != 0
    assert "site/Alps/index.json is an object that skicyclerun did not upload" in ended.stderr
    assert "Move it away, then `skicyclerun run --resume`" in ended.stderr
    assert bucket.objects()["site/Alps/index.json"] == b"somebody else's"
    assert albums(bucket) == {"Sea": ["site/Sea/IMG_3.jpg"]}
    assert "site/Alps/IMG_1.jpg" in bucket.keys()
    bucket.remove("site/Alps/index.json")
    assert staged.run("--resume").code == 0
    assert albums(bucket) == {"Alps": ["site/Alps/IMG_1.jpg"], "Sea": ["site/Sea/IMG_3.jpg"]}


def test_another_header_reaches_the_indexes_too_and_the_cdn_is_told(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    cloudfront = {"enabled": True, "distribution_id": new_distribution(service)}
    configure(sample, bucket, cache_control="max-age=9", cloudfront=cloudfront)
    assert sample.run("--stages", "s3_deployment").code == 0
    assert {bucket.head(key).get("CacheControl") for key in bucket.keys()} == {"max-age=9"}
    (told,) = [each.body for each in service.proxy.asked if "/invalidation" in each.path and each.method == "POST"]
    assert b"<Path>/site/index.json</Path>" in told
    assert b"<Path>/site/Sea/index.json</Path>" in told
    service.proxy.clear()
    assert sample.run("--stages", "s3_deployment").code == 0
    assert not [each for each in service.proxy.asked if each.method == "PUT"]


def test_after_the_rows_were_lost_a_run_of_one_album_leaves_the_index_of_all_as_it_was(
    sample: Staged, bucket: BucketThere
) -> None:
    shutil.rmtree(sample.lib_root / "state")
    assert skicyclerun("rebuild-state", "--lib-root", str(sample.lib_root)).code == 0
    sample.picture("Alps/IMG_1.jpg", 250)
    ended = sample.run("--update", "--stages", "export,s3_deployment", "--album", "Alps")
    assert ended.code == 0, ended
    assert albums(bucket).keys() == {"Alps", "Sea"}
    assert "stays as it is until a run of all albums" in ended.stderr
    assert sample.update("s3_deployment").code == 0
    assert albums(bucket) == UPLOADED


def test_an_index_that_is_gone_from_the_bucket_is_sent_again_when_its_album_is_looked_at(
    sample: Staged, bucket: BucketThere
) -> None:
    bucket.remove("site/index.json")
    sample.picture("Alps/IMG_1.jpg", 250)
    assert sample.update("s3_deployment").code == 0
    assert albums(bucket) == UPLOADED


def test_what_another_library_has_put_in_the_place_of_ours_is_not_removed(
    sample: Staged, bucket: BucketThere, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    second = Staged(tmp_path / "second")
    second.picture("Sea/IMG_3.jpg", 111)
    second.configure(s3_deployment=bucket.section)
    ended = second.export("s3_deployment")
    assert ended.code == 0
    assert "It holds 7 objects already of which this library has no record" in ended.stderr
    assert "Nothing to go up yet; what this run makes of 1 photo will." in ended.stderr
    assert "has no record" not in second.update("s3_deployment").stderr
    theirs = bucket.objects()["site/Sea/IMG_3.jpg"]
    configure(sample, bucket, delete_removed=True)
    (sample.library / "Sea" / "IMG_3.jpg").unlink()
    assert sample.update("s3_deployment").code == 0
    assert bucket.objects()["site/Sea/IMG_3.jpg"] == theirs


def test_an_export_made_anew_of_the_same_pictures_asks_the_bucket_nothing(
    sample: Staged, bucket: BucketThere, service: Service
) -> None:
    sample.configure(pipeline={"stages": ["cleanup", "export", "s3_deployment"]})
    service.proxy.clear()
    service.proxy.behave = lambda asked: Bad(reset=True) if asked.method != "HEAD" or asked.key else None
    before = bucket.whole()
    ended = sample.run("--yes", "--stages", "cleanup,export,s3_deployment")
    service.proxy.clear()
    assert ended.code == 0, ended
    assert bucket.whole() == before
