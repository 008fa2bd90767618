"""The running Photos.app as a source, through `osascript` and scripts/osxPhotoExporter.scpt. One photo at a time.

Photos renders the current version of every photo. Each attempt exports one item into a directory made for that
attempt alone, so what Photos still writes after a time-out can never be taken for a later attempt. Albums are listed
in many short calls, so that there is something to show meanwhile and none of them needs a long time-out.
docs/photos-app.md says what of this has been seen on a Mac, and what has not.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePath
from typing import Final, NoReturn

import anyio
import anyio.to_thread

from skicyclerun.errors import (
    DiskFull,
    NotWritable,
    PhotoError,
    PhotoGone,
    PhotoRefused,
    PhotoSlow,
    PhotoTransient,
    PhotoUnreadable,
    SourceError,
    SourceStopped,
)
from skicyclerun.images.sniff import Content
from skicyclerun.models import Album, Component, Fetched, LibraryMetadata, Photo, Rendering, SourceKind, Waiting
from skicyclerun.sources import photos_app_process
from skicyclerun.sources.base import TimeLimits
from skicyclerun.sources.osascript import Listener, Osascript, Outcome, Trouble
from skicyclerun.sources.photos_app_answers import (
    AnswerIncomplete,
    AnswerUnknown,
    ItemFacts,
    albums_of,
    counts_of,
    facts_of,
    is_id,
    items_of,
    records_of,
)
from skicyclerun.sources.photos_app_exports import date_taken, exported_file
from skicyclerun.sources.photos_app_waiting import (
    SHARE,
    ExportPatience,
    ListingProgress,
    Patience,
    about_to_ask,
    terminal_name,
)

_MOVIE_SUFFIXES: Final = frozenset({".mov", ".mp4", ".m4v", ".avi", ".mpg", ".mpeg", ".3gp", ".mts", ".m2ts", ".qt"})
_IDS_PER_CALL: Final = 50
"""Items whose facts are asked for in one call of osascript."""
_ALBUMS_PER_CALL: Final = 100
"""Albums whose items are counted in one call; one event each, about 20 ms."""
_LISTED_PER_SECOND: Final = 100
"""Items of an album, at the slowest that a listing is waited for."""
_TELL_SECONDS: Final = 5.0
"""Between two times that somebody is told how far a listing is, and before a photo is called slow."""
_GRANT: Final = (
    "Allow it in System Settings > Privacy & Security > Automation > your terminal > Photos. If your terminal is not "
    "listed there, `tccutil reset AppleEvents` makes macOS ask again."
)
_REPORT: Final = "This is a fault of the script, or Photos has changed; please report it with the message above."
_ONE_ITEMS: Final = frozenset({-1700, -1703, -1708})
"""Error numbers that a single item may answer with though the script is sound: errAECoercionFail, errAEWrongDataType,
errAEEventNotHandled."""
_SESSION: Final = (
    "Photos can only be asked from a logged-in desktop session: not over ssh, not from cron. A LaunchAgent works."
)

_ZONE_STEP: Final = timedelta(minutes=15)
_WIDEST_ZONES: Final = timedelta(hours=26)
"""From UTC-12 to UTC+14."""


@dataclass(kw_only=True)
class PhotosApp:
    """The library that Photos.app has open.

    A failed fetch leaves the next one untouched. Retrying with back-off, counting failures in a row and giving up are
    the caller's; it may call `restart` where the person allowed that. Times are seconds.
    """

    kind = SourceKind.APPLE_PHOTOS
    parallel = False

    osascript: str = "osascript"
    script: Path
    limits: TimeLimits
    """Bound one `fetch`; its export gets nine tenths of that, and the file that may still come the rest."""
    list_timeout: float
    """How long any other call may be silent; the first one launches Photos and may wait for macOS to ask for
    permission."""
    on_wait: Callable[[Waiting], None] = lambda waiting: None
    """Hears what is waited for; the `KeepsTime` of a source."""
    tell_after: float = _TELL_SECONDS
    restart_photos: bool = False
    log: Callable[[str], None]
    """Gets what the script says while it works."""
    settle_interval: float = 0.1
    """A file counts once it stood still for so long."""
    settle_patience: float = 3.0
    """How long to wait for it after Photos has answered."""
    retry_pause: float = 5.0
    grace: float = 3.0
    process_name: str = "Photos"

    def __post_init__(self) -> None:
        self._osascript = Osascript(
            program=self.osascript, script=self.script, log=self.log, grace=self.grace, first_wait=self.tell_after
        )
        self._listed: dict[str, Album] = {}

    @property
    def location(self) -> str:
        return "Photos.app"

    async def open(self) -> None:
        """Ask Photos for its version and the number of its albums. Raises SourceStopped.

        What macOS may ask the person meanwhile is told before.
        """
        asked = Waiting("application", self.location, 0.0, self.list_timeout, note=about_to_ask())
        self.on_wait(asked)
        records = await self._ask("preflight", listener=Patience(asked, self.on_wait))
        if records and len(records[0]) == 3:
            self.log(f"Photos {records[0][0]} answers.")

    async def albums(self) -> list[Album]:
        """The person's albums, those in folders after those at the top; smart albums are not offered by Photos.

        However many there are: no call asks about more than 100, and each may take its time as long as it comes on.
        Raises SourceError.
        """
        progress = ListingProgress(
            Waiting("albums", self.location, 0.0), self.on_wait, self.list_timeout, self.tell_after
        )
        records = await self._ask("list-albums", listener=progress)
        counts: dict[str, int] = {}
        try:
            albums = albums_of(records)
            for start in range(0, len(albums), _ALBUMS_PER_CALL):
                progress.begin(start, len(albums))
                ids = [album.id for album in albums[start : start + _ALBUMS_PER_CALL]]
                counts |= counts_of(await self._ask("album-counts", *ids, listener=progress))
        except AnswerUnknown:
            raise self._not_understood("list-albums") from None
        # One without a count was removed meanwhile.
        found = [replace(album, photo_count=counts[album.id]) for album in albums if album.id in counts]
        self._listed = {album.id: album for album in found}
        return found

    async def photos(self, album_id: str) -> list[Photo]:
        """The album's items in the order Photos gives them. Raises SourceError if it is gone or keeps changing."""
        if not is_id(album_id):
            raise SourceError(f"{album_id!r} is not an id of Photos.")
        album = self._listed.get(album_id)
        if album is None:  # a run that was resumed has not listed the albums
            album = Album(album_id, "", photo_count=await self._count(album_id))
        # All ids, and all names, are one event each, which has nothing to say until it is answered.
        seconds = self.list_timeout + album.photo_count / _LISTED_PER_SECOND
        waiting = Waiting("album", album.path, 0.0, of=album.photo_count)
        progress = ListingProgress(waiting, self.on_wait, seconds, self.tell_after)
        records = await self._ask("item-ids", album_id, listener=progress, seconds=seconds)
        try:
            items = items_of(records)
        except AnswerUnknown:
            raise self._not_understood("item-ids") from None
        names = await self._names([item_id for item_id, name in items if name is None])
        return [_photo(item_id, names.get(item_id, "") if name is None else name) for item_id, name in items]

    async def fetch(self, photo: Photo, attempt_directory: Path) -> Fetched:
        """Export one item below `attempt_directory`, which is made here, within the `limits` for it.

        Raises PhotoError, SourceStopped, StorageError.
        PhotoTransient is worth another attempt in another directory: after a time-out Photos may still be writing
        into this one.
        """
        if not is_id(photo.id):
            raise PhotoGone(f"{photo.original_filename}: {photo.id!r} is not an id of Photos")
        if photo.component is Component.LIVE_MOVIE:
            raise PhotoUnreadable(f"{photo.original_filename}: Photos.app gives no Live Photo movies")
        directory = await anyio.to_thread.run_sync(_made, attempt_directory)
        call = ExportPatience(photo, self.limits, self.on_wait)
        try:
            return await self._fetched(photo, directory, call)
        finally:
            call.over()

    async def _fetched(self, photo: Photo, directory: Path, call: ExportPatience) -> Fetched:
        outcome = await self._osascript.run(
            "export-item",
            *_event_limit(call.share),
            "--growth",
            str(int(SHARE * 1000 * self.limits.per_mb)),
            photo.id,
            str(directory),
            seconds=call.share,
            listener=call,
        )
        facts: ItemFacts | None = None
        patience = call.left
        if outcome.ok:
            facts = self._facts(photo, outcome, "export-item")
            patience = min(patience, self.settle_patience)
        elif outcome.trouble is Trouble.NO_REPLY and not outcome.timed_out:
            # The reply did not come, but the export goes on: what is left of the time may be enough for it. The last
            # bit of it is for asking what Photos knows.
            patience *= 0.7
        else:
            _give_up_photo(photo, outcome)
        try:
            file = await exported_file(photo, directory, interval=self.settle_interval, patience=patience)
        except OSError as error:
            raise PhotoTransient(
                f"{photo.original_filename}: its directory cannot be read ({error.strerror})."
            ) from error
        except PhotoTransient as error:
            if outcome.ok:
                raise
            raise PhotoSlow(f"{str(error).removesuffix('.')}; {_no_answer(outcome)}.") from error
        if facts is None:
            facts = await self._facts_alone(photo, call.left)
        in_file = await anyio.to_thread.run_sync(date_taken, file.path) if file.content is Content.JPEG else None
        edited = file.path.stem.startswith("FullSizeRender")
        return Fetched(
            path=file.path,
            rendering=Rendering.EDITED if edited else Rendering.ORIGINAL,
            metadata=metadata_of(facts, in_file),
        )

    async def restart(self) -> bool:
        """End Photos and start it again, if the person allowed it (`export.restart_photos`); False if not.

        Only processes of this user whose executable is exactly that of Photos are ended. Raises SourceStopped where
        Photos does not come back.
        """
        if not self.restart_photos:
            return False
        self.log("Restarting Photos, because export.restart_photos is true.")
        await photos_app_process.end_photos(self.process_name, grace=self.grace)
        await self.open()
        return True

    async def close(self) -> None:
        """Nothing is held between calls."""

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(
        self, verb: str, *words: str, listener: Listener | None = None, seconds: float = 0.0
    ) -> list[list[str]]:
        """The records of a listing, for which Photos has `seconds` (0: `list_timeout`).

        A connection that failed is tried once more; then SourceError or SourceStopped.
        """
        seconds = seconds or self.list_timeout
        for last in (False, True):
            outcome = await self._osascript.run(
                verb, *_event_limit(seconds), *words, seconds=seconds, listener=listener
            )
            if outcome.ok:
                try:
                    return records_of(outcome.output, verb)
                except AnswerUnknown:
                    raise self._not_understood(verb) from None
                except AnswerIncomplete:
                    if last:
                        raise SourceStopped(f"Photos' answer to {verb} broke off.") from None
            elif last or outcome.trouble not in (Trouble.NOT_RUNNING, Trouble.UNSETTLED):
                self._give_up_listing(verb, outcome)
            self.log(f"Photos did not answer {verb} ({outcome.explanation}); asking once more.")
            await anyio.sleep(self.retry_pause)
        raise AssertionError("the second attempt returns or raises")

    def _facts(self, photo: Photo, outcome: Outcome, verb: str) -> ItemFacts:
        try:
            records = records_of(outcome.output, verb)
            if len(records) != 1:
                raise AnswerUnknown
            facts = facts_of(records[0])
        except AnswerIncomplete:
            raise PhotoTransient(f"{photo.original_filename}: Photos' answer broke off.") from None
        except AnswerUnknown:
            raise self._not_understood(verb) from None
        if facts.id != photo.id:
            raise self._not_understood(verb)
        return facts

    async def _facts_alone(self, photo: Photo, seconds: float) -> ItemFacts:
        seconds = max(1.0, seconds)
        outcome = await self._osascript.run("item-facts", *_event_limit(seconds), photo.id, seconds=seconds)
        if not outcome.ok:
            _give_up_photo(photo, outcome)
        return self._facts(photo, outcome, "item-facts")

    async def _count(self, album_id: str) -> int:
        """The number of an album's items; 0 where it is gone."""
        try:
            return counts_of(await self._ask("album-counts", album_id)).get(album_id, 0)
        except AnswerUnknown:
            raise self._not_understood("album-counts") from None

    async def _names(self, ids: list[str]) -> dict[str, str]:
        """File names asked for item by item, for the rare album whose names cannot be told apart in one answer."""
        names: dict[str, str] = {}
        for start in range(0, len(ids), _IDS_PER_CALL):
            records = await self._ask("item-facts", *ids[start : start + _IDS_PER_CALL])
            try:
                names.update((facts.id, facts.filename) for facts in map(facts_of, records))
            except AnswerUnknown:
                raise self._not_understood("item-facts") from None
        return names

    # ── what errors mean ──────────────────────────────────────────────────────────────────────────────────────────

    def _give_up_listing(self, verb: str, outcome: Outcome) -> NoReturn:
        _stop_if_final(outcome)
        if verb == "item-ids" and (outcome.trouble is Trouble.GONE or outcome.error_number == 9002):
            problem = (
                "is no longer in Photos" if outcome.trouble is Trouble.GONE else "kept changing while it was listed"
            )
            raise SourceError(f"The album {problem} ({outcome.explanation}).")
        if outcome.trouble is Trouble.GONE:
            raise SourceStopped(f"Photos cannot be asked: {outcome.explanation}.", next_step="Is Photos installed?")
        if outcome.trouble is Trouble.NOT_RUNNING:
            raise SourceStopped(f"Photos is not reachable: {outcome.explanation}.", next_step=_SESSION)
        if outcome.trouble is Trouble.NO_REPLY:
            dialog = "Answer the dialog that Photos shows, or wait until it has opened its library."
            if verb == "preflight":
                dialog = (
                    f"Answer macOS's question whether {terminal_name()} may control Photos, or the dialog that Photos "
                    "shows; it may be behind other windows, or Photos may still be opening its library."
                )
            raise SourceStopped(f"Photos did not answer {verb}: {_no_answer(outcome)}.", remedy=dialog)
        if outcome.trouble is Trouble.CANCELLED:
            raise SourceStopped(f"Photos did not get ready: {outcome.explanation}.")
        raise SourceStopped(f"Photos did not answer {verb}: {outcome.explanation}.")

    def _not_understood(self, verb: str) -> SourceStopped:
        return SourceStopped(
            f"The answer to {verb} is not what the script of this version gives.",
            next_step="Install skicyclerun again, so that the program and its AppleScript belong together.",
        )


