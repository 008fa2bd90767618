"""lora_processing on a real Ray cluster of two nodes with a worker each, on this machine: the same pictures, a worker
that is killed, a cluster that is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.command_line import Ended, start
from tests.staged_sample import Staged
from tests_models.conftest import Tiny

pytest.importorskip("ray", reason="Ray is not installed")

_PATIENCE: Final = 240
_ROOT: Final = Path(__file__).resolve().parents[1]
#: Two nodes, each with room for one worker; it ends with its standard input.
_CLUSTER: Final = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 100_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
"""


class LocalCluster:
    """The processes of a cluster, in a session of their own."""

    def __init__(self) -> None:
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "default", "PYTHONPATH": str(_ROOT)}
        self._head = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | quiet,
            start_new_session=True,
            cwd=_ROOT,
        )
        assert self._head.stdout is not None
        self.address = self._head.stdout.readline().strip()
        assert self.address

    def workers(self) -> list[int]:
        """The processes that are a worker of ours, which Ray names after the class; the one that worked most first."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    title = (folder / "cmdline").read_bytes()
                    stat = (folder / "stat").read_text().rpartition(") ")[2].split()
                except OSError:
                    continue
                if title.startswith(b"ray::Worker") and int(stat[3]) == self._head.pid:
                    found.append((int(stat[11]), int(folder.name)))  # the time it had, in ticks
        return [pid for _, pid in sorted(found, reverse=True)]

    def kill(self) -> None:
        """All of it at once."""
        os.killpg(self._head.pid, signal.SIGKILL)
        self._head.wait()

    def close(self) -> None:
        if self._head.poll() is None:
            self.kill()
        for stream in (self._head.stdin, self._head.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One for all tests but the one that loses it."""
    found = LocalCluster()
    yield found
    found.close()


@pytest.fixture
def doomed() -> Iterator[LocalCluster]:
    found = LocalCluster()
    yield found
    found.close()


def section(tiny: Tiny, cluster: LocalCluster, *styles: str, **keys: Any) -> dict[str, Any]:
    on_ray = {"engine": "ray", "ray_address": cluster.address, "ray_workers": 2, "ray_gpus_per_worker": 0.0}
    return tiny.section(*styles, **on_ray, retries={"backoff_seconds": 0.1}, **keys)


