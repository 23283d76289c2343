"""The memory budget: its size, what the machine leaves of it, and the floor: what is there before any work.

There are two kinds of budget. The command line's budget bounds the whole process, Python, numpy and
onnxruntime included; the floor is their part. A budget that a program gives to the library bounds only what
the call adds to the program; its floor is only what onnxruntime's sessions take beside the towers.
"""

from __future__ import annotations

import math
import platform
import re
from dataclasses import dataclass, replace

from ..clip.bundle import Bundle
from ..clip.tower_plan import CACHE_READING
from ..errors import BudgetError, UsageError
from ..machine import WAYS_OUT, Machine, this_machine
from ..process_memory import DEFAULT_BUDGET, MIB, is_governed, release_library_pages, rss_mib, tells_rss
from ..storage import reading_speed

NO_LIMIT = "none"


@dataclass(frozen=True)
class Floor:
    """MiB that are resident without any tower.

    imports: at the end of the imports
    work:    later, while the work goes on, open sessions included. It is smaller: pages that only the imports
             used were dropped (process_memory.release_library_pages)
    """

    imports: float
    work: float


# Key: onnxruntime's version and the kind of processor. Value: the largest floor seen in many processes, with
# a cold and a warm page cache, rounded up. What is not listed gets the largest floor of the list.
FLOORS = {
    ("1.31", "x86_64"): Floor(80, 60),
    ("1.32", "x86_64"): Floor(82, 62),  # its library has 2 MiB more of resident pages
}
# The same on kernels before Linux 6.18, which maps large pieces of cached files as a whole (process_memory).
# docs/boards.md has the measurements, with pages of 4 and of 16 KiB.
EARLIER_KERNELS = (6, 18)
FLOORS_ON_EARLIER_KERNELS = {
    ("1.23", "aarch64"): Floor(58, 56),
    ("1.32", "aarch64"): Floor(64, 58),  # 61.6 was seen, and 59.7 by another run
}
# What Dask adds to it on a board of a fleet: its libraries, its threads, and messages on their way.
ENGINE = Floor(40, 20)
CALL_FLOOR = Floor(0, 24)  # sessions, and what glibc keeps in its heaps without `govern`


@dataclass(frozen=True)
class Budget:
    """How much memory a command or a call may take.

    asked_mib:      the most that the user allows, in MiB; infinite without a limit
    floor:          what is resident before the work
    bounds_process: True: the limit is for the whole process. False: for what the call adds to it
    machine:        what the machine can give; None: it is not asked
    """

    asked_mib: float
    floor: Floor
    bounds_process: bool
    machine: Machine | None = None

    @property
    def limit_mib(self) -> float:
        """The most, in MiB: what the user allows, or what the machine can give where that is less."""
        return min(self.asked_mib, self.given_mib)

    @property
    def given_mib(self) -> float:
        """The most that the machine can give; infinite where it does not tell."""
        return math.inf if self.machine is None else self._given_by(self.machine)

    def _given_by(self, machine: Machine) -> float:
        if machine.free_mib is None:
            return math.inf
        return machine.free_mib + (machine.held_mib if self.bounds_process else 0.0)

    def reading(self, n_bytes: int) -> float:
        """Bytes a second at which a file of n_bytes is read again: from the page cache, if it has room."""
        if self.machine is None or self.machine.reading is None:
            return CACHE_READING
        return CACHE_READING if n_bytes <= cache_bytes(self.machine, self.asked_mib) else self.machine.reading

    @property
    def room_mib(self) -> float:
        """What the work may take beside the floor, in MiB."""
        return self.limit_mib - self.floor.work

    @property
    def note(self) -> str | None:
        """What to say before the work where the machine has less than the user allows."""
        if self.machine is None or self.given_mib >= self.asked_mib:
            return None
        given = f"{self.given_mib:,.0f} MiB that this machine can give ({self.machine.bound})"
        if self.asked_mib == math.inf:
            return f"no limit was asked for: the work keeps within the {given}"
        return f"{self.asked_mib:,.0f} MiB are allowed, and the work keeps within the {given}"

    def require_given(self, smallest_mib: float, model: str) -> None:
        """Check that the machine can give what the smallest plan takes. Raises BudgetError."""
        if self.machine is not None and smallest_mib > self.given_mib:
            raise BudgetError(
                f"This machine can give {self.given_mib:.0f} MiB ({self.machine.bound}), which is too little "
                f"for {model} on this work. The smallest plan takes {smallest_mib:.0f} MiB. "
                f"{WAYS_OUT[self.machine.bound]}, and type the same command again"
            )

    def require_machine(self, peak_mib: float, machine: Machine) -> None:
        """Check that a plan, made earlier, is still within what the machine can give now.

        Raises BudgetError.
        """
        if peak_mib > self._given_by(machine):
            raise BudgetError(
                f"The run was planned with {peak_mib:.0f} MiB, and this machine can give "
                f"{self._given_by(machine):.0f} MiB now ({machine.bound}). A run keeps the plan that it "
                f"began with. {WAYS_OUT[machine.bound]}, and type the same command again, or start over with "
                f"--restart"
            )

    def require_floor(self) -> None:
        """Drop the pages that only the imports used, then check that the process is within its floor.

        Raises BudgetError when it is larger and there is a limit. This measurement can only refuse; it never
        changes a plan. No effect for the budget of a call.
        """
        if not self.bounds_process:
            return
        release_library_pages()
        if not tells_rss():
            return
        if rss_mib() > self.floor.work and self.asked_mib < math.inf:
            raise BudgetError(
                f"This process holds {rss_mib():.0f} MiB before its work begins. Plans within a budget "
                f"reckon with {self.floor.work:.0f} MiB for Python, numpy and onnxruntime. Something "
                f"else is loaded here, or their versions take more. Type it again with --memory-budget none"
            )


