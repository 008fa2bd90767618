"""An archive job, journalled: each state is committed before the step it names begins.

    pending    ── space checked ──▶ archiving ── ZIP written and synced ──▶ proving
    proving    ── every member read back, renamed, folder synced ──▶ archived

What follows `archived` is the caller's: the archiver empties folders, an update removes the photos that left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from skicyclerun.archive.create import write_archive
from skicyclerun.archive.plan import ArchivedFolder, ArchivePlan, check_space
from skicyclerun.archive.prove import ProvedArchive, prove_archive
from skicyclerun.archive.publish import find_archive, open_proved, publish_archive, remove_partials
from skicyclerun.errors import ArchiveStopped, SkicyclerunError, StorageError
from skicyclerun.files.fault_points import fault_point
from skicyclerun.progress.events import ArchivePhase, ArchiveProgress, ProgressEvent
from skicyclerun.run.shutdown import Shutdown
from skicyclerun.settings.later_stages import later_stages, output_folder, output_folders
from skicyclerun.settings.models import Settings
from skicyclerun.stages.stage import Stage
from skicyclerun.state import archives
from skicyclerun.state.archives import ArchiveRow
from skicyclerun.state.machine import ArchiveStatus, ArchiveTrigger
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)

_T = TypeVar("_T")


#: What a folder is called inside an archive, by its key in `paths`.
_NAMES: Final = {
    "apple_photos_export": "albums",
    "preprocessed": "scaled",
    "lora_processed": "lora_processed",
    "watermarked_final": "watermarked_final",
    "metadata_dir": "metadata",
}


def folder_homes(settings: Settings) -> dict[str, Path]:
    """Where each folder that an archive may hold belongs, by the name it has inside the archive."""
    known = settings.paths.resolved()
    homes = {name: known[key] for key, name in _NAMES.items() if key in known}
    stages = later_stages(settings)
    return homes | {name_in_archive(stages[name]): folder for name, folder in output_folders(settings).items()}


def name_in_archive(stage: Stage) -> str:
    """What the folder of a stage's files is called inside an archive."""
    return _NAMES.get(stage.output, f"stage_{stage.name}")


def archived_folders(settings: Settings, stages: Sequence[str]) -> list[ArchivedFolder]:
    """The folders of old outputs that a run of these stages puts away: those that it makes anew from the start.

    With an export, or for a cleanup alone: the albums, what was restyled from them, and the metadata; the place names
    that were looked up stay for the next run. And the folder of every later stage that runs.
    """
    paths = settings.paths
    folders: dict[Path, ArchivedFolder] = {}
    if "export" in stages or set(stages) == {"cleanup"}:
        cache = paths.resolved().get("geocode_cache")
        kept = (cache.name,) if cache is not None and cache.parent == paths.metadata_dir else ()
        folders = {
            paths.apple_photos_export: ArchivedFolder("albums", paths.apple_photos_export),
            paths.lora_processed: ArchivedFolder("lora_processed", paths.lora_processed),
            paths.metadata_dir: ArchivedFolder("metadata", paths.metadata_dir, kept),
        }
    for name, stage in later_stages(settings).items():
        if name in stages and (folder := output_folder(settings, stage)) is not None:
            folders.setdefault(folder, ArchivedFolder(name_in_archive(stage), folder))
    return list(folders.values())


def emptied_stages(settings: Settings, folders: Sequence[ArchivedFolder]) -> list[str]:
    """The stages whose files lay in these folders."""
    paths = {folder.path for folder in folders}
    emptied = ["export"] if settings.paths.apple_photos_export in paths else []
    return emptied + [name for name, folder in output_folders(settings).items() if folder in paths]


def archive_id(job: ArchiveRow) -> str:
    """What the ZIP of a job carries inside, by which a restart knows it again."""
    return f"{job.timestamp}-{job.id}"


def timestamp_now() -> str:
    """For a new job: `YYYYMMDD_HHMMSS`, UTC."""
    return datetime.now(UTC).strftime("%Y%m%d_%H%M%S")


