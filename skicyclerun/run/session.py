"""A run from its request to its report: look ahead, ask, lock, pipeline, report.

Everything that can be found wrong is found before the first thing is changed: settings, whether another run is at
work, the state (opened to read only), the source, the albums asked for. Then the person is asked. Only then the lock
is taken, under which the state must still be what the plan was made from, and the pipeline begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread

from skicyclerun.actors.archive_job import archived_folders
from skicyclerun.actors.messages import ConfigureRun, Intent
from skicyclerun.actors.render_processes import render
from skicyclerun.actors.stage_runs import stage_runs
from skicyclerun.errors import (
    Cancelled,
    EmptyingNotAgreed,
    InternalFault,
    SkicyclerunError,
    UsageError,
)
from skicyclerun.files.fault_points import check_faults
from skicyclerun.progress.events import Notice, Renderer
from skicyclerun.run.lock import RunLock
from skicyclerun.run.log_file import open_run_log
from skicyclerun.run.log_report import (
    leave_refusal,
    say_beginning,
    say_early_end,
    say_ending,
    say_from_where,
    say_report,
    timestamp_now,
)
from skicyclerun.run.pipeline import PipelineParts, run_pipeline, unwrapped
from skicyclerun.run.plan import (
    AskUnfinished,
    ChooseAlbums,
    Confirm,
    MakeSource,
    OfferEverything,
    Plan,
    Planner,
    RunRequest,
    asked,
    export_estimate,
    lock_file,
)
from skicyclerun.run.report import RunReport, as_text, build_report
from skicyclerun.run.shutdown import Shutdown, listen
from skicyclerun.settings.later_stages import output_folders
from skicyclerun.settings.models import Settings
from skicyclerun.state import runs
from skicyclerun.state.archives import ArchiveRow
from skicyclerun.state.runs import RunRow
from skicyclerun.state.set_aside import open_or_set_aside
from skicyclerun.state.store import Store
from skicyclerun.wording import bytes_in_words

log = logging.getLogger(__name__)


#: How a run ended, for the last line of its log: from its outcome, or from what ended it early.
EndedInWords = Callable[["RunOutcome | BaseException"], str]


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How it ended. `report` None: nothing was exported (`said` then tells why)."""

    report: RunReport | None
    said: str = ""
    signal_code: int | None = None
    log_file: Path | None = None

    @property
    def ended_well(self) -> bool:
        """Everything is accounted for, or nothing was to be done."""
        return self.signal_code is None and (self.report is None or self.report.accounted_for)


def plain_ending(ended: RunOutcome | BaseException) -> str:
    """For a program, which gets no exit code."""
    if not isinstance(ended, RunOutcome):
        return f"with an error ({type(ended).__name__})"
    if ended.signal_code is not None:
        return "stopped by a signal"
    return "everything is accounted for" if ended.ended_well else "finished, with failures"


def what_is_done(plan: Plan) -> str:
    """What the person asked for, in words."""
    if plan.run is not None:
        kind = f"run {plan.run.id}{' (an update)' if plan.run.mode == 'update' and 'export' in plan.run.stages else ''}"
        return f"carry on with {kind}" if plan.intent is Intent.RESUME else f"do again what failed in {kind}"
    if set(plan.stages) == {"cleanup"}:
        return "a cleanup alone"
    if "export" not in plan.stages:
        return "stages over what is exported"
    return "an update" if plan.settings.export.mode == "update" else "a fresh run"


