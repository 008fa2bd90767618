"""Resolves `${ENV}`, `${ENV:default}` and `{key}` in the texts of the configuration. Pure: no files, no global state.

The language, whole:

- `${NAME}` is the environment variable NAME. An empty one counts as unset: `${LIB}/albums` with LIB empty would
  otherwise mean `/albums`.
- `${NAME:default}` is the default where NAME is unset. The default may hold placeholders of its own; it ends at its
  first unpaired `}`.
- `{key}` is the resolved value of another key, to any depth. A cycle is an error that names the whole chain.
- `{{` and `}}` are a literal `{` and `}` (outside a default, in which `}` always closes), `$${key}` is a dollar sign
  before the value of `key`. Any other `$` is itself.
- Late-bound names (`{timestamp}`) stay in place until `fill_in`.

The value of an environment variable is taken literally: nothing in it is expanded again. That, a limit on the length
of what a text may become and a budget over all of them keep a hostile configuration from costing more than it weighs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skicyclerun.errors import ConfigError, EnvironmentUnset, PlaceholderCycle
from skicyclerun.settings.section import MAX_LENGTH
from skicyclerun.wording import nearest

#: How deep defaults may lie in defaults: `${A:${B:${C:x}}}` is three.
MAX_NESTED_DEFAULTS: Final = 16
#: Characters that all values of one resolver may have together.
MAX_TOTAL: Final = 4_000_000

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL: Final = re.compile(r"\$\$\{(?!\{)|\$\{|[{}]")
_IN_TEMPLATE: Final = re.compile(r"\{\{|\}\}|(?:\$(\$))?\{([^{}]*)\}")
_BRACES: Final = "a literal brace is written twice, {{ or }}"


@dataclass(frozen=True, slots=True)
class _Key:
    name: str


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    default: tuple[_Piece, ...] | None


@dataclass(frozen=True, slots=True)
class _Late:
    name: str


_Piece = str | _Key | _Variable | _Late


def _malformed(problem: str, text: str, position: int, key: str, file: Path | None) -> ConfigError:
    return ConfigError(f"{problem} at character {position + 1} of {text!r}; {_BRACES}", key=key, file=file)


def _parse(text: str, key: str, file: Path | None, late: Collection[str] = ()) -> tuple[_Piece, ...]:
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"is {len(text)} characters long; at most {MAX_LENGTH} are allowed", key=key, file=file)
    # Iterative: `open_variables` holds what surrounds the default being read, as (start, name, pieces before it).
    open_variables: list[tuple[int, str, list[_Piece]]] = []
    pieces: list[_Piece] = []
    position = 0
    while found := _SPECIAL.search(text, position):
        start = found.start()
        if start > position:
            pieces.append(text[position:start])
        if found[0] == "$${":
            pieces.append("$")
            position = start + 2  # at the {, which begins a key
        elif text.startswith("${", start) and not text.startswith("${{", start):
            name = _VARIABLE.match(text, start + 2)
            if name is None:
                raise _malformed("there is no variable name in the ${…}", text, start, key, file)
            position = name.end()
            if text.startswith("}", position):
                pieces.append(_Variable(name[0], None))
                position += 1
            elif text.startswith(":", position):
                if len(open_variables) == MAX_NESTED_DEFAULTS:
                    problem = f"has defaults more than {MAX_NESTED_DEFAULTS} deep"
                    raise ConfigError(problem, key=key, file=file)
                open_variables.append((start, name[0], pieces))
                pieces = []
                position += 1
            else:
                raise _malformed("the ${…} is not closed", text, start, key, file)
        elif text.startswith("${{", start):
            pieces.append("$")
            position = start + 1
        elif text.startswith("{{", start):
            pieces.append("{")
            position = start + 2
        elif text[start] == "{":
            name = _NAME.match(text, start + 1)
            if name is None or not text.startswith("}", name.end()):
                raise _malformed("the { begins no placeholder", text, start, key, file)
            pieces.append(_Late(name[0]) if name[0] in late else _Key(name[0]))
            position = name.end() + 1
        elif open_variables:
            _, variable, before = open_variables.pop()
            pieces = [*before, _Variable(variable, tuple(pieces))]
            position = start + 1
        elif text.startswith("}}", start):
            pieces.append("}")
            position = start + 2
        else:
            raise _malformed("the } closes nothing", text, start, key, file)
    if open_variables:
        raise _malformed("the ${…} is not closed", text, open_variables[-1][0], key, file)
    pieces.append(text[position:])
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A text of which every placeholder is resolved but for the late-bound ones."""

    pieces: tuple[str | _Late, ...]

    @property
    def late(self) -> frozenset[str]:
        """The late-bound names it holds."""
        return frozenset(piece.name for piece in self.pieces if isinstance(piece, _Late))

    @property
    def template(self) -> str:
        """For `fill_in`: late-bound names in braces, literal braces doubled."""
        parts: list[str] = []
        for piece in self.pieces:
            if isinstance(piece, _Late):
                dollar = "$" if parts and parts[-1].endswith("$") else ""
                parts.append(f"{dollar}{{{piece.name}}}")
            else:
                parts.append(escape(piece))
        return "".join(parts)

    @property
    def text(self) -> str:
        """The plain text; late-bound names are left in braces."""
        return "".join(f"{{{piece.name}}}" if isinstance(piece, _Late) else piece for piece in self.pieces)


def escape(text: str) -> str:
    """`text` written so that resolving it gives `text` again."""
    return text.replace("{", "{{").replace("}", "}}")


