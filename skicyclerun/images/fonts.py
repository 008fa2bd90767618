"""Fonts: found by path or by family name, read once, and asked for the characters they can draw.

A font is held as its bytes: what is drawn with is what was hashed, whatever happens to the file meanwhile. Which
characters it has is found by looking (a missing one is drawn as the font's box for missing ones), so no table of a
font is parsed here.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from PIL import ImageFont, features

#: Of one font file; the largest of a system (Chinese, Japanese and Korean in one) have some 20 to 60 MB.
MAX_FONT_BYTES: Final = 200 << 20
#: Files of the system's font folders that are looked at.
MAX_FONT_FILES: Final = 20_000

#: Fonts with many characters that systems bring, by file name, in the order in which they are asked for what the
#: configured ones lack: macOS, Linux, Windows; then scripts of their own.
WIDE_FONTS: Final = (
    "Arial Unicode",
    "DejaVu Sans",
    "Noto Sans Regular",
    "Segoe UI",
    "Apple Symbols",
    "Segoe UI Symbol",
    "Noto Sans Symbols2 Regular",
    "Noto Sans Symbols Regular",
    "Noto Sans CJK Regular",
    "Hiragino Sans GB",
    "msyh",
    "YuGothR",
    "Droid Sans Fallback Full",
    "Noto Sans Arabic Regular",
    "Noto Sans Hebrew Regular",
    "Noto Sans Devanagari Regular",
    "Noto Sans Thai Regular",
    "Noto Emoji Regular",
)

_SUFFIXES: Final = frozenset((".ttf", ".otf", ".ttc"))
_PROBE_SIZE: Final = 32
_NOWHERE: Final = "\U0010ffff"  # a non-character, so in no font
_FACES_KEPT: Final = 64


def shapes() -> bool:
    """Whether Pillow has raqm, which joins Arabic letters, reorders Indic ones and sets right-to-left text."""
    return bool(features.check("raqm"))


class Font:
    """A font, read when it is first needed. Faces are made for each thread: FreeType's must not be shared."""

    def __init__(self, read: Callable[[], bytes], label: str) -> None:
        """`read` gives the bytes of the font; `label` names it where the font itself does not."""
        self._read = read
        self._label = label
        self._lock = threading.Lock()
        self._data: bytes | None = None
        self._failed: OSError | None = None
        self._name = self._sha256 = ""
        self._local = threading.local()
        self._covered: dict[str, bool] = {}

    def load(self) -> bytes:
        """Its bytes. Raises OSError where they cannot be read or are no font that scales."""
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if self._data is None:
                try:
                    data = self._read()
                    face = ImageFont.FreeTypeFont(io.BytesIO(data), _PROBE_SIZE, layout_engine=ImageFont.Layout.BASIC)
                except OSError as error:
                    self._failed = error
                    raise
                self._name = " ".join(part for part in face.getname() if part) or self._label
                self._sha256 = hashlib.sha256(data).hexdigest()
                self._data = data
            return self._data

    @property
    def usable(self) -> bool:
        """Whether it could be read."""
        try:
            self.load()
        except OSError:
            return False
        return True

    @property
    def name(self) -> str:
        """Family and style, as the font says."""
        self.load()
        return self._name

    @property
    def sha256(self) -> str:
        """Of its bytes, lower-case hexadecimal."""
        self.load()
        return self._sha256

    def face(self, size: float) -> ImageFont.FreeTypeFont:
        """To draw with, at so many pixels to the em."""
        faces: dict[float, ImageFont.FreeTypeFont] | None = getattr(self._local, "faces", None)
        if faces is None:
            faces = self._local.faces = {}
        face = faces.get(size)
        if face is None:
            if len(faces) >= _FACES_KEPT:
                faces.clear()
            layout = ImageFont.Layout.RAQM if shapes() else ImageFont.Layout.BASIC
            face = faces[size] = ImageFont.FreeTypeFont(io.BytesIO(self.load()), size, layout_engine=layout)
        return face

    def has(self, character: str) -> bool:
        """Whether it can draw the character. White space and what has no shape of its own it can; a font that cannot
        be read can draw nothing."""
        covered = self._covered.get(character)
        if covered is None:
            covered = self._covered[character] = self.usable and (is_shapeless(character) or self._look(character))
        return covered

    def _look(self, character: str) -> bool:
        probe: ImageFont.FreeTypeFont | None = getattr(self._local, "probe", None)
        if probe is None:
            # Without shaping: a mark alone must not be put on a dotted circle.
            probe = ImageFont.FreeTypeFont(io.BytesIO(self.load()), _PROBE_SIZE, layout_engine=ImageFont.Layout.BASIC)
            self._local.probe, self._local.missing = probe, _drawn(probe, _NOWHERE)
        drawn = _drawn(probe, character)
        return bool(drawn[1].strip(b"\0")) and drawn != self._local.missing


def _drawn(face: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask: Any = face.getmask(character, "L")
    return mask.size, bytes(mask)


def is_shapeless(character: str) -> bool:
    """White space, joiners and variation selectors: nothing to be drawn."""
    return character.isspace() or unicodedata.category(character) == "Cf" or _is_selector(character)


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def font_file(path: Path) -> Font:
    """The font of a file; nothing is read yet."""

    def read() -> bytes:
        with open(path, "rb") as stream:
            data = stream.read(MAX_FONT_BYTES + 1)
        if len(data) > MAX_FONT_BYTES:
            raise OSError(f"{path} is too large for a font")
        return data

    return Font(read, path.stem)


def built_in() -> Font:
    """The one Pillow brings: plain Latin letters, digits and the usual punctuation; no accents."""
    face: Any = ImageFont.load_default(_PROBE_SIZE)
    return Font(lambda: bytes(face.font_bytes), "Pillow")


def system_folders() -> list[Path]:
    """Where this system keeps its fonts, the person's own first."""
    home = Path.home()
    if sys.platform == "darwin":
        own = [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    elif sys.platform == "win32":
        local, windows = os.environ.get("LOCALAPPDATA"), os.environ.get("WINDIR", r"C:\Windows")
        own = [*([Path(local) / "Microsoft/Windows/Fonts"] if local else []), Path(windows) / "Fonts"]
    else:
        own = [home / ".local/share/fonts", home / ".fonts", Path("/usr/local/share/fonts"), Path("/usr/share/fonts")]
    return own


class FontFiles:
    """The files of some font folders by family name: `Courier New Bold` is `Courier New Bold.ttf`, and
    `CourierNew-Bold.otf` too. The folders are read when the first name is asked for."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = list(folders)
        self._by_name: dict[str, Path] | None = None

    def find(self, family: str) -> Path | None:
        """The file whose name says this family and style; None if there is none."""
        if self._by_name is None:
            self._by_name = {}
            for path in self._files():
                self._by_name.setdefault(_plain(path.stem), path)
        wanted = _plain(family)
        return self._by_name.get(wanted) or self._by_name.get(wanted + "regular")

    def _files(self) -> Iterator[Path]:
        seen = 0
        for folder in self._folders:
            for parent, folders, names in os.walk(folder):
                folders.sort()
                for name in sorted(names):
                    if os.path.splitext(name)[1].lower() in _SUFFIXES:
                        yield Path(parent, name)
                        seen += 1
                        if seen >= MAX_FONT_FILES:
                            return


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name)).casefold()
