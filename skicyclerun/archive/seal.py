"""The comment at the end of an archive: when it was written, when it was proved, and a seal over its skeleton.

    skicyclerun archive 1
    id 5b0c…
    created 2026-11-22T16:15:00Z
    files 500 bytes 1470000000
    proved 2026-11-22T16:15:04Z
    seal 9f86d081…

The manifest holds the hashes of the members' contents; the seal holds everything else, so that no byte of the file can
change unnoticed: SHA-256 over every local header (with the hash of the compressed bytes where a member is deflated),
the central directory, the end records and this comment up to the seal. The comment has the same length before and
after the proof (`proved` is dashes until then): proving rewrites it in place.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from skicyclerun.archive.zip_records import DEFLATED, ZipEntry, local_header
from skicyclerun.errors import ArchiveError

if TYPE_CHECKING:
    from hashlib import _Hash

_NOT_YET: Final = "-" * 20
_COMMENT: Final = re.compile(
    rb"skicyclerun archive 1\nid ([0-9A-Za-z_-]{1,64})\ncreated (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\n"
    rb"files (0|[1-9]\d{0,11}) bytes (0|[1-9]\d{0,17})\nproved (-{20}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\n"
    rb"seal ([0-9a-f]{64})\n"
)


@dataclass(frozen=True, slots=True)
class Seal:
    id: str
    created: str
    """ISO 8601, UTC, `Z`."""
    files: int
    content_bytes: int
    proved: str | None = None
    """When every member had been read back; None until then."""
    digest: str = "0" * 64

    def _unsealed(self) -> bytes:
        return (
            f"skicyclerun archive 1\nid {self.id}\ncreated {self.created}\n"
            f"files {self.files} bytes {self.content_bytes}\nproved {self.proved or _NOT_YET}\nseal "
        ).encode("ascii")

    def comment(self) -> bytes:
        comment = self._unsealed() + self.digest.encode("ascii") + b"\n"
        if not _COMMENT.fullmatch(comment):
            raise ValueError(f"{comment!r} is no seal")
        return comment

    def sealed(self, skeleton: _Hash) -> Seal:
        """This seal with the digest that belongs to the skeleton."""
        hasher = skeleton.copy()
        hasher.update(self._unsealed())
        return replace(self, digest=hasher.hexdigest())


def parse_seal(comment: bytes) -> Seal:
    """Raises ArchiveError for a comment that is no seal."""
    found = _COMMENT.fullmatch(comment)
    if found is None:
        raise ArchiveError("It is no archive of skicyclerun's (or its end is damaged): it carries no seal.")
    id_, created, files, size, proved, digest = (group.decode("ascii") for group in found.groups())
    return Seal(id_, created, int(files), int(size), None if proved == _NOT_YET else proved, digest)


def envelope(entry: ZipEntry, compressed_sha256: bytes) -> bytes:
    """What the seal holds of one member; `compressed_sha256` counts for deflated members only."""
    hasher = hashlib.sha256(local_header(entry))
    if entry.method == DEFLATED:
        hasher.update(compressed_sha256)
    return hasher.digest()
