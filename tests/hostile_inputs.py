"""Surfaces at which strangers' bytes come in, what is tried on each, and a process of its own in which it is tried.

A surface is a function that takes bytes and a folder, does with them what the program does, and raises what it would.
`attempt` says whether that was allowed: errors of ours, nothing written but where it should be, little time.
It is called in a process of its own (tests/hostile_server.py).
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from skicyclerun.errors import SkicyclerunError

#: What one input may cost. Seconds of processor time, and bytes of address space beyond what the process began with.
MOST_SECONDS: Final = 5.0
MOST_BYTES: Final = 400 << 20
CORPUS: Final = Path(__file__).with_name("data") / "hostile"
_CHECKOUT: Final = Path(__file__).resolve().parents[1]


class Unacceptable(AssertionError):
    """An input did what no input may do."""


# ── pictures ──────────────────────────────────────────────────────────────────────────────────────────────────────

_EXIF_TAGS = (
    0x010E, 0x010F, 0x0110, 0x0112, 0x011A, 0x0128, 0x0132, 0x013B, 0x0201, 0x0202, 0x02BC, 0x83BB, 0x8298, 0x8769,
    0x8825, 0xA005, 0x829A, 0x829D, 0x8827, 0x9003, 0x9004, 0x9010, 0x9011, 0x9201, 0x9202, 0x9204, 0x9209, 0x920A,
    0x927C, 0x9286, 0x9290, 0x9291, 0xA002, 0xA003, 0xA405, 0xA434, 0x4746, 0x9C9B, 0x9C9E,
)  # fmt: skip
_GPS_TAGS = (*range(0, 0x20),)
_MAKERS = (
    b"Apple iOS\0\0\x01MM",
    b"Nikon\0\x02\x10\0\0MM\0*\0\0\0\x08",
    b"OLYMPUS\0II\x03\0",
    b"FUJIFILM\x0c\0\0\0",
    b"",
)


@st.composite
def exif_blocks(draw: st.DrawFn) -> bytes:
    """A TIFF structure whose directories point anywhere, count anything and have any type."""
    little = draw(st.booleans())
    order = "<" if little else ">"
    anywhere = st.sampled_from([0, 4, 8, 10, 26, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE]) | st.integers(0, 700)
    counts = st.sampled_from([0, 1, 2, 3, 4, 20, 255, 65_535, 0x10000001, 0x20000000, 0xFFFFFFFF])
    values = (
        st.integers(0, 0xFFFFFFFF).map(lambda number: struct.pack(order + "I", number))
        | anywhere.map(lambda place: struct.pack(order + "I", place))
        | st.binary(min_size=4, max_size=4)
    )
    entry = st.tuples(
        st.sampled_from(_EXIF_TAGS) | st.sampled_from(_GPS_TAGS) | st.integers(0, 0xFFFF),
        st.integers(0, 14) | st.sampled_from([129, 0xFFFF]),
        counts,
        values,
    ).map(lambda parts: struct.pack(order + "HHI", *parts[:3]) + parts[3])
    data = bytearray((b"II*\0" if little else b"MM\0*") + struct.pack(order + "I", draw(st.just(8) | anywhere)))
    for _ in range(draw(st.integers(1, 4))):
        entries = draw(st.lists(entry, max_size=8))
        data += struct.pack(order + "H", draw(st.just(len(entries)) | st.integers(0, 0xFFFF)))
        data += b"".join(entries) + struct.pack(order + "I", draw(anywhere))
    maker, filler = draw(st.sampled_from(_MAKERS)), draw(st.binary(max_size=120))
    return bytes(data) + maker + filler


@cache
def plain_jpeg() -> bytes:
    from tests.images_samples import encoded, exif_with, quadrants, srgb_profile

    return encoded(quadrants(), "JPEG", exif=exif_with(), icc_profile=srgb_profile())


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", (len(body) + 2) & 0xFFFF) + body


def _jpeg_pieces() -> list[bytes]:
    """SOI, each segment, and from the first scan on."""
    data, at = plain_jpeg(), 2
    pieces = [data[:2]]
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        pieces.append(data[at:end])
        at = end
    return [*pieces, data[at:]]


@st.composite
def jpegs(draw: st.DrawFn) -> bytes:
    """A JPEG's segments cut, exchanged, with lengths that lie, and strangers among them."""
    pieces = _jpeg_pieces()
    exif = draw(exif_blocks())
    mpf = draw(exif_blocks())
    if draw(st.booleans()):  # an index of pictures as it should be, of too many, or of too few
        entries = draw(st.binary(max_size=64))
        mpf = b"II*\0\x08\0\0\0\x01\0\x02\xb0\x07\0" + struct.pack("<II", draw(st.integers(0, 0xFFFFFFFF)), 26)
        mpf += b"\0\0\0\0" + entries
    xmp = draw(
        st.sampled_from(
            [b"<x:xmpmeta", b"<?xpacket begin=''?>" + b"<a>" * 9_000, b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b""]
        )
        | st.binary(max_size=60)
    )
    iptc = b"8BIM\x04\x04\0\0" + struct.pack(">I", draw(st.integers(0, 0xFFFFFFFF))) + draw(st.binary(max_size=60))
    strangers = [
        _segment(0xE1, b"Exif\0\0" + exif),
        _segment(0xE1, b"Exif\0\0" + b"Exif\0\0" + exif),
        _segment(0xE1, b"Exif\0\0" + _segment(0xE1, b"Exif\0\0" + exif)),
        _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        _segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 2**32 - 1, 7) + xmp),
        _segment(0xE2, b"MPF\0" + mpf),
        _segment(0xE2, b"ICC_PROFILE\0" + draw(st.binary(max_size=40))),
        _segment(0xED, b"Photoshop 3.0\0" + iptc),
        _segment(0xC0, draw(st.binary(max_size=20))),
        _segment(0xDD, draw(st.binary(max_size=4))),
        b"\xff" * draw(st.integers(1, 300)),
        b"\xff\x01\xff\xd0",
        plain_jpeg(),
    ]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(1, len(pieces) - 1))
        match draw(st.sampled_from(["add", "cut", "length", "drop", "twice"])):
            case "add":
                pieces.insert(at, draw(st.sampled_from(strangers)))
            case "cut":
                pieces[at] = pieces[at][: draw(st.integers(0, len(pieces[at])))]
            case "length":
                lie = draw(st.sampled_from([0, 1, 2, 3, 0xFFFF]) | st.integers(0, 0xFFFF))
                pieces[at] = pieces[at][:2] + struct.pack(">H", lie) + pieces[at][4:]
            case "drop":
                pieces[at] = b""
            case "twice":
                pieces.insert(at, pieces[at])
    return b"".join(pieces)


