"""Archiving measured against what it replaces, in one run on one tree of JPEGs.

    python -m bench.archive SCRATCH_DIRECTORY [--size-mb 2000] [--files 700] [--pictures DIR] [--json]

Ours (write, sync, prove, publish) · `zip -0 -r` followed by `unzip -t` · a copy of the tree followed by
`shutil.make_archive`, which is what the old design did. The tree is made on the fly and removed at the end, so are all
archives. Each way runs in a process of its own: wall time, peak resident memory, and the extra disk at the peak.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

WAYS = ("ours", "zip -0 + unzip -t", "copy + make_archive")


@dataclass(frozen=True, slots=True)
class Measured:
    way: str
    seconds: float
    peak_rss_mb: float
    extra_disk_mb: float
    detail: str = ""


def make_tree(root: Path, size_mb: int, files: int, templates: Path | None) -> None:
    """Albums of real JPEGs (some are given or encoded, the rest differ from them in a comment), and a little text."""
    if templates is None:
        pictures = [_picture(size_mb * 1_000_000 // files, seed) for seed in range(4)]
    else:
        found = sorted(path for path in templates.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        found.sort(key=lambda path: path.stat().st_size, reverse=True)
        pictures = [path.read_bytes() for path in found[:20]]
    number, left = 0, size_mb * 1_000_000
    while left > 0:
        album = root / "albums" / f"Album {number % 10:02d}"
        album.mkdir(parents=True, exist_ok=True)
        picture = pictures[number % len(pictures)]
        comment = b"\xff\xfe\x00\x12" + f"{number:016d}".encode()
        (album / f"IMG_{number:05d}.jpg").write_bytes(picture[:2] + comment + picture[2:])
        left -= len(picture)
        number += 1
    metadata = root / "metadata"
    metadata.mkdir()
    entries = {f"/photos/{each}": {"file_name": f"IMG_{each:05d}.jpg"} for each in range(number)}
    (metadata / "master.json").write_text(json.dumps(entries, indent=1))


def _picture(wanted: int, seed: int) -> bytes:
    """A JPEG of about `wanted` bytes: a gradient with sensor noise, as large as it takes."""
    sample = _encode(1000, seed)
    return _encode(max(16, int(1000 * (wanted / len(sample)) ** 0.5)), seed)


def _encode(side: int, seed: int) -> bytes:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(seed)
    slope = np.linspace(0, 200, side)[None, :, None] + np.linspace(0, 40, side)[:, None, None]
    pixels = np.clip(slope + noise.normal(0, 12, (side, side, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def ours(tree: Path, target: Path) -> str:
    from skicyclerun.archive.create import write_archive
    from skicyclerun.archive.plan import ArchivedFolder, plan_archive
    from skicyclerun.archive.prove import prove_archive
    from skicyclerun.archive.publish import publish_archive

    started = time.perf_counter()
    plan = plan_archive([ArchivedFolder(name, tree / name) for name in ("albums", "metadata")])
    written = write_archive(plan, target, timestamp="20261122_161500", archive_id="bench")
    between = time.perf_counter()
    publish_archive(prove_archive(written.partial, written))
    return f"write {between - started:.2f} s, prove {time.perf_counter() - between:.2f} s"


def zip_and_unzip(tree: Path, target: Path) -> str:
    archive = target / "tree.zip"
    started = time.perf_counter()
    subprocess.run(["zip", "-q", "-0", "-r", str(archive), "albums", "metadata"], cwd=tree, check=True)
    between = time.perf_counter()
    subprocess.run(["unzip", "-q", "-t", str(archive)], check=True, stdout=subprocess.DEVNULL)
    return f"zip {between - started:.2f} s, unzip -t {time.perf_counter() - between:.2f} s"


def copy_and_make_archive(tree: Path, target: Path) -> str:
    copy = target / "copy"
    started = time.perf_counter()
    shutil.copytree(tree, copy)
    between = time.perf_counter()
    shutil.make_archive(str(target / "tree"), "zip", copy)
    detail = f"copy {between - started:.2f} s, make_archive {time.perf_counter() - between:.2f} s"
    shutil.rmtree(copy)
    return detail


RUNS: dict[str, Callable[[Path, Path], str]] = dict(
    zip(WAYS, (ours, zip_and_unzip, copy_and_make_archive), strict=True)
)


@contextmanager
def watched_disk(directory: Path) -> Iterator[list[int]]:
    """The largest number of bytes allocated below a directory, sampled."""
    peak, done = [0], threading.Event()

    def used() -> int:
        total = 0
        for folder, _, names in os.walk(directory):
            for name in names:
                try:
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
        return total

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], used())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak[0] = max(peak[0], used())


def measure(way: str, tree: Path, scratch: Path) -> Measured:
    """Run one way in a fresh process, with everything written before on the disk already."""
    target = Path(tempfile.mkdtemp(prefix="target-", dir=scratch))
    os.sync()
    command = [sys.executable, "-m", "bench.archive", "--run", way, str(tree), str(target)]
    with watched_disk(target) as peak:
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(target)
    report = json.loads(result.stdout)
    return Measured(way, report["seconds"], report["peak_rss_mb"], peak[0] / 1e6, report["detail"])


def run_here(way: str, tree: Path, target: Path) -> None:
    started = time.perf_counter()
    detail = RUNS[way](tree, target)
    seconds = time.perf_counter() - started
    # ru_maxrss is in KiB on Linux, in bytes on macOS.
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_rss_mb": peak, "detail": detail}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure archiving against zip and against the old way.")
    parser.add_argument("scratch", type=Path, help="directory on the disk to be measured; a folder in it is used")
    parser.add_argument("--size-mb", type=int, default=2000, help="megabytes of pictures")
    parser.add_argument("--files", type=int, default=700, help="number of pictures")
    parser.add_argument("--pictures", type=Path, help="folder of JPEGs to fill the tree with, rather than made ones")
    parser.add_argument("--repeat", type=int, default=1, help="rounds of the first two ways; the median counts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    if sys.argv[1:2] == ["--run"]:
        run_here(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="bench-archive-", dir=arguments.scratch))
    try:
        tree = scratch / "tree"
        # In a process of its own: a child's peak memory begins with its parent's, and numpy is large.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_tree, args=(tree, arguments.size_mb, arguments.files, arguments.pictures)
        )
        maker.start()
        maker.join()
        tree_mb = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1_000_000
        rounds: dict[str, list[Measured]] = {way: [] for way in WAYS}
        for number in range(arguments.repeat):
            for way in WAYS if number == 0 else WAYS[:2]:
                rounds[way].append(measure(way, tree, scratch))
        medians = [sorted(found, key=lambda one: one.seconds)[len(found) // 2] for found in rounds.values()]
    finally:
        shutil.rmtree(scratch)
    report(medians, tree_mb, as_json=arguments.json)


def report(results: list[Measured], size_mb: int, *, as_json: bool) -> None:
    mine, peer, old = results
    of_peer, faster = mine.seconds / peer.seconds, old.seconds / mine.seconds
    if as_json:
        ways = [asdict(one) for one in results]
        sys.stdout.write(json.dumps({"size_mb": size_mb, "ways": ways, "of_peer": of_peer, "faster": faster}, indent=1))
        return
    lines = [f"{'way':<22}{'wall s':>8}{'MB/s':>8}{'peak RSS MB':>13}{'extra disk MB':>15}  detail"]
    for one in results:
        figures = f"{one.seconds:>8.2f}{size_mb / one.seconds:>8.0f}{one.peak_rss_mb:>13.0f}{one.extra_disk_mb:>15.0f}"
        lines.append(f"{one.way:<22}{figures}  {one.detail}")
    lines.append(f"ours takes {of_peer:.2f} times zip -0 + unzip -t (aim: at most 1.3)")
    lines.append(f"ours is {faster:.1f} times faster than the old way (aim: at least 12)")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
