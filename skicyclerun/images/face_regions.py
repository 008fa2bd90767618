"""Where the named faces are: `mwg-rs:Regions` (Metadata Working Group) and `MP:RegionInfo` (Microsoft Photo 1.2).

Both count in shares of the picture as stored, before its orientation is applied: Guidelines for Handling Image Metadata
2.0, 5.9 (area by its centre); https://learn.microsoft.com/windows/win32/wic/-wic-people-tagging (rectangle by its upper
left corner). So does `osxphotos export --exiftool`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

from skicyclerun.images.metadata import PhotoTags, orientation_of
from skicyclerun.images.new_xmp import FACE, PEOPLE, REGION_LIST, REGIONS, NewXmp, Region, Regions, put_regions
from skicyclerun.images.texts import clean_line, cut
from skicyclerun.models import Face

_MOST_BYTES: Final = 24_000
"""Of XMP: a packet holds 64 kB, and descriptions and keywords want to live in it too."""
_BYTES_OF_A_REGION: Final = 500
"""Of both kinds together, without the name."""
_MOST_NAME: Final = 200
"""Bytes of UTF-8."""
_ALWAYS_FIT: Final = _MOST_BYTES // (_BYTES_OF_A_REGION + 2 * len("&quot;") * _MOST_NAME)
"""So many have room whatever their names are."""

_NUMBERED: Final = re.compile(rf"{re.escape(REGION_LIST)}\[(\d+)\]")
WITH_REGIONS: Final = (REGIONS, PEOPLE)
"""What the keys of both begin with."""


class Area(NamedTuple):
    """A rectangle in shares of a picture, within it: its upper left corner, width and height."""

    left: float
    top: float
    width: float
    height: float


@lru_cache(maxsize=64)  # asked for the tags and again for the catalog
def named_faces(faces: tuple[Face, ...]) -> tuple[Face, ...]:
    """Those that somebody has named and that are, at least in part, in the picture; names as tags can hold them."""
    clean = (
        Face(
            cut(clean_line(face.name), _MOST_NAME),
            *(round(side, 6) for side in (face.x, face.y, face.width, face.height)),
        )
        for face in faces
    )
    return tuple(face for face in clean if face.name and area_of(face) is not None)


def area_of(face: Face) -> Area | None:
    """What of the face's region lies within the picture; None for nothing, or for what is no region."""
    values = (face.x, face.y, face.width, face.height)
    if not all(map(math.isfinite, values)) or face.width <= 0 or face.height <= 0:
        return None
    across, down = face.width / 2, face.height / 2
    left, right = min(max(face.x - across, 0.0), 1.0), min(max(face.x + across, 0.0), 1.0)
    top, bottom = min(max(face.y - down, 0.0), 1.0), min(max(face.y + down, 0.0), 1.0)
    if right <= left or bottom <= top:
        return None
    return Area(left, top, right - left, bottom - top)


def as_stored(area: Area, orientation: int) -> Area:
    """The area of a picture as displayed in the picture as stored; `orientation` is EXIF's, 1 to 8."""
    if orientation == 1:
        return area
    left, top, width, height = area
    right, bottom = 1 - left - width, 1 - top - height  # from the other edges
    return {
        2: Area(right, top, width, height),
        3: Area(right, bottom, width, height),
        4: Area(left, bottom, width, height),
        5: Area(top, left, height, width),
        6: Area(top, right, height, width),
        7: Area(bottom, right, height, width),
        8: Area(bottom, left, height, width),
    }[orientation]


def write_face_regions(exiv2: Any, tags: PhotoTags, faces: tuple[Face, ...], stored: tuple[int, int]) -> None:
    """Bring both to these faces, which are as displayed; `stored` is the picture's size in pixels as stored.

    Without a named face the file's own regions stay. Of them, those that are no faces (a pet, a bar code, the focus)
    stay in any case.
    """
    named = named_faces(faces)
    if not named or min(stored) <= 0:
        return
    fitting = _fitting(tags, named)
    regions = _regions(fitting, stored, orientation_of(tags.exif))
    if isinstance(tags.xmp, NewXmp) and tags.xmp.put_regions(regions):
        return
    others = _regions_of_no_face(tags, after=len(fitting))
    wanted = {key: text.strip() for key, text in regions.leaves().items()} | {key: text for key, _, text in others}
    if _texts_in(tags) == {key: text for key, text in wanted.items() if _is_text(text)}:
        return
    tags.xmp.erase_where(lambda key: key.startswith(WITH_REGIONS))
    put_regions(exiv2, tags.xmp, regions)
    for key, value, _ in others:
        tags.xmp.put(key, value)


def _fitting(tags: PhotoTags, named: tuple[Face, ...]) -> tuple[Face, ...]:
    """As many as have room, the largest first; in their order."""
    if len(named) <= _ALWAYS_FIT:
        return named
    room = _MOST_BYTES
    kept: set[int] = set()
    for place in sorted(range(len(named)), key=lambda place: -named[place].width * named[place].height):
        room -= _BYTES_OF_A_REGION + 2 * len(escape(named[place].name, {'"': "&quot;"}).encode())
        if room < 0:
            tags.notes.append(f"{len(kept)} of {len(named)} face regions fitted into the file")
            break
        kept.add(place)
    return tuple(face for place, face in enumerate(named) if place in kept)


def _regions_of_no_face(tags: PhotoTags, after: int) -> list[tuple[str, Any, str]]:
    """Key, value and text of all that says of the file's regions of another type, renumbered to stand after so many."""
    regions: dict[str, list[str]] = {}
    for key in tags.xmp.keys():
        if found := _NUMBERED.match(key):
            regions.setdefault(found[1], []).append(key)
    kept = [
        (number, keys)
        for number, keys in regions.items()
        if tags.xmp.text(f"{REGION_LIST}[{number}]/mwg-rs:Type") not in ("", FACE)
    ]
    return [
        (
            f"{REGION_LIST}[{place}]{key.removeprefix(f'{REGION_LIST}[{number}]')}",
            tags.xmp.tag(key).getValue(),
            tags.xmp.text(key),
        )
        for place, (number, keys) in enumerate(kept, start=after + 1)
        for key in keys
    ]


def _texts_in(tags: PhotoTags) -> dict[str, str]:
    return {
        key: text for key in tags.xmp.keys() if key.startswith(WITH_REGIONS) and _is_text(text := tags.xmp.text(key))
    }


def _is_text(text: str) -> bool:
    """Not exiv2's word for a structure or a list (`type="Bag"`)."""
    return bool(text) and not text.startswith('type="')


def _regions(faces: tuple[Face, ...], stored: tuple[int, int], orientation: int) -> Regions:
    regions = []
    for face in faces:
        area = area_of(face)
        assert area is not None  # of a named face
        left, top, across, down = as_stored(area, orientation)
        # exiv2 takes a text that begins with `type=` for a word about its own kind, in what it reads too.
        name = f" {face.name}" if face.name.startswith("type=") else face.name
        x, y, left_side, top_side, width, height = map(
            _share, (left + across / 2, top + down / 2, left, top, across, down)
        )
        regions.append(Region(name, (x, y, width, height), f"{left_side}, {top_side}, {width}, {height}"))
    return Regions(*stored, tuple(regions))


def _share(value: float) -> str:
    return f"{abs(value):.6f}".rstrip("0").rstrip(".")  # no share is below 0, but for its last digit
