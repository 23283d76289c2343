"""Where a long work goes on: what is kept of it, who is told of it, and who may stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .files import CHECKPOINT_SECONDS
from .interrupt import Interrupt
from .journal import Journal
from .progress import Progress


@dataclass(frozen=True)
class Workplace:
    """folder: holds what is done so far; checkpoint_seconds: the most of it that a power cut takes."""

    folder: Path
    progress: Progress
    interrupt: Interrupt
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def journal(self, name: str, key: str, largest: int, fits: Callable[[int, bytes], bool]) -> Journal:
        """A journal in the folder; see Journal."""
        return Journal(self.folder / name, key, largest, self.checkpoint_seconds, fits)
