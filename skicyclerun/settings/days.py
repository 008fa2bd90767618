"""Days as people write them in `--since` and `--until`: `2024-07-21`, `2024-07`, `2024`, or an age, `30d`."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from skicyclerun.settings.file import show

_CALENDAR: Final = re.compile(r"([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2}))?)?")
_AGE: Final = re.compile(r"([0-9]{1,6}) ?(d|w)")


@dataclass(frozen=True, slots=True)
class Days:
    """The first and the last of the days that a text means, both included."""

    first: date
    last: date


def days_of(text: str, today: date) -> Days:
    """What a text means; `30d` is the day thirty days before `today`, `4w` the one four weeks before.

    Raises ValueError, which says what would be right.
    """
    if age := _AGE.fullmatch(text):
        try:
            day = today - timedelta(days=int(age[1]) * (7 if age[2] == "w" else 1))
        except OverflowError:
            raise ValueError(f"is before the first year there is, {show(text)}") from None
        return Days(day, day)
    if found := _CALENDAR.fullmatch(text):
        year, month, day_of_month = (int(part) if part else None for part in found.groups())
        assert year is not None
        try:
            first = date(year, month or 1, day_of_month or 1)
        except ValueError:
            raise ValueError(f"is no day of the calendar, {show(text)}") from None
        if day_of_month:
            return Days(first, first)
        last_month = month or 12
        return Days(first, date(year, last_month, calendar.monthrange(year, last_month)[1]))
    raise ValueError(f"must be a day (2024-07-21, 2024-07, 2024) or an age (30d), not {show(text)}")


def looks_like_days(text: str) -> bool:
    """Whether somebody meant a day or an age by it, right or wrong; names of stages begin with a letter."""
    return text[:1].isdigit()
