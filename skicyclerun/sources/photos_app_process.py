"""Ends the Photos application, and nothing else, for `export.restart_photos`."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from typing import Final

import anyio
import anyio.to_thread

from skicyclerun.errors import SourceStopped

_POLL_SECONDS: Final = 0.1


def processes_named(listing: str, name: str, uid: int) -> list[int]:
    """Process ids of this user's processes `name` in a listing of `ps -A -o pid= -o uid= -o comm=`.

    macOS gives the whole path of the executable, Linux its name: either the whole is `name`, or it is the executable
    of the application bundle `name.app`. `Photos Helper`, `MyPhotos` or a script called Photos do not match.
    """
    inside_bundle = f"/{name}.app/Contents/MacOS/{name}"
    found: list[int] = []
    for line in listing.splitlines():
        fields = line.split(None, 2)
        if len(fields) != 3 or not (fields[0].isdecimal() and fields[1].isdecimal()) or int(fields[1]) != uid:
            continue
        command = fields[2].rstrip()
        if command == name or command.endswith(inside_bundle):
            found.append(int(fields[0]))
    return found


async def end_photos(name: str, *, grace: float) -> None:
    """SIGTERM this user's processes of that name, SIGKILL those that are left after `grace` seconds.

    Nothing running is fine. Raises SourceStopped where the processes cannot be listed or do not end.
    """
    if not (pids := await _running(name)):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(pids, number)
        deadline = anyio.current_time() + grace
        while True:
            still = await _running(name)
            pids = [pid for pid in pids if pid in still]
            if not pids:
                return
            if anyio.current_time() >= deadline:
                break
            await anyio.sleep(_POLL_SECONDS)
    raise SourceStopped("Photos does not end; it was asked to, and then killed.", next_step="Log out and in again.")


async def _running(name: str) -> list[int]:
    return processes_named(await anyio.to_thread.run_sync(_list_processes), name, os.getuid())


def _list_processes() -> str:
    command = ["ps", "-A", "-o", "pid=", "-o", "uid=", "-o", "comm="]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise SourceStopped(f"The running processes cannot be listed: {error}") from error
    return done.stdout.decode("utf-8", "replace")


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
