"""What the page is made of: a run's report, its albums with their photos as they are on the disk, and its stages."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import orjson

from skicyclerun.catalog.records import CatalogPlaces, catalog_places
from skicyclerun.files.album_folder import MTIME_TOLERANCE_NS
from skicyclerun.files.beneath import Beneath
from skicyclerun.models import Component, ExportedFacts, Location
from skicyclerun.report.map import Position
from skicyclerun.report.timeline import Timeline, timeline_of
from skicyclerun.run.report import RunReport, build_report
from skicyclerun.settings.later_stages import later_stages, output_folders
from skicyclerun.settings.models import Settings
from skicyclerun.state import albums
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.photos import PhotoStatus, facts_from_row
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Row, Store

#: What every browser shows.
_PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif"})
_MOVIES: Final = frozenset({".mov", ".mp4", ".m4v", ".webm"})
_MOST_FACTS: Final = 8
#: Facts of stages that say where a photo was taken, or may.
_WHEREABOUTS: Final = frozenset({"gps", "location", "landmarks", "watermark"})


class OnDisk(StrEnum):
    """How the file of a photo is found."""

    THERE = "there"
    CHANGED = "changed"
    """It is not as it was exported."""
    GONE = "gone"
    """It should be there."""
    PUT_AWAY = "put away"
    """It was archived, or another run has replaced it."""
    NEVER = "never"
    """It was not exported."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of ours that the page shows."""

    folder: Path
    """Of the outputs: the export folder, or that of a stage."""
    album: str
    name: str
    key: str
    """SHA-256 of its content, or of what tells a changed file from all others: names its thumbnail."""
    size: int
    """Bytes."""

    @property
    def path(self) -> Path:
        return self.folder / self.album / self.name

    @property
    def kind(self) -> str:
        """How a browser can show it: `picture`, `movie`, or a `file` that it opens elsewhere."""
        suffix = os.path.splitext(self.name)[1].lower()
        return "picture" if suffix in _PICTURES else "movie" if suffix in _MOVIES else "file"


@dataclass(frozen=True, slots=True)
class PagePhoto:
    """A photo of an album, whatever became of it."""

    name: str
    """Of its file."""
    original: str
    status: PhotoStatus
    reason: str
    disk: OnDisk
    file: PageFile | None
    """Where it is there."""
    facts: ExportedFacts | None
    named_place: str = ""
    location: Location | None = None
    """Also None where the page is to say nothing of it."""

    @property
    def place(self) -> str:
        """Where it was taken: the name of the place, otherwise degrees, otherwise nothing."""
        if self.named_place or self.location is None:
            return self.named_place
        return degrees_in_words(self.location.latitude, self.location.longitude)

    @property
    def title(self) -> str:
        return self.facts.title if self.facts is not None and self.facts.title else self.name


@dataclass(frozen=True, slots=True)
class PageAlbum:
    """An album and its photos. `number` names its pages; it counts from 1."""

    number: int
    row: AlbumRow
    status: AlbumStatus
    photos: tuple[PagePhoto, ...]
    seconds: float
    of_this_run: bool
    """False: the run had stages only, and an earlier one exported it."""

    @property
    def shown(self) -> list[PagePhoto]:
        return [photo for photo in self.photos if photo.file is not None]

    @property
    def bytes(self) -> int:
        return sum(photo.facts.size for photo in self.photos if photo.facts is not None)

    def count(self, *statuses: PhotoStatus) -> int:
        return sum(photo.status in statuses for photo in self.photos)


@dataclass(frozen=True, slots=True)
class Example:
    """What a stage made of one picture. `after` None: it makes no file, and `found` is what it says."""

    stage: str
    before: PageFile
    after: PageFile | None
    found: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PageFacts:
    """All that the page says."""

    report: RunReport
    albums: tuple[PageAlbum, ...]
    examples: tuple[Example, ...]
    timeline: Timeline | None
    positions: tuple[Position, ...]
    """Empty where the page is to say nothing of where photos were taken."""

    @property
    def gone(self) -> list[tuple[PageAlbum, PagePhoto]]:
        return [(album, photo) for album in self.albums for photo in album.photos if photo.disk is OnDisk.GONE]


