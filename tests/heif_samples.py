"""HEICs as cameras write them and pillow-heif does not: grids of tiles, and properties it has no word for."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pillow_heif
from PIL import Image

FULL_RANGE_601 = b"nclx" + struct.pack(">HHHB", 1, 13, 6, 0x80)


def heif(image: Image.Image, **options: Any) -> bytes:
    """One picture in one piece, by pillow-heif."""
    written = io.BytesIO()
    pillow_heif.from_pillow(image).save(written, **{"quality": 80, "chroma": 420, **options})
    return written.getvalue()


def box(kind: bytes, *body: bytes) -> bytes:
    content = b"".join(body)
    return struct.pack(">I", 8 + len(content)) + kind + content


def full_box(kind: bytes, *body: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *body)


def boxes_of(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box; well-formed files only."""
    end = len(data) if end is None else end
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start + 8, start + size
        start += size


def _coded(tile: Image.Image, **options: Any) -> tuple[bytes, bytes]:
    """The decoder's configuration of a picture by pillow-heif, and its HEVC data."""
    data = heif(tile, **options)
    top = {kind: data[start:end] for kind, start, end in boxes_of(data)}
    meta = {kind: top[b"meta"][start:end] for kind, start, end in boxes_of(top[b"meta"], 4)}
    properties = next(meta[b"iprp"][start:end] for kind, start, end in boxes_of(meta[b"iprp"]) if kind == b"ipco")
    return next(properties[start:end] for kind, start, end in boxes_of(properties) if kind == b"hvcC"), top[b"mdat"]


def tiled(
    image: Image.Image,
    side: int = 64,
    *,
    turns: int = 0,
    properties: Sequence[bytes] = (),
    tile_properties: Sequence[bytes] = (),
    tile_options: Sequence[dict[str, Any]] = (),
    grid_size: tuple[int, int] | None = None,
    alpha_of_tile: bool = False,
    exif: bytes = b"",
) -> bytes:
    """A grid of square tiles, to be turned to the left `turns` times; `tile_options` go to the tiles in turn."""
    width, height = image.size
    columns, rows = -(-width // side), -(-height // side)
    padded = Image.new("RGB", (columns * side, rows * side), (90, 120, 60))
    padded.paste(image)
    coded = []
    for number in range(columns * rows):
        left, top = number % columns * side, number // columns * side
        options = tile_options[number % len(tile_options)] if tile_options else {}
        coded.append(_coded(padded.crop((left, top, left + side, top + side)), **options))
    kinds = [b"grid", *(b"hvc1" for _ in coded)]
    contents = [b"", *(data for _, data in coded)]
    references = [(b"dimg", 1, list(range(2, 2 + len(coded))))]
    configurations = list(dict.fromkeys(configuration for configuration, _ in coded))
    known = [
        full_box(b"ispe", struct.pack(">II", width, height)),
        full_box(b"ispe", struct.pack(">II", side, side)),
        box(b"irot", bytes((turns,))),
        *(box(b"hvcC", configuration) for configuration in configurations),
        *properties,
        *tile_properties,
    ]
    first_extra = 4 + len(configurations)
    extras = list(range(first_extra, first_extra + len(properties)))
    tile_extras = list(range(first_extra + len(properties), first_extra + len(properties) + len(tile_properties)))
    associations = [(1, [1, 3, *extras])]
    associations += [
        (2 + number, [2, 4 + configurations.index(configuration), *tile_extras])
        for number, (configuration, _) in enumerate(coded)
    ]
    if alpha_of_tile:
        kinds.append(b"hvc1")
        contents.append(coded[0][1])
        known.append(full_box(b"auxC", b"urn:mpeg:hevc:2015:auxid:1\0"))
        associations.append((len(kinds), [2, 4, len(known)]))
        references.append((b"auxl", len(kinds), [2]))
    if exif:
        kinds.append(b"Exif")
        contents.append(struct.pack(">I", 0) + exif)
        references.append((b"cdsc", len(kinds), [1]))
    shown = grid_size or (width, height)
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *shown)
    return _file(kinds, contents, grid, references, known, associations)


def _file(
    kinds: list[bytes],
    contents: list[bytes],
    grid: bytes,
    references: list[tuple[bytes, int, list[int]]],
    known: list[bytes],
    associations: list[tuple[int, list[int]]],
) -> bytes:
    infos = (
        full_box(b"infe", struct.pack(">HH4s", number, 0, kind), b"\0", version=2)
        for number, kind in enumerate(kinds, 1)
    )
    brands = box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def meta(first_byte: int) -> bytes:
        places, at = b"", first_byte
        for number, content in enumerate(contents, 1):
            in_idat = number == 1
            size = len(grid) if in_idat else len(content)
            places += struct.pack(">HHHHII", number, int(in_idat), 0, 1, 0 if in_idat else at, size)
            at += len(content)
        return full_box(
            b"meta",
            full_box(b"hdlr", b"\0\0\0\0pict" + b"\0" * 13),
            full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iinf", struct.pack(">H", len(kinds)), *infos_),
            full_box(
                b"iref",
                *(
                    box(kind, struct.pack(f">HH{len(others)}H", item, len(others), *others))
                    for kind, item, others in references
                ),
            ),
            box(
                b"iprp",
                box(b"ipco", *known),
                full_box(
                    b"ipma",
                    struct.pack(">I", len(associations)),
                    *(struct.pack(f">HB{len(each)}B", item, len(each), *each) for item, each in associations),
                ),
            ),
            box(b"idat", grid),
            full_box(b"iloc", b"\x44\0", struct.pack(">H", len(contents)), places, version=1),
        )

    infos_ = list(infos)
    head = brands + meta(0)
    return brands + meta(len(head) + 8) + box(b"mdat", *contents)
