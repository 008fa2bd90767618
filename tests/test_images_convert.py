"""Everything that is no JPEG becomes one that looks right: upright, on white, in its colours, with its tags."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.decode_check import decode_fully
from skicyclerun.images.render import RenderOptions
from skicyclerun.models import ExportedFacts
from tests.images_samples import (
    KNOWN,
    encoded,
    exif_with,
    exiftool,
    needs_exiftool,
    photo_like,
    quadrants,
    render,
    srgb_profile,
    under_a_memory_bound,
)
from tests.shared_libraries import LIBRARIES

Colour = tuple[int, int, int]
RED, GREEN, BLUE, YELLOW = (220, 20, 20), (20, 200, 20), (20, 20, 220), (220, 200, 20)


def corners(path: Path) -> tuple[Colour, Colour, Colour, Colour]:
    """The colours in the middle of the four quadrants as a viewer shows them, row by row."""
    with Image.open(path) as image:
        shown = ImageOps.exif_transpose(image).convert("RGB")
    width, height = shown.size
    found = [shown.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3)]
    return tuple(pixel for pixel in found if isinstance(pixel, tuple))  # type: ignore[return-value]  # four RGB triples


def assert_looks_like(path: Path, *expected: Colour, tolerance: int = 12) -> None:
    for found, wanted in zip(corners(path), expected, strict=True):
        assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= tolerance, (found, wanted)


def convert(tmp_path: Path, data: bytes, name: str = "in.bin", **options: Any) -> tuple[Path, ExportedFacts]:
    source, out = tmp_path / name, tmp_path / "out.jpg"
    source.write_bytes(data)
    facts = render(source, out, KNOWN, options=RenderOptions(**options))
    with Image.open(out) as image:
        assert image.format == "JPEG"
        image.load()
        assert (facts.width, facts.height) == ImageOps.exif_transpose(image).size
    assert facts.title == KNOWN.title
    decode_fully(out, max_pixels=10**8)
    return out, facts


def heif(image: Image.Image, **options: Any) -> bytes:
    written = io.BytesIO()
    pillow_heif.from_pillow(image).save(written, quality=90, **options)
    return written.getvalue()


# ── formats ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "HEIF", "JPEG2000"])
@pytest.mark.parametrize("name", ["IMG_1.jpg", "picture", "x.png"])
def test_every_format_becomes_a_jpeg_whatever_it_is_named(tmp_path: Path, kind: str, name: str) -> None:
    picture = quadrants()
    data = heif(picture) if kind == "HEIF" else encoded(picture, kind)
    out, facts = convert(tmp_path, data, name)
    assert_looks_like(out, RED, GREEN, BLUE, YELLOW, tolerance=25)
    assert facts.extra["converted_from"].upper().replace(" ", "") == kind


@pytest.mark.parametrize("suffix", ["heic", "png"])
def test_real_photos_look_like_what_an_independent_reader_shows(tmp_path: Path, suffix: str) -> None:
    for number, source in enumerate(sorted(LIBRARIES.glob(f"*/originals/*/*.{suffix}"))[:3]):
        out = tmp_path / f"{number}.jpg"
        render(source, out)
        with Image.open(out) as image:
            shown = np.asarray(image.convert("RGB").resize((64, 64)), dtype=int)
        original = Image.open(source) if suffix == "png" else pillow_heif.read_heif(source).to_pillow()
        expected = np.asarray(original.convert("RGB").resize((64, 64)), dtype=int)
        assert np.abs(shown - expected).mean() < 2


def test_a_gif_gives_its_first_frame(tmp_path: Path) -> None:
    other = Image.new("RGB", (64, 48), (0, 0, 0))
    data = encoded(quadrants().quantize(8), "GIF", save_all=True, append_images=[other], comment=b"not carried over")
    out, _ = convert(tmp_path, data)
    assert_looks_like(out, RED, GREEN, BLUE, YELLOW)
    assert b"not carried over" not in out.read_bytes()


def test_ten_bit_heif_becomes_eight_bits(tmp_path: Path) -> None:
    ramp = np.zeros((48, 64, 3), dtype=np.uint16)
    ramp[:, :, 0] = np.linspace(0, 65535, 64, dtype=np.uint16)
    written = io.BytesIO()
    pillow_heif.encode(mode="RGB;16", size=(64, 48), data=ramp.tobytes(), fp=written, quality=95)
    heif_file = pillow_heif.open_heif(io.BytesIO(written.getvalue()), convert_hdr_to_8bit=False)
    assert heif_file.info["bit_depth"] == 10
    out, _ = convert(tmp_path, written.getvalue())
    with Image.open(out) as image:
        red = np.asarray(image)[24, :, 0].astype(int)
    assert np.abs(red - np.linspace(0, 255, 64)).max() < 12


# ── orientation ───────────────────────────────────────────────────────────────────────────────────────────────────


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """What a viewer makes of pixels with this orientation, worked out from the EXIF table, not by Pillow's helper."""
    turns = {
        2: (Image.Transpose.FLIP_LEFT_RIGHT,),
        3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,),
        5: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90),
        6: (Image.Transpose.ROTATE_270,),
        7: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_270),
        8: (Image.Transpose.ROTATE_90,),
    }
    for turn in turns.get(orientation, ()):
        image = image.transpose(turn)
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_orientation_is_applied_once(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = exif_with(orientation)
    if kind == "HEIF":
        # Set on the finished container, pillow-heif writes it as irot and imir beside the tag.
        file = pillow_heif.from_pillow(quadrants())
        file.info["exif"] = exif.tobytes()
        written = io.BytesIO()
        file.save(written, quality=90)
        data = written.getvalue()
    else:
        data = encoded(quadrants(), kind, exif=exif)
    out, facts = convert(tmp_path, data)
    shown = upright(quadrants(), orientation)
    expected = [shown.getpixel((shown.width * x // 4, shown.height * y // 4)) for y in (1, 3) for x in (1, 3)]
    assert (facts.width, facts.height) == shown.size
    assert_looks_like(out, *expected, tolerance=25)  # type: ignore[arg-type]  # RGB triples
    with Image.open(out) as image:
        assert image.getexif().get(0x0112, 1) == (orientation if kind == "JPEG" else 1)
        assert image.getexif()[0x0110] == "Model 7"


def test_an_orientation_that_only_exif_knows_does_not_turn_a_heif(tmp_path: Path) -> None:
    # ISO/IEC 23008-12: the container's properties are normative, EXIF's orientation is to be ignored.
    straight, turned = exif_with(1).tobytes(), exif_with(6).tobytes()
    data = heif(quadrants(), exif=straight)
    assert straight in data
    out, facts = convert(tmp_path, data.replace(straight, turned))
    assert (facts.width, facts.height) == (64, 48)
    assert_looks_like(out, RED, GREEN, BLUE, YELLOW, tolerance=25)


# ── modes and profiles ────────────────────────────────────────────────────────────────────────────────────────────


def grey_profile() -> bytes:
    """A valid grey profile: the sRGB one with another colour space in its header; enough for what is tested."""
    profile = bytearray(srgb_profile())
    profile[16:20] = b"GRAY"
    return bytes(profile)


def expected_rgb(mode: str) -> tuple[Colour, ...]:
    picture = quadrants()
    if mode in ("L", "LA", "I;16", "I", "F"):
        picture = picture.convert("L").convert("RGB")
    if mode == "1":
        picture = picture.convert("1", dither=Image.Dither.NONE).convert("RGB")
    width, height = picture.size
    return tuple(picture.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3))  # type: ignore[misc]


def in_mode(mode: str) -> Image.Image:
    picture = quadrants()
    grey = picture.convert("L")
    match mode:
        case "I;16":
            return Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        case "I":
            return Image.fromarray(np.asarray(grey).astype(np.int32) * 257)
        case "F":
            return Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
        case "P":
            return picture.quantize(16)
        case "1":
            return picture.convert("1", dither=Image.Dither.NONE)
        case "LAB":
            return picture  # made by the test
        case _:
            return picture.convert(mode)


HOLDS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
}
combinations = st.sampled_from([(kind, mode) for kind, modes in HOLDS.items() for mode in modes])


@settings(max_examples=150)
@given(combination=combinations, orientation=st.integers(1, 8), profile=st.sampled_from([None, "rgb", "grey", "junk"]))
def test_modes_orientations_and_profiles_come_out_right_in_any_combination(
    tmp_path: Path, combination: tuple[str, str], orientation: int, profile: str | None
) -> None:
    kind, mode = combination
    options: dict[str, Any] = {}
    if profile and kind != "GIF":
        options["icc_profile"] = {"rgb": srgb_profile(), "grey": grey_profile(), "junk": b"no profile"}[profile]
    if kind != "GIF":
        options["exif"] = exif_with(orientation)
    if kind == "WEBP":
        options["lossless"] = True
    out, _ = convert(tmp_path, encoded(in_mode(mode), kind, **options))
    flat = upright(Image.new("RGB", (2, 2)), 1)
    for place, colour in zip(((0, 0), (1, 0), (0, 1), (1, 1)), expected_rgb(mode), strict=True):
        flat.putpixel(place, colour)
    turned = upright(flat, orientation if kind != "GIF" else 1)
    wanted = [turned.getpixel(place) for place in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert_looks_like(out, *wanted, tolerance=16)  # type: ignore[arg-type]  # RGB triples
    with Image.open(out) as image:
        grey = mode in ("1", "L", "LA", "I;16", "I", "F")
        assert image.mode == ("L" if grey else "RGB") or kind in ("GIF", "WEBP")
        attached = image.info.get("icc_profile")
        fits = {"L": grey_profile(), "RGB": srgb_profile()}[image.mode]
        assert attached in (None, fits)
        if options.get("icc_profile") == fits and mode not in ("CMYK", "YCbCr", "P"):
            assert attached == fits


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_transparency_is_laid_on_white(tmp_path: Path, kind: str) -> None:
    picture = quadrants().convert("RGBA")
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (0, 0, 32, 24))
    alpha.paste(128, (32, 0, 64, 24))
    picture.putalpha(alpha)
    out, _ = convert(tmp_path, heif(picture) if kind == "HEIF" else encoded(picture, kind))
    half = tuple((value * 128 + 255 * 127) // 255 for value in GREEN)
    assert_looks_like(out, (255, 255, 255), half, BLUE, YELLOW, tolerance=25)  # type: ignore[arg-type]  # three values


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "LA"])
def test_a_transparent_colour_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    picture = quadrants().convert("L") if mode in ("L", "LA") else quadrants()
    shown = picture.convert("RGB").getpixel((5, 5))
    if mode == "P":
        picture = picture.quantize(8)
    key = picture.getpixel((5, 5))
    if mode == "LA":
        mask = picture.point([0 if value == key else 255 for value in range(256)])
        picture = picture.convert("LA")
        picture.putalpha(mask)
        data = encoded(picture, "PNG")
    else:
        data = encoded(picture, "PNG", transparency=key)
    out, _ = convert(tmp_path, data)
    assert shown != (255, 255, 255)
    assert_looks_like(out, (255, 255, 255), *expected_rgb("L" if mode in ("L", "LA") else "RGB")[1:])


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (32, 1))
    out, _ = convert(tmp_path, encoded(Image.fromarray(ramp), "PNG"))
    with Image.open(out) as image:
        assert image.mode == "L"
        assert np.abs(np.asarray(image)[16].astype(int) - np.arange(256)).max() <= 3


