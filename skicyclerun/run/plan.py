"""What a run is about to do, found out before anything is changed, and the questions to the person that decide it.

Everything that can be found wrong is found here: settings, whether another run is at work, the state (opened to read
only), the source, the albums asked for. Nothing is made, locked or written.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from skicyclerun.actors.archiver import CleanupAhead, cleanup_ahead
from skicyclerun.actors.config import options_of
from skicyclerun.actors.lister import chosen_albums, exported_albums
from skicyclerun.actors.messages import Intent
from skicyclerun.actors.stage_plan import StageAhead, plan_album
from skicyclerun.actors.stage_runs import (
    PlannedStage,
    bytes_ahead,
    check_inputs,
    check_sections,
    keeps_other_settings,
    options_for_retry,
    options_for_row,
    stage_runs,
    stages_ahead,
    without_input,
)
from skicyclerun.archive.plan import nearest_folder, require_space
from skicyclerun.errors import (
    BucketUnreachable,
    Cancelled,
    LockHeld,
    NoState,
    SourceStopped,
    StageError,
    StateDamaged,
    UnfinishedRun,
    UsageError,
)
from skicyclerun.models import Album, SourceKind, Waiting
from skicyclerun.run.choice_ahead import choice_in_words, nothing_passes
from skicyclerun.run.lock import RunLock, current_holder
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.settings.later_stages import LeftStage, later_stages, left_in_words
from skicyclerun.settings.load import check_archive_place, check_source_and_outputs
from skicyclerun.settings.missing_folders import check_folders
from skicyclerun.settings.models import Settings
from skicyclerun.sources.base import KeepsTime, Source, TimeLimits
from skicyclerun.sources.choose import make_source
from skicyclerun.sources.chosen_photos import READ_THE_LIBRARY, ChosenPhotos, choosing
from skicyclerun.sources.photo_choice import PhotoChoice, albums_to_export, not_emptied
from skicyclerun.sources.photos_app_script import script_to_run
from skicyclerun.stages.registry import check_stage_needs, parse_stages
from skicyclerun.stages.s3_deployment import S3Deployment
from skicyclerun.state import albums, archives, bucket_objects, runs, stage_albums
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.machine import AlbumStatus, ArchiveStatus, RunStatus
from skicyclerun.state.runs import RunRow
from skicyclerun.state.set_aside import open_or_set_aside
from skicyclerun.state.store import Store
from skicyclerun.wording import bytes_in_words, counted

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is about to happen, for the summary and for --dry-run."""

    intent: Intent
    settings: Settings
    stages: tuple[str, ...]
    source: str
    """Kind and place; empty where only the cleanup was asked for."""
    albums: tuple[Album, ...]
    """What would be exported by a fresh run; for the others the albums still to do."""
    run: RunRow | None
    """The run that is carried on with, None for a fresh one."""
    gives_up: RunRow | None = None
    """The unfinished run that a fresh one gives up."""
    later_stages: tuple[str, ...] = ()
    """The stages after the export, in order."""
    stage_options: Mapping[str, Any] = field(default_factory=dict)
    """What decides their results, as it is kept in the run's row."""
    ahead: tuple[StageAhead, ...] = ()
    """For --dry-run: what each of them has to do with what is exported now."""
    cleanup: str = ""
    """What is archived and what is deleted, as a sentence; empty for nothing."""
    emptied: frozenset[Path] = frozenset()
    """The folders that are emptied."""
    emptied_in_words: tuple[str, ...] = ()
    """The same, a line each with what is in them; nothing where none is. Never done without a yes."""
    choice: tuple[str, ...] = ()
    """What the filters let through, and which albums are left out, in sentences."""
    publishing: tuple[str, ...] = ()
    """Where pictures are uploaded to and how many, in sentences; the place has been asked by then."""
    notes: tuple[str, ...] = field(default=())


_Answer = TypeVar("_Answer")

