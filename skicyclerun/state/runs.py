"""Rows of the table `runs`: what was asked for, and whether it came to its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from skicyclerun.errors import IllegalTransition
from skicyclerun.files.fault_points import fault_point
from skicyclerun.models import SourceKind
from skicyclerun.state.machine import AlbumStatus, RunStatus, RunTrigger, run_target

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries, Row
    from skicyclerun.state.store import Store, Transaction

#: In the options of a run: somebody has said yes to its emptying folders, which holds until its end.
MAY_EMPTY_OPTION: Final = "may_empty"


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. `options` are the export settings that decide names and bytes, fixed when the run was created."""

    id: int
    status: RunStatus
    mode: str
    stages: tuple[str, ...]
    source_kind: SourceKind
    source_location: str
    selection: tuple[str, ...]
    options: Mapping[str, Any]
    planned: bool
    started_at: str
    ended_at: str | None
    reason: str

    @classmethod
    def of(cls, row: Row) -> RunRow:
        return cls(
            id=row["id"],
            status=RunStatus(row["status"]),
            mode=row["mode"],
            stages=tuple(json.loads(row["stages"])),
            source_kind=SourceKind(row["source_kind"]),
            source_location=row["source_location"],
            selection=tuple(json.loads(row["selection"])),
            options=json.loads(row["options"]),
            planned=bool(row["planned"]),
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            reason=row["reason"],
        )

    @property
    def unfinished(self) -> bool:
        """True when `run --resume` has something to carry on with."""
        return self.status in (RunStatus.ACTIVE, RunStatus.INTERRUPTED)

    @property
    def source_folder(self) -> Path | None:
        """The folder or library that it read; None where Photos.app was asked."""
        return None if self.source_kind is SourceKind.APPLE_PHOTOS else Path(self.source_location)

    @property
    def may_empty(self) -> bool:
        """Whether somebody has said yes to its emptying folders; a resumed run asks no second time."""
        return bool(self.options.get(MAY_EMPTY_OPTION))

    @property
    def counts_in(self) -> str:
        """What its exported files are counted in: `photo` where each photo is one file, `file` where some have a
        sidecar, an original or a Live Photo's movie beside them."""
        beside = self.options.get("sidecar", "none") != "none"
        return "file" if beside or self.options.get("keep_original") or self.options.get("live_photos") else "photo"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run, and its albums and photos in numbers."""

    run: RunRow
    albums: int
    albums_done: int
    exported: int
    """Photos, wherever their files are by now; those of an update that were up to date are among them."""
    failed: int
    missing: int
    has_failures: bool
    """An album of it failed, in the export or in a stage."""


async def record(
    transaction: Transaction, subject: str, subject_id: int, before: str, trigger: str, after: str, reason: str = ""
) -> None:
    """Append to the record of transitions, in the transaction that makes the step."""
    await transaction.execute(
        "record_transition",
        {
            "subject": subject,
            "subject_id": subject_id,
            "from_status": before,
            "trigger": trigger,
            "to_status": after,
            "reason": reason,
            "at": transaction.now,
        },
    )


async def create(
    store: Store,
    *,
    mode: str,
    stages: Sequence[str],
    source_kind: SourceKind,
    source_location: str,
    selection: Sequence[str],
    options: Mapping[str, Any],
) -> RunRow:
    """Begin a run. The caller has made sure that no earlier one is unfinished."""
    async with store.transaction() as transaction:
        run_id = await transaction.insert(
            "insert_run",
            {
                "mode": mode,
                "stages": json.dumps(list(stages)),
                "source_kind": source_kind.value,
                "source_location": source_location,
                "selection": json.dumps(list(selection), ensure_ascii=False),
                "options": json.dumps(options, sort_keys=True),
                "started_at": transaction.now,
            },
        )
        await record(transaction, "run", run_id, "", "create", RunStatus.ACTIVE)
    fault_point("run.created")
    return await get(store, run_id)


async def get(store: Queries, run_id: int) -> RunRow:
    """The run of that id. Raises LookupError."""
    row = await store.one("run_by_id", {"id": run_id})
    if row is None:
        raise LookupError(f"There is no run {run_id}.")
    return RunRow.of(row)


async def latest(store: Queries) -> RunRow | None:
    """The newest run, whatever became of it."""
    row = await store.one("latest_run")
    return RunRow.of(row) if row else None


async def listing(store: Queries) -> list[RunRow]:
    """All runs, oldest first."""
    return [RunRow.of(row) for row in await store.all("all_runs")]


async def summaries(store: Store) -> list[RunSummary]:
    """All runs with what came of them, oldest first."""
    return [
        RunSummary(
            RunRow.of(row),
            albums=row["albums"],
            albums_done=row["albums_done"],
            exported=row["exported"],
            failed=row["failed"],
            missing=row["missing"],
            has_failures=bool(row["failures"]),
        )
        for row in await store.all("run_summaries")
    ]


async def step(store: Store, run: RunRow, trigger: RunTrigger, reason: str = "") -> RunRow:
    """Commit a transition of the run. Raises IllegalTransition, also when the database no longer holds `run.status`."""
    target = run_target(run.status, trigger)
    async with store.transaction() as transaction:
        ended = None if target is RunStatus.ACTIVE else transaction.now
        changed = await transaction.execute(
            "step_run",
            {"id": run.id, "from_status": run.status, "to_status": target, "ended_at": ended, "reason": reason},
        )
        if changed != 1:
            raise IllegalTransition(f"Run {run.id} is no longer {run.status}.")
        await record(transaction, "run", run.id, run.status, trigger, target, reason)
    if trigger is RunTrigger.FINISH:
        fault_point("run.finished")
    return await get(store, run.id)


async def keep_options(store: Store, run: RunRow, options: Mapping[str, Any]) -> RunRow:
    """Commit what the run goes by from now on, so that it does after a stop as well."""
    async with store.transaction() as transaction:
        row = {"id": run.id, "options": json.dumps(options, sort_keys=True)}
        if await transaction.execute("set_run_options", row) != 1:
            raise IllegalTransition(f"Run {run.id} is no longer active.")
    return await get(store, run.id)


async def remaining_albums(store: Store, run: RunRow) -> int:
    """How many albums of the run, of the export and of its stages, are still pending or exporting."""
    rows = await store.all("count_albums_by_status", {"run_id": run.id})
    return sum(row["albums"] for row in rows if row["status"] in (AlbumStatus.PENDING, AlbumStatus.EXPORTING))


async def was_put_away(store: Store, run: RunRow) -> bool:
    """Whether the run exported files and none of them is in its folder any more: archived and cleaned since."""
    counted = await store.one("exported_and_present_of_run", {"run_id": run.id})
    return counted is not None and counted["exported"] > 0 and counted["present"] == 0
