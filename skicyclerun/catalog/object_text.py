"""The members of a JSON object as slices of its text, so that what is not touched is written back as it was.

A catalog of 100,000 photos is some 120 MB of text and several times that as Python objects. Here only its text and an
index of it are held, and an entry becomes objects when it is looked at. Numbers, escapes and key order of entries that
are nobody's business here survive to the letter, and so does what other programs' JSON writers allow (NaN, integers of
any length).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

_MEMBER_START: Final = re.compile(rb'\n  "')
_BLANKS: Final = " \t\n\r"
# Numbers are only measured: all that is wanted is where a value ends.
_skimmer: Final = json.JSONDecoder(parse_int=len, parse_float=len)


class ObjectText(Mapping[str, Any]):
    """A JSON object: a mapping of its keys to their values, each parsed when asked for."""

    def __init__(self, text: bytes = b"{}") -> None:
        """Raises ValueError, with the reason, where `text` is not a JSON object in UTF-8 or is nested too deep."""
        self._text = text
        self._spans: dict[str, tuple[int, int]] = {}
        if not self._index_lines():
            self._rewrite_and_index()

    def __getitem__(self, key: str) -> Any:
        """The value, None also for one that is nested too deep to be looked at. Raises KeyError."""
        try:
            return parse_member(self.member(key))[key]
        except RecursionError:
            return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __contains__(self, key: object) -> bool:
        return key in self._spans

    def member(self, key: str) -> bytes:
        """The text of a member, `"key": value`, without the blanks and commas around it. Raises KeyError."""
        start, end = self._spans[key]
        return self._text[start:end]

    def value_text(self, key: str) -> str:
        """The text of a member's value alone. Raises KeyError."""
        text = self.member(key).decode()
        _, end = _skimmer.raw_decode(text)
        return text[_after(text, _to_token(text, end), ":") :]

    def _index_lines(self) -> bool:
        """Index a text in the layout of `json.dump(…, indent=2)`, which is ours: False where it is another one.

        In JSON a string holds no line break, so a line that starts with two blanks and a quote starts a member, if the
        layout is the one we think. That every piece then is a valid member on its own, and that the pieces are the
        whole, proves that it is.
        """
        text = self._text
        close = text.rfind(b"}")
        if not text.startswith(b'{\n  "') or text[close - 1 : close] != b"\n" or text[close + 1 :].strip(b" \t\r\n"):
            return False
        starts = [match.end() - 1 for match in _MEMBER_START.finditer(text)]
        ends = [start - 4 for start in starts[1:]]
        if any(text[end : end + 1] != b"," for end in ends):
            return False
        ends.append(close - 1)
        spans: dict[str, tuple[int, int]] = {}
        for start, end in zip(starts, ends, strict=True):
            try:
                member = parse_member(text[start:end])
            except (ValueError, RecursionError):
                return False
            if len(member) != 1:
                return False
            spans[next(iter(member))] = (start, end)
        self._spans = spans
        return True

    def _rewrite_and_index(self) -> None:
        """Index a text in any layout; what is kept of it are the members, their values to the letter."""
        text = self._text.decode("utf-8-sig")
        joined = bytearray()
        try:
            for key, value in _skim(text):
                start = len(joined)
                joined += f"{json.dumps(key)}: {value}".encode()
                self._spans[key] = (start, len(joined))
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        self._text = bytes(joined)


def _skim(text: str) -> Iterator[tuple[str, str]]:
    """Keys and the texts of their values. Raises ValueError at what is not JSON, RecursionError at its depth."""
    position = _after(text, _to_token(text, 0), "{")
    if text[position : position + 1] == "}":
        separator = "}"
        position += 1
    else:
        separator = ","
    while separator == ",":
        key, position = _skimmer.raw_decode(text, position)
        if not isinstance(key, str):
            raise json.JSONDecodeError("Expecting a string as the key", text, position)
        start = _after(text, _to_token(text, position), ":")
        _, position = _skimmer.raw_decode(text, start)
        yield key, text[start:position]
        position = _to_token(text, position)
        separator = text[position : position + 1]
        if separator not in (",", "}"):
            raise json.JSONDecodeError("Expecting ',' or '}'", text, position)
        position = _after(text, position, separator)
    if _to_token(text, position) != len(text):
        raise json.JSONDecodeError("Extra data", text, position)


def _to_token(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANKS:
        position += 1
    return position


def _after(text: str, position: int, token: str) -> int:
    """The position behind `token`, which must stand at `position`, and behind the blanks that follow it."""
    if not text.startswith(token, position):
        raise json.JSONDecodeError(f"Expecting {token!r}", text, position)
    return _to_token(text, position + 1)


def parse_member(member: bytes) -> dict[str, Any]:
    """`{key: value}` of the text of one member. Raises ValueError, RecursionError where it is nested too deep."""
    text = b"{%b}" % member
    try:
        parsed: dict[str, Any] = orjson.loads(text)
    except ValueError:
        parsed = parse_exactly(text)
    return parsed


def parse_exactly(text: bytes) -> dict[str, Any]:
    """A JSON object by Python's own parser: slower, exact for integers of any length, and takes NaN."""
    parsed: dict[str, Any] = json.loads(text.decode(), parse_int=_integer)
    return parsed


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:  # longer than sys.set_int_max_str_digits allows
        return digits
