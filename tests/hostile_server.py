"""Tries hostile inputs in a process whose memory and time are bounded.

`python -m tests.hostile_server` forks a child for each line that it reads, so that a crash of a C library, a loop
without an end and a bomb are found like any other mistake, and the input that did it is kept.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.hostile_inputs import (
    MOST_BYTES,
    SURFACES,
    attempt,
    plain_heic,
    plain_jpeg,
    prepared,
    scratch,
    tiled_heic,
    unpacked,
)

_CHECKOUT: Final = Path(__file__).resolve().parents[1]


class HostileServer:
    """The side of the tests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **question: object) -> dict[str, Any]:
        """What became of a campaign: `tried`, and `problem`, empty where all was well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def hostile_server() -> Iterator[HostileServer]:
    """It ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_CHECKOUT,
        env={key: value for key, value in os.environ.items() if not key.startswith("SKICYCLERUN_")},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        yield HostileServer(process)
        process.stdin.close()
        process.wait(30)


def serve() -> None:
    """The other side. What a campaign needs is imported before it is forked, and before its memory is bounded."""
    from tests.fork_server import import_what_runs_import

    import_what_runs_import()
    with scratch() as place:  # exiv2, the decoders and the catalog are set up once
        first = {"jpeg": plain_jpeg(), "boxes": plain_heic(), "heic": tiled_heic(), "catalog": b"{}"}
        for surface, data in first.items():
            attempt(surface, data, prepared(place / surface))
    for line in sys.stdin:
        question = json.loads(line)
        answer = Path(question["folder"]) / "answer.json"
        last = prepared(Path(question["folder"]) / "tried") / "last"
        pid = os.fork()
        if pid == 0:
            _be_a_campaign(question, answer, last)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            said = json.loads(answer.read_text())
        else:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            said = {"tried": 0, "problem": f"the process ended: {how}"}
        if said["problem"]:
            said["input"] = str(last)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def _be_a_campaign(question: dict[str, Any], answer: Path, last: Path) -> None:
    """In the child; does not return. The input in hand lies in `last`, whatever ends the process."""
    code = 70
    try:
        most = _address_space() + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdout = io.StringIO()
        tried, problem = 0, ""

        def one(data: bytes) -> None:
            nonlocal tried
            tried += 1
            last.write_bytes(data)
            used = int(time.process_time())
            # The kernel ends what never comes back; what comes back late is found by `attempt`.
            patience = 1 if question.get("misbehave") else 20
            resource.setrlimit(resource.RLIMIT_CPU, (used + patience, resource.RLIM_INFINITY))
            _misbehave(question.get("misbehave", ""))
            attempt(question["surface"], data, last.parent)

        try:
            for file in question["files"]:
                one(unpacked(Path(file)))
            if question["count"]:
                _campaign(SURFACES[question["surface"]].examples(), one, question["count"], question["seed"])
        except Exception as error:
            import traceback

            error.__notes__ = []  # hypothesis' own; the input lies in `last`
            problem = "".join(traceback.format_exception(error))[-3000:] or repr(error)
        answer.write_text(json.dumps({"tried": tried, "problem": problem, "peak": _peak()}))
        code = 0
    finally:
        os._exit(code)


def _misbehave(how: str) -> None:
    """For the test of these tests: what they are to notice."""
    match how:
        case "an error":
            raise LookupError
        case "a crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "an endless loop":
            while True:
                pass


def _campaign(examples: SearchStrategy[bytes], one: Callable[[bytes], None], count: int, number: int) -> None:
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @seed(number)
    @given(examples)
    def campaign(data: bytes) -> None:
        one(data)

    campaign()


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: the bound is then on all of it
        return 4 << 30


def _peak() -> int:
    """Bytes of memory at most, of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    serve()
