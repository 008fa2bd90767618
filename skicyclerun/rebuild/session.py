"""`rebuild-state` and `rebuild-catalog` from request to report.

A state database is made anew beside the old one and takes its place by a rename, when it is whole: a stop before that
leaves everything as it was. The old one is set aside, never written over. Exported files are read, never changed; one
whose bytes are not those that the catalog names is told of and not claimed.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from skicyclerun.actors.config import options_of
from skicyclerun.catalog.entries import CatalogRecord, DerivedRecord
from skicyclerun.catalog.master_json import CatalogReading, CatalogWrite, read_catalog
from skicyclerun.catalog.records import catalog_places
from skicyclerun.errors import NoState, NotWritable, StateDamaged, StateTooNew, StorageError, UsageError
from skicyclerun.files.atomic_files import make_directories, sync_directory, sync_files
from skicyclerun.models import Photo, SourceKind
from skicyclerun.rebuild.entries import (
    AlbumEntries,
    DerivedEntries,
    SortedEntries,
    derived_at,
    derived_entries,
    records_at,
    sorted_entries,
    without_repetitions,
)
from skicyclerun.run.lock import RunLock
from skicyclerun.settings.models import Settings
from skicyclerun.sources.choose import choose_kind
from skicyclerun.state import left_out, runs
from skicyclerun.state.left_out import LeftOutPhoto
from skicyclerun.state.rebuild import (
    RebuiltAlbum,
    RebuiltPhoto,
    RebuiltPicture,
    RebuiltStageAlbum,
    SalvagedRun,
    into_one_file,
    rebuild,
    salvage_runs,
)
from skicyclerun.state.set_aside import set_aside
from skicyclerun.state.stage_pictures import StageInput
from skicyclerun.state.store import Store
from skicyclerun.verification.compare import REPAIR_OPTION
from skicyclerun.verification.files import KnownFiles
from skicyclerun.verification.session import lock_file, write_whole_catalog

_BATCH: Final = 8
_LIVE_SOURCE: Final = "Photos.app"
"""`location` of the source apple_photos, which has no path."""
REASON: Final = "rebuilt from the exported files and the catalog"
_GONE: Final = "its file was gone when the state was rebuilt"

#: Hears how many files are looked at, and of how many.
Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ToldFile:
    """What the catalog tells of a file."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FoundFile:
    """What is there. `mtime_ns` None and `differs` empty: nothing is."""

    mtime_ns: int | None
    """Its modification time, where it is the file the catalog tells of."""
    differs: str = ""
    """Why it is not the file the catalog tells of."""


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What was made anew."""

    state_db: Path
    kept_as: Path | None
    """Where the old database is, None where there was none."""
    runs: tuple[int, ...]
    """One for each kind of source in the catalog."""
    albums: int
    claimed: int
    """Files that are as the catalog says."""
    bytes: int
    gone: tuple[str, ...]
    """Paths of files that the catalog names and that are not there; `retry-failed` asks for them again."""
    differing: tuple[tuple[str, str], ...]
    """Paths of files that are not as the catalog says, each with what differs; they are not claimed."""
    unclaimed: tuple[tuple[str, str], ...]
    """Entries that could not be taken, by path, each with why."""
    unknown: tuple[str, ...]
    """Files in the export folder that the catalog does not name, below it; those in the folders of stages, whole paths.
    """
    stages: tuple[str, ...]
    """The stages after the export that left files or facts."""
    stage_files: int
    """Files of theirs that are as the catalog says."""
    seconds: float

    @property
    def whole(self) -> bool:
        """True when every entry was claimed and every file is known."""
        return not (self.gone or self.differing or self.unclaimed or self.unknown)


async def rebuild_state(
    settings: Settings, *, force: bool = False, library_given: bool = False, advance: Advance | None = None
) -> RebuildReport:
    """Make the state database anew from the exported files and `master.json`.

    `library_given`: `export.library` of the settings is where the photos came from, whatever the old database says.
    Raises LockHeld; UsageError where the database is sound and `force` is not given, and where nobody knows which
    library the photos came from; StateTooNew; StorageError where the catalog cannot be used.
    """
    with RunLock(settings.lib_root, lock_file(settings)):
        return await _Rebuild(settings, force, library_given, advance).carry_out()


async def rebuild_catalog(settings: Settings) -> CatalogWrite:
    """Write `master.json` from the database: our entries anew, what other programs wrote kept where it can be read.

    Raises LockHeld, NoState, StateDamaged, StorageError.
    """
    async with await Store.open_to_read(settings.paths.state_db):
        pass  # Nothing is made, not even the lock file, where there is no state.
    with RunLock(settings.lib_root, lock_file(settings)):
        async with await Store.open(settings.paths.state_db) as store:
            return await write_whole_catalog(store, settings)


@dataclass
class _Rebuild:
    settings: Settings
    force: bool
    library_given: bool
    advance: Advance | None
    there: dict[str, set[str]] = field(default_factory=dict)
    """Exported files that were claimed, by album folder."""
    gone: list[str] = field(default_factory=list)
    differing: list[tuple[str, str]] = field(default_factory=list)
    claimed: int = 0
    bytes: int = 0
    stage_files: int = 0
    looked_at: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        self.state_db = self.settings.paths.state_db
        self.export_folder = self.settings.paths.apple_photos_export
        self.places = catalog_places(self.settings)
        self.known = {self.export_folder: KnownFiles()}
        """By the folder of the album folders."""
        self.limiter = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def carry_out(self) -> RebuildReport:
        began = time.monotonic()
        label = await self._label_of_old()
        catalog = await anyio.to_thread.run_sync(self._catalog)
        salvaged = await anyio.to_thread.run_sync(_salvaged, self.state_db)
        places = _places(self.settings, salvaged, self.library_given)
        entries = await anyio.to_thread.run_sync(partial(sorted_entries, catalog.entries, self.export_folder, places))
        if not entries.albums:
            raise _nothing_to_claim(self.settings, entries)
        made, facts = await anyio.to_thread.run_sync(derived_entries, catalog.entries, self.places, entries)
        self.total = sum(len(album.paths) for album in entries.albums)
        self.total += sum(len(paths) for stages in made.values() for paths in stages.values())
        with_rows = {stage for stages in (*made.values(), *facts.values()) for stage in stages}
        new = self.state_db.with_name(f".{self.state_db.name}.rebuilding")
        await anyio.to_thread.run_sync(_fresh_place, new)
        try:
            rebuilt = await self._make(new, catalog.entries, entries, places, salvaged, made, facts)
            kept_as = await anyio.to_thread.run_sync(_take_place, new, self.state_db, label)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, new)
            raise
        unknown = await anyio.to_thread.run_sync(self._unknown)
        return RebuildReport(
            state_db=self.state_db,
            kept_as=kept_as,
            runs=tuple(rebuilt),
            albums=len(entries.albums),
            claimed=self.claimed,
            bytes=self.bytes,
            gone=tuple(self.gone),
            differing=tuple(self.differing),
            unclaimed=tuple(entries.unclaimed),
            unknown=tuple(unknown),
            stages=tuple(stage for stage in self.places.order if stage in with_rows),
            stage_files=self.stage_files,
            seconds=time.monotonic() - began,
        )

    async def _label_of_old(self) -> str:
        """Under what name the old database is set aside, empty where there is none. Raises for one that is sound."""
        try:
            async with await Store.open_to_read(self.state_db) as store:
                row = await store.one("integrity")
                if row is None or row[0] != "ok":
                    return "corrupt"
                known = len(await runs.listing(store))
        except NoState:
            there = await anyio.to_thread.run_sync(os.path.lexists, self.state_db)
            return "replaced" if there else ""
        except StateTooNew:
            if self.force:
                return "replaced"
            raise
        except StateDamaged as damaged:
            if type(damaged) is StateDamaged or self.force:
                return "corrupt"
            raise
        if known and not self.force:
            raise UsageError(
                f"The state database {self.state_db} is sound; it knows {known} run{'s' if known != 1 else ''}. "
                "Nothing was touched.",
                next_step="`skicyclerun rebuild-state --force` keeps it under another name and makes a new one.",
            )
        return "replaced"

    def _catalog(self) -> CatalogReading:
        path = self.settings.paths.master_catalog
        catalog = read_catalog(path)
        problem = catalog.problem or ("" if catalog.exists else "it is not there")
        if problem:
            raise StorageError(
                f"{path} cannot be used ({problem}), and without it nobody knows which photo a file is. "
                "Nothing was touched.",
                next_step="If a copy of it is to be had, put it there (`skicyclerun archive list` shows the archives, "
                "each holds one). Otherwise `skicyclerun run` exports anew, and archives what is there first.",
            )
        return catalog

    async def _make(
        self,
        new: Path,
        entries: Mapping[str, Any],
        found: SortedEntries,
        places: Mapping[SourceKind, str],
        salvaged: Sequence[SalvagedRun],
        made_by: DerivedEntries,
        facts: Mapping[str, Collection[str]],
    ) -> list[int]:
        """Fill the new database; one run for each kind of source, the one with the most albums last."""
        by_kind = Counter(album.kind for album in found.albums)
        made = []
        async with await Store.open(new) as store:
            for kind, _ in reversed(by_kind.most_common()):
                ours = [album for album in found.albums if album.kind is kind]
                stages = {stage for album in ours for stage in (*made_by[album.folder], *facts.get(album.folder, ()))}
                run = await rebuild(
                    store,
                    source_kind=kind,
                    source_location=places[kind],
                    options=_true_of(_options(self.settings, kind, salvaged), ours, entries),
                    found=[RebuiltAlbum(album.album, album.folder) for album in ours],
                    photos_of=self._photos_of(ours, entries, found.unclaimed),
                    stages=[stage for stage in self.places.order if stage in stages],
                    made_by_stages=self._made_by_stages(ours, entries, made_by, facts, found.unclaimed),
                    reason=REASON,
                )
                made.append(run.id)
            await left_out.put_back(store, self._left_out(places))
        return made

    def _left_out(self, places: Mapping[SourceKind, str]) -> list[LeftOutPhoto]:
        """What somebody has left out, by the old database or, where that cannot say it, by the copy beside it."""
        known = left_out.salvage(self.state_db)
        if known is None:
            known = left_out.read_copy(left_out.copy_beside(self.state_db))
        now = {kind.value: place for kind, place in places.items()}
        return [replace(photo, source_location=now.get(photo.source_kind, photo.source_location)) for photo in known]

    async def _photos_of(
        self, found: Sequence[AlbumEntries], entries: Mapping[str, Any], unclaimed: list[tuple[str, str]]
    ) -> AsyncIterator[list[RebuiltPhoto]]:
        """The photos of each album, their files read and compared on all cores. One album at a time is in memory."""
        for album in found:
            records = without_repetitions(records_at(album.paths, entries), unclaimed)
            told = [ToldFile(record.file_name, record.facts.size, record.facts.sha256) for record in records]
            files = await self._looked_for(self.export_folder / album.folder, told)
            yield [
                photo
                for record, file in zip(records, files, strict=True)
                if (photo := self._rebuilt(album, record, file)) is not None
            ]

    async def _looked_for(self, folder: Path, told: Sequence[ToldFile]) -> list[FoundFile]:
        """One answer for each file of an album, in their order."""
        batches = [told[start : start + _BATCH] for start in range(0, len(told), _BATCH)]
        results: list[list[FoundFile]] = [[] for _ in batches]

        async def look(number: int) -> None:
            batch = batches[number]
            results[number] = await anyio.to_thread.run_sync(
                look_at, folder, batch, limiter=self.limiter, abandon_on_cancel=True
            )
            self.looked_at += len(batch)
            if self.advance is not None:
                self.advance(self.looked_at, self.total)

        async with anyio.create_task_group() as looking:
            for number in range(len(batches)):
                looking.start_soon(look, number)
        return [each for batch in results for each in batch]

    def _is_claimed(self, path: str, file: FoundFile, size: int) -> bool | None:
        """True: it is there; False: it is gone; None: it is another file, which nobody claims."""
        if file.differs:
            self.differing.append((path, file.differs))
            return None
        if file.mtime_ns is None:
            self.gone.append(path)
            return False
        self.bytes += size
        return True

    def _rebuilt(self, album: AlbumEntries, record: CatalogRecord, file: FoundFile) -> RebuiltPhoto | None:
        path = str(self.export_folder / album.folder / record.file_name)
        self.known[self.export_folder].add(album.folder, record.file_name)
        claimed = self._is_claimed(path, file, record.facts.size)
        if claimed is None:
            return None
        if claimed:
            self.claimed += 1
            self.there.setdefault(album.folder, set()).add(record.file_name)
        return RebuiltPhoto(
            photo=Photo(record.photo_id, record.original_filename, record.component, record.fingerprint),
            file_name=record.file_name,
            facts=None if file.mtime_ns is None else replace(record.facts, mtime_ns=file.mtime_ns),
            exported_at=record.export_timestamp,
            reason="" if claimed else _GONE,
        )

    # ── what stages made ──────────────────────────────────────────────────────────────────────────────────────────

    async def _made_by_stages(
        self,
        found: Sequence[AlbumEntries],
        entries: Mapping[str, Any],
        made_by: DerivedEntries,
        facts: Mapping[str, Collection[str]],
        unclaimed: list[tuple[str, str]],
    ) -> AsyncIterator[RebuiltStageAlbum]:
        """What each stage made of each album, one at a time."""
        for number, album in enumerate(found, start=1):
            for stage in self.places.order:
                pictures: list[RebuiltPicture] = []
                if stage in self.places.stages:
                    told = derived_at(made_by[album.folder].get(stage, ()), entries, unclaimed)
                    pictures = await self._pictures(stage, album.folder, told)
                elif stage in facts.get(album.folder, ()):
                    pictures = self._facts(stage, album, entries)
                if pictures:
                    yield RebuiltStageAlbum(stage, album.folder, number, album.album.path, pictures)

    async def _pictures(self, stage: str, folder: str, records: Sequence[DerivedRecord]) -> list[RebuiltPicture]:
        place = self.places.stages[stage]
        known = self.known.setdefault(place.folder, KnownFiles())
        told = [ToldFile(record.file_name, record.size, record.sha256) for record in records]
        pictures = []
        for record, file in zip(records, await self._looked_for(place.folder / folder, told), strict=True):
            known.add(folder, record.file_name)
            claimed = self._is_claimed(str(place.folder / folder / record.file_name), file, record.size)
            if claimed is None:
                continue
            self.stage_files += claimed
            pictures.append(
                RebuiltPicture(
                    input=StageInput(
                        os.path.basename(record.source_path),
                        record.input_sha256,
                        size=0,
                        mtime_ns=0,
                        photo=os.path.basename(record.original_path),
                        variant=record.variant,
                    ),
                    depends=record.depends,
                    made_at=record.made_at,
                    facts=record.facts,
                    file_name=record.file_name,
                    size=record.size,
                    sha256=record.sha256,
                    mtime_ns=file.mtime_ns,
                    width=record.width,
                    height=record.height,
                    note=record.note,
                    reason="" if claimed else _GONE,
                )
            )
        return pictures

    def _facts(self, stage: str, album: AlbumEntries, entries: Mapping[str, Any]) -> list[RebuiltPicture]:
        there = self.there.get(album.folder, set())
        pictures: dict[str, RebuiltPicture] = {}
        for record in records_at(album.paths, entries):
            said = next((each for each in record.stages if each.stage == stage), None)
            if said is not None and record.file_name in there:
                taken = StageInput(record.file_name, said.input_sha256, 0, 0, record.file_name)
                pictures.setdefault(record.file_name, RebuiltPicture(taken, said.depends, said.made_at, said.facts))
        return list(pictures.values())

    def _unknown(self) -> list[str]:
        found = []
        for folder, known in self.known.items():
            above = "" if folder == self.export_folder else str(folder)
            found += [os.path.join(above, each.folder, each.name) for each in known.strangers(folder)]
        return found


# ── files as the catalog tells of them ────────────────────────────────────────────────────────────────────────────


def look_at(folder: Path, told: Sequence[ToldFile]) -> list[FoundFile]:
    """One answer for each file, in their order. Symbolic links are not followed; nothing is raised for a file."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return [FoundFile(None, "its folder is no folder but a link or a file") for _ in told]
    except FileNotFoundError:
        return [FoundFile(None) for _ in told]
    except OSError as error:
        return [FoundFile(None, f"its folder cannot be looked at: {error.strerror or error}") for _ in told]
    return [_look_at_one(folder / each.name, each) for each in told]


