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
        Notice(text, "info"),
        Notice(text, "error"),
        RunFinished(1, 1, 0, 1, 0.5),
    ]


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_no_text_moves_the_cursor_or_forges_a_line(text: str) -> None:
    calm, strange = io.StringIO(), io.StringIO()
    plain(calm, Clock(), every_event())
    plain(strange, Clock(), every_event(text))

    assert strange.getvalue().count("\n") == calm.getvalue().count("\n") == len(strange.getvalue().splitlines())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", strange.getvalue())
    strange.getvalue().encode()


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
    assert "photo 2 of 2" not in screen.rpartition("\x1b[2K")[2], "the live lines are erased at the end"


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
    }


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
