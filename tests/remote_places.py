"""Second places for archives: a bucket of moto's server on the loopback, and a proxy before it that makes trouble."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import pytest

import tests.aws_descriptions  # noqa: F401  (sessions share what they read)

BUCKET = "archives"
#: What a test lets the proxy do with a request; None: pass it on.
Trouble = Literal["503", "reset", "silent", "half", "slow", "other_bytes", "403"]
Judge = Callable[[str, str], Trouble | None]
"""Asked with method and path."""


class Proxy:
    """Passes requests on to the service, counts what it sent, and makes the trouble that `judge` asks for."""

    def __init__(self, port: int) -> None:
        self.judge: Judge = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.headers: set[str] = set()
        """Names of all headers that came, in small letters."""
        self.sent = 0
        """Bytes of bodies that went to the client."""
        self.waiting = threading.Event()
        """Set once a request is left without an answer."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.seen.append((self.command, self.path))
                proxy.headers |= {name.lower() for name in self.headers}
                trouble = proxy.judge(self.command, self.path)
                if trouble == "503":
                    self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
                    return
                if trouble == "403":
                    self._answer(403, [], b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
                    return
                if trouble == "reset":
                    self.close_connection = True
                    self.connection.close()
                    return
                if trouble == "slow":
                    proxy.released.wait(0.3)
                if trouble == "silent":
                    proxy.waiting.set()
                    proxy.released.wait(30)
                    self.close_connection = True
                    return
                if trouble == "other_bytes" and self.command == "PUT":
                    body = bytes([body[0] ^ 1]) + body[1:]
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                data = answer.read()
                upstream.close()
                if trouble == "other_bytes" and self.command == "GET" and data:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                if trouble == "half":
                    self._answer(answer.status, answer.getheaders(), data, send=len(data) // 2)
                    self.close_connection = True
                    return
                self._answer(answer.status, answer.getheaders(), data)

            def _answer(
                self, status: int, headers: list[tuple[str, str]], data: bytes, send: int | None = None
            ) -> None:
                self.send_response_only(status)
                for key, value in headers:
                    if key.lower() not in ("connection", "content-length", "transfer-encoding"):
                        self.send_header(key, value)
                length = next((value for key, value in headers if key.lower() == "content-length"), "0")
                self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
                self.end_headers()
                self.wfile.write(data if send is None else data[:send])
                proxy.sent += len(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

            def log_message(self, format: str, *args: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                return  # a client that was killed

        self.released = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class Bucket:
    """An empty bucket, seen by boto3 and not by what is tested."""

    def __init__(self, port: int) -> None:
        import boto3

        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
        self.client = session.client("s3", endpoint_url=self.endpoint)

    def empty(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
        connection.close()
        self.client.create_bucket(Bucket=BUCKET)

    def objects(self) -> dict[str, bytes]:
        """Key → bytes."""
        listed = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())
        return {each["Key"]: self.client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in listed}

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def unfinished_uploads(self) -> list[str]:
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    @contextmanager
    def troubled(self) -> Iterator[Proxy]:
        proxy = Proxy(self.port)
        try:
            yield proxy
        finally:
            proxy.close()


@contextmanager
def s3_service() -> Iterator[Bucket]:
    """moto's server, in threads of this process; also for processes that are started."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        yield Bucket(port)
    finally:
        server.stop()


def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the service, in the environment, and nothing of this machine's."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
