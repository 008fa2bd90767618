"""What every source promises (skicyclerun/sources/base.py), tested once for all of them.

A source joins by a class of its own with one fixture:

    class TestMySource(SourceContract):
        @pytest.fixture
        def sample(self, tmp_path: Path) -> Sample: ...
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from skicyclerun.errors import OriginalMissing, PhotoGone, SourceError
from skicyclerun.models import Album, Component, Fetched, Photo, SourceKind
from skicyclerun.settings.models import ExportSettings, FilterSettings
from skicyclerun.sources.base import InPlace, KeepsTime, Source, TimeLimits
from skicyclerun.sources.chosen_photos import choosing
from skicyclerun.sources.folder_tree import FolderTree
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.sources.photos_app import PhotosApp
from skicyclerun.sources.photos_library import PhotosLibrary
from tests.shared_libraries import (
    PHOTOS_4_LIBRARY,
    TEST_LIBRARY,
    copy_library,
    edit_database,
    tree_state,
)
from tests.standin_osascript.scenario import SCRIPT, Scenario


@dataclass(frozen=True)
class Sample:
    """A source over a library that the test may spoil, and what is in it."""

    make: Callable[[], Source]
    """A new source, not opened, over the same library each time."""
    kind: SourceKind
    albums: tuple[tuple[tuple[str, ...], str, int], ...]
    """Folder path, title and number of media items, in order. At least one is empty, two share a title."""
    make_missing: Callable[[], Source]
    """A source whose library is not there."""
    watched: Path | None = None
    """The folder that must never be written; None if the library is no folder."""
    absent: frozenset[str] = field(default_factory=frozenset)
    """Original file names of the photos whose original the library does not hold."""
    remove: Callable[[Photo], None] | None = None
    """Takes a photo out of the library while a source has it open; None if that cannot be done."""


class SourceContract:
    """The promises. Not collected by itself."""

    @pytest.fixture
    def sample(self, tmp_path: Path) -> Sample:
        raise NotImplementedError

    @pytest.fixture
    def attempt(self, tmp_path: Path) -> Path:
        return tmp_path / "attempts" / "photo-1"

    async def test_albums_come_in_order_with_their_folders_and_counts(self, sample: Sample) -> None:
        async with _opened(sample) as source:
            albums = await source.albums()
        assert tuple((album.folder_path, album.title, album.photo_count) for album in albums) == sample.albums

    async def test_ids_and_order_are_the_same_after_opening_again(self, sample: Sample) -> None:
        seen: list[list[tuple[Album, list[Photo]]]] = []
        for _ in range(2):
            async with _opened(sample) as source:
                seen.append([(album, await source.photos(album.id)) for album in await source.albums()])
        assert seen[0] == seen[1]

    async def test_ids_are_unique_and_texts_can_be_stored(self, sample: Sample) -> None:
        async with _opened(sample) as source:
            albums = await source.albums()
            assert len({album.id for album in albums}) == len(albums)
            for album in albums:
                photos = await source.photos(album.id)
                assert len({(photo.id, photo.component) for photo in photos}) == len(photos)
                for text in (album.id, album.path, *(part for p in photos for part in (p.id, p.original_filename))):
                    assert text.encode()
                    assert "\0" not in text

    async def test_two_albums_of_one_title_are_two_albums(self, sample: Sample) -> None:
        async with _opened(sample) as source:
            albums = await source.albums()
        titles = [album.title for album in albums]
        same = [album for album in albums if titles.count(album.title) > 1]
        assert len(same) >= 2
        assert len({album.id for album in same}) == len(same)

    async def test_titles_are_composed_unicode(self, sample: Sample) -> None:
        async with _opened(sample) as source:
            for album in await source.albums():
                for text in (album.title, *album.folder_path):
                    assert text == unicodedata.normalize("NFC", text)

    async def test_the_count_of_an_album_is_what_it_holds(self, sample: Sample) -> None:
        async with _opened(sample) as source:
            for album in await source.albums():
                photos = await source.photos(album.id)
                assert album.photo_count == sum(photo.component is not Component.LIVE_MOVIE for photo in photos)

    async def test_an_empty_album_is_listed_and_has_no_photos(self, sample: Sample) -> None:
        async with _opened(sample) as source:
            empty = [album for album in await source.albums() if album.photo_count == 0]
            assert empty
            for album in empty:
                assert await source.photos(album.id) == []

    async def test_a_live_movie_follows_its_still(self, sample: Sample) -> None:
        async with _opened(sample) as source:
            for album in await source.albums():
                photos = await source.photos(album.id)
                for at, photo in enumerate(photos):
                    if photo.component is Component.LIVE_MOVIE:
                        assert at > 0
                        assert photos[at - 1].component is Component.STILL
                        assert _stem(photos[at - 1]) == _stem(photo)

    async def test_fetch_gives_readable_bytes_or_says_that_the_original_is_absent(
        self, sample: Sample, attempt: Path
    ) -> None:
        absent: set[str] = set()
        async with _opened(sample) as source:
            for photo in await _all_photos(source):
                try:
                    fetched = await source.fetch(photo, attempt)
                except OriginalMissing as error:
                    absent.update(name for name in sample.absent if name in str(error))
                else:
                    assert fetched.path.is_file()
                    assert fetched.path.stat().st_size > 0
                finally:
                    shutil.rmtree(attempt, ignore_errors=True)
        assert absent == sample.absent

    async def test_fetching_twice_gives_the_same(self, sample: Sample, attempt: Path) -> None:
        async with _opened(sample) as source:
            photo = await _some_photo(source, sample)
            seen: list[tuple[bytes, Fetched]] = []
            for _ in range(2):
                fetched = await source.fetch(photo, attempt)
                # A source that writes may choose another folder within the attempt each time.
                seen.append((fetched.path.read_bytes(), replace(fetched, path=Path(fetched.path.name))))
                shutil.rmtree(attempt, ignore_errors=True)
        assert seen[0] == seen[1]

    async def test_what_is_located_is_what_is_fetched(self, sample: Sample, attempt: Path) -> None:
        async with _opened(sample) as source:
            if not isinstance(source, InPlace):
                pytest.skip("this source brings its photos from elsewhere")
            assert source.parallel
            assert not isinstance(source, KeepsTime)
            photos = await _all_photos(source)
            for photo in photos:
                fetched: Fetched | str
                located: Fetched | str
                try:
                    fetched = await source.fetch(photo, attempt)
                except OriginalMissing as error:
                    fetched = str(error)
                try:
                    located = await anyio.to_thread.run_sync(source.locate, photo)
                except OriginalMissing as error:
                    located = str(error)
                assert located == fetched
                assert not await anyio.Path(attempt).exists()

    async def test_what_was_read_ahead_is_located_all_the_same(self, sample: Sample) -> None:
        async with _opened(sample) as source, _opened(sample) as ahead:
            if not isinstance(source, InPlace) or not isinstance(ahead, InPlace):
                pytest.skip("this source brings its photos from elsewhere")
            photos = await _all_photos(source)
            nobody = Photo("nobody", "nobody.jpg", Component.STILL)
            await anyio.to_thread.run_sync(ahead.read_ahead, [nobody, *photos])
            for photo in photos:
                answers: list[Fetched | str] = []
                for each in (source, ahead):
                    try:
                        answers.append(await anyio.to_thread.run_sync(each.locate, photo))
                    except OriginalMissing as error:
                        answers.append(str(error))
                assert answers[0] == answers[1]

    async def test_fetches_at_once_do_not_disturb_each_other(self, sample: Sample, tmp_path: Path) -> None:
        async with _opened(sample) as source:
            if not source.parallel:
                pytest.skip("this source fetches one photo at a time")
            photos = [photo for photo in await _all_photos(source) if photo.original_filename not in sample.absent]
            got: dict[int, Path] = {}

            async def fetch(at: int, photo: Photo) -> None:
                got[at] = (await source.fetch(photo, tmp_path / f"attempt-{at}")).path

            async with anyio.create_task_group() as group:
                for at, photo in enumerate(photos * 4):
                    group.start_soon(fetch, at, photo)
            for at, photo in enumerate(photos * 4):
                assert got[at] == got[at % len(photos)], photo

    async def test_a_photo_that_left_the_library_is_gone(self, sample: Sample, attempt: Path) -> None:
        async with _opened(sample) as source:
            photo = await _some_photo(source, sample)
            unknown = Photo(id=f"{photo.id[:-1]}~", original_filename="nothing.jpg", component=photo.component)
            with pytest.raises(PhotoGone, match=r"nothing\.jpg"):
                await source.fetch(unknown, attempt)
            if sample.remove is not None:
                sample.remove(photo)
                with pytest.raises(PhotoGone):
                    await source.fetch(photo, attempt)

    async def test_an_album_that_is_not_there_is_an_error_of_the_source(self, sample: Sample) -> None:
        async with _opened(sample) as source:
            with pytest.raises(SourceError):
                await source.photos("no such album")

    async def test_nothing_is_written_to_the_library(self, sample: Sample, attempt: Path) -> None:
        if sample.watched is None:
            pytest.skip("this library is no folder that could be watched")
        before = tree_state(sample.watched)
        async with _opened(sample) as source:
            for photo in await _all_photos(source):
                if photo.original_filename not in sample.absent:
                    await source.fetch(photo, attempt)
                shutil.rmtree(attempt, ignore_errors=True)
        assert tree_state(sample.watched) == before

    async def test_a_library_that_is_not_there_is_said(self, sample: Sample) -> None:
        source = sample.make_missing()
        with pytest.raises(SourceError) as caught:
            await source.open()
        assert source.location in str(caught.value)
        await source.close()

    async def test_closing_twice_or_unopened_is_fine(self, sample: Sample) -> None:
        source = sample.make()
        await source.close()
        await source.open()
        await source.close()
        await source.close()

    async def test_it_says_what_and_where_it_is(self, sample: Sample) -> None:
        source = sample.make()
        assert source.kind is sample.kind
        assert source.location

    async def test_cancelled_while_opening_it_can_be_opened_again(self, sample: Sample) -> None:
        source = sample.make()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await source.open()
        await source.close()
        await source.open()
        assert await source.albums()
        await source.close()


def _stem(photo: Photo) -> str:
    return Path(photo.original_filename).stem.casefold()


def _opened(sample: Sample) -> _Opened:
    return _Opened(sample.make())


class _Opened:
    def __init__(self, source: Source) -> None:
        self.source = source

    async def __aenter__(self) -> Source:
        await self.source.open()
        return self.source

    async def __aexit__(self, *_: object) -> None:
        await self.source.close()


async def _all_photos(source: Source) -> list[Photo]:
    return [photo for album in await source.albums() for photo in await source.photos(album.id)]


async def _some_photo(source: Source, sample: Sample) -> Photo:
    for photo in await _all_photos(source):
        if photo.original_filename not in sample.absent:
            return photo
    raise AssertionError("the sample holds no photo that can be fetched")


# ── the sources that read files ───────────────────────────────────────────────────────────────────────────────────


def live_movie_bytes() -> bytes:
    """The atoms by which a movie is known as part of a Live Photo; not a movie that plays."""
    moov = b"\0" * 40 + b"com.apple.quicktime.content.identifier" + b"\0" * 20
    return (
        (16).to_bytes(4, "big") + b"ftypqt  \0\0\0\0"
        + (24).to_bytes(4, "big") + b"mdat" + b"\1" * 16
        + (8 + len(moov)).to_bytes(4, "big") + b"moov" + moov
    )  # fmt: skip


class TestFolderTree(SourceContract):
    @pytest.fixture
    def sample(self, tmp_path: Path) -> Sample:
        root = tmp_path / "photos"
        for name in (
            "Alps/IMG_10.jpg",
            "Alps/IMG_2.HEIC",
            "Alps/IMG_2.MOV",
            "2024/Alps/a.png",
            "2024/Alps/clip.mp4",
            "2024/Coast:Harbour/é.jpg",
            "2024/Coast:Harbour/e\u0301e.jpg",
            "Fru\u0308hstu\u0308ck/100% {x} #1;$(touch pwned).jpg",
            "loose.jpg",
        ):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(live_movie_bytes() if name.endswith("IMG_2.MOV") else name.encode())
        (root / "Empty").mkdir()
        return Sample(
            make=lambda: FolderTree(root),
            kind=SourceKind.FOLDER,
            albums=(
                ((), "photos", 1),
                (("2024",), "Alps", 2),
                (("2024",), "Coast/Harbour", 2),
                ((), "Alps", 2),
                ((), "Empty", 0),
                ((), "Frühstück", 1),
            ),
            make_missing=lambda: FolderTree(tmp_path / "nothing here"),
            watched=root,
            remove=lambda photo: (root / photo.id).unlink(),
        )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = copy_library(TEST_LIBRARY, tmp_path_factory.mktemp("libraries"))
    title = "Fru\u0308h $(touch pwned)/.."
    edit_database(library, f"UPDATE ZGENERICALBUM SET ZTITLE = '{title}' WHERE ZTITLE = 'Pumpkin Farm' AND ZKIND = 2")
    return library


LIBRARY_ALBUMS: tuple[tuple[tuple[str, ...], str, int], ...] = (
    ((), "2019-10/11 Paris Clermont", 1),
    ((), "2018-10 - Sponsion, Museum, Frühstück, Römermuseum", 1),
    ((), "I have a deleted twin", 1),
    ((), "EmptyAlbum", 0),
    ((), "Test Album", 1),
    ((), "Test Album", 1),
    (("Folder1", "SubFolder2"), "AlbumInFolder", 2),
    (("Folder2",), "Raw", 4),
    ((), "Früh $(touch pwned)/..", 3),
)


class TestPhotosLibrary(SourceContract):
    @pytest.fixture
    def sample(self, tmp_path: Path, library: Path) -> Sample:
        return Sample(
            make=lambda: PhotosLibrary(library),
            kind=SourceKind.PHOTOS_LIBRARY,
            albums=LIBRARY_ALBUMS,
            make_missing=lambda: PhotosLibrary(tmp_path / "No.photoslibrary"),
            watched=library,
            absent=frozenset({"DSC03584.dng", "IMG_2000.JPG"}),
        )


# ── a source with filters and groups ──────────────────────────────────────────────────────────────────────────────


def chosen(source: Source, **export: Any) -> Source:
    return choosing(source, PhotoChoice.of(ExportSettings(**export), date(2026, 11, 26)))


class TestFolderTreeInGroups(TestFolderTree):
    """Every promise holds of the groups too. None of these files says when it was taken."""

    @pytest.fixture
    def sample(self, tmp_path: Path) -> Sample:
        plain: Sample = TestFolderTree.sample.__wrapped__(self, tmp_path)  # type: ignore[attr-defined]  # a fixture
        return replace(
            plain,
            make=lambda: chosen(plain.make(), everything=True),
            albums=(*plain.albums, ((), "Without a date", 8)),
            make_missing=lambda: chosen(plain.make_missing(), everything=True),
        )


class TestPhotosLibraryInGroups(SourceContract):
    @pytest.fixture
    def sample(self, tmp_path: Path, library: Path) -> Sample:
        by_year = ("2017", 1), ("2018", 4), ("2019", 2), ("2020", 5), ("Without a date", 1)
        return Sample(
            make=lambda: chosen(PhotosLibrary(library), everything=True, group_by="year"),
            kind=SourceKind.PHOTOS_LIBRARY,
            albums=(*LIBRARY_ALBUMS, *(((), title, count) for title, count in by_year)),
            make_missing=lambda: chosen(PhotosLibrary(tmp_path / "No.photoslibrary"), everything=True),
            watched=library,
            absent=frozenset({"DSC03584.dng", "IMG_2000.JPG", "IMG_1693.tif"}),
        )


class TestPhotosLibraryThroughFilters(SourceContract):
    @pytest.fixture
    def sample(self, tmp_path: Path, library: Path) -> Sample:
        filters = FilterSettings(since="2018-09-28", until="2020-04-15", media="photo")
        left = {"2019-10/11 Paris Clermont": 0, "AlbumInFolder": 1, "Raw": 2}
        left["2018-10 - Sponsion, Museum, Frühstück, Römermuseum"] = 0
        return Sample(
            make=lambda: chosen(PhotosLibrary(library), filters=filters),
            kind=SourceKind.PHOTOS_LIBRARY,
            albums=tuple((folders, title, left.get(title, count)) for folders, title, count in LIBRARY_ALBUMS),
            make_missing=lambda: chosen(PhotosLibrary(tmp_path / "No.photoslibrary"), filters=filters),
            watched=library,
            absent=frozenset({"DSC03584.dng"}),
        )


@pytest.fixture(scope="module")
def photos_4_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real one has a single album; two more and a folder are added as Photos 4 writes them."""
    library = copy_library(PHOTOS_4_LIBRARY, tmp_path_factory.mktemp("libraries"))
    columns = "albumType, albumSubclass, isFavorite, isInTrash, isHidden, isMagic, sortKeyPath, sortAscending"
    edit_database(
        library,
        "INSERT INTO RKFolder (uuid, name, folderType, parentFolderUuid, isInTrash, isMagic)"
        " VALUES ('aFolder', 'Fru\u0308hling', 1, 'TopLevelAlbums', 0, 0)",
        *(
            f"INSERT INTO RKAlbum (uuid, name, folderUuid, {columns})"
            f" SELECT '{uuid}', '{title}', '{folder}', {columns} FROM RKAlbum WHERE name = 'Pumpkin Farm'"
            for uuid, title, folder in (("same", "Pumpkin Farm", "aFolder"), ("none", "Empty", "TopLevelAlbums"))
        ),
        "INSERT INTO RKAlbumVersion (versionId, albumId) SELECT versions.modelId, albums.modelId"
        " FROM RKVersion AS versions, RKAlbum AS albums"
        " WHERE albums.uuid = 'same' AND versions.fileName IN ('Pumpkins4.jpg', 'wedding.jpg')",
        "INSERT INTO RKCustomSortOrder (containerUuid, objectUuid, orderNumber) VALUES"
        " ('TopLevelAlbums', 'aFolder', 512), ('TopLevelAlbums', 'none', 2048)",
    )
    return library


