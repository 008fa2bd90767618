"""Named places at which a crash test can stop the process for good.

`SKICYCLERUN_FAULT=NAME` kills the process with SIGKILL the first time `fault_point(NAME)` is reached, `NAME:3` the
third time. Nothing is caught, flushed or closed: what a test finds afterwards is what a power cut at that line leaves
(short of the disk's own cache). Unset, which is always so outside tests, a fault point costs one comparison.

`SKICYCLERUN_FAULT_ENOSPC=NAME[:n]` raises `OSError(ENOSPC)` there instead, once: a disk that fills at that write.

The names are listed in `FAULT_POINTS`, so that the crash campaign visits every one of them and a misspelt name
fails at once.
"""

from __future__ import annotations

import errno
import os
import signal
import threading

#: Every fault point of the program, in the order in which a run with a cleanup reaches them.
FAULT_POINTS: tuple[str, ...] = (
    # the run and its albums (state/store.py)
    "run.created",
    "albums.planned",
    "album.started",
    # one group of photos (actors/exporter.py)
    "photo.staged",
    "group.synced",
    "group.first_renamed",
    "group.renamed",
    "group.directory_synced",
    "group.committed",
    "album.finished",
    "run.finished",
    # the stages after the export (state/stage_albums.py, actors/stage.py)
    "stage.album_started",
    "stage.picture_made",
    "stage.group_committed",
    "stage.album_finished",
    "stages.departed_removed",
    "stages.departed_forgotten",
    # objects in a bucket (stages/s3_deployment.py, actors/deployment.py)
    "s3.claimed",
    "s3.object_sent",
    "s3.index_claimed",
    "s3.index_sent",
    "s3.index_entered",
    "s3.removal_entered",
    "s3.first_removed",
    "s3.removed",
    "s3.removal_forgotten",
    "s3.invalidation_entered",
    "s3.invalidation_sent",
    # the catalog (catalog/master_json.py)
    "catalog.written",
    "catalog.renamed",
    # the archive (archive/create.py, actors/archiver.py)
    "archive.job_created",
    "archive.first_member_written",
    "archive.written",
    "archive.proved",
    "archive.renamed",
    "archive.committed",
    "clean.first_moved",
    "clean.moved",
    "clean.recreated",
    "clean.removed",
    "clean.committed",
    # the end of an update (actors/departures.py)
    "departures.removed",
    "departures.forgotten",
)

_KILL = os.environ.get("SKICYCLERUN_FAULT", "")
_ENOSPC = os.environ.get("SKICYCLERUN_FAULT_ENOSPC", "")
_lock = threading.Lock()
_visits: dict[str, int] = {}


def _due(wanted: str, name: str, visits: int) -> bool:
    wanted_name, _, count = wanted.partition(":")
    return wanted_name == name and visits == int(count or 1)


def fault_point(name: str) -> None:
    """Stop here if a test asked for it. Raises LookupError for a name that is not in FAULT_POINTS (when armed)."""
    if not _KILL and not _ENOSPC:
        return
    if name not in FAULT_POINTS:
        raise LookupError(f"{name!r} is not in FAULT_POINTS")
    with _lock:
        visits = _visits[name] = _visits.get(name, 0) + 1
    if _KILL and _due(_KILL, name, visits):
        os.kill(os.getpid(), signal.SIGKILL)
    if _ENOSPC and _due(_ENOSPC, name, visits):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
