"""What lies beside an exported file: its sidecar, and its unmodified original."""

from __future__ import annotations

from pathlib import Path

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.sidecar import SidecarFormat, sidecar_of
from skicyclerun.images.sniff import HEAD_BYTES, describe_unknown, sniff
from skicyclerun.images.staging import Original, StagedFile, open_original
from skicyclerun.images.tag_dates import since_epoch_ns
from skicyclerun.models import ExportedFacts, Fetched


def write_sidecar(
    fetched: Fetched, destination: Path, format: SidecarFormat, *, located: bool, person_keywords: bool
) -> ExportedFacts:
    """Write the sidecar of a fetched photo or movie to `destination`, a staging file whose folder exists.

    Not `located`: without positions. The same input gives the same bytes; the file's time is the photo's date, else
    that of the original. Nothing is synced. Raises PhotoUnreadable for what is no picture or movie, OriginalMissing,
    PhotoTransient; OSError (a full disk) passes through. After an error there is no `destination`.
    """
    with open_original(fetched.path) as original, StagedFile(destination) as staged:
        content = sniff(original.stream)
        if content is None:
            raise PhotoUnreadable(describe_unknown(original.read(0, HEAD_BYTES), fetched.path.name))
        known_here = fetched.metadata
        data, facts = sidecar_of(
            original, content, known_here, format, located=located, person_keywords=person_keywords
        )
        staged.write(data)
        known = fetched.metadata.date if fetched.metadata is not None else None
        date = known or facts.date
        mtime_ns = since_epoch_ns(date) if date is not None else None
        return _finished(staged, original, mtime_ns, fetched)


def copy_original(fetched: Fetched, destination: Path) -> ExportedFacts:
    """Copy a fetched file byte for byte, whatever it holds. Time, and what is raised, as `write_sidecar`."""
    with open_original(fetched.path) as original, StagedFile(destination) as staged:
        for block in original.blocks():
            staged.write(block)
        known = fetched.metadata.date if fetched.metadata is not None else None
        return _finished(staged, original, since_epoch_ns(known) if known is not None else None, fetched)


def _finished(staged: StagedFile, original: Original, mtime_ns: int | None, fetched: Fetched) -> ExportedFacts:
    kept_ns = staged.finish(original.mtime_ns if mtime_ns is None else mtime_ns)
    return ExportedFacts(
        size=staged.size, sha256=staged.sha256, rendering=fetched.rendering, note=fetched.note, mtime_ns=kept_ns
    )
