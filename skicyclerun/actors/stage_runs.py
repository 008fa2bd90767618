"""The stages after the export that a run carries out: each with its recipe, limits and folders.

What decides their results is fixed when the run is created and kept in its row, as for the export: a resumed run ends
with the same bytes, whatever the configuration says by then. Not where a section says where results go rather than what
they are (`StageSection.as_it_is_now`): a wrong bucket is put right in the configuration, and the run goes on there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from skicyclerun.actors.album_work import WorkLimits
from skicyclerun.actors.deployment import Deployment
from skicyclerun.actors.stage_plan import StageAhead, StageRun, plan_album
from skicyclerun.errors import EnvironmentUnset, StageError
from skicyclerun.settings.command_stages import CommandStageSettings
from skicyclerun.settings.dotenv_file import lend_to_libraries
from skicyclerun.settings.errors import raise_all
from skicyclerun.settings.later_stages import (
    LeftStage,
    is_enabled,
    later_stages,
    output_folder,
    output_folders,
    read_by,
    read_folder,
    section_of,
    upstream_of,
)
from skicyclerun.settings.models import Settings
from skicyclerun.settings.section import StageSection
from skicyclerun.stages.command import CommandRecipe
from skicyclerun.stages.registry import parse_stages
from skicyclerun.stages.s3_deployment import S3Deployment
from skicyclerun.stages.stage import Picture, Recipe, Stage, Surroundings
from skicyclerun.state import stage_pictures
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.runs import RunRow
from skicyclerun.state.stage_pictures import Why
from skicyclerun.state.store import Store

#: In the options of a run: the sections of its stages, and what the command line said to them.
SECTIONS_OPTION: Final = "stages"
SAID_OPTION: Final = "stage_options"
#: Of a section: how fast and how long, of this process. A run that was stopped by one of them is resumed with another.
_LIMITS: Final = ("workers", "timeouts", "retries", "timeout_seconds", "at_once")

#: A scaled picture of which nothing is known takes at least so much; bytes.
_SMALLEST_PICTURE: Final = 20_000


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage of a run, and how long it may take in this process; seconds."""

    run: StageRun
    run_seconds: float


def options_for_row(settings: Settings, names: Sequence[str], said: Mapping[str, Any]) -> dict[str, Any]:
    """What a run keeps of its stages after the export; nothing where it has none."""
    stages = {name: stage for name, stage in later_stages(settings).items() if name in names}
    if not stages:
        return {}
    stages = {name: stage for name, stage in stages.items() if not _is_as_it_is_now(stage)}
    hidden = settings.variables.hidden  # a secret does not go into the state; `_kept_section` puts it back
    kept: dict[str, Any] = {
        SECTIONS_OPTION: {
            name: hidden(section_of(settings, stage).model_dump(mode="json")) for name, stage in stages.items()
        }
    }
    return kept | ({SAID_OPTION: dict(said)} if said else {})


def stage_runs(
    settings: Settings,
    names: Sequence[str],
    options: Mapping[str, Any],
    say: Callable[[str], None] = lambda text: None,
) -> list[PlannedStage]:
    """The stages named, in pipeline order. `options` are those of the run's row."""
    known = later_stages(settings)
    kept = settings.variables.revealed(options.get(SECTIONS_OPTION, {}))
    lend_to_libraries(settings.variables)
    planned = []
    facts_from: list[str] = []
    for name, stage in known.items():
        if name in names:
            section = _kept_section(stage, kept.get(name), section_of(settings, stage))
            surroundings = Surroundings(
                metadata_dir=settings.paths.metadata_dir,
                geocode_cache=settings.paths.geocode_cache,
                config_folder=settings.file.parent,
                options=options.get(SAID_OPTION, {}),
                say=say,
                variables=settings.variables,
            )
            recipe = _recipe(stage, section, surroundings)
            run = StageRun(
                stage=stage,
                recipe=recipe,
                limits=_limits(settings, stage, section, recipe),
                export_folder=settings.paths.apple_photos_export,
                input_folder=_input_folder(settings, known, stage),
                output_folder=output_folder(settings, stage),
                upstreams=_upstreams(settings, known, stage),
                expected=frozenset(names),
                facts_from=tuple(facts_from),
                sharing=_sharing(settings, known, stage),
            )
            if isinstance(recipe, S3Deployment):
                run = replace(run, publication=Deployment(run, recipe))
            planned.append(PlannedStage(run, section.timeouts.run))
        if not stage.output:
            facts_from.append(name)
    return planned