def test_an_icc_profile_that_fits_is_kept_byte_for_byte(tmp_path: Path) -> None:
    for data in (
        encoded(quadrants(), "PNG", icc_profile=srgb_profile()),
        heif(quadrants(), icc_profile=srgb_profile()),
    ):
        out, _ = convert(tmp_path, data)
        with Image.open(out) as image:
            assert image.info["icc_profile"] == srgb_profile()


def test_a_cmyk_profile_is_never_attached_to_rgb(tmp_path: Path) -> None:
    profile = bytearray(srgb_profile())
    profile[16:20] = b"CMYK"  # a profile that claims CMYK and cannot be used: the plain conversion has to do
    out, _ = convert(tmp_path, encoded(quadrants().convert("CMYK"), "TIFF", icc_profile=bytes(profile)))
    assert_looks_like(out, RED, GREEN, BLUE, YELLOW)
    with Image.open(out) as image:
        assert image.mode == "RGB"
        assert "icc_profile" not in image.info


def test_lab_goes_through_its_colour_space(tmp_path: Path) -> None:
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(quadrants(), transform)
    assert lab is not None
    out, _ = convert(tmp_path, encoded(lab, "TIFF"))
    assert_looks_like(out, RED, GREEN, BLUE, YELLOW, tolerance=16)


