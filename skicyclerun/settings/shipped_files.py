"""Files that travel with the program: the default configuration, the AppleScript, what a language model is asked, the
example of a registry of styles.

They live at the top of the source tree, where people look for them, and are put inside the package when a wheel is
built (`[tool.hatch.build.targets.wheel.force-include]` in pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from skicyclerun.errors import SkicyclerunError

#: Name → folder beside the package, in a source checkout or an editable installation.
SHIPPED_FILES: Final = {
    "pipeline_config.json": "config",
    "llm_prompt.txt": "config",
    "lora_registry.json": "config",
    "osxPhotoExporter.scpt": "scripts",
}

_PACKAGE: Final = Path(__file__).resolve().parent.parent


def shipped_file(name: str, *, package: Path = _PACKAGE) -> Path:
    """Where the shipped file `name` is. Raises SkicyclerunError if it is in neither of the two places.

    The package's own copy comes first: beside an installed package (`site-packages`) a folder `config` may be anyone's.
    """
    folder = SHIPPED_FILES.get(name)
    if folder is None:
        raise SkicyclerunError(f"{name!r} is not a file that skicyclerun ships; it ships {', '.join(SHIPPED_FILES)}.")
    candidates = (package / "shipped" / name, package.parent / folder / name)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SkicyclerunError(
        f"{name} is missing from this installation: looked for {' and '.join(str(path) for path in candidates)}.",
        next_step="Install skicyclerun again: `pip install --force-reinstall skicyclerun`.",
    )
