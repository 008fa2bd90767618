"""Runs with llm_image_analysis by the real command line, against a server on the loopback: what is asked, what is not
asked again, what goes wrong, and that a run that was killed ends like one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import PATIENCE as SECONDS
from tests.command_line import ended, skicyclerun, start
from tests.fork_server import ForkServer, fork_server
from tests.ollama_server import MODEL, Asked, Model, OllamaServer, Reply, by_picture, error, right
from tests.ollama_server import start as ollama_server
from tests.staged_sample import Staged
from tests.test_crash_campaign import newest_run

pytestmark = pytest.mark.long

STAGE = "llm_image_analysis"
CRASHES = int(os.environ.get("SKICYCLERUN_CRASHES", "3"))
SEED = int(os.environ.get("SKICYCLERUN_SEED", "20261125"))
#: At once again, and given up after two.
QUICK = {"attempts": 2, "backoff_seconds": 0, "pause_after": 4}


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with ollama_server() as running:
        yield running


def section(server: OllamaServer, **keys: Any) -> dict[str, Any]:
    return {"endpoint": server.endpoint, "timeout_seconds": 30, "retries": QUICK, **keys}


@pytest.fixture
def sample(tmp_path: Path, server: OllamaServer) -> Staged:
    """Two albums, four pictures, exported."""
    made = Staged(tmp_path)
    for number, name in enumerate(("Alps/a.jpg", "Alps/b.jpg", "Alps/c.jpg", "Coast/d.jpg")):
        made.picture(name, 10 + 40 * number, date=f"2024:06:0{number + 1} 10:00:00", position=name == "Alps/a.jpg")
    made.configure(llm_image_analysis=section(server))
    assert made.export().code == 0
    return made


def asked_of(sample: Staged) -> dict[str, Any]:
    """`Album/name` → what the catalog holds of the model's answer."""
    entries = {name.removeprefix("albums/"): entry for name, entry in sample.entries.items()}
    return {name: entry[STAGE] for name, entry in entries.items() if STAGE in entry}


# ── what is asked, and not again ──────────────────────────────────────────────────────────────────────────────────


def test_every_picture_is_asked_about_once_and_its_answer_is_in_the_catalog(
    sample: Staged, server: OllamaServer
) -> None:
    done = sample.run("--stages", STAGE)
    assert done.code == 0, done.stderr
    assert sorted(asked_of(sample)) == ["Alps/a.jpg", "Alps/b.jpg", "Alps/c.jpg", "Coast/d.jpg"]
    assert len({entry["primary_subject"] for entry in asked_of(sample).values()}) == 4
    assert set(Counter(server.pictures()).values()) == {1}
    assert server.most_at_once == 1
    entry = sample.entries["albums/Alps/a.jpg"]
    assert entry["stage_results"][STAGE]["keys"] == [STAGE]
    assert entry["pipeline"]["stages"] == ["export", STAGE]
    again = sample.run("--stages", STAGE)
    assert again.code == 0
    assert len(server.chats) == 4


def test_a_dry_run_says_what_is_to_be_done_and_asks_about_no_picture(sample: Staged, server: OllamaServer) -> None:
    shown = sample.run("--stages", STAGE, "--dry-run")
    assert shown.code == 0
    assert f"{STAGE}: 4 to do (4 new)" in shown.stderr
    sample.run("--stages", STAGE)
    server.models[MODEL] = Model(digest="e" * 64)
    assert f"{STAGE}: 4 to do (4 setting changed)" in sample.run("--stages", STAGE, "--dry-run").stderr
    assert len(server.chats) == 4


def test_another_model_of_the_same_name_is_asked_anew(sample: Staged, server: OllamaServer) -> None:
    sample.run("--stages", STAGE)
    server.models[MODEL] = Model(digest="e" * 64)
    assert sample.run("--stages", STAGE).code == 0
    assert len(server.chats) == 8
    assert {entry["model_digest"] for entry in asked_of(sample).values()} == {"e" * 64}


def test_a_new_fact_asks_about_the_picture_it_is_of(sample: Staged, server: OllamaServer) -> None:
    sample.run("--stages", STAGE)
    assert sample.run("--stages", f"metadata_extraction,{STAGE}").code == 0
    places = ["- Place: " in chat.prompt for chat in server.chats]
    assert places == [False] * 4 + [True]