# ── tags ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_exiftool
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_the_originals_tags_arrive_without_what_is_no_longer_true(tmp_path: Path, kind: str) -> None:
    exif = exif_with(6)
    exif.get_ifd(0x8769)[0xA002] = 9999
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        b' tiff:Orientation="6" dc:source="an old negative"/></rdf:RDF></x:xmpmeta>'
    )
    if kind == "HEIF":
        data = heif(quadrants(), exif=exif.tobytes(), xmp=xmp)
    elif kind == "PNG":
        data = encoded(quadrants(), "PNG", exif=exif, xmp=xmp)
        if b"an old negative" not in data:
            text = b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + xmp
            chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))
            data = data[:33] + chunk + data[33:]
    elif kind == "TIFF":
        from PIL.TiffImagePlugin import ImageFileDirectory_v2

        tags = ImageFileDirectory_v2()
        tags[700] = xmp
        tags.tagtype[700] = 7
        for tag, value in exif.items():
            tags[tag] = value
        data = encoded(quadrants(), "TIFF", tiffinfo=tags)
    else:
        data = encoded(quadrants(), kind, exif=exif, xmp=xmp)
    out, _ = convert(tmp_path, data)
    said = exiftool(out)
    assert (said["IFD0:Make"], said["IFD0:Model"]) == ("Maker", "Model 7")
    assert said["IFD0:Orientation"] == 1
    assert said["XMP-dc:Source"] == "an old negative"
    assert "XMP-tiff:Orientation" not in said
    assert (said["ExifIFD:ExifImageWidth"], said["ExifIFD:ExifImageHeight"]) == (48, 64)
    assert not {"IFD0:StripOffsets", "IFD0:BitsPerSample", "IFD0:Compression", "IFD0:ImageWidth"} & set(said)
    assert "ExifTool:Warning" not in said


