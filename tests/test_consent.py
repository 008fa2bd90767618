"""Nothing is archived and emptied without a yes: at a terminal, away from one, in a program, and after a stop."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from skicyclerun import PhotoExporter
from skicyclerun.actors.messages import Intent
from skicyclerun.errors import EmptyingNotAgreed
from skicyclerun.progress.events import Notice
from skicyclerun.run.plan import RunRequest
from skicyclerun.run.session import RunSession
from tests.command_line import (
    YES,
    Terminal,
    Watching,
    exported,
    make_library,
    settings_for,
    skicyclerun,
    status_of,
)
from tests.fork_server import ForkServer, fork_server
from tests.shared_libraries import tree_state

FOLDERS = ("pipeline", "metadata", "archive", "state")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Coast": ["IMG_3.jpg"]})


@pytest.fixture
def lib_root(tmp_path: Path, library: Path) -> Path:
    """One that holds the outputs of a run, which needed no yes: there was nothing to be emptied."""
    root = tmp_path / "lib_root"
    assert skicyclerun("run", "--library", library, "--lib-root", root).code == 0
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Runs that are killed."""
    with fork_server(tmp_path_factory.mktemp("server")) as started:
        yield started


def outputs(lib_root: Path) -> list[object]:
    """All that a run could touch; its log file is not among it."""
    return [tree_state(lib_root / name) for name in FOLDERS]


def archives(lib_root: Path) -> list[Path]:
    return sorted((lib_root / "archive").glob("*.zip"))


# ── away from a terminal ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--stages", "export"),
        ("--stages", "cleanup,export"),
        ("--fresh",),
        ("--json",),
        ("--stages", "cleanup", "--force-clean"),
    ],
)
def test_away_from_a_terminal_a_run_that_would_empty_folders_stops_and_says_what_it_would_do(
    library: Path, lib_root: Path, options: tuple[str, ...]
) -> None:
    before = outputs(lib_root)
    refused = skicyclerun("run", "--library", library, "--lib-root", lib_root, *options)
    assert refused.code == 2
    assert outputs(lib_root) == before
    said = refused.stderr
    assert "Nothing was touched" in said
    albums, metadata = lib_root / "pipeline" / "albums", lib_root / "metadata"
    assert re.search(rf"^    {re.escape(str(albums))}: 3 files, [\d.]+ (bytes|kB)$", said, re.MULTILINE)
    assert re.search(rf"^    {re.escape(str(metadata))}: 1 file, [\d.]+ (bytes|kB)$", said, re.MULTILINE)
    assert f"Archive 4 files ({said.split('Archive 4 files (')[1].split(')')[0]}) of albums, metadata in" in said
    assert str(lib_root / "archive") in said
    typed = " ".join(("skicyclerun run --library", str(library), "--lib-root", str(lib_root), *options, "--yes"))
    assert f"`{typed}`" in said, "what to type is what was typed, and the yes"
    names_cleanup = "cleanup" in " ".join(options)
    assert ("`--no-cleanup`" in said) != names_cleanup, "it would contradict a cleanup that was typed"


def test_what_it_says_is_to_be_typed_does_it(library: Path, lib_root: Path) -> None:
    old = exported(lib_root)
    refused = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert refused.code == 2
    command = refused.stderr.partition("`skicyclerun ")[2].partition("`")[0].split()
    assert skicyclerun(*command).code == 0
    (archive,) = archives(lib_root)
    assert exported(lib_root) == old
    for option in ("--no-cleanup", "--update"):
        assert option in refused.stderr
        assert skicyclerun("run", "--library", library, "--lib-root", lib_root, option).code == 0
    assert archives(lib_root) == [archive]


