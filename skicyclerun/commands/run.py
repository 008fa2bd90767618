"""`skicyclerun run` and `skicyclerun retry-failed`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.exit_codes import stdout_to_nowhere
from skicyclerun.commands.options import (
    TakesStages,
    as_typed,
    choice_options,
    given_choice,
    option_of,
    place_options,
    places_as_typed,
    refusals_in_log,
    settings_of,
    source_options,
    with_excluded,
)
from skicyclerun.errors import Cancelled, SkicyclerunError, UsageError
from skicyclerun.wording import counted, printable

# What carries out a run is imported by the functions that do: `run --help` answers without it.
if TYPE_CHECKING:
    from skicyclerun.actors.stage_plan import StageAhead
    from skicyclerun.commands.offer_folders import Rebuild
    from skicyclerun.run.plan import Plan, RunRequest
    from skicyclerun.run.session import RunOutcome
    from skicyclerun.settings.later_stages import LeftStage
    from skicyclerun.settings.models import Settings
    from skicyclerun.stages.stage import Stage
    from skicyclerun.state.runs import RunRow

_SHOWN_ALBUMS = 12


@click.command(cls=TakesStages, epilog=exit_codes.HELP)
@click.option("--resume", is_flag=True, help="Carry on with the unfinished run where it stopped.")
@click.option("--fresh", is_flag=True, help="Give up an unfinished run and start anew.")
@click.option("--update", is_flag=True, help="Export only what is new or changed; nothing is cleaned.")
@click.option(
    "--include-removed", is_flag=True, help="Export photos whose files were removed by hand (export.removed_files)."
)
@click.option(
    "--stages",
    multiple=True,
    metavar="NAMES",
    help="What to do (docs/stages.md), with commas or spaces; an export does the cleanup first. "
    "Default: `pipeline.stages`.",
)
@click.option("--from", "from_stage", metavar="STAGE", help="Leave out the stages before this one.")
@click.option(
    "--until",
    multiple=True,
    metavar="STAGE|DATE|30d",
    help="A stage: leave out those after it. A day: only photos taken on it or earlier.",
)
@click.option("--no-cleanup", is_flag=True, help="Leave the old outputs where they are.")
@click.option("--force-clean", is_flag=True, help="With `--stages cleanup`: empty the folders once they are archived.")
@click.option("--album", "selection", multiple=True, metavar="NAME|GLOB|ID", help="Only these albums. May be repeated.")
@choice_options
@click.option("--choose", is_flag=True, help="Choose albums from a list. Without it, Photos.app's are asked for.")
@click.option("--dialogs", is_flag=True, help="Choose albums, and a folder where one is missing, in macOS's dialogs.")
@source_options
@place_options
@click.option("--sweep-path-contains", metavar="TEXT", help="geocode_sweep: only pictures whose path holds this.")
@click.option("--sweep-limit", type=click.IntRange(min=1), metavar="N", help="geocode_sweep: at most so many pictures.")
@click.option("--sweep-only-missing", is_flag=True, help="geocode_sweep: only pictures without any place.")
@click.option("--sweep-skip-heading", is_flag=True, help="geocode_sweep: do not look for missing headings.")
@click.option(
    "--sweep-pulse-sec",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="geocode_sweep: a plain line on how far it is, every so many seconds.",
)
@click.option("--cache-only-geocode", is_flag=True, help="Ask no server for places; use the answers that are kept.")
@click.option("--check-config", is_flag=True, help="Check the configuration and exit.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; touch nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before starting, nor before folders are emptied.")
@click.option("-v", "--verbose", is_flag=True, help="More in the log file; name every album before starting.")
@click.option("--notify", is_flag=True, help="A desktop notification at the end, however it ends.")
@click.option("--json", "as_json_lines", is_flag=True, help="One JSON object a line on stdout; the last is the report.")
def run(
    *,
    resume: bool,
    fresh: bool,
    update: bool,
    include_removed: bool,
    stages: tuple[str, ...],
    no_cleanup: bool,
    force_clean: bool,
    selection: tuple[str, ...],
    choose: bool,
    dialogs: bool,
    source: str | None,
    library: Path | None,
    lib_root: Path | None,
    config_file: Path | None,
    check_config: bool,
    dry_run: bool,
    yes: bool,
    verbose: bool,
    notify: bool,
    as_json_lines: bool,
    from_stage: str | None,
    until: tuple[str, ...],
    sweep_path_contains: str | None,
    sweep_limit: int | None,
    sweep_only_missing: bool,
    sweep_skip_heading: bool,
    sweep_pulse_sec: float | None,
    cache_only_geocode: bool,
    **choice: object,
) -> int:
    """Export albums, and go on with the stages after that.

    A fresh run puts the old outputs into a proved archive, empties their folders and exports. `--resume` carries on
    with a run that was stopped, at the first photo that is not safely on disk.
    """
    from skicyclerun.actors.messages import Intent
    from skicyclerun.run.plan import RunRequest
    from skicyclerun.settings.later_stages import enabled_stages, left_in_words

    said = {
        "sweep_path_contains": sweep_path_contains,
        "sweep_limit": sweep_limit,
        "sweep_only_missing": sweep_only_missing,
        "sweep_skip_heading": sweep_skip_heading,
        "sweep_pulse_sec": sweep_pulse_sec,
        "cache_only_geocode": cache_only_geocode,
    }
    said = {name: value for name, value in said.items() if value not in (None, False)}
    flags = (fresh, update, include_removed, choose, dialogs, no_cleanup, force_clean)
    until_stage, until_day = _untils(until)
    chosen_photos = given_choice(choice, until_day)
    others = (*flags, stages, selection, from_stage, until_stage, chosen_photos, choice["exclude"])
    overrides: dict[str, object] = dict(chosen_photos)
    if update:
        overrides["export.mode"] = "update"
    if include_removed:
        overrides["export.removed_files"] = "export_again"
    if no_cleanup or update:
        overrides["cleanup.enabled"] = False
    if verbose:
        overrides["logging.level"] = "DEBUG"

    def check() -> None:
        if resume and (said or any(others)):
            raise UsageError("--resume carries on with the run as it was begun; it goes with no other choice.")
        if sum((bool(selection), choose, dialogs)) > 1:
            raise UsageError("--album names the albums; --choose and --dialogs ask for them. Only one of the three.")

    def build(another_root: Path | None, more: Mapping[str, object]) -> RunRequest:
        given = (config_file, another_root or lib_root, source, library)
        # Which sections count is known only with the stages: what was said before could be wrong.
        settings = settings_of(*given, overrides | dict(more), carries_on=resume, quiet=bool(stages))
        configured = settings.pipeline.stages
        if resume:  # by the stages of that run; these say only what is looked at first
            chosen = tuple(stage.name for stage in enabled_stages(settings, configured)) or ("export",)
        else:
            chosen = _stages(settings, stages, no_cleanup=no_cleanup or update, begin=from_stage, end=until_stage)
        if stages:
            # Once more, now that it is known which sections count: a wrong value in one of them is a mistake.
            named = overrides | dict(more) | {"pipeline.stages": chosen}
            settings = settings_of(*given, named)
        settings = with_excluded(settings, choice)
        if force_clean and chosen != ("cleanup",):
            raise UsageError(
                "--force-clean goes with `--stages cleanup`: it empties the folders although no export follows."
            )
        if (choose or dialogs) and "export" not in chosen:
            raise UsageError("--choose and --dialogs ask which albums to export, and nothing is to be exported.")
        _check_choice(chosen_photos, settings, chosen)
        return RunRequest(
            intent=Intent.RESUME if resume else Intent.FRESH,
            settings=settings,
            stages=chosen,
            selection=selection or (() if choose or dialogs else settings.export.albums),
            fresh_over_unfinished=fresh,
            force_clean=force_clean,
            dry_run=dry_run,
            source_given=source is not None or library is not None,
            stage_options=said,
            left_out=None if stages else _left_out(settings, begin=from_stage, end=until_stage),
            pipeline=configured,
        )

    with refusals_in_log(config_file, lib_root, touching_nothing=dry_run or check_config):
        check()
        request = build(None, {})
    if check_config:
        click.echo(f"{request.settings.file}: the configuration is valid. Stages: {', '.join(request.stages)}.")
        for sentence in left_in_words(request.left_out or ()):
            click.echo(sentence)
        return exit_codes.OK
    with refusals_in_log(config_file, lib_root, touching_nothing=dry_run):
        return carry_out(
            request,
            yes=yes,
            verbose=verbose,
            as_json_lines=as_json_lines,
            notify=notify and not dry_run,
            choose=choose,
            dialogs=dialogs,
            rebuild=build,
        )


@click.command("retry-failed", cls=TakesStages, epilog=exit_codes.HELP)
@place_options
@click.option(
    "--stages",
    multiple=True,
    metavar="NAMES",
    help="Only these, with commas or spaces. Default: all that the run has.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; touch nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before starting.")
@click.option("-v", "--verbose", is_flag=True, help="More in the log file.")
@click.option("--notify", is_flag=True, help="A desktop notification at the end, however it ends.")
@click.option("--json", "as_json_lines", is_flag=True, help="One JSON object a line on stdout; the last is the report.")
def retry_failed(
    *,
    lib_root: Path | None,
    config_file: Path | None,
    stages: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    verbose: bool,
    notify: bool,
    as_json_lines: bool,
) -> int:
    """Do again what failed in the last run, in all its stages, and nothing else."""
    from skicyclerun.actors.messages import Intent
    from skicyclerun.run.plan import RunRequest
    from skicyclerun.stages.registry import parse_stages

    overrides = {"logging.level": "DEBUG"} if verbose else {}
    chosen = None
    with refusals_in_log(config_file, lib_root, touching_nothing=dry_run):
        settings = settings_of(config_file, lib_root, overrides=overrides, carries_on=True)
        if stages:
            chosen = tuple(stage.name for stage in parse_stages(stages, settings.own_stages()))
    request = RunRequest(Intent.RETRY_FAILED, settings, dry_run=dry_run, retry_stages=chosen)
    return carry_out(request, yes=yes, verbose=verbose, as_json_lines=as_json_lines, notify=notify and not dry_run)


def _untils(typed: Sequence[str]) -> tuple[str | None, str | None]:
    """The stage and the day of --until, which means either. Raises UsageError where one of them is given twice."""
    from skicyclerun.settings.days import looks_like_days

    days = [each for each in typed if looks_like_days(each)]
    stages = [each for each in typed if not looks_like_days(each)]
    if len(days) > 1 or len(stages) > 1:
        raise UsageError("--until takes one stage and one day (2024-07-21, 30d), each once.")
    return next(iter(stages), None), next(iter(days), None)


def _check_choice(typed: Mapping[str, object], settings: Settings, stages: Sequence[str]) -> None:
    """Raise UsageError for what was typed about photos and says nothing in this run."""
    if "export" not in stages and typed:
        option = option_of(next(iter(typed)))
        raise UsageError(f"{option} chooses what is exported, and nothing is to be exported. Nothing was touched.")
    if not settings.export.everything:
        for key in ("export.group_by", "export.not_in_albums", "export.filters.hidden"):
            if key in typed:
                raise UsageError(f"{option_of(key)} goes with --everything. Nothing was touched.")


def _stages(
    settings: Settings, wanted: Sequence[str], *, no_cleanup: bool, begin: str | None, end: str | None
) -> tuple[str, ...]:
    """The stages of the run; `wanted` are those that were typed, if any.

    Those that the configuration switches off are left out unless they are typed. A typed export has the cleanup before
    it, unless that is left out by --no-cleanup, --update, `export.mode`, `cleanup.enabled` or --from.
    """
    from skicyclerun.settings.later_stages import enabled_stages
    from skicyclerun.stages.registry import parse_stages

    own = settings.own_stages()
    stages = parse_stages(wanted, own) if wanted else enabled_stages(settings, settings.pipeline.stages)
    named = _between(tuple(stage.name for stage in stages), own, begin, end)
    no_cleanup = no_cleanup or settings.export.mode == "update"
    if not wanted:
        left_out = no_cleanup or not settings.cleanup.enabled
        return tuple(name for name in named if name != "cleanup" or not left_out)
    if "cleanup" in named:
        if no_cleanup:
            raise UsageError(
                "The stage cleanup contradicts --no-cleanup and --update: they leave the old outputs alone."
            )
        return named
    cleans = "export" in named and not no_cleanup and settings.cleanup.enabled and begin in (None, "cleanup")
    return ("cleanup", *named) if cleans else named


def _left_out(settings: Settings, *, begin: str | None, end: str | None) -> tuple[LeftStage, ...]:
    """Of the stages that the configuration lists those that cannot be run here, if the command line does not leave them
    out itself."""
    from skicyclerun.settings.later_stages import left_stages
    from skicyclerun.stages.registry import in_order

    left = left_stages(settings, settings.pipeline.stages)
    order = [stage.name for stage in in_order({stage.name: stage for stage in settings.own_stages()})]
    first = order.index(begin) if begin is not None else 0
    last = order.index(end) if end is not None else len(order)
    return tuple(each for each in left if first <= order.index(each.name) <= last)


def _between(stages: tuple[str, ...], own: Sequence[Stage], begin: str | None, end: str | None) -> tuple[str, ...]:
    """Those of the stages from one to another, both included. Raises StageError, UsageError."""
    from skicyclerun.stages.registry import check_stage_name, in_order

    order = [stage.name for stage in in_order({stage.name: stage for stage in own})]
    for name in (begin, end):
        if name is not None:
            check_stage_name(name, [stage.name for stage in own])
    first = order.index(begin) if begin is not None else 0
    last = order.index(end) if end is not None else len(order)
    if not stages:
        raise UsageError(
            "Nothing is left to run: every stage of `pipeline.stages` is switched off or cannot be run here.",
            next_step="`skicyclerun doctor` says what each one lacks; `--stages` names some for this run.",
        )
    chosen = tuple(name for name in stages if first <= order.index(name) <= last)
    if not chosen:
        raise UsageError(
            "No stage lies between --from and --until.", next_step=f"The stages of this run are: {', '.join(stages)}."
        )
    return chosen


def carry_out(
    request: RunRequest,
    *,
    yes: bool,
    verbose: bool,
    as_json_lines: bool,
    notify: bool = False,
    choose: bool = False,
    dialogs: bool = False,
    rebuild: Rebuild | None = None,
) -> int:
    """Run the request with the terminal's questions and display; prints the report and returns the exit code.

    `yes`: nothing is asked before the start, and what is archived may be emptied. It does not decide what is to become
    of an unfinished run, nor make a folder that is missing with the one above it: these have their own words.
    `notify`: what becomes of it is said on the desktop too, unless the person at the terminal calls it off.
    `rebuild` makes the request anew where a missing folder is replaced by another; without it nothing is offered.
    """
    import anyio

    from skicyclerun.actors.messages import Intent
    from skicyclerun.commands.choose_albums import album_choice, offer_everything
    from skicyclerun.commands.offer_folders import with_folders_settled
    from skicyclerun.progress.choose import LateRenderer, choose_renderer
    from skicyclerun.run.session import RunSession

    at_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    asking = at_terminal and not yes and not request.dry_run
    choice = album_choice(request, choose=choose, dialogs=dialogs, at_terminal=at_terminal, asking=asking)
    if rebuild is not None and request.intent is Intent.FRESH and (asking or dialogs):
        request = with_folders_settled(request, rebuild, dialogs=dialogs)
    how_to_agree = request.how_to_agree or _how_to_agree(request)
    request = replace(request, typed=as_typed(), may_empty=yes, how_to_agree=how_to_agree)
    with LateRenderer(
        lambda: choose_renderer(
            sys.stdout if as_json_lines else sys.stderr,
            json=as_json_lines,
            quiet=not request.settings.logging.console,
        )
    ) as renderer:
        session = RunSession(
            request,
            renderer=renderer,
            confirm=(lambda plan: _confirmed(plan, ask=asking, verbose=verbose)) if asking or request.dry_run else None,
            ask_unfinished=_ask_unfinished if asking else None,
            choose_albums=choice,
            offer_everything=offer_everything if asking else None,
            ended_in_words=ended_in_words,
        )
        try:
            outcome = anyio.run(session.carry_out)
        except Exception as error:
            if notify and not isinstance(error, Cancelled):
                _notify(error)
            raise
    code = _conclude(outcome, request, as_json_lines=as_json_lines)
    if notify and outcome.report is not None:
        _notify(outcome)
    return code


def _notify(ended: RunOutcome | Exception) -> None:
    """On the desktop; where that does not go, a word about it here."""
    from skicyclerun.commands.notification import notify as notify_desktop
    from skicyclerun.run.pipeline import unwrapped
    from skicyclerun.run.session import RunOutcome

    error = unwrapped(ended) if isinstance(ended, ExceptionGroup) else ended
    text = str(error) if isinstance(error, SkicyclerunError) else ended_in_words(error)
    if isinstance(ended, RunOutcome) and (report := ended.report) is not None:
        totals = report.totals
        exported = f", {counted(totals.exported, report.run.counts_in)} exported" if report.albums else ""
        failed = f", {totals.failed + totals.missing} not" if totals.failed + totals.missing else ""
        text = f"Run {report.run.id}: {text}{exported}{failed}."
    if said := notify_desktop("skicyclerun", text):
        click.echo(said, err=True)


def _how_to_agree(request: RunRequest) -> str:
    """What to type where a run would empty folders and nobody can be asked."""
    from skicyclerun.actors.messages import Intent

    step = f"`{printable(as_typed())} --yes` says yes to it."
    named = ",".join(click.get_current_context().params.get("stages") or ())
    if request.intent is Intent.FRESH and "export" in request.stages and "cleanup" not in named:
        step += (
            " `--no-cleanup` in the place of `--yes` leaves the old outputs where they are; `--update` exports only "
            "what is new or changed."
        )
    return step


def _confirmed(plan: Plan, *, ask: bool, verbose: bool) -> bool:
    for line in summary(plan, verbose=verbose):
        click.echo(line, err=True)
    # The default answer never empties a folder.
    return not ask or click.confirm("Start?", default=not plan.emptied_in_words, err=True)


def summary(plan: Plan, *, verbose: bool) -> list[str]:
    """What is about to happen, in lines."""
    from skicyclerun.actors.messages import Intent

    paths = plan.settings.paths
    lines = []
    if plan.gives_up is not None:
        lines.append(f"Run {plan.gives_up.id} is unfinished and is given up.")
    if plan.source:
        photos = sum(album.photo_count for album in plan.albums)
        update = plan.intent is Intent.FRESH and plan.settings.export.mode == "update"
        what = {
            Intent.FRESH: "Update" if update else "Export",
            Intent.RESUME: f"Carry on with run {plan.run.id if plan.run else ''}:",
            Intent.RETRY_FAILED: f"Fetch again what failed in run {plan.run.id if plan.run else ''}:",
        }[plan.intent]
        lines.append(f"{what} {counted(len(plan.albums), 'album')} with {counted(photos, 'photo')}")
        lines.append(f"  from     {printable(plan.source)}")
        lines.append(f"  into     {paths.apple_photos_export}")
        lines.append(f"  catalog  {paths.master_catalog}")
        named = plan.albums if verbose else plan.albums[:_SHOWN_ALBUMS]
        lines += [f"    {album.photo_count:>6}  {printable(album.path)}" for album in named]
        if len(named) < len(plan.albums):
            lines.append(f"    … and {len(plan.albums) - len(named)} more (--verbose names all)")
        if update:
            lines.append(
                "Only what is new or changed is exported. What has left its album, or is no longer asked for, is put "
                "into an archive, then removed."
            )
    if plan.later_stages:
        names = ", ".join(plan.later_stages)
        if plan.source:
            lines.append(f"Then, with each album: {names}")
        else:
            albums = f" over {counted(len(plan.albums), 'album')}" if plan.run is None else ""
            lines.append(f"Stages: {names}{albums}")
    if plan.source and plan.ahead:
        lines.append("Of what is exported now; what the export brings, new or changed, comes on top:")
    lines += [_ahead_in_words(ahead) for ahead in plan.ahead]
    if plan.cleanup:
        lines.append(plan.cleanup)
        lines += [f"    {folder}" for folder in plan.emptied_in_words]
    lines += [*plan.choice, *plan.publishing, *plan.notes]
    return lines


def _ahead_in_words(ahead: StageAhead) -> str:
    """`preprocessing: 12 to do (9 new, 3 setting changed), 40 up to date`."""
    from skicyclerun.state.stage_pictures import Why

    to_do = {why: number for why, number in ahead.counts.items() if why not in (Why.UP_TO_DATE, Why.LEFT_OUT)}
    why = ", ".join(f"{number} {why}" for why, number in to_do.items() if number)
    total = sum(to_do.values())
    parts = [f"{total} to do ({why})" if total else "nothing to do"]
    parts += [f"{number} up to date" for number in [ahead.counts.get(Why.UP_TO_DATE, 0)] if number]
    parts += [f"{number} left out" for number in [ahead.counts.get(Why.LEFT_OUT, 0)] if number]
    parts += [f"{ahead.waiting} waiting for the stage before"] if ahead.waiting else []
    return f"  {ahead.stage}: {', '.join(parts)}"


def _ask_unfinished(run: RunRow, remaining: int) -> str:
    to_do = f": {remaining} album{'s' if remaining != 1 else ''} still to do" if remaining else ""
    click.echo(f"Run {run.id} is unfinished{to_do}.", err=True)
    answer: str = click.prompt(
        "Carry on with it, begin afresh, or cancel?",
        type=click.Choice(["resume", "fresh", "cancel"]),
        default="resume",
        err=True,
    )
    return answer


def _conclude(outcome: RunOutcome, request: RunRequest, *, as_json_lines: bool) -> int:
    """Print the report; the exit code tells of the run, whether or not anybody reads to the end."""
    try:
        _print(outcome, request, as_json_lines=as_json_lines)
        sys.stdout.flush()
    except BrokenPipeError:
        stdout_to_nowhere()
    return _code_of(outcome)


def _code_of(ended: RunOutcome | BaseException) -> int:
    from skicyclerun.run.session import RunOutcome

    if isinstance(ended, SkicyclerunError):
        return exit_codes.code_of(ended)
    if not isinstance(ended, RunOutcome):
        return exit_codes.FATAL
    if ended.signal_code is not None:
        return ended.signal_code
    return exit_codes.OK if ended.ended_well else exit_codes.WITH_FAILURES


def ended_in_words(ended: RunOutcome | BaseException) -> str:
    """How a run ended, for the last line of its log: the exit code in words."""
    return exit_codes.in_words(_code_of(ended))


def _command_for(stages: Sequence[str]) -> str:
    """What to type for these stages, in the same place."""
    return shlex.join(["skicyclerun", "run", "--stages", ",".join(stages)]) + places_as_typed()


def _print(outcome: RunOutcome, request: RunRequest, *, as_json_lines: bool) -> None:
    from skicyclerun.progress.terminal_text import columns
    from skicyclerun.run.report import as_json, as_text, stages_left

    report = outcome.report
    left: tuple[str, ...] = ()
    if report is not None:
        left = stages_left(report, request.settings, request.pipeline or request.settings.pipeline.stages)
    if as_json_lines:
        final: dict[str, Any] = {"event": "report", "said": outcome.said or None}
        if report is not None:
            final |= as_json(report) | {"next": {"stages": left, "command": _command_for(left)} if left else None}
            final["page"] = _page(outcome, request, quiet=True)
        click.echo(json.dumps({key: value for key, value in final.items() if value is not None}))
        return
    if outcome.said:
        click.echo(outcome.said, err=True)
    if report is not None:
        click.echo(as_text(report, width=columns(sys.stdout), places=places_as_typed()), nl=False)
        if left:
            first = "Next" if report.accounted_for else "Then"
            click.echo(f"{first}: `{printable(_command_for(left))}` goes on with the stages that are left.", err=True)
    if report is not None:
        _page(outcome, request, quiet=False)
    if outcome.log_file is not None:
        click.echo(f"Log: {outcome.log_file}", err=True)


def _page(outcome: RunOutcome, request: RunRequest, *, quiet: bool) -> str | None:
    """Make the page that shows the run, where the configuration asks for it; its path. Not for whoever has just stopped
    the run: they want to be gone."""
    if not request.settings.report.html or request.dry_run or outcome.signal_code is not None:
        return None
    from skicyclerun.commands.report import make_after_run

    file, problem = make_after_run(request.settings)
    if problem:
        click.echo(problem, err=True)
    elif not quiet:
        click.echo(f"Page: {printable(str(file))}", err=True)
    return str(file) if file is not None else None
