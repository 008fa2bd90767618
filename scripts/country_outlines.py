"""Make skicyclerun/report/country_outlines.json from countries-110m.json of the npm package world-atlas 2.

    python scripts/country_outlines.py countries-110m.json

The data is Natural Earth's, 1:110m, in the public domain (naturalearthdata.com/about/terms-of-use). What comes out: a
list of rings, each a flat list of longitude and latitude in tenths of a degree, the first absolute, the others as
steps from the one before. A ring that crosses the 180th meridian goes on beyond it, and is there a second time on the
other side. TopoJSON's format: github.com/topojson/topojson-specification.
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

Point = tuple[int, int]


def main() -> None:
    """Read the named TopoJSON, write our file."""
    world = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    arcs = [_degrees(arc, world["transform"]) for arc in world["arcs"]]
    rings = [
        flat
        for country in world["objects"]["countries"]["geometries"]
        for ring in _rings(country, arcs)
        for flat in _flat(ring)
    ]
    steps = [_as_steps(ring) for ring in rings if len(set(ring)) > 3]
    target = Path(__file__).parents[1] / "skicyclerun" / "report" / "country_outlines.json"
    target.write_text(json.dumps(steps, separators=(",", ":")) + "\n", encoding="ascii")


def _degrees(arc: list[list[int]], transform: dict[str, Any]) -> list[Point]:
    """Tenths of a degree; an arc is made of steps on the file's own grid."""
    (wide, high), (left, bottom) = transform["scale"], transform["translate"]
    grid = accumulate(arc, lambda before, step: [before[0] + step[0], before[1] + step[1]])
    return [(round((x * wide + left) * 10), round((y * high + bottom) * 10)) for x, y in grid]


def _rings(country: dict[str, Any], arcs: list[list[Point]]) -> list[list[Point]]:
    polygons = [country["arcs"]] if country["type"] == "Polygon" else country["arcs"]
    return [_joined(ring, arcs) for polygon in polygons for ring in polygon]


def _joined(ring: list[int], arcs: list[list[Point]]) -> list[Point]:
    """A negative number means an arc backwards (~number)."""
    points = [point for index in ring for point in (arcs[index] if index >= 0 else arcs[~index][::-1])]
    return [points[0], *(after for before, after in pairwise(points) if before != after)]


def _flat(ring: list[Point]) -> list[list[Point]]:
    """A ring on the globe as rings of a flat map."""
    turned = 0
    points = [ring[0]]
    for before, after in pairwise(ring):
        turned += 3600 * ((after[0] - before[0] < -1800) - (after[0] - before[0] > 1800))
        points.append((after[0] + turned, after[1]))
    if turned:  # around a pole, which on a flat map is the lower edge: Antarctica
        points += [(points[-1][0], -900), (points[0][0], -900)]
    west, east = min(x for x, _ in points), max(x for x, _ in points)
    copies = [shift for shift in (-3600, 0, 3600) if west + shift < 1800 and east + shift > -1800]
    return [[(x + shift, y) for x, y in points] for shift in copies]


def _as_steps(ring: list[Point]) -> list[int]:
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(ring)]
    return [number for point in (ring[0], *steps) for number in point]


if __name__ == "__main__":
    main()
