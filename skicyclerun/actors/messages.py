"""What the actors say to each other. Commands are imperatives, facts are in the past tense; all are frozen.

    config → RunConfigured → archiver → OutputsPutAway → exporter → PhotosCommitted, AlbumEnded, ExportEnded → cataloger

Nothing here is durable: a message that is lost with the process is found again in SQLite at the restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from skicyclerun.settings.models import Settings
from skicyclerun.sources.photo_choice import PhotoChoice
from skicyclerun.state.albums import AlbumRow
from skicyclerun.state.runs import RunRow
from skicyclerun.state.stage_albums import StageAlbumRow


class Intent(StrEnum):
    """What the person asked for."""

    FRESH = "fresh"
    RESUME = "resume"
    RETRY_FAILED = "retry_failed"


@dataclass(frozen=True, slots=True)
class ConfigureRun:
    """To the config actor: check what the stages need, make the folders, enter or reopen the run."""

    intent: Intent
    settings: Settings
    stages: tuple[str, ...]
    selection: tuple[str, ...]
    """--album patterns; empty for all."""
    abandon_unfinished: bool = False
    """Fresh only: an unfinished run was given up knowingly."""
    force_clean: bool = False
    """`--stages cleanup --force-clean`: empty the folders although no export follows."""
    stage_options: Mapping[str, Any] = field(default_factory=dict)
    """What the command line says to stages alone (`sweep_limit`, …); kept in the run's row."""
    retry_stages: tuple[str, ...] | None = None
    """retry-failed: only these stages; None for all."""
    may_empty: bool = False
    """Somebody has said yes to folders being emptied, once they are archived."""
    choice: PhotoChoice = field(default_factory=PhotoChoice)
    """Fresh only: what of the source is taken, its days fixed."""


@dataclass(frozen=True, slots=True)
class RunConfigured:
    """To the archiver: the run is entered, its folders are there."""

    command: ConfigureRun
    run: RunRow | None
    """None when only the cleanup stage was asked for."""
    retry_albums: tuple[int, ...] = ()
    """Row ids of the albums that retry-failed made pending again; empty: all pending ones."""


@dataclass(frozen=True, slots=True)
class OutputsPutAway:
    """To the exporter: whatever had to be archived and cleaned is; the export may begin."""

    configured: RunConfigured


@dataclass(frozen=True, slots=True)
class PhotosCommitted:
    """To the cataloger: the rows of a group are committed, `photos` of them exported and durable."""

    run_id: int
    photos: int


@dataclass(frozen=True, slots=True)
class AlbumEnded:
    """To the cataloger: an album is done, failed, or pending again."""

    album: AlbumRow


class Ending(StrEnum):
    """How the export, or a stage after it, came to its end in a run."""

    COMPLETE = "complete"
    """Every album is done or failed."""
    DRAINED = "drained"
    """A signal asked to stop; what is left is pending."""
    OUT_OF_TIME = "out_of_time"
    """Its `timeouts.run` is up; what is left is pending."""
    PAUSED = "paused"
    """Too many failures in a row; what is left is pending."""


@dataclass(frozen=True, slots=True)
class ExportEnded:
    """To the cataloger: the last word of the exporter; the catalog is written once more."""

    run: RunRow
    ending: Ending


@dataclass(frozen=True, slots=True)
class AlbumReady:
    """To the next stage: the one before has ended its work on this album, well or not; take what is there."""

    folder: str
    title: str
    """With the folders of the library, for people."""
    number: int
    of: int


@dataclass(frozen=True, slots=True)
class PicturesCommitted:
    """To the cataloger: a group of a stage is durable and its rows are committed."""

    stage: str
    pictures: int


@dataclass(frozen=True, slots=True)
class StageAlbumEnded:
    """To the cataloger: an album of a stage is done, failed, or pending again."""

    album: StageAlbumRow


@dataclass(frozen=True, slots=True)
class StageEnded:
    """To the cataloger: the last word of a stage."""

    stage: str
    ending: Ending
    because: str = ""
    """Why it was paused."""


CatalogerMessage = PhotosCommitted | AlbumEnded | ExportEnded | PicturesCommitted | StageAlbumEnded | StageEnded
