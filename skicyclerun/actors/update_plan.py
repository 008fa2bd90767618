"""What an update does with an album: which photos are carried over as they are, and which are exported again.

Pure: decided from what the source lists now, what rows say of the earlier export, and which files are there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Final, NamedTuple

from skicyclerun.files.naming import collision_key, plan_companion_names, plan_file_names, safe_extension
from skicyclerun.models import Component, Photo
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.state.left_out import REASON
from skicyclerun.state.photos import PhotoPlan, PresentPhoto

#: Why a photo is left out whose file somebody has removed.
REMOVED: Final = "its file was removed by hand (export.removed_files is leave_out)"


class NamesBefore(NamedTuple):
    """Names that photos of an album were given by earlier runs."""

    kept: Mapping[tuple[str, str], str]
    """Those that stay, by (id, component)."""
    retired: Sequence[str]
    """Those that go with a kind of file that the photo no longer is."""
    are_all: bool
    """No name is to be decided, for which it would matter what else lies in the folder."""


def plan_update(
    listed: Sequence[Photo],
    earlier: Mapping[tuple[str, str], PresentPhoto],
    options: ExportOptions,
    occupied: Collection[str],
    strangers: Collection[str],
    removed: Collection[tuple[str, str]] = (),
    out: Collection[tuple[str, str]] = (),
    *,
    names_before: NamesBefore | None = None,
) -> list[PhotoPlan]:
    """The album's photos with their names. `earlier`: by (id, component); `occupied`: names in the folder now;
    `removed`: photos whose files were removed by hand, and that are left out for it; `out`: photos that somebody has
    left out by name; `names_before`: what `names_given` says, where it was asked.

    A photo keeps the name it had, unless its kind of file has changed. It is carried over, untouched, if the source
    says that nothing about it changed (equal fingerprints), the settings that decide its bytes are the same, and its
    file is there. A file that another program changed is left to `verify`: an update neither trusts nor undoes it.
    What lies beside a photo goes where its file goes: it is not in the plan where that was removed or left out by hand.
    """
    if alone := {*removed, *out}:
        listed = [photo for photo in listed if not photo.component.is_companion or _main_of(photo, alone) is None]
    given = names_before or names_given(listed, earlier, options)
    names = given.kept if given.are_all else _names(listed, given, strangers, options)
    exactly = frozenset(occupied)
    there: frozenset[str] | None = None
    same_bytes: dict[tuple[int, str], bool] = {}  # the options of a run are one object

    def is_there(name: str) -> bool:
        nonlocal there
        if name in exactly:
            return True
        if there is None:
            there = frozenset(map(collision_key, occupied))
        return collision_key(name) in there

    def made_alike(before: PresentPhoto, component: Component) -> bool:
        known = same_bytes.get((id(before.options), component._value_))
        if known is None:
            known = options.same_bytes_as(before.options, component)
            same_bytes[id(before.options), component._value_] = known
        return known

    plans = []
    for photo in listed:
        key = key_of(photo)
        is_removed = key in removed
        left_out = options.left_out(photo) or (REASON if key in out else REMOVED if is_removed else "")
        before = earlier.get(key)
        is_right = (
            before is not None
            and not left_out
            and before.file_name == names[key]
            and before.fingerprint == photo.fingerprint
            and made_alike(before, photo.component)
            and is_there(before.file_name)
        )
        plans.append(PhotoPlan(photo, names[key], left_out, before if is_right else None, is_removed))
    return plans


def names_given(
    listed: Sequence[Photo], earlier: Mapping[tuple[str, str], PresentPhoto], options: ExportOptions
) -> NamesBefore:
    """What the names of earlier runs leave to be decided."""
    kept: dict[tuple[str, str], str] = {}
    retired: list[str] = []
    by_key = {key_of(photo): photo for photo in listed}
    for key, before in earlier.items():
        photo = by_key.get(key)
        if photo is None or _is_of_kind(before.file_name, options.extension_of(photo)):
            kept[key] = before.file_name
        else:
            retired.append(before.file_name)
    # The name of what lies beside a photo's file is always looked at: it has to go with that file's.
    are_all = by_key.keys() <= kept.keys() and not any(photo.component.is_companion for photo in listed)
    return NamesBefore(kept, retired, are_all)


def key_of(photo: Photo) -> tuple[str, str]:
    """(id, component), as rows have them."""
    return photo.id, photo.component._value_  # `value` is a call, and this is asked of every photo of an update


def _names(
    listed: Sequence[Photo], given: NamesBefore, strangers: Collection[str], options: ExportOptions
) -> Mapping[tuple[str, str], str]:
    kept, retired = given.kept, given.retired
    extension_of = options.extension_of
    photos = [photo for photo in listed if not photo.component.is_companion]
    names = plan_file_names(photos, extension_of=extension_of, reserved=(*strangers, *retired), kept=kept)
    beside = [photo for photo in listed if photo.component.is_companion]
    if beside:
        taken = (*strangers, *retired, *kept.values())
        names |= plan_companion_names(beside, names, extension_of=extension_of, reserved=taken, kept=kept)
    return names


def files_gone(earlier: Mapping[tuple[str, str], PresentPhoto], occupied: Collection[str]) -> set[tuple[str, str]]:
    """Photos of an earlier run, by (id, component), whose exported file is no longer in the album's folder."""
    there = {collision_key(name) for name in occupied}
    return {key for key, photo in earlier.items() if collision_key(photo.file_name) not in there}


def _main_of(photo: Photo, among: Collection[tuple[str, str]]) -> tuple[str, str] | None:
    """The (id, component) of the file that a sidecar or an original lies beside, if it is among these."""
    keys = ((photo.id, component.value) for component in (Component.STILL, Component.VIDEO))
    return next((key for key in keys if key in among), None)


def _is_of_kind(file_name: str, extension: str) -> bool:
    given = safe_extension(extension)
    return not given or file_name.endswith(given) or PurePath(file_name).suffix.lower() == given
