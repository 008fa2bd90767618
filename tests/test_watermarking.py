"""The stages `watermarking` and `post_lora_watermarking`: texts without holes, and what is drawn where."""

# ruff: noqa: RUF001
# Watermarks are about characters that look like others.

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFont
from pydantic import ValidationError

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images import fonts as fonts_module
from skicyclerun.images import text_runs
from skicyclerun.images.fonts import Font, FontFiles, built_in, font_file, shapes, system_folders
from skicyclerun.images.text_runs import Fitting, runs_of
from skicyclerun.stages.stage import Made, Picture, Surroundings
from skicyclerun.stages.watermark_text import MAX_FACT, PLACEHOLDERS, Facts, Words, clean, line_of, parse, sign_of
from skicyclerun.stages.watermarking import STAGES, Watermarking, WatermarkSettings
from tests.images_samples import encoded, exif_with, exiftool, needs_exiftool, photo_like, quadrants, srgb_profile

ZERMATT: dict[str, Any] = {
    "location": {
        "formatted": "Bahnhofstrasse, Zermatt, Switzerland",
        "road": "Bahnhofstrasse",
        "city": "Zermatt",
        "state": "Valais",
        "country": "Switzerland",
        "country_code": "ch",
    },
    "date_taken": "2024-07-27T10:05:21.250+02:00",
    "title": "Up the pass - slowly",
    "exif": {"camera": "Maker Model 7"},
    "album_title": "Summer",
    "file_name": "IMG_0001.jpg",
}

GENERATION_A: dict[str, Any] = {
    "enabled": True,
    "format": "SkiCycleRun © {year} {astro_symbol} {location}",
    "year_offset": 1,
    "font": {
        "family": "Courier New Bold",
        "size": 36,
        "min_size": 20,
        "max_width_percent": 60,
        "fit_mode": "shrink_to_fit",
        "color": [255, 255, 255, 220],
        "stroke_color": [0, 0, 0, 255],
        "stroke_width": 3,
    },
    "position": "bottom_right",
    "margin": {"x": 50, "y": 40},
}
GENERATION_B: dict[str, Any] = {
    "enabled": True,
    "layout": "two_line",
    "location_line": {
        "font_size": 28,
        "min_size": 20,
        "color": [255, 255, 255, 220],
        "stroke_color": [0, 0, 0, 255],
        "stroke_width": 3,
    },
    "copyright_line": {
        "format": "SkiCycleRun © {year} {symbol}",
        "font_size": 16,
        "min_size": 12,
        "color": [255, 255, 255, 200],
        "stroke_color": [0, 0, 0, 255],
        "stroke_width": 2,
    },
    "line_spacing": 8,
    "symbol": "▲",
    "fixed_year": 2026,
    "year_offset": 1,
    "font": {
        "path": "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
        "fallback_paths": ["fonts/x.ttf"],
        "max_width_percent": 80,
        "fit_mode": "shrink_to_fit",
    },
    "position": "bottom_right",
    "margin": {"x": 50, "y": 40},
}

#: Pillow's own font and nothing else, so that a test means the same everywhere.
PLAIN: dict[str, Any] = {"system_fallback": False}


def line(template: str, facts: Mapping[str, Any] = ZERMATT, words: Words | None = None, variant: str = "") -> str:
    return line_of(parse(template), Facts(facts, words or Words(), variant).text)


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in ZERMATT.items() if key not in keys}


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{place}, {year}", "Zermatt, Switzerland, 2024"),
        ("{location}", "Bahnhofstrasse, Zermatt, Switzerland"),
        ("{city} {state} {country} {country_code} {road}", "Zermatt Valais Switzerland CH Bahnhofstrasse"),
        ("{photo_year}/{month}/{day} {date} {time}", "2024/07/27 2024-07-27 10:05"),
        ("{album}: {file_name} ({camera})", "Summer: IMG_0001.jpg (Maker Model 7)"),
        ("{lens|camera|title}", "Maker Model 7"),
        ("{{{city}}} {{x}}", "{Zermatt} {x}"),
        ("{astro_symbol}", "♌"),
        ("no placeholder – at all,", "no placeholder – at all,"),
    ],
)
def test_a_template_says_what_is_known(template: str, said: str) -> None:
    assert line(template) == said


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{county}, {year}", "2024"),
        ("{city}, {county}, {country}", "Zermatt, Switzerland"),
        ("{city}, {county}", "Zermatt"),
        ("Foo – {lens}", "Foo"),
        ("Foo ({lens})", "Foo"),
        ("Foo ({lens}, {city})", "Foo (Zermatt)"),
        ("Foo ({city}, {lens}) bar", "Foo (Zermatt) bar"),
        ('"{lens}" {city}', "Zermatt"),
        ('{title}: "{city}, {lens}"', 'Up the pass - slowly: "Zermatt"'),
        ("„{lens}“ – {city}", "Zermatt"),
        ("{city} | {county} | {lens} | {country}", "Zermatt | Switzerland"),
        ("[({lens})] {city}", "Zermatt"),
        ("{county}, {lens}", ""),
        ("({county}) – {lens} ▲", ""),
        ("{lens} {symbol}", ""),
        ("Photo by me, {lens}", "Photo by me"),
        ("Ski Inc. {lens}", "Ski Inc."),
        ("{city}’s best {lens}", "Zermatt’s best"),
    ],
)
def test_what_is_not_known_leaves_no_hole(template: str, said: str) -> None:
    assert line(template, words=Words(symbol="▲")) == said


