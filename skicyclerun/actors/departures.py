"""Files that have left: into an archive of the run, and only then out of their folders.

An update puts away the photos that left their albums; at the end of every run with stages, what the stages made of
photos that are no longer there goes the same way.

The order of writes: archive written and proved, its row committed, the files removed and the folder synced, the rows
committed. A stop anywhere is found again from the archive's row and repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.actors.archive_job import ArchiveJobs, name_in_archive, timestamp_now
from skicyclerun.actors.messages import AlbumReady, CatalogerMessage, Ending, StageEnded
from skicyclerun.actors.stage_plan import StageRun
from skicyclerun.archive.departures import Departing, plan_departures, remove_departures
from skicyclerun.archive.plan import ArchivedFolder
from skicyclerun.archive.publish import open_proved
from skicyclerun.errors import ArchiveStopped, SkicyclerunError
from skicyclerun.files.fault_points import fault_point
from skicyclerun.progress.events import Notice
from skicyclerun.state import archives, photos, runs, stage_pictures
from skicyclerun.state.archives import ArchiveRow, Purpose
from skicyclerun.state.machine import ArchiveStatus, ArchiveTrigger
from skicyclerun.state.runs import RunRow

log = logging.getLogger(__name__)


async def put_away_photos(jobs: ArchiveJobs, run: RunRow, is_gone: Callable[[str], bool]) -> bool:
    """The end of an update. `is_gone`: whether the source no longer has an album of this id. See
    `_Departures.put_away`."""
    departed = await photos.departed(jobs.store, run.id, is_gone)
    files = [(photo.folder, *photo.file_name.split("/")) for photo in departed]
    leaving = _Departures(
        jobs,
        run.id,
        "outputs",
        [(ArchivedFolder("albums", jobs.export_folder), files)],
        partial(photos.forget_departed, jobs.store, departed),
        ("file is no longer asked for by any album; it is", "files are no longer asked for by any album; they are"),
    )
    return await leaving.put_away()


async def put_away_pictures(jobs: ArchiveJobs, run_id: int, stages: Sequence[StageRun]) -> bool:
    """The end of a run with stages: what they made of photos that are gone. See `_Departures.put_away`."""
    departed = await stage_pictures.departed(jobs.store, [each.stage.name for each in stages])
    departing: dict[str, Departing] = {}
    for each in stages:
        if each.output_folder is None:
            continue
        files = [(left.folder, left.file_name) for left in departed if left.file_name and left.stage == each.stage.name]
        name = name_in_archive(each.stage)
        before = departing[name][1] if name in departing else []
        if files or before:
            departing[name] = (ArchivedFolder(name, each.output_folder), [*before, *files])
    forget = partial(stage_pictures.forget_departed, jobs.store, departed)
    if not departing and departed:
        await forget()  # Facts alone are nothing to be archived.
    words = (
        "file of a stage is no longer what is asked for; it is",
        "files of stages are no longer what is asked for; they are",
    )
    return await _Departures(jobs, run_id, "stages", list(departing.values()), forget, words).put_away()


async def stage_departures(
    inbox: MemoryObjectReceiveStream[AlbumReady],
    catalog: MemoryObjectSendStream[CatalogerMessage],
    jobs: ArchiveJobs,
    run_id: int,
    stages: Sequence[StageRun],
    endings: Mapping[str, Ending],
) -> None:
    """The actor behind the last stage: when every album has been through, what has left is put away.

    Not in a run that was stopped before: the next start does it. `endings`: how each stage ended, by its name.
    """
    async with inbox, catalog:
        async for _ in inbox:
            pass
        run = await runs.get(jobs.store, run_id)
        complete = all(endings.get(each.stage.name) is Ending.COMPLETE for each in stages)
        if not complete or jobs.shutdown.draining or await runs.remaining_albums(jobs.store, run):
            return
        done = await put_away_pictures(jobs, run_id, stages)
        await catalog.send(StageEnded("departures", Ending.COMPLETE if done else Ending.DRAINED))


@dataclass(frozen=True, slots=True)
class _Departures:
    jobs: ArchiveJobs
    run_id: int
    purpose: Purpose
    departing: Sequence[Departing]
    forget: Callable[[], Awaitable[None]]
    """Commits that their rows no longer speak for a file."""
    left_in_words: tuple[str, str]
    """For one and for several files, before the archive's name."""

    async def put_away(self) -> bool:
        """Nothing if nothing left, or if it was done before; False if a signal stopped it before it was done.

        Raises ArchiveError, StorageError.
        """
        store = self.jobs.store
        job = await archives.of_run(store, self.run_id, self.purpose)
        if job is None or (job.status is ArchiveStatus.DONE and self.purpose == "stages"):
            if not any(files for _, files in self.departing):
                return True
            job = await archives.create(
                store, run_id=self.run_id, clean=False, timestamp=timestamp_now(), purpose=self.purpose
            )
        elif job.status is ArchiveStatus.FAILED:
            job = await archives.step(store, job, ArchiveTrigger.RETRY)
        try:
            await self._finish(await self.jobs.recover(job))
        except ArchiveStopped:
            log.info("stopped while archiving what left its album; nothing was removed")
            return False
        except SkicyclerunError as error:
            with anyio.CancelScope(shield=True):
                await self.jobs.fail(job, error)
            raise
        return True

    async def _finish(self, job: ArchiveRow) -> None:
        store = self.jobs.store
        departing = self.departing
        if job.status is ArchiveStatus.PENDING:
            plan = await anyio.to_thread.run_sync(plan_departures, departing)
            if not plan.files:
                await self.forget()
                await archives.step(store, job, ArchiveTrigger.NOTHING_TO_DO, reason="nothing to archive")
                return
            job = await self.jobs.write(job, plan, freed_bytes=0, export_estimate=0)
        if job.status is not ArchiveStatus.ARCHIVED:
            return
        proved = await anyio.to_thread.run_sync(open_proved, self.jobs.archive_folder / job.file)
        with anyio.CancelScope(shield=True):
            report = await anyio.to_thread.run_sync(remove_departures, departing, proved.manifest)
            fault_point("departures.removed" if self.purpose == "outputs" else "stages.departed_removed")
            await self.forget()
            fault_point("departures.forgotten" if self.purpose == "outputs" else "stages.departed_forgotten")
            await archives.step(store, job, ArchiveTrigger.KEEP)
        words = self.left_in_words[report.removed_files != 1]
        if report.removed_files:  # none where a stop came between that and the end of the job
            self.jobs.progress(Notice(f"{report.removed_files} {words} in {job.file}."))
        for paths, why in (
            (report.kept, "not in the archive as it is now"),
            (report.stuck, "could not be removed"),
        ):
            for path in paths:
                log.warning("left its album, %s, and stays where it is: %s", why, path)
            if paths:
                names = ", ".join(path.name for path in paths[:3]) + (", …" if len(paths) > 3 else "")
                text = f"Of the photos that have left, these stay where they are, {why}: {names}"
                self.jobs.progress(Notice(text, "warning"))
