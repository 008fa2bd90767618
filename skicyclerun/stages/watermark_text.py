"""The texts of a watermark: templates over what the catalog says of a photo. Pure; docs/watermark.md has the language.

A template is literal text with `{placeholders}`. `{title|place}` is the first of the two that is known; `{{` and `}}`
are literal braces. A fact that is not known leaves no hole: the separators, brackets and quotation marks that stood
around it go with it. Facts are what anybody may have typed, so they are put on one line, freed of what would steer
the drawing (control characters, directional overrides) and cut.
"""

# ruff: noqa: RUF001
# The tables of brackets and separators are about characters that look like others.

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from skicyclerun.wording import nearest

#: Characters of one fact, and of a whole line.
MAX_FACT: Final = 200
MAX_LINE: Final = 400
#: Marks above and below one letter; no script needs more, and a heap of them would climb over the picture.
MAX_MARKS: Final = 4

#: Every placeholder and what it stands for; docs/watermark.md explains them, and a test compares.
PLACEHOLDERS: Final[Mapping[str, str]] = {
    "place": "the nearest place and the country",
    "location": "the whole address as the geocoder wrote it, else as {place}",
    "city": "the city, town or village",
    "county": "the county or district",
    "state": "the state or region",
    "country": "the country",
    "country_code": "the country's two letters, in capitals",
    "road": "the road",
    "year": "`fixed_year`, else the year of the photo with `year_offset` added",
    "copyright_year": "the same as {year}",
    "photo_year": "the year of the photo",
    "month": "the month, 01 to 12",
    "day": "the day, 01 to 31",
    "date": "the day as 2024-07-27",
    "time": "the time as 10:05",
    "title": "the photo's title",
    "description": "its description",
    "keywords": "its keywords, with commas",
    "persons": "the persons in it, with commas",
    "album": "the album's title",
    "file_name": "the name of the exported file",
    "heading": "which way the camera looked, in words: north-west",
    "camera": "the camera",
    "lens": "the lens",
    "style": "the style of a restyled picture",
    "symbol": "`symbol`",
    "astro_symbol": "`symbol`, else the sign of the zodiac",
}
#: They adorn a line and are no reason to write one.
_ADORNMENTS: Final = frozenset({"symbol", "astro_symbol"})

#: The compass' sixteen points, clockwise from north.
_POINTS: Final = (
    "north north-north-east north-east east-north-east east east-south-east south-east south-south-east south "
    "south-south-west south-west west-south-west west west-north-west north-west north-north-west"
).split()

_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

# The first day of each sign, in the tropical zodiac as almanacs print it.
_SIGNS: Final = (
    ((1, 20), "\N{AQUARIUS}"),
    ((2, 19), "\N{PISCES}"),
    ((3, 21), "\N{ARIES}"),
    ((4, 20), "\N{TAURUS}"),
    ((5, 21), "\N{GEMINI}"),
    ((6, 21), "\N{CANCER}"),
    ((7, 23), "\N{LEO}"),
    ((8, 23), "\N{VIRGO}"),
    ((9, 23), "\N{LIBRA}"),
    ((10, 23), "\N{SCORPIUS}"),
    ((11, 22), "\N{SAGITTARIUS}"),
    ((12, 22), "\N{CAPRICORN}"),
)


# ── cleaning ──────────────────────────────────────────────────────────────────────────────────────────────────────

#: Format characters that belong to a text: the joiners of emoji, Persian and Indic scripts.
_JOINERS: Final = frozenset("\u200c\u200d")


def clean(text: str, most: int = MAX_FACT) -> str:
    """`text` on one line, composed (NFC), without what steers rather than says; at most `most` characters.

    White space of any kind, line ends and control characters become one space. Directional marks and overrides,
    other format characters, surrogates and non-characters go. Of the marks on one letter `MAX_MARKS` stay.
    """
    if len(text) <= most and text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()  # what most texts are
    text = unicodedata.normalize("NFC", text[: 4 * most])
    kept: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp", "Zs"):
            if kept and kept[-1] != " ":
                kept.append(" ")
            marks = 0
            continue
        if category == "Cs" or (category == "Cf" and character not in _JOINERS) or _is_no_character(character):
            continue
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= MAX_MARKS:
            kept.append(character)
    return _cut("".join(kept).strip(), most)


def _is_no_character(character: str) -> bool:
    point = ord(character)
    return point & 0xFFFE == 0xFFFE or 0xFDD0 <= point <= 0xFDEF


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most - 1
    while end and (unicodedata.category(text[end]).startswith("M") or text[end] in _JOINERS):
        end -= 1
    return text[:end].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


# ── templates ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Template:
    """A template taken apart: literal texts, and the alternatives of each placeholder."""

    parts: tuple[str | tuple[str, ...], ...]


