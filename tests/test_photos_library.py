"""The Photos library source, on copies of the real libraries that are edited for each case."""

from __future__ import annotations

import gc
import math
import os
import plistlib
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skicyclerun.errors import LibraryError, OriginalMissing, PhotoUnreadable, SourceError, SourceStopped
from skicyclerun.images.render import RenderOptions, render_photo
from skicyclerun.models import Component, Fetched, Photo, Rendering
from skicyclerun.sources import photos_bundle, photos_database
from skicyclerun.sources.photos_asset import PhotosDatabase, altitude_and_heading
from skicyclerun.sources.photos_bundle import CopyFolder
from skicyclerun.sources.photos_database import Abandoned, LibraryLoader
from skicyclerun.sources.photos_library import Missing, PhotosLibrary, jpeg_size
from skicyclerun.sources.photos_snapshot import Snapshot
from tests.shared_libraries import (
    BETA_LIBRARY,
    MEDIA_TYPES_LIBRARY,
    PHOTOS_4_LIBRARY,
    TEST_LIBRARY,
    copy_library,
    edit_database,
    folder_for_everyone,
    needs_full_libraries,
    tree_state,
    without_root_powers,
)

NOWHERE = Path("attempt-directory-that-is-not-made")

WEDDING = "E9BC5C36-7CD1-40A1-A72B-8B8FAC227D51"  # edited, a favourite, keywords, Maria
PUMPKINS1 = "F12384F6-CD17-4151-ACBA-AE0E3688539E"  # title, description, keywords, Katie and Suzy
PARIS = "3DD2C897-F19E-4CA6-8C22-B027D5A71907"  # a position, in Adelaide's time
LIVE = "D562F353-7A22-4367-9A7F-153A4D9F149C"  # a Live Photo with its movie
LIVE_EDITED = "B60C31AC-BE86-42C5-A383-A0A5710B18AE"  # a Live Photo, edited, both halves rendered
LIVE_STILL_ONLY = "CDFC3B62-EDFD-4A49-A80F-00BB7822D0E8"  # a Live Photo without its movie
VIDEO = "420451DF-5299-41C1-8B71-83E1598D6F5C"
SLOW_MOTION = "3715655F-9437-4B8E-ADE5-515CD1FD0343"  # its original is absent too
BURST_OTHER = "7B85B835-AB73-46B1-8840-6BA63FB2D9DD"  # of a burst, not picked

BURST_ALBUM = "2981F7B4-2F1F-44AC-A088-E75FAE6C2DC1"  # in Test-Media-Types
PUMPKIN_FARM = "0C514A98-7B77-4E4F-801B-364B7B65EAFA"  # in Test-15.4.1, sorted by hand
TWIN = "EA8E27F6-2A49-44B0-BC77-2A2BC23C21BF"
RAW = "68001ACE-DE4E-46B7-A3F8-3B2D03D39D59"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pristine")
    copies = {"test": copy_library(TEST_LIBRARY, folder), "media": copy_library(MEDIA_TYPES_LIBRARY, folder)}
    for library in copies.values():
        edit_database(library)  # checkpoints
    return copies


def _copy(pristine: Path, to: Path) -> Path:
    """A copy whose database is its own and whose pictures are hard links."""
    library = to / pristine.name
    shutil.copytree(pristine / "database", library / "database")
    for part in ("originals", "resources"):
        shutil.copytree(pristine / part, library / part, copy_function=os.link)
    return library


@pytest.fixture
def library(pristine: dict[str, Path], tmp_path: Path) -> Path:
    return _copy(pristine["test"], tmp_path)


@pytest.fixture
def media(pristine: dict[str, Path], tmp_path: Path) -> Path:
    return _copy(pristine["media"], tmp_path)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go in this test."""
    import osxphotos.photosdb  # noqa: F401  # makes one of its own at import, for as long as the process lives

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def osxphotos_fails() -> Iterator[None]:
    """Where osxphotos stops half-way it leaves a connection open, of which Python 3.13 warns when it is collected."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@contextmanager
def photos_at_work(library: Path) -> Iterator[sqlite3.Connection]:
    """Photos has the library open, and what it saved last is in the write-ahead log."""
    with closing(sqlite3.connect(library / "database" / "Photos.sqlite")) as photos_app:
        photos_app.execute("PRAGMA journal_mode = WAL")
        photos_app.execute("PRAGMA wal_autocheckpoint = 0")
        photos_app.execute(
            "UPDATE ZGENERICALBUM SET ZTITLE = 'Just renamed' WHERE ZTITLE = 'Pumpkin Farm' AND ZKIND = 2"
        )
        photos_app.commit()
        yield photos_app


def put_in_album(library: Path, album: str, *uuids: str) -> None:
    edit_database(
        library,
        *(
            "INSERT INTO Z_30ASSETS (Z_30ALBUMS, Z_3ASSETS, Z_FOK_3ASSETS)"
            f" SELECT album.Z_PK, asset.Z_PK, {9000 + at} FROM ZGENERICALBUM AS album, ZASSET AS asset"
            f" WHERE album.ZUUID = '{album}' AND asset.ZUUID = '{uuid}'"
            for at, uuid in enumerate(uuids)
        ),
    )


