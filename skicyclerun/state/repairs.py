"""Runs that put files right: entered whole in one transaction, with the names their files had.

An album that is done stays done (docs/architecture.md, "The album state machine"), so what is broken in it is fetched
again by a run of its own, whose albums hold nothing else. When such a photo is exported its new row speaks for the
file, and the old one no longer does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skicyclerun.files.fault_points import fault_point
from skicyclerun.models import Album, SourceKind
from skicyclerun.state import runs
from skicyclerun.state.machine import RunStatus
from skicyclerun.state.photos import PhotoPlan, insert_plans
from skicyclerun.state.runs import RunRow, record
from skicyclerun.state.store import Store


@dataclass(frozen=True, slots=True)
class AlbumToRepair:
    """An album and the photos to be fetched again; `plans` None: all of it, its photos were never planned."""

    album: Album
    folder: str
    plans: tuple[PhotoPlan, ...] | None


async def create_repair_run(
    store: Store,
    *,
    source_kind: SourceKind,
    source_location: str,
    options: Mapping[str, Any],
    albums: Sequence[AlbumToRepair],
    stages: Sequence[str] = (),
) -> RunRow:
    """Begin a run over these albums; all of it or nothing is entered. No earlier run is unfinished.

    `stages`: those after the export that then take these albums.
    """
    async with store.transaction() as transaction:
        run_id = await transaction.insert(
            "insert_run",
            {
                # Not "update", which would take what is not in this run for photos that left their album.
                "mode": "fresh",
                "stages": json.dumps(["export", *stages]),
                "source_kind": source_kind.value,
                "source_location": source_location,
                "selection": json.dumps([]),
                "options": json.dumps(options, sort_keys=True),
                "started_at": transaction.now,
            },
        )
        await record(transaction, "run", run_id, "", "create", RunStatus.ACTIVE, "repair")
        for position, each in enumerate(albums, start=1):
            album = each.album
            album_id = await transaction.insert(
                "insert_album",
                {
                    "run_id": run_id,
                    "position": position,
                    "source_id": album.id,
                    "title": album.title,
                    "folder_path": json.dumps(album.folder_path, ensure_ascii=False),
                    "folder": each.folder,
                    "listed": album.photo_count if each.plans is None else len(each.plans),
                },
            )
            if each.plans is not None:
                await insert_plans(transaction, album_id, each.folder, each.plans)
                await transaction.execute("set_album_expected", {"id": album_id, "expected": len(each.plans)})
        await transaction.execute("mark_run_planned", {"id": run_id})
    fault_point("albums.planned")
    return await runs.get(store, run_id)
