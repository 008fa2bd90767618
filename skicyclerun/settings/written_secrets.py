"""Secrets that somebody has written into the configuration: found by their names and by their looks.

Where credentials have no business at all (`s3_deployment`, `cleanup.remote_service`) each is refused. Elsewhere other
programs may keep what is theirs: there it stays, is warned of, and is hidden wherever the configuration is shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from skicyclerun.settings.errors import Problems
from skicyclerun.settings.file import join

HIDDEN: Final = "(hidden)"
#: Digits of a number that may be a password; `"tokens": 512` is none.
_SHORTEST_NUMBER: Final = 4
#: Secrets that a warning names.
_NAMED: Final = 20

#: In names that are looked at any further; most are not.
_PERHAPS: Final = ("secret", "key", "token", "pass", "pwd", "cred", "auth", "bearer", "cookie")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
#: In a name's letters: `aws_secret_access_key`, `accessKeyId`, `session-token`, `clientsecret`.
_TELLING: Final = re.compile(
    "(?:secret|access|private|api|session|security|auth)(?:key|token)|awstoken|secret$|password|passwd|passphrase"
    "|passcode|credential"
)
_TELLING_WORDS: Final = frozenset(
    {"secret", "secrets", "token", "pass", "pwd", "creds", "auth", "authorization", "bearer"}
) | {"cookie"}
#: Last words of names that speak about a secret and do not hold it: `password_file`, `token_limit`, `credentials_name`.
_ABOUT_IT: Final = frozenset(
    "file path folder dir directory profile name arn source type kind method provider env var variable variables "
    "enabled required expiry expires ttl seconds timeout limit count length size format prefix suffix template "
    "through version url uri endpoint".split()
)
#: Words of keys that are none of credentials, though they are called a key: `public_key`, `sse_kms_key_id`.
_OTHER_KEYS: Final = frozenset(
    "public kms object cache sort partition primary foreign group index map marker start".split()
)
#: Names of what belongs to AWS: a `key` in it is one of its keys.
_OF_AWS: Final = ("aws", "amazon", "boto", "cloudfront", "s3")

#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
_KEY_ID: Final = re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16,}")
#: What belongs to a key id: 40 characters of base64.
_BESIDE_A_KEY_ID: Final = re.compile(
    r"(?<![A-Za-z0-9/+])(?=[A-Z0-9/+]*[a-z])(?=[a-z0-9/+]*[A-Z])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
)
_IN_ADDRESS: Final = re.compile(r"(?<=://)[^/@\s:]*:(?!\$\{)[^/@\s]*(?=@)")
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL)
#: What a text must hold, to be looked at any further, and how.
_LOOKS: Final = (("AKIA", _KEY_ID), ("ASIA", _KEY_ID), ("://", _IN_ADDRESS), ("PRIVATE KEY", _PRIVATE_KEY))
#: A text that only refers to a variable says nothing itself.
_REFERENCE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-?)?\}")


def hidden_in(text: str) -> str:
    """`text` without what looks like a secret wherever it stands: ids of AWS keys, passwords in addresses, private
    keys."""
    if _holds_key_id(text):
        text = _BESIDE_A_KEY_ID.sub(HIDDEN, text)
    for sign, look in _LOOKS:
        if sign in text:
            text = look.sub(HIDDEN, text)
    return text


def hidden_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `(hidden)` in place of every secret."""
    shown: dict[str, Any] = _Sifting(taking_out=False).of(config)
    return shown


def warn_of_secrets(config: Mapping[str, Any], refused_in: Collection[str], problems: Problems) -> None:
    """One warning of the secrets that stand where they are not refused."""
    sifting = _Sifting(taking_out=False)
    sifting.of(config)
    keys = [key for key in dict.fromkeys(sifting.found) if not any(key.startswith(f"{name}.") for name in refused_in)]
    if keys:
        named = ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
        looks, it = ("looks like a secret. It is", "it") if len(keys) == 1 else ("look like secrets. They are", "them")
        problems.warnings.append(
            f"{problems.file}: {named} {looks} hidden where skicyclerun shows the file, but whoever reads the file has "
            f"{it}. A variable (`${{NAME}}`, set in the environment or in a `.env`) keeps {it} out of it."
        )


