"""`verify`: what the database expects against the files on disk and the catalog, on all cores, page by page.

    pages of rows ──▶ workers (files in threads) ──▶ problems by album ──▶ strangers, left-over entries ──▶ report

Only reads. Bounded in memory: rows are read in pages and handed out in batches; what grows with the export are the
catalog's text and the names of the files.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.catalog.entries import is_ours
from skicyclerun.catalog.master_json import CatalogReading, read_catalog
from skicyclerun.errors import NoState, StateDamaged
from skicyclerun.settings.models import Settings
from skicyclerun.state import albums, runs
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Row, Store
from skicyclerun.verification.files import Checked, FileChecks, KnownFiles
from skicyclerun.verification.report import AlbumVerification, Depth, Finding, Problem, VerificationReport

_PAGE: Final = 2000
_QUICK_BATCH: Final = 200
_FULL_BATCH: Final = 4

#: Hears how many files are checked, and of how many.
Advance = Callable[[int, int], None]
_Batch = list[tuple[Row, bool]]

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
) -> VerificationReport:
    """Compare database, files and catalog.

    `also_in_full_after`: rows with a higher id are read in full whatever the depth. Raises NoState where there has
    been no run, StateDamaged where SQLite finds the database damaged, StorageError where the catalog may not be read.
    """
    began = anyio.current_time()
    await _check_database(store, thoroughly=depth.kind == "full")
    everything = await runs.listing(store)
    if not everything:
        raise NoState(store.path)
    base = base_run(everything)
    paths = settings.paths
    catalog = await anyio.to_thread.run_sync(read_catalog, paths.master_catalog)
    usable = catalog.exists and not catalog.problem
    checks = FileChecks(
        paths.apple_photos_export, catalog.entries if usable else None, max_pixels=settings.export.max_pixels
    )
    work = _Work(store, checks, await _picked(store, depth), depth.kind == "full", also_in_full_after, advance)
    await work.carry_out()
    for row in await store.all("names_to_come"):
        work.known.add(row["folder"], row["file_name"])
    strangers = await anyio.to_thread.run_sync(work.known.strangers, paths.apple_photos_export)
    left_over, entries = await anyio.to_thread.run_sync(
        partial(_entries_without_file, catalog, work.known, paths.apple_photos_export)
    )
    other = [*_catalog_problems(catalog, work.checked_files), *left_over, *strangers]
    return VerificationReport(
        depth=depth,
        run_id=base.id,
        unfinished=everything[-1].unfinished,
        running=running,
        export_folder=paths.apple_photos_export,
        master_catalog=paths.master_catalog,
        albums=tuple(await _albums(store, base, work)),
        other=tuple(other),
        files=work.checked_files,
        in_full=sum(work.in_full.values()),
        bytes_read=work.bytes_read,
        entries=entries,
        seconds=anyio.current_time() - began,
    )


def base_run(everything: Sequence[RunRow]) -> RunRow:
    """The run whose albums are expected: the newest that is not a repair. Raises LookupError for no run at all."""
    return next((run for run in reversed(everything) if REPAIR_OPTION not in run.options), everything[-1])


async def _check_database(store: Store, *, thoroughly: bool) -> None:
    row = await store.one("integrity" if thoroughly else "quick_integrity")
    found = str(row[0]) if row is not None else "no answer"
    if found != "ok":
        raise StateDamaged(store.path, found.splitlines()[-1])


async def _picked(store: Store, depth: Depth) -> Collection[int]:
    """Ids of the rows that a sample reads in full: the same for the same rows, depth and seed."""
    if depth.kind != "sample":
        return ()
    ids = [row["id"] for row in await store.all("present_ids")]
    wanted = depth.count if depth.count is not None else math.ceil(len(ids) * (depth.share or 0))
    return frozenset(random.Random(depth.seed).sample(ids, min(wanted, len(ids))))


@dataclass(slots=True)
class _Work:
    """The files' part: a feeder, workers, and what they found."""

    store: Store
    checks: FileChecks
    picked: Collection[int]
    everything_in_full: bool
    in_full_after: int | None
    advance: Advance | None
    known: KnownFiles = field(default_factory=KnownFiles)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    in_full: dict[str, int] = field(default_factory=dict)
    bytes_read: int = 0
    checked_files: int = 0

    async def carry_out(self) -> None:
        counted = await self.store.one("count_present")
        total = int(counted["files"]) if counted is not None else 0
        outbox, inbox = anyio.create_memory_object_stream[_Batch](0)
        limiter = anyio.CapacityLimiter(os.cpu_count() or 1)
        async with inbox, anyio.create_task_group() as working:
            working.start_soon(self._feed, outbox)
            for _ in range(int(limiter.total_tokens)):
                working.start_soon(self._check, inbox, limiter, total)

    async def _feed(self, outbox: MemoryObjectSendStream[_Batch]) -> None:
        async with outbox:
            after = 0
            while rows := await self.store.all("present_photos_page", {"after": after, "limit": _PAGE}):
                after = rows[-1]["id"]
                for row in rows:
                    self.known.add(row["folder"], row["file_name"])
                for batch in self._batches(rows):
                    await outbox.send(batch)

    def _batches(self, rows: Sequence[Row]) -> Iterator[_Batch]:
        """Few files a batch where they are read, so that no core waits for the last one; many where they are not."""
        quick: _Batch = []
        full: _Batch = []
        for row in rows:
            batch, limit = (full, _FULL_BATCH) if self._in_full(row["id"]) else (quick, _QUICK_BATCH)
            batch.append((row, batch is full))
            if len(batch) >= limit:
                yield list(batch)
                batch.clear()
        yield from (batch for batch in (quick, full) if batch)

    def _in_full(self, row_id: int) -> bool:
        if self.everything_in_full or row_id in self.picked:
            return True
        return self.in_full_after is not None and row_id > self.in_full_after

    async def _check(
        self, inbox: MemoryObjectReceiveStream[_Batch], limiter: anyio.CapacityLimiter, total: int
    ) -> None:
        async for batch in inbox:
            # One that is given up only reads on to the end of its batch.
            checked = await anyio.to_thread.run_sync(self.checks.check, batch, limiter=limiter, abandon_on_cancel=True)
            self._enter(checked)
            self.checked_files += len(batch)
            if self.advance is not None:
                self.advance(self.checked_files, total)

    def _enter(self, checked: Checked) -> None:
        for folder, problems in checked.problems.items():
            self.problems.setdefault(folder, []).extend(problems)
        for into, counts in ((self.files, checked.files), (self.in_full, checked.in_full)):
            for folder, count in counts.items():
                into[folder] = into.get(folder, 0) + count
        self.bytes_read += checked.bytes_read


