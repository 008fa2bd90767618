"""Stopping on a signal: the first one drains (finish the photos in hand, commit, stop), the second one cancels."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

#: How long the photos in hand may take after the first signal before they are cancelled after all; seconds.
DRAIN_SECONDS = 60.0


class Shutdown:
    """Whether to stop, and why. One per run; given to whoever feeds work."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._draining = anyio.Event()

    @property
    def draining(self) -> bool:
        """True once nothing new should be begun."""
        return self._draining.is_set()

    async def wait(self) -> None:
        """Return once draining begins."""
        await self._draining.wait()

    def drain(self, received: signal.Signals | None = None) -> None:
        """Begin to drain. Safe to call again."""
        if self.signal is None:
            self.signal = received
        self._draining.set()

    @property
    def exit_code(self) -> int | None:
        """128 + the signal's number (130 for SIGINT, 143 for SIGTERM), or None where no signal came."""
        return 128 + self.signal if self.signal else None


async def listen(
    shutdown: Shutdown,
    cancel: Callable[[], None],
    say: Callable[[str], None],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Turn SIGINT, SIGTERM and SIGHUP (its terminal was closed) into `shutdown`; runs until cancelled.

    The second signal, or the deadline, cancels.

    Python gives signals to the main thread alone: in another one, where a program of its own runs us, none are heard.
    """
    if threading.current_thread() is not threading.main_thread():
        task_status.started()
        await anyio.sleep_forever()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async with anyio.create_task_group() as deadline:
            async for received in signals:
                if shutdown.draining:
                    say("Stopping now.")
                    cancel()
                    break
                shutdown.drain(received)
                say("Stopping after the photos in hand. Once more to stop at once.")
                deadline.start_soon(_cancel_after_deadline, cancel)
            deadline.cancel_scope.cancel()


async def _cancel_after_deadline(cancel: Callable[[], None]) -> None:
    await anyio.sleep(DRAIN_SECONDS)
    cancel()
