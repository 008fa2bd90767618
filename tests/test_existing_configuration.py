"""The `pipeline_config.json` of an existing pipeline: accepted as it is, honoured where it means something here."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skicyclerun import PhotoExporter
from skicyclerun.errors import ConfigErrors
from skicyclerun.settings.foreign_keys import FOREIGN_BY_KEY, FOREIGN_KEYS, FORMATS
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import SECTIONS
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.settings.written_secrets import is_called_secret
from skicyclerun.sources.photos_app_script import script_to_run
from skicyclerun.stages import registry
from skicyclerun.stages.registry import STAGES
from skicyclerun.wording import very_near
from tests.command_line import Ended, exported, make_library, skicyclerun, skicyclerun_process, status_of, write_config
from tests.test_photos_app_runs import Mac
from tests.test_settings import REPOSITORY, load, refused

EXISTING: Final = Path(__file__).parent / "data" / "existing_pipeline_config.json"
#: Those that every installation has, and those that it may not have.
ALWAYS: Final = [stage.name for stage in STAGES if not stage.needs_packages]
NINE: Final = (
    "pipeline.name",
    "pipeline.version",
    "export.enabled",
    "export.quality",
    "export.preserve_albums",
    "export.script_path",
    "cleanup.remove_temp_files",
    "logging.console",
    "logging.include_timestamps",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "lib"


@pytest.fixture
def _no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without any of our extras, whatever this one has."""
    optional = {package for stage in STAGES for package in stage.needs_packages}
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in optional else found(name, *more)
    )


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The tree of an existing pipeline: config/pipeline_config.json, a `.env` at its top, and photos elsewhere."""
    library = make_library(tmp_path / "photos", {"Alps": ["IMG_1.jpg", "IMG_2.png"], "Lake": ["IMG_3.jpg"]})
    (tmp_path / "config").mkdir()
    shutil.copyfile(EXISTING, tmp_path / "config" / "pipeline_config.json")
    (tmp_path / ".env").write_text(
        f"# written by a setup script\nSKICYCLERUN_LIB_ROOT='{tmp_path / 'lib'}'\nexport PHOTO_FOLDER=\"{library}\"\n"
    )
    return tmp_path


def run_it(pipeline: Path, *words: str) -> Ended:
    return skicyclerun("run", "--config", pipeline / "config" / "pipeline_config.json", "--yes", *words)


def change(pipeline: Path, /, **sections: dict[str, object]) -> None:
    """Further values for the pipeline's configuration."""
    file = pipeline / "config" / "pipeline_config.json"
    config = json.loads(file.read_text())
    for name, values in sections.items():
        config.setdefault(name, {}).update(values)
    file.write_text(json.dumps(config))


# ── the file as it is ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_test_file_has_the_nine_keys_and_all_ten_stages() -> None:
    config = json.loads(EXISTING.read_text())
    for key in NINE:
        section, name = key.split(".")
        assert name in config[section]
    assert sorted(config["pipeline"]["stages"]) == sorted(stage.name for stage in STAGES)


@pytest.mark.usefixtures("_no_extras")
def test_a_run_of_all_ten_stages_exports_and_says_what_it_leaves_out(pipeline: Path) -> None:
    ended = run_it(pipeline)
    assert ended.code == 0, ended.stderr
    assert list(exported(pipeline / "lib")) == ["Alps/IMG_1.jpg", "Alps/IMG_2.jpg", "Lake/IMG_3.jpg"]
    assert len(list((pipeline / "lib" / "pipeline" / "scaled").rglob("*.webp"))) == 3
    left = {stage.name for stage in STAGES} - set(ALWAYS) | {"post_lora_watermarking"}
    said = [line for line in ended.stderr.splitlines() if "Left out: " in line]
    assert {name for name in left if any(name in line for line in said)} == left
    ran = status_of(pipeline / "lib")["run"]["stages"]
    assert ran == [name for name in ALWAYS if name not in left]


@pytest.mark.usefixtures("_no_extras")
def test_the_keys_that_change_nothing_are_named_once_in_one_warning(pipeline: Path) -> None:
    warnings = [line for line in run_it(pipeline, "--dry-run").stderr.splitlines() if line.startswith("Warning: ")]
    named = [line for line in warnings if "pipeline.name" in line]
    assert len(named) == 1
    for key in NINE:
        listed = FOREIGN_BY_KEY.get(key)
        wanted = 1 if listed is not None and not listed.stands_for else 0
        assert sum(line.count(f" {key} ") for line in warnings) == wanted, key
    assert "temporary files are always removed" in named[0]


