"""The page of a run: made for the first time, made again with nothing changed, and opened by a browser.

    python -m bench.report --photos 20000 --albums 100 --size 1024x768

Makes a folder of JPEGs with dates and positions, exports it by `skicyclerun run`, then runs `skicyclerun report` with
no thumbnail there, and again. Figures are wall seconds, CPU seconds (user and system, children included) and bytes.
Pictures of one size cost the same, whatever is in them: of larger ones take fewer, and multiply. With playwright and a
Chromium the time until the first page has loaded is told as well. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

SKICYCLERUN = (sys.executable, "-m", "skicyclerun")
BASES = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--albums", type=int, default=10)
    parser.add_argument("--size", default="1024x768", help="pixels of each photo (default 1024x768)")
    parser.add_argument("--scratch", type=Path, default=None, help="a folder on the disk to be measured")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="skicyclerun-bench-", dir=given.scratch) as scratch:
        library, root = Path(scratch, "library"), Path(scratch, "root")
        make_library(library, given.photos, given.albums, (width, height))
        run("export", "run", "--yes", "--library", str(library), "--lib-root", str(root))
        shutil.rmtree(library)
        run("page, no thumbnail there", "report", "--lib-root", str(root))
        run("page, nothing changed", "report", "--lib-root", str(root))
        pages = sorted((root / "report_files").iterdir())
        thumbnails = [path.stat().st_size for path in (root / "state" / "thumbnails").rglob("*.webp")]
        say(f"first page {(root / 'report.html').stat().st_size:,} bytes, {len(pages)} others of at most")
        say(f"{max(page.stat().st_size for page in pages):,}; {len(thumbnails)} thumbnails of {sum(thumbnails):,}")
        open_in_browser(root / "report.html")
    return 0


def make_library(library: Path, photos: int, albums: int, size: tuple[int, int]) -> None:
    """Albums of JPEGs that differ in a comment; sixty pictures, each with a date and a position of its own."""
    chance = random.Random(20)
    bases = [base(chance, size) for _ in range(BASES)]
    for number in range(photos):
        folder = library / f"Album {number % albums:03}"
        folder.mkdir(parents=True, exist_ok=True)
        comment = f"photo {number}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        data = bases[number % BASES]
        (folder / f"IMG_{number:05}.jpg").write_bytes(data[:-2] + segment + data[-2:])


def base(chance: random.Random, size: tuple[int, int]) -> bytes:
    """A picture of coarse and fine detail, as large in bytes as a photograph of its size."""
    coarse = Image.frombytes("RGB", (24, 18), chance.randbytes(24 * 18 * 3)).resize(size, Image.Resampling.BICUBIC)
    fine = Image.frombytes("RGB", size, chance.randbytes(size[0] * size[1] * 3))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = f"2024:{chance.randint(1, 12):02}:{chance.randint(1, 28):02} 10:00:00"
    north, east = chance.uniform(-35, 65), chance.uniform(-120, 140)
    exif.get_ifd(0x8825).update(
        {1: "N" if north > 0 else "S", 2: degrees(abs(north)), 3: "E" if east > 0 else "W", 4: degrees(abs(east))}
    )
    written = io.BytesIO()
    Image.blend(coarse, fine, 0.08).save(written, "JPEG", quality=92, exif=exif.tobytes())
    return written.getvalue()


def degrees(value: float) -> tuple[float, float, float]:
    return (float(int(value)), float(int(value * 60 % 60)), 0.0)


def run(name: str, *arguments: str) -> None:
    before, begun = os.times(), time.perf_counter()
    subprocess.run((*SKICYCLERUN, *arguments), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after, seconds = os.times(), time.perf_counter() - begun
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    say(f"{name:<26} {seconds:8.1f} s wall {cpu:8.1f} s CPU")


def open_in_browser(page: Path) -> None:
    """How long Chromium takes until the page has loaded."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        say("no browser here to open it")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        begun = time.perf_counter()
        tab.goto(page.as_uri())
        say(f"loaded by Chromium in {time.perf_counter() - begun:.2f} s")
        browser.close()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
