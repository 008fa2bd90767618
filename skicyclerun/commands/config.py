"""`skicyclerun config check|show|init`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import NAMED_PATH, place_options, settings_of
from skicyclerun.errors import ConfigError, NotWritable, StageError, UsageError
from skicyclerun.health.findings import Verdict
from skicyclerun.settings.config_file import CONFIG_NAME, LIB_ROOT_VARIABLE
from skicyclerun.settings.dotenv_file import looks_secret
from skicyclerun.settings.later_stages import LeftStage, enabled_stages, left_in_words, left_stages
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import Settings, default_config_text
from skicyclerun.settings.path_states import path_states
from skicyclerun.stages.registry import check_stage_needs, in_order, parse_stages
from skicyclerun.stages.stage import Stage
from skicyclerun.wording import aligned, column_widths, printable

#: Below lib_root, where a configuration is found without being named.
_FOUND_BY_ITSELF: Final = Path("config", CONFIG_NAME)


@click.group(epilog=exit_codes.HELP)
def config() -> None:
    """Check, show or begin a configuration."""


@config.command()
@click.option("--stages", metavar="NAMES", help="Only what these need, with commas. Default: `pipeline.stages`.")
@place_options
def check(*, stages: str | None, lib_root: Path | None, config_file: Path | None) -> int:
    """Check the configuration and what its stages need; create nothing.

    Prints each path and what is there, and each environment variable and where its value comes from.
    """
    wrong: ConfigError | None = None
    named: dict[str, object] = {}
    if stages is not None:
        # As a run does: the names first, by the user's own stages, then what they need.
        own = load_settings(config_file, lib_root=lib_root, only=()).own_stages()
        named = {"pipeline.stages": tuple(stage.name for stage in parse_stages(stages, own))}
    try:
        settings = settings_of(config_file, lib_root, overrides=named)
    except ConfigError as error:
        wrong = error
        settings = load_settings(config_file, lib_root=lib_root, overrides=named, only=())
    chosen: Sequence[Stage] = ()
    left: Sequence[LeftStage] = ()
    try:
        names = settings.pipeline.stages
        if stages is None:
            chosen, left = enabled_stages(settings, names), left_stages(settings, names)
        else:
            chosen = parse_stages(names, settings.own_stages())
    except StageError as error:
        known = in_order({stage.name: stage for stage in settings.own_stages()})
        chosen = [stage for stage in known if stage.name in settings.pipeline.stages]
        wrong = wrong or ConfigError(str(error), key="pipeline.stages", file=settings.file, next_step=error.next_step)
    _print_paths(settings, chosen)
    _print_variables(settings)
    if wrong is not None:
        raise wrong
    check_stage_needs(settings, chosen)
    click.echo(f"Stages: {', '.join(stage.name for stage in chosen) or 'none'}.")
    for sentence in left_in_words(left):
        click.echo(sentence)
    for stage in chosen:
        if stage.reads in [each.name for each in left]:
            click.echo(f"{stage.name} takes what {stage.reads} makes; where nothing of it is there it is left out too.")
    click.echo(f"{settings.file}: the configuration is valid.")
    if settings.cleanup.remote is not None:
        from skicyclerun.health.remote import check_remote

        finding = anyio.run(check_remote, settings)
        if finding.verdict is Verdict.OK:
            click.echo(f"cleanup.remote: {printable(finding.detail)}")
        else:
            click.echo(f"Warning: cleanup.remote: {printable(finding.detail)} {printable(finding.next_step)}", err=True)
    return exit_codes.OK


def _print_paths(settings: Settings, stages: Sequence[Stage]) -> None:
    states = path_states(settings, stages)
    rows = [(each.key, printable(settings.variables.hide(each.path)) or "-", each.state) for each in states]
    _print_table("Paths", rows)


def _print_variables(settings: Settings) -> None:
    variables = settings.variables
    rows = []
    for name, has_default in {LIB_ROOT_VARIABLE: True, **variables.referred}.items():
        value, origin = variables.get(name, ""), variables.origin(name)
        if origin:
            rows.append((name, "(hidden)" if looks_secret(name, value) else printable(value), f"from {origin}"))
        elif name in variables.referred:
            rows.append((name, "-", "not set; the configuration gives a default" if has_default else "not set"))
    _print_table(f"Variables{f' (.env: {variables.file})' if variables.file else ''}", rows)


def _print_table(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    if not rows:
        return
    click.echo(f"{title}:")
    widths = column_widths(("", "", ""), rows)
    for row in rows:
        click.echo("  " + aligned(row, widths, left=3))


@config.command()
@place_options
def show(*, lib_root: Path | None, config_file: Path | None) -> int:
    """Print the configuration with every default and path.

    It is shown as it is understood: every default is there, and every path is resolved.
    """
    settings = settings_of(config_file, lib_root, only=())
    click.echo(json.dumps(settings.as_json(), indent=2, ensure_ascii=False))
    return exit_codes.OK


@config.command()
@click.argument("file", type=NAMED_PATH, default="pipeline_config.json")
def init(*, file: Path) -> int:
    """Write the default configuration to FILE.

    A folder that is missing is made; an existing file is never overwritten.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(default_config_text())
    except FileExistsError:
        raise UsageError(f"{file} exists; it was left as it is.", next_step="Name another file.") from None
    except OSError as error:
        raise NotWritable(
            f"{file} cannot be written: {error.strerror}.", next_step="Name a file in a folder where you may write."
        ) from error
    absolute = file.absolute()
    if absolute.parts[-2:] == _FOUND_BY_ITSELF.parts:
        click.echo(f"{file} written. It is found by itself where lib_root is {absolute.parent.parent}.")
    else:
        named = shlex.quote(str(file))
        click.echo(f"{file} written. Use it with `--config {named}`, or put it at LIB_ROOT/{_FOUND_BY_ITSELF}.")
    return exit_codes.OK