def _box(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", (8 + len(body) if size is None else size) & 0xFFFFFFFF) + kind + body


@cache
def plain_heic() -> bytes:
    from tests.command_line import picture

    return picture("hostile.heic", (64, 48))


@cache
def tiled_heic() -> bytes:
    from tests.heif_samples import tiled
    from tests.images_samples import exif_with, quadrants

    return tiled(quadrants((192, 128)), turns=3, exif=exif_with().tobytes())


@st.composite
def tiled_heics(draw: st.DrawFn) -> bytes:
    """A grid of tiles as an iPhone writes it, with numbers that lie anywhere in its boxes and its tiles."""
    data = bytearray(tiled_heic())
    tiles = data.index(b"mdat")
    wide = st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\0\0\xff\xff"])
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, tiles) | st.integers(0, tiles) | st.integers(tiles, len(data) - 4))
        lie = draw(wide | st.binary(min_size=1, max_size=2))
        data[at : at + len(lie)] = lie
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


@st.composite
def boxes(draw: st.DrawFn) -> bytes:
    """A HEIC or a movie of boxes with sizes that lie, one in the other, or one of ours damaged."""
    if draw(st.booleans()):
        data = bytearray(plain_heic())
        places = [at for at in range(len(data) - 8) if data[at + 4 : at + 8].isalnum() and data[at] == 0]
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.sampled_from(places) | st.integers(0, len(data) - 8))
            lie = draw(st.sampled_from([0, 1, 7, 8, 16, 0x7FFFFFFF, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1))
            data[at : at + 4] = struct.pack(">I", lie)
        return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])
    kinds = st.sampled_from(
        [b"meta", b"iprp", b"ipco", b"ispe", b"hvcC", b"iloc", b"iinf", b"infe", b"iref", b"pitm", b"grid", b"mdat",
         b"moov", b"mvhd", b"trak", b"free", b"moof", b"idat", b"irot", b"colr", b"Exif"]
    )  # fmt: skip
    body = draw(st.binary(max_size=40))
    for _ in range(draw(st.integers(0, 60))):
        size: int | None = draw(st.none() | st.none() | st.sampled_from([0, 1, 7, 8, 0xFFFFFFFF]))
        body = _box(draw(kinds), b"\0\0\0\0" + body if draw(st.booleans()) else body, size)
    brand = draw(st.sampled_from([b"heic", b"mif1", b"avif", b"qt  ", b"mp42", b"crx "]))
    return _box(b"ftyp", brand + b"\0\0\0\0" + brand + b"mif1") + body + draw(st.just(b"") | st.just(plain_heic()))


