"""Progress as plain lines, for logs, pipes and terminals that cannot move a cursor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TextIO, assert_never

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
    StageDone,
    StageFinished,
)
from skicyclerun.progress.rate import Rate
from skicyclerun.progress.terminal_text import LastingStream
from skicyclerun.wording import bytes_in_words, counted, printable, seconds_in_words

#: Photos named one by one as failed or missing in each album; the rest are counted.
NAMED_FAILURES: Final = 20

#: Seconds a picture from which on it is said how long the rest will take.
_SLOW: Final = 2.0
_WORDS: Final = {"info": "NOTICE", "warning": "WARNING", "error": "ERROR"}


@dataclass(slots=True)
class _Pace:
    """Where a stage is, what it has named, and when its next line is due."""

    clock: Callable[[], float]
    interval: float
    next_line: float = 0.0
    album: int = 0
    named: int = 0
    unnamed: int = 0
    rate: Rate = field(init=False)

    def __post_init__(self) -> None:
        self.rate = Rate(clock=self.clock)

    def enter_album(self, number: int) -> None:
        self.album = number
        self.named = self.unnamed = 0
        self.rate.resume()
        self.begin_anew()

    def begin_anew(self) -> None:
        self.next_line = self.clock()

    def due(self) -> bool:
        now = self.clock()
        if now < self.next_line:
            return False
        self.next_line = now + self.interval
        return True


class PlainText(Renderer):
    """A `Renderer` of lines: `PROGRESS: album_2_of_5 | photo_15_of_42`.

    Progress lines come with the first and the last photo of an album and at most every `interval` seconds between;
    failures, ends of albums and notices always. `quiet` leaves only warnings, errors and albums that failed. Stages
    after the export say their name (`PROGRESS: preprocessing | album_1_of_5 | photo_3_of_42`), and each has its own
    interval. Where a picture takes seconds, how many, and how long the album will take, stand behind it.
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
        self._paces: dict[str, _Pace] = {}
        self._archive_pace = _Pace(clock, interval)
        self._phase = ""

    def handle(self, event: ProgressEvent) -> None:
        match event:
            case RunStarted():
                photos = f", {counted(event.photos, 'photo')}" if event.photos is not None else ""
                self._line(
                    f"RUN: {event.run_id} | {counted(event.albums, 'album')}{photos} | {printable(event.source)}"
                )
            case AlbumStarted():
                self._pace(event.stage).enter_album(event.number)
            case PhotoFinished():
                self._photo(event)
            case AlbumFinished():
                self._album_end(event)
            case StageFinished():
                pass  # `RunFinished` tells what came of it.
            case ArchiveProgress():
                self._archive(event)
            case Waiting():
                if not event.over:
                    self._line(f"WAITING: {waiting_in_words(event)}")
            case Notice():
                self._line(f"{_WORDS[event.level]}: {printable(event.text)}", always=event.level != "info")
            case RunFinished():
                self._run_end(event)
            case _:
                assert_never(event)

    def close(self) -> None:
        self._stream.flush()

    def _line(self, text: str, *, always: bool = False) -> None:
        if always or not self._quiet:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _pace(self, stage: str) -> _Pace:
        if stage not in self._paces:
            self._paces[stage] = _Pace(self._clock, self._interval)
        return self._paces[stage]

    def _photo(self, event: PhotoFinished) -> None:
        pace = self._pace(event.stage)
        if event.album_number != pace.album:
            pace.enter_album(event.album_number)
        where = f"{_stage_first(event.stage)}album_{event.album_number}_of_{event.albums}"
        if event.outcome in ("failed", "missing"):
            if pace.named < NAMED_FAILURES:
                pace.named += 1
                reason = f" | {printable(event.reason)}" if event.reason else ""
                self._line(f"{event.outcome.upper()}: {where} | {printable(event.name)}{reason}")
            else:
                pace.unnamed += 1
        pace.rate.add(1)
        if pace.due() or event.number >= event.of:
            self._line(f"PROGRESS: {where} | photo_{event.number}_of_{event.of}{_time_left(pace.rate, event)}")

    def _album_end(self, event: AlbumFinished) -> None:
        pace = self._pace(event.stage)
        if pace.unnamed and event.number == pace.album:
            self._line(
                f"FAILED: {_stage_first(event.stage)}{pace.unnamed} more; `skicyclerun status --photos` names them"
            )
        reason = f" | {printable(event.reason)}" if event.reason else ""
        kind = "ALBUM" if event.stage == EXPORT else "STAGE"
        self._line(
            f"{kind}: {_stage_first(event.stage)}album_{event.number}_of_{event.of} | {printable(event.status)} | "
            f"{printable(event.title)} | {album_in_counts(event)} | {seconds_in_words(event.seconds)}{reason}",
            always=event.status == "failed",
        )

    def _archive(self, event: ArchiveProgress) -> None:
        if event.phase != self._phase:
            self._phase = event.phase
            self._archive_pace.begin_anew()
        if self._archive_pace.due() or event.done_bytes >= event.total_bytes:
            share = 100 * event.done_bytes // event.total_bytes if event.total_bytes else 100
            self._line(
                f"PROGRESS: archive_{event.phase} | {bytes_in_words(event.done_bytes)} of "
                f"{bytes_in_words(event.total_bytes)} | {share} %"
            )

    def _run_end(self, event: RunFinished) -> None:
        for stage in event.stages:
            word = "finished" if stage.complete else "stopped"
            self._line(f"STAGE: {printable(stage.name)} | {word} | {stage_in_counts(stage)}")
        if event.tells_of_export:
            self._line(
                f"RUN: {counted(event.done, 'album')} done, {event.failed} failed, {event.pending} pending | "
                f"{counted(event.exported, event.counts_in)} exported | {seconds_in_words(event.seconds)}"
            )


