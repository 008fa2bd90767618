"""Listing a Photos library: its albums, the photos of all of them, what all photos are chosen by; and peers.

    python -m bench.albums --library Large.photoslibrary --rounds 3

Without --library one of --photos is made with ../shared/tools/scale_library.py (skipped, with a word, where that is
absent). In turn, each in a process of its own:

    albums          `skicyclerun albums --json`, start-up included
    photos          a library opened, the photos of every album with their fingerprints
    facts           a library opened, what all photos are chosen by
    whole           the same library opened as `photosdb` does it: all of it through osxphotos
    osxphotos       `osxphotos albums`; it opens the database in place, which leaves a -shm and a -wal beside it

Figures are medians of CPU seconds (user and system) and wall seconds, and the highest peak of resident memory.
Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import anyio

from bench.export import OSXPHOTOS, PROJECT, SKICYCLERUN, TEMPLATE, make_library, say
from skicyclerun.sources.photos_bundle import CopyFolder, check_is_library, copy_database
from skicyclerun.sources.photos_library import PhotosLibrary
from skicyclerun.sources.photosdb import WholeLibrary


@dataclass(frozen=True)
class Measured:
    """One process."""

    cpu: float
    wall: float
    peak_mb: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=None, help="a .photoslibrary; ours only read it")
    parser.add_argument("--photos", type=int, default=10_000, help="of the library that is made (default 10,000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=None, help="some of the works above")
    parser.add_argument("--work", choices=("photos", "facts", "whole"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        anyio.run({"photos": photos, "facts": facts, "whole": whole}[given.work], given.library)
        return 0
    if given.library is None and not TEMPLATE.is_dir():
        say(f"skipped: {TEMPLATE} is not here, and a library is made from it")
        return 0
    with tempfile.TemporaryDirectory(prefix="skicyclerun-bench-") as scratch:
        library = given.library or make_library(Path(scratch), "many", given.photos, distinct=False)
        measure(library.resolve(), given.rounds, given.only)
    return 0


def measure(library: Path, rounds: int, only: list[str] | None) -> None:
    itself = (sys.executable, "-m", "bench.albums", "--library", str(library), "--work")
    works: dict[str, list[str]] = {
        "albums": [*SKICYCLERUN, "albums", "--json", "--library", str(library)],
        "photos": [*itself, "photos"],
        "facts": [*itself, "facts"],
        "whole": [*itself, "whole"],
        "osxphotos": [OSXPHOTOS, "albums", "--library", str(library)],
    }
    taken: dict[str, list[Measured]] = {name: [] for name in works if only is None or name in only}
    for _ in range(rounds):
        for name, each in taken.items():
            each.append(run(works[name]))
    say("| | CPU | wall | peak memory |\n|---|---|---|---|")
    for name, each in taken.items():
        cpu, wall = (statistics.median(getattr(one, field) for one in each) for field in ("cpu", "wall"))
        say(f"| {name} | {cpu:.1f} s | {wall:.1f} s | {max(one.peak_mb for one in each):.0f} MB |")


def run(command: list[str]) -> Measured:
    began = time.monotonic()
    process = os.posix_spawn(
        command[0],
        command,
        {**os.environ, "PYTHONPATH": str(PROJECT)},
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: {os.waitstatus_to_exitcode(status)}")
    scale = 1 if sys.platform == "darwin" else 1024
    return Measured(used.ru_utime + used.ru_stime, time.monotonic() - began, used.ru_maxrss * scale / 1e6)


async def photos(library: Path) -> None:
    source = PhotosLibrary(library)
    await source.open()
    for album in await source.albums():
        await source.photos(album.id)
    await source.close()


async def facts(library: Path) -> None:
    source = PhotosLibrary(library)
    await source.open()
    await source.facts()
    await source.close()


async def whole(library: Path) -> None:
    folder = CopyFolder()
    copied = copy_database(library, check_is_library(library), folder.path, lambda *_: None)
    database = WholeLibrary(library, copied, folder, lambda *_: None)
    database.albums()
    database.close()


if __name__ == "__main__":
    sys.exit(main())
