"""JPEG originals: passed through with a new header, byte for byte behind it, and only if they are whole."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skicyclerun.errors import OriginalMissing, PhotoTransient, PhotoUnreadable
from skicyclerun.images import decode_check, staging
from skicyclerun.images.decode_check import decode_fully
from skicyclerun.images.jpeg_segments import ScanWalker, read_header
from skicyclerun.images.render import read_facts
from skicyclerun.images.staging import Original, StagedFile, open_original
from skicyclerun.models import LibraryMetadata
from tests.images_samples import (
    KNOWN,
    encoded,
    exif_with,
    photo_like,
    quadrants,
    render,
    scans_of,
    srgb_profile,
    under_a_memory_bound,
)
from tests.shared_libraries import LIBRARIES


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "IMG_0001.JPG"
    path.write_bytes(encoded(photo_like(), "JPEG", quality=90, exif=exif_with(), icc_profile=srgb_profile()))
    return path


def test_without_library_metadata_the_copy_is_byte_identical(jpeg: Path, tmp_path: Path) -> None:
    facts = render(jpeg, tmp_path / "out.jpg")
    written = (tmp_path / "out.jpg").read_bytes()
    assert written == jpeg.read_bytes()
    assert (facts.size, facts.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    assert (facts.width, facts.height, facts.date_taken) == (640, 480, "2019-01-02T03:04:05")


@pytest.mark.parametrize("coding", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_image_data_stays_byte_identical_behind_a_new_header(tmp_path: Path, coding: dict[str, object]) -> None:
    source, out = tmp_path / "in.jpg", tmp_path / "out.jpg"
    source.write_bytes(encoded(photo_like(), "JPEG", quality=92, icc_profile=srgb_profile(), **coding))
    facts = render(source, out, KNOWN)
    written = out.read_bytes()
    assert scans_of(written) == scans_of(source.read_bytes())
    assert (facts.size, facts.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    with Image.open(out) as image, Image.open(source) as before:
        assert image.tobytes() == before.tobytes()
        assert image.info["icc_profile"] == srgb_profile()


def test_real_jpegs_keep_their_image_data_and_the_other_segments(tmp_path: Path) -> None:
    for source in sorted(LIBRARIES.glob("*/originals/*/*.jpeg")):
        if not source.read_bytes().startswith(b"\xff\xd8"):
            continue  # one of them is a PNG by its content
        render(source, tmp_path / "out.jpg", KNOWN)
        assert scans_of((tmp_path / "out.jpg").read_bytes()) == scans_of(source.read_bytes()), source.name
        with Image.open(source) as before, Image.open(tmp_path / "out.jpg") as after:
            assert after.info.get("icc_profile") == before.info.get("icc_profile"), source.name
            assert after.size == before.size


def test_cmyk_jpegs_are_passed_through(tmp_path: Path) -> None:
    source = tmp_path / "cmyk.jpg"
    source.write_bytes(encoded(photo_like().convert("CMYK"), "JPEG"))
    render(source, tmp_path / "out.jpg", KNOWN)
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.mode == "CMYK"


def test_same_input_gives_the_same_bytes(jpeg: Path, tmp_path: Path) -> None:
    one = render(jpeg, tmp_path / "a.jpg", KNOWN)
    two = render(jpeg, tmp_path / "b.jpg", KNOWN)
    assert one == two
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_rendering_what_was_rendered_changes_nothing_more(jpeg: Path, tmp_path: Path) -> None:
    render(jpeg, tmp_path / "once.jpg", KNOWN)
    render(tmp_path / "once.jpg", tmp_path / "twice.jpg", KNOWN)
    assert (tmp_path / "twice.jpg").read_bytes() == (tmp_path / "once.jpg").read_bytes()


def test_threads_in_parallel_give_what_one_gives(tmp_path: Path) -> None:
    sources = []
    for number in range(8):
        sources.append(tmp_path / f"in{number}.jpg")
        sources[-1].write_bytes(encoded(photo_like((320, 200 + number)), "JPEG", exif=exif_with()))
    alone = [render(source, tmp_path / f"alone{n}.jpg", KNOWN) for n, source in enumerate(sources)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            together = list(pool.map(lambda n: render(sources[n], tmp_path / f"out{n}.jpg", KNOWN), range(8)))
            assert together == alone


# ── times and places ──────────────────────────────────────────────────────────────────────────────────────────────


def test_file_time_is_the_librarys_date_else_the_files_else_the_originals(jpeg: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jpg"
    render(jpeg, out, KNOWN)
    assert KNOWN.date is not None
    assert out.stat().st_mtime == KNOWN.date.timestamp()
    render(jpeg, out)
    assert out.stat().st_mtime == datetime(2019, 1, 2, 3, 4, 5).timestamp()
    bare = tmp_path / "bare.jpg"
    bare.write_bytes(encoded(quadrants(), "JPEG"))
    os.utime(bare, ns=(5_000_000_000, 7_000_000_000))
    facts = render(bare, out)
    assert out.stat().st_mtime_ns == facts.mtime_ns == 7_000_000_000


@pytest.mark.parametrize(
    "date", [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1904, 2, 3)]
)
def test_dates_far_away_do_not_fail_a_photo(jpeg: Path, tmp_path: Path, date: datetime) -> None:
    facts = render(jpeg, tmp_path / "out.jpg", LibraryMetadata(date=date))
    assert facts.date_taken is not None
    assert facts.date_taken.startswith(f"{date.year:04}-{date.month:02}")


def test_a_stale_staging_file_or_link_is_replaced_not_followed(jpeg: Path, tmp_path: Path) -> None:
    precious, out = tmp_path / "precious", tmp_path / "out.jpg"
    precious.write_text("keep me")
    out.symlink_to(precious)
    render(jpeg, out)
    assert precious.read_text() == "keep me"
    assert not out.is_symlink()
    render(jpeg, out)
    assert out.read_bytes() == jpeg.read_bytes()


def test_the_original_is_never_touched(jpeg: Path, tmp_path: Path) -> None:
    before = (jpeg.read_bytes(), jpeg.stat().st_mtime_ns)
    render(jpeg, tmp_path / "out.jpg", KNOWN)
    assert (jpeg.read_bytes(), jpeg.stat().st_mtime_ns) == before


# ── what is not whole ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_fails_wherever_it_was_cut_and_leaves_nothing(tmp_path: Path, progressive: bool) -> None:
    whole = encoded(photo_like((200, 150)), "JPEG", exif=exif_with(), progressive=progressive)
    source, out = tmp_path / "cut.jpg", tmp_path / "out.jpg"
    for length in [*range(0, len(whole) - 1, 97), len(whole) - 2, len(whole) - 1]:
        source.write_bytes(whole[:length])
        with pytest.raises(PhotoUnreadable):
            render(source, out, KNOWN)
        assert not out.exists()
        with pytest.raises(PhotoUnreadable):
            decode_fully(source, max_pixels=10**8)
    source.write_bytes(whole)
    render(source, out, KNOWN)
    decode_fully(out, max_pixels=10**8)


def test_reasons_are_sentences_for_people(tmp_path: Path) -> None:
    whole = encoded(photo_like(), "JPEG")
    cases = {
        "empty.jpg": (b"", "the file is empty"),
        "note.jpg": (b"Dear diary,\n", "it is a text file named .jpg"),
        "zeros.jpg": (bytes(5000), "it holds only zeros"),
        "paper.jpg": (b"%PDF-1.7 ...", "it is a PDF document"),
        "cut.jpg": (whole[:12_345], "truncated after 12.3 kB: the JPEG has no end"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PhotoUnreadable) as caught:
            render(tmp_path / name, tmp_path / "out.jpg")
        assert str(caught.value) == reason


def test_a_picture_that_breaks_off_where_another_begins_fails(tmp_path: Path) -> None:
    whole = encoded(photo_like(), "JPEG")
    source = tmp_path / "two.jpg"
    source.write_bytes(whole[: len(whole) // 2] + whole)
    with pytest.raises(PhotoUnreadable, match="another one begins"):
        render(source, tmp_path / "out.jpg")


def test_more_pixels_than_the_data_can_hold_are_found_without_decoding(tmp_path: Path) -> None:
    whole = bytearray(encoded(photo_like(), "JPEG"))
    frame = whole.index(b"\xff\xc0")
    whole[frame + 5 : frame + 9] = struct.pack(">HH", 50_000, 50_000)
    (tmp_path / "bomb.jpg").write_bytes(whole)
    with pytest.raises(PhotoUnreadable, match="50000 \N{MULTIPLICATION SIGN} 50000 pixels need at least"):
        render(tmp_path / "bomb.jpg", tmp_path / "out.jpg")


def test_damaged_huffman_tables_are_found(tmp_path: Path) -> None:
    whole = bytearray(encoded(photo_like(), "JPEG"))
    table = whole.index(b"\xff\xc4")
    whole[table + 5 : table + 21] = b"\xff" * 16
    (tmp_path / "tables.jpg").write_bytes(whole)
    with pytest.raises(PhotoUnreadable, match="damaged"):
        render(tmp_path / "tables.jpg", tmp_path / "out.jpg")


def test_a_missing_original_and_a_pipe_in_its_place_fail_at_once(tmp_path: Path) -> None:
    with pytest.raises(OriginalMissing):
        render(tmp_path / "nothing.jpg", tmp_path / "out.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PhotoUnreadable, match="a pipe or a device"):
        render(tmp_path / "pipe.jpg", tmp_path / "out.jpg")
    with pytest.raises(PhotoUnreadable):
        render(tmp_path, tmp_path / "out.jpg")
    assert not (tmp_path / "out.jpg").exists()


def test_a_full_disk_passes_through_and_leaves_nothing(
    jpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: StagedFile, *data: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StagedFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        render(jpeg, tmp_path / "out.jpg", KNOWN)
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize("most", [1, 700, 5_000])
def test_a_disk_that_takes_a_part_at_a_time_gets_it_all(
    jpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    whole = render(jpeg, tmp_path / "whole.jpg", KNOWN)
    monkeypatch.setattr(os, "writev", lambda descriptor, pieces: os.write(descriptor, b"".join(pieces)[:most]))
    assert render(jpeg, tmp_path / "out.jpg", KNOWN) == whole
    assert (tmp_path / "out.jpg").read_bytes() == (tmp_path / "whole.jpg").read_bytes()


@settings(max_examples=100)
@given(size=st.integers(3, 300), start=st.integers(0, 320), count=st.integers(0, 200))
def test_an_original_is_read_as_it_is_whatever_of_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, start: int, count: int
) -> None:
    monkeypatch.setattr(staging, "_HEAD_BYTES", 64)
    monkeypatch.setattr(staging, "BLOCK_BYTES", 50)
    data = bytes(number * 7 % 251 for number in range(size))
    (tmp_path / "in.bin").write_bytes(data)
    with open_original(tmp_path / "in.bin") as original:
        assert original.read(start, count) == data[start : start + count]
        if start <= size:
            assert b"".join(map(bytes, original.blocks(start))) == data[start:]
        assert original.read(start, count) == data[start : start + count]


@pytest.mark.parametrize("size", [40, 200])
@pytest.mark.parametrize("now", [0, 39, 41, 199, 201, 500])
def test_an_original_that_changes_its_size_meanwhile_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, now: int
) -> None:
    monkeypatch.setattr(staging, "_HEAD_BYTES", 64)
    path = tmp_path / "in.bin"
    path.write_bytes(bytes(size))
    with open_original(path) as original:
        os.truncate(path, now)
        with pytest.raises(PhotoTransient):
            list(original.blocks(10))


@settings(max_examples=150)
@given(
    sample=st.sampled_from(["plain", "progressive", "grey", "cmyk", "thin"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    kept=st.floats(0.9, 1),
)
def test_the_decoder_alone_refuses_what_pillow_as_a_whole_refuses(
    monkeypatch: pytest.MonkeyPatch, sample: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(_samples()[sample])
    for place, value in changes:
        data[2 + int(place * min(len(data) - 3, 1_500))] = value
    original = Original.of_bytes(bytes(data[: int(len(data) * kept)]))
    try:
        header = read_header(original)
    except PhotoUnreadable:
        return
    said: list[str] = []
    for plain in (decode_check._is_plain, lambda header, scan: False):
        with monkeypatch.context() as patched:
            patched.setattr(decode_check, "_is_plain", plain)
            try:
                decode_check.check_first_rows(original, header)
                said.append("")
            except PhotoUnreadable as error:
                said.append(str(error))
    assert said[0] == said[1]


@pytest.mark.parametrize("sample", ["plain", "progressive", "grey", "cmyk", "thin"])
def test_pillow_as_a_whole_is_not_asked_about_a_sound_jpeg(monkeypatch: pytest.MonkeyPatch, sample: str) -> None:
    def asked(stream: object) -> None:
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr(decode_check, "_decode_reduced", asked)
    original = Original.of_bytes(_samples()[sample])
    decode_check.check_first_rows(original, read_header(original))


@cache
def _samples() -> dict[str, bytes]:
    photo = photo_like((200, 150))
    return {
        "plain": encoded(photo, "JPEG", exif=exif_with()),
        "progressive": encoded(photo, "JPEG", progressive=True),
        "grey": encoded(photo.convert("L"), "JPEG"),
        "cmyk": encoded(photo.convert("CMYK"), "JPEG"),
        "thin": encoded(photo_like((3, 500)), "JPEG"),
    }


@settings(max_examples=200)
@given(at=st.integers(2, 1200), value=st.integers(0, 255), count=st.integers(1, 12))
def test_damaged_headers_give_a_photo_or_a_reason(tmp_path: Path, at: int, value: int, count: int) -> None:
    data = bytearray(encoded(quadrants(), "JPEG", exif=exif_with(), icc_profile=srgb_profile()))
    for step in range(count):
        data[(at + step * 7) % len(data)] = (value + step * 31) % 256
    source, out = tmp_path / "in.jpg", tmp_path / "out.jpg"
    source.write_bytes(data)
    rendered = True
    try:
        render(source, out, KNOWN)
    except PhotoUnreadable:
        rendered = False
    assert out.exists() == rendered
    out.unlink(missing_ok=True)


# ── what hangs behind and beside ──────────────────────────────────────────────────────────────────────────────────


def test_a_trailer_is_kept(jpeg: Path, tmp_path: Path) -> None:
    trailer = b"\x00\x00\x00\x18ftypmp42 a motion photo's movie" * 50
    jpeg.write_bytes(jpeg.read_bytes() + trailer)
    render(jpeg, tmp_path / "out.jpg", KNOWN)
    assert (tmp_path / "out.jpg").read_bytes().endswith(trailer)


def test_the_pictures_of_a_multi_picture_file_are_still_found(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jpg", tmp_path / "out.jpg"
    main, second = photo_like((320, 240)), quadrants((100, 80))
    written = io.BytesIO()
    main.save(written, "MPO", save_all=True, append_images=[second], quality=95)
    source.write_bytes(written.getvalue())
    render(source, out, KNOWN)
    with Image.open(out) as image:
        assert image.format == "MPO"
        image.seek(1)
        image.load()
        assert image.size == (100, 80)
        index = image.mpinfo[0xB002]  # type: ignore[attr-defined]  # MpoImageFile
        assert index[0]["Size"] + index[1]["Size"] == out.stat().st_size


def test_segments_between_scans_may_hold_what_looks_like_an_end() -> None:
    scan = b"\xff\xda\x00\x04\x00\x00" + b"data\xff\x00\xff\xd0more"
    table = b"\xff\xc4\x00\x06\xff\xd9\xff\xd9"
    whole = scan + table + scan + b"\xff\xd9"
    for size in (1, 2, 3, 5, len(whole)):
        walker = ScanWalker(1000)
        for at in range(0, len(whole), size):
            walker.feed(memoryview(whole[at : at + size]))
        assert walker.end == 1000 + len(whole)
    walker = ScanWalker(0)
    walker.feed(memoryview(scan + table + scan))
    assert walker.end is None


# ── bounds ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_real_jpeg_50000_pixels_wide_is_passed_through_within_a_memory_bound(tmp_path: Path) -> None:
    (tmp_path / "wide.jpg").write_bytes(encoded(Image.new("L", (50_000, 2_000), 128), "JPEG"))
    assert under_a_memory_bound(tmp_path / "wide.jpg", tmp_path / "out.jpg") == "rendered"


def test_a_jpeg_that_claims_65500_by_65500_fails_within_a_memory_bound(tmp_path: Path) -> None:
    for progressive, marker in ((False, b"\xff\xc0"), (True, b"\xff\xc2")):
        whole = bytearray(encoded(photo_like(), "JPEG", progressive=progressive))
        frame = whole.index(marker)
        whole[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
        (tmp_path / "bomb.jpg").write_bytes(whole)
        assert "pixels need at least" in under_a_memory_bound(tmp_path / "bomb.jpg", tmp_path / "out.jpg")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_a_bomb_of_another_format_fails_before_it_is_decoded(tmp_path: Path, kind: str) -> None:
    bomb = bytearray(encoded(Image.new("L", (16, 16)), kind))
    match kind:
        case "PNG":
            import zlib

            bomb[16:24] = struct.pack(">II", 50_000, 50_000)
            bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
        case "GIF":
            bomb[6:10] = struct.pack("<HH", 50_000, 50_000)
        case _:
            bomb[18:26] = struct.pack("<ii", 50_000, 50_000)
    (tmp_path / "bomb.png").write_bytes(bomb)
    said = under_a_memory_bound(tmp_path / "bomb.png", tmp_path / "out.jpg")
    assert said == "50000 \N{MULTIPLICATION SIGN} 50000 pixels is more than the limit of 300 million"


@pytest.mark.parametrize(
    "start", [b"\x00\x00\x00\x18ftypheic", b"\x00\x00\x00\x18ftypavif", b"RIFF\xff\xff\xff\x7fWEBPVP8 "]
)
def test_a_sparse_file_of_a_terabyte_is_not_read_into_memory(tmp_path: Path, start: bytes) -> None:
    with open(tmp_path / "sparse.heic", "wb") as stream:
        stream.write(start)
        stream.truncate(1 << 40)
    assert "is more than a" in under_a_memory_bound(tmp_path / "sparse.heic", tmp_path / "out.jpg")


def test_xmp_with_a_bomb_of_entities_is_bounded(tmp_path: Path) -> None:
    entities = b'<!ENTITY a0 "ha">' + b"".join(
        b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12)
    )
    xmp = (
        b"<?xml version='1.0'?><!DOCTYPE x [" + entities + b"]><x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF "
        b"xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about='' "
        b"xmlns:dc='http://purl.org/dc/elements/1.1/'><dc:source>&a11;</dc:source></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    (tmp_path / "bomb.jpg").write_bytes(encoded(quadrants(), "JPEG", xmp=xmp))
    assert under_a_memory_bound(tmp_path / "bomb.jpg", tmp_path / "out.jpg") == "rendered"


# ── reading back ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_read_facts_gives_what_rendering_gave(jpeg: Path, tmp_path: Path) -> None:
    facts = render(jpeg, tmp_path / "out.jpg", KNOWN)
    again = read_facts(tmp_path / "out.jpg")
    for name in ("size", "width", "height", "date_taken", "date_taken_utc", "location", "title", "description"):
        assert getattr(again, name) == getattr(facts, name), name
    assert (again.keywords, again.persons, again.mtime_ns) == (facts.keywords, facts.persons, facts.mtime_ns)
