"""What `s3_deployment` keeps besides its pictures' rows: objects, indexes of albums, removals, what a CDN is to forget.

The order of writes: an object's row (claimed) → the object, confirmed by the service → the picture's row and the
object's, in one transaction → the index of its album, in one PUT → what has left the albums is entered as leaving →
removed → forgotten → the invalidation is entered → asked for.
A stop anywhere is found again from the rows and repeated.

A move is a move: an object whose bytes another key took over in the same run leaves the old key, also without
`delete_removed`. What left its album for nowhere leaves the bucket only with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import orjson

from skicyclerun import __version__
from skicyclerun.actors.stage_plan import StageRun, facts_of_pictures
from skicyclerun.bucket.album_index import IndexedAlbum, IndexedPicture, album_index, albums_index
from skicyclerun.bucket.cloudfront import MOST_PATHS, PATIENCE_SECONDS, PAUSE_SECONDS, Distribution, paths_of
from skicyclerun.bucket.known import Kind, KnownObject, KnownObjects, ObjectStatus
from skicyclerun.bucket.objects import Bucket, Stored
from skicyclerun.errors import PhotoError, StagePaused
from skicyclerun.files.fault_points import fault_point
from skicyclerun.stages.s3_deployment import NAME, S3Deployment, paused_where_refused, unreachable
from skicyclerun.stages.stage import ForNow
from skicyclerun.state import bucket_objects, stage_pictures
from skicyclerun.state.bucket_objects import Invalidation
from skicyclerun.state.stage_pictures import PictureMade, PicturePlan, PictureStatus
from skicyclerun.state.store import Store, Transaction
from skicyclerun.wording import bytes_in_words, counted

log = logging.getLogger(__name__)

_T = TypeVar("_T")


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
        self._on_their_way: frozenset[str] = frozenset()
        """SHA-256 of the pictures that were claimed last."""
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
        if not self._begun:
            rows = await bucket_objects.of_place(store, self._place)
            self._recipe.known = KnownObjects(self._recipe.rule, rows)
            self._begun = True

    async def is_unchanged(self, store: Store, folder: str, title: str) -> bool:
        key = self._recipe.rule.album_index(folder)
        inputs = await bucket_objects.digest_of_inputs(store, self._run.facts_from, self._run.upstreams, folder)
        self._inputs[folder] = self._digest(title, inputs)
        was = await bucket_objects.index_there(store, self._place, key)
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
        return f"{self._inputs[folder]} {results}"

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
        replaced = [each.key for each in claimed if (was := self._known.by_key.get(each.key)) and was.sha256]
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
        fault_point("s3.claimed")

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
        key = self._recipe.rule.album_index(folder)
        if not pictures and key not in self._known.by_key:
            return
        indexed = await self._indexed(store, folder, rows, {each.input: each for each in pictures})
        with_positions = self._recipe.section.publish_location
        text = await anyio.to_thread.run_sync(partial(album_index, title, key, indexed, with_positions=with_positions))
        there = {each.input: each.sha256 for each in pictures}
        whole = all(row.status is PictureStatus.LEFT_OUT or there.get(row.input) == row.input_sha256 for row in rows)
        # The inputs as they were before the album was planned: what came since is found the next time.
        made_of = await self._made_of(store, folder) if whole and folder in self._inputs else ""
        await self._bring_index(store, KnownObject(key, key, Kind.ALBUM_INDEX, folder, ""), text, made_of)

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

    async def _bring_index(self, store: Store, index: KnownObject, text: bytes, made_of: str = "") -> None:
        """Send an index unless it is in the bucket as it is, in one PUT: a page sees the old one or the new one.

        `made_of`: what `is_unchanged` compares with the next time.
        """
        was = self._known.by_key.get(index.key)
        same = was is not None and was.status is ObjectStatus.THERE and not was.left
        if was is not None and same and was.sha256 == hashlib.sha256(text).hexdigest():
            async with store.transaction() as transaction:
                await bucket_objects.index_is_made_of(transaction, self._place, index.key, made_of)
            fault_point("s3.index_entered")
            return
        claimed = replace(was, status=ObjectStatus.CLAIMED, left=False) if was is not None else index
        async with store.transaction() as transaction:
            await bucket_objects.claim(transaction, self._place, [claimed])
            if was is not None and was.sha256:
                await bucket_objects.changed_at_the_edge(transaction, self._place, self._distribution, [index.key])
        self._known.enter(claimed)
        fault_point("s3.index_claimed")
        headers = self._recipe.headers(index.key)

        def send(bucket: Bucket) -> Stored:
            self._recipe.check_key_is_ours(index.key)
            return bucket.put_bytes(index.key, text, headers)

        stored = await self._asked(send)
        fault_point("s3.index_sent")
        async with store.transaction() as transaction:
            await bucket_objects.confirm(transaction, self._place, [stored])
            await bucket_objects.index_is_made_of(transaction, self._place, index.key, made_of)
        self._confirmed(stored)
        fault_point("s3.index_entered")

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
            await self._invalidate(store, stopped)
            return
        await self.begin(store)
        gone = await self._albums_gone(store)
        leaving = self._leaving(gone)
        await self._bring_albums_index(store, {each.key for each in leaving})
        if leaving:
            await self._remove(store, leaving)
        async with store.transaction() as transaction:
            await transaction.execute("moves_are_over", {"place": self._place})
        await self._invalidate(store, stopped)

    async def _nothing_is_left_to_do(self, store: Store) -> bool:
        """Whether no object may have to go and the index of all albums is in the bucket as it is to be."""
        gone = {row["folder"] for row in await store.all("albums_gone_from_source", {"place": self._place})}
        if gone - self._gone_through.keys() or await bucket_objects.may_go(store, self._place):
            return False
        albums, key = await self._albums_there(store, set()), self._recipe.rule.index
        was = await bucket_objects.index_there(store, self._place, key)
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
        everything = list(self._known.by_key.values())
        taken_over = {each.moved_from for each in everything if each.moved_from and each.status is ObjectStatus.THERE}

        def goes(each: KnownObject) -> bool:
            if not self._recipe.rule.holds(each.key):
                return False
            if each.status is ObjectStatus.LEAVING:
                return True
            wanted = self._recipe.section.delete_removed or each.key in taken_over
            unnamed = self._gone_through.get(each.folder, each.folder in gone)
            return each.kind is Kind.PICTURE and each.left and wanted and unnamed

        pictures = [each for each in everything if goes(each)]
        keys = {each.key for each in pictures}
        indexes = []
        for folder in sorted({each.folder for each in pictures}):
            rest = [each for each in self._known.in_folder(folder) if each.key not in keys]
            empty = not any(each.kind is Kind.PICTURE for each in rest)
            indexes += [
                each for each in rest if empty and each.kind is Kind.ALBUM_INDEX and self._recipe.rule.holds(each.key)
            ]
        return indexes + pictures

    async def _bring_albums_index(self, store: Store, leaving: set[str]) -> None:
        albums = await self._albums_there(store, leaving)
        key = self._recipe.rule.index
        if albums or key in self._known.by_key:
            text = albums_index(key, albums)
            await self._bring_index(store, KnownObject(key, key, Kind.INDEX, "", ""), text)

    async def _albums_there(self, store: Store, leaving: set[str]) -> list[IndexedAlbum]:
        """Albums whose index is in the bucket and stays, in their order."""
        rule = self._recipe.rule
        titles = {
            row["folder"]: row["title"] for row in await store.all("titles_of_folders", {"stage": self._run.stage.name})
        }
        albums = [
            IndexedAlbum(titles.get(row["folder"], row["folder"]), row["key"], row["pictures"])
            for row in await store.all("albums_in_bucket", {"place": self._place})
            if row["key"] not in leaving and rule.holds(row["key"]) and row["key"] == rule.album_index(row["folder"])
        ]
        return sorted(albums, key=lambda album: (album.title, album.index_key))

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
                if not head.is_ours and head.etag != each.etag:
                    kept.append(each.key)  # Somebody else's by now.
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

    # ── the CDN ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _invalidate(self, store: Store, stopped: Callable[[], bool]) -> None:
        if not self._distribution:
            return
        cloudfront = self._recipe.section.cloudfront
        paths = partial(paths_of, patterns=cloudfront.paths, origin_path=cloudfront.origin_path)
        # The section may have been corrected since: nothing that changed stays untold.
        if await bucket_objects.take_over_changes(store, self._place, self._distribution, paths):
            fault_point("s3.changes_taken_over")
        while True:
            pending = await bucket_objects.open_invalidations(store, self._distribution)
            keys = await bucket_objects.changes(store, self._distribution)
            if keys and all(each.remote_id for each in pending):
                some = keys[:MOST_PATHS]
                await bucket_objects.enter_invalidation(store, self._place, self._distribution, some, paths(some))
                fault_point("s3.invalidation_entered")
                continue
            if not pending:
                return
            for each in pending:
                # More paths than may be in progress at once, or somebody wants to know.
                waits = cloudfront.wait_for_completion or bool(keys)
                if not await self._asked_for(store, each, stopped if waits else None):
                    return

    async def _asked_for(self, store: Store, each: Invalidation, stopped: Callable[[], bool] | None) -> bool:
        """Ask for an invalidation and, where `stopped` is given, wait for it. False: a stop ended that."""
        remote_id = each.remote_id
        if not remote_id:
            remote_id = await self._at_the_edge(lambda cdn: cdn.invalidate(each.reference, each.paths))
            fault_point("s3.invalidation_sent")
            await bucket_objects.step_invalidation(store, each, "sent", remote_id)
            self._recipe.say(f"{NAME}: CloudFront is told to forget {counted(len(each.paths), 'path')} that changed.")
        until = anyio.current_time() + PATIENCE_SECONDS
        while stopped is not None and not await self._at_the_edge(lambda cdn: cdn.is_completed(remote_id)):
            if stopped():
                return False
            if anyio.current_time() > until:
                self._recipe.say(f"{NAME}: CloudFront is not through with {remote_id} yet; it goes on by itself.")
                break
            await anyio.sleep(PAUSE_SECONDS)
        await bucket_objects.step_invalidation(store, each, "completed", remote_id)
        return True

    async def _at_the_edge(self, ask: Callable[[Distribution], _T]) -> _T:
        return await self._in_thread(lambda: ask(self._recipe.distribution()))

    async def _asked(self, ask: Callable[[Bucket], _T]) -> _T:
        return await self._in_thread(lambda: ask(self._recipe.bucket()))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Raises StagePaused for whatever the service says; a picture's own failures do not come this way."""

        def paused() -> _T:
            try:
                with paused_where_refused():
                    return work()
            except PhotoError as error:
                raise unreachable(error) from error

        return await anyio.to_thread.run_sync(paused, abandon_on_cancel=True)
