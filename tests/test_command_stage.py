"""Commands of one's own as stages, by the real command line: what they are given, how they fail, how they are ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import PATIENCE, ended, picture, start
from tests.staged_sample import Staged

COPY = 'cp "$1" "$2"'


@pytest.fixture
def sample(tmp_path: Path) -> Staged:
    made = Staged(tmp_path)
    made.picture("Alps/a.jpg", 10, date="2024:06:01 10:00:00")
    made.picture("Alps/b.jpg", 20)
    made.picture("Coast/c.jpg", 30)
    return made


ALL = ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]


def until(there: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid_file: Path) -> bool:
    """Whether the process whose number is in the file still runs, and does not just wait to be reaped."""
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ── what it is run for, and what becomes of its files ─────────────────────────────────────────────────────────────


def test_a_command_is_run_for_each_picture_and_its_files_are_catalogued(sample: Staged) -> None:
    sample.command("mine", COPY)
    assert sample.export("mine").code == 0
    assert sample.names("mine") == ALL
    entry = sample.entries["mine/Alps/a.jpg"]
    assert (entry["type"], entry["made_by"]["stage"], entry["width"], entry["height"]) == ("mine", "mine", 96, 72)
    assert entry["source_path"].endswith("albums/Alps/a.jpg")
    assert not list(sample.lib_root.rglob(".skicyclerun-*"))


def test_a_command_for_albums_is_run_once_for_each(sample: Staged) -> None:
    sample.command("mine", 'echo "$(basename "$1")" >> "${0%.sh}.ran"; cp "$1"/*.jpg "$2"/', per_album=True)
    assert sample.export("mine").code == 0
    assert sample.names("mine") == ALL
    assert (sample.folder / "mine.ran").read_text().split() == ["Alps", "Coast"]


def test_a_command_for_albums_that_makes_fewer_pictures_fails_those_alone(sample: Staged) -> None:
    sample.command("mine", 'cp "$1"/[bc].jpg "$2"/ 2> /dev/null; true', per_album=True)
    sample.export("mine")
    assert sample.pictures("mine") == {"Alps/a.jpg": "failed", "Alps/b.jpg": "done", "Coast/c.jpg": "done"}
    assert sample.reason("mine", "Alps/a.jpg") == "the command made no a.jpg for it"


def test_a_command_for_albums_that_fails_fails_all_its_pictures_with_the_reason(sample: Staged) -> None:
    sample.command("mine", 'case "$1" in */Alps) echo "no model" >&2; exit 4;; esac; cp "$1"/* "$2"/', per_album=True)
    sample.export("mine")
    assert sample.pictures("mine") == {"Alps/a.jpg": "failed", "Alps/b.jpg": "failed", "Coast/c.jpg": "done"}
    assert sample.reason("mine", "Alps/b.jpg") == "the command ended with 4, saying: no model"


def test_a_command_for_albums_whose_time_is_up_fails_its_pictures_and_the_next_album_goes_on(sample: Staged) -> None:
    script = 'case "$1" in */Alps) sleep 60;; esac; cp "$1"/* "$2"/'
    sample.command("mine", script, per_album=True, timeout_seconds=0.5)
    sample.export("mine")
    assert sample.pictures("mine") == {"Alps/a.jpg": "failed", "Alps/b.jpg": "failed", "Coast/c.jpg": "done"}
    assert "longer than 0.5 s" in sample.reason("mine", "Alps/a.jpg")


def test_a_command_takes_the_place_of_a_stage_and_the_next_one_marks_its_pictures(sample: Staged) -> None:
    sample.command("lora_processing", COPY, reads="preprocessing", extension=".webp")
    sample.configure(watermark={"symbol": "SKI"})
    stages = ("preprocessing", "lora_processing", "post_lora_watermarking")
    assert sample.export(*stages).code == 0
    styled = [name.replace(".jpg", ".webp") for name in ALL]
    assert sample.names("lora_processed") == styled
    assert sample.names("watermarked_final") == styled
    entry = sample.entries["watermarked_final/Alps/a.webp"]
    assert entry["source_path"].endswith("lora_processed/Alps/a.webp")
    assert entry["original_path"].endswith("albums/Alps/a.jpg")
    assert "SKI" in entry["watermark"]["text"]


def test_a_stage_of_ones_own_may_read_another_one(sample: Staged) -> None:
    sample.command("first", COPY)
    sample.command("second", COPY, reads="first")
    assert sample.export("second", "first").code == 0
    assert sample.names("first") == sample.names("second") == ALL


def test_another_version_and_another_command_make_all_again(sample: Staged) -> None:
    counting = f'{COPY}; echo x >> "${{0%.sh}}.ran"'
    sample.command("mine", counting)
    sample.export("mine")
    sample.run("--stages", "mine")
    assert len((sample.folder / "mine.ran").read_text().split()) == 3
    sample.command("mine", counting, version=2)
    sample.run("--stages", "mine")
    assert len((sample.folder / "mine.ran").read_text().split()) == 6
    sample.command("mine", counting, "another argument", version=2)
    sample.run("--stages", "mine")
    assert len((sample.folder / "mine.ran").read_text().split()) == 9


def test_no_shell_sees_the_arguments(sample: Staged) -> None:
    further = ["two words", ";", "$(touch pwned)", "`touch pwned`", "*", "$HOME", "a\nb", "--", '"']
    script = sample.folder / "arguments.py"
    script.write_text(
        "import json, pathlib, shutil, sys\n"
        "pathlib.Path(sys.argv[0]).with_suffix('.json').write_text(json.dumps(sys.argv[3:]))\n"
        "shutil.copy(sys.argv[1], sys.argv[2])\n"
    )
    command = [sys.executable, str(script), "{input}", "{output}", *further]
    sample.configure(stages={"mine": {"command": command}})
    assert sample.export("mine").code == 0
    assert sample.names("mine") == ALL
    assert json.loads(script.with_suffix(".json").read_text()) == further
    assert not list(sample.folder.rglob("pwned"))


def test_what_it_prints_is_in_the_log(sample: Staged) -> None:
    sample.command("mine", f"echo to standard output; echo to standard error >&2; {COPY}")
    sample.export("mine")
    assert "to standard output" in sample.log
    assert "to standard error" in sample.log


# ── how it fails ──────────────────────────────────────────────────────────────────────────────────────────────────

OUTPUTS = {
    "missing": ("true", "made no file"),
    "empty": (': > "$2"', "made an empty file"),
    "unreadable": ('echo "this is no picture" > "$2"', ""),
    "truncated": ('head -c 400 "$1" > "$2"', ""),
    "a link": ('ln -s "$1" "$2"', "made no file"),
    "a link to nothing": ('ln -s /nowhere "$2"', "made no file"),
    "a folder": ('mkdir "$2"', "made no file"),
    "elsewhere": ('cp "$1" "$(dirname "$0")/elsewhere.jpg"', "made no file"),
    "a failure": ('cp "$1" "$2"; echo first; echo "out of memory" >&2; exit 7', "ended with 7, saying: out of memory"),
    "killed": ("kill -9 $$", "was ended by signal 9"),
}


@pytest.mark.parametrize("how", OUTPUTS)
def test_a_command_that_makes_nothing_usable_fails_its_picture_alone_with_the_reason(sample: Staged, how: str) -> None:
    script, reason = OUTPUTS[how]
    sample.command("mine", f'case "$1" in *a.jpg) {script};; *) {COPY};; esac')
    sample.export("mine")
    assert sample.pictures("mine") == {"Alps/a.jpg": "failed", "Alps/b.jpg": "done", "Coast/c.jpg": "done"}
    assert reason in sample.reason("mine", "Alps/a.jpg")
    assert sample.reason("mine", "Alps/a.jpg")
    assert sample.names("mine") == ["Alps/b.jpg", "Coast/c.jpg"]
    assert not list(sample.lib_root.rglob(".skicyclerun-*"))


def test_a_command_that_is_not_there_is_said_before_any_picture(sample: Staged) -> None:
    sample.configure(stages={"mine": {"command": ["no-such-program", "{input}", "{output}"]}})
    refused = sample.export("mine")
    assert refused.code == 2
    assert "'no-such-program' cannot be found" in refused.stderr
    sample.command("mine", COPY)
    assert sample.run("--fresh", "--update", "--stages", "export,mine").code == 0


def test_a_file_that_is_no_picture_is_taken_as_it_is(sample: Staged) -> None:
    sample.command("mine", 'wc -c < "$1" > "$2"', extension=".txt")
    assert sample.export("mine").code == 0
    assert sample.names("mine") == [name.replace(".jpg", ".txt") for name in ALL]


def test_a_process_left_in_the_background_does_not_hold_the_picture_up(sample: Staged) -> None:
    pid = sample.folder / "pid"
    sample.command("mine", f'sleep 300 & echo $! > "{pid}"; {COPY}', timeout_seconds=PATIENCE)
    began = time.monotonic()
    assert sample.export("mine").code == 0
    assert time.monotonic() - began < PATIENCE
    until(lambda: not lives(pid))


def test_a_process_that_a_command_lets_go_for_good_does_not_hold_the_picture_up(sample: Staged) -> None:
    """It is in a session of its own and holds the command's output open; ending it is not our business."""
    pid = sample.folder / "pid"
    let_go = "import os, sys; os.setsid(); open(sys.argv[1], 'w').write(str(os.getpid())); os.system('sleep 300')"
    script = f'"{sys.executable}" -c "{let_go}" "{pid}" & while [ ! -s "{pid}" ]; do sleep 0.02; done; {COPY}'
    sample.command("mine", f'case "$1" in *a.jpg) {script};; *) {COPY};; esac', timeout_seconds=PATIENCE)
    began = time.monotonic()
    try:
        assert sample.export("mine").code == 0
        assert time.monotonic() - began < PATIENCE
    finally:
        os.killpg(int(pid.read_text()), signal.SIGKILL)


