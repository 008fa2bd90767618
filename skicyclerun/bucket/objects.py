"""Objects of one bucket: sent with their SHA-256, and believed only when the service has confirmed it.

What confirms: the SHA-256 that the service computed. For an object in parts that is the checksum of its parts'
checksums (S3 has no other SHA-256 for them: "composite"), and each part's own. A service that keeps no such checksums
is asked for its ETag, which must be the MD5 of the bytes; where it is something else, the object is read back.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html

No ACL is ever sent: who may read is the bucket's own affair.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skicyclerun.bucket.service import Service, code_of, is_absent, is_bare_refusal, translated
from skicyclerun.errors import KeyTaken, PhotoError, PhotoTransient, SkicyclerunError

log = logging.getLogger(__name__)

#: User metadata of every object of ours, by which it is known again where the rows were lost: its SHA-256.
MARK: Final = "skicyclerun-sha256"
#: Of the object that is never there: an upload in parts is begun and given up to see whether one may.
PROBE_NAME: Final = ".skicyclerun-probe"
_MIB: Final = 1 << 20
_LEAST_PART: Final = 5 * _MIB
_MOST_PARTS: Final = 10_000
_MOST_COPIED: Final = 5 << 30


@dataclass(frozen=True, slots=True)
class Headers:
    """What an object says of itself besides its bytes."""

    content_type: str
    cache_control: str = ""
    storage_class: str = ""

    def arguments(self) -> dict[str, str]:
        """As S3's operations take them."""
        given = {"ContentType": self.content_type, "CacheControl": self.cache_control}
        given["StorageClass"] = self.storage_class
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that the service has confirmed."""

    key: str
    size: int
    sha256: str
    """Of its bytes, hexadecimal."""
    etag: str
    checksum: str
    """What confirmed it: `SHA256 …`, `SHA256 …-3` for one of three parts, `MD5`, or `read back`."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing has it."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Head:
    """An object as it answers for itself."""

    size: int
    etag: str
    checksum: str
    """SHA-256, base64; of parts with their number. Empty where the service has none."""
    mark: str
    headers: Headers

    @property
    def is_ours(self) -> bool:
        """Whether it bears the mark of our uploads."""
        return bool(self.mark)


