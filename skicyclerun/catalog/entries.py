"""One entry of `master.json`: how it is made from a record, merged with what other programs wrote, and read back.

What is ours in an entry is listed in `docs/catalog.md`; every other key is some other program's and stays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from skicyclerun.files.naming import ORIGINALS_FOLDER
from skicyclerun.models import Component, ExportedFacts, Face, Location, Place, Rendering, SourceKind
from skicyclerun.stages.registry import STAGES

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
        "faces",
        "place",
        "favorite",
        "labels",
        "rendering",
        "note",
        "facts",
        "stage_results",
    }
)
#: Ours where a stage after the export has spoken of the photo; otherwise another program's.
_KEYS_OF_STAGES: Final = frozenset({"location", "exif", "llm_image_analysis", "s3_deployment"})
#: Of the entry of a file that a stage made.
_OPTIONAL_IN_DERIVED: Final = frozenset({"variant", "width", "height", "note"})
_OPTIONAL_IN_GPS: Final = frozenset({"altitude", "heading"})
_OPTIONAL_IN_SOURCE: Final = frozenset({"component", "fingerprint"})
#: What a photo is does not depend on what a stage says of it.
_IDENTITY: Final = frozenset(
    {
        "type",
        "file_name",
        "file_path",
        "album_name",
        "export_timestamp",
        "source",
        "sha256",
        "size",
        "pipeline",
        "derivatives",
        "files_beside",
        "stage_results",
    }
)
#: Stages that this program may provide and that make files, under whose names `derivatives` holds them.
MADE_BY_US: Final = frozenset(stage.name for stage in STAGES if stage.output)
_SIDES: Final = ("x", "y", "width", "height")
_PLACE: Final = tuple(field.name for field in fields(Place))
_RENDERINGS: Final[Mapping[object, Rendering]] = {rendering.value: rendering for rendering in Rendering}
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What a stage without files found of a photo: keys of its entry (`gps`, `location`, `exif`)."""

    stage: str
    made_at: str
    facts: Mapping[str, Any]
    input_sha256: str = ""
    depends: str = ""
    """Digest of all else that decided them; lets a rebuilt state know what is up to date."""


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
    stages: tuple[StageFacts, ...] = ()
    """In the order of the stages; a later one's word counts."""
    derivatives: Mapping[str, str | list[str]] = field(default_factory=dict)
    """Stage → the files it made of this one."""
    our_stages: frozenset[str] = MADE_BY_US
    """Stages that have ever made something here: under any other name `derivatives` is another program's."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """`sidecar`, `original` → the file of this photo that lies beside its own."""

    @property
    def optional_keys(self) -> frozenset[str]:
        """Keys that are ours, and absent where there is nothing to say."""
        return _OPTIONAL_KEYS | _KEYS_OF_STAGES if self.stages else _OPTIONAL_KEYS


@dataclass(frozen=True, slots=True)
class DerivedRecord:
    """A file that a stage made, as the state database knows it."""

    file_path: str
    """Absolute; the key of the entry."""
    file_name: str
    album_name: str
    entry_type: str
    stage: str
    source_path: str
    """The file it was made from."""
    original_path: str
    """The exported file that one comes from; equal to `source_path` where the stage reads the export."""
    made_at: str
    """ISO 8601, UTC, `Z`."""
    sha256: str
    size: int
    input_sha256: str
    depends: str
    """Digest of all else that decided its bytes; lets a rebuilt state know what is up to date."""
    variant: str = ""
    width: int | None = None
    height: int | None = None
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the entry (`watermark`, …)."""
    derivatives: Mapping[str, str | list[str]] = field(default_factory=dict)
    stages: tuple[StageFacts, ...] = ()
    """What stages without files did with this one (where it was uploaded to)."""
    our_stages: frozenset[str] = MADE_BY_US

    @property
    def optional_keys(self) -> frozenset[str]:
        return _OPTIONAL_IN_DERIVED | self.facts.keys()


Record = CatalogRecord | DerivedRecord


