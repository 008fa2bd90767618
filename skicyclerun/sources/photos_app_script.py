"""Which AppleScript talks to Photos.app: the shipped one, or the one that `export.script_path` names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from skicyclerun.settings.models import Settings
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.sources.osascript import VERBS

SCRIPT_NAME: Final = "osxPhotoExporter.scpt"
#: Bytes; a script of more is something else.
_MAX_BYTES: Final = 2_000_000
_COMMENTS: Final = re.compile(r"\(\*.*?\*\)|--[^\n\r]*", re.DOTALL)


def script_to_run(settings: Settings) -> tuple[Path, str]:
    """The script, and where it is not the one that the configuration names, a sentence that says why; else empty.

    A relative path begins at the configuration's folder, at the one above it where it is called `config`, or at
    lib_root. A script is taken that is plain text and answers to all `VERBS`; what it answers is looked at with every
    answer. Raises SkicyclerunError where the shipped one is missing from the installation.
    """
    shipped = shipped_file(SCRIPT_NAME)
    wanted = settings.export.script_path
    if wanted is None:
        return shipped, ""
    said = f"export.script_path: %s; the script that comes with skicyclerun is used ({shipped})."
    folder = settings.file.parent
    bases = [folder, *([folder.parent] if folder.name == "config" else []), settings.lib_root]
    found = next((path for path in (base / Path(wanted).expanduser() for base in bases) if path.is_file()), None)
    if found is None:
        return shipped, said % f"there is no script {wanted}"
    if wrong := _wrong(found):
        return shipped, said % f"{found} {wrong}"
    return found, ""


def _wrong(script: Path) -> str:
    """Why a script cannot take the place of ours, empty if it can."""
    try:
        with open(script, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if len(data) > _MAX_BYTES:
        return "is too large for a script"
    try:
        text = _COMMENTS.sub(" ", data.decode("utf-8"))
    except UnicodeDecodeError:
        return "is compiled, so that nobody can see what it answers to"
    absent = [verb for verb in VERBS if f'"{verb}"' not in text]
    if len(absent) == len(VERBS):
        return "exports all by itself and answers to none of the verbs"
    return f"does not answer to {', '.join(absent)}" if absent else ""
