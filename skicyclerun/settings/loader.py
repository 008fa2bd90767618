"""One reading of a configuration, step by step: every problem is gathered before any is raised.

The sections `pipeline`, `paths`, `export`, `cleanup` and `logging` are ours and strictly checked; the rest is carried
along (`carried.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from skicyclerun.errors import ConfigError
from skicyclerun.settings.absolute_paths import home
from skicyclerun.settings.carried import ours_and_carried
from skicyclerun.settings.errors import MAX_PROBLEMS, raise_all
from skicyclerun.settings.models import (
    EMPTIED_KEYS,
    SECTIONS,
    CleanupSettings,
    ExportSettings,
    LoggingSettings,
    PipelineSettings,
    Settings,
)
from skicyclerun.settings.overrides import with_overrides
from skicyclerun.settings.path_texts import path_texts, resolve_paths, settle_root
from skicyclerun.settings.problems import Problems
from skicyclerun.settings.safety import lies_in, unsafe_paths
from skicyclerun.settings.sections import read_section
from skicyclerun.stages.registry import FILE_KEYS, STAGE_BY_NAME

_CATALOG_FILES: Final = ("paths.master_catalog", "paths.geocode_cache")


def settings_from(
    written: Mapping[str, object],
    file: Path,
    root: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    *,
    needs_lib_root: bool,
) -> Settings:
    """The settings that `written`, the object in `file`, means; the parameters are those of `load_settings`.

    Raises ConfigError, or ConfigErrors for several problems; either carries the warnings there were.
    """
    problems = Problems(file, overrides)
    raw = with_overrides(written, overrides, SECTIONS, environ, problems)
    ours, carried = ours_and_carried(raw, written, SECTIONS, problems)
    texts = path_texts(ours["paths"], written.get("paths"), carried, problems)
    scope = settle_root(texts, root, environ, problems, needs_lib_root=needs_lib_root)
    pipeline = read_section(PipelineSettings, "pipeline", ours["pipeline"], scope, problems)
    requested = [STAGE_BY_NAME[name] for name in pipeline.stages]
    needed = {key for stage in requested if stage.provided for key in stage.needs_paths}
    ours["logging"].setdefault("file", LoggingSettings().file)
    settings = Settings(
        lib_root=scope.root,
        file=file,
        pipeline=pipeline,
        paths=resolve_paths(texts, scope, needed, problems),
        export=read_section(ExportSettings, "export", ours["export"], scope, problems),
        cleanup=read_section(CleanupSettings, "cleanup", ours["cleanup"], scope, problems),
        logging=read_section(LoggingSettings, "logging", ours["logging"], scope, problems),
        carried=carried,
        warnings=tuple(problems.warnings[:MAX_PROBLEMS]),
    )
    raise_all(problems.errors, settings.warnings)
    raise_all(_unsafe(settings, environ), settings.warnings)
    return settings


def _unsafe(settings: Settings, environ: Mapping[str, str]) -> list[ConfigError]:
    """What is dangerous about where our folders lie."""
    paths = {f"paths.{key}": path for key, path in settings.paths.resolved().items()}
    files = {f"paths.{key}" for key in FILE_KEYS}
    emptied = {name: path for name, path in paths.items() if name.removeprefix("paths.") in EMPTIED_KEYS}
    kept = {name: path for name, path in paths.items() if name not in emptied}
    metadata = paths.get("paths.metadata_dir")
    for name in _CATALOG_FILES:
        # Archived and emptied with the metadata folder, which is their place; in another they would be lost.
        if name in kept and metadata is not None and lies_in(kept[name], metadata):
            del kept[name]
    kept["the configuration file"] = settings.file
    folders = {name: path for name, path in paths.items() if name not in files}
    folders["logging.file"] = kept["logging.file"] = settings.log_folder
    return unsafe_paths(settings.lib_root, home(environ), folders, emptied, kept, settings.file)
