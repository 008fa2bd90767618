"""Stops of lora_processing: killed and resumed it ends like a run never stopped; a signal waits for no picture."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.command_line import ended, start
from tests.fork_server import ForkServer, fork_server
from tests.staged_sample import Staged
from tests_models.conftest import Tiny

STAGES: Final = "preprocessing,lora_processing,post_lora_watermarking"
#: Libraries that a forked run finds imported.
LIBRARIES: Final = (
    "torch",
    "transformers",
    "peft",
    "diffusers",
    "diffusers.pipelines.auto_pipeline",
    "diffusers.pipelines.flux.pipeline_flux_kontext",
    "safetensors.torch",
)
#: Keys of an entry that say when.
TIMES: Final = ("created_at", "pipeline", "export_timestamp")
LOUD: Final = {"PYTHONWARNINGS": "default"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server"), imports=LIBRARIES, warnings="default") as found:
        yield found


@dataclass(frozen=True)
class Campaign:
    """A library after an export, and what a run of the stages that is not stopped makes of it."""

    staged: Staged
    before: Path
    expected: dict[str, Any]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, server: ForkServer) -> Campaign:
    folder = tmp_path_factory.mktemp("undisturbed")
    staged = Staged(folder)
    staged.picture("Alps/a.jpg", 10)
    staged.picture("Alps/b.jpg", 120)
    staged.picture("Coast/c.jpg", 240)
    staged.configure(preprocessing={"max_dimension": 64}, lora_processing=tiny.section("Red", "NoLoRA", "Ink"))
    assert staged.run("--stages", "export").code == 0
    shutil.copytree(staged.lib_root, folder / "before")
    code, shown = server.run(*staged.arguments("run", "--stages", STAGES))
    assert code == 0, shown
    return Campaign(staged, folder / "before", outcome(staged))


@pytest.fixture
def again(campaign: Campaign) -> Staged:
    """The library before the stages, in the same place, since entries have whole paths."""
    shutil.rmtree(campaign.staged.lib_root)
    shutil.copytree(campaign.before, campaign.staged.lib_root)
    return campaign.staged


def outcome(staged: Staged) -> dict[str, Any]:
    """All that must not depend on whether the run was stopped: files, rows, entries; without times."""
    pipeline = staged.lib_root / "pipeline"
    files = {str(path.relative_to(pipeline)): path.read_bytes() for path in pipeline.rglob("*") if path.is_file()}
    rows = staged.sql(
        "SELECT stage, folder, photo, input, variant, input_sha256, depends, status, reason, note, file_name, size,"
        " sha256, mtime_ns, width, height, facts, present, departed, position FROM stage_pictures"
        " ORDER BY stage, folder, position, variant"
    )
    entries = {
        name: without_seconds({key: value for key, value in sorted(entry.items()) if key not in TIMES})
        for name, entry in staged.entries.items()
    }
    return {
        "files": files,
        "rows": without_seconds(rows),
        "entries": entries,
        "albums": sorted(staged.sql("SELECT stage, folder, status, expected, done, failed FROM stage_albums")),
        "run": staged.newest_run(),
        "work": sorted(path.name for path in staged.lib_root.rglob(".skicyclerun-*")),
    }


def without_seconds(found: object) -> str:
    """How long a picture took differs from run to run."""
    return re.sub(r"(seconds[\"']: ?)[0-9.]+", r"\1…", repr(found))


#: The first picture of a style, the picture as it is, between file and row, at the end of an album, and the catalog.
FAULTS: Final = (
    "stage.picture_made:4",
    "stage.picture_made:7",
    "group.first_renamed:5",
    "stage.group_committed:4",
    "stage.album_finished:2",
    "catalog.renamed",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_and_resumed_it_ends_like_a_run_never_stopped(
    campaign: Campaign, again: Staged, server: ForkServer, fault: str
) -> None:
    code, shown = server.run(*again.arguments("run", "--stages", STAGES), fault=fault)
    assert code == -signal.SIGKILL, shown
    made = made_so_far(again)
    code, shown = server.run(*again.arguments("run", "--resume"))
    assert code == 0, shown
    assert outcome(again) == campaign.expected
    after = made_so_far(again)
    assert {name: after[name] for name in made} == made, "a picture whose row said done was made again"
    assert times_made(again) <= len(after) + 1, "more than the picture in hand was made twice"


def test_killed_again_and_again_it_gets_there_all_the_same(
    campaign: Campaign, again: Staged, server: ForkServer
) -> None:
    """Each start makes four pictures more."""
    code, shown = server.run(*again.arguments("run", "--stages", STAGES), fault="stage.group_committed:4")
    kills = 0
    while code == -signal.SIGKILL:
        kills += 1
        assert kills < 12
        code, shown = server.run(*again.arguments("run", "--resume"), fault="stage.group_committed:4")
    assert code == 0, shown
    assert kills > 2
    assert outcome(again) == campaign.expected


def made_so_far(staged: Staged) -> dict[str, tuple[str, int]]:
    """The restyled pictures whose rows say done: when, and the file's inode."""
    rows = staged.sql(
        "SELECT folder, file_name, made_at FROM stage_pictures WHERE stage = 'lora_processing' AND status = 'done'"
    )
    folder = staged.outputs("lora_processed")
    return {f"{album}/{name}": (at, (folder / album / name).stat().st_ino) for album, name, at in rows}


