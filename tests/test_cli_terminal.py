"""The program at a terminal of its own: questions, the live display, and what goes where."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from skicyclerun.errors import SourceStopped
from skicyclerun.models import Photo
from tests.command_line import (
    YES,
    Terminal,
    ToldSource,
    exported,
    make_library,
    make_slow_library,
    run_with,
    skicyclerun,
    skicyclerun_process,
    status_of,
)
from tests.shared_libraries import tree_state

pytestmark = pytest.mark.long

ALBUMS = {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Coast": ["IMG_3.jpg"]}
COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", ALBUMS)


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


# ── the confirmation ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("earlier_results", [False, True])
def test_a_confirmation_that_is_refused_touches_nothing_at_all(
    library: Path, lib_root: Path, tmp_path: Path, earlier_results: bool
) -> None:
    if earlier_results:
        skicyclerun("run", "--library", library, "--lib-root", lib_root)
    before = tree_state(tmp_path)
    with Terminal("run", "--library", library, "--lib-root", lib_root) as terminal:
        terminal.read_until("Start?")
        assert "2 albums with 3 photos" in terminal.shown
        assert str(library) in terminal.shown
        assert str(lib_root / "pipeline" / "albums") in terminal.shown
        assert ("then empty these folders" in terminal.shown) == earlier_results
        terminal.read_until("[y/N]" if earlier_results else "[Y/n]")
        assert "\x1b" not in terminal.shown  # no display that wipes the question away
        terminal.type("n\n")
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    assert "Cancelled. Nothing was touched." in ended.stdout
    assert tree_state(tmp_path) == before


def test_ctrl_c_at_the_question_ends_the_program_and_touches_nothing(
    library: Path, lib_root: Path, tmp_path: Path
) -> None:
    before = tree_state(tmp_path)
    with Terminal("run", "--library", library, "--lib-root", lib_root) as terminal:
        terminal.read_until("Start? [Y/n]: ")
        ended = terminal.press_ctrl_c()
    assert ended.code == 130
    assert "Nothing was touched" in ended.stdout
    assert tree_state(tmp_path) == before


def test_the_end_of_input_at_the_question_is_no_yes(library: Path, lib_root: Path, tmp_path: Path) -> None:
    before = tree_state(tmp_path)
    with Terminal("run", "--library", library, "--lib-root", lib_root) as terminal:
        terminal.read_until("Start?")
        terminal.type("\x04")
        ended = terminal.read_to_the_end()
    assert ended.code == 130
    assert tree_state(tmp_path) == before


def test_a_yes_starts_the_run(library: Path, lib_root: Path) -> None:
    with Terminal("run", "--library", library, "--lib-root", lib_root) as terminal:
        terminal.read_until("Start?")
        terminal.type("y\n")
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    assert "2 of 2 albums done." in ended.stdout
    assert ended.stdout.count("Nothing to archive") == 1, "the summary says it, the progress does not again"
    assert len(exported(lib_root)) == 3


def test_yes_is_not_asked(library: Path, lib_root: Path) -> None:
    with Terminal("run", "--yes", "--library", library, "--lib-root", lib_root) as terminal:
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    assert "Start?" not in ended.stdout
    assert len(exported(lib_root)) == 3


# ── an unfinished run ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def unfinished(library: Path, lib_root: Path) -> Path:
    """A lib_root whose last run was cut short at its third photo."""

    async def before(photo: Photo) -> None:
        if photo.original_filename == "IMG_3.jpg":
            raise SourceStopped("The source was unplugged.")

    with pytest.raises(SourceStopped):
        run_with(ToldSource(library, before), lib_root)
    return lib_root


@pytest.mark.parametrize(
    ("answers", "run_id", "status"),
    [(["resume", "y"], 1, "finished"), (["", "y"], 1, "finished"), (["fresh", "y"], 2, "finished")],
)
def test_an_unfinished_run_is_asked_about(
    library: Path, unfinished: Path, answers: list[str], run_id: int, status: str
) -> None:
    with Terminal("run", "--library", library, "--lib-root", unfinished) as terminal:
        terminal.read_until("or cancel?")
        assert "Run 1 is unfinished: 1 album still to do." in terminal.shown
        terminal.type(answers[0] + "\n")
        terminal.read_until("Start?")
        terminal.type(answers[1] + "\n")
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    report = status_of(unfinished)
    assert (report["run"]["id"], report["run"]["status"]) == (run_id, status)
    assert len(exported(unfinished)) == 3


@pytest.mark.parametrize("answers", [["cancel"], ["fresh", "n"], ["resume", "n"]])
def test_an_unfinished_run_is_kept_when_the_person_cancels(
    library: Path, unfinished: Path, tmp_path: Path, answers: list[str]
) -> None:
    before = tree_state(tmp_path)
    with Terminal("run", "--library", library, "--lib-root", unfinished) as terminal:
        for question, answer in zip(("or cancel?", "Start?"), answers, strict=False):
            terminal.read_until(question)
            terminal.type(answer + "\n")
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    assert "Cancelled." in ended.stdout
    assert tree_state(tmp_path) == before


# ── what is shown, and where ──────────────────────────────────────────────────────────────────────────────────────


def test_at_a_terminal_the_progress_is_live(tmp_path: Path, lib_root: Path) -> None:
    library = make_slow_library(tmp_path / "library", albums=1, photos=12)
    with Terminal("run", "--yes", "--library", library, "--lib-root", lib_root) as terminal:
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    assert "Album 1 of 1" in ended.stdout
    assert re.search(r"photo \d+ of 12", ended.stdout)
    assert "PROGRESS:" not in ended.stdout
    assert COLOUR.search(ended.stdout)
    assert ended.stdout.count("\x1b[?25l") == ended.stdout.count("\x1b[?25h") > 0  # the cursor comes back


def test_stages_at_work_have_a_line_each_and_the_end_tells_of_them(library: Path, lib_root: Path) -> None:
    stages = "metadata_extraction,preprocessing"
    skicyclerun("run", "--library", library, "--lib-root", lib_root)
    with Terminal("run", "--yes", "--stages", stages, "--lib-root", lib_root, columns=100) as terminal:
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", ended.stdout)
    for stage in stages.split(","):
        assert f"done  {stage}  album 1 of 2  Alps: 2 made" in shown
        assert re.search(rf"^\s*{stage} +(album \d of 2  (Alps|Coast)|done: 2 albums)", shown, re.MULTILINE)
        assert f"{stage} finished: 3 made, 0 failed" in shown
    assert "photos exported in" not in shown, "there was no export to tell of"
    assert ended.stdout.count("\x1b[?25l") == ended.stdout.count("\x1b[?25h") > 0


def test_elsewhere_stages_are_named_in_plain_lines(library: Path, lib_root: Path) -> None:
    given = ("run", "--library", library, "--lib-root", lib_root)
    done = skicyclerun_process(*given, "--stages", "export,preprocessing")
    lines = done.stderr.splitlines()
    assert "PROGRESS: album_1_of_2 | photo_2_of_2" in lines
    assert "PROGRESS: preprocessing | album_1_of_2 | photo_2_of_2" in lines
    assert any(line.startswith("STAGE: preprocessing | album_2_of_2 | done | Coast | 1 made | ") for line in lines)
    assert "STAGE: preprocessing | finished | 3 made, 0 failed" in lines
    assert any(line.startswith("RUN: 2 albums done, 0 failed, 0 pending | 3 photos exported") for line in lines)
    again = skicyclerun_process("run", "--lib-root", lib_root, "--stages", "preprocessing")
    lines = again.stderr.splitlines()
    assert any(line.startswith("STAGE: preprocessing | album_1_of_2 | done | Alps | 0 made, 2 up to") for line in lines)
    assert "STAGE: preprocessing | finished | 0 made, 0 failed, 3 up to date" in lines
    assert not any(line.startswith("RUN:") for line in lines)
    as_json = skicyclerun_process("run", "--lib-root", lib_root, "--stages", "preprocessing", "--json").lines
    (ended,) = [event for event in as_json if event["event"] == "run_finished"]
    assert [(stage["name"], stage["up_to_date"]) for stage in ended["stages"]] == [("preprocessing", 3)]
    finished = [event for event in as_json if event["event"] == "stage_finished"]
    assert finished == [{"event": "stage_finished", "stage": "preprocessing", "complete": True}]


def test_no_color_is_honoured(library: Path, lib_root: Path) -> None:
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"")
    extra = {"NO_COLOR": "1"}
    with Terminal("run", "--yes", "--library", library, "--lib-root", lib_root, extra=extra) as terminal:
        ended = terminal.read_to_the_end()
    assert ended.code == 3
    colours = re.findall(r"\x1b\[([0-9;]*)m", ended.stdout)
    assert not [code for code in colours if any(part not in ("", "0", "1", "2") for part in code.split(";"))]


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(library: Path, lib_root: Path) -> None:
    with Terminal("run", "--yes", "--library", library, "--lib-root", lib_root, extra={"TERM": "dumb"}) as terminal:
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    assert "PROGRESS: album_1_of_2 | photo_2_of_2" in ended.stdout
    assert "\x1b" not in ended.stdout


def test_ctrl_c_at_the_live_display_leaves_the_terminal_in_order(tmp_path: Path, lib_root: Path) -> None:
    library = make_slow_library(tmp_path / "library")
    with Terminal("run", "--yes", "--library", library, "--lib-root", lib_root) as terminal:
        terminal.read_until("photo 0 of 100")
        terminal.process.send_signal(signal.SIGINT)
        ended = terminal.read_to_the_end()
    assert ended.code == 130
    assert "Stopping after the photos in hand" in ended.stdout
    assert "skicyclerun run --resume" in ended.stdout
    assert ended.stdout.rindex("\x1b[?25h") > ended.stdout.rindex("\x1b[?25l")


def test_elsewhere_progress_is_plain_lines_on_stderr_and_stdout_is_data(library: Path, lib_root: Path) -> None:
    done = skicyclerun_process("run", "--library", library, "--lib-root", lib_root)
    assert done.code == 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("PROGRESS: ")]
    assert "PROGRESS: album_1_of_2 | photo_2_of_2" in lines
    assert "PROGRESS: album_2_of_2 | photo_1_of_1" in lines
    assert all(re.fullmatch(r"PROGRESS: album_\d+_of_\d+ \| photo_\d+_of_\d+", line) for line in lines)
    assert "PROGRESS" not in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    as_json = skicyclerun_process("run", *YES, "--library", library, "--lib-root", lib_root, "--json")
    assert as_json.lines[-1]["event"] == "report"
    assert as_json.stderr == ""
