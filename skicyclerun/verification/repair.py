"""What `verify --repair` does with exported files: decides what is fetched again, keeps what stood there, and puts
times back. What stages made: repair_stages.py.

The photos themselves are exported by a run like any other (state/repairs.py); the catalog is written by its cataloger.
Nothing is destroyed: whatever stands under a name that is written anew is kept in the archive folder first.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from skicyclerun.errors import SourceError
from skicyclerun.files.atomic_files import make_directories, sync_directory, sync_files
from skicyclerun.files.naming import collision_key
from skicyclerun.models import Album, Photo, SourceKind
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import Source
from skicyclerun.state import albums
from skicyclerun.state.photos import PhotoPlan, PhotoRow
from skicyclerun.state.repairs import AlbumToRepair
from skicyclerun.state.store import Row, Store
from skicyclerun.verification.report import EXPORTED_AGAIN, Finding, VerificationReport

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _AlbumRows:
    album: Album
    folder: str
    rows: list[Row] = field(default_factory=list)
    whole: bool = False
    """Its photos were never planned."""


@dataclass(frozen=True, slots=True)
class SourceRepair:
    """What has to be fetched again from one source."""

    kind: SourceKind
    location: str
    options: str
    """JSON, of the newest run whose photos are among them. All their runs had the same export settings: the new files
    come out as the old ones did."""
    albums: tuple[_AlbumRows, ...]

    @property
    def names(self) -> list[tuple[int, str, str]]:
        """(row, album folder, file name) of all that is fetched again."""
        return [(row["id"], album.folder, row["file_name"]) for album in self.albums for row in album.rows]


async def rows_of(store: Store, row_ids: Iterable[int]) -> list[Row]:
    """Photo rows with their albums and runs, by the order of runs, albums and photos."""
    return await store.all("photos_by_ids", {"ids": json.dumps(sorted(row_ids))})


async def plan_repair(store: Store, report: VerificationReport, removed: Collection[int] = ()) -> list[SourceRepair]:
    """What a report says is broken or was never exported, by source and by the export settings it was made with.

    `removed`: rows that are to stay as they are.
    """
    wanted = {p.row_id for p in report.problems if p.finding in EXPORTED_AGAIN and p.row_id is not None and not p.stage}
    wanted -= set(removed)
    sources: dict[tuple[str, str, ExportOptions], dict[str, _AlbumRows]] = {}
    options: dict[tuple[str, str, ExportOptions], str] = {}
    for row in await rows_of(store, wanted):
        place = _made_with(row)
        options[place] = row["options"]
        album = Album(row["album_id"], row["title"], tuple(json.loads(row["folder_path"])))
        into = sources.setdefault(place, {}).setdefault(album.id, _AlbumRows(album, row["folder"]))
        if into.folder == row["folder"]:
            into.rows.append(row)
    unfinished = {p.folder for p in report.problems if p.finding is Finding.ALBUM_UNFINISHED and not p.stage}
    if unfinished:
        base = await store.one("run_by_id", {"id": report.run_id})
        assert base is not None
        place = _made_with(base)
        for found in await albums.listing(store, report.run_id):
            if found.folder in unfinished and found.expected is None:
                options.setdefault(place, base["options"])
                sources.setdefault(place, {}).setdefault(
                    found.album.id, _AlbumRows(found.album, found.folder, whole=True)
                )
    return [
        SourceRepair(SourceKind(place[0]), place[1], options[place], tuple(found.values()))
        for place, found in sources.items()
    ]


def _made_with(row: Row) -> tuple[str, str, ExportOptions]:
    """The source of a run, and the settings of its export."""
    return row["source_kind"], row["source_location"], ExportOptions.from_row(json.loads(row["options"]))


async def albums_to_repair(repair: SourceRepair, source: Source, refused: set[int]) -> list[AlbumToRepair]:
    """The albums of the run that repairs, each photo under the name it had. `refused`: rows to leave as they are."""
    found = []
    for album in repair.albums:
        if album.whole:
            found.append(AlbumToRepair(album.album, album.folder, None))
            continue
        now = await _photos_now(source, album.album)
        plans: dict[tuple[str, str], PhotoPlan] = {}
        names: set[str] = set()
        for row in album.rows:
            known = PhotoRow.of(row)
            key, name = (known.photo.id, known.photo.component.value), collision_key(known.file_name)
            if known.id in refused or key in plans or name in names:
                continue
            names.add(name)
            plans[key] = PhotoPlan(now.get(key, known.photo), known.file_name)
        if plans:
            found.append(AlbumToRepair(album.album, album.folder, tuple(plans.values())))
    return found


async def _photos_now(source: Source, album: Album) -> dict[tuple[str, str], Photo]:
    """The album's photos as the source has them today; none where it has the album no more."""
    try:
        listed = await source.photos(album.id)
    except SourceError as error:
        log.info("album %s cannot be listed: %s", album.path, error)
        return {}
    return {(photo.id, photo.component.value): photo for photo in listed}


