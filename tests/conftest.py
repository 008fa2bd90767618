"""What every test starts from."""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

#: A busy machine is no fault of an input, and fixtures are shared by all inputs of a test on purpose.
_ALWAYS: Final = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
#: Whether the suite passes is not left to chance: each test tries the same inputs every time.
settings.register_profile("suite", _ALWAYS, derandomize=True, database=None)
#: `make explore` tries others, and says how to come back to what failed.
settings.register_profile("explore", _ALWAYS, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests have no say in them."""
    for name in [name for name in os.environ if name.startswith("SKICYCLERUN_")]:
        # The crash campaign is steered by these two.
        if name not in ("SKICYCLERUN_CRASHES", "SKICYCLERUN_SEED"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The program runs on asyncio, and so do its tests."""
    return "asyncio"
