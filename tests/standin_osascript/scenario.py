"""Scenarios for the stand-in, built in a test's own folder."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

FOLDER = Path(__file__).resolve().parent
PROGRAM = FOLDER / "osascript"
SCRIPT = FOLDER.parents[1] / "scripts" / "osxPhotoExporter.scpt"

# 8 by 8 pixels, baseline, written once by Pillow; enough for whoever asks whether a JPEG is whole.
_SMALL_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j"
    "q62rZ4C8ybqmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSk"
    "pKSkpKSkpKT/wAARCAAIAAgDASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUF"
    "BAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVW"
    "V1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi"
    "4+Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEBAQEBAQEBAQAAAAAAAAECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAEC"
    "AxEEBSExBhJBUQdhcRMiMoEIFEKRobHBCSMzUvAVYnLRChYkNOEl8RcYGRomJygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVm"
    "Z2hpanN0dXZ3eHl6goOEhYaHiImKkpOUlZaXmJmaoqOkpaanqKmqsrO0tba3uLm6wsPExcbHyMnK0tPU1dbX2Nna4uPk5ebn6Onq"
    "8vP09fb3+Pn6/9oADAMBAAIRAxEAPwBaKKK6zmP/2Q=="
)

Json = dict[str, Any]


def error(number: int, text: str = "Photos got an error: AppleEvent timed out.", form: str = "offsets") -> Json:
    """The `error` of a fault."""
    return {"number": number, "text": text, "form": form}


class Scenario:
    """A library, what goes wrong with it, and what was asked of it.

    Written by `environment()`, and again by whatever is added afterwards.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is made; the scenario, its state and the files that exports copy lie in it."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "scenario.json"
        self.albums: list[Json] = []
        self.items: dict[str, Json] = {}
        self.faults: list[Json] = []
        self.dialogs: Json = {}
        self._number = 0

    def jpeg(self, name: str = "picture.jpg", data: bytes = b"") -> Path:
        """A file for exports to copy; a small JPEG where no bytes are given."""
        path = self.folder / name
        path.write_bytes(data or _SMALL_JPEG)
        return path

    def add_item(self, filename: str | None = None, *, files: Sequence[Json] | None = None, **facts: Any) -> str:
        """A media item; its id. Without `files`, an export leaves one small JPEG, named as Photos would name it."""
        self._number += 1
        item_id = f"{self._number:08X}-0000-4000-8000-000000000000/L0/001"
        if files is None:
            stem = (filename or f"IMG_{self._number:04d}.JPG").rpartition(".")[0].replace("/", ":")
            files = [{"name": f"{stem}.jpeg", "from": str(self.jpeg())}]
        self.items[item_id] = {"filename": filename, "files": list(files), **facts}
        self._write_again()
        return item_id

    def add_album(self, title: str | None, items: Iterable[str] = (), folders: Sequence[str] = ()) -> str:
        """An album; its id."""
        self._number += 1
        album_id = f"{self._number:08X}-0000-4000-8000-000000000000/L0/040"
        self.albums.append({"id": album_id, "title": title, "folders": list(folders), "items": list(items)})
        self._write_again()
        return album_id

    def add_fault(self, verb: str = "export-item", about: str | None = None, **behaviour: Any) -> None:
        """What is played when `verb` is called (about that album or item); README.md lists the behaviours."""
        fault: Json = {"verb": verb, **behaviour}
        if about is not None:
            fault["about"] = about
        self.faults.append(fault)
        self._write_again()

    def _write_again(self) -> None:
        if self.path.exists():
            self.write()

    def write(self) -> Path:
        """The scenario's file, as it now is."""
        library = {"albums": self.albums, "items": self.items}
        scenario = {
            "calls": "calls.jsonl",
            "state": "state",
            "library": library,
            "dialogs": self.dialogs,
            "faults": self.faults,
        }
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(scenario), "utf-8")
        temporary.replace(self.path)
        return self.path

    def environment(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Write the scenario; the environment for a program that is to meet the stand-in."""
        # The stand-in asks for a python3: first comes that of these tests, not one that a version manager has to find.
        folders = (str(FOLDER), os.path.dirname(sys.executable), base.get("PATH", os.defpath))
        path = os.pathsep.join(folders)
        return {**base, "PATH": path, "SKICYCLERUN_STANDIN": str(self.write())}

    def notes(self) -> list[Json]:
        """Everything the stand-in noted, in order: calls (`verb`, `words`, `argv`, `pid`), `hanging`, `child`."""
        try:
            text = (self.folder / "calls.jsonl").read_text("utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def calls(self, verb: str) -> list[Json]:
        """The calls of one verb, in order."""
        return [note for note in self.notes() if note.get("verb") == verb]


async def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait for something that another process does. Raises TimeoutError."""
    with anyio.fail_after(seconds):
        while True:
            if condition():
                return
            await anyio.sleep(0.005)
