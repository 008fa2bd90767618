"""The report on a run, album by album: built from rows, shown as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from skicyclerun.models import SourceKind
from skicyclerun.run.stage_report import (
    StageReport,
    build_stage_reports,
    known,
    stage_details,
    stage_lines,
    stages_as_json,
    summed,
)
from skicyclerun.state import albums, archive_copies, left_out, photos, runs
from skicyclerun.state.albums import Accounting, AlbumRow, Changes
from skicyclerun.state.archive_copies import CopyRow
from skicyclerun.state.archives import ArchiveRow
from skicyclerun.state.archives import of_run as archive_of_run
from skicyclerun.state.left_out import LeftOutPhoto
from skicyclerun.state.machine import AlbumStatus, ArchiveStatus, CopyStatus, RunStatus
from skicyclerun.state.photos import PhotoRow, PhotoStatus
from skicyclerun.state.runs import RunRow
from skicyclerun.wording import aligned, bytes_in_words, column_widths, counted, printable, seconds_in_words

if TYPE_CHECKING:
    from skicyclerun.settings.models import Settings
    from skicyclerun.state.reading import Queries

#: So many photos that were not exported are named per album, unless all are asked for.
NAMED_PER_ALBUM: Final = 20

#: So many archives that lie in a former second place are named.
NAMED_COPIES: Final = 3
#: What most go on with after an export.
_USUAL_STAGES: Final = ("metadata_extraction", "preprocessing", "watermarking")
_NOT_EXPORTED: Final = (PhotoStatus.FAILED, PhotoStatus.MISSING)


@dataclass(frozen=True, slots=True)
class AlbumReport:
    """An album, its counts, and the photos to be named."""

    row: AlbumRow
    counts: Accounting
    photos: tuple[PhotoRow, ...]
    """All of them if asked for, otherwise those that failed or are missing."""
    changes: Changes | None = None
    """What an update did with it; None of another run."""

    @property
    def expected(self) -> int:
        """Photos planned, or what the source's listing said where nothing is planned yet."""
        return self.row.album.photo_count if self.row.expected is None else self.row.expected


@dataclass(frozen=True, slots=True)
class EarlierFailures:
    """An earlier run, and how many of its albums have photos that neither it nor a later run exported.

    Only runs since the folders were last emptied; an album that a later run planned anew is that run's to report.
    """

    run_id: int
    albums: int


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run, its albums, and where things are."""

    run: RunRow
    albums: tuple[AlbumReport, ...]
    archive: ArchiveRow | None
    export_folder: Path
    running: str
    """Who works on it right now, empty if nobody does."""
    with_photos: bool
    files_present: int
    """Files of this run that rows still speak for; those archived, or exported anew by a later run, are not."""
    earlier_failures: tuple[EarlierFailures, ...]
    """Oldest run first."""
    is_latest: bool
    """No run was begun after it: it is the one that `retry-failed` means."""
    stages: tuple[StageReport, ...] = ()
    """The stages after the export, in pipeline order."""
    export_of_stages: tuple[tuple[str, str], ...] = ()
    """For each album folder of the stages how its export stands, in words."""
    left_out: tuple[LeftOutPhoto, ...] = ()
    """Photos of the run's source that somebody has left out by name, until they are taken in again."""
    copies: tuple[CopyRow, ...] = ()
    """In the second place for archives, where there is one: that of the run's archive, and all that are pending."""
    copies_in_other_places: tuple[CopyRow, ...] = ()
    """In places that are not the configured one now: those of the run's archive, and all that lie there alone."""

    @property
    def accounted_for(self) -> bool:
        """Whether every album of the run is done, in every stage of it."""
        exported = all(album.row.status is AlbumStatus.DONE for album in self.albums)
        staged = self.run.status is RunStatus.FINISHED and not any(report.failed_here for report in self.stages)
        return exported and (staged or not any(report.in_run for report in self.stages))

    def albums_with(self, *statuses: AlbumStatus) -> int:
        return sum(album.row.status in statuses for album in self.albums)

    @property
    def changes(self) -> Changes | None:
        """What an update did with all albums that it has come to; None of another run."""
        every = [album.changes for album in self.albums if album.changes is not None]
        return summed(Changes, every) if every else None

    @property
    def totals(self) -> Accounting:
        """Photos of all albums by status."""
        return summed(Accounting, [album.counts for album in self.albums])


async def build_report(
    store: Queries,
    run: RunRow,
    export_folder: Path,
    *,
    stage_folders: Mapping[str, Path] = MappingProxyType({}),
    remote: str | None = None,
    with_photos: bool = False,
    running: str = "",
) -> RunReport:
    """Read one run's report. Counts come from rows. `stage_folders`: where stages have their files; `remote`: the
    second place for archives."""
    counts = await albums.accounting_of_run(store, run.id)
    rows = await albums.listing(store, run.id)
    is_update = run.mode == "update" and "export" in run.stages and not run.options.get("repairs_run")
    # What it changed is counted from its rows, which must all be there.
    told = is_update and not any(row.forgotten for row in rows)
    changes = await albums.changes_of_run(store, run.id, counts) if told else {}
    reports = []
    for row in rows:
        accounted = counts[row.id]
        listed: list[PhotoRow] = []
        if with_photos or accounted.failed or accounted.missing:
            listed = await photos.of_album(store, row.id)
            if not with_photos:
                listed = [photo for photo in listed if photo.status in _NOT_EXPORTED]
        planned = row.expected is not None
        reports.append(AlbumReport(row, accounted, tuple(listed), changes.get(row.id) if planned else None))
    exported = [report.row for report in reports]
    latest = await runs.latest(store)
    stages = await build_stage_reports(store, run, exported, stage_folders, with_photos=with_photos)
    archive = await archive_of_run(store, run.id)
    copies = await archive_copies.of_remote(store, remote) if remote is not None else []
    elsewhere = await archive_copies.in_other_places(store, remote or "")
    confirmed = {copy.file for copy in copies if copy.status is not CopyStatus.PENDING}
    present = await store.one("present_of_run", {"run_id": run.id})
    return RunReport(
        run=run,
        albums=tuple(reports),
        archive=archive,
        export_folder=export_folder,
        running=running,
        with_photos=with_photos,
        files_present=present["files"] if present is not None else 0,
        earlier_failures=tuple(
            EarlierFailures(earlier["run_id"], earlier["albums"])
            for earlier in await store.all("earlier_failures", {"run_id": run.id})
        ),
        is_latest=latest is None or latest.id == run.id,
        stages=stages,
        export_of_stages=tuple([(row.folder, row.status.value) for row in exported or await albums.with_files(store)]),
        left_out=tuple(
            photo
            for photo in await left_out.listing(store)
            if (photo.source_kind, photo.source_location) == (run.source_kind.value, run.source_location)
        ),
        copies=tuple(
            copy
            for copy in copies
            if copy.status is CopyStatus.PENDING or (archive is not None and copy.file == archive.file)
        ),
        copies_in_other_places=tuple(
            copy
            for copy in elsewhere
            if (copy.status is CopyStatus.ONLY_THERE and copy.file not in confirmed)
            or (archive is not None and copy.file == archive.file)
        ),
    )


def stages_left(report: RunReport, settings: Settings, pipeline: Sequence[str]) -> tuple[str, ...]:
    """The stages after the export that come next: those of `pipeline` (`pipeline.stages` of the configuration) that the
    run did not have and that can be run here; where it names none, those that usually follow. Nothing while the run is
    unfinished.

    After a run without an export, not those before its last stage that have run earlier.
    """
    from skicyclerun.settings.later_stages import cannot_run, later_stages, section_of  # for a run, not for `status`

    run, known_stages = report.run, later_stages(settings)
    order = list(known_stages)
    last = max((order.index(name) for name in run.stages if name in order), default=-1)
    configured = [name for name in order if name in pipeline]
    before = {stage.name for stage in report.stages if not stage.in_run}

    def can_run(name: str) -> bool:
        """Whether this installation can, and there is, or could be, something for it to take."""
        stage = known_stages[name]
        has_input = stage.reads not in known_stages or stage.reads in {*before, *run.stages} or can_run(stage.reads)
        return cannot_run(stage) is None and has_input

    left = [
        name
        for name in configured or [each for each in _USUAL_STAGES if order.index(each) > last]
        if name not in run.stages
        and section_of(settings, known_stages[name]).enabled
        and can_run(name)
        and ("export" in run.stages or order.index(name) > last or name not in before)
    ]
    return () if run.unfinished else tuple(left)


async def build_latest_report(store: Queries, export_folder: Path) -> RunReport | None:
    """The report on the newest run, None where there is none."""
    run = await runs.latest(store)
    return await build_report(store, run, export_folder) if run else None


# ── as JSON ───────────────────────────────────────────────────────────────────────────────────────────────────────


def run_as_json(run: RunRow, *, running: bool) -> dict[str, Any]:
    """What a run was and how it stands, but for its number."""
    return {
        "status": run.status.value,
        "running": running,
        "mode": run.mode,
        "repairs_run": run.options.get("repairs_run"),
        "stages": list(run.stages),
        "source": {"kind": run.source_kind.value, "location": run.source_location},
        "selection": list(run.selection),
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "reason": run.reason,
    }


def as_json(report: RunReport) -> dict[str, Any]:
    """The report for other programs. Keys are stable; seconds, bytes, ISO 8601 UTC."""
    run, totals = report.run, report.totals
    return {
        "run": {"id": run.id, **run_as_json(run, running=bool(report.running))},
        "export_folder": str(report.export_folder),
        "files_present": report.files_present,
        "totals": {
            "albums": len(report.albums),
            **_counts_json(totals, totals.expected),
            **_changes_json(report.changes),
        },
        "albums": [_album_json(report, album) for album in report.albums],
        "earlier_failures": [{"run": earlier.run_id, "albums": earlier.albums} for earlier in report.earlier_failures],
        "left_out": [known(photo, "name", "photo_id", "component", "since") for photo in report.left_out],
        "archive": _archive_json(report.archive),
        "archive_copies": [
            known(copy, "file", "remote", "status", "name", "copied_at", "attempts", "reason")
            for copy in (*report.copies, *report.copies_in_other_places)
        ],
        "stages": stages_as_json(report.stages, with_photos=report.with_photos),
    }


def _counts_json(counts: Accounting, expected: int) -> dict[str, int]:
    told = known(counts, "exported", "failed", "missing", "left_out", "bytes")
    settled = counts.exported + counts.failed + counts.missing + counts.left_out
    return {"expected": expected, **told, "pending": max(expected - settled, 0)}


def _album_json(report: RunReport, album: AlbumReport) -> dict[str, Any]:
    row = album.row
    return {
        "id": row.album.id,
        "title": row.album.title,
        "path": row.album.path,
        "folder": row.folder,
        "status": row.status.value,
        **_counts_json(album.counts, album.expected),
        **_changes_json(album.changes),
        "attempts": row.attempts,
        "reason": row.reason,
        "seconds": round(row.seconds, 3),
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "photos" if report.with_photos else "not_exported": [_photo_json(photo) for photo in album.photos],
    }


def _changes_json(changes: Changes | None) -> dict[str, int]:
    """Of an update alone."""
    return known(changes, "found", "new", "replaced", "unchanged") if changes is not None else {}


def _photo_json(photo: PhotoRow) -> dict[str, Any]:
    told = known(photo, "file_name", "status", "attempts", "reason", "size", "sha256")
    return known(photo.photo, "id", "component", "original_filename") | told


def _archive_json(archive: ArchiveRow | None) -> dict[str, Any] | None:
    if archive is None:
        return None
    return {each: getattr(archive, each) for each in ("status", "file", "size", "files", "proved_at", "reason")}


# ── as text ───────────────────────────────────────────────────────────────────────────────────────────────────────

RUN_WORDS: Final = {
    RunStatus.ACTIVE: "unfinished",
    RunStatus.INTERRUPTED: "interrupted",
    RunStatus.FINISHED: "finished",
    RunStatus.ABANDONED: "given up for a later one",
}


def stage_as_text(report: RunReport, stage: str, *, width: int | None = None) -> str:
    """The details of one of its stages. Raises LookupError."""
    found = next((each for each in report.stages if each.name == stage), None)
    if found is None:
        raise LookupError(stage)
    return "\n".join(stage_details(found, with_photos=report.with_photos, width=width)) + "\n"


