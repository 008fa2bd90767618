"""What becomes of an entry whose photo is in another place now: what other programs said goes along with it.

Pure. Which former entry belongs to which file is decided from rows (`state/former_entries.py`); when the file is
written, in `master_json.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from skicyclerun.catalog.entries import (
    CatalogRecord,
    Record,
    is_ours,
    later_time,
    merged_entry,
)
from skicyclerun.models import Component

#: Keys of our entries that are written from rows, and so follow by themselves.
_WRITTEN_FROM_ROWS: Final = frozenset(
    {
        "file_name",
        "file_path",
        "album_name",
        "source",
        "source_path",
        "original_path",
        "made_by",
        "stage_results",
        "files_beside",
    }
)
#: Keys by which an entry points to another one.
_POINTERS: Final = ("source_path", "original_path", "derivatives")


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A former entry, and the file whose entry takes over what other programs said in it."""

    row_id: int
    """Of the former entry."""
    old_path: str
    new_path: str
    entry: str
    """The former entry, as JSON; empty where there was none, and only what points to it follows."""


def photo_of(entry: object) -> tuple[str, str]:
    """(photo id, component) as an entry says them; empty where it does not."""
    source = entry.get("source") if isinstance(entry, dict) else None
    photo_id = source.get("photo_id") if isinstance(source, dict) else None
    if not isinstance(source, dict) or not isinstance(photo_id, str):
        return "", ""
    component = source.get("component", Component.STILL.value)
    return photo_id, component if isinstance(component, str) else ""


def stage_of(entry: object) -> str:
    """The stage of ours that made the file, as its entry says; empty for any other."""
    made_by = entry.get("made_by") if isinstance(entry, dict) else None
    stage = made_by.get("stage") if isinstance(made_by, dict) else None
    return stage if isinstance(stage, str) else ""


def is_of_another_photo(existing: object, record: Record) -> bool:
    """Whether an entry in a record's place speaks of another photo of the same kind of source.

    One whose id is another and whose bytes are others. Ids of two kinds of sources are not comparable, and an entry
    that says no id is taken for the photo's own.
    """
    if not isinstance(record, CatalogRecord) or not isinstance(existing, dict):
        return False
    photo_id, component = photo_of(existing)
    if not photo_id or existing["source"].get("kind") != record.source_kind.value:
        return False
    return (photo_id, component) != (record.photo_id, record.component.value) and (
        existing.get("sha256") != record.facts.sha256
    )


def with_former(existing: object, former: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """The entry of `record`, with what other programs said in the former entry and in the existing one.

    Where both say something of one key, the existing one's word counts.
    """
    entry = merged_entry(former, record)
    if isinstance(existing, dict):
        entry = merged_entry(_over(entry, existing), record)
    return entry


def _over(base: Mapping[str, Any], existing: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in existing.items():
        before = merged.get(key)
        if key == "pipeline" and isinstance(before, dict) and isinstance(value, dict):
            merged[key] = _pipeline_over(before, value)
        elif isinstance(before, dict) and isinstance(value, dict) and key != "location":
            merged[key] = before | value
        elif key == "derivatives" and isinstance(before, list) and isinstance(value, list):
            merged[key] = [*value, *(each for each in before if each not in value)]
        else:
            merged[key] = value
    return merged


def _pipeline_over(base: Mapping[str, Any], existing: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**base, **existing}
    stages, before = existing.get("stages"), base.get("stages")
    if isinstance(stages, list) and isinstance(before, list):
        merged["stages"] = [*stages, *(stage for stage in before if stage not in stages)]
    times, times_before = existing.get("timestamps"), base.get("timestamps")
    if isinstance(times, dict) and isinstance(times_before, dict):
        merged["timestamps"] = times_before | times
    if isinstance(updated := base.get("last_updated"), str):
        merged["last_updated"] = later_time(existing.get("last_updated"), updated)
    return merged


# ── what points to what ───────────────────────────────────────────────────────────────────────────────────────────


def pointing_to(entry: object, moves: Mapping[str, str]) -> Any:
    """An entry with every text that is a path of `moves` replaced by where that file is now; at any depth.

    Not those that are written from rows into entries of ours.
    """
    if not isinstance(entry, dict) or not is_ours(entry):
        return _replaced(entry, moves)
    return {key: value if key in _WRITTEN_FROM_ROWS else _replaced(value, moves) for key, value in entry.items()}


def _replaced(value: Any, moves: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return moves.get(value, value)
    if isinstance(value, list):
        return [_replaced(each, moves) for each in value]
    if isinstance(value, dict):
        return {key: _replaced(each, moves) for key, each in value.items()}
    return value


def member_pointing_to(member: bytes, path: str, wanted: Any, moves: Mapping[str, str]) -> bytes | None:
    """The text of a member with these paths replaced, all else to the letter; None where that does not give `wanted`.

    Looked for as our writer and Python's write them.
    """
    for old, new in moves.items():
        member = member.replace(orjson.dumps(old), orjson.dumps(new))
        member = member.replace(json.dumps(old).encode(), json.dumps(new).encode())
    try:
        return member if orjson.loads(b"{%b}" % member) == {path: wanted} else None
    except ValueError:
        return None


def pointers_of(entry: object) -> Iterator[tuple[str, str]]:
    """(key, absolute path) of the files that an entry says it was made from, or that were made of it."""
    if isinstance(entry, dict):
        for key in _POINTERS:
            for text in _texts_in(entry.get(key)):
                if text.startswith("/"):
                    yield key, text


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts_in(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts_in(each)
