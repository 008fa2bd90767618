"""What an update decides of an album, by itself: the short ways come to what the long ones do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.actors.update_plan import key_of, names_given, plan_update
from skicyclerun.files.naming import plan_file_names
from skicyclerun.models import Component, Photo
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.state.photos import PresentPhoto

_KINDS = [Component.STILL, Component.VIDEO, Component.LIVE_MOVIE]
_NAMES = st.sampled_from(["IMG_1.JPG", "IMG_1.HEIC", "img_1.jpg", "IMG_2.mov", "IMG_2.JPG", "Café.jpg", "noext"])
_PHOTOS = st.lists(
    st.builds(Photo, st.sampled_from("abcd"), _NAMES, st.sampled_from(_KINDS), st.sampled_from(["f", "g"])),
    max_size=6,
    unique_by=key_of,
)
_FILES = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([kind.value for kind in _KINDS])),
    st.sampled_from(["IMG_1.jpg", "IMG_1 (2).jpg", "IMG_2.mov", "IMG_2.jpg", "x.heic"]),
    max_size=6,
)
_OPTIONS = st.builds(
    ExportOptions, format=st.sampled_from(["jpeg", "original"]), sidecar=st.sampled_from(["none", "xmp"])
)


def present(name: str, options: ExportOptions) -> PresentPhoto:
    return PresentPhoto(1, name, "f", options.to_row(), "IMG_1.JPG", album=1, position=1, attempts=1, reason="")


@given(photos=_PHOTOS, files=_FILES, options=_OPTIONS)
def test_names_that_stay_are_those_that_would_be_decided(
    photos: list[Photo], files: dict[tuple[str, str], str], options: ExportOptions
) -> None:
    earlier = {key: present(name, options) for key, name in files.items()}
    listed = [each for photo in photos for each in (photo, *options.companions_of(photo))]
    kept, retired, are_all = names_given(listed, earlier, options)
    assert sorted([*kept.values(), *retired]) == sorted(files.values())
    if are_all:
        decided = plan_file_names(listed, extension_of=options.extension_of, reserved=retired, kept=kept)
        assert decided == {key_of(photo): kept[key_of(photo)] for photo in listed}


@given(photos=_PHOTOS, files=_FILES, options=_OPTIONS, there=st.sets(st.sampled_from(["IMG_1.jpg", "img_2.MOV"])))
def test_what_is_carried_over_has_its_name_its_state_and_its_file(
    photos: list[Photo], files: dict[tuple[str, str], str], options: ExportOptions, there: set[str]
) -> None:
    earlier = {key: present(name, options) for key, name in files.items()}
    listed = [each for photo in photos for each in (photo, *options.companions_of(photo))]
    plans = plan_update(listed, earlier, options, there, there)
    assert plans == plan_update(
        listed, earlier, options, there, there, names_before=names_given(listed, earlier, options)
    )
    on_disk = {name.lower() for name in there}
    for plan in plans:
        before = earlier.get(key_of(plan.photo))
        right = (
            before is not None
            and not plan.left_out
            and (before.file_name, before.fingerprint) == (plan.file_name, plan.photo.fingerprint)
            and before.file_name.lower() in on_disk
        )
        assert plan.carried == (before if right else None)


def test_a_file_that_the_disk_spells_otherwise_is_there() -> None:
    options = ExportOptions()
    photo = Photo("a", "Café.JPG", fingerprint="f")
    earlier = {key_of(photo): present("Café.jpg", options)}
    [plan] = plan_update([photo], earlier, options, ["CAFE\N{COMBINING ACUTE ACCENT}.JPG"], ())
    assert plan.carried is not None
