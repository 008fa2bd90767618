"""The protocol of a source: list albums, snapshot an album's photos, fetch one photo.

One contract suite (tests/test_source_contract.py) holds every source to this.

- Ids are stable: the same library gives the same ids in the same order until it is changed.
- A listing is a snapshot; what changes afterwards shows as `PhotoGone` or is left for the next run.
- The library is never written, not even its WAL.
- `fetch` of several photos may run at once when `parallel` is true; otherwise the caller fetches one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from skicyclerun.models import (
    Album,
    Component,
    Face,
    Fetched,
    Photo,
    PhotoFacts,
    Place,
    SourceKind,
    Waiting,
)


class Source(Protocol):
    """A place photos come from. Methods raise SourceError for the whole source, PhotoError for one photo."""

    kind: SourceKind
    parallel: bool

    @property
    def location(self) -> str:
        """The path of the library or folder, or the name of the application; for people and for the run's row."""
        ...

    async def open(self) -> None:
        """Pre-flight: find the library, check that it can be read. Raises LibraryError or SourceStopped."""
        ...

    async def albums(self) -> list[Album]:
        """All albums, empty ones included, in the source's order."""
        ...

    async def photos(self, album_id: str) -> list[Photo]:
        """The album's photos in album order; a Live Photo's movie follows its still. Raises SourceError."""
        ...

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        """Bring one photo's current version to a readable file.

        `attempt_directory` does not exist; a source that must write makes it and writes only there, and the caller
        removes it. Raises PhotoError (the photo fails alone) or SourceStopped (the run stops).
        """
        ...

    async def close(self) -> None:
        """Release everything. Safe to call twice, and without `open`."""
        ...


@runtime_checkable
class InPlace(Protocol):
    """A source whose photos lie on this disk already: `fetch` only finds and checks them, and makes no directory.

    It is `parallel` and not KeepsTime, and what changes `fetch` changes `locate`: an export asks it instead. Such
    photos are exported two dozen at a time, without a hop to a thread for each.
    """

    def locate(self, photo: Photo) -> Fetched:
        """What `fetch` gives, and raises; blocking, from any thread, several at once."""
        ...

    def read_ahead(self, photos: Sequence[Photo]) -> None:
        """Read what `locate` will need for the first of these photos, so that nobody waits for it then; blocking.

        They are of one album, in its order. What is wrong is for `locate` to say.
        """
        ...


@runtime_checkable
class Restartable(Protocol):
    """A source that runs in an application which can be started anew when it no longer answers."""

    async def restart(self) -> bool:
        """Start it anew if the person allowed it; False if not. Raises SourceStopped where it does not come back."""
        ...


@runtime_checkable
class KeepsTime(Protocol):
    """A source that bounds each `fetch` by itself, because only on the way it learns how long one may take.

    `on_wait` hears of every fetch, at once and whenever its bound changes (`at_most`), and of everything that keeps a
    person waiting for more than a few seconds. It is called in the event loop and raises nothing.
    """

    on_wait: Callable[[Waiting], None]


@runtime_checkable
class KnowsPhotos(Protocol):
    """A source that knows of all its photos, also of those in no album, without opening their files.

    The source is open. All of it is as of the same snapshot as its albums.
    """

    cannot_tell: Mapping[str, str]
    """By the facts of `PhotoFacts` that this source never knows: what to say to who chooses by them."""

    async def facts(self, wanted: Callable[[PhotoFacts], bool] | None = None) -> list[PhotoFacts]:
        """Of every media item that is `wanted` (all of them without it), oldest first, those of one moment by id.

        Hidden ones, trashed ones and those behind a burst's key photo are among them: `wanted` decides. It is called
        for each, in a worker thread, and only what it lets through is kept in memory. What it raises comes out.
        Raises SourceError.
        """
        ...

    async def photos_of(self, ids: Sequence[str]) -> list[Photo]:
        """As `photos` of an album with these items in this order; ids that the source does not have are passed over."""
        ...

    async def places(self, ids: Iterable[str]) -> dict[str, Place]:
        """Where these photos were taken, by id, for those where the source has a place in words."""
        ...

    async def faces(self, photo_id: str) -> tuple[Face, ...]:
        """The faces in a photo, from left to right; none for a photo that the source does not have."""
        ...


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long one photo may take; seconds."""

    photo: float
    movie: float
    """For a video, and for the movie of a Live Photo."""
    per_mb: float = 0.0
    """On top, for each megabyte (10^6 bytes) where the size is known."""

    def seconds(self, component: Component, size: int = 0) -> float:
        """For a photo of so many bytes; 0 where that is not known."""
        base = self.photo if component is Component.STILL else self.movie
        return base + self.per_mb * size / 1_000_000
