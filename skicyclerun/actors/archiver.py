"""The archiver: puts the old outputs away before a fresh export, as a journalled job that any stop may cut.

The order of writes. Each state is committed before the step it names begins, so that a restart knows what to do:

    pending    ── space checked ──▶ archiving ── ZIP written and synced ──▶ proving
    proving    ── every member read back, renamed, folder synced ──▶ archived
    archived   ── to be cleaned? ──▶ cleaning ── folders moved aside, made anew, the old ones removed ──▶ done

Before `archived` nothing in the folders is touched; a stop throws the partial ZIP away and begins again. In `cleaning`
only what the proved ZIP holds is removed, and a restart carries on with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.actors.archive_job import (
    ArchiveJobs,
    CleanupChoice,
    archived_folders,
    emptied_stages,
    timestamp_now,
)
from skicyclerun.actors.messages import Intent, OutputsPutAway, RunConfigured
from skicyclerun.archive.clean import CleanReport, clean_folders, put_back
from skicyclerun.archive.plan import ArchivedFolder, ArchivePlan, check_space, nearest_folder, plan_archive
from skicyclerun.archive.publish import has_partials, open_proved
from skicyclerun.errors import ArchiveNotProved, ArchiveStopped, EmptyingNotAgreed, SkicyclerunError
from skicyclerun.files.fault_points import fault_point
from skicyclerun.progress.events import ArchiveProgress, Notice, ProgressEvent
from skicyclerun.run.shutdown import Shutdown
from skicyclerun.settings.models import Settings
from skicyclerun.state import archives, runs, stage_albums
from skicyclerun.state.archives import ArchiveRow
from skicyclerun.state.machine import ArchiveStatus, ArchiveTrigger
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store
from skicyclerun.wording import bytes_in_words, counted

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ArchiverParts:
    """What the archiver works with. `on_run` hears which run it prepares, `on_archive` what became of the outputs."""

    store: Store
    export_estimate: int
    """Bytes the export after it is expected to write."""
    progress: Callable[[ProgressEvent], None]
    shutdown: Shutdown
    on_run: Callable[[RunRow | None], None]
    on_archive: Callable[[ArchiveRow], None]


async def archiver(
    inbox: MemoryObjectReceiveStream[RunConfigured],
    outbox: MemoryObjectSendStream[OutputsPutAway],
    parts: ArchiverParts,
) -> None:
    """The actor. Passes the run on once the old outputs are away; not at all when it is stopped before that.

    Raises ArchiveError or StorageError where they cannot be put away: the export must not begin then.
    """
    async with inbox, outbox:
        async for configured in inbox:
            parts.on_run(configured.run)
            work = _Archiving(configured, parts)
            try:
                await work.recover_abandoned()
                await work.put_away()
            except ArchiveStopped:
                log.info("stopped while archiving; the folders are untouched")
                continue
            if not parts.shutdown.draining:
                await outbox.send(OutputsPutAway(configured))


class _Archiving:
    def __init__(self, configured: RunConfigured, parts: ArchiverParts) -> None:
        settings = configured.command.settings
        self._configured = configured
        self._parts = parts
        self._store = parts.store
        self._settings = settings
        self._archive_folder = settings.paths.archive
        self._allowed = settings.cleanup.archive_old_outputs
        run = configured.run
        self._may_empty = configured.command.may_empty or (run is not None and run.may_empty)
        self._jobs = ArchiveJobs(
            parts.store,
            settings.paths.archive,
            settings.paths.apple_photos_export,
            parts.progress,
            parts.shutdown,
            copy_to=settings.cleanup.remote or "",
        )

    async def recover_abandoned(self) -> None:
        """Bring jobs of other runs, which a stop left open, to their end: finish cleaning, or forget the attempt.

        What is archived and not moved yet is emptied only by a run that may empty folders itself: whoever typed
        --no-cleanup or an update since has not said yes to this one's emptying them.
        """
        run = self._configured.run
        for job in await archives.unfinished(self._store):
            if run is not None and job.run_id == run.id:
                continue
            recovered = await self._recovered(job)
            if recovered.status is ArchiveStatus.ARCHIVED and recovered.clean and not self._may_empty:
                reason = "given up for a run that empties nothing; the archive stays"
                await archives.step(self._store, recovered, ArchiveTrigger.FAIL, reason=reason)
            elif recovered.status is ArchiveStatus.ARCHIVED:
                await self._clean_or_keep(recovered)
            elif recovered.status is ArchiveStatus.PENDING:
                await archives.step(self._store, recovered, ArchiveTrigger.FAIL, reason="given up for a later run")

    async def put_away(self) -> None:
        """Archive the old outputs, and clean if this run does. Nothing if it has been done, or is not asked for."""
        job = await self._job()
        if job is None:
            return
        job = await self._recovered(job)
        try:
            if job.status is ArchiveStatus.PENDING:
                job = await self._archived(job)
            if job.status is ArchiveStatus.ARCHIVED:
                job = await self._clean_or_keep(job)
        except SkicyclerunError as error:
            with anyio.CancelScope(shield=True):
                await self._jobs.fail(job, error)
            raise
        self._parts.on_archive(job)

    async def _job(self) -> ArchiveRow | None:
        run, command = self._configured.run, self._configured.command
        stages = run.stages if run is not None else command.stages
        if "cleanup" not in stages or command.intent is Intent.RETRY_FAILED:
            return None
        if run is not None and (job := await archives.of_run(self._store, run.id)) is not None:
            if job.status is ArchiveStatus.FAILED:
                return await archives.step(self._store, job, ArchiveTrigger.RETRY)
            return job if job.status is not ArchiveStatus.DONE else None
        if run is not None and (run.planned or await stage_albums.of_run(self._store, run.id)):
            return None  # Begun without one, and what it has made since is no old output.
        if not self._allowed:
            text = "Nothing is archived and nothing is emptied: cleanup.archive_old_outputs is false."
            self._parts.progress(Notice(text, "warning"))
            return None
        choice = CleanupChoice.of(self._settings, run.options if run is not None else {})
        some_go = any(not folder.stays for folder in archived_folders(self._settings, stages, choice))
        clean = some_go and empties(stages, force_clean=command.force_clean)
        run_id = run.id if run else None
        return await archives.create(self._store, run_id=run_id, clean=clean, timestamp=timestamp_now())

    async def _recovered(self, job: ArchiveRow) -> ArchiveRow:
        """The job as a stop left it, brought to a state from which to go on: pending, archived, or ended."""
        job = await self._jobs.recover(job)
        return await self._cleaned(job) if job.status is ArchiveStatus.CLEANING else job

    async def _archived(self, job: ArchiveRow) -> ArchiveRow:
        """pending → archived, or done where there is nothing."""
        plan = await anyio.to_thread.run_sync(plan_archive, await self._folders_of(job))
        if plan.is_empty:
            log.info("nothing to archive")  # the summary and the report say it to the person
            return await archives.step(self._store, job, ArchiveTrigger.NOTHING_TO_DO, reason="nothing to archive")
        if job.clean and not self._may_empty and plan.folders_in_words():
            # Asked about before the run began, when there was nothing to be emptied yet.
            step = "`skicyclerun run --resume` asks about it; `--yes` with it says yes."
            raise EmptyingNotAgreed(what_is_emptied(plan, self._settings), plan.folders_in_words(), next_step=step)
        freed = plan.emptied_bytes if job.clean else 0
        return await self._jobs.write(job, plan, freed_bytes=freed, export_estimate=self._parts.export_estimate)

    async def _clean_or_keep(self, job: ArchiveRow) -> ArchiveRow:
        if not job.clean:
            return await archives.step(self._store, job, ArchiveTrigger.KEEP)
        return await self._cleaned(await archives.step(self._store, job, ArchiveTrigger.CLEAN))

    async def _cleaned(self, job: ArchiveRow) -> ArchiveRow:
        """cleaning → done. Should the archive be gone by now, what was moved aside goes back and the job fails."""
        path, folders = self._archive_folder / job.file, await self._folders_of(job)
        self._parts.progress(ArchiveProgress("cleaning", 0, job.size or 0))
        try:
            proved = await anyio.to_thread.run_sync(open_proved, path)
        except ArchiveNotProved:
            await anyio.to_thread.run_sync(put_back, folders)
            raise
        emptied_folders = [folder for folder in folders if not folder.stays]
        # One that stays was never moved, unless the configuration has named it between two starts of the same cleanup.
        await anyio.to_thread.run_sync(put_back, [folder for folder in folders if folder.stays])
        report = await anyio.to_thread.run_sync(clean_folders, emptied_folders, proved.manifest)
        self._parts.progress(ArchiveProgress("cleaning", job.size or 0, job.size or 0))
        emptied = emptied_stages(self._settings, folders)
        catalog = self._settings.paths.master_catalog
        job = await archives.step(
            self._store,
            job,
            ArchiveTrigger.CLEANED,
            emptied=emptied,
            catalog_emptied=any(catalog.is_relative_to(folder.path) for folder in emptied_folders),
        )
        fault_point("clean.committed")
        self._say_left(report)
        return job

    async def _folders_of(self, job: ArchiveRow) -> list[ArchivedFolder]:
        """The folders that the job is about, by the stages of the run it belongs to, and what that was begun with."""
        if job.run_id is None:
            return archived_folders(self._settings, ("cleanup",))
        run = await runs.get(self._store, job.run_id)
        return archived_folders(self._settings, run.stages, CleanupChoice.of(self._settings, run.options))

    def _say_left(self, report: CleanReport) -> None:
        log.info("cleaned: %d files removed, %d kept", report.removed_files, len(report.kept))
        for sentence in left_in_words(report):
            self._parts.progress(Notice(sentence, "warning"))
        for path in report.kept:
            log.warning("not removed, it is not in the archive as it is now: %s", path)
        for path in report.stuck:
            log.warning("could neither be removed nor moved back: %s", path)


def left_in_words(report: CleanReport) -> list[str]:
    """What cleaning did not remove, a sentence for each reason; empty where all of it went."""

    def named(paths: Sequence[Path]) -> str:
        more = f" and {len(paths) - 3} more, all in the log" if len(paths) > 3 else ""
        return ", ".join(path.name for path in paths[:3]) + more

    sentences: list[str] = []
    if kept := report.kept:
        were = "was left where it is" if len(kept) == 1 else "were left where they are"
        sentences.append(f"{counted(len(kept), 'file')} changed after being archived and {were}: {named(kept)}.")
    if stuck := report.stuck:
        sentences.append(
            f"{counted(len(stuck), 'file')} could neither be removed nor moved back: {named(stuck)}. "
            f"Look into {stuck[0].parent}."
        )
    return sentences


@dataclass(frozen=True, slots=True)
class CleanupAhead:
    """What the cleanup of a run will do. `plan` is None where nothing is archived."""

    words: str
    """What is archived and what is deleted, as a sentence; empty for no cleanup."""
    plan: ArchivePlan | None = None
    clean: bool = False
    """Whether folders are emptied."""

    @property
    def emptied(self) -> frozenset[Path]:
        """The folders that are emptied."""
        if self.plan is None or not self.clean:
            return frozenset()
        return frozenset(folder.path for folder in self.plan.folders if not folder.stays)

    @property
    def emptied_in_words(self) -> tuple[str, ...]:
        """The folders that are emptied, a line each with what is in them; nothing where none is."""
        return tuple(self.plan.folders_in_words()) if self.plan is not None and self.clean else ()

    def check_space(self, settings: Settings, export_estimate: int) -> None:
        """Whether the archive, and an export of so many bytes after it, will fit. Raises DiskFull.

        For the time before a run has begun, so that one that cannot succeed leaves nothing to be resumed. The job
        looks again when it starts. Not looked at where an attempt that was cut off left bytes that the job removes,
        nor where nothing may be written, which is worth its own sentence.
        """
        paths = settings.paths
        if self.plan is None or has_partials(paths.archive):
            return
        if not os.access(nearest_folder(paths.archive), os.W_OK):
            return
        freed = self.plan.emptied_bytes if self.clean else 0
        check_space(self.plan, paths.archive, paths.apple_photos_export, export_estimate, freed_bytes=freed)


def empties(stages: Sequence[str], *, force_clean: bool) -> bool:
    """Whether a run of these stages empties the folders that it archives: something is made anew in them, or it says
    so."""
    return "cleanup" in stages and (force_clean or set(stages) != {"cleanup"})


def cleanup_ahead(settings: Settings, stages: Sequence[str], *, force_clean: bool) -> CleanupAhead:
    """Look what the cleanup of a fresh run will archive and delete; walks the folders.

    Raises ArchiveError for what could not be archived.
    """
    if "cleanup" not in stages:
        return CleanupAhead("")
    if not settings.cleanup.archive_old_outputs:
        return CleanupAhead("Nothing is archived and nothing is emptied (cleanup.archive_old_outputs is false).")
    plan = plan_archive(archived_folders(settings, stages))
    if plan.is_empty:
        return CleanupAhead("Nothing to archive: there are no old outputs.")
    if empties(stages, force_clean=force_clean) and not all(folder.stays for folder in plan.folders):
        return CleanupAhead(what_is_emptied(plan, settings), plan, clean=True)
    return CleanupAhead(f"{_archived_in_words(plan, settings)} and prove the archive; nothing is deleted.", plan)


def what_is_emptied(plan: ArchivePlan, settings: Settings) -> str:
    """A cleanup that empties folders, in a sentence."""
    emptied = ", ".join(folder.name_in_zip for folder in plan.folders if not folder.stays)
    staying = ", ".join(folder.name_in_zip for folder in plan.folders if folder.stays)
    which = f"empty {emptied}; kept as it is: {staying}" if staying else "empty these folders"
    return f"{_archived_in_words(plan, settings)}, prove the archive, then {which}."


def _archived_in_words(plan: ArchivePlan, settings: Settings) -> str:
    names = ", ".join(folder.name_in_zip for folder in plan.folders)
    what = f"{counted(plan.files, 'file')} ({bytes_in_words(plan.content_bytes)}) of {names}"
    return f"Archive {what} in {settings.paths.archive}"
