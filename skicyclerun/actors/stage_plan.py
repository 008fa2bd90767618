"""What a stage has to do with an album: for each picture whether its result is up to date, and if not, why not.

Decided anew at every start from rows, from what the stage before has, and from the files that are there. So a run that
was killed needs nothing but this to go on, and `--dry-run` says what a run would do.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
import orjson

from skicyclerun.actors.album_work import WorkLimits
from skicyclerun.catalog.entries import merged_facts
from skicyclerun.errors import OutsideFolder
from skicyclerun.files.album_folder import MTIME_TOLERANCE_NS
from skicyclerun.files.naming import TakenNames
from skicyclerun.stages.stage import INPUT_EXTENSION, ForNow, Picture, Recipe, Stage
from skicyclerun.state import stage_pictures
from skicyclerun.state.stage_pictures import (
    PROVISIONAL,
    ExportedFactsText,
    PictureMade,
    PicturePlan,
    PictureStatus,
    StageInput,
    StagePictureRow,
    Why,
)
from skicyclerun.state.store import Store, Transaction


class Publication(Protocol):
    """What a stage keeps whose results lie elsewhere: rows of its own, and what goes with an album as a whole.

    Raises StagePaused where it can go no further now.
    """

    async def begin(self, store: Store) -> None:
        """Before anything is planned; reads only, and only the first time."""
        ...

    async def is_unchanged(self, store: Store, folder: str, title: str) -> bool:
        """Whether an album is as it was when all of it was there, so that nothing has to be planned. Reads only."""
        ...

    def waits_for_before(self, plans: Sequence[PicturePlan]) -> bool:
        """Whether what is to be done of an album turns out otherwise while the album before it has not ended."""
        ...

    async def claim(self, store: Store, folder: str, plans: Sequence[PicturePlan]) -> None:
        """After an album was planned, before anything of it is done."""
        ...

    async def entered(self, transaction: Transaction, made: Sequence[PictureMade]) -> None:
        """In the transaction that enters these results."""
        ...

    async def album_done(self, store: Store, folder: str, title: str, *, complete: bool) -> None:
        """Each time an album has been gone through, also where nothing was to be done."""
        ...

    async def finish(self, store: Store, stopped: Callable[[], bool]) -> None:
        """When all albums have been gone through. `stopped`: nobody waits any longer."""
        ...


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage as one run carries it out."""

    stage: Stage
    recipe: Recipe
    limits: WorkLimits
    export_folder: Path
    input_folder: Path
    """The folder whose album folders it reads."""
    output_folder: Path | None
    """The folder of its album folders; None for a stage that makes facts only."""
    upstreams: tuple[tuple[str, ...], ...] = (("export",),)
    """For each stage that it reads: that stage, the one that reads, and so on up to the export."""
    expected: frozenset[str] = frozenset()
    """Of several stages that it reads, those that owe it every photo; of the others it takes what there is."""
    facts_from: tuple[str, ...] = ()
    """The stages before it whose facts it sees, in order."""
    sharing: tuple[str, ...] = ()
    """The other stages whose files lie in the same folder."""
    publication: Publication | None = None


@dataclass(frozen=True, slots=True)
class AlbumPlan:
    """What is to be done with one album."""

    plans: tuple[PicturePlan, ...]
    pictures: Mapping[tuple[str, str], Picture]
    """By (input file, variant), for those that are to be done."""
    departed: tuple[int, ...]
    """Rows whose input is no longer there, or whose file has another name now."""
    waiting: int
    """Pictures that the stage before owes."""

    @property
    def to_do(self) -> list[PicturePlan]:
        return [plan for plan in self.plans if plan.to_do]


@dataclass(frozen=True, slots=True)
class StageAhead:
    """What a run of a stage would do: pictures by why, over all albums."""

    stage: str
    counts: Mapping[Why, int]
    waiting: int
    """Pictures that the stage before owes and does not make in the same run."""


