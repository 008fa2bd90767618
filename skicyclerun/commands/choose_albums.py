"""Which albums a fresh run is to export, asked before anything is touched: a list in the terminal, or native dialogs.

`questionary` draws the list. It is imported only when the list is shown.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from skicyclerun.actors.messages import Intent
from skicyclerun.errors import UsageError
from skicyclerun.models import Album, AlbumKind, SourceKind
from skicyclerun.run.plan import RunRequest
from skicyclerun.settings.shipped_files import shipped_file
from skicyclerun.sources import album_dialogs
from skicyclerun.sources.base import Source
from skicyclerun.sources.choose import choose_kind
from skicyclerun.sources.osascript import Osascript
from skicyclerun.wording import printable

if TYPE_CHECKING:
    import questionary
    from prompt_toolkit.key_binding import KeyPressEvent
    from questionary.prompts.common import InquirerControl

log = logging.getLogger(__name__)

_INSTRUCTION: Final = "(space chooses, ctrl-a all, type to filter, enter goes on, esc cancels)"
_LONGEST_PATH: Final = 300


@dataclass(frozen=True, slots=True)
class AlbumChoice:
    """Asks a fresh run's albums; the `choose_albums` of a RunSession."""

    dialogs: bool = False
    """Native dialogs in place of the list."""
    asked_for: bool = True
    """False: nobody asked for the list; it is shown only where every album of Photos.app would be exported."""

    async def __call__(self, source: Source, albums: Sequence[Album]) -> Sequence[str] | None:
        """Ids, empty for a cancellation; None: nobody was asked. Raises Cancelled, UsageError or SourceStopped."""
        if self.dialogs:
            return await album_dialogs.choose_albums(dialog_program())
        if not self.asked_for and source.kind is not SourceKind.APPLE_PHOTOS:
            return None
        return await choose_from_list(albums)


def album_choice(
    request: RunRequest, *, choose: bool, dialogs: bool, at_terminal: bool, asking: bool
) -> AlbumChoice | None:
    """How this request asks for albums; None for not at all. `asking` is whether questions are welcome.

    Raises UsageError where --choose or --dialogs cannot be had.
    """
    if dialogs:
        export = request.settings.export
        if choose_kind(export.source, export.library) is not SourceKind.APPLE_PHOTOS:
            raise UsageError(
                "--dialogs shows the dialogs of macOS, and goes with the source apple_photos only.",
                next_step="`--choose` shows a list in the terminal, for every source.",
            )
        return AlbumChoice(dialogs=True)
    capable = at_terminal and os.environ.get("TERM", "dumb").lower() not in ("dumb", "unknown", "")
    if choose:
        if not capable:
            raise UsageError(
                "--choose needs a terminal that can show a list.",
                next_step="Name the albums: `--album NAME`. `skicyclerun albums` lists them.",
            )
        return AlbumChoice()
    if asking and capable and request.intent is Intent.FRESH and not request.selection:
        return AlbumChoice(asked_for=False)
    return None


def offer_everything(place: str, groups: Sequence[Album]) -> bool:
    """Ask, at a terminal, whether all photos are wanted where there are no albums."""
    photos = sum(album.photo_count for album in groups)
    click.echo(f"There are no albums in {printable(place)}.", err=True)
    these, by = "Its one photo" if photos == 1 else f"All its {photos} photos", printable(groups[0].title)
    into = f"one folder, {by!r}" if len(groups) == 1 else f"{len(groups)} folders: {by!r}, …"
    return click.confirm(f"{these} instead, in {into}?", default=True, err=True)


def dialog_program() -> Osascript:
    """What shows the native dialogs."""
    return Osascript(script=shipped_file("osxPhotoExporter.scpt"), log=log.info)


async def choose_from_list(albums: Sequence[Album]) -> list[str]:
    """Ids of the albums chosen in a list on the terminal (stderr); empty where none was, or it was left with Esc."""
    question = _question(albums)
    try:
        chosen = await question.unsafe_ask_async()
    except (EOFError, KeyboardInterrupt):  # the terminal went away; Ctrl-C before the list stood
        return []
    return [str(album_id) for album_id in chosen]


def kind_in_words(album: Album) -> str:
    """What is no album of the person's own says what it is."""
    return {AlbumKind.SHARED: " (shared album)", AlbumKind.PROJECT: " (project)"}.get(album.kind, "")


def label(album: Album, width: int = 5) -> str:
    """An album's line: how many photos, then its path. Titles are anybody's: nothing in them reaches the terminal."""
    path = printable(album.path) + kind_in_words(album)
    shown = path if len(path) <= _LONGEST_PATH else path[: _LONGEST_PATH - 1] + "…"
    return f"{album.photo_count:>{width}}  {shown}"


def _question(albums: Sequence[Album]) -> questionary.Question:
    import questionary
    from prompt_toolkit.filters import Always
    from prompt_toolkit.output import create_output
    from questionary.prompts.common import InquirerControl

    width = max(len(str(album.photo_count)) for album in albums)
    question = questionary.checkbox(
        f"Which of {len(albums)} albums?" if len(albums) > 1 else "Which album?",
        choices=[questionary.Choice(label(album, width), value=album.id) for album in albums],
        instruction=_INSTRUCTION,
        use_jk_keys=False,
        use_search_filter=True,
        output=create_output(sys.stderr),
    )
    for window in question.application.layout.find_all_windows():
        if isinstance(window.content, InquirerControl):
            # Otherwise the list fills the screen with empty lines as soon as a filter stands below it.
            window.dont_extend_height = Always()
            _bind_keys(question, window.content)
    return question


def _bind_keys(question: questionary.Question, control: InquirerControl) -> None:
    """Keys that questionary has not, or has otherwise. Of two bindings of one key the later counts."""
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.keys import Keys

    keys = question.application.key_bindings
    assert isinstance(keys, KeyBindings)

    def cancel(event: KeyPressEvent) -> None:
        event.app.exit(result=[])

    def filter_by(event: KeyPressEvent) -> None:
        """questionary filters by ASCII alone, and albums are called `Grünhornlücke`."""
        key = event.key_sequence[0].key
        if not isinstance(key, Keys) or key is Keys.BracketedPaste:
            for character in event.data:
                if character.isprintable():
                    control.add_search_character(character)  # type: ignore[arg-type]  # annotated as Keys, used as str

    def toggle_shown(event: KeyPressEvent) -> None:
        """questionary toggles all, also those that the filter hides."""
        shown = [choice.value for choice in control.filtered_choices]
        others = [value for value in control.selected_options if value not in shown]
        everything = all(value in control.selected_options for value in shown)
        control.selected_options = others if everything else [*others, *shown]

    def nothing(event: KeyPressEvent) -> None:
        """Tab inverts the choice in questionary, hidden albums included: too easily hit."""

    for key in (Keys.Escape, Keys.ControlC, Keys.ControlD, Keys.ControlQ, Keys.SIGINT):
        keys.add(key, eager=True)(cancel)
    keys.add(Keys.ControlA, eager=True)(toggle_shown)
    keys.add(Keys.ControlI, eager=True)(nothing)
    keys.add(Keys.BracketedPaste, eager=True)(filter_by)
    keys.add(Keys.Any)(filter_by)
