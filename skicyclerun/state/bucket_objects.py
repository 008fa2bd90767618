"""Rows of what lies in a bucket, and of what a CDN is still to be told.

An object's row comes before anything is sent under its key; that the service has it is committed together with the
picture's row. So a stop anywhere leaves nothing in the bucket that no row knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from skicyclerun.bucket.known import Kind, KnownObject, ObjectStatus
from skicyclerun.bucket.objects import Stored
from skicyclerun.files.naming import collision_key
from skicyclerun.state.store import Row, Store, Transaction


async def of_place(store: Store, place: str) -> list[KnownObject]:
    """All objects of a bucket."""
    return [_of(row) for row in await store.all("bucket_objects", {"place": place})]


def _of(row: Row) -> KnownObject:
    return KnownObject(
        key=row["key"],
        wanted=row["wanted"],
        kind=Kind(row["kind"]),
        folder=row["folder"],
        input=row["input"],
        status=ObjectStatus(row["status"]),
        size=row["size"],
        sha256=row["sha256"],
        etag=row["etag"],
        checksum=row["checksum"],
        moved_from=row["moved_from"],
        left=bool(row["left_album"]),
        made_of=row["made_of"],
    )


@dataclass(frozen=True, slots=True)
class IndexThere:
    """An index that the service has confirmed."""

    sha256: str
    made_of: str
    """Of an album's: digest of the rows that it and its pictures come from, as they were when all was there."""


async def index_there(store: Store, place: str, folder: str, wanted: str) -> IndexThere | None:
    """The index of an album, or with no folder that of all albums, if it is in the bucket.

    `wanted`: its key, as it would be if no other had it.
    """
    row = await store.one("index_in_bucket", {"place": place, "folder": folder, "wanted": wanted})
    return IndexThere(row["sha256"], row["made_of"]) if row is not None else None


async def index_is_made_of(transaction: Transaction, place: str, key: str, made_of: str) -> None:
    """Enter that all of this album is there, as these rows say."""
    await transaction.execute("index_is_made_of", {"place": place, "key": key, "made_of": made_of})


async def may_go(store: Store, place: str) -> bool:
    """Whether any object has left its album, moved, or is being removed."""
    row = await store.one("bucket_objects_that_may_go", {"place": place})
    return row is not None and bool(row["some"])


async def digest_of_inputs(
    store: Store, facts_from: Sequence[str], upstreams: Sequence[Sequence[str]], folder: str
) -> str:
    """SHA-256 of all rows of stages before, and of the export, that decide what becomes of an album.

    `facts_from`: the stages whose facts are seen. What is new in every run is left out.
    """
    exported = await store.all("exported_inputs", {"folder": folder})
    found: list[object] = [[tuple(row)[:-1] for row in exported]]  # the last is the run
    found.append([tuple(row) for row in await store.all("export_owes", {"folder": folder})])
    for upstream in upstreams:
        if tuple(upstream) == ("export",):
            continue
        where = {"stage": upstream[0], "folder": folder}
        found.append([tuple(row) for row in await store.all("stage_inputs", where)])
        found.append([tuple(row) for row in await store.all("stage_owes", where)])
        stages = {"stages": orjson.dumps(upstream).decode(), "folder": folder}
        found.append([tuple(row) for row in await store.all("photos_left_out_by_stages", stages)])
    makers = orjson.dumps([upstream[0] for upstream in upstreams]).decode()
    found.append([tuple(row) for row in await store.all("sizes_of_inputs", {"folder": folder, "stages": makers})])
    if facts_from:
        facts = {"folder": folder, "stages": orjson.dumps(facts_from).decode()}
        found.append([tuple(row) for row in await store.all("stage_facts", facts)])
    return _digest(found)


async def digest_of_results(store: Store, stage: str, place: str, folder: str) -> str:
    """SHA-256 of the stage's rows of an album, and of its pictures in the bucket."""
    made = await store.all("stage_results_of_folder", {"stage": stage, "folder": folder})
    objects = await store.all("bucket_objects_of_folder", {"place": place, "folder": folder})
    return _digest([[tuple(row) for row in made], [tuple(row) for row in objects]])


async def is_of_these_results(store: Store, stage: str, place: str, folder: str, made_of: str) -> bool:
    """Whether an album's index, made of that, is of the rows that its pictures have now."""
    return made_of.rpartition(" ")[2] == await digest_of_results(store, stage, place, folder)


def _digest(found: object) -> str:
    return hashlib.sha256(orjson.dumps(found)).hexdigest()


async def claim(transaction: Transaction, place: str, objects: Sequence[KnownObject]) -> None:
    """Enter that something is about to be sent under these keys."""
    rows = [
        {
            "place": place,
            "key": each.key,
            "folded": collision_key(each.key),
            "wanted": each.wanted,
            "kind": each.kind.value,
            "folder": each.folder,
            "input": each.input,
            "moved_from": each.moved_from,
        }
        for each in objects
    ]
    await transaction.execute_many("leave_the_name_to_bucket_object", rows)
    await transaction.execute_many("claim_bucket_object", rows)