# ── how it is ended ───────────────────────────────────────────────────────────────────────────────────────────────


def grandchild(sample: Staged, more: str = "wait", **keys: object) -> tuple[Path, Path]:
    """A stage whose first picture starts a process of its own and waits; the files with the two numbers."""
    child, below = sample.folder / "child", sample.folder / "grandchild"
    script = f'sleep 300 & echo $! > "{below}.new"; echo $$ > "{child}"; mv "{below}.new" "{below}"; {more}'
    sample.command("mine", f'case "$1" in *b.jpg) {script};; esac; {COPY}', **keys)
    return child, below


def test_a_time_out_ends_the_command_and_all_it_has_started(sample: Staged) -> None:
    child, below = grandchild(sample, timeout_seconds=1)
    sample.export("mine")
    assert sample.pictures("mine") == {"Alps/a.jpg": "done", "Alps/b.jpg": "failed", "Coast/c.jpg": "done"}
    assert "longer than 1 s" in sample.reason("mine", "Alps/b.jpg")
    until(lambda: not lives(child) and not lives(below))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_command_and_all_it_has_started(sample: Staged, number: signal.Signals) -> None:
    child, below = grandchild(sample)
    process = start(*sample.arguments("--stages", "export,mine"))
    until(below.exists)
    process.send_signal(number)
    assert process.stderr is not None
    shown = ""
    while "Stopping after the photos in hand" not in shown:
        shown += process.stderr.readline()
    assert lives(child)
    process.send_signal(number)
    stopped = ended(process, shown)
    assert stopped.code == 128 + number
    until(lambda: not lives(child) and not lives(below))
    sample.command("mine", COPY)
    assert sample.newest_run() == "interrupted"
    assert not list(sample.lib_root.rglob(".skicyclerun-*"))


