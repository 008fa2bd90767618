"""A proxy before a bucket's service: notes what goes through, and does to it what a test asks for."""

from __future__ import annotations

import base64
import hashlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    """Decoded: `/bucket/key`."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def key(self) -> str:
        """Of the object; empty for the bucket itself."""
        return self.path.lstrip("/").partition("/")[2]

    @property
    def sends_object(self) -> bool:
        """Whether it is one PUT of a whole object, not a copy and not a part."""
        return self.method == "PUT" and bool(self.key) and not self.query and "x-amz-copy-source" not in self.headers


@dataclass(frozen=True)
class Bad:
    """What the proxy does instead of passing a request on as it is. Only one of them."""

    status: int = 0
    code: str = "SlowDown"
    message: str = "Please reduce your request rate."
    reset: bool = False
    """The connection is torn before the service hears of it."""
    reset_after: bool = False
    """… after it has done what was asked."""
    silent: bool = False
    """Nothing is answered until the test lets go, or the client gives up."""
    spoil: bool = False
    """One bit of the body is another one when it arrives; S3 sees it by the checksum (moto looks at none)."""
    other_checksum: bool = False
    """The service says that it got other bytes."""
    without_checksums: bool = False
    """As a service that knows no SHA-256: neither hears nor says them."""
    without_conditions: bool = False
    """As a service that does not know `If-None-Match`: what is there is replaced."""
    other_etag: bool = False
    """As a service that encrypts: its ETag is no MD5."""


@dataclass
class Proxy:
    """What the tests hold."""

    address: str
    asked: list[Asked] = field(default_factory=list)
    behave: Callable[[Asked], Bad | None] = lambda _: None
    let_go: threading.Event = field(default_factory=threading.Event)

    def clear(self) -> None:
        """Forget what was asked, and play a good line again."""
        self.asked.clear()
        self.behave = lambda _: None
        self.let_go.clear()

    def fails(self, number: int, bad: Bad, which: Callable[[Asked], bool]) -> None:
        """The first `number` requests of this kind go badly."""
        left = [number]
        lock = threading.Lock()

        def behave(asked: Asked) -> Bad | None:
            if not which(asked):
                return None
            with lock:
                left[0] -= 1
                return bad if left[0] >= 0 else None

        self.behave = behave


@contextmanager
def proxy_before(host: str, port: int) -> Iterator[Proxy]:
    """Started, and ended with the block."""
    proxy = Proxy("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            split = urlsplit(self.path)
            asked = Asked(
                self.command,
                unquote(split.path),
                parse_qs(split.query, keep_blank_values=True),
                {name.lower(): value for name, value in self.headers.items()},
                body,
            )
            proxy.asked.append(asked)
            bad = proxy.behave(asked) or Bad()
            if bad.silent:
                proxy.let_go.wait(30)
                self.close_connection = True
                return
            if bad.reset:
                self._tear()
                return
            if bad.status:
                text = f"<Error><Code>{bad.code}</Code><Message>{bad.message}</Message></Error>".encode()
                self._answer(bad.status, [("Content-Type", "application/xml")], text)
                return
            if bad.spoil and body:
                body = bytes([body[0] ^ 1]) + body[1:]
                told = self.headers.get("x-amz-checksum-sha256", "")
                if told and told != base64.b64encode(hashlib.sha256(body).digest()).decode():
                    text = b"<Error><Code>BadDigest</Code><Message>The SHA256 did not match</Message></Error>"
                    self._answer(400, [("Content-Type", "application/xml")], text)
                    return
            condition = asked.headers.get("if-none-match") == "*" and not bad.without_conditions
            if condition and self._is_there(split.path):
                text = (
                    b"<Error><Code>PreconditionFailed</Code><Message>At least one of the pre-conditions you specified "
                    b"did not hold</Message><Condition>If-None-Match</Condition></Error>"
                )
                self._answer(412, [("Content-Type", "application/xml")], text)
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            if bad.without_checksums:
                headers = {
                    name: value
                    for name, value in headers.items()
                    if not name.lower().startswith(("x-amz-checksum", "x-amz-sdk-checksum"))
                }
            connection = http.client.HTTPConnection(host, port, timeout=60)
            try:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                said = answer.read()
            finally:
                connection.close()
            if bad.reset_after:
                self._tear()
                return
            found = answer.getheaders()
            if bad.without_checksums:
                found = [(name, value) for name, value in found if not name.lower().startswith("x-amz-checksum")]
            if bad.other_checksum:
                found = [
                    (name, "A" * 43 + "=" if name.lower() == "x-amz-checksum-sha256" else value)
                    for name, value in found
                ]
            if bad.other_etag:
                found = [(name, '"0123-not-an-md5"' if name.lower() == "etag" else value) for name, value in found]
            self._answer(answer.status, found, said)

        def _is_there(self, path: str) -> bool:
            """Whether the service has the object; it looks at no condition itself (moto does not)."""
            connection = http.client.HTTPConnection(host, port, timeout=60)
            try:
                connection.request("HEAD", path, headers={"Authorization": self.headers["Authorization"]})
                return connection.getresponse().status == 200
            finally:
                connection.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            length = next((value for name, value in headers if name.lower() == "content-length"), str(len(body)))
            for name, value in headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _tear(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
