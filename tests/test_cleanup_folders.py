"""Which folders a cleanup archives, which it empties, and which it keeps: `cleanup.folders` and `cleanup.keep`."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest

from skicyclerun.errors import ConfigErrors
from skicyclerun.settings.cleanup_folders import NAMES_IN_ARCHIVE, cleanup_names
from tests.command_line import Ended, exported, make_library, skicyclerun, write_config
from tests.shared_libraries import tree_state
from tests.test_settings import load, refused

#: Days of a graphics processor, played by a second of Python: a command in the place of `lora_processing`.
RESTYLE: Final = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"
STAGES: Final = ("cleanup", "export", "preprocessing", "lora_processing")


class Place:
    """A library that was exported, scaled and restyled once, and what is configured for the next run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.library = make_library(folder / "photos", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Lake": ["IMG_3.jpg"]})
        self.lib_root = folder / "lib"
        self.pipeline = self.lib_root / "pipeline"

    def run(self, *words: str, stages: tuple[str, ...] = STAGES, **cleanup: Any) -> Ended:
        config = write_config(
            self.folder,
            pipeline={"stages": stages},
            export={"source": "folder", "library": str(self.library)},
            cleanup=cleanup,
            preprocessing={"format": "jpeg"},
            stages={"lora_processing": {"command": [sys.executable, "-c", RESTYLE, "{input}", "{output}"]}},
        )
        command = words or ("run", "--yes")
        return skicyclerun(*command, "--config", config, "--lib-root", self.lib_root)

    def archives(self) -> list[set[str]]:
        """Of each archive the folders that it holds files of, oldest first."""
        found = []
        for path in sorted((self.lib_root / "archive").glob("*.zip"), key=lambda path: path.stat().st_mtime_ns):
            with zipfile.ZipFile(path) as opened:
                names = [name.split("/") for name in opened.namelist() if not name.endswith("/")]
            found.append({parts[1] for parts in names if len(parts) > 2})
        return found

    def inodes(self, name: str) -> dict[str, int]:
        folder = self.pipeline / name
        return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}

    def entries(self) -> list[str]:
        master = json.loads((self.lib_root / "metadata" / "master.json").read_text())
        return sorted(str(Path(path).relative_to(self.pipeline)) for path in master)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    assert made.run().code == 0
    assert len(made.inodes("lora_processed")) == 3
    return made


def test_by_default_what_the_run_makes_anew_is_archived_and_emptied(place: Place) -> None:
    before = place.inodes("lora_processed")
    assert place.run().code == 0
    assert place.archives() == [{"albums", "scaled", "lora_processed", "metadata"}]
    assert place.inodes("lora_processed").keys() == before.keys()
    assert not set(place.inodes("lora_processed").values()) & set(before.values()), "they were made again"


def test_what_is_kept_is_archived_stays_and_is_still_known(place: Place) -> None:
    before, entries = place.inodes("lora_processed"), place.entries()
    ended = place.run(keep=["lora_processed"])
    assert ended.code == 0
    assert place.archives() == [{"albums", "scaled", "lora_processed", "metadata"}]
    assert place.inodes("lora_processed") == before
    assert place.entries() == entries
    verified = place.run("verify", "--full", keep=["lora_processed"])
    assert verified.code == 0, verified.stdout
    assert "3 up to date" in ended.stderr


def test_a_run_without_the_stage_keeps_its_pictures_and_their_rows(place: Place) -> None:
    before = place.inodes("lora_processed")
    assert place.run(stages=("cleanup", "export"), keep=["lora_processed"]).code == 0
    assert place.inodes("lora_processed") == before
    assert place.run(stages=("preprocessing", "lora_processing"), keep=["lora_processed"]).code == 0
    assert place.inodes("lora_processed") == before
    assert place.run("verify", "--full").code == 0


def test_kept_pictures_of_photos_that_are_gone_leave_into_an_archive(place: Place) -> None:
    (place.library / "Alps" / "IMG_2.jpg").unlink()
    assert place.run(keep=["lora_processed"]).code == 0
    assert sorted(place.inodes("lora_processed")) == ["Alps/IMG_1.jpg", "Lake/IMG_3.jpg"]
    assert place.archives()[-1] == {"stage_lora_processing"}
    assert place.run("verify", "--full").code == 0


