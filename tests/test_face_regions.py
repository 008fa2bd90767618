"""Named faces are in the file where other programs look for them, in the coordinates of the picture that comes out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from skicyclerun.images.exiv2_session import exiv2_session
from skicyclerun.images.face_regions import Area, area_of, as_stored, named_faces, write_face_regions
from skicyclerun.images.jpeg_segments import Segment
from skicyclerun.images.metadata import PhotoTags, no_tags, tags_of_segments
from skicyclerun.images.metadata_segments import encode
from skicyclerun.images.render import RenderOptions
from skicyclerun.models import Component, Face, LibraryMetadata
from tests.images_samples import encoded, exif_with, needs_exiftool, quadrants, render, run_exiftool

KATIE = Face("Katie", 0.25, 0.5, 0.2, 0.4)
SUZY = Face("Suzy", 0.75, 0.25, 0.1, 0.2)
ORIENTATIONS = range(1, 9)


def known(*faces: Face, persons: tuple[str, ...] = ()) -> LibraryMetadata:
    return LibraryMetadata(location_known=False, faces=faces, persons=persons)


def written(tmp_path: Path, metadata: LibraryMetadata, source: bytes | None = None, **options: Any) -> Path:
    (tmp_path / "in.jpg").write_bytes(source or encoded(quadrants((80, 40)), "JPEG", exif=exif_with()))
    render(tmp_path / "in.jpg", tmp_path / "out.jpg", metadata, Component.STILL, RenderOptions(**options))
    return tmp_path / "out.jpg"


def regions(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """MWG's and Microsoft's, as exiftool reads them."""
    said = run_exiftool("-struct", "-n", "-j", "-XMP-mwg-rs:all", "-XMP-MP:all", str(path))
    return said.get("RegionInfo", {}), said.get("RegionInfoMP", {}).get("Regions", [])


def sides(text: str) -> list[float]:
    return [float(side) for side in text.replace("|", "").split(",")]


@needs_exiftool
def test_both_kinds_of_regions_name_the_faces(tmp_path: Path) -> None:
    mwg, microsoft = regions(written(tmp_path, known(KATIE, SUZY)))
    assert mwg["AppliedToDimensions"] == {"W": 80, "H": 40, "Unit": "pixel"}
    assert mwg["RegionList"] == [
        {"Name": "Katie", "Type": "Face", "Area": {"X": 0.25, "Y": 0.5, "W": 0.2, "H": 0.4, "Unit": "normalized"}},
        {"Name": "Suzy", "Type": "Face", "Area": {"X": 0.75, "Y": 0.25, "W": 0.1, "H": 0.2, "Unit": "normalized"}},
    ]
    assert [person["PersonDisplayName"] for person in microsoft] == ["Katie", "Suzy"]
    assert sides(microsoft[0]["Rectangle"]) == pytest.approx([0.15, 0.3, 0.2, 0.4])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@settings(max_examples=25)
@given(
    left=st.integers(0, 30), top=st.integers(0, 18), width=st.integers(1, 10), height=st.integers(1, 6),
)  # fmt: skip
def test_an_area_is_where_the_pixels_are_that_are_displayed_there(
    orientation: int, left: int, top: int, width: int, height: int
) -> None:
    """The oracle is Pillow, which turns the picture: what is white when displayed is where the area says, as stored."""
    across, down = (40, 24) if orientation < 5 else (24, 40)
    stored = Image.new("L", (across, down))
    displayed = ImageOps.exif_transpose(with_orientation(stored, orientation))
    assert displayed.size == (40, 24)
    area = as_stored(Area(left / 40, top / 24, width / 40, height / 24), orientation)
    x, y = round(area.left * across), round(area.top * down)
    stored.paste(255, (x, y, x + round(area.width * across), y + round(area.height * down)))
    shown = ImageOps.exif_transpose(with_orientation(stored, orientation))
    assert shown.getbbox() == (left, top, left + width, top + height)


def with_orientation(image: Image.Image, orientation: int) -> Image.Image:
    turned = image.copy()
    turned.getexif()[0x0112] = orientation
    return turned


@needs_exiftool
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_jpeg_that_lies_on_its_side_has_regions_of_its_stored_pixels(tmp_path: Path, orientation: int) -> None:
    source = encoded(quadrants((80, 40)), "JPEG", exif=exif_with(orientation))
    mwg, _ = regions(written(tmp_path, known(Face("Katie", 0.25, 0.4, 0.1, 0.3)), source))
    area = mwg["RegionList"][0]["Area"]
    assert mwg["AppliedToDimensions"] == {"W": 80, "H": 40, "Unit": "pixel"}
    expected = {3: (0.75, 0.6, 0.1, 0.3), 6: (0.4, 0.75, 0.3, 0.1)}[orientation]
    assert (area["X"], area["Y"], area["W"], area["H"]) == pytest.approx(expected)


@needs_exiftool
def test_a_picture_that_is_converted_has_regions_of_its_new_pixels(tmp_path: Path) -> None:
    tiff = encoded(quadrants((80, 40)), "TIFF", exif=exif_with(6))
    mwg, _ = regions(written(tmp_path, known(KATIE), tiff))
    area = mwg["RegionList"][0]["Area"]
    assert (mwg["AppliedToDimensions"]["W"], mwg["AppliedToDimensions"]["H"]) == (40, 80)
    assert (area["X"], area["Y"], area["W"], area["H"]) == pytest.approx((0.25, 0.5, 0.2, 0.4))


def test_regions_that_are_there_already_leave_the_file_as_it_is(tmp_path: Path) -> None:
    once = written(tmp_path, known(KATIE, SUZY)).read_bytes()
    assert written(tmp_path, known(KATIE, SUZY), once).read_bytes() == once
    assert written(tmp_path, known(KATIE), once).read_bytes() != once


@needs_exiftool
def test_a_file_keeps_its_own_regions_where_the_library_names_no_face(tmp_path: Path) -> None:
    once = written(tmp_path, known(KATIE)).read_bytes()
    for faces in ((), (Face("", 0.5, 0.5, 0.1, 0.1),), (Face("  \n", 0.5, 0.5, 0.1, 0.1),)):
        assert written(tmp_path, known(*faces), once).read_bytes() == once


@needs_exiftool
def test_new_faces_take_the_place_of_old_ones_and_a_pet_stays(tmp_path: Path) -> None:
    once = written(tmp_path, known(KATIE))
    run_exiftool(
        "-overwrite_original",
        "-struct",
        "-RegionInfo={AppliedToDimensions={W=80,H=40,Unit=pixel},RegionList=["
        "{Name=Rex,Type=Pet,Area={X=0.1,Y=0.2,W=0.05,H=0.06,Unit=normalized},Rotation=1.5},"
        "{Name=Gone,Type=Face,Area={X=0.6,Y=0.2,W=0.05,H=0.06,Unit=normalized}}]}",
        str(once),
    )
    twice = written(tmp_path, known(SUZY), once.read_bytes())
    mwg, microsoft = regions(twice)
    assert [region["Name"] for region in mwg["RegionList"]] == ["Suzy", "Rex"]
    assert mwg["RegionList"][1] == {
        "Name": "Rex",
        "Type": "Pet",
        "Area": {"X": 0.1, "Y": 0.2, "W": 0.05, "H": 0.06, "Unit": "normalized"},
        "Rotation": 1.5,
    }
    assert [person["PersonDisplayName"] for person in microsoft] == ["Suzy"]
    again = twice.read_bytes()
    assert written(tmp_path, known(SUZY), again).read_bytes() == again


# ── what strangers may send ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "sides",
    [
        (math.nan, 0.5, 0.1, 0.1),
        (0.5, math.inf, 0.1, 0.1),
        (0.5, 0.5, -0.1, 0.1),
        (0.5, 0.5, 0.1, 0.0),
        (0.5, 0.5, 0.1, math.nan),
        (7.0, 0.5, 0.1, 0.1),
        (0.5, 0.5, 1e-9, 0.1),
    ],
)
def test_a_face_that_is_nowhere_in_the_picture_is_no_region(
    tmp_path: Path, sides: tuple[float, float, float, float]
) -> None:
    face = Face("Katie", *sides)
    assert named_faces((face,)) == ()
    source = encoded(quadrants((80, 40)), "JPEG", exif=exif_with())
    assert written(tmp_path, known(face), source).read_bytes() == source


def test_a_face_at_the_edge_is_cut_off_there() -> None:
    assert area_of(Face("Katie", 0.0, 1.0, 0.5, 0.5)) == Area(0.0, 0.75, 0.25, 0.25)
    assert area_of(Face("Katie", 0.5, 0.5, 1e300, 4.0)) == Area(0.0, 0.0, 1.0, 1.0)


def tags_with(*faces: Face) -> PhotoTags:
    """Tags of a picture of 80 by 40 pixels that were written and read again."""
    with exiv2_session() as exiv2:
        tags = no_tags(exiv2)
        write_face_regions(exiv2, tags, faces, (80, 40))
        segments = encode(exiv2, tags).xmp
        assert segments is not None
        return tags_of_segments(exiv2, [Segment.of(segment) for segment in segments])


@settings(max_examples=60)
@given(
    name=st.text(min_size=1, max_size=80)
    | st.sampled_from(
        ['type="Bag"', "type=Seq x", "type=", 'lang="x" <b>&amp;</b>', "]]>", "\ud800", "a\x00b", "\u202eevil"]
    ),
    x=st.floats(-2, 2),
    y=st.floats(-2, 2),
    width=st.floats(1e-5, 3),
    height=st.floats(1e-5, 3),
)
def test_any_name_and_place_comes_back_or_is_left_out(
    name: str, x: float, y: float, width: float, height: float
) -> None:
    face = Face(name, x, y, width, height)
    kept = named_faces((face,))
    if not kept:
        return
    tags = tags_with(face)
    base = "Xmp.mwg-rs.Regions/mwg-rs:RegionList[1]"
    assert tags.xmp.text(f"{base}/mwg-rs:Name") == kept[0].name
    assert tags.xmp.text("Xmp.MP.RegionInfo/MPRI:Regions[1]/MPReg:PersonDisplayName") == kept[0].name
    area = area_of(kept[0])
    assert area is not None
    assert float(tags.xmp.text(f"{base}/mwg-rs:Area/stArea:x")) == pytest.approx(area.left + area.width / 2, abs=1e-6)
    rectangle = sides(tags.xmp.text("Xmp.MP.RegionInfo/MPRI:Regions[1]/MPReg:Rectangle"))
    assert rectangle == pytest.approx(list(area), abs=1e-6)
    assert all(0 <= side <= 1 for side in rectangle)


def test_of_hundreds_of_faces_the_largest_are_written_and_the_report_says_so(tmp_path: Path) -> None:
    crowd = [Face(f"Person {n} " + "&" * 150, n / 400, 0.5, 0.001 + n / 4000, 0.01) for n in range(400)]
    (tmp_path / "in.jpg").write_bytes(encoded(quadrants((80, 40)), "JPEG"))
    metadata = LibraryMetadata(faces=tuple(crowd), title="t", description="d" * 40_000, keywords=("k" * 900,) * 40)
    facts = render(tmp_path / "in.jpg", tmp_path / "out.jpg", metadata)
    assert "of 400 face regions fitted into the file" in facts.note
    with exiv2_session() as exiv2:
        image = exiv2.ImageFactory.open(str(tmp_path / "out.jpg"))
        image.readMetadata()
        xmp = {tag.key(): tag.toString() for tag in image.xmpData()}
    names = [text for key, text in xmp.items() if key.endswith("mwg-rs:Name")]
    assert 10 < len(names) < 100
    assert names[-1].startswith("Person 399 ")
    assert "Xmp.dc.title" in xmp
    assert len(facts.faces) == 400


# ── persons as keywords ───────────────────────────────────────────────────────────────────────────────────────────


def test_persons_are_keywords_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(encoded(quadrants((80, 40)), "JPEG"))
    metadata = LibraryMetadata(keywords=("alps", "Katie"), persons=("Katie", "Suzy"))
    plain = render(tmp_path / "in.jpg", tmp_path / "plain.jpg", metadata)
    assert plain.keywords == ("alps", "Katie")
    options = RenderOptions(person_keywords=True)
    facts = render(tmp_path / "in.jpg", tmp_path / "out.jpg", metadata, options=options)
    assert facts.keywords == ("alps", "Katie", "Suzy")
    assert facts.persons == ("Katie", "Suzy")
    once = (tmp_path / "out.jpg").read_bytes()
    render(tmp_path / "out.jpg", tmp_path / "again.jpg", metadata, options=options)
    assert (tmp_path / "again.jpg").read_bytes() == once


def test_persons_as_keywords_leave_those_that_only_the_file_has(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(encoded(quadrants((80, 40)), "JPEG"))
    render(tmp_path / "in.jpg", tmp_path / "own.jpg", LibraryMetadata(keywords=("alps",)))
    options = RenderOptions(person_keywords=True)
    facts = render(tmp_path / "own.jpg", tmp_path / "out.jpg", LibraryMetadata(persons=("Suzy",)), options=options)
    assert facts.keywords == ("alps", "Suzy")
