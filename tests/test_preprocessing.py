"""The stage `preprocessing`: pictures made smaller, upright, in sRGB, with the tags they may keep."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features
from pydantic import ValidationError

from skicyclerun.errors import OriginalMissing, PhotoUnreadable, StageError
from skicyclerun.images.exiv2_session import exiv2_session
from skicyclerun.images.scale import ScaleOptions, fit, scale_picture
from skicyclerun.stages.preprocessing import STAGE, Preprocessing, PreprocessingSettings
from skicyclerun.stages.stage import Picture, Surroundings
from tests.images_samples import KNOWN as LIBRARY_KNOWS
from tests.images_samples import (
    encoded,
    exif_with,
    exiftool,
    needs_exiftool,
    photo_like,
    quadrants,
    render,
    srgb_profile,
)
from tests.shared_libraries import LIBRARIES, needs_full_libraries
from tests.test_images_originals import dng

needs_avif = pytest.mark.skipif(
    not features.check("avif"), reason="the Pillow that is installed here cannot write AVIF"
)
FORMATS = ("webp", "jpeg", pytest.param("avif", marks=needs_avif))

Colour = tuple[int, int, int]
RED, GREEN, BLUE, YELLOW = (220, 20, 20), (20, 200, 20), (20, 20, 220), (220, 200, 20)


def made(tmp_path: Path, data: bytes, name: str = "in.jpg", **options: Any) -> Path:
    """What becomes of these bytes; checked to be as large as is said."""
    source, out = tmp_path / name, tmp_path / "out"
    source.write_bytes(data)
    out.unlink(missing_ok=True)
    said = scale_picture(source, out, ScaleOptions(**options))
    with Image.open(out) as image:
        assert image.size == (said.width, said.height)
        assert image.format == options.get("format", "webp").upper()
        image.load()
    assert not source.is_symlink()
    assert source.read_bytes() == data
    return out


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def assert_quadrants(path: Path, expected: Sequence[Colour], tolerance: int = 30) -> None:
    """Colours in the middle of the four quadrants, row by row, as they are stored."""
    with Image.open(path) as image:
        shown = image.convert("RGB")
    found = [shown.getpixel((shown.width * x // 4, shown.height * y // 4)) for y in (1, 3) for x in (1, 3)]
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, tuple)
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance, (found, expected)


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

sides = st.one_of(st.integers(1, 200), st.integers(1, 30_000))


@settings(max_examples=400)
@given(width=sides, height=sides, most=st.integers(64, 5000), multiple=st.integers(1, 64))
@example(width=4032, height=3024, most=2048, multiple=8)
@example(width=6000, height=4000, most=2048, multiple=8)
@example(width=4000, height=2999, most=2048, multiple=8)
@example(width=20_000, height=50, most=2048, multiple=8)
@example(width=2049, height=2048, most=2048, multiple=8)
def test_a_size_fits_divides_and_keeps_proportions(width: int, height: int, most: int, multiple: int) -> None:
    fitted = fit(width, height, most, multiple)
    left, top, right, bottom = fitted.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert max(fitted.width, fitted.height) <= most
    assert fitted.width <= width
    assert fitted.height <= height
    across, down = fitted.width / (right - left), fitted.height / (bottom - top)
    longest, shortest = max(width, height), min(width, height)
    thinnest = shortest * min(1, most // multiple * multiple / longest)
    if thinnest >= multiple:
        assert fitted.width % multiple == fitted.height % multiple == 0
        assert across == pytest.approx(down, rel=1e-9)
        lost = (width * across - fitted.width, height * down - fitted.height)
        assert max(lost) < multiple
        assert min(lost) < 1e-6 or across == pytest.approx(1)
    if longest <= most:
        assert fitted.unscaled
    else:
        assert max(fitted.width, fitted.height) == most // multiple * multiple


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((4032, 3024), (2048, 1536)),
        ((3024, 4032), (1536, 2048)),
        ((6000, 4000), (2048, 1368)),
        ((4000, 2999), (2048, 1536)),
        ((2000, 1501), (2000, 1496)),
        ((16_000, 1000), (2048, 128)),
        ((30_000, 30), (2048, 2)),
        ((5, 3), (5, 3)),
    ],
)
def test_sizes_people_ask_about(stored: tuple[int, int], expected: tuple[int, int]) -> None:
    fitted = fit(*stored, 2048, 8)
    assert (fitted.width, fitted.height) == expected


# ── pixels ────────────────────────────────────────────────────────────────────────────────────────────────────────


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Stored so that a viewer who heeds the orientation shows `image`; worked out from the EXIF table."""
    undo = {
        2: (Image.Transpose.FLIP_LEFT_RIGHT,),
        3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,),
        5: (Image.Transpose.ROTATE_270, Image.Transpose.FLIP_LEFT_RIGHT),
        6: (Image.Transpose.ROTATE_90,),
        7: (Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT),
        8: (Image.Transpose.ROTATE_270,),
    }
    for turn in undo.get(orientation, ()):
        image = image.transpose(turn)
    return image


MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB"),
    "WEBP": ("RGB", "RGBA"),
}


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "P":
        return image.quantize(16)
    if mode == "1":
        return image.convert("1", dither=Image.Dither.NONE)
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        converted = ImageCms.applyTransform(image, to_lab)
        assert converted is not None
        return converted
    return image.convert(mode)


@settings(max_examples=80)
@given(
    kind_and_mode=st.sampled_from([(kind, mode) for kind, modes in MODES.items() for mode in modes]),
    orientation=st.integers(1, 8),
    width=st.integers(100, 400),
    height=st.integers(100, 400),
    most=st.integers(64, 300),
    format=st.sampled_from(("webp", "jpeg")),
)
def test_every_picture_comes_out_upright_in_its_colours_and_within_its_size(
    tmp_path: Path,
    kind_and_mode: tuple[str, str],
    orientation: int,
    width: int,
    height: int,
    most: int,
    format: str,
) -> None:
    kind, mode = kind_and_mode
    shown = quadrants((width, height))
    options: dict[str, Any] = {"exif": exif_with(orientation)}
    options |= {"quality": 95, "subsampling": "4:4:4"} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    data = encoded(in_mode(turned(shown, orientation), mode), kind, **options)
    out = made(tmp_path, data, max_dimension=most, format=format)
    expected = shown.convert("RGB")
    if mode in ("L", "LA", "I;16", "1"):
        expected = (in_mode(shown, "1") if mode == "1" else shown.convert("L")).convert("RGB")
    wanted = [expected.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3)]
    assert_quadrants(out, wanted)  # type: ignore[arg-type]  # RGB triples
    found = size_of(out)
    assert max(found) <= most
    assert found[0] % 8 == found[1] % 8 == 0
    assert abs(found[0] / found[1] / (width / height) - 1) < 8 / min(found)
    with Image.open(out) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x0110] == "Model 7"


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("format", FORMATS)
def test_a_heif_is_turned_by_its_container_alone(tmp_path: Path, format: str, orientation: int) -> None:
    shown = quadrants((640, 480))
    file = pillow_heif.from_pillow(turned(shown, orientation))
    file.info["exif"] = exif_with(orientation).tobytes()
    written = io.BytesIO()
    file.save(written, quality=90)
    out = made(tmp_path, written.getvalue(), "in.heic", format=format, max_dimension=320)
    assert size_of(out) == (320, 240)
    assert_quadrants(out, (RED, GREEN, BLUE, YELLOW))


def test_a_picture_that_is_small_enough_keeps_its_very_pixels(tmp_path: Path) -> None:
    picture = photo_like((203, 101))
    out = made(tmp_path, encoded(picture, "PNG"), "in.png", format="jpeg", quality=100)
    assert size_of(out) == (200, 96)
    with Image.open(out) as image:
        difference = np.abs(np.asarray(image).astype(int) - np.asarray(picture.crop((1, 2, 201, 98))).astype(int))
    assert difference.mean() < 1.5


