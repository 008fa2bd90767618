"""The way in for programs: `PhotoExporter`, and `AsyncPhotoExporter` for those that have an event loop of their own.

    from skicyclerun import PhotoExporter

    exporter = PhotoExporter(lib_root="/photos/out", library="/photos/My.photoslibrary")
    report = exporter.export_albums(["Alps", "2024*"])
    assert exporter.verify_exports(full=True).sound

Every method does what the command of that name does, through the same code, without a question and without a word on
the terminal. What goes wrong is raised as a subclass of `skicyclerun.errors.SkicyclerunError`. docs/python-api.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from functools import partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import anyio

from skicyclerun.actors.config import options_of
from skicyclerun.actors.messages import Intent
from skicyclerun.catalog.master_json import CatalogWrite
from skicyclerun.errors import NoState, UsageError
from skicyclerun.models import Album
from skicyclerun.progress.events import ProgressEvent, Renderer
from skicyclerun.rebuild.session import RebuildReport, rebuild_catalog, rebuild_state
from skicyclerun.run.pipeline import unwrapped
from skicyclerun.run.plan import RunRequest, source_for
from skicyclerun.run.report import RunReport, build_latest_report
from skicyclerun.run.session import RunOutcome, RunSession
from skicyclerun.settings.later_stages import enabled_stages, left_stages
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import Settings
from skicyclerun.sources.chosen_photos import choosing
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.state.store import Store
from skicyclerun.verification.report import Depth, VerificationReport
from skicyclerun.verification.session import verify_and_repair, verify_only

__all__ = ["AsyncPhotoExporter", "PhotoExporter"]

_NONE_GIVEN: Final[Mapping[str, object]] = MappingProxyType({})
_SIGINT_CODE: Final = 130
_YES: Final = "`yes=True` says yes to it; `cleanup=False` leaves the old outputs where they are."
_T = TypeVar("_T")
_P = str | PathLike[str]


class _Silent(Renderer):
    """A renderer that shows nothing."""

    def handle(self, event: ProgressEvent) -> None:
        return

    def close(self) -> None:
        return


class AsyncPhotoExporter:
    """`PhotoExporter` for programs with an event loop: the same methods, to be awaited."""

    def __init__(
        self,
        config: _P | None = None,
        *,
        lib_root: _P | None = None,
        library: _P | None = None,
        source: str | None = None,
        settings: Mapping[str, object] = _NONE_GIVEN,
        renderer: Renderer | None = None,
    ) -> None:
        """See `PhotoExporter`. Raises ConfigError; nothing is made or opened yet."""
        self._config = None if config is None else Path(config)
        self._lib_root = None if lib_root is None else Path(lib_root)
        self._given: dict[str, object] = dict(settings)
        if source is not None:
            self._given["export.source"] = source
        if library is not None:
            self._given["export.library"] = str(Path(library))
        self._renderer: Renderer = renderer if renderer is not None else _Silent()
        self._settings = self._loaded()

    def _loaded(self, **further: object) -> Settings:
        overrides = self._given | {key.replace("__", "."): value for key, value in further.items()}
        return load_settings(self._config, lib_root=self._lib_root, overrides=overrides)

    @property
    def settings(self) -> Settings:
        """The checked configuration, every path resolved."""
        return self._settings

    async def albums(self) -> list[Album]:
        """All albums the source offers, empty ones included; with `export.everything` also the groups, all of them
        counted without what the filters leave out. Raises SourceError, UsageError."""
        settings = self._settings
        source = source_for(settings.export.source, settings.export.library, settings, options_of(settings))
        try:
            if settings.export.everything:
                source = choosing(source, PhotoChoice.of(settings.export, date.today()))
            await source.open()
            return await source.albums()
        finally:
            with anyio.CancelScope(shield=True):
                await source.close()

    async def export_albums(
        self,
        selected: str | Sequence[str | Album] | None = None,
        *,
        update: bool = False,
        cleanup: bool | None = None,
        give_up_unfinished: bool = False,
        yes: bool = False,
    ) -> RunReport:
        """Export albums in a fresh run; see `PhotoExporter.export_albums`."""
        settings = self._loaded(export__mode="update", cleanup__enabled=False) if update else self._settings
        wanted = settings.cleanup.enabled if cleanup is None else cleanup
        if update and cleanup:
            raise UsageError("An update cleans nothing; cleanup=True does not go with it.")
        names = [stage.name for stage in enabled_stages(settings, settings.pipeline.stages)]
        stages = tuple(name for name in names if name != "cleanup" or (wanted and not update))
        if wanted and not update and cleanup and "cleanup" not in stages:
            stages = ("cleanup", *stages)
        request = RunRequest(
            Intent.FRESH,
            settings,
            stages=stages if "export" in stages else (*stages, "export"),
            selection=_selection(selected, settings),
            fresh_over_unfinished=give_up_unfinished,
            left_out=left_stages(settings, settings.pipeline.stages),
            may_empty=yes,
            how_to_agree=_YES,
        )
        outcome = await self._carried_out(request)
        if outcome.report is None:
            raise UsageError(outcome.said)
        return outcome.report

    async def resume(self, *, yes: bool = False) -> RunReport:
        """Carry on with the unfinished run; where there is none, the report on the last. Raises NoState."""
        return await self._again(Intent.RESUME, yes=yes)

    async def retry_failed(self) -> RunReport:
        """Fetch again what failed in the last run; where nothing did, its report. Raises NoState."""
        return await self._again(Intent.RETRY_FAILED)

    async def status(self) -> RunReport | None:
        """The report on the last run, None where there has been none."""
        try:
            async with await Store.open_to_read(self._settings.paths.state_db) as store:
                return await build_latest_report(store, self._settings.paths.apple_photos_export)
        except NoState:
            return None

    async def catalog_exports(self) -> CatalogWrite:
        """Bring `master.json` up to what was exported; see `PhotoExporter.catalog_exports`."""
        return await rebuild_catalog(self._settings)

    async def verify_exports(
        self,
        *,
        full: bool = False,
        sample: float | None = None,
        seed: int = 0,
        repair: bool = False,
    ) -> VerificationReport:
        """Compare files, database and catalog; see `PhotoExporter.verify_exports`."""
        depth = _depth(full, sample, seed)
        if repair:
            outcome = await _alone(verify_and_repair(self._settings, depth, self._renderer))
            _raise_signal(outcome.signal_code)
            return outcome.report
        return (await _alone(verify_only(self._settings, depth))).report

    async def rebuild_state(self, *, force: bool = False) -> RebuildReport:
        """Make a lost state database anew; see `PhotoExporter.rebuild_state`."""
        given = "export.library" in self._given
        return await _alone(rebuild_state(self._settings, force=force, library_given=given))

    async def _again(self, intent: Intent, *, yes: bool = False) -> RunReport:
        request = RunRequest(intent, self._settings, may_empty=yes, how_to_agree=_YES)
        report = (await self._carried_out(request)).report or await self.status()
        if report is None:
            raise NoState(self._settings.paths.state_db)
        return report

    async def _carried_out(self, request: RunRequest) -> RunOutcome:
        outcome = await _alone(RunSession(request, renderer=self._renderer).carry_out())
        _raise_signal(outcome.signal_code)
        return outcome


class PhotoExporter:
    """Exports albums, keeps the catalog, verifies.

    `config` is a configuration file; without one, that of `lib_root` or the shipped default counts. `lib_root` is the
    folder everything is written under ($SKICYCLERUN_LIB_ROOT if not given), `library` the Photos library or folder of
    albums, `source` one of auto, apple_photos, photos_library, folder. `settings` are further values of the
    configuration by dotted key (`{"export.jpeg_quality": 90}`); they win over the file. `renderer` is told of the
    progress (`skicyclerun.progress.events`); without one nothing is shown.

    Raises ConfigError if the configuration is wrong. Nothing is made, opened or locked before a method is called, and
    nothing is held between two calls. Not to be called from within an event loop: `AsyncPhotoExporter` is for that.
    """

    def __init__(
        self,
        config: _P | None = None,
        *,
        lib_root: _P | None = None,
        library: _P | None = None,
        source: str | None = None,
        settings: Mapping[str, object] = _NONE_GIVEN,
        renderer: Renderer | None = None,
    ) -> None:
        self._exporter = AsyncPhotoExporter(
            config, lib_root=lib_root, library=library, source=source, settings=settings, renderer=renderer
        )

    @property
    def settings(self) -> Settings:
        """The checked configuration, every path resolved."""
        return self._exporter.settings

    def albums(self) -> list[Album]:
        """All albums the source offers, empty ones included, in its order. Raises SourceError, UsageError."""
        return _wait(self._exporter.albums)

    def export_albums(
        self,
        selected: str | Sequence[str | Album] | None = None,
        *,
        update: bool = False,
        cleanup: bool | None = None,
        give_up_unfinished: bool = False,
        yes: bool = False,
    ) -> RunReport:
        """Export albums in a fresh run, and return its report when it has ended, with failures or without.

        `selected`: albums as `albums()` gives them, or ids, titles, paths or globs; None for those of the
        configuration, which by default are all. `update`: only what is new or changed, and nothing is cleaned.
        `cleanup`: whether old outputs are put into a proved archive and their folders emptied first; None as the
        configuration says. A run that would empty folders which hold something raises EmptyingNotAgreed, and touches
        nothing, unless `yes`. An unfinished earlier run raises UnfinishedRun unless `give_up_unfinished`.

        A photo or album that fails is in the report and raises nothing. Raises UsageError (NoAlbumMatches,
        UnfinishedRun, EmptyingNotAgreed), SourceError, StateError, StorageError, ArchiveError, LockHeld; what was
        exported before is kept, and `resume()` carries on. In the main thread SIGINT and SIGTERM let the photos in
        hand finish and then raise KeyboardInterrupt or SystemExit.
        """
        work = self._exporter.export_albums
        return _wait(
            partial(work, selected, update=update, cleanup=cleanup, give_up_unfinished=give_up_unfinished, yes=yes)
        )

    def resume(self, *, yes: bool = False) -> RunReport:
        """Carry on with the unfinished run where it stopped; where there is none, the report on the last run.

        `yes` is needed only where the run was begun with nothing to be emptied and there is something now.
        Raises NoState where there has been no run, and what `export_albums` raises.
        """
        return _wait(partial(self._exporter.resume, yes=yes))

    def retry_failed(self) -> RunReport:
        """Fetch again what failed in the last run, and nothing else; where nothing did, its report. Raises NoState."""
        return _wait(self._exporter.retry_failed)

    def status(self) -> RunReport | None:
        """The report on the last run, None where there has been none. Changes nothing."""
        return _wait(self._exporter.status)

    def catalog_exports(self) -> CatalogWrite:
        """Bring `master.json` up to what the state database says, as every run does at its end.

        Entries of ours that are missing or incomplete are restored; what other programs wrote stays. A catalog that
        cannot be read is set aside (`set_aside`) and made anew. Raises NoState, LockHeld, StateError, StorageError.
        """
        return _wait(self._exporter.catalog_exports)

    def verify_exports(
        self,
        *,
        full: bool = False,
        sample: float | None = None,
        seed: int = 0,
        repair: bool = False,
    ) -> VerificationReport:
        """Compare every exported file with the database and the catalog.

        Size and time of every file; `full` reads every byte and decodes every picture; `sample` does so for a share
        (a float up to 1.0) or a number (an int) of the files, the same ones for the same `seed`. `repair` exports
        again what is broken, and the report then says what is left. What is wrong is in the report (`sound`,
        `problems`) and raises nothing. Raises NoState, StateError, StorageError; with `repair` also LockHeld,
        UsageError where a run is unfinished, and SourceError.
        """
        return _wait(partial(self._exporter.verify_exports, full=full, sample=sample, seed=seed, repair=repair))

    def rebuild_state(self, *, force: bool = False) -> RebuildReport:
        """Make a lost or damaged state database anew from the exported files and `master.json`.

        The old one is kept under another name; a sound one only gives way to `force`. Raises UsageError, LockHeld,
        StateTooNew, StorageError.
        """
        return _wait(partial(self._exporter.rebuild_state, force=force))


def _wait(function: Callable[[], Awaitable[_T]]) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(function)
    raise UsageError(
        "PhotoExporter waits for its work to end and cannot be called from within an event loop.",
        next_step="Use skicyclerun.AsyncPhotoExporter and await its methods.",
    )


async def _alone(work: Awaitable[_T]) -> _T:
    """The one error that counts, rather than a group of them."""
    try:
        return await work
    except BaseExceptionGroup as group:
        raise unwrapped(group) from group


def _raise_signal(code: int | None) -> None:
    if code == _SIGINT_CODE:
        raise KeyboardInterrupt
    if code is not None:
        raise SystemExit(code)


def _selection(selected: str | Sequence[str | Album] | None, settings: Settings) -> tuple[str, ...]:
    if selected is None:
        return settings.export.albums
    if isinstance(selected, str):
        return (selected,)
    names = tuple(each.id if isinstance(each, Album) else each for each in selected)
    if not names:
        raise UsageError("No album was selected. Nothing was touched.", next_step="None selects what is configured.")
    return names


def _depth(full: bool, sample: Any, seed: int) -> Depth:
    if sample is None:
        return Depth("full" if full else "quick")
    if full:
        raise UsageError("full=True reads everything; sample reads a part. Give one of them.")
    if isinstance(sample, int) and not isinstance(sample, bool) and sample >= 1:
        return Depth("sample", count=sample, seed=seed)
    if isinstance(sample, float) and 0 < sample <= 1:
        return Depth("sample", share=sample, seed=seed)
    raise UsageError(f"sample={sample!r}: a share is a float above 0 and up to 1.0, a number of files an int above 0.")
