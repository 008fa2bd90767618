"""Whole runs over the real Photos libraries: the files that come out, read by programs that did not write them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.command_line import skicyclerun, status_of
from tests.shared_libraries import TEST_LIBRARY

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")


def export(lib_root: Path, settings: dict[str, Any] | None = None, *arguments: str) -> int:
    (lib_root / "config").mkdir(parents=True)
    (lib_root / "config" / "pipeline_config.json").write_text(json.dumps({"export": settings or {}}))
    return skicyclerun("run", "--library", TEST_LIBRARY, "--lib-root", lib_root, *arguments).code


def albums(lib_root: Path) -> Path:
    return lib_root / "pipeline" / "albums"


def entry(lib_root: Path, name: str) -> dict[str, Any]:
    entries = json.loads((lib_root / "metadata" / "master.json").read_text())
    found = entries[str(albums(lib_root) / name)]
    assert isinstance(found, dict)
    return found


def exiftool(path: Path, *options: str) -> dict[str, Any]:
    answer = subprocess.run(["exiftool", "-json", "-n", "-G1", *options, path], capture_output=True, check=True).stdout
    (facts,) = json.loads(answer)
    assert isinstance(facts, dict)
    return facts


def test_every_file_is_a_whole_jpeg_and_is_catalogued_with_its_hash(tmp_path: Path) -> None:
    assert export(tmp_path) == 3
    files = sorted(albums(tmp_path).rglob("*.jpg"))
    assert len(files) == 12
    for path in files:
        with Image.open(path) as picture:
            assert picture.format == "JPEG"
            picture.load()
            size = picture.size
        catalogued = entry(tmp_path, str(path.relative_to(albums(tmp_path))))
        assert catalogued["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (catalogued["width"], catalogued["height"]) in (size, size[::-1])


@needs_exiftool
def test_what_the_library_knows_is_in_the_file(tmp_path: Path) -> None:
    assert export(tmp_path, {}, "--album", "Pumpkin Farm", "--album", "AlbumInFolder") == 0
    pumpkins = exiftool(albums(tmp_path) / "Pumpkin Farm" / "Pumkins1.jpg")
    assert pumpkins["XMP-dc:Title"] == "Can we carry this?"
    assert pumpkins["IPTC:ObjectName"] == "Can we carry this?"
    assert pumpkins["XMP-dc:Subject"] == "Kids"
    assert pumpkins["IPTC:Keywords"] == "Kids"
    assert sorted(pumpkins["XMP-iptcExt:PersonInImage"]) == ["Katie", "Suzy"]
    assert pumpkins["ExifIFD:DateTimeOriginal"] == "2018:09:28 15:35:49"
    assert pumpkins["ExifIFD:OffsetTimeOriginal"] == "-04:00"
    park = exiftool(albums(tmp_path) / "AlbumInFolder" / "IMG_4547.jpg")
    assert park["Composite:GPSLatitude"] == pytest.approx(-34.91889167, abs=1e-5)
    assert park["Composite:GPSLongitude"] == pytest.approx(138.59686167, abs=1e-5)
    wedding = exiftool(albums(tmp_path) / "AlbumInFolder" / "wedding.jpg")
    assert wedding["XMP-xmp:Rating"] == 5


_ASK_OSXPHOTOS = """
import json, sys, osxphotos
print(json.dumps({photo.uuid: {
    "day": photo.date.strftime("%Y:%m:%d"), "time": photo.date.strftime("%H:%M:%S"),
    "offset": photo.date.strftime("%z"),
    "favorite": photo.favorite, "country": (photo.place.names.country or [None])[0] if photo.place else None,
    "labels": photo.labels,
    "faces": {face.name: face.mwg_rs_area for face in photo.face_info if face.name in photo.persons}
} for photo in osxphotos.PhotosDB(dbfile=sys.argv[1]).photos()}))
"""


@needs_exiftool
def test_faces_dates_and_offsets_are_those_that_osxphotos_writes(tmp_path: Path) -> None:
    """osxphotos is the oracle: it says of each face what its own export with exiftool writes."""
    assert export(tmp_path, {"person_keywords": True}) == 3
    # In a process of its own: it leaves a temporary folder to the garbage collector.
    copy = tmp_path / TEST_LIBRARY.name  # and it opens the search index where it lies
    shutil.copytree(TEST_LIBRARY / "database", copy / "database")
    answer = subprocess.run([sys.executable, "-c", _ASK_OSXPHOTOS, copy], capture_output=True, check=True)
    library = json.loads(answer.stdout)
    catalog = json.loads((tmp_path / "metadata" / "master.json").read_text())
    with_faces = 0
    for path, said in catalog.items():
        photo = library[said["source"]["photo_id"]]
        tags = exiftool(Path(path), "-struct")
        offset = f"{photo['offset'][:3]}:{photo['offset'][3:]}"
        assert tags["ExifIFD:OffsetTimeOriginal"] == offset
        assert (tags["IPTC:DateCreated"], tags["IPTC:TimeCreated"]) == (photo["day"], photo["time"] + offset)
        assert tags.get("ExifIFD:OffsetTime") == (offset if "IFD0:ModifyDate" in tags else None)
        assert said.get("favorite", False) == photo["favorite"]
        assert said.get("place", {}).get("country") == photo["country"]
        assert said.get("labels", []) == sorted(photo["labels"])
        names = photo["faces"].keys() - {"_UNKNOWN_"}
        assert {face["name"] for face in said.get("faces", ())} == names
        if not names:
            assert "XMP-mwg-rs:RegionInfo" not in tags
            continue
        with_faces += 1
        assert names <= set(said["keywords"])
        regions = tags["XMP-mwg-rs:RegionInfo"]
        with Image.open(path) as picture:
            assert (regions["AppliedToDimensions"]["W"], regions["AppliedToDimensions"]["H"]) == picture.size
        assert len(regions["RegionList"]) == len(names)
        for region in regions["RegionList"]:
            area, (x, y, height, width) = region["Area"], photo["faces"][region["Name"]]
            assert (area["X"], area["Y"], area["W"], area["H"]) == pytest.approx((x, y, width, height), abs=1e-5)
        people = tags["XMP-MP:RegionInfoMP"]["Regions"]
        assert {person["PersonDisplayName"] for person in people} == names
    assert with_faces >= 4


def test_faces_places_and_labels_survive_the_loss_of_catalog_and_state(tmp_path: Path) -> None:
    assert export(tmp_path) == 3
    catalog = tmp_path / "metadata" / "master.json"
    before = json.loads(catalog.read_text())
    said = {key for entry in before.values() for key in entry}
    assert {"faces", "place", "favorite"} <= said
    assert ("labels" in said) == (TEST_LIBRARY / "database" / "search" / "psi.sqlite").is_file()
    for path in (tmp_path / "state").glob("skicyclerun.sqlite3*"):
        path.unlink()
    rebuilt = skicyclerun("rebuild-state", "--library", TEST_LIBRARY, "--lib-root", tmp_path)
    assert rebuilt.code == 0, rebuilt.stderr
    assert json.loads(catalog.read_text()) == before
    catalog.unlink()
    assert skicyclerun("rebuild-catalog", "--lib-root", tmp_path).code == 0
    assert json.loads(catalog.read_text()) == before
    assert skicyclerun("verify", "--lib-root", tmp_path, "--json").code in (0, 3)


def test_an_edited_photo_comes_out_as_it_was_edited(tmp_path: Path) -> None:
    assert export(tmp_path, {}, "--album", "AlbumInFolder") == 0
    (render,) = TEST_LIBRARY.glob("resources/renders/E/E9BC5C36-7CD1-40A1-A72B-8B8FAC227D51_1_201_a.jpeg")
    with Image.open(render) as expected, Image.open(albums(tmp_path) / "AlbumInFolder" / "wedding.jpg") as found:
        assert found.tobytes() == expected.tobytes()
    assert entry(tmp_path, "AlbumInFolder/wedding.jpg")["rendering"] == "edited"


def test_absent_originals_can_be_left_out_by_a_setting(tmp_path: Path) -> None:
    assert export(tmp_path, {"missing": "skip"}) == 0
    (raw,) = [album for album in status_of(tmp_path)["albums"] if album["title"] == "Raw"]
    assert (raw["status"], raw["exported"], raw["left_out"]) == ("done", 2, 2)


def test_absent_originals_can_come_out_as_the_largest_rendering_there_is(tmp_path: Path) -> None:
    code = export(tmp_path, {"missing": "preview"}, "--album", "Raw")
    (raw,) = status_of(tmp_path)["albums"]
    previews = [
        path
        for path in sorted(albums(tmp_path).rglob("*.jpg"))
        if entry(tmp_path, str(path.relative_to(albums(tmp_path)))).get("rendering") == "preview"
    ]
    assert previews, "the library holds renderings of what it has no original of"
    assert (code, raw["status"]) == ((0, "done") if raw["missing"] == 0 else (3, "failed"))
    for path in previews:
        with Image.open(path) as picture:
            picture.load()
        assert "preview" in entry(tmp_path, str(path.relative_to(albums(tmp_path))))["note"].lower()


def test_originals_can_be_passed_on_as_they_are(tmp_path: Path) -> None:
    assert export(tmp_path, {"format": "original"}, "--album", "Pumpkin Farm") == 0
    original = TEST_LIBRARY / "originals" / "F" / "F12384F6-CD17-4151-ACBA-AE0E3688539E.jpeg"
    assert (albums(tmp_path) / "Pumpkin Farm" / "Pumkins1.jpg").read_bytes() == original.read_bytes()


def test_an_edit_passed_on_as_it_is_has_its_own_extension(tmp_path: Path) -> None:
    assert export(tmp_path, {"format": "original"}, "--album", "AlbumInFolder") == 0
    (render,) = TEST_LIBRARY.glob("resources/renders/E/E9BC5C36-7CD1-40A1-A72B-8B8FAC227D51_1_201_a.jpeg")
    assert (albums(tmp_path) / "AlbumInFolder" / "wedding.jpeg").read_bytes() == render.read_bytes()
