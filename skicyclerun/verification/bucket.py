"""`verify --remote`: what lies in the bucket of `s3_deployment`, compared with the rows that speak for it.

The bucket is listed below its prefix, and an object is known again by the ETag that was confirmed with its checksum.
Objects of others are only counted.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import partial
from typing import Any

import anyio.to_thread

from skicyclerun.bucket.known import Kind, KnownObject, ObjectStatus
from skicyclerun.bucket.objects import PROBE_NAME, Bucket, Listed
from skicyclerun.errors import BucketRefused, PhotoError, StageError
from skicyclerun.run.lock import RunLock, current_holder
from skicyclerun.settings.dotenv_file import lend_to_libraries
from skicyclerun.settings.later_stages import later_stages, section_of
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import STAGE_BY_NAME, check_stage_needs
from skicyclerun.stages.s3_deployment import NAME, S3Deployment
from skicyclerun.stages.stage import Surroundings
from skicyclerun.state import bucket_objects, runs
from skicyclerun.state.store import Store
from skicyclerun.verification.bucket_indexes import Index, indexes_to_be_there
from skicyclerun.verification.session import lock_file
from skicyclerun.wording import bytes_in_words, counted, printable

#: Problems that are named, unless all are asked for.
_NAMED = 20


class Amiss(StrEnum):
    """What can be wrong with an object. The values are stable: they stand in `--json`."""

    MISSING = "missing"
    SIZE_DIFFERS = "size_differs"
    CONTENT_DIFFERS = "content_differs"
    INDEX_MISSING = "index_missing"
    """Pictures are there, and no row speaks for the index that has to name them."""
    INDEX_OUTDATED = "index_outdated"
    """It is as it was sent, and does not name what is there."""


@dataclass(frozen=True, slots=True)
class ObjectProblem:
    """An object that is not as its row says."""

    finding: Amiss
    key: str
    detail: str
    is_over: bool = False
    """Its picture has left its album, or its album the library, so that nobody can send it again."""


@dataclass(frozen=True, slots=True)
class BucketVerification:
    """What was found below the prefix."""

    place: str
    """The bucket with its prefix."""
    objects: int
    """That rows speak for and the service has confirmed; all were looked for."""
    bytes: int
    read: int
    """Of those: read back and hashed."""
    foreign: int
    """That no row speaks for; they are left alone."""
    left: int
    """Of pictures that have left their albums, and are still there."""
    elsewhere: int
    """Of an earlier prefix; they were not looked for."""
    problems: tuple[ObjectProblem, ...]
    to_be_sent_again: int = 0
    """That an earlier repair has entered, and no run has sent since."""
    unconfirmed: int = 0
    """That a run was about to send, and the service has not confirmed."""
    to_be_removed: int = 0
    """That a run was about to remove, and that may still be there."""
    without_object: int = 0
    """Pictures that the stage has done by its rows, of whose objects below this prefix none speaks."""
    unfinished_run: int | None = None
    """The newest run, if it is not finished."""
    running: str = ""
    """Who works in the lib_root now."""
    repaired: bool = False
    """The objects that are amiss are sent again by the next run of the stage."""

    @property
    def sound(self) -> bool:
        owed = self.to_be_sent_again + self.unconfirmed + self.to_be_removed + self.without_object
        return not self.problems and not owed


async def verify_bucket(settings: Settings, *, full: bool, repair: bool = False) -> BucketVerification:
    """List and compare; `full` reads every object of ours back. `repair`: what is amiss is sent again by the next run.

    Raises NoState, StageError where there is no bucket or it cannot be asked, LockHeld and UsageError for `repair`.
    """
    stage = later_stages(settings).get(NAME, STAGE_BY_NAME[NAME])
    if stage is not STAGE_BY_NAME[NAME]:
        raise StageError(f"{NAME} is a command of yours here; nobody else knows what it sends.")
    check_stage_needs(settings, [stage])
    lend_to_libraries(settings.variables)
    section = section_of(settings, stage)
    recipe = S3Deployment(
        section,  # type: ignore[arg-type]  # the section of this stage
        Surroundings(settings.paths.metadata_dir, settings.paths.geocode_cache, settings.file.parent),
    )
    recipe.check()
    if not repair:
        running = current_holder(lock_file(settings)) or ""
        async with await Store.open_to_read(settings.paths.state_db) as store:
            found = (await _looked_through(store, recipe, full=full)).found
        # A run may have begun meanwhile; what it does shows as much.
        return replace(found, running=running or current_holder(lock_file(settings)) or "")
    async with await Store.open_to_read(settings.paths.state_db):
        pass
    with RunLock(settings.lib_root, lock_file(settings)):
        async with await Store.open(settings.paths.state_db) as store:
            looked = await _looked_through(store, recipe, full=full)
            found = looked.found
            if not found.problems:
                return found
            if found.unfinished_run is not None:
                raise StageError(
                    f"Run {found.unfinished_run} is unfinished. Nothing was touched.",
                    next_step="`skicyclerun run --resume` carries on; then `skicyclerun verify --remote --repair`.",
                )
            place = recipe.service.place
            over = [each.key for each in found.problems if each.is_over]
            async with store.transaction() as transaction:
                await bucket_objects.send_again(transaction, place, looked.seen)
                await bucket_objects.mark(transaction, "forget_bucket_object", place, over)
    return replace(found, repaired=True)


@dataclass(frozen=True, slots=True)
class _Looked:
    found: BucketVerification
    seen: Mapping[str, str | None]
    """What a repair enters to be sent again: key → the ETag of what lies there."""


async def _looked_through(store: Store, recipe: S3Deployment, *, full: bool) -> _Looked:
    place = recipe.service.place
    rows = await bucket_objects.of_place(store, place)
    indexes = await indexes_to_be_there(store, NAME, place, recipe.rule, rows)
    gone = {row["folder"] for row in await store.all("albums_gone_from_source", {"place": place})}
    done = {(row["folder"], row["input"]) for row in await store.all("inputs_done_by_stage", {"stage": NAME})}
    there = {(row.folder, row.input) for row in rows if not row.left and recipe.rule.made(row.claimed)}
    latest = await runs.latest(store)
    unfinished = latest.id if latest is not None and latest.unfinished else None
    look = partial(_compared, recipe, rows, indexes, gone, full=full)
    looked = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
    found = replace(looked.found, unfinished_run=unfinished, without_object=len(done - there))
    return replace(looked, found=found)


def _compared(
    recipe: S3Deployment, rows: list[KnownObject], indexes: Sequence[Index], gone: Collection[str], *, full: bool
) -> _Looked:
    try:
        bucket = recipe.connected()
        listed = bucket.listing(recipe.rule.root)
        ours = [row for row in rows if row.status is ObjectStatus.THERE and recipe.rule.holds(row.key)]
        problems = []
        read = 0
        for row in ours:
            problem = _amiss(bucket, row, listed.get(row.key))
            if problem is None and full:
                read += 1
                problem = _read_back(bucket, row)
            if problem is not None:
                is_over = row.left or row.folder in gone
                over = "; what it was made of has left, so that it cannot be sent again" if is_over else ""
                problems.append(replace(problem, detail=problem.detail + over, is_over=is_over))
        waiting = [row for row in rows if _waits(recipe, row, gone)]
        problems += [each for row in waiting if (each := _replaced(bucket, row, listed.get(row.key))) is not None]
        amiss = {each.key for each in problems}
        problems += [
            each
            for index in indexes
            if index.key not in amiss and (each := _index_amiss(bucket, index, listed)) is not None
        ]
    except (BucketRefused, PhotoError) as error:
        raise StageError(f"The bucket could not be looked through. {error}", next_step=error.next_step) from error
    finally:
        recipe.close()
    known = {row.key for row in rows}
    again = [row.is_to_be_sent_again for row in waiting if row.key not in amiss]
    found = BucketVerification(
        place=f"{recipe.service.place}/{recipe.rule.root}",
        objects=len(ours),
        bytes=sum(row.size or 0 for row in ours),
        read=read,
        foreign=sum(key not in known and not key.endswith(PROBE_NAME) for key in listed),
        left=sum(row.left for row in ours),
        elsewhere=sum(not recipe.rule.holds(row.key) for row in rows),
        problems=tuple(problems),
        to_be_sent_again=again.count(True),
        unconfirmed=again.count(False),
        to_be_removed=sum(row.status is ObjectStatus.LEAVING and recipe.rule.holds(row.key) for row in rows),
    )
    keys = [each.key for each in problems if not each.is_over]
    return _Looked(found, {key: listed[key].etag if key in listed else None for key in keys})


def _waits(recipe: S3Deployment, row: KnownObject, gone: Collection[str]) -> bool:
    """Whether a run has yet to bring this object."""
    if row.kind is Kind.INDEX:
        is_wanted = row.key == recipe.rule.index
    else:
        is_wanted = row.folder not in gone and recipe.rule.made(row.claimed)
    return row.status is ObjectStatus.CLAIMED and not row.left and is_wanted


def _amiss(bucket: Bucket, row: KnownObject, listed: Listed | None) -> ObjectProblem | None:
    if listed is None:
        return ObjectProblem(Amiss.MISSING, row.key, "it is not in the bucket")
    if listed.size != row.size:
        return ObjectProblem(Amiss.SIZE_DIFFERS, row.key, f"{listed.size} bytes, {row.size} were sent")
    if listed.etag == row.etag:
        return None
    head = bucket.head(row.key)  # Another ETag may be another encryption of the same bytes.
    whole = base64.b64encode(bytes.fromhex(row.sha256 or "")).decode()
    if head is not None and head.checksum and head.checksum in (whole, row.checksum.removeprefix("SHA256 ")):
        return None
    return ObjectProblem(Amiss.CONTENT_DIFFERS, row.key, "its checksum is not the one that was confirmed")


def _read_back(bucket: Bucket, row: KnownObject) -> ObjectProblem | None:
    if bucket.read(row.key) == (row.sha256, row.size):
        return None
    return _read_differs(row)


def _read_differs(row: KnownObject) -> ObjectProblem:
    return ObjectProblem(Amiss.CONTENT_DIFFERS, row.key, "what comes back has another SHA-256 than was sent")


def _replaced(bucket: Bucket, row: KnownObject, listed: Listed | None) -> ObjectProblem | None:
    """Of an object that is to be sent: whether somebody else's lies there now, which no run replaces."""
    if listed is None or not row.was_there or listed.etag == row.etag:
        return None
    head = bucket.head(row.key)
    if head is None or head.is_ours:
        return None
    return ObjectProblem(Amiss.CONTENT_DIFFERS, row.key, "somebody has replaced it before a run could send it again")


