"""Every error a user may see, and the exit code it ends with.

A message has four parts, in this order: what is wrong, with which value, what is allowed, and what
to type next. `cli.py` is the one edge that prints them; anything that is not a `SharpzoError` is a
defect of ours.
"""

import errno
import os
from pathlib import Path


class SharpzoError(Exception):
    """The command could not do what it was asked to."""

    exit_code = 1


class UsageError(SharpzoError):
    """An option, a file or a folder that the user gave does not fit the command."""

    exit_code = 2


class BundleError(UsageError):
    """The bundle is missing, damaged, or made for another version."""


class ImagesError(UsageError):
    """The pictures' folder cannot be used as it is."""


class SkippedPicturesError(SharpzoError):
    """Pictures cannot be read, and --strict makes that an error."""


class ClassNameError(UsageError):
    """A class name cannot become a prompt of this bundle."""


class PromptFileError(UsageError):
    """The tuned prompt is missing, damaged, or belongs to another bundle."""


class BudgetError(SharpzoError):
    """The work does not fit in the memory budget."""

    exit_code = 3


class NumericsError(SharpzoError):
    """A tower or an estimate returned a number that cannot be used."""


class InterruptedRunError(SharpzoError):
    """The caller, or a signal, asked the work to end; what it had done is saved."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


# What no disk is to blame for, and when the same command may do.
OUT_OF = {
    errno.EMFILE: "after: ulimit -n 1024",
    errno.ENFILE: "when other programs have closed their files",
    errno.ENOMEM: "when other programs are stopped, or the limit on this one's memory is raised",
}


def is_absent(error: OSError) -> bool:
    """Whether there is no such file, as the system says, also because a folder has the name or none can."""
    none = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
    return error.errno in none


def cannot_read(path: Path, error: OSError, whole: Path | None = None) -> SharpzoError:
    """What the system refused says nothing of what is in a file or folder: it is not called damaged or empty.

    whole: the folder of files that belong together
    """
    closed = _closed(path)
    is_above = whole is None or Path(os.path.realpath(whole)).is_relative_to(closed)
    change = f"chmod a+rX {closed}" if is_above else f"chmod -R a+rX {whole}"
    number = error.errno or 0
    when = OUT_OF.get(number, "after a look at the disk or network share that it is on")
    if number in (errno.EACCES, errno.EPERM):
        when = f"after: {change}"
    return SharpzoError(
        f"Cannot read {path}: {error.strerror or error}. It and the folders above it must be readable. "
        f"Type the same command again {when}"
    )


def cannot_listen(what: str, host: str, port: int, error: OSError) -> UsageError:
    """what: the part of us that would listen"""
    number = error.errno or 0  # below 0 it is of the resolver of names, and not of the system
    why = os.strerror(number) if number > 0 else error.strerror or error
    return UsageError(
        f"{what} cannot listen on {host}, port {port} ({why}). It takes an address of this machine and a "
        f"port that nothing else uses. Try --port 0, or another --host"
    )


def _closed(path: Path) -> Path:
    """The first folder above a file that this user may not enter, links followed; else the file."""
    above = reversed(Path(os.path.realpath(path)).parents)
    return next((folder for folder in above if not os.access(folder, os.X_OK)), path)
