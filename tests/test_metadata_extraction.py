"""The stages metadata_extraction and geocode_sweep: facts of files, places of positions, who is left out."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from skicyclerun.errors import OriginalMissing, PhotoTransient, PhotoUnreadable
from skicyclerun.images.picture_facts import cardinal, exposure_in_words, read_picture_facts
from skicyclerun.places.pace import forget_servers
from skicyclerun.stages import geocode_sweep, metadata_extraction
from skicyclerun.stages.geocode_sweep import GeocodeSweep
from skicyclerun.stages.metadata_extraction import MetadataExtraction, MetadataExtractionSettings
from skicyclerun.stages.stage import Picture, Recipe, Stage, Surroundings
from tests.geocoding_server import PHOTON_ZERMATT, geocoding_server, reply
from tests.images_samples import KNOWN, render
from tests.shared_libraries import MEDIA_TYPES_LIBRARY, TEST_LIBRARY

ZERMATT = {"lat": 46.0207, "lon": 7.7491}
Rational = tuple[int, int]


def jpeg(
    path: Path,
    *,
    zeroth: Mapping[int, Any] = {},
    photo: Mapping[int, Any] = {},
    gps: Mapping[int, Any] = {},
    size: tuple[int, int] = (32, 24),
) -> Path:
    """A picture with these tags, by Pillow (TIFF numbers; a pair is numerator and denominator)."""
    from PIL.TiffImagePlugin import IFDRational

    def value(said: Any) -> Any:
        if isinstance(said, tuple) and len(said) == 2 and all(isinstance(part, int) for part in said):
            return IFDRational(*said)
        return tuple(value(part) for part in said) if isinstance(said, list) else said

    exif = Image.Exif()
    for number, said in zeroth.items():
        exif[number] = value(said)
    for pointer, tags in ((0x8769, photo), (0x8825, gps)):
        if tags:
            exif.get_ifd(pointer).update({number: value(said) for number, said in tags.items()})
    written = io.BytesIO()
    Image.new("RGB", size, "teal").save(written, "JPEG", exif=exif)
    path.write_bytes(written.getvalue())
    return path


CAMERA = {0x010F: "Canon", 0x0110: "Canon EOS R6"}
EXPOSED = {
    0x9003: "2024:07:27 10:05:21",
    0x9011: "+02:00",
    0x829A: (1, 250),
    0x829D: (28, 10),
    0x8827: 200,
    0x920A: (35, 1),
    0xA405: 52,
    0xA434: "RF24-70mm F2.8 L IS USM",
    0x9209: 0x19,
    0x9204: (-2, 3),
}
IN_ZERMATT = {
    1: "N", 2: [(46, 1), (1, 1), (1452, 100)], 3: "E", 4: [(7, 1), (44, 1), (5676, 100)],
    5: b"\x00", 6: (160850, 100), 16: "T", 17: (9025, 100),
}  # fmt: skip


def settings(**said: Any) -> MetadataExtractionSettings:
    return MetadataExtractionSettings.model_validate(said)


def around(tmp_path: Path, said: list[str] | None = None, **options: Any) -> Surroundings:
    metadata = tmp_path / "metadata"
    return Surroundings(
        metadata, metadata / "geocode_cache.json", tmp_path, options, (said if said is not None else []).append
    )


def extraction(tmp_path: Path, config: Mapping[str, Any] = {}, **options: Any) -> MetadataExtraction:
    return MetadataExtraction(settings(**config), around(tmp_path, **options))


def sweep(
    tmp_path: Path, config: Mapping[str, Any] = {}, said: list[str] | None = None, **options: Any
) -> GeocodeSweep:
    return GeocodeSweep(settings(**config), around(tmp_path, said, **options))


def facts_of(recipe: Recipe, path: Path, **facts: Any) -> Mapping[str, Any]:
    return recipe.make(Picture(path, "0" * 64, facts), None).facts


def nominatim(url: str, **said: Any) -> dict[str, Any]:
    return {
        "active_provider": "nominatim",
        "request_delay_seconds": 0,
        "providers": {"nominatim": {"api_url": url}},
        **said,
    }


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_servers()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# ── a file's facts ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_with_everything_says_everything(tmp_path: Path) -> None:
    picture = jpeg(tmp_path / "a.jpg", zeroth={**CAMERA, 0x0112: 6}, photo=EXPOSED, gps=IN_ZERMATT)
    facts = facts_of(extraction(tmp_path), picture)
    location = facts.pop("location")  # type: ignore[attr-defined]
    assert facts == {
        "width": 24,
        "height": 32,
        "date_taken": "2024-07-27T10:05:21+02:00",
        "date_taken_utc": "2024-07-27T08:05:21Z",
        "exif": {
            "camera": "Canon EOS R6",
            "lens": "RF24-70mm F2.8 L IS USM",
            "focal_length_mm": 35,
            "focal_length_35mm": 52,
            "aperture": 2.8,
            "exposure_s": 0.004,
            "exposure": "1/250",
            "exposure_bias_ev": -0.67,
            "iso": 200,
            "flash": True,
        },
        "gps": {"lat": 46.0207, "lon": 7.7491, "altitude": 1608.5, "heading": 90.25, "cardinal": "E"},
    }
    assert location["city"] == "Zermatt"
    assert location["country_code"] == "CH"
    assert location["provider"] == "offline"


def test_a_picture_without_tags_has_its_size_alone(tmp_path: Path) -> None:
    assert facts_of(extraction(tmp_path), jpeg(tmp_path / "a.jpg")) == {"width": 32, "height": 24}


def test_a_magnetic_heading_is_called_so(tmp_path: Path) -> None:
    picture = jpeg(tmp_path / "a.jpg", gps={**IN_ZERMATT, 16: "M", 17: (360, 1)})
    gps = read_picture_facts(picture).gps
    assert gps["heading"] == 0
    assert gps["cardinal"] == "N"
    assert gps["heading_reference"] == "magnetic"


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("NIKON CORPORATION", "NIKON D750", "NIKON D750"),
        ("Apple", "iPhone 15 Pro", "Apple iPhone 15 Pro"),
        ("SONY", "", "SONY"),
        ("", "X100V", "X100V"),
        ("Canon", "Canon EOS R6", "Canon EOS R6"),
        ("Leica Camera AG", "LEICA Q2", "LEICA Q2"),
        ("", "", None),
    ],
)
def test_the_camera_is_named_once(tmp_path: Path, make: str, model: str, camera: str | None) -> None:
    tags = {number: text for number, text in ((0x010F, make), (0x0110, model)) if text}
    assert read_picture_facts(jpeg(tmp_path / "a.jpg", zeroth=tags)).exif.get("camera") == camera


@pytest.mark.parametrize(
    "photo",
    [
        {0x829A: (1, 0), 0x829D: (0, 0), 0x920A: (0, 1), 0x9204: (1, 0)},
        {0x829A: (0, 1), 0x829D: (4294967295, 1), 0x920A: (4294967295, 1)},
        {0x829D: (0, 5), 0x8827: 0, 0xA405: 0},
        {0xA434: "----", 0x8827: 65535},
        {0xA434: "0.0 mm f/0.0"},
        {0x829A: "fast", 0x829D: "wide", 0x8827: "many", 0x9209: "yes"},
        {0x9003: "0000:00:00 00:00:00", 0x9011: "+99:99"},
    ],
)
def test_hostile_numbers_are_absent_keys(tmp_path: Path, photo: dict[int, Any]) -> None:
    facts = facts_of(extraction(tmp_path), jpeg(tmp_path / "a.jpg", photo=photo))
    assert facts == {"width": 32, "height": 24}


@pytest.mark.parametrize(
    "changed",
    [
        {2: [(0, 0), (0, 0), (0, 0)], 4: [(0, 0), (0, 0), (0, 0)]},
        {2: [(46, 0), (1, 1), (1, 1)]},
        {2: [(91, 1), (0, 1), (0, 1)]},
        {4: [(181, 1), (0, 1), (0, 1)]},
        {2: [(4294967295, 1), (0, 1), (0, 1)]},
    ],
)
def test_what_is_no_position_on_earth_is_none(tmp_path: Path, changed: dict[int, Any]) -> None:
    facts = facts_of(extraction(tmp_path), jpeg(tmp_path / "a.jpg", gps={**IN_ZERMATT, **changed}))
    assert "gps" not in facts
    assert "location" not in facts


@pytest.mark.parametrize("changed", [{6: (4294967295, 1)}, {6: (1, 0)}, {17: (400, 1)}, {17: (1, 0)}])
def test_an_absurd_altitude_or_heading_leaves_the_position(tmp_path: Path, changed: dict[int, Any]) -> None:
    gps = read_picture_facts(jpeg(tmp_path / "a.jpg", gps={**IN_ZERMATT, **changed})).gps
    assert gps["lat"] == 46.0207
    assert ("altitude" not in gps) if 6 in changed else ("heading" not in gps and "cardinal" not in gps)


@given(st.floats(0, 360))
def test_the_cardinal_is_the_nearest_of_sixteen(heading: float) -> None:
    points = ["N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"]
    distances = [min(abs(heading - at * 22.5), 360 - abs(heading - at * 22.5)) for at in range(16)]
    assert distances[points.index(cardinal(heading))] <= min(distances) + 1e-9


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1 / 250, "1/250"), (1 / 7937, "1/7937"), (0.5, "0.5"), (30.0, "30"), (2.5, "2.5"), (0.25, "1/4")],
)
def test_exposures_are_said_as_cameras_say_them(seconds: float, words: str) -> None:
    assert exposure_in_words(seconds) == words


def test_a_file_that_export_wrote_says_what_export_said_of_it(tmp_path: Path) -> None:
    exported = render(jpeg(tmp_path / "a.jpg", zeroth=CAMERA, photo=EXPOSED), tmp_path / "b.jpg", KNOWN)
    read = read_picture_facts(tmp_path / "b.jpg")
    assert (read.date_taken, read.date_taken_utc) == (exported.date_taken, exported.date_taken_utc)
    assert (read.width, read.height) == (exported.width, exported.height)
    assert exported.location is not None
    assert read.gps["lat"] == pytest.approx(exported.location.latitude, abs=1e-6)
    assert read.gps["heading"] == pytest.approx(271.25, abs=0.01)
    assert read.gps["cardinal"] == "W"


def test_what_is_no_picture_or_gone_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("a text")
    with pytest.raises(PhotoUnreadable):
        facts_of(extraction(tmp_path), tmp_path / "a.jpg")
    with pytest.raises(OriginalMissing):
        facts_of(extraction(tmp_path), tmp_path / "gone.jpg")


def test_the_originals_of_real_libraries_are_read_or_refused() -> None:
    read, placed = 0, 0
    for library in (TEST_LIBRARY, MEDIA_TYPES_LIBRARY):
        for path in sorted((library / "originals").rglob("*")):
            if not path.is_file():
                continue
            try:
                facts = read_picture_facts(path)
            except PhotoUnreadable:
                continue
            read += 1
            placed += bool(facts.gps)
            numbers = json.dumps([facts.gps, facts.exif], allow_nan=False)
            assert json.loads(numbers) == [facts.gps, facts.exif]
            assert all(value is not None and value != "" for value in (*facts.gps.values(), *facts.exif.values()))
    assert read >= 20
    assert placed >= 5


# ── metadata_extraction ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_library_says_goes_before_the_file(tmp_path: Path) -> None:
    picture = jpeg(tmp_path / "a.jpg", photo=EXPOSED, gps=IN_ZERMATT)
    facts = facts_of(
        extraction(tmp_path),
        picture,
        gps={"lat": 48.8566, "lon": 2.3522, "heading": 180.0},
        date_taken="1999-01-01T00:00:00",
    )
    assert facts["gps"] == {"lat": 48.8566, "lon": 2.3522, "altitude": 1608.5, "heading": 180.0, "cardinal": "S"}
    assert facts["location"]["country_code"] == "FR"
    assert "date_taken" not in facts


def test_a_position_at_sea_has_no_place_and_says_so(tmp_path: Path) -> None:
    made = extraction(tmp_path).make(
        Picture(jpeg(tmp_path / "a.jpg"), "0" * 64, {"gps": {"lat": 0.0, "lon": -150.0}}), None
    )
    assert made.facts["gps"] == {"lat": 0.0, "lon": -150.0}
    assert "location" not in made.facts
    assert "no town within 100 km" in made.note


def test_parts_can_be_switched_off(tmp_path: Path) -> None:
    picture = jpeg(tmp_path / "a.jpg", zeroth=CAMERA, photo=EXPOSED, gps=IN_ZERMATT)
    assert set(facts_of(extraction(tmp_path, {"extract_exif": False}), picture)) == {
        "width",
        "height",
        "gps",
        "location",
    }
    assert set(facts_of(extraction(tmp_path, {"extract_geolocation": False}), picture)) == {
        "width", "height", "date_taken", "date_taken_utc", "exif",
    }  # fmt: skip


def test_offline_nobody_is_asked_and_no_cache_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    recipe = extraction(tmp_path)
    recipe.open()
    assert "location" in facts_of(recipe, jpeg(tmp_path / "a.jpg", gps=IN_ZERMATT))
    recipe.settle()
    recipe.close()
    assert not (tmp_path / "metadata").exists()


def test_answers_are_on_the_disk_before_the_rows_are_committed(tmp_path: Path) -> None:
    with geocoding_server() as server:
        recipe = extraction(tmp_path, nominatim(server.url))
        recipe.open()
        facts = facts_of(recipe, jpeg(tmp_path / "a.jpg", gps=IN_ZERMATT))
        recipe.settle()
        kept = json.loads((tmp_path / "metadata" / "geocode_cache.json").read_bytes())
        assert [entry["location"] for entry in kept.values()] == [facts["location"]]
        again = extraction(tmp_path, nominatim(server.url), cache_only_geocode=True)
        assert facts_of(again, jpeg(tmp_path / "b.jpg", gps=IN_ZERMATT))["location"] == facts["location"]
    assert len(server.asked) == 1


def test_a_provider_that_is_down_fails_a_photo_with_the_reason_and_the_next_run_asks_again(tmp_path: Path) -> None:
    picture = jpeg(tmp_path / "a.jpg", gps=IN_ZERMATT)
    with geocoding_server(reply(b"", 503), reply()) as server:
        with pytest.raises(PhotoTransient, match="error 503"):
            facts_of(extraction(tmp_path, nominatim(server.url)), picture)
        assert facts_of(extraction(tmp_path, nominatim(server.url)), picture)["location"]["city"] == "Zermatt"


def test_results_depend_on_who_is_asked_and_not_on_how_fast(tmp_path: Path) -> None:
    picture = Picture(tmp_path / "a.jpg", "0" * 64)

    def depends(config: dict[str, Any], **options: Any) -> Mapping[str, object]:
        said = extraction(tmp_path, config, **options).depends_on(picture)
        assert json.loads(json.dumps(said)) == said
        return said

    one = nominatim("http://localhost:1")
    same: list[dict[str, Any]] = [
        {"request_delay_seconds": 7},
        {"cache_only": True},
        {"user_agent": "x"},
        {"timeout_seconds": 3},
        {"same_place_metres": 5},
        {"workers": 3},
    ]
    for change in same:
        assert depends({**one, **change}) == depends(one)
    assert depends(one, cache_only_geocode=True) == depends(one)
    others: list[dict[str, Any]] = [
        {},
        nominatim("http://localhost:2"),
        {**one, "language": "de"},
        {**one, "providers": {"nominatim": {"api_url": "http://localhost:1", "zoom": 10}}},
        {**one, "provider_order": ["nominatim", "offline"]},
        {**one, "extract_exif": False},
        {**one, "extract_geolocation": False},
    ]
    assert len({json.dumps(depends(config), sort_keys=True) for config in [one, *others]}) == len(others) + 1


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────

OLDER = {
    "geocoding": {
        "provider": "nominatim",
        "api_url": "https://nominatim.openstreetmap.org/reverse",
        "user_agent": "SkiCycleRun/1.0",
        "rate_limit_seconds": 1.0,
        "cache_enabled": True,
        "cache_file": "{metadata_dir}/geocode_cache.json",
        "cache_only": False,
        "zoom": 16,
    }
}
NEWER = {
    "providers": {
        "geocoding": {
            "active_provider": "nominatim",
            "provider_order": ["nominatim", "photon"],
            "allow_fallback": True,
            "user_agent": "SkiCycleRun/1.0",
            "request_delay_seconds": 2,
            "cache": {"enabled": True, "file": "{metadata_dir}/geocode_cache.json", "cache_only": False},
            "providers": {
                "nominatim": {"api_url": "https://nominatim.openstreetmap.org/reverse", "zoom": 16},
                "photon": {"enabled": True},
            },
        }
    }
}


def test_who_names_nobody_asks_nobody() -> None:
    places, passed_over = settings().places({})
    assert places.order == ("offline",)
    assert not places.online
    assert not passed_over


def test_an_older_file_that_names_nominatim_asks_nominatim() -> None:
    places, _ = settings(**OLDER).places({})
    assert places.order == ("nominatim",)
    (asked,) = places.online
    assert asked.server == "nominatim.openstreetmap.org"
    assert (asked.user_agent, asked.zoom, asked.delay_seconds) == ("SkiCycleRun/1.0", 16, 1.0)
    assert not places.cache_only
    assert settings(**OLDER).places({"cache_only_geocode": True})[0].cache_only


def test_a_newer_file_is_understood() -> None:
    places, _ = settings(**NEWER).places({})
    assert places.order == ("nominatim", "photon")
    assert [one.request_delay_seconds for one in places.online] == [2, 2]
    assert [one.server for one in places.online] == ["nominatim.openstreetmap.org", "photon.komoot.io"]


def test_the_section_s_own_keys_win_over_the_newer_shape_and_that_over_the_older() -> None:
    places, _ = settings(**OLDER, **NEWER, active_provider="photon", user_agent="mine/2").places({})
    assert places.order == ("photon", "nominatim")
    assert {one.user_agent for one in places.online} == {"mine/2"}
    assert {one.request_delay_seconds for one in places.online} == {2}
    assert settings(**NEWER, allow_fallback=False).places({})[0].order == ("nominatim",)
    assert settings(**OLDER, active_provider="offline").places({})[0].order == ("offline",)
    zoomed = settings(**OLDER, providers={"nominatim": {"zoom": 10}}).places({})[0].online[0]
    assert zoomed.zoom == 10


def test_providers_that_are_not_ours_or_switched_off_are_passed_over() -> None:
    places, passed_over = settings(active_provider="google_maps", provider_order=["google_maps", "photon"]).places({})
    assert places.order == ("photon",)
    assert passed_over == ("google_maps",)
    off = settings(provider_order=["photon"], providers={"photon": {"enabled": False}}).places({})
    assert off[0].order == ("offline",)
    assert off[1] == ("photon",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"active_provider": "bing"},
        {"providers": {"nominatim": {"api_url": "nominatim.example.org"}}},
        {"providers": {"nominatim": {"api_url": "https://"}}},
        {"providers": {"nominatim": {"api_url": "file:///etc/passwd"}}},
        {"providers": {"nominatim": {"api_url": "https://x.org/reverse?key=1"}}},
        {"providers": {"nominatim": {"zoom": 19}}},
        {"request_delay_seconds": -1},
        {"request_delay_seconds": math.inf},
        {"geocoding": {"provider": 7}},
        {"cache_only": "yes"},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


# ── geocode_sweep ─────────────────────────────────────────────────────────────────────────────────────────────────

LOCATED = {"city": "Zermatt", "provider": "nominatim"}
OFFLINE = {"city": "Zermatt", "provider": "offline"}
FULL = {**ZERMATT, "heading": 90.0, "cardinal": "E"}


def swept(path: str, **facts: Any) -> Picture:
    return Picture(Path(path), "0" * 64, facts)


def test_the_sweep_takes_what_lacks_a_place_or_was_located_offline(tmp_path: Path) -> None:
    recipe = sweep(tmp_path, nominatim("http://localhost:1"))
    assert recipe.left_out(swept("a.jpg", gps=FULL)) == ""
    assert recipe.left_out(swept("a.jpg", gps=FULL, location=OFFLINE)) == ""
    assert recipe.left_out(swept("a.jpg", gps=FULL, location=LOCATED)) == "it has its place"
    assert recipe.left_out(swept("a.jpg", gps=ZERMATT, location=LOCATED)) == ""
    assert recipe.left_out(swept("a.jpg")) == "it has no position"


def test_only_missing_leaves_the_others_alone(tmp_path: Path) -> None:
    recipe = sweep(tmp_path, nominatim("http://localhost:1"), sweep_only_missing=True)
    assert recipe.left_out(swept("a.jpg", gps=ZERMATT)) == ""
    assert recipe.left_out(swept("a.jpg", gps=ZERMATT, location=OFFLINE)) == "it has its place"


def test_skip_heading_leaves_headings_alone(tmp_path: Path) -> None:
    recipe = sweep(tmp_path, nominatim("http://localhost:1"), sweep_skip_heading=True)
    assert recipe.left_out(swept("a.jpg", gps=ZERMATT, location=LOCATED)) == "it has its place"


def test_a_path_may_be_asked_for(tmp_path: Path) -> None:
    recipe = sweep(tmp_path, nominatim("http://localhost:1"), sweep_path_contains="Alps/")
    assert recipe.left_out(swept("/x/Alps/a.jpg", gps=FULL)) == ""
    assert "'Alps/'" in recipe.left_out(swept("/x/Sea/a.jpg", gps=FULL))


def test_the_limit_counts_each_picture_once(tmp_path: Path) -> None:
    recipe = sweep(tmp_path, nominatim("http://localhost:1"), sweep_limit=2)
    pictures = [swept(f"{number}.jpg", gps=FULL) for number in range(4)]
    for _ in range(2):
        assert [bool(recipe.left_out(picture)) for picture in pictures] == [False, False, True, True]
    assert "limit" in recipe.left_out(pictures[3])
    assert recipe.left_out(swept("n.jpg", gps=FULL, location=LOCATED)) == "it has its place"


def test_with_nobody_configured_it_says_so_and_leaves_out_what_is_located(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = sweep(tmp_path, said=said)
    recipe.open()
    assert len(said) == 1
    assert "active_provider" in said[0]
    assert "offline" in recipe.left_out(swept("a.jpg", gps=FULL, location=OFFLINE))
    assert recipe.left_out(swept("a.jpg", gps=FULL)) == ""
    assert facts_of(recipe, tmp_path / "a.jpg", gps=FULL)["location"]["provider"] == "offline"
    recipe.close()


def test_cache_only_leaves_out_what_is_not_in_the_cache(tmp_path: Path) -> None:
    with geocoding_server() as server:
        first = sweep(tmp_path, nominatim(server.url))
        assert facts_of(first, tmp_path / "a.jpg", gps=FULL, location=OFFLINE)["location"]["provider"] == "nominatim"
        first.close()
        recipe = sweep(tmp_path, nominatim(server.url), cache_only_geocode=True)
        assert recipe.left_out(swept("a.jpg", gps=FULL, location=OFFLINE)) == ""
        away = {**FULL, "lat": 10.0}
        assert "cache" in recipe.left_out(swept("b.jpg", gps=away, location=OFFLINE))
        assert len(server.asked) == 1


def test_the_sweep_asks_those_on_the_network_though_offline_comes_first(tmp_path: Path) -> None:
    with geocoding_server(reply(PHOTON_ZERMATT)) as server:
        config = {
            "active_provider": "offline",
            "provider_order": ["offline", "photon"],
            "request_delay_seconds": 0,
            "providers": {"photon": {"api_url": server.url}},
        }
        assert "location" in facts_of(extraction(tmp_path, config), jpeg(tmp_path / "a.jpg", gps=IN_ZERMATT))
        assert server.asked == []
        facts = facts_of(sweep(tmp_path, config), tmp_path / "a.jpg", gps=FULL, location=OFFLINE)
    assert facts["location"]["provider"] == "photon"


def test_a_missing_heading_is_read_from_the_file(tmp_path: Path) -> None:
    recipe = sweep(tmp_path, nominatim("http://localhost:1"))
    picture = jpeg(tmp_path / "a.jpg", gps=IN_ZERMATT)
    assert facts_of(recipe, picture, gps=ZERMATT, location=LOCATED) == {
        "gps": {**ZERMATT, "heading": 90.25, "cardinal": "E"}
    }
    assert facts_of(recipe, tmp_path / "not looked at", gps={**ZERMATT, "heading": 181.0}, location=LOCATED) == {
        "gps": {**ZERMATT, "heading": 181.0, "cardinal": "S"}
    }
    assert facts_of(recipe, jpeg(tmp_path / "b.jpg"), gps=ZERMATT, location=LOCATED) == {}


def test_where_nobody_knows_an_address_the_offline_place_stays(tmp_path: Path) -> None:
    with geocoding_server(reply({"error": "Unable to geocode"})) as server:
        made = sweep(tmp_path, nominatim(server.url)).make(swept("a.jpg", gps=FULL, location=OFFLINE), None)
    assert made.facts == {}
    assert "no address" in made.note


@pytest.mark.parametrize("stage", [metadata_extraction.STAGE, geocode_sweep.STAGE])
def test_the_stages_say_what_they_need(stage: Stage, tmp_path: Path) -> None:
    assert (stage.section, stage.output, stage.reads) == ("metadata_extraction", "", "export")
    assert stage.settings is MetadataExtractionSettings
    assert stage.recipe is not None
    recipe = stage.recipe(MetadataExtractionSettings(), around(tmp_path))
    assert recipe.extension is None