@pytest.mark.parametrize(
    "options",
    [
        ("--no-cleanup",),
        ("--update",),
        ("--stages", "cleanup"),
        ("--stages", "preprocessing"),
        ("--dry-run",),
        ("--config", "{config}"),
    ],
)
def test_a_run_that_empties_nothing_goes_on_without_a_yes(
    library: Path, lib_root: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"cleanup": {"archive_old_outputs": false}}')
    old = exported(lib_root)
    given = [option.format(config=config) for option in options]
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root, *given).code == 0
    assert exported(lib_root).keys() == old.keys()


def test_folders_that_hold_nothing_need_no_yes(library: Path, lib_root: Path) -> None:
    for name in ("pipeline", "metadata"):
        shutil.rmtree(lib_root / name)
        (lib_root / name).mkdir()
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root).code == 0


def test_a_yes_does_not_decide_what_becomes_of_an_unfinished_run(
    server: ForkServer, library: Path, lib_root: Path
) -> None:
    code, _ = server.run("run", "--lib-root", lib_root, "--library", library, *YES, fault="group.committed")
    assert code == -9
    before = outputs(lib_root)[:3]
    refused = skicyclerun("run", "--library", library, "--lib-root", lib_root, *YES)
    assert refused.code == 2
    assert "run --resume" in refused.stderr
    assert outputs(lib_root)[:3] == before


# ── an update ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_update_is_itself_the_yes_to_what_has_left_going_into_a_proved_archive(
    library: Path, lib_root: Path
) -> None:
    (library / "Alps" / "IMG_2.jpg").unlink()
    done = skicyclerun("run", "--update", "--library", library, "--lib-root", lib_root)
    assert done.code == 0
    assert sorted(exported(lib_root)) == ["Alps/IMG_1.jpg", "Coast/IMG_3.jpg"]
    (archive,) = archives(lib_root)
    assert f"1 file is no longer asked for by any album; it is in {archive.name}" in done.stderr
    assert skicyclerun("archive", "verify", archive.name, "--lib-root", lib_root).code == 0


# ── at a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", ["", "n"])
def test_at_a_terminal_no_is_the_answer_to_a_question_that_empties_something(
    library: Path, lib_root: Path, answer: str
) -> None:
    before = outputs(lib_root), tree_state(lib_root / "logs")
    with Terminal("run", "--library", library, "--lib-root", lib_root) as terminal:
        terminal.read_until("Start? [y/N]: ")
        assert "then empty these folders" in terminal.shown
        assert f"{lib_root / 'pipeline' / 'albums'}: 3 files, " in terminal.shown
        terminal.type(f"{answer}\n")
        ended = terminal.read_to_the_end()
    assert ended.code == 0
    assert "Cancelled. Nothing was touched." in ended.stdout
    assert (outputs(lib_root), tree_state(lib_root / "logs")) == before


def test_at_a_terminal_a_yes_empties(library: Path, lib_root: Path) -> None:
    with Terminal("run", "--library", library, "--lib-root", lib_root) as terminal:
        terminal.read_until("Start? [y/N]: ")
        terminal.type("y\n")
        assert terminal.read_to_the_end().code == 0
    assert len(archives(lib_root)) == 1


# ── a run that was stopped ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["run.created", "archive.job_created", "archive.committed", "clean.committed"])
def test_a_run_that_was_agreed_to_and_stopped_needs_no_second_yes(
    server: ForkServer, library: Path, lib_root: Path, fault: str
) -> None:
    old = exported(lib_root)
    code, _ = server.run("run", "--lib-root", lib_root, "--library", library, *YES, fault=fault)
    assert code == -9
    assert skicyclerun("run", "--resume", "--lib-root", lib_root).code == 0
    assert exported(lib_root) == old
    assert len(archives(lib_root)) == 1


