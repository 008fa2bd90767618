"""Everything that can go wrong, as one tree. Each error carries what it is about and builds its own sentence.

    SkicyclerunError
    ├── UsageError                   what was typed or configured; nothing was touched
    │   ├── ConfigError              a value of the configuration (key, value, what would be right)
    │   │   ├── EnvironmentUnset     it refers to an environment variable that is not set
    │   │   └── PlaceholderCycle     it refers to itself, by way of others
    │   ├── StageError               a stage that is unknown or cannot be run
    │   ├── NoAlbumMatches           --album or --exclude matched nothing
    │   ├── AllExcluded              nothing is left of the albums
    │   ├── UnfinishedRun            a fresh run would wipe one that can be resumed
    │   └── EmptyingNotAgreed        a run would empty folders, and nobody has said yes to that
    ├── StagePaused                  a stage goes no further in this run; the others go on
    ├── BucketRefused                a bucket, or the CDN before it, cannot be used as things are
    ├── BucketUnreachable            before a run: a bucket does not answer, or not as it should
    ├── SourceError                  the library or the folder as a whole
    │   ├── LibraryError             it is not a library, cannot be read, or has an unknown schema
    │   └── SourceStopped            the source cannot go on (permission denied, too many failures in a row)
    ├── PhotoError                   one photo; it fails alone
    │   ├── OriginalMissing          the library does not hold its original
    │   ├── PhotoGone                the library no longer has it
    │   ├── PhotoUnreadable          its bytes are not a picture we can read
    │   ├── PhotoRefused             the source answers with an error that is this photo's, or means that nothing works
    │   ├── PhotoTimedOut            it took longer than the configuration allows
    │   ├── PhotoInterrupted         the run is to stop, and it was given up half done
    │   ├── KeyTaken                 its object's key has an object that was not there when the bucket was listed
    │   └── PhotoTransient           it may work the next time (a busy application)
    │       └── PhotoSlow            it took too long; tried again when the others of its album are done
    ├── StateError                   the state database
    │   ├── NoState                  there is none yet
    │   ├── StateTooNew              written by a newer version
    │   ├── StateDamaged             SQLite cannot read it
    │   │   └── StateForeign         it is a database of another program
    │   └── IllegalTransition        a step the state machine does not have
    ├── StorageError                 the disk
    │   ├── DiskFull
    │   ├── NotWritable
    │   ├── DiskFailed           an input or output error: the disk itself does not answer as it should
    │   ├── FolderMissing            a folder to write to is missing, and so is the one above it
    │   ├── AlbumFilesGone           all that was exported into an album's folder is gone at once
    │   └── OutsideFolder            a path that would leave the configured folders
    ├── ArchiveError                 an archive
    │   ├── ArchiveNotProved         reading back did not give what was written
    │   ├── ArchiveStopped           asked to stop before it was proved
    │   ├── ArchiveUnknown           no archive of that name
    │   ├── RemoteError              the place elsewhere: it refuses, is full, or holds something else
    │   │   ├── RemoteRefused        it cannot be used at all as things are: no bucket, no credentials, no library
    │   │   ├── RemoteFileGone       what was to be read there is no longer there
    │   │   ├── RemoteNameTaken      another's file lies at the name that an archive was to have there
    │   │   └── RemoteUnreachable    it does not answer, or its disk is not connected
    │   └── RestoreRefused           a member or a target that must not be written
    ├── LockHeld                     another run holds the lock
    ├── Cancelled                    the person said no; nothing was touched
    └── InternalFault                our own mistake; the traceback is in a log file

`str(error)` is a sentence for the person at the keyboard. `next_step`, where there is one, is what to type or do next.
The exit codes are given in `commands/exit_codes.py` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class SkicyclerunError(Exception):
    """Base of all; `str()` is a sentence, `next_step` what to do about it (empty where there is nothing to do)."""

    next_step: str = ""
    in_log: bool = False
    """A log file has it already."""

    def __init__(self, sentence: str, *, next_step: str = "") -> None:
        super().__init__(sentence)
        if next_step:
            self.next_step = next_step


# ── what was typed or configured ──────────────────────────────────────────────────────────────────────────────────


class UsageError(SkicyclerunError):
    """A wrong argument or combination of arguments."""


class ConfigError(UsageError):
    """A value of the configuration is wrong. `key` is its path (`export.timeouts.album`), empty for the whole file.

    `warnings` are the sentences of what else the configuration should be looked at for: they may be the cause.
    `log_file` is where a log would be kept all the same, a `Resolved.template`; empty where that cannot be said.
    """

    warnings: tuple[str, ...] = ()
    log_file: str = ""

    def __init__(self, problem: str, *, key: str = "", file: Path | None = None, next_step: str = "") -> None:
        self.key = key
        self.problem = problem
        self.file = file
        where = f"{file}: " if file else ""
        super().__init__(f"{where}{key + ': ' if key else ''}{problem}", next_step=next_step)


class EnvironmentUnset(ConfigError):
    """A value refers to an environment variable that is not set; `variable` is its name."""

    def __init__(self, variable: str, *, key: str, file: Path | None = None) -> None:
        self.variable = variable
        is_root = variable == "SKICYCLERUN_LIB_ROOT"
        super().__init__(
            f"the environment variable {variable} is not set",
            key=key,
            file=file,
            next_step="Type `export SKICYCLERUN_LIB_ROOT=/where/the/albums/go`, or name the folder with --lib-root."
            if is_root
            else f"Type `export {variable}=…`, or give a default in the configuration: `${{{variable}:default}}`.",
        )


class PlaceholderCycle(ConfigError):
    """A value refers to itself; `chain` are the keys on the way, the first again as the last."""

    def __init__(self, chain: Sequence[str], *, key: str, file: Path | None = None) -> None:
        self.chain = tuple(chain)
        super().__init__(f"refers to itself: {' → '.join(chain)}", key=key, file=file)


class ConfigErrors(ConfigError):
    """Several values are wrong; each has its own line."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(errors)
        SkicyclerunError.__init__(self, "\n".join(str(error) for error in errors))
        self.key, self.problem, self.file = errors[0].key, errors[0].problem, errors[0].file


