"""The config actor: checks what the stages need, makes the folders, and enters or reopens the run in the database."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from skicyclerun.actors.archive_job import CleanupChoice
from skicyclerun.actors.messages import ConfigureRun, Intent, RunConfigured
from skicyclerun.actors.stage_runs import options_after_retry, options_for_row
from skicyclerun.errors import UnfinishedRun
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.settings.models import Settings
from skicyclerun.sources.base import Source
from skicyclerun.stages.registry import check_stage_needs, parse_stages, prepare_folders
from skicyclerun.state import albums, runs, stage_albums
from skicyclerun.state.machine import AlbumStatus, RunTrigger
from skicyclerun.state.store import Store


@dataclass(frozen=True, slots=True)
class ConfigParts:
    """What the config actor works with. No source: nothing is exported."""

    store: Store
    source: Source | None


async def configurator(
    inbox: MemoryObjectReceiveStream[ConfigureRun], outbox: MemoryObjectSendStream[RunConfigured], parts: ConfigParts
) -> None:
    """The actor. Raises ConfigError, StorageError or UnfinishedRun before anything is exported or cleaned."""
    async with inbox, outbox:
        async for command in inbox:
            stages = parse_stages(command.stages, command.settings.own_stages())
            check_stage_needs(command.settings, stages)
            await anyio.to_thread.run_sync(partial(prepare_folders, command.settings, stages))
            await outbox.send(await _configured(command, parts))


async def _configured(command: ConfigureRun, parts: ConfigParts) -> RunConfigured:
    latest = await runs.latest(parts.store)
    if command.intent is not Intent.FRESH:
        assert latest is not None  # The command line has looked, under the same lock.
        trigger = RunTrigger.RESUME if latest.unfinished else RunTrigger.RETRY
        run = await runs.step(parts.store, latest, trigger)
        if command.intent is Intent.RESUME:
            if command.may_empty and not run.may_empty:
                run = await runs.keep_options(parts.store, run, {**run.options, runs.MAY_EMPTY_OPTION: True})
            return RunConfigured(command, run)
        run = await runs.keep_options(
            parts.store, run, options_after_retry(command.settings, run, command.retry_stages)
        )
        await stage_albums.retry_failed(parts.store, run.id, command.retry_stages)
        if command.retry_stages is not None and "export" not in command.retry_stages:
            return RunConfigured(command, run)
        failed = await albums.listing(parts.store, run.id, AlbumStatus.FAILED)
        await albums.retry_failed(parts.store, run.id)
        return RunConfigured(command, run, tuple(album.id for album in failed))
    touches = set(command.stages) != {"cleanup"} or command.force_clean
    if latest is not None and latest.unfinished and touches:
        if not command.abandon_unfinished:
            raise UnfinishedRun(latest.id, await runs.remaining_albums(parts.store, latest))
        await runs.step(parts.store, latest, RunTrigger.ABANDON, "given up for a fresh run")
    if set(command.stages) == {"cleanup"}:
        return RunConfigured(command, None)
    if parts.source is not None:
        place = (parts.source.kind, parts.source.location)
    else:
        assert latest is not None  # The command line has looked: stages work on what was exported.
        place = (latest.source_kind, latest.source_location)
    stage_options = options_for_row(command.settings, command.stages, command.stage_options)
    cleanup_options = CleanupChoice.of(command.settings, {}).to_row() if "cleanup" in command.stages else {}
    agreed = {runs.MAY_EMPTY_OPTION: True} if command.may_empty and "cleanup" in command.stages else {}
    run = await runs.create(
        parts.store,
        mode=command.settings.export.mode if parts.source is not None else "update",
        stages=command.stages,
        source_kind=place[0],
        source_location=place[1],
        selection=command.selection,
        options=options_of(command.settings).to_row()
        | stage_options
        | cleanup_options
        | agreed
        | command.choice.to_row(),
    )
    return RunConfigured(command, run)


def options_of(settings: Settings) -> ExportOptions:
    """The options a new run gets from the configuration."""
    export = settings.export
    return ExportOptions(
        format=export.format,
        jpeg_quality=export.jpeg_quality,
        missing=export.missing,
        live_photos=export.live_photos,
        person_keywords=export.person_keywords,
        videos=export.videos,
        max_pixels=export.max_pixels,
        removed_files=export.removed_files,
        sidecar=export.sidecar,
        keep_original=export.keep_original,
        strip_location=export.strip_location,
        max_size=export.max_size,
        duplicates=export.duplicates,
    )
