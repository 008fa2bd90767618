"""Scaling pictures down: the stage `preprocessing` against vipsthumbnail and mogrify, in one run, on all cores.

    python -m bench.preprocessing                         200 JPEGs of 12 megapixels to WebP of 2048 pixels
    python -m bench.preprocessing --photos 20 --rounds 2
    python -m bench.preprocessing --folder ~/Pictures     the JPEGs of a folder instead
    python -m bench.preprocessing --format jpeg

Makes the JPEGs with ../shared/tools/make_folder_library.py (photographic spectrum, EXIF with GPS, sRGB profile; eight
different pictures; skipped, with a word, where that is absent). Everybody gets the same files, the same quality and
the same longest side, and keeps the metadata. Peers that are not installed are left out (Debian: libvips-tools,
imagemagick). Those that are run in both of their ways, and the faster counts:

    ours                   one process, the recipe in a pool of as many threads as cores; starting Python is counted
    vipsthumbnail          one process with all files, which is parallel within a picture
    vipsthumbnail, xargs   one process a picture, as many at once as there are cores
    mogrify                one process with all files, parallel within a picture (OpenMP)
    mogrify, xargs         one process for every ten pictures, as many at once as there are cores, one thread each

WebP effort is 4 for all of them (libwebp's `method`; everybody's default). Nobody syncs. Rounds alternate, so that
a busy machine hits all; medians are compared. CPU is user and system seconds of all processes: on a busy machine it is
the steadier figure. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
EXTENSIONS = {"webp": "webp", "jpeg": "jpg", "avif": "avif"}


@dataclass(frozen=True)
class Took:
    """One command, once. Seconds."""

    wall: float
    cpu: float
    bytes_written: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--size", default="4032x3024")
    parser.add_argument("--folder", type=Path, help="JPEGs of your own instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", choices=sorted(EXTENSIONS), default="webp")
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--max-dimension", type=int, default=2048)
    parser.add_argument("--tools", type=Path, default=PROJECT.parent / "shared" / "tools")
    parser.add_argument("--scratch", type=Path, default=None, help="a folder on the disk to be measured")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours is not None:
        scale_all(given)
        return 0
    with tempfile.TemporaryDirectory(prefix="skicyclerun-bench-", dir=given.scratch) as scratch:
        place = Path(scratch)
        if given.folder is None:
            if not (given.tools / "make_folder_library.py").is_file():
                say(f"skipped: {given.tools} is not here, and the pictures are made with it; or name a --folder")
                return 0
            given.folder = make_photos(place / "photos", given)
        compare(place, given)
    return 0


def make_photos(folder: Path, given: argparse.Namespace) -> Path:
    command = [sys.executable, str(given.tools / "make_folder_library.py"), str(folder)]
    command += ["--photos", str(given.photos), "--albums", "1", "--mix", "jpeg=100", "--jpeg-size", given.size]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def jpegs_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


# ── those who are compared ────────────────────────────────────────────────────────────────────────────────────────


def scale_all(given: argparse.Namespace) -> None:
    """What the process of `ours` does."""
    from skicyclerun.stages.preprocessing import Preprocessing, PreprocessingSettings
    from skicyclerun.stages.stage import Picture, Surroundings

    section = PreprocessingSettings(
        max_dimension=given.max_dimension, format=given.format, quality=given.quality, metadata="keep"
    )
    recipe = Preprocessing(section, Surroundings(given.ours, given.ours, given.ours))
    recipe.open()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(
            lambda path: recipe.make(Picture(path, ""), given.ours / f"{path.stem}{recipe.extension}"),
            jpegs_of(given.folder),
        )
        for _ in made:
            pass


def commands(files: list[Path], out: Path, given: argparse.Namespace) -> dict[str, list[list[str]]]:
    """By who it is: the ways of running them."""
    cores, names = str(os.cpu_count() or 1), [str(path) for path in files]
    ours = [sys.executable, "-m", "bench.preprocessing", "--ours", str(out), "--folder", str(given.folder)]
    ours += ["--format", given.format, "--quality", str(given.quality), "--max-dimension", str(given.max_dimension)]
    found = {"ours": [ours]}
    box = f"{given.max_dimension}x{given.max_dimension}"
    if shutil.which("vipsthumbnail"):
        target = f"{out}/%s.{EXTENSIONS[given.format]}[Q={given.quality}]"
        vips = ["vipsthumbnail", "--size", box, "-o", target]
        found["vipsthumbnail"] = [[*vips, *names], ["xargs", "-0", "-P", cores, "-n", "1", *vips]]
    if shutil.which("mogrify"):
        magick = ["mogrify", "-path", str(out), "-resize", box, "-quality", str(given.quality), "-format"]
        magick.append(EXTENSIONS[given.format])
        one_thread = ["env", "MAGICK_THREAD_LIMIT=1", *magick]
        found["mogrify"] = [[*magick, *names], ["xargs", "-0", "-P", cores, "-n", "10", *one_thread]]
    return found


def run(command: list[str], files: list[Path], out: Path) -> Took:
    """Into an empty folder; what earlier commands left to be written is written first."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    os.sync()
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    names = "\0".join(map(str, files)) if command[0] == "xargs" else ""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, input=names.encode(), env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    made = list(out.iterdir())
    if len(made) != len(files):
        raise SystemExit(f"{command[0]} made {len(made)} files of {len(files)}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, cpu, sum(path.stat().st_size for path in made))


def compare(place: Path, given: argparse.Namespace) -> None:
    files, out = jpegs_of(given.folder), place / "out"
    if not files:
        raise SystemExit("There are no JPEGs to scale.")
    ways = {
        f"{name}, xargs" if command[0] == "xargs" else name: command
        for name, each in commands(files, out, given).items()
        for command in each
    }
    warm_up = files[: min(len(files), 2 * (os.cpu_count() or 1))]
    for path in warm_up:
        path.read_bytes()
    took: dict[str, list[Took]] = {name: [] for name in ways}
    for turn in range(given.rounds):
        # Each round begins with another one, so that nobody always follows the same neighbour.
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for name in order:
            took[name].append(run(ways[name], files, out))
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    say(
        f"{len(files)} JPEGs, {megabytes:.0f} MB, to {given.format} at quality {given.quality} and "
        f"{given.max_dimension} pixels; {os.cpu_count()} cores, {given.rounds} rounds"
    )
    table(took, len(files))


def table(took: dict[str, list[Took]], photos: int) -> None:
    wall = {name: statistics.median(each.wall for each in rounds) for name, rounds in took.items()}
    width = max(map(len, took))
    say(f"{'':{width}}  {'wall':>8} {'least':>8} {'photos/s':>9} {'CPU/photo':>10} {'kB/photo':>9} {'ours is':>12}")
    for name, rounds in took.items():
        cpu = statistics.median(each.cpu for each in rounds) / photos
        kilobytes = rounds[0].bytes_written / 1e3 / photos
        ratio = f"{wall[name] / wall['ours']:.2f} as fast"
        least = min(each.wall for each in rounds)
        figures = f"{wall[name]:>6.1f} s {least:>6.1f} s {photos / wall[name]:>9.2f} {cpu * 1000:>7.0f} ms"
        say(f"{name:{width}}  {figures} {kilobytes:>9.0f} {ratio:>12}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
