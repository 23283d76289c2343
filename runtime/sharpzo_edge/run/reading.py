"""Opening files that users name: never one that an open would wait for without an end."""

from __future__ import annotations

import errno
import os
import stat


class NotPlainError(OSError):
    """A pipe, a device or a socket is where a file should be."""


def plain(path: str | os.PathLike[str], flags: int) -> int:
    """The `opener` of plain files. Raises OSError, also for a pipe or a device."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise NotPlainError(errno.EINVAL, "it is a device, a pipe or a socket", os.fspath(path))
