"""The HTML: one page for the run, one or more for each album. Complete in itself: no page asks anything of a network.

Every text goes through Jinja2's autoescaping and through `printable`, so that what a stranger wrote into a title is
text, and a mark that would turn the rest of a line around is seen as an escape. Links are relative and percent-encoded.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
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
from skicyclerun.report.summary import Summary, absent_in_words, counted_with_commas, day_and_time, stage_in_words
from skicyclerun.report.thumbnails import LARGE, SMALL, Thumbnails, Wanted
from skicyclerun.state.machine import AlbumStatus
from skicyclerun.state.photos import PhotoStatus
from skicyclerun.wording import bytes_in_words, counted, printable, seconds_in_words

#: Photos on one page of an album.
PHOTOS_PER_PAGE: Final = 600
#: Thumbnails of an album on the first page; one where there are very many albums.
_STRIP: Final = 4
_MANY_ALBUMS: Final = 300


class Pages:
    """Makes the texts of all pages. `options` follow every command that the page proposes: where things are."""

    def __init__(
        self, facts: PageFacts, thumbnails: Thumbnails, file: Path, folder: Path, *, options: str, with_map: bool
    ) -> None:
        self._facts, self._thumbnails = facts, thumbnails
        self._file, self._folder = file, folder
        self._summary, self._with_map = Summary(facts, options), with_map
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
            now=day_and_time(now),
            run=facts.report.run,
            summary=self._summary,
            notes=list(self._summary.notes()),
            cards=[self._card(album) for album in facts.albums],
            map=maps.draw(facts.positions) if self._with_map else None,
            map_size=(maps.WIDTH, maps.HEIGHT),
            examples=[self._example(number, each) for number, each in enumerate(facts.examples, start=1)],
            stages=[stage for stage in facts.report.stages if stage.in_run],
            timeline=facts.timeline,
            timeline_width=timeline.WIDTH,
            page_of=lambda number: f"{quote(self._folder.name)}/{page_name(number)}",
            stage_words=stage_in_words,
            tick_words=_tick_in_words,
        )

    def of_album(self, album: PageAlbum) -> Iterator[tuple[str, str]]:
        """(name, text) of an album's pages."""
        parts = [
            album.photos[begin : begin + PHOTOS_PER_PAGE] for begin in range(0, len(album.photos), PHOTOS_PER_PAGE)
        ] or [()]
        albums = self._facts.albums
        for part, photos in enumerate(parts, start=1):
            yield (
                page_name(album.number, part),
                self._page(
                    "album.html",
                    self._folder,
                    title=album.row.album.path,
                    album=album,
                    card=self._card(album, strip=False),
                    home=_relative(self._file, self._folder),
                    run=self._facts.report.run,
                    tiles=[self._tile(number, photo) for number, photo in _numbered(photos, part) if photo.file],
                    absent=[(photo, absent_in_words(photo)) for photo in photos if photo.file is None],
                    part=part,
                    parts=[page_name(album.number, each) for each in range(1, len(parts) + 1)],
                    previous=albums[album.number - 2] if album.number > 1 else None,
                    next=albums[album.number] if album.number < len(albums) else None,
                    page_name=page_name,
                    command=self._summary.command,
                ),
            )

    def _page(self, template: str, folder: Path, **parts: Any) -> str:
        script, style = _part("viewer.js"), _part("style.css")
        return self._templates.get_template(template).render(
            mark=Markup(MARK),
            policy=_policy(script, style),
            script=Markup(script),
            style=Markup(style),
            version=__version__,
            link=lambda file: _relative(file.path, folder),
            thumbnail=lambda file, size=SMALL: self._thumbnail(file, folder, size),
            large=LARGE,
            **parts,
        )

    def _thumbnail(self, file: PageFile, folder: Path, size: int) -> str | None:
        place = self._thumbnails.place(Wanted(file, size).name)
        return _relative(place, folder) if place is not None else None

    # ── albums and photos ────────────────────────────────────────────────────────────────────────────────────────

    def _card(self, album: PageAlbum, *, strip: bool = True) -> dict[str, Any]:
        report = self._facts.report
        words, mood = _album_state(album, running=bool(report.running))
        stages = [
            stage_in_words(stage.name)
            for stage in report.stages
            if stage.in_run and any(True for _ in self._summary.stage_troubles(stage, album))
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
            "date": day_and_time(moment(facts.date_taken), as_it_was=True),
            "keywords": facts.keywords,
            "persons": facts.persons,
            "description": " ".join((facts.description or "").split()),
            "pixels": f"{facts.width} \N{MULTIPLICATION SIGN} {facts.height}" if facts.width and facts.height else "",
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


def _tick_in_words(seconds: float) -> str:
    """Short: `0`, `5 s`, `20 min`, `2 h`; steps are round."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s" if seconds < 60 else seconds_in_words(seconds)


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
    if first.year != last.year:
        return f"{first.year}\N{EN DASH}{last.year}"
    if first.month != last.month:
        return f"{first:%B}\N{EN DASH}{last:%B %Y}"
    return f"{first.day}\N{EN DASH}{last.day} {last:%B %Y}"


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
