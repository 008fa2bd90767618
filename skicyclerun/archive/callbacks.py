"""What long work on archives calls while it goes on."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""
Stop = Callable[[], bool]
"""Asked between blocks; True ends the work with ArchiveStopped."""