def times_made(staged: Staged) -> int:
    """How often the model made a picture, by the logs, and how many there are as they are."""
    return len(re.findall(r"\.webp, (?:Red|Ink): ", staged.log)) + 3


def test_a_signal_ends_the_picture_in_hand_between_two_steps_and_leaves_it_to_the_resume(
    sample: Staged, tiny: Tiny
) -> None:
    sample.configure(lora_processing=tiny.section("NoLoRA", "Red", num_inference_steps=100))
    sample.run("--stages", "export,preprocessing")
    process = start(*sample.arguments("run", "--stages", "lora_processing"), extra=LOUD)
    assert process.stderr is not None
    read = ""
    for line in process.stderr:
        read += line
        if "lora_processing | album_1_of_2 | photo_1_of_4" in line:  # as it is; the model has the next but one
            break
    process.send_signal(signal.SIGTERM)
    stopped = ended(process, read)
    assert stopped.code == 143, stopped.stderr
    assert sample.newest_run() == "interrupted"
    rows = dict(sample.sql("SELECT status, COUNT(*) FROM stage_pictures WHERE stage = 'lora_processing' GROUP BY 1"))
    assert rows.keys() == {"done", "planned"}
    assert not sample.sql("SELECT 1 FROM stage_pictures WHERE variant = 'Red' AND status <> 'planned'")
    assert set(sample.names("lora_processed")) <= {"Alps/a_NoLoRA.webp", "Alps/b_NoLoRA.webp"}
    sample.configure(lora_processing=tiny.section("NoLoRA", "Red", num_inference_steps=100, device="auto"))
    resumed = sample.run("--resume")
    assert resumed.code == 0, resumed.stderr
    assert len(sample.names("lora_processed")) == 6
    assert not sample.sql("SELECT 1 FROM stage_pictures WHERE status <> 'done'")


def test_a_picture_whose_time_is_up_fails_and_the_next_one_does_not_wait_for_it(sample: Staged, tiny: Tiny) -> None:
    sample.configure(
        lora_processing=tiny.section("Red", num_inference_steps=200, timeouts={"photo": 0.2}),
    )
    stopped = sample.export("preprocessing", "lora_processing")
    assert stopped.code == 3
    reasons = {row[0] for row in sample.sql("SELECT reason FROM stage_pictures WHERE stage = 'lora_processing'")}
    assert reasons == {"it took longer than 0.2 s (lora_processing.timeouts.photo)"}
    assert sample.albums("lora_processing")["Alps"][0] == "failed"
    sample.configure(lora_processing=tiny.section("Red", num_inference_steps=2))
    assert sample.run("retry-failed").code == 0
    assert len(sample.names("lora_processed")) == 3