def removed_by_hand(report: VerificationReport) -> set[int]:
    """Rows of exported files that are missing from an album's folder which is there. Blocks.

    Where `export.removed_files` is `leave_out`, somebody has removed them, and the next update leaves them out.
    """
    missing = [p for p in report.problems if p.finding is Finding.MISSING and p.row_id is not None and not p.stage]
    there = {folder: (report.export_folder / folder).is_dir() for folder in {p.folder for p in missing}}
    return {p.row_id for p in missing if p.row_id is not None and there[p.folder]}


async def rows_left_out(store: Store, report: VerificationReport) -> set[int]:
    """Rows of what is broken whose photos somebody has left out: nothing of them is exported again."""
    broken = [p for p in report.problems if p.finding in EXPORTED_AGAIN and not p.stage]
    ids = json.dumps([p.row_id for p in broken if p.row_id is not None])
    return {row["id"] for row in await store.all("left_out_rows", {"ids": ids})}


@dataclass(slots=True)
class KeptFiles:
    """What stood under names that are written anew, kept aside in a folder of the archive."""

    folder: Path
    count: int = 0
    notes: list[str] = field(default_factory=list)
    """What could not be kept, in sentences."""

    async def keep(self, names: Sequence[tuple[int, str, str]], outputs: Path, below: str = "") -> set[int]:
        """Keep what stands under these names, as (row, album folder, file name), in `outputs`.

        `below`: a folder within this one. Returns the rows to be left alone: what stands there could not be kept, or a
        link stands in the place of the album's folder.
        """
        return await anyio.to_thread.run_sync(self._keep_all, names, outputs, self.folder / below)

    def _keep_all(self, names: Sequence[tuple[int, str, str]], outputs: Path, kept_folder: Path) -> set[int]:
        refused = set[int]()
        folders: set[Path] = set()
        for row_id, folder, name in names:
            path = outputs / folder / name
            try:
                # `name` may lie in a folder of its own below the album's.
                if not all(stat.S_ISDIR(each.lstat().st_mode) for each in {outputs / folder, path.parent}):
                    refused.add(row_id)
                    continue
                mode = path.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            target = _free_name(kept_folder / folder / name)
            try:
                make_directories(target.parent)
                _keep(path, mode, target)
            except OSError as error:
                refused.add(row_id)
                self.notes.append(
                    f"{path} could not be kept aside ({error.strerror or error}); it was left as it is and not made "
                    "again."
                )
                continue
            self.count += 1
            folders.add(target.parent)
        for each in folders:
            sync_directory(each)
        return refused


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name} ({number})")
    return free


def _keep(path: Path, mode: int, target: Path) -> None:
    """A second name for a file, or a copy where the archive is on another disk; the first one stays until replaced.

    A link is made again, a folder or anything else moved: a file cannot be renamed over it. Raises OSError.
    """
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(path), target)
    elif not stat.S_ISREG(mode):
        os.rename(path, target)
        sync_directory(path.parent)
    else:
        try:
            os.link(path, target, follow_symlinks=False)
        except OSError:
            shutil.copy2(path, target, follow_symlinks=False)
            sync_files([target])


def set_times(rows: Sequence[tuple[Path, int]]) -> tuple[int, list[str]]:
    """Give files whose bytes are right their photo's date again: (file, nanoseconds). Blocks.

    Returns how many, and what failed in sentences.
    """
    done, notes = 0, []
    for path, mtime_ns in rows:
        try:
            os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        except OSError as error:
            notes.append(f"{path} could not be given its date ({error.strerror or error}).")
        else:
            done += 1
    return done, notes