def look_at_picture(data: bytes, folder: Path) -> None:
    """All that is done with an original, and with an exported file."""
    from skicyclerun.errors import PhotoError
    from skicyclerun.images.picture_facts import read_picture_facts
    from skicyclerun.images.render import RenderOptions, read_facts, render_photo
    from skicyclerun.models import Component, Fetched
    from tests.images_samples import KNOWN

    source, out = folder / "original", folder / "out"
    source.write_bytes(data)
    for component, known, how in (
        (Component.STILL, KNOWN, RenderOptions()),
        (Component.STILL, None, RenderOptions()),
        (Component.STILL, KNOWN, RenderOptions(format="original")),
        (Component.LIVE_MOVIE, KNOWN, RenderOptions()),
    ):
        rendered = True
        try:
            json.dumps(render_photo(Fetched(source, metadata=known), component, out, how).title)
        except PhotoError as error:
            rendered = False
            _sentence(error)
        if out.exists() != rendered:
            raise Unacceptable("a file is left where there should be none, or none where one should be")
        out.unlink(missing_ok=True)
    for read in (read_facts, read_picture_facts):
        with contextlib.suppress(PhotoError):
            read(source)


# ── archives ──────────────────────────────────────────────────────────────────────────────────────────────────────

_NAMES = st.sampled_from(
    ["albums", "albums/Alps/a.jpg", "albums/Alps", "albums/../../beside/kept", "/etc/passwd", "albums//b", "albums/.",
     "albums/Alps/a.jpg/x", "albums/ALPS/A.JPG", "albums/link/kept", "albums/c:\\x", "C:/x", "metadata/master.json",
     "albums/\u202egpj.exe", "albums/" + "n" * 300, "albums/" + "d/" * 300 + "x", "MANIFEST.json", "albums/nul\0x"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map("albums/{}".format)  # fmt: skip


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """An archive that is sealed as it should be, with members nobody should take out; or with bytes changed."""
    from dataclasses import replace

    from tests.archive_trees import file_member, forge_archive, link_member

    members = []
    for name in draw(st.lists(_NAMES, max_size=5)):
        content = draw(st.sampled_from([b"", b"new", b"../../beside", b"/etc", b"Alps", b"..", b"a\0b"]))
        made = link_member(name) if draw(st.integers(0, 3)) == 0 else file_member(name)
        made = replace(
            made,
            mode=draw(st.sampled_from([made.mode, 0, 0o104777, 2**40])),
            mtime_ns=draw(st.sampled_from([0, -(2**63), 2**63 - 1])),
            path_bytes=draw(st.none() | st.sampled_from([b"albums/\xff", b"../../beside/kept", b"albums", b""])),
        )
        members.append((made, content))
    index = st.integers(0, max(0, len(members) - 1))
    folders = draw(
        st.sampled_from([("albums",), ("albums", "metadata"), ("..",), ("albums", "a/b"), (), ("albums", "\0")])
    )
    path = Path(draw(st.just("forged.zip")))
    with scratch() as place:
        try:
            forge_archive(
                place / path,
                members,
                folders=folders,
                zip_names=draw(st.dictionaries(index, _NAMES.map("pipeline_20261122_161500/{}".format), max_size=1)),
                inflated=draw(st.dictionaries(index, st.sampled_from([b"", b"longer than it says" * 50]), max_size=1)),
                lies=tuple(draw(st.lists(index, max_size=1))),
                gap=draw(st.sampled_from([b"", b"gap"])) if members else b"",
            )
            data = bytearray((place / path).read_bytes())
            day = draw(
                _mostly(b"2026-11-22T16:15:01Z", st.sampled_from([b"9999-99-99T99:99:99Z", b"0001-01-01T00:00:00Z"]))
            )
            data = data.replace(b"2026-11-22T16:15:01Z", day)
        except (ValueError, OverflowError, struct.error, UnicodeError):
            data = bytearray(b"PK")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(1, 700))
        value = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"PK\x01\x02", b"9999"]))
        data[-at : len(data) - at + len(value)] = value[:at]
    return bytes(data)


