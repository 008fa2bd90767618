"""One photo in several albums: its further files share their bytes with the first (`export.duplicates`).

Shared is only what rows say was exported of the same photo, in the same state and under the same settings, and what
the disk still holds as it was. Otherwise, and where the file system cannot share, a file is made as any other.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import anyio.to_thread

from skicyclerun.files.album_folder import MTIME_TOLERANCE_NS
from skicyclerun.files.shared_bytes import CannotShare, share_bytes
from skicyclerun.models import ExportedFacts
from skicyclerun.settings.export_options import ExportOptions
from skicyclerun.state import photos
from skicyclerun.state.photos import PhotoToDo, SharedPhoto
from skicyclerun.state.runs import RunRow
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Duplicates:
    """Of one run. Knows after the first refusal that this file system cannot share, and says so once."""

    store: Store
    run: RunRow
    options: ExportOptions
    export_folder: Path
    say: Callable[[str], None]
    _refused: bool = False

    async def shared(self, item: PhotoToDo, folder: str, staged: Path) -> ExportedFacts | None:
        """Make the staged file of a photo from that of another album. None: there is none, it is to be rendered."""
        how = self.options.duplicates
        if how == "copy" or self._refused or not item.photo.fingerprint:
            return None
        place = (self.run.source_kind.value, self.run.source_location)
        for other in await photos.same_elsewhere(self.store, item.photo, folder, place):
            if not self.options.same_bytes_as(other.options, item.photo.component):
                continue
            try:
                share = partial(_share, self.export_folder, other, staged, how)
                done = await anyio.to_thread.run_sync(share, abandon_on_cancel=True)
            except CannotShare as cannot:
                self._refuse(how, cannot)
                return None
            if done:
                return other.facts
        return None

    def _refuse(self, how: str, cannot: CannotShare) -> None:
        if self._refused:
            return
        self._refused = True
        what = "hard links" if how == "hardlink" else "clones"
        self.say(
            f"The disk of {self.export_folder} has no {what} ({cannot}): photos in several albums are copied "
            "(export.duplicates)."
        )


def _share(export_folder: Path, other: SharedPhoto, staged: Path, how: Literal["hardlink", "clone"]) -> bool:
    parts = (other.folder, *other.file_name.split("/"))
    found = share_bytes(export_folder, parts, staged, how, sha256=other.facts.sha256)
    if found is None:
        return False
    if how == "hardlink":
        if abs(found.st_mtime_ns - other.facts.mtime_ns) <= MTIME_TOLERANCE_NS:
            return True
        staged.unlink(missing_ok=True)  # somebody has changed its time: setting it here would set it there
        return False
    try:
        os.utime(staged, ns=(other.facts.mtime_ns, other.facts.mtime_ns))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EROFS):
            raise
        log.debug("%s: its time could not be set: %s", staged, error)
    return True
