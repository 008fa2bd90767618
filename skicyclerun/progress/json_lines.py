"""Progress as one JSON object a line, for programs that start runs."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Final, TextIO

from skicyclerun.progress.events import ProgressEvent, Renderer
from skicyclerun.progress.terminal_text import LastingStream

_WORD_START: Final = re.compile(r"(?<!^)(?=[A-Z])")


class JsonLines(Renderer):
    """A `Renderer` of JSON: `{"event": "photo_finished", …}` with the fields of the event; ASCII, never throttled."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = LastingStream(stream)

    def handle(self, event: ProgressEvent) -> None:
        name = _WORD_START.sub("_", type(event).__name__).lower()
        self._stream.write(json.dumps({"event": name, **asdict(event)}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()