class Bucket:
    """The objects below one bucket; for several threads. Every method blocks and raises as `translated` says."""

    def __init__(self, service: Service, client: Any, *, part_bytes: int) -> None:
        self._service = service
        self._client = client
        self._part_bytes = max(part_bytes, _LEAST_PART)
        self._knows_checksums = True
        self._unconditional: set[str] = set()
        """Methods of the client that this service does not know to make only where nothing is yet."""

    # ── before the first upload ───────────────────────────────────────────────────────────────────────────────────

    def check_there(self, root: str) -> None:
        """That the bucket is there and ours to ask, of what lies below `root` at least."""
        from botocore.exceptions import ClientError

        with translated(f"The bucket {self._service.place} cannot be used"):
            try:
                self._client.head_bucket(Bucket=self._service.bucket)
            except ClientError as error:
                if is_absent(error):
                    error.response["Error"] |= {"Code": "NoSuchBucket", "Message": "there is no such bucket"}
                if not is_bare_refusal(error):
                    raise
                # A wrong key, a wrong clock or no right: this answer can say which. Where it is none of them (rights
                # may reach no further than `root`) nothing is wrong.
                self._client.list_objects_v2(Bucket=self._service.bucket, Prefix=root, MaxKeys=1)

    def check_writable(self, root: str) -> None:
        """That objects below `root` may be written: an upload is begun and given up, nothing appears."""
        key = root + PROBE_NAME
        with translated(f"Nothing can be written below {self._service.place}/{root}"):
            begun = self._client.create_multipart_upload(Bucket=self._service.bucket, Key=key)
            self._client.abort_multipart_upload(Bucket=self._service.bucket, Key=key, UploadId=begun["UploadId"])

    def listing(self, root: str) -> dict[str, Listed]:
        """All objects whose keys begin with `root`, by key."""
        found: dict[str, Listed] = {}
        with translated(f"{self._service.place} cannot be listed"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._service.bucket, Prefix=root)
            for page in pages:
                for each in page.get("Contents", ()):
                    if each["Key"].startswith(root):
                        found[each["Key"]] = Listed(int(each["Size"]), str(each["ETag"]))
        return found

    def abort_left_over(self, root: str, is_ours: Callable[[str], bool]) -> int:
        """Give up uploads in parts that a run which was killed has begun; their parts cost money until then."""
        aborted = 0
        try:
            with translated("Unfinished uploads cannot be listed"):
                pages = self._client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self._service.bucket, Prefix=root
                )
                left = [(each["Key"], each["UploadId"]) for page in pages for each in page.get("Uploads", ())]
        except SkicyclerunError as error:
            log.info("%s", error)  # not allowed, or not known to this service: the bucket's own rule has to do it
            return 0
        for key, upload in left:
            if key == root + PROBE_NAME or (key.startswith(root) and is_ours(key)):
                with suppress(SkicyclerunError), translated(f"The unfinished upload of {key} stays"):
                    self._client.abort_multipart_upload(Bucket=self._service.bucket, Key=key, UploadId=upload)
                    aborted += 1
        return aborted

    # ── one object ────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, key: str) -> Head | None:
        """What the object answers, None where there is none."""
        with translated(f"{key} cannot be looked at"):
            try:
                said = self._client.head_object(Bucket=self._service.bucket, Key=key, ChecksumMode="ENABLED")
            except Exception as error:
                if is_absent(error):
                    return None
                raise
        headers = Headers(said.get("ContentType", ""), said.get("CacheControl", ""), said.get("StorageClass", ""))
        mark = said.get("Metadata", {}).get(MARK, "")
        return Head(int(said["ContentLength"]), str(said["ETag"]), said.get("ChecksumSHA256", ""), mark, headers)

    def confirmed(self, key: str, head: Head, path: Path, sha256: str, size: int) -> Stored | None:
        """The object, if it has the bytes of this file, whoever sent them; None if it has others.

        Only where the service keeps no checksum and its ETag is no MD5 are they read back.
        """
        if head.size != size:
            return None
        if head.checksum and "-" not in head.checksum and not _in_parts(head.etag):
            same = head.checksum == _base64(bytes.fromhex(sha256))
            return Stored(key, size, sha256, head.etag, f"SHA256 {head.checksum}") if same else None
        if _in_parts(head.etag) and head.checksum:
            # Of parts whose sizes are not told: ours are cut alike.
            checksum, _ = self._composite(_chunks(path, self._part_size(size)))
            if checksum.partition("-")[0] == head.checksum.partition("-")[0]:
                return Stored(key, size, sha256, head.etag, f"SHA256 {checksum}")
        elif _md5_of(head.etag) == _md5(path):
            return Stored(key, size, sha256, head.etag, "MD5")
        read, length = self.read(key)
        return Stored(key, size, sha256, head.etag, "read back") if (read, length) == (sha256, size) else None

    def confirmed_bytes(self, key: str, head: Head, data: bytes) -> Stored | None:
        """The object, if it is known to have these bytes without being read back."""
        digest = hashlib.sha256(data)
        if (head.size, head.mark) != (len(data), digest.hexdigest()):
            return None
        if head.checksum == _base64(digest.digest()):
            return Stored(key, len(data), digest.hexdigest(), head.etag, f"SHA256 {head.checksum}")
        if _md5_of(head.etag) == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return Stored(key, len(data), digest.hexdigest(), head.etag, "MD5")
        return None

    def put(self, key: str, path: Path, sha256: str, headers: Headers, *, only_new: bool = False) -> Stored:
        """Send a file whose SHA-256 is known. Returns when the service has confirmed it.

        `only_new`: nothing is replaced, where the service knows how not to. KeyTaken then says that something is there:
        another one's object, or our own of an attempt whose answer was lost.
        Raises PhotoError where the file is another one by now, PhotoTransient where the service got other bytes.
        """
        size = path.stat().st_size
        if size >= self._part_bytes:
            return self._put_in_parts(key, path, sha256, size, headers, only_new=only_new)
        return self.put_bytes(key, path.read_bytes(), headers, sha256, only_new=only_new)

    def put_bytes(self, key: str, data: bytes, headers: Headers, sha256: str = "", *, only_new: bool = False) -> Stored:
        """Send these bytes in one request, which replaces an object as a whole or not at all. For the rest as `put`."""
        digest = hashlib.sha256(data)
        if sha256 and digest.hexdigest() != sha256:
            raise _changed()
        given = {"Body": data, "Metadata": {MARK: digest.hexdigest()}, **headers.arguments()}
        given |= {"Bucket": self._service.bucket, "Key": key}
        answer = self._with_checksum(
            f"{key} could not be sent",
            lambda checksum: self._where_nothing_is("put_object", key, given | checksum, only_new=only_new),
            digest.digest(),
            md5=lambda: hashlib.md5(data, usedforsecurity=False).digest(),
        )

        def md5() -> str:
            return hashlib.md5(data, usedforsecurity=False).hexdigest()

        return self._believed(key, len(data), digest.hexdigest(), answer, _base64(digest.digest()), md5)

    def copy(
        self, source: str, etag: str, key: str, sha256: str, size: int, headers: Headers, *, only_new: bool = False
    ) -> Stored | None:
        """An object of ours under another key, without its bytes going over the line; None where that cannot be had.

        `etag`: of the source as its row knows it; one that was replaced since is not copied. `only_new`: as for `put`,
        but for KeyTaken: what is in the way is seen when the object is sent instead.
        """
        if size >= _MOST_COPIED:
            return None
        given = {
            "Bucket": self._service.bucket,
            "Key": key,
            "CopySource": {"Bucket": self._service.bucket, "Key": source},
            "CopySourceIfMatch": etag,
            "MetadataDirective": "REPLACE",
            "Metadata": {MARK: sha256},
            "ChecksumAlgorithm": "SHA256",
            **headers.arguments(),
        }
        try:
            with translated(f"{source} could not be copied"):
                answer = self._where_nothing_is("copy_object", key, given, only_new=only_new)
            result = answer.get("CopyObjectResult", {})
            if result.get("ChecksumSHA256") != _base64(bytes.fromhex(sha256)):
                return None  # It is sent over it.
            return Stored(key, size, sha256, str(result["ETag"]), f"SHA256 {result['ChecksumSHA256']}")
        except PhotoTransient:
            raise
        except SkicyclerunError as error:
            log.info("%s; it is sent instead", error)
            return None

    def remove(self, key: str) -> None:
        """The object is gone afterwards, whether it was there or not."""
        with translated(f"{key} could not be removed"):
            self._client.delete_object(Bucket=self._service.bucket, Key=key)

    def read(self, key: str) -> tuple[str, int]:
        """(SHA-256, size) of the object as it comes back over the line."""
        digest, size = hashlib.sha256(), 0
        with translated(f"{key} could not be read back"):
            body = self._client.get_object(Bucket=self._service.bucket, Key=key)["Body"]
            for chunk in body.iter_chunks(_MIB):
                digest.update(chunk)
                size += len(chunk)
        return digest.hexdigest(), size

    def get(self, key: str, *, at_most: int) -> bytes:
        """The bytes of a small object; of a larger one the first `at_most`, and one more."""
        with translated(f"{key} could not be read"):
            body = self._client.get_object(Bucket=self._service.bucket, Key=key)["Body"]
            with closing(body):
                return bytes(body.read(at_most + 1))

    # ── how it is sent ────────────────────────────────────────────────────────────────────────────────────────────

    def _part_size(self, size: int) -> int:
        return max(self._part_bytes, -(-size // _MOST_PARTS))

    def _put_in_parts(
        self, key: str, path: Path, sha256: str, size: int, headers: Headers, *, only_new: bool
    ) -> Stored:
        bucket = self._service.bucket
        given: dict[str, Any] = {"Metadata": {MARK: sha256}, **headers.arguments()}
        what = f"{key} could not be sent"
        begun = self._begun(what, key, given)
        upload = begun["UploadId"]
        try:
            whole = hashlib.sha256()
            parts: list[dict[str, Any]] = []
            digests = b""
            for number, chunk in enumerate(_chunks(path, self._part_size(size)), start=1):
                whole.update(chunk)
                digest = hashlib.sha256(chunk).digest()
                digests += digest
                checksum = self._sha256_arguments(digest)
                with translated(what):
                    answer = self._client.upload_part(
                        Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=chunk, **checksum
                    )
                _check(key, answer.get("ChecksumSHA256"), digest)
                part = {"PartNumber": number, "ETag": answer["ETag"]}
                parts.append(part | ({"ChecksumSHA256": _base64(digest)} if checksum else {}))
            if whole.hexdigest() != sha256:
                raise _changed()
            last = {"Bucket": bucket, "Key": key, "UploadId": upload, "MultipartUpload": {"Parts": parts}}
            with translated(what):
                try:
                    answer = self._where_nothing_is("complete_multipart_upload", key, last, only_new=only_new)
                except Exception as error:
                    if code_of(error) != "NoSuchUpload":
                        raise
                    answer = self._ended_before(key, sha256)
        except BaseException:
            with suppress(SkicyclerunError), translated("The parts stay until the next run"):
                self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
            raise
        expected = _base64(hashlib.sha256(digests).digest())
        return self._believed(key, size, sha256, answer, f"{expected}-{len(parts)}", None)

    def _ended_before(self, key: str, sha256: str) -> Mapping[str, Any]:
        """What an upload in parts has become that is ended already: its answer was lost, and the SDK asked again."""
        head = self.head(key)
        if head is None or head.mark != sha256:
            raise PhotoTransient(f"the upload of {key} in parts was given up by somebody else")
        return {"ETag": head.etag, "ChecksumSHA256": head.checksum}

    def _where_nothing_is(self, method: str, key: str, given: Mapping[str, Any], *, only_new: bool) -> Any:
        """Send, if `only_new` so that the service refuses it where the key has an object. Raises KeyTaken.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html; CopyObject since the end of 2025,
        which an older SDK does not know.
        """
        from botocore.exceptions import ClientError

        send, meta = getattr(self._client, method), self._client.meta
        model = meta.service_model.operation_model(meta.method_to_api_mapping[method])
        if not only_new or method in self._unconditional or "IfNoneMatch" not in model.input_shape.members:
            return send(**given)
        try:
            return send(**given, IfNoneMatch="*")
        except ClientError as error:
            if code_of(error) in ("PreconditionFailed", "412", "304"):  # 304: MinIO before 2024 (minio/minio#19442)
                raise KeyTaken(key) from error
            if not _does_not_know(error, "if-none-match"):
                raise
            answer = send(**given)  # It may have been another header that is not known there.
            log.warning("%s replaces what comes between listing and sending (%s)", self._service.place, code_of(error))
            self._unconditional.add(method)
            return answer

    def _begun(self, what: str, key: str, given: Mapping[str, Any]) -> Any:
        def begin(checksum: Mapping[str, Any]) -> Any:
            algorithm = {"ChecksumAlgorithm": "SHA256"} if "ChecksumSHA256" in checksum else {}
            return self._client.create_multipart_upload(Bucket=self._service.bucket, Key=key, **given, **algorithm)

        return self._with_checksum(what, begin, b"")

    def _sha256_arguments(self, digest: bytes) -> dict[str, Any]:
        if not self._knows_checksums:
            return {}
        return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _base64(digest)}

    def _with_checksum(
        self,
        what: str,
        send: Callable[[dict[str, Any]], Any],
        digest: bytes,
        *,
        md5: Callable[[], bytes] | None = None,
    ) -> Any:
        """Send with the SHA-256; to a service that does not know such headers, with the MD5 that all of them know."""
        from botocore.exceptions import ClientError

        with translated(what):
            if self._knows_checksums:
                try:
                    return send(self._sha256_arguments(digest))
                except ClientError as error:
                    if not _does_not_know(error, "checksum"):
                        raise
                    log.warning("%s keeps no SHA-256 checksums (%s); MD5 is used", self._service.place, code_of(error))
                    self._knows_checksums = False
            return send({"ContentMD5": _base64(md5())} if md5 is not None else {})

    def _believed(
        self,
        key: str,
        size: int,
        sha256: str,
        answer: Mapping[str, Any],
        expected: str,
        md5: Callable[[], str] | None,
    ) -> Stored:
        """What was sent, once the service has confirmed it. Raises PhotoTransient where it has not."""
        etag, checksum = str(answer["ETag"]), answer.get("ChecksumSHA256") or ""
        if not checksum and self._knows_checksums and md5 is None:
            head = self.head(key)  # Some do not say it in their answer to the last part.
            if head is None or head.size != size:
                raise PhotoTransient(f"{key} is not there, or not whole, after it was sent")
            etag, checksum = head.etag, head.checksum
        if checksum:
            # The number of parts is not always told.
            if checksum.partition("-")[0] != expected.partition("-")[0]:
                raise PhotoTransient(f"{key} arrived with other bytes than were sent: the SHA-256 differs")
            return Stored(key, size, sha256, etag, f"SHA256 {expected}")
        if md5 is not None and _md5_of(etag) == md5():
            return Stored(key, size, sha256, etag, "MD5")
        if self.read(key) != (sha256, size):
            raise PhotoTransient(f"{key} arrived with other bytes than were sent: it was read back and differs")
        return Stored(key, size, sha256, etag, "read back")

    def _composite(self, chunks: Iterator[bytes]) -> tuple[str, int]:
        digests = [hashlib.sha256(chunk).digest() for chunk in chunks]
        return f"{_base64(hashlib.sha256(b''.join(digests)).digest())}-{len(digests)}", len(digests)


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(size):
            yield chunk


def _changed() -> PhotoError:
    return PhotoError(
        "the file was changed since it was made, so that it is not sent; `skicyclerun verify --repair` puts it right"
    )


def _check(key: str, said: str | None, digest: bytes) -> None:
    if said and said != _base64(digest):
        raise PhotoTransient(f"a part of {key} arrived with other bytes than were sent: the SHA-256 differs")


def _does_not_know(error: Any, header: str) -> bool:
    """`InvalidArgument: Unsupported header 'x-amz-sdk-checksum-algorithm'` (boto/s3transfer#327), `NotImplemented`."""
    told = error.response.get("Error", {})
    said = f"{told.get('Message', '')} {told.get('Header', '')} {told.get('ArgumentName', '')}".lower()
    return code_of(error) == "NotImplemented" or (
        code_of(error) in ("InvalidArgument", "InvalidRequest") and header in said
    )


def _in_parts(etag: str) -> bool:
    return "-" in etag


def _md5_of(etag: str) -> str:
    return etag.strip('"').lower()


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