async def photos_of(library: Path, album: str) -> list[Photo]:
    source = PhotosLibrary(library)
    await source.open()
    try:
        return await source.photos(album)
    finally:
        await source.close()


async def fetch(library: Path, album: str, name: str, *, missing: Missing = "fail") -> Fetched:
    """Fetch the photo, or the Live Photo's movie, of that original file name."""
    source = PhotosLibrary(library, missing=missing)
    await source.open()
    try:
        [photo] = [photo for photo in await source.photos(album) if photo.original_filename == name]
        return await source.fetch(photo, NOWHERE)
    finally:
        await source.close()


def render(library: Path, uuid: str, ending: str) -> Path:
    return library / "resources" / "renders" / uuid[0] / f"{uuid}{ending}"


# ── what an album holds ───────────────────────────────────────────────────────────────────────────────────────────


async def test_hidden_and_trashed_photos_are_not_in_an_album(library: Path) -> None:
    assert len(await photos_of(library, PUMPKIN_FARM)) == 3
    edit_database(library, f"UPDATE ZASSET SET ZHIDDEN = 1 WHERE ZUUID = '{PUMPKINS1}'")
    assert len(await photos_of(library, PUMPKIN_FARM)) == 2
    edit_database(library, "UPDATE ZASSET SET ZTRASHEDSTATE = 1 WHERE ZUUID LIKE 'D79B8D77%'")
    [photo] = await photos_of(library, PUMPKIN_FARM)
    assert photo.original_filename == "Pumpkins3.jpg"


async def test_trashed_albums_and_those_that_are_not_the_persons_own_are_not_listed(library: Path) -> None:
    async def titles() -> list[str]:
        source = PhotosLibrary(library)
        await source.open()
        albums = await source.albums()
        await source.close()
        return [album.title for album in albums]

    assert len(await titles()) == 9
    edit_database(library, "UPDATE ZGENERICALBUM SET ZTRASHEDSTATE = 1 WHERE ZTITLE = 'EmptyAlbum'")
    edit_database(library, "UPDATE ZGENERICALBUM SET ZKIND = 1507 WHERE ZTITLE = 'Raw'")
    assert set(await titles()).isdisjoint({"EmptyAlbum", "Raw", "progress-sync", "Folder1", None})


async def test_a_library_without_albums_is_an_empty_list(library: Path) -> None:
    edit_database(library, "DELETE FROM ZGENERICALBUM WHERE ZKIND = 2")
    source = PhotosLibrary(library)
    await source.open()
    assert await source.albums() == []
    await source.close()


async def test_photos_come_in_the_albums_own_order(library: Path) -> None:
    names = [photo.original_filename for photo in await photos_of(library, PUMPKIN_FARM)]
    assert names == ["Pumpkins3.jpg", "Pumkins1.jpg", "Pumkins2.jpg"]  # by hand
    edit_database(
        library, f"UPDATE ZGENERICALBUM SET ZCUSTOMSORTKEY = 1, ZCUSTOMSORTASCENDING = 1 WHERE ZUUID = '{PUMPKIN_FARM}'"
    )
    names = [photo.original_filename for photo in await photos_of(library, PUMPKIN_FARM)]
    assert names == ["Pumkins1.jpg", "Pumkins2.jpg", "Pumpkins3.jpg"]  # oldest first


async def test_of_a_burst_only_the_key_photo_and_the_picked_ones_are_there(media: Path) -> None:
    put_in_album(media, BURST_ALBUM, BURST_OTHER, "79D1A1A5-B1EA-41D1-83B1-C71F001E6D49")
    names = [photo.original_filename for photo in await photos_of(media, BURST_ALBUM)]
    assert names == ["IMG_0658.JPG", "IMG_0667.JPG"]  # the key photo and the picked one; IMG_0675 is neither


# ── which version ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_unedited_photo_gives_its_original(library: Path) -> None:
    fetched = await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")
    assert fetched.path == library / "originals" / "F" / f"{PUMPKINS1}.jpeg"
    assert fetched.rendering is Rendering.ORIGINAL
    assert fetched.note == ""


async def test_an_edited_photo_gives_its_edit_also_when_the_original_is_absent(library: Path) -> None:
    (library / "originals" / "E" / f"{WEDDING}.jpeg").unlink()
    edit_database(library, "UPDATE ZINTERNALRESOURCE SET ZLOCALAVAILABILITY = -1")
    fetched = await fetch(library, TWIN, "wedding.jpg")
    assert fetched.path == render(library, WEDDING, "_1_201_a.jpeg")
    assert fetched.rendering is Rendering.EDITED


