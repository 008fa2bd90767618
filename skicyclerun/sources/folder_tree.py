"""A plain tree of folders as a source: every folder that holds photos is an album.

- `ROOT/Alps/IMG_1.jpg` is in the album "Alps"; `ROOT/2024/Alps/…` in the album "Alps" of the folder "2024".
- Photos directly in ROOT are an album too, named as ROOT. A folder without photos and without folders is an empty one.
- A `:` in a folder's name is shown as `/`: macOS stores the `/` of a name in Finder that way
  (https://developer.apple.com/library/archive/qa/qa1392/).
- Symbolic links are not followed, neither to files nor to folders. docs/sources.md says what else is left out.

An id is the path below ROOT with `/` between the names, `%` written as `%25` and a byte that is not UTF-8 as `%XX`,
so that it is valid text and leads back to exactly the same file.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_to_bytes

import anyio
import anyio.to_thread

from skicyclerun.errors import LibraryError, PhotoError, PhotoGone, PhotoUnreadable, SourceError, SourceStopped
from skicyclerun.files.beneath import Beneath
from skicyclerun.files.naming import RAW_SUFFIXES
from skicyclerun.images.movies import boxes
from skicyclerun.images.staging import open_original
from skicyclerun.models import (
    Album,
    Component,
    Face,
    Fetched,
    MediaKind,
    Photo,
    PhotoFacts,
    Place,
    SourceKind,
)
from skicyclerun.sources.photo_groups import is_group

log = logging.getLogger(__name__)

_CAMERA_STILLS: Final = frozenset(".jpg .jpeg .jpe .heic .heif .hif".split())
"""What a camera or telephone writes beside a RAW file or a Live Photo's movie."""
_OTHER_STILLS: Final = frozenset(".png .tif .tiff .gif .webp .avif .bmp".split())
_RAW: Final = RAW_SUFFIXES
_MOVIES: Final = frozenset(".mov .mp4 .m4v .avi".split())

_LEFT_OUT_FOLDERS: Final = frozenset(
    name.casefold()
    for name in ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found")
)
_LIBRARY_SUFFIXES: Final = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary", ".lrdata")
_ROOT_ID: Final = "."
_LIVE_PHOTO_KEY: Final = b"com.apple.quicktime.content.identifier"
"""The metadata key that ties a movie to its still (Apple, PHAssetResource; present in every Live Photo's movie)."""


