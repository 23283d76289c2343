"""A folder into which pictures come. Only what is new counts, and only once it is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..pictures.folder import is_sidecar
from .reader import PIECE_BYTES, Arrival, Reader, said

if TYPE_CHECKING:
    from .changes import Changes

MOST_FILES = 100_000
MOST_GROWING = 1000  # files that came together; of more, the rest is passed over
# Marks of the files now, before, and while both are put together; growing files; the observer's threads.
HELD_BYTES = 6 * 8 * MOST_FILES + (2 << 20)
COMPLETE_SECONDS = 1.0  # a file that has not changed for so long is complete
LOOK_SECONDS = 1.0  # between two looks
LOOK_SECONDS_TOLD = 10.0  # where the system tells of changes
WAKE_SECONDS = 0.1
IDLE = 9  # times as long as a look takes: large folders are looked at less often
PARTIAL_ENDINGS = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", "~")
MOUNTS = "/proc/self/mountinfo"
ESCAPE = re.compile(r"\\([0-7]{3})")  # of a space and its like, in there
# The beginnings of kinds of file systems that change from elsewhere, which this system is not told of.
REMOTE = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "afs", "virtiofs", "vboxsf", "lustre", "gfs", "ocfs")


class Folder:
    """See reader.Source. What is in the folder at the beginning is not new.

    A file is known by its name, time and size. So one that is written again is new, and the same disk that is
    taken out and put back brings nothing new.
    """

    held_bytes = HELD_BYTES
    picture_bytes = PIECE_BYTES

    def __init__(self, path: Path):
        self._path = path
        self._known: array[int] | None = None  # marks of the files, sorted; None before the first look
        self._before: array[int] = array("Q")  # of the folders that were in this place before
        self._growing: dict[int, float] = {}  # when a mark was first seen, of files that may grow
        self._identity: tuple[int, int] | None = None
        self._changes: Changes | None = None

    def read(self, reader: Reader) -> None:
        while not reader.is_ending:
            started = time.monotonic()
            for name in self._look(reader):
                reader.pictures.put(Arrival(str(self._path / name)))
            self._rest(reader, IDLE * (time.monotonic() - started))
        self._close_changes()

    def _rest(self, reader: Reader, least: float) -> None:
        """Until the next look, so many seconds at least."""
        reader.wait(least)
        is_told = self._changes is not None and not self._growing
        until = time.monotonic() + (LOOK_SECONDS_TOLD if is_told else LOOK_SECONDS)
        while not reader.is_ending and time.monotonic() < until:
            if self._changes and self._changes.happened.is_set():
                return
            reader.wait(WAKE_SECONDS)

    def _look(self, reader: Reader) -> list[str]:
        """The names of the files that are new and complete, the oldest first."""
        try:
            found = os.stat(self._path)
            if self._identity != (found.st_dev, found.st_ino):
                self._begin_anew(reader)
                self._identity = found.st_dev, found.st_ino
            names = self._new(reader)
        except OSError as error:
            self._identity = None
            self._close_changes()
            reader.gone = said(error)
            return []
        reader.gone = None
        return names

    def _begin_anew(self, reader: Reader) -> None:
        """Another folder is in this place, or the same one again. Raises OSError."""
        if self._known is not None:
            both = np.union1d(self._known, self._before)
            self._before = array("Q", both.tobytes()) if len(both) <= MOST_FILES else self._known
            self._known = array("Q")
        self._close_changes()
        if not is_remote(self._path):
            with contextlib.suppress(ImportError):
                from .changes import Changes

                try:
                    self._changes = Changes(self._path)
                except OSError as error:
                    reader.note(
                        f"note: the system does not tell of changes in {self._path} ({said(error)}); "
                        f"it is looked at every {LOOK_SECONDS:.0f} s"
                    )

    def _close_changes(self) -> None:
        if self._changes:
            self._changes.close()
            self._changes = None

    def _new(self, reader: Reader) -> list[str]:
        """One look. Raises OSError."""
        closed = self._changes.closed() if self._changes else set()
        found: array[int] = array("Q")
        growing: dict[int, float] = {}
        complete: list[tuple[int, str]] = []
        now = time.monotonic()
        with os.scandir(self._path) as entries:
            for entry in entries:
                if (mark_and_time := _mark(entry)) is None:
                    continue
                mark, changed = mark_and_time
                if len(found) == MOST_FILES:
                    raise OSError(errno.EFBIG, f"more than {MOST_FILES:,} files; move the old ones away")
                if self._known is not None and not self._is_known(mark):
                    since = self._growing.get(mark, now)
                    if entry.name not in closed and now - since < COMPLETE_SECONDS:
                        if len(growing) < MOST_GROWING:
                            growing[mark] = since
                            continue
                        reader.pictures.dropped += 1
                    else:
                        complete.append((changed, entry.name))
                found.append(mark)
        np.frombuffer(found, np.uint64).sort()
        self._known, self._growing = found, growing
        return [name for _, name in sorted(complete)]

    def _is_known(self, mark: int) -> bool:
        return any(marks and _has(marks, mark) for marks in (self._known, self._before))


def _has(marks: array[int], mark: int) -> bool:
    i = bisect_left(marks, mark)
    return i < len(marks) and marks[i] == mark


def _mark(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """64 bits for a file as it is now, and when it was changed. None: no picture by its name, or gone."""
    name = entry.name
    if name.startswith(".") or is_sidecar(name) or name.lower().endswith(PARTIAL_ENDINGS):
        return None
    try:
        found = entry.stat()
    except OSError:  # it is gone already, or a link that leads nowhere
        return None
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return None
    return hash((name, found.st_mtime_ns, found.st_size)) & (1 << 64) - 1, found.st_mtime_ns


def is_remote(folder: Path) -> bool:
    """Whether a folder is on a network's disk, or another that changes without this system's doing."""
    real, kind, longest = os.path.realpath(folder), "", -1
    with contextlib.suppress(OSError), open(MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            words = line.split(" ")
            place = ESCAPE.sub(lambda found: chr(int(found[1], 8)), words[4])
            if Path(real).is_relative_to(place) and len(place) >= longest:
                longest, kind = len(place), words[words.index("-") + 1]
    return kind.startswith(REMOTE)