async def test_an_edit_is_found_under_another_extension(library: Path) -> None:
    render(library, WEDDING, "_1_201_a.jpeg").rename(render(library, WEDDING, "_1_201_a.heic"))
    fetched = await fetch(library, TWIN, "wedding.jpg")
    assert fetched.path.suffix == ".heic"
    assert fetched.rendering is Rendering.EDITED


async def test_an_edited_photo_whose_edit_is_absent_does_not_give_the_original(library: Path) -> None:
    render(library, WEDDING, "_1_201_a.jpeg").unlink()
    with pytest.raises(OriginalMissing, match=r"wedding\.jpg has no edited version here \(iCloud\)"):
        await fetch(library, TWIN, "wedding.jpg")
    # A rendering of the edit will do, one of the original will not, however large.
    derivatives = library / "resources" / "derivatives" / "E"
    Image.new("RGB", (5000, 4000)).save(derivatives / f"{WEDDING}_1_100_o.jpeg")
    fetched = await fetch(library, TWIN, "wedding.jpg", missing="preview")
    assert fetched.path == derivatives / f"{WEDDING}_1_105_c.jpeg"
    assert fetched.rendering is Rendering.PREVIEW


@pytest.mark.parametrize("missing", ["fail", "skip"])
async def test_absent_originals_are_said_whatever_the_database_believes(library: Path, missing: Missing) -> None:
    with pytest.raises(OriginalMissing, match=r"^DSC03584\.dng has no original here \(iCloud\)$"):
        await fetch(library, RAW, "DSC03584.dng", missing=missing)  # the database says that it is there
    with pytest.raises(OriginalMissing, match=r"^IMG_2000\.JPG has no original here \(the library refers to a file"):
        await fetch(library, RAW, "IMG_2000.JPG", missing=missing)


async def test_instead_of_an_absent_original_the_largest_rendering_is_given(library: Path) -> None:
    fetched = await fetch(library, RAW, "DSC03584.dng", missing="preview")
    assert fetched.path.name.endswith("_1_100_o.jpeg")
    assert fetched.rendering is Rendering.PREVIEW
    with Image.open(fetched.path) as picture:
        assert fetched.note == f"preview {picture.width}\N{MULTIPLICATION SIGN}{picture.height}"
    assert fetched.metadata is not None
    assert fetched.metadata.description == "RAW only"


async def test_without_any_rendering_an_absent_original_stays_absent(library: Path) -> None:
    shutil.rmtree(library / "resources" / "derivatives")
    with pytest.raises(OriginalMissing, match="has no original here"):
        await fetch(library, RAW, "DSC03584.dng", missing="preview")


async def test_of_a_raw_and_a_jpeg_the_jpeg_is_given(library: Path) -> None:
    fetched = await fetch(library, RAW, "IMG_1994.JPG")
    assert fetched.path.suffix == ".jpeg"


async def test_videos_and_live_photos_give_their_movies(media: Path) -> None:
    put_in_album(media, BURST_ALBUM, LIVE, LIVE_EDITED, LIVE_STILL_ONLY, VIDEO)
    photos = await photos_of(media, BURST_ALBUM)
    by_name = {photo.original_filename: photo.component for photo in photos}
    assert by_name == {
        "IMG_0658.JPG": Component.STILL,
        "IMG_4580.HEIC": Component.STILL,
        "IMG_4580.mov": Component.LIVE_MOVIE,
        "IMG_4394.HEIC": Component.STILL,
        "IMG_4394.mov": Component.LIVE_MOVIE,
        "IMG_4076.HEIC": Component.STILL,
        "IMG_4076.mov": Component.LIVE_MOVIE,
        "IMG_3539.MOV": Component.VIDEO,
    }
    assert (await fetch(media, BURST_ALBUM, "IMG_3539.MOV")).path.name == f"{VIDEO}.mov"
    movie = await fetch(media, BURST_ALBUM, "IMG_4580.mov")
    assert (movie.path.name, movie.rendering) == (f"{LIVE}_3.mov", Rendering.ORIGINAL)
    edited = await fetch(media, BURST_ALBUM, "IMG_4394.mov")
    assert (edited.path.name, edited.rendering) == (f"{LIVE_EDITED}_2_100_a.mov", Rendering.EDITED)
    still = await fetch(media, BURST_ALBUM, "IMG_4394.HEIC")
    assert (still.path.name, still.rendering) == (f"{LIVE_EDITED}_1_201_a.heic", Rendering.EDITED)
    with pytest.raises(OriginalMissing, match=r"IMG_4076\.mov has no Live Photo movie here"):
        await fetch(media, BURST_ALBUM, "IMG_4076.mov")


async def test_a_slow_motion_video_gives_its_original_because_photos_renders_none(media: Path) -> None:
    put_in_album(media, BURST_ALBUM, SLOW_MOTION)
    with pytest.raises(OriginalMissing, match="has no original here"):
        await fetch(media, BURST_ALBUM, "IMG_0905.MOV")
    original = media / "originals" / "3" / f"{SLOW_MOTION}.mov"
    original.parent.mkdir(exist_ok=True)
    original.write_bytes(b"movie")
    fetched = await fetch(media, BURST_ALBUM, "IMG_0905.MOV")
    assert (fetched.path, fetched.rendering) == (original, Rendering.ORIGINAL)


