"""What is not ours in a configuration, and is carried along as it was read.

Other sections, and keys that start with `_` at any level, belong to other programs or to the reader.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from skicyclerun.settings.file import join, show
from skicyclerun.settings.problems import Problems

#: Keys of other programs that are looked at; what is beyond any use is not worth its time.
MAX_FOREIGN: Final = 1000


def ours_and_carried(
    raw: Mapping[str, object], written: Mapping[str, object], sections: Collection[str], problems: Problems
) -> tuple[dict[str, dict[str, object]], dict[str, Any]]:
    """Our `sections`, each there and without notes, and what is carried along.

    `written` is what the file says, without the command line: only what is missing there can be a slip of the pen.
    """
    ours: dict[str, dict[str, object]] = {name: {} for name in sections}
    carried: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in sections:
            carried[name] = value
            if len(carried) < MAX_FOREIGN and not name.startswith("_"):
                problems.warn_if_near(join("", name), name, [known for known in sections if known not in written])
        elif isinstance(value, dict):
            ours[name], notes = _without_notes(value)
            if notes:
                carried[name] = notes
        else:
            problems.add(name, f"must be an object {{ … }}, not {show(value)}")
    return ours, carried


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
