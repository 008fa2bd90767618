"""Which archives there are, here and in the second place together, and which of them may go."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from skicyclerun.archive.archive_file import ArchiveFile
from skicyclerun.archive.listing import ListedArchive, list_archives, moment_of_name
from skicyclerun.archive.remote import CopyThere, Remote, copies_there, open_there
from skicyclerun.archive.unwaited_thread import in_unwaited_thread
from skicyclerun.errors import ArchiveError, ArchiveUnknown, RemoteError
from skicyclerun.settings.models import Settings
from skicyclerun.state import archive_copies
from skicyclerun.state.archive_copies import CopyRow
from skicyclerun.state.machine import CopyStatus
from skicyclerun.state.store import Store
from skicyclerun.wording import bytes_in_words, counted

#: Said of what lies in the second place without a row of ours.
NOT_OURS: Final = "not by this database"
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class PlacedArchive:
    """One archive and where it lies."""

    listed: ListedArchive
    """Of one that lies elsewhere only, what its record there says; its path is where it was."""
    here: bool
    copy: CopyRow | None = None
    """What our database says of its copy."""
    there: CopyThere | None = None
    """What was found in the second place."""
    elsewhere: tuple[CopyRow, ...] = ()
    """Its confirmed copies in places that are not `cleanup.remote` now, oldest first."""
    made_by_us: bool = False
    """A job of our database made it."""
    lost: bool = False
    """The second place answered, and its confirmed copy is not there."""

    @property
    def name(self) -> str:
        return self.listed.name

    @property
    def name_there(self) -> str:
        """Empty where nothing is known of a copy that could be read."""
        if self.there is not None:
            return self.there.name
        return self.copy.name if self.copy is not None and self.copy.status is not CopyStatus.PENDING else ""

    @property
    def confirmed(self) -> bool:
        """Whether its copy was read back from there, and nobody has found it missing since."""
        return self.copy is not None and self.copy.status in (CopyStatus.COPIED, CopyStatus.ONLY_THERE)

    @property
    def is_ours(self) -> bool:
        """False of another machine's, or of what our database has lost."""
        return self.here or self.copy is not None or bool(self.elsewhere)

    @property
    def may_be_latest(self) -> bool:
        """Whether it is an archive of ours: not a file that only bears an archive's name, nor one that is nowhere or
        being removed."""
        if self.copy is not None and self.copy.prune_begun:
            return False
        if self.here:
            return self.made_by_us or self.copy is not None or not self.listed.problem
        return self.confirmed or bool(self.elsewhere)

    @property
    def out_of_reach(self) -> CopyRow | None:
        """The copy in a place that is not `cleanup.remote` now, where it lies nowhere that can be read."""
        within = self.here or (self.confirmed and not self.lost)
        return self.elsewhere[-1] if self.elsewhere and not within else None

    @property
    def has_another_size(self) -> bool:
        """Whether what lies in the second place is no copy of it, as can be seen from outside."""
        if self.there is None:
            return False
        known = {self.copy.size} if self.copy is not None else set()
        known |= {self.there.record.size} if self.there.record is not None else set()
        return bool(known - {self.there.file.size})

    def in_words(self, *, looked: bool) -> str:
        """Where it lies. `looked`: the second place answered."""
        if self.copy is not None and self.copy.prune_begun:
            return "being removed; `skicyclerun archive prune` finishes that"
        words = self._in_both(looked)
        if self.there is not None and self.there.name != self.name:
            words += f" as {self.there.name}"
        if self.there is not None and self.has_another_size:
            words += f" ({bytes_in_words(self.there.file.size)} there: not its size)"
        if not self.elsewhere or (self.confirmed and not self.lost):
            return words
        besides = f"in {self.elsewhere[-1].remote}, which is not `cleanup.remote` now"
        return f"{words}, and {besides}" if self.here else besides

    def _in_both(self, looked: bool) -> str:
        lost = looked and self.there is None
        if self.copy is None:
            return "here" if self.here else f"there, {NOT_OURS}"
        if not self.confirmed:
            return "here, copy pending" if self.here else "nowhere: it was not copied"
        if self.here:
            return "here, copy gone" if lost else "here and there"
        return "nowhere: its copy is gone" if lost else "there"

    def as_json(self, remote: str) -> dict[str, Any] | None:
        """Of the copy; None where there is none."""
        if self.copy is None and self.there is None:
            return None
        known: dict[str, Any] = {"remote": remote, "name": self.name_there, "found": self.there is not None}
        known["size_found"] = self.there.file.size if self.there is not None else None
        if self.copy is not None:
            known |= {
                "status": self.copy.status.value,
                "reason": self.copy.reason,
                "copied_at": self.copy.copied_at,
                "sha256": self.copy.sha256,
            }
        return known