@pytest.mark.parametrize("name", ["lora_processed", "lora_processing"])
def test_a_folder_goes_by_its_key_its_stage_and_its_name_in_archives(place: Place, name: str) -> None:
    before = place.inodes("lora_processed")
    assert place.run(keep=[name, "scaled"]).code == 0
    assert place.inodes("lora_processed") == before


def test_the_folders_that_are_named_and_no_others_are_put_away(place: Place) -> None:
    scaled, restyled = place.inodes("scaled"), place.inodes("lora_processed")
    ended = place.run("run", "--stages", "cleanup", "--force-clean", "--yes", folders=["albums", "metadata"])
    assert ended.code == 0
    assert place.archives() == [{"albums", "metadata"}]
    assert exported(place.lib_root) == {}
    assert (place.inodes("scaled"), place.inodes("lora_processed")) == (scaled, restyled)


def test_folders_beyond_the_default_ones_can_be_put_away_whatever_the_stages(place: Place) -> None:
    folders = ["apple_photos_export", "preprocessed", "lora_processed", "metadata_dir"]
    assert place.run(stages=("cleanup", "export"), folders=folders).code == 0
    assert place.archives() == [{"albums", "scaled", "lora_processed", "metadata"}]
    assert place.inodes("scaled") == {}
    assert place.run(stages=("preprocessing",)).code == 0
    assert len(place.inodes("scaled")) == 3, "its rows were no longer present, so they were made again"


def test_everything_kept_is_archived_and_nothing_is_emptied(place: Place) -> None:
    before = tree_state(place.pipeline)
    keep = ["albums", "lora_processed", "metadata"]
    words = ("run", "--stages", "cleanup", "--force-clean", "--yes")
    said = place.run(*words, "--dry-run", keep=keep).stderr
    assert "nothing is deleted" in said
    done = place.run(*words, keep=keep)
    assert (done.code, "The folders were left as they are." in done.stderr) == (0, True)
    assert tree_state(place.pipeline) == before
    assert place.archives() == [{"albums", "lora_processed", "metadata"}]


def test_what_is_emptied_and_what_is_kept_is_said_before_and_after(place: Place) -> None:
    words = ("run", "--stages", "cleanup", "--force-clean", "--yes")
    before = place.run(*words, "--dry-run", keep=["lora_processed"]).stderr
    assert "then empty albums, metadata; kept as it is: lora_processed." in before
    assert "The folders are empty now, but for lora_processed." in place.run(*words, keep=["lora_processed"]).stderr


def test_the_dry_run_does_not_count_what_is_kept_as_gone(place: Place) -> None:
    def counts(ended: Ended) -> str:
        return next(line for line in ended.stderr.splitlines() if line.startswith("  lora_processing:"))

    assert "3 to do" in counts(place.run("run", "--yes", "--dry-run"))
    assert "nothing to do, 3 up to date" in counts(place.run("run", "--yes", "--dry-run", keep=["lora_processed"]))


def test_a_name_that_no_folder_has_is_refused_with_the_nearest(tmp_path: Path) -> None:
    error = refused(tmp_path / "lib", {"cleanup": {"keep": ["lora_procesed"], "folders": ["albums", "archive"]}})
    assert isinstance(error, ConfigErrors)
    first, second = error.errors
    assert (first.key, second.key) == ("cleanup.folders[1]", "cleanup.keep[0]")
    assert "Did you mean 'lora_processed'?" in str(second)


def test_every_folder_of_a_stage_can_be_named(tmp_path: Path) -> None:
    known = cleanup_names([])
    assert {*NAMES_IN_ARCHIVE, *NAMES_IN_ARCHIVE.values(), "raw_input"} <= known.keys()
    assert load(tmp_path / "lib", {"cleanup": {"folders": sorted(known), "keep": sorted(known)}})


def test_a_folder_that_is_to_be_emptied_holds_nothing_that_must_last(tmp_path: Path) -> None:
    paths = {"archive": "{preprocessed}/zips"}
    assert load(tmp_path / "lib", {"paths": paths})
    assert refused(tmp_path / "lib", {"paths": paths, "cleanup": {"folders": ["scaled"]}}).key == "paths.archive"
