"""Health checks of the stages: of each whether it could run, and what it lacks.

A stage that is listed in `pipeline.stages` and would make a run refuse to begin has failed; any other that could not
run is a warning.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio.to_thread

from skicyclerun.actors.stage_runs import stage_runs
from skicyclerun.errors import ConfigError, ConfigErrors, SkicyclerunError
from skicyclerun.health.findings import Finding, failed, ok, warning
from skicyclerun.settings.later_stages import cannot_run, is_enabled, later_stages
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import check_stage_needs, in_order
from skicyclerun.stages.stage import Stage


async def stage_findings(settings: Settings) -> AsyncIterator[Finding]:
    """One for each known stage, and each of the user's own, in pipeline order. Nothing is raised for what is found."""
    for stage in in_order({stage.name: stage for stage in settings.own_stages()}):
        yield await anyio.to_thread.run_sync(check_stage, settings, stage)


def check_stage(settings: Settings, stage: Stage) -> Finding:
    """Whether a stage could run: its packages installed, its settings right, its program or server there."""
    check = f"stage {stage.name}"
    listed = stage.name in settings.pipeline.stages
    how = _how_it_is_asked_for(settings, stage, listed=listed)
    if left := cannot_run(stage):
        outcome = "; a run leaves it out" if listed and is_enabled(settings, stage) else ""
        return warning(check, f"could not run: {left.why}{outcome}", f"`{left.remedy}`")
    before = in_order({stage.name: stage for stage in settings.own_stages()})
    if any(cannot_run(other) for other in before if other.name == stage.reads):
        return warning(check, f"could run only over what {stage.reads} has made before, which could not run")
    try:
        _look(settings, stage)
    except SkicyclerunError as error:
        first = error.errors[0] if isinstance(error, ConfigErrors) else error
        words = f"could not run: {'; '.join(str(error).splitlines())}"
        found = failed if listed and is_enabled(settings, stage) else warning
        return found(check, words, first.next_step or error.next_step)
    except Exception as error:  # a library that is damaged raises what it likes
        return warning(check, f"could not be looked at ({type(error).__name__}: {error})")
    return ok(check, f"could run{how}")


def _how_it_is_asked_for(settings: Settings, stage: Stage, *, listed: bool) -> str:
    off = not is_enabled(settings, stage) or (stage.name == "cleanup" and not settings.cleanup.enabled)
    if off:
        return f"; it is switched off ({stage.section or stage.name}.enabled)"
    return "" if listed else "; it is not in `pipeline.stages`"


def _look(settings: Settings, stage: Stage) -> None:
    """Raises SkicyclerunError with what is in the way."""
    wrong = _problems_of(settings, stage)
    if wrong:
        raise wrong[0] if len(wrong) == 1 else ConfigErrors(wrong)
    check_stage_needs(settings, [stage])
    if stage.name in later_stages(settings):
        for planned in stage_runs(settings, [stage.name], {}):
            planned.run.recipe.check()


def _problems_of(settings: Settings, stage: Stage) -> list[ConfigError]:
    section = stage.section or stage.name
    return [
        problem
        for problem in (*settings.problems, *settings.unneeded)
        if problem.key == section or problem.key.startswith((f"{section}.", f"{section}["))
    ]
