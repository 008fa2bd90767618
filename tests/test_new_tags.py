"""XMP and IPTC that are put together here are, byte for byte, what exiv2 would have written."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.images import new_xmp
from skicyclerun.images.exiv2_session import exiv2_session
from skicyclerun.images.library_tags import write_library_metadata
from skicyclerun.images.metadata import PhotoTags, TagFacts, facts_of, no_tags
from skicyclerun.images.metadata_segments import NewSegments, encode
from skicyclerun.images.new_iptc import NewIptc
from skicyclerun.images.new_xmp import NewXmp
from skicyclerun.images.published_tags import remove_whereabouts
from skicyclerun.images.tag_index import TagIndex
from skicyclerun.models import Face, LibraryMetadata
from tests.images_samples import KNOWN, encoded, quadrants, render

ODD = ["<a & b>", 'type="Bag" x', "type=Alt", 'lang="de" x', "charset=Ascii x", "tab\there", "line\nbreak", "[1]", "é"]
texts = st.sampled_from(ODD) | st.text(max_size=40) | st.text(min_size=1, max_size=3).map(lambda text: text * 300)
shares = st.floats(-0.2, 1.2)
dates = st.builds(
    lambda date, minutes: date if minutes is None else date.replace(tzinfo=timezone(timedelta(minutes=minutes))),
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),
    st.none() | st.integers(-1439, 1439),
)
libraries = st.builds(
    LibraryMetadata,
    date=st.none() | dates,
    title=st.none() | texts,
    description=st.none() | texts,
    keywords=st.lists(texts, max_size=4).map(tuple),
    persons=st.lists(texts, max_size=3).map(tuple),
    rating=st.none() | st.integers(0, 5),
    faces=st.lists(st.builds(Face, texts, shares, shares, shares, shares), max_size=3).map(tuple),
)


def _tags(exiv2: Any, *, plain: bool) -> PhotoTags:
    tags = no_tags(exiv2)
    if not plain:
        tags.iptc, tags.xmp = TagIndex(tags.image.iptcData()), TagIndex(tags.image.xmpData())
    return tags


def _written(known: LibraryMetadata, *, plain: bool) -> tuple[NewSegments, TagFacts, list[str]]:
    with exiv2_session() as exiv2:
        tags = _tags(exiv2, plain=plain)
        write_library_metadata(exiv2, tags, known, (640, 480))
        return encode(exiv2, tags), facts_of(tags), tags.notes


@settings(max_examples=150, deadline=None)
@given(known=libraries)
def test_what_is_put_together_here_is_what_exiv2_writes(known: LibraryMetadata) -> None:
    assert _written(known, plain=True) == _written(known, plain=False)


@pytest.mark.parametrize("size", [59_000, 61_000, 64_800, 70_000])
def test_where_a_segment_is_full_exiv2_judges(size: int) -> None:
    name = "&" * 100  # five bytes each, once it is written
    faces = tuple(Face(f"{name}{number}", 0.5, 0.5, 0.1, 0.1) for number in range(12))
    known = LibraryMetadata(description="<" * ((size - 20_000) // 4), faces=faces, persons=("Ann",))
    assert _written(known, plain=True) == _written(known, plain=False)


def test_exiv2_is_not_asked_for_what_a_library_usually_knows() -> None:
    with exiv2_session() as exiv2:
        tags = no_tags(exiv2)
        write_library_metadata(exiv2, tags, KNOWN, (640, 480))
        assert isinstance(tags.xmp, NewXmp)
        assert isinstance(tags.iptc, NewIptc)
        xmp, iptc = tags.xmp.segments(), tags.iptc.segments()
        assert tags.image.xmpData().empty()
        assert tags.image.iptcData().empty()
        assert xmp is not None
        assert iptc is not None
        assert b"<dc:title>" in xmp[0]
        assert "Über den Pass".encode() in iptc[0]


def test_what_is_asked_for_beyond_that_is_exiv2s(monkeypatch: pytest.MonkeyPatch) -> None:
    known = LibraryMetadata(title="Über", keywords=("Alpen",), faces=(Face("Ann", 0.5, 0.5, 0.1, 0.1),))
    said: list[tuple[Any, ...]] = []
    for plain in (True, False):
        with exiv2_session() as exiv2:
            tags = _tags(exiv2, plain=plain)
            write_library_metadata(exiv2, tags, known, (640, 480))
            remove_whereabouts(tags)
            tags.xmp.put("Xmp.photoshop.City", "Bern")
            tags.put("Iptc.Application2.Byline", exiv2.StringValue("Ben"))
            keys = [list(tags.xmp.keys()), sorted(tags.iptc.keys())]
            said.append((keys, tags.iptc.texts("Iptc.Application2.Keywords"), encode(exiv2, tags), facts_of(tags)))
    assert said[0] == said[1]


def test_an_exiv2_that_writes_otherwise_writes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_is = _written(KNOWN, plain=True)
    monkeypatch.setattr(new_xmp, "_frames", [None])
    with exiv2_session() as exiv2:
        tags = no_tags(exiv2)
        write_library_metadata(exiv2, tags, KNOWN, (640, 480))
        assert tags.xmp.segments() is None
    assert _written(KNOWN, plain=True) == as_it_is


def test_what_was_read_before_changes_nothing(tmp_path: Path) -> None:
    """Adobe's toolkit keeps the names that files give to name spaces for as long as the process lives."""
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    own_names = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}"><rdf:Description rdf:about=""{{}}/>'
    uri = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    for name, said in (
        ("sample", ' xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/jpeg"'),
        ("other", f' xmlns:Own="{uri}" Own:Event="Race"'),
    ):
        packet = f"{own_names.format(said)}</rdf:RDF></x:xmpmeta>".encode()
        (tmp_path / f"{name}.jpg").write_bytes(encoded(quadrants(), "JPEG", xmp=packet))
    render(tmp_path / "sample.jpg", tmp_path / "before.jpg", KNOWN)
    render(tmp_path / "other.jpg", tmp_path / "out.jpg", KNOWN)
    assert b"<Own:PersonInImage>" in (tmp_path / "out.jpg").read_bytes()
    render(tmp_path / "sample.jpg", tmp_path / "after.jpg", KNOWN)
    assert (tmp_path / "after.jpg").read_bytes() == (tmp_path / "before.jpg").read_bytes()
