"""When a photo was taken, as EXIF writes it: a wall-clock time, an offset and a fraction, each in a tag of its own.

Exif 3.0, 4.6.6 (DateTimeOriginal, OffsetTimeOriginal, SubSecTimeOriginal).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

_DATE: Final = re.compile(r"\s*(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2}))?")
_OFFSET: Final = re.compile(r"\s*([+-])(\d{1,2}):?(\d{2})")
_DIGITS: Final = re.compile(r"\d+")
_ISO: Final = re.compile(r"(?:\.(\d{1,9}))?\s*(Z|[+-]\d{2}:?\d{2})?\s*$")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

MINUTE: Final = timedelta(minutes=1)
SAME_MOMENT: Final = timedelta(milliseconds=5)
"""Libraries keep seconds in floating point; what differs by less is the same moment."""


@lru_cache(maxsize=64)
def parse_date(text: str, offset: str = "", fraction: str = "") -> datetime | None:
    """From the three EXIF texts; None for a date that is none (`0000:00:00 00:00:00`, blanks)."""
    found = _DATE.match(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups("0"))
    digits = _DIGITS.match(fraction.strip()) if fraction else None
    microsecond = int(digits.group()[:6].ljust(6, "0")) if digits else 0
    try:
        return datetime(year, month, day, hour, minute, min(second, 59), microsecond, parse_offset(offset))
    except ValueError:
        return None


def parse_iso_date(text: str) -> datetime | None:
    """From XMP (`2019-07-27T10:05:21.12+02:00`, with or without its ends)."""
    found = _DATE.match(text)
    if found is None:
        return None
    rest = _ISO.match(text, found.end())
    fraction, offset = rest.groups() if rest else (None, None)
    return parse_date(text, offset or "", fraction or "")


@lru_cache(maxsize=64)
def parse_offset(text: str) -> timezone | None:
    """`+02:00`, `Z`; None for anything else or anything that is no offset on this planet."""
    if text.strip() == "Z":
        return UTC
    found = _OFFSET.match(text)
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    if minutes > 16 * 60:
        return None
    return timezone(timedelta(minutes=minutes if found[1] == "+" else -minutes))


def in_whole_minutes(date: datetime) -> datetime:
    """The same instant at an offset of whole minutes, which is all that EXIF can write."""
    offset = date.utcoffset()
    if offset is None or not (offset.seconds % 60 or offset.microseconds):
        return date
    return date.astimezone(timezone(timedelta(minutes=round(offset / MINUTE))))


def exif_date(date: datetime) -> str:
    """`2019:07:27 10:05:21`"""
    return date.isoformat(" ", "seconds")[:19].replace("-", ":")


def exif_offset(date: datetime) -> str | None:
    """`+02:00`; None for a naive date. Call `in_whole_minutes` first."""
    offset = date.utcoffset()
    return None if offset is None else _offset_text(offset)


@lru_cache(maxsize=64)
def _offset_text(offset: timedelta) -> str:
    minutes = round(offset / MINUTE)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def iso_date(date: datetime) -> str:
    """ISO 8601, with milliseconds where there are any, with the offset where it is known."""
    return date.isoformat(timespec="milliseconds" if date.microsecond >= 1000 else "seconds")


def iso_date_utc(date: datetime) -> str | None:
    """ISO 8601 with `Z`; None where the offset is not known or the year leaves the calendar."""
    if date.utcoffset() is None:
        return None
    try:
        return iso_date(date.astimezone(UTC)).replace("+00:00", "Z")
    except OverflowError:
        return None


def since_epoch_ns(date: datetime) -> int | None:
    """Nanoseconds since 1970, None for no such time. A naive date is this machine's own time, as it will be shown."""
    try:
        aware = date if date.utcoffset() is not None else date.astimezone()
        return (aware - _EPOCH) // timedelta(microseconds=1) * 1000
    except (OverflowError, ValueError, OSError):
        return None
