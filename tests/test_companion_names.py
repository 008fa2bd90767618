"""What lies beside a photo is called so that everybody finds it, and never as anything else in the album."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.actors.update_plan import plan_update
from skicyclerun.files.naming import MAX_NAME_BYTES, collision_key
from skicyclerun.models import Component, Photo
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.state.photos import PhotoPlan, PresentPhoto


def album(*names: str, options: ExportOptions, component: Component = Component.STILL) -> list[Photo]:
    photos = [Photo(f"id-{number}", name, component, "f") for number, name in enumerate(names)]
    return [each for photo in photos for each in (photo, *options.companions_of(photo))]


def planned(*names: str, options: ExportOptions, strangers: tuple[str, ...] = ()) -> list[str]:
    plans = plan_update(album(*names, options=options), {}, options, (), strangers)
    return [plan.file_name for plan in plans]


EVERYTHING = ExportOptions(sidecar="xmp", keep_original=True)


def test_a_sidecar_bears_the_whole_name_of_its_file_and_an_original_its_stem() -> None:
    names = planned("IMG_1.HEIC", "IMG_1.JPG", "IMG_2.CR2", options=EVERYTHING)
    assert names == [
        "IMG_1.jpg",
        "IMG_1.jpg.xmp",
        "originals/IMG_1.heic",
        "IMG_1 (2).jpg",
        "IMG_1 (2).jpg.xmp",
        "IMG_2.jpg",
        "IMG_2.jpg.xmp",
        "originals/IMG_2.cr2",
    ]


def test_the_sidecar_of_a_raw_file_that_is_passed_on_is_called_as_lightroom_reads_it() -> None:
    options = ExportOptions(sidecar="xmp", format="original")
    assert planned("IMG_2.CR2", "IMG_3.JPG", options=options) == [
        "IMG_2.cr2",
        "IMG_2.xmp",
        "IMG_3.jpg",
        "IMG_3.jpg.xmp",
    ]


def test_nothing_lies_beside_the_movie_of_a_live_photo_or_what_is_left_out() -> None:
    options = ExportOptions(sidecar="json", keep_original=True, videos=False)
    assert options.companions_of(Photo("A", "A.MOV", Component.LIVE_MOVIE)) == []
    assert options.companions_of(Photo("A", "A.MOV", Component.VIDEO)) == []


@pytest.mark.parametrize(
    ("photo", "options", "kept"),
    [
        (Photo("A", "A.JPG"), ExportOptions(keep_original=True), False),
        (Photo("A", "A.HEIC"), ExportOptions(keep_original=True), True),
        (Photo("A", "A.HEIC"), ExportOptions(keep_original=False), False),
        (Photo("A", "A.HEIC"), ExportOptions(keep_original=True, format="original"), False),
        (Photo("A", "A.JPG", extension=".jpeg"), ExportOptions(keep_original=True), True),  # an edit
        (Photo("A", "A.JPG", extension=".jpeg"), ExportOptions(keep_original=True, format="original"), True),
        (Photo("A", "A.JPG"), ExportOptions(keep_original=True, max_size=2000), True),
        (Photo("A", "A.MOV", Component.VIDEO), ExportOptions(keep_original=True, max_size=2000), False),
        (Photo("A", "A.MOV", Component.VIDEO, extension=".mov"), ExportOptions(keep_original=True), True),
    ],
)
def test_an_original_is_kept_where_the_exported_file_is_not_that_picture(
    photo: Photo, options: ExportOptions, kept: bool
) -> None:
    found = [each.component for each in options.companions_of(photo)]
    assert (Component.ORIGINAL in found) is kept


def test_a_strangers_file_is_never_taken_for_a_sidecar_or_an_original() -> None:
    strangers = ("IMG_1.jpg.xmp", "originals/IMG_1.HEIC")
    names = planned("IMG_1.HEIC", options=EVERYTHING, strangers=strangers)
    assert names == ["IMG_1.jpg", "IMG_1.jpg (2).xmp", "originals/IMG_1 (2).heic"]


def earlier(plans: list[PhotoPlan], options: ExportOptions) -> dict[tuple[str, str], PresentPhoto]:
    return {
        (plan.photo.id, plan.photo.component.value): PresentPhoto(
            n, plan.file_name, "f", options.to_row(), plan.photo.original_filename, 1, n, 1, ""
        )
        for n, plan in enumerate(plans)
    }


_STEMS = st.text(alphabet=st.sampled_from("aAéE\u0301_ (2).xmpjhegi"), min_size=1, max_size=12) | st.just("x" * 250)
_ENDS = st.sampled_from([".HEIC", ".heic", ".JPG", ".CR2", ".png", "", ".xmp", ".jpg.xmp", ".MOV"])
_OPTIONS: st.SearchStrategy[ExportOptions] = st.builds(
    ExportOptions,
    sidecar=st.sampled_from(["none", "xmp", "json"]),
    keep_original=st.booleans(),
    format=st.sampled_from(["jpeg", "original"]),
)


@given(st.lists(st.tuples(_STEMS, _ENDS), max_size=8), _OPTIONS, st.sets(st.sampled_from(["a.jpg.xmp", "originals/a"])))
def test_no_two_files_of_an_album_have_one_name_and_each_is_safe(
    given_names: list[tuple[str, str]], options: ExportOptions, strangers: set[str]
) -> None:
    originals = ["".join(each) for each in given_names]
    names = planned(*originals, options=options, strangers=tuple(strangers))
    keys = [collision_key(name) for name in (*names, *strangers)]
    assert len(set(keys)) == len(keys)
    for name in names:
        parts = name.split("/")
        assert len(parts) == 1 or (len(parts) == 2 and parts[0] == "originals")
        assert all(part not in ("", ".", "..") and len(part.encode()) <= MAX_NAME_BYTES for part in parts)


@given(st.lists(st.tuples(_STEMS, _ENDS), min_size=1, max_size=6), _OPTIONS, _OPTIONS, st.data())
def test_an_update_keeps_every_name_that_still_fits_and_takes_none_that_is_there(
    given_names: list[tuple[str, str]], before: ExportOptions, now: ExportOptions, data: st.DataObject
) -> None:
    originals = ["".join(each) for each in given_names]
    first = plan_update(album(*originals, options=before), {}, before, (), ())
    there = {plan.file_name for plan in first}
    left = data.draw(st.sets(st.sampled_from(range(len(originals)))))
    listed = [photo for photo in album(*originals, options=now) if int(photo.id.removeprefix("id-")) not in left]
    second = plan_update(listed, earlier(first, before), now, there, ())
    names_before = {(plan.photo.id, plan.photo.component): plan.file_name for plan in first}
    keys = [collision_key(plan.file_name) for plan in second]
    assert len(set(keys)) == len(keys)
    for plan in second:
        mine = names_before.get((plan.photo.id, plan.photo.component))
        if plan.file_name != mine:
            assert plan.file_name not in there, "it would be written over another file of ours"
        if before == now:
            assert plan.file_name == mine
            assert plan.carried is not None


@pytest.mark.parametrize("name", ["2. ", "v1.5", "IMG.J P", "a."])
@pytest.mark.parametrize("format", ["jpeg", "original"])
def test_a_name_whose_end_is_hardly_an_extension_stays(name: str, format: Literal["jpeg", "original"]) -> None:
    options = ExportOptions(keep_original=True, sidecar="xmp", format=format)
    first = plan_update(album(name, options=options), {}, options, (), ())
    there = {plan.file_name for plan in first}
    second = plan_update(album(name, options=options), earlier(first, options), options, there, ())
    assert [plan.file_name for plan in second] == [plan.file_name for plan in first]
    assert all(plan.carried is not None for plan in second)


def test_a_sidecar_is_made_again_where_what_decides_it_has_changed_and_the_photo_stays() -> None:
    before, now = ExportOptions(sidecar="xmp"), ExportOptions(sidecar="json")
    first = plan_update(album("IMG_1.JPG", options=before), {}, before, (), ())
    there = {plan.file_name for plan in first}
    second = plan_update(album("IMG_1.JPG", options=now), earlier(first, before), now, there, ())
    assert [(plan.file_name, plan.carried is None) for plan in second] == [
        ("IMG_1.jpg", False),
        ("IMG_1.jpg.json", True),
    ]


_CHANGES: list[tuple[str, Callable[[ExportOptions], ExportOptions], set[Component]]] = [
    ("max_size", lambda _: ExportOptions(max_size=100), {Component.STILL}),
    ("strip_location", lambda _: ExportOptions(strip_location=True), {Component.STILL, Component.SIDECAR}),
    ("sidecar", lambda _: ExportOptions(sidecar="xmp"), {Component.SIDECAR}),
    ("duplicates", lambda _: ExportOptions(duplicates="clone"), set()),
    ("keep_original", lambda _: ExportOptions(keep_original=True), set()),
    ("jpeg_quality", lambda _: ExportOptions(jpeg_quality=1), {Component.STILL, Component.VIDEO, Component.LIVE_MOVIE}),
]


@pytest.mark.parametrize(("name", "change", "again"), _CHANGES)
def test_a_setting_makes_again_what_it_decides_and_nothing_else(
    name: str, change: Callable[[ExportOptions], ExportOptions], again: set[Component]
) -> None:
    before = ExportOptions()
    now = change(before)
    assert getattr(now, name) != getattr(before, name)
    found = {each for each in Component if not now.same_bytes_as(before.to_row(), each)}
    assert found == again


def test_photos_that_came_from_their_originals_stay_whatever_is_done_without_originals() -> None:
    fail, skip, preview = (ExportOptions(missing=each) for each in ("fail", "skip", "preview"))
    for now in (fail, skip, preview):
        assert now.same_bytes_as(fail.to_row())
        assert now.same_bytes_as(skip.to_row())
        assert now.same_bytes_as(preview.to_row()) is (now is preview), "it may be a preview, or not"


def test_what_lies_beside_a_photo_goes_with_it_where_its_file_was_removed_by_hand() -> None:
    listed = album("IMG_1.HEIC", "IMG_2.HEIC", options=EVERYTHING)
    plans = plan_update(listed, {}, EVERYTHING, (), (), {("id-0", "still")})
    assert [plan.file_name for plan in plans if plan.left_out] == ["IMG_1.jpg"]
    assert [PurePath(plan.file_name).name for plan in plans if not plan.left_out] == [
        "IMG_2.jpg",
        "IMG_2.jpg.xmp",
        "IMG_2.heic",
    ]
