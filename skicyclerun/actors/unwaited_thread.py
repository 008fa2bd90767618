"""Work in a thread that nobody waits for once it is not wanted any more: places that do not answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

log = logging.getLogger(__name__)

_T = TypeVar("_T")


async def in_unwaited_thread(work: Callable[[], _T]) -> _T:
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
            log.debug("work in a thread ended when nobody waited for it any more")

    threading.Thread(target=body, name="unwaited", daemon=True).start()
    await ended.wait()
    if failure:
        raise failure[0]
    return result[0]
