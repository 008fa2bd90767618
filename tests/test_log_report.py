"""The log file of a run as a report: what was asked and from where, every album, what failed, and how it ended."""

from __future__ import annotations

import ast
import json
import logging
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from skicyclerun import PhotoExporter, __version__
from skicyclerun.commands import exit_codes
from skicyclerun.errors import SourceStopped
from skicyclerun.models import Album, Photo, SourceKind
from skicyclerun.run.lock import RunLock
from skicyclerun.run.log_file import open_run_log
from skicyclerun.run.report import as_text, build_report
from skicyclerun.state import albums, runs
from skicyclerun.state.store import Store
from skicyclerun.wording import bytes_in_words
from tests.command_line import (
    YES,
    ToldSource,
    ended,
    exported,
    make_library,
    make_slow_library,
    picture,
    run_with,
    skicyclerun,
    start,
    status_of,
    wait_for,
    write_config,
)
from tests.staged_sample import Staged

SOURCES = Path(__file__).resolve().parents[1] / "skicyclerun"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Coast": ["IMG_3.jpg"]})


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "lib_root"


def logs(lib_root: Path) -> list[Path]:
    folder = lib_root / "logs"
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns) if folder.is_dir() else []


def messages(lib_root: Path) -> list[str]:
    """What the log files say, without times, levels and modules."""
    found = []
    for path in logs(lib_root):
        for line in path.read_text().splitlines():
            record = re.fullmatch(r"\S+Z [A-Z]+ [\w.]+: (.*)", line)
            found.append(record[1] if record else line)
    return found


def forget_logs(lib_root: Path) -> None:
    for path in logs(lib_root):
        path.unlink()


# ── a run ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_begins_with_what_was_asked_by_which_version_and_from_where(
    library: Path, lib_root: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, export={"jpeg_quality": 90})
    typed = [
        "run",
        "--library",
        str(library),
        "--lib-root",
        str(lib_root),
        "--config",
        str(config),
        "--album",
        "Al ps*",
    ]
    assert skicyclerun(*typed[:-2]).code == 0
    said = messages(lib_root)
    assert said[0] == f"asked: skicyclerun {' '.join(typed[:-2])}"
    assert said[1].startswith(f"version: skicyclerun {__version__}, Python 3.")
    assert said[2:7] == [
        "what: a fresh run",
        "stages: cleanup, export",
        f"source: folder, {library}",
        f"configuration: {config}",
        f"lib_root: {lib_root}",
    ]
    forget_logs(lib_root)
    skicyclerun(*typed, "--album", "Al ps*")
    assert messages(lib_root)[0].endswith("--album 'Al ps*'"), "as it could be typed again"


def test_it_has_the_counts_and_sizes_of_every_album_and_of_the_archive(library: Path, lib_root: Path) -> None:
    for _ in range(2):
        forget_logs(lib_root)
        assert skicyclerun("run", *YES, "--library", library, "--lib-root", lib_root).code == 0
    said = messages(lib_root)
    sizes = {name: len(data) for name, data in exported(lib_root).items()}
    for number, (title, names) in enumerate({"Alps": ["IMG_1", "IMG_2"], "Coast": ["IMG_3"]}.items(), start=1):
        size = bytes_in_words(sum(sizes[f"{title}/{name}.jpg"] for name in names))
        head = f"album {number} of 2, {title}: done, {len(names)} of {len(names)} photos exported ({size}), 0 failed, "
        (line,) = [line for line in said if line.startswith(f"album {number} of 2, ")]
        assert line.startswith(head)
        (row,) = [line for line in said if line.startswith(f"report: {title} ")]
        assert row.endswith(size)
    (archive,) = (lib_root / "archive").glob("*.zip")
    size = bytes_in_words(archive.stat().st_size)
    assert f"archived 4 files: {archive}, {size}, proved" in said
    assert any(line.startswith(f"report: Archive: {archive.name}, {size}, 4 files, proved ") for line in said)


