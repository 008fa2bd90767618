"""Which photos a run lets through, decided from what the source knows of each. Pure: no I/O."""

from __future__ import annotations

import fnmatch
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from typing import Any, Final, Literal, Self

from skicyclerun.errors import UsageError
from skicyclerun.models import PhotoFacts
from skicyclerun.settings.days import days_of
from skicyclerun.settings.models import FilterSettings
from skicyclerun.wording import counted, nearest, printable

#: Each filter as it is typed, by the setting in `export.filters`.
OPTIONS: Final[Mapping[str, str]] = {
    "since": "--since",
    "until": "--until",
    "favorites": "--favorites",
    "keywords": "--keyword",
    "persons": "--person",
    "media": "--media",
    "min_size": "--min-size",
    "not_screenshots": "--not-screenshots",
    "hidden": "--hidden",
}
#: Of those that a source may know nothing of: the fact that each looks at, by its name in `PhotoFacts`.
LOOKS_AT: Final[Mapping[str, str]] = {"favorites": "favorite", "not_screenshots": "screenshot", "hidden": "hidden"}


@dataclass(frozen=True, slots=True)
class PhotoFilters:
    """The filters of one run, its days fixed. All of them have to be met; docs/choosing.md says what each means."""

    since: date | None = None
    """The first day that passes, by the clock of the place where a photo was taken."""
    until: date | None = None
    """The last one."""
    favorites: bool = False
    keywords: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    media: Literal["photo", "video"] | None = None
    min_size: int | None = None
    not_screenshots: bool = False
    hidden: bool = False
    """Lets hidden photos through; the only one that lets through more."""

    @classmethod
    def of(cls, settings: FilterSettings, today: date) -> Self:
        """Those of a configuration, for a run that is begun `today`. Raises UsageError where no day is left."""
        since = None if settings.since is None else days_of(settings.since, today).first
        until = None if settings.until is None else days_of(settings.until, today).last
        if since is not None and until is not None and since > until:
            raise UsageError(f"No day is left between --since {since} and --until {until}. Nothing was touched.")
        return cls(
            since,
            until,
            settings.favorites,
            settings.keywords,
            settings.persons,
            settings.media,
            settings.min_size,
            settings.not_screenshots,
            settings.hidden,
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From the JSON of a run's row."""
        known = {each.name: row[each.name] for each in fields(cls) if each.name in row}
        for name in ("since", "until"):
            if known.get(name) is not None:
                known[name] = date.fromisoformat(known[name])
        for name in ("keywords", "persons"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)

    def to_row(self) -> dict[str, Any]:
        """For the run's row: what is set."""
        row = {name: value for name, value in asdict(self).items() if value not in (None, False, ())}
        return {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}

    @property
    def set(self) -> tuple[str, ...]:
        """The names of those that are set, as in `export.filters`."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) not in (None, False, ()))

    @property
    def narrows(self) -> bool:
        """Whether any of them may leave out a photo that an album shows."""
        return self.set not in ((), ("hidden",))

    def refuse(self, facts: PhotoFacts) -> tuple[str, ...]:
        """The names of all filters that do not let this photo through; none where it passes.

        One that is hidden is refused by `hidden`. What a filter looks at and nobody knows does not pass it.
        """
        return tuple(self._refusals(facts))

    def _refusals(self, facts: PhotoFacts) -> Iterator[str]:
        day = facts.date.date() if facts.date is not None else None
        if self.since is not None and (day is None or day < self.since):
            yield "since"
        if self.until is not None and (day is None or day > self.until):
            yield "until"
        if self.favorites and not facts.favorite:
            yield "favorites"
        if self.keywords and not _any_named(self.keywords, facts.keywords):
            yield "keywords"
        if self.persons and not _any_named(self.persons, facts.persons):
            yield "persons"
        if self.media is not None and facts.media != self.media:
            yield "media"
        if self.min_size is not None and max(facts.width, facts.height) < self.min_size:
            yield "min_size"
        if self.not_screenshots and facts.screenshot:
            yield "not_screenshots"
        if facts.hidden and not self.hidden:
            yield "hidden"

    def unknown(self, facts: PhotoFacts) -> tuple[str, ...]:
        """The names of the filters whose fact nobody knows of this photo, so that they leave it out."""
        dateless, sizeless = facts.date is None, not facts.width or not facts.height
        return tuple(
            name
            for name, unknown in (("since", dateless), ("until", dateless), ("min_size", sizeless))
            if unknown and getattr(self, name) is not None
        )

    def check_names(self, known: Collection[tuple[str, str]]) -> None:
        """Raise UsageError for a keyword or person that no photo at all has: most likely it is misspelt.

        `known`: all there are, each with `keyword` or `person` before it.
        """
        for what, wanted in (("keyword", self.keywords), ("person", self.persons)):
            names = sorted(name for kind, name in known if kind == what)
            for each in wanted:
                if not _any_named((each,), names):
                    raise UsageError(
                        f"No photo here has the {what} {each!r}.{nearest(each, names)} Nothing was touched."
                    )

    def in_words(self) -> str:
        """As they would be typed: `--since 2026-10-27 --keyword skiing`; empty where none is set."""
        words: list[str] = []
        for name in self.set:
            value = getattr(self, name)
            if value is True:
                words.append(OPTIONS[name])
            else:
                values = value if isinstance(value, tuple) else (str(value),)
                words += [f"{OPTIONS[name]} {_quoted(each)}" for each in values]
        return " ".join(words)


@dataclass(slots=True)
class Tally:
    """What the filters did with the photos they saw, each counted once."""

    seen: int = 0
    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Photos by the filter that did not let them through; one that several refuse counts for each."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Photos by the filter whose fact nobody knows."""

    def add(self, refused: Iterable[str], unknown: Iterable[str]) -> None:
        """Count one photo, by what `PhotoFilters.refuse` and `unknown` say of it."""
        before = self.refused.total()
        self.refused.update(refused)
        self.unknown.update(unknown)
        self.seen += 1
        self.passed += self.refused.total() == before

    def in_words(self) -> list[str]:
        """Sentences: how many pass, what each filter leaves out, and what it could not know."""
        parts = [
            f"{OPTIONS[name]} leaves out {self.refused[name]}"
            for name in OPTIONS
            if name != "hidden" and self.refused[name]
        ]
        if hidden := self.refused["hidden"]:
            parts.append(f"{hidden} {'is' if hidden == 1 else 'are'} hidden")
        why = f" ({', '.join(parts)})" if parts else ""
        passed = f"{self.passed} of {counted(self.seen, 'photo')} {'passes' if self.passed == 1 else 'pass'}"
        said = [f"{passed} the filters{why}."]
        for name, what in (("since", "date"), ("until", "date"), ("min_size", "size")):
            if count := self.unknown[name]:
                have = "has" if count == 1 else "have"
                said.append(
                    f"{counted(count, 'photo')} {have} no {what} that is known; {OPTIONS[name]} leaves out such."
                )
        return said


def _any_named(wanted: Sequence[str], names: Sequence[str]) -> bool:
    """Whether one of the names is wanted: spelt so in any case, or matched by a glob."""
    if not names:
        return False
    folded = [_fold(name) for name in names]
    return any(
        name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in map(_fold, wanted) for name in folded
    )


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _quoted(text: str) -> str:
    return f"'{printable(text)}'" if not text or " " in text else printable(text)
