"""Modes and profiles: any picture Pillow can hold, as RGB or grey with a profile that is true of it."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Final

from PIL import Image, ImageChops, ImageCms

_WHITE: Final = 255
_SIXTEEN_TO_EIGHT: Final = [round(value * 255 / 65535) for value in range(65536)]
# ICC.1:2010 7.2.6, the profile's colour space, by the modes it can be attached to.
_SPACES: Final = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}


def for_jpeg(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """The picture as RGB or L, with the profile if it fits that mode.

    Transparency is laid on white. 16 bits are scaled, not clipped. CMYK and Lab go to sRGB through their profile; a
    profile that does not fit the pixels is dropped, as every reader would have to ignore it.
    """
    plain, profile = in_eight_bits(image, profile)
    return on_white(plain), profile


def in_eight_bits(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """As `for_jpeg`, but with its transparency: RGB or L, RGBA or LA where not all of it is opaque."""
    if image.mode in ("CMYK", "LAB"):
        return _through_profile(image, fitting(profile, image.mode)), None
    image = _eight_bits(image)
    if image.has_transparency_data:
        image = _with_alpha(image)
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    elif image.mode != "RGB":
        image = _as_grey_or_rgb(image)
    return image, fitting(profile, image.mode.removesuffix("A"))


def fitting(profile: bytes | None, mode: str) -> bytes | None:
    """The profile, if a picture of this mode (RGB, L, CMYK, LAB) can have it."""
    return profile if _space_of(profile) == mode else None


def on_white(image: Image.Image) -> Image.Image:
    """RGBA and LA over a white ground, as RGB and L; the others as they are."""
    if image.mode not in ("RGBA", "LA"):
        return image
    opaque = image.convert(image.mode.removesuffix("A"))
    ground = Image.new(opaque.mode, image.size, _WHITE if opaque.mode == "L" else (_WHITE, _WHITE, _WHITE))
    ground.paste(opaque, mask=image.getchannel("A"))
    return ground


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB, RGBA, L or LA in sRGB, to be shown right without a profile; `profile` fits the mode.

    Colours beyond sRGB go to its edge. A profile that says sRGB already (within one of 255) changes nothing, and so
    does one that littlecms cannot use.
    """
    colours = image.mode.removesuffix("A")
    transform = _transform_to_srgb(profile, colours) if profile else None
    if transform is None:
        return image
    opaque = image if image.mode == colours else image.convert(colours)
    # A grey profile comes out as equal red, green and blue.
    converted = transform.apply(opaque).convert(colours)
    if image.mode != colours:
        converted.putalpha(image.getchannel("A"))
    return converted


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where there is nothing to convert. One serves all threads: littlecms keeps nothing in it between calls."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        sample = _samples(mode)
        change = ImageChops.difference(sample.convert("RGB"), transform.apply(sample)).getextrema()
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    most = max(high for _, high in change if isinstance(high, int))  # type: ignore[misc]  # three pairs, of RGB
    return transform if most > 1 else None


def _samples(mode: str) -> Image.Image:
    """Every grey, or 4,096 colours evenly over the cube."""
    if mode == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    steps = range(0, 256, 17)
    return Image.frombytes("RGB", (64, 64), bytes(v for r in steps for g in steps for b in steps for v in (r, g, b)))


def _space_of(profile: bytes | None) -> str | None:
    if not profile or len(profile) < 132 or profile[36:40] != b"acsp":
        return None
    return _SPACES.get(profile[16:20])


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return image.convert("I").point(_SIXTEEN_TO_EIGHT, "L")
    if image.mode == "I":
        darkest, lightest = _range_of(image)
        if darkest >= 0 and lightest <= 65535:
            return image.point(_SIXTEEN_TO_EIGHT, "L")
        return _stretched(image.convert("F"), darkest, lightest)
    if image.mode == "F":
        darkest, lightest = _range_of(image)
        if darkest >= 0 and lightest <= 1:
            return _stretched(image, 0, 1)
        if darkest >= 0 and lightest <= 255:
            return image.convert("L")
        return _stretched(image, darkest, lightest)
    return image


def _range_of(image: Image.Image) -> tuple[float, float]:
    low, high = image.getextrema()
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return 0, 0
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (0, 0)


def _stretched(image: Image.Image, darkest: float, lightest: float) -> Image.Image:
    """Floating point to eight bits, this range to black and white."""
    scale = 255 / (lightest - darkest) if lightest > darkest else 0.0
    return image.point(lambda value: value * scale + (0.5 - darkest * scale)).convert("L")


def _with_alpha(image: Image.Image) -> Image.Image:
    """Whatever says what is transparent as an alpha channel; grey stays grey, and what is opaque has none."""
    if image.mode in ("RGBa", "La"):
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    grey = image.mode in ("1", "L", "LA")
    if image.mode not in ("RGBA", "LA"):
        image = image.convert("LA" if grey else "RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("L" if grey else "RGB")
    return image


def _as_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P" and image.palette is not None and image.palette.mode == "L":
        return image.convert("L")
    return image.convert("RGB")


def _through_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """To sRGB: by the profile, or where there is none by what Pillow takes for the usual meaning."""
    try:
        if profile is not None:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        elif image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB")
    return converted if converted is not None else image.convert("RGB")
