"""The memory of this process: how much it holds, and how it gives back what it no longer needs.

All figures come from Linux's /proc. The settings are glibc's. On other systems the functions that change
something have no effect.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
DEFAULT_BUDGET = "128MiB"  # the default of --memory-budget

# Constants of glibc's mallopt, and of Linux's madvise and prctl.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MADV_DONTNEED = 4
PR_SET_THP_DISABLE = 41
LARGEST_HEAP_BLOCK = 256 << 10  # bytes; larger blocks become mappings
_governed = False
# More file pages than this after the imports: files are cached in large pieces. In small ones it is 31 MiB.
LARGE_PIECES = 36 * MIB


def peak_rss_mib() -> float:
    """The highest resident set size of this process so far, in MiB.

    It reads VmHWM where /proc has it. getrusage is only the fallback: after fork and exec it may report the
    peak of a larger parent process.
    """
    status = sizes_of()
    if "VmHWM" in status:
        return status["VmHWM"] / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak * 1024 / MIB


def rss_mib() -> float:
    """The resident set size now, in MiB. Where the system does not tell: the peak."""
    status = sizes_of()
    return status["VmRSS"] / MIB if "VmRSS" in status else peak_rss_mib()


def tells_rss() -> bool:
    """Whether the system tells what this process holds at this moment (Linux, with /proc)."""
    return "VmRSS" in sizes_of()


def govern() -> None:
    """Set up the memory of the whole process for small peaks, and let budgets bound the whole process.

    The command line calls this, before numpy is imported. A library must not do it to the program that uses
    it. Without this call, nothing in the process is changed, and a budget bounds only what a call adds
    (memory/budget.py).

    From now on glibc makes a separate mapping for every large block, and returns it to the system when the
    block is freed. So the peak is the largest sum of blocks that are in use at one time. The price is a page
    fault for each page of a new block. By default, glibc would raise the threshold up to 32 MiB, and keep
    freed blocks in its heaps, one heap a thread. Other C libraries: only budgets change.

    Linux gives this process and its children no huge pages any more. One of them is 2 MiB, or 32 MiB where a
    page is 16 KiB, and all of it is resident when one byte of it is used.
    """
    global _governed
    _governed = True
    with contextlib.suppress(AttributeError, OSError, ValueError):
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_THP_DISABLE, *map(ctypes.c_ulong, (1, 0, 0, 0)))
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_HEAP_BLOCK)
        libc.mallopt(M_ARENA_MAX, 1)


def is_governed() -> bool:
    """Whether `govern` was called. If so, budgets bound the whole process."""
    return _governed


def return_freed_blocks() -> None:
    """Return freed memory from the heap to the system. Other C libraries than glibc: no effect."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        ctypes.CDLL(None).malloc_trim(0)


def release_library_pages() -> None:
    """Drop the resident pages of mapped files that this process only reads, such as libraries.

    A page that is used again comes back from the page cache. Pages that only the imports needed stay away.
    Those are most of them: some 25 MiB of numpy's and onnxruntime's code, depending on the state of the page
    cache. Nothing can be lost: a mapping is skipped if it is writable, or holds a page that only this process
    has. No effect without a call of `govern`, and where there is no /proc.
    """
    if not _governed:
        return
    with contextlib.suppress(AttributeError, OSError, ValueError):
        madvise = ctypes.CDLL(None).madvise
        in_large_pieces = sizes_of().get("RssFile", 0) > LARGE_PIECES
        clean = [mapping for mapping in _mappings() if mapping.is_clean_file and mapping.resident]
        for mapping in clean:
            madvise(ctypes.c_void_p(mapping.start), ctypes.c_size_t(mapping.size), MADV_DONTNEED)
        if in_large_pieces:
            for path in {mapping.path for mapping in clean}:
                _read_anew(path)


def _read_anew(path: str) -> None:
    """Make the page cache forget a file that this process has mapped. Unwritten changes are written first.

    Reason: a file that was just written, as by an installation, is cached in pieces of up to 2 MiB. Linux
    6.18 and later map such a piece as a whole when one page of it is used. For our libraries that is 15 MiB
    more. When the file is read again, it is cached in small pieces.
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
    """One mapping of this process, from /proc/self/smaps. Sizes are in bytes."""

    start: int
    size: int
    permissions: str
    inode: int
    path: str
    resident: int = 0
    anonymous: int = 0

    @property
    def is_clean_file(self) -> bool:
        """Whether it maps a file, cannot be written to, and has no page that only this process holds."""
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


def sizes_of(process: int | str = "self") -> dict[str, int]:
    """The sizes in a process's status by name, in bytes, such as VmRSS. Empty where it cannot be read."""
    try:
        return sizes_in(Path(f"/proc/{process}/status").read_text())
    except OSError:
        return {}


def sizes_in(text: str) -> dict[str, int]:
    """The lines `name: number kB` of a file in /proc, in bytes by name."""
    found = re.findall(r"^(\w+):[ \t]*([0-9]{1,15}) kB$", text, re.MULTILINE)
    return {name: int(number) * 1024 for name, number in found}
