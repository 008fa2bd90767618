"""`verify` and `verify --repair` from request to report: state, look, repair under the run lock, look again."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import orjson

from skicyclerun.actors.config import options_of
from skicyclerun.actors.messages import ConfigureRun, Intent
from skicyclerun.actors.render_processes import render
from skicyclerun.actors.stage_runs import PlannedStage, check_inputs, stage_runs
from skicyclerun.catalog.entries import split_path
from skicyclerun.catalog.master_json import CatalogWrite
from skicyclerun.catalog.records import catalog_places
from skicyclerun.catalog.update import bring_up_to_date
from skicyclerun.errors import ConfigError, SourceError, StageError, UsageError
from skicyclerun.models import SourceKind
from skicyclerun.progress.events import Notice, Renderer
from skicyclerun.run.lock import RunLock, current_holder
from skicyclerun.run.log_file import open_run_log
from skicyclerun.run.log_report import (
    say_beginning,
    say_early_end,
    say_ending,
    say_from_where,
    say_report,
    timestamp_now,
)
from skicyclerun.run.pipeline import PipelineParts, run_pipeline, unwrapped
from skicyclerun.run.plan import source_for
from skicyclerun.run.session import said_from_any_thread
from skicyclerun.run.shutdown import Shutdown, listen
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.settings.load import check_archive_place, check_source_and_outputs
from skicyclerun.settings.models import Settings
from skicyclerun.sources.base import Source
from skicyclerun.sources.chosen_photos import choosing
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.stages.registry import check_stage_needs, parse_stages
from skicyclerun.state import albums, runs, stage_albums
from skicyclerun.state.repairs import create_repair_run
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store
from skicyclerun.verification.compare import REPAIR_OPTION, verify
from skicyclerun.verification.repair import (
    KeptFiles,
    SourceRepair,
    albums_to_repair,
    plan_repair,
    removed_by_hand,
    rows_left_out,
    rows_of,
    set_times,
)
from skicyclerun.verification.repair_stages import (
    StageRepair,
    albums_in,
    options_of_stages,
    plan_stage_repair,
    stages_to_run,
)
from skicyclerun.verification.repair_stages import rows_of as stage_rows_of
from skicyclerun.verification.report import (
    CATALOGED_AGAIN,
    Depth,
    Finding,
    Problem,
    RepairSummary,
    VerificationReport,
    as_text,
)
from skicyclerun.verification.workers import Advance

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
    typed: str = "",
) -> VerifyOutcome:
    """Look, export or make again what is broken, write the catalog where it is wrong, and look again.

    Raises ConfigError where archives would go into the source, LockHeld, NoState, UsageError where a run is unfinished,
    StateError, StorageError, and SourceStopped where the source cannot go on; the repair can then be carried on with
    `run --resume`.
    """
    # Where there is nothing to repair, nothing is made: not even the lock file.
    async with await Store.open_to_read(settings.paths.state_db) as store:
        latest = await runs.latest(store)
        check_archive_place(settings, latest.source_folder if latest is not None else None)
    with RunLock(settings.lib_root, lock_file(settings)):
        began = anyio.current_time()
        with open_run_log(settings.log_file(timestamp_now()), settings.logging.level):
            say_beginning(typed)
            say_from_where(settings, "verify and repair", (), "that of each run whose files are repaired")
            ended = "early"
            try:
                async with await Store.open(settings.paths.state_db) as store:
                    outcome = await _Repair(store, settings, depth, renderer, advance, make).carry_out()
                say_report(as_text(outcome.report))
                ended = "nothing is wrong now" if outcome.report.sound else "something is wrong still"
            except BaseException as raised:
                error = unwrapped(raised) if isinstance(raised, BaseExceptionGroup) else raised
                say_early_end(error)
                if error is raised:
                    raise
                raise error from raised
            finally:
                say_ending(ended, anyio.current_time() - began)
    return outcome


def lock_file(settings: Settings) -> Path:
    """The file whose lock a run holds."""
    return settings.paths.state_db.parent / "run.lock"


async def write_whole_catalog(
    store: Store,
    settings: Settings,
    *,
    also_gone: Sequence[str] = (),
    pointed_to: Collection[str] = (),
    even_if_nothing: bool = False,
) -> CatalogWrite:
    """Bring `master.json` up to what the database says, every record of it. Raises StorageError.

    `also_gone`: further paths whose entries go. `pointed_to`: paths that entries point to, where nothing is. A catalog
    that cannot be used is set aside and made anew. Where the database knows no file and there is no catalog, none is
    made unless `even_if_nothing`.
    """
    places, path = catalog_places(settings), settings.paths.master_catalog
    known = await store.one("count_present")
    if not (known and known["files"]) and not even_if_nothing and not await anyio.Path(path).exists():
        return CatalogWrite(False, None, 0)
    return await bring_up_to_date(store, places, path, settled=True, also_gone=also_gone, pointed_to=pointed_to)


@dataclass
class _Repair:
    """One repair, under the run lock: the exported files by a run for each source, which the stages that depend on them
    follow; then, by a run of stages alone, what is left of what they made."""

    store: Store
    settings: Settings
    depth: Depth
    renderer: Renderer
    advance: Advance | None
    make: MakeSource
    shutdown: Shutdown = field(default_factory=Shutdown)
    notes: list[str] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    made_again: list[int] = field(default_factory=list)
    """The stages' rows that a run has taken on."""
    unfinished: bool = False
    """A run of the repair came to no end; no other can begin."""

    def __post_init__(self) -> None:
        self.places = catalog_places(self.settings)
        self.kept = KeptFiles(self.settings.paths.archive / f"repair_{datetime.now(UTC):%Y%m%d_%H%M%S}")

    async def carry_out(self) -> VerifyOutcome:
        store = self.store
        latest = await runs.latest(store)
        if latest is not None and latest.unfinished:
            raise UsageError(
                f"Run {latest.id} is unfinished; what it has not exported yet is not broken. Nothing was touched.",
                next_step="`skicyclerun run --resume` carries on with it; then `skicyclerun verify --repair`.",
            )
        first = await verify(store, self.settings, self.depth, advance=self.advance)
        last = await store.one("last_photo_id")
        assert last is not None
        # Where there is no folder its disk may just not be mounted, and no entry is dropped.
        there = [folder for folder in self.places.output_folders if await anyio.Path(folder).is_dir()]
        times = await self._set_times(first)
        async with anyio.create_task_group() as watching:
            await watching.start(partial(listen, self.shutdown, watching.cancel_scope.cancel, self._say))
            await self._make_right(first)
            watching.cancel_scope.cancel()
        written = await self._write_catalog(first, there)
        summary = await self._summary(times, written)
        if self.shutdown.exit_code is not None:
            said = "Stopped; what follows was found before the repair. `skicyclerun run --resume` carries on with it."
            stopped = replace(summary, notes=(*summary.notes, said))
            return VerifyOutcome(replace(first, repair=stopped), self.shutdown.exit_code)
        second = await verify(
            store,
            self.settings,
            Depth(),
            also_in_full_after=last["id"],
            also_in_full=self.made_again,
            advance=self.advance,
        )
        left = await self._with_what_was_seen(first, second)
        seconds = first.seconds + second.seconds
        in_full, read = first.in_full + second.in_full, first.bytes_read + second.bytes_read
        return VerifyOutcome(
            replace(left, depth=self.depth, seconds=seconds, in_full=in_full, bytes_read=read, repair=summary)
        )

    async def _set_times(self, first: VerificationReport) -> int:
        """Files whose bytes are right get their time back. Returns how many."""
        wrong = [p for p in first.problems if p.finding is Finding.TIME_DIFFERS and p.row_id is not None]
        exported = await rows_of(self.store, {p.row_id for p in wrong if p.row_id and not p.stage})
        staged = await stage_rows_of(self.store, {p.row_id for p in wrong if p.row_id and p.stage})
        placed = [
            *((first.export_folder, row) for row in exported),
            *((self.places.stages[row["stage"]].folder, row) for row in staged),
        ]
        files = [(folder / row["folder"] / row["file_name"], row["mtime_ns"]) for folder, row in placed]
        times, notes = await anyio.to_thread.run_sync(set_times, files)
        self.notes += notes
        return times

    async def _summary(self, times: int, written: bool) -> RepairSummary:
        counts = [
            each for run_id in self.runs for each in (await albums.accounting_of_run(self.store, run_id)).values()
        ]
        made: Counter[str] = Counter()
        for run_id in self.runs:
            for row in await stage_albums.of_run(self.store, run_id):
                made[row.stage] += row.made
        return RepairSummary(
            runs=tuple(self.runs),
            fetched_again=sum(each.expected for each in counts),
            repaired=sum(each.exported for each in counts),
            times_set=times,
            kept_in=self.kept.folder if self.kept.count else None,
            catalog_written=written,
            notes=tuple(dict.fromkeys((*self.notes, *self.kept.notes))),
            made_again=made.total(),
            stages=tuple(stage for stage in self.places.order if made[stage]),
        )

    # ── the runs ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _make_right(self, first: VerificationReport) -> None:
        of_stages = await plan_stage_repair(self.store, first, self.places)
        for stage in sorted(of_stages.stages & self.places.stages.keys()):
            names = [(row["id"], row["folder"], row["file_name"]) for row in of_stages.rows if row["stage"] == stage]
            refused = await self.kept.keep(names, self.places.stages[stage].folder, stage)
            of_stages.leave_alone(refused)
        removed: set[int] = set()
        if self.settings.export.removed_files == "leave_out":
            removed = await anyio.to_thread.run_sync(removed_by_hand, first)
        if removed:
            are = "photo whose file is gone is" if len(removed) == 1 else "photos whose files are gone are"
            self.notes.append(
                f"{len(removed)} {are} left alone (export.removed_files is leave_out): `skicyclerun run --update` "
                "leaves out what is gone, and with --include-removed exports it again."
            )
        if out := await rows_left_out(self.store, first):
            are = "photo is left out by hand and stays as it is"
            if len(out) > 1:
                are = "photos are left out by hand and stay as they are"
            self.notes.append(f"{len(out)} {are}; the next `skicyclerun run --update` puts away what is there.")
        for repair in await plan_repair(self.store, first, removed | out):
            if not self._stopped:
                await self._fetch_again(repair, first.run_id, of_stages)
        if of_stages.folders and not self._stopped:
            await self._make_again(first.run_id, of_stages)

    @property
    def _stopped(self) -> bool:
        return self.shutdown.draining or self.unfinished

    async def _fetch_again(self, repair: SourceRepair, base: int, of_stages: StageRepair) -> None:
        """One run over what is broken of one source, and over what stages made of it.

        Where the source cannot be had, a note, and nothing is touched.
        """
        settings = self.settings
        stored: dict[str, Any] = orjson.loads(repair.options)
        options = ExportOptions.from_row(stored)
        library = None if repair.kind is SourceKind.APPLE_PHOTOS else Path(repair.location)
        async with AsyncExitStack() as stack:
            try:
                # Groups are albums of the run's choice, whatever the configuration says by now.
                made = self.make(repair.kind.value, library, settings, options)
                source = choosing(made, PhotoChoice.from_row(stored))
                if library is not None:
                    check_source_and_outputs(settings, library)
                stack.push_async_callback(source.close)
                await source.open()
            except (SourceError, UsageError) as error:
                self.notes.append(f"Nothing could be exported again from {repair.location}: {error}")
                return
            refused = await self.kept.keep(repair.names, settings.paths.apple_photos_export)
            found = await albums_to_repair(repair, source, refused)
            if not found:
                return
            stages, kept, planned = await self._stages_of(of_stages.stages | {"export"})
            run = await create_repair_run(
                self.store,
                source_kind=source.kind,
                source_location=repair.location,
                options=options.to_row() | kept | PhotoChoice.from_row(stored).to_row() | {REPAIR_OPTION: base},
                albums=found,
                stages=stages,
            )
            await self._carry_out(run, source, planned, of_stages, {album.folder for album in found})

    async def _make_again(self, base: int, of_stages: StageRepair) -> None:
        """One run of the stages whose files are broken, over the albums that hold them."""
        stages, kept, planned = await self._stages_of(of_stages.stages)
        selection = await albums_in(self.store, of_stages.folders)
        latest = await runs.latest(self.store)
        if not stages or not selection or latest is None:
            return
        run = await runs.create(
            self.store,
            mode="update",
            stages=stages,
            source_kind=latest.source_kind,
            source_location=latest.source_location,
            selection=selection,
            options=options_of(self.settings).to_row() | kept | {REPAIR_OPTION: base},
        )
        await self._carry_out(run, None, planned, of_stages, of_stages.folders)

    async def _carry_out(
        self,
        run: RunRow,
        source: Source | None,
        planned: Sequence[PlannedStage],
        of_stages: StageRepair,
        folders: Collection[str],
    ) -> None:
        self.runs.append(run.id)
        self.made_again += await of_stages.take_on(self.store, run.stages, folders)
        command = ConfigureRun(Intent.RESUME, self.settings, run.stages, run.selection)
        parts = PipelineParts(self.store, source, render, self.renderer, self.shutdown, planned)
        result = await run_pipeline(command, parts)
        self.unfinished = result.run is not None and result.run.unfinished

    async def _stages_of(
        self, broken: Collection[str]
    ) -> tuple[tuple[str, ...], dict[str, Any], Sequence[PlannedStage]]:
        """The stages that a run has to go through for these, what its row keeps of them, and they themselves.

        None of them, and a note, where one lacks what it needs.
        """
        settings = self.settings
        names = await stages_to_run(self.store, settings, broken)
        if not names:
            return (), {}, ()
        try:
            check_stage_needs(settings, parse_stages(names, settings.own_stages()))
            await check_inputs(self.store, settings, names)
            kept = await options_of_stages(self.store, settings, names)
            planned = stage_runs(settings, names, kept, said_from_any_thread(self.renderer))
            for each in planned:
                await anyio.to_thread.run_sync(each.run.recipe.check)
        except (ConfigError, StageError) as error:
            self.notes.append(f"Nothing could be made again by {', '.join(names)}: {error}")
            return (), {}, ()
        return names, kept, planned

    # ── the catalog, and what is left ─────────────────────────────────────────────────────────────────────────────

    async def _write_catalog(self, first: VerificationReport, there: Sequence[Path]) -> bool:
        """Write it where it was wrong; what was made again is in it already. Raises StorageError."""
        wrong = [problem for problem in first.problems if problem.finding in CATALOGED_AGAIN]
        if not wrong:
            return bool(self.runs)
        left_over = [problem.name for problem in wrong if problem.finding is Finding.ENTRY_WITHOUT_FILE]
        gone = await anyio.to_thread.run_sync(_truly_gone, left_over, there)
        pointed_to = {path for problem in wrong for path in problem.names}
        written = await write_whole_catalog(self.store, self.settings, also_gone=gone, pointed_to=pointed_to)
        if written.problem:
            self.notes.append(written.problem)
        return written.written or bool(self.runs)

    async def _with_what_was_seen(self, first: VerificationReport, second: VerificationReport) -> VerificationReport:
        """The second report, with what only the first look could see of files that are still the same."""
        deep = [p for p in first.problems if p.finding in _SEEN_ONLY_IN_FULL and p.row_id is not None]
        ids = orjson.dumps([problem.row_id for problem in deep if not problem.stage]).decode()
        still = {("", row["id"]) for row in await self.store.all("still_present", {"ids": ids})}
        still |= {(p.stage, p.row_id) for p in deep if p.stage and p.row_id not in self.made_again}
        named = {(problem.stage, problem.row_id) for problem in second.problems}
        left: dict[tuple[str, str], list[Problem]] = {}
        for problem in deep:
            key = (problem.stage, problem.row_id)
            if key in still and key not in named:
                left.setdefault((problem.stage, "" if problem.stage else problem.folder), []).append(problem)
        return replace(
            second,
            albums=tuple(
                replace(album, problems=(*album.problems, *left.get(("", album.folder), ()))) for album in second.albums
            ),
            stages=tuple(
                replace(stage, problems=(*stage.problems, *left.get((stage.stage, ""), ()))) for stage in second.stages
            ),
        )

    def _say(self, text: str) -> None:
        self.renderer.handle(Notice(text, "warning"))


def _truly_gone(paths: Sequence[str], folders: Collection[Path]) -> list[str]:
    """Those that lie in an album folder's place, in one of these folders, and are not there."""
    places = {str(folder) for folder in folders}
    inside = [
        path
        for path in paths
        if not places.isdisjoint(split_path(path, original=original)[0] for original in (False, True))
    ]
    return [path for path in inside if not os.path.lexists(path)]