@pytest.mark.usefixtures("_no_extras")
def test_no_warning_comes_twice(pipeline: Path) -> None:
    for words in (("--dry-run",), ("--stages", "export", "--dry-run")):
        warnings = [line for line in run_it(pipeline, *words).stderr.splitlines() if line.startswith("Warning: ")]
        assert warnings
        assert len(warnings) == len(set(warnings))


def test_every_one_of_the_nine_keys_is_ours_or_in_the_list() -> None:
    for key in NINE:
        section, name = key.split(".")
        assert (name in SECTIONS[section].model_fields) != (key in FOREIGN_BY_KEY)


def test_the_documentation_says_of_each_key_what_the_warning_says() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    part = page.split("\n## Keys of existing pipelines\n")[1].split("\n## ")[0]
    rows = [row for row in part.splitlines() if row.startswith("| `")]
    assert rows == [f"| `{each.key}` | {each.becomes} |" for each in FOREIGN_KEYS]


def test_what_is_left_alone_is_shown_as_it_was_read(root: Path) -> None:
    config = {"pipeline": {"name": "x"}, "export": {"odd": {"deep": 1}, "timeouts": {"download": 3}}}
    settings = load(root, config)
    shown = settings.as_json()
    assert shown["pipeline"]["name"] == "x"
    assert shown["export"]["odd"] == {"deep": 1}
    assert shown["export"]["timeouts"]["download"] == 3
    assert load(root, shown).as_json() == shown


# ── keys that mean something ──────────────────────────────────────────────────────────────────────────────────────


def test_quality_is_jpeg_quality_unless_both_are_there(root: Path) -> None:
    settings = load(root, {"export": {"quality": 70}})
    assert (settings.export.jpeg_quality, settings.warnings) == (70, ())
    both = load(root, {"export": {"quality": 70, "jpeg_quality": 80}})
    assert both.export.jpeg_quality == 80
    (warning,) = both.warnings
    assert "export.quality" in warning
    assert load(root, {"export": {"quality": 70}}, overrides={"export.jpeg_quality": 60}).export.jpeg_quality == 60


@pytest.mark.parametrize("quality", [0, 101, "95", 0.95, None, True])
def test_a_wrong_quality_is_told_by_the_name_that_the_file_gives_it(root: Path, quality: object) -> None:
    error = refused(root, {"export": {"quality": quality}})
    assert error.key == "export.quality"
    assert "must be a whole number from 1 to 100" in str(error)


@pytest.mark.parametrize(("written", "meant"), [*FORMATS.items(), ("JPEG", "jpeg"), ("Jpg", "jpeg")])
def test_formats_are_understood_as_existing_files_write_them(root: Path, written: str, meant: str) -> None:
    assert load(root, {"export": {"format": written}}).export.format == meant


@pytest.mark.parametrize("written", ["png", "heic", 3, None])
def test_a_format_that_is_not_made_here_is_refused_rather_than_replaced(root: Path, written: object) -> None:
    assert refused(root, {"export": {"format": written}}).key == "export.format"


@pytest.mark.usefixtures("_no_extras")
def test_an_export_that_is_switched_off_is_left_out_unless_it_is_named(pipeline: Path) -> None:
    assert run_it(pipeline, "--stages", "export").code == 0
    before = exported(pipeline / "lib")
    (pipeline / "photos" / "Alps" / "IMG_1.jpg").unlink()
    change(pipeline, export={"enabled": False}, pipeline={"stages": ["export", "preprocessing"]})
    assert run_it(pipeline).code == 0
    assert status_of(pipeline / "lib")["run"]["stages"] == ["preprocessing"]
    assert exported(pipeline / "lib") == before
    assert run_it(pipeline, "--stages", "export", "--no-cleanup").code == 0
    assert status_of(pipeline / "lib")["run"]["stages"] == ["export"]


@pytest.mark.usefixtures("_no_extras")
def test_a_cleanup_that_is_switched_off_is_left_out(pipeline: Path) -> None:
    change(pipeline, cleanup={"enabled": False})
    for _ in range(2):
        assert run_it(pipeline).code == 0
    assert "cleanup" not in status_of(pipeline / "lib")["run"]["stages"]
    assert list((pipeline / "lib" / "pipeline" / "archive").glob("*.zip")) == []


