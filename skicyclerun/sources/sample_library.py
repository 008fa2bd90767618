"""Makes the sample library of `skicyclerun demo`: a small folder tree of drawn landscapes with real metadata.

It shows what an export has to cope with: JPEG, PNG and HEIC, an upright picture, dates with their offsets, cameras,
positions, titles and keywords; a title with `/` in it, two albums of the same title, two photos of the same name in
one album, and photos without a position. The same every time, and nothing but Pillow, pillow-heif and exiv2 is needed.
"""

from __future__ import annotations

import errno
import math
import os
import random
import secrets
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from typing import Final

import exiv2
import pillow_heif
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from PIL.ExifTags import GPS, IFD, Base

from skicyclerun.errors import DiskFull, NotWritable, UsageError

_SIZE: Final = (1200, 800)
_JPEG_QUALITY: Final = 88
_HEIC_QUALITY: Final = 60
_RIDGES: Final = 5
_STEP: Final = 8
"""Pixels between two points of a ridge."""

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Scene:
    """Colours of a landscape; `water` is the share of the picture that mirrors the rest, from the bottom."""

    sky_top: Colour
    sky_bottom: Colour
    far: Colour
    near: Colour
    sun: Colour
    water: float = 0.0


_MORNING: Final = _Scene((88, 140, 196), (250, 214, 180), (168, 176, 200), (44, 66, 72), (255, 240, 205))
_NOON: Final = _Scene((46, 116, 190), (190, 220, 240), (150, 178, 205), (38, 92, 60), (255, 253, 240))
_EVENING: Final = _Scene((54, 48, 96), (246, 150, 98), (150, 104, 130), (36, 26, 48), (255, 214, 150))
_LAKE: Final = _Scene((70, 130, 180), (214, 232, 240), (140, 170, 190), (40, 84, 74), (255, 250, 230), 0.36)
_HARBOUR: Final = _Scene((40, 62, 110), (240, 178, 130), (110, 110, 150), (24, 34, 58), (255, 220, 170), 0.44)


@dataclass(frozen=True, slots=True)
class _Shot:
    """One photo: file name, scene, local time, hours east of UTC, camera, position (degrees, metres), and words."""

    name: str
    scene: _Scene
    taken: datetime
    offset_hours: int
    camera: tuple[str, str]
    position: tuple[float, float, float] | None = None
    title: str = ""
    keywords: tuple[str, ...] = ()
    upright: bool = False


_PHONE: Final = ("Apple", "iPhone 15 Pro")
_CAMERA: Final = ("FUJIFILM", "X-T5")

#: Folder below the root → its photos. `:` in a folder's name stands for `/`, as macOS stores it.
_ALBUMS: Final[dict[str, tuple[_Shot, ...]]] = {
    "2024/Alps": (
        _Shot("IMG_0001.JPG", _MORNING, datetime(2024, 2, 11, 7, 52, 10), 1, _PHONE, (46.5584, 7.8927, 1274.0),
              "First light", ("skiing", "Alps", "winter")),
        _Shot("IMG_0002.JPG", _NOON, datetime(2024, 2, 11, 12, 31, 45), 1, _PHONE, (46.5477, 7.9853, 3454.0),
              "", ("skiing", "Alps")),
        _Shot("IMG_0003.HEIC", _NOON, datetime(2024, 2, 11, 13, 5, 2), 1, _PHONE, (46.5475, 7.9810, 3380.0),
              "Above the glacier", ("Alps", "glacier")),
        _Shot("IMG_0004.JPG", _EVENING, datetime(2024, 2, 11, 17, 40, 33), 1, _PHONE, (46.5584, 7.8927, 1274.0),
              "Alpenglow", ("Alps", "evening"), True),
    ),
    "2025/Alps": (
        _Shot("IMG_0001.JPG", _LAKE, datetime(2025, 7, 3, 9, 15, 0), 2, _CAMERA, (46.4312, 6.9107, 372.0),
              "Lake before the wind", ("cycling", "lake")),
        _Shot("IMG_0001.HEIC", _NOON, datetime(2025, 7, 3, 14, 22, 51), 2, _PHONE, (46.1512, 7.1480, 2469.0),
              "At the pass", ("cycling", "pass")),
        _Shot("DSCF2093.JPG", _EVENING, datetime(2025, 7, 3, 20, 48, 19), 2, _CAMERA, None, "", ("cycling",)),
    ),
    "Coast:Harbour": (
        _Shot("IMG_0101.JPG", _HARBOUR, datetime(2025, 9, 20, 18, 55, 4), -7, _PHONE, (37.8080, -122.4177, 3.0),
              "Pier at dusk", ("running", "harbour")),
        _Shot("IMG_0102.PNG", _LAKE, datetime(2025, 9, 21, 8, 3, 27), -7, _PHONE, (37.8199, -122.4783, 67.0),
              "Over the bay", ("running", "bay")),
        _Shot("IMG_0103.HEIC", _MORNING, datetime(2025, 9, 21, 8, 40, 0), -7, _PHONE, (37.8324, -122.4795, 120.0),
              "Headlands", ("running",)),
    ),
    "Frühling am Fluss": (
        _Shot("DSCF0010.JPG", _LAKE, datetime(2025, 4, 6, 11, 11, 11), 2, _CAMERA, (52.3702, 4.8952, -1.5),
              "Frühling", ("Fluss", "Frühling")),
        _Shot("DSCF0009.JPG", _MORNING, datetime(2025, 4, 6, 8, 30, 0), 2, _CAMERA, None),
        _Shot("DSCF0011.JPG", _EVENING, datetime(2025, 4, 6, 20, 1, 59), 2, _CAMERA, (52.3676, 4.9041, 0.0),
              "", ("夕方",)),
    ),
}  # fmt: skip