@pytest.mark.parametrize("size", [(4096, 3072), (4097, 3001), (2740, 2055)])
def test_decoding_fewer_pixels_shows_the_same_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    # Waves that are finer to the right: a shift or blocks would show.
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    waves = 128 + 60 * np.sin(120 * x * x) + 50 * np.cos(70 * y)
    picture = Image.fromarray(np.stack([waves, waves[:, ::-1], waves[::-1]], axis=2).astype(np.uint8))
    data = encoded(picture, "JPEG", quality=95, subsampling="4:4:4")
    fewer = made(tmp_path, data, format="jpeg", quality=95, max_dimension=512)
    fitted = fit(*size, 512, 8)
    direct = picture.resize((fitted.width, fitted.height), Image.Resampling.LANCZOS, box=fitted.box)
    with Image.open(fewer) as image:
        difference = np.abs(np.asarray(image).astype(int) - np.asarray(direct).astype(int))
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) < 8


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (64, 1))
    out = made(tmp_path, encoded(Image.fromarray(ramp), "PNG"), "in.png", format="jpeg", quality=95)
    with Image.open(out) as image:
        assert np.abs(np.asarray(image.convert("L"))[32].astype(int) - np.arange(256)).max() <= 3


# ── transparency ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("format", FORMATS)
def test_transparency_is_kept_where_the_format_has_it_and_laid_on_white_where_not(
    tmp_path: Path, format: str, mode: str
) -> None:
    picture = Image.new("RGBA", (400, 200), (200, 40, 40, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 200, 200))
    data = encoded(picture if mode == "RGBA" else picture.convert(mode), "PNG")
    out = made(tmp_path, data, "in.png", format=format, max_dimension=200)
    with Image.open(out) as image:
        if format == "jpeg":
            left = image.convert("RGB").getpixel((40, 50))
            assert isinstance(left, tuple)
            assert min(left) > 250
        else:
            alpha = image.convert("RGBA").getchannel("A")
            assert (alpha.getpixel((40, 50)), alpha.getpixel((160, 50))) == (0, 255)
            # No dark seam where something meets nothing: colours are weighed by how much there is of them.
            seam = image.convert("RGBA").getpixel((103, 50))
            if mode == "RGBA":
                assert isinstance(seam, tuple)
                assert seam[0] > 150


def test_a_picture_whose_alpha_says_nothing_has_none_afterwards(tmp_path: Path) -> None:
    with Image.open(made(tmp_path, encoded(quadrants().convert("RGBA"), "PNG"), "in.png")) as image:
        assert image.mode == "RGB"


# ── colours ───────────────────────────────────────────────────────────────────────────────────────────────────────


def icc_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A display profile of version 2.4 with these tags and what must be there (ICC.1:2001-04, 6)."""
    named = b"desc\0\0\0\0\0\0\0\x05test\0" + bytes(78)
    everything = {b"desc": named, b"cprt": b"text\0\0\0\0none\0", **tags}
    at, table, body = 128 + 4 + 12 * len(everything), b"", b""
    for name, data in everything.items():
        table += name + (at + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data + bytes(-len(data) % 4)
    illuminant = bytes.fromhex("0000f6d6 00010000 0000d32d")
    head = (at + len(body)).to_bytes(4, "big") + bytes(4) + b"\x02\x40\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + illuminant
    return head.ljust(128, b"\0") + len(everything).to_bytes(4, "big") + table + body


def rgb_profile(primaries: Sequence[tuple[float, float]], gamma: float = 2.2) -> bytes:
    """An ICC profile of these primaries, CIE xy, with a plain gamma; white is D65, brought to D50 by Bradford."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([0.95047, 1.0, 1.08883])
    matrix = xyz * np.linalg.solve(xyz, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50 = np.array([0.9642, 1.0, 0.8249])
    adapted = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ white)) @ bradford @ matrix

    def fixed(values: Sequence[float]) -> bytes:
        return b"".join(round(value * 65536).to_bytes(4, "big", signed=True) for value in values)

    curve = b"curv\0\0\0\0\0\0\0\x01" + round(gamma * 256).to_bytes(2, "big") + bytes(2)
    tags = {
        b"wtpt": b"XYZ \0\0\0\0" + fixed(list(d50)),
        **{name: b"XYZ \0\0\0\0" + fixed(list(adapted[:, n])) for n, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    return icc_profile(b"RGB ", tags)


P3_PRIMARIES = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
SRGB_PRIMARIES = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))


