"""What comes out beside and in place of a picture: sidecars, originals, pictures without positions, smaller ones."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skicyclerun.errors import OriginalMissing, PhotoUnreadable
from skicyclerun.images.decode_check import decode_fully
from skicyclerun.images.render import RenderOptions, read_facts
from skicyclerun.models import Component, Face, LibraryMetadata, Location, Place
from tests.images_samples import (
    KNOWN,
    encoded,
    exif_with,
    exiftool,
    needs_exiftool,
    photo_like,
    quadrants,
    render,
    scans_of,
    srgb_profile,
)
from tests.test_images_originals import dng, movie

XMP: Final = RenderOptions(sidecar="xmp")
JSON: Final = RenderOptions(sidecar="json")
WITHOUT: Final = RenderOptions(strip_location=True)
#: The latitude of `located` as EXIF's fractions hold it, in either byte order: no file that tells nothing has these.
DEGREES: Final = tuple(struct.pack(order + "6I", 52, 1, 31, 1, 1234567, 100_000) for order in "<>")


def located(orientation: int = 1) -> Image.Exif:
    exif = exif_with(orientation)
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2] = "N", (52.0, 31.0, 12.34567)
    gps[3], gps[4] = "W", (13.0, 20.0, 1.0)
    exif.get_ifd(0x8769)[0x927C] = b"MakerNote with a town: Teltow"
    return exif


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def with_hiding_places(jpeg: bytes) -> bytes:
    """A JPEG with a position in every place that is not the picture: segments before it, files behind it."""
    before = b"".join(
        (
            segment(0xE1, b"http://ns.adobe.com/xmp/extension/\x00" + b"0" * 40 + b"<x exif:GPSLatitude='52,31N'/>"),
            segment(0xE2, b"MPF\x00" + b"II*\x00\x08\x00\x00\x00\x00\x00"),
            segment(0xE5, b"Maker\x00lat=52.31"),
            segment(0xEB, b"JP\x00\x01" + b"c2pa stds.exif GPSLatitude"),
            segment(0xED, b"Photoshop 3.0\x008BIM\x04\x22\x00\x00\x00\x00\x00\x08GPS52.31"),
            segment(0xFE, b"taken at 52.31"),
        )
    )
    second = encoded(Image.new("RGB", (16, 16)), "JPEG", exif=located())
    return jpeg[:2] + before + jpeg[2:] + second + b"\x00\x00\x00\x18ftypmp42" + b"+52.3100-013.3300/"


# ── sidecars ──────────────────────────────────────────────────────────────────────────────────────────────────────


def sidecar(tmp_path: Path, source: Path, known: LibraryMetadata | None, options: RenderOptions) -> Path:
    out = tmp_path / f"out.{options.sidecar}"
    facts = render(source, out, known, Component.SIDECAR, options)
    data = out.read_bytes()
    assert (facts.size, facts.width, facts.location) == (len(data), None, None)
    return out


@needs_exiftool
@pytest.mark.parametrize("kind", ["jpg", "heic", "png", "mov"])
def test_an_xmp_sidecar_says_what_the_library_knows_whatever_lies_beside_it(tmp_path: Path, kind: str) -> None:
    said = exiftool(sidecar(tmp_path, sample(tmp_path, kind), KNOWN, XMP))
    assert said["XMP-exif:DateTimeOriginal"] == "2021:07:27 10:05:21.250+02:00"
    assert said["XMP-photoshop:DateCreated"] == said["XMP-xmp:CreateDate"] == said["XMP-exif:DateTimeOriginal"]
    assert said["XMP-exif:GPSLatitude"] == pytest.approx(46.5581, abs=1e-7)
    assert said["XMP-exif:GPSLongitude"] == pytest.approx(-7.8352, abs=1e-7)
    assert (said["XMP-exif:GPSAltitude"], said["XMP-exif:GPSAltitudeRef"]) == (1200.5, 0)
    assert said["XMP-exif:GPSImgDirection"] == 271.25
    assert said["XMP-dc:Title"] == KNOWN.title
    assert said["XMP-dc:Description"] == KNOWN.description
    assert said["XMP-dc:Subject"] == said["XMP-digiKam:TagsList"] == list(KNOWN.keywords)
    assert said["XMP-iptcExt:PersonInImage"] == list(KNOWN.persons)
    assert said["XMP-xmp:Rating"] == 4


def sample(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"in.{kind}"
    if kind == "heic":
        pillow_heif.from_pillow(quadrants()).save(path, exif=located().tobytes())
    elif kind == "mov":
        path.write_bytes(movie())
    else:
        path.write_bytes(encoded(quadrants(), {"jpg": "JPEG", "png": "PNG"}[kind], exif=located()))
    return path


@needs_exiftool
@pytest.mark.parametrize("kind", ["jpg", "heic", "png"])
def test_a_sidecar_says_what_the_file_knows_where_the_library_says_nothing(tmp_path: Path, kind: str) -> None:
    said = exiftool(sidecar(tmp_path, sample(tmp_path, kind), None, XMP))
    assert said["XMP-exif:DateTimeOriginal"] == "2019:01:02 03:04:05"
    assert said["XMP-exif:GPSLatitude"] == pytest.approx(52 + 31 / 60 + 12.34567 / 3600, abs=1e-6)
    assert said["XMP-exif:GPSLongitude"] == pytest.approx(-(13 + 20 / 60 + 1 / 3600), abs=1e-6)


@needs_exiftool
def test_a_sidecar_says_nothing_of_faces_as_the_original_had_them(tmp_path: Path) -> None:
    """A picture that is scaled comes out upright, and the library may know the face by another name by now."""
    (tmp_path / "plain.jpg").write_bytes(encoded(photo_like((80, 40)), "JPEG", exif=exif_with(6)))
    before = LibraryMetadata(faces=(Face("Anne", 0.25, 0.3, 0.2, 0.2),))
    render(tmp_path / "plain.jpg", tmp_path / "in.jpg", before)
    now = LibraryMetadata(faces=(Face("Anna", 0.25, 0.3, 0.2, 0.2),), persons=("Anna",))
    assert b"Anne" in (tmp_path / "in.jpg").read_bytes()
    told = sidecar(tmp_path, tmp_path / "in.jpg", now, XMP)
    assert "Anne" not in told.read_text()
    assert exiftool(told)["XMP-iptcExt:PersonInImage"] == "Anna"


@needs_exiftool
def test_exiftool_takes_a_json_sidecar_back_into_a_picture(tmp_path: Path) -> None:
    path = sidecar(tmp_path, sample(tmp_path, "jpg"), replace(KNOWN, location=Location(-33.9, 18.4, -2.5)), JSON)
    bare = tmp_path / "bare.jpg"
    bare.write_bytes(encoded(quadrants(), "JPEG"))
    subprocess.run(
        ["exiftool", "-q", "-charset", "iptc=utf8", "-codedcharacterset=utf8", f"-json={path}", str(bare)], check=True
    )
    facts = read_facts(bare)
    assert facts.date_taken == "2021-07-27T10:05:21.250+02:00"
    assert facts.location is not None
    assert (facts.location.latitude, facts.location.longitude) == pytest.approx((-33.9, 18.4), abs=1e-6)
    assert facts.location.altitude == -2.5
    assert (facts.title, facts.description) == (KNOWN.title, KNOWN.description)
    assert (facts.keywords, facts.persons) == (KNOWN.keywords, KNOWN.persons)
    assert exiftool(bare)["XMP-xmp:Rating"] == 4


def test_the_same_photo_gives_the_same_sidecar_with_the_photos_date_as_its_time(tmp_path: Path) -> None:
    source = sample(tmp_path, "jpg")
    for options in (XMP, JSON):
        first = sidecar(tmp_path, source, KNOWN, options)
        data, told = first.read_bytes(), first.stat().st_mtime
        assert sidecar(tmp_path, source, KNOWN, options).read_bytes() == data
        assert KNOWN.date is not None
        assert told == pytest.approx(KNOWN.date.timestamp())


@pytest.mark.parametrize("options", [XMP, JSON])
def test_a_sidecar_of_what_knows_nothing_is_still_a_sidecar(tmp_path: Path, options: RenderOptions) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(encoded(quadrants(), "JPEG"))
    data = sidecar(tmp_path, source, None, options).read_bytes()
    if options is JSON:
        assert json.loads(data) == [{"SourceFile": "*"}]
    else:
        assert ElementTree.fromstring(data).tag == "{adobe:ns:meta/}xmpmeta"


@settings(max_examples=40)
@given(title=st.text(max_size=30), keywords=st.lists(st.text(max_size=12), max_size=4), description=st.text())
def test_texts_of_strangers_are_text_in_a_sidecar(
    tmp_path: Path, title: str, keywords: list[str], description: str
) -> None:
    source = tmp_path / "in.jpg"
    if not source.exists():
        source.write_bytes(encoded(quadrants(), "JPEG"))
    known = LibraryMetadata(title=title + "</rdf:RDF><&\"'", description=description, keywords=tuple(keywords))
    root = ElementTree.fromstring(sidecar(tmp_path, source, known, XMP).read_bytes())
    names = {element.tag for element in root.iter()}
    assert all(
        name.startswith(("{http://www.w3.org/", "{adobe:", "{http://purl.org/", "{http://www.digi")) for name in names
    )
    (told,) = json.loads(sidecar(tmp_path, source, known, JSON).read_bytes())
    assert told["XMP:Title"].endswith("</rdf:RDF><&\"'")


@needs_exiftool
@pytest.mark.parametrize("options", [replace(XMP, strip_location=True), replace(JSON, strip_location=True)])
def test_a_sidecar_without_positions_has_none(tmp_path: Path, options: RenderOptions) -> None:
    for known in (KNOWN, None):
        path = sidecar(tmp_path, sample(tmp_path, "jpg"), known, options)
        assert b"GPS" not in path.read_bytes()


def test_no_sidecar_is_made_of_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(b"no picture")
    for source, error in ((tmp_path / "in.jpg", PhotoUnreadable), (tmp_path / "gone.jpg", OriginalMissing)):
        with pytest.raises(error):
            render(source, tmp_path / "out.xmp", None, Component.SIDECAR, XMP)
    assert not (tmp_path / "out.xmp").exists()


# ── originals ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("data", [b"", b"anything", os.urandom(3_000_000)])
def test_an_original_is_kept_byte_for_byte_whatever_it_holds(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.heic").write_bytes(data)
    os.utime(tmp_path / "in.heic", (1_500_000_000, 1_500_000_000))
    facts = render(tmp_path / "in.heic", tmp_path / "out", None, Component.ORIGINAL)
    assert (tmp_path / "out").read_bytes() == data
    assert (facts.size, facts.mtime_ns) == (len(data), 1_500_000_000 * 10**9)


# ── no positions ──────────────────────────────────────────────────────────────────────────────────────────────────


@needs_exiftool
def test_a_jpeg_passed_through_without_its_position_keeps_its_picture_and_tells_nowhere_where_it_was_taken(
    tmp_path: Path,
) -> None:
    plain = encoded(photo_like(), "JPEG", exif=located(6), icc_profile=srgb_profile(), quality=90)
    (tmp_path / "in.jpg").write_bytes(with_hiding_places(plain))
    assert sum(map((tmp_path / "in.jpg").read_bytes().count, DEGREES)) == 2
    facts = render(tmp_path / "in.jpg", tmp_path / "out.jpg", KNOWN, options=WITHOUT)
    out = (tmp_path / "out.jpg").read_bytes()
    assert facts.location is None
    assert scans_of(out) == scans_of(plain), "the picture is not touched, and nothing hangs behind it"
    for told in (b"GPS", b"52.31", b"52,31", b"Teltow", b"ftyp", b"MPF", b"c2pa", b"xmp/extension", *DEGREES):
        assert told not in out, told
    said = exiftool(tmp_path / "out.jpg")
    assert not [key for key in said if "GPS" in key]
    assert said["IFD0:Orientation"] == 6
    assert said["IFD0:Model"] == "Model 7"
    assert said["XMP-dc:Title"] == KNOWN.title
    assert said["IPTC:ObjectName"] == KNOWN.title
    assert srgb_profile() in out
    decode_fully(tmp_path / "out.jpg", max_pixels=10**8)


@needs_exiftool
@pytest.mark.parametrize("kind", ["heic", "png"])
@pytest.mark.parametrize("known", [KNOWN, None])
def test_a_converted_picture_without_its_position_tells_nothing(
    tmp_path: Path, kind: str, known: LibraryMetadata | None
) -> None:
    facts = render(sample(tmp_path, kind), tmp_path / "out.jpg", known, options=WITHOUT)
    assert facts.location is None
    assert facts.date_taken is not None
    out = (tmp_path / "out.jpg").read_bytes()
    assert not any(degrees in out for degrees in DEGREES)
    assert b"Teltow" not in out
    assert not [key for key in exiftool(tmp_path / "out.jpg") if "GPS" in key]


@needs_exiftool
def test_fields_for_names_of_places_go_and_words_in_texts_stay(tmp_path: Path) -> None:
    source = sample(tmp_path, "jpg")
    names = ["-XMP-photoshop:City=Teltow", "-IPTC:City=Teltow", "-XMP-iptcExt:LocationShownCity=Teltow"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *names, "-XMP-dc:Title=In Potsdam", source], check=True)
    facts = render(source, tmp_path / "out.jpg", options=WITHOUT)
    assert facts.title == "In Potsdam"
    assert b"Teltow" not in (tmp_path / "out.jpg").read_bytes()


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_the_place_as_the_library_names_it_is_not_told_either(tmp_path: Path, kind: str) -> None:
    known = replace(KNOWN, place=Place(country="Germany", city="Teltow"), favorite=True, labels=("Tree",))
    source = sample(tmp_path, kind)
    assert render(source, tmp_path / "out.jpg", known).place == known.place
    facts = render(source, tmp_path / "out.jpg", known, options=WITHOUT)
    assert (facts.place, facts.favorite, facts.labels) == (None, True, ("Tree",))
    assert b"Teltow" not in (tmp_path / "out.jpg").read_bytes()


def test_names_of_persons_are_keywords_of_a_sidecar_where_they_are_of_the_picture(tmp_path: Path) -> None:
    options = replace(JSON, person_keywords=True)
    (told,) = json.loads(sidecar(tmp_path, sample(tmp_path, "jpg"), KNOWN, options).read_bytes())
    assert told["XMP:Subject"] == [*KNOWN.keywords, *KNOWN.persons]


def test_a_torn_jpeg_fails_without_its_position_too(tmp_path: Path) -> None:
    whole = encoded(photo_like(), "JPEG", exif=located())
    (tmp_path / "in.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(PhotoUnreadable):
        render(tmp_path / "in.jpg", tmp_path / "out.jpg", options=WITHOUT)
    assert not (tmp_path / "out.jpg").exists()


# ── smaller ones ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "HEIF"])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1000, 3)])
def test_a_larger_picture_is_scaled_to_its_longer_side(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    picture = photo_like(size)
    if kind == "HEIF":
        pillow_heif.from_pillow(picture).save(tmp_path / "in")
    else:
        (tmp_path / "in").write_bytes(encoded(picture, kind))
    facts = render(tmp_path / "in", tmp_path / "out.jpg", options=RenderOptions(max_size=200))
    assert facts.width is not None
    assert facts.height is not None
    assert max(facts.width, facts.height) == 200
    assert facts.width * size[1] == pytest.approx(facts.height * size[0], rel=0.01, abs=size[0])
    with Image.open(tmp_path / "out.jpg") as opened:
        assert opened.size == (facts.width, facts.height)
    decode_fully(tmp_path / "out.jpg", max_pixels=10**8)


@pytest.mark.parametrize("longest", [640, 641, 5000])
def test_a_picture_that_is_small_enough_is_what_it_would_be_without_a_limit(tmp_path: Path, longest: int) -> None:
    for kind in ("JPEG", "PNG"):
        (tmp_path / "in").write_bytes(encoded(photo_like(), kind, exif=located()))
        render(tmp_path / "in", tmp_path / "out.jpg", KNOWN, options=RenderOptions(max_size=longest))
        render(tmp_path / "in", tmp_path / "plain.jpg", KNOWN)
        assert (tmp_path / "out.jpg").read_bytes() == (tmp_path / "plain.jpg").read_bytes()


@needs_exiftool
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scaled_jpeg_is_upright_and_its_tags_are_true_of_it(tmp_path: Path, orientation: int) -> None:
    icc = srgb_profile()
    (tmp_path / "in.jpg").write_bytes(
        encoded(quadrants((640, 480)), "JPEG", exif=located(orientation), icc_profile=icc, quality=95)
    )
    render(tmp_path / "in.jpg", tmp_path / "whole.jpg", KNOWN)
    facts = render(tmp_path / "in.jpg", tmp_path / "out.jpg", KNOWN, options=RenderOptions(max_size=160))
    said = exiftool(tmp_path / "out.jpg")
    size = (160, 120) if orientation < 5 else (120, 160)
    assert (facts.width, facts.height) == size
    assert (said["ExifIFD:ExifImageWidth"], said["ExifIFD:ExifImageHeight"]) == size
    assert said.get("IFD0:Orientation", 1) == 1
    assert said["XMP-dc:Title"] == KNOWN.title
    assert facts.location is not None
    assert said["GPS:GPSLatitude"] == pytest.approx(46.5581, abs=1e-6)
    with Image.open(tmp_path / "out.jpg") as small, Image.open(tmp_path / "whole.jpg") as whole:
        assert small.info["icc_profile"] == icc
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(whole).convert("RGB")
        for across in (0.25, 0.75):
            for down in (0.25, 0.75):
                seen = small.convert("RGB").getpixel((int(across * size[0]), int(down * size[1])))
                meant = upright.getpixel((int(across * upright.width), int(down * upright.height)))
                assert colour_difference(seen, meant) < 12


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_raw_files_own_jpeg_is_scaled_and_lies_as_the_raw_file_says(tmp_path: Path, orientation: int) -> None:
    (tmp_path / "in.DNG").write_bytes(dng(photo_like((320, 240)), orientation=orientation))
    facts = render(tmp_path / "in.DNG", tmp_path / "out.jpg", KNOWN, options=RenderOptions(max_size=160))
    assert (facts.width, facts.height) == ((160, 120) if orientation == 1 else (120, 160))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.size == (160, 120)
        assert image.getexif().get(0x0112, 1) == orientation
    smaller = RenderOptions(max_size=160, strip_location=True)
    assert render(tmp_path / "in.DNG", tmp_path / "out.jpg", KNOWN, options=smaller).location is None


def colour_difference(one: Any, other: Any) -> int:
    return int(max(abs(a - b) for a, b in zip(one, other, strict=True)))


def test_a_scaled_picture_may_also_be_without_its_position(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(with_hiding_places(encoded(photo_like(), "JPEG", exif=located())))
    facts = render(tmp_path / "in.jpg", tmp_path / "out.jpg", options=RenderOptions(max_size=100, strip_location=True))
    assert (facts.location, facts.width) == (None, 100)
    assert b"GPS" not in (tmp_path / "out.jpg").read_bytes()
    assert facts.date_taken == datetime(2019, 1, 2, 3, 4, 5).isoformat()


def test_what_is_made_of_a_picture_depends_on_nothing_else(tmp_path: Path) -> None:
    source = sample(tmp_path, "jpg")
    for options in (WITHOUT, RenderOptions(max_size=30)):
        copies = []
        for name in ("one", "two"):
            shutil.copy(source, tmp_path / name)
            render(tmp_path / name, tmp_path / f"{name}.jpg", KNOWN, options=options)
            copies.append((tmp_path / f"{name}.jpg").read_bytes())
        assert copies[0] == copies[1]