def test_a_run_of_which_everything_is_switched_off_is_refused_in_words(pipeline: Path) -> None:
    change(pipeline, export={"enabled": False}, pipeline={"stages": ["export"]})
    ended = run_it(pipeline)
    assert ended.code == 2
    assert "Nothing is left to run" in ended.stderr


@pytest.mark.usefixtures("_no_extras")
def test_console_false_keeps_progress_off_the_terminal_and_nothing_else(pipeline: Path) -> None:
    (pipeline / "photos" / "Alps" / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    loud = run_it(pipeline, "--stages", "export")
    change(pipeline, logging={"console": False})
    quiet = run_it(pipeline, "--stages", "export", "--no-cleanup")
    assert "PROGRESS: " in loud.stderr
    assert "PROGRESS: " not in quiet.stderr
    assert quiet.code == loud.code == 3
    assert "torn.jpg" in quiet.stdout
    assert "Log: " in quiet.stderr


# ── misspelt, or somebody else's ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("export.sorce", "source"),
        ("export.mdoe", "mode"),
        ("export.Format", "format"),
        ("export.jpeg-quality", "jpeg_quality"),
        ("export.qualty", "quality"),
        ("export.timeout", "timeouts"),
        ("export.timeouts.albm", "album"),
        ("logging.flie", "file"),
        ("logging.consol", "console"),
        ("pipeline.stage", "stages"),
        ("pipeline.nmae", "name"),
        ("cleanup.enable", "enabled"),
    ],
)
def test_what_is_likely_misspelt_is_an_error_that_names_the_right_key(root: Path, key: str, meant: str) -> None:
    error = refused(root, nested(key, 1))
    assert error.key == key
    assert f"Did you mean '{meant}'?" in str(error)


@pytest.mark.parametrize(
    "key", ["export.dpi", "export.max_workers", "cleanup.trash_bin", "logging.rotation", "pipeline.author"]
)
def test_a_key_that_resembles_nothing_is_named_in_a_warning_and_left_alone(root: Path, key: str) -> None:
    settings = load(root, nested(key, {"any": ["thing"]}))
    (warning,) = settings.warnings
    assert f"{key} means nothing to skicyclerun and is left alone." in warning
    assert settings.as_json()[key.split(".")[0]][key.split(".")[1]] == {"any": ["thing"]}


def nested(key: str, value: object) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


_LETTERS: Final = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=14)


def slips(word: str) -> st.SearchStrategy[str]:
    """One letter more, less or other, or two that have changed places."""
    places = st.integers(0, len(word) - 1)
    letter = st.sampled_from("abcdefghijklmnopqrstuvwxyz")
    return st.one_of(
        places.map(lambda at: word[:at] + word[at + 1 :]),
        st.tuples(places, letter).map(lambda slip: word[: slip[0]] + slip[1] + word[slip[0] :]),
        places.map(lambda at: word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]),
    )


@hypothesis_settings(max_examples=150)
@given(st.data(), st.sampled_from([(s, f) for s in ("export", "cleanup", "logging") for f in SECTIONS[s].model_fields]))
def test_any_slip_of_one_key_is_an_error_and_names_a_key(
    tmp_path: Path, data: st.DataObject, key: tuple[str, str]
) -> None:
    section, field = key
    written = data.draw(slips(field))
    assume(written not in SECTIONS[section].model_fields and f"{section}.{written}" not in FOREIGN_BY_KEY)
    error = refused(tmp_path / "lib", {section: {written: 1}})
    assert error.key == f"{section}.{written}"
    assert "Did you mean " in str(error)


@hypothesis_settings(max_examples=150)
@given(st.dictionaries(_LETTERS, st.integers() | st.text(max_size=5) | st.booleans(), min_size=1, max_size=5))
def test_keys_that_are_near_to_none_of_ours_never_refuse_a_configuration(
    tmp_path: Path, foreign: dict[str, object]
) -> None:
    known = [*SECTIONS["export"].model_fields, "quality", "preserve_albums"]
    foreign = {key: value for key, value in foreign.items() if key not in known and not very_near(key, known)}
    assume(foreign)
    assume(not any(map(is_called_secret, foreign)))  # these are warned of besides
    settings = load(tmp_path / "lib", {"export": foreign})
    noted = {key for key in foreign if key.startswith("_")}
    assert settings.carried == {"export": foreign}
    assert len(settings.warnings) == (1 if foreign.keys() - noted else 0)
    assert settings.export == load(tmp_path / "lib", {}).export


