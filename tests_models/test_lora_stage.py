"""The stage lora_processing with a tiny model of the real classes: what comes out, and what it depends on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

from skicyclerun.stages.lora_processing import seed_of
from tests.staged_sample import Staged
from tests_models.conftest import Tiny
from tests_models.tiny_kontext import save_lora, save_registry

STAGES = "preprocessing,lora_processing,post_lora_watermarking"


def difference(one: Path, other: Path) -> float:
    """Mean difference of two pictures of one size, 0 to 255."""
    with Image.open(one) as left, Image.open(other) as right:
        found = ImageStat.Stat(ImageChops.difference(left.convert("RGB"), right.convert("RGB"))).mean
    return float(sum(found) / len(found))


def test_every_picture_comes_out_in_every_style_and_each_of_these_gets_its_watermark(sample: Staged) -> None:
    ended = sample.export("metadata_extraction", *STAGES.split(","))
    assert ended.code == 0, ended.stderr
    wanted = [f"{name}_{style}.webp" for name in ("Alps/a", "Alps/b", "Coast/c") for style in ("Ink", "NoLoRA", "Red")]
    assert sample.names("lora_processed") == sorted(wanted)
    assert sample.names("watermarked_final") == sorted(wanted)
    restyled = sample.outputs("lora_processed") / "Alps"
    scaled = sample.outputs("scaled") / "Alps" / "a.webp"
    assert (restyled / "a_NoLoRA.webp").read_bytes() == scaled.read_bytes()
    assert difference(restyled / "a_Red.webp", restyled / "a_Ink.webp") > 2
    assert difference(restyled / "a_Red.webp", scaled) > 10
    with Image.open(restyled / "a_Red.webp") as picture:
        assert picture.size == (64, 48)
        assert picture.getexif()[0x9003] == "2024:07:01 10:00:00"


def test_the_entry_and_the_row_say_how_it_was_made(sample: Staged, tiny: Tiny) -> None:
    sample.export(*STAGES.split(","))
    entry = sample.entries["lora_processed/Alps/a_Red.webp"]
    scaled = sample.outputs("scaled") / "Alps" / "a.webp"
    said = entry["lora_processing"]
    digest = hashlib.sha256(scaled.read_bytes()).hexdigest()
    assert entry["type"] == "lora_processed"
    assert entry["variant"] == said["style"] == "Red"
    assert said["seed"] == seed_of(0, digest, "Red")
    assert said["steps"] == 2
    assert said["model"] == str(tiny.model)
    assert said["revision"].startswith("sha256:")
    assert said["weights_sha256"] == hashlib.sha256(tiny.weights["Red"].read_bytes()).hexdigest()
    assert said["device"] == "cpu"
    assert said["seconds"] >= 0
    rows = sample.sql("SELECT variant, facts, seconds FROM stage_pictures WHERE file_name = 'a_Red.webp' LIMIT 1")
    ((variant, facts, seconds),) = rows
    assert variant == "Red"
    assert json.loads(facts)["lora_processing"] == said
    assert seconds > 0
    assert sorted(sample.entries["scaled/Alps/a.webp"]["derivatives"]["lora_processing"]) == [
        str(sample.outputs("lora_processed") / "Alps" / f"a_{style}.webp") for style in ("Ink", "NoLoRA", "Red")
    ]
    assert sample.entries["watermarked_final/Alps/a_Red.webp"]["variant"] == "Red"


def test_the_same_picture_comes_out_the_same_in_another_place_and_another_order(
    sample: Staged, tiny: Tiny, tmp_path: Path
) -> None:
    """So a redo gives the same bytes, whichever style was loaded before."""
    sample.export("preprocessing", "lora_processing")
    (tmp_path / "other").mkdir()
    other = Staged(tmp_path / "other")
    other.picture("Alps/a.jpg", 10, date="2024:07:01 10:00:00", position=True)
    other.configure(preprocessing={"max_dimension": 64}, lora_processing=tiny.section("Ink", "Red"))
    other.export("preprocessing", "lora_processing")
    for name in other.names("lora_processed"):
        assert (other.outputs("lora_processed") / name).read_bytes() == (
            sample.outputs("lora_processed") / name
        ).read_bytes()


def test_nothing_is_made_again_while_nothing_changes(sample: Staged) -> None:
    sample.export(*STAGES.split(","))
    before = sample.touched()
    again = sample.run("--stages", STAGES)
    assert again.code == 0
    assert sample.touched() == before
    ahead = sample.run("--stages", STAGES, "--dry-run")
    assert "lora_processing: nothing to do, 9 up to date" in ahead.stdout + ahead.stderr


def test_only_the_style_whose_words_or_weights_change_is_made_again(sample: Staged, tiny: Tiny, tmp_path: Path) -> None:
    weights = dict(tiny.weights)
    registry = save_registry(tmp_path / "registry.json", weights)
    sample.configure(lora_processing=tiny.section("Red", "Ink", registry_path=str(registry)))
    sample.export("preprocessing", "lora_processing")
    before = sample.touched("lora_processed")
    weights["Ink"] = save_lora(tmp_path / "new" / "ink.safetensors", 5)
    save_registry(registry, weights)
    assert sample.run("--stages", "lora_processing").code == 0
    changed = {name for name, when in sample.touched("lora_processed").items() if before[name] != when}
    assert changed == {f"lora_processed/{name}_Ink.webp" for name in ("Alps/a", "Alps/b", "Coast/c")}


def test_a_style_that_is_no_longer_asked_for_goes_into_an_archive_with_its_watermarks(
    sample: Staged, tiny: Tiny
) -> None:
    sample.export(*STAGES.split(","))
    sample.configure(lora_processing=tiny.section("Red"))
    assert sample.run("--stages", STAGES).code == 0
    assert sample.names("lora_processed") == ["Alps/a_Red.webp", "Alps/b_Red.webp", "Coast/c_Red.webp"]
    assert sample.names("watermarked_final") == sample.names("lora_processed")
    assert list((sample.lib_root / "archive").glob("*.zip"))


def test_weights_for_another_model_fail_their_style_and_no_other(sample: Staged, tiny: Tiny, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    strange = tmp_path / "strange" / "strange.safetensors"
    strange.parent.mkdir()
    save_file({"unet.up_blocks.0.lora_A.weight": torch.ones(4, 4)}, strange)
    registry = save_registry(tmp_path / "registry.json", {**tiny.weights, "Strange": strange})
    sample.configure(lora_processing=tiny.section("Strange", "Red", registry_path=str(registry)))
    ended = sample.export("preprocessing", "lora_processing")
    assert ended.code == 3
    assert sample.names("lora_processed") == ["Alps/a_Red.webp", "Alps/b_Red.webp", "Coast/c_Red.webp"]
    reasons = {row[0] for row in sample.sql("SELECT reason FROM stage_pictures WHERE variant = 'Strange'")}
    (reason,) = reasons
    assert "the weights of the style Strange (strange.safetensors) do not fit the model" in reason
