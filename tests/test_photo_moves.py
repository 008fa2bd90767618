"""Any sequence of moves, copies, edits, removals and updates, against a model in plain Python: nothing said is lost.

The updates enter the rows that an export enters; the catalog is written as a run writes it. Another program speaks of
photos in between, and points to them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.catalog.records import CatalogPlaces
from skicyclerun.catalog.update import bring_up_to_date
from skicyclerun.models import Album, ExportedFacts, Photo, SourceKind
from skicyclerun.state import albums, photos, runs
from skicyclerun.state.machine import RunTrigger
from skicyclerun.state.photos import Exported, PhotoPlan, path_key
from skicyclerun.state.store import Store

ALBUMS = ("A", "B", "C")
PHOTOS = ("p", "q")
#: Few contents, so that different photos have the same bytes.
CONTENTS = ("red", "green")
#: An album's folder, and the photo's id, which is the file's name here.
Place = tuple[str, str]


@dataclass
class Put:
    """The library: a photo is in an album (moved there, copied, come back), perhaps with other bytes."""

    photo: str
    album: str
    content: str


@dataclass
class Take:
    """The library: a photo leaves an album."""

    photo: str
    album: str


@dataclass
class Say:
    """Another program speaks of what is exported of a photo in an album, and points to it."""

    photo: str
    album: str


@dataclass
class Update:
    """An update of these albums, with a write of the catalog in its middle."""

    albums: frozenset[str]


Step = Put | Take | Say | Update
ANY_ALBUM, ANY_PHOTO = st.sampled_from(ALBUMS), st.sampled_from(PHOTOS)
UPDATES = st.builds(Update, st.just(frozenset(ALBUMS)) | st.frozensets(ANY_ALBUM, min_size=1))
EDITS = st.builds(Put, ANY_PHOTO, ANY_ALBUM, st.sampled_from(CONTENTS)) | st.builds(Take, ANY_PHOTO, ANY_ALBUM)
#: The library changes, is exported, and another program speaks of some of it; then all that again.
STEPS = st.lists(
    st.tuples(
        st.lists(EDITS, min_size=1, max_size=4), UPDATES, st.lists(st.builds(Say, ANY_PHOTO, ANY_ALBUM), max_size=4)
    ),
    min_size=2,
    max_size=7,
).map(lambda rounds: [step for edits, update, says in rounds for step in (*edits, update, *says)])


@dataclass
class Waiting:
    """What was said of a photo that has left."""

    place: Place
    content: str
    since: int
    left: int
    number: int
    said: dict[str, int]


@dataclass
class Model:
    """What should be the case, kept by hand."""

    library: dict[str, dict[str, str]] = field(default_factory=lambda: {album: {} for album in ALBUMS})
    exported: dict[Place, tuple[str, int]] = field(default_factory=dict)
    """The content of each file that is there, and in which run it was exported."""
    seen: dict[Place, int] = field(default_factory=dict)
    """The last run that planned it."""
    said: dict[Place, dict[str, int]] = field(default_factory=dict)
    pointers: dict[str, Place] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)
    run: int = 0
    words: int = 0

    def update(self, chosen: frozenset[str]) -> None:
        self.run += 1
        for album in chosen:
            for photo, content in self.library[album].items():
                place = (album, photo)
                if self.exported.get(place, ("", 0))[0] != content:
                    self.exported[place] = (content, self.run)
                    self.said.setdefault(place, {})
        leaving = [
            place for place in sorted(self.exported) if place[0] in chosen and place[1] not in self.library[place[0]]
        ]
        for album in chosen:
            self.seen |= {(album, photo): self.run for photo in self.library[album]}
        for place in leaving:
            self.leave(place)
        self.come_back()

    def leave(self, place: Place) -> None:
        content, _ = self.exported.pop(place)
        known = next((each for each in self.waiting if each.place == place), None)
        if known is not None:
            number = known.number
            self.waiting.remove(known)
        else:
            number = max((each.number for each in self.waiting), default=0) + 1
        self.waiting.append(Waiting(place, content, self.seen[place] + 1, self.run, number, self.said.pop(place)))

    def come_back(self) -> None:
        taken: set[Place] = set()
        found: list[tuple[Waiting, Place]] = []
        for by_id in (True, False):
            for each in sorted(self.waiting, key=lambda each: (-each.left, each.number)):
                if any(each is other for other, _ in found):
                    continue
                heirs = [
                    place
                    for place, (content, run) in self.exported.items()
                    if (place[1] == each.place[1] if by_id else content == each.content)
                    and (run >= each.since or place == each.place)
                ]
                heirs.sort(key=lambda place: (place != each.place, self.seen[place], place))
                heir = next((place for place in heirs if place not in taken), None)
                if heir is not None:
                    taken.add(heir)
                    found.append((each, heir))
        for each, heir in found:
            self.waiting.remove(each)
            self.said[heir] = each.said | self.said.get(heir, {})
        for name, place in self.pointers.items():
            for each, heir in found:
                if place == each.place and each.place not in self.exported:
                    self.pointers[name] = heir


class World:
    """The rows and the catalog."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.places = CatalogPlaces(folder / "albums")
        self.catalog = folder / "master.json"

    def path(self, place: Place) -> str:
        return str(self.places.export_folder / place[0] / f"{place[1]}.jpg")

    def entries(self) -> dict[str, Any]:
        return dict(json.loads(self.catalog.read_text())) if self.catalog.exists() else {}

    def write(self, entries: Mapping[str, Any]) -> None:
        self.catalog.write_text(json.dumps(entries, indent=2))

    async def update(self, library: Mapping[str, Mapping[str, str]], chosen: frozenset[str]) -> None:
        store = self.store
        run = await runs.create(
            store,
            mode="update",
            stages=["export"],
            source_kind=SourceKind.PHOTOS_LIBRARY,
            source_location="/library",
            selection=[],
            options={},
        )
        listed = [Album(id=f"id {name}", title=name, photo_count=len(library[name])) for name in sorted(chosen)]
        await albums.plan(store, run, {album.id: album.title for album in listed}, listed, [])
        for album in await albums.listing(store, run.id):
            await self._export(album, library[album.folder])
        await bring_up_to_date(store, self.places, self.catalog, settled=False)
        departed = await photos.departed(
            store, run.id, lambda album_id: album_id not in {f"id {name}" for name in ALBUMS}
        )
        await photos.forget_departed(store, departed)
        await runs.step(store, await runs.get(store, run.id), RunTrigger.FINISH)
        await bring_up_to_date(store, self.places, self.catalog, settled=True)

    async def _export(self, album: albums.AlbumRow, content: Mapping[str, str]) -> None:
        store = self.store
        earlier = await photos.present_of_album(store, album.album.id, ("photos_library", "/library"))
        plans = []
        for photo_id in sorted(content):
            photo = Photo(photo_id, f"{photo_id}.jpg", fingerprint=content[photo_id])
            before = earlier.get((photo_id, "still"))
            same = before is not None and before.fingerprint == photo.fingerprint
            plans.append(PhotoPlan(photo, photo.original_filename, carried=before if same else None))
        album = await albums.start(store, album, plans)
        done = []
        for to_do in await photos.to_do(store, album.id):
            sha256 = hashlib.sha256(content[to_do.photo.id].encode()).hexdigest()
            facts = ExportedFacts(size=1, sha256=sha256)
            done.append(Exported(to_do.row_id, path_key(album.folder, to_do.file_name), facts, 1))
        await photos.commit_group(store, done)
        await albums.finish(store, album, "", 0.0)