def keeps_other_settings(settings: Settings, names: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether a run that keeps what it was begun with makes other results than the configuration means now."""
    kept = settings.variables.revealed(options.get(SECTIONS_OPTION, {}))
    stages = [stage for name, stage in later_stages(settings).items() if name in names and name in kept]
    return any(
        _kept_section(stage, kept[stage.name], section_of(settings, stage)) != section_of(settings, stage)
        for stage in stages
    )


def options_for_retry(settings: Settings, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """A retry goes by the configuration as it is now, since what failed may have failed for it."""
    return options_for_row(settings, names, options.get(SAID_OPTION, {}))


def options_after_retry(settings: Settings, run: RunRow, retried: Sequence[str] | None) -> dict[str, Any]:
    """The options of a run from its retry on, which a stop may cut; new ones for the stages `retried` (None: all)."""
    names = [name for name in run.stages if retried is None or name in retried]
    new = options_for_retry(settings, names, run.options).get(SECTIONS_OPTION, {})
    if not new:
        return dict(run.options)
    return {**run.options, SECTIONS_OPTION: {**run.options.get(SECTIONS_OPTION, {}), **new}}


def check_sections(settings: Settings, names: Sequence[str], *, retries: bool) -> None:
    """Where the sections of these stages count as they are now, they have to be right, whatever `pipeline.stages` has.

    Raises ConfigError. `retries`: all of them do.
    """
    sections = {
        stage.section
        for name, stage in later_stages(settings).items()
        if name in names and stage.section
        if retries or _is_as_it_is_now(stage)
    }
    raise_all([error for error in settings.unneeded if error.key.partition(".")[0] in sections])


def _is_as_it_is_now(stage: Stage) -> bool:
    return stage.settings is not None and stage.settings.as_it_is_now


def _kept_section(stage: Stage, kept: object, now: StageSection) -> StageSection:
    """The section that the run was begun with, with the limits that it has now; `now` where its row has none that this
    version understands.
    """
    if kept is None or stage.settings is None or _is_as_it_is_now(stage):
        return now
    try:
        section = stage.settings.model_validate_json(orjson.dumps(kept))
    except ValidationError:
        return now
    names = (*_LIMITS, *section.of_this_process)
    limits = {name: getattr(now, name) for name in names if hasattr(section, name) and hasattr(now, name)}
    return section.model_copy(update=limits)


def _recipe(stage: Stage, section: StageSection, surroundings: Surroundings) -> Recipe:
    if isinstance(section, CommandStageSettings):
        return CommandRecipe(section, surroundings)
    assert stage.recipe is not None
    return stage.recipe(section, surroundings)


def _limits(settings: Settings, stage: Stage, section: StageSection, recipe: Recipe) -> WorkLimits:
    cores = os.cpu_count() or 1
    at_once = section.at_once if isinstance(section, CommandStageSettings) else recipe.at_once
    return WorkLimits(
        section=stage.section,
        workers=section.workers or at_once or cores,
        group_photos=1 if recipe.costly else settings.export.group_photos,
        group_seconds=settings.export.group_seconds,
        photo_seconds=section.timeouts.photo,
        album_seconds=section.timeouts.album,
        album_total_seconds=section.timeouts.album_total,
        attempts=section.retries.attempts,
        backoff_seconds=section.retries.backoff_seconds,
        pause_after=section.retries.pause_after,
    )


def _upstreams(settings: Settings, known: Mapping[str, Stage], stage: Stage) -> tuple[tuple[str, ...], ...]:
    if not stage.reads_folder:
        return (upstream_of(known, stage),)
    makers = read_by(settings, known, stage)
    if not makers:
        raise _nobody_makes(settings, stage)
    return tuple(("export",) if name == "export" else (name, *upstream_of(known, known[name])) for name in makers)


def _nobody_makes(settings: Settings, stage: Stage) -> StageError:
    return StageError(
        f"{stage.name} takes the pictures of {read_folder(settings, stage)}, and no stage makes any there.",
        next_step=f"Name the key of a path in {stage.section}.{stage.reads_folder}: watermarked_final, "
        "lora_processed, preprocessed or apple_photos_export.",
    )


def _input_folder(settings: Settings, known: Mapping[str, Stage], stage: Stage) -> Any:
    if (folder := read_folder(settings, stage)) is not None:
        return folder
    if stage.reads == "export":
        return settings.paths.apple_photos_export
    reads = known.get(stage.reads)
    folder = output_folder(settings, reads) if reads is not None else None
    if folder is None:
        raise StageError(
            f"{stage.name} takes the files of {stage.reads}, and that stage makes none here.",
            next_step=f"Leave {stage.name} out of --stages and of `pipeline.stages`.",
        )
    return folder


def _sharing(settings: Settings, known: Mapping[str, Stage], stage: Stage) -> tuple[str, ...]:
    """The other stages whose files lie in the folder of this one."""
    folder = output_folder(settings, stage)
    sharing = []
    for name, other in known.items():
        with suppress(EnvironmentUnset):
            if name != stage.name and folder is not None and output_folder(settings, other) == folder:
                sharing.append(name)
    return tuple(sharing)


async def stages_ahead(
    store: Store, planned: Sequence[PlannedStage], albums: Sequence[AlbumRow], *, emptied: Collection[Path]
) -> tuple[StageAhead, ...]:
    """What these stages would do with the albums, one after the other; nothing is written.

    What a stage makes anew is new or changed input of those that read it. `emptied`: folders that are emptied before.
    """
    counts: dict[str, Counter[Why]] = {each.run.stage.name: Counter() for each in planned}
    waiting: Counter[str] = Counter()
    for album in albums:
        made_anew: dict[str, set[tuple[str, str]]] = {}
        # Of what is made anew, what comes out otherwise than before; a file that is only gone comes out the same.
        other_bytes: dict[str, set[tuple[str, str]]] = {}
        for each in planned:
            name = each.run.stage.name
            plan = await plan_album(store, each.run, album.folder)
            upstream = [chain[0] for chain in each.run.upstreams]
            anew = _results_of(each.run.recipe, _of_all(made_anew, upstream))
            other = _results_of(each.run.recipe, _of_all(other_bytes, upstream))
            known = {(one.input.photo, one.input.variant) for one in plan.plans}
            for one in plan.plans:
                why, result = one.why, (one.input.photo, one.input.variant)
                if why is Why.UP_TO_DATE and result in other:
                    why = Why.INPUT_CHANGED
                if why is Why.UP_TO_DATE and one.file_name and each.run.output_folder in emptied:
                    why = Why.OUTPUT_GONE
                counts[name][why] += 1
                if why not in (Why.UP_TO_DATE, Why.OUTPUT_GONE, Why.LEFT_OUT):
                    other_bytes.setdefault(name, set()).add(result)
            coming = anew - known
            counts[name][Why.NEW] += len(coming)
            other_bytes.setdefault(name, set()).update(coming)
            waiting[name] += max(plan.waiting - len({photo for photo, _ in coming}), 0)
            made_anew[name] = {(one.input.photo, one.input.variant) for one in plan.to_do} | (anew & known) | coming
            if each.run.output_folder in emptied:
                made_anew[name] |= known
    return tuple(StageAhead(name, counted, waiting[name]) for name, counted in counts.items())


def _of_all(found: Mapping[str, Collection[tuple[str, str]]], stages: Iterable[str]) -> set[tuple[str, str]]:
    """What was found of any of these stages."""
    return {result for stage in stages for result in found.get(stage, ())}


def _results_of(recipe: Recipe, inputs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """(photo, variant) of what the recipe makes of inputs that are not there yet."""
    return {
        (photo, result)
        for photo, variant in inputs
        for result in recipe.variants(Picture(Path(photo), "", variant=variant))
    }


async def bytes_ahead(
    store: Store | None, settings: Settings, names: Sequence[str], photos: int, *, emptied: Collection[Path]
) -> int:
    """Bytes that these stages will write for those of so many photos that they have not done before; for all of them
    where their folder is among the `emptied` ones.

    By what their pictures took so far, else by what a scaled picture takes at least. Meant to be too low rather than
    too high: a run is turned away only when even that does not fit.
    """
    means = {row["stage"]: row["size"] for row in await store.all("mean_stage_sizes")} if store is not None else {}
    counted = await store.all("count_stage_files") if store is not None else []
    gone = {name for name, folder in output_folders(settings).items() if folder in emptied}
    have = {row["stage"]: row["files"] for row in counted if row["stage"] not in gone}
    making = [stage for name, stage in later_stages(settings).items() if name in names and stage.output]
    return sum(
        int((means.get(stage.name) or _SMALLEST_PICTURE) * max(photos - have.get(stage.name, 0), 0)) for stage in making
    )


async def without_input(
    store: Store | None, settings: Settings, names: Sequence[str], left: Sequence[LeftStage]
) -> list[LeftStage]:
    """Of the stages `names` those that nothing was ever made for, and is not now: the stage that they take the files of
    is among those `left` out, or switched off in the configuration, or one of these.

    `store` None: there is no state, nothing has ever run.
    """
    own = settings.own_stages()
    listed = parse_stages(settings.pipeline.stages, own)
    absent = {each.name: "is left out" for each in left}
    absent |= {stage.name: "is switched off" for stage in listed if not is_enabled(settings, stage)}
    found: list[LeftStage] = []
    for name, stage in later_stages(settings).items():
        maker = stage.reads
        if name not in names or maker == "export" or maker not in absent:
            continue
        if store is None or not await stage_pictures.has_run(store, maker):
            why = f"it takes what {maker} makes, which {absent[maker]} and has never run here"
            found.append(LeftStage(name, why, without=maker))
            absent[name] = "is left out"
    return found


async def check_inputs(store: Store | None, settings: Settings, names: Sequence[str]) -> None:
    """That each stage's input is there or is made in the same run. Raises StageError.

    `store` None: there is no state, nothing has ever run.
    """
    known = later_stages(settings)
    for name, stage in known.items():
        makers = read_by(settings, known, stage) if name in names else ()
        if name in names and not makers:
            raise _nobody_makes(settings, stage)
        if name not in names or "export" in makers or not set(makers).isdisjoint(names):
            continue
        if store is None or not [maker for maker in makers if await stage_pictures.has_run(store, maker)]:
            reads = makers[0]
            comes = f"`skicyclerun run --stages {reads},{name}` runs both."
            if reads not in known:
                comes = f"`stages.{reads}.command` in the configuration can make them (docs/stages.md)."
            raise StageError(f"{name} takes what {reads} makes, and {reads} has never run here.", next_step=comes)
