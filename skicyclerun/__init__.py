"""Exports the albums of a photo library to folders of JPEGs, and never loses its place.

`PhotoExporter` is the way in for programs (docs/python-api.md); nothing is imported for it before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skicyclerun.photo_exporter import AsyncPhotoExporter, PhotoExporter

__version__ = "0.1.0"
__all__ = ["AsyncPhotoExporter", "PhotoExporter", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("AsyncPhotoExporter", "PhotoExporter"):
        from skicyclerun import photo_exporter

        return getattr(photo_exporter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
