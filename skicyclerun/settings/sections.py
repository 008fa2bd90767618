"""Reads a section of the configuration: every text in it resolved, then checked by its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from skicyclerun.errors import ConfigError, EnvironmentUnset
from skicyclerun.settings.absolute_paths import absolute
from skicyclerun.settings.errors import MAX_PROBLEMS
from skicyclerun.settings.file import join, show
from skicyclerun.settings.placeholders import Resolved, Resolver, escape
from skicyclerun.settings.problems import Problems
from skicyclerun.settings.safety import lies_in
from skicyclerun.settings.section import Section

_UNRESOLVED: Final = object()
_S = TypeVar("_S", bound=Section)


@dataclass(frozen=True, slots=True)
class Scope:
    """What the texts of a section mean: placeholders, and where relative paths begin."""

    resolver: Resolver
    environ: Mapping[str, str]
    root: Path
    """lib_root, or a stand-in for it."""
    unset_root: EnvironmentUnset | None = None
    """Why lib_root could not be settled, where that is no mistake until something lies below it."""


def read_section(model: type[_S], name: str, section: Mapping[str, object], scope: Scope, problems: Problems) -> _S:
    """A section of ours; its defaults stand in where it is wrong."""
    return problems.validated(model, name, _Texts(scope, problems).in_object(section, name))


def plain(resolved: Resolved) -> str:
    """The text. Raises ValueError where it holds what is known only later."""
    if resolved.late:
        late = ", ".join(f"{{{name}}}" for name in sorted(resolved.late))
        raise ValueError(f"holds {late}, which is filled in only in logging.file")
    return resolved.text


@dataclass(frozen=True, slots=True)
class _Texts:
    """Resolves the texts in a tree of values, and leaves out those that cannot be, with a problem for each."""

    scope: Scope
    problems: Problems

    def in_object(self, section: Mapping[str, object], key: str) -> dict[str, object]:
        items = {name: self._resolved(item, join(key, name)) for name, item in section.items()}
        return {name: item for name, item in items.items() if item is not _UNRESOLVED}

    def _resolved(self, value: object, key: str) -> object:
        if isinstance(value, dict):
            return self.in_object(value, key)
        if isinstance(value, list):
            items = [self._resolved(item, f"{key}[{index}]") for index, item in enumerate(value)]
            return [item for item in items if item is not _UNRESOLVED]
        if not isinstance(value, str) or len(self.problems.errors) > MAX_PROBLEMS:
            return value
        try:
            return self._text(value, key)
        except ConfigError as error:
            self.problems.errors.append(error)
        except ValueError as error:
            self.problems.add(key, str(error))
        return _UNRESOLVED

    def _text(self, value: str, key: str) -> str | Path:
        scope = self.scope
        resolved = scope.resolver.text(value, key=key)
        if key == "logging.file":
            if resolved.late - {"timestamp"} or resolved.text.endswith("/"):
                raise ValueError(f"must name a file, not {show(value)}")
            return str(absolute(resolved.template, scope.environ, scope.root, written=escape))
        if key != "export.library":
            return plain(resolved)
        library = absolute(plain(resolved), scope.environ, scope.root)
        if scope.unset_root is not None and lies_in(library, scope.root):
            self.problems.errors.append(scope.unset_root)  # written as lying below it, so it is needed after all
        return library
