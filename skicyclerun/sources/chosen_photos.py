"""A source with its filters and groups: what a run sees of the source that it wraps.

Albums lose the photos that the filters leave out. With `everything` the groups follow the albums, as albums of their
own, so that nobody else has to know of either. Fetching is the wrapped source's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from skicyclerun.errors import SourceError, UsageError
from skicyclerun.models import Album, AlbumKind, Component, Fetched, Photo, PhotoFacts, Waiting
from skicyclerun.sources.album_selection import excluded_albums
from skicyclerun.sources.base import InPlace, KeepsTime, KnowsPhotos, Source
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.sources.photo_filters import LOOKS_AT, OPTIONS, PhotoFilters, Tally
from skicyclerun.sources.photo_groups import GroupBy, group_id, grouped, is_group, kind_of_group

_NOT_CHOSEN_FROM: Final = (
    "It hands its photos to other programs album by album, and says too little of each to choose by."
)
READ_THE_LIBRARY: Final = (
    "Read the library itself: `--source photos_library --library ~/Pictures/'Photos Library.photoslibrary'`. Or put "
    "the photos into an album in Photos, and name that with --album."
)


def choosing(source: Source, choice: PhotoChoice) -> Source:
    """The source as a run with this choice sees it. Raises UsageError where the source cannot know what is asked.

    Albums to be excluded are not this one's to leave out: a source lists what there is.
    """
    if not isinstance(source, KnowsPhotos):
        if choice.everything or choice.filters.set:
            what = " ".join(filter(None, ("--everything" if choice.everything else "", choice.filters.in_words())))
            raise UsageError(
                f"{source.location} cannot be asked for {what}. {_NOT_CHOSEN_FROM} Nothing was touched.",
                next_step=READ_THE_LIBRARY,
            )
        return source
    for name in choice.filters.set:
        if said := source.cannot_tell.get(LOOKS_AT.get(name, "")):
            raise UsageError(f"{OPTIONS[name]} cannot be had here: {said} Nothing was touched.")
    return _over(source, source, choice)


@dataclass(slots=True)
class _Looked:
    """What was found when all photos of the source were looked at, once."""

    albums: list[Album]
    """The source's own, as it lists them."""
    verdicts: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    """By photo: which filters refuse it, and of which nobody knows the fact."""
    members: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the photos of each album, those that the filters leave out included."""
    in_groups: list[str] = field(default_factory=list)
    """Ids of the photos that are in groups, those that the filters leave out included."""
    passing: list[PhotoFacts] = field(default_factory=list)
    """Of those the ones that pass."""
    names: set[tuple[str, str]] = field(default_factory=set)
    """Keywords and persons that any photo has, where a filter asks for some."""

    def passes(self, photo_id: str) -> bool:
        verdict = self.verdicts.get(photo_id)
        return verdict is not None and not verdict[0]


class ChosenPhotos:
    """One source and one choice. What was looked at once stays so until it is closed, as a run needs it."""

    def __init__(self, source: Source, knowing: KnowsPhotos, choice: PhotoChoice) -> None:
        """`knowing` is the source once more, by what else it can do."""
        self._source = source
        self._knowing = knowing
        self.kind = source.kind
        self.parallel = source.parallel
        self.choice = choice
        self._looked: _Looked | None = None
        self._groups: dict[GroupBy, dict[str, tuple[Album, list[str]]]] = {}

    @property
    def location(self) -> str:
        return self._source.location

    async def open(self) -> None:
        await self._source.open()

    async def close(self) -> None:
        self._looked = None
        self._groups.clear()
        await self._source.close()

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        return await self._source.fetch(photo, attempt_directory)

    async def albums(self) -> list[Album]:
        """The albums, counted without what the filters leave out, then the groups."""
        choice = self.choice
        if not choice.filters.narrows and not choice.everything:
            return await self._source.albums()
        looked = await self._look()
        albums = [self._counted(album, looked) for album in looked.albums] if choice.filters.narrows else looked.albums
        groups = await self._grouped(choice.group_by) if choice.everything else {}
        return [*albums, *(album for album, _ in groups.values())]

    async def photos(self, album_id: str) -> list[Photo]:
        """Those of an album that pass, or those of a group. A group that nothing is in any more is an empty one."""
        if is_group(album_id):
            by = kind_of_group(album_id)
            if by is None:
                raise SourceError(f"{album_id!r} is no group of photos.")
            _, ids = (await self._grouped(by)).get(album_id, (None, []))
            return await self._knowing.photos_of(ids)
        photos = await self._source.photos(album_id)
        if not self.choice.filters.narrows:
            return photos
        looked = await self._look()
        wanted: list[Photo] = []
        passes = False
        for photo in photos:
            # The movie of a Live Photo goes with its still, which it follows.
            if photo.component is not Component.LIVE_MOVIE:
                passes = looked.passes(photo.id)
            if passes:
                wanted.append(photo)
        return wanted

    def with_choice(self, choice: PhotoChoice) -> ChosenPhotos:
        """Another choice from the same source, which either of them opens and closes."""
        return _over(self._source, self._knowing, choice)

    async def tally(self, chosen: Iterable[Album]) -> Tally:
        """What the filters did with the photos of these albums and groups."""
        looked = await self._look()
        ids: set[str] = set()
        groups = False
        for album in chosen:
            ids.update(looked.members.get(album.id, ()))
            groups = groups or is_group(album.id)
        if groups or (self.choice.everything and not ids):
            ids.update(looked.in_groups)
        tally = Tally()
        for photo_id in ids:
            tally.add(*looked.verdicts[photo_id])
        return tally

    async def check_names(self) -> None:
        """Raise UsageError for a keyword or person of the filters that no photo has: most likely it is misspelt."""
        filters = self.choice.filters
        if filters.keywords or filters.persons:
            filters.check_names((await self._look()).names)

    async def refuses(self, photo_id: str) -> bool:
        """Whether the filters leave out a photo that the source has."""
        if not self.choice.filters.narrows:
            return False
        verdict = (await self._look()).verdicts.get(photo_id)
        return verdict is not None and bool(verdict[0])

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _look(self) -> _Looked:
        if self._looked is None:
            choice = self.choice
            looked = _Looked(await self._source.albums())
            # Photos of an album that is excluded are to stay in, so they are in no group either.
            elsewhere = excluded_albums(looked.albums, choice.exclude, strict=False)
            if choice.not_in_albums:
                elsewhere |= {album.id for album in looked.albums if album.kind is AlbumKind.ALBUM}
            looked.passing = await self._knowing.facts(_Judge(choice.filters, looked, frozenset(elsewhere)))
            self._looked = looked
        return self._looked

    async def _grouped(self, by: GroupBy) -> dict[str, tuple[Album, list[str]]]:
        """The groups by id, in order."""
        if by not in self._groups:
            passing = (await self._look()).passing
            places = await self._knowing.places([facts.id for facts in passing]) if by == "place" else {}
            self._groups[by] = grouped((facts, group_id(facts, by, places.get(facts.id))) for facts in passing)
        return self._groups[by]

    def _counted(self, album: Album, looked: _Looked) -> Album:
        """Without what the filters leave out; its bytes in proportion."""
        ids = looked.members.get(album.id, [])
        left = sum(not looked.passes(photo_id) for photo_id in ids)
        if not left:
            return album
        passing = len(ids) - left
        return replace(album, photo_count=passing, filtered=left, size=album.size * passing // len(ids))


class _ChosenInPlace(ChosenPhotos):
    """The same over a source whose photos lie on this disk."""

    _source: InPlace  # type: ignore[assignment]  # what `_over` has seen to

    def locate(self, photo: Photo) -> Fetched:
        return self._source.locate(photo)

    def read_ahead(self, photos: Sequence[Photo]) -> None:
        self._source.read_ahead(photos)


class _ChosenKeepingTime(ChosenPhotos):
    """The same over a source that keeps to its own times: whoever asks to hear of its waits is told by it."""

    _source: KeepsTime  # type: ignore[assignment]  # what `_over` has seen to

    @property
    def on_wait(self) -> Callable[[Waiting], None]:
        return self._source.on_wait

    @on_wait.setter
    def on_wait(self, hear: Callable[[Waiting], None]) -> None:
        self._source.on_wait = hear


def _over(source: Source, knowing: KnowsPhotos, choice: PhotoChoice) -> ChosenPhotos:
    made: type[ChosenPhotos] = ChosenPhotos
    if isinstance(source, KeepsTime):
        made = _ChosenKeepingTime
    elif isinstance(source, InPlace):
        made = _ChosenInPlace
    return made(source, knowing, choice)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Looks at one photo after the other; True for those that groups are made of. Called in a worker thread."""

    filters: PhotoFilters
    looked: _Looked
    elsewhere: frozenset[str]
    """Albums whose photos are in no group."""

    def __call__(self, facts: PhotoFacts) -> bool:
        if facts.in_trash or not facts.shown:
            return False
        looked, filters = self.looked, self.filters
        if filters.keywords or filters.persons:
            looked.names.update(("keyword", name) for name in facts.keywords)
            looked.names.update(("person", name) for name in facts.persons)
        looked.verdicts[facts.id] = refused, _ = filters.refuse(facts), filters.unknown(facts)
        for album_id in facts.albums:
            looked.members.setdefault(album_id, []).append(facts.id)
        if facts.shared or not self.elsewhere.isdisjoint(facts.albums):
            return False
        looked.in_groups.append(facts.id)
        return not refused
