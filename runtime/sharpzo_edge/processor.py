"""The processor: its kind, and the instructions that make int8 arithmetic fast.

All of it comes from Linux's /proc/cpuinfo. Nothing is known where an emulator passes the host's file through.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MOST_CHARACTERS = 1 << 20  # of the file: a machine with hundreds of cores writes less
# For each kind of processor: the line that lists its instructions, and those of them that multiply int8
# numbers and add up the products in one step. Their names are the kernel's.
FLAGS = {"x86_64": "flags", "aarch64": "features"}
INT8_DOT = {"x86_64": ("avx512_vnni", "avx_vnni"), "aarch64": ("asimddp",)}
INT8_MATRIX = {"x86_64": ("amx_int8",), "aarch64": ("i8mm",)}


@dataclass(frozen=True)
class Processor:
    """machine: such as "aarch64";  name: as the kernel has it, None where it does not tell

    int8_dot, int8_matrix: the instructions for products of int8 numbers that it has, by the kernel's names;
        None where the system does not tell
    """

    machine: str
    name: str | None
    int8_dot: tuple[str, ...] | None
    int8_matrix: tuple[str, ...] | None

    @property
    def has_int8_dot(self) -> bool | None:
        """Whether it has dot products of int8 numbers. None where the system does not tell."""
        return None if self.int8_dot is None else bool(self.int8_dot)


def this_processor() -> Processor:
    """The processor that this process runs on. Never raises."""
    try:
        with open(CPUINFO, encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_CHARACTERS)
    except OSError:
        text = ""
    return parse_cpuinfo(text, platform.machine())


def parse_cpuinfo(text: str, machine: str) -> Processor:
    """What /proc/cpuinfo says. Where cores differ, only what all of them have counts."""
    names: list[str] = []
    flags: list[set[str]] = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == "model name":
            names.append(value.strip())
        elif key.strip().lower() == FLAGS.get(machine):
            flags.append(set(value.split()))
    everywhere = set.intersection(*flags) if flags else None

    def found(wanted: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
        return None if everywhere is None else tuple(f for f in wanted[machine] if f in everywhere)

    return Processor(machine, names[0] if names else None, found(INT8_DOT), found(INT8_MATRIX))
