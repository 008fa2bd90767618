"""A run from its request to its report: look ahead, ask, lock, pipeline, report.

Everything that can be found wrong is found before the first thing is changed: settings, whether another run is at
work, the state (opened to read only), the source, the albums asked for. Then the person is asked. Only then the lock
is taken, under which the state must still be what the plan was made from, and the pipeline begins.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread

from skicyclerun.actors.messages import ConfigureRun
from skicyclerun.actors.stage_runs import stage_runs
from skicyclerun.errors import (
    Cancelled,
    InternalFault,
    SkicyclerunError,
    UsageError,
)
from skicyclerun.models import Component, ExportedFacts, Fetched
from skicyclerun.progress.events import Notice, Renderer
from skicyclerun.run.lock import RunLock
from skicyclerun.run.log_file import open_run_log
from skicyclerun.run.pipeline import PipelineParts, run_pipeline, unwrapped
from skicyclerun.run.plan import (
    AskUnfinished,
    ChooseAlbums,
    Confirm,
    MakeSource,
    Plan,
    Planner,
    RunRequest,
    asked,
    export_estimate,
    lock_file,
)
from skicyclerun.run.report import RunReport, build_report
from skicyclerun.run.shutdown import Shutdown, listen
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.settings.later_stages import output_folders
from skicyclerun.settings.models import Settings
from skicyclerun.state import runs
from skicyclerun.state.archives import ArchiveRow
from skicyclerun.state.set_aside import open_or_set_aside
from skicyclerun.wording import bytes_in_words

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How it ended. `report` None: nothing was exported (`said` then tells why)."""

    report: RunReport | None
    said: str = ""
    signal_code: int | None = None
    log_file: Path | None = None


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
        make: MakeSource | None = None,
    ) -> None:
        self._request = request
        self._settings = request.settings
        self._renderer = renderer
        self._confirm = confirm
        self._shutdown = Shutdown()
        self._planner = Planner(request, ask_unfinished=ask_unfinished, choose_albums=choose_albums, make=make)

    async def carry_out(self) -> RunOutcome:
        """Returns when the run has ended, well or not. Raises SkicyclerunError where it could not go on."""
        async with AsyncExitStack() as stack:
            plan = await self._planner.look_ahead(stack)
            if isinstance(plan, str):
                return RunOutcome(None, plan)
            confirm = self._confirm
            if confirm is not None and not asked(lambda: confirm(plan)):
                raise Cancelled("Cancelled. Nothing was touched.")
            if self._request.dry_run:
                return RunOutcome(None, "Dry run: nothing was touched.")
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
        started = datetime.now(UTC)
        with ExitStack() as stack:
            stack.enter_context(RunLock(settings.lib_root, lock_file(settings)))
            log_path = settings.log_file(started.strftime("%Y%m%d_%H%M%S"))
            run_log = stack.enter_context(open_run_log(log_path, settings.logging.level))
            if run_log.problem:
                self._say(run_log.problem)
            log.info("%s: %s", request.intent, " ".join(sys.argv[1:]))
            try:
                return await self._logged(plan, run_log.path)
            except BaseExceptionGroup as group:
                error = unwrapped(group)
                log.critical("the run ended early", exc_info=group)
                if isinstance(error, SkicyclerunError) or not isinstance(error, Exception):
                    raise error from group
                raise InternalFault(error, run_log.path or "") from group
            except SkicyclerunError:
                log.exception("the run ended early")
                raise
            except Exception as error:
                log.critical("a fault in skicyclerun itself", exc_info=error)
                raise InternalFault(error, run_log.path or "") from error

    async def _logged(self, plan: Plan, log_path: Path | None) -> RunOutcome:
        request, settings, source = self._planner.request, self._settings, self._planner.source
        async with await open_or_set_aside(settings.paths.state_db) as store:
            if await runs.latest(store) != self._planner.seen:
                raise UsageError(
                    "Another run began or ended here in the meantime. Nothing was touched.",
                    next_step="Look with `skicyclerun status`, then type the command again.",
                )
            for said in plan.publishing:
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
            )
            stages = stage_runs(settings, plan.later_stages, plan.stage_options, said_from_any_thread(self._renderer))
            estimate = await export_estimate(store, plan)
            parts = PipelineParts(
                store, source, render, self._renderer, self._shutdown, stages, export_estimate=estimate
            )
            result = await run_pipeline(command, parts)
            if result.run is None:
                return RunOutcome(None, _archive_in_words(result.archive, settings), log_file=log_path)
            report = await build_report(
                store, result.run, settings.paths.apple_photos_export, stage_folders=output_folders(settings)
            )
            return RunOutcome(report, log_file=log_path)

    def _say(self, text: str) -> None:
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
    emptied = "The folders are empty now." if archive.clean else "The folders were left as they are."
    place = settings.paths.archive / archive.file
    return f"Archived {archive.files} files in {place} ({bytes_in_words(archive.size or 0)}), proved. {emptied}"


def render(fetched: Fetched, component: Component, staged: Path, options: ExportOptions) -> ExportedFacts:
    """Render one photo (`skicyclerun.images.render`). The image stack is imported by the first photo that needs it."""
    from skicyclerun.images.render import RenderOptions, render_photo

    wanted = RenderOptions(format=options.format, quality=options.jpeg_quality, max_pixels=options.max_pixels)
    return render_photo(fetched, component, staged, wanted)