def p3_as_srgb(colour: Colour) -> Colour:
    """By the definitions of the two (gamma 2.2 for P3 as in `rgb_profile`, IEC 61966-2-1 for sRGB)."""

    def to_xyz(primaries: Sequence[tuple[float, float]]) -> Any:
        xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
        return xyz * np.linalg.solve(xyz, np.array([0.95047, 1.0, 1.08883]))

    linear = (np.array(colour) / 255) ** 2.2
    out = np.clip(np.linalg.solve(to_xyz(SRGB_PRIMARIES), to_xyz(P3_PRIMARIES) @ linear), 0, 1)
    values = np.where(out <= 0.0031308, 12.92 * out, 1.055 * out ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(value) * 255) for value in values)
    return red, green, blue


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("colour", [(180, 90, 60), (60, 140, 200), (128, 128, 128), (255, 0, 0)])
def test_p3_comes_out_as_the_same_colour_in_srgb(tmp_path: Path, format: str, colour: Colour) -> None:
    data = encoded(Image.new("RGB", (256, 128), colour), "PNG", icc_profile=rgb_profile(P3_PRIMARIES))
    out = made(tmp_path, data, "in.png", format=format)
    with Image.open(out) as image:
        assert "icc_profile" not in image.info
    assert_quadrants(out, [p3_as_srgb(colour)] * 4, tolerance=4)
    if colour == (180, 90, 60):
        # As a control: shown as they are, the numbers would be another colour.
        assert max(abs(a - b) for a, b in zip(p3_as_srgb(colour), colour, strict=True)) > 8


@pytest.mark.parametrize("format", FORMATS)
def test_colours_can_be_kept_with_their_profile(tmp_path: Path, format: str) -> None:
    profile = rgb_profile(P3_PRIMARIES)
    data = encoded(Image.new("RGB", (256, 128), (180, 90, 60)), "PNG", icc_profile=profile)
    out = made(tmp_path, data, "in.png", format=format, colour="keep")
    with Image.open(out) as image:
        assert image.info["icc_profile"] == profile
    assert_quadrants(out, [(180, 90, 60)] * 4, tolerance=4)


def test_colours_that_are_srgb_already_are_not_touched(tmp_path: Path) -> None:
    picture = photo_like((256, 128))
    plain = made(tmp_path, encoded(picture, "PNG"), "in.png").read_bytes()
    assert made(tmp_path, encoded(picture, "PNG", icc_profile=srgb_profile()), "in.png").read_bytes() == plain
    assert made(tmp_path, encoded(picture, "PNG", icc_profile=b"no profile"), "in.png").read_bytes() == plain


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("colour", ["srgb", "keep"])
def test_grey_goes_through_its_profile_and_stays_grey(tmp_path: Path, format: str, mode: str, colour: str) -> None:
    curve = b"curv\0\0\0\0\0\0\0\x01\x01\0\0\0"  # gamma 1.0: linear light
    white = b"XYZ \0\0\0\0" + bytes.fromhex("0000f6d6 00010000 0000d32d")
    profile = icc_profile(b"GRAY", {b"wtpt": white, b"kTRC": curve})
    data = encoded(Image.new("L", (128, 64), 64).convert(mode), "PNG", icc_profile=profile)
    out = made(tmp_path, data, "in.png", format=format, colour=colour)
    with Image.open(out) as image:
        kept = image.info.get("icc_profile")
        shown = image.convert("RGB").getpixel((60, 30))
    assert isinstance(shown, tuple)
    assert max(shown) - min(shown) <= 2
    # 64 of 255 in linear light is 137 in sRGB; where the profile goes along, the number stays.
    assert kept in (None, profile)
    assert shown[0] == pytest.approx(64 if kept else 137, abs=2)
    assert kept is None or (colour, format) in (("keep", "jpeg"), ("keep", "avif"))


