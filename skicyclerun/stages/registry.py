"""The stages of the pipeline: which there are, and what each needs.

Adding a stage is one more line in `STAGES`. Only what the requested stages need is checked and created: an export asks
for no model cache and no bucket.
"""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from skicyclerun.errors import ConfigError, ConfigErrors, DiskFull, NotWritable, StageError
from skicyclerun.files.atomic_files import make_directories
from skicyclerun.settings.section import StageSection
from skicyclerun.stages import (
    geocode_sweep,
    llm_image_analysis,
    lora_processing,
    metadata_extraction,
    preprocessing,
    s3_deployment,
    watermarking,
)
from skicyclerun.stages.stage import Stage
from skicyclerun.wording import nearest

#: All stages of ours, in the order in which a run goes through them.
STAGES: Final[tuple[Stage, ...]] = (
    Stage(
        "cleanup",
        "puts the old outputs into a proved archive and, before an export, empties their folders",
        needs_paths=("apple_photos_export", "lora_processed", "metadata_dir", "archive", "state_db"),
        makes_paths=("archive", "state_db"),
    ),
    Stage(
        "export",
        "exports albums to folders of JPEGs and enters every file in the catalog",
        needs_paths=("pipeline_base", "apple_photos_export", "metadata_dir", "master_catalog", "archive", "state_db"),
        makes_paths=("apple_photos_export", "metadata_dir", "master_catalog", "archive", "state_db"),
    ),
    metadata_extraction.STAGE,
    geocode_sweep.STAGE,
    llm_image_analysis.STAGE,
    preprocessing.STAGE,
    watermarking.STAGES[0],
    lora_processing.STAGE,
    watermarking.STAGES[1],
    s3_deployment.STAGE,
)

STAGE_BY_NAME: Final[Mapping[str, Stage]] = {stage.name: stage for stage in STAGES}

#: Keys of `paths` that name a file; the others name a folder.
FILE_KEYS: Final = frozenset({"master_catalog", "geocode_cache", "state_db"})


class StageSettings(Protocol):
    """What stages ask of the settings (`skicyclerun.settings.Settings` is one)."""

    @property
    def log_folder(self) -> Path: ...

    @property
    def variables(self) -> Mapping[str, str]: ...

    def path_of(self, key: str) -> Path:
        """The resolved value of a key of `paths`. Raises ConfigError where it cannot be resolved."""
        ...


def section_models() -> dict[str, type[StageSection]]:
    """The sections of the configuration that stages have, by name; several stages may share one."""
    return {stage.section: stage.settings for stage in STAGES if stage.settings is not None}


def check_stage_name(name: str, further: Iterable[str] = ()) -> None:
    """Raises StageError, with the nearest name, for a stage that is neither known nor among the `further` ones."""
    known = tuple(dict.fromkeys((*STAGE_BY_NAME, *further)))
    if name not in known:
        raise StageError(
            f"There is no stage {name!r}.{nearest(name, known)} There are: {', '.join(known)}.",
            next_step="`skicyclerun run --stages export` runs an export without the stages after it.",
        )


def parse_stages(wanted: str | Sequence[str], further: Iterable[Stage] = ()) -> tuple[Stage, ...]:
    """The stages named, each once, in pipeline order (cleanup before export, and each after the one it reads).

    A text is split at commas and white space. `further` stages are known as well, and stand in for ours of the same
    name (`Settings.own_stages`). Raises StageError for an unknown name, and where none is named.
    """
    own = {stage.name: stage for stage in further}
    known = in_order(own)
    parts = [wanted] if isinstance(wanted, str) else wanted
    named = {name for part in parts for name in part.replace(",", " ").split()}
    for name in sorted(named):
        check_stage_name(name, own)
    if not named:
        names = ", ".join(stage.name for stage in known)
        raise StageError("No stage is named.", next_step=f"Name one or more of: {names}.")
    return tuple(stage for stage in known if stage.name in named)


def in_order(own: Mapping[str, Stage]) -> tuple[Stage, ...]:
    """Ours, with `own` ones in the place of those of the same name, and new ones after the stage they read."""
    stages = {**STAGE_BY_NAME, **own}
    ordered: dict[str, Stage] = {}

    def place(stage: Stage) -> None:
        if stage.name in own and stage.reads not in ordered:
            place(stages[stage.reads])
        if stage.name in ordered:
            return
        ordered[stage.name] = stage
        for reader in own.values():
            if reader.reads == stage.name and reader.name not in STAGE_BY_NAME:
                place(reader)

    for stage in stages.values():
        place(stage)
    return tuple(ordered.values())


def key_in_words(key: str) -> str:
    """What errors call a key of `needs_paths`: `paths.archive`; `stages.NAME.output_folder` as it is."""
    return key if "." in key else f"paths.{key}"


#: What every stage after the export reads or writes besides its own: its input's catalog and state, the archive of what
#: has left.
_NEEDED_LATER: Final = ("apple_photos_export", "metadata_dir", "master_catalog", "archive", "state_db")
_MADE_LATER: Final = ("metadata_dir", "master_catalog", "archive", "state_db")