def parse(text: str) -> Template:
    """Take a template apart. Raises ValueError with a sentence for an unknown placeholder or a stray brace."""
    parts: list[str | tuple[str, ...]] = []
    position = 0
    for found in _PART.finditer(text):
        parts.append(text[position : found.start()])
        position = found.end()
        if found[0] in ("{{", "}}"):
            parts.append(found[0][0])
        elif found[1] is None:
            raise ValueError(
                f"there is a stray {found[0]} at character {found.start() + 1} of {text!r}; "
                "a literal brace is written twice, {{ or }}"
            )
        else:
            parts.append(tuple(_known(name.strip(), text) for name in found[1].split("|")))
    parts.append(text[position:])
    return Template(tuple(part for part in parts if part != ""))


def _known(name: str, text: str) -> str:
    if name not in PLACEHOLDERS:
        hint = nearest(name, PLACEHOLDERS) or f" There are: {', '.join(PLACEHOLDERS)}."
        raise ValueError(f"{{{name}}} in {text!r} is no placeholder.{hint} For the text itself write {{{{{name}}}}}.")
    return name


# ── facts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Words:
    """What the settings add to the facts."""

    symbol: str = ""
    fixed_year: int | None = None
    year_offset: int = 0


_NO_WORDS: Final = Words()
#: What a language model writes where it has nothing to say.
_NO_SUGGESTIONS: Final = frozenset(("unknown", "none", "n/a", "null"))