@dataclass(frozen=True, slots=True)
class Places:
    """Both places, looked at once."""

    folder: Path
    archives: tuple[PlacedArchive, ...]
    """Oldest first."""
    remote: Remote | None = None
    problem: RemoteError | None = None
    """Why the second place could not be looked at."""

    @property
    def looked(self) -> bool:
        return self.remote is not None and self.problem is None

    def named(self, name: str) -> PlacedArchive:
        """Also the ways in which `archive_named` takes a name, and the address of a copy. Raises ArchiveUnknown.

        `latest` is the newest archive of our database, or in our archive folder; never another machine's.
        """
        if name == "latest":
            return self._latest()
        wanted = {name, f"{name}.zip", f"pipeline_{name}", f"pipeline_{name}.zip"}
        address = name.removeprefix(f"{self.remote.url}/") if self.remote is not None else name
        found = [one for one in self.archives if one.name in wanted and address == name]
        # The second archive of a name is called …-2 there, which another machine's may be as well.
        found = found or [one for one in self.archives if one.name_there in (wanted if address == name else {address})]
        if not found:
            near = ", ".join(difflib.get_close_matches(name, [one.name for one in self.archives], n=3))
            raise ArchiveUnknown(
                f"There is no archive {name!r} in {self.in_words}.{f' Nearest: {near}.' if near else ''}",
                next_step="`skicyclerun archive list` shows what there is.",
            )
        # Another machine's archive may bear the name of one of ours.
        return min(found, key=lambda one: not one.is_ours)

    @property
    def in_words(self) -> str:
        return f"{self.folder} and {self.remote.url}" if self.remote is not None else str(self.folder)

    @property
    def out_of_reach(self) -> list[CopyRow]:
        """See `PlacedArchive.out_of_reach`."""
        return [one.out_of_reach for one in self.archives if one.out_of_reach is not None]

    @property
    def strangers(self) -> list[PlacedArchive]:
        """What lies in the second place and is not of our database, oldest first."""
        return [one for one in self.archives if not one.is_ours]

    def newer_strangers(self, chosen: PlacedArchive) -> list[PlacedArchive]:
        """Those of them that are newer, by what is said of them."""
        return [one for one in self.strangers if one.listed.created_at > chosen.listed.created_at]

    def _latest(self) -> PlacedArchive:
        ours = [one for one in self.archives if one.may_be_latest]
        if ours:
            return ours[-1]
        strangers = self.strangers
        if self.remote is not None and strangers:
            shown = ", ".join(one.name for one in strangers[-_SHOWN:])
            more = f" and {len(strangers) - _SHOWN} older" if len(strangers) > _SHOWN else ""
            raise ArchiveUnknown(
                f"No archive of this database is known, so that none is the latest. {self.remote.url} holds "
                f"{counted(len(strangers), 'archive')} that this database does not know, another machine's or from "
                f"before it was lost: {shown}{more}.",
                next_step="Name the one that is meant.",
            )
        raise ArchiveUnknown(
            f"There is no archive in {self.in_words}.", next_step="`skicyclerun archive list` shows what there is."
        )