def test_a_photo_that_failed_has_one_line_in_words(library: Path, lib_root: Path) -> None:
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"")
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root).code == 3
    said = messages(lib_root)
    before_the_report = [line for line in said if "IMG_2" in line and not line.startswith("report: ")]
    assert before_the_report == ["album Alps, photo IMG_2.jpg: failed: the file is empty"]
    assert "report:     failed    IMG_2.jpg: the file is empty" in said
    assert not [line for line in said if "Traceback" in line], "what was to be expected has no traceback"


def test_a_stage_has_its_albums_and_its_failed_pictures_too(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    for name in ("Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"):
        sample.picture(name)
    sample.command("mine", 'case "$1" in *b.jpg) echo "no ink"; exit 1;; esac; cp "$1" "$2"\n')
    assert sample.export("mine").code == 3
    said = messages(sample.lib_root)
    assert any(line.startswith("mine, album Alps: failed, 1 of 2 pictures (") and "1 failed" in line for line in said)
    assert any(line.startswith("mine, album Coast: done, 1 of 1 pictures (") and "1 made" in line for line in said)
    failed = [line for line in said if line.startswith("mine, album Alps, picture b.jpg: failed: ")]
    assert len(failed) == 1
    assert "no ink" in failed[0]
    script = tmp_path / "mine.sh"
    assert any(line.startswith(f"running /bin/sh {script} {sample.outputs('albums')}") for line in said)


def test_an_update_is_called_one_and_so_is_what_carries_on(library: Path, lib_root: Path) -> None:
    async def unplugged(photo: Photo) -> None:
        if photo.original_filename == "IMG_3.jpg":
            raise SourceStopped("The source was unplugged.")

    place = ("--lib-root", lib_root)
    with pytest.raises(SourceStopped):
        run_with(ToldSource(library, unplugged), lib_root, overrides={"export.mode": "update"})
    said = messages(lib_root)
    assert "what: an update" in said
    assert "asked: by a program (PhotoExporter)" in said
    assert "it ended early: The source was unplugged." in said
    assert any(line.startswith("report: Run 1 (update): interrupted") for line in said), "as far as it came"
    whats = {
        ("run", "--resume"): "carry on with run 1 (an update)",
        ("run", "--update", "--library", library): "an update",
        ("run", "--stages", "metadata_extraction"): "stages over what is exported",
        ("run", "--stages", "cleanup"): "a cleanup alone",
        ("run", "--library", library, *YES): "a fresh run",
    }
    for typed, what in whats.items():
        forget_logs(lib_root)
        assert skicyclerun(*typed, *place).code == 0
        assert f"what: {what}" in messages(lib_root)
        assert not [line for line in messages(lib_root) if line.startswith("fresh")]
    (library / "Coast" / "IMG_3.jpg").write_bytes(b"")
    skicyclerun("run", "--update", "--library", library, *place)
    forget_logs(lib_root)
    assert skicyclerun("retry-failed", *place).code == 3
    assert f"what: do again what failed in run {status_of(lib_root)['run']['id']} (an update)" in messages(lib_root)


# ── the last line ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_line_says_how_it_ended_and_how_long_it_took(library: Path, lib_root: Path) -> None:
    place = ("--library", library, "--lib-root", lib_root)
    assert skicyclerun("run", *place).code == 0
    last = r"ended: {} \(exit code {}\), after [\d.]+ s"
    assert re.fullmatch(last.format("everything is accounted for", 0), messages(lib_root)[-1])
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"")
    assert skicyclerun("run", *YES, *place).code == 3
    assert re.fullmatch(last.format("finished, with failures", 3), messages(lib_root)[-1])


def test_the_last_line_of_a_run_that_was_stopped_says_so(tmp_path: Path, lib_root: Path) -> None:
    slow = make_slow_library(tmp_path / "slow", albums=1)
    process = start("run", "--library", slow, "--lib-root", lib_root)
    read = wait_for(process, "PROGRESS: album_1_of_1 | photo_1_")
    process.send_signal(signal.SIGTERM)
    done = ended(process, read)
    assert done.code == 143
    assert done.stdout.splitlines()[-1] == f"Next: `skicyclerun run --resume --lib-root {lib_root}` carries on."
    assert "goes on with the stages" not in done.stderr, "not before it is complete"
    assert re.fullmatch(r"ended: stopped by SIGTERM \(exit code 143\), after .* s", messages(lib_root)[-1])


