"""The real Photos libraries that lie beside the checkout, and what tests do with them and with folders.

They are read only and never part of the project: where the folder is absent, `needs_libraries` skips with the reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

SHARED: Final = Path(__file__).resolve().parents[1].parent / "shared"
LIBRARIES: Final = SHARED / "libraries"
TEST_LIBRARY: Final = LIBRARIES / "Test-15.4.1.photoslibrary"
MEDIA_TYPES_LIBRARY: Final = LIBRARIES / "Test-Media-Types-15.7.2.photoslibrary"
PHOTOS_4_LIBRARY: Final = LIBRARIES / "Test-10.14.5.photoslibrary"
BETA_LIBRARY: Final = LIBRARIES / "Test-12.0.0.dev-beta.photoslibrary"
"""Of a beta of macOS 12, whose tables lack columns that earlier and later ones have."""

needs_libraries = pytest.mark.skipif(
    not TEST_LIBRARY.is_dir() or not MEDIA_TYPES_LIBRARY.is_dir(),
    reason=f"the sample Photos libraries are not in {LIBRARIES}",
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
