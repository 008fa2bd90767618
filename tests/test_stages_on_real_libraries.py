"""All five stages over the real Photos libraries: places of their positions, and an account of every picture."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image

from tests.command_line import Ended, skicyclerun
from tests.shared_libraries import MEDIA_TYPES_LIBRARY, TEST_LIBRARY

pytestmark = pytest.mark.long

FIVE: Final = ("metadata_extraction", "geocode_sweep", "preprocessing", "watermarking", "post_lora_watermarking")
ALL: Final = ("cleanup", "export", *FIVE[:4], "lora_processing", FIVE[4])


def run_all(lib_root: Path, library: Path) -> Ended:
    """All five, with a copying command in the place of the stage that restyles."""
    (lib_root / "config").mkdir(parents=True, exist_ok=True)
    restyle = {"command": ["cp", "{input}", "{output}"], "extension": ".webp"}
    config = {"stages": {"lora_processing": restyle}, "watermark": {"line1": "{place}", "line2": "© {year}"}}
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps(config))
    return skicyclerun("run", "--library", library, "--lib-root", lib_root, "--stages", ",".join(ALL), "--yes")


def stages_of(lib_root: Path) -> dict[str, dict[str, Any]]:
    answer = skicyclerun("status", "--photos", "--json", "--lib-root", lib_root)
    assert answer.code == 0, answer.stderr
    return {stage["name"]: stage for stage in json.loads(answer.stdout)["stages"]}


def entries(lib_root: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((lib_root / "metadata" / "master.json").read_text())
    assert isinstance(found, dict)
    return {str(Path(path).relative_to(lib_root / "pipeline")): entry for path, entry in found.items()}


@pytest.fixture(scope="module")
def with_albums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all stages made of the library with albums; some of its photos are missing."""
    lib_root = tmp_path_factory.mktemp("albums")
    ended = run_all(lib_root, TEST_LIBRARY)
    assert ended.code == 3, ended.stderr
    return lib_root


@pytest.fixture(scope="module")
def with_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all stages made of the library of media types."""
    lib_root = tmp_path_factory.mktemp("media")
    ended = run_all(lib_root, MEDIA_TYPES_LIBRARY)
    assert ended.code == 0, ended.stderr
    return lib_root


@pytest.mark.parametrize("made", ["with_albums", "with_media"])
def test_every_picture_is_accounted_for_in_every_stage(made: str, request: pytest.FixtureRequest) -> None:
    lib_root: Path = request.getfixturevalue(made)
    exported = [entry for entry in entries(lib_root).values() if entry["type"] == "exported"]
    report = json.loads(skicyclerun("status", "--json", "--lib-root", lib_root).stdout)
    missing = report["totals"]["missing"]
    for name, stage in stages_of(lib_root).items():
        totals = stage["totals"]
        assert totals["failed"] == totals["pending"] == 0, (name, totals)
        assert totals["done"] + totals["left_out"] + totals["waiting"] == totals["expected"], (name, totals)
        assert totals["waiting"] == missing, "what the library does not hold, and nothing else"
        for album in stage["albums"]:
            spoken = sum(picture["status"] in ("done", "left_out") for picture in album["pictures"])
            assert spoken + album["waiting"] == album["expected"], (name, album["title"])
    files = {
        "preprocessing": sorted((lib_root / "pipeline" / "scaled").rglob("*.*")),
        "watermarking": sorted((lib_root / "pipeline" / "watermarked_final").rglob("*.*")),
    }
    done = {name: stage["totals"]["done"] for name, stage in stages_of(lib_root).items()}
    assert len(files["preprocessing"]) == done["preprocessing"] <= len(exported)
    assert len(files["watermarking"]) == done["watermarking"] + done["post_lora_watermarking"]
    for path in (*files["preprocessing"], *files["watermarking"]):
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "WEBP"
            assert max(picture.size) <= 2048


def test_positions_of_the_library_come_out_as_places(with_albums: Path) -> None:
    found = entries(with_albums)
    places = {name: entry["location"] for name, entry in found.items() if "location" in entry}
    with_position = [name for name, entry in found.items() if entry["type"] == "exported" and "gps" in entry]
    assert sorted(places) == sorted(with_position)
    assert len(places) >= 2
    assert all({"formatted", "country", "country_code", "provider"} <= place.keys() for place in places.values())
    marked = {
        entry["original_path"].removeprefix(f"{with_albums}/pipeline/"): entry["watermark"]["text"]
        for entry in found.values()
        if entry["type"] == "watermarked" and "watermark" in entry
    }
    for name, place in places.items():
        assert place["country"] in marked[name]


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_a_picture_for_publishing_holds_no_position(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    config = {"preprocessing": {"metadata": "strip_location"}}
    (tmp_path / "config" / "pipeline_config.json").write_text(json.dumps(config))
    stages = "export,metadata_extraction,preprocessing,watermarking"
    skicyclerun("run", "--library", TEST_LIBRARY, "--lib-root", tmp_path, "--stages", stages, "--yes")
    published = sorted((tmp_path / "pipeline" / "watermarked_final").rglob("*.webp"))
    assert len(published) == 12
    answer = subprocess.run(["exiftool", "-json", "-G1", "-a", *published], capture_output=True, check=True).stdout
    for facts in json.loads(answer):
        told = [key for key in facts if "GPS" in key or key.rpartition(":")[2] in ("City", "Country", "State")]
        assert told == [], facts["SourceFile"]


def test_a_second_run_of_the_stages_makes_nothing_again(with_albums: Path) -> None:
    # The last of this module, since it runs there once more.
    before = {path: path.stat().st_ino for path in (with_albums / "pipeline").rglob("*.webp")}
    again = skicyclerun("run", "--lib-root", with_albums, "--stages", ",".join(ALL[2:]), "--yes")
    assert again.code == 3  # what the library does not hold is still waited for
    assert {path: path.stat().st_ino for path in (with_albums / "pipeline").rglob("*.webp")} == before
    assert all(stage["made"] == 0 for stage in stages_of(with_albums).values())