@dataclass(slots=True)
class _Contents:
    """What one folder holds, already in natural order."""

    folders: list[str] = field(default_factory=list)
    photos: list[tuple[str, Component]] = field(default_factory=list)
    size: int = 0
    """Bytes of the media files, those left out included."""

    @property
    def count(self) -> int:
        """Media items: a Live Photo is one."""
        return sum(component is not Component.LIVE_MOVIE for _, component in self.photos)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a file says of itself, as long as its fingerprint stays the same."""

    fingerprint: str
    facts: PhotoFacts
    place: Place | None = None


class FolderTree:
    """The folders below `root`. Nothing is ever written there."""

    kind = SourceKind.FOLDER
    parallel = True
    cannot_tell: Mapping[str, str] = MappingProxyType(
        {
            "favorite": "a folder of albums has no favourites. `--keyword` goes by the keywords in the files.",
            "hidden": "a folder of albums has no hidden photos.",
            "screenshot": "the files of a folder do not say which are screenshots. `--min-size`, or `skicyclerun "
            "leave-out`, may serve.",
        }
    )

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))
        self._known: dict[str, _Known] = {}
        """What files said of themselves, by id."""

    @property
    def location(self) -> str:
        return str(self._root)

    async def open(self) -> None:
        """Check that the folder is there and can be listed. Raises LibraryError."""
        await anyio.to_thread.run_sync(self._check_root)

    async def albums(self) -> list[Album]:
        """Albums in natural order of their names, each followed by the albums in the folders inside it."""
        return await anyio.to_thread.run_sync(self._list_albums, abandon_on_cancel=True)

    async def photos(self, album_id: str) -> list[Photo]:
        """The album's photos in natural order of their names (IMG_2 before IMG_10)."""
        return await anyio.to_thread.run_sync(self._list_photos, album_id, abandon_on_cancel=True)

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        """The photo's own path; nothing is copied, `attempt_directory` is not made."""
        return await anyio.to_thread.run_sync(self._fetch, photo)

    async def facts(self, wanted: Callable[[PhotoFacts], bool] | None = None) -> list[PhotoFacts]:
        """From the files' headers, each read once as long as it stays as it is. Each file is in one album."""
        albums = await self.albums()
        photos = await anyio.to_thread.run_sync(self._list_everything, albums, abandon_on_cancel=True)
        new = [each for each in photos if self._known.get(each.facts.id, _UNREAD).fingerprint != each.fingerprint]
        limiter = anyio.CapacityLimiter(os.cpu_count() or 1)
        async with anyio.create_task_group() as reading:
            for start in range(0, len(new), _HEADERS_AT_ONCE):
                read = partial(self._read_headers, new[start : start + _HEADERS_AT_ONCE])
                reading.start_soon(partial(anyio.to_thread.run_sync, read, limiter=limiter, abandon_on_cancel=True))

        def chosen() -> list[PhotoFacts]:
            known = (self._known[each.facts.id].facts for each in photos)
            return sorted((facts for facts in known if wanted is None or wanted(facts)), key=_by_date)

        return await anyio.to_thread.run_sync(chosen)

    async def photos_of(self, ids: Sequence[str]) -> list[Photo]:
        return await anyio.to_thread.run_sync(self._photos_of, ids, abandon_on_cancel=True)

    async def places(self, ids: Iterable[str]) -> dict[str, Place]:
        """What programs have written into the files that `facts` has read; no position is looked up."""
        return {
            photo_id: known.place
            for photo_id in ids
            if (known := self._known.get(photo_id)) and known.place is not None
        }

    async def faces(self, photo_id: str) -> tuple[Face, ...]:
        """None: what the files say of faces stays in them."""
        return ()

    def locate(self, photo: Photo) -> Fetched:
        """`fetch`, for a caller that is in a thread already."""
        return self._fetch(photo)

    def read_ahead(self, photos: Sequence[Photo]) -> None:
        """Nothing: a file is all there is."""

    async def close(self) -> None:
        """Nothing is held open."""
        self._known.clear()

    # ── in worker threads ─────────────────────────────────────────────────────────────────────────────────────────

    def _check_root(self) -> None:
        if self._root.name.casefold().endswith(_LIBRARY_SUFFIXES):
            raise LibraryError(
                self._root,
                "that is a photo library, and its inside is not meant to be read as folders",
                next_step="Leave --source out, or say --source photos_library.",
            )
        try:
            with os.scandir(self._root):
                pass
        except FileNotFoundError:
            next_step = "Check --library, or `export.library` in the configuration."
            raise LibraryError(self._root, "there is no such folder", next_step=next_step) from None
        except NotADirectoryError:
            next_step = "Name the folder that holds the albums."
            raise LibraryError(self._root, "that is a file, not a folder", next_step=next_step) from None
        except OSError as error:
            raise self._unreadable(self._root, error) from error

    def _list_albums(self) -> list[Album]:
        self._check_root()
        albums: list[Album] = []
        # Depth first without recursion: names may be nested deeper than Python's stack.
        waiting: list[tuple[str, ...]] = [()]
        while waiting:
            names = waiting.pop()
            try:
                contents = self._scan(names)
            except FileNotFoundError:
                continue  # removed while we were walking
            except OSError as error:
                # Listed, so that it is not passed over in silence: `photos` then says what is wrong with it.
                log.warning("%s cannot be read: %s", self._root.joinpath(*names), error.strerror)
                contents = _Contents()
            if contents.photos or (names and not contents.folders):
                albums.append(self._album(names, contents.count, contents.size))
            waiting.extend((*names, name) for name in reversed(contents.folders))
        return albums

    def _album(self, names: tuple[str, ...], count: int, size: int) -> Album:
        if not names:
            return Album(_ROOT_ID, _title(self._root.name or str(self._root)), (), count, size)
        folders = tuple(_title(name) for name in names[:-1])
        return Album(_encode(names), _title(names[-1]), folders, count, size)

    def _list_photos(self, album_id: str) -> list[Photo]:
        names = () if album_id == _ROOT_ID else _decode(album_id)
        if names is None:
            raise SourceError(f"{album_id!r} is no album of {self._root}.")
        folder = self._root.joinpath(*names)
        photos: list[Photo] = []
        try:
            with Beneath(self._root) as tree:
                descriptor = tree.folder(names)
                for name, component in self._scan(names).photos:
                    try:
                        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed since it was listed
                    fingerprint = f"{status.st_size}-{status.st_mtime_ns}"
                    photos.append(Photo(_encode((*names, name)), _text(name), component, fingerprint))
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            raise SourceError(f"The folder {folder} is no longer there.") from None
        except OSError as error:
            raise self._unreadable(folder, error) from error
        return photos

    def _list_everything(self, albums: Sequence[Album]) -> list[_Known]:
        found: list[_Known] = []
        for album in albums:
            try:
                photos = self._list_photos(album.id)
            except SourceError as error:
                log.warning("%s: %s", album.path, error)  # whoever exports the album says so too
                continue
            for photo in photos:
                if photo.component is not Component.LIVE_MOVIE:
                    media = MediaKind.VIDEO if photo.component is Component.VIDEO else MediaKind.PHOTO
                    facts = PhotoFacts(photo.id, photo.original_filename, media, albums=(album.id,))
                    found.append(_Known(photo.fingerprint, facts))
        return found

    def _read_headers(self, unread: Sequence[_Known]) -> None:
        from skicyclerun.sources.folder_facts import read_facts  # the image stack, which only a choice needs here

        for each in unread:
            facts, place = each.facts, None
            try:
                fetched = self._fetch(Photo(facts.id, facts.original_filename))
                facts, place = read_facts(fetched.path, facts)
            except PhotoError as error:
                log.debug("%s: nothing is known of it: %s", facts.id, error)
            self._known[facts.id] = _Known(each.fingerprint, facts, place)

    def _photos_of(self, ids: Sequence[str]) -> list[Photo]:
        found: dict[str, list[Photo]] = {}
        for album_id in dict.fromkeys(photo_id.rpartition("/")[0] or _ROOT_ID for photo_id in ids):
            together: list[Photo] = []
            try:
                listed = self._list_photos(album_id)
            except LibraryError:
                raise
            except SourceError as error:
                log.info("%s", error)  # the folder is gone since it was looked at
                continue
            for photo in listed:
                if photo.component is not Component.LIVE_MOVIE:
                    together = found.setdefault(photo.id, [])
                together.append(photo)
        return [photo for photo_id in ids for photo in found.get(photo_id, ())]

    def _scan(self, names: Sequence[str]) -> _Contents:
        """Read one folder. Raises OSError."""
        folder = self._root.joinpath(*names)
        folders: list[str] = []
        files: list[str] = []
        ignored = size = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    ignored += 1
                elif entry.is_dir(follow_symlinks=False):
                    if not _is_left_out(entry):
                        folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False) and _suffix(entry.name) in _KNOWN:
                    files.append(entry.name)
                    size += entry.stat(follow_symlinks=False).st_size
                else:
                    ignored += 1
        photos = list(_with_components(folder, sorted(files, key=natural_key)))
        if ignored or len(photos) < len(files):
            log.debug("%s: %d other files, %d RAW beside a JPEG", folder, ignored, len(files) - len(photos))
        return _Contents(sorted(folders, key=natural_key), photos, size)

    def _fetch(self, photo: Photo) -> Fetched:
        names = _decode(photo.id)
        if not names:
            raise PhotoGone(f"{photo.original_filename} is not in {self._root}")
        path = self._root.joinpath(*names)
        try:
            with Beneath(self._root) as tree:
                descriptor = tree.open_file(names)
        except (FileNotFoundError, NotADirectoryError):
            if not self._root.is_dir():
                raise SourceStopped(f"The folder {self._root} is no longer there.") from None
            raise PhotoGone(f"{photo.original_filename} is no longer in {path.parent}") from None
        except OSError as error:
            reason = "is behind a symbolic link" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"
            raise PhotoUnreadable(f"{photo.original_filename} {reason}") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PhotoUnreadable(f"{photo.original_filename} is not a regular file")
        finally:
            os.close(descriptor)
        return Fetched(path)

    def _unreadable(self, folder: Path, error: OSError) -> LibraryError:
        if error.errno == errno.ELOOP:
            return LibraryError(folder, "it is a symbolic link, and those are not followed")
        next_step = ""
        if error.errno in (errno.EACCES, errno.EPERM):
            next_step = "Check the permissions of the folder and of those above it"
            next_step += (
                ", and your terminal's access to files in System Settings." if sys.platform == "darwin" else "."
            )
        return LibraryError(folder, f"the folder cannot be read ({error.strerror or error})", next_step=next_step)


