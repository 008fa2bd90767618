from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any, TextIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from skicyclerun.models import Waiting
from skicyclerun.progress.choose import choose_renderer
from skicyclerun.progress.events import (
    AlbumFinished,
    AlbumStarted,
    ArchiveProgress,
    Notice,
    Outcome,
    PhotoFinished,
    ProgressEvent,
    Renderer,
    RunFinished,
    RunStarted,
    StageDone,
    StageFinished,
)
from skicyclerun.progress.json_lines import JsonLines
from skicyclerun.progress.plain_text import NAMED_FAILURES, PlainText
from skicyclerun.progress.rate import Rate
from skicyclerun.progress.rich_display import RichDisplay
from skicyclerun.progress.terminal_text import LastingStream

CHECKOUT = Path(__file__).resolve().parents[1]
HOSTILE = "[red]Te\x1b[2Jst[/red]\r\n[/] \u202egpj 😀 \x07\x9b31m \ud800 [link=http://x]"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def photo(number: int, of: int = 42, outcome: Outcome = "exported", album: int = 2, name: str = "") -> PhotoFinished:
    return PhotoFinished(album, 5, number, of, name or f"IMG_{number}.jpg", outcome, 3_000_000, "it is truncated")


def picture(stage: str, number: int, of: int = 12, outcome: Outcome = "exported", album: int = 1) -> PhotoFinished:
    reason = "it is truncated" if outcome == "failed" else ""
    return PhotoFinished(album, 4, number, of, f"IMG_{number}.jpg", outcome, 1_000, reason, stage)


def plain(stream: TextIO, clock: Clock, events: list[ProgressEvent]) -> None:
    with PlainText(stream, clock=clock) as renderer:
        for event in events:
            renderer.handle(event)


# ── plain lines ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_plain_lines_come_first_last_and_once_a_second_between(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainText(stream, clock=clock) as renderer:
        renderer.handle(AlbumStarted(2, 5, "Summer", 42))
        for number in range(1, 43):
            renderer.handle(photo(number))
            clock.now += 0.1

    assert stream.getvalue().splitlines() == [
        f"PROGRESS: album_2_of_5 | photo_{number}_of_42" for number in (1, 11, 21, 31, 41, 42)
    ]


def test_plain_text_names_failures_and_the_end_of_each_album(clock: Clock) -> None:
    stream = io.StringIO()
    plain(
        stream,
        clock,
        [
            RunStarted(7, 5, 42, "/lib/My.photoslibrary"),
            AlbumStarted(2, 5, "Summer", 2),
            photo(1, 2, "missing"),
            photo(2, 2, "failed"),
            AlbumFinished(2, 5, "Summer", "failed", 0, 1, 1, "2 of 2 photos failed", 3.25),
            ArchiveProgress("writing", 0, 2_900_000_000, "a.jpg"),
            ArchiveProgress("writing", 5, 2_900_000_000, "b.jpg"),
            ArchiveProgress("proving", 2_900_000_000, 2_900_000_000),
            ArchiveProgress("cleaning", 0, 0),
            Notice("The catalog was made anew.", "warning"),
            RunFinished(4, 1, 0, 40, 3725.0),
        ],
    )

    assert stream.getvalue().splitlines() == [
        "RUN: 7 | 5 albums, 42 photos | /lib/My.photoslibrary",
        "MISSING: album_2_of_5 | IMG_1.jpg | it is truncated",
        "PROGRESS: album_2_of_5 | photo_1_of_2",
        "FAILED: album_2_of_5 | IMG_2.jpg | it is truncated",
        "PROGRESS: album_2_of_5 | photo_2_of_2",
        "ALBUM: album_2_of_5 | failed | Summer | 0 exported, 1 failed, 1 missing | 3.2 s | 2 of 2 photos failed",
        "PROGRESS: archive_writing | 0 bytes of 2.9 GB | 0 %",
        "PROGRESS: archive_proving | 2.9 GB of 2.9 GB | 100 %",
        "PROGRESS: archive_cleaning | 0 bytes of 0 bytes | 100 %",
        "WARNING: The catalog was made anew.",
        "RUN: 4 albums done, 1 failed, 0 pending | 40 photos exported | 1 h 2 min",
    ]


def test_plain_lines_say_how_long_it_takes_where_a_picture_takes_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainText(stream, clock=clock) as renderer:
        renderer.handle(AlbumStarted(1, 4, "Alps", 6, "lora_processing"))
        for number in range(1, 4):
            clock.now += 40
            renderer.handle(picture("lora_processing", number, 6))
    assert stream.getvalue().splitlines()[-1] == (
        "PROGRESS: lora_processing | album_1_of_4 | photo_3_of_6 | 40 s each, 2 min 0 s for this album"
    )


