"""One reading of a configuration, step by step: every problem is gathered before any is raised.

The sections `pipeline`, `paths`, `export`, `cleanup`, `logging`, `report` and `stages` are ours and strictly checked,
those of stages are shared with other programs (`read_stages.py`), and the rest is carried along (`carried.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from skicyclerun.errors import ConfigError, StageError
from skicyclerun.settings.absolute_paths import absolute, home
from skicyclerun.settings.archive_url import archive_url
from skicyclerun.settings.carried import ours_and_carried, without_unknown
from skicyclerun.settings.cleanup_folders import cleanup_names
from skicyclerun.settings.command_stages import OUTPUT_KEYS, output_key
from skicyclerun.settings.dotenv_file import Variables, referred_variables
from skicyclerun.settings.errors import MAX_PROBLEMS, Problems, raise_all
from skicyclerun.settings.file import show
from skicyclerun.settings.models import (
    EMPTIED_KEYS,
    SECTIONS,
    CleanupSettings,
    ExportSettings,
    LoggingSettings,
    PipelineSettings,
    ReportSettings,
    Settings,
)
from skicyclerun.settings.path_texts import path_texts, resolve_paths, settle_root
from skicyclerun.settings.placeholders import escape, late_names
from skicyclerun.settings.read_stages import read_command_stages, read_stage_sections
from skicyclerun.settings.safety import lies_in, unsafe_outputs, unsafe_paths
from skicyclerun.settings.sections import Scope, read_section
from skicyclerun.settings.written_secrets import hidden_in, warn_of_secrets, without_secrets
from skicyclerun.stages.registry import FILE_KEYS, STAGES, check_stage_name, missing_packages, section_models
from skicyclerun.stages.stage import Stage
from skicyclerun.wording import nearest

_REMOTE_SERVICE: Final = "cleanup.remote_service"
_CATALOG_FILES: Final = ("paths.master_catalog", "paths.geocode_cache")


def settings_from(
    written: Mapping[str, object],
    file: Path,
    root: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    *,
    needs_lib_root: bool,
    only: Collection[str] | None = None,
    writes: bool = False,
) -> Settings:
    """The settings that `written`, the object in `file`, means; the parameters are those of `load_settings`.

    Raises ConfigError, or ConfigErrors for several problems; either carries the warnings there were.
    """
    if not isinstance(environ, Variables):
        environ = Variables(environ)
    variables = replace(environ, referred=referred_variables(dict(written)))
    hide = _hiding(variables)
    problems = Problems(file, overrides, warnings=list(variables.warnings), hide=hide)
    sections = (*SECTIONS, *section_models(), "stages")
    raw = _with_overrides(written, overrides, sections, environ, problems)
    read, carried = ours_and_carried(raw, written, sections, problems)
    _refuse_secrets_of_the_remote(read, carried, problems)
    closed = [name for name, model in section_models().items() if model.no_secrets]
    warn_of_secrets(written, (*closed, _REMOTE_SERVICE), problems)
    ours = {name: problems.as_object(name, read[name]) for name in (*SECTIONS, "stages")}
    strict = {name: model for name, model in SECTIONS.items() if name != "paths"}
    ours |= without_unknown(strict, ours, carried, problems)
    texts = path_texts(ours["paths"], written.get("paths"), carried, problems)
    scope = settle_root(texts, root, environ, problems, needs_lib_root=needs_lib_root)
    pipeline = read_section(PipelineSettings, "pipeline", ours["pipeline"], scope, problems)
    requested = _known(pipeline.stages, ours["stages"], problems)
    typed = "pipeline.stages" in overrides
    needed_stages = [
        stage
        for stage in STAGES
        if stage.name in requested and stage.name not in ours["stages"] and (typed or _will_run(stage, read))
    ]
    needed = {key for stage in needed_stages for key in stage.needs_paths} if only is None else set()
    paths = resolve_paths(texts, scope, needed, problems)
    ours["logging"].setdefault("file", LoggingSettings().file)
    cleanup = read_section(CleanupSettings, "cleanup", ours["cleanup"], scope, problems)
    _check_cleanup_folders(cleanup, ours["stages"], problems)
    settings = Settings(
        lib_root=scope.root,
        file=file,
        pipeline=pipeline,
        paths=paths,
        export=read_section(ExportSettings, "export", ours["export"], scope, problems),
        cleanup=cleanup,
        logging=_logging(ours["logging"], scope, problems),
        report=read_section(ReportSettings, "report", ours["report"], scope, problems),
        stages=read_stage_sections(read, written, {stage.section for stage in needed_stages}, scope, carried, problems),
        command_stages=read_command_stages(ours["stages"], paths, requested, scope, carried, problems),
        carried=carried,
        warnings=tuple(map(hide, problems.warnings[:MAX_PROBLEMS])),
        unneeded=tuple(problems.unneeded[:MAX_PROBLEMS]),
        variables=variables,
    )
    unsafe = _unsafe(settings, environ)
    try:
        raise_all([error for error in problems.errors if _stops(error, only)], settings.warnings)
        if only is None or writes:
            raise_all(unsafe, settings.warnings)
    except ConfigError as error:
        error.log_file = _log_file_all_the_same(settings, unsafe)
        raise
    return replace(settings, problems=tuple([*problems.errors, *unsafe][:MAX_PROBLEMS]))


def _hiding(variables: Variables) -> Callable[[str], str]:
    return lambda text: hidden_in(variables.hide(text))


def _refuse_secrets_of_the_remote(read: Mapping[str, object], carried: dict[str, Any], problems: Problems) -> None:
    """`cleanup.remote_service`, like `s3_deployment`, says where credentials are and holds none."""
    section, key = _REMOTE_SERVICE.split(".")
    holders = [ours for sections in (read, carried) if isinstance(ours := sections.get(section), dict)]
    holders = [ours for ours in holders if isinstance(ours.get(key), dict)]
    kept = without_secrets(_REMOTE_SERVICE, [ours[key] for ours in holders], problems)
    for ours, part in zip(holders, kept, strict=True):
        ours[key] = part


def _stops(error: ConfigError, only: Collection[str] | None) -> bool:
    """Whether nobody can go on who needs the paths and the sections `only`."""
    section = error.key.partition(".")[0].partition("[")[0]
    return only is None or section in ("", "lib_root", "paths", *only)


def _will_run(stage: Stage, read: Mapping[str, object]) -> bool:
    """False for a listed stage that a run leaves out: its extra is not installed, or its section switches it off."""
    section = read.get(stage.section or stage.name)
    return not (missing_packages(stage) or (isinstance(section, dict) and section.get("enabled") is False))


def _logging(section: Mapping[str, object], scope: Scope, problems: Problems) -> LoggingSettings:
    """Where it is wrong, the default, whose file is resolved as any."""
    found = Problems(problems.file, problems.from_command_line, renamed=problems.renamed, hide=problems.hide)
    logging = read_section(LoggingSettings, "logging", section, scope, found)
    problems.errors += found.errors
    if found.errors:
        logging = read_section(LoggingSettings, "logging", {"file": LoggingSettings().file}, scope, found)
    return logging


def _check_cleanup_folders(cleanup: CleanupSettings, own: Collection[str], problems: Problems) -> None:
    """Each name must be one of a folder that a cleanup may put away."""
    known = cleanup_names(own)
    for key, names in (("folders", cleanup.folders or ()), ("keep", cleanup.keep)):
        for index, name in enumerate(names):
            if name not in known:
                problems.add(
                    f"cleanup.{key}[{index}]",
                    f"names no folder that a cleanup puts away, {show(name)}.{nearest(name, known)}",
                )


def _log_file_all_the_same(settings: Settings, unsafe: Collection[ConfigError]) -> str:
    """Where a log may be kept of a configuration that is refused; empty where nothing should be written by it."""
    template = settings.logging.file
    if late_names(template) != {"timestamp"} or unsafe:
        return ""
    return template


def _with_overrides(
    raw: Mapping[str, object],
    overrides: Mapping[str, object],
    sections: Collection[str],
    environ: Mapping[str, str],
    problems: Problems,
) -> dict[str, object]:
    """`raw` with the command line's values in it, by dotted key; `raw` itself stays as it is.

    Raises LookupError for a key in none of the `sections`, which is a mistake of ours.
    """
    result = dict(raw)
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        if not parents or parents[0] not in sections:
            raise LookupError(f"{dotted!r} names no section of ours")
        section = result
        for name in parents:
            inner = section.get(name, {})
            if not isinstance(inner, dict):
                break  # reported when the section is checked
            copy = dict(inner)
            section[name] = copy
            section = copy
        else:
            try:
                _override(section, dotted, last, value, environ)
            except ValueError as error:
                problems.add(dotted, str(error))
    return result


def _override(section: dict[str, object], dotted: str, last: str, value: object, environ: Mapping[str, str]) -> None:
    is_path = dotted.startswith("paths.") or dotted in ("export.library", "logging.file", "report.file")
    if (is_path or (dotted.startswith("stages.") and last == "output_folder")) and isinstance(value, str | Path):
        value = str(absolute(str(value), environ, Path.cwd()))
    if dotted in ("paths.apple_photos_export", "paths.raw_input"):
        # The two are one; the command line's word replaces the file's, whichever the file uses.
        section.pop("raw_input", None)
        section.pop("apple_photos_export", None)
    section[last] = value if _is_template(dotted) else _as_literal(value)


def _is_template(dotted: str) -> bool:
    """Whether a stage reads the placeholders of this text itself."""
    name, _, key = dotted.partition(".")
    model = section_models().get(name)
    return model is not None and key in model.templates


def _as_literal(value: object) -> object:
    """A value of the command line as the file would have to write it to mean just that."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, tuple | list):
        return [_as_literal(item) for item in value]
    return value


