"""Runs of lora_processing in which somebody else paints: several results of one picture, in the frame of the stages.

The painter stands in for the model, which tests_models has; everything else is as in any run.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from skicyclerun.errors import PhotoError
from skicyclerun.stages import registry
from skicyclerun.stages.lora_processing import LoraProcessing
from skicyclerun.stages.restyle import PictureChoice, Restyled
from skicyclerun.stages.stage import Picture
from tests.staged_sample import Staged

STAGES: Final = "preprocessing,lora_processing,post_lora_watermarking"


class Painter:
    """Paints every picture in one colour, that of its seed; refuses those named."""

    def __init__(self) -> None:
        self.painted: list[str] = []
        self.refuses: set[str] = set()
        self.open = 0

    def restyle(self, picture: Picture, weights: Path, choice: PictureChoice, staged: Path) -> Restyled:
        name = f"{picture.path.parent.name}/{picture.path.stem}_{choice.style.name}"
        if name in self.refuses:
            raise PhotoError("the painter refuses")
        self.painted.append(name)
        with Image.open(picture.path) as given:
            size = given.size
        written = io.BytesIO()
        Image.new("RGB", size, choice.seed.to_bytes(8, "big")[:3].hex().join(("#", ""))).save(written, "WEBP")
        data = written.getvalue()
        return Restyled(data, *size, hashlib.sha256(data).hexdigest(), "cpu")

    def stop(self) -> None:
        """Nothing of it takes long."""

    def abandon(self, staged: Path | None) -> None:
        """Nothing of it takes long."""

    def close(self) -> None:
        self.open -= 1

    def held(self) -> str:
        return "a brush"


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Painter:
    found = Painter()

    def opened(recipe: LoraProcessing) -> Painter:
        found.open += 1
        return found

    monkeypatch.setattr(LoraProcessing, "_new_engine", opened)
    monkeypatch.setattr(registry, "missing_packages", lambda stage: ())
    return found


@pytest.fixture
def sample(tmp_path: Path) -> Staged:
    staged = Staged(tmp_path)
    staged.picture("Alps/a.jpg", 10)
    staged.picture("Alps/b.jpg", 120)
    staged.picture("Coast/c.jpg", 240)
    model = tmp_path / "model"
    model.mkdir()
    (model / "model_index.json").write_text("{}")
    styles = {}
    for name in ("Red", "Ink"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
        styles[name] = {"path": str(tmp_path), "weights": f"{name}.safetensors", "prompt": name}
    (tmp_path / "styles.json").write_text(json.dumps(styles))
    ask_for(staged, "Red", "Ink", "NoLoRA")
    return staged


def ask_for(staged: Staged, *styles: str) -> None:
    section = {"model": str(staged.folder / "model"), "registry_path": str(staged.folder / "styles.json")}
    staged.configure(lora_processing={**section, "loras_to_process": list(styles)})


def test_each_style_is_a_row_a_file_and_an_entry_of_its_own(sample: Staged, painter: Painter) -> None:
    assert sample.export(*STAGES.split(",")).code == 0
    pictures = [
        f"{name}_{style}.webp" for name in ("Alps/a", "Alps/b", "Coast/c") for style in ("Ink", "NoLoRA", "Red")
    ]
    assert sample.names("lora_processed") == sample.names("watermarked_final") == sorted(pictures)
    assert {entry["variant"] for name, entry in sample.entries.items() if "lora_processed/" in name} == {
        "Red",
        "Ink",
        "NoLoRA",
    }
    rows = sample.sql(
        "SELECT input, variant FROM stage_pictures WHERE stage = 'lora_processing' ORDER BY folder, position"
    )
    assert rows[:4] == [("a.webp", "Red"), ("a.webp", "Ink"), ("a.webp", "NoLoRA"), ("b.webp", "Red")]
    assert painter.open == 0


def test_an_album_is_worked_through_style_by_style(sample: Staged, painter: Painter) -> None:
    sample.export("preprocessing", "lora_processing")
    assert painter.painted == ["Alps/a_Red", "Alps/b_Red", "Alps/a_Ink", "Alps/b_Ink", "Coast/c_Red", "Coast/c_Ink"]


def test_nothing_is_painted_where_nothing_changed_and_the_model_is_not_loaded(sample: Staged, painter: Painter) -> None:
    sample.export("preprocessing", "lora_processing")
    painter.painted.clear()
    painter.open = 5
    assert sample.run("--stages", "preprocessing,lora_processing").code == 0
    assert (painter.painted, painter.open) == ([], 5)


def test_another_style_is_made_beside_the_others(sample: Staged, painter: Painter) -> None:
    ask_for(sample, "Red")
    sample.export("preprocessing", "lora_processing")
    before = sample.touched("lora_processed")
    painter.painted.clear()
    ask_for(sample, "Red", "Ink")
    assert sample.run("--stages", "lora_processing").code == 0
    assert painter.painted == ["Alps/a_Ink", "Alps/b_Ink", "Coast/c_Ink"]
    after = sample.touched("lora_processed")
    assert {name: after[name] for name in before} == before


def test_a_dry_run_counts_a_picture_once_for_every_style(sample: Staged, painter: Painter) -> None:
    sample.run("--stages", "export")
    ahead = sample.run("--stages", STAGES, "--dry-run")
    said = ahead.stdout + ahead.stderr
    assert "preprocessing: 3 to do (3 new)" in said
    assert "lora_processing: 9 to do (9 new)" in said
    assert "post_lora_watermarking: 9 to do (9 new)" in said
    assert painter.painted == []


def test_a_picture_that_fails_in_one_style_is_waited_for_and_what_it_was_stays(
    sample: Staged, painter: Painter
) -> None:
    assert sample.export(*STAGES.split(",")).code == 0
    marked = sample.names("watermarked_final")
    sample.picture("Alps/a.jpg", 77)
    painter.refuses = {"Alps/a_Red"}
    assert sample.update(*STAGES.split(",")).code == 3
    failed = sample.sql("SELECT input, variant, reason FROM stage_pictures WHERE status = 'failed'")
    assert failed == [("a.webp", "Red", "the painter refuses")]
    assert sample.albums("lora_processing")["Alps"][0] == "failed"
    status, reason = sample.albums("post_lora_watermarking")["Alps"]
    assert (status, "1 of 6 pictures has not come from the stage before" in reason) == ("failed", True), reason
    assert sample.names("watermarked_final") == marked, "the earlier watermark stays until there is a new one"
    painter.refuses = set()
    assert sample.run("retry-failed").code == 0
    assert sample.albums("post_lora_watermarking")["Alps"][0] == "done"
    assert sample.names("watermarked_final") == marked


def test_a_photo_that_moves_to_another_album_takes_its_styles_along(sample: Staged, painter: Painter) -> None:
    sample.export("preprocessing", "lora_processing")
    painter.painted.clear()
    (sample.library / "Coast" / "b.jpg").write_bytes((sample.library / "Alps" / "b.jpg").read_bytes())
    (sample.library / "Alps" / "b.jpg").unlink()
    assert sample.update("preprocessing", "lora_processing").code == 0
    assert painter.painted == []
    assert sample.names("lora_processed") == [
        f"{name}_{style}.webp" for name in ("Alps/a", "Coast/b", "Coast/c") for style in ("Ink", "NoLoRA", "Red")
    ]


def test_a_lost_state_is_rebuilt_with_the_styles_and_nothing_is_painted_again(sample: Staged, painter: Painter) -> None:
    from tests.command_line import skicyclerun

    sample.export(*STAGES.split(","))
    for file in (sample.lib_root / "state").glob("skicyclerun.sqlite3*"):
        file.unlink()
    assert skicyclerun("rebuild-state", "--lib-root", sample.lib_root).code == 0
    painter.painted.clear()
    assert sample.run("--stages", STAGES).code == 0
    assert painter.painted == []


def test_what_verify_finds_damaged_is_painted_again_and_no_other(sample: Staged, painter: Painter) -> None:
    sample.export(*STAGES.split(","))
    damaged = sample.outputs("lora_processed") / "Alps" / "a_Ink.webp"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-3] + bytes([whole[-3] ^ 255]) + whole[-2:])
    painter.painted.clear()
    assert sample.run("verify", "--full").code != 0
    repaired = sample.run("verify", "--full", "--repair")
    assert repaired.code == 0, repaired.stdout + repaired.stderr
    assert damaged.read_bytes() == whole
    assert painter.painted == ["Alps/a_Ink"]
