"""What came of an album or a stage, in numbers: one form for plain lines and for the live display."""

from __future__ import annotations

from collections.abc import Iterable

from skicyclerun.progress.events import EXPORT, AlbumFinished, StageDone


def album_in_counts(event: AlbumFinished) -> str:
    """`4 exported, 1 missing`; of a stage after the export `4 made, 2 failed, 1 waiting, 9 up to date`."""
    if event.stage == EXPORT:
        return _joined(f"{event.exported} exported", ((event.failed, "failed"), (event.missing, "missing")))
    return _joined(
        f"{event.exported - event.up_to_date} made",
        ((event.failed, "failed"), (event.missing, "waiting"), (event.up_to_date, "up to date")),
    )


def stage_in_counts(stage: StageDone) -> str:
    """`13 made, 0 failed`, and behind it what else there is: `2 waiting, 9 up to date, 1 left out`."""
    return _joined(
        f"{stage.made} made, {stage.failed} failed",
        ((stage.waiting, "waiting"), (stage.up_to_date, "up to date"), (stage.left_out, "left out")),
    )


def _joined(first: str, others: Iterable[tuple[int, str]]) -> str:
    return ", ".join([first, *(f"{count} {word}" for count, word in others if count)])
