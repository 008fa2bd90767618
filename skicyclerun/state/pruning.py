"""Forgetting photo rows of old runs, which nothing asks for any more.

A row goes only if all of this is so: its run has ended, and is old enough; its photo was exported; it does not speak
for a file, and no file of an older row has its name; the same photo was exported in every run that has a row for it
(what failed, is missing, or was left out is asked for by `retry-failed`, by updates and by `status`); and no kept run
compares itself with its album. Runs, albums, stages' rows and the record of transitions stay, and so do the figures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from skicyclerun.files.fault_points import fault_point
from skicyclerun.state.store import Store


@dataclass(frozen=True, slots=True)
class Forgettable:
    """What a run could forget."""

    run_id: int
    photos: int
    """Rows."""


async def forgettable(store: Store, *, keep: int, ended_before: str | None = None) -> list[Forgettable]:
    """What may be forgotten of the runs that are not among the newest `keep` (at least 1), oldest first.

    With `ended_before`, ISO 8601 UTC as the rows have it, only of those that ended earlier.
    """
    old = await _old_runs(store, keep, ended_before)
    return [Forgettable(row["run_id"], row["photos"]) for row in await store.all("forgettable_of_runs", {"runs": old})]


async def forget(store: Store, *, keep: int, ended_before: str | None = None) -> list[Forgettable]:
    """Forget it, all in one transaction; returns what was forgotten. The caller holds the run lock."""
    old = await _old_runs(store, keep, ended_before)
    async with store.transaction() as transaction:
        found = await transaction.all("forgettable_of_runs", {"runs": old})
        for run in found:
            await transaction.execute("keep_figures_of_photos", {"photos": run["ids"]})
            fault_point("prune.figures_kept")
            await transaction.execute("forget_photos", {"photos": run["ids"]})
    if found:
        fault_point("prune.forgotten")
    return [Forgettable(run["run_id"], run["photos"]) for run in found]


async def _old_runs(store: Store, keep: int, ended_before: str | None) -> str:
    """As a JSON list, for the statements."""
    rows = await store.all("old_runs", {"keep": keep, "ended_before": ended_before})
    return json.dumps([row["id"] for row in rows])
