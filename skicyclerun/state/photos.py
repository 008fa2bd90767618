"""Rows of the table `photos`: planned with the final file name, then exported, failed, missing or left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from skicyclerun.errors import IllegalTransition
from skicyclerun.files.fault_points import fault_point
from skicyclerun.files.naming import collision_key
from skicyclerun.models import Component, ExportedFacts, Face, Location, Photo, Place, Rendering

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries, Row
    from skicyclerun.state.store import Store, Transaction


class PhotoStatus(StrEnum):
    """What became of a photo of an album."""

    PLANNED = "planned"
    EXPORTED = "exported"
    FAILED = "failed"
    MISSING = "missing"
    """The library does not hold its original."""
    LEFT_OUT = "left_out"
    """A setting says to leave it out (videos, `export.missing: skip`)."""


class PresentPhoto(NamedTuple):
    """A file of an earlier run, as an update compares it. `options` are the export settings it was made with, one
    object for all photos of a run."""

    row_id: int
    file_name: str
    fingerprint: str
    options: Mapping[str, Any]
    original_filename: str
    album: int
    """Row of the album that it was exported to, or went on in last; the other columns are as they are there."""
    position: int
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class PhotoPlan:
    """A photo with the file name it will have; `left_out` with why, if a setting leaves it out from the start."""

    photo: Photo
    file_name: str
    left_out: str = ""
    carried: PresentPhoto | None = None
    """What an earlier run exported, where its file is still right: its row goes on in this run as it is."""
    removed: bool = False
    """Left out because its file was removed by hand; so it stays, in later runs too."""


@dataclass(frozen=True, slots=True)
class SharedPhoto:
    """A file of the same photo in another album. `options` are the export settings it was made with."""

    folder: str
    file_name: str
    facts: ExportedFacts
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DepartedPhoto:
    """A file of an earlier run whose photo is no longer in its album."""

    row_id: int
    folder: str
    file_name: str


@dataclass(frozen=True, slots=True)
class PhotoToDo:
    """A planned photo that is not exported yet."""

    row_id: int
    photo: Photo
    file_name: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Exported:
    """The file is durable under its final name."""

    row_id: int
    path_key: str
    facts: ExportedFacts
    attempts: int


@dataclass(frozen=True, slots=True)
class NotExported:
    """No file; `status` is failed, missing or left_out."""

    row_id: int
    status: PhotoStatus
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """A photo row whole, for reports."""

    id: int
    photo: Photo
    file_name: str
    status: PhotoStatus
    attempts: int
    reason: str
    size: int | None
    sha256: str | None

    @classmethod
    def of(cls, row: Row) -> PhotoRow:
        return cls(
            id=row["id"],
            photo=_photo(row),
            file_name=row["file_name"],
            status=PhotoStatus(row["status"]),
            attempts=row["attempts"],
            reason=row["reason"],
            size=row["size"],
            sha256=row["sha256"],
        )


def _photo(row: Row) -> Photo:
    return Photo(
        id=row["source_id"],
        original_filename=row["original_filename"],
        component=Component(row["component"]),
        fingerprint=row["fingerprint"],
    )


def path_key(folder: str, file_name: str) -> str:
    """`folder/file_name` as the least discerning disk compares it; two rows of one key are one file."""
    return f"{collision_key(folder)}/{collision_key(file_name)}"


def facts_to_json(facts: ExportedFacts) -> str:
    """What the catalog says of a file, for the column `facts`; size, sha256 and mtime have columns of their own."""
    known: dict[str, object] = {
        "width": facts.width,
        "height": facts.height,
        "date_taken": facts.date_taken,
        "date_taken_utc": facts.date_taken_utc,
        "title": facts.title,
        "description": facts.description,
        "keywords": list(facts.keywords),
        "persons": list(facts.persons),
        "faces": [[face.name, face.x, face.y, face.width, face.height] for face in facts.faces],
        "labels": list(facts.labels),
        "note": facts.note,
        "extra": facts.extra,
    }
    if facts.rendering is not Rendering.ORIGINAL:
        known["rendering"] = facts.rendering.value
    if facts.favorite:
        known["favorite"] = True
    if facts.place:
        known["place"] = {key: text for key, text in asdict(facts.place).items() if text}
    if facts.location:
        at = facts.location
        known["location"] = [at.latitude, at.longitude, at.altitude, at.heading]
    return orjson.dumps({key: value for key, value in known.items() if value not in (None, "", [], {})}).decode()


def facts_from_row(row: Row) -> ExportedFacts:
    """The facts of an exported row (columns size, sha256, mtime_ns, facts)."""
    known = orjson.loads(row["facts"] or "{}")
    at, place = known.get("location"), known.get("place")
    return ExportedFacts(
        size=row["size"],
        sha256=row["sha256"],
        width=known.get("width"),
        height=known.get("height"),
        date_taken=known.get("date_taken"),
        date_taken_utc=known.get("date_taken_utc"),
        location=Location(*at) if at else None,
        title=known.get("title"),
        description=known.get("description"),
        keywords=tuple(known.get("keywords", ())),
        persons=tuple(known.get("persons", ())),
        faces=tuple(Face(*face) for face in known.get("faces", ())),
        place=Place(**place) if place else None,
        favorite=known.get("favorite", False),
        labels=tuple(known.get("labels", ())),
        rendering=Rendering(known.get("rendering", Rendering.ORIGINAL)),
        note=known.get("note", ""),
        mtime_ns=row["mtime_ns"],
        extra=known.get("extra", {}),
    )


async def insert_plans(transaction: Transaction, album_id: int, folder: str, plans: Sequence[PhotoPlan]) -> None:
    """Enter an album's photos, in the transaction that starts the album."""
    numbered = list(enumerate(plans, start=1))
    carried = [(position, plan) for position, plan in numbered if plan.carried is not None]
    if carried:
        await _carry(transaction, album_id, carried)
    await transaction.execute_many(
        "insert_photo",
        [
            {
                "album": album_id,
                "position": position,
                "source_id": plan.photo.id,
                "component": plan.photo.component,
                "original_filename": plan.photo.original_filename,
                "fingerprint": plan.photo.fingerprint,
                "file_name": plan.file_name,
                "status": PhotoStatus.LEFT_OUT if plan.left_out else PhotoStatus.PLANNED,
                "reason": plan.left_out,
                "removed": int(plan.removed),
                "path_key": path_key(folder, plan.file_name),
            }
            for position, plan in numbered
            if plan.carried is None
        ],
    )


