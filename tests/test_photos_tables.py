"""A library read from its tables says what osxphotos says that has read it as a whole, down to each fingerprint."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.errors import LibraryError, PhotoError, SourceStopped
from skicyclerun.files.clone import clone_file
from skicyclerun.models import AlbumKind, Face, MediaKind, PhotoFacts, Place
from skicyclerun.sources import (
    photos_albums,
    photos_bundle,
    photos_database,
    photos_records,
    photos_snapshot,
    photos_tables,
)
from skicyclerun.sources.base import KnowsPhotos
from skicyclerun.sources.photos_asset import Asset, Item, PhotosDatabase, fingerprint_of, listed, metadata_of
from skicyclerun.sources.photos_bundle import CopyFolder, check_is_library
from skicyclerun.sources.photos_database import LibraryLoader
from skicyclerun.sources.photos_library import Missing, PhotosLibrary, _look
from skicyclerun.sources.photos_places import place_of
from skicyclerun.sources.photos_records import Names, read_records
from skicyclerun.sources.photos_schema import Schema, SchemaUnknown
from skicyclerun.sources.photos_snapshot import copied_snapshot
from skicyclerun.sources.photos_tables import LibraryTables
from skicyclerun.sources.photosdb import WholeLibrary
from tests.shared_libraries import (
    BETA_LIBRARY,
    MEDIA_TYPES_LIBRARY,
    PHOTOS_4_LIBRARY,
    TEST_LIBRARY,
    copy_library,
    edit_database,
    needs_full_libraries,
    tree_state,
)
from tests.test_photos_library import PUMPKIN_FARM, PUMPKINS1, photos_at_work

NOWHERE = Path("attempt-directory-that-is-not-made")

REAL = [
    pytest.param(TEST_LIBRARY, id="15.4.1"),
    pytest.param(MEDIA_TYPES_LIBRARY, id="media-types"),
    pytest.param(BETA_LIBRARY, id="beta", marks=needs_full_libraries),
]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go in this test."""
    import osxphotos.photosdb  # noqa: F401  # makes one of its own at import, for as long as the process lives

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = copy_library(TEST_LIBRARY, tmp_path_factory.mktemp("pristine"))
    edit_database(library)  # checkpoints
    return library


@pytest.fixture
def library(pristine: Path, tmp_path: Path) -> Path:
    """A copy whose database is its own and whose pictures are links to one set; nothing was written to it lately."""
    copied = _copy(pristine, tmp_path)
    os.utime(copied / "database" / "Photos.sqlite", (1_700_000_000, 1_700_000_000))
    return copied


def _copy(pristine: Path, to: Path) -> Path:
    library = to / pristine.name
    shutil.copytree(pristine / "database", library / "database", ignore=shutil.ignore_patterns("search"))
    for part in ("originals", "resources"):
        shutil.copytree(pristine / part, library / part, copy_function=os.link)
    return library


# ── the two ways ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def opened(database: PhotosDatabase) -> Iterator[PhotosDatabase]:
    try:
        yield database
    finally:
        database.close()


def from_tables(library: Path) -> PhotosDatabase:
    loader: LibraryLoader[PhotosDatabase] = LibraryLoader(library, lambda database: database)
    database = loader.run()
    assert isinstance(database, LibraryTables)
    return database


def as_a_whole(library: Path) -> PhotosDatabase:
    """As every library was read before there were `photos_tables`, and Photos 3 and 4 are still."""
    folder = CopyFolder()
    snapshot = copied_snapshot(library, check_is_library(library), folder.path, lambda *_: None)
    with closing(sqlite3.connect(snapshot.database)) as connection:
        connection.execute("SELECT 1 FROM sqlite_master")
    return WholeLibrary(library, snapshot.database, folder, lambda *_: None)


_MOMENTS = ("date", "date_modified")


def _said(item: Item) -> dict[str, object]:
    """All that the program asks of a photo. A moment counts, not the zone it is told in."""
    said: dict[str, object] = {
        "altitude": item.altitude,
        "heading": item.heading,
        "inferred": item.inferred_offset if item.asset.tzoffset is None else None,
    }
    for name in Asset.__annotations__:
        value: Any
        try:
            value = getattr(item.asset, name)
        except Exception as error:
            value = type(error)
        said[name] = value.timestamp() if name in _MOMENTS and isinstance(value, datetime) else value
    try:
        said["metadata"] = metadata_of(item)
        said["fingerprint of all"] = fingerprint_of(item)
    except Exception as error:
        said["metadata"] = type(error)
    return said