async def plan_album(store: Store, run: StageRun, folder: str) -> AlbumPlan:
    """Read and compare; nothing is written. Raises OutsideFolder, OSError, PhotoError of a recipe's `depends_on`."""
    if run.publication is not None:
        await run.publication.begin(store)
    exported = await stage_pictures.exported_inputs(store, folder)
    # An earlier version that is still there is taken, whatever became of the new one.
    owed = await stage_pictures.owed_by_export(store, folder) - {taken.photo for taken, _ in exported}
    inputs = [taken for taken, _ in exported]
    if run.upstreams != (("export",),):
        inputs = []
        exported_pictures = {taken.photo for taken, _ in exported if not taken.is_movie}
        for upstream in run.upstreams:
            made, left_out = await stage_pictures.stage_inputs(store, upstream, folder)
            inputs += made
            if len(run.upstreams) > 1 and not made and upstream[0] not in run.expected:
                continue  # It has done nothing of this album.
            come = {each.photo for each in made} | left_out
            owed |= exported_pictures - come
            # One variant of several may be owed, while the others have come.
            owed |= exported_pictures & await stage_pictures.owed_by_stage(store, upstream[0], folder)
    found: Mapping[str, Mapping[str, Mapping[str, Any]]] = {}
    if run.facts_from and run.recipe.needs_facts:
        found = await stage_pictures.facts_of_folder(store, folder, run.facts_from)
    rows = await stage_pictures.of_folder(store, run.stage.name, folder)
    held: list[str] = []
    if run.output_folder is not None:
        held = await stage_pictures.names_held(store, (run.stage.name, *run.sharing), folder)
    facts = {taken.photo: known for taken, known in exported}

    def facts_of(photo: str) -> Mapping[str, Any]:
        return _merged(run, photo, facts, found) if run.recipe.needs_facts else {}

    def compare() -> tuple[list[PicturePlan], dict[tuple[str, str], Picture], list[int]]:
        return _compared(run, folder, inputs, rows, held, facts_of, owed)

    plans, pictures, departed = await anyio.to_thread.run_sync(compare)
    hashes = [plan.input.sha256 for plan in plans if plan.why is Why.NEW]
    donors = await stage_pictures.with_inputs(store, run.stage.name, hashes) if run.recipe.takes_over else {}
    if donors:
        plans = [_with_donor(plan, donors) for plan in plans]
    return AlbumPlan(tuple(plans), pictures, tuple(departed), len(owed))


async def facts_of_pictures(store: Store, run: StageRun, folder: str) -> dict[str, Mapping[str, Any]]:
    """What the catalog says of the photos of a folder, as far as stages before this one found it, by exported file."""
    exported = {taken.photo: known for taken, known in await stage_pictures.exported_inputs(store, folder)}
    found = await stage_pictures.facts_of_folder(store, folder, run.facts_from)
    return {photo: _merged(run, photo, exported, found) for photo in exported}


def _merged(
    run: StageRun,
    photo: str,
    exported: Mapping[str, ExportedFactsText],
    found: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Any]:
    """What the catalog says of a photo, as far as stages before this one found it; the later one's word counts."""
    return merged_facts(
        entry_facts(photo, exported[photo].parsed() if photo in exported else {}),
        [found.get(photo, {}).get(stage, {}) for stage in run.facts_from],
    )


