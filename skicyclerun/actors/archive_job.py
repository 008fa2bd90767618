"""An archive job, journalled: each state is committed before the step it names begins.

    pending    ── space checked ──▶ archiving ── ZIP written and synced ──▶ proving
    proving    ── every member read back, renamed, folder synced ──▶ archived

What follows `archived` is the caller's: the archiver empties folders, an update removes the photos that left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

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
from skicyclerun.settings.cleanup_folders import NAMES_IN_ARCHIVE, named_folders
from skicyclerun.settings.later_stages import later_stages, output_folder, output_folders
from skicyclerun.settings.models import EMPTIED_KEYS, Settings
from skicyclerun.stages.stage import Stage
from skicyclerun.state import archives
from skicyclerun.state.archives import ArchiveRow
from skicyclerun.state.machine import ArchiveStatus, ArchiveTrigger
from skicyclerun.state.store import Store
from skicyclerun.wording import bytes_in_words

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: In the options of a run: the folders that its cleanup puts away and those that stay, as the configuration named them.
CLEANUP_OPTION: Final = "cleanup"


def folder_homes(settings: Settings) -> dict[str, Path]:
    """Where each folder that an archive may hold belongs, by the name it has inside the archive."""
    known = settings.paths.resolved()
    homes = {name: known[key] for key, name in NAMES_IN_ARCHIVE.items() if key in known}
    stages = later_stages(settings)
    return homes | {name_in_archive(stages[name]): folder for name, folder in output_folders(settings).items()}


def name_in_archive(stage: Stage) -> str:
    """What the folder of a stage's files is called inside an archive."""
    return NAMES_IN_ARCHIVE.get(stage.output, f"stage_{stage.name}")


@dataclass(frozen=True, slots=True)
class CleanupChoice:
    """Which folders a cleanup puts away, and which of them it leaves as they are, by the names of `cleanup_names`."""

    folders: tuple[str, ...] | None = None
    """None: those that the run makes anew."""
    keep: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings, options: Mapping[str, Any]) -> CleanupChoice:
        """What a run was begun with, by the options in its row; what the configuration says where they do not."""
        kept = options.get(CLEANUP_OPTION)
        if not isinstance(kept, dict):
            return cls(settings.cleanup.folders, settings.cleanup.keep)
        folders = kept.get("folders")
        return cls(None if folders is None else tuple(folders), tuple(kept.get("keep", ())))

    def to_row(self) -> dict[str, Any]:
        """For the options of a run, so that a resumed one empties what it was begun to empty."""
        return {CLEANUP_OPTION: {"folders": self.folders and list(self.folders), "keep": list(self.keep)}}


def archived_folders(
    settings: Settings, stages: Sequence[str], choice: CleanupChoice | None = None
) -> list[ArchivedFolder]:
    """The folders of old outputs that a run of these stages puts away: those of its `choice`, by default those that it
    makes anew from the start.

    With an export, or for a cleanup alone: the albums, what was restyled from them, and the metadata; the place names
    that were looked up stay for the next run. And the folder of every later stage that runs.
    """
    choice = CleanupChoice.of(settings, {}) if choice is None else choice
    paths = settings.paths
    names: dict[Path, str] = {}
    if choice.folders is not None:
        known = {folder: name_in_archive(stages_of[0]) for folder, stages_of in _stages_by_folder(settings).items()}
        known |= {settings.path_of(key): name for key, name in NAMES_IN_ARCHIVE.items() if key in paths.resolved()}
        names = {folder: known[folder] for folder in named_folders(settings, choice.folders)}
    else:
        if "export" in stages or set(stages) == {"cleanup"}:
            names = {settings.path_of(key): NAMES_IN_ARCHIVE[key] for key in EMPTIED_KEYS}
        for name, stage in later_stages(settings).items():
            if name in stages and (folder := output_folder(settings, stage)) is not None:
                names.setdefault(folder, name_in_archive(stage))
    stay = named_folders(settings, choice.keep)
    cache = paths.resolved().get("geocode_cache")
    return [
        ArchivedFolder(
            name,
            folder,
            kept=(cache.name,) if cache is not None and folder == paths.metadata_dir == cache.parent else (),
            stays=folder in stay,
        )
        for folder, name in names.items()
    ]


def _stages_by_folder(settings: Settings) -> dict[Path, list[Stage]]:
    stages = later_stages(settings)
    found: dict[Path, list[Stage]] = {}
    for name, folder in output_folders(settings).items():
        found.setdefault(folder, []).append(stages[name])
    return found


def emptied_stages(settings: Settings, folders: Sequence[ArchivedFolder]) -> list[str]:
    """The stages whose files lay in those of these folders that are emptied."""
    paths = {folder.path for folder in folders if not folder.stays}
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
    copy_to: str = ""
    """The second place that each archive is to be copied to; entered in the transaction that commits it as proved."""

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
            copy_to=self.copy_to,
        )
        fault_point("archive.committed")
        log.info("archived %d files: %s, %s, proved", proved.manifest.files, proved.path, bytes_in_words(proved.size))
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