# ── what the library knows ────────────────────────────────────────────────────────────────────────────────────────


async def test_what_photos_knows_comes_along(library: Path) -> None:
    metadata = (await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")).metadata
    assert metadata is not None
    assert metadata.title == "Can we carry this?"
    assert metadata.description == "Girls with pumpkins"
    assert metadata.keywords == ("Kids",)
    assert metadata.persons == ("Katie", "Suzy")
    assert metadata.rating is None
    assert metadata.date is not None
    assert metadata.date.isoformat() == "2018-09-28T15:35:49.063000-04:00"
    assert metadata.location is None
    assert metadata.location_known
    wedding = (await fetch(library, TWIN, "wedding.jpg")).metadata
    assert wedding is not None
    assert wedding.rating == 5
    assert wedding.title is None


async def test_a_position_comes_with_its_altitude_and_one_that_was_removed_is_known_to_be_none(library: Path) -> None:
    album = "3ABA0FAD-470D-41D7-BDA9-C46D2662AC04"
    metadata = (await fetch(library, album, "IMG_4547.jpg")).metadata
    assert metadata is not None
    assert metadata.location is not None
    assert metadata.location.latitude == pytest.approx(-34.91889167)
    assert metadata.location.longitude == pytest.approx(138.59686167)
    assert metadata.location.altitude == pytest.approx(61.0)
    assert metadata.location.heading is None
    assert metadata.date is not None
    assert metadata.date.utcoffset() == timedelta(hours=9, minutes=30)
    edit_database(library, f"UPDATE ZASSET SET ZLATITUDE = -180, ZLONGITUDE = -180 WHERE ZUUID = '{PARIS}'")
    metadata = (await fetch(library, album, "IMG_4547.jpg")).metadata
    assert metadata is not None
    assert metadata.location is None
    assert metadata.location_known


async def test_a_heading_comes_along(media: Path) -> None:
    put_in_album(media, BURST_ALBUM, LIVE_STILL_ONLY)
    metadata = (await fetch(media, BURST_ALBUM, "IMG_4076.HEIC")).metadata
    assert metadata is not None
    assert metadata.location is not None
    assert metadata.location.heading == pytest.approx(291.9436796)
    assert metadata.location.altitude == pytest.approx(1120.574013)


async def test_a_position_that_is_none_on_earth_is_left_out(library: Path) -> None:
    edit_database(library, f"UPDATE ZASSET SET ZLATITUDE = 91.5, ZLONGITUDE = 9e99 WHERE ZUUID = '{PARIS}'")
    metadata = (await fetch(library, "3ABA0FAD-470D-41D7-BDA9-C46D2662AC04", "IMG_4547.jpg")).metadata
    assert metadata is not None
    assert metadata.location is None


async def test_without_a_time_zone_the_inferred_one_counts_and_without_either_the_file_keeps_its_date(
    library: Path,
) -> None:
    owner = f"WHERE ZASSET = (SELECT Z_PK FROM ZASSET WHERE ZUUID = '{PUMPKINS1}')"
    table = "ZADDITIONALASSETATTRIBUTES"
    edit_database(library, f"UPDATE {table} SET ZTIMEZONEOFFSET = NULL, ZINFERREDTIMEZONEOFFSET = 7200 {owner}")
    metadata = (await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")).metadata
    assert metadata is not None
    assert metadata.date is not None
    assert metadata.date.isoformat() == "2018-09-28T21:35:49.063000+02:00"
    edit_database(library, f"UPDATE {table} SET ZINFERREDTIMEZONEOFFSET = NULL {owner}")
    metadata = (await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")).metadata
    assert metadata is not None
    assert metadata.date is None


async def test_faces_without_a_name_are_no_persons(library: Path) -> None:
    edit_database(library, "UPDATE ZPERSON SET ZFULLNAME = '' WHERE ZFULLNAME = 'Suzy'")
    metadata = (await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")).metadata
    assert metadata is not None
    assert metadata.persons == ("Katie",)
    assert {face.name for face in metadata.faces} == {"Katie", ""}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ZDETECTEDFACE SET ZCENTERX = 'here'",
        "UPDATE ZDETECTEDFACE SET ZSIZE = 1e999",
        "UPDATE ZDETECTEDFACE SET ZCENTERY = x'00'",
    ],
)
async def test_faces_that_are_nowhere_do_not_fail_a_photo(library: Path, change: str, tmp_path: Path) -> None:
    edit_database(library, change)
    fetched = await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")
    facts = render_photo(fetched, Component.STILL, tmp_path / "out.jpg", RenderOptions())
    assert facts.persons == ("Katie", "Suzy")
    assert all(math.isfinite(side) for face in facts.faces for side in (face.x, face.y, face.width, face.height))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ZASSET SET ZFAVORITE = 1",
        "UPDATE ZASSET SET ZDATECREATED = ZDATECREATED + 60",
        "UPDATE ZASSET SET ZLATITUDE = 1, ZLONGITUDE = 2",
        "UPDATE ZASSET SET ZADJUSTMENTSSTATE = 1, ZADJUSTMENTTIMESTAMP = 700000000",
        "UPDATE ZADDITIONALASSETATTRIBUTES SET ZTITLE = 'another'",
        "UPDATE ZASSETDESCRIPTION SET ZLONGDESCRIPTION = 'another'",
        "UPDATE ZADDITIONALASSETATTRIBUTES SET ZORIGINALFILESIZE = 1",
        "UPDATE ZKEYWORD SET ZTITLE = ZTITLE || '!'",
        "UPDATE ZPERSON SET ZFULLNAME = ZFULLNAME || '!'",
    ],
)
async def test_the_fingerprint_changes_with_what_fetch_gives(library: Path, change: str) -> None:
    before = {photo.id: photo.fingerprint for photo in await photos_of(library, PUMPKIN_FARM)}
    edit_database(library, change)
    after = {photo.id: photo.fingerprint for photo in await photos_of(library, PUMPKIN_FARM)}
    assert before[PUMPKINS1] != after[PUMPKINS1]


