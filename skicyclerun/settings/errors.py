"""What is wrong with a configuration, all at once: pydantic's errors as sentences (key, value, what would be right)."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic.types import StringConstraints

from skicyclerun.errors import ConfigError, ConfigErrors, PlaceholderCycle
from skicyclerun.settings.file import join, show
from skicyclerun.settings.section import Section
from skicyclerun.wording import nearest, very_near

_S = TypeVar("_S", bound=Section)

#: Problems told at once; the rest shows when these are mended.
MAX_PROBLEMS = 30


@dataclass(slots=True)
class Problems:
    """The problems and warnings of one reading of `file`; keys in `from_command_line` are not blamed on it."""

    file: Path
    from_command_line: Collection[str] = ()
    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unneeded: list[ConfigError] = field(default_factory=list)
    """Of sections that nobody needs now; also told as warnings."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Keys of ours that the file gives under another name, which its problems are told by."""
    hide: Callable[[str], str] = str
    """A text without the values of secrets."""

    def add(self, key: str, text: str, next_step: str = "") -> None:
        """A problem of the value of `key`."""
        key = self.renamed.get(key, key)
        given = any(key == name or key.startswith(f"{name}[") for name in self.from_command_line)
        text = self.hide(text)
        text, file = (f"{text} (given on the command line)", None) if given else (text, self.file)
        self.errors.append(ConfigError(text, key=key, file=file, next_step=next_step))

    def add_invalid(self, error: ValidationError, model: type[BaseModel], section: str) -> None:
        """One problem for each of pydantic's, in the order of the file."""
        for detail in error.errors(include_url=False)[:MAX_PROBLEMS]:
            location = _without_tags(model, detail["loc"])
            key = section
            for part in location:
                key = f"{key}[{part}]" if isinstance(part, int) else join(key, part)
            self.add(key, _problem(detail["type"], detail["input"], detail["msg"], model, location))

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
            self.add_invalid(error, model, name)
            return model()


def raise_all(problems: Sequence[ConfigError], warnings: Sequence[str] = ()) -> None:
    """Raise what there is, each problem once, with the warnings that would otherwise be lost with the settings.

    Raises ConfigError, or ConfigErrors for several problems; returns where there are none.
    """
    # A cycle shows at each of its keys, with the chain begun elsewhere.
    different = list(
        {
            frozenset(problem.chain) if isinstance(problem, PlaceholderCycle) else str(problem): problem
            for problem in reversed(problems)
        }.values()
    )[::-1]
    if not different:
        return
    if len(different) == 1:
        raised = different[0]
    else:
        raised = several = ConfigErrors(different[:MAX_PROBLEMS])
        several.next_step = "\n".join(
            dict.fromkeys(problem.next_step for problem in several.errors if problem.next_step)
        )
    raised.warnings = tuple(warnings)
    raise raised


def _problem(kind: str, value: object, message: str, model: type[BaseModel], location: Sequence[int | str]) -> str:
    owner, field = _field(model, location)
    if kind == "extra_forbidden":
        name = str(location[-1])
        return _unknown_key(name, owner)
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if field is None:
        return f"must be an object {{ … }}, not {show(value)}"
    right = expected(field)
    if kind == "model_type":
        return f"must be an object {{ … }}, not {show(value)}"
    if kind == "missing":
        return f"is missing; it must be {right}"
    if isinstance(location[-1], int):
        return f"must be {_item(field)}, not {show(value)}"
    near = nearest(value, _choices(field.annotation)) if kind == "literal_error" and isinstance(value, str) else ""
    return f"must be {right}, not {show(value)}.{near}" if near else f"must be {right}, not {show(value)}"


def _unknown_key(name: str, owner: type[BaseModel]) -> str:
    hint = nearest(name, owner.model_fields) or f" Keys here: {', '.join(owner.model_fields)}."
    return f"there is no such key.{hint} A note of your own begins with an underscore."


def _field(model: type[BaseModel], location: Sequence[int | str]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model that the last name of `location` belongs to, and its field, None where it has none."""
    field: FieldInfo | None = None
    for part in location:
        inner = model if field is None else model_in(field.annotation)
        if isinstance(part, int) or inner is None:
            break
        model = inner
        field = model.model_fields.get(part)
        if field is None:
            break
    return model, field


def _without_tags(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """pydantic's place of an error without the names of a union's members, which stand in no file."""
    for end, part in enumerate(location):
        _, field = _field(model, location[:end])
        if (
            field is not None
            and isinstance(part, str)
            and _is_union(field.annotation)
            and not model_in(field.annotation)
        ):
            return location[:end]
    return location


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def model_in(annotation: object) -> type[BaseModel] | None:
    """The model that a field of that annotation holds, None where it holds something else."""
    for each in typing.get_args(annotation) if _is_union(annotation) else (annotation,):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _choices(annotation: object) -> tuple[str, ...]:
    return tuple(map(str, typing.get_args(annotation))) if typing.get_origin(annotation) is typing.Literal else ()


def expected(field: FieldInfo) -> str:
    """What a field takes, in words: `a whole number from 1 to 100`."""
    return _in_words(field.annotation, field.metadata)


def _in_words(annotation: object, metadata: Sequence[object] = ()) -> str:
    if choices := _choices(annotation):
        *others, last = (f'"{choice}"' for choice in choices)
        return f"{', '.join(others)} or {last}" if others else last
    if annotation is bool:
        return "true or false"
    if annotation is int:
        return "a whole number" + _range(metadata)
    if annotation is float:
        return "a number" + _range(metadata)
    if annotation is str:
        limit = next((item.max_length for item in metadata if isinstance(item, StringConstraints)), None)
        return f"a text of 1 to {limit} characters" if limit else "a text"
    if annotation is Path:
        return "a path"
    if annotation is type(None):
        return "null"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _in_words(arguments[0], arguments[1:])
    if origin is tuple:
        return "a list of texts" if _in_words(arguments[0]).startswith("a text") else "a list"
    if _is_union(annotation):
        return " or ".join(_in_words(each, metadata) for each in arguments)
    return "an object { … }"


def _item(field: FieldInfo) -> str:
    """What each item of the list takes that the field holds."""
    words = _in_words(next(iter(typing.get_args(field.annotation)), None))
    return "a text that is not empty" if words.startswith("a text") else words


def _range(metadata: Iterable[object]) -> str:
    low = high = ""
    for item in metadata:
        if isinstance(item, annotated_types.Ge):
            low = f"from {_plain(item.ge)}"
        elif isinstance(item, annotated_types.Gt):
            low = f"greater than {_plain(item.gt)}"
        elif isinstance(item, annotated_types.Le):
            high = f"to {_plain(item.le)}"
    if low.startswith("greater") and high:
        return f" {low} and at most {high.removeprefix('to ')}"
    return "".join(f" {part}" for part in (low, high) if part)


def _plain(bound: object) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)