def _time_left(rate: Rate, event: PhotoFinished) -> str:
    """` | 42 s each, 5 min for this album`, where a picture takes so long that somebody would ask."""
    each = rate.per_second()
    left = rate.seconds_left(event.of - event.number)
    if not each or each > 1 / _SLOW or not left:
        return ""
    return f" | {seconds_in_words(1 / each)} each, {seconds_in_words(left)} for this album"


def _stage_first(stage: str) -> str:
    return "" if stage == EXPORT else f"{printable(stage)} | "


# ── in numbers: one form here and in the live display ─────────────────────────────────────────────────────────────


def waiting_in_words(event: Waiting) -> str:
    """`IMG_1.HEIC: 20 s so far, at most 2 min 25 s. Photos …`; `albums of Photos.app: 40 of 200, 5.0 s so far`."""
    what = printable(event.what)
    facts = []
    match event.kind:
        case "albums":
            what = f"albums of {what}"
            facts.append(f"{event.done} of {event.of}" if event.of else f"{event.done} found")
        case "album":
            what = f"list of the {counted(event.of, 'photo')} of {what}" if what else "list of an album's photos"
        case _:
            pass
    if event.seconds:
        facts.append(f"{seconds_in_words(event.seconds)} so far")
    if event.at_most is not None:
        facts.append(f"at most {seconds_in_words(event.at_most)}")
    note = f". {printable(event.note)}" if event.note else ""
    return f"{what}: {', '.join(facts)}{note}"


def album_in_counts(event: AlbumFinished) -> str:
    """`4 exported, 1 missing`; of a stage after the export `4 made, 2 failed, 1 waiting, 9 up to date`."""
    if event.stage == EXPORT:
        return _joined(f"{event.exported} exported", ((event.failed, "failed"), (event.missing, "missing")))
    return _joined(
        f"{event.exported - event.up_to_date} made",
        ((event.failed, "failed"), (event.missing, "waiting"), (event.up_to_date, "up to date")),
    )


def stage_in_counts(stage: StageDone) -> str:
    """`13 made, 0 failed`, and behind it what else there is: `2 waiting, 9 up to date, 1 left out`."""
    return _joined(
        f"{stage.made} made, {stage.failed} failed",
        ((stage.waiting, "waiting"), (stage.up_to_date, "up to date"), (stage.left_out, "left out")),
    )


def _joined(first: str, others: Iterable[tuple[int, str]]) -> str:
    return ", ".join([first, *(f"{count} {word}" for count, word in others if count)])