def _look_at_one(path: Path, told: ToldFile) -> FoundFile:
    try:
        if "/" in told.name and path.parent.is_symlink():
            return FoundFile(None, f"a symbolic link stands in the place of the folder {path.parent.name!r}")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return FoundFile(None)
        if error.errno == errno.ELOOP:
            return FoundFile(None, "a symbolic link stands in its place")
        return FoundFile(None, f"it cannot be read: {error.strerror or error}")
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return FoundFile(None, "something that is no file stands in its place")
        if found.st_size != told.size:
            return FoundFile(None, f"{found.st_size:,} bytes; the catalog says {told.size:,}")
        try:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            return FoundFile(None, f"it cannot be read: {error.strerror or error}")
    if digest != told.sha256:
        return FoundFile(None, "its bytes are not those that the catalog names")
    return FoundFile(found.st_mtime_ns)


# ── where the photos came from ────────────────────────────────────────────────────────────────────────────────────


def _salvaged(state_db: Path) -> list[SalvagedRun]:
    """The runs of the old database, or of the newest one that was set aside as damaged and can still be read."""
    aside = [
        path
        for path in state_db.parent.glob(f"{glob.escape(state_db.name)}.corrupt-*")
        if not path.name.endswith(("-wal", "-shm"))
    ]
    for database in (state_db, *sorted(aside, reverse=True)):
        if database.is_file() and (found := salvage_runs(database)):
            return found
    return []


