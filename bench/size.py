"""What grows with a library: the export, an update that changes nothing, `status`; and what starting costs.

    python -m bench.size --photos 1000 10000 100000 --scratch DISK
    python -m bench.size --library LIBRARY --lib-root EXPORTED --rounds 3    an export that is there already

Makes libraries of small JPEGs with ../shared/tools/scale_library.py (skipped, with a word, where that is absent).
CPU is user and system of the process and its children, the peak is that of the largest process; medians of the rounds.
The machine's noise is in the seconds, and in those of the CPU. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.export import PROJECT, TEMPLATE, make_library, say

SKICYCLERUN = (sys.executable, "-m", "skicyclerun")


@dataclass(frozen=True)
class Measured:
    """One run of a command."""

    wall: float
    cpu: float
    peak_mib: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--library", type=Path, default=None, help="measure this library alone")
    parser.add_argument("--lib-root", type=Path, default=None, help="where --library has been exported to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=None, help="a folder on the disk to be measured")
    given = parser.parse_args()
    say("| | wall | CPU | peak |")
    if given.library is not None and given.lib_root is not None:
        with_export(given.library.name, given.library, given.lib_root, given.rounds)
        return 0
    if not TEMPLATE.is_dir():
        say(f"skipped: {TEMPLATE} is not here, and libraries are made from it")
        return 0
    with tempfile.TemporaryDirectory(prefix="skicyclerun-bench-", dir=given.scratch) as scratch:
        for photos in given.photos:
            library = make_library(Path(scratch), f"of-{photos}", photos, distinct=False)
            root = Path(scratch) / f"root-{photos}"
            row(f"{photos:,}: export", [run(["run", "--yes", "--library", str(library), "--lib-root", str(root)])])
            with_export(f"{photos:,}", library, root, given.rounds)
        start(given.rounds)
    return 0


def with_export(name: str, library: Path, root: Path, rounds: int) -> None:
    """An update that changes nothing, and the report, of what is exported."""
    update = ["run", "--yes", "--update", "--library", str(library), "--lib-root", str(root)]
    row(f"{name}: update", repeated(update, rounds))
    row(f"{name}: status", repeated(["status", "--lib-root", str(root)], rounds))


def start(rounds: int) -> None:
    """What is done before anything is."""
    row("run --help", repeated(["run", "--help"], rounds))
    row("python -c pass", repeated(None, rounds))


def repeated(command: list[str] | None, rounds: int) -> list[Measured]:
    """Once more before, so that all is in the disk's cache."""
    run(command)
    return [run(command) for _ in range(rounds)]


def run(command: list[str] | None) -> Measured:
    typed = [sys.executable, "-c", "pass"] if command is None else [*SKICYCLERUN, *command]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(typed, stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise SystemExit(f"{typed} ended with {process.returncode}:\n{output.read().decode(errors='replace')}")
    unit = 1 << 10 if sys.platform != "darwin" else 1 << 20
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def row(name: str, measured: list[Measured]) -> None:
    """A line of the table: medians."""
    wall = statistics.median(each.wall for each in measured)
    cpu = statistics.median(each.cpu for each in measured)
    say(f"| {name} | {wall:.2f} s | {cpu:.2f} s | {max(each.peak_mib for each in measured):.0f} MiB |")


if __name__ == "__main__":
    sys.exit(main())
