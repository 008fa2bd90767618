"""How places are asked for: the part of the section `metadata_extraction` that says so, in the shapes that files have.

Three shapes are read. Where several say something, the first of these wins, key by key:

1. keys of the section itself (`metadata_extraction.active_provider`, `.providers.nominatim.zoom`);
2. `metadata_extraction.providers.geocoding`, as the pipeline's files of 2026 have it;
3. `metadata_extraction.geocoding`, as its files of 2025 have it (`provider`, `rate_limit_seconds`).

A file that names Nominatim in any of them thereby asks Nominatim; one that names nobody asks nobody.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from skicyclerun.places.locator import SAME_PLACE_METRES, PlaceSettings
from skicyclerun.places.online import DEFAULT_USER_AGENT, NOMINATIM, ONLINE, PHOTON, ProviderSettings
from skicyclerun.settings.section import Seconds, Section, Text, listed

OFFLINE: Final = "offline"

ProviderName = Literal["offline", "nominatim", "photon", "google_maps", "google"]
"""The Google ones are known from existing files and passed over."""
ProviderNames = Annotated[tuple[ProviderName, ...], BeforeValidator(listed)]
Delay = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Zoom = Annotated[int, Field(ge=0, le=18)]
_T = TypeVar("_T")


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
    except ValueError:
        whole = False
    if not whole or any(character.isspace() for character in value):
        raise ValueError("is not the address of a server: https://host, https://host/path or http://host:port")
    return value


Url = Annotated[Text, AfterValidator(_http_url)]


class OneProvider(Section):
    """How one geocoder is asked; what is absent is as the keys above it say."""

    enabled: bool = True
    """False: passed over."""
    api_url: Url | None = None
    user_agent: Text | None = None
    request_delay_seconds: Delay | None = None
    timeout_seconds: Seconds | None = None
    zoom: Zoom | None = None
    """Of Nominatim: 3 is a country, 10 a city, 16 a street, 18 a building."""
    language: Text | None = None


class ProviderTable(Section):
    nominatim: OneProvider = OneProvider()
    photon: OneProvider = OneProvider()


class CacheChoice(Section):
    enabled: bool | None = None
    file: Text | None = None
    """Not read: the cache is paths.geocode_cache."""
    cache_only: bool | None = None


class ProviderChoice(Section):
    """Who is asked: the keys that may stand in the section itself or in `providers.geocoding`."""

    active_provider: ProviderName | None = None
    provider_order: ProviderNames | None = None
    allow_fallback: bool | None = None
    user_agent: Text | None = None
    request_delay_seconds: Delay | None = None
    timeout_seconds: Seconds | None = None
    language: Text | None = None
    cache: CacheChoice = CacheChoice()
    cache_only: bool | None = None
    same_place_metres: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None


class GeocodingProviders(ProviderChoice):
    """`metadata_extraction.providers.geocoding`."""

    providers: ProviderTable = ProviderTable()


class Providers(ProviderTable):
    """`metadata_extraction.providers`: the geocoders, or `geocoding` with them inside."""

    geocoding: GeocodingProviders | None = None


class Geocoding(Section):
    """`metadata_extraction.geocoding`, the older shape."""

    provider: ProviderName | None = None
    api_url: Url | None = None
    user_agent: Text | None = None
    rate_limit_seconds: Delay | None = None
    cache_enabled: bool | None = None
    cache_only: bool | None = None
    cache_file: Text | None = None
    """Not read: the cache is paths.geocode_cache."""
    zoom: Zoom | None = None


def _first(*said: _T | None) -> _T | None:
    return next((value for value in said if value is not None), None)


def _or(default: _T, *said: _T | None) -> _T:
    found = _first(*said)
    return default if found is None else found


def _as_named(choice: ProviderChoice, inner: GeocodingProviders, older: Geocoding) -> tuple[list[str], list[str]]:
    """Who is to be asked first, then those of `provider_order`."""
    order: list[str] = [*_or((), choice.provider_order, inner.provider_order)]
    active = _first(choice.active_provider, inner.active_provider, order[0] if order else None, older.provider)
    return [active or OFFLINE], order


def place_settings(
    choice: ProviderChoice, providers: Providers, older: Geocoding, *, cache_only: bool = False, sweep: bool = False
) -> tuple[PlaceSettings, tuple[str, ...]]:
    """Who is asked and how, and the providers that are named and passed over.

    `cache_only`: the command line says so. `sweep`: for geocode_sweep, which asks those on the network wherever
    some are named, and only otherwise GeoNames.
    """
    inner = providers.geocoding or GeocodingProviders()
    active, order = _as_named(choice, inner, older)
    tables = {
        NOMINATIM: (providers.nominatim, inner.providers.nominatim),
        PHOTON: (providers.photon, inner.providers.photon),
    }
    passed_over: list[str] = []

    def provided(names: list[str]) -> list[str]:
        kept = []
        for name in dict.fromkeys(names):
            if name == OFFLINE or (name in tables and all(table.enabled for table in tables[name])):
                kept.append(name)
            elif name not in passed_over:
                passed_over.append(name)
        return kept

    named = provided([*active, *order])
    if sweep:
        named = [name for name in named if name in ONLINE]
    if not _or(True, choice.allow_fallback, inner.allow_fallback):
        named = named[:1]
    named = named or [OFFLINE]

    def one(name: str) -> ProviderSettings:
        outer_table, inner_table = tables[name]
        # The older shape has one provider only; its address and zoom are that one's.
        legacy = older if (older.provider or NOMINATIM) == name else Geocoding()
        return ProviderSettings(
            name=name,
            api_url=_or("", outer_table.api_url, inner_table.api_url, legacy.api_url),
            user_agent=_or(
                DEFAULT_USER_AGENT,
                outer_table.user_agent,
                choice.user_agent,
                inner_table.user_agent,
                inner.user_agent,
                older.user_agent,
            ),
            request_delay_seconds=_or(
                1.0,
                outer_table.request_delay_seconds,
                choice.request_delay_seconds,
                inner_table.request_delay_seconds,
                inner.request_delay_seconds,
                older.rate_limit_seconds,
            ),
            timeout_seconds=_or(
                10.0,
                outer_table.timeout_seconds,
                choice.timeout_seconds,
                inner_table.timeout_seconds,
                inner.timeout_seconds,
            ),
            zoom=_or(16, outer_table.zoom, inner_table.zoom, legacy.zoom),
            language=_or("", outer_table.language, choice.language, inner_table.language, inner.language),
        )

    return (
        PlaceSettings(
            order=tuple(named),
            online=tuple(one(name) for name in named if name in ONLINE),
            cache_enabled=_or(True, choice.cache.enabled, inner.cache.enabled, older.cache_enabled),
            cache_only=cache_only
            or _or(
                False,
                choice.cache_only,
                choice.cache.cache_only,
                inner.cache_only,
                inner.cache.cache_only,
                older.cache_only,
            ),
            same_place_metres=_or(SAME_PLACE_METRES, choice.same_place_metres, inner.same_place_metres),
        ),
        tuple(passed_over),
    )
