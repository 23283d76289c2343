"""How fast the disk reads: an SD card may be a hundred times slower than the page cache."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 1 << 20
MOST_BYTES, MOST_SECONDS = 64 << 20, 3.0  # of a measurement


@dataclass(frozen=True)
class ReadingSpeed:
    """bytes_a_second;  is_cold: whether it is the disk's, since the page cache had not one of the pieces"""

    bytes_a_second: float
    is_cold: bool


def reading_speed(path: Path) -> ReadingSpeed:
    """Read the beginning of a file, after the page cache was asked to forget it; at most some seconds long.

    The cache may keep it all the same: another program has it mapped, or the disk is memory. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if hasattr(os, "posix_fadvise"):
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        is_cold = not _is_cached(descriptor)
        started, done, buffer = time.monotonic(), 0, bytearray(PIECE_BYTES)
        while done < MOST_BYTES and time.monotonic() - started < MOST_SECONDS:
            n = os.preadv(descriptor, [buffer], done)
            done += n
            if n < PIECE_BYTES:
                break
        return ReadingSpeed(done / max(time.monotonic() - started, 1e-6), is_cold)
    finally:
        os.close(descriptor)


def _is_cached(descriptor: int) -> bool:
    """Whether the first piece of a file can be read without waiting for the disk."""
    try:
        os.preadv(descriptor, [bytearray(PIECE_BYTES)], 0, os.RWF_NOWAIT)
    except OSError as error:
        return error.errno != errno.EAGAIN
    return True
