"""One picture through an image-to-image pipeline of diffusers with the LoRA weights of one style.

The same on this machine and on a worker of a cluster (`restyle_on_ray.py`). torch and diffusers are imported by what
uses them.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from skicyclerun.errors import PhotoError, PhotoInterrupted, StageError
from skicyclerun.wording import bytes_in_words

log = logging.getLogger(__name__)

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "bfloat16", "float16", "float32"]
Offload = Literal["none", "model", "layers"]
OnOutOfMemory = Literal["fail", "slicing", "offload", "offload_layers"]

#: The name of the one adapter that is loaded.
_ADAPTER: Final = "style"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model, and how it is held."""

    model: str
    """A repository of the hub, or an absolute folder."""
    revision: str
    """The commit of a repository; of a folder the digest that `lora_registry.model_revision` gives."""
    cache_dir: str
    local_files_only: bool
    device: Device
    precision: Precision
    offload: Offload
    on_out_of_memory: OnOutOfMemory


@dataclass(frozen=True, slots=True)
class StyleChoice:
    """A style, and the weights that make it."""

    name: str
    prompt: str
    negative_prompt: str
    lora_scale: float
    text_encoder_scale: float
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class PictureChoice:
    """What is to be made of one picture."""

    style: StyleChoice
    seed: int
    steps: int
    guidance_scale: float
    true_cfg_scale: float
    max_dimension: int
    quality: int


@dataclass(frozen=True, slots=True)
class Restyled:
    """A picture that was made."""

    data: bytes
    """WebP."""
    width: int
    height: int
    sha256: str
    """Of `data`, taken where it was made."""
    device: str
    """The kind: `cuda`, `mps`, `cpu`."""
    notes: tuple[str, ...] = ()


