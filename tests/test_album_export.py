"""How long one photo of an export may take: by its kind, by its size, or by what its source says itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest

from skicyclerun.actors.album_export import AlbumExport
from skicyclerun.errors import PhotoSlow
from skicyclerun.files.album_folder import AlbumFolder
from skicyclerun.models import Component, ExportedFacts, Fetched, Photo, Waiting
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.sources.base import KeepsTime, Source, TimeLimits
from skicyclerun.state.photos import PhotoToDo
from skicyclerun.state.store import Store
from tests.command_line import ToldSource, Watching, make_library, run_with

FACTS = ExportedFacts(size=1, sha256="00")


async def at_once(photo: Photo) -> None:
    """Nothing is waited for."""


class Patient(ToldSource):
    """A source that keeps to its own times, and tells of a wait before each photo."""

    def __init__(self, root: Path, waits: list[Waiting]) -> None:
        super().__init__(root, at_once)
        self.on_wait: Callable[[Waiting], None] = lambda waiting: None
        self._waits = waits

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        for waiting in self._waits:
            self.on_wait(waiting)
        return await super().fetch(photo, attempt_directory)


class OneFile:
    """Hands over one file, after so many seconds; bounded by itself, as its `on_wait` says."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.seconds = seconds
        self.on_wait: Callable[[Waiting], None] = lambda waiting: None

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        await anyio.sleep(self.seconds)
        return Fetched(self.path)


def export_of(
    path: Path, limits: TimeLimits, render: Callable[..., ExportedFacts], told: list[float], seconds: float = 0.0
) -> AlbumExport:
    async def on_commit(count: int) -> None:
        """Nothing is committed."""

    return AlbumExport(
        store=cast(Store, None),
        source=cast(Source, OneFile(path, seconds)),
        render=render,
        folder=cast(AlbumFolder, None),
        staging=path.parent / "staging",
        options=cast(ExportOptions, None),
        time_limits=limits,
        expect=told.append,
        by_row={},
        on_outcome=lambda photo, outcome: None,
        on_commit=on_commit,
        in_turn=anyio.lowlevel.checkpoint,
    )


def to_do(component: Component) -> PhotoToDo:
    return PhotoToDo(1, Photo("A", "A.JPG", component), "A.jpg", 0)


@pytest.mark.parametrize(
    ("component", "setting"),
    [
        (Component.STILL, "export.timeouts.photo"),
        (Component.VIDEO, "export.timeouts.movie"),
        (Component.LIVE_MOVIE, "export.timeouts.movie"),
    ],
)
async def test_a_photo_that_takes_longer_than_its_kind_may_is_slow(
    tmp_path: Path, component: Component, setting: str
) -> None:
    path = tmp_path / "A.JPG"
    path.write_bytes(b"x")
    go = threading.Event()

    def render(*given: object) -> ExportedFacts:
        go.wait(60)
        return FACTS

    export = export_of(path, TimeLimits(0.05, 0.06), render, [])
    try:
        with pytest.raises(PhotoSlow, match=f"it took longer than 0.0[56] s \\({setting}\\)"):
            await export.attempt(to_do(component), 1)
    finally:
        go.set()


async def test_the_time_for_a_photo_grows_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "A.JPG"
    path.write_bytes(b"x" * 2000)
    told: list[float] = []

    def render(*given: object) -> ExportedFacts:
        threading.Event().wait(0.2)  # longer than the 0.05 s; 2 kB give it a minute more
        return FACTS

    await export_of(path, TimeLimits(0.05, 0.05, 30_000.0), render, told).attempt(to_do(Component.STILL), 1)
    assert told == [pytest.approx(60.05)]


async def test_a_source_that_keeps_to_its_own_times_is_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "A.JPG"
    path.write_bytes(b"x" * 2000)
    export = export_of(path, TimeLimits(0.05, 0.05, 30_000.0), lambda *given: FACTS, [], seconds=0.2)
    await export.attempt(to_do(Component.STILL), 1)


def test_what_a_source_waits_for_is_shown_once_it_takes_a_while(tmp_path: Path) -> None:
    library, lib_root = make_library(tmp_path / "library", {"Lake": ["IMG_1.jpg"]}), tmp_path / "root"
    begun = Waiting("photo", "IMG_1.jpg", 0.0, 145.0)
    long = Waiting("photo", "IMG_1.jpg", 10.0, 145.0, note="From iCloud.")
    source = Patient(library, [begun, long])
    assert isinstance(source, KeepsTime)
    watching = Watching()
    run_with(source, lib_root, renderer=watching)
    assert [event for event in watching.events if isinstance(event, Waiting)] == [long]
