"""Exporting a Photos library: this, against osxphotos' own export and against copying and hashing the originals.

    python -m bench.export --photos 1000 --rounds 3 --update-photos 10000
    python -m bench.export --photos 0 --small 1000 10000

Makes a library of JPEGs of about 3 MB with ../shared/tools/scale_library.py (skipped, with a word, where that is
absent), then runs in turn, on the same originals, each into an empty folder:

    ours                        `skicyclerun run`: metadata written, every file hashed, synced and catalogued
    ours, nothing changed       `skicyclerun run --update` right after
    osxphotos export            no metadata, no hash, no sync
    osxphotos export --exiftool metadata; where exiftool is installed, on at most --exiftool-photos
    cp -r and sha256sum         the least that copying and hashing can cost

Figures are wall seconds, photos a second, CPU seconds (the processes that a command starts included), and peak memory:
on Linux of the whole tree of processes, what they share counted once (PSS, looked at twice a second); elsewhere of the
first process alone. With `--rounds` the commands take turns, and the medians are shown. `--small` exports libraries of
so many JPEGs of 83 kB, where what is not copying counts: does a photo cost the same whatever the size of the library?
The machine's noise is in all of it: read the ratios. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
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
    cpu: float
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
    parser.add_argument("--rounds", type=int, default=1, help="so many times in turn, and the medians")
    parser.add_argument("--small", type=int, nargs="*", default=[], help="also export so many JPEGs of 83 kB, each")
    parser.add_argument("--scratch", type=Path, default=None, help="a folder on the disk to be measured")
    given = parser.parse_args()
    if not TEMPLATE.is_dir():
        say(f"skipped: {TEMPLATE} is not here, and a library is made from it")
        return 0
    with tempfile.TemporaryDirectory(prefix="skicyclerun-bench-", dir=given.scratch) as scratch:
        place = Path(scratch)
        if given.photos:
            library = make_library(place, "library", given.photos, distinct=True)
            compare(place, library, given.photos, given.exiftool_photos, given.rounds)
        if given.small:
            small(place, given.small, given.rounds)
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


def compare(place: Path, library: Path, photos: int, exiftool_photos: int, rounds: int) -> None:
    root, copied, peer_place = place / "root", place / "copied", place / "peer"
    ours = [*SKICYCLERUN, "run", "--library", str(library), "--lib-root", str(root), "--yes"]
    peer = [OSXPHOTOS, "export", "--library", str(library), str(peer_place), "--directory", "{album}"]
    peer.append("--skip-original-if-edited")
    few = min(photos, exiftool_photos)

    def of_the_peer(name: str, *options: str, count: int = photos) -> Measured:
        shutil.rmtree(peer_place, ignore_errors=True)
        peer_place.mkdir()
        return run(name, [*peer, *options], count)

    def copy() -> Measured:
        shutil.rmtree(copied, ignore_errors=True)
        return run(
            "cp -r and sha256sum", ["sh", "-c", COPY_AND_HASH, "sh", str(library / "originals"), str(copied)], photos
        )

    def export() -> Measured:
        shutil.rmtree(root, ignore_errors=True)
        return run("ours", ours, photos)

    commands: list[Callable[[], Measured]] = [
        copy,
        export,
        lambda: run("ours, nothing changed", [*ours, "--update"], photos),
        lambda: of_the_peer("osxphotos export"),
    ]
    if shutil.which("exiftool"):
        exiftool = ("--exiftool", "--limit", str(few))
        commands.append(lambda: of_the_peer("osxphotos export --exiftool", *exiftool, count=few))
    rows = in_turn(commands, rounds)
    table(rows, rows[1])
    for made in (root, copied, peer_place):
        shutil.rmtree(made, ignore_errors=True)


def in_turn(commands: list[Callable[[], Measured]], rounds: int) -> list[Measured]:
    """Each command once a round; of each the round with the median wall time."""
    taken = [[command() for command in commands] for _ in range(rounds)]
    medians = []
    for of_one in zip(*taken, strict=True):
        median = statistics.median_low([one.seconds for one in of_one])
        medians.append(next(one for one in of_one if one.seconds == median))
    return medians


def small(place: Path, sizes: list[int], rounds: int) -> None:
    """Exports of libraries of so many small JPEGs, in turn."""
    commands: list[Callable[[], Measured]] = []
    for photos in sizes:
        library, root = make_library(place, f"small-{photos}", photos, distinct=False), place / f"root-{photos}"

        def export(photos: int = photos, library: Path = library, root: Path = root) -> Measured:
            shutil.rmtree(root, ignore_errors=True)
            command = [*SKICYCLERUN, "run", "--library", str(library), "--lib-root", str(root), "--yes"]
            return run(f"{photos} of 83 kB", command, photos)

        commands.append(export)
    rows = in_turn(commands, rounds)
    table(rows, rows[0])


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
        ended = threading.Event()
        peaks = [0]
        watch = threading.Thread(target=watch_memory, args=(process.pid, ended, peaks))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        ended.set()
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"{name} ended with {process.returncode}:\n{said}")
    unit = 1 << 10 if sys.platform != "darwin" else 1 << 20
    watch.join()
    peak = max(peaks) / (1 << 10) or usage.ru_maxrss / unit
    return Measured(name, photos, seconds, usage.ru_utime + usage.ru_stime, peak)


def watch_memory(pid: int, ended: threading.Event, peaks: list[int]) -> None:
    """Append the memory of a process and all that come from it, KiB, twice a second; nothing without /proc."""
    if not Path("/proc/self/smaps_rollup").exists():
        return
    while not ended.wait(0.5):
        peaks.append(sum(proportional_kib(each) for each in tree_of(pid)))


def tree_of(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return [pid, *(each for child in children for each in tree_of(child))]


def proportional_kib(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def table(rows: list[Measured], ours: Measured) -> None:
    width = max(len(row.name) for row in rows)
    heading = f"{'photos':>7} {'wall':>8} {'photos/s':>9} {'ours / it':>10} {'CPU':>9} {'a photo':>9} {'peak':>9}"
    say(f"{'':{width}}  {heading}")
    for row in rows:
        ratio = f"{ours.rate / row.rate:.2f}"
        cpu = f"{row.cpu:>7.1f} s {row.cpu / row.photos * 1000:>6.2f} ms"
        figures = f"{row.photos:>7} {row.seconds:>6.1f} s {row.rate:>9.0f} {ratio:>10} {cpu} {row.peak_mib:>5.0f} MiB"
        say(f"{row.name:{width}}  {figures}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