class StageError(UsageError):
    """A stage that is unknown, or that cannot be run as things are: what it lacks, and what to type."""


class NoAlbumMatches(UsageError):
    """--album matched nothing; `nearest` are titles that come close. `excluded`: it was to be left out."""

    def __init__(self, wanted: str, nearest: Sequence[str], *, excluded: bool = False) -> None:
        self.wanted = wanted
        self.nearest = tuple(nearest)
        near = f" Nearest: {', '.join(repr(title) for title in nearest)}." if nearest else ""
        so = ", so it cannot be left out (--exclude, export.exclude). Nothing was touched" if excluded else ""
        super().__init__(
            f"No album matches {wanted!r}{so}.{near}", next_step="`skicyclerun albums` lists what the source offers."
        )


class AllExcluded(UsageError):
    """Every album that was asked for is left out by --exclude."""

    def __init__(self, wanted: Sequence[str], exclude: Sequence[str]) -> None:
        named = f" that matches {', '.join(repr(each) for each in wanted)}" if wanted else ""
        out = ", ".join(repr(each) for each in exclude)
        super().__init__(
            f"Every album{named} is left out by --exclude or export.exclude ({out}). Nothing was touched.",
            next_step="`skicyclerun albums` lists what the source offers.",
        )


class StagePaused(SkicyclerunError):
    """A stage goes no further in this run; what it has not done stays pending.

    `because`: the stage and the reason alone, for where the sentence's advice stands already (`status`).
    """

    def __init__(self, sentence: str, *, because: str = "") -> None:
        super().__init__(sentence)
        self.because = (because or sentence).removesuffix(".")


class BucketRefused(SkicyclerunError):
    """The service answers, and does not let us: credentials, permissions, no such bucket. Trying again is no help."""


class BucketUnreachable(SkicyclerunError):
    """Before a run: the service does not answer, or not as it should. Later it may."""


class UnfinishedRun(UsageError):
    """A fresh run was asked for while an earlier one is unfinished; nothing is ever wiped silently."""

    def __init__(self, run_id: int, remaining_albums: int) -> None:
        self.run_id = run_id
        self.remaining_albums = remaining_albums
        to_do = f"{remaining_albums} album{'s' if remaining_albums != 1 else ''} still to do"
        super().__init__(
            f"Run {run_id} is unfinished{': ' + to_do if remaining_albums else ''}. Nothing was touched.",
            next_step="`skicyclerun run --resume` carries on with it; "
            "`skicyclerun run --fresh` gives it up and starts anew (with `--yes` where nobody can be asked).",
        )


class EmptyingNotAgreed(UsageError):
    """A run would archive old outputs and empty their folders, and nobody has said yes to that.

    `what` says in a sentence what would be archived and where; `folders` are those that would be emptied, a line each.
    """

    def __init__(self, what: str, folders: Sequence[str], *, next_step: str = "") -> None:
        self.what, self.folders = what, tuple(folders)
        lines = "".join(f"\n    {folder}" for folder in folders)
        super().__init__(
            f"This run would empty folders, and nobody has said yes to that. Nothing was touched. It would do this: "
            f"{what}{lines}",
            next_step=next_step,
        )