def look_at_archive(data: bytes, folder: Path) -> None:
    """`archive list`, `verify`, `restore` and what `prune` would do."""
    from datetime import UTC, datetime

    from skicyclerun.archive.listing import list_archives
    from skicyclerun.archive.prove import verify_archive
    from skicyclerun.archive.publish import find_archive
    from skicyclerun.archive.restore import restore_archive
    from skicyclerun.archive.retention import plan_prune
    from tests.command_line import skicyclerun

    root = folder / "root"
    path = root / "archive" / "pipeline_20261122_161500.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    list_archives(path.parent)
    find_archive(path.parent, "job-1")
    plan_prune(path.parent, retention_days=1, keep_last=1, now=datetime(2026, 11, 25, tzinfo=UTC))
    ended = skicyclerun("archive", "list", "--lib-root", root)
    if ended.code != 0:
        raise Unacceptable(ended.stderr)
    whole = verify_archive(path).ok
    verify_archive(path, quick=True)
    inside = folder / "inside"
    (inside / "albums").mkdir(parents=True)
    os.symlink(folder.parent / "beside", inside / "albums" / "link")
    for overwrite in (False, True):
        try:
            report = restore_archive(path, inside, overwrite=overwrite)
        except SkicyclerunError as error:
            _sentence(error)
        else:
            for taken in report.restored:
                if not taken.is_relative_to(inside):
                    raise Unacceptable(f"restored to {taken}")
            if whole and report.damaged and "another restored file" not in report.damaged[0][1]:
                raise Unacceptable("an archive that verifies holds something damaged")


_JSON_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**64), 10**400, 1e308, float("inf"), float("nan"), -0.0])
    | st.text(max_size=10)
    | st.sampled_from(["\0", "\ud800", "../..", "\x1b[2J", "0" * 64, "2026-11-22T16:15:00Z", "9999-99-99T99:99:99Z"])
)
_JSON = st.recursive(
    _JSON_LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)


@st.composite
def _json_bytes(draw: st.DrawFn, document: SearchStrategy[object]) -> bytes:
    """JSON of any layout; or damaged, deep, with a number of thousands of digits."""
    text = json.dumps(draw(document), indent=draw(st.sampled_from([None, 2, 3])))
    data = text.encode("utf-8", "surrogatepass")
    match draw(st.integers(0, 9)):
        case 0:
            at = draw(st.integers(0, len(data)))
            data = data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 3)) :]
        case 1:
            deep = draw(st.sampled_from([70, 300, 1_100, 100_000]))
            opened, closed = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]))
            data = b'{"deep": ' + opened * deep + b"1" + closed * deep + b"," + data.lstrip(b"{ \n")
        case 2:
            data = b'{"long": ' + b"9" * 5_000 + b"," + data.lstrip(b"{ \n")
    return data