def test_the_defect_of_old_watermarks_is_gone() -> None:
    assert line("{city}, {country}, {year}", {"date_taken": "2024-01-01"}) == "2024"
    assert line("© {year} {symbol}", {}, Words(symbol="▲")) == ""
    assert line("SkiCycleRun © {year} {symbol} {location}", {}, Words(symbol="▲", fixed_year=2026)) == (
        "SkiCycleRun © 2026 ▲"
    )


SEPARATORS = (", ", " – ", " | ", " · ", ": ", " / ", " ")
NAMES = ("city", "county", "state", "country", "road")


@st.composite
def gapped(draw: st.DrawFn) -> tuple[str, dict[str, str], list[str]]:
    """A template of facts between separators and in brackets; the facts that are known; their texts in order."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    known = {name: f"{name.upper()}x" for name in names if draw(st.booleans())}
    template = ""
    for number, name in enumerate(names):
        wrap = draw(st.sampled_from(("{}", "({})", "[{}]", '"{}"', "“{}”")))
        template += (draw(st.sampled_from(SEPARATORS)) if number else "") + wrap.format(f"{{{name}}}")
    return template, known, [known[name] for name in names if name in known]


@given(gapped())
def test_no_template_leaves_a_hole_whatever_is_missing(case: tuple[str, dict[str, str], list[str]]) -> None:
    template, known, texts = case
    said = line(template, {"location": known})
    assert re.findall(r"[A-Z]+x", said) == texts  # everything that is known, once, in order
    bare = re.sub(r"\"F\"|\(F\)|\[F\]|“F”", "F", re.sub(r"[A-Z]+x", "F", said))
    assert re.fullmatch(r"(F(, | – | \| | · |: | / | ))*F|", bare), said  # one separator between any two, none outside
    if len(known) == template.count("{"):
        assert said == template.format(**known)


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30)), st.text(max_size=30))
def test_texts_of_strangers_cannot_steer_the_line(location: dict[str, str], title: str) -> None:
    said = line("{title} – {place} ({road})", {"location": location, "title": title})
    assert said == said.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in said)
    assert not any(unicodedata.category(c) == "Cf" and c not in "\u200c\u200d" for c in said)


def test_facts_are_put_on_one_line_and_cut() -> None:
    assert clean("a\r\n\tb\u2028c\x00\x1b[31m") == "a b c [31m"
    assert clean("evil\u202egnp.\u2066x") == "evilgnp.x"
    assert clean("e\u0301") == "é"
    assert sum(unicodedata.category(c) == "Mn" for c in clean("x" + "\u0301" * 50)) == 4
    long = clean("word " * 1000)
    assert len(long) <= MAX_FACT
    assert long.endswith("…")
    assert (
        len(line("{title}{description}{album}", dict.fromkeys(("title", "description", "album_title"), "x" * 999)))
        <= 400
    )


def test_a_dash_in_a_title_is_no_separator() -> None:
    assert line("{title}, {lens}", {"title": "– a –,"}) == "– a –,"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ({"city": "Singapore", "country": "Singapore"}, "Singapore"),
        ({"city": "singapore", "country": "Singapore"}, "Singapore"),
        ({"county": "Visp", "state": "Valais", "country": "Switzerland"}, "Visp, Switzerland"),
        ({"state": "Valais"}, "Valais"),
        ({"country": "Switzerland"}, "Switzerland"),
        ({"formatted": "Somewhere"}, "Somewhere"),
        ({"city": " \n", "country": None}, ""),
        ("an old catalog's text", "an old catalog's text"),
        (None, ""),
        (7.5, "7.5"),
    ],
)
def test_the_place_is_the_nearest_and_the_country_without_repetition(location: object, said: str) -> None:
    assert line("{place}", {"location": location}) == said


@pytest.mark.parametrize(
    ("words", "facts", "year"),
    [
        (Words(fixed_year=2026, year_offset=1), ZERMATT, "2026"),
        (Words(fixed_year=2026), {}, "2026"),
        (Words(year_offset=1), ZERMATT, "2025"),
        (Words(), ZERMATT, "2024"),
        (Words(year_offset=1), {}, ""),
        (Words(), {"date_taken": "no date"}, ""),
        (Words(), {"date_taken": "2024-07-27"}, "2024"),
    ],
)
def test_the_year_is_fixed_or_that_of_the_photo_with_its_offset(words: Words, facts: dict[str, Any], year: str) -> None:
    assert line("{year}", facts, words) == line("{copyright_year}", facts, words) == year


def test_a_date_without_a_time_has_none() -> None:
    assert line("{date} {time}", {"date_taken": "2024-07-27"}) == "2024-07-27"


def test_the_signs_of_the_zodiac() -> None:
    from datetime import date

    days = {(1, 1): "♑", (1, 20): "♒", (2, 29): "♓", (3, 21): "♈", (7, 22): "♋", (7, 23): "♌", (12, 31): "♑"}
    assert {day: sign_of(date(2024, *day)) for day in days} == days
    assert line("{astro_symbol}", words=Words(symbol="▲")) == "▲"  # newer files mean their own symbol by it


def test_the_style_of_a_restyled_picture_can_be_named() -> None:
    assert line("{city} – {style}", variant="Afremov") == "Zermatt – Afremov"


def test_every_placeholder_takes_any_facts() -> None:
    names = ("location", "exif", "title", "date_taken", "keywords", "persons", "album_title")
    strange: dict[str, Any] = {name: [{"a": [1]}] for name in names}
    for facts in ({}, strange, ZERMATT, {"keywords": ["a", "a", 3, None], "persons": "Ann"}):
        for name in PLACEHOLDERS:
            assert isinstance(Facts(facts, Words()).text(name), str)
    assert line("{keywords} {persons}", {"keywords": ["a", "a", "b"], "persons": ["Ann"]}) == "a, b Ann"


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_of_the_first_generation_mean_one_line() -> None:
    section = WatermarkSettings.model_validate(GENERATION_A)
    assert section.line_templates() == ("SkiCycleRun © {year} {astro_symbol} {location}", "")
    style = section.style()
    assert (style.lines[0].size, style.lines[0].min_size, style.lines[0].stroke_width) == (36, 20, 3)
    assert style.lines[0].color == (255, 255, 255, 220)
    assert (style.vertical, style.horizontal, style.max_width_percent) == ("bottom", "right", 60)


def test_files_of_the_second_generation_mean_two_lines() -> None:
    section = WatermarkSettings.model_validate(GENERATION_B)
    assert section.line_templates() == ("{place}", "SkiCycleRun © {year} {symbol}")
    first, second = section.style().lines
    assert (first.size, first.min_size, first.stroke_width) == (28, 20, 3)
    assert (second.size, second.min_size, second.stroke_width, second.color[3]) == (16, 12, 2, 200)


@pytest.mark.parametrize(
    ("section", "templates"),
    [
        ({}, ("{place}", "© {year} {symbol}")),
        ({"format": "{city}"}, ("{city}", "")),
        ({"format": "{city}", "line2": "{year}"}, ("{city}", "{year}")),
        ({"format": "{city}", "line1": "{road}"}, ("{road}", "© {year} {symbol}")),
        ({"format": "{city}", "layout": "two_line"}, ("{place}", "© {year} {symbol}")),
        ({"location_line": {"format": "{road}"}, "format": "{city}"}, ("{road}", "© {year} {symbol}")),
        ({"location_line": {"format": "{road}"}, "line1": "{title|place}"}, ("{title|place}", "© {year} {symbol}")),
        ({"copyright_line": {"format": "©"}, "line2": ""}, ("{place}", "")),
        ({"layout": "one_line"}, ("{place}", "")),
    ],
)
def test_the_newer_key_of_a_template_wins(section: dict[str, Any], templates: tuple[str, str]) -> None:
    assert WatermarkSettings.model_validate(section).line_templates() == templates


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"line1": "{citty}"}, "{citty} in '{citty}' is no placeholder. Did you mean 'city'?"),
        ({"line1": "{title|citty}"}, "Did you mean 'city'?"),
        ({"line2": "a } b"}, "stray } at character 3"),
        ({"copyright_line": {"format": "{"}}, "stray {"),
        ({"format": 5}, "must be a text with placeholders"),
        ({"line1": "x" * 401}, "at most 400"),
        ({"font": {"color": [1, 2, 300]}}, "must be a colour"),
        ({"font": {"color": "white"}}, "must be a colour"),
        ({"font": {"size": 0}}, "must be a size in pixels from 1 to 2000"),
        ({"fixed_year": "2026"}, "must be a year or null"),
        ({"position": "somewhere"}, "bottom_right"),
        ({"margin": {"x": -1}}, "margin.x"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(section: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        WatermarkSettings.model_validate(section)


def test_colours_and_positions_can_be_written_as_people_write_them() -> None:
    section = WatermarkSettings.model_validate(
        {"font": {"color": "#ff8000", "stroke_color": "#00000080"}, "position": "Top-Centre"}
    )
    assert section.font.color == (255, 128, 0, 255)
    assert section.font.stroke_color == (0, 0, 0, 128)
    assert section.position == "top_center"
    assert WatermarkSettings.model_validate({"position": "left_middle"}).position == "center_left"
    assert WatermarkSettings.model_validate({"position": "middle"}).position == "center"


def test_both_stages_stand_on_one_section() -> None:
    before, after = STAGES
    assert (before.name, before.reads, before.entry_type) == ("watermarking", "preprocessing", "watermarked")
    assert (after.name, after.reads, after.entry_type) == (
        "post_lora_watermarking",
        "lora_processing",
        "lora_watermarked",
    )
    assert {stage.output for stage in STAGES} == {"watermarked_final"}
    assert {stage.section for stage in STAGES} == {"watermark"}


# ── drawing ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Studio:
    """Makes recipes and pictures in a folder, and gathers what is said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.picture_number = 0

    def recipe(self, **section: Any) -> Watermarking:
        section.setdefault("font", PLAIN)
        surroundings = Surroundings(self.folder, self.folder, self.folder, say=self.said.append)
        made = Watermarking(WatermarkSettings.model_validate(section), surroundings)
        made.open()
        return made

    def picture(self, data: bytes, facts: Mapping[str, Any] = ZERMATT, name: str = "in.png") -> Picture:
        path = self.folder / name
        path.write_bytes(data)
        return Picture(path, hashlib.sha256(data).hexdigest(), facts)

    def make(self, recipe: Watermarking, picture: Picture) -> tuple[Made, Image.Image]:
        out = self.folder / f"out{picture.path.suffix}"
        made = recipe.make(picture, out)
        with Image.open(out) as image:
            image.load()
            return made, image

    def drawn(
        self, size: tuple[int, int] = (800, 600), facts: Mapping[str, Any] = ZERMATT, **section: Any
    ) -> Image.Image:
        """The watermark alone: white letters with black strokes on grey, as the difference from the grey."""
        grey = Image.new("RGB", size, (128, 128, 128))
        _, image = self.make(self.recipe(**section), self.picture(encoded(grey, "PNG"), facts))
        return ImageChops.difference(grey, image.convert("RGB"))


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


