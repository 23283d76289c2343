"""A tune whose weights come from slow storage, such as an SD card; and the part of docs/boards.md on it.

    python bench/slow_storage.py BUNDLE [--queries 130]

A control group limits how fast the bundle's disk is read, another one all memory, page cache included.
The bundle's files are forgotten by the page cache first. Needs root. What is read is counted by the
kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from boards.page import PAGE, SLOW, written
from shared.groups import limited_memory, limited_reading
from shared.machine import describe_machine
from shared.pages import keep_results
from sharpzo_edge.clip.bundle import Bundle
from sharpzo_edge.demo import DEFAULT_TASK, TASKS

MEGABYTES_A_SECOND = (20, 90)  # of SD cards
MEMORY_MIB = (512, 230)  # a board's; and so little that the text tower does not stay in the page cache
TUNE = ("--shots", "1", "--val", "0", "--head", "none", "--change-point", "1", "--threads", "1", "--json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--queries", type=int, default=130)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    rows = [
        measure(given.bundle, speed, memory, given.queries)
        for memory in MEMORY_MIB
        for speed in MEGABYTES_A_SECOND
    ]
    model = Bundle.open(given.bundle).manifest.model
    keep_results({"model": model, "rows": rows, "load": load, "machine": describe_machine()}, SLOW)
    PAGE.write_text(written(), encoding="utf-8")


def measure(bundle: Path, megabytes_a_second: int, memory_mib: int, queries: int) -> dict[str, Any]:
    """One tune of the demo's pictures within 128 MiB."""
    forget(bundle)
    reading = limited_reading(megabytes_a_second * 10**6, bundle / "text.data")
    with limited_memory(memory_mib) as memory, reading as slow, tempfile.TemporaryDirectory() as folder:
        for procs in (memory, slow):
            if isinstance(procs, str):
                raise SystemExit(procs)
        join = f'echo $$ >{memory} && echo $$ >{slow} && exec "$@"'
        words = ["sharpzo_edge", "tune", "--bundle", bundle, "--images", TASKS / DEFAULT_TASK / "train"]
        words += ["--output", Path(folder) / "prompt", "--max-queries", queries, *TUNE]
        command = ["sh", "-c", join, "sh", sys.executable, "-m", *map(str, words)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        read = bytes_read(Path(slow))
    result = json.loads(done.stdout)
    found = {name: result[name] for name in ("queries", "seconds", "peak_rss_mib", "plan")}
    print(megabytes_a_second, memory_mib, read, found, flush=True)
    return {"megabytes_a_second": megabytes_a_second, "memory_mib": memory_mib, "read": read, **found}


def forget(bundle: Path) -> None:
    """Make the page cache forget a bundle's files."""
    for path in bundle.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def bytes_read(procs: Path) -> int:
    """What the processes of a group have read from disks."""
    counted = procs.with_name("blkio.throttle.io_service_bytes")
    if counted.exists():
        lines = counted.read_text().splitlines()
        return sum(int(line.split()[2]) for line in lines if " Read " in line)
    words = procs.with_name("io.stat").read_text().split()
    return sum(int(word.partition("=")[2]) for word in words if word.startswith("rbytes="))


if __name__ == "__main__":
    main()