_KNOWN: Final = _CAMERA_STILLS | _OTHER_STILLS | _RAW | _MOVIES
_HEADERS_AT_ONCE: Final = 64
"""Files that a thread reads before it looks whether anybody still waits."""
_UNREAD: Final = _Known("", PhotoFacts("", ""))


def _by_date(facts: PhotoFacts) -> tuple[datetime, str]:
    """Oldest first by the clocks of their places, those without a date before them."""
    return facts.date.replace(tzinfo=None) if facts.date is not None else datetime.min, facts.id


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts names as people read them, IMG_2 before IMG_10, whatever order the file system gives them in."""
    parts = re.split(r"([0-9]+)", unicodedata.normalize("NFC", name).casefold())
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], name


def _with_components(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Component]]:
    """Each photo's component. A Live Photo's movie follows its still; a RAW file beside a JPEG is left out."""
    stills: set[str] = set()
    movies: dict[str, str] = {}
    for name in names:
        if (suffix := _suffix(name)) in _CAMERA_STILLS:
            stills.add(_stem(name))
        elif suffix == ".mov":
            movies.setdefault(_stem(name), name)
    live = {stem: name for stem, name in movies.items() if stem in stills and is_live_movie(folder / name)}
    followed: set[str] = set()
    for name in names:
        suffix, stem = _suffix(name), _stem(name)
        if suffix in _MOVIES:
            if live.get(stem) != name:
                yield name, Component.VIDEO
        elif suffix not in _RAW or stem not in stills:
            yield name, Component.STILL
            if suffix in _CAMERA_STILLS and stem in live and stem not in followed:
                followed.add(stem)
                yield live[stem], Component.LIVE_MOVIE


def is_live_movie(path: Path) -> bool:
    """Whether a QuickTime movie says that it belongs to a Live Photo; False for what cannot be read.

    Only the `moov` atom is read: the file may be large, and a movie that merely shares a still's name is a video.
    """
    try:
        with open_original(path) as original:
            for kind, at, size in itertools.islice(boxes(original), 64):
                if kind == b"moov":
                    return _LIVE_PHOTO_KEY in original.read(at, min(size, 4 << 20))
    except PhotoError:
        pass
    return False


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    """Folders that hold no albums: other programs' caches, photo libraries, and what we wrote ourselves."""
    name = entry.name.casefold()
    if name in _LEFT_OUT_FOLDERS or name.endswith(_LIBRARY_SUFFIXES):
        return True
    return os.path.lexists(os.path.join(entry.path, "state", "skicyclerun.sqlite3"))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", os.path.splitext(name)[0]).casefold()


def _title(name: str) -> str:
    return _text(name).replace(":", "/")


def _text(name: str) -> str:
    """A name for people: NFC, with U+FFFD for bytes that are not UTF-8."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def _encode(names: Sequence[str]) -> str:
    joined = "/".join(names).replace("%", "%25")
    if is_group(joined):  # a folder of such a name is no group
        joined = joined.replace(":", "%3A", 1)
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", joined)


def _decode(photo_id: str) -> tuple[str, ...] | None:
    """The names below the root, None for what is no id of ours: empty, absolute, with `..` or a NUL."""
    names = tuple(os.fsdecode(unquote_to_bytes(photo_id)).split("/"))
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        return None
    return names
