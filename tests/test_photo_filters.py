"""Filters, alone and combined, against plain Python: over made-up facts, real libraries and the sample library.

The oracle of the real libraries is osxphotos' own view of them, that of the sample library what it was drawn from; both
know nothing of how we read.
"""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skicyclerun.errors import UsageError
from skicyclerun.models import MediaKind, PhotoFacts
from skicyclerun.settings.days import Days, days_of
from skicyclerun.settings.models import ExportSettings, FilterSettings
from skicyclerun.sources.chosen_photos import ChosenPhotos, choosing
from skicyclerun.sources.folder_tree import FolderTree
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.sources.photo_filters import OPTIONS, PhotoFilters, Tally
from skicyclerun.sources.photo_groups import GroupBy
from skicyclerun.sources.photos_library import PhotosLibrary
from skicyclerun.sources.sample_library import _ALBUMS
from tests.shared_libraries import MEDIA_TYPES_LIBRARY, PHOTOS_4_LIBRARY, TEST_LIBRARY

TODAY = date(2026, 11, 26)

# ── days ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024-07-21", date(2024, 7, 21), date(2024, 7, 21)),
        ("2024-7-1", date(2024, 7, 1), date(2024, 7, 1)),
        ("2024-02", date(2024, 2, 1), date(2024, 2, 29)),
        ("2024", date(2024, 1, 1), date(2024, 12, 31)),
        ("30d", date(2026, 10, 27), date(2026, 10, 27)),
        ("0d", TODAY, TODAY),
        ("2w", date(2026, 11, 12), date(2026, 11, 12)),
    ],
)
def test_a_day_a_month_a_year_and_an_age_are_days(text: str, first: date, last: date) -> None:
    assert days_of(text, TODAY) == Days(first, last)


@pytest.mark.parametrize(
    "text", ["", "soon", "2024-13", "2024-02-30", "24-01-01", "30", "30days", "999999d", "-3d", "٣d"]
)
def test_what_is_no_day_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a day|no day of the calendar|before the first year"):
        days_of(text, TODAY)


def test_no_day_between_since_and_until_is_refused() -> None:
    with pytest.raises(UsageError, match="No day is left between --since 2024-03-01 and --until 2024-02-29"):
        PhotoFilters.of(FilterSettings(since="2024-03", until="2024-02"), TODAY)


# ── the oracle ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Known:
    """A photo as the oracle knows it."""

    id: str
    day: date | None
    favorite: bool
    hidden: bool
    keywords: tuple[str, ...]
    persons: tuple[str, ...]
    movie: bool
    longest: int
    screenshot: bool


def passes(photo: Known, wanted: FilterSettings) -> bool:
    """By the words of docs/choosing.md."""
    if wanted.since is not None:
        begin = days_of(wanted.since, TODAY).first
        if photo.day is None or photo.day < begin:
            return False
    if wanted.until is not None:
        end = days_of(wanted.until, TODAY).last
        if photo.day is None or end < photo.day:
            return False
    for names, there in ((wanted.keywords, photo.keywords), (wanted.persons, photo.persons)):
        if names and not any(
            fnmatch.fnmatchcase(name.casefold(), pattern.casefold()) for pattern in names for name in there
        ):
            return False
    return (
        (photo.favorite or not wanted.favorites)
        and (wanted.media is None or (wanted.media == "video") == photo.movie)
        and photo.longest >= (wanted.min_size or 0)
        and not (wanted.not_screenshots and photo.screenshot)
        and (wanted.hidden or not photo.hidden)
    )


NAMES = st.sampled_from(
    ["Kids", "kids", "wedding", "UK", "St*", "flow?rs", "Katie", "suzy", "Maria", "ski*", "Alps", "夕方"]
)
DAYS = st.sampled_from(
    ["2015", "2018", "2018-09-28", "2018-10", "2019-04", "2020", "2024-02", "2025-07-03", "2025-09", "30d"]
)