def test_transparency_survives_the_conversion_of_colours(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (256, 128), (180, 90, 60, 255))
    picture.paste((180, 90, 60, 0), (0, 0, 128, 128))
    data = encoded(picture, "PNG", icc_profile=rgb_profile(P3_PRIMARIES))
    with Image.open(made(tmp_path, data, "in.png")) as image:
        left, right = image.getpixel((30, 60)), image.getpixel((220, 60))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert (left[3], right[3]) == (0, 255)
    assert max(abs(a - b) for a, b in zip(right[:3], p3_as_srgb((180, 90, 60)), strict=True)) <= 4


# ── tags ──────────────────────────────────────────────────────────────────────────────────────────────────────────

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
    b' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:dji="http://www.dji.com/drone-dji/1.0/"'
    b' xmlns:core="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/" xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    b' xmlns:cam="http://ns.google.com/photos/1.0/camera/" dc:source="an old negative" exif:GPSLatitude="46,33.5N"'
    b' exif:GPSLongitude="7,50.1E" photoshop:City="Zermatt" photoshop:Country="Switzerland" core:Location="Summit"'
    b' dji:GpsLatitude="+46.5" dji:RelativeAltitude="+12.5" cam:MotionPhoto="1">'
    b'<ext:LocationCreated><rdf:Bag><rdf:li ext:City="Zermatt" exif:GPSAltitude="1200/1"/></rdf:Bag>'
    b"</ext:LocationCreated>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def placed_jpeg(orientation: int = 1) -> bytes:
    """With a position and names of places in EXIF, XMP and IPTC, and a maker note."""
    exif = exif_with(orientation)
    exif.get_ifd(0x8769)[0x927C] = b"MAKERNOTE of the town of Zermatt"
    exif.get_ifd(0x8769)[0xA434] = "Lens 50mm"
    exif.get_ifd(0x8825)[1], exif.get_ifd(0x8825)[2] = "N", (46.0, 33.0, 29.16)
    exif.get_ifd(0x8825)[3], exif.get_ifd(0x8825)[4] = "E", (7.0, 50.0, 6.72)
    iptc = b"".join(
        b"\x1c\x02" + bytes([number]) + len(text).to_bytes(2, "big") + text
        for number, text in ((5, b"A title"), (90, b"Zermatt"), (101, b"Switzerland"))
    )
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    segment = b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block
    data = encoded(photo_like((320, 240)), "JPEG", exif=exif, xmp=XMP)
    return data[:2] + segment + data[2:]


def tags_of(path: Path) -> dict[str, str]:
    """Every tag exiv2 finds in the file."""
    with exiv2_session() as exiv2:
        image = exiv2.ImageFactory.open(str(path))
        image.readMetadata()
        return {
            tag.key(): tag.toString() for kind in (image.exifData(), image.iptcData(), image.xmpData()) for tag in kind
        }


@pytest.mark.parametrize("format", ["webp", "jpeg"])
def test_kept_tags_are_true_of_the_new_picture(tmp_path: Path, format: str) -> None:
    out = made(tmp_path, placed_jpeg(6), format=format, max_dimension=160)
    tags = tags_of(out)
    assert size_of(out) == (120, 160)
    assert (tags["Exif.Image.Make"], tags["Exif.Image.Orientation"]) == ("Maker", "1")
    assert (tags["Exif.Photo.PixelXDimension"], tags["Exif.Photo.PixelYDimension"]) == ("120", "160")
    assert tags["Exif.Photo.DateTimeOriginal"] == "2019:01:02 03:04:05"
    assert tags["Exif.GPSInfo.GPSLatitudeRef"] == "N"
    assert tags["Xmp.dc.source"] == "an old negative"
    assert tags["Xmp.photoshop.City"] == "Zermatt"
    assert not any("MotionPhoto" in key for key in tags)
    if format == "jpeg":
        assert tags["Iptc.Application2.City"] == "Zermatt"


