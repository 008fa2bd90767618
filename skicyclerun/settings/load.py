"""Finds, reads, resolves and checks the configuration; `load_settings` is the way in.

docs/configuration.md lists every key.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from skicyclerun.errors import ConfigError
from skicyclerun.settings.command_stages import output_key
from skicyclerun.settings.config_file import CONFIG_NAME, found_config, named_root
from skicyclerun.settings.dotenv_file import variables_beside
from skicyclerun.settings.errors import raise_all
from skicyclerun.settings.file import read_config_file
from skicyclerun.settings.loader import settings_from
from skicyclerun.settings.models import EMPTIED_KEYS, LoggingSettings, Settings
from skicyclerun.settings.placeholders import escape
from skicyclerun.settings.safety import lies_in, unsafe_source
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.stages.registry import STAGES

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


def load_settings(
    config_file: Path | None,
    *,
    lib_root: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] = _NOTHING,
    needs_lib_root: bool = True,
    only: Collection[str] | None = None,
    writes: bool = False,
) -> Settings:
    """Read, resolve and check the configuration.

    `config_file` None: `{lib_root}/config/pipeline_config.json` where there is one, otherwise the shipped default. What
    the file leaves out has its default. `lib_root` wins over $SKICYCLERUN_LIB_ROOT, which wins over `paths.lib_root`.
    `overrides` are the command line's, by dotted key (`export.source`); they win over the file, and their texts are
    taken as they are, without placeholders, relative paths from the working directory. Without `needs_lib_root` it is
    no mistake that nothing names a lib_root; the paths below it then lie in a folder that is not there, and only what
    has nothing to do with them may be used.

    Variables come from `environ`, and from a `.env` beside the configuration where they are not set there.

    `only` are the sections that have to be right besides the paths, for what reads rather than runs; what is wrong
    elsewhere, and which folders endanger each other, is then in `Settings.problems`, and a wrong section's defaults
    stand. None: everything has to be right. `writes`: which folders endanger each other counts all the same.

    Raises ConfigError, or ConfigErrors with all problems at once; either carries the warnings there were.
    """
    root = named_root(lib_root, environ)
    file = found_config(root) if config_file is None else Path(os.path.abspath(config_file))
    # The shipped default is nobody's own, and neither is what lies beside it.
    beside = None if config_file is None and file == shipped_file(CONFIG_NAME) else file
    try:
        written = read_config_file(file)
    except ConfigError as error:
        if root is not None:
            error.log_file = LoggingSettings().file.replace("{lib_root}", escape(str(root)))
        raise
    variables = variables_beside(beside, environ)
    if root is None:
        root = named_root(None, variables)
    return settings_from(
        written, file, root, variables, overrides, needs_lib_root=needs_lib_root, only=only, writes=writes
    )


def check_source_and_outputs(settings: Settings, library: Path) -> None:
    """Refuse a source that the run would write into or a cleanup would empty. Raises ConfigError or ConfigErrors.

    What stages make that are not asked for (`pipeline.stages`) may be a source: nothing is written there.
    """
    asked = [stage for stage in STAGES if stage.name in ("cleanup", "export", *settings.pipeline.stages)]
    ours = {*EMPTIED_KEYS, *(key for stage in asked for key in stage.makes_paths)}
    written = {f"paths.{key}": path for key, path in settings.paths.resolved().items() if key in ours}
    written |= {output_key(name): stage.output_folder for name, stage in settings.command_stages.items()}
    written["logging.file"] = settings.log_folder
    if settings.cleanup.remote is not None and settings.cleanup.remote.startswith("/"):
        written["cleanup.remote"] = Path(settings.cleanup.remote)
    if lies_in(settings.lib_root, library):
        # Said once, rather than of each path below it.
        written = {key: path for key, path in written.items() if not lies_in(path, settings.lib_root)}
        written = {"lib_root": settings.lib_root, **written}
    emptied = [f"paths.{key}" for key in (*EMPTIED_KEYS, *(stage.output for stage in asked if stage.output))]
    raise_all(unsafe_source(library, written, emptied, settings.file))


def check_archive_place(settings: Settings, library: Path | None) -> None:
    """Refuse a second place for archives in the source: the configured one, and `library`, which runs have read.

    For what writes into that place and opens no source. Raises ConfigError.
    """
    if settings.cleanup.remote is None or not settings.cleanup.remote.startswith("/"):
        return
    written = {"cleanup.remote": Path(settings.cleanup.remote)}
    for source in {settings.export.library, library} - {None}:
        raise_all(unsafe_source(Path(source or "/"), written, (), settings.file))
