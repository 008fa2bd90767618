"""Photos.app as a source, against the stand-in: every scenario that docs/photos-app.md lists."""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skicyclerun.errors import (
    Cancelled,
    NotWritable,
    PhotoError,
    PhotoGone,
    PhotoRefused,
    PhotoSlow,
    PhotoTransient,
    PhotoUnreadable,
    SkicyclerunError,
    SourceError,
    SourceStopped,
)
from skicyclerun.models import Album, Component, Fetched, LibraryMetadata, Location, Photo, Rendering, Waiting
from skicyclerun.sources import album_dialogs, photos_app_answers, photos_app_process
from skicyclerun.sources.base import Source, TimeLimits
from skicyclerun.sources.osascript import Osascript
from skicyclerun.sources.photos_app import PhotosApp, metadata_of
from skicyclerun.sources.photos_app_answers import AnswerIncomplete, AnswerUnknown
from skicyclerun.sources.photos_app_exports import date_taken, look_into
from skicyclerun.sources.photos_app_waiting import ExportPatience, ListingProgress
from tests.standin_osascript.play import is_running
from tests.standin_osascript.scenario import SCRIPT, Scenario, error, until

NFD = unicodedata.normalize("NFD", "Skitour Grünhornlücke é")
NFC = unicodedata.normalize("NFC", NFD)