@pytest.mark.parametrize("format", ["webp", "jpeg"])
def test_without_location_everything_but_the_place_stays(tmp_path: Path, format: str) -> None:
    out = made(tmp_path, placed_jpeg(), format=format, metadata="strip_location")
    tags = tags_of(out)
    assert tags["Exif.Image.Make"] == "Maker"
    assert tags["Exif.Photo.LensModel"] == "Lens 50mm"
    assert tags["Xmp.dc.source"] == "an old negative"
    if format == "jpeg":
        assert tags["Iptc.Application2.ObjectName"] == "A title"
    told = [
        key for key in tags if any(word in key for word in ("GPS", "Gps", "City", "Country", "Location", "Altitude"))
    ]
    assert told == []
    data = out.read_bytes()
    for secret in (b"Zermatt", b"Switzerland", b"Summit", b"GPS", b"46,33.5N", b"Gps"):
        assert secret not in data


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_exiftool_finds_no_place_either(tmp_path: Path, format: str) -> None:
    kept = exiftool(made(tmp_path, placed_jpeg(), format=format, metadata="keep"))
    assert kept["GPS:GPSLatitude"] == pytest.approx(46.5581)
    assert "XMP-photoshop:City" in kept
    assert kept["IFD0:Model"] == "Model 7"
    assert "ExifTool:Warning" not in kept
    said = exiftool(made(tmp_path, placed_jpeg(), format=format, metadata="strip_location"))
    words = ("gps", "city", "country", "location", "latitude", "altitude", "position")
    found = [key for key in said if any(word in key.lower() for word in words)]
    assert set(found) <= {"QuickTime:ChromaSamplePosition"}  # of AVIF: where colours lie between pixels
    assert (said["IFD0:Model"], said["XMP-dc:Source"]) == ("Model 7", "an old negative")
    assert "ExifTool:Warning" not in said


@pytest.mark.parametrize("format", FORMATS)
def test_stripped_pictures_hold_pixels_only(tmp_path: Path, format: str) -> None:
    data = made(tmp_path, placed_jpeg(), format=format, metadata="strip").read_bytes()
    for trace in (b"Exif\0\0", b"EXIF", b"xmpmeta", b"Maker", b"Photoshop", b"Zermatt"):
        assert trace not in data


def test_what_an_export_wrote_can_be_taken_out_again(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    source.write_bytes(encoded(photo_like((320, 240)), "JPEG", exif=exif_with()))
    exported = tmp_path / "exported.jpg"
    render(source, exported, LIBRARY_KNOWS)
    assert "Exif.GPSInfo.GPSLatitude" in tags_of(exported)
    tags = tags_of(made(tmp_path, exported.read_bytes(), metadata="strip_location"))
    assert not any("GPS" in key for key in tags)
    assert tags["Exif.Image.Rating"] == "4"
    assert "Über den Pass" in tags["Xmp.dc.title"]


def test_damaged_tags_fail_no_picture_and_are_noted(tmp_path: Path) -> None:
    block = b"Exif\0\0MM\0*" + b"\xff" * 60
    data = encoded(photo_like((320, 240)), "JPEG")
    source, out = tmp_path / "in.jpg", tmp_path / "out.webp"
    source.write_bytes(data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:])
    said = scale_picture(source, out, ScaleOptions())
    assert said.notes == ("the original's EXIF could not be read",)
    assert size_of(out) == (320, 240)


