"""The catalog's entries as `rebuild-state` takes them: untrusted, by album, the contradictory ones told of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from skicyclerun.catalog.entries import CatalogRecord, DerivedRecord, derived_from_entry, is_derived, record_from_entry
from skicyclerun.catalog.records import CatalogPlaces
from skicyclerun.files.album_folder import STAGING_NAME
from skicyclerun.files.naming import ORIGINALS_FOLDER, collision_key
from skicyclerun.models import Album, Component, SourceKind

_Record = TypeVar("_Record", CatalogRecord, DerivedRecord)


@dataclass(slots=True)
class AlbumEntries:
    """An album and its folder, with the paths of its entries in the catalog's order."""

    kind: SourceKind
    album: Album
    folder: str
    paths: list[str] = field(default_factory=list)


@dataclass(slots=True)
class SortedEntries:
    """The catalog's entries by album, those of the kinds whose place is known."""

    albums: list[AlbumEntries] = field(default_factory=list)
    unclaimed: list[tuple[str, str]] = field(default_factory=list)


def sorted_entries(entries: Mapping[str, Any], export_folder: Path, places: Mapping[SourceKind, str]) -> SortedEntries:
    """The entries by album. One album has one folder and the other way round: where they differ, the most count.

    An entry of another export folder, as after a move of the whole lib_root, counts for the file of that folder and
    name in this one, unless that has an entry of its own.
    """
    found = SortedEntries()
    groups: dict[tuple[SourceKind, str, str], AlbumEntries] = {}
    for path in entries:
        record = record_from_entry(path, entries[path])
        if record is None:
            continue
        folder, name = record.album_name, record.file_name
        here = export_folder / folder / name
        own_name = name.removeprefix(f"{ORIGINALS_FOLDER}/") if record.component is Component.ORIGINAL else name
        if not _is_plain(folder) or not _is_plain(own_name) or folder == STAGING_NAME:
            found.unclaimed.append((path, "it does not lie in the folder of an album"))
        elif str(here) != path and (str(here) in entries or not os.path.lexists(here)):
            found.unclaimed.append((path, "it lies outside the export folder"))
        elif record.source_kind not in places:
            found.unclaimed.append((path, f"nobody knows which library it came from (source {record.source_kind})"))
        else:
            key = (record.source_kind, record.album_id, folder)
            if key not in groups:
                groups[key] = AlbumEntries(record.source_kind, _album(record), folder)
            groups[key].paths.append(path)
    albums_taken: set[tuple[SourceKind, str]] = set()
    folders_taken: set[str] = set()
    chosen: set[tuple[SourceKind, str, str]] = set()
    for key, group in sorted(groups.items(), key=lambda item: -len(item[1].paths)):
        if key[:2] in albums_taken or collision_key(group.folder) in folders_taken:
            found.unclaimed += [(path, "its folder belongs to another album") for path in group.paths]
            continue
        albums_taken.add(key[:2])
        folders_taken.add(collision_key(group.folder))
        chosen.add(key)
    found.albums = [group for key, group in groups.items() if key in chosen]
    return found


#: Paths of the entries of what stages made, by album folder and stage.
DerivedEntries = dict[str, dict[str, list[str]]]


def derived_entries(
    entries: Mapping[str, Any], places: CatalogPlaces, found: SortedEntries
) -> tuple[DerivedEntries, dict[str, set[str]]]:
    """The entries of files that stages made of the albums found, and by album folder the stages that entered facts.

    As for exported files, an entry of another folder counts for the file of that name in this one. What cannot be taken
    is added to `found.unclaimed`.
    """
    files: DerivedEntries = {album.folder: {} for album in found.albums}
    for path in entries:
        entry = entries[path]
        if not is_derived(entry):
            continue
        record = derived_from_entry(path, entry)
        place = places.stages.get(entry["made_by"]["stage"])
        if record is None:
            found.unclaimed.append((path, "it says too little of how it was made"))
        elif place is None:
            found.unclaimed.append((path, f"the configuration has no files of a stage {record.stage}"))
        elif record.album_name not in files or not _is_plain(record.file_name):
            found.unclaimed.append((path, "it does not lie in the folder of an album"))
        else:
            here = place.folder / record.album_name / record.file_name
            if str(here) != path and (str(here) in entries or not os.path.lexists(here)):
                found.unclaimed.append((path, f"it lies outside the folder of {record.stage}"))
            else:
                files[record.album_name].setdefault(record.stage, []).append(path)
    facts: dict[str, set[str]] = {}
    for album in found.albums:
        for known in records_at(album.paths, entries):
            facts.setdefault(album.folder, set()).update(each.stage for each in known.stages)
    return files, facts


def derived_at(
    paths: Sequence[str], entries: Mapping[str, Any], unclaimed: list[tuple[str, str]]
) -> list[DerivedRecord]:
    """The records of these entries of one stage and album, without those that name a picture or a file again."""
    records = (derived_from_entry(path, entries[path]) for path in paths)
    found = [((os.path.basename(each.source_path), each.variant), each) for each in records if each is not None]
    return _first_of_each(found, "picture", unclaimed)


def _is_plain(name: str) -> bool:
    # Half a character is no name that we give, and none that the database can hold.
    whole = not any("\ud800" <= character <= "\udfff" for character in name)
    return whole and name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _album(record: CatalogRecord) -> Album:
    """The album as the entry tells of it; the folders it lies in are what stands before the title in its path."""
    above = record.album_path.removesuffix(record.album_title).rstrip("/")
    told = record.album_path.endswith("/" + record.album_title) and above
    return Album(record.album_id, record.album_title, tuple(above.split("/")) if told else ())


def records_at(paths: Sequence[str], entries: Mapping[str, Any]) -> list[CatalogRecord]:
    """The records of these entries, read again: only one album's are held at a time."""
    records = (record_from_entry(path, entries[path]) for path in paths)
    return [record for record in records if record is not None]


def without_repetitions(records: Sequence[CatalogRecord], unclaimed: list[tuple[str, str]]) -> list[CatalogRecord]:
    """Without those that name a photo or a file for the second time."""
    return _first_of_each([((each.photo_id, each.component.value), each) for each in records], "photo", unclaimed)


def _first_of_each(
    records: Sequence[tuple[tuple[str, str], _Record]], what: str, unclaimed: list[tuple[str, str]]
) -> list[_Record]:
    keys: set[tuple[str, str]] = set()
    names: set[str] = set()
    kept = []
    for key, record in records:
        name = collision_key(record.file_name)
        if key in keys or name in names:
            unclaimed.append((record.file_path, f"another entry names the same {what} or file"))
            continue
        keys.add(key)
        names.add(name)
        kept.append(record)
    return kept
