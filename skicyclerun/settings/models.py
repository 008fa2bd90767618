"""The shape of a configuration: every section, key, type, limit and default, and what a checked one looks like.

Adding a key is one line here, one in config/pipeline_config.json and one row in docs/configuration.md; tests hold the
three to each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator

from skicyclerun.errors import ConfigError, EnvironmentUnset
from skicyclerun.settings.carried import merged
from skicyclerun.settings.command_stages import CommandStageSettings, as_stages, output_key
from skicyclerun.settings.days import days_of
from skicyclerun.settings.dotenv_file import Variables
from skicyclerun.settings.foreign_keys import format_meant
from skicyclerun.settings.placeholders import fill_in
from skicyclerun.settings.section import Retries, Seconds, Section, StageSection, Text, Texts
from skicyclerun.settings.written_secrets import hidden_secrets
from skicyclerun.stages.registry import section_models
from skicyclerun.stages.stage import Stage


class PipelineSettings(Section):
    """What a run does when `--stages` does not say."""

    stages: Texts = ("cleanup", "export")

    @field_validator("stages")
    @classmethod
    def _some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("names no stage")
        return names


class PathTexts(Section):
    """The texts of our keys of `paths`, placeholders and all; `Paths` holds what they resolve to."""

    lib_root: Text = "${SKICYCLERUN_LIB_ROOT}"
    pipeline_base: Text = "{lib_root}/pipeline"
    apple_photos_export: Text = "{pipeline_base}/albums"
    preprocessed: Text = "{pipeline_base}/scaled"
    lora_processed: Text = "{pipeline_base}/lora_processed"
    watermarked_final: Text = "{pipeline_base}/watermarked_final"
    metadata_dir: Text = "{lib_root}/metadata"
    master_catalog: Text = "{metadata_dir}/master.json"
    geocode_cache: Text = "{metadata_dir}/geocode_cache.json"
    archive: Text = "{lib_root}/archive"
    huggingface_cache: Text = "{lib_root}/huggingface_cache"
    state_db: Text = "{lib_root}/state/skicyclerun.sqlite3"


class Timeouts(Section):
    """Seconds."""

    photo: Seconds = 120.0
    movie: Seconds = 600.0
    per_mb: float = Field(default=1.0, ge=0, le=3600, allow_inf_nan=False)
    """On top of `photo` and `movie`, for each megabyte where the size is known."""
    album: Seconds = 600.0
    """Without progress."""
    album_total: Seconds = 14_400.0
    run: Seconds = 3600.0


class FilterSettings(Section):
    """Which photos of the albums and groups are exported; all of these have to be met."""

    since: Text | None = None
    until: Text | None = None
    favorites: bool = False
    keywords: Texts = ()
    """Any of them."""
    persons: Texts = ()
    """Any of them."""
    media: Literal["photo", "video"] | None = None
    min_size: int | None = Field(default=None, ge=1, le=1_000_000)
    """Pixels of the longer side."""
    not_screenshots: bool = False
    hidden: bool = False
    """Also hidden photos."""

    @field_validator("since", "until")
    @classmethod
    def _a_day(cls, text: str | None) -> str | None:
        if text is not None:
            days_of(text, date(2000, 1, 1))
        return text


class ExportSettings(Section):
    """What is exported, and how."""

    enabled: bool = True
    source: Literal["auto", "apple_photos", "photos_library", "folder"] = "auto"
    library: Path | None = None
    albums: Texts = ()
    exclude: Texts = ()
    everything: bool = False
    group_by: Literal["year", "month", "day", "place"] = "month"
    """How the photos of `everything` are put together."""
    not_in_albums: bool = False
    """Of `everything` only what is in no album."""
    filters: FilterSettings = FilterSettings()
    format: Annotated[Literal["jpeg", "original"], BeforeValidator(format_meant)] = "jpeg"
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    missing: Literal["fail", "skip", "preview"] = "fail"
    live_photos: bool = False
    person_keywords: bool = False
    videos: bool = True
    mode: Literal["fresh", "update"] = "fresh"
    removed_files: Literal["export_again", "leave_out"] = "export_again"
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    restart_photos: bool = False
    script_path: Text | None = None
    """As it is written, placeholders resolved; `sources.photos_app_script` looks for it."""
    workers: int = Field(default=0, ge=0, le=64)
    group_photos: int = Field(default=32, ge=1, le=10_000)
    group_seconds: float = Field(default=1.0, gt=0, le=3600, allow_inf_nan=False)
    max_pixels: int = Field(default=300_000_000, ge=1, le=10_000_000_000)
    sidecar: Literal["none", "xmp", "json"] = "none"
    keep_original: bool = False
    strip_location: bool = False
    max_size: int = Field(default=0, ge=0, le=65_500)
    """Pixels of the longer side; 0: as large as they are."""
    duplicates: Literal["copy", "hardlink", "clone"] = "copy"

    @field_validator("strip_location", "keep_original", "max_size")
    @classmethod
    def _fits_the_rest(cls, value: int, info: ValidationInfo) -> int:
        """Of two settings that contradict each other neither is quietly passed over."""
        told = info.data
        if value and info.field_name == "strip_location" and told.get("keep_original"):
            raise ValueError("cannot be true while export.keep_original is: an original holds its position")
        if value and info.field_name == "strip_location" and told.get("group_by") == "place":
            raise ValueError("cannot be true while export.group_by is place: the folders would say where")
        if value and info.field_name in ("strip_location", "max_size") and told.get("format") == "original":
            raise ValueError("has no effect on originals, which export.format passes on byte for byte; leave it out")
        return value


class RemoteService(Section):
    """The S3 service that a `cleanup.remote` of the form s3://… is at. Credentials are never named here."""

    endpoint_url: Text | None = None
    aws_profile: Text | None = None
    region: Text | None = None


