"""What README.md and docs/ say is there: links lead somewhere, commands and options are explained."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from skicyclerun.cli import cli
from tests.command_line import skicyclerun

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md"), *(CHECKOUT / "tests" / "data").glob("*.md")]
)
#: Every program has them, and they explain themselves.
CONVENTIONAL = {"--help", "--version"}

_FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_INLINE_LINK = re.compile(r"\]\(\s*<?([^()\s<>]+)>?[^()]*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s<>]+)>?", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


# ── links ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def relative_links(markdown: str) -> list[str]:
    """The files that a page links to, as it names them, without anchors."""
    text = _FENCED.sub("", markdown)
    targets = [*_INLINE_LINK.findall(text), *_REFERENCE.findall(text)]
    files = [unquote(target.partition("#")[0]) for target in targets if not _ELSEWHERE.match(target)]
    return [file for file in files if file]


def test_the_links_of_a_page_are_found() -> None:
    page = (
        "[a](a.md) and [b](sub/b%20c.md#part) ![p](<p.png>) [w](https://example.org/x.md) [here](#part)\n"
        "```text\n[no](link.md)\n```\n"
        '[t](t.md "a title")\n[r]: r.md\n'
    )
    assert relative_links(page) == ["a.md", "sub/b c.md", "p.png", "t.md", "r.md"]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(CHECKOUT)) for page in PAGES])
def test_every_relative_link_leads_to_a_file_of_the_checkout(page: Path) -> None:
    lost = []
    for link in relative_links(page.read_text(encoding="utf-8")):
        target = Path(os.path.normpath(page.parent / link))
        if not target.is_relative_to(CHECKOUT) or not target.exists():
            lost.append(link)
    assert lost == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [CHECKOUT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            links = relative_links(page.read_text(encoding="utf-8"))
            waiting += [Path(os.path.normpath(page.parent / link)) for link in links]
    assert [page.name for page in PAGES if page not in reached] == []


# ── commands and options ──────────────────────────────────────────────────────────────────────────────────────────


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Every command and sub-command, as it is typed."""
    waiting: list[tuple[str, click.Command]] = [("", cli)]
    with click.Context(cli) as context:
        while waiting:
            name, command = waiting.pop(0)
            if name:
                yield name, command
            if isinstance(command, click.Group):
                for inner in command.list_commands(context):
                    found = command.get_command(context, inner)
                    assert found is not None
                    waiting.append((f"{name} {inner}".strip(), found))


COMMANDS = dict(every_command())


def documentation() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_is_in_the_documentation(command: str) -> None:
    helped = skicyclerun(*command.split(), "--help")
    assert helped.code == 0
    assert f"skicyclerun {command}" in helped.stdout
    written = documentation()
    named = f"skicyclerun {command}" in written or f"`{command}" in written
    assert named, f"`skicyclerun {command}` is neither in README.md nor in docs/"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_long_option_is_in_the_documentation(command: str) -> None:
    written = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", documentation()))
    options = {
        option
        for parameter in COMMANDS[command].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }
    assert options - written - CONVENTIONAL == set(), f"options of `skicyclerun {command}` that no page names"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_for(command: str) -> None:
    mute = [
        parameter.name
        for parameter in COMMANDS[command].params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert mute == []


# ── what the checkout keeps to itself ─────────────────────────────────────────────────────────────────────────────


def paths_of_this_machine() -> list[str]:
    """Where this checkout and its Python lie; what is as short as `/usr` may be meant otherwise."""
    places = [CHECKOUT, *([Path(sys.prefix)] if sys.prefix != sys.base_prefix else [])]
    return [str(place) for place in places if len(place.parts) > 2]


def test_no_tracked_text_names_a_path_of_this_machine() -> None:
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no checkout, or no git to ask what is tracked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True, timeout=60)
    tracked = [CHECKOUT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    assert CHECKOUT / "README.md" in tracked
    wanted = [re.compile(re.escape(path.encode()) + rb"(?![\w-])") for path in paths_of_this_machine()]
    naming = [
        str(path.relative_to(CHECKOUT))
        for path in tracked
        if path.is_file() and any(pattern.search(path.read_bytes()) for pattern in wanted)
    ]
    assert naming == []
