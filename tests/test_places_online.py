"""Places from the network: a real server on the loopback, geopy as it is."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from skicyclerun.errors import PhotoTransient
from skicyclerun.places import online, pace
from skicyclerun.places.locator import Found, Locator, PlaceSettings
from skicyclerun.places.online import ProviderSettings
from tests.geocoding_server import PHOTON_ZERMATT, ZERMATT, Asked, Reply, geocoding_server, reply

HERE = (46.0207, 7.7491)
FAR = [(10.0 + number, 20.0) for number in range(20)]


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pace.forget_servers()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def provider(name: str, url: str, **said: Any) -> ProviderSettings:
    return ProviderSettings(name, api_url=url, **{"request_delay_seconds": 0.0, "timeout_seconds": 5.0, **said})


def locator(tmp_path: Path, *providers: ProviderSettings, order: tuple[str, ...] = (), **said: Any) -> Locator:
    names = order or tuple(one.name for one in providers)
    return Locator(PlaceSettings(order=names, online=providers, **said), tmp_path / "metadata" / "geocode_cache.json")


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_nominatim_is_asked_as_documented_and_its_address_becomes_a_place(tmp_path: Path) -> None:
    with geocoding_server() as server:
        asking = provider(
            "nominatim", f"{server.url}/reverse", zoom=14, language="de", user_agent="holiday/1 (me@x.org)"
        )
        found = locator(tmp_path, asking).locate(*HERE)
    assert found == Found(
        {
            "formatted": "Zermatt, Valais/Wallis, Schweiz",
            "road": "Bahnhofstrasse",
            "city": "Zermatt",
            "county": "Visp",
            "state": "Valais/Wallis",
            "country": "Schweiz",
            "country_code": "CH",
            "provider": "nominatim",
        }
    )
    (asked,) = server.asked
    assert asked.path == "/reverse"
    assert (float(asked.query["lat"]), float(asked.query["lon"])) == HERE
    assert asked.query["zoom"] == "14"
    assert asked.query["accept-language"] == "de"
    assert asked.user_agent == "holiday/1 (me@x.org)"


def test_photon_is_asked_as_documented_and_its_feature_becomes_a_place(tmp_path: Path) -> None:
    with geocoding_server(reply(PHOTON_ZERMATT)) as server:
        found = locator(tmp_path, provider("photon", server.url, language="de")).locate(*HERE)
    assert found.location == {
        "formatted": "Zermatt, Wallis, Schweiz",
        "road": "Bahnhofstrasse",
        "city": "Zermatt",
        "county": "Visp",
        "state": "Wallis",
        "country": "Schweiz",
        "country_code": "CH",
        "provider": "photon",
    }
    assert server.asked[0].query["lang"] == "de"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("nominatim", {"error": "Unable to geocode"}),
        ("nominatim", {}),
        ("photon", {"type": "FeatureCollection", "features": []}),
    ],
)
def test_no_address_is_an_answer_and_is_kept(tmp_path: Path, name: str, body: object) -> None:
    with geocoding_server(reply(body)) as server:
        asking = locator(tmp_path, provider(name, server.url))
        for _ in range(2):
            found = asking.locate(*HERE)
            assert found.location is None
            assert "no address" in found.note
        assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["nominatim", "photon"])
@pytest.mark.parametrize(
    "body",
    [
        b"<html>Please log in to the hotel's network</html>",
        b"\xff\xfe\x00",
        b'"zermatt"',
        b"7",
        b'{"lat": "x", "lon": "y", "address": {}}',
        b'{"features": [{}]}',
        b'{"features": [{"geometry": {"coordinates": [1]}, "properties": {"city": "Z"}}]}',
        b'{"features": 7}',
        b'{"lat": "1", "lon": "2", "address": "Zermatt"}',
        b"[[]]",
    ],
)
def test_rubbish_is_a_failure_that_may_pass(tmp_path: Path, name: str, body: bytes) -> None:
    with geocoding_server(reply(body)) as server, pytest.raises(PhotoTransient) as caught:
        locator(tmp_path, provider(name, server.url)).locate(*HERE)
    assert server.url.removeprefix("http://") in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (reply(b"", 500), "error 500"),
        (reply(b"", 502), "error 502"),
        (reply(b"", 503), "error 503"),
        (reply(b"", 404), "error 404"),
        (reply(b"", 403), "user_agent"),
        (reply({"message": "language is not supported"}, 400), "error 400"),
    ],
)
def test_an_error_of_the_server_is_said_in_words(tmp_path: Path, said: Reply, words: str) -> None:
    with geocoding_server(said) as server, pytest.raises(PhotoTransient, match=words):
        locator(tmp_path, provider("nominatim", server.url)).locate(*HERE)


def test_a_server_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(PhotoTransient, match="cannot be reached"):
        locator(tmp_path, provider("nominatim", closed_port())).locate(*HERE)


def test_a_server_that_is_too_slow_is_said_in_words(tmp_path: Path) -> None:
    done = threading.Event()

    def slow(asked: Asked) -> Reply:
        done.wait(20)
        return reply()

    with geocoding_server(slow) as server:
        try:
            with pytest.raises(PhotoTransient, match=r"did not answer within 0\.2 s"):
                locator(tmp_path, provider("nominatim", server.url, timeout_seconds=0.2)).locate(*HERE)
        finally:
            done.set()


def test_a_place_that_failed_is_asked_for_again_and_then_has_its_place(tmp_path: Path) -> None:
    with geocoding_server(reply(b"", 500), reply()) as server:
        asking = locator(tmp_path, provider("nominatim", server.url))
        with pytest.raises(PhotoTransient):
            asking.locate(*HERE)
        assert asking.locate(*HERE).location is not None


def test_who_asks_too_often_waits_as_long_as_the_server_says(tmp_path: Path) -> None:
    with geocoding_server(reply(b"", 429, Retry_After="1"), reply()) as server:
        found = locator(tmp_path, provider("nominatim", server.url)).locate(*HERE)
    assert found.location is not None
    first, second = server.asked
    assert second.at - first.at >= 0.99


def test_without_a_word_on_how_long_the_wait_doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "FIRST_WAIT_SECONDS", 0.1)
    with geocoding_server(reply(b"", 429), reply(b"", 429), reply()) as server:
        assert locator(tmp_path, provider("nominatim", server.url)).locate(*HERE).location is not None
    first, second, third = (asked.at for asked in server.asked)
    assert second - first >= 0.099
    assert third - second >= 0.199


def test_a_server_that_wants_to_be_left_alone_for_long_is_not_waited_for(tmp_path: Path) -> None:
    with geocoding_server(reply(b"", 429, Retry_After="3600")) as server:
        asking = locator(tmp_path, provider("nominatim", server.url))
        for position in FAR:
            with pytest.raises(PhotoTransient, match="asked too often"):
                asking.locate(*position)
        assert len(server.asked) == 1


def test_a_server_that_is_down_is_not_asked_for_every_photo(tmp_path: Path) -> None:
    with geocoding_server(reply(b"", 500)) as server:
        asking = locator(tmp_path, provider("nominatim", server.url))
        for position in FAR:
            with pytest.raises(PhotoTransient, match="error 500"):
                asking.locate(*position)
        assert len(server.asked) == pace.FAILURES_UNTIL_DOWN


def test_after_its_rest_a_server_is_tried_again() -> None:
    now = [0.0]
    breaker = pace.Breaker(lambda: now[0])
    for _ in range(pace.FAILURES_UNTIL_DOWN):
        assert breaker.reason() == ""
        breaker.failed("down")
    assert breaker.reason() == "down"
    now[0] += pace.FIRST_REST_SECONDS
    assert breaker.reason() == ""
    breaker.failed("still down")
    now[0] += pace.FIRST_REST_SECONDS
    assert breaker.reason() == "still down", "the rest doubles"
    now[0] += pace.FIRST_REST_SECONDS
    breaker.answered()
    breaker.failed("once")
    assert breaker.reason() == ""


def test_one_request_at_a_time_and_no_sooner_than_the_delay(tmp_path: Path) -> None:
    with geocoding_server() as server:
        asking = locator(tmp_path, provider("nominatim", server.url, request_delay_seconds=0.1))
        with ThreadPoolExecutor(6) as pool:
            places = list(pool.map(lambda position: asking.locate(*position), FAR[:6]))
    assert all(place.location for place in places)
    assert server.most_at_once == 1
    times = sorted(asked.at for asked in server.asked)
    assert len(times) == 6
    assert all(later - sooner >= 0.099 for sooner, later in pairwise(times))


def test_two_stages_that_ask_one_server_keep_its_pace_together(tmp_path: Path) -> None:
    with geocoding_server() as server:
        asking = provider("nominatim", server.url, request_delay_seconds=0.1)
        stages = [locator(tmp_path, asking), locator(tmp_path, asking)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: stages[number % 2].locate(*FAR[number]), range(4)))
    assert server.most_at_once == 1
    assert all(later - sooner >= 0.099 for sooner, later in pairwise(sorted(asked.at for asked in server.asked)))


def test_several_pictures_of_one_place_ask_once_whoever_comes_first(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def ask(number: int) -> Found:
        barrier.wait()
        return asking.locate(HERE[0] + number * 1e-5, HERE[1])

    with geocoding_server() as server:
        asking = locator(tmp_path, provider("nominatim", server.url))
        with ThreadPoolExecutor(8) as pool:
            assert all(found.location for found in pool.map(ask, range(8)))
    assert len(server.asked) == 1


def test_the_public_servers_are_never_asked_faster_than_once_a_second() -> None:
    hasty = ProviderSettings("nominatim", request_delay_seconds=0.0)
    assert hasty.delay_seconds == 1.0
    assert ProviderSettings("nominatim", "https://nominatim.openstreetmap.org/reverse", "x", 0.1).delay_seconds == 1.0
    assert ProviderSettings("photon", request_delay_seconds=0.5).delay_seconds == 1.0
    assert ProviderSettings("nominatim", "http://localhost:8080", "x", 0.0).delay_seconds == 0.0
    assert ProviderSettings("nominatim", request_delay_seconds=3.0).delay_seconds == 3.0


def test_where_one_is_down_the_next_in_the_order_is_asked(tmp_path: Path) -> None:
    with geocoding_server(reply(b"", 500)) as first, geocoding_server(reply(PHOTON_ZERMATT)) as second:
        asking = locator(tmp_path, provider("nominatim", first.url), provider("photon", second.url))
        for position in FAR:
            found = asking.locate(*position)
            assert found.location is not None
            assert found.location["provider"] == "photon"
        assert len(first.asked) == pace.FAILURES_UNTIL_DOWN


def test_where_all_are_down_geonames_may_stand_in(tmp_path: Path) -> None:
    asking = locator(tmp_path, provider("nominatim", closed_port()), order=("nominatim", "offline"))
    found = asking.locate(*HERE)
    assert found.location is not None
    assert found.location["provider"] == "offline"
    with pytest.raises(PhotoTransient, match="cannot be reached"):
        asking.locate(0.0, -150.0)


def test_all_reasons_are_said_where_nobody_answered(tmp_path: Path) -> None:
    with geocoding_server(reply(b"", 500)) as first, pytest.raises(PhotoTransient) as caught:
        locator(tmp_path, provider("nominatim", first.url), provider("photon", closed_port())).locate(*HERE)
    assert "error 500" in str(caught.value)
    assert "cannot be reached" in str(caught.value)


def test_cache_only_asks_nobody(tmp_path: Path) -> None:
    with geocoding_server() as server:
        asking = provider("nominatim", server.url)
        before = locator(tmp_path, asking)
        before.locate(*HERE)
        before.close()
        after = locator(tmp_path, asking, cache_only=True)
        assert after.locate(*HERE).location is not None
        elsewhere = after.locate(10.0, 20.0)
        assert elsewhere.location is None
        assert "nobody was asked" in elsewhere.note
        assert len(server.asked) == 1


def test_without_a_cache_no_file_is_made(tmp_path: Path) -> None:
    with geocoding_server() as server:
        asking = locator(tmp_path, provider("nominatim", server.url), cache_enabled=False)
        asking.locate(*HERE)
        asking.locate(*HERE)
        asking.close()
    assert len(server.asked) == 1, "within a run an answer is shared all the same"
    assert list(tmp_path.iterdir()) == []


def test_answers_of_another_zoom_or_language_are_not_taken(tmp_path: Path) -> None:
    with geocoding_server() as server:
        for said in ({"zoom": 10}, {"zoom": 16}, {"zoom": 16, "language": "fr"}, {"zoom": 10}):
            one = locator(tmp_path, provider("nominatim", server.url, **said))
            one.locate(*HERE)
            one.close()
        assert len(server.asked) == 3


def test_stopping_wakes_whoever_waits_for_a_turn(tmp_path: Path) -> None:
    answered = threading.Event()

    def noted(asked: Asked) -> Reply:
        answered.set()
        return reply()

    with geocoding_server(noted) as server:
        asking = locator(tmp_path, provider("nominatim", server.url, request_delay_seconds=3000.0))
        asking.locate(*FAR[0])
        assert answered.is_set()
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(asking.locate, *position) for position in FAR[1:3]]
            asking.close()
            for one in waiting:
                with pytest.raises(PhotoTransient, match="stopped"):
                    one.result(timeout=30)


def test_texts_of_a_server_are_made_harmless(tmp_path: Path) -> None:
    address = {"village": "Zer\x1b[31mmatt\n", "country": "Schweiz" * 1000, "country_code": "ch", "state": 7}
    with geocoding_server(reply({**ZERMATT, "address": address})) as server:
        found = locator(tmp_path, provider("nominatim", server.url)).locate(*HERE)
    assert found.location is not None
    assert found.location["city"] == "Zer[31mmatt"
    assert len(found.location["country"]) <= 300
    assert "state" not in found.location


def test_every_error_of_geopy_has_a_sentence() -> None:
    from geopy import exc

    asking = ProviderSettings("nominatim")
    for kind in vars(exc).values():
        if isinstance(kind, type) and issubclass(kind, exc.GeopyError):
            failure = online._translated(kind("x"), asking)
            assert "nominatim.openstreetmap.org" in str(failure)
            assert not str(failure).endswith(".")


def test_geopy_is_not_loaded_before_somebody_is_asked() -> None:
    code = "import sys, skicyclerun.places.locator\nprint('geopy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
