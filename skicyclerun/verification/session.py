"""`verify` and `verify --repair` from request to report: state, look, repair under the run lock, look again."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import orjson

from skicyclerun.actors.messages import ConfigureRun, Intent
from skicyclerun.catalog.master_json import CatalogWrite
from skicyclerun.catalog.records import catalog_places
from skicyclerun.catalog.update import bring_up_to_date
from skicyclerun.errors import SourceError, UsageError
from skicyclerun.models import SourceKind
from skicyclerun.progress.events import Notice, Renderer
from skicyclerun.run.lock import RunLock, current_holder
from skicyclerun.run.log_file import open_run_log
from skicyclerun.run.pipeline import PipelineParts, run_pipeline, unwrapped
from skicyclerun.run.plan import source_for
from skicyclerun.run.session import render
from skicyclerun.run.shutdown import Shutdown, listen
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.settings.load import check_source_and_outputs
from skicyclerun.settings.models import Settings
from skicyclerun.sources.base import Source
from skicyclerun.state import albums, runs
from skicyclerun.state.repairs import create_repair_run
from skicyclerun.state.store import Store
from skicyclerun.verification.compare import REPAIR_OPTION, Advance, verify
from skicyclerun.verification.repair import SourceRepair, albums_to_repair, keep_what_stands, plan_repair, set_times
from skicyclerun.verification.report import (
    CATALOGED_AGAIN,
    Depth,
    Finding,
    Problem,
    RepairSummary,
    VerificationReport,
)

log = logging.getLogger(__name__)

MakeSource = Callable[[str, Path | None, Settings, ExportOptions], Source]

# What a quick second look cannot see of a file that is still as it was.
_SEEN_ONLY_IN_FULL = frozenset(
    {Finding.CONTENT_DIFFERS, Finding.DAMAGED, Finding.POSITION_LOST, Finding.DATE_LOST, Finding.UNREADABLE}
)


@dataclass(frozen=True, slots=True)
class VerifyOutcome:
    """`signal_code`: 130 or 143 where a signal ended the repair early."""

    report: VerificationReport
    signal_code: int | None = None


async def verify_only(settings: Settings, depth: Depth, *, advance: Advance | None = None) -> VerifyOutcome:
    """Look, and change nothing. Raises NoState, StateError, StorageError."""
    state_db = settings.paths.state_db
    async with await Store.open_to_read(state_db) as store:
        holder = current_holder(lock_file(settings)) or ""
        report = await verify(store, settings, depth, running=holder, advance=advance)
        # A run may have begun meanwhile; what it does shows as much.
        return VerifyOutcome(replace(report, running=holder or current_holder(lock_file(settings)) or ""))


async def verify_and_repair(
    settings: Settings,
    depth: Depth,
    renderer: Renderer,
    *,
    advance: Advance | None = None,
    make: MakeSource = source_for,
) -> VerifyOutcome:
    """Look, export again what is broken, write the catalog where it is wrong, and look again.

    Raises LockHeld, NoState, UsageError where a run is unfinished, StateError, StorageError, and SourceStopped where
    the source cannot go on; the repair can then be carried on with `run --resume`.
    """
    # Where there is nothing to repair, nothing is made: not even the lock file.
    async with await Store.open_to_read(settings.paths.state_db):
        pass
    with RunLock(settings.lib_root, lock_file(settings)):
        log_path = settings.log_file(datetime.now(UTC).strftime("%Y%m%d_%H%M%S"))
        with open_run_log(log_path, settings.logging.level):
            log.info("verify --repair: %s", " ".join(sys.argv[1:]))
            try:
                async with await Store.open(settings.paths.state_db) as store:
                    outcome = await _Repair(store, settings, depth, renderer, advance, make).carry_out()
            except BaseExceptionGroup as group:
                log.critical("the repair ended early", exc_info=group)
                raise unwrapped(group) from group
    return outcome


def lock_file(settings: Settings) -> Path:
    """The file whose lock a run holds."""
    return settings.paths.state_db.parent / "run.lock"


async def write_whole_catalog(
    store: Store, settings: Settings, *, also_gone: Sequence[str] = (), even_if_nothing: bool = False
) -> CatalogWrite:
    """Bring `master.json` up to what the database says, every record of it. Raises StorageError.

    `also_gone`: further paths whose entries go. A catalog that cannot be used is set aside and made anew. Where the
    database knows no file and there is no catalog, none is made unless `even_if_nothing`.
    """
    places, path = catalog_places(settings), settings.paths.master_catalog
    known = await store.one("count_present")
    if not (known and known["files"]) and not even_if_nothing and not await anyio.Path(path).exists():
        return CatalogWrite(False, None, 0)
    return await bring_up_to_date(store, places, path, also_gone=also_gone)


class _Repair:
    """One repair, under the run lock."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        depth: Depth,
        renderer: Renderer,
        advance: Advance | None,
        make: MakeSource,
    ) -> None:
        self._store = store
        self._settings = settings
        self._depth = depth
        self._renderer = renderer
        self._advance = advance
        self._make = make
        self._shutdown = Shutdown()
        stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
        self._kept_folder = settings.paths.archive / f"repair_{stamp}"
        self._notes: list[str] = []
        self._runs: list[int] = []
        self._kept = 0
        self._was_there = False
        """Whether there was an export folder: where there is none, its disk may just not be mounted, and no entry is
        dropped."""

    async def carry_out(self) -> VerifyOutcome:
        store = self._store
        latest = await runs.latest(store)
        if latest is not None and latest.unfinished:
            raise UsageError(
                f"Run {latest.id} is unfinished; what it has not exported yet is not broken. Nothing was touched.",
                next_step="`skicyclerun run --resume` carries on with it; then `skicyclerun verify --repair`.",
            )
        first = await verify(store, self._settings, self._depth, advance=self._advance)
        last = await store.one("last_photo_id")
        assert last is not None
        folder = self._settings.paths.apple_photos_export
        self._was_there = await anyio.Path(folder).is_dir()
        times, notes = await set_times(store, first, folder)
        self._notes += notes
        async with anyio.create_task_group() as watching:
            await watching.start(partial(listen, self._shutdown, watching.cancel_scope.cancel, self._say))
            for repair in await plan_repair(store, first):
                if not self._shutdown.draining:
                    await self._fetch_again(repair, first.run_id)
            watching.cancel_scope.cancel()
        written = await self._write_catalog(first)
        counts = [each for run_id in self._runs for each in (await albums.accounting_of_run(store, run_id)).values()]
        summary = RepairSummary(
            runs=tuple(self._runs),
            fetched_again=sum(each.expected for each in counts),
            repaired=sum(each.exported for each in counts),
            times_set=times,
            kept_in=self._kept_folder if self._kept else None,
            catalog_written=written,
            notes=tuple(self._notes),
        )
        if self._shutdown.exit_code is not None:
            said = "Stopped; what follows was found before the repair. `skicyclerun run --resume` carries on with it."
            stopped = replace(summary, notes=(*summary.notes, said))
            return VerifyOutcome(replace(first, repair=stopped), self._shutdown.exit_code)
        second = await verify(store, self._settings, Depth(), also_in_full_after=last["id"], advance=self._advance)
        left = await self._with_what_was_seen(first, second)
        seconds = first.seconds + second.seconds
        in_full, read = first.in_full + second.in_full, first.bytes_read + second.bytes_read
        return VerifyOutcome(
            replace(left, depth=self._depth, seconds=seconds, in_full=in_full, bytes_read=read, repair=summary)
        )

    async def _fetch_again(self, repair: SourceRepair, base: int) -> None:
        """One run over what is broken of one source. Where the source cannot be had, a note, and nothing is touched."""
        settings = self._settings
        stored: dict[str, Any] = orjson.loads(repair.options)
        options = ExportOptions.from_row(stored)
        library = None if repair.kind is SourceKind.APPLE_PHOTOS else Path(repair.location)
        async with AsyncExitStack() as stack:
            try:
                source = self._make(repair.kind.value, library, settings, options)
                if library is not None:
                    check_source_and_outputs(settings, library)
                stack.push_async_callback(source.close)
                await source.open()
            except (SourceError, UsageError) as error:
                self._notes.append(f"Nothing could be exported again from {repair.location}: {error}")
                return
            kept, refused, notes = await keep_what_stands(repair, settings.paths.apple_photos_export, self._kept_folder)
            self._kept += kept
            self._notes += notes
            found = await albums_to_repair(repair, source, refused)
            if not found:
                return
            run = await create_repair_run(
                self._store,
                source_kind=source.kind,
                source_location=repair.location,
                options=stored | {REPAIR_OPTION: base},
                albums=found,
            )
            self._runs.append(run.id)
            command = ConfigureRun(Intent.RESUME, settings, ("export",), ())
            parts = PipelineParts(self._store, source, render, self._renderer, self._shutdown)
            await run_pipeline(command, parts)

    async def _write_catalog(self, first: VerificationReport) -> bool:
        """Write it where it was wrong; what was exported again is in it already. Raises StorageError."""
        wrong = [problem for problem in first.problems if problem.finding in CATALOGED_AGAIN]
        if not wrong:
            return bool(self._runs)
        left_over = [problem.name for problem in wrong if problem.finding is Finding.ENTRY_WITHOUT_FILE]
        gone = await anyio.to_thread.run_sync(_truly_gone, left_over, first.export_folder) if self._was_there else []
        written = await write_whole_catalog(self._store, self._settings, also_gone=gone)
        if written.problem:
            self._notes.append(written.problem)
        return written.written or bool(self._runs)

    async def _with_what_was_seen(self, first: VerificationReport, second: VerificationReport) -> VerificationReport:
        """The second report, with what only the first look could see of files that are still the same."""
        deep = [p for p in first.problems if p.finding in _SEEN_ONLY_IN_FULL and p.row_id is not None]
        ids = orjson.dumps([problem.row_id for problem in deep]).decode()
        still = {row["id"] for row in await self._store.all("still_present", {"ids": ids})}
        named = {problem.row_id for problem in second.problems}
        by_folder: dict[str, list[Problem]] = {}
        for problem in deep:
            if problem.row_id in still and problem.row_id not in named:
                by_folder.setdefault(problem.folder, []).append(problem)
        merged = tuple(
            replace(album, problems=(*album.problems, *by_folder[album.folder])) if album.folder in by_folder else album
            for album in second.albums
        )
        return replace(second, albums=merged)

    def _say(self, text: str) -> None:
        self._renderer.handle(Notice(text, "warning"))


def _truly_gone(paths: Sequence[str], export_folder: Path) -> list[str]:
    """Those that lie in an album folder's place and are not there."""
    inside = [path for path in paths if os.path.dirname(os.path.dirname(path)) == str(export_folder)]
    return [path for path in inside if not os.path.lexists(path)]
