"""Exporting a Photos library: this, against osxphotos' own export and against copying and hashing the originals.

    python -m bench.export --photos 1000 --update-photos 10000

Makes a library of JPEGs of about 3 MB with ../shared/tools/scale_library.py (skipped, with a word, where that is
absent), then runs in turn, on the same originals, each into an empty folder:

    ours                        `skicyclerun run`: metadata written, every file hashed, synced and catalogued
    ours, nothing changed       `skicyclerun run --update` right after
    osxphotos export            no metadata, no hash, no sync
    osxphotos export --exiftool metadata; where exiftool is installed, on at most --exiftool-photos
    cp -r and sha256sum         the least that copying and hashing can cost

Figures are wall seconds, photos a second, and the peak resident memory of the process (children not included). The
machine's noise is in them: read the ratios. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TOOLS = PROJECT.parent / "shared" / "tools"
TEMPLATE = PROJECT.parent / "shared" / "libraries" / "Test-15.4.1.photoslibrary"

SKICYCLERUN = (sys.executable, "-m", "skicyclerun")
OSXPHOTOS = str(Path(sys.executable).with_name("osxphotos"))
COPY_AND_HASH = 'cp -r "$1" "$2" && find "$2" -type f -exec sha256sum {} + >/dev/null'


@dataclass(frozen=True)
class Measured:
    """One command: what it was, how long it took, what it did."""

    name: str
    photos: int
    seconds: float
    peak_mib: float

    @property
    def rate(self) -> float:
        return self.photos / self.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=300, help="JPEGs exported (default 300, about 0.9 GB)")
    parser.add_argument(
        "--update-photos", type=int, default=0, help="also update a library of so many, nothing changed"
    )
    parser.add_argument("--exiftool-photos", type=int, default=300, help="at most so many for the slowest peer")
    parser.add_argument("--scratch", type=Path, default=None, help="a folder on the disk to be measured")
    given = parser.parse_args()
    if not TEMPLATE.is_dir():
        say(f"skipped: {TEMPLATE} is not here, and a library is made from it")
        return 0
    with tempfile.TemporaryDirectory(prefix="skicyclerun-bench-", dir=given.scratch) as scratch:
        place = Path(scratch)
        library = make_library(place, "library", given.photos, distinct=True)
        compare(place, library, given.photos, given.exiftool_photos)
        if given.update_photos:
            many = make_library(place, "many", given.update_photos, distinct=False)
            compare_updates(place, many, given.update_photos)
    return 0


def make_library(place: Path, name: str, photos: int, *, distinct: bool) -> Path:
    library = place / f"{name}.photoslibrary"
    command = [sys.executable, str(TOOLS / "scale_library.py"), str(TEMPLATE), str(library)]
    command += ["--photos", str(photos), "--albums", str(max(1, photos // 100)), "--mix", "jpeg=100"]
    command += ["--loose", "0", "--second-album", "0", "--pool-cache", str(place / "pool")]
    command += ["--copy", "--distinct"] if distinct else ["--link", "--jpeg-size", "640x480"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return library


def compare(place: Path, library: Path, photos: int, exiftool_photos: int) -> None:
    originals = library / "originals"
    copied = place / "copied"
    limit = run("cp -r and sha256sum", ["sh", "-c", COPY_AND_HASH, "sh", str(originals), str(copied)], photos)
    shutil.rmtree(copied)
    root = place / "root"
    ours_command = [*SKICYCLERUN, "run", "--library", str(library), "--lib-root", str(root), "--yes"]
    ours = run("ours", ours_command, photos)
    again = run("ours, nothing changed", [*ours_command, "--update"], photos)
    shutil.rmtree(root)
    peer = [OSXPHOTOS, "export"]
    plain_place = place / "peer"
    plain_place.mkdir()
    options = ["--library", str(library), str(plain_place), "--directory", "{album}", "--skip-original-if-edited"]
    plain = run("osxphotos export", [*peer, *options], photos)
    shutil.rmtree(plain_place)
    rows = [limit, ours, again, plain]
    if shutil.which("exiftool"):
        plain_place.mkdir()
        few = min(photos, exiftool_photos)
        rows.append(run("osxphotos export --exiftool", [*peer, *options, "--exiftool", "--limit", str(few)], few))
        shutil.rmtree(plain_place)
    table(rows, ours)


def compare_updates(place: Path, library: Path, photos: int) -> None:
    root, peer_place = place / "root", place / "peer"
    command = [*SKICYCLERUN, "run", "--library", str(library), "--lib-root", str(root), "--yes"]
    run("first export", command, photos)
    ours = run(f"ours, nothing changed of {photos}", [*command, "--update"], photos)
    peer_place.mkdir()
    peer = [OSXPHOTOS, "export", "--update"]
    peer += ["--library", str(library), str(peer_place), "--directory", "{album}"]
    run("first export of the peer", peer, photos)
    theirs = run(f"osxphotos export --update, nothing changed of {photos}", peer, photos)
    table([ours, theirs], ours)


def run(name: str, command: list[str], photos: int) -> Measured:
    """Run to the end, alone; what earlier commands left to be written is written first."""
    os.sync()
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"{name} ended with {process.returncode}:\n{said}")
    unit = 1 << 10 if sys.platform != "darwin" else 1 << 20
    return Measured(name, photos, seconds, usage.ru_maxrss / unit)


def table(rows: list[Measured], ours: Measured) -> None:
    width = max(len(row.name) for row in rows)
    say(f"{'':{width}}  {'photos':>7} {'wall':>8} {'photos/s':>9} {'ours / it':>10} {'peak':>9}")
    for row in rows:
        ratio = f"{ours.rate / row.rate:.2f}"
        figures = f"{row.photos:>7} {row.seconds:>6.1f} s {row.rate:>9.0f} {ratio:>10} {row.peak_mib:>5.0f} MiB"
        say(f"{row.name:{width}}  {figures}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
