"""What is taken from a language model's answer, and what is not."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.stages.llm_answer import (
    LINES,
    MAX_ANSWER,
    MAX_ITEMS,
    MAX_WORDS,
    Answer,
    AnswerRefused,
    kept_of,
    read_answer,
    schema,
    unfounded,
    words_of,
)
from tests.ollama_server import answer

ZERMATT = words_of(["Zermatt, Visp, Valais/Wallis, Switzerland", "Gornergrat railway"])
PROSE = "A skier goes down a snowy slope in golden light, quiet peaks behind. The Matterhorn stands over it."


def read(**changes: Any) -> Answer:
    return read_answer(json.dumps(answer(**changes)))


def read_or_refused(text: str) -> Answer | str:
    """The answer, or what is wrong with it; anything else that is raised is a fault."""
    try:
        return read_answer(text)
    except AnswerRefused as error:
        return str(error)


# ── the shape ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_schema_asks_for_every_key_and_says_its_limits() -> None:
    asked = schema()
    assert set(asked["required"]) == set(answer()) == set(Answer.model_fields)
    for key, words in MAX_WORDS.items():
        assert f"at most {words} words" in asked["properties"][key]["description"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "no JSON object"),
        ("Here is what I see: a skier.", "no JSON object"),
        ("[1, 2]", "should be an object|valid dictionary"),
        (json.dumps(answer(description=None)), "description: field required"),
        (json.dumps(answer(interior="no")), "interior: input should be a valid boolean"),
        (json.dumps(answer(keywords="ski, snow")), "keywords: input should be a valid array"),
        (json.dumps(answer(keywords=["ski", 7])), r"keywords\.1: input should be a valid string"),
        (json.dumps(answer(description="<p> \u200b\n</p>")), "description is empty"),
        (json.dumps(answer(description="unknown")), "description is empty"),
        (json.dumps(answer())[:-20], "no JSON object"),
        ('{"description": ' + "[" * 3000 + "]" * 3000 + "}", "no JSON object|description"),
        ('{"description": "' + "x" * MAX_ANSWER + '"}', "does not end within"),
        (json.dumps(answer()).replace("a skier", "\\ud800"), "no JSON object"),
    ],
)
def test_an_answer_that_breaks_the_schema_is_refused_with_what_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(AnswerRefused, match=wrong) as refused:
        read_answer(text)
    assert len(str(refused.value)) < 1000


def test_a_right_answer_is_kept_as_it_is() -> None:
    kept = kept_of(read(), ZERMATT)
    assert kept.facts == answer()
    assert kept.refused == {}


def test_texts_with_nothing_to_say_are_absent_and_further_keys_are_not_taken() -> None:
    said = answer(activity="", scene_type="N/A", secondary_elements=[], keywords=["", "None"], watermark_line2="-")
    kept = kept_of(read_answer(json.dumps(said | {"camera": "a Leica", "type": "exported"})), None)
    gone = {"activity", "scene_type", "secondary_elements", "keywords", "watermark_line2"}
    assert kept.facts == {key: value for key, value in answer().items() if key not in gone}


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_prose_that_is_too_long_is_cut_at_a_word() -> None:
    kept = kept_of(read(description="white, " * 70, scene_type="one two three four five"), None).facts
    assert kept["description"] == "white, " * 59 + "white…"
    assert kept["scene_type"] == "one two three four…"


def test_a_line_that_is_too_long_is_not_taken_and_the_rest_stays() -> None:
    kept = kept_of(read(watermark_line1="a " * 9), None)
    assert kept.refused == {"watermark_line1": "is longer than 8 words"}
    assert "watermark_line1" not in kept.facts
    assert kept.facts["watermark_line2"] == "Quiet peaks"
    assert "watermark_line1" in kept_of(read(watermark_line1="長" * 200), None).refused


def test_keywords_come_once_and_no_more_than_their_number() -> None:
    kept = kept_of(read(keywords=["Ski", "ski", "SKI "] + [f"k{n}" for n in range(40)]), None).facts
    assert len(kept["keywords"]) == MAX_ITEMS["keywords"]
    assert [each.casefold() for each in kept["keywords"]].count("ski") == 1


def test_markup_and_what_steers_the_reader_goes() -> None:
    kept = kept_of(
        read(
            description="A <script>alert('x')</script>skier\x1b[31m\u202e goes\r\n down <b",
            watermark_line1='"Golden\nmorning\x00"',
        ),
        None,
    ).facts
    assert kept["description"] == "A alert('x') skier [31m goes down b"
    assert kept["watermark_line1"] == "Golden morning"


HOSTILE = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="<>&\"'/\x00\x1b\u202e\u2066\u200b\ufeff\u0301aA \n\r\u2028", max_size=300),
    st.sampled_from(["<img src=x onerror=alert(1)>", "\u202eevil", "a\u0301" * 100, "W" * 5000, "x " * 5000, "﷽" * 90]),
)


@given(
    texts=st.fixed_dictionaries(
        {key: st.lists(HOSTILE, max_size=40) if key in MAX_ITEMS else HOSTILE for key in MAX_WORDS}
    ),
    grounded=st.booleans(),
)
def test_whatever_a_model_writes_what_is_kept_is_bounded_and_plain(texts: dict[str, Any], grounded: bool) -> None:
    kept = kept_of(Answer.model_validate({**texts, "interior": True}), ZERMATT if grounded else None)
    json.dumps(kept.facts, allow_nan=False).encode()
    assert set(kept.facts) <= set(Answer.model_fields)
    for key, value in kept.facts.items():
        if key == "interior":
            continue
        items = value if isinstance(value, list) else [value]
        assert len(items) <= MAX_ITEMS.get(key, 1)
        for text in items:
            assert text
            assert text == text.strip()
            assert len(text.split(" ")) <= MAX_WORDS[key]
            assert len(text) <= MAX_WORDS[key] * 12 + 1
            assert not {"<", ">"} & set(text)
            assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
            assert not set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


@given(st.text(max_size=400))
def test_any_text_is_an_answer_or_is_refused(text: str) -> None:
    assert read_or_refused(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(Answer.model_fields)), inner, max_size=9)
        ),
        max_leaves=20,
    )
)
def test_any_json_is_an_answer_or_is_refused(value: Any) -> None:
    assert read_or_refused(json.dumps(value))


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "line",
    [
        "Golden light over quiet peaks",
        "GOLDEN LIGHT",
        "Zermatt in golden light",
        "Above Zermatt's slopes",
        "Valais, Switzerland",
        "The Gornergrat Railway",
        "Skiers on the slope",
        "Zérmatt",
        "2024 / 27.7.",
        "",
    ],
)
def test_a_line_of_common_words_and_known_names_is_taken(line: str) -> None:
    assert unfounded(line, ZERMATT, PROSE) == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("Chamonix in golden light", ["Chamonix"]),
        ("Golden light over the Matterhorn", ["Matterhorn"]),
        ("matterhorn in golden light", ["matterhorn"]),
        ("Lake Tahoe, California", ["Lake", "Tahoe", "California"]),
        ("Zermatt, Austria", ["Austria"]),
        ("CHAMONIX", ["CHAMONIX"]),
        ("ツェルマットの朝", ["ツェルマットの朝"]),
        ("Quiet peaks of St-Moritz", ["St", "Moritz"]),
    ],
)
def test_a_name_that_nothing_says_is_found(line: str, names: list[str]) -> None:
    assert unfounded(line, ZERMATT, PROSE) == names


def test_a_text_of_the_answer_that_begins_with_a_capital_makes_no_name_of_it() -> None:
    kept = kept_of(
        read(description="A skier on a slope", atmosphere="Calm, clear", watermark_line1="A calm day"), ZERMATT
    )
    assert kept.facts["watermark_line1"] == "A calm day"


def test_prose_without_any_capitals_vouches_for_nothing() -> None:
    assert unfounded("Chamonix at dawn", ZERMATT, "a skier in chamonix, at dawn") == ["Chamonix"]


def test_only_the_line_with_the_made_up_place_is_left_out() -> None:
    said = read(watermark_line1="Dawn over Chamonix", watermark_line2="Quiet peaks")
    kept = kept_of(said, ZERMATT)
    reason = "says 'Dawn', 'Chamonix', which nothing that is known of the photo says"
    assert kept.refused == {"watermark_line1": reason}
    assert kept.facts == {key: value for key, value in answer().items() if key != "watermark_line1"}
    assert kept_of(said, None).facts["watermark_line1"] == "Dawn over Chamonix"


@given(st.sampled_from(LINES), st.text(max_size=80), st.text(max_size=200))
def test_any_line_is_judged(key: str, line: str, prose: str) -> None:
    names = unfounded(line, ZERMATT, prose)
    assert unfounded(line, ZERMATT | words_of(names), prose) == []
