"""Catalog records out of the state database: the rows that speak for a file on disk, as entries are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from skicyclerun.catalog.entries import CatalogRecord, DerivedRecord, Record, StageFacts, split_path
from skicyclerun.errors import EnvironmentUnset
from skicyclerun.files.naming import ORIGINALS_FOLDER
from skicyclerun.models import Album, Component, SourceKind
from skicyclerun.settings.later_stages import later_stages, output_folders, read_folder
from skicyclerun.settings.models import Settings
from skicyclerun.state.former_entries import FilePlace
from skicyclerun.state.photos import facts_from_row
from skicyclerun.state.store import Reader, Row, Store


@dataclass(frozen=True, slots=True)
class StagePlace:
    """Where a stage's files are, and what their entries are called."""

    reads: str
    entry_type: str
    folder: Path


@dataclass(frozen=True, slots=True)
class CatalogPlaces:
    """The folders that files of the catalog lie in."""

    export_folder: Path
    stages: Mapping[str, StagePlace] = field(default_factory=dict)
    """Those that make files, in pipeline order."""
    order: Sequence[str] = ()
    """All stages after the export, in pipeline order."""
    speak_of: Mapping[str, Path] = field(default_factory=dict)
    """Stages without files whose facts are those of the files they take, not of the photo: their folder."""

    def folder_of(self, stage: str) -> Path | None:
        """Where the files of a stage lie; None for one that is not known here any more."""
        if stage == "export":
            return self.export_folder
        return self.stages[stage].folder if stage in self.stages else None

    @property
    def output_folders(self) -> list[Path]:
        """Every folder that holds album folders of ours, once."""
        return list(dict.fromkeys([self.export_folder, *(place.folder for place in self.stages.values())]))


def catalog_places(settings: Settings) -> CatalogPlaces:
    """The places that a configuration means. A stage whose folder cannot be resolved now is left out."""
    stages = later_stages(settings)
    places = {
        name: StagePlace(stages[name].reads, stages[name].entry_type, folder)
        for name, folder in output_folders(settings).items()
    }
    speak_of: dict[str, Path] = {}
    for name, stage in stages.items():
        with suppress(EnvironmentUnset):
            if (folder := read_folder(settings, stage)) is not None:
                speak_of[name] = folder
    return CatalogPlaces(settings.paths.apple_photos_export, places, tuple(stages), speak_of)


def records_of(reader: Reader, places: CatalogPlaces) -> Iterator[Record]:
    """The records of the rows that speak for a file now, an album at a time: memory does not grow with their number."""
    stages = frozenset(row["stage"] for row in reader.rows("stages_with_rows"))
    for album in list(reader.rows("catalog_folders")):
        where = {"folder": album["folder"]}
        exported = list(reader.rows("present_photos_in", where))
        rows = _AlbumRows(places, stages, reader.rows("present_stage_files_in", where), exported)
        for row in exported:
            yield rows.exported(row)
        yield from rows.derived()