def _known(names: Iterable[str], own: Collection[str], problems: Problems) -> list[str]:
    """Those of the requested stages that are ours or the user's `own`."""
    known = []
    for name in names:
        try:
            check_stage_name(name, own)
        except StageError as error:
            problems.add("pipeline.stages", str(error))
        else:
            known.append(name)
    return known


def _unsafe(settings: Settings, environ: Mapping[str, str]) -> list[ConfigError]:
    """What is dangerous about where our folders lie."""
    paths = {f"paths.{key}": path for key, path in settings.paths.resolved().items()}
    files = {f"paths.{key}" for key in FILE_KEYS}
    later = {stage.output for stage in STAGES if stage.output and stage.name in settings.pipeline.stages}
    known = cleanup_names(settings.command_stages)
    named = {known[name] for name in settings.cleanup.folders or () if name in known}
    emptied = {
        name: path for name, path in paths.items() if name.removeprefix("paths.") in (*EMPTIED_KEYS, *later, *named)
    }
    kept = {name: path for name, path in paths.items() if name not in emptied}
    metadata = paths.get("paths.metadata_dir")
    for name in _CATALOG_FILES:
        # Archived and emptied with the metadata folder, which is their place; in another they would be lost.
        if name in kept and metadata is not None and lies_in(kept[name], metadata):
            del kept[name]
    kept["the configuration file"] = settings.file
    if settings.report.file is not None:
        kept["report.file"] = settings.report.file
    folders = {name: path for name, path in paths.items() if name not in files}
    folders["logging.file"] = kept["logging.file"] = settings.log_folder
    remote = archive_url(settings.cleanup.remote, environ).folder if settings.cleanup.remote is not None else None
    if remote is not None:
        folders["cleanup.remote"] = kept["cleanup.remote"] = remote
    problems = unsafe_paths(settings.lib_root, home(environ), folders, emptied, kept, settings.file)
    archive = paths.get("paths.archive")
    if remote is not None and archive is not None and (lies_in(remote, archive) or lies_in(archive, remote)):
        said = f"{remote} and paths.archive ({archive}) are one place or lie in one another"
        problems.append(
            ConfigError(said, key="cleanup.remote", file=settings.file, next_step="Name a folder on another disk.")
        )
    others = paths if remote is None else {**paths, "cleanup.remote": remote}
    return problems + _unsafe_outputs(settings, home(environ), others)


def _unsafe_outputs(settings: Settings, home: Path, paths: Mapping[str, Path]) -> list[ConfigError]:
    """The same of the folders of the user's own stages; those of ours that they write to have been looked at."""
    outputs = {
        output_key(name): stage.output_folder
        for name, stage in settings.command_stages.items()
        if stage.output_folder != paths.get(f"paths.{OUTPUT_KEYS.get(name)}")
    }
    around = {
        "lib_root": settings.lib_root,
        "your home directory": home,
        "the configuration file": settings.file,
        "logging.file": settings.log_folder,
    } | {key: path for key, path in paths.items() if key == "paths.pipeline_base"}
    places = {key: path for key, path in paths.items() if key not in around}
    return unsafe_outputs(outputs, places, around, settings.file)
