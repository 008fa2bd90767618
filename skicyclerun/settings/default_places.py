"""Where things are for a configuration that says nothing but what is the default anyway.

`status` asks this first: models, recipes and pydantic then need not be imported, which would take longer than its
answer. Where there is anything to be said about a configuration, it is left to `load_settings` to say it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skicyclerun.errors import SkicyclerunError
from skicyclerun.settings.absolute_paths import home
from skicyclerun.settings.config_file import CONFIG_NAME, found_config, named_root
from skicyclerun.settings.dotenv_file import variables_beside
from skicyclerun.settings.file import read_config_file
from skicyclerun.settings.safety import unsafe_paths
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.stages.names import STAGE_OUTPUTS


@dataclass(frozen=True, slots=True)
class ReportPlaces:
    """What a report needs to know of a configuration."""

    state_db: Path
    export_folder: Path
    stage_folders: Mapping[str, Path] = field(default_factory=dict)
    """Where stages have their files."""
    remote: str | None = None
    """The second place for archives."""


def default_places(
    config_file: Path | None, lib_root: Path | None, environ: Mapping[str, str] = os.environ
) -> ReportPlaces | None:
    """The places below a lib_root that holds a state; `config_file` and `lib_root` are those of `load_settings`.

    None where the configuration is not the default, or `load_settings` would have anything to warn of or to refuse.
    """
    try:
        shipped = shipped_file(CONFIG_NAME)
        defaults = read_config_file(shipped)
        root = named_root(lib_root, environ)
        file = found_config(root) if config_file is None else Path(os.path.abspath(config_file))
        if file != shipped:
            if not _is_default(read_config_file(file), defaults):
                return None
            variables = variables_beside(file, environ)
            root = root or named_root(None, variables)
            if variables.warnings:
                return None
    except (SkicyclerunError, OSError):
        return None
    paths = defaults["paths"]
    if root is None or not isinstance(paths, dict):
        return None
    places = {key: _resolved(str(text), paths, root) for key, text in paths.items() if key != "lib_root"}
    if not places["state_db"].is_file() or _are_unsafe(places, root, home(environ), file):
        return None
    folders = {stage: places[key] for stage, key in STAGE_OUTPUTS.items() if key}
    return ReportPlaces(places["state_db"], places["apple_photos_export"], folders)


def _is_default(value: object, default: object) -> bool:
    """Whether an object says nothing else than `default`, which may hold more; notes (`_comment`) say nothing."""
    if isinstance(value, dict) and isinstance(default, dict):
        return all(
            name.startswith("_") or (name in default and _is_default(inner, default[name]))
            for name, inner in value.items()
        )
    return json.dumps(value) == json.dumps(default)  # 1 is not true there


def _resolved(text: str, paths: Mapping[str, object], root: Path) -> Path:
    """One of the default paths, which hold other keys of `paths` alone."""

    def value(found: re.Match[str]) -> str:
        return str(root if found[1] == "lib_root" else _resolved(str(paths[found[1]]), paths, root))

    return Path(re.sub(r"\{(\w+)\}", value, text))


def _are_unsafe(places: Mapping[str, Path], root: Path, home: Path, file: Path) -> bool:
    """Whether anything might be said about where the folders lie. Asks for more than `load_settings` does."""
    folders = {f"paths.{key}": path for key, path in places.items()}
    logs = root / "logs"
    kept = {"the configuration file": file, "logging.file": logs, "paths.state_db": places["state_db"]}
    emptied = {key: path for key, path in folders.items() if key != "paths.pipeline_base" and path.suffix == ""}
    return bool(unsafe_paths(root, home, {**folders, "logging.file": logs}, emptied, kept, file))
