"""A state database made anew from what is known of the files, and what can still be read of a damaged one.

Every row goes the way it would have gone in a run: the album state machine, its triggers and the record of transitions
see nothing but legal steps.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skicyclerun.models import Album, ExportedFacts, Photo, SourceKind
from skicyclerun.state import albums, photos, runs, stage_albums, stage_pictures
from skicyclerun.state.machine import RunTrigger
from skicyclerun.state.photos import Exported, NotExported, PhotoPlan, PhotoStatus
from skicyclerun.state.runs import RunRow
from skicyclerun.state.stage_albums import StageAlbumKey
from skicyclerun.state.stage_pictures import PictureFailed, PictureMade, PicturePlan, StageInput, Why
from skicyclerun.state.store import Store

_GROUP: Final = 1000


@dataclass(frozen=True, slots=True)
class RebuiltPhoto:
    """A photo that was exported once; `facts` None: its file is gone, and `reason` says so."""

    photo: Photo
    file_name: str
    facts: ExportedFacts | None
    exported_at: str
    """ISO 8601 UTC: when it was, not when the database was rebuilt."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RebuiltAlbum:
    """An album and its folder."""

    album: Album
    folder: str


@dataclass(frozen=True, slots=True)
class RebuiltPicture:
    """What a stage made of a picture once; `reason`, where there is one, says why its file is not there."""

    input: StageInput
    """Of its size and time nothing is known."""
    depends: str
    made_at: str
    """ISO 8601 UTC: when it was, not when the database was rebuilt."""
    facts: Mapping[str, Any]
    file_name: str = ""
    """Empty: facts only."""
    size: int | None = None
    sha256: str | None = None
    mtime_ns: int | None = None
    width: int | None = None
    height: int | None = None
    note: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RebuiltStageAlbum:
    """What a stage made of an album."""

    stage: str
    folder: str
    position: int
    title: str
    """With the folders of the library, for people."""
    pictures: Sequence[RebuiltPicture]


async def rebuild(
    store: Store,
    *,
    source_kind: SourceKind,
    source_location: str,
    options: Mapping[str, Any],
    found: Sequence[RebuiltAlbum],
    photos_of: AsyncIterable[Sequence[RebuiltPhoto]],
    stages: Sequence[str],
    made_by_stages: AsyncIterable[RebuiltStageAlbum],
    reason: str,
) -> RunRow:
    """Enter one finished run. `photos_of` gives the photos of each album in turn, in the order of `found`; after them
    `made_by_stages` what the `stages` after the export made of these albums.

    Albums whose photos are all there are done; one with photos that are gone is failed, so that they can be asked for
    again. The folders of the albums are kept for the runs to come.
    """
    run = await runs.create(
        store,
        mode="fresh",
        stages=("export", *stages),
        source_kind=source_kind,
        source_location=source_location,
        selection=(),
        options=options,
    )
    folders = {each.album.id: each.folder for each in found}
    await albums.plan(store, run, folders, [each.album for each in found], ())
    rows = iter(await albums.listing(store, run.id))
    async for rebuilt in photos_of:
        row = next(rows)
        plans = [PhotoPlan(each.photo, each.file_name) for each in rebuilt]
        started = await albums.start(store, row, plans)
        await _settle(store, started.id, row.folder, rebuilt)
        await albums.finish(store, started, "", 0.0)
    async for made in made_by_stages:
        await _enter_stage_album(store, run.id, made)
    return await runs.step(store, run, RunTrigger.FINISH, reason)


async def _settle(store: Store, album_id: int, folder: str, rebuilt: Sequence[RebuiltPhoto]) -> None:
    by_name = {each.file_name: each for each in rebuilt}
    to_do = await photos.to_do(store, album_id)
    for start in range(0, len(to_do), _GROUP):
        group: list[Exported | NotExported] = []
        times = []
        for planned in to_do[start : start + _GROUP]:
            known = by_name[planned.file_name]
            if known.facts is None:
                group.append(NotExported(planned.row_id, PhotoStatus.FAILED, known.reason, 0))
                continue
            key = photos.path_key(folder, known.file_name)
            group.append(Exported(planned.row_id, key, known.facts, 1))
            times.append({"id": planned.row_id, "exported_at": known.exported_at})
        await photos.commit_group(store, group)
        async with store.transaction() as transaction:
            await transaction.execute_many("set_exported_at", times)


async def _enter_stage_album(store: Store, run_id: int, made: RebuiltStageAlbum) -> None:
    key = StageAlbumKey(run_id, made.stage, made.folder, made.position, made.title)
    plans = [PicturePlan(each.input, each.depends, each.file_name, Why.NEW) for each in made.pictures]
    album = await stage_albums.start(store, key, plans, (), 0)
    ids = {(row.input, row.variant): row.id for row in await stage_pictures.of_album(store, album.id)}
    for start in range(0, len(made.pictures), _GROUP):
        group: list[PictureMade | PictureFailed] = []
        times = []
        for each in made.pictures[start : start + _GROUP]:
            row_id = ids[each.input.file_name, each.input.variant]
            if each.reason:
                group.append(PictureFailed(row_id, each.reason, 0))
                continue
            group.append(
                PictureMade(
                    row_id=row_id,
                    attempts=1,
                    seconds=0.0,
                    facts=each.facts,
                    size=each.size,
                    sha256=each.sha256,
                    mtime_ns=each.mtime_ns,
                    width=each.width,
                    height=each.height,
                    note=each.note,
                )
            )
            times.append({"id": row_id, "made_at": each.made_at})
        await stage_pictures.commit_group(store, group)
        async with store.transaction() as transaction:
            await transaction.execute_many("set_stage_made_at", times)
    await stage_albums.finish(store, album, "", 0.0, 0)


@dataclass(frozen=True, slots=True)
class SalvagedRun:
    """What could still be read of a run in a damaged database."""

    source_kind: SourceKind
    source_location: str
    options: Mapping[str, Any]


def salvage_runs(database: Path) -> list[SalvagedRun]:
    """The runs that can still be read, newest first; empty where nothing can. Never raises for damage.

    Blocks. Reads only; a log beside the database is taken into account where SQLite can.
    """
    quoted = str(database.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    for flags in ("mode=ro", "mode=ro&immutable=1"):
        found: list[SalvagedRun] = []
        try:
            with closing(sqlite3.connect(f"file:{quoted}?{flags}", uri=True)) as connection:
                query = "SELECT source_kind, source_location, options FROM runs ORDER BY id DESC"
                for kind, location, options in connection.execute(query):
                    run = _salvaged(kind, location, options)
                    if run is not None:
                        found.append(run)
        except sqlite3.Error:
            pass  # What was read before the damage counts.
        if found:
            return found
    return []


def _salvaged(kind: object, location: object, options: object) -> SalvagedRun | None:
    """None for values that damage has made something else of."""
    if not isinstance(location, str) or not location or not isinstance(options, str):
        return None
    try:
        known = json.loads(options)
        return SalvagedRun(SourceKind(str(kind)), location, known) if isinstance(known, dict) else None
    except (ValueError, RecursionError):
        return None


def into_one_file(database: Path) -> None:
    """Write what the log holds into the database, so that it can be renamed alone. Nobody has it open. Blocks."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for companion in ("-wal", "-shm"):
        Path(f"{database}{companion}").unlink(missing_ok=True)
