"""The registry of styles (`lora_registry.json`): which LoRA weights and words make one, and where the weights are.

The file comes from anywhere. It names weights, and weights are read as safetensors only, a format that holds numbers
and no code (https://huggingface.co/docs/safetensors); a style's name becomes part of file names.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from skicyclerun.errors import StageError
from skicyclerun.files.naming import collision_key, folder_name
from skicyclerun.wording import nearest

#: The style of the picture as it is, without a model.
NO_LORA: Final = "NoLoRA"

_MOST_BYTES: Final = 4_000_000
_MAX_NAME: Final = 60
_HUB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def _place(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 4096 or "\0" in value:
        raise ValueError("must be a repository (owner/name) or a folder")
    return value


def _weights(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 1024 or "\0" in value:
        raise ValueError("must be the name of a file")
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value:
        raise ValueError(f"must be a file inside `path`, not {value!r:.80}")
    if path.suffix != ".safetensors":
        raise ValueError(f"must be a .safetensors file (others may hold code), not {value!r:.80}")
    return value


class Style(BaseModel):
    """One entry. Keys that are not known here (`description`, …) are left alone."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    path: Annotated[str, BeforeValidator(_place)]
    """A repository of the hub (`owner/name`), a folder, or a file; relative ones begin at the registry's folder."""
    weights: Annotated[str, BeforeValidator(_weights)]
    """The file in it."""
    prompt: Annotated[str, Field(min_length=1, max_length=10_000)]
    negative_prompt: Annotated[str, Field(max_length=10_000)] = ""
    lora_scale: float = Field(default=1.0, ge=-10, le=10, allow_inf_nan=False)
    """How strongly the style changes the image model."""
    text_encoder_scale: float = Field(default=1.0, ge=-10, le=10, allow_inf_nan=False)
    """The same of the text encoder, where the weights have a part for it."""


@dataclass(frozen=True, slots=True)
class Hub:
    """Where files of the Hugging Face hub are kept here, and whether others may be fetched."""

    cache_dir: Path
    local_files_only: bool

    def file(self, repository: str, name: str, revision: str = "main") -> Path | None:
        """The file in the cache, fetched first where that is allowed; None where it is not to be had.

        Raises StageError with what the hub said.
        """
        import huggingface_hub

        found = huggingface_hub.try_to_load_from_cache(repository, name, cache_dir=self.cache_dir, revision=revision)
        if isinstance(found, str):
            return Path(found)
        if self.local_files_only:
            return None
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision, cache_dir=self.cache_dir))
        except Exception as error:  # the client raises what its HTTP library does, among others
            said = " ".join(str(error).split())[:300]
            raise StageError(
                f"{name} of {repository} could not be fetched from the hub: {said or type(error).__name__}.",
                next_step="A model that asks for a licence wants it accepted on its page, and then `hf auth login`.",
            ) from error


def read_registry(file: Path, wanted: Iterable[str]) -> dict[str, Style]:
    """The styles `wanted`, in their order, without `NoLoRA`, which needs no entry.

    Raises StageError that names everything that is wrong with the file or with one of them.
    """
    wanted = list(dict.fromkeys(wanted))
    problems = _wrong_names(wanted)
    entries = _entries(file) if set(wanted) - {NO_LORA} else {}
    styles: dict[str, Style] = {}
    for name in wanted:
        if name == NO_LORA:
            continue
        if name not in entries:
            problems.append(f"{name!r} is not in it.{nearest(name, entries)}")
            continue
        try:
            styles[name] = Style.model_validate(entries[name])
        except ValidationError as error:
            problems += [f"{name!r}: {_in_words(each)}" for each in error.errors()]
    if problems:
        raise StageError(
            f"The registry of styles {file}: {' '.join(_sentence(problem) for problem in problems)}",
            next_step="Correct it, or take the style out of lora_processing.loras_to_process.",
        )
    return styles


