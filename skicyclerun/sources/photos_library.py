"""A `.photoslibrary` bundle as a source, without Photos.app and on any system.

What an album holds is what Photos shows in it: photos in the trash and hidden ones are not there, and of a burst the
key photo and those the person picked. Smart albums are not offered, as `apple_photos` does not offer them either.
docs/sources.md has the whole of it.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import anyio
import anyio.to_thread

from skicyclerun.errors import (
    LibraryError,
    OriginalMissing,
    PhotoError,
    PhotoGone,
    PhotoUnreadable,
    SkicyclerunError,
    SourceError,
    SourceStopped,
)
from skicyclerun.images.jpeg_segments import read_header
from skicyclerun.images.staging import open_original
from skicyclerun.models import (
    Album,
    Component,
    Face,
    Fetched,
    LibraryMetadata,
    Photo,
    PhotoFacts,
    Place,
    Rendering,
    SourceKind,
)
from skicyclerun.sources.photos_asset import AlbumUnreadable, Asset, PhotosDatabase, metadata_of
from skicyclerun.sources.photos_database import LibraryLoader

Missing = Literal["fail", "skip", "preview"]

log = logging.getLogger(__name__)

_NO_ORIGINAL: Final = "has no original here (iCloud)"
_NO_REFERRED: Final = "has no original here (the library refers to a file outside it, which is not there)"
_MOVIE_SUFFIXES: Final = frozenset({".mov", ".mp4", ".m4v"})
_PICTURE_SUFFIXES: Final = (".jpeg", ".heic", ".jpg", ".png", ".tiff", ".tif")
_SLOW_MOTION: Final = 3
"""ZADJUSTMENTSSTATE of a slow-motion video: its speed ramp is an edit that Photos plays and never renders."""


@dataclass(frozen=True, slots=True)
class _Opened:
    database: PhotosDatabase
    root: str
    """The library without symbolic links."""
    albums: tuple[Album, ...]
    members: dict[str, tuple[str, ...]]
    """Photo uuids by album, in album order."""


class PhotosLibrary:
    """One Photos library. `missing` says what `fetch` does for an original that is only in iCloud.

    `fail` and `skip` raise OriginalMissing (the exporter counts them differently); `preview` gives the largest
    rendering that the library holds, if there is one.
    """

    kind = SourceKind.PHOTOS_LIBRARY
    parallel = True
    cannot_tell: Mapping[str, str] = MappingProxyType({})

    def __init__(self, path: Path, *, missing: Missing = "fail") -> None:
        self._path = Path(os.path.abspath(path))
        self._missing = missing
        self._opened: _Opened | None = None
        self._finding = threading.Lock()

    @property
    def location(self) -> str:
        return str(self._path)

    async def open(self) -> None:
        """Look at the library's database, in a worker thread. Raises LibraryError."""
        if self._opened is not None:
            return
        loader = LibraryLoader(self._path, partial(_look, self._path))
        try:
            self._opened = await anyio.to_thread.run_sync(loader.run, abandon_on_cancel=True)
        except BaseException:
            loader.abandon()
            raise

    async def albums(self) -> list[Album]:
        """The person's own in the order of Photos' sidebar, folders and albums together, then shared ones, projects."""
        return list(self._open().albums)

    async def photos(self, album_id: str) -> list[Photo]:
        opened = self._open()
        if album_id not in opened.members:
            raise SourceError(f"The library {self._path} has no album {album_id} any more.")
        return await anyio.to_thread.run_sync(self._photos, opened, opened.members[album_id])

    async def facts(self, wanted: Callable[[PhotoFacts], bool] | None = None) -> list[PhotoFacts]:
        return await anyio.to_thread.run_sync(_facts, self._open(), wanted or _any)

    async def photos_of(self, ids: Sequence[str]) -> list[Photo]:
        return await anyio.to_thread.run_sync(self._photos, self._open(), ids)

    async def places(self, ids: Iterable[str]) -> dict[str, Place]:
        return await anyio.to_thread.run_sync(self._open().database.places, ids)

    async def faces(self, photo_id: str) -> tuple[Face, ...]:
        return await anyio.to_thread.run_sync(self._open().database.faces, photo_id)

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        """The path of the current version inside the library; nothing is copied, `attempt_directory` is not made."""
        return await anyio.to_thread.run_sync(self.locate, photo)

    def locate(self, photo: Photo) -> Fetched:
        """`fetch`, for a caller that is in a thread already."""
        return self._fetch(self._open(), photo)

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(opened.database.close)

    def _open(self) -> _Opened:
        if self._opened is None:
            raise SourceError(f"The library {self._path} is not open.")
        return self._opened

    # ── in worker threads ─────────────────────────────────────────────────────────────────────────────────────────

    def _photos(self, opened: _Opened, uuids: Sequence[str]) -> list[Photo]:
        listed = opened.database.listing(uuids)
        previews = self._missing == "preview"
        elsewhere = self._other_extensions(
            opened, [each.uuid for each in listed if each.is_edited or (each.is_missing and previews)]
        )
        photos: list[Photo] = []
        for uuid, name, fingerprint, is_movie, is_live, *_ in listed:
            main = Component.VIDEO if is_movie else Component.STILL
            photos.append(Photo(uuid, name, main, fingerprint, elsewhere.get(uuid, "")))
            if is_live and not is_movie:
                movie = f"{os.path.splitext(name)[0]}.mov"
                photos.append(Photo(uuid, movie, Component.LIVE_MOVIE, fingerprint))
        return photos

    def _other_extensions(self, opened: _Opened, uuids: Sequence[str]) -> dict[str, str]:
        """By uuid the extension of an edit or a preview; none where the original is handed over, or nothing is."""
        found: dict[str, str] = {}
        for item in opened.database.items(uuids):
            asset = item.asset
            photo = Photo(asset.uuid, asset.original_filename, Component.VIDEO if asset.ismovie else Component.STILL)
            try:
                path, rendering, _ = self._find(opened, photo, asset)
            except Exception as error:  # `fetch` says what is wrong, for this photo alone
                log.debug("%s: no current version: %s: %s", photo.id, type(error).__name__, error)
                continue
            if rendering is not Rendering.ORIGINAL:
                found[photo.id] = os.path.splitext(path)[1].lower()
        return found

    def _fetch(self, opened: _Opened, photo: Photo) -> Fetched:
        try:
            items = opened.database.items((photo.id,))
        except LibraryError as error:  # the whole database, not this photo
            self._check_is_there(opened)
            raise SourceStopped(str(error), next_step=error.next_step) from error
        if not items or items[0].asset.intrash:
            raise PhotoGone(f"{photo.original_filename} is no longer in the library")
        item, asset = items[0], items[0].asset
        try:
            path, rendering, note = self._find(opened, photo, asset)
            _check_readable(photo, asset, path, opened.root)
            metadata = metadata_of(item)
            still = photo.component is Component.STILL
            return Fetched(Path(path), rendering, _in_detail(opened.database, photo.id, metadata, still=still), note)
        except SkicyclerunError:
            raise
        except Exception as error:
            # osxphotos has no common base for what it raises over rows it does not expect.
            raise PhotoUnreadable(
                f"what the library says about {photo.original_filename} cannot be understood"
                f" ({type(error).__name__}: {error})"
            ) from error

    def _check_is_there(self, opened: _Opened) -> None:
        if not os.path.isdir(opened.root):
            raise SourceStopped(f"The library {self._path} is no longer there.")

    def _find(self, opened: _Opened, photo: Photo, asset: Asset) -> tuple[str, Rendering, str]:
        """Path, rendering and note of what is handed over. Raises OriginalMissing or SourceStopped."""
        # osxphotos works a path out when it is first asked for, and says None to whoever asks meanwhile: a picture and
        # its sidecar, which come at the same time.
        with self._finding:
            return self._found(opened, photo, asset)

    def _found(self, opened: _Opened, photo: Photo, asset: Asset) -> tuple[str, Rendering, str]:
        if photo.component is Component.LIVE_MOVIE:
            path, rendering, absent = _live_movie(asset)
        elif photo.component is Component.ORIGINAL:
            path, rendering = asset.path, Rendering.ORIGINAL
            absent = _NO_REFERRED if asset.isreference else _NO_ORIGINAL
        else:
            path, rendering, absent = _current_version(asset, opened.root)
        note = ""
        if path is None and self._missing == "preview" and photo.component is not Component.ORIGINAL:
            is_movie = photo.component is Component.LIVE_MOVIE or asset.ismovie
            path, note = _largest_rendering(asset, is_movie)
            rendering = Rendering.PREVIEW
        if path is None:
            self._check_is_there(opened)
            raise OriginalMissing(f"{photo.original_filename} {absent}")
        return path, rendering, note