def _places(settings: Settings, salvaged: Sequence[SalvagedRun], library_given: bool) -> dict[SourceKind, str]:
    """Where the photos of each kind of source came from; the catalog does not say.

    What was typed counts most, then the old database, then the configuration. Photos.app has one place only.
    """
    read = {run.source_kind: run.source_location for run in reversed(salvaged)}
    configured: dict[SourceKind, str] = {}
    export = settings.export
    if export.library is not None:
        try:
            configured[choose_kind(export.source, export.library)] = str(export.library)
        except UsageError:
            pass  # A library that does not go with the source; a run would say so.
    live = {SourceKind.APPLE_PHOTOS: _LIVE_SOURCE}
    return live | read | configured if library_given else live | configured | read


def _options(settings: Settings, kind: SourceKind, salvaged: Sequence[SalvagedRun]) -> Mapping[str, Any]:
    """The options of the run: those of the newest one that can still be read, else today's."""
    known = next((run.options for run in salvaged if run.source_kind is kind), None)
    if known is None:
        return options_of(settings).to_row()
    return {key: value for key, value in known.items() if key != REPAIR_OPTION}


def _true_of(
    options: Mapping[str, Any], found: Sequence[AlbumEntries], entries: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The options, without `strip_location` where some file is known to say where it was taken: an update would
    otherwise take all of them for stripped, and leave them so."""
    if not options.get("strip_location"):
        return options
    records = (record for album in found for record in records_at(album.paths, entries))
    if any(record.facts.location is not None or record.facts.place is not None for record in records):
        return {**options, "strip_location": False}
    return options


def _nothing_to_claim(settings: Settings, entries: SortedEntries) -> UsageError:
    path = settings.paths.master_catalog
    if any("nobody knows" in why for _, why in entries.unclaimed):
        return UsageError(
            f"{path} does not say which library the photos came from, and there is no old state to ask. "
            "Nothing was touched.",
            next_step="Name it: `skicyclerun rebuild-state --library PATH`.",
        )
    return UsageError(
        f"{path} holds no entry of an exported file in {settings.paths.apple_photos_export}; there is nothing to "
        "rebuild from. Nothing was touched."
    )


# ── the file of the database ──────────────────────────────────────────────────────────────────────────────────────


def _fresh_place(new: Path) -> None:
    """The folder made, and what an attempt that was stopped left there removed. Raises NotWritable."""
    try:
        make_directories(new.parent)
        _remove(new)
    except OSError as error:
        raise NotWritable(
            f"{new.parent} cannot be written ({error.strerror or error}). Nothing was touched.",
            next_step="Check the disk and the folder's permissions.",
        ) from error


def _remove(new: Path) -> None:
    for companion in ("", "-wal", "-shm"):
        Path(f"{new}{companion}").unlink(missing_ok=True)


def _take_place(new: Path, state_db: Path, label: str) -> Path | None:
    """Set the old database aside and give the new one its name; both are durable on return."""
    into_one_file(new)
    sync_files([new])
    kept_as = set_aside(state_db, label) if label else None
    if not label:
        # A log without its database would be taken for the new one's.
        orphans = [Path(f"{state_db}{companion}") for companion in ("-wal", "-shm")]
        if any(os.path.lexists(orphan) for orphan in orphans):
            kept_as = set_aside(state_db, "replaced")
    os.replace(new, state_db)
    sync_directory(state_db.parent)
    return kept_as