# ── stages that cannot run here ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def _no_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `preprocessing`, whose files `watermarking` takes, needed an extra that is not installed."""
    stages = tuple(
        replace(stage, needs_packages=("no_such_package_here", "json"), extra="scaling")
        if stage.name == "preprocessing"
        else stage
        for stage in STAGES
    )
    monkeypatch.setattr(registry, "STAGES", stages)
    monkeypatch.setattr(registry, "STAGE_BY_NAME", {stage.name: stage for stage in stages})
    monkeypatch.setattr("skicyclerun.settings.loader.STAGES", stages)


def listing(*stages: str) -> dict[str, dict[str, object]]:
    return {"pipeline": {"stages": list(stages)}}


def test_order_is_ours_whatever_the_list_says(pipeline: Path) -> None:
    change(pipeline, **listing("watermarking", "preprocessing", "export", "cleanup"))
    assert run_it(pipeline).code == 0
    assert status_of(pipeline / "lib")["run"]["stages"] == ["cleanup", "export", "preprocessing", "watermarking"]


@pytest.mark.usefixtures("_no_scaling")
def test_a_stage_whose_extra_is_missing_is_left_out_with_what_takes_its_files_and_what_to_type(pipeline: Path) -> None:
    change(pipeline, **listing("export", "metadata_extraction", "preprocessing", "watermarking"))
    ended = run_it(pipeline)
    assert ended.code == 0
    assert status_of(pipeline / "lib")["run"]["stages"] == ["export", "metadata_extraction"]
    (said,) = {line.partition("Left out: ")[2] for line in ended.stderr.splitlines() if "Left out: " in line}
    assert said.startswith("preprocessing, for it needs the package no_such_package_here, which is not installed.")
    assert "watermarking takes what is made there, of which there is nothing, and is left out too." in said
    assert '`pip install "skicyclerun[scaling]"`, then `skicyclerun run --stages preprocessing,watermarking`.' in said
    # "Left out" has said what to type; a command that would be refused is not proposed as the next one.
    assert "goes on with the stages that are left" not in ended.stderr


def test_what_takes_files_that_were_made_earlier_goes_on_without_the_stage_that_made_them(
    pipeline: Path, request: pytest.FixtureRequest
) -> None:
    change(pipeline, **listing("export", "preprocessing", "watermarking"))
    assert run_it(pipeline).code == 0
    marked = pipeline / "lib" / "pipeline" / "watermarked_final" / "Lake" / "IMG_3.webp"
    marked.unlink()
    request.getfixturevalue("_no_scaling")
    ended = run_it(pipeline)
    assert ended.code == 0
    assert "Left out: preprocessing, for" in ended.stderr
    assert status_of(pipeline / "lib")["run"]["stages"] == ["export", "watermarking"]
    assert marked.is_file()


@pytest.mark.usefixtures("_no_scaling")
@pytest.mark.parametrize("stages", ["preprocessing", "export,preprocessing"])
def test_a_stage_that_cannot_run_is_refused_where_it_is_asked_for_by_name(pipeline: Path, stages: str) -> None:
    ended = run_it(pipeline, "--stages", stages)
    assert ended.code == 2
    assert "preprocessing needs the package no_such_package_here" in ended.stderr
    assert not (pipeline / "lib").exists()


def test_an_unknown_name_in_the_list_stays_an_error(pipeline: Path) -> None:
    change(pipeline, **listing("export", "watermaking"))
    ended = run_it(pipeline)
    assert ended.code == 2
    assert "There is no stage 'watermaking'. Did you mean 'watermarking'?" in ended.stderr


@pytest.mark.usefixtures("_no_scaling")
def test_nothing_is_asked_of_the_section_and_the_paths_of_a_stage_that_is_left_out(pipeline: Path) -> None:
    change(pipeline, **listing("export", "preprocessing"), preprocessing={"max_dimension": "big"})
    change(pipeline, paths={"preprocessed": "${NOT_SET_HERE}/scaled"})
    ended = run_it(pipeline)
    assert ended.code == 0
    assert "preprocessing.max_dimension" in ended.stderr


