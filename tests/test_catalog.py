from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.catalog import master_json
from skicyclerun.catalog.entries import CatalogRecord, entry_of, is_ours, merged_entry, record_from_entry
from skicyclerun.catalog.master_json import read_catalog, update_catalog
from skicyclerun.catalog.object_text import ObjectText
from skicyclerun.errors import DiskFull, NotWritable, StorageError
from skicyclerun.files import fault_points
from skicyclerun.models import Component, ExportedFacts, Face, Location, Place, Rendering, SourceKind

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
FIRST, SECOND = "2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z"


def record(number: int = 1, **changes: Any) -> CatalogRecord:
    made = CatalogRecord(
        file_path=f"/lib/pipeline/albums/Été/IMG_{number:04}.jpg",
        file_name=f"IMG_{number:04}.jpg",
        album_name="Été",
        export_timestamp=FIRST,
        source_kind=SourceKind.PHOTOS_LIBRARY,
        album_id="ALBUM-1",
        album_title="Été",
        album_path="Trips/Été",
        photo_id=f"PHOTO-{number}",
        original_filename=f"IMG_{number:04}.HEIC",
        facts=ExportedFacts(size=1000 + number, sha256=f"{number:064x}", width=4032, height=3024),
    )
    return replace(made, **changes)


FULL = ExportedFacts(
    size=5,
    sha256="a" * 64,
    width=10,
    height=20,
    date_taken="2020-01-01T10:00:00+02:00",
    date_taken_utc="2020-01-01T08:00:00Z",
    location=Location(47.5, 8.25, 412.0, 90.0),
    title="A title",
    description="Two\nlines",
    keywords=("a", "b"),
    persons=("Anna",),
    faces=(Face("Anna", 0.25, 0.5, 0.125, 0.1),),
    place=Place("Switzerland", "CH", city="Bern", name="Bern, Switzerland"),
    favorite=True,
    labels=("Tree",),
    rendering=Rendering.PREVIEW,
    note="preview 1024x768",
    extra={"camera": "X"},
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "metadata" / "master.json"


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def contents(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return read


def files_beside(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


# ── an entry ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_entry_says_what_the_design_promises() -> None:
    assert entry_of(record(facts=FULL, component=Component.LIVE_MOVIE)) == {
        "type": "exported",
        "file_name": "IMG_0001.jpg",
        "file_path": "/lib/pipeline/albums/Été/IMG_0001.jpg",
        "album_name": "Été",
        "export_timestamp": FIRST,
        "source": {
            "kind": "photos_library",
            "album_id": "ALBUM-1",
            "album_title": "Été",
            "album_path": "Trips/Été",
            "photo_id": "PHOTO-1",
            "original_filename": "IMG_0001.HEIC",
            "component": "live_movie",
        },
        "sha256": "a" * 64,
        "size": 5,
        "width": 10,
        "height": 20,
        "date_taken": "2020-01-01T10:00:00+02:00",
        "date_taken_utc": "2020-01-01T08:00:00Z",
        "gps": {"lat": 47.5, "lon": 8.25, "altitude": 412.0, "heading": 90.0},
        "keywords": ["a", "b"],
        "title": "A title",
        "description": "Two\nlines",
        "persons": ["Anna"],
        "faces": [{"name": "Anna", "x": 0.25, "y": 0.5, "width": 0.125, "height": 0.1}],
        "place": {"country": "Switzerland", "country_code": "CH", "city": "Bern", "name": "Bern, Switzerland"},
        "favorite": True,
        "labels": ["Tree"],
        "rendering": "preview",
        "note": "preview 1024x768",
        "facts": {"camera": "X"},
        "pipeline": {"stages": ["export"], "timestamps": {"export": FIRST}, "last_updated": FIRST},
    }


def test_absent_facts_are_absent_keys_and_numbers_are_finite() -> None:
    nowhere = ExportedFacts(size=0, sha256="b" * 64, location=Location(float("nan"), 8.0))
    somewhere = ExportedFacts(size=0, sha256="b" * 64, location=Location(0.0, 0.0, float("inf"), None))

    assert set(entry_of(record(facts=nowhere))) == {
        *("type", "file_name", "file_path", "album_name", "export_timestamp"),
        *("source", "sha256", "size", "pipeline"),
    }
    assert entry_of(record(facts=somewhere))["gps"] == {"lat": 0.0, "lon": 0.0}


any_texts = st.text(st.characters(exclude_categories=()), max_size=6)
texts = st.text(st.characters(codec="utf-8"), max_size=6)
"""What a row can hold: no half characters."""
names = texts.filter(bool)
finite = st.floats(-90, 90)
records = st.builds(
    CatalogRecord,
    file_path=names.map(lambda name: "/lib/albums/Album/" + name.replace("/", "_")),
    file_name=st.just(""),
    album_name=st.just("Album"),
    export_timestamp=st.sampled_from([FIRST, SECOND]),
    source_kind=st.sampled_from(SourceKind),
    album_id=names,
    album_title=names,
    album_path=names,
    photo_id=names,
    original_filename=names,
    facts=st.builds(
        ExportedFacts,
        size=st.integers(0, 2**53),
        sha256=st.sampled_from(["a" * 64, "b" * 64]),
        width=st.none() | st.integers(1, 9999),
        height=st.none() | st.integers(1, 9999),
        date_taken=st.none() | names,
        date_taken_utc=st.none() | names,
        location=st.none() | st.builds(Location, finite, finite, st.none() | finite, st.none() | finite),
        title=st.none() | names,
        description=st.none() | names,
        keywords=st.lists(names, max_size=3).map(tuple),
        persons=st.lists(names, max_size=3).map(tuple),
        faces=st.lists(st.builds(Face, names, *[finite.map(lambda side: round(side, 6))] * 4), max_size=2).map(tuple),
        place=st.none() | st.builds(Place, names, texts, texts, texts, texts),
        favorite=st.booleans(),
        labels=st.lists(names, max_size=3).map(tuple),
        rendering=st.sampled_from(Rendering),
        note=texts,
        mtime_ns=st.just(0),
        extra=st.dictionaries(texts, texts, max_size=2),
    ),
    component=st.sampled_from(Component),
    fingerprint=texts,
).map(lambda made: replace(made, file_name=made.file_path.rpartition("/")[2]))

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_texts, inner, max_size=3), max_leaves=8
)
our_keys = st.sampled_from([*entry_of(record(facts=FULL)), "stages", "timestamps", "last_updated", "lat", "kind"])
strange_entries = json_values | st.dictionaries(our_keys | any_texts, json_values, max_size=6)


@given(records)
def test_a_record_can_be_read_back_from_its_entry(made: CatalogRecord) -> None:
    assert record_from_entry(made.file_path, json.loads(json.dumps(entry_of(made)))) == made


@given(strange_entries)
def test_an_entry_of_any_shape_is_read_without_harm(entry: object) -> None:
    is_ours(entry)
    record_from_entry("/lib/albums/Album/x.jpg", entry)


@given(strange_entries, records)
def test_merging_into_any_shape_gives_our_facts_keeps_the_rest_and_is_done_once(
    entry: object, made: CatalogRecord
) -> None:
    before = json.dumps(entry)
    merged = merged_entry(entry, made)

    assert json.dumps(entry) == before, "what was read is not changed"
    assert merged_entry(merged, made) == merged
    assert record_from_entry(made.file_path, merged) is not None
    ours = entry_of(made)
    for key in ours.keys() - {"gps", "source", "pipeline"}:
        assert merged[key] == ours[key]
    assert ours["source"].items() <= merged["source"].items()
    assert "export" in merged["pipeline"]["stages"]
    assert merged["pipeline"]["timestamps"]["export"] == made.export_timestamp
    if isinstance(entry, dict):
        known = entry_of(record(facts=FULL)).keys()
        assert {key: value for key, value in entry.items() if key not in known}.items() <= merged.items()


def test_what_other_programs_added_stays_and_what_they_stripped_comes_back() -> None:
    entry = entry_of(record())
    entry["watermark"] = {"text": "©"}
    entry["source"]["verified_by"] = "someone"
    entry["pipeline"] |= {
        "stages": ["preprocessing", "watermarking"],
        "timestamps": {"preprocessing": SECOND},
        "last_updated": SECOND,
        "owner": "s3",
    }
    for key in ("type", "sha256", "width"):
        del entry[key]
    del entry["source"]["photo_id"]

    merged = merged_entry(entry, record())

    assert merged["watermark"] == {"text": "©"}
    assert merged["source"] == {**entry_of(record())["source"], "verified_by": "someone"}
    assert merged["pipeline"] == {
        "stages": ["export", "preprocessing", "watermarking"],
        "timestamps": {"preprocessing": SECOND, "export": FIRST},
        "last_updated": SECOND,
        "owner": "s3",
    }
    assert (merged["type"], merged["sha256"], merged["width"]) == ("exported", f"{1:064x}", 4032)


def test_a_new_export_takes_back_what_is_no_longer_true_and_leaves_what_others_derived() -> None:
    entry = entry_of(record(facts=replace(FULL, sha256="1" * 64)))
    entry |= {"landmark": "Matterhorn"}
    entry["gps"]["place"] = "Zermatt"
    anew = record(export_timestamp=SECOND, facts=ExportedFacts(size=6, sha256="2" * 64, location=Location(1.0, 2.0)))

    merged = merged_entry(entry, anew)

    assert merged["gps"] == {"lat": 1.0, "lon": 2.0, "place": "Zermatt"}
    assert merged["landmark"] == "Matterhorn"
    assert not {"title", "description", "keywords", "persons", "rendering", "note", "width"} & merged.keys()
    assert merged["pipeline"]["last_updated"] == SECOND
    without_place = merged_entry(entry, replace(anew, facts=replace(anew.facts, location=None)))
    assert "gps" not in without_place


def test_a_description_of_another_program_stays_while_the_file_is_the_same() -> None:
    entry = entry_of(record()) | {"description": "A dog on a beach (by a language model)"}

    assert merged_entry(entry, record())["description"].startswith("A dog")


@pytest.mark.parametrize(
    ("last_updated", "kept"),
    [
        ("2026-03-01T12:00:00+01:00", "2026-03-01T12:00:00+01:00"),
        ("2026-03-05", "2026-03-05"),
        ("2020-01-01T00:00:00", FIRST),
        ("yesterday", FIRST),
        (17, FIRST),
    ],
)
def test_last_updated_never_goes_back(last_updated: object, kept: str) -> None:
    entry = entry_of(record())
    entry["pipeline"]["last_updated"] = last_updated

    assert merged_entry(entry, record())["pipeline"]["last_updated"] == kept


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_update_makes_the_file_and_the_second_does_not_touch_it(catalog: Path) -> None:
    ours = [record(1), record(2)]

    first = update_catalog(catalog, ours, now=NOW)
    before = catalog.stat()
    second = update_catalog(catalog, lambda: iter(ours), now=NOW)

    assert (first.written, first.set_aside, first.entries, first.problem) == (True, None, 2, "")
    assert (second.written, second.entries) == (False, 2)
    assert (before.st_ino, before.st_mtime_ns) == (catalog.stat().st_ino, catalog.stat().st_mtime_ns)
    assert contents(catalog) == {each.file_path: entry_of(each) for each in ours}
    assert catalog.read_text() == json.dumps(contents(catalog), indent=2, ensure_ascii=False) + "\n"
    assert files_beside(catalog) == ["master.json"]


def test_nothing_exported_still_gives_a_catalog_that_others_can_read(catalog: Path) -> None:
    assert update_catalog(catalog, [], now=NOW).written
    assert contents(catalog) == {}
    assert not update_catalog(catalog, [], now=NOW).written


def test_an_update_may_be_given_only_what_is_new(catalog: Path) -> None:
    update_catalog(catalog, [record(1)], now=NOW)
    update_catalog(catalog, [record(2)], now=NOW)

    assert list(contents(catalog)) == [record(1).file_path, record(2).file_path]


@pytest.mark.parametrize("indent", [None, 1, 2, 4, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_entries_of_other_programs_survive_to_the_letter(
    catalog: Path, indent: int | str | None, ascii_only: bool
) -> None:
    foreign = {
        "/lib/scaled/😀.webp": {"type": "preprocessed", "pipeline": "none", "n": 1.10, "quote": '\n  "x": {\n  },'},
        "not a path": ["a", {"list": None}],
        "/null": None,
        "": "an empty key",
        "/number": 12345678901234567890123456789,
        "/stages": {"pipeline": {"stages": None}},
    }
    write(catalog, json.dumps(foreign, indent=indent, ensure_ascii=ascii_only))

    result = update_catalog(catalog, [record(1)], now=NOW)

    assert (result.entries, result.set_aside) == (7, None)
    assert contents(catalog) == {**foreign, record(1).file_path: entry_of(record(1))}
    assert "12345678901234567890123456789" in catalog.read_text()


def test_what_only_lenient_parsers_take_survives_too(catalog: Path) -> None:
    odd = '{"\\ud800": {"nan": NaN, "inf": -Infinity, "big": 1e400, "long": ' + "9" * 5000 + "}}"
    write(catalog, odd)

    update_catalog(catalog, [record(1)], now=NOW)
    update_catalog(catalog, [record(2)], now=NOW)

    text = catalog.read_text()
    assert '{"nan": NaN, "inf": -Infinity, "big": 1e400, "long": ' + "9" * 5000 + "}" in text
    assert text.count('"type": "exported"') == 2


def test_exact_numbers_of_other_programs_survive_in_an_entry_of_ours(catalog: Path) -> None:
    entry = entry_of(record(1)) | {"hash": 2**70, "odd": float("nan"), "price": 1e22}
    write(catalog, json.dumps({record(1).file_path: entry}, indent=2))

    update_catalog(catalog, [record(1, export_timestamp=SECOND)], now=NOW)

    written = contents(catalog)[record(1).file_path]
    assert (written["hash"], written["export_timestamp"], written["price"]) == (2**70, SECOND, 1e22)
    assert written["odd"] != written["odd"]


def test_an_entry_of_the_wrong_type_under_our_path_becomes_ours(catalog: Path) -> None:
    write(catalog, json.dumps({record(1).file_path: ["not", "an", "object"], record(2).file_path: None}))

    update_catalog(catalog, [record(1), record(2)], now=NOW)

    assert contents(catalog) == {each.file_path: entry_of(each) for each in (record(1), record(2))}


def test_entries_of_files_that_are_gone_go_if_they_are_ours(catalog: Path) -> None:
    theirs = "/lib/pipeline/albums/theirs.jpg"
    update_catalog(catalog, [record(number) for number in range(1, 5)], now=NOW)
    write(catalog, json.dumps(contents(catalog) | {theirs: {"type": "watermarked"}}))

    gone = [record(1).file_path, record(2).file_path, theirs, "/never/heard/of"]
    result = update_catalog(catalog, [record(2)], gone, now=NOW)

    assert result.entries == 4
    assert list(contents(catalog)) == [*(record(number).file_path for number in (2, 3, 4)), theirs]
    update_catalog(catalog, [], [record(number).file_path for number in (2, 3, 4)], now=NOW)
    assert list(contents(catalog)) == [theirs]
    update_catalog(catalog, [record(9)], now=NOW)
    assert list(contents(catalog)) == [theirs, record(9).file_path]


def test_names_that_are_not_utf_8_are_written_and_read_back(catalog: Path) -> None:
    odd = record(1, file_path="/lib/pipeline/albums/\udcff/a.jpg", file_name="a.jpg", album_name="\udcff")

    update_catalog(catalog, [odd], now=NOW)

    assert not update_catalog(catalog, [odd], now=NOW).written
    assert list(read_catalog(catalog).records()) == [odd]


def test_a_path_given_twice_is_entered_once(catalog: Path) -> None:
    assert update_catalog(catalog, [record(1), record(1)], now=NOW).entries == 1
    assert ObjectText(catalog.read_bytes()).keys() == {record(1).file_path}


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from([record(n).file_path for n in range(4)]) | texts, strange_entries, max_size=6),
    st.lists(st.integers(0, 5), unique=True, max_size=4),
    st.lists(st.integers(0, 5), unique=True, max_size=3),
    st.sampled_from([None, 2, 3]),
)
def test_an_update_equals_the_plain_idea_of_a_merge(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, Any],
    ours: list[int],
    leaving: list[int],
    indent: int | None,
) -> None:
    path = tmp_path_factory.mktemp("catalog") / "master.json"
    write(path, json.dumps(before, indent=indent))
    gone = [record(number).file_path for number in leaving]

    update_catalog(path, [record(number) for number in ours], gone, now=NOW)

    expected = {key: value for key, value in before.items() if not (key in gone and is_ours(value))}
    for number in ours:
        made = record(number)
        expected[made.file_path] = merged_entry(before.get(made.file_path), made)
    assert contents(path) == expected
    assert not update_catalog(path, [record(number) for number in ours], gone, now=NOW).written


