"""What the CDN before a bucket is told to forget: each change stands in an invalidation before that is asked for, and
after a stop it is asked for again under the same reference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from skicyclerun.bucket.cloudfront import MOST_PATHS, PATIENCE_SECONDS, PAUSE_SECONDS, Distribution, paths_of
from skicyclerun.files.fault_points import fault_point
from skicyclerun.stages.s3_deployment import NAME, S3Deployment, or_paused
from skicyclerun.state import bucket_objects
from skicyclerun.state.bucket_objects import Invalidation
from skicyclerun.state.store import Store
from skicyclerun.wording import counted

_T = TypeVar("_T")


class Invalidations:
    """Of one run. `distribution` empty: there is no CDN."""

    def __init__(self, recipe: S3Deployment, distribution: str) -> None:
        self._recipe = recipe
        self._distribution = distribution

    async def tell(self, store: Store, stopped: Callable[[], bool]) -> None:
        """All that has changed, once. Waits only where that was asked for, or where more is to be told than fits.

        Raises StagePaused.
        """
        if not self._distribution:
            return
        cloudfront = self._recipe.section.cloudfront
        paths = partial(paths_of, patterns=cloudfront.paths, origin_path=cloudfront.origin_path)
        # The section may have been corrected since: nothing that changed stays untold.
        if await bucket_objects.take_over_changes(store, self._recipe.service.place, self._distribution, paths):
            fault_point("s3.changes_taken_over")
        while True:
            pending = await bucket_objects.open_invalidations(store, self._distribution)
            keys = await bucket_objects.changes(store, self._distribution)
            if keys and all(each.remote_id for each in pending):
                some = keys[:MOST_PATHS]
                await bucket_objects.enter_invalidation(
                    store, self._recipe.service.place, self._distribution, some, paths(some)
                )
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
        work = partial(or_paused, lambda: ask(self._recipe.distribution()))
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