def test_the_section_of_a_stage_that_is_switched_off_may_be_wrong(pipeline: Path) -> None:
    change(pipeline, **listing("export", "preprocessing"), preprocessing={"max_dimension": "big", "enabled": False})
    assert run_it(pipeline).code == 0
    change(pipeline, preprocessing={"enabled": True})
    assert run_it(pipeline).code == 2


def test_a_stage_whose_input_is_switched_off_and_never_made_is_left_out_by_name(pipeline: Path) -> None:
    change(pipeline, **listing("export", "preprocessing", "watermarking"), preprocessing={"enabled": False})
    ended = run_it(pipeline)
    assert ended.code == 0
    words = (
        "Left out: watermarking, for it takes what preprocessing makes, which is switched off and has never run here."
    )
    assert words in ended.stderr
    assert status_of(pipeline / "lib")["run"]["stages"] == ["export"]


def test_a_stage_whose_input_is_in_no_list_is_refused_as_before(pipeline: Path) -> None:
    change(pipeline, **listing("export", "watermarking"))
    assert run_it(pipeline).code == 2


@pytest.mark.usefixtures("_no_scaling")
def test_from_and_until_leave_their_own_out_without_a_word(pipeline: Path) -> None:
    change(pipeline, **listing("export", "metadata_extraction", "preprocessing"))
    ended = run_it(pipeline, "--until", "metadata_extraction")
    assert ended.code == 0
    assert "Left out" not in ended.stderr


@pytest.mark.usefixtures("_no_scaling")
def test_the_python_api_leaves_them_out_as_well(pipeline: Path) -> None:
    change(pipeline, **listing("export", "preprocessing", "watermarking"))
    report = PhotoExporter(pipeline / "config" / "pipeline_config.json").export_albums()
    assert tuple(report.run.stages) == ("export",)


# ── the script that is named ──────────────────────────────────────────────────────────────────────────────────────


def named_script(tmp_path: Path, text: bytes | None) -> tuple[Path, str]:
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "c.json"
    file.write_text(json.dumps({"export": {"script_path": "scripts/mine.scpt"}}))
    if text is not None:
        (tmp_path / "scripts").mkdir()
        (tmp_path / "scripts" / "mine.scpt").write_bytes(text)
    return script_to_run(load_settings(file, lib_root=tmp_path / "lib", environ={"HOME": str(tmp_path)}))


OURS: Final = shipped_file("osxPhotoExporter.scpt")


def test_the_shipped_script_answers_to_every_verb_and_may_be_named(tmp_path: Path) -> None:
    text = OURS.read_bytes()
    assert named_script(tmp_path, text + b"\n-- with a note of mine\n") == (tmp_path / "scripts" / "mine.scpt", "")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "there is no script scripts/mine.scpt"),
        (b"FasdUAS 1.101.10\x0e\x00\x00\x00\x04\x0f\xff\xff", "is compiled"),
        (b'on run argv\n tell application "Photos" to export albums\nend run', "answers to none of the verbs"),
        (OURS.read_bytes().replace(b'theVerb is "item-facts"', b"false"), "does not answer to item-facts"),
        (b"(* " + OURS.read_bytes().replace(b"*)", b"") + b" *)", "answers to none of the verbs"),
        (b"x" * 2_000_001, "too large"),
    ],
    ids=["absent", "compiled", "exports all by itself", "a verb is missing", "a comment", "too large"],
)
def test_a_script_that_cannot_take_the_place_of_ours_is_passed_over_with_a_word(
    tmp_path: Path, text: bytes | None, word: str
) -> None:
    script, said = named_script(tmp_path, text)
    assert script == OURS
    assert word in said
    assert said.startswith("export.script_path: ")


