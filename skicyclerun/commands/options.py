"""Options that several commands share, and how the settings come out of them."""

from __future__ import annotations

import logging
import shlex
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from skicyclerun.commands import exit_codes
from skicyclerun.errors import Cancelled, ConfigError, SkicyclerunError
from skicyclerun.wording import counted

if TYPE_CHECKING:
    from skicyclerun.models import Waiting
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


class TakesStages(click.Command):
    """A command whose `--stages` takes the names with commas, as words that follow one another, or both."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_stages_joined(args)))


def _stages_joined(arguments: Iterable[str]) -> Iterator[str]:
    """`--stages export cleanup` as `--stages export,cleanup`; everything else as it is."""
    waiting = deque(arguments)
    while waiting:
        argument = waiting.popleft()
        option, given, value = argument.partition("=")
        if option != "--stages":
            yield argument
            continue
        names = [value] if given else []
        while waiting and not waiting[0].startswith("-"):
            names.append(waiting.popleft())
        yield option
        if names:
            yield ",".join(names)


def as_typed() -> str:
    """The command as it was typed, to be typed again with something added (`cli.run_command_line` has put it there)."""
    typed = click.get_current_context().find_root().obj
    return typed if isinstance(typed, str) else "skicyclerun"


@contextmanager
def refusals_in_log(config_file: Path | None, lib_root: Path | None, *, touching_nothing: bool) -> Iterator[None]:
    """What refuses a run before there are settings, or with them, leaves its reason in a log file of its own.

    Only where the folder of the log files can be told and is there; not for a command that touches nothing.
    """
    try:
        yield
    except SkicyclerunError as error:
        if not touching_nothing and not isinstance(error, Cancelled):
            from skicyclerun.run.log_report import leave_refusal

            file = _log_file(config_file, lib_root)
            words = exit_codes.in_words(exit_codes.code_of(error))
            if file is not None:
                leave_refusal(file, logging.INFO, error, as_typed(), words)
        raise


def _log_file(config_file: Path | None, lib_root: Path | None) -> Path | None:
    """Where the log of a run would go that begins now, also by a configuration that is refused."""
    from skicyclerun.run.log_report import timestamp_now
    from skicyclerun.settings.load import load_settings
    from skicyclerun.settings.placeholders import fill_in

    now = timestamp_now()
    try:
        return load_settings(config_file, lib_root=lib_root).log_file(now)
    except ConfigError as error:
        return Path(fill_in(error.log_file, timestamp=now)) if error.log_file else None


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


def choice_options(command: _F, *, until: bool = False) -> _F:
    """What of the source is taken: groups of all photos, albums left out, filters. docs/choosing.md explains them.

    `until`: with --until, for a command that has no stages to end with.
    """
    until_day = click.option("--until", metavar="DATE|30d", help="Only photos taken on that day or earlier.")
    for option in reversed(
        (
            click.option("--everything", is_flag=True, help="All photos, also those in no album, in groups."),
            click.option(
                "--group-by",
                type=click.Choice(["year", "month", "day", "place"]),
                help="How --everything puts them together. Default: `export.group_by`, which is month.",
            ),
            click.option("--not-in-albums", is_flag=True, help="With --everything: only photos that are in no album."),
            click.option(
                "--exclude", multiple=True, metavar="NAME|GLOB|ID", help="Without these albums. May be repeated."
            ),
            click.option("--since", metavar="DATE|30d", help="Only photos taken on that day or later."),
            *([until_day] if until else []),
            click.option("--favorites", is_flag=True, help="Only favourites."),
            click.option("--keyword", "keywords", multiple=True, metavar="NAME|GLOB", help="Only with this keyword."),
            click.option("--person", "persons", multiple=True, metavar="NAME|GLOB", help="Only with this person."),
            click.option("--media", type=click.Choice(["photo", "video"]), help="Only photos, or only videos."),
            click.option(
                "--min-size",
                type=click.IntRange(1, 1_000_000),
                metavar="PIXELS",
                help="Only what has so many pixels on its longer side.",
            ),
            click.option("--not-screenshots", is_flag=True, help="No screenshots."),
            click.option("--hidden", is_flag=True, help="With --everything: hidden photos too."),
        )
    ):
        command = option(command)
    return command


def given_choice(typed: Mapping[str, object], until: str | None = None) -> dict[str, object]:
    """What `choice_options` say, over the configuration; nothing for what was not typed.

    But for --exclude, which adds to the configuration (`with_excluded`): what is to stay in does so whatever is typed.
    """
    keys = {name: f"export.{name}" for name in ("everything", "group_by", "not_in_albums")} | {
        name: f"export.filters.{name}"
        for name in ("since", "favorites", "keywords", "persons", "media", "min_size", "not_screenshots", "hidden")
    }
    given = {keys[name]: value for name, value in typed.items() if name in keys and value not in (None, False, ())}
    if until is not None:
        given["export.filters.until"] = until
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def with_excluded(settings: Settings, typed: Mapping[str, object]) -> Settings:
    """The settings with the albums that --exclude names on top of those of the configuration."""
    more = typed.get("exclude")
    if not isinstance(more, tuple) or not more:
        return settings
    export = settings.export
    exclude = tuple(dict.fromkeys((*export.exclude, *more)))
    return replace(settings, export=export.model_copy(update={"exclude": exclude}))


def option_of(key: str) -> str:
    """As `choice_options` have it typed: the option that sets this key of the configuration."""
    name = key.rpartition(".")[2]
    return "--" + {"keywords": "keyword", "persons": "person"}.get(name, name).replace("_", "-")


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
    only: Collection[str] | None = None,
    writes: bool = False,
    carries_on: bool = False,
    quiet: bool = False,
) -> Settings:
    """The settings with the command line's word on top; prints their warnings, unless `quiet`. Raises ConfigError.

    `needs_lib_root`, `only` and `writes` as for `load_settings`; what is wrong in sections that are not needed is
    counted. `carries_on`: which stages run is known only to the run that is carried on with.
    """
    from skicyclerun.settings.load import load_settings
    from skicyclerun.settings.read_stages import UNNEEDED

    given = dict(overrides or {}) | given_source(source, library)
    settings = load_settings(
        config_file, lib_root=lib_root, overrides=given, needs_lib_root=needs_lib_root, only=only, writes=writes
    )
    for warning in () if quiet else settings.warnings:
        if not (carries_on and warning.endswith(UNNEEDED)):
            _warn(warning)
    if settings.problems:
        _warn(
            f"{settings.file}: a run would refuse it for {counted(len(settings.problems), 'problem')}; "
            "`skicyclerun config check` names each."
        )
    return settings


def say_waiting(waiting: Waiting) -> None:
    """A line on stderr about what a source waits for, for commands without a progress display."""
    from skicyclerun.progress.plain_text import waiting_in_words

    if not waiting.over:
        click.echo(f"Waiting for {waiting_in_words(waiting)}", err=True)


def _warn(sentence: str) -> None:
    """Say it once, however often a command reads its settings."""
    context = click.get_current_context(silent=True)
    said: set[str] = context.meta.setdefault("skicyclerun.warnings", set()) if context is not None else set()
    if sentence not in said:
        said.add(sentence)
        click.echo(f"Warning: {sentence}", err=True)


def places_as_typed() -> str:
    """Options that name the same place in another command, with a space before them."""
    typed = click.get_current_context().params
    given = [("--lib-root", typed.get("lib_root")), ("--config", typed.get("config_file"))]
    return "".join(f" {option} {shlex.quote(str(path))}" for option, path in given if path is not None)
