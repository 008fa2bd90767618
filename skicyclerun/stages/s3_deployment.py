"""The stage `s3_deployment`: the finished pictures into a bucket, each with its checksum, and an index of each album.

It makes no file here. What a picture's object is called, where it is and what it holds stands in rows of its own
(`state/bucket_objects.py`), which `actors/deployment.py` keeps.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar

from pydantic import Field, field_validator

from skicyclerun.bucket.cloudfront import Distribution, addresses_begin, may_match
from skicyclerun.bucket.keys import KeyRule, clean_prefix
from skicyclerun.bucket.known import KnownObject, KnownObjects, ObjectStatus
from skicyclerun.bucket.objects import Bucket, Head, Headers, Listed, Stored
from skicyclerun.bucket.service import Service
from skicyclerun.errors import (
    BucketRefused,
    BucketUnreachable,
    KeyTaken,
    PhotoError,
    PhotoTransient,
    StageError,
    StagePaused,
)
from skicyclerun.files.fault_points import fault_point
from skicyclerun.settings.section import Section, StageSection, Text, Texts
from skicyclerun.stages.stage import ForNow, Made, Picture, Recipe, Stage, Surroundings
from skicyclerun.wording import counted

NAME: Final = "s3_deployment"

_T = TypeVar("_T")

#: By extension; what others would make of a file depends on their system.
_KINDS: Final[Mapping[str, str]] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".gif": "image/gif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".json": "application/json",
}
_OTHER_KIND: Final = "application/octet-stream"
_KEY_ID: Final = re.compile(r"(AKIA|ASIA)[A-Z0-9]{12,}")
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_HEADER: Final = re.compile(r"[\x20-\x7e]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_READ: Final = 60.0
#: Before a run, which is not to wait long for a bucket that it comes to at its end.
_LONGEST_QUESTION: Final = 10.0


class CloudFrontSettings(Section):
    """The CDN before the bucket."""

    enabled: bool = False
    distribution_id: str = Field(default="", max_length=64)
    paths: Texts = ()
    """Patterns (`/albums/*`) that stand for all that changed below them; without any, each changed path is named."""
    origin_path: str = Field(default="", max_length=255)
    """What the distribution puts before each path, if it does: that part of the keys is no part of the addresses."""
    wait_for_completion: bool = False

    @field_validator("distribution_id")
    @classmethod
    def _an_identity(cls, identity: str) -> str:
        if not re.fullmatch(r"[A-Z0-9]*", identity):
            raise ValueError("must be a distribution's id (E…), capital letters and digits")
        return identity

    @field_validator("paths")
    @classmethod
    def _patterns(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        if len(paths) > 15:
            raise ValueError("names more than 15 paths; CloudFront takes no more with a wildcard at once")
        for path in paths:
            if not path.startswith("/") or "*" in path[:-1] or _CONTROL.search(path):
                raise ValueError("holds a path that does not begin with `/`, or has its `*` elsewhere than at the end")
        return paths


class S3DeploymentSettings(StageSection):
    """The section `s3_deployment`."""

    as_it_is_now: ClassVar[bool] = True
    no_secrets: ClassVar[bool] = True

    bucket_name: Text | None = None
    bucket_prefix: str = Field(default="", max_length=1024)
    endpoint_url: str = Field(default="", max_length=1024)
    """Of a service that is not AWS."""
    region: str = Field(default="", max_length=64)
    aws_profile: str = Field(default="", max_length=128)
    source_folder: Text = "watermarked_final"
    """Path, or the key of `paths`: what is made into it is uploaded."""
    preserve_album_structure: bool = True
    content_type: str = Field(default="", max_length=255)
    """Empty: by the kind of each file."""
    cache_control: str = Field(default="", max_length=255)
    storage_class: Literal[
        "",
        "STANDARD",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "REDUCED_REDUNDANCY",
        "GLACIER_IR",
        "EXPRESS_ONEZONE",
    ] = ""
    """Classes from which a page can be shown at once."""
    multipart_mb: int = Field(default=16, ge=5, le=5000)
    """MiB; a file of so many or more goes in parts of that size."""
    delete_removed: bool = False
    publish_location: bool = False
    dry_run: bool = False
    cloudfront: CloudFrontSettings = CloudFrontSettings()

    def doubts(self) -> Mapping[str, str]:
        cloudfront, prefix = self.cloudfront, self.bucket_prefix
        if not cloudfront.enabled:
            return {}
        beginning = addresses_begin(f"{prefix}/" if prefix else "", cloudfront.origin_path)
        if beginning is None:
            apart = f"({cloudfront.origin_path}) and bucket_prefix ({prefix}) lie apart"
            return {"cloudfront.origin_path": f"{apart}: CloudFront shows none of the pictures, and is told nothing."}
        astray = [(at, path) for at, path in enumerate(cloudfront.paths) if not may_match(path, beginning)]
        why = f"matches nothing: the addresses of the pictures begin with {beginning}"
        return {f"cloudfront.paths[{at}]": f'("{path}") {why}' for at, path in astray}

    @field_validator("bucket_name")
    @classmethod
    def _a_bucket(cls, name: str | None) -> str | None:
        if name is not None and not _BUCKET.fullmatch(name):
            raise ValueError("must be the name of a bucket alone: 3 to 63 letters, digits, `.`, `-`, `_`")
        return name

    @field_validator("bucket_prefix")
    @classmethod
    def _a_prefix(cls, prefix: str) -> str:
        return clean_prefix(prefix)

    @field_validator("endpoint_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s@?#]*)?", url):
            raise ValueError("must be an address such as https://s3.example.org, without a user or a password in it")
        return url

    @field_validator("content_type", "cache_control", "region", "aws_profile")
    @classmethod
    def _plain(cls, text: str) -> str:
        if _KEY_ID.search(text):
            raise ValueError("holds an access key; keys never stand in this file (docs/publishing.md)")
        if not _HEADER.fullmatch(text):
            raise ValueError("must be printable ASCII")
        return text


class S3Deployment(Recipe):
    """Uploads one picture."""

    extension = None
    at_once = 10
    in_a_row = 8
    one_ahead = True
    over_a_line = True
    needs_facts = False
    takes_over = False

    def __init__(self, section: S3DeploymentSettings, surroundings: Surroundings) -> None:
        self.section = section
        self.say = surroundings.say
        self.rule = KeyRule(section.bucket_prefix, section.preserve_album_structure)
        self.service = Service(section.bucket_name or "", section.endpoint_url, section.region, section.aws_profile)
        self.known = KnownObjects(self.rule)
        """What rows speak for; `actors/deployment.py` fills it before anything is planned."""
        self.sent: dict[str, Stored] = {}
        """Confirmed by the service, by key, and perhaps not in a row yet."""
        self.before_replacing: Callable[[str], None] = lambda key: None
        """Called in the thread that is about to replace the object under this key; `actors/deployment.py` sets it."""
        self._opening = threading.Lock()
        self._client: Any = None
        self._bucket: Bucket | None = None
        self._cdn: Any = None
        self._listed_once = False
        self._listed: Mapping[str, Listed] = {}
        self._position_told = section.publish_location

    # ── before a run ──────────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """What can be seen without asking anybody."""
        if not self.section.bucket_name:
            raise StageError(
                f"{NAME} does not know its bucket: s3_deployment.bucket_name is not set.",
                next_step=f"Set it (docs/publishing.md), or leave {NAME} out of --stages.",
            )
        cloudfront = self.section.cloudfront
        if cloudfront.enabled and not cloudfront.distribution_id:
            raise StageError(
                "s3_deployment.cloudfront is enabled and has no distribution_id.",
                next_step="Set it, or cloudfront.enabled to false.",
            )

    def ask_the_service(self, *, may_write: bool, first: bool = False) -> str:
        """Whether the bucket is there and, if asked for, may be written to; in sentences, the last without its stop.

        `first`: no row speaks of it; what it holds already is told.

        Raises StageError where it is not, BucketUnreachable where that cannot be told now.
        """
        there = 0
        try:
            bucket = self.connected(at_most=_LONGEST_QUESTION)
            bucket.check_there(self.rule.root)
            if may_write:
                bucket.check_writable(self.rule.root)
            if first:
                there = bucket.some_there(self.rule.root)
        except PhotoTransient as error:
            raise BucketUnreachable(
                f"{NAME} cannot upload now. {str(error).removesuffix('.')}.",
                next_step=error.next_step or f"Try again later, or leave {NAME} out of --stages.",
            ) from error
        except (BucketRefused, PhotoError) as error:
            raise StageError(
                f"{NAME} cannot upload. {str(error).removesuffix('.')}.",
                next_step=error.next_step or "Look at s3_deployment.bucket_name, region and endpoint_url.",
            ) from error
        finally:
            self.close()
        where = f"{self.service.place}/{self.rule.root}"
        found = f"{where} is there and can be written to" if may_write else f"{where} is there"
        if not there:
            return found
        much = "more than 1,000 objects" if there > 1000 else counted(there, "object")
        return (
            f"{found}. It holds {much} already of which this library has no record: what the bucket has already is not "
            "sent again, what another skicyclerun has sent under the same name is replaced, all else stays"
        )

    # ── the recipe ────────────────────────────────────────────────────────────────────────────────────────────────

    def headers(self, key: str) -> Headers:
        """Of the object under this key."""
        suffix = Path(key).suffix.lower()
        section = self.section
        kind = section.content_type if suffix != ".json" else ""
        return Headers(kind or _KINDS.get(suffix, _OTHER_KIND), section.cache_control, section.storage_class)

    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        key = self.known.claim(picture.path.parent.name, picture.path.name).key
        return {"place": self.service.place, "key": key, "headers": self.headers(key).arguments()}

    def is_there(self, picture: Picture) -> bool:
        known = self.known.of_file(picture.path.parent.name, picture.path.name)
        return (
            known is not None
            and known.status is ObjectStatus.THERE
            and not known.left
            and known.sha256 == picture.sha256
        )

    def left_out(self, picture: Picture) -> str:
        if not self.section.dry_run:
            return ""
        key = self.known.claim(picture.path.parent.name, picture.path.name).key
        return ForNow(f"dry_run is on; it would go to {self.service.place}/{key}")

    def open(self) -> None:
        """Ask before the first upload, give up what a killed run has begun, and list what is there."""
        try:
            self.bucket()
        except PhotoError as error:
            raise unreachable(error) from error

    def bucket(self) -> Bucket:
        """The bucket, asked once whether it is there and may be written to. Raises StagePaused."""
        with self._opening:
            if not self._listed_once:
                with paused_where_refused():
                    bucket = self.connected()
                    bucket.check_there(self.rule.root)
                    bucket.check_writable(self.rule.root)
                    bucket.abort_left_over(self.rule.root, lambda key: key in self.known.by_key)
                    self._listed = bucket.listing(self.rule.root)
                    self._listed_once = True
            return self.connected()

    def connected(self, at_most: float = _LONGEST_READ) -> Bucket:
        """The bucket, without asking it anything; later it is waited for so many seconds at most.

        Raises BucketRefused without credentials.
        """
        if self._bucket is None:
            section = self.section
            self._client = self.service.client(
                "s3",
                at_once=section.workers or self.at_once,
                read_seconds=max(1.0, min(at_most, section.timeouts.photo / 2)),
            )
            self._bucket = Bucket(self.service, self._client, part_bytes=section.multipart_mb << 20)
        return self._bucket

    def make(self, picture: Picture, staged: Path | None) -> Made:
        key = self.known.claim(picture.path.parent.name, picture.path.name).key
        with paused_where_refused():
            stored = self._brought(key, picture)
        fault_point("s3.object_sent")
        self.sent[key] = stored
        self._tell_of_position(picture.path)
        said: dict[str, Any] = {"bucket": self.service.bucket, "key": key, "etag": stored.etag.strip('"')}
        if self.service.endpoint_url:
            said["endpoint"] = self.service.endpoint_url
        return Made(facts={NAME: said}, size=stored.size)

    def _brought(self, key: str, picture: Picture) -> Stored:
        """The object as the service confirms it: as it is there already, copied from another key, or sent."""
        bucket, headers = self.bucket(), self.headers(key)
        known = self.known.by_key.get(key)
        listed = self._listed.get(key)
        if listed is not None:
            # Another one's object is never replaced.
            there = self._as_it_is(bucket, key, picture, headers, known, listed)
            if there is not None:
                return there
            self.before_replacing(key)
        if known is not None and known.moved_from:
            source = self.known.by_key.get(known.moved_from)
            if source is not None and source.sha256 == picture.sha256 and source.etag and source.size is not None:
                copied = bucket.copy(
                    source.key, source.etag, key, picture.sha256, source.size, headers, only_new=self._is_new(key)
                )
                if copied is not None:
                    return copied
        try:
            return bucket.put(key, picture.path, picture.sha256, headers, only_new=self._is_new(key))
        except KeyTaken:
            there = self._taken_since(bucket, key, picture, headers)
            if there is not None:
                return there
            self.before_replacing(key)
            return bucket.put(key, picture.path, picture.sha256, headers)

    def _is_new(self, key: str) -> bool:
        """Whether nothing is under this key as far as is known: neither listed nor sent since."""
        return key not in self._listed and key not in self.sent

    def _taken(self, bucket: Bucket, key: str) -> Head:
        """What came under a key that was free."""
        head = bucket.head(key)
        if head is None:
            raise PhotoTransient(f"{self.service.place}/{key} was taken, and is free again")
        return head

    def _taken_since(self, bucket: Bucket, key: str, picture: Picture, headers: Headers) -> Stored | None:
        """What came under a key that was free, if it is as it should be; None if it is ours and to be replaced.

        Ours: its answer was lost, or the listing was behind. PhotoError where it is somebody else's.
        """
        head = self._taken(bucket, key)
        known = self.known.by_key.get(key)
        ours = head.mark == picture.sha256 or (known is not None and known.etag == head.etag)
        stored = None
        if head.mark in ("", picture.sha256):
            stored = bucket.confirmed(key, head, picture.path, picture.sha256, picture.path.stat().st_size)
        if stored is None and not ours:
            raise self._not_ours(key)
        return stored if head.is_ours and _same_headers(head.headers, headers) else None

    def _as_it_is(
        self, bucket: Bucket, key: str, picture: Picture, headers: Headers, known: KnownObject | None, listed: Listed
    ) -> Stored | None:
        """The object that is there, if it is as it should be; None if it is ours and to be replaced. PhotoError if not.

        Ours is what a row knows by its ETag, and what bears our mark: rows may be lost.
        """
        size = picture.path.stat().st_size
        ours = known is not None and known.etag == listed.etag
        if ours and known is not None and known.sha256 != picture.sha256:
            return None
        head = bucket.head(key)
        if head is None:
            return None
        stored = None
        # Of another mark are other bytes: nothing has to be read to know it.
        if head.size == size and head.mark in ("", picture.sha256):
            stored = bucket.confirmed(key, head, picture.path, picture.sha256, size)
        if stored is not None and _same_headers(head.headers, headers) and head.is_ours:
            return stored
        if ours or head.is_ours or stored is not None or self._is_of_this_run(key, head.etag):
            return None
        raise self._not_ours(key)

    def _not_ours(self, key: str) -> PhotoError:
        known = self.known.by_key.get(key)
        if known is not None and known.was_there:
            since = "since `verify` saw it" if known.is_to_be_sent_again else "since it was uploaded"
            return PhotoError(
                f"{self.service.place}/{key} was replaced by somebody else {since}; it was left alone. Move it "
                "away, or have it replaced (`skicyclerun verify --remote --repair`), then "
                f"`skicyclerun run --stages {NAME}`."
            )
        return PhotoError(
            f"{self.service.place}/{key} is an object that skicyclerun did not upload; it was left alone. Move it "
            "away, or set another s3_deployment.bucket_prefix, then `skicyclerun retry-failed`."
        )

    def send_index(self, bucket: Bucket, key: str, text: bytes) -> Stored | None:
        """In one request, unless it is there. None where somebody else's object has come under the key."""
        headers = self.headers(key)
        try:
            stored = self._index_as_it_is(bucket, key, text, headers) or bucket.put_bytes(
                key, text, headers, only_new=self._is_new(key)
            )
        except KeyTaken:
            head = self._taken(bucket, key)
            if head.mark != hashlib.sha256(text).hexdigest():
                return None
            stored = bucket.put_bytes(key, text, headers)  # it is this very index: the answer was lost
        self.sent[key] = stored
        return stored

    def _index_as_it_is(self, bucket: Bucket, key: str, text: bytes, headers: Headers) -> Stored | None:
        """The index that is there, if it is as it should be and no row spoke for it; None where it is to be sent."""
        listed, known = self._listed.get(key), self.known.by_key.get(key)
        if listed is None or (known is not None and known.was_there) or key in self.sent:
            return None
        head = bucket.head(key) if listed.size == len(text) else None
        if head is not None and _same_headers(head.headers, headers):
            stored = bucket.confirmed_bytes(key, head, text)
            if stored is not None:
                return stored
        self.before_replacing(key)
        return None

    def is_of_others(self, key: str) -> bool:
        """Whether somebody else's object has the key of an index."""
        listed, known = self._listed.get(key), self.known.by_key.get(key)
        if listed is None or (known is not None and known.etag == listed.etag) or key in self.sent:
            return False
        head = self.bucket().head(key)
        return head is not None and not head.is_ours

    def was_there_before(self, key: str) -> bool:
        """Whether the bucket had an object under this key when the run first looked."""
        return key in self._listed

    def is_listed(self, known: KnownObject) -> bool:
        """Whether the listing has it as its row says; True where this run has not needed one."""
        listed = self._listed.get(known.key)
        return not self._listed_once or (listed is not None and listed.etag == known.etag)

    def is_as_known(self, bucket: Bucket, known: KnownObject) -> bool:
        """Whether the object is there as its row says, with the headers that the section has now."""
        head = bucket.head(known.key)
        same = head is not None and (head.etag == known.etag or head.mark == known.sha256)
        return head is not None and same and _same_headers(head.headers, self.headers(known.key))

    def distribution(self) -> Distribution:
        """The CDN. Raises BucketRefused without credentials."""
        if self._cdn is None:
            self._cdn = self.service.client("cloudfront", at_once=1, read_seconds=_LONGEST_READ)
        return Distribution(self._cdn, self.section.cloudfront.distribution_id)

    def _is_of_this_run(self, key: str, etag: str) -> bool:
        sent = self.sent.get(key)
        return sent is not None and sent.etag == etag

    def _tell_of_position(self, path: Path) -> None:
        """Say once that files hold positions although they are not to be published."""
        if self._position_told:
            return
        from skicyclerun.images.position_signs import may_hold_position

        if not may_hold_position(path):
            return
        from skicyclerun.images.picture_facts import read_picture_facts

        try:
            holds_position = bool(read_picture_facts(path).gps)
        except PhotoError:
            return
        if holds_position and not self._position_told:
            self._position_told = True
            self.say(
                f"{path.name} holds its GPS position, and goes up as it is although publish_location is false. "
                'preprocessing.metadata "strip_location" takes positions out (docs/publishing.md).'
            )

    def close(self) -> None:
        for client in (self._client, self._cdn):
            if client is not None:
                client.close()
        self._client = self._bucket = self._cdn = None