class TestPhotos4Library(SourceContract):
    @pytest.fixture
    def sample(self, tmp_path: Path, photos_4_library: Path) -> Sample:
        return Sample(
            make=lambda: PhotosLibrary(photos_4_library),
            kind=SourceKind.PHOTOS_LIBRARY,
            albums=((("Frühling",), "Pumpkin Farm", 2), ((), "Pumpkin Farm", 3), ((), "Empty", 0)),
            make_missing=lambda: PhotosLibrary(tmp_path / "No.photoslibrary"),
            watched=photos_4_library,
            absent=frozenset({"Pumpkins4.jpg"}),
        )


# ── the source that asks Photos.app, here a stand-in ──────────────────────────────────────────────────────────────


class TestPhotosApp(SourceContract):
    @pytest.fixture
    def sample(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
        scenario = Scenario(tmp_path / "standin")
        movie = scenario.jpeg("clip.mov", live_movie_bytes())
        still, clip, plain = (
            scenario.add_item("IMG_2.HEIC", location=[46.5, 11.3], keywords=["a, b"], date="2024-07-01T10:00:00"),
            scenario.add_item("clip.MOV", files=[{"name": "clip.mov", "from": str(movie)}]),
            scenario.add_item("100% {x} #1;$(touch pwned).jpg", title="line\nbreak"),
        )
        scenario.add_album("Alps", [still, clip])
        scenario.add_album("Alps", [plain])
        scenario.add_album("Empty")
        scenario.add_album("Fru\u0308h, stu\u0308ck", [plain, still], folders=["2024", "Coast/Harbour"])
        for name, value in scenario.environment().items():
            monkeypatch.setenv(name, value)

        def make(osascript: str = "osascript") -> PhotosApp:
            return PhotosApp(
                osascript=osascript,
                script=SCRIPT,
                limits=TimeLimits(60, 60),
                list_timeout=60,
                log=lambda line: None,
                settle_interval=0.01,
                retry_pause=0,
            )

        def remove(photo: Photo) -> None:
            del scenario.items[photo.id]
            scenario.write()

        return Sample(
            make=make,
            kind=SourceKind.APPLE_PHOTOS,
            albums=(
                ((), "Alps", 2),
                ((), "Alps", 1),
                ((), "Empty", 0),
                (("2024", "Coast/Harbour"), "Früh, stück", 2),
            ),
            make_missing=lambda: make(str(tmp_path / "no osascript")),
            remove=remove,
        )
