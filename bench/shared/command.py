"""The commands that a user types, each in a process of its own, so that its memory and time are its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def command(*arguments: object) -> dict[str, Any]:
    """Run `sharpzo-edge` with these arguments; returns what --json prints."""
    done = subprocess.run(
        [sys.executable, "-m", "sharpzo_edge", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
