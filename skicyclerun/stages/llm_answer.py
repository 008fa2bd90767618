"""What a language model answers about a picture: its shape, its limits, and whether its lines are true. Pure.

An answer is nobody's word: it is taken apart strictly, freed of markup and of what steers rather than says, and cut.
docs/models.md says the same for users.
"""

# ruff: noqa: RUF001
# Apostrophes and quotation marks as people type them.

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skicyclerun.stages.watermark_text import clean

#: Characters of a whole answer; a model that says more than this has lost its thread.
MAX_ANSWER: Final = 20_000
#: Words of each text, of each of several.
MAX_WORDS: Final = {
    "description": 60,
    "primary_subject": 12,
    "secondary_elements": 6,
    "atmosphere": 20,
    "activity": 12,
    "scene_type": 4,
    "keywords": 3,
    "watermark_line1": 8,
    "watermark_line2": 10,
}
MAX_ITEMS: Final = {"secondary_elements": 8, "keywords": 12}
LINES: Final = ("watermark_line1", "watermark_line2")
#: A word is not longer than this, on the average; scripts without spaces are cut by characters.
_CHARACTERS_A_WORD: Final = 12

_MARKUP: Final = re.compile(r"<[^<>]*>|[<>]")
#: What a model writes where it has nothing to say.
_NOTHING: Final = frozenset({"", "unknown", "none", "n/a", "null", "nothing", "not applicable", "-"})


def _text(key: str, what: str) -> Any:
    return Field(description=f"{what}; at most {MAX_WORDS[key]} words")


def _texts(key: str, what: str) -> Any:
    return Field(description=f"{what}; at most {MAX_ITEMS[key]}, each at most {MAX_WORDS[key]} words")


