"""Which albums `--album` means."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.errors import NoAlbumMatches
from skicyclerun.models import Album
from skicyclerun.sources.album_selection import select_albums

ALBUMS = [
    Album("1", "2019-10/11 Paris Clermont"),
    Album("2", "Test Album"),
    Album("3", "Test Album"),
    Album("4", "Alps", ("2024",)),
    Album("5", "Alps", ("2025",)),
    Album("6", "alps"),
    Album("7", "Frühstück"),
    Album("8", "AlbumInFolder", ("Folder1", "SubFolder2")),
    Album("9", "[draft] 100%*"),
    Album("Test", "an album whose id is another's beginning"),
]


def ids(*wanted: str) -> list[str]:
    return [album.id for album in select_albums(ALBUMS, wanted)]


def test_nothing_wanted_is_everything() -> None:
    assert select_albums(ALBUMS, []) == ALBUMS


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("3", ["3"]),
        ("Test Album", ["2", "3"]),
        ("test album", ["2", "3"]),
        ("Alps", ["4", "5"]),
        ("alps", ["6"]),
        ("ALPS", ["4", "5", "6"]),
        ("2025/Alps", ["5"]),
        ("2025/ALPS", ["5"]),
        ("Folder1/SubFolder2/AlbumInFolder", ["8"]),
        ("2019-10/11 Paris Clermont", ["1"]),
        ("2019*", ["1"]),
        ("20*", ["1", "4", "5"]),
        ("*/alps", ["4", "5"]),
        ("folder1/*", ["8"]),
        ("test ?lbum", ["2", "3"]),
        ("[draft] 100%*", ["9"]),
        ("[DRAFT] 100%*", ["9"]),
        ("[dt]*album", ["2", "3"]),
        ("Fru\u0308hstu\u0308ck", ["7"]),
        ("FRÜHSTÜCK", ["7"]),
        ("fr\u00fchst*", ["7"]),
        ("Test", ["Test"]),
    ],
)
def test_ids_titles_paths_and_globs(wanted: str, expected: list[str]) -> None:
    assert ids(wanted) == expected


def test_several_give_each_album_once_in_the_sources_order() -> None:
    assert ids("7", "Test Album", "2", "*Album", "alps") == ["2", "3", "6", "7"]


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ("Paris", ["2019-10/11 Paris Clermont"]),
        ("Tset Album", ["Test Album"]),
        ("Fruhstuck", ["Frühstück"]),
        ("albuminfoldr", ["AlbumInFolder"]),
        ("*alps*/x", []),
        ("", []),
        ("zzzzzzzzzz", []),
    ],
)
def test_what_matches_nothing_is_said_with_the_nearest_titles(wanted: str, nearest: list[str]) -> None:
    with pytest.raises(NoAlbumMatches) as caught:
        ids("Alps", wanted)
    assert caught.value.wanted == wanted
    assert list(caught.value.nearest[: len(nearest)]) == nearest
    assert len(caught.value.nearest) <= 3


def test_no_albums_at_all_match_nothing() -> None:
    with pytest.raises(NoAlbumMatches, match="No album matches 'Alps'"):
        select_albums([], ["Alps"])


@given(st.lists(st.builds(Album, st.text(max_size=5), st.text(max_size=8)), max_size=8), st.text(max_size=8))
def test_any_text_selects_some_albums_or_says_that_it_does_not(albums: list[Album], wanted: str) -> None:
    try:
        picked = select_albums(albums, [wanted])
    except NoAlbumMatches:
        assert all(wanted not in (album.id, album.title) for album in albums)
    else:
        assert picked
        assert [album for album in albums if album in picked] == picked or len(albums) != len(set(albums))


@given(st.lists(st.builds(Album, st.uuids().map(str), st.text(min_size=1, max_size=8)), min_size=1, max_size=8))
def test_every_title_and_every_id_finds_its_album(albums: list[Album]) -> None:
    for album in albums:
        assert album in select_albums(albums, [album.id])
        assert album in select_albums(albums, [album.title])
        assert album in select_albums(albums, [unicodedata.normalize("NFD", album.title)])