class Facts:
    """The texts of placeholders, made of what the catalog says of a photo; each only when it is asked for.

    `facts` are those of `Picture.facts`, in whatever state they are; `variant` is the style of a restyled picture.
    `fit` is applied to every single text before anything is put together: it takes away what no font can draw.
    """

    def __init__(
        self,
        facts: Mapping[str, Any],
        words: Words = _NO_WORDS,
        variant: str = "",
        fit: Callable[[str], str] = str,
    ) -> None:
        self._facts = facts
        self._words = words
        self._variant = variant
        self._fit = fit
        self._taken = _moment(facts.get("date_taken"))

    def text(self, name: str) -> str:
        """The text of a placeholder, one of PLACEHOLDERS; empty where it is not known."""
        match name:
            case "place":
                return self._place() or self._inner("location", "formatted")
            case "location":
                return self._inner("location", "formatted") or self._place()
            case "city" | "county" | "state" | "country" | "road":
                return self._inner("location", name)
            case "country_code":
                return self._inner("location", name).upper()
            case "heading":
                return self._heading()
            case "camera" | "lens":
                return self._inner("exif", name)
            case "keywords" | "persons":
                return self._several(self._facts.get(name))
            case "album":
                return self._shown(self._facts.get("album_title"))
            case "style":
                return self._shown(self._variant)
            case "symbol":
                return self._shown(self._words.symbol)
            case "astro_symbol":
                return self._shown(self._words.symbol) or self._shown(sign_of(self._taken) if self._taken else "")
            case "year" | "copyright_year":
                return self._year()
            case "photo_year" | "month" | "day" | "date" | "time":
                return self._of_moment(name)
            case _:
                return self._shown(self._facts.get(name))

    def suggested(self, line: str) -> str:
        """What a language model wrote for this line (`watermark_line1`, `watermark_line2`); empty if it did not."""
        text = self._inner("llm_image_analysis", line)
        return "" if text.casefold() in _NO_SUGGESTIONS else text

    def _shown(self, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return ""
        return self._fit(clean(str(value))).strip()

    def _inner(self, section: str, key: str) -> str:
        inner = self._facts.get(section)
        if isinstance(inner, Mapping):
            return self._shown(inner.get(key))
        # Older catalogs have the address as a text.
        return self._shown(inner) if (section, key) == ("location", "formatted") else ""

    def _several(self, value: object) -> str:
        items = value if isinstance(value, list | tuple) else [value]
        return clean(", ".join(dict.fromkeys(shown for item in items[:50] if (shown := self._shown(item)))))

    def _place(self) -> str:
        """`Zermatt, Switzerland`; `Singapore` once."""
        parts = (self._inner("location", key) for key in ("city", "county", "state"))
        near, country = next(filter(None, parts), ""), self._inner("location", "country")
        if near.casefold() == country.casefold():
            return country
        return ", ".join(filter(None, (near, country)))

    def _heading(self) -> str:
        gps = self._facts.get("gps")
        heading = gps.get("heading") if isinstance(gps, Mapping) else None
        if isinstance(heading, bool) or not isinstance(heading, int | float) or not 0 <= heading <= 360:
            return ""
        return self._shown(_POINTS[int(heading / 22.5 + 0.5) % 16])

    def _year(self) -> str:
        if self._words.fixed_year is not None:
            return str(self._words.fixed_year)
        return str(self._taken.year + self._words.year_offset) if self._taken else ""

    def _of_moment(self, name: str) -> str:
        taken = self._taken
        if taken is None:
            return ""
        if name == "time":
            # A date alone says nothing of the time.
            return f"{taken:%H:%M}" if "T" in str(self._facts.get("date_taken")) else ""
        return {
            "photo_year": str(taken.year),
            "month": f"{taken.month:02}",
            "day": f"{taken.day:02}",
            "date": taken.date().isoformat(),
        }[name]


def _moment(text: object) -> datetime | None:
    """The local wall time an ISO text gives; None where it is none."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text[:64])
    except ValueError:
        return None


def sign_of(day: date) -> str:
    """The sign of the zodiac that the sun is in on that day, as a character."""
    reached = [sign for first, sign in _SIGNS if first <= (day.month, day.day)]
    return reached[-1] if reached else "\N{CAPRICORN}"


# ── lines ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#: By each closing character those that it may close.
_OPENED_BY: Final = {
    ")": "(",
    "]": "[",
    ">": "<",
    "}": "{",
    "»": "«",
    "›": "‹",
    "”": "“",
    "’": "‘",
    "“": "„",
    "‘": "‚",
    '"': '"',
    "'": "'",
    "」": "「",
    "』": "『",
    "）": "（",
    "】": "【",
}
_OPENING: Final = frozenset(_OPENED_BY.values())
# Of "other punctuation" what ends or marks a word rather than standing between two.
_NO_SEPARATORS: Final = frozenset("!?%‰§¶†‡¡¿…")
_MORE_SEPARATORS: Final = frozenset("|~+=^→←↔⇒⟶▸►‣◦∙×")


def line_of(template: Template, text_of: Callable[[str], str]) -> str:
    """The line that a template makes of what is known; empty where there is nothing worth saying.

    `text_of` gives the text of a placeholder (`Facts.text`), empty where it is not known.

    Texts of facts are taken as they are: a dash in a title is no separator.
    """
    atoms: list[_Atom] = []
    asked = found = False
    for part in template.parts:
        if isinstance(part, str):
            for character in clean_literal(part):
                atoms.append(_Atom(character, _kind(character, atoms[-1] if atoms else None)))
            continue
        text = next(filter(None, map(text_of, part)), "")
        if not set(part) <= _ADORNMENTS:
            asked = True
            found = found or bool(text)
        atoms.append(_Atom(text, "f" if text else "a"))
    if asked and not found and not any(atom.kind == "w" and atom.text.isalnum() for atom in atoms):
        return ""
    _pair_brackets(atoms)
    _close_holes(atoms)
    return _cut(" ".join("".join(atom.text for atom in atoms).split(" ")).strip(), MAX_LINE)


@dataclass(slots=True)
class _Atom:
    """A character of the template, or a fact in its place."""

    text: str
    kind: str
    """One letter: word, separator, space (itself), opening, closing, fact, absent fact."""
    partner: _Atom | None = None
    """The other one of a pair of brackets or quotation marks."""


def clean_literal(text: str) -> str:
    """Literal text of a template: cleaned as facts are, with the white space at its ends."""
    cleaned = clean(text, MAX_LINE)
    if not cleaned:
        return " " if text[:1].isspace() else ""
    return " " * text[:1].isspace() + cleaned + " " * text[-1:].isspace()


def _kind(character: str, before: _Atom | None) -> str:
    after_word = before is not None and before.kind == "w" and before.text.isalnum()
    if character == " ":
        return " "
    if character in "'’" and before is not None and (after_word or before.kind in "fa"):
        return "w"  # an apostrophe belongs to its word
    if character == "." and after_word:
        return "w"  # the full stop of an abbreviation
    if character in _OPENED_BY or character in _OPENING:
        return "o"  # until _pair_brackets knows better
    category = unicodedata.category(character)
    if character in _MORE_SEPARATORS or (category in ("Pd", "Pc", "Po") and character not in _NO_SEPARATORS):
        return "s"
    return "w"


def _pair_brackets(atoms: Sequence[_Atom]) -> None:
    """Find the pairs. What has no partner is a word like another."""
    waiting: list[_Atom] = []
    for atom in atoms:
        if atom.kind != "o":
            continue
        opened_by = _OPENED_BY.get(atom.text)
        depth = next((n for n in reversed(range(len(waiting))) if waiting[n].text == opened_by), None)
        if depth is not None:
            atom.kind = "c"
            atom.partner, waiting[depth].partner = waiting[depth], atom
            del waiting[depth:]
        elif atom.text in _OPENING:
            waiting.append(atom)
    for atom in atoms:
        if atom.kind == "o" and atom.partner is None:
            atom.kind = "w"


_HOLE: Final = re.compile("[s a]*a[s a]*")


def _close_holes(atoms: list[_Atom]) -> None:
    """Take every absent fact out, and what stood around it for its sake.

    Between two things one separator stays: the one after the hole, or where none is there the one before it.
    """
    while hole := _HOLE.search("".join(atom.kind for atom in atoms)):
        start, end = hole.span()
        before = atoms[start - 1] if start else None
        after = atoms[end] if end < len(atoms) else None
        if before is not None and after is not None and before.partner is after:
            # Nothing is left within the brackets: they are a hole themselves.
            atoms[start - 1 : end + 1] = [_Atom("", "a")]
            continue
        absent = [at for at in range(start, end) if atoms[at].kind == "a"]
        kept: list[_Atom] = []
        if before is not None and before.kind != "o" and after is not None and after.kind != "c":
            kept = atoms[absent[-1] + 1 : end] or atoms[start : absent[0]]
        atoms[start:end] = kept