def _needed_paths(stages: Iterable[Stage]) -> tuple[str, ...]:
    needed: dict[str, None] = {}
    for stage in stages:
        needed |= dict.fromkeys((*stage.needs_paths, *(_NEEDED_LATER if stage.settings is not None else ())))
    return tuple(needed)


def check_stage_needs(
    settings: StageSettings, stages: Sequence[Stage], environ: Mapping[str, str] | None = None
) -> None:
    """Check what these stages need, and nothing else; nothing is created or written.

    `environ` None: the variables of the settings. Raises ConfigError (ConfigErrors for several): a path that cannot be
    resolved or is taken by something of the wrong kind, an environment variable that is not set, a package that is not
    installed.
    """
    environ = settings.variables if environ is None else environ
    problems: list[ConfigError] = []
    for key in _needed_paths(stages):
        try:
            path = settings.path_of(key)
        except ConfigError as error:
            problems.append(error)
            continue
        try:
            _check_kind(path, key)
        except ConfigError as error:
            problems.append(error)
    for stage in stages:
        problems += [
            ConfigError(
                f"the stage {stage.name} needs the environment variable {variable}, which is not set",
                next_step=f"Type `export {variable}=…`, or leave {stage.name} out of --stages.",
            )
            for variable in stage.needs_environment
            if not environ.get(variable)
        ]
        problems += [
            ConfigError(
                f"the stage {stage.name} needs the package {package}, which is not installed",
                next_step=f"`{installation(stage, package)}`, or leave {stage.name} out of --stages.",
            )
            for package in missing_packages(stage)[: 1 if stage.extra else None]
        ]
    if problems:
        raise problems[0] if len(problems) == 1 else ConfigErrors(problems)


def missing_packages(stage: Stage) -> tuple[str, ...]:
    """Of the packages that the stage needs, those that are not installed, by their import names."""
    return tuple(package for package in stage.needs_packages if importlib.util.find_spec(package) is None)


def installation(stage: Stage, package: str) -> str:
    """What to type for a package that is missing; an extra brings all of a stage's at once."""
    return f'pip install "skicyclerun[{stage.extra}]"' if stage.extra else f"pip install {package}"


def _check_kind(path: Path, key: str) -> None:
    """A folder where a folder is meant, a file where a file is meant, or nothing there yet."""
    name = key_in_words(key)
    try:
        if key in FILE_KEYS:
            if path.is_dir():
                raise ConfigError(f"{path} is a folder; a file is meant", key=name)
        elif path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file; a folder is meant", key=name)
    except OSError as error:
        raise ConfigError(f"{path} cannot be looked at ({error.strerror})", key=name) from error


def made_paths(stages: Sequence[Stage]) -> tuple[str, ...]:
    """The keys of the paths that these stages write, each once; of a file, its folder is made."""
    made = [key for stage in stages for key in stage.makes_paths]
    made += _MADE_LATER if any(stage.settings is not None for stage in stages) else ()
    return tuple(dict.fromkeys(made))


def prepare_folders(settings: StageSettings, stages: Sequence[Stage]) -> None:
    """Make the folders that these stages and the log write to, durably, and see that they can be written.

    Raises NotWritable or DiskFull with the path and its key, ConfigError for a path that cannot be resolved.
    """
    for key in made_paths(stages):
        path = settings.path_of(key)
        _prepare(path.parent if key in FILE_KEYS else path, key_in_words(key))
    _prepare(settings.log_folder, "logging.file")


def _prepare(folder: Path, key: str) -> None:
    try:
        make_directories(folder)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise _sentence(error, folder, key) from error
    if not writable:
        raise NotWritable(
            f"{folder} ({key}) cannot be written: the disk is read-only, or you have no permission.",
            next_step=f"Change {key}, name another --lib-root, or give yourself the permission.",
        )


def _sentence(error: OSError, folder: Path, key: str) -> DiskFull | NotWritable:
    """An OSError of `mkdir` for the person at the keyboard."""
    change = f"Change {key}, or name another --lib-root."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"{folder} ({key}) could not be made: no space is left on the disk. Nothing was exported or deleted.",
            next_step=f"Make room. {change}",
        )
    if error.errno == errno.EROFS:
        return NotWritable(f"{folder} ({key}) could not be made: the disk is read-only.", next_step=change)
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotWritable(f"{folder} ({key}) could not be made: permission denied.", next_step=change)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        # The nearest thing on the way that is not a folder, or a symbolic link to nothing.
        way = next((part for part in (folder, *folder.parents) if os.path.lexists(part) and not part.is_dir()), folder)
        return NotWritable(
            f"{folder} ({key}) could not be made: {way} is in the way and is not a folder.", next_step=change
        )
    return NotWritable(f"{folder} ({key}) could not be made: {error.strerror}.", next_step=change)