def _entries(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise StageError(
            f"The registry of styles {file} cannot be read: {error.strerror or error}.",
            next_step="Name it in lora_processing.registry_path; a relative one begins at the folder of the "
            "configuration file.",
        ) from error
    if len(data) > _MOST_BYTES:
        raise StageError(f"The registry of styles {file} is larger than {_MOST_BYTES} bytes; that cannot be one.")
    try:
        entries = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise StageError(f"The registry of styles {file} is not JSON: {error}.") from error
    if not isinstance(entries, dict):
        raise StageError(f"The registry of styles {file} must be an object of styles by name.")
    return entries


def _wrong_names(names: Iterable[str]) -> list[str]:
    """What is wrong with names that become part of file names."""
    problems: list[str] = []
    taken: dict[str, str] = {}
    for name in names:
        if len(name) > _MAX_NAME or folder_name(name) != name or not name.isprintable():
            problems.append(
                f"{name!r:.80} cannot be part of a file name; a style is up to {_MAX_NAME} letters, digits, spaces, "
                "_ and -."
            )
        elif (key := collision_key(name)) in taken:
            problems.append(f"{name!r} and {taken[key]!r} would have the same file names on most disks.")
        else:
            taken[key] = name
    return problems


def _in_words(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the entry"
    said = error["msg"].removeprefix("Value error, ")
    return f"{key} {said[0].lower()}{said[1:]}" if said.startswith("must") else f"{key}: {said[0].lower()}{said[1:]}"


def _sentence(problem: str) -> str:
    return problem if problem.endswith((".", "?")) else f"{problem}."


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def on_this_machine(path: str, beside: Path) -> Path | None:
    """The folder or file that a `path` means here; None where it is a repository of the hub."""
    place = beside / Path(path).expanduser()
    if path.startswith(("/", "~", "./", "../")) or not _HUB.fullmatch(path) or place.exists():
        return place
    return None


def weights_files(styles: Mapping[str, Style], registry: Path, hub: Hub) -> dict[str, Path]:
    """The weights of each style. Raises StageError that names all that are absent, each with where it should be."""
    found: dict[str, Path] = {}
    absent: list[str] = []
    to_fetch: list[str] = []
    for name, style in styles.items():
        place = on_this_machine(style.path, registry.parent)
        if place is None:
            cached = hub.file(style.path, style.weights)
            if cached is None:
                absent.append(f"{name} ({style.weights} of {style.path}, not in {hub.cache_dir})")
                to_fetch.append(f"`hf download {style.path} {style.weights} --cache-dir {hub.cache_dir}`")
            else:
                found[name] = cached
        elif place.suffix == ".safetensors" and place.is_file():
            found[name] = place
        elif (file := place / style.weights).is_file():
            found[name] = file
        else:
            absent.append(f"{name} ({file})")
    if absent:
        one = len(absent) == 1
        fetch = f"Fetch {'it' if len(to_fetch) == 1 else 'them'} with {', '.join(to_fetch)}; or " if to_fetch else ""
        step = f"{fetch}take the style{'' if one else 's'} out of lora_processing.loras_to_process."
        raise StageError(
            f"The weights of {len(absent)} style{'' if one else 's'} are not here: {'; '.join(absent)}.",
            next_step=step[0].upper() + step[1:],
        )
    return found


_hashes: dict[tuple[str, int, int], str] = {}
_hashing = threading.Lock()


def sha256_of(file: Path) -> str:
    """Of its bytes; read once in a process as long as size and modification time stay. Raises OSError."""
    status = file.stat()
    key = (str(file), status.st_size, status.st_mtime_ns)
    with _hashing:
        if key not in _hashes:
            with file.open("rb") as stream:
                _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        return _hashes[key]


#: Of a file of a local model, so many bytes of its beginning and end count for its revision.
_SAMPLE: Final = 1 << 20


def model_revision(model: str, revision: str, beside: Path, hub: Hub) -> str | None:
    """What tells one state of a model from another: the commit on the hub, or a digest of a local folder's files.

    The digest is taken of each file's name, size, first and last MiB: training changes every tensor, and all of 24 GB
    would take a minute at each start. None where the hub's commit is not known here. Raises StageError.
    """
    folder = on_this_machine(model, beside)
    if folder is None:
        if _COMMIT.fullmatch(revision):
            return revision
        index = hub.file(model, "model_index.json", revision)
        return None if index is None else index.parent.name
    if not (folder / "model_index.json").is_file():
        raise StageError(
            f"{folder} (lora_processing.model) is no model: it has no model_index.json.",
            next_step="Name a repository of the hub (owner/name), or a folder that diffusers has saved.",
        )
    return f"sha256:{_digest_of_folder(folder)}"


def _digest_of_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    key = (str(folder), len(files), hash(tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in files)))
    with _hashing:
        if key in _hashes:
            return _hashes[key]
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(_SAMPLE))
            stream.seek(max(_SAMPLE, size - _SAMPLE))
            digest.update(stream.read(_SAMPLE))
    with _hashing:
        _hashes[key] = digest.hexdigest()
        return _hashes[key]
