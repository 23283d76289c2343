"""The libraries that this program is made of, and what to say where one of them cannot be imported.

The advice is one that works without any of them: whatever is missing, this Python's pip installs it anew.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import re
import site
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from .errors import SharpzoError, UsageError, cannot_read, is_absent

OURS = ("sharpzo_edge", "sharpzo_export")
PACKAGE_OF = {"PIL": "pillow", "open_clip": "open_clip_torch"}  # others are named like their module
IMPORT = re.compile(r"\s*(?:from|import) (\w+)")
LONGEST_SAID = 300
IMPORTER = "<frozen importlib"
OWN_FILES = "/proc/self/fd"
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"  # a variable of the environment; see clip/quiet_onnxruntime
# In what a loader says when a library finds no memory.
NO_MEMORY = ("failed to map segment", "cannot allocate memory", "memory allocation", "memoryerror", "enomem")
# What the system may refuse a library's file for a reason of the moment; a loader says it in words alone.
REFUSALS = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE)
SYSTEMS_FILE = re.compile(r"(lib\S+\.so\S*): cannot open shared object file: No such file")


def is_about_memory(text: str) -> bool:
    """Whether the last words of an import are about memory, and not about the library."""
    return any(words in text.lower() for words in NO_MEMORY)


def install_anew(package: str) -> str:
    """What to type. package: its name, or with a version."""
    return f"{sys.executable or 'python3'} -m pip install --force-reinstall '{package}'"


@contextlib.contextmanager
def needing(extra: str, what: str, beside: str = "All other commands work without it") -> Iterator[None]:
    """For imports of what an extra installs. Raises UsageError where a library is not there.

    what: what needs the extra;  beside: a sentence on what does not
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", *OURS) or library in sys.stdlib_module_names:
            raise
        raise without_extra(extra, what, library, beside) from error


def without_extra(extra: str, what: str, library: str, beside: str) -> UsageError:
    """See needing."""
    return UsageError(
        f"{what} needs the extra [{extra}], and {library} is not installed here. {beside}. "
        f"Type: pip install '.[{extra}]' in the clone of sharpzo-edge. Where you have its wheel, type the "
        f"wheel's name in place of the dot"
    )


def is_without_proc() -> bool:
    """Whether this is a Linux where /proc is not mounted: onnxruntime aborts, or refuses to read weights."""
    return sys.platform.startswith("linux") and not os.path.isdir(OWN_FILES)


def without_proc() -> SharpzoError:
    return SharpzoError(
        f"onnxruntime needs /proc, and {OWN_FILES} is not there. It must be mounted. "
        f"Type: mount -t proc proc /proc, or give /proc to this container"
    )


def not_as_installed(why: str) -> SharpzoError:
    """What to say where a file that comes with sharpzo-edge is missing or damaged. why: its first sentence"""
    return SharpzoError(
        f"A file of sharpzo-edge itself is not as it was installed: {why.partition('. ')[0]}. Each must be "
        f"whole. Go to the clone of sharpzo-edge. Type there: {install_anew('.')}. Where you have its wheel, "
        f"type the wheel's name in place of the dot"
    )


def is_of_a_library(error: BaseException) -> bool:
    """Whether an error that a function has caught was raised while a module was imported, or lacks a part."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_importing = any(c.co_name == "<module>" or c.co_filename.startswith(IMPORTER) for c in codes)
    is_unreadable = isinstance(error, (ImportError, SyntaxError))  # Python leaves out where it came from
    return is_importing or is_unreadable or _module_without(error) is not None


def not_imported(error: Exception) -> SharpzoError:
    """What to say of an error that an import has raised, whatever its kind: a damaged file has many."""
    library = _asked_for(error)
    first: BaseException = error
    while first.__cause__:  # numpy's own error is a page of advice; what it stands for is behind it
        first = first.__cause__
    said = " ".join(str(first).split())[:LONGEST_SAID].rstrip(".") or type(first).__name__
    if is_about_memory(f"{type(first).__name__}: {said}"):
        return SharpzoError(
            f"Not enough memory to load a library ({said}). It takes some 130 MiB, on this machine and "
            f"within any limit on this program (ulimit, a container). Stop other programs, or raise the "
            f"limit. Then type the same command again"
        )
    if refused := _refused(first):
        return refused
    named = (first.name or "").partition(".")[0] if isinstance(first, ImportError) else ""
    if library in OURS and named:  # a library's own function has imported it
        library = named
    for name in (library, named):
        if other := _in_its_way(name):
            return SharpzoError(
                f"{other} is imported in place of Python's module or library {name}, whose name it has: "
                f"{said}. Such a name must be the library's alone. Rename it, or type the same command again "
                f"in another folder and without PYTHONPATH"
            )
    if {library, named} & sys.stdlib_module_names:
        return SharpzoError(
            f"The Python {sys.executable} is not complete: {said}. All modules that come with Python must be "
            f"there. Install Python anew, or make a virtual environment with another one. Type "
            f"there, in the clone of sharpzo-edge: python3 -m pip install ."
        )
    if library in OURS:
        return not_as_installed(said)
    lost = SYSTEMS_FILE.search(said)
    also = f". If {lost[1]} is missing then too, install your system's package that has it" if lost else ""
    return SharpzoError(
        f"The library {library} cannot be imported: {said}. It must be whole, and made for this Python and "
        f"this processor. Type: {install_anew(_requirement(library))}{also}"
    )


def _asked_for(error: Exception) -> str:
    """The library that our own code has imported or asked; one of OURS when it is our own file."""
    if module := _module_without(error):
        return module
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_ours(frame.filename):
            found = IMPORT.match(frame.line or "")
            return found[1] if found else OURS[0]
    return OURS[0]


def _module_without(error: BaseException) -> str | None:
    """The library that lacks a name: an empty file is left of it, or it is another version."""
    if not isinstance(error, AttributeError) or not isinstance(error.obj, ModuleType):
        return None
    name = error.obj.__name__.partition(".")[0]
    return None if name in OURS else name


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(Path(__file__).parent) or OURS[1] in Path(file).parts


def _in_its_way(name: str) -> str | None:
    """The file or folder of a module that was found outside of this Python's own folders."""
    try:
        found = importlib.util.find_spec(name) if name not in ("", *OURS) else None
    except (ImportError, OSError, ValueError):
        return None
    places = [*(found.submodule_search_locations or [found.origin or ""])] if found else []
    own = [prefix for prefix in (sys.prefix, sys.base_prefix, site.USER_BASE) if prefix]
    return next((place for place in places if os.path.isabs(place) and not _is_below(place, own)), None)


def _is_below(place: str, folders: Sequence[str]) -> bool:
    return any(Path(place).is_relative_to(folder) for folder in folders)


def _refused(error: BaseException) -> SharpzoError | None:
    """The error for a file that the system does not let be read."""
    if isinstance(error, OSError) and error.errno and not is_absent(error):
        return cannot_read(Path(error.filename or sys.prefix), error)
    if isinstance(error, ImportError) and error.path:
        for number in REFUSALS:
            if os.strerror(number) in str(error):
                return cannot_read(Path(error.path), OSError(number, os.strerror(number)))
    return None


def _requirement(library: str) -> str:
    """The package that has a library, with the versions that this program takes."""
    from importlib import metadata  # it imports much, and is seldom needed

    package = PACKAGE_OF.get(library, library)
    try:
        known = metadata.requires("sharpzo-edge") or []
    except metadata.PackageNotFoundError:
        known = []
    needed = (each for each in known if ";" not in each and re.match(rf"{package}\b", each, re.IGNORECASE))
    return next(needed, package)
