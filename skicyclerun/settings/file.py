"""Reads the configuration file strictly: what it says is said once, in UTF-8, in JSON, in one object."""

from __future__ import annotations

import codecs
import json
import math
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Final

from skicyclerun.errors import ConfigError, ConfigErrors

#: Bytes; a configuration of more is something else.
MAX_BYTES: Final = 10_000_000
#: Objects in objects; far beyond what a configuration needs, far below what a recursive reader stands.
MAX_DEPTH: Final = 64

_WRITE_ONE: Final = "`skicyclerun config init` writes one; --config names another."


class _Object(dict[str, object]):
    """A JSON object that remembers which of its keys came twice."""

    repeated: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, object]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        times = Counter(key for key, _ in pairs)
        made.repeated = tuple(key for key, count in times.items() if count > 1)
    return made


def read_config_file(file: Path) -> dict[str, object]:
    """The object in `file`. Raises ConfigError (ConfigErrors for several problems) naming the file, and line and column
    or key where there is one."""
    text = _decoded(_bytes(file), file)
    try:
        value: object = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as found:
        error = _at_the_bracket(found)
        raise ConfigError(
            f"line {error.lineno}, column {error.colno}: this is not JSON: {_reason(error, text)}",
            file=file,
            next_step="Correct the line. JSON has no comments; a key that starts with `_` can hold one.",
        ) from None
    except (RecursionError, ValueError) as error:
        # json.loads meets its own recursion limit, or a number of more digits than Python converts.
        deep = isinstance(error, RecursionError)
        problem = "objects and lists lie too deep in each other" if deep else "it holds a number of thousands of digits"
        raise ConfigError(f"this cannot be read as JSON: {problem}", file=file) from None
    if not isinstance(value, dict):
        kind = "null" if value is None else "a list" if isinstance(value, list) else f"a single value ({show(value)})"
        raise ConfigError(f"the configuration must be one JSON object {{ … }}, not {kind}", file=file)
    _check_tree(value, file)
    return value


def _bytes(file: Path) -> bytes:
    try:
        # O_NONBLOCK: a named pipe must be refused, not waited for.
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ConfigError("is no regular file", file=file, next_step=_WRITE_ONE)
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("there is no such configuration file", file=file, next_step=_WRITE_ONE) from None
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"the configuration file cannot be read: {problem}", file=file) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES // 1_000_000} MB; that is no configuration", file=file)
    return data


def _decoded(data: bytes, file: Path) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"line {line}: byte {error.start + 1} is not UTF-8", file=file, next_step="Save the file as UTF-8."
        ) from None


def _at_the_bracket(error: json.JSONDecodeError) -> json.JSONDecodeError:
    """Python 3.13 gives the place of a comma before a closing bracket, earlier ones that of the bracket, as here."""
    text, place = error.doc, error.pos
    behind = len(text) - len(text[place + 1 :].lstrip())
    if text[place : place + 1] == "," and text[behind : behind + 1] in ("}", "]"):
        return json.JSONDecodeError(error.msg, text, behind)
    return error


def _reason(error: json.JSONDecodeError, text: str) -> str:
    """What is wrong at that place, in words that do not suppose one knows the parser."""
    rest = text[error.pos : error.pos + 2]
    if not text.strip():
        return "the file is empty"
    if not text[error.pos :].strip():
        return "the file ends in the middle"
    if rest == "//" or rest[0] == "#":
        return "a comment"
    before = text[: error.pos].rstrip()
    if rest[0] in "}]" and before.endswith(","):
        return f"a comma before the closing {rest[0]}"
    return error.msg[:1].lower() + error.msg[1:]


def _check_tree(root: object, file: Path) -> None:
    """Nothing twice, no NaN or infinity, no text that UTF-8 cannot hold, and not too deep."""
    problems: list[ConfigError] = []
    waiting: list[tuple[str, object, int]] = [("", root, 0)]
    while waiting and len(problems) < 20:
        key, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            problem = f"objects and lists lie more than {MAX_DEPTH} deep in each other"
            raise ConfigError(problem, key=key[:100], file=file)
        if isinstance(value, dict):
            repeated = value.repeated if isinstance(value, _Object) else ()
            problems += [ConfigError("is given twice; leave one", key=join(key, n), file=file) for n in repeated[:20]]
            for name, inner in reversed(value.items()):
                if _unwritable(name):
                    problems.append(ConfigError(f"the key {show(name)} is no proper text", key=key, file=file))
                waiting.append((join(key, name), inner, depth + 1))
        elif isinstance(value, list):
            waiting += [(f"{key}[{index}]", inner, depth + 1) for index, inner in reversed([*enumerate(value)])]
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(
                ConfigError("is not a finite number; JSON has neither NaN nor Infinity", key=key, file=file)
            )
        elif isinstance(value, str) and _unwritable(value):
            problem = f"{show(value)} holds half a character (a lone surrogate)"
            problems.append(ConfigError(problem, key=key, file=file))
    if problems:
        raise problems[0] if len(problems) == 1 else ConfigErrors(problems)


def _unwritable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def join(parent: str, name: str) -> str:
    """The path of a key in its parent: `export.timeouts`; what cannot be printed is escaped, what is long is cut."""
    plain = name if name.isprintable() and name else repr(name)
    plain = plain if len(plain) <= 100 else plain[:99] + "…"
    return f"{parent}.{plain}" if parent else plain


def show(value: object) -> str:
    """A value as JSON writes it, on one line, printable and not too long."""
    if isinstance(value, dict):
        return "an object { … }" if value else "an empty object {}"
    if isinstance(value, list | tuple):
        return "a list [ … ]" if value else "an empty list []"
    if isinstance(value, str):
        text = f'"{value}"' if value.isprintable() and '"' not in value else repr(value)
    else:
        text = json.dumps(value, default=str)
    return text if len(text) <= 120 else text[:119] + "…"
