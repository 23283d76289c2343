"""A stream of JPEGs: on standard input, or in a named pipe, which its writer may leave and open again."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError
from .frames import Frames
from .reader import PIECE_BYTES, Arrival, Reader, said

MOST_FRAME_BYTES = 2 << 20  # of a JPEG; a camera's 1920 x 1080 pixels take less
WAIT_SECONDS = 0.25
OPEN_SECONDS = 1.0  # before a pipe is opened again
SILENT = "nothing writes into it"


class Stream:
    """See reader.Source. path: a named pipe, or None for standard input"""

    # What is being read, twice where it grows; and what waits.
    held_bytes = 3 * MOST_FRAME_BYTES + 2 * PIECE_BYTES
    picture_bytes = MOST_FRAME_BYTES

    def __init__(self, path: Path | None = None):
        """Raises UsageError where standard input is a terminal, from which no pictures come."""
        self._path = path
        if path is None and sys.stdin is not None and sys.stdin.isatty():
            raise UsageError(
                "SOURCE is -, and standard input is a terminal. It takes a stream of JPEGs from a program. "
                "Type: rpicam-vid --codec mjpeg --timeout 0 --output - | and then the same command again"
            )

    def read(self, reader: Reader) -> None:
        """Standard input ends once; a pipe is opened again and again."""
        while not reader.is_ending:
            try:
                with self._opened() as descriptor:
                    reader.gone = SILENT if self._path else None
                    self._read(descriptor, reader)
                gone = SILENT
            except OSError as error:
                gone = said(error)
            if self._path is None:
                return
            reader.gone = gone
            reader.wait(OPEN_SECONDS)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        if self._path is None:
            yield 0
            return
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, reader: Reader) -> None:
        """Until the writer closes. A pipe that nobody writes into yet is waited for. Raises OSError."""
        frames, before = Frames(MOST_FRAME_BYTES), reader.broken
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not reader.is_ending:
            if not poll.poll(1000 * WAIT_SECONDS):
                if self._path and not os.path.samestat(os.stat(self._path), os.fstat(descriptor)):
                    return  # another pipe has its name now
                continue
            piece = os.read(descriptor, PIECE_BYTES)
            if not piece:
                return
            reader.gone = None
            for jpeg in frames.feed(piece):
                reader.pictures.put(Arrival("", jpeg))
            reader.broken = before + frames.broken


def is_pipe(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False
