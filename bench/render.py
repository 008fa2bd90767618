"""What one JPEG costs the thread that renders it, in all and by part, with the facts its library has of it.

    python -m bench.render --photos 300 --rounds 9
    python -m bench.render --library Large.photoslibrary --against ../another-checkout

Without --library one of 640x480 (83 kB) is made with ../shared/tools/scale_library.py (skipped, with a word, where that
is absent). Each round renders all photos in a process that lives through all rounds; with --against a second one has
the code of another checkout, and they take turns. Shown are milliseconds of the thread's own time a photo, the least of
the rounds and the median. What is least of all is measured beside it: reading, hashing and writing the same bytes.
Parts are timed in rounds of their own, since the timing costs something too. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from bench.export import PROJECT, TEMPLATE, make_library, say
from skicyclerun.images import render
from skicyclerun.models import Component, Fetched
from skicyclerun.sources.photos_library import PhotosLibrary

PARTS = {
    "read_header": "header taken apart",
    "check_first_rows": "first rows decoded",
    "tags_of_segments": "tags read",
    "write_library_metadata": "tags decided and set",
    "encode": "tags encoded",
    "facts_of": "facts",
    "replace_metadata": "header put together",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=None, help="a .photoslibrary; it is only read")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--against", type=Path, default=None, help="another checkout, rendering in turn")
    parser.add_argument("--scratch", type=Path, default=None, help="where photos are written")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        answer(given.work, given.scratch)
        return 0
    if given.library is None and not TEMPLATE.is_dir():
        say(f"skipped: {TEMPLATE} is not here, and a library is made from it")
        return 0
    with tempfile.TemporaryDirectory(prefix="skicyclerun-bench-", dir=given.scratch) as scratch:
        place = Path(scratch)
        library = given.library or make_library(place, "library", given.photos, distinct=False)
        work = place / "photos.pickle"
        work.write_bytes(pickle.dumps(anyio.run(located, library, given.photos)))
        codes = {"before": given.against, "now": PROJECT} if given.against else {"now": PROJECT}
        show(work, place, codes, given.rounds)
    return 0


async def located(library: Path, count: int) -> list[Fetched]:
    """The first photos of a library's albums, with all that is known of them."""
    source = PhotosLibrary(library)
    await source.open()
    try:
        found: dict[str, Fetched] = {}
        for album in await source.albums():
            for photo in await source.photos(album.id):
                if len(found) == count:
                    return list(found.values())
                if photo.component is Component.STILL:
                    found[photo.id] = source.locate(photo)
        return list(found.values())
    finally:
        await source.close()


def show(work: Path, place: Path, codes: dict[str, Path], rounds: int) -> None:
    workers = {name: _start(code, work, place) for name, code in codes.items()}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(b"\n")
            worker.stdin.flush()
            taken[name].append(pickle.load(worker.stdout))
    for worker in workers.values():
        worker.communicate()
    say(f"{'ms a photo':24}" + "".join(f"{name:>18}" for name in codes))
    for part in taken["now"][0]:
        figures = ""
        for name in codes:
            values = [one[part] for one in taken[name]]
            figures += f"{min(values):9.3f} ({statistics.median(values):.3f})"
        say(f"{part:24}{figures}")


def _start(code: Path, work: Path, place: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(code)!r}, {str(PROJECT)!r}]"]
    command[-1] += "; import runpy; runpy.run_module('bench.render', run_name='__main__')"
    command += ["--work", str(work), "--scratch", str(place)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=code)


# ── in the process that renders ───────────────────────────────────────────────────────────────────────────────────


def answer(work: Path, place: Path) -> None:
    """A round for each line, until there are no more."""
    photos: list[Fetched] = pickle.loads(work.read_bytes())
    options = render.RenderOptions()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        paths = [Path(folder) / f"{number}.jpg" for number in range(len(photos))]

        def round_of(each: Callable[[Fetched, Path], object]) -> float:
            begin = time.thread_time()
            for photo, path in zip(photos, paths, strict=True):
                each(photo, path)
            taken = time.thread_time() - begin
            for path in paths:
                path.unlink()
            return taken / len(photos) * 1000

        def rendered(photo: Fetched, path: Path) -> None:
            render.render_photo(photo, Component.STILL, path, options)

        round_of(rendered)
        for _ in sys.stdin:
            figures = {"all of it": round_of(rendered), "read, hashed, written": round_of(_copied)}
            with _Timed() as parts:
                round_of(rendered)
            figures |= {f"  {name}": seconds / len(photos) * 1000 for name, seconds in parts.items()}
            sys.stdout.buffer.write(pickle.dumps(figures))
            sys.stdout.buffer.flush()


def _copied(photo: Fetched, path: Path) -> None:
    source, target = os.open(photo.path, os.O_RDONLY), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    data = os.read(source, os.fstat(source).st_size)
    hashlib.sha256(data).hexdigest()
    os.write(target, data)
    os.close(source)
    os.close(target)


class _Timed:
    """While it is open, the functions that `render` calls add up their time."""

    def __enter__(self) -> dict[str, float]:
        self._real = {name: getattr(render, name) for name in PARTS}
        seconds = dict.fromkeys(PARTS.values(), 0.0)

        def timed(name: str) -> Callable[..., Any]:
            real = self._real[name]

            def call(*args: Any, **options: Any) -> Any:
                begin = time.thread_time()
                try:
                    return real(*args, **options)
                finally:
                    seconds[PARTS[name]] += time.thread_time() - begin

            return call

        for name in PARTS:
            setattr(render, name, timed(name))
        return seconds

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(render, name, real)


if __name__ == "__main__":
    sys.exit(main())
