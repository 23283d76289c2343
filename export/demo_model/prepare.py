"""What needs neither torch nor training: `python -m demo_model.prepare --work DIR`, with export/ on the path.

Downloads the packages, renders their pictures, and sorts them into the tasks, shifted styles included. It
takes numpy, pillow, resvg-py, and npm with its registry.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .download import PACKAGES, DownloadError, check, download
from .emoji import Emoji, read_emoji
from .render import TABLE_FILE, render
from .tasks import TABLE_FILE as TASKS_TABLE
from .tasks import TaskError, write_tasks


def prepare(work: Path) -> list[Emoji]:
    """Leave work/npm, work/pictures and work/tasks; returns all emoji."""
    node_modules = work / "npm" / "node_modules"
    step(node_modules / PACKAGES[-1].name, "download", lambda: download(work / "npm"))
    check(node_modules)
    emoji = read_emoji(node_modules)
    step(work / "pictures" / TABLE_FILE, "render", lambda: render(node_modules, emoji, work / "pictures"))
    step(work / "tasks" / TASKS_TABLE, "tasks", lambda: write_tasks(work, emoji, work / "tasks"))
    return emoji


def step(result: Path, name: str, run: Callable[[], object]) -> None:
    """Skipped, and said so, when its result is there."""
    if result.exists():
        print(f"{name}: {result} is there", flush=True)
    else:
        print(f"{name} ...", flush=True)
        run()


def main() -> int:
    parser = argparse.ArgumentParser(description="Render the demo model's pictures and tasks.")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the results go")
    try:
        prepare(parser.parse_args().work)
    except (DownloadError, TaskError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
