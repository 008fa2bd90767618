"""Photos that somebody has left out, until they are taken in again: rows of the table `left_out_photos`.

A copy of them is kept beside the database, `left_out.json`, written after each change: what should not be published
must not come back because the database is lost. The database is the truth; the copy counts where there is none.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from skicyclerun.files.atomic_files import write_atomically
from skicyclerun.files.fault_points import fault_point
from skicyclerun.models import Component, Photo
from skicyclerun.state.photos import path_key

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries, Row
    from skicyclerun.state.store import Store

log = logging.getLogger(__name__)

COPY_NAME: Final = "left_out.json"
REASON: Final = "left out by hand; `skicyclerun take-in` brings it back"
_MOST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class LeftOutPhoto:
    """A photo that is left out. `folder` and `file_name` are what it was named by."""

    source_kind: str
    source_location: str
    photo_id: str
    component: str
    folder: str
    file_name: str
    since: str = ""
    """ISO 8601 UTC."""

    @property
    def name(self) -> str:
        """`ALBUM/FILE`, to be typed."""
        return f"{self.folder}/{self.file_name}"

    @classmethod
    def of(cls, row: Row) -> Self:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """A photo that a run has planned at some time, as a command finds it by its file."""

    photo: LeftOutPhoto
    present: bool
    """Its file is there."""
    removed: bool
    """Its file was removed by hand, for which runs leave it out."""


async def listing(store: Queries) -> list[LeftOutPhoto]:
    """All of them, by album and file."""
    return [LeftOutPhoto.of(row) for row in await store.all("left_out_photos")]


async def keys_of_source(store: Store, source: tuple[str, str]) -> set[tuple[str, str]]:
    """(photo id, component) of those of a source (kind, location)."""
    where = {"source_kind": source[0], "source_location": source[1]}
    return {(row["photo_id"], row["component"]) for row in await store.all("left_out_of_source", where)}


def among(listed: Iterable[Photo], keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which photos of an album are left out, by (id, component): with a still also its Live Photo's movie, which
    follows it. What lies beside a photo goes where that goes."""
    out: set[tuple[str, str]] = set()
    if not keys:
        return out
    still_out = False
    for photo in listed:
        if photo.component.is_companion:
            continue
        key = (photo.id, photo.component.value)
        if photo.component is not Component.LIVE_MOVIE:
            still_out = key in keys
        if key in keys or (photo.component is Component.LIVE_MOVIE and still_out):
            out.add(key)
    return out


async def leave_out(store: Store, photos: Sequence[LeftOutPhoto], export_folder: Path) -> None:
    """Commit that no run exports these any more, and let the latest run do without those that it still owes.

    Not without one whose file a stopped run has left there: the run has to take it on, so that an update can put it
    away. The copy is written last. Raises StorageError; what is committed then holds all the same.
    """
    import anyio.to_thread

    wanted = [{"photo_id": each.photo_id, "component": each.component} for each in photos]
    owed = [row for each in wanted for row in await store.all("owed_by_latest_run", each)]

    def absent() -> list[int]:
        return [row["id"] for row in owed if not os.path.lexists(export_folder / row["folder"] / row["file_name"])]

    left = await anyio.to_thread.run_sync(absent)
    async with store.transaction() as transaction:
        rows = [{**asdict(photo), "since": transaction.now} for photo in photos]
        await transaction.execute_many("leave_out_photo", rows)
        await transaction.execute_many("not_owed", [{"id": row_id, "reason": REASON} for row_id in left])
    fault_point("left_out.committed")
    await _write_copy(store)


async def take_in(store: Store, photos: Sequence[LeftOutPhoto]) -> None:
    """Commit that runs may export these again."""
    async with store.transaction() as transaction:
        await transaction.execute_many("take_in_photo", [asdict(photo) for photo in photos])
    fault_point("left_out.committed")
    await _write_copy(store)


