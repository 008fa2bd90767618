"""One album's work by a clock of its own: what is put off, when the album's time is up, whose fault a refusal is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import anyio
import pytest

from skicyclerun.actors.album_work import AlbumWork, AtOnce, Reached, TransientStreak, WorkLimits
from skicyclerun.errors import (
    PhotoError,
    PhotoGone,
    PhotoRefused,
    PhotoSlow,
    PhotoTimedOut,
    PhotoTransient,
    SkicyclerunError,
    SourceStopped,
)
from skicyclerun.run.pipeline import unwrapped
from tests.virtual_time import run_in_virtual_time

LIMITS = WorkLimits(
    section="export",
    workers=1,
    group_photos=100,
    group_seconds=1.0,
    photo_seconds=120.0,
    album_seconds=600.0,
    album_total_seconds=14_400.0,
    attempts=3,
    backoff_seconds=2.0,
    pause_after=10,
)

#: What an attempt does: seconds that it takes, then nothing or an error.
Attempt = tuple[float, SkicyclerunError | None]


def slow(name: str) -> PhotoSlow:
    return PhotoSlow(f"{name}: no answer within the time given.")


def refused(number: int, kind: type[PhotoError] = PhotoRefused) -> PhotoError:
    error = kind(f"Photos would not export it: ({number}).")
    error.if_every = SourceStopped(f"The AppleScript failed: ({number}).", next_step="please report it")
    return error


def taking(seconds: float, names: Sequence[str]) -> dict[str, list[Attempt]]:
    return {name: [(seconds, None)] for name in names}


@dataclass
class Played:
    """Work that takes the time and has the outcome that a test says; the last attempt said is played again."""

    attempts: dict[str, list[Attempt]]
    longer: dict[str, float] = field(default_factory=dict)
    """Seconds that an attempt says it is given."""
    done: list[str] = field(default_factory=list)
    """Names as they were tried, in order."""
    settled: dict[str, str] = field(default_factory=dict)
    """Name → `done`, or why not."""
    expect: Callable[[float], None] = lambda seconds: None
    before: Callable[[str], Awaitable[None]] | None = None

    def name_of(self, item: str) -> str:
        return item

    async def attempt(self, item: str, number: int) -> tuple[str, str]:
        self.done.append(item)
        if item in self.longer:
            self.expect(self.longer[item])
        said = self.attempts.get(item, [(1.0, None)])
        seconds, error = said[min(number, len(said)) - 1]
        await anyio.sleep(seconds)
        if error is not None:
            raise error
        return item, "done"

    def failed(self, item: str, error: Exception, reason: str, attempts: int) -> tuple[str, str]:
        return item, reason

    def raise_if_ours(self, error: OSError) -> None:
        """Nothing is."""

    async def settle(self, group: Sequence[tuple[str, str]]) -> None:
        self.settled |= dict(group)


@dataclass
class Ended:
    played: Played
    work: AlbumWork[str, tuple[str, str]]
    seconds: float
    error: BaseException | None
    streak: TransientStreak


def work_through(
    items: Sequence[str],
    plays: dict[str, list[Attempt]] | None = None,
    *,
    longer: dict[str, float] | None = None,
    has_worked: bool = False,
    **limits: float,
) -> Ended:
    """Do an album's items in virtual time."""

    async def main() -> Ended:
        played = Played(plays or {}, longer or {})
        wanted = replace(LIMITS, **limits)  # type: ignore[arg-type]  # the tests name its fields
        streak = TransientStreak(wanted.pause_after, lambda count, last: SourceStopped(f"{count} in a row: {last}"))
        streak.has_worked = has_worked
        work = AlbumWork(played, wanted, streak, lambda: False)
        played.expect = work.expect
        error: BaseException | None = None
        try:
            await work.run(items)
        except BaseExceptionGroup as group:
            error = unwrapped(group)
        return Ended(played, work, anyio.current_time(), error, streak)

    return run_in_virtual_time(main)


# ── slow ones come last ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_slow_photo_is_tried_again_once_the_others_are_done() -> None:
    ended = work_through("abc", {"a": [(120.0, slow("a")), (1.0, None)]})
    assert ended.played.done == ["a", "b", "c", "a"]
    assert ended.played.settled == dict.fromkeys("abc", "done")
    assert not ended.work.timed_out