def begin(sample: Staged, *options: str) -> subprocess.Popen[str]:
    return start(*sample.arguments("run", *options), extra={"PYTHONWARNINGS": "default", "PYTHONPATH": str(_ROOT)})


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What was said until then."""
    assert process.stderr is not None
    read = ""
    for line in process.stderr:
        read += line
        if text in line:
            return read
    raise AssertionError(read)


def finished(process: subprocess.Popen[str], read: str = "") -> Ended:
    try:
        out, err = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it hangs, having said: {read}{out}{err}") from None
    return Ended(process.returncode, out, read + err)


def pictures(sample: Staged) -> dict[str, bytes]:
    folder = sample.outputs("lora_processed")
    return {name: (folder / name).read_bytes() for name in sample.names("lora_processed")}


def test_a_worker_that_is_killed_loses_no_picture_and_all_are_those_of_one_machine(
    sample: Staged, tiny: Tiny, cluster: LocalCluster
) -> None:
    for number in range(2):
        sample.picture(f"Alps/more{number}.jpg", 30 + number)
    sample.run("--stages", "export,preprocessing")
    sample.configure(lora_processing=section(tiny, cluster, "Red", "Ink", num_inference_steps=40))
    process = begin(sample, "--stages", "lora_processing,post_lora_watermarking")
    # Whoever made the first picture has the next in hand.
    read = read_until(process, "lora_processing | album_1_of_2 | photo_1_of_8")
    victim = cluster.workers()[0]
    os.kill(victim, signal.SIGKILL)
    ended = finished(process, read)
    assert ended.code == 0, ended.stderr
    assert "raylet" not in ended.stdout
    assert "a worker was lost" in sample.log
    assert victim not in cluster.workers()
    made = pictures(sample)
    assert len(made) == 10
    assert sample.names("watermarked_final") == sorted(made)
    assert {entry["lora_processing"].get("device", "cpu") for entry in restyled(sample)} == {"cpu"}

    sample.configure(lora_processing=tiny.section("Red", "Ink", num_inference_steps=40))
    untouched = sample.touched("lora_processed")
    again = sample.run("--stages", "lora_processing")
    assert again.code == 0
    assert sample.touched("lora_processed") == untouched, "made again because it is another engine"
    for name in ("Alps/a_Red.webp", "Coast/c_Ink.webp"):
        (sample.outputs("lora_processed") / name).unlink()
    assert sample.run("--stages", "lora_processing").code == 0
    assert pictures(sample) == made, "this machine makes other pictures than the workers"


def restyled(sample: Staged) -> list[dict[str, Any]]:
    return [entry for entry in sample.entries.values() if entry["type"] == "lora_processed"]


def test_a_lost_cluster_stops_the_stage_and_a_resume_carries_on(
    sample: Staged, tiny: Tiny, doomed: LocalCluster, cluster: LocalCluster
) -> None:
    sample.run("--stages", "export,preprocessing")
    sample.configure(lora_processing=section(tiny, doomed, "NoLoRA", "Red", num_inference_steps=100))
    process = begin(sample, "--stages", "lora_processing")
    read = read_until(process, "lora_processing | album_1_of_2 | photo_1_of_4")
    doomed.kill()
    ended = finished(process, read)
    assert "is lost. What was made is kept" in ended.stderr
    assert sample.newest_run() == "interrupted"
    assert not sample.sql("SELECT 1 FROM stage_pictures WHERE status = 'failed'")
    sample.configure(lora_processing=section(tiny, cluster, "NoLoRA", "Red", num_inference_steps=100))
    resumed = finished(begin(sample, "--resume"))
    assert resumed.code == 0, resumed.stderr
    assert len(pictures(sample)) == 6


def test_a_signal_ends_the_pictures_on_the_workers_between_two_steps(
    sample: Staged, tiny: Tiny, cluster: LocalCluster
) -> None:
    sample.run("--stages", "export,preprocessing")
    sample.configure(lora_processing=section(tiny, cluster, "NoLoRA", "Red", num_inference_steps=200, max_dim=512))
    process = begin(sample, "--stages", "lora_processing")
    read = read_until(process, "lora_processing | album_1_of_2 | photo_1_of_4")
    process.send_signal(signal.SIGINT)
    ended = finished(process, read)
    assert ended.code == 130, ended.stderr
    # What was in hand is left to the resume; on a busy machine one may have been through before the signal came.
    left = dict(sample.sql("SELECT status, COUNT(*) FROM stage_pictures WHERE variant = 'Red' GROUP BY 1"))
    assert left.get("planned", 0) >= 1, left
    assert set(left) <= {"planned", "done"}


def test_a_cluster_that_is_not_there_or_has_no_such_device_is_said_and_nothing_is_begun(
    sample: Staged, tiny: Tiny, cluster: LocalCluster
) -> None:
    sample.run("--stages", "export,preprocessing")
    sample.configure(
        lora_processing=section(tiny, cluster, "Red") | {"ray_gpus_per_worker": 1.0, "ray_start_seconds": 3.0}
    )
    ended = finished(begin(sample, "--stages", "lora_processing"))
    assert ended.code == 2
    assert re.search(r"No worker of the Ray cluster was ready within 3 s .*The cluster has: CPU 2", ended.stderr, re.S)
    assert sample.names("lora_processed") == []
    sample.configure(lora_processing=section(tiny, cluster, "Red") | {"ray_address": "127.0.0.1:1"})
    ended = finished(begin(sample, "--stages", "lora_processing", "--fresh"))
    assert ended.code == 2
    assert "The Ray cluster 127.0.0.1:1 (lora_processing.ray_address) cannot be reached" in ended.stderr
