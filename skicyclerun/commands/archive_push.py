"""`skicyclerun archive push`: copies archives to the second place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click

from skicyclerun.commands import exit_codes
from skicyclerun.commands.archive_places import alone, bytes_read, json_option, print_json, say_out_of_reach
from skicyclerun.commands.growing_line import growing_line
from skicyclerun.commands.options import place_options, settings_of
from skicyclerun.errors import NoState, RemoteError, StorageError, UsageError
from skicyclerun.run.shutdown import Shutdown, listen
from skicyclerun.settings.models import Settings
from skicyclerun.wording import bytes_in_words, printable

if TYPE_CHECKING:
    from skicyclerun.actors.archive_push import Pushed
    from skicyclerun.archive.remote import Remote
    from skicyclerun.state.archive_copies import CopyRow


@click.command("push", epilog=exit_codes.HELP)
@click.option("--new-place", is_flag=True, help="The folder is another one than before, and that is meant: a new disk.")
@place_options
@json_option
def push_command(*, new_place: bool, lib_root: Path | None, config_file: Path | None, json_wanted: bool) -> int:
    """Copy every proved archive to `cleanup.remote` that is not there yet; exit code 3 if some are still pending.

    Each is read back from there and compared. With `cleanup.keep_local: false` it is removed here after that.
    No run can begin meanwhile (it ends with exit code 11). Ctrl-C stops it: what is not copied goes on with the next
    run or push.
    """
    from skicyclerun.actors.archive_push import stays_here
    from skicyclerun.archive.open_remote import open_remote

    settings = settings_of(config_file, lib_root, only=("cleanup",), writes=True)
    remote = open_remote(settings.cleanup)
    if remote is None:
        raise UsageError("No second place for archives is named.", next_step="Set `cleanup.remote`.")
    anyio.run(_check_place, settings)
    line = growing_line(partial(bytes_read, f"Copying to {printable(remote.url)}"))
    with alone(settings, wanted=True), line as advance:
        pushed, elsewhere, stopped = anyio.run(_push, settings, remote, advance, new_place)
    if json_wanted:
        rows = [{"file": row.file, "name": row.name, "size": row.size, "sha256": row.sha256} for row in pushed.copied]
        waiting = [{"file": file, "reason": reason} for file, reason in pushed.waiting]
        ended = [{"file": file, "reason": reason} for file, reason in pushed.ended]
        not_there = [{"file": file, "reason": reason} for file, reason in pushed.not_there]
        told = {"remote": remote.url, "copied": rows, "removed_here": pushed.removed_here, "pending": waiting}
        told |= {"ended": ended, "kept_here_until_confirmed": pushed.kept_here}
        told |= {"not_there": not_there, "remarks": pushed.remarks, "unfinished_removal": pushed.unfinished_removal}
        print_json(told | {"only_in_other_places": [{"file": row.file, "remote": row.remote} for row in elsewhere]})
    else:
        for row in pushed.copied:
            called = "" if row.name == row.file else f" as {row.name}"
            size = bytes_in_words(row.size or 0)
            click.echo(f"{row.file}: copied to {printable(remote.url)}{called} ({size}), read back from there")
        for file in pushed.removed_here:
            click.echo(f"{file}: removed here")
        for remark in (*pushed.remarks, *filter(None, [pushed.unfinished_removal])):
            click.echo(printable(remark), err=True)
        for reason, files in _by_reason(pushed.waiting):
            click.echo(f"{', '.join(files)}: pending. {printable(reason)}")
        for file, reason in pushed.ended:
            click.echo(f"{file}: {printable(reason)}")
        for file, reason in pushed.not_there:
            click.echo(f"{file}: not there. {printable(reason)}")
        if pushed.kept_here:
            click.echo(printable(stays_here(remote.url, len(pushed.kept_here))), err=True)
        say_out_of_reach(elsewhere)
        if not (pushed.copied or pushed.waiting or pushed.not_there or elsewhere or stopped):
            click.echo(f"Every archive is in {printable(remote.url)}.", err=True)
    undone = pushed.waiting or pushed.not_there or pushed.unfinished_removal
    return stopped or (exit_codes.WITH_FAILURES if undone else exit_codes.OK)


def _by_reason(waiting: Sequence[tuple[str, str]]) -> Sequence[tuple[str, list[str]]]:
    """Each reason once, with the files that it holds back."""
    reasons: dict[str, list[str]] = {}
    for file, reason in waiting:
        reasons.setdefault(reason, []).append(file)
    return list(reasons.items())


async def _push(
    settings: Settings, remote: Remote, advance: Callable[[int, int], None] | None, new_place: bool
) -> tuple[Pushed, list[CopyRow], int | None]:
    """What came of it, what lies in places that are no longer configured alone, and the exit code of a signal that
    ended it early."""
    from skicyclerun.actors.archive_places import out_of_reach
    from skicyclerun.actors.archive_prune import finish_prunes
    from skicyclerun.actors.archive_push import ArchivePush, Pushed
    from skicyclerun.state.store import Store

    def said(event: object) -> None:
        return  # The command says it at its end.

    shown = None if advance is None else lambda _file, done, total: advance(done, total)
    shutdown = Shutdown()
    pushed = Pushed()
    elsewhere: list[CopyRow] = []
    async with await Store.open(settings.paths.state_db) as store, anyio.create_task_group() as listening:
        push = ArchivePush(
            store,
            remote,
            settings.paths.archive,
            keep_local=settings.cleanup.keep_local,
            new_place=new_place,
            stopping=lambda: shutdown.draining,
            say=said,
            advance=shown,
        )
        words = "Stopping. What is not copied stays pending; once more to stop at once."
        say = partial(click.echo, words, err=True)
        await listening.start(partial(listen, shutdown, listening.cancel_scope.cancel, lambda _: say()))
        not_there = await push.enter_all()
        finished, unfinished = [], ""
        try:
            finished = await finish_prunes(store, remote, settings.paths.archive)
        except (RemoteError, StorageError) as error:  # what is to be copied is copied all the same
            unfinished = f"{error} {error.next_step}".rstrip()
        pushed = await push.push()
        pushed.not_there, pushed.unfinished_removal = not_there, unfinished
        pushed.remarks[:0] = [f"{file}: its removal, which was stopped, is finished." for file in finished]
        elsewhere = await out_of_reach(store, settings.paths.archive, remote.url)
        listening.cancel_scope.cancel()
    return pushed, elsewhere, shutdown.exit_code


async def _check_place(settings: Settings) -> None:
    """Refuse what a run over the source of the newest one would refuse. Raises ConfigError."""
    from skicyclerun.settings.load import check_archive_place
    from skicyclerun.state import runs
    from skicyclerun.state.store import Store

    try:
        async with await Store.open_to_read(settings.paths.state_db) as store:
            latest = await runs.latest(store)
            check_archive_place(settings, latest.source_folder if latest is not None else None)
    except NoState:
        check_archive_place(settings, None)