class Restyler:
    """A loaded pipeline. One picture at a time; `restyle` may be called from several threads, and they wait."""

    def __init__(self, choice: ModelChoice) -> None:
        """Load the model, which takes from seconds to minutes. Raises StageError."""
        began = time.monotonic()
        self._choice = choice
        self._lock = threading.Lock()
        self._style: StyleChoice | None = None
        self._unfit: dict[str, str] = {}
        """Weights that do not fit the model, by SHA-256, and why."""
        self._short_of_memory = False
        self.device = device_of(choice.device)
        quiet_libraries()
        self._pipeline: Any = _loaded(choice, self.device)
        self._takes = frozenset(inspect.signature(self._pipeline.__call__).parameters)
        self.seconds = time.monotonic() - began
        log.info("%s loaded in %.1f s; %s", choice.model, self.seconds, self.memory())

    def restyle(
        self, source: Path, weights: Path, choice: PictureChoice, is_given_up: Callable[[], bool] = lambda: False
    ) -> Restyled:
        """Make the picture. `is_given_up` is asked between the steps of the denoising.

        Raises PhotoInterrupted where it was given up, PhotoUnreadable, another PhotoError for weights that do not fit
        and for too little memory, OSError.
        """
        with self._lock:
            if is_given_up():
                raise PhotoInterrupted("it was given up before it was begun")
            self._use(choice.style, weights)
            began = time.monotonic()
            made = self._with_less_memory(lambda: self._made(source, choice, is_given_up))
            seconds = time.monotonic() - began
            log.info("%s, %s: %.1f s; %s", source.name, choice.style.name, seconds, self.memory())
            return made

    def memory(self) -> str:
        """What the device has in use, in words."""
        import torch

        if self.device == "cuda":
            free, total = torch.cuda.mem_get_info()
            peak = torch.cuda.max_memory_allocated()
            return (
                f"{torch.cuda.get_device_name()}: {bytes_in_words(total - free)} of {bytes_in_words(total)} in use, "
                f"{bytes_in_words(peak)} at most by this process"
            )
        if self.device == "mps":
            used, most = torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
            return f"mps: {bytes_in_words(used)} of {bytes_in_words(most)} in use"
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return f"cpu: {bytes_in_words(peak)} at most by this process"

    # ── the style ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _use(self, style: StyleChoice, weights: Path) -> None:
        """Have the style's weights loaded, and those of no other."""
        if style == self._style:
            return
        if style.weights_sha256 in self._unfit:
            raise PhotoError(self._unfit[style.weights_sha256])
        if self._style is None or self._style.weights_sha256 != style.weights_sha256:
            self._style = None
            self._pipeline.unload_lora_weights()
            try:
                self._pipeline.load_lora_weights(
                    str(weights.parent),
                    weight_name=weights.name,
                    adapter_name=_ADAPTER,
                    use_safetensors=True,
                    local_files_only=True,
                )
            except (OSError, MemoryError):
                raise
            except Exception as error:  # of a file that is damaged or made for another model, whatever the library says
                self._unfit[style.weights_sha256] = (
                    f"the weights of the style {style.name} ({weights.name}) do not fit the model: "
                    f"{' '.join(str(error).split())[:300] or type(error).__name__}"
                )
        parts = [part for part, names in self._pipeline.get_list_adapters().items() if _ADAPTER in names]
        if not parts and style.weights_sha256 not in self._unfit:
            self._unfit[style.weights_sha256] = (
                f"the weights of the style {style.name} ({weights.name}) do not fit the model: "
                "it has none of the layers that they are for"
            )
        if style.weights_sha256 in self._unfit:
            self._pipeline.unload_lora_weights()
            raise PhotoError(self._unfit[style.weights_sha256])
        scales = {part: style.text_encoder_scale if "text" in part else style.lora_scale for part in parts}
        self._pipeline.set_adapters(_ADAPTER, scales)
        self._style = style

    # ── the picture ───────────────────────────────────────────────────────────────────────────────────────────────

    def _made(self, source: Path, choice: PictureChoice, is_given_up: Callable[[], bool]) -> Restyled:
        import torch

        from skicyclerun.images.scale import ScaleOptions, scaled_pixels

        multiple = 2 * int(getattr(self._pipeline, "vae_scale_factor", 8))
        options = ScaleOptions(
            max_dimension=max(choice.max_dimension, multiple), multiple_of=multiple, quality=choice.quality
        )
        given = scaled_pixels(source, options)
        width, height = given.image.size
        if width % multiple or height % multiple:
            raise PhotoError(f"it is {width} x {height} pixels, and the model needs {multiple} at least on each side")

        def between_steps(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if is_given_up():
                raise PhotoInterrupted(f"it was given up after step {step + 1} of {choice.steps}")
            return {}

        wanted = {
            "image": given.as_rgb(),
            "prompt": choice.style.prompt,
            "negative_prompt": choice.style.negative_prompt if choice.true_cfg_scale > 1 else None,
            "true_cfg_scale": choice.true_cfg_scale,
            "guidance_scale": choice.guidance_scale,
            "num_inference_steps": choice.steps,
            "width": width,
            "height": height,
            # Kontext would bring the picture to one of its own resolutions, whatever its proportions.
            "max_area": width * height,
            "_auto_resize": False,
            # On the CPU, so that the noise does not depend on the device.
            "generator": torch.Generator("cpu").manual_seed(choice.seed),
            "callback_on_step_end": between_steps,
        }
        try:
            result = self._pipeline(**{name: value for name, value in wanted.items() if name in self._takes})
        except PhotoInterrupted:
            self._pipeline.maybe_free_model_hooks()
            raise
        made = given.with_pixels(result.images[0])
        notes = list(given.notes)
        if self._short_of_memory:
            notes.append(f"out of memory once, then made with {self._choice.on_out_of_memory}")
        data = made.encoded()
        sha256 = hashlib.sha256(data).hexdigest()
        return Restyled(data, made.image.width, made.image.height, sha256, self.device, tuple(notes))

    def _with_less_memory(self, make: Callable[[], Restyled]) -> Restyled:
        """`make`; where memory runs out, once more with what the configuration has for that, if it was not yet done."""
        try:
            return make()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            how = self._choice.on_out_of_memory
            log.warning("out of memory; %s", self.memory(), exc_info=error)
            if self._short_of_memory or how == "fail":
                raise PhotoError(self._too_little()) from error
        # Outside of `except`: the error holds on to the frames, and they to what fills the memory.
        self._short_of_memory = True
        self._free()
        self._take_less(how)
        try:
            return make()
        except Exception as error:
            if is_out_of_memory(error):
                raise PhotoError(self._too_little()) from error
            raise

    def _too_little(self) -> str:
        tried = f", also with {self._choice.on_out_of_memory}" if self._short_of_memory else ""
        return (
            f"the memory of {self.device} is too small for it{tried} (lora_processing.on_out_of_memory); "
            "a smaller max_dim needs less"
        )

    def _take_less(self, how: OnOutOfMemory) -> None:
        pipeline = self._pipeline
        if hasattr(pipeline, "vae"):
            pipeline.vae.enable_tiling()
            pipeline.vae.enable_slicing()
        pipeline.enable_attention_slicing()  # models without it are left as they are
        if self.device != "cpu" and how in ("offload", "offload_layers"):
            _offload(pipeline, "model" if how == "offload" else "layers", self.device)

    def _free(self) -> None:
        import torch

        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        elif self.device == "mps":
            torch.mps.empty_cache()

    def close(self) -> None:
        """Let go of the model."""
        with self._lock:
            self._pipeline = None
            self._free()


def device_of(wanted: Device) -> str:
    """The device to use. Raises StageError where the one that is named is not there."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, available in there.items() if available)
    if not there[wanted]:
        raise StageError(
            f"lora_processing.device is {wanted!r}, and torch {torch.__version__} finds no such device here.",
            next_step="`auto` takes what is there; a torch that was built for the CPU alone knows no other.",
        )
    return wanted


def quiet_libraries() -> None:
    """The libraries' warnings go to our log, and no bars are drawn into our display."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_default_handler()
        library.utils.logging.enable_propagation()
        library.utils.logging.disable_progress_bar()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the device was too small; each kind of device says so in its own way."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    # MPS: "MPS backend out of memory"; the CPU's allocator: "can't allocate memory: you tried to allocate …".
    return isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)


