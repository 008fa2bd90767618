"""The cache of geocoders' answers: found again, shared among neighbours, never lost."""

from __future__ import annotations

import itertools
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.errors import StageError
from skicyclerun.places import cache as cache_module
from skicyclerun.places.cache import NOTHING_THERE_DAYS, GeocodeCache, better, key_of
from tests.shared_libraries import without_root_powers

NOW = datetime(2026, 3, 1, 10, 0, 0, tzinfo=UTC)
Q = "nominatim|nominatim.openstreetmap.org|zoom=16"
ZERMATT = {"formatted": "Zermatt, Valais, Switzerland", "city": "Zermatt", "provider": "nominatim"}
METRE = 1 / 111_195  # degrees of latitude


def opened(path: Path | None, metres: float = 25.0, now: datetime = NOW, said: list[str] | None = None) -> GeocodeCache:
    return GeocodeCache(path, same_place_metres=metres, say=(said if said is not None else []).append, now=lambda: now)


def written(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_bytes())
    assert isinstance(found, dict)
    return found


def test_an_answer_is_found_again_in_another_run(tmp_path: Path) -> None:
    path = tmp_path / "metadata" / "geocode_cache.json"
    first = opened(path)
    assert first.find("nominatim", Q, 46.0207, 7.7491) is None
    first.keep("nominatim", Q, 46.0207, 7.7491, ZERMATT)
    first.save()
    found = opened(path).find("nominatim", Q, 46.0207, 7.7491)
    assert found is not None
    assert found.location == ZERMATT
    assert list(written(path)) == [f"{Q}|46.02070,7.74910"]
    assert written(path)[f"{Q}|46.02070,7.74910"]["asked"] == "2026-03-01T10:00:00Z"


def test_neighbours_within_some_metres_share_an_answer(tmp_path: Path) -> None:
    cache = opened(tmp_path / "c.json")
    cache.keep("nominatim", Q, 46.0, 7.0, ZERMATT)
    assert cache.find("nominatim", Q, 46.0 + 24 * METRE, 7.0) is not None
    assert cache.find("nominatim", Q, 46.0 + 26 * METRE, 7.0) is None
    exact = opened(tmp_path / "d.json", metres=0)
    exact.keep("nominatim", Q, 46.0, 7.0, ZERMATT)
    assert exact.find("nominatim", Q, 46.0, 7.0) is not None
    assert exact.find("nominatim", Q, 46.0 + 2 * METRE, 7.0) is None


@settings(max_examples=100)
@given(
    st.floats(-90, 90),
    st.one_of(st.floats(-180, 180), st.just(180.0), st.just(-180.0)),
    st.floats(-20, 20),
    st.floats(-20, 20),
)
def test_neighbours_are_neighbours_on_the_whole_globe(lat: float, lon: float, north: float, east: float) -> None:
    import math

    other_lat = lat + north / 2 * METRE
    if abs(other_lat) > 90:
        other_lat = lat
    squeeze = max(math.cos(math.radians(lat)), math.cos(math.radians(other_lat)))
    other_lon = lon + min(360.0, east / 2 * METRE / squeeze) if squeeze > 1e-9 else lon + 180
    other_lon = (other_lon + 180) % 360 - 180
    cache = opened(None)
    cache.keep("nominatim", Q, lat, lon, ZERMATT)
    assert cache.find("nominatim", Q, other_lat, other_lon) is not None


def test_no_address_is_an_answer_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    cache = opened(path)
    cache.keep("nominatim", Q, 0.0, -150.0, None)
    cache.save()
    soon = opened(path, now=NOW + timedelta(days=NOTHING_THERE_DAYS - 1)).find("nominatim", Q, 0.0, -150.0)
    assert soon is not None
    assert soon.location is None
    assert opened(path, now=NOW + timedelta(days=NOTHING_THERE_DAYS + 1)).find("nominatim", Q, 0.0, -150.0) is None


def test_a_place_is_never_replaced_by_none(tmp_path: Path) -> None:
    cache = opened(tmp_path / "c.json")
    cache.keep("nominatim", Q, 46.0, 7.0, ZERMATT)
    cache.keep("nominatim", Q, 46.0, 7.0, None)
    found = cache.find("nominatim", Q, 46.0, 7.0)
    assert found is not None
    assert found.location == ZERMATT


def test_what_others_enter_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    one, other = opened(path), opened(path)
    for cache in (one, other):
        cache.load()
    one.keep("nominatim", Q, 1.0, 1.0, ZERMATT)
    other.keep("nominatim", Q, 2.0, 2.0, ZERMATT)
    one.save()
    other.save()
    assert set(written(path)) == {key_of(Q, 1, 1), key_of(Q, 2, 2)}
    found = written(path)
    found["a note of mine"] = ["kept", 1.5, None]
    path.write_text(json.dumps(found))
    one.keep("nominatim", Q, 3.0, 3.0, ZERMATT)
    one.save()
    assert set(written(path)) == {key_of(Q, 1, 1), key_of(Q, 2, 2), key_of(Q, 3, 3), "a note of mine"}
    assert written(path)["a note of mine"] == ["kept", 1.5, None]
    assert one.find("nominatim", Q, 2.0, 2.0) is not None, "what was read on the way is known from then on"


def test_an_entry_of_another_program_that_was_changed_meanwhile_stays_changed(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"theirs": {"v": 9}}))
    cache = opened(path)
    cache.keep("nominatim", Q, 1.0, 1.0, ZERMATT)
    path.write_text(json.dumps({"theirs": {"v": 1, "more": True}}))
    cache.save()
    assert written(path)["theirs"] == {"v": 1, "more": True}


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    barrier = threading.Barrier(6)

    def write(number: int) -> None:
        cache = opened(path)
        barrier.wait()
        for step in range(5):
            cache.keep("nominatim", Q, number * 10.0, step * 1.0, ZERMATT)
            cache.save()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(written(path)) == {key_of(Q, number * 10, step) for number in range(6) for step in range(5)}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"a": NaN}', b"\xff\xfe", b"{" * 5000, b'{"a":1}x'])
