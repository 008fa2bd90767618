"""`s3_deployment` against `aws s3 sync`, on the same server, in one run.

    python -m bench.s3 --aws /path/to/aws [--files 2000] [--unchanged 20000] [--rounds 2] [--scratch DIR]

The server is moto's, in a process of its own, and is emptied before each upload. It is written in Python: much of what
is measured of an upload is the server. `aws` is awscli in a virtual environment of its own
(`python -m venv aws; aws/bin/pip install awscli`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

from tests.bucket_server import CREDENTIALS, Service, running_service

_BUCKET = "bench"
_PREFIX = "site"


def make_library(folder: Path, files: int, size: int) -> None:
    """Albums of 500 pictures of about `size` bytes, no two alike."""
    chance = random.Random(1)
    side = 64
    data = b""
    while len(data) < size - 400:
        noise = Image.frombytes("RGB", (side, side), chance.randbytes(3 * side * side))
        written = io.BytesIO()
        noise.save(written, "JPEG", quality=90)
        data = written.getvalue()
        side = int(side * 1.15) + 1
    for number in range(files):
        album = folder / f"Album {number // 500:03}"
        album.mkdir(parents=True, exist_ok=True)
        (album / f"IMG_{number:05}.jpg").write_bytes(data + f"picture {number}".encode())


def configured(root: Path, library: Path, service: Service) -> None:
    """A lib_root whose pictures go to the bucket."""
    section = {
        "bucket_name": _BUCKET,
        "bucket_prefix": _PREFIX,
        "endpoint_url": service.address,
        "source_folder": "apple_photos_export",
    }
    export = {
        "source": "folder",
        "library": str(library),
        "format": "original",
        "timeouts": {"album": 7200, "run": 7200},
    }
    (root / "config").mkdir(parents=True, exist_ok=True)
    text = json.dumps({"export": export, "s3_deployment": section})
    (root / "config" / "pipeline_config.json").write_text(text)


Took = tuple[float, float]
"""Seconds on the clock, and of CPU; of the command, not of the server."""


def ours(root: Path, *stages: str) -> Took:
    """A run of these stages, as a command."""
    command = [
        sys.executable,
        "-m",
        "skicyclerun",
        "run",
        "--yes",
        "--stages",
        ",".join(stages),
        "--lib-root",
        str(root),
    ]
    return timed(command)


def theirs(aws: str, root: Path, service: Service) -> Took:
    """`aws s3 sync` of the same folder."""
    folder = root / "pipeline" / "albums"
    where = f"s3://{_BUCKET}/{_PREFIX}"
    return timed([aws, "--endpoint-url", service.address, "s3", "sync", "--only-show-errors", str(folder), where])


def timed(command: list[str]) -> Took:
    environment = {**os.environ, **CREDENTIALS}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs, as `aws` is here, have their bytecode
    began, before = time.perf_counter(), os.times()
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode != 0:
        raise SystemExit(f"{command[:3]}: {ended.stderr[-2000:]}")
    now = os.times()
    cpu = now.children_user - before.children_user + now.children_system - before.children_system
    return time.perf_counter() - began, cpu


def emptied(service: Service) -> Any:
    """The server without anything but an empty bucket."""
    urllib.request.urlopen(urllib.request.Request(f"{service.address}/moto-api/reset", method="POST")).close()
    client = service.client("s3")
    client.create_bucket(Bucket=_BUCKET)
    return client


def forgotten(root: Path) -> None:
    """As if nothing had been uploaded."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(root / "state" / "skicyclerun.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM bucket_objects")
        connection.execute("DELETE FROM stage_pictures WHERE stage = 's3_deployment'")


def first_upload(aws: str, scratch: Path, files: int, rounds: int, service: Service) -> None:
    library, root = scratch / "library", scratch / "root"
    make_library(library, files, 300_000)
    configured(root, library, service)
    ours(root, "export")
    found: dict[str, list[Took]] = {"s3_deployment": [], "aws s3 sync": []}
    for _ in range(rounds):
        emptied(service)
        forgotten(root)
        found["s3_deployment"].append(ours(root, "s3_deployment"))
        emptied(service)
        found["aws s3 sync"].append(theirs(aws, root, service))
    for name, took in found.items():
        say(f"{files} files of 300 kB, {name}: {in_words(took)}")


def nothing_changed(aws: str, scratch: Path, files: int, rounds: int, service: Service) -> None:
    library, root = scratch / "many", scratch / "many-root"
    make_library(library, files, 2000)
    configured(root, library, service)
    ours(root, "export")
    emptied(service)
    say(f"{files} files of 2 kB, the first upload by s3_deployment: {ours(root, 's3_deployment')[0]:.1f} s")
    found: dict[str, list[Took]] = {"s3_deployment": [], "aws s3 sync": []}
    for _ in range(rounds):
        found["s3_deployment"].append(ours(root, "s3_deployment"))
        found["aws s3 sync"].append(theirs(aws, root, service))
    for name, took in found.items():
        say(f"{files} objects, nothing changed, {name}: {in_words(took)}")


def in_words(took: list[Took]) -> str:
    seconds, cpu = ([f"{each[which]:.1f}" for each in took] for which in (0, 1))
    return f"{', '.join(seconds)} s; best {min(took)[0]:.1f}; of CPU {', '.join(cpu)} s"


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aws", default=shutil.which("aws") or "aws")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--unchanged", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="skicyclerun-bench-", dir=given.scratch))
    try:
        with running_service() as service:
            if given.files:
                first_upload(given.aws, scratch, given.files, given.rounds, service)
            if given.unchanged:
                nothing_changed(given.aws, scratch, given.unchanged, given.rounds, service)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
