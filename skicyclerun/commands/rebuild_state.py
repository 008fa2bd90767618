"""`skicyclerun rebuild-state` and `skicyclerun rebuild-catalog`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.growing_line import files_read, growing_line
from skicyclerun.commands.options import place_options, settings_of, source_options
from skicyclerun.rebuild.session import RebuildReport
from skicyclerun.rebuild.session import rebuild_catalog as make_catalog
from skicyclerun.rebuild.session import rebuild_state as make_state
from skicyclerun.wording import bytes_in_words, printable, seconds_in_words

_NAMED = 20


@click.command("rebuild-state", epilog=exit_codes.HELP)
@click.option("--force", is_flag=True, help="Also where the database is sound; it is kept under another name.")
@click.option("--all", "name_all", is_flag=True, help="Name every file that could not be claimed.")
@source_options
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def rebuild_state(
    *,
    force: bool,
    name_all: bool,
    source: str | None,
    library: Path | None,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Make a lost or damaged state database anew, from the exported files and master.json.

    Every file is read and compared with the catalog; one that differs is named and not claimed. The old database is
    kept under another name. --library says where the photos came from, where the old database no longer can.
    """
    settings = settings_of(config_file, lib_root, source, library)
    with growing_line(partial(files_read, "Reading"), stays=True) as advance:
        report = anyio.run(
            lambda: make_state(settings, force=force, library_given=library is not None, advance=advance)
        )
    if json_wanted:
        click.echo(json.dumps(_as_json(report), indent=2, default=str))
    else:
        for line in _lines(report, name_all):
            click.echo(line)
    return exit_codes.OK if report.whole else exit_codes.WITH_FAILURES


@click.command("rebuild-catalog", epilog=exit_codes.HELP)
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def rebuild_catalog(*, lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """Write master.json from the state database.

    What other programs wrote into it stays, as far as it can be read. One that cannot be read is kept under another
    name.
    """
    settings = settings_of(config_file, lib_root)
    written = anyio.run(make_catalog, settings)
    path = settings.paths.master_catalog
    if json_wanted:
        document = {
            "master_catalog": str(path),
            "written": written.written,
            "entries": written.entries,
            "set_aside": str(written.set_aside) if written.set_aside else None,
        }
        click.echo(json.dumps(document, indent=2))
        return exit_codes.OK
    if written.problem:
        click.echo(printable(written.problem), err=True)
    if written.written:
        click.echo(f"{printable(str(path))}: written, {written.entries} entries.")
    elif written.entries:
        click.echo(f"{printable(str(path))}: says all of it already, {written.entries} entries; it was not touched.")
    else:
        click.echo("No exported file is there now; there is nothing to write.")
    return exit_codes.OK


def _lines(report: RebuildReport, name_all: bool) -> Iterator[str]:
    groups: tuple[tuple[str, Sequence[tuple[str, str]]], ...] = (
        ("Not as the catalog says, and left as they are:", report.differing),
        ("Named by the catalog, and gone:", [(path, "") for path in report.gone]),
        ("Entries that could not be taken:", report.unclaimed),
        ("In the folders, and not in the catalog:", [(path, "") for path in report.unknown]),
    )
    for heading, found in groups:
        if not found:
            continue
        yield heading
        named = found if name_all else found[:_NAMED]
        for path, why in named:
            yield f"    {printable(path)}{': ' + printable(why) if why else ''}"
        if len(named) < len(found):
            yield f"    … and {len(found) - len(named)} more (--all names every one)"
    yield (
        f"{printable(str(report.state_db))}: rebuilt in {seconds_in_words(report.seconds)}, {report.albums} "
        f"album{'' if report.albums == 1 else 's'}, {report.claimed} files ({bytes_in_words(report.bytes)})."
    )
    if report.stages:
        yield f"Of the stages {', '.join(report.stages)}: {report.stage_files} files."
    if report.kept_as:
        yield f"The old one is kept as {printable(str(report.kept_as))}."
    if report.gone:
        yield "Next: `skicyclerun retry-failed` asks again for the files that are gone."


def _as_json(report: RebuildReport) -> dict[str, object]:
    told: dict[str, object] = {"ok": report.whole, **asdict(report), "seconds": round(report.seconds, 3)}
    for key, found in (("differing", report.differing), ("unclaimed", report.unclaimed)):
        told[key] = [{"path": path, "detail": why} for path, why in found]
    return told
