"""Which albums `--album` and `--exclude` mean. Pure: no I/O."""

from __future__ import annotations

import difflib
import fnmatch
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from skicyclerun.errors import NoAlbumMatches
from skicyclerun.models import Album, AlbumKind
from skicyclerun.sources.photo_groups import is_group

_NEAREST: Final = 3
_GLOB: Final = frozenset("*?[")


def select_albums(albums: Sequence[Album], wanted: Sequence[str]) -> list[Album]:
    """The albums that are wanted, in the order of `albums`, each once; all of the person's own, and all groups, when
    nothing is wanted.

    Each of `wanted` is tried as an id, a title or a path with folders (`Folder1/Alps`), the same without regard to
    case, and last as a glob over titles and paths (`2024*`, case ignored; `*` passes over `/`), and over the ids of
    groups (`group:*`). The first of these that matches counts, with every album it matches: two albums called
    "Test Album" are two. Shared albums and projects are looked at where none of the person's own matches. Raises
    NoAlbumMatches for the first that matches nothing.
    """
    if not wanted:
        return [album for album in albums if album.kind is AlbumKind.ALBUM]
    picked: set[int] = set()
    for each in wanted:
        found = _matches(albums, each)
        if not found:
            raise NoAlbumMatches(each, nearest_titles(albums, each))
        picked.update(found)
    return [album for at, album in enumerate(albums) if at in picked]


def _matches(albums: Sequence[Album], wanted: str) -> list[int]:
    exact, folded = _nfc(wanted), _fold(wanted)
    tests: tuple[Callable[[Album], bool], ...] = (
        lambda album: album.id == wanted,
        lambda album: exact in (_nfc(album.title), _nfc(album.path)),
        lambda album: folded in (_fold(album.title), _fold(album.path)),
        lambda album: _globs(album, folded),
    )
    for own in (True, False):
        for test in tests:
            if found := [at for at, each in enumerate(albums) if (each.kind is AlbumKind.ALBUM) is own and test(each)]:
                return found
    return []


def excluded_albums(albums: Sequence[Album], exclude: Sequence[str], *, strict: bool = True) -> set[str]:
    """The ids of the albums that are to be left out, each of `exclude` matched as `select_albums` does.

    A glob may match nothing. `strict`: raises NoAlbumMatches for a name or id that does.
    """
    out: set[str] = set()
    for each in exclude:
        found = _matches(albums, each)
        if not found and strict and not _GLOB.intersection(each):
            raise NoAlbumMatches(each, nearest_titles(albums, each), excluded=True)
        out.update(albums[at].id for at in found)
    return out


def _globs(album: Album, pattern: str) -> bool:
    texts = (album.title, album.path, album.id) if is_group(album.id) else (album.title, album.path)
    return any(fnmatch.fnmatchcase(_fold(text), pattern) for text in texts)


def nearest_titles(albums: Iterable[Album], wanted: str) -> list[str]:
    """Up to three titles or paths that come close: those that contain it first, then those spelt alike."""
    names: dict[str, str] = {}
    for album in albums:
        for text in (album.title, album.path):
            names.setdefault(_fold(text), text)
    folded = _fold(wanted).strip("*?/ ")
    containing = [name for name in names if folded and folded in name]
    alike = difflib.get_close_matches(folded, names, n=_NEAREST, cutoff=0.5)
    return [names[name] for name in list(dict.fromkeys((*containing, *alike)))[:_NEAREST]]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _fold(text: str) -> str:
    """Without regard to case, as Unicode defines caseless matching (3.13, D145)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
