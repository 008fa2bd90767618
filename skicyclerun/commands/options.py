"""Options that several commands share, and how the settings come out of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from skicyclerun.models import Waiting
from skicyclerun.progress.plain_text import waiting_in_words
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import Settings

_F = TypeVar("_F", bound=Callable[..., Any])


class _NamedPath(click.Path):
    """A path that is not empty: `--lib-root "$UNSET"` must not mean the folder one happens to be in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip():
            self.fail("the path is empty. Is the variable it was to come from set?", param, ctx)
        return super().convert(value, param, ctx)


#: For every option that names a place.
NAMED_PATH: Final = _NamedPath(path_type=Path)


def place_options(command: _F) -> _F:
    """--lib-root and --config: where things are."""
    command = click.option(
        "--config",
        "config_file",
        type=NAMED_PATH,
        metavar="FILE",
        help="Configuration; otherwise LIB_ROOT/config/pipeline_config.json, otherwise the shipped default.",
    )(command)
    return click.option(
        "--lib-root",
        type=NAMED_PATH,
        metavar="DIR",
        help="Where albums, catalog, archive and state live; otherwise $SKICYCLERUN_LIB_ROOT.",
    )(command)


def source_options(command: _F) -> _F:
    """--source and --library: where photos come from."""
    command = click.option(
        "--library",
        type=NAMED_PATH,
        metavar="PATH",
        help="A .photoslibrary, or a folder of albums.",
    )(command)
    return click.option(
        "--source",
        type=click.Choice(["auto", "apple_photos", "photos_library", "folder"]),
        help="What to read; `auto` judges by --library.",
    )(command)


def given_source(source: str | None, library: Path | None) -> dict[str, object]:
    """What `source_options` say, over the configuration."""
    given = {"export.source": source, "export.library": None if library is None else str(library)}
    return {key: value for key, value in given.items() if value is not None}


def settings_of(
    config_file: Path | None,
    lib_root: Path | None,
    source: str | None = None,
    library: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    needs_lib_root: bool = True,
) -> Settings:
    """The settings with the command line's word on top; prints their warnings. Raises ConfigError.

    `needs_lib_root` as for `load_settings`.
    """
    given = dict(overrides or {}) | given_source(source, library)
    settings = load_settings(config_file, lib_root=lib_root, overrides=given, needs_lib_root=needs_lib_root)
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return settings


def typed_command() -> str:
    """The command as it was typed, to be typed again."""
    return shlex.join(["skicyclerun", *sys.argv[1:]])


def say_waiting(waiting: Waiting) -> None:
    """A line on stderr about what a source waits for, for commands without a progress display."""
    if not waiting.over:
        click.echo(f"Waiting for {waiting_in_words(waiting)}", err=True)
