"""Whatever strangers put into a picture, an archive, a catalog or a name: an error of ours or a result, within bounds.

The surfaces and what is tried on each are in tests/hostile_inputs.py. `SKICYCLERUN_HOSTILE=5000` tries so many on each.
What was found once lies in tests/data/hostile and is tried first, always.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from skicyclerun.archive.listing import list_archives
from skicyclerun.archive.manifest import load_manifest
from skicyclerun.archive.prove import verify_archive
from skicyclerun.archive.restore import restore_archive
from skicyclerun.catalog.entries import record_from_entry
from skicyclerun.errors import PhotoUnreadable, RestoreRefused
from skicyclerun.images.jpeg_segments import read_header, replace_metadata
from skicyclerun.images.staging import Original
from skicyclerun.sources.photos_app_answers import AnswerUnknown, items_of
from tests.archive_trees import file_member, forge_archive
from tests.command_line import skicyclerun
from tests.hostile_inputs import CORPUS, SURFACES, corpus, unpacked
from tests.hostile_server import HostileServer, hostile_server

pytestmark = pytest.mark.long

COUNT = int(os.environ.get("SKICYCLERUN_HOSTILE", "40"))
"""Inputs to try on each surface; of those that cost much a share of it."""
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261125"))


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as process:
        yield process


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("surface", SURFACES)
def test_nothing_that_strangers_make_escapes_breaks_out_or_takes_too_much(
    surface: str, server: HostileServer, tmp_path: Path
) -> None:
    known = corpus(surface)
    count = max(1, round(COUNT * SURFACES[surface].share))
    said = server.ask(
        surface=surface, count=count, seed=SEED, folder=str(tmp_path), files=[str(path) for path in known]
    )
    assert said["problem"] == "", f"{surface}: the input is in {said['input']}\n{said['problem']}"
    assert said["tried"] >= len(known) + 1
    print(f"{surface}: {said['tried']} inputs, at most {said['peak'] >> 20} MB")  # noqa: T201  # for -s, in a campaign


def test_every_file_of_the_corpus_belongs_to_a_surface() -> None:
    assert {path.parent.name for path in CORPUS.glob("*/*")} <= set(SURFACES)
    assert all(path.stat().st_size < 100_000 for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize(
    ("surface", "what"), [("jpeg", "an error"), ("boxes", "a crash"), ("names", "an endless loop")]
)
def test_a_surface_that_misbehaves_is_noticed(surface: str, what: str, server: HostileServer, tmp_path: Path) -> None:
    said = server.ask(surface=surface, count=1, seed=0, folder=str(tmp_path), files=[], misbehave=what)
    assert {"an error": "LookupError", "a crash": "SIGSEGV", "an endless loop": "SIGXCPU"}[what] in said["problem"]
    assert Path(said["input"]).exists()


# ── what was found, one by one ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fifteen-million-empty-segments", "more than 20,000 segments"),
        ("sixty-megabytes-of-fill-bytes", "of nothing"),
        ("thirty-million-standalone-markers", "of nothing"),
    ],
)
def test_a_jpeg_header_of_nothing_is_refused(name: str, said: str) -> None:
    data = unpacked(CORPUS / "jpeg" / f"{name}.xz")
    with pytest.raises(PhotoUnreadable, match=said):
        read_header(Original.of_bytes(data))


def test_a_few_fill_bytes_are_passed_over() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    whole = stream.getvalue()
    assert read_header(Original.of_bytes(whole[:2] + b"\xff" * 1_000 + whole[2:])).frame.width == 8


def test_a_multi_picture_index_is_corrected_once_however_often_it_is_named() -> None:
    listed = struct.pack("<HHII", 0xB002, 7, 32, 8 + 2 + 2 * 12 + 4)
    pictures = struct.pack("<IIIHH", 0, 100, 0, 0, 0) + struct.pack("<IIIHH", 0, 100, 5_000, 0, 0)
    index = b"MPF\0II*\0\x08\0\0\0\x02\0" + listed + listed + b"\0\0\0\0" + pictures
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    whole = stream.getvalue()
    segment = b"\xff\xe2" + struct.pack(">H", len(index) + 2) + index
    header = read_header(Original.of_bytes(whole[:2] + segment + whole[2:]))
    comment = b"\xff\xe1\x00\x08Exif\0\0"
    changed = replace_metadata(header, exif=(comment,), xmp=None, iptc=None)
    at = changed.index(b"MPF\0") + len(index) - 32
    # The new segment stands before the index: the first picture has grown, what follows is as far from it as before.
    assert struct.unpack_from("<II", changed, at + 4) == (100 + len(comment), 0)
    assert struct.unpack_from("<II", changed, at + 20) == (100, 5_000)


@pytest.mark.parametrize("name", ["a-file-in-the-place-of-the-folder", "a-link-in-the-place-of-the-folder"])
def test_an_archive_with_no_folder_but_a_file_of_its_name_is_refused(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "hostile.zip"
    archive.write_bytes(unpacked(CORPUS / "archive" / f"{name}.xz"))
    with pytest.raises(RestoreRefused, match="where its folder should be"):
        restore_archive(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("day", ["9999-99-99T99:99:99Z", "0000-00-00T00:00:00Z", "0001-01-01T00:00:00Z"])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_an_archive_of_a_day_that_no_clock_shows_is_listed_with_its_problem(
    day: str, zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    whole = forge_archive(tmp_path / "whole.zip", [(file_member("albums/a.jpg"), b"a")]).read_bytes()
    (tmp_path / "archive").mkdir()
    for number, moment in enumerate((b"2026-11-22T16:15:01Z", b"2026-11-22T16:15:00Z")):
        path = tmp_path / "archive" / f"pipeline_0001010{number + 1}_000000.zip"
        path.write_bytes(whole.replace(moment, day.encode()))
    (tmp_path / "archive" / "pipeline_00010103_000000.zip").write_bytes(b"none of ours")
    try:
        listed = list_archives(tmp_path / "archive")
        ended = skicyclerun("archive", "list", "--lib-root", tmp_path)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert len(listed) == 3
    assert all(one.problem and one.created_at <= datetime.now(UTC) for one in listed)
    assert ended.code == 0, ended.stderr


def test_a_manifest_that_is_larger_than_its_members_need_is_not_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(unpacked(CORPUS / "archive" / "a-manifest-of-seven-hundred-megabytes.xz"))
    assert verify_archive(archive).problems == ("its last member is not a manifest",)


def test_a_manifest_may_be_as_long_as_odd_names_make_it(tmp_path: Path) -> None:
    odd = "\N{BICYCLE}" * 60 + "\x07"
    members = [
        (file_member(f"albums/{'d/' * 20}{number}", path_bytes=f"albums/{'d/' * 20}{number}".encode()), b"")
        for number in range(50)
    ] + [(file_member(f"albums/{odd[:-1]}_x07", path_bytes=f"albums/{odd}".encode()), b"odd")]
    assert verify_archive(forge_archive(tmp_path / "odd.zip", members)).problems == ()


def test_half_a_character_in_a_catalog_is_not_believed() -> None:
    entry = {
        "type": "exported",
        "export_timestamp": "2026-01-01T00:00:00Z",
        "sha256": "0" * 64,
        "size": 1,
        "title": "\ud800",
        "keywords": ["kept", "\udfff"],
        "source": {"kind": "folder", "album_id": "Alps", "photo_id": "a.jpg"},
    }
    record = record_from_entry("/albums/Alps/a.jpg", entry)
    assert record is not None
    assert (record.facts.title, record.facts.keywords) == (None, ("kept",))
    for source in ({"album_id": "\ud800"}, {"photo_id": "\ud800"}):
        assert record_from_entry("/albums/Alps/a.jpg", entry | {"source": {**entry["source"], **source}}) is None  # type: ignore[dict-item]


def test_a_count_of_thousands_of_digits_is_no_answer_of_photos() -> None:
    with pytest.raises(AnswerUnknown):
        items_of([["9" * 5_000], ["A"], ["a.jpg"]])


def test_a_manifest_of_other_numbers_and_names_is_refused_in_words() -> None:
    with pytest.raises(RestoreRefused, match="would leave"):
        load_manifest(
            b'{"format":"skicyclerun-archive","version":1,"id":"x","created":"","timestamp":"20261122_161500",'
            b'"folders":{"albums":""},"members":[{"path":"albums/../x","kind":"folder","size":0,"mtime_ns":0,"mode":0}]}'
        )
