"""One process at a time in a folder. The system forgets the lock of a process that has ended, however."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError
from .files import OpenFile, cannot

LOCK_FILE = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Its file stays: a second one of that name would be another lock.

    Raises UsageError when another process holds it, SharpzoError where there can be none.
    """
    path = folder / LOCK_FILE
    try:
        file = OpenFile(path, os.O_RDWR)
    except OSError as error:
        raise cannot("write", path, error) from error
    with file:
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another process is at work on this output: it holds {path}. One process at a time may tune "
                f"into a file. Wait until it has ended, or choose another --output"
            ) from error
        except OSError as error:
            raise cannot("lock", path, error) from error
        yield
