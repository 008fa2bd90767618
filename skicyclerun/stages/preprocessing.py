"""The stage `preprocessing`: exported pictures scaled down for publishing. What becomes of which: images/scale.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from skicyclerun.errors import OriginalMissing, PhotoError
from skicyclerun.settings.section import StageSection
from skicyclerun.stages.stage import Made, Picture, Recipe, Stage, Surroundings

_EXTENSIONS: Final = {"webp": ".webp", "jpeg": ".jpg", "avif": ".avif"}
_PICTURES: Final = frozenset((".jpg", ".jpeg", ".heic", ".heif", ".png", ".tif", ".tiff", ".webp", ".avif", ".gif"))
#: Extensions of what no stage takes for a picture.
MOVIES: Final = frozenset((".mov", ".mp4", ".m4v", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".mkv", ".webm"))
_A_MOVIE: Final = "it is a movie, and only pictures are scaled"


class PreprocessingSettings(StageSection):
    """How pictures are made smaller."""

    max_dimension: int = Field(default=2048, ge=64, le=65_500)
    """Pixels of the longest side, at most. A smaller picture is never enlarged."""
    format: Literal["webp", "jpeg", "avif"] = "webp"
    quality: int = Field(default=90, ge=1, le=100)
    """As the format's encoder understands it: the same number is not the same look in all three."""
    metadata: Literal["keep", "strip_location", "strip"] = "keep"
    """`strip_location`: all but positions, names of places and maker notes. `strip`: none at all."""
    multiple_of: int = Field(default=8, ge=1, le=64)
    """Both sides are multiples of this, pixels; what is over is cut off the edges."""
    colour: Literal["srgb", "keep"] = "srgb"
    """`srgb`: colours are converted, and look right everywhere. `keep`: they stay, with their ICC profile."""
    max_pixels: int = Field(default=300_000_000, ge=1_000_000, le=10_000_000_000)
    """A picture with more is not decoded, and fails alone."""


class Preprocessing(Recipe):
    """Scales one picture."""

    needs_facts = False

    def __init__(self, section: PreprocessingSettings, surroundings: Surroundings) -> None:
        self._section = section
        self.extension = _EXTENSIONS[section.format]

    def check(self) -> None:
        """Raises StageError if the Pillow that is installed cannot write the format."""
        from skicyclerun.images.scale import check_encoder

        check_encoder(self._section.format)

    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        """What the person chose. Not Pillow's version: a newer encoder is no reason to make every picture again."""
        section = self._section
        return {
            "max_dimension": section.max_dimension,
            "format": section.format,
            "quality": section.quality,
            "metadata": section.metadata,
            "multiple_of": section.multiple_of,
            "colour": section.colour,
        }

    def left_out(self, picture: Picture) -> str:
        """A movie is, by its name, or by its content where the name does not tell."""
        suffix = picture.path.suffix.lower()
        if suffix in _PICTURES:
            return ""
        return _A_MOVIE if suffix in MOVIES or _holds_movie(picture.path) else ""

    def make(self, picture: Picture, staged: Path | None) -> Made:
        """Raises PhotoUnreadable, OriginalMissing, OSError."""
        from skicyclerun.images.scale import ScaleOptions, scale_picture

        if staged is None:
            raise TypeError("preprocessing makes files, and was given no name for one")
        section = self._section
        options = ScaleOptions(
            max_dimension=section.max_dimension,
            multiple_of=section.multiple_of,
            format=section.format,
            quality=section.quality,
            metadata=section.metadata,
            colour=section.colour,
            max_pixels=section.max_pixels,
        )
        try:
            scaled = scale_picture(picture.path, staged, options)
        except OriginalMissing as error:
            raise OriginalMissing("the exported file is no longer in its folder") from error
        return Made(width=scaled.width, height=scaled.height, note="; ".join(scaled.notes))


def _holds_movie(path: Path) -> bool:
    from skicyclerun.images.sniff import Content, sniff
    from skicyclerun.images.staging import open_original

    try:
        with open_original(path) as original:
            return sniff(original.stream) is Content.MOVIE
    except (PhotoError, OSError):
        return False  # `make` says what is wrong with it


STAGE: Final = Stage(
    name="preprocessing",
    summary="scales pictures down for publishing",
    needs_paths=("apple_photos_export", "preprocessed", "master_catalog", "state_db"),
    makes_paths=("preprocessed", "master_catalog", "state_db"),
    section="preprocessing",
    settings=PreprocessingSettings,
    recipe=Preprocessing,
    reads="export",
    output="preprocessed",
    entry_type="preprocessed",
)
