"""The stage lora_processing as far as it goes without a model: settings, registry, names, seeds, what is refused.

What is made with one is tested in tests_models (`make test-models`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from skicyclerun.errors import StageError
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.stages.lora_processing import LoraProcessing, LoraSettings, seed_of
from skicyclerun.stages.lora_registry import NO_LORA, Hub, model_revision, read_registry, sha256_of, weights_files
from skicyclerun.stages.stage import Picture, Surroundings
from tests.staged_sample import Staged

needs_no_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")


class Place:
    """A folder with a configuration, a registry, weights and something that looks like a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.styles: dict[str, Any] = {}
        for name in ("Red", "Ink"):
            self.style(name)
        self.model = folder / "model"
        (self.model / "transformer").mkdir(parents=True)
        (self.model / "model_index.json").write_text('{"_class_name": "FluxKontextPipeline"}')
        (self.model / "transformer" / "weights.safetensors").write_bytes(b"numbers" * 1000)

    def style(self, name: str, *, content: bytes | None = b"", **keys: Any) -> None:
        """Enter a style, with weights of this content unless it is None."""
        weights = f"{name.lower()}.safetensors"
        entry = {"path": "./loras", "weights": weights, "prompt": f"make it {name}", "description": "…", **keys}
        self.styles[name] = entry
        (self.folder / "loras").mkdir(exist_ok=True)
        if content is not None:
            (self.folder / "loras" / weights).write_bytes(content or name.encode())
        self.write(json.dumps(self.styles))

    def write(self, text: str) -> None:
        (self.folder / "lora_registry.json").write_text(text, encoding="utf-8")

    def recipe(self, *styles: str, **keys: Any) -> LoraProcessing:
        section = {"model": str(self.model), "loras_to_process": list(styles), "cache_dir": str(self.folder / "cache")}
        settings = LoraSettings.model_validate({**section, **keys})
        return LoraProcessing(settings, Surroundings(self.folder, self.folder / "geocode.json", self.folder))

    def picture(self, variant: str, name: str = "a.webp") -> Picture:
        path = self.folder / name
        if not path.exists():
            Image.new("RGB", (64, 48), "teal").save(path)
        return Picture(path, hashlib.sha256(path.read_bytes()).hexdigest(), variant=variant)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refusal(recipe: LoraProcessing) -> StageError:
    with pytest.raises(StageError) as raised:
        recipe.check()
    return raised.value


# ── what is refused before anything is loaded ─────────────────────────────────────────────────────────────────────


def test_a_right_registry_passes_and_no_model_is_loaded_for_it(place: Place) -> None:
    place.recipe("Red", "NoLoRA", "Ink").check()


def test_all_weights_that_are_absent_are_named_at_once(place: Place) -> None:
    place.style("Gone", content=None)
    place.style("Away", content=None)
    place.style("Elsewhere", path="owner/name", content=None)
    said = str(refusal(place.recipe("Red", "Gone", "Away")))
    assert "The weights of 2 styles are not here" in said
    assert str(place.folder / "loras" / "gone.safetensors") in said
    assert str(place.folder / "loras" / "away.safetensors") in said
    assert "Red" not in said


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed")
def test_weights_of_the_hub_that_are_not_in_the_cache_are_named_with_what_fetches_them(place: Place) -> None:
    place.style("Elsewhere", path="owner/name", content=None)
    error = refusal(place.recipe("Elsewhere"))
    assert "elsewhere.safetensors of owner/name" in str(error)
    assert f"hf download owner/name elsewhere.safetensors --cache-dir {place.folder / 'cache'}" in error.next_step


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"weights": "pytorch_model.bin"}, "must be a .safetensors file (others may hold code)"),
        ({"weights": "../../secret.safetensors"}, "must be a file inside `path`"),
        ({"weights": "/etc/x.safetensors"}, "must be a file inside `path`"),
        ({"weights": 7}, "weights must be the name of a file"),
        ({"prompt": ""}, "prompt"),
        ({"lora_scale": 1e9}, "lora_scale"),
        ({"lora_scale": "0.5"}, "lora_scale"),
        ({"path": "a\0b"}, "path must be a repository (owner/name) or a folder"),
    ],
)
def test_an_entry_that_is_wrong_is_refused_by_name_and_key(place: Place, keys: dict[str, Any], said: str) -> None:
    place.style("Bad")
    place.styles["Bad"] |= keys
    place.write(json.dumps(place.styles))
    text = str(refusal(place.recipe("Bad")))
    assert "'Bad'" in text
    assert said in text
    place.recipe("Red").check()


def test_everything_that_is_wrong_with_the_styles_is_said_at_once(place: Place) -> None:
    place.style("Bad", weights="x.ckpt")
    text = str(refusal(place.recipe("Bad", "Rad", "red/../x")))
    assert "must be a .safetensors file" in text
    assert "'Rad' is not in it. Did you mean 'Red'?" in text
    assert "'red/../x' cannot be part of a file name" in text


