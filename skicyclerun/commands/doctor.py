"""`skicyclerun doctor`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.options import as_typed, given_source, place_options, say_waiting, source_options
from skicyclerun.errors import ConfigError, ConfigErrors
from skicyclerun.health.checks import check_health, program_findings
from skicyclerun.health.findings import Finding, Verdict, failed, ok, warning
from skicyclerun.health.models import check_models
from skicyclerun.health.stages import stage_findings
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import Settings
from skicyclerun.wording import printable

_WIDTH = 28


@click.command(epilog=exit_codes.HELP)
@source_options
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
@click.option("--models", is_flag=True, help="Also load the models of the stages that have one, and do one picture.")
def doctor(
    *,
    source: str | None,
    library: Path | None,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
    models: bool,
) -> int:
    """Look whether an export would work here: program, permissions, library, disk, state; and each other stage.

    Exits with 1 where something failed. With the source apple_photos it launches Photos.
    """
    given = given_source(source, library)
    found: list[Finding] = []
    try:
        settings: Settings | ConfigError = load_settings(config_file, lib_root=lib_root, overrides=given, only=())
    except ConfigError as error:
        settings = error

    async def look() -> None:
        async for finding in _findings(settings, models=models):
            found.append(finding)
            if not json_wanted:
                click.echo(_line(finding))

    anyio.run(look)
    bad = [finding for finding in found if finding.verdict is Verdict.FAILED]
    if json_wanted:
        rows = [
            {"check": each.check, "status": each.verdict.value, "detail": each.detail, "next_step": each.next_step}
            for each in found
        ]
        click.echo(json.dumps({"ok": not bad, "checks": rows}, indent=2, ensure_ascii=False))
    return exit_codes.FATAL if bad else exit_codes.OK


async def _findings(settings: Settings | ConfigError, *, models: bool) -> AsyncIterator[Finding]:
    if isinstance(settings, Settings):
        for text in settings.warnings:
            yield warning("configuration", text)
        for problem in settings.problems:
            yield failed("configuration", str(problem), problem.next_step)
        if not settings.problems:
            yield ok("configuration", str(settings.file))
        async for finding in check_health(settings, on_wait=say_waiting, typed=as_typed()):
            yield finding
        async for finding in stage_findings(settings):
            yield finding
        if models:
            async for finding in check_models(settings):
                yield finding
        return
    for text in settings.warnings:
        yield warning("configuration", text)
    for error in settings.errors if isinstance(settings, ConfigErrors) else (settings,):
        yield failed("configuration", str(error), error.next_step or settings.next_step)
    for finding in program_findings():
        yield finding


def _line(finding: Finding) -> str:
    line = f"{finding.verdict.value:<8} {finding.check:<{_WIDTH}} {printable(finding.detail)}"
    return f"{line}\n{'':<8} {'':<{_WIDTH}} -> {printable(finding.next_step)}" if finding.next_step else line