def machine_for(bundle: Bundle, threads: int, budget: str | None) -> Machine:
    """What this machine can give now. Where it cannot cache the weights, its disk is timed, for some seconds.

    threads, budget: as the user gave them
    """
    machine, files = this_machine(threads), bundle.manifest.files
    largest = max((bundle.manifest.text.data, bundle.manifest.image.data), key=lambda name: files[name].size)
    if files[largest].size <= cache_bytes(machine, parse_budget(budget)):
        return machine
    with bundle.reading(largest):
        found = reading_speed(bundle.path(largest)).bytes_a_second
    # In steps of two: the same disk shall give the same plan.
    return replace(machine, reading=2.0 ** round(math.log2(max(found, 1.0))))


def cache_bytes(machine: Machine, asked_mib: float) -> float:
    """What the machine has left to cache files, beside the work; half of all where no limit was asked for."""
    if machine.free_mib is None:
        return math.inf
    return (machine.free_mib - min(asked_mib, machine.free_mib / 2)) * MIB


def budget_of(
    text: str | None, onnxruntime_version: str, machine: Machine | None = None, in_fleet: bool = False
) -> Budget:
    """The budget for the text that a user gave (see parse_budget), and the floor that belongs to it.

    machine: what it can give bounds the budget, too;  in_fleet: whether Dask is in this process
    It bounds the process after process_memory.govern was called, otherwise the call. Raises UsageError for a
    text that is not a size.
    """
    asked_mib = parse_budget(text)
    if is_governed():
        floor = floor_of(onnxruntime_version)
        if in_fleet:
            floor = Floor(floor.imports + ENGINE.imports, floor.work + ENGINE.work)
        if not tells_rss():  # without /proc no pages are given back either
            floor = Floor(floor.imports, floor.imports)
        return Budget(asked_mib, floor, bounds_process=True, machine=machine)
    return Budget(asked_mib, CALL_FLOOR, bounds_process=False, machine=machine)


def parse_budget(text: str | None) -> float:
    """A size as text, in MiB: `128MiB`, `0.5GiB`, `200MB`. Infinite for `none` or None.

    Raises UsageError for any other text.
    """
    if text is None or text == NO_LIMIT:
        return math.inf
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?(MiB|GiB|MB|GB)", text)
    if not match or not float(match[1]) > 0:
        raise UsageError(
            f"--memory-budget {text} is not a size. It takes a number with MiB, GiB, MB or GB, or none. "
            f"Try --memory-budget {DEFAULT_BUDGET}"
        )
    return float(match[1]) * {"MiB": MIB, "GiB": MIB << 10, "MB": 1e6, "GB": 1e9}[match[2]] / MIB


def spelt(limit_mib: float) -> str:
    """A limit in one fixed spelling, so that two limits can be compared as text."""
    return f"{limit_mib:.17g}MiB" if math.isfinite(limit_mib) else NO_LIMIT


def floor_of(onnxruntime_version: str) -> Floor:
    """The measured floor for a version of onnxruntime on this processor and kernel.

    Where these were not measured: the largest of all measured floors.
    """
    key = (".".join(onnxruntime_version.split(".")[:2]), platform.machine())
    known = FLOORS.values()
    found = FLOORS.get(key) or (FLOORS_ON_EARLIER_KERNELS.get(key) if _is_earlier_kernel() else None)
    return found or Floor(max(f.imports for f in known), max(f.work for f in known))


def _is_earlier_kernel() -> bool:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", platform.release())
    return found is not None and (int(found[1]), int(found[2])) < EARLIER_KERNELS