def manifests() -> SearchStrategy[bytes]:
    member = st.fixed_dictionaries(
        {
            "path": _NAMES | _JSON_LEAVES,
            "kind": _mostly("file", st.sampled_from(["folder", "link", "device"]) | _JSON_LEAVES),
            "size": _mostly(3, _JSON_LEAVES),
            "mtime_ns": _mostly(1, _JSON_LEAVES),
            "mode": _mostly(33188, _JSON_LEAVES),
            "sha256": _mostly("0" * 64, _JSON_LEAVES),
        },
        optional={
            "path_bytes": st.sampled_from(["00", "2e2e", "zz", "61" * 5000, "616c62756d732f2e2e", "616c62756d732fff"]),
            "catalog_sha256": _JSON,
            "inode": _JSON_LEAVES,
        },
    )
    document = st.fixed_dictionaries(
        {
            "format": st.just("skicyclerun-archive"),
            "version": _mostly(1, _JSON),
            "id": _mostly("x", _JSON_LEAVES),
            "created": _mostly("2026-11-22T16:15:00Z", _JSON_LEAVES),
            "timestamp": _mostly("20261122_161500", _JSON_LEAVES),
            "folders": _mostly({"albums": "/a", "metadata": "/m"}, st.dictionaries(st.text(max_size=3), _JSON_LEAVES)),
            "members": st.lists(member, max_size=3),
        }
    )
    return _json_bytes(document | _JSON)


def look_at_manifest(data: bytes, folder: Path) -> None:
    from skicyclerun.archive.manifest import load_manifest

    for member in load_manifest(data).members:
        if ".." in member.parts or not all(member.parts):
            raise Unacceptable(f"{member.disk_path!r} was taken")


# ── catalog, configuration, answers ───────────────────────────────────────────────────────────────────────────────


