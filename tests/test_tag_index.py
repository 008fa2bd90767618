"""What the index of a kind of tags says is what a new pass over them says, whatever was changed before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.images.exiv2_session import exiv2_session
from skicyclerun.images.metadata import PhotoTags, no_tags
from skicyclerun.images.tag_index import TagIndex

TEXTS = {
    "exif": ("Exif.Image.Make", "Exif.Image.Model", "Exif.Photo.DateTimeOriginal", "Exif.GPSInfo.GPSLatitudeRef"),
    "iptc": ("Iptc.Application2.Caption", "Iptc.Application2.City", "Iptc.Application2.Keywords"),
    "xmp": ("Xmp.xmp.Rating", "Xmp.photoshop.City", "Xmp.dc.source", "Xmp.exif.GPSLatitude"),
}
POSITION = "Exif.GPSInfo.GPSLatitude"
CHANGES = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 3), st.sampled_from(["", "a", "Ü 7", "x" * 40])),
    st.tuples(st.just("position"), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1)),
    st.tuples(st.just("again"), st.integers(0, 3), st.sampled_from(["a", "b"])),
    st.tuples(st.just("remove"), st.integers(0, 3), st.none()),
    st.tuples(st.just("erase where"), st.sampled_from(["GPS", "City", ".xmp.", "Model"]), st.none()),
    st.tuples(st.just("erase larger"), st.integers(0, 41), st.none()),
    st.tuples(st.just("look"), st.integers(0, 3), st.none()),
)


def _apply(exiv2: Any, kind: str, tags: PhotoTags, change: tuple[Any, ...]) -> None:
    index: TagIndex = getattr(tags, kind)
    what, one, other = change
    keys = TEXTS[kind]
    if what == "put":
        index.put(keys[one % len(keys)], other)
    elif what == "position" and kind == "exif":
        index.put_rationals(POSITION, exiv2.URationalValue([(one, other)]), [(one, other)])
    elif what == "again" and kind == "iptc":
        key = keys[one % len(keys)]
        index.add(key, exiv2.Iptcdatum(exiv2.IptcKey(key), exiv2.StringValue(other)))
    elif what == "remove":
        index.remove(keys[one % len(keys)])
    elif what == "erase where":
        index.erase_where(lambda key: one in key)
    elif what == "erase larger":
        index.erase_larger_than(one)
    elif what == "look":
        index.text(keys[one % len(keys)])


def _said(index: TagIndex, kind: str) -> dict[str, Any]:
    return {
        "keys": list(index.keys()),
        "texts": {key: index.text(key) for key in TEXTS[kind]},
        "all texts": {key: index.texts(key) for key in TEXTS[kind]},
        "position": index.rationals(POSITION) if kind == "exif" else [],
        "empty": index.empty,
    }


@settings(max_examples=80)
@given(kind=st.sampled_from(["exif", "iptc", "xmp"]), changes=st.lists(CHANGES, max_size=12))
def test_an_index_that_was_changed_says_what_a_new_one_says(kind: str, changes: list[tuple[Any, ...]]) -> None:
    with exiv2_session() as exiv2:
        tags = no_tags(exiv2)
        index: TagIndex = getattr(tags, kind)
        for change in changes:
            _apply(exiv2, kind, tags, change)
            assert _said(index, kind) == _said(TagIndex(index.data), kind)


@pytest.mark.parametrize("fraction", [(0, 1), (2**32 - 1, 2**32 - 1), (2**31, 7)])
def test_fractions_of_32_bits_come_back_unsigned(fraction: tuple[int, int]) -> None:
    with exiv2_session() as exiv2:
        tags = no_tags(exiv2)
        tags.put(POSITION, exiv2.URationalValue([fraction]))
        assert tags.exif.rationals(POSITION) == [fraction]


def test_keywords_that_a_writer_made_a_simple_text_are_one_keyword() -> None:
    with exiv2_session() as exiv2:
        tags = no_tags(exiv2)
        tags.put("Xmp.dc.subject", exiv2.XmpTextValue("a, b"))
        assert tags.xmp.items_of("Xmp.dc.subject") == ("a, b",)
        tags.put("Xmp.dc.subject", exiv2.LangAltValue({"x-default": "a", "de": "b"}))
        assert tags.xmp.items_of("Xmp.dc.subject") == ("a",)


def test_a_text_without_a_default_language_is_the_first_there_is() -> None:
    with exiv2_session() as exiv2:
        tags = no_tags(exiv2)
        tags.put("Xmp.dc.title", exiv2.LangAltValue({"de": "Über den Pass"}))
        assert tags.xmp.text_by_language("Xmp.dc.title") == "Über den Pass"
