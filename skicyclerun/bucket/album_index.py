"""`index.json` of an album, and of all albums: what a page needs to show them. Pure; the same facts, the same bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urljoin

import orjson

from skicyclerun.bucket.keys import url_path

FORMAT: Final = 1
_TEXTS: Final = ("title", "description", "date_taken", "date_taken_utc")
#: Of a place: how a town is found. A street, or the name of a house, is a position.
_OF_PLACE: Final = ("city", "county", "state", "country", "country_code")
_ALL_OF_PLACE: Final = ("formatted", "name", "road", *_OF_PLACE)


@dataclass(frozen=True, slots=True)
class IndexedPicture:
    """A picture that is in the bucket."""

    key: str
    size: int
    sha256: str
    width: int | None
    height: int | None
    facts: Mapping[str, Any]
    """With the keys of the photo's entry in the catalog."""


@dataclass(frozen=True, slots=True)
class IndexedAlbum:
    """An album whose index is in the bucket."""

    title: str
    index_key: str
    pictures: int


def album_index(title: str, key: str, pictures: Sequence[IndexedPicture], *, with_positions: bool) -> bytes:
    """The index of an album under this key. Addresses are relative to it."""
    found = [_picture(key, each, with_positions=with_positions) for each in pictures]
    return _text({"format": FORMAT, "album": title, "pictures": found})


def album_index_without(text: bytes, keys: Collection[str]) -> tuple[bytes, int] | None:
    """An album's index without the pictures under these keys, and how many it names; None where it is none of ours."""
    try:
        index = orjson.loads(text)
        index["pictures"] = [each for each in index["pictures"] if each["key"] not in keys]
    except (ValueError, KeyError, TypeError):
        return None
    return _text(index), len(index["pictures"])


def pictures_by_index(key: str, text: bytes) -> dict[str, int]:
    """What the index of all albums says: the key of an album's index → how many pictures. Empty for anything else."""
    try:
        return {
            unquote(urljoin(f"/{url_path(key)}", each["href"])).lstrip("/"): int(each["pictures"])
            for each in orjson.loads(text)["albums"]
        }
    except (ValueError, KeyError, TypeError):
        return {}


def albums_index(key: str, albums: Sequence[IndexedAlbum]) -> bytes:
    """The index of all albums."""
    found = [
        {"album": each.title, "href": relative_address(key, each.index_key), "pictures": each.pictures}
        for each in albums
    ]
    return _text({"format": FORMAT, "albums": found})


def keys_named(index: bytes) -> set[str]:
    """The keys of the pictures that an album's index names. Raises ValueError where it is none."""
    return _named(index, "pictures", "key")


def addresses_named(index: bytes) -> set[str]:
    """The addresses of the albums' indexes, as the index of all albums writes them. Raises ValueError."""
    return _named(index, "albums", "href")


def _named(index: bytes, items: str, name: str) -> set[str]:
    value = orjson.loads(index)
    found = value.get(items) if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"holds no {items}")
    return {str(each.get(name)) for each in found}


def _picture(index_key: str, picture: IndexedPicture, *, with_positions: bool) -> dict[str, Any]:
    facts = picture.facts
    said: dict[str, Any] = {
        "href": relative_address(index_key, picture.key),
        "key": picture.key,
        "size": picture.size,
        "sha256": picture.sha256,
        "width": picture.width,
        "height": picture.height,
    }
    said |= {name: facts.get(name) for name in _TEXTS}
    place = facts.get("location")
    if isinstance(place, Mapping):
        names = _ALL_OF_PLACE if with_positions else _OF_PLACE
        said["place"] = {name: place[name] for name in names if isinstance(place.get(name), str)}
    gps = facts.get("gps")
    if with_positions and isinstance(gps, Mapping):
        said["position"] = {name: gps[name] for name in ("lat", "lon", "altitude", "heading") if name in gps}
    return {name: value for name, value in said.items() if value not in (None, "", {})}


def relative_address(index_key: str, key: str) -> str:
    """The address of `key` as a page beside the index writes it."""
    here, there = index_key.split("/")[:-1], key.split("/")
    shared = 0
    while shared < len(here) and shared < len(there) - 1 and here[shared] == there[shared]:
        shared += 1
    path = "../" * (len(here) - shared) + url_path("/".join(there[shared:]))
    return f"./{path}" if ":" in path.split("/")[0] else path


def _text(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"
