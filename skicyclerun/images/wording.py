"""Sizes as people read them, for the sentences of this package."""

from __future__ import annotations


def said_bytes(count: int) -> str:
    """`812 bytes`, `12 kB`, `3.4 MB`."""
    if count < 1000:
        return f"{count} bytes"
    if count < 1_000_000:
        return f"{count // 1000} kB"
    return f"{count / 1_000_000:.1f} MB"


def said_pixels(width: int, height: int) -> str:
    """Width and height with a multiplication sign between them, and the word pixels."""
    return f"{width} \N{MULTIPLICATION SIGN} {height} pixels"
