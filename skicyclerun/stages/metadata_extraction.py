"""The stage `metadata_extraction`: what the exported files say of themselves, and the places of their positions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skicyclerun.places.locator import Locator, PlaceSettings
from skicyclerun.settings.section import StageSection
from skicyclerun.stages.place_settings import Geocoding, ProviderChoice, Providers, place_settings
from skicyclerun.stages.stage import Made, Picture, Recipe, Stage, Surroundings


class MetadataExtractionSettings(StageSection, ProviderChoice):
    """`metadata_extraction`; geocode_sweep reads it too."""

    extract_exif: bool = True
    """Date, camera, lens, exposure."""
    extract_geolocation: bool = True
    """Position, altitude, heading and the place."""
    providers: Providers = Providers()
    geocoding: Geocoding = Geocoding()

    def places(self, options: Mapping[str, Any], *, sweep: bool = False) -> tuple[PlaceSettings, tuple[str, ...]]:
        """Who is asked for places, and who is named and passed over; `options` are those of the command line."""
        cache_only = bool(options.get("cache_only_geocode"))
        return place_settings(self, self.providers, self.geocoding, cache_only=cache_only, sweep=sweep)


def position_of(gps: object) -> tuple[float, float] | None:
    """Latitude and longitude of an entry's `gps`, None where it holds none."""
    if not isinstance(gps, Mapping):
        return None
    latitude, longitude = gps.get("lat"), gps.get("lon")
    if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
        return None
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def not_asked_in_words(pictures: int) -> str:
    """That pictures have a position and no place because nobody was asked, for the person."""
    have = "picture has a position and no place" if pictures == 1 else "pictures have a position and no place"
    return (
        f"{pictures} {have}: it is not in the cache, and nobody was asked (cache_only). Without that, "
        "`skicyclerun run --stages metadata_extraction,geocode_sweep` asks"
    )


class MetadataExtraction(Recipe):
    """Reads a file's header and asks for the place of its position."""

    def __init__(self, settings: MetadataExtractionSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._say = surroundings.say
        self._places, self._passed_over = settings.places(surroundings.options)
        self._locator = Locator(self._places, Path(surroundings.geocode_cache), surroundings.say)
        self._not_asked: list[int] = []  # appended to from several threads

    def open(self) -> None:
        if not self._settings.extract_geolocation:
            return
        for name in self._passed_over:
            self._say(f"metadata_extraction names the provider {name}, which is passed over")
        self._locator.open()

    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        said: dict[str, object] = {
            "extract_exif": self._settings.extract_exif,
            "extract_geolocation": self._settings.extract_geolocation,
        }
        if self._settings.extract_geolocation:
            position = position_of(picture.facts.get("gps"))
            said |= self._places.depends_on()
            said["position"] = [round(number, 6) for number in position] if position else None
        return said

    def make(self, picture: Picture, staged: Path | None) -> Made:
        from skicyclerun.images.picture_facts import cardinal, read_picture_facts

        read = read_picture_facts(picture.path)
        facts: dict[str, Any] = {}
        if read.width and read.height:
            facts |= {"width": read.width, "height": read.height}
        if self._settings.extract_exif:
            for key, date in (("date_taken", read.date_taken), ("date_taken_utc", read.date_taken_utc)):
                # What the library says of it, which export entered, goes before the file.
                if date and "date_taken" not in picture.facts:
                    facts[key] = date
            if read.exif:
                facts["exif"] = dict(read.exif)
        if not self._settings.extract_geolocation:
            return Made(facts)
        gps = dict(read.gps)
        known = picture.facts.get("gps")
        if position_of(known) is not None and isinstance(known, Mapping):
            # A movie, or a file exported as it was, has its position in the library alone.
            kept = {key: known[key] for key in ("lat", "lon", "altitude", "heading") if key in known}
            if "heading" in kept and kept["heading"] != gps.get("heading"):
                gps.pop("heading_reference", None)
            gps |= kept
        heading = gps.get("heading")
        if isinstance(heading, int | float) and 0 <= heading <= 360:
            gps["cardinal"] = cardinal(heading)
        position = position_of(gps)
        if position is None:
            return Made(facts)
        facts["gps"] = gps
        found = self._locator.locate(*position)
        if found.location is not None:
            facts["location"] = dict(found.location)
        if not found.asked:
            self._not_asked.append(1)
        return Made(facts, note=found.note, provisional=not found.asked)

    def would_help(self, picture: Picture) -> bool:
        return self._locator.would_answer(position_of(picture.facts.get("gps")))

    def settle(self) -> None:
        self._locator.cache.save()

    def close(self) -> None:
        if self._not_asked:
            self._say(not_asked_in_words(len(self._not_asked)))
        self._locator.close()


STAGE = Stage(
    "metadata_extraction",
    "reads date, camera and position from the exported files into the catalog, and names the places",
    needs_paths=("apple_photos_export", "master_catalog", "geocode_cache"),
    makes_paths=("geocode_cache",),
    section="metadata_extraction",
    settings=MetadataExtractionSettings,
    recipe=MetadataExtraction,
    reads="export",
)
