"""RAW files, movies, and originals that are copied as they are."""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.render import RenderOptions, read_facts
from skicyclerun.images.sniff import Content, describe_unknown, sniff_head
from skicyclerun.models import Component, LibraryMetadata, Location
from tests.images_samples import KNOWN, encoded, exiftool, needs_exiftool, photo_like, quadrants, render
from tests.shared_libraries import LIBRARIES, needs_full_libraries

Entry = tuple[int, int, int, bytes]  # tag, type, count, value

# ── RAW ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _shorts(tag: int, *values: int) -> Entry:
    return tag, 3, len(values), struct.pack(f"<{len(values)}H", *values)


def _longs(tag: int, *values: int) -> Entry:
    return tag, 4, len(values), struct.pack(f"<{len(values)}I", *values)


def _bytes(tag: int, *values: int) -> Entry:
    return tag, 1, len(values), bytes(values)


def _text(tag: int, text: str) -> Entry:
    return tag, 2, len(text) + 1, text.encode() + b"\x00"


def _directory(entries: Iterable[Entry], at: int) -> bytes:
    entries = sorted(entries)
    values_at = at + 2 + 12 * len(entries) + 4
    table, values = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        if len(value) > 4:
            pointer = struct.pack("<I", values_at + len(values))
            values += value + bytes(len(value) % 2)
        else:
            pointer = value.ljust(4, b"\x00")
        table += struct.pack("<HHI", tag, kind, count) + pointer
    return table + bytes(4) + values


def dng(preview: Image.Image | None = None, orientation: int = 1) -> bytes:
    """A DNG of 320 by 240 with the four quadrants as a plain Bayer mosaic, and a JPEG in its first directory."""
    colours = np.asarray(quadrants((320, 240))).astype(float) / 255
    mosaic = np.zeros((240, 320))
    for row, column, band in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = colours[row::2, column::2, band]
    sensor = (mosaic * 60_000).astype("<u2").tobytes()
    jpeg = encoded(preview, "JPEG", quality=92) if preview else b""
    matrix = [round(value * 10_000) for value in (3.24, -1.54, -0.5, -0.97, 1.88, 0.04, 0.06, -0.2, 1.06)]
    about = [
        _text(0x010F, "Maker"),
        _text(0x0110, "Model 7"),
        _shorts(0x0112, orientation),
        _text(0x9003, "2019:01:02 03:04:05"),
        _bytes(0xC612, 1, 4, 0, 0),
        _text(0xC614, "Maker Model 7"),
        (0xC621, 10, 9, b"".join(struct.pack("<ii", value, 10_000) for value in matrix)),
        (0xC628, 5, 3, struct.pack("<6I", 1, 1, 1, 1, 1, 1)),
        _shorts(0xC65A, 21),
    ]

    def directories(sensor_at: int, jpeg_at: int, second_at: int) -> tuple[list[Entry], list[Entry]]:
        full = [_longs(0x00FE, 0), _longs(0x0100, 320), _longs(0x0101, 240), _shorts(0x0102, 16), _shorts(0x0103, 1)]
        full += [_shorts(0x0106, 32803), _longs(0x0111, sensor_at), _shorts(0x0115, 1), _longs(0x0116, 240)]
        full += [_longs(0x0117, len(sensor)), _shorts(0x828D, 2, 2), _bytes(0x828E, 0, 1, 1, 2), _longs(0xC61D, 65535)]
        if preview is None:
            return [*full, *about], []
        small = [_longs(0x00FE, 1), _longs(0x0100, preview.width), _longs(0x0101, preview.height)]
        small += [_shorts(0x0102, 8, 8, 8), _shorts(0x0103, 7), _shorts(0x0106, 6), _longs(0x0111, jpeg_at)]
        small += [_shorts(0x0115, 3), _longs(0x0116, preview.height), _longs(0x0117, len(jpeg))]
        return [*small, _longs(0x014A, second_at), *about], full

    first, second = directories(0, 0, 0)
    second_at = 8 + len(_directory(first, 8))
    sensor_at = second_at + (len(_directory(second, second_at)) if second else 0)
    first, second = directories(sensor_at, sensor_at + len(sensor), second_at)
    head = b"II*\x00" + struct.pack("<I", 8) + _directory(first, 8)
    return head + (_directory(second, second_at) if second else b"") + sensor + jpeg


