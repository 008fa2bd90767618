"""The section `paths`: its texts, lib_root, and the absolute paths they resolve to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from skicyclerun.errors import ConfigError, EnvironmentUnset, PlaceholderCycle
from skicyclerun.settings.absolute_paths import absolute
from skicyclerun.settings.carried import MAX_FOREIGN
from skicyclerun.settings.errors import Problems
from skicyclerun.settings.file import join, show
from skicyclerun.settings.models import Paths, PathTexts
from skicyclerun.settings.placeholders import Resolver
from skicyclerun.settings.sections import Scope, plain

_NO_ROOT: Final = Path("/no lib_root is named")


def path_texts(
    section: Mapping[str, object], written: object, carried: dict[str, Any], problems: Problems
) -> dict[str, str]:
    """The texts that placeholders may refer to: ours, with their defaults, and those of other programs.

    The latter go to `carried` as well. `written` is the section as the file has it, without the command line.
    """
    known = {key: value for key, value in section.items() if key in PathTexts.model_fields}
    foreign = {key: value for key, value in section.items() if key not in known and key != "raw_input"}
    if len(foreign) > MAX_FOREIGN:
        problems.add("paths", f"holds {len(foreign)} keys; at most {MAX_FOREIGN} are allowed")
        foreign = {}
    if foreign:
        carried["paths"] = foreign | carried.get("paths", {})
    absent = {*PathTexts.model_fields, "raw_input"} - (written.keys() if isinstance(written, dict) else set())
    for key in foreign:
        problems.warn_if_near(join("paths", key), key, sorted(absent))
    texts = {key: value for key, value in foreign.items() if isinstance(value, str)}
    texts |= problems.validated(PathTexts, "paths", known).model_dump()
    alias = section.get("raw_input")
    if isinstance(alias, str) and alias:
        texts["raw_input"] = alias
        if "apple_photos_export" not in known and "{apple_photos_export}" not in alias:
            texts["apple_photos_export"] = "{raw_input}"
    else:
        texts["raw_input"] = "{apple_photos_export}"
        if "raw_input" in section:
            problems.add("paths.raw_input", f"must be a text of 1 to 4096 characters, not {show(alias)}")
    return texts


def settle_root(
    texts: Mapping[str, str],
    root: Path | None,
    environ: Mapping[str, str],
    problems: Problems,
    *,
    needs_lib_root: bool,
) -> Scope:
    """lib_root, which is settled before all else, and a resolver for the rest.

    `root` wins over `paths.lib_root`. Goes on with a stand-in where there is none, so that the other problems are told
    as well; without `needs_lib_root` that is no problem yet.
    """
    unset_root: EnvironmentUnset | None = None
    if root is None:
        root = _NO_ROOT
        try:
            resolved = Resolver(texts, environ, file=problems.file).key("lib_root")
            root = absolute(plain(resolved), environ, Path.cwd())
        except ConfigError as error:
            if not needs_lib_root and isinstance(error, EnvironmentUnset):
                unset_root = error
            else:
                problems.errors.append(error)
        except ValueError as error:
            problems.add("paths.lib_root", str(error))
    resolver = Resolver(texts, environ, bound={"lib_root": str(root)}, file=problems.file)
    return Scope(resolver, environ, root, unset_root)


def resolve_paths(texts: Iterable[str], scope: Scope, needed: Iterable[str], problems: Problems) -> Paths:
    """Our paths, absolute. An unset variable is a problem only in a path that is among the `needed` keys."""
    needed = frozenset(needed)
    resolved: dict[str, Path] = {}
    deferred: dict[str, EnvironmentUnset] = {}
    for key in (*PathTexts.model_fields, "raw_input"):
        try:
            if key != "lib_root":
                resolved[key] = absolute(plain(scope.resolver.key(key)), scope.environ, scope.root)
        except EnvironmentUnset as error:
            if key in needed:
                problems.errors.append(error)
            else:
                deferred[key] = error
        except ConfigError as error:
            problems.errors.append(error)
        except ValueError as error:
            problems.add(f"paths.{key}", str(error))
    alias, export = resolved.pop("raw_input", None), resolved.get("apple_photos_export")
    deferred.pop("raw_input", None)
    if alias is not None and export is not None and alias != export:
        problems.add(
            "paths.raw_input",
            f"is another name of apple_photos_export, and the two differ: {alias} and {export}",
            "Leave one of them out.",
        )
    _check_foreign(texts, scope.resolver, problems)
    return Paths(resolved, deferred)


def _check_foreign(texts: Iterable[str], resolver: Resolver, problems: Problems) -> None:
    """Paths of other programs: a cycle is an error, anything else is for those programs to say."""
    for key in texts:
        if key in PathTexts.model_fields or key == "raw_input":
            continue
        try:
            resolver.check(key)
        except PlaceholderCycle as error:
            problems.errors.append(error)
        except EnvironmentUnset:
            pass
        except ConfigError as error:
            problems.warnings.append(str(error))