def _mostly(usual: object, otherwise: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """The usual value, and one time in eight another: what is wrong everywhere is refused at the door."""
    return st.integers(0, 7).flatmap(lambda number: otherwise if number == 7 else st.just(usual))


def catalogs() -> SearchStrategy[bytes]:
    """`@` at the start of a path stands for the export folder of whoever reads it."""
    result = {"keys": ["exif", "location"], "input_sha256": "0" * 64, "depends": "1" * 64}
    day = "2026-01-01T00:00:00Z"
    usual = {
        "keys": _mostly(["exif", "location"], _JSON),
        "input_sha256": st.just("0" * 64),
        "depends": st.just("1" * 64),
    }
    entry = st.fixed_dictionaries(
        {
            "type": _mostly("exported", st.just("preprocessed") | _JSON_LEAVES),
            "export_timestamp": _mostly(day, _JSON_LEAVES),
            "sha256": _mostly("0" * 64, _JSON_LEAVES),
            "size": _mostly(6, _JSON_LEAVES),
            "source": _mostly(
                {"kind": "folder", "album_id": "Alps", "photo_id": "Alps/a.jpg"},
                st.fixed_dictionaries(
                    {
                        "kind": _mostly("folder", _JSON_LEAVES),
                        "album_id": _JSON_LEAVES,
                        "album_title": _JSON_LEAVES,
                        "album_path": _JSON_LEAVES,
                        "photo_id": _JSON_LEAVES,
                        "original_filename": _JSON_LEAVES,
                    },
                    optional={"component": _JSON_LEAVES, "fingerprint": _JSON_LEAVES},
                )
                | _JSON,
            ),
            "pipeline": _mostly({"timestamps": {"metadata_extraction": day, "x": day}}, _JSON),
        },
        optional={
            "file_name": _JSON_LEAVES,
            "album_name": _JSON_LEAVES,
            "width": _JSON_LEAVES,
            "date_taken": _JSON_LEAVES,
            "date_taken_utc": _JSON_LEAVES,
            "gps": st.fixed_dictionaries({"lat": _JSON_LEAVES, "lon": _JSON_LEAVES}) | _JSON,
            "location": _JSON,
            "keywords": st.lists(_JSON_LEAVES, max_size=3) | _JSON,
            "persons": _JSON,
            "note": _JSON_LEAVES,
            "facts": st.dictionaries(st.text(max_size=3) | st.just("\ud800"), _JSON_LEAVES) | _JSON,
            "exif": _JSON,
            "stage_results": st.fixed_dictionaries(
                {"metadata_extraction": st.just(result), "x": st.fixed_dictionaries(usual)}
            )
            | _JSON,
            "derivatives": st.dictionaries(st.sampled_from(["preprocessing", "x"]), _JSON) | _JSON,
            "made_by": _mostly(result | {"stage": "preprocessing"}, _JSON),
            "created_at": _mostly(day, _JSON_LEAVES),
            "source_path": _mostly("@/Alps/a.jpg", _JSON_LEAVES),
            "original_path": _mostly("@/Alps/a.jpg", _JSON_LEAVES),
        },
    )
    keys = (
        st.sampled_from(
            ["@/Alps/a.jpg", "@/Alps/b.jpg", "@/../../beside/kept", "/etc/passwd", "@/\ud800/x.jpg", "@", ""]
        )
        | st.text(max_size=6).map("@/Alps/{}".format)
        | st.text(max_size=4)
    )
    return _json_bytes(
        _mostly({}, _JSON).flatmap(lambda other: st.just(other) if other else st.dictionaries(keys, entry, max_size=5))
    )


def look_at_catalog(data: bytes, folder: Path) -> None:
    """Reading, merging, `verify` and `rebuild-state` over a catalog of other people's."""
    from datetime import UTC, datetime

    from skicyclerun.catalog.master_json import read_catalog, update_catalog
    from tests.command_line import skicyclerun

    root = folder / "root"
    albums = root / "pipeline" / "albums"
    (albums / "Alps").mkdir(parents=True)
    (albums / "Alps" / "a.jpg").write_bytes(b"theirs")
    (root / "metadata").mkdir()
    catalog = root / "metadata" / "master.json"
    data = data.replace(b'"@', b'"' + os.fsencode(albums))
    catalog.write_bytes(data)
    records = list(read_catalog(catalog).records())
    update_catalog(catalog, records, ["/nowhere"], now=datetime(2026, 11, 25, tzinfo=UTC))
    catalog.write_bytes(data)
    library = folder / "library"
    library.mkdir()
    ended = skicyclerun("rebuild-state", "--force", "--source", "folder", "--library", library, "--lib-root", root)
    if ended.code not in (0, 1, 2, 3):
        raise Unacceptable(f"{ended.code}: {ended.stderr}")
    if ended.code in (0, 3):
        for command in ("verify", "status", "rebuild-catalog"):
            again = skicyclerun(command, "--lib-root", root)
            if again.code not in (0, 3):
                raise Unacceptable(f"{command}: {again.code}: {again.stderr}")
    if (albums / "Alps" / "a.jpg").read_bytes() != b"theirs":
        raise Unacceptable("a file that is not ours was changed")


def configurations() -> SearchStrategy[bytes]:
    shipped = json.loads((_CHECKOUT / "config" / "pipeline_config.json").read_text(encoding="utf-8"))
    keys = [(section, key) for section, inner in shipped.items() if isinstance(inner, dict) for key in inner]

    def changed(changes: list[tuple[tuple[str, str], object]]) -> object:
        copy = json.loads(json.dumps(shipped))
        for (section, key), value in changes:
            copy[section][key] = value
        return copy

    hostile = _JSON | st.sampled_from(
        [
            "{paths.lib_root}" * 50,
            "/",
            "..",
            "~nobody/x",
            "${HOME}/../..",
            "a" * 100_000,
            "\0",
            "/dev/stdin",
            "{archive}",
        ]
    )
    return _json_bytes(st.lists(st.tuples(st.sampled_from(keys), hostile), min_size=1, max_size=3).map(changed) | _JSON)


def look_at_configuration(data: bytes, folder: Path) -> None:
    from skicyclerun.settings.load import load_settings

    file = folder / "pipeline_config.json"
    file.write_bytes(data)
    json.dumps(load_settings(file, lib_root=folder / "root", environ={"HOME": str(folder)}).as_json())


def answers() -> SearchStrategy[bytes]:
    field = (
        st.text(st.characters(exclude_characters="\x1d\x1e\x1f"), max_size=8)
        | st.sampled_from(["missing value", "1", "0", "-1", "9" * 5_000, "²", "٣", "nan", "inf", "1e400", "91", "46,5",
                           "2021-07-27T10:05:21", "9999-12-31T23:59:59", "A-B/L0/040", "\x1d", "a\x1d\x1db",
                           "location"])
    )  # fmt: skip
    record = (
        st.lists(field, max_size=12)
        | st.lists(field, min_size=11, max_size=11)
        | st.lists(field, min_size=4, max_size=4)
    )
    whole = st.tuples(st.sampled_from(["albums", "items", "facts"]), st.lists(record, max_size=4)).map(
        lambda said: "\x1e".join(
            "\x1f".join(fields) for fields in [["skicyclerun", "1", said[0]], *said[1], ["end"], [""]]
        )
    )
    return (whole | st.text(max_size=60)).map(lambda text: text.encode("utf-8", "surrogatepass"))


def look_at_answer(data: bytes, folder: Path) -> None:
    from skicyclerun.sources.photos_app_answers import (
        AnswerIncomplete,
        AnswerUnknown,
        albums_of,
        counts_of,
        facts_of,
        items_of,
        records_of,
    )

    output = data.decode("utf-8", "replace")
    for verb in ("albums", "items", "facts"):
        with contextlib.suppress(AnswerIncomplete, AnswerUnknown):
            records = records_of(output, verb)
            for understood in (albums_of, counts_of, items_of, lambda found: [facts_of(record) for record in found]):
                with contextlib.suppress(AnswerUnknown):
                    understood(records)


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_NAME_BYTES = (
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).map(str.encode)
    | st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 0x2F} & set(name))
    | st.sampled_from(
        [b"CON", b"nul.txt", b"-rf", b"~", b"...", b"a\nb", b"\x1b[2J", b"\xff\xfe", "é".encode(), "e\u0301".encode(),
         b".skicyclerun-staging", b"MANIFEST.json", b"x" * 200, "\u202egpj".encode(), b" ", b"a.", b"$(id)", b"%00",
         b"A", b"a",
         "\u1e9e".encode(), "\U0001f6b2".encode() * 40, b"master.json", b"\\..\\..", b"C:"]
    )
).filter(lambda name: name not in (b".", b".."))  # fmt: skip


