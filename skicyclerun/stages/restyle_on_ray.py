"""Pictures restyled on the workers of a Ray cluster that is there already; the rows and files stay with the run here.

Each worker is a Ray actor that holds the model. What a picture needs travels with the call: its bytes, and the weights
of its style by Ray's object store, so that no disk has to be shared. Who gets which node is Ray's business, and that a
picture is tried again is the run's.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from skicyclerun import __version__
from skicyclerun.errors import (
    PhotoError,
    PhotoInterrupted,
    PhotoTransient,
    SkicyclerunError,
    StageError,
    StagePaused,
)
from skicyclerun.stages.lora_registry import Hub, model_revision
from skicyclerun.stages.restyle import ModelChoice, PictureChoice, Restyled, Restyler
from skicyclerun.stages.stage import Picture

log = logging.getLogger(__name__)

#: Seconds until somebody who waits for a worker looks whether the run is to stop.
_LOOK: Final = 0.2
#: How long the head of the cluster may take to say that it is there; seconds.
_ANSWER: Final = 15.0
#: How long the workers may take to remove what they kept; seconds.
_GOODBYE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster, and what of it."""

    address: str
    workers: int
    gpus_per_worker: float
    start_seconds: float


class Worker:
    """Holds the model on a node of the cluster. Made there by Ray; nothing it is given is kept but weights."""

    def __init__(self) -> None:
        self._restyler: Restyler | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="skicyclerun-")
        self._given_up: set[str] = set()
        self._stopped = False

    def load(self, choice: ModelChoice, version: str) -> str:
        """Load the model; answers what the device has in use then.

        Raises StageError where this node has not what the run expects. Not in `__init__`, of whose errors Ray passes on
        a text alone.
        """
        if version != __version__:
            raise StageError(
                f"a node of the cluster has skicyclerun {__version__}, and this is {version}.",
                next_step="Install the same version on all of them.",
            )
        if not Path(choice.cache_dir).is_dir():
            from huggingface_hub.constants import HF_HUB_CACHE

            choice = replace(choice, cache_dir=HF_HUB_CACHE)
        hub = Hub(Path(choice.cache_dir), choice.local_files_only)
        revision = model_revision(choice.model, choice.revision, Path("/"), hub)
        if revision != choice.revision:
            raise StageError(
                f"{choice.model} is of the revision {revision} on a node of the cluster, and of {choice.revision} here."
            )
        self._restyler = Restyler(choice)
        return self._restyler.memory()

    def restyle(self, name: str, data: bytes, sha256: str, weights: bytes, choice: PictureChoice) -> Restyled:
        """Make one picture; `name` is of this call alone. Raises as `Restyler.restyle` does.

        PhotoTransient where the picture or the weights did not come whole.
        """
        if self._restyler is None:
            raise PhotoTransient("the worker has no model yet")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise PhotoTransient("the picture did not come whole to the worker")
        folder = Path(self._folder.name)
        kept = folder / f"{choice.style.weights_sha256}.safetensors"
        if not kept.exists():
            if hashlib.sha256(weights).hexdigest() != choice.style.weights_sha256:
                raise PhotoTransient("the weights did not come whole to the worker")
            partial = folder / f"{name}.partial"
            partial.write_bytes(weights)
            partial.rename(kept)
        source = folder / name
        source.write_bytes(data)
        try:
            return self._restyler.restyle(source, kept, choice, lambda: self._stopped or name in self._given_up)
        finally:
            source.unlink(missing_ok=True)

    def give_up(self, name: str) -> None:
        """Stop making this picture, between two steps; all, where `name` is empty."""
        if name:
            self._given_up.add(name)
        else:
            self._stopped = True

    def close(self) -> None:
        """Remove what was kept of weights; the process is ended from outside, and would leave it."""
        self._stopped = True
        self._folder.cleanup()


