"""Where a position is, by whoever is to be asked: the cache, a geocoder, another one in its stead, or GeoNames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skicyclerun.errors import PhotoTransient
from skicyclerun.places import offline
from skicyclerun.places.cache import GeocodeCache
from skicyclerun.places.online import Provider, ProviderFailed, ProviderSettings

SAME_PLACE_METRES: Final = 25.0


@dataclass(frozen=True, slots=True)
class PlaceSettings:
    """Who is asked, and how."""

    order: tuple[str, ...] = (offline.NAME,)
    """`offline`, `nominatim`, `photon`: the first one, and who is asked in its stead."""
    online: tuple[ProviderSettings, ...] = ()
    """Those of `order` that are on the network."""
    cache_enabled: bool = True
    cache_only: bool = False
    """Nobody on the network is asked."""
    same_place_metres: float = SAME_PLACE_METRES

    def depends_on(self) -> dict[str, object]:
        """What decides the answers, for a recipe."""
        return {"providers": [self._question(name) for name in self.order]}

    def _question(self, name: str) -> str:
        if name == offline.NAME:
            return f"{name}|{offline.data_version()}"
        return next(one.question for one in self.online if one.name == name)


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a question."""

    location: Mapping[str, Any] | None
    note: str = ""
    """Why there is no place; a sentence without its full stop."""
    asked: bool = True
    """False: nobody was asked who might know."""


class Locator:
    """Answers positions for a run; safe from several threads."""

    def __init__(
        self, settings: PlaceSettings, cache_file: Path, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.settings = settings
        self.cache = GeocodeCache(
            cache_file if settings.cache_enabled and settings.online else None,
            same_place_metres=settings.same_place_metres,
            say=say,
        )
        self._providers = {one.name: Provider(one, self.cache) for one in settings.online}

    def open(self) -> None:
        """Reads what will be needed, so that what is missing is said before the first picture. Raises StageError."""
        if offline.NAME in self.settings.order:
            offline.gazetteer()
        self.cache.load()

    def cached(self, latitude: float, longitude: float) -> Mapping[str, Any] | None:
        """The place the cache has from the first of the order's geocoders that it has one from; nobody is asked."""
        for provider in self._providers.values():
            answer = provider.known(latitude, longitude)
            if answer is not None and answer.location is not None:
                return answer.location
        return None

    def would_answer(self, position: tuple[float, float] | None) -> bool:
        """Whether a question that nobody was asked before would be asked now, or is answered by the cache."""
        return not self.settings.cache_only or (position is not None and self.cached(*position) is not None)

    def locate(self, latitude: float, longitude: float) -> Found:
        """The place, by the first in the order who knows one.

        Raises PhotoTransient where nobody knew and somebody could not be asked: it may work the next time.
        """
        failures: list[str] = []
        not_asked = False
        for name in self.settings.order:
            if name == offline.NAME:
                place = offline.gazetteer().locate(latitude, longitude)
                if place is not None:
                    return Found(place)
                continue
            provider = self._providers[name]
            try:
                cache_only = self.settings.cache_only
                answer = provider.known(latitude, longitude) if cache_only else provider.ask(latitude, longitude)
            except ProviderFailed as failure:
                failures.append(str(failure))
                continue
            if answer is None:
                not_asked = True
            elif answer.location is not None:
                return Found(answer.location)
        if failures:
            raise PhotoTransient(f"its place is not known: {'; '.join(failures)}")
        if not_asked:
            return Found(None, "its place is not in the cache, and nobody was asked", asked=False)
        if self.settings.order == (offline.NAME,):
            return Found(None, f"there is no town within {offline.FARTHEST_KM:g} km of it")
        return Found(None, "no address is known where it was taken")

    def close(self) -> None:
        """Nobody waits any more; the cache is kept. Raises OSError."""
        for provider in self._providers.values():
            provider.stop()
        self.cache.save()
