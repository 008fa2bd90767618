"""The next album is read while one is entered: asked for once, and what goes wrong is heard of when it is its turn."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from skicyclerun.actors.listed_ahead import ListedAhead
from skicyclerun.errors import SourceError
from skicyclerun.models import Album, Fetched, Photo, SourceKind


class Albums:
    """A source that can be held in the middle of listing."""

    kind = SourceKind.FOLDER
    parallel = True
    location = "/photos"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.begun = anyio.Event()
        self.may_end = anyio.Event()
        self.may_end.set()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def albums(self) -> list[Album]:
        return []

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        raise NotImplementedError

    async def photos(self, album_id: str) -> list[Photo]:
        self.asked.append(album_id)
        self.begun.set()
        await self.may_end.wait()
        if album_id == "gone":
            raise SourceError("There is no such album any more.")
        return [Photo(album_id, f"{album_id}.jpg")]


async def test_what_was_read_ahead_is_not_asked_for_again() -> None:
    source = Albums()
    async with anyio.create_task_group() as tasks:
        ahead = ListedAhead(source, tasks)
        assert [photo.id for photo in await ahead.photos("first")] == ["first"]
        source.begun = anyio.Event()
        ahead.begin("second")
        await source.begun.wait()
        assert [photo.id for photo in await ahead.photos("second")] == ["second"]
        assert [photo.id for photo in await ahead.photos("second")] == ["second"]
        tasks.cancel_scope.cancel()
    assert source.asked == ["first", "second", "second"], "what was read ahead counts once"


async def test_an_album_that_is_out_of_turn_is_asked_of_the_source() -> None:
    source = Albums()
    async with anyio.create_task_group() as tasks:
        ahead = ListedAhead(source, tasks)
        ahead.begin("second")
        assert [photo.id for photo in await ahead.photos("third")] == ["third"]
        tasks.cancel_scope.cancel()


async def test_what_went_wrong_ahead_is_heard_of_in_its_turn() -> None:
    source = Albums()
    async with anyio.create_task_group() as tasks:
        ahead = ListedAhead(source, tasks)
        ahead.begin("gone")
        await source.begun.wait()
        assert [photo.id for photo in await source.photos("other")] == ["other"], "nobody else is disturbed"
        with pytest.raises(SourceError, match="no such album"):
            await ahead.photos("gone")
        tasks.cancel_scope.cancel()


async def test_a_stop_does_not_wait_for_what_is_being_read_ahead() -> None:
    source = Albums()
    source.may_end = anyio.Event()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            ListedAhead(source, tasks).begin("second")
            await source.begun.wait()
            tasks.cancel_scope.cancel()
    assert source.asked == ["second"]
