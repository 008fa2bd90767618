"""An event loop whose clock jumps to whatever comes next, for tests about minutes that take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

_T = TypeVar("_T")


class _Jumping(selectors.SelectSelector):
    """Where the loop would sleep until its next timer, its clock is set forward instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen any more: everybody waits")
        ready = super().select(0)
        if not ready:
            self.now += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_in_virtual_time(main: Callable[[], Awaitable[_T]]) -> _T:
    """Run `main` in a loop whose clock begins at 0 and never makes anybody wait. No threads, no processes in it."""
    options: dict[str, Any] = {"loop_factory": _VirtualLoop}
    return anyio.run(main, backend_options=options)
