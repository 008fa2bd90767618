"""The groups of `export.everything`: all photos of a library by time or place, each group an album to all the rest.

An id says all that is needed to find the group's photos again: `group:month:2024-07`. Pure: no I/O.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final, Literal, get_args
from urllib.parse import unquote

from skicyclerun.models import Album, PhotoFacts, Place

GroupBy = Literal["year", "month", "day", "place"]

#: What the id of a group begins with, and that of no album.
PREFIX: Final = "group:"
_NONE: Final = ""
"""In an id: of photos whose date or place nobody knows. No name of a place is empty."""
_DIGITS: Final = {"year": 4, "month": 7, "day": 10}
"""Of the date in ISO 8601 that names a group."""


def is_group(album_id: str) -> bool:
    """Whether that is the id of a group rather than of an album."""
    return album_id.startswith(PREFIX)


def kind_of_group(album_id: str) -> GroupBy | None:
    """By what the photos of this group are put together; None for what is no id of a group."""
    kind = album_id.removeprefix(PREFIX).partition(":")[0]
    if not is_group(album_id) or kind not in get_args(GroupBy):
        return None
    return kind  # type: ignore[return-value]  # it is one of them


def group_id(facts: PhotoFacts, by: GroupBy, place: Place | None = None) -> str:
    """The group of a photo; `place` where it was taken, for those by place."""
    if by != "place":
        key = facts.date.date().isoformat()[: _DIGITS[by]] if facts.date is not None else _NONE
    else:
        names = [_escaped(name) for name in (place.country, place.city)] if place is not None else []
        key = "/".join(names).rstrip("/") if any(names) else _NONE
    return f"{PREFIX}{by}:{key}"


def _escaped(name: str) -> str:
    """Of a place, as part of an id: valid text without `/`."""
    clean = _composed(name).strip().encode("utf-8", "replace").decode().replace("\0", "")
    return clean.replace("%", "%25").replace("/", "%2F")


def title_of_group(album_id: str) -> str:
    """`2024-07`, `Switzerland, Zürich`, `Without a date`."""
    kind, _, key = album_id.removeprefix(PREFIX).partition(":")
    if key == _NONE:
        return "Without a place" if kind == "place" else "Without a date"
    return ", ".join(unquote(name) for name in key.split("/") if name) if kind == "place" else key


def grouped(photos: Iterable[tuple[PhotoFacts, str]]) -> dict[str, tuple[Album, list[str]]]:
    """The groups that these photos make, by id: each as an album, with the ids of its photos, the earliest first.

    `photos` are given with the group of each. The groups come in the order of their dates or names; those without any
    come last.
    """
    members: dict[str, list[PhotoFacts]] = {}
    for facts, album_id in photos:
        members.setdefault(album_id, []).append(facts)
    groups = {}
    for album_id in sorted(members, key=_place_in_list):
        items = sorted(members[album_id], key=_order)
        album = Album(album_id, title_of_group(album_id), photo_count=len(items))
        groups[album_id] = album, [facts.id for facts in items]
    return groups


def _order(facts: PhotoFacts) -> tuple[datetime, str, str]:
    taken = facts.date.replace(tzinfo=None) if facts.date is not None else datetime.max
    return taken, facts.original_filename, facts.id


def _place_in_list(album_id: str) -> tuple[bool, str, str]:
    title = title_of_group(album_id)
    return album_id.endswith(f":{_NONE}"), _composed(title).casefold(), album_id


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def is_gone(album_id: str, listed: Collection[str], *, groups: bool) -> bool:
    """Whether the source no longer has an album or a group, having `listed` these ids.

    A run that takes no `groups` says nothing of them: what earlier runs made of them stays.
    """
    return album_id not in listed and (groups or not is_group(album_id))
