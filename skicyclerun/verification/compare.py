"""`verify`: what the database expects against the files on disk and the catalog, on all cores, page by page.

    pages of rows ──▶ workers (files in threads) ──▶ problems by album ──▶ strangers, left-over entries ──▶ report

The exported files first, then those of each stage. Only reads. Bounded in memory: rows are read in pages and handed out
in batches; what grows with the export are the catalog's text and the names of the files.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from skicyclerun.catalog.entries import is_derived, is_ours, split_path
from skicyclerun.catalog.master_json import CatalogReading, read_catalog
from skicyclerun.catalog.moved import pointers_of
from skicyclerun.catalog.records import CatalogPlaces, catalog_places
from skicyclerun.errors import NoState, StateDamaged
from skicyclerun.files.naming import ORIGINALS_FOLDER
from skicyclerun.settings.models import Settings
from skicyclerun.state import albums, runs, stage_albums
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.runs import RunRow
from skicyclerun.state.stage_albums import StageAlbumRow
from skicyclerun.state.store import Row, Store
from skicyclerun.verification.files import FileChecks, KnownFiles
from skicyclerun.verification.report import (
    AlbumVerification,
    Depth,
    Finding,
    Problem,
    StageVerification,
    VerificationReport,
)
from skicyclerun.verification.workers import Advance, FileWork, Progress

#: In the options of a run: the run whose files it put right. Its albums hold only what was fetched again.
REPAIR_OPTION: Final = "repairs_run"


async def verify(
    store: Store,
    settings: Settings,
    depth: Depth,
    *,
    running: str = "",
    advance: Advance | None = None,
    also_in_full_after: int | None = None,
    also_in_full: Collection[int] = (),
) -> VerificationReport:
    """Compare database, files and catalog.

    Read in full whatever the depth: photo rows with a higher id than `also_in_full_after`, and the stages' rows
    `also_in_full`. Raises NoState where there has been no run, StateDamaged where SQLite finds the database damaged,
    StorageError where the catalog may not be read.
    """
    began = anyio.current_time()
    await _check_database(store, thoroughly=depth.kind == "full")
    everything = await runs.listing(store)
    if not everything:
        raise NoState(store.path)
    base = base_run(everything)
    paths, places = settings.paths, catalog_places(settings)
    catalog = await anyio.to_thread.run_sync(read_catalog, paths.master_catalog)
    entries = catalog.entries if catalog.exists and not catalog.problem else None
    stages = await _stages_with_rows(store, places)
    counts = await _file_counts(store, stages)
    picked = await _picked(store, depth, stages)
    looked_at = ["", *(stage for stage in stages if stage in places.stages)]
    progress = Progress(sum(counts[each] for each in looked_at), advance)
    known = {paths.apple_photos_export: KnownFiles()}
    full = depth.kind == "full"

    work = FileWork(
        store,
        FileChecks(paths.apple_photos_export, entries, settings.export.max_pixels),
        "present_photos_page",
        {},
        known[paths.apple_photos_export],
        partial(_is_read_in_full, full, picked[""], also_in_full_after),
        progress,
    )
    await work.carry_out()
    for row in await store.all("names_to_come"):
        work.known.add(row["folder"], row["file_name"])
    stage_works: dict[str, FileWork] = {}
    for stage in looked_at[1:]:
        place = places.stages[stage]
        stage_works[stage] = FileWork(
            store,
            FileChecks(place.folder, entries, settings.export.max_pixels, stage),
            "stage_names_page",
            {"stage": stage},
            known.setdefault(place.folder, KnownFiles()),
            partial(_is_read_in_full, full, {*picked[stage], *also_in_full}, None),
            progress,
        )
        await stage_works[stage].carry_out()
    strangers = {
        folder: await anyio.to_thread.run_sync(names.strangers, folder, abandon_on_cancel=True)
        for folder, names in known.items()
    }
    left_over, of_export, of_stages = await anyio.to_thread.run_sync(
        partial(_entries_without_file, catalog, known, stages, places)
    )
    other = [
        *_catalog_problems(catalog, progress.done),
        *left_over,
        *await anyio.to_thread.run_sync(_entries_that_point_nowhere, catalog),
        *strangers.pop(paths.apple_photos_export),
    ]
    return VerificationReport(
        depth=depth,
        run_id=base.id,
        unfinished=everything[-1].unfinished,
        running=running,
        export_folder=paths.apple_photos_export,
        master_catalog=paths.master_catalog,
        albums=tuple(await _albums(store, base, work)),
        stages=tuple(await _stages(store, everything[-1], stages, places, stage_works, strangers, counts)),
        other=tuple(other),
        files=work.found.files.total(),
        in_full=work.found.in_full.total(),
        bytes_read=sum(each.found.bytes_read for each in (work, *stage_works.values())),
        entries=of_export,
        stage_entries=of_stages,
        seconds=anyio.current_time() - began,
        can_be_retried=await _has_failed(store, everything[-1]),
    )


def _is_read_in_full(everything: bool, picked: Collection[int], after: int | None, row_id: int) -> bool:
    return everything or row_id in picked or (after is not None and row_id > after)


def base_run(everything: Sequence[RunRow]) -> RunRow:
    """The run whose albums are expected: the newest export that is no repair. Raises LookupError for no run at all."""
    exports = [run for run in everything if "export" in run.stages and REPAIR_OPTION not in run.options]
    return exports[-1] if exports else everything[-1]


async def _has_failed(store: Store, run: RunRow) -> bool:
    """Whether `retry-failed`, which means the newest run, has something to ask for again."""
    if await albums.listing(store, run.id, AlbumStatus.FAILED):
        return True
    return any(row.status is AlbumStatus.FAILED for row in await stage_albums.of_run(store, run.id))


async def _check_database(store: Store, *, thoroughly: bool) -> None:
    row = await store.one("integrity" if thoroughly else "quick_integrity")
    found = str(row[0]) if row is not None else "no answer"
    if found != "ok":
        raise StateDamaged(store.path, found.splitlines()[-1])


async def _stages_with_rows(store: Store, places: CatalogPlaces) -> list[str]:
    """Those that have ever run, in pipeline order; last those that the configuration no longer names."""
    found = {row["stage"] for row in await store.all("stages_with_rows")}
    return [*(stage for stage in places.order if stage in found), *sorted(found - set(places.order))]


async def _file_counts(store: Store, stages: Sequence[str]) -> dict[str, int]:
    """How many files rows speak for: of the export ("") and of each stage."""
    counts = {}
    for stage in ("", *stages):
        query, parameters = ("count_files_of_stage", {"stage": stage}) if stage else ("count_present", {})
        row = await store.one(query, parameters)
        counts[stage] = int(row["files"]) if row is not None else 0
    return counts


async def _picked(store: Store, depth: Depth, stages: Sequence[str]) -> Mapping[str, Collection[int]]:
    """Ids of the rows that a sample reads in full, by stage ("": the export): the same for the same rows and seed."""
    picked: dict[str, set[int]] = {stage: set() for stage in ("", *stages)}
    if depth.kind != "sample":
        return picked
    ids = [("", row["id"]) for row in await store.all("present_ids")]
    for stage in stages:
        ids += [(stage, row["id"]) for row in await store.all("stage_file_ids", {"stage": stage})]
    wanted = depth.count if depth.count is not None else math.ceil(len(ids) * (depth.share or 0))
    for stage, row_id in random.Random(depth.seed).sample(ids, min(wanted, len(ids))):
        picked[stage].add(row_id)
    return picked


# ── albums ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _albums(store: Store, base: RunRow, work: FileWork) -> list[AlbumVerification]:
    """The albums of the run, then folders of earlier runs whose files are still there."""
    since = {"run_id": base.id, "source_kind": base.source_kind.value, "source_location": base.source_location}
    newest = {row["source_id"]: AlbumRow.of(row) for row in await store.all("albums_since", since)}
    counts = await albums.accounting_of_run(store, base.id)
    recovered = {row["album"]: row["photos"] for row in await store.all("recovered_since", since)}
    outstanding: dict[str, list[Problem]] = {}
    for row in await store.all("outstanding_photos", since):
        outstanding.setdefault(row["album_id"], []).append(_not_exported(row))
    verified = []
    for album in await albums.listing(store, base.id):
        accounted = counts[album.id]
        now = newest.get(album.album.id, album)
        if album.expected is None and now.expected is not None:
            # Its photos were never planned; a repair has planned all of them.
            album, accounted = now, await albums.accounting(store, now.id)
        problems = outstanding.get(album.album.id, [])
        if now.status is not AlbumStatus.DONE and not problems:
            reason = now.reason or f"the album is {now.status}"
            problems = [Problem(Finding.ALBUM_UNFINISHED, album.folder, "", reason)]
        expected = album.album.photo_count if album.expected is None else album.expected
        exported = accounted.exported + recovered.get(album.id, 0)
        verified.append(_verified(album, work, now.status, expected, exported, accounted.left_out, problems))
    seen = {album.folder for album in verified}
    for row in await store.all("folders_present"):
        if row["folder"] not in seen:
            seen.add(row["folder"])
            album = AlbumRow.of(row)  # of an earlier run, and its files are still there
            files = work.found.files[album.folder]
            verified.append(_verified(album, work, album.status, files, files, 0, ()))
    return verified


def _verified(
    album: AlbumRow,
    work: FileWork,
    status: AlbumStatus,
    expected: int,
    exported: int,
    left_out: int,
    problems: Sequence[Problem],
) -> AlbumVerification:
    found, folder = work.found, album.folder
    told = (*problems, *_in_order(found.problems[folder]))
    counts = (expected, exported, left_out, found.files[folder], found.in_full[folder])
    return AlbumVerification(folder, album.album.path, status.value, *counts, told)


def _not_exported(row: Row) -> Problem:
    reason = row["reason"] or ("not reached yet" if row["status"] == "planned" else row["status"])
    name = row["original_filename"]
    reason = reason.removeprefix(f"{name}: ").removeprefix(f"{name} ")  # Said once.
    return Problem(Finding.NOT_EXPORTED, row["folder"], name, reason, row["id"])


def _in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    """By row: workers finish in any order, reports do not differ for it."""
    return tuple(sorted(problems, key=lambda problem: problem.row_id or 0))


# ── stages ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _stages(
    store: Store,
    newest: RunRow,
    stages: Sequence[str],
    places: CatalogPlaces,
    works: Mapping[str, FileWork],
    strangers: dict[Path, list[Problem]],
    counts: Mapping[str, int],
) -> list[StageVerification]:
    """The stages that have ever run. Strangers in a folder that several write to are told of with the first."""
    here = {row.folder for row in await albums.with_files(store)}
    unfinished: dict[str, list[Problem]] = {}
    for row in await stage_albums.latest(store, newest.id):
        if row.status is not AlbumStatus.DONE and row.folder in here:
            unfinished.setdefault(row.stage, []).append(_unfinished(row))
    verified = []
    for stage in stages:
        place, work = places.stages.get(stage), works.get(stage)
        known = stage in places.order
        facts = await store.one("count_stage_facts", {"stage": stage})
        problems = list(unfinished.get(stage, [])) if known else []
        if place is not None and work is not None:
            problems += _in_order([each for found in work.found.problems.values() for each in found])
            problems += [replace(each, stage=stage) for each in strangers.pop(place.folder, [])]
        verified.append(
            StageVerification(
                stage=stage,
                folder=place.folder if place is not None else None,
                configured=known and (place is not None or not counts[stage]),
                files=counts[stage] if work is None else work.found.files.total(),
                in_full=work.found.in_full.total() if work is not None else 0,
                facts=int(facts["pictures"]) if facts is not None else 0,
                problems=tuple(problems),
            )
        )
    return verified


def _unfinished(row: StageAlbumRow) -> Problem:
    reason = row.reason or f"the album is {row.status}"
    return Problem(Finding.ALBUM_UNFINISHED, row.folder, "", reason, stage=row.stage)


# ── the catalog ───────────────────────────────────────────────────────────────────────────────────────────────────


def _catalog_problems(catalog: CatalogReading, files: int) -> list[Problem]:
    if catalog.problem:
        return [Problem(Finding.CATALOG_DAMAGED, "", "", f"it cannot be used: {catalog.problem}")]
    if not catalog.exists and files:
        return [Problem(Finding.CATALOG_ABSENT, "", "", "it is not there")]
    return []


def _entries_without_file(
    catalog: CatalogReading, known: Mapping[Path, KnownFiles], stages: Sequence[str], places: CatalogPlaces
) -> tuple[list[Problem], int, int]:
    """Entries of ours that no row speaks for, and how many of ours there are: of exported files, of files of stages.

    The files of a stage that has rows here and no place in the configuration are not looked for, so neither are theirs.
    """
    problems: list[Problem] = []
    ours = [0, 0]
    names = {str(folder): files for folder, files in known.items()}
    elsewhere = {stage for stage in stages if stage not in places.stages}
    entries: Mapping[str, Any] = catalog.entries
    for path in entries:
        above, folder_name, name = split_path(path)
        if folder_name == ORIGINALS_FOLDER and above not in names:
            above, folder_name, name = split_path(path, original=True)
        if above in names and names[above].holds(folder_name, name):
            ours[above != str(places.export_folder)] += 1
            continue
        entry = entries[path]
        if not is_ours(entry):
            continue
        derived = is_derived(entry)
        ours[derived] += 1
        there = os.path.lexists(path)
        if derived and there and entry["made_by"]["stage"] in elsewhere:
            continue
        detail = "the database knows no such file" if there else "there is no such file"
        problems.append(Problem(Finding.ENTRY_WITHOUT_FILE, folder_name, path, detail))
    return problems, ours[0], ours[1]


def _entries_that_point_nowhere(catalog: CatalogReading) -> list[Problem]:
    """Entries of other programs for files that are not there, and entries of anybody that name such files.

    A file that has an entry is told of with that, if it is not there.
    """
    problems: list[Problem] = []
    entries: Mapping[str, Any] = catalog.entries
    seen: dict[str, bool] = {}

    def is_nowhere(path: str) -> bool:
        if path not in seen:
            seen[path] = path not in entries and not os.path.lexists(path)
        return seen[path]

    for path in entries:
        entry = entries[path]
        told: list[str] = []
        if path.startswith("/") and not is_ours(entry) and not os.path.lexists(path):
            told.append("there is no such file")
        nowhere = [(key, target) for key, target in pointers_of(entry) if is_nowhere(target)]
        told += [f"its {key} names {target}, which has no entry and is not there" for key, target in nowhere]
        if told:
            folder = os.path.basename(os.path.dirname(path))
            targets = tuple(dict.fromkeys(target for _, target in nowhere))
            problems.append(Problem(Finding.POINTS_NOWHERE, folder, path, "; ".join(told), names=targets))
    return problems
