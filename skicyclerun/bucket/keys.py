"""Keys of objects: safe in a URL, the same every time, never two that somebody could take for one. Pure, no I/O.

S3 takes any text of up to 1,024 bytes of UTF-8 as a key; browsers, CDNs and tools do not. A key of ours is NFC, begins
with the prefix, has no control characters and no empty parts, and differs from every other one of ours by more than
case or Unicode form: a bucket that is synced to a disk must not lose a file there.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from skicyclerun.files.naming import collision_key, folder_name

#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
MAX_KEY_BYTES: Final = 1024
#: Of the prefix: two names of 255 bytes, two slashes and a number have to fit behind it.
MAX_PREFIX_BYTES: Final = 400
INDEX_NAME: Final = "index.json"

# What RFC 1738 calls safe or reserved stays as it is, and `~`, which browsers send as it is: a CDN knows an object by
# the bytes of the address that was asked for. `*` is a wildcard to CloudFront and `?` ends the path.
_PLAIN_IN_URL: Final = "/$-_.+!'(),;:@=&~"


def clean_prefix(text: str) -> str:
    """The prefix without slashes around it, NFC. Raises ValueError with what is wrong with it."""
    prefix = unicodedata.normalize("NFC", text).strip("/")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in prefix):
        raise ValueError("holds a control character")
    if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise ValueError("has an empty part, `.` or `..` between its slashes")
    if "*" in prefix or "\\" in prefix:
        raise ValueError("holds `*` or a backslash, which a CDN and some services take for something else")
    if len(prefix.encode()) > MAX_PREFIX_BYTES:
        raise ValueError(f"is longer than {MAX_PREFIX_BYTES} bytes")
    return prefix


def url_path(key: str) -> str:
    """The key as a page's address has it, without the slash before it."""
    return quote(key, safe=_PLAIN_IN_URL)


@dataclass(frozen=True, slots=True)
class KeyRule:
    """What keys a configuration means."""

    prefix: str
    """As `clean_prefix` gives it; empty for the whole bucket."""
    by_album: bool
    """Whether the album's folder is part of the key."""

    @property
    def root(self) -> str:
        """What every key begins with: the prefix and its slash, or nothing."""
        return f"{self.prefix}/" if self.prefix else ""

    def wanted(self, folder: str, file_name: str) -> str:
        """The key of a file, if no other one has it."""
        album = f"{folder_name(folder)}/" if self.by_album else ""
        return f"{self.root}{album}{folder_name(file_name)}"

    def album_index(self, folder: str) -> str:
        """The key of an album's index, if no other has it; it has a folder also where the pictures have none."""
        return f"{self.root}{folder_name(folder)}/{INDEX_NAME}"

    @property
    def index(self) -> str:
        """The key of the index of all albums."""
        return self.root + INDEX_NAME

    def holds(self, key: str) -> bool:
        """Whether the key lies below the prefix: nothing else is ever written or removed."""
        return key.startswith(self.root) and len(key) > len(self.root)

    def made(self, claim: Claim) -> bool:
        """Whether the key was given under this very prefix, not under one above, below or of other case. That pictures
        lay in album folders, or did not, makes no difference.
        """
        if not claim.input:
            return claim.wanted == self.album_index(claim.folder)
        either = (self, replace(self, by_album=not self.by_album))
        return any(claim.wanted == rule.wanted(claim.folder, claim.input) for rule in either)


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that was given to a file, or to an album's index, once."""

    folder: str
    input: str
    """Empty: the album's index."""
    wanted: str
    key: str


class ClaimedKeys:
    """Keys by file, decided once and kept; for several threads.

    An album's folder in the bucket is decided like a file's name: no other album's, and no file's beside it, differs
    from it by case or Unicode form alone.
    """

    def __init__(self, rule: KeyRule, claims: Iterable[Claim] = ()) -> None:
        self._rule = rule
        self._deciding = threading.Lock()
        self._by_file: dict[tuple[str, str], list[Claim]] = {}
        self._taken: dict[str, tuple[str, str]] = {}
        self._next: dict[str, int] = {}
        self._decided: dict[tuple[str, str], Claim] = {}
        self._folders: dict[str, str] = {}
        """Album → what its folder in the bucket is called."""
        self._beside: dict[str, str] = {collision_key(INDEX_NAME): ""}
        """Names right below the prefix → the album whose folder it is; empty for a file."""
        for claim in claims:
            self._enter(claim)

    def _enter(self, claim: Claim) -> None:
        self._by_file.setdefault((claim.folder, claim.input), []).append(claim)
        self._taken[collision_key(claim.key)] = (claim.folder, claim.input)
        if not self._rule.holds(claim.key):
            return
        first, slash, _ = claim.key[len(self._rule.root) :].partition("/")
        self._beside.setdefault(collision_key(first), claim.folder if slash else "")
        if slash and claim.folder not in self._folders and self._rule.made(claim):
            self._folders[claim.folder] = first

    def of(self, folder: str, file_name: str) -> Claim:
        """The key of this file: the one it has, or the one it is to have from now on."""
        file = (folder, file_name)
        decided = self._decided.get(file)
        if decided is None:
            with self._deciding:
                decided = self._decided.get(file) or self._decide(file)
                self._decided[file] = decided
        return decided

    def of_index(self, folder: str) -> Claim:
        """The key of this album's index."""
        return self.of(folder, "")

    def _decide(self, file: tuple[str, str]) -> Claim:
        folder, name = file
        wanted = self._rule.wanted(*file) if name else self._rule.album_index(folder)
        for claim in self._by_file.get(file, ()):
            if claim.wanted == wanted and self._rule.holds(claim.key):
                return claim
        if not name:
            claim = Claim(*file, wanted, f"{self._rule.root}{self._folder_of(folder)}/{INDEX_NAME}")
            self._enter(claim)
            return claim
        stem, suffix = PurePosixPath(wanted).stem, PurePosixPath(wanted).suffix
        above = f"{self._rule.root}{self._folder_of(folder)}/" if self._rule.by_album else self._rule.root
        number = self._next.get(wanted, 1)
        while True:
            last = f"{stem}{f' ({number})' if number > 1 else ''}{suffix}"
            key = above + last
            number += 1
            is_index = collision_key(last) == INDEX_NAME
            is_folder = not self._rule.by_album and self._beside.get(collision_key(last), "") != ""
            if not is_index and not is_folder and self._taken.get(collision_key(key), file) == file:
                break
        self._next[wanted] = number
        claim = Claim(*file, wanted, key)
        self._enter(claim)
        return claim

    def _folder_of(self, album: str) -> str:
        found = self._folders.get(album)
        number = 1
        while found is None:
            name = folder_name(album) + (f" ({number})" if number > 1 else "")
            number += 1
            if self._beside.get(collision_key(name), album) == album:
                found = self._folders[album] = name
                self._beside[collision_key(name)] = album
        return found
