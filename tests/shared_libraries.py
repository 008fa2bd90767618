"""Real Photos libraries, and what tests do with them and with folders.

The full ones lie beside the checkout, where they are shared. Otherwise, or where SKICYCLERUN_TEST_LIBRARIES=small says
so, the small ones of tests/data take their place (its README says what was made smaller); tests that need the pictures
as they were are skipped then, with the reason. They are read only.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

SHARED: Final = Path(__file__).resolve().parents[1].parent / "shared"
_SMALL: Final = Path(__file__).resolve().parent / "data"
_FULL: Final = SHARED / "libraries"
_ARE_FULL: Final = _FULL.is_dir() and os.environ.get("SKICYCLERUN_TEST_LIBRARIES") != "small"


def _unpacked() -> Path:
    """The small libraries, in a folder that goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="skicyclerun-libraries-"))
    process = os.getpid()

    def remove() -> None:
        if os.getpid() == process:  # not in a child that was forked
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    for archive in sorted(_SMALL.glob("*.photoslibrary.tar.xz")):
        with tarfile.open(archive) as members:
            members.extractall(folder, filter="data")
    return folder


LIBRARIES: Final = _FULL if _ARE_FULL else _unpacked()
TEST_LIBRARY: Final = LIBRARIES / "Test-15.4.1.photoslibrary"
MEDIA_TYPES_LIBRARY: Final = LIBRARIES / "Test-Media-Types-15.7.2.photoslibrary"
PHOTOS_4_LIBRARY: Final = LIBRARIES / "Test-10.14.5.photoslibrary"
BETA_LIBRARY: Final = _FULL / "Test-12.0.0.dev-beta.photoslibrary"
"""Of a beta of macOS 12, whose tables lack columns that earlier and later ones have; there is no small one."""

needs_full_libraries = pytest.mark.skipif(
    not _ARE_FULL, reason=f"needs the sample Photos libraries with their pictures in full size, in {_FULL}"
)

NOBODY: Final = 65534
_CORE_DATA_FUNCTIONS: Final = (
    "NSCoreDataTriggerUpdateAffectedObjectValue",
    "NSCoreDataDATriggerInsertUpdatedAffectedObjectValue",
    "NSCoreDataDATriggerUpdatedAffectedObjectValue",
)


def copy_library(library: Path, to: Path) -> Path:
    """A writable copy of what an export reads of a library, at `to` / its name."""
    target = to / library.name
    for part in ("database", "originals", "Masters", "resources"):
        if (library / part).is_dir():
            shutil.copytree(library / part, target / part)
    for directory, _, names in os.walk(target):
        os.chmod(directory, 0o755)
        for name in names:
            os.chmod(os.path.join(directory, name), 0o644)
    return target


def edit_database(library: Path, *statements: str) -> None:
    """Run SQL on the database of a copied library, and checkpoint it."""
    name = "Photos.sqlite" if (library / "database" / "Photos.sqlite").is_file() else "photos.db"
    with closing(sqlite3.connect(library / "database" / name)) as connection:
        for function in _CORE_DATA_FUNCTIONS:  # its triggers call them
            connection.create_function(function, -1, lambda *_: None)
        if name == "photos.db":  # the triggers of Photos 4 call functions by many names
            for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f'DROP TRIGGER "{trigger}"')
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def tree_state(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """Every path below `root`, itself included: mode, size, modification time in ns and SHA-256."""
    state: dict[str, tuple[int, int, int, str]] = {}
    for path in sorted((root, *root.rglob("*"))):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        state[str(path.relative_to(root))] = (status.st_mode, status.st_size, status.st_mtime_ns, digest)
    return state


@contextmanager
def without_root_powers() -> Iterator[None]:
    """Permissions count inside, also for root. Modules that are still to be imported may be out of reach."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextmanager
def folder_for_everyone() -> Iterator[Path]:
    """A new folder that other users can reach, unlike pytest's tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name)
        try:
            yield folder
        finally:
            for directory, _, _ in os.walk(folder):
                os.chmod(directory, 0o755)
