"""Copies proved archives to the second place, beside whatever else a run does, and never in its way.

The order of writes, each step committed before the next begins:

    pending     entered in the transaction that commits the archive as proved
    (named)     record made there, which reserves the name; then the name in the row
    copied      written there, read back from there, SHA-256 compared; then the row
    only_there  with `keep_local: false`: looked at there once more, removed here, folder synced; then the row

What is not done stays pending: the next run takes it along, and `archive push` goes on with it. What can never be done,
because the archive here is gone, ends: what was reserved and written for it there is removed, then its row.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

from skicyclerun.archive.advance import Progress
from skicyclerun.archive.archive_file import ArchiveFile
from skicyclerun.archive.listing import list_archives
from skicyclerun.archive.remote import (
    CopyRecord,
    Remote,
    copy_archive,
    describe,
    finished_or_cleared,
    found_again,
    record_of,
    reserve,
)
from skicyclerun.errors import ArchiveError, ArchiveStopped, RemoteError, RemoteUnreachable
from skicyclerun.files.atomic_files import sync_directory
from skicyclerun.files.fault_points import fault_point
from skicyclerun.progress.events import Notice, ProgressEvent
from skicyclerun.state import archive_copies
from skicyclerun.state.archive_copies import CopyRow
from skicyclerun.state.machine import CopyStatus, CopyTrigger
from skicyclerun.state.store import Store
from skicyclerun.wording import counted

log = logging.getLogger(__name__)

_T = TypeVar("_T")

NEXT: Final = "`skicyclerun archive push` goes on with it."


def stays_here(url: str, count: int) -> str:
    """Why nothing is removed here, though `cleanup.keep_local` is false."""
    stay = "stays" if count == 1 else "stay"
    return (
        f"{counted(count, 'archive')} copied to {url} {stay} here too: when that place was first used it was empty, or "
        "on the disk of the archives themselves, and may be a mount point without its disk. If it is the folder that "
        "is meant, `skicyclerun archive push --new-place` says so."
    )


@dataclass(slots=True)
class Pushed:
    """What came of one pass over the pending copies."""

    copied: list[CopyRow] = field(default_factory=list)
    removed_here: list[str] = field(default_factory=list)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    """File names, and why each is still pending."""
    ended: list[tuple[str, str]] = field(default_factory=list)
    """File names of what is no longer here and was never copied, and what became of it."""
    kept_here: list[str] = field(default_factory=list)
    """File names of what stays here although it is copied, because the place is not confirmed."""


class ArchivePush:
    """Pushes what is entered for one place. The caller holds the run lock."""

    def __init__(
        self,
        store: Store,
        remote: Remote,
        archive_folder: Path,
        *,
        keep_local: bool,
        new_place: bool = False,
        stopping: Callable[[], bool],
        say: Callable[[ProgressEvent], None],
        advance: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """`new_place`: a person says that the place is the one that is meant, also where it was another before.

        `stopping` is asked between blocks; `advance` hears, in a thread, of bytes done with a file and in all.
        """
        self._store = store
        self._remote = remote
        self._folder = archive_folder
        self._keep_local = keep_local
        self._new_place = new_place
        self._stopping = stopping
        self._say = say
        self._advance = advance
        self._given_up = False
        self._finishing = False
        self._woken = anyio.Event()

    # ── beside a run ──────────────────────────────────────────────────────────────────────────────────────────────

    async def beside_a_run(self) -> None:
        """Push what is pending, and again whenever `wake` says that more may be; returns after `finish`.

        Raises nothing of ours: an archive that could not be copied is pending, and the export is not held up.
        """
        try:
            while not self._given_up:
                woken, last = self._woken, self._finishing
                await self.push()
                if last:
                    return
                await woken.wait()
        except Exception as error:  # a library's own; the run goes on, and what is pending says why
            log.exception("copying archives elsewhere ended early")
            self._say(Notice(f"Archives are not copied to {self._remote.url}: {error}. {NEXT}", "warning"))

    def wake(self) -> None:
        """An archive was proved."""
        self._woken.set()
        self._woken = anyio.Event()

    def finish(self) -> None:
        """No archive comes any more: one more pass, then the end."""
        self._finishing = True
        self.wake()

    def give_up(self) -> None:
        """Stop at the next block."""
        self._given_up = True

    # ── one pass ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def enter_all(self) -> None:
        """Enter every proved archive here that is not entered, and what is no longer there as it was copied.

        Raises RemoteError.
        """
        archives = await _in_thread(partial(list_archives, self._folder))
        proved = [one.name for one in archives if one.proved is not None]
        await archive_copies.enter(self._store, self._remote.url, proved)
        await self._identify()
        for copy in await archive_copies.of_remote(self._store, self._remote.url):
            if copy.status is CopyStatus.COPIED and copy.file in proved:
                file = await _in_thread(partial(self._remote.look, copy.name))
                if file is None or (file.size, file.version) != (copy.size, copy.version):
                    log.warning("%s is not in %s as it was copied", copy.name, self._remote.url)
                    await archive_copies.step(self._store, copy, CopyTrigger.LOST)

    async def push(self) -> Pushed:
        """Copy what is pending, oldest first; then remove here what is to be there alone.

        A place that does not answer ends the pass, anything else only that archive's part of it.
        """
        pushed = Pushed()
        rows = await archive_copies.of_remote(self._store, self._remote.url)
        pending = [row for row in rows if row.status is CopyStatus.PENDING]
        for number, row in enumerate(pending):
            try:
                if self._stop():
                    raise ArchiveStopped("stopped before it was copied")
                if await self._is_gone(row):
                    await self._end(pushed, row)
                else:
                    pushed.copied.append(await self._copy(row))
            except (ArchiveError, OSError) as error:
                ends = isinstance(error, RemoteUnreachable | ArchiveStopped)
                for left in pending[number:] if ends else [row]:
                    await self._put_off(pushed, left, error)
                if ends:
                    break
        if not self._keep_local and not self._stop():
            await self._remove_here(pushed)
        return pushed

    async def _put_off(self, pushed: Pushed, row: CopyRow, error: Exception) -> None:
        reason = str(error) if isinstance(error, ArchiveError) else f"{row.file} cannot be read ({error})."
        pushed.waiting.append((row.file, reason))
        log.warning("%s is not copied to %s yet: %s", row.file, self._remote.url, reason)
        with anyio.CancelScope(shield=True):
            await archive_copies.put_off(self._store, row, reason)
        if not isinstance(error, ArchiveStopped) and reason != row.reason:
            self._say(Notice(f"{row.file} is not copied to {self._remote.url} yet: {reason} {NEXT}", "warning"))

    async def _copy(self, row: CopyRow) -> CopyRow:
        """pending → copied. Raises RemoteError, ArchiveError, OSError."""
        await self._identify()
        path = self._folder / row.file
        if row.name:
            record = await _in_thread(partial(self._record_of, row, path))
        else:
            record = await _in_thread(partial(describe, path, row.token, stop=self._stop))
        name, record = await _in_thread(partial(self._reserve, row, record))
        fault_point("copy.reserved")
        if name != row.name:
            row = await archive_copies.reserved(self._store, row, name, record.token, record.size, record.sha256)
        fault_point("copy.named")
        version = await _in_thread(
            partial(
                copy_archive, self._remote, name, path, record, progress=self._progress_of(row.file), stop=self._stop
            )
        )
        with anyio.CancelScope(shield=True):
            row = await archive_copies.step(self._store, row, CopyTrigger.CONFIRM, version=version)
        fault_point("copy.committed")
        log.info("copied %s to %s as %s, read back from there", row.file, self._remote.url, name)
        self._say(Notice(f"{row.file} is copied to {self._remote.url} and was read back from there."))
        return row

    def _reserve(self, row: CopyRow, record: CopyRecord) -> tuple[str, CopyRecord]:
        again = found_again(self._remote, record) if not row.name else None
        return again if again is not None else (reserve(self._remote, record), record)

    def _record_of(self, row: CopyRow, path: Path) -> CopyRecord:
        """What the record there says of it, or what was said of it before; that the bytes are it, copying finds out."""
        there = record_of(self._remote, row.name)
        known = there is not None and (there.token, there.sha256) == (row.token, row.sha256)
        return there if known and there is not None else describe(path, row.token, stop=self._stop)

    async def _is_gone(self, row: CopyRow) -> bool:
        """Whether the archive is no longer in the archive folder, which itself is there."""
        path = self._folder / row.file
        there = await _in_thread(lambda: not self._folder.is_dir() or os.path.lexists(path))
        return not there and not await archive_copies.is_in_use(self._store, row.file)

    async def _end(self, pushed: Pushed, row: CopyRow) -> None:
        """pending → forgotten; or → copied, where a stop came between copying it and entering that.

        Raises RemoteError, ArchiveStopped.
        """
        await self._identify()
        url = self._remote.url
        work = partial(finished_or_cleared, self._remote, row.file, row.name, row.token, stop=self._stop)
        finished = await _in_thread(work)
        with anyio.CancelScope(shield=True):
            if finished is not None:
                name, record, version = finished
                if name != row.name:
                    row = await archive_copies.reserved(
                        self._store, row, name, record.token, record.size, record.sha256
                    )
                row = await archive_copies.step(self._store, row, CopyTrigger.CONFIRM, version=version)
                pushed.copied.append(row)
                self._say(Notice(f"{row.file} is copied to {url} and was read back from there; it is no longer here."))
                return
            await archive_copies.forget(self._store, row)
        said = f"it is no longer in {self._folder} and was not copied to {url}; it is not pending any more"
        pushed.ended.append((row.file, said))
        log.warning("%s: %s", row.file, said)
        self._say(Notice(f"{row.file}: {said}.", "warning"))

    async def _identify(self) -> None:
        url = self._remote.url
        known = await archive_copies.identity(self._store, url)
        asked = "" if self._new_place else known
        doubt = "" if asked or self._new_place else await _in_thread(partial(self._remote.doubt, self._folder))
        found = await _in_thread(partial(self._remote.identify, asked, make=True))
        if found != known or self._new_place:
            await archive_copies.remember_identity(self._store, url, found, confirmed=not doubt)
        self._new_place = False

    async def _remove_here(self, pushed: Pushed) -> None:
        """copied → only_there, for each that no job needs here any more. What cannot be looked at there stays here, and
        all of it where nobody knows whether the place is the disk that is meant."""
        rows = await archive_copies.of_remote(self._store, self._remote.url)
        copied = [row for row in rows if row.status is CopyStatus.COPIED]
        if copied and not await archive_copies.is_confirmed(self._store, self._remote.url):
            pushed.kept_here = [row.file for row in copied if (self._folder / row.file).exists()]
            if pushed.kept_here:
                self._say(Notice(stays_here(self._remote.url, len(pushed.kept_here)), "warning"))
            return
        for row in copied:
            if await archive_copies.is_in_use(self._store, row.file):
                continue
            try:
                await _in_thread(partial(self._remove_archive, row))
            except (ArchiveError, OSError) as error:
                log.warning("%s stays here: %s", row.file, error)
                self._say(Notice(f"{row.file} stays in {self._folder}: {error}", "warning"))
                continue
            fault_point("copy.removed_here")
            await archive_copies.step(self._store, row, CopyTrigger.REMOVED_HERE)
            fault_point("copy.only_there")
            pushed.removed_here.append(row.file)

    def _remove_archive(self, row: CopyRow) -> None:
        """Only what lies there as it was read back, and only the very archive that was copied."""
        file = self._remote.look(row.name)
        if file is None or (file.size, file.version) != (row.size, row.version):
            raise RemoteError(f"{row.name} in {self._remote.url} is not as it was copied.", next_step=NEXT)
        path = self._folder / row.file
        if path.exists():
            there = record_of(self._remote, row.name)
            with ArchiveFile(path) as archive:
                same = there is not None and (archive.size, archive.seal.created) == (there.size, there.created)
            if not same:
                raise RemoteError(f"{path} is another archive than {row.name} in {self._remote.url}.")
            path.unlink()
        sync_directory(self._folder)

    def _stop(self) -> bool:
        return self._given_up or self._stopping()

    def _progress_of(self, file: str) -> Progress | None:
        advance = self._advance
        return None if advance is None else partial(advance, file)


async def _in_thread(work: Callable[[], _T]) -> _T:
    """In a thread of its own that nobody waits for once it is cancelled: a service that does not answer, or a network
    folder that hangs, must hold up neither the end of a run nor that of the program. It finds out at its next block.
    """
    token = anyio.lowlevel.current_token()
    ended = anyio.Event()
    result: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)
        try:
            anyio.from_thread.run_sync(ended.set, token=token)
        except Exception:  # the event loop has ended without us
            log.debug("a copy ended after its run")

    threading.Thread(target=body, name="archive push", daemon=True).start()
    await ended.wait()
    if failure:
        raise failure[0]
    return result[0]
