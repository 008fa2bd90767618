"""Talks to an Ollama server through its own Python client, and says in our words what goes wrong.

The one boundary to the packages `ollama` and `httpx`, which are imported when somebody is asked. What the client does
was read in its source (ollama 0.6, httpx 0.28): errors of the server are `ResponseError` with the status, or -1 where
they come within a stream; a refused connection is `ConnectionError`, within a stream httpx's own `ConnectError`; all
other errors of the connection are httpx's; what is no answer of Ollama raises whatever its models raise.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from skicyclerun.errors import PhotoError, PhotoTransient, StageError, StagePaused

#: Seconds for a connection, and for the questions that cost the server nothing.
_CONNECT_SECONDS: Final = 5.0
_QUESTION_SECONDS: Final = 30.0
#: Characters of what a server says of an error.
_SHOWN: Final = 300
#: Families of models with eyes, for servers before 0.6.4, which do not name capabilities.
_SEEING_FAMILIES: Final = frozenset({"clip", "mllama"})

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A model's answer."""

    text: str
    cut_off: bool
    """`num_predict` was not enough for it."""


class OllamaClient:
    """One server and one of its models. Safe from several threads once it is open."""

    def __init__(self, endpoint: str, model: str, seconds: float) -> None:
        self.endpoint = endpoint
        self.model = model
        self._seconds = seconds
        self._client: Any = None
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    # ── before the first picture ──────────────────────────────────────────────────────────────────────────────────

    def look(self) -> str:
        """Digest of the model, once it is clear that the server is there, has it, and that it can see.

        Raises StageError with what to type. Opens a connection of its own, and closes it.
        """
        _check_package()
        with _as_stage_error(self), self._new_client(_QUESTION_SECONDS) as client:
            listed = {each.model: each.digest for each in client.list().models if each.model}
            name = self._name_among(listed)
            if name is None:
                have = f"It has {', '.join(sorted(listed)[:12])}." if listed else "It has none at all."
                raise StageError(
                    f"The Ollama server at {self.endpoint} has no model {self.model!r}. {have}",
                    next_step=f"`ollama pull {self.model}`{self._where()} fetches it, or name another in "
                    "llm_image_analysis.model.",
                )
            shown = client.show(self.model)
        if not _sees(shown):
            raise StageError(
                f"The model {name} at {self.endpoint} cannot see pictures.",
                next_step="Name one that can in llm_image_analysis.model, and fetch it: "
                f"`ollama pull qwen2.5vl:7b`{self._where()} (docs/models.md has others).",
            )
        return listed[name] or ""

    def _name_among(self, names: Mapping[str, Any]) -> str | None:
        """Without a tag `latest` is meant; capitals mean nothing."""
        wanted = {self.model.casefold(), f"{self.model}:latest".casefold()}
        return next((name for name in names if name.casefold() in wanted), None)

    def _where(self) -> str:
        return "" if _is_here(self.endpoint) else f" on the machine of {self.endpoint}"

    # ── pictures ──────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Make ready for `chat`; no connection yet."""
        self._closed = False
        self._client = self._new_client(self._seconds)

    def close(self) -> None:
        """Let go of the connections; what is being asked ends with an error."""
        self._closed = True
        self.abandon()
        if self._client is not None:
            self._client.close()
            self._client = None

    def abandon(self) -> None:
        """End what is being asked, from any thread; the server stops its work when the connection is gone."""
        with self._lock:
            open_now = list(self._sockets)
        for each in open_now:
            _hang_up(each)

    def chat(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any],
        options: Mapping[str, Any],
        keep_alive: str | float,
        most: int,
    ) -> Said:
        """The model's answer to a conversation, read as it comes; of more than `most` characters the beginning.

        Raises PhotoTransient where it may work the next time, PhotoError where the server does not take this picture,
        StagePaused where it takes none.
        """
        until = time.monotonic() + self._seconds
        pieces: list[str] = []
        length, reason, done = 0, None, False
        with _as_photo_error(self):
            # Thinking costs tokens and time, and none of it is kept; a server that does not know the word ignores it.
            parts = self._client.chat(
                model=self.model,
                messages=messages,
                stream=True,
                think=False,
                format=dict(schema),
                options=dict(options),
                keep_alive=keep_alive,
            )
            with contextlib.closing(parts):
                for part in parts:
                    piece = part.message.content or ""
                    pieces.append(piece)
                    length += len(piece)
                    done, reason = bool(part.done), part.done_reason
                    if length > most:
                        return Said("".join(pieces)[: most + 1], cut_off=False)
                    if not done and time.monotonic() > until:
                        raise PhotoTransient(_no_answer(self._seconds))
        if not done:
            raise PhotoTransient("the Ollama server broke off in the middle of its answer")
        return Said("".join(pieces), cut_off=reason == "length")

    def digest(self) -> str:
        """Of the model, as the server has it now. Raises as `chat`."""
        with _as_photo_error(self):
            listed = {each.model: each.digest for each in self._client.list().models if each.model}
        name = self._name_among(listed)
        if name is None:
            raise StagePaused(f"the Ollama server at {self.endpoint} no longer has the model {self.model}")
        return listed[name] or ""

    def _new_client(self, seconds: float) -> Any:
        import httpx
        from ollama import Client

        return Client(
            self.endpoint,
            timeout=httpx.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds)),
            follow_redirects=False,  # a picture goes where the configuration says, and nowhere else
            trust_env=not _is_here(self.endpoint),  # nor through a proxy, to this machine itself
            event_hooks={"request": [self._watch]},
        )

    def _watch(self, request: Any) -> None:
        """Have httpx tell of the sockets it opens: only so can a thread that waits for an answer be woken."""
        request.extensions["trace"] = self._note_socket

    def _note_socket(self, event: str, info: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            opened = info["return_value"].get_extra_info("socket")
            if opened is not None:
                with self._lock:
                    self._sockets.add(opened)
                if self._closed:
                    _hang_up(opened)


def _hang_up(connection: socket.socket) -> None:
    """Closing it would not wake a thread that reads from it; this does, through TLS too."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _check_package() -> None:
    """Raises StageError where the client cannot be loaded. It makes a client for itself when it is imported, and falls
    over variables that are meant for that.
    """
    try:
        import ollama  # noqa: F401
    except Exception as error:
        raise StageError(
            f"The package ollama cannot be loaded ({type(error).__name__}: {error}).",
            next_step="Are the variables OLLAMA_HOST and those of proxies (HTTP_PROXY, ALL_PROXY) what they should be? "
            'Else install it again: `pip install --upgrade --force-reinstall "skicyclerun[llm]"`.',
        ) from error


def _is_here(endpoint: str) -> bool:
    return urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1")


def _sees(shown: Any) -> bool:
    if shown.capabilities is not None:
        return "vision" in shown.capabilities
    families = {str(family).lower() for family in (shown.details and shown.details.families) or ()}
    return bool(families & _SEEING_FAMILIES) or any(".vision." in str(key) for key in shown.modelinfo or {})


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _as_stage_error(client: OllamaClient) -> Iterator[None]:
    import httpx
    from ollama import ResponseError

    where = client.endpoint
    change = "or name another in llm_image_analysis.endpoint."
    try:
        yield
    except httpx.TimeoutException as error:
        raise StageError(
            f"The Ollama server at {where} does not answer.", next_step=f"Start it again (`ollama serve`), {change}"
        ) from error
    except (ConnectionError, httpx.TransportError) as error:
        raise StageError(
            f"No Ollama server answers at {where}.",
            next_step=f"`ollama serve`{client._where()} starts one, {change} It is to be had at "
            "https://ollama.com/download.",
        ) from error
    except ResponseError as error:
        if error.status_code in (401, 403):
            raise StageError(
                f"The Ollama server at {where} wants you to sign in: {_shown(error)}.",
                next_step=f"Set OLLAMA_API_KEY to its key, {change}",
            ) from error
        raise StageError(
            f"What answers at {where} gives {error.status_code} for a question that every Ollama server answers: "
            f"{_shown(error)}.",
            next_step=f"`ollama serve` starts a server, {change}",
        ) from error
    except _no_ollama() as error:
        raise StageError(
            f"What answers at {where} is no Ollama server, or one that is too old.",
            next_step=f"Version 0.5 or later is needed: `ollama --version`, {change}",
        ) from error


@contextlib.contextmanager
def _as_photo_error(client: OllamaClient) -> Iterator[None]:
    import httpx
    from ollama import ResponseError

    where = client.endpoint
    try:
        yield
    except httpx.TimeoutException as error:
        raise PhotoTransient(_no_answer(client._seconds)) from error
    except (ConnectionError, httpx.TransportError) as error:
        raise PhotoTransient(f"the connection to the Ollama server at {where} failed ({error})") from error
    except ResponseError as error:
        status, said = error.status_code, _shown(error)
        if status == 404:
            raise StagePaused(f"the Ollama server at {where} no longer has the model {client.model}") from error
        if status in (301, 302, 303, 307, 308, 401, 403, 405):
            raise StagePaused(f"the Ollama server at {where} takes no pictures any more ({status}: {said})") from error
        if 400 <= status < 500 and status not in (408, 425, 429):
            raise PhotoError(f"the Ollama server does not take this picture ({status}: {said})") from error
        number = f"{status}: " if status >= 0 else ""
        raise PhotoTransient(f"the Ollama server had an error ({number}{said})") from error
    except _no_ollama() as error:
        raise PhotoTransient(f"what came from {where} is no answer of an Ollama server") from error


def _no_ollama() -> tuple[type[Exception], ...]:
    """What the client raises over an answer that is no JSON, or another one than Ollama's."""
    import httpx

    return (httpx.HTTPError, httpx.StreamError, ValueError, TypeError, AttributeError, KeyError, RecursionError)


def _no_answer(seconds: float) -> str:
    return f"no answer within {seconds:g} s (llm_image_analysis.timeout_seconds)"


def _shown(error: Any) -> str:
    """What a server said of an error, on one line."""
    from skicyclerun.stages.watermark_text import clean

    return clean(str(error.error), _SHOWN).removesuffix(".") or "without a word"