async def put_back(store: Store, photos: Sequence[LeftOutPhoto]) -> None:
    """Enter what an earlier database knew, as it was."""
    async with store.transaction() as transaction:
        await transaction.execute_many("leave_out_photo", [asdict(photo) for photo in photos])


# ── the copy ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def _write_copy(store: Store) -> None:
    import anyio.to_thread

    told = {"left_out": [asdict(photo) for photo in await listing(store)]}
    data = orjson.dumps(told, option=orjson.OPT_INDENT_2)

    await anyio.to_thread.run_sync(write_atomically, copy_beside(store.path), data)


def copy_beside(database: Path) -> Path:
    """Where the copy of a database's left out photos lies."""
    return database.with_name(COPY_NAME)


async def restore(store: Store) -> int:
    """Take the copy over into a database that knows of no run; returns how many photos. Never raises for the copy."""
    import anyio.to_thread

    if await store.one("latest_run") is not None or await store.one("left_out_photos") is not None:
        return 0

    kept = await anyio.to_thread.run_sync(read_copy, copy_beside(store.path))
    if kept:
        await put_back(store, kept)
        log.info("%d photos are left out, by %s", len(kept), COPY_NAME)
    return len(kept)


def read_copy(path: Path) -> list[LeftOutPhoto]:
    """What the copy holds; empty where there is none that can be used. Blocks."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return []
        told = json.loads(path.read_bytes())
        entries = told["left_out"]
        return [photo for entry in entries if (photo := _from_entry(entry)) is not None]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s cannot be used: %s", path, error)
        return []


def _from_entry(entry: Any) -> LeftOutPhoto | None:
    """None for what is no such photo; the file is anybody's."""
    names = LeftOutPhoto.__dataclass_fields__
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in names):
        return None
    if entry["component"] not in {component.value for component in Component if not component.is_companion}:
        return None
    return LeftOutPhoto(**{name: entry[name] for name in names})


def salvage(database: Path) -> list[LeftOutPhoto] | None:
    """Those of a database that may be damaged; None where it cannot be read, or is of before there were any. Blocks."""
    quoted = str(database.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    for flags in ("mode=ro", "mode=ro&immutable=1"):
        try:
            with closing(sqlite3.connect(f"file:{quoted}?{flags}", uri=True)) as connection:
                connection.row_factory = sqlite3.Row
                rows = connection.execute("SELECT * FROM left_out_photos").fetchall()
                entries = [{name: row[name] for name in LeftOutPhoto.__dataclass_fields__} for row in rows]
                return [photo for entry in entries if (photo := _from_entry(entry)) is not None]
        except (sqlite3.Error, IndexError):
            continue
    return None


# ── finding a photo by its file ───────────────────────────────────────────────────────────────────────────────────


async def albums_known(store: Store) -> list[Row]:
    """Every album of any run once, the newest first: `album_id`, `title`, `folder_path`, `folder`, its source."""
    return await store.all("albums_ever")


async def named(store: Store, album: Row, file_name: str) -> NamedPhoto | None:
    """The photo whose exported file has this name in an album's folder: the one that is there, else the latest."""
    rows = await store.all("photos_ever_at", {"path_key": path_key(album["folder"], file_name)})
    wanted = (album["source_kind"], album["source_location"])
    for row in rows:
        if (row["source_kind"], row["source_location"]) == wanted:
            return _named(row)
    return None


async def names_in(store: Store, album: Row) -> list[NamedPhoto]:
    """All photos of an album as the newest run that planned it has them."""
    where = {name: album[name] for name in ("album_id", "source_kind", "source_location")}
    return [_named(row) for row in await store.all("photos_of_newest_album", where)]


def _named(row: Row) -> NamedPhoto:
    photo = LeftOutPhoto(
        source_kind=row["source_kind"],
        source_location=row["source_location"],
        photo_id=row["source_id"],
        component=row["component"],
        folder=row["folder"],
        file_name=row["file_name"],
    )
    return NamedPhoto(photo, bool(row["present"]), bool(row["removed"]))
