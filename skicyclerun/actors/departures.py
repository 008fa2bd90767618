"""The end of an update: photos that left their album go into the run's archive, and only then out of the folder.

The order of writes: archive written and proved, its row committed, the files removed and the folder synced, the rows
committed. A stop anywhere is found again from the archive's row and repeated.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import anyio
import anyio.to_thread

from skicyclerun.actors.archive_job import ArchiveJobs, timestamp_now
from skicyclerun.archive.departures import plan_departures, remove_departures
from skicyclerun.archive.plan import ArchivedFolder
from skicyclerun.archive.publish import open_proved
from skicyclerun.errors import ArchiveStopped, SkicyclerunError
from skicyclerun.files.fault_points import fault_point
from skicyclerun.progress.events import Notice
from skicyclerun.state import archives, photos
from skicyclerun.state.archives import ArchiveRow
from skicyclerun.state.machine import ArchiveStatus, ArchiveTrigger
from skicyclerun.state.photos import DepartedPhoto
from skicyclerun.state.runs import RunRow

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Departures:
    """Puts away what left. `listed`: ids of all albums the source has now."""

    jobs: ArchiveJobs
    run: RunRow
    listed: frozenset[str]

    async def put_away(self) -> bool:
        """Nothing if nothing left, or if it was done before; False if a signal stopped it before it was done.

        Raises ArchiveError, StorageError.
        """
        store = self.jobs.store
        departed = await photos.departed(store, self.run.id, self.listed)
        job = await archives.of_run(store, self.run.id)
        if job is None:
            if not departed:
                return True
            job = await archives.create(store, run_id=self.run.id, clean=False, timestamp=timestamp_now())
        elif job.status is ArchiveStatus.FAILED:
            job = await archives.step(store, job, ArchiveTrigger.RETRY)
        try:
            await self._finish(await self.jobs.recover(job), departed)
        except ArchiveStopped:
            log.info("stopped while archiving what left its album; nothing was removed")
            return False
        except SkicyclerunError as error:
            with anyio.CancelScope(shield=True):
                await self.jobs.fail(job, error)
            raise
        return True

    async def _finish(self, job: ArchiveRow, departed: list[DepartedPhoto]) -> None:
        store = self.jobs.store
        files = [(photo.folder, photo.file_name) for photo in departed]
        departing = [(ArchivedFolder("albums", self.jobs.export_folder), files)]
        if job.status is ArchiveStatus.PENDING:
            plan = await anyio.to_thread.run_sync(plan_departures, departing)
            if not plan.files:
                await photos.forget_departed(store, departed)
                await archives.step(store, job, ArchiveTrigger.NOTHING_TO_DO, reason="nothing to archive")
                return
            job = await self.jobs.write(job, plan, freed_bytes=0, export_estimate=0)
        if job.status is not ArchiveStatus.ARCHIVED:
            return
        proved = await anyio.to_thread.run_sync(open_proved, self.jobs.archive_folder / job.file)
        with anyio.CancelScope(shield=True):
            report = await anyio.to_thread.run_sync(remove_departures, departing, proved.manifest)
            fault_point("departures.removed")
            await photos.forget_departed(store, departed)
            fault_point("departures.forgotten")
            await archives.step(store, job, ArchiveTrigger.KEEP)
        left = "photo has left its album" if report.removed_files == 1 else "photos have left their albums"
        files_are = "its file is" if report.removed_files == 1 else "their files are"
        self.jobs.progress(Notice(f"{report.removed_files} {left}; {files_are} in {job.file}."))
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