def test_the_script_is_looked_for_beside_the_configuration_above_config_and_in_lib_root(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.scpt").write_bytes(OURS.read_bytes())
    file = write_config(tmp_path, export={"script_path": "mine.scpt"})
    settings = load_settings(file, lib_root=tmp_path / "lib", environ={"HOME": str(tmp_path)})
    assert script_to_run(settings)[0] == tmp_path / "lib" / "mine.scpt"
    (tmp_path / "mine.scpt").write_bytes(OURS.read_bytes())
    assert script_to_run(settings)[0] == tmp_path / "mine.scpt"


def test_a_run_from_photos_says_that_it_uses_the_shipped_script(tmp_path: Path) -> None:
    mac = Mac(tmp_path)
    mac.album("Alps", "IMG_1.JPG")
    mac.settings["script_path"] = "scripts/osxPhotoExporter.scpt"
    ended = mac.run()
    assert ended.code == 0
    assert "export.script_path: there is no script scripts/osxPhotoExporter.scpt; the script that comes" in ended.stderr
    assert list(exported(mac.lib_root)) == ["Alps/IMG_1.jpg"]


def test_a_script_that_answers_to_the_verbs_is_the_one_that_runs(tmp_path: Path) -> None:
    """The stand-in refuses a script that osascript could not run, and names it."""
    mac = Mac(tmp_path)
    mac.album("Alps", "IMG_1.JPG")
    mac.settings["script_path"] = "mine.scpt"
    mine = mac.lib_root / "config" / "mine.scpt"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(OURS.read_bytes())
    assert mac.run().code == 0
    mine.write_bytes(OURS.read_bytes().replace(b"on run argv", b"on walk argv"))
    ended = mac.run()
    assert ended.code == 1
    assert str(mine) in ended.stderr


# ── commands that only read ───────────────────────────────────────────────────────────────────────────────────────

#: Mistakes of each kind that have nothing to do with where things lie.
WRONG: Final[dict[str, Any]] = {
    "pipeline": {"stages": ["exprot"]},
    "export": {"jpeg_quality": 200, "sorce": "folder"},
    "cleanup": {"keep_last": 0},
    "logging": {"level": "loud", "file": "{nope}"},
    "stages": {"x": {"command": []}},
    "preprocessing": {"max_dimension": "big"},
}


@pytest.fixture
def wrong(tmp_path: Path) -> tuple[str | Path, ...]:
    """Options of commands: a lib_root with an export and an archive, and a configuration that is wrong by now."""
    library = make_library(tmp_path / "photos", {"Alps": ["IMG_1.jpg"]})
    for _ in range(2):
        assert skicyclerun("run", "--lib-root", tmp_path / "lib", "--library", library, "--yes").code == 0
    return "--lib-root", tmp_path / "lib", "--config", write_config(tmp_path, **WRONG)


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", "--json"),
        ("verify",),
        ("config", "show"),
        ("archive", "list"),
        ("archive", "verify", "--all"),
        ("archive", "restore", "latest", "--dry-run", "--overwrite"),
    ],
    ids=" ".join,
)
def test_reading_commands_work_where_only_the_paths_are_right(
    wrong: tuple[str | Path, ...], command: tuple[str, ...]
) -> None:
    ended = skicyclerun(*command, *wrong)
    assert ended.code == 0, ended.stderr
    assert ended.stdout
    assert re.search(r"a run would refuse it for \d problems; `skicyclerun config check` names each", ended.stderr)


def test_what_runs_or_removes_still_refuses_a_wrong_configuration(wrong: tuple[str | Path, ...]) -> None:
    for command in (("run", "--yes"), ("verify", "--repair"), ("archive", "prune", "--days", "1", "--yes")):
        ended = skicyclerun(*command, *wrong)
        assert ended.code == 2, command
        assert "cleanup.keep_last" in ended.stderr


def test_reading_commands_refuse_paths_that_do_not_resolve(wrong: tuple[str | Path, ...], tmp_path: Path) -> None:
    file = write_config(tmp_path, paths={"archive": "{nope}/x"})
    for command in (("status",), ("archive", "list"), ("config", "show")):
        ended = skicyclerun(*command, "--lib-root", tmp_path / "lib", "--config", file)
        assert ended.code == 2
        assert "{nope} is no key of paths" in ended.stderr


def test_folders_that_endanger_each_other_stop_a_run_and_no_reading(
    wrong: tuple[str | Path, ...], tmp_path: Path
) -> None:
    file = write_config(tmp_path, paths={"preprocessed": "{metadata_dir}/scaled"})
    options = ("--lib-root", tmp_path / "lib", "--config", file)
    assert skicyclerun("status", *options).code == 0
    assert skicyclerun("run", "--yes", *options).code == 2


def test_doctor_names_each_problem_and_looks_at_everything_else(wrong: tuple[str | Path, ...]) -> None:
    found = findings(skicyclerun("doctor", "--json", *wrong))
    problems = " ".join(each["detail"] for each in found if each["check"] == "configuration")
    for key in ("pipeline.stages", "export.jpeg_quality", "cleanup.keep_last", "logging.level", "stages.x.command"):
        assert key in problems
    (state,) = [each for each in found if each["check"] == "state"]
    assert state["status"] == "ok"


