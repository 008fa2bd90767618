from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from skicyclerun.run.log_file import open_run_log

CHECKOUT = Path(__file__).resolve().parents[1]
OWN = logging.getLogger("skicyclerun.actors.exporter")
OTHER = logging.getLogger("some_package.module")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "pipeline_20260304_050607.log"


@pytest.fixture(autouse=True)
def logging_is_left_as_it_was() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("skicyclerun")
    before = (root.handlers[:], root.level, own.level, warnings.showwarning)
    yield
    assert (root.handlers[:], root.level, own.level, warnings.showwarning) == before


def test_our_records_are_kept_from_the_level_on_and_others_from_warnings_on(path: Path) -> None:
    OTHER.setLevel(logging.DEBUG)
    try:
        with open_run_log(path, "info") as log:
            OWN.debug("too small")
            OWN.info("photo %s exported", "IMG_1")
            OTHER.info("chatter")
            OTHER.warning("of interest")
    finally:
        OTHER.setLevel(logging.NOTSET)

    assert (log.path, log.problem, log.lost) == (path, "", 0)
    lines = path.read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "INFO skicyclerun.actors.exporter: photo IMG_1 exported",
        "WARNING some_package.module: of interest",
    ]
    assert all(line[10] == "T" and line[23] == "Z" for line in lines)


def test_debug_shows_our_details_and_not_those_of_others(path: Path) -> None:
    with open_run_log(path, logging.DEBUG):
        OWN.debug("a detail")
        OTHER.debug("another")

    assert path.read_text().count("\n") == 1


def test_a_name_cannot_forge_a_record(path: Path) -> None:
    with open_run_log(path):
        OWN.info("album %s", "A\n2026-01-01T00:00:00.000Z ERROR skicyclerun: forged\r\x1b[2J\u2028\u202e")

    (line,) = path.read_text().splitlines()
    assert r"A\n2026" in line
    assert r"forged\r\x1b[2J\u2028\u202e" in line


def test_a_traceback_goes_to_the_log_marked_line_by_line(path: Path) -> None:
    with open_run_log(path):
        try:
            raise ValueError("bad name: A\n2026-01-01T00:00:00.000Z ERROR skicyclerun: forged")
        except ValueError:
            OWN.exception("could not export")

    first, *rest = path.read_text().splitlines()
    assert first.endswith("could not export")
    assert len(rest) >= 4
    assert all(line.startswith("    | ") for line in rest)
    assert "ValueError: bad name" in path.read_text()


def test_names_that_are_not_unicode_are_escaped(path: Path) -> None:
    with open_run_log(path) as log:
        OWN.info("file %s", "caf\udce9 😀")

    assert r"caf\udce9 😀" in path.read_text("utf-8")
    assert log.lost == 0


def test_warnings_go_to_the_log(path: Path) -> None:
    with open_run_log(path), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("something is old", stacklevel=1)

    assert "something is old" in path.read_text()


def test_a_log_is_appended_to_and_only_its_owner_reads_it(path: Path) -> None:
    for text in ("one", "two"):
        with open_run_log(path):
            OWN.info(text)

    assert len(path.read_text().splitlines()) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_closing_twice_is_harmless(path: Path) -> None:
    log = open_run_log(path)
    log.close()
    log.close()
    OWN.info("to nobody")

    assert path.read_text() == ""


def test_a_level_that_is_none_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="'loud'"):
        open_run_log(path, "loud")
    assert not path.exists()


def test_a_log_that_cannot_be_opened_is_a_sentence_and_not_an_error(path: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in the place of the folder")

    with open_run_log(path) as log:
        OWN.error("to nobody")

    assert log.path is None
    assert str(path) in log.problem


def test_a_link_or_a_pipe_in_the_place_of_the_log_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    target = tmp_path / "precious"
    target.write_text("kept")
    path.symlink_to(target)
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)

    for place in (path, pipe):
        with open_run_log(place) as log:
            OWN.error("to nobody")
        assert log.problem
    assert target.read_text() == "kept"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_costs_records_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with open_run_log(Path("/dev/full")) as log:
        OWN.info("lost")
    assert log.lost > 0
    assert capfd.readouterr().err == ""


_SCRIPT = """
import logging, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from skicyclerun.run.log_file import open_run_log
with open_run_log(Path(sys.argv[2])):
    talkative = logging.getLogger("osxphotos")
    talkative.addHandler(logging.StreamHandler())
    talkative.setLevel(logging.DEBUG)
    talkative.warning("seen")
    talkative.debug("unseen")
    logging.getLogger("skicyclerun").error("seen")
    logging.getLogger().error("seen")
"""


@pytest.mark.parametrize("writable", [True, False])
def test_nothing_of_the_log_reaches_stderr(path: Path, tmp_path: Path, writable: bool) -> None:
    if not writable:
        path = Path("/proc/none/x.log")

    process = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(CHECKOUT), str(path)], capture_output=True, text=True, check=False
    )

    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    if writable:
        assert path.read_text().count("seen") == 3
        assert "unseen" not in path.read_text()
