"""Memory and batches: what the process has used, and how many candidates run at once."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

MIB = 1 << 20

# Token rows in flight at once in a text tower. A row costs about 12 widths of float32 inside a block,
# so this many keep a 512-wide tower's activations near 25 MiB; more rows hardly run faster.
ROWS_IN_FLIGHT = 1024
CLASSES_IN_FLIGHT = 128
IMAGES_IN_FLIGHT = 4
# Entries of a (pictures, classes) block of logits: 8 MiB in float64.
LOGITS_IN_FLIGHT = 1 << 20


def candidate_batch(rows_per_candidate: int) -> int:
    """How many contexts go through the text tower at once."""
    return max(1, ROWS_IN_FLIGHT // rows_per_candidate)


def picture_block(n_classes: int) -> int:
    """How many pictures are scored at once."""
    return max(1, LOGITS_IN_FLIGHT // n_classes)


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


def _proc_status() -> dict[str, int]:
    """The sizes in /proc/self/status, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in sizes}
