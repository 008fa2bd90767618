"""The HTML: one page for the run, one or more for each album. Complete in itself: no page asks anything of a network.

Every text goes through Jinja2's autoescaping and through `printable`, so that what a stranger wrote into a title is
text, and a mark that would turn the rest of a line around is seen as an escape. Links are relative and percent-encoded.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from skicyclerun import __version__
from skicyclerun.report import map as maps
from skicyclerun.report import timeline
from skicyclerun.report.facts import OnDisk, PageAlbum, PageFacts, PageFile, PagePhoto, moment
from skicyclerun.report.publish import MARK
from skicyclerun.report.thumbnails import LARGE, SMALL, Thumbnails, Wanted
from skicyclerun.run.report import AlbumReport, next_step
from skicyclerun.run.stage_report import StageReport
from skicyclerun.state.machine import AlbumStatus, RunStatus
from skicyclerun.state.photos import PhotoStatus
from skicyclerun.wording import bytes_in_words, counted, printable, seconds_in_words

#: Photos on one page of an album.
PHOTOS_PER_PAGE: Final = 600
#: Thumbnails of an album on the first page; one where there are very many albums.
_STRIP: Final = 4
_MANY_ALBUMS: Final = 300
#: Named on the first page: photos of one album, and albums.
_NAMED_PHOTOS: Final = 8
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
    page: str
    troubles: tuple[Trouble, ...]
    more: int
    """Troubles that are not named here."""


class Pages:
    """Makes the texts of all pages. `options` follow every command that the page proposes: where things are."""

    def __init__(
        self, facts: PageFacts, thumbnails: Thumbnails, file: Path, folder: Path, *, options: str, with_map: bool
    ) -> None:
        self._facts, self._thumbnails = facts, thumbnails
        self._file, self._folder = file, folder
        self._options, self._with_map = options, with_map
        self._templates = jinja2.Environment(
            loader=jinja2.FunctionLoader(_template),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
        )
        self._templates.filters |= {
            "counted": counted,
            "size": bytes_in_words,
            "duration": seconds_in_words,
            "number": lambda value: f"{value:,}",
        }

    def first(self, now: datetime) -> str:
        """The page of the run."""
        facts = self._facts
        return self._page(
            "run.html",
            self._file.parent,
            title=f"Run {facts.report.run.id}",
            now=_day_and_time(now),
            run=facts.report.run,
            headline=self._headline,
            mood=self._mood,
            lede=self._lede,
            figures=list(self._figures()),
            troubled=self._troubled,
            troubled_more=max(0, len(self._all_troubled) - _NAMED_ALBUMS),
            command=self._command,
            notes=list(self._notes()),
            cards=[self._card(album) for album in facts.albums],
            map=maps.draw(facts.positions) if self._with_map else None,
            map_size=(maps.WIDTH, maps.HEIGHT),
            examples=[self._example(number, each) for number, each in enumerate(facts.examples, start=1)],
            stages=[stage for stage in facts.report.stages if stage.in_run],
            timeline=facts.timeline,
            timeline_width=timeline.WIDTH,
            page_of=lambda number: f"{quote(self._folder.name)}/{page_name(number)}",
            stage_words=stage_in_words,
        )

    def of_album(self, album: PageAlbum) -> Iterator[tuple[str, str]]:
        """(name, text) of an album's pages."""
        parts = [
            album.photos[begin : begin + PHOTOS_PER_PAGE] for begin in range(0, len(album.photos), PHOTOS_PER_PAGE)
        ] or [()]
        albums = self._facts.albums
        for part, photos in enumerate(parts, start=1):
            yield page_name(album.number, part), self._page(
                "album.html",
                self._folder,
                title=album.row.album.path,
                album=album,
                card=self._card(album, strip=False),
                home=_relative(self._file, self._folder),
                run=self._facts.report.run,
                tiles=[self._tile(number, photo) for number, photo in _numbered(photos, part) if photo.file],
                absent=[(photo, _absent_in_words(photo)) for photo in photos if photo.file is None],
                part=part,
                parts=[page_name(album.number, each) for each in range(1, len(parts) + 1)],
                previous=albums[album.number - 2] if album.number > 1 else None,
                next=albums[album.number] if album.number < len(albums) else None,
                page_name=page_name,
                command=self._command,
            )

    def _page(self, template: str, folder: Path, **parts: Any) -> str:
        script, style = _part("viewer.js"), _part("style.css")
        return self._templates.get_template(template).render(
            mark=Markup(MARK),  # noqa: S704
            policy=_policy(script, style),
            script=Markup(script),  # noqa: S704
            style=Markup(style),  # noqa: S704
            version=__version__,
            link=lambda file: _relative(file.path, folder),
            thumbnail=lambda file, size=SMALL: self._thumbnail(file, folder, size),
            large=LARGE,
            **parts,
        )

    def _thumbnail(self, file: PageFile, folder: Path, size: int) -> str | None:
        place = self._thumbnails.place(Wanted(file, size).name)
        return _relative(place, folder) if place is not None else None

    # ── the first thing one wants to know ────────────────────────────────────────────────────────────────────────

    @cached_property
    def _mood(self) -> str:
        """`good`, `bad` or `open`."""
        report = self._facts.report
        if report.running or report.run.unfinished:
            return "open"
        return "bad" if self._all_troubled else "good"

    @cached_property
    def _headline(self) -> str:
        report, totals = self._facts.report, self._facts.report.totals
        expected = sum(album.expected for album in report.albums)
        owed = totals.failed + totals.missing
        if report.running:
            return f"At work: {totals.exported:,} of {counted_with_commas(expected, 'photo')} so far."
        if report.run.status is RunStatus.ABANDONED:
            return f"Given up after {counted_with_commas(totals.exported, 'photo')}."
        if report.run.unfinished:
            return f"Stopped at {totals.exported:,} of {counted_with_commas(expected, 'photo')}."
        if self._all_troubled:
            if owed:
                have = "was" if owed == 1 else "were"
                return f"{owed:,} of {counted_with_commas(expected, 'photo')} {have} not exported."
            if self._facts.gone:
                return f"{counted_with_commas(len(self._facts.gone), 'file')} should be here and cannot be found."
            return f"{counted(len(self._all_troubled), 'album')} did not come to an end."
        if not report.albums:
            made = sum(stage.made for stage in report.stages if stage.in_run)
            return f"All is done: {counted_with_commas(made, 'picture')} made." if made else "All is up to date."
        if totals.left_out:
            return f"{counted_with_commas(totals.exported, 'photo')} exported, {totals.left_out:,} left out."
        return f"All {counted_with_commas(totals.exported, 'photo')} are here."

    @cached_property
    def _lede(self) -> str:
        report = self._facts.report
        run = report.run
        kind = "Repair" if run.options.get("repairs_run") else "Update" if run.mode == "update" else "Run"
        words = [f"{kind} {run.id}", _day_and_time(moment(run.started_at))]
        if self._facts.timeline is not None:
            words.append(f"{seconds_in_words(self._facts.timeline.seconds)} of work")
        return " · ".join(word for word in words if word)

    def _figures(self) -> Iterator[tuple[str, str, str]]:
        """(name, value, class)."""
        report, totals = self._facts.report, self._facts.report.totals
        if report.albums:
            done = report.albums_with(AlbumStatus.DONE)
            albums = len(report.albums)
            yield "Albums", f"{albums:,}" if done == albums else f"{done:,} of {albums:,}", ""
            yield "Photos", f"{totals.exported:,}", ""
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
    def _command(self) -> tuple[str, str] | None:
        """What is to be typed, and what it does."""
        step = next_step(self._facts.report)
        if step is None and self._facts.gone:
            return f"skicyclerun verify --repair{self._options}", "fetches again what is no longer in its folder."
        return (f"skicyclerun {step.arguments}{self._options}", step.does) if step is not None else None

    @property
    def _troubled(self) -> list[TroubledAlbum]:
        return self._all_troubled[:_NAMED_ALBUMS]

    @cached_property
    def _all_troubled(self) -> list[TroubledAlbum]:
        reports = {each.row.folder: each for each in self._facts.report.albums}
        found = []
        for album in self._facts.albums:
            troubles = list(self._troubles(album, reports.get(album.row.folder)))
            if troubles:
                page = f"{quote(self._folder.name)}/{page_name(album.number)}"
                named = tuple(troubles[:_NAMED_PHOTOS])
                found.append(TroubledAlbum(album.row.album.path, page, named, len(troubles) - len(named)))
        return found

    def _troubles(self, album: PageAlbum, report: AlbumReport | None) -> Iterator[Trouble]:
        if report is not None and report.row.reason:
            yield Trouble("", report.row.reason)
        for photo in album.photos:
            if photo.status in (PhotoStatus.FAILED, PhotoStatus.MISSING):
                yield Trouble(photo.original, _absent_in_words(photo))
            elif photo.disk is OnDisk.GONE:
                yield Trouble(photo.name, "It was exported, and its file is no longer in the folder.")
        for stage in self._facts.report.stages:
            yield from self._stage_troubles(stage, album) if stage.in_run else ()

    @staticmethod
    def _stage_troubles(stage: StageReport, album: PageAlbum) -> Iterator[Trouble]:
        for each in stage.albums:
            if each.folder != album.row.folder or each.row is None or each.row.run_id != stage.run_id:
                continue
            if each.row.reason:
                yield Trouble(stage_in_words(stage.name), each.row.reason)
            for picture in each.pictures:
                yield Trouble(f"{stage_in_words(stage.name)}: {picture.photo}", picture.reason)

    def _notes(self) -> Iterator[str]:
        """What else a person should know, in sentences."""
        report = self._facts.report
        run, archive = report.run, report.archive
        if report.running:
            yield f"In progress: {report.running}. The page shows how it stood when it was made."
        elif run.reason and run.status is not RunStatus.FINISHED:
            yield run.reason
        if archive is not None and archive.file:
            proved = "proved" if archive.proved_at else "not proved yet"
            yield f"What was here before is in the archive {archive.file} ({bytes_in_words(archive.size or 0)}, {proved})."
        away = sum(photo.disk is OnDisk.PUT_AWAY for album in self._facts.albums for photo in album.photos)
        if away:
            yield (
                f"{counted_with_commas(away, 'file')} of this run were archived or replaced since, and cannot be shown."
            )
        changed = sum(photo.disk is OnDisk.CHANGED for album in self._facts.albums for photo in album.photos)
        if changed:
            yield f"{counted_with_commas(changed, 'file')} were changed since the export; they are shown as they are."
        for earlier in report.earlier_failures:
            yield (
                f"Run {earlier.run_id} left {counted(earlier.albums, 'album')} with photos that were not exported since."
            )

    # ── albums and photos ────────────────────────────────────────────────────────────────────────────────────────

    def _card(self, album: PageAlbum, *, strip: bool = True) -> dict[str, Any]:
        report = self._facts.report
        words, mood = _album_state(album, running=bool(report.running))
        stages = [
            stage_in_words(stage.name)
            for stage in report.stages
            if stage.in_run and any(True for _ in self._stage_troubles(stage, album))
        ]
        if stages and mood == "good":
            words, mood = f"Incomplete in {', '.join(stages)}", "bad"
        length = 1 if len(self._facts.albums) > _MANY_ALBUMS else _STRIP
        shown = [photo.file for photo in album.shown if photo.file is not None and photo.file.kind != "movie"]
        step = max(1, len(shown) // length)
        exported, owed = album.count(PhotoStatus.EXPORTED), album.count(PhotoStatus.FAILED, PhotoStatus.MISSING)
        return {
            "album": album,
            "title": album.row.album.title,
            "folders": album.row.album.folder_path,
            "page": page_name(album.number),
            "state": words,
            "mood": mood,
            "strip": shown[::step][:length] if strip else [],
            "strip_length": length,
            "photos": counted_with_commas(exported, "photo") if album.photos or exported else "",
            "owed": owed,
            "left_out": album.count(PhotoStatus.LEFT_OUT),
            "when": _days_of(album),
        }

    def _tile(self, number: int, photo: PagePhoto) -> dict[str, Any]:
        facts = photo.facts
        assert photo.file is not None
        assert facts is not None
        ratio = facts.width / facts.height if facts.width and facts.height else 1.5
        return {
            "number": number,
            "photo": photo,
            "file": photo.file,
            "ratio": max(5, min(30, round(ratio * 10))),
            "date": _day_and_time(moment(facts.date_taken), as_it_was=True),
            "keywords": facts.keywords,
            "persons": facts.persons,
            "description": " ".join((facts.description or "").split()),
            "pixels": f"{facts.width} × {facts.height}" if facts.width and facts.height else "",
            "changed": photo.disk is OnDisk.CHANGED,
        }

    def _example(self, number: int, example: Any) -> dict[str, Any]:
        return {"number": number, "stage": stage_in_words(example.stage), "example": example}

    def wanted(self) -> Iterator[Wanted]:
        """The thumbnails that the pages show."""
        for album in self._facts.albums:
            for photo in album.shown:
                if photo.file is not None:
                    yield Wanted(photo.file)
        for example in self._facts.examples:
            for file in (example.before, example.after):
                if file is not None:
                    yield Wanted(file, LARGE)


def page_name(number: int, part: int = 1) -> str:
    """Of an album's page."""
    return f"album-{number:04}.html" if part == 1 else f"album-{number:04}-{part}.html"


def stage_in_words(name: str) -> str:
    """`metadata_extraction` as `Metadata extraction`."""
    known = {"cleanup": "Cleanup", "export": "Export", "lora_processing": "LoRA processing", "s3_deployment": "Upload"}
    return known.get(name) or name.replace("_", " ").capitalize().replace("Llm", "LLM")


def counted_with_commas(count: int, noun: str) -> str:
    """`1 photo`, `1,000 photos`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _album_state(album: PageAlbum, *, running: bool) -> tuple[str, str]:
    if any(photo.disk is OnDisk.GONE for photo in album.photos):
        return "Files are gone", "bad"
    if album.status is AlbumStatus.DONE:
        return "Complete", "good"
    if album.status is AlbumStatus.FAILED:
        return "Incomplete", "bad"
    if album.status is AlbumStatus.EXPORTING:
        return ("At work" if running else "Stopped"), "open"
    return "Not begun", "open"


def _absent_in_words(photo: PagePhoto) -> str:
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


def _numbered(photos: Sequence[PagePhoto], part: int) -> Iterator[tuple[int, PagePhoto]]:
    return enumerate(photos, start=(part - 1) * PHOTOS_PER_PAGE + 1)


def _days_of(album: PageAlbum) -> str:
    """`11 February 2024`, or from when to when."""
    dates = [photo.facts.date_taken[:10] for photo in album.photos if photo.facts and photo.facts.date_taken]
    days = sorted(day for day in map(moment, dates) if day is not None)
    if not days:
        return ""
    first, last = days[0], days[-1]
    if first.date() == last.date():
        return f"{first.day} {first:%B %Y}"
    if first.year == last.year:
        return f"{first:%B}–{last:%B %Y}" if first.month != last.month else f"{first.day}–{last.day} {last:%B %Y}"
    return f"{first.year}–{last.year}"


def _day_and_time(at: datetime | None, *, as_it_was: bool = False) -> str:
    """In this machine's time, but for a photo: by the clock where it was taken."""
    if at is None:
        return ""
    if not as_it_was:
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone()
    return f"{at.day} {at:%B %Y, %H:%M}"


# ── what a page is made of ────────────────────────────────────────────────────────────────────────────────────────


def _part(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _template(name: str) -> tuple[str, str, Callable[[], bool]]:
    return _part(name), name, lambda: True


def _shown(value: object) -> object:
    """What the templates put on a page: a text of anybody's without marks that act on what is around it."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _relative(target: Path, folder: Path) -> str:
    """A link to it from a page in `folder`."""
    return quote(os.fsencode(os.path.relpath(target, folder)))


def _policy(script: str, style: str) -> str:
    """Nothing but our own script and style, and pictures and films of this disk (w3.org/TR/CSP3)."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; img-src 'self' file:; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


