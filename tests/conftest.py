"""What every test starts from."""

from __future__ import annotations

import os

import pytest


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
