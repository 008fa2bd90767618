"""Looking at runs: the list of them, `status --watch`, notifications, and what a shell completes."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skicyclerun.cli import COMMANDS
from skicyclerun.commands.notification import notify
from tests.command_line import (
    YES,
    Terminal,
    ended,
    environment,
    make_library,
    make_slow_library,
    skicyclerun,
    skicyclerun_process,
    start,
)

ALBUMS = {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Coast": ["IMG_3.jpg"]}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", ALBUMS)


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_run_is_listed_with_its_end(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    (library / "Coast" / "IMG_9.jpg").write_bytes(b"\xff\xd8\xff broken")
    skicyclerun("run", "--update", "--library", library, "--lib-root", lib_root)
    skicyclerun("run", "--stages", "metadata_extraction", "--lib-root", lib_root)
    listed = skicyclerun("runs", "--lib-root", lib_root)
    assert listed.code == 0
    header, *lines = listed.stdout.splitlines()
    assert header.split() == ["Run", "Albums", "Photos", "Failed", "Begun", "(UTC)", "Took", "What", "End"]
    numbers = [line.split()[:4] for line in lines]
    assert numbers == [["1", "2/2", "3", "0"], ["2", "1/2", "3", "1"], ["3", "0/0", "0", "0"]]
    assert re.search(r" export +finished$", lines[0])
    assert re.search(r" update +finished, with failures$", lines[1])
    assert re.search(r" metadata_extraction +finished, with failures$", lines[2]), "one photo has not come to it"
    told = skicyclerun("runs", "--json", "--lib-root", lib_root).json
    assert [(each["run"], each["exported"], each["failed"], each["with_failures"]) for each in told] == [
        (1, 3, 0, False), (2, 3, 1, True), (3, 0, 0, True),
    ]  # fmt: skip
    assert [each["status"] for each in told] == ["finished"] * 3
    assert not any(each["running"] for each in told)


def test_runs_before_the_first_run_say_so(lib_root: Path) -> None:
    said = skicyclerun("runs", "--lib-root", lib_root)
    assert said.code == 10
    assert said.stdout == ""


def test_a_run_that_was_killed_is_listed_as_unfinished(library: Path, lib_root: Path) -> None:
    fault = {"SKICYCLERUN_FAULT": "group.committed"}
    assert skicyclerun_process("run", "--library", library, "--lib-root", lib_root, extra=fault).code == -9
    assert skicyclerun("runs", "--lib-root", lib_root).stdout.rstrip().endswith("unfinished")
    skicyclerun("run", "--fresh", *YES, "--library", library, "--lib-root", lib_root)
    lines = skicyclerun("runs", "--lib-root", lib_root).stdout.splitlines()
    assert "given up for a later one" in lines[1]
    assert lines[2].endswith("finished")


# ── status --watch ────────────────────────────────────────────────────────────────────────────────────────────────


def test_watching_follows_a_run_to_its_end_and_leaves_it_alone(tmp_path: Path, lib_root: Path) -> None:
    library = make_slow_library(tmp_path / "library")
    run = start("run", "--library", library, "--lib-root", lib_root)
    try:
        assert run.stderr is not None
        while "PROGRESS" not in run.stderr.readline():
            assert run.poll() is None
        assert skicyclerun("runs", "--lib-root", lib_root).stdout.rstrip().endswith("running")
        with Terminal("status", "--watch", "--lib-root", lib_root, columns=100) as first:
            first.read_until("running")
            left = first.press_ctrl_c()
        assert left.code == 0, "who leaves has not failed"
        assert "Stopped" not in left.stdout
        assert left.stdout.rindex("\x1b[?25h") > left.stdout.rindex("\x1b[?25l")
        assert run.poll() is None, "the run goes on"
        elsewhere = start("status", "--watch", "--lib-root", lib_root)
        assert elsewhere.stdout is not None
        line = elsewhere.stdout.readline()
        assert line.startswith("Run 1: 0 of 2 albums done, ")
        assert " of 200 photos exported" in line
        with Terminal("status", "--watch", "--lib-root", lib_root, columns=100) as second:
            second.read_until("Run 1: running")
            run.send_signal(signal.SIGINT)
            seen = second.read_to_the_end()
        assert seen.code == 0
        assert "Run 1: interrupted" in seen.stdout
        assert seen.stdout.rindex("Run 1: interrupted") > seen.stdout.rindex("\x1b[?25h"), "the report stays"
        plain = ended(elsewhere)
        assert plain.code == 0
        assert "Run 1: interrupted" in plain.stdout
        assert "\x1b" not in plain.stdout
        assert ended(run).code == 130
    finally:
        if run.poll() is None:
            run.kill()
            run.communicate()


def test_watching_where_nobody_works_is_a_report(library: Path, lib_root: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    plain = skicyclerun("status", "--lib-root", lib_root)
    watched = skicyclerun("status", "--watch", "--lib-root", lib_root)
    assert (watched.code, watched.stdout) == (plain.code, plain.stdout)
    assert watched.stderr == "No run is at work. This is how the last one stands:\n"
    refused = skicyclerun("status", "--watch", "--json", "--lib-root", lib_root)
    assert refused.code == 2
    assert "--watch is for people" in refused.stderr
    assert skicyclerun("status", "--watch", "--lib-root", lib_root / "nowhere").code == 10


# ── notifications ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for both commands at the head of PATH, which write down how they are called; the file they write."""
    folder, said = tmp_path / "desktop", tmp_path / "said"
    folder.mkdir()
    for name in ("notify-send", "osascript"):
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport json, sys\nopen({str(said)!r}, 'a').write(json.dumps(sys.argv) + '\\n')\n"
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return said


