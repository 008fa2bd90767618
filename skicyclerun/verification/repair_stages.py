"""What `verify --repair` does with what stages made: which of it is made again, by which stages, in which runs.

The pictures themselves are made by a run like any other, which plans by itself what is not up to date. A row is marked
only once the run that will make it again is entered: a stop before that leaves all as it was, one after it leaves a run
to be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skicyclerun.actors.stage_runs import SAID_OPTION, SECTIONS_OPTION, options_for_row
from skicyclerun.catalog.records import CatalogPlaces
from skicyclerun.settings.later_stages import later_stages, upstream_of
from skicyclerun.settings.models import Settings
from skicyclerun.state import albums, runs, stage_pictures
from skicyclerun.state.store import Row, Store
from skicyclerun.verification.report import MADE_AGAIN, Finding, VerificationReport


async def rows_of(store: Store, row_ids: Iterable[int]) -> list[Row]:
    """Rows of stages by their ids."""
    return await store.all("stage_pictures_by_ids", {"ids": json.dumps(sorted(row_ids))})


@dataclass(slots=True)
class StageRepair:
    """What stages made and has to be made again."""

    rows: list[Row]
    """Of the broken files; those that a run has taken on leave the list."""
    unfinished: set[tuple[str, str]] = field(default_factory=set)
    """(stage, album folder) that failed or were not come to."""

    @property
    def folders(self) -> set[str]:
        """The album folders that are left to be gone through."""
        return {row["folder"] for row in self.rows} | {folder for _, folder in self.unfinished}

    @property
    def stages(self) -> set[str]:
        return {row["stage"] for row in self.rows} | {stage for stage, _ in self.unfinished}

    async def take_on(self, store: Store, stages: Collection[str], folders: Collection[str]) -> list[int]:
        """Mark what a run over these album folders, which is entered already, makes again. Returns the rows."""
        taken = [row for row in self.rows if row["stage"] in stages and row["folder"] in folders]
        ids = [row["id"] for row in taken]
        await stage_pictures.to_be_made_again(store, ids)
        self.leave_alone(set(ids))
        self.unfinished = {each for each in self.unfinished if each[0] not in stages or each[1] not in folders}
        return ids

    def leave_alone(self, row_ids: Collection[int]) -> None:
        """Take these rows off the list."""
        self.rows = [row for row in self.rows if row["id"] not in row_ids]


async def plan_stage_repair(store: Store, report: VerificationReport, places: CatalogPlaces) -> StageRepair:
    """What a report says is broken of what stages made, or was not made."""
    found = [problem for problem in report.problems if problem.stage in places.order]
    wanted = {p.row_id for p in found if p.finding in MADE_AGAIN and p.row_id is not None}
    unfinished = {(p.stage, p.folder) for p in found if p.finding is Finding.ALBUM_UNFINISHED}
    return StageRepair(await rows_of(store, wanted), unfinished)


async def stages_to_run(store: Store, settings: Settings, broken: Collection[str]) -> tuple[str, ...]:
    """These stages and those that take what they make, in pipeline order; only such as have ever run.

    `export` among the broken: all of them, for its photos are what every stage depends on.
    """
    known = later_stages(settings)
    ran = {row["stage"] for row in await store.all("stages_with_rows")}
    return tuple(
        name
        for name, stage in known.items()
        if name in ran and (name in broken or not set(upstream_of(known, stage)).isdisjoint(broken))
    )


async def options_of_stages(store: Store, settings: Settings, stages: Sequence[str]) -> dict[str, Any]:
    """What the run that repairs keeps of its stages: the sections of the runs that they were carried out in last.

    So what is made again comes out as it was, whatever the configuration says by now.
    """
    sections: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for run in await runs.listing(store):
        kept: Mapping[str, Any] = run.options.get(SECTIONS_OPTION, {})
        if ours := {name: section for name, section in kept.items() if name in stages}:
            sections |= ours
            said |= run.options.get(SAID_OPTION, {})
    fresh = options_for_row(settings, stages, said)
    if fresh:
        fresh[SECTIONS_OPTION] = fresh[SECTIONS_OPTION] | sections
    return fresh


async def albums_in(store: Store, folders: Collection[str]) -> list[str]:
    """The ids of the albums in these folders that still hold exported files: the selection of a run."""
    return [row.album.id for row in await albums.with_files(store) if row.folder in folders]
