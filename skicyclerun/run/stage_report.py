"""What came of the stages after the export: a line an album, a column a stage; the details of one; and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from skicyclerun.stages.names import STAGE_OUTPUTS
from skicyclerun.state import albums, stage_albums, stage_pictures
from skicyclerun.state.albums import Accounting, AlbumRow, Changes
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.runs import RunRow
from skicyclerun.state.stage_albums import StageAlbumRow, StageCounts
from skicyclerun.state.stage_pictures import PictureStatus, StagePictureRow
from skicyclerun.wording import aligned, bytes_in_words, column_widths, counted, printable, seconds_in_words

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries

#: So many pictures that were not made are named for an album, unless all are asked for.
NAMED_PER_ALBUM: Final = 20

_STATUS_WORDS: Final = {AlbumStatus.EXPORTING: "at work"}


_Counts = TypeVar("_Counts", Accounting, Changes, StageCounts)


def summed(kind: type[_Counts], every: Sequence[_Counts]) -> _Counts:
    """The counts of several albums together."""
    return kind(**{each.name: sum(getattr(counts, each.name) for counts in every) for each in fields(kind)})


def known(row: object, *names: str) -> dict[str, Any]:
    """The attributes of a row by name, those that are None left out."""
    values = {name: getattr(row, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class StageAlbumReport:
    """An album in a stage. `row` None: the run has not come to it."""

    folder: str
    title: str
    row: StageAlbumRow | None
    counts: StageCounts
    pictures: tuple[StagePictureRow, ...]
    """All of them if asked for, otherwise those that failed."""

    @property
    def status(self) -> AlbumStatus:
        return self.row.status if self.row is not None else AlbumStatus.PENDING


@dataclass(frozen=True, slots=True)
class StageReport:
    """A stage over all albums: of each the newest row up to the run that is reported on."""

    name: str
    albums: tuple[StageAlbumReport, ...]
    run_id: int
    in_run: bool
    """The stage belongs to the run that is reported on; what is not of it was made by an earlier one."""
    folder: Path | None = None
    """Of its album folders, where it makes files and that is known."""

    @property
    def totals(self) -> StageCounts:
        return summed(StageCounts, [album.counts for album in self.albums])

    @property
    def made(self) -> int:
        """Pictures that the run made; the others were up to date."""
        return sum(album.row.made for album in self.albums if album.row is not None and album.row.run_id == self.run_id)

    @property
    def failed_here(self) -> bool:
        """Whether an album failed in the run that is reported on."""
        return any(
            album.status is AlbumStatus.FAILED and album.row is not None and album.row.run_id == self.run_id
            for album in self.albums
        )

    @property
    def only_waits(self) -> bool:
        """Whether nothing is wrong with its failed albums but that pictures have not come to it."""
        failed = [album for album in self.albums if album.status is AlbumStatus.FAILED]
        return all(album.counts.waiting and not album.counts.failed and not album.counts.planned for album in failed)


async def build_stage_reports(
    store: Queries, run: RunRow, exported: Sequence[AlbumRow], stage_folders: Mapping[str, Path], *, with_photos: bool
) -> tuple[StageReport, ...]:
    """The stages that the run has, and those that ran before it, in pipeline order. `exported`: the run's albums."""
    emptied = await stage_albums.emptied(store)
    latest = [
        row
        for row in await stage_albums.latest(store, run.id)
        # What an earlier run made and a cleanup has put away since is to be made anew.
        if row.run_id == run.id or (row.stage, row.folder) not in emptied
    ]
    names = _in_order({row.stage for row in latest} | set(run.stages) - {"cleanup", "export"}, run.stages)
    folders = {row.folder: row.album.path for row in exported} or {
        row.folder: row.album.path for row in await albums.with_files(store)
    }
    reports = []
    for name in names:
        rows = {row.folder: row for row in latest if row.stage == name}
        found = [
            await _album_report(store, folder, title, rows.get(folder), with_photos=with_photos)
            for folder, title in folders.items()
        ]
        reports.append(StageReport(name, tuple(found), run.id, name in run.stages, stage_folders.get(name)))
    return tuple(reports)