def test_the_last_line_of_a_run_that_ended_early_follows_the_reason(
    library: Path, lib_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skicyclerun.files.fault_points._ENOSPC", "catalog.written")
    monkeypatch.setattr("skicyclerun.files.fault_points._visits", {})
    full = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert full.code == 1
    said = messages(lib_root)
    reason = full.stderr.partition("Error: ")[2].splitlines()[0]
    assert any(line.startswith(f"it ended early: {reason}") for line in said)
    assert re.fullmatch(r"ended: a fatal error \(exit code 1\), after [\d.]+ s", said[-1])
    assert len(logs(lib_root)) == 1, "what the log of the run has needs no other"


def test_every_exit_code_has_its_words() -> None:
    codes = [value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)]
    for code in codes:
        assert exit_codes.in_words(code).endswith(f"(exit code {code})")
    assert "stopped by Ctrl-C" in exit_codes.in_words(130)


# ── a run that is refused ─────────────────────────────────────────────────────────────────────────────────────────


def refusal(lib_root: Path, code: int, *typed: str | Path) -> str:
    """The one log file of a command that is refused, where there was none before; and that it says what stderr says."""
    forget_logs(lib_root)
    refused = skicyclerun(*typed, "--lib-root", lib_root)
    assert refused.code == code
    assert len(logs(lib_root)) == 1
    said = messages(lib_root)
    assert said[0] == f"asked: skicyclerun {' '.join(map(str, typed))} --lib-root {lib_root}"
    assert said[-1].startswith("ended: ")
    assert f"(exit code {code})" in said[-1]
    told = [line.removeprefix("refused: ").strip() for line in said if line.startswith("refused: ")]
    shown = [line.removeprefix("Error: ").strip() for line in refused.stderr.splitlines()]
    assert told
    for line in told:
        assert line in shown
    return "\n".join(told)


@pytest.fixture
def begun(library: Path, lib_root: Path) -> Path:
    """A lib_root whose folder of logs is there."""
    assert skicyclerun("run", "--library", library, "--lib-root", lib_root).code == 0
    return lib_root


def test_a_run_without_a_yes_leaves_its_reason(library: Path, begun: Path) -> None:
    said = refusal(begun, 2, "run", "--library", library)
    assert "nobody has said yes" in said
    assert str(begun / "pipeline" / "albums") in said
    assert "--yes" in said


def test_a_run_beside_another_leaves_its_reason(library: Path, begun: Path) -> None:
    with RunLock(begun, begun / "state" / "run.lock"):
        assert "Another skicyclerun works in" in refusal(begun, 11, "run", "--library", library)
        assert "Another skicyclerun works in" in refusal(begun, 11, "retry-failed")


def test_an_unfinished_run_leaves_the_reason_of_the_next(library: Path, lib_root: Path) -> None:
    async def unplugged(photo: Photo) -> None:
        raise SourceStopped("The source was unplugged.")

    with pytest.raises(SourceStopped):
        run_with(ToldSource(library, unplugged), lib_root)
    assert "Run 1 is unfinished" in refusal(lib_root, 2, "run", "--library", library)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"export": {"jpeg_quality": "high"}}', "export.jpeg_quality"),
        ('{"export": ', "this is not JSON"),
        ('{"pipeline": {"stages": ["exprot"]}}', "Did you mean 'export'"),
    ],
)
def test_a_wrong_configuration_leaves_its_reason(library: Path, begun: Path, written: str, said: str) -> None:
    (begun / "config").mkdir()
    (begun / "config" / "pipeline_config.json").write_text(written)
    assert said in refusal(begun, 2, "run", "--library", library)