def test_the_words_of_the_model_go_onto_the_pictures_where_that_is_wanted(sample: Staged, server: OllamaServer) -> None:
    server.replies[:] = [
        right(watermark_line1="Golden peaks", watermark_line2="Skiing"),
        right(watermark_line1="Dawn over Chamonix", watermark_line2=""),
        by_picture,
    ]
    sample.configure(watermark={"line1": "{title|file_name}", "line1_prefer_llm": True, "symbol": "SKI"})
    done = sample.run("--stages", f"{STAGE},preprocessing,watermarking")
    assert done.code == 0, done.stderr
    texts = {
        name.removeprefix("watermarked_final/"): entry["watermark"]["text"]
        for name, entry in sample.entries.items()
        if entry["type"] == "watermarked"
    }
    assert texts == {
        "Alps/a.webp": "Golden peaks\n© 2024 SKI",
        "Alps/b.webp": "b.jpg\n© 2024 SKI",  # the model named a place that nobody knows of
        "Alps/c.webp": "Golden morning on the slope\n© 2024 SKI",
        "Coast/d.webp": "Golden morning on the slope\n© 2024 SKI",
    }
    assert (
        "watermark_line1 was not taken: it says 'Dawn', 'Chamonix'"
        in sample.run("status", "--stage", STAGE, "--photos").stdout
    )


def test_an_answer_that_comes_later_writes_the_watermark_again(sample: Staged) -> None:
    sample.configure(watermark={"line1_prefer_llm": True})
    assert sample.run("--stages", "preprocessing,watermarking").code == 0
    assert sample.run("--stages", f"{STAGE},preprocessing,watermarking").code == 0
    marked = [entry for entry in sample.entries.values() if entry["type"] == "watermarked"]
    assert {entry["watermark"]["text"].partition("\n")[0] for entry in marked} == {"Golden morning on the slope"}


def test_an_answer_goes_with_its_picture_and_stays_where_it_was_moved(sample: Staged, server: OllamaServer) -> None:
    sample.run("--stages", STAGE)
    (sample.library / "Alps" / "a.jpg").rename(sample.library / "Coast" / "a.jpg")
    (sample.library / "Alps" / "b.jpg").unlink()
    assert sample.update(STAGE).code == 0
    assert sorted(asked_of(sample)) == ["Alps/c.jpg", "Coast/a.jpg", "Coast/d.jpg"]
    assert len(server.chats) == 4  # the moved one was not asked about again


def test_a_fresh_run_that_empties_the_folders_asks_about_nothing_again(sample: Staged, server: OllamaServer) -> None:
    sample.run("--stages", STAGE)
    done = sample.run("--stages", f"cleanup,export,{STAGE}", "--yes")
    assert done.code == 0, done.stderr
    assert len(asked_of(sample)) == 4
    assert len(server.chats) == 4


def test_several_at_once_where_that_is_wanted(sample: Staged, server: OllamaServer) -> None:
    both = threading.Barrier(2, timeout=SECONDS)

    def together(asked: Asked) -> Reply:
        both.wait()  # for ever, if the other is not asked about meanwhile
        return by_picture(asked)

    server.replies[:] = [together, together, by_picture]
    sample.configure(llm_image_analysis=section(server, workers=2))
    assert sample.run("--stages", STAGE).code == 0
    assert server.most_at_once == 2
    assert len(asked_of(sample)) == len(server.chats) == 4


def test_a_state_that_was_lost_and_made_anew_asks_about_nothing_again(sample: Staged, server: OllamaServer) -> None:
    sample.run("--stages", STAGE)
    before = asked_of(sample)
    (sample.lib_root / "state" / "skicyclerun.sqlite3").unlink()
    rebuilt = skicyclerun("rebuild-state", "--lib-root", sample.lib_root, "--library", sample.library)
    assert rebuilt.code == 0, rebuilt.stderr
    assert sample.run("--stages", STAGE).code == 0
    assert len(server.chats) == 4
    assert asked_of(sample) == before
    assert sample.run("verify").code == 0


def test_what_another_program_said_stays_until_the_stage_speaks(sample: Staged) -> None:
    catalog = sample.lib_root / "metadata" / "master.json"
    entries = json.loads(catalog.read_text())
    (of_a,) = (path for path in entries if path.endswith("Alps/a.jpg"))
    entries[of_a][STAGE] = {"description": "theirs", "tags": ["x"]}
    catalog.write_text(json.dumps(entries))
    assert sample.run("--stages", "metadata_extraction").code == 0
    assert asked_of(sample)["Alps/a.jpg"] == {"description": "theirs", "tags": ["x"]}
    assert sample.run("--stages", STAGE).code == 0
    assert "tags" not in asked_of(sample)["Alps/a.jpg"]


# ── nothing is begun where something is missing ───────────────────────────────────────────────────────────────────


