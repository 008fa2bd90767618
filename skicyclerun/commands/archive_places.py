"""Both places as the commands about archives see them: looked at, locked, spoken of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import anyio
import click

from skicyclerun.errors import NoState, StateError
from skicyclerun.run.lock import RunLock
from skicyclerun.settings.models import Settings
from skicyclerun.wording import bytes_in_words, counted, printable

if TYPE_CHECKING:
    from skicyclerun.actors.archive_places import Places
    from skicyclerun.state.archive_copies import CopyRow

json_option = click.option("--json", "json_wanted", is_flag=True, help="For other programs.")


def both_places(settings: Settings) -> Places:
    """Both places, and what our database knows of them and of others, where there is a database."""
    from skicyclerun.actors.archive_places import look_around
    from skicyclerun.archive.open_remote import open_remote
    from skicyclerun.state.store import Store

    async def look() -> Places:
        remote = open_remote(settings.cleanup)
        try:
            async with await Store.open_to_read(settings.paths.state_db) as store:
                return await look_around(settings, store, remote)
        except NoState:
            pass
        except StateError as error:  # what lies where can be told without it, and then all the more
            click.echo(f"{printable(str(error))} Which copies are ours is not known.", err=True)
        return await look_around(settings, None, remote)

    places = anyio.run(look)
    if places.problem is not None:
        click.echo(f"{printable(str(places.problem))} What is said of it is what the database knows.", err=True)
    return places


def say_out_of_reach(rows: Iterable[CopyRow]) -> None:
    """One line for each place that is no longer the configured one and holds archives that lie nowhere else."""
    by_place: dict[str, list[str]] = {}
    for row in rows:
        by_place.setdefault(row.remote, []).append(row.file)
    for remote, names in by_place.items():
        lie = "lies" if len(names) == 1 else "lie"
        click.echo(
            f"{counted(len(names), 'archive')} {lie} only in {printable(remote)}, which is not `cleanup.remote` now "
            f"({', '.join(names[:3])}{' …' if len(names) > 3 else ''}). To reach them, {set_back(remote)}.",
            err=True,
        )


@contextmanager
def alone(settings: Settings, *, wanted: bool) -> Iterator[None]:
    """Hold the run lock, so that no run archives or cleans meanwhile."""
    if not wanted:
        yield
        return
    with RunLock(settings.lib_root, settings.paths.state_db.parent / "run.lock"):
        yield


def bytes_read(doing: str, done: int, total: int) -> str:
    return f"{doing}: {100 * done // total if total else 100:3d} % of {bytes_in_words(total)} "


def local(moment: str) -> str:
    """ISO 8601 → local date and minute, for people."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def print_json(document: object) -> None:
    # Names on disk may be no UTF-8; ASCII escapes carry them, `surrogateescape` and all.
    click.echo(json.dumps(document, indent=2, default=str))


def set_back(remote: str, *, capital: bool = False) -> str:
    return f"{'S' if capital else 's'}et `cleanup.remote` to {printable(remote)} again"