def test_several_slow_photos_keep_their_order_and_each_has_its_attempts() -> None:
    plays: dict[str, list[Attempt]] = {
        "a": [(120.0, slow("a"))],
        "c": [(120.0, slow("c")), (120.0, slow("c")), (1.0, None)],
    }
    ended = work_through("abcd", plays)
    assert ended.played.done == ["a", "b", "c", "d", "a", "c", "a", "c"]
    assert ended.played.settled["c"] == "done"
    assert ended.played.settled["a"] == "a: no answer within the time given. Tried 3 times."


def test_one_slow_download_does_not_eat_the_albums_time() -> None:
    many = [str(number) for number in range(100)]
    ended = work_through(
        ["huge", *many, "late"],
        {"huge": [(599.0, slow("huge")), (500.0, None)], **taking(100.0, many)},
    )
    assert not ended.work.timed_out
    assert set(ended.played.settled.values()) == {"done"}
    assert ended.seconds > 100 * 100


def test_a_failure_that_may_pass_is_tried_again_at_once_as_ever() -> None:
    ended = work_through("ab", {"a": [(1.0, PhotoTransient("busy.")), (1.0, None)]})
    assert ended.played.done == ["a", "a", "b"]


def test_a_picture_of_a_stage_that_took_too_long_is_not_tried_again() -> None:
    ended = work_through("ab", {"a": [(120.0, PhotoTimedOut("it took longer than 120 s"))]})
    assert ended.played.done == ["a", "b"]
    assert ended.played.settled["a"] == "it took longer than 120 s"


def test_too_many_slow_photos_in_a_row_pause_the_source() -> None:
    names = [str(number) for number in range(20)]
    ended = work_through(names, {name: [(100.0, slow(name))] for name in names})
    assert isinstance(ended.error, SourceStopped)
    assert str(ended.error).startswith("10 in a row")
    assert ended.played.done == names[:10]


# ── the album's time ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_albums_time_counts_from_the_last_progress() -> None:
    names = [str(number) for number in range(20)]
    ended = work_through([*names, "stuck"], {**taking(500.0, names), "stuck": [(9999.0, None)]})
    assert ended.work.timed_out
    assert ended.seconds == pytest.approx(20 * 500 + 600)
    assert ended.work.time_out_in_words == "time-out after 600 s without progress (export.timeouts.album)"
    assert len(ended.played.settled) == 20, "what is done is kept"


def test_an_absolute_limit_stands_beside_it() -> None:
    names = [str(number) for number in range(20)]
    ended = work_through(names, taking(500.0, names), album_total_seconds=2100.0)
    assert ended.work.timed_out
    assert ended.seconds == pytest.approx(2100)
    assert ended.work.time_out_in_words == "time-out after 2100 s (export.timeouts.album_total)"
    assert len(ended.played.settled) == 4


def test_who_gives_an_album_longer_than_the_absolute_limit_has_it() -> None:
    ended = work_through("a", {"a": [(9999.0, None)]}, album_seconds=5000.0, album_total_seconds=1000.0)
    assert ended.seconds == pytest.approx(5000)


def test_slow_photos_that_stay_slow_are_no_progress_when_they_come_again() -> None:
    names = "abcdefgh"
    ended = work_through(
        names, {name: [(1.0, slow(name)), (200.0, slow(name))] for name in names}, attempts=9, pause_after=100
    )
    assert ended.work.timed_out
    assert ended.seconds == pytest.approx(8 + 600, abs=10)


def test_a_photo_that_is_given_more_than_the_album_is_waited_for() -> None:
    ended = work_through("ab", {"a": [(4000.0, None)]}, longer={"a": 4120.0})
    assert not ended.work.timed_out
    assert ended.played.settled == {"a": "done", "b": "done"}


def test_what_a_photo_is_given_does_not_move_the_absolute_limit() -> None:
    ended = work_through("ab", {"a": [(4000.0, None)]}, longer={"a": 4120.0}, album_total_seconds=3000.0)
    assert ended.work.timed_out
    assert ended.seconds == pytest.approx(3000)


def test_an_ordinary_photo_does_not_lengthen_the_albums_time() -> None:
    ended = work_through("a", {"a": [(4000.0, None)]}, longer={"a": 120.0}, album_seconds=60.0)
    assert ended.work.timed_out
    assert ended.seconds == pytest.approx(60)


# ── whose fault a refusal is ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("kind", [PhotoRefused, PhotoGone])
def test_one_refused_photo_fails_alone_wherever_it_stands(at: int, kind: type[PhotoError]) -> None:
    ended = work_through("abc", {"abc"[at]: [(1.0, refused(-1708, kind))]})
    assert ended.error is None
    assert [name for name, how in ended.played.settled.items() if how != "done"] == ["abc"[at]]
    assert ended.played.done == ["a", "b", "c"], "and it is not asked for twice"


