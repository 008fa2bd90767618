"""What is passed between the parts: albums, photos, what is known about them, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal


class SourceKind(StrEnum):
    """Where photos come from; the values of `export.source` but for `auto`."""

    APPLE_PHOTOS = "apple_photos"
    PHOTOS_LIBRARY = "photos_library"
    FOLDER = "folder"


class Component(StrEnum):
    """Which part of a media item a photo row stands for; each is a file of its own."""

    STILL = "still"
    """A picture."""
    VIDEO = "video"
    """A media item that is a movie; copied unchanged with its own extension."""
    LIVE_MOVIE = "live_movie"
    """The moving half of a Live Photo, exported beside its still when `export.live_photos` is true."""
    SIDECAR = "sidecar"
    """A text file beside a picture or video that says what is known of it (`export.sidecar`)."""
    ORIGINAL = "original"
    """The unmodified original of what was converted, scaled or edited, in `originals/` (`export.keep_original`)."""

    @property
    def is_companion(self) -> bool:
        """Whether it lies beside another file of ours and is nothing that a stage works on."""
        return self is _SIDECAR or self is _ORIGINAL


_SIDECAR: Final = Component.SIDECAR  # looking a member up is a call (Python 3.11), and this is asked of every photo
_ORIGINAL: Final = Component.ORIGINAL


class Rendering(StrEnum):
    """Which of a photo's versions was exported."""

    ORIGINAL = "original"
    EDITED = "edited"
    PREVIEW = "preview"
    """The largest rendering the library holds, where the original is absent and `export.missing` is `preview`."""


class AlbumKind(StrEnum):
    """What an album is in its library."""

    ALBUM = "album"
    """One that the person made."""
    SHARED = "shared"
    """A shared album of iCloud; the library holds reduced copies of its photos."""
    PROJECT = "project"
    """A book, a card, a calendar, a slideshow."""


class MediaKind(StrEnum):
    """What a media item is."""

    PHOTO = "photo"
    """A picture, also the still of a Live Photo."""
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class Album:
    """An album of a source. Its identity is `id`; titles repeat."""

    id: str
    title: str
    folder_path: tuple[str, ...] = ()
    """Titles of the folders it lies in, outermost first."""
    photo_count: int = 0
    size: int = field(default=0, compare=False)
    """Bytes of its originals, where the source knows them without opening each; 0 where it does not."""
    kind: AlbumKind = AlbumKind.ALBUM
    filtered: int = field(default=0, compare=False)
    """How many of its photos the filters of a run leave out; `photo_count` is without them."""

    @property
    def path(self) -> str:
        """The title with its folders, for people: `Folder1/SubFolder2/AlbumInFolder`."""
        return "/".join((*self.folder_path, self.title))