# ── the source ────────────────────────────────────────────────────────────────────────────────────────────────────


class SourceError(SkicyclerunError):
    """The source as a whole; no photo can be fetched from it."""


class LibraryError(SourceError):
    """The named library is not one, cannot be read, or has a schema nobody here knows."""

    def __init__(self, library: Path | str, problem: str, *, next_step: str = "") -> None:
        self.library = str(library)
        super().__init__(f"{library}: {problem}", next_step=next_step)


class SourceStopped(SourceError):
    """The source cannot go on in this run; what was exported is kept and what is left stays pending.

    `remedy` is what the person has to do, as a sentence, before the work can be carried on with.
    """

    def __init__(self, sentence: str, *, next_step: str = "", remedy: str = "") -> None:
        self.remedy = remedy
        super().__init__(
            sentence, next_step=next_step or (f"{remedy} Then `skicyclerun run --resume`." if remedy else "")
        )

    def before_anything_began(self, command: str) -> None:
        """It was met before there was a run to resume: the next step is to type `command` again.

        An empty command: it was not typed, a program asked for it.
        """
        if self.remedy:
            self.next_step = f"{self.remedy} Then `{command}`." if command else f"{self.remedy} Then ask for it again."


class PhotoError(SkicyclerunError):
    """One photo cannot be exported; the rest of its album goes on. `str()` is the reason shown by `status`."""

    if_every: SourceStopped | None = None
    """What it means where no photo has worked and every one of the album fails so; None: nothing more."""


class OriginalMissing(PhotoError):
    """The library knows the photo but does not hold its original (iCloud)."""


class PhotoGone(PhotoError):
    """The photo was in the album when it was listed and is no longer in the library."""


class PhotoUnreadable(PhotoError):
    """The bytes are empty, truncated, too large, or no picture at all."""


class PhotoRefused(PhotoError):
    """The source answers this photo with an error that may be the photo's own; `if_every` says what it is otherwise."""


class PhotoTimedOut(PhotoError):
    """It took longer than its stage's `timeouts.photo`."""


class PhotoInterrupted(PhotoError):
    """The run is to stop, and what takes minutes was given up on the way; it is left to the resume, not failed."""


class KeyTaken(PhotoError):
    """An object was to be sent under a new key, and the bucket has one there by now."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is taken by an object that came to be since the bucket was listed; it was left alone")


class PhotoTransient(PhotoError):
    """May work the next time: retried with back-off before the photo is called failed."""

    had_company = False
    """Others were under way over the same line."""


class PhotoSlow(PhotoTransient):
    """It took longer than it was given, perhaps because its original is being fetched from afar.

    It is put off until the others of its album are done, and then tried again.
    """


# ── the state ─────────────────────────────────────────────────────────────────────────────────────────────────────


class StateError(SkicyclerunError):
    """The state database."""


class NoState(StateError):
    """There is no state database yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"Nothing has been exported yet: there is no state at {path}.",
            next_step="`skicyclerun run` starts the first export. If there was one and its state was lost, "
            "`skicyclerun rebuild-state` makes it anew.",
        )


class StateTooNew(StateError):
    """The database was written by a newer version; it is left as it is."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        self.path, self.found, self.known = path, found, known
        super().__init__(
            f"{path} was written by a newer skicyclerun (schema {found}; this one knows {known}). "
            "It was left as it is.",
            next_step="Upgrade skicyclerun, or name another --lib-root.",
        )


class StateDamaged(StateError):
    """SQLite cannot read the database. `kept_as` is where it was set aside, None if it stands where it was."""

    def __init__(self, path: Path, problem: str, kept_as: Path | None = None) -> None:
        self.path, self.problem, self.kept_as = path, problem, kept_as
        kept = f" It was kept as {kept_as}." if kept_as else " It was left as it is."
        super().__init__(
            f"The state database {path} is damaged ({problem}).{kept}",
            next_step="`skicyclerun rebuild-state` makes a new one from the exported files and master.json.",
        )


class StateForeign(StateDamaged):
    """An SQLite database, and not one of ours; never set aside, for it may be another program's treasure."""

    def __init__(self, path: Path) -> None:
        self.path, self.problem, self.kept_as = path, "it is an SQLite database of another program", None
        StateError.__init__(
            self,
            f"{path} is an SQLite database of another program. It was left as it is.",
            next_step="Name another file in `paths.state_db`. If it was the state once and is damaged: "
            "`skicyclerun rebuild-state --force` keeps it under another name and makes a new one.",
        )


