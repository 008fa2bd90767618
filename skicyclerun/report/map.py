"""A map of positions: outlines of countries and clusters of points, in the units of an SVG's view box.

Mercator, since it keeps shapes at every scale. The outlines are Natural Earth's, 1:110m, in the public domain
(naturalearthdata.com); scripts/country_outlines.py has made the file of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final

#: Of the view box.
WIDTH: Final = 1000
HEIGHT: Final = 460
#: Degrees of longitude that are shown at least: of less land the outlines say nothing.
_LEAST_WIDE: Final = 64.0
_MOST_NORTH: Final = 83.0
#: Points nearer to each other than this become one cluster.
_APART: Final = 36
_CELL: Final = 6
_MOST_CLUSTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Position:
    """Where a photo was taken; degrees, WGS 84."""

    latitude: float
    longitude: float
    place: str = ""
    """In words, where it is known."""
    album: int = 0
    """Number of its album on the page."""


@dataclass(slots=True)
class Cluster:
    """Photos near to each other on the map."""

    x: float
    y: float
    count: int
    places: Counter[str] = field(default_factory=Counter)
    albums: Counter[int] = field(default_factory=Counter)

    @property
    def radius(self) -> float:
        return min(7 + 2.4 * math.log2(self.count + 1), 26)

    @property
    def where(self) -> str:
        """The commonest place, and how many others there are."""
        if not self.places:
            return ""
        others = len(self.places) - 1
        return self.places.most_common(1)[0][0] + (f" and {others} more" if others else "")

    @property
    def album(self) -> int:
        """The album that most of them are in."""
        return self.albums.most_common(1)[0][0]


@dataclass(frozen=True, slots=True)
class Map:
    """What is drawn."""

    land: str
    """An SVG path."""
    clusters: tuple[Cluster, ...]
    """The larger first, so that a smaller one is never hidden."""
    count: int
    """Positions in all."""
    places: tuple[tuple[str, int], ...]
    """The commonest places, and the photos of each."""


def draw(positions: Sequence[Position]) -> Map | None:
    """The map of these positions, None where there are none. What is no position on Earth is left out."""
    known = [each for each in positions if _is_on_earth(each)]
    if not known:
        return None
    view = _View.around([(each.longitude, _north(each.latitude)) for each in known])
    places = Counter(each.place for each in known if each.place)
    return Map(_land(view), tuple(_clusters(known, view)), len(known), tuple(places.most_common(8)))


def _is_on_earth(position: Position) -> bool:
    return abs(position.latitude) <= 90 and abs(position.longitude) <= 180  # False for what is no number, too


def _north(latitude: float) -> float:
    """Mercator's ordinate, in degrees of longitude at the equator."""
    bounded = math.radians(max(-_MOST_NORTH, min(_MOST_NORTH, latitude)))
    return math.degrees(math.asinh(math.tan(bounded)))


@dataclass(frozen=True, slots=True)
class _View:
    """Which part of the world is shown."""

    left: float
    top: float
    scale: float
    """Units of the view box for a degree."""

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]]) -> _View:
        west, east = min(x for x, _ in points), max(x for x, _ in points)
        south, north = min(y for _, y in points), max(y for _, y in points)
        wide = max((east - west) * 1.3, (north - south) * 1.3 * WIDTH / HEIGHT, _LEAST_WIDE)
        scale = WIDTH / min(wide, max(360.0, (north - south) * 1.1 * WIDTH / HEIGHT))
        across, down = WIDTH / scale, HEIGHT / scale
        middle = (west + east) / 2
        if across <= 360:  # no empty sea beyond the edges of the world
            middle = max(-180 + across / 2, min(180 - across / 2, middle))
        return cls(middle - across / 2, (south + north) / 2 + down / 2, scale)

    def at(self, longitude: float, north: float) -> tuple[float, float]:
        return (longitude - self.left) * self.scale, (self.top - north) * self.scale


# ── land ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _rings() -> list[list[tuple[float, float]]]:
    """Rings of (longitude, Mercator's ordinate)."""
    read = json.loads((files(__package__) / "country_outlines.json").read_text(encoding="ascii"))
    return [list(_points(steps)) for steps in read]


def _points(steps: Sequence[int]) -> Iterator[tuple[float, float]]:
    x = y = 0
    for index in range(0, len(steps), 2):
        x, y = x + steps[index], y + steps[index + 1]
        yield x / 10, _north(y / 10)


def _land(view: _View) -> str:
    """The rings that are in sight, as relative lines of whole tenths."""
    parts = []
    for ring in _rings():
        points = [view.at(*point) for point in ring]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        if max(xs) >= 0 and min(xs) <= WIDTH and max(ys) >= 0 and min(ys) <= HEIGHT:
            parts.append(_path(points))
    return "".join(parts)


def _path(points: Iterable[tuple[float, float]]) -> str:
    """Rounded as a whole and not step by step, so that neighbours meet."""
    tenths = [(round(x * 10), round(y * 10)) for x, y in points]
    (x, y), rest = tenths[0], tenths[1:]
    text = f"M{x / 10:g} {y / 10:g}l"
    steps = []
    for new_x, new_y in rest:
        if (new_x, new_y) != (x, y):
            steps.append(f"{(new_x - x) / 10:g} {(new_y - y) / 10:g}")
        x, y = new_x, new_y
    return f"{text}{' '.join(steps)}z" if steps else ""


# ── clusters ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _clusters(positions: Iterable[Position], view: _View) -> list[Cluster]:
    """Cells of a fine grid, of which the fullest takes in those around it."""
    cells: dict[tuple[int, int], Cluster] = {}
    for each in positions:
        x, y = view.at(each.longitude, _north(each.latitude))
        cell = cells.setdefault((int(x // _CELL), int(y // _CELL)), Cluster(0, 0, 0))
        cell.x, cell.y, cell.count = cell.x + x, cell.y + y, cell.count + 1
        cell.albums[each.album] += 1
        if each.place:
            cell.places[each.place] += 1
    found: list[Cluster] = []
    for cell in sorted(cells.values(), key=lambda each: -each.count):
        x, y = cell.x / cell.count, cell.y / cell.count
        near = min(found, key=lambda each: math.hypot(each.x - x, each.y - y), default=None)
        full = len(found) >= _MOST_CLUSTERS
        if near is not None and (full or math.hypot(near.x - x, near.y - y) < _APART):
            total = near.count + cell.count
            near.x, near.y = (near.x * near.count + cell.x) / total, (near.y * near.count + cell.y) / total
            near.count = total
            near.places.update(cell.places)
            near.albums.update(cell.albums)
        else:
            found.append(Cluster(x, y, cell.count, cell.places, cell.albums))
    return sorted(found, key=lambda each: -each.count)