@dataclass(frozen=True, slots=True)
class Photo:
    """A media item, or one component of it, in album order. Identity is (`id`, `component`)."""

    id: str
    original_filename: str
    """As the library knows it (`IMG_0001.HEIC`); untrusted, may hold any character."""
    component: Component = Component.STILL
    fingerprint: str = ""
    """Changes when the photo, its edit or what the library knows about it changes; compared, never parsed."""
    extension: str = field(default="", compare=False)
    """Of the file that `fetch` will hand over, with its dot, where that is not the original's (an edit, a preview)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a photo was taken, in the library's words; untrusted. An empty text is not known."""

    country: str = ""
    country_code: str = ""
    """ISO 3166-1, two capital letters."""
    state: str = ""
    """State, province or region."""
    city: str = ""
    """City, town or village."""
    name: str = ""
    """The whole as the library shows it (`Great Gable Cumbria, England, United Kingdom`)."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face in a photo's current version, as displayed: turned, and edited where it is.

    `x` and `y` are the centre as shares of the width from the left and of the height from the top; `width` and
    `height` are shares of the picture's. The region may reach over the picture's edge.
    """

    name: str
    """Of the person; empty where nobody has named it."""
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What a library knows of a media item without opening its file: what people choose by.

    There is one for each media item: a Live Photo is one, with `media` PHOTO. Texts are untrusted.
    """

    id: str
    """As in `Photo.id`."""
    original_filename: str
    media: MediaKind = MediaKind.PHOTO
    date: datetime | None = None
    """Aware. In the photo's own offset where `offset_known`, otherwise in UTC; None where it has no date."""
    offset_known: bool = False
    favorite: bool = False
    hidden: bool = False
    in_trash: bool = False
    shown: bool = True
    """False: a picture of a burst that Photos keeps behind the key photo, because nobody has picked it."""
    screenshot: bool = False
    """A screenshot or, of a video, a recording of the screen."""
    width: int = 0
    """Pixels of the current version as displayed; 0 where it is not known."""
    height: int = 0
    keywords: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    """Names of the persons that are named."""
    albums: tuple[str, ...] = ()
    """Ids of the albums it is in, of those that the source lists."""
    shared: bool = False
    """It is somebody's photo of a shared album, not one of the library's own."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """That a source is waited for, for what, and how long; for display. Times are seconds."""

    kind: Literal["application", "albums", "album", "photo"]
    """An application's answer, the list of its albums, the list of one album's photos, one photo."""
    what: str
    """Its name; untrusted."""
    seconds: float
    """So far."""
    at_most: float | None = None
    """From the beginning; None where every step of progress gives it more."""
    done: int = 0
    of: int = 0
    """Albums or photos listed, of so many; 0 where it is not known."""
    note: str = ""
    """What the person should know meanwhile, as a sentence."""
    over: bool = False
    """It has come, or was given up."""


@dataclass(frozen=True, slots=True)
class Location:
    """WGS 84. Degrees, metres above sea level, degrees clockwise from true north."""

    latitude: float
    longitude: float
    altitude: float | None = None
    heading: float | None = None


@dataclass(frozen=True, slots=True)
class LibraryMetadata:
    """What the library knows about a photo; it wins over what the file says.

    An absent text or an empty tuple leaves what the file has. `date` None leaves the file's date; an aware date is
    written with its offset, a naive one without.
    """

    date: datetime | None = None
    location: Location | None = None
    location_known: bool = True
    """True: the library's word is final, and `location` None removes a position from the file. False: leave it."""
    title: str | None = None
    description: str | None = None
    keywords: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    rating: int | None = None
    """XMP Rating, 0 to 5; a favourite is 5."""
    faces: tuple[Face, ...] = ()
    """Of the version that is handed over; those that nobody has named are not written."""
    place: Place | None = None
    favorite: bool = False
    labels: tuple[str, ...] = ()
    """What the library found to be in the picture, by itself (`Tree`, `Snow`)."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A photo's bytes, on this disk, as the source hands them over. The file is read, never changed."""

    path: Path
    rendering: Rendering = Rendering.ORIGINAL
    metadata: LibraryMetadata | None = None
    """None: the source knows nothing beyond the file itself."""
    note: str = ""
    """Something the catalog and the report should say (`RAW developed`, `preview 1024 by 768`)."""


@dataclass(frozen=True, slots=True)
class ExportedFacts:
    """What is true of a file that was written, read from what was written."""

    size: int
    """Bytes."""
    sha256: str
    """Lower-case hexadecimal."""
    width: int | None = None
    """Pixels, as displayed (after orientation); None for movies."""
    height: int | None = None
    date_taken: str | None = None
    """ISO 8601 local time, with the offset where it is known."""
    date_taken_utc: str | None = None
    """ISO 8601 with `Z`; only where the offset is known."""
    location: Location | None = None
    title: str | None = None
    description: str | None = None
    keywords: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    faces: tuple[Face, ...] = ()
    """Of the persons, in the picture as displayed."""
    place: Place | None = None
    """Where it was taken, in the library's words."""
    favorite: bool = False
    labels: tuple[str, ...] = ()
    rendering: Rendering = Rendering.ORIGINAL
    note: str = ""
    mtime_ns: int = 0
    """Modification time given to the file, nanoseconds since the epoch."""
    extra: dict[str, str] = field(default_factory=dict)
    """Further facts for the catalog, by key; kept small."""
