"""The words in which a stage says what it reads, what it makes, and what its results depend on.

Whoever adds a stage writes one module: a section of settings, a `Recipe`, and one `Stage` that names them, which is
entered in `registry.STAGES`. The frame (`actors/stage.py`) does the rest: rows, retries, time-outs, the order of
writes, the catalog, the report. docs/writing-a-stage.md goes through one.

A recipe's module is imported with the configuration, so it must be light: Pillow and the like are imported by the
methods that need them.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from skicyclerun.settings.dotenv_file import Variables
from skicyclerun.settings.section import StageSection

#: A recipe's `extension` where each file keeps the extension of its input.
INPUT_EXTENSION: Final = "="


@dataclass(frozen=True, slots=True)
class Picture:
    """A catalogued file as a stage reads it. The file is read, never changed."""

    path: Path
    sha256: str
    """Of its bytes, lower-case hexadecimal; from the row of the stage that made it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the catalog says of the photo it comes from, with the keys of its entry (docs/catalog.md): `date_taken`,
    `gps`, `location`, `exif`, `title`, `keywords`, … and `album_title`, `file_name`. Absent facts are absent keys."""
    variant: str = ""
    """Which of several results of one photo this is (the style of a restyled picture); empty for the only one. Of the
    input; where a stage makes variants itself, the one that is to be made."""


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a picture."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the catalog. A stage that makes no file: keys of the source's entry (`location`, `exif`, `gps`). One that
    makes files: further keys of the new file's own entry. JSON values only; finite numbers."""
    width: int | None = None
    """Pixels of the file that was made."""
    height: int | None = None
    note: str = ""
    """Something the report should say; a sentence without its full stop."""
    size: int | None = None
    """Bytes, of a result that is no file here."""
    provisional: bool = False
    """Somebody who knows more could not be asked: it is made again as soon as `Recipe.would_help` says so."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a recipe may know of the run besides its section."""

    metadata_dir: Path
    geocode_cache: Path
    config_folder: Path
    """The folder of the configuration file: relative paths of fonts and templates begin here."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the command line says to this stage alone (`sweep_limit`, `cache_only_geocode`, …)."""
    say: Callable[[str], None] = lambda text: None
    """Tells the person something, as a line of its own; from any thread."""
    variables: Variables = field(default_factory=lambda: Variables(os.environ), repr=False)
    """The environment, and behind it the `.env` beside the configuration; `hide` takes secrets out of a text."""


class ForNow(str):
    """A reason of `left_out` that this run alone has: a file made before stays, and so do facts of the same input."""