# ── albums ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _albums(store: Store, base: RunRow, work: _Work) -> list[AlbumVerification]:
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
        verified.append(
            AlbumVerification(
                folder=album.folder,
                path=album.album.path,
                status=now.status.value,
                expected=album.album.photo_count if album.expected is None else album.expected,
                exported=accounted.exported + recovered.get(album.id, 0),
                left_out=accounted.left_out,
                files=work.files.get(album.folder, 0),
                in_full=work.in_full.get(album.folder, 0),
                problems=(*problems, *_in_order(work.problems.get(album.folder, []))),
            )
        )
    seen = {album.folder for album in verified}
    for row in await store.all("folders_present"):
        if row["folder"] not in seen:
            seen.add(row["folder"])
            verified.append(_earlier(row, work))
    return verified


def _earlier(row: Row, work: _Work) -> AlbumVerification:
    """An album folder whose files were exported by earlier runs and are still there."""
    album = AlbumRow.of(row)
    files = work.files.get(album.folder, 0)
    return AlbumVerification(
        folder=album.folder,
        path=album.album.path,
        status=album.status.value,
        expected=files,
        exported=files,
        left_out=0,
        files=files,
        in_full=work.in_full.get(album.folder, 0),
        problems=_in_order(work.problems.get(album.folder, [])),
    )


def _not_exported(row: Row) -> Problem:
    reason = row["reason"] or ("not reached yet" if row["status"] == "planned" else row["status"])
    return Problem(Finding.NOT_EXPORTED, row["folder"], row["original_filename"], reason, row["id"])


def _in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    """By row: workers finish in any order, reports do not differ for it."""
    return tuple(sorted(problems, key=lambda problem: problem.row_id or 0))


# ── the catalog ───────────────────────────────────────────────────────────────────────────────────────────────────


def _catalog_problems(catalog: CatalogReading, files: int) -> list[Problem]:
    if catalog.problem:
        return [Problem(Finding.CATALOG_DAMAGED, "", "", f"it cannot be used: {catalog.problem}")]
    if not catalog.exists and files:
        return [Problem(Finding.CATALOG_ABSENT, "", "", "it is not there")]
    return []


def _entries_without_file(catalog: CatalogReading, known: KnownFiles, export_folder: Path) -> tuple[list[Problem], int]:
    """Entries of ours that no row speaks for, and how many entries of ours there are in all."""
    problems: list[Problem] = []
    ours = 0
    entries: Mapping[str, Any] = catalog.entries
    for path in entries:
        folder, name = os.path.split(path)
        above, folder_name = os.path.split(folder)
        if above == str(export_folder) and known.holds(folder_name, name):
            ours += 1
        elif is_ours(entries[path]):
            ours += 1
            there = os.path.lexists(path)
            detail = "the database knows no such file" if there else "there is no such file"
            problems.append(Problem(Finding.ENTRY_WITHOUT_FILE, folder_name, path, detail))
    return problems, ours
