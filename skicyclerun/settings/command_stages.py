"""A command of the user's own as a stage: one entry of the section `stages`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator

from skicyclerun.settings.file import show
from skicyclerun.settings.placeholders import late_names
from skicyclerun.settings.section import Seconds, StageSection, Text, Texts
from skicyclerun.stages.registry import STAGES
from skicyclerun.stages.stage import Stage

#: What is filled into the command for each picture, or for each album. Known only then.
PICTURE_NAMES: Final = frozenset({"input", "output"})
ALBUM_NAMES: Final = frozenset({"album_input", "album_output"})

#: The key of `paths` for the files of our stages, where a command takes the place of one.
OUTPUT_KEYS: Final = {stage.name: stage.output for stage in STAGES if stage.output}

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_EXTENSION: Final = re.compile(r"\.[a-z0-9]{1,10}")
_NOT_TO_BE_REPLACED: Final = ("cleanup", "export")


class CommandStageSettings(StageSection):
    """What is run for each picture or album, and what its results depend on."""

    command: Texts
    """The program and its arguments, each a template for `placeholders.fill_in` with the names of its kind."""
    reads: Text = "export"
    """The stage whose files it takes."""
    output_folder: Path
    """Absolute."""
    extension: Text = ".jpg"
    """Of the files it makes."""
    timeout_seconds: Seconds = 120.0
    """For one command; it is then ended. Also `timeouts.photo` (of a command for albums: `timeouts.album`) where that
    is not given."""
    at_once: int = Field(default=1, ge=1, le=64)
    """Commands at once, where `workers` does not say."""
    version: int = Field(default=1, ge=1, le=1_000_000)
    """Raised by the user when the command makes other results of the same picture."""

    @property
    def per(self) -> Literal["picture", "album"]:
        """What the command is run for, once each."""
        return "picture" if _names(self.command) == PICTURE_NAMES else "album"

    @field_validator("extension")
    @classmethod
    def _with_its_dot(cls, extension: str) -> str:
        if not _EXTENSION.fullmatch(extension):
            raise ValueError(f"must be a dot and up to 10 of a to z and 0 to 9, not {show(extension)}")
        return extension

    @field_validator("command")
    @classmethod
    def _of_one_kind(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if not command:
            raise ValueError("names no program")
        if _names(command) not in (PICTURE_NAMES, ALBUM_NAMES):
            raise ValueError("must hold both {input} and {output}, or both {album_input} and {album_output}, not a mix")
        return command


def _names(command: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*(late_names(template) for template in command))


def wrong_name(name: str) -> str:
    """Why a stage of the user's own cannot be called that, empty if it can."""
    if name in _NOT_TO_BE_REPLACED:
        return "no command can take the place of this stage"
    if not _NAME.fullmatch(name):
        return "a stage's name is up to 40 of a to z, 0 to 9 and _, and begins with a letter"
    return ""


def output_key(name: str) -> str:
    """What the output folder is called where a stage names keys (`Settings.path_of`), and in errors."""
    return f"stages.{name}.output_folder"


def as_stages(commands: Iterable[tuple[str, CommandStageSettings]]) -> tuple[Stage, ...]:
    """The commands as stages, without a recipe."""
    return tuple(
        Stage(
            name,
            "runs a command of your own",
            needs_paths=("pipeline_base", "metadata_dir", "master_catalog", "state_db", output_key(name)),
            makes_paths=("metadata_dir", "master_catalog", "state_db", output_key(name)),
            section=f"stages.{name}",
            settings=CommandStageSettings,
            version=settings.version,
            reads=settings.reads,
            output=output_key(name),
            entry_type=name,
        )
        for name, settings in commands
    )