def test_the_same_of_every_photo_ends_the_run() -> None:
    ended = work_through("abc", {name: [(1.0, refused(-1708))] for name in "abc"})
    assert isinstance(ended.error, SourceStopped)
    assert "report it" in ended.error.next_step
    assert ended.played.settled == {}


def test_a_long_album_of_refused_photos_is_not_gone_through_to_its_end() -> None:
    names = [str(number) for number in range(500)]
    ended = work_through(names, {name: [(1.0, refused(-1708))] for name in names})
    assert isinstance(ended.error, SourceStopped)
    assert len(ended.played.done) == 10


def test_where_others_have_worked_before_an_album_of_refused_photos_fails_and_the_run_goes_on() -> None:
    ended = work_through("ab", {name: [(1.0, refused(-1728))] for name in "ab"}, has_worked=True)
    assert ended.error is None
    assert len(ended.played.settled) == 2
    assert ended.work.every_one_refused is not None
    assert "report it" in ended.work.every_one_refused.next_step


def test_the_only_photo_of_an_album_says_nothing_about_the_others() -> None:
    ended = work_through("a", {"a": [(1.0, refused(-1700))]})
    assert ended.error is None
    assert "(-1700)" in ended.played.settled["a"]
    assert ended.work.every_one_refused is None


def test_a_photo_that_failed_for_another_reason_does_not_make_the_others_worse() -> None:
    attempts: dict[str, list[Attempt]] = {name: [(1.0, refused(-1703))] for name in "ab"}
    ended = work_through("abc", attempts | {"c": [(1.0, PhotoError("damaged"))]})
    assert ended.error is None
    assert len(ended.played.settled) == 3


# ── several at a time ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class PlayedInBatches(Played):
    """First attempts several at a time, of which no further one is begun after `moment` seconds."""

    batch_photos: int = 4
    moment: float = 60.0
    batches: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    async def attempt_several(self, items: Sequence[str]) -> list[tuple[str, str] | Exception | None]:
        self.batches.append("".join(items))
        came: list[tuple[str, str] | Exception | None] = [None] * len(items)
        began = anyio.current_time()
        for number, item in enumerate(items):
            if number and anyio.current_time() - began >= self.moment:
                break
            try:
                came[number] = await self.attempt(item, 1)
            except SkicyclerunError as error:
                came[number] = error
        return came

    async def settle(self, group: Sequence[tuple[str, str]]) -> None:
        self.groups.append(len(group))
        await super().settle(group)


def batches_of(played: PlayedInBatches, items: str, *, stop_after: float | None = None, **limits: float) -> Ended:
    """As `work_through`; no batch is begun after `stop_after` seconds."""

    async def main() -> Ended:
        wanted = replace(LIMITS, **limits)  # type: ignore[arg-type]  # the tests name its fields
        streak = TransientStreak(wanted.pause_after, lambda count, last: SourceStopped(f"{count} in a row: {last}"))
        ends = None if stop_after is None else anyio.current_time() + stop_after
        work = AlbumWork(played, wanted, streak, lambda: ends is not None and anyio.current_time() >= ends)
        error: BaseException | None = None
        try:
            await work.run(items)
        except BaseExceptionGroup as group:
            error = unwrapped(group)
        return Ended(played, work, anyio.current_time(), error, streak)

    return run_in_virtual_time(main)


def test_a_worker_gets_several_at_a_time_and_the_last_ones_are_shared_out() -> None:
    played = PlayedInBatches({})
    ended = batches_of(played, "abcdefghijkl")
    assert played.batches == ["abcd", "efgh", "ij"]
    assert played.done == list("abcdefghijkl")
    assert played.settled == dict.fromkeys("abcdefghijkl", "done")
    assert ended.error is None


def test_groups_have_the_size_that_was_asked_for_whatever_comes_at_once() -> None:
    played = PlayedInBatches({})
    batches_of(played, "abcdefghijklmnop", group_photos=3, group_seconds=1000.0)
    assert played.groups == [3, 3, 3, 3, 3, 1]


def test_what_a_batch_did_not_begin_comes_next_and_no_photo_is_done_twice() -> None:
    played = PlayedInBatches({}, moment=1.5)
    batches_of(played, "abcdefgh")
    assert played.batches == ["abcd", "cd", "ef"]
    assert played.done == list("abcdefgh")


