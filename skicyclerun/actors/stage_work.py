"""The pictures of one album of a stage, as `AlbumWork` does them: made in staging or where the recipe puts them, or
taken over from another row; hashed, published, and their rows committed. The same for the export is `album_export`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from skicyclerun.actors.album_work import not_writable, raise_for_disk, raise_if_written
from skicyclerun.actors.picture_batch import PictureBatch
from skicyclerun.actors.stage_plan import StageRun, extension_of
from skicyclerun.errors import PhotoError, PhotoTimedOut, PhotoTransient
from skicyclerun.files.album_folder import MTIME_TOLERANCE_NS, AlbumFolder, StagedFile
from skicyclerun.files.fault_points import fault_point
from skicyclerun.stages.stage import Made, Picture, Recipe
from skicyclerun.state import stage_pictures
from skicyclerun.state.stage_pictures import (
    PROVISIONAL,
    PictureFailed,
    PictureMade,
    PicturePlan,
    PictureStatus,
    StagePictureRow,
)
from skicyclerun.state.store import Store

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ToDo:
    """A planned picture with its row."""

    row_id: int
    plan: PicturePlan
    picture: Picture


def by_variant(plans: Sequence[PicturePlan]) -> list[PicturePlan]:
    """All pictures of one variant before those of the next: changing between them may be slow."""
    order = {variant: number for number, variant in enumerate(dict.fromkeys(plan.input.variant for plan in plans))}
    return sorted(plans, key=lambda plan: order[plan.input.variant])


def name_of(item: ToDo) -> str:
    """For people: the input, and which of several results of it."""
    name, variant = item.plan.input.file_name, item.plan.input.variant
    return f"{name} ({variant})" if variant and variant not in name else name


@dataclass(frozen=True, slots=True)
class _Done:
    """A picture that is made and not published yet."""

    item: ToDo
    made: PictureMade
    staged: StagedFile | None


_Outcome = _Done | PictureFailed


class StageWork:
    """What `AlbumWork` does with the pictures of one album of a stage."""

    def __init__(
        self,
        store: Store,
        stage: StageRun,
        album: str,
        folder: AlbumFolder | None,
        staging: Path | None,
        to_do: Sequence[ToDo],
        on_outcome: Callable[[ToDo, PictureMade | PictureFailed], None],
        on_commit: Callable[[int], Awaitable[None]],
        in_turn: Callable[[], Awaitable[None]],
    ) -> None:
        """`in_turn` returns when outcomes may be entered and told of."""
        self.to_do = to_do
        self._store = store
        self._stage = stage
        self._recipe: Recipe = stage.recipe
        self._album = album
        self._folder = folder
        self._staging = staging
        self._by_row = {item.row_id: item for item in to_do}
        self._on_outcome = on_outcome
        self._on_commit = on_commit
        self._in_turn = in_turn
        self._album_problem: PhotoError | None = None
        self._made_anew: frozenset[int] = frozenset()
        """Rows of an album that is done in one step, whose result of the same bytes is damaged or gone."""
        # A command outlives a run that was killed, and may still write to the name that it was given then.
        self._token = secrets.token_hex(4)

    async def prepare(self) -> None:
        """For a recipe that does an album at a time: its one step before the pictures. A failure is every picture's."""
        outputs = self._staging / f"album-{self._token}" if self._staging is not None else None
        if outputs is None or not self._recipe.by_album:
            return

        def make() -> None:
            # Looked at before: afterwards it is too late to ask the recipe for what cannot be taken over.
            donors = {item.row_id: item.plan.donor for item in self.to_do if item.plan.donor is not None}
            self._made_anew = frozenset(row_id for row_id, donor in donors.items() if not self._is_sound(donor))
            taken_over = donors.keys() - self._made_anew
            pictures = [item.picture for item in self.to_do if item.row_id not in taken_over]
            if not pictures:
                return
            shutil.rmtree(outputs, ignore_errors=True)
            outputs.mkdir()
            self._recipe.make_album(pictures, self._stage.input_folder / self._album, outputs)

        try:
            with anyio.fail_after(self._stage.limits.album_seconds):
                await self._in_thread(make, None)
        except TimeoutError:
            self._album_problem = PhotoTimedOut(
                f"it took longer than {self._stage.limits.album_seconds:g} s ({self._stage.limits.section}"
                ".timeouts.album)"
            )
        except PhotoError as error:
            log.warning("%s, album %s: %s", self._stage.stage.name, self._album, error)
            self._album_problem = error

    def name_of(self, item: ToDo) -> str:
        return f"{self._stage.stage.name}, {name_of(item)}"

    async def attempt(self, item: ToDo, number: int) -> _Outcome:
        if self._album_problem is not None:
            # Not transient: the whole album is asked for again, by `retry-failed`.
            raise PhotoError(str(self._album_problem))
        staged = self._staged(item, number)
        try:
            with anyio.fail_after(self._stage.limits.photo_seconds):
                outcome = await self._in_thread(partial(self._make, item, staged, number), staged)
        except TimeoutError:
            raise self._too_long() from None
        fault_point("stage.picture_made")
        return outcome

    @property
    def batch_photos(self) -> int:
        """Given to one thread at a time."""
        return 1 if self._album_problem is not None else self._recipe.in_a_row

    async def attempt_several(self, items: Sequence[ToDo]) -> Sequence[_Done | Exception | None]:
        """The first attempt at each, one after the other in one thread."""
        batch = PictureBatch(items, lambda item: self._make(item, self._staged(item, 1), 1))
        came = await batch.carry_out(
            self._stage.limits.photo_seconds,
            self._too_long(),
            lambda item: self._recipe.abandon(self._staged(item, 1)),
        )
        fault_point("stage.picture_made")
        return came

    def _staged(self, item: ToDo, number: int) -> Path | None:
        """Where the result of the `number`-th attempt goes; None where it makes no file."""
        if self._staging is None:
            return None
        extension = extension_of(self._recipe, item.plan.input.file_name) or ""
        return self._staging / f"{item.row_id}-{number}-{self._token}{extension}"

    def _too_long(self) -> PhotoError:
        limits = self._stage.limits
        error = PhotoTransient if self._recipe.over_a_line else PhotoTimedOut
        return error(f"it took longer than {limits.photo_seconds:g} s ({limits.section}.timeouts.photo)")

    async def _in_thread(self, work: Callable[[], _T], staged: Path | None) -> _T:
        """A thread cannot be stopped; what is given up is told so, and writes to a name nobody uses again."""
        finished = False
        try:
            result = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
            finished = True
            return result
        except Exception:
            finished = True
            raise
        finally:
            if not finished:
                self._recipe.abandon(staged)

    def _make(self, item: ToDo, staged: Path | None, number: int) -> _Done:
        """In a thread: take the result over from a row that has it already, or make it; then hash what was written."""
        began = time.monotonic()
        _check_unchanged(item)
        made = self._taken_over(item, staged) or self._recipe.make(item.picture, staged)
        size = sha256 = mtime_ns = None
        waiting = None
        if staged is not None:
            mtime_ns = item.plan.input.mtime_ns
            os.utime(staged, ns=(mtime_ns, mtime_ns))
            with staged.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                size = os.fstat(stream.fileno()).st_size
            waiting = StagedFile(staged, item.plan.file_name, sha256)
        result = PictureMade(
            row_id=item.row_id,
            attempts=number,
            seconds=round(time.monotonic() - began, 3),
            facts=made.facts,
            size=size if staged is not None else made.size,
            sha256=sha256,
            mtime_ns=mtime_ns,
            width=made.width,
            height=made.height,
            note=made.note,
            depends=PROVISIONAL + item.plan.depends if made.provisional else None,
        )
        return _Done(item, result, waiting)

    def _taken_over(self, item: ToDo, staged: Path | None) -> Made | None:
        """The result that another row has of the same bytes under the same settings; None where it cannot be had."""
        donor = item.plan.donor
        if donor is None or donor.status is not PictureStatus.DONE or item.row_id in self._made_anew:
            return None
        if staged is not None and not self._copied(donor, staged):
            if self._recipe.by_album:  # which was not asked for it, and may have made another album's file of its name
                raise PhotoError(f"its result in {donor.folder!r}, which was to be taken over, has just changed")
            return None
        return Made(donor.facts, donor.width, donor.height, donor.note)

    def _source_of(self, donor: StagePictureRow) -> Path | None:
        """The file of that row; None where something else lies there. Raises OSError."""
        assert self._stage.output_folder is not None
        source = self._stage.output_folder / donor.folder / donor.file_name
        # The copy of a link would be one, and what is done to it be done to another file.
        return source if stat.S_ISREG(source.lstat().st_mode) else None

    def _is_sound(self, donor: StagePictureRow) -> bool:
        try:
            source = self._source_of(donor)
            if source is None:
                return False
            with source.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest() == donor.sha256
        except OSError:
            return False

    def _copied(self, donor: StagePictureRow, staged: Path) -> bool:
        try:
            source = self._source_of(donor)
            if source is None:
                return False
            shutil.copyfile(source, staged, follow_symlinks=False)
            with staged.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == donor.sha256:
                    return True
        except OSError as error:
            self.raise_if_ours(error)
        staged.unlink(missing_ok=True)  # it was damaged, or is gone; the recipe makes it anew
        return False

    def failed(self, item: ToDo, error: Exception, reason: str, attempts: int) -> _Outcome:
        return PictureFailed(item.row_id, reason, attempts, item.plan.earlier_size)

    def raise_if_ours(self, error: OSError) -> None:
        if self._folder is not None and self._staging is not None:
            raise_if_written(error, self._folder.path, self._staging)

    async def settle(self, group: Sequence[_Outcome]) -> None:
        """Publish the group's files, make what the recipe keeps durable, then commit the rows."""
        staged = [outcome.staged for outcome in group if isinstance(outcome, _Done) and outcome.staged is not None]
        await self._in_turn()
        with anyio.CancelScope(shield=True):
            try:
                await anyio.to_thread.run_sync(self._recipe.settle)
                refused = (
                    await anyio.to_thread.run_sync(self._folder.publish, staged)
                    if staged and self._folder is not None
                    else []
                )
            except OSError as error:
                where = self._folder.path if self._folder is not None else Path(str(error.filename or "the disk"))
                raise_for_disk(error, where)
                raise not_writable(error, where) from error
            names = {each.file_name for each in refused}
            settled = [self._settled(outcome, names) for outcome in group]
            publication = self._stage.publication
            also = publication.entered if publication is not None else None
            await stage_pictures.commit_group(self._store, settled, also)
        for outcome in settled:
            self._on_outcome(self._by_row[outcome.row_id], outcome)
        made = sum(isinstance(outcome, PictureMade) for outcome in settled)
        await self._on_commit(made)

    def _settled(self, outcome: _Outcome, refused: set[str]) -> PictureMade | PictureFailed:
        if isinstance(outcome, PictureFailed):
            return outcome
        if outcome.staged is not None and outcome.staged.file_name in refused:
            return PictureFailed(
                outcome.item.row_id,
                f"the folder holds another file named {outcome.staged.file_name!r}, or it was changed since it was "
                "made; it was left alone. Move it away, then `skicyclerun retry-failed`.",
                outcome.made.attempts,
            )
        return outcome.made


def _check_unchanged(item: ToDo) -> None:
    """That the input is still the file its row speaks of. Raises PhotoError, and OSError where it is gone."""
    taken, found = item.plan.input, item.picture.path.lstat()
    changed = abs(found.st_mtime_ns - taken.mtime_ns) > MTIME_TOLERANCE_NS
    if not stat.S_ISREG(found.st_mode) or found.st_size != taken.size or changed:
        raise PhotoError(
            f"{taken.file_name} was changed since it was made, so that nothing is made of it; "
            "`skicyclerun verify --repair` puts it right"
        )