async def _carry(transaction: Transaction, album_id: int, carried: Sequence[tuple[int, PhotoPlan]]) -> None:
    """Let the rows of files that are still right go on in this album, each with its position.

    The row itself moves, and a copy of it that speaks for nothing stays where it was: so the indexes of what is present
    need not be touched, which for 100,000 photos is most of the work. The catalog goes on saying the same of them,
    unless their album or their name in the library is called something else now.
    """
    alike: dict[tuple[int, int, str], list[int]] = {}
    moved: list[dict[str, object]] = []
    renamed = False
    for position, plan in carried:
        former, photo = plan.carried, plan.photo
        assert former is not None
        alike.setdefault((former.album, former.attempts, former.reason), []).append(former.row_id)
        name, fingerprint = photo.original_filename, photo.fingerprint
        if (position, name, fingerprint) != (former.position, former.original_filename, former.fingerprint):
            moved.append(
                {"id": former.row_id, "position": position, "original_filename": name, "fingerprint": fingerprint}
            )
            renamed |= (name, fingerprint) != (former.original_filename, former.fingerprint)
    for (album, attempts, reason), ids in alike.items():
        these = {"former": album, "ids": orjson.dumps(ids).decode()}
        gone = len(ids) - await transaction.execute("carry_photos", {**these, "album": album_id})
        if gone:
            raise IllegalTransition(f"{gone} of {len(ids)} files are no longer in use as they were.")
        await transaction.execute("leave_photos_behind", {**these, "attempts": attempts, "reason": reason})
        renamed |= await transaction.one("album_renamed", {"album": album_id, "former": album}) is not None
    await transaction.execute_many("carried_otherwise", moved)
    if renamed:
        await transaction.execute("catalog_says_otherwise")


async def to_do(store: Store, album_id: int) -> list[PhotoToDo]:
    """The album's planned photos in album order: where a restart continues."""
    return [
        PhotoToDo(row["id"], _photo(row), row["file_name"], row["attempts"])
        for row in await store.all("photos_to_do", {"album": album_id})
    ]


async def of_album(store: Queries, album_id: int) -> list[PhotoRow]:
    """All photo rows of an album, in album order."""
    return [PhotoRow.of(row) for row in await store.all("photos_of_album", {"album": album_id})]