def test_a_wrong_configuration_leaves_its_reason_where_it_keeps_its_logs(
    library: Path, begun: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    elsewhere = str(tmp_path / "mine" / "{timestamp}.txt")
    config = write_config(tmp_path, logging={"file": elsewhere}, export={"jpeg_quality": 0})
    forget_logs(begun)
    assert skicyclerun("run", "--lib-root", begun, "--config", config).code == 2
    assert logs(begun) == []
    (log,) = (tmp_path / "mine").iterdir()
    assert "export.jpeg_quality" in log.read_text()


def test_nothing_is_written_where_a_configuration_keeps_its_logs_in_a_folder_that_is_emptied(
    begun: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, logging={"file": "{metadata_dir}/{timestamp}.log"}, export={"jpeg_quality": 0})
    before = sorted((begun / "metadata").iterdir())
    assert skicyclerun("run", "--lib-root", begun, "--config", config).code == 2
    assert sorted((begun / "metadata").iterdir()) == before


def test_a_missing_folder_leaves_its_reason(library: Path, begun: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, paths={"archive": str(tmp_path / "disk" / "archive")})
    assert "is not there" in refusal(begun, 1, "run", "--library", library, "--config", config)


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (("run", "--library", "{library}", "--album", "Alsp"), 2, "No album matches"),
        (("run", "--library", "{library}", "--stages", "exprot"), 2, "There is no stage"),
        (("run", "--library", "{library}/nowhere"), 1, "nowhere"),
        (("run", "--resume", "--update"), 2, "--resume carries on"),
    ],
)
def test_what_was_typed_wrongly_leaves_its_reason(
    library: Path, begun: Path, typed: tuple[str, ...], code: int, said: str
) -> None:
    assert said in refusal(begun, code, *[word.format(library=library) for word in typed])


def test_a_refusal_makes_no_folder_and_a_dry_run_leaves_nothing(library: Path, lib_root: Path, begun: Path) -> None:
    forget_logs(begun)
    for options in (["--dry-run", "--album", "Nope"], ["--check-config", "--stages", "exprot"]):
        assert skicyclerun("run", "--library", library, "--lib-root", begun, *options).code == 2
    assert logs(begun) == []
    (begun / "logs").rmdir()
    assert skicyclerun("run", "--library", library, "--lib-root", begun).code == 2
    assert not (begun / "logs").exists()


# ── what is not in it ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("--library https://me:pass%20word@nas.local/photos --yes", "--library https://…@nas.local/photos --yes"),
        ("GET https://nas.local/a?X-Amz-Signature=abc123&x=1", "GET https://nas.local/a?X-Amz-Signature=…&x=1"),
        ("AWS_SECRET_ACCESS_KEY=abc/+= NEXT=1", "AWS_SECRET_ACCESS_KEY=… NEXT=1"),
        ("run --api-token s3cr3t --yes", "run --api-token … --yes"),
        ("run --api-token 's3 cr3t' --yes", "run --api-token … --yes"),
        ("run --api-token=s3cr3t --yes", "run --api-token=… --yes"),
        ("album a@b, keywords=summer", "album a@b, keywords=summer"),
        ("from https://nas.local/me@home", "from https://nas.local/me@home"),
    ],
)
def test_secrets_do_not_go_into_a_log(tmp_path: Path, text: str, kept: str) -> None:
    path = tmp_path / "a.log"
    with open_run_log(path):
        logging.getLogger("skicyclerun").info("asked: %s", text)
    assert path.read_text().endswith(f"asked: {kept}\n")


def test_no_record_of_ours_is_a_repr() -> None:
    """Neither `%r` nor `!r`: what goes into the log is for people."""
    found = []
    for path in SOURCES.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "log." in text and ("%r" in text or "!r}" in text) else ():
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "log"):
                continue
            reprs = [each for each in ast.walk(node) if isinstance(each, ast.FormattedValue) and each.conversion == 114]
            said = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
            if reprs or any(isinstance(each, str) and "%r" in each for each in said):
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_no_log_of_a_run_in_which_much_goes_wrong_holds_an_object_of_ours(library: Path, lib_root: Path) -> None:
    (library / "Alps" / "IMG_1.jpg").write_bytes(b"")
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"no picture")
    place = ("--library", library, "--lib-root", lib_root)
    skicyclerun("run", *place, "--verbose", "--stages", "export", "preprocessing")
    skicyclerun("retry-failed", "--lib-root", lib_root, "--verbose")
    skicyclerun("run", *place)
    for line in messages(lib_root):
        if not line.startswith("    | "):
            assert not re.search(r"\b[A-Z]\w+\(\w+=|<\w+\.\w+:|\bPosixPath\(|object at 0x", line), line