def assert_same(library: Path) -> tuple[list[PhotoFacts], dict[str, dict[str, object]]]:
    """Compare all that both ways say of a library. Returns the facts and what is said of each photo."""
    with opened(from_tables(library)) as tables, opened(as_a_whole(library)) as whole:
        assert tables.albums() == whole.albums()
        membership: dict[str, list[str]] = {}
        for album in whole.albums():
            for uuid in album.uuids:
                membership.setdefault(uuid, []).append(album.id)
        facts = tables.facts(membership, lambda _: True)
        assert facts == whole.facts(membership, lambda _: True)
        uuids = [each.id for each in facts]
        said = {item.asset.uuid: _said(item) for item in tables.items(uuids)}
        assert list(said) == uuids
        for item in whole.items(uuids):
            assert said[item.asset.uuid] == _said(item)
        assert tables.listing(uuids) == whole.listing(uuids)
        assert tables.places(uuids) == whole.places(uuids)
        for uuid in uuids:
            assert tables.faces(uuid) == whole.faces(uuid)
        assert tables.items(["no such photo"]) == whole.items(["no such photo"]) == []
        assert tables.listing(["no such photo"]) == whole.listing(["no such photo"]) == []
    return facts, said


async def _fetched(library: Path, database: PhotosDatabase, missing: Missing) -> list[object]:
    source = PhotosLibrary(library, missing=missing)
    source._opened = _look(library, database)
    told: list[object] = []
    for album in await source.albums():
        photos = await source.photos(album.id)
        told.append((album, album.size, photos, [photo.extension for photo in photos]))
        for photo in photos:
            try:
                told.append(await source.fetch(photo, NOWHERE))
            except Exception as error:
                told.append((type(error), str(error)))
    everything = [facts.id for facts in await source.facts()]
    told.append([(photo, photo.extension) for photo in await source.photos_of(everything)])
    source._opened = None
    return told


@pytest.mark.parametrize("real", REAL)
async def test_all_that_is_said_of_a_real_library_is_the_same_both_ways(real: Path) -> None:
    before = tree_state(real / "database")
    facts, _ = assert_same(real)
    assert len(facts) >= 16
    ways: tuple[Missing, ...] = ("fail", "preview")
    for missing in ways:
        with opened(from_tables(real)) as tables, opened(as_a_whole(real)) as whole:
            fetched = await _fetched(real, tables, missing)
            assert fetched == await _fetched(real, whole, missing)
            assert len(fetched) > 3
    assert tree_state(real / "database") == before


#: As the program gave them before there were tables to read, of albums whose rows say different things.
FINGERPRINTS = {
    TEST_LIBRARY: {
        "IMG_4547.jpg": "31cd3d6bfcac079e38753e6878849b40",
        "wedding.jpg": "8bc899ca2c1ecb3a7a55b750819afa99",
        "Pumkins1.jpg": "ca5fa37181838b18bc215a7adbab0de9",
        "Pumkins2.jpg": "e9c5de25c881bbfbd7b07b48c5a9b65e",
        "Pumpkins3.jpg": "91340ae0d0bb6687c3c521f1d38b4ee6",
        "DSC03584.dng": "6d8bdd9920cd7ada8225aca417107eed",
        "IMG_1994.JPG": "d8c82d9b9865add0d9df7595b16789b1",
        "IMG_1997.JPG": "99e6ed71adb6c38d13a1bcfc2bf85bbd",
        "IMG_2000.JPG": "a33e768ff52701334706e31b9861d590",
    },
    MEDIA_TYPES_LIBRARY: {
        "IMG_0667.JPG": "02a5042cfc92115e15c85ffdacc06deb",
        "IMG_0658.JPG": "2fa38c7dc6fb5be20fafc6c005937e0a",
    },
    PHOTOS_4_LIBRARY: {
        "Pumkins1.jpg": "ca5fa37181838b18bc215a7adbab0de9",
        "Pumkins2.jpg": "e9c5de25c881bbfbd7b07b48c5a9b65e",
        "Pumpkins3.jpg": "91340ae0d0bb6687c3c521f1d38b4ee6",
    },
}


@pytest.mark.parametrize("real", FINGERPRINTS, ids=lambda real: real.stem)
async def test_fingerprints_are_those_of_the_versions_before(real: Path) -> None:
    """Were they others, the next update of everybody would export everything anew."""
    source = PhotosLibrary(real)
    await source.open()
    given = {
        photo.original_filename: photo.fingerprint
        for album in await source.albums()
        for photo in await source.photos(album.id)
    }
    await source.close()
    assert given == FINGERPRINTS[real]