class Make(Protocol):
    def __call__(self, **settings: Any) -> PhotosApp: ...


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path / "standin")


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def app(scenario: Scenario, log: list[str], monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes the scenario as it then is, and gives a source that meets the stand-in."""

    def make(**settings: Any) -> PhotosApp:
        for name, value in scenario.environment().items():
            monkeypatch.setenv(name, value)
        seconds = settings.pop("photo_timeout", 30.0)
        defaults: dict[str, Any] = {
            "limits": TimeLimits(seconds, seconds),
            "list_timeout": 30.0,
            "settle_interval": 0.01,
            "settle_patience": 0.05,
            "retry_pause": 0.0,
            "grace": 0.2,
        }
        return PhotosApp(script=SCRIPT, **{"log": log.append, **defaults, **settings})

    return make


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    return tmp_path / "staging" / "attempt_1"


def photo(item_id: str, name: str = "IMG_0001.JPG", component: Component = Component.STILL) -> Photo:
    return Photo(item_id, name, component)


def movie_bytes(*, whole: bool = True) -> bytes:
    data = b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  " + b"\x00\x00\x00\x10moov" + b"m" * 8
    return data + b"\x00\x00\x00\x40mdat" + b"d" * (56 if whole else 20)


def jpeg_bytes(size: int = 64, taken: str = "") -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    Image.effect_noise((size, size), 80).convert("RGB").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


# ── albums ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_is_a_source_that_takes_one_photo_at_a_time(app: Make) -> None:
    source: Source = app()
    assert source.parallel is False
    assert source.kind == "apple_photos"
    assert source.location == "Photos.app"
    await source.close()
    await source.close()


async def test_albums_keep_their_ids_folders_and_counts(scenario: Scenario, app: Make) -> None:
    items = [scenario.add_item() for _ in range(3)]
    top = scenario.add_album("Lake", items)
    nested = scenario.add_album("Day 1", items[:1], folders=["Trips", "2023"])
    empty = scenario.add_album("Empty")
    source = app()
    await source.open()
    assert await source.albums() == [
        Album(top, "Lake", (), 3),
        Album(nested, "Day 1", ("Trips", "2023"), 1),
        Album(empty, "Empty", (), 0),
    ]
    assert await source.photos(empty) == []


async def test_albums_of_one_name_are_albums_of_their_own(scenario: Scenario, app: Make) -> None:
    first = scenario.add_album("Test Album", [scenario.add_item("A.JPG")])
    second = scenario.add_album("Test Album", [scenario.add_item("B.JPG")])
    source = app()
    assert [(album.id, album.title) for album in await source.albums()] == [
        (first, "Test Album"),
        (second, "Test Album"),
    ]
    assert [each.original_filename for each in await source.photos(second)] == ["B.JPG"]


@pytest.mark.parametrize(
    "title",
    [
        "Berg, See; Tal",
        'A "quoted" title',
        "line one\nline two",
        "tab\tand \\ and /",
        "(*not a comment*)",
        " ",
        "🏔️ ski",
    ],
)
async def test_titles_survive_whatever_they_hold(scenario: Scenario, app: Make, title: str) -> None:
    scenario.add_album(title, folders=[title])
    album = (await app().albums())[0]
    assert (album.title, album.folder_path) == (title, (title,))


async def test_a_title_that_is_missing_or_decomposed(scenario: Scenario, app: Make) -> None:
    scenario.add_album(None)
    scenario.add_album(NFD, folders=[NFD])
    titles = [(album.title, album.folder_path) for album in await app().albums()]
    assert titles == [("", ()), (NFC, (NFC,))]


async def test_a_library_without_albums(app: Make) -> None:
    source = app()
    await source.open()
    assert await source.albums() == []


# ── large libraries ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_thousand_albums_are_counted_in_many_calls_and_progress_is_told(
    scenario: Scenario, app: Make
) -> None:
    items = [scenario.add_item() for _ in range(3)]
    ids = [scenario.add_album(f"Album {number}", items[: number % 4], folders=["Trips"]) for number in range(2000)]
    told: list[Waiting] = []
    listed = await app(on_wait=told.append, tell_after=0.01).albums()
    assert [album.id for album in listed] == ids
    assert [album.photo_count for album in listed] == [number % 4 for number in range(2000)]
    calls = [len(call["words"]) for call in scenario.calls("album-counts")]
    assert calls == [100] * 20
    counted = [each.done for each in told if each.kind == "albums" and each.of == 2000]
    assert counted == sorted(counted)
    assert len(set(counted)) >= 10
    assert counted[-1] > 1800


async def test_an_album_of_fifty_thousand_items_is_listed_in_one_call(scenario: Scenario, app: Make) -> None:
    ids = [f"{number:08X}-0000-4000-8000-000000000000/L0/001" for number in range(50_000)]
    scenario.items = {item_id: {"filename": f"IMG_{number}.HEIC"} for number, item_id in enumerate(ids)}
    album = scenario.add_album("Everything", ids)
    source = app()
    (listed,) = await source.albums()
    assert listed.photo_count == 50_000
    photos = await source.photos(album)
    assert len(photos) == 50_000
    assert (photos[-1].id, photos[-1].original_filename) == (ids[-1], "IMG_49999.HEIC")
    (call,) = scenario.calls("item-ids")
    # 30 s, and 500 more for so many; less ten, so that Photos' own time-out comes first.
    assert call["argv"][2:4] == ["--timeout", "520"]


async def test_an_album_whose_count_nobody_knows_is_counted_before_it_is_listed(scenario: Scenario, app: Make) -> None:
    items = [scenario.add_item() for _ in range(3)]
    album = scenario.add_album("Lake", items)
    assert len(await app(list_timeout=600.0).photos(album)) == 3
    assert [note["verb"] for note in scenario.notes()] == ["album-counts", "item-ids"]


async def test_counting_that_fails_once_is_asked_again_for_those_albums_only(scenario: Scenario, app: Make) -> None:
    ids = [scenario.add_album(f"Album {number}") for number in range(220)]
    scenario.add_fault("album-counts", about=ids[160], error=error(-609, "Connection is invalid."))
    assert len(await app().albums()) == 220
    firsts = [call["words"][0] for call in scenario.calls("album-counts")]
    assert firsts == [ids[0], ids[100], ids[100], ids[200]]
    assert len(scenario.calls("list-albums")) == 1


async def test_an_album_that_is_removed_while_the_albums_are_counted_is_left_out(scenario: Scenario, app: Make) -> None:
    scenario.add_album("Lake")
    gone = scenario.add_album("Gone")
    app()
    listing = await Osascript(script=SCRIPT, log=print).run("list-albums", seconds=30)
    scenario.add_fault("list-albums", output=base64.b64encode(listing.output.encode()).decode())
    scenario.albums = [album for album in scenario.albums if album["id"] != gone]
    assert [album.title for album in await app().albums()] == ["Lake"]


async def test_each_step_of_a_listing_gives_it_its_whole_time_anew(scenario: Scenario, app: Make) -> None:
    """The bound is on silence, and each album counted is progress."""
    told: list[Waiting] = []
    progress = ListingProgress(Waiting("albums", "Photos.app", 0.0), told.append, 120.0, 0.0)
    assert progress.heard("skicyclerun: listed 120") == 120
    progress.begin(50, 120)
    for number in range(1, 51):
        assert progress.heard(f"skicyclerun: counted {number}") == 120
    assert progress.heard("skicyclerun: at names") == 120
    assert progress.heard("An album was removed while the albums were listed.") is None
    assert [(each.done, each.of) for each in told] == [(120, 0), *((number, 120) for number in range(51, 101))]


async def test_a_listing_that_takes_long_says_so_meanwhile(scenario: Scenario, app: Make) -> None:
    album = scenario.add_album("Lake", [scenario.add_item()])
    go = scenario.folder / "go"
    scenario.add_fault("item-ids", until=str(go))
    told: list[Waiting] = []

    def tell(waiting: Waiting) -> None:
        told.append(waiting)
        if sum(each.kind == "album" for each in told) == 3:
            go.touch()

    source = app(on_wait=tell, tell_after=0.01)
    await source.albums()
    assert len(await source.photos(album)) == 1
    waits = [each for each in told if each.kind == "album"]
    assert {(each.what, each.of) for each in waits} == {("Lake", 1)}
    assert [each.seconds for each in waits] == sorted(each.seconds for each in waits)


# ── what is about to be asked ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("program", "name"), [("Apple_Terminal", "Terminal"), ("iTerm.app", "iTerm"), ("\x1b[2Jx", "your terminal")]
)
async def test_what_macos_will_ask_is_said_before_photos_is_asked_and_waiting_is_shown(
    scenario: Scenario, app: Make, monkeypatch: pytest.MonkeyPatch, program: str, name: str
) -> None:
    monkeypatch.setenv("TERM_PROGRAM", program)
    go = scenario.folder / "go"
    scenario.add_fault("preflight", until=str(go))
    told: list[Waiting] = []
    asked_by_then: list[int] = []

    def tell(waiting: Waiting) -> None:
        told.append(waiting)
        asked_by_then.append(len(scenario.notes()))
        if len(told) == 3:
            go.touch()

    await app(on_wait=tell, tell_after=0.01).open()
    assert asked_by_then[0] == 0, "before the first event"
    assert (told[0].kind, told[0].seconds, told[0].at_most) == ("application", 0.0, 30.0)
    assert f"macOS asks whether {name} may control Photos" in told[0].note
    assert [each.seconds for each in told[:3]] == sorted(each.seconds for each in told[:3])
    assert told[2].seconds > 0


@pytest.mark.parametrize("behaviour", [{"error": error(-1743)}, {"error": error(-1712)}, {"hang": "silent"}])
async def test_before_anything_began_the_advice_is_to_type_the_command_again(
    scenario: Scenario, app: Make, behaviour: dict[str, Any]
) -> None:
    scenario.add_fault("preflight", **behaviour, times=-1)
    with pytest.raises(SourceStopped) as caught:
        await app(list_timeout=2.0).open()
    assert caught.value.next_step.endswith("Then `skicyclerun run --resume`."), "as it is once a run has begun"
    caught.value.before_anything_began("skicyclerun run --stages export")
    assert caught.value.next_step.endswith("Then `skicyclerun run --stages export`.")
    assert "--resume" not in caught.value.next_step
    caught.value.before_anything_began("")
    assert "`" not in caught.value.next_step.rpartition("Then")[2]


def test_a_step_that_names_no_command_stays_as_it_is() -> None:
    stopped = SourceStopped("Photos is not reachable.", next_step="Log in.")
    stopped.before_anything_began("skicyclerun run")
    assert stopped.next_step == "Log in."


# ── the photos of an album ────────────────────────────────────────────────────────────────────────────────────────


async def test_an_album_is_listed_in_one_call_in_photos_order(scenario: Scenario, app: Make) -> None:
    items = [scenario.add_item(name) for name in ("B.HEIC", "A, with comma.JPG", "line\nbreak.png", "clip.MOV")]
    album = scenario.add_album("Lake", items)
    source = app()
    await source.albums()
    photos = await source.photos(album)
    assert [each.id for each in photos] == items
    assert [each.original_filename for each in photos] == ["B.HEIC", "A, with comma.JPG", "line\nbreak.png", "clip.MOV"]
    assert [each.component for each in photos] == [Component.STILL] * 3 + [Component.VIDEO]
    assert [note["verb"] for note in scenario.notes()] == ["list-albums", "album-counts", "item-ids"]


async def test_an_item_without_a_name_is_named_after_its_id(scenario: Scenario, app: Make) -> None:
    item = scenario.add_item(None, files=[])
    assert await app().photos(scenario.add_album("Lake", [item])) == [Photo(item, item.partition("/")[0])]


async def test_names_that_cannot_be_told_apart_are_asked_for_one_by_one(scenario: Scenario, app: Make) -> None:
    items = [scenario.add_item("a\x1fb.JPG"), scenario.add_item("c.JPG")]
    photos = await app().photos(scenario.add_album("Lake", items))
    assert [each.original_filename for each in photos] == ["a b.JPG", "c.JPG"]
    assert len(scenario.calls("item-facts")) == 1


async def test_an_item_that_is_in_an_album_twice_is_one_photo(scenario: Scenario, app: Make) -> None:
    item = scenario.add_item("A.JPG")
    assert len(await app().photos(scenario.add_album("Lake", [item, item]))) == 1


async def test_an_album_that_is_gone_fails_alone(scenario: Scenario, app: Make) -> None:
    with pytest.raises(SourceError, match="no longer in Photos") as caught:
        await app().photos("0000/L0/040")
    assert not isinstance(caught.value, SourceStopped)


async def test_an_album_that_keeps_changing_fails_alone(scenario: Scenario, app: Make) -> None:
    album = scenario.add_album("Lake")
    scenario.add_fault("item-ids", error=error(9002, "The album kept changing while it was listed."), times=-1)
    with pytest.raises(SourceError, match="kept changing") as caught:
        await app().photos(album)
    assert not isinstance(caught.value, SourceStopped)


@pytest.mark.parametrize("album_id", ["", "-e", "a b", "a\nb", "x" * 300, 'a" of application "Finder"\u200b'])
async def test_what_is_no_id_is_never_sent_to_photos(
    scenario: Scenario, app: Make, album_id: str, attempt: Path
) -> None:
    source = app()
    with pytest.raises(SourceError):
        await source.photos(album_id)
    with pytest.raises(PhotoGone):
        await source.fetch(photo(album_id), attempt)
    assert scenario.notes() == []


# ── fetching ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_photo_comes_with_what_photos_knows(scenario: Scenario, app: Make, attempt: Path) -> None:
    item = scenario.add_item(
        "IMG_0001.HEIC",
        date="2024-07-01T10:00:00",
        location=[46.498295, 11.354758],
        altitude=262.5,
        favorite=True,
        title="Bozen, Walther's square",
        description='two\nlines, and "quotes"',
        keywords=["ski, alpine", "NFD " + NFD, "ski, alpine"],
    )
    fetched = await app().fetch(photo(item, "IMG_0001.HEIC"), attempt)
    assert (fetched.path.parent.parent, fetched.path.name) == (attempt, "IMG_0001.jpeg")
    assert fetched.path.read_bytes() == scenario.jpeg().read_bytes()
    assert fetched.metadata == LibraryMetadata(
        date=datetime(2024, 7, 1, 10),
        location=Location(46.498295, 11.354758, 262.5),
        location_known=True,
        title="Bozen, Walther's square",
        description='two\nlines, and "quotes"',
        keywords=("ski, alpine", "NFD " + NFC),
        rating=5,
        favorite=True,
    )
    assert len(scenario.notes()) == 1, "one call of osascript a photo"


async def test_a_photo_of_which_nothing_is_known(scenario: Scenario, app: Make, attempt: Path) -> None:
    fetched = await app().fetch(
        photo(scenario.add_item(None, files=[{"name": "x.jpeg", "from": str(scenario.jpeg())}])), attempt
    )
    assert fetched.metadata == LibraryMetadata()
    assert fetched.rendering is Rendering.ORIGINAL


async def test_a_position_that_photos_would_not_tell_is_left_to_the_file(
    scenario: Scenario, app: Make, attempt: Path
) -> None:
    item = scenario.add_item("A.JPG", location=[1.0, 2.0], refused=["location", "keywords"])
    metadata = (await app().fetch(photo(item), attempt)).metadata
    assert metadata is not None
    assert (metadata.location, metadata.location_known) == (None, False)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["IMG_0001.jpeg"], "IMG_0001.jpeg"),
        (["IMG_0001 (1).jpeg"], "IMG_0001 (1).jpeg"),
        (["IMG_0001 2.jpeg"], "IMG_0001 2.jpeg"),
        (["FullSizeRender.jpeg"], "FullSizeRender.jpeg"),
        ([".DS_Store", "IMG_0001.JPG"], "IMG_0001.JPG"),
        (["._IMG_0001.jpeg", "IMG_0001.jpeg"], "IMG_0001.jpeg"),
        ([NFD + ".jpeg"], NFD + ".jpeg"),
        (["a name, with; everything\n.jpeg"], "a name, with; everything\n.jpeg"),
    ],
)
async def test_photos_may_name_the_file_as_it_likes(
    scenario: Scenario, app: Make, attempt: Path, names: list[str], chosen: str
) -> None:
    item = scenario.add_item("IMG_0001.JPG", files=[{"name": name, "from": str(scenario.jpeg())} for name in names])
    fetched = await app().fetch(photo(item), attempt)
    assert fetched.path.name == chosen
    assert (fetched.rendering is Rendering.EDITED) is chosen.startswith("FullSizeRender")


async def test_of_a_live_photo_the_still_is_taken(scenario: Scenario, app: Make, attempt: Path) -> None:
    movie = scenario.jpeg("movie.mov", movie_bytes())
    files = [{"name": "IMG_1.mov", "from": str(movie)}, {"name": "IMG_1.jpeg", "from": str(scenario.jpeg())}]
    item = scenario.add_item("IMG_1.HEIC", files=files)
    assert (await app().fetch(photo(item), attempt)).path.name == "IMG_1.jpeg"


async def test_a_still_is_not_kept_waiting_by_its_unfinished_movie(
    scenario: Scenario, app: Make, attempt: Path
) -> None:
    movie = scenario.jpeg("movie.mov", movie_bytes(whole=False))
    files = [{"name": "IMG_1.mov", "from": str(movie)}, {"name": "IMG_1.jpeg", "from": str(scenario.jpeg())}]
    assert (await app().fetch(photo(scenario.add_item("IMG_1.HEIC", files=files)), attempt)).path.name == "IMG_1.jpeg"


async def test_a_movie_is_fetched_as_a_movie(scenario: Scenario, app: Make, attempt: Path) -> None:
    movie = scenario.jpeg("movie.mov", movie_bytes())
    item = scenario.add_item("clip.MOV", files=[{"name": "clip.mov", "from": str(movie)}])
    fetched = await app().fetch(photo(item, "clip.MOV", Component.VIDEO), attempt)
    assert fetched.path.read_bytes() == movie_bytes()


async def test_of_two_pictures_the_larger_jpeg_is_taken(scenario: Scenario, app: Make, attempt: Path) -> None:
    small, large = scenario.jpeg("s.jpg"), scenario.jpeg("l.jpg", jpeg_bytes())
    png = scenario.jpeg("p.png", b"\x89PNG\r\n\x1a\n" + b"x" * 100_000)
    files = [{"name": name, "from": str(path)} for name, path in [("a.jpeg", small), ("b.jpeg", large), ("c.png", png)]]
    assert (await app().fetch(photo(scenario.add_item("a.JPG", files=files)), attempt)).path.name == "b.jpeg"


async def test_a_picture_that_is_no_jpeg_is_handed_on(scenario: Scenario, app: Make, attempt: Path) -> None:
    gif = scenario.jpeg("a.gif", b"GIF89a" + b"x" * 100)
    item = scenario.add_item("a.GIF", files=[{"name": "a.gif", "from": str(gif)}])
    assert (await app().fetch(photo(item, "a.GIF"), attempt)).path.name == "a.gif"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "exported nothing"),
        ([{"name": ".DS_Store"}], "exported nothing"),
        ([{"name": "a.jpeg", "mode": "folder"}], "exported nothing"),
        ([{"name": "a.jpeg", "mode": "link", "from": "/etc/passwd"}], "exported nothing"),
        ([{"name": "a.jpeg"}], "an empty file"),
        ([{"name": "a.jpeg", "from": "@", "cut": 3}], "cut short"),
        ([{"name": "a.jpeg", "from": "@", "cut": 600}], "cut short"),
        ([{"name": "a.jpeg", "from": __file__}], "neither a picture nor a movie"),
        ([{"name": "a.jpeg", "from": "@", "grow": True}], "still writing"),
    ],
)
async def test_an_export_that_left_nothing_usable_may_be_tried_again(
    scenario: Scenario, app: Make, attempt: Path, files: list[dict[str, Any]], reason: str
) -> None:
    picture = scenario.jpeg("large.jpg", jpeg_bytes())
    item = scenario.add_item("a.JPG", files=[{**f, "from": str(picture)} if f.get("from") == "@" else f for f in files])
    with pytest.raises(PhotoTransient, match=reason):
        await app(settle_interval=0.1).fetch(photo(item, "a.JPG"), attempt)
    shutil.rmtree(attempt)


async def test_a_thumbnail_does_not_pass_for_the_end_of_a_picture(scenario: Scenario, app: Make, attempt: Path) -> None:
    data = jpeg_bytes()
    thumbnail = b"Exif\x00\x00" + data[:600] + b"\xff\xd9"
    whole = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    picture = scenario.jpeg("t.jpg", whole)
    item = scenario.add_item("a.JPG", files=[{"name": "a.jpeg", "from": str(picture), "cut": len(whole) - 100}])
    with pytest.raises(PhotoTransient, match="cut short"):
        await app().fetch(photo(item), attempt)


@pytest.mark.parametrize("component", [Component.STILL, Component.VIDEO])
async def test_a_movie_for_a_picture_and_a_picture_for_a_movie_fail_for_good(
    scenario: Scenario, app: Make, attempt: Path, component: Component
) -> None:
    other = scenario.jpeg() if component is Component.VIDEO else scenario.jpeg("m.mov", movie_bytes())
    item = scenario.add_item("a.GIF", files=[{"name": "a", "from": str(other)}])
    with pytest.raises(PhotoUnreadable, match=r"no movie but a picture|no picture but a movie"):
        await app().fetch(photo(item, component=component), attempt)


async def test_a_live_movie_is_not_to_be_had_from_photos(scenario: Scenario, app: Make, attempt: Path) -> None:
    with pytest.raises(PhotoUnreadable):
        await app().fetch(photo(scenario.add_item(), component=Component.LIVE_MOVIE), attempt)


async def test_an_attempt_never_uses_what_lies_in_its_directory_already(
    scenario: Scenario, app: Make, attempt: Path
) -> None:
    os.makedirs(attempt)
    shutil.copyfile(scenario.jpeg(), attempt / "older.jpeg")
    with pytest.raises(PhotoTransient, match="exported nothing"):
        await app().fetch(photo(scenario.add_item(files=[])), attempt)


async def test_a_directory_that_cannot_be_made_is_said(scenario: Scenario, app: Make, attempt: Path) -> None:
    os.makedirs(attempt.parent)
    shutil.copyfile(scenario.jpeg(), attempt)
    with pytest.raises(NotWritable, match="cannot be made"):
        await app().fetch(photo(scenario.add_item()), attempt)
    assert scenario.notes() == []


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────

ON_A_PHOTO: list[tuple[int, type[SkicyclerunError]]] = [
    (-1712, PhotoSlow),
    (-1743, SourceStopped),
    (-1728, PhotoGone),
    (-600, PhotoTransient),
    (-609, PhotoTransient),
    (-10810, PhotoTransient),
    (-128, PhotoTransient),
    (-1700, PhotoRefused),
    (-1703, PhotoRefused),
    (-1708, PhotoRefused),
    (-2740, SourceStopped),
    (-2741, SourceStopped),
    (-10000, PhotoTransient),
    (-10004, PhotoTransient),
    (-4960, PhotoTransient),
]


@pytest.mark.parametrize(("number", "expected"), ON_A_PHOTO)
async def test_what_an_error_means_for_a_photo(
    scenario: Scenario, app: Make, attempt: Path, number: int, expected: type[SkicyclerunError]
) -> None:
    item = scenario.add_item("IMG_0001.JPG")
    form = "syntax" if number in (-2740, -2741) else "path"
    scenario.add_fault(error=error(number, "Fotos hat einen Fehler erhalten: \N{DOUBLE LOW-9 QUOTATION MARK}…", form))
    source = app(photo_timeout=10 if number != -1712 else 1)
    with pytest.raises(expected) as caught:
        await source.fetch(photo(item), attempt)
    assert type(caught.value) is expected
    assert str(number) in str(caught.value)
    if isinstance(caught.value, PhotoError):
        stops = caught.value.if_every
        assert (stops is not None) is (number in (-1700, -1703, -1708, -1728))
        assert stops is None or "report it" in stops.next_step
        assert "IMG_0001.JPG" in str(caught.value)
        assert (await source.fetch(photo(item), attempt.with_name("attempt_2"))).path.is_file()
    elif number == -1743:
        assert "Automation" in caught.value.next_step


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (-1743, "Automation"),
        (-2741, "report"),
        (-600, "desktop session"),
        (-10810, "desktop session"),
        (-1712, "dialog"),
    ],
)
async def test_a_pre_flight_that_fails_says_what_to_do(scenario: Scenario, app: Make, number: int, step: str) -> None:
    scenario.add_fault("preflight", error=error(number), times=-1)
    with pytest.raises(SourceStopped) as caught:
        await app().open()
    assert str(number) in str(caught.value)
    assert step in caught.value.next_step


@pytest.mark.parametrize("number", [-128, -1728, -10000])
async def test_any_other_pre_flight_error_stops_the_run_too(scenario: Scenario, app: Make, number: int) -> None:
    scenario.add_fault("preflight", error=error(number), times=-1)
    with pytest.raises(SourceStopped, match=str(number)):
        await app().open()


@pytest.mark.parametrize("number", [-600, -609, -10000])
async def test_a_connection_that_fails_once_is_tried_again(
    scenario: Scenario, app: Make, number: int, log: list[str]
) -> None:
    scenario.add_album("Lake")
    scenario.add_fault("list-albums", error=error(number))
    assert len(await app().albums()) == 1
    assert any("once more" in line for line in log)


async def test_permission_denied_on_the_first_call_is_not_asked_for_again(scenario: Scenario, app: Make) -> None:
    scenario.add_fault("*", error=error(-1743), times=-1)
    with pytest.raises(SourceStopped):
        await app().open()
    assert len(scenario.notes()) == 1


async def test_an_error_that_the_script_caught_leaves_no_file_and_is_transient(
    scenario: Scenario, app: Make, attempt: Path, log: list[str]
) -> None:
    item = scenario.add_item()
    scenario.add_fault(caught=error(-1712, "AppleEvent timed out."))
    with pytest.raises(PhotoTransient, match="exported nothing"):
        await app().fetch(photo(item), attempt)
    assert "Error: AppleEvent timed out. (-1712)" in log


async def test_ten_failures_in_a_row_are_ten_transient_errors_and_then_it_works(
    scenario: Scenario, app: Make, attempt: Path
) -> None:
    item = scenario.add_item()
    scenario.add_fault(error=error(-609, "Connection is invalid."), times=10)
    source = app()
    for number in range(10):
        with pytest.raises(PhotoTransient):
            await source.fetch(photo(item), attempt.with_name(f"attempt_{number}"))
    assert (await source.fetch(photo(item), attempt.with_name("attempt_10"))).path.is_file()


@pytest.mark.parametrize("verb", ["export-item", "list-albums", "item-ids"])
async def test_an_answer_that_breaks_off_is_not_believed(
    scenario: Scenario, app: Make, attempt: Path, verb: str
) -> None:
    item = scenario.add_item()
    album = scenario.add_album("Lake", [item])
    scenario.add_fault(verb, cut_output=45, times=-1)
    source = app()
    match verb:
        case "export-item":
            with pytest.raises(PhotoTransient, match="broke off"):
                await source.fetch(photo(item), attempt)
        case "list-albums":
            with pytest.raises(SourceStopped, match="broke off"):
                await source.albums()
        case _:
            with pytest.raises(SourceStopped, match="broke off"):
                await source.photos(album)


async def test_another_script_that_answers_stops_the_run(scenario: Scenario, app: Make, attempt: Path) -> None:
    item = scenario.add_item()
    scenario.add_fault("*", output=base64.b64encode(b"missing value\n").decode(), times=-1)
    source = app()
    for call in (source.open(), source.albums(), source.fetch(photo(item), attempt)):
        with pytest.raises(SourceStopped, match="not what the script"):
            await call


async def test_facts_of_another_item_stop_the_run(scenario: Scenario, app: Make, attempt: Path) -> None:
    items = [scenario.add_item(), scenario.add_item()]
    source = app()
    answer = await Osascript(script=SCRIPT, log=print).run("export-item", items[0], str(scenario.folder), seconds=30)
    scenario.add_fault(about=items[1], output=base64.b64encode(answer.output.encode()).decode())
    source = app()
    with pytest.raises(SourceStopped):
        await source.fetch(photo(items[1]), attempt)


async def test_bytes_that_are_no_utf8_cost_nothing_but_themselves(
    scenario: Scenario, app: Make, attempt: Path, log: list[str]
) -> None:
    item = scenario.add_item("IMG_\udcff.JPG", title="caf\udce9")
    scenario.add_fault(stderr=base64.b64encode(b"\xff\xfe\n").decode())
    metadata = (await app().fetch(photo(item), attempt)).metadata
    assert metadata is not None
    assert metadata.title == "caf\N{REPLACEMENT CHARACTER}"
    assert log == ["\N{REPLACEMENT CHARACTER}" * 2]


async def test_more_than_a_pipe_holds_on_both_streams(scenario: Scenario, app: Make, attempt: Path) -> None:
    item = scenario.add_item(description="x" * 200_000)
    scenario.add_fault(flood=200_000)
    metadata = (await app().fetch(photo(item), attempt)).metadata
    assert metadata is not None
    assert metadata.description == "x" * 200_000


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hang", ["silent", "line"])
async def test_an_export_that_hangs_is_ended_and_may_be_tried_again(
    scenario: Scenario, app: Make, attempt: Path, hang: str
) -> None:
    item = scenario.add_item()
    scenario.add_fault(hang=hang)
    source = app(photo_timeout=2)
    with pytest.raises(PhotoTransient, match="Photos may still finish"):
        await source.fetch(photo(item), attempt)
    assert not is_running(scenario.calls("export-item")[0]["pid"])


async def test_a_listing_that_hangs_stops_the_run(scenario: Scenario, app: Make) -> None:
    scenario.add_fault("list-albums", hang="silent")
    with pytest.raises(SourceStopped, match="no answer within the time given"):
        await app(list_timeout=2).albums()


async def test_the_events_own_time_is_shorter_than_ours(scenario: Scenario, app: Make, attempt: Path) -> None:
    item = scenario.add_item()
    await app(photo_timeout=120).fetch(photo(item), attempt)
    assert scenario.calls("export-item")[0]["argv"][1:4] == ["export-item", "--timeout", "98"]


def test_time_grows_with_the_size_and_a_movie_has_its_own() -> None:
    limits = TimeLimits(photo=120.0, movie=600.0, per_mb=0.5)
    assert limits.seconds(Component.STILL) == 120
    assert limits.seconds(Component.STILL, 50_000_000) == 145
    assert limits.seconds(Component.VIDEO, 2_000_000_000) == 1600
    assert limits.seconds(Component.LIVE_MOVIE) == 600


async def test_an_export_may_take_longer_once_the_size_is_known(scenario: Scenario, app: Make, attempt: Path) -> None:
    movie = scenario.jpeg("movie.mov", movie_bytes())
    item = scenario.add_item("clip.MOV", size=2_000_000_000, files=[{"name": "clip.mov", "from": str(movie)}])
    told: list[Waiting] = []
    source = app(limits=TimeLimits(120.0, 600.0, 1.5), on_wait=told.append)
    await source.fetch(photo(item, "clip.MOV", Component.VIDEO), attempt)
    assert [each.at_most for each in told] == [600.0, 3600.0]
    # Nine tenths of 600, less ten, and of each megabyte's 1.5 s: the rest is for the file that may still come.
    assert scenario.calls("export-item")[0]["argv"][1:6] == ["export-item", "--timeout", "530", "--growth", "1350"]


async def test_the_time_of_a_call_counts_from_the_size_that_was_told(scenario: Scenario, app: Make) -> None:
    call = ExportPatience(photo("A"), TimeLimits(100.0, 600.0, 1.0), lambda waiting: None)
    assert call.heard("skicyclerun: size 25") == pytest.approx(0.9 * 125, abs=1)
    assert call.left == pytest.approx(125, abs=1)
    assert call.heard("skicyclerun: size 1,5E+3") == pytest.approx(0.9 * 1600, abs=1)
    for odd in ("-1", "nan", "1e7", "many"):
        assert call.heard(f"skicyclerun: size {odd}") == pytest.approx(0.9 * 1600, abs=1)
    assert call.heard("(*size 3*)") is None


async def test_a_download_is_told_while_it_goes_on_with_what_it_may_take(
    scenario: Scenario, app: Make, attempt: Path
) -> None:
    item = scenario.add_item("IMG_0001.HEIC")
    go = scenario.folder / "go"
    scenario.add_fault(log=["skicyclerun: size 25"], until=str(go))
    told: list[Waiting] = []

    def tell(waiting: Waiting) -> None:
        told.append(waiting)
        if waiting.seconds and waiting.at_most == 55:
            go.touch()

    source = app(limits=TimeLimits(30.0, 600.0, 1.0), on_wait=tell, tell_after=0.05)
    await source.fetch(photo(item, "IMG_0001.HEIC"), attempt)
    waits = [each for each in told if each.seconds]
    assert {(each.kind, each.what) for each in waits} == {("photo", "IMG_0001.HEIC")}
    assert waits[-1].at_most == 55.0
    assert [each.seconds for each in waits] == sorted(each.seconds for each in waits)
    assert "iCloud" in waits[0].note
    assert [each.over for each in waits] == [False] * (len(waits) - 1) + [True]


async def test_a_photo_that_comes_at_once_is_not_told_about(scenario: Scenario, app: Make, attempt: Path) -> None:
    told: list[Waiting] = []
    await app(on_wait=told.append, tell_after=30.0).fetch(photo(scenario.add_item()), attempt)
    assert [(each.seconds, each.over) for each in told] == [(0.0, False)]


async def test_a_file_that_comes_after_the_reply_timed_out_is_still_taken(
    scenario: Scenario, app: Make, attempt: Path
) -> None:
    item = scenario.add_item("IMG_0001.JPG", title="Lake")
    files = [{"name": "IMG_0001.jpeg", "from": str(scenario.jpeg()), "after_exit": True}]
    scenario.add_fault(error=error(-1712), files=files)
    fetched = await app(photo_timeout=30).fetch(photo(item), attempt)
    assert fetched.path.read_bytes() == scenario.jpeg().read_bytes()
    assert fetched.metadata is not None
    assert fetched.metadata.title == "Lake"
    assert len(scenario.calls("item-facts")) == 1


@pytest.mark.parametrize("behaviour", [{"error": error(-1712)}, {"hang": "silent"}])
async def test_a_file_that_comes_much_later_never_reaches_the_next_attempt(
    scenario: Scenario, app: Make, attempt: Path, behaviour: dict[str, Any]
) -> None:
    trigger = scenario.folder / "now"
    stale = scenario.jpeg("stale.jpg", jpeg_bytes())
    item = scenario.add_item("IMG_0001.JPG")
    scenario.add_fault(**behaviour, files=[{"name": "IMG_0001.jpeg", "from": str(stale), "when": str(trigger)}])
    source = app(photo_timeout=2)
    with pytest.raises(PhotoTransient):
        await source.fetch(photo(item), attempt)
    trigger.touch()
    await until(lambda: trigger.with_name("now.done").exists())
    again = await source.fetch(photo(item), attempt.with_name("attempt_2"))
    assert [file.path.read_bytes() for name in os.listdir(attempt) for file in look_into(attempt / name)] == [
        stale.read_bytes()
    ]
    assert again.path.read_bytes() == scenario.jpeg().read_bytes()


async def test_a_late_file_is_not_taken_either_where_an_attempt_bears_the_name_of_an_earlier_one(
    scenario: Scenario, app: Make, attempt: Path
) -> None:
    trigger = scenario.folder / "now"
    stale = scenario.jpeg("stale.jpg", jpeg_bytes())
    item = scenario.add_item("IMG_0001.JPG", files=[])
    scenario.add_fault(error=error(-1712), files=[{"name": "IMG_0001.jpeg", "from": str(stale), "when": str(trigger)}])
    with pytest.raises(PhotoTransient):
        await app(photo_timeout=1).fetch(photo(item), attempt)
    shutil.rmtree(attempt)
    scenario.add_fault(log=["now"])
    source = app(log=lambda line: trigger.touch(), settle_patience=1)
    with pytest.raises(PhotoTransient, match="exported nothing"):
        await source.fetch(photo(item), attempt)
    await until(lambda: trigger.with_name("now.done").exists())


async def test_a_late_file_whose_directory_is_gone_makes_no_new_one(
    scenario: Scenario, app: Make, attempt: Path
) -> None:
    trigger = scenario.folder / "now"
    item = scenario.add_item("IMG_0001.JPG")
    scenario.add_fault(
        error=error(-1712), files=[{"name": "IMG_0001.jpeg", "from": str(scenario.jpeg()), "when": str(trigger)}]
    )
    with pytest.raises(PhotoTransient):
        await app(photo_timeout=1).fetch(photo(item), attempt)
    shutil.rmtree(attempt)
    trigger.touch()
    await until(lambda: trigger.with_name("now.done").exists())
    assert os.listdir(attempt.parent) == []


async def test_cancelling_a_fetch_leaves_no_process(scenario: Scenario, app: Make, attempt: Path) -> None:
    item = scenario.add_item()
    scenario.add_fault(hang="silent", deaf=True)
    async with anyio.create_task_group() as tasks:

        async def fetch() -> None:
            await app().fetch(photo(item), attempt)

        tasks.start_soon(fetch)
        await until(lambda: any("hanging" in note for note in scenario.notes()))
        tasks.cancel_scope.cancel()
    assert not is_running(scenario.calls("export-item")[0]["pid"])


# ── dialogs ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_albums_and_folders_chosen_in_dialogs(scenario: Scenario, app: Make, tmp_path: Path) -> None:
    album = scenario.add_album("Lake, big")
    scenario.dialogs = {"choose-albums": [album], "choose-folder": str(tmp_path / "a, folder")}
    app()
    call = Osascript(script=SCRIPT, log=print)
    assert await album_dialogs.choose_albums(call) == [album]
    assert await album_dialogs.choose_folder(call, "Where to?", tmp_path) == tmp_path / "a, folder"
    assert scenario.calls("choose-folder")[0]["words"] == ["Where to?", str(tmp_path)]


async def test_a_closed_dialog_is_a_cancellation(scenario: Scenario, app: Make) -> None:
    app()
    call = Osascript(script=SCRIPT, log=print)
    for dialog in (album_dialogs.choose_albums(call), album_dialogs.choose_folder(call, "Where to?")):
        with pytest.raises(Cancelled):
            await dialog


async def test_a_dialog_that_cannot_be_shown_stops(scenario: Scenario, app: Make) -> None:
    scenario.add_fault("choose-albums", error=error(-1743))
    app()
    with pytest.raises(SourceStopped, match="-1743") as caught:
        await album_dialogs.choose_albums(Osascript(script=SCRIPT, log=print))
    assert "Automation" in caught.value.next_step


# ── restarting Photos ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_photos_is_not_restarted_unless_that_was_allowed(app: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos_app_process, "end_photos", pytest.fail)
    assert await app().restart() is False


@pytest.fixture
def stranger(tmp_path: Path) -> Callable[[str], subprocess.Popen[bytes]]:
    """Starts a process whose executable has the given name."""

    def start(name: str) -> subprocess.Popen[bytes]:
        program = tmp_path / name
        shutil.copyfile(shutil.which("sleep") or "/bin/sleep", program)
        program.chmod(0o755)
        return subprocess.Popen([program, "60"])

    return start


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="on macOS ps gives the path, and a copy of sleep may not run")
async def test_a_restart_ends_exactly_photos(
    scenario: Scenario, app: Make, stranger: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    name = f"Ph{os.getpid()}"
    photos, other = stranger(name), stranger(f"My{name}")
    try:
        # The child is ours, so somebody has to collect it for it to be gone.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, partial(photos.wait, 30))
            assert await app(restart_photos=True, process_name=name, grace=10).restart() is True
        assert other.poll() is None
        assert len(scenario.calls("preflight")) == 1
    finally:
        for process in (photos, other):
            process.kill()
            process.wait()


def test_processes_are_matched_by_their_whole_name_and_user() -> None:
    listing = (
        "    1     0 /sbin/launchd\n"
        "  501   501 /System/Applications/Photos.app/Contents/MacOS/Photos\n"
        "  502   502 /System/Applications/Photos.app/Contents/MacOS/Photos\n"
        "  503   501 /Users/x/Not Photos.app/Contents/MacOS/Photos\n"
        "  504   501 /System/Applications/Photos.app/Contents/MacOS/Photos Helper\n"
        "  505   501 Photos\n"
        "  506   501 /usr/bin/Photos\n"
        "  507   501 MyPhotos\n"
        "garbage\n"
    )
    assert photos_app_process.processes_named(listing, "Photos", 501) == [501, 505]


# ── what is pure ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("told", "in_file", "expected"),
    [
        ("2024-07-01T10:00:00", None, "2024-07-01T10:00:00"),
        ("2024-07-01T10:00:00", "2024-07-01T10:00:00", None),
        ("2024-07-01T10:00:00", "2024-07-01T19:00:00", None),
        ("2024-07-01T10:00:00", "2024-07-01T04:15:00", None),
        ("2024-07-01T10:00:00", "2024-07-01T09:58:30", "2024-07-01T10:00:00"),
        ("2024-07-01T10:00:00", "2021-07-01T10:00:00", "2024-07-01T10:00:00"),
        ("", "2021-07-01T10:00:00", None),
    ],
)
def test_the_files_date_stays_unless_photos_means_another_moment(
    told: str, in_file: str | None, expected: str | None
) -> None:
    record = ["id", "", told, *[""] * 8]
    found = metadata_of(photos_app_answers.facts_of(record), datetime.fromisoformat(in_file) if in_file else None).date
    assert found == (datetime.fromisoformat(expected) if expected else None)


async def test_a_date_that_the_export_already_has_is_not_replaced(scenario: Scenario, app: Make, attempt: Path) -> None:
    picture = scenario.jpeg("dated.jpg", jpeg_bytes(taken="2024:07:01 19:00:00"))
    item = scenario.add_item("a.JPG", date="2024-07-01T10:00:00", files=[{"name": "a.jpeg", "from": str(picture)}])
    fetched: Fetched = await app().fetch(photo(item), attempt)
    assert fetched.metadata is not None
    assert fetched.metadata.date is None


@given(st.binary(max_size=120), st.integers(0, 400))
def test_a_damaged_file_has_a_date_or_none_and_nothing_is_raised(junk: bytes, at: int) -> None:
    data = jpeg_bytes(8, taken="2024:07:01 19:00:00")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jpeg")
        path.write_bytes(data[:at] + junk + data[at + len(junk) :])
        assert isinstance(date_taken(path), datetime | None)


@pytest.mark.parametrize(
    ("fields", "location", "known"),
    [
        (("46.5", "11.25", "900"), Location(46.5, 11.25, 900.0), True),
        (("46,5", "-11,25", "-3,5"), Location(46.5, -11.25, -3.5), True),
        (("46.5", "11.25", ""), Location(46.5, 11.25), True),
        (("", "", "900"), None, True),
        (("46.5", "", ""), None, False),
        (("91", "11", ""), None, False),
        (("nan", "inf", ""), None, False),
        (("north", "east", ""), None, False),
        (("4.65E+1", "1.125E+1", "1.0E-3"), Location(46.5, 11.25, 0.001), True),
    ],
)
def test_positions_as_applescript_may_write_them(
    fields: tuple[str, str, str], location: Location | None, known: bool
) -> None:
    facts = photos_app_answers.facts_of(["id", "", "", *fields, "", "", "", "", ""])
    assert (facts.location, facts.location_known) == (location, known)


def test_an_album_that_is_listed_twice_keeps_its_folders() -> None:
    records = [["A", "", "Day"], ["B", "", "Lake"], ["A", "Trips\x1d2023", "Day"]]
    assert photos_app_answers.albums_of(records) == [Album("A", "Day", ("Trips", "2023")), Album("B", "Lake")]


@given(st.text(max_size=200))
def test_any_answer_is_understood_or_refused(output: str) -> None:
    for verb in ("list-albums", "album-counts", "item-ids", "item-facts"):
        for text in (output, f"skicyclerun\x1f2\x1f{verb}\x1e{output}\x1eend\x1e"):
            try:
                records = photos_app_answers.records_of(text, verb)
                if verb == "list-albums":
                    photos_app_answers.albums_of(records)
                elif verb == "album-counts":
                    photos_app_answers.counts_of(records)
                elif verb == "item-ids":
                    photos_app_answers.items_of(records)
                else:
                    for record in records:
                        photos_app_answers.facts_of(record)
            except (AnswerIncomplete, AnswerUnknown):
                pass


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\x1d\x1e\x1f", exclude_categories=["Cs"])))))
def test_records_come_back_as_they_were_joined(records: list[list[str]]) -> None:
    records = [record or [""] for record in records]
    output = "\x1e".join(["skicyclerun\x1f2\x1fx", *("\x1f".join(record) for record in records), "end", ""])
    assert photos_app_answers.records_of(output, "x") == records


def test_links_folders_and_pipes_are_no_exports(tmp_path: Path) -> None:
    (tmp_path / "link.jpeg").symlink_to(__file__)
    (tmp_path / "folder.jpeg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpeg")
    (tmp_path / ".hidden.jpeg").touch()
    (tmp_path / "real.jpeg").write_bytes(jpeg_bytes())
    assert [file.path.name for file in look_into(tmp_path)] == ["real.jpeg"]