class _AlbumRows:
    """What the stages made and found in one album's folder."""

    def __init__(
        self, places: CatalogPlaces, stages: frozenset[str], staged: Iterable[Row], exported: Iterable[Row] = ()
    ) -> None:
        self._places = places
        self._stages = stages
        self._files: list[Row] = []
        self._facts: dict[str, list[StageFacts]] = {}
        self._of_files: dict[tuple[Path, str], list[StageFacts]] = {}
        self._derivatives: dict[tuple[str, str], dict[str, str | list[str]]] = {}
        self._beside: dict[str, dict[str, str]] = {}
        for row in exported:
            if Component(row["component"]).is_companion:
                path = str(places.export_folder / row["folder"] / row["file_name"])
                self._beside.setdefault(row["source_id"], {})[row["component"]] = path
        rank = {stage: number for number, stage in enumerate(places.order)}
        for row in sorted(staged, key=lambda row: rank.get(row["stage"], len(rank))):
            if row["file_name"]:
                self._add_file(row)
            else:
                facts = orjson.loads(row["facts"]) if row["facts"] else {}
                found = StageFacts(row["stage"], row["made_at"], facts, row["input_sha256"], row["depends"])
                folder = places.speak_of.get(row["stage"], places.export_folder)
                if folder == places.export_folder:
                    if row["stage"] in places.speak_of:
                        found = replace(found, facts=_with_time(found))
                    self._facts.setdefault(row["photo"], []).append(found)
                else:
                    found = replace(found, facts=_with_time(found))
                    self._of_files.setdefault((folder, row["input"]), []).append(found)

    def _add_file(self, row: Row) -> None:
        place = self._places.stages.get(row["stage"])
        if place is None:
            return  # A stage of an earlier configuration; its files are left alone.
        self._files.append(row)
        named = self._derivatives.setdefault((place.reads, row["input"]), {})
        path, before = str(place.folder / row["folder"] / row["file_name"]), named.get(row["stage"])
        if before is None:
            named[row["stage"]] = path
        else:
            named[row["stage"]] = [*([before] if isinstance(before, str) else before), path]

    def derived(self) -> Iterator[Record]:
        """The records of the files that stages made."""
        return (self._derived(row) for row in self._files)

    def exported(self, row: Row) -> CatalogRecord:
        """The record of an exported file."""
        album = Album(row["album_id"], row["album_title"], tuple(json.loads(row["folder_path"])))
        name, component = row["file_name"], Component(row["component"])
        has_files_beside = component in (Component.STILL, Component.VIDEO)
        return CatalogRecord(
            file_path=str(self._places.export_folder / row["folder"] / row["file_name"]),
            file_name=row["file_name"],
            album_name=row["folder"],
            export_timestamp=row["exported_at"],
            source_kind=SourceKind(row["source_kind"]),
            album_id=album.id,
            album_title=album.title,
            album_path=album.path,
            photo_id=row["source_id"],
            original_filename=row["original_filename"],
            facts=facts_from_row(row),
            component=component,
            fingerprint=row["fingerprint"],
            stages=tuple(self._facts.get(name, ())),
            derivatives=self._derivatives.get(("export", name), {}),
            our_stages=self._stages,
            beside=self._beside.get(row["source_id"], {}) if has_files_beside else {},
        )

    def _derived(self, row: Row) -> DerivedRecord:
        place = self._places.stages[row["stage"]]
        source = self._places.folder_of(place.reads) or self._places.export_folder
        return DerivedRecord(
            file_path=str(place.folder / row["folder"] / row["file_name"]),
            file_name=row["file_name"],
            album_name=row["folder"],
            entry_type=place.entry_type,
            stage=row["stage"],
            source_path=str(source / row["folder"] / row["input"]),
            original_path=str(self._places.export_folder / row["folder"] / row["photo"]),
            made_at=row["made_at"],
            sha256=row["sha256"],
            size=row["size"],
            input_sha256=row["input_sha256"],
            depends=row["depends"],
            variant=row["variant"],
            width=row["width"],
            height=row["height"],
            note=row["note"],
            facts=orjson.loads(row["facts"]) if row["facts"] else {},
            derivatives=self._derivatives.get((row["stage"], row["file_name"]), {}),
            stages=tuple(self._of_files.get((place.folder, row["file_name"]), ())),
            our_stages=self._stages,
        )


def _with_time(found: StageFacts) -> dict[str, Any]:
    """What a stage says of a file that it took elsewhere, with when it did."""
    return {
        key: {**value, "uploaded": found.made_at} if key == found.stage and isinstance(value, dict) else value
        for key, value in found.facts.items()
    }


async def gone_paths(store: Store, places: CatalogPlaces) -> list[str]:
    """Paths that were written once and that no row speaks for any more: their entries leave the catalog."""
    gone = [str(places.export_folder / row["folder"] / row["file_name"]) for row in await store.all("paths_gone")]
    staged = {
        str(folder / row["folder"] / row["file_name"])
        for row in await store.all("stage_files_gone")
        if (folder := places.folder_of(row["stage"])) is not None
    }
    # Two stages may write into one folder: what the one has given up may be the other's by now.
    there = {
        str(folder / row["folder"] / row["file_name"])
        for row in (await store.all("stage_files_still_there") if staged else ())
        if (folder := places.folder_of(row["stage"])) is not None
    }
    return gone + sorted(staged - there)


def path_of(places: CatalogPlaces, place: FilePlace) -> str | None:
    """The key of the entry of a file; None for a stage that the configuration does not name."""
    folder = places.folder_of(place.stage)
    return str(folder / place.folder / place.file_name) if folder is not None else None


def place_of(places: CatalogPlaces, path: str, stage: str = "") -> FilePlace | None:
    """Whose file a path would be: the export's, or a stage's, in an album's folder; None for any other.

    `stage`: which of several that write into one folder.
    """
    outputs, folder, file_name = split_path(path)
    if folder == ORIGINALS_FOLDER and outputs != str(places.export_folder):
        outputs, folder, file_name = split_path(path, original=True)
    if not outputs or not folder or not file_name:
        return None
    if outputs == str(places.export_folder):
        return FilePlace("export", folder, file_name)
    writing = [name for name, place in places.stages.items() if outputs == str(place.folder)]
    return FilePlace(stage if stage in writing else writing[0], folder, file_name) if writing else None
