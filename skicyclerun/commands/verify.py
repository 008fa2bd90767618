"""`skicyclerun verify`."""

from __future__ import annotations

import json
import re
import secrets
import sys
from functools import partial
from pathlib import Path

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.growing_line import files_read, growing_line
from skicyclerun.commands.options import as_typed, place_options, settings_of
from skicyclerun.errors import UsageError
from skicyclerun.progress.choose import choose_renderer
from skicyclerun.verification.bucket import as_json as bucket_as_json
from skicyclerun.verification.bucket import as_lines as bucket_as_lines
from skicyclerun.verification.bucket import verify_bucket
from skicyclerun.verification.report import Depth, as_json, as_text
from skicyclerun.verification.session import VerifyOutcome, verify_and_repair, verify_only

_SAMPLE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(%?)\Z")


@click.command(epilog=exit_codes.HELP)
@click.option("--full", is_flag=True, help="Read every byte, decode every picture.")
@click.option("--sample", metavar="5%|N", help="Read this share of the files, or so many, in full; the others quickly.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Which files --sample picks; the same N, the same files."
)
@click.option("--repair", is_flag=True, help="Export or make again what is broken, and nothing else; then look again.")
@click.option(
    "--remote", is_flag=True, help="Also compare the bucket of s3_deployment; with --full every object is read back."
)
@click.option("--all", "name_all", is_flag=True, help="Name every problem and every album.")
@place_options
@click.option("--json", "json_wanted", is_flag=True, help="For other programs.")
def verify(
    *,
    full: bool,
    sample: str | None,
    seed: int | None,
    repair: bool,
    remote: bool,
    name_all: bool,
    lib_root: Path | None,
    config_file: Path | None,
    json_wanted: bool,
) -> int:
    """Compare exported files, and those that stages made, with database and catalog; exit code 3 if something is wrong.

    Quick by default: size and time of every file. Nothing is ever deleted: what nobody knows is only named, and what
    --repair replaces is kept in the archive folder.
    """
    depth = depth_of(full=full, sample=sample, seed=seed)
    settings = settings_of(config_file, lib_root, only=None if repair else ())
    if repair:
        with choose_renderer(sys.stderr) as renderer:
            outcome: VerifyOutcome = anyio.run(lambda: verify_and_repair(settings, depth, renderer, typed=as_typed()))
    else:
        with growing_line(partial(files_read, "Verifying"), stays=True) as advance:
            outcome = anyio.run(lambda: verify_only(settings, depth, advance=advance))
    report = outcome.report
    bucket = None
    if remote and outcome.signal_code is None:
        bucket = anyio.run(lambda: verify_bucket(settings, full=full, repair=repair))
    if json_wanted:
        told = as_json(report)
        if bucket is not None:
            told |= {"ok": report.sound and bucket.sound, "remote": bucket_as_json(bucket)}
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(as_text(report, name_all=name_all, before_bucket=bucket is not None), nl=False)
        for line in bucket_as_lines(bucket, name_all=name_all) if bucket is not None else ():
            click.echo(line)
    if outcome.signal_code is not None:
        return outcome.signal_code
    return exit_codes.OK if report.sound and (bucket is None or bucket.sound) else exit_codes.WITH_FAILURES


def depth_of(*, full: bool, sample: str | None, seed: int | None) -> Depth:
    """What the options say. Raises UsageError."""
    if sample is None:
        if seed is not None:
            raise UsageError("--seed goes with --sample.")
        return Depth("full" if full else "quick")
    if full:
        raise UsageError("--full reads everything; --sample reads a part. Give one of them.")
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    match = _SAMPLE.fullmatch(sample.strip())
    if match is None:
        raise UsageError(f"--sample {sample}: not a share or a number. Say `--sample 5%` or `--sample 200`.")
    number = float(match[1])
    if match[2]:
        if not 0 < number <= 100:
            raise UsageError(f"--sample {sample}: a share is more than 0 % and at most 100 %.")
        return Depth("sample", share=number / 100, seed=chosen)
    if not number.is_integer() or number < 1:
        raise UsageError(
            f"--sample {sample}: a number of files is whole and at least 1; for a share say `--sample 5%`."
        )
    return Depth("sample", count=int(number), seed=chosen)
