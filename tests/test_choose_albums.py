"""Choosing albums before a run: the list in the terminal, the native dialogs, and when neither is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input

from skicyclerun.commands.choose_albums import choose_from_list, label
from skicyclerun.models import Album
from tests.command_line import Terminal, exported, make_library, skicyclerun, status_of, write_config
from tests.standin_osascript.scenario import Scenario, error

pytestmark = pytest.mark.long

ENTER, ESC, DOWN, CTRL_A, CTRL_C, BACKSPACE, TAB = "\r", "\x1b", "\x1b[B", "\x01", "\x03", "\x7f", "\t"
ALBUMS = [
    Album("A", "Lake", (), 12),
    Album("B", "Lake", ("Trips",), 3),
    Album("C", "Grünhornlücke", (), 104),
    Album("D", "Empty"),
]


# ── the list ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe, create_app_session(input=pipe):
        yield pipe


@pytest.mark.parametrize(
    ("typed", "chosen"),
    [
        (f" {ENTER}", ["A"]),
        (f"{DOWN} {ENTER}", ["B"]),
        (f" {DOWN} {ENTER}", ["A", "B"]),
        (f" {DOWN}  {ENTER}", ["A"]),
        (f"trips {ENTER}", ["B"]),
        (f"LAKE{DOWN} {ENTER}", ["B"]),
        (f"lücke {ENTER}", ["C"]),
        (f"\x1b[200~grün\x1b[201~ {ENTER}", ["C"]),
        (f"empty {BACKSPACE * 5}trips {ENTER}", ["B", "D"]),
        (f"{CTRL_A}{ENTER}", ["A", "B", "C", "D"]),
        (f"{CTRL_A}{CTRL_A}{ENTER}", []),
        (f"lake{CTRL_A}{ENTER}", ["A", "B"]),
        (f"empty {BACKSPACE * 5}lake{CTRL_A}{CTRL_A}{ENTER}", ["D"]),
        (f"\x1bOP {ENTER}", ["A"]),  # F1 is no text to filter by
        (f"{TAB}{ENTER}", []),
        (ENTER, []),
        (f" {CTRL_C}", []),
        (" \x04", []),
    ],
)
async def test_albums_are_chosen_with_keys(keys: PipeInput, typed: str, chosen: list[str]) -> None:
    keys.send_text(typed)
    with anyio.fail_after(20):
        assert await choose_from_list(ALBUMS) == chosen


async def test_escape_chooses_nothing(keys: PipeInput) -> None:
    keys.send_text(f" {ESC}")
    with anyio.fail_after(20):
        assert await choose_from_list(ALBUMS) == []


async def test_a_terminal_that_goes_away_chooses_nothing(keys: PipeInput) -> None:
    keys.close()
    with anyio.fail_after(20):
        assert await choose_from_list(ALBUMS) == []


def test_an_albums_line_counts_its_photos_and_names_its_folders() -> None:
    assert [label(album, 3) for album in ALBUMS[:2]] == [" 12  Lake", "  3  Trips/Lake"]


@pytest.mark.parametrize("title", ["a\x1b[2Jb", "a\nb", "a\u202eb", "a\x9bb", "a\udcffb"])
def test_nothing_in_a_title_reaches_the_terminal(title: str) -> None:
    shown = label(Album("A", title, (title,)))
    assert shown.count(ascii(title)[1:-1]) == 2
    assert not any(character in shown for character in "\x1b\n\u202e\x9b\udcff")


def test_a_title_of_any_length_is_one_line() -> None:
    assert len(label(Album("A", "x" * 100_000))) < 400


async def test_markup_in_a_title_is_text(keys: PipeInput, capsys: pytest.CaptureFixture[str]) -> None:
    keys.send_text(f" {ENTER}")
    title = "<b>bold</b> [red]red[/red] {0} %s"
    assert await choose_from_list([Album("A", title, (), 1)]) == ["A"]
    assert title in capsys.readouterr().err


# ── in a whole run, at a terminal ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path / "standin")
    scenario.add_album("Lake", [scenario.add_item("A.JPG"), scenario.add_item("B.JPG")])
    scenario.add_album("Lake", [scenario.add_item("C.JPG")], folders=["Trips"])
    scenario.add_album("Peak \x1b[31mred\n", [scenario.add_item("D.JPG")])
    return scenario


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


def photos_app(scenario: Scenario) -> dict[str, str]:
    made = scenario.environment()
    return {name: made[name] for name in ("PATH", "SKICYCLERUN_STANDIN")}


def test_a_fresh_run_from_photos_asks_which_albums_and_keeps_to_them(scenario: Scenario, lib_root: Path) -> None:
    arguments = ("run", "--source", "apple_photos", "--lib-root", lib_root)
    with Terminal(*arguments, extra=photos_app(scenario)) as terminal:
        terminal.read_until("Which of 3 albums?")
        terminal.read_until("Trips/Lake")
        assert "\x1b[31mred" not in terminal.shown
        terminal.type(f"trips {ENTER}")
        terminal.read_until("Start? [Y/n]")
        assert "Export 1 album with 1 photo" in terminal.shown
        terminal.type("y\n")
        done = terminal.read_to_the_end()
    assert done.code == 0
    assert list(exported(lib_root)) == ["Lake/C.jpg"]
    assert [album["title"] for album in status_of(lib_root)["albums"]] == ["Lake"]


@pytest.mark.parametrize("typed", [ENTER, ESC, CTRL_C, f" {CTRL_C}"])
def test_choosing_nothing_ends_well_and_touches_nothing(scenario: Scenario, lib_root: Path, typed: str) -> None:
    arguments = ("run", "--source", "apple_photos", "--lib-root", lib_root)
    with Terminal(*arguments, extra=photos_app(scenario)) as terminal:
        terminal.read_until("Trips/Lake")
        terminal.type(typed)
        done = terminal.read_to_the_end()
    assert done.code == 0
    assert "Nothing was touched." in done.stdout
    assert not lib_root.exists()


def test_no_list_where_albums_are_named_or_nobody_wants_to_be_asked(scenario: Scenario, lib_root: Path) -> None:
    config = write_config(scenario.folder, export={"albums": ["Trips/Lake"]})
    arguments = ("run", "--source", "apple_photos", "--lib-root", lib_root)
    for more in (["--album", "Trips/Lake"], ["--config", str(config)]):
        with Terminal(*arguments, *more, extra=photos_app(scenario)) as terminal:
            terminal.read_until("Start? [Y/n]")
            assert "Which of" not in terminal.shown
            terminal.type("n\n")
            assert terminal.read_to_the_end().code == 0
    with Terminal(*arguments, "--yes", extra=photos_app(scenario)) as terminal:
        done = terminal.read_to_the_end()
    assert (done.code, "Which of" in done.stdout, len(exported(lib_root))) == (0, False, 4)


def test_other_sources_ask_only_when_told_to(tmp_path: Path, lib_root: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["1.jpg"], "Coast": ["2.jpg"]})
    arguments = ("run", "--library", library, "--lib-root", lib_root)
    with Terminal(*arguments) as terminal:
        terminal.read_until("Start? [Y/n]")
        assert "Which of" not in terminal.shown
        terminal.type("n\n")
        terminal.read_to_the_end()
    with Terminal(*arguments, "--choose", "--yes") as terminal:
        terminal.read_until("Coast")
        terminal.type(f"{DOWN} {ENTER}")
        done = terminal.read_to_the_end()
    assert done.code == 0
    assert list(exported(lib_root)) == ["Coast/2.jpg"]


def test_a_library_without_albums_asks_nothing(tmp_path: Path, lib_root: Path) -> None:
    arguments = ("run", "--source", "apple_photos", "--lib-root", lib_root)
    with Terminal(*arguments, extra=photos_app(Scenario(tmp_path / "empty"))) as terminal:
        done = terminal.read_to_the_end()
    assert done.code == 0
    assert "There are no albums in Photos.app. Nothing was touched." in done.stdout
    assert not lib_root.exists()


# ── native dialogs, and what contradicts itself ───────────────────────────────────────────────────────────────────


@pytest.fixture
def at_photos(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """The stand-in for commands that run in this process."""
    for name, value in photos_app(scenario).items():
        monkeypatch.setenv(name, value)
    return scenario


def test_albums_chosen_in_the_dialog_are_exported(at_photos: Scenario, lib_root: Path) -> None:
    at_photos.dialogs = {"choose-albums": [at_photos.albums[0]["id"]]}
    at_photos.write()
    assert skicyclerun("run", "--source", "apple_photos", "--dialogs", "--yes", "--lib-root", lib_root).code == 0
    assert list(exported(lib_root)) == ["Lake/A.jpg", "Lake/B.jpg"]


def test_a_dialog_that_is_cancelled_ends_well_and_touches_nothing(at_photos: Scenario, lib_root: Path) -> None:
    done = skicyclerun("run", "--source", "apple_photos", "--dialogs", "--yes", "--lib-root", lib_root)
    assert (done.code, "Nothing was touched." in done.stderr) == (0, True)
    assert not lib_root.exists()


def test_a_dialog_that_may_not_be_shown_says_how_to_allow_it(at_photos: Scenario, lib_root: Path) -> None:
    at_photos.add_fault("choose-albums", error=error(-1743))
    done = skicyclerun("run", "--source", "apple_photos", "--dialogs", "--yes", "--lib-root", lib_root)
    assert (done.code, "Automation" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--dialogs", "--source", "folder", "--library", "."], "apple_photos only"),
        (["--choose", "--source", "folder", "--library", "."], "needs a terminal"),
        (["--choose", "--dialogs"], "Only one of the three"),
        (["--choose", "--album", "Lake"], "Only one of the three"),
        (["--dialogs", "--stages", "cleanup"], "nothing is to be exported"),
        (["--resume", "--choose"], "no other choice"),
    ],
)
def test_what_contradicts_itself_is_usage(lib_root: Path, more: list[str], said: str) -> None:
    done = skicyclerun("run", "--lib-root", lib_root, *more)
    assert (done.code, said in done.stderr) == (2, True)
    assert not os.path.exists(lib_root)
