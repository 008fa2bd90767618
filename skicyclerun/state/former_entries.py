"""Rows of the table `former_entries`: what the catalog said of files that have left, until their photo is elsewhere.

A photo that was moved to another album, or renamed, leaves one place and comes to another, perhaps in a later run. What
other programs had entered of it is kept here meanwhile, and so is the path by which their own entries point to it. A
row is committed before the entry leaves the catalog, and goes after the catalog has the entry in its new place: at any
moment one of the two holds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skicyclerun.files.fault_points import fault_point
from skicyclerun.state.photos import path_key
from skicyclerun.state.store import Reader, Row, Store, utc_now


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A file by the stage that made it (`export`, or a later one), its album's folder, and its name."""

    stage: str
    folder: str
    file_name: str


@dataclass(frozen=True, slots=True)
class LeavingEntry:
    """An entry that leaves the catalog. `photo_id`, `component`, `sha256`: as it says itself, or empty."""

    path: str
    place: FilePlace
    photo_id: str
    component: str
    sha256: str
    entry: str
    """JSON, to the letter; empty where it left before anybody kept it."""
    since: str | None = None
    """What was exported before this is no heir; None: what was exported before the photo was last seen there."""


@dataclass(frozen=True, slots=True)
class Heir:
    """A former entry, and the file that its photo is in now."""

    row_id: int
    path: str
    entry: str
    place: FilePlace


def rows_of(reader: Reader, leaving: Sequence[LeavingEntry]) -> list[dict[str, Any]]:
    """The rows of what leaves, for `keep`: which photo each is of, as the rows of the photos know."""
    return [_row(reader, each) for each in leaving]


async def keep(store: Store, rows: Sequence[Mapping[str, Any]]) -> None:
    """Commit what leaves the catalog, before it does. Kept once, however often it is said."""
    async with store.transaction() as transaction:
        await transaction.execute_many("keep_former_entry", [{**row, "left_at": transaction.now} for row in rows])
    fault_point("former_entries.kept")


async def forget(store: Store, row_ids: Sequence[int]) -> None:
    """Commit that the catalog has these in their new places. It must be durable."""
    if row_ids:
        async with store.transaction() as transaction:
            await transaction.execute_many("forget_former_entry", [{"id": row_id} for row_id in row_ids])
        fault_point("former_entries.forgotten")


def heirs(reader: Reader) -> Iterator[Heir]:
    """The former entries whose photo is somewhere now: found by its id, then by its SHA-256. Each file is one's only.

    Not a file that was there while the former one was: two photos of the same bytes, or one photo in two albums, are
    two files, and the one does not become the other when that goes.
    """
    waiting = list(reader.rows("former_entries"))
    taken: set[FilePlace] = set()
    for query, column in (("heirs_by_photo", "photo_id"), ("heirs_by_content", "sha256")):
        still_waiting = []
        for row in waiting:
            found = _places(reader, query, row) if row[column] else iter(())
            place = next((place for place in found if place not in taken), None)
            if place is None:
                still_waiting.append(row)
                continue
            taken.add(place)
            (kept,) = reader.rows("former_entry", {"id": row["id"]})
            yield Heir(row["id"], row["path"], kept["entry"], place)
        waiting = still_waiting


def _places(reader: Reader, query: str, row: Row) -> Iterator[FilePlace]:
    for photo in list(reader.rows(query, dict(row))):
        if not row["stage"]:
            yield FilePlace("export", photo["folder"], photo["file_name"])
            continue
        where = {**dict(row), "folder": photo["folder"], "photo": photo["file_name"]}
        for made in list(reader.rows("stage_heirs", where)):
            yield FilePlace(row["stage"], photo["folder"], made["file_name"])


def _row(reader: Reader, leaving: LeavingEntry) -> dict[str, Any]:
    place = leaving.place
    stage = "" if place.stage == "export" else place.stage
    made: Row | None = None
    photo_name = place.file_name
    if stage:
        where = {"stage": stage, "folder": place.folder, "file_name": place.file_name}
        made = next(iter(list(reader.rows("stage_pictures_known_at", where))), None)
        photo_name = made["photo"] if made is not None else ""
    known = list(reader.rows("photos_known_at", {"path_key": path_key(place.folder, photo_name)}))
    same = [row for row in known if (row["source_id"], row["component"]) == (leaving.photo_id, leaving.component)]
    photo = next(iter(same or (() if leaving.photo_id else known)), None)
    since = leaving.since
    if since is None:
        seen = made if made is not None else photo
        since = (seen["since"] if seen is not None else None) or utc_now()
    return {
        "path": leaving.path,
        "path_key": path_key(place.folder, place.file_name),
        "stage": stage,
        "variant": made["variant"] if made is not None else "",
        "source_kind": photo["source_kind"] if photo is not None else "",
        "source_location": photo["source_location"] if photo is not None else "",
        "photo_id": photo["source_id"] if photo is not None else "",
        "component": photo["component"] if photo is not None else "",
        "sha256": leaving.sha256 or (photo["sha256"] if photo is not None else ""),
        "since": since,
        "entry": leaving.entry,
    }
