"""Named places at which a crash test can stop the process for good.

`SKICYCLERUN_FAULT=NAME` kills the process with SIGKILL the first time `fault_point(NAME)` is reached, `NAME:3` the
third time. Nothing is caught, flushed or closed: what a test finds afterwards is what a power cut at that line leaves
(short of the disk's own cache). Unset, which is always so outside tests, a fault point costs one comparison.

`SKICYCLERUN_FAULT_ENOSPC=NAME[:n]` raises `OSError(ENOSPC)` there instead, once: a disk that fills at that write.

The names are listed in `FAULT_POINTS` and nowhere else, so that the crash campaign visits every one of them and a
misspelt name fails at once: in the environment, by one sentence and exit code 2 before anything is done; in the code,
in `tests/test_fault_points.py`. To add one, write its name into the list and as a literal where it is visited, and kill
a run there in a test: the crash campaign takes those of an export by their first word, others are named in a test.
"""

from __future__ import annotations

import errno
import os
import signal
import threading

from skicyclerun.errors import UsageError

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
    # the folder of an album's originals (files/album_folder.py)
    "originals.made",
    "originals.synced",
    # the stages after the export (state/stage_albums.py, actors/stage.py)
    "stage.album_started",
    "stage.picture_made",
    "stage.group_committed",
    "stage.album_finished",
    "stages.departed_removed",
    "stages.departed_forgotten",
    # objects in a bucket (stages/s3_deployment.py, actors/deployment.py)
    "s3.claimed",
    "s3.change_entered",
    "s3.object_sent",
    "s3.index_claimed",
    "s3.index_sent",
    "s3.index_entered",
    "s3.removal_entered",
    "s3.first_removed",
    "s3.removed",
    "s3.removal_forgotten",
    "s3.changes_taken_over",
    "s3.invalidation_entered",
    "s3.invalidation_sent",
    # forgetting rows of old runs (state/pruning.py)
    "prune.figures_kept",
    "prune.forgotten",
    # the catalog (catalog/master_json.py)
    "catalog.written",
    "catalog.renamed",
    # what leaves the catalog, until its photo is somewhere again (state/former_entries.py)
    "former_entries.kept",
    "former_entries.forgotten",
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
    # the copy of an archive elsewhere (actors/archive_push.py, archive/remote.py)
    "copy.reserved",
    "copy.named",
    "copy.written",
    "copy.proved",
    "copy.published",
    "copy.committed",
    "copy.removed_here",
    "copy.only_there",
    # the removal of an archive in both places (actors/archive_prune.py)
    "copy.prune_begun",
    "copy.deleted_there",
    "copy.gone_there",
    "copy.gone_here",
    "copy.pruned",
    # … and where there is no second place (archive/retention.py)
    "retention.removed",
    # what is begun there for an archive that is gone here (archive/remote.py)
    "copy.cleared_there",
    # photos that are left out by hand (state/left_out.py)
    "left_out.committed",
    # the end of an update (actors/departures.py)
    "departures.removed",
    "departures.forgotten",
    # the page that shows a run (report/thumbnails.py, report/publish.py)
    "report.thumbnail_made",
    "report.album_written",
    "report.albums_written",
    "report.written",
)

_KILL = os.environ.get("SKICYCLERUN_FAULT", "")
_ENOSPC = os.environ.get("SKICYCLERUN_FAULT_ENOSPC", "")
_lock = threading.Lock()
_visits: dict[str, int] = {}


def check_faults() -> None:
    """Raises UsageError where the environment asks for a fault point that does not exist, or for no visit of it."""
    for variable, wanted in (("SKICYCLERUN_FAULT", _KILL), ("SKICYCLERUN_FAULT_ENOSPC", _ENOSPC)):
        if wanted:
            _parsed(variable, wanted)


def fault_point(name: str) -> None:
    """Stop here if a test asked for it.

    When armed: raises LookupError for a name that is not in FAULT_POINTS, UsageError where the wanted one is not.
    """
    if not _KILL and not _ENOSPC:
        return
    check_faults()  # a program that does not come by way of the command line is told here
    if name not in FAULT_POINTS:
        raise LookupError(f"{name!r} is not in FAULT_POINTS")
    with _lock:
        visits = _visits[name] = _visits.get(name, 0) + 1
    if _KILL and _parsed("SKICYCLERUN_FAULT", _KILL) == (name, visits):
        os.kill(os.getpid(), signal.SIGKILL)
    if _ENOSPC and _parsed("SKICYCLERUN_FAULT_ENOSPC", _ENOSPC) == (name, visits):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _parsed(variable: str, wanted: str) -> tuple[str, int]:
    """(name, which visit) of `NAME` or `NAME:n`."""
    name, colon, count = wanted.partition(":")
    if name not in FAULT_POINTS:
        import difflib

        near = difflib.get_close_matches(name, FAULT_POINTS, n=1)
        raise UsageError(
            f"{variable} names {name!r}, which is no fault point of this program.",
            next_step=(f"Did you mean {near[0]!r}? " if near else "")
            + f"Unset {variable} unless you are testing crashes; files/fault_points.py lists the names.",
        )
    if colon and not (count.isascii() and count.isdecimal() and int(count) >= 1):
        raise UsageError(
            f"{variable} is {wanted!r}, and what follows the colon is not a number of visits.",
            next_step=f"For the third visit: {variable}={name}:3",
        )
    return name, int(count or 1)