def test_a_raw_files_own_jpeg_is_turned_as_the_raw_file_says(tmp_path: Path) -> None:
    shown = quadrants((320, 240))
    out = made(tmp_path, dng(turned(shown, 6), orientation=6), "in.dng", format="jpeg", max_dimension=160)
    assert size_of(out) == (160, 120)
    assert_quadrants(out, (RED, GREEN, BLUE, YELLOW))
    assert tags_of(out)["Exif.Image.Orientation"] == "1"


# ── the same bytes ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_picture_gives_the_same_bytes_also_in_a_crowd_and_another_process(tmp_path: Path, format: str) -> None:
    source = tmp_path / "in.jpg"
    exif = exif_with(6)
    exif.get_ifd(0x8825)[1], exif.get_ifd(0x8825)[2] = "N", (46.0, 33.0, 29.16)
    profile = rgb_profile(P3_PRIMARIES)
    source.write_bytes(encoded(photo_like((600, 400)), "JPEG", exif=exif, icc_profile=profile, xmp=XMP))

    def bytes_of(number: int) -> bytes:
        out = tmp_path / f"out{number}"
        scale_picture(source, out, ScaleOptions(format=format, max_dimension=256))  # type: ignore[arg-type]  # a format
        return out.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(bytes_of, range(8)))
    program = (
        "import sys; from pathlib import Path; from skicyclerun.images.scale import *\n"
        f"scale_picture(Path(sys.argv[1]), Path(sys.argv[2]), ScaleOptions(format={format!r}, max_dimension=256))\n"
    )
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-c", program, str(source), str(other)], check=True, timeout=60)
    assert results == {other.read_bytes()}


# ── what cannot be ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file is empty"),
        (b"hello, this is no picture", "it is a text file named .jpg"),
        (b"%PDF-1.7", "it is a PDF document"),
        (b"\x00\x00\x00\x14ftypqt  \0\0\0\0qt  ", "it is a movie, not a picture"),
        (placed_jpeg()[:6000], "the JPEG is damaged or truncated"),
        (encoded(photo_like((320, 240)), "PNG")[:9000], "the PNG is damaged or truncated"),
        (encoded(photo_like((320, 240)), "WEBP")[:900], "the WebP is damaged or truncated"),
    ],
)
def test_what_is_no_picture_fails_alone_with_a_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    source, out = tmp_path / "in.jpg", tmp_path / "out.webp"
    source.write_bytes(data)
    with pytest.raises(PhotoUnreadable) as caught:
        scale_picture(source, out, ScaleOptions())
    assert sentence in str(caught.value)
    assert not out.exists()


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    source, out = tmp_path / "in.png", tmp_path / "out.webp"
    source.write_bytes(encoded(Image.new("1", (2000, 1000)), "PNG"))
    with pytest.raises(PhotoUnreadable, match="more than the limit of 1 million"):
        scale_picture(source, out, ScaleOptions(max_pixels=1_000_000))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "in.jpg", tmp_path / "out.webp"
    source.write_bytes(placed_jpeg())
    real = open

    def full(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        stream = real(path, mode, *args, **options)
        if mode == "xb":
            stream.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return stream

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match="No space left"):
        scale_picture(source, out, ScaleOptions())
    assert not out.exists()


def test_a_file_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jpg", tmp_path / "out.webp"
    source.write_bytes(placed_jpeg())
    out.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        scale_picture(source, out, ScaleOptions())
    assert out.read_bytes() == b"somebody else's"


# ── the stage ─────────────────────────────────────────────────────────────────────────────────────────────────────


def recipe(tmp_path: Path, **section: Any) -> Preprocessing:
    return Preprocessing(PreprocessingSettings(**section), Surroundings(tmp_path, tmp_path / "cache.json", tmp_path))


@pytest.mark.parametrize(
    ("format", "extension"), [("webp", ".webp"), ("jpeg", ".jpg"), pytest.param("avif", ".avif", marks=needs_avif)]
)
def test_the_recipe_makes_a_picture_of_its_format(tmp_path: Path, format: str, extension: str) -> None:
    source, out = tmp_path / "in.jpg", tmp_path / "out"
    source.write_bytes(placed_jpeg())
    stage = recipe(tmp_path, format=format, max_dimension=160)
    stage.open()
    assert stage.extension == extension
    made = stage.make(Picture(source, "00"), out)
    assert ((made.width, made.height), made.note, dict(made.facts)) == ((160, 120), "", {})
    with Image.open(out) as image:
        assert (image.format, image.size) == (format.upper(), (160, 120))


