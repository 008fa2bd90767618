"""When a run worked on what: a lane for the cleanup, the export and each stage, a bar for each album.

Times in which nothing was at work (the run was stopped, and carried on the next day) are cut out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Row, Store

#: Of the view box.
WIDTH: Final = 1000
#: Times without any work that are longer than this, and than this share of the work, are cut out.
_LONG_SECONDS: Final = 60.0
_LONG_SHARE: Final = 0.08
_CUT_WIDTH: Final = 26.0
_LEAST_BAR: Final = 2.0
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class Work:
    """Something was at work from one moment to another."""

    lane: str
    folder: str
    begun: datetime
    ended: datetime
    outcome: str
    """`done`, `failed`, `stopped` or `at work`."""


@dataclass(frozen=True, slots=True)
class Bar:
    """In units of the view box."""

    x: float
    width: float
    work: Work
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One stage. Its time is that in which at least one album was at work there."""

    name: str
    bars: tuple[Bar, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """What is drawn, from left to right."""

    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, float], ...]
    """Place in the view box, seconds of work until there."""
    cuts: tuple[tuple[float, float], ...]
    """Place of the middle of a cut, seconds that it leaves out."""
    begun: datetime
    ended: datetime
    seconds: float
    """Without what is cut out."""


async def timeline_of(store: Store, run: RunRow, titles: Mapping[str, str]) -> Timeline | None:
    """None of a run that has not begun to work."""
    where = {"run_id": run.id}
    progress: dict[str, list[datetime]] = defaultdict(list)
    for row in await store.all("last_progress_of_albums", where):
        progress[row["folder"]].append(_time(row["at"]))
    work = works(await store.all("transitions_of_run", where), progress)
    return laid_out(work, run.stages, titles) if work else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def works(transitions: Iterable[Row | Mapping[str, str]], progress: Mapping[str, Sequence[datetime]]) -> list[Work]:
    """The transitions of a run, oldest first, as times of work.

    A killed run says only when it is carried on that it had been stopped; its last photo tells when it worked last.
    """
    begun_works: dict[tuple[str, int], tuple[datetime, str, str]] = {}
    found: list[Work] = []
    for row in transitions:
        subject, at = row["subject"], _time(row["at"])
        key = (subject, int(row["subject_id"]))
        started = row["trigger"] == "create" if subject == "archive" else row["trigger"] == "start"
        if started:
            begun_works[key] = (at, row["stage"], row["folder"])
        elif key in begun_works and not (subject == "archive" and row["to_status"] not in ("done", "failed")):
            begun, stage, folder = begun_works.pop(key)
            outcome = {"done": "done", "failed": "failed"}.get(row["to_status"], "stopped")
            ended = at
            if outcome == "stopped":
                times = progress.get(row["folder"], ())
                index = bisect_left(times, at)
                ended = max(begun, times[index - 1]) if index else begun
            found.append(Work(stage, folder, begun, ended, outcome))
    for begun, stage, folder in begun_works.values():
        latest = max([begun, *(work.ended for work in found), *progress.get(folder, ())])
        found.append(Work(stage, folder, begun, latest, "at work"))
    return found


def laid_out(work: Sequence[Work], order: Sequence[str], titles: Mapping[str, str]) -> Timeline:
    """Lanes in the order of the run's stages."""
    busy = _merged((each.begun, each.ended) for each in work)
    seconds = sum((end - begin).total_seconds() for begin, end in busy)
    limit = max(_LONG_SECONDS, seconds * _LONG_SHARE)
    spans: list[tuple[datetime, datetime]] = []
    for begin, end in busy:
        if spans and (begin - spans[-1][1]).total_seconds() <= limit:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((begin, end))
    shown = max(sum((end - begin).total_seconds() for begin, end in spans), 0.001)
    scale = (WIDTH - _CUT_WIDTH * (len(spans) - 1)) / shown if len(spans) < WIDTH / _CUT_WIDTH / 2 else 0.0
    if scale <= 0:  # stopped so often that the cuts would leave no room
        spans = [(spans[0][0], spans[-1][1])]
        shown = max((spans[0][1] - spans[0][0]).total_seconds(), 0.001)
        scale = WIDTH / shown

    def at(moment: datetime) -> float:
        x = 0.0
        for begin, end in spans:
            if moment <= end:
                return min(x + max((moment - begin).total_seconds(), 0.0) * scale, float(WIDTH))
            x += (end - begin).total_seconds() * scale + _CUT_WIDTH
        return float(WIDTH)

    names = [name for name in order if any(each.lane == name for each in work)]
    names += sorted({each.lane for each in work} - set(names))
    lanes = []
    for name in names:
        mine = [each for each in work if each.lane == name]
        bars = []
        for each in sorted(mine, key=lambda one: one.begun):
            x = min(at(each.begun), WIDTH - _LEAST_BAR)
            bars.append(Bar(x, max(at(each.ended) - x, _LEAST_BAR), each, titles.get(each.folder, each.folder)))
        total = sum((end - begin).total_seconds() for begin, end in _merged((one.begun, one.ended) for one in mine))
        lanes.append(Lane(name, tuple(bars), total))
    cuts, x = [], 0.0
    for (begin, end), (after, _) in pairwise(spans):
        x += (end - begin).total_seconds() * scale
        cuts.append((x + _CUT_WIDTH / 2, (after - end).total_seconds()))
        x += _CUT_WIDTH
    ticks = tuple(_ticks(spans, shown, at))
    return Timeline(tuple(lanes), ticks, tuple(cuts), spans[0][0], spans[-1][1], shown)


def _ticks(
    spans: Sequence[tuple[datetime, datetime]], shown: float, at: Callable[[datetime], float]
) -> Iterator[tuple[float, float]]:
    """Round times of work, at most nine of them."""
    step = next((each for each in _STEPS if shown / each <= 8), _STEPS[-1] * max(1, round(shown / _STEPS[-1] / 6)))
    wanted = 0.0
    while wanted <= shown:
        left = wanted
        for begin, end in spans:
            length = (end - begin).total_seconds()
            if left <= length:
                yield at(begin + timedelta(seconds=left)), wanted
                break
            left -= length
        wanted += step


def _merged(times: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Overlapping times as one."""
    merged: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(times):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged
