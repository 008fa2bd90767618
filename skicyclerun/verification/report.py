"""What `verify` found, album by album and stage by stage: the report, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from skicyclerun.wording import bytes_in_words, counted, printable, seconds_in_words

#: So many problems are named per album, unless all are asked for.
NAMED_PER_ALBUM: Final = 10


class Finding(StrEnum):
    """What can be wrong. The values are stable: they stand in `--json`."""

    MISSING = "missing"
    """The file is not there."""
    NOT_A_FILE = "not_a_file"
    """A symbolic link, a folder or a device stands in the place of the file, or a link in that of its folder."""
    UNREADABLE = "unreadable"
    """The disk or its permissions do not give it."""
    SIZE_DIFFERS = "size_differs"
    CONTENT_DIFFERS = "content_differs"
    """The SHA-256 is not that of the file that was exported or made."""
    TIME_DIFFERS = "time_differs"
    """The bytes are as exported; the modification time is no longer the photo's date."""
    DAMAGED = "damaged"
    """The bytes are as exported, and do not decode to their end."""
    POSITION_LOST = "position_lost"
    """The photo was exported with a GPS position, and the file does not say it."""
    DATE_LOST = "date_lost"
    """The photo was exported with a date, and the file does not say it."""
    NOT_EXPORTED = "not_exported"
    """A photo the album is expected to hold was not exported: failed, missing from the library, or not reached."""
    ALBUM_UNFINISHED = "album_unfinished"
    """The album is not done, and no photo of it says why."""
    UNKNOWN_FILE = "unknown_file"
    """Something in the export folder, or in a stage's, that no row knows. It is only named."""
    NO_ENTRY = "no_entry"
    """The catalog does not hold the file."""
    ENTRY_DIFFERS = "entry_differs"
    """The catalog names another SHA-256 or size than the database."""
    ENTRY_WITHOUT_FILE = "entry_without_file"
    """An entry of a file, exported or made by a stage, that is not there or that the database does not know."""
    POINTS_NOWHERE = "points_nowhere"
    """An entry of another program whose file is not there, or an entry that names as its source, or as made of it, a
    file that has no entry and is not there."""
    CATALOG_ABSENT = "catalog_absent"
    CATALOG_DAMAGED = "catalog_damaged"