def fill_in(template: str, **values: str) -> str:
    """Put the late-bound values into a `Resolved.template`. Raises KeyError for a name without a value."""

    def replace(found: re.Match[str]) -> str:
        part = found[0]
        return part[0] if part in ("{{", "}}") else (found[1] or "") + values[found[2]]

    return _IN_TEMPLATE.sub(replace, template)


def late_names(template: str) -> frozenset[str]:
    """The names that `fill_in` needs values for."""
    return frozenset(found[2] for found in _IN_TEMPLATE.finditer(template) if found[2])


class Resolver:
    """Resolves texts against one set of keys.

    `keys` are texts with placeholders of their own, `bound` plain values that win over them; `late` names are left in
    place. `prefix` goes before a key's name in errors (`paths.` gives `paths.archive`). Every problem is a ConfigError
    that names `file` and the key; a variable that is not set is its subclass EnvironmentUnset.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        environ: Mapping[str, str],
        *,
        bound: Mapping[str, str] | None = None,
        late: Iterable[str] = ("timestamp",),
        prefix: str = "paths.",
        file: Path | None = None,
    ) -> None:
        self._keys = dict(keys)
        self._environ = environ
        self._late = frozenset(late)
        self._prefix = prefix
        self._file = file
        self._spent = 0
        self._sound: set[str] = set()
        self._parsed: dict[str, tuple[_Piece, ...]] = {}
        self._values: dict[str, Resolved] = {name: Resolved((text,)) for name, text in (bound or {}).items()}

    def key(self, name: str) -> Resolved:
        """The value of the key `name`, which must be one."""
        self._settle([name])
        return self._values[name]

    def text(self, text: str, *, key: str, late: Collection[str] = ()) -> Resolved:
        """`text` resolved; `key` is what errors call it (`export.library`), `late` names win over keys in this text."""
        pieces = _parse(text, key, self._file, late)
        self._settle(self._references(pieces, key))
        return self._render(pieces, key)

    def check(self, name: str) -> None:
        """Raise what `key(name)` would raise, without building the value."""
        self._settle([name], build=False)

    def _pieces(self, name: str) -> tuple[_Piece, ...]:
        if name not in self._parsed:
            self._parsed[name] = _parse(self._keys[name], self._prefix + name, self._file)
        return self._parsed[name]

    def _references(self, pieces: tuple[_Piece, ...], key: str) -> Iterator[str]:
        """The keys these pieces take their value from, each known; a default counts only where it is used."""
        for piece in pieces:
            if isinstance(piece, _Key):
                if piece.name in self._keys or piece.name in self._values:
                    yield piece.name
                elif piece.name not in self._late:
                    known = sorted({*self._keys, *self._values, *self._late})
                    problem = f"{{{piece.name}}} is no key of {self._prefix.rstrip('.') or 'the configuration'}."
                    raise ConfigError(
                        problem + nearest(piece.name, known),
                        key=key,
                        file=self._file,
                        next_step=f"For the text itself write {{{{{piece.name}}}}}.",
                    )
            elif isinstance(piece, _Variable) and not self._environ.get(piece.name):
                if piece.default is None:
                    raise EnvironmentUnset(piece.name, key=key, file=self._file)
                yield from self._references(piece.default, key)

    def _settle(self, wanted: Iterable[str], *, build: bool = True) -> None:
        """Visit `wanted` and all they refer to, depth first and without recursion; build each after what it needs."""
        done = self._values if build else self._sound
        for first in wanted:
            if first in done or first in self._values:
                continue
            # The keys being resolved, outermost first, each with what is left of its references.
            chain: dict[str, Iterator[str]] = {first: self._references_of(first)}
            while chain:
                name = next(reversed(chain))
                needed = next(chain[name], None)
                if needed is None:
                    del chain[name]
                    self._sound.add(name)
                    if build:
                        self._values[name] = self._render(self._pieces(name), self._prefix + name)
                elif needed in chain:
                    names = list(chain)
                    cycle = [*names[names.index(needed) :], needed]
                    raise PlaceholderCycle(cycle, key=self._prefix + needed, file=self._file)
                elif needed not in done and needed not in self._values:
                    chain[needed] = self._references_of(needed)

    def _references_of(self, name: str) -> Iterator[str]:
        return self._references(self._pieces(name), self._prefix + name)

    def _render(self, pieces: tuple[_Piece, ...], key: str) -> Resolved:
        """These pieces put together; every key they refer to has its value already."""
        parts: list[str | _Late] = []
        length = 0
        for part in self._parts(pieces):
            length += len(part) if isinstance(part, str) else len(part.name) + 2
            if length > MAX_LENGTH:
                problem = f"is more than {MAX_LENGTH} characters long once its placeholders are resolved"
                raise ConfigError(problem, key=key, file=self._file)
            if isinstance(part, str) and parts and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
        self._spent += length
        if self._spent > MAX_TOTAL:
            problem = f"all placeholders together resolve to more than {MAX_TOTAL} characters"
            raise ConfigError(problem, key=key, file=self._file)
        return Resolved(tuple(parts))

    def _parts(self, pieces: tuple[_Piece, ...]) -> Iterator[str | _Late]:
        for piece in pieces:
            if isinstance(piece, str):
                yield piece
            elif isinstance(piece, _Variable):
                if value := self._environ.get(piece.name):
                    yield value
                else:
                    yield from self._parts(piece.default or ())
            elif isinstance(piece, _Key) and piece.name in self._values:
                yield from self._values[piece.name].pieces
            else:
                yield _Late(piece.name)
