"""Where archives go besides the archive folder: `cleanup.remote`, a bucket's URL or a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from skicyclerun.settings.absolute_paths import absolute

#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; other services are no stricter.
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: An object's key has at most 1024 bytes; an archive's name and its record's suffix need some.
_LONGEST_PREFIX: Final = 900


@dataclass(frozen=True, slots=True)
class ArchiveUrl:
    """A checked `cleanup.remote`: a bucket with a prefix, or a folder."""

    bucket: str = ""
    prefix: str = ""
    """Without slashes at its ends; may be empty."""
    folder: Path | None = None

    def __str__(self) -> str:
        """One spelling for each place; what rows of the database and people call it. Holds no secret."""
        if self.folder is not None:
            return str(self.folder)
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def archive_url(text: str, environ: Mapping[str, str]) -> ArchiveUrl:
    """The place that a text means: `s3://bucket/prefix`, `file:///folder`, `/folder`, `~/folder`.

    Raises ValueError with what is wrong. The sentence does not repeat the text: somebody may have put a key into it.
    """
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if not scheme:
        if not text.startswith(("/", "~")):
            raise ValueError("must be s3://bucket/prefix, file:///folder, or the absolute path of a folder")
        return ArchiveUrl(folder=absolute(text, environ, Path("/")))
    _refuse_secrets(text)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("is no URL") from None
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError("must have three slashes, file:///folder: folders of other machines are not reached so")
        return ArchiveUrl(folder=absolute(unquote(parts.path), environ, Path("/")))
    if scheme != "s3":
        raise ValueError("must begin with s3:// or file://, or be the absolute path of a folder")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError("names no bucket: s3://bucket/prefix, the bucket of 3 to 63 of a to z, 0 to 9, `-` and `.`")
    prefix = parts.path.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/") if prefix) or not prefix.isprintable():
        raise ValueError("has a prefix with an empty part, `.`, `..` or control characters")
    if len(prefix.encode()) > _LONGEST_PREFIX:
        raise ValueError(f"has a prefix of more than {_LONGEST_PREFIX} bytes")
    return ArchiveUrl(bucket=parts.netloc, prefix=prefix)


def check_endpoint(text: str) -> str:
    """The address of an S3 service, as it is. Raises ValueError, without repeating the text."""
    _refuse_secrets(text)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("must be the address of the service alone, https://host or https://host:port")
    return text.rstrip("/")


def _refuse_secrets(text: str) -> None:
    if "@" in text or "?" in text or "#" in text:
        raise ValueError(
            "holds `@`, `?` or `#`: neither a name and password nor a key belongs into it (it is not shown here). "
            "Credentials come from the environment, ~/.aws or the machine's role"
        )
