"""Which configuration file counts, and which lib_root is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from skicyclerun.errors import ConfigError
from skicyclerun.settings.absolute_paths import absolute
from skicyclerun.settings.shipped_files import shipped_file

LIB_ROOT_VARIABLE: Final = "SKICYCLERUN_LIB_ROOT"
CONFIG_NAME: Final = "pipeline_config.json"


def named_root(lib_root: Path | None, environ: Mapping[str, str]) -> Path | None:
    """lib_root by the command line, else by the variable; None where neither names one."""
    named_root, named_by = lib_root, "--lib-root"
    if lib_root is None and (value := environ.get(LIB_ROOT_VARIABLE)):
        named_root, named_by = Path(value), f"${LIB_ROOT_VARIABLE}"
    try:
        return None if named_root is None else absolute(str(named_root), environ, Path.cwd())
    except ValueError as error:
        raise ConfigError(str(error), key=named_by) from None


def found_config(root: Path | None) -> Path:
    """That of the lib_root where there is one, otherwise the shipped default."""
    if root is not None:
        own = root / "config" / CONFIG_NAME
        try:
            own.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return own  # there, or hidden: reading it says what is wrong, where a silent default would surprise
        else:
            return own
    return shipped_file(CONFIG_NAME)