class RunSession:
    """Carries out one request. What is asked comes first; `renderer` hears nothing before the answers."""

    def __init__(
        self,
        request: RunRequest,
        *,
        renderer: Renderer,
        confirm: Confirm | None = None,
        ask_unfinished: AskUnfinished | None = None,
        choose_albums: ChooseAlbums | None = None,
        offer_everything: OfferEverything | None = None,
        make: MakeSource | None = None,
        ended_in_words: EndedInWords | None = None,
    ) -> None:
        self._request = request
        self._settings = request.settings
        self._renderer = renderer
        self._confirm = confirm
        self._ended_in_words = ended_in_words or plain_ending
        self._shutdown = Shutdown()
        self._planner = Planner(
            request,
            ask_unfinished=ask_unfinished,
            choose_albums=choose_albums,
            offer_everything=offer_everything,
            make=make,
            on_wait=renderer.handle,
        )

    async def carry_out(self) -> RunOutcome:
        """Returns when the run has ended, well or not. Raises SkicyclerunError where it could not go on.

        A refusal leaves its reason in a log file of its own, where the folder of the log files is there.
        """
        check_faults()
        try:
            return await self._carried_out()
        except SkicyclerunError as error:
            if not self._request.dry_run and not isinstance(error, Cancelled):
                file, level = self._settings.log_file(timestamp_now()), self._settings.logging.level
                leave_refusal(file, level, error, self._request.typed, self._ended_in_words(error))
            raise

    async def _carried_out(self) -> RunOutcome:
        async with AsyncExitStack() as stack:
            plan = await self._planner.look_ahead(stack)
            if isinstance(plan, str):
                return RunOutcome(None, plan)
            confirm = self._confirm
            if confirm is not None and not asked(lambda: confirm(plan)):
                raise Cancelled("Cancelled. Nothing was touched.")
            if self._request.dry_run:
                return RunOutcome(None, "Dry run: nothing was touched.")
            if plan.emptied_in_words and confirm is None and not self._request.may_empty:
                raise EmptyingNotAgreed(plan.cleanup, plan.emptied_in_words, next_step=self._request.how_to_agree)
            outcome: RunOutcome | None = None
            try:
                async with anyio.create_task_group() as watching:
                    await watching.start(partial(listen, self._shutdown, watching.cancel_scope.cancel, self._say))
                    outcome = await self._locked(plan)
                    watching.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                raise unwrapped(group) from group
        if outcome is None:
            said = "Stopped at once. What was exported before is kept; `skicyclerun run --resume` carries on."
            outcome = RunOutcome(None, said)
        if self._shutdown.exit_code is not None:
            outcome = RunOutcome(outcome.report, outcome.said, self._shutdown.exit_code, outcome.log_file)
        return outcome

    async def _locked(self, plan: Plan) -> RunOutcome:
        request, settings = self._request, self._settings
        began = anyio.current_time()
        with ExitStack() as stack:
            stack.enter_context(RunLock(settings.lib_root, lock_file(settings)))
            log_path = settings.log_file(timestamp_now())
            run_log = stack.enter_context(open_run_log(log_path, settings.logging.level))
            if run_log.problem:
                self._say(run_log.problem)
            say_beginning(request.typed)
            say_from_where(settings, what_is_done(plan), plan.stages, plan.source)
            outcome: RunOutcome | BaseException = RunOutcome(None)
            try:
                outcome = await self._logged(plan, run_log.path)
                return outcome
            except BaseException as raised:
                outcome = error = self._early_end(raised, run_log.path)
                if error is raised:
                    raise
                raise error from raised
            finally:
                self._log_ending(outcome, anyio.current_time() - began)

    def _early_end(self, raised: BaseException, log_path: Path | None) -> BaseException:
        """The one error that the person hears of, entered in the log; a fault of ours is called one."""
        error = unwrapped(raised) if isinstance(raised, BaseExceptionGroup) else raised
        if isinstance(error, SkicyclerunError):
            say_early_end(error)
        elif isinstance(error, Exception):
            log.critical("a fault in skicyclerun itself", exc_info=error)
            error = InternalFault(error, log_path or "")
        if isinstance(error, SkicyclerunError):
            error.in_log = True
        return error

    def _log_ending(self, outcome: RunOutcome | BaseException, seconds: float) -> None:
        """The last line of the log."""
        if self._shutdown.exit_code is not None and not isinstance(outcome, SkicyclerunError):
            outcome = RunOutcome(None, signal_code=self._shutdown.exit_code)
        well = isinstance(outcome, RunOutcome) and outcome.ended_well
        say_ending(self._ended_in_words(outcome), seconds, logging.INFO if well else logging.WARNING)

    async def _logged(self, plan: Plan, log_path: Path | None) -> RunOutcome:
        request, settings, source = self._planner.request, self._settings, self._planner.source
        async with await open_or_set_aside(settings.paths.state_db) as store:
            if await runs.latest(store) != self._planner.seen:
                raise UsageError(
                    "Another run began or ended here in the meantime. Nothing was touched.",
                    next_step="Look with `skicyclerun status`, then type the command again.",
                )
            for said in (*plan.choice, *plan.publishing):
                self._renderer.handle(Notice(said))
            for note in plan.notes:
                self._say(note)
            command = ConfigureRun(
                intent=plan.intent,
                settings=settings,
                stages=plan.stages,
                selection=request.selection,
                abandon_unfinished=plan.gives_up is not None,
                force_clean=request.force_clean,
                stage_options=request.stage_options,
                retry_stages=request.retry_stages,
                may_empty=request.may_empty or (self._confirm is not None and bool(plan.emptied_in_words)),
                choice=self._planner.choice,
            )
            stages = stage_runs(settings, plan.later_stages, plan.stage_options, said_from_any_thread(self._renderer))
            estimate = await export_estimate(store, plan)
            parts = PipelineParts(
                store, source, render, self._renderer, self._shutdown, stages, export_estimate=estimate
            )
            try:
                result = await run_pipeline(command, parts)
            except BaseException:
                # What ended it is to be heard, not that there was no report either.
                with anyio.CancelScope(shield=True), suppress(Exception):
                    await self._log_report(store)
                raise
            if result.run is None:
                said = _archive_in_words(result.archive, settings)
                log.info("%s", said)
                return RunOutcome(None, said, log_file=log_path)
            return RunOutcome(await self._log_report(store, result.run), log_file=log_path)

    async def _log_report(self, store: Store, run: RunRow | None = None) -> RunReport | None:
        """The report, entered in the log; without `run` of the newest, if it is of this session."""
        run = run or await runs.latest(store)
        if run is None or (self._request.intent is Intent.FRESH and run == self._planner.seen):
            return None
        settings = self._settings
        report = await build_report(
            store,
            run,
            settings.paths.apple_photos_export,
            stage_folders=output_folders(settings),
            remote=settings.cleanup.remote,
        )
        say_report(as_text(report))
        return report

    def _say(self, text: str) -> None:
        log.warning("%s", text)
        self._renderer.handle(Notice(text, "warning"))


def said_from_any_thread(renderer: Renderer) -> Callable[[str], None]:
    """A stage's word to the person, from its worker threads as well as from the event loop's."""

    def tell(text: str) -> None:
        try:
            anyio.from_thread.run_sync(renderer.handle, Notice(text))
        except RuntimeError:  # already on the event loop's own thread
            renderer.handle(Notice(text))

    return tell


def _archive_in_words(archive: ArchiveRow | None, settings: Settings) -> str:
    if archive is None:
        return "Nothing was archived."
    if not archive.file:
        return "Nothing to archive: there are no old outputs."
    emptied = "The folders were left as they are."
    if archive.clean:
        kept = [folder.name_in_zip for folder in archived_folders(settings, ("cleanup",)) if folder.stays]
        emptied = f"The folders are empty now, but for {', '.join(kept)}." if kept else "The folders are empty now."
    place = settings.paths.archive / archive.file
    return f"Archived {archive.files} files in {place} ({bytes_in_words(archive.size or 0)}), proved. {emptied}"
