"""Whether an output can be written, asked before the work: what is there, its name, the room."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import UsageError
from ..process_memory import MIB
from .files import longest_name
from .folder import WORK_SUFFIX, WorkFolder

LONGEST_PATH = 4096 - 64  # bytes of an output's path: what the system takes, less the names in OUTPUT.work


def check_output(given: str | os.PathLike[str]) -> None:
    """Raises UsageError unless `given` is, or can become, a plain file with a work folder beside it."""
    output = Path(given)
    longest = longest_name(output.parent) - len(WORK_SUFFIX)
    for what, length, most in (
        ("name", len(os.fsencode(output.name)), longest),
        ("path", len(os.fsencode(output)), LONGEST_PATH),
    ):
        if length > most:
            raise UsageError(
                f"The output {given} has a {what} of {length} bytes. OUTPUT{WORK_SUFFIX} and its files must "
                f"fit too, so that {most} bytes are the most here. Choose a shorter --output"
            )
    try:
        mode = os.stat(output).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None  # nothing there, or a link that leads to what is not there yet
    except OSError as error:
        raise UsageError(
            f"The output {given} cannot be looked up ({error.strerror}). It must be a file in a folder "
            f"that can be read and written. Check the path, or choose another --output"
        ) from error
    if os.fspath(given).endswith(os.sep) or (mode and stat.S_ISDIR(mode)):
        raise UsageError(
            f"The output {given} is a folder. The tuned prompt is one file. "
            f"Try --output {output / 'prompt.safetensors'}"
        )
    if mode and not stat.S_ISREG(mode):
        raise UsageError(
            f"The output {given} is a device, a pipe or a socket. The tuned prompt is a plain file. "
            f"Try --output prompt.safetensors"
        )
    if os.path.ismount(output):
        raise UsageError(
            f"The output {given} is a mount of its own, which no file can be moved onto. The tuned "
            f"prompt is a plain file in a folder. Mount the folder instead, or choose another --output"
        )


def space_note(work: WorkFolder, n_bytes: int) -> str | None:
    """What to say when a work folder has less room than will be written; None when there is enough.

    It is no error: a file system that compresses may have room enough, and a full disk loses no work.
    n_bytes: of crops and features; what is there from before is taken off
    """
    try:
        found = os.statvfs(work.path)
        there = sum(p.stat().st_size for p in (work.crops, work.encoded, work.features) if p.exists())
    except OSError:
        return None
    needed, free = n_bytes - there, found.f_bavail * found.f_frsize
    if not found.f_blocks or needed <= free:  # some file systems do not say how large they are
        return None
    return (
        f"note: crops and features take up to {n_bytes / MIB:,.1f} MiB in {work.path}, and "
        f"{free / MIB:,.1f} MiB are free there. When the disk is full the run stops, and the "
        f"same command goes on with it"
    )
