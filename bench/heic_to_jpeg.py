"""HEIC to JPEG: this program's conversion against the bare decode-and-encode loop, in one run, on all cores.

    python -m bench.heic_to_jpeg                          16 synthetic pictures of 12 megapixels
    python -m bench.heic_to_jpeg --photos 40 --rounds 5
    python -m bench.heic_to_jpeg --folder ~/Pictures/heic the HEICs of a folder instead

The bare loop is pillow-heif's decoder and Pillow's encoder at the same quality in as many threads, without metadata,
profile, hash or file time. Rounds alternate, so that a busy machine hits both; the medians are compared, of photos a
second and of processor seconds a photo, which a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pillow_heif
from PIL import Image, ImageFilter

from skicyclerun.images.heif_ffmpeg import why_not_used
from skicyclerun.images.render import RenderOptions, render_photo
from skicyclerun.models import Component, Fetched, LibraryMetadata, Location

_KNOWN = LibraryMetadata(
    date=datetime(2024, 7, 27, 10, 5, 21, tzinfo=UTC),
    location=Location(46.5, 7.25, 1200.0, 90.0),
    title="On the pass",
    description="A picture that has everything to be written",
    keywords=("bench", "pass"),
    persons=("Ann Example",),
    rating=5,
)


def make_heics(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Pictures with detail enough to cost a codec what photos cost; four different ones, over and over."""
    grain = Image.effect_noise(size, 60).filter(ImageFilter.GaussianBlur(2))
    exif = Image.Exif()
    exif[0x010F], exif[0x9003] = "Bench", "2024:07:27 10:05:21"
    encoded: list[bytes] = []
    for turn in range(min(count, 4)):
        red = grain.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turn & 1 else grain
        blue = grain.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if turn & 2 else grain
        written = io.BytesIO()
        picture = Image.merge("RGB", (red, grain, blue.point([value // 2 for value in range(256)])))
        pillow_heif.from_pillow(picture).save(written, quality=50, exif=exif.tobytes())
        encoded.append(written.getvalue())
    paths = [folder / f"IMG_{number:04}.heic" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded[number % len(encoded)])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--size", default="4032x3024")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quality", type=int, default=95)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if options.folder:
            heics = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in (".heic", ".heif"))
        else:
            width, height = map(int, options.size.split("x"))
            heics = make_heics(work, options.photos, (width, height))
        if not heics:
            sys.exit("There are no HEICs to convert.")

        def bare(number: int) -> None:
            image = pillow_heif.HeifFile(heics[number].read_bytes()).to_pillow()
            image.save(work / f"bare{number}.jpg", "JPEG", quality=options.quality)

        def ours(number: int) -> None:
            target = work / f"ours{number}.jpg"
            render_photo(
                Fetched(heics[number], metadata=_KNOWN), Component.STILL, target, RenderOptions(quality=options.quality)
            )

        def measured(convert: Callable[[int], None]) -> tuple[float, float]:
            """Photos a second, and processor seconds a photo."""
            pillow_heif.options.DECODE_THREADS = 1
            begin, used = time.perf_counter(), time.process_time()
            with ThreadPoolExecutor(options.threads) as pool:
                list(pool.map(convert, range(len(heics))))
            photos = len(heics)
            return photos / (time.perf_counter() - begin), (time.process_time() - used) / photos

        measured(ours)
        measured(bare)
        rounds = [(measured(bare), measured(ours)) for _ in range(options.rounds)]
        megabytes = sum(path.stat().st_size for path in heics) / 1e6
    loop, loop_cpu, here, here_cpu = (
        statistics.median(values) for values in zip(*((*bare, *ours) for bare, ours in rounds), strict=True)
    )
    sys.stdout.write(
        f"{len(heics)} HEICs, {megabytes:.0f} MB, {options.threads} threads, FFmpeg's decoder: "
        f"{why_not_used() or 'in use'}\n"
        f"bare decode and encode   {loop:6.2f} photos/s   {loop_cpu:.3f} s of processor time a photo\n"
        f"skicyclerun              {here:6.2f} photos/s   {here_cpu:.3f} s of processor time a photo\n"
        f"skicyclerun / bare       {here / loop:6.2f} x          {loop_cpu / here_cpu:.2f} x\n"
    )


if __name__ == "__main__":
    main()
