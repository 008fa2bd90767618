"""A position as EXIF writes it: degrees, minutes and seconds as fractions, with a letter for the side.

Exif 3.0, 4.6.7 (GPS attribute information).
"""

from __future__ import annotations

import math
from typing import Final

from skicyclerun.models import Location

SAME_DEGREES: Final = 1e-6
"""About a tenth of a metre; positions that differ by less are the same, and the file's own digits stay."""
SAME_METRES: Final = 0.05
SAME_HEADING: Final = 0.05


def valid(location: Location) -> bool:
    """Whether it is a place on this planet."""
    return (
        math.isfinite(location.latitude)
        and math.isfinite(location.longitude)
        and abs(location.latitude) <= 90
        and abs(location.longitude) <= 180
    )


def same_place(one: Location, other: Location) -> bool:
    """Whether two positions are the same but for rounding; altitude and heading are not looked at."""
    across = abs(one.longitude - other.longitude)
    return abs(one.latitude - other.latitude) <= SAME_DEGREES and min(across, 360 - across) <= SAME_DEGREES


def to_sexagesimal(degrees: float) -> list[tuple[int, int]]:
    """Degrees, minutes and seconds of the absolute value, seconds to a ten-thousandth (3 mm)."""
    seconds = round(abs(degrees) * 3600 * 10_000)
    minutes, seconds = divmod(seconds, 60 * 10_000)
    whole, minutes = divmod(minutes, 60)
    return [(whole, 1), (minutes, 1), (seconds, 10_000)]


def from_sexagesimal(parts: list[tuple[int, int]], side: str) -> float | None:
    """Degrees, negative in the south and west; None if the fractions are none or lead off the planet."""
    if not parts:
        return None
    for numerator, denominator in parts:
        if denominator == 0 and numerator != 0:
            return None
    above, below = 0, 1
    for place, (numerator, denominator) in enumerate(parts[:3]):
        unit = (denominator or 1) * 60**place
        above, below = above * unit + numerator * below, below * unit
    if below < 0:
        above, below = -above, -below
    if above > 180 * below:
        return None
    return (-above if side[:1].upper() in ("S", "W") else above) / below


def to_fraction(value: float, per_unit: int) -> tuple[int, int]:
    """A non-negative value in EXIF's 32 bits."""
    return min(round(abs(value) * per_unit), 0xFFFFFFFF), per_unit
