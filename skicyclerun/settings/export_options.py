"""The export settings that decide which files come out and what bytes they have.

They are fixed when a run is created and kept in its row: a resumed run uses them, whatever the configuration says by
then, so that it ends with the same names and the same bytes as a run never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import PurePath
from typing import Any, Final, Literal

from skicyclerun.models import Component, Photo

_STILL: Final = Component.STILL  # looking a member up is a call (Python 3.11), and these are asked of every photo
_LIVE_MOVIE: Final = Component.LIVE_MOVIE
_JPEG_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe"})


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
    sidecar: Literal["none", "xmp", "json"] = "none"
    keep_original: bool = False
    strip_location: bool = False
    max_size: int = 0
    duplicates: Literal["copy", "hardlink", "clone"] = "copy"

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
        if photo.component is _STILL and self.format == "jpeg":
            return ".jpg"
        if photo.component is Component.ORIGINAL:
            return PurePath(photo.original_filename).suffix.lower()
        return (
            photo.extension
            or PurePath(photo.original_filename).suffix.lower()
            or (".jpg" if photo.component is Component.STILL else ".mov")
        )

    def same_bytes_as(self, earlier: Mapping[str, Any], component: Component = Component.STILL) -> bool:
        """Whether a run with the options `earlier` (of its row) would have made the same bytes of the same photo.

        It is asked of photos that were exported. Under `missing: fail` and `skip` those came from their originals, as
        they would now, whatever `missing` is; under `preview` nobody knows.
        """
        before = ExportOptions.from_row(earlier)
        if before.missing != "preview":
            before = replace(before, missing=self.missing)
        return self._decide(component) == before._decide(component)

    def _decide(self, component: Component) -> tuple[object, ...]:
        """What decides the bytes of a component. `duplicates` says how they get there, not what they are."""
        if component is Component.ORIGINAL:
            return ()
        if component is Component.SIDECAR:
            return (self.sidecar, self.missing, self.strip_location, self.person_keywords)
        decides: tuple[object, ...] = (self.format, self.jpeg_quality, self.missing, self.person_keywords)
        if component is Component.STILL:
            decides += (self.strip_location, self.max_size)
        return decides

    def wants(self, photo: Photo) -> bool:
        """False for components that are not part of the export at all (the movies of Live Photos, unless asked for)."""
        return self.live_photos or photo.component is not _LIVE_MOVIE

    def left_out(self, photo: Photo) -> str:
        """Why a setting leaves this photo out, empty if none does."""
        if photo.component is _STILL:
            return ""
        if photo.component is Component.VIDEO and not self.videos:
            return "videos are left out (export.videos is false)"
        if photo.component in (Component.VIDEO, Component.LIVE_MOVIE) and self.strip_location:
            return "a movie is copied with the position in it, and is left out (export.strip_location is true)"
        return ""

    def companions_of(self, photo: Photo) -> list[Photo]:
        """What lies beside this photo's file: its sidecar, and its original where the file is not that already.

        A JPEG whose picture is passed on untouched has no original beside it: it is the same picture with the
        library's words in its header.
        """
        if self.sidecar == "none" and not self.keep_original:
            return []
        if photo.component is _LIVE_MOVIE or self.left_out(photo):
            return []
        found = []
        if self.sidecar != "none":
            found.append(replace(photo, component=Component.SIDECAR, extension=f".{self.sidecar}"))
        suffix = PurePath(photo.original_filename).suffix.lower()
        is_other_picture = photo.component is Component.STILL and self.format == "jpeg"
        if self.keep_original and (
            photo.extension or (is_other_picture and (suffix not in _JPEG_SUFFIXES or self.max_size))
        ):
            found.append(replace(photo, component=Component.ORIGINAL, extension=""))
        return found
