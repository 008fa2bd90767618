"""Rows of the table `stage_pictures`: what a stage made of a picture, and what that depends on.

A row outlives the runs: (stage, input, variant) has one, with the SHA-256 of its input and a digest of all else that
decided the result. It is up to date while both are what they were and its file is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import orjson

from skicyclerun.errors import IllegalTransition
from skicyclerun.files.fault_points import fault_point

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries, Row
    from skicyclerun.state.store import Store, Transaction

#: Before the digest of a result that is to be made again as soon as that helps.
PROVISIONAL: Final = "provisional:"


class PictureStatus(StrEnum):
    """What became of a picture in a stage."""

    PLANNED = "planned"
    DONE = "done"
    FAILED = "failed"
    LEFT_OUT = "left_out"


class Why(StrEnum):
    """Why a picture is to be done, or is not."""

    UP_TO_DATE = "up to date"
    LEFT_OUT = "left out"
    NEW = "new"
    INPUT_CHANGED = "input changed"
    SETTING_CHANGED = "setting changed"
    OUTPUT_GONE = "output gone"
    UNFINISHED = "not made before"


@dataclass(frozen=True, slots=True)
class StageInput:
    """A catalogued file that a stage takes."""

    file_name: str
    sha256: str
    size: int
    mtime_ns: int
    photo: str
    """The exported file it comes from; its own name where it is that file."""
    variant: str = ""
    is_movie: bool = False


@dataclass(frozen=True, slots=True)
class StagePictureRow:
    """One row, whole."""

    id: int
    position: int
    stage: str
    folder: str
    photo: str
    input: str
    variant: str
    input_sha256: str
    depends: str
    status: PictureStatus
    attempts: int
    reason: str
    note: str
    file_name: str
    size: int | None
    sha256: str | None
    mtime_ns: int | None
    width: int | None
    height: int | None
    facts_text: str | None
    """JSON."""
    seconds: float | None
    made_at: str | None
    present: bool

    @property
    def facts(self) -> Mapping[str, Any]:
        """For the catalog."""
        found: dict[str, Any] = orjson.loads(self.facts_text) if self.facts_text else {}
        return found

    @classmethod
    def of(cls, row: Row) -> StagePictureRow:
        return cls(
            id=row["id"],
            position=row["position"],
            stage=row["stage"],
            folder=row["folder"],
            photo=row["photo"],
            input=row["input"],
            variant=row["variant"],
            input_sha256=row["input_sha256"],
            depends=row["depends"],
            status=PictureStatus(row["status"]),
            attempts=row["attempts"],
            reason=row["reason"],
            note=row["note"],
            file_name=row["file_name"],
            size=row["size"],
            sha256=row["sha256"],
            mtime_ns=row["mtime_ns"],
            width=row["width"],
            height=row["height"],
            facts_text=row["facts"],
            seconds=row["seconds"],
            made_at=row["made_at"],
            present=bool(row["present"]),
        )


@dataclass(frozen=True, slots=True)
class PicturePlan:
    """A picture and what is to be done with it. `row_id` None: it has no row yet."""

    input: StageInput
    depends: str
    file_name: str
    why: Why
    left_out: str = ""
    row_id: int | None = None
    position: int = 0
    """Of its row in the album so far; 0 where it has none."""
    claimed: bool = True
    """The file that is there now, if any, may be replaced. False: somebody changed it since we made it."""
    earlier_size: int | None = None
    """Of its file as we made it, where it is there: a claim gives that up, and a failure is to know it again."""
    unchanged: bool = False
    """Left out, and its row stays as it is: it says so already, or it has an earlier result."""
    donor: StagePictureRow | None = None
    """A result of the same bytes under the same settings that is taken over: the photo was moved or renamed."""

    @property
    def to_do(self) -> bool:
        """Whether something is to be made."""
        return self.why not in (Why.UP_TO_DATE, Why.LEFT_OUT)

    @property
    def input_is_news(self) -> bool:
        """Whether it is to be done because of what stages before found or made; not one that was left out before."""
        news = self.why in (Why.INPUT_CHANGED, Why.SETTING_CHANGED)
        return news or (self.why is Why.NEW and self.row_id is None)


@dataclass(frozen=True, slots=True)
class PictureMade:
    """The result is durable: its file under its final name, where it has one."""

    row_id: int
    attempts: int
    seconds: float
    facts: Mapping[str, Any]
    size: int | None = None
    sha256: str | None = None
    mtime_ns: int | None = None
    width: int | None = None
    height: int | None = None
    note: str = ""
    depends: str | None = None
    """What its row is to say that it depends on; None: as planned."""


@dataclass(frozen=True, slots=True)
class PictureFailed:
    """Nothing was made; the reason is a sentence."""

    row_id: int
    reason: str
    attempts: int
    earlier_size: int | None = None
    """Of the earlier result, which is there still: it is ours as long as it has this size."""


@dataclass(frozen=True, slots=True)
class ExportedFactsText:
    """The facts of an exported photo's row, parsed only when they are asked for."""

    text: str | None
    album_title: str

    def parsed(self) -> dict[str, Any]:
        """With `album_title` among them."""
        known: dict[str, Any] = orjson.loads(self.text or "{}")
        return known | {"album_title": self.album_title}


