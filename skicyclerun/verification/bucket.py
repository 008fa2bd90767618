"""`verify --remote`: what lies in the bucket of `s3_deployment`, compared with the rows that speak for it.

The bucket is listed below its prefix, and an object is known again by the ETag that was confirmed with its checksum.
Objects of others are only counted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import partial
from typing import Any

import anyio.to_thread

from skicyclerun.bucket.known import KnownObject, ObjectStatus
from skicyclerun.bucket.objects import PROBE_NAME, Bucket, Listed
from skicyclerun.errors import BucketRefused, PhotoError, StageError
from skicyclerun.run.lock import RunLock
from skicyclerun.settings.dotenv_file import lend_to_libraries
from skicyclerun.settings.later_stages import later_stages, section_of
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import STAGE_BY_NAME, check_stage_needs
from skicyclerun.stages.s3_deployment import NAME, S3Deployment
from skicyclerun.stages.stage import Surroundings
from skicyclerun.state import bucket_objects, runs
from skicyclerun.state.store import Store
from skicyclerun.verification.session import lock_file
from skicyclerun.wording import bytes_in_words, counted, printable

#: Problems that are named, unless all are asked for.
_NAMED = 20


class Amiss(StrEnum):
    """What can be wrong with an object. The values are stable: they stand in `--json`."""

    MISSING = "missing"
    SIZE_DIFFERS = "size_differs"
    CONTENT_DIFFERS = "content_differs"


@dataclass(frozen=True, slots=True)
class ObjectProblem:
    """An object that is not as its row says."""

    finding: Amiss
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class BucketVerification:
    """What was found below the prefix."""

    place: str
    """The bucket with its prefix."""
    objects: int
    """That rows speak for; all were looked for."""
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
    repaired: bool = False
    """The objects that are amiss are sent again by the next run of the stage."""

    @property
    def sound(self) -> bool:
        return not self.problems


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
    async with await Store.open_to_read(settings.paths.state_db) as store:
        rows = await bucket_objects.of_place(store, recipe.service.place)
    found = await anyio.to_thread.run_sync(partial(_compared, recipe, rows, full=full), abandon_on_cancel=True)
    if not repair or not found.problems:
        return found
    with RunLock(settings.lib_root, lock_file(settings)):
        async with await Store.open(settings.paths.state_db) as store:
            latest = await runs.latest(store)
            if latest is not None and latest.unfinished:
                raise StageError(
                    f"Run {latest.id} is unfinished. Nothing was touched.",
                    next_step="`skicyclerun run --resume` carries on; then `skicyclerun verify --remote --repair`.",
                )
            keys = [problem.key for problem in found.problems]
            async with store.transaction() as transaction:
                await bucket_objects.mark(transaction, "bucket_object_to_be_sent_again", recipe.service.place, keys)
    return replace(found, repaired=True)


def _compared(recipe: S3Deployment, rows: list[KnownObject], *, full: bool) -> BucketVerification:
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
                problems.append(problem)
    except (BucketRefused, PhotoError) as error:
        raise StageError(f"The bucket could not be looked through. {error}", next_step=error.next_step) from error
    finally:
        recipe.close()
    known = {row.key for row in rows}
    return BucketVerification(
        place=f"{recipe.service.place}/{recipe.rule.root}",
        objects=len(ours),
        bytes=sum(row.size or 0 for row in ours),
        read=read,
        foreign=sum(key not in known and not key.endswith(PROBE_NAME) for key in listed),
        left=sum(row.left for row in ours),
        elsewhere=sum(not recipe.rule.holds(row.key) for row in rows),
        problems=tuple(problems),
    )


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
    return ObjectProblem(Amiss.CONTENT_DIFFERS, row.key, "what comes back has another SHA-256 than was sent")


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
        yield f"{counted(found.foreign, 'object')} that skicyclerun did not upload; left alone."
    if found.sound:
        yield "Nothing is wrong in the bucket."
    elif found.repaired:
        yield f"Next: `skicyclerun run --stages {NAME}` sends what is amiss again."
    else:
        yield f"Next: `skicyclerun verify --remote --repair`, then `skicyclerun run --stages {NAME}` sends it again."