#: Asked before anything is changed; False cancels.
Confirm = Callable[[Plan], bool]
#: Asked when a fresh run would give up an unfinished one: "resume", "fresh" or "cancel". None: nobody can be asked.
AskUnfinished = Callable[[RunRow, int], str]
#: Asked by a fresh export which of the source's albums it is to be; their ids, or None to keep to the request.
ChooseAlbums = Callable[[Source, Sequence[Album]], Awaitable[Sequence[str] | None]]
#: Asked where a source has no albums, with its place, and the groups that its photos would make; False: not these.
OfferEverything = Callable[[str, Sequence[Album]], bool]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the person typed."""

    intent: Intent
    settings: Settings
    stages: tuple[str, ...] = ("cleanup", "export")
    selection: tuple[str, ...] = ()
    fresh_over_unfinished: bool = False
    force_clean: bool = False
    dry_run: bool = False
    source_given: bool = False
    """--source or --library was typed; a resumed run then has to be of that source."""
    stage_options: Mapping[str, Any] = field(default_factory=dict)
    """What was typed for single stages (`--sweep-limit`, …)."""
    retry_stages: tuple[str, ...] | None = None
    """retry-failed: only these stages; None for all."""
    left_out: tuple[LeftStage, ...] | None = None
    """What the configuration lists and this installation cannot run; None where the stages were asked for by name, so
    that what has no input is refused rather than left out."""
    folders_to_make: frozenset[Path] = frozenset()
    """Folders that the person has agreed to have made although what would hold them is missing as well."""
    may_empty: bool = False
    """Somebody has said yes to folders being emptied, once what is in them is in a proved archive."""
    pipeline: tuple[str, ...] | None = None
    """`pipeline.stages` of the configuration where other stages were typed; None: the settings say it."""
    typed: str = ""
    """The command line as it was typed, for the log file and for advice; empty where a program asks."""
    how_to_agree: str = ""
    """What to type for that yes, for the error where there is none."""


#: Makes a source, not opened yet.
MakeSource = Callable[[str, Path | None, Settings, ExportOptions], Source]


class Planner:
    """Looks ahead for one request; keeps the source that it opened, for the run to use."""

    def __init__(
        self,
        request: RunRequest,
        *,
        ask_unfinished: AskUnfinished | None = None,
        choose_albums: ChooseAlbums | None = None,
        offer_everything: OfferEverything | None = None,
        make: MakeSource | None = None,
        on_wait: Callable[[Waiting], None] | None = None,
    ) -> None:
        self.request = request
        """As asked for; with the albums that were chosen from a list."""
        self.source: Source | None = None
        self.choice = PhotoChoice()
        """What of the source a fresh run takes."""
        self._of_the_source: tuple[str, ...] = ()
        self.seen: RunRow | None = None
        """The newest run when the plan was made; under the lock it has to be the same still."""
        self._settings = request.settings
        self._ask_unfinished = ask_unfinished
        self._choose_albums = choose_albums
        self._offer_everything = offer_everything
        self._make = make or source_for
        self._on_wait = on_wait

    async def look_ahead(self, stack: AsyncExitStack) -> Plan | str:
        """What would be done, with the source left open for it. Nothing is made, locked or written."""
        try:
            plan = await self._looked_ahead(stack)
        except SourceStopped as error:
            error.before_anything_began(self.request.typed)
            raise
        if self.source is None and self.seen is not None and not isinstance(plan, str):
            check_archive_place(self._settings, self.seen.source_folder)  # what is opened has been looked at
        return plan

    async def _looked_ahead(self, stack: AsyncExitStack) -> Plan | str:
        settings = self._settings
        stages = parse_stages(self.request.stages, settings.own_stages())
        check_stage_needs(settings, stages)
        check_folders(settings, stages, self.request.folders_to_make)
        if holder := current_holder(lock_file(settings)):
            raise LockHeld(settings.lib_root, holder)
        try:
            async with await Store.open_to_read(settings.paths.state_db) as store:
                self.seen = await runs.latest(store)
                return await self._planned(store, stack)
        except NoState:
            if self.request.intent is not Intent.FRESH:
                raise
            return await self._planned_anew(None, None, stack)
        except UnfinishedRun:
            # It may have begun between our two looks; then it is not to be resumed but waited for.
            if holder := current_holder(lock_file(settings)):
                raise LockHeld(settings.lib_root, holder) from None
            raise
        except StateDamaged:
            if not self.request.dry_run:
                with RunLock(settings.lib_root, lock_file(settings)):
                    await (await open_or_set_aside(settings.paths.state_db)).close()
            raise

    async def _planned(self, store: Store, stack: AsyncExitStack) -> Plan | str:
        """What will happen, with the source open; or a sentence where there is nothing to do."""
        request = self.request
        latest = await runs.latest(store)
        if request.intent is Intent.FRESH:
            return await self._planned_fresh(store, latest, stack)
        if latest is None:
            raise NoState(store.path)
        self._check_same_source(latest)
        if request.intent is Intent.RESUME:
            if not latest.unfinished:
                return f"Nothing to resume: run {latest.id} is {latest.status}."
            return await self._planned_again(store, latest, Intent.RESUME, stack)
        if latest.status is RunStatus.ABANDONED:
            return f"Nothing to retry: run {latest.id} was given up."
        failed = await self._failed(store, latest)
        if not failed:
            hint = " It is unfinished: `skicyclerun run --resume` carries on." if latest.unfinished else ""
            return f"Nothing to retry: no album of run {latest.id} failed.{hint}"
        if "export" in failed and await runs.was_put_away(store, latest):
            raise UsageError(
                f"What run {latest.id} exported has been archived since and its folders were emptied, so that retrying "
                "would leave albums in pieces. Nothing was touched.",
                next_step="`skicyclerun run` exports everything anew.",
            )
        return await self._planned_again(store, latest, Intent.RETRY_FAILED, stack)

    async def _planned_fresh(self, store: Store, latest: RunRow | None, stack: AsyncExitStack) -> Plan | str:
        request = self.request
        gives_up: RunRow | None = None
        touches = set(request.stages) != {"cleanup"} or request.force_clean
        if latest is not None and latest.unfinished and touches:
            remaining = await runs.remaining_albums(store, latest)
            if request.fresh_over_unfinished:
                gives_up = latest
            elif self._ask_unfinished is None:
                raise UnfinishedRun(latest.id, remaining)
            else:
                ask_unfinished = self._ask_unfinished
                answer = asked(lambda: ask_unfinished(latest, remaining))
                if answer == "resume":
                    return await self._planned_again(store, latest, Intent.RESUME, stack)
                if answer != "fresh":
                    raise Cancelled(f"Cancelled. Run {latest.id} can still be resumed. Nothing was touched.")
                gives_up = latest
        return await self._planned_anew(store, gives_up, stack)

    async def _planned_anew(self, store: Store | None, gives_up: RunRow | None, stack: AsyncExitStack) -> Plan | str:
        """The plan of a fresh run, or of a cleanup alone."""
        notes = await self._leave_out(store)
        request = self.request
        cleanup = await anyio.to_thread.run_sync(
            partial(cleanup_ahead, self._settings, request.stages, force_clean=request.force_clean),
            abandon_on_cancel=True,
        )
        later = self._later(request.stages)
        await check_inputs(store, self._settings, request.stages)
        if "export" not in request.stages:
            return await self._planned_without_export(store, gives_up, cleanup, notes)
        options = options_for_row(self._settings, later, request.stage_options)
        stages = await self._checked_stages(later, options)
        self.choice = PhotoChoice.of(self._settings.export, date.today())
        source = await self._opened(*self._where_from(), stack)
        listed = await source.albums()
        if not listed:
            instead = await self._everything_instead(source)
            if isinstance(instead, str):
                return instead
            listed, source = instead, self.source or source
        if self._choose_albums is not None and (ids := await self._choose_albums(source, listed)) is not None:
            if not ids:
                raise Cancelled("No album was chosen. Nothing was touched.")
            request = self.request = replace(request, selection=tuple(ids))
        chosen = albums_to_export(listed, request.selection, self.choice)
        if isinstance(source, ChosenPhotos):
            await source.check_names()
            if said := await nothing_passes(source, chosen):
                return said
        update = self._settings.export.mode == "update"
        choice_notes = await choice_in_words(
            store, source, self.choice, request.selection, listed, chosen, update=update
        )
        earlier = (
            await albums.folders_known(store, source.kind.value, source.location)
            if store is not None and update
            else {}
        )
        chosen = not_emptied(chosen, earlier)
        place = f"{source.kind.value}, {source.location}"
        plan = Plan(
            Intent.FRESH,
            self._settings,
            request.stages,
            place,
            tuple(chosen),
            None,
            gives_up,
            later_stages=later,
            stage_options=options,
            ahead=await self._ahead(store, stages, chosen, emptied=cleanup.emptied),
            cleanup=cleanup.words,
            emptied=cleanup.emptied,
            emptied_in_words=cleanup.emptied_in_words,
            notes=(*notes, *self._of_the_source),
            choice=tuple(choice_notes),
            publishing=await self._publishing(store, stages, chosen, more=True),
        )
        estimate = await export_estimate(store, plan)
        await anyio.to_thread.run_sync(cleanup.check_space, self._settings, estimate)
        if cleanup.plan is None:
            photos = sum(album.photo_count for album in chosen)
            await self._check_room_for_stages(store, later, photos, emptied=frozenset())
        return plan

    async def _everything_instead(self, source: Source) -> list[Album] | str:
        """Where there are no albums: the groups of all photos if the person wants them, otherwise what to say."""
        place = source.location
        if self.choice.everything:
            said = await nothing_passes(source, ()) if isinstance(source, ChosenPhotos) else ""
            return said or f"There are no photos in {place}. Nothing was touched."
        said = f"There are no albums in {place}."
        if not isinstance(source, ChosenPhotos):
            return f"{said} Nothing was touched. {READ_THE_LIBRARY.replace('--source', '--everything --source')}"
        choice = self.choice.with_everything()
        whole = source.with_choice(choice)
        groups = await whole.albums()
        photos = sum(album.photo_count for album in groups)
        if not groups:
            return f"{said} Nothing was touched."
        offer = self._offer_everything
        if offer is None or not asked(lambda: offer(place, groups)):
            typed = self.request.typed or "skicyclerun run"
            these = "its one photo" if photos == 1 else f"its {photos} photos"
            return f"{said} `{typed} --everything` exports {these}, by {choice.group_by}. Nothing was touched."
        self.choice, self.source = choice, whole
        return groups

    async def _leave_out(self, store: Store | None) -> tuple[str, ...]:
        """Take what has no input out of stages that the configuration lists; what to say of all that is left out.

        Raises StageError where nothing is left.
        """
        request = self.request
        if request.left_out is None:
            return ()
        left = [*request.left_out, *await without_input(store, self._settings, request.stages, request.left_out)]
        gone = {each.name for each in left}
        stages = tuple(name for name in request.stages if name not in gone)
        said = tuple(left_in_words(left))
        if not stages:
            raise StageError(f"Nothing is left to run. {' '.join(said)}")
        self.request = replace(request, stages=stages)
        return said

    def _later(self, stages: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in later_stages(self._settings) if name in stages)

    async def _planned_without_export(
        self, store: Store | None, gives_up: RunRow | None, cleanup: CleanupAhead, notes: tuple[str, ...]
    ) -> Plan | str:
        """The plan of stages over what is exported already, or of a cleanup alone."""
        request, later = self.request, self._later(self.request.stages)
        await anyio.to_thread.run_sync(cleanup.check_space, self._settings, 0)
        rows: list[AlbumRow] = []
        if later:
            if store is None:
                raise NoState(self._settings.paths.state_db)
            self.choice = PhotoChoice(exclude=self._settings.export.exclude)
            rows = await chosen_albums(store, request.selection, self.choice.exclude)
            if not rows:
                return "Nothing to do: there are no exported pictures for the stages to work on. Nothing was touched."
            photos = sum(row.album.photo_count if row.expected is None else row.expected for row in rows)
            await self._check_room_for_stages(store, later, photos, emptied=cleanup.emptied)
        options = options_for_row(self._settings, later, request.stage_options)
        planned = await self._checked_stages(later, options)
        ahead = await self._ahead(store, planned, [row.album for row in rows], emptied=cleanup.emptied)
        return Plan(
            Intent.FRESH,
            self._settings,
            request.stages,
            "",
            tuple(row.album for row in rows),
            None,
            gives_up,
            later_stages=later,
            stage_options=options,
            ahead=ahead,
            cleanup=cleanup.words,
            emptied=cleanup.emptied,
            emptied_in_words=cleanup.emptied_in_words,
            notes=notes,
            publishing=await self._publishing(
                store, planned, [row.album for row in rows], more=len(planned) > 1 or bool(cleanup.emptied)
            ),
        )

    async def _publishing(
        self, store: Store | None, stages: Sequence[PlannedStage], albums: Sequence[Album], *, more: bool
    ) -> tuple[str, ...]:
        """Before anything is sent to a bucket: that it is there and may be written to, and how much will go. In words.

        Nobody is asked where nothing is to go. `more`: stages before make what is not known yet. A service that does
        not answer holds up none of them. Raises StageError, and BucketUnreachable where nothing else was asked for.
        """
        notes = []
        for each in stages:
            recipe = each.run.recipe
            if not isinstance(recipe, S3Deployment) or recipe.section.dry_run:
                continue
            wanted = {album.id for album in albums}
            rows = [] if store is None else [row for row in await chosen_albums(store, ()) if row.album.id in wanted]
            sizes: list[int] = []
            for row in rows:
                assert store is not None
                assert each.run.publication is not None
                if await each.run.publication.is_unchanged(store, row.folder, row.album.path):
                    continue
                sizes += [one.input.size for one in (await plan_album(store, each.run, row.folder)).to_do]
            if not sizes and not more:
                continue
            first = store is None or not await bucket_objects.any_of_place(store, recipe.service.place)
            ask = partial(recipe.ask_the_service, may_write=not self.request.dry_run, first=first)
            try:
                found = await anyio.to_thread.run_sync(ask, abandon_on_cancel=True)
            except BucketUnreachable as error:
                if not more:
                    raise
                notes.append(
                    f"{error} {error.next_step} What else was asked for goes on; the bucket is asked again when its "
                    "turn comes."
                )
                continue
            notes.append(f"{each.run.stage.name}: {found}. {_to_go_up(sizes, albums if more else ())}")
        return tuple(notes)

    async def _ahead(
        self, store: Store | None, stages: Sequence[PlannedStage], albums: Sequence[Album], *, emptied: frozenset[Path]
    ) -> tuple[StageAhead, ...]:
        """For --dry-run: what the stages have to do with those of the albums that are exported now."""
        if store is None or not stages or not self.request.dry_run:
            return ()
        wanted = {album.id for album in albums}
        rows = [row for row in await chosen_albums(store, ()) if row.album.id in wanted]
        return await stages_ahead(store, stages, rows, emptied=emptied)

    async def _albums_again(self, store: Store, run: RunRow, intent: Intent) -> list[Album]:
        """The albums that a run's stages go through when it is carried on with."""
        rows = await exported_albums(store, run)
        if intent is Intent.RETRY_FAILED:
            failed = await stage_albums.of_run(store, run.id)
            folders = {row.folder for row in failed if row.status is AlbumStatus.FAILED}
            rows = [row for row in rows if row.folder in folders]
        return [row.album for row in rows]

    async def _checked_stages(self, later: Sequence[str], options: Mapping[str, Any]) -> list[PlannedStage]:
        """The stages, each of which has looked whether it could run. Raises StageError."""
        planned = stage_runs(self._settings, later, options)
        for each in planned:
            await anyio.to_thread.run_sync(each.run.recipe.check)
        return planned

    async def _check_room_for_stages(
        self, store: Store | None, later: Sequence[str], photos: int, *, emptied: frozenset[Path]
    ) -> None:
        """Raises DiskFull where what the stages will write cannot fit."""
        if not later:
            return
        needed = await bytes_ahead(store, self._settings, later, photos, emptied=emptied)
        place = nearest_folder(self._settings.paths.pipeline_base)
        await anyio.to_thread.run_sync(require_space, place, {"stages": needed})

    async def _failed(self, store: Store, run: RunRow) -> set[str]:
        """The stages of a run, `export` among them, that have failed albums and are to be retried."""
        wanted = self.request.retry_stages
        failed = {row.stage for row in await stage_albums.of_run(store, run.id) if row.status is AlbumStatus.FAILED}
        if await albums.listing(store, run.id, AlbumStatus.FAILED):
            failed.add("export")
        return failed if wanted is None else failed & set(wanted)

    async def _exports_again(self, store: Store, run: RunRow, intent: Intent) -> bool:
        """Whether carrying on with a run needs its source."""
        if "export" not in run.stages:
            return False
        if intent is Intent.RETRY_FAILED:
            return "export" in await self._failed(store, run)
        left = [row for row in await albums.listing(store, run.id) if row.status is not AlbumStatus.DONE]
        unsettled = any(row.status is not AlbumStatus.FAILED for row in left)
        return not run.planned or unsettled or run.mode == "update"

    async def _planned_again(self, store: Store, run: RunRow, intent: Intent, stack: AsyncExitStack) -> Plan:
        """The plan to carry on with a run: its own source, stages and options."""
        later = self._later(run.stages)
        options: Mapping[str, Any] = run.options
        if intent is Intent.RETRY_FAILED:
            wanted_stages = self.request.retry_stages
            later = tuple(name for name in later if wanted_stages is None or name in wanted_stages)
            options = options_for_retry(self._settings, later, run.options)
        check_sections(self._settings, later, retries=intent is Intent.RETRY_FAILED)
        stages = await self._checked_stages(later, options)
        place = ""
        if await self._exports_again(store, run, intent):
            source = await self._opened(run.source_kind.value, Path(run.source_location), stack, run)
            place = f"{source.kind.value}, {source.location}"
        wanted = AlbumStatus.FAILED if intent is Intent.RETRY_FAILED else None
        rows = await albums.listing(store, run.id, wanted)
        waiting = [row.album for row in rows if row.status is not AlbumStatus.DONE]
        if wanted is None:
            waiting = [row.album for row in rows if row.status in (AlbumStatus.PENDING, AlbumStatus.EXPORTING)]
        cleanup = await self._cleanup_again(store, run) if intent is Intent.RESUME else CleanupAhead("")
        notes = [*self._of_the_source]
        kept = intent is Intent.RESUME and keeps_other_settings(self._settings, later, run.options)
        other = "export" in run.stages and not PhotoChoice.from_row(run.options).same_as(self._settings.export)
        if kept or other or ExportOptions.from_row(run.options) != options_of(self._settings):
            notes.append(
                f"Run {run.id} keeps the {'stage' if kept else 'export'} settings it was begun with; the changed ones "
                "apply to the next run."
            )
        again = await self._albums_again(store, run, intent)
        return Plan(
            intent,
            self._settings,
            run.stages,
            place,
            tuple(waiting),
            run,
            later_stages=later,
            stage_options=options,
            ahead=await self._ahead(store, stages, again, emptied=frozenset()),
            cleanup=cleanup.words,
            emptied=cleanup.emptied,
            emptied_in_words=cleanup.emptied_in_words,
            publishing=await self._publishing(store, stages, again, more=bool(place) or len(stages) > 1),
            notes=tuple(notes),
        )

    async def _cleanup_again(self, store: Store, run: RunRow) -> CleanupAhead:
        """What a run that is resumed would still empty, of which nobody has heard: there was nothing when it began."""
        job = await archives.of_run(store, run.id)
        begun = run.planned or bool(await stage_albums.of_run(store, run.id))
        agreed = (ArchiveStatus.ARCHIVED, ArchiveStatus.CLEANING, ArchiveStatus.DONE)
        if run.may_empty or (begun if job is None else job.status in agreed):
            return CleanupAhead("")
        ahead = partial(cleanup_ahead, self._settings, run.stages, force_clean=False)
        return await anyio.to_thread.run_sync(ahead, abandon_on_cancel=True)

    def _check_same_source(self, run: RunRow) -> None:
        if not self.request.source_given:
            return
        export = self._settings.export
        other_kind = export.source not in ("auto", run.source_kind.value)
        other_place = export.library is not None and export.library != Path(run.source_location)
        if other_kind or other_place:
            raise UsageError(
                f"Run {run.id} exports from {run.source_location} ({run.source_kind}); it cannot carry on with another "
                "source.",
                next_step="Leave --source and --library out, or begin anew with `skicyclerun run --fresh`.",
            )

    def _where_from(self) -> tuple[str, Path | None]:
        """Kind and place of the source. An update that is told of none goes on with that of the run before it: what is
        there came from it, and on a Mac Photos.app would be another one."""
        export, before = self._settings.export, self.seen
        told = self.request.source_given or export.source != "auto" or export.library is not None
        if told or export.mode != "update" or before is None:
            return export.source, export.library
        in_photos = before.source_kind is SourceKind.APPLE_PHOTOS
        return before.source_kind.value, None if in_photos else Path(before.source_location)

    async def _opened(
        self, kind: str, library: Path | None, stack: AsyncExitStack, run: RunRow | None = None
    ) -> Source:
        options = ExportOptions.from_row(run.options) if run else options_of(self._settings)
        if run is not None and kind == "apple_photos":
            library = None  # The place of such a run is the application.
        choice = PhotoChoice.from_row(run.options) if run else self.choice
        source = self._make(kind, library, self._settings, options)
        if library is not None:
            check_source_and_outputs(self._settings, library)
        if source.kind is SourceKind.APPLE_PHOTOS:
            self._of_the_source = tuple(filter(None, [script_to_run(self._settings)[1]]))
        stack.push_async_callback(source.close)
        if self._on_wait is not None and isinstance(source, KeepsTime):
            source.on_wait = self._on_wait
        chosen = choosing(source, choice)
        await chosen.open()
        self.source = chosen
        return chosen


