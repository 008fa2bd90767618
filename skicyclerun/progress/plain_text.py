"""Progress as plain lines, for logs, pipes and terminals that cannot move a cursor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO, assert_never

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
from skicyclerun.progress.terminal_text import LastingStream
from skicyclerun.wording import bytes_in_words, counted, printable, seconds_in_words

#: Photos named one by one as failed or missing in each album; the rest are counted.
NAMED_FAILURES: Final = 20

_WORDS: Final = {"info": "NOTICE", "warning": "WARNING", "error": "ERROR"}


class PlainText(Renderer):
    """A `Renderer` of lines: `PROGRESS: album_2_of_5 | photo_15_of_42`.

    Progress lines come with the first and the last photo of an album and at most every `interval` seconds between;
    failures, ends of albums and notices always. `quiet` leaves only warnings, errors and albums that failed.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = LastingStream(stream)
        self._quiet = quiet
        self._interval = interval
        self._clock = clock
        self._next_line = clock()
        self._album = 0
        self._named = 0
        self._unnamed = 0
        self._phase = ""

    def handle(self, event: ProgressEvent) -> None:
        match event:
            case RunStarted():
                photos = f", {counted(event.photos, 'photo')}" if event.photos is not None else ""
                self._line(
                    f"RUN: {event.run_id} | {counted(event.albums, 'album')}{photos} | {printable(event.source)}"
                )
            case AlbumStarted():
                self._enter_album(event.number)
            case PhotoFinished():
                self._photo(event)
            case AlbumFinished():
                self._album_end(event)
            case ArchiveProgress():
                self._archive(event)
            case Notice():
                self._line(f"{_WORDS[event.level]}: {printable(event.text)}", always=event.level != "info")
            case RunFinished():
                self._line(
                    f"RUN: {counted(event.done, 'album')} done, {event.failed} failed, {event.pending} pending | "
                    f"{counted(event.exported, 'photo')} exported | {seconds_in_words(event.seconds)}"
                )
            case _:
                assert_never(event)

    def close(self) -> None:
        self._stream.flush()

    def _line(self, text: str, *, always: bool = False) -> None:
        if always or not self._quiet:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _due(self) -> bool:
        now = self._clock()
        if now < self._next_line:
            return False
        self._next_line = now + self._interval
        return True

    def _enter_album(self, number: int) -> None:
        self._album = number
        self._named = self._unnamed = 0
        self._next_line = self._clock()

    def _photo(self, event: PhotoFinished) -> None:
        if event.album_number != self._album:
            self._enter_album(event.album_number)
        if event.outcome in ("failed", "missing"):
            if self._named < NAMED_FAILURES:
                self._named += 1
                reason = f" | {printable(event.reason)}" if event.reason else ""
                self._line(
                    f"{event.outcome.upper()}: album_{event.album_number}_of_{event.albums} | "
                    f"{printable(event.name)}{reason}"
                )
            else:
                self._unnamed += 1
        if self._due() or event.number >= event.of:
            self._line(
                f"PROGRESS: album_{event.album_number}_of_{event.albums} | photo_{event.number}_of_{event.of}",
            )

    def _album_end(self, event: AlbumFinished) -> None:
        if self._unnamed and event.number == self._album:
            self._line(f"FAILED: {self._unnamed} more; `skicyclerun status --photos` names them")
        counts = [f"{event.exported} exported"]
        counts += [f"{count} {word}" for count, word in ((event.failed, "failed"), (event.missing, "missing")) if count]
        reason = f" | {printable(event.reason)}" if event.reason else ""
        self._line(
            f"ALBUM: album_{event.number}_of_{event.of} | {printable(event.status)} | {printable(event.title)} | "
            f"{', '.join(counts)} | {seconds_in_words(event.seconds)}{reason}",
            always=event.status == "failed",
        )

    def _archive(self, event: ArchiveProgress) -> None:
        if event.phase != self._phase:
            self._phase = event.phase
            self._next_line = self._clock()
        if self._due() or event.done_bytes >= event.total_bytes:
            share = 100 * event.done_bytes // event.total_bytes if event.total_bytes else 100
            self._line(
                f"PROGRESS: archive_{event.phase} | {bytes_in_words(event.done_bytes)} of "
                f"{bytes_in_words(event.total_bytes)} | {share} %"
            )
