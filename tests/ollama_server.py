"""An Ollama server on the loopback: plays `/api/tags`, `/api/show` and `/api/chat`, well and badly, and notes what it
is asked.

The shapes are those of Ollama's docs/api.md (August 2026). By itself it answers every picture rightly and always the
same, from the picture's bytes alone, so that runs can be compared. By hand:
`python -m tests.ollama_server --port 11434`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

MODEL: Final = "qwen2.5vl:7b"
DIGEST: Final = "5ced39dfa4bac325dc183dd1e4febaa1c46b3ea28bce48896c8e69c1e79611cc"


@dataclass(frozen=True)
class Model:
    """One that the server has."""

    digest: str = DIGEST
    capabilities: tuple[str, ...] | None = ("completion", "vision")
    """None: the server is older than they are (0.6.4)."""
    families: tuple[str, ...] = ("qwen25vl",)
    model_info: Mapping[str, Any] = field(default_factory=lambda: {"general.architecture": "qwen25vl"})


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    body: dict[str, Any]

    @property
    def pictures(self) -> list[bytes]:
        """The pictures of a chat, decoded."""
        messages = self.body.get("messages", ())
        return [base64.b64decode(image) for message in messages for image in message.get("images") or ()]

    @property
    def prompt(self) -> str:
        """The first message of a chat."""
        return str(self.body["messages"][0]["content"])


@dataclass(frozen=True)
class Reply:
    """What is said to a chat. `text` comes in pieces where the client asks for a stream, which is the default there."""

    text: str = ""
    status: int = 200
    done_reason: str = "stop"
    raw: bytes | None = None
    """In the place of everything else that would be in the body."""
    wait_for: threading.Event | None = None
    """Before anything is answered."""
    breaks_off: bool = False
    """The connection ends in the middle."""
    never_ends: bool = False
    """Piece after piece, until the client hangs up."""


Replying = Reply | Callable[[Asked], Reply]


def answer(**changes: Any) -> dict[str, Any]:
    """A right answer, with other values for some keys; None leaves the key out."""
    whole: dict[str, Any] = {
        "description": "A skier goes down a snowy slope in the golden light of the morning, with quiet peaks behind.",
        "primary_subject": "a skier",
        "secondary_elements": ["snowy peaks", "a few clouds"],
        "atmosphere": "calm and golden",
        "activity": "skiing",
        "scene_type": "mountains",
        "interior": False,
        "keywords": ["ski", "snow", "mountains", "morning"],
        "watermark_line1": "Golden morning on the slope",
        "watermark_line2": "Quiet peaks",
    }
    return {key: value for key, value in (whole | changes).items() if value is not None}


def right(**changes: Any) -> Reply:
    """A right answer as a reply."""
    return Reply(json.dumps(answer(**changes)))


def by_picture(asked: Asked) -> Reply:
    """A right answer that is another one for another picture, and always the same for the same."""
    seen = hashlib.sha256(asked.pictures[0]).hexdigest()[:8]
    return right(primary_subject=f"a skier no. {seen}", keywords=["ski", seen])


def error(status: int, text: str) -> Reply:
    """An error as Ollama words it."""
    return Reply(status=status, raw=json.dumps({"error": text}).encode())


@dataclass
class OllamaServer:
    """One that runs. `replies` are used up one after the other, the last one for ever; `models` may be changed."""

    endpoint: str
    models: dict[str, Model]
    replies: list[Replying]
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    tags: Reply | None = None
    """What `/api/tags` says in the place of the models."""
    show: Reply | None = None
    hung_up: threading.Event = field(default_factory=threading.Event)
    """A client has hung up on an answer that never ends."""
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def chats(self) -> list[Asked]:
        """The requests that were about pictures."""
        with self._lock:
            return [asked for asked in self.asked if asked.path == "/api/chat"]

    def pictures(self) -> list[str]:
        """SHA-256 of the picture of each chat, in order."""
        return [hashlib.sha256(chat.pictures[0]).hexdigest() for chat in self.chats]

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def reply(self, asked: Asked) -> Reply:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            said = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        try:
            if not self.has(asked.body.get("model")):
                return error(404, f"model '{asked.body.get('model')}' not found")
            said = said(asked) if callable(said) else said
            if said.wait_for is not None:
                said.wait_for.wait(60)
            return said
        finally:
            with self._lock:
                self._at_once -= 1

    def has(self, name: object) -> str:
        """The whole name of a model that is there; without a tag `latest` is meant. Empty for none."""
        return next((each for each in self.models if each in (name, f"{name}:latest")), "")


@contextmanager
def start(*replies: Replying, models: Mapping[str, Model] | None = None, port: int = 0) -> Iterator[OllamaServer]:
    """Run one, until the end of the block. Without replies every picture is answered rightly (`by_picture`)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            played.note(Asked(self.path, {}))
            if self.path != "/api/tags":
                return self._say(Reply(status=404, raw=b"404 page not found"))
            models = [
                {
                    "name": name,
                    "model": name,
                    "modified_at": "2026-05-04T17:37:44.706015396-07:00",
                    "size": 5969245856,
                    "digest": model.digest,
                    "details": {"format": "gguf", "family": model.families[0], "families": list(model.families)},
                }
                for name, model in played.models.items()
            ]
            self._say(played.tags or Reply(raw=json.dumps({"models": models}).encode()))

        def do_POST(self) -> None:
            asked = Asked(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            played.note(asked)
            match self.path:
                case "/api/show":
                    self._say(played.show or self._shown(asked))
                case "/api/chat":
                    self._chat(asked, played.reply(asked))
                case _:
                    self._say(Reply(status=404, raw=b"404 page not found"))

        def _shown(self, asked: Asked) -> Reply:
            if not (name := played.has(asked.body.get("model"))):
                return error(404, f"model '{asked.body.get('model')}' not found")
            model = played.models[name]
            said: dict[str, Any] = {
                "modelfile": f"FROM {name}",
                "parameters": "",
                "template": "{{ .Prompt }}",
                "details": {"format": "gguf", "family": model.families[0], "families": list(model.families)},
                "model_info": dict(model.model_info),
            }
            if model.capabilities is not None:
                said["capabilities"] = list(model.capabilities)
            return Reply(raw=json.dumps(said).encode())

        def _chat(self, asked: Asked, reply: Reply) -> None:
            if reply.raw is not None or reply.status != 200:
                return self._say(reply)
            if asked.body.get("stream", True) is False:
                part = _part(asked, reply.text, reply)
                return self._say(Reply(raw=json.dumps(part).encode(), breaks_off=reply.breaks_off))
            size = max(1, len(reply.text) // 4)
            pieces = [reply.text[at : at + size] for at in range(0, len(reply.text), size)]
            with suppress(OSError):  # the client did not wait
                self.send_response(200)
                self.send_header("Content-Type", "application/x-ndjson")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in pieces[: len(pieces) // 2 if reply.breaks_off else None]:
                    self._chunk(_part(asked, piece))
                if reply.breaks_off:
                    return self._hang_up()
                if reply.never_ends:
                    return self._go_on_for_ever(asked)
                self._chunk(_part(asked, "", reply))
                self.wfile.write(b"0\r\n\r\n")

        def _go_on_for_ever(self, asked: Asked) -> None:
            try:
                while not never.wait(0.01):
                    self._chunk(_part(asked, " "))
            except OSError:
                played.hung_up.set()

        def _chunk(self, part: Mapping[str, Any]) -> None:
            line = json.dumps(part).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

        def _say(self, reply: Reply) -> None:
            data = reply.raw or b""
            with suppress(OSError):
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if reply.breaks_off else data)
                if reply.breaks_off:
                    self._hang_up()

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            pass

    never = threading.Event()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that was killed

    server = Server(("127.0.0.1", port), Handler)
    played = OllamaServer(
        f"http://127.0.0.1:{server.server_port}",
        dict(models if models is not None else {MODEL: Model()}),
        list(replies) or [by_picture],
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield played
    finally:
        never.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _part(asked: Asked, text: str, last: Reply | None = None) -> dict[str, Any]:
    """One object of a stream, or the only one."""
    part: dict[str, Any] = {
        "model": asked.body["model"],
        "created_at": "2026-05-04T19:22:45.499127Z",
        "message": {"role": "assistant", "content": text},
        "done": last is not None,
    }
    if last is not None:
        part |= {"done_reason": last.done_reason, "total_duration": 4883583458, "eval_count": 282}
    return part


def main() -> None:
    """Run one for a person, until Ctrl-C."""
    parser = argparse.ArgumentParser(description="plays an Ollama server; every picture gets the same kind of answer")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", action="append", help=f"a model that it has (default: {MODEL})")
    options = parser.parse_args()
    with start(models={name: Model() for name in options.model or [MODEL]}, port=options.port) as server:
        print(f"{server.endpoint} has {', '.join(server.models)}; Ctrl-C ends it", flush=True)  # noqa: T201
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        print(f"{len(server.chats)} pictures were asked about")  # noqa: T201


if __name__ == "__main__":
    main()
