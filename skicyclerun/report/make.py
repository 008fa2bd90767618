"""Makes the page of a run: facts, thumbnails, pages, in that order; the page that is opened last."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from skicyclerun.errors import DiskFull, NoState, NotWritable, StorageError, UsageError
from skicyclerun.report.facts import PageFacts, gather
from skicyclerun.report.pages import Pages
from skicyclerun.report.publish import PageFiles
from skicyclerun.report.thumbnails import Advance, Thumbnails
from skicyclerun.run.lock import current_holder
from skicyclerun.settings.models import Settings
from skicyclerun.state import runs
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store


@dataclass(frozen=True, slots=True)
class PageMade:
    """A page that is there."""

    file: Path
    run_id: int
    thumbnails: int
    """Made for it; the others were there."""


async def make_page(
    settings: Settings,
    *,
    run_id: int | None = None,
    file: Path | None = None,
    with_map: bool | None = None,
    options: str = "",
    advance: Advance | None = None,
) -> PageMade:
    """The page of a run, the last one unless `run_id` says otherwise. Also while a run is at work.

    `file`, `with_map`: in the place of what the configuration says. `options` follow every command that the page
    proposes. Raises NoState, UsageError, OutsideFolder, StorageError.
    """
    files = PageFiles(file or settings.report_file)
    await anyio.to_thread.run_sync(files.check)
    places = settings.report.map if with_map is None else with_map
    state_db = settings.paths.state_db
    async with await Store.open_to_read(state_db) as store:
        run = await _run(store, state_db, run_id)
        latest = await runs.latest(store)
        holder = current_holder(state_db.parent / "run.lock") or ""
        running = holder if latest is not None and latest.id == run.id else ""
        facts = await gather(store, settings, run, running=running, with_places=places)
        known = [row["sha256"] for row in await store.all("contents_present")]
    thumbnails = Thumbnails(state_db.parent / "thumbnails")
    pages = Pages(facts, thumbnails, files.file, files.folder, options=options, with_map=places)
    wanted = list(pages.wanted())
    try:
        made = await thumbnails.make(wanted, advance)
        await anyio.to_thread.run_sync(_write, facts, pages, files)
        if latest is None or not latest.unfinished:  # what a run is about to export again would lose its own
            contents = {*known, *(each.file.key for each in wanted)}
            await anyio.to_thread.run_sync(thumbnails.prune, contents)
    except OSError as error:
        raise _storage_error(error, files.file) from error
    return PageMade(files.file, run.id, made)


async def _run(store: Store, state_db: Path, run_id: int | None) -> RunRow:
    if run_id is None:
        run = await runs.latest(store)
        if run is None:
            raise NoState(state_db)
        return run
    try:
        return await runs.get(store, run_id)
    except LookupError:
        known = ", ".join(str(each.id) for each in (await runs.listing(store))[-10:]) or "none"
        raise UsageError(f"There is no run {run_id}. The last ones are: {known}.") from None


def _write(facts: PageFacts, pages: Pages, files: PageFiles) -> None:
    names = set()
    for album in facts.albums:
        for name, text in pages.of_album(album):
            files.write_album(name, text)
            names.add(name)
    files.write(pages.first(datetime.now(UTC)))
    files.remove_others(names)


def _storage_error(error: OSError, file: Path) -> StorageError:
    where = error.filename or file
    if error.errno == errno.ENOSPC:
        return DiskFull(f"No space left to write {where}. The page before it, if there was one, is as it was.")
    return NotWritable(f"{where} could not be written: {error.strerror or error}. No photo is concerned.")