def test_after_a_batch_that_was_cut_short_as_many_are_asked_for_as_fitted_and_then_more_again() -> None:
    played = PlayedInBatches(taking(0.2, "bcdefghijklmnopqrst") | taking(10.0, "a"), moment=5.0)
    batches_of(played, "abcdefghijklmnopqrst")
    assert played.batches[:4] == ["abcd", "bc", "defg", "hijk"]
    assert played.settled == dict.fromkeys("abcdefghijklmnopqrst", "done")


def test_a_photo_that_fails_in_a_batch_is_tried_again_alone_with_its_attempts_counted() -> None:
    torn = PhotoTransient("b: not now.")
    played = PlayedInBatches({"b": [(1.0, torn), (1.0, None)], "c": [(1.0, torn)], "d": [(1.0, PhotoGone("d: gone"))]})
    batches_of(played, "abcdefgh")
    assert played.done.count("b") == 2
    assert played.done.count("c") == LIMITS.attempts
    assert played.done.count("d") == 1
    assert played.settled | {"b": "done", "c": "b: not now. Tried 3 times.", "d": "d: gone"} == played.settled
    assert all(played.settled[name] == "done" for name in "aefgh")


def test_a_slow_photo_of_a_batch_comes_again_when_the_others_are_done() -> None:
    played = PlayedInBatches({"b": [(120.0, slow("b")), (1.0, None)]})
    batches_of(played, "abcdefgh")
    assert played.done == [*"abcdefgh", "b"]
    assert played.settled == dict.fromkeys("abcdefgh", "done")


def test_a_stop_leaves_what_a_batch_did_not_begin() -> None:
    played = PlayedInBatches({}, moment=1.5)
    batches_of(played, "abcdefgh", stop_after=1.8)
    assert played.settled == dict.fromkeys("ab", "done")


def test_an_album_in_which_every_photo_is_refused_is_judged_in_batches_too() -> None:
    plays: dict[str, list[Attempt]] = {name: [(1.0, refused(1))] for name in "abcdefgh"}
    ended = batches_of(PlayedInBatches(plays), "abcdefgh")
    assert isinstance(ended.error, SourceStopped)
    plays["h"] = [(1.0, None)]
    played = PlayedInBatches(plays)
    assert batches_of(played, "abcdefgh").error is None
    assert played.settled["h"] == "done"
    assert played.settled["a"] == "Photos would not export it: (1)."


def test_an_error_of_the_whole_source_in_a_batch_ends_the_work() -> None:
    ended = batches_of(PlayedInBatches({"b": [(1.0, SourceStopped("gone"))]}), "abcdefgh")
    assert isinstance(ended.error, SourceStopped)


def test_quick_ones_are_not_given_out_one_by_one_at_the_end() -> None:
    played = PlayedInBatches({name: [(0.002, None)] for name in "abcdefghijklmnop"})
    batches_of(played, "abcdefghijklmnop")
    assert played.batches == ["abcd", "efgh", "ijkl", "mnop"]
    assert played.settled == dict.fromkeys("abcdefghijklmnop", "done")


# ── what the album after it waits for ─────────────────────────────────────────────────────────────────────────────


def reached_at(items: str, plays: dict[str, list[Attempt]], **limits: float) -> dict[str, float]:
    """When the work on an album got so far; seconds."""

    async def main() -> dict[str, float]:
        reached, at = Reached(), dict[str, float]()
        wanted = replace(LIMITS, **limits)  # type: ignore[arg-type]  # the tests name its fields
        streak = TransientStreak(wanted.pause_after, lambda count, last: SourceStopped(f"{count} in a row: {last}"))
        work = AlbumWork(Played(plays), wanted, streak, lambda: False, reached)

        async def note(name: str, event: anyio.Event) -> None:
            await event.wait()
            at[name] = anyio.current_time()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(note, "all begun", reached.all_begun)
            tasks.start_soon(note, "all made", reached.all_made)
            try:
                await work.run(items)
            except BaseExceptionGroup:
                at["error"] = anyio.current_time()
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        assert not reached.ended.is_set()
        return at

    return run_in_virtual_time(main)


def test_the_next_album_hears_when_a_worker_finds_nothing_to_begin_and_when_the_last_is_made() -> None:
    plays: dict[str, list[Attempt]] = {"a": [(1.0, None)], "b": [(3.0, None)]}
    assert reached_at("ab", plays, workers=2) == {"all begun": 1.0, "all made": 3.0}


