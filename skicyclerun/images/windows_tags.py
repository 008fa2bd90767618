"""Microsoft's own EXIF tags (XPTitle, XPComment, XPKeywords, XPSubject): texts in UTF-16, little-endian, ended by NUL.

What Windows makes of them is in its photo metadata policies
(https://learn.microsoft.com/windows/win32/wic/photo-metadata-policies): a title is read from XPTitle before XMP, a
subject from XPSubject or else ImageDescription, taken for ASCII; keywords are merged from XMP, IPTC and XPKeywords,
where semicolons part them. So one that is out of date contradicts what the library says, wherever else that stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from skicyclerun.images.texts import clean

if TYPE_CHECKING:
    from skicyclerun.images.metadata import PhotoTags
    from skicyclerun.images.tag_index import TagIndex

_TITLE: Final = "Exif.Image.XPTitle"
_COMMENT: Final = "Exif.Image.XPComment"
_KEYWORDS: Final = "Exif.Image.XPKeywords"
_SUBJECT: Final = "Exif.Image.XPSubject"
_SEPARATOR: Final = ";"
#: Bytes of each, terminator included: they share EXIF's 64 kB with all else.
_MOST_BYTES: Final = 8_000


def write_windows_title(exiv2: Any, tags: PhotoTags, title: str) -> None:
    """XPTitle where the original has one; without it Windows reads the title from XMP."""
    if _TITLE in tags.exif:
        _put(exiv2, tags, _TITLE, _cut(title))


def write_windows_description(exiv2: Any, tags: PhotoTags, description: str, before: str) -> None:
    """XPSubject where the original has one, or where ImageDescription says nothing to a reader of ASCII.

    XPComment where it is a copy of `before`, the description that the file had; any other comment stays.
    """
    if _SUBJECT in tags.exif or not description.isascii():
        _put(exiv2, tags, _SUBJECT, _cut(description))
    if before and windows_text_of(tags.exif, _COMMENT) == before:
        _put(exiv2, tags, _COMMENT, _cut(description))


def write_windows_keywords(exiv2: Any, tags: PhotoTags, keywords: Sequence[str]) -> None:
    """XPKeywords, as many whole ones as have room. One with a semicolon would be read as two: XMP and IPTC have it."""
    fitting: list[str] = []
    for keyword in keywords:
        if _SEPARATOR in keyword:
            continue
        if len(_encoded(_SEPARATOR.join([*fitting, keyword]))) > _MOST_BYTES:
            break
        fitting.append(keyword)
    if fitting:
        _put(exiv2, tags, _KEYWORDS, _SEPARATOR.join(fitting))
    else:
        tags.exif.remove(_KEYWORDS)


def windows_keywords_of(exif: TagIndex) -> tuple[str, ...]:
    """The keywords in XPKeywords, in order and without repetitions."""
    found = (keyword.strip() for keyword in windows_text_of(exif, _KEYWORDS).split(_SEPARATOR))
    return tuple(dict.fromkeys(keyword for keyword in found if keyword))


def windows_title_of(exif: TagIndex) -> str:
    """XPTitle; empty where there is none."""
    return windows_text_of(exif, _TITLE)


def windows_text_of(exif: TagIndex, key: str) -> str:
    """The text of one of these tags, clean; empty where there is none, or it is no text."""
    return clean(_bytes_of(exif, key).decode("utf-16-le", "ignore").partition("\x00")[0])


def _bytes_of(exif: TagIndex, key: str) -> bytes:
    tag = exif.tag(key)
    if tag is None:
        return b""
    # exiv2 gives bytes as numbers with blanks between them, whatever type a writer has said they are.
    numbers = tag.toString().split()
    try:
        return bytes(int(number) for number in numbers)
    except ValueError:
        return b""


def _put(exiv2: Any, tags: PhotoTags, key: str, text: str) -> None:
    data = _encoded(text)
    if _bytes_of(tags.exif, key) != data:
        tags.put(key, exiv2.DataValue(data, exiv2.ByteOrder.invalidByteOrder, exiv2.TypeId.unsignedByte))


def _encoded(text: str) -> bytes:
    return f"{text}\x00".encode("utf-16-le", "ignore")


def _cut(text: str) -> str:
    """As much of it as has room, cut between characters."""
    data = _encoded(text)
    return text if len(data) <= _MOST_BYTES else data[: _MOST_BYTES - 2].decode("utf-16-le", "ignore").rstrip()