async def confirm(transaction: Transaction, place: str, objects: Sequence[Stored]) -> None:
    """Enter that the service has these."""
    await transaction.execute_many(
        "confirm_bucket_object",
        [
            {
                "place": place,
                "key": each.key,
                "size": each.size,
                "sha256": each.sha256,
                "etag": each.etag,
                "checksum": each.checksum,
                "now": transaction.now,
            }
            for each in objects
        ],
    )


async def mark(transaction: Transaction, query: str, place: str, keys: Sequence[str]) -> None:
    """Run the named statement for each of these objects."""
    await transaction.execute_many(query, [{"place": place, "key": key} for key in keys])


async def send_again(transaction: Transaction, place: str, seen: Mapping[str, str | None]) -> None:
    """Enter that these objects are to be sent again, whatever lies under their keys by now.

    `seen`: key → the ETag that was seen there, None where there was nothing. Only that one is replaced.
    """
    rows = [{"place": place, "key": key, "etag": etag} for key, etag in seen.items()]
    await transaction.execute_many("bucket_object_to_be_sent_again", rows)


async def changed_at_the_edge(transaction: Transaction, place: str, distribution: str, keys: Sequence[str]) -> None:
    """Enter keys of a bucket of which a CDN may show the old bytes. Nothing where there is no CDN."""
    if distribution:
        rows = [{"distribution": distribution, "key": key, "place": place} for key in keys]
        await transaction.execute_many("cdn_change", rows)


async def take_over_changes(
    store: Store, place: str, distribution: str, paths_of: Callable[[Sequence[str]], Sequence[str]]
) -> bool:
    """Whatever of this bucket another distribution was to be told of, and never was, is this one's from now on.

    So is what this one was to be told of by other paths than those that the keys mean now. Whether there was anything.
    """
    at = {"distribution": distribution, "place": place}
    keys = [row["key"] for row in await store.all("cdn_changes_of_others", at)]
    again: list[int] = []
    handed_on: list[int] = []
    for row in await store.all("unsent_cdn_invalidations", {"place": place}):
        of_row = orjson.loads(row["keys"])
        if of_row and (row["distribution"] != distribution or list(paths_of(of_row)) != orjson.loads(row["paths"])):
            again.append(row["id"])
            keys += of_row
        elif not of_row and row["distribution"] != distribution:
            handed_on.append(row["id"])  # of an earlier version: it knows its paths alone
    if not (keys or handed_on):
        return False
    async with store.transaction() as transaction:
        await transaction.execute("forget_cdn_changes_of_others", at)
        await transaction.execute_many("forget_cdn_invalidation", [{"id": each} for each in again])
        await transaction.execute_many("hand_on_cdn_invalidation", [{"id": each, **at} for each in handed_on])
        await changed_at_the_edge(transaction, place, distribution, keys)
    return True


@dataclass(frozen=True, slots=True)
class Invalidation:
    """Paths that a CDN is to forget."""

    id: int
    reference: str
    paths: tuple[str, ...]
    remote_id: str
    """Empty until the CDN has taken it."""


async def open_invalidations(store: Store, distribution: str) -> list[Invalidation]:
    """Those that are not known to be completed."""
    rows = await store.all("open_cdn_invalidations", {"distribution": distribution})
    return [
        Invalidation(row["id"], row["reference"], tuple(orjson.loads(row["paths"])), row["remote_id"]) for row in rows
    ]


async def changes(store: Store, distribution: str) -> list[str]:
    """The keys that changed and stand in no invalidation yet."""
    return [row["key"] for row in await store.all("cdn_changes", {"distribution": distribution})]


async def enter_invalidation(
    store: Store, place: str, distribution: str, keys: Sequence[str], paths: Sequence[str]
) -> None:
    """These changes are an invalidation from now on. `paths` empty: they concern nothing that the CDN shows."""
    async with store.transaction() as transaction:
        await transaction.execute_many(
            "forget_cdn_change", [{"distribution": distribution, "key": key} for key in keys]
        )
        if paths:
            text = orjson.dumps(paths).decode()
            reference = hashlib.sha256(f"{distribution} {transaction.now} {text}".encode()).hexdigest()[:32]
            await transaction.insert(
                "insert_cdn_invalidation",
                {
                    "distribution": distribution,
                    "reference": f"skicyclerun-{reference}",
                    "paths": text,
                    "at": transaction.now,
                    "place": place,
                    "keys": orjson.dumps(keys).decode(),
                },
            )


async def step_invalidation(store: Store, invalidation: Invalidation, status: str, remote_id: str) -> None:
    """`sent` or `completed`."""
    async with store.transaction() as transaction:
        await transaction.execute(
            "step_cdn_invalidation", {"id": invalidation.id, "status": status, "remote_id": remote_id}
        )
