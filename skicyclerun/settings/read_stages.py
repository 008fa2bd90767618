"""Reads the sections of stages, and the section `stages` with commands of the user's own.

A wrong value in a section that no requested stage has is warned of and its defaults stand: an export is not refused
because of a watermark.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from skicyclerun.errors import EnvironmentUnset
from skicyclerun.settings.absolute_paths import absolute
from skicyclerun.settings.carried import merged, without_foreign
from skicyclerun.settings.command_stages import (
    ALBUM_NAMES,
    OUTPUT_KEYS,
    PICTURE_NAMES,
    CommandStageSettings,
    wrong_name,
)
from skicyclerun.settings.errors import Problems
from skicyclerun.settings.file import join, show
from skicyclerun.settings.models import Paths
from skicyclerun.settings.section import StageSection
from skicyclerun.settings.sections import Scope, plain, read_section, resolved_object
from skicyclerun.settings.written_secrets import without_secrets
from skicyclerun.stages.registry import STAGE_BY_NAME, section_models
from skicyclerun.wording import nearest

#: After what is wrong in a section that no stage has which the configuration or the command line asks for.
UNNEEDED: Final = "No stage that runs needs it; the defaults stand."
_LATE: Final = PICTURE_NAMES | ALBUM_NAMES


def read_stage_sections(
    ours: Mapping[str, object],
    written: Mapping[str, object],
    used: Collection[str],
    scope: Scope,
    carried: dict[str, Any],
    problems: Problems,
) -> dict[str, StageSection]:
    """The sections of the stages by name; keys of other programs in them go to `carried`.

    `used` are the sections of the stages that are requested.
    """
    read: dict[str, StageSection] = {}
    for name, model in section_models().items():
        found = Problems(problems.file, problems.from_command_line, hide=problems.hide)
        given, notes = found.as_object(name, ours[name]), carried.pop(name, {})
        if model.no_secrets:
            secrets = Problems(problems.file, problems.from_command_line, hide=problems.hide)
            given, notes = without_secrets(name, (given, notes), secrets)
            if name in used:
                problems.errors += secrets.errors
            else:
                problems.unneeded += secrets.errors
                problems.warnings += [f"{error}. {error.next_step}" for error in secrets.errors]
        section, foreign = without_foreign(model, name, given, written.get(name), found)
        if notes:
            carried[name] = notes
        if foreign:
            carried[name] = merged(foreign, carried.get(name, {}))
        read[name] = read_section(model, name, _with_texts(model, section), scope, found)
        if name in used and not found.errors:
            doubts = read[name].doubts().items()
            problems.warnings += [f"{problems.file}: {join(name, key)} {doubt}" for key, doubt in doubts]
        told = [error for error in found.errors if name in used or error.file is None]
        problems.errors += told
        # A path that only this stage needs, and that needs a variable, is nothing to be warned of.
        wrong = [e for e in found.errors if not (isinstance(e, EnvironmentUnset) and e.key.startswith("paths."))]
        problems.unneeded += [error for error in wrong if error not in told]
        untold = dict.fromkeys(str(error) for error in wrong if error not in told)
        problems.warnings += found.warnings
        problems.warnings += [f"{text.removesuffix('.')}. {UNNEEDED}" for text in untold]
    return read


def _with_texts(model: type[StageSection], section: Mapping[str, object]) -> dict[str, object]:
    """The section with the defaults that hold placeholders of the configuration, to be resolved like its own texts."""
    defaults = {key: field.default for key, field in model.model_fields.items() if key not in model.templates}
    return {key: text for key, text in defaults.items() if isinstance(text, str) and "{" in text} | dict(section)


def read_command_stages(
    section: Mapping[str, object],
    paths: Paths,
    requested: Collection[str],
    scope: Scope,
    carried: dict[str, Any],
    problems: Problems,
) -> dict[str, CommandStageSettings]:
    """The user's own stages by name. One that is not requested and needs a variable which is not set is left out.

    So is one that is wrong (a command that only reads goes on without it), and what reads one that is left out.
    """
    read: dict[str, CommandStageSettings] = {}
    needed = _with_what_they_read(requested, section)
    for name, value in section.items():
        key = join("stages", name)
        found = Problems(problems.file, problems.from_command_line, hide=problems.hide)
        if wrong := wrong_name(name):
            found.add(key, wrong)
            settings = None
        else:
            settings = _command_stage(name, found.as_object(key, value), paths, scope, found)
        unset = bool(found.errors) and all(isinstance(error, EnvironmentUnset) for error in found.errors)
        if unset and name not in needed:
            problems.warnings += [f"{error}. The stage {name} is left out." for error in found.errors]
            carried["stages"] = merged({name: value}, carried.get("stages", {}))
        else:
            problems.errors += found.errors
            if settings is not None:
                read[name] = settings
    _check_what_is_read(section, read, problems)
    sound = {name: settings for name, settings in read.items() if _comes_from_the_export(name, read)}
    for name in read.keys() - sound.keys():
        carried["stages"] = merged({name: section[name]}, carried.get("stages", {}))
    return sound


def _command_stage(
    name: str, section: Mapping[str, object], paths: Paths, scope: Scope, problems: Problems
) -> CommandStageSettings | None:
    key = f"stages.{name}"
    values = resolved_object(section, key, _texts_of(key, scope), problems)
    if "reads" not in section and name in STAGE_BY_NAME:
        values["reads"] = STAGE_BY_NAME[name].reads  # it takes that stage's place
    if "output_folder" not in section:
        path_key = OUTPUT_KEYS.get(name)
        try:
            values["output_folder"] = paths.of(path_key) if path_key else paths.pipeline_base / name
        except EnvironmentUnset as error:
            problems.errors.append(error)
        except KeyError:
            return None  # that path is a problem already
    if problems.errors:
        return None
    try:
        settings = CommandStageSettings.model_validate(values)
    except ValidationError as error:
        problems.add_invalid(error, CommandStageSettings, key)
        return None
    limited = "photo" if settings.per == "picture" else "album"
    if limited in settings.timeouts.model_fields_set:
        return settings
    timeouts = settings.timeouts.model_copy(update={limited: settings.timeout_seconds})
    return settings.model_copy(update={"timeouts": timeouts})


def _texts_of(key: str, scope: Scope) -> Callable[[str, str], str | Path]:
    """What the texts of one of these stages mean, by the key they stand under."""

    def meaning(value: str, at: str) -> str | Path:
        if not at.startswith(f"{key}.command"):
            text = plain(scope.resolver.text(value, key=at))
            return absolute(text, scope.environ, scope.root) if at == f"{key}.output_folder" else text
        resolved = scope.resolver.text(value, key=at, late=_LATE)
        if resolved.late - _LATE:
            plain(resolved)
        return resolved.template

    return meaning


def _with_what_they_read(requested: Collection[str], section: Mapping[str, object]) -> set[str]:
    """The requested stages, and those of the user's own whose files they take, directly or by way of others."""
    needed: set[str] = set()
    ahead = list(requested)
    while ahead:
        name = ahead.pop()
        if name not in needed:
            needed.add(name)
            written = section.get(name)
            if isinstance(written, Mapping) and isinstance(written.get("reads"), str):
                ahead.append(written["reads"])
    return needed


