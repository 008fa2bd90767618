from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.files.naming import assign_folders, collision_key, folder_name, plan_file_names
from skicyclerun.models import Component, Photo

# Titles as libraries have them and as nobody should: any code point, surrogates included, with what matters often.
_telling = st.sampled_from(
    ("/ : . \x00 \x1b \u0301 é e\u0301 ß SS \u017f \u212a \u200b \u200d 😀 \ud800 \u202e \ufffe".split(" "))
    + ("CON nul (2) IMG_0001 img_0001 ~ \U0001f1e8\U0001f1ed".split(" "))
    + [" ", "\u00a0", "a" * 130, "字" * 60]
)
titles = st.lists(_telling | st.text(st.characters(exclude_categories=()), max_size=4), max_size=8).map("".join)
components = st.sampled_from(list(Component))


def jpeg_or_own(photo: Photo) -> str:
    return ".jpg" if photo.component is Component.STILL else ".mov"


def on_a_forgiving_disk(name: str) -> str:
    """An independent idea of what a case- and normalisation-insensitive disk takes for the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


@pytest.mark.parametrize(
    ("title", "folder"),
    [
        ("Summer 2024", "Summer 2024"),
        ("2021/2022", "2021_2022"),
        ('a/b:c\\d*e?f"g<h>i|j', "a_b_c_d_e_f_g_h_i_j"),
        ("bell\x07 tab\t escape\x1b delete\x7f next line\x85", "bell_ tab_ escape_ delete_ next line_"),
        ("  ..hidden. .", "hidden"),
        ("\u00a0Wide spaces\u3000", "Wide spaces"),
        ("Cafe\u0301", "Café"),
        ("..", "untitled"),
        ("", "untitled"),
        (" \u200b ", "untitled"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("com¹", "_com¹"),
        ("Lpt9 .tar.gz", "_Lpt9 .tar.gz"),
        ("CONSOLE", "CONSOLE"),
        ("\u202egpj.exe", "_gpj.exe"),
        ("half \ud83d of a pair", "half _ of a pair"),
        ("👨\u200d👩\u200d👧 Family ❤\ufe0f", "👨\u200d👩\u200d👧 Family ❤\ufe0f"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_a_title_becomes_a_folder_name(title: str, folder: str) -> None:
    assert folder_name(title) == folder


@given(titles)
def test_a_folder_name_is_safe_on_every_disk_and_stays_as_it_is(title: str) -> None:
    name = folder_name(title)

    assert name == folder_name(name)
    assert name == unicodedata.normalize("NFC", name)
    assert 0 < len(name.encode("utf-8")) <= 255
    assert not set(name) & set('/:\\*?"<>|')
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    assert name.strip(". ") == name
    assert name.partition(".")[0].strip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}


@given(titles)
def test_the_normalisation_of_a_title_does_not_matter(title: str) -> None:
    assert folder_name(unicodedata.normalize("NFD", title)) == folder_name(unicodedata.normalize("NFC", title))


@given(st.text("a\u0301\u0323\u0345\u03b1\u1fb3\u1fb4\u0399\u200d\u00df", max_size=8))
def test_names_collide_in_any_normalisation_and_case(name: str) -> None:
    key = collision_key(name)

    for form in ("NFC", "NFD"):
        assert collision_key(unicodedata.normalize(form, name)) == key
        assert collision_key(unicodedata.normalize(form, unicodedata.normalize("NFD", name).casefold())) == key


def test_long_titles_that_begin_alike_stay_apart() -> None:
    first, second = folder_name("a" * 300 + "1"), folder_name("a" * 300 + "2")

    assert first != second
    assert len(first) == len(second) == 255
    assert first.startswith("a" * 240)


@pytest.mark.parametrize(
    "cluster", ["e\u0302\u0323", "👨\u200d👩\u200d👧", "👍🏽", "🇨🇭", "❤\ufe0f", "字", "क\u093f"], ids=ascii
)
def test_a_long_title_is_cut_between_characters_as_people_see_them(cluster: str) -> None:
    composed = unicodedata.normalize("NFC", cluster)
    for lead in range(8):
        name = folder_name("x" * lead + cluster * 100)
        body, _, digest = name.rpartition("~")
        assert len(digest) == 8
        assert body == "x" * lead + composed * ((len(body) - lead) // len(composed))
        assert len(name.encode()) > 255 - len(composed.encode())


def test_a_name_of_nothing_but_marks_is_still_cut() -> None:
    assert 200 < len(folder_name("x" + "\u0334" * 1000).encode()) <= 255


def test_a_folder_of_the_longest_name_can_be_made(tmp_path: Path) -> None:
    names = assign_folders([(str(number), "Ж" * 200) for number in range(3)], {})
    for name in names.values():
        (tmp_path / name).mkdir()
    assert len(os.listdir(tmp_path)) == 3


def test_two_albums_of_one_title_get_numbers_in_their_order() -> None:
    albums = [("a", "Test Album"), ("b", "Test Album"), ("c", "test album"), ("d", "Cafe\u0301"), ("e", "CAFÉ")]

    assert assign_folders(albums, {}) == {
        "a": "Test Album",
        "b": "Test Album (2)",
        "c": "test album (3)",
        "d": "Café",
        "e": "CAFÉ (2)",
    }


def test_an_album_keeps_its_folder_whatever_its_title_has_become() -> None:
    taken = {"old": "Summer", "gone": "Winter"}

    folders = assign_folders([("new", "summer"), ("old", "Renamed"), ("other", "Winter")], taken)

    assert folders == {"new": "summer (2)", "old": "Summer", "other": "Winter (2)"}


def test_a_number_that_is_a_title_already_is_passed_over() -> None:
    assert assign_folders([("a", "X (2)"), ("b", "X"), ("c", "X")], {}) == {"a": "X (2)", "b": "X", "c": "X (3)"}


@given(st.lists(titles, max_size=12), st.dictionaries(st.integers(0, 11).map(str), titles.map(folder_name), max_size=4))
def test_no_two_albums_share_a_folder_on_any_disk(album_titles: list[str], wished: dict[str, str]) -> None:
    taken: dict[str, str] = {}
    for album_id, folder in wished.items():
        if collision_key(folder) not in map(collision_key, taken.values()):
            taken[album_id] = folder
    albums = [(str(number), title) for number, title in enumerate(album_titles)]

    folders = assign_folders(albums, taken)

    every = {**taken, **folders}
    assert len({on_a_forgiving_disk(folder) for folder in every.values()}) == len(every)
    assert all(len(folder.encode()) <= 255 for folder in every.values())
    assert all(folders[album_id] == taken[album_id] for album_id, _ in albums if album_id in taken)
    assert assign_folders(albums, every) == folders, "assigning again changes nothing"


def test_photos_keep_their_stem_and_a_second_one_gets_a_number() -> None:
    photos = [
        Photo("1", "IMG_0001.HEIC"),
        Photo("2", "img_0001.jpeg"),
        Photo("3", "IMG_0001 (2).png"),
        Photo("4", "movie.MP4", Component.VIDEO),
        Photo("5", "Version 1.5"),
        Photo("6", "a/b.jpg"),
        Photo("7", ""),
        Photo("8", ".jpg"),
        Photo("9", "aux.jpg"),
    ]

    names = plan_file_names(photos, extension_of=lambda photo: ".MP4" if photo.component is Component.VIDEO else ".jpg")

    assert list(names.values()) == [
        "IMG_0001.jpg",
        "img_0001 (2).jpg",
        "IMG_0001 (2) (2).jpg",
        "movie.mp4",
        "Version 1.5.jpg",
        "a_b.jpg",
        "photo.jpg",
        "jpg.jpg",
        "_aux.jpg",
    ]


def test_a_live_movie_bears_the_stem_of_its_still() -> None:
    photos = [
        Photo("v", "IMG_0001.mov", Component.VIDEO),
        Photo("1", "IMG_0001.HEIC"),
        Photo("1", "IMG_0001.mov", Component.LIVE_MOVIE),
        Photo("2", "IMG_0001.HEIC"),
        Photo("2", "something else.mov", Component.LIVE_MOVIE),
    ]

    assert plan_file_names(photos, extension_of=jpeg_or_own) == {
        ("v", "video"): "IMG_0001.mov",
        ("1", "still"): "IMG_0001 (2).jpg",
        ("1", "live_movie"): "IMG_0001 (2).mov",
        ("2", "still"): "IMG_0001 (3).jpg",
        ("2", "live_movie"): "IMG_0001 (3).mov",
    }


def test_a_movie_that_comes_to_an_exported_still_takes_its_name_and_the_other_way_round() -> None:
    photos = [Photo("1", "A.HEIC"), Photo("1", "A.mov", Component.LIVE_MOVIE)]
    still, movie = ("1", "still"), ("1", "live_movie")

    assert plan_file_names(photos, extension_of=jpeg_or_own, kept={still: "A (7).jpg"})[movie] == "A (7).mov"
    assert plan_file_names(photos, extension_of=jpeg_or_own, kept={movie: "A (7).mov"})[still] == "A (7).jpg"


def test_names_of_files_that_are_not_ours_are_left_alone() -> None:
    names = plan_file_names([Photo("1", "A.png")], extension_of=jpeg_or_own, reserved=["a.JPG", "A (2).jpg"])

    assert names == {("1", "still"): "A (3).jpg"}


@pytest.mark.parametrize("extension", ["/../x", ".\x00", "." + "y" * 400, "", "."])
def test_a_hostile_extension_makes_no_hostile_name(extension: str) -> None:
    (name,) = plan_file_names([Photo("1", "A.png")], extension_of=lambda _: extension).values()

    assert "/" not in name
    assert "\x00" not in name
    assert len(name) < 30


photo_lists = st.lists(
    st.builds(Photo, st.sampled_from("abcdefgh"), titles.map(lambda stem: stem + ".heic"), components), max_size=16
)


@given(photo_lists, st.lists(titles.map(lambda stem: folder_name(stem)[:40] + ".jpg"), max_size=4), st.data())
def test_no_two_photos_share_a_name_and_decided_names_stay(
    photos: list[Photo], reserved: list[str], data: st.DataObject
) -> None:
    plan = plan_file_names(photos, extension_of=jpeg_or_own, reserved=reserved)
    keys = {(photo.id, photo.component.value) for photo in photos}
    assert plan.keys() == keys

    assert len({on_a_forgiving_disk(name) for name in plan.values()}) == len(plan)
    assert {on_a_forgiving_disk(name) for name in plan.values()}.isdisjoint(map(on_a_forgiving_disk, reserved))
    assert all(0 < len(name.encode()) <= 255 and "/" not in name for name in plan.values())
    assert plan == plan_file_names(photos, extension_of=jpeg_or_own, reserved=reserved)

    kept = {key: name for key, name in plan.items() if data.draw(st.booleans())}
    later = data.draw(st.permutations(photos))
    again = plan_file_names(later, extension_of=jpeg_or_own, reserved=reserved, kept=kept)
    assert all(again[key] == name for key, name in kept.items())
    assert len({on_a_forgiving_disk(name) for name in again.values()}) == len(again)


@settings(max_examples=30)
@given(photo_lists)
def test_a_live_photo_keeps_together(photos: list[Photo]) -> None:
    plan = plan_file_names(photos, extension_of=jpeg_or_own)

    for photo_id in {photo.id for photo in photos}:
        still, movie = plan.get((photo_id, "still")), plan.get((photo_id, "live_movie"))
        if still and movie:
            assert still.removesuffix(".jpg") == movie.removesuffix(".mov")


@pytest.mark.parametrize("stem", [lambda _: "IMG_0001", lambda number: f"IMG_0001 ({number})", lambda _: "Ж" * 200])
def test_a_hundred_thousand_equal_stems_cost_about_one_look_each(
    stem: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    original = collision_key

    def counting(name: str) -> str:
        nonlocal looks
        looks += 1
        return original(name)

    monkeypatch.setattr("skicyclerun.files.naming.collision_key", counting)
    photos = [Photo(str(number), stem(number) + ".heic") for number in range(20_000)]

    names = plan_file_names(photos, extension_of=jpeg_or_own)

    assert len(set(names.values())) == 20_000
    assert looks < 4 * 20_000