def test_plain_lines_name_the_stages_after_the_export(clock: Clock) -> None:
    stream = io.StringIO()
    plain(
        stream,
        clock,
        [
            AlbumStarted(1, 4, "2024/Alps", 4, "preprocessing"),
            picture("preprocessing", 1, 4),
            picture("preprocessing", 2, 4, "failed"),
            picture("preprocessing", 3, 4),
            AlbumFinished(1, 4, "2024/Alps", "done", 4, 0, 0, "", 0.4, "preprocessing"),
            AlbumFinished(2, 4, "Coast", "done", 3, 0, 0, "", 0.1, "preprocessing", up_to_date=3),
            AlbumFinished(3, 4, "Lake", "failed", 4, 2, 1, "full", 12.0, "preprocessing", up_to_date=3),
            StageFinished("preprocessing", complete=True),
            Notice("watermarking: the font has no Thai letters.", "warning"),
        ],
    )

    assert stream.getvalue().splitlines() == [
        "PROGRESS: preprocessing | album_1_of_4 | photo_1_of_4",
        "FAILED: preprocessing | album_1_of_4 | IMG_2.jpg | it is truncated",
        "STAGE: preprocessing | album_1_of_4 | done | 2024/Alps | 4 made | 0.4 s",
        "STAGE: preprocessing | album_2_of_4 | done | Coast | 0 made, 3 up to date | 0.1 s",
        "STAGE: preprocessing | album_3_of_4 | failed | Lake | 1 made, 2 failed, 1 waiting, 3 up to date | 12 s | full",
        "WARNING: watermarking: the font has no Thai letters.",
    ]


def test_each_stage_has_its_own_pace(clock: Clock) -> None:
    """Stages work on different albums at once: one must neither silence the other nor begin its album anew."""
    apart = {}
    events: dict[str, list[ProgressEvent]] = {
        "export": [AlbumStarted(2, 5, "Summer", 42), *(photo(number) for number in range(1, 43))],
        "preprocessing": [
            AlbumStarted(1, 4, "Alps", 42, "preprocessing"),
            *(picture("preprocessing", number, 42) for number in range(1, 43)),
        ],
    }
    together = io.StringIO()
    with PlainText(together, clock=clock) as renderer:
        for of_export, of_stage in zip(*events.values(), strict=True):
            renderer.handle(of_export)
            renderer.handle(of_stage)
            clock.now += 0.1
    for stage, its_events in events.items():
        stream = io.StringIO()
        with PlainText(stream, clock=clock) as renderer:
            for event in its_events:
                renderer.handle(event)
                clock.now += 0.1
        apart[stage] = stream.getvalue().splitlines()

    lines = together.getvalue().splitlines()
    assert [line for line in lines if "preprocessing" not in line] == apart["export"]
    assert [line for line in lines if "preprocessing" in line] == apart["preprocessing"]
    assert len(apart["export"]) == len(apart["preprocessing"]) == 6


def test_failures_are_counted_for_each_stage(clock: Clock) -> None:
    stream = io.StringIO()
    events: list[ProgressEvent] = [AlbumStarted(1, 4, "Alps", 30, stage) for stage in ("preprocessing", "watermarking")]
    for number in range(1, 31):
        events += [picture(stage, number, 30, "failed") for stage in ("preprocessing", "watermarking")]
    events += [AlbumFinished(1, 4, "Alps", "failed", 0, 30, 0, "", 1.0, stage) for stage in ("watermarking",)]
    plain(stream, clock, events)

    lines = stream.getvalue().splitlines()
    for stage in ("preprocessing", "watermarking"):
        assert sum(line.startswith(f"FAILED: {stage} | album_1") for line in lines) == NAMED_FAILURES
    assert f"FAILED: watermarking | {30 - NAMED_FAILURES} more; `skicyclerun status --photos` names them" in lines
    assert not any(line.startswith("FAILED: preprocessing | 10 more") for line in lines)


STAGES_DONE = (
    StageDone("metadata_extraction", made=0, up_to_date=13, failed=0, waiting=0, left_out=0),
    StageDone("preprocessing", made=13, up_to_date=0, failed=0, waiting=0, left_out=0),
    StageDone("watermarking", made=5, up_to_date=1, failed=2, waiting=3, left_out=4, complete=False),
)


