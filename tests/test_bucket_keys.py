"""Keys, addresses, indexes and the CDN's paths: pure."""

from __future__ import annotations

import json
import re
import unicodedata
from urllib.parse import unquote, urljoin

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skicyclerun.bucket.album_index import IndexedPicture, album_index
from skicyclerun.bucket.cloudfront import addresses_begin, may_match, meant, paths_of
from skicyclerun.bucket.keys import MAX_KEY_BYTES, MAX_PREFIX_BYTES, Claim, ClaimedKeys, KeyRule, clean_prefix, url_path
from skicyclerun.files.naming import collision_key

STRANGE = "aAäÄe\u0301é #?%&+~:/\\.\0\n\u200bİ\u0131ß\u017f🏔"
NAMES = st.text(st.one_of(st.sampled_from(STRANGE), st.characters()), min_size=1, max_size=90)
PREFIXES = st.sampled_from(["", "site", "a/b c/é", "x" * MAX_PREFIX_BYTES])


@settings(max_examples=150)
@given(PREFIXES, st.booleans(), st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=12, unique=True))
def test_keys_are_safe_and_no_two_files_share_one(prefix: str, by_album: bool, files: list[tuple[str, str]]) -> None:
    rule = KeyRule(prefix, by_album)
    keys = ClaimedKeys(rule)
    claims = [keys.of(*file) for file in files]
    assert len({collision_key(claim.key) for claim in claims}) == len(files)
    for claim in claims:
        key = claim.key
        assert rule.holds(key)
        assert len(key.encode()) <= MAX_KEY_BYTES
        assert key == unicodedata.normalize("NFC", key)
        assert not key.startswith("/")
        assert not {"", ".", ".."} & set(key.split("/"))
        assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in key)
        assert unquote(url_path(key)) == key
        assert not set(url_path(key)) & set(' #?"<>*\\')
    folders = {folder for folder, _ in files}
    indexes = {collision_key(keys.of_index(folder).key) for folder in folders} | {collision_key(rule.index)}
    assert len(indexes) == len(folders) + 1
    assert indexes.isdisjoint(collision_key(claim.key) for claim in claims)
    # On a disk no name is a folder and a file.
    everything = [*(claim.key for claim in claims), *(keys.of_index(folder).key for folder in folders), rule.index]
    above = {collision_key(key.rpartition("/")[0]) for key in everything}
    assert above.isdisjoint(map(collision_key, everything))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["A", "B", "a"]), NAMES), min_size=2, max_size=10, unique=True))
def test_a_key_that_was_given_is_kept_whatever_comes_first_the_next_time(files: list[tuple[str, str]]) -> None:
    rule = KeyRule("p", by_album=False)
    first = ClaimedKeys(rule)
    given_keys = [first.of(*file) for file in files]
    again = ClaimedKeys(rule, given_keys)
    assert [again.of(*file) for file in reversed(files)] == given_keys[::-1]


def test_many_of_one_name_get_numbers_in_order() -> None:
    keys = ClaimedKeys(KeyRule("", by_album=False))
    found = [keys.of(f"Album {number}", "IMG.jpg").key for number in range(3000)]
    assert found[:3] == ["IMG.jpg", "IMG (2).jpg", "IMG (3).jpg"]
    assert len(set(found)) == 3000
    assert keys.of("Album 1", "IMG.jpg") == Claim("Album 1", "IMG.jpg", "IMG.jpg", "IMG (2).jpg")


@pytest.mark.parametrize("prefix", ["a//b", "../x", "a/./b", "x\0y", "a\nb", "a*b", "a\\b", "é" * 201])
def test_a_prefix_that_would_lead_somewhere_else_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        clean_prefix(prefix)


@pytest.mark.parametrize(("prefix", "clean"), [("/a/b/", "a/b"), ("", ""), ("/", ""), ("e\u0301", "é")])
def test_a_prefix_is_cleaned(prefix: str, clean: str) -> None:
    assert clean_prefix(prefix) == clean


