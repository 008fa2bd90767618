"""The stage `llm_image_analysis`: a language model that sees describes each picture; the server is Ollama.

docs/models.md says how to set it up, and what the prompt template is.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from skicyclerun.errors import PhotoError, SkicyclerunError, StageError, StagePaused
from skicyclerun.settings.section import Seconds, StageSection, StageTimeouts, Text
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.stages.llm_answer import MAX_ANSWER, AnswerRefused, Kept, kept_of, read_answer, schema, words_of
from skicyclerun.stages.ollama_client import Message, OllamaClient
from skicyclerun.stages.stage import Made, Picture, Recipe, Stage, Surroundings
from skicyclerun.stages.watermark_text import Facts, clean, parse

KEY: Final = "llm_image_analysis"
#: Characters of a prompt template.
MAX_TEMPLATE: Final = 20_000
#: Of a refused answer so much is shown to the model again.
_SHOWN_AGAIN: Final = 2_000
#: Seconds that a picture may take besides its two askings.
_BESIDES: Final = 60.0
_KEEP_ALIVE: Final = re.compile(r"-?\d+(\.\d+)?(ns|us|ms|s|m|h)")

_MONTHS: Final = "January February March April May June July August September October November December".split()


# ── the section ───────────────────────────────────────────────────────────────────────────────────────────────────


def _endpoint(value: object) -> object:
    """Scheme, host and port; older pipelines name the address of a single question (`…/api/generate`)."""
    if not isinstance(value, str):
        return value
    text = value.strip() if "://" in value else f"http://{value.strip()}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be an address such as http://127.0.0.1:11434, not {value!r:.80}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a name or a password; Ollama takes a key from the variable OLLAMA_API_KEY")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is None and "://" not in value:
        port = 11434
    path = re.sub(r"/api(/.*)?$", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{path}"


def _keep_alive(value: object) -> object:
    if isinstance(value, str) and not _KEEP_ALIVE.fullmatch(value):
        raise ValueError(f"must be a time such as 10m or 1h, or a number of seconds (-1: for ever), not {value!r:.40}")
    return value


class LlmTimeouts(StageTimeouts):
    """Seconds. A model takes some seconds to a minute for a picture, so albums take hours."""

    photo: Seconds = 420.0
    album: Seconds = 86_400.0
    run: Seconds = 604_800.0


class LlmImageAnalysisSettings(StageSection):
    """The section `llm_image_analysis`."""

    timeouts: LlmTimeouts = LlmTimeouts()
    endpoint: Annotated[Text, BeforeValidator(_endpoint)] = "http://127.0.0.1:11434"
    model: Text = "qwen2.5vl:7b"
    timeout_seconds: Seconds = 180.0
    """For one answer. A picture has time for two of them, unless `timeouts.photo` says otherwise."""
    temperature: float = Field(default=0.2, ge=0, le=2, allow_inf_nan=False)
    num_predict: int = Field(default=800, ge=50, le=32_768)
    """Tokens of an answer, at most."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    keep_alive: Annotated[str | int, BeforeValidator(_keep_alive)] = "10m"
    """How long the server keeps the model in memory after an answer."""
    max_dimension: int = Field(default=1024, ge=64, le=8192)
    """Pixels of the longest side of what the model is shown."""
    prompt_template: Text | None = None
    """A text file; relative to the folder of the configuration file. None: the one that is shipped."""
    require_grounding: bool = True
    """A watermark line with a name that the facts do not hold is not taken."""

    @model_validator(mode="before")
    @classmethod
    def _time_for_two_answers(cls, section: Any) -> Any:
        if isinstance(section, Mapping) and isinstance(seconds := section.get("timeout_seconds"), int | float):
            timeouts = section.get("timeouts", {})
            if isinstance(timeouts, Mapping) and "photo" not in timeouts and 0 < seconds <= 10_000_000:
                return {**section, "timeouts": {**timeouts, "photo": 2.0 * seconds + _BESIDES}}
        return section


# ── the prompt ────────────────────────────────────────────────────────────────────────────────────────────────────