def test_results_depend_on_what_was_chosen_and_on_nothing_else(tmp_path: Path) -> None:
    picture = Picture(tmp_path / "in.jpg", "00")
    first = recipe(tmp_path).depends_on(picture)
    assert recipe(tmp_path, workers=3, enabled=False, max_pixels=10_000_000).depends_on(picture) == first
    others = {
        "max_dimension": 1024,
        "format": "jpeg",
        "quality": 80,
        "metadata": "strip",
        "multiple_of": 16,
        "colour": "keep",
    }
    for key, value in others.items():
        assert recipe(tmp_path, **{key: value}).depends_on(picture) != first, key


def test_movies_are_left_out_by_name_or_by_content(tmp_path: Path) -> None:
    movie, picture, odd = tmp_path / "a.MOV", tmp_path / "b.jpg", tmp_path / "c.bin"
    odd.write_bytes(b"\x00\x00\x00\x14ftypqt  \0\0\0\0qt  ")
    stage = recipe(tmp_path)
    assert stage.left_out(Picture(movie, "")) == stage.left_out(Picture(odd, "")) != ""
    assert stage.left_out(Picture(picture, "")) == stage.left_out(Picture(tmp_path / "gone.bin", "")) == ""


def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(OriginalMissing, match="the exported file is no longer in its folder"):
        recipe(tmp_path).make(Picture(tmp_path / "gone.jpg", ""), tmp_path / "out")


def test_an_encoder_that_is_missing_is_named_before_the_first_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    recipe(tmp_path, format="webp").check()
    recipe(tmp_path, format="jpeg").check()
    with pytest.raises(StageError, match="cannot write AVIF") as caught:
        recipe(tmp_path, format="avif").check()
    assert "pip install" in caught.value.next_step


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_dimension": 0},
        {"format": "png"},
        {"quality": 101},
        {"metadata": "none"},
        {"multiple_of": 0},
        {"quality": "9"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PreprocessingSettings(**wrong)


def test_the_stage_can_be_named_without_the_image_stack() -> None:
    program = "import sys, skicyclerun.stages.preprocessing as p; print(p.STAGE.name, 'PIL' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split() == [STAGE.name, "False"]
    assert set(STAGE.makes_paths) <= set(STAGE.needs_paths)


# ── real pictures ─────────────────────────────────────────────────────────────────────────────────────────────────


@needs_full_libraries
@pytest.mark.parametrize("suffix", ["heic", "jpeg"])
def test_real_photos_look_like_what_an_independent_reader_shows(tmp_path: Path, suffix: str) -> None:
    from PIL import ImageOps

    for number, source in enumerate(sorted(LIBRARIES.glob(f"*/originals/*/*.{suffix}"))[:4]):
        out = tmp_path / f"{number}.webp"
        scale_picture(source, out, ScaleOptions(max_dimension=1024, metadata="strip_location"))
        original = pillow_heif.read_heif(source).to_pillow() if suffix == "heic" else Image.open(source)
        shown = ImageOps.exif_transpose(original).convert("RGB")
        if profile := original.info.get("icc_profile"):
            converted = ImageCms.profileToProfile(
                shown, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            )
            assert converted is not None
            shown = converted
        fitted = fit(*shown.size, 1024, 8)
        expected = np.asarray(shown.resize((64, 64), box=fitted.box), dtype=int)
        with Image.open(out) as image:
            assert image.size == (fitted.width, fitted.height)
            found = np.asarray(image.convert("RGB").resize((64, 64)), dtype=int)
        assert np.abs(found - expected).mean() < 2
        assert not any("GPS" in key for key in tags_of(out))