def test_colour_resolution_follows_quality_and_the_original(tmp_path: Path) -> None:
    def sampling(path: Path) -> int:
        data = path.read_bytes()
        frame = data.index(b"\xff\xc0")
        return data[frame + 11]

    png = encoded(quadrants(), "PNG")
    assert sampling(convert(tmp_path, png, quality=95)[0]) == 0x11
    assert sampling(convert(tmp_path, png, quality=80)[0]) == 0x22
    assert sampling(convert(tmp_path, heif(quadrants(), chroma=420), quality=95)[0]) == 0x22
    assert sampling(convert(tmp_path, heif(quadrants(), chroma=444), quality=95)[0]) == 0x11


def test_conversion_is_deterministic(tmp_path: Path) -> None:
    for data in (encoded(photo_like(), "PNG"), heif(photo_like())):
        out, first = convert(tmp_path, data)
        written = out.read_bytes()
        again, second = convert(tmp_path, data)
        assert (again.read_bytes(), second) == (written, first)


# ── what cannot be ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "HEIF"])
def test_truncated_pictures_fail_alone_with_a_reason(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = photo_like((160, 120))
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = heif(picture) if kind == "HEIF" else encoded(picture, kind, **options)
    source, out = tmp_path / "cut.bin", tmp_path / "out.jpg"
    for length in (5, 20, 100, len(data) // 3, len(data) // 2, len(data) * 3 // 4):
        source.write_bytes(data[:length])
        with pytest.raises(PhotoUnreadable) as caught:
            render(source, out, KNOWN)
        assert str(caught.value)
        assert not out.exists()
    assert capfd.readouterr() == ("", "")


def test_damaged_tiffs_say_nothing_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for compression in ("tiff_lzw", "jpeg", "tiff_adobe_deflate"):
        data = bytearray(encoded(photo_like((64, 48)), "TIFF", compression=compression))
        for at in range(20, min(len(data), 900), 40):
            source = tmp_path / "in.tif"
            source.write_bytes(data[:at] + b"\x5a\xa5\xff" + data[at + 3 :])
            with contextlib.suppress(PhotoUnreadable):
                render(source, tmp_path / "out.jpg", KNOWN)
    assert capfd.readouterr() == ("", "")


def test_more_pixels_than_the_limit_are_refused_with_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(encoded(Image.new("L", (2000, 1000)), "PNG"))
    with pytest.raises(PhotoUnreadable) as caught:
        render(tmp_path / "in.png", tmp_path / "out.jpg", options=RenderOptions(max_pixels=1_000_000))
    assert str(caught.value) == "2000 \N{MULTIPLICATION SIGN} 1000 pixels is more than the limit of 1 million"


def test_a_picture_wider_than_a_jpeg_can_be_is_refused_and_one_of_50000_is_not(tmp_path: Path) -> None:
    (tmp_path / "wide.png").write_bytes(encoded(Image.new("L", (70_000, 4), 200), "PNG"))
    with pytest.raises(PhotoUnreadable, match="a JPEG holds at most 65500"):
        render(tmp_path / "wide.png", tmp_path / "out.jpg")
    (tmp_path / "wide.png").write_bytes(encoded(Image.new("L", (50_000, 4), 200), "PNG"))
    assert render(tmp_path / "wide.png", tmp_path / "out.jpg").width == 50_000


def test_a_png_with_a_compressed_bomb_of_text_is_bounded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = zlib.compress(bytes(900 << 20), 9)
    plain = encoded(quadrants(), "PNG")
    for text in (b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + bomb, b"Raw profile type exif\x00\x00" + bomb):
        kind = b"iTXt" if text.startswith(b"XML") else b"zTXt"
        (tmp_path / "bomb.png").write_bytes(plain[:33] + chunk(kind, text) + plain[33:])
        said = under_a_memory_bound(tmp_path / "bomb.png", tmp_path / "out.jpg")
        assert said == "rendered" or "damaged" in said


def test_pictures_of_the_limit_are_not_taken_for_bombs(tmp_path: Path) -> None:
    # Pillow's own limit is an error from 179 million pixels on; ours is higher, and its warnings are errors here.
    (tmp_path / "big.png").write_bytes(encoded(Image.new("1", (20_000, 9_500)), "PNG"))
    assert render(tmp_path / "big.png", tmp_path / "out.jpg").height == 9_500