#: Facts that name places, which a watermark line may use whether the prompt tells them or not.
_OF_PLACES: Final = ("place", "location", "city", "county", "state", "country", "road", "title", "keywords", "month")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked of one picture."""

    text: str
    known: frozenset[str]
    """The words that a name in a watermark line may be made of: those of places, and of all that the text tells."""


class PromptTemplate:
    """The lines of a prompt, taken apart."""

    def __init__(self, text: str) -> None:
        """Raises ValueError with a sentence for an unknown placeholder or a stray brace."""
        self._lines = tuple(parse(line) for line in text.splitlines())
        asked = (part for line in self._lines for part in line.parts if not isinstance(part, str))
        self._names = tuple(dict.fromkeys((*_OF_PLACES, *(name for part in asked for name in part))))

    def prompt_for(self, facts: Mapping[str, Any]) -> Prompt:
        """The prompt for a picture of which this is known (`Picture.facts`).

        A line with placeholders of which none is known is left out.
        """
        source = Facts(facts)
        texts = {name: source.text(name) for name in self._names}
        filled = []
        for line in self._lines:
            parts = [part if isinstance(part, str) else _first_known(part, texts) for part in line.parts]
            told = [text for text, part in zip(parts, line.parts, strict=True) if not isinstance(part, str)]
            if any(told) or not told:
                filled.append("".join(parts))
        words = [*texts.values(), _name_of(facts.get("location"))]
        if month := texts["month"]:
            words.append(_MONTHS[int(month) - 1])
        return Prompt("\n".join(filled).strip(), words_of(words))


def _first_known(names: Sequence[str], texts: Mapping[str, str]) -> str:
    return next(filter(None, (texts[name] for name in names)), "")


def _name_of(location: object) -> str:
    """What the place itself is called (a hut, a peak), where a geocoder said so."""
    name = location.get("name") if isinstance(location, Mapping) else None
    return clean(name) if isinstance(name, str) else ""


def read_template(settings: LlmImageAnalysisSettings, config_folder: Path) -> PromptTemplate:
    """Raises StageError where it cannot be read, or holds what is no placeholder."""
    if settings.prompt_template is None:
        file = shipped_file("llm_prompt.txt")
    else:
        file = config_folder / Path(settings.prompt_template).expanduser()
    step = "llm_image_analysis.prompt_template names it; without that the shipped one is used (docs/models.md)."
    try:
        with file.open(encoding="utf-8-sig") as stream:
            text = stream.read(MAX_TEMPLATE + 1)
    except OSError as error:
        problem = f"The prompt template {file} cannot be read: {error.strerror or error}."
        raise StageError(problem, next_step=step) from error
    except UnicodeDecodeError as error:
        raise StageError(f"The prompt template {file} is no text in UTF-8.", next_step=step) from error
    if len(text) > MAX_TEMPLATE:
        raise StageError(f"The prompt template {file} has more than {MAX_TEMPLATE} characters.", next_step=step)
    if not text.strip():
        raise StageError(f"The prompt template {file} is empty.", next_step=step)
    try:
        return PromptTemplate(text)
    except ValueError as error:
        raise StageError(f"The prompt template {file}: {error}", next_step=step) from error


# ── the recipe ────────────────────────────────────────────────────────────────────────────────────────────────────


class LlmImageAnalysis(Recipe):
    """Shows one picture after the other to the model."""

    at_once = 1
    costly = True

    def __init__(self, settings: LlmImageAnalysisSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._config_folder = surroundings.config_folder
        self._client = OllamaClient(settings.endpoint, settings.model, settings.timeout_seconds)
        self._lock = threading.Lock()
        self._schema = schema()
        self._digest: str | None = None
        self._template: PromptTemplate | None = None

    def check(self) -> None:
        """Raises StageError where the template, the server or the model is not there, or the model cannot see."""
        self._ready()

    def open(self) -> None:
        self._client.open()

    def _ready(self) -> tuple[PromptTemplate, str]:
        """The template and the model's digest, looked for once."""
        with self._lock:
            if self._template is None:
                self._template = read_template(self._settings, self._config_folder)
            if self._digest is None:
                self._digest = self._client.look()
            return self._template, self._digest

    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        """Raises StagePaused where the server is gone since the run began: which model it has decides."""
        try:
            template, digest = self._ready()
        except StageError as error:
            raise _paused(f"{error} {error.next_step}") from error
        prompt = template.prompt_for(picture.facts)
        settings = self._settings
        said: dict[str, object] = {
            "model": digest,
            "prompt": _sha256(prompt.text),
            "options": self._options(),
            "max_dimension": settings.max_dimension,
        }
        if settings.require_grounding:
            said["known"] = sorted(prompt.known)
        return said

    def _options(self) -> dict[str, object]:
        settings = self._settings
        return {
            "temperature": float(settings.temperature),
            "num_predict": settings.num_predict,
            "seed": settings.seed,
        }

    def make(self, picture: Picture, staged: Path | None) -> Made:
        """Ask the model; its answer is `llm_image_analysis` of the photo's entry."""
        from skicyclerun.images.scale import scaled_jpeg

        template, digest = self._ready()
        prompt = template.prompt_for(picture.facts)
        shown = scaled_jpeg(picture.path, self._settings.max_dimension)
        known = prompt.known if self._settings.require_grounding else None
        began = time.monotonic()
        try:
            kept = self._asked(prompt.text, shown, known)
            if self._client.digest() != digest:
                raise StagePaused(f"the model {self._settings.model} was replaced on the server since the run began")
        except StagePaused as error:
            sentence = str(error)
            raise _paused(f"{sentence[:1].upper()}{sentence[1:]}.") from error
        entry: dict[str, Any] = {
            "model": self._settings.model,
            "model_digest": digest,
            "prompt_sha256": _sha256(prompt.text),
            "seconds": round(time.monotonic() - began, 1),
            **kept.facts,
        }
        if kept.refused:
            entry["not_taken"] = kept.refused
        note = "; ".join(f"{line} was not taken: it {why}" for line, why in kept.refused.items())
        return Made({KEY: entry}, note=note)

    def _asked(self, prompt: str, shown: bytes, known: frozenset[str] | None) -> Kept:
        """The answer; asked for once more where it breaks the schema. Raises PhotoError where that one does too."""
        messages: list[Message] = [{"role": "user", "content": prompt, "images": [shown]}]
        for last in (False, True):
            said = self._client.chat(messages, self._schema, self._options(), self._settings.keep_alive, MAX_ANSWER)
            if said.cut_off:
                raise PhotoError(
                    f"the model's answer was cut off after {self._settings.num_predict} tokens; a larger "
                    "llm_image_analysis.num_predict gives it more room"
                )
            try:
                return kept_of(read_answer(said.text), known)
            except AnswerRefused as error:
                if last:
                    raise PhotoError(f"the model's answer is not what it was asked for, twice: {error}") from error
                again = f"That is not what was asked for: {error}. Answer again, with one JSON object of those keys."
                messages += [
                    {"role": "assistant", "content": said.text[:_SHOWN_AGAIN]},
                    {"role": "user", "content": again},
                ]
        raise AssertionError("unreachable: the second answer is taken or refused")

    def abandon(self, staged: Path | None) -> None:
        """End what is being asked: a picture whose time is up, or all of it. Others in hand are asked again."""
        self._client.abandon()

    def close(self) -> None:
        self._client.close()


def _paused(sentence: str) -> SkicyclerunError:
    return StagePaused(
        f"llm_image_analysis: {sentence} It goes no further in this run; what was made is kept, and the other stages "
        "go on. `skicyclerun run --resume` carries on with it.",
        because=f"llm_image_analysis: {sentence}",
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


STAGE: Final = Stage(
    "llm_image_analysis",
    "describes pictures with a language model that sees, into the catalog",
    needs_paths=("apple_photos_export", "master_catalog"),
    needs_packages=("ollama",),
    extra="llm",
    section="llm_image_analysis",
    settings=LlmImageAnalysisSettings,
    recipe=LlmImageAnalysis,
    reads="export",
    has_model=True,
)