async def gather(store: Store, settings: Settings, run: RunRow, *, running: str, with_places: bool) -> PageFacts:
    """Read all of it. `with_places` False: nothing of where a photo was taken is in it."""
    report = await build_report(
        store,
        run,
        settings.paths.apple_photos_export,
        stage_folders=output_folders(settings),
        remote=settings.cleanup.remote,
        running=running,
    )
    places = catalog_places(settings)
    exported = [each.row for each in report.albums]
    of_run = bool(exported)
    rows = exported or [row for row in await albums.with_files(store) if _had_stage(report, row)]
    with_facts = [name for name, stage in later_stages(settings).items() if not stage.output]
    pages = []
    for number, row in enumerate(rows, start=1):
        query, where = (
            ("photos_of_album", {"album": row.id}) if of_run else ("present_photos_in", {"folder": row.folder})
        )
        photos = await store.all(query, where)
        names = await _place_names(store, row.folder, with_facts) if with_places else {}
        found = await anyio.to_thread.run_sync(_photos, places.export_folder, row.folder, photos, names, with_places)
        status = row.status if of_run else AlbumStatus.DONE
        pages.append(PageAlbum(number, row, status, found, row.seconds if of_run else 0.0, of_run))
    return PageFacts(
        report=report,
        albums=tuple(pages),
        examples=tuple([each async for each in _examples(store, report, places, with_places)]),
        timeline=await timeline_of(store, run, {row.folder: row.album.path for row in rows}),
        positions=tuple(_positions(pages)) if with_places else (),
    )


def _had_stage(report: RunReport, row: AlbumRow) -> bool:
    """Whether a run without an export came to the album in one of its stages."""
    return any(
        album.folder == row.folder and album.row is not None and album.row.run_id == report.run.id
        for stage in report.stages
        for album in stage.albums
    )


# ── photos ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _place_names(store: Store, folder: str, stages: Iterable[str]) -> dict[str, str]:
    """Exported file name → where it was taken, in words; the last stage knows best."""
    names = list(stages)
    found: dict[str, tuple[int, str]] = {}
    for row in await store.all("stage_facts", {"folder": folder, "stages": orjson.dumps(names).decode()}):
        location = orjson.loads(row["facts"]).get("location")
        words = location.get("formatted") if isinstance(location, dict) else None
        rank = names.index(row["stage"])
        if isinstance(words, str) and rank >= found.get(row["photo"], (-1, ""))[0]:
            found[row["photo"]] = (rank, words)
    return {photo: words for photo, (_, words) in found.items()}


def _photos(
    export_folder: Path, folder: str, rows: Iterable[Row], names: Mapping[str, str], with_places: bool
) -> tuple[PagePhoto, ...]:
    """The photos as they are found; blocks. Of what lies beside them (a sidecar, an original) only what is wrong."""
    try:
        with Beneath(export_folder) as beneath:
            found = [(row, _photo(beneath, folder, row, names, with_places)) for row in rows]
    except OSError:  # the export folder is not there at all
        found = [(row, _photo(None, folder, row, names, with_places)) for row in rows]
    as_it_should_be = (OnDisk.THERE, OnDisk.PUT_AWAY)
    return tuple(
        photo
        for row, photo in found
        if not (Component(row["component"]).is_companion and photo.disk in as_it_should_be)
    )


def _photo(beneath: Beneath | None, folder: str, row: Row, names: Mapping[str, str], with_places: bool) -> PagePhoto:
    status, name = PhotoStatus(row["status"]), row["file_name"]
    facts, disk, file = None, OnDisk.NEVER, None
    if status is PhotoStatus.EXPORTED:
        facts = facts_from_row(row)
        disk, key, size = _found(beneath, folder, row)
        if disk in (OnDisk.THERE, OnDisk.CHANGED) and beneath is not None:
            file = PageFile(beneath.path, folder, name, key, size)
    where = facts.location if with_places and facts is not None else None
    place = names.get(name, "")
    return PagePhoto(name, row["original_filename"], status, row["reason"], disk, file, facts, place, where)


