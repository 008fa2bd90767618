"""The one boundary to boto3: its clients, and its errors as sentences of ours.

boto3 is imported when a client is made. Credentials come by its own chain alone (environment, profiles, SSO, roles):
https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
"""

from __future__ import annotations

import base64
import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson

from skicyclerun.errors import BucketRefused, PhotoError, PhotoTransient

#: Tries of one request by the SDK, the first included. The frame tries a picture several times again, so few will do.
SDK_ATTEMPTS: Final = 3
_CONNECT_SECONDS: Final = 10.0

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; a HEAD has no body and its code is the status.
_REFUSED: Final = frozenset(
    {
        "301",
        "401",
        "403",
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthFailure",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidToken",
        "NoSuchBucket",
        "NoSuchDistribution",
        "PermanentRedirect",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_MAY_PASS: Final = frozenset(
    {
        "408",
        "429",
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyInvalidationsInProgress",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)


@dataclass(frozen=True, slots=True)
class Service:
    """Where a bucket is, and who asks. No secret is in it: those never leave the SDK."""

    bucket: str
    endpoint_url: str = ""
    """Empty: AWS."""
    region: str = ""
    profile: str = ""

    @property
    def place(self) -> str:
        """What its objects' rows know the bucket by."""
        return f"{self.endpoint_url.rstrip('/')}/{self.bucket}" if self.endpoint_url else f"s3://{self.bucket}"

    def client(self, name: str, *, at_once: int, read_seconds: float) -> Any:
        """A client of boto3 (`s3`; `cloudfront`, which is always AWS's), for several threads.

        Raises BucketRefused without credentials.
        """
        import boto3
        from botocore.config import Config
        from botocore.session import get_session

        with translated(f"Your credentials for {self.place} cannot be used"):
            known = get_session()
            known.register_component("data_loader", _descriptions())
            session = boto3.session.Session(
                profile_name=self.profile or None,
                region_name=self.region or ("us-east-1" if self.endpoint_url else None),
                botocore_session=known,
            )
            if session.get_credentials() is None:
                raise BucketRefused(
                    f"There are no credentials for {self.place}.",
                    next_step="`aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or "
                    "s3_deployment.aws_profile (docs/publishing.md). They never stand in the configuration.",
                )
            config = Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=read_seconds,
                max_pool_connections=max(at_once, 1),
                retries={"mode": "adaptive", "total_max_attempts": SDK_ATTEMPTS},
                # Checksums are given with each request, none is computed for it: trailing ones, the default since
                # boto3 1.36, are refused by many services that are not AWS (boto/boto3#4392).
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # Most services of others know buckets as the first part of the path only.
                s3={"addressing_style": "path"} if self.endpoint_url else {},
            )
            endpoint = self.endpoint_url if name == "s3" else ""
            client = session.client(name, endpoint_url=endpoint or None, config=config)
            # `Expect: 100-continue` costs a round trip for each object, to spare the bytes of one that is refused.
            # Hardly any is: that the bucket takes them was asked before.
            for operation in ("PutObject", "UploadPart"):
                client.meta.events.register(f"before-sign.s3.{operation}", _without_waiting)
                client.meta.events.register_first(f"choose-signer.s3.{operation}", _signer_of_known_bytes)
            return client


@cache
def _descriptions() -> Any:
    """What boto3 knows of the services, read from its files once: a second client then costs a tenth of the first.

    The files are three megabytes of JSON. The SDK's own reader takes 50 ms for them, orjson 15.
    """
    from botocore.loaders import JSONFileLoader
    from botocore.session import get_session

    class Files(JSONFileLoader):  # type: ignore[misc]
        def load_file(self, file_path: str) -> Any:
            for ending, opened in ((".json", open), (".json.gz", gzip.open)):
                with suppress(FileNotFoundError), opened(file_path + ending, "rb") as stream:
                    try:
                        return orjson.loads(stream.read())
                    except ValueError:  # somebody's own, in ~/.aws/models, may be laxer
                        return super().load_file(file_path)
            return None

    loader = get_session().get_component("data_loader")
    loader.file_loader = Files()
    # The SDK asks this for one reason: to refuse a service that it does not know. Its own answer opens a thousand
    # folders, 20 ms.
    loader.list_available_services = lambda type_name: [
        name for path in loader.search_paths if os.path.isdir(path) for name in os.listdir(path)
    ]
    return loader


def _without_waiting(request: Any, **_: object) -> None:
    """Before a request is signed: its body follows at once."""
    if "Expect" in request.headers:
        del request.headers["Expect"]


def _signer_of_known_bytes(signing_name: str, signature_version: Any, context: Any, **_: object) -> str | None:
    """For a request that would be signed as S3 does it by default: the signer that does not hash its body once more."""
    usual = signing_name == "s3" and signature_version in ("s3v4", "v4")
    return _known_bytes() if usual and not context["client_config"].auth_scheme_preference else None


@cache
def _known_bytes() -> str:
    """A name for signature version 4 of a body whose SHA-256 the request states: the same signature, without reading
    the body for it. That was a fifth of what a PUT of 300 kB costs here, over https too.
    """
    from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth

    class KnownBytes(S3SigV4Auth):  # type: ignore[misc]
        def payload(self, request: Any) -> Any:
            stated = request.headers.get("x-amz-checksum-sha256")
            return base64.b64decode(stated).hex() if stated else super().payload(request)

    name = "skicyclerun-s3v4"
    AUTH_TYPE_MAPS[name] = KnownBytes
    return name


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of the SDK within as ours, with `what` (could not be done) before them.

    BucketRefused: nothing can go on. PhotoTransient: it may pass. PhotoError: this object alone.
    """
    from boto3.exceptions import Boto3Error
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        raise _of_answer(what, error) from error
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.ProfileNotFound,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
        exceptions.NoRegionError,
        exceptions.ConfigParseError,
        exceptions.InvalidConfigError,
    ) as error:
        raise BucketRefused(f"{what}: {_one_line(str(error))}", next_step=_CREDENTIALS) from error
    except (
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        ResponseParserError,
    ) as error:
        raise PhotoTransient(f"{what}: {_one_line(str(error))}") from error
    except (exceptions.BotoCoreError, Boto3Error) as error:
        raise PhotoError(f"{what}: {_one_line(str(error))}") from error


_CREDENTIALS: Final = "Look at your credentials (`aws sts get-caller-identity`) and at s3_deployment.aws_profile."


def code_of(error: Any) -> str:
    """The service's code of a ClientError."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_absent(error: Any) -> bool:
    """Whether a ClientError says that there is no such object."""
    return code_of(error) in ("404", "NoSuchKey", "NotFound")


def _of_answer(what: str, error: Any) -> BucketRefused | PhotoError:
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = _one_line(str(error.response.get("Error", {}).get("Message", "")))
    sentence = f"{what}: {said or 'no reason is given'} ({code or status})"
    if code in _REFUSED:
        step = "Look at bucket_name, region and endpoint_url." if code in ("NoSuchBucket", "301") else _CREDENTIALS
        return BucketRefused(sentence, next_step=f"{step} docs/publishing.md has the least that must be allowed.")
    if code in _MAY_PASS or status >= 500 or status == 429:
        return PhotoTransient(sentence)
    return PhotoError(sentence)


def _one_line(text: str) -> str:
    """What a service says, fit for a line of a report; it is somebody else's text."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text[:300]).split())
    return shown.removesuffix(".")