class CleanupSettings(Section):
    """What happens to old outputs before a fresh export."""

    enabled: bool = True
    archive_old_outputs: bool = True
    folders: Texts | None = None
    """Those that are put away, by any of `cleanup_folders.cleanup_names`; None: those that the run makes anew."""
    keep: Texts = ()
    """Of these the ones that are archived and stay as they are."""
    archive_retention_days: int = Field(default=0, ge=0, le=36_500)
    keep_last: int = Field(default=1, ge=1, le=100_000)
    remote: Text | None = None
    """In `Settings`: the one spelling of `ArchiveUrl`."""
    remote_service: RemoteService = RemoteService()
    keep_local: bool = True
    remote_timeout: Seconds = 120.0
    remote_wait: Seconds = 300.0


class LoggingSettings(Section):
    """The log file of a run, and what goes to the terminal."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    file: Text = "{lib_root}/logs/pipeline_{timestamp}.log"
    """In `Settings`: absolute, every placeholder resolved but `{timestamp}`; `Settings.log_file` fills it in."""
    console: bool = True
    """False: of the progress only warnings, errors and failed albums go to the terminal."""


class ReportSettings(Section):
    """The page that shows what a run did."""

    html: bool = False
    """Make it at the end of every run."""
    file: Path | None = None
    """None: `report.html` in lib_root."""
    map: bool = True
    """False: nothing on it says where a photo was taken."""


#: Our sections, in the order in which `config show` prints them.
SECTIONS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {
        "pipeline": PipelineSettings,
        "paths": PathTexts,
        "export": ExportSettings,
        "cleanup": CleanupSettings,
        "logging": LoggingSettings,
        "report": ReportSettings,
    }
)
#: Keys of `paths` that a cleanup archives and empties.
EMPTIED_KEYS: Final = ("apple_photos_export", "lora_processed", "metadata_dir")


class _PathKey:
    """An attribute of `Paths`: its own name is the key."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Paths, owner: type) -> Path:
        return instance.of(self._name)


class Paths:
    """The resolved paths, absolute. One that needs an environment variable which is not set, and that no requested
    stage asks for, raises its EnvironmentUnset when it is read."""

    pipeline_base = _PathKey()
    apple_photos_export = _PathKey()
    preprocessed = _PathKey()
    lora_processed = _PathKey()
    watermarked_final = _PathKey()
    metadata_dir = _PathKey()
    master_catalog = _PathKey()
    geocode_cache = _PathKey()
    archive = _PathKey()
    huggingface_cache = _PathKey()
    state_db = _PathKey()

    def __init__(self, resolved: Mapping[str, Path], deferred: Mapping[str, EnvironmentUnset]) -> None:
        self._resolved = dict(resolved)
        self._deferred = dict(deferred)

    def of(self, key: str) -> Path:
        """The path of one of our keys. Raises EnvironmentUnset, and KeyError for a key that is not ours."""
        if key in self._deferred:
            raise self._deferred[key]
        return self._resolved[key]

    def resolved(self) -> dict[str, Path]:
        """Those that could be resolved, by key."""
        return dict(self._resolved)


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked configuration; nothing in it changes."""

    lib_root: Path
    file: Path
    """The configuration file it comes from."""
    pipeline: PipelineSettings
    paths: Paths
    export: ExportSettings
    cleanup: CleanupSettings
    logging: LoggingSettings
    report: ReportSettings = field(default_factory=ReportSettings)
    stages: Mapping[str, StageSection] = field(default_factory=dict)
    """The sections of the stages, by the section's name."""
    command_stages: Mapping[str, CommandStageSettings] = field(default_factory=dict)
    """The user's own stages, by name."""
    carried: dict[str, Any] = field(default_factory=dict)
    """What is not ours, as it was read: other sections by name; keys of our sections that are not ours (`_comment`,
    further `paths`) under the name of their section."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is allowed and looks like a slip."""
    problems: tuple[ConfigError, ...] = ()
    """What a run refuses and whoever loaded the settings can do without; the defaults stand in its place."""
    unneeded: tuple[ConfigError, ...] = ()
    """What is wrong in sections that no requested stage has."""
    variables: Variables = field(default_factory=lambda: Variables(os.environ), repr=False)
    """The environment and the `.env`, and which of them the configuration refers to."""

    @property
    def log_folder(self) -> Path:
        """The folder of the log files."""
        return Path(fill_in(self.logging.file, timestamp="")).parent

    @property
    def report_file(self) -> Path:
        """The page that shows what a run did, unless the command line names another."""
        return self.report.file or self.lib_root / "report.html"

    def log_file(self, timestamp: str) -> Path:
        """The log file of the run that began at `timestamp` (text that can stand in a file name)."""
        if "/" in timestamp or "\0" in timestamp:
            raise ValueError(f"{timestamp!r} cannot stand in a file name")
        return Path(fill_in(self.logging.file, timestamp=timestamp))

    def path_of(self, key: str) -> Path:
        """A path by its key in `paths`; `raw_input` is `apple_photos_export`. Raises EnvironmentUnset.

        Also that of a stage of the user's own, by `stages.NAME.output_folder`.
        """
        for name, stage in self.command_stages.items():
            if key == output_key(name):
                return stage.output_folder
        return self.paths.of("apple_photos_export" if key == "raw_input" else key)

    def own_stages(self) -> tuple[Stage, ...]:
        """The user's own stages, for `parse_stages`; they have no recipe."""
        return as_stages(self.command_stages.items())

    def as_json(self) -> dict[str, Any]:
        """The whole configuration with every placeholder of ours resolved, as `config show` prints it.

        But for variables that look like secrets, which stay as they are written, and secrets, which are hidden.
        """
        paths = {key: str(path) for key, path in {"lib_root": self.lib_root, **self.paths.resolved()}.items()}
        ours: dict[str, Any] = {
            name: paths if name == "paths" else getattr(self, name).model_dump(mode="json") for name in SECTIONS
        }
        ours |= {name: section.model_dump(mode="json") for name, section in self.stages.items()}
        if self.command_stages:
            ours["stages"] = {name: stage.model_dump(mode="json") for name, stage in self.command_stages.items()}
        return hidden_secrets(self.variables.hidden(merged(ours, self.carried)))


def default_config() -> dict[str, Any]:
    """The defaults of the models, placeholders unresolved."""
    ours = {name: model().model_dump(mode="json") for name, model in SECTIONS.items()}
    return ours | {name: _said(model().model_dump(mode="json")) for name, model in section_models().items()}


def _said(section: dict[str, Any]) -> dict[str, Any]:
    """A stage's section without what has no default: keys that are there for the sake of older files."""
    said = {key: _said(value) if isinstance(value, dict) else value for key, value in section.items()}
    return {key: value for key, value in said.items() if value is not None and value != {}}


def default_config_text() -> str:
    """What `config init` writes, and what is shipped as config/pipeline_config.json."""
    return json.dumps(default_config(), indent=2, ensure_ascii=False) + "\n"