def make_sample_library(root: Path) -> None:
    """Make the sample library at `root`, which must not exist yet or be an empty folder.

    All of it appears at once or, if anything fails, none of it. Raises UsageError if `root` holds something already,
    NotWritable or DiskFull if it cannot be written.
    """
    # The work is done beside it, under a name that a stopped run leaves behind visibly and harmlessly.
    building = root.with_name(f".{root.name}.{secrets.token_hex(4)}.tmp")
    try:
        if os.path.lexists(root) and (not root.is_dir() or any(root.iterdir())):
            raise UsageError(
                f"{root} is not an empty folder; nothing was written there.",
                next_step="Name another folder, or empty this one.",
            )
        root.parent.mkdir(parents=True, exist_ok=True)
        building.mkdir()
        for folder, shots in _ALBUMS.items():
            (building / folder).mkdir(parents=True)
            for shot in shots:
                _write(building / folder / shot.name, shot)
        os.rename(building, root)
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else NotWritable
        raise kind(f"The sample library cannot be written to {root}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(path: Path, shot: _Shot) -> None:
    size = (_SIZE[1], _SIZE[0]) if shot.upright else _SIZE
    picture = _landscape(shot.scene, size, random.Random(f"{shot.taken.year}/{shot.name}"))
    if shot.upright:
        picture = picture.transpose(Image.Transpose.ROTATE_90)  # as a camera stores it; the orientation turns it back
    exif = _exif(shot)
    words = exiv2.XmpData()
    if shot.title:
        words["Xmp.dc.title"] = f'lang="x-default" {shot.title}'
    if shot.keywords:
        words["Xmp.dc.subject"] = list(shot.keywords)
    if path.suffix == ".HEIC":
        pillow_heif.from_pillow(picture).save(
            str(path), quality=_HEIC_QUALITY, exif=exif, xmp=exiv2.XmpParser.encode(words)[1].encode()
        )
    else:
        picture.save(path, quality=_JPEG_QUALITY, exif=exif)
        image = exiv2.ImageFactory.open(str(path))
        image.readMetadata()
        image.setXmpData(words)
        captions = exiv2.IptcData()
        captions["Iptc.Envelope.CharacterSet"] = "\x1b%G"  # UTF-8
        if shot.title:
            captions["Iptc.Application2.ObjectName"] = shot.title
        for keyword in shot.keywords:
            captions.add(exiv2.IptcKey("Iptc.Application2.Keywords"), exiv2.StringValue(keyword))
        image.setIptcData(captions)
        image.writeMetadata()
    moment = shot.taken.replace(tzinfo=timezone(timedelta(hours=shot.offset_hours))).timestamp()
    os.utime(path, (moment, moment))


def _exif(shot: _Shot) -> bytes:
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Model] = shot.camera
    exif[Base.Orientation] = 6 if shot.upright else 1
    taken, offset = f"{shot.taken:%Y:%m:%d %H:%M:%S}", f"{shot.offset_hours:+03d}:00"
    exif[Base.DateTime] = taken
    details = exif.get_ifd(IFD.Exif)
    details[Base.DateTimeOriginal] = details[Base.DateTimeDigitized] = taken
    details[Base.OffsetTime] = details[Base.OffsetTimeOriginal] = details[Base.OffsetTimeDigitized] = offset
    if shot.position is not None:
        latitude, longitude, altitude = shot.position
        place = exif.get_ifd(IFD.GPSInfo)
        place[GPS.GPSLatitudeRef], place[GPS.GPSLatitude] = "S" if latitude < 0 else "N", _sexagesimal(latitude)
        place[GPS.GPSLongitudeRef], place[GPS.GPSLongitude] = "W" if longitude < 0 else "E", _sexagesimal(longitude)
        place[GPS.GPSAltitudeRef] = b"\1" if altitude < 0 else b"\0"
        place[GPS.GPSAltitude] = Fraction(abs(altitude)).limit_denominator(100)
    return exif.tobytes()