def test_without_server_model_or_eyes_nothing_is_begun(tmp_path: Path, server: OllamaServer) -> None:
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg", 10)
    stages = f"export,{STAGE}"

    def refused(*options: str, **keys: Any) -> str:
        sample.configure(llm_image_analysis=section(server, **keys))
        done = sample.run("--stages", stages, *options)
        assert done.code == 2
        assert not (sample.lib_root / "pipeline").exists()
        assert not (sample.lib_root / "state").exists()
        return done.stderr

    assert "`ollama pull llava:7b`" in refused(model="llava:7b")
    assert "`ollama pull llava:7b`" in refused("--dry-run", model="llava:7b")
    assert "`ollama serve` starts one" in refused(endpoint="http://127.0.0.1:9")
    assert "none.txt cannot be read" in refused(prompt_template="none.txt")
    server.models[MODEL] = Model(capabilities=("completion",))
    assert "cannot see pictures" in refused()
    assert server.chats == []


def test_without_the_client_the_extra_that_brings_it_is_named(
    sample: Staged, server: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ollama", None)
    refused = sample.run("--stages", STAGE)
    assert refused.code == 2
    assert "the stage llm_image_analysis needs the package ollama, which is not installed" in refused.stderr
    assert '`pip install "skicyclerun[llm]"`' in refused.stderr
    assert server.asked == []


def test_a_run_without_the_stage_asks_for_no_server(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg", 10)
    sample.configure(llm_image_analysis={"endpoint": "http://127.0.0.1:9", "model": "none"})
    assert sample.export("preprocessing", "watermarking").code == 0


def test_doctor_says_what_a_run_would_say(sample: Staged, server: OllamaServer) -> None:

    def said() -> str:
        shown = skicyclerun("doctor", "--lib-root", sample.lib_root, "--json").stdout
        (check,) = (each for each in json.loads(shown)["checks"] if each["check"] == f"stage {STAGE}")
        return f"{check['status']}: {check['detail']} {check['next_step']}"

    assert "could run" in said()
    server.models.clear()
    assert f"has no model '{MODEL}'" in said()
    assert f"`ollama pull {MODEL}`" in said()
    sample.configure(llm_image_analysis=section(server, endpoint="http://127.0.0.1:9"))
    assert "No Ollama server answers at http://127.0.0.1:9. `ollama serve`" in said()
    assert server.chats == []


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_without_a_right_answer_fails_alone_and_is_asked_about_again(
    sample: Staged, server: OllamaServer
) -> None:
    server.replies[:] = [by_picture, Reply("no"), Reply("no"), by_picture]
    done = sample.run("--stages", STAGE)
    assert done.code == 3
    assert sample.reason(STAGE, "Alps/b.jpg") == (
        "the model's answer is not what it was asked for, twice: the answer is no JSON object"
    )
    assert sorted(asked_of(sample)) == ["Alps/a.jpg", "Alps/c.jpg", "Coast/d.jpg"]
    shown = sample.run("status", "--stage", STAGE).stdout
    assert "b.jpg" in shown
    assert "no JSON object" in shown
    before = len(server.chats)
    assert sample.run("retry-failed", "--stages", STAGE).code == 0
    assert len(server.chats) == before + 1
    assert len(asked_of(sample)) == 4


def test_an_error_that_passes_is_tried_again(sample: Staged, server: OllamaServer) -> None:
    server.replies[:] = [error(500, "llama runner process has terminated"), by_picture]
    assert sample.run("--stages", STAGE).code == 0
    assert len(server.chats) == 5
    assert len(asked_of(sample)) == 4


def test_a_server_that_stays_ill_pauses_the_stage_and_the_others_go_on(sample: Staged, server: OllamaServer) -> None:
    server.replies[:] = [by_picture, error(500, "out of memory")]
    done = sample.run("--stages", f"{STAGE},preprocessing")
    assert done.code == 3
    assert "llm_image_analysis failed 4 times in a row" in done.stderr
    assert "500: out of memory" in done.stderr
    assert sample.newest_run() == "interrupted"
    assert len(sample.names("scaled")) == 4
    assert list(asked_of(sample)) == ["Alps/a.jpg"]
    server.replies[:] = [by_picture]
    assert sample.run("--resume").code in (0, 3)
    assert sample.run("retry-failed").code == 0
    assert len(asked_of(sample)) == 4
    assert Counter(server.pictures())[server.pictures()[0]] == 1


def test_a_model_that_goes_in_the_middle_of_an_album_stops_the_stage_and_it_can_be_resumed(
    sample: Staged, server: OllamaServer
) -> None:
    def the_last(asked: Asked) -> Reply:
        said = by_picture(asked)
        server.replies[:] = [gone]
        return said

    def gone(asked: Asked) -> Reply:
        server.models.clear()
        return error(404, f"model '{MODEL}' not found")

    server.replies[:] = [by_picture, the_last]
    done = sample.run("--stages", f"{STAGE},preprocessing")
    assert done.code == 3
    assert f"no longer has the model {MODEL}" in done.stderr
    assert "`skicyclerun run --resume` carries on with it" in done.stderr
    assert len(sample.names("scaled")) == 4
    assert sorted(asked_of(sample)) == ["Alps/a.jpg", "Alps/b.jpg"]
    refused = sample.run("--resume")
    assert refused.code == 2
    assert f"`ollama pull {MODEL}`" in refused.stderr
    server.models[MODEL] = Model()
    server.replies[:] = [by_picture]
    assert sample.run("--resume").code == 0
    assert len(asked_of(sample)) == 4
    assert sorted(Counter(server.pictures()).values()) == [1, 1, 1, 2]  # the one that was in hand
    assert sample.newest_run() == "finished"


def test_a_server_that_goes_between_two_albums_pauses_the_stage(sample: Staged, server: OllamaServer) -> None:
    """What the albums after it depend on is known since the beginning; that nobody answers is found by asking."""
    server.replies[:] = [by_picture, by_picture, by_picture, error(503, "going down")]
    assert sample.run("--stages", STAGE).code == 3
    assert sorted(asked_of(sample)) == ["Alps/a.jpg", "Alps/b.jpg", "Alps/c.jpg"]
    assert sample.albums(STAGE)["Alps"][0] == "done"


def test_a_stop_at_once_does_not_wait_for_the_answer(sample: Staged, server: OllamaServer) -> None:
    arrived, never = threading.Event(), threading.Event()

    def stuck(asked: Asked) -> Reply:
        arrived.set()
        return Reply(wait_for=never)

    server.replies[:] = [by_picture, stuck]
    sample.configure(llm_image_analysis=section(server, timeout_seconds=3000))
    process = start(*sample.arguments("--stages", STAGE))
    assert arrived.wait(SECONDS)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    shown = ""
    while "Once more to stop at once" not in shown:
        line = process.stderr.readline()
        assert line, shown
        shown += line
    process.send_signal(signal.SIGINT)
    done = ended(process)
    never.set()
    assert done.code == 130
    assert [name for name, status in sample.pictures(STAGE).items() if status == "done"] == ["Alps/a.jpg"]
    server.replies[:] = [by_picture]
    sample.configure(llm_image_analysis=section(server))
    assert sample.run("--resume").code == 0
    assert sorted(Counter(server.pictures()).values()) == [1, 1, 1, 2]


# ── killed and resumed ────────────────────────────────────────────────────────────────────────────────────────────

#: Visits that fall into the stage, whose pictures are groups of their own; the watermarks come after it.
FAULTS = (
    "stage.album_started",
    "stage.picture_made",
    "stage.picture_made:3",
    "stage.group_committed:2",
    "stage.album_finished",
    "catalog.renamed:2",
    "run.finished",
)
ARGUMENTS = f"export,{STAGE},preprocessing,watermarking"
#: Keys that hold clock times, or how long something took.
TIMES = frozenset({"export_timestamp", "created_at", "timestamps", "last_updated", "seconds"})


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("forks")) as running:
        yield running


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Staged(tmp_path_factory.mktemp("library"))
    for number in range(5):
        made.picture(f"{'Alps' if number < 3 else 'Coast'}/{number}.jpg", 10 + 40 * number, date="2024:06:01 10:00:00")
    return made.library


class Killed:
    """A lib_root whose runs are killed, and the server they ask."""

    def __init__(self, lib_root: Path, library: Path, forks: ForkServer, server: OllamaServer) -> None:
        self.lib_root, self._forks, self._server = lib_root, forks, server
        self._begin = ("run", "--library", library, "--stages", ARGUMENTS)
        self.arguments: tuple[str | Path, ...] = self._begin
        config = lib_root / "config"
        config.mkdir(parents=True)
        sections = {STAGE: section(server), "watermark": {"line1_prefer_llm": True, "line2_prefer_llm": True}}
        (config / "pipeline_config.json").write_text(json.dumps(sections))

    def run(self, **how: Any) -> int:
        """Once, begun anew where no run was entered, else resumed. The return code."""
        code, shown = self._forks.run(*self.arguments, "--lib-root", self.lib_root, "--yes", **how)
        assert "Traceback" not in shown, shown
        if code != 0:
            assert code == -signal.SIGKILL, shown
        state = self.lib_root / "state" / "skicyclerun.sqlite3"
        if state.exists() and sql(state, "SELECT name FROM sqlite_master WHERE name = 'runs'"):
            if sql(state, "SELECT id FROM runs"):
                self.arguments = ("run", "--resume")
        return code

    def answered(self) -> int:
        """Pictures whose answers are committed."""
        state = self.lib_root / "state" / "skicyclerun.sqlite3"
        if self.arguments == self._begin:
            return 0
        rows = sql(state, f"SELECT COUNT(*) FROM stage_pictures WHERE stage = '{STAGE}' AND status = 'done'")
        return int(rows[0][0])

    def to_the_end(self, kills: Iterator[Mapping[str, Any]]) -> int:
        """Until it is finished; how often it was killed. At each kill one more was in hand; nothing else is lost."""
        killed = 0
        for _ in range(12):
            before, asked = self.answered(), len(self._server.chats)
            code = self.run(**next(kills, {}))
            assert 0 <= len(self._server.chats) - asked - (self.answered() - before) <= (1 if code else 0)
            if code == 0:
                return killed
            killed += 1
            if self.arguments != self._begin and newest_run(self.lib_root)[1] == "finished":
                return killed
        raise AssertionError("the run did not come to its end")

    def outcome(self) -> dict[str, Any]:
        """All that must not depend on whether the run was interrupted."""
        state = self.lib_root / "state" / "skicyclerun.sqlite3"
        pictures = sql(
            state,
            "SELECT stage, folder, input, input_sha256, depends, status, reason, note, file_name, sha256, present, "
            "departed, facts FROM stage_pictures",
        )
        catalog = json.loads((self.lib_root / "metadata" / "master.json").read_text())
        return {
            "pictures": sorted((*row[:-1], json.dumps(timeless(json.loads(row[-1] or "{}")))) for row in pictures),
            "albums": sorted(sql(state, "SELECT stage, folder, status, reason, done, failed FROM stage_albums")),
            "runs": sql(state, "SELECT id, status FROM runs"),
            "catalog": json.loads(json.dumps(timeless(catalog)).replace(str(self.lib_root), "ROOT")),
        }


def sql(state: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(state)) as connection:
        return connection.execute(statement).fetchall()


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def undisturbed(
    forks: ForkServer, library: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Counter[str]]:
    """What a run leaves that nobody kills, and what it asks."""
    with ollama_server() as server:
        run = Killed(tmp_path_factory.mktemp("undisturbed") / "root", library, forks, server)
        assert run.run() == 0
        expected = run.outcome()
        assert len(server.chats) == 5
        answers = [entry for entry in expected["catalog"].values() if STAGE in entry]
        assert len(answers) == 5
        return expected, Counter(server.pictures())


@pytest.fixture
def killed(tmp_path: Path, library: Path, forks: ForkServer, server: OllamaServer) -> Killed:
    return Killed(tmp_path / "root", library, forks, server)


@pytest.mark.crash
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_killed_at_a_fault_point_asks_for_nothing_twice_but_what_was_in_hand_and_ends_as_if_undisturbed(
    killed: Killed, server: OllamaServer, undisturbed: tuple[dict[str, Any], Counter[str]], fault: str
) -> None:
    assert killed.to_the_end(iter([{"fault": fault}])) == 1, f"{fault} was not reached"
    expected, asked = undisturbed
    assert killed.outcome() == expected
    again = Counter(server.pictures()) - asked
    assert again.total() <= 1
    assert not asked - Counter(server.pictures())


@pytest.mark.crash
@pytest.mark.parametrize("number", range(CRASHES))
def test_a_run_killed_while_the_model_thinks_ends_as_if_undisturbed(
    killed: Killed, server: OllamaServer, undisturbed: tuple[dict[str, Any], Counter[str]], number: int
) -> None:
    chance = random.Random(SEED + number)
    server.replies[:] = [slow]
    kills: list[dict[str, Any]] = [{"kill_after": chance.uniform(0.3, 1.5)} for _ in range(chance.randint(1, 4))]
    times = killed.to_the_end(iter(kills))
    expected, asked = undisturbed
    assert killed.outcome() == expected
    assert (Counter(server.pictures()) - asked).total() <= times
    assert not asked - Counter(server.pictures())


def slow(asked: Asked) -> Reply:
    """A model that takes its time, so that a kill is likely to come while it thinks."""
    threading.Event().wait(0.15)
    return by_picture(asked)
