"""Asks what to do about a folder that a run needs and that is not simply made: connect, make, choose another."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import click

from skicyclerun.commands.choose_albums import dialog_program
from skicyclerun.errors import Cancelled
from skicyclerun.run.plan import RunRequest
from skicyclerun.settings.missing_folders import LIB_ROOT, MissingFolder, missing_folders
from skicyclerun.sources.album_dialogs import choose_folder
from skicyclerun.stages.registry import parse_stages
from skicyclerun.wording import printable

EXPORT_KEY: Final = "paths.apple_photos_export"

#: The request anew, with this lib_root (None: as it was) and these values over the configuration's.
Rebuild = Callable[[Path | None, Mapping[str, object]], RunRequest]


def with_folders_settled(request: RunRequest, rebuild: Rebuild, *, dialogs: bool) -> RunRequest:
    """The request once every folder it needs is there, may be made, or was replaced by another. Makes nothing.

    Asks on the terminal, or with native dialogs, as long as something is missing. Raises Cancelled; with dialogs
    FolderMissing for what no dialog can replace.
    """
    lib_root: Path | None = None
    overrides: dict[str, object] = {}
    allowed: set[Path] = set()
    while missing := missing_folders(
        request.settings, parse_stages(request.stages, request.settings.own_stages()), allowed
    ):
        each = missing[0]
        another = _chosen_in_dialog(each) if dialogs else _ask(each, allowed)
        if another is None:
            continue
        if each.key == LIB_ROOT:
            lib_root = another
        else:
            overrides[each.key] = another
        request = rebuild(lib_root, overrides)
        click.echo(_for_this_run(each, another, request), err=True)
    return replace(request, folders_to_make=frozenset(allowed))


def _ask(missing: MissingFolder, allowed: set[Path]) -> Path | None:
    """Another folder; None to look again, with the folder in `allowed` if it may be made. Raises Cancelled."""
    click.echo(printable(str(missing.error())), err=True)
    answers = ["again", "cancel"]
    if missing.key in (LIB_ROOT, EXPORT_KEY):
        answers.insert(1, "other")
    if not missing.is_disk:
        answers.insert(1, "make")
    words = {
        "again": "look again, once the disk is connected",
        "make": "make it",
        "other": "name another folder",
        "cancel": "stop here",
    }
    for each in answers:
        click.echo(f"  {each:<7} {words[each]}", err=True)
    answer = click.prompt("What now?", type=click.Choice(answers), default="cancel", err=True)
    if answer == "cancel":
        raise Cancelled("Cancelled. Nothing was touched.")
    if answer == "make":
        allowed.add(missing.folder)
    if answer != "other":
        return None
    named: str = click.prompt("Folder", err=True)
    return Path(named.strip()).expanduser().absolute()


def _chosen_in_dialog(missing: MissingFolder) -> Path:
    if missing.key not in (LIB_ROOT, EXPORT_KEY):
        raise missing.error()
    start = next((parent for parent in missing.folder.parents if parent.is_dir()), None)
    question = f"{missing.error()} Choose another folder:"
    return anyio.run(partial(choose_folder, dialog_program(), question, start))


def _for_this_run(missing: MissingFolder, another: Path, request: RunRequest) -> str:
    """How to have the other folder the next time too: --resume needs it as this run does."""
    if missing.key == LIB_ROOT:
        return f"For this run only. `export SKICYCLERUN_LIB_ROOT={shlex.quote(printable(str(another)))}` keeps it."
    return f"For this run only. To carry on with it later, write it into {request.settings.file} as {missing.key}."
