"""The boxes of a HEIF file, as far as a plain picture has them: one image, or a grid of equal tiles, in HEVC.

By ISO/IEC 14496-12 (boxes, `meta`) and 23008-12 (`grid`, `irot`, item properties). It reads what cameras write and
refuses the rest: whoever asks then takes libheif, which knows all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

_MOST_META_BYTES: Final = 4 << 20
_MOST_BOXES: Final = 4_096
"""In one box; a `meta` of an iPhone has a dozen, its `ipco` 30."""
_MOST_ITEMS: Final = 4_096
_MOST_TILES: Final = 2_048
_LEAST_TILE_SIDE: Final = 64

# What says nothing about pixels but what is looked at here, or elsewhere (colours' profiles, by pillow-heif).
_PICTURE_PROPERTIES: Final = frozenset((b"ispe", b"colr", b"pixi", b"irot", b"hvcC", b"clli", b"mdcv"))
_TILE_PROPERTIES: Final = _PICTURE_PROPERTIES - {b"irot"}
# ISO/IEC 23091-2, matrix coefficients: both have the weights of red and blue that JFIF has.
BT601_MATRICES: Final = frozenset((5, 6))

_Key = TypeVar("_Key")


class NotPlain(Exception):
    """It is no plain picture, or not one as it should be; says why, for the log."""


@dataclass(frozen=True, slots=True)
class TiledPicture:
    """Where a plain picture's tiles are; a picture in one piece is its own only tile."""

    width: int
    """Pixels, as stored, before turning."""
    height: int
    quarter_turns: int
    """How often it is to be turned to the left by 90 degrees, 0 to 3."""
    columns: int
    tile_width: int
    tile_height: int
    configuration: bytes
    """Of the decoder, for all tiles: the content of `hvcC` (ISO/IEC 14496-15, 8.3.3.1)."""
    tiles: tuple[tuple[int, int], ...]
    """Row by row: first byte in the file, and count of bytes."""

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height, turned."""
        return (self.height, self.width) if self.quarter_turns % 2 else (self.width, self.height)

    def place(self, number: int) -> tuple[int, int]:
        """Left and top of a tile in the stored picture."""
        return number % self.columns * self.tile_width, number // self.columns * self.tile_height


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    """Of its content."""
    end: int


@dataclass(frozen=True, slots=True)
class _Place:
    in_idat: bool
    start: int
    size: int


class _Reader:
    """Big-endian numbers of a part of the file, one after the other; raises NotPlain at its end."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data, self._at, self._end = data, start, end

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        if size > self._end - self._at:
            raise NotPlain("a box is shorter than what it should hold")
        self._at += size
        return self._data[self._at - size : self._at]

    def version_and_flags(self) -> tuple[int, int]:
        return self.number(1), self.number(3)

    def count(self, size: int, most: int) -> int:
        count = self.number(size)
        if count > most:
            raise NotPlain(f"{count} entries in one box")
        return count

    @property
    def at(self) -> int:
        return self._at


def read_plain_picture(data: bytes) -> TiledPicture:
    """The primary picture of a file. Raises NotPlain, and nothing else, for whatever is not plain or not right.

    Nothing of a picture is looked at, and little memory is used, whatever the file says.
    """
    meta = _only(_boxes(data, 0, len(data)), b"meta")
    if meta.end - meta.start > _MOST_META_BYTES:
        raise NotPlain("its metadata are too long")
    _version(data, meta)
    parts = {box.kind: box for box in _unrepeated(_boxes(data, meta.start + 4, meta.end))}
    primary = _primary(data, _part(parts, b"pitm"))
    kinds = _item_kinds(data, _part(parts, b"iinf"))
    places = _item_places(data, _part(parts, b"iloc"))
    properties = _item_properties(data, _part(parts, b"iprp"))
    of_picture = _by_kind(properties, primary, _PICTURE_PROPERTIES)
    width, height = _extent(data, of_picture)
    turns = _quarter_turns(data, of_picture)
    if turns and (width % 2 or height % 2):
        raise NotPlain("it is to be turned, and its sides are odd")
    if kinds.get(primary) == b"grid":
        tiles = _tiles(data, _part(parts, b"iref"), primary)
        rows, columns, grid_width, grid_height = _grid(data, _where(places, primary, parts.get(b"idat"), len(data)))
        if (grid_width, grid_height) != (width, height) or rows * columns != len(tiles):
            raise NotPlain("its grid does not fit its size or its tiles")
    else:
        tiles, rows, columns = (primary,), 1, 1
    if any(kinds.get(tile) != b"hvc1" for tile in tiles):
        raise NotPlain("it is not in HEVC throughout")
    of_tile = of_picture
    if tiles != (primary,):
        if any(properties.get(tile) != properties.get(tiles[0]) for tile in tiles):
            raise NotPlain("its tiles differ")
        of_tile = _by_kind(properties, tiles[0], _TILE_PROPERTIES)
    tile_width, tile_height = _extent(data, of_tile)
    if tiles != (primary,):
        _check_tiling((width, columns, tile_width), (height, rows, tile_height))
    if len(of_tile.get(b"hvcC", ())) != 1:
        raise NotPlain("its decoder's configuration is not one")
    configuration = of_tile[b"hvcC"][0]
    for colour in (*of_picture.get(b"colr", ()), *of_tile.get(b"colr", ())):
        _check_colour(data, colour)
    where = [_where(places, tile, None, len(data)) for tile in tiles]
    return TiledPicture(
        width=width,
        height=height,
        quarter_turns=turns,
        columns=columns,
        tile_width=tile_width,
        tile_height=tile_height,
        configuration=data[configuration.start : configuration.end],
        tiles=tuple((place.start, place.size) for place in where),
    )