def _index_amiss(bucket: Bucket, index: Index, listed: Mapping[str, Listed]) -> ObjectProblem | None:
    if index.row is None and index.key in listed:
        detail = "an object is there that no row speaks for; the next run looks whether it is the index"
        return ObjectProblem(Amiss.INDEX_MISSING, index.key, detail)
    if index.row is None:
        what = "albums" if index.of_all_albums else "the pictures of its album"
        detail = f"{what} are in the bucket, their index is not; it goes up when all of them are there"
        return ObjectProblem(Amiss.INDEX_MISSING, index.key, detail)
    if index.row.status is not ObjectStatus.THERE:
        return None  # It is counted among those that wait.
    text = bucket.get(index.row.key, at_most=index.row.size or 0)
    if hashlib.sha256(text).hexdigest() != index.row.sha256:
        return _read_differs(index.row)
    detail = index.problem(text)
    return ObjectProblem(Amiss.INDEX_OUTDATED, index.row.key, detail) if detail else None


def as_json(found: BucketVerification) -> dict[str, Any]:
    """For other programs. Keys are stable."""
    problems = [{"finding": each.finding.value, "key": each.key, "detail": each.detail} for each in found.problems]
    told = {each.name: getattr(found, each.name) for each in fields(found)}
    return {"ok": found.sound, **told, "problems": problems}


