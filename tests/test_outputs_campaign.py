"""Kill runs that bring sidecars, originals, smaller pictures and hard links; resume them; compare.

The same campaign as tests/test_crash_campaign.py, with these settings on: names, bytes, times, catalog, status and
archive are those of a run never interrupted.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.fork_server import ForkServer, fork_server
from tests.shared_libraries import TEST_LIBRARY, copy_library
from tests.test_crash_campaign import (
    Campaign,
    carry_to_the_end,
    compare,
    make_library,
    started,
    undisturbed,
)

pytestmark = pytest.mark.crash

CRASHES = min(3, int(os.environ.get("SKICYCLERUN_CRASHES", "2")))
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261126"))
SETTINGS = {"sidecar": "xmp", "keep_original": True, "max_size": 50}


def configure(lib_root: Path, **export: object) -> None:
    (lib_root / "config").mkdir(parents=True, exist_ok=True)
    given = {"group_photos": 2, "group_seconds": 30, "workers": 2} | export
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps({"export": given}))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def campaign(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A fresh run over the results of an earlier one."""
    base = tmp_path_factory.mktemp("campaign")
    library, earlier = base / "library", base / "earlier" / "root"
    make_library(library)
    configure(earlier, **SETTINGS)
    assert started(earlier, "run", "--library", library).returncode == 3
    return undisturbed(server, base, earlier, "run", "--library", str(library))


@pytest.fixture(scope="module")
def update_campaign(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """An update under other settings, in which a photo changed and others left with what lies beside them."""
    base = tmp_path_factory.mktemp("update")
    library, earlier = base / "library", base / "earlier" / "root"
    make_library(library)
    configure(earlier, **SETTINGS)
    assert started(earlier, "run", "--library", library).returncode == 3
    shutil.rmtree(library / "2024")
    (library / "Alps" / "IMG_1.png").unlink()
    Image.new("RGB", (50, 30), (1, 2, 3)).save(library / "Alps" / "IMG_2.jpg")
    configure(earlier, **(SETTINGS | {"sidecar": "json"}))
    ended = undisturbed(server, base, earlier, "run", "--update", "--library", str(library))
    return replace(ended, replaced=frozenset({"IMG_2.jpg"}))


@pytest.fixture(scope="module")
def linked_campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """A real library, whose photos are in several albums."""

    # osxphotos leaves a temporary folder to the end of the process, and Python has a word on it.
    warnings = "error,ignore::ResourceWarning"
    base = tmp_path_factory.mktemp("linked")
    library, earlier = copy_library(TEST_LIBRARY, base), base / "earlier" / "root"
    configure(earlier, duplicates="hardlink", keep_original=True)
    assert started(earlier, "run", "--library", library, warnings=warnings).returncode == 3
    with fork_server(tmp_path_factory.mktemp("lenient"), imports=["osxphotos"], warnings=warnings) as server:
        yield undisturbed(server, base, earlier, "run", "--library", str(library))


def copied(campaign: Campaign, tmp_path: Path) -> Path:
    place = tmp_path / "root"
    shutil.copytree(campaign.earlier, place, symlinks=True)
    return place


@pytest.mark.parametrize(
    "fault",
    [
        "photo.staged:3",
        "originals.made",
        "originals.made:2",
        "originals.synced",
        "originals.synced:3",
        "group.synced:2",
        "group.first_renamed:2",
        "group.renamed:3",
        "group.committed:2",
        "clean.moved",
    ],
)
def test_a_run_with_files_beside_its_photos_killed_and_resumed_equals_one_never_interrupted(
    campaign: Campaign, tmp_path: Path, fault: str
) -> None:
    place = copied(campaign, tmp_path)
    assert carry_to_the_end(campaign, place, iter([fault])) == 1, f"{fault} was not reached"
    compare(campaign, place)


@pytest.mark.parametrize("number", range(CRASHES))
def test_a_run_with_files_beside_its_photos_killed_at_random_equals_one_never_interrupted(
    campaign: Campaign, tmp_path: Path, number: int
) -> None:
    place = copied(campaign, tmp_path)
    chance = random.Random(SEED + number)
    moments = [chance.uniform(0.2, 1.0) * campaign.seconds for _ in range(chance.randint(1, 4))]
    carry_to_the_end(campaign, place, iter(moments))
    compare(campaign, place)


@pytest.mark.parametrize(
    "fault", ["album.started", "originals.synced", "group.renamed", "archive.proved", "departures.removed"]
)
def test_an_update_under_other_settings_killed_and_resumed_equals_one_never_interrupted(
    update_campaign: Campaign, tmp_path: Path, fault: str
) -> None:
    place = copied(update_campaign, tmp_path)
    assert carry_to_the_end(update_campaign, place, iter([fault])) == 1, f"{fault} was not reached"
    compare(update_campaign, place)


@pytest.mark.parametrize("fault", ["group.renamed:4", "group.committed:3"])
def test_a_run_with_hard_links_killed_and_resumed_equals_one_never_interrupted(
    linked_campaign: Campaign, tmp_path: Path, fault: str
) -> None:
    place = copied(linked_campaign, tmp_path)
    assert carry_to_the_end(linked_campaign, place, iter([fault])) == 1, f"{fault} was not reached"
    compare(linked_campaign, place)
    albums = place / "pipeline" / "albums"
    assert max(path.stat().st_nlink for path in albums.rglob("*") if path.is_file()) > 1