class IllegalTransition(StateError):
    """A step the state machine does not have, or one whose starting state the database no longer holds."""


# ── the disk ──────────────────────────────────────────────────────────────────────────────────────────────────────


class StorageError(SkicyclerunError):
    """A folder or a disk that cannot be written."""


class DiskFull(StorageError):
    """No space left. `path` is what was being written."""


class NotWritable(StorageError):
    """Read-only, or permission denied."""


class DiskFailed(StorageError):
    """The disk did not do what it was asked; says nothing of what is on it."""


class FolderMissing(StorageError):
    """A folder to write to is missing, and so is what would hold it: most often a disk that is not connected."""

    def __init__(self, key: str, folder: Path, problem: str, *, next_step: str = "") -> None:
        self.key, self.folder, self.problem = key, folder, problem
        super().__init__(f"{folder} ({key}) is not there: {problem}. Nothing was touched.", next_step=next_step)


class AlbumFilesGone(StorageError):
    """Of what was exported into an album's folder nothing is there, which somebody may have meant, or not."""

    def __init__(self, folder: Path, files: int) -> None:
        self.folder, self.files = folder, files
        super().__init__(
            f"none of the {files} files exported into {folder} is there. That may be a disk that is not connected, so "
            "nothing was left out (export.removed_files) and nothing exported.",
            next_step="Connect it, then `skicyclerun retry-failed`; or `skicyclerun run --update --include-removed` "
            "exports them again.",
        )


class OutsideFolder(StorageError):
    """A path that would leave the configured folders, by `..`, an absolute name or a symbolic link."""

    def __init__(self, path: Path | str, folder: Path | str) -> None:
        self.path, self.folder = str(path), str(folder)
        super().__init__(f"{path} would leave {folder}; it was not touched.")


# ── archives ──────────────────────────────────────────────────────────────────────────────────────────────────────


class ArchiveError(SkicyclerunError):
    """An archive could not be written, read or restored; the outputs it is about are still in their folders."""


class ArchiveNotProved(ArchiveError):
    """Reading the archive back did not give what was written."""


class ArchiveStopped(ArchiveError):
    """Asked to stop before the archive was proved; the unfinished one is removed, the folders are untouched."""


class ArchiveUnknown(ArchiveError):
    """There is no archive of that name."""


class RemoteError(ArchiveError):
    """The place that archives are copied to (`cleanup.remote`): it refuses, is full, or holds something else."""


class RemoteRefused(RemoteError):
    """It cannot be used at all as things are, for this archive or another: asking for the next one is no use."""


class RemoteFileGone(RemoteError):
    """What was to be read there is no longer there: another machine may have removed it."""


class RemoteNameTaken(RemoteError):
    """Another's file lies at the name that an archive was to have there; it was left."""

    def __init__(self, name: str, remote: str) -> None:
        self.name, self.remote = name, remote
        super().__init__(f"Another file lies at {name} in {remote}, and was left as it is.")


class RemoteUnreachable(RemoteError):
    """It does not answer, or its disk is not connected; what was to be copied there stays pending."""

    def __init__(self, remote: str, problem: str) -> None:
        self.remote, self.problem = remote, problem
        super().__init__(
            f"{remote} cannot be reached: {problem}.",
            next_step="`skicyclerun archive push` copies what is pending once it is there.",
        )


class RestoreRefused(ArchiveError):
    """A member or a target that must not be written (outside the target, or there already)."""


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────────


class LockHeld(SkicyclerunError):
    """Another run works in this lib_root. `holder` says who, as far as it is known."""

    def __init__(self, lib_root: Path, holder: str) -> None:
        self.lib_root, self.holder = lib_root, holder
        wait = "Wait for it, or look with `skicyclerun status`."
        if "archive push" in holder:
            wait = (
                "It copies archives to the second place. Wait for it, or stop it with Ctrl-C: what is not copied then "
                "goes on with the next run."
            )
        super().__init__(f"Another skicyclerun works in {lib_root}: {holder}.", next_step=wait)


class Cancelled(SkicyclerunError):
    """The person said no, or closed the dialog. Nothing was touched."""


class InternalFault(SkicyclerunError):
    """Our own mistake. `details` is the file that holds the traceback, empty where none could be written."""

    def __init__(self, error: BaseException, details: Path | str) -> None:
        self.details = str(details)
        super().__init__(
            f"a fault in skicyclerun itself: {type(error).__name__}: {error}",
            next_step=f"What was exported before is kept. The details are in {details}." if details else "",
        )
