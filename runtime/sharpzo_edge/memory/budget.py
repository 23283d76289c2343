"""The memory budget: how much may be held, and what is there before any work begins.

The command line's budget bounds the whole process: Python, numpy and onnxruntime included. Their part is
the floor. A budget that a program gives to the library bounds what the call adds to the program: then the
floor is only what onnxruntime's sessions take beside the towers.
"""

from __future__ import annotations

import math
import platform
import re
from dataclasses import dataclass

from ..errors import BudgetError, UsageError
from ..process_memory import DEFAULT_BUDGET, MIB, is_governed, release_library_pages, rss_mib

NO_LIMIT = "none"


@dataclass(frozen=True)
class Floor:
    """MiB resident with no tower: at the end of the imports; and later, while the work goes on.

    Later is less: pages that only the imports read were dropped (process_memory.release_library_pages).
    Open sessions are part of it.
    """

    imports: float
    work: float


# By onnxruntime's version and the processor's kind. The largest seen in many processes, page cache cold and
# warm, rounded up; versions and processors that are not listed count as the largest.
FLOORS = {
    ("1.31", "x86_64"): Floor(80, 60),
    ("1.32", "x86_64"): Floor(82, 62),  # 2 MiB more of its library's pages
}
CALL_FLOOR = Floor(0, 24)  # sessions, and what glibc keeps in its heaps where they are not governed


@dataclass(frozen=True)
class Budget:
    """limit_mib: infinite where there is no limit; floor: what is resident before the work.

    bounds_process: the limit is for the whole process, not for what a call adds to it
    """

    limit_mib: float
    floor: Floor
    bounds_process: bool

    @property
    def room_mib(self) -> float:
        """What the work itself may take."""
        return self.limit_mib - self.floor.work

    def require_floor(self) -> None:
        """Give back what the imports alone needed; raise BudgetError when the process is still too large.

        What is measured here may refuse, and never changes a plan. A call's budget asks for nothing.
        """
        if not self.bounds_process:
            return
        release_library_pages()
        if rss_mib() > self.floor.work and self.limit_mib < math.inf:
            raise BudgetError(
                f"This process holds {rss_mib():.0f} MiB before its work begins. Plans within a budget "
                f"reckon with at most {self.floor.work:.0f} MiB. Use another version of onnxruntime or "
                f"numpy, or type the command again with --memory-budget none"
            )


def budget_of(text: str | None, onnxruntime_version: str) -> Budget:
    """The budget that a user gave: of the process, where it is ours, otherwise of a call.

    Raises UsageError for what is not a size.
    """
    limit_mib = parse_budget(text)
    if is_governed():
        return Budget(limit_mib, floor_of(onnxruntime_version), bounds_process=True)
    return Budget(limit_mib, CALL_FLOOR, bounds_process=False)


def parse_budget(text: str | None) -> float:
    """`128MiB`, `0.5GiB`, `200MB`, `none` or None -> MiB; infinite for no limit. Raises UsageError."""
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
    """A limit in one spelling, so that two can be compared."""
    return f"{limit_mib:.17g}MiB" if math.isfinite(limit_mib) else NO_LIMIT


def floor_of(onnxruntime_version: str) -> Floor:
    """By version and processor; where those were not measured, the largest of all."""
    key = (".".join(onnxruntime_version.split(".")[:2]), platform.machine())
    known = FLOORS.values()
    return FLOORS.get(key) or Floor(max(f.imports for f in known), max(f.work for f in known))
