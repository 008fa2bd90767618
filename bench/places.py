"""Places offline: how long many positions take, loading included, and how much memory the place names need.

    python -m bench.places                        100,000 positions, all over the globe
    python -m bench.places --positions 20000
    python -m bench.places --around 47,8 --degrees 3     where towns lie close together

The first line is what a run pays: loading GeoNames and every position, in one thread. Memory is the peak of the
process, and what the same interpreter needed before it loaded anything of this.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import sys
import time

from skicyclerun.places import offline


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=100_000)
    parser.add_argument("--around", default="", metavar="LAT,LON")
    parser.add_argument("--degrees", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    chance = random.Random(options.seed)
    if options.around:
        latitude, longitude = map(float, options.around.split(","))
        positions = [
            (
                latitude + chance.uniform(-options.degrees, options.degrees),
                longitude + chance.uniform(-options.degrees, options.degrees),
            )
            for _ in range(options.positions)
        ]
    else:
        positions = [
            (math.degrees(math.asin(chance.uniform(-1, 1))), chance.uniform(-180, 180))
            for _ in range(options.positions)
        ]
    before = peak_mb()
    begin = time.perf_counter()
    towns = offline.gazetteer()
    loaded = time.perf_counter()
    placed = sum(towns.locate(*position) is not None for position in positions)
    done = time.perf_counter()
    sys.stdout.write(
        f"{options.positions} positions in {done - begin:.2f} s: {loaded - begin:.2f} s to load {len(towns)} towns "
        f"({offline.data_version()}), {(done - loaded) / max(options.positions, 1) * 1e6:.1f} µs a position\n"
        f"{placed} of them within {offline.FARTHEST_KM:g} km of a town\n"
        f"peak memory {peak_mb():.0f} MB, {before:.0f} MB before loading\n"
    )


if __name__ == "__main__":
    main()