def _loaded(choice: ModelChoice, device: str) -> Any:
    import torch
    from diffusers import AutoPipelineForImage2Image

    precision = choice.precision
    if precision == "auto":
        precision = "float32" if device == "cpu" else "bfloat16"
    try:
        on_the_hub = not Path(choice.model).is_absolute()
        pipeline = AutoPipelineForImage2Image.from_pretrained(
            choice.model,
            revision=choice.revision if on_the_hub else None,
            cache_dir=choice.cache_dir,
            local_files_only=choice.local_files_only,
            torch_dtype=getattr(torch, precision),
            use_safetensors=True,
        )
        pipeline.set_progress_bar_config(disable=True)
        if choice.offload != "none" and device != "cpu":
            _offload(pipeline, choice.offload, device)
        else:
            pipeline.to(device)
    except Exception as error:  # the libraries raise what they like for a model that is absent, cut off or unknown
        if is_out_of_memory(error):
            raise StageError(
                f"The memory of {device} is too small for {choice.model}.",
                next_step='`"offload": "model"` or `"layers"` in lora_processing holds only a part of it there.',
            ) from error
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise StageError(
            f"The model {choice.model} (lora_processing.model) cannot be loaded: {said}",
            next_step=f"`hf download {choice.model} --cache-dir {choice.cache_dir}` fetches one from the hub."
            if on_the_hub
            else "Look into its folder.",
        ) from error
    if not hasattr(pipeline, "load_lora_weights"):
        raise StageError(f"The model {choice.model} is a {type(pipeline).__name__}, which takes no LoRA weights.")
    return pipeline


def _offload(pipeline: Any, how: Offload, device: str) -> None:
    if how == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
