"""One entry of `master.json`: how it is made from a record, merged with what other programs wrote, and read back.

What is ours in an entry is listed in `docs/catalog.md`; every other key is some other program's and stays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from skicyclerun.models import Component, ExportedFacts, Location, Rendering, SourceKind

ENTRY_TYPE: Final = "exported"
STAGE: Final = "export"

# Ours, and absent when there is nothing to say. After a new export the absent ones of these are removed.
_OPTIONAL_KEYS: Final = frozenset(
    {
        "width",
        "height",
        "date_taken",
        "date_taken_utc",
        "gps",
        "keywords",
        "title",
        "description",
        "persons",
        "rendering",
        "note",
        "facts",
    }
)
_OPTIONAL_IN_GPS: Final = frozenset({"altitude", "heading"})
_OPTIONAL_IN_SOURCE: Final = frozenset({"component", "fingerprint"})
_RENDERINGS: Final[Mapping[object, Rendering]] = {rendering.value: rendering for rendering in Rendering}
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class CatalogRecord:
    """An exported file as the state database knows it; everything its entry is made of."""

    file_path: str
    """Absolute; the key of the entry."""
    file_name: str
    album_name: str
    """The album's folder, the name by which later stages know it."""
    export_timestamp: str
    """ISO 8601, UTC, `Z`."""
    source_kind: SourceKind
    album_id: str
    album_title: str
    album_path: str
    """The title with the folders it lies in: `Album.path`."""
    photo_id: str
    original_filename: str
    facts: ExportedFacts
    component: Component = Component.STILL
    fingerprint: str = ""
    """The photo's fingerprint at the export; lets a rebuilt state know what has changed since."""


def entry_of(record: CatalogRecord) -> dict[str, Any]:
    """The entry that export writes for a record. Absent facts are absent keys; numbers are finite."""
    facts = record.facts
    source: dict[str, Any] = {
        "kind": record.source_kind.value,
        "album_id": record.album_id,
        "album_title": record.album_title,
        "album_path": record.album_path,
        "photo_id": record.photo_id,
        "original_filename": record.original_filename,
    }
    if record.component is not Component.STILL:
        source["component"] = record.component.value
    if record.fingerprint:
        source["fingerprint"] = record.fingerprint
    entry: dict[str, Any] = {
        "type": ENTRY_TYPE,
        "file_name": record.file_name,
        "file_path": record.file_path,
        "album_name": record.album_name,
        "export_timestamp": record.export_timestamp,
        "source": source,
        "sha256": facts.sha256,
        "size": facts.size,
    }
    optional: dict[str, Any] = {
        "width": facts.width,
        "height": facts.height,
        "date_taken": facts.date_taken,
        "date_taken_utc": facts.date_taken_utc,
        "gps": _gps_of(facts.location),
        "keywords": list(facts.keywords),
        "title": facts.title,
        "description": facts.description,
        "persons": list(facts.persons),
        "rendering": facts.rendering.value if facts.rendering is not Rendering.ORIGINAL else None,
        "note": facts.note,
        "facts": dict(facts.extra),
    }
    entry.update({key: value for key, value in optional.items() if value not in (None, "", [], {})})
    entry["pipeline"] = {
        "stages": [STAGE],
        "timestamps": {STAGE: record.export_timestamp},
        "last_updated": record.export_timestamp,
    }
    return entry


def merged_entry(existing: object, record: CatalogRecord) -> dict[str, Any]:
    """The entry of `record`, with all that is not ours in `existing` kept, whatever its type.

    Equal to `existing` where nothing changed. An entry of an earlier export (another `sha256` or `export_timestamp`)
    loses those of our facts that are no longer true; within one export an optional key that we did not write is some
    other program's and stays.
    """
    fresh = entry_of(record)
    if not isinstance(existing, dict):
        return fresh
    exported_anew = any(
        isinstance(existing.get(key), str) and existing[key] != fresh[key] for key in ("sha256", "export_timestamp")
    )
    merged = _without(existing, _OPTIONAL_KEYS - fresh.keys() if exported_anew else frozenset())
    for key, value in fresh.items():
        was = merged.get(key)
        if key == "pipeline":
            merged[key] = _merged_pipeline(was, record.export_timestamp)
        elif key == "source" and isinstance(was, dict):
            # Identity: what we did not write there is never true.
            merged[key] = _without(was, _OPTIONAL_IN_SOURCE - value.keys()) | value
        elif key == "gps" and isinstance(was, dict):
            merged[key] = _without(was, _OPTIONAL_IN_GPS - value.keys() if exported_anew else frozenset()) | value
        else:
            merged[key] = value
    return merged


