"""What a health check finds: one line for the person, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Works, but not for everything."""
    FAILED = "failed"
    """An export would not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` names what was looked at, `detail` says what was found, `next_step` what to do (empty for nothing)."""

    check: str
    verdict: Verdict
    detail: str
    next_step: str = ""


def ok(check: str, detail: str) -> Finding:
    return Finding(check, Verdict.OK, detail)


def warning(check: str, detail: str, next_step: str = "") -> Finding:
    return Finding(check, Verdict.WARNING, detail, next_step)


def failed(check: str, detail: str, next_step: str = "") -> Finding:
    return Finding(check, Verdict.FAILED, detail, next_step)