#: What a repair has stages make again.
MADE_AGAIN: Final = frozenset({Finding.MISSING, Finding.NOT_A_FILE, Finding.UNREADABLE, Finding.SIZE_DIFFERS}) | {
    Finding.CONTENT_DIFFERS, Finding.DAMAGED,
}  # fmt: skip
#: What a repair exports again.
EXPORTED_AGAIN: Final = MADE_AGAIN | {Finding.POSITION_LOST, Finding.DATE_LOST, Finding.NOT_EXPORTED}
#: What a repair puts right by writing the catalog.
CATALOGED_AGAIN: Final = frozenset(
    {
        Finding.NO_ENTRY,
        Finding.ENTRY_DIFFERS,
        Finding.ENTRY_WITHOUT_FILE,
        Finding.POINTS_NOWHERE,
        Finding.CATALOG_ABSENT,
        Finding.CATALOG_DAMAGED,
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    finding: Finding
    folder: str
    """The album's folder; for unknown files the path of their folder below the export folder, or the stage's. Empty for
    the whole."""
    name: str
    """The file, or the photo's original name where it has no file; empty for the album or the catalog as a whole."""
    detail: str
    """A sentence for the person."""
    row_id: int | None = None
    """The photo row, or the stage's row, where there is one."""
    stage: str = ""
    """The stage that made the file; empty for the export and the catalog."""
    names: tuple[str, ...] = ()
    """Of an entry that points nowhere: the paths that it points to."""


@dataclass(frozen=True, slots=True)
class AlbumVerification:
    """One album folder: what was expected of it and what is wrong with it."""

    folder: str
    path: str
    """The title with the folders it lies in; that of the album as it was last exported."""
    status: str
    """Of the album's newest row: pending, exporting, done or failed."""
    expected: int
    """Photos planned, or what the source's listing said where nothing is planned yet."""
    exported: int
    """Of those, by rows: exported in the run or by a later repair."""
    left_out: int
    """Of those: left out by a setting."""
    files: int
    """Rows that speak for a file on disk, those of earlier runs in the same folder included; all were checked."""
    in_full: int
    """Files whose every byte was read."""
    problems: tuple[Problem, ...]

    @property
    def sound(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class StageVerification:
    """A stage after the export that has ever run, and what is wrong with its files."""

    stage: str
    folder: Path | None
    """Of its album folders; None for a stage that makes facts only, and for one whose folder is not known."""
    configured: bool
    """False: the configuration no longer says where its files are, so nothing was looked at."""
    files: int
    """Rows that speak for a file on disk; all were checked."""
    in_full: int
    """Files whose every byte was read."""
    facts: int
    """Pictures that it has entered facts of, which are in the database and the catalog alone."""
    problems: tuple[Problem, ...]
    """Its albums that are not done, its files, then strangers in its folder."""

    @property
    def sound(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Depth:
    """How closely to look. `share` of the files, or `count` of them, are read in full; `seed` picks which."""

    kind: Literal["quick", "sample", "full"] = "quick"
    share: float | None = None
    """0 to 1; `sample` only."""
    count: int | None = None
    """`sample` only, and instead of `share`."""
    seed: int = 0

    @property
    def in_words(self) -> str:
        if self.kind == "full":
            return "every byte read, every picture decoded"
        if self.kind == "quick":
            return "size and time; --full reads every byte"
        much = f"{self.count}" if self.share is None else f"{self.share * 100:g} %"
        return f"{much} of the files in full, the others by size and time; --seed {self.seed} picks the same"


@dataclass(frozen=True, slots=True)
class RepairSummary:
    """What a repair did."""

    runs: tuple[int, ...]
    """The runs that did it; `skicyclerun status --run N` reports on each."""
    fetched_again: int
    """Photos asked for again."""
    repaired: int
    """Of those: exported, with a new sound file."""
    times_set: int
    """Files that only got their modification time back."""
    kept_in: Path | None
    """Where what stood under the names to be written was kept before the export; None where nothing did."""
    catalog_written: bool
    notes: tuple[str, ...] = ()
    """What could not be done, as sentences."""
    made_again: int = 0
    """Pictures that stages did again."""
    stages: tuple[str, ...] = ()
    """The stages that did."""


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All of it. After a repair the problems are those that are left."""

    depth: Depth
    run_id: int
    """The run whose albums are expected."""
    unfinished: bool
    """The newest run can be resumed; what it has not exported yet is among the problems."""
    running: str
    """Who worked in the lib_root while this looked, empty if nobody did; what they changed may show as a problem."""
    export_folder: Path
    master_catalog: Path
    albums: tuple[AlbumVerification, ...]
    stages: tuple[StageVerification, ...]
    """Those that have ever run, in pipeline order."""
    other: tuple[Problem, ...]
    """Unknown files in the export folder, and the catalog's problems that belong to no album."""
    files: int
    """Exported files checked."""
    in_full: int
    """Of those."""
    bytes_read: int
    """Of all files."""
    entries: int
    """Entries of exported files in the catalog."""
    stage_entries: int
    """Entries of files that stages made."""
    seconds: float
    can_be_retried: bool = False
    """Whether `retry-failed`, which means the newest run, has something to ask for again."""
    repair: RepairSummary | None = None

    @property
    def problems(self) -> Iterator[Problem]:
        """All problems: the albums' in their order, the stages' in theirs, then the others."""
        for album in self.albums:
            yield from album.problems
        for stage in self.stages:
            yield from stage.problems
        yield from self.other

    @property
    def sound(self) -> bool:
        """True when nothing is wrong."""
        return not any(True for _ in self.problems)

    @property
    def counts(self) -> Mapping[Finding, int]:
        """How many of each."""
        return Counter(problem.finding for problem in self.problems)


# ── as JSON ───────────────────────────────────────────────────────────────────────────────────────────────────────


def as_json(report: VerificationReport) -> dict[str, Any]:
    """The report for other programs, with every name. Keys are stable; seconds, bytes."""
    return {
        "ok": report.sound,
        "mode": report.depth.kind,
        "sample": {"share": report.depth.share, "count": report.depth.count, "seed": report.depth.seed}
        if report.depth.kind == "sample"
        else None,
        "run": report.run_id,
        "unfinished": report.unfinished,
        "running": bool(report.running),
        "export_folder": str(report.export_folder),
        "master_catalog": str(report.master_catalog),
        "totals": {
            "albums": len(report.albums),
            "expected": sum(album.expected for album in report.albums),
            "exported": sum(album.exported for album in report.albums),
            "left_out": sum(album.left_out for album in report.albums),
            "files": report.files,
            "in_full": report.in_full,
            "bytes_read": report.bytes_read,
            "catalog_entries": report.entries,
            "stage_files": sum(stage.files for stage in report.stages),
            "stage_in_full": sum(stage.in_full for stage in report.stages),
            "stage_catalog_entries": report.stage_entries,
            "problems": {finding.value: count for finding, count in sorted(report.counts.items())},
        },
        "albums": [_as_json(album) for album in report.albums],
        "stages": [_stage_json(stage) for stage in report.stages],
        "other": [_as_json(problem) for problem in report.other],
        "repair": _as_json(report.repair) if report.repair else None,
        "seconds": round(report.seconds, 3),
    }


def _as_json(part: AlbumVerification | StageVerification | Problem | RepairSummary) -> dict[str, Any]:
    """The fields under their own names; of problems those that mean something outside of this database."""
    known = {each.name: getattr(part, each.name) for each in fields(part) if each.name != "row_id"}
    if isinstance(part, Problem):
        del known["stage"]
        if not part.names:
            del known["names"]
    elif not isinstance(part, RepairSummary):
        known["problems"] = [_as_json(problem) for problem in part.problems]
    return {key: str(value) if isinstance(value, Path) else value for key, value in known.items()}


def _stage_json(stage: StageVerification) -> dict[str, Any]:
    known = _as_json(stage)
    return {"stage": known.pop("stage"), "output_folder": known.pop("folder"), **known}


# ── as text ───────────────────────────────────────────────────────────────────────────────────────────────────────


def as_text(report: VerificationReport, *, name_all: bool = False, before_bucket: bool = False) -> str:
    """The report for people; every name is made safe for a terminal. `name_all`: every problem, every album.

    `before_bucket`: what is said of a bucket follows, so that nothing here may be read as if it spoke for that.
    """
    return "\n".join(_lines(report, name_all, " with the files here" if before_bucket else "")) + "\n"


def _lines(report: VerificationReport, name_all: bool, here: str) -> Iterator[str]:
    for album in report.albums:
        if album.sound and not name_all:
            continue
        left_out = f", {album.left_out} left out" if album.left_out else ""
        folder = f"  [{printable(album.folder)}]" if album.folder != album.path else ""
        yield (
            f"{printable(album.path)}{folder}: {album.status}, "
            f"{album.exported} of {album.expected} exported{left_out}, {counted(album.files, 'file')} checked"
        )
        yield from _problem_lines(album.problems, name_all)
    for stage in report.stages:
        yield _stage_line(stage)
        yield from _problem_lines(stage.problems, name_all)
    unknown = [problem for problem in report.other if problem.finding is Finding.UNKNOWN_FILE]
    catalog = [problem for problem in report.other if problem.finding is not Finding.UNKNOWN_FILE]
    if catalog:
        yield f"Catalog {printable(str(report.master_catalog))}:"
        yield from _problem_lines(catalog, name_all)
    if unknown:
        yield f"In {printable(str(report.export_folder))}, and known to nobody; left alone:"
        yield from _problem_lines(unknown, name_all)
    if not report.sound or report.stages:
        yield ""
    yield from _summary(report, here)


def _stage_line(stage: StageVerification) -> str:
    if not stage.configured:
        files = counted(stage.files, "file")
        return f"{printable(stage.stage)}: {files} not looked at, the configuration does not say where they are"
    if stage.folder is None:
        return f"{printable(stage.stage)}: facts of {counted(stage.facts, 'picture')}, it makes no files"
    in_full = f", {stage.in_full} in full" if stage.in_full else ""
    return (
        f"{printable(stage.stage)}  [{printable(str(stage.folder))}]: {counted(stage.files, 'file')} checked{in_full}"
    )


def _problem_lines(problems: list[Problem] | tuple[Problem, ...], name_all: bool) -> Iterator[str]:
    named = problems if name_all else problems[:NAMED_PER_ALBUM]
    for problem in named:
        place = problem.name
        if problem.folder and (problem.finding is Finding.UNKNOWN_FILE or (problem.stage and problem.name)):
            place = f"{problem.folder}/{problem.name}"
        elif problem.stage:
            place = problem.folder
        yield f"    {problem.finding.value:<18}  {printable(place) + ': ' if place else ''}{printable(problem.detail)}"
    if len(named) < len(problems):
        yield f"    … and {len(problems) - len(named)} more (`skicyclerun verify --all` names all)"


def _summary(report: VerificationReport, here: str) -> Iterator[str]:
    sound = sum(album.sound for album in report.albums)
    expected = sum(album.expected for album in report.albums)
    exported = sum(album.exported for album in report.albums)
    left_out = sum(album.left_out for album in report.albums)
    yield f"{sound} of {counted(len(report.albums), 'album')} sound."
    aside = f" ({left_out} left out)" if left_out else ""
    yield f"{exported} of {counted(expected, 'expected photo')} exported{aside}."
    read = f", {report.in_full} in full ({bytes_in_words(report.bytes_read)} read)" if report.in_full else ""
    took = seconds_in_words(report.seconds)
    files = counted(report.files, "exported file" if report.stages else "file")
    yield f"{files} checked{read}, in {took}: {report.depth.in_words}."
    if report.repair is not None:
        yield from _repair_lines(report.repair, here)
    at_work = f"In progress: {report.running}. What it changes meanwhile may show as a problem here."
    if report.sound:
        if report.running:
            yield at_work
        yield f"Nothing is wrong{here}."
        return
    found = ", ".join(f"{count} {finding.value}" for finding, count in sorted(report.counts.items()))
    yield f"Left: {found}." if report.repair else f"Found: {found}."
    if report.running:
        # No advice: whoever is at work may be mending just this, and every command that could would be turned away.
        yield at_work
        return
    yield from _next(report)


def _next(report: VerificationReport) -> Iterator[str]:
    kinds = set(report.counts)
    broken = kinds & (EXPORTED_AGAIN | CATALOGED_AGAIN | {Finding.TIME_DIFFERS}) - {Finding.NOT_EXPORTED}
    unfinished = [p for p in report.problems if p.finding in (Finding.NOT_EXPORTED, Finding.ALBUM_UNFINISHED)]
    stages = [stage.stage for stage in report.stages if any(p in stage.problems for p in unfinished)]
    if report.unfinished:
        yield "Next: `skicyclerun run --resume` carries on with the run."
    elif report.repair is None and broken == {Finding.POINTS_NOWHERE}:
        yield "Next: `skicyclerun verify --repair` lets them follow photos that are elsewhere now, and nothing else."
    elif report.repair is None and broken:
        again = "exports or makes again" if report.stages else "exports again"
        yield f"Next: `skicyclerun verify --repair` {again} what is broken, and nothing else."
    elif unfinished and report.can_be_retried:
        yield f"Next: `skicyclerun retry-failed` asks again for what was not {'done' if stages else 'exported'}."
    elif any(not problem.stage for problem in unfinished):
        yield "Next: `skicyclerun run --update` asks again for what is not exported yet."
    elif stages:
        yield f"Next: `skicyclerun run --stages {','.join(stages)}` asks again for what was not made."


def _repair_lines(repair: RepairSummary, here: str) -> Iterator[str]:
    parts = []
    numbers = ", ".join(str(run) for run in repair.runs)
    if repair.fetched_again:
        parts.append(f"{repair.repaired} of {counted(repair.fetched_again, 'photo')} exported again (run {numbers})")
    if repair.made_again:
        done = f"{counted(repair.made_again, 'picture')} made again by {', '.join(repair.stages)}"
        parts.append(done if repair.fetched_again else f"{done} (run {numbers})")
    if repair.times_set:
        parts.append(f"{counted(repair.times_set, 'file')} given back the photo's date")
    if repair.catalog_written:
        parts.append("the catalog written")
    yield f"Repaired: {'; '.join(parts)}." if parts else f"Repaired{here and ' here'}: nothing needed to be."
    if repair.kept_in and (repair.repaired or repair.made_again):
        yield f"What stood in the place of the replaced files is kept in {printable(str(repair.kept_in))}."
    elif repair.kept_in:
        yield f"No file was replaced; what was kept aside beforehand is in {printable(str(repair.kept_in))}."
    for note in repair.notes:
        yield printable(note)
