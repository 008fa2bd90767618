"""What `s3_deployment` keeps besides its pictures' rows: objects, indexes of albums, removals, what changed for a CDN.

The order of writes: an object's row (claimed) → the object, confirmed by the service → the picture's row and the
object's, in one transaction → the index of its album, in one PUT → what has left the albums is entered as leaving →
removed → forgotten → the CDN is told (`invalidations`).
A stop anywhere is found again from the rows and repeated.

A move is a move: an object whose bytes another key took over leaves the old key, also without `delete_removed`, and
not before an index names the new one. What left its album for nowhere leaves the bucket only with it. An index is sent
anew before anything that it named leaves, also that of an album which is gone and keeps some of its pictures.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import orjson

from skicyclerun import __version__
from skicyclerun.actors.invalidations import Invalidations
from skicyclerun.actors.stage_plan import StageRun, facts_of_pictures
from skicyclerun.bucket.album_index import (
    IndexedAlbum,
    IndexedPicture,
    album_index,
    album_index_without,
    albums_index,
    pictures_by_index,
)
from skicyclerun.bucket.known import Kind, KnownObject, KnownObjects, ObjectStatus
from skicyclerun.bucket.objects import Bucket, Stored
from skicyclerun.errors import StagePaused
from skicyclerun.files.fault_points import fault_point
from skicyclerun.stages.s3_deployment import NAME, S3Deployment, or_paused
from skicyclerun.stages.stage import ForNow
from skicyclerun.state import bucket_objects, runs, stage_pictures
from skicyclerun.state.stage_pictures import PictureMade, PicturePlan, PictureStatus
from skicyclerun.state.store import Store, Transaction
from skicyclerun.wording import bytes_in_words, counted

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_LONGEST_INDEX = 1 << 30


class Deployment:
    """The `Publication` of one run. It belongs to the event loop; what asks the service does so in threads."""

    def __init__(self, run: StageRun, recipe: S3Deployment) -> None:
        self._run = run
        self._recipe = recipe
        self._place = recipe.service.place
        self._begun = False
        self._gone_through: dict[str, bool] = {}
        """Albums of this process; whether the index in the bucket is that of their pictures."""
        self._inputs: dict[str, str] = {}
        """Albums of this process; the digest of their inputs before they were planned."""
        self._unchanged: set[str] = set()
        self._named: dict[str, int] = {}
        """Keys of indexes that are as this process has made them: how many pictures each names."""
        self._others: list[str] = []
        """Keys of indexes under which somebody else's object lies."""
        self._on_their_way: frozenset[str] = frozenset()
        """SHA-256 of the pictures that were claimed last."""
        self._changes: set[str] = set()
        """Keys that stand as changed for the CDN, entered by this process."""
        self._would_go = [0, 0]
        """With dry_run: files, bytes."""

    @property
    def _known(self) -> KnownObjects:
        return self._recipe.known

    @property
    def _distribution(self) -> str:
        cloudfront = self._recipe.section.cloudfront
        return cloudfront.distribution_id if cloudfront.enabled else ""

    async def begin(self, store: Store) -> None:
        self._recipe.before_replacing = partial(self._enter_change, store)
        if not self._begun:
            rows = await bucket_objects.of_place(store, self._place)
            self._recipe.known = KnownObjects(self._recipe.rule, rows)
            self._begun = True

    async def is_unchanged(self, store: Store, folder: str, title: str) -> bool:
        wanted = self._recipe.rule.album_index(folder)
        inputs = await bucket_objects.digest_of_inputs(store, self._run.facts_from, self._run.upstreams, folder)
        self._inputs[folder] = self._digest(title, inputs)
        was = await bucket_objects.index_there(store, self._place, folder, wanted)
        same = was is not None and was.made_of == await self._made_of(store, folder)
        if same:
            self._unchanged.add(folder)
        else:
            self._unchanged.discard(folder)
        return same

    def _digest(self, title: str, inputs: str) -> str:
        """Of all that decides an album's objects, besides the rows of this stage. `inputs`: of the stages before."""
        run = self._run
        expected = [upstream[0] in run.expected for upstream in run.upstreams] if len(run.upstreams) > 1 else []
        section = self._recipe.section.model_dump_json(exclude={"workers", "timeouts", "retries"})
        said = [__version__, run.stage.version, section, run.upstreams, expected, run.facts_from, title, inputs]
        return hashlib.sha256(orjson.dumps(said)).hexdigest()

    async def _made_of(self, store: Store, folder: str) -> str:
        results = await bucket_objects.digest_of_results(store, self._run.stage.name, self._place, folder)
        return f"{self._headers_of_an_index()} {self._inputs[folder]} {results}"

    def _headers_of_an_index(self) -> str:
        """Digest of the headers that an index is to have; what an index was made of begins with it."""
        headers = self._recipe.headers(self._recipe.rule.index).arguments()
        return hashlib.sha256(orjson.dumps(headers, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    # ── pictures ──────────────────────────────────────────────────────────────────────────────────────────────────

    def waits_for_before(self, plans: Sequence[PicturePlan]) -> bool:
        """Of bytes that are in the bucket, or on their way, it matters what leaves the album before: which object they
        are copied of, and whether that is a move.
        """
        sha256s = {plan.input.sha256 for plan in plans if plan.to_do}
        return not self._on_their_way.isdisjoint(sha256s) or any(map(self._known.holds, sha256s))

    async def claim(self, store: Store, folder: str, plans: Sequence[PicturePlan]) -> None:
        if self._recipe.section.dry_run:
            would = [plan.input.size for plan in plans if isinstance(plan.left_out, ForNow)]
            self._would_go = [self._would_go[0] + len(would), self._would_go[1] + sum(would)]
            return
        self._on_their_way = frozenset(plan.input.sha256 for plan in plans if plan.to_do)
        claimed = [self._claimed(folder, plan) for plan in plans if plan.to_do]
        if not claimed:
            return
        replaced = [each.key for each in claimed if each.was_there]
        # An album's folder, a prefix or the setting of albums has changed: the file has another key now.
        keys = {each.key for each in claimed}
        files = {(each.folder, each.input) for each in claimed}
        superseded = [
            each.key
            for each in self._known.in_folder(folder)
            if each.kind is Kind.PICTURE and (each.folder, each.input) in files and each.key not in keys
        ]
        async with store.transaction() as transaction:
            await bucket_objects.claim(transaction, self._place, claimed)
            await bucket_objects.mark(transaction, "bucket_object_left", self._place, superseded)
            await bucket_objects.changed_at_the_edge(transaction, self._place, self._distribution, replaced)
        for each in claimed:
            self._known.enter(each)
        for key in superseded:
            self._known.change(key, left=True)
        self._changes.update(replaced)
        fault_point("s3.claimed")

    def _enter_change(self, store: Store, key: str) -> None:
        """In a worker thread, before it replaces an object that no row has spoken for: enter what a CDN may show."""

        async def enter() -> None:
            async with store.transaction() as transaction:
                await bucket_objects.changed_at_the_edge(transaction, self._place, self._distribution, [key])
            self._changes.add(key)
            fault_point("s3.change_entered")

        if self._distribution and key not in self._changes:
            anyio.from_thread.run(enter)

    def _claimed(self, folder: str, plan: PicturePlan) -> KnownObject:
        claim = self._known.claim(folder, plan.input.file_name)
        was = self._known.by_key.get(claim.key)
        moved_from = was.moved_from if was is not None else ""
        if was is None or was.sha256 != plan.input.sha256:
            source = self._known.with_content(plan.input.sha256, but=claim.key)
            moved_from = source.key if source is not None else moved_from
        if was is not None:
            return replace(
                was,
                wanted=claim.wanted,
                folder=folder,
                input=plan.input.file_name,
                status=ObjectStatus.CLAIMED,
                moved_from=moved_from,
                left=False,
            )
        return KnownObject(claim.key, claim.wanted, Kind.PICTURE, folder, plan.input.file_name, moved_from=moved_from)

    async def entered(self, transaction: Transaction, made: Sequence[PictureMade]) -> None:
        stored = [self._recipe.sent[each.facts[NAME]["key"]] for each in made]
        await bucket_objects.confirm(transaction, self._place, stored)
        for each in stored:
            self._confirmed(each)

    def _confirmed(self, stored: Stored) -> None:
        self._known.change(
            stored.key,
            status=ObjectStatus.THERE,
            size=stored.size,
            sha256=stored.sha256,
            etag=stored.etag,
            checksum=stored.checksum,
        )

    # ── albums ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def album_done(self, store: Store, folder: str, title: str, *, complete: bool) -> None:
        if folder in self._unchanged:
            self._gone_through[folder] = complete
            return
        await self.begin(store)
        if self._recipe.section.dry_run:
            return
        rows = await stage_pictures.of_folder(store, self._run.stage.name, folder)
        inputs = {row.input for row in rows}
        left = [
            each.key
            for each in self._known.in_folder(folder)
            if each.kind is Kind.PICTURE and not each.left and each.input not in inputs
        ]
        await self._mark_left(store, left)
        self._gone_through[folder] = complete
        if not complete:
            log.info("%s, album %s: not all of it is there, so its index stays as it was", NAME, title)
            return
        pictures = [
            each
            for row in rows
            if row.status is PictureStatus.DONE
            and (each := self._known.of_file(folder, row.input)) is not None
            and each.status is ObjectStatus.THERE
        ]
        index = self._known.album_index(folder)
        if not pictures and index.key not in self._known.by_key:
            return
        indexed = await self._indexed(store, folder, rows, {each.input: each for each in pictures})
        with_positions = self._recipe.section.publish_location
        say = partial(album_index, title, index.key, indexed, with_positions=with_positions)
        text = await anyio.to_thread.run_sync(say)
        there = {each.input: each.sha256 for each in pictures}
        whole = all(row.status is PictureStatus.LEFT_OUT or there.get(row.input) == row.input_sha256 for row in rows)
        # The inputs as they were before the album was planned: what came since is found the next time.
        made_of = await self._made_of(store, folder) if whole and folder in self._inputs else ""
        self._gone_through[folder] = await self._bring_index(store, index, text, made_of)
        if self._gone_through[folder]:
            self._named[index.key] = len(indexed)

    async def _mark_left(self, store: Store, keys: Sequence[str]) -> None:
        if not keys:
            return
        async with store.transaction() as transaction:
            await bucket_objects.mark(transaction, "bucket_object_left", self._place, keys)
        for key in keys:
            self._known.change(key, left=True)

    async def _indexed(
        self, store: Store, folder: str, rows: Sequence[Any], pictures: dict[str, KnownObject]
    ) -> list[IndexedPicture]:
        facts = await facts_of_pictures(store, self._run, folder)
        makers = orjson.dumps([upstream[0] for upstream in self._run.upstreams]).decode()
        sizes = {
            row["file_name"]: (row["width"], row["height"])
            for row in await store.all("sizes_of_inputs", {"folder": folder, "stages": makers})
        }
        found = []
        for row in rows:
            each = pictures.get(row.input)
            if each is None or each.size is None or each.sha256 is None:
                continue
            known = facts.get(row.photo, {})
            width, height = sizes.get(row.input, (known.get("width"), known.get("height")))
            found.append(IndexedPicture(each.key, each.size, each.sha256, width, height, known))
        return found

    async def _bring_index(self, store: Store, index: KnownObject, text: bytes, made_of: str = "") -> bool:
        """Send an index unless it is in the bucket as it is, in one PUT: a page sees the old one or the new one.

        False where somebody else's object has its key. `made_of`: what `is_unchanged` compares with the next time.
        """
        was = self._known.by_key.get(index.key)
        same = was is not None and was.status is ObjectStatus.THERE and not was.left
        if was is not None and same and was.sha256 == hashlib.sha256(text).hexdigest():
            known = was
            # Without a reason to doubt it nobody is asked: a run that has nothing to send needs no network.
            as_sent = known.made_of.partition(" ")[0] == self._headers_of_an_index() and self._recipe.is_listed(known)
            if as_sent or await self._asked(lambda bucket: self._recipe.is_as_known(bucket, known)):
                async with store.transaction() as transaction:
                    await bucket_objects.index_is_made_of(transaction, self._place, index.key, made_of)
                fault_point("s3.index_entered")
                return True
        if await self._asked(lambda _: self._recipe.is_of_others(index.key)):
            return self._left_to_others(index.key)
        claimed = replace(was, status=ObjectStatus.CLAIMED, left=False) if was is not None else index
        async with store.transaction() as transaction:
            await bucket_objects.claim(transaction, self._place, [claimed])
            if claimed.was_there:
                await bucket_objects.changed_at_the_edge(transaction, self._place, self._distribution, [index.key])
        self._known.enter(claimed)
        fault_point("s3.index_claimed")
        stored = await self._asked(lambda bucket: self._recipe.send_index(bucket, index.key, text))
        if stored is None:
            return self._left_to_others(index.key)
        fault_point("s3.index_sent")
        async with store.transaction() as transaction:
            await bucket_objects.confirm(transaction, self._place, [stored])
            await bucket_objects.index_is_made_of(transaction, self._place, index.key, made_of)
        self._confirmed(stored)
        fault_point("s3.index_entered")
        return True

    def _left_to_others(self, key: str) -> bool:
        """False: the index that belongs under this key is not in the bucket."""
        log.warning("%s/%s is somebody else's object and stays", self._place, key)
        self._others.append(key)
        return False

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def finish(self, store: Store, stopped: Callable[[], bool]) -> None:
        if self._recipe.section.dry_run:
            files, size = self._would_go
            self._recipe.say(
                f"{NAME}: dry_run is on. {counted(files, 'file')} ({bytes_in_words(size)}) would go to "
                f"{self._place}/{self._recipe.rule.root}; nothing was sent or removed."
            )
            return
        if not self._begun and await self._nothing_is_left_to_do(store):
            await Invalidations(self._recipe, self._distribution).tell(store, stopped)
            return
        await self.begin(store)
        gone = await self._albums_gone(store)
        leaving = await self._without_what_is_named(store, gone, self._leaving(gone))
        await self._bring_albums_index(store, leaving)
        if leaving:
            await self._remove(store, leaving)
        await self._end_moves(store, gone)
        await Invalidations(self._recipe, self._distribution).tell(store, stopped)
        if self._others:
            raise StagePaused(
                f"{NAME}: {self._place}/{self._others[0]} is an object that skicyclerun did not upload; it was left "
                "alone, so that the index which belongs there is missing. Everything else is uploaded. Move it away, "
                "then `skicyclerun run --resume`.",
                because=f"{NAME}: {self._place}/{self._others[0]}, where an index belongs, is an object that "
                "skicyclerun did not upload",
            )

    async def _nothing_is_left_to_do(self, store: Store) -> bool:
        """Whether no object may have to go and the index of all albums is in the bucket as it is to be."""
        gone = {row["folder"] for row in await store.all("albums_gone_from_source", {"place": self._place})}
        if gone - self._gone_through.keys() or await bucket_objects.may_go(store, self._place):
            return False
        albums, key = await self._albums_there(store, ()), self._recipe.rule.index
        was = await bucket_objects.index_there(store, self._place, "", key)
        return was is not None and was.sha256 == hashlib.sha256(albums_index(key, albums)).hexdigest()

    async def _albums_gone(self, store: Store) -> set[str]:
        """Albums that the source no longer has; what they had in the bucket has left."""
        rows = await store.all("albums_gone_from_source", {"place": self._place})
        gone = {row["folder"] for row in rows} - self._gone_through.keys()
        left = [
            each.key
            for folder in sorted(gone)
            for each in self._known.in_folder(folder)
            if each.kind is Kind.PICTURE and not each.left
        ]
        await self._mark_left(store, left)
        return gone

    def _leaving(self, gone: set[str]) -> list[KnownObject]:
        """What is to be removed now: indexes first. Below the prefix alone, and only where no index names it."""
        rule, everything = self._recipe.rule, list(self._known.by_key.values())
        heirs: dict[str, list[KnownObject]] = {}
        for each in everything:
            if each.moved_from and not each.left:
                heirs.setdefault(each.moved_from, []).append(each)

        def goes(each: KnownObject) -> bool:
            if each.status is ObjectStatus.LEAVING:
                return rule.holds(each.key)
            if each.kind is not Kind.PICTURE or not each.left or not rule.made(each.claimed):
                return False
            if not self._gone_through.get(each.folder, each.folder in gone):
                return False
            if each.key not in heirs:
                return self._recipe.section.delete_removed
            # Not before a page finds it under its new key.
            return any(
                heir.status is ObjectStatus.THERE and self._gone_through.get(heir.folder, False)
                for heir in heirs[each.key]
            )

        pictures = [each for each in everything if goes(each)]
        keys = {each.key for each in pictures}
        indexes = []
        for folder in sorted({each.folder for each in pictures}):
            rest = [each for each in self._known.in_folder(folder) if each.key not in keys]
            # What lies under another prefix is named by an index there, and stays with it.
            if not any(each.kind is Kind.PICTURE and rule.made(each.claimed) for each in rest):
                indexes += [each for each in rest if each.kind is Kind.ALBUM_INDEX and rule.made(each.claimed)]
        return indexes + pictures

    async def _without_what_is_named(
        self, store: Store, gone: set[str], leaving: list[KnownObject]
    ) -> list[KnownObject]:
        """`leaving`, once the indexes of albums that are gone and keep some pictures name none of it any more.

        Their rows are gone with their photos, so that the index itself is what is left to make the new one of.
        """
        keys = {each.key for each in leaving}
        stay: set[str] = set()
        for folder in sorted({each.folder for each in leaving} & gone):
            index = self._known.by_key.get(self._known.album_index(folder).key)
            if index is None or index.key in keys or index.sha256 is None:
                continue
            text = await self._asked(partial(_read_if_ours, index))
            rest = album_index_without(text, keys) if text is not None else None
            if rest is None or not await self._bring_index(store, index, rest[0]):
                log.warning("%s is not the index that was sent, so nothing of its album is removed", index.key)
                stay.add(folder)
            else:
                self._named[index.key] = rest[1]
        return [each for each in leaving if each.folder not in stay]

    async def _end_moves(self, store: Store, gone: set[str]) -> None:
        """A move is over when the old object is gone, or is known to stay in its album."""

        def goes_on(each: KnownObject) -> bool:
            source = self._known.by_key.get(each.moved_from)
            if source is None or not self._recipe.rule.made(source.claimed):
                return False
            looked_at = self._gone_through.get(source.folder, source.folder in gone)
            return source.left or not looked_at

        over = [each.key for each in self._known.by_key.values() if each.moved_from and not goes_on(each)]
        if not over:
            return
        async with store.transaction() as transaction:
            await bucket_objects.mark(transaction, "move_is_over", self._place, over)
        for key in over:
            self._known.change(key, moved_from="")

    async def _bring_albums_index(self, store: Store, leaving: Sequence[KnownObject]) -> None:
        key = self._recipe.rule.index
        was = self._known.by_key.get(key)
        albums = await self._albums_there(store, leaving, was)
        if was is None and not albums:
            return
        if was is None and await self._asked(lambda _: self._recipe.was_there_before(key)):
            # The rows were lost. What they said of albums that this run was not asked for, only that index still says.
            latest = await runs.latest(store)
            if latest is not None and latest.selection:
                self._recipe.say(
                    f"{NAME}: {key} names albums that this run was not asked for, and stays as it is until a run of "
                    "all albums."
                )
                return
        index, text = KnownObject(key, key, Kind.INDEX, "", ""), albums_index(key, albums)
        await self._bring_index(store, index, text, self._headers_of_an_index())

    async def _albums_there(
        self, store: Store, leaving: Sequence[KnownObject], was: KnownObject | None = None
    ) -> list[IndexedAlbum]:
        """Albums whose index is in the bucket and stays, in their order.

        `was`: the index of all albums so far. Of an album whose index this run does not know to be up to date it says
        how many pictures that names.
        """
        rule, keys = self._recipe.rule, {each.key for each in leaving}
        titles = {
            row["folder"]: row["title"] for row in await store.all("titles_of_folders", {"stage": self._run.stage.name})
        }
        rows = [
            row
            for row in await store.all("albums_in_bucket", {"place": self._place})
            if row["key"] not in keys and row["wanted"] == rule.album_index(row["folder"])
        ]
        named = self._named
        stale = any(row["key"] not in named and not self._gone_through.get(row["folder"]) for row in rows)
        if stale and was is not None and was.sha256 is not None:
            text = await self._asked(partial(_read_if_ours, was))
            before = pictures_by_index(was.key, text or b"")
            named = {key: number for key, number in before.items() if not self._gone_through.get(self._folder_of(key))}
            named |= self._named
        albums = [
            IndexedAlbum(titles.get(row["folder"], row["folder"]), row["key"], named.get(row["key"], row["pictures"]))
            for row in rows
        ]
        return sorted(albums, key=lambda album: (album.title, album.index_key))

    def _folder_of(self, key: str) -> str:
        known = self._known.by_key.get(key)
        return known.folder if known is not None else ""

    async def _remove(self, store: Store, leaving: Sequence[KnownObject]) -> None:
        async with store.transaction() as transaction:
            keys = [each.key for each in leaving]
            await bucket_objects.mark(transaction, "bucket_object_leaves", self._place, keys)
            await bucket_objects.changed_at_the_edge(transaction, self._place, self._distribution, keys)
        fault_point("s3.removal_entered")
        kept: list[str] = []
        problems: list[StagePaused] = []
        limiter = anyio.CapacityLimiter(self._run.limits.workers)

        async def remove(each: KnownObject) -> None:
            def ask(bucket: Bucket) -> None:
                head = bucket.head(each.key)
                if head is None:
                    return
                if each.sha256 is None or (head.etag != each.etag and head.mark != each.sha256):
                    kept.append(each.key)  # Somebody else's by now, or another library's.
                    return
                bucket.remove(each.key)

            async with limiter:
                if problems:
                    return
                try:
                    await self._asked(ask)
                except StagePaused as error:
                    problems.append(error)
                    return
            fault_point("s3.first_removed")

        for indexes in (True, False):  # A page never names what is gone.
            async with anyio.create_task_group() as removing:
                for each in leaving:
                    if (each.kind is not Kind.PICTURE) is indexes:
                        removing.start_soon(remove, each)
            if problems:
                raise problems[0]
        fault_point("s3.removed")
        async with store.transaction() as transaction:
            await bucket_objects.mark(transaction, "forget_bucket_object", self._place, keys)
        for key in keys:
            self._known.forget(key)
        fault_point("s3.removal_forgotten")
        self._recipe.say(f"{NAME}: {counted(len(keys) - len(kept), 'object')} that left or moved removed.")
        for key in kept:
            log.warning("%s was replaced by somebody else and stays", key)

    async def _asked(self, ask: Callable[[Bucket], _T]) -> _T:
        work = partial(or_paused, lambda: ask(self._recipe.bucket()))
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


def _read_if_ours(index: KnownObject, bucket: Bucket) -> bytes | None:
    """The bytes of an index, if they are those that its row speaks of, or that were to replace them."""
    head = bucket.head(index.key)
    if head is None or head.size > _LONGEST_INDEX:
        return None
    text = bucket.get(index.key, at_most=head.size)
    digest = hashlib.sha256(text).hexdigest()
    about_to = index.status is ObjectStatus.CLAIMED and head.mark == digest
    return text if digest == index.sha256 or about_to else None
