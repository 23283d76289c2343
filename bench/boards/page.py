"""docs/boards.md, from bench/results/boards: emulated machines, and figures that real machines sent."""

from __future__ import annotations

import json
from typing import Any

from boards.parts import KINDS
from shared.machine import ROOT, one_line
from shared.pages import markdown_table
from sharpzo_edge.printing import milliseconds

RESULTS = ROOT / "bench" / "results"
EMULATED, SLOW, FIGURES = RESULTS / "emulation.json", RESULTS / "slow_storage.json", RESULTS / "boards"
PAGE = ROOT / "docs" / "boards.md"

HEAD = """# Boards

What was tried on arm64, the processor of a Raspberry Pi. No real board was at hand: the first three
parts are of emulated machines on x86-64. Emulation shows whether an answer is right and, on a booted kernel,
how much memory is taken. It shows no speed.

`sudo make test-arm` writes this page. It builds the wheel as `make dist` does, and tries it part by part.
Every cell of these parts ends in **kept** or **BROKEN**.
"""
USER = """## Is the answer right?

qemu's user emulation, in fresh roots of Debian made by debootstrap. The installation is the README's line
as it is typed, with arm64 wheels alone. "Answers" are class features and tangents of fixed contexts, which
must be within 1 % of x86-64's. A process has the emulator's memory there, so budgets are not tried.
"""
CONTAINER = """## Is its image built?

buildah builds [the Containerfile](board/Containerfile), and the other checks are done in a container of it,
by its own user. No registry is asked: what stands for debian:trixie-slim is a root made by debootstrap, and
pip has the wheels beside it. The emulated processor is a cortex-a76; amd64 is this machine's own.
"""
BOOTED = """## Does it keep its promise?

Debian 13's arm64 kernels, and the newest of its backports, booted by qemu, with the root of Debian 12 as
their disk. Memory is what that kernel says. 420 MiB stand for a Raspberry Pi Zero 2 W, which keeps some of
its 512 for itself; pages of 16 KiB are the Raspberry Pi 5's. The cortex-a53, the Zero's processor, tunes by
tangents in float32, and the cortex-a76, the 5's, by those in 8 bits. "Huge pages" are of every size that
the kernel has.
"""
TITLES = dict(zip(KINDS, (USER, CONTAINER, BOOTED), strict=True))
CARD = """## From a slow card

A tune of {model} within 128 MiB. A control group lets it read the disk no faster than an SD card; another one
limits all memory, page cache included. The page cache has none of the model at first. A pass reads the text
tower once, for all the candidates that share it. `python bench/slow_storage.py BUNDLE` measures it (root).
"""
REAL = """## How fast is it?

`sharpzo-edge doctor --bundle BUNDLE --bench` measures it on your board. The last line that it prints is
JSON. To have it here, put that line into a file in `bench/results/boards`, named for the board, and send
it in a pull request or an issue. `python -m boards.page` in `bench` writes the table.
"""
NO_BOARD = "No figure of a real board has been sent yet. What is here is of a server.\n"


def page(emulated: dict[str, Any], slow: dict[str, Any], figures: list[dict[str, Any]]) -> str:
    parts = [line for kind in KINDS for line in (TITLES[kind], *_cells(emulated[kind]))]
    is_real = any(each["machine"] == "aarch64" for each in figures)
    sent = [REAL, *([] if is_real else [NO_BOARD]), *_figures(figures)]
    return "\n".join([HEAD, _whole(emulated), *parts, CARD.format(**slow), *_slow(slow), *sent])


def _slow(slow: dict[str, Any]) -> list[str]:
    header = ("reading", "all memory", "a pass", "queries", "seconds a query", "read in all", "peak, plan")
    rows = [
        (
            f"{row['megabytes_a_second']} MB/s",
            f"{row['memory_mib']} MiB",
            f"{row['plan']['text']['mode']}, {row['plan']['text']['together']} candidates",
            f"{row['queries']}",
            f"{row['seconds'] / row['queries']:.2f}",
            f"{row['read'] / 1e6:,.0f} MB",
            f"{row['peak_rss_mib']:.0f}, {row['plan']['peak_mib']:.0f} MiB",
        )
        for row in slow["rows"]
    ]
    busy = f" The load was {slow['load']:.0f}, so that seconds are too many."
    told = busy if slow["load"] > slow["machine"]["cores"] else ""
    return [*markdown_table(header, rows), "", f"Measured on {one_line(slow['machine'])}{told}", ""]


def _whole(emulated: dict[str, Any]) -> str:
    n_cells = sum(len(told["cells"]) for kind in KINDS for told in emulated[kind].values())
    if not (whole := emulated.get("whole")):
        return f"These {n_cells} cells were not made by one command: some were tried again later.\n"
    roots = "were there from an earlier run" if whole["warm"] else "were made in this time, too"
    minutes = whole["seconds"] / 60
    return f"One command made these {n_cells} cells in {minutes:.0f} minutes. The roots of Debian {roots}.\n"


def _cells(by_machine: dict[str, Any]) -> list[str]:
    if not by_machine:
        return ["Not run yet.\n"]
    return [line for name, told in by_machine.items() for line in _table(name, told)]


def _table(name: str, told: dict[str, Any]) -> list[str]:
    rows = [
        (cell["check"], cell["found"], f"{cell['seconds']:.0f}", "**kept**" if cell["kept"] else "**BROKEN**")
        for cell in told["cells"]
    ]
    table = markdown_table((name, "found", "seconds", ""), rows)
    minutes = sum(cell["seconds"] for cell in told["cells"]) / 60
    return [*table, "", f"{minutes:.0f} min, on {one_line(told['machine'])}", ""]


def _figures(figures: list[dict[str, Any]]) -> list[str]:
    header = (
        "board",
        "model",
        "a query of 10 classes",
        "a direction",
        "a picture",
        "peak, plan",
        "reading",
        "°C before, after",
    )
    rows = [
        (
            f"{f['board']} ({f['machine']}, {f['cores']} cores, load {f['load']:.0f})",
            f"{f['model']} ({f['weights']})",
            *(milliseconds(f[f"{what}_seconds"]) for what in ("query", "direction", "picture")),
            f"{f['peak_rss_mib']:.0f}, {f['planned_mib']:.0f} MiB",
            f"{f['read_bytes_a_second'] / 1e6:,.0f} MB/s{'' if f['read_is_cold'] else ' (cached)'}",
            ", ".join("–" if each is None else f"{each:.0f}" for each in _celsius(f)),
        )
        for f in figures
    ]
    return markdown_table(header, rows)


def _celsius(figures: dict[str, Any]) -> list[float | None]:
    return [figures["celsius_before"], figures["celsius_after"]]


def written() -> str:
    """The page of the results that are there."""
    emulated, slow = (json.loads(path.read_text(encoding="utf-8")) for path in (EMULATED, SLOW))
    figures = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FIGURES.glob("*.json"))]
    return f"{page(emulated, slow, figures)}\n"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