def _give_up_photo(photo: Photo, outcome: Outcome) -> NoReturn:
    name = photo.original_filename
    error: PhotoError
    if outcome.error_number in _ONE_ITEMS and not outcome.timed_out:
        error = PhotoRefused(f"{name}: Photos would not export it: {outcome.explanation}.")
        error.if_every = SourceStopped(f"The AppleScript failed: {outcome.explanation}.", next_step=_REPORT)
        raise error
    _stop_if_final(outcome)
    match outcome.trouble:
        case Trouble.GONE:
            error = PhotoGone(f"{name} is no longer in Photos, or cannot be had ({outcome.explanation})")
            error.if_every = SourceStopped(
                f"Photos finds none of the photos that it listed: {outcome.explanation}.",
                next_step=f"If they were deleted, `skicyclerun run --fresh` lists them anew. Otherwise: {_REPORT}",
            )
            raise error
        case Trouble.NO_REPLY:
            raise PhotoSlow(f"{name}: {_no_answer(outcome)}.")
        case Trouble.NOT_RUNNING:
            raise PhotoTransient(f"{name}: Photos is not reachable: {outcome.explanation}.")
        case _:
            raise PhotoTransient(f"{name}: Photos could not export it: {outcome.explanation}.")


def _stop_if_final(outcome: Outcome) -> None:
    if outcome.trouble is Trouble.DENIED:
        raise SourceStopped(f"macOS does not let this terminal control Photos: {outcome.explanation}.", remedy=_GRANT)
    if outcome.trouble is Trouble.BROKEN_SCRIPT:
        raise SourceStopped(f"The AppleScript failed: {outcome.explanation}.", next_step=_REPORT)