def _look(library: Path, database: PhotosDatabase) -> _Opened:
    try:
        records = database.albums()
    except AlbumUnreadable as error:
        raise LibraryError(
            library,
            f"its album {error.title!r} cannot be understood ({type(error.cause).__name__}: {error.cause})",
            next_step="A newer osxphotos may know it: `pip install --upgrade osxphotos`.",
        ) from error
    albums = tuple(
        Album(record.id, record.title, record.folders, len(record.uuids), record.size, record.kind)
        for record in records
    )
    members = {record.id: record.uuids for record in records}
    return _Opened(database, os.path.realpath(library), albums, members)


def _any(_facts: PhotoFacts) -> bool:
    return True


def _facts(opened: _Opened, wanted: Callable[[PhotoFacts], bool]) -> list[PhotoFacts]:
    albums: dict[str, list[str]] = {}
    for album in opened.albums:
        for uuid in opened.members[album.id]:
            albums.setdefault(uuid, []).append(album.id)
    return opened.database.facts(albums, wanted)


def _in_detail(database: PhotosDatabase, uuid: str, metadata: LibraryMetadata, *, still: bool) -> LibraryMetadata:
    """With what is asked for a photo at a time, since a listing of many has no use for it."""
    try:
        faces = database.faces(uuid) if still and metadata.persons else ()
        place = database.places((uuid,)).get(uuid) if metadata.location else None
        labels = database.labels(uuid)
    except SkicyclerunError:
        raise
    except Exception as error:  # the photo itself is none the worse
        log.debug("%s: neither faces, place nor labels: %s: %s", uuid, type(error).__name__, error)
        return metadata
    return replace(metadata, faces=faces, place=place, labels=labels)