def _check_what_is_read(
    section: Mapping[str, object], read: Mapping[str, CommandStageSettings], problems: Problems
) -> None:
    """Each reads a stage that makes files, and none its own results, by way of others."""
    known = {*STAGE_BY_NAME, *section} - {"cleanup"}
    for name, settings in read.items():
        if settings.reads not in known:
            problems.add(
                f"stages.{name}.reads",
                f"names no stage that makes pictures, {show(settings.reads)}.{nearest(settings.reads, known)}",
            )
    for name in read:
        chain = [name]
        while chain[-1] not in chain[:-1]:
            last = chain[-1]
            if last in read:
                chain.append(read[last].reads)
            elif last in STAGE_BY_NAME and last != "export":
                chain.append(STAGE_BY_NAME[last].reads)
            else:
                break
        else:
            # Told at one of its stages, not at each.
            if chain[-1] == name and name == min(set(chain) & read.keys()):
                problems.add(f"stages.{name}.reads", f"reads its own results: {' → '.join(chain)}")


def _comes_from_the_export(name: str, read: Mapping[str, CommandStageSettings]) -> bool:
    """False for a stage that reads one which is not there, or its own results: nothing may follow its way."""
    seen: set[str] = set()
    while name != "export":
        if name in seen or name == "cleanup" or (name not in read and name not in STAGE_BY_NAME):
            return False
        seen.add(name)
        name = read[name].reads if name in read else STAGE_BY_NAME[name].reads
    return True
