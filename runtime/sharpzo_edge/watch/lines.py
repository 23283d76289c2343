"""JSON lines on a descriptor: one object a line."""

from __future__ import annotations

import json
import os
from typing import Any

from ..errors import SharpzoError


class ReaderGoneError(SharpzoError):
    """Nobody reads standard output any more."""


class Lines:
    """Writes one object a line. A line that a full disk has torn is ended before the next one."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._is_torn = False

    def write(self, value: dict[str, Any]) -> None:
        """In plain ASCII. Raises SharpzoError where the line cannot be written, and ReaderGoneError."""
        rest = memoryview(b"\n" * self._is_torn + json.dumps(value).encode() + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BrokenPipeError as error:
            raise ReaderGoneError(
                "The reader of standard output has gone. Somebody has to read what comes. Type the same "
                "command again, or send the lines to /dev/null"
            ) from error
        except OSError as error:
            self._is_torn = True
            raise SharpzoError(
                f"A line is not written to standard output ({error.strerror}). It must be open and have "
                f"room. Make some; watching goes on meanwhile"
            ) from error
        self._is_torn = False
