"""What a person wants to know first: did all work, what is to be done, how much is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from skicyclerun.report.facts import OnDisk, PageAlbum, PageFacts, PagePhoto, moment
from skicyclerun.run.report import AlbumReport, copies_in_words, next_step
from skicyclerun.run.stage_report import StageReport
from skicyclerun.state.machine import AlbumStatus, ArchiveStatus, RunStatus
from skicyclerun.state.photos import PhotoStatus
from skicyclerun.wording import bytes_in_words, counted, seconds_in_words

#: Named on the first page: troubles of one album, and albums.
_NAMED_TROUBLES: Final = 8
_NAMED_ALBUMS: Final = 40


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that failed or is missing, for the top of the page."""

    what: str
    """The photo or the stage."""
    reason: str


@dataclass(frozen=True, slots=True)
class TroubledAlbum:
    """What is wrong with an album."""

    title: str
    number: int
    """Of its page."""
    troubles: tuple[Trouble, ...]
    more: int
    """Troubles that are not named here."""


class Summary:
    """The answers. `options` follow every command that is proposed: where things are."""

    def __init__(self, facts: PageFacts, options: str = "") -> None:
        self._facts, self._options = facts, options

    @cached_property
    def mood(self) -> str:
        """`good`, `bad` or `open`."""
        report = self._facts.report
        if report.running or report.run.unfinished:
            return "open"
        return "bad" if self.all_troubled else "good"

    @property
    def _unit(self) -> str:
        return self._facts.report.run.counts_in

    @cached_property
    def headline(self) -> str:
        report, totals = self._facts.report, self._facts.report.totals
        expected = sum(album.expected for album in report.albums)
        owed = totals.failed + totals.missing
        if report.running:
            return f"At work: {totals.exported:,} of {counted_with_commas(expected, self._unit)} so far."
        if report.run.status is RunStatus.ABANDONED:
            return f"Given up after {counted_with_commas(totals.exported, self._unit)}."
        if report.run.unfinished:
            return f"Stopped at {totals.exported:,} of {counted_with_commas(expected, self._unit)}."
        if self.all_troubled:
            if owed:
                have = "was" if owed == 1 else "were"
                return f"{owed:,} of {counted_with_commas(expected, self._unit)} {have} not exported."
            if self._facts.gone:
                return f"{counted_with_commas(len(self._facts.gone), 'file')} should be here and cannot be found."
            return f"{counted(len(self.all_troubled), 'album')} did not come to an end."
        if not report.albums:
            made = sum(stage.made for stage in report.stages if stage.in_run)
            return f"All is done: {counted_with_commas(made, 'picture')} made." if made else "All is up to date."
        if totals.left_out:
            return f"{counted_with_commas(totals.exported, self._unit)} exported, {totals.left_out:,} left out."
        if self._put_away:
            return f"{counted_with_commas(totals.exported, self._unit)} exported."
        if totals.exported == 1:
            return f"The one {self._unit} is here."
        return f"All {counted_with_commas(totals.exported, self._unit)} are here." if totals.exported else "No photos."

    @cached_property
    def lede(self) -> str:
        report = self._facts.report
        run = report.run
        kind = "Repair" if run.options.get("repairs_run") else "Update" if run.mode == "update" else "Run"
        words = [f"{kind} {run.id}", day_and_time(moment(run.started_at))]
        if self._facts.timeline is not None:
            words.append(f"{seconds_in_words(self._facts.timeline.seconds)} of work")
        return " · ".join(word for word in words if word)

    def figures(self) -> Iterator[tuple[str, str, str]]:
        """(name, value, class)."""
        report, totals = self._facts.report, self._facts.report.totals
        if report.albums:
            done = report.albums_with(AlbumStatus.DONE)
            albums = len(report.albums)
            yield "Albums", f"{albums:,}" if done == albums else f"{done:,} of {albums:,}", ""
            yield f"{self._unit.capitalize()}s", f"{totals.exported:,}", ""
            yield "On disk", bytes_in_words(totals.bytes), ""
        else:
            yield "Albums", f"{len(self._facts.albums):,}", ""
        if (changes := report.changes) is not None:
            yield "New", f"{changes.new:,}", ""
            yield "Replaced", f"{changes.replaced:,}", ""
            yield "Unchanged", f"{changes.unchanged:,}", ""
        for name, number in (("Failed", totals.failed), ("Missing", totals.missing)):
            if number:
                yield name, f"{number:,}", "bad"
        if totals.left_out:
            yield "Left out", f"{totals.left_out:,}", ""
        made = sum(stage.made for stage in report.stages if stage.in_run)
        if any(stage.in_run for stage in report.stages):
            yield "Made by stages", f"{made:,}", ""

    @cached_property
    def command(self) -> tuple[str, str] | None:
        """What is to be typed, and what it does."""
        step = next_step(self._facts.report)
        if step is None and self._facts.gone:
            return f"skicyclerun verify --repair{self._options}", "fetches again what is no longer in its folder."
        return (f"skicyclerun {step.arguments}{self._options}", step.does) if step is not None else None

    @property
    def troubled(self) -> list[TroubledAlbum]:
        """Those that are named on the first page."""
        return self.all_troubled[:_NAMED_ALBUMS]

    @property
    def troubled_more(self) -> int:
        return len(self.all_troubled) - len(self.troubled)

    @cached_property
    def all_troubled(self) -> list[TroubledAlbum]:
        reports = {each.row.folder: each for each in self._facts.report.albums}
        found = []
        for album in self._facts.albums:
            troubles = list(self._troubles(album, reports.get(album.row.folder)))
            if troubles:
                named = tuple(troubles[:_NAMED_TROUBLES])
                found.append(TroubledAlbum(album.row.album.path, album.number, named, len(troubles) - len(named)))
        return found

    def _troubles(self, album: PageAlbum, report: AlbumReport | None) -> Iterator[Trouble]:
        if report is not None and report.row.reason:
            yield Trouble("", report.row.reason)
        for photo in album.photos:
            if photo.status in (PhotoStatus.FAILED, PhotoStatus.MISSING):
                yield Trouble(photo.original, absent_in_words(photo))
            elif photo.disk is OnDisk.GONE:
                yield Trouble(photo.name, "It was exported, and its file is no longer in the folder.")
        for stage in self._facts.report.stages:
            yield from self.stage_troubles(stage, album) if stage.in_run else ()

    @staticmethod
    def stage_troubles(stage: StageReport, album: PageAlbum) -> Iterator[Trouble]:
        exports = album.of_this_run and album.status is AlbumStatus.FAILED
        for each in stage.albums:
            if each.folder != album.row.folder or each.row is None or each.row.run_id != stage.run_id:
                continue
            # One that only waits for photos says nothing that they do not.
            if each.row.reason and not (exports and each.counts.waiting and not each.counts.failed):
                yield Trouble(stage_in_words(stage.name), each.row.reason)
            for picture in each.pictures:
                yield Trouble(f"{stage_in_words(stage.name)}: {picture.photo}", picture.reason)

    @cached_property
    def _put_away(self) -> int:
        """Files of the run that were archived or replaced since."""
        return sum(photo.disk is OnDisk.PUT_AWAY for album in self._facts.albums for photo in album.photos)

    def notes(self) -> Iterator[str]:
        """What else a person should know, in sentences."""
        report = self._facts.report
        run, archive = report.run, report.archive
        if report.running:
            yield f"In progress: {report.running}. The page shows how it stood when it was made."
        elif run.reason and run.status is not RunStatus.FINISHED:
            yield run.reason
        if archive is not None and archive.file:
            proved = "proved" if archive.proved_at else "not proved yet"
            size = bytes_in_words(archive.size or 0)
            yield f"What was here before is in the archive {archive.file} ({size}, {proved})."
        elif archive is not None and archive.status is ArchiveStatus.FAILED:
            yield f"The archive of what was here before could not be made: {archive.reason}"
        yield from (line.strip() for line in copies_in_words(report))
        if away := self._put_away:
            were = "was" if away == 1 else "were"
            files = counted_with_commas(away, "file")
            yield f"{files} of this run {were} archived or replaced since, and cannot be shown."
        changed = sum(photo.disk is OnDisk.CHANGED for album in self._facts.albums for photo in album.photos)
        if changed:
            were, they = ("was", "it is") if changed == 1 else ("were", "they are")
            files = counted_with_commas(changed, "file")
            yield f"{files} {were} changed since the export; shown as {they}."
        for earlier in report.earlier_failures:
            left = counted(earlier.albums, "album")
            yield f"Run {earlier.run_id} left {left} with photos that were not exported since."


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def stage_in_words(name: str) -> str:
    """`metadata_extraction` as `Metadata extraction`."""
    known = {"cleanup": "Cleanup", "export": "Export", "lora_processing": "LoRA processing", "s3_deployment": "Upload"}
    return known.get(name) or name.replace("_", " ").capitalize().replace("Llm", "LLM")


def counted_with_commas(count: int, noun: str) -> str:
    """`1 photo`, `1,000 photos`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def absent_in_words(photo: PagePhoto) -> str:
    """Why a photo has no picture on the page."""
    if photo.status is PhotoStatus.EXPORTED:
        return {
            OnDisk.GONE: "It was exported, and its file is no longer in the folder.",
            OnDisk.PUT_AWAY: "It was archived, or replaced by a later run.",
        }.get(photo.disk, "")
    if photo.status is PhotoStatus.PLANNED:
        return "Not exported yet."
    reason = photo.reason.removeprefix(photo.original).lstrip(": ") if photo.reason else ""
    words = {PhotoStatus.FAILED: "Failed.", PhotoStatus.MISSING: "No original here."}.get(photo.status, "Left out.")
    return reason[:1].upper() + reason[1:] if reason else words


def day_and_time(at: datetime | None, *, as_it_was: bool = False) -> str:
    """In this machine's time, but for a photo: by the clock where it was taken."""
    if at is None:
        return ""
    if not as_it_was:
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone()
    return f"{at.day} {at:%B %Y, %H:%M}"
