"""A photo stays itself: moved, renamed or exported again, its entry keeps what other programs put there.

Played with a folder of albums, whose photos are known again by their bytes, and with a source that keeps a photo's id
whatever album it is in, as Photos does.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from skicyclerun.actors.messages import Intent
from skicyclerun.models import Fetched, Photo
from skicyclerun.progress.plain_text import PlainText
from skicyclerun.run.plan import RunRequest
from skicyclerun.run.session import RunSession
from skicyclerun.settings.load import load_settings
from skicyclerun.sources.folder_tree import FolderTree
from tests.staged_sample import Staged

GEO = {"formatted": "Zermatt, Switzerland", "provider": "another program"}


class Catalogued(Staged):
    """A library and its catalog, into which another program writes as well."""

    @property
    def master(self) -> Path:
        return self.lib_root / "metadata" / "master.json"

    def path(self, name: str) -> str:
        """`albums/Alps/a.jpg` as a key of the catalog."""
        return str(self.lib_root / "pipeline" / name)

    def catalog(self) -> dict[str, Any]:
        loaded = json.loads(self.master.read_text())
        assert isinstance(loaded, dict)
        return loaded

    def entry(self, name: str) -> dict[str, Any]:
        entry = self.catalog()[self.path(name)]
        assert isinstance(entry, dict)
        return entry

    def write(self, entries: Mapping[str, Any]) -> None:
        """As another program does: a new file, renamed over the old one."""
        beside = self.master.with_name("theirs")
        beside.write_text(json.dumps(entries, indent=2))
        os.replace(beside, self.master)

    def restyle(self, name: str, *, style: str = "ink") -> str:
        """What the restyling of an existing pipeline does for `Alps/a.jpg`: a file, its entry, and keys of its own."""
        restyled = self.lib_root / "pipeline" / "lora_processed" / Path(name).with_suffix(f".{style}.webp")
        restyled.parent.mkdir(parents=True, exist_ok=True)
        restyled.write_bytes(f"{style} of {name}".encode())
        entries = self.catalog()
        original = self.path(f"albums/{name}")
        entries[str(restyled)] = {"type": "lora_processed", "source_path": original, "style": style, "weight": 0.80}
        entry = entries[original]
        entry["location"] = GEO
        entry["my_rating"] = 4
        entry["source"]["imported_by"] = "theirs"
        entry["derivatives"] = {**entry.get("derivatives", {}), "lora_processing": [str(restyled)]}
        entry["pipeline"]["stages"].append("lora_processing")
        entry["pipeline"]["timestamps"]["lora_processing"] = "2026-05-05T05:05:05Z"
        self.write(entries)
        return str(restyled)

    def former(self) -> list[str]:
        """Paths of what is kept until its photo is somewhere again."""
        return [path for (path,) in self.sql("SELECT path FROM former_entries ORDER BY path")]

    def findings(self, *options: str) -> list[tuple[str, str]]:
        """(finding, what it says) of `verify`, where the lib_root is left out."""
        report = self.run("verify", "--json", *options).json
        found = [*report["other"], *(each for album in report["albums"] for each in album["problems"])]
        return [(each["finding"], each["detail"].replace(str(self.lib_root), "ROOT")) for each in found]


@pytest.fixture
def sample(tmp_path: Path) -> Catalogued:
    sample = Catalogued(tmp_path)
    sample.picture("Alps/a.jpg", 10)
    sample.picture("Alps/b.jpg", 60)
    sample.picture("Coast/c.jpg", 110)
    assert sample.export().code == 0
    return sample


def keeps_what_others_said(sample: Catalogued, name: str, restyled: str) -> None:
    entry = sample.entry(f"albums/{name}")
    assert entry["location"] == GEO
    assert entry["my_rating"] == 4
    assert entry["source"]["imported_by"] == "theirs"
    assert entry["derivatives"]["lora_processing"] == [restyled]
    assert entry["pipeline"]["stages"] == ["export", "lora_processing"]
    assert entry["pipeline"]["timestamps"]["lora_processing"] == "2026-05-05T05:05:05Z"
    # What is ours is true of the new place.
    assert entry["file_path"] == sample.path(f"albums/{name}")
    assert entry["album_name"] == name.split("/")[0]
    assert entry["source"]["album_title"] == name.split("/")[0]
    assert sample.catalog()[restyled] == {
        "type": "lora_processed",
        "source_path": sample.path(f"albums/{name}"),
        "style": "ink",
        "weight": 0.80,
    }


def move(sample: Staged, old: str, new: str) -> None:
    target = sample.library / new
    target.parent.mkdir(exist_ok=True)
    (sample.library / old).rename(target)


@pytest.mark.parametrize("new", ["Coast/a.jpg", "Alps/Matterhorn.jpg", "New album/a.jpg"])
def test_a_photo_that_was_moved_or_renamed_keeps_what_other_programs_said(sample: Catalogued, new: str) -> None:
    restyled = sample.restyle("Alps/a.jpg")
    move(sample, "Alps/a.jpg", new)
    assert sample.update().code == 0
    keeps_what_others_said(sample, new, restyled)
    assert sample.path("albums/Alps/a.jpg") not in sample.catalog()
    assert sample.former() == []
    assert sample.findings() == []


def test_an_album_that_was_renamed_takes_all_of_it_along(sample: Catalogued) -> None:
    restyled = {name: sample.restyle(name) for name in ("Alps/a.jpg", "Alps/b.jpg")}
    (sample.library / "Alps").rename(sample.library / "Valais")
    assert sample.update().code == 0
    for name, path in restyled.items():
        keeps_what_others_said(sample, name.replace("Alps", "Valais"), path)
    assert sample.findings() == []


def test_a_photo_exported_again_after_its_file_was_deleted_by_hand_keeps_it(sample: Catalogued) -> None:
    restyled = sample.restyle("Alps/a.jpg")
    entries = sample.catalog()
    entries[sample.path("albums/Alps/a.jpg")]["description"] = "said by a language model"
    sample.write(entries)
    (sample.outputs("albums") / "Alps" / "a.jpg").unlink()
    assert sample.update().code == 0
    keeps_what_others_said(sample, "Alps/a.jpg", restyled)
    assert sample.entry("albums/Alps/a.jpg")["description"] == "said by a language model"


def test_what_a_stage_of_ours_says_later_leaves_a_language_models_word_alone(sample: Catalogued) -> None:
    entries = sample.catalog()
    entries[sample.path("albums/Alps/a.jpg")]["description"] = "said by a language model"
    sample.write(entries)
    assert sample.run("--stages", "metadata_extraction").code == 0
    sample.configure(metadata_extraction={"geocoding": {"enabled": False}})
    (sample.outputs("albums") / "Alps" / "a.jpg").unlink()
    assert sample.update("metadata_extraction").code == 0
    assert sample.entry("albums/Alps/a.jpg")["description"] == "said by a language model"


def test_a_photo_that_comes_back_runs_later_still_has_it(sample: Catalogued) -> None:
    restyled = sample.restyle("Alps/a.jpg")
    away = sample.folder / "away.jpg"
    (sample.library / "Alps" / "a.jpg").rename(away)
    assert sample.update().code == 0
    assert sample.path("albums/Alps/a.jpg") not in sample.catalog()
    assert sample.former() == [sample.path("albums/Alps/a.jpg")]
    assert sample.update().code == 0
    away.rename(sample.library / "Coast" / "again.jpg")
    assert sample.update().code == 0
    keeps_what_others_said(sample, "Coast/again.jpg", restyled)
    assert sample.former() == []


def test_a_copy_is_another_photo(sample: Catalogued) -> None:
    restyled = sample.restyle("Alps/a.jpg")
    shutil.copy2(sample.library / "Alps" / "a.jpg", sample.library / "Coast" / "copy.jpg")
    assert sample.update().code == 0
    keeps_what_others_said(sample, "Alps/a.jpg", restyled)
    copy = sample.entry("albums/Coast/copy.jpg")
    assert copy["sha256"] == sample.entry("albums/Alps/a.jpg")["sha256"]
    assert {"location", "my_rating", "derivatives"}.isdisjoint(copy)
    # Nor does it become the first one when that goes: it was there beside it.
    assert sample.update().code == 0
    (sample.library / "Alps" / "a.jpg").unlink()
    assert sample.update().code == 0
    assert sample.entry("albums/Coast/copy.jpg") == copy
    assert sample.former() == [sample.path("albums/Alps/a.jpg")]


def test_one_of_two_copies_that_moves_takes_its_own_along(sample: Catalogued) -> None:
    shutil.copy2(sample.library / "Alps" / "a.jpg", sample.library / "Coast" / "copy.jpg")
    assert sample.update().code == 0
    restyled = sample.restyle("Alps/a.jpg")
    move(sample, "Alps/a.jpg", "Lake/a.jpg")
    assert sample.update().code == 0
    keeps_what_others_said(sample, "Lake/a.jpg", restyled)
    assert "my_rating" not in sample.entry("albums/Coast/copy.jpg")


def test_albums_gone_through_one_after_the_other_lose_nothing(sample: Catalogued) -> None:
    restyled = sample.restyle("Alps/a.jpg")
    move(sample, "Alps/a.jpg", "Coast/a.jpg")
    assert sample.run("--update", "--stages", "export", "--album", "Alps").code == 0
    assert sample.path("albums/Alps/a.jpg") not in sample.catalog()
    assert sample.run("--update", "--stages", "export", "--album", "Coast").code == 0
    keeps_what_others_said(sample, "Coast/a.jpg", restyled)


def test_what_the_new_entry_was_told_already_counts(sample: Catalogued) -> None:
    sample.restyle("Alps/a.jpg")
    move(sample, "Alps/a.jpg", "Coast/a.jpg")
    assert sample.run("--update", "--stages", "export", "--album", "Coast").code == 0
    entries = sample.catalog()
    entries[sample.path("albums/Coast/a.jpg")] |= {"my_rating": 5, "seen": True}
    sample.write(entries)
    assert sample.update().code == 0
    entry = sample.entry("albums/Coast/a.jpg")
    assert (entry["my_rating"], entry["seen"], entry["location"]) == (5, True, GEO)


def test_what_stages_made_follows_with_what_others_said_of_it(sample: Catalogued) -> None:
    assert sample.run("--stages", "preprocessing").code == 0
    entries = sample.catalog()
    old = sample.path("scaled/Alps/a.webp")
    entries[old]["uploaded"] = {"bucket": "b"}
    entries["/elsewhere/page.html"] = {"type": "page", "source_path": old, "derivatives": [old, "/other"]}
    sample.write(entries)
    move(sample, "Alps/a.jpg", "Coast/a.jpg")
    assert sample.update("preprocessing").code == 0
    new = sample.path("scaled/Coast/a.webp")
    entries = sample.catalog()
    assert old not in entries
    assert entries[new]["uploaded"] == {"bucket": "b"}
    assert entries[new]["source_path"] == sample.path("albums/Coast/a.jpg")
    assert entries["/elsewhere/page.html"] == {"type": "page", "source_path": new, "derivatives": [new, "/other"]}
    assert sample.entry("albums/Coast/a.jpg")["derivatives"] == {"preprocessing": new}


def test_a_cleanup_that_empties_the_metadata_folder_begins_the_catalog_anew(sample: Catalogued) -> None:
    sample.restyle("Alps/a.jpg")
    (sample.library / "Alps" / "b.jpg").unlink()
    assert sample.update().code == 0
    assert sample.former() == [sample.path("albums/Alps/b.jpg")]
    assert sample.run("--yes").code == 0
    assert {"location", "my_rating", "derivatives"}.isdisjoint(sample.entry("albums/Alps/a.jpg"))
    assert sample.former() == []


def test_a_fresh_run_that_keeps_the_metadata_folder_keeps_what_other_programs_said(sample: Catalogued) -> None:
    sample.configure(cleanup={"keep": ["metadata"]})
    stays, moves = sample.restyle("Alps/a.jpg"), sample.restyle("Alps/b.jpg")
    move(sample, "Alps/b.jpg", "Coast/b.jpg")
    assert sample.run("--yes", "--stages", "cleanup,export").code == 0
    for name, path in (("Alps/a.jpg", stays), ("Coast/b.jpg", moves)):
        # What was restyled was not kept, and is in the archive.
        assert not Path(path).exists()
        keeps_what_others_said(sample, name, path)


def test_numbers_and_escapes_of_other_programs_stay_to_the_letter(sample: Catalogued) -> None:
    restyled = sample.restyle("Alps/a.jpg")
    text = sample.master.read_text().replace('"weight": 0.8', '"weight": 0.800, "seed": 123456789012345678901234567890')
    sample.master.write_text(text.replace('"style": "ink"', '"style": "\\u0069nk"'))
    move(sample, "Alps/a.jpg", "Coast/a.jpg")
    assert sample.update().code == 0
    text = sample.master.read_text()
    assert '"weight": 0.800, "seed": 123456789012345678901234567890' in text
    assert '"style": "\\u0069nk"' in text
    assert sample.catalog()[restyled]["source_path"] == sample.path("albums/Coast/a.jpg")


# ── verify ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_verify_names_the_entries_that_point_nowhere(sample: Catalogued) -> None:
    restyled = sample.restyle("Alps/a.jpg")
    entries = sample.catalog()
    entries["/not/there.webp"] = {"type": "lora_processed", "source_path": sample.path("albums/Alps/b.jpg")}
    entries[sample.path("albums/Alps/b.jpg")]["derivatives"] = {"theirs": {"small": ["/nowhere.webp", "relative.webp"]}}
    entries["a name"] = {"type": "no path", "source_path": "https://example.org/a.jpg"}
    sample.write(entries)
    (sample.library / "Alps" / "a.jpg").unlink()
    assert sample.update().code == 0
    gone = "ROOT/pipeline/albums/Alps/a.jpg"
    assert sample.findings() == [
        ("points_nowhere", "its derivatives names /nowhere.webp, which has no entry and is not there"),
        ("points_nowhere", f"its source_path names {gone}, which has no entry and is not there"),
        ("points_nowhere", "there is no such file"),
    ]
    report = sample.run("verify")
    assert report.code == 3
    assert restyled in report.stdout
    assert "lets them follow photos that are elsewhere now" in report.stdout
    # A repair leaves to other programs what is theirs.
    before = sample.catalog()
    assert sample.run("verify", "--repair").code == 3
    assert sample.catalog() == before


def test_a_repair_lets_entries_follow_a_photo_that_moved_before_anybody_looked_after_them(sample: Catalogued) -> None:
    restyled = sample.restyle("Alps/a.jpg")
    page = sample.path("albums/Alps/never.jpg")
    move(sample, "Alps/a.jpg", "Coast/a.jpg")
    assert sample.update().code == 0
    entries = sample.catalog()
    entries[restyled]["source_path"] = sample.path("albums/Alps/a.jpg")
    sample.write(entries)
    assert [finding for finding, _ in sample.findings()] == ["points_nowhere"]
    repaired = sample.run("verify", "--repair")
    assert repaired.code == 0, repaired.stdout
    assert "the catalog written" in repaired.stdout
    keeps_what_others_said(sample, "Coast/a.jpg", restyled)
    # What was never a photo of ours is nobody's to guess.
    entries = sample.catalog()
    entries[restyled]["source_path"] = page
    sample.write(entries)
    assert sample.run("verify", "--repair").code == 3
    assert sample.catalog()[restyled]["source_path"] == page


# ── a source whose photos have ids of their own ───────────────────────────────────────────────────────────────────


class NamedPhotos(FolderTree):
    """A folder of albums in which a file's name before the first blank is its photo's id, in whatever album it is."""

    async def photos(self, album_id: str) -> list[Photo]:
        listed = await super().photos(album_id)
        named = [replace(photo, id=f"id of {photo.original_filename.partition(' ')[0]}") for photo in listed]
        self._real = {**getattr(self, "_real", {}), **dict(zip(named, listed, strict=True))}
        return named

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        return await super().fetch(self._real[photo], attempt_directory)

    def locate(self, photo: Photo) -> Fetched:
        return super().locate(self._real[photo])


def update_by_id(sample: Catalogued, *albums: str) -> None:
    """An update of these albums, all by default, in which photos have ids."""
    settings = load_settings(None, lib_root=sample.lib_root, overrides={"export.mode": "update"})
    request = RunRequest(Intent.FRESH, settings, stages=("export",), selection=albums)
    session = RunSession(
        request,
        renderer=PlainText(io.StringIO(), quiet=True),
        make=lambda kind, library, settings, options: NamedPhotos(sample.library),
    )
    report = anyio.run(session.carry_out).report
    assert report is not None
    assert report.accounted_for


@pytest.fixture
def by_id(tmp_path: Path) -> Catalogued:
    sample = Catalogued(tmp_path)
    sample.picture("Alps/a 1.jpg", 10)
    sample.picture("Alps/b.jpg", 60)
    update_by_id(sample)
    return sample


def test_a_photo_that_was_moved_and_changed_is_known_by_its_id(by_id: Catalogued) -> None:
    restyled = by_id.restyle("Alps/a 1.jpg")
    move(by_id, "Alps/a 1.jpg", "Coast/a 1.jpg")
    by_id.picture("Coast/a 1.jpg", 99)
    update_by_id(by_id)
    keeps_what_others_said(by_id, "Coast/a 1.jpg", restyled)


def test_what_a_language_model_said_of_other_bytes_does_not_move_along(by_id: Catalogued) -> None:
    entries = by_id.catalog()
    entries[by_id.path("albums/Alps/a 1.jpg")]["description"] = "of a green picture"
    by_id.write(entries)
    move(by_id, "Alps/a 1.jpg", "Coast/a 1.jpg")
    update_by_id(by_id)
    assert by_id.entry("albums/Coast/a 1.jpg")["description"] == "of a green picture"
    move(by_id, "Coast/a 1.jpg", "Lake/a 1.jpg")
    by_id.picture("Lake/a 1.jpg", 99)
    update_by_id(by_id)
    assert "description" not in by_id.entry("albums/Lake/a 1.jpg")


def test_the_id_goes_before_the_bytes(by_id: Catalogued) -> None:
    """One photo is moved and changed, another one, new, has the bytes that it had."""
    restyled = by_id.restyle("Alps/a 1.jpg")
    shutil.copy2(by_id.library / "Alps" / "a 1.jpg", by_id.library / "Alps" / "twin.jpg")
    move(by_id, "Alps/a 1.jpg", "Coast/a 1.jpg")
    by_id.picture("Coast/a 1.jpg", 99)
    update_by_id(by_id)
    keeps_what_others_said(by_id, "Coast/a 1.jpg", restyled)
    assert "my_rating" not in by_id.entry("albums/Alps/twin.jpg")


def test_a_photo_in_two_albums_is_two_files(by_id: Catalogued) -> None:
    first = by_id.restyle("Alps/a 1.jpg")
    (by_id.library / "Coast").mkdir()
    shutil.copy2(by_id.library / "Alps" / "a 1.jpg", by_id.library / "Coast" / "a 1.jpg")
    update_by_id(by_id)
    assert "my_rating" not in by_id.entry("albums/Coast/a 1.jpg")
    second = by_id.restyle("Coast/a 1.jpg", style="oil")
    update_by_id(by_id)
    (by_id.library / "Alps" / "a 1.jpg").unlink()
    update_by_id(by_id)
    left = by_id.entry("albums/Coast/a 1.jpg")
    assert left["derivatives"] == {"lora_processing": [second]}
    # What is known of the other one waits for it.
    by_id.picture("Alps/a 1.jpg", 10)
    update_by_id(by_id)
    keeps_what_others_said(by_id, "Alps/a 1.jpg", first)
    assert by_id.entry("albums/Coast/a 1.jpg") == left


def test_an_entry_in_the_place_of_another_photo_goes_to_its_own(by_id: Catalogued) -> None:
    """A run was given up after it had put a photo away; the next has another photo under that name."""
    restyled = by_id.restyle("Alps/a 1.jpg")
    (by_id.library / "Alps" / "a 1.jpg").rename(by_id.folder / "away.jpg")
    by_id.sql("UPDATE photos SET present = 0 WHERE file_name = 'a 1.jpg'")
    (by_id.outputs("albums") / "Alps" / "a 1.jpg").unlink()
    by_id.picture("Alps/new.jpg", 200)
    update_by_id(by_id)
    os.rename(by_id.outputs("albums") / "Alps" / "new.jpg", by_id.outputs("albums") / "Alps" / "a 1.jpg")
    by_id.sql("UPDATE photos SET file_name = 'a 1.jpg', path_key = 'alps/a 1.jpg' WHERE file_name = 'new.jpg'")
    entries = by_id.catalog()
    entries[by_id.path("albums/Alps/a 1.jpg")] = json.loads(kept_entry(by_id))
    by_id.write(entries)
    by_id.sql("DELETE FROM former_entries")
    (by_id.library / "Lake").mkdir()
    (by_id.folder / "away.jpg").rename(by_id.library / "Lake" / "a 1.jpg")
    update_by_id(by_id, "Lake")
    new = by_id.entry("albums/Alps/a 1.jpg")
    assert new["source"]["photo_id"] == "id of new.jpg"
    assert {"location", "my_rating", "derivatives"}.isdisjoint(new)
    keeps_what_others_said(by_id, "Lake/a 1.jpg", restyled)


def kept_entry(sample: Catalogued) -> str:
    ((text,),) = sample.sql("SELECT entry FROM former_entries")
    assert isinstance(text, str)
    return text
