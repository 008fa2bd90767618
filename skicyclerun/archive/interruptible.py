"""Calls that may not return for minutes, so that Ctrl-C ends a command all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def interruptibly(work: Callable[[], _T]) -> _T:
    """The result of `work`, which changes nothing here: it is done in a thread that nobody waits for after Ctrl-C.

    Python hears a signal in the main thread only, and only between two steps of its own: a library that waits there
    for a service, or a system call for a network folder, is waited for to its end. In another thread it is done at
    once.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    ended = threading.Event()
    result: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)
        ended.set()

    threading.Thread(target=body, name="interruptible", daemon=True).start()
    ended.wait()
    if failure:
        raise failure[0]
    return result[0]
