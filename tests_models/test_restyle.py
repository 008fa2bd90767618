"""One picture through the tiny model: what is given up, too little memory, which device, and `doctor --models`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from skicyclerun import __version__
from skicyclerun.errors import PhotoError, PhotoInterrupted, PhotoTransient, StageError
from skicyclerun.stages.lora_registry import Hub, model_revision, sha256_of
from skicyclerun.stages.restyle import (
    ModelChoice,
    OnOutOfMemory,
    PictureChoice,
    Restyler,
    StyleChoice,
    device_of,
    is_out_of_memory,
)
from skicyclerun.stages.restyle_on_ray import Worker
from tests.command_line import skicyclerun
from tests.staged_sample import Staged
from tests_models.conftest import Tiny


def choice_of(tiny: Tiny, on_out_of_memory: OnOutOfMemory = "slicing") -> ModelChoice:
    revision = model_revision(str(tiny.model), "main", Path("/"), Hub(Path("/nowhere"), local_files_only=True))
    assert revision is not None
    return ModelChoice(str(tiny.model), revision, "/nowhere", True, "cpu", "auto", "none", on_out_of_memory)


def picture_choice(tiny: Tiny, style: str = "Red", steps: int = 3) -> PictureChoice:
    chosen = StyleChoice(style, f"make it {style}", "", 1.0, 0.5, sha256_of(tiny.weights[style]))
    return PictureChoice(chosen, 7, steps, 2.5, 1.0, 64, 90)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.webp"
    Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 50).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def restyler(tiny: Tiny) -> Restyler:
    return Restyler(choice_of(tiny))


def test_what_is_given_up_ends_at_the_next_step_and_the_next_picture_is_as_always(
    restyler: Restyler, tiny: Tiny, source: Path
) -> None:
    whole = restyler.restyle(source, tiny.weights["Red"], picture_choice(tiny))
    asked = 0

    def after_two() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2  # once before it begins, once after the first step

    with pytest.raises(PhotoInterrupted, match="after step 2 of 50"):
        restyler.restyle(source, tiny.weights["Red"], picture_choice(tiny, steps=50), after_two)
    assert asked == 3
    assert restyler.restyle(source, tiny.weights["Red"], picture_choice(tiny)).data == whole.data


def test_a_scale_is_set_without_loading_the_weights_again_and_changes_the_picture(
    restyler: Restyler, tiny: Tiny, source: Path
) -> None:
    strong = picture_choice(tiny)
    weak = replace(strong, style=replace(strong.style, lora_scale=0.1))
    loaded: list[str] = []
    load = restyler._pipeline.load_lora_weights

    def noted(*given: Any, **keys: Any) -> None:
        loaded.append(keys["weight_name"])
        load(*given, **keys)

    restyler._pipeline.load_lora_weights = noted
    try:
        pictures = [restyler.restyle(source, tiny.weights["Red"], each).data for each in (strong, weak, strong)]
        assert pictures[0] == pictures[2] != pictures[1]
        assert loaded == []
        restyler.restyle(source, tiny.weights["Ink"], picture_choice(tiny, "Ink"))
        assert loaded == ["ink.safetensors"]
    finally:
        del restyler._pipeline.load_lora_weights


class Short:
    """A device whose memory is too small for the picture as a whole; it says so when the picture is decoded."""

    def __init__(self, restyler: Restyler, *, also_in_tiles: bool) -> None:
        vae = restyler._pipeline.vae
        decode = vae.decode
        self.times = 0

        def decoded(*given: Any, **keys: Any) -> Any:
            self.times += 1
            if also_in_tiles or not vae.use_tiling:
                raise torch.OutOfMemoryError("tried to allocate 9 GiB")
            return decode(*given, **keys)

        vae.decode = decoded


def test_out_of_memory_is_met_once_as_configured_and_the_picture_comes_out(tiny: Tiny, source: Path) -> None:
    restyler = Restyler(choice_of(tiny, "offload"))
    short = Short(restyler, also_in_tiles=False)
    made = restyler.restyle(source, tiny.weights["Red"], picture_choice(tiny))
    assert short.times == 2
    assert made.notes == ("out of memory once, then made with offload",)
    restyler.restyle(source, tiny.weights["Red"], picture_choice(tiny))
    assert short.times == 3, "it stays with what fits"


def test_out_of_memory_for_the_second_time_fails_the_picture_with_that_reason(tiny: Tiny, source: Path) -> None:
    restyler = Restyler(choice_of(tiny))
    short = Short(restyler, also_in_tiles=True)
    for _ in range(2):
        with pytest.raises(PhotoError, match=r"the memory of cpu is too small for it, also with slicing"):
            restyler.restyle(source, tiny.weights["Red"], picture_choice(tiny))
    assert short.times == 3, "what helps is tried once, not for every picture"


def test_the_errors_of_every_kind_of_device_that_is_out_of_memory_are_known() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there_is_refused_before_the_model_is_loaded(sample: Staged, tiny: Tiny) -> None:
    assert device_of("auto") == ("mps" if torch.backends.mps.is_available() else "cpu")
    with pytest.raises(StageError, match=r"lora_processing\.device is 'cuda'"):
        device_of("cuda")
    sample.configure(lora_processing=tiny.section("Red", device="cuda"))
    refused = sample.export("preprocessing", "lora_processing")
    assert refused.code == 2
    assert "finds no such device here" in refused.stderr
    assert sample.names("albums") == []


def test_a_model_that_cannot_be_loaded_is_one_sentence_and_the_run_can_be_resumed(
    sample: Staged, tiny: Tiny, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text('{"_class_name": "FluxKontextPipeline", "_diffusers_version": "0.40"}')
    sample.configure(lora_processing=tiny.section("Red", model=str(broken)))
    ended = sample.export("preprocessing", "lora_processing")
    assert ended.code == 2
    assert f"The model {broken} (lora_processing.model) cannot be loaded" in ended.stderr
    assert sample.newest_run() == "interrupted"


def test_doctor_loads_the_model_and_does_one_picture(sample: Staged) -> None:
    told = sample.run("status", "--json")
    assert told.code == 10
    found = skicyclerun("doctor", "--models", "--json", "--lib-root", sample.lib_root)
    checks = {each["check"]: each for each in found.json["checks"]}
    assert checks["lora_processing"]["status"] == "ok"
    detail = checks["lora_processing"]["detail"]
    assert "ready in" in detail
    assert "a picture in the style Red in" in detail
    assert "64 x 48 pixels; cpu: " in detail
    assert not (sample.lib_root / "pipeline").exists()


def test_doctor_says_what_is_missing(sample: Staged, tiny: Tiny) -> None:
    sample.configure(lora_processing=tiny.section("Red", "Gone"))
    found = skicyclerun("doctor", "--models", "--json", "--lib-root", sample.lib_root)
    (said,) = [each for each in found.json["checks"] if each["check"] == "lora_processing"]
    assert said["status"] == "failed"
    assert "'Gone' is not in it" in said["detail"]
    assert found.code == 1


def test_a_worker_of_a_cluster_takes_nothing_that_is_not_what_the_run_means(tiny: Tiny, source: Path) -> None:
    choice, picture = choice_of(tiny), picture_choice(tiny)
    worker = Worker()
    with pytest.raises(StageError, match=r"has skicyclerun .*, and this is 0\.0\.1"):
        worker.load(choice, "0.0.1")
    with pytest.raises(StageError, match="is of the revision sha256:"):
        worker.load(replace(choice, revision="sha256:0"), __version__)
    assert worker.load(choice, __version__).startswith("cpu: ")
    data, weights = source.read_bytes(), tiny.weights["Red"].read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    with pytest.raises(PhotoTransient, match="the picture did not come whole"):
        worker.restyle("1.webp", data[:-1], sha256, weights, picture)
    with pytest.raises(PhotoTransient, match="the weights did not come whole"):
        worker.restyle("2.webp", data, sha256, weights[:-1], picture)
    made = worker.restyle("3.webp", data, sha256, weights, picture)
    assert made.sha256 == hashlib.sha256(made.data).hexdigest()
    worker.give_up("4.webp")
    with pytest.raises(PhotoInterrupted):
        worker.restyle("4.webp", data, sha256, weights, picture)
    assert worker.restyle("5.webp", data, sha256, b"", picture).data == made.data, "it has the weights"
    kept = Path(worker._folder.name)
    assert kept.exists()
    worker.close()
    assert not kept.exists()