@pytest.mark.parametrize("fault", ["run.created", "archive.job_created"])
def test_a_run_that_had_nothing_to_empty_asks_when_it_is_resumed_and_there_is_something(
    server: ForkServer, library: Path, lib_root: Path, tmp_path: Path, fault: str
) -> None:
    root = tmp_path / "another"
    code, _ = server.run("run", "--lib-root", root, "--library", library, fault=fault)
    assert code == -9
    theirs = root / "pipeline" / "albums" / "Alps" / "theirs.jpg"
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_bytes(b"put there meanwhile")
    refused = skicyclerun("run", "--resume", "--lib-root", root)
    assert refused.code == 2
    assert f"`skicyclerun run --resume --lib-root {root} --yes`" in refused.stderr
    assert theirs.exists()
    assert skicyclerun("run", "--resume", "--lib-root", root, *YES).code == 0
    assert not theirs.exists()
    assert len(archives(root)) == 1
    assert len(exported(root)) == 3


def test_what_is_put_there_between_the_question_and_the_cleanup_is_not_emptied(library: Path, tmp_path: Path) -> None:
    """The plan was made while there was nothing to be emptied; the archiver looks again."""
    root = tmp_path / "another"
    theirs = root / "pipeline" / "albums" / "theirs.jpg"

    def confirm(plan: object) -> bool:
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(b"just now")
        return True

    request = RunRequest(Intent.FRESH, settings_for(root, library))
    with Watching() as renderer, pytest.raises(EmptyingNotAgreed):
        anyio.run(RunSession(request, renderer=renderer, confirm=confirm).carry_out)
    assert theirs.read_bytes() == b"just now"
    assert not [event for event in renderer.events if isinstance(event, Notice) and event.level == "error"]
    assert status_of(root)["run"]["status"] == "interrupted"
    assert skicyclerun("run", "--resume", "--lib-root", root).code == 2
    assert skicyclerun("run", "--resume", "--lib-root", root, *YES).code == 0
    assert "theirs.jpg" not in exported(root)
    assert len(archives(root)) == 1


@pytest.mark.parametrize("options", [("--update",), ("--no-cleanup",), ("--stages", "preprocessing")])
def test_a_cleanup_that_was_stopped_is_not_finished_by_a_run_that_empties_nothing(
    server: ForkServer, library: Path, lib_root: Path, options: tuple[str, ...]
) -> None:
    old = exported(lib_root)
    cleanup = ("run", "--stages", "cleanup", "--force-clean", "--lib-root", lib_root, *YES)
    code, _ = server.run(*cleanup, fault="archive.committed")
    assert code == -9
    assert skicyclerun("run", *options, "--library", library, "--lib-root", lib_root).code == 0
    assert exported(lib_root) == old
    (archive,) = archives(lib_root)
    assert skicyclerun("archive", "verify", archive.name, "--lib-root", lib_root).code == 0
    assert skicyclerun("verify", "--lib-root", lib_root).code == 0
    assert skicyclerun(*cleanup).code == 0
    assert exported(lib_root) == {}


# ── in a program, and in the demo ─────────────────────────────────────────────────────────────────────────────────


def test_a_program_says_yes_too(library: Path, lib_root: Path) -> None:
    exporter = PhotoExporter(lib_root=lib_root, library=library)
    before = outputs(lib_root)
    with pytest.raises(EmptyingNotAgreed) as refused:
        exporter.export_albums()
    assert outputs(lib_root) == before
    assert "yes=True" in refused.value.next_step
    assert any(str(lib_root / "pipeline" / "albums") in folder for folder in refused.value.folders)
    assert exporter.export_albums(cleanup=False).accounted_for
    assert exporter.export_albums(update=True).accounted_for
    assert archives(lib_root) == []
    assert exporter.export_albums(yes=True).accounted_for
    assert len(archives(lib_root)) == 1


def test_a_demo_puts_away_nothing_that_no_demo_has_made(tmp_path: Path, library: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    make_library(folder / "library", {"Mine": ["IMG_1.jpg"]})
    assert skicyclerun("run", "--library", library, "--lib-root", folder / "results").code == 0
    before = outputs(folder / "results")
    refused = skicyclerun("demo", "--to", folder)
    assert refused.code == 2
    assert "--to" in refused.stderr
    assert outputs(folder / "results") == before
