"""What a run tells the person who watches it. Facts for display only: dropping one loses nothing but a line.

Names, titles and reasons come from libraries and file systems and may hold any character; each renderer makes them
safe for where it writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeAlias

from skicyclerun.models import Waiting

Outcome: TypeAlias = Literal["exported", "failed", "missing", "skipped", "kept"]
"""What became of a photo: `kept` was exported before and is still right, `skipped` is left out by a setting."""

ArchivePhase: TypeAlias = Literal["writing", "proving", "cleaning"]

Level: TypeAlias = Literal["info", "warning", "error"]

#: The stage that an event of an album or a photo is of, unless it says another.
EXPORT: Final = "export"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins, or carries on."""

    run_id: int
    albums: int
    photos: int | None
    """How many photos this run will report on; None where the source cannot tell before the albums are opened."""
    source: str


@dataclass(frozen=True, slots=True)
class AlbumStarted:
    """Album `number` of `of` begins; `photos` is how many it is expected to hold.

    `title`, here and in `AlbumFinished`, has the folders of the library it lies in before it: two albums may have one
    title.
    """

    number: int
    of: int
    title: str
    photos: int
    stage: str = EXPORT


@dataclass(frozen=True, slots=True)
class PhotoFinished:
    """The `number`-th of the album's `of` photos to be accounted for; in order of arrival, not of the album."""

    album_number: int
    albums: int
    number: int
    of: int
    name: str
    outcome: Outcome
    size: int
    """Bytes written; 0 where nothing was."""
    reason: str = ""
    stage: str = EXPORT


@dataclass(frozen=True, slots=True)
class AlbumFinished:
    """An album has come to an end, `done` or `failed` (`status`), or was interrupted (`pending`)."""

    number: int
    of: int
    title: str
    status: str
    exported: int
    """Photos that are there now; of a stage after the export, pictures it has made, now or earlier."""
    failed: int
    missing: int
    """Photos that have no original here; of a stage after the export, pictures waiting for the stage before."""
    reason: str
    seconds: float
    stage: str = EXPORT
    up_to_date: int = 0
    """So many of `exported` were made earlier and are still right; told by the stages after the export."""


@dataclass(frozen=True, slots=True)
class StageFinished:
    """No album comes to this stage any more; the others go on."""

    stage: str
    complete: bool
    """False where a signal, the time or too many failures in a row left albums undone."""


@dataclass(frozen=True, slots=True)
class ArchiveProgress:
    """How far the archiver is: bytes of the phase, and the file in hand."""

    phase: ArchivePhase
    done_bytes: int
    total_bytes: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the person."""

    text: str
    level: Level = "info"


@dataclass(frozen=True, slots=True)
class StageDone:
    """What came of one stage after the export: pictures, counted over the albums it has come to."""

    name: str
    made: int
    """In this run."""
    up_to_date: int
    failed: int
    waiting: int
    """For the stage before."""
    left_out: int
    complete: bool = True
    """False where albums were left undone: a signal, the time, too many failures in a row."""


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Albums of the export by status, what this run exported, how long it took, and the stages that came after."""

    done: int
    failed: int
    pending: int
    exported: int
    seconds: float
    stages: tuple[StageDone, ...] = ()
    counts_in: str = "photo"
    """What `exported` counts; see `RunRow.counts_in`."""

    @property
    def tells_of_export(self) -> bool:
        """False for a run of stages alone: it has no albums of its own to count."""
        return not self.stages or bool(self.done or self.failed or self.pending or self.exported)


ProgressEvent: TypeAlias = (
    RunStarted
    | AlbumStarted
    | PhotoFinished
    | AlbumFinished
    | StageFinished
    | ArchiveProgress
    | Waiting
    | Notice
    | RunFinished
)


class Renderer(Protocol):
    """Shows events. Neither method ever raises for a stream that has gone away: a run outlives its terminal."""

    def handle(self, event: ProgressEvent) -> None:
        """Show one event. Called from one thread at a time."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was. Safe to call twice."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()
