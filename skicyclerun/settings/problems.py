"""Gathers what is wrong with a configuration, and what looks like a slip, so that all of it is told at once."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from skicyclerun.errors import ConfigError
from skicyclerun.settings.errors import validation_problems
from skicyclerun.settings.file import show
from skicyclerun.settings.section import Section

_S = TypeVar("_S", bound=Section)


class Problems:
    """The problems and warnings of one reading of `file`; keys in `from_command_line` are not blamed on it."""

    def __init__(self, file: Path, from_command_line: Collection[str] = ()) -> None:
        self.file = file
        self.errors: list[ConfigError] = []
        self.warnings: list[str] = []
        self.from_command_line = from_command_line

    def add(self, key: str, text: str, next_step: str = "") -> None:
        """A problem of the value of `key`."""
        if key in self.from_command_line:
            self.errors.append(ConfigError(f"{text} (given on the command line)", key=key, next_step=next_step))
        else:
            self.errors.append(ConfigError(text, key=key, file=self.file, next_step=next_step))

    def as_object(self, key: str, value: object) -> dict[str, object]:
        """`value`, which must be an object; an empty one stands in where it is not."""
        if isinstance(value, dict):
            return value
        self.add(key, f"must be an object {{ … }}, not {show(value)}")
        return {}

    def warn_if_near(self, key: str, name: str, absent: Iterable[str]) -> None:
        """Warn of a `name` of somebody else's that is very near to one of ours that the file does not have."""
        if close := very_near(name, absent):
            self.warnings.append(
                f"{self.file}: {key} is carried along and means nothing to skicyclerun. Did you mean {close!r}?"
            )

    def validated(self, model: type[_S], name: str, section: dict[str, object]) -> _S:
        """The section as a model; with problems, the model's defaults stand in so that the others are told as well."""
        try:
            return model.model_validate(section)
        except ValidationError as error:
            self.errors += validation_problems(error, model, name, self.file, self.from_command_line)
            return model()


def very_near(name: str, known: Iterable[str]) -> str:
    """The known name that `name` is most likely a slip of, empty where none is so near."""
    return next(iter(difflib.get_close_matches(name[:200], list(known), n=1, cutoff=0.8)), "")
