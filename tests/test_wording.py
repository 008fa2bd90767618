"""Numbers and names in words."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.wording import bytes_in_words, counted, pixels_in_words, printable, seconds_in_words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (0.4, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (14_230_000, "14.2 MB"),
        (283_700_000, "284 MB"),
        (2_900_000_000, "2.9 GB"),
        (12_345_000_000_000_000, "12,345 TB"),
    ],
)
def test_bytes_in_words(size: float, words: str) -> None:
    assert bytes_in_words(size) == words


@given(st.integers(1000, 10**16))
def test_a_size_in_words_is_within_a_twentieth_of_the_size(size: int) -> None:
    number, unit = bytes_in_words(size).split(" ")
    value = float(number.replace(",", "")) * 1000 ** (1 + ("kB", "MB", "GB", "TB").index(unit))
    assert value == pytest.approx(size, rel=0.05)
    assert len(number) <= 4 or unit == "TB"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 albums"), (1, "1 album"), (2, "2 albums")])
def test_one_is_singular(count: int, words: str) -> None:
    assert counted(count, "album") == words


def test_pixels_in_words() -> None:
    assert pixels_in_words(4032, 3024) == "4032 \N{MULTIPLICATION SIGN} 3024 pixels"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("a\u2028b\x85c\u200bd\ufeff", "a\\u2028b\\x85c\\u200bd\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_acts_upon_becomes_visible(text: str, seen: str) -> None:
    assert printable(text) == seen


@pytest.mark.parametrize(
    "text",
    ["", "Zürich 2024", "山と海", "👨\u200d👩\u200d👧 ❤\ufe0f é", "\u0645\u06cc\u200c\u062e \u0600\u0661", "a\u00a0b"],
)
def test_ordinary_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_is_one_line_that_can_be_written_and_moves_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert not [character for character in shown if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
