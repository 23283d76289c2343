"""The memory of this process: what it has used, and how it gives back what it needs no longer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
DEFAULT_BUDGET = "128MiB"  # the most that a process may hold, unless the user says otherwise

# glibc's mallopt and Linux's madvise, by number.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MADV_DONTNEED = 4
LARGEST_HEAP_BLOCK = 256 << 10
_governed = False
LARGE_PIECES = 36 * MIB  # of files resident after the imports: 31 where they are cached page by page


def peak_rss_mib() -> float:
    """Highest resident set size of this process so far, in MiB.

    VmHWM, where there is one: getrusage would report a fat parent's peak through fork and exec.
    """
    status = _proc_status()
    if "VmHWM" in status:
        return status["VmHWM"] / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak * 1024 / MIB


def rss_mib() -> float:
    """Resident set size now, in MiB (the peak where the system does not tell)."""
    status = _proc_status()
    return status["VmRSS"] / MIB if "VmRSS" in status else peak_rss_mib()


def anonymous_mib() -> float | None:
    """The part of it that no file backs, in MiB; None where the system does not tell."""
    status = _proc_status()
    return status["RssAnon"] / MIB if "RssAnon" in status else None


def available_mib() -> float | None:
    """Memory that programs can still get, in MiB; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / MIB
    return None


def govern() -> None:
    """This process is ours: from now on its memory is set up for small peaks. The command line calls it.

    Every large block becomes a mapping of its own, which goes back to the system when it is freed; so the
    peak is the largest sum of what is alive. Its pages come one fault at a time, which costs. glibc would
    raise that threshold to 32 MiB by itself and keep freed blocks in its heaps, one a thread. Other C
    libraries: no effect. Also, budgets bound the whole process from now on (memory/budget.py). A library
    must not do this to the program that uses it, so without this call nothing of the process is changed.
    """
    global _governed
    _governed = True
    with contextlib.suppress(AttributeError, OSError, ValueError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_HEAP_BLOCK)
        libc.mallopt(M_ARENA_MAX, 1)


def is_governed() -> bool:
    """Whether `govern` was called."""
    return _governed


def return_freed_blocks() -> None:
    """Give freed memory back to the system. Other C libraries than glibc: no effect."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        ctypes.CDLL(None).malloc_trim(0)


def release_library_pages() -> None:
    """Drop the pages of libraries and other files that are mapped here and were only ever read.

    Where the process is not ours (see govern): no effect.

    What is touched again comes back from the page cache; what only the imports needed stays away, which is
    most of it (some 25 MiB of numpy's and onnxruntime's code, more or less by the state of the page
    cache). Nothing can be lost: a mapping is left alone when it may be written to or holds a page that is
    the process's own. Where there is no /proc: no effect.
    """
    if not _governed:
        return
    with contextlib.suppress(AttributeError, OSError, ValueError):
        madvise = ctypes.CDLL(None).madvise
        in_large_pieces = _proc_status().get("RssFile", 0) > LARGE_PIECES
        clean = [mapping for mapping in _mappings() if mapping.is_clean_file and mapping.resident]
        for mapping in clean:
            madvise(ctypes.c_void_p(mapping.start), ctypes.c_size_t(mapping.size), MADV_DONTNEED)
        if in_large_pieces:
            for path in {mapping.path for mapping in clean}:
                _read_anew(path)


def _read_anew(path: str) -> None:
    """Let the page cache forget a file that this process has mapped, after writing what is unwritten of it.

    Files that were written a moment ago, by an installation, are cached in pieces of up to 2 MiB, and Linux
    from 6.18 on maps such a piece whole when one page of it is touched: 15 MiB more for our libraries.
    Read anew, they are cached in small pieces.
    """
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


@dataclass
class _Mapping:
    """One entry of /proc/self/smaps; sizes in bytes."""

    start: int
    size: int
    permissions: str
    inode: int
    path: str
    resident: int = 0
    anonymous: int = 0

    @property
    def is_clean_file(self) -> bool:
        return self.inode != 0 and "w" not in self.permissions and self.anonymous == 0


def _mappings() -> Iterator[_Mapping]:
    mapping = None
    with open("/proc/self/smaps") as lines:
        for line in lines:
            first, *rest = line.split()
            if not first.endswith(":"):
                if mapping:
                    yield mapping
                start, end = (int(address, 16) for address in first.split("-"))
                mapping = _Mapping(start, end - start, rest[0], int(rest[3]), " ".join(rest[4:]))
            elif mapping and first == "Rss:":
                mapping.resident = int(rest[0]) << 10
            elif mapping and first == "Anonymous:":
                mapping.anonymous = int(rest[0]) << 10
    if mapping:
        yield mapping


def _proc_status() -> dict[str, int]:
    """The sizes in /proc/self/status, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in sizes}
