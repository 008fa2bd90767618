"""The export settings that decide which files come out and what bytes they have.

They are fixed when a run is created and kept in its row: a resumed run uses them, whatever the configuration says by
then, so that it ends with the same names and the same bytes as a run never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Any, Literal

from skicyclerun.models import Component, Photo


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """See docs/configuration.md, section `export`, for each."""

    format: Literal["jpeg", "original"] = "jpeg"
    jpeg_quality: int = 95
    missing: Literal["fail", "skip", "preview"] = "fail"
    live_photos: bool = False
    person_keywords: bool = False
    videos: bool = True
    max_pixels: int = 300_000_000
    removed_files: Literal["export_again", "leave_out"] = "export_again"

    @classmethod
    def from_row(cls, options: Mapping[str, Any]) -> ExportOptions:
        """From the JSON of a run's row; what an older version did not know has its default."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in options.items() if key in known})

    def to_row(self) -> dict[str, Any]:
        """For the run's row."""
        return asdict(self)

    def extension_of(self, photo: Photo) -> str:
        """The extension of the exported file, with its dot, lower case."""
        if photo.component is Component.STILL and self.format == "jpeg":
            return ".jpg"
        return (
            photo.extension
            or PurePath(photo.original_filename).suffix.lower()
            or (".jpg" if photo.component is Component.STILL else ".mov")
        )

    def same_bytes_as(self, earlier: Mapping[str, Any]) -> bool:
        """Whether a run with the options `earlier` (of its row) would have made the same bytes of the same photo."""
        before = ExportOptions.from_row(earlier)
        return (self.format, self.jpeg_quality, self.missing, self.person_keywords) == (
            before.format,
            before.jpeg_quality,
            before.missing,
            before.person_keywords,
        )

    def wants(self, photo: Photo) -> bool:
        """False for components that are not part of the export at all (the movies of Live Photos, unless asked for)."""
        return photo.component is not Component.LIVE_MOVIE or self.live_photos

    def left_out(self, photo: Photo) -> str:
        """Why a setting leaves this photo out, empty if none does."""
        if photo.component is Component.VIDEO and not self.videos:
            return "videos are left out (export.videos is false)"
        return ""
