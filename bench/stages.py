"""Stages over pictures that are done already, and how memory and time grow with their number.

    python -m bench.stages --photos 1000 5000

Makes folders of tiny JPEGs with date and position, exports them and runs metadata_extraction, geocode_sweep,
preprocessing and watermarking (four rows a photo), then runs the stages again, with nothing to do, three times. Tiny
pictures, so that what is measured is the frame: planning, rows, catalog, report. Figures are wall seconds and the peak
resident memory of the process, start-up included. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from bench.export import SKICYCLERUN, Measured, run

STAGES = ("metadata_extraction", "geocode_sweep", "preprocessing", "watermarking")
PER_ALBUM = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--scratch", type=Path, default=None, help="a folder on the disk to be measured")
    given = parser.parse_args()
    say(
        f"{'photos':>8}  {'rows':>8}  {'export and stages':>18}  {'peak':>9}  {'again, nothing to do':>21}  {'peak':>9}"
    )
    for photos in given.photos:
        with tempfile.TemporaryDirectory(prefix="skicyclerun-bench-", dir=given.scratch) as scratch:
            first, again = measure(Path(scratch), photos)
        say(
            f"{photos:>8}  {photos * len(STAGES):>8}  {first.seconds:>16.1f} s  {first.peak_mib:>5.0f} MiB  "
            f"{again.seconds:>19.2f} s  {again.peak_mib:>5.0f} MiB"
        )
    return 0


def measure(place: Path, photos: int) -> tuple[Measured, Measured]:
    """The first run, and the median of three that have nothing to do."""
    library, root = place / "library", place / "root"
    make_pictures(library, photos)
    where = ["--lib-root", str(root), "--yes"]
    source = ["--source", "folder", "--library", str(library)]
    command = [*SKICYCLERUN, "run", *source, *where, "--stages", ",".join(("export", *STAGES))]
    first = run("export and stages", command, photos)
    idle = [*SKICYCLERUN, "run", *where, "--stages", ",".join(STAGES)]
    again = [run("nothing to do", idle, photos) for _ in range(3)]
    shown = subprocess.run([*idle, "--dry-run"], capture_output=True, text=True, check=True).stderr
    assert shown.count("nothing to do") == len(STAGES), shown
    middle = statistics.median_low([each.seconds for each in again])
    return first, next(each for each in again if each.seconds == middle)


def make_pictures(library: Path, photos: int) -> None:
    """Albums of tiny pictures, each another colour, each with a date and a position in the Alps."""
    for number in range(photos):
        album = library / f"Album {number // PER_ALBUM:03}"
        album.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[Base.Make], exif[Base.Model] = "Maker", "Camera"
        exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = f"2024:06:{number % 28 + 1:02} 10:00:00"
        place = exif.get_ifd(IFD.GPSInfo)
        place[GPS.GPSLatitudeRef], place[GPS.GPSLatitude] = "N", (46.0, float(number % 60), 0.0)
        place[GPS.GPSLongitudeRef], place[GPS.GPSLongitude] = "E", (7.0, float(number // 60 % 60), 0.0)
        colour = (number % 256, number // 256 % 256, 90)
        Image.new("RGB", (64, 48), colour).save(album / f"IMG_{number:05}.jpg", exif=exif)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
