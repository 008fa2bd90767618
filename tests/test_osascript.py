"""The runner: what osascript says is understood, and whatever happens no process is left."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.errors import SourceStopped
from skicyclerun.sources import osascript as runner
from skicyclerun.sources.osascript import Osascript, Outcome, Trouble, trouble_of
from tests.standin_osascript.play import is_running
from tests.standin_osascript.scenario import PROGRAM, SCRIPT, Scenario, error, until

CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path / "standin")


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def osascript(scenario: Scenario, log: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Osascript]:
    """Writes the scenario and gives a runner that meets the stand-in as `osascript` on PATH."""

    def make() -> Osascript:
        for name, value in scenario.environment().items():
            monkeypatch.setenv(name, value)
        return Osascript(script=SCRIPT, log=log.append, grace=0.2)

    return make


async def noted(scenario: Scenario, key: str) -> int:
    """What the stand-in noted under this key, once it has."""
    await until(lambda: any(key in note for note in scenario.notes()))
    return next(int(note[key]) for note in scenario.notes() if key in note)


# ── what it says ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_result_loses_only_the_newline_that_osascript_adds(
    scenario: Scenario, osascript: Callable[[], Osascript]
) -> None:
    scenario.add_fault("preflight", output=base64.b64encode(b"\n two lines\n\n").decode())
    outcome = await osascript().run("preflight", seconds=30)
    assert outcome == Outcome(0, "\n two lines\n")
    assert outcome.ok


async def test_words_arrive_as_they_are(scenario: Scenario, osascript: Callable[[], Osascript]) -> None:
    words = ["a \"quoted\" 'word'", "-e", "$(touch x)", "line\nline", "", "n\N{COMBINING TILDE}"]
    await osascript().run("preflight", *words, seconds=30)
    assert scenario.calls("preflight")[0]["words"] == words


async def test_log_lines_come_while_the_script_runs_and_without_their_wrapping(
    scenario: Scenario, osascript: Callable[[], Osascript], log: list[str]
) -> None:
    scenario.add_fault("preflight", log=["plain", "(*wrapped*)", "  (* spaced *) ", ""], hang="silent")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                await osascript().run("preflight", seconds=60)

            tasks.start_soon(call)
            await until(lambda: len(log) == 3)
            scope.cancel()
    assert log == ["plain", "wrapped", "spaced"]


@pytest.mark.parametrize("form", ["offsets", "path", "name", "syntax"])
@pytest.mark.parametrize(
    "text", ["AppleEvent timed out.", f"Photos a trouvé une erreur : l{CURLY}événement (1) a expiré."]
)
async def test_the_number_is_found_behind_every_prefix_and_in_every_language(
    scenario: Scenario, osascript: Callable[[], Osascript], form: str, text: str
) -> None:
    scenario.add_fault("preflight", log=["Error: something else (-1743)"], error=error(-1712, text, form))
    outcome = await osascript().run("preflight", seconds=30)
    assert (outcome.returncode, outcome.error_number, outcome.error_text) == (1, -1712, text)
    assert outcome.trouble is Trouble.NO_REPLY
    assert outcome.explanation == f"{text} (-1712)"


async def test_a_number_that_is_not_at_the_end_of_the_last_line_is_none(
    scenario: Scenario, osascript: Callable[[], Osascript]
) -> None:
    scenario.add_fault("preflight", stderr=base64.b64encode(b"error (-1743)\nand then (-1728) more\n").decode(), kill=9)
    outcome = await osascript().run("preflight", seconds=30)
    assert outcome.error_number is None
    assert outcome.returncode == -signal.SIGKILL
    assert outcome.trouble is Trouble.UNSETTLED
    assert "signal 9" in outcome.explanation


async def test_an_error_that_the_script_caught_is_no_error(
    scenario: Scenario, osascript: Callable[[], Osascript], log: list[str]
) -> None:
    scenario.add_fault("preflight", caught=error(-1712, "AppleEvent timed out."))
    outcome = await osascript().run("preflight", seconds=30)
    assert outcome.ok
    assert outcome.error_number is None
    assert log == ["Error: AppleEvent timed out. (-1712)"]


async def test_more_than_a_pipe_holds_on_both_streams_at_once(
    scenario: Scenario, osascript: Callable[[], Osascript], log: list[str]
) -> None:
    item = scenario.add_item("IMG_0001.JPG", description="é" * 200_000)
    scenario.add_fault("item-facts", flood=300_000)
    outcome = await osascript().run("item-facts", item, seconds=60)
    assert outcome.ok
    assert outcome.output.count("é") == 200_000
    assert len(log) == 3_000


async def test_bytes_that_are_no_utf8_are_replaced(
    scenario: Scenario, osascript: Callable[[], Osascript], log: list[str]
) -> None:
    scenario.add_fault(
        "preflight",
        stderr=base64.b64encode(b"caf\xe9 \xff\n").decode(),
        output=base64.b64encode(b"IMG\xff\xfe.JPG\n").decode(),
    )
    outcome = await osascript().run("preflight", seconds=30)
    assert outcome.output == "IMG\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.JPG"
    assert log == ["caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}"]


async def test_the_number_survives_a_line_that_is_far_too_long(
    scenario: Scenario, osascript: Callable[[], Osascript]
) -> None:
    scenario.add_fault("preflight", error=error(-1728, "x" * 500_000))
    assert (await osascript().run("preflight", seconds=30)).error_number == -1728


async def test_output_without_end_stops_the_source(
    scenario: Scenario, osascript: Callable[[], Osascript], monkeypatch: pytest.MonkeyPatch
) -> None:
    item = scenario.add_item("IMG_0001.JPG", description="x" * 300_000)
    monkeypatch.setattr(runner, "_MOST_OUTPUT", 100_000)
    with pytest.raises(SourceStopped, match="returned more than"):
        await osascript().run("item-facts", item, seconds=30)
    assert not is_running(scenario.calls("item-facts")[0]["pid"])


async def test_a_program_that_is_not_there_says_that_photos_needs_a_mac(log: list[str], tmp_path: Path) -> None:
    with pytest.raises(SourceStopped, match="only be read on macOS") as caught:
        await Osascript(program=str(tmp_path / "osascript"), script=SCRIPT, log=log.append).run("preflight", seconds=5)
    assert "--library" in caught.value.next_step


async def test_a_program_that_may_not_be_started_stops_the_source(log: list[str], tmp_path: Path) -> None:
    with pytest.raises(SourceStopped, match="could not be started"):
        await Osascript(program=str(tmp_path), script=SCRIPT, log=log.append).run("preflight", seconds=5)


@pytest.mark.parametrize(
    ("number", "trouble"),
    [
        (-1743, Trouble.DENIED),
        (-1744, Trouble.DENIED),
        (-1728, Trouble.GONE),
        (-128, Trouble.CANCELLED),
        (-1712, Trouble.NO_REPLY),
        (-600, Trouble.NOT_RUNNING),
        (-609, Trouble.NOT_RUNNING),
        (-10810, Trouble.NOT_RUNNING),
        (-1700, Trouble.BROKEN_SCRIPT),
        (-2740, Trouble.BROKEN_SCRIPT),
        (-2741, Trouble.BROKEN_SCRIPT),
        (-2753, Trouble.BROKEN_SCRIPT),
        (-10000, Trouble.UNSETTLED),
        (-10004, Trouble.UNSETTLED),
        (-2700, Trouble.UNSETTLED),
        (None, Trouble.UNSETTLED),
    ],
)
def test_what_a_number_means(number: int | None, trouble: Trouble) -> None:
    assert trouble_of(number) is trouble


@given(st.binary(max_size=300), st.integers(-99_999, 99_999), st.lists(st.integers(1, 60), max_size=6))
def test_whatever_comes_before_it_the_number_at_the_end_is_read(noise: bytes, number: int, cuts: list[int]) -> None:
    data = noise + b" execution error: any (words) here (%d)\n" % number
    collected = runner._Collected(lambda line: None)
    for cut in cuts:
        collected.take_errors(data[:cut])
        data = data[cut:]
    collected.take_errors(data)
    collected.finish()
    assert runner._outcome(1, collected, False).error_number == number


# ── how it ends ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hang", ["silent", "line"])
async def test_a_call_that_hangs_is_ended_when_its_time_is_up(
    scenario: Scenario, osascript: Callable[[], Osascript], hang: str
) -> None:
    scenario.add_fault("preflight", hang=hang)
    outcome = await osascript().run("preflight", seconds=2)
    assert outcome.timed_out
    assert not outcome.ok
    assert outcome.trouble is Trouble.NO_REPLY
    assert outcome.returncode == -signal.SIGTERM
    assert not is_running(scenario.calls("preflight")[0]["pid"])


async def test_one_that_ignores_the_polite_signal_is_killed_with_its_whole_group(
    scenario: Scenario, osascript: Callable[[], Osascript]
) -> None:
    scenario.add_fault("preflight", hang="silent", deaf=True, child=True)
    outcome = await osascript().run("preflight", seconds=2)
    assert outcome.returncode == -signal.SIGKILL
    child = await noted(scenario, "child")
    await until(lambda: not is_running(child))


async def test_what_it_started_does_not_outlive_it(scenario: Scenario, osascript: Callable[[], Osascript]) -> None:
    scenario.add_fault("preflight", hang="silent", child=True)
    outcome = await osascript().run("preflight", seconds=2)
    assert outcome.returncode == -signal.SIGTERM
    child = await noted(scenario, "child")
    await until(lambda: not is_running(child))


async def test_cancelling_ends_the_process_before_it_returns(
    scenario: Scenario, osascript: Callable[[], Osascript]
) -> None:
    scenario.add_fault("preflight", hang="silent", deaf=True)
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            await osascript().run("preflight", seconds=None)

        tasks.start_soon(call)
        pid = await noted(scenario, "hanging")
        tasks.cancel_scope.cancel()
    assert not is_running(pid)


async def test_a_process_that_keeps_the_pipes_open_does_not_keep_us(
    scenario: Scenario, osascript: Callable[[], Osascript]
) -> None:
    scenario.add_fault("preflight", linger=True)
    outcome = await osascript().run("preflight", seconds=20)
    lingering = await noted(scenario, "lingering")
    assert is_running(lingering)
    os.kill(lingering, signal.SIGKILL)
    assert outcome.ok
    assert outcome.output.endswith("\x1eend\x1e")


async def test_no_zombie_is_left(scenario: Scenario, osascript: Callable[[], Osascript]) -> None:
    scenario.add_fault("preflight", error=error(-600))
    call = osascript()
    await call.run("preflight", seconds=30)
    await call.run("preflight", seconds=30)
    pids = [note["pid"] for note in scenario.calls("preflight")]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # a zombie would still take a signal
            os.kill(pid, 0)


# ── the stand-in reads its command line as osascript does ─────────────────────────────────────────────────────────


def standin(scenario: Scenario, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *words], env=scenario.environment(), input=text, capture_output=True, text=True, timeout=60
    )


def test_the_stand_in_takes_a_file_an_expression_and_standard_input(scenario: Scenario) -> None:
    expected = standin(scenario, str(SCRIPT), "preflight").stdout
    assert expected.endswith("\x1eend\x1e\n")
    assert standin(scenario, "-l", "AppleScript", "-s", "h", str(SCRIPT), "preflight").stdout == expected
    assert standin(scenario, "-e", "on run argv", "preflight").stdout == expected
    assert standin(scenario, "-", "preflight", text="on run argv").stdout == expected


def test_the_stand_in_refuses_what_osascript_refuses(scenario: Scenario, tmp_path: Path) -> None:
    assert standin(scenario, str(tmp_path / "none.scpt")).returncode == 1
    assert "illegal option" in standin(scenario, "-x", str(SCRIPT)).stderr
    unknown = standin(scenario, str(SCRIPT), "export-everything")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.rstrip().endswith("(9001)")


# ── who listens ───────────────────────────────────────────────────────────────────────────────────────────────────


class Heard:
    """Answers each line that begins with `ours` with a number of seconds, and keeps what it hears."""

    def __init__(self, seconds: float, on_wait: Callable[[], object] = lambda: None) -> None:
        self.seconds = seconds
        self.on_wait = on_wait
        self.lines: list[str] = []
        self.waits: list[float] = []

    def heard(self, line: str) -> float | None:
        self.lines.append(line)
        return self.seconds if line.startswith("ours") else None

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.on_wait()


async def test_a_line_for_the_listener_is_not_logged_and_moves_the_end(
    scenario: Scenario, osascript: Callable[[], Osascript], log: list[str]
) -> None:
    scenario.add_fault("preflight", log=["theirs", "ours 1"], hang="silent")
    heard = Heard(0.0)
    # A minute was given; the line leaves nothing of it.
    outcome = await osascript().run("preflight", seconds=60, listener=heard)
    assert outcome.timed_out
    assert heard.lines == ["theirs", "ours 1"]
    assert log == ["theirs"]


async def test_a_line_gives_more_time_than_there_was(scenario: Scenario, osascript: Callable[[], Osascript]) -> None:
    scenario.add_fault("preflight", log=["ours"], until=str(scenario.folder / "go"))
    # Two seconds were given. It ends only once they are long over by the clock that counts waiting.
    heard = Heard(60.0)
    heard.on_wait = lambda: (scenario.folder / "go").touch() if heard.waits[-1] > 2 else None
    program = replace(osascript(), first_wait=1.1)
    outcome = await program.run("preflight", seconds=2.0, listener=heard)
    assert outcome.ok
    assert heard.waits == [1.1, 2.2]


async def test_waiting_is_told_at_growing_intervals_and_never_after_the_end(
    scenario: Scenario, osascript: Callable[[], Osascript]
) -> None:
    go = scenario.folder / "go"
    scenario.add_fault("preflight", until=str(go))
    heard = Heard(0.0)
    heard.on_wait = lambda: go.touch() if len(heard.waits) == 4 else None
    outcome = await replace(osascript(), first_wait=0.01).run("preflight", seconds=30, listener=heard)
    assert outcome.ok
    assert heard.waits[:4] == [0.01, 0.02, 0.04, 0.08]
