"""Watching the scans with the lock released says the same as following every marker."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import skicyclerun.images.jpeg_scan_watch as jpeg_scan_watch
from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.jpeg_scan_watch import ScanWatch
from skicyclerun.images.jpeg_segments import ScanWalker, check_end, read_header
from skicyclerun.images.staging import Original


def jpeg(*, progressive: bool = False) -> bytes:
    picture = Image.effect_noise((160, 120), 60).convert("RGB")
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90, progressive=progressive)
    return stream.getvalue()


WHOLE = jpeg()
PROGRESSIVE = jpeg(progressive=True)


def blocks_of(original: Original, start: int, size: int) -> list[memoryview]:
    data = bytearray(original.read(start, original.size))
    return [memoryview(data)[at : at + size] for at in range(0, len(data), size)]


def verdict(data: bytes, block_size: int, *, watched: bool) -> str:
    original = Original.of_bytes(data)
    try:
        header = read_header(original)
        if watched:
            watch = ScanWatch(original, header)
            for block in blocks_of(original, header.size, block_size):
                watch.feed(block)
            watch.check()
        else:
            walker = ScanWalker(header.size)
            for block in blocks_of(original, header.size, block_size):
                walker.feed(block)
            check_end(walker, header, original.size)
    except PhotoUnreadable as error:
        return str(error)
    return "whole"


@pytest.mark.parametrize("data", [WHOLE, PROGRESSIVE])
@pytest.mark.parametrize("block_size", [1, 2, 3, 1000, 1 << 20])
def test_a_whole_picture_is_whole_however_it_is_cut_into_blocks(data: bytes, block_size: int) -> None:
    assert verdict(data, block_size, watched=True) == "whole"


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 1 << 20])
def test_another_picture_inside_is_found_across_the_seams_of_blocks(block_size: int) -> None:
    broken = WHOLE[: len(WHOLE) // 2] + WHOLE
    assert "another one begins" in verdict(broken, block_size, watched=True)


def test_a_whole_picture_with_another_behind_it_is_whole() -> None:
    assert verdict(WHOLE + WHOLE, 500, watched=True) == "whole"


@settings(max_examples=150)
@given(st.integers(0, len(WHOLE)), st.sampled_from([b"", b"\xff\xd9", b"junk", WHOLE]), st.integers(1, 5000))
def test_cut_anywhere_and_continued_with_anything_both_agree(cut: int, rest: bytes, block_size: int) -> None:
    data = WHOLE[:cut] + rest
    watched, walked = verdict(data, block_size, watched=True), verdict(data, block_size, watched=False)
    # Cut among the scans and ended with an end marker, nothing but a decoder tells: neither claims to. Cut within the
    # header of the scan, both refuse it, each for what it looked at.
    assert (watched == "whole") == (walked == "whole")
    if cut > read_header(Original.of_bytes(WHOLE)).size + 16:
        assert watched == walked


def test_without_memmem_every_marker_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jpeg_scan_watch, "_memmem", None)
    assert verdict(WHOLE, 1000, watched=True) == "whole"
    assert "no end" in verdict(WHOLE[:-2], 1000, watched=True)
