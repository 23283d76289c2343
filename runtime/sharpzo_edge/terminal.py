"""What a person sees while a command works: a listener of the library's progress, for standard error.

On a terminal one line is redrawn; otherwise plain lines come now and then. A terminal that has gone is
written to no more, and never ends a run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from types import TracebackType
from typing import Self, TextIO

from .process_memory import rss_mib
from .run.progress import Progress
from .wording import printable

PLAIN_LINE_SECONDS = 5.0
REDRAW_SECONDS = 0.2


class Terminal:
    """A listener (see Caller) that writes to `out`, standard error by default. A context manager."""

    def __init__(self, out: TextIO | None = None):
        self._out = sys.stderr if out is None else out
        self._redraws = self._out.isatty()
        self._last = -PLAIN_LINE_SECONDS
        self._drawn = ""

    def __call__(self, progress: Progress) -> None:
        if progress.kind in ("said", "stage"):
            self._clear()
            self._write(f"{printable(progress.text)}\n")
        elif progress.kind in ("status", "evaluation"):
            self._status(progress.text, progress.is_first)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def _status(self, line: str, always: bool) -> None:
        now = time.monotonic()
        pause = REDRAW_SECONDS if self._redraws else PLAIN_LINE_SECONDS
        if not always and now - self._last < pause:
            return
        self._last = now
        line = printable(f"{line}  rss {rss_mib():.0f} MiB")
        if self._redraws:
            line = line[: self._columns - 1]  # a longer line would wrap, and could not be redrawn
            self._write("\r" + line.ljust(min(len(self._drawn), self._columns - 1)))
            self._drawn = line
        else:
            self._write(f"{line}\n")

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r" + " " * min(len(self._drawn), self._columns - 1) + "\r")
            self._drawn = ""

    @property
    def _columns(self) -> int:
        """Of the terminal at this moment: it may have been made wider or narrower."""
        with contextlib.suppress(OSError, ValueError):
            if columns := os.get_terminal_size(self._out.fileno()).columns:
                return max(2, columns)
        return 80  # a serial line does not tell its width

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            self._out.write(text)
            self._out.flush()
