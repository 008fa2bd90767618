"""Geocoders on the network, through geopy: Nominatim and Photon, both on the data of OpenStreetMap.

The boundary to geopy: nobody else imports it, and its errors come out as ProviderFailed, with a sentence.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from skicyclerun import __version__
from skicyclerun.places.cache import GeocodeCache
from skicyclerun.places.pace import Stopped, server_of
from skicyclerun.places.place import Answer, joined, location

NOMINATIM: Final = "nominatim"
PHOTON: Final = "photon"
ONLINE: Final = (NOMINATIM, PHOTON)

DEFAULT_URLS: Final[Mapping[str, str]] = {
    NOMINATIM: "https://nominatim.openstreetmap.org",
    PHOTON: "https://photon.komoot.io",
}
DEFAULT_USER_AGENT: Final = f"skicyclerun/{__version__}"
PUBLIC_SERVERS: Final = frozenset({"nominatim.openstreetmap.org", "photon.komoot.io"})
PUBLIC_DELAY_SECONDS: Final = 1.0
"""Nominatim's usage policy (operations.osmfoundation.org/policies/nominatim): at most one request a second."""

LONGEST_WAIT_SECONDS: Final = 20.0
"""A server that wants to be left alone for longer is not waited for; its photos are asked about again another time."""
FIRST_WAIT_SECONDS: Final = 0.5
"""At least so long is waited after the first 429, and twice as long after each further one."""
TRIES: Final = 3
"""Requests for one place while the server says that it is asked too often."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """How one geocoder is asked."""

    name: str
    api_url: str = ""
    """Of the server, with or without its last `/reverse`; empty for the public one."""
    user_agent: str = DEFAULT_USER_AGENT
    request_delay_seconds: float = PUBLIC_DELAY_SECONDS
    timeout_seconds: float = 10.0
    zoom: int = 16
    """Nominatim: how fine the address is, 3 (a country) to 18 (a building)."""
    language: str = ""
    """Of the names (`en`, `de`); empty for those of the place itself."""

    @property
    def url(self) -> str:
        """Of the server, without `/reverse`."""
        return (self.api_url or DEFAULT_URLS[self.name]).rstrip("/").removesuffix("/reverse").rstrip("/")

    @property
    def server(self) -> str:
        """Host, port and path, for people and for the cache's keys."""
        return self.url.split("://", 1)[-1]

    @property
    def delay_seconds(self) -> float:
        """What is kept: a public server is never asked faster than its owners allow."""
        public = (urlsplit(self.url).hostname or "") in PUBLIC_SERVERS
        return max(self.request_delay_seconds, PUBLIC_DELAY_SECONDS) if public else self.request_delay_seconds

    @property
    def question(self) -> str:
        """All that decides an answer besides the position."""
        zoom = f"|zoom={self.zoom}" if self.name == NOMINATIM else ""
        return f"{self.name}|{self.server}{zoom}" + (f"|{self.language}" if self.language else "")


