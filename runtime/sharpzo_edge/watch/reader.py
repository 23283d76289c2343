"""The thread that reads the source: it finds the newest picture, and whether the source is there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from .latest import END_SECONDS, Latest

PIECE_BYTES = 64 << 10
NOT_YET = "it was not looked at yet"


@dataclass(frozen=True)
class Arrival:
    """A picture that came. image: its path, "" of a stream;  data: its bytes, None where it has a path"""

    image: str
    data: bytes | None = None

    @property
    def picture(self) -> bytes | Path:
        """As a Classifier takes it."""
        return Path(self.image) if self.data is None else self.data


class Source(Protocol):
    """Where pictures come from.

    held_bytes: the most that it and one picture that waits take
    picture_bytes: the most that a picture takes which is only passed on
    """

    held_bytes: int
    picture_bytes: int

    def read(self, reader: Reader) -> None:
        """Tell the reader what comes, until it is ending or nothing can come any more."""


class Reader:
    """Reads a source in a thread of its own. A context manager.

    pictures: the newest one; where another was not taken yet, that one gives way
    broken:   how many pictures were none before anybody looked at them
    gone:     why the source is not there at the moment; None: it is
    """

    def __init__(self, source: Source, note: Callable[[str], None]):
        """note: is told what a person should know"""
        self.pictures: Latest[Arrival] = Latest()
        self.broken = 0
        self.gone: str | None = NOT_YET
        self.note = note
        self._source = source
        self._error: BaseException | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def is_ending(self) -> bool:
        return self._ending.is_set()

    def wait(self, seconds: float) -> None:
        """In the thread: do nothing for a while, unless it is ending."""
        self._ending.wait(seconds)

    @property
    def has_ended(self) -> bool:
        """Nothing can come any more. Raises what ended the thread, if it was an error."""
        if self._error:
            raise self._error
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ending.set()
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        try:
            self._source.read(self)
        except BaseException as error:  # it is the main thread's to say
            self._error = error


def said(error: OSError) -> str:
    """The reason in the system's words."""
    return error.strerror or os.strerror(error.errno or 0)
