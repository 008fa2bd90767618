"""Rows of the table `archive_copies`: which archives lie in a second place, and which are still to be copied there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skicyclerun.errors import IllegalTransition
from skicyclerun.state.machine import CopyStatus, CopyTrigger, copy_target
from skicyclerun.state.runs import record

if TYPE_CHECKING:
    from skicyclerun.state.reading import Queries, Row
    from skicyclerun.state.store import Store, Transaction


@dataclass(frozen=True, slots=True)
class CopyRow:
    """The copy of one archive in one place. `name`, `size` and `sha256` are there once its name is reserved."""

    id: int
    file: str
    remote: str
    status: CopyStatus
    token: str
    name: str
    size: int | None
    sha256: str | None
    version: str
    attempts: int
    reason: str
    copied_at: str | None
    damage: str = ""
    """What reading it back again found wrong with it."""
    prune_begun: bool = False
    """Its removal, in both places, was begun: it is no archive any more, and whoever comes next finishes that."""

    @classmethod
    def of(cls, row: Row) -> CopyRow:
        return cls(
            id=row["id"],
            file=row["file"],
            remote=row["remote"],
            status=CopyStatus(row["status"]),
            token=row["token"],
            name=row["name"],
            size=row["size"],
            sha256=row["sha256"],
            version=row["version"],
            attempts=row["attempts"],
            reason=row["reason"],
            copied_at=row["copied_at"],
            damage=row["damage"],
            prune_begun=row["prune_begun_at"] is not None,
        )


async def enter_copies(transaction: Transaction, remote: str, files: Sequence[str]) -> None:
    """Enter that these archives are to be copied there; those that are entered already stay as they are."""
    import secrets  # not for those who only read

    for file in files:
        row = {"file": file, "remote": remote, "token": secrets.token_hex(16), "entered_at": transaction.now}
        if await transaction.execute("insert_copy", row) == 1:
            entered = await transaction.all("copies_of_remote", {"remote": remote})
            copy_id = next(each["id"] for each in entered if each["file"] == file)
            await record(transaction, "archive_copy", copy_id, "", "enter", CopyStatus.PENDING)


async def enter(store: Store, remote: str, files: Sequence[str]) -> None:
    """See `enter_copies`."""
    async with store.transaction() as transaction:
        await enter_copies(transaction, remote, files)


async def of_remote(store: Queries, remote: str) -> list[CopyRow]:
    """What is entered for this place and was not pruned, oldest first."""
    return [CopyRow.of(row) for row in await store.all("copies_of_remote", {"remote": remote})]


async def in_other_places(store: Queries, remote: str) -> list[CopyRow]:
    """Copies that were confirmed in another place than this one (empty: in any), oldest first."""
    return [CopyRow.of(row) for row in await store.all("copies_in_other_places", {"remote": remote})]


async def files_archived(store: Queries) -> set[str]:
    """Names of the archives that jobs of this database made."""
    return {str(row["file"]) for row in await store.all("files_archived")}


async def get(store: Store, copy_id: int) -> CopyRow:
    """Raises LookupError."""
    row = await store.one("copy_by_id", {"id": copy_id})
    if row is None:
        raise LookupError(f"There is no copy {copy_id}.")
    return CopyRow.of(row)


async def reserved(store: Store, copy: CopyRow, name: str, token: str, size: int, sha256: str) -> CopyRow:
    """Commit the name that the copy has there, whose it is, and what its bytes must be."""
    async with store.transaction() as transaction:
        values = {"id": copy.id, "name": name, "token": token, "size": size, "sha256": sha256}
        if await transaction.execute("name_copy", values) != 1:
            raise IllegalTransition(f"The copy of {copy.file} is no longer pending.")
    return await get(store, copy.id)


async def put_off(store: Store, copy: CopyRow, reason: str) -> None:
    """Enter why it is still pending."""
    async with store.transaction() as transaction:
        await transaction.execute("copy_put_off", {"id": copy.id, "reason": reason})


async def begin_prune(store: Store, copy: CopyRow) -> CopyRow:
    """Commit that its removal begins."""
    async with store.transaction() as transaction:
        await transaction.execute("copy_prune_begun", {"id": copy.id, "begun_at": transaction.now})
    return await get(store, copy.id)


async def withdraw_prune(store: Store, copy: CopyRow) -> None:
    """Commit that nothing of it was removed after all."""
    async with store.transaction() as transaction:
        await transaction.execute("copy_prune_begun", {"id": copy.id, "begun_at": None})


async def read_again(store: Store, copy: CopyRow, *, damage: str, version: str | None = None) -> None:
    """Commit what came of reading it back again: `damage`, or none, and then the `version` of what was read.

    Nothing changes where it was copied anew since `copy` was read.
    """
    async with store.transaction() as transaction:
        values = {"id": copy.id, "damage": damage, "version": version, "known": copy.version}
        await transaction.execute("copy_read_again", values)


async def forget(store: Store, copy: CopyRow) -> None:
    """Commit that there will be no copy of it. Raises IllegalTransition where it is no longer pending."""
    async with store.transaction() as transaction:
        if await transaction.execute("forget_copy", {"id": copy.id}) != 1:
            raise IllegalTransition(f"The copy of {copy.file} is no longer pending.")
        await record(transaction, "archive_copy", copy.id, copy.status, "forget", "")


async def step(store: Store, copy: CopyRow, trigger: CopyTrigger, *, version: str | None = None) -> CopyRow:
    """Commit a transition. Raises IllegalTransition, also when the database no longer holds `copy.status`."""
    target = copy_target(copy.status, trigger)
    async with store.transaction() as transaction:
        values = {
            "id": copy.id,
            "from_status": copy.status,
            "to_status": target,
            "version": version,
            "copied_at": transaction.now if trigger is CopyTrigger.CONFIRM else None,
            "ended_at": transaction.now if target is CopyStatus.PRUNED else None,
        }
        if await transaction.execute("step_copy", values) != 1:
            raise IllegalTransition(f"The copy of {copy.file} is no longer {copy.status}.")
        await record(transaction, "archive_copy", copy.id, copy.status, trigger, target)
    return await get(store, copy.id)


async def is_in_use(store: Store, file: str) -> bool:
    """Whether an archive job still needs the archive here: its folders are not emptied yet."""
    row = await store.one("jobs_with_file", {"file": file})
    return row is not None and bool(row["jobs"])


async def identity(store: Store, remote: str) -> str:
    """Which place it was that archives were copied to; empty where none were yet, or its address says it."""
    row = await store.one("remote_identity", {"remote": remote})
    return str(row["identity"]) if row is not None else ""


async def is_confirmed(store: Queries, remote: str) -> bool:
    """Whether the place is surely the one that is meant; also where nothing is remembered of it."""
    row = await store.one("remote_identity", {"remote": remote})
    return row is None or bool(row["confirmed"])


async def remember_identity(store: Store, remote: str, found: str, *, confirmed: bool) -> None:
    """Enter which place it is; `confirmed`: that it is the one that is meant."""
    async with store.transaction() as transaction:
        values = {"remote": remote, "identity": found, "confirmed": int(confirmed)}
        await transaction.execute("remember_remote", values)
