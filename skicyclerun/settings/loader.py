"""One reading of a configuration: the command line's word on top, placeholders resolved, every problem gathered.

The sections `pipeline`, `paths`, `export`, `cleanup` and `logging` are ours and strictly checked. Other sections, and
keys that start with `_` at any level, belong to other programs or to the reader: they are carried along untouched.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from skicyclerun.errors import ConfigError, EnvironmentUnset, PlaceholderCycle
from skicyclerun.settings.errors import MAX_PROBLEMS, raise_all, validation_problems
from skicyclerun.settings.file import join, show
from skicyclerun.settings.models import (
    EMPTIED_KEYS,
    SECTIONS,
    CleanupSettings,
    ExportSettings,
    LoggingSettings,
    Paths,
    PathTexts,
    PipelineSettings,
    Settings,
)
from skicyclerun.settings.placeholders import Resolved, Resolver, escape
from skicyclerun.settings.safety import lies_in, unsafe_paths
from skicyclerun.settings.section import Section
from skicyclerun.stages.registry import FILE_KEYS, STAGE_BY_NAME

#: Keys of other programs in `paths` that are looked at; what is beyond any use is not worth its time.
MAX_FOREIGN: Final = 1000

_UNRESOLVED: Final = object()
_NO_ROOT: Final = Path("/no lib_root is named")
_CATALOG_FILES: Final = ("paths.master_catalog", "paths.geocode_cache")
_S = TypeVar("_S", bound=Section)


class SettingsLoader:
    """One reading of one file; gathers every problem before it raises."""

    def __init__(
        self,
        file: Path,
        root: Path | None,
        environ: Mapping[str, str],
        overrides: Mapping[str, object],
        *,
        needs_lib_root: bool = True,
    ) -> None:
        self.file = file
        self.root = root
        self.environ = environ
        self.overrides = overrides
        self.needs_lib_root = needs_lib_root
        self.unset_root: ConfigError | None = None
        self.problems: list[ConfigError] = []
        self.warnings: list[str] = []
        self.carried: dict[str, Any] = {}

    def load(self, raw: dict[str, object]) -> Settings:
        """The settings that `raw`, the file's object, means.

        Raises ConfigError, or ConfigErrors for several problems; either carries the warnings there were.
        """
        written = raw
        raw = self._with_overrides(raw)
        ours = self._ours(raw, written)
        texts = self._path_texts(ours["paths"], written.get("paths"))
        resolver, root = self._resolver(texts)
        pipeline = self._section(PipelineSettings, "pipeline", ours, resolver, root)
        paths = self._paths(texts, resolver, root, pipeline)
        export = self._section(ExportSettings, "export", ours, resolver, root)
        cleanup = self._section(CleanupSettings, "cleanup", ours, resolver, root)
        ours["logging"].setdefault("file", LoggingSettings().file)
        logging = self._section(LoggingSettings, "logging", ours, resolver, root)
        settings = Settings(
            lib_root=root,
            file=self.file,
            pipeline=pipeline,
            paths=paths,
            export=export,
            cleanup=cleanup,
            logging=logging,
            carried=self.carried,
            warnings=tuple(self.warnings[:MAX_PROBLEMS]),
        )
        raise_all(self.problems, settings.warnings)
        raise_all(self._unsafe(settings), settings.warnings)
        return settings

    def _with_overrides(self, raw: dict[str, object]) -> dict[str, object]:
        """`raw` with the command line's values in it; `raw` itself stays as it is."""
        raw = dict(raw)
        for dotted, value in self.overrides.items():
            *parents, last = dotted.split(".")
            if not parents or parents[0] not in SECTIONS:
                raise LookupError(f"{dotted!r} names no section of ours")
            section = raw
            for name in parents:
                inner = section.get(name, {})
                if not isinstance(inner, dict):
                    break  # reported when the section is checked
                copy = dict(inner)
                section[name] = copy
                section = copy
            else:
                self._override(section, dotted, last, value)
        return raw

    def _override(self, section: dict[str, object], dotted: str, last: str, value: object) -> None:
        if dotted.startswith("paths.") or dotted in ("export.library", "logging.file"):
            if isinstance(value, str | Path):
                try:
                    value = str(absolute(str(value), self.environ, Path.cwd()))
                except ValueError as error:
                    self._problem(dotted, str(error))
                    return
            if dotted in ("paths.apple_photos_export", "paths.raw_input"):
                # The two are one; the command line's word replaces the file's, whichever the file uses.
                section.pop("raw_input", None)
                section.pop("apple_photos_export", None)
        section[last] = _as_literal(value)

    def _problem(self, key: str, text: str, next_step: str = "") -> None:
        if key in self.overrides:
            self.problems.append(ConfigError(f"{text} (given on the command line)", key=key, next_step=next_step))
        else:
            self.problems.append(ConfigError(text, key=key, file=self.file, next_step=next_step))

    def _ours(self, raw: dict[str, object], written: Mapping[str, object]) -> dict[str, dict[str, object]]:
        """Our sections without what is not ours, which goes to `carried`.

        `written` is what the file says, without the command line: only what is missing there can be a slip of the pen.
        """
        ours: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
        for name, value in raw.items():
            if name not in SECTIONS:
                self.carried[name] = value
                if len(self.carried) < MAX_FOREIGN and not name.startswith("_"):
                    self._warn_if_near(join("", name), name, [known for known in SECTIONS if known not in written])
            elif isinstance(value, dict):
                ours[name], notes = _without_notes(value)
                if notes:
                    self.carried[name] = notes
            else:
                self._problem(name, f"must be an object {{ … }}, not {show(value)}")
        return ours

    def _warn_if_near(self, key: str, name: str, known: Iterable[str]) -> None:
        if close := difflib.get_close_matches(name[:200], list(known), n=1, cutoff=0.8):
            self.warnings.append(
                f"{self.file}: {key} is carried along and means nothing to skicyclerun. Did you mean {close[0]!r}?"
            )

    def _path_texts(self, section: dict[str, object], written: object) -> dict[str, str]:
        """The texts that placeholders may refer to: ours, with their defaults, and those of other programs."""
        known: dict[str, object] = {}
        foreign: dict[str, object] = {}
        for key, value in section.items():
            if key in PathTexts.model_fields:
                known[key] = value
            elif key != "raw_input":
                foreign[key] = value
        if len(foreign) > MAX_FOREIGN:
            self._problem("paths", f"holds {len(foreign)} keys; at most {MAX_FOREIGN} are allowed")
            foreign = {}
        if foreign:
            self.carried["paths"] = foreign | self.carried.get("paths", {})
        absent = {*PathTexts.model_fields, "raw_input"} - (written.keys() if isinstance(written, dict) else set())
        for key in foreign:
            self._warn_if_near(join("paths", key), key, sorted(absent))
        texts = {key: value for key, value in foreign.items() if isinstance(value, str)}
        texts |= self._validated(PathTexts, "paths", known).model_dump()
        alias = section.get("raw_input")
        if isinstance(alias, str) and alias:
            texts["raw_input"] = alias
            if "apple_photos_export" not in known and "{apple_photos_export}" not in alias:
                texts["apple_photos_export"] = "{raw_input}"
        else:
            texts["raw_input"] = "{apple_photos_export}"
            if "raw_input" in section:
                self._problem("paths.raw_input", f"must be a text of 1 to 4096 characters, not {show(alias)}")
        return texts

    def _resolver(self, texts: dict[str, str]) -> tuple[Resolver, Path]:
        """A resolver for everything but lib_root, which is settled first, and lib_root."""
        root = self.root
        if root is None:
            # Goes on with a stand-in where it cannot be settled, so that the other problems are told as well.
            root = _NO_ROOT
            try:
                resolved = Resolver(texts, self.environ, file=self.file).key("lib_root")
                root = absolute(self._plain(resolved, "paths.lib_root"), self.environ, Path.cwd())
            except ConfigError as error:
                if not self.needs_lib_root and isinstance(error, EnvironmentUnset):
                    self.unset_root = error
                else:
                    self.problems.append(error)
            except ValueError as error:
                self._problem("paths.lib_root", str(error))
        bound = {"lib_root": str(root)}
        return Resolver(texts, self.environ, bound=bound, file=self.file), root

    def _plain(self, resolved: Resolved, key: str) -> str:
        if resolved.late:
            late = ", ".join(f"{{{name}}}" for name in sorted(resolved.late))
            raise ValueError(f"holds {late}, which is filled in only in logging.file")
        return resolved.text

    def _paths(self, texts: dict[str, str], resolver: Resolver, root: Path, pipeline: PipelineSettings) -> Paths:
        requested = [STAGE_BY_NAME[name] for name in pipeline.stages]
        needed = {key for stage in requested if stage.provided for key in stage.needs_paths}
        resolved: dict[str, Path] = {}
        deferred: dict[str, EnvironmentUnset] = {}
        for key in (*PathTexts.model_fields, "raw_input"):
            name = f"paths.{key}"
            try:
                if key != "lib_root":
                    resolved[key] = absolute(self._plain(resolver.key(key), name), self.environ, root)
            except EnvironmentUnset as error:
                if key in needed:
                    self.problems.append(error)
                else:
                    deferred[key] = error
            except ConfigError as error:
                self.problems.append(error)
            except ValueError as error:
                self._problem(name, str(error))
        alias, export = resolved.pop("raw_input", None), resolved.get("apple_photos_export")
        deferred.pop("raw_input", None)
        if alias is not None and export is not None and alias != export:
            self._problem(
                "paths.raw_input",
                f"is another name of apple_photos_export, and the two differ: {alias} and {export}",
                "Leave one of them out.",
            )
        self._check_foreign(texts, resolver)
        return Paths(resolved, deferred)

    def _check_foreign(self, texts: Iterable[str], resolver: Resolver) -> None:
        """Paths of other programs: a cycle is an error, anything else is for those programs to say."""
        for key in texts:
            if key in PathTexts.model_fields or key == "raw_input":
                continue
            try:
                resolver.check(key)
            except PlaceholderCycle as error:
                self.problems.append(error)
            except EnvironmentUnset:
                pass
            except ConfigError as error:
                self.warnings.append(str(error))

    def _section(
        self, model: type[_S], name: str, ours: dict[str, dict[str, object]], resolver: Resolver, root: Path
    ) -> _S:
        """A section of ours, its texts resolved, checked."""
        resolved = {key: self._resolved(value, join(name, key), resolver, root) for key, value in ours[name].items()}
        return self._validated(model, name, {key: value for key, value in resolved.items() if value is not _UNRESOLVED})

    def _resolved(self, value: object, key: str, resolver: Resolver, root: Path) -> object:
        """The value with every text in it resolved; `_UNRESOLVED`, and a problem noted, for one that cannot be."""
        if isinstance(value, dict):
            inner = {name: self._resolved(item, join(key, name), resolver, root) for name, item in value.items()}
            return {name: item for name, item in inner.items() if item is not _UNRESOLVED}
        if isinstance(value, list):
            items = [self._resolved(item, f"{key}[{index}]", resolver, root) for index, item in enumerate(value)]
            return [item for item in items if item is not _UNRESOLVED]
        if not isinstance(value, str) or len(self.problems) > MAX_PROBLEMS:
            return value
        try:
            resolved = resolver.text(value, key=key)
            if key == "logging.file":
                if resolved.late - {"timestamp"} or resolved.text.endswith("/"):
                    raise ValueError(f"must name a file, not {show(value)}")
                return str(absolute(resolved.template, self.environ, root, written=escape))
            plain = self._plain(resolved, key)
            if key != "export.library":
                return plain
            library = absolute(plain, self.environ, root)
            if self.unset_root is not None and lies_in(library, root):
                self.problems.append(self.unset_root)  # written as lying below it, so it is needed after all
            return library
        except ConfigError as error:
            self.problems.append(error)
        except ValueError as error:
            self._problem(key, str(error))
        return _UNRESOLVED

    def _validated(self, model: type[_S], name: str, section: dict[str, object]) -> _S:
        """The section as a model; with problems, the model's defaults stand in so that the others are told as well."""
        try:
            return model.model_validate(section)
        except ValidationError as error:
            self.problems += validation_problems(error, model, name, self.file, self.overrides)
            return model()

    def _unsafe(self, settings: Settings) -> list[ConfigError]:
        paths = {f"paths.{key}": path for key, path in settings.paths.resolved().items()}
        files = {f"paths.{key}" for key in FILE_KEYS}
        emptied = {name: path for name, path in paths.items() if name.removeprefix("paths.") in EMPTIED_KEYS}
        kept = {name: path for name, path in paths.items() if name not in emptied}
        metadata = paths.get("paths.metadata_dir")
        for name in _CATALOG_FILES:
            # Archived and emptied with the metadata folder, which is their place; in another they would be lost.
            if name in kept and metadata is not None and lies_in(kept[name], metadata):
                del kept[name]
        kept["the configuration file"] = self.file
        folders = {name: path for name, path in paths.items() if name not in files}
        folders["logging.file"] = kept["logging.file"] = settings.log_folder
        return unsafe_paths(settings.lib_root, home(self.environ), folders, emptied, kept, self.file)