def test_a_second_signal_ends_a_command_for_an_album_too(sample: Staged) -> None:
    child = sample.folder / "child"
    sample.command("mine", f'echo $$ > "{child}.new"; mv "{child}.new" "{child}"; sleep 300', per_album=True)
    process = start(*sample.arguments("--stages", "export,mine"))
    until(child.exists)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    shown = ""
    while "Stopping after the photos in hand" not in shown:
        shown += process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert ended(process, shown).code == 128 + signal.SIGTERM
    until(lambda: not lives(child))


@pytest.fixture
def released(sample: Staged) -> Iterator[Path]:
    """What lets an orphan go on, at the latest at the end of the test."""
    path = sample.folder / "released"
    yield path
    path.touch()


def test_an_orphan_of_a_killed_run_does_not_write_into_the_pictures_of_the_resumed_one(
    sample: Staged, released: Path
) -> None:
    """The command outlives a kill -9 of the run, and writes its file when the resumed run has just made the same."""
    waiting, written = sample.folder / "waiting", sample.folder / "written"
    sample.command(
        "mine",
        f'if mkdir "{waiting}" 2> /dev/null; then\n'
        f'  while [ ! -e "{released}" ]; do sleep 0.02; done\n'
        f'  echo rubbish > "$2"; touch "{written}"; exit\n'
        "fi\n"
        f'{COPY}; touch "{released}"; while [ ! -e "{written}" ]; do sleep 0.02; done\n',
    )
    process = start(*sample.arguments("--stages", "export,mine"))
    until(waiting.exists)
    process.kill()
    assert ended(process).code == -signal.SIGKILL
    resumed = sample.run("--resume")
    assert written.exists()
    assert resumed.code == 0
    assert set(sample.pictures("mine").values()) == {"done"}
    for name in sample.names("mine"):
        with Image.open(sample.outputs("mine") / name) as made:
            made.load()
    assert not list(sample.lib_root.rglob(".skicyclerun-*"))


