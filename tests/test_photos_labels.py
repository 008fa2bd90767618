"""What Photos found in a picture comes along where its search index can be read, and nothing fails where it cannot."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from skicyclerun.sources.photos_bundle import CopyFolder
from skicyclerun.sources.photos_labels import PhotoLabels

PHOTO = "F12384F6-CD17-4151-ACBA-AE0E3688539E"
OTHER = "D79B8D77-BFFC-460B-9312-034F2877D35B"
HALVES = {
    photo: tuple(int.from_bytes(bytes.fromhex(half), "little", signed=True) for half in (digits[:16], digits[16:]))
    for photo in (PHOTO, OTHER)
    for digits in [photo.replace("-", "")]
}
"""As Photos enters them; tests/test_what_comes_out.py holds real ones to osxphotos."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """With a search index of two photos, as Photos 8 and later write it."""
    search = tmp_path / "L.photoslibrary" / "database" / "search"
    search.mkdir(parents=True)
    with closing(sqlite3.connect(search / "psi.sqlite")) as index:
        index.executescript(
            "CREATE TABLE assets(uuid_0 INT, uuid_1 INT); CREATE TABLE ga(groupid INT, assetid INT);"
            "CREATE TABLE groups(category INT2, content_string TEXT);"
        )
        index.executemany("INSERT INTO assets VALUES (?, ?)", HALVES.values())
        groups = [(1500, "Pumpkin\x00"), (1500, "Child\x00"), (1104, "Fall\x00"), (2024, "Old\x00"), (1500, "\x00")]
        index.executemany("INSERT INTO groups VALUES (?, ?)", groups)
        index.executemany("INSERT INTO ga VALUES (?, ?)", [(group, 1) for group in range(1, 6)] + [(2, 2)])
        index.commit()
    return tmp_path / "L.photoslibrary"


@pytest.fixture
def folder() -> Iterator[CopyFolder]:
    made = CopyFolder()
    yield made
    made.remove()


def labels_of(library: Path, folder: CopyFolder, version: float = 10) -> PhotoLabels:
    return PhotoLabels(library, folder, version, lambda *_: None)


def index_of(library: Path) -> Path:
    return library / "database" / "search" / "psi.sqlite"


def test_labels_of_a_photo_are_there_in_the_order_of_the_alphabet(library: Path, folder: CopyFolder) -> None:
    labels = labels_of(library, folder)
    assert labels.of(PHOTO) == ("Child", "Pumpkin")
    assert labels.of(OTHER) == ("Child",)
    assert labels.of("00000000-0000-0000-0000-000000000000") == labels.of("no id") == ()
    assert labels.of(PHOTO) == ("Child", "Pumpkin")
    labels.close()
    labels.close()
    assert labels.of(PHOTO) == ()


def test_photos_before_8_keeps_labels_under_another_number(library: Path, folder: CopyFolder) -> None:
    labels = labels_of(library, folder, 7)
    assert labels.of(PHOTO) == ("Old",)
    labels.close()


def test_what_photos_writes_meanwhile_is_read_again(library: Path, folder: CopyFolder) -> None:
    labels = labels_of(library, folder)
    assert labels.of(OTHER) == ("Child",)
    with closing(sqlite3.connect(index_of(library))) as index:
        index.execute("INSERT INTO ga VALUES (1, 2)")
        index.commit()
    assert labels.of(OTHER) in (("Child",), ("Child", "Pumpkin"))  # a clone is of the moment it was made at
    assert labels.of(PHOTO) == ("Child", "Pumpkin")
    labels.close()


def test_nothing_is_written_into_the_library(library: Path, folder: CopyFolder) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in library.rglob("*"))
    labels = labels_of(library, folder)
    assert labels.of(PHOTO)
    labels.close()
    assert sorted((path, path.stat().st_mtime_ns) for path in library.rglob("*")) == before


@pytest.mark.parametrize("harm", ["gone", "empty", "garbage", "other tables", "link", "pipe", "folder"])
def test_an_index_that_cannot_be_read_means_no_labels(library: Path, folder: CopyFolder, harm: str) -> None:
    index = index_of(library)
    elsewhere = library.parent / "elsewhere.sqlite"
    shutil.copy(index, elsewhere)
    index.unlink()
    match harm:
        case "empty":
            index.touch()
        case "garbage":
            index.write_bytes(os.urandom(8192))
        case "other tables":
            with closing(sqlite3.connect(index)) as other:
                other.execute("CREATE TABLE assets(name TEXT)")
                other.commit()
        case "link":
            index.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(index)
        case "folder":
            index.mkdir()
    labels = labels_of(library, folder)
    assert labels.of(PHOTO) == labels.of(PHOTO) == ()
    labels.close()
