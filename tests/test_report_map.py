"""The map of a report: where points come to lie, what becomes one cluster, and which land is drawn."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.report.map import HEIGHT, WIDTH, Position, draw

degrees = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@settings(deadline=None, max_examples=40)
@given(st.lists(degrees, min_size=1, max_size=40))
def test_every_position_is_in_a_cluster_that_lies_on_the_map(points: list[tuple[float, float]]) -> None:
    drawn = draw([Position(*point, place="Here", album=number % 3 + 1) for number, point in enumerate(points)])
    assert drawn is not None
    assert drawn.count == sum(cluster.count for cluster in drawn.clusters) == len(points)
    for cluster in drawn.clusters:
        assert -0.01 <= cluster.x <= WIDTH + 0.01
        assert -0.01 <= cluster.y <= HEIGHT + 0.01
        assert cluster.where == "Here"
        assert cluster.album in (1, 2, 3)
    assert not re.search(r"nan|inf|e-", drawn.land)


@settings(deadline=None, max_examples=30)
@given(st.floats(-70, 45), st.floats(-170, 120), st.floats(25, 35), st.floats(30, 50))
def test_what_is_further_north_or_east_is_drawn_higher_or_further_right(
    south: float, west: float, up: float, right: float
) -> None:
    drawn = draw([Position(south, west), Position(south + up, west + right), Position(south, west)])
    assert drawn is not None
    lower, upper = drawn.clusters
    assert (lower.count, upper.count) == (2, 1)
    assert lower.x < upper.x
    assert lower.y > upper.y


def test_near_points_are_one_cluster_and_far_ones_are_not() -> None:
    zermatt = [Position(46.02 + step / 1000, 7.75, "Zermatt") for step in range(50)]
    drawn = draw([*zermatt, Position(37.8, -122.4, "San Francisco")])
    assert drawn is not None
    assert [(cluster.count, cluster.where) for cluster in drawn.clusters] == [(50, "Zermatt"), (1, "San Francisco")]
    europe, america = drawn.clusters
    assert europe.x > america.x
    assert europe.y < america.y
    assert europe.radius > america.radius
    assert drawn.places == (("Zermatt", 50), ("San Francisco", 1))


def test_there_is_no_map_without_positions_and_none_of_what_is_nowhere() -> None:
    assert draw([]) is None
    assert draw([Position(91, 0), Position(0, 181), Position(math.nan, 0), Position(0, math.inf)]) is None
    drawn = draw([Position(46, 7), Position(math.nan, 7)])
    assert drawn is not None
    assert drawn.count == 1


@pytest.mark.parametrize(
    "where", [(46.0, 7.7), (-34.6, -58.4), (64.1, -21.9), (-41.3, 174.8), (66.0, 179.5), (-77.8, 166.7), (-16.8, 179.9)]
)
def test_land_is_in_sight_wherever_one_is_and_only_land_that_is(where: tuple[float, float]) -> None:
    here, world = draw([Position(*where)]), draw([Position(70, -170), Position(-50, 170)])
    assert here is not None
    assert world is not None
    assert 0 < here.land.count("M") < world.land.count("M")
    assert len(world.land) < 120_000


def test_no_outline_crosses_the_map_from_edge_to_edge() -> None:
    """A ring that goes on beyond the 180th meridian, drawn as it is, would be a line around the whole world."""
    world = draw([Position(75, -175), Position(-60, 175)])
    assert world is not None
    for ring in re.findall(r"M[-\d.]+ [-\d.]+l([^z]*)z", world.land):
        steps = [float(number) for number in ring.split()]
        widest = max(abs(step) for step in steps[::2])
        assert widest < WIDTH / 6 or min(steps[1::2]) < -5 or widest == pytest.approx(WIDTH, rel=0.3)