async def look_around(settings: Settings, store: Store | None, remote: Remote | None) -> Places:
    """List both places. Blocks while it reads the one here; a second one that does not answer is in the result."""
    folder = settings.paths.archive
    here = {one.name: one for one in list_archives(folder)}
    url = remote.url if remote is not None else ""
    rows: dict[str, CopyRow] = {}
    elsewhere: dict[str, list[CopyRow]] = {}
    made: set[str] = set()
    known = ""
    if store is not None:
        rows = {row.file: row for row in await archive_copies.of_remote(store, url)} if remote is not None else {}
        for row in await archive_copies.in_other_places(store, url):
            elsewhere.setdefault(row.file, []).append(row)
        made = await archive_copies.files_archived(store)
        known = await archive_copies.identity(store, url)
    there: dict[str, CopyThere] = {}
    problem: RemoteError | None = None
    if remote is not None:
        try:
            await in_unwaited_thread(partial(remote.identify, known, make=False))
            there = {one.name: one for one in await in_unwaited_thread(partial(copies_there, remote))}
        except RemoteError as error:
            problem = error
    placed: list[PlacedArchive] = []
    for file in dict.fromkeys((*rows, *here, *elsewhere)):
        copy = rows.get(file)
        found = there.get(copy.name) if copy is not None else None
        if copy is not None and found is not None and _is_copy(found, copy):
            del there[copy.name]
        else:
            found = None
        others = tuple(elsewhere.get(file, ()))
        listed = here.get(file) or _listed(folder, copy or others[-1], found)
        one = PlacedArchive(listed, file in here, copy, found, others, file in made)
        looked = remote is not None and problem is None
        placed.append(replace(one, lost=looked and one.confirmed and found is None))
    placed.extend(PlacedArchive(_listed(folder, None, copy), here=False, there=copy) for copy in there.values())
    placed.sort(key=lambda each: each.listed.created_at)
    return Places(folder, tuple(placed), remote, problem)


def made_of(remote: Remote, archives: Sequence[PlacedArchive], folders: Collection[Path]) -> list[str]:
    """Names of those whose manifest there says that they were made of these folders. What cannot be read is not."""
    found = []
    for one in archives:
        if one.there is None:
            continue
        with suppress(ArchiveError, OSError), ArchiveFile(open_there(remote, one.there.file)) as archive:
            manifest, _ = archive.contents()
            if {Path(each) for each in manifest.folders.values()} <= set(folders):
                found.append(one.name)
    return found


async def out_of_reach(store: Store, folder: Path, url: str) -> list[CopyRow]:
    """Copies in other places than this one, of archives that lie neither here nor in this one; no place is asked."""
    rows = await archive_copies.of_remote(store, url)
    within = {row.file for row in rows if row.status is not CopyStatus.PENDING}
    others = {row.file: row for row in await archive_copies.in_other_places(store, url)}
    return [row for file, row in others.items() if file not in within and not (folder / file).exists()]


def _is_copy(there: CopyThere, copy: CopyRow) -> bool:
    """Whether it is ours: by the token of its record, or, where that is gone, by being just what was read back."""
    if there.record is not None:
        return there.record.token == copy.token
    return (there.file.size, there.file.version) == (copy.size, copy.version)


def _listed(folder: Path, row: CopyRow | None, there: CopyThere | None) -> ListedArchive:
    """An archive that lies elsewhere only."""
    name = row.file if row is not None else there.name if there is not None else ""
    record = there.record if there is not None else None
    proved = row.copied_at if row is not None else None
    if record is not None:
        try:
            datetime.fromisoformat(record.created)
        except ValueError:
            record = None
    if record is None:
        problem = "It has no record that can be read." if there is not None else ""
        return ListedArchive(
            folder / name, (row.size if row else None) or 0, _of_name(name), proved=proved, problem=problem
        )
    return ListedArchive(folder / name, record.size, record.created, record.files, record.content_bytes, proved)


def _of_name(name: str) -> str:
    """When it was made, by its name, which jobs give it in UTC; the beginning of time where that says nothing."""
    return moment_of_name(name).removesuffix("Z") + "Z"
