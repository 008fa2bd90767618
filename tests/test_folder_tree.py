"""The folder source: which folders are albums, which files are photos, and what it refuses to follow."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from random import Random

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.errors import LibraryError, PhotoGone, PhotoUnreadable, SourceError, SourceStopped
from skicyclerun.models import Photo, Rendering
from skicyclerun.sources.folder_tree import FolderTree, is_live_movie, natural_key
from tests.shared_libraries import folder_for_everyone, without_root_powers
from tests.test_source_contract import live_movie_bytes

NOWHERE = Path("attempt-directory-that-is-not-made")


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


async def paths_of(root: Path) -> list[str]:
    return [album.path for album in await FolderTree(root).albums()]


async def names_in(root: Path, album_id: str) -> list[tuple[str, str]]:
    photos = await FolderTree(root).photos(album_id)
    return [(photo.original_filename, photo.component.value) for photo in photos]


# ── albums ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_folder_with_photos_is_an_album_and_folders_of_folders_are_not(tmp_path: Path) -> None:
    write(tmp_path, "2024/Alps/a.jpg", "2024/Coast/b.jpg", "Trips/c.jpg", "Trips/Day 1/d.jpg")
    albums = await FolderTree(tmp_path).albums()
    assert [(album.id, album.title, album.folder_path) for album in albums] == [
        ("2024/Alps", "Alps", ("2024",)),
        ("2024/Coast", "Coast", ("2024",)),
        ("Trips", "Trips", ()),
        ("Trips/Day 1", "Day 1", ("Trips",)),
    ]


async def test_photos_directly_in_the_root_are_an_album_named_as_the_root(tmp_path: Path) -> None:
    root = tmp_path / "My photos"
    write(root, "a.jpg", "Alps/b.jpg")
    source = FolderTree(root)
    assert [(album.id, album.title) for album in await source.albums()] == [(".", "My photos"), ("Alps", "Alps")]
    [photo] = await source.photos(".")
    assert (await source.fetch(photo, NOWHERE)).path == root / "a.jpg"


async def test_an_empty_root_has_no_albums(tmp_path: Path) -> None:
    source = FolderTree(tmp_path)
    await source.open()
    assert await source.albums() == []


async def test_a_colon_in_a_folder_name_is_the_slash_that_finder_shows(tmp_path: Path) -> None:
    write(tmp_path, "2019-10:11 Paris/Day:1/a.jpg")
    [album] = await FolderTree(tmp_path).albums()
    assert (album.folder_path, album.title) == (("2019-10/11 Paris",), "Day/1")
    assert len(await FolderTree(tmp_path).photos(album.id)) == 1


async def test_albums_and_photos_are_in_natural_order(tmp_path: Path) -> None:
    write(tmp_path, *(f"Day {n}/IMG_{m}.jpg" for n in (10, 9, 1) for m in (100, 20, 3)))
    albums = await FolderTree(tmp_path).albums()
    assert [album.title for album in albums] == ["Day 1", "Day 9", "Day 10"]
    photos = await FolderTree(tmp_path).photos("Day 1")
    assert [photo.original_filename for photo in photos] == ["IMG_3.jpg", "IMG_20.jpg", "IMG_100.jpg"]


async def test_caches_libraries_hidden_folders_and_our_own_outputs_are_no_albums(tmp_path: Path) -> None:
    write(
        tmp_path,
        "Alps/a.jpg",
        "Alps/@eaDir/a.jpg",
        "Alps/.thumbnails/a.jpg",
        "Alps/.staging-of-a-run/a.jpg",
        "Old.photoslibrary/originals/1/a.jpeg",
        "$RECYCLE.BIN/a.jpg",
        "skicyclerun/pipeline/albums/Alps/a.jpg",
        "skicyclerun/state/skicyclerun.sqlite3",
    )
    assert await paths_of(tmp_path) == ["Alps"]


# ── photos ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_only_photos_and_movies_are_taken_and_the_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = ("a.jpg", "b.HEIC", "c.png", "d.TIFF", "e.gif", "f.webp", "g.avif", "h.dng", "i.MP4")
    others = (".hidden.jpg", "._a.jpg", ".DS_Store", "Thumbs.db", "a.AAE", "a.xmp", "notes.txt")
    write(tmp_path, *(f"Album/{name}" for name in (*photos, *others)))
    with caplog.at_level(logging.DEBUG, logger="skicyclerun"):
        found = await names_in(tmp_path, "Album")
    assert [name for name, _ in found] == list(photos)
    assert [component for _, component in found] == ["still"] * 8 + ["video"]
    assert "7 other files" in caplog.text


async def test_of_a_raw_file_beside_a_jpeg_the_jpeg_is_taken(tmp_path: Path) -> None:
    write(tmp_path, "A/IMG_1.CR2", "A/img_1.jpg", "A/IMG_2.NEF", "A/IMG_3.png", "A/IMG_3.raf")
    assert [name for name, _ in await names_in(tmp_path, "A")] == ["img_1.jpg", "IMG_2.NEF", "IMG_3.png", "IMG_3.raf"]


async def test_the_movie_of_a_live_photo_follows_its_still_and_other_movies_are_videos(tmp_path: Path) -> None:
    write(
        tmp_path,
        "A/IMG_1.HEIC",
        "A/IMG_1.MOV",
        "A/IMG_2.JPG",
        "A/IMG_2.mov",
        "A/IMG_3.mov",
        "A/IMG_4.png",
        "A/IMG_4.mov",
    )
    for name in ("IMG_1.MOV", "IMG_3.mov", "IMG_4.mov"):
        (tmp_path / "A" / name).write_bytes(live_movie_bytes())
    assert await names_in(tmp_path, "A") == [
        ("IMG_1.HEIC", "still"),
        ("IMG_1.MOV", "live_movie"),
        ("IMG_2.JPG", "still"),
        ("IMG_2.mov", "video"),  # of the same name, but it does not say that it belongs to a Live Photo
        ("IMG_3.mov", "video"),
        ("IMG_4.mov", "video"),
        ("IMG_4.png", "still"),
    ]
    [album] = await FolderTree(tmp_path).albums()
    assert album.photo_count == 6


async def test_the_fingerprint_changes_with_size_and_time(tmp_path: Path) -> None:
    write(tmp_path, "A/a.jpg")
    path, source = tmp_path / "A" / "a.jpg", FolderTree(tmp_path)

    async def fingerprint() -> str:
        [photo] = await source.photos("A")
        return photo.fingerprint

    first = await fingerprint()
    assert await fingerprint() == first
    os.utime(path, ns=(1, 1))
    second = await fingerprint()
    path.write_bytes(b"more bytes than before")
    os.utime(path, ns=(1, 1))
    assert len({first, second, await fingerprint()}) == 3


async def test_fetch_gives_the_file_itself_and_no_metadata(tmp_path: Path) -> None:
    write(tmp_path, "A/a.jpg")
    source = FolderTree(tmp_path)
    [photo] = await source.photos("A")
    fetched = await source.fetch(photo, tmp_path / "attempt")
    assert fetched.path == tmp_path / "A" / "a.jpg"
    assert fetched.rendering is Rendering.ORIGINAL
    assert fetched.metadata is None
    assert not (tmp_path / "attempt").exists()


async def test_names_that_are_not_utf8_lead_back_to_their_files(tmp_path: Path) -> None:
    try:
        write(
            tmp_path, *(os.fsdecode(b"caf\xe9 100%/" + name) for name in (b"\xff\xfe.jpg", b"%FF.jpg", b"50% off.jpg"))
        )
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    source = FolderTree(tmp_path)
    [album] = await source.albums()
    assert (album.id, album.title) == ("caf%E9 100%25", "caf\ufffd 100%")
    photos = await source.photos(album.id)
    assert {photo.id.partition("/")[2] for photo in photos} == {"%FF%FE.jpg", "%25FF.jpg", "50%25 off.jpg"}
    for photo in photos:
        fetched = await source.fetch(photo, NOWHERE)
        assert fetched.path.read_bytes() == os.fsencode(fetched.path.relative_to(tmp_path))
        assert photo.original_filename.encode()


# ── what it refuses ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_links_are_followed_neither_to_files_nor_to_folders(tmp_path: Path) -> None:
    write(tmp_path / "outside", "secret.jpg")
    write(tmp_path / "root", "A/a.jpg")
    (tmp_path / "root" / "A" / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    (tmp_path / "root" / "B").symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "root" / "A" / "loop").symlink_to(tmp_path / "root", target_is_directory=True)
    assert await paths_of(tmp_path / "root") == ["A"]
    assert await names_in(tmp_path / "root", "A") == [("a.jpg", "still")]
    source = FolderTree(tmp_path / "root")
    for photo_id in ("A/link.jpg", "B/secret.jpg"):
        with pytest.raises(PhotoUnreadable, match="symbolic link"):
            await source.fetch(Photo(photo_id, "x.jpg"), NOWHERE)
    with pytest.raises(LibraryError, match="symbolic link"):
        await source.photos("B")


async def test_the_named_root_itself_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real", "A/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    source = FolderTree(tmp_path / "link")
    await source.open()
    [photo] = await source.photos("A")
    assert (await source.fetch(photo, NOWHERE)).path.read_bytes() == b"A/a.jpg"


@pytest.mark.parametrize(
    "photo_id", ["", "/etc/passwd", "..", "A/../../secret.jpg", "%2e%2e/secret.jpg", "A//a.jpg", "A/%00"]
)
async def test_an_id_cannot_lead_out_of_the_root(tmp_path: Path, photo_id: str) -> None:
    write(tmp_path, "secret.jpg", "root/A/a.jpg")
    source = FolderTree(tmp_path / "root")
    with pytest.raises(PhotoGone):
        await source.fetch(Photo(photo_id, "x.jpg"), NOWHERE)
    with pytest.raises(SourceError):
        await source.photos(photo_id)


async def test_a_pipe_or_a_folder_in_place_of_a_photo_is_unreadable(tmp_path: Path) -> None:
    write(tmp_path, "A/a.jpg")
    os.mkfifo(tmp_path / "A" / "pipe.jpg")
    (tmp_path / "A" / "folder.jpg").mkdir()
    assert await names_in(tmp_path, "A") == [("a.jpg", "still")]
    for name in ("pipe.jpg", "folder.jpg"):
        with pytest.raises(PhotoUnreadable, match="not a regular file"), anyio.fail_after(20):
            await FolderTree(tmp_path).fetch(Photo(f"A/{name}", name), NOWHERE)


async def test_a_photo_a_folder_or_a_root_that_vanished_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "root/A/a.jpg", "root/B/b.jpg")
    source = FolderTree(tmp_path / "root")
    [first], [second] = await source.photos("A"), await source.photos("B")
    (tmp_path / "root" / "A" / "a.jpg").unlink()
    with pytest.raises(PhotoGone, match=r"a\.jpg"):
        await source.fetch(first, NOWHERE)
    shutil.rmtree(tmp_path / "root" / "B")
    with pytest.raises(PhotoGone, match=r"b\.jpg"):
        await source.fetch(second, NOWHERE)
    with pytest.raises(SourceError, match="no longer there"):
        await source.photos("B")
    shutil.rmtree(tmp_path / "root")
    with pytest.raises(SourceStopped, match="no longer there"):
        await source.fetch(first, NOWHERE)
    with pytest.raises(LibraryError, match="no such folder"):
        await source.photos("A")


async def test_a_root_that_is_a_file_missing_or_a_photos_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "My.photoslibrary").mkdir()
    for name, problem in (("file", "not a folder"), ("none", "no such folder"), ("My.photoslibrary", "photo library")):
        with pytest.raises(LibraryError, match=problem) as caught:
            await FolderTree(tmp_path / name).open()
        assert caught.value.next_step


async def test_what_may_not_be_read_is_said_and_does_not_stop_the_rest() -> None:
    with folder_for_everyone() as root:
        write(root, "A/a.jpg", "A/locked.jpg", "B/b.jpg")
        for directory in (root, root / "A", root / "B"):
            directory.chmod(0o755)
        (root / "A" / "locked.jpg").chmod(0)
        (root / "B").chmod(0)
        source = FolderTree(root)
        with without_root_powers():
            await source.open()
            assert [(album.title, album.photo_count) for album in await source.albums()] == [("A", 2), ("B", 0)]
            with pytest.raises(LibraryError, match="cannot be read"):
                await source.photos("B")
            [readable, locked] = await source.photos("A")
            await source.fetch(readable, NOWHERE)
            with pytest.raises(PhotoUnreadable, match=r"locked\.jpg cannot be read"):
                await source.fetch(locked, NOWHERE)
        root.chmod(0)
        with without_root_powers(), pytest.raises(LibraryError, match="cannot be read") as caught:
            await source.open()
        assert "permissions" in caught.value.next_step
        root.chmod(0o755)


# ── the pure parts ────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.text(max_size=12)), st.randoms(use_true_random=False))
def test_natural_order_does_not_depend_on_the_order_of_arrival(names: list[str], chance: Random) -> None:
    shuffled = chance.sample(names, len(names))
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_numbers_in_names_count_as_numbers(first: int, second: int) -> None:
    assert (natural_key(f"IMG_{first}.jpg")[0] < natural_key(f"IMG_{second}.jpg")[0]) == (first < second)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_live_movie_or_not_without_an_error(data: bytes) -> None:
    with folder_for_everyone() as folder:
        (folder / "x.mov").write_bytes(data)
        assert is_live_movie(folder / "x.mov") in (True, False)


@pytest.mark.parametrize("size", [0, 7, 2**63, 2**64 - 1])
def test_a_lying_atom_size_ends_the_search(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.mov"
    path.write_bytes((1).to_bytes(4, "big") + b"mdat" + size.to_bytes(8, "big") + live_movie_bytes())
    assert not is_live_movie(path)
