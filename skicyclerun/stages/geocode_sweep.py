"""The stage `geocode_sweep`: goes over what has no place, no heading, or only a place that was found offline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skicyclerun.places import offline
from skicyclerun.places.locator import Locator
from skicyclerun.stages.metadata_extraction import MetadataExtractionSettings, position_of
from skicyclerun.stages.stage import ForNow, Made, Picture, Recipe, Stage, Surroundings


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a picture lacks and may get; or why not."""

    place: bool = False
    heading: bool = False
    reason: str = ""
    not_asked: bool = False
    """Its place is lacking too, and nobody is to be asked."""


class Pulse:
    """Says in a plain line how far the sweep is, at most every so many seconds; never, without seconds."""

    def __init__(self, seconds: object, say: Callable[[str], None]) -> None:
        self._seconds = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else None
        self._say = say
        self._last = time.monotonic()
        self._pictures = 0
        self._places = 0
        self._lock = threading.Lock()

    def beat(self, *, asked: bool) -> None:
        """One more picture is done; `asked`: its place was asked for."""
        with self._lock:
            self._pictures += 1
            self._places += asked
            now = time.monotonic()
            if self._seconds is None or now - self._last < self._seconds:
                return
            self._last = now
            text = f"geocode_sweep: {self._pictures} pictures so far, {self._places} places asked for"
        self._say(text)


class GeocodeSweep(Recipe):
    """Asks the geocoders on the network for pictures that lack a place or were located offline only."""

    def __init__(self, settings: MetadataExtractionSettings, surroundings: Surroundings) -> None:
        options = surroundings.options
        self._say = surroundings.say
        self._places, self._passed_over = settings.places(options, sweep=True)
        self._locator = Locator(self._places, Path(surroundings.geocode_cache), surroundings.say)
        self._online = bool(self._places.online)
        self._path_contains = str(options.get("sweep_path_contains") or "")
        limit = options.get("sweep_limit")
        self._limit = int(limit) if limit is not None else None
        self._only_missing = bool(options.get("sweep_only_missing"))
        self._skip_heading = bool(options.get("sweep_skip_heading"))
        self._pulse = Pulse(options.get("sweep_pulse_sec"), surroundings.say)
        self._counted: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def open(self) -> None:
        for name in self._passed_over:
            self._say(f"metadata_extraction names the provider {name}, which is passed over")
        if not self._online and not self._places.cache_only:
            self._say(
                "No geocoder on the network is configured (metadata_extraction.active_provider): places that were "
                "found offline stay as they are"
            )
        self._locator.open()

    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        position = position_of(picture.facts.get("gps"))
        return {
            **self._places.depends_on(),
            "position": [round(number, 6) for number in position] if position else None,
            "heading": not self._skip_heading,
        }

    def left_out(self, picture: Picture) -> str:
        """Empty for at most `sweep_limit` pictures of a run; the same answer for the same picture each time."""
        if self._path_contains not in str(picture.path):
            return ForNow(f"its path does not contain {self._path_contains!r}")
        wanted = self._wanted(picture)
        if wanted.reason or self._limit is None:
            return wanted.reason
        with self._lock:
            key = (str(picture.path), picture.variant)
            if key not in self._counted:
                if len(self._counted) >= self._limit:
                    return ForNow(f"the limit of this sweep ({self._limit}) was reached")
                self._counted.add(key)
        return ""

    def _wanted(self, picture: Picture) -> _Wanted:
        gps = picture.facts.get("gps")
        position = position_of(gps)
        if position is None or not isinstance(gps, Mapping):
            return _Wanted(reason="it has no position")
        place = picture.facts.get("location")
        provider = place.get("provider") if isinstance(place, Mapping) and place else None
        missing = not place
        lacks_heading = "heading" not in gps or "cardinal" not in gps
        heading = lacks_heading and not self._skip_heading and not self._only_missing
        if missing or (provider == offline.NAME and not self._only_missing):
            reason = self._not_asked(position, missing=missing)
            if not reason or heading:
                return _Wanted(place=not reason, heading=heading, not_asked=bool(reason) and self._places.cache_only)
            return _Wanted(reason=reason)
        if heading:
            return _Wanted(heading=True)
        said = "it has its place"
        return _Wanted(reason=ForNow(said) if lacks_heading or provider == offline.NAME else said)

    def _not_asked(self, position: tuple[float, float], *, missing: bool) -> str:
        """Why its place is not asked for; empty if it is."""
        if not self._online:
            return "" if missing else "it was located offline, and no geocoder on the network is configured"
        if self._places.cache_only and self._locator.cached(*position) is None:
            return ForNow("its place is not in the cache, and nobody is to be asked")
        return ""

    def make(self, picture: Picture, staged: Path | None) -> Made:
        wanted = self._wanted(picture)
        facts: dict[str, Any] = {}
        gps = picture.facts.get("gps")
        if wanted.heading and isinstance(gps, Mapping):
            more = _heading(picture.path, gps)
            if more:
                facts["gps"] = {**gps, **more}
        position = position_of(gps)
        if not wanted.place or position is None:
            self._pulse.beat(asked=False)
            return Made(facts, provisional=wanted.not_asked)
        found = self._locator.locate(*position)
        self._pulse.beat(asked=True)
        if found.location is not None:
            facts["location"] = dict(found.location)
        return Made(facts, note=found.note, provisional=not found.asked)

    def would_help(self, picture: Picture) -> bool:
        return self._locator.would_answer(position_of(picture.facts.get("gps")))

    def settle(self) -> None:
        self._locator.cache.save()

    def close(self) -> None:
        self._locator.close()


def _heading(path: Path, gps: Mapping[str, Any]) -> dict[str, Any]:
    """Heading and its point of the compass: of the entry's heading, else as the file says; empty if nobody does."""
    from skicyclerun.images.picture_facts import cardinal, read_picture_facts

    heading = gps.get("heading")
    if isinstance(heading, int | float):
        return {"cardinal": cardinal(heading)} if 0 <= heading <= 360 else {}
    read = read_picture_facts(path).gps
    return {key: read[key] for key in ("heading", "cardinal", "heading_reference") if key in read}


STAGE = Stage(
    "geocode_sweep",
    "asks for the places that are missing or were found offline only, and for missing headings",
    needs_paths=("apple_photos_export", "master_catalog", "geocode_cache"),
    makes_paths=("geocode_cache",),
    section="metadata_extraction",
    settings=MetadataExtractionSettings,
    recipe=GeocodeSweep,
    reads="export",
)