def test_a_repair_is_in_the_log_as_well(library: Path, begun: Path) -> None:
    forget_logs(begun)
    (begun / "pipeline" / "albums" / "Coast" / "IMG_3.jpg").unlink()
    assert skicyclerun("verify", "--repair", "--lib-root", begun).code == 0
    said = messages(begun)
    assert said[0] == f"asked: skicyclerun verify --repair --lib-root {begun}"
    assert "what: verify and repair" in said
    assert said[-1].startswith("ended: nothing is wrong now, after ")


def test_a_program_finds_the_end_in_words_too(library: Path, lib_root: Path) -> None:
    assert PhotoExporter(lib_root=lib_root, library=library).export_albums().accounted_for
    assert messages(lib_root)[0] == "asked: by a program (PhotoExporter)"
    assert messages(lib_root)[-1].startswith("ended: everything is accounted for, after ")


# ── what is left ──────────────────────────────────────────────────────────────────────────────────────────────────


def next_of(*typed: str | Path) -> tuple[Any, str]:
    """(`next` in JSON, the line before the log's name on the terminal) of the same command."""
    as_json = skicyclerun(*typed, "--json")
    printed = skicyclerun(*typed)
    assert as_json.code == printed.code == 0
    return as_json.lines[-1].get("next"), printed.stderr.splitlines()[-2]