def box_of(difference: Image.Image) -> tuple[int, int, int, int]:
    box = difference.getbbox()
    assert box is not None, "nothing was drawn"
    return box


@pytest.mark.parametrize(
    "position",
    [f"{v}_{h}" for v in ("top", "center", "bottom") for h in ("left", "center", "right") if (v, h) != ("center",) * 2]
    + ["center"],
)
def test_the_watermark_stands_where_it_should(studio: Studio, position: str) -> None:
    box = box_of(
        studio.drawn(position=position, margin={"x": 30, "y": 20}, reference_dimension=0, font={**PLAIN, "size": 20})
    )
    vertical, _, horizontal = position.partition("_")
    left, top, right, bottom = box
    assert {"left": left, "center": (left + 800 - right) // 2, "right": 800 - right}[horizontal or "center"] == (
        pytest.approx({"left": 30, "right": 30}.get(horizontal, left), abs=2)
    )
    if horizontal in ("", "center"):
        assert left == pytest.approx(800 - right, abs=3)
    match vertical:
        case "top":
            assert 20 <= top <= 34  # the height of the letters is less than that of the font
        case "bottom":
            assert 20 <= 600 - bottom <= 34
        case _:
            assert top == pytest.approx(600 - bottom, abs=12)


def test_pixels_elsewhere_are_left_alone(studio: Studio) -> None:
    photo = photo_like((640, 480)).convert("RGB")
    _, image = studio.make(studio.recipe(), studio.picture(encoded(photo, "PNG")))
    left, top, _, _ = box_of(ImageChops.difference(photo, image))
    assert left > 640 * 0.3
    assert top > 480 * 0.85


