"""The timeline of a report: what was at work when, of runs that went through, were stopped, killed and carried on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.report.timeline import WIDTH, Work, laid_out, works

START = datetime(2026, 11, 26, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def step(album: int, trigger: str, to_status: str, seconds: float, stage: str = "export") -> dict[str, str]:
    return {
        "subject": "album" if stage == "export" else "archive" if stage == "cleanup" else "stage_album",
        "subject_id": str(album),
        "stage": stage,
        "folder": f"Album {album}",
        "trigger": trigger,
        "to_status": to_status,
        "at": at(seconds).isoformat(),
    }


def test_an_album_is_at_work_from_its_start_to_its_end() -> None:
    found = works(
        [
            step(1, "create", "pending", 0, "cleanup"),
            step(1, "archive", "archiving", 1, "cleanup"),
            step(1, "clean", "done", 4, "cleanup"),
            step(1, "start", "exporting", 4),
            step(1, "complete", "done", 6),
            step(2, "start", "exporting", 6),
            step(2, "fail", "failed", 9),
            step(2, "retry", "pending", 20),
            step(2, "start", "exporting", 20),
            step(2, "complete", "done", 22),
        ],
        {},
    )
    told = [(each.lane, each.folder, each.begun, each.ended, each.outcome) for each in found]
    assert told == [
        ("cleanup", "Album 1", at(0), at(4), "done"),
        ("export", "Album 1", at(4), at(6), "done"),
        ("export", "Album 2", at(6), at(9), "failed"),
        ("export", "Album 2", at(20), at(22), "done"),
    ]


def test_a_killed_album_was_at_work_until_its_last_photo_and_not_until_it_was_carried_on() -> None:
    night = 8 * 3600
    (killed, again) = works(
        [
            step(1, "start", "exporting", 0),
            step(1, "interrupt", "pending", night),
            step(1, "start", "exporting", night),
            step(1, "complete", "done", night + 30),
        ],
        {"Album 1": [at(5), at(40), at(night + 10)]},
    )
    assert (killed.begun, killed.ended, killed.outcome) == (at(0), at(40), "stopped")
    assert (again.begun, again.ended, again.outcome) == (at(night), at(night + 30), "done")
    drawn = laid_out([killed, again], ["export"], {"Album 1": "Alps"})
    assert drawn.seconds == 70
    assert [round(seconds) for _, seconds in drawn.cuts] == [night - 40]
    assert [bar.title for bar in drawn.lanes[0].bars] == ["Alps", "Alps"]
    assert drawn.lanes[0].seconds == 70


def test_what_is_at_work_now_ends_with_its_last_photo() -> None:
    (only,) = works([step(1, "start", "exporting", 3)], {"Album 1": [at(9)]})
    assert (only.begun, only.ended, only.outcome) == (at(3), at(9), "at work")


times = st.tuples(st.integers(0, 200_000), st.integers(0, 5_000), st.sampled_from(["export", "scaling", "cleanup"]))


@settings(deadline=None, max_examples=60)
@given(st.lists(times, min_size=1, max_size=60))
def test_every_bar_lies_in_the_picture_and_keeps_its_order(spans: list[tuple[int, int, str]]) -> None:
    work = [
        Work(lane, str(number), at(begin), at(begin + length), "done")
        for number, (begin, length, lane) in enumerate(spans)
    ]
    drawn = laid_out(work, ["cleanup", "export"], {})
    assert [lane.name for lane in drawn.lanes] == [
        name for name in ("cleanup", "export", "scaling") if any(each.lane == name for each in work)
    ]
    assert sum(len(lane.bars) for lane in drawn.lanes) == len(work)
    for lane in drawn.lanes:
        for bar in lane.bars:
            assert bar.x >= 0
            assert bar.width > 0
            assert bar.x + bar.width <= WIDTH + 3
        places = [bar.x for bar in lane.bars]
        assert places == sorted(places)
    assert all(0 <= x <= WIDTH for x, _ in (*drawn.ticks, *drawn.cuts))
    assert 1 <= len(drawn.ticks) <= 10