def _dominant(path: Path) -> list[int]:
    """Which band is brightest in the middle of each quadrant, as shown; 3 for red and green alike."""
    from PIL import ImageOps

    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    height, width, _ = shown.shape
    found = []
    for y in (1, 3):
        for x in (1, 3):
            red, green, blue = shown[height * y // 4, width * x // 4]
            found.append(
                3 if min(red, green) > 1.5 * blue and abs(red - green) < 60 else int(np.argmax((red, green, blue)))
            )
    return found


def test_a_raw_files_full_size_jpeg_is_taken_as_it_is(tmp_path: Path) -> None:
    source, out = tmp_path / "IMG_1.DNG", tmp_path / "out.jpg"
    preview = photo_like((320, 240))
    source.write_bytes(dng(preview, orientation=6))
    facts = render(source, out, KNOWN)
    assert (facts.width, facts.height) == (240, 320)
    assert "own JPEG" in facts.note
    with Image.open(out) as image:
        assert image.getexif()[0x0112] == 6
        assert image.getexif()[0x0110] == "Model 7"
        assert image.tobytes() == _decoded(encoded(preview, "JPEG", quality=92))


def _decoded(jpeg: bytes) -> bytes:
    import io

    with Image.open(io.BytesIO(jpeg)) as image:
        return image.tobytes()


@pytest.mark.parametrize("preview", [None, (80, 60), "broken"])
def test_a_raw_file_without_one_is_developed_upright(tmp_path: Path, preview: object) -> None:
    pytest.importorskip("rawpy", reason="rawpy is not installed")
    source, out = tmp_path / "IMG_1.DNG", tmp_path / "out.jpg"
    small = quadrants((80, 60)) if preview == (80, 60) else photo_like((320, 240)) if preview else None
    data = dng(small, orientation=6)
    source.write_bytes(data[:-200] + bytes(200) if preview == "broken" else data)
    facts = render(source, out, KNOWN)
    assert (facts.width, facts.height) == (240, 320)
    assert "RAW developed" in facts.note
    assert _dominant(out) == [2, 0, 3, 1]
    with Image.open(out) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x0110] == "Model 7"


def test_without_rawpy_the_reason_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    (tmp_path / "IMG_1.DNG").write_bytes(dng(quadrants((80, 60))))
    with pytest.raises(PhotoUnreadable, match="rawpy") as caught:
        render(tmp_path / "IMG_1.DNG", tmp_path / "out.jpg")
    assert 'pip install "skicyclerun[raw]"' in caught.value.next_step
    (tmp_path / "IMG_2.DNG").write_bytes(dng(photo_like((320, 240))))
    assert "own JPEG" in render(tmp_path / "IMG_2.DNG", tmp_path / "out.jpg").note


@needs_exiftool
def test_a_raw_files_tags_arrive_without_how_it_stores_its_pixels(tmp_path: Path) -> None:
    source, out = tmp_path / "IMG_1.DNG", tmp_path / "out.jpg"
    source.write_bytes(dng(photo_like((320, 240))))
    assert render(source, out, LibraryMetadata(rating=5)).date_taken == "2019-01-02T03:04:05"
    tags = exiftool(out)
    assert tags["IFD0:Model"] == "Model 7"
    assert not [name for name in tags if "Strip" in name or "DNG" in name or "CFA" in name or "SubIFD" in name]


