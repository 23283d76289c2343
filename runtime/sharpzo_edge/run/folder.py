"""The work folder, OUTPUT.work: every file in it, and its lock.

lock                    held while a process works on the output
log.jsonl               what happened, for people and the report; no run reads it back
run.json                the command that the folder is for, and its result once there is one
machine.json            what the machine could give when the run began
crops.journal           pictures that were read, or why they could not be; until all are encoded
features.journal        image features, batch by batch; until all are encoded
features.npy            all image features
pictures.json           which pictures features.npy was made of
checkpoint.safetensors  the run at its last save; until it is finished
answers.json            what each drawn picture is answered, left out of what it is answered by
report.html             the report of the finished run
fleet.json              what a run of a fleet keeps of its members
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .files import CHECKPOINT_SECONDS, OpenFile, cannot, make_folder, remove
from .journal import Journal

WORK_SUFFIX = ".work"
LOCK, LOG = "lock", "log.jsonl"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # some network and FUSE disks


def is_work_folder(path: Path) -> bool:
    """Whether a folder is one of these, by its name and its lock."""
    return path.name.endswith(WORK_SUFFIX) and (path / LOCK).is_file()


@dataclass(frozen=True)
class WorkFolder:
    """checkpoint_seconds: the most work that a power cut takes."""

    path: Path
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    @classmethod
    def of(cls, output: Path, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> WorkFolder:
        """The one beside an output."""
        return cls(output.with_name(f"{output.name}{WORK_SUFFIX}"), checkpoint_seconds)

    @property
    def log(self) -> Path:
        return self.path / LOG

    @property
    def record(self) -> Path:
        return self.path / "run.json"

    @property
    def machine(self) -> Path:
        return self.path / "machine.json"

    @property
    def crops(self) -> Path:
        return self.path / "crops.journal"

    @property
    def encoded(self) -> Path:
        return self.path / "features.journal"

    @property
    def features(self) -> Path:
        return self.path / "features.npy"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures.json"

    @property
    def answers(self) -> Path:
        return self.path / "answers.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def fleet(self) -> Path:
        return self.path / "fleet.json"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def make(self) -> None:
        """Make the folder unless it is there. Raises UsageError, SharpzoError."""
        try:
            make_folder(self.path)
        except FileNotFoundError as error:
            raise UsageError(
                f"Cannot make the work folder {self.path} ({error.strerror}). The output's folder must "
                f"exist and be writable. Make it, or choose another --output"
            ) from error
        except OSError as error:
            raise cannot("make", self.path, error) from error

    def clear(self, but: Collection[Path] = ()) -> None:
        """Remove an earlier run, but some of its files; the lock stays, and the log, which is open."""
        try:
            found = [*self.path.iterdir()]
        except OSError as error:
            raise cannot("read", self.path, error) from error
        for path in found:
            if path.name not in (LOCK, LOG) and path not in but and not path.is_dir():
                remove(path)

    def journal(self, path: Path, key: str, largest: int, fits: Callable[[int, bytes], bool]) -> Journal:
        """One of the journals; see Journal."""
        return Journal(path, key, largest, self.checkpoint_seconds, fits)

    @contextlib.contextmanager
    def locked(self, on_missing: Callable[[str], None] = lambda line: None) -> Iterator[None]:
        """Hold the lock: one process at a time. The system forgets the lock of a process that has ended.

        The lock's file stays: a second one of that name would be another lock.
        on_missing: is told where the file system has no locks
        Raises UsageError when another process holds it, SharpzoError where there can be none.
        """
        path = self.path / LOCK
        try:
            file = OpenFile(path, os.O_RDWR)
        except OSError as error:
            raise cannot("write", path, error) from error
        with file:
            try:
                fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"Another process is at work on this output: it holds {path}. One process at a time may "
                    f"tune into a file. Wait until it has ended, or choose another --output"
                ) from error
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise cannot("lock", path, error) from error
                on_missing(
                    "note: this file system has no locks. Do not tune into one output twice at the same time"
                )
            yield