_ALBUM = f"ZUUID = '{PUMPKIN_FARM}'"
_PHOTO = f"ZUUID = '{PUMPKINS1}'"
_EXTRA = f"ZASSET = (SELECT Z_PK FROM ZASSET WHERE {_PHOTO})"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([f"UPDATE ZASSET SET ZHIDDEN = 1 WHERE {_PHOTO}"], id="hidden"),
        pytest.param([f"UPDATE ZASSET SET ZTRASHEDSTATE = 1 WHERE {_PHOTO}"], id="trashed"),
        pytest.param(
            [f"UPDATE ZASSET SET ZAVALANCHEUUID = 'b', ZAVALANCHEPICKTYPE = 2, ZVISIBILITYSTATE = 2 WHERE {_PHOTO}"],
            id="of a burst, not picked",
        ),
        pytest.param([f"UPDATE ZASSET SET ZAVALANCHEUUID = 'b', ZVISIBILITYSTATE = NULL WHERE {_PHOTO}"], id="burst"),
        *(
            pytest.param(
                [f"UPDATE ZGENERICALBUM SET ZCUSTOMSORTKEY = {key}, ZCUSTOMSORTASCENDING = {way} WHERE {_ALBUM}"],
                id=f"sorted by {key}, {way}",
            )
            for key, way in ((0, 1), (1, 0), (1, 1), (1, "NULL"), (5, 1), (7, 1), ("NULL", "NULL"))
        ),
        pytest.param(
            [
                f"UPDATE ZGENERICALBUM SET ZCUSTOMSORTKEY = 1, ZCUSTOMSORTASCENDING = 0 WHERE {_ALBUM}",
                "UPDATE ZASSET SET ZDATECREATED = 5e8",
                f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZTIMEZONEOFFSET = 99999, ZTIMEZONENAME = NULL WHERE {_EXTRA}",
            ],
            id="all of one moment, one with an offset that is none",
        ),
        pytest.param(["UPDATE Z_30ASSETS SET Z_FOK_3ASSETS = 7"], id="all in one place"),
        pytest.param(["UPDATE ZINTERNALRESOURCE SET ZLOCALAVAILABILITY = -1"], id="nothing is here"),
        pytest.param(["UPDATE ZINTERNALRESOURCE SET ZLOCALAVAILABILITY = -1 WHERE Z_PK % 2"], id="half of it is here"),
        pytest.param(
            ["UPDATE ZINTERNALRESOURCE SET ZLOCALAVAILABILITY = NULL, ZFINGERPRINT = NULL WHERE Z_PK % 2"],
            id="half of it is not known",
        ),
        pytest.param(["UPDATE ZADDITIONALASSETATTRIBUTES SET ZORIGINALSTABLEHASH = NULL"], id="no fingerprints"),
        pytest.param(
            [
                "UPDATE ZADDITIONALASSETATTRIBUTES SET ZORIGINALSTABLEHASH = 'same'",
                "UPDATE ZINTERNALRESOURCE SET ZFINGERPRINT = 'same', ZLOCALAVAILABILITY = Z_PK % 3",
            ],
            id="one fingerprint for all",
        ),
        pytest.param(["UPDATE ZADDITIONALASSETATTRIBUTES SET ZTIMEZONEOFFSET = NULL"], id="no offsets"),
        pytest.param(["UPDATE ZASSET SET ZDATECREATED = NULL, ZADJUSTMENTTIMESTAMP = -1"], id="no dates"),
        pytest.param(["UPDATE ZASSET SET ZDATECREATED = -978307200"], id="the epoch"),
        pytest.param(["UPDATE ZASSET SET ZLATITUDE = -180, ZLONGITUDE = -180"], id="no positions"),
        pytest.param(["UPDATE ZASSET SET ZCLOUDBATCHPUBLISHDATE = 1"], id="of shared albums"),
        pytest.param(["UPDATE ZASSET SET ZSAVEDASSETTYPE = 10, ZDIRECTORY = '/nowhere'"], id="only referred to"),
        pytest.param(["UPDATE ZASSET SET ZKIND = 1, ZKINDSUBTYPE = 101"], id="slow-motion videos"),
        pytest.param(["UPDATE ZASSET SET ZKINDSUBTYPE = 2, ZADJUSTMENTSSTATE = 2"], id="Live Photos, edited"),
        pytest.param(["UPDATE ZASSET SET ZMOMENTSHARE = 1"], id="of a shared moment"),
        pytest.param(
            ["UPDATE ZADDITIONALASSETATTRIBUTES SET ZSYNDICATIONIDENTIFIER = 'x', ZSYNDICATIONHISTORY = 0"],
            id="shared with you",
        ),
        pytest.param(["UPDATE ZADDITIONALASSETATTRIBUTES SET ZORIGINALFILENAME = NULL"], id="no original names"),
        pytest.param(["UPDATE ZASSET SET ZWIDTH = 'wide', ZHEIGHT = x'00'"], id="sizes that are none"),
        pytest.param(
            [
                f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZORIGINALFILESIZE = 'large' WHERE {_EXTRA}",
                "UPDATE ZADDITIONALASSETATTRIBUTES SET ZTIMEZONEOFFSET = 'east' WHERE Z_PK % 3",
                "UPDATE ZADDITIONALASSETATTRIBUTES SET ZTIMEZONENAME = NULL WHERE Z_PK % 2",
                "UPDATE ZASSET SET ZLATITUDE = 'north' WHERE Z_PK % 2",
            ],
            id="words in the place of numbers",
        ),
        pytest.param(
            ["UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = 'Cafe\u0301', ZORIGINALFILENAME = 'Cafe\u0301.jpg'"],
            id="decomposed texts",
        ),
        pytest.param(
            [
                "UPDATE ZPERSON SET ZFULLNAME = 'Zoe\u0308' WHERE Z_PK % 2",
                "UPDATE ZPERSON SET ZFULLNAME = NULL WHERE NOT Z_PK % 2",
            ],
            id="persons",
        ),
        pytest.param(["UPDATE ZKEYWORD SET ZTITLE = NULL"], id="keywords without a text"),
        pytest.param(["UPDATE ZDETECTEDFACE SET ZISINTRASH = 1 WHERE Z_PK % 2"], id="faces in the trash"),
        pytest.param(["UPDATE ZDETECTEDFACE SET ZSIZE = 0 WHERE Z_PK % 2"], id="faces without an extent"),
        pytest.param(["UPDATE ZGENERICALBUM SET Z_FOK_PARENTFOLDER = NULL WHERE ZKIND = 4000"], id="folders nowhere"),
        pytest.param([f"UPDATE ZGENERICALBUM SET ZTRASHEDSTATE = NULL WHERE {_ALBUM}"], id="a trash that is not known"),
        pytest.param([f"UPDATE ZGENERICALBUM SET ZCLOUDOWNERHASHEDPERSONID = 'x' WHERE {_ALBUM}"], id="of another"),
        pytest.param([f"UPDATE ZGENERICALBUM SET ZKIND = 1505, ZTITLE = NULL WHERE {_ALBUM}"], id="a shared album"),
        pytest.param([f"UPDATE ZGENERICALBUM SET ZKIND = 1508 WHERE {_ALBUM}"], id="a project"),
    ],
)
def test_whatever_a_library_says_is_the_same_both_ways(library: Path, changes: list[str]) -> None:
    edit_database(library, *changes)
    facts, said = assert_same(library)
    assert len(facts) == len(said) == 16


