"""Progress on a terminal: a few lines that are rewritten in place, with what matters printed above them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO, Final, TextIO, assert_never, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skicyclerun.progress.events import (
    AlbumFinished,
    AlbumStarted,
    ArchiveProgress,
    Notice,
    PhotoFinished,
    ProgressEvent,
    Renderer,
    RunFinished,
    RunStarted,
)
from skicyclerun.progress.plain_text import NAMED_FAILURES
from skicyclerun.progress.rate import Rate
from skicyclerun.progress.terminal_text import LastingStream
from skicyclerun.wording import bytes_in_words, counted, printable, seconds_in_words

_REFRESHES_A_SECOND: Final = 8
_PHASES: Final = {"writing": "Archiving", "proving": "Proving the archive", "cleaning": "Cleaning"}
_STYLES: Final = {"info": "", "warning": "yellow", "error": "bold red"}


class _Current:
    """Asks what to draw whenever it is drawn, also below a line that is printed above it: never an older frame."""

    def __init__(self, render: Callable[[], RenderableType]) -> None:
        self._render = render

    def __rich__(self) -> RenderableType:
        return self._render()


class RichDisplay(Renderer):
    """A `Renderer` on a terminal: album n of m, photo n of m, rate, time left, and the archiver's phases.

    Nothing is drawn and the cursor stays as it is until an album or the archiver begins, so that questions can be
    asked before. All text is passed as `Text`, never as markup, and made safe for a terminal. `NO_COLOR` is honoured
    by rich.
    """

    def __init__(
        self, stream: TextIO, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(file=cast(IO[str], LastingStream(stream)), highlight=False, emoji=False)
        self._clock = clock
        # The display's own thread reads what `handle` writes.
        self._lock = threading.Lock()
        self._album: AlbumStarted | None = None
        self._album_done = 0
        self._photos: int | None = None
        self._photos_done = 0
        self._troubled = 0
        self._named = 0
        self._archive: ArchiveProgress | None = None
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
        if isinstance(event, AlbumStarted | ArchiveProgress):
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
                if self._archive is not None:
                    self._start_rates()
                self._album, self._album_done, self._named, self._archive = event, 0, 0, None
            case PhotoFinished():
                return self._take_photo(event)
            case AlbumFinished():
                return [_album_line(event, unnamed=max(0, self._named - NAMED_FAILURES))]
            case ArchiveProgress():
                if self._archive is None or self._archive.phase != event.phase:
                    self._byte_rate = Rate(clock=self._clock)
                    self._byte_rate.add(event.done_bytes)
                else:
                    self._byte_rate.add(event.done_bytes - self._archive.done_bytes)
                self._archive = event
            case Notice():
                return [Text(printable(event.text), style=_STYLES[event.level])]
            case RunFinished():
                self._album = self._archive = None
                return [
                    Text(
                        f"{counted(event.done, 'album')} done, {event.failed} failed, {event.pending} pending; "
                        f"{counted(event.exported, 'photo')} exported in {seconds_in_words(event.seconds)}"
                    )
                ]
            case _:
                assert_never(event)
        return []

    def _start_rates(self) -> None:
        self._photo_rate, self._byte_rate = Rate(clock=self._clock), Rate(clock=self._clock)

    def _take_photo(self, event: PhotoFinished) -> list[Text]:
        self._album_done = max(self._album_done, event.number)
        self._photos_done += 1
        # What was there already took no time, and would make the estimate of the rest too bright.
        if event.outcome not in ("kept", "skipped"):
            self._photo_rate.add(1)
            self._byte_rate.add(event.size)
        if event.outcome not in ("failed", "missing"):
            return []
        self._troubled += 1
        self._named += 1
        if self._named > NAMED_FAILURES:
            return []
        style = "red" if event.outcome == "failed" else "yellow"
        reason = f": {printable(event.reason)}" if event.reason else ""
        return [Text.assemble((event.outcome, style), f"  {printable(event.name)}{reason}")]

    def _render(self) -> RenderableType:
        with self._lock:
            if self._archive is not None:
                return self._render_archive(self._archive)
            if self._album is not None:
                return self._render_album(self._album)
            return Text("")

    def _render_album(self, album: AlbumStarted) -> RenderableType:
        title = Text(f"Album {album.number} of {album.of}  ", no_wrap=True, overflow="ellipsis")
        title.append(printable(album.title), style="bold")
        photo = f"photo {self._album_done} of {album.photos}"
        facts = []
        if self._photos is not None:
            facts.append(f"{self._photos_done} of {self._photos} photos")
            left = self._photo_rate.seconds_left(self._photos - self._photos_done)
            if left is not None:
                facts.append(f"{seconds_in_words(left)} left")
        facts.append(f"{self._photo_rate.per_second():.1f} photos/s")
        facts.append(f"{bytes_in_words(self._byte_rate.per_second())}/s")
        if self._troubled:
            facts.append(f"{self._troubled} not exported")
        return Group(title, _bar(self._album_done, album.photos, photo), _facts(facts))

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
    row.add_row(ProgressBar(total=max(1, total), completed=min(done, total) if total else 1), Text(label))
    return row


def _facts(facts: list[str]) -> RenderableType:
    # The most wanted first: a narrow terminal cuts the end. The cursor stands behind this line, and a terminal writes
    # ^C there: with no room left for it, it would begin a line that is not wiped away.
    return Padding(Text(" · ".join(facts), style="dim", no_wrap=True, overflow="ellipsis"), (0, 3, 0, 0))


def _album_line(event: AlbumFinished, *, unnamed: int) -> Text:
    style = {"done": "green", "failed": "red"}.get(event.status, "yellow")
    counts = [f"{event.exported} exported"]
    counts += [f"{count} {word}" for count, word in ((event.failed, "failed"), (event.missing, "missing")) if count]
    line = Text.assemble(
        (printable(event.status), style),
        f"  album {event.number} of {event.of}  {printable(event.title)}: {', '.join(counts)}, "
        f"{seconds_in_words(event.seconds)}",
    )
    if event.reason:
        line.append(f" ({printable(event.reason)})")
    if unnamed:
        line.append(f" ({unnamed} more not named here; `skicyclerun status --photos` names them)")
    return line