@dataclass(frozen=True, slots=True)
class ArchiveJobs:
    """Writes and recovers archive jobs. Raises ArchiveError, StorageError, ArchiveStopped (after a signal)."""

    store: Store
    archive_folder: Path
    export_folder: Path
    progress: Callable[[ProgressEvent], None]
    shutdown: Shutdown

    async def recover(self, job: ArchiveRow) -> ArchiveRow:
        """A job that a stop left in the middle, brought back to pending or on to archived; others as they are."""
        if job.status in (ArchiveStatus.ARCHIVING, ArchiveStatus.PROVING):
            found = await anyio.to_thread.run_sync(find_archive, self.archive_folder, archive_id(job))
            if found is not None and job.status is ArchiveStatus.PROVING:
                # It had its final name; only the commit is missing.
                job = await self._commit_proved(job, await anyio.to_thread.run_sync(open_proved, found))
            else:
                job = await archives.step(self.store, job, ArchiveTrigger.INTERRUPT)
        if not job.ended and job.status is not ArchiveStatus.CLEANING:
            await anyio.to_thread.run_sync(remove_partials, self.archive_folder)
        return job

    async def write(self, job: ArchiveRow, plan: ArchivePlan, *, freed_bytes: int, export_estimate: int) -> ArchiveRow:
        """pending → archived: check the space, write, prove, publish.

        `freed_bytes` is what emptying the folders will give back, `export_estimate` what the export will write.
        """
        await anyio.to_thread.run_sync(
            partial(
                check_space,
                plan,
                self.archive_folder,
                self.export_folder,
                export_estimate,
                freed_bytes=freed_bytes,
            )
        )
        catalog = {
            f"albums/{row['folder']}/{row['file_name']}": row["sha256"]
            for row in await self.store.all("present_hashes")
        }
        job = await archives.step(self.store, job, ArchiveTrigger.START)
        try:
            written = await self._in_thread(
                partial(
                    write_archive,
                    plan,
                    self.archive_folder,
                    timestamp=job.timestamp,
                    archive_id=archive_id(job),
                    catalog=catalog,
                    progress=self._reporting("writing"),
                    stop=self._stopping,
                )
            )
            job = await archives.step(self.store, job, ArchiveTrigger.WRITTEN)
            proved = await self._in_thread(
                partial(
                    prove_archive,
                    written.partial,
                    written,
                    progress=self._reporting("proving"),
                    stop=self._stopping,
                )
            )
            # Once it may have its name the job is committed too: a cancellation in between would forget it.
            with anyio.CancelScope(shield=True):
                name = await anyio.to_thread.run_sync(publish_archive, proved)
                published = ProvedArchive(name, proved.manifest, proved.size, proved.proved)
                job = await self._commit_proved(job, published)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(remove_partials, self.archive_folder)
                if isinstance(error, ArchiveStopped) or not isinstance(error, SkicyclerunError):
                    await archives.step(self.store, await archives.get(self.store, job.id), ArchiveTrigger.INTERRUPT)
            raise
        return job

    async def _commit_proved(self, job: ArchiveRow, proved: ProvedArchive) -> ArchiveRow:
        job = await archives.step(
            self.store,
            job,
            ArchiveTrigger.PROVED,
            file=proved.path.name,
            size=proved.size,
            files=proved.manifest.files,
            proved=True,
        )
        fault_point("archive.committed")
        log.info("archived %d files in %s, proved", proved.manifest.files, proved.path)
        return job

    async def fail(self, job: ArchiveRow, error: SkicyclerunError) -> None:
        """Enter that the job failed and why, unless it was only stopped."""
        current = await archives.get(self.store, job.id)
        if current.status in (ArchiveStatus.PROVING, ArchiveStatus.ARCHIVED) and isinstance(error, StorageError):
            return  # The disk refused a commit; the archive is there, or may be, and the next start goes on with it.
        if not current.ended and not isinstance(error, ArchiveStopped):
            await archives.step(self.store, current, ArchiveTrigger.FAIL, reason=str(error))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await anyio.to_thread.run_sync(work)

    def _stopping(self) -> bool:
        return self.shutdown.draining

    def _reporting(self, phase: ArchivePhase) -> Callable[[int, int], None]:
        """Progress out of a worker thread, at most once per percent."""
        shown = -1

        def report(done: int, total: int) -> None:
            nonlocal shown
            percent = done * 100 // total if total else 100
            if percent != shown:
                shown = percent
                anyio.from_thread.run_sync(self.progress, ArchiveProgress(phase, done, total))

        return report