async def _album_report(
    store: Queries, folder: str, title: str, row: StageAlbumRow | None, *, with_photos: bool
) -> StageAlbumReport:
    if row is None:
        return StageAlbumReport(folder, title, None, StageCounts(0, 0, 0, 0, 0, 0), ())
    # While it is at work its counts are those of now; afterwards those it ended with, for its rows move on.
    counts = await stage_albums.accounting(store, row) if row.status is AlbumStatus.EXPORTING else row.at_end
    pictures: Sequence[StagePictureRow] = ()
    if with_photos or counts.failed:
        pictures = await stage_pictures.of_album(store, row.id)
        if not with_photos:
            pictures = [picture for picture in pictures if picture.status is PictureStatus.FAILED]
    return StageAlbumReport(folder, title, row, counts, tuple(pictures))


def _in_order(names: set[str], run: Sequence[str]) -> list[str]:
    """In pipeline order; a stage of the user's own comes where the run has it, else last."""
    rank: dict[str, float] = {name: number for number, name in enumerate(STAGE_OUTPUTS)}
    for before, name in pairwise(run):
        rank.setdefault(name, rank.get(before, len(rank)) + 0.5)
    return sorted(names, key=lambda name: (rank.get(name, len(rank)), name))


# ── as JSON ───────────────────────────────────────────────────────────────────────────────────────────────────────


def stages_as_json(reports: Sequence[StageReport], *, with_photos: bool) -> list[dict[str, Any]]:
    """For other programs; keys are stable."""
    return [
        {
            "name": report.name,
            "in_run": report.in_run,
            "made": report.made,
            "totals": {"albums": len(report.albums), **_counts_json(report.totals)},
            "albums": [_album_json(album, with_photos=with_photos) for album in report.albums],
        }
        for report in reports
    ]


def _counts_json(counts: StageCounts) -> dict[str, int]:
    told = known(counts, "expected", "done", "failed", "left_out", "waiting", "bytes")
    return told | {"pending": counts.planned}


def _album_json(album: StageAlbumReport, *, with_photos: bool) -> dict[str, Any]:
    row = album.row
    known: dict[str, Any] = {
        "folder": album.folder,
        "title": album.title,
        "status": album.status.value if row is not None else None,
        **_counts_json(album.counts),
    }
    if row is not None:
        known |= {
            "run": row.run_id,
            "made": row.made,
            "attempts": row.attempts,
            "reason": row.reason,
            "seconds": round(row.seconds, 3),
            "started_at": row.started_at,
            "ended_at": row.ended_at,
            "pictures" if with_photos else "not_made": [_picture_json(picture) for picture in album.pictures],
        }
    return known


def _picture_json(picture: StagePictureRow) -> dict[str, Any]:
    told = known(picture, "photo", "input", "status", "attempts", "size", "sha256", "seconds")
    texts = known(picture, "variant", "file_name", "reason", "note")
    return told | {name: text for name, text in texts.items() if text}


# ── as text ───────────────────────────────────────────────────────────────────────────────────────────────────────


def stage_lines(
    reports: Sequence[StageReport], exported: Sequence[tuple[str, str]], *, with_photos: bool, width: int | None
) -> Iterator[str]:
    """A line an album, a column a stage; below an album what failed in it. `exported`: (folder, export in words)."""
    if not reports:
        return
    cells_of_export = dict(exported)
    header = ("Album", "export", *(report.name for report in reports))
    rows = [
        (
            _with_folder(first),
            cells_of_export.get(first.folder, "-"),
            *(_cell(report.albums[number]) for report in reports),
        )
        for number, first in enumerate(reports[0].albums)
    ]
    widths = column_widths(header, rows)
    narrow = width is not None and sum(widths) + 2 * (len(widths) - 1) > width
    if not narrow:
        yield aligned(header, widths, left=len(header))
    for number, row in enumerate(rows):
        if narrow:
            yield row[0]
            yield from (f"    {name}: {cell}" for name, cell in zip(header[1:], row[1:], strict=True))
        else:
            yield aligned(row, widths, left=len(row))
        for report in reports:
            yield from _album_lines(report.name, report.albums[number], with_photos=with_photos)
    yield ""
    for report in reports:
        yield _summary(report)


