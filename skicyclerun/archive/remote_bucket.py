"""A bucket of an S3 service as the place for archives, through obstore; credentials by boto3's own chain.

Every part of an upload carries its SHA-256, which the service compares (x-amz-checksum-sha256); what counts is that
all of it is read back afterwards. A record is put with `If-None-Match: *`, so that the service itself refuses a second
one (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). Ranges are read with `If-Match`.

obstore aborts an upload that fails; what a killed process left is found and aborted through boto3, which obstore has
no call for, before the same archive is uploaded again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from skicyclerun.archive.remote import RemoteFile
from skicyclerun.errors import RemoteError, RemoteFileGone, RemoteRefused, RemoteUnreachable
from skicyclerun.settings.archive_url import ArchiveUrl

if TYPE_CHECKING:
    from obstore.store import S3Store

log = logging.getLogger(__name__)

_EXTRA: Final = "`pip install 'skicyclerun[remote]'` brings what a bucket needs."
_PART: Final = 8 << 20
#: S3 takes 10,000 parts (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
_PARTS: Final = 9_000
_UPLOADS_AT_ONCE: Final = 4
_PIECE: Final = 8 << 20
_RETRIES: Final = 5
_CONNECT_SECONDS: Final = 10.0
#: For the list of unfinished uploads, without which a copy goes on.
_UPLOADS_SECONDS: Final = 20.0
#: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_OTHER_REGION: Final = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed"})
_NOT_LET_IN: Final = frozenset(
    {
        "AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
        "SignatureDoesNotMatch", "TokenRefreshRequired",
    }
)  # fmt: skip
#: What obstore's text holds when no answer came, and what that means; the first that fits.
_SIGNS: Final = (
    ("ConnectionRefused", "nobody answers at {host}"),
    ("dns error", "there is no host {host}"),
    ("failed to lookup", "there is no host {host}"),
    ("ertificate", "the certificate of {host} cannot be trusted"),
    ("TimedOut", "{host} does not answer in time"),
    ("kind: Timeout", "{host} does not answer in time"),
    ("kind: Connect", "no connection to {host} comes about"),
    ("kind: Body", "the connection to {host} broke off"),
    ("error sending request", "the connection to {host} broke off"),
)


class BucketRemote:
    """See `Remote`. Nothing is asked of the service until it is used. Raises RemoteError where the extra is missing."""

    def __init__(
        self,
        place: ArchiveUrl,
        *,
        endpoint_url: str | None,
        aws_profile: str | None,
        region: str | None,
        seconds: float,
    ) -> None:
        self.url = str(place)
        self.is_near = False
        self._place = place
        self._endpoint_url, self._profile, self._region = endpoint_url, aws_profile, region
        self._seconds = seconds
        self._client: Any = None
        self._endpoint = ""
        self._opened: S3Store | None = None

    def identify(self, known: str, *, make: bool) -> str:
        """A bucket is told by its name. Asks whether it answers."""
        obstore = self._library()
        with self._translated():
            next(iter(obstore.list(self._store(), chunk_size=1)), None)
        return ""

    def doubt(self, archives: Path) -> str:
        """None: a bucket is told by its name."""
        return ""

    def files(self) -> list[RemoteFile]:
        obstore = self._library()
        with self._translated():
            found = obstore.list_with_delimiter(self._store())["objects"]
            return [_described(item) for item in found]

    def look(self, name: str) -> RemoteFile | None:
        obstore = self._library()
        with suppress(RemoteFileGone), self._translated(name):
            return _described(obstore.head(self._store(), name))
        return None

    def create(self, name: str, data: bytes) -> bool:
        obstore = self._library()
        with self._translated(name):
            try:
                obstore.put(self._store(), name, data, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def write(self, name: str, token: str, blocks: Iterator[bytes], size: int) -> str:
        """At its name at once: an upload is seen when it is complete, not before."""
        obstore = self._library()
        self._abort_left_over(name)
        with self._translated(name):
            obstore.put(
                self._store(),
                name,
                blocks,
                attributes={"Content-Type": "application/zip"},
                use_multipart=True,
                chunk_size=max(_PART, size // _PARTS + 1),
                max_concurrency=_UPLOADS_AT_ONCE,
            )
        return name

    def unpublished(self, name: str, token: str) -> str:
        return name

    def discard(self, name: str, token: str) -> None:
        self._library()
        with self._translated():
            self._abort_left_over(name)

    def publish(self, written: str, name: str) -> None:
        return

    def read(self, file: RemoteFile, offset: int, count: int) -> bytes:
        obstore = self._library()
        with self._translated(file.name):
            asked = {"range": (offset, offset + count), "if_match": file.version}
            return bytes(obstore.get(self._store(), file.name, options=asked).bytes())

    def blocks(self, file: RemoteFile) -> Iterator[bytes]:
        for offset in range(0, file.size, _PIECE):
            yield self.read(file, offset, min(_PIECE, file.size - offset))

    def delete(self, name: str) -> None:
        obstore = self._library()
        with suppress(RemoteFileGone), self._translated(name):
            obstore.delete(self._store(), name)

    # ── the libraries ─────────────────────────────────────────────────────────────────────────────────────────────

    def _library(self) -> Any:
        """obstore. Raises RemoteError where the extra is not installed."""
        try:
            import boto3  # noqa: F401
            import obstore
            import obstore.exceptions
        except ImportError as error:
            raise RemoteRefused(f"{self.url} needs {error.name}, which is not installed.", next_step=_EXTRA) from error
        return obstore

    def _store(self) -> S3Store:
        if self._opened is None:
            with self._translated():
                self._opened = self._open()
        return self._opened

    def _open(self) -> S3Store:
        import boto3
        from botocore.config import Config
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        session = boto3.Session(profile_name=self._profile, region_name=self._region)
        if session.get_credentials() is None:
            raise RemoteRefused(
                f"There are no credentials for {self.url}.",
                next_step="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws in "
                "`cleanup.remote_service.aws_profile`.",
            )
        timing = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=min(_UPLOADS_SECONDS, self._seconds),
            retries={"mode": "standard", "total_max_attempts": 2},
            s3={"us_east_1_regional_endpoint": "regional"},  # the address of FIPS there is derived from it
        )
        self._client = session.client("s3", endpoint_url=self._endpoint_url, config=timing)
        # What boto3 makes of the configuration, the environment, ~/.aws and the region: endpoints of a VPC, of FIPS and
        # of China's partition are asked at the very address that is meant. All of them take the bucket in the path.
        self._endpoint = endpoint = str(self._client.meta.endpoint_url).rstrip("/")
        region = session.region_name or "us-east-1"
        return S3Store(
            self._place.bucket,
            prefix=self._place.prefix or None,
            region=region,
            endpoint=endpoint,
            virtual_hosted_style_request=False,
            checksum_algorithm="SHA256",
            conditional_put="etag",
            credential_provider=Boto3CredentialProvider(session),
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "timeout": timedelta(seconds=self._seconds),
                "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, self._seconds)),
            },
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=self._seconds),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )

    def _abort_left_over(self, name: str) -> None:
        """Uploads of this very archive that a killed process left; its name is ours. Not a reason to fail."""
        from botocore.exceptions import BotoCoreError, ClientError

        self._store()
        key = f"{self._place.prefix}/{name}".lstrip("/")
        try:
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._place.bucket, Prefix=key):
                for upload in page.get("Uploads", ()):
                    if upload["Key"] == key:
                        self._client.abort_multipart_upload(
                            Bucket=self._place.bucket, Key=key, UploadId=upload["UploadId"]
                        )
        except (BotoCoreError, ClientError) as error:
            log.warning("unfinished uploads of %s could not be looked for: %s", key, error)

    @contextmanager
    def _translated(self, name: str = "") -> Iterator[None]:
        """The one boundary to obstore and botocore. `name`: of what is asked for. Raises RemoteError alone for what is
        theirs."""
        from botocore.exceptions import BotoCoreError
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError as error:
            if error.errno is not None:
                raise  # of a file here
            if "NoSuchBucket" in str(error):
                raise self._error(str(error)) from error
            raise RemoteFileGone(f"{name} is no longer in {self.url}.") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise self._error(str(error), refused=True) from error
        except exceptions.PreconditionError as error:
            raise RemoteError(f"{name or 'An archive'} in {self.url} was replaced while it was read.") from error
        except exceptions.BaseError as error:
            raise self._error(str(error)) from error
        except BotoCoreError as error:
            words = " ".join(str(error).split())
            raise RemoteRefused(f"{self.url} cannot be used ({words}).") from error
        except ValueError as error:  # obstore's, of a configuration that it cannot read
            log.warning("obstore: %s", error)
            raise RemoteRefused(f"{self.url} cannot be used: its address or settings are not understood.") from error

    def _error(self, text: str, *, refused: bool = False) -> RemoteError:
        """One plain sentence for what obstore says: a line for people, the answer's XML, and a dump of Rust's."""
        log.info("%s: %s", self.url, text.partition("\n")[0])
        code = _first(r"<Code>(\w+)</Code>", text)
        status = int(_first(r"status code: (\d{3})", text) or 0)
        if code == "NoSuchBucket":
            bucket = self._place.bucket
            return RemoteRefused(f"There is no bucket {bucket}.", next_step=f"Make {bucket}, or name another.")
        if code in _OTHER_REGION or status in (301, 307):
            return RemoteRefused(
                f"The bucket {self._place.bucket} lies in another region than is asked.",
                next_step="Name its region in `cleanup.remote_service.region`.",
            )
        if code == "RequestTimeTooSkewed":
            return RemoteRefused(f"{self.url} refuses: the clock of this machine is wrong.", next_step="Set the clock.")
        if refused or code in _NOT_LET_IN:
            expired = " They have expired." if code in ("ExpiredToken", "TokenRefreshRequired") else ""
            return RemoteRefused(
                f"{self.url} refuses these credentials.{expired}",
                next_step="Do they allow to list, read and write there?",
            )
        if code == "BadDigest":
            return RemoteError(f"{self.url} received other bytes than were sent (its checksum differs).")
        if code == "InvalidObjectState":
            return RemoteError(f"{self.url} keeps it where it must be asked for before it can be read (Glacier).")
        if status and 400 <= status < 500 and status not in (408, 429):
            return RemoteError(f"{self.url} refuses what was asked of it ({code or f'HTTP {status}'}).")
        return RemoteUnreachable(self.url, self._silence(text, code, status))

    def _silence(self, text: str, code: str, status: int) -> str:
        """Why no answer of any use came."""
        host = urlsplit(self._endpoint).netloc
        if status:
            return f"the service is busy or out of order ({code or f'HTTP {status}'})"
        for sign, words in _SIGNS:
            if sign in text:
                return words.format(host=host)
        return "the service does not answer as it should"


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found is not None else ""


def _described(item: Any) -> RemoteFile:
    return RemoteFile(str(item["path"]), int(item["size"]), str(item["e_tag"] or ""))