async def test_the_fingerprint_is_the_same_in_every_process(library: Path) -> None:
    program = (
        "import anyio, sys; from pathlib import Path; from tests.test_photos_library import photos_of\n"
        "print([p.fingerprint for p in anyio.run(photos_of, Path(sys.argv[1]), sys.argv[2])])"
    )

    def elsewhere(seed: str, zone: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(library), PUMPKIN_FARM],
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    here = f"{[photo.fingerprint for photo in await photos_of(library, PUMPKIN_FARM)]}\n"
    assert elsewhere("1", "UTC") == elsewhere("2", "Asia/Tokyo") == here


# ── the library is only read ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_library_on_which_nothing_may_be_written_is_read_and_left_as_it_was(pristine: dict[str, Path]) -> None:
    import osxphotos.photosdb  # noqa: F401  # imported while this process may still read everything

    with folder_for_everyone() as folder:
        library = folder / "My.photoslibrary"
        shutil.copytree(pristine["test"], library)
        for directory, _, names in os.walk(library, topdown=False):
            for name in names:
                os.chmod(os.path.join(directory, name), 0o444)
            os.chmod(directory, 0o555)
        before = tree_state(library)
        with without_root_powers():
            source = PhotosLibrary(library)
            await source.open()
            for album in await source.albums():
                for photo in await source.photos(album.id):
                    if photo.original_filename not in ("DSC03584.dng", "IMG_2000.JPG"):
                        assert (await source.fetch(photo, NOWHERE)).path.stat().st_size
            await source.close()
        assert tree_state(library) == before


async def test_what_photos_has_not_checkpointed_yet_is_seen(library: Path) -> None:
    with photos_at_work(library) as photos_app:
        photos_app.execute("BEGIN IMMEDIATE")
        photos_app.execute("UPDATE ZGENERICALBUM SET ZTITLE = 'Not yet' WHERE ZTITLE = 'Just renamed'")
        before = tree_state(library)
        source = PhotosLibrary(library)
        await source.open()
        titles = [album.title for album in await source.albums()]
        await source.close()
        assert tree_state(library) == before
    assert "Just renamed" in titles
    assert "Not yet" not in titles