def _with_folder(album: StageAlbumReport) -> str:
    """The title, and the folder it lies in where that is not called like it: two albums may have one title."""
    plain = album.title.rpartition("/")[2] == album.folder
    return printable(album.title if plain else f"{album.title} [{album.folder}]")


def _cell(album: StageAlbumReport) -> str:
    counts, row = album.counts, album.row
    if row is None:
        return "-"
    if row.status is AlbumStatus.DONE:
        left_out = f" ({counts.left_out} left out)" if counts.left_out else ""
        return f"done {counts.done}{left_out}"
    word = _STATUS_WORDS.get(row.status, row.status.value)
    return f"{word} {counts.done + counts.left_out}/{counts.expected}" if row.expected is not None else word


def _album_lines(stage: str, album: StageAlbumReport, *, with_photos: bool) -> Iterator[str]:
    row = album.row
    if row is None:
        return
    if row.reason:
        yield f"    {stage}: {printable(row.reason)}"
    named = album.pictures if with_photos else album.pictures[:NAMED_PER_ALBUM]
    for picture in named:
        yield f"    {stage}: {picture.status.value.replace('_', ' '):<8}  {_picture_in_words(picture)}"
    if len(named) < len(album.pictures):
        yield f"    … and {len(album.pictures) - len(named)} more (`skicyclerun status --photos` names all)"


def _picture_in_words(picture: StagePictureRow) -> str:
    what = printable(picture.input)
    if picture.reason:
        return f"{what}: {printable(picture.reason)}"
    made = f"{what} → {printable(picture.file_name)}" if picture.file_name else what
    return f"{made} ({printable(picture.note)})" if picture.note else made


def _summary(report: StageReport) -> str:
    done = sum(album.status is AlbumStatus.DONE for album in report.albums)
    totals = report.totals
    parts = [f"{done} of {counted(len(report.albums), 'album')} done", f"{totals.done} of {totals.expected} pictures"]
    if totals.bytes:
        parts[-1] += f" ({bytes_in_words(totals.bytes)})"
    if report.in_run:
        parts.append(f"{report.made} made in this run")
    parts += [
        f"{number} {word}"
        for number, word in (
            (totals.failed, "failed"),
            (totals.waiting, "waiting for the stage before"),
            (totals.left_out, "left out"),
        )
        if number
    ]
    return f"{report.name}: {', '.join(parts)}."


def stage_details(report: StageReport, *, with_photos: bool, width: int | None) -> Iterator[str]:
    """One stage album by album, for `status --stage NAME`."""
    header = ("Album", "Status", "Expected", "Done", "Made", "Failed", "Waiting", "Left out", "Tries", "Time", "Size")
    rows = [_details(album) for album in report.albums]
    widths = column_widths(header, rows)
    narrow = width is not None and sum(widths) + 2 * (len(widths) - 1) > width
    yield f"Stage {report.name}"
    yield ""
    if not narrow:
        yield aligned(header, widths, left=2)
    for album, row in zip(report.albums, rows, strict=True):
        if narrow:
            yield row[0]
            facts = (f"{cell} {name.lower()}" for name, cell in zip(header[2:8], row[2:8], strict=True) if cell != "0")
            yield f"    {', '.join((row[1], *facts, *row[9:]))}"
        else:
            yield aligned(row, widths, left=2)
        yield from _album_lines(report.name, album, with_photos=with_photos)
    yield ""
    yield _summary(report)


def _details(album: StageAlbumReport) -> tuple[str, ...]:
    counts, row = album.counts, album.row
    status = _STATUS_WORDS.get(album.status, album.status.value) if row is not None else "not begun"
    return (
        printable(album.title),
        status,
        str(counts.expected),
        str(counts.done),
        str(row.made if row is not None else 0),
        str(counts.failed),
        str(counts.waiting),
        str(counts.left_out),
        str(row.attempts if row is not None else 0),
        seconds_in_words(row.seconds if row is not None else 0.0),
        bytes_in_words(counts.bytes),
    )
