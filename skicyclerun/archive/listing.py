"""The archives of a directory: `archive list`, and finding one by name."""

from __future__ import annotations

import difflib
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from skicyclerun.archive.publish import ARCHIVE_NAME, archive_paths
from skicyclerun.archive.seal import seal_of
from skicyclerun.errors import ArchiveError, ArchiveUnknown


@dataclass(frozen=True, slots=True)
class ListedArchive:
    """What the end of an archive says about it; its members were not read."""

    path: Path
    size: int
    """Bytes."""
    created: str
    """ISO 8601, UTC, `Z`; from the file's name (local time, no zone) where the archive does not say."""
    files: int | None = None
    content_bytes: int | None = None
    proved: str | None = None
    """When every member had been read back; None: it is not known ever to have been."""
    problem: str = ""
    """Why it cannot be read as one of ours."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def created_at(self) -> datetime:
        """For ordering and ages; aware."""
        moment = datetime.fromisoformat(self.created)
        return moment.astimezone(UTC) if moment.tzinfo is None else moment


def list_archives(archive_directory: Path) -> list[ListedArchive]:
    """Files that bear an archive's name, oldest first; one that is torn or not ours carries its `problem`."""
    listed = [_describe(path) for path in archive_paths(archive_directory)]
    return sorted(listed, key=lambda archive: archive.created_at)


def _describe(path: Path) -> ListedArchive:
    created = moment_of_name(path.name)
    size = 0
    try:
        size = os.stat(path).st_size
        seal = seal_of(path)
        proved = None if seal.proved is None else _believable(seal.proved)
        return ListedArchive(path, size, _believable(seal.created), seal.files, seal.content_bytes, proved)
    except (ArchiveError, ValueError) as error:
        return ListedArchive(path, size, created, problem=str(error))
    except OSError as error:
        return ListedArchive(path, size, created, problem=f"It cannot be read ({error.strerror or error}).")


def moment_of_name(name: str) -> str:
    """When an archive of this name was made (local time, no zone); the beginning of time where that says nothing."""
    match = ARCHIVE_NAME.fullmatch(name)
    with suppress(ValueError):
        return _believable(datetime.strptime(match[1] if match is not None else "", "%Y%m%d_%H%M%S").isoformat())
    return "1970-01-01T00:00:00Z"


def _believable(moment: str) -> str:
    """The moment, if any clock can show it. Raises ValueError."""
    if not 1970 <= datetime.fromisoformat(moment).year < 9999:  # the first and last year overflow in some time zones
        raise ValueError(f"It says that it is of {moment}, which no archive can be.")
    return moment


def archive_named(archive_directory: Path, name: str) -> Path:
    """The archive of this name: with or without `.zip`, `pipeline_`; `latest`; or a path to a file elsewhere.

    Raises ArchiveUnknown, with the names that come close.
    """
    if os.sep in name:
        path = Path(name)
        if path.is_file():
            return path
        raise ArchiveUnknown(f"There is no archive {name}.")
    known = archive_paths(archive_directory)
    by_name = {path.name: path for path in known}
    if name == "latest" and known:
        return list_archives(archive_directory)[-1].path
    for candidate in (name, f"{name}.zip", f"pipeline_{name}", f"pipeline_{name}.zip"):
        if candidate in by_name:
            return by_name[candidate]
    near = difflib.get_close_matches(name, by_name, n=3)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ArchiveUnknown(
        f"There is no archive {name!r} in {archive_directory}.{hint}",
        next_step="`skicyclerun archive list` shows what there is.",
    )
