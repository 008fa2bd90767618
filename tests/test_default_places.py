"""The short way of `status` to where things are: taken only where `load_settings` would have nothing to say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from skicyclerun.settings.default_places import default_places
from skicyclerun.settings.later_stages import output_folders
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import default_config
from skicyclerun.stages.names import STAGE_OUTPUTS
from skicyclerun.stages.registry import STAGES
from tests.command_line import make_library, skicyclerun


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    """With a state database; what is in it does not matter here."""
    root = tmp_path / "lib {root}"
    (root / "state").mkdir(parents=True)
    (root / "state" / "skicyclerun.sqlite3").touch()
    return root


def written(lib_root: Path, config: object) -> None:
    file = lib_root / "config" / "pipeline_config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(config))


def changed(*keys: str, value: object) -> dict[str, Any]:
    config = default_config()
    section: Any = config
    for key in keys[:-1]:
        section = section.setdefault(key, {})
    section[keys[-1]] = value
    return config


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"export": {}, "paths": {}},
        {"_note": 1, "export": {"_why": "x", "timeouts": {"_y": [], "photo": 120.0}}},
        default_config(),
    ],
    ids=["shipped", "empty", "parts", "notes", "whole"],
)
def test_the_short_way_says_what_the_long_one_says(lib_root: Path, config: object) -> None:
    if config is not None:
        written(lib_root, config)
    places = default_places(None, lib_root, {})
    settings = load_settings(None, lib_root=lib_root, environ={})
    assert (settings.warnings, settings.problems) == ((), ())
    assert places is not None
    assert places.state_db == settings.paths.state_db
    assert places.export_folder == settings.paths.apple_photos_export
    assert places.stage_folders == output_folders(settings)
    assert places.remote is settings.cleanup.remote is None


@pytest.mark.parametrize(
    "config",
    [
        changed("export", "jpeg_quality", value=96),
        changed("export", "enabled", value=1),
        changed("cleanup", "keep_last", value=0),
        changed("cleanup", "remote", value="/elsewhere"),
        changed("paths", "archive", value="/elsewhere"),
        changed("paths", "raw_input", value="{lib_root}/raw"),
        changed("export", "qualty", value=1),
        changed("exprot", value={}),
        changed("other_program", value={}),
        changed("export", value=None),
        changed("stages", "own", value={"command": ["cp", "{input}", "{output}"]}),
        [],
    ],
    ids=lambda config: "",
)
def test_whatever_is_not_the_default_goes_the_long_way(lib_root: Path, config: object) -> None:
    written(lib_root, config)
    assert default_places(None, lib_root, {}) is None


@pytest.mark.parametrize("environ", [{"HOME": "."}, {"HOME": "metadata/home"}])
def test_folders_that_endanger_each_other_go_the_long_way(lib_root: Path, environ: Mapping[str, str]) -> None:
    assert default_places(None, lib_root, {"HOME": os.path.normpath(lib_root / environ["HOME"])}) is None


def test_a_folder_that_is_linked_into_another_goes_the_long_way(lib_root: Path) -> None:
    (lib_root / "metadata").mkdir()
    (lib_root / "archive").symlink_to(lib_root / "metadata")
    assert default_places(None, lib_root, {}) is None


def test_without_a_state_or_a_name_for_the_place_the_long_way_says_so(lib_root: Path, tmp_path: Path) -> None:
    assert default_places(None, tmp_path, {}) is None
    assert default_places(None, None, {}) is None
    assert default_places(None, None, {"SKICYCLERUN_LIB_ROOT": str(lib_root)}) is not None


def test_the_names_of_the_stages_are_those_of_the_stages() -> None:
    assert list(STAGE_OUTPUTS.items()) == [(stage.name, stage.output) for stage in STAGES]


def test_both_ways_give_the_same_report(tmp_path: Path) -> None:
    library = make_library(tmp_path / "photos", {"Alps": ["IMG_1.jpg"], "Sea": ["IMG_2.jpg", "IMG_3.jpg"]})
    root = tmp_path / "lib"
    assert skicyclerun("run", "--lib-root", root, "--library", library).code == 0
    quick = skicyclerun("status", "--lib-root", root)
    written(root, {"logging": {"level": "DEBUG"}})
    assert default_places(None, root) is None
    slow = skicyclerun("status", "--lib-root", root)
    assert (quick.code, quick.stdout, quick.stderr) == (slow.code, slow.stdout, slow.stderr)
