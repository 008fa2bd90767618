"""Texts from libraries and files, made fit for tags: any code point may come in, nothing may fail a photo."""

from __future__ import annotations

import re
from typing import Final

# What XML 1.0 cannot hold: control characters but tab and line ends, surrogates, and the two non-characters.
_UNFIT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_LINE_ENDS: Final = re.compile("\r\n?|\u2028|\u2029|\x85")


def clean(text: str) -> str:
    """As tags can hold it: line ends are `\\n`, what no XML can carry is gone, no white space at either end."""
    if not text.isprintable():  # which none of these is
        text = _UNFIT.sub("", _LINE_ENDS.sub("\n", text))
    return text.strip()


def clean_line(text: str) -> str:
    """As `clean`, on one line."""
    text = clean(text)
    return " ".join(text.split("\n")) if "\n" in text else text


def clean_list(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Every text cleaned and on one line, without empty ones and repetitions, in order."""
    return tuple(dict.fromkeys(line for text in texts if (line := clean_line(text))))


def cut(text: str, most: int) -> str:
    """At most so many bytes of UTF-8, cut between characters."""
    if 4 * len(text) <= most:
        return text
    encoded = text.encode("utf-8")
    return text if len(encoded) <= most else encoded[:most].decode("utf-8", "ignore").rstrip()


def from_tag(text: str) -> str:
    """A text as exiv2 hands it over (bytes that are no UTF-8 arrive as lone surrogates) as a person would read it.

    Such bytes are taken for Windows-1252, which is what old cameras and programs wrote.
    """
    if text.isascii():
        if text.isprintable():
            return text.strip()
    else:
        raw = text.encode("utf-8", "surrogateescape")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", "replace")
    return clean(text.partition("\x00")[0])
