"""The stage `lora_processing`: scaled pictures restyled by an image model with the LoRA weights of a style.

Each picture comes out once for each style of `loras_to_process`. docs/models.md says what has to be installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from skicyclerun.errors import StageError
from skicyclerun.settings.section import Seconds, StageSection, StageTimeouts, Text, Texts
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.stages.lora_registry import (
    NO_LORA,
    Hub,
    Style,
    model_revision,
    on_this_machine,
    read_registry,
    sha256_of,
    weights_files,
)
from skicyclerun.stages.restyle import (
    Device,
    ModelChoice,
    Offload,
    OnOutOfMemory,
    PictureChoice,
    Precision,
    Restyled,
    StyleChoice,
)
from skicyclerun.stages.stage import Made, Picture, Recipe, Stage, Surroundings

log = logging.getLogger(__name__)

_REGISTRY: Final = "lora_registry.json"


class LoraTimeouts(StageTimeouts):
    """Seconds. A picture takes minutes on a small machine."""

    photo: Seconds = 1800.0
    album: Seconds = 7200.0
    album_total: Seconds = 604_800.0
    run: Seconds = 2_592_000.0


class LoraSettings(StageSection):
    """The section `lora_processing`."""

    of_this_process: ClassVar[frozenset[str]] = frozenset(
        "engine device offload on_out_of_memory local_files_only cache_dir "
        "ray_address ray_workers ray_gpus_per_worker ray_start_seconds".split()
    )

    timeouts: LoraTimeouts = LoraTimeouts()
    engine: Literal["local", "ray"] = "local"
    """`local`: in this process. `ray`: on the workers of a Ray cluster that is there already."""
    model: Text = "black-forest-labs/FLUX.1-Kontext-dev"
    """A repository of the Hugging Face hub, or a folder, relative to that of the configuration file."""
    revision: Text = "main"
    """Branch, tag or commit of the repository."""
    registry_path: Text = _REGISTRY
    """Relative to the folder of the configuration file."""
    loras_to_process: Texts = ()
    """Styles, by their names in the registry; `NoLoRA` is the picture as it is."""
    num_inference_steps: int = Field(default=28, ge=1, le=200)
    guidance_scale: float = Field(default=2.5, ge=0, le=30, allow_inf_nan=False)
    true_cfg_scale: float = Field(default=1.0, ge=1, le=30, allow_inf_nan=False)
    """Above 1 the negative prompt counts, and every picture takes twice as long."""
    max_dim: int = Field(default=1024, ge=16, le=4096)
    """Pixels of the longest side, at most. A smaller picture is not enlarged."""
    quality: int = Field(default=90, ge=1, le=100)
    """Of the WebP files."""
    device: Device = "auto"
    """`auto`: the first of cuda, mps and cpu that is there."""
    precision: Precision = "auto"
    """`auto`: float32 on the CPU, bfloat16 elsewhere."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    offload: Offload = "none"
    """What is held in main memory and brought to the device when its turn comes: models, or single layers."""
    on_out_of_memory: OnOutOfMemory = "offload"
    """What is done once when memory runs out, before a picture fails for it."""
    local_files_only: bool = True
    """Nothing is fetched from the hub."""
    cache_dir: Text = "{huggingface_cache}"
    """The hub's cache: weights and models that were fetched."""
    ray_address: Text = "auto"
    """`auto`: the cluster that this machine is part of; or `host:port`, or `ray://host:port`."""
    ray_workers: int = Field(default=1, ge=1, le=64)
    ray_gpus_per_worker: float = Field(default=1.0, ge=0, le=16, allow_inf_nan=False)
    ray_start_seconds: Annotated[Seconds, Field(le=86_400)] = 900.0
    """How long the first worker may take until it has loaded the model."""

    @field_validator("loras_to_process")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(map(repr, twice))} more than once")
        return names

    @model_validator(mode="after")
    def _one_at_a_time(self) -> LoraSettings:
        if self.engine == "local" and self.workers > 1:
            raise ValueError("workers must be 0 or 1 with the engine local: a device does one picture at a time")
        return self


class Engine(Protocol):
    """Where pictures are made: here, or on a cluster."""

    def restyle(self, picture: Picture, weights: Path, choice: PictureChoice, staged: Path) -> Restyled: ...

    def stop(self) -> None:
        """Give up what is in hand, between two steps; `restyle` raises PhotoInterrupted from now on."""

    def abandon(self, staged: Path | None) -> None: ...

    def close(self) -> None: ...

    def held(self) -> str:
        """What the device has in use, in words."""


