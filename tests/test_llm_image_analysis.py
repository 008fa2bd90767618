"""The stage llm_image_analysis, one picture at a time, against a server on the loopback. Nothing of the client is
replaced."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms
from pydantic import ValidationError

from skicyclerun.errors import PhotoError, PhotoTransient, PhotoUnreadable, StageError, StagePaused
from skicyclerun.stages.llm_image_analysis import LlmImageAnalysis, LlmImageAnalysisSettings
from skicyclerun.stages.stage import Picture, Surroundings
from tests.command_line import environment
from tests.ollama_server import DIGEST, MODEL, Model, OllamaServer, Reply, answer, by_picture, error, right, start

FACTS: Mapping[str, Any] = {
    "date_taken": "2024-07-27T10:05:00+02:00",
    "gps": {"lat": 46.02, "lon": 7.75, "heading": 314.0},
    "location": {"city": "Zermatt", "state": "Valais", "country": "Switzerland", "formatted": "Zermatt, Valais"},
    "title": "Up the Gornergrat",
    "keywords": ["ski", "family"],
    "persons": ["Ada"],
    "file_name": "IMG_1.jpg",
    "album_title": "Winter",
}


class Asking:
    """A server, and recipes that ask it."""

    def __init__(self, folder: Path, server: OllamaServer) -> None:
        self.folder = folder
        self.server = server

    def recipe(self, **section: Any) -> LlmImageAnalysis:
        section = {"endpoint": self.server.endpoint, "timeout_seconds": 20, **section}
        settings = LlmImageAnalysisSettings.model_validate(section)
        return LlmImageAnalysis(settings, Surroundings(self.folder, self.folder / "cache.json", self.folder))

    def picture(self, data: bytes = b"", facts: Mapping[str, Any] = FACTS, name: str = "in.jpg") -> Picture:
        data = data or jpeg()
        (self.folder / name).write_bytes(data)
        return Picture(self.folder / name, hashlib.sha256(data).hexdigest(), facts)

    def ask(self, picture: Picture | None = None, **section: Any) -> dict[str, Any]:
        """What the entry says, for the picture."""
        recipe = self.recipe(**section)
        recipe.open()
        try:
            made = recipe.make(picture or self.picture(), None)
        finally:
            recipe.close()
        assert list(made.facts) == ["llm_image_analysis"]
        json.dumps(made.facts, allow_nan=False)
        entry = dict(made.facts["llm_image_analysis"])
        return {**entry, "note": made.note} if made.note else entry

    def depends(self, facts: Mapping[str, Any] = FACTS, **section: Any) -> Mapping[str, object]:
        return self.recipe(**section).depends_on(self.picture(facts=facts))


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    with start() as server:
        yield Asking(tmp_path, server)


def jpeg(size: tuple[int, int] = (300, 200), orientation: int = 1, **further: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A camera that is named"
    exif.get_ifd(0x8825).update({1: "N", 2: (46.0, 1.0, 12.0), 3: "E", 4: (7.0, 44.0, 57.0)})
    picture = Image.new("RGB", size, "teal")
    picture.paste("white", (0, 0, size[0] // 2, size[1]))
    written = io.BytesIO()
    picture.save(written, "JPEG", exif=exif, **further)
    return written.getvalue()


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_model_is_asked_with_the_picture_the_facts_and_the_schema(asking: Asking) -> None:
    asking.ask(temperature=0, seed=7, num_predict=500, keep_alive="1h")
    (chat,) = asking.server.chats
    assert chat.body["model"] == MODEL
    assert chat.body["options"] == {"temperature": 0.0, "seed": 7, "num_predict": 500}
    assert chat.body["keep_alive"] == "1h"
    assert chat.body["think"] is False
    assert set(chat.body["format"]["properties"]) == set(answer())
    for text in (
        "- Place: Zermatt, Switzerland",
        "- Region: Valais",
        "- Day: 2024-07-27",
        "- Time: 10:05",
        "The camera looked north-west.",
        "- Title: Up the Gornergrat",
        "- Keywords: ski, family",
    ):
        assert text in chat.prompt
    assert "Ada" not in chat.prompt
    assert "{" not in chat.prompt
    assert len(chat.pictures) == 1


def test_what_is_not_known_leaves_no_line(asking: Asking) -> None:
    asking.ask(asking.picture(facts={"title": "A walk"}))
    prompt = asking.server.chats[0].prompt
    assert "- Title: A walk" in prompt
    assert not [word for word in ("Place:", "County:", "Day:", "camera looked", "Keywords:") if word in prompt]


@pytest.mark.parametrize(
    ("size", "shown"), [((3000, 2000), (1024, 683)), ((300, 200), (300, 200)), ((9, 4000), (2, 1024))]
)
def test_a_picture_goes_in_small(asking: Asking, size: tuple[int, int], shown: tuple[int, int]) -> None:
    asking.ask(asking.picture(jpeg(size)))
    (data,) = asking.server.chats[0].pictures
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == shown


def test_a_picture_goes_in_upright_in_srgb_and_without_metadata(asking: Asking) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    asking.ask(asking.picture(jpeg((400, 200), orientation=6, icc_profile=profile)), max_dimension=100)
    (data,) = asking.server.chats[0].pictures
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (50, 100))
        assert dict(picture.getexif()) == {}
        assert "icc_profile" not in picture.info
        top, bottom = picture.getpixel((25, 10)), picture.getpixel((25, 90))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert min(top) > 240  # the white half was left, and is turned up
    assert bottom[0] < 30
    assert b"named" not in data
    assert b"Exif" not in data


def test_what_is_no_picture_fails_before_anybody_is_asked(asking: Asking) -> None:
    with pytest.raises(PhotoUnreadable):
        asking.ask(asking.picture(b"no picture at all"))
    assert asking.server.chats == []


def test_a_template_of_ones_own_takes_the_place_of_the_shipped_one(asking: Asking) -> None:
    (asking.folder / "mine.txt").write_text(
        "\ufeffDescribe {title|album} for {persons}.\nIt was {time}.\nAnswer as {{JSON}}.", encoding="utf-8"
    )
    asking.ask(asking.picture(facts={"album_title": "Winter"}), prompt_template="mine.txt")
    assert asking.server.chats[0].prompt == "Describe Winter for .\nAnswer as {JSON}."


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"x" * 20_001, "more than 20000 characters"),
        (b"Describe {plaze}", "plaze.* is no placeholder. Did you mean 'place'"),
        (b"Answer as {", "stray {"),
    ],
)
def test_a_template_that_cannot_be_used_is_said_before_anything_is_begun(
    asking: Asking, content: bytes | None, wrong: str
) -> None:
    if content is not None:
        (asking.folder / "mine.txt").write_bytes(content)
    with pytest.raises(StageError, match=rf"mine\.txt.*{wrong}") as refused:
        asking.recipe(prompt_template="mine.txt").check()
    assert "llm_image_analysis.prompt_template" in refused.value.next_step
    assert asking.server.asked == []


# ── what is taken ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_becomes_the_entry_with_what_it_hangs_on(asking: Asking) -> None:
    asking.server.replies[:] = [right()]
    entry = asking.ask()
    assert entry.pop("seconds") >= 0
    prompt = asking.server.chats[0].prompt
    assert entry == {
        "model": MODEL,
        "model_digest": DIGEST,
        "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
        **answer(),
    }


def test_a_made_up_place_is_not_taken_into_a_line_and_the_entry_says_so(asking: Asking) -> None:
    asking.server.replies[:] = [right(watermark_line1="Golden slope of Chamonix", watermark_line2="Zermatt, Valais")]
    entry = asking.ask()
    assert "watermark_line1" not in entry
    assert entry["watermark_line2"] == "Zermatt, Valais"
    assert entry["description"] == answer()["description"]
    says = "says 'Chamonix', which nothing that is known of the photo says"
    assert entry["not_taken"] == {"watermark_line1": says}
    assert entry["note"] == f"watermark_line1 was not taken: it {says}"
    assert asking.ask(require_grounding=False)["watermark_line1"] == "Golden slope of Chamonix"


def test_a_template_that_tells_more_lets_lines_say_more(asking: Asking) -> None:
    asking.server.replies[:] = [right(watermark_line1="Ada on the slope")]
    assert "watermark_line1" in asking.ask()["not_taken"]
    (asking.folder / "mine.txt").write_text("Here is {persons}.")
    assert asking.ask(prompt_template="mine.txt")["watermark_line1"] == "Ada on the slope"


@pytest.mark.parametrize("bad", ["I see a skier.", json.dumps(answer(interior="perhaps")), ""])
def test_an_answer_that_breaks_the_schema_is_asked_for_once_more(asking: Asking, bad: str) -> None:
    asking.server.replies[:] = [Reply(bad), right()]
    assert asking.ask()["description"] == answer()["description"]
    first, second = asking.server.chats
    assert second.body["messages"][0] == first.body["messages"][0]
    assert [message["role"] for message in second.body["messages"]] == ["user", "assistant", "user"]
    assert "That is not what was asked for: " in second.body["messages"][2]["content"]


def test_a_second_answer_that_breaks_the_schema_fails_the_picture_with_what_was_wrong(asking: Asking) -> None:
    asking.server.replies[:] = [Reply("no"), Reply(json.dumps(answer(keywords=None, interior=None)))]
    with pytest.raises(PhotoError, match="twice: interior: field required; keywords: field required") as failed:
        asking.ask()
    assert not isinstance(failed.value, PhotoTransient)
    assert len(asking.server.chats) == 2


def test_an_answer_that_is_cut_off_fails_the_picture_and_names_the_setting(asking: Asking) -> None:
    asking.server.replies[:] = [Reply('{"description": "A ski', done_reason="length")]
    with pytest.raises(PhotoError, match=r"cut off after 300 tokens.*num_predict") as failed:
        asking.ask(num_predict=300)
    assert not isinstance(failed.value, PhotoTransient)
    assert len(asking.server.chats) == 1


def test_an_answer_without_end_is_not_read_to_its_end(asking: Asking) -> None:
    asking.server.replies[:] = [Reply("x" * 3_000_000)]
    with pytest.raises(PhotoError, match="does not end within"):
        asking.ask()


# ── errors while pictures are asked about ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error(500, "llama runner process has terminated"), "had an error .500: llama runner process has terminated"),
        (error(503, "server busy, please try again"), "503: server busy"),
        (error(429, "too many"), "429"),
        (Reply(raw=b'{"error": "an error was met\\nwhile running the model"}\n'), "an error was met while running"),
        (Reply(raw=b"<html>rubbish</html>\n"), "no answer of an Ollama server"),
        (Reply(raw=b"[]\n"), "no answer of an Ollama server"),
        (Reply(raw=b'{"message": 7, "done": true}\n'), "no answer of an Ollama server"),
        (Reply(raw=b'{"a":' + b"[" * 100_000 + b"\n"), "no answer of an Ollama server"),
        (Reply(raw=b""), "broke off"),
        (Reply(json.dumps(answer()), breaks_off=True), "failed"),
        (Reply(raw=json.dumps(answer()).encode(), breaks_off=True), "failed"),
    ],
)
def test_what_may_work_the_next_time_is_transient(asking: Asking, reply: Reply, said: str) -> None:
    asking.server.replies[:] = [reply]
    with pytest.raises(PhotoTransient, match=said):
        asking.ask()


def test_a_picture_that_the_server_does_not_take_fails_alone(asking: Asking) -> None:
    asking.server.replies[:] = [error(400, "Failed to create new sequence: failed to decode image")]
    with pytest.raises(PhotoError, match=r"does not take this picture \(400: Failed to create") as failed:
        asking.ask()
    assert not isinstance(failed.value, PhotoTransient)


@pytest.mark.parametrize(
    ("status", "said"), [(404, f"no longer has the model {MODEL}"), (401, "takes no pictures any more"), (302, "302")]
)
def test_a_server_that_takes_no_picture_at_all_pauses_the_stage(asking: Asking, status: int, said: str) -> None:
    asking.server.replies[:] = [error(status, "not today")]
    with pytest.raises(StagePaused, match=rf"{said}.*`skicyclerun run --resume` carries on"):
        asking.ask()


def test_a_model_that_is_replaced_in_between_pauses_the_stage(asking: Asking) -> None:
    def replaced(asked: Any) -> Reply:
        asking.server.models[MODEL] = Model(digest="f" * 64)
        return by_picture(asked)

    asking.server.replies[:] = [replaced]
    with pytest.raises(StagePaused, match="was replaced on the server"):
        asking.ask()


def test_a_server_that_is_slow_is_not_waited_for_beyond_the_time_out(asking: Asking) -> None:
    never = threading.Event()
    asking.server.replies[:] = [Reply(wait_for=never)]
    try:
        with pytest.raises(PhotoTransient, match=r"no answer within 0\.2 s"):
            asking.ask(timeout_seconds=0.2)
    finally:
        never.set()


def test_an_answer_that_never_comes_to_its_end_is_hung_up_on(asking: Asking) -> None:
    asking.server.replies[:] = [Reply("x", never_ends=True)]
    with pytest.raises(PhotoTransient, match=r"no answer within 0\.3 s"):
        asking.ask(timeout_seconds=0.3)
    assert asking.server.hung_up.wait(20)


def test_nobody_at_the_address_is_transient_for_a_picture(asking: Asking) -> None:
    recipe = asking.recipe()
    picture = asking.picture()
    recipe.depends_on(picture)
    recipe._client.endpoint = f"http://127.0.0.1:{unused_port()}"
    recipe.open()
    try:
        with pytest.raises(PhotoTransient, match=r"connection to the Ollama server .* failed"):
            recipe.make(picture, None)
    finally:
        recipe.close()


def test_a_picture_that_is_given_up_ends_its_question_at_once(asking: Asking) -> None:
    arrived, never = threading.Event(), threading.Event()

    def stuck(asked: Any) -> Reply:
        arrived.set()
        return Reply(wait_for=never)

    asking.server.replies[:] = [stuck]
    recipe = asking.recipe(timeout_seconds=300)
    recipe.open()
    ended: list[BaseException] = []
    picture = asking.picture()

    def ask() -> None:
        try:
            recipe.make(picture, None)
        except PhotoError as failed:
            ended.append(failed)

    thread = threading.Thread(target=ask)
    thread.start()
    assert arrived.wait(20)
    recipe.abandon(None)
    thread.join(20)
    assert not thread.is_alive()
    assert [type(each) for each in ended] == [PhotoTransient]
    never.set()
    asking.server.replies[:] = [right()]
    assert recipe.make(picture, None).facts  # and the next question is asked anew
    recipe.close()


# ── before the first picture ──────────────────────────────────────────────────────────────────────────────────────


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def refusal(asking: Asking, **section: Any) -> StageError:
    with pytest.raises(StageError) as refused:
        asking.recipe(**section).check()
    assert asking.server.chats == []
    return refused.value


def test_a_server_with_a_model_that_sees_passes(asking: Asking) -> None:
    asking.recipe().check()
    assert [asked.path for asked in asking.server.asked] == ["/api/tags", "/api/show"]


@pytest.mark.parametrize("model", ["llava", "llava:latest", "LLaVA"])
def test_a_model_without_a_tag_is_the_latest(asking: Asking, model: str) -> None:
    asking.server.models["llava:latest"] = Model(digest="1" * 64)
    asking.server.models["LLaVA"] = Model(digest="1" * 64)
    assert asking.depends(model=model)["model"] == "1" * 64


def test_no_server_at_all_is_said_with_what_to_type(asking: Asking) -> None:
    endpoint = f"http://127.0.0.1:{unused_port()}"
    refused = refusal(asking, endpoint=endpoint)
    assert str(refused) == f"No Ollama server answers at {endpoint}."
    assert "`ollama serve` starts one" in refused.next_step


def test_a_model_that_is_not_there_is_said_with_what_to_type(asking: Asking) -> None:
    refused = refusal(asking, model="llava:13b")
    assert f"has no model 'llava:13b'. It has {MODEL}." in str(refused)
    assert "`ollama pull llava:13b`" in refused.next_step
    asking.server.models.clear()
    assert "It has none at all." in str(refusal(asking))


@pytest.mark.parametrize(
    ("model", "sees"),
    [
        (Model(capabilities=("completion", "vision", "thinking")), True),
        (Model(capabilities=("completion", "tools")), False),
        (Model(capabilities=()), False),
        (Model(capabilities=None, families=("llama", "clip")), True),
        (Model(capabilities=None, families=("mllama",)), True),
        (Model(capabilities=None, model_info={"gemma3.vision.block_count": 27}), True),
        (Model(capabilities=None, families=("llama",)), False),
    ],
)
def test_a_model_has_to_see(asking: Asking, model: Model, sees: bool) -> None:
    asking.server.models[MODEL] = model
    if sees:
        return asking.recipe().check()
    refused = refusal(asking)
    assert f"The model {MODEL} at {asking.server.endpoint} cannot see pictures." in str(refused)
    assert "ollama pull" in refused.next_step


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (Reply(raw=b"<html>It works!</html>"), "no Ollama server, or one that is too old"),
        (Reply(raw=b'{"models": null}'), "no Ollama server, or one that is too old"),
        (Reply(raw=b"[1]"), "no Ollama server, or one that is too old"),
        (Reply(status=404, raw=b"404 page not found"), "gives 404 .*404 page not found"),
        (Reply(status=302, raw=b""), "gives 302"),
        (Reply(status=500, raw=b"\x1b[31moops"), r"gives 500.*: \[31moops"),
        (Reply(status=401, raw=b'{"error": "unauthorized"}'), "wants you to sign in: unauthorized"),
        (Reply(raw=b'{"models": []}', breaks_off=True), "No Ollama server answers"),
    ],
)
def test_what_is_no_ollama_server_is_said(asking: Asking, tags: Reply, said: str) -> None:
    asking.server.tags = tags
    with pytest.raises(StageError, match=said) as refused:
        asking.recipe().check()
    assert refused.value.next_step


def test_a_server_elsewhere_is_told_where_to_type(asking: Asking) -> None:
    # 127.0.0.2 is this machine as well, but not by a name that is known for it.
    endpoint = f"http://127.0.0.2:{unused_port()}"
    assert f"on the machine of {endpoint}" in refusal(asking, endpoint=endpoint).next_step


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{unused_port()}")
    asking.recipe().check()


# ── what a result depends on ──────────────────────────────────────────────────────────────────────────────────────


def test_all_that_decides_the_answer_is_in_depends_on_and_nothing_else(asking: Asking) -> None:
    (asking.folder / "mine.txt").write_text("Describe {title}.")
    first = asking.depends()
    assert asking.depends() == first
    for same in ({"workers": 3}, {"timeout_seconds": 9}, {"keep_alive": 5}, {"retries": {"attempts": 1}}):
        assert asking.depends(**same) == first
    settings: tuple[dict[str, Any], ...] = (
        {"temperature": 0.7},
        {"seed": 1},
        {"num_predict": 900},
        {"max_dimension": 512},
        {"require_grounding": False},
        {"prompt_template": "mine.txt"},
    )
    facts: tuple[dict[str, Any], ...] = (
        {"title": "Down"},
        {"date_taken": "2024-07-28T10:05:00"},
        {"keywords": []},
        {"location": {}},
    )
    ways = [first, *(asking.depends(**other) for other in settings)]
    ways += [asking.depends({**FACTS, **other}) for other in facts]
    (asking.folder / "mine.txt").write_text("Describe {title}!")
    ways.append(asking.depends(prompt_template="mine.txt"))
    asking.server.models[MODEL] = Model(digest="2" * 64)
    ways.append(asking.depends())
    assert all(ways.count(each) == 1 for each in ways)


def test_facts_that_the_prompt_does_not_tell_mean_nothing(asking: Asking) -> None:
    assert asking.depends({**FACTS, "persons": ["Bea"], "album_title": "x", "exif": {"iso": 100}}) == asking.depends()


def test_which_model_there_is_is_asked_once_for_a_whole_run(asking: Asking) -> None:
    recipe = asking.recipe()
    for number in range(20):
        recipe.depends_on(asking.picture(facts={"title": str(number)}))
    assert [asked.path for asked in asking.server.asked] == ["/api/tags", "/api/show"]


def test_a_server_that_is_gone_when_an_album_is_planned_pauses_the_stage(asking: Asking) -> None:
    with pytest.raises(StagePaused, match=r"No Ollama server answers.*`ollama serve`.*run --resume"):
        asking.depends(endpoint=f"http://127.0.0.1:{unused_port()}")


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://localhost:11434", "http://localhost:11434"),
        ("http://localhost:11434/", "http://localhost:11434"),
        ("http://localhost:11434/api/generate", "http://localhost:11434"),
        ("https://ollama.example.org", "https://ollama.example.org"),
        ("https://example.org/ollama/api", "https://example.org/ollama"),
        ("192.168.1.7", "http://192.168.1.7:11434"),
        ("studio.local:8080", "http://studio.local:8080"),
        ("http://[::1]:11434", "http://[::1]:11434"),
    ],
)
def test_an_address_is_understood_as_people_write_it(written: str, meant: str) -> None:
    assert LlmImageAnalysisSettings.model_validate({"endpoint": written}).endpoint == meant


@pytest.mark.parametrize(
    "section",
    [
        {"endpoint": "ftp://localhost"},
        {"endpoint": "http://"},
        {"endpoint": "http://localhost:99999"},
        {"endpoint": "http://me:secret@localhost:11434"},
        {"temperature": 3},
        {"temperature": float("nan")},
        {"num_predict": -1},
        {"keep_alive": "soon"},
        {"timeout_seconds": 0},
        {"model": ""},
        {"max_dimension": 10},
    ],
)
def test_a_wrong_value_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        LlmImageAnalysisSettings.model_validate(section)
    assert "secret" not in str(refused.value.errors(include_input=False))


def test_a_picture_has_time_for_two_answers_unless_it_is_said_otherwise() -> None:
    def photo(section: dict[str, Any]) -> float:
        settings = LlmImageAnalysisSettings.model_validate(section)
        again = LlmImageAnalysisSettings.model_validate_json(settings.model_dump_json())
        assert again == settings
        return settings.timeouts.photo

    assert photo({}) == 420
    assert photo({"timeout_seconds": 600}) == 1260
    assert photo({"timeout_seconds": 600, "timeouts": {"album": 50}}) == 1260
    assert photo({"timeout_seconds": 600, "timeouts": {"photo": 700}}) == 700


def test_a_client_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    """It makes a client for itself when it is imported, from variables that may hold anything."""
    program = (
        "from pathlib import Path\n"
        "from skicyclerun.errors import StageError\n"
        "from skicyclerun.stages.llm_image_analysis import LlmImageAnalysis, LlmImageAnalysisSettings\n"
        "from skicyclerun.stages.stage import Surroundings\n"
        "try:\n"
        "    LlmImageAnalysis(LlmImageAnalysisSettings(), Surroundings(Path(), Path(), Path())).check()\n"
        "except StageError as error:\n"
        "    print(error, error.next_step)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment({"OLLAMA_HOST": "http://here:no-port"}),
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert "The package ollama cannot be loaded (ValueError" in shown
    assert "OLLAMA_HOST" in shown