def test_two_lines_are_aligned_at_their_edge_and_one_above_the_other(studio: Studio) -> None:
    one = box_of(studio.drawn(line2="", position="top_right"))
    both = studio.drawn(position="top_right")
    below = both.crop((0, one[3] + 1, 800, 600))
    assert box_of(below)[2] == pytest.approx(one[2], abs=1)


def test_sizes_grow_with_the_picture(studio: Studio) -> None:
    small, large = (box_of(studio.drawn((n, n // 2), line2="")) for n in (1024, 2048))
    assert (large[2] - large[0]) / (small[2] - small[0]) == pytest.approx(2, rel=0.1)
    fixed = [box_of(studio.drawn((n, n // 2), line2="", reference_dimension=0)) for n in (1024, 2048)]
    assert fixed[0][2] - fixed[0][0] == fixed[1][2] - fixed[1][0]


def test_a_long_line_shrinks_until_it_fits_and_is_cut_when_it_may_not_shrink_further(studio: Studio) -> None:
    facts = {**ZERMATT, "title": "Once up the long and winding pass"}
    font = {**PLAIN, "size": 60, "max_width_percent": 30}
    section: dict[str, Any] = {"line1": "{title}", "line2": "", "reference_dimension": 0}
    free = box_of(studio.drawn((1600, 600), facts, **section, font={**font, "max_width_percent": 100}))
    fitted = box_of(studio.drawn((1600, 600), facts, **section, font={**font, "min_size": 10}))
    assert fitted[2] - fitted[0] <= 480 < free[2] - free[0]
    assert fitted[2] - fitted[0] > 450  # as large as fits
    assert fitted[3] - fitted[1] < free[3] - free[1]

    grey = encoded(Image.new("RGB", (1600, 600)), "PNG")
    for stuck in ({**font, "min_size": 55}, {**font, "fit_mode": "none"}):
        made, image = studio.make(studio.recipe(**section, font=stuck), studio.picture(grey, facts))
        assert made.note == "the watermark was cut to fit"
        cut = box_of(image)
        assert cut[2] - cut[0] <= 480
        assert cut[3] - cut[1] > fitted[3] - fitted[1]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (40, 30)])
def test_a_tiny_picture_gets_what_fits_and_never_fails(studio: Studio, size: tuple[int, int]) -> None:
    grey = Image.new("RGB", size, (9, 9, 9))
    made, image = studio.make(studio.recipe(reference_dimension=0), studio.picture(encoded(grey, "PNG")))
    assert image.size == size
    if "watermark" not in made.facts:
        assert "no room for the watermark" in made.note
        assert list(image.convert("RGB").tobytes()) == list(grey.tobytes())


def test_sizes_beyond_all_measure_cost_no_memory(studio: Studio) -> None:
    font = {**PLAIN, "size": 2000, "min_size": 2000, "stroke_width": 200}
    grey = encoded(Image.new("RGB", (300, 200)), "PNG")
    made, _ = studio.make(studio.recipe(font=font, reference_dimension=1), studio.picture(grey))
    assert "no room for the watermark" in made.note


def test_colour_opacity_and_stroke(studio: Studio) -> None:
    section: dict[str, Any] = {"line1": "III", "line2": "", "reference_dimension": 0, "position": "center"}
    ground = encoded(Image.new("RGB", (400, 300), (100, 100, 100)), "PNG")

    def colours(**font: Any) -> set[Any]:
        font = {**PLAIN, "size": 100, "max_width_percent": 100, **font}
        _, image = studio.make(studio.recipe(**section, font=font), studio.picture(ground))
        counted = image.convert("RGB").getcolors(1 << 16)
        assert counted is not None
        return {colour for count, colour in counted if count > 150}

    assert colours(color="#ff0000", stroke_width=0) == {(100, 100, 100), (255, 0, 0)}
    assert colours(color="#ff0000", stroke_color="#0000ff", stroke_width=6) == {
        (100, 100, 100),
        (255, 0, 0),
        (0, 0, 255),
    }
    # Through half-transparent letters the picture is seen, not the stroke beneath them.
    half = colours(color=[200, 200, 200, 128], stroke_color="#0000ff", stroke_width=6)
    assert any(abs(colour[0] - 150) <= 1 and colour[0] == colour[1] == colour[2] for colour in half)


def test_a_grey_picture_stays_grey_for_a_grey_watermark_only(studio: Studio) -> None:
    grey = studio.picture(encoded(Image.new("L", (300, 200), 90), "JPEG"), name="in.jpg")
    assert studio.make(studio.recipe(), grey)[1].mode == "L"
    assert studio.make(studio.recipe(font={**PLAIN, "color": "#ff0000"}), grey)[1].mode == "RGB"


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────

FORMATS = [("jpg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF"), ("png", "PNG")]
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/x"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def sample(kind: str, orientation: int = 1) -> bytes:
    exif = exif_with(orientation).tobytes()
    options: dict[str, Any] = {"exif": exif, "icc_profile": srgb_profile()}
    if kind == "PNG":
        from PIL import PngImagePlugin

        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    else:
        options |= {"xmp": XMP, "quality": 95}
    return encoded(quadrants((320, 240)), kind, **options)


@pytest.mark.parametrize(("suffix", "kind"), FORMATS)
def test_format_profile_exif_and_xmp_survive(studio: Studio, suffix: str, kind: str) -> None:
    picture = studio.picture(sample(kind), name=f"in.{suffix}")
    made, image = studio.make(studio.recipe(), picture)
    with Image.open(picture.path) as before:
        assert image.format == kind
        assert image.info["icc_profile"] == srgb_profile()
        assert dict(image.getexif()) == dict(before.getexif())
        assert dict(image.getexif().get_ifd(0x8769)) == dict(before.getexif().get_ifd(0x8769))
        assert b"image/x" in (image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode())
    assert (made.width, made.height) == (320, 240)
    assert made.facts == {
        "watermark": {"text": "Zermatt, Switzerland\n© 2024", "font": "Aileron Regular", "position": "bottom_right"}
    }


@pytest.mark.parametrize(("suffix", "kind"), FORMATS)
def test_a_turned_picture_is_written_upright(studio: Studio, suffix: str, kind: str) -> None:
    picture = studio.picture(sample(kind, orientation=6), name=f"in.{suffix}")
    made, image = studio.make(studio.recipe(position="top_left"), picture)
    assert (made.width, made.height) == image.size == (240, 320)
    assert image.getexif().get(0x0112, 1) == 1
    corner = image.convert("RGB").getpixel((235, 5))
    assert isinstance(corner, tuple)
    assert corner[0] > 180  # red was at the top left before the turn
    assert corner[1] < 60


@needs_exiftool
def test_iptc_of_a_jpeg_survives(studio: Studio) -> None:
    from datetime import UTC, datetime

    from skicyclerun.models import LibraryMetadata
    from tests.images_samples import render

    source = studio.folder / "source.jpg"
    source.write_bytes(encoded(photo_like((200, 150)), "JPEG"))
    exported = studio.folder / "exported.jpg"
    render(source, exported, LibraryMetadata(title="Über", keywords=("a",), date=datetime(2024, 1, 2, tzinfo=UTC)))
    studio.recipe().make(Picture(exported, "0", ZERMATT), studio.folder / "out.jpg")
    before, after = exiftool(exported), exiftool(studio.folder / "out.jpg")
    assert after["IPTC:ObjectName"] == before["IPTC:ObjectName"] == "Über"
    assert after["XMP-dc:Subject"] == before["XMP-dc:Subject"]


@pytest.mark.parametrize(("suffix", "kind"), FORMATS)
def test_the_same_picture_gives_the_same_bytes_in_any_recipe(studio: Studio, suffix: str, kind: str) -> None:
    picture = studio.picture(sample(kind), name=f"in.{suffix}")
    written = []
    for number in range(2):
        out = studio.folder / f"out{number}.{suffix}"
        studio.recipe().make(picture, out)
        written.append(out.read_bytes())
    assert written[0] == written[1]


def test_with_nothing_to_say_the_picture_is_copied(studio: Studio) -> None:
    picture = studio.picture(sample("JPEG"), facts={}, name="in.jpg")
    recipe = studio.recipe()
    made, _ = studio.make(recipe, picture)
    assert (studio.folder / "out.jpg").read_bytes() == picture.path.read_bytes()
    assert "watermark" not in made.facts
    assert made.note == "none of the facts of the watermark is known; it was copied without"
    assert recipe.depends_on(picture) == {"lines": ["", ""]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no picture", "text file"),
        (sample("JPEG")[:2000], "truncated|damaged|cut"),
        (encoded(quadrants(), "GIF"), "it is a GIF file"),
    ],
)
def test_what_is_no_whole_picture_is_refused_with_a_reason_and_leaves_nothing(
    studio: Studio, data: bytes, reason: str
) -> None:
    with pytest.raises(PhotoUnreadable, match=reason):
        studio.recipe().make(studio.picture(data, name="in.jpg"), studio.folder / "out.jpg")
    assert not (studio.folder / "out.jpg").exists()


def test_a_dry_run_says_the_texts(studio: Studio) -> None:
    recipe = studio.recipe(dry_run=True, symbol="*")
    picture = studio.picture(b"")
    assert recipe.left_out(picture) == 'dry_run: would say "Zermatt, Switzerland" / "© 2024 *"'
    assert recipe.left_out(studio.picture(b"", {})) == "dry_run: would say nothing"
    assert studio.recipe().left_out(picture) == ""


def test_what_a_language_model_wrote_goes_first_where_that_is_wanted(studio: Studio) -> None:
    facts = {**ZERMATT, "llm_image_analysis": {"watermark_line1": "A quiet\nmorning", "watermark_line2": "unknown"}}
    picture = studio.picture(b"", facts)
    assert studio.recipe().depends_on(picture)["lines"] == ["Zermatt, Switzerland", "© 2024"]
    recipe = studio.recipe(line1_prefer_llm=True, line2_prefer_llm=True)
    assert recipe.depends_on(picture)["lines"] == ["A quiet morning", "© 2024"]


# ── what a result depends on ──────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_depends_on_its_texts_and_their_looks_and_on_nothing_else(studio: Studio) -> None:
    picture = studio.picture(b"")
    base = studio.recipe().depends_on(picture)
    assert studio.recipe().depends_on(picture) == base
    assert studio.recipe(workers=3, dry_run=True).depends_on(picture) == base
    assert studio.recipe().depends_on(studio.picture(b"", {**ZERMATT, "title": "another"})) == base
    for facts in (without("date_taken"), {**ZERMATT, "location": {"city": "Visp"}}):
        assert studio.recipe().depends_on(studio.picture(b"", facts)) != base
    for section in ({"quality": 80}, {"position": "top_left"}, {"font": {**PLAIN, "color": "#ff0000"}}, {"line2": "x"}):
        assert studio.recipe(**section).depends_on(picture) != base


def test_a_changed_font_file_is_noticed_and_one_that_draws_nothing_is_not(studio: Studio) -> None:
    data = built_in().load()
    (studio.folder / "one.ttf").write_bytes(data)
    picture = studio.picture(b"")

    def depends(**font: Any) -> Mapping[str, object]:
        return studio.recipe(font={**PLAIN, **font}).depends_on(picture)

    before = depends(path="one.ttf")
    (studio.folder / "one.ttf").write_bytes(data + b"\0")
    assert depends(path="one.ttf") != before
    (studio.folder / "two.ttf").write_bytes(data + b"\0\0")
    assert depends(path="one.ttf", fallback_paths=["two.ttf"]) == depends(path="one.ttf")


# ── fonts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_font_that_is_missing_is_said_once_and_the_run_goes_on(studio: Studio) -> None:
    recipe = studio.recipe(font={**PLAIN, "path": "none.ttf", "family": "No Such Family", "fallback_paths": ["x.ttf"]})
    recipe.open()
    studio.make(recipe, studio.picture(sample("PNG")))
    assert studio.said == [
        f"watermark: the font {name} is not there or cannot be read; Aileron Regular is used"
        for name in ("none.ttf", "No Such Family")
    ]


def test_a_damaged_font_is_passed_over(studio: Studio) -> None:
    (studio.folder / "bad.ttf").write_bytes(built_in().load()[:500])
    (studio.folder / "good.ttf").write_bytes(built_in().load())
    recipe = studio.recipe(font={**PLAIN, "path": "bad.ttf", "fallback_paths": ["good.ttf"]})
    assert len(recipe._fonts()) == 2
    assert len(studio.said) == 1


def test_relative_fonts_lie_beside_the_configuration(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    (studio.folder / "fonts").mkdir()
    (studio.folder / "fonts" / "f.ttf").write_bytes(built_in().load() + b"\0")
    monkeypatch.chdir("/")
    recipe = studio.recipe(font={**PLAIN, "fallback_paths": ["fonts/f.ttf"]})
    assert recipe._fonts()[0].sha256 != built_in().sha256
    assert studio.said == []


def test_families_are_found_by_the_names_of_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("Courier New Bold.ttf", "sub/DejaVuSans-Bold.otf", "Some_Font-Regular.TTF", "Note.txt"):
        (tmp_path / name).write_bytes(b"")
    found = FontFiles([tmp_path / "absent", tmp_path])
    assert found.find("courier new bold") == tmp_path / "Courier New Bold.ttf"
    assert found.find("DejaVu Sans Bold") == tmp_path / "sub/DejaVuSans-Bold.otf"
    assert found.find("Some Font") == tmp_path / "Some_Font-Regular.TTF"
    assert found.find("Note") is None


def test_characters_that_no_font_has_are_replaced_or_left_out_and_said(studio: Studio) -> None:
    facts = {"title": "Zürich – „Café“ 東 ok", "location": {"city": "東京都", "country": "Japan"}}
    recipe = studio.recipe(line1="{title}", line2="{place}")
    made, _ = studio.make(recipe, studio.picture(sample("PNG"), facts))
    assert made.facts["watermark"]["text"] == 'Zurich - "Cafe“ ok\nJapan'
    assert made.note == "no font here has 東 京 都; the watermark does without"


def test_a_text_that_would_lose_most_of_its_letters_is_left_out_whole() -> None:
    fit = Fitting([built_in()]).text
    assert fit("東京都新宿区3") == ""
    assert fit("Tokyo (東京)") == "Tokyo"
    assert fit("東京, Tokyo") == "Tokyo"
    assert fit("Łódź") == "Lodz"


class PartOf(Font):
    """A font that admits to some of its characters only."""

    def __init__(self, font: Font, admits: Callable[[str], bool]) -> None:
        super().__init__(font.load, "part")
        self.admits = admits

    def has(self, character: str) -> bool:
        return self.admits(character) and super().has(character)


def wide_font(*characters: str) -> Font:
    """A font of this system with these characters; skips where there is none."""
    files = FontFiles(system_folders())
    for name in fonts_module.WIDE_FONTS:
        path = files.find(name)
        if path is not None and all(map((font := font_file(path)).has, characters)):
            return font
    pytest.skip(f"no font with {''.join(characters)} here")


def hebrew(character: str) -> bool:
    return "\u0590" <= character <= "\u05ff"


def test_a_word_goes_to_the_font_that_has_all_of_it() -> None:
    plain = built_in()
    other = PartOf(wide_font("ü"), lambda character: True)
    runs = runs_of("Zürich 12", [plain, other])
    assert [(run.text, run.font is other) for run in runs] == [("Zürich ", True), ("12", False)]


@pytest.mark.skipif(not shapes(), reason="raqm is not there")
@settings(max_examples=60)
@given(st.text("ab12אבג ,.-:/()", min_size=1, max_size=12))
def test_runs_of_several_fonts_stand_in_the_order_in_which_raqm_sets_one(text: str) -> None:
    from skicyclerun.images.watermark import _mask, _typeset

    text = " ".join(text.split())
    whole = wide_font("א", "a")
    parts = [PartOf(whole, lambda c: not hebrew(c)), PartOf(whole, hebrew)]

    def ink(fonts: list[Any]) -> Image.Image:
        return _mask(_typeset(text, fonts, 20, 0), (400, 40), 5, 28, 0)

    one, several = ink([whole]), ink(parts)
    difference = sum(ImageChops.difference(one, several).tobytes())
    assert difference <= 0.35 * sum(one.tobytes())  # kerning across runs is lost, and fractions of a pixel


@pytest.mark.skipif(not shapes(), reason="raqm is not there")
def test_arabic_letters_are_joined() -> None:
    font = wide_font("ع")
    (run,) = runs_of("ععع", [font])
    joined, apart = font.face(40).getlength(run.text), 3 * font.face(40).getlength("ع")
    assert joined < apart * 0.95


def test_without_raqm_right_to_left_text_is_still_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    font = wide_font("א", "ב")
    monkeypatch.setattr(text_runs, "shapes", lambda: False)
    assert "".join(run.text for run in runs_of("אב (12) x", [font])) == "x (12) בא"
    assert "".join(run.text for run in runs_of("x אב 3", [font])) == "x 3 בא"


@pytest.mark.parametrize("shaped", [True, False])
@pytest.mark.parametrize(
    "title",
    [
        "東京都 新宿",
        "القاهرة، مصر",
        "שלום",
        "नमस्ते",
        "กรุงเทพ",
        "👩‍👩‍👧 🎿 🇨🇭",
        "e\u0301\u0323",
        "\u0301",
        "﷽",
        "\ufffd \U000f0000",
    ],
)
def test_no_script_is_too_much(studio: Studio, title: str, shaped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shaped:
        for module in (text_runs, fonts_module):
            monkeypatch.setattr(module, "shapes", lambda: False)
    facts = {**ZERMATT, "title": title}
    for font in (PLAIN, {}):
        made, _ = studio.make(studio.recipe(line1="{title}", font=font), studio.picture(sample("PNG"), facts))
        assert "© 2024" in made.facts["watermark"]["text"]


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_any_text_can_be_set(text: str) -> None:
    from skicyclerun.images.watermark import _typeset

    font = built_in()
    fitted = Fitting([font]).characters(clean(text))
    assert all(map(font.has, fitted))
    assert _typeset(fitted, [font], 20, 1.5).width >= 0


def test_whether_a_font_has_a_character_is_seen() -> None:
    font = built_in()
    assert all(map(font.has, "aZ9©… "))
    assert not any(map(font.has, "東ع▲🎿\ue000"))
    face = ImageFont.load_default(20)
    assert isinstance(face, ImageFont.FreeTypeFont)
    assert io.BytesIO(font.load()).read(4) == face.font_bytes[:4]


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────

PAGE = (Path(__file__).parents[1] / "docs" / "watermark.md").read_text(encoding="utf-8")


def test_the_page_has_every_placeholder() -> None:
    assert [name for name in PLACEHOLDERS if f"`{{{name}}}`" not in PAGE] == []


def test_the_page_has_every_key() -> None:
    from skicyclerun.settings.section import StageSection
    from skicyclerun.stages.watermarking import WatermarkFont, WatermarkLine

    own = set(WatermarkSettings.model_fields) - set(StageSection.model_fields)
    keys = own | {f"font.{key}" for key in WatermarkFont.model_fields} | {"margin.x", "margin.y"}
    keys = keys - {"font", "margin"} | set(WatermarkLine.model_fields)
    assert [key for key in sorted(keys) if f"`{key}`" not in PAGE] == []
