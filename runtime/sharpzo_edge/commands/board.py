"""What a board tells of itself, for the doctor: pages, processor, power, and how fast its disk reads.

What a machine does not tell is no defect: these checks say so, and are well.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from ..machine import usable_cores
from ..processor import this_processor
from ..storage import reading_speed

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")  # a Raspberry Pi's
VCGENCMD_SECONDS = 5
# Bits of get_throttled: of now, and of some time since the start.
UNDER_VOLTAGE, SLOWED = 1 << 0, 1 << 1 | 1 << 2 | 1 << 3
SINCE_START = 16  # such bits, so many places higher


def pages_found() -> str:
    """The size of a page, and whether programs get huge ones; commands turn these off for themselves."""
    try:
        chosen = re.search(r"\[(\w{1,20})\]", HUGE_PAGES.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        chosen = None
    huge = f"huge pages {chosen[1]}, never in a command" if chosen else "no huge pages"
    return f"{os.sysconf('SC_PAGE_SIZE') >> 10} KiB, {huge}"


def processor_found() -> str:
    found = this_processor()
    cores = usable_cores()
    if found.has_int8_dot is None:
        dot = "whether it has int8 dot products is not told"
    else:
        dot = f"int8 dot products {', '.join(found.int8_dot or ()) or 'missing'}"
    name = found.name or found.machine
    tangents = f"tangents in {'8 bits' if found.has_int8_dot else 'float32'}"
    return f"{name}, {cores} core{'s' * (cores != 1)} for this process, {dot}: {tangents}"


def power_found() -> tuple[bool, str]:
    """Whether the power supply is enough now, and what the board tells of voltage and throttling."""
    bits = _throttled()
    if bits is None:
        return True, "voltage and throttling are not told on this machine"
    if bits & UNDER_VOLTAGE:
        return False, "the voltage is too low now: use a supply and a cable that are made for this board"
    if bits & SLOWED:
        return True, "the board is slowed down now, by heat or by its limits: cool it to make it faster"
    if bits >> SINCE_START & (UNDER_VOLTAGE | SLOWED):
        return True, "well now; since its start the voltage was too low, or the board was slowed down"
    return True, "well since the start"


def storage_found(path: Path) -> str:
    """How fast the disk of a file reads. Raises OSError."""
    found = reading_speed(path)
    source = "from the disk" if found.is_cold else "from the page cache, which kept it"
    return f"{path.name} reads {found.bytes_a_second / 1e6:,.0f} MB a second, {source}"


def parse_throttled(text: str) -> int | None:
    """The bits of `throttled=0x50000`; the file in /sys has the number alone. None for any other text."""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", text.strip())
    return int(found[1], 16) if found else None


def _throttled() -> int | None:
    try:
        return parse_throttled(THROTTLED.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        pass
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=VCGENCMD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_throttled(done.stdout)
