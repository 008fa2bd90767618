"""What llm_image_analysis takes for a picture besides the model: scaling it, asking, taking the answer.

The server is that of the tests, in this process, so its part is counted too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from PIL import Image

from skicyclerun.stages.llm_image_analysis import LlmImageAnalysis, LlmImageAnalysisSettings
from skicyclerun.stages.stage import Picture, Surroundings
from tests.ollama_server import start

FACTS: Final[dict[str, Any]] = {
    "date_taken": "2024-07-27T10:05:00+02:00",
    "gps": {"lat": 46.02, "lon": 7.75, "heading": 314.0},
    "location": {"city": "Zermatt", "state": "Valais", "country": "Switzerland", "formatted": "Zermatt, Valais"},
    "title": "Up the Gornergrat",
    "keywords": ["ski", "family"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--planned", type=int, default=10_000, help="pictures that are found up to date")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, start() as server:
        folder = Path(place)
        Image.effect_noise((4000, 3000), 60).convert("RGB").save(folder / "in.jpg", quality=90)
        picture = Picture(folder / "in.jpg", hashlib.sha256((folder / "in.jpg").read_bytes()).hexdigest(), FACTS)
        settings = LlmImageAnalysisSettings.model_validate({"endpoint": server.endpoint})
        recipe = LlmImageAnalysis(settings, Surroundings(folder, folder / "cache.json", folder))
        recipe.depends_on(picture)
        recipe.open()
        recipe.make(picture, None)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(options.pictures):
            recipe.make(picture, None)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        each = options.pictures
        say(f"asked about: {cpu / each * 1e3:.0f} ms CPU, {wall / each * 1e3:.0f} ms a picture of 12 megapixels")
        cpu = time.process_time()
        for _ in range(options.planned):
            recipe.depends_on(picture)
        say(f"up to date: {(time.process_time() - cpu) / options.planned * 1e6:.0f} µs CPU a picture")
        recipe.close()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
