"""Placeholders: what they mean, what is wrong with one, and that no hostile text costs more than it weighs."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skicyclerun.errors import ConfigError, EnvironmentUnset, PlaceholderCycle
from skicyclerun.settings.placeholders import MAX_NESTED_DEFAULTS, Resolved, Resolver, escape, fill_in
from skicyclerun.settings.section import MAX_LENGTH


def resolve(text: str, keys: dict[str, str] | None = None, environ: dict[str, str] | None = None) -> str:
    return Resolver(keys or {}, environ or {}).text(text, key="export.library").text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{a}/x", "A/x"),
        ("{a}{a}", "AA"),
        ("{b}", "A/b"),
        ("${HOME}", "/home/me"),
        ("${HOME:other}", "/home/me"),
        ("${UNSET:other}", "other"),
        ("${UNSET:}", ""),
        ("${EMPTY:other}", "other"),
        ("${UNSET:{b}/c}", "A/b/c"),
        ("${UNSET:${ALSO_UNSET:{a}}}!", "A!"),
        ("${UNSET:a:b}", "a:b"),
        ("${BRACES}", "{a}${HOME}"),
        ("{{a}}", "{a}"),
        ("${{HOME}}", "${HOME}"),
        ("cost: $5", "cost: $5"),
        ("$$$", "$$$"),
        ("$${a}", "$A"),
        ("$$${a}", "$$A"),
        ("$${{a}}", "$${a}"),
        ("${UNSET:$${a}}", "$A"),
        ("{{{a}}}", "{A}"),
        ("naïve/{a}/東京", "naïve/A/東京"),
    ],
)
def test_a_text_resolves_to(text: str, expected: str) -> None:
    keys = {"a": "A", "b": "{a}/b"}
    assert resolve(text, keys, {"HOME": "/home/me", "EMPTY": "", "BRACES": "{a}${HOME}"}) == expected


def test_keys_resolve_to_any_depth() -> None:
    depth = 5000
    keys = {f"k{n}": f"{{k{n + 1}}}" for n in range(depth)} | {f"k{depth}": "end"}
    assert resolve("{k0}", keys) == "end"


def test_a_cycle_is_named_with_its_whole_chain() -> None:
    keys = {"a": "{b}/1", "b": "x{c}", "c": "{a}", "outside": "{a}"}
    with pytest.raises(PlaceholderCycle, match="a → b → c → a") as caught:
        Resolver(keys, {}).key("outside")
    assert caught.value.key == "paths.a"


def test_a_key_that_names_itself_is_a_cycle() -> None:
    with pytest.raises(PlaceholderCycle, match="archive → archive"):
        Resolver({"archive": "{archive}/x"}, {}).key("archive")


def test_a_default_that_is_not_used_makes_no_cycle() -> None:
    keys = {"a": "${HOME:{b}}", "b": "{a}/b"}
    assert Resolver(keys, {"HOME": "/h"}).key("b").text == "/h/b"
    with pytest.raises(PlaceholderCycle):
        Resolver(keys, {}).key("b")


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"\{pipline_base\} is no key of paths\. Did you mean 'pipeline_base'\?"):
        resolve("{pipline_base}/albums", {"pipeline_base": "/x"})


def test_an_unset_variable_is_named_with_what_to_type() -> None:
    with pytest.raises(EnvironmentUnset, match="SKICYCLERUN_LIB_ROOT is not set") as caught:
        Resolver({"lib_root": "${SKICYCLERUN_LIB_ROOT}"}, {}).key("lib_root")
    assert "export SKICYCLERUN_LIB_ROOT=" in caught.value.next_step
    assert "--lib-root" in caught.value.next_step
    assert caught.value.key == "paths.lib_root"
    with pytest.raises(EnvironmentUnset) as caught:
        resolve("${OTHER}/x")
    assert "export OTHER=" in caught.value.next_step


@pytest.mark.parametrize(
    "text", ["{", "}", "a{b", "{}", "{a b}", "${", "${}", "${1A}", "${A", "${A:b", "${A:b}}", "{a}}"]
)
def test_a_malformed_placeholder_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ConfigError, match=r"at character \d+ of .*; a literal brace is written twice"):
        resolve(text, {"a": "A", "b": "B"})


def test_a_late_bound_name_stays_until_it_is_filled_in() -> None:
    resolved = Resolver({"logs": "/l{{1}}"}, {}).text("{logs}/p_{timestamp}.log", key="logging.file")
    assert resolved.late == {"timestamp"}
    assert fill_in(resolved.template, timestamp="20260101_000000") == "/l{1}/p_20260101_000000.log"


def test_a_literal_that_looks_late_bound_is_never_filled_in() -> None:
    resolver = Resolver({}, {"V": "{timestamp}"})
    resolved = resolver.text("{{timestamp}} ${V} {timestamp}", key="logging.file")
    assert fill_in(resolved.template, timestamp="T") == "{timestamp} {timestamp} T"


def test_values_that_double_at_every_step_are_stopped() -> None:
    keys = {f"k{n}": f"{{k{n + 1}}}{{k{n + 1}}}" for n in range(60)} | {"k60": "ha"}
    with pytest.raises(ConfigError, match=f"more than {MAX_LENGTH} characters"):
        resolve("{k0}", keys)


def test_many_long_values_are_stopped_by_the_budget_over_all() -> None:
    keys = {"long": "x" * 4000} | {f"k{n}": f"{{long}}{n}" for n in range(2000)}
    resolver = Resolver(keys, {})
    outcomes = [attempt(partial(resolver.key, f"k{n}")) for n in range(2000)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, ConfigError)]
    assert 900 < len(refused) < 1100
    assert "together resolve to more than" in str(refused[0])


def test_deeply_nested_defaults_are_refused_and_shallow_ones_are_not() -> None:
    def nested(depth: int) -> str:
        return "${U:" * depth + "x" + "}" * depth

    assert resolve(nested(MAX_NESTED_DEFAULTS)) == "x"
    with pytest.raises(ConfigError, match="deep"):
        resolve(nested(MAX_NESTED_DEFAULTS + 1))


def test_a_text_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(ConfigError, match=f"at most {MAX_LENGTH}"):
        resolve("{" * (MAX_LENGTH + 1))


@given(st.text(max_size=200))
def test_an_escaped_text_resolves_to_itself(text: str) -> None:
    assert resolve(escape(text)) == text


@given(st.text(max_size=50), st.text(max_size=50))
def test_what_is_filled_in_is_the_text_with_the_value_in_its_place(before: str, after: str) -> None:
    dollar = "$" if before.endswith("$") else ""
    text = f"{escape(before)}{dollar}{{timestamp}}{escape(after)}"
    template = Resolver({}, {}).text(text, key="k").template
    assert fill_in(template, timestamp="{NOW}") == f"{before}{{NOW}}{after}"
    assert Resolver({}, {}).text(template, key="k").template == template


def attempt(resolve_it: Callable[[], Resolved]) -> Resolved | ConfigError:
    try:
        return resolve_it()
    except ConfigError as error:
        return error


_NAMES = st.sampled_from(["a", "b", "c", "d", "timestamp", "nobody"])
_PARTS = st.one_of(
    st.text(alphabet="xyz/ $:", max_size=4),
    _NAMES.map(lambda name: f"{{{name}}}"),
    st.sampled_from(["${SET}", "${UNSET}", "${UNSET:", "${SET:", "}", "{{", "}}", "${UNSET:{a}}", "{"]),
)
_TEXTS = st.lists(_PARTS, max_size=6).map("".join)


@given(st.fixed_dictionaries(dict.fromkeys("abcd", _TEXTS)), _TEXTS)
def test_any_configuration_resolves_or_says_why_and_does_so_the_same_twice(keys: dict[str, str], text: str) -> None:
    """The outcome depends neither on what was resolved before nor on the order of the keys."""

    def outcome(resolver: Resolver) -> str:
        result = attempt(lambda: resolver.text(text, key="k"))
        if isinstance(result, PlaceholderCycle):
            assert result.chain[0] == result.chain[-1]
            for name, following in pairwise(result.chain):
                assert f"{{{following}}}" in keys[name]
            return "cycle"
        return result.key if isinstance(result, ConfigError) else result.template

    used = Resolver(keys, {"SET": "{a}"})
    for name in keys:
        attempt(partial(used.key, name))
    fresh = outcome(Resolver(dict(reversed(keys.items())), {"SET": "{a}"}))
    assert outcome(used) == fresh
    assert outcome(Resolver(keys, {"SET": "{a}"})) == fresh


@given(st.fixed_dictionaries(dict.fromkeys("abcd", _TEXTS)))
def test_checking_a_key_finds_what_resolving_it_finds(keys: dict[str, str]) -> None:
    for name in keys:
        resolver = Resolver(keys, {"SET": "s"})
        built = attempt(partial(Resolver(keys, {"SET": "s"}).key, name))
        if isinstance(built, ConfigError):
            with pytest.raises(type(built), match=re.escape(str(built))):
                resolver.check(name)
        else:
            resolver.check(name)
