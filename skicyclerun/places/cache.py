"""Answers of geocoders, kept in `metadata/geocode_cache.json` so that nobody is asked the same thing twice.

One JSON object; a key is `<question>|<lat>,<lon>`, where the question is the provider, its server and what else decides
the answer. Entries of other programs, whatever their keys, are kept as they are; those of earlier versions of the
pipeline (`"46.020700,7.749100": {"provider": …, "display_name": …}`) are answers too.

Nothing is ever lost: before it is written the file is read again, and what others entered meanwhile is kept.
"""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from skicyclerun.errors import StageError
from skicyclerun.files.atomic_files import make_directories, sync_directory, write_atomically
from skicyclerun.places.place import Answer, joined, location
from skicyclerun.places.sphere import NearestOf

NOTHING_THERE_DAYS: Final = 90
"""After so long a geocoder that knew no address is asked again: maps grow."""

_LOCK_PATIENCE_SECONDS: Final = 30.0
_LEAST_EDGE_KM: Final = 0.001
_EARLIER: Final = ""
"""Question under which answers of earlier versions are found: they do not say how it was put."""


class GeocodeCache:
    """The cache of one run; safe from several threads. Read at the first question, written by `save`."""

    def __init__(
        self,
        path: Path | None,
        *,
        same_place_metres: float,
        say: Callable[[str], None] = lambda text: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`path` None: answers are shared within the run and not kept."""
        self._path = path
        self._metres = same_place_metres
        self._say = say
        self._now = now
        self._lock = threading.RLock()
        self._entries: dict[str, Any] = {}
        self._near: dict[tuple[str, str], NearestOf[str]] = {}
        self._seen: tuple[int, int, int] | None = None
        self._unsaved = False
        self._loaded = path is None

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, provider: str, question: str, latitude: float, longitude: float) -> Answer | None:
        """The answer to this question here or within `same_place_metres`; None where there is none yet.

        An answer to the same question goes before one of an earlier version of the pipeline.
        """
        self.load()
        with self._lock:
            for near in ((provider, question), (provider, _EARLIER)):
                found = self._nearest(near, latitude, longitude)
                if found is not None:
                    return found
        return None

    def _nearest(self, near: tuple[str, str], latitude: float, longitude: float) -> Answer | None:
        """The exact position first, then the nearest neighbour."""
        key = key_of(near[1], latitude, longitude)
        if near[1] and key in self._entries:
            answer = self._answer(key, near[1])
            if answer is not None:
                return answer
        if near in self._near and self._metres > 0:
            neighbour = self._near[near].nearest(latitude, longitude, self._metres / 1000)
            if neighbour is not None:
                return self._answer(neighbour[1], near[1])
        return None

    def _answer(self, key: str, question: str) -> Answer | None:
        entry = self._entries[key]
        if question == _EARLIER:
            return Answer(_of_earlier(entry))
        if not isinstance(entry, dict) or "location" not in entry:
            return None
        said = entry["location"]
        if isinstance(said, dict):
            return Answer(copy.deepcopy(said))
        asked = _time(entry)
        fresh = asked is not None and self._now() - asked < timedelta(days=NOTHING_THERE_DAYS)
        return Answer(None) if fresh else None

    def keep(
        self, provider: str, question: str, latitude: float, longitude: float, said: Mapping[str, Any] | None
    ) -> None:
        """Enter an answer; None: there is no address."""
        self.load()
        entry = {
            "provider": provider,
            "question": question,
            "lat": round(latitude, 6),
            "lon": round(longitude, 6),
            "asked": f"{self._now().astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "location": None if said is None else dict(said),
        }
        with self._lock:
            self._merge({key_of(question, latitude, longitude): entry})
            self._unsaved = True

    # ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self) -> None:
        """Read the file, once. A damaged one is set aside and said aloud. Raises StageError if it may not be read."""
        with self._lock:
            if self._loaded:
                return
            try:
                self._read_again()
            except OSError as error:
                raise StageError(
                    f"The cache of places {self._path} cannot be read: {error.strerror}.",
                    next_step="Look at its permissions, or name another file in paths.geocode_cache.",
                ) from error
            self._loaded = True

    def save(self) -> None:
        """Write what is new, with what others have entered since; nothing new, nothing written. Raises OSError."""
        with self._lock:
            if self._path is None or not self._unsaved:
                return
            make_directories(self._path.parent)
            with _locked(self._path):
                self._read_again()
                data = orjson.dumps(self._entries, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
                write_atomically(self._path, data)
                self._seen = _identity(self._path)
            self._unsaved = False

    def _read_again(self) -> None:
        """Take in what the file says now, if it is not as it was."""
        assert self._path is not None
        identity = _identity(self._path)
        if identity is None or identity == self._seen:
            return
        data = self._path.read_bytes()
        try:
            found = orjson.loads(data)
            if not isinstance(found, dict):
                raise ValueError("it is not a JSON object")
        except ValueError as error:
            kept = _set_aside(self._path, self._now())
            self._unsaved = bool(self._entries)
            self._say(
                f"{self._path} is damaged ({error}). It was kept as {kept.name}, and the cache of places begins anew"
            )
            return
        self._seen = identity
        self._merge(found)

    def _merge(self, others: Mapping[str, Any]) -> None:
        """`others` were read, or given, just now."""
        for key, entry in others.items():
            known = key in self._entries
            self._entries[key] = better(self._entries[key], entry) if known else entry
            if not known:
                self._enter(key, self._entries[key])

    def _enter(self, key: str, entry: Any) -> None:
        """Let an answer be found from near its position."""
        if not isinstance(entry, dict):
            return
        provider, position = entry.get("provider"), _position(entry)
        if not isinstance(provider, str) or position is None:
            return
        question = entry.get("question")
        if not isinstance(question, str):
            if _of_earlier(entry) is None:
                return
            question = _EARLIER
        near = self._near.get((provider, question))
        if near is None:
            near = self._near[provider, question] = NearestOf((max(self._metres / 1000, _LEAST_EDGE_KM),))
        near.add(*position, key)

    def __len__(self) -> int:
        return len(self._entries)


def key_of(question: str, latitude: float, longitude: float) -> str:
    """Key of an entry; positions to a hundred-thousandth of a degree, about a metre."""
    return f"{question}|{latitude + 0.0:.5f},{longitude + 0.0:.5f}"


def better(known: Any, other: Any) -> Any:
    """Which of two entries under one key stays: a place before none, the later before the earlier.

    In whatever order several are compared, the same one stays. Of what is not ours `other`, which was read just now.
    """
    if not _is_ours(known) or not _is_ours(other):
        return known if _is_ours(known) else other
    return max((known, other), key=_rank)


def _is_ours(entry: Any) -> bool:
    return isinstance(entry, dict) and "question" in entry


def _rank(entry: Mapping[str, Any]) -> tuple[bool, str, bytes]:
    return (
        entry.get("location") is not None,
        str(entry.get("asked", "")),
        orjson.dumps(entry, option=orjson.OPT_SORT_KEYS),
    )


def _position(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    latitude, longitude = entry.get("lat"), entry.get("lon")
    if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
        return None
    on_earth = math.isfinite(latitude) and abs(latitude) <= 90 and math.isfinite(longitude) and abs(longitude) <= 360
    return (latitude, longitude) if on_earth else None


def _of_earlier(entry: Any) -> dict[str, Any] | None:
    """An answer as earlier versions of the pipeline kept it, None if it holds none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("provider"), str):
        return None
    formatted = joined((entry.get("city") or entry.get("county"), entry.get("state"), entry.get("country")))
    formatted = formatted or joined((entry.get("formatted") or entry.get("display_name"),))
    return location(entry["provider"], {**entry, "formatted": formatted}) if formatted else None


def _time(entry: Mapping[str, Any]) -> datetime | None:
    try:
        asked = datetime.fromisoformat(entry["asked"])
    except (KeyError, TypeError, ValueError):
        return None
    return asked if asked.tzinfo else asked.replace(tzinfo=UTC)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is replaced or written; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _locked(path: Path) -> AbstractContextManager[object]:
    """Keeps other processes of ours from writing between reading and writing; a disk without locks goes without."""
    from filelock import FileLock

    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_PATIENCE_SECONDS)
    try:
        lock.acquire()
    except (OSError, NotImplementedError):
        return nullcontext()
    return _Held(lock)


class _Held(AbstractContextManager[None]):
    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _set_aside(path: Path, now: datetime) -> Path:
    """Rename a file out of the way, never over one that was set aside before."""
    name = f"{path.name}.corrupt-{now:%Y%m%d_%H%M%S}"
    kept, number = path.with_name(name), 1
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{name}-{number}")
    path.rename(kept)
    sync_directory(path.parent)
    return kept