async def play(folder: Path, steps: list[Step]) -> None:
    model = Model()
    async with await Store.open(folder / "s.sqlite3") as store:
        world = World(store, folder)
        for step in [*steps, Update(frozenset(ALBUMS))]:
            match step:
                case Put(photo, album, content):
                    model.library[album][photo] = content
                case Take(photo, album):
                    model.library[album].pop(photo, None)
                case Say(photo, album) if (album, photo) in model.exported:
                    say(model, world, (album, photo))
                case Update(chosen):
                    model.update(chosen)
                    await world.update(model.library, chosen)
                    await compare(model, world)


def say(model: Model, world: World, place: Place) -> None:
    model.words += 1
    model.said[place] |= {"rating": model.words, f"word {model.words}": model.words}
    model.pointers[f"/made/{model.words}.webp"] = place
    entries = world.entries()
    entry = entries[world.path(place)]
    entry |= {"rating": model.words, f"word {model.words}": model.words}
    entries[f"/made/{model.words}.webp"] = {"type": "theirs", "made": {"of": [world.path(place)]}}
    world.write(entries)


async def compare(model: Model, world: World) -> None:
    entries = world.entries()
    ours = {path: entry for path, entry in entries.items() if path.startswith(str(world.places.export_folder))}
    assert ours.keys() == {world.path(place) for place in model.exported}
    for place, (content, _) in model.exported.items():
        entry = ours[world.path(place)]
        assert entry["sha256"] == hashlib.sha256(content.encode()).hexdigest()
        assert (entry["source"]["photo_id"], entry["file_path"]) == (place[1], world.path(place))
        found = {key: value for key, value in entry.items() if key.startswith(("rating", "word"))}
        assert found == model.said[place], place
    pointed = {path: entry["made"]["of"] for path, entry in entries.items() if path.startswith("/made/")}
    assert pointed == {name: [world.path(place)] for name, place in model.pointers.items()}
    rows = await world.store.all("former_entries")
    assert sorted(row["path"] for row in rows) == sorted(world.path(each.place) for each in model.waiting)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every transaction has a time of its own, as in runs that take longer than a millisecond."""
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("skicyclerun.state.store.utc_now", lambda: f"2026-01-01T00:{next(ticks):010}Z")


@pytest.mark.usefixtures("clock")
@settings(max_examples=40)
@given(steps=STEPS)
def test_whatever_moves_what_was_said_of_a_photo_goes_along(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    anyio.run(play, tmp_path_factory.mktemp("play"), steps)