def _check_readable(photo: Photo, asset: Asset, path: str, root: str) -> None:
    """A library is somebody else's data: it must not lead us to a file outside it, or to a pipe."""
    real = os.path.realpath(path)
    # Photos may refer to files that were never copied into the library; those lie where the person left them.
    if not asset.isreference and os.path.commonpath((real, root)) != root:
        raise PhotoUnreadable(f"{photo.original_filename}: its file leads out of the library ({path})")
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise OriginalMissing(f"{photo.original_filename} {_NO_ORIGINAL}") from None
    except OSError as error:
        raise PhotoUnreadable(f"{photo.original_filename} cannot be read ({error.strerror})") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PhotoUnreadable(f"{photo.original_filename} is not a regular file")
    finally:
        os.close(descriptor)


def _current_version(asset: Asset, root: str) -> tuple[str | None, Rendering, str]:
    """Path, rendering and, without a path, what is absent: the edit if there is one, otherwise the original."""
    absent = _NO_REFERRED if asset.isreference else _NO_ORIGINAL
    if not asset.hasadjustments:
        return asset.path, Rendering.ORIGINAL, absent
    if edited := asset.path_edited or _find_render(asset, root):
        return edited, Rendering.EDITED, ""
    if asset.ismovie and (asset.slow_mo or asset.adjustment_type == _SLOW_MOTION):
        return asset.path, Rendering.ORIGINAL, absent
    # The original would not be what the person sees in Photos.
    return None, Rendering.EDITED, "has no edited version here (iCloud)"


def _find_render(asset: Asset, root: str) -> str | None:
    """An edit under another extension than osxphotos expects from the type in the database."""
    stem, suffixes = ("_2_0_a", (".mov", ".mp4")) if asset.ismovie else ("_1_201_a", _PICTURE_SUFFIXES)
    for suffix in suffixes:
        path = os.path.join(root, "resources", "renders", asset.uuid[:1], f"{asset.uuid}{stem}{suffix}")
        if os.path.isfile(path):
            return path
    return None


def _live_movie(asset: Asset) -> tuple[str | None, Rendering, str]:
    if asset.hasadjustments and (edited := asset.path_edited_live_photo):
        return str(edited), Rendering.EDITED, ""
    path = asset.path_live_photo
    return str(path) if path else None, Rendering.ORIGINAL, "has no Live Photo movie here (iCloud)"


def _largest_rendering(asset: Asset, movie: bool) -> tuple[str | None, str]:
    """The largest rendering that the library holds, and its note; (None, "") if there is none.

    The names end in the version they show: `_o` the original, `_a` the adjusted one, `_c` the current one.
    """
    candidates: list[tuple[int, int, str, str]] = []
    for path in asset.path_derivatives:
        stem, suffix = os.path.splitext(path)
        if (suffix.lower() in _MOVIE_SUFFIXES) is not movie or (asset.hasadjustments and stem.endswith("_o")):
            continue
        try:
            size = os.path.getsize(path)
            width, height = (0, 0) if movie else jpeg_size(path)
        except OSError:
            continue
        note = f"preview {width}\N{MULTIPLICATION SIGN}{height}" if width else "preview"
        candidates.append((width * height, size, str(path), note))
    if not candidates:
        return None, ""
    _, _, path, note = max(candidates)
    return path, note


def jpeg_size(path: str) -> tuple[int, int]:
    """Width and height in pixels as stored, from a JPEG's frame header; (0, 0) if it has none."""
    try:
        with open_original(Path(path)) as original:
            frame = read_header(original).frame
    except PhotoError:
        return 0, 0
    return frame.width, frame.height
