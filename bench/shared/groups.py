"""Control groups of Linux, of both versions: hard limits on memory and on how fast a disk is read."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOP = Path("/sys/fs/cgroup")
MIB = 1 << 20


@contextmanager
def limited_memory(limit_mib: int) -> Iterator[Path | str]:
    """A group with a hard limit on its memory: where to write a process's number, or why not."""
    first = (TOP / "memory").is_dir()
    root, limit = (TOP / "memory", "memory.limit_in_bytes") if first else (TOP, "memory.max")
    with _group(root, {limit: str(limit_mib * MIB)}) as procs:
        if isinstance(procs, Path):
            swap = procs.with_name("memory.swap.max")
            if swap.exists() or (swap := procs.with_name("memory.swappiness")).exists():
                swap.write_text("0")
        yield procs


@contextmanager
def limited_reading(bytes_a_second: int, file: Path) -> Iterator[Path | str]:
    """A group that reads from the disk of a file no faster than this; otherwise as limited_memory."""
    device = os.stat(file).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    if (TOP / "blkio").is_dir():
        root, limit, value = TOP / "blkio", "blkio.throttle.read_bps_device", f"{number} {bytes_a_second}"
    else:
        root, limit, value = TOP, "io.max", f"{number} rbps={bytes_a_second}"
    with _group(root, {limit: value}) as procs:
        yield procs


@contextmanager
def _group(root: Path, settings: dict[str, str]) -> Iterator[Path | str]:
    group = root / f"sharpzo-edge-bench-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        yield f"no control group could be made ({error.strerror})"
        return
    try:
        for name, value in settings.items():
            (group / name).write_text(value)
        yield group / "cgroup.procs"
    except OSError as error:
        yield f"the control group cannot be limited ({error.strerror})"
    finally:
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            group.rmdir()


def drop_caches() -> bool:
    """Make the kernel forget the files that it has cached; whether it did."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True