@pytest.mark.parametrize(
    "name", ["a/b", "..", "a:b", " x", "x.", "CON", "x" * 61, "a\nb", "\N{RIGHT-TO-LEFT OVERRIDE}x"]
)
def test_a_style_whose_name_cannot_be_part_of_a_file_name_is_refused(place: Place, name: str) -> None:
    place.style(name, weights="red.safetensors", content=None)
    assert "cannot be part of a file name" in str(refusal(place.recipe(name)))


def test_two_styles_that_no_disk_tells_apart_are_refused(place: Place) -> None:
    place.style("RED")
    assert "'RED' and 'Red' would have the same file names" in str(refusal(place.recipe("Red", "RED")))
    assert "'nolora' and 'NoLoRA' would have the same" in str(refusal(place.recipe("NoLoRA", "nolora")))


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is not JSON"), ("[]", "must be an object"), (" " * 4_000_001, "is larger than"), ("\x00", "is not JSON")],
)
def test_a_registry_that_is_none_is_said(place: Place, text: str, said: str) -> None:
    place.write(text)
    assert said in str(refusal(place.recipe("Red")))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["path", "weights", "prompt"]), inner),
)


@given(st.dictionaries(st.text(min_size=1, max_size=10), ANYTHING, min_size=1, max_size=4))
def test_whatever_the_registry_holds_is_refused_with_a_sentence(entries: dict[str, Any]) -> None:
    """None of it is a style, and one is not there."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "registry.json"
        file.write_text(json.dumps(entries), encoding="utf-8")
        with pytest.raises(StageError) as raised:
            read_registry(file, [*entries, "missing"])
    assert str(raised.value).startswith("The registry of styles ")
    assert str(raised.value).endswith((".", "?"))


def test_a_registry_that_is_not_there_and_styles_that_are_not_named_say_what_to_type(place: Place) -> None:
    error = refusal(place.recipe("Red", registry_path="other.json"))
    assert "other.json cannot be read" in str(error)
    assert "lora_processing.registry_path" in error.next_step
    assert "names no style" in str(refusal(place.recipe()))


def test_the_registry_is_found_where_existing_files_have_it(place: Place) -> None:
    """They name `config/lora_registry.json`, seen from the folder above that of the configuration."""
    (place.folder / "config").mkdir()
    (place.folder / "lora_registry.json").rename(place.folder / "config" / "styles.json")
    settings = LoraSettings.model_validate(
        {"loras_to_process": ["Red"], "registry_path": "config/styles.json", "model": str(place.model)}
    )
    place.styles["Red"]["path"] = str(place.folder / "loras")
    (place.folder / "config" / "styles.json").write_text(json.dumps(place.styles))
    LoraProcessing(settings, Surroundings(place.folder, place.folder / "g.json", place.folder / "config")).check()


def test_the_registry_that_is_shipped_is_one() -> None:
    file = shipped_file("lora_registry.json")
    styles = read_registry(file, json.loads(file.read_text()))
    assert styles
    assert all(style.negative_prompt for style in styles.values())


def test_a_model_that_is_none_is_said(place: Place) -> None:
    (place.model / "model_index.json").unlink()
    assert "is no model: it has no model_index.json" in str(refusal(place.recipe("Red")))
    place.recipe("NoLoRA").check()


@pytest.mark.parametrize(
    "section",
    [
        {"loras_to_process": ["A", "A"]},
        {"workers": 2},
        {"num_inference_steps": 0},
        {"max_dim": 8},
        {"device": "gpu"},
        {"seed": -1},
        {"engine": "spark"},
        {"true_cfg_scale": 0.5},
        {"ray_workers": 0},
    ],
)
def test_settings_out_of_their_range_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoraSettings.model_validate(section)


@needs_no_torch
def test_without_its_packages_the_stage_says_which_command_brings_them(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg")
    refused = sample.run("--stages", "export,preprocessing,lora_processing")
    assert refused.code == 2
    assert 'pip install "skicyclerun[lora]"' in refused.stderr
    assert sample.names("albums") == []


def test_an_export_asks_for_no_cache_of_models_and_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUGGINGFACE_CACHE_LIB", raising=False)
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg")
    sample.configure(
        paths={"huggingface_cache": "${HUGGINGFACE_CACHE_LIB}"},
        lora_processing={"cache_dir": "{huggingface_cache}", "registry_path": "nowhere.json"},
    )
    ended = sample.export("preprocessing")
    assert ended.code == 0
    assert "HUGGINGFACE" not in ended.stderr


# ── names, seeds, dependencies ────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_has_a_result_for_every_style_named_after_both(place: Place) -> None:
    recipe = place.recipe("Ink", "NoLoRA", "Red")
    variants = recipe.variants(place.picture(""))
    assert list(variants) == ["Ink", "NoLoRA", "Red"]
    assert [recipe.stem(place.picture(each)) for each in variants] == ["a_Ink", "a_NoLoRA", "a_Red"]


@given(st.integers(0, 2**63 - 1), st.binary(max_size=20), st.sampled_from(["Red", "Ink"]))
def test_a_seed_follows_from_the_picture_the_style_and_the_configured_seed(seed: int, data: bytes, style: str) -> None:
    sha256 = hashlib.sha256(data).hexdigest()
    found = seed_of(seed, sha256, style)
    assert found == seed_of(seed, sha256, style)
    assert 0 <= found < 2**63
    others = [seed_of((seed + 1) % 2**63, sha256, style), seed_of(seed, sha256[::-1] + "0", style)]
    assert found not in [*others, seed_of(seed, sha256, f"{style}2")]


def test_a_seed_stays_what_it_was_in_earlier_versions() -> None:
    assert seed_of(0, hashlib.sha256(b"").hexdigest(), "Red") == 4643317825982889673


def test_all_that_decides_a_picture_is_in_depends_on(place: Place) -> None:
    picture = place.picture("Red")
    first = place.recipe("Red").depends_on(picture)
    changed: list[dict[str, Any]] = [
        {"num_inference_steps": 5},
        {"guidance_scale": 3.5},
        {"true_cfg_scale": 2.0},
        {"max_dim": 512},
        {"quality": 80},
        {"precision": "float32"},
        {"seed": 4},
    ]
    said = [first, *(place.recipe("Red", **keys).depends_on(picture) for keys in changed)]
    assert all(said.count(each) == 1 for each in said)
    for keys in ({"prompt": "other"}, {"lora_scale": 0.3}, {"text_encoder_scale": 0.2}):
        place.style("Red", **keys)
        said.append(place.recipe("Red").depends_on(picture))
    place.style("Red", content=b"other weights")
    said.append(place.recipe("Red").depends_on(picture))
    assert all(said.count(each) == 1 for each in said)


def test_what_does_not_decide_a_picture_is_not_in_depends_on(place: Place) -> None:
    picture = place.picture("Red")
    first = place.recipe("Red").depends_on(picture)
    for keys in (
        {"device": "cpu"},
        {"offload": "model"},
        {"on_out_of_memory": "fail"},
        {"engine": "ray", "workers": 3},
    ):
        assert place.recipe("Red", **keys).depends_on(picture) == first
    place.style("Red", description="other", negative_prompt="counts only with a true_cfg_scale")
    assert place.recipe("Red").depends_on(picture) == first
    assert place.recipe("Ink", "Red").depends_on(picture) == first


def test_the_revision_of_a_model_in_a_folder_follows_its_files(place: Place, tmp_path: Path) -> None:
    hub = Hub(tmp_path / "cache", local_files_only=True)
    first = model_revision(str(place.model), "main", tmp_path, hub)
    assert first is not None
    assert first.startswith("sha256:")
    weights = place.model / "transformer" / "weights.safetensors"
    weights.write_bytes(b"N" + weights.read_bytes()[1:])
    assert model_revision(str(place.model), "main", tmp_path, hub) != first


def test_a_commit_is_a_revision_without_looking_it_up(tmp_path: Path) -> None:
    """So that a cluster may have a model that this machine has not."""
    hub = Hub(tmp_path / "cache", local_files_only=True)
    assert model_revision("owner/name", "a" * 40, tmp_path, hub) == "a" * 40


def test_weights_are_hashed_again_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    for content in (b"one", b"four"):
        file.write_bytes(content)
        assert sha256_of(file) == hashlib.sha256(content).hexdigest()


def test_a_folder_that_is_there_wins_over_a_repository_of_its_name(place: Place) -> None:
    folder = place.folder / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "red.safetensors").write_bytes(b"red")
    place.style("Red", path="owner/name", content=None)
    registry = place.folder / "lora_registry.json"
    hub = Hub(place.folder / "cache", local_files_only=True)
    found = weights_files(read_registry(registry, ["Red"]), registry, hub)
    assert found == {"Red": folder / "red.safetensors"}


# ── the picture as it is ──────────────────────────────────────────────────────────────────────────────────────────


def test_no_lora_is_the_picture_as_it_is_and_needs_no_model(place: Place) -> None:
    recipe = place.recipe(NO_LORA, model="/nowhere")
    recipe.check()
    recipe.open()
    given = place.picture(NO_LORA)
    made = recipe.make(given, place.folder / "out.webp")
    assert (place.folder / "out.webp").read_bytes() == given.path.read_bytes()
    assert (made.width, made.height) == (64, 48)
    assert made.facts == {"lora_processing": {"style": "NoLoRA"}}


def test_no_lora_of_another_format_is_the_same_picture_as_webp(place: Place) -> None:
    recipe = place.recipe(NO_LORA)
    made = recipe.make(place.picture(NO_LORA, "a.jpg"), place.folder / "out.webp")
    assert (made.width, made.height) == (64, 48)
    with Image.open(place.folder / "out.webp") as picture:
        assert picture.format == "WEBP"
        assert picture.size == (64, 48)
