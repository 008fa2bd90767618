"""Numbers and names in words: sizes, durations, plurals, and text that is safe for a terminal.

One form of each for everything a person reads, so that a summary, the progress and the report of one session agree.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

_UNITS: Final = ("kB", "MB", "GB", "TB")
#: Control, format and surrogate characters, line and paragraph separators: none of them has a shape of its own, and a
#: terminal acts upon them. A bidirectional override reverses the rest of the line.
_ACTED_UPON: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
#: Format characters that belong to ordinary text: the joiners of emoji and of Persian, and Arabic, Syriac and Kaithi
#: marks that are seen.
_ORDINARY: Final = frozenset(
    "\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)


def printable(text: str) -> str:
    """`text` on one line, each character that a terminal acts upon as a visible escape: `\\x1b`, `\\u202e`, `\\n`."""
    if text.isprintable():
        return text
    return "".join(
        ascii(character)[1:-1]
        if unicodedata.category(character) in _ACTED_UPON and character not in _ORDINARY
        else character
        for character in text
    )


def counted(count: int, noun: str) -> str:
    """`1 album`, `2 albums`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def bytes_in_words(size: float) -> str:
    """Decimal units, as macOS and disk makers count: `999 bytes`, `1.5 kB`, `14.2 MB`, `284 MB`, `2.9 GB`."""
    if size < 999.5:
        return counted(round(size), "byte")
    power = 1
    while size >= 999.5 * 1000**power and power < len(_UNITS):
        power += 1
    value = size / 1000**power
    return f"{value:.1f} {_UNITS[power - 1]}" if value < 99.95 else f"{value:,.0f} {_UNITS[power - 1]}"


def pixels_in_words(width: int, height: int) -> str:
    """Width and height with a multiplication sign between them, and the word pixels."""
    return f"{width} \N{MULTIPLICATION SIGN} {height} pixels"


def seconds_in_words(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean …?` with the nearest of the known names, or an empty text where none is near."""
    close = nearest_name(name, known)
    return f" Did you mean {close!r}?" if close else ""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, or an empty text where none is near."""
    import difflib  # when somebody has mistyped something

    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name[:200].casefold(), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def very_near(name: str, known: Iterable[str]) -> str:
    """The known name that `name` is most likely a slip of, empty where none is so near.

    One letter in five may be wrong; two may have changed places; case, and `-` for `_`, do not count.
    """
    import difflib

    typed = _spelt(name[:200])
    spelt = {_spelt(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(typed, list(spelt), n=1, cutoff=0.8)
    swapped = [candidate for candidate in spelt if len(typed) > 3 and sorted(candidate) == sorted(typed)]
    return next((spelt[each] for each in (*close, *swapped)), "")


def _spelt(name: str) -> str:
    return name.casefold().replace("-", "_")


def width_of(text: str) -> int:
    """Columns on a terminal: wide East Asian characters and emoji take two; marks on them, and joiners, none."""
    shaped = (character for character in text if unicodedata.category(character) not in ("Mn", "Me", "Cf"))
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in shaped)


def column_widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column of a table is."""
    return [max([width_of(name), *(width_of(row[column]) for row in rows)]) for column, name in enumerate(header)]


def aligned(cells: Sequence[str], widths: Sequence[int], *, left: int) -> str:
    """One line of a table: the first `left` cells begin where their column does, the others end with it."""
    padded = [
        cell + " " * (width - width_of(cell)) if column < left else " " * (width - width_of(cell)) + cell
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()
