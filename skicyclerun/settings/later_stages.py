"""The stages after the export as a configuration has them: ours and the user's own, their sections and folders."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from skicyclerun.errors import EnvironmentUnset
from skicyclerun.settings.models import Settings
from skicyclerun.settings.section import StageSection
from skicyclerun.stages.registry import in_order, parse_stages
from skicyclerun.stages.stage import Stage

_BEFORE: frozenset[str] = frozenset({"cleanup", "export"})


def later_stages(settings: Settings) -> dict[str, Stage]:
    """The provided ones by name, in the order in which a run goes through them."""
    own = {stage.name: stage for stage in settings.own_stages()}
    return {stage.name: stage for stage in in_order(own) if stage.provided and stage.name not in _BEFORE}


def enabled_stages(settings: Settings, names: Sequence[str]) -> tuple[Stage, ...]:
    """The stages named, in order, without those that their section switches off. Raises StageError."""
    later = later_stages(settings)
    stages = parse_stages(names, settings.own_stages())
    return tuple(stage for stage in stages if stage.name not in later or section_of(settings, stage).enabled)


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
        if stage.reads not in stages:  # known, and not provided: nothing of its own is ever made
            return (*chain, "export")
        stage = stages[stage.reads]
    return (*chain, "export")