_COLUMNS = {
    "ZASSET": (
        "ZHIDDEN ZFAVORITE ZTRASHEDSTATE ZVISIBILITYSTATE ZAVALANCHEUUID ZAVALANCHEPICKTYPE ZKINDSUBTYPE ZKIND"
        " ZADJUSTMENTSSTATE ZADJUSTMENTTIMESTAMP ZDATECREATED ZLATITUDE ZLONGITUDE ZCLOUDBATCHPUBLISHDATE"
        " ZSAVEDASSETTYPE ZWIDTH ZHEIGHT ZUNIFORMTYPEIDENTIFIER ZFILENAME ZDIRECTORY"
    ).split(),
    "ZADDITIONALASSETATTRIBUTES": (
        "ZTITLE ZORIGINALFILENAME ZORIGINALFILESIZE ZORIGINALSTABLEHASH ZTIMEZONEOFFSET ZINFERREDTIMEZONEOFFSET"
    ).split(),
    "ZINTERNALRESOURCE": ["ZLOCALAVAILABILITY", "ZFINGERPRINT", "ZDATASTORESUBTYPE"],
    "ZGENERICALBUM": ["ZTITLE", "ZTRASHEDSTATE", "ZCUSTOMSORTKEY", "ZCUSTOMSORTASCENDING", "Z_FOK_PARENTFOLDER"],
    "ZPERSON": ["ZFULLNAME"],
    "ZKEYWORD": ["ZTITLE"],
    "ZDETECTEDFACE": ["ZCENTERX", "ZCENTERY", "ZSIZE", "ZHIDDEN"],
}
_CHANGES = st.sampled_from(sorted(_COLUMNS)).flatmap(
    lambda table: st.tuples(
        st.just(table),
        st.sampled_from(_COLUMNS[table]),
        st.sampled_from(
            [None, 0, 1, 2, 3, 8, 10, 17, -1, -180.0, 0.25, 5.4e8, 3600, 90_000, "", "Cafe\u0301", "public.heic"]
        ),
        st.integers(1, 4),
    )
)


