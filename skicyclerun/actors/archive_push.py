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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio

from skicyclerun.archive.advance import Progress
from skicyclerun.archive.archive_file import ArchiveFile
from skicyclerun.archive.listing import list_archives
from skicyclerun.archive.remote import (
    CopyRecord,
    Remote,
    RemoteFile,
    copy_archive,
    describe,
    finished_or_cleared,
    found_again,
    reads_as,
    record_of,
    release,
    reserve,
)
from skicyclerun.archive.unwaited_thread import in_unwaited_thread
from skicyclerun.errors import (
    ArchiveError,
    ArchiveStopped,
    RemoteError,
    RemoteNameTaken,
    RemoteRefused,
    RemoteUnreachable,
)
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
#: How long a place may think about the first question once everything else of a run is done: a disk that is asleep
#: wakes up in less.
_PATIENCE_SECONDS: Final = 10.0


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
    not_there: list[tuple[str, str]] = field(default_factory=list)
    """File names of what is in neither place as it was archived, and cannot be copied; and why."""
    unfinished_removal: str = ""
    """Why one that `archive prune` began is not finished."""
    remarks: list[str] = field(default_factory=list)
    """Sentences of what else a person should know."""
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
        self._asked_at: float | None = None
        self._first_question: anyio.CancelScope | None = None
        self._silent: RemoteError | None = None
        """Why the place is not asked again in this run."""
        self._told: set[str] = set()

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
        """Everything else is done, and no archive comes any more: one more pass, then the end. A copy in hand goes on,
        but a place that has not answered at all by now is waited for `_PATIENCE_SECONDS` from the question."""
        self._finishing = True
        self._limit_patience()
        self.wake()

    def give_up(self) -> None:
        """Stop at the next block."""
        self._given_up = True

    # ── one pass ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def enter_all(self) -> list[tuple[str, str]]:
        """Enter every proved archive here that is not entered, and what is no longer there as it was copied. What lies
        there alone and was written anew is read again. Returns what is whole in neither place, and why.

        Raises RemoteError.
        """
        archives = await in_unwaited_thread(partial(list_archives, self._folder))
        proved = [one.name for one in archives if one.proved is not None]
        not_there = [
            (one.name, f"It is not copied: {_clause(one.problem or 'it was never proved')}.")
            for one in archives
            if one.proved is None
        ]
        await archive_copies.enter(self._store, self._remote.url, proved)
        await self._identify()
        for copy in await archive_copies.of_remote(self._store, self._remote.url):
            if copy.prune_begun or copy.status not in (CopyStatus.COPIED, CopyStatus.ONLY_THERE):
                continue
            file = await in_unwaited_thread(partial(self._remote.look, copy.name))
            as_copied = file is not None and (file.size, file.version) == (copy.size, copy.version) and not copy.damage
            if as_copied:
                continue
            log.warning("%s is not in %s as it was copied", copy.name, self._remote.url)
            if copy.status is CopyStatus.COPIED and copy.file in proved:
                await archive_copies.step(self._store, copy, CopyTrigger.LOST)
            elif file is None:
                not_there.append((copy.file, f"Its copy {copy.name} is gone from {self._remote.url}."))
            else:
                try:
                    whole = await self._is_whole_again(copy, file)
                except ArchiveStopped:
                    break
                if not whole:
                    not_there.append((copy.file, f"Its copy {copy.name} in {self._remote.url} is damaged."))
        return not_there

    async def _is_whole_again(self, copy: CopyRow, file: RemoteFile) -> bool:
        """Read what lies there once more, and enter what came of it. Raises ArchiveStopped, RemoteError."""
        same = partial(reads_as, self._remote, file, copy.size or 0, copy.sha256 or "", stop=self._stop)
        whole = await in_unwaited_thread(same)
        damage = "" if whole else "what lies there has other bytes than were copied"
        await archive_copies.read_again(self._store, copy, damage=damage, version=file.version if whole else None)
        return whole

    async def push(self) -> Pushed:
        """Copy what is pending, oldest first; then remove here what is to be there alone.

        A place that does not answer, or that cannot be used at all, ends the pass, and is not asked again by the same
        run; anything else ends only that archive's part of it.
        """
        pushed = Pushed()
        rows = await archive_copies.of_remote(self._store, self._remote.url)
        pending = [row for row in rows if row.status is CopyStatus.PENDING and not row.prune_begun]
        for number, row in enumerate(pending):
            try:
                if self._stop():
                    raise ArchiveStopped("stopped before it was copied")
                if self._silent is not None:
                    raise self._silent
                if await self._is_gone(row):
                    await self._end(pushed, row)
                else:
                    pushed.copied.append(await self._copy(row, pushed))
            except (ArchiveError, OSError) as error:
                ends = isinstance(error, RemoteUnreachable | RemoteRefused | ArchiveStopped)
                await self._put_off(pushed, pending[number:] if ends else [row], error)
                if ends:
                    break
        if not self._keep_local and not self._stop() and self._silent is None:
            await self._remove_here(pushed)
        return pushed

    async def _put_off(self, pushed: Pushed, rows: Sequence[CopyRow], error: Exception) -> None:
        """One sentence for all of them, however many they are."""
        if isinstance(error, RemoteUnreachable | RemoteRefused):
            self._silent = error
        reason = _reason(error) if isinstance(error, ArchiveError) else f"{rows[0].file} cannot be read ({error})."
        news = [row for row in rows if row.reason != reason]
        pushed.waiting += [(row.file, reason) for row in rows]
        log.warning("not copied to %s yet: %s: %s", self._remote.url, ", ".join(row.file for row in rows), reason)
        with anyio.CancelScope(shield=True):
            for row in rows:
                await archive_copies.put_off(self._store, row, reason)
        if isinstance(error, ArchiveStopped) or not news or reason in self._told:
            return
        self._told.add(reason)
        which = f"{rows[0].file} is" if len(rows) == 1 else f"{len(rows)} archives are"
        self._say(Notice(f"{which} not copied to {self._remote.url} yet: {reason} {NEXT}", "warning"))

    async def _copy(self, row: CopyRow, pushed: Pushed) -> CopyRow:
        """pending → copied. Raises RemoteError, ArchiveError, OSError."""
        await self._identify()
        path = self._folder / row.file
        if not path.exists():  # its folder is not there, or a job needs it still; otherwise its entry has ended
            raise ArchiveError(f"{path} is not there.")
        while True:
            try:
                row, version = await self._written(row, path)
                break
            except RemoteNameTaken as error:
                # Theirs stays, and so does its name; ours is the next one.
                pushed.remarks.append(f"{row.file} gets another name there. {error}")
                self._say(Notice(pushed.remarks[-1], "warning"))
                row = await archive_copies.get(self._store, row.id)
                await in_unwaited_thread(partial(release, self._remote, error.name, row.token))
        with anyio.CancelScope(shield=True):
            row = await archive_copies.step(self._store, row, CopyTrigger.CONFIRM, version=version)
        fault_point("copy.committed")
        log.info("copied %s to %s as %s, read back from there", row.file, self._remote.url, row.name)
        called = "" if row.name == row.file else f" as {row.name}"
        self._say(Notice(f"{row.file} is copied to {self._remote.url}{called} and was read back from there."))
        return row

    async def _written(self, row: CopyRow, path: Path) -> tuple[CopyRow, str]:
        """Its name reserved, its bytes written and read back: the row, and the version of what lies there."""
        if row.name:
            record = await in_unwaited_thread(partial(self._record_of, row, path))
        else:
            record = await in_unwaited_thread(partial(describe, path, row.token, stop=self._stop))
        name, record = await in_unwaited_thread(partial(self._reserve, row, record))
        fault_point("copy.reserved")
        if name != row.name:
            # A version is known of what lies at the former name alone.
            row = await archive_copies.reserved(self._store, row, name, record.token, record.size, record.sha256)
            known = ""
        else:
            known = row.version
        fault_point("copy.named")
        copy = partial(copy_archive, version=known, progress=self._progress_of(row.file), stop=self._stop)
        version = await in_unwaited_thread(partial(copy, self._remote, name, path, record))
        return row, version

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
        there = await in_unwaited_thread(lambda: not self._folder.is_dir() or os.path.lexists(path))
        return not there and not await archive_copies.is_in_use(self._store, row.file)

    async def _end(self, pushed: Pushed, row: CopyRow) -> None:
        """pending → forgotten; or → copied, where a stop came between copying it and entering that.

        Raises RemoteError, ArchiveStopped.
        """
        await self._identify()
        url = self._remote.url
        work = partial(finished_or_cleared, self._remote, row.file, row.name, row.token, stop=self._stop)
        finished = await in_unwaited_thread(work)
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
        confirms = bool(asked) or self._new_place

        def question() -> tuple[str, str]:
            doubt = "" if confirms else self._remote.doubt(self._folder)
            return doubt, self._remote.identify(asked, make=True)

        doubt, found = await self._first_answer(question)
        if found != known or self._new_place:
            await archive_copies.remember_identity(self._store, url, found, confirmed=not doubt)
        self._new_place = False

    async def _first_answer(self, question: Callable[[], _T]) -> _T:
        """Of the place; its first one is waited for only so long once everything else is done. Raises RemoteError."""
        if self._asked_at is not None and self._first_question is None:
            return await in_unwaited_thread(question)
        self._asked_at = anyio.current_time()
        with anyio.CancelScope() as self._first_question:
            self._limit_patience()
            found = await in_unwaited_thread(question)
            self._first_question = None
            return found
        raise RemoteUnreachable(self._remote.url, f"it has not answered within {_PATIENCE_SECONDS:.0f} seconds")

    def _limit_patience(self) -> None:
        if self._finishing and self._first_question is not None and self._asked_at is not None:
            self._first_question.deadline = self._asked_at + _PATIENCE_SECONDS

    async def _remove_here(self, pushed: Pushed) -> None:
        """copied → only_there, for each that no job needs here any more. What cannot be looked at there stays here, and
        all of it where nobody knows whether the place is the disk that is meant."""
        rows = await archive_copies.of_remote(self._store, self._remote.url)
        copied = [row for row in rows if row.status is CopyStatus.COPIED and not row.prune_begun and not row.damage]
        if copied and not await archive_copies.is_confirmed(self._store, self._remote.url):
            pushed.kept_here = [row.file for row in copied if (self._folder / row.file).exists()]
            if pushed.kept_here:
                self._say(Notice(stays_here(self._remote.url, len(pushed.kept_here)), "warning"))
            return
        for row in copied:
            if await archive_copies.is_in_use(self._store, row.file):
                continue
            try:
                if self._asked_at is None:
                    await self._identify()
                await in_unwaited_thread(partial(self._remove_archive, row))
            except RemoteUnreachable as error:
                self._silent = error
                self._say(Notice(f"Archives stay in {self._folder} though they are copied: {error}", "warning"))
                return
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


def _reason(error: ArchiveError) -> str:
    """The sentence, and what to do about it, unless that is to push again."""
    return str(error) if "archive push" in error.next_step else f"{error} {error.next_step}".rstrip()


def _clause(sentence: str) -> str:
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")