def without_secrets(name: str, parts: Sequence[Mapping[str, Any]], problems: Problems) -> list[dict[str, Any]]:
    """The `parts` of a section in which no credentials may stand, without them; each is a problem.

    Nothing of their values is told.
    """
    sifting = _Sifting(taking_out=True, of_aws=True, beside=any(map(_holds_key_id, parts)))
    kept = [sifting.of(part, name) for part in parts]
    for key in sifting.found:
        problems.add(
            key,
            "holds a credential, and none may stand in this file: others read it, and it goes into backups. It was not "
            "used",
            next_step="Take it out, and give it to the AWS tools (`aws configure`), or name a profile in "
            f"{name}.aws_profile. If the file was ever shared, make a new key.",
        )
    return kept


def is_called_secret(name: str, *, of_aws: bool = False) -> bool:
    """Whether a key of that name holds a secret. `of_aws`: it stands in something of AWS's, where a `key` is one."""
    lower = name.lower()
    if not any(part in lower for part in _PERHAPS):
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _ABOUT_IT:
        return False
    letters = "".join(words)
    if _TELLING.search(letters) or not _TELLING_WORDS.isdisjoint(words) or letters in ("tokens", "auths"):
        return True
    a_key = words[-1] in ("key", "keys", "keyid", "awskey") or words[-2:] == ["key", "id"]
    return a_key and (of_aws or "aws" in letters) and _OTHER_KEYS.isdisjoint(words)


def _is_of_aws(name: str) -> bool:
    lower = name.lower()
    return any(part in lower for part in _OF_AWS)


_GONE: Final = object()


@dataclass
class _Sifting:
    """One walk through a configuration. Secrets are taken out, or hidden."""

    taking_out: bool
    of_aws: bool = False
    beside: bool = False
    """Whether the id of a key stands in what is looked through, or beside it."""
    found: list[str] = field(default_factory=list)

    def of(self, value: Any, at: str = "") -> Any:
        self.beside = self.beside or _holds_key_id(value)
        kept = self._sifted(value, at, self.of_aws)
        return {} if kept is _GONE else kept

    def _sifted(self, value: Any, at: str, of_aws: bool) -> Any:
        if isinstance(value, Mapping):
            items = {}
            for name, inner in value.items():
                shown = hidden_in(name)
                here = join(at, shown)
                if shown != name or (is_called_secret(name, of_aws=of_aws) and _says_something(inner)):
                    kept = self._secret(inner, here)
                else:
                    kept = self._sifted(inner, here, of_aws or _is_of_aws(name))
                if kept is not _GONE:
                    items[shown] = kept
            return items if items or not value else _GONE
        if isinstance(value, list | tuple):
            kept = [self._sifted(inner, f"{at}[{index}]", of_aws) for index, inner in enumerate(value)]
            left = [inner for inner in kept if inner is not _GONE]
            return left if left or not value else _GONE
        if not isinstance(value, str):
            return value
        if self.beside and _BESIDE_A_KEY_ID.search(value):
            return self._secret(value, at)
        hidden = hidden_in(value)
        return value if hidden == value else self._secret(value, at, hidden)

    def _secret(self, value: Any, at: str, hidden: str = "") -> Any:
        self.found.append(at)
        return _GONE if self.taking_out else hidden or _blank(value)


def _blank(value: Any) -> Any:
    """In the shape of `value`, so that it can be seen what is there."""
    if isinstance(value, Mapping):
        return {hidden_in(name): _blank(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_blank(inner) for inner in value]
    return HIDDEN if _says_something(value) else value


def _says_something(value: Any) -> bool:
    """False for what is empty, on or off, a small number, or refers to a variable: no secret is in that."""
    if isinstance(value, Mapping):
        return any(map(_says_something, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_says_something, value))
    if isinstance(value, str):
        return bool(value.strip()) and not _REFERENCE.fullmatch(value.strip())
    return value is not None and not isinstance(value, bool) and len(str(value)) >= _SHORTEST_NUMBER


def _holds_key_id(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_key_id(name) or _holds_key_id(inner) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return any(map(_holds_key_id, value))
    return isinstance(value, str) and ("AKIA" in value or "ASIA" in value) and _KEY_ID.search(value) is not None
