"""Make skicyclerun/report/country_outlines.json from countries-110m.json of the npm package world-atlas 2.

    python scripts/country_outlines.py countries-110m.json

The data is Natural Earth's, 1:110m, in the public domain (naturalearthdata.com/about/terms-of-use). What comes out: a
list of rings, each a flat list of longitude and latitude in tenths of a degree, the first absolute, the others as
steps from the one before. TopoJSON's format: github.com/topojson/topojson-specification.
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
    rings = [ring for country in world["objects"]["countries"]["geometries"] for ring in _rings(country, arcs)]
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


def _as_steps(ring: list[Point]) -> list[int]:
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(ring)]
    return [number for point in (ring[0], *steps) for number in point]


if __name__ == "__main__":
    main()
