"""A small exported library to be damaged: what tests of verify, rebuild and the Python API begin with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from skicyclerun import PhotoExporter
from skicyclerun.cli import run_command_line

#: Albums of the sample library by folder, with their files; two of them have one title, one has one name twice.
SAMPLE_FILES: Final = {
    "Alps": ["IMG_0001.jpg", "IMG_0002.jpg", "IMG_0003.jpg", "IMG_0004.jpg"],
    "Alps (2)": ["DSCF2093.jpg", "IMG_0001 (2).jpg", "IMG_0001.jpg"],
    "Coast_Harbour": ["IMG_0101.jpg", "IMG_0102.jpg", "IMG_0103.jpg"],
    "Frühling am Fluss": ["DSCF0009.jpg", "DSCF0010.jpg", "DSCF0011.jpg"],
}


class Exported:
    """An export of the sample library in a lib_root of its own."""

    def __init__(self, lib_root: Path, library: Path) -> None:
        self.lib_root = lib_root
        self.library = library
        self.albums = lib_root / "pipeline" / "albums"
        self.catalog = lib_root / "metadata" / "master.json"
        self.state_db = lib_root / "state" / "skicyclerun.sqlite3"
        self.archive = lib_root / "archive"
        self.exporter = PhotoExporter(lib_root=lib_root, library=library)

    def export(self) -> Exported:
        self.exporter.export_albums(yes=True)
        return self

    def files(self) -> dict[str, str]:
        """SHA-256 by path below the album folder, of regular files; what links and folders are is said instead."""
        found = {}
        for directory, folders, names in os.walk(self.albums):
            for name in (*names, *(each for each in folders if os.path.islink(os.path.join(directory, each)))):
                path = Path(directory, name)
                below = str(path.relative_to(self.albums))
                found[below] = "link" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def entries(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.catalog.read_text())
        return loaded

    def write_entries(self, entries: dict[str, Any]) -> None:
        self.catalog.write_text(json.dumps(entries, indent=2))

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.state_db)) as connection:
            rows = connection.execute(statement, values).fetchall()
            connection.commit()
            return rows

    def command(self, *arguments: str) -> int:
        """Run a command in this process; returns its exit code."""
        return run_command_line([*arguments, "--lib-root", str(self.lib_root)])

    def process(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own."""
        command = [sys.executable, "-m", "skicyclerun", *arguments, "--lib-root", str(self.lib_root)]
        root = str(Path(__file__).resolve().parents[1])
        return subprocess.run(
            command, env=os.environ | environ, cwd=root, capture_output=True, text=True, timeout=120, check=False
        )


def exported_once(folder: Path, library: Path) -> Callable[[], Exported]:
    """Exports once; what it returns puts all of it back as it was, at the same place."""
    root, saved = folder / "out", folder / "saved"
    Exported(root, library).export()
    shutil.copytree(root, saved, symlinks=True)

    def put_back() -> Exported:
        if root.exists():  # a test may have moved it
            shutil.rmtree(root)
        shutil.copytree(saved, root, symlinks=True)
        return Exported(root, library)

    return put_back


def flip_a_byte(path: Path, at: int = -200) -> None:
    """Change one byte in the image data, and put the times back."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def all_files() -> Iterator[tuple[str, str]]:
    for folder, names in SAMPLE_FILES.items():
        for name in names:
            yield folder, name