class Answer(BaseModel):
    """The shape that is asked for, and nothing else is taken. Texts are as the model wrote them, not yet cleaned."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    description: str = _text("description", "what the picture shows")
    primary_subject: str = _text("primary_subject", "what it is about")
    secondary_elements: list[str] = _texts("secondary_elements", "what else is to be seen")
    atmosphere: str = _text("atmosphere", "light, weather and mood")
    activity: str = _text("activity", "what is being done")
    scene_type: str = _text("scene_type", "the kind of scene")
    interior: bool = Field(description="whether it was taken inside a building or a vehicle")
    keywords: list[str] = _texts("keywords", "in small letters")
    watermark_line1: str = _text("watermark_line1", "a short line to be written on the picture")
    watermark_line2: str = _text("watermark_line2", "a second, quieter line")


class AnswerRefused(ValueError):
    """The answer breaks the schema; the text says how, for the model and for the person."""


def schema() -> dict[str, Any]:
    """The JSON schema that the server holds the model to, without what pydantic says of the class."""
    return {key: value for key, value in Answer.model_json_schema().items() if key not in ("title", "description")}


def read_answer(text: str) -> Answer:
    """Take an answer apart. Raises AnswerRefused with what is wrong, a sentence without its full stop."""
    if len(text) > MAX_ANSWER:
        raise AnswerRefused(f"the answer does not end within {MAX_ANSWER} characters")
    try:
        answer = Answer.model_validate_json(text)
    except ValidationError as error:
        raise AnswerRefused(_what_is_wrong(error)) from None
    if not _cleaned("description", answer.description):
        raise AnswerRefused("description is empty")
    return answer


def _what_is_wrong(error: ValidationError) -> str:
    problems = []
    for each in error.errors(include_url=False, include_input=False)[:5]:
        if each["type"] == "json_invalid":
            return "the answer is no JSON object"
        # The keys of the answer are the schema's own: others are ignored, and nothing the model wrote comes back here.
        where = ".".join(str(part) for part in each["loc"])
        said = each["msg"][:1].lower() + each["msg"][1:]
        problems.append(f"{where}: {said}" if where else said)
    return "; ".join(problems)


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Kept:
    """What the catalog keeps of an answer."""

    facts: dict[str, Any]
    """By the keys of `Answer`; texts with nothing to say are absent."""
    refused: dict[str, str] = field(default_factory=dict)
    """Watermark line → why it was not taken; a clause without its full stop."""


def kept_of(answer: Answer, known: frozenset[str] | None) -> Kept:
    """The texts of an answer, cleaned and within their limits.

    Prose that is too long is cut at a word; a line for the watermark is whole or not taken. `known`: the words of the
    facts (`words_of`), which a line's names have to be among; None takes every line.
    """
    facts: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for key in Answer.model_fields:
        value = getattr(answer, key)
        if isinstance(value, bool):
            facts[key] = value
        elif isinstance(value, list):
            shown = (_cleaned(key, each) for each in value[: 4 * MAX_ITEMS[key]])
            if items := list({each.casefold(): each for each in shown if each}.values())[: MAX_ITEMS[key]]:
                facts[key] = items
        elif key not in LINES:
            if text := _cleaned(key, value):
                facts[key] = text
        elif line := _plain(value, 2 * _most(key)).strip(" \"'“”„«»"):
            if line.casefold() in _NOTHING:
                continue
            if reason := _why_not(key, line, answer, known):
                refused[key] = reason
            else:
                facts[key] = line
    return Kept(facts, refused)


def _most(key: str) -> int:
    return MAX_WORDS[key] * _CHARACTERS_A_WORD


def _plain(text: str, most: int) -> str:
    """Without markup, on one line, without control characters and what turns the direction of writing."""
    return clean(_MARKUP.sub(" ", text[: 8 * most]), most)


def _cleaned(key: str, text: str) -> str:
    shown = _plain(text, _most(key))
    words = shown.split(" ")
    if len(words) > MAX_WORDS[key]:
        shown = " ".join(words[: MAX_WORDS[key]]).rstrip(" ,;:-") + "…"
    return "" if shown.casefold() in _NOTHING else shown


def _why_not(key: str, line: str, answer: Answer, known: frozenset[str] | None) -> str:
    if len(line.split(" ")) > MAX_WORDS[key] or len(line) > _most(key):
        return f"is longer than {MAX_WORDS[key]} words"
    if known is None:
        return ""
    names = unfounded(line, known, "\n".join((answer.description, answer.atmosphere, answer.activity)))
    if not names:
        return ""
    return f"says {', '.join(repr(name) for name in names)}, which nothing that is known of the photo says"


# ── names that the facts do not hold ──────────────────────────────────────────────────────────────────────────────

_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_ENDS: Final = re.compile(r"(?:^|[.!?:;…\n])\W*$")
#: Words that are no names, wherever they stand.
_SMALL_WORDS: Final = frozenset(
    "a above after along among an and around as at before behind below beneath beside between beyond by down during "
    "for from here in inside into is it its near no not of off on onto or our out over past the there these this "
    "through to toward towards under up upon when where while with within without".split()
)


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """The words of what is known of a photo, in the form in which they are compared."""
    return frozenset(_same(word) for text in texts for word in _WORD.findall(text))


def unfounded(line: str, known: frozenset[str], prose: str) -> list[str]:
    """The names in a line that what is known of the photo does not hold.

    A word counts as a name if it begins with anything but a small letter, or if the answer's own `prose` writes it
    with a capital within a sentence and never small. It is founded if it is among the `known` words. A word with a
    capital is none if `prose` has it in small letters (`Golden`, `Peaks`), or if it is one of the small words of the
    language (`The`, `Above`). Scripts without small letters therefore count as names throughout.
    """
    small, names = _small_and_names(prose)
    found = []
    for word in _WORD.findall(line):
        same = _same(word)
        if same in known or same in _SMALL_WORDS:
            continue
        if same in names if word[0].islower() else same not in small:
            found.append(word)
    return list(dict.fromkeys(found))


def _small_and_names(prose: str) -> tuple[frozenset[str], frozenset[str]]:
    """The words that prose has in small letters, and those it has with capitals within sentences only."""
    if not any(word[0].isupper() for word in _WORD.findall(prose)):
        return frozenset(), frozenset()  # whoever writes no capitals at all writes names small too
    small = frozenset(_same(word) for word in _WORD.findall(prose) if word[0].islower())
    return small, frozenset(_inner_capitals(prose)) - small


def _inner_capitals(prose: str) -> Iterator[str]:
    for found in _WORD.finditer(prose):
        if found[0][0].isupper() and not _SENTENCE_ENDS.search(prose[max(0, found.start() - 8) : found.start()]):
            yield _same(found[0])


@lru_cache(maxsize=10_000)
def _same(word: str) -> str:
    """A word as it is compared: without accents, case, possessive and plural endings."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c)).casefold()
    plain = re.sub(r"['’]s$", "", plain)
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain
