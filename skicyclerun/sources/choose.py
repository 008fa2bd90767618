"""Which source a setting and a path mean. A source is imported when it is made."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from skicyclerun.errors import UsageError
from skicyclerun.models import SourceKind
from skicyclerun.sources.base import Source
from skicyclerun.sources.photos_bundle import DATABASE_NAMES

AUTO: Final = "auto"
SOURCE_NAMES: Final = (AUTO, *(kind.value for kind in SourceKind))

_LIBRARY_SUFFIXES: Final = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")
_NAME_ONE: Final = (
    "Name one: `--library PATH`, or `export.library` in the configuration. PATH is a .photoslibrary, or a folder that "
    "holds a folder of photos for each album."
)


def choose_kind(name: str, library: Path | None, *, platform: str = sys.platform) -> SourceKind:
    """The source that `export.source` = `name` means for this library on this system.

    `auto` is `apple_photos` on macOS when no library is named, otherwise what the path is. A path that is not there
    is judged by its name; opening the source then says so. Raises UsageError.
    """
    if name not in SOURCE_NAMES:
        near = difflib.get_close_matches(name, SOURCE_NAMES, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{name!r} is no source; the sources are {', '.join(SOURCE_NAMES)}.{hint}")
    if name == AUTO:
        if library is not None:
            return SourceKind.PHOTOS_LIBRARY if looks_like_photos_library(library) else SourceKind.FOLDER
        if platform == "darwin":
            return SourceKind.APPLE_PHOTOS
        raise UsageError("No photo library is named, and Photos.app is only on macOS.", next_step=_NAME_ONE)
    kind = SourceKind(name)
    if kind is SourceKind.APPLE_PHOTOS and library is not None:
        raise UsageError(
            f"apple_photos exports from the library that Photos has open, it cannot be given one ({library}).",
            next_step="Leave --library out, or read the library without Photos: `--source photos_library`.",
        )
    if kind is not SourceKind.APPLE_PHOTOS and library is None:
        raise UsageError(f"The source {kind} needs a library.", next_step=_NAME_ONE)
    return kind


def looks_like_photos_library(path: Path) -> bool:
    """A folder with database/Photos.sqlite (or photos.db), a path that is named as a library, or a file inside one."""
    if path.name.casefold().endswith(_LIBRARY_SUFFIXES) or path.name in DATABASE_NAMES:
        return True
    return any(os.path.isfile(path / "database" / name) for name in DATABASE_NAMES)


def make_source(
    name: str,
    library: Path | None,
    *,
    missing: Literal["fail", "skip", "preview"] = "fail",
    platform: str = sys.platform,
    make_apple_photos: Callable[[], Source] | None = None,
) -> Source:
    """The source for `export.source` = `name`, not opened yet; `~` in the path is resolved. Raises UsageError.

    `missing` is `export.missing`; `make_apple_photos` makes the source that talks to Photos.app.
    """
    if library is not None:
        try:
            library = library.expanduser()
        except RuntimeError as error:
            raise UsageError(f"{library}: {error}") from error
    kind = choose_kind(name, library, platform=platform)
    if kind is SourceKind.APPLE_PHOTOS:
        if make_apple_photos is None:
            raise UsageError("Photos.app cannot be used here.", next_step=_NAME_ONE)
        return make_apple_photos()
    assert library is not None  # choose_kind has seen to it
    if kind is SourceKind.PHOTOS_LIBRARY:
        from skicyclerun.sources.photos_library import PhotosLibrary

        return PhotosLibrary(library, missing=missing)
    from skicyclerun.sources.folder_tree import FolderTree

    return FolderTree(library)
