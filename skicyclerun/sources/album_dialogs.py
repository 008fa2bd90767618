"""The native dialogs of macOS: choose albums, choose a folder (`--dialogs`). They wait as long as the person does."""

from __future__ import annotations

from pathlib import Path

from skicyclerun.errors import Cancelled, SourceStopped
from skicyclerun.sources.osascript import Osascript, Trouble
from skicyclerun.sources.photos_app_answers import AnswerIncomplete, AnswerUnknown, is_id, records_of


async def choose_albums(osascript: Osascript) -> list[str]:
    """Ids of the albums picked in a multiple-choice dialog; empty where Photos has no albums.

    Raises Cancelled where the dialog was closed, SourceStopped where it could not be shown.
    """
    chosen = [record[0] for record in await _ask(osascript, "choose-albums")]
    if not all(map(is_id, chosen)):
        raise SourceStopped("The dialog returned something that is no id of an album.")
    return chosen


async def choose_folder(osascript: Osascript, prompt: str, start: Path | None = None) -> Path:
    """The folder picked in a dialog that begins at `start`. Raises Cancelled or SourceStopped."""
    words = [prompt] if start is None else [prompt, str(start)]
    records = await _ask(osascript, "choose-folder", *words)
    if len(records) != 1 or not (path := records[0][0]).startswith("/"):
        raise SourceStopped("The dialog returned something that is no folder.")
    return Path(path)


async def _ask(osascript: Osascript, verb: str, *words: str) -> list[list[str]]:
    outcome = await osascript.run(verb, *words, seconds=None)
    if not outcome.ok:
        if outcome.trouble is Trouble.CANCELLED:
            raise Cancelled("Cancelled. Nothing was touched.")
        next_step = ""
        if outcome.trouble is Trouble.DENIED:
            next_step = "Allow it in System Settings > Privacy & Security > Automation > your terminal > Photos."
        raise SourceStopped(f"The dialog could not be shown: {outcome.explanation}.", next_step=next_step)
    try:
        return records_of(outcome.output, verb)
    except (AnswerIncomplete, AnswerUnknown):
        raise SourceStopped("The dialog's answer is not what the script of this version gives.") from None
