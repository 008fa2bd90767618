"""The command line: finds the command, and is the only place that prints errors and turns them into exit codes.

Commands are imported when they are called, so that `status` and `--help` answer without the image stack.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from typing import Final

import click

from skicyclerun import __version__
from skicyclerun.commands import exit_codes
from skicyclerun.commands.exit_codes import stdout_to_nowhere
from skicyclerun.errors import Cancelled, ConfigError, ConfigErrors, InternalFault, SkicyclerunError
from skicyclerun.files.fault_points import check_faults

#: Command → (module, object, one line for `--help`). The line stands here so that `--help` imports no command.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "run": ("skicyclerun.commands.run", "run", "Export albums: a fresh run, or --resume."),
    "retry-failed": ("skicyclerun.commands.run", "retry_failed", "Fetch again what failed in the last run."),
    "status": ("skicyclerun.commands.status", "status", "Report on the last run, album by album."),
    "report": ("skicyclerun.commands.report", "report", "A page that shows what happened, for a browser."),
    "albums": ("skicyclerun.commands.albums", "albums", "List the albums the source offers."),
    "leave-out": ("skicyclerun.commands.leave_out", "leave_out", "Leave single photos out of every run from now on."),
    "take-in": ("skicyclerun.commands.leave_out", "take_in", "Take photos in again that were left out."),
    "config": ("skicyclerun.commands.config", "config", "Check, show or begin a configuration."),
    "verify": ("skicyclerun.commands.verify", "verify", "Compare files, database and catalog; --repair puts right."),
    "rebuild-state": ("skicyclerun.commands.rebuild_state", "rebuild_state", "Make a lost state database anew."),
    "rebuild-catalog": ("skicyclerun.commands.rebuild_state", "rebuild_catalog", "Make a lost master.json anew."),
    "archive": ("skicyclerun.commands.archive", "archive", "List, verify, restore or prune archives."),
    "doctor": ("skicyclerun.commands.doctor", "doctor", "Look whether an export would work here."),
    "demo": ("skicyclerun.commands.demo", "demo", "Make a small sample library and export it."),
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if name not in COMMANDS:
            import difflib

            if near := difflib.get_close_matches(name, COMMANDS, n=1):
                context.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exit_codes.HELP,
)
@click.version_option(__version__, prog_name="skicyclerun")
def cli() -> None:
    """Exports the albums of a photo library to folders of JPEGs, and never loses its place.

    Type `skicyclerun COMMAND --help` for the options of a command.
    """


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. Everything that can go wrong is printed here, and only here."""
    try:
        check_faults()
        typed = shlex.join(("skicyclerun", *arguments))
        result = cli.main(args=list(arguments), prog_name="skicyclerun", standalone_mode=False, obj=typed)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort as abort:
        # At a question, or (click makes one of the other) somewhere in a command.
        at_work = isinstance(abort.__cause__, KeyboardInterrupt)
        _say("Stopped." if at_work else "Stopped. Nothing was touched.")
        return exit_codes.INTERRUPTED
    except click.ClickException as error:
        error.show(sys.stderr)
        return exit_codes.USAGE
    except KeyboardInterrupt:
        _say("Stopped.")
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except SystemExit:
        # Out of standalone mode click ends the program itself for one reason only: a broken pipe.
        return _reader_left()
    except Exception as error:
        return _explain(error)
    return result if isinstance(result, int) else exit_codes.OK


def _reader_left() -> int:
    stdout_to_nowhere()
    return exit_codes.OK


def _explain(error: Exception) -> int:
    if isinstance(error, ExceptionGroup):
        from skicyclerun.run.pipeline import unwrapped

        inner = unwrapped(error)
        error = inner if isinstance(inner, Exception) else error
    if isinstance(error, Cancelled):
        _say(str(error))
        return exit_codes.code_of(error)
    if isinstance(error, SkicyclerunError):
        for warning in error.warnings if isinstance(error, ConfigError) else ():
            _say(f"Warning: {warning}")
        sentences = error.errors if isinstance(error, ConfigErrors) else (error,)
        for each in sentences:
            _say(f"Error: {each}")
        for step in dict.fromkeys(each.next_step for each in sentences if each.next_step):
            _say(f"       {step}")
        return exit_codes.code_of(error)
    fault = InternalFault(error, _keep_traceback(error))
    _say(f"Error: {fault}")
    _say(f"       {fault.next_step}")
    return exit_codes.FATAL


def _keep_traceback(error: Exception) -> str:
    """Write the traceback of a fault outside of a run to a file of its own; its name, empty where none could be."""
    import tempfile
    import traceback

    try:
        descriptor, name = tempfile.mkstemp(prefix="skicyclerun-", suffix=".log")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.writelines(traceback.format_exception(error))
    except OSError:
        return ""
    return name


def _say(text: str) -> None:
    click.echo(text, err=True)
