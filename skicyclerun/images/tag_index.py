"""The tags of one kind (EXIF, IPTC or XMP) by key, read in one pass.

Going into exiv2 for each question costs more than what is done there: a step of an iterator or a tag fetched by its
name take 4 to 8 µs of Python, a membership test some more where it fails, and a whole pass over all tags only 0.3 µs a
tag (python-exiv2 0.19). So the pass is made once, questions are answered from a dictionary, and exiv2 is asked for a
value once.

What a pass hands out are bare pointers, which end the process when they are used after their tag has gone. EXIF lies
in a list, whose elements stay where they are until they are erased, XMP and IPTC in vectors, whose elements move when
one is added. None outlives such a change here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, time
from typing import Any, Final

from skicyclerun.images.texts import from_tag

# exiv2's names for types (a TypeId costs more: it is made an enumeration's member).
_RATIONAL: Final = "Rational"
_SIGNED_RATIONAL: Final = "SRational"
# Its TypeIds xmpAlt, xmpBag and xmpSeq; langAlt.
_ARRAYS: Final = (0x10006, 0x10007, 0x10008)
_LANG_ALT: Final = 0x10009

UTF8_DECLARED: Final = "\x1b%G"


class TagIndex:
    """One kind of tags, in exiv2's hands; to be touched within an `exiv2_session`, and changed through this only.

    Where a key is repeated its first tag counts, as with exiv2.
    """

    __slots__ = ("_data", "_found", "_fractions", "_moved", "_repeated", "_stays", "_texts", "changed")

    def __init__(self, data: Any, *, stays: bool = False) -> None:
        """`stays`: elements do not move when another is added (EXIF)."""
        self._data = data
        self._stays = stays
        self._found: dict[str, Any] | None = None
        """Key → tag; None for a tag that was written here since the pass."""
        self._moved = False
        """Whether the tags may be elsewhere since the pass."""
        self._repeated = False
        """Whether a key had several tags when they were read."""
        self._texts: dict[str, str] = {}
        self._fractions: dict[str, list[tuple[int, int]]] = {}
        self.changed = False
        """Whether it differs from what was read."""

    @property
    def data(self) -> Any:
        """exiv2's own, to be handed back to it."""
        return self._data

    # ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def __contains__(self, key: str) -> bool:
        found = self._found
        return key in (found if found is not None else self._read())

    def keys(self) -> Iterable[str]:
        """Each once, in the order of the tags."""
        return self._known()

    @property
    def empty(self) -> bool:
        return bool(self._data.empty())

    def tag(self, key: str) -> Any:
        """exiv2's tag, None if there is none. Good until the next change."""
        found = self._found
        if found is None:
            found = self._read()
        if key not in found:
            return None
        if self._moved:
            return self._read()[key]
        tag = found[key]
        if tag is None:
            tag = found[key] = self._data[key]
        return tag

    def text(self, key: str) -> str:
        """The tag's text, clean; empty if there is none."""
        text = self._texts.get(key)
        if text is None:
            tag = self.tag(key)
            text = self._texts[key] = "" if tag is None else from_tag(tag.toString())
        return text

    def texts(self, key: str) -> tuple[str, ...]:
        """The clean texts of every tag of this key, without empty ones and repetitions."""
        if key not in self:
            return ()
        return tuple(
            dict.fromkeys(text for tag in self._data if tag.key() == key and (text := from_tag(tag.toString())))
        )

    @property
    def declares_utf8(self) -> bool:
        """Whether IPTC says that its texts are UTF-8 (ISO 2022's word for it, IPTC-IIM 4.2, 1:90)."""
        declared = self.tag("Iptc.Envelope.CharacterSet")
        return declared is not None and declared.toString() == UTF8_DECLARED

    def rationals(self, key: str) -> list[tuple[int, int]]:
        """The fractions of a tag; empty if there is none, or it holds something else."""
        fractions = self._fractions.get(key)
        if fractions is None:
            tag = self.tag(key)
            fractions = self._fractions[key] = [] if tag is None else _rationals_of(tag)
        return fractions

    def items_of(self, key: str) -> tuple[str, ...]:
        """An XMP bag or sequence as texts; of what a writer has made a simple text, that."""
        tag = self.tag(key)
        if tag is None:
            return ()
        if tag.typeId() == _LANG_ALT:
            return (text,) if (text := self.text_by_language(key)) else ()
        items = [tag.toString(number) for number in range(tag.count())] if tag.typeId() in _ARRAYS else [tag.toString()]
        return tuple(dict.fromkeys(text for item in items if (text := from_tag(item))))

    def text_by_language(self, key: str) -> str:
        """An XMP text in its default language, or in the first there is."""
        tag = self.tag(key)
        if tag is None:
            return ""
        if tag.typeId() == _LANG_ALT and (text := tag.toString(0)):  # in x-default, which nearly always is there
            return from_tag(text)
        try:
            languages = {str(language): str(text) for language, text in dict(tag.value()).items()}
        except (TypeError, ValueError):
            return from_tag(tag.toString())
        return from_tag(languages.get("x-default") or next(iter(languages.values()), ""))

    def _known(self) -> dict[str, Any]:
        return self._found if self._found is not None else self._read()

    def _read(self) -> dict[str, Any]:
        tags = list(self._data)
        found: dict[str, Any] = dict(zip([tag.key() for tag in tags], tags, strict=True))
        self._repeated = len(found) < len(tags)
        if self._repeated:
            found = {}
            for tag in tags:
                found.setdefault(tag.key(), tag)
        self._found = found
        self._moved = False
        return found

    # ── changes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, key: str, value: Any) -> None:
        """Set a tag, or add it. `key` must be one that exiv2 knows."""
        self._data[key] = value
        self._written(key)

    def put_text(self, key: str, value: Any, text: str) -> None:
        """Set a tag to a value that will read as `text`, which is clean."""
        self.put(key, value)
        self._texts[key] = text

    def put_rationals(self, key: str, value: Any, fractions: list[tuple[int, int]]) -> None:
        """Set a tag to a value that holds these fractions."""
        self.put(key, value)
        self._fractions[key] = fractions

    def put_text_by_language(self, exiv2: Any, key: str, text: str) -> None:
        """Set an XMP text in its default language, the only one from then on."""
        self.put(key, exiv2.LangAltValue({"x-default": text}))

    def put_list(self, exiv2: Any, key: str, texts: tuple[str, ...]) -> None:
        """Set an XMP bag to these texts."""
        self.put(key, exiv2.XmpArrayValue(list(texts), exiv2.TypeId.xmpBag))

    def put_all(self, exiv2: Any, key: str, texts: tuple[str, ...]) -> None:
        """Set IPTC tags of this key to these texts, one for each; no other one of the key remains."""
        self.remove(key)
        for text in texts:
            self.add(key, exiv2.Iptcdatum(exiv2.IptcKey(key), exiv2.StringValue(text)))

    def put_date(self, exiv2: Any, key: str, date: date) -> None:
        """Set an IPTC date."""
        self.put(key, exiv2.DateValue(date.year, date.month, date.day))

    def put_time(self, exiv2: Any, key: str, time: time, minutes: int) -> None:
        """Set an IPTC time, so many minutes east of Greenwich."""
        east, rest = (part if minutes >= 0 else -part for part in divmod(abs(minutes), 60))
        self.put(key, exiv2.TimeValue(time.hour, time.minute, time.second, east, rest))

    def add(self, key: str, tag: Any) -> None:
        """Add one more tag of this key."""
        self._data.add(tag)
        self._written(key)

    def rewrite_all(self, rewrite: Callable[[Any], object]) -> None:
        """Hand every tag to `rewrite`, which may set its value."""
        for tag in self._data:
            rewrite(tag)
        self._texts.clear()

    def remove(self, key: str) -> bool:
        """Every tag of this key; whether there was any."""
        return key in self and self._erase_keys({key})

    def erase_where(self, unwanted: Callable[[str], bool]) -> bool:
        """Remove every tag whose key `unwanted` says so of; whether there was any."""
        return self.erase({key for key in self.keys() if unwanted(key)})

    def erase(self, gone: set[str]) -> bool:
        """Remove every tag of these keys, which are there; whether there was any."""
        return bool(gone) and self._erase_keys(gone)

    def erase_larger_than(self, size: int) -> bool:
        """Remove every tag of more bytes; whether there was any."""
        erased = self._erase([tag.size() > size for tag in self._data])
        self._found = None
        self._texts.clear()
        self._fractions.clear()
        return erased

    def _erase_keys(self, gone: set[str]) -> bool:
        found = self._known()
        if self._stays and not self._repeated:
            for key in gone:
                del self._data[key]
            self.changed = True
        else:
            self._erase([tag.key() in gone for tag in self._data])
        for key in gone:
            del found[key]
            self._texts.pop(key, None)
            self._fractions.pop(key, None)
        self._moved = not self._stays
        return True

    def _erase(self, unwanted: list[bool]) -> bool:
        if True not in unwanted:
            return False
        at = self._data.begin()
        for erased in unwanted:
            if erased:
                at = self._data.erase(at)
            else:
                next(at)
        self.changed = True
        return True

    def segments(self) -> tuple[bytes, ...] | None:
        """The segments of a JPEG's header that hold it, where no exiv2 is needed for them."""
        return None

    def _written(self, key: str) -> None:
        found = self._found
        if found is not None and (not self._stays or key not in found):
            found[key] = None
            self._moved = not self._stays
        self._texts.pop(key, None)
        self._fractions.pop(key, None)
        self.changed = True


def _rationals_of(tag: Any) -> list[tuple[int, int]]:
    kind = tag.typeName()
    if kind not in (_RATIONAL, _SIGNED_RATIONAL):
        return []
    fractions = [tag.toRational(number) for number in range(tag.count())]
    if kind == _RATIONAL:  # which exiv2 hands over as signed ones
        return [(numerator & 0xFFFFFFFF, denominator & 0xFFFFFFFF) for numerator, denominator in fractions]
    return fractions