# ── boxes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    for _ in range(_MOST_BOXES):
        if start == end:
            return
        reader = _Reader(data, start, end)
        size, kind = reader.number(4), reader.take(4)
        if size == 1:
            size = reader.number(8)
        elif size == 0:  # to the end of the file, which only the last box may say
            size = end - start
        if size < reader.at - start or size > end - start:
            raise NotPlain("a box is longer than what it is in")
        yield _Box(kind, reader.at, start + size)
        start += size
    raise NotPlain("too many boxes")


def _unrepeated(boxes: Iterator[_Box]) -> list[_Box]:
    found = list(boxes)
    if len({box.kind for box in found}) != len(found):
        raise NotPlain("a box is there twice")
    return found


def _only(boxes: Iterator[_Box], kind: bytes) -> _Box:
    found = [box for box in boxes if box.kind == kind]
    if len(found) != 1:
        raise NotPlain(f"{len(found)} boxes {kind!r}")
    return found[0]


def _part(parts: dict[bytes, _Box], kind: bytes) -> _Box:
    if kind not in parts:
        raise NotPlain(f"no box {kind!r}")
    return parts[kind]


def _reader(data: bytes, box: _Box) -> _Reader:
    return _Reader(data, box.start, box.end)


def _version(data: bytes, box: _Box) -> int:
    version, _ = _reader(data, box).version_and_flags()
    return version


def _once(found: dict[int, _Key], item: int, value: _Key) -> None:
    if item in found:
        raise NotPlain(f"item {item} is there twice")
    found[item] = value


# ── items ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _primary(data: bytes, box: _Box) -> int:
    reader = _reader(data, box)
    version, _ = reader.version_and_flags()
    return reader.number(_id_bytes(version, 0, 1))


def _id_bytes(version: int, two: int, four: int) -> int:
    if version not in (two, four):
        raise NotPlain(f"a box of version {version}")
    return 2 if version == two else 4


def _item_kinds(data: bytes, box: _Box) -> dict[int, bytes]:
    reader = _reader(data, box)
    version, _ = reader.version_and_flags()
    count = reader.count(2 if version == 0 else 4, _MOST_ITEMS)
    kinds: dict[int, bytes] = {}
    for entry in _boxes(data, reader.at, box.end):
        if entry.kind != b"infe":
            raise NotPlain("a strange box among its items")
        item = _reader(data, entry)
        version, _ = item.version_and_flags()
        number = item.number(_id_bytes(version, 2, 3))
        protected = item.number(2)
        _once(kinds, number, b"" if protected else item.take(4))
    if len(kinds) != count:
        raise NotPlain("it has not as many items as it says")
    return kinds


def _item_places(data: bytes, box: _Box) -> dict[int, _Place | None]:
    """None for an item in several pieces, or not in this file."""
    reader = _reader(data, box)
    version, _ = reader.version_and_flags()
    if version > 2:
        raise NotPlain(f"iloc of version {version}")
    sizes = reader.number(2)
    start_bytes, size_bytes, base_bytes, index_bytes = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    places: dict[int, _Place | None] = {}
    for _ in range(reader.count(4 if version == 2 else 2, _MOST_ITEMS)):
        item = reader.number(4 if version == 2 else 2)
        method = reader.number(2) & 15 if version else 0
        elsewhere = reader.number(2)
        base = reader.number(base_bytes)
        pieces = []
        for _ in range(reader.count(2, _MOST_ITEMS)):
            if version:
                reader.take(index_bytes)
            pieces.append((base + reader.number(start_bytes), reader.number(size_bytes)))
        plain = len(pieces) == 1 and method in (0, 1) and not elsewhere
        _once(places, item, _Place(method == 1, *pieces[0]) if plain else None)
    return places


def _where(places: dict[int, _Place | None], item: int, idat: _Box | None, size: int) -> _Place:
    """Where in the file an item is; it may be in `idat` if that is given."""
    place = places.get(item)
    if place is None or place.size == 0:
        raise NotPlain(f"item {item} is not in one piece")
    start, end = 0, size
    if place.in_idat:
        if idat is None:
            raise NotPlain(f"item {item} is not where it should be")
        start, end = idat.start, idat.end
    if place.start + place.size > end - start:
        raise NotPlain(f"item {item} is not all there")
    return _Place(False, start + place.start, place.size)