def as_text(report: RunReport, *, width: int | None = None, places: str = "") -> str:
    """The report for people. Every name is made safe for a terminal.

    `width`: columns of that terminal. Where the table is wider, each album has its facts on a line below its title:
    a table whose lines are broken by the terminal cannot be read. `places`: options for the commands to be typed next,
    with a space before them, where this one was told its lib_root or configuration.
    """
    return "\n".join(_lines(report, width, places)) + "\n"


def _lines(report: RunReport, width: int | None, places: str) -> Iterator[str]:
    run = report.run
    state = "running" if report.running else RUN_WORDS[run.status]
    if run.status is RunStatus.FINISHED and not report.accounted_for:
        state = "finished, with failures"
    because = f" ({printable(run.reason)})" if run.reason and not report.running else ""
    of = run.options.get("repairs_run")
    kind = f" (repairs run {of})" if of else " (update)" if run.mode == "update" else ""
    if not of and "export" not in run.stages:
        kind = " (stages)"
    yield f"Run {run.id}{kind}: {state}{because}. Begun {run.started_at[:19].replace('T', ' ')} UTC."
    yield f"Source: {run.source_kind.value}, {printable(run.source_location)}"
    yield ""
    if report.albums:
        yield from _table(report, width)
        yield ""
    if report.stages:
        yield from stage_lines(report.stages, report.export_of_stages, with_photos=report.with_photos, width=width)
        yield ""
    yield from _summary(report, places)


def _table(report: RunReport, width: int | None) -> Iterator[str]:
    changes = report.changes is not None
    told = ("Found", "New", "Replaced", "Unchanged") if changes else ("Expected", "Exported")
    left_out = report.totals.left_out > 0
    told = (*told, "Failed", "Missing", *(["Left out"] if left_out else []))
    header = ("Album", "Status", *told, "Tries", "Time", "Size")
    rows = [_cells(album, changes=changes, left_out=left_out) for album in report.albums]
    widths = column_widths(header, rows)
    narrow = width is not None and sum(widths) + 2 * (len(widths) - 1) > width
    if not narrow:
        yield aligned(header, widths, left=2)
    for album, row in zip(report.albums, rows, strict=True):
        if narrow:
            yield row[0]
            yield f"    {_facts(album)}"
        else:
            yield aligned(row, widths, left=2)
        if album.row.reason:
            yield f"    {printable(album.row.reason)}"
        yield from _photo_lines(report, album)


def _cells(album: AlbumReport, *, changes: bool, left_out: bool) -> tuple[str, ...]:
    counts, did = album.counts, album.changes
    told: tuple[str, ...] = (str(album.expected), str(counts.exported))
    if changes:
        told = (str(did.found), str(did.new), str(did.replaced), str(did.unchanged)) if did else ("-", "-", "-", "-")
    return (
        printable(album.row.album.path),
        album.row.status.value,
        *told,
        str(counts.failed),
        str(counts.missing),
        *([str(counts.left_out)] if left_out else []),
        str(album.row.attempts),
        seconds_in_words(album.row.seconds),
        bytes_in_words(counts.bytes),
    )


def _facts(album: AlbumReport) -> str:
    """An album's row of the table in words, for a terminal that is too narrow for it."""
    counts, row = album.counts, album.row
    facts = [row.status.value, f"{counts.exported} of {album.expected} exported"]
    facts += [_changes_in_words(album.changes)] if album.changes is not None else []
    others = ((counts.failed, "failed"), (counts.missing, "missing"), (counts.left_out, "left out"))
    facts += [f"{number} {word}" for number, word in others if number]
    facts += [f"{row.attempts} tries"] if row.attempts > 1 else []
    return ", ".join((*facts, seconds_in_words(row.seconds), bytes_in_words(counts.bytes)))


def _changes_in_words(changes: Changes) -> str:
    return f"{changes.new} new, {changes.replaced} replaced, {changes.unchanged} unchanged"


