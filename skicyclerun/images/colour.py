"""Modes and profiles: any picture Pillow can hold, as RGB or grey with a profile that is true of it."""

from __future__ import annotations

import io
import math
from typing import Final

from PIL import Image, ImageCms

_WHITE: Final = 255
_SIXTEEN_TO_EIGHT: Final = [round(value * 255 / 65535) for value in range(65536)]
# ICC.1:2010 7.2.6, the profile's colour space, by the modes it can be attached to.
_SPACES: Final = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}


def for_jpeg(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """The picture as RGB or L, with the profile if it fits that mode.

    Transparency is laid on white. 16 bits are scaled, not clipped. CMYK and Lab go to sRGB through their profile; a
    profile that does not fit the pixels is dropped, as every reader would have to ignore it.
    """
    space = _space_of(profile)
    if image.mode in ("CMYK", "LAB"):
        return _through_profile(image, profile if space == image.mode else None), None
    image = _eight_bits(image)
    if image.has_transparency_data:
        image = _on_white(image)
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    elif image.mode != "RGB":
        image = _as_grey_or_rgb(image)
    return image, profile if space == image.mode else None


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


def _on_white(image: Image.Image) -> Image.Image:
    """Over a white ground; grey stays grey."""
    if image.mode in ("RGBa", "La"):
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    grey = image.mode in ("1", "L", "LA")
    if image.mode not in ("RGBA", "LA"):
        image = image.convert("LA" if grey else "RGBA")
    alpha = image.getchannel("A")
    opaque = image.convert("L" if grey else "RGB")
    if alpha.getextrema() == (255, 255):
        return opaque
    ground = Image.new(opaque.mode, image.size, _WHITE if grey else (_WHITE, _WHITE, _WHITE))
    ground.paste(opaque, mask=alpha)
    return ground


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
