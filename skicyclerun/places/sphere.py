"""Positions on the earth as points in space, where the antimeridian and the poles are places like any other.

The earth is a sphere here (mean radius of IUGG, 6371.0088 km), which is at most 0.6 % off in a distance.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

EARTH_RADIUS_KM: Final = 6371.0088

_R = TypeVar("_R")
Point = tuple[float, float, float, _R]
"""Kilometres from the earth's centre along three axes, and what lies there."""
_Cell = tuple[int, int, int]

_NEIGHBOURHOOD: Final = tuple((i, j, k) for i in (0, -1, 1) for j in (0, -1, 1) for k in (0, -1, 1))


def on_sphere(latitude: float, longitude: float) -> tuple[float, float, float]:
    """Degrees to kilometres from the earth's centre."""
    phi, lam = math.radians(latitude), math.radians(longitude)
    ring = EARTH_RADIUS_KM * math.cos(phi)
    return ring * math.cos(lam), ring * math.sin(lam), EARTH_RADIUS_KM * math.sin(phi)


def arc_km(chord_km: float) -> float:
    """The way over the ground between two points whose straight distance, through the earth, is `chord_km`."""
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, chord_km / (2 * EARTH_RADIUS_KM)))


def _cell(x: float, y: float, z: float, edge: float) -> _Cell:
    return math.floor(x / edge), math.floor(y / edge), math.floor(z / edge)


class NearestOf(Generic[_R]):
    """Finds the nearest of many points, up to a distance, by cubes of several sizes. Safe from several threads.

    Whatever lies within the edge of a cube is in the cube or one of its 26 neighbours. The coarse cubes are filled at
    once; the points of one are entered in the finer cubes when somebody first asks near it, because photos are taken
    in few corners of the world and filling all of them would cost most of the time of loading.
    """

    def __init__(self, edges_km: Sequence[float], points: Iterable[Point[_R]] = ()) -> None:
        """`edges_km` from small to large; the last one is the farthest that is looked for."""
        self._edge = edges_km[-1]
        self._coarse: dict[_Cell, list[Point[_R]]] = {}
        self._finer: tuple[tuple[float, dict[_Cell, list[Point[_R]]]], ...] = tuple(
            (edge, {}) for edge in edges_km[:-1]
        )
        self._split: set[_Cell] = set()
        self._lock = threading.Lock()
        self._count = 0
        coarse, edge = self._coarse, self._edge
        for point in points:
            x, y, z, _ = point
            key = (int(x // edge), int(y // edge), int(z // edge))
            if key in coarse:
                coarse[key].append(point)
            else:
                coarse[key] = [point]
            self._count += 1

    def __len__(self) -> int:
        return self._count

    def add(self, latitude: float, longitude: float, record: _R) -> None:
        """One more point."""
        point = (*on_sphere(latitude, longitude), record)
        with self._lock:
            cell = _cell(*point[:3], self._edge)
            self._coarse.setdefault(cell, []).append(point)
            if cell in self._split:
                self._enter(point)
            self._count += 1

    def nearest(self, latitude: float, longitude: float, within_km: float) -> tuple[float, _R] | None:
        """Great-circle kilometres and what lies there; None where nothing is within `within_km`.

        Of points at the same place the one that was entered first.
        """
        x, y, z = on_sphere(latitude, longitude)
        coarse, split = self._coarse, self._split
        i, j, k = _cell(x, y, z, self._edge)
        around = [cell for di, dj, dk in _NEIGHBOURHOOD if (cell := (i + di, j + dj, k + dk)) in coarse]
        if not around:
            return None
        if self._finer:
            for cell in around:
                if cell not in split:
                    self._split_up(cell)
        for edge, cells in (*self._finer, (self._edge, coarse)):
            found = _nearest_in(cells, x, y, z, edge)
            if found is not None:
                distance = arc_km(math.sqrt(found[0]))
                return (distance, found[1]) if distance <= within_km else None
        return None

    def _split_up(self, cell: _Cell) -> None:
        with self._lock:
            if cell not in self._split:
                for point in self._coarse[cell]:
                    self._enter(point)
                self._split.add(cell)

    def _enter(self, point: Point[_R]) -> None:
        x, y, z, _ = point
        for edge, cells in self._finer:
            cells.setdefault((int(x // edge), int(y // edge), int(z // edge)), []).append(point)


def _nearest_in(
    cells: dict[_Cell, list[Point[_R]]], x: float, y: float, z: float, edge: float
) -> tuple[float, _R] | None:
    """Square of the straight distance, and the record, of the nearest point less than `edge` away.

    Cubes whose nearest wall is farther than what was found are passed over; the point's own cube comes first.
    """
    best = edge * edge
    record: _R | None = None
    ways_x, ways_y, ways_z = _ways(x, edge), _ways(y, edge), _ways(z, edge)
    for i, square_x in ways_x:
        if square_x >= best:
            continue
        for j, square_y in ways_y:
            square_xy = square_x + square_y
            if square_xy >= best:
                continue
            for k, square_z in ways_z:
                if square_xy + square_z >= best:
                    continue
                for px, py, pz, there in cells.get((i, j, k), ()):
                    dx, dy, dz = px - x, py - y, pz - z
                    square = dx * dx + dy * dy + dz * dz
                    if square < best:
                        best, record = square, there
    return None if record is None else (best, record)


def _ways(at: float, edge: float) -> tuple[tuple[int, float], tuple[int, float], tuple[int, float]]:
    """Along one axis: the cube `at` lies in and its two neighbours, each with the square of the way to its wall."""
    here = math.floor(at / edge)
    below = at - here * edge
    above = edge - below
    return (here, 0.0), (here - 1, below * below), (here + 1, above * above)