def _sexagesimal(degrees: float) -> tuple[Fraction, Fraction, Fraction]:
    hundredths = round(abs(degrees) * 360_000)
    minutes, hundredths = divmod(hundredths, 6_000)
    whole, minutes = divmod(minutes, 60)
    return Fraction(whole), Fraction(minutes), Fraction(hundredths, 100)


def _landscape(scene: _Scene, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Ridges that fade into the distance under a low sun, with a lake or the sea where the scene has water."""
    width, height = size
    shore = round(height * (1 - scene.water))
    sky = ImageOps.colorize(Image.linear_gradient("L").resize((width, shore)), scene.sky_top, scene.sky_bottom)
    across, up = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.4) * shore
    glow = Image.new("L", (width // 4, shore // 4))
    for radius, strength in ((46, 70), (30, 120), (13, 255)):
        box = (across / 4 - radius, up / 4 - radius, across / 4 + radius, up / 4 + radius)
        ImageDraw.Draw(glow).ellipse(box, fill=strength)
    glow = glow.filter(ImageFilter.GaussianBlur(5)).resize((width, shore), Image.Resampling.BICUBIC)
    sky.paste(Image.new("RGB", (width, shore), scene.sun), mask=glow)

    # Drawn at twice the size, so that the ridges come out smooth.
    land = sky.resize((width * 2, shore * 2))
    pen = ImageDraw.Draw(land)
    for ridge in range(_RIDGES):
        depth = ridge / (_RIDGES - 1)
        heights = _ridge_line(rng, width * 2 // _STEP + 2)
        base, reach = (0.52 + 0.4 * depth) * shore * 2, (1 - depth / 2) * shore * 2
        line = [(at * _STEP, base - height_here * reach) for at, height_here in enumerate(heights)]
        colour = tuple(round(far + (near - far) * depth) for far, near in zip(scene.far, scene.near, strict=True))
        pen.polygon([(0, shore * 2), *line, (width * 2, shore * 2)], fill=colour)
    land = land.reduce(2)

    picture = Image.new("RGB", size)
    picture.paste(land, (0, 0))
    if shore < height:
        mirrored = ImageOps.flip(land).crop((0, 0, width, height - shore)).filter(ImageFilter.GaussianBlur(3))
        picture.paste(Image.blend(mirrored, Image.new("RGB", mirrored.size, scene.near), 0.25), (0, shore))
    return picture


def _ridge_line(rng: random.Random, points: int) -> list[float]:
    """Heights of a ridge as shares of the picture's height: waves of falling size, as mountains are."""
    waves = [(rng.uniform(0.6, 1.6) * 2**octave, rng.uniform(0, math.tau), 0.11 / 1.9**octave) for octave in range(6)]
    return [
        sum(share * math.sin(math.tau * often * at / points + phase) for often, phase, share in waves)
        for at in range(points)
    ]
