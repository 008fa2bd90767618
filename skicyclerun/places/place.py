"""A place as the catalog keeps it: the keys of `location`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

KEYS: Final = ("formatted", "name", "road", "city", "county", "state", "country", "country_code", "provider")
"""The texts of `location`, in the order in which they are written; `distance_km` comes last."""

_MOST_CHARACTERS: Final = 300
"""Of one text; no name of a place is longer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody said of a position. `location` None: there is no address known there."""

    location: Mapping[str, Any] | None


def _one_line(text: str) -> str:
    """NFC, without control characters and halves of characters, white space as single blanks."""
    kept = "".join(
        " " if character.isspace() else character
        for character in unicodedata.normalize("NFC", text[:_MOST_CHARACTERS])
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cs")
    )
    return " ".join(kept.split())


def location(provider: str, texts: Mapping[str, object], *, km: float | None = None) -> dict[str, Any]:
    """`location` of an entry. Texts are clean and on one line; empty ones, and what is no text, are left out."""
    words = {key: _one_line(text) for key in KEYS if isinstance(text := texts.get(key), str)}
    words["country_code"] = words.get("country_code", "").upper()
    words["provider"] = provider
    said: dict[str, Any] = {key: words[key] for key in KEYS if words.get(key)}
    if km is not None:
        said["distance_km"] = round(km, 2)
    return said


def joined(parts: Iterable[object]) -> str:
    """`Zermatt, Valais, Switzerland`: texts once each, what is empty or no text left out."""
    return ", ".join(dict.fromkeys(part for part in parts if isinstance(part, str) and part))