# ── damage, hostility, the disk ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b'{\n  "/a": {\n    "b": 1\n  },\n  "/c": {',
        b'{"/a": {}} trailing',
        b'{"/a": {},}',
        b'{"/a" {}}',
        b"{1: 2}",
        b'{"/a": }',
        b'{"/a": 1 "/b": 2}',
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe{\x00}\x00",
        b'{"/a": "\xe9"}',
        b"\x00" * 1000,
        b'{\n  "/a": 1,\n  "/b": }\n}',
        b'{\n  "/a": [\n  "x", 1\n}',
        b'{\n  "/a": 1 \n  "/b": 2\n}',
        b'{"/deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"/deep": ' + b'{"a":' * 100_000,
    ],
)
def test_a_damaged_catalog_is_set_aside_and_made_anew(catalog: Path, damaged: bytes) -> None:
    write(catalog, damaged)
    assert read_catalog(catalog).problem

    result = update_catalog(catalog, [record(1)], now=NOW)

    assert result.set_aside == catalog.with_name("master.json.corrupt-20260304_050607")
    assert result.set_aside.read_bytes() == damaged
    assert result.set_aside.name in result.problem
    assert contents(catalog) == {record(1).file_path: entry_of(record(1))}


@pytest.mark.parametrize("depth", [200, 300, 900, 990, 1010, 1020, 1030])
def test_deep_nesting_in_an_entry_is_kept_or_set_aside_and_never_fatal(catalog: Path, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    ours = json.dumps(entry_of(record(1)))[:-1] + f', "nested": {nested}}}'
    before = f'{{\n  "/theirs": {{"nested": {nested}}},\n  "{record(1).file_path}": {ours}\n}}'
    write(catalog, before)

    result = update_catalog(catalog, [record(1, export_timestamp=SECOND)], now=NOW)

    assert json.dumps(SECOND) in catalog.read_text()
    kept = "".join((result.set_aside or catalog).read_text().split())
    assert kept.count(nested) >= (2 if depth <= 300 or result.set_aside else 1)
    assert not update_catalog(catalog, [record(1, export_timestamp=SECOND)], now=NOW).written


def test_what_was_set_aside_before_is_never_overwritten(catalog: Path) -> None:
    for text in ("one", "two", "three"):
        write(catalog, text)
        update_catalog(catalog, [record(1)], now=NOW)

    name = "master.json.corrupt-20260304_050607"
    assert [catalog.with_name(name + end).read_text() for end in ("", "-2", "-3")] == ["one", "two", "three"]


def test_a_catalog_with_a_byte_order_mark_and_odd_blanks_is_sound(catalog: Path) -> None:
    write(catalog, '\ufeff\r\n {\t"/a" :\n[1 , 2]\r\n,"/a": 3}\n\n')

    assert update_catalog(catalog, [record(1)], now=NOW).set_aside is None
    assert contents(catalog)["/a"] == 3


@pytest.mark.parametrize(
    "text",
    [
        '{\n  "/a": {\n  "/b": {},\n  "/c": 1\n},\n  "/d": [\n  "x",\n  "y"\n]}',
        '{\n  "/a": 1, "/b": 2,\n  "/c": 3\n}',
        '{\n  "/a": {\n  "/b": 1,\n  "/c": 1\n}\n}',
        '{\n  "/a": 1,\n  "/a": 2\n}',
        '{\r\n  "/a": 1,\r\n  "/b": 2\r\n}',
    ],
)
def test_a_text_that_looks_like_our_layout_is_not_mistaken_for_it(catalog: Path, text: str) -> None:
    write(catalog, text)

    assert dict(read_catalog(catalog).entries) == json.loads(text)
    update_catalog(catalog, [record(1)], now=NOW)
    assert contents(catalog) == json.loads(text) | {record(1).file_path: entry_of(record(1))}


def test_a_pipe_a_folder_or_a_link_in_the_place_of_the_catalog_is_no_trap(catalog: Path, tmp_path: Path) -> None:
    catalog.parent.mkdir()
    os.mkfifo(catalog)
    assert update_catalog(catalog, [record(1)], now=NOW).set_aside is not None
    catalog.unlink()
    catalog.mkdir()
    (catalog / "kept").touch()
    result = update_catalog(catalog, [record(1)], now=NOW)
    assert result.set_aside is not None
    assert (result.set_aside / "kept").exists()
    catalog.unlink()
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"/theirs": 1}')
    catalog.symlink_to(elsewhere)
    result = update_catalog(catalog, [record(1)], now=NOW)
    assert "symbolic link" in result.problem
    assert elsewhere.read_text() == '{"/theirs": 1}'
    assert not catalog.is_symlink()
    assert contents(catalog).keys() == {"/theirs", record(1).file_path}


def test_a_link_in_a_circle_is_set_aside(catalog: Path) -> None:
    catalog.parent.mkdir()
    catalog.symlink_to(catalog.name)

    assert update_catalog(catalog, [record(1)], now=NOW).set_aside is not None
    assert contents(catalog).keys() == {record(1).file_path}


def test_the_mode_of_the_file_is_kept(catalog: Path) -> None:
    write(catalog, "{}")
    catalog.chmod(0o660)

    update_catalog(catalog, [record(1)], now=NOW)

    assert stat.S_IMODE(catalog.stat().st_mode) == 0o660


def test_leftovers_of_a_killed_update_are_removed_and_nothing_else(catalog: Path) -> None:
    write(catalog, "{}")
    for name in (".master.json.0123abcd.tmp", ".master.json.mine.tmp", ".other.json.0123abcd.tmp", "master.json.bak"):
        catalog.with_name(name).touch()

    update_catalog(catalog, [record(1)], now=NOW)

    assert files_beside(catalog) == [
        ".master.json.mine.tmp",
        ".other.json.0123abcd.tmp",
        "master.json",
        "master.json.bak",
    ]


def test_a_full_disk_leaves_the_old_catalog_and_no_rest(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update_catalog(catalog, [record(1)], now=NOW)
    before = catalog.read_bytes()
    monkeypatch.setattr(fault_points, "_ENOSPC", "catalog.written:1")
    monkeypatch.setattr(fault_points, "_visits", {})

    with pytest.raises(DiskFull, match=r"master\.json"):
        update_catalog(catalog, [record(2)], now=NOW)

    assert catalog.read_bytes() == before
    assert files_beside(catalog) == ["master.json"]
    assert update_catalog(catalog, [record(2)], now=NOW).entries == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(catalog: Path) -> None:
    catalog.parent.mkdir()
    catalog.parent.chmod(0o500)
    with pytest.raises(NotWritable, match=r"master\.json"):
        update_catalog(catalog, [record(1)], now=NOW)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata").touch()
    with pytest.raises(StorageError, match="metadata"):
        update_catalog(tmp_path / "metadata" / "master.json", [record(1)], now=NOW)


def test_what_another_program_wrote_meanwhile_is_not_lost(catalog: Path) -> None:
    update_catalog(catalog, [record(1)], now=NOW)
    calls = 0

    def records_while_another_program_writes() -> Iterator[CatalogRecord]:
        nonlocal calls
        calls += 1
        yield record(1)
        yield record(2)
        if calls == 1:
            other = catalog.with_name("other")
            other.write_text(json.dumps(contents(catalog) | {"/theirs": {"n": 1}}))
            os.replace(other, catalog)

    update_catalog(catalog, records_while_another_program_writes, now=NOW)

    assert calls == 2
    assert contents(catalog).keys() == {record(1).file_path, record(2).file_path, "/theirs"}


def test_a_program_that_never_stops_writing_does_not_stop_us(catalog: Path) -> None:
    def records_while_another_program_writes() -> Iterator[CatalogRecord]:
        write(catalog, json.dumps({"/theirs": {"n": os.urandom(4).hex()}}))
        yield record(1)

    update_catalog(catalog, records_while_another_program_writes, now=NOW)

    assert record(1).file_path in contents(catalog)
    assert files_beside(catalog) == ["master.json"]


_UPDATE = """
import sys
sys.path.insert(0, sys.argv[2])
from datetime import UTC, datetime
from pathlib import Path
from skicyclerun.catalog.master_json import update_catalog
from tests.test_catalog import record
update_catalog(Path(sys.argv[1]), [record(1), record(2)], now=datetime.now(UTC))
"""


@pytest.mark.parametrize(("fault", "entries"), [("catalog.written", 1), ("catalog.renamed", 2)])
def test_a_process_killed_in_the_middle_leaves_the_old_catalog_or_the_new(
    catalog: Path, fault: str, entries: int
) -> None:
    update_catalog(catalog, [record(1)], now=NOW)
    checkout = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "SKICYCLERUN_FAULT": fault}

    killed = subprocess.run([sys.executable, "-c", _UPDATE, str(catalog), checkout], env=environment, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert len(contents(catalog)) == entries
    result = update_catalog(catalog, [record(1), record(2)], now=NOW)
    assert (result.entries, result.written) == (2, entries == 1)
    assert files_beside(catalog) == ["master.json"]


def test_a_catalog_is_read_without_being_touched(catalog: Path) -> None:
    missing = read_catalog(catalog)
    assert (missing.exists, missing.problem, len(missing.entries)) == (False, None, 0)
    assert not catalog.parent.exists()

    update_catalog(catalog, [record(1), record(2, facts=FULL)], now=NOW)
    write(catalog, json.dumps(contents(catalog) | {"/theirs": {"type": "lora"}, "/list": []}))
    reading = read_catalog(catalog)

    assert (reading.exists, reading.problem) == (True, None)
    assert list(reading.records()) == [record(1), record(2, facts=FULL)]
    assert reading.entries["/theirs"] == {"type": "lora"}


def test_a_big_catalog_is_not_held_as_objects(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand entries, all there already: none is written, and none is even parsed a second time."""
    update_catalog(catalog, lambda: (record(number) for number in range(20_000)), now=NOW)
    monkeypatch.setattr(master_json, "merged_entry", None)

    assert not update_catalog(catalog, lambda: (record(number) for number in range(20_000)), now=NOW).written
