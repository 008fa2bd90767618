"""The objects that rows of ours speak for, in memory for the length of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from skicyclerun.bucket.keys import Claim, ClaimedKeys, KeyRule


class Kind(StrEnum):
    """What an object is."""

    PICTURE = "picture"
    ALBUM_INDEX = "album index"
    INDEX = "index"


class ObjectStatus(StrEnum):
    """What is known of an object."""

    CLAIMED = "claimed"
    """Its key is decided; what it holds was not confirmed, or is to be replaced."""
    THERE = "there"
    """Confirmed by the service, as its row says."""
    LEAVING = "leaving"
    """To be removed; that may have happened already."""


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An object that a row speaks for."""

    key: str
    wanted: str
    """The key before another file's made a number necessary."""
    kind: Kind
    folder: str
    """Of its album; empty for the index of all albums."""
    input: str
    """The file it was made of; empty for an index."""
    status: ObjectStatus = ObjectStatus.CLAIMED
    size: int | None = None
    sha256: str | None = None
    etag: str | None = None
    checksum: str = ""
    """What confirmed it last; it stays when the rest is not believed any more."""
    moved_from: str = ""
    """The key of an object of the same bytes, if this one took its place in the run at hand."""
    left: bool = False
    """What it was made of is no longer in the album."""
    made_of: str = ""
    """Of an album's index: as its row had it when it was read (`state/bucket_objects.py`)."""

    @property
    def was_there(self) -> bool:
        """Whether the service has ever confirmed an object of ours under this key."""
        return bool(self.checksum)

    @property
    def is_to_be_sent_again(self) -> bool:
        """Whether a verification has found it amiss, and nothing was confirmed since; the ETag is what it saw there."""
        return self.status is ObjectStatus.CLAIMED and self.was_there and self.sha256 is None

    @property
    def claimed(self) -> Claim:
        """How it came by its key."""
        return Claim(self.folder, self.input, self.wanted, self.key)


class KnownObjects:
    """By key, and the keys that files have. Written by the event loop's thread alone."""

    def __init__(self, rule: KeyRule, rows: Iterable[KnownObject] = ()) -> None:
        self.rule = rule
        self.by_key: dict[str, KnownObject] = {}
        self._by_content: dict[str, set[str]] = {}
        self._by_folder: dict[str, set[str]] = {}
        for row in rows:
            self.enter(row)
        self._keys = ClaimedKeys(rule, (row.claimed for row in self.by_key.values() if row.kind is not Kind.INDEX))

    def claim(self, folder: str, file_name: str) -> Claim:
        """The key of a file."""
        return self._keys.of(folder, file_name)

    def album_index(self, folder: str) -> KnownObject:
        """The index of an album, as it is known or is to be claimed."""
        claim = self._keys.of_index(folder)
        return KnownObject(claim.key, claim.wanted, Kind.ALBUM_INDEX, folder, "")

    def of_file(self, folder: str, file_name: str) -> KnownObject | None:
        """The object that a file's key has a row for."""
        found = self.by_key.get(self.claim(folder, file_name).key)
        return found if found is not None and (found.folder, found.input) == (folder, file_name) else None

    def in_folder(self, folder: str) -> list[KnownObject]:
        """All objects of an album."""
        return [self.by_key[key] for key in sorted(self._by_folder.get(folder, ()))]

    def holds(self, sha256: str) -> bool:
        """Whether any object has these bytes."""
        return bool(self._by_content.get(sha256))

    def with_content(self, sha256: str, but: str) -> KnownObject | None:
        """A confirmed object with these bytes under another key; the one that has left its album, if there is such."""
        found = [self.by_key[key] for key in sorted(self._by_content.get(sha256, ())) if key != but]
        there = [each for each in found if each.status is ObjectStatus.THERE]
        return min(there, key=lambda each: not each.left, default=None)

    def enter(self, row: KnownObject) -> None:
        """Put it in the place of what is known of its key."""
        self.forget(row.key)
        self.by_key[row.key] = row
        self._by_folder.setdefault(row.folder, set()).add(row.key)
        if row.sha256:
            self._by_content.setdefault(row.sha256, set()).add(row.key)

    def forget(self, key: str) -> None:
        """No row speaks for it any more."""
        row = self.by_key.pop(key, None)
        if row is not None:
            self._by_folder[row.folder].discard(key)
            self._by_content.get(row.sha256 or "", set()).discard(key)

    def change(self, key: str, **columns: object) -> KnownObject:
        """Enter the row with these columns changed."""
        row = replace(self.by_key[key], **columns)  # type: ignore[arg-type]
        self.enter(row)
        return row
