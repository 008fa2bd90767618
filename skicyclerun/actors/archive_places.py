"""Which archives there are, here and in the second place together, and which of them may go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from skicyclerun.actors.unwaited_thread import in_unwaited_thread
from skicyclerun.archive.listing import ListedArchive, list_archives, moment_of_name
from skicyclerun.archive.remote import CopyThere, Remote, copies_there
from skicyclerun.errors import ArchiveUnknown, RemoteError
from skicyclerun.settings.models import Settings
from skicyclerun.state import archive_copies
from skicyclerun.state.archive_copies import CopyRow
from skicyclerun.state.machine import CopyStatus
from skicyclerun.state.store import Store


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

    def in_words(self, *, looked: bool) -> str:
        """Where it lies. `looked`: the second place answered."""
        if self.copy is not None and self.copy.prune_begun:
            return "being removed; `skicyclerun archive prune` finishes that"
        lost = looked and self.there is None
        if self.copy is None:
            return "here" if self.here else "there, not by this database"
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
        """Also the ways in which `archive_named` takes a name. Raises ArchiveUnknown."""
        if name == "latest" and self.archives:
            return self.archives[-1]
        wanted = {name, f"{name}.zip", f"pipeline_{name}", f"pipeline_{name}.zip"}
        found = [one for one in self.archives if one.name in wanted]
        if not found:
            raise ArchiveUnknown(
                f"There is no archive {name!r} in {self.folder}{f' or {self.remote.url}' if self.remote else ''}.",
                next_step="`skicyclerun archive list` shows what there is.",
            )
        # Another machine's archive may bear the name of one of ours.
        return min(found, key=lambda one: one.copy is None and not one.here)


async def look_around(settings: Settings, store: Store | None, remote: Remote | None) -> Places:
    """List both places. Blocks while it reads the one here; a second one that does not answer is in the result."""
    folder = settings.paths.archive
    here = {one.name: one for one in list_archives(folder)}
    if remote is None:
        return Places(folder, tuple(PlacedArchive(one, here=True) for one in here.values()))
    rows = await archive_copies.of_remote(store, remote.url) if store is not None else []
    there: dict[str, CopyThere] = {}
    problem: RemoteError | None = None
    try:
        known = await archive_copies.identity(store, remote.url) if store is not None else ""
        await in_unwaited_thread(partial(remote.identify, known, make=False))
        there = {one.name: one for one in await in_unwaited_thread(partial(copies_there, remote))}
    except RemoteError as error:
        problem = error
    placed: list[PlacedArchive] = []
    for row in rows:
        found = there.pop(row.name, None) if row.name else None
        if found is not None and (found.record is None or found.record.token != row.token):
            there[row.name], found = found, None
        one = here.pop(row.file, None)
        placed.append(PlacedArchive(one or _listed(folder, row, found), one is not None, row, found))
    placed.extend(PlacedArchive(one, here=True) for one in here.values())
    placed.extend(PlacedArchive(_listed(folder, None, copy), here=False, there=copy) for copy in there.values())
    placed.sort(key=lambda each: each.listed.created_at)
    return Places(folder, tuple(placed), remote, problem)


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
            folder / name, (row.size if row else None) or 0, moment_of_name(name), proved=proved, problem=problem
        )
    return ListedArchive(folder / name, record.size, record.created, record.files, record.content_bytes, proved)
