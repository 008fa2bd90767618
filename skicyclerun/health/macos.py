"""Health checks of what only macOS has: osascript, the AppleScript, the permissions."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from skicyclerun.errors import SkicyclerunError, SourceStopped
from skicyclerun.health.findings import Finding, failed, ok, warning
from skicyclerun.models import Waiting
from skicyclerun.settings.models import Settings
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.sources.base import TimeLimits
from skicyclerun.sources.photos_app import PhotosApp
from skicyclerun.sources.photos_app_script import script_to_run
from skicyclerun.sources.photos_bundle import DATABASE_NAMES

SCRIPT: Final = "osxPhotoExporter.scpt"
GRANT_FULL_DISK_ACCESS: Final = (
    "System Settings > Privacy & Security > Full Disk Access: add your terminal, then open it anew."
)
_COMPILE_SECONDS: Final = 60
_NOT_MACOS: Final = "not macOS; only the source apple_photos needs it"


def check_osascript(program: str, *, wanted: bool, platform: str = sys.platform) -> Finding:
    """Whether osascript can be found; `wanted` is whether the source needs it."""
    found = shutil.which(program)
    if found:
        return ok("osascript", found)
    if wanted or platform == "darwin":
        return failed("osascript", f"{program} is not on PATH", "It comes with macOS as /usr/bin/osascript.")
    return ok("osascript", _NOT_MACOS)


def check_script_compiles(settings: Settings | None = None, compiler: str = "osacompile") -> Finding:
    """Whether the AppleScript is there and, where there is `osacompile`, compiles against this Photos.

    That of the configuration, if it can be used; a word where it cannot. None: the shipped one.
    """
    check = "AppleScript"
    try:
        script, said = (shipped_file(SCRIPT), "") if settings is None else script_to_run(settings)
    except SkicyclerunError as error:
        return failed(check, str(error), error.next_step)
    if said:
        return warning(check, said)
    program = shutil.which(compiler)
    if program is None:
        return ok(check, f"{script}, not compiled here ({compiler} is only on macOS)")
    with tempfile.TemporaryDirectory(prefix="skicyclerun-doctor-") as folder:
        command = [program, "-o", os.path.join(folder, "compiled.scpt"), os.fspath(script)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMPILE_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            return warning(check, f"{script} could not be compiled to try it ({error})")
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        return failed(check, f"{script} does not compile: {said}", "Please report it, with the version of Photos.")
    return ok(check, f"{script} compiles")


async def check_permission(
    program: str,
    *,
    wanted: bool,
    seconds: float,
    on_wait: Callable[[Waiting], None],
    settings: Settings | None = None,
    typed: str = "",
) -> Finding:
    """Whether Photos answers a real event; macOS may ask the person for permission meanwhile, which `on_wait` is told
    before. Launches Photos. `typed` is the command that looks."""
    check = "automation"
    if not wanted:
        return ok(check, "not needed: the source is not apple_photos")
    said: list[str] = []
    try:
        script = shipped_file(SCRIPT) if settings is None else script_to_run(settings)[0]
        limits = TimeLimits(seconds, seconds)
        app = PhotosApp(
            osascript=program, script=script, limits=limits, list_timeout=seconds, log=said.append, on_wait=on_wait
        )
        await app.open()
    except SkicyclerunError as error:
        if isinstance(error, SourceStopped):
            error.before_anything_began(typed)
        return failed(check, str(error), error.next_step)
    return ok(check, said[-1] if said else "Photos answers.")


def check_full_disk_access(library: Path | None, *, platform: str = sys.platform) -> Finding:
    """Whether the library's bundle may be read, or, where none is named, what only Full Disk Access opens."""
    check = "Full Disk Access"
    if platform != "darwin":
        return ok(check, "not macOS; nothing of the kind is needed here")
    probe = Path.home() / "Library" / "Application Support" / "com.apple.TCC" / "TCC.db"
    if library is not None:
        database = library.expanduser() / "database"
        probe = next(
            filter(os.path.lexists, (database / name for name in DATABASE_NAMES)), database / DATABASE_NAMES[0]
        )
    try:
        with open(probe, "rb") as stream:
            stream.read(1)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES):
            return ok(check, f"cannot be told: {error.strerror} ({probe})")
        if library is not None:
            return failed(check, f"{probe} may not be read", GRANT_FULL_DISK_ACCESS)
        return warning(
            check,
            "not granted; only the source photos_library needs it",
            f"Only if you export from a .photoslibrary: {GRANT_FULL_DISK_ACCESS}",
        )
    return ok(check, "granted" if library is None else f"{probe} can be read")