def filters(*without: str) -> st.SearchStrategy[FilterSettings]:
    """Any combination, each day pair in order; `without` those a source cannot know."""
    given: dict[str, st.SearchStrategy[Any]] = {
        "since": st.none() | DAYS,
        "until": st.none() | DAYS,
        "favorites": st.booleans(),
        "keywords": st.lists(NAMES, max_size=2).map(tuple),
        "persons": st.lists(NAMES, max_size=2).map(tuple),
        "media": st.sampled_from([None, None, "photo", "video"]),
        "min_size": st.none() | st.sampled_from([1, 1200, 1201, 2000, 4000, 5000]),
        "not_screenshots": st.booleans(),
        "hidden": st.booleans(),
    }
    # Most often few at once: with all of them hardly any photo passes.
    some = st.sets(st.sampled_from(sorted(given.keys() - set(without))), max_size=3)
    chosen = some.flatmap(lambda names: st.fixed_dictionaries({name: given[name] for name in names}))
    return chosen.map(lambda values: FilterSettings(**values)).filter(_has_days)


def _has_days(wanted: FilterSettings) -> bool:
    if wanted.since is None or wanted.until is None:
        return True
    return days_of(wanted.since, TODAY).first <= days_of(wanted.until, TODAY).last


# ── over made-up facts ────────────────────────────────────────────────────────────────────────────────────────────

MOMENTS = st.datetimes(
    datetime(2014, 1, 1), datetime(2027, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=9))])
)
FACTS = st.builds(
    PhotoFacts,
    id=st.just("x"),
    original_filename=st.just("x.jpg"),
    media=st.sampled_from(MediaKind),
    date=st.none() | MOMENTS,
    favorite=st.booleans(),
    hidden=st.booleans(),
    screenshot=st.booleans(),
    width=st.sampled_from([0, 640, 1200, 1201, 4032]),
    height=st.sampled_from([0, 480, 1200, 3024]),
    keywords=st.lists(st.sampled_from(["Kids", "wedding", "St. James's Park", "flowers", "ALPS"]), max_size=2).map(
        tuple
    ),
    persons=st.lists(st.sampled_from(["Katie", "Suzy", "Maria"]), max_size=2).map(tuple),
)


def known(facts: PhotoFacts) -> Known:
    return Known(
        facts.id,
        facts.date.date() if facts.date else None,
        facts.favorite,
        facts.hidden,
        facts.keywords,
        facts.persons,
        facts.media is MediaKind.VIDEO,
        max(facts.width, facts.height),
        facts.screenshot,
    )


@given(FACTS, filters())
def test_a_photo_passes_exactly_where_plain_python_says_so(facts: PhotoFacts, wanted: FilterSettings) -> None:
    chosen = PhotoFilters.of(wanted, TODAY)
    assert (chosen.refuse(facts) == ()) is passes(known(facts), wanted)
    assert set(chosen.unknown(facts)) <= set(chosen.refuse(facts)) | {"min_size"}
    assert PhotoFilters.from_row(chosen.to_row()) == chosen


@given(st.lists(FACTS, max_size=20), filters())
def test_a_tally_counts_each_photo_once_and_each_filter_for_itself(
    photos: list[PhotoFacts], wanted: FilterSettings
) -> None:
    chosen, tally = PhotoFilters.of(wanted, TODAY), Tally()
    for facts in photos:
        tally.add(chosen.refuse(facts), chosen.unknown(facts))
    assert (tally.seen, tally.passed) == (len(photos), sum(passes(known(facts), wanted) for facts in photos))
    for name in chosen.set:
        if name != "hidden":
            alone = FilterSettings(**{name: getattr(wanted, name), "hidden": True})
            refused = sum(not passes(known(facts), alone) for facts in photos)
            assert tally.refused[name] == refused
            assert (f"{OPTIONS[name]} leaves out {refused}" in tally.in_words()[0]) is (refused > 0)


