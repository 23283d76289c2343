"""What this machine can give to this process: memory, and cores.

Linux tells it in /proc and /sys. Every bound counts: the system's, that of each control group (a container's
or a service's, version 1 and 2), and that of this process alone (ulimit -v). What is not told bounds nothing.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .process_memory import MIB, sizes_in

PROC, CGROUPS, CPUS = Path("/proc"), Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu")
MOST_CHARACTERS = 1 << 20  # of a file: those that are read here are far smaller
LARGEST = 1 << 60  # a limit of that many bytes is none: the first version of groups writes it so
SPARE_MIB = 16  # of the free memory: for what others take while the work goes on
# Address space that is taken and never used: the arena of a streamed tower grows by powers of two.
UNUSED_BYTES = 32 << 20
STACK_BYTES = 8 << 20  # of a thread, where no limit says it
# The files of a control group, by version.
LIMITS = {1: ("memory.limit_in_bytes",), 2: ("memory.max", "memory.high")}
USAGE = {1: "memory.usage_in_bytes", 2: "memory.current"}
FILE_PAGES = {1: ("total_inactive_file", "total_active_file"), 2: ("inactive_file", "active_file")}

SYSTEM, GROUP, ULIMIT = "free memory", "the limit of this container or service", "ulimit -v"
# What to do where there is too little, by what bounds it.
WAYS_OUT = {
    SYSTEM: "Stop other programs",
    GROUP: "Raise that limit",
    ULIMIT: "Raise that limit, or lift it: ulimit -v unlimited",
}


@dataclass(frozen=True)
class Machine:
    """What could be had when it was read.

    cores:    that this process may use; the hardware threads of one core are one
    free_mib: memory that this process may take beside what it holds; None where nothing tells
    held_mib: what it held itself, of memory that no file backs: it is not part of free_mib
    bound:    what leaves so little: SYSTEM, GROUP or ULIMIT
    reading:  bytes a second that its disk reads; None where that was not measured
    """

    cores: int
    free_mib: float | None
    held_mib: float
    bound: str
    reading: float | None = None


def this_machine(threads: int = 0) -> Machine:
    """What this machine can give now. Never raises. threads: that the work will start; 0 is one a core."""
    cores = usable_cores()
    status = sizes_in(_text(PROC / "self/status"))
    found = {
        SYSTEM: _less(parse_meminfo(_text(PROC / "meminfo")), SPARE_MIB * MIB),
        GROUP: _left_by_groups(),
        ULIMIT: _less(_left_of_address_space(status), (threads or cores) * _stack_bytes() + UNUSED_BYTES),
    }
    known = {name: n_bytes for name, n_bytes in found.items() if n_bytes is not None}
    bound = min(known, key=known.__getitem__, default=SYSTEM)
    free = known.get(bound)
    held = status.get("RssAnon", 0) + status.get("RssShmem", 0)
    return Machine(cores, None if free is None else free / MIB, held / MIB, bound)


def usable_cores() -> int:
    """Cores that this process may use: by its affinity, and by the processor time that its groups allow."""
    threads = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not threads:
        return os.cpu_count() or 1
    siblings = {_text(CPUS / f"cpu{i}/topology/thread_siblings_list").strip() or str(i) for i in threads}
    return max(1, min([len(siblings), *(math.ceil(quota) for quota in _quotas())]))


def parse_meminfo(text: str) -> int | None:
    """MemAvailable of /proc/meminfo, in bytes. None where it is not told."""
    return sizes_in(text).get("MemAvailable")


def parse_groups(text: str) -> list[tuple[tuple[str, ...], str]]:
    """The groups of /proc/self/cgroup: controllers, none in version 2, and the group's path."""
    found = []
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and parse_number(number) is not None and "\0" not in path and ".." not in path.split("/"):
            found.append((tuple(filter(None, controllers.split(","))), path.strip("/")))
    return found


def parse_limit(text: str) -> int | None:
    """A limit of a group, in bytes. None where there is none ("max"), and where it is no number."""
    number = parse_number(text.strip())
    return number if number is not None and number < LARGEST else None


def parse_counts(text: str) -> dict[str, int]:
    """The lines `name number` of a file such as memory.stat."""
    words = (line.split() for line in text.splitlines())
    numbers = {pair[0]: parse_number(pair[1]) for pair in words if len(pair) == 2}
    return {name: number for name, number in numbers.items() if number is not None}


def parse_quota(quota: str, period: str) -> float | None:
    """How many cores' time a group may use. None without a limit."""
    most, each = parse_number(quota), parse_number(period)
    return most / each if most and each else None


def parse_number(word: str) -> int | None:
    """A plain decimal number of a size that a kernel writes; None for anything else."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 20 else None


def _text(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MOST_CHARACTERS)
    except OSError:
        return ""


def _less(n_bytes: int | None, taken: int) -> int | None:
    return None if n_bytes is None else max(0, n_bytes - taken)


def _left_by_groups() -> int | None:
    """Bytes that the control groups leave; None without a limit. Pages of files count as free."""
    left = []
    for group, version in _groups("memory"):
        limits = [parse_limit(_text(group / name)) for name in LIMITS[version]]
        known = [limit for limit in limits if limit is not None]
        usage = parse_number(_text(group / USAGE[version]).strip())
        if known and usage is not None:
            counts = parse_counts(_text(group / "memory.stat"))
            held = usage - sum(counts.get(name, 0) for name in FILE_PAGES[version])
            left.append(max(0, min(known) - max(0, held)))
    return min(left, default=None)


def _quotas() -> Iterator[float]:
    """How many cores' time each of the control groups allows, where it has a limit."""
    for group, version in _groups("cpu"):
        if version == 2:
            quota, _, period = _text(group / "cpu.max").strip().partition(" ")
        else:
            quota, period = (_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if found := parse_quota(quota, period):
            yield found


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of this process's groups and of all above them, and the version of each.

    In a container the path may be the host's, and only the topmost folder is there.
    """
    for controllers, path in parse_groups(_text(PROC / "self/cgroup")):
        if controllers and controller not in controllers:
            continue
        top, version = (CGROUPS / controller, 1) if controllers else (CGROUPS, 2)
        group = top / path
        yield from ((each, version) for each in (group, *group.parents) if each.is_relative_to(top))


def _left_of_address_space(status: dict[str, int]) -> int | None:
    """Bytes that this process may still map under ulimit -v; None without a limit."""
    limit = _soft_limit(resource.RLIMIT_AS)
    return None if limit is None or "VmSize" not in status else max(0, limit - status["VmSize"])


def _stack_bytes() -> int:
    return _soft_limit(resource.RLIMIT_STACK) or STACK_BYTES


def _soft_limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft
