"""What every section of the configuration shares: the base of the models, and the types of their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

#: A text of the configuration is no longer than this, before and after its placeholders are resolved; Linux's PATH_MAX.
MAX_LENGTH: Final = 4096


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, no conversions (`\"true\"` is not a bool)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def listed(value: object) -> object:
    """JSON's lists are tuples here, so that settings cannot be changed."""
    return tuple(value) if isinstance(value, list) else value


Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LENGTH)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(listed)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]


class Retries(Section):
    """How a failure that may pass is met."""

    attempts: int = Field(default=3, ge=1, le=100)
    """Tries a photo gets in one run, the first included."""
    backoff_seconds: float = Field(default=2.0, ge=0, le=3600, allow_inf_nan=False)
    """Before the second try; doubled before each further one."""
    pause_after: int = Field(default=10, ge=1, le=100_000)
    """Consecutive transient failures after which the source, or the stage, is paused."""


class StageTimeouts(Section):
    """Seconds; of a stage after the export."""

    photo: Seconds = 120.0
    album: Seconds = 3600.0
    """Without progress."""
    album_total: Seconds = 86_400.0
    run: Seconds = 86_400.0


class StageSection(Section):
    """What the section of every stage after the export has. `extra` of existing files is named and left alone."""

    templates: ClassVar[frozenset[str]] = frozenset()
    """Keys below the section (`copyright_line.format`) whose texts are the stage's own templates: their placeholders
    are not those of the configuration and are left to the stage."""

    of_this_process: ClassVar[frozenset[str]] = frozenset()
    """Keys that say how the stage goes about it and change no result: a resumed run takes them as they are now."""

    as_it_is_now: ClassVar[bool] = False
    """Whether a resumed run takes the whole section as it is now: it says where results go, and what is there already
    is known by place, so that nothing is lost by it, and what stopped the run may be put right here."""

    no_secrets: ClassVar[bool] = False
    """Whether credentials in it are refused (`written_secrets.py`)."""

    def doubts(self) -> Mapping[str, str]:
        """What is allowed and looks like a slip, by the key below the section; the rest of a sentence."""
        return {}

    enabled: bool = True
    """False: a run that goes through `pipeline.stages` leaves this stage out."""
    workers: int = Field(default=0, ge=0, le=64)
    """Pictures at once; 0: as the stage thinks best."""
    timeouts: StageTimeouts = StageTimeouts()
    retries: Retries = Retries()
