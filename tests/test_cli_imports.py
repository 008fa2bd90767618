"""What a command imports, and what `--help` says of the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from skicyclerun.cli import COMMANDS, cli
from skicyclerun.commands import exit_codes
from tests.command_line import environment, make_library, skicyclerun

HEAVY = (
    "osxphotos",
    "PIL",
    "pillow_heif",
    "exiv2",
    "numpy",
    "rawpy",
    "photoscript",
    "ollama",
    "httpx",
    "av",
    "simplejpeg",
)
#: What takes longer to import than an answer takes that needs none of it.
SLOW = (*HEAVY, "pydantic", "anyio", "asyncio", "aiosqlite", "rich", "transitions", "filelock", "difflib", "tempfile")
CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["status", "--help"],
        ["status"],
        ["status", "--json", "--photos"],
        ["config", "check"],
        ["run", "--check-config"],
        ["run", "--resume"],
    ],
)
def test_what_needs_no_picture_imports_no_image_stack(tmp_path: Path, arguments: list[str]) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"]})
    skicyclerun("run", "--library", library, "--lib-root", tmp_path / "lib_root")
    modules = imported(tmp_path, arguments)
    assert [name for name in HEAVY if name in modules] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["retry-failed", "--help"],
        ["status", "--help"],
        ["status"],
        ["status", "--json", "--photos"],
        ["status", "--run", "1"],
    ],
)
@pytest.mark.parametrize("own_configuration", [False, True])
def test_help_and_status_import_no_models_and_no_event_loop(
    tmp_path: Path, arguments: list[str], own_configuration: bool
) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"]})
    if own_configuration:
        skicyclerun("config", "init", "--lib-root", tmp_path / "lib_root")
    skicyclerun("run", "--library", library, "--lib-root", tmp_path / "lib_root")
    modules = imported(tmp_path, arguments)
    assert [name for name in SLOW if name in modules] == []
    assert [name for name in modules if name.startswith(("skicyclerun.actors", "skicyclerun.sources"))] == []


def imported(tmp_path: Path, arguments: list[str]) -> list[str]:
    """The modules that a command has imported when it has ended well."""
    program = (
        "import json, sys\n"
        "from skicyclerun.cli import run_command_line\n"
        f"code = run_command_line({arguments!r})\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment({"SKICYCLERUN_LIB_ROOT": str(tmp_path / "lib_root")}),
        cwd=CHECKOUT,
        check=True,
        timeout=60,
    )
    code, modules = json.loads(ended.stderr.splitlines()[-1])
    assert code == 0
    return [str(name) for name in modules]


def test_help_names_every_command_and_every_exit_code() -> None:
    helped = skicyclerun("--help").stdout
    for name, (_, _, line) in COMMANDS.items():
        assert f"  {name} " in helped
        assert line.split(".")[0].split()[0] in helped
    codes = [value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)]
    assert set(codes) == {0, 1, 2, 3, 10, 11, 130, 143}
    for code in codes:
        assert str(code) in exit_codes.HELP
        assert str(code) in helped


def test_the_line_in_help_is_what_the_command_says_of_itself() -> None:
    with click.Context(cli) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert command.help