def _found(beneath: Beneath | None, folder: str, row: Row) -> tuple[OnDisk, str, int]:
    """How the file is found, the key of its thumbnail, and its size."""
    try:
        if beneath is None:
            raise FileNotFoundError
        found = beneath.stat((folder, *row["file_name"].split("/")))
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        return (OnDisk.GONE if row["present"] else OnDisk.PUT_AWAY), "", 0
    same = found.st_size == row["size"] and abs(found.st_mtime_ns - row["mtime_ns"]) <= MTIME_TOLERANCE_NS
    if same:
        return OnDisk.THERE, row["sha256"], found.st_size
    if not row["present"]:
        return OnDisk.PUT_AWAY, "", 0
    other = f"{folder}\0{row['file_name']}\0{found.st_size}\0{found.st_mtime_ns}"
    return OnDisk.CHANGED, sha256(other.encode(errors="surrogateescape")).hexdigest(), found.st_size


def degrees_in_words(latitude: float, longitude: float) -> str:
    """`46.5584° N, 7.8927° E`."""
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.4f}° {north}, {abs(longitude):.4f}° {east}"


def _positions(pages: Iterable[PageAlbum]) -> Iterator[Position]:
    for album in pages:
        for photo in album.photos:
            if photo.location is not None:
                yield Position(photo.location.latitude, photo.location.longitude, photo.named_place, album.number)


# ── stages ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _examples(
    store: Store, report: RunReport, places: CatalogPlaces, with_places: bool
) -> AsyncIterator[Example]:
    """Of each stage that the run had one picture, of the same photo where that can be: one of which much is known."""
    wanted: tuple[str, str] | None = None
    for stage in report.stages:
        if not stage.in_run:
            continue
        rows = await store.all("stage_examples", {"stage": stage.name})
        rows.sort(key=lambda row: ((row["folder"], row["photo"]) != wanted, -len(row["facts"] or "")))
        for row in rows:
            example = await anyio.to_thread.run_sync(_example, stage.name, row, places, with_places)
            if example is not None:
                wanted = (row["folder"], row["photo"])
                yield example
                break


def _example(stage: str, row: Row, places: CatalogPlaces, with_places: bool) -> Example | None:
    """None where a file of it is not there."""
    facts = orjson.loads(row["facts"]) if row["facts"] else {}
    found = tuple(islice(sorted(_leaves(facts, with_places)), _MOST_FACTS))
    place = places.stages.get(stage)
    if not row["file_name"]:
        before = _file(
            places.speak_of.get(stage, places.export_folder), row["folder"], row["input"], row["input_sha256"]
        )
        return Example(stage, before, None, found) if before is not None else None
    source = places.folder_of(place.reads) if place is not None else None
    if place is None or source is None:
        return None
    before = _file(source, row["folder"], row["input"], row["input_sha256"])
    after = _file(place.folder, row["folder"], row["file_name"], row["sha256"])
    return Example(stage, before, after, found) if before is not None and after is not None else None


def _file(folder: Path, album: str, name: str, content: str) -> PageFile | None:
    """A file that is there, None where it is not."""
    with suppress(OSError), Beneath(folder) as beneath:
        found = beneath.stat((album, name))
        if stat.S_ISREG(found.st_mode):
            return PageFile(folder, album, name, content, found.st_size)
    return None


def _leaves(facts: Mapping[str, Any], with_places: bool) -> Iterator[tuple[str, str]]:
    """Names and values as a person reads them; nothing of the whereabouts where they are not wanted."""
    for name, value in facts.items():
        if (not with_places and name in _WHEREABOUTS) or name in ("width", "height"):
            continue
        words = name.replace("_", " ")
        if isinstance(value, dict):
            latitude, longitude = value.get("lat"), value.get("lon")
            if isinstance(value.get("formatted"), str):
                yield words, value["formatted"]
            elif isinstance(latitude, float) and isinstance(longitude, float):
                yield "position", degrees_in_words(latitude, longitude)
            else:
                yield from _leaves(value, with_places)
        elif isinstance(value, list):
            texts = [str(each) for each in value if isinstance(each, str | int | float)]
            if texts:
                yield words, ", ".join(texts)
        elif value not in (None, "") and not isinstance(value, bool):
            yield words, str(value)


def moment(text: str | None) -> datetime | None:
    """A time as rows and photos have it, None for what is none."""
    with suppress(ValueError):
        return datetime.fromisoformat(text) if text else None
    return None
