"""Where each stage is, and how the stages after the export are drawn: a line each, one below the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skicyclerun.progress.events import EXPORT, AlbumFinished, AlbumStarted, PhotoFinished, StageFinished
from skicyclerun.progress.rate import Rate
from skicyclerun.wording import counted, printable, seconds_in_words

#: Columns from which on a line has room for a bar, for the album's title, and for all facts.
_ROOM_FOR_BAR: Final = 36
_ROOM_FOR_TITLE: Final = 64
_ROOM_FOR_ALL: Final = 100
#: `12.5/s`, `3.9 s each`.
_USUAL_FACTS: Final = 10
#: Less than this is over before it is read; seconds.
_WORTH_SAYING: Final = 10.0


@dataclass(slots=True)
class StageRow:
    """One stage in this run: its album and how far that is, and the albums it is done with."""

    stage: str
    clock: InitVar[Callable[[], float]] = time.monotonic
    album: AlbumStarted | None = None
    done: int = 0
    """Of the album's pictures."""
    named: int = 0
    """Of the album's pictures, those that were named as failed or missing."""
    failed: int = 0
    """Pictures of all albums."""
    ended: StageFinished | None = None
    _albums: Counter[str] = field(default_factory=Counter)
    _at_work: bool = False
    _rate: Rate = field(init=False)

    def __post_init__(self, clock: Callable[[], float]) -> None:
        self._rate = Rate(clock=clock)

    def take(self, event: AlbumStarted | PhotoFinished | AlbumFinished | StageFinished) -> None:
        """Take an event of this stage into account."""
        match event:
            case AlbumStarted():
                self._enter(event)
                self._at_work = True
                self._rate.resume()
            case PhotoFinished():
                if self.album is None or self.album.number != event.album_number:  # the beginning was dropped
                    self._enter(AlbumStarted(event.album_number, event.albums, "", event.of, self.stage))
                self._at_work = True
                self.done = max(self.done, event.number)
                if event.outcome not in ("kept", "skipped"):
                    self._rate.add(1)
                if event.outcome in ("failed", "missing"):
                    self.failed += 1
                    self.named += 1
            case AlbumFinished():
                self._take_end(event)
            case StageFinished():
                self.ended = event
                self._at_work = False

    def _enter(self, album: AlbumStarted) -> None:
        self.album, self.done, self.named, self.ended = album, 0, 0, None

    def _take_end(self, event: AlbumFinished) -> None:
        self._at_work = False
        self._albums[event.status] += 1
        # An album with nothing to do comes to its end without having begun.
        if self.stage != EXPORT and (self.album is None or self.album.number != event.number):
            there = event.exported + event.failed
            self._enter(AlbumStarted(event.number, event.of, event.title, there + event.missing, self.stage))
            self.done = there

    @property
    def in_words(self) -> str:
        """At its end: `done: 4 albums`, `stopped: 3 albums, 1 failed`."""
        done, failed = self._albums["done"], self._albums["failed"]
        word = "done" if self.ended is None or self.ended.complete else "stopped"
        return f"{word}: {counted(done + failed, 'album')}" + (f", {failed} failed" if failed else "")

    def title(self, *, in_full: bool) -> Text:
        """What it works on."""
        if self.ended is not None or self.album is None:
            return _text(self.in_words)
        album = self.album
        text = _text(f"album {album.number} of {album.of}  " if in_full else f"{album.number}/{album.of}  ")
        return text.append(printable(album.title), style="bold")

    def count(self) -> str:
        """How far the album is."""
        if self.ended is not None or self.album is None:
            return ""
        return f"{self.done} of {self.album.photos}"

    def facts(self, *, in_full: bool) -> str:
        """How fast it goes, while it is at work; how long the album will take, and what has failed."""
        words = []
        rate = self._rate.per_second() if self._at_work else 0.0
        if rate > 0:
            words.append(f"{rate:.1f}/s" if rate >= 0.5 else f"{seconds_in_words(1 / rate)} each")
        if in_full and self.album is not None and self.ended is None:
            if self.failed:
                words.append(f"{self.failed} failed")
            left = self._rate.seconds_left(self.album.photos - self.done) if rate > 0 else None
            if left is not None and left >= _WORTH_SAYING:
                words.append(f"{seconds_in_words(left)} for this album")
        return " · ".join(words)

    def bar(self) -> RenderableType:
        """The album's pictures."""
        if self.ended is not None or self.album is None:
            return Text("")
        return progress_bar(self.done, self.album.photos)


def progress_bar(done: int, total: int) -> ProgressBar:
    """Full where there is nothing to do."""
    return ProgressBar(total=max(1, total), completed=min(done, total) if total else 1)


def stage_table(rows: Sequence[StageRow], width: int, lines: int) -> RenderableType:
    """The stages, a line each in the order given, in at most `lines` (one or more) lines of that width.

    Where there are more stages than lines, those that are done make room first; the last line counts what is not shown.
    """
    shown = _that_fit(rows, lines)
    in_full = width >= _ROOM_FOR_ALL
    with_title, with_bar = width >= _ROOM_FOR_TITLE, width >= _ROOM_FOR_BAR
    # rich takes the `width` of a column that has a ratio for the least it gets.
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    if with_title:
        ends = [len(row.in_words) for row in shown if row.ended is not None]
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=3, width=max(ends, default=1))
    if with_bar:
        table.add_column(ratio=2, width=4)
    table.add_column(no_wrap=True, overflow="ellipsis", justify="right")
    if with_title:
        # As wide as most of what it holds: the bars beside it stay as they are while the words change.
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=_USUAL_FACTS)
    for row in shown:
        cells: list[RenderableType] = [_text(printable(row.stage))]
        if with_title:
            cells.append(row.title(in_full=in_full))
        if with_bar:
            cells.append(row.bar())
        cells.append(_text(row.count() if with_title else row.count() or row.in_words))
        if with_title:
            facts = _text(row.facts(in_full=in_full))
            facts.stylize("dim")
            cells.append(facts)
        table.add_row(*cells)
    if len(shown) == len(rows):
        return table
    more = _text(f"… and {counted(len(rows) - len(shown), 'more stage')}")
    return Group(table, more) if shown else more


def _text(words: str) -> Text:
    return Text(words, no_wrap=True, overflow="ellipsis")


def _that_fit(rows: Sequence[StageRow], lines: int) -> list[StageRow]:
    if len(rows) <= lines:
        return list(rows)
    at_work_first = sorted(rows, key=lambda row: row.ended is not None)
    chosen = at_work_first[: lines - 1]
    return [row for row in rows if row in chosen]
