"""IPTC for a picture that has none: held as plain values, and written as exiv2 would write it.

A data set is five bytes and its text (IPTC-IIM 4.2, 1.5), and the block of them one resource of Photoshop's (Photoshop
file formats, Image Resource Blocks; 1028). Whatever goes beyond what this program writes is left to exiv2.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, time
from typing import Any, Final

from skicyclerun.images.jpeg_segments import IPTC
from skicyclerun.images.tag_index import UTF8_DECLARED, TagIndex

CHARACTER_SET: Final = "Iptc.Envelope.CharacterSet"

_TEXTS: Final = {
    "Iptc.Application2.ObjectName": b"\x1c\x02\x05",
    "Iptc.Application2.Keywords": b"\x1c\x02\x19",
    "Iptc.Application2.Caption": b"\x1c\x02\x78",
}
"""By key, with what their data sets begin with: the marker, record 2, the number."""
_DATES: Final = {"Iptc.Application2.DateCreated": b"\x1c\x02\x37"}
_TIMES: Final = {"Iptc.Application2.TimeCreated": b"\x1c\x02\x3c"}
_UTF8_DATA_SET: Final = b"\x1c\x01\x5a\x00\x03\x1b%G"
_RESOURCE: Final = b"8BIM\x04\x04\x00\x00"
_MOST_BYTES: Final = 60_000
"""From here on exiv2 judges."""


class NewIptc(TagIndex):
    """The IPTC of a header that has none, as plain values for as long as nobody asks for anything else."""

    __slots__ = ("_exiv2", "_handed_over", "_said")

    def __init__(self, exiv2: Any, data: Any) -> None:
        """`data`: exiv2's, empty."""
        self._exiv2 = exiv2
        self._said: dict[str, Any] | None = {}
        """Texts, a date, or a time and its minutes east, by key, in the order they were set.

        None once exiv2 has them."""
        super().__init__(data)

    @property
    def _data(self) -> Any:
        """exiv2's, which has all of it from now on."""
        if self._said is not None:
            said, self._said, changed = self._said, None, self.changed
            for key, value in said.items():
                if isinstance(value, date):
                    super().put_date(self._exiv2, key, value)
                elif key in _TIMES:
                    super().put_time(self._exiv2, key, *value)
                else:
                    if CHARACTER_SET not in self:
                        super().put(CHARACTER_SET, self._exiv2.StringValue(UTF8_DECLARED))
                    super().put_all(self._exiv2, key, value)
            self.changed = changed
        return self._handed_over

    @_data.setter
    def _data(self, data: Any) -> None:
        self._handed_over = data

    # ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def __contains__(self, key: str) -> bool:
        if self._said is None or key == CHARACTER_SET:
            return super().__contains__(key)
        return key in self._said

    @property
    def empty(self) -> bool:
        return super().empty if self._said is None else not self._said

    def text(self, key: str) -> str:
        if self._said is None or key == CHARACTER_SET or key in self._said:
            return super().text(key)
        return ""

    def texts(self, key: str) -> tuple[str, ...]:
        if self._said is None or key not in _TEXTS:
            return super().texts(key)
        found: tuple[str, ...] = self._said.get(key, ())
        return found

    @property
    def declares_utf8(self) -> bool:
        return super().declares_utf8 if self._said is None else True

    # ── changes ───────────────────────────────────────────────────────────────────────────────────────────────────
    def put_all(self, exiv2: Any, key: str, texts: tuple[str, ...]) -> None:
        if self._said is None or key not in _TEXTS or not texts:
            super().put_all(exiv2, key, texts)
        else:
            self._say(self._said, key, texts)

    def put_date(self, exiv2: Any, key: str, date: date) -> None:
        if self._said is None or key not in _DATES:
            super().put_date(exiv2, key, date)
        else:
            self._say(self._said, key, date)

    def put_time(self, exiv2: Any, key: str, time: time, minutes: int) -> None:
        if self._said is None or key not in _TIMES:
            super().put_time(exiv2, key, time, minutes)
        else:
            self._say(self._said, key, (time, minutes))

    def erase_where(self, unwanted: Callable[[str], bool]) -> bool:
        return bool(self._said != {}) and super().erase_where(unwanted)

    def _say(self, said: dict[str, Any], key: str, value: Any) -> None:
        said.pop(key, None)  # a text that is set again goes to the end, as with exiv2
        said[key] = value
        self.changed = True

    # ── written ───────────────────────────────────────────────────────────────────────────────────────────────────

    def segments(self) -> tuple[bytes, ...] | None:
        if not self._said:
            return None
        sets: list[bytes] = []
        for key, value in self._said.items():
            if key in _DATES:
                sets.append(_data_set(_DATES[key], f"{value.year:04}{value.month:02}{value.day:02}".encode()))
            elif key in _TIMES:
                sets.append(_data_set(_TIMES[key], _time(*value)))
            else:
                start = _TEXTS[key]
                sets += [_data_set(start, text.encode()) for text in value]
        if not self._said.keys().isdisjoint(_TEXTS):
            sets.insert(0, _UTF8_DATA_SET)
        block = b"".join(sets)
        if len(block) > _MOST_BYTES:
            return None
        size = len(IPTC) + len(_RESOURCE) + 4 + len(block) + len(block) % 2 + 2
        padding = b"\x00" * (len(block) % 2)
        parts = (b"\xff\xed", size.to_bytes(2, "big"), IPTC, _RESOURCE, len(block).to_bytes(4, "big"), block, padding)
        return (b"".join(parts),)


def _data_set(start: bytes, data: bytes) -> bytes:
    return start + len(data).to_bytes(2, "big") + data


def _time(time: time, minutes: int) -> bytes:
    east = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
    return f"{time.hour:02}{time.minute:02}{time.second:02}{east}".encode()