def names() -> SearchStrategy[bytes]:
    """A library: album names, each with names of photos, as hexadecimal in JSON."""
    photos = st.lists(_NAME_BYTES.map(lambda name: name[:180] + b".jpg"), min_size=1, max_size=6, unique=True)
    return st.dictionaries(
        _NAME_BYTES.map(bytes.hex), photos.map(lambda made: [n.hex() for n in made]), min_size=1, max_size=5
    ).map(lambda library: json.dumps(library).encode())


def look_at_names(data: bytes, folder: Path) -> None:
    """A whole run over a library whose names are a stranger's; then `status`, `verify` and the catalog."""
    from tests.command_line import picture, skicyclerun

    library, root = folder / "library", folder / "root"
    library.mkdir()
    there = 0
    for album, photos in json.loads(data).items():
        place = os.path.join(os.fsencode(library), bytes.fromhex(album))
        os.makedirs(place, exist_ok=True)
        for photo in photos:
            name = os.path.join(place, bytes.fromhex(photo))
            with open(name, "wb") as stream:
                stream.write(picture("one.jpg"))
            there += not bytes.fromhex(photo).startswith(b".")
    arguments = ("--source", "folder", "--library", library, "--lib-root", root)
    before = _tree(library)
    ended = skicyclerun("run", "--yes", "--json", *arguments)
    if ended.code not in (0, 1, 2, 3):
        raise Unacceptable(f"{ended.code}: {ended.stderr}")
    if _tree(library) != before:
        raise Unacceptable("the library was changed")
    if ended.code == 0:
        for command in (("verify", "--full"), ("status", "--photos"), ("run", "--update", "--yes", *arguments[:4])):
            again = skicyclerun(*command, "--lib-root", root)
            if again.code != 0:
                raise Unacceptable(f"{command}: {again.code}: {again.stdout}{again.stderr}")
        if not all(ord(character) >= 32 or character == "\n" for character in again.stdout + again.stderr):
            raise Unacceptable("control characters reached the terminal")