@settings(max_examples=10)
@given(changes=st.lists(_CHANGES, min_size=1, max_size=6))
def test_any_rows_say_the_same_both_ways(pristine: Path, changes: list[tuple[str, str, Any, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = _copy(pristine, Path(folder))
        with closing(sqlite3.connect(library / "database" / "Photos.sqlite")) as connection:
            for name in [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]:
                connection.execute(f'DROP TRIGGER "{name}"')
            for table, column, value, part in changes:
                with closing(connection.cursor()) as cursor:
                    cursor.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE Z_PK % {part} = 0", (value,))
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        try:
            as_a_whole(library).close()
        except Exception:
            return  # what osxphotos does not read is not read at all
        assert_same(library)


# ── shared albums and projects ────────────────────────────────────────────────────────────────────────────────────


def test_shared_albums_come_after_ones_own_and_projects_last(library: Path) -> None:
    edit_database(
        library,
        f"UPDATE ZGENERICALBUM SET ZKIND = 1505, ZCLOUDOWNERHASHEDPERSONID = 'me' WHERE {_ALBUM}",
        "UPDATE ZGENERICALBUM SET ZKIND = 1508 WHERE ZTITLE = 'Raw'",
    )
    assert_same(library)
    with opened(from_tables(library)) as database:
        albums = database.albums()
    assert [(album.title, album.kind, len(album.uuids)) for album in albums[-2:]] == [
        ("Pumpkin Farm", AlbumKind.SHARED, 3),
        ("Raw", AlbumKind.PROJECT, 4),
    ]
    assert {album.kind for album in albums[:-2]} == {AlbumKind.ALBUM}
    assert albums[-1].folders == ()


def test_shared_albums_that_are_shares_are_read_as_osxphotos_reads_them(library: Path) -> None:
    """As of Photos 11 (macOS 26). No such library is at hand: this one gets the tables that osxphotos looks for."""
    share = "Z_PK, Z_ENT, ZUUID, ZTITLE, ZTRASHEDSTATE, ZCUSTOMSORTKEY, ZCUSTOMSORTASCENDING"
    edit_database(
        library,
        "ALTER TABLE ZASSET ADD COLUMN ZCOLLECTIONSHARE INTEGER",
        "ALTER TABLE ZSHARE ADD COLUMN ZCUSTOMSORTKEY INTEGER",
        "ALTER TABLE ZSHARE ADD COLUMN ZCUSTOMSORTASCENDING INTEGER",
        "ALTER TABLE ZSHAREPARTICIPANT ADD COLUMN ZHASHEDPERSONID VARCHAR",
        "INSERT INTO Z_PRIMARYKEY (Z_ENT, Z_NAME, Z_SUPER, Z_MAX) VALUES (99, 'CollectionShare', 61, 0)",
        f"INSERT INTO ZSHARE ({share}) VALUES (901, 99, 'SHARE-1', 'Summer', 0, 0, 0)",
        f"INSERT INTO ZSHARE ({share}) VALUES (902, 99, 'SHARE-2', 'By title', NULL, 5, 1)",
        f"INSERT INTO ZSHARE ({share}) VALUES (903, 99, 'SHARE-3', 'Thrown away', 1, 0, 0)",
        f"INSERT INTO ZSHARE ({share}) VALUES (904, 63, 'SHARE-4', 'Of another kind', 0, 0, 0)",
        "UPDATE ZASSET SET ZCOLLECTIONSHARE = 901 + Z_PK % 4, ZCLOUDBATCHPUBLISHDATE = 100 - Z_PK WHERE ZHIDDEN = 0",
        "UPDATE ZASSET SET ZKIND = 1 WHERE ZCOLLECTIONSHARE = 901",
        "UPDATE ZINTERNALRESOURCE SET ZDATASTORESUBTYPE = 8, ZLOCALAVAILABILITY = -1 WHERE Z_PK % 3 = 0",
    )
    assert_same(library)
    with opened(from_tables(library)) as database:
        shared = [album for album in database.albums() if album.kind is AlbumKind.SHARED]
    assert [(album.title, bool(album.uuids)) for album in shared] == [("By title", True), ("Summer", True)]


# ── the moment of which a library is read ─────────────────────────────────────────────────────────────────────────


async def test_a_library_that_lies_still_is_read_where_it_is_and_nothing_is_written(
    library: Path, temporary: Path
) -> None:
    before = tree_state(library)
    source = PhotosLibrary(library)
    await source.open()
    assert [photo.id for photo in await source.photos(PUMPKIN_FARM)]
    copies = _copies(temporary)
    database = source._open().database
    assert isinstance(database, LibraryTables)
    assert copies == ([] if database._snapshot.in_place else [database._snapshot.database])
    await source.close()
    assert tree_state(library) == before
    assert not os.listdir(temporary)


def _copies(temporary: Path) -> list[Path]:
    return [path for path in temporary.rglob("*") if path.name.startswith("Photos.sqlite")]


@pytest.fixture
def no_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that cannot clone."""
    monkeypatch.setattr(photos_snapshot, "clone_file", lambda *_: False)
    monkeypatch.setattr(photos_bundle, "clone_file", lambda *_: False)


@pytest.mark.usefixtures("no_clones")
async def test_what_photos_saves_while_its_database_is_read_is_for_the_next_time(library: Path) -> None:
    source = PhotosLibrary(library)
    await source.open()
    with photos_at_work(library):
        assert len(await source.photos(PUMPKIN_FARM)) == 3
        database = source._open().database
        assert isinstance(database, LibraryTables)
        assert database._snapshot.in_place
    await source.close()


@pytest.mark.usefixtures("no_clones")
async def test_a_database_that_is_written_while_it_is_read_is_copied_and_asked_again(
    library: Path, temporary: Path
) -> None:
    source = PhotosLibrary(library)
    await source.open()
    edit_database(library, f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = 'Another' WHERE {_EXTRA}")
    photos = await source.photos(PUMPKIN_FARM)
    known = FINGERPRINTS[TEST_LIBRARY]
    assert [photo.id for photo in photos if photo.fingerprint != known[photo.original_filename]] == [PUMPKINS1]
    [changed] = [photo for photo in photos if photo.id == PUMPKINS1]
    fetched = await source.fetch(changed, NOWHERE)
    assert fetched.metadata is not None
    assert fetched.metadata.title == "Another"
    assert _copies(temporary)
    edit_database(library, f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = 'A third' WHERE {_EXTRA}")
    assert await source.photos(PUMPKIN_FARM) == photos
    await source.close()
    assert not os.listdir(temporary)


@pytest.mark.usefixtures("no_clones")
async def test_what_is_in_the_log_by_then_is_copied_too(library: Path) -> None:
    source = PhotosLibrary(library)
    await source.open()
    edit_database(library)
    os.utime(library / "database" / "Photos.sqlite")
    with photos_at_work(library) as photos_app:
        photos_app.execute(f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = 'Only logged' WHERE {_EXTRA}")
        photos_app.commit()
        before = tree_state(library)
        [photo] = [photo for photo in await source.photos(PUMPKIN_FARM) if photo.id == PUMPKINS1]
        metadata = (await source.fetch(photo, NOWHERE)).metadata
        assert tree_state(library) == before
    assert metadata is not None
    assert metadata.title == "Only logged"
    await source.close()


@pytest.mark.usefixtures("no_clones")
async def test_rows_read_before_a_change_was_seen_are_not_believed(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, seen = photos_records.read_records, 0

    def change_meanwhile(connection: Any, schema: Any, names: Any, uuids: Any) -> Any:
        nonlocal seen
        records = read(connection, schema, names, uuids)
        if PUMPKINS1 in records:
            seen += 1
        if seen == 1 and PUMPKINS1 in records:
            edit_database(library, f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = 'Meanwhile' WHERE {_EXTRA}")
        return records

    source = PhotosLibrary(library)
    await source.open()
    monkeypatch.setattr(photos_tables, "read_records", change_meanwhile)
    [photo] = [photo for photo in await source.photos(PUMPKIN_FARM) if photo.id == PUMPKINS1]
    fetched = await source.fetch(photo, NOWHERE)
    assert fetched.metadata is not None
    assert (fetched.metadata.title, seen) == ("Meanwhile", 2)
    await source.close()


@pytest.mark.usefixtures("no_clones")
async def test_a_database_that_goes_while_it_is_read_stops_the_run_with_a_sentence(library: Path) -> None:
    source = PhotosLibrary(library)
    await source.open()
    [photo, *_] = await source.photos(PUMPKIN_FARM)
    (library / "database" / "Photos.sqlite").rename(library / "database" / "elsewhere")
    with pytest.raises(LibraryError, match="it cannot be read"):
        await source.photos_of(["another"])
    with pytest.raises(SourceStopped, match="it cannot be read"):
        await source.fetch(photo.__class__("another", "another.jpg"), NOWHERE)
    await source.close()


@pytest.mark.usefixtures("no_clones")
async def test_a_library_that_is_changed_while_it_is_opened_is_opened_as_it_is_then(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, times = photos_albums.read_albums, 0

    def change_meanwhile(connection: Any, schema: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            edit_database(library, "UPDATE ZGENERICALBUM SET ZTITLE = 'Meanwhile' WHERE ZTITLE = 'Raw'")
            raise sqlite3.DatabaseError("database disk image is malformed")
        return read(connection, schema)

    monkeypatch.setattr(photos_tables, "read_albums", change_meanwhile)
    source = PhotosLibrary(library)
    await source.open()
    assert "Meanwhile" in [album.title for album in await source.albums()]
    await source.close()


@pytest.mark.usefixtures("no_clones")
async def test_a_database_that_was_written_just_now_is_copied(library: Path, temporary: Path) -> None:
    """On a file system whose times have steps of seconds a further change would not show."""
    os.utime(library / "database" / "Photos.sqlite")
    source = PhotosLibrary(library)
    await source.open()
    assert _copies(temporary)
    await source.close()


async def test_a_clone_is_read_as_a_copy_is(library: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def clone(source: Path, target: Path) -> bool:
        shutil.copyfile(source, target)
        return True

    monkeypatch.setattr(photos_snapshot, "clone_file", clone)
    monkeypatch.setattr(photos_bundle, "clone_file", clone)
    source = PhotosLibrary(library)
    await source.open()
    assert _copies(temporary)
    edit_database(library, f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = 'Another' WHERE {_EXTRA}")
    [photo] = [photo for photo in await source.photos(PUMPKIN_FARM) if photo.id == PUMPKINS1]
    metadata = (await source.fetch(photo, NOWHERE)).metadata
    assert metadata is not None
    assert metadata.title == "Can we carry this?"
    await source.close()
    assert not os.listdir(temporary)


def test_a_clone_is_the_same_file_or_none(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"photo" * 10_000)
    if clone_file(source, target):
        assert target.read_bytes() == source.read_bytes()
        target.write_bytes(b"changed")
        assert source.read_bytes() == b"photo" * 10_000
    else:
        assert not target.exists()
    target.write_bytes(b"in the way")
    assert not clone_file(source, target)
    assert target.read_bytes() == b"in the way"
    assert not clone_file(tmp_path / "nothing", tmp_path / "other")
    assert not (tmp_path / "other").exists()


# ── a database that these statements do not fit ───────────────────────────────────────────────────────────────────


async def test_a_library_of_another_schema_is_read_through_osxphotos_alone(
    library: Path, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit_database(library, "ALTER TABLE ZGENERICALBUM RENAME COLUMN Z_FOK_PARENTFOLDER TO ZPLACE")
    source = PhotosLibrary(library)
    with caplog.at_level(logging.DEBUG, photos_database.__name__):
        await source.open()
    assert any("through osxphotos alone" in record.getMessage() for record in caplog.records)
    assert {record.levelno for record in caplog.records if record.name.startswith("skicyclerun")} == {logging.DEBUG}
    assert isinstance(source._open().database, WholeLibrary)
    assert len(await source.albums()) == 9
    assert [photo.fingerprint for photo in await source.photos(PUMPKIN_FARM)]
    await source.close()
    assert not os.listdir(temporary)


async def test_where_osxphotos_names_tables_otherwise_it_reads_the_library_itself(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise SchemaUnknown("Photos 99")

    monkeypatch.setattr(photos_tables, "read_schema", unknown)
    source = PhotosLibrary(library)
    await source.open()
    assert isinstance(source._open().database, WholeLibrary)
    assert len(await source.albums()) == 9
    await source.close()


# ── what photos are chosen by ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("real", [TEST_LIBRARY, PHOTOS_4_LIBRARY], ids=lambda real: real.stem)
async def test_what_is_known_of_all_photos(real: Path) -> None:
    source = PhotosLibrary(real)
    assert isinstance(source, KnowsPhotos)
    await source.open()
    facts = await source.facts()
    dates = [each.date for each in facts if each.date is not None]
    assert dates == sorted(dates)
    [pumpkins] = [each for each in facts if each.original_filename == "Pumkins1.jpg"]
    assert (pumpkins.media, pumpkins.keywords, pumpkins.persons) == (MediaKind.PHOTO, ("Kids",), ("Katie", "Suzy"))
    assert pumpkins.date is not None
    assert pumpkins.date.isoformat() == "2018-09-28T15:35:49.063000-04:00"
    assert pumpkins.offset_known
    assert (pumpkins.width, pumpkins.height, pumpkins.shown, pumpkins.favorite) == (2048, 1365, True, False)
    titles = {album.id: album.title for album in await source.albums()}
    assert {titles[album] for album in pumpkins.albums} >= {"Pumpkin Farm"}
    assert await source.facts(lambda each: "Maria" in each.persons and not each.in_trash)
    in_no_album = [each for each in facts if not each.albums]
    photos = await source.photos_of([each.id for each in reversed(in_no_album)])
    stills = [photo for photo in photos if photo.component is not photo.component.LIVE_MOVIE]
    assert [photo.id for photo in stills] == [each.id for each in reversed(in_no_album)]
    assert all(photo.fingerprint for photo in stills)
    places = await source.places(each.id for each in facts)
    assert any(place.country == "United Kingdom" and place.country_code == "GB" for place in places.values())
    faces = await source.faces(pumpkins.id)
    assert [face.name for face in faces] == ["Suzy", "Katie"]
    assert await source.faces("no such photo") == ()
    await source.close()


async def test_what_the_choice_raises_comes_out(pristine: Path) -> None:
    def refuse(_facts: PhotoFacts) -> bool:
        raise ZeroDivisionError

    source = PhotosLibrary(pristine)
    await source.open()
    with pytest.raises(ZeroDivisionError):
        await source.facts(refuse)
    await source.close()


@pytest.mark.parametrize("real", REAL)
def test_faces_are_where_osxphotos_draws_them(real: Path) -> None:
    """It gives areas of the picture as stored, which is as displayed where nothing has to be turned."""
    with opened(as_a_whole(real)) as whole:
        assert isinstance(whole, WholeLibrary)
        compared = 0
        for facts in whole.facts({}, lambda _: True):
            asset = whole._photosdb.get_photo(facts.id)
            if asset.orientation != 1:
                continue
            faces = {(face.name, round(face.x, 6)): face for face in whole.faces(facts.id)}
            for drawn in asset.face_info:
                face: Face = faces[drawn.name or "", round(drawn.center_x, 6)]
                area = drawn.mwg_rs_area
                assert (face.x, face.y, face.width, face.height) == pytest.approx((area.x, area.y, area.w, area.h))
                compared += 1
        assert compared >= 5 or real is MEDIA_TYPES_LIBRARY


@pytest.mark.parametrize("real", REAL)
def test_places_are_those_that_osxphotos_reads(real: Path) -> None:
    with opened(as_a_whole(real)) as whole:
        assert isinstance(whole, WholeLibrary)
        ids = [facts.id for facts in whole.facts({}, lambda _: True)]
        places = whole.places(ids)
        for uuid in ids:
            theirs = whole._photosdb.get_photo(uuid).place
            if theirs is None:
                assert uuid not in places
                continue
            place, names = places[uuid], theirs.names
            assert place.name == (theirs.name or "")
            assert place.country_code == theirs.country_code
            for ours, found in (
                (place.country, names.country),
                (place.state, names.state_province),
                (place.city, names.city),
            ):
                assert ours == found[0] if found else True
        assert places


@given(st.binary(max_size=200))
def test_any_bytes_are_a_place_or_none(blob: bytes) -> None:
    assert place_of(blob) is None or isinstance(place_of(blob), Place)
    assert place_of(b"bplist00" + blob) is None or isinstance(place_of(b"bplist00" + blob), Place)


async def test_a_library_with_nonsense_in_its_rows_still_says_what_photos_it_has(library: Path) -> None:
    edit_database(
        library,
        "UPDATE ZASSET SET ZDATECREATED = 'yesterday', ZWIDTH = 'wide', ZHEIGHT = -3, ZAVALANCHEPICKTYPE = 'x'",
        "UPDATE ZASSET SET ZLATITUDE = 'north', ZDIRECTORY = x'00ff', ZKIND = 'odd', ZADJUSTMENTSSTATE = 'y'",
        "UPDATE ZASSET SET ZADJUSTMENTTIMESTAMP = 1e300, ZSAVEDASSETTYPE = x'00', ZFAVORITE = 'z'",
        "UPDATE ZADDITIONALASSETATTRIBUTES SET ZTIMEZONEOFFSET = 'noon', ZORIGINALFILENAME = x'00ff', ZTITLE = x'ff'",
        f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZTIMEZONEOFFSET = 999999999999999999 WHERE {_EXTRA}",
        f"UPDATE ZASSET SET ZDATECREATED = 5e8 WHERE {_PHOTO}",
        "UPDATE ZKEYWORD SET ZTITLE = CAST(x'ff00' || Z_PK AS BLOB)",
        "UPDATE ZPERSON SET ZFULLNAME = x'ff00'",
        "UPDATE ZDETECTEDFACE SET ZCENTERX = 'left', ZSIZE = 'large'",
        "UPDATE ZADDITIONALASSETATTRIBUTES SET ZREVERSELOCATIONDATA = x'62706c697374303000'",
    )
    source = PhotosLibrary(library)
    await source.open()
    assert isinstance(source._open().database, LibraryTables)
    facts = await source.facts()
    assert len(facts) == 16
    assert all((each.date is None or each.id == PUMPKINS1) and (each.width, each.height) == (0, 0) for each in facts)
    assert await source.places(each.id for each in facts) == {}
    for each in facts:
        assert await source.faces(each.id) == ()
    photos = await source.photos_of([each.id for each in facts])
    assert {photo.id for photo in photos} == {each.id for each in facts}
    for photo in photos:
        with pytest.raises(PhotoError):
            await source.fetch(photo, NOWHERE)
    await source.close()


def test_a_photo_with_two_rows_of_attributes_is_listed_as_its_record_says(library: Path) -> None:
    edit_database(
        library,
        "INSERT INTO ZADDITIONALASSETATTRIBUTES (Z_PK, ZASSET, ZTITLE, ZORIGINALFILENAME)"
        f" SELECT 9000, ZASSET, 'Another', ZORIGINALFILENAME FROM ZADDITIONALASSETATTRIBUTES WHERE {_EXTRA}",
    )
    with opened(from_tables(library)) as database:
        uuids = [uuid for album in database.albums() for uuid in album.uuids]
        assert PUMPKINS1 in uuids
        assert database.listing(uuids) == [listed(item) for item in database.items(uuids)]


async def test_photos_that_were_listed_together_are_read_together(
    pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing has no use for records, and `fetch` asks for one photo after the other."""
    read: list[int] = []

    def counted(connection: sqlite3.Connection, schema: Schema, names: Names, uuids: Sequence[str]) -> Any:
        read.append(len(uuids))
        return read_records(connection, schema, names, uuids)

    with opened(from_tables(pristine)) as database:
        monkeypatch.setattr("skicyclerun.sources.photos_tables.read_records", counted)
        [album] = [album for album in database.albums() if album.id == PUMPKIN_FARM]
        assert [each.uuid for each in database.listing(album.uuids)] == list(album.uuids)
        assert read == [], "a listing tells what it tells without records"
        for uuid in album.uuids:
            assert [item.asset.uuid for item in database.items((uuid,))] == [uuid]
        assert read == [len(album.uuids)]


async def test_a_title_that_is_no_text_fails_nothing(library: Path) -> None:
    edit_database(library, f"UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = CAST(x'41ff' AS TEXT) WHERE {_EXTRA}")
    source = PhotosLibrary(library)
    await source.open()
    [photo] = [photo for photo in await source.photos(PUMPKIN_FARM) if photo.id == PUMPKINS1]
    metadata = (await source.fetch(photo, NOWHERE)).metadata
    assert metadata is not None
    assert metadata.title == "A\N{REPLACEMENT CHARACTER}"
    await source.close()
