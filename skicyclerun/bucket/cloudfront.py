"""What a CDN is told to forget: paths of what has changed, in batches that CloudFront takes.

Limits: https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/InvalidationLimits.html
3,000 paths may be in progress at once, and 15 with a wildcard besides; `*` stands at the end of a path only.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import unquote

from skicyclerun.bucket.keys import url_path
from skicyclerun.bucket.service import translated

MOST_PATHS: Final = 3000
#: Between two looks at an invalidation; one takes a minute or so.
PAUSE_SECONDS: Final = 5.0
#: After which nobody waits any longer: it goes on by itself.
PATIENCE_SECONDS: Final = 900.0


def paths_of(keys: Iterable[str], patterns: Sequence[str], origin_path: str = "") -> list[str]:
    """The paths to be forgotten, each once, for the keys that changed.

    A pattern (`/albums/*`, as people write it) stands for all keys below it and is named only if one of them changed;
    what no pattern covers is named itself. `origin_path`: what the distribution puts before the paths that it is asked
    for.
    """
    found: dict[str, None] = {}
    before = origin_path.strip("/")
    patterns = [meant(pattern) for pattern in patterns]
    for key in keys:
        if before and not key.startswith(f"{before}/"):
            continue  # This distribution does not show it.
        path = f"/{url_path(key.removeprefix(f'{before}/') if before else key)}"
        covering = next((each for each in patterns if _covers(each, path)), path)
        found.setdefault(covering)
    return list(found)


def meant(pattern: str) -> str:
    """A pattern as the addresses of pages have it, which is how CloudFront compares: percent-encoded like the keys.

    What is encoded already is taken as it is; a `%` without two hexadecimal digits behind it is the character itself.
    """
    wild = pattern.endswith("*")
    path = pattern.removeprefix("/").removesuffix("*")
    try:
        path = unquote(path, errors="strict")
    except UnicodeDecodeError:
        return pattern  # encodes no text; somebody has a reason
    return f"/{url_path(unicodedata.normalize('NFC', path))}{'*' if wild else ''}"


def addresses_begin(root: str, origin_path: str = "") -> str | None:
    """What the address of every key below `root` (`albums/`; empty: the whole bucket) begins with; None: the
    distribution shows none of them.
    """
    before = origin_path.strip("/")
    if not before:
        return f"/{url_path(root)}"
    if root.startswith(f"{before}/"):
        return f"/{url_path(root.removeprefix(f'{before}/'))}"
    return "/" if f"{before}/".startswith(root) else None


def may_match(pattern: str, beginning: str) -> bool:
    """Whether an address with this beginning could ever match the pattern."""
    path = meant(pattern)
    if path.endswith("*"):
        return path[:-1].startswith(beginning) or beginning.startswith(path[:-1])
    return path.startswith(beginning) and not path.endswith("/")


def _covers(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


class Distribution:
    """One distribution of CloudFront. Every method blocks and raises as `translated` says."""

    def __init__(self, client: Any, identity: str) -> None:
        self._client = client
        self._id = identity

    def invalidate(self, reference: str, paths: Sequence[str]) -> str:
        """Have these paths forgotten; returns the invalidation's id. The same `reference` again is the same request."""
        with translated(f"CloudFront did not take the paths of {self._id} that changed"):
            answer = self._client.create_invalidation(
                DistributionId=self._id,
                InvalidationBatch={
                    "Paths": {"Quantity": len(paths), "Items": list(paths)},
                    "CallerReference": reference,
                },
            )
        return str(answer["Invalidation"]["Id"])

    def is_completed(self, invalidation: str) -> bool:
        """Whether every edge has forgotten them."""
        with translated(f"CloudFront does not say how far it is with {self._id}"):
            answer = self._client.get_invalidation(DistributionId=self._id, Id=invalidation)
        return str(answer["Invalidation"]["Status"]).lower() == "completed"
