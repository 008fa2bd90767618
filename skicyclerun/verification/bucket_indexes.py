"""Of `verify --remote`: whether the indexes in the bucket are those of what lies there.

Which objects they have to be is read from the rows; an index is fetched only where they do not say that it is of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from skicyclerun.bucket.album_index import addresses_named, keys_named, relative_address
from skicyclerun.bucket.keys import KeyRule
from skicyclerun.bucket.known import Kind, KnownObject, ObjectStatus
from skicyclerun.state import bucket_objects, runs, stage_albums
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.store import Store


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is to be in the bucket."""

    key: str
    row: KnownObject | None
    """None: no row speaks for one."""
    may_name: frozenset[str]
    """Keys of pictures; of the index of all albums, addresses."""
    must_name: frozenset[str]
    """The same; empty while not all of the album is there."""
    of_all_albums: bool = False

    def problem(self, text: bytes) -> str:
        """What is wrong with the index that is there; empty where nothing is."""
        try:
            named = addresses_named(text) if self.of_all_albums else keys_named(text)
        except ValueError:
            return "it is no index"
        what = "albums" if self.of_all_albums else "pictures"
        gone, unnamed = named - self.may_name, self.must_name - named
        said = [f"names {what} that are not in the bucket ({len(gone)})"] if gone else []
        said += [f"does not name all {what} that are ({len(unnamed)} missing)"] if unnamed else []
        return f"it {' and '.join(said)}" if said else ""


async def indexes_to_be_there(
    store: Store, stage: str, place: str, rule: KeyRule, rows: Collection[KnownObject]
) -> list[Index]:
    """Those that are not known to be of the rows as they are now: of albums, then that of all of them."""
    latest = await runs.latest(store)
    newest = await stage_albums.latest(store, latest.id if latest is not None else 0)
    whole = {row.folder for row in newest if row.stage == stage and row.status is AlbumStatus.DONE}
    by_folder: dict[str, list[KnownObject]] = {}
    for row in rows:
        by_folder.setdefault(row.folder, []).append(row)
    found = []
    may_be_shown, to_be_shown = set(), set()
    for folder, objects in by_folder.items():
        pictures = [row for row in objects if row.kind is Kind.PICTURE]
        there = frozenset(
            row.key for row in pictures if row.status is ObjectStatus.THERE and not row.left and rule.made(row.claimed)
        )
        index = _index_of(objects, Kind.ALBUM_INDEX, rule.album_index(folder))
        if index is None:
            if there:
                found.append(Index(rule.album_index(folder), None, frozenset(), frozenset()))
                may_be_shown.add(rule.album_index(folder))  # That it is missing is said once.
            continue
        may_be_shown.add(index.key)
        if index.status is not ObjectStatus.THERE:
            continue
        if there:
            to_be_shown.add(index.key)
        if not await bucket_objects.is_of_these_results(store, stage, place, folder, index.made_of):
            complete = folder in whole and not any(row.status is ObjectStatus.CLAIMED for row in pictures)
            may_name = frozenset(row.key for row in pictures)
            found.append(Index(index.key, index, may_name, there if complete else frozenset()))
    index = _index_of(by_folder.get("", ()), Kind.INDEX, rule.index)
    if may_be_shown:
        addresses = {key: relative_address(rule.index, key) for key in may_be_shown}
        must_name = frozenset(addresses[key] for key in to_be_shown)
        found.append(Index(rule.index, index, frozenset(addresses.values()), must_name, of_all_albums=True))
    return found


def _index_of(rows: Collection[KnownObject], kind: Kind, wanted: str) -> KnownObject | None:
    return next((row for row in rows if row.kind is kind and row.wanted == wanted), None)