def asked(question: Callable[[], _Answer]) -> _Answer:
    """Ask on the event loop's own thread, with nothing else running, so that Ctrl-C ends the question at once.

    In a worker thread it could not: a thread that waits for a key keeps the process from ending.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return question()
    finally:
        signal.signal(signal.SIGINT, before)


def lock_file(settings: Settings) -> Path:
    return settings.paths.state_db.parent / "run.lock"


def source_for(kind: str, library: Path | None, settings: Settings, options: ExportOptions) -> Source:
    """The source the settings mean, not opened yet. Raises UsageError."""
    export = settings.export

    def photos_app() -> Source:
        if options.keep_original:
            raise UsageError(
                "export.keep_original is true, and Photos.app hands over what it shows, not the original behind it.",
                next_step="Read the library without Photos (`--source photos_library --library PATH`), or set "
                "export.keep_original to false.",
            )
        from skicyclerun.sources.photos_app import PhotosApp

        return PhotosApp(
            script=script_to_run(settings)[0],
            limits=time_limits(settings),
            # The first event may wait for the person to answer macOS's question about permission.
            list_timeout=max(120.0, export.timeouts.photo),
            restart_photos=export.restart_photos,
            log=log.info,
        )

    return make_source(kind, library, missing=options.missing, make_apple_photos=photos_app)


def time_limits(settings: Settings) -> TimeLimits:
    """How long one photo of an export may take."""
    timeouts = settings.export.timeouts
    return TimeLimits(timeouts.photo, timeouts.movie, timeouts.per_mb)


async def export_estimate(store: Store | None, plan: Plan) -> int:
    """Bytes a fresh run will write: the size of the originals, else what earlier photos took, and what its stages make.

    Meant to be too low rather than too high: a JPEG keeps its size, a HEIC grows. A run is turned away only when even
    that does not fit.
    """
    if plan.intent is not Intent.FRESH:
        return 0
    photos = sum(album.photo_count for album in plan.albums)
    stages = await bytes_ahead(store, plan.settings, plan.later_stages, photos, emptied=plan.emptied)
    if not plan.source:
        return stages
    if known := sum(album.size for album in plan.albums):
        return known + stages
    row = await store.one("mean_exported_size") if store is not None else None
    mean = row["size"] if row is not None else None
    return (int(mean * photos) if mean else 0) + stages


def _to_go_up(sizes: Sequence[int], more: Sequence[Album]) -> str:
    """How much will be uploaded. `more`: the albums of which stages before make what is not known yet."""
    known = f"{counted(len(sizes), 'file')} ({bytes_in_words(sum(sizes))}) to go up as things are now"
    if not more:
        return f"{known}."
    makes = f"what this run makes of {counted(sum(album.photo_count for album in more), 'photo')}"
    return f"{known}; {makes} comes on top." if sizes else f"Nothing to go up yet; {makes} will."
