"""Progress on a terminal: a few lines that are rewritten in place, with what matters printed above them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Final, TextIO, assert_never, cast

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skicyclerun.models import Waiting
from skicyclerun.progress.events import (
    EXPORT,
    AlbumFinished,
    AlbumStarted,
    ArchiveProgress,
    Notice,
    PhotoFinished,
    ProgressEvent,
    Renderer,
    RunFinished,
    RunStarted,
    StageFinished,
)
from skicyclerun.progress.plain_text import NAMED_FAILURES, album_in_counts, stage_in_counts, waiting_in_words
from skicyclerun.progress.rate import Rate
from skicyclerun.progress.stage_rows import StageRow, progress_bar, stage_table
from skicyclerun.progress.terminal_text import LastingStream
from skicyclerun.wording import bytes_in_words, counted, printable, seconds_in_words

_REFRESHES_A_SECOND: Final = 8
#: The display is never higher, however high the terminal.
_MOST_LINES: Final = 8
#: What the export, or the archiver in its place, takes of them.
_LINES_OF_EXPORT: Final = 3
#: Columns for a `^C` behind the last line.
_ROOM_FOR_CURSOR: Final = 3
_PHASES: Final = {"writing": "Archiving", "proving": "Proving the archive", "cleaning": "Cleaning"}
_STYLES: Final = {"info": "", "warning": "yellow", "error": "bold red"}


class _Current:
    """Asks what to draw whenever it is drawn, also below a line that is printed above it: never an older frame."""

    def __init__(self, render: Callable[[], RenderableType]) -> None:
        self._render = render

    def __rich__(self) -> RenderableType:
        return self._render()


class _ShortOfTheEdge:
    """The cursor stands behind the last line, and a terminal writes ^C there: with no room left for it, it would begin
    a line, and what lies above is wiped away one line too low.

    Not `Padding`, which fills that room with spaces: the cursor would stand behind those.
    """

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._inner, options.update_width(max(1, options.max_width - _ROOM_FOR_CURSOR)))


class RichDisplay(Renderer):
    """A `Renderer` on a terminal: album n of m, photo n of m, rate, time left, and the archiver's phases.

    Below the export each stage that comes after it has a line, from its first event on. While a photo is waited for, a
    line says which and counts the seconds.

    Nothing is drawn and the cursor stays as it is until an album, a stage or the archiver begins, so that questions can
    be asked before. All text is passed as `Text`, never as markup, and made safe for a terminal. `NO_COLOR` is honoured
    by rich.
    """

    def __init__(
        self, stream: TextIO, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(file=cast(IO[str], LastingStream(stream)), highlight=False, emoji=False)
        self._clock = clock
        # The display's own thread reads what `handle` writes.
        self._lock = threading.Lock()
        self._rows: dict[str, StageRow] = {}
        self._photos: int | None = None
        self._photos_done = 0
        self._archive: ArchiveProgress | None = None
        self._waiting: Waiting | None = None
        self._waiting_since = 0.0
        self._start_rates()
        # Standard output is for data: what others print there goes there, not through this display.
        self._live = Live(
            _Current(self._render),
            console=self._console,
            refresh_per_second=_REFRESHES_A_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def handle(self, event: ProgressEvent) -> None:
        with self._lock:
            above = self._take(event)
        if isinstance(event, AlbumStarted | ArchiveProgress) or (
            isinstance(event, PhotoFinished | AlbumFinished) and event.stage != EXPORT
        ):
            self._live.start()  # does nothing where it has started
        elif isinstance(event, RunFinished):
            self._live.stop()
        for line in above:
            self._console.print(line, overflow="fold")

    def close(self) -> None:
        self._live.stop()

    def _take(self, event: ProgressEvent) -> list[Text]:
        """Take an event into account; returns the lines to print above the display."""
        match event:
            case RunStarted():
                self._photos = event.photos
                self._start_rates()
                photos = f", {counted(event.photos, 'photo')}" if event.photos is not None else ""
                return [
                    Text(f"Run {event.run_id}: {counted(event.albums, 'album')}{photos} from {printable(event.source)}")
                ]
            case AlbumStarted():
                self._row(event.stage).take(event)
                self._leave_archive(event.stage)
            case PhotoFinished():
                return self._take_photo(event)
            case AlbumFinished():
                row = self._row(event.stage)
                unnamed = max(0, row.named - NAMED_FAILURES)
                row.take(event)
                self._leave_archive(event.stage)
                return [_album_line(event, unnamed=unnamed)] if _says_something(event) else []
            case StageFinished():
                if event.stage in self._rows:
                    self._rows[event.stage].take(event)
            case ArchiveProgress():
                if self._archive is None or self._archive.phase != event.phase:
                    self._byte_rate = Rate(clock=self._clock)
                    self._byte_rate.add(event.done_bytes)
                else:
                    self._byte_rate.add(event.done_bytes - self._archive.done_bytes)
                self._archive = event
            case Waiting():
                return self._take_waiting(event)
            case Notice():
                return [Text(printable(event.text), style=_STYLES[event.level])]
            case RunFinished():
                self._rows.clear()
                self._archive = self._waiting = None
                return _run_lines(event)
            case _:
                assert_never(event)
        return []

    def _take_waiting(self, event: Waiting) -> list[Text]:
        """Of a photo: a line of the display. Anything else is waited for before there is a display."""
        if event.kind != "photo":
            return [] if event.over else [Text(f"Waiting for {waiting_in_words(event)}")]
        self._waiting = None if event.over else event
        self._waiting_since = self._clock() - event.seconds
        return []

    def _start_rates(self) -> None:
        self._photo_rate, self._byte_rate = Rate(clock=self._clock), Rate(clock=self._clock)

    def _row(self, stage: str) -> StageRow:
        if stage not in self._rows:
            self._rows[stage] = StageRow(stage, self._clock)
        return self._rows[stage]

    def _leave_archive(self, stage: str) -> None:
        """The archiver is done when the export begins an album; beside the stages it may be at work."""
        archive = self._archive
        if archive is None:
            return
        if stage == EXPORT:
            self._start_rates()
        elif archive.done_bytes < archive.total_bytes:
            return
        self._archive = None

    def _take_photo(self, event: PhotoFinished) -> list[Text]:
        row = self._row(event.stage)
        row.take(event)
        if event.stage == EXPORT:
            self._photos_done += 1
            # What was there already took no time, and would make the estimate of the rest too bright.
            if event.outcome not in ("kept", "skipped"):
                self._photo_rate.add(1)
                self._byte_rate.add(event.size)
        if event.outcome not in ("failed", "missing") or row.named > NAMED_FAILURES:
            return []
        style = "red" if event.outcome == "failed" else "yellow"
        reason = f": {printable(event.reason)}" if event.reason else ""
        return [Text.assemble((event.outcome, style), f"  {_stage_first(event.stage)}{printable(event.name)}{reason}")]

    def _render(self) -> RenderableType:
        with self._lock:
            return self._render_parts(*self._console.size)

    def _render_parts(self, width: int, height: int) -> RenderableType:
        export = self._rows.get(EXPORT)
        rows = list(self._rows.values())
        # While stages still work the export that is done is a line like theirs.
        if export is not None and (export.ended is None or len(rows) == 1):
            rows.remove(export)
        else:
            export = None
        lines = min(_MOST_LINES, height)
        above: RenderableType | None = None
        if self._archive is not None:
            above = self._render_archive(self._archive)
        elif export is not None and export.album is not None:
            above = self._render_album(export, export.album)
        if above is not None:
            lines -= _LINES_OF_EXPORT
        if not rows or lines < 1:
            return above if above is not None else Text("")
        room = max(1, width - _ROOM_FOR_CURSOR)
        table = _ShortOfTheEdge(stage_table(rows, room, lines))
        return Group(above, table) if above is not None else table

    def _render_album(self, row: StageRow, album: AlbumStarted) -> RenderableType:
        title = Text(f"Album {album.number} of {album.of}  ", no_wrap=True, overflow="ellipsis")
        title.append(printable(album.title), style="bold")
        photo = f"photo {row.done} of {album.photos}"
        if self._waiting is not None:
            waiting = replace(self._waiting, seconds=self._clock() - self._waiting_since)
            return Group(title, _bar(row.done, album.photos, photo), _facts([waiting_in_words(waiting)]))
        facts = []
        if self._photos is not None:
            facts.append(f"{self._photos_done} of {self._photos} photos")
            left = self._photo_rate.seconds_left(self._photos - self._photos_done)
            if left is not None:
                facts.append(f"{seconds_in_words(left)} left")
        facts.append(f"{self._photo_rate.per_second():.1f} photos/s")
        facts.append(f"{bytes_in_words(self._byte_rate.per_second())}/s")
        if row.failed:
            facts.append(f"{row.failed} not exported")
        return Group(title, _bar(row.done, album.photos, photo), _facts(facts))

    def _render_archive(self, archive: ArchiveProgress) -> RenderableType:
        title = Text(f"{_PHASES[archive.phase]}  ", no_wrap=True, overflow="ellipsis")
        title.append(printable(archive.file))
        amount = f"{bytes_in_words(archive.done_bytes)} of {bytes_in_words(archive.total_bytes)}"
        facts = [f"{bytes_in_words(self._byte_rate.per_second())}/s"]
        left = self._byte_rate.seconds_left(archive.total_bytes - archive.done_bytes)
        if left is not None:
            facts.insert(0, f"{seconds_in_words(left)} left")
        return Group(title, _bar(archive.done_bytes, archive.total_bytes, amount), _facts(facts))


def _bar(done: int, total: int, label: str) -> RenderableType:
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1, min_width=4)
    row.add_column(no_wrap=True, overflow="ellipsis", justify="right")
    row.add_row(progress_bar(done, total), Text(label))
    return row


def _facts(facts: list[str]) -> RenderableType:
    # The most wanted first: a narrow terminal cuts the end.
    return _ShortOfTheEdge(Text(" · ".join(facts), style="dim", no_wrap=True, overflow="ellipsis"))


def _says_something(event: AlbumFinished) -> bool:
    """An album in which a stage had nothing to do is counted in the stage's row; a line each would bury the rest."""
    return event.stage == EXPORT or event.status != "done" or event.exported > event.up_to_date


def _album_line(event: AlbumFinished, *, unnamed: int) -> Text:
    style = {"done": "green", "failed": "red"}.get(event.status, "yellow")
    line = Text.assemble(
        (printable(event.status), style),
        f"  {_stage_first(event.stage)}album {event.number} of {event.of}  {printable(event.title)}: "
        f"{album_in_counts(event)}, {seconds_in_words(event.seconds)}",
    )
    if event.reason:
        line.append(f" ({printable(event.reason)})")
    if unnamed:
        line.append(f" ({unnamed} more not named here; `skicyclerun status --photos` names them)")
    return line


def _run_lines(event: RunFinished) -> list[Text]:
    lines = [
        Text(f"{printable(stage.name)} {'finished' if stage.complete else 'stopped'}: {stage_in_counts(stage)}")
        for stage in event.stages
    ]
    if event.tells_of_export:
        lines.append(
            Text(
                f"{counted(event.done, 'album')} done, {event.failed} failed, {event.pending} pending; "
                f"{counted(event.exported, event.counts_in)} exported in {seconds_in_words(event.seconds)}"
            )
        )
    return lines


def _stage_first(stage: str) -> str:
    return "" if stage == EXPORT else f"{printable(stage)}  "