def test_a_damaged_file_is_set_aside_said_aloud_and_begun_anew(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "geocode_cache.json"
    path.write_bytes(data)
    said: list[str] = []
    cache = opened(path, said=said)
    assert cache.find("nominatim", Q, 1.0, 1.0) is None
    kept = tmp_path / "geocode_cache.json.corrupt-20260301_100000"
    assert kept.read_bytes() == data
    assert len(said) == 1
    assert kept.name in said[0]
    cache.keep("nominatim", Q, 1.0, 1.0, ZERMATT)
    cache.save()
    assert list(written(path)) == [key_of(Q, 1, 1)]


def test_one_that_is_damaged_while_we_work_costs_none_of_our_answers(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    cache = opened(path)
    cache.keep("nominatim", Q, 1.0, 1.0, ZERMATT)
    cache.save()
    for number in (2, 3):
        path.write_bytes(b"half a fi")
        cache.keep("nominatim", Q, float(number), 1.0, ZERMATT)
        cache.save()
    assert set(written(path)) == {key_of(Q, number, 1) for number in (1, 2, 3)}
    assert len(list(tmp_path.glob("c.json.corrupt-*"))) == 2, "nothing set aside is overwritten"


def test_a_write_that_fails_leaves_the_old_file_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.json"
    cache = opened(path)
    cache.keep("nominatim", Q, 1.0, 1.0, ZERMATT)
    cache.save()
    before = path.read_bytes()
    cache.keep("nominatim", Q, 2.0, 1.0, ZERMATT)
    with monkeypatch.context() as patched:

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(cache_module, "write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            cache.save()
    assert path.read_bytes() == before
    cache.save()
    assert set(written(path)) == {key_of(Q, 1, 1), key_of(Q, 2, 1)}


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    cache = opened(path)
    cache.save()
    assert not path.exists()
    cache.keep("nominatim", Q, 1.0, 1.0, ZERMATT)
    cache.save()
    stamp = path.stat().st_mtime_ns
    cache.save()
    assert path.stat().st_mtime_ns == stamp


def test_one_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")
    os.chmod(path, 0)
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent != Path("/") and parent.stat().st_uid == os.geteuid() and parent.name.startswith(("pytest", "test")):
            os.chmod(parent, 0o755)
    with without_root_powers(), pytest.raises(StageError, match="cannot be read"):
        opened(path).load()


def test_answers_of_earlier_versions_of_the_pipeline_are_answers(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    earlier = {
        "23.063131,-109.696486": {
            "provider": "nominatim",
            "display_name": "Calle José María Morelos, San José del Cabo, Baja California Sur, 20456, México",
            "road": "Calle José María Morelos",
            "city": "San José del Cabo",
            "state": "Baja California Sur",
            "country": "México",
            "country_code": "mx",
            "lat": 23.063130555555556,
            "lon": -109.69648611111111,
            "nearby_pois": [{"name": "La Lupita"}],
        }
    }
    path.write_text(json.dumps(earlier))
    cache = opened(path)
    found = cache.find("nominatim", Q, 23.06313, -109.69648)
    assert found is not None
    assert found.location == {
        "formatted": "San José del Cabo, Baja California Sur, México",
        "road": "Calle José María Morelos",
        "city": "San José del Cabo",
        "state": "Baja California Sur",
        "country": "México",
        "country_code": "MX",
        "provider": "nominatim",
    }
    assert cache.find("photon", "photon|photon.komoot.io", 23.06313, -109.69648) is None
    cache.keep("nominatim", Q, 1.0, 1.0, ZERMATT)
    cache.save()
    assert written(path)["23.063131,-109.696486"] == earlier["23.063131,-109.696486"]


entries = st.fixed_dictionaries(
    {"question": st.just(Q), "location": st.sampled_from([None, {"city": "A"}, {"city": "B"}])},
    optional={"asked": st.sampled_from(["2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"])},
)


@given(st.lists(entries, min_size=1, max_size=4))
def test_the_same_answer_stays_in_whatever_order_they_come(several: list[dict[str, Any]]) -> None:
    def left(order: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        best: dict[str, Any] = order[0]
        for entry in order[1:]:
            best = better(best, entry)
        return best

    outcomes = {json.dumps(left(order), sort_keys=True) for order in itertools.permutations(several)}
    assert len(outcomes) == 1
    if any(entry["location"] for entry in several):
        assert json.loads(outcomes.pop())["location"]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.text(),
        values
        | st.fixed_dictionaries(
            {},
            optional={
                "provider": st.just("nominatim") | values,
                "question": st.just(Q) | values,
                "lat": values,
                "lon": values,
                "location": values,
                "asked": values,
                "city": values,
            },
        ),
        max_size=4,
    )
)
def test_whatever_others_wrote_is_kept_and_harms_nobody(others: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "c.json"
        data = json.dumps(others)
        path.write_text(data)
        cache = opened(path)
        cache.find("nominatim", Q, 1.0, 1.0)
        cache.keep("nominatim", Q, 1.0, 1.0, ZERMATT)
        cache.save()
        after = written(path)
        ours = key_of(Q, 1.0, 1.0)
        assert ours in after
        for key, entry in others.items():
            if key != ours:
                assert json.dumps(after[key]) == json.dumps(entry)