def findings(ended: Ended) -> list[dict[str, str]]:
    checks: list[dict[str, str]] = ended.json["checks"]
    return checks


# ── doctor, of each stage ─────────────────────────────────────────────────────────────────────────────────────────


def of_stages(pipeline: Path) -> dict[str, dict[str, str]]:
    ended = skicyclerun("doctor", "--json", "--config", pipeline / "config" / "pipeline_config.json")
    return {
        each["check"].removeprefix("stage "): each for each in findings(ended) if each["check"].startswith("stage ")
    }


@pytest.mark.usefixtures("_no_extras")
def test_doctor_says_of_each_of_the_ten_stages_whether_it_could_run(pipeline: Path) -> None:
    found = of_stages(pipeline)
    assert list(found) == [stage.name for stage in STAGES]
    for name, each in found.items():
        could = name in ALWAYS and name != "post_lora_watermarking"
        assert each["detail"].startswith("could run") == (could or "could run only" in each["detail"]), each
        assert each["status"] == ("ok" if could else "warning")
    assert "could run only over what lora_processing has made before" in found["post_lora_watermarking"]["detail"]


@pytest.mark.usefixtures("_no_scaling")
def test_doctor_names_the_extra_that_a_stage_lacks(pipeline: Path) -> None:
    found = of_stages(pipeline)["preprocessing"]
    assert found["status"] == "warning"
    assert "it needs the package no_such_package_here" in found["detail"]
    assert "a run leaves it out" in found["detail"]
    assert 'pip install "skicyclerun[scaling]"' in found["next_step"]


def test_doctor_fails_for_a_listed_stage_whose_settings_or_program_are_wrong(pipeline: Path) -> None:
    change(
        pipeline,
        **listing("export", "preprocessing", "restyle"),
        preprocessing={"max_dimension": "big"},
        watermark={"position": "somewhere"},
        stages={"restyle": {"command": ["no-such-program-here", "{input}", "{output}"]}},
    )
    found = of_stages(pipeline)
    assert found["preprocessing"]["status"] == "failed"
    assert "preprocessing.max_dimension: must be a whole number" in found["preprocessing"]["detail"]
    assert found["restyle"]["status"] == "failed"
    assert "no-such-program-here" in found["restyle"]["detail"]
    assert found["watermarking"]["status"] == "warning"
    assert "watermark.position" in found["watermarking"]["detail"]
    assert found["export"]["status"] == "ok"
    change(pipeline, paths={"geocode_cache": "${NOT_SET_HERE}/cache.json"})
    found = of_stages(pipeline)
    assert found["geocode_sweep"]["status"] == "warning"
    assert "NOT_SET_HERE" in found["geocode_sweep"]["detail"]


def test_doctor_says_which_stages_are_switched_off_or_not_listed(pipeline: Path) -> None:
    change(pipeline, **listing("cleanup", "export", "preprocessing"), preprocessing={"enabled": False})
    change(pipeline, cleanup={"enabled": False})
    found = of_stages(pipeline)
    assert "switched off (preprocessing.enabled)" in found["preprocessing"]["detail"]
    assert "switched off (cleanup.enabled)" in found["cleanup"]["detail"]
    assert "not in `pipeline.stages`" in found["watermarking"]["detail"]


def test_a_run_is_resumed_although_everything_is_switched_off_by_now(pipeline: Path) -> None:
    """What it does stands in its row."""
    change(pipeline, **listing("export"))
    file = pipeline / "config" / "pipeline_config.json"
    stopped = skicyclerun_process("run", "--config", file, "--yes", extra={"SKICYCLERUN_FAULT": "album.finished"})
    assert stopped.code == -signal.SIGKILL
    change(pipeline, export={"enabled": False})
    ended = run_it(pipeline, "--resume")
    assert ended.code == 0, ended.stderr
    assert len(exported(pipeline / "lib")) == 3


def test_thousands_of_keys_of_nobody_cost_little_and_are_not_all_named(root: Path) -> None:
    keys = {f"{word}{number}": 1 for number in range(3000) for word in ("sourc", "zzzz")}
    error = refused(root, {"export": keys})
    assert isinstance(error, ConfigErrors)
    assert len(error.errors) <= 30