@pytest.mark.parametrize(
    ("finished", "run_line"),
    [
        (RunFinished(0, 0, 0, 0, 2.8, STAGES_DONE), None),
        (
            RunFinished(4, 0, 0, 13, 2.8, STAGES_DONE),
            "RUN: 4 albums done, 0 failed, 0 pending | 13 photos exported | 2.8 s",
        ),
        (
            RunFinished(0, 1, 0, 0, 2.8, STAGES_DONE),
            "RUN: 0 albums done, 1 failed, 0 pending | 0 photos exported | 2.8 s",
        ),
        (RunFinished(0, 0, 0, 0, 2.8), "RUN: 0 albums done, 0 failed, 0 pending | 0 photos exported | 2.8 s"),
    ],
)
def test_the_end_tells_of_each_stage_and_of_the_export_where_there_was_one(
    finished: RunFinished, run_line: str | None, clock: Clock
) -> None:
    stream = io.StringIO()
    plain(stream, clock, [finished])

    of_stages = [
        "STAGE: metadata_extraction | finished | 0 made, 0 failed, 13 up to date",
        "STAGE: preprocessing | finished | 13 made, 0 failed",
        "STAGE: watermarking | stopped | 5 made, 2 failed, 3 waiting, 1 up to date, 4 left out",
    ]
    assert stream.getvalue().splitlines() == (of_stages if finished.stages else []) + ([run_line] if run_line else [])


def test_thousands_of_failures_do_not_bury_the_rest(clock: Clock) -> None:
    stream = io.StringIO()
    plain(
        stream,
        clock,
        [
            AlbumStarted(2, 5, "Summer", 1000),
            *(photo(number, 1000, "failed") for number in range(1, 1001)),
            AlbumFinished(2, 5, "Summer", "failed", 0, 1000, 0, "", 1.0),
        ],
    )

    lines = stream.getvalue().splitlines()
    assert sum(line.startswith("FAILED: album") for line in lines) == NAMED_FAILURES
    assert f"FAILED: {1000 - NAMED_FAILURES} more; `skicyclerun status --photos` names them" in lines


def test_quiet_leaves_only_what_is_wrong(clock: Clock) -> None:
    stream = io.StringIO()
    with choose_renderer(stream, quiet=True) as renderer:
        for event in every_event():
            renderer.handle(event)

    assert [line.partition(":")[0] for line in stream.getvalue().splitlines()] == ["ALBUM", "ERROR"]


def every_event(text: str = "x") -> list[ProgressEvent]:
    return [
        RunStarted(1, 2, None, text),
        ArchiveProgress("writing", 1, 2, text),
        AlbumStarted(1, 2, text, 2),
        photo(1, 2, name=text),
        PhotoFinished(1, 2, 2, 2, text, "failed", 0, text),
        AlbumFinished(1, 2, text, "failed", 1, 1, 0, text, 0.5),
        AlbumFinished(2, 2, text, "done", 1, 0, 0, "", 0.5),
        *every_event_of_a_stage("preprocessing", text),
        *every_event_of_a_stage(f"my_{text}", text),
        Waiting("application", text, 0.0, 120.0, note=text),
        Waiting("albums", text, 7.0, done=3),
        Waiting("album", text, 7.0, of=50),
        Waiting("photo", text, 7.0, 145.0, note=text),
        Waiting("photo", text, 9.0, 145.0, note=text, over=True),
        Notice(text, "info"),
        Notice(text, "error"),
        RunFinished(1, 1, 0, 1, 0.5, (StageDone(text, 1, 0, 1, 0, 0),)),
    ]


def every_event_of_a_stage(stage: str, text: str = "x") -> list[ProgressEvent]:
    return [
        AlbumStarted(1, 2, text, 2, stage),
        PhotoFinished(1, 2, 1, 2, text, "exported", 1, "", stage),
        PhotoFinished(1, 2, 2, 2, text, "failed", 0, text, stage),
        AlbumFinished(1, 2, text, "done", 2, 0, 0, "", 0.5, stage),
        AlbumFinished(2, 2, text, "done", 2, 0, 0, "", 0.5, stage, up_to_date=2),
        StageFinished(stage, complete=True),
    ]


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_no_text_moves_the_cursor_or_forges_a_line(text: str) -> None:
    calm, strange = io.StringIO(), io.StringIO()
    plain(calm, Clock(), every_event())
    plain(strange, Clock(), every_event(text))

    assert strange.getvalue().count("\n") == calm.getvalue().count("\n") == len(strange.getvalue().splitlines())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", strange.getvalue())
    strange.getvalue().encode()


