"""The folders that a cleanup may put away, by the names that `cleanup.folders` and `cleanup.keep` take.

A folder goes by its key in `paths`, by what it is called inside an archive, or by the stage that writes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from skicyclerun.settings.command_stages import output_key
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import STAGES

#: What a folder is called inside an archive, by its key in `paths`.
NAMES_IN_ARCHIVE: Final[Mapping[str, str]] = {
    "apple_photos_export": "albums",
    "preprocessed": "scaled",
    "lora_processed": "lora_processed",
    "watermarked_final": "watermarked_final",
    "metadata_dir": "metadata",
}


def cleanup_names(own: Iterable[str]) -> dict[str, str]:
    """Every name such a folder goes by → its key (`Settings.path_of`). `own`: names of the user's own stages."""
    names = {stage.name: stage.output for stage in STAGES if stage.output}
    names |= {"export": "apple_photos_export", "raw_input": "apple_photos_export"}
    for key, name in NAMES_IN_ARCHIVE.items():
        names |= {key: key, name: key}
    return names | {name: output_key(name) for name in own}


def named_folders(settings: Settings, names: Collection[str]) -> dict[Path, str]:
    """The folders of these names → their keys. A name that no folder has any more is passed over.

    Raises EnvironmentUnset for one whose path needs a variable that is not set.
    """
    known = cleanup_names(settings.command_stages)
    return {settings.path_of(known[name]): known[name] for name in names if name in known}