def as_lines(found: BucketVerification, *, name_all: bool) -> Iterator[str]:
    """For people."""
    read = f", {found.read} read back" if found.read else ""
    much = f"{counted(found.objects, 'object')} ({bytes_in_words(found.bytes)})"
    yield f"{printable(found.place)}: {much} compared{read}."
    named = found.problems if name_all else found.problems[:_NAMED]
    for problem in named:
        yield f"    {problem.finding.value:<18}  {printable(problem.key)}: {printable(problem.detail)}"
    if len(named) < len(found.problems):
        yield f"    … and {len(found.problems) - len(named)} more (`skicyclerun verify --remote --all` names all)"
    if found.left:
        yield f"{counted(found.left, 'object')} of pictures that have left their albums (s3_deployment.delete_removed)."
    if found.elsewhere:
        yield f"{counted(found.elsewhere, 'object')} of ours below another prefix; not looked for, and never removed."
    if found.foreign:
        yield f"{counted(found.foreign, 'object')} that skicyclerun did not upload, by its rows; left alone."
    yield from _unsettled(found)
    if found.sound:
        yield "Nothing is wrong in the bucket."
    elif not found.running:  # Whoever is at work may be mending just this.
        yield _next(found)


def _unsettled(found: BucketVerification) -> Iterator[str]:
    """What rows say is to be done, and was not."""
    if count := found.to_be_sent_again:
        yield f"{counted(count, 'object')} to be sent again: a repair has entered that, and no run has sent since."
    run = f"run {found.unfinished_run}, which has not ended" if found.unfinished_run is not None else "a run"
    if count := found.unconfirmed:
        yield f"{counted(count, 'object')} claimed by {run}: the service has not confirmed what was to be sent."
    if count := found.without_object:
        yield f"{counted(count, 'picture')} uploaded, by the rows of {NAME}, and none says where below this prefix."
    if count := found.to_be_removed:
        yield f"{counted(count, 'object')} to be removed by {run}, and perhaps still there."


def _next(found: BucketVerification) -> str:
    if found.unfinished_run is not None:
        return f"Next: `skicyclerun run --resume` carries on with run {found.unfinished_run}."
    kinds = {problem.finding for problem in found.problems}
    if found.problems and all(problem.is_over for problem in found.problems):
        if found.repaired:
            return "These objects count as ours no more."
        return "Next: `skicyclerun verify --remote --repair` lets go of them: they count as ours no more."
    if found.repaired or kinds <= {Amiss.INDEX_MISSING}:
        return f"Next: `skicyclerun run --stages {NAME}` sends what is amiss again."
    return f"Next: `skicyclerun verify --remote --repair`, then `skicyclerun run --stages {NAME}` sends it again."