def test_plain_lines_say_what_is_waited_for(clock: Clock) -> None:
    stream = io.StringIO()
    events: list[ProgressEvent] = [
        Waiting("application", "Photos.app", 0.0, 120.0, note="macOS asks."),
        Waiting("application", "Photos.app", 10.0, 120.0, note="macOS asks."),
        Waiting("albums", "Photos.app", 5.0, done=1250),
        Waiting("albums", "Photos.app", 12.0, done=400, of=2000),
        Waiting("album", "Trips/Lake", 20.0, of=50_000),
        Waiting("photo", "IMG_1.HEIC", 20.0, 145.0, note="From iCloud."),
        Waiting("photo", "IMG_1.HEIC", 31.0, 145.0, note="From iCloud.", over=True),
    ]
    plain(stream, clock, events)
    assert stream.getvalue().splitlines() == [
        "WAITING: Photos.app: at most 2 min 0 s. macOS asks.",
        "WAITING: Photos.app: 10 s so far, at most 2 min 0 s. macOS asks.",
        "WAITING: albums of Photos.app: 1250 found, 5.0 s so far",
        "WAITING: albums of Photos.app: 400 of 2000, 12 s so far",
        "WAITING: list of the 50000 photos of Trips/Lake: 20 s so far",
        "WAITING: IMG_1.HEIC: 20 s so far, at most 2 min 25 s. From iCloud.",
    ]


# ── the live display ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_live_display_says_album_photo_rate_and_time_left(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=20, color_system=None)
    with RichDisplay(io.StringIO(), console=console, clock=clock) as display:
        display.handle(RunStarted(7, 5, 84, "library"))
        display.handle(AlbumStarted(2, 5, "Summer [bold]", 42))
        for number in range(1, 22):
            clock.now += 0.5
            display.handle(photo(number))
        with console.capture() as capture:
            console.print(display._render())
        text = capture.get()

    assert "Album 2 of 5  Summer [bold]" in text
    assert "photo 21 of 42" in text
    assert "21 of 84 photos · 32 s left · 2.0 photos/s · 6.0 MB/s" in text


def test_the_live_display_counts_the_seconds_of_a_photo_that_is_waited_for(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=20, color_system=None)

    def shown() -> str:
        with console.capture() as capture:
            console.print(display._render())
        return capture.get()

    with RichDisplay(io.StringIO(), console=console, clock=clock) as display:
        display.handle(RunStarted(7, 5, 84, "library"))
        display.handle(AlbumStarted(2, 5, "Summer", 42))
        lines = shown().count("\n")
        display.handle(Waiting("photo", "IMG_1.HEIC", 5.0, 145.0, note="From iCloud."))
        assert "IMG_1.HEIC: 5.0 s so far, at most 2 min 25 s. From iCloud." in shown()
        clock.now += 37
        assert "IMG_1.HEIC: 42 s so far, at most 2 min 25 s. From iCloud." in shown()
        assert shown().count("\n") == lines, "the display keeps its height"
        display.handle(Waiting("photo", "IMG_1.HEIC", 60.0, 145.0, over=True))
        assert "IMG_1.HEIC" not in shown()
        assert "photos/s" in shown()


def test_what_is_waited_for_before_the_first_album_stands_in_lines_without_a_display() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with RichDisplay(stream, console=console) as display:
        display.handle(Waiting("application", "Photos.app", 0.0, 120.0, note="macOS asks."))
        display.handle(Waiting("albums", "Photos.app", 12.0, done=400, of=2000))
        assert stream.getvalue() == (
            "Waiting for Photos.app: at most 2 min 0 s. macOS asks.\n"
            "Waiting for albums of Photos.app: 400 of 2000, 12 s so far\n"
        )


def test_nothing_is_drawn_before_there_is_something_to_show() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with RichDisplay(stream, console=console) as display:
        display.handle(RunStarted(7, 5, 84, "library"))
        display.handle(Notice("One album is empty."))
        assert stream.getvalue() == "Run 7: 5 albums, 84 photos from library\nOne album is empty.\n"
        display.handle(AlbumStarted(2, 5, "Summer", 42))
        assert "\x1b[?25l" in stream.getvalue()
        display.handle(RunFinished(5, 0, 0, 84, 1.0))
        assert "\x1b[?25h" in stream.getvalue()


def test_a_line_above_the_display_never_redraws_an_older_frame() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with RichDisplay(stream, console=console) as display:
        display.handle(AlbumStarted(2, 5, "Summer", 42))
        display._live.auto_refresh = False
        display.handle(photo(1))
        stream.seek(0)
        stream.truncate()
        display.handle(Notice("Something happened."))
        drawn = stream.getvalue()
    assert "photo 0 of 42" not in drawn
    assert "photo 1 of 42" in drawn