def entry_of(record: Record) -> dict[str, Any]:
    """The entry that is written for a record. Absent facts are absent keys; numbers are finite."""
    entry = _derived_entry(record) if isinstance(record, DerivedRecord) else _exported_entry(record)
    if record.derivatives:
        entry["derivatives"] = dict(record.derivatives)
    return entry


def _derived_entry(record: DerivedRecord) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": record.entry_type,
        "file_name": record.file_name,
        "file_path": record.file_path,
        "album_name": record.album_name,
        "created_at": record.made_at,
        "source_path": record.source_path,
        "original_path": record.original_path,
        "sha256": record.sha256,
        "size": record.size,
        "made_by": {
            "stage": record.stage,
            "input_sha256": record.input_sha256,
            "depends": record.depends,
        },
    }
    optional = {"variant": record.variant, "width": record.width, "height": record.height, "note": record.note}
    entry |= {key: value for key, value in optional.items() if value not in (None, "")}
    # Whatever a stage says further, it does not change what the file is.
    further = {key: value for key, value in record.facts.items() if key not in entry and key != "pipeline"}
    if further:
        entry["made_by"]["keys"] = sorted(further)
    entry |= further
    results: dict[str, Any] = {}
    for found in record.stages:
        said = {key: value for key, value in found.facts.items() if key not in entry}
        results[found.stage] = {
            "input_sha256": found.input_sha256,
            "depends": found.depends,
            "keys": sorted(said),
        }
        entry |= said
    if results:
        entry["stage_results"] = results
    times = {record.stage: record.made_at} | {found.stage: found.made_at for found in record.stages}
    entry["pipeline"] = {"stages": list(times), "timestamps": times, "last_updated": max(times.values())}
    return entry


def _exported_entry(record: CatalogRecord) -> dict[str, Any]:
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
        # A sidecar or an original is no picture of the album, which is what programs look for under the usual type.
        "type": record.component.value if record.component.is_companion else ENTRY_TYPE,
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
        "faces": [_face_entry(face) for face in facts.faces],
        "place": facts.place.known() if facts.place else None,
        "favorite": True if facts.favorite else None,
        "labels": list(facts.labels),
        "rendering": facts.rendering.value if facts.rendering is not Rendering.ORIGINAL else None,
        "note": facts.note,
        "facts": dict(facts.extra),
        "files_beside": dict(record.beside),
    }
    entry.update({key: value for key, value in optional.items() if value not in (None, "", [], {})})
    by_export = entry
    results: dict[str, Any] = {}
    for found in record.stages:
        said = {key: value for key, value in found.facts.items() if key not in _IDENTITY}
        results[found.stage] = {
            "input_sha256": found.input_sha256,
            "depends": found.depends,
            "keys": sorted(said),
        }
        entry = merged_facts(entry, [said])
    if results:
        # What the export itself said of these keys: without it a rebuilt state would take the stages' word for it.
        spoken_of = {key for each in results.values() for key in each["keys"]}
        results[STAGE] = {key: by_export[key] for key in sorted(spoken_of) if key in by_export}
        entry["stage_results"] = results
    times = {STAGE: record.export_timestamp} | {found.stage: found.made_at for found in record.stages}
    entry["pipeline"] = {"stages": list(times), "timestamps": times, "last_updated": max(times.values())}
    return entry


