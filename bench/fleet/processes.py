"""Members of a fleet in processes of this machine: real ones with a core each, and empty ones.

    python -m fleet.processes SCHEDULER MEMBERS

is members that answer nothing, all in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from sharpzo_edge.fleet.board import Board
from sharpzo_edge.fleet.demo import member_beside, scheduler_beside
from sharpzo_edge.fleet.engine import security_of
from sharpzo_edge.fleet.member import take_part
from sharpzo_edge.run.progress import Caller


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started in the block has this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def members(parts: Sequence[Path], bundle: Path, folder: Path, *options: str) -> Iterator[str]:
    """A member for each folder of pictures, from core 0 on. Yields their scheduler's address."""
    with scheduler_beside(folder, print) as address, contextlib.ExitStack() as started:
        for core, part in enumerate(parts):
            with on_core(core):
                started.enter_context(member_beside(part, bundle, address, *options, say=print))
        yield address


@contextlib.contextmanager
def empty_members(n: int, folder: Path) -> Iterator[str]:
    """n members that answer nothing, in one process. Yields their scheduler's address."""
    with scheduler_beside(folder, print) as address:
        process = subprocess.Popen([sys.executable, "-m", "fleet.processes", address, str(n)])
        try:
            yield address
        finally:
            process.kill()
            process.wait()


def dealt(train: Path, folder: Path, n: int) -> list[Path]:
    """Folders of disjoint pictures: they are dealt out one by one. Every class has a folder everywhere."""
    parts = [folder / f"board-{i + 1}" for i in range(n)]
    for part in parts:
        for of_class in train.iterdir():
            (part / of_class.name).mkdir(parents=True)
    pictures = sorted(train.glob("*/*"), key=lambda file: (file.name, file.parent.name))
    for i, file in enumerate(pictures):
        shutil.copy(file, parts[i % n] / file.parent.name)
    return parts


async def answer_nothing(address: str, n: int, scratch: Path) -> None:
    board, security = cast(Board, SimpleNamespace(answer=lambda message: b"")), security_of(None)
    taking_part = (take_part(board, f"empty-{i}", address, security, scratch, Caller()) for i in range(n))
    await asyncio.gather(*taking_part)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(answer_nothing(sys.argv[1], int(sys.argv[2]), Path(folder)))
