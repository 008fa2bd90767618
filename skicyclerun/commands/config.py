"""`skicyclerun config check|show|init`."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import NAMED_PATH, place_options, settings_of
from skicyclerun.errors import NotWritable, UsageError
from skicyclerun.health.findings import Verdict
from skicyclerun.settings.models import default_config_text
from skicyclerun.stages.registry import check_stage_needs, parse_stages
from skicyclerun.wording import printable


@click.group(epilog=exit_codes.HELP)
def config() -> None:
    """Check, show or begin a configuration."""


@config.command()
@place_options
def check(*, lib_root: Path | None, config_file: Path | None) -> int:
    """Check the configuration and what its stages need; create nothing."""
    settings = settings_of(config_file, lib_root)
    check_stage_needs(settings, parse_stages(settings.pipeline.stages, settings.own_stages()))
    click.echo(f"{settings.file}: the configuration is valid.")
    if settings.cleanup.remote is not None:
        from skicyclerun.health.remote import check_remote

        finding = anyio.run(check_remote, settings)
        if finding.verdict is Verdict.OK:
            click.echo(f"cleanup.remote: {printable(finding.detail)}")
        else:
            click.echo(f"Warning: cleanup.remote: {printable(finding.detail)} {printable(finding.next_step)}", err=True)
    return exit_codes.OK


@config.command()
@place_options
def show(*, lib_root: Path | None, config_file: Path | None) -> int:
    """Print the configuration with every default and path.

    It is shown as it is understood: every default is there, and every path is resolved.
    """
    settings = settings_of(config_file, lib_root)
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
    click.echo(f"{file} written. Use it with `--config {file}`, or put it at LIB_ROOT/config/pipeline_config.json.")
    return exit_codes.OK
