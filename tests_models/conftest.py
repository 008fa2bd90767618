"""The tiny model, its styles, and a library that goes through the stage; nothing is asked of any network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before the libraries are imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest

from tests.conftest import _own_environment, anyio_backend  # noqa: F401
from tests.staged_sample import Staged
from tests_models.tiny_kontext import save_lora, save_model, save_registry

#: The section of a test: the fewest steps that can be stopped between.
QUICK: dict[str, Any] = {"num_inference_steps": 2, "max_dim": 64, "device": "cpu"}


@dataclass(frozen=True)
class Tiny:
    """Where the tiny model and two styles are."""

    model: Path
    registry: Path
    weights: dict[str, Path]

    def section(self, *styles: str, **keys: Any) -> dict[str, Any]:
        """`lora_processing` of the configuration."""
        return {
            "model": str(self.model),
            "registry_path": str(self.registry),
            "loras_to_process": list(styles),
            **QUICK,
            **keys,
        }


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    weights = {
        "Red": save_lora(folder / "loras" / "red.safetensors", 1),
        "Ink": save_lora(folder / "loras" / "ink.safetensors", 2, with_text_encoder=False),
    }
    return Tiny(save_model(folder / "model"), save_registry(folder / "lora_registry.json", weights), weights)


@pytest.fixture
def sample(tmp_path: Path, tiny: Tiny) -> Staged:
    """Three pictures in two albums, scaled to 64 by 48 pixels; two styles and the picture as it is."""
    staged = Staged(tmp_path)
    staged.picture("Alps/a.jpg", 10, date="2024:07:01 10:00:00", position=True)
    staged.picture("Alps/b.jpg", 120)
    staged.picture("Coast/c.jpg", 240)
    staged.configure(preprocessing={"max_dimension": 64}, lora_processing=tiny.section("Red", "Ink", "NoLoRA"))
    return staged


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings are errors, but those that the libraries raise at themselves."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("default:::(torch|diffusers|transformers|peft|accelerate|ray)"))