def is_ours(entry: object) -> bool:
    """Whether export wrote this entry; other programs may have stripped some of the signs, not all of them."""
    if not isinstance(entry, dict):
        return False
    source, pipeline = entry.get("source"), entry.get("pipeline")
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    return (
        entry.get("type") == ENTRY_TYPE
        or (isinstance(source, dict) and "photo_id" in source and "album_id" in source)
        or (isinstance(stages, list) and STAGE in stages)
    )


def record_from_entry(path: str, entry: object) -> CatalogRecord | None:
    """The record an entry was made from, None for an entry that is not ours or does not say enough to trust it.

    Enough is: the source with album and photo, size and SHA-256. Optional facts of a wrong type are left out.
    """
    if not isinstance(entry, dict) or not is_ours(entry):
        return None
    source = _dict(entry.get("source"))
    sha256, size, timestamp = entry.get("sha256"), _count(entry.get("size")), entry.get("export_timestamp")
    album_id, photo_id = source.get("album_id"), source.get("photo_id")
    if not (isinstance(sha256, str) and _SHA256.match(sha256) and isinstance(timestamp, str)) or size is None:
        return None
    if not (isinstance(album_id, str) and album_id and isinstance(photo_id, str) and photo_id):
        return None
    try:
        kind = SourceKind(source.get("kind", ""))
        component = Component(source.get("component", Component.STILL))
    except ValueError:
        return None
    file_name = path.rpartition("/")[2]
    folder = path.rpartition("/")[0].rpartition("/")[2]
    album_title = _text(source.get("album_title")) or _text(entry.get("album_name")) or folder
    return CatalogRecord(
        file_path=path,
        file_name=file_name,
        album_name=folder,
        export_timestamp=timestamp,
        source_kind=kind,
        album_id=album_id,
        album_title=album_title,
        album_path=_text(source.get("album_path")) or album_title,
        photo_id=photo_id,
        original_filename=_text(source.get("original_filename")) or file_name,
        facts=ExportedFacts(
            size=size,
            sha256=sha256,
            width=_count(entry.get("width")),
            height=_count(entry.get("height")),
            date_taken=_text(entry.get("date_taken")),
            date_taken_utc=_text(entry.get("date_taken_utc")),
            location=_location_from(entry.get("gps")),
            title=_text(entry.get("title")),
            description=_text(entry.get("description")),
            keywords=_texts(entry.get("keywords")),
            persons=_texts(entry.get("persons")),
            rendering=_RENDERINGS.get(_text(entry.get("rendering")), Rendering.ORIGINAL),
            note=_text(entry.get("note")) or "",
            extra={key: value for key, value in _dict(entry.get("facts")).items() if isinstance(value, str)},
        ),
        component=component,
        fingerprint=_text(source.get("fingerprint")) or "",
    )


def _merged_pipeline(existing: object, timestamp: str) -> dict[str, Any]:
    pipeline = _dict(existing)
    stages, timestamps = pipeline.get("stages"), pipeline.get("timestamps")
    if isinstance(stages, str) and stages:
        stages = [stages]
    if not isinstance(stages, list):
        stages = []
    return pipeline | {
        "stages": stages if STAGE in stages else [STAGE, *stages],
        "timestamps": _dict(timestamps) | {STAGE: timestamp},
        "last_updated": _later(pipeline.get("last_updated"), timestamp),
    }


def _later(existing: object, timestamp: str) -> object:
    """Whichever is later; ours where the other is no time at all. A time without a zone is taken as UTC."""
    if not isinstance(existing, str):
        return timestamp
    moments = []
    for text in (existing, timestamp):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return timestamp
        moments.append(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return existing if moments[0] >= moments[1] else timestamp


def _gps_of(location: Location | None) -> dict[str, float]:
    if location is None or not (math.isfinite(location.latitude) and math.isfinite(location.longitude)):
        return {}
    further = {"altitude": location.altitude, "heading": location.heading}
    return {"lat": location.latitude, "lon": location.longitude} | {
        key: value for key, value in further.items() if value is not None and math.isfinite(value)
    }


def _location_from(gps: object) -> Location | None:
    values = _dict(gps)
    latitude, longitude = _number(values.get("lat")), _number(values.get("lon"))
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return Location(latitude, longitude, _number(values.get("altitude")), _number(values.get("heading")))


def _without(values: dict[str, Any], dropped: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in dropped}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str) and text) if isinstance(value, list) else ()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
