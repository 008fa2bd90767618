"""Health checks of the disk: space, what the file system can do, who holds the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from skicyclerun.archive.plan import nearest_folder
from skicyclerun.files.atomic_files import sync_files
from skicyclerun.health.findings import Finding, failed, ok, warning
from skicyclerun.run.lock import current_holder
from skicyclerun.wording import bytes_in_words

_LITTLE: Final = 5_000_000_000
_TOO_LITTLE: Final = 200_000_000
_LONGEST_NAME: Final = 255
_COMPOSED: Final = "\N{LATIN SMALL LETTER E WITH ACUTE}"


def on_different_disks(places: Mapping[str, Path]) -> dict[str, Path]:
    """Of several places the first on each disk."""
    seen: set[int] = set()
    found = {}
    for name, path in places.items():
        device = os.stat(nearest_folder(path)).st_dev
        if device not in seen:
            seen.add(device)
            found[name] = path
    return found


def check_space(name: str, folder: Path) -> Finding:
    """How much is free on the disk of a folder that may not be there yet."""
    check = f"disk space ({name})"
    try:
        usage = shutil.disk_usage(nearest_folder(folder))
    except OSError as error:
        return failed(check, f"{folder}: {error.strerror}")
    words = f"{bytes_in_words(usage.free)} free of {bytes_in_words(usage.total)} for {folder}"
    if usage.free < _TOO_LITTLE:
        return failed(check, words, "Make room, or name another disk with --lib-root.")
    if usage.free < _LITTLE:
        return warning(check, words, "An export keeps the old outputs in an archive beside the new ones.")
    return ok(check, words)


def check_file_system(name: str, folder: Path) -> Finding:
    """Tries out what the program relies on, in a temporary folder of the folder itself, which must be there."""
    check = f"file system ({name})"
    if not folder.is_dir():
        return ok(check, f"{folder} is not there yet, the first run makes it; nothing was tried out")
    try:
        with tempfile.TemporaryDirectory(prefix=".skicyclerun-doctor-", dir=folder) as name_of_probe:
            return _try_out(check, folder, Path(name_of_probe))
    except OSError as error:
        step = "Check its permissions, or name another folder with --lib-root."
        return failed(check, f"{folder} cannot be written: {error.strerror}", step)


def _try_out(check: str, folder: Path, probe: Path) -> Finding:
    first, second = probe / "first", probe / "Second"
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    case = "ignores case" if (probe / "sECOND").exists() else "tells case apart"
    (probe / _COMPOSED).touch()
    forms = "ignores" if (probe / unicodedata.normalize("NFD", _COMPOSED)).exists() else "tells apart"
    doubts: list[str] = []
    sync_files([first])
    os.replace(first, second)
    if second.read_bytes() != b"first" or first.exists():
        return failed(check, f"{folder}: a file cannot be replaced in one step", "Name a folder on another disk.")
    if not _locks(second):
        return failed(check, f"{folder}: it has no locks, two runs could not be kept apart", "Name another disk.")
    if not _syncs_folders(probe):
        doubts.append("folders cannot be synced, so a power cut may lose the last files (a resume exports them again)")
    if not _takes_long_names(probe):
        doubts.append(f"names of {_LONGEST_NAME} bytes are refused, so albums with long titles may fail")
    words = f"{folder}: {case}, {forms} the forms of é, replaces in one step, syncs files, locks"
    if doubts:
        return warning(check, f"{words}; but {', and '.join(doubts)}")
    return ok(check, f"{words}, syncs folders, takes names of {_LONGEST_NAME} bytes")


def _locks(path: Path) -> bool:
    with path.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _syncs_folders(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _takes_long_names(folder: Path) -> bool:
    try:
        (folder / ("x" * _LONGEST_NAME)).touch()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
    return True


def check_lock(lock_file: Path) -> Finding:
    """Whether a run works here now."""
    holder = current_holder(lock_file)
    if holder is None:
        return ok("lock", "free")
    return warning("lock", f"held by {holder}", "Wait for it, or look with `skicyclerun status`.")
