"""Each path of a configuration and what is there now, for `config check`. Nothing is made or changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skicyclerun.errors import ConfigError
from skicyclerun.settings.absolute_paths import absolute
from skicyclerun.settings.missing_folders import LIB_ROOT, missing_folders
from skicyclerun.settings.models import PathTexts, Settings
from skicyclerun.settings.placeholders import Resolver
from skicyclerun.stages.registry import FILE_KEYS, made_paths
from skicyclerun.stages.stage import Stage


@dataclass(frozen=True, slots=True)
class PathState:
    """One path. `path` is empty where it cannot be resolved."""

    key: str
    """As it stands in the configuration: `paths.archive`, `export.library`, `logging.file`."""
    path: str
    state: str
    """`there`, `will be made`, `missing`, `not writable`, or `cannot be resolved`; behind a colon, why. One that is not
    there and that these stages do not write is `not there`."""


def path_states(settings: Settings, stages: Sequence[Stage]) -> list[PathState]:
    """The paths of ours in the order of the configuration, then the others that it gives under `paths`."""
    made = made_paths(stages)
    writes = [path for key in made if (path := _resolved(settings, key)) is not None]
    missing = {each.folder: each.what for each in missing_folders(settings, stages)}
    states = [_state(LIB_ROOT, settings.lib_root, written=True, missing=missing)]
    for key in (key for key in PathTexts.model_fields if key != LIB_ROOT):
        try:
            path = settings.path_of(key)
        except ConfigError as error:
            states.append(PathState(f"paths.{key}", "", f"cannot be resolved: {error.problem}"))
        else:
            written = key in made or any(path in folder.parents for folder in writes)
            states.append(_state(f"paths.{key}", path, written=written, is_file=key in FILE_KEYS, missing=missing))
    for name, command in settings.command_stages.items():
        key = f"stages.{name}.output_folder"
        states.append(_state(key, command.output_folder, written=key in made, missing=missing))
    states.append(_state("logging.file", settings.log_folder, written=True, missing=missing))
    if settings.export.library is not None:
        there = os.path.lexists(settings.export.library)
        states.append(PathState("export.library", str(settings.export.library), "there" if there else "missing"))
    return states + _of_other_programs(settings)


def _resolved(settings: Settings, key: str) -> Path | None:
    try:
        return settings.path_of(key)
    except ConfigError:
        return None


def _state(key: str, path: Path, *, written: bool, missing: dict[Path, str], is_file: bool = False) -> PathState:
    folder = path.parent if is_file else path
    try:
        there = os.path.lexists(path)
    except ValueError:
        there = False
    if not written:
        return PathState(key, str(path), "there" if there else "not there; these stages do not write it")
    around = next((why for place, why in missing.items() if place == folder or place in folder.parents), "")
    if around:
        return PathState(key, str(path), f"missing: {around}")
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        return PathState(key, str(path), f"not writable: {nearest} is in the way and is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK) or (is_file and there and not os.access(path, os.W_OK)):
        why = "" if nearest == folder else f": {nearest} may not be written"
        return PathState(key, str(path), f"not writable{why}")
    return PathState(key, str(path), "there" if there else "will be made")


def _of_other_programs(settings: Settings) -> list[PathState]:
    """Further keys of `paths`, as far as they are texts."""
    carried = settings.carried.get("paths")
    texts = {
        key: text
        for key, text in (carried if isinstance(carried, dict) else {}).items()
        if isinstance(text, str) and not key.startswith("_")
    }
    ours = {LIB_ROOT: str(settings.lib_root), **{key: str(path) for key, path in settings.paths.resolved().items()}}
    resolver = Resolver(texts, settings.variables, bound={**ours, "raw_input": ours.get("apple_photos_export", "")})
    states = []
    for key in texts:
        try:
            path = absolute(resolver.key(key).text, settings.variables, settings.lib_root)
            there = os.path.lexists(path)
        except (ConfigError, ValueError) as error:
            why = error.problem if isinstance(error, ConfigError) else str(error)
            states.append(PathState(f"paths.{key}", "", f"cannot be resolved: {why}"))
        else:
            states.append(PathState(f"paths.{key}", str(path), "there" if there else "not there"))
    return states
