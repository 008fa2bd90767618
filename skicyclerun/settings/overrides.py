"""The command line's word on top of the file's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from skicyclerun.settings.absolute_paths import absolute
from skicyclerun.settings.placeholders import escape
from skicyclerun.settings.problems import Problems
from skicyclerun.stages.registry import section_models


def with_overrides(
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
    is_path = dotted.startswith("paths.") or dotted in ("export.library", "logging.file")
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
