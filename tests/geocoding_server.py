"""A geocoder on the loopback: plays `/reverse` of Nominatim and Photon, well and badly, and notes what it is asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Reply = tuple[int, dict[str, str], bytes]

ZERMATT: dict[str, Any] = {
    "place_id": 1,
    "licence": "Data © OpenStreetMap contributors, ODbL 1.0",
    "osm_type": "way",
    "lat": "46.0207",
    "lon": "7.7491",
    "display_name": "Bahnhofstrasse, Zermatt, Visp, Valais/Wallis, 3920, Schweiz",
    "name": "Bahnhofstrasse",
    "address": {
        "road": "Bahnhofstrasse",
        "village": "Zermatt",
        "county": "Visp",
        "state": "Valais/Wallis",
        "postcode": "3920",
        "country": "Schweiz",
        "country_code": "ch",
    },
}
PHOTON_ZERMATT: dict[str, Any] = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [7.7491, 46.0207]},
            "properties": {
                "type": "street",
                "name": "Bahnhofstrasse",
                "city": "Zermatt",
                "county": "Visp",
                "state": "Wallis",
                "country": "Schweiz",
                "countrycode": "CH",
            },
        }
    ],
}


def reply(body: object = ZERMATT, status: int = 200, **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, {key.replace("_", "-"): value for key, value in headers.items()}, data


@dataclass
class Asked:
    path: str
    query: dict[str, str]
    user_agent: str
    at: float
    """time.monotonic()"""


@dataclass
class GeocodingServer:
    """`replies` are used up one after the other, the last one for ever."""

    url: str
    replies: list[Reply | Callable[[Asked], Reply]]
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> Reply:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.asked.append(asked)
            said = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        try:
            return said(asked) if callable(said) else said
        finally:
            with self._lock:
                self._at_once -= 1


@contextmanager
def geocoding_server(*replies: Reply | Callable[[Asked], Reply]) -> Iterator[GeocodingServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            asked = Asked(parts.path, query, self.headers.get("User-Agent", ""), time.monotonic())
            status, headers, data = played.answer(asked)
            try:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # the client did not wait

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played = GeocodingServer(f"http://127.0.0.1:{server.server_port}", list(replies) or [reply()])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield played
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
