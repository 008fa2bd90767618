"""Work in a thread that nobody waits for once it is not wanted any more: for places that may not answer for minutes.

A service that does not answer, or a network folder that hangs, must hold up neither Ctrl-C, nor the end of a run, nor
that of the program.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class _Unwaited(Generic[_T]):
    """The thread; `ended` is called in it when the work has come to its end."""

    def __init__(self, work: Callable[[], _T], ended: Callable[[], object]) -> None:
        self._work = work
        self._ended = ended
        self._result: list[_T] = []
        self._failure: list[BaseException] = []
        threading.Thread(target=self._body, name="unwaited", daemon=True).start()

    def _body(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:
            self._failure.append(error)
        self._ended()

    def outcome(self) -> _T:
        """What the work returned, or raised."""
        if self._failure:
            raise self._failure[0]
        return self._result[0]


async def in_unwaited_thread(work: Callable[[], _T]) -> _T:
    """The result of `work`, which nobody waits for once this is cancelled. It finds out at its next block."""
    token = anyio.lowlevel.current_token()
    ended = anyio.Event()

    def tell() -> None:
        try:
            anyio.from_thread.run_sync(ended.set, token=token)
        except Exception:  # the event loop has ended without us
            log.debug("work in a thread ended when nobody waited for it any more")

    thread = _Unwaited(work, tell)
    await ended.wait()
    return thread.outcome()


def interruptibly(work: Callable[[], _T]) -> _T:
    """The result of `work`, which changes nothing here, and which nobody waits for after Ctrl-C.

    Python hears a signal in the main thread only, and only between two steps of its own: a library that waits there
    for a service, or a system call for a network folder, is waited for to its end. In another thread it is done at
    once.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    ended = threading.Event()
    thread = _Unwaited(work, ended.set)
    ended.wait()
    return thread.outcome()