def calls(said: Path) -> list[list[str]]:
    return [json.loads(line) for line in said.read_text().splitlines()] if said.exists() else []


def test_the_end_of_a_run_is_said_on_the_desktop(library: Path, lib_root: Path, desktop: Path) -> None:
    assert skicyclerun("run", "--notify", "--library", library, "--lib-root", lib_root).code == 0
    (library / "Coast" / "IMG_9.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert skicyclerun("run", "--update", "--notify", "--library", library, "--lib-root", lib_root).code == 3
    assert skicyclerun("retry-failed", "--notify", "--lib-root", lib_root).code == 3
    assert skicyclerun("run", "--notify", "--library", library.parent / "none", "--lib-root", lib_root).code != 0
    texts = [call[-1] for call in calls(desktop)]
    assert texts[0] == "Run 1: everything is accounted for (exit code 0), 3 photos exported."
    assert texts[1] == "Run 2: finished, with failures (exit code 3), 3 photos exported, 1 not."
    assert texts[2].startswith("Run 2: finished, with failures")


def test_a_run_that_fails_at_once_is_said_on_the_desktop_too(library: Path, lib_root: Path, desktop: Path) -> None:
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    refused = skicyclerun("run", "--notify", "--library", library, "--lib-root", lib_root)
    assert refused.code != 0, "nobody has said yes to emptying folders"
    ((*_, text),) = calls(desktop)
    assert text.startswith("This run would empty folders, and nobody has said yes to that.")
    assert text[:80] in refused.stderr


@pytest.mark.parametrize("arguments", [[], ["--notify", "--dry-run"]])
def test_nothing_is_said_on_the_desktop_unasked(
    library: Path, lib_root: Path, desktop: Path, arguments: list[str]
) -> None:
    assert skicyclerun("run", *arguments, "--library", library, "--lib-root", lib_root).code == 0
    assert calls(desktop) == []


def test_texts_are_arguments_and_never_part_of_a_script(desktop: Path) -> None:
    hostile = 'x" with title "y\n<b>&--icon=/etc/passwd'
    assert notify("-e", hostile, platform="darwin") == ""
    assert notify("--help", hostile, platform="linux") == ""
    mac, linux = calls(desktop)
    script = [word for before, word in itertools.pairwise(mac) if before == "-e"]
    assert not any('with title "y' in word for word in script[:3])
    assert mac[-1].startswith('x" with title "y')
    assert "\n" not in mac[-1]
    assert linux[2] == "--"
    assert "&lt;b&gt;&amp;" in linux[-1]


def test_where_no_notification_can_be_shown_a_word_says_so_and_the_run_ends_as_it_does(
    library: Path, lib_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    done = skicyclerun("run", "--notify", "--library", library, "--lib-root", lib_root)
    assert done.code == 0
    assert "No notification is shown: this system has no `" in done.stderr
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    for platform in ("darwin", "linux"):
        assert "could not show it here" in notify("a", "b", platform=platform, which=lambda _: str(broken))


# ── completion ────────────────────────────────────────────────────────────────────────────────────────────────────


def completed(shell: str, *words: str) -> list[str]:
    """What the program answers a shell that asks how the last word may go on."""
    asked = {"_SKICYCLERUN_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(("skicyclerun", *words))}
    asked["COMP_CWORD"] = str(len(words)) if shell != "fish" else words[-1]
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "skicyclerun"],
        env=environment(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert "Traceback" not in answer.stderr
    if words[-1:] != ("--",) and len(words) == 1:
        assert "skicyclerun.commands.run\n" not in answer.stderr, "a tab imports no command"
    return answer.stdout.splitlines()


def test_commands_and_options_are_completed() -> None:
    assert completed("bash", "re") == [f"plain,{name}" for name in COMMANDS if name.startswith("re")]
    assert len(completed("bash", "")) == len(COMMANDS)
    assert "plain,--resume" in completed("bash", "run", "--re")
    assert "plain,--version" in completed("bash", "--v")
    assert completed("bash", "completion", "f") == ["plain,fish"]
    zsh = completed("zsh", "sta")
    assert zsh[:3] == ["plain", "status", "Report on the last run, album by album."]
    assert any("status" in line for line in completed("fish", "sta"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_is_printed_is_what_the_shell_understands(shell: str) -> None:
    said = skicyclerun("completion", shell)
    assert said.code == 0
    assert f"_SKICYCLERUN_COMPLETE={shell}_complete" in said.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=said.stdout, text=True, check=True, timeout=60)


def test_a_shell_without_completion_is_refused() -> None:
    assert skicyclerun("completion", "tcsh").code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_a_command_by_what_is_printed(tmp_path: Path) -> None:
    program = tmp_path / "skicyclerun"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m skicyclerun "$@"\n')
    program.chmod(0o755)
    script = skicyclerun("completion", "bash").stdout + (
        '\nCOMP_WORDS=(skicyclerun verif)\nCOMP_CWORD=1\n_skicyclerun_completion skicyclerun\necho "${COMPREPLY[@]}"\n'
    )
    answer = subprocess.run(
        ["bash", "-c", script],
        env=environment({"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert answer.stdout == "verify\n"