class LocalEngine:
    """The model in this process, which holds it until the end."""

    def __init__(self, choice: ModelChoice) -> None:
        from skicyclerun.stages.restyle import Restyler

        self._restyler = Restyler(choice)
        self._stopped = threading.Event()
        self._given_up: set[Path] = set()

    def restyle(self, picture: Picture, weights: Path, choice: PictureChoice, staged: Path) -> Restyled:
        return self._restyler.restyle(
            picture.path, weights, choice, lambda: self._stopped.is_set() or staged in self._given_up
        )

    def stop(self) -> None:
        self._stopped.set()

    def abandon(self, staged: Path | None) -> None:
        if staged is None:
            self._stopped.set()
        else:
            self._given_up.add(staged)

    def close(self) -> None:
        self._stopped.set()
        self._restyler.close()

    def held(self) -> str:
        return self._restyler.memory()


class LoraProcessing(Recipe):
    """Restyles pictures, each once for every style."""

    extension = ".webp"
    needs_facts: ClassVar[bool] = False
    costly: ClassVar[bool] = True

    def __init__(self, section: LoraSettings, surroundings: Surroundings) -> None:
        self._section = section
        self._folder = surroundings.config_folder
        self._hub = Hub(self._folder / Path(section.cache_dir).expanduser(), section.local_files_only)
        self._lock = threading.Lock()
        self._styles: dict[str, StyleChoice] | None = None
        self._weights: dict[str, Path] = {}
        self._revision = ""
        self._engine: Engine | None = None
        self._stopped = False
        self.at_once = section.ray_workers if section.engine == "ray" else 1

    def check(self) -> None:
        """Everything that can be found wrong without loading the model. Raises StageError."""
        section = self._section
        if not section.loras_to_process:
            raise StageError(
                "lora_processing.loras_to_process names no style.",
                next_step=f'Name some of {self._registry}, for example `"loras_to_process": ["{NO_LORA}"]` for the '
                "pictures as they are.",
            )
        if section.engine == "ray" and importlib.util.find_spec("ray") is None:
            raise StageError(
                "lora_processing.engine is 'ray', and the package ray is not installed.",
                next_step='`pip install "skicyclerun[lora,ray]"`, or the engine local.',
            )
        self._all_styles()
        if section.engine == "local" and self._styles and section.device in ("cuda", "mps"):
            from skicyclerun.stages.restyle import device_of

            device_of(section.device)

    def open(self) -> None:
        """Load the model, unless only the pictures as they are are asked for. Raises StageError."""
        if self._all_styles():
            self._engine = self._new_engine()
            if self._stopped:
                self._engine.stop()

    def _new_engine(self) -> Engine:
        if self._section.engine == "ray":
            from skicyclerun.stages.restyle_on_ray import Cluster, RayEngine

            section = self._section
            return RayEngine(
                self.model_choice(),
                Cluster(
                    section.ray_address, section.ray_workers, section.ray_gpus_per_worker, section.ray_start_seconds
                ),
            )
        return LocalEngine(self.model_choice())

    def variants(self, picture: Picture) -> Sequence[str]:
        return self._section.loras_to_process

    def stem(self, picture: Picture) -> str:
        return f"{picture.path.stem}_{picture.variant}"

    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        """The style with its weights, the model, and every setting that changes pixels.

        Not the kind of device and the versions of the libraries: their pictures differ in details, and that is no
        reason to make a thousand of them again, minutes each. The entry tells the device.
        """
        section = self._section
        if picture.variant == NO_LORA:
            return {"style": NO_LORA, "quality": None if picture.path.suffix == self.extension else section.quality}
        style = self._all_styles()[picture.variant]
        return {
            "style": picture.variant,
            "prompt": style.prompt,
            "negative_prompt": style.negative_prompt if section.true_cfg_scale > 1 else None,
            "lora_scale": style.lora_scale,
            "text_encoder_scale": style.text_encoder_scale,
            "weights": style.weights_sha256,
            "model": section.model,
            "revision": self._revision,
            "steps": section.num_inference_steps,
            "guidance_scale": section.guidance_scale,
            "true_cfg_scale": section.true_cfg_scale,
            "max_dim": section.max_dim,
            "quality": section.quality,
            "precision": section.precision,
            "seed": section.seed,
        }

    def make(self, picture: Picture, staged: Path | None) -> Made:
        if staged is None:
            raise TypeError("lora_processing makes files, and was given no name for one")
        if picture.variant == NO_LORA:
            return self._as_it_is(picture, staged)
        if self._engine is None:
            raise RuntimeError("lora_processing was not opened")
        choice = self.picture_choice(picture)
        began = time.monotonic()
        made = self._engine.restyle(picture, self._weights[picture.variant], choice, staged)
        with staged.open("xb") as stream:
            stream.write(made.data)
        facts = {
            "style": picture.variant,
            "seed": choice.seed,
            "steps": choice.steps,
            "guidance_scale": choice.guidance_scale,
            "model": self._section.model,
            "revision": self._revision,
            "weights_sha256": choice.style.weights_sha256,
            "device": made.device,
            "seconds": round(time.monotonic() - began, 1),
        }
        return Made({"lora_processing": facts}, made.width, made.height, "; ".join(made.notes))

    def _as_it_is(self, picture: Picture, staged: Path) -> Made:
        """The same bytes where they are WebP already, else the same picture as WebP."""
        from skicyclerun.images.scale import LARGEST_SIDES, ScaleOptions, scaled_pixels

        options = ScaleOptions(max_dimension=LARGEST_SIDES["webp"], multiple_of=1, quality=self._section.quality)
        pixels = scaled_pixels(picture.path, options)
        data = picture.path.read_bytes() if picture.path.suffix == self.extension else pixels.encoded()
        with staged.open("xb") as stream:
            stream.write(data)
        return Made({"lora_processing": {"style": NO_LORA}}, *pixels.image.size, "; ".join(pixels.notes))

    def stop(self) -> None:
        self._stopped = True
        if self._engine is not None:
            self._engine.stop()

    def abandon(self, staged: Path | None) -> None:
        if self._engine is not None:
            self._engine.abandon(staged)

    def uses_model(self, picture: Picture) -> bool:
        return picture.variant != NO_LORA

    def held(self) -> str:
        return self._engine.held() if self._engine is not None else ""

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    # ── what is asked of the engine ───────────────────────────────────────────────────────────────────────────────

    @property
    def _registry(self) -> Path:
        """Existing files write `config/lora_registry.json`, seen from the folder above that of the configuration.

        Where nothing is named and none is there: the example that is shipped.
        """
        named = Path(self._section.registry_path).expanduser()
        found = [folder / named for folder in (self._folder, self._folder.parent) if (folder / named).exists()]
        if not found and self._section.registry_path == _REGISTRY:
            return shipped_file(_REGISTRY)
        return found[0] if found else self._folder / named

    def _all_styles(self) -> dict[str, StyleChoice]:
        """The styles of the registry that are asked for, with the hashes of their weights. Raises StageError."""
        with self._lock:
            if self._styles is None:
                self._styles = self._look_up()
            return self._styles

    def _look_up(self) -> dict[str, StyleChoice]:
        section, registry = self._section, self._registry
        styles = read_registry(registry, section.loras_to_process)
        self._weights = weights_files(styles, registry, self._hub)
        if styles:
            revision = model_revision(section.model, section.revision, self._folder, self._hub)
            if revision is None:
                raise StageError(
                    f"The model {section.model} (lora_processing.model), revision {section.revision}, is not in "
                    f"{self._hub.cache_dir}.",
                    next_step=self._how_to_get_the_model(),
                )
            self._revision = revision
        return {name: self._choice_of(name, style) for name, style in styles.items()}

    def _how_to_get_the_model(self) -> str:
        section = self._section
        fetch = f"`hf download {section.model} --cache-dir {self._hub.cache_dir}` fetches it."
        if section.engine == "ray":
            return f"Where only the cluster has it, name its commit in lora_processing.revision. {fetch}"
        return fetch

    def _choice_of(self, name: str, style: Style) -> StyleChoice:
        try:
            sha256 = sha256_of(self._weights[name])
        except OSError as error:
            raise StageError(
                f"The weights of the style {name} cannot be read: {self._weights[name]}: {error.strerror or error}."
            ) from error
        return StyleChoice(
            name, style.prompt, style.negative_prompt, style.lora_scale, style.text_encoder_scale, sha256
        )

    def model_choice(self) -> ModelChoice:
        """The model as an engine loads it."""
        section = self._section
        self._all_styles()
        folder = on_this_machine(section.model, self._folder)
        return ModelChoice(
            model=section.model if folder is None else str(folder.absolute()),
            revision=self._revision,
            cache_dir=str(self._hub.cache_dir),
            local_files_only=section.local_files_only,
            device=section.device,
            precision=section.precision,
            offload=section.offload,
            on_out_of_memory=section.on_out_of_memory,
        )

    def picture_choice(self, picture: Picture) -> PictureChoice:
        """What is to be made of this picture, with the seed that is always its own."""
        section = self._section
        return PictureChoice(
            style=self._all_styles()[picture.variant],
            seed=seed_of(section.seed, picture.sha256, picture.variant),
            steps=section.num_inference_steps,
            guidance_scale=section.guidance_scale,
            true_cfg_scale=section.true_cfg_scale,
            max_dimension=section.max_dim,
            quality=section.quality,
        )


def seed_of(seed: int, sha256: str, style: str) -> int:
    """The seed of one picture in one style, 0 to 2^63 - 1: the same for the same bytes, whenever and wherever."""
    digest = hashlib.sha256(f"{seed}\0{sha256}\0{style}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


STAGE: Final = Stage(
    name="lora_processing",
    summary="restyles pictures with LoRA models",
    needs_paths=("preprocessed", "lora_processed", "master_catalog", "state_db", "huggingface_cache"),
    makes_paths=("lora_processed", "master_catalog", "state_db"),
    needs_packages=("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"),
    extra="lora",
    section="lora_processing",
    settings=LoraSettings,
    recipe=LoraProcessing,
    reads="preprocessing",
    output="lora_processed",
    has_model=True,
    entry_type="lora_processed",
)