def test_paths_of_the_cdn_are_those_that_a_page_asks_for() -> None:
    keys = ["site/Alps/a b#1.jpg", "site/Alps/é.jpg", "site/index.json", "other/x.jpg"]
    assert paths_of(keys, []) == [
        "/site/Alps/a%20b%231.jpg",
        "/site/Alps/%C3%A9.jpg",
        "/site/index.json",
        "/other/x.jpg",
    ]
    assert paths_of(keys, ["/site/Alps/*"]) == ["/site/Alps/*", "/site/index.json", "/other/x.jpg"]
    assert paths_of(["site/Alps/a.jpg"], ["/other/*"]) == ["/site/Alps/a.jpg"]
    assert paths_of(keys, [], "/site") == ["/Alps/a%20b%231.jpg", "/Alps/%C3%A9.jpg", "/index.json"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/site/My Alps/*", "/site/My%20Alps/*"),
        ("/site/My%20Alps/*", "/site/My%20Alps/*"),
        ("/site/My Al*", "/site/My%20Al*"),
        ("/site/Zu\u0308rich/*", "/site/Z%C3%BCrich/*"),
        ("/site/Z%c3%bcrich/*", "/site/Z%C3%BCrich/*"),
        ("/site/Z%FCrich/*", "/site/Z%FCrich/*"),
        ("/site/a(b)&c=%28d%29/*", "/site/a(b)&c=(d)/*"),
        ("/site/Why? #1/*", "/site/Why%3F%20%231/*"),
        ("/site/50% off/*", "/site/50%25%20off/*"),
        ("/*", "/*"),
        ("/site/My Alps/a b.jpg", "/site/My%20Alps/a%20b.jpg"),
    ],
)
def test_a_path_for_the_cdn_is_sent_as_pages_ask_for_what_it_means(written: str, sent: str) -> None:
    assert meant(written) == sent
    assert meant(sent) == sent


def test_a_path_as_people_write_it_covers_what_it_means() -> None:
    keys = ["site/My Alps/a b.jpg", "site/My Alps/index.json", "site/Zürich/x.jpg", "site/My Alpsen/x.jpg"]
    assert paths_of(keys, ["/site/My Alps/*", "/site/Zu\u0308rich/*"]) == [
        "/site/My%20Alps/*",
        "/site/Z%C3%BCrich/*",
        "/site/My%20Alpsen/x.jpg",
    ]
    assert paths_of(keys[:2], ["/My%20Alps/*"], "/site") == ["/My%20Alps/*"]


@settings(max_examples=100)
@given(NAMES, NAMES)
def test_the_folder_of_an_album_as_a_path_covers_its_pictures(folder: str, name: str) -> None:
    rule = KeyRule("site", True)
    key = ClaimedKeys(rule).of(folder, name).key
    above = key.rsplit("/", 1)[0]
    assume("*" not in above and not re.search("%[0-9a-fA-F]{2}", above))
    encoded = f"/{url_path(above)}/*"
    assert paths_of([key], [f"/{above}/*"]) == paths_of([key], [encoded]) == [encoded]


@pytest.mark.parametrize(
    ("root", "origin_path", "beginning"),
    [
        ("", "", "/"),
        ("site/", "", "/site/"),
        ("my site/", "", "/my%20site/"),
        ("site/", "/site", "/"),
        ("a/b/", "/a", "/b/"),
        ("a/", "/a/b", "/"),
        ("", "/a", "/"),
        ("a/", "/b", None),
        ("ab/", "/a", None),
    ],
)
def test_addresses_begin_with_what_the_prefix_leaves_behind_the_origin_path(
    root: str, origin_path: str, beginning: str | None
) -> None:
    assert addresses_begin(root, origin_path) == beginning


@pytest.mark.parametrize(
    ("pattern", "may"),
    [
        ("/*", True),
        ("/my*", True),
        ("/my site/*", True),
        ("/my%20site/Alps/*", True),
        ("/my site/index.json", True),
        ("/other/*", False),
        ("/my site", False),
        ("/my site/Alps/", False),
        ("/my sites/*", False),
    ],
)
def test_a_path_that_can_match_nothing_below_the_prefix_is_known(pattern: str, may: bool) -> None:
    assert may_match(pattern, "/my%20site/") is may


@settings(max_examples=60)
@given(NAMES, NAMES, st.booleans())
def test_addresses_in_an_index_lead_to_the_objects(folder: str, name: str, by_album: bool) -> None:
    rule = KeyRule("site", by_album)
    keys = ClaimedKeys(rule)
    key, index = keys.of(folder, name).key, keys.of_index(folder).key
    said = json.loads(album_index("x", index, [IndexedPicture(key, 1, "0" * 64, 1, 1, {})], with_positions=False))
    address = urljoin(f"https://example.org/{url_path(index)}", said["pictures"][0]["href"])
    assert unquote(address.removeprefix("https://example.org/")) == key


def test_no_position_and_nothing_near_one_is_in_an_index_that_publishes_none() -> None:
    facts = {
        "title": "Home",
        "gps": {"lat": 46.02, "lon": 7.75},
        "location": {"formatted": "7 Some Street, Zermatt", "road": "Some Street", "city": "Zermatt", "country": "CH"},
        "keywords": ["private"],
        "persons": ["Ann"],
    }
    picture = IndexedPicture("p/a.jpg", 5, "0" * 64, None, None, facts)
    shown = json.loads(album_index("x", "p/index.json", [picture], with_positions=False))["pictures"][0]
    assert shown["place"] == {"city": "Zermatt", "country": "CH"}
    assert "Some Street" not in json.dumps(shown)
    assert "46.0" not in json.dumps(shown)
    assert "Ann" not in json.dumps(shown)
    whole = json.loads(album_index("x", "p/index.json", [picture], with_positions=True))["pictures"][0]
    assert (whole["position"], whole["place"]["road"]) == ({"lat": 46.02, "lon": 7.75}, "Some Street")