class paused_where_refused:
    """What no further try can mend pauses the stage: the other stages go on, and a resumed run tries again."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BucketRefused):
            raise unreachable(error) from error


def unreachable(error: BucketRefused | PhotoError) -> StagePaused:
    """For what is no picture's own failure: the bucket as a whole, an index, a removal, an invalidation."""
    step = f" {error.next_step}" if error.next_step else ""
    return StagePaused(
        f"{NAME} goes no further: {str(error).removesuffix('.')}. What was uploaded is kept.{step} "
        "`skicyclerun run --resume` carries on with it.",
        because=f"{NAME}: {error}",
    )


def or_paused(work: Callable[[], _T]) -> _T:
    """What the work gives; StagePaused for whatever the service says. A picture's own failures do not come this way."""
    try:
        with paused_where_refused():
            return work()
    except PhotoError as error:
        raise unreachable(error) from error


def _same_headers(there: Headers, wanted: Headers) -> bool:
    def known(headers: Headers) -> tuple[str, str, str]:
        return headers.content_type, headers.cache_control, headers.storage_class or "STANDARD"

    return known(there) == known(wanted)


STAGE: Final = Stage(
    name=NAME,
    summary="uploads the finished pictures to a bucket",
    needs_paths=("master_catalog", "state_db"),
    makes_paths=("master_catalog", "state_db"),
    needs_packages=("boto3",),
    extra="s3",
    section=NAME,
    settings=S3DeploymentSettings,
    recipe=S3Deployment,
    reads="watermarking",
    reads_folder="source_folder",
)