def _photo_lines(report: RunReport, album: AlbumReport) -> Iterator[str]:
    named = album.photos if report.with_photos else album.photos[:NAMED_PER_ALBUM]
    for photo in named:
        what, why = printable(photo.photo.original_filename), printable(photo.reason)
        if not why:
            why = f"{what} → {printable(photo.file_name)}"
        elif not why.startswith(what):
            why = f"{what}: {why}"
        yield f"    {photo.status.value.replace('_', ' '):<8}  {why}"
    if len(named) < len(album.photos):
        yield f"    … and {len(album.photos) - len(named)} more (`skicyclerun status --photos` names all)"


def _summary(report: RunReport, places: str) -> Iterator[str]:
    totals = report.totals
    expected = sum(album.expected for album in report.albums)
    done, failed = report.albums_with(AlbumStatus.DONE), report.albums_with(AlbumStatus.FAILED)
    waiting = len(report.albums) - done - failed
    parts = [
        f"{done} of {counted(len(report.albums), 'album')} done" if report.albums else "It has not come to its albums"
    ]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{waiting} pending"] if waiting else []
    if report.albums or "export" in report.run.stages:
        yield ", ".join(parts) + "."
    parts = [
        f"{totals.exported} of {counted(expected, report.run.counts_in)} exported ({bytes_in_words(totals.bytes)})"
    ]
    parts += [f"{totals.left_out} left out"] if totals.left_out else []
    parts += [f"{totals.missing} without an original here"] if totals.missing else []
    parts += [f"{totals.failed} failed"] if totals.failed else []
    if report.albums:
        yield ", ".join(parts) + "."
    if forgotten := sum(album.row.forgotten for album in report.albums):
        yield f"Of {counted(forgotten, 'exported photo')} `runs prune` has forgotten all but the figures."
    if report.changes is not None:
        yield f"Found {counted(report.changes.found, report.run.counts_in)}: {_changes_in_words(report.changes)}."
    if report.left_out:
        yield _left_out_in_words(report.left_out)
    archive = report.archive
    if archive is not None and archive.file:
        proved = f"proved {archive.proved_at[:19].replace('T', ' ')} UTC" if archive.proved_at else "not proved yet"
        files = counted(archive.files or 0, "file")
        yield f"Archive: {archive.file}, {bytes_in_words(archive.size or 0)}, {files}, {proved}."
    elif archive is not None and archive.status is ArchiveStatus.FAILED:
        yield f"Archive: failed. {printable(archive.reason)}"
    elif archive is not None:
        yield "Archive: nothing to archive." if archive.ended else "Archive: not proved yet."
    yield from copies_in_words(report)
    if totals.exported and not report.files_present:
        yield (
            "Its files are a later run's now, which took them over as they are or exported them anew; or they are no "
            "longer in the folders, but in an archive."
        )
    else:
        yield f"Results: {printable(str(report.export_folder))}"
    folders = {stage.folder: None for stage in report.stages if stage.folder is not None and stage.totals.done}
    for folder in folders:
        names = ", ".join(stage.name for stage in report.stages if stage.folder == folder)
        yield f"         {printable(str(folder))} ({names})"
    if report.earlier_failures:
        yield _earlier_in_words(report.earlier_failures)
    if totals.missing and not report.running and report.run.source_kind is not SourceKind.FOLDER:
        yield (
            "What has no original here comes once Photos has downloaded it, or the disk it lies on is connected. "
            '`"missing": "preview"` in `export` of the configuration, then `skicyclerun run --update`, takes the '
            'largest picture there is; `"skip"` leaves it out.'
        )
    if report.running:
        yield f"In progress: {report.running}."
    elif step := next_step(report):
        yield f"Next: `skicyclerun {step.arguments}{printable(places)}` {step.does}"


@dataclass(frozen=True, slots=True)
class NextStep:
    """What to type next, and what comes of it."""

    arguments: str
    """What follows `skicyclerun`."""
    does: str
    """The rest of a sentence that begins with the command."""


