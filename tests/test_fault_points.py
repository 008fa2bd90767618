"""Fault points: a name that nobody knows fails at once, whether it is typed, written in the code, or forgotten."""

from __future__ import annotations

import ast
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from skicyclerun.errors import UsageError
from skicyclerun.files import fault_points
from skicyclerun.files.fault_points import FAULT_POINTS, check_faults, fault_point
from tests.command_line import ToldSource, make_library, run_with, skicyclerun, skicyclerun_process
from tests.test_crash_campaign import OF_A_FRESH_RUN, OF_STAGES

CHECKOUT = Path(__file__).resolve().parents[1]
VARIABLES = ("SKICYCLERUN_FAULT", "SKICYCLERUN_FAULT_ENOSPC")


def refusal(variable: str) -> str:
    return (
        f"Error: {variable} names 'group.commited', which is no fault point of this program.\n"
        f"       Did you mean 'group.committed'? Unset {variable} unless you are testing crashes; "
        "files/fault_points.py lists the names.\n"
    )


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_misspelt_fault_point_in_the_environment_is_a_sentence(tmp_path: Path, variable: str) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"]})
    root = tmp_path / "root"
    arguments = ("run", "--library", library, "--lib-root", root, "--yes")
    ended = skicyclerun_process(*arguments, extra={variable: "group.commited"})
    assert (ended.code, ended.stdout, ended.stderr) == (2, "", refusal(variable))
    assert not root.exists()


@pytest.mark.parametrize("command", [["run", "--resume"], ["status"], ["verify", "--repair"], ["--help"]])
def test_a_misspelt_fault_point_stops_every_command_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("SKICYCLERUN_LIB_ROOT", str(tmp_path / "root"))
    monkeypatch.setattr(fault_points, "_KILL", "group.commited:2")
    ended = skicyclerun(*command)
    assert (ended.code, ended.stdout, ended.stderr) == (2, "", refusal("SKICYCLERUN_FAULT"))
    assert not (tmp_path / "root").exists()


def test_a_misspelt_fault_point_stops_a_run_of_the_python_api_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"]})
    monkeypatch.setattr(fault_points, "_ENOSPC", "group.commited")
    with pytest.raises(UsageError, match=r"group\.commited"):
        run_with(ToldSource(library, lambda photo: None), tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "wanted", ["run.created:", "run.created:0", "run.created:-1", "run.created:two", "run.created:²"]
)
@pytest.mark.parametrize("variable", VARIABLES)
def test_a_visit_that_is_no_number_is_a_sentence(monkeypatch: pytest.MonkeyPatch, variable: str, wanted: str) -> None:
    monkeypatch.setattr(fault_points, "_KILL" if variable == "SKICYCLERUN_FAULT" else "_ENOSPC", wanted)
    with pytest.raises(UsageError, match="not a number of visits") as refused:
        check_faults()
    assert refused.value.next_step == f"For the third visit: {variable}=run.created:3"
    with pytest.raises(UsageError):
        fault_point("run.created")


def test_a_name_that_is_like_none_suggests_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_points, "_KILL", "zzzzzz")
    with pytest.raises(UsageError, match="'zzzzzz'") as refused:
        check_faults()
    assert "Did you mean" not in refused.value.next_step


def test_a_fault_point_of_the_code_that_is_not_listed_fails_whenever_one_is_armed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault_point("not.listed")  # unset: nothing is looked at
    monkeypatch.setattr(fault_points, "_KILL", "run.created")
    with pytest.raises(LookupError, match=r"not\.listed"):
        fault_point("not.listed")


def test_a_fault_point_that_is_spelt_right_kills_at_the_visit_that_was_asked_for(tmp_path: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"], "Coast": ["IMG_2.jpg"]})
    root = tmp_path / "root"
    arguments = ("run", "--library", library, "--lib-root", root, "--yes")
    killed = skicyclerun_process(*arguments, extra={"SKICYCLERUN_FAULT": "album.finished:2"})
    assert killed.code == -signal.SIGKILL
    assert [album["status"] for album in skicyclerun("status", "--json", "--lib-root", root).json["albums"]] == [
        "done",
        "done",
    ]


def test_every_fault_point_in_the_code_is_a_literal_that_is_listed_and_every_listed_one_is_in_the_code() -> None:
    """What is not listed would be no fault point at all; the list is what the campaigns go through."""
    visited = set()
    for path, call in _calls():
        names = list(_literals(call.args[0]))
        assert names, f"{path}:{call.lineno}: give fault_point the name as a literal, so that it can be found"
        visited.update(names)
    assert visited - set(FAULT_POINTS) == set(), "write these into FAULT_POINTS (files/fault_points.py)"
    assert set(FAULT_POINTS) - visited == set(), "these are listed and visited nowhere"
    assert len(FAULT_POINTS) == len(set(FAULT_POINTS))


def test_every_fault_point_is_one_at_which_a_test_kills_a_run() -> None:
    told = {text.partition(":")[0] for text in _texts_of_tests()}
    not_killed_at = [name for name in FAULT_POINTS if name not in (*OF_A_FRESH_RUN, *OF_STAGES) and name not in told]
    assert not_killed_at == [], "kill a run at these in a test, by their names"


def _calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted((CHECKOUT / "skicyclerun").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name == "fault_point":
                    yield path, node


def _literals(argument: ast.expr) -> Iterator[str]:
    """The names an argument can be: one literal, or one of several by a condition."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield argument.value
    elif isinstance(argument, ast.IfExp):
        yield from _literals(argument.body)
        yield from _literals(argument.orelse)


def _texts_of_tests() -> Iterator[str]:
    for path in sorted((CHECKOUT / "tests").glob("test_*.py")):
        if path != Path(__file__):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
