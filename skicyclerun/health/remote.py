"""Health check of the second place for archives."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread

from skicyclerun.archive.open_remote import open_remote
from skicyclerun.archive.plan import nearest_folder
from skicyclerun.archive.remote import Remote
from skicyclerun.errors import EnvironmentUnset, SkicyclerunError
from skicyclerun.health.findings import Finding, ok, warning
from skicyclerun.settings.models import Settings
from skicyclerun.state import archive_copies
from skicyclerun.state.store import Store

_CHECK: Final = "archives elsewhere"
#: A person waits for the answer.
_PATIENCE_SECONDS: Final = 15.0


async def check_remote(settings: Settings) -> Finding:
    """Whether `cleanup.remote` answers and is the place that it was; nothing is written there.

    Only a warning where it does not: an export works without it.
    """
    patience = min(settings.cleanup.remote_timeout, _PATIENCE_SECONDS)
    remote = open_remote(settings.cleanup.model_copy(update={"remote_timeout": patience}))
    if remote is None:
        return ok(_CHECK, "none configured")
    known, pending, confirmed = "", 0, True
    try:
        async with await Store.open_to_read(settings.paths.state_db) as store:
            known = await archive_copies.identity(store, remote.url)
            confirmed = await archive_copies.is_confirmed(store, remote.url) or settings.cleanup.keep_local
            pending = sum(row.status == "pending" for row in await archive_copies.of_remote(store, remote.url))
    except SkicyclerunError:
        known = ""  # that of the state is another check's
    try:
        return await anyio.to_thread.run_sync(partial(_asked, settings, remote, known, pending, confirmed))
    except SkicyclerunError as error:
        return warning(_CHECK, str(error), error.next_step)


def _asked(settings: Settings, remote: Remote, known: str, pending: int, confirmed: bool) -> Finding:
    remote.identify(known, make=False)
    words = f"{remote.url} answers" + (f"; still to be copied there: {pending}" if pending else "")
    if not confirmed:
        said = f"{words}; nobody has said that it is the disk that is meant, so that archives stay here too"
        return warning(_CHECK, said, "`skicyclerun archive push --new-place` says it, where it is.")
    try:
        same = os.stat(remote.url).st_dev == os.stat(nearest_folder(settings.paths.archive)).st_dev
    except (OSError, EnvironmentUnset):
        same = False
    if same and Path(remote.url).is_absolute():
        return warning(_CHECK, f"{words}, but lies on the disk of the archives themselves", "Name another disk.")
    if pending:
        return warning(_CHECK, words, "`skicyclerun archive push` copies them.")
    return ok(_CHECK, words)
