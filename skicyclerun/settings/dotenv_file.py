"""The variables that a configuration may refer to: the environment, and behind it a `.env` beside the configuration.

A `.env` is read as data, by python-dotenv's parser: nothing in a value is expanded, and nothing of it goes into the
environment of this process, but for what libraries of stages look for nowhere else (`lend_to_libraries`).
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

#: Bytes; a file of more is something else.
MAX_BYTES: Final = 1_000_000
DOTENV_NAME: Final = ".env"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERRED: Final = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)([:}])")
_SECRET: Final = re.compile(
    r"KEY|SECRET|TOKEN|PASS|PWD|CREDENTIAL|AUTH|PRIVATE|SIGNATURE|COOKIE|SESSION|DSN|PIN(?![A-Z])", re.IGNORECASE
)
#: Where a shell keeps the working directory.
_NO_SECRETS: Final = ("PWD", "OLDPWD")
#: Characters; a shorter value stands in too many texts by chance.
_SHORTEST_SECRET: Final = 4
#: `https://me:secret@host`.
_USER_AND_PASSWORD: Final = re.compile(r"://[^/@\s]*:[^/@\s]*@")
#: How the names begin of what libraries of stages (boto3, huggingface_hub, torch, ollama) read from the process's own
#: environment: https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html,
#: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables,
#: https://docs.pytorch.org/docs/stable/mps_environment_variables.html
_OF_LIBRARIES: Final = ("AWS_", "HF_", "HUGGINGFACE_", "OLLAMA_", "OMP_", "PYTORCH_", "TOKENIZERS_", "TRANSFORMERS_")


@dataclass(frozen=True, slots=True)
class Variables(Mapping[str, str]):
    """The environment, and where a variable is unset or empty there, the `.env`."""

    environ: Mapping[str, str] = field(repr=False)
    dotenv: Mapping[str, str] = field(default_factory=dict, repr=False)
    file: Path | None = None
    """The `.env`, None where there is none."""
    warnings: tuple[str, ...] = ()
    """Sentences about lines that say nothing, without what stands in them."""
    referred: Mapping[str, bool] = field(default_factory=dict)
    """Those that the configuration refers to, and whether it has a default wherever it does."""

    def __getitem__(self, name: str) -> str:
        return self.environ.get(name) or self.dotenv.get(name) or self.environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.dotenv, **self.environ})

    def __len__(self) -> int:
        return len({**self.dotenv, **self.environ})

    def origin(self, name: str) -> str:
        """Where its value comes from: `the environment`, `.env`, or empty where it has none."""
        if self.environ.get(name):
            return "the environment"
        return DOTENV_NAME if self.dotenv.get(name) else ""

    @property
    def secrets(self) -> dict[str, str]:
        """Of those of the `.env`, and those that the configuration refers to, the ones that nobody should see."""
        named = {name: self.get(name, "") for name in (*self.dotenv, *self.referred)}
        return {name: value for name, value in named.items() if looks_secret(name, value)}

    def hide(self, text: str) -> str:
        """`text` with each secret value in it as `${NAME}`."""
        for name, value in sorted(self.secrets.items(), key=lambda item: len(item[1]), reverse=True):
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, f"${{{name}}}")
        return text

    def hidden(self, value: Any) -> Any:
        """A JSON value with `hide` of every text in it."""
        return _each_text(value, self.hide) if self.secrets else value

    def revealed(self, value: Any) -> Any:
        """`hidden` undone, with the values that the variables have now."""
        secrets = self.secrets

        def reveal(text: str) -> str:
            for name, secret in secrets.items():
                text = text.replace(f"${{{name}}}", secret)
            return text

        return _each_text(value, reveal) if secrets else value


def _each_text(value: Any, changed: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return changed(value)
    if isinstance(value, dict):
        return {key: _each_text(inner, changed) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(inner, changed) for inner in value]
    return value


def looks_secret(name: str, value: str = "") -> bool:
    """Whether a variable's value should be shown to nobody, by its name or by a password in an address."""
    return bool((name not in _NO_SECRETS and _SECRET.search(name)) or _USER_AND_PASSWORD.search(value))


def referred_variables(value: object) -> dict[str, bool]:
    """The variables that a configuration refers to anywhere in it, in its order, and whether each has a default."""
    found: dict[str, bool] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            for name, mark in _REFERRED.findall(item):
                found[name] = mark == ":" and found.get(name, True)
        elif isinstance(item, dict):
            waiting += reversed(item.values())
        elif isinstance(item, list):
            waiting += reversed(item)
    return found


def variables_beside(config: Path | None, environ: Mapping[str, str]) -> Variables:
    """The variables for a configuration file; None: no `.env` is looked for.

    The `.env` lies in the configuration's folder or, where that is called `config`, in the one above it: pipelines
    have it at the top of their tree. What is no regular file, a virtual environment of that name, say, is passed over.
    """
    if config is None:
        return Variables(environ)
    folders = [config.parent, *([config.parent.parent] if config.parent.name == "config" else [])]
    for folder in folders:
        found = _read(folder / DOTENV_NAME, environ)
        if found is not None:
            return found
    return Variables(environ)


def _read(file: Path, environ: Mapping[str, str]) -> Variables | None:
    try:
        # O_NONBLOCK: a named pipe must be passed over, not waited for.
        if not stat.S_ISREG(os.stat(file).st_mode):
            return None
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return _passed_over(environ, file, f"{file} cannot be read ({error.strerror}); its variables are not known.")
    if len(data) > MAX_BYTES:
        return _passed_over(environ, file, f"{file} is larger than {MAX_BYTES // 1_000_000} MB and is passed over.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _passed_over(environ, file, f"{file}: line {line} is not UTF-8; the file is passed over.")
    return _parsed(text, file, environ)


def _passed_over(environ: Mapping[str, str], file: Path, why: str) -> Variables:
    return Variables(environ, {}, file, (why,))


def _parsed(text: str, file: Path, environ: Mapping[str, str]) -> Variables:
    from dotenv.parser import parse_stream  # `dotenv.dotenv_values` expands, and prints what it cannot read

    values: dict[str, str] = {}
    wrong: list[int] = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and not _NAME.fullmatch(binding.key)):
            wrong.append(binding.original.line)
        elif binding.key is not None and binding.value is not None:
            if "\0" in binding.value:
                wrong.append(binding.original.line)
            else:
                values[binding.key] = binding.value
    warnings: tuple[str, ...] = ()
    if wrong:
        lines = f"line {wrong[0]} is" if len(wrong) == 1 else f"lines {', '.join(map(str, wrong[:10]))} are"
        warnings = (f"{file}: {lines} no NAME=value and passed over.",)
    return Variables(environ, values, file, warnings)


def lend_to_libraries(variables: Variables, environ: MutableMapping[str, str] = os.environ) -> None:
    """Put what libraries of stages read from the environment alone there, where it is not set: `AWS_PROFILE`,
    `HF_HOME`, … No other variable of a `.env` leaves it.
    """
    for name, value in variables.dotenv.items():
        if name.startswith(_OF_LIBRARIES) and value and not environ.get(name):
            environ[name] = value
