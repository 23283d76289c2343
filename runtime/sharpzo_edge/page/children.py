"""Processes that the page starts: of this very package, whatever lies in the working folder."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


async def start(module: str, *words: str, stdin: int = PIPE, stderr: int = PIPE, limit: int) -> Process:
    """`python -m MODULE WORDS`. limit: bytes of the longest line that is read from it.

    It gets a session of its own: a key that ends the page does not end it. The page does, in its own time.
    """
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, *words),
        stdin=stdin,
        stdout=PIPE,
        stderr=stderr,
        limit=limit,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
