"""Names of folders and files: safe on every disk, the same every time, never two alike in one folder. Pure, no I/O.

A disk may ignore case (APFS and NTFS as they come), Unicode normalisation (APFS, HFS+) and invisible characters
(HFS+, ext4 with casefold). Two names that any of them takes for one collide here, wherever the files will lie.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from skicyclerun.models import Component, Photo

MAX_NAME_BYTES: Final = 255
"""The longest name of one path component, in bytes of UTF-8 (NAME_MAX of ext4, APFS and most others)."""

ORIGINALS_FOLDER: Final = "originals"
"""Below an album's folder: the unmodified originals of what was converted, scaled or edited."""

RAW_SUFFIXES: Final = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl"
    " .sr2 .srf .srw .x3f".split()
)
"""Extensions of RAW files, with their dot, lower case."""

_UNTITLED: Final = "untitled"
_UNNAMED_PHOTO: Final = "photo"
_HASH_DIGITS: Final = 8
_MAX_EXTENSION_BYTES: Final = 16

# Besides the nine characters and the control characters (C0, DEL, C1): line and paragraph separators break lists of
# names, bidirectional overrides and isolates make a name look like another one (`gpj.exe`), surrogates have no UTF-8
# form and APFS refuses noncharacters. Joiners and variation selectors stay: emoji and Persian need them.
_FORBIDDEN: Final = re.compile(
    '[/:\\\\*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef'
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
# Every space of Unicode category Zs; the narrow ones end up at the end of a title by copy and paste.
_EDGE: Final = ". \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"

# Names that Windows and SMB servers keep for devices, with any extension (Microsoft, "Naming Files, Paths, and
# Namespaces"); the superscript digits count as digits there.
_DEVICES: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"}
    | {f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"}
)

# What a file system that ignores invisible characters ignores: Unicode's Default_Ignorable_Code_Point.
_IGNORABLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# An extension is short, has a letter and follows something: "v1.5" is a name, "IMG_0001.HEIC" a name and an extension.
_EXTENSION: Final = re.compile(r"(?<=.)\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,8}\Z", re.DOTALL)


def collision_key(name: str) -> str:
    """What two names have in common when some disk cannot tell them apart (case, normalisation, invisible characters).

    Canonical caseless matching (Unicode, D145) without the default-ignorable code points.
    """
    if name.isascii():
        return name.lower()
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
    return unicodedata.normalize("NFD", _IGNORABLE.sub("", folded))


def folder_name(title: str) -> str:
    """The folder of an album with this title.

    NFC; `/ : \\ * ? " < > |`, control characters, bidirectional overrides, surrogates and noncharacters become `_`;
    no dots or spaces at either end; device names (`CON`, `nul.txt`) get a `_` before them; at most 255 bytes of
    UTF-8, a longer one cut at a character and followed by `~` and a hash of the whole; `untitled` where nothing
    visible is left. Applying it twice gives the same as once.
    """
    return _safe_name(title, otherwise=_UNTITLED)


def assign_folders(albums: Iterable[tuple[str, str]], taken: Mapping[str, str]) -> dict[str, str]:
    """Folder by album id, for every `(album id, title)` given.

    An album in `taken` (album id → folder) keeps its folder; the others get `folder_name(title)`, with ` (2)`,
    ` (3)` … where another album, of `taken` or earlier in the sequence, has it.
    """
    names = TakenNames(taken.values())
    folders: dict[str, str] = {}
    for album_id, title in albums:
        if album_id not in folders:
            folders[album_id] = taken[album_id] if album_id in taken else names.claim(folder_name(title), ("",))
    return folders


def plan_file_names(
    photos: Sequence[Photo],
    *,
    extension_of: Callable[[Photo], str],
    reserved: Collection[str] = (),
    kept: Mapping[tuple[str, str], str] | None = None,
) -> dict[tuple[str, str], str]:
    """File name by (photo id, component) for the photos of one album, in album order.

    `extension_of` gives the extension with its dot (`.jpg`); it is lower-cased and made safe. A name taken earlier in
    the album gets ` (2)`, ` (3)` … before its extension. A live movie bears the stem of its still. `kept` are names
    decided before: they never change, and are taken also where their photo is no longer in the album; `reserved` are
    further names that are taken. The same arguments give the same names; the work is linear in the photos.
    """
    decided = kept or {}
    names = TakenNames((*reserved, *decided.values()))
    stills = {photo.id: photo for photo in photos if photo.component is Component.STILL}
    movies = {photo.id: photo for photo in photos if photo.component is Component.LIVE_MOVIE}
    plan: dict[tuple[str, str], str] = {}
    for photo in photos:
        key = _key(photo)
        if key in plan:
            continue
        if key in decided:
            plan[key] = decided[key]
            continue
        together = [photo]
        partner = _partner(photo, stills, movies)
        stem = _stem(photo.original_filename)
        if partner is not None and (kept_name := decided.get(_key(partner))) is not None:
            stem = kept_name.rpartition(".")[0] or kept_name
        elif partner is not None:
            together.append(partner)
            stem = _stem(stills[photo.id].original_filename)
        extensions = tuple(safe_extension(extension_of(each)) for each in together)
        claimed = names.claim(stem, extensions)
        for each, extension in zip(together, extensions, strict=True):
            plan[_key(each)] = claimed + extension
    return plan


def plan_companion_names(
    companions: Sequence[Photo],
    names: Mapping[tuple[str, str], str],
    *,
    extension_of: Callable[[Photo], str],
    reserved: Collection[str] = (),
    kept: Mapping[tuple[str, str], str] | None = None,
) -> dict[tuple[str, str], str]:
    """File name by (photo id, component) of what lies beside the photos of one album, whose names are in `names`.

    A sidecar is called as its file with an extension more (`IMG_1.jpg.xmp`), which is unmistakable; that of a RAW file
    in the place of its own (`IMG_1.xmp`), which is what Lightroom reads. An original lies in `originals/` with the stem
    of its file and an extension of its own. A name that is taken gets ` (2)`, ` (3)` … before its extension.
    `kept` are names decided before: one stays where it still goes with its file. `reserved`: further names taken.
    """
    decided = kept or {}
    plan: dict[tuple[str, str], str] = {}
    to_name: list[tuple[Photo, str, str]] = []
    for photo in companions:
        main = names[photo.id, (Component.VIDEO if (photo.id, Component.VIDEO) in names else Component.STILL).value]
        stem, extension = _beside(photo, main, safe_extension(extension_of(photo)))
        key = _key(photo)
        if key in decided and _bears(decided[key], stem, extension):
            plan[key] = decided[key]
        else:
            to_name.append((photo, stem, extension))
    taken = TakenNames((*reserved, *names.values(), *plan.values()))
    for photo, stem, extension in to_name:
        above, _, own = stem.rpartition("/")
        claimed = taken.claim(own, (extension,), above=f"{above}/" if above else "")
        plan[_key(photo)] = claimed + extension
    return plan


def _beside(photo: Photo, main: str, extension: str) -> tuple[str, str]:
    """Stem, with its folder, and extension of what lies beside the file `main`."""
    bare, _, suffix = main.rpartition(".")
    if photo.component is Component.ORIGINAL:
        return f"{ORIGINALS_FOLDER}/{bare or main}", extension
    return (bare if bare and f".{suffix}" in RAW_SUFFIXES else main), extension


def _bears(name: str, stem: str, extension: str) -> bool:
    """Whether a name was made of this stem, numbered or not."""
    if not name.endswith(extension):
        return False
    above, _, own = stem.rpartition("/")
    folder, _, given = name[: len(name) - len(extension)].rpartition("/")
    numbered = re.search(r" \([1-9][0-9]*\)\Z", given)
    room = MAX_NAME_BYTES - len(extension.encode())
    whole = _shortened(own, room)
    cut_for_number = _shortened(own, room - len(numbered[0])) + numbered[0] if numbered else whole
    return folder == above and given in (whole, cut_for_number)


def _key(photo: Photo) -> tuple[str, str]:
    return (photo.id, photo.component.value)


def _partner(photo: Photo, stills: Mapping[str, Photo], movies: Mapping[str, Photo]) -> Photo | None:
    """The other half of a Live Photo, where the album lists both."""
    if photo.component is Component.STILL:
        return movies.get(photo.id)
    return stills.get(photo.id) if photo.component is Component.LIVE_MOVIE else None


class TakenNames:
    """The names taken in one folder. A counter per stem keeps 100,000 equal stems linear."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {collision_key(name) for name in taken}
        self._next: dict[tuple[str, tuple[str, ...]], int] = {}

    def claim(self, stem: str, extensions: tuple[str, ...], *, above: str = "") -> str:
        """Take `stem` with each of `extensions`, numbered if need be; returns the (numbered) stem without extension.

        `above`: a folder with its slash, which the names, and what is returned, begin with.
        """
        room = MAX_NAME_BYTES - max(len(extension.encode()) for extension in extensions)
        counter = (collision_key(above + stem), extensions)
        number = self._next.get(counter, 1)
        while True:
            suffix = f" ({number})" if number > 1 else ""
            candidate = above + _shortened(stem, room - len(suffix)) + suffix
            keys = [collision_key(candidate + extension) for extension in extensions]
            number += 1
            if self._taken.isdisjoint(keys):
                self._taken.update(keys)
                self._next[counter] = number
                return candidate


def _stem(original_filename: str) -> str:
    """The stem of a name the library gave, made safe."""
    return _safe_name(_EXTENSION.sub("", original_filename), otherwise=_UNNAMED_PHOTO)


@lru_cache(maxsize=256)
def safe_extension(extension: str) -> str:
    """An extension as it comes out in a file's name: with its dot, lower case, safe; empty where nothing is left."""
    bare = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", extension)).lower().strip(_EDGE)
    return f".{_cut(bare, _MAX_EXTENSION_BYTES)}" if bare else ""


def _safe_name(text: str, *, otherwise: str) -> str:
    whole = text if text.isascii() else unicodedata.normalize("NFC", text)
    name = _FORBIDDEN.sub("_", whole).strip(_EDGE)
    if not _IGNORABLE.sub("", name):
        return otherwise
    if name.partition(".")[0].rstrip(_EDGE).upper() in _DEVICES:
        name = f"_{name}"
    return _shortened(name, MAX_NAME_BYTES, whole=whole)


def _shortened(name: str, limit: int, *, whole: str = "") -> str:
    """`name`, or as much of it as fits `limit` bytes with `~` and a hash of `whole` (else of itself)."""
    if len(name) * 4 <= limit or len(name.encode()) <= limit:
        return name
    import hashlib  # a name that long is rare

    digest = hashlib.sha256((whole or name).encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return _cut(name, limit - 1 - _HASH_DIGITS).rstrip(_EDGE) + "~" + digest


def _cut(name: str, limit: int) -> str:
    """The longest beginning of `name` within `limit` bytes that ends between what people see as characters.

    A run of marks that is itself longer than a few dozen code points is cut inside.
    """
    data = name.encode()
    if len(data) <= limit:
        return name
    end = len(data[:limit].decode("utf-8", "ignore"))
    for boundary in range(end, max(0, end - 40), -1):
        if not _joined(name, boundary):
            return name[:boundary]
    return name[:end]


def _joined(name: str, boundary: int) -> bool:
    """Whether a cut before `name[boundary]` would part a mark, a joiner, a skin tone or half a flag from its base."""
    following, previous = name[boundary], name[boundary - 1]
    if following in "\u200c\u200d" or previous == "\u200d" or "\U0001f3fb" <= following <= "\U0001f3ff":
        return True
    if unicodedata.category(following) in ("Mn", "Mc", "Me"):
        return True
    if _is_regional(following):
        flags = 0
        while boundary - flags > 0 and _is_regional(name[boundary - 1 - flags]):
            flags += 1
        return flags % 2 == 1
    return False


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