def test_a_truncated_raw_file_fails_with_a_reason(tmp_path: Path) -> None:
    data = dng()
    for length in (300, 1000, len(data) // 2):
        (tmp_path / "IMG_1.DNG").write_bytes(data[:length])
        with pytest.raises(PhotoUnreadable):
            render(tmp_path / "IMG_1.DNG", tmp_path / "out.jpg")
        assert not (tmp_path / "out.jpg").exists()


def test_a_tiff_named_like_a_raw_file_is_a_tiff(tmp_path: Path) -> None:
    (tmp_path / "scan.nef").write_bytes(encoded(quadrants(), "TIFF"))
    render(tmp_path / "scan.nef", tmp_path / "out.jpg")
    assert _dominant(tmp_path / "out.jpg") == [0, 1, 2, 3]


# ── movies ────────────────────────────────────────────────────────────────────────────────────────────────────────


def movie(seconds: int = 3_600_000_000) -> bytes:
    """The smallest thing with the boxes of a movie."""
    mvhd = struct.pack(">I4sIII", 28, b"mvhd", 0, seconds, seconds) + bytes(8)
    moov = struct.pack(">I4s", 8 + len(mvhd), b"moov") + mvhd
    return struct.pack(">I4s4sI", 16, b"ftyp", b"qt  ", 0) + struct.pack(">I4s", 1008, b"mdat") + bytes(1000) + moov


def test_a_movie_is_copied_unchanged_with_the_librarys_facts(tmp_path: Path) -> None:
    source, out = tmp_path / "IMG_1.MOV", tmp_path / "out.mov"
    source.write_bytes(movie())
    facts = render(source, out, KNOWN, Component.VIDEO)
    assert out.read_bytes() == source.read_bytes()
    assert facts.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (facts.width, facts.height, facts.title) == (None, None, KNOWN.title)
    assert KNOWN.date is not None
    assert out.stat().st_mtime == KNOWN.date.timestamp()
    alone = render(source, out, None, Component.LIVE_MOVIE)
    assert alone.date_taken_utc == "2018-01-28T16:00:00Z"
    assert read_facts(out).date_taken_utc == alone.date_taken_utc


def test_a_librarys_texts_are_clean_in_the_facts_of_a_movie_too(tmp_path: Path) -> None:
    (tmp_path / "a.mov").write_bytes(movie())
    known = LibraryMetadata(
        title="a\ud800\x00b", keywords=("\udfff", "k"), location=Location(float("nan"), 0), location_known=False
    )
    facts = render(tmp_path / "a.mov", tmp_path / "out.mov", known, Component.VIDEO)
    assert (facts.title, facts.keywords, facts.location) == ("ab", ("k",), None)


def test_real_movies_are_copied_unchanged(tmp_path: Path) -> None:
    movies = sorted(LIBRARIES.glob("*/originals/*/*.mov"))
    assert movies
    for source in movies:
        render(source, tmp_path / "out.mov", KNOWN, Component.LIVE_MOVIE)
        assert (tmp_path / "out.mov").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("length", [0, 7, 20, 500, 1030, 1050])
def test_a_truncated_movie_fails_with_a_reason(tmp_path: Path, length: int) -> None:
    (tmp_path / "cut.mov").write_bytes(movie()[:length])
    with pytest.raises(PhotoUnreadable):
        render(tmp_path / "cut.mov", tmp_path / "out.mov", None, Component.VIDEO)
    assert not (tmp_path / "out.mov").exists()


def test_a_picture_is_no_movie_and_a_movie_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.mov").write_bytes(encoded(quadrants(), "JPEG"))
    with pytest.raises(PhotoUnreadable, match="it should be a movie, and is a JPEG picture"):
        render(tmp_path / "a.mov", tmp_path / "out.mov", None, Component.VIDEO)
    (tmp_path / "a.jpg").write_bytes(movie())
    with pytest.raises(PhotoUnreadable, match="it is a movie, not a picture"):
        render(tmp_path / "a.jpg", tmp_path / "out.jpg")


# ── originals as they are ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "GIF"])
def test_format_original_copies_every_byte_and_keeps_the_librarys_facts(tmp_path: Path, kind: str) -> None:
    source, out = tmp_path / "in.bin", tmp_path / "out.bin"
    source.write_bytes(encoded(quadrants(), kind))
    facts = render(source, out, KNOWN, options=RenderOptions(format="original"))
    assert out.read_bytes() == source.read_bytes()
    assert (facts.title, facts.keywords, facts.location) == (KNOWN.title, KNOWN.keywords, KNOWN.location)
    assert (facts.width, facts.height) == (64, 48)


def test_format_original_still_refuses_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(b"a text")
    with pytest.raises(PhotoUnreadable, match=r"it is a text file named \.png"):
        render(tmp_path / "in.png", tmp_path / "out.png", options=RenderOptions(format="original"))


@needs_full_libraries
def test_format_original_copies_a_real_heic(tmp_path: Path) -> None:
    source = next(LIBRARIES.glob("*/originals/5/5F9BCC2D-D1DF-46D8-8F70-C142B25D3DC3.heic"))
    facts = render(source, tmp_path / "out.heic", options=RenderOptions(format="original"))
    assert (tmp_path / "out.heic").read_bytes() == source.read_bytes()
    assert facts.date_taken == "2021-08-06T11:32:22.397-07:00"
    assert (facts.width, facts.height) == (2320, 3088)


# ── by its bytes ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("head", "content"),
    [
        (b"\x00\x00\x00\x18ftypheic", Content.HEIF),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avif", Content.AVIF),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1heic", Content.HEIF),
        (b"\x00\x00\x00\x18ftypcrx ", Content.RAW),
        (b"\x00\x00\x00\x18ftypqt  ", Content.MOVIE),
        (b"\x00\x00\x00\x08wide\x00\x00\x10\x00mdat", Content.MOVIE),
        (b"RIFF\x00\x00\x00\x00AVI LIST", Content.MOVIE),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"FUJIFILMCCD-RAW 0201", Content.RAW),
        ((b"\x47" + bytes(187)) * 6, Content.MOVIE),
        (b"BM no bitmap but a text that begins so", None),
        (b"", None),
    ],
)
def test_content_is_told_by_its_bytes(head: bytes, content: Content | None) -> None:
    assert sniff_head(head) is content


def test_what_is_no_picture_is_named() -> None:
    assert describe_unknown("Grüße ".encode() * 500, "a.heic") == "it is a text file named .heic"
    assert (
        describe_unknown(b"\x01\x02\x03", "a.jpg")
        == "its content is not a picture or a movie that is known here (.jpg)"
    )
    assert describe_unknown(b"PK\x03\x04", "a") == "it is a ZIP archive"
