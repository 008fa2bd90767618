"""What is not ours in a configuration, and is carried along as it was read.

Other sections, keys of ours that no key of ours resembles, and keys that start with `_` at any level, belong to other
programs or to the reader.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from skicyclerun.settings.errors import Problems, model_in
from skicyclerun.settings.file import join
from skicyclerun.settings.foreign_keys import FOREIGN_BY_KEY
from skicyclerun.stages.registry import STAGE_BY_NAME
from skicyclerun.wording import nearest, nearest_name, very_near

#: Keys of other programs that are looked at; what is beyond any use is not worth its time.
MAX_FOREIGN: Final = 1000
#: Keys of other programs in one section that a warning names.
_NAMED: Final = 20


def ours_and_carried(
    raw: Mapping[str, object], written: Mapping[str, object], sections: Collection[str], problems: Problems
) -> tuple[dict[str, object], dict[str, Any]]:
    """Our `sections`, each there and without notes, and what is carried along.

    `written` is what the file says, without the command line: only what is missing there can be a slip of the pen.
    """
    ours: dict[str, object] = {name: {} for name in sections}
    carried: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in sections:
            carried[name] = value
            if len(carried) < MAX_FOREIGN and not name.startswith("_") and name not in STAGE_BY_NAME:
                problems.warn_if_near(join("", name), name, [known for known in sections if known not in written])
        elif isinstance(value, dict):
            ours[name], notes = _without_notes(value)
            if notes:
                carried[name] = notes
        else:
            ours[name] = value  # a problem, told when the section is read
    return ours, carried


def without_unknown(
    models: Mapping[str, type[BaseModel]],
    ours: Mapping[str, dict[str, object]],
    carried: dict[str, Any],
    problems: Problems,
) -> dict[str, dict[str, object]]:
    """Our sections without the keys that are none of ours, which go to `carried`.

    A key known from existing pipelines (`foreign_keys`) is taken for ours where it stands for one, otherwise named in
    a warning with what becomes of it. One that is very near to a known name is a problem: most likely it is misspelt.
    Any other is named in a warning and left alone.
    """
    known: list[str] = []
    unknown: list[str] = []
    hints: list[tuple[str, str]] = []

    def split(model: type[BaseModel], parent: str, section: Mapping[str, object]) -> dict[str, object]:
        kept: dict[str, object] = {}
        foreign: dict[str, Any] = {}
        further = [key.removeprefix(f"{parent}.") for key in FOREIGN_BY_KEY if key.startswith(f"{parent}.")]
        names = [*model.model_fields, *further]
        for key, value in section.items():
            field, at = model.model_fields.get(key), join(parent, key)
            listed = FOREIGN_BY_KEY.get(at)
            if field is not None:
                inner = model_in(field.annotation)
                kept[key] = split(inner, at, value) if inner is not None and isinstance(value, dict) else value
            elif listed is not None and listed.stands_for and listed.stands_for not in section:
                kept[listed.stands_for] = value
                problems.renamed[join(parent, listed.stands_for)] = at
            elif at in problems.from_command_line:
                problems.add(at, f"there is no such key.{nearest(key, names)}")
            elif listed is not None:
                foreign[key] = value
                known.append(f"{at} ({listed.becomes.replace('`', '')})")
            elif len(unknown) + len(problems.errors) < MAX_FOREIGN and (close := very_near(key, names)):
                problems.add(
                    at, f"there is no such key. Did you mean {close!r}? A note of your own begins with an underscore."
                )
            else:
                foreign[key] = value
                unknown.append(at)
                if len(unknown) <= _NAMED and (close := nearest_name(key, names)):
                    hints.append((key, close))
        if foreign:
            _carry(carried, parent, foreign)
        return kept

    sections = {name: split(model, name, ours[name]) for name, model in models.items()}
    if known:
        problems.warnings.append(f"{problems.file}: left alone, for it changes nothing here: {'; '.join(known)}.")
    if unknown:
        problems.warnings.append(f"{problems.file}: {_left_alone(unknown, hints)}")
    return sections


def _carry(carried: dict[str, Any], parent: str, foreign: dict[str, Any]) -> None:
    """Put keys of the object `parent` (`export.timeouts`) among what is carried along."""
    nested = foreign
    for name in reversed(parent.split(".")):
        nested = {name: nested}
    merged(carried, nested)


def without_foreign(
    model: type[BaseModel], name: str, section: Mapping[str, object], written: object, problems: Problems
) -> tuple[dict[str, object], dict[str, Any]]:
    """A section that other programs share without their keys, which are named in one warning, and those keys.

    `written` is the section as the file has it, without the command line.
    """
    keys: list[str] = []
    slips: list[tuple[str, str]] = []

    def split(
        model: type[BaseModel], parent: str, section: Mapping[str, object], written: object
    ) -> tuple[dict[str, object], dict[str, Any]]:
        written = written if isinstance(written, dict) else {}
        absent = [field for field in model.model_fields if field not in written]
        ours: dict[str, object] = {}
        foreign: dict[str, Any] = {}
        for key, value in section.items():
            field = model.model_fields.get(key)
            if field is None:
                foreign[key] = value
                keys.append(join(parent, key))
                if len(keys) < MAX_FOREIGN and (close := very_near(key, absent)):
                    slips.append((key, close))
            elif (inner := model_in(field.annotation)) is not None and isinstance(value, dict):
                ours[key], further = split(inner, join(parent, key), value, written.get(key))
                if further:
                    foreign[key] = further
            else:
                ours[key] = value
        return ours, foreign

    ours, foreign = split(model, name, section, written)
    if keys:
        problems.warnings.append(f"{problems.file}: {_left_alone(keys, slips)}")
    return ours, foreign


def _left_alone(keys: Sequence[str], slips: Sequence[tuple[str, str]]) -> str:
    named = ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
    said = "means nothing to skicyclerun and is" if len(keys) == 1 else "mean nothing to skicyclerun and are"
    hints = [
        f" Did you mean {close!r}?" if len(keys) == 1 else f" Did you mean {close!r} rather than {key!r}?"
        for key, close in slips[:_NAMED]
    ]
    return f"{named} {said} left alone.{''.join(hints)}"


def merged(ours: dict[str, Any], carried: Mapping[str, Any]) -> dict[str, Any]:
    """`ours` with what is carried along put back in its place."""
    for key, value in carried.items():
        if isinstance(value, dict) and isinstance(ours.get(key), dict):
            ours[key] = merged(ours[key], value)
        else:
            ours[key] = value
    return ours


def _without_notes(section: dict[str, object]) -> tuple[dict[str, object], dict[str, Any]]:
    """A section without the keys that start with `_`, and those keys, under the names of the objects they were in."""
    kept: dict[str, object] = {}
    notes: dict[str, Any] = {}
    for key, value in section.items():
        if key.startswith("_"):
            notes[key] = value
        elif isinstance(value, dict):
            kept[key], inner = _without_notes(value)
            if inner:
                notes[key] = inner
        else:
            kept[key] = value
    return kept, notes