async def test_a_checkpoint_during_the_copy_makes_it_be_taken_again(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    copy = photos_bundle._copy

    def copy_and_checkpoint(source: Path, target: Path, check: Callable[..., None]) -> None:
        copy(source, target, check)
        copied.append(source.name)
        if len(copied) == 1:
            edit_database(library, "UPDATE ZGENERICALBUM SET ZTITLE = 'Renamed meanwhile' WHERE ZTITLE = 'Raw'")

    monkeypatch.setattr(photos_bundle, "_copy", copy_and_checkpoint)
    source = PhotosLibrary(library)
    with photos_at_work(library):
        await source.open()
        assert "Renamed meanwhile" in [album.title for album in await source.albums()]
        await source.close()
    assert copied.count("Photos.sqlite") == 2


async def test_a_library_that_never_rests_is_given_up_with_a_sentence(
    library: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(photos_bundle, "_moment", lambda *_: (next(ticks), 0, b""))
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with photos_at_work(library), pytest.raises(LibraryError, match="Photos is writing to it without a pause"):
        await PhotosLibrary(library).open()
    assert not os.listdir(temporary)


async def test_nothing_stays_in_the_temporary_folder(library: Path, temporary: Path) -> None:
    source = PhotosLibrary(library)
    await source.open()
    assert os.listdir(temporary)
    await source.close()
    assert not os.listdir(temporary)


def test_a_newer_photos_is_refused_with_its_version_and_osxphotos_says_nothing_itself(library: Path) -> None:
    with closing(sqlite3.connect(library / "database" / "Photos.sqlite")) as connection:
        [[blob]] = connection.execute("SELECT Z_PLIST FROM Z_METADATA").fetchall()
        facts = plistlib.loads(blob) | {"PLModelVersion": 99_999}
        connection.execute("UPDATE Z_METADATA SET Z_PLIST = ?", (plistlib.dumps(facts),))
        connection.commit()
    program = (
        "import anyio, sys; from pathlib import Path; from skicyclerun.sources.photos_library import PhotosLibrary\n"
        "try: anyio.run(PhotosLibrary(Path(sys.argv[1])).open)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(library)],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.startswith(f"LibraryError {library}: its database cannot be understood (model version 99999; ")
    assert (run.returncode, run.stderr) == (0, "")


async def test_cancelled_in_the_middle_of_opening_nothing_is_left_behind(
    library: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    check, run = photos_database._check_sqlite, LibraryLoader.run

    def stop_here(library: Path, snapshot: Snapshot) -> None:
        reached.set()
        go_on.wait()
        check(library, snapshot)

    def run_and_tell(loader: LibraryLoader[object]) -> object:
        try:
            return run(loader)
        finally:
            ended.set()

    monkeypatch.setattr(photos_database, "_check_sqlite", stop_here)
    monkeypatch.setattr(LibraryLoader, "run", run_and_tell)
    source = PhotosLibrary(library)
    async with anyio.create_task_group() as group:
        group.start_soon(source.open)
        await anyio.to_thread.run_sync(reached.wait)
        assert os.listdir(temporary)
        group.cancel_scope.cancel()
    go_on.set()
    await anyio.to_thread.run_sync(ended.wait)
    assert not os.listdir(temporary)
    await source.close()


def test_the_copy_of_a_process_that_was_killed_is_removed_by_the_next_and_one_in_use_is_kept(
    library: Path, temporary: Path
) -> None:
    program = (
        "import os, signal; from skicyclerun.sources.photos_bundle import CopyFolder\n"
        "kept = CopyFolder()\n"
        "print(kept.path, flush=True)\n"
        "if os.environ.get('KILL'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    for kill in ("1", ""):
        run = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, "TMPDIR": str(temporary), "KILL": kill},
            capture_output=True,
            text=True,
            check=False,
        )
        assert Path(run.stdout.strip()).exists() is bool(kill), run.stderr
        if kill:
            assert run.returncode < 0
            in_use = CopyFolder()  # removes what the killed one left
            assert os.listdir(temporary) == [in_use.path.name]
    assert in_use.path.exists()
    in_use.remove()
    in_use.remove()
    assert not os.listdir(temporary)


def test_folders_of_others_and_links_in_the_temporary_folder_are_left_alone(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "in-use").write_bytes(b"")
    (temporary / "skicyclerun-photos-link").symlink_to(tmp_path / "precious", target_is_directory=True)
    (temporary / "skicyclerun-photos-no-lock").mkdir()
    CopyFolder().remove()
    assert sorted(os.listdir(temporary)) == ["skicyclerun-photos-link", "skicyclerun-photos-no-lock"]
    assert os.listdir(tmp_path / "precious") == ["in-use"]


async def test_a_temporary_folder_that_is_not_there_is_said(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(library / "nowhere"))
    error = await refused(library)
    assert "no temporary folder" in str(error)
    assert "TMPDIR" in error.next_step


def test_a_library_that_is_abandoned_when_already_loaded_is_closed(library: Path, temporary: Path) -> None:
    loader: LibraryLoader[PhotosDatabase] = LibraryLoader(library, lambda database: database)
    loader.run()
    assert os.listdir(temporary)
    loader.abandon()
    assert not os.listdir(temporary)
    with pytest.raises(Abandoned):
        loader.run()
    assert not os.listdir(temporary)


# ── what is no library, and what is a hostile one ─────────────────────────────────────────────────────────────────


async def refused(library: Path) -> LibraryError:
    source = PhotosLibrary(library)
    with pytest.raises(LibraryError) as caught:
        await source.open()
    await source.close()
    return caught.value


async def test_what_is_no_library_is_said_with_what_to_do(tmp_path: Path, library: Path) -> None:
    (tmp_path / "file.photoslibrary").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name in ("foreign.photoslibrary/database/photos.db", "iPhoto Library/AlbumData.xml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    (tmp_path / "iPhoto Library" / "database").mkdir()
    (tmp_path / "iPhoto Library" / "database" / "photos.db").write_bytes(b"")
    cases = {
        tmp_path / "nothing.photoslibrary": "there is no such library",
        tmp_path / "file.photoslibrary": "that is a file",
        tmp_path / "empty": "that is no Photos library",
        tmp_path / "foreign.photoslibrary": "its database/photos.db is not a database of Photos",
        tmp_path / "iPhoto Library": "an iPhoto or Aperture library",
        library / "database" / "Photos.sqlite": "the database inside a library",
    }
    for path, problem in cases.items():
        error = await refused(path)
        assert str(error).startswith(f"{path}: ")
        with pytest.raises(LibraryError, match=problem):
            raise error
        assert error.next_step or "file" in path.name


@pytest.mark.parametrize(("version", "said"), [("2622", "2622"), (None, "unknown")])
async def test_a_library_of_photos_2_is_refused_by_name(tmp_path: Path, version: str | None, said: str) -> None:
    library = copy_library(PHOTOS_4_LIBRARY, tmp_path)
    edit_database(library, "DELETE FROM LiGlobals WHERE keyPath = 'libraryVersion'")
    if version is not None:
        edit_database(library, f"INSERT INTO LiGlobals (keyPath, value) VALUES ('libraryVersion', '{version}')")
    error = await refused(library)
    assert f"Photos 2 (macOS 10.12) or earlier (version {said})" in str(error)
    assert "later Photos" in error.next_step


async def test_a_library_of_photos_4_says_what_it_knows_and_hands_over_edits(tmp_path: Path) -> None:
    library = copy_library(PHOTOS_4_LIBRARY, tmp_path)
    edit_database(
        library,
        "INSERT INTO RKAlbumVersion (versionId, albumId) SELECT versions.modelId, albums.modelId"
        " FROM RKVersion AS versions, RKAlbum AS albums"
        " WHERE albums.name = 'Pumpkin Farm' AND versions.fileName IN ('St James Park.jpg', 'wedding.jpg')",
    )
    source = PhotosLibrary(library)
    await source.open()
    (album,) = await source.albums()
    photos = {photo.original_filename: photo for photo in await source.photos(album.id)}
    wedding = await source.fetch(photos["wedding.jpg"], tmp_path / "attempt")
    park = await source.fetch(photos["St James Park.jpg"], tmp_path / "attempt")
    await source.close()
    assert wedding.rendering is Rendering.EDITED
    assert wedding.path.name == "fullsizeoutput_9.jpeg"
    assert park.rendering is Rendering.ORIGINAL
    assert park.metadata is not None
    assert park.metadata.title == "St. James's Park"
    assert "London 2018" in park.metadata.keywords
    assert park.metadata.date is not None
    assert park.metadata.date.isoformat() == "2018-10-13T09:18:12.501000-04:00"
    assert park.metadata.location is not None
    assert park.metadata.location.latitude == pytest.approx(51.50357167)
    assert all(photo.fingerprint for photo in photos.values())


@needs_full_libraries
async def test_a_column_that_a_beta_does_not_have_is_not_asked_for(tmp_path: Path) -> None:
    source = PhotosLibrary(BETA_LIBRARY)
    await source.open()
    assert len(await source.albums()) == 10
    await source.close()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\1" * 8000])
async def test_a_database_that_is_damaged_is_said(library: Path, content: bytes, temporary: Path) -> None:
    (library / "database" / "Photos.sqlite").write_bytes(content)
    for suffix in ("-wal", "-shm"):
        (library / "database" / f"Photos.sqlite{suffix}").unlink(missing_ok=True)
    error = await refused(library)
    assert "damaged" in str(error) or "not a database of Photos" in str(error)
    assert not os.listdir(temporary)


@pytest.mark.usefixtures("osxphotos_fails")
async def test_a_database_cut_in_the_middle_is_said(library: Path, temporary: Path) -> None:
    database = library / "database" / "Photos.sqlite"
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 3])
    assert "its database is damaged" in str(await refused(library))
    assert not os.listdir(temporary)


@pytest.mark.usefixtures("osxphotos_fails")
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE ZGENERICALBUM RENAME COLUMN ZTITLE TO ZHEADLINE",
        "DROP TABLE ZKEYWORD",
        "DELETE FROM ZGENERICALBUM",
    ],
)
async def test_an_unknown_schema_is_said_with_the_version_found(library: Path, change: str, temporary: Path) -> None:
    edit_database(library, change)
    error = await refused(library)
    assert "cannot be understood (model version 18508; " in str(error)
    assert "osxphotos" in error.next_step
    assert not os.listdir(temporary)


async def test_a_library_that_may_not_be_read_is_said(pristine: dict[str, Path]) -> None:
    with folder_for_everyone() as folder:
        library = folder / "My.photoslibrary"
        shutil.copytree(pristine["test"] / "database", library / "database")
        (library / "database" / "Photos.sqlite").chmod(0)
        with without_root_powers():
            error = await refused(library)
        assert "it cannot be read (Permission denied)" in str(error)
        assert ("Full Disk Access" if sys.platform == "darwin" else "permissions") in error.next_step
        library.chmod(0)
        with without_root_powers():
            assert "it cannot be read" in str(await refused(library))


async def test_a_photo_that_may_not_be_read_fails_alone(pristine: dict[str, Path]) -> None:
    import osxphotos.photosdb  # noqa: F401  # imported while this process may still read everything

    with folder_for_everyone() as folder:
        library = folder / "My.photoslibrary"
        shutil.copytree(pristine["test"], library)
        (library / "originals" / "F" / f"{PUMPKINS1}.jpeg").chmod(0)
        with without_root_powers():
            with pytest.raises(PhotoUnreadable, match=r"Pumkins1\.jpg cannot be read \(Permission denied\)"):
                await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")
            await fetch(library, PUMPKIN_FARM, "Pumkins2.jpg")


async def test_a_full_temporary_disk_is_said(library: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(photos_bundle, "_copy", full)
    with photos_at_work(library):
        error = await refused(library)
    assert f"does not fit into {temporary}" in str(error)
    assert "TMPDIR" in error.next_step
    assert not os.listdir(temporary)


async def test_a_library_cannot_lead_to_files_outside_it(library: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpeg"
    secret.write_bytes(b"secret")
    original = library / "originals" / "F" / f"{PUMPKINS1}.jpeg"
    original.unlink()
    original.symlink_to(secret)
    with pytest.raises(PhotoUnreadable, match="leads out of the library"):
        await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")
    for directory in (f"../../../{tmp_path.name}", str(tmp_path)):
        edit_database(
            library,
            f"UPDATE ZASSET SET ZDIRECTORY = '{directory}', ZFILENAME = 'secret.jpeg' WHERE ZUUID = '{PUMPKINS1}'",
        )
        with pytest.raises((PhotoUnreadable, OriginalMissing)):
            await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")


async def test_a_file_that_the_library_only_refers_to_is_read_where_it_lies(library: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.jpeg").write_bytes(b"picture")
    edit_database(
        library,
        f"UPDATE ZASSET SET ZDIRECTORY = '{tmp_path}', ZFILENAME = 'elsewhere.jpeg', ZSAVEDASSETTYPE = 10"
        f" WHERE ZUUID = '{PUMPKINS1}'",
    )
    assert (await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")).path == tmp_path / "elsewhere.jpeg"


async def test_a_row_that_cannot_be_understood_fails_alone(library: Path) -> None:
    # Two keywords, one of them without a name: osxphotos cannot sort them.
    edit_database(
        library,
        "UPDATE ZKEYWORD SET ZTITLE = NULL WHERE ZTITLE = 'Kids'",
        "INSERT INTO Z_1KEYWORDS SELECT extra.Z_PK, keyword.Z_PK FROM ZADDITIONALASSETATTRIBUTES AS extra, ZKEYWORD AS"
        " keyword WHERE keyword.ZTITLE = 'wedding'"
        f" AND extra.ZASSET = (SELECT Z_PK FROM ZASSET WHERE ZUUID = '{PUMPKINS1}')",
    )
    assert len(await photos_of(library, PUMPKIN_FARM)) == 3
    with pytest.raises(PhotoUnreadable, match=r"what the library says about Pumkins1\.jpg cannot be understood"):
        await fetch(library, PUMPKIN_FARM, "Pumkins1.jpg")
    assert (await fetch(library, TWIN, "wedding.jpg")).metadata


async def test_a_library_that_was_unplugged_stops_the_run(library: Path) -> None:
    source = PhotosLibrary(library)
    await source.open()
    [photo, *_] = await source.photos(PUMPKIN_FARM)
    os.rename(library, library.with_name("unplugged"))
    with pytest.raises(SourceStopped, match="no longer there"):
        await source.fetch(photo, NOWHERE)
    await source.close()
    with pytest.raises(SourceError, match="is not open"):
        await source.photos(PUMPKIN_FARM)


# ── the pure parts ────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=80), st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_any_location_blob_gives_a_sane_altitude_and_heading_or_none(
    blob: bytes, latitude: float, longitude: float
) -> None:
    altitude, heading = altitude_and_heading(blob, latitude, longitude)
    assert altitude is None or -12_000 < altitude < 100_000
    assert heading is None or 0 < heading < 360


@given(st.floats(-500, 9000), st.floats(-1, 1), st.floats(-1, 361))
def test_altitude_and_heading_are_believed_when_they_are_valid(altitude: float, accuracy: float, course: float) -> None:
    blob = struct.pack("<8d", 47.0, 8.0, altitude, 5.0, accuracy, course, 0.0, 0.0)
    expected = altitude if accuracy >= 0 and altitude != 0 else None
    assert altitude_and_heading(blob, 47.0, 8.0) == (expected, course if 0 < course < 360 else None)
    assert altitude_and_heading(blob, 47.1, 8.0) == (None, None)


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_have_a_jpeg_size_or_none(data: bytes, start: bool) -> None:
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(b"\xff\xd8" * start + data)
        stream.flush()
        width, height = jpeg_size(stream.name)
    assert width >= 0
    assert height >= 0


@pytest.mark.parametrize("progressive", [False, True])
def test_the_size_of_a_jpeg_is_read_from_its_frame_header(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (321, 123)).save(path, progressive=progressive, exif=b"Exif\0\0" + b"\0" * 4000)
    assert jpeg_size(str(path)) == (321, 123)
