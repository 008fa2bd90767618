"""Folders that must not lie in each other: what a cleanup empties holds nothing that must outlive it.

Paths are compared as they are spelt and as the file system resolves them (symbolic links), and on macOS, whose disks
ignore case and Unicode form, without regard to either.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from skicyclerun.errors import ConfigError


def _spellings(path: Path) -> Iterator[tuple[str, ...]]:
    for text in {os.path.abspath(path), os.path.realpath(path)}:
        if sys.platform == "darwin":
            text = unicodedata.normalize("NFC", text).casefold()
        yield ("/", *(part for part in text.split("/") if part))


def _identity(path: str) -> tuple[int, int] | None:
    """What the file system calls a place that exists: two spellings of one folder (case, mounts) have one identity."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def lies_in(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or lies in it, by any of their spellings."""
    if any(a[: len(b)] == b for a in _spellings(inner) for b in _spellings(outer)):
        return True
    identity = _identity(str(outer))
    real = Path(os.path.realpath(inner))
    return identity is not None and any(_identity(str(part)) == identity for part in (real, *real.parents))


def same_place(one: Path, other: Path) -> bool:
    """Whether both name the same place, by any of their spellings."""
    if not set(_spellings(one)).isdisjoint(_spellings(other)):
        return True
    identity = _identity(str(one))
    return identity is not None and identity == _identity(str(other))


def unsafe_paths(
    lib_root: Path,
    home: Path,
    folders: Mapping[str, Path],
    emptied: Mapping[str, Path],
    kept: Mapping[str, Path],
    config: Path,
) -> list[ConfigError]:
    """What is dangerous about this layout; an empty list if nothing is.

    `folders` are all folders of ours by key, `emptied` those that a cleanup empties, `kept` (folders and files) what
    must be there afterwards. `config` is the file they come from, named in the errors.
    """
    problems: list[ConfigError] = []

    def problem(key: str, text: str, next_step: str = "") -> None:
        problems.append(ConfigError(text, key=key, file=config, next_step=next_step))

    for key, folder in {"lib_root": lib_root, **folders}.items():
        if same_place(folder, Path("/")):
            problem(key, f"{folder} is the root of the disk; name a folder of its own")
        elif same_place(folder, home):
            problem(key, f"{folder} is your home directory; name a folder of its own")
    for key, folder in emptied.items():
        if lies_in(home, folder) and not same_place(home, folder) and not same_place(folder, Path("/")):
            problem(key, f"{folder} holds your home directory, and a cleanup empties it")
        if lies_in(lib_root, folder):
            problem(key, f"{folder} holds lib_root ({lib_root}), and a cleanup empties it")
            continue
        for other, path in {**kept, **emptied}.items():
            if other != key and lies_in(path, folder):
                problem(
                    other,
                    f"{path} lies in {key} ({folder}), which a cleanup empties",
                    f"Give {other} or {key} a folder of its own.",
                )
    return problems


def unsafe_outputs(
    outputs: Mapping[str, Path], places: Mapping[str, Path], around: Mapping[str, Path], config: Path
) -> list[ConfigError]:
    """What is dangerous about the `outputs` of the user's own stages, by key.

    None holds, or lies in, another or one of the `places`; none holds what may be `around` them all.
    """
    problems: list[ConfigError] = []
    others = dict(places)
    for key, folder in outputs.items():
        for other, path in {**around, **others}.items():
            if lies_in(path, folder):
                said = f"{folder} holds {other} ({path})"
            elif other not in around and lies_in(folder, path):
                said = f"{folder} lies in {other} ({path})"
            else:
                continue
            problems.append(ConfigError(said, key=key, file=config, next_step=f"Give {key} a folder of its own."))
        others[key] = folder
    return problems


def unsafe_source(
    library: Path, written: Mapping[str, Path], emptied: Sequence[str], config: Path
) -> list[ConfigError]:
    """What is dangerous about exporting from `library` into the `written` paths, of which those named in `emptied` are
    emptied by a cleanup."""
    problems: list[ConfigError] = []
    for key, path in written.items():
        if lies_in(path, library):
            problems.append(
                ConfigError(
                    f"{path} lies in the source {library}; nothing is ever written there",
                    key=key,
                    file=config,
                    next_step="Name another --lib-root."
                    if key == "lib_root"
                    else f"Change {key}, or name another --lib-root.",
                )
            )
        elif key in emptied and lies_in(library, path):
            problems.append(
                ConfigError(
                    f"the source {library} lies in {key} ({path}), which a cleanup empties",
                    key="export.library",
                    file=config,
                    next_step=f"Move the source, or change {key}.",
                )
            )
    return problems
