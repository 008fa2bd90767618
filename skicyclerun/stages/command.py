"""A command of the user's own as a stage: run as a child without a shell, for each picture or once for an album.

The child works in a process group of its own, so that a stop ends it with all it has started; what it prints goes to
the log. What it made is taken only when it is there and can be read, and gets its name from us.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from skicyclerun.errors import PhotoError, PhotoTimedOut, StageError
from skicyclerun.files.naming import collision_key
from skicyclerun.settings.command_stages import CommandStageSettings
from skicyclerun.settings.placeholders import fill_in
from skicyclerun.stages.preprocessing import MOVIES
from skicyclerun.stages.stage import Made, Picture, Recipe, Surroundings

log = logging.getLogger(__name__)

#: Of what a child prints, so much goes to the log, and its last line into the reason; bytes.
_LOGGED: Final = 64 << 10
_SHOWN: Final = 200
#: How long the last words of a command are waited for where a process that it has let go holds its output open.
_LAST_WORDS_SECONDS: Final = 1.0
_MAX_PIXELS: Final = 300_000_000
_PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".gif"})


class CommandRecipe(Recipe):
    """Runs the command. Its result depends on the command's text and the version that the user gives it."""

    needs_facts = False

    def __init__(self, settings: CommandStageSettings, surroundings: Surroundings) -> None:
        self.extension = settings.extension
        self.by_album = settings.per == "album"
        self._settings = settings
        self._folder = surroundings.config_folder
        self._variables = surroundings.variables
        self._running: dict[Path, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._album_outputs: Path | None = None
        self._one_stem: Mapping[str, Sequence[str]] = {}
        """Pictures of the album that its results cannot tell apart, by their stem."""
        self._closed = False

    def check(self) -> None:
        program = fill_in(self._settings.command[0], **_nothing(self.by_album))
        found = shutil.which(program) if os.sep not in program else str(self._folder / program)
        if found is None or not os.access(found, os.X_OK):
            raise StageError(
                f"The command {program!r} cannot be found or may not be run.",
                next_step="Name it with its whole path in the configuration, or install it.",
            )

    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        settings = self._settings
        return {"command": list(settings.command), "version": settings.version, "extension": settings.extension}

    def make(self, picture: Picture, staged: Path | None) -> Made:
        assert staged is not None
        if self.by_album:
            self._take(picture, staged)
        else:
            self._run({"input": str(picture.path), "output": str(staged)}, staged, self._settings.timeout_seconds)
            if not staged.is_file() or staged.is_symlink():
                raise PhotoError("the command ended well and made no file")
        return _looked_at(staged)

    def make_album(self, pictures: Sequence[Picture], inputs: Path, outputs: Path) -> None:
        self._album_outputs = outputs
        stems: dict[str, list[str]] = {}
        for name in sorted(os.listdir(inputs)):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in MOVIES:  # as every stage leaves them out
                stems.setdefault(collision_key(stem), []).append(name)
        self._one_stem = {stem: names for stem, names in stems.items() if len(names) > 1}
        self._run({"album_input": str(inputs), "album_output": str(outputs)}, outputs, self._settings.timeouts.album)

    def _take(self, picture: Picture, staged: Path) -> None:
        """The result of one picture out of what the command made of its album: the file with its stem."""
        assert self._album_outputs is not None
        if names := self._one_stem.get(collision_key(picture.path.stem)):
            raise PhotoError(
                f"{', '.join(names)} differ in their extension only, so that nobody can say whose result a command for "
                "albums has made; one for each picture can"
            )
        wanted = picture.path.stem + self._settings.extension
        made = self._album_outputs / wanted
        if made.is_symlink() or not made.is_file():
            raise PhotoError(f"the command made no {wanted} for it")
        os.rename(made, staged)

    def _run(self, names: Mapping[str, str], key: Path, seconds: float) -> None:
        command = [fill_in(text, **names) for text in self._settings.command]
        log.info("running %s", shlex.join(self._variables.hidden(command)))
        try:
            with self._lock:
                if self._closed:
                    raise PhotoError("the run was stopped before it")
                child = subprocess.Popen(
                    command,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={name: self._variables[name] for name in self._variables},
                )
                self._running[key] = child
        except OSError as error:
            raise PhotoError(f"the command {command[0]!r} cannot be run: {error.strerror or error}") from error
        try:
            printed = _printed(child, seconds)
        finally:
            _end_group(child)
            with self._lock:
                self._running.pop(key, None)
        if printed:
            log.info("%s printed: %s", command[0], self._variables.hide(printed))
        if child.returncode != 0:
            lines = printed.strip().splitlines()
            said = f", saying: {self._variables.hide(lines[-1])[:_SHOWN]}" if lines else ""
            how = (
                f"was ended by signal {-child.returncode}" if child.returncode < 0 else f"ended with {child.returncode}"
            )
            raise PhotoError(f"the command {how}{said}")

    def abandon(self, staged: Path | None) -> None:
        with self._lock:
            ended = [child for key, child in self._running.items() if staged is None or key == staged]
        for child in ended:
            _end_group(child)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self.abandon(None)


def _nothing(by_album: bool) -> dict[str, str]:
    names = ("album_input", "album_output") if by_album else ("input", "output")
    return dict.fromkeys(names, "")


def _printed(child: subprocess.Popen[bytes], seconds: float) -> str:
    """What the child prints until it ends, the last of it where it is much. Raises PhotoTimedOut.

    What it leaves running in its group is ended with it.
    """
    expired = threading.Event()
    kept = bytearray()

    def read() -> None:
        assert child.stdout is not None
        with child.stdout as stream:
            while block := os.read(stream.fileno(), _LOGGED):
                kept.extend(block)
                del kept[:-_LOGGED]

    def end() -> None:
        expired.set()
        _end_group(child)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        child.wait()
    finally:
        timer.cancel()
    _kill_group(child)
    reader.join(_LAST_WORDS_SECONDS)
    if expired.is_set():
        raise PhotoTimedOut(f"the command took longer than {seconds:g} s and was ended")
    return bytes(kept).decode("utf-8", "replace")


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and all that it has started; nothing where it has ended, and its number may be another's."""
    if child.returncode is None:
        _kill_group(child)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _looked_at(staged: Path) -> Made:
    """That what was made can be read. A picture is decoded; of another file it is enough that it is not empty."""
    if staged.stat().st_size == 0:
        raise PhotoError("the command made an empty file")
    if staged.suffix.lower() not in _PICTURES:
        return Made()
    from skicyclerun.images.convert import displayed_size
    from skicyclerun.images.decode_check import decode_fully
    from skicyclerun.images.sniff import sniff
    from skicyclerun.images.staging import open_original

    decode_fully(staged, max_pixels=_MAX_PIXELS)
    with open_original(staged) as original:
        content = sniff(original.stream)
        assert content is not None
        width, height = displayed_size(original, content)
    return Made(width=width, height=height)