async def exported_inputs(store: Store, folder: str) -> list[tuple[StageInput, ExportedFactsText]]:
    """The exported files of an album's folder, each with its row's facts."""
    found = []
    for row in await store.all("exported_inputs", {"folder": folder}):
        taken = StageInput(
            row["file_name"],
            row["sha256"],
            row["size"],
            row["mtime_ns"],
            row["file_name"],
            is_movie=row["component"] != "still",
        )
        found.append((taken, ExportedFactsText(row["facts"], row["album_title"])))
    return found


async def owed_by_export(store: Store, folder: str) -> set[str]:
    """File names of the pictures of the folder's album that the export was to bring and has not brought."""
    return {row["file_name"] for row in await store.all("export_owes", {"folder": folder})}


async def stage_inputs(store: Store, upstream: Sequence[str], folder: str) -> tuple[list[StageInput], set[str]]:
    """(what the first stage of `upstream` made for the folder, photos that one of these stages leaves out)."""
    rows = await store.all("stage_inputs", {"stage": upstream[0], "folder": folder})
    stages = orjson.dumps(upstream).decode()
    left_out = await store.all("photos_left_out_by_stages", {"stages": stages, "folder": folder})
    taken = [
        StageInput(row["file_name"], row["sha256"], row["size"], row["mtime_ns"], row["photo"], row["variant"])
        for row in rows
    ]
    return taken, {row["photo"] for row in left_out}


async def owed_by_stage(store: Store, stage: str, folder: str) -> set[str]:
    """Photos of the folder of which the stage has planned a result and has not made it."""
    return {row["photo"] for row in await store.all("stage_owes", {"stage": stage, "folder": folder})}