def test_what_was_put_off_is_still_to_be_begun() -> None:
    plays: dict[str, list[Attempt]] = {"a": [(1.0, slow("a")), (4.0, None)], "b": [(2.0, None)]}
    assert reached_at("ab", plays, workers=2) == {"all begun": 8.0, "all made": 8.0}


def test_where_an_error_ends_the_work_the_next_album_hears_nothing() -> None:
    plays: dict[str, list[Attempt]] = {"a": [(1.0, None)], "b": [(0.5, SourceStopped("gone."))]}
    assert reached_at("ab", plays, workers=2) == {"error": 0.5}


def test_an_album_whose_time_is_up_is_made_as_far_as_it_will_be() -> None:
    plays: dict[str, list[Attempt]] = {"a": [(1.0, None)], "b": [(1000.0, None)]}
    assert reached_at("ab", plays, workers=2) == {"all begun": 1.0, "all made": 601.0}


# ── as many at once as a line bears ───────────────────────────────────────────────────────────────────────────────


@dataclass
class OverALine(Played):
    """Each takes ten seconds; where more are under way than the line bears, none gets through in time."""

    bears: int = 2
    under_way: int = 0
    most: int = 0

    async def attempt(self, item: str, number: int) -> tuple[str, str]:
        self.done.append(item)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            late = self.under_way > self.bears
            await anyio.sleep(10)
            if late or self.under_way > self.bears:
                await anyio.sleep(110)
                raise PhotoTransient("it took longer than 120 s")
        finally:
            self.under_way -= 1
        return item, "done"


class OverALineInBatches(OverALine):
    batch_photos: int = 4

    async def attempt_several(self, items: Sequence[str]) -> list[tuple[str, str] | Exception | None]:
        came: list[tuple[str, str] | Exception | None] = [None] * len(items)
        try:
            came[0] = await self.attempt(items[0], 1)
        except PhotoTransient as error:
            came[0] = error
        return came


def over(line: OverALine, items: str, *, stop_after: float | None = None) -> AtOnce:
    """An album over that line, ten at once where it bears them."""

    async def main() -> AtOnce:
        at_once = AtOnce(10)
        wanted = replace(LIMITS, workers=10, pause_after=100)
        streak = TransientStreak(100, lambda count, last: SourceStopped(f"{count} in a row: {last}"))
        ends = None if stop_after is None else anyio.current_time() + stop_after
        stop = lambda: ends is not None and anyio.current_time() >= ends  # noqa: E731
        await AlbumWork(line, wanted, streak, stop, None, at_once).run(items)
        return at_once

    return run_in_virtual_time(main)


@pytest.mark.parametrize("kind", [OverALine, OverALineInBatches])
@pytest.mark.parametrize("bears", [1, 2, 4])
def test_on_a_slow_line_fewer_are_sent_at_once_until_all_have_come(kind: type[OverALine], bears: int) -> None:
    items = "abcdefghijklmnopqrstuvwxyz"
    line = kind({}, bears=bears)
    at_once = over(line, items)
    assert line.settled == dict.fromkeys(items, "done")
    assert at_once.number <= 2 * bears


def test_a_line_that_bears_all_of_them_gets_all_of_them() -> None:
    line = OverALine({}, bears=10)
    assert over(line, "abcdefghijklmnopqrstuvwxyz").number == 10
    assert (line.most, len(line.done)) == (10, 26)


def test_one_failure_of_a_picture_is_made_up_for_by_those_that_come_through() -> None:
    line = Played({"a": [(1.0, PhotoTransient("503")), (1.0, None)]})

    async def main() -> tuple[int, int]:
        at_once = AtOnce(4)
        streak = TransientStreak(10, lambda count, last: SourceStopped(f"{count} in a row: {last}"))
        await AlbumWork(line, replace(LIMITS, workers=4), streak, lambda: False, None, at_once).run("a")
        after_one = at_once.number
        await AlbumWork(line, replace(LIMITS, workers=4), streak, lambda: False, None, at_once).run("bcdefghijklm")
        return after_one, at_once.number

    assert run_in_virtual_time(main) == (2, 4)


def test_a_stop_begins_nothing_that_waits_for_its_turn() -> None:
    line = OverALine({}, bears=1)
    over(line, "abcdefghijklmnopqrstuvwxyz", stop_after=121.0)
    assert len(line.done) < 26
    assert len(line.settled) < 5
