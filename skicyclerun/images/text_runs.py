"""A line of text as runs that one font can draw in one direction, in the order in which they stand on the picture.

Within a run raqm does the shaping. What it cannot do through Pillow is change the font within a line, so the line is
taken apart here: words go to the first font that has all their characters, and where directions mix, the runs are
ordered by the Unicode bidirectional algorithm (UAX #9, without explicit embeddings, which no line here holds).
"""

# ruff: noqa: RUF001
# The tables below are about characters that look like others.

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from skicyclerun.images.fonts import Font, is_shapeless, shapes

ELLIPSIS: Final = "\N{HORIZONTAL ELLIPSIS}"

#: What is written in the place of a character that no font has.
_NEAREST: Final = {
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{HYPHEN}": "-",
    "\N{NON-BREAKING HYPHEN}": "-",
    "\N{MINUS SIGN}": "-",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{MODIFIER LETTER APOSTROPHE}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{DOUBLE LOW-9 QUOTATION MARK}": '"',
    "ß": "ss",
    "ẞ": "SS",
    "Æ": "AE",
    "æ": "ae",
    "Œ": "OE",
    "œ": "oe",
    "Ø": "O",
    "ø": "o",
    "Ł": "L",
    "ł": "l",
    "Đ": "D",
    "đ": "d",
    "ı": "i",
}

_EMPTY_BRACKETS: Final = re.compile(r"\(\s*\)|\[\s*\]|（\s*）|【\s*】|「\s*」|«\s*»|“\s*”|\"\s*\"")
_LOOSE_ENDS: Final = " ,;:/|-–—·•&+、，・"
_MIRRORED: Final = str.maketrans("()[]{}<>«»‹›", ")(][}{><»«›‹")


@dataclass(frozen=True, slots=True)
class Run:
    """Text that one font draws."""

    text: str
    """In reading order; without raqm, in the order in which it stands."""
    font: Font
    direction: str | None
    """`ltr` or `rtl` for raqm; None leaves it to the text."""


def clusters(text: str) -> Iterator[str]:
    """Letters with the marks, joiners and selectors that belong to them, one by one."""
    start = 0
    for at in range(1, len(text)):
        joined = (
            unicodedata.category(text[at]).startswith("M")
            or (is_shapeless(text[at]) and not text[at].isspace())
            or text[at - 1] == "\u200d"
            or "\U0001f3fb" <= text[at] <= "\U0001f3ff"
        )
        if not joined:
            yield text[start:at]
            start = at
    if text:
        yield text[start:]


# ── what can be drawn ─────────────────────────────────────────────────────────────────────────────────────────────


class Fitting:
    """Brings texts to what the fonts can draw, and remembers what they could not."""

    def __init__(self, fonts: Sequence[Font], known: set[str] | None = None) -> None:
        """`known`: characters that these fonts draw, as far as was asked; shared by whoever asks the same fonts."""
        self._fonts = fonts
        self._known = set() if known is None else known
        self.missing: dict[str, None] = {}
        """Characters that were left out, in order."""

    def text(self, text: str) -> str:
        """`text` with what no font has replaced by its nearest plain form, or left out. A text that would lose more
        letters than it keeps is left out whole: it would say something else."""
        fitted = self.characters(text)
        if fitted == text:
            return text
        before, after = (sum(map(str.isalnum, unicodedata.normalize("NFC", part))) for part in (text, fitted))
        if after * 2 < before or not after:
            return ""
        while (without := _EMPTY_BRACKETS.sub("", fitted)) != fitted:
            fitted = without
        return " ".join(fitted.split()).strip(_LOOSE_ENDS)

    def characters(self, text: str) -> str:
        """`text` character by character: drawable, replaced, or left out."""
        if self._known.issuperset(text) or all(map(self._drawable, text)):
            return text
        return " ".join("".join(self._cluster(cluster) for cluster in clusters(text)).split(" "))

    def _drawable(self, character: str) -> bool:
        if character in self._known:
            return True
        if any(font.has(character) for font in self._fonts):
            self._known.add(character)
            return True
        return False

    def _cluster(self, cluster: str) -> str:
        if any(all(map(font.has, cluster)) for font in self._fonts):
            return cluster
        base = cluster[0]
        if self._drawable(base):
            # The letter without the mark that its font does not have.
            font = next(font for font in self._fonts if font.has(base))
            return "".join(filter(font.has, cluster))
        plain = _NEAREST.get(base) or "".join(
            part for part in unicodedata.normalize("NFKD", base) if not unicodedata.category(part).startswith("M")
        )
        if plain != base and plain and all(map(self._drawable, plain)):
            return plain
        self.missing[base] = None
        return ""


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def runs_of(text: str, fonts: Sequence[Font]) -> list[Run]:
    """The runs of a line, from left to right. Characters that no font has go to the first one."""
    chosen = _fonts_for(text, fonts)
    shaped = shapes()
    if not shaped:
        kept = [n for n, character in enumerate(text) if character.isspace() or not is_shapeless(character)]
        text, chosen = "".join(text[n] for n in kept), [chosen[n] for n in kept]
    if not text:
        return []
    if all(font is chosen[0] for font in chosen) and (shaped or not _turns(text)):
        return [Run(text, chosen[0], None)]
    levels = _levels(text)
    pieces: list[tuple[int, int, int]] = []  # level, start, end
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or levels[at] != levels[start] or chosen[at] is not chosen[start]:
            pieces.append((levels[start], start, at))
            start = at
    for level in range(max(levels), 0, -1):
        pieces = _reversed_from(pieces, level)
    runs = []
    for level, start, end in pieces:
        part = text[start:end]
        if shaped:
            runs.append(Run(part, chosen[start], "rtl" if level % 2 else "ltr"))
        else:
            runs.append(Run(_turned(part) if level % 2 else part, chosen[start], None))
    return runs


