"""Rows of the table `archives`: the journal of putting the old outputs away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from skicyclerun.errors import IllegalTransition
from skicyclerun.files.fault_points import fault_point
from skicyclerun.state.archive_copies import enter_copies
from skicyclerun.state.machine import ArchiveStatus, ArchiveTrigger, archive_target
from skicyclerun.state.runs import record

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries, Row
    from skicyclerun.state.store import Store


@dataclass(frozen=True, slots=True)
class ArchiveRow:
    """One archive job. `file` is empty where there was nothing to archive."""

    id: int
    run_id: int | None
    status: ArchiveStatus
    clean: bool
    timestamp: str
    file: str
    size: int | None
    files: int | None
    proved_at: str | None
    reason: str

    @classmethod
    def of(cls, row: Row) -> ArchiveRow:
        return cls(
            id=row["id"],
            run_id=row["run_id"],
            status=ArchiveStatus(row["status"]),
            clean=bool(row["clean"]),
            timestamp=row["timestamp"],
            file=row["file"],
            size=row["size"],
            files=row["files"],
            proved_at=row["proved_at"],
            reason=row["reason"],
        )

    @property
    def ended(self) -> bool:
        """True when nothing is left to do about it."""
        return self.status in (ArchiveStatus.DONE, ArchiveStatus.FAILED)


#: What a job puts away: the old outputs of a fresh run or of an update, or what left its album by way of the stages.
Purpose = Literal["outputs", "stages"]


async def create(
    store: Store, *, run_id: int | None, clean: bool, timestamp: str, purpose: Purpose = "outputs"
) -> ArchiveRow:
    """Begin a job. `clean`: the folders are emptied once the archive is proved."""
    async with store.transaction() as transaction:
        job_id = await transaction.insert(
            "insert_archive",
            {
                "run_id": run_id,
                "clean": int(clean),
                "timestamp": timestamp,
                "created_at": transaction.now,
                "purpose": purpose,
            },
        )
        await record(transaction, "archive", job_id, "", "create", ArchiveStatus.PENDING)
    fault_point("archive.job_created")
    return await get(store, job_id)


async def get(store: Store, job_id: int) -> ArchiveRow:
    """The job of that id. Raises LookupError."""
    row = await store.one("archive_by_id", {"id": job_id})
    if row is None:
        raise LookupError(f"There is no archive job {job_id}.")
    return ArchiveRow.of(row)


async def of_run(store: Queries, run_id: int, purpose: Purpose = "outputs") -> ArchiveRow | None:
    """The newest job of a run."""
    row = await store.one("archive_of_run", {"run_id": run_id, "purpose": purpose})
    return ArchiveRow.of(row) if row else None


async def unfinished(store: Store) -> list[ArchiveRow]:
    """Jobs that a stop left between two states, oldest first."""
    return [ArchiveRow.of(row) for row in await store.all("open_archives")]


async def step(
    store: Store,
    job: ArchiveRow,
    trigger: ArchiveTrigger,
    *,
    reason: str = "",
    file: str | None = None,
    size: int | None = None,
    files: int | None = None,
    proved: bool = False,
    emptied: Sequence[str] = (),
    catalog_emptied: bool = False,
    copy_to: str = "",
) -> ArchiveRow:
    """Commit a transition of the job. CLEANED also says, in the same transaction, whose files are no longer on disk:
    those of the stages `emptied` (`export`, and later ones). `catalog_emptied`: the catalog is among what was put away,
    and what it said of photos that had left before is over, as is the rest of it. `copy_to`: the second place that the
    archive is to be copied to is entered in the same transaction.

    Raises IllegalTransition, also when the database no longer holds `job.status`.
    """
    target = archive_target(job.status, trigger)
    async with store.transaction() as transaction:
        ended = transaction.now if target in (ArchiveStatus.DONE, ArchiveStatus.FAILED) else None
        changed = await transaction.execute(
            "step_archive",
            {
                "id": job.id,
                "from_status": job.status,
                "to_status": target,
                "reason": reason,
                "file": file,
                "size": size,
                "files": files,
                "proved_at": transaction.now if proved else None,
                "ended_at": ended,
            },
        )
        if changed != 1:
            raise IllegalTransition(f"Archive job {job.id} is no longer {job.status}.")
        if trigger is ArchiveTrigger.CLEANED:
            if "export" in emptied:
                await transaction.execute("none_present")
            await transaction.execute_many("stage_none_present", [{"stage": stage} for stage in emptied])
            if catalog_emptied:
                await transaction.execute("forget_former_entries")
        if copy_to and file:
            await enter_copies(transaction, copy_to, [file])
        await record(transaction, "archive", job.id, job.status, trigger, target, reason)
    return await get(store, job.id)