class Recipe(ABC):
    """How one picture is done. Made once for a run; `make` is called from worker threads, several at once.

    `make` raises PhotoUnreadable or another PhotoError where this picture cannot be done, PhotoTransient where it may
    work the next time (it is tried again with back-off), OSError as it comes.
    """

    extension: str | None = None
    """Of the files it makes, with its dot, lower case; `INPUT_EXTENSION` for that of each input; None for a stage that
    makes facts only."""
    at_once: int = 0
    """Pictures at once: 0, as many as there are cores; 1, one after the other (a server that wants that)."""

    in_a_row: ClassVar[int] = 1
    """Where one picture costs as little as to give it to a thread: so many are given to it at a time, at most."""

    one_ahead: ClassVar[bool] = False
    """Whether an album is planned and begun while the one before it comes to its end. Not with `takes_over`, which
    looks at what was made before."""

    over_a_line: ClassVar[bool] = False
    """All go over one line: as many at once as it bears, `at_once` at most, and what took too long is tried again, with
    fewer beside it."""

    costly: ClassVar[bool] = False
    """A result takes so long (a minute of a model's time) that each is committed by itself: a stop loses none that is
    made."""

    needs_facts: ClassVar[bool] = True
    """False: it never looks at `Picture.facts`, which are then empty and cost nothing."""
    takes_over: ClassVar[bool] = True
    """Whether what it made of a photo that was moved or renamed is taken over as its result."""
    by_album: bool = False
    """Does an album in one step (`make_album`), from which `make` takes each picture's result."""

    # B027: hooks without a body are not abstract on purpose; a recipe writes those it needs and no others.
    def check(self) -> None:  # noqa: B027
        """Before a run begins: raises StageError with what is missing (a program, a server) and what to type."""

    def open(self) -> None:  # noqa: B027
        """Before the first picture; may block."""

    def variants(self, picture: Picture) -> Sequence[str]:
        """The results to be made of one input, each with a row, a file and a digest of its own; by default one.

        The other methods then get the picture once for each, with its `variant`. The order is that of the work: an
        album's pictures are done variant by variant, since changing from one to another may be slow. What is no longer
        named here is put away like what has lost its photo. `picture.facts` are not there yet.
        """
        return (picture.variant,)

    def stem(self, picture: Picture) -> str:
        """What the file that is made is called, without extension; decided when a picture gets its row."""
        return picture.path.stem

    @abstractmethod
    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        """All that decides the result besides the input's bytes and the stage's version: settings, texts, fonts.

        JSON values. Two equal answers for equal bytes mean equal results; anything that is left out here is never
        noticed when it changes.
        """

    def is_there(self, picture: Picture) -> bool:
        """Of a stage that makes no file here: whether what it made of this picture is still where it was put."""
        return True

    def would_help(self, picture: Picture) -> bool:
        """Whether a result that is provisional would come out better now."""
        return True

    def left_out(self, picture: Picture) -> str:
        """Why nothing is to be made of this picture, empty if it is. Counts as accounted for.

        Asked only where the result is not up to date. An earlier result leaves, unless the reason is a `ForNow`.
        """
        return ""

    @abstractmethod
    def make(self, picture: Picture, staged: Path | None) -> Made:
        """Do one picture: write `staged` (absent for a stage without files), return what is to be said of it.

        The same picture and dependencies give the same bytes, so that a run that was killed ends like another.
        """

    def make_album(self, pictures: Sequence[Picture], inputs: Path, outputs: Path) -> None:  # noqa: B027
        """Before the pictures of an album that are to be done, once. `inputs` is its folder, `outputs` an empty one.

        For recipes that do an album at a time; `make` then only has to take each result.
        """

    def stop(self) -> None:  # noqa: B027
        """A signal asks the run to stop: what takes long gives up what it has in hand.

        `make` then raises PhotoInterrupted, and the picture is left to the resume. Called from the event loop while
        `make` is at work, so it must not block. Without it, pictures in hand are finished.
        """

    def abandon(self, staged: Path | None) -> None:  # noqa: B027
        """The picture that was to become `staged` is given up (its time is up, or the run is cancelled).

        Called while `make` may still be running in its thread, for what runs outside of this process. None: all.
        """

    def settle(self) -> None:  # noqa: B027
        """Called before the rows of a group are committed: what must be durable before them (a cache of answers)."""

    def uses_model(self, picture: Picture) -> bool:
        """Whether a model has a part in this picture, for `doctor --models`."""
        return True

    def held(self) -> str:
        """What the recipe holds while it is open, in words (the memory of a device), for `doctor --models`."""
        return ""

    def close(self) -> None:  # noqa: B027
        """After the last picture, also when the run was stopped."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage and what it needs before it can run."""

    name: str
    summary: str
    needs_paths: tuple[str, ...] = ()
    """Keys of `paths` that it reads or writes."""
    makes_paths: tuple[str, ...] = ()
    """Those among them that must be there before it starts; for a file, the folder it lies in."""
    needs_environment: tuple[str, ...] = ()
    needs_packages: tuple[str, ...] = ()
    """Import names of packages that a plain installation does not bring."""
    extra: str = ""
    """The extra of ours that brings `needs_packages` (`s3`: `pip install "skicyclerun[s3]"`)."""
    section: str = ""
    """Name of its section of the configuration."""
    settings: type[StageSection] | None = None
    recipe: Callable[[Any, Surroundings], Recipe] | None = None
    """Makes the recipe from its section; None for cleanup, export and a command of the user's own."""
    version: int = 1
    """Raised when the recipe makes other results of the same input and settings."""
    reads: str = "export"
    """The stage whose files it takes."""
    reads_folder: str = ""
    """The key of its section that names a folder: it takes the files of every stage that makes them there, and `reads`
    only says where it stands in the pipeline."""
    output: str = ""
    """Key of `paths` for the folder of its files; empty for a stage that makes facts only."""
    has_model: bool = False
    """`doctor --models` tries it out."""
    entry_type: str = ""
    """`type` of its files' entries in the catalog."""