def test_photos_that_were_there_already_do_not_brighten_the_estimate(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with RichDisplay(io.StringIO(), console=console, clock=clock) as display:
        display.handle(RunStarted(7, 5, 1010, "library"))
        display.handle(AlbumStarted(2, 5, "Summer", 1010))
        for number in range(1, 1001):
            display.handle(photo(number, 1010, "kept"))
        for number in range(1001, 1006):
            clock.now += 1.0
            display.handle(photo(number, 1010))
        with console.capture() as capture:
            console.print(display._render())

    assert "1005 of 1010 photos · 5.0 s left · 1.0 photos/s" in capture.get()


def test_the_archive_has_its_own_phases_and_rate(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with RichDisplay(io.StringIO(), console=console, clock=clock) as display:
        for done in range(0, 600, 100):
            display.handle(ArchiveProgress("proving", done * 1_000_000, 1_000_000_000, "albums/Summer/IMG_1.jpg"))
            clock.now += 1.0
        with console.capture() as capture:
            console.print(display._render())
        text = capture.get()

    assert "Proving the archive  albums/Summer/IMG_1.jpg" in text
    assert "500 MB of 1.0 GB" in text
    assert "left" in text


def test_the_rate_of_the_archive_is_not_taken_for_that_of_the_export(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with RichDisplay(io.StringIO(), console=console, clock=clock) as display:
        clock.now += 1.0
        display.handle(ArchiveProgress("writing", 9_000_000_000, 9_000_000_000))
        display.handle(AlbumStarted(1, 1, "Summer", 42))
        clock.now += 1.0
        display.handle(photo(1))
        with console.capture() as capture:
            console.print(display._render())

    assert "1.0 photos/s · 3.0 MB/s" in capture.get()


@pytest.mark.parametrize("width", [8, 20, 40, 200])
@given(text=st.text(st.characters(exclude_categories=()), max_size=40))
def test_the_live_area_never_grows_whatever_a_title_holds(width: int, text: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=10, color_system=None)
    display = RichDisplay(io.StringIO(), console=console)
    for event in (AlbumStarted(1, 2, text, 2), photo(1, 2, name=text), ArchiveProgress("writing", 1, 2, text)):
        display._take(event)
        lines = console.render_lines(display._render(), pad=False)
        assert len(lines) == 3
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e]", "".join(part.text for line in lines for part in line))


# ── the live display of stages that work at the same time ─────────────────────────────────────────────────────────


def at_size(width: int, clock: Clock | None = None, height: int = 24) -> tuple[RichDisplay, Console, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, height=height, color_system=None)
    display = RichDisplay(io.StringIO(), console=console, clock=clock or Clock())
    display._live.auto_refresh = False
    return display, console, stream


def drawn(display: RichDisplay, console: Console) -> list[str]:
    """What the live area shows, line by line, without what lies right of it."""
    lines = console.render_lines(display._render(), pad=False)
    return ["".join(part.text for part in line).rstrip() for line in lines]


def test_each_stage_at_work_has_a_line_below_the_export(clock: Clock) -> None:
    display, console, _ = at_size(120, clock)
    with display:
        display.handle(RunStarted(7, 4, 84, "library"))
        display.handle(AlbumStarted(3, 4, "Lake", 42))
        alone = drawn(display, console)
        display.handle(AlbumStarted(2, 4, "Coast", 100, "preprocessing"))
        display.handle(AlbumStarted(1, 4, "2024/Alps [bold]", 20, "watermarking"))
        for number in range(1, 11):
            clock.now += 0.5
            display.handle(picture("preprocessing", number, 100, "failed" if number == 2 else "exported", album=2))
            display.handle(picture("watermarking", number, 20))
        lines = drawn(display, console)

    assert len(alone) == 3
    assert lines[0] == "Album 3 of 4  Lake"
    assert "photo 0 of 42" in lines[1]
    assert "0 of 84 photos" in lines[2], "pictures of other stages are no photos of the export"
    assert re.fullmatch(
        r"preprocessing album 2 of 4  Coast +━+.* +10 of 100 2\.0/s · 1 failed · 45 s for this album", lines[3]
    )
    assert re.fullmatch(r"watermarking  album 1 of 4  2024/Alps \[bold\] +━+.* +10 of 20 2\.0/s", lines[4])
    assert len(lines) == 5


def test_stages_alone_stand_in_order_of_appearance_and_end_as_done(clock: Clock) -> None:
    display, console, _ = at_size(80, clock)
    with display:
        assert drawn(display, console) == [""]
        display.handle(AlbumStarted(1, 2, "Alps", 4, "metadata_extraction"))
        display.handle(AlbumFinished(1, 2, "Alps", "done", 4, 0, 0, "", 0.4, "metadata_extraction"))
        display.handle(AlbumStarted(1, 2, "Alps", 4, "preprocessing"))
        display.handle(AlbumStarted(2, 2, "Coast", 3, "metadata_extraction"))
        display.handle(AlbumFinished(2, 2, "Coast", "failed", 2, 1, 0, "", 0.4, "metadata_extraction"))
        waiting = drawn(display, console)
        display.handle(StageFinished("metadata_extraction", complete=True))
        lines = drawn(display, console)
        display.handle(AlbumFinished(1, 2, "Alps", "pending", 2, 0, 0, "", 0.4, "preprocessing"))
        display.handle(StageFinished("preprocessing", complete=False))
        stopped = drawn(display, console)

    assert re.fullmatch(r"metadata_extraction 2/2  Coast +0 of 3", waiting[0])
    assert lines[0] == "metadata_extraction done: 2 albums, 1 failed"
    assert re.fullmatch(r"preprocessing       1/2  Alps +━* +0 of 4", lines[1])
    assert len(lines) == 2
    assert stopped[1] == "preprocessing       stopped: 0 albums"


def test_an_export_that_is_done_is_a_line_like_the_others_while_they_work(clock: Clock) -> None:
    display, console, _ = at_size(80, clock)
    with display:
        display.handle(AlbumStarted(1, 1, "Alps", 4))
        display.handle(AlbumFinished(1, 1, "Alps", "done", 4, 0, 0, "", 0.4))
        display.handle(StageFinished("export", complete=True))
        assert drawn(display, console)[0] == "Album 1 of 1  Alps", "as ever where it is alone"
        display.handle(AlbumStarted(1, 1, "Alps", 4, "preprocessing"))
        lines = drawn(display, console)

    assert lines[0] == "export        done: 1 album"
    assert len(lines) == 2


def test_an_album_with_nothing_to_do_shows_in_its_stages_line_only() -> None:
    display, console, stream = at_size(80)
    with display:
        display.handle(AlbumFinished(3, 4, "Lake", "done", 3, 0, 0, "", 0.0, "preprocessing", up_to_date=3))
        assert "Lake:" not in stream.getvalue()
        assert re.fullmatch(r"preprocessing 3/4  Lake +━+ +3 of 3", drawn(display, console)[0])
        display.handle(AlbumFinished(4, 4, "Coast", "done", 3, 0, 0, "", 0.4, "preprocessing", up_to_date=2))
        display.handle(picture("preprocessing", 2, 4, "failed"))
        display.handle(Notice("watermarking: the font has no Thai letters.", "warning"))

    assert "done  preprocessing  album 4 of 4  Coast: 1 made, 2 up to date, 0.4 s" in stream.getvalue()
    assert "failed  preprocessing  IMG_2.jpg: it is truncated" in stream.getvalue()
    assert "watermarking: the font has no Thai letters." in stream.getvalue()


def test_the_time_a_stage_waits_for_its_next_album_does_not_slow_its_rate(clock: Clock) -> None:
    display, console, _ = at_size(80, clock)
    with display:
        for album in (1, 2):
            display.handle(AlbumStarted(album, 2, "Alps", 4, "preprocessing"))
            for number in (1, 2, 3, 4):
                clock.now += 1.0
                display.handle(picture("preprocessing", number, 4, album=album))
            clock.now += 0.0 if album == 2 else 600.0
        lines = drawn(display, console)

    assert lines[0].endswith("4 of 4 1.0/s")


def test_the_archive_goes_when_a_stage_begins_and_stays_while_it_is_at_work() -> None:
    display, console, _ = at_size(80)
    with display:
        display.handle(ArchiveProgress("writing", 5, 10, "a.jpg"))
        display.handle(AlbumStarted(1, 4, "Alps", 4, "preprocessing"))
        beside = drawn(display, console)
        display.handle(ArchiveProgress("cleaning", 10, 10))
        display.handle(AlbumStarted(2, 4, "Coast", 4, "preprocessing"))
        after = drawn(display, console)

    assert (beside[0], len(beside)) == ("Archiving  a.jpg", 4)
    assert len(after) == 1
    assert after[0].startswith("preprocessing 2/4  Coast")


@pytest.mark.parametrize("height", [1, 3, 4, 6, 24])
@pytest.mark.parametrize("with_export", [False, True])
def test_many_stages_stay_within_the_terminal(height: int, with_export: bool) -> None:
    display, console, _ = at_size(80, height=height)
    with display:
        if with_export:
            display.handle(AlbumStarted(1, 4, "Alps", 4))
        for number in range(1, 13):
            display.handle(AlbumStarted(1, 4, "Alps", 4, f"stage_{number}"))
        display.handle(StageFinished("stage_1", complete=True))
        lines = drawn(display, console)

    # The export's three lines are cut by the terminal where it has fewer.
    assert len(lines) == min(8, max(height, 3 if with_export else 1))
    if len(lines) > 3:
        assert "more stages" in lines[-1]
        assert not any(line.startswith("stage_1 ") for line in lines), "what is done makes room first"


@pytest.mark.parametrize("width", [1, 8, 20, 40, 70, 200])
@given(text=st.text(st.characters(exclude_categories=()), max_size=40))
def test_a_stages_line_stays_one_line_whatever_it_holds(width: int, text: str) -> None:
    display, console, _ = at_size(width)
    display._take(AlbumStarted(1, 2, text, 2))
    for stage in ("preprocessing", f"my_{text}"):
        for event in every_event_of_a_stage(stage, text):
            display._take(event)
            lines = drawn(display, console)
            assert len(lines) <= 3 + len(display._rows) - 1
            assert width == 1 or len(lines) == 3 + len(display._rows) - 1
            assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e]", "".join(lines))


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_the_last_line_leaves_room_for_the_c_that_the_terminal_writes_behind_it(width: int) -> None:
    display, console, _ = at_size(width)
    with display:
        display.handle(RunStarted(7, 4, 84, "library"))
        for event in (
            AlbumStarted(1, 4, "Lake", 42),
            AlbumStarted(1, 4, "A title of many words" * 9, 9, "watermarking"),
        ):
            display.handle(event)
            last = console.render_lines(display._render(), pad=False)[-1]
            # Spaces count: the cursor stands behind them.
            assert sum(part.cell_length for part in last) <= width - 3


def test_narrow_terminals_leave_out_the_title_then_the_bar() -> None:
    shown = {}
    for width in (70, 40, 30):
        display, console, _ = at_size(width)
        with display:
            display.handle(AlbumStarted(2, 4, "Coast", 12, "preprocessing"))
            display.handle(picture("preprocessing", 5, 12, album=2))
            display.handle(AlbumStarted(1, 4, "Coast", 12, "watermarking"))
            display.handle(AlbumFinished(1, 4, "Coast", "done", 12, 0, 0, "", 1.0, "watermarking"))
            display.handle(StageFinished("watermarking", complete=True))
            shown[width] = drawn(display, console)

    assert "2/4  Coast" in shown[70][0]
    assert re.fullmatch(r"preprocessing ━+.* +5 of 12", shown[40][0])
    assert re.fullmatch(r"preprocessing +5 of 12", shown[30][0])
    assert all(re.fullmatch(r"watermarking +done: 1 album", lines[1]) for lines in shown.values())


_SCRIPT = """
import sys
sys.path.insert(0, {checkout!r})
from skicyclerun.progress.choose import choose_renderer
from skicyclerun.wording import bytes_in_words, printable, seconds_in_words
from tests.test_progress import HOSTILE, every_event
with choose_renderer(sys.stderr) as renderer:
    for event in every_event(HOSTILE):
        renderer.handle(event)
    print("data")
"""


def on_a_terminal(columns: int, **environment: str) -> tuple[str, str, int]:
    """Run the script with stderr on a terminal of its own: (what the terminal got, what stdout got, exit code)."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT.format(checkout=str(CHECKOUT))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    got = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            block = os.read(ours, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not block:
            break
        got += block
    os.close(ours)
    data, _ = process.communicate(timeout=60)
    return got.decode("utf-8", "replace"), data.decode(), process.returncode


_STYLE = re.compile("\x1b\\[[0-9;]*m")
_CURSOR = re.compile("\x1b\\[(?:[0-9]*[AK]|\\?25[lh])|\r")


@pytest.mark.parametrize("columns", [40, 120])
def test_a_real_terminal_gets_a_display_that_is_taken_away_at_the_end(columns: int) -> None:
    screen, data, code = on_a_terminal(columns, NO_COLOR="", COLORTERM="")

    assert (data, code) == ("data\n", 0)
    text = _CURSOR.sub("", _STYLE.sub("", screen))
    assert "\x1b" not in text, "what a title holds is no escape sequence"
    assert "[red]Te\\x1b[2Jst[/red]" in text
    assert "failed" in text
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h") == 1, "the cursor is hidden, and shown again"
    at_the_end = screen.rpartition("\x1b[2K")[2]
    assert "photo 2 of 2" not in at_the_end, "the live lines are erased at the end"
    assert "preprocessing" in text
    assert "done: 2 albums" not in at_the_end


def test_no_color_is_honoured() -> None:
    colours = re.compile("\x1b\\[(?:[0-9;]*;)?(?:3[0-7]|38|9[0-7])[;0-9]*m")

    assert colours.search(on_a_terminal(80, NO_COLOR="")[0])
    assert not colours.search(on_a_terminal(80, NO_COLOR="1")[0])


def test_a_dumb_terminal_gets_lines() -> None:
    screen, _, _ = on_a_terminal(80, TERM="dumb")

    assert "PROGRESS: album_2_of_5 | photo_1_of_2" in screen
    assert "\x1b" not in screen


# ── JSON, choosing, streams ───────────────────────────────────────────────────────────────────────────────────────


def test_json_lines_hold_every_event_whole() -> None:
    stream = io.StringIO()
    with choose_renderer(stream, json=True) as renderer:
        for event in every_event(HOSTILE):
            renderer.handle(event)

    lines = stream.getvalue().splitlines()
    assert len(lines) == len(every_event())
    assert all(line.isascii() for line in lines)
    assert json.loads(lines[4]) == {
        "event": "photo_finished",
        "album_number": 1,
        "albums": 2,
        "number": 2,
        "of": 2,
        "name": HOSTILE,
        "outcome": "failed",
        "size": 0,
        "reason": HOSTILE,
        "stage": "export",
    }
    events = [json.loads(line) for line in lines]
    of_stage = [each for each in events if each.get("stage") == "preprocessing"]
    assert [each["event"] for each in of_stage] == [
        "album_started",
        "photo_finished",
        "photo_finished",
        "album_finished",
        "album_finished",
        "stage_finished",
    ]
    assert of_stage[4]["up_to_date"] == 2
    assert events[-1]["stages"] == [
        {
            "name": HOSTILE,
            "made": 1,
            "up_to_date": 0,
            "failed": 1,
            "waiting": 0,
            "left_out": 0,
            "complete": True,
        }
    ]


def test_a_pipe_gets_lines_and_rich_is_not_imported_for_them() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n"
        "from skicyclerun.progress.choose import choose_renderer\n"
        "for json in (False, True): choose_renderer(sys.stderr, json=json).close()\n"
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, check=False).returncode == 0


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("make", [PlainText, JsonLines, RichDisplay])
def test_a_stream_that_goes_away_does_not_stop_the_run(make: Any) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Gone(), closed):
        renderer: Renderer = make(stream)
        for event in every_event():
            renderer.handle(event)
        renderer.close()
        renderer.close()


def test_a_stream_without_unicode_gets_escapes() -> None:
    raw = io.BytesIO()
    stream = LastingStream(cast(TextIO, io.TextIOWrapper(raw, encoding="ascii", write_through=True)))

    stream.write("Été 😀\n")

    assert raw.getvalue() == b"\\xc9t\\xe9 \\U0001f600\n"


# ── rate and words ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_rate_is_steady_when_photos_arrive_in_groups(clock: Clock) -> None:
    rate = Rate(clock=clock)
    seen = []
    for _ in range(60):
        clock.now += 2.0
        rate.add(40)
        seen.append(rate.per_second())

    assert all(abs(each - 20) < 0.01 for each in seen)


def test_the_rate_follows_a_lasting_change_and_sinks_when_nothing_comes(clock: Clock) -> None:
    rate = Rate(memory=30, clock=clock)
    for _ in range(300):
        clock.now += 1
        rate.add(100)
    for _ in range(90):
        clock.now += 1
        rate.add(10)
    slow = rate.per_second()
    clock.now += 60

    assert 10 < slow < 16
    assert rate.per_second() < slow / 2


def test_the_time_left_is_not_said_before_it_is_known(clock: Clock) -> None:
    rate = Rate(clock=clock)
    assert rate.seconds_left(10) is None
    rate.add(1)
    clock.now += 0.1
    rate.add(1)
    assert rate.seconds_left(10) is None
    clock.now += 3.9
    rate.add(2)
    assert rate.seconds_left(10) == pytest.approx(10, abs=1)
    assert rate.seconds_left(0) == 0.0


def test_a_clock_that_goes_back_does_no_harm(clock: Clock) -> None:
    rate = Rate(clock=clock)
    clock.now -= 100
    rate.add(1)

    assert rate.per_second() == 0.0