# ── over libraries ────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache
def by_osxphotos(library: Path) -> dict[str, Known]:
    """What osxphotos says of every photo that Photos shows somewhere, or hides; of a copy, for it writes to a -shm."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(library / "database", Path(folder, library.name, "database"))
        return _by_osxphotos(Path(folder, library.name))


def _by_osxphotos(library: Path) -> dict[str, Known]:
    import osxphotos

    database = osxphotos.PhotosDB(str(library))
    photos = database.photos(intrash=False)
    shown = [p for p in photos if not p.burst or p.burst_selected or p.burst_key or p.visible]
    found = {
        p.uuid: Known(
            p.uuid,
            None if p.date is None or p.date == datetime(1970, 1, 1, tzinfo=UTC) else _day(p),
            p.favorite,
            p.hidden,
            tuple(p.keywords),
            tuple(name for name in p.persons if name != "_UNKNOWN_"),
            p.ismovie,
            max(p.width, p.height),
            bool(p.screenshot or p.screen_recording),
        )
        for p in shown
    }
    database._db_connection.close()
    database._tempdir.cleanup()
    return found


def _day(photo: Any) -> date:
    """By the clock of the place."""
    moment: datetime = photo.date
    return moment.astimezone(timezone(timedelta(seconds=photo.tzoffset or 0))).date()


@asynccontextmanager
async def opened(library: Path) -> AsyncIterator[PhotosLibrary | FolderTree]:
    source = FolderTree(library) if library.name == "sample" else PhotosLibrary(library)
    await source.open()
    try:
        yield source
    finally:
        await source.close()


async def found_by(
    source: Any, wanted: FilterSettings, group_by: GroupBy = "year"
) -> tuple[dict[str, list[str]], Tally]:
    """Photo ids by title of the album or group, and the tally of all of them."""
    chosen = choosing(source, PhotoChoice.of(ExportSettings(everything=True, group_by=group_by, filters=wanted), TODAY))
    assert isinstance(chosen, ChosenPhotos)
    albums = await chosen.albums()
    found: dict[str, list[str]] = {}
    for album in albums:
        photos = await chosen.photos(album.id)
        ids = list(dict.fromkeys(photo.id for photo in photos if photo.component.value != "live_movie"))
        assert album.photo_count == len(ids)
        found[album.id] = ids
    return found, await chosen.tally(albums)


@pytest.mark.parametrize("library", [TEST_LIBRARY, MEDIA_TYPES_LIBRARY, PHOTOS_4_LIBRARY], ids=lambda path: path.name)
def test_filters_of_a_real_library_are_those_of_osxphotos(library: Path) -> None:
    oracle = by_osxphotos(library)

    async def check(wanted: FilterSettings) -> None:
        groups = {key: ids for key, ids in (await found_by(source, wanted))[0].items() if key.startswith("group:")}
        expected = {photo.id for photo in oracle.values() if passes(photo, wanted)}
        assert {photo_id for ids in groups.values() for photo_id in ids} == expected
        for key, ids in groups.items():
            year = key.rpartition(":")[2]
            assert {str(day.year) if (day := oracle[photo_id].day) else "" for photo_id in ids} == {year}
        found, tally = await found_by(source, wanted)
        for album_id, members in whole.items():
            if not album_id.startswith("group:"):
                assert found[album_id] == [each for each in members if each in expected]
        assert tally.passed == len(expected)

    with anyio.from_thread.start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(opened(library)) as source:
            whole, _ = portal.call(found_by, source, FilterSettings())

            @hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
            @given(filters())
            def each(wanted: FilterSettings) -> None:
                portal.call(check, wanted)

            each()


def test_filters_of_the_sample_library_are_those_it_was_drawn_from(sample_library: Path) -> None:
    shots = {f"{folder}/{shot.name}": shot for folder, listed in _ALBUMS.items() for shot in listed}
    oracle = [
        Known(key, shot.taken.date(), False, False, shot.keywords, (), False, 1200, False)
        for key, shot in shots.items()
    ]

    async def check(wanted: FilterSettings) -> None:
        expected = [photo.id for photo in oracle if passes(photo, wanted)]
        found, tally = await found_by(source, wanted, "month")
        for album_id, ids in found.items():
            if album_id.startswith("group:"):
                assert {f"{shots[photo_id].taken:%Y-%m}" for photo_id in ids} == {album_id.removeprefix("group:month:")}
                assert ids == sorted(ids, key=lambda photo_id: (shots[photo_id].taken, shots[photo_id].name))
            else:
                assert set(ids) == {photo_id for photo_id in expected if photo_id.rpartition("/")[0] == album_id}
        in_groups = [photo_id for key, ids in found.items() if key.startswith("group:") for photo_id in ids]
        assert sorted(in_groups) == sorted(expected)
        assert (tally.seen, tally.passed) == (len(shots), len(expected))

    with anyio.from_thread.start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(opened(sample_library)) as source:

            @hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
            @given(filters("favorites", "not_screenshots", "hidden"))
            def each(wanted: FilterSettings) -> None:
                portal.call(check, wanted)

            each()