def merged_facts(base: Mapping[str, Any], further: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`base` with further facts over it; objects (`gps`, `exif`) are merged by key, `location` is one answer, whole."""
    merged = dict(base)
    for facts in further:
        for key, value in facts.items():
            before = merged.get(key)
            by_key = isinstance(before, dict) and isinstance(value, dict) and key != "location"
            merged[key] = {**before, **value} if by_key and before is not None else value
    return merged


def merged_entry(existing: object, record: Record, made: dict[str, Any] | None = None) -> dict[str, Any]:
    """The entry of `record`, with all that is not ours in `existing` kept, whatever its type.

    Equal to `existing` where nothing changed. An entry of an earlier export (another `sha256` or `export_timestamp`)
    loses those of our facts that are no longer true; within one export an optional key that we did not write is some
    other program's and stays. What a stage has written goes, by the entry's own account, when none says it now.

    `made` is `entry_of(record)` where the caller has it already; it is not changed.
    """
    fresh = entry_of(record) if made is None else made
    if not isinstance(existing, dict):
        return fresh
    made_anew = _is_made_anew(existing, fresh)
    stages_anew = made_anew or _stages_anew(existing, fresh)
    told_by_stages = "stage_results" in existing or "made_by" in existing
    # What lies beside a photo may change while it stays as it is.
    ours = _spoken_of(existing) | {"files_beside"}
    if made_anew or (stages_anew and not told_by_stages):
        ours |= record.optional_keys
    merged = _without(existing, ours - fresh.keys())
    merged = _without_derivatives(merged, record)
    for key, value in fresh.items():
        was = merged.get(key)
        if key == "pipeline":
            merged[key] = _merged_pipeline(was, value)
        elif key == "exif" and isinstance(was, dict) and isinstance(value, dict) and not stages_anew:
            merged[key] = was | value  # another program may know more of the camera
        elif key == "derivatives":
            merged[key] = _merged_derivatives(was, value)
        elif key == "source" and isinstance(was, dict):
            # Identity: what we did not write there is never true.
            merged[key] = _without(was, _OPTIONAL_IN_SOURCE - value.keys()) | value
        elif key == "gps" and isinstance(was, dict):
            merged[key] = _without(was, _OPTIONAL_IN_GPS - value.keys() if stages_anew else frozenset()) | value
        else:
            merged[key] = value
    return merged


def _is_made_anew(existing: Mapping[str, Any], fresh: Mapping[str, Any]) -> bool:
    """Whether the file has other bytes than the entry says, or the library may say something else of the photo now.

    One that was exported once more as it was (its file had been removed, or it was moved) has the same bytes and the
    same fingerprint, and an optional key that the export does not write is another program's still.
    """
    if _is_other(existing, fresh, ("sha256", "created_at")):
        return True
    before, now = (_dict(entry.get("source")).get("fingerprint") for entry in (existing, fresh))
    if now and before == now and existing.get("sha256") == fresh.get("sha256"):
        return False
    times = (_dict(_dict(entry.get("pipeline")).get("timestamps")).get(STAGE) for entry in (existing, fresh))
    exported_before, exported_now = times
    return _is_other(existing, fresh, ("export_timestamp",)) or (
        isinstance(exported_before, str) and exported_now is not None and exported_before != exported_now
    )


def _is_other(existing: Mapping[str, Any], fresh: Mapping[str, Any], keys: Iterable[str]) -> bool:
    return any(isinstance(existing.get(key), str) and existing[key] != fresh.get(key) for key in keys if key in fresh)


def _stages_anew(existing: Mapping[str, Any], fresh: Mapping[str, Any]) -> bool:
    """Whether a stage has spoken again since the entry was written, so that what it says no more is no longer true."""
    times = _dict(_dict(existing.get("pipeline")).get("timestamps"))
    results, fresh_results = _dict(existing.get("stage_results")), _dict(fresh.get("stage_results"))
    for stage, at in fresh["pipeline"]["timestamps"].items():
        before, now = _result_from(results.get(stage)), _result_from(fresh_results.get(stage))
        if before is not None and now is not None:
            if before != now:
                return True
        elif stage != STAGE and isinstance(times.get(stage), str) and times[stage] != at:
            return True
    return False


def _spoken_of(existing: Mapping[str, Any]) -> frozenset[str]:
    """The keys that stages have written, as the entry itself says."""
    results = _dict(existing.get("stage_results"))
    told = [each for stage, each in results.items() if stage != STAGE] + [existing.get("made_by")]
    keys = {key for each in told for key in _texts(_dict(each).get("keys"))}
    return (frozenset(keys) - _IDENTITY) | {"stage_results"}


def _without_derivatives(merged: dict[str, Any], record: Record) -> dict[str, Any]:
    """Without the files of our stages that this record no longer has; those of other programs stay."""
    named = merged.get("derivatives")
    if not isinstance(named, dict):
        return merged
    kept = {
        stage: value for stage, value in named.items() if stage in record.derivatives or stage not in record.our_stages
    }
    if kept == named:
        return merged
    return merged | {"derivatives": kept} if kept else _without(merged, frozenset({"derivatives"}))


def _merged_derivatives(was: object, ours: Mapping[str, Any]) -> object:
    if isinstance(was, list):  # another program's way of naming them
        paths = [path for value in ours.values() for path in ([value] if isinstance(value, str) else value)]
        return [*was, *(path for path in paths if path not in was)]
    return _dict(was) | dict(ours)


def is_derived(entry: object) -> bool:
    """Whether a stage of ours wrote this entry of a file that it made."""
    return isinstance(entry, dict) and isinstance(_dict(entry.get("made_by")).get("stage"), str)


def is_ours(entry: object) -> bool:
    """Whether export, or a stage of ours, wrote this entry; other programs may have stripped some of the signs."""
    if not isinstance(entry, dict):
        return False
    if is_derived(entry):
        return True
    source, pipeline = entry.get("source"), entry.get("pipeline")
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    return (
        entry.get("type") == ENTRY_TYPE
        or (isinstance(source, dict) and "photo_id" in source and "album_id" in source)
        or (isinstance(stages, list) and STAGE in stages)
    )


def split_path(path: str, *, original: bool = False) -> tuple[str, str, str]:
    """(folder of the album folders, album folder, name below it) of an exported file; empty where it has none.

    The name of an `original` has the folder that originals lie in before it.
    """
    above, _, file_name = path.rpartition("/")
    if original and above.endswith(f"/{ORIGINALS_FOLDER}"):
        above, file_name = above.removesuffix(f"/{ORIGINALS_FOLDER}"), f"{ORIGINALS_FOLDER}/{file_name}"
    outputs, _, folder = above.rpartition("/")
    return outputs, folder, file_name


def record_from_entry(path: str, entry: object) -> CatalogRecord | None:
    """The record an entry was made from, None for an entry that is not ours or does not say enough to trust it.

    Enough is: the source with album and photo, size and SHA-256. Optional facts of a wrong type are left out.
    """
    if not isinstance(entry, dict) or is_derived(entry) or not is_ours(entry):
        return None
    stages, entry = _stages_from(entry)
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
    _, folder, file_name = split_path(path, original=component is Component.ORIGINAL)
    if not _can_be_stored([timestamp, album_id, photo_id]):
        return None
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
            faces=_faces_from(entry.get("faces")),
            place=_place_from(entry.get("place")),
            favorite=entry.get("favorite") is True,
            labels=_texts(entry.get("labels")),
            rendering=_RENDERINGS.get(_text(entry.get("rendering")), Rendering.ORIGINAL),
            note=_text(entry.get("note")) or "",
            extra={
                key: value
                for key, value in _dict(entry.get("facts")).items()
                if isinstance(value, str) and _can_be_stored([key, value])
            },
        ),
        component=component,
        fingerprint=_text(source.get("fingerprint")) or "",
        stages=stages,
    )


def _stages_from(entry: dict[str, Any]) -> tuple[tuple[StageFacts, ...], dict[str, Any]]:
    """What stages found of a photo, and the entry as it would be without them.

    A key that several have spoken of has the value of the last in all of them, which is what came of it.
    """
    times = _dict(_dict(entry.get("pipeline")).get("timestamps"))
    results = _dict(entry.get("stage_results"))
    found = []
    spoken_of: set[str] = set()
    for stage, told in results.items():
        keys = _texts(_dict(told).get("keys"))
        if stage == STAGE or not (result := _result_from(told)) or not isinstance(times.get(stage), str):
            continue
        if not _can_be_stored([stage, times[stage]]):
            continue
        facts = _facts_under(keys, entry)
        spoken_of |= facts.keys()
        found.append(StageFacts(stage, times[stage], facts, *result))
    if not found:
        return (), entry
    by_export = {key: value for key, value in _dict(results.get(STAGE)).items() if key in spoken_of}
    return tuple(found), {key: value for key, value in entry.items() if key not in spoken_of} | by_export


def _result_from(told: object) -> tuple[str, str] | None:
    """(SHA-256 of the input, digest of all else) where both are there and are such."""
    values = _dict(told)
    input_sha256, depends = values.get("input_sha256"), values.get("depends")
    if not isinstance(input_sha256, str) or not isinstance(depends, str):
        return None
    return (input_sha256, depends) if _SHA256.match(input_sha256) and _SHA256.match(depends) else None


def derived_from_entry(path: str, entry: object) -> DerivedRecord | None:
    """The record that an entry of a file made by a stage was made from, None for any other, or for too little to trust.

    Enough is: the stage, both digests, the file it was made from, size and SHA-256, and when.
    """
    if not isinstance(entry, dict) or not is_derived(entry):
        return None
    made_by = _dict(entry["made_by"])
    result, size, sha256, made_at = (
        _result_from(made_by),
        _count(entry.get("size")),
        entry.get("sha256"),
        entry.get("created_at"),
    )
    source_path, original_path = _text(entry.get("source_path")), _text(entry.get("original_path"))
    if result is None or size is None or not (isinstance(sha256, str) and _SHA256.match(sha256)):
        return None
    file_name, folder = path.rpartition("/")[2], path.rpartition("/")[0].rpartition("/")[2]
    if source_path is None or original_path is None or not isinstance(made_at, str):
        return None
    if not _can_be_stored([made_at, made_by["stage"]]):
        return None
    return DerivedRecord(
        file_path=path,
        file_name=file_name,
        album_name=folder,
        entry_type=_text(entry.get("type")) or "",
        stage=made_by["stage"],
        source_path=source_path,
        original_path=original_path,
        made_at=made_at,
        sha256=sha256,
        size=size,
        input_sha256=result[0],
        depends=result[1],
        variant=_text(entry.get("variant")) or "",
        width=_count(entry.get("width")),
        height=_count(entry.get("height")),
        note=_text(entry.get("note")) or "",
        facts=_facts_under(_texts(made_by.get("keys")), entry),
    )


def _facts_under(keys: Iterable[str], entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry says under the keys that a stage has called its own."""
    return {
        key: entry[key] for key in keys if key in entry and key not in _IDENTITY and _can_be_stored([key, entry[key]])
    }


def _merged_pipeline(existing: object, fresh: Mapping[str, Any]) -> dict[str, Any]:
    pipeline = _dict(existing)
    stages, timestamps = pipeline.get("stages"), pipeline.get("timestamps")
    if isinstance(stages, str) and stages:
        stages = [stages]
    if not isinstance(stages, list):
        stages = []
    first, *others = fresh["stages"]
    if first not in stages:
        stages = [first, *stages]
    return pipeline | {
        "stages": [*stages, *(stage for stage in others if stage not in stages)],
        "timestamps": _dict(timestamps) | fresh["timestamps"],
        "last_updated": later_time(pipeline.get("last_updated"), fresh["last_updated"]),
    }


def later_time(existing: object, timestamp: str) -> object:
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


def _face_entry(face: Face) -> dict[str, Any]:
    return {"name": face.name} | {side: round(getattr(face, side), 6) for side in _SIDES}


def _faces_from(value: object) -> tuple[Face, ...]:
    faces = []
    for each in value if isinstance(value, list) else ():
        name, sides = _text(_dict(each).get("name")), [_number(_dict(each).get(side)) for side in _SIDES]
        if name is not None and None not in sides:
            faces.append(Face(name, *(side for side in sides if side is not None)))
    return tuple(faces)


def _place_from(value: object) -> Place | None:
    texts = {key: text for key in _PLACE if (text := _text(_dict(value).get(key)))}
    return Place(**texts) if texts else None


def _without(values: dict[str, Any], dropped: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in dropped}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _can_be_stored(value: object) -> bool:
    """Whether the database can hold it: half a character, a number over 64 bits and what is nested too deep cannot be.

    An entry may come from anywhere; JSON has all of these.
    """
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and _can_be_stored(value) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(filter(None, map(_text, value))) if isinstance(value, list) else ()


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