# ── what is tried ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Surface:
    examples: Callable[[], SearchStrategy[bytes]]
    look: Callable[[bytes, Path], None]
    share: float = 1.0
    """Of the examples that are asked for; what costs much is tried less often."""
    disk: bool = True
    """Whether it touches the disk at all."""


SURFACES: Final[dict[str, Surface]] = {
    "jpeg": Surface(jpegs, look_at_picture),
    "exif": Surface(lambda: exif_blocks().map(_in_a_jpeg), look_at_picture),
    "boxes": Surface(boxes, look_at_picture),
    "heic": Surface(tiled_heics, look_at_picture),
    "archive": Surface(archives, look_at_archive, 0.5),
    "manifest": Surface(manifests, look_at_manifest, disk=False),
    "catalog": Surface(catalogs, look_at_catalog, 0.1),
    "configuration": Surface(configurations, look_at_configuration),
    "answer": Surface(answers, look_at_answer, disk=False),
    "names": Surface(names, look_at_names, 0.05),
}


def _in_a_jpeg(exif: bytes) -> bytes:
    pieces = _jpeg_pieces()
    return b"".join((pieces[0], _segment(0xE1, b"Exif\0\0" + exif), *(p for p in pieces[1:] if p[4:8] != b"Exif")))


def attempt(surface: str, data: bytes, folder: Path) -> None:
    """Try one input. Raises Unacceptable, or whatever escaped that is no error of ours."""
    work, beside = folder / "work", folder / "beside"
    _empty(work)
    before = _tree(beside)
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            SURFACES[surface].look(data, work)
    except SkicyclerunError as error:
        _sentence(error)
    took = time.process_time() - began
    if took > MOST_SECONDS:
        raise Unacceptable(f"it took {took:.1f} s of processor time")
    if SURFACES[surface].disk and (_tree(beside) != before or sorted(os.listdir(folder)) != ["beside", "last", "work"]):
        raise Unacceptable("something outside the folders was changed")


def _sentence(error: SkicyclerunError) -> None:
    if not str(error).strip() or "Traceback" in str(error):
        raise Unacceptable(f"no sentence: {error!r}")


def _tree(root: Path) -> dict[bytes, tuple[int, int, int]]:
    return {
        os.path.join(place, name): (found.st_ino, found.st_size, found.st_mtime_ns)
        for place, folders, files in os.walk(os.fsencode(root))
        for name in (*folders, *files)
        for found in [os.lstat(os.path.join(place, name))]
    }


def _empty(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


@contextmanager
def scratch() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def prepared(folder: Path) -> Path:
    """A folder with what must stay as it is beside the one that is worked in."""
    (folder / "beside").mkdir(parents=True)
    (folder / "beside" / "kept").write_text("kept")
    (folder / "last").write_bytes(b"")
    return folder


def corpus(surface: str) -> list[Path]:
    """What was found earlier: `SURFACE/what-it-is.xz`."""
    return sorted((CORPUS / surface).glob("*.xz"))


def unpacked(file: Path) -> bytes:
    """An input of the corpus; what ends in `.xz` is compressed, for some are bombs."""
    return lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
