"""The stages after the export as a configuration has them: ours and the user's own, their sections and folders."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skicyclerun.errors import EnvironmentUnset
from skicyclerun.settings.models import Settings
from skicyclerun.settings.section import StageSection
from skicyclerun.stages.registry import in_order, installation, missing_packages, parse_stages
from skicyclerun.stages.stage import Stage

_BEFORE: frozenset[str] = frozenset({"cleanup", "export"})


def later_stages(settings: Settings) -> dict[str, Stage]:
    """By name, in the order in which a run goes through them."""
    own = {stage.name: stage for stage in settings.own_stages()}
    return {stage.name: stage for stage in in_order(own) if stage.name not in _BEFORE}


@dataclass(frozen=True, slots=True)
class LeftStage:
    """A stage of `pipeline.stages` that a run leaves out, because it cannot be run here."""

    name: str
    why: str
    """For the end of a sentence: `it needs the package torch, which is not installed`."""
    remedy: str = ""
    """What brings it: `pip install …`; empty where `without` is why."""
    without: str = ""
    """The stage whose files it takes, where that is why: it does not run, and nothing of it is there."""


def enabled_stages(settings: Settings, names: Sequence[str]) -> tuple[Stage, ...]:
    """Of the stages that the configuration names, in order, those that a run goes through.

    Without those that their section switches off, and those that cannot be run by this installation (`left_stages`).
    Raises StageError for an unknown name.
    """
    stages = parse_stages(names, settings.own_stages())
    return tuple(stage for stage in stages if is_enabled(settings, stage) and cannot_run(stage) is None)


def left_stages(settings: Settings, names: Sequence[str]) -> tuple[LeftStage, ...]:
    """Of the stages that the configuration names, in order, those that this installation cannot run."""
    stages = parse_stages(names, settings.own_stages())
    found = [cannot_run(stage) for stage in stages if is_enabled(settings, stage)]
    return tuple(left for left in found if left is not None)


def cannot_run(stage: Stage) -> LeftStage | None:
    """Why this installation cannot run the stage, None where it can."""
    if missing := missing_packages(stage):
        what = "packages" if len(missing) > 1 else "package"
        are = "are" if len(missing) > 1 else "is"
        remedy = " && ".join(dict.fromkeys(installation(stage, package) for package in missing))
        return LeftStage(stage.name, f"it needs the {what} {', '.join(missing)}, which {are} not installed", remedy)
    return None


def is_enabled(settings: Settings, stage: Stage) -> bool:
    """False where the stage's section of the configuration switches it off; that of `cleanup` is left to the run."""
    if stage.name == "export":
        return settings.export.enabled
    if stage.name == "cleanup":
        return True
    return section_of(settings, stage).enabled


def left_in_words(left: Sequence[LeftStage]) -> list[str]:
    """What a run leaves out, why, and what to type; one text for each reason."""
    reasons: dict[tuple[str, str], list[LeftStage]] = {}
    for each in left:
        if each.without not in [other.name for other in left]:
            reasons.setdefault((each.why, each.remedy), []).append(each)
    said = []
    for (why, remedy), of_reason in reasons.items():
        names = [each.name for each in of_reason]
        followers: list[str] = []
        for each in left:
            if each.without in (*names, *followers):
                followers.append(each.name)
        text = f"Left out: {', '.join(names)}, for {why}."
        if followers:
            take = "takes" if len(followers) == 1 else "take"
            text += (
                f" {', '.join(followers)} {take} what is made there, of which there is nothing, and is left out too."
            )
        if remedy:
            text += f" `{remedy}`, then `skicyclerun run --stages {','.join([*names, *followers])}`."
        said.append(text)
    return said


def section_of(settings: Settings, stage: Stage) -> StageSection:
    """The stage's part of the configuration."""
    if stage.name in settings.command_stages:
        return settings.command_stages[stage.name]
    if stage.section in settings.stages:
        return settings.stages[stage.section]
    assert stage.settings is not None
    return stage.settings()


def output_folder(settings: Settings, stage: Stage) -> Path | None:
    """Where its album folders are; None for one that makes facts only. Raises EnvironmentUnset."""
    return settings.path_of(stage.output) if stage.output else None


def output_folders(settings: Settings) -> dict[str, Path]:
    """The folders of the stages that make files, by stage; without those that cannot be resolved now."""
    folders: dict[str, Path] = {}
    for name, stage in later_stages(settings).items():
        with suppress(EnvironmentUnset):
            if (folder := output_folder(settings, stage)) is not None:
                folders[name] = folder
    return folders


def read_folder(settings: Settings, stage: Stage) -> Path | None:
    """The folder whose files it takes whichever stages make them; None for a stage that reads one stage.

    Its section names it by its path or by its key in `paths`.
    """
    if not stage.reads_folder:
        return None
    named = str(getattr(section_of(settings, stage), stage.reads_folder))
    if "/" not in named:
        with suppress(KeyError):
            return settings.path_of(named.strip("{}"))
    return Path(os.path.normpath(Path(named).expanduser()))


def read_by(settings: Settings, stages: Mapping[str, Stage], stage: Stage) -> tuple[str, ...]:
    """The stages whose files it takes, the export among them, in pipeline order; none where its folder is nobody's."""
    folder = read_folder(settings, stage)
    if folder is None:
        return (stage.reads,)
    if folder == settings.paths.apple_photos_export:
        return ("export",)
    before = itertools.takewhile(lambda name: name != stage.name, stages)
    makers = output_folders(settings)
    return tuple(name for name in before if makers.get(name) == folder)


def upstream_of(stages: Mapping[str, Stage], stage: Stage) -> tuple[str, ...]:
    """The stage it reads, the one that reads, and so on up to the export."""
    chain: list[str] = []
    while stage.reads != "export" and stage.reads not in chain:
        chain.append(stage.reads)
        stage = stages[stage.reads]
    return (*chain, "export")
