"""What a fresh run's choice means for what is there: said before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from skicyclerun.models import Album
from skicyclerun.sources.album_selection import excluded_albums, select_albums
from skicyclerun.sources.base import Source
from skicyclerun.sources.chosen_photos import ChosenPhotos
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.sources.photo_groups import is_group, kind_of_group
from skicyclerun.state import albums, photos
from skicyclerun.state.store import Store
from skicyclerun.wording import counted, printable

_NAMED: Final = 5


async def nothing_passes(source: ChosenPhotos, chosen: Sequence[Album]) -> str:
    """What to say where the filters leave nothing at all of these albums; empty where something is left.

    Albums that are empty by themselves are no matter of filters.
    """
    if any(album.photo_count for album in chosen):
        return ""
    if not source.choice.filters.narrows and not source.choice.everything:
        return ""
    tally = await source.tally(chosen)
    if not tally.seen or tally.passed:
        return ""
    return f"There is nothing to export: {' '.join(tally.in_words())} Nothing was touched."


async def choice_in_words(
    store: Store | None,
    source: Source,
    choice: PhotoChoice,
    selection: Sequence[str],
    listed: Sequence[Album],
    chosen: Sequence[Album],
    *,
    update: bool,
) -> list[str]:
    """What the filters let through, which albums are left out, and what becomes of what was exported before.

    `listed`: all that the source has; `chosen`: what the run takes of it.
    """
    said: list[str] = []
    if isinstance(source, ChosenPhotos) and (choice.filters.set or choice.everything):
        tally = await source.tally(chosen)
        if choice.filters.set:
            said.append(f"Filters: {choice.filters.in_words()}. {' '.join(tally.in_words())}")
        elif hidden := tally.refused["hidden"]:
            said.append(f"{counted(hidden, 'hidden photo')} {'stays' if hidden == 1 else 'stay'} out (--hidden).")
    if choice.everything and not any(is_group(album.id) for album in chosen):
        why = " Every photo is in an album." if choice.not_in_albums and not selection else ""
        said.append(f"--everything: none of its groups is among the albums of this run.{why}")
    out = excluded_albums(listed, choice.exclude, strict=False)
    left = [album for album in select_albums(listed, selection) if album.id in out]
    if left:
        said.append(f"Left out by --exclude: {_named(left)}.")
    unmatched = [each for each in choice.exclude if not excluded_albums(listed, (each,), strict=False)]
    said += [f"--exclude {pattern!r} matches no album." for pattern in unmatched]
    if store is not None and update:
        said += await _of_earlier_exports(store, source, choice, left, chosen)
    return said


async def _of_earlier_exports(
    store: Store, source: Source, choice: PhotoChoice, left: Sequence[Album], chosen: Sequence[Album]
) -> list[str]:
    """What becomes of files that this source gave earlier, for an update."""
    there = await albums.with_files_of(store, source.kind.value, source.location)
    said: list[str] = []
    if stays := [album for album in left if album.id in there]:
        said.append(f"What was exported before of {_named(stays)} stays as it is.")
    groups = any(is_group(album.id) for album in chosen)
    taken = {album.id for album in chosen}
    if isinstance(source, ChosenPhotos) and source.choice.filters.narrows:
        refused = 0
        exported = await photos.present_of_source(store, source.kind.value, source.location)
        for album_id, photo_ids in exported.items():
            if album_id in taken or (groups and is_group(album_id)):
                refused += sum([await source.refuses(photo_id) for photo_id in photo_ids])
        if refused:
            do = "photo that is exported now does" if refused == 1 else "photos that are exported now do"
            said.append(f"{refused} {do} not pass the filters any more: into an archive, then removed.")
    if groups:
        others = {kind_of_group(album_id) for album_id in there if is_group(album_id)} - {choice.group_by, None}
        said += [
            f"The groups by {kind} that are exported now give way to those by {choice.group_by}."
            for kind in sorted(filter(None, others))
        ]
    return said


def _named(albums: Sequence[Album]) -> str:
    names = ", ".join(printable(album.path) for album in albums[:_NAMED])
    more = len(albums) - _NAMED
    return f"{names} and {more} more" if more > 0 else names