async def facts_of_folder(store: Store, folder: str, stages: Sequence[str]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Photo → stage → the facts that one of these stages found."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in await store.all("stage_facts", {"folder": folder, "stages": orjson.dumps(stages).decode()}):
        found.setdefault(row["photo"], {})[row["stage"]] = orjson.loads(row["facts"])
    return found


async def of_folder(store: Store, stage: str, folder: str) -> list[StagePictureRow]:
    """The stage's rows of an album's folder, without those whose input has left."""
    return [
        StagePictureRow.of(row)
        for row in await store.all("stage_pictures_of_folder", {"stage": stage, "folder": folder})
    ]


async def of_album(store: Queries, album_id: int) -> list[StagePictureRow]:
    """The rows that a stage album planned, in its order."""
    return [StagePictureRow.of(row) for row in await store.all("stage_pictures_of_album", {"album": album_id})]


async def with_inputs(store: Store, stage: str, hashes: Sequence[str]) -> dict[tuple[str, str, str], StagePictureRow]:
    """Results of inputs with these bytes, whatever photo they are of, by (input SHA-256, variant, digest)."""
    if not hashes:
        return {}
    rows = await store.all("stage_pictures_like", {"stage": stage, "hashes": orjson.dumps(hashes).decode()})
    found = [StagePictureRow.of(row) for row in rows]
    return {(row.input_sha256, row.variant, row.depends): row for row in found}


async def has_run(store: Store, stage: str) -> bool:
    """Whether the stage has any row."""
    row = await store.one("stage_has_run", {"stage": stage})
    return row is not None and bool(row["has_run"])


async def files_in(store: Store, stage: str, folder: str) -> dict[str, tuple[int, int] | None]:
    """File name → (size, mtime in ns) of the stage's files in an album's folder that rows speak for.

    None for one that is planned and may be replaced whatever it is: a stop may have left a new file there without its
    row.
    """
    return {
        row["file_name"]: None if row["size"] is None else (row["size"], row["mtime_ns"])
        for row in await store.all("files_of_stage_in_folder", {"stage": stage, "folder": folder})
    }


async def names_held(store: Store, stages: Sequence[str], folder: str) -> list[str]:
    """File names in an album's folder that rows of these stages speak for, with those that are to be put away.

    Whether the files are there or not: a name that is given twice is one row's file under the other's name.
    """
    where = {"stages": orjson.dumps(stages).decode(), "folder": folder}
    return [row["file_name"] for row in await store.all("stage_names_held", where)]


async def enter_plans(
    transaction: Transaction,
    album_id: int,
    stage: str,
    folder: str,
    plans: Sequence[PicturePlan],
    departed: Sequence[int],
) -> None:
    """Enter what was planned, in the transaction that starts the album."""
    await transaction.execute_many("depart_stage_picture", [{"id": row_id} for row_id in departed])
    numbered = list(enumerate(plans, start=1))
    kept = [(position, plan) for position, plan in numbered if plan.why is Why.UP_TO_DATE or plan.unchanged]
    ids = orjson.dumps([plan.row_id for _, plan in kept]).decode()
    await transaction.execute("keep_stage_pictures", {"album": album_id, "ids": ids})
    await transaction.execute_many(
        "place_stage_picture",
        [{"id": plan.row_id, "position": position} for position, plan in kept if plan.position != position],
    )
    rows = [
        (
            plan,
            {
                "album": album_id,
                "position": position,
                "photo": plan.input.photo,
                "input_sha256": plan.input.sha256,
                "depends": plan.depends,
                "status": PictureStatus.LEFT_OUT if plan.left_out else PictureStatus.PLANNED,
                "reason": plan.left_out,
                "file_name": plan.file_name,
                "claimed": int(plan.claimed),
            },
        )
        for position, plan in numbered
        if plan.why is not Why.UP_TO_DATE and not plan.unchanged
    ]
    await transaction.execute_many(
        "plan_stage_picture", [{**row, "id": plan.row_id} for plan, row in rows if plan.row_id is not None]
    )
    await transaction.execute_many(
        "insert_stage_picture",
        [
            {
                **row,
                "stage": stage,
                "folder": folder,
                "input": plan.input.file_name,
                "variant": plan.input.variant,
            }
            for plan, row in rows
            if plan.row_id is None
        ],
    )


async def commit_group(
    store: Store,
    outcomes: Sequence[PictureMade | PictureFailed],
    also: Callable[[Transaction, Sequence[PictureMade]], Awaitable[None]] | None = None,
) -> None:
    """Commit what became of a group of pictures, all or none. Files must be durable on disk already.

    `also`: what is to be committed together with it.

    Raises IllegalTransition if one of them is no longer planned.
    """
    made = [outcome for outcome in outcomes if isinstance(outcome, PictureMade)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, PictureFailed)]
    async with store.transaction() as transaction:
        changed = await transaction.execute_many(
            "stage_picture_done",
            [
                {
                    "id": each.row_id,
                    "attempts": each.attempts,
                    "note": each.note,
                    "depends": each.depends,
                    "size": each.size,
                    "sha256": each.sha256,
                    "mtime_ns": each.mtime_ns,
                    "width": each.width,
                    "height": each.height,
                    "facts": orjson.dumps(each.facts, option=orjson.OPT_SORT_KEYS).decode() if each.facts else None,
                    "seconds": each.seconds,
                    "made_at": transaction.now,
                }
                for each in made
            ],
        )
        changed += await transaction.execute_many(
            "stage_picture_failed",
            [
                {"id": each.row_id, "reason": each.reason, "attempts": each.attempts, "earlier_size": each.earlier_size}
                for each in failed
            ],
        )
        if also is not None:
            await also(transaction, made)
        if changed != len(outcomes):
            raise IllegalTransition(f"{len(outcomes) - changed} of {len(outcomes)} pictures were no longer planned.")
    fault_point("stage.group_committed")


@dataclass(frozen=True, slots=True)
class DepartedPicture:
    """A file or facts whose input has left."""

    row_id: int
    stage: str
    folder: str
    file_name: str
    """Empty: facts only, nothing to be put away."""


async def departed(store: Store, stages: Sequence[str]) -> list[DepartedPicture]:
    """What is marked as departed and not put away yet, of these stages; marks those whose photo is gone first."""
    for stage in stages:
        gone = [row["id"] for row in await store.all("stage_pictures_without_photos", {"stage": stage})]
        if gone:
            async with store.transaction() as transaction:
                await transaction.execute_many("depart_stage_picture", [{"id": row_id} for row_id in gone])
    return [
        DepartedPicture(row["id"], row["stage"], row["folder"], row["file_name"])
        for row in await store.all("departed_stage_files")
        if row["stage"] in stages
    ]


async def forget_departed(store: Store, pictures: Sequence[DepartedPicture]) -> None:
    """Commit that these rows no longer speak for anything."""
    async with store.transaction() as transaction:
        files = [{"id": each.row_id} for each in pictures if each.file_name]
        await transaction.execute_many("stage_picture_put_away", files)
        await transaction.execute_many(
            "forget_stage_facts", [{"id": each.row_id} for each in pictures if not each.file_name]
        )


async def to_be_made_again(store: Store, row_ids: Sequence[int]) -> None:
    """Commit that these files are gone or damaged: the next run of their stage makes them again, over what is there."""
    async with store.transaction() as transaction:
        await transaction.execute_many("stage_picture_to_be_made_again", [{"id": row_id} for row_id in row_ids])