def _turned(text: str) -> str:
    """Right-to-left text as it stands, from the left, for a layout that knows no directions."""
    return "".join(reversed(list(clusters(text)))).translate(_MIRRORED)


def _reversed_from(pieces: list[tuple[int, int, int]], level: int) -> list[tuple[int, int, int]]:
    """Rule L2: every sequence of this level or a higher one is turned around."""
    ordered: list[tuple[int, int, int]] = []
    at = 0
    while at < len(pieces):
        end = at
        while end < len(pieces) and pieces[end][0] >= level:
            end += 1
        ordered += reversed(pieces[at:end]) if end > at else [pieces[at]]
        at = max(end, at + 1)
    return ordered


def _fonts_for(text: str, fonts: Sequence[Font]) -> list[Font]:
    """The font of each character: that of the whole word, where one has it."""
    chosen: list[Font] = []
    for word in re.findall(r" +|[^ ]+", text):
        if word[0] == " ":
            chosen += [chosen[-1] if chosen else fonts[0]] * len(word)
            continue
        whole = _first_with(word, fonts)
        if whole is not None:
            chosen += [whole] * len(word)
            continue
        for cluster in clusters(word):
            font = _first_with(cluster, fonts) or _first_with(cluster[0], fonts) or fonts[0]
            chosen += [font] * len(cluster)
    return chosen


def _first_with(text: str, fonts: Sequence[Font]) -> Font | None:
    return next((font for font in fonts if all(map(font.has, text))), None)


# ── directions ────────────────────────────────────────────────────────────────────────────────────────────────────

_BRACKETS: Final = {"(": ")", "[": "]", "{": "}", "「": "」", "『": "』", "（": "）", "【": "】", "《": "》"}
_RIGHT_TO_LEFT: Final = frozenset(("R", "AL", "AN"))


def _turns(text: str) -> bool:
    return any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text)


def _levels(text: str) -> list[int]:
    """The embedding level of each character; odd ones run from right to left."""
    if not _turns(text):
        return [0] * len(text)
    kinds = [unicodedata.bidirectional(character) or "L" for character in text]
    base = next((int(kind != "L") for kind in kinds if kind in ("L", "R", "AL")), 0)
    outside = "R" if base else "L"
    _resolve_weak(kinds, outside)
    _resolve_brackets(text, kinds, outside)
    _resolve_neutral(kinds, outside)
    if base:
        return [1 if kind == "R" else 2 for kind in kinds]
    return [{"L": 0, "R": 1}.get(kind, 2) for kind in kinds]


def _resolve_weak(kinds: list[str], outside: str) -> None:
    """Rules W1 to W7, in place."""
    before = strong = outside
    for at, kind in enumerate(kinds):
        if kind in ("NSM", "BN"):
            kinds[at] = kind = before
        if kind == "EN" and strong == "AL":
            kinds[at] = "AN"
        if kind in ("L", "R", "AL"):
            strong = kind
        before = kind
    kinds[:] = ["R" if kind == "AL" else kind for kind in kinds]
    for at in range(1, len(kinds) - 1):
        one, kind, other = kinds[at - 1 : at + 2]
        if (kind == "ES" and one == other == "EN") or (kind == "CS" and one == other and one in ("EN", "AN")):
            kinds[at] = one
    for step in (1, -1):
        inside = False
        for at in range(len(kinds))[::step]:
            inside = kinds[at] == "EN" or (inside and kinds[at] == "ET")
            if inside:
                kinds[at] = "EN"
    strong = outside
    for at, kind in enumerate(kinds):
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            kinds[at] = "L"


def _resolve_brackets(text: str, kinds: list[str], outside: str) -> None:
    """Rule N0, in place: both brackets of a pair take the direction of what they hold, or of what is before them."""
    open_at: list[int] = []
    pairs: list[tuple[int, int]] = []
    for at, character in enumerate(text):
        if kinds[at] != "ON":
            continue
        if character in _BRACKETS:
            open_at.append(at)
        elif character in _BRACKETS.values():
            # The nearest opening one of its kind; those opened since then stay without a partner.
            for depth in range(len(open_at) - 1, -1, -1):
                if _BRACKETS[text[open_at[depth]]] == character:
                    pairs.append((open_at[depth], at))
                    del open_at[depth:]
                    break
    for start, end in sorted(pairs):
        inside = {_side(kind) for kind in kinds[start + 1 : end]} - {""}
        if outside in inside:
            kinds[start] = kinds[end] = outside
        elif inside:
            before = next((side for kind in reversed(kinds[:start]) if (side := _side(kind))), outside)
            kinds[start] = kinds[end] = before


def _side(kind: str) -> str:
    """The direction a character decides, numbers counting as right to left; empty for neutral ones."""
    return {"L": "L", "R": "R", "EN": "R", "AN": "R"}.get(kind, "")


def _resolve_neutral(kinds: list[str], outside: str) -> None:
    """Rules N1 and N2, in place: between two of one direction neutrals take it, else that of the line."""
    at = 0
    while at < len(kinds):
        if kinds[at] in ("L", "R", "EN", "AN"):
            at += 1
            continue
        end = at
        while end < len(kinds) and kinds[end] not in ("L", "R", "EN", "AN"):
            end += 1
        sides = {
            outside if not 0 <= side < len(kinds) else ("L" if kinds[side] == "L" else "R") for side in (at - 1, end)
        }
        kinds[at:end] = [sides.pop() if len(sides) == 1 else outside] * (end - at)
        at = end
