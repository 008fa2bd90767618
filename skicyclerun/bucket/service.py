"""The one boundary to boto3: its clients, and its errors as sentences of ours.

boto3 is imported when a client is made. Credentials come by its own chain alone (environment, profiles, SSO, roles):
https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
"""

from __future__ import annotations

import base64
import gzip
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson

from skicyclerun.errors import BucketRefused, PhotoError, PhotoTransient

#: Tries of one request by the SDK, the first included. The frame tries a picture several times again, so few will do.
SDK_ATTEMPTS: Final = 3
_CONNECT_SECONDS: Final = 10.0

_LEAST: Final = "docs/publishing.md has the least that must be allowed."
_CREDENTIALS: Final = "Look at your credentials (`aws sts get-caller-identity`) and at s3_deployment.aws_profile."
_RIGHTS: Final = f"Look at what these credentials may do there; {_LEAST}"
_PLACE: Final = "Look at s3_deployment.bucket_name, region and endpoint_url."
_KEY: Final = (
    "Look which access key is taken (`aws configure list`, s3_deployment.aws_profile), and whether it is one of the "
    "service at s3_deployment.endpoint_url."
)
_SECRET: Final = (
    "The secret is not that of the access key: set both anew (`aws configure`, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY in the environment)."
)
_CLOCK: Final = "Set the clock of this machine: signatures hold for 15 minutes."
_SESSION: Final = "Log in anew (`aws sso login`), or renew AWS_SESSION_TOKEN."
_TLS: Final = (
    "Look at s3_deployment.endpoint_url: whether https is spoken there, and with a certificate that this machine "
    "trusts (AWS_CA_BUNDLE names others)."
)

#: What no further try can mend, and what does.
#: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; a HEAD has no body and its code is the status.
_REFUSED: Final[Mapping[str, str]] = {
    "301": _PLACE,
    "307": _PLACE,
    "401": f"{_CREDENTIALS} {_LEAST}",
    "403": f"{_CREDENTIALS} {_LEAST}",
    "AccessDenied": _RIGHTS,
    "AccountProblem": "Ask the service what is wrong with the account.",
    "AllAccessDisabled": "Ask the service what is wrong with the account.",
    "AuthFailure": _CREDENTIALS,
    "AuthorizationHeaderMalformed": _PLACE,
    "ExpiredToken": _SESSION,
    "ExpiredTokenException": _SESSION,
    "InvalidAccessKeyId": _KEY,
    "InvalidClientTokenId": _KEY,
    "InvalidSecurity": _CREDENTIALS,
    "InvalidToken": _SESSION,
    "NoSuchBucket": _PLACE,
    "NoSuchDistribution": "Look at s3_deployment.cloudfront.distribution_id.",
    "PermanentRedirect": _PLACE,
    "RequestTimeTooSkewed": _CLOCK,
    "SignatureDoesNotMatch": _SECRET,
    "TokenRefreshRequired": _SESSION,
}
_MAY_PASS: Final = frozenset(
    {
        "408",
        "429",
        "BadDigest",
        "ConditionalRequestConflict",
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
            client.meta.events.register_first("needs-retry.s3.HeadBucket", _without_asking_where_for_ever)
            for operation in ("PutObject", "CopyObject"):
                client.meta.events.register(f"needs-retry.s3.{operation}", _once_more_after_a_conflict)
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


def _without_asking_where_for_ever(request_dict: Any, response: Any, **_: object) -> None:
    """After a HEAD of the bucket. Told that the bucket is in another region, and not in which, the SDK asks by a HEAD
    of the bucket, and by another one after that, until Python's stack is full.
    """
    if response is not None and "x-amz-bucket-region" not in response[1]["ResponseMetadata"].get("HTTPHeaders", {}):
        request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _once_more_after_a_conflict(response: Any, attempts: int, **_: object) -> float | None:
    """Seconds until an object is sent again that is to be a new one, where another request for its key was under way;
    the SDK itself does not try that again.
    """
    conflict = response is not None and response[1].get("Error", {}).get("Code") == "ConditionalRequestConflict"
    return 1.0 if conflict and attempts < SDK_ATTEMPTS else None


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
    except exceptions.SSLError as error:
        raise PhotoTransient(f"{what}: {_one_line(str(error))}", next_step=_TLS) from error
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


def code_of(error: BaseException) -> str:
    """The service's code, where it has answered; empty for all else, such as an error of the line."""
    answer = getattr(error, "response", None)  # errors of the line have one too, and it is None
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def is_absent(error: BaseException) -> bool:
    """Whether the service has answered that there is no such object."""
    return code_of(error) in ("404", "NoSuchKey", "NotFound")


def is_bare_refusal(error: BaseException) -> bool:
    """Whether the answer to a HEAD refuses it. Why would stand in its body, which it does not have."""
    return code_of(error) in ("301", "307", "400", "401", "403")


def _of_answer(what: str, error: Any) -> BucketRefused | PhotoError:
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = _one_line(str(error.response.get("Error", {}).get("Message", "")))
    sentence = f"{what}: {said or 'no reason is given'} ({code or status})"
    if code in _REFUSED:
        return BucketRefused(sentence, next_step=_REFUSED[code])
    if code in _MAY_PASS or status >= 500 or status == 429:
        return PhotoTransient(sentence)
    return PhotoError(sentence)


def _one_line(text: str) -> str:
    """What a service says, fit for a line of a report; it is somebody else's text."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text[:300]).split())
    return shown.removesuffix(".")
