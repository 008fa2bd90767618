"""Keys that configurations of existing pipelines have in our sections, and what becomes of each: the one list of them.

The warning that names them, the loader and docs/configuration.md (a test compares) all go by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """One of them. It is honoured where it `stands_for` a key of ours, else named in a warning and left alone."""

    key: str
    """Its path: `export.quality`."""
    becomes: str
    """What becomes of it, for the warning and the documentation."""
    stands_for: str = ""
    """Our key, in the same section, that it is another name of. The warning names it where that one is there too."""


FOREIGN_KEYS: Final = (
    ForeignKey("pipeline.name", "a note to the reader"),
    ForeignKey("pipeline.version", "a note to the reader"),
    ForeignKey("export.quality", "another name of `jpeg_quality`, which counts where both are there", "jpeg_quality"),
    ForeignKey("export.preserve_albums", "albums are always kept apart"),
    ForeignKey("cleanup.remove_temp_files", "temporary files are always removed"),
    ForeignKey("logging.include_timestamps", "every line of the log has its time"),
)

FOREIGN_BY_KEY: Final[Mapping[str, ForeignKey]] = {each.key: each for each in FOREIGN_KEYS}

#: Other ways in which such files write the values of `export.format`, in lower case, and what they mean.
FORMATS: Final[Mapping[str, str]] = {
    "jpeg": "jpeg",
    "jpg": "jpeg",
    "original": "original",
    "originals": "original",
    "unmodified": "original",
}


def format_meant(value: object) -> object:
    """`export.format` as this program calls it; what is in no list stays as it is, and is refused by its model."""
    return FORMATS.get(value.strip().lower(), value) if isinstance(value, str) else value
