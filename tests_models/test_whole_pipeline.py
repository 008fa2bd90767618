"""The sample library through every stage but the upload, in one run: a language model that is played, an image model
that is tiny."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from skicyclerun.sources.sample_library import make_sample_library
from skicyclerun.stages.registry import STAGES
from tests import ollama_server
from tests.command_line import skicyclerun
from tests_models.conftest import Tiny

STYLES: Final = ("NoLoRA", "Red")


@contextmanager
def language_model() -> Iterator[dict[str, Any]]:
    """The section of llm_image_analysis, for as long as a server plays Ollama."""
    with ollama_server.start() as server:
        yield {"llm_image_analysis": {"endpoint": server.endpoint, "model": ollama_server.MODEL}}


def test_every_stage_but_the_upload_in_one_run_and_nothing_to_do_in_the_next(tmp_path: Path, tiny: Tiny) -> None:
    library, lib_root = tmp_path / "library", tmp_path / "root"
    make_sample_library(library)
    with language_model() as section:
        stages = [stage.name for stage in STAGES if stage.name not in ("s3_deployment", "llm_image_analysis")]
        stages += section
        config = lib_root / "config" / "pipeline_config.json"
        config.parent.mkdir(parents=True)
        config.write_text(
            json.dumps(
                {
                    "pipeline": {"stages": stages},
                    "export": {"source": "folder", "library": str(library)},
                    "preprocessing": {"max_dimension": 64},
                    "lora_processing": tiny.section(*STYLES),
                    "watermark": {"line1": "{place}", "line2": "{style}"},
                    **section,
                }
            ),
            encoding="utf-8",
        )
        typed = ("run", "--lib-root", lib_root, "--yes")
        ended = skicyclerun(*typed)
        assert ended.code == 0, ended.stderr
        again = skicyclerun(*typed, "--stages", ",".join(stages[2:]), "--dry-run")
    assert again.code == 0
    assert again.stderr.count("nothing to do") + again.stdout.count("nothing to do") == len(stages) - 2

    report = json.loads(skicyclerun("status", "--json", "--lib-root", lib_root).stdout)
    assert {stage["name"] for stage in report["stages"]} == set(stages) - {"cleanup", "export"}
    photos = sum(entry["type"] == "exported" for entry in entries(lib_root).values())
    assert photos > 0
    for stage in report["stages"]:
        totals = stage["totals"]
        assert totals["failed"] == totals["waiting"] == totals["pending"] == 0, (stage["name"], totals)
        results = photos * (len(STYLES) if "lora" in stage["name"] else 1)
        assert totals["done"] + totals["left_out"] == totals["expected"] == results, (stage["name"], totals)
    restyled = [entry for entry in entries(lib_root).values() if entry["type"] == "lora_watermarked"]
    assert {entry["variant"] for entry in restyled} == set(STYLES)
    assert skicyclerun("verify", "--lib-root", lib_root).code == 0


def entries(lib_root: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((lib_root / "metadata" / "master.json").read_text())
    return found