def test_the_stages_that_are_left_have_their_command_at_the_end(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg")
    sample.configure(pipeline={"stages": ["cleanup", "export", "metadata_extraction", "preprocessing", "watermarking"]})
    place = ("--lib-root", sample.lib_root)
    told, line = next_of("run", "--no-cleanup", "--stages", "export", *place)
    command = f"skicyclerun run --stages metadata_extraction,preprocessing,watermarking --lib-root {sample.lib_root}"
    assert told == {"stages": ["metadata_extraction", "preprocessing", "watermarking"], "command": command}
    assert line == f"Next: `{command}` goes on with the stages that are left."
    sample.configure(preprocessing={"enabled": False})
    assert next_of("run", "--update", "--stages", "export", *place)[0]["stages"] == [
        "metadata_extraction",
        "watermarking",
    ]
    sample.configure(preprocessing={})
    assert next_of("run", "--stages", "metadata_extraction", "preprocessing", *place)[0]["stages"] == ["watermarking"]
    assert next_of("run", "--stages", "preprocessing", *place)[0]["stages"] == ["watermarking"], "not what has run"
    told, line = next_of("run", "--no-cleanup", *place)
    assert told is None
    assert not line.startswith("Next")
    typed = command.split()[1:]
    assert skicyclerun(*typed).code == 0, "it can be typed"


def test_where_the_configuration_names_no_further_stages_the_usual_ones_follow(library: Path, lib_root: Path) -> None:
    place = ("--library", library, "--lib-root", lib_root)
    told, _ = next_of("run", "--no-cleanup", *place)
    assert told["stages"] == ["metadata_extraction", "preprocessing", "watermarking"]
    assert next_of("run", "--stages", "preprocessing", "--lib-root", lib_root)[0]["stages"] == ["watermarking"]
    assert next_of("run", "--stages", "watermarking", "--lib-root", lib_root)[0] is None


def test_after_failures_the_retry_comes_first(library: Path, lib_root: Path) -> None:
    (library / "Alps" / "IMG_2.jpg").write_bytes(b"")
    done = skicyclerun("run", "--library", library, "--lib-root", lib_root)
    assert done.stdout.splitlines()[-1].startswith(f"Next: `skicyclerun retry-failed --lib-root {lib_root}`")
    assert "\nThen: `skicyclerun run --stages " in done.stderr


# ── what an update did ────────────────────────────────────────────────────────────────────────────────────────────


def changes(lib_root: Path, library: Path, *options: str) -> dict[str, tuple[int, ...]]:
    """Found, new, replaced, unchanged, per album and in all, of an update."""
    done = skicyclerun("run", "--update", "--json", "--library", library, "--lib-root", lib_root, *options)
    report = done.lines[-1]
    assert {"albums": report["albums"], "totals": report["totals"]}.items() <= status_of(lib_root).items()
    every = [(album["path"], album) for album in report["albums"]] + [("in all", report["totals"])]
    return {name: tuple(each[key] for key in ("found", "new", "replaced", "unchanged")) for name, each in every}


def put(path: Path, like: str) -> None:
    path.write_bytes(picture(like))


def test_an_update_says_what_it_found_new_replaced_and_unchanged(library: Path, begun: Path) -> None:
    assert changes(begun, library) == {"Alps": (2, 0, 0, 2), "Coast": (1, 0, 0, 1), "in all": (3, 0, 0, 3)}
    put(library / "Alps" / "IMG_1.jpg", "another.jpg")
    put(library / "Alps" / "IMG_9.jpg", "IMG_9.jpg")
    (library / "Coast" / "IMG_8.jpg").write_bytes(b"")
    assert changes(begun, library) == {"Alps": (3, 1, 1, 1), "Coast": (2, 0, 0, 1), "in all": (5, 1, 1, 2)}
    text = skicyclerun("status", "--lib-root", begun).stdout
    header, alps, coast = [line.split() for line in text.splitlines()[3:6]]
    assert header[:8] == ["Album", "Status", "Found", "New", "Replaced", "Unchanged", "Failed", "Missing"]
    assert alps[:7] == ["Alps", "done", "3", "1", "1", "1", "0"]
    assert coast[:7] == ["Coast", "failed", "2", "0", "0", "1", "1"]
    assert "Found 5 photos: 1 new, 1 replaced, 2 unchanged." in text


def test_what_has_left_and_comes_back_is_new_and_so_is_all_after_a_cleanup(library: Path, begun: Path) -> None:
    kept = (library / "Alps" / "IMG_2.jpg").read_bytes()
    (library / "Alps" / "IMG_2.jpg").unlink()
    assert changes(begun, library)["Alps"] == (1, 0, 0, 1)
    (library / "Alps" / "IMG_2.jpg").write_bytes(kept)
    assert changes(begun, library)["Alps"] == (2, 1, 0, 1)
    assert skicyclerun("run", *YES, "--stages", "cleanup", "--force-clean", "--lib-root", begun).code == 0
    assert changes(begun, library)["in all"] == (3, 3, 0, 0)
    # A cleanup of a stage's folder is none of the albums.
    assert skicyclerun("run", "--stages", "preprocessing", "--lib-root", begun).code == 0
    assert skicyclerun("run", *YES, "--stages", "cleanup,preprocessing", "--lib-root", begun).code == 0
    put(library / "Alps" / "IMG_1.jpg", "another.jpg")
    assert changes(begun, library)["Alps"] == (2, 0, 1, 1)


def test_a_photo_that_failed_in_between_is_replaced_and_not_new(library: Path, begun: Path) -> None:
    (library / "Alps" / "IMG_1.jpg").write_bytes(b"")
    assert changes(begun, library)["Alps"] == (2, 0, 0, 1)
    put(library / "Alps" / "IMG_1.jpg", "another.jpg")
    assert changes(begun, library)["Alps"] == (2, 0, 1, 1)


def test_a_fresh_run_has_no_such_counts(library: Path, begun: Path) -> None:
    report = status_of(begun)
    assert "new" not in report["totals"]
    assert not any("new" in album for album in report["albums"])
    assert json.dumps(report).count('"unchanged"') == 0


async def test_on_a_narrow_terminal_the_counts_are_in_words(library: Path, tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "state.sqlite3") as store:
        run = await runs.create(
            store,
            mode="update",
            stages=("export",),
            source_kind=SourceKind.FOLDER,
            source_location=str(library),
            selection=(),
            options={},
        )
        await albums.plan(store, run, {"a": "A"}, [Album("a", "A")], [])
        (row,) = await albums.listing(store, run.id)
        await albums.start(store, row, [])
        report = await build_report(store, run, tmp_path)
    assert "0 of 0 exported, 0 new, 0 replaced, 0 unchanged" in as_text(report, width=40)