def entry_facts(file_name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of an exported photo's row, with the keys of its catalog entry."""
    facts = {
        key: known[key]
        for key in ("title", "description", "keywords", "persons", "date_taken", "date_taken_utc", "album_title")
        if key in known
    }
    if place := known.get("location"):
        names = ("lat", "lon", "altitude", "heading")
        facts["gps"] = {name: value for name, value in zip(names, place, strict=False) if value is not None}
    return facts | {"file_name": file_name}


def _compared(
    run: StageRun,
    folder: str,
    inputs: Sequence[StageInput],
    rows: Sequence[StagePictureRow],
    held: Sequence[str],
    facts_of: Callable[[str], Mapping[str, Any]],
    owed: Collection[str],
) -> tuple[list[PicturePlan], dict[tuple[str, str], Picture], list[int]]:
    """The plans in the order of the inputs, the pictures to be done, and the rows whose input has left.

    An input of which the recipe makes several variants has a plan for each.

    `held`: names that rows have, of this stage or another that writes there. `owed`: photos that are there and have not
    come, because a stage before this one failed: what was made of an earlier version stays until there is a new one.
    """
    stage, recipe = run.stage, run.recipe
    by_key = {(row.input, row.variant): row for row in rows}
    found = _files(run.output_folder / folder) if run.output_folder is not None else {}
    there = {name: size for name, (size, _) in found.items()}
    album = run.input_folder / folder
    inputs = [each for given in inputs for each in _variants_of(recipe, given, album)]
    come = {(each.file_name, each.variant) for each in inputs}
    departed = [row.id for key, row in by_key.items() if key not in come and row.photo not in owed]
    names = TakenNames((*there, *held))
    plans: list[PicturePlan] = []
    pictures: dict[tuple[str, str], Picture] = {}
    for each in inputs:
        key = (each.file_name, each.variant)
        row = by_key.get(key)
        picture = Picture(album / each.file_name, each.sha256, facts_of(each.photo), each.variant)
        if each.is_movie:
            depends, left_out = "", "a movie"
        else:
            depends, left_out = digest_of(stage.version, recipe.depends_on(picture)), ""
        extension = extension_of(recipe, each.file_name)
        nameless = row is not None and row.status is PictureStatus.LEFT_OUT and not row.file_name
        renamed = row is not None and extension is not None and not row.file_name.lower().endswith(extension)
        if row is not None and renamed and not nameless:
            departed.append(row.id)
            row = None
        current = depends
        if row is not None and row.depends == PROVISIONAL + depends and not recipe.would_help(picture):
            current = row.depends  # what was missing when it was made is missing still
        why = _why(row, each, current, there, makes_file=extension is not None)
        if why is Why.UP_TO_DATE and extension is None and not each.is_movie and not recipe.is_there(picture):
            why = Why.OUTPUT_GONE
        if why is not Why.UP_TO_DATE:
            left_out = left_out or recipe.left_out(picture)
        kept = False
        if left_out:
            why = Why.LEFT_OUT
            # What it made before stays where this run alone leaves it out; facts only while they are of these bytes.
            if row is not None and row.status is PictureStatus.DONE and row.present and isinstance(left_out, ForNow):
                kept = bool(row.file_name) or row.input_sha256 == each.sha256
            if row is not None and row.present and row.file_name and not kept:
                departed.append(row.id)  # What it made of an earlier version is nothing that is asked for now.
                row = None
        name = row.file_name if row is not None else ""
        if not name and extension is not None and not left_out:
            name = names.claim(recipe.stem(picture), (extension,)) + extension
        elif row is None and left_out:
            name = ""
        claimed = row is None or row.size is None or _is_as_made(row, found.get(name))
        row_id, position = (row.id, row.position) if row is not None else (None, 0)
        earlier = row.size if row is not None and row.present and claimed and name in found else None
        unchanged = kept or (
            bool(left_out) and row is not None and _is_left_out_as_before(row, each, depends, left_out)
        )
        plans.append(PicturePlan(each, depends, name, why, left_out, row_id, position, claimed, earlier, unchanged))
        if plans[-1].to_do:
            pictures[key] = picture
    return plans, pictures, departed


def _variants_of(recipe: Recipe, given: StageInput, album: Path) -> list[StageInput]:
    if given.is_movie:
        return [given]
    picture = Picture(album / given.file_name, given.sha256, variant=given.variant)
    return [replace(given, variant=variant) for variant in recipe.variants(picture)]


def _why(
    row: StagePictureRow | None, taken: StageInput, depends: str, there: Mapping[str, int], *, makes_file: bool
) -> Why:
    if row is None or row.status is PictureStatus.LEFT_OUT:
        return Why.NEW
    if row.input_sha256 != taken.sha256:
        return Why.INPUT_CHANGED
    if row.depends != depends:
        return Why.SETTING_CHANGED
    if row.status is not PictureStatus.DONE:
        return Why.UNFINISHED
    if makes_file and (not row.present or there.get(row.file_name) != row.size):
        return Why.OUTPUT_GONE
    return Why.UP_TO_DATE


def _is_left_out_as_before(row: StagePictureRow, taken: StageInput, depends: str, reason: str) -> bool:
    said = (row.status, row.reason, row.input_sha256, row.depends)
    return said == (PictureStatus.LEFT_OUT, reason, taken.sha256, depends)


def _with_donor(plan: PicturePlan, donors: Mapping[tuple[str, str, str], StagePictureRow]) -> PicturePlan:
    donor = donors.get((plan.input.sha256, plan.input.variant, plan.depends))
    if plan.why is not Why.NEW or donor is None or donor.id == plan.row_id:
        return plan
    return replace(plan, donor=donor)


def _is_as_made(row: StagePictureRow, found: tuple[int, int] | None) -> bool:
    """Whether the file, if there is one, has the size and the time that it was given when it was made."""
    if found is None:
        return True
    size, mtime_ns = found
    return size == row.size and abs(mtime_ns - (row.mtime_ns or 0)) <= MTIME_TOLERANCE_NS


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Name → size and time of the files in an album's folder; empty where there is none. Raises OutsideFolder, OSError.

    A link or a file in the folder's place is refused, never followed.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutsideFolder(folder, folder.parent)
    return dict(_entries(folder))


def _entries(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # What is no file is there all the same, and its name is taken.
                status = entry.stat(follow_symlinks=False)
                is_file = entry.is_file(follow_symlinks=False)
                yield entry.name, (status.st_size if is_file else -1, status.st_mtime_ns)
    except FileNotFoundError:
        return


def digest_of(version: int, depends: Mapping[str, object]) -> str:
    """SHA-256 of all that a result depends on besides its input."""
    return hashlib.sha256(orjson.dumps([version, depends], option=orjson.OPT_SORT_KEYS)).hexdigest()


def extension_of(recipe: Recipe, file_name: str) -> str | None:
    """Of the file that a recipe makes of this input; None where it makes facts only."""
    if recipe.extension == INPUT_EXTENSION:
        stem, dot, suffix = file_name.rpartition(".")
        return f".{suffix.lower()}" if stem and dot else ""
    return recipe.extension
