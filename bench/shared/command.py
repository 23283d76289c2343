"""The commands that a user types, each in a process of its own, so that its memory and time are its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

PICTURE = re.compile(r" (?=\S+\.(?:jpg|png)\b)")


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


def typed(*words: str, exit_code: int = 0) -> dict[str, str]:
    """A command line as a page shows it, each picture on a line of its own, and what it prints and says.

    printed: on standard output;  said: on standard error
    Ends the program when the command ends with another code than exit_code.
    """
    done = subprocess.run([sys.executable, "-m", "sharpzo_edge", *words], capture_output=True, text=True)
    if done.returncode != exit_code:
        raise SystemExit(f"{words} ended with {done.returncode}: {done.stderr}")
    line = PICTURE.sub(" \\\\\n  ", " ".join(("sharpzo-edge", *words)))
    return {"line": line, "printed": done.stdout, "said": done.stderr}
