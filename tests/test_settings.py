"""The configuration: what it becomes, and that every slip in it gets a sentence naming file, key, value and remedy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from skicyclerun.errors import ConfigError, ConfigErrors, EnvironmentUnset, PlaceholderCycle, SkicyclerunError
from skicyclerun.settings import safety as settings_safety
from skicyclerun.settings.command_stages import CommandStageSettings
from skicyclerun.settings.load import check_source_and_outputs, load_settings
from skicyclerun.settings.models import (
    EMPTIED_KEYS,
    SECTIONS,
    Paths,
    PathTexts,
    Settings,
    default_config,
    default_config_text,
)
from skicyclerun.settings.safety import lies_in, same_place
from skicyclerun.settings.section import StageSection
from skicyclerun.settings.shipped_files import SHIPPED_FILES, shipped_file
from skicyclerun.stages.registry import section_models

REPOSITORY = Path(__file__).resolve().parents[1]
PATH_KEYS = [key for key in PathTexts.model_fields if key != "lib_root"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "lib"


def load(
    root: Path,
    config: object,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    file = root.parent / "given.json"
    file.write_bytes(config if isinstance(config, bytes) else json.dumps(config).encode())
    variables = {"SKICYCLERUN_LIB_ROOT": str(root), "HOME": str(root.parent / "home")}
    return load_settings(
        file, environ=variables | dict(environ or {}), overrides=overrides if overrides is not None else {}
    )


def refused(root: Path, config: object, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(root, config, **more)
    return caught.value


# ── defaults, files, where they come from ─────────────────────────────────────────────────────────────────────────


def test_the_shipped_file_equals_the_defaults_and_what_config_init_writes() -> None:
    text = shipped_file("pipeline_config.json").read_text(encoding="utf-8")
    assert text == default_config_text()
    assert json.loads(text) == default_config()


def test_an_empty_configuration_has_the_paths_of_the_design(root: Path) -> None:
    settings = load(root, {})
    assert settings.lib_root == root
    assert {key: str(settings.path_of(key).relative_to(root)) for key in PATH_KEYS} == {
        "pipeline_base": "pipeline",
        "apple_photos_export": "pipeline/albums",
        "preprocessed": "pipeline/scaled",
        "lora_processed": "pipeline/lora_processed",
        "watermarked_final": "pipeline/watermarked_final",
        "metadata_dir": "metadata",
        "master_catalog": "metadata/master.json",
        "geocode_cache": "metadata/geocode_cache.json",
        "archive": "archive",
        "state_db": "state/skicyclerun.sqlite3",
        "huggingface_cache": "huggingface_cache",
    }
    assert settings.log_file("20260102_030405") == root / "logs" / "pipeline_20260102_030405.log"
    assert settings.log_folder == root / "logs"
    assert settings.path_of("raw_input") == settings.paths.apple_photos_export


def test_every_path_key_is_an_attribute() -> None:
    for key in PATH_KEYS:
        value = Path("/x") / key
        assert getattr(Paths({key: value}, {}), key) == value


def test_a_partial_file_keeps_the_other_defaults(root: Path) -> None:
    settings = load(root, {"export": {"timeouts": {"album": 5}}})
    assert settings.export.timeouts.album == 5
    assert settings.export.timeouts.photo == 120
    assert settings.export.jpeg_quality == 95
    assert settings.pipeline.stages == ("cleanup", "export")


def test_settings_cannot_be_changed(root: Path) -> None:
    settings = load(root, {})
    with pytest.raises(AttributeError):
        settings.lib_root = Path("/")  # type: ignore[misc]  # that it is refused is what is tested
    with pytest.raises(ValidationError):
        settings.export.jpeg_quality = 1


def test_the_file_of_lib_root_comes_before_the_shipped_one(root: Path) -> None:
    environ = {"HOME": "/home/me"}
    assert load_settings(None, lib_root=root, environ=environ).file == shipped_file("pipeline_config.json")
    (root / "config").mkdir(parents=True)
    own = root / "config" / "pipeline_config.json"
    own.write_text('{"export": {"jpeg_quality": 7}}')
    settings = load_settings(None, lib_root=root, environ=environ)
    assert (settings.file, settings.export.jpeg_quality) == (own, 7)


def test_a_link_to_nothing_in_lib_root_is_said_not_passed_over(root: Path) -> None:
    (root / "config").mkdir(parents=True)
    (root / "config" / "pipeline_config.json").symlink_to(root / "gone.json")
    with pytest.raises(ConfigError, match="there is no such configuration file"):
        load_settings(None, lib_root=root, environ={})


def test_lib_root_is_taken_from_the_command_line_then_the_environment_then_the_file(root: Path) -> None:
    file = root.parent / "c.json"
    file.write_text(json.dumps({"paths": {"lib_root": "/from/file"}}))
    environ = {"SKICYCLERUN_LIB_ROOT": "/from/environment", "HOME": "/home/me"}
    assert load_settings(file, lib_root=Path("/from/flag"), environ=environ).lib_root == Path("/from/flag")
    assert load_settings(file, environ=environ).lib_root == Path("/from/environment")
    assert load_settings(file, environ={"HOME": "/home/me"}).paths.archive == Path("/from/file/archive")


def test_lib_root_unset_says_what_to_type() -> None:
    with pytest.raises(EnvironmentUnset, match="SKICYCLERUN_LIB_ROOT is not set") as caught:
        load_settings(None, environ={"SKICYCLERUN_LIB_ROOT": ""})
    assert "export SKICYCLERUN_LIB_ROOT=" in caught.value.next_step


def test_a_relative_lib_root_begins_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, lib_root=Path("a/../b"), environ={"HOME": "/home/me"})
    assert settings.paths.archive == tmp_path / "b" / "archive"


def test_home_is_expanded_and_relative_paths_begin_at_lib_root(root: Path) -> None:
    settings = load(
        root,
        {
            "paths": {"archive": "~/zips", "preprocessed": "small/../scaled"},
            "export": {"library": "~/P.photoslibrary"},
            "logging": {"file": "l/{{x}}_{timestamp}.log"},
        },
    )
    home = root.parent / "home"
    assert settings.paths.archive == home / "zips"
    assert settings.paths.preprocessed == root / "scaled"
    assert settings.export.library == home / "P.photoslibrary"
    assert settings.log_file("T") == root / "l" / "{x}_T.log"


def test_a_lib_root_with_braces_in_its_name_stays_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "a{timestamp}{b}"
    settings = load(root, {"logging": {"file": "x_{timestamp}.log"}})
    assert settings.paths.state_db == root / "state" / "skicyclerun.sqlite3"
    assert settings.log_file("T") == root / "x_T.log"
    assert load(root, {}).log_file("T") == root / "logs" / "pipeline_T.log"


def test_the_log_file_takes_no_time_stamp_that_leaves_its_folder(root: Path) -> None:
    with pytest.raises(ValueError, match="cannot stand in a file name"):
        load(root, {}).log_file("../../x")


# ── what is not ours ──────────────────────────────────────────────────────────────────────────────────────────────


def test_other_sections_and_underscored_keys_are_carried_untouched(root: Path) -> None:
    config = {
        "_about": ["a", {"b": "{nothing}"}],
        "notifications": {"source_folder": "{watermarked_final}", "bucket": "${UNSET}"},
        "export": {"_note": "x", "timeouts": {"_why": {"deep": 1}, "photo": 3}},
        "paths": {"_p": 1, "model_cache": "${MODEL_CACHE_LIB}", "table": {"any": "thing"}},
    }
    settings = load(root, config)
    assert settings.carried == {
        "_about": config["_about"],
        "notifications": config["notifications"],
        "export": {"_note": "x", "timeouts": {"_why": {"deep": 1}}},
        "paths": config["paths"],
    }
    assert settings.export.timeouts.photo == 3
    assert settings.warnings == ()
    shown = settings.as_json()
    assert shown["notifications"] == config["notifications"]
    assert shown["export"]["timeouts"] == {
        "photo": 3.0,
        "movie": 600.0,
        "per_mb": 1.0,
        "album": 600.0,
        "album_total": 14_400.0,
        "run": 3600.0,
        "_why": {"deep": 1},
    }
    assert shown["paths"]["archive"] == str(root / "archive")


def test_what_is_shown_can_be_read_again_and_means_the_same(root: Path) -> None:
    config = {"export": {"albums": ["A", "B*"], "library": "/p"}, "paths": {"_n": 1, "mine": "/m"}, "other": [1]}
    settings = load(root, config)
    again = load(root, settings.as_json())
    assert again.as_json() == settings.as_json()
    assert (again.export, again.carried) == (settings.export, settings.carried)


def test_paths_of_other_programs_may_be_referred_to(root: Path) -> None:
    settings = load(root, {"paths": {"disk": "/Volumes/Big", "archive": "{disk}/zips"}})
    assert settings.paths.archive == Path("/Volumes/Big/zips")


def test_a_name_very_near_to_ours_is_warned_of(root: Path) -> None:
    settings = load(root, {"paths": {"archve": "/x", "archive_albums": "/y"}, "exports": {}})
    assert len(settings.warnings) == 2
    assert any("paths.archve" in warning and "'archive'" in warning for warning in settings.warnings)
    assert any("exports" in warning and "'export'" in warning for warning in settings.warnings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"logging": {"level": 3}},
        {"logging": {"level": 3}, "cleanup": {"enabled": "yes"}},
        {"paths": {"archive": "{pipeline_base}/albums"}},
    ],
    ids=["one problem", "two problems", "paths that endanger each other"],
)
def test_what_is_refused_carries_its_warnings(root: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        load(root, {"exprot": {"source": "folder"}, **wrong})
    (warning,) = refused.value.warnings
    assert "exprot" in warning
    assert "Did you mean 'export'" in warning
    with pytest.raises(ConfigError) as refused:
        load(root, wrong)
    assert refused.value.warnings == ()


def test_a_mistake_in_a_section_that_no_stage_of_the_run_needs_is_warned_of_in_whole_sentences(root: Path) -> None:
    settings = load(root, {"pipeline": {"stages": ["cleanup", "export"]}, "watermark": {"line1": "{plase}"}})
    (warning,) = settings.warnings
    assert "Did you mean 'place'?" in warning
    assert warning.endswith(" No stage that runs needs it; the defaults stand.")
    assert ".." not in warning


def test_what_the_command_line_sets_does_not_hide_a_misspelt_name(root: Path) -> None:
    misspelt = {"exprot": {"source": "folder"}, "paths": {"archve": "/x"}}
    settings = load(root, misspelt, overrides={"export.library": "/photos", "paths.archive": "/zips"})
    assert any("exprot" in warning and "Did you mean 'export'" in warning for warning in settings.warnings)
    assert any("paths.archve" in warning and "'archive'" in warning for warning in settings.warnings)


def test_without_a_lib_root_only_what_lies_below_it_is_refused_where_none_is_needed(root: Path) -> None:
    unset = {"SKICYCLERUN_LIB_ROOT": ""}
    assert load_without_root(root, {"export": {"library": "/photos"}}).export.library == Path("/photos")
    with pytest.raises(EnvironmentUnset):
        load_without_root(root, {"export": {"library": "photos"}})
    with pytest.raises(EnvironmentUnset):
        load_without_root(root, {"export": {"library": "{lib_root}/photos"}})
    with pytest.raises(EnvironmentUnset):
        load(root, {}, environ=unset)


def load_without_root(root: Path, config: object) -> Settings:
    file = root.parent / "given.json"
    file.write_text(json.dumps(config))
    return load_settings(file, environ={"HOME": str(root.parent / "home")}, needs_lib_root=False)


def test_raw_input_is_another_name_of_apple_photos_export(root: Path) -> None:
    assert load(root, {"paths": {"raw_input": "in"}}).paths.apple_photos_export == root / "in"
    same = {"paths": {"raw_input": "{pipeline_base}/albums", "apple_photos_export": "{raw_input}"}}
    assert load(root, same).paths.apple_photos_export == root / "pipeline" / "albums"
    alias = {"paths": {"raw_input": "{apple_photos_export}", "mine": "{raw_input}"}}
    assert load(root, alias).paths.apple_photos_export == root / "pipeline" / "albums"
    error = refused(root, {"paths": {"raw_input": "a", "apple_photos_export": "b"}})
    assert error.key == "paths.raw_input"
    assert str(root / "a") in str(error)
    assert str(root / "b") in str(error)


# ── files that cannot be read ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"  \n", "the file is empty"),
        (b'{\n "export": {"source": "auto",}\n}', "line 2, column 30: .*a comma before the closing }"),
        (b'{"a": 1', "line 1, column 8: .*the file ends in the middle"),
        (b"{// no\n}", "line 1, column 2: .*a comment"),
        (b"{'a': 1}", "line 1, column 2: "),
        (b"[1, 2]", "must be one JSON object .* not a list"),
        (b"null", "must be one JSON object .* not null"),
        (b'"x"', 'must be one JSON object .* not a single value \\("x"\\)'),
        (b'{"a": "\xff"}', "line 1: byte 8 is not UTF-8"),
        ("{}".encode("utf-16"), "is not UTF-8"),
        (b'{"a": {"b": 1, "b": 2}}', "a.b: is given twice"),
        (b'{"export": {"workers": 1, "workers": 1}}', "export.workers: is given twice"),
        (b'{"export": {"timeouts": {"photo": NaN}}}', "export.timeouts.photo: is not a finite number"),
        (b'{"x": [0, -Infinity]}', r"x\[1\]: is not a finite number"),
        (b'{"export": {"timeouts": {"photo": 1e999}}}', "export.timeouts.photo: is not a finite number"),
        (b'{"a": "\\ud800"}', "a: .*half a character"),
        (b'{"\\ud800": 1}', "is no proper text"),
        (b"[" * 200_000, "too deep"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "more than 64 deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"a": "' + b"x" * 10_000_001 + b'"}', "larger than 10 MB"),
    ],
    ids=range(22),
)
def test_a_file_that_is_no_configuration_is_refused_with_its_place(root: Path, data: bytes, words: str) -> None:
    error = refused(root, data)
    assert re.search(words, str(error))
    assert str(root.parent / "given.json") in str(error)


def test_a_byte_order_mark_is_tolerated(root: Path) -> None:
    assert load(root, b'\xef\xbb\xbf{"export": {"workers": 3}}').export.workers == 3


def test_a_missing_file_says_which_and_what_to_type(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"/absent\.json: there is no such configuration file") as caught:
        load_settings(root / "absent.json", lib_root=root)
    assert "skicyclerun config init" in caught.value.next_step


def test_a_folder_a_pipe_and_a_device_are_no_configuration(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), tmp_path / ("n" * 300)):
        with pytest.raises(ConfigError, match=re.escape(str(place))):
            load_settings(place, lib_root=root)


# ── values that are wrong ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("export.jpeg_quality", "95", 'must be a whole number from 1 to 100, not "95"'),
        ("export.jpeg_quality", 95.0, "must be a whole number from 1 to 100, not 95.0"),
        ("export.jpeg_quality", True, "must be a whole number from 1 to 100, not true"),
        ("export.jpeg_quality", 0, "from 1 to 100, not 0"),
        ("export.jpeg_quality", 101, "from 1 to 100, not 101"),
        ("export.jpeg_quality", None, "not null"),
        ("export.live_photos", "true", 'must be true or false, not "true"'),
        ("export.live_photos", 1, "must be true or false, not 1"),
        ("export.source", "photo_library", "Did you mean 'photos_library'"),
        ("export.source", {}, "not an empty object"),
        ("export.format", "jpge", "Did you mean 'jpeg'"),
        ("export.timeouts.photo", 0, "greater than 0 and at most 31536000, not 0"),
        ("export.timeouts.album", -1.5, "not -1.5"),
        ("export.timeouts.run", "600", 'must be a number .* not "600"'),
        ("export.timeouts", 600, "must be an object .* not 600"),
        ("export.retries.attempts", 0, "from 1 to 100, not 0"),
        ("export.workers", 65, "from 0 to 64, not 65"),
        ("export.max_pixels", 10**400, "must be a whole number from 1 to"),
        ("export.timeouts.photo", 10**400, "must be a number greater than 0"),
        ("export.albums", "Best", 'must be a list of texts, not "Best"'),
        ("export.albums", ["ok", 3], r"export\.albums\[1\]: must be a text"),
        ("export.albums", [""], r"export\.albums\[0\]: must be a text that is not empty"),
        ("export.library", 3, "must be a path or null, not 3"),
        ("export.library", "", "is empty"),
        ("export.library", "/x\0y", "holds a NUL"),
        ("export.library", "/x_{timestamp}", "filled in only in logging.file"),
        ("cleanup.archive_retention_days", -1, "from 0 to 36500, not -1"),
        ("cleanup.keep_last", 0, "not 0"),
        ("logging.level", "info", "Did you mean 'INFO'"),
        ("logging.file", "logs/", "must name a file"),
        ("pipeline.stages", ["exprt"], "no stage 'exprt'. Did you mean 'export'"),
        ("pipeline.stages", [], "names no stage"),
        ("pipeline.stages", "export", "must be a list of texts"),
        ("paths.archive", 5, "must be a text of 1 to 4096 characters, not 5"),
        ("paths.archive", "", "must be a text of 1 to 4096 characters"),
        ("paths.archive", " ", "is empty"),
        ("paths.archive", "x\0", "holds a NUL"),
        ("paths.archive", "~nobody-of-this-name/x", "names no user's home"),
        ("paths.archive", "{arch}/x", r"\{arch\} is no key of paths\. Did you mean 'archive'"),
        ("paths.archive", "{archive}/x", "archive → archive"),
        ("paths.archive", "${NOT_SET}/x", "NOT_SET is not set"),
        ("paths.archive", "{", "a literal brace is written twice"),
        ("paths.archive", "x" * 5000, "at most|of 1 to 4096"),
        ("paths.archive", "{lib_root}/{timestamp}", "filled in only in logging.file"),
        ("export", None, "must be an object .* not null"),
        ("paths", [], "must be an object .* not an empty list"),
    ],
)
def test_a_wrong_value_is_named_with_file_key_and_remedy(root: Path, section: str, value: object, words: str) -> None:
    config: object = value
    for name in reversed(section.split(".")):
        config = {name: config}
    error = refused(root, config)
    assert re.search(words, str(error)), str(error)
    assert error.key.startswith(section)
    assert error.file == root.parent / "given.json"
    assert len(str(error)) < 1000 + len(str(error.file))


@pytest.mark.parametrize(
    ("key", "typed", "meant"),
    [("export", "sorce", "source"), ("export.timeouts", "albm", "album"), ("cleanup", "keep_lats", "keep_last")],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(root: Path, key: str, typed: str, meant: str) -> None:
    config: object = {typed: 1}
    for name in reversed(key.split(".")):
        config = {name: config}
    error = refused(root, config)
    assert error.key == f"{key}.{typed}"
    assert f"Did you mean '{meant}'" in str(error)


def test_all_problems_are_told_at_once(root: Path) -> None:
    error = refused(
        root,
        {
            "paths": {"archive": "{nope}", "state_db": "${NOT_SET}"},
            "export": {"jpeg_quality": 0, "library": "{gone}"},
            "logging": {"level": "x"},
        },
    )
    assert isinstance(error, ConfigErrors)
    keys = {problem.key for problem in error.errors}
    assert keys == {"paths.archive", "paths.state_db", "export.jpeg_quality", "export.library", "logging.level"}
    assert "export NOT_SET=" in error.next_step


def test_a_cycle_is_told_once_with_its_chain(root: Path) -> None:
    error = refused(root, {"paths": {"one": "{two}", "two": "{one}/x"}})
    assert isinstance(error, PlaceholderCycle)
    assert "one → two → one" in str(error)
    error = refused(root, {"paths": {"pipeline_base": "{archive}/p", "archive": "{pipeline_base}/a"}})
    assert isinstance(error, PlaceholderCycle)


def test_keys_and_values_with_control_characters_are_shown_harmlessly(root: Path) -> None:
    error = refused(root, {"export": {"\x1b[2J": 1, "source": "\x1b[31m\u009b"}})
    assert str(error).replace("\n", "").isprintable()


# ── the command line ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_line_wins_over_the_file_and_is_taken_literally(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    overrides = {
        "export.source": "folder",
        "export.library": "rel/{x}",
        "export.albums": ("a{b}", "${C}"),
        "export.timeouts.album": 7,
        "cleanup.enabled": False,
        "pipeline.stages": ("export",),
        "paths.apple_photos_export": root / "out",
    }
    config = {"export": {"source": "auto", "workers": 2}, "paths": {"raw_input": "in"}}
    settings = load(root, config, overrides=overrides)
    assert settings.export.source == "folder"
    assert settings.export.library == root.parent / "rel" / "{x}"
    assert settings.export.albums == ("a{b}", "${C}")
    assert settings.export.timeouts.album == 7
    assert settings.export.workers == 2
    assert settings.cleanup.enabled is False
    assert settings.pipeline.stages == ("export",)
    assert settings.paths.apple_photos_export == root / "out"


def test_a_wrong_value_of_the_command_line_is_not_blamed_on_the_file(root: Path) -> None:
    error = refused(root, {}, overrides={"export.jpeg_quality": 0})
    assert error.file is None
    assert "given on the command line" in str(error)
    with pytest.raises(LookupError):
        load(root, {}, overrides={"exprot.source": "folder"})


# ── folders that must not lie in each other ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("emptied", EMPTIED_KEYS)
@pytest.mark.parametrize("kept", ["state_db", "archive", "preprocessed", "watermarked_final", "pipeline_base"])
def test_nothing_that_must_last_lies_in_a_folder_that_cleanup_empties(root: Path, emptied: str, kept: str) -> None:
    error = refused(root, {"paths": {emptied: f"{{lib_root}}/{emptied}", kept: f"{{lib_root}}/{emptied}/inner"}})
    assert f"paths.{emptied}" in str(error)
    assert f"paths.{kept}" in str(error)


def test_logs_and_the_configuration_do_not_lie_in_a_folder_that_cleanup_empties(root: Path) -> None:
    error = refused(root, {"logging": {"file": "{metadata_dir}/{timestamp}.log"}})
    assert error.key == "logging.file"
    assert "paths.metadata_dir" in str(error)
    error = refused(root, {"paths": {"metadata_dir": str(root.parent), "lib_root": "/x"}})
    assert "paths.metadata_dir" in str(error)
    folder = root / "metadata"
    folder.mkdir(parents=True)
    (folder / "c.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"the configuration file: .* lies in paths\.metadata_dir"):
        load_settings(folder / "c.json", lib_root=root, environ={"HOME": "/home/me"})


def test_two_folders_that_cleanup_empties_are_not_one(root: Path) -> None:
    error = refused(root, {"paths": {"lora_processed": "{apple_photos_export}"}})
    assert "paths.lora_processed" in str(error)
    assert "paths.apple_photos_export" in str(error)


def test_the_catalog_may_lie_in_the_metadata_folder_and_in_no_other_that_is_emptied(root: Path) -> None:
    assert load(root, {"paths": {"master_catalog": "{metadata_dir}/deeper/m.json"}})
    assert load(root, {"paths": {"master_catalog": "/elsewhere/m.json"}})
    assert refused(root, {"paths": {"master_catalog": "{apple_photos_export}/m.json"}}).key == "paths.master_catalog"


@pytest.mark.parametrize("key", ["apple_photos_export", "archive", "metadata_dir", "pipeline_base"])
@pytest.mark.parametrize("place", ["/", "//", "/x/..", "~", "~/x/.."])
def test_no_folder_of_ours_is_the_root_or_the_home_directory(root: Path, key: str, place: str) -> None:
    error = refused(root, {"paths": {key: place}})
    assert f"paths.{key}: " in str(error)
    assert "is the root of the disk" in str(error) or "is your home directory" in str(error)


def test_lib_root_and_home_are_never_in_a_folder_that_is_emptied(root: Path) -> None:
    assert "holds lib_root" in str(refused(root, {"paths": {"lora_processed": "{lib_root}"}}))
    home = root.parent / "users" / "me"
    error = refused(root, {"paths": {"lora_processed": str(home.parent)}}, environ={"HOME": str(home)})
    assert "holds your home directory" in str(error)
    with pytest.raises(ConfigError, match="is your home directory"):
        load_settings(None, lib_root=home, environ={"HOME": str(home)})


def test_a_symbolic_link_hides_no_danger(root: Path) -> None:
    (root / "metadata").mkdir(parents=True)
    (root / "safe").symlink_to(root / "metadata")
    assert refused(root, {"paths": {"archive": "{lib_root}/safe/zips"}}).key == "paths.archive"


def test_a_symbolic_link_to_what_is_not_there_yet_hides_no_danger(root: Path) -> None:
    root.mkdir()
    (root / "safe").symlink_to(root / "metadata")
    assert refused(root, {"paths": {"archive": "{lib_root}/safe/zips"}}).key == "paths.archive"


def test_two_spellings_of_one_folder_are_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that ignores case gives `Albums` and `albums` one identity; on macOS that is assumed."""
    assert not lies_in(Path("/x/Albums/zips"), Path("/x/albums"))
    with monkeypatch.context() as patch:
        patch.setattr(settings_safety, "_identity", lambda path: (1, hash(path.casefold())))
        assert lies_in(Path("/x/Albums/zips"), Path("/x/albums"))
        assert same_place(Path("/x/Albums"), Path("/x/albums"))
        assert not lies_in(Path("/x/albums2"), Path("/x/albums"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert lies_in(Path("/x/Zoe\u0308/zips"), Path("/X/zo\u00cb"))
    assert not lies_in(Path("/x/albums2"), Path("/x/albums"))


def test_neither_source_nor_outputs_lie_in_each_other(root: Path) -> None:
    settings = load(root, {})
    library = root.parent / "L.photoslibrary"
    check_source_and_outputs(settings, library)
    with pytest.raises(ConfigError, match=r"lib_root: .* lies in the source") as caught:
        check_source_and_outputs(settings, root)
    assert str(caught.value).count("lies in the source") == 1
    with pytest.raises(ConfigError, match=r"export\.library: the source .* lies in paths\.apple_photos_export"):
        check_source_and_outputs(settings, settings.paths.apple_photos_export / "L.photoslibrary")
    check_source_and_outputs(settings, settings.paths.watermarked_final)
    inside = load(root, {"paths": {"archive": str(library / "zips")}})
    with pytest.raises(ConfigError, match=r"paths\.archive: .* lies in the source"):
        check_source_and_outputs(inside, library)
    library.mkdir()
    link = root.parent / "link"
    link.symlink_to(library)
    with pytest.raises(ConfigError, match=r"paths\.archive: .* lies in the source"):
        check_source_and_outputs(inside, link)


# ── only what is needed ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_unset_variable_in_a_path_nobody_asks_for_is_told_when_it_is_read(root: Path) -> None:
    settings = load(root, {"paths": {"preprocessed": "${SCALED}"}})
    with pytest.raises(EnvironmentUnset, match="SCALED"):
        _ = settings.paths.preprocessed
    assert "preprocessed" not in settings.as_json()["paths"]


# ── documentation and shipping ────────────────────────────────────────────────────────────────────────────────────


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        # A part of a section may be absent (`Part | None`); its keys are documented all the same.
        parts = (field.annotation, *get_args(field.annotation))
        annotation = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
        if annotation is not None:
            yield from keys_of(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.default


def documented(heading: str) -> dict[str, str]:
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    part = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {row.split("`")[1]: row for row in part.splitlines() if row.startswith("| `")}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_with_its_default(section: str) -> None:
    rows = documented(f"`{section}`")
    expected = dict(keys_of(SECTIONS[section]))
    assert rows.keys() == expected.keys()
    for key, default in expected.items():
        shown = default if section == "paths" else json.dumps(default)
        assert f"| `{shown}` |" in rows[key]


def test_every_key_of_a_stage_is_documented_with_its_default() -> None:
    """What every section has, once; in each section its own keys, and those with another default."""
    common = dict(keys_of(StageSection))
    pages = {"Sections of stages": common}
    models: dict[str, type[BaseModel]] = {**section_models(), "stages": CommandStageSettings}
    for section, model in models.items():
        pages[f"`{section}`"] = {key: value for key, value in keys_of(model) if (key, value) not in common.items()}
    for heading, expected in pages.items():
        rows = documented(heading)
        assert rows.keys() == expected.keys()
        for key, default in expected.items():
            assert default is PydanticUndefined or f"| `{json.dumps(default)}` |" in rows[key]


def test_the_examples_of_the_documentation_load(root: Path) -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    examples = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        assert load(root, example.encode()).warnings == ()


def test_shipped_files_are_found_in_the_package_first_and_then_beside_it(tmp_path: Path) -> None:
    package = tmp_path / "skicyclerun"
    (package / "shipped").mkdir(parents=True)
    name = "pipeline_config.json"
    with pytest.raises(SkicyclerunError, match=f"{name} is missing"):
        shipped_file(name, package=package)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / name).write_text("{}")
    assert shipped_file(name, package=package) == tmp_path / "config" / name
    (package / "shipped" / name).write_text("{}")
    assert shipped_file(name, package=package) == package / "shipped" / name
    with pytest.raises(SkicyclerunError, match="it ships"):
        shipped_file("../../etc/passwd")


def test_the_shipped_files_are_those_the_wheel_puts_into_the_package() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for name, folder in SHIPPED_FILES.items():
        assert f'"{folder}/{name}" = "skicyclerun/shipped/{name}"' in project


def test_reading_the_configuration_imports_no_image_stack() -> None:
    script = (
        "import sys; from skicyclerun.settings.load import load_settings; from pathlib import Path;"
        "load_settings(None, lib_root=Path('/data/lib'), environ={'HOME': '/home/me'});"
        "print([name for name in ('osxphotos', 'PIL', 'exiv2', 'aiosqlite', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def attempt(root: Path, config: object) -> Settings | ConfigError:
    try:
        return load(root, config)
    except ConfigError as error:
        return error


# ── anything at all ───────────────────────────────────────────────────────────────────────────────────────────────

_KEYS = st.sampled_from(
    [
        "export",
        "paths",
        "cleanup",
        "timeouts",
        "archive",
        "albums",
        "library",
        "file",
        "logging",
        "_x",
        "stages",
        "command",
        "output_folder",
        "{",
        "",
    ]
) | st.text(max_size=5)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.sampled_from(
        ["{archive}", "${UNSET}", "${UNSET:{lib_root}}", "~", "/", "{timestamp}", "\0", "\x1b[2J", "{input}{output}"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@hypothesis_settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from([*SECTIONS, "stages", "other"]), _VALUES | st.dictionaries(_KEYS, _VALUES, max_size=4)
    )
)
def test_any_object_is_a_configuration_or_is_refused_in_words(tmp_path: Path, config: dict[str, object]) -> None:
    outcome = attempt(tmp_path / "lib", config)
    if isinstance(outcome, ConfigError):
        assert str(outcome).replace("\n", "").isprintable()
    else:
        json.dumps(outcome.as_json())
        assert all(path.is_absolute() for path in outcome.paths.resolved().values())


@hypothesis_settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\/0123456789.eE-+ntf \n', max_size=60).map(str.encode))
def test_any_bytes_are_a_configuration_or_are_refused_in_words(tmp_path: Path, data: bytes) -> None:
    assert str(attempt(tmp_path / "lib", data))
