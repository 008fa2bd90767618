"""Where a photo was taken in Photos' words: the archived answer of Apple's reverse geocoder (ZREVERSELOCATIONDATA)."""

from __future__ import annotations

import plistlib
import unicodedata
from collections.abc import Hashable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from skicyclerun.models import Place

_COUNTRY, _STATE, _CITY, _OCEAN, _AREA_OF_INTEREST, _INLAND_WATER, _REGION = 1, 2, 4, 7, 8, 9, 11
"""`placeType` of a PLRevGeoMapItemAdditionalPlaceInfo, by osxphotos' PlaceNames."""
_IN_THE_NAME: Final = (_AREA_OF_INTEREST, _REGION, _CITY, _STATE, _COUNTRY, _INLAND_WATER, _OCEAN)


@lru_cache(maxsize=256)
def place_of(blob: Hashable) -> Place | None:
    """The place that the archive says; None where it says nothing that can be understood.

    Country, state, city and name are those of osxphotos' PlaceInfo (the smallest area of each kind); where the map has
    none of a kind, that of the postal address. It reads the keyed archive itself because osxphotos' way takes twenty
    times as long.
    """
    with suppress(Exception):  # plistlib has no common base for what it raises over bytes that are no archive
        archive = plistlib.loads(bytes(blob), fmt=plistlib.FMT_BINARY) if isinstance(blob, bytes) else None
        if archive is not None:
            return _place(archive["$objects"], archive["$top"]["root"])
    return None


def _place(objects: list[Any], root: Any) -> Place | None:
    def follow(reference: Any) -> Any:
        """What a reference within the archive stands for; the first object stands for nothing."""
        if not isinstance(reference, plistlib.UID):
            return reference
        return objects[reference.data] if reference.data else None

    def text(reference: Any) -> str:
        found = follow(reference)
        return unicodedata.normalize("NFC", found) if isinstance(found, str) else ""

    top = follow(root)
    areas: dict[int, list[tuple[float, str]]] = {}
    for reference in (follow(follow(top["mapItem"])["sortedPlaceInfos"]) or {}).get("NS.objects", ()):
        info = follow(reference)
        areas.setdefault(follow(info["placeType"]), []).append((float(follow(info["area"]) or 0), text(info["name"])))
    names = {kind: min(found, key=lambda each: each[0])[1] for kind, found in areas.items()}
    address = follow(top.get("postalAddress")) or {}
    place = Place(
        country=names.get(_COUNTRY) or text(address.get("_country")),
        country_code=(text(top.get("countryCode")) or text(address.get("_ISOCountryCode"))).upper(),
        state=names.get(_STATE) or text(address.get("_state")),
        city=names.get(_CITY) or text(address.get("_city")),
        name=", ".join(filter(None, (names.get(kind) for kind in _IN_THE_NAME))),
    )
    return place if any((place.country, place.state, place.city, place.name)) else None