def next_step(report: RunReport) -> NextStep | None:
    """What carries on with the run, or mends what failed; None where nothing is to be done, or it is at work."""
    failed = report.albums_with(AlbumStatus.FAILED) + sum(stage.failed_here for stage in report.stages)
    if report.running:
        return None
    if report.run.unfinished:
        return NextStep("run --resume", "carries on.")
    if not failed:
        return None
    if not report.is_latest:
        return NextStep("run --update", "asks again for what is not exported yet.")
    if elsewhere := _stages_to_ask(report):
        return NextStep(
            f"run {elsewhere}",
            "makes what the stages wait for, and goes on with them; `retry-failed` would do only these stages again.",
        )
    return NextStep("retry-failed", "asks again for what failed, and for nothing else.")


def _left_out_in_words(photos: tuple[LeftOutPhoto, ...]) -> str:
    names = ", ".join(printable(photo.name) for photo in photos[:NAMED_PER_ALBUM])
    more = f" and {len(photos) - NAMED_PER_ALBUM} more" if len(photos) > NAMED_PER_ALBUM else ""
    return (
        f"Left out by hand, in every run: {counted(len(photos), 'photo')} ({names}{more}). `skicyclerun take-in` "
        "brings back what it is given."
    )


def copies_in_words(report: RunReport) -> Iterator[str]:
    """Where the run's archive lies besides, which archives are still to be copied, and which lie in a place that is no
    longer the configured one."""
    pending = [copy for copy in report.copies if copy.status is CopyStatus.PENDING]
    file = report.archive.file if report.archive is not None else ""
    for copy in (*report.copies, *report.copies_in_other_places):
        if copy.status is not CopyStatus.PENDING and copy.file == file:
            alone = ", and no longer here" if copy.status is CopyStatus.ONLY_THERE else ""
            former = ", which is not `cleanup.remote` now" if copy in report.copies_in_other_places else ""
            when = (copy.copied_at or "")[:19].replace("T", " ")
            yield f"         in {printable(copy.remote)}{former}{alone}: read back from there {when} UTC."
    if pending:
        have = "archive is" if len(pending) == 1 else "archives are"
        reason = next((copy.reason for copy in reversed(pending) if copy.reason), "")
        yield (
            f"{len(pending)} {have} not copied to {printable(pending[0].remote)} yet. "
            f"{printable(reason)}{' ' if reason else ''}`skicyclerun archive push` goes on with it."
        )
    alone_there = [copy for copy in report.copies_in_other_places if copy.status is CopyStatus.ONLY_THERE]
    for remote in dict.fromkeys(copy.remote for copy in alone_there):
        files = list(dict.fromkeys(copy.file for copy in alone_there if copy.remote == remote))
        shown = ", ".join(files[-NAMED_COPIES:]) + (" …" if len(files) > NAMED_COPIES else "")
        lie = "lies" if len(files) == 1 else "lie"
        yield (
            f"{counted(len(files), 'archive')} {lie} only in {printable(remote)}, which is not `cleanup.remote` now: "
            f"{shown}. To reach them, set it to that again."
        )


def _stages_to_ask(report: RunReport) -> str:
    """Options of a run that brings what this one's stages wait for; empty where a retry of this run can help.

    A retry does the stages of its run: it does not bring what an earlier run did not export or make.
    """
    if not all(stage.only_waits for stage in report.stages if stage.failed_here) or "export" in report.run.stages:
        return ""
    if report.earlier_failures:
        return f"--update --stages {','.join(('export', *_without_cleanup(report.run)))}"
    owing = [stage.name for stage in report.stages if not stage.in_run and stage.totals.failed]
    return f"--stages {','.join((*owing, *_without_cleanup(report.run)))}" if owing else ""


def _without_cleanup(run: RunRow) -> tuple[str, ...]:
    return tuple(stage for stage in run.stages if stage != "cleanup")


def _earlier_in_words(earlier: tuple[EarlierFailures, ...]) -> str:
    albums = sum(each.albums for each in earlier)
    ids = [str(each.run_id) for each in earlier]
    of = f"run {ids[0]}" if len(ids) == 1 else f"runs {', '.join(ids[:-1])} and {ids[-1]}"
    have = "still has" if albums == 1 else "still have"
    return (
        f"{counted(albums, 'album')} of {of} {have} photos that were not exported "
        f"(`skicyclerun status --run {ids[-1]}`)."
    )
