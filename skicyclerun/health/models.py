"""Health checks of the stages with models, for `doctor --models`: each loads its model and does one picture."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread

from skicyclerun.actors.stage_runs import stage_runs
from skicyclerun.errors import ConfigErrors, SkicyclerunError
from skicyclerun.health.findings import Finding, failed, ok, warning
from skicyclerun.settings.later_stages import later_stages, section_of
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import check_stage_needs
from skicyclerun.stages.stage import Picture, Recipe, Stage

#: Pixels of the picture that is made for this.
_SIZE: Final = (512, 384)


async def check_models(settings: Settings) -> AsyncIterator[Finding]:
    """A finding for each stage with a model that the configuration asks for or says something of.

    Works in a temporary folder. Nothing is raised for what is found.
    """
    stages = [stage for stage in later_stages(settings).values() if _is_asked_for(settings, stage)]
    if not stages:
        yield warning(
            "models",
            "no stage of `pipeline.stages` works with a model, and no section of one is filled in",
            "For restyled pictures: lora_processing in the configuration, see docs/models.md.",
        )
    for stage in stages:
        yield await anyio.to_thread.run_sync(partial(_tried_out, settings, stage))


def _is_asked_for(settings: Settings, stage: Stage) -> bool:
    # A command in the place of a stage has no recipe of ours.
    if stage.recipe is None or stage.settings is None or not stage.has_model:
        return False
    return stage.name in settings.pipeline.stages or section_of(settings, stage) != stage.settings()


def _tried_out(settings: Settings, stage: Stage) -> Finding:
    try:
        check_stage_needs(settings, [stage])
        (planned,) = stage_runs(settings, [stage.name], {})
        recipe = planned.run.recipe
        recipe.check()
        began = time.monotonic()
        try:
            recipe.open()
            return ok(stage.name, f"ready in {time.monotonic() - began:.1f} s; {_one_picture(recipe)}")
        finally:
            recipe.close()
    except ConfigErrors as errors:
        return failed(stage.name, str(errors), errors.errors[0].next_step)
    except SkicyclerunError as error:
        return failed(stage.name, str(error), error.next_step)
    except Exception as error:  # libraries with models raise what they like
        said = " ".join(str(error).split())[:300]
        return failed(stage.name, f"{type(error).__name__}: {said}")


def _one_picture(recipe: Recipe) -> str:
    with tempfile.TemporaryDirectory(prefix="skicyclerun-doctor-") as folder:
        path = Path(folder) / "generated.webp"
        _generate(path)
        picture = Picture(path, hashlib.sha256(path.read_bytes()).hexdigest())
        choices = [Picture(path, picture.sha256, variant=variant) for variant in recipe.variants(picture)]
        picture = next((choice for choice in choices if recipe.uses_model(choice)), choices[0])
        began = time.monotonic()
        made = recipe.make(picture, Path(folder) / f"made{recipe.extension}" if recipe.extension else None)
        seconds = time.monotonic() - began
    style = f" in the style {picture.variant}" if picture.variant else ""
    size = f", {made.width} x {made.height} pixels" if made.width else ""
    held = recipe.held()
    return f"a picture{style} in {seconds:.1f} s{size}{'; ' if held else ''}{held}"


def _generate(path: Path) -> None:
    from PIL import Image

    width, height = _SIZE
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    Image.merge("RGB", (across, down, Image.radial_gradient("L").resize((width, height)))).save(path, "WEBP")
