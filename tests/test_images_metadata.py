"""What the library knows is in the file, where other programs look for it; what the camera wrote stays."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skicyclerun.images.render import read_facts
from skicyclerun.images.tag_dates import parse_date, parse_iso_date
from skicyclerun.models import LibraryMetadata, Location
from tests.images_samples import KNOWN, encoded, exif_with, exiftool, needs_exiftool, quadrants, render, scans_of
from tests.shared_libraries import LIBRARIES, needs_full_libraries

LEAVE_POSITION = LibraryMetadata(location_known=False)
APPLE_JPEG = "*/originals/7/71E3E212-00EB-430D-8A63-5E294B268554.jpeg"


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "in.jpg"
    path.write_bytes(encoded(quadrants(), "JPEG", quality=90, exif=exif_with()))
    return path


@pytest.fixture
def located(jpeg: Path, tmp_path: Path) -> Path:
    """A JPEG with a position, an altitude and a direction in it."""
    path = tmp_path / "located.jpg"
    render(jpeg, path, LibraryMetadata(location=Location(46.5, 7.25, 1200, 90)))
    return path


@needs_exiftool
def test_every_fact_is_where_other_programs_look_for_it(jpeg: Path, tmp_path: Path) -> None:
    render(jpeg, tmp_path / "out.jpg", KNOWN)
    tags = exiftool(tmp_path / "out.jpg")
    assert tags["ExifIFD:DateTimeOriginal"] == "2021:07:27 10:05:21"
    assert tags["ExifIFD:OffsetTimeOriginal"] == "+02:00"
    assert str(tags["ExifIFD:SubSecTimeOriginal"]) == "250"
    assert tags["ExifIFD:CreateDate"] == "2021:07:27 10:05:21"
    assert tags["GPS:GPSLatitude"] == pytest.approx(46.5581, abs=1e-7)
    assert tags["GPS:GPSLongitude"] == pytest.approx(7.8352, abs=1e-7)
    assert (tags["GPS:GPSLatitudeRef"], tags["GPS:GPSLongitudeRef"]) == ("N", "W")
    assert (tags["GPS:GPSAltitude"], tags["GPS:GPSAltitudeRef"]) == (1200.5, 0)
    assert (tags["GPS:GPSImgDirection"], tags["GPS:GPSImgDirectionRef"]) == (271.25, "T")
    assert tags["XMP-dc:Title"] == tags["IPTC:ObjectName"] == "Über den Pass"
    assert tags["XMP-dc:Description"] == tags["IPTC:Caption-Abstract"] == "Erste Zeile\nzweite Zeile 🚲"
    assert tags["IFD0:ImageDescription"] == "Erste Zeile\nzweite Zeile 🚲"
    assert tags["XMP-dc:Subject"] == tags["IPTC:Keywords"] == ["Alpen, Süd", "pass"]
    assert tags["XMP-iptcExt:PersonInImage"] == ["Ann Example", "Ben Ü."]
    assert tags["XMP-xmp:Rating"] == tags["IFD0:Rating"] == 4
    assert (tags["IFD0:Make"], tags["IFD0:Model"]) == ("Maker", "Model 7")
    assert "ExifTool:Warning" not in tags


def test_facts_are_what_was_written(jpeg: Path, tmp_path: Path) -> None:
    facts = render(jpeg, tmp_path / "out.jpg", KNOWN)
    assert facts.date_taken == "2021-07-27T10:05:21.250+02:00"
    assert facts.date_taken_utc == "2021-07-27T08:05:21.250Z"
    assert facts.location is not None
    assert (facts.location.altitude, facts.location.heading) == (1200.5, 271.25)
    assert (facts.location.latitude, facts.location.longitude) == pytest.approx((46.5581, -7.8352), abs=1e-7)
    assert (facts.title, facts.description) == (KNOWN.title, KNOWN.description)
    assert (facts.keywords, facts.persons) == (KNOWN.keywords, KNOWN.persons)


@needs_exiftool
def test_camera_tags_and_maker_notes_are_kept(tmp_path: Path) -> None:
    source = next(LIBRARIES.glob(APPLE_JPEG))
    render(source, tmp_path / "out.jpg", KNOWN)
    before, after = exiftool(source), exiftool(tmp_path / "out.jpg")
    kept = {name: value for name, value in before.items() if name.split(":")[0] in ("Apple", "ExifIFD", "IFD0", "IFD1")}
    changed = {name for name, value in kept.items() if after.get(name) != value}
    assert len(kept) > 50
    assert changed <= {"ExifIFD:DateTimeOriginal", "ExifIFD:SubSecTimeOriginal", "IFD1:ThumbnailOffset"}


@needs_full_libraries
@needs_exiftool
def test_a_heics_tags_and_maker_notes_arrive_in_the_jpeg(tmp_path: Path) -> None:
    source = next(LIBRARIES.glob("*/originals/5/5F9BCC2D-D1DF-46D8-8F70-C142B25D3DC3.heic"))
    render(source, tmp_path / "out.jpg", LEAVE_POSITION)
    before, after = exiftool(source), exiftool(tmp_path / "out.jpg")
    for name, value in before.items():
        if name.split(":")[0] in ("Apple", "ExifIFD", "GPS") and "ExifImage" not in name:
            assert after.get(name) == value, name
    assert (after["ExifIFD:ExifImageWidth"], after["ExifIFD:ExifImageHeight"]) == (2320, 3088)
    assert after.get("IFD0:Orientation", 1) == 1


def test_values_that_are_there_already_leave_the_file_as_it_is(jpeg: Path, tmp_path: Path) -> None:
    same = LibraryMetadata(date=datetime(2019, 1, 2, 3, 4, 5), location=None)
    render(jpeg, tmp_path / "out.jpg", same)
    assert (tmp_path / "out.jpg").read_bytes() == jpeg.read_bytes()


def test_a_real_photo_with_its_own_facts_stays_byte_identical(tmp_path: Path) -> None:
    source = next(LIBRARIES.glob(APPLE_JPEG))
    own = read_facts(source)
    date = datetime(2020, 2, 4, 19, 7, 38, 703_999)
    render(source, tmp_path / "out.jpg", LibraryMetadata(date=date, location=own.location))
    assert (tmp_path / "out.jpg").read_bytes() == source.read_bytes()


# ── positions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_position_removed_in_the_library_is_removed_from_the_file(located: Path, tmp_path: Path) -> None:
    facts = render(located, tmp_path / "out.jpg", LibraryMetadata(location=None))
    assert facts.location is None
    with Image.open(tmp_path / "out.jpg") as image:
        assert not image.getexif().get_ifd(0x8825)
        assert 0x8825 not in image.getexif()


@needs_exiftool
def test_a_position_in_xmp_is_removed_too(jpeg: Path, tmp_path: Path) -> None:
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'exif:GPSLatitude="46,30.0N" exif:GPSLongitude="7,15.0E" exif:GPSAltitude="1200/1" dc:source="kept">'
        '<Iptc4xmpExt:LocationCreated><rdf:Bag><rdf:li rdf:parseType="Resource">'
        "<exif:GPSLatitude>46,30.0N</exif:GPSLatitude><Iptc4xmpExt:City>Adelboden</Iptc4xmpExt:City>"
        "</rdf:li></rdf:Bag></Iptc4xmpExt:LocationCreated></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    source = tmp_path / "xmp.jpg"
    source.write_bytes(encoded(quadrants(), "JPEG", xmp=xmp.encode()))
    render(source, tmp_path / "out.jpg", LibraryMetadata(location=None))
    tags = exiftool(tmp_path / "out.jpg")
    assert not [name for name in tags if "GPS" in name]
    assert tags["XMP-dc:Source"] == "kept"


def test_a_position_the_library_says_nothing_of_stays(located: Path, tmp_path: Path) -> None:
    facts = render(located, tmp_path / "out.jpg", LEAVE_POSITION)
    assert facts.location == Location(46.5, 7.25, 1200.0, 90.0)
    assert (tmp_path / "out.jpg").read_bytes() == located.read_bytes()


def test_a_position_moved_in_the_library_takes_no_altitude_of_the_old_place_along(
    located: Path, tmp_path: Path
) -> None:
    facts = render(located, tmp_path / "out.jpg", LibraryMetadata(location=Location(-33.9, 18.4)))
    assert facts.location is not None
    assert (facts.location.altitude, facts.location.heading) == (None, None)
    assert facts.location.latitude == pytest.approx(-33.9, abs=1e-7)


@settings(max_examples=60)
@given(
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
    altitude=st.none() | st.floats(-11_000, 60_000),
    heading=st.none() | st.floats(0, 359.99),
)
def test_any_position_comes_back_within_a_centimetre(
    tmp_path: Path, latitude: float, longitude: float, altitude: float | None, heading: float | None
) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(encoded(quadrants((16, 16)), "JPEG"))
    location = Location(latitude, longitude, altitude, heading)
    facts = render(source, tmp_path / "out.jpg", LibraryMetadata(location=location))
    assert facts.location is not None
    assert facts.location.latitude == pytest.approx(latitude, abs=1e-7)
    assert facts.location.longitude == pytest.approx(longitude, abs=1e-7)
    assert facts.location.altitude == (None if altitude is None else pytest.approx(altitude, abs=0.001))
    assert facts.location.heading == (None if heading is None else pytest.approx(heading, abs=0.001))


@pytest.mark.parametrize("latitude", [float("nan"), float("inf"), 91.0, -180.0])
def test_a_position_off_this_planet_is_left_alone(located: Path, tmp_path: Path, latitude: float) -> None:
    facts = render(located, tmp_path / "out.jpg", LibraryMetadata(location=Location(latitude, 0)))
    assert facts.location == Location(46.5, 7.25, 1200.0, 90.0)


# ── dates ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60)
@given(
    date=st.datetimes(min_value=datetime(1840, 1, 1), max_value=datetime(2200, 1, 1)),
    offset=st.none() | st.integers(-12 * 3600, 14 * 3600),
)
def test_any_date_comes_back_to_the_millisecond(tmp_path: Path, date: datetime, offset: int | None) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(encoded(quadrants((16, 16)), "JPEG"))
    aware = date if offset is None else date.replace(tzinfo=timezone(timedelta(seconds=offset)))
    facts = render(source, tmp_path / "out.jpg", LibraryMetadata(date=aware))
    assert facts.date_taken is not None
    again = datetime.fromisoformat(facts.date_taken)
    assert timedelta(0) <= aware - again < timedelta(milliseconds=1)
    assert (facts.date_taken_utc is None) == (offset is None)
    with Image.open(tmp_path / "out.jpg") as image:
        exif = image.getexif().get_ifd(0x8769)
        assert exif[0x9003] == again.strftime("%Y:%m:%d %H:%M:%S")
        assert (0x9011 in exif) == (offset is not None)


def test_a_naive_date_removes_the_offset_of_the_date_it_replaces(jpeg: Path, tmp_path: Path) -> None:
    render(jpeg, tmp_path / "one.jpg", KNOWN)
    facts = render(tmp_path / "one.jpg", tmp_path / "two.jpg", LibraryMetadata(date=datetime(2022, 1, 1, 12)))
    assert (facts.date_taken, facts.date_taken_utc) == ("2022-01-01T12:00:00", None)


def test_odd_dates_in_files_are_read_or_left() -> None:
    assert parse_date("0000:00:00 00:00:00") is None
    assert parse_date("    :  :     :  :  ") is None
    assert parse_date("2020:02:30 10:00:00") is None
    assert parse_date("2020:02:04 10:00:60") == datetime(2020, 2, 4, 10, 0, 59)
    assert parse_date("2020-02-04T10:00:05", "Z", "5 ") == datetime(2020, 2, 4, 10, 0, 5, 500_000, UTC)
    assert parse_iso_date("2020-02-04T10:00:05.25+02:00") == datetime(
        2020, 2, 4, 10, 0, 5, 250_000, timezone(timedelta(hours=2))
    )


def iptc_of(date: str, time: str, **further: str) -> bytes:
    """A JPEG with an IPTC block of these, and texts by data set of the application record."""
    data = b"".join(
        b"\x1c\x02" + bytes([int(number)]) + struct.pack(">H", len(text)) + text.encode()
        for number, text in {"55": date, "60": time, **further}.items()
    )
    block = struct.pack(">I", len(data)) + data + b"\x00" * (len(data) % 2)
    segment = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + block
    plain = encoded(quadrants(), "JPEG")
    return plain[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


NEW_YORK = datetime(2018, 9, 28, 15, 35, 49, tzinfo=timezone(timedelta(hours=-4)))


@needs_exiftool
@pytest.mark.parametrize(
    ("date", "time"),
    [
        ("20180928", "153549+0000"),  # another offset than the library's (Pumkins1 of the test library)
        ("20180928", "153549-0700"),
        ("20180928", "153549"),  # none at all, which exiv2 would make +00:00
        ("20180927", "101112-0400"),
    ],
)
def test_iptcs_date_and_time_are_the_librarys_with_its_offset(tmp_path: Path, date: str, time: str) -> None:
    (tmp_path / "in.jpg").write_bytes(iptc_of(date, time))
    render(tmp_path / "in.jpg", tmp_path / "out.jpg", LibraryMetadata(date=NEW_YORK, location=None))
    tags = exiftool(tmp_path / "out.jpg")
    assert (tags["IPTC:DateCreated"], tags["IPTC:TimeCreated"]) == ("2018:09:28", "15:35:49-04:00")


@needs_exiftool
def test_a_file_without_iptc_gets_its_date_and_time(jpeg: Path, tmp_path: Path) -> None:
    render(jpeg, tmp_path / "out.jpg", LibraryMetadata(date=NEW_YORK))
    tags = exiftool(tmp_path / "out.jpg")
    assert (tags["IPTC:DateCreated"], tags["IPTC:TimeCreated"]) == ("2018:09:28", "15:35:49-04:00")
    once = (tmp_path / "out.jpg").read_bytes()
    render(tmp_path / "out.jpg", tmp_path / "again.jpg", LibraryMetadata(date=NEW_YORK))
    assert (tmp_path / "again.jpg").read_bytes() == once


@needs_exiftool
def test_an_iptc_time_of_digitizing_gets_no_offset_that_nobody_said(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(iptc_of("20180928", "153549", **{"62": "20180928", "63": "153549"}))
    render(tmp_path / "in.jpg", tmp_path / "out.jpg", LibraryMetadata(date=NEW_YORK))
    assert exiftool(tmp_path / "out.jpg")["IPTC:DigitalCreationTime"] == "15:35:49-04:00"


@needs_exiftool
@pytest.mark.parametrize("hours", [-9.5, -0.5, 0, 5.75])
def test_iptcs_time_takes_offsets_of_half_hours(jpeg: Path, tmp_path: Path, hours: float) -> None:
    zone = timezone(timedelta(hours=hours))
    render(jpeg, tmp_path / "out.jpg", LibraryMetadata(date=NEW_YORK.replace(tzinfo=zone)))
    tags = exiftool(tmp_path / "out.jpg")
    assert tags["IPTC:TimeCreated"] == f"15:35:49{tags['ExifIFD:OffsetTimeOriginal']}"


@needs_exiftool
def test_a_date_without_an_offset_enters_no_iptc_and_takes_a_wrong_time_away(jpeg: Path, tmp_path: Path) -> None:
    naive = LibraryMetadata(date=datetime(2018, 9, 28, 15, 35, 49))
    render(jpeg, tmp_path / "out.jpg", naive)
    assert not [name for name in exiftool(tmp_path / "out.jpg") if name.startswith("IPTC")]
    (tmp_path / "in.jpg").write_bytes(iptc_of("20180927", "101112-0400"))
    render(tmp_path / "in.jpg", tmp_path / "out.jpg", naive)
    tags = exiftool(tmp_path / "out.jpg")
    assert tags["IPTC:DateCreated"] == "2018:09:28"
    assert "IPTC:TimeCreated" not in tags


@needs_exiftool
@pytest.mark.parametrize(
    ("changed", "offset", "expected"),
    [
        ("2018:10:04 15:02:59", None, "-04:00"),  # when it was changed, by a clock of which nothing is known
        ("2018:10:04 15:02:59", "+01:00", "+01:00"),  # a program that says its own
        ("2018:09:28 15:35:49", "+01:00", "-04:00"),  # a copy of the date
        ("    :  :     :  :  ", None, None),
        (None, None, None),
    ],
)
def test_the_date_of_change_has_an_offset(
    tmp_path: Path, changed: str | None, offset: str | None, expected: str | None
) -> None:
    exif = exif_with()
    if changed:
        exif[0x0132] = changed
    if offset:
        exif.get_ifd(0x8769)[0x9010] = offset
    (tmp_path / "in.jpg").write_bytes(encoded(quadrants(), "JPEG", exif=exif))
    render(tmp_path / "in.jpg", tmp_path / "out.jpg", LibraryMetadata(date=NEW_YORK))
    tags = exiftool(tmp_path / "out.jpg")
    assert tags.get("ExifIFD:OffsetTime") == expected
    assert tags.get("IFD0:ModifyDate") == changed
    assert tags["ExifIFD:OffsetTimeOriginal"] == "-04:00"


@needs_exiftool
@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ("2018-09-28T15:35:49-07:00", "2018:09:28 15:35:49-04:00"),
        ("2018-09-28T15:35:49-04:00", "2018:09:28 15:35:49-04:00"),
        ("2018-09-28T15:35:49", "2018:09:28 15:35:49"),
        ("2018-09-28", "2018:09:28 15:35:49-04:00"),
    ],
)
def test_xmps_date_does_not_contradict_the_librarys_offset(tmp_path: Path, there: str, expected: str) -> None:
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        f'photoshop:DateCreated="{there}"/></rdf:RDF></x:xmpmeta>'
    )
    (tmp_path / "in.jpg").write_bytes(encoded(quadrants(), "JPEG", xmp=xmp.encode()))
    render(tmp_path / "in.jpg", tmp_path / "out.jpg", LibraryMetadata(date=NEW_YORK))
    assert exiftool(tmp_path / "out.jpg")["XMP-photoshop:DateCreated"] == expected


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

any_text = st.text(st.characters(), max_size=60)  # surrogates, NUL and other control characters included


@settings(max_examples=120)
@given(
    title=any_text,
    description=any_text,
    keywords=st.lists(any_text, max_size=4),
    persons=st.lists(any_text, max_size=3),
)
def test_any_text_from_a_library_comes_back_clean(
    tmp_path: Path, title: str, description: str, keywords: list[str], persons: list[str]
) -> None:
    source, out = tmp_path / "in.jpg", tmp_path / "out.jpg"
    source.write_bytes(encoded(quadrants((16, 16)), "JPEG"))
    known = LibraryMetadata(title=title, description=description, keywords=tuple(keywords), persons=tuple(persons))
    facts = render(source, out, known)
    for text in (facts.title or "", facts.description or "", *facts.keywords, *facts.persons):
        text.encode("utf-8")
        assert "\x00" not in text
    assert len(facts.keywords) <= len(set(keywords))
    plain = [text for text in dict.fromkeys(keywords) if text.strip() == text and text.isprintable() and text]
    assert set(plain) <= set(facts.keywords)
    render(out, tmp_path / "again.jpg", known)
    assert (tmp_path / "again.jpg").read_bytes() == out.read_bytes()


def test_texts_of_100_kilobytes_are_cut_and_said_so(jpeg: Path, tmp_path: Path) -> None:
    known = LibraryMetadata(
        title="t\u00e4" * 5_000,
        description="d\u00e4\u65e5" * 30_000,
        keywords=tuple(f"{number} " + "k" * 300 for number in range(500)),
        persons=("p" * 100_000,),
    )
    facts = render(jpeg, tmp_path / "out.jpg", known)
    assert "the description was cut" in facts.note
    assert "keywords fitted" in facts.note
    assert facts.description is not None
    assert known.description is not None
    assert known.description.startswith(facts.description)
    assert len(facts.description) > 10_000
    with Image.open(tmp_path / "out.jpg") as image:
        image.load()
    assert scans_of((tmp_path / "out.jpg").read_bytes()) == scans_of(jpeg.read_bytes())


@needs_exiftool
def test_old_iptc_texts_are_brought_to_utf8_when_others_are_added(tmp_path: Path) -> None:
    iptc = b"\x1c\x02\x69\x00\x07\x43\x61\x66\xe9\x20\x31\x32"  # a headline in Latin-1, "Café 12"
    resource = b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(iptc)) + iptc
    segment = b"Photoshop 3.0\x00" + resource
    plain = encoded(quadrants(), "JPEG")
    source = tmp_path / "iptc.jpg"
    source.write_bytes(plain[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + plain[2:])
    render(source, tmp_path / "out.jpg", LibraryMetadata(keywords=("Zürich",)))
    tags = exiftool(tmp_path / "out.jpg")
    assert tags["IPTC:Headline"] == "Café 12"
    assert tags["IPTC:Keywords"] == "Zürich"


def test_absent_texts_leave_what_the_file_has(jpeg: Path, tmp_path: Path) -> None:
    render(jpeg, tmp_path / "one.jpg", KNOWN)
    bare = replace(KNOWN, title=None, description=None, keywords=(), persons=(), rating=None)
    facts = render(tmp_path / "one.jpg", tmp_path / "two.jpg", bare)
    assert (facts.title, facts.keywords, facts.persons) == (KNOWN.title, KNOWN.keywords, KNOWN.persons)


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_exif(exif: bytes) -> bytes:
    plain = encoded(quadrants(), "JPEG")
    segment = b"Exif\x00\x00" + exif
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


CYCLIC = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
OVERSIZED = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHIII", 1, 0x010E, 2, 0xFFFFFFF0, 8, 0)
MANY = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 0xFFFF) + struct.pack("<HHII", 0x927C, 7, 60_000, 8) * 5_000
GARBAGE = b"II*\x00" + bytes(range(200))


@pytest.mark.parametrize("exif", [CYCLIC, OVERSIZED, MANY, GARBAGE, b"", b"XX"], ids=lambda exif: str(len(exif)))
def test_damaged_exif_is_replaced_and_the_picture_kept(tmp_path: Path, exif: bytes) -> None:
    source, out = tmp_path / "in.jpg", tmp_path / "out.jpg"
    source.write_bytes(_with_exif(exif))
    facts = render(source, out, KNOWN)
    assert facts.date_taken == "2021-07-27T10:05:21.250+02:00"
    assert scans_of(out.read_bytes()) == scans_of(source.read_bytes())
    with Image.open(out) as image:
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2021:07:27 10:05:21"


def test_exif_that_fills_its_segment_gives_way_to_what_the_library_knows(tmp_path: Path) -> None:
    exif = exif_with()
    for tag in (0x9286, 0xA300, 0xA301, 0xA40B):
        exif.get_ifd(0x8769)[tag] = bytes(15_900)
    (tmp_path / "in.jpg").write_bytes(encoded(quadrants(), "JPEG", exif=exif))
    facts = render(tmp_path / "in.jpg", tmp_path / "out.jpg", replace(KNOWN, description="d" * 10_000))
    assert "EXIF was shortened" in facts.note
    assert facts.location is not None
    assert read_facts(tmp_path / "out.jpg").location == facts.location
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif()[0x0110] == "Model 7"


def test_exif_nobody_can_read_is_noted(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(_with_exif(GARBAGE))
    assert "EXIF could not be read" in render(tmp_path / "in.jpg", tmp_path / "out.jpg", KNOWN).note


def test_xmp_nobody_can_read_is_replaced_and_noted(tmp_path: Path) -> None:
    broken = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF><rdf:Description no end"
    (tmp_path / "in.jpg").write_bytes(encoded(quadrants(), "JPEG", xmp=broken))
    facts = render(tmp_path / "in.jpg", tmp_path / "out.jpg", KNOWN)
    assert facts.title == KNOWN.title
    assert "XMP could not be read" in facts.note


def test_nothing_is_written_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for exif in (CYCLIC, OVERSIZED, MANY, GARBAGE):
        (tmp_path / "in.jpg").write_bytes(_with_exif(exif))
        render(tmp_path / "in.jpg", tmp_path / "out.jpg", KNOWN)
    assert capfd.readouterr() == ("", "")


# ── Microsoft's tags ──────────────────────────────────────────────────────────────────────────────────────────────

XP_TITLE, XP_COMMENT, XP_KEYWORDS, XP_SUBJECT = 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F


def with_windows_tags(path: Path, **texts: str) -> Path:
    """A JPEG with tags as Windows writes them: `title`, `comment`, `keywords`, `subject`."""
    exif = exif_with()
    numbers = {"title": XP_TITLE, "comment": XP_COMMENT, "keywords": XP_KEYWORDS, "subject": XP_SUBJECT}
    for name, text in texts.items():
        exif[numbers[name]] = f"{text}\x00".encode("utf-16-le")
    path.write_bytes(encoded(quadrants(), "JPEG", quality=90, exif=exif))
    return path


def windows_tag(path: Path, number: int) -> bytes | None:
    """The bytes of a tag, as Pillow finds them."""
    with Image.open(path) as picture:
        value = picture.getexif().get(number)
    assert value is None or isinstance(value, bytes)
    return value


def test_keywords_are_written_as_windows_reads_them(jpeg: Path, tmp_path: Path) -> None:
    render(jpeg, tmp_path / "out.jpg", KNOWN)
    assert windows_tag(tmp_path / "out.jpg", XP_KEYWORDS) == "Alpen, Süd;pass\x00".encode("utf-16-le")
    # Windows reads a title from XMP where there is no XPTitle, and a subject that is not ASCII from XPSubject only.
    assert windows_tag(tmp_path / "out.jpg", XP_TITLE) is None
    assert windows_tag(tmp_path / "out.jpg", XP_COMMENT) is None
    assert windows_tag(tmp_path / "out.jpg", XP_SUBJECT) == f"{KNOWN.description}\x00".encode("utf-16-le")


@needs_exiftool
def test_another_reader_finds_the_same_in_microsofts_tags_as_in_xmp(tmp_path: Path) -> None:
    before = with_windows_tags(tmp_path / "in.jpg", title="old", comment="mine", keywords="old;older", subject="old")
    # Not KNOWN's bicycle: exiftool takes these tags for UCS-2, in which it does not exist.
    render(before, tmp_path / "out.jpg", replace(KNOWN, description="Über\nzwei Zeilen"))
    tags = exiftool(tmp_path / "out.jpg")
    assert tags["IFD0:XPTitle"] == tags["XMP-dc:Title"] == KNOWN.title
    assert tags["IFD0:XPSubject"] == tags["XMP-dc:Description"] == "Über\nzwei Zeilen"
    assert tags["IFD0:XPKeywords"].split(";") == tags["XMP-dc:Subject"] == list(KNOWN.keywords)
    assert tags["IFD0:XPComment"] == "mine"
    assert "ExifTool:Warning" not in tags


def test_microsofts_tags_follow_what_the_library_changes(tmp_path: Path) -> None:
    first = tmp_path / "first.jpg"
    render(with_windows_tags(tmp_path / "in.jpg", title="x", subject="x"), first, KNOWN)
    render(first, tmp_path / "then.jpg", replace(KNOWN, title="New", description="plain", keywords=("one", "two")))
    assert windows_tag(tmp_path / "then.jpg", XP_TITLE) == "New\x00".encode("utf-16-le")
    assert windows_tag(tmp_path / "then.jpg", XP_SUBJECT) == "plain\x00".encode("utf-16-le")
    assert windows_tag(tmp_path / "then.jpg", XP_KEYWORDS) == "one;two\x00".encode("utf-16-le")
    facts = read_facts(tmp_path / "then.jpg")
    assert (facts.title, facts.description, facts.keywords) == ("New", "plain", ("one", "two"))


def test_a_comment_that_repeats_the_old_description_follows_it(tmp_path: Path) -> None:
    described = tmp_path / "described.jpg"
    render(with_windows_tags(tmp_path / "in.jpg", comment="Gran"), described, LibraryMetadata(description="Gran"))
    render(described, tmp_path / "out.jpg", LibraryMetadata(description="Gran and Ben"))
    assert windows_tag(tmp_path / "out.jpg", XP_COMMENT) == "Gran and Ben\x00".encode("utf-16-le")


def test_microsofts_tags_stay_where_the_library_knows_nothing(tmp_path: Path) -> None:
    said = {"title": "Ünder", "comment": "c", "keywords": "a;b", "subject": "s"}
    before = with_windows_tags(tmp_path / "in.jpg", **said)
    render(before, tmp_path / "out.jpg", LEAVE_POSITION)
    assert (tmp_path / "out.jpg").read_bytes() == before.read_bytes()
    facts = read_facts(before)  # nothing else says them
    assert (facts.title, facts.keywords) == ("Ünder", ("a", "b"))


def test_microsofts_tags_that_are_right_leave_the_file_as_it_is(tmp_path: Path) -> None:
    first = tmp_path / "first.jpg"
    render(with_windows_tags(tmp_path / "in.jpg", title="x", comment="c", subject="x"), first, KNOWN)
    render(first, tmp_path / "again.jpg", KNOWN)
    assert (tmp_path / "again.jpg").read_bytes() == first.read_bytes()


def test_a_keyword_with_a_semicolon_is_not_told_to_windows_as_two(tmp_path: Path) -> None:
    stale = with_windows_tags(tmp_path / "in.jpg", keywords="stale")
    render(stale, tmp_path / "some.jpg", LibraryMetadata(keywords=("a;b", "c")))
    assert windows_tag(tmp_path / "some.jpg", XP_KEYWORDS) == "c\x00".encode("utf-16-le")
    assert read_facts(tmp_path / "some.jpg").keywords == ("a;b", "c")
    render(stale, tmp_path / "none.jpg", LibraryMetadata(keywords=("a;b",)))
    assert windows_tag(tmp_path / "none.jpg", XP_KEYWORDS) is None


@settings(max_examples=40)
@given(title=st.text(), keywords=st.lists(st.text(max_size=40), max_size=6), description=st.text(max_size=9000))
def test_microsofts_tags_never_contradict_what_xmp_says(
    tmp_path: Path, title: str, keywords: list[str], description: str
) -> None:
    before = with_windows_tags(tmp_path / "in.jpg", title="old", keywords="old", subject="old")
    known = LibraryMetadata(title=title, keywords=tuple(keywords), description=description)
    facts = render(before, tmp_path / "out.jpg", known)

    def told(number: int) -> str:
        data = windows_tag(tmp_path / "out.jpg", number)
        assert data is None or (len(data) <= 8_000 and data.endswith(b"\x00\x00"))
        return "" if data is None else data.decode("utf-16-le").rstrip("\x00")

    title_told, subject_told = told(XP_TITLE), told(XP_SUBJECT)
    assert (facts.title or "").startswith(title_told)
    assert title_told
    assert subject_told == "old" or (facts.description or "").startswith(subject_told)
    assert (subject_told == "old") == (facts.description is None)
    assert [word for word in told(XP_KEYWORDS).split(";") if word] == [
        word for word in facts.keywords if ";" not in word
    ]
