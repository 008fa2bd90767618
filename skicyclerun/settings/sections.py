"""Reads a section of the configuration: every text in it resolved, then checked by its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from skicyclerun.errors import ConfigError, EnvironmentUnset
from skicyclerun.settings.absolute_paths import absolute
from skicyclerun.settings.archive_url import archive_url, check_endpoint
from skicyclerun.settings.errors import MAX_PROBLEMS, Problems
from skicyclerun.settings.file import join, show
from skicyclerun.settings.placeholders import Resolved, Resolver, escape
from skicyclerun.settings.safety import lies_in
from skicyclerun.settings.section import Section, StageSection

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

    templates = {join(name, key) for key in model.templates} if issubclass(model, StageSection) else set()

    def meaning(text: str, key: str) -> object:
        return text if key in templates else _meaning(text, key, scope, problems)

    return problems.validated(model, name, resolved_object(section, name, meaning, problems))


def resolved_object(
    section: Mapping[str, object], key: str, meaning: Callable[[str, str], object], problems: Problems
) -> dict[str, object]:
    """The section with the `meaning(text, key)` of every text in it, however deep.

    A text for which that raises ConfigError, or ValueError with what is wrong, is a problem and left out.
    """

    def resolved(value: object, key: str) -> object:
        if isinstance(value, dict):
            return resolved_object(value, key, meaning, problems)
        if isinstance(value, list):
            items = [resolved(item, f"{key}[{index}]") for index, item in enumerate(value)]
            return [item for item in items if item is not _UNRESOLVED]
        if not isinstance(value, str) or len(problems.errors) > MAX_PROBLEMS:
            return value
        try:
            return meaning(value, key)
        except ConfigError as error:
            problems.errors.append(error)
        except ValueError as error:
            problems.add(key, str(error))
        return _UNRESOLVED

    items = {name: resolved(item, join(key, name)) for name, item in section.items()}
    return {name: item for name, item in items.items() if item is not _UNRESOLVED}


def plain(resolved: Resolved) -> str:
    """The text. Raises ValueError where it holds what is known only later."""
    if resolved.late:
        late = ", ".join(f"{{{name}}}" for name in sorted(resolved.late))
        raise ValueError(f"holds {late}, which is filled in only in logging.file")
    return resolved.text


def _meaning(text: str, key: str, scope: Scope, problems: Problems) -> str | Path:
    resolved = scope.resolver.text(text, key=key)
    if key == "logging.file":
        if resolved.late - {"timestamp"} or resolved.text.endswith("/"):
            raise ValueError(f"must name a file, not {show(text)}")
        return str(absolute(resolved.template, scope.environ, scope.root, written=escape))
    if key == "cleanup.remote":
        return str(archive_url(plain(resolved), scope.environ))
    if key == "cleanup.remote_service.endpoint_url":
        return check_endpoint(plain(resolved))
    if key not in ("export.library", "report.file"):
        return plain(resolved)
    path = absolute(plain(resolved), scope.environ, scope.root)
    if scope.unset_root is not None and lies_in(path, scope.root):
        problems.errors.append(scope.unset_root)  # written as lying below it, so it is needed after all
    return path