def _item_properties(data: bytes, box: _Box) -> dict[int, tuple[_Box, ...]]:
    parts = {part.kind: part for part in _unrepeated(_boxes(data, box.start, box.end))}
    content = _part(parts, b"ipco")
    known = list(_boxes(data, content.start, content.end))
    association = _part(parts, b"ipma")
    reader = _reader(data, association)
    version, flags = reader.version_and_flags()
    id_bytes = _id_bytes(version, 0, 1)
    properties: dict[int, tuple[_Box, ...]] = {}
    for _ in range(reader.count(4, _MOST_ITEMS)):
        item = reader.number(id_bytes)
        # The highest bit says that a reader must know the property; here it must in any case.
        indices = [reader.number(2) & 0x7FFF if flags & 1 else reader.number(1) & 0x7F for _ in range(reader.number(1))]
        if any(not 0 < index <= len(known) for index in indices):
            raise NotPlain(f"item {item} has a property that is not there")
        _once(properties, item, tuple(known[index - 1] for index in indices))
    return properties


def _by_kind(properties: dict[int, tuple[_Box, ...]], item: int, allowed: frozenset[bytes]) -> dict[bytes, list[_Box]]:
    found: dict[bytes, list[_Box]] = {}
    for each in properties.get(item, ()):
        if each.kind not in allowed:
            raise NotPlain(f"it has the property {each.kind!r}")
        found.setdefault(each.kind, []).append(each)
    return found


# ── what they say of the picture ──────────────────────────────────────────────────────────────────────────────────


def _extent(data: bytes, properties: dict[bytes, list[_Box]]) -> tuple[int, int]:
    if len(properties.get(b"ispe", ())) != 1:
        raise NotPlain("it does not say its size, or twice")
    reader = _reader(data, properties[b"ispe"][0])
    reader.version_and_flags()
    width, height = reader.number(4), reader.number(4)
    if not width or not height:
        raise NotPlain("it has no pixels")
    return width, height


def _quarter_turns(data: bytes, properties: dict[bytes, list[_Box]]) -> int:
    turns = [_reader(data, turn).number(1) & 3 for turn in properties.get(b"irot", ())]
    if len(turns) > 1:
        raise NotPlain("it is to be turned twice")
    return turns[0] if turns else 0


def _tiles(data: bytes, box: _Box, grid: int) -> tuple[int, ...]:
    """The items that a grid is made of. Raises NotPlain too if one of them has an auxiliary picture of its own."""
    version = _version(data, box)
    id_bytes = _id_bytes(version, 0, 1)
    tiles: tuple[int, ...] | None = None
    have_auxiliaries: set[int] = set()
    for reference in _boxes(data, box.start + 4, box.end):
        if reference.kind not in (b"dimg", b"auxl"):
            continue
        reader = _reader(data, reference)
        item = reader.number(id_bytes)
        others = tuple(reader.number(id_bytes) for _ in range(reader.count(2, _MOST_TILES)))
        if reference.kind == b"auxl":
            have_auxiliaries.update(others)
        elif item == grid:
            if tiles is not None:
                raise NotPlain("its grid is there twice")
            tiles = others
    if not tiles or grid in tiles or have_auxiliaries.intersection(tiles):
        raise NotPlain("its grid is not made of tiles alone")
    return tiles


def _grid(data: bytes, place: _Place) -> tuple[int, int, int, int]:
    """Rows, columns, width and height (ISO/IEC 23008-12, 6.6.2.3.2)."""
    reader = _Reader(data, place.start, place.start + place.size)
    version, flags = reader.number(1), reader.number(1)
    if version != 0:
        raise NotPlain(f"a grid of version {version}")
    rows, columns = reader.number(1) + 1, reader.number(1) + 1
    side_bytes = 4 if flags & 1 else 2
    return rows, columns, reader.number(side_bytes), reader.number(side_bytes)


def _check_tiling(*directions: tuple[int, int, int]) -> None:
    for whole, count, side in directions:
        if side < _LEAST_TILE_SIDE or side % 2 or not (count - 1) * side < whole <= count * side:
            raise NotPlain("its tiles do not cover it as they should")


def _check_colour(data: bytes, box: _Box) -> None:
    reader = _reader(data, box)
    kind = reader.take(4)
    if kind in (b"prof", b"rICC"):
        return
    if kind != b"nclx":
        raise NotPlain(f"its colours are described by {kind!r}")
    reader.take(4)  # primaries and transfer function, which do not count in turning YCbCr into RGB
    matrix, full_range = reader.number(2), reader.number(1) >> 7
    if matrix not in BT601_MATRICES or not full_range:
        raise NotPlain("its colours are not those of a JPEG")