def test_the_exported_file_keeps_its_bytes_whatever_a_command_makes_of_its_output(sample: Staged) -> None:
    """One that only links the input has given us the exported file itself."""
    sample.command("mine", 'ln "$1" "$2"')
    sample.export("mine")
    before = {name: (sample.outputs("albums") / name).read_bytes() for name in sample.names("albums")}
    sample.command("mine", 'cp "$1" "$2"; printf more >> "$2"', version=2)
    sample.run("--stages", "mine")
    assert {name: (sample.outputs("albums") / name).read_bytes() for name in sample.names("albums")} == before


def test_pictures_with_one_stem_do_not_take_each_others_result_out_of_an_album(sample: Staged) -> None:
    """There is one name for two results: neither gets it, whichever the command has made."""
    (sample.library / "Alps" / "a.png").write_bytes(picture("a.png"))
    sample.configure(export={"source": "folder", "library": str(sample.library), "format": "original"})
    script = 'for each in "$1"/*; do name=$(basename "$each"); cp "$each" "$2/${name%.*}.jpg"; done'
    sample.command("mine", script, per_album=True, extension=".jpg")
    assert sample.export("mine").code == 3
    assert sample.pictures("mine") == {
        "Alps/a.jpg": "failed",
        "Alps/a.png": "failed",
        "Alps/b.jpg": "done",
        "Coast/c.jpg": "done",
    }
    assert "a.jpg, a.png differ in their extension only" in sample.reason("mine", "Alps/a.png")


def test_a_damaged_result_of_a_moved_picture_is_not_replaced_by_another_albums(sample: Staged) -> None:
    """The command for an album may have made more than it was asked for, also a picture of the same name."""
    sample.picture("Coast/a.jpg", 77)
    sample.command("mine", 'cp "$1"/*.jpg "$2"/', per_album=True)
    sample.export("mine")
    sample.picture("Alps/new.jpg", 55)
    sample.picture("Dune/a.jpg", 77)
    (sample.library / "Coast" / "a.jpg").unlink()
    damaged = sample.outputs("mine") / "Coast" / "a.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"odd")
    assert sample.update("mine").code == 0
    exported = sample.outputs("albums") / "Dune" / "a.jpg"
    assert (sample.outputs("mine") / "Dune" / "a.jpg").read_bytes() == exported.read_bytes()
