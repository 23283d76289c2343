"""The log of a run: JSON lines, one event each. No run reads it back; the report does.

A log that cannot be written never ends a run: that is said once, and the log is given up.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import SharpzoError
from .files import Appended
from .progress import Caller, Progress

# By the kind of news; a status is not kept.
EVENTS = {
    "begun": "begun",
    "said": "said",
    "phase": "phase",
    "evaluation": "look",
    "stage": "stage",
    "done": "done",
}


class Log:
    """A listener (see Caller) that keeps what it is told. A context manager."""

    def __init__(self, path: Path, caller: Caller):
        """caller: is told when the log is given up."""
        self._caller = caller
        self._file: Appended | None = None
        try:
            self._file = Appended(path)
        except SharpzoError as error:
            self._give_up(error)

    def __call__(self, progress: Progress) -> None:
        if self._file is None or progress.kind not in EVENTS:
            return
        values: dict[str, Any] = dict(progress.figures) or {"text": progress.text}
        try:
            self._file.append(f"{json.dumps({'event': EVENTS[progress.kind], **values})}\n".encode())
        except SharpzoError as error:
            self._give_up(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def _give_up(self, error: SharpzoError) -> None:
        self._close()
        self._caller.say(f"note: the run goes on without its log. {error}")