class RayEngine:
    """The workers of one run. `restyle` is called from as many threads as there are workers."""

    def __init__(self, choice: ModelChoice, cluster: Cluster) -> None:
        """Connect, start the workers, wait for the first. Raises StageError."""
        import ray

        self._ray = ray
        self._choice = choice
        self._cluster = cluster
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._busy: dict[Path, tuple[Any, str]] = {}
        """Staged file → the worker that makes it, and its name there."""
        self._weights: dict[str, Any] = {}
        """SHA-256 → reference in the object store."""
        self._starting = self._alive = 0
        self._workers: list[Any] = []
        self._lives = 3 * cluster.workers
        """How many workers may be asked for yet in the place of lost ones; a picture that kills them all ends it."""
        self._refused: StageError | None = None
        self._stopped = threading.Event()
        self._calls = 0
        self._memory = ""
        """Of the last worker that came."""
        self._connect()
        try:
            for _ in range(cluster.workers):
                self._start_worker()
            self._idle.put(self._first_worker())
        except BaseException:
            self._disconnect()
            raise

    def restyle(self, picture: Picture, weights: Path, choice: PictureChoice, staged: Path) -> Restyled:
        """Raises as `Restyler.restyle` does, PhotoTransient where a worker was lost, StagePaused where all were."""
        data = picture.path.read_bytes()
        worker = self._free_worker(lambda: self._stopped.is_set())
        if worker is None:
            raise PhotoInterrupted("it was given up before it was begun")
        with self._lock:
            self._calls += 1
            name = f"{self._calls}{picture.path.suffix.lower()}"
            self._busy[staged] = (worker, name)
        lost = False
        try:
            sent = self._sent(weights, choice.style.weights_sha256)
            made: Restyled = self._ray.get(worker.restyle.remote(name, data, picture.sha256, sent, choice))
        except self._ray.exceptions.RayTaskError as error:
            raise _what_happened(error) from None
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            lost = True
            raise self._worker_lost(worker, error) from error
        finally:
            with self._lock:
                self._busy.pop(staged, None)
            if not lost:
                self._idle.put(worker)
        if hashlib.sha256(made.data).hexdigest() != made.sha256:
            raise PhotoTransient("the restyled picture did not come whole from the worker")
        return made

    def stop(self) -> None:
        self._stopped.set()
        with self._lock:
            workers = [worker for worker, _ in self._busy.values()]
        for worker in workers:
            _tell(worker, "")

    def abandon(self, staged: Path | None) -> None:
        if staged is None:
            self.stop()
            return
        with self._lock:
            busy = self._busy.get(staged)
        if busy is not None:
            _tell(*busy)

    def held(self) -> str:
        return self._memory

    def close(self) -> None:
        self.stop()
        try:
            said = [worker.close.remote() for worker in self._workers]
            self._ray.wait(said, num_returns=len(said), timeout=_GOODBYE)
        except Exception as error:  # where the cluster is lost there is nothing to be tidied up
            log.warning("the workers could not be told of the end: %s", error)
        self._disconnect()

    # ── workers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _start_worker(self) -> None:
        """Ask Ray for one more; it is among the idle ones as soon as it has loaded the model."""
        remote = self._ray.remote(Worker)
        # Of two calls at once the second is `give_up`.
        options = {"num_cpus": 1, "num_gpus": self._cluster.gpus_per_worker, "max_concurrency": 2}
        worker = remote.options(**options).remote()
        with self._lock:
            self._starting += 1
            self._workers.append(worker)
        answer = worker.load.remote(self._choice, __version__).future()

        def ready(answer: Any) -> None:
            error = answer.exception()
            if isinstance(error, self._ray.exceptions.RayActorError):
                self._replace_worker()
            with self._lock:
                self._starting -= 1
                if error is None:
                    self._alive += 1
                else:
                    self._refused = _refusal(error)
            if error is None:
                self._memory = str(answer.result())
                log.info("a worker is ready; %s", self._memory)
                self._idle.put(worker)
            else:
                log.warning("a worker could not be started: %s", error)

        answer.add_done_callback(ready)

    def _replace_worker(self) -> None:
        with self._lock:
            self._lives -= 1
            if self._lives < 0 or self._stopped.is_set():
                return
        self._start_worker()

    def _first_worker(self) -> Any:
        seconds = self._cluster.start_seconds
        worker = self._free_worker(_after(seconds))
        if worker is not None:
            return worker
        if self._refused is not None:
            raise self._refused
        has = ", ".join(f"{name} {amount:g}" for name, amount in sorted(self._ray.cluster_resources().items())[:10])
        raise StageError(
            f"No worker of the Ray cluster was ready within {seconds:g} s (lora_processing.ray_start_seconds).",
            next_step=f"One needs 1 CPU and {self._cluster.gpus_per_worker:g} GPU (ray_gpus_per_worker). "
            f"The cluster has: {has}.",
        )

    def _free_worker(self, is_over: Callable[[], bool]) -> Any:
        """The next one that has nothing to do; None once `is_over`. Raises StageError, StagePaused: there is none."""
        while not is_over():
            try:
                return self._idle.get(timeout=_LOOK)
            except queue.Empty:
                with self._lock:
                    none_left = self._starting == 0 and self._alive == 0
                if none_left:
                    raise self._none_left() from None
        return None

    def _none_left(self) -> SkicyclerunError:
        if self._refused is not None:
            return self._refused
        if not self._is_there():
            return self._cluster_lost()
        return StagePaused(
            f"lora_processing: no worker of the Ray cluster {self._cluster.address} is left, each of those asked for "
            "was lost. What was made is kept, and the other stages go on. The log has the details; "
            "`skicyclerun run --resume` tries it again.",
            because=f"lora_processing: no worker of the Ray cluster {self._cluster.address} is left",
        )

    def _worker_lost(self, worker: Any, error: Exception) -> SkicyclerunError:
        log.warning("a worker was lost: %s", error)
        try:
            if not self._is_there():
                return self._cluster_lost()
            self._ray.kill(worker)
            self._replace_worker()
        except Exception as failure:  # the cluster went between two calls
            log.warning("no other worker could be asked for: %s", failure)
            return self._cluster_lost()
        finally:
            with self._lock:
                self._alive -= 1
        return PhotoTransient("the worker that made it was lost")

    def _cluster_lost(self) -> StagePaused:
        return StagePaused(
            f"lora_processing: the Ray cluster {self._cluster.address} is lost. What was made is kept, and the other "
            "stages go on. `skicyclerun run --resume` carries on when the cluster is there again.",
            because=f"lora_processing: the Ray cluster {self._cluster.address} is lost",
        )

    def _is_there(self) -> bool:
        """Whether the head of the cluster answers."""
        answered = threading.Event()

        def ask() -> None:
            try:
                if any(node["Alive"] for node in self._ray.nodes()):
                    answered.set()
            except Exception as error:
                log.warning("the Ray cluster does not answer: %s", error)

        threading.Thread(target=ask, daemon=True).start()
        return answered.wait(_ANSWER)

    def _sent(self, weights: Path, sha256: str) -> Any:
        """The weights in the object store, from where each node fetches them once."""
        with self._lock:
            if sha256 not in self._weights:
                self._weights[sha256] = self._ray.put(weights.read_bytes())
            return self._weights[sha256]

    # ── the cluster ───────────────────────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> None:
        address = self._cluster.address
        try:
            _knock(address)
            _keep_off_stdout()
            self._ray.init(address=address, log_to_driver=False, configure_logging=False, namespace="skicyclerun")
        except Exception as error:  # ConnectionError, RuntimeError, ValueError, what gRPC raises
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise StageError(
                f"The Ray cluster {address} (lora_processing.ray_address) cannot be reached: {said}",
                next_step="`ray start --head` starts one on this machine; `ray status` says whether there is one.",
            ) from error

    def _disconnect(self) -> None:
        try:
            self._ray.shutdown()
        except Exception as error:
            log.warning("leaving the Ray cluster: %s", error)


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at `host:port` or `ray://host:port`; Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()


def _tell(worker: Any, name: str) -> None:
    try:
        worker.give_up.remote(name)
    except Exception as error:  # a worker that is gone has given up
        log.warning("a worker could not be told to give up: %s", error)


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _what_happened(error: Any) -> Exception:
    """What a worker raised, as if it were raised here."""
    cause = error.cause
    if isinstance(cause, PhotoError | StageError | OSError):
        return cause
    return PhotoError(f"the worker failed: {' '.join(str(cause).split())[:300]}")


def _refusal(error: BaseException) -> StageError:
    """Why a worker could not be started."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, StageError):
        return StageError(f"A worker of the Ray cluster: {cause}", next_step=cause.next_step)
    said = " ".join(str(cause or error).split())[:300]
    return StageError(f"A worker of the Ray cluster could not be started: {said}")


def _keep_off_stdout() -> None:
    """Ray's client prints what it hears of lost workers to standard output, which is for reports; there is no switch.

    `listen_error_messages` of ray/_private/worker.py (2.60) calls `print_to_stdstream`.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda data, *further, **keys: log.info(
            "ray: %s", " ".join(str(line) for line in data.get("lines", ()))
        )