async def commit_group(
    store: Store,
    outcomes: Sequence[Exported | NotExported],
    *,
    whereabouts_of: Mapping[int, tuple[str, str]] | None = None,
) -> None:
    """Commit what became of a group of photos, all or none. Exported ones must be durable on disk already.

    `whereabouts_of`: row id → (folder, file name) of photos whose files no longer say where they were taken; what
    stages knew of that from an earlier file is forgotten with the same commit.
    Raises IllegalTransition if one of them is no longer planned.
    """
    exported = [outcome for outcome in outcomes if isinstance(outcome, Exported)]
    others = [outcome for outcome in outcomes if isinstance(outcome, NotExported)]
    async with store.transaction() as transaction:
        await transaction.execute_many(
            "supersede_present", [{"path_key": outcome.path_key, "id": outcome.row_id} for outcome in exported]
        )
        changed = await transaction.execute_many(
            "photo_exported",
            [
                {
                    "id": outcome.row_id,
                    "attempts": outcome.attempts,
                    "size": outcome.facts.size,
                    "sha256": outcome.facts.sha256,
                    "mtime_ns": outcome.facts.mtime_ns,
                    "facts": facts_to_json(outcome.facts),
                    "exported_at": transaction.now,
                }
                for outcome in exported
            ],
        )
        if whereabouts_of:
            await transaction.execute_many(
                "forget_whereabouts",
                [
                    {"folder": folder, "photo": photo, "sha256": outcome.facts.sha256}
                    for outcome in exported
                    for folder, photo in (whereabouts_of[outcome.row_id],)
                ],
            )
        changed += await transaction.execute_many(
            "photo_not_exported",
            [
                {
                    "id": outcome.row_id,
                    "status": outcome.status,
                    "attempts": outcome.attempts,
                    "reason": outcome.reason,
                }
                for outcome in others
            ],
        )
        if changed != len(outcomes):
            raise IllegalTransition(f"{len(outcomes) - changed} of {len(outcomes)} photos were no longer planned.")
    fault_point("group.committed")


async def files_of_ours_in(store: Store, folder: str, run_id: int) -> dict[str, tuple[int, int] | None]:
    """File name → (size, mtime in ns) of files in an album folder that rows speak for.

    None for a name this run has planned: a stop may have left the file under its name without its row.
    """
    rows = await store.all("files_of_ours_in_folder", {"folder": folder, "run_id": run_id})
    found: dict[str, tuple[int, int] | None] = {
        row["file_name"]: (row["size"], row["mtime_ns"]) for row in rows if row["status"] != PhotoStatus.PLANNED
    }
    return found | {row["file_name"]: None for row in rows if row["status"] == PhotoStatus.PLANNED}


async def present_of_album(
    store: Store, album_source_id: str, source: tuple[str, str]
) -> dict[tuple[str, str], PresentPhoto]:
    """Files of an album of this source (kind, location) that earlier runs left, by (photo id, component)."""
    where = {"album_id": album_source_id, "source_kind": source[0], "source_location": source[1]}
    found: dict[tuple[str, str], PresentPhoto] = {}
    for album in await store.all("albums_with_files", where):
        options = json.loads(album["options"])
        for row_id, photo_id, component, name, fingerprint, original, position, attempts, reason in await store.all(
            "present_of_album", {"album": album["id"]}
        ):
            found[photo_id, component] = PresentPhoto(
                row_id, name, fingerprint, options, original, album["id"], position, attempts, reason
            )
    return found


async def same_elsewhere(store: Store, photo: Photo, folder: str, source: tuple[str, str]) -> list[SharedPhoto]:
    """Files of a photo of this source (kind, location), as it is now, in other folders than this; the newest first."""
    where = {
        "photo_id": photo.id,
        "component": photo.component,
        "fingerprint": photo.fingerprint,
        "folder": folder,
        "source_kind": source[0],
        "source_location": source[1],
    }
    return [
        SharedPhoto(row["folder"], row["file_name"], facts_from_row(row), json.loads(row["options"]))
        for row in await store.all("same_photo_elsewhere", where)
    ]


async def present_of_source(store: Store, source_kind: str, source_location: str) -> dict[str, set[str]]:
    """Album id → ids of the photos whose files are there, of all that came from this source."""
    found: dict[str, set[str]] = {}
    where = {"source_kind": source_kind, "source_location": source_location}
    for row in await store.all("present_of_source", where):
        found.setdefault(row["album_id"], set()).add(row["source_id"])
    return found


async def removed_of_album(store: Store, album_source_id: str, source: tuple[str, str]) -> set[tuple[str, str]]:
    """Photos of an album of this source, by (id, component), that its latest run has left out as removed by hand."""
    where = {"album_id": album_source_id, "source_kind": source[0], "source_location": source[1]}
    return {(row["source_id"], row["component"]) for row in await store.all("removed_of_album", where)}


async def departed(store: Store, run_id: int, is_gone: Callable[[str], bool]) -> list[DepartedPhoto]:
    """Files that no photo of the run stands for, of the run's planned albums and of albums the source has no more."""
    rows = await store.all("present_of_earlier_runs", {"run_id": run_id})
    return [
        DepartedPhoto(row["id"], row["folder"], row["file_name"])
        for row in rows
        if row["planned_again"] or is_gone(row["album_id"])
    ]


async def forget_departed(store: Store, photos: Sequence[DepartedPhoto]) -> None:
    """Commit that these rows no longer speak for a file."""
    async with store.transaction() as transaction:
        await transaction.execute_many("not_present", [{"id": photo.row_id} for photo in photos])
