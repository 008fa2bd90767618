"""The photos of the album that comes next are read from the source while the one before is compared and entered.

For updates, of which that is most of the work. What goes wrong is heard of when the album's turn has come.
"""

from __future__ import annotations

import anyio
from anyio.abc import TaskGroup

from skicyclerun.models import Photo
from skicyclerun.sources.base import Source


class ListedAhead:
    """Asks a source for one album at a time. `tasks` is cancelled by whoever has asked for the last."""

    def __init__(self, source: Source, tasks: TaskGroup) -> None:
        self._source = source
        self._tasks = tasks
        self._coming: _Coming | None = None

    def begin(self, album_id: str) -> None:
        """Read on without being waited for; what was read ahead and not asked for is let go of."""
        self._coming = _Coming(album_id)
        self._tasks.start_soon(self._coming.read, self._source)

    async def photos(self, album_id: str) -> list[Photo]:
        """As the source's. Raises what it raises."""
        coming, self._coming = self._coming, None
        if coming is None or coming.album_id != album_id:
            return await self._source.photos(album_id)
        return await coming.photos()


class _Coming:
    def __init__(self, album_id: str) -> None:
        self.album_id = album_id
        self._ended = anyio.Event()
        self._photos: list[Photo] = []
        self._error: Exception | None = None

    async def read(self, source: Source) -> None:
        try:
            self._photos = await source.photos(self.album_id)
        except Exception as error:
            self._error = error
        self._ended.set()

    async def photos(self) -> list[Photo]:
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._photos
