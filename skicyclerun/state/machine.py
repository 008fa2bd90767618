"""The state machines, as tables without I/O: album, run, archive job and the copy of an archive elsewhere.

`transitions` holds the tables and answers one question: where does this trigger lead from here? The answer is then
committed to SQLite, and only what SQLite holds is believed (docs/architecture.md, "The order of writes"). The machine
has no model, no callbacks and no automatic transitions, so there is nothing that could run half-way.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from skicyclerun.errors import IllegalTransition

if TYPE_CHECKING:
    from transitions import Machine


class AlbumStatus(StrEnum):
    """Where an album stands in its run."""

    PENDING = "pending"
    EXPORTING = "exporting"
    DONE = "done"
    FAILED = "failed"


class AlbumTrigger(StrEnum):
    """What can happen to an album."""

    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    INTERRUPT = "interrupt"


class RunStatus(StrEnum):
    """Where a run stands. A crashed run is still `active`: nobody was there to say otherwise."""

    ACTIVE = "active"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    ABANDONED = "abandoned"


class RunTrigger(StrEnum):
    """What can happen to a run."""

    INTERRUPT = "interrupt"
    FINISH = "finish"
    RESUME = "resume"
    RETRY = "retry"
    ABANDON = "abandon"


class ArchiveStatus(StrEnum):
    """Where the archiving of the old outputs stands."""

    PENDING = "pending"
    ARCHIVING = "archiving"
    PROVING = "proving"
    ARCHIVED = "archived"
    CLEANING = "cleaning"
    DONE = "done"
    FAILED = "failed"


class ArchiveTrigger(StrEnum):
    """What can happen to an archive job."""

    START = "start"
    WRITTEN = "written"
    PROVED = "proved"
    CLEAN = "clean"
    CLEANED = "cleaned"
    KEEP = "keep"
    NOTHING_TO_DO = "nothing_to_do"
    INTERRUPT = "interrupt"
    FAIL = "fail"
    RETRY = "retry"


class CopyStatus(StrEnum):
    """Where the copy of an archive elsewhere stands."""

    PENDING = "pending"
    COPIED = "copied"
    """Read back from there; the archive here is not touched."""
    ONLY_THERE = "only_there"
    PRUNED = "pruned"


class CopyTrigger(StrEnum):
    """What can happen to the copy of an archive elsewhere."""

    CONFIRM = "confirm"
    REMOVED_HERE = "removed_here"
    LOST = "lost"
    PRUNE = "prune"


_A, _AT = AlbumStatus, AlbumTrigger
_R, _RT = RunStatus, RunTrigger
_Z, _ZT = ArchiveStatus, ArchiveTrigger
_C, _CT = CopyStatus, CopyTrigger

#: trigger, from, to. docs/design of the product: "Nothing else."
ALBUM_TRANSITIONS: Final = (
    (_AT.START, _A.PENDING, _A.EXPORTING),
    (_AT.COMPLETE, _A.EXPORTING, _A.DONE),
    (_AT.FAIL, _A.EXPORTING, _A.FAILED),
    (_AT.RETRY, _A.FAILED, _A.PENDING),
    (_AT.INTERRUPT, _A.EXPORTING, _A.PENDING),
)

RUN_TRANSITIONS: Final = (
    (_RT.FINISH, _R.ACTIVE, _R.FINISHED),
    (_RT.INTERRUPT, _R.ACTIVE, _R.INTERRUPTED),
    (_RT.RESUME, _R.ACTIVE, _R.ACTIVE),
    (_RT.RESUME, _R.INTERRUPTED, _R.ACTIVE),
    (_RT.RETRY, _R.FINISHED, _R.ACTIVE),
    (_RT.ABANDON, _R.ACTIVE, _R.ABANDONED),
    (_RT.ABANDON, _R.INTERRUPTED, _R.ABANDONED),
)

ARCHIVE_TRANSITIONS: Final = (
    (_ZT.START, _Z.PENDING, _Z.ARCHIVING),
    (_ZT.NOTHING_TO_DO, _Z.PENDING, _Z.DONE),
    (_ZT.WRITTEN, _Z.ARCHIVING, _Z.PROVING),
    (_ZT.PROVED, _Z.PROVING, _Z.ARCHIVED),
    (_ZT.KEEP, _Z.ARCHIVED, _Z.DONE),
    (_ZT.CLEAN, _Z.ARCHIVED, _Z.CLEANING),
    (_ZT.CLEANED, _Z.CLEANING, _Z.DONE),
    # A restart: what was being written or proved is thrown away and done again; what was being cleaned goes on.
    (_ZT.INTERRUPT, _Z.ARCHIVING, _Z.PENDING),
    (_ZT.INTERRUPT, _Z.PROVING, _Z.PENDING),
    (_ZT.FAIL, _Z.PENDING, _Z.FAILED),
    (_ZT.FAIL, _Z.ARCHIVING, _Z.FAILED),
    (_ZT.FAIL, _Z.PROVING, _Z.FAILED),
    (_ZT.FAIL, _Z.ARCHIVED, _Z.FAILED),
    (_ZT.FAIL, _Z.CLEANING, _Z.FAILED),
    (_ZT.RETRY, _Z.FAILED, _Z.PENDING),
)

COPY_TRANSITIONS: Final = (
    (_CT.CONFIRM, _C.PENDING, _C.COPIED),
    (_CT.LOST, _C.COPIED, _C.PENDING),
    (_CT.REMOVED_HERE, _C.COPIED, _C.ONLY_THERE),
    (_CT.PRUNE, _C.PENDING, _C.PRUNED),
    (_CT.PRUNE, _C.COPIED, _C.PRUNED),
    (_CT.PRUNE, _C.ONLY_THERE, _C.PRUNED),
)

_Status = TypeVar("_Status", bound=StrEnum)


@cache
def _table(statuses: type[StrEnum], rows: tuple[tuple[StrEnum, StrEnum, StrEnum], ...]) -> Machine:
    from transitions import Machine  # nothing that only reads needs it

    return Machine(
        model=None,
        states=[status.value for status in statuses],
        initial=None,
        auto_transitions=False,
        transitions=[
            {"trigger": trigger.value, "source": source.value, "dest": target.value} for trigger, source, target in rows
        ],
    )


def _target(table: Machine, what: str, status: _Status, trigger: StrEnum) -> _Status:
    found = table.get_transitions(trigger=trigger.value, source=status.value)
    if not found:
        raise IllegalTransition(f"{what} that is {status} cannot {trigger}.")
    return type(status)(str(found[0].dest))


def album_target(status: AlbumStatus, trigger: AlbumTrigger) -> AlbumStatus:
    """Where `trigger` leads an album that is `status`. Raises IllegalTransition where the table has no such step."""
    return _target(_table(AlbumStatus, ALBUM_TRANSITIONS), "An album", status, trigger)


def run_target(status: RunStatus, trigger: RunTrigger) -> RunStatus:
    """Where `trigger` leads a run that is `status`. Raises IllegalTransition."""
    return _target(_table(RunStatus, RUN_TRANSITIONS), "A run", status, trigger)


def archive_target(status: ArchiveStatus, trigger: ArchiveTrigger) -> ArchiveStatus:
    """Where `trigger` leads an archive job that is `status`. Raises IllegalTransition."""
    return _target(_table(ArchiveStatus, ARCHIVE_TRANSITIONS), "An archive job", status, trigger)


def copy_target(status: CopyStatus, trigger: CopyTrigger) -> CopyStatus:
    """Where `trigger` leads the copy of an archive that is `status`. Raises IllegalTransition."""
    return _target(_table(CopyStatus, COPY_TRANSITIONS), "The copy of an archive", status, trigger)