def _no_answer(outcome: Outcome) -> str:
    if outcome.timed_out:
        return "no answer within the time given; osascript was ended, Photos may still finish what it was doing"
    return f"Photos' answer timed out: {outcome.explanation}"


def _event_limit(seconds: float) -> tuple[str, str]:
    """How long one event may take: a little less than we wait, so that Photos' own -1712 comes first."""
    return "--timeout", str(max(1, int(seconds - min(10.0, seconds / 10))))


def _made(directory: Path) -> Path:
    """A new directory, absolute, in that of the attempt. Raises StorageError.

    Its name is used once and never again, also where a later run calls its attempts as this one did: Photos may come
    back to it after minutes.
    """
    path = Path(os.path.abspath(directory)) / secrets.token_hex(8)
    try:
        path.mkdir(parents=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"No space left to make {path}.") from error
        raise NotWritable(f"{path} cannot be made: {error.strerror}.") from error
    return path


def _photo(item_id: str, filename: str) -> Photo:
    name = filename or item_id.partition("/")[0]
    movie = PurePath(name).suffix.lower() in _MOVIE_SUFFIXES
    return Photo(item_id, name, Component.VIDEO if movie else Component.STILL)


def metadata_of(facts: ItemFacts, in_file: datetime | None) -> LibraryMetadata:
    """What Photos knows, ready to be written. `in_file` is the date the exported file already has."""
    return LibraryMetadata(
        date=_date_to_write(facts.date, in_file),
        location=facts.location,
        location_known=facts.location_known,
        title=facts.title or None,
        description=facts.description or None,
        keywords=facts.keywords,
        rating=5 if facts.favorite else None,
        favorite=facts.favorite,
    )


def _date_to_write(told: datetime | None, in_file: datetime | None) -> datetime | None:
    """None where the file's own date says the same moment.

    AppleScript gives the wall clock of the Mac, the file has that of the place: a difference that two time zones can
    make is no difference, and the file's clock is the better one to keep.
    """
    if told is None or in_file is None:
        return told
    difference = told - in_file
    same_moment = abs(difference) <= _WIDEST_ZONES and not difference % _ZONE_STEP
    return None if same_moment else told
