"""Pictures for the tests of `skicyclerun.images`, and readers that are not the writer's."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms

from skicyclerun.images.render import RenderOptions, render_photo
from skicyclerun.models import Component, ExportedFacts, Fetched, LibraryMetadata, Location

KNOWN = LibraryMetadata(
    date=datetime(2021, 7, 27, 10, 5, 21, 250_000, tzinfo=timezone(timedelta(hours=2))),
    location=Location(46.5581, -7.8352, 1200.5, 271.25),
    title="Über den Pass",
    description="Erste Zeile\nzweite Zeile 🚲",
    keywords=("Alpen, Süd", "pass"),
    persons=("Ann Example", "Ben Ü."),
    rating=4,
)

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")


def render(
    source: Path,
    destination: Path,
    known: LibraryMetadata | None = None,
    component: Component = Component.STILL,
    options: RenderOptions | None = None,
) -> ExportedFacts:
    return render_photo(Fetched(source, metadata=known), component, destination, options or RenderOptions())


def run_exiftool(*arguments: str) -> dict[str, Any]:
    """What it says of one file with `-j` among the arguments; nothing otherwise."""
    said = subprocess.run(["exiftool", *arguments], capture_output=True, check=True)
    tags = json.loads(said.stdout)[0] if "-j" in arguments else {}
    assert isinstance(tags, dict)
    return tags


def exiftool(path: Path) -> dict[str, Any]:
    """Every tag as `Group:Name`, numbers as numbers."""
    said = subprocess.run(
        ["exiftool", "-j", "-G1", "-n", "-a", "-charset", "iptc=utf8", str(path)], capture_output=True, check=True
    )
    tags = json.loads(said.stdout)[0]
    assert isinstance(tags, dict)
    return tags


def scans_of(jpeg: bytes) -> bytes:
    """Everything from the first SOS marker on."""
    at = 2
    while jpeg[at + 1] != 0xDA:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[at:]


def quadrants(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Red, green, blue and yellow from the top left, row by row: any turn or flip of it shows."""
    image = Image.new("RGB", size)
    half_width, half_height = size[0] // 2, size[1] // 2
    for number, colour in enumerate(((220, 20, 20), (20, 200, 20), (20, 20, 220), (220, 200, 20))):
        left, top = number % 2 * half_width, number // 2 * half_height
        image.paste(colour, (left, top, left + half_width, top + half_height))
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def exif_with(orientation: int = 1, **texts: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F], exif[0x0110] = "Maker", "Model 7"
    exif.get_ifd(0x8769)[0x9003] = texts.get("date", "2019:01:02 03:04:05")
    return exif


@cache
def srgb_profile() -> bytes:
    # Made once: littlecms writes the time of day into it.
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def photo_like(size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Detail in it, so that its JPEG has some scan data."""
    noise = Image.effect_noise(size, 50)
    return Image.merge("RGB", (noise, noise.transpose(Image.Transpose.FLIP_LEFT_RIGHT), noise.point(list(range(256)))))


_UNDER_A_BOUND = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
from pathlib import Path
from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.render import RenderOptions, render_photo
from skicyclerun.models import Component, Fetched
try:
    render_photo(Fetched(Path(sys.argv[1])), Component.STILL, Path(sys.argv[2]), RenderOptions())
except PhotoUnreadable as error:
    sys.stdout.buffer.write(str(error).encode())
else:
    sys.stdout.write("rendered")
"""


def under_a_memory_bound(source: Path, out: Path) -> str:
    """Render in a process with 700 MB of address space; what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", _UNDER_A_BOUND, str(source), str(out)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""
    assert done.returncode == 0
    return done.stdout.decode()
