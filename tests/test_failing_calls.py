"""Any call to the disk may fail: a sentence, the right exit code, and once the fault is gone all is as it should be.

A run over the results of an earlier one (archive, proof, cleaning, export, catalog) asks some hundreds of things of the
disk. Each case fails one of them, or that one and all after it, as a full, broken, read-only or crowded system does.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.disk_calls import compiled
from tests.fork_server import ForkServer, fork_server
from tests.test_crash_campaign import EARLIER_RUN, configure, make_library, newest_run, outcome
from tests.test_power_cuts import safe

pytestmark = pytest.mark.crash

FAILURES = int(os.environ.get("SKICYCLERUN_FAILURES", "15"))
"""Failed calls to try; `make crash` tries every call with every error."""
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261125"))
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EMFILE)
PATIENCE = 4
FINISHED_WITH_FAILURES, FATAL, CONFIGURATION = 3, 1, 2


class Sample:
    """A library, the results of a first run, and what an undisturbed second run makes of them."""

    def __init__(self, base: Path, server: ForkServer) -> None:
        self.library, self.earlier, self.root = base / "library", base / "earlier" / "root", base / "run" / "root"
        self._server = server
        make_library(self.library)
        configure(self.earlier)
        code, shown = server.run("run", "--yes", "--library", self.library, "--lib-root", self.earlier)
        assert code == FINISHED_WITH_FAILURES, shown
        self.begin()
        self.must_stay = safe(self.root)
        assert self.run(0, errno.EIO, on=False)[0] == FINISHED_WITH_FAILURES
        self.calls = server.calls()[0]
        self.expected = self.outcome()

    def begin(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.earlier, self.root, symlinks=True)

    def outcome(self) -> dict[str, Any]:
        """What is there, but for how often it was tried."""
        found = outcome(self.root, self._server)
        for album in found["status"]["albums"]:
            for photo in album["photos"]:
                del photo["attempts"]
        # A run typed again after its cleaning was done finds nothing to archive; the archive is there all the same.
        found["status"]["archive"].pop("reason")
        return found

    def run(self, number: int, error: int, *, on: bool) -> tuple[int, str]:
        """The run whose call of this number fails; 0: none."""
        disk = {"root": str(self.root), "fail": number, "errno": error, "on": int(on)}
        return self.type("run", "--yes", "--library", str(self.library), disk=disk)

    def type(self, *arguments: str, disk: dict[str, Any] | None = None) -> tuple[int, str]:
        code, shown = self._server.run(*arguments, "--lib-root", self.root, disk=disk)
        for words in ("Traceback", "fault in skicyclerun itself", "Errno"):
            assert words not in shown, shown
        return code, shown

    def carry_on(self) -> None:
        """What a person types once the fault is gone."""
        for _ in range(PATIENCE):
            newest, how = newest_run(self.root)
            if newest == EARLIER_RUN:
                code, shown = self.type("run", "--yes", "--library", str(self.library))
            elif how != "finished":
                code, shown = self.type("run", "--resume", "--yes")
            elif self.outcome() != self.expected:
                code, shown = self.type("retry-failed", "--yes")
            else:
                return
            assert code == FINISHED_WITH_FAILURES, shown


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server"), compiled(tmp_path_factory.mktemp("preload"))) as running:
        yield running


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, server: ForkServer) -> Sample:
    return Sample(tmp_path_factory.mktemp("failing"), server)


@pytest.mark.parametrize("number", range(FAILURES))
def test_a_call_that_fails_costs_a_sentence_and_nothing_else(sample: Sample, server: ForkServer, number: int) -> None:
    chance = random.Random(SEED + number)
    at, error, on = chance.randint(1, sample.calls), ERRORS[number % len(ERRORS)], number % 2 == 1
    sample.begin()
    code, shown = sample.run(at, error, on=on)
    _, failed = server.calls()
    told = (
        f"call {at} ({failed}) with {errno.errorcode[error]}{' and all after it' if on else ''}: exit {code}\n{shown}"
    )
    assert code in (0, FATAL, CONFIGURATION, FINISHED_WITH_FAILURES), told
    assert sample.must_stay <= safe(sample.root), told
    assert (sample.root / "state" / "skicyclerun.sqlite3").stat().st_size, f"the state is gone after {told}"
    sample.carry_on()
    for work in sample.root.rglob(".skicyclerun-*"):
        shutil.rmtree(work)
    found = sample.outcome()
    for what, expected in sample.expected.items():
        assert found[what] == expected, f"{what} after {told}"
