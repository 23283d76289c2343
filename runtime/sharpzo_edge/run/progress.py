"""What the user sees while a run goes on, and its log.

On a terminal one line is redrawn; otherwise plain lines, now and then. The log is JSON lines, one
event each, and is never read back. Neither may end a run: a log that cannot be written is said once and
given up, a terminal that has gone is written to no more.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from ..errors import SharpzoError
from ..process_memory import rss_mib
from .files import Appended

PLAIN_LINE_SECONDS = 5.0
REDRAW_SECONDS = 0.2


class Progress:
    """Lines on `stream` (standard error, so that --json keeps standard output), events in `log`."""

    def __init__(self, log: Path | None = None, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._last = -PLAIN_LINE_SECONDS
        self._drawn = ""
        self._log: Appended | None = None
        if log:
            try:
                self._log = Appended(log)
            except SharpzoError as error:
                self._give_up_log(error)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._clear()
        self._show(f"{line}\n")
        self.event("said", text=line)

    def status(self, line: str, always: bool = False) -> None:
        """A line that the next one replaces (on a terminal), or that comes every few seconds."""
        now = time.monotonic()
        line = f"{line}  rss {rss_mib():.0f} MiB"
        pause = REDRAW_SECONDS if self._terminal else PLAIN_LINE_SECONDS
        if not always and now - self._last < pause:
            return
        self._last = now
        if self._terminal:
            self._show("\r" + line.ljust(len(self._drawn)))
            self._drawn = line
        else:
            self._show(f"{line}\n")

    def event(self, kind: str, **values: Any) -> None:
        if self._log:
            try:
                self._log.append(f"{json.dumps({'event': kind, **values})}\n".encode())
            except SharpzoError as error:
                self._give_up_log(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        if self._log:
            self._log.close()

    def _clear(self) -> None:
        if self._drawn:
            self._show("\r" + " " * len(self._drawn) + "\r")
            self._drawn = ""

    def _show(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
            self._stream.flush()

    def _give_up_log(self, error: SharpzoError) -> None:
        if self._log:
            self._log.close()
            self._log = None
        self.say(f"note: the run goes on without its log. {error}")


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