class ProviderFailed(Exception):
    """A geocoder gave no answer; `str()` says why, without its full stop."""

    def __init__(self, sentence: str, *, lasting: bool = False, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.lasting = lasting
        """The next place will fare no better."""
        self.retry_after = retry_after
        """Seconds for which it wants to be left alone; None where it is not that."""


class _LeftAlone(ProviderFailed):
    """It was not asked."""


class Geocoder(Protocol):
    """One request to one geocoder; knows nothing of pace or cache."""

    def ask(self, latitude: float, longitude: float) -> dict[str, Any] | None:
        """`location` of a position, None if there is no address. Raises ProviderFailed."""
        ...


class Provider:
    """A geocoder that is asked at its own pace and left alone while it is down. Safe from several threads."""

    def __init__(self, settings: ProviderSettings, cache: GeocodeCache, geocoder: Geocoder | None = None) -> None:
        self.settings = settings
        self._cache = cache
        self._geocoder = geocoder or GeopyGeocoder(settings)
        server = server_of(urlsplit(settings.url).netloc)
        self._pace, self._breaker = server.pace, server.breaker
        self._stopped = threading.Event()

    def known(self, latitude: float, longitude: float) -> Answer | None:
        """What the cache has; None where it has nothing."""
        return self._cache.find(self.settings.name, self.settings.question, latitude, longitude)

    def ask(self, latitude: float, longitude: float) -> Answer:
        """From the cache, else from the server when one's turn has come. Raises ProviderFailed."""
        tries = 0
        while True:
            answer = self.known(latitude, longitude)
            if answer is not None:
                return answer
            self._not_while_down()
            tries += 1
            try:
                with self._pace.turn(self.settings.delay_seconds, self._stopped):
                    # Whoever was before in the queue may have asked for a neighbour, or found the server down.
                    answer = self.known(latitude, longitude)
                    if answer is not None:
                        return answer
                    self._not_while_down()
                    try:
                        found = self._geocoder.ask(latitude, longitude)
                    finally:
                        self._pace.asked()
                    self._breaker.answered()
                    self._cache.keep(self.settings.name, self.settings.question, latitude, longitude, found)
                    return Answer(found)
            except Stopped as error:
                raise ProviderFailed("the run was stopped before it was asked") from error
            except _LeftAlone:
                raise
            except ProviderFailed as failure:
                if not self._may_try_again(failure, tries):
                    raise

    def stop(self) -> None:
        """Nobody waits here for a turn any more."""
        self._stopped.set()

    def _not_while_down(self) -> None:
        reason = self._breaker.reason()
        if reason:
            raise _LeftAlone(f"{reason}; it is left alone for a while")

    def _may_try_again(self, failure: ProviderFailed, tries: int) -> bool:
        """After a failure: whether to wait and ask once more. What others will meet is kept."""
        if failure.retry_after is None:
            self._breaker.failed(str(failure), at_once=failure.lasting)
            return False
        wait = max(failure.retry_after, max(FIRST_WAIT_SECONDS, self.settings.delay_seconds) * 2 ** (tries - 1))
        if wait > LONGEST_WAIT_SECONDS or tries >= TRIES:
            self._breaker.failed(str(failure), at_once=True, rest_seconds=failure.retry_after or None)
            return False
        self._pace.hold_off(wait)
        return True


# ── geopy ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class GeopyGeocoder:
    """Nominatim or Photon by geopy, which is imported at the first question."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._geocoder: Any = None

    def ask(self, latitude: float, longitude: float) -> dict[str, Any] | None:
        from geopy.exc import GeopyError

        options: dict[str, Any] = {}
        if self._settings.language:
            options["language"] = self._settings.language
        if self._settings.name == NOMINATIM:
            options["zoom"] = self._settings.zoom
        try:
            found = self._made().reverse((latitude, longitude), exactly_one=True, **options)
            if found is None:
                return None
            return (_of_nominatim if self._settings.name == NOMINATIM else _of_photon)(found.raw)
        except GeopyError as error:
            raise _translated(error, self._settings) from error
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise ProviderFailed(f"{_called(self._settings)} gave an answer that is none") from error

    def _made(self) -> Any:
        with self._lock:
            if self._geocoder is None:
                from geopy.geocoders import Nominatim, Photon

                kind = Nominatim if self._settings.name == NOMINATIM else Photon
                scheme, _, server = self._settings.url.partition("://")
                self._geocoder = kind(
                    scheme=scheme,
                    domain=server,
                    user_agent=self._settings.user_agent,
                    timeout=self._settings.timeout_seconds,
                    adapter_factory=_adapter,
                )
            return self._geocoder


def _adapter(*, proxies: Any, ssl_context: Any) -> Any:
    """geopy's client without tries of its own, which would not keep the pace; certifi's roots beside the system's."""
    import ssl

    from geopy.adapters import RequestsAdapter, URLLibAdapter

    if ssl_context is None:
        ssl_context = ssl.create_default_context()
        try:
            import certifi

            ssl_context.load_verify_locations(certifi.where())  # Python from python.org on macOS comes without any
        except (ImportError, OSError):
            pass
    if RequestsAdapter.is_available:
        return RequestsAdapter(proxies=proxies, ssl_context=ssl_context, max_retries=0)
    return URLLibAdapter(proxies=proxies, ssl_context=ssl_context)


def _called(settings: ProviderSettings) -> str:
    return f"{settings.name.capitalize()} ({settings.server})"


def _translated(error: Exception, settings: ProviderSettings) -> ProviderFailed:
    """geopy's word for what went wrong, in ours."""
    from geopy import exc

    name = _called(settings)
    cause = error.__cause__
    status = getattr(cause, "status_code", None)
    if isinstance(error, exc.GeocoderRateLimited):
        return ProviderFailed(f"{name} says that it is asked too often", retry_after=error.retry_after or 0.0)
    if isinstance(error, exc.GeocoderTimedOut) and status is None:
        return ProviderFailed(f"{name} did not answer within {settings.timeout_seconds:g} s")
    if isinstance(error, exc.GeocoderAuthenticationFailure | exc.GeocoderInsufficientPrivileges):
        return ProviderFailed(
            f"{name} refuses to answer (error {status or 403}); a public server wants a user_agent that says who asks",
            lasting=True,
        )
    if isinstance(error, exc.GeocoderParseError):
        return ProviderFailed(f"{name} gave an answer that is none")
    if status is not None:
        return ProviderFailed(f"{name} answered with the error {status}", retry_after=_retry_after(status, cause))
    if isinstance(error, exc.GeocoderQueryError):
        return ProviderFailed(f"{name} did not understand the question ({error})")
    if isinstance(error, exc.GeocoderUnavailable):
        return ProviderFailed(f"{name} cannot be reached")
    return ProviderFailed(f"{name} gave no answer ({error or type(error).__name__})")


def _retry_after(status: int, cause: Any) -> float | None:
    """Of a 503 that says when it will be back."""
    if status != 503:
        return None
    from geopy.adapters import get_retry_after

    seconds = get_retry_after({key.lower(): value for key, value in dict(cause.headers or {}).items()})
    return None if seconds is None else float(seconds)


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────

_CITY: Final = ("city", "town", "village", "municipality", "hamlet", "isolated_dwelling", "suburb", "city_district")
_ROAD: Final = ("road", "pedestrian", "footway", "cycleway", "path", "track", "bridleway", "steps")


def _first(texts: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return next((text for key in keys if isinstance(text := texts.get(key), str) and text), "")


def _of_nominatim(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """Its `address` (nominatim.org/release-docs/latest/api/Output)."""
    address = raw.get("address")
    if not isinstance(address, Mapping):
        raise ValueError("no address")
    state = _first(address, ("state", "province", "region", "state_district"))
    return _said(
        NOMINATIM,
        {
            "name": raw.get("name"),
            "road": _first(address, _ROAD),
            "city": _first(address, _CITY),
            "county": address.get("county"),
            "state": state,
            "country": address.get("country"),
            "country_code": address.get("country_code"),
        },
        raw.get("display_name"),
    )


def _of_photon(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The properties of its feature (github.com/komoot/photon, docs/api-v1.md)."""
    properties = raw["properties"]
    if not isinstance(properties, Mapping):
        raise ValueError("no properties")
    kind = properties.get("type")
    name = properties.get("name")
    return _said(
        PHOTON,
        {
            "name": name if kind in (None, "house", "other") else None,
            "road": properties.get("street") or (name if kind == "street" else None),
            "city": properties.get("city") or (name if kind == "city" else None) or properties.get("district"),
            "county": properties.get("county"),
            "state": properties.get("state"),
            "country": properties.get("country"),
            "country_code": properties.get("countrycode"),
        },
        name,
    )


def _said(provider: str, texts: Mapping[str, Any], otherwise: object) -> dict[str, Any] | None:
    formatted = joined((texts.get("city") or texts.get("county"), texts.get("state"), texts.get("country")))
    said = location(provider, {**texts, "formatted": formatted or otherwise})
    if said.get("name") == said.get("road") or said.get("name") == said.get("city"):
        said.pop("name", None)
    return said if "formatted" in said else None