def home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def absolute(text: str, environ: Mapping[str, str], base: Path, *, written: Callable[[str], str] = str) -> Path:
    """`text` with a leading `~` expanded, relative to `base`, without `.` and `..`.

    `written` is how other paths are written in `text`: as they are, or escaped where `text` is a template. Raises
    ValueError with what is wrong.
    """
    if "\0" in text:
        raise ValueError("holds a NUL character")
    if not text.strip():
        raise ValueError("is empty")
    if text == "~" or text.startswith("~/"):
        text = written(str(home(environ))) + text[1:]
    elif text.startswith("~"):
        expanded = os.path.expanduser(text)
        if expanded == text:
            raise ValueError(f"names no user's home directory: {show(text)}")
        text = expanded
    # POSIX leaves the meaning of exactly two leading slashes to the system, and abspath keeps them; here they are one.
    return Path("/" + os.path.abspath(os.path.join(written(str(base)), text)).lstrip("/"))


def _without_notes(section: dict[str, object]) -> tuple[dict[str, object], dict[str, Any]]:
    """A section without the keys that start with `_`, and those keys, under the names of the objects they were in."""
    kept: dict[str, object] = {}
    notes: dict[str, Any] = {}
    for key, value in section.items():
        if key.startswith("_"):
            notes[key] = value
        elif isinstance(value, dict):
            kept[key], inner = _without_notes(value)
            if inner:
                notes[key] = inner
        else:
            kept[key] = value
    return kept, notes


def _as_literal(value: object) -> object:
    """A value of the command line as the file would have to write it to mean just that."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, tuple | list):
        return [_as_literal(item) for item in value]
    return value
